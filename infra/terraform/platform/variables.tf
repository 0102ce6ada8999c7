# -- where ------------------------------------------------------------------------------------------------------------
variable "environment" {
  description = "Name of the environment: dev, staging, prod, or another. Part of every name but production's tables, so it never changes."
  type        = string

  validation {
    condition     = length(var.environment) <= 20 && can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", var.environment))
    error_message = "Small letters, digits and single hyphens, at most 20 characters (services/runtime/settings.py)."
  }

  validation {
    condition     = !contains(["production", "prd", "development", "stage"], var.environment)
    error_message = "Production is called prod, the others dev and staging: names and safety rules depend on it."
  }
}

variable "account_id" {
  description = "The one account this environment may be applied to."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "An account id has twelve digits."
  }
}

variable "region" {
  description = "AWS region."
  type        = string
  default     = "us-east-2"

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "A region, such as us-east-2."
  }
}

variable "partition" {
  description = "AWS partition: aws, aws-us-gov or aws-cn."
  type        = string
  default     = "aws"

  validation {
    condition     = contains(["aws", "aws-us-gov", "aws-cn"], var.partition)
    error_message = "One of aws, aws-us-gov, aws-cn."
  }
}

variable "permissions_boundary_arn" {
  description = "Boundary that bootstrap (module ci-oidc) asks of every role of this environment; null: there is none."
  type        = string
  default     = null
}

variable "emulator_endpoint" {
  description = "Address of a local AWS emulator, such as http://127.0.0.1:4570; null: AWS itself."
  type        = string
  default     = null

  validation {
    condition     = var.emulator_endpoint == null || can(regex("^http://(127\\.0\\.0\\.1|localhost)(:[0-9]+)?$", var.emulator_endpoint))
    error_message = "An emulator answers on this machine: http://127.0.0.1:PORT."
  }

  validation {
    condition     = var.emulator_endpoint == null || !contains(["dev", "staging", "prod"], var.environment)
    error_message = "An environment that lives in an account is not applied to an emulator."
  }
}

variable "tags" {
  description = "Tags for everything, besides Project, Environment and ManagedBy: a cost centre, say."
  type        = map(string)
  default     = {}

  # What a role may do with a key or a network depends on the tag Environment (modules/ci-oidc): with another one, no
  # task could read a row any more. AWS compares tag keys with their case, IAM without.
  validation {
    condition     = length(setintersection([for name in keys(var.tags) : lower(name)], ["project", "environment", "managedby"])) == 0
    error_message = "Project, Environment and ManagedBy are given: rights depend on them."
  }
}

variable "protected" {
  description = "Tables, lake and trail refuse to be deleted while they hold data."
  type        = bool

  validation {
    condition     = var.protected || var.environment != "prod"
    error_message = "Production is protected."
  }
}

# -- network ----------------------------------------------------------------------------------------------------------
variable "network" {
  description = "Addresses and zones of the VPC, how tasks reach vendors, and AWS services reached without NAT (modules/network)."
  type = object({
    cidr                = string
    availability_zones  = list(string)
    nat                 = string
    interface_endpoints = optional(list(string), [])
    flow_logs           = optional(bool, true)
  })

  validation {
    condition     = var.network.nat == "per_az" || var.environment != "prod"
    error_message = "Production has a NAT gateway in each zone: one zone's end is not the end of extraction."
  }

  validation {
    condition     = var.network.flow_logs || var.environment != "prod"
    error_message = "Production records its connections."
  }

  validation {
    condition     = alltrue([for zone in var.network.availability_zones : startswith(zone, var.region)])
    error_message = "The zones lie in the region."
  }
}

# -- data -------------------------------------------------------------------------------------------------------------
variable "streams" {
  description = <<-EOT
    The two streams. shards: how many there are (PROVISIONED), or are expected (ON_DEMAND, which begins with four and
    grows by itself): no fleet gets more tasks than there are shards to share.
  EOT
  type = object({
    raw = optional(object({
      mode            = optional(string, "ON_DEMAND")
      shards          = optional(number, 4)
      retention_hours = optional(number, 168)
    }), {})
    canonical = optional(object({
      mode            = optional(string, "ON_DEMAND")
      shards          = optional(number, 4)
      retention_hours = optional(number, 168)
    }), {})
  })
  default = {}

  validation {
    condition     = var.streams.raw.retention_hours == var.streams.canonical.retention_hours
    error_message = "One retention for both: AVESA_RETENTION_S tells the services, and there is one of it."
  }

  validation {
    condition     = var.environment != "prod" || var.streams.raw.retention_hours >= 168
    error_message = "Production keeps a week at least: that long may a fleet be down without a gap."
  }
}

variable "lake" {
  description = "How long what was overwritten or deleted can still be brought back, and how much one query may read (modules/lake)."
  type = object({
    noncurrent_days        = optional(number, 30)
    system_noncurrent_days = optional(number, 3)
    query_bytes_max        = optional(number, 1099511627776)
  })
  default = {}

  # S3 ends all versions that are older within a day or two, and nothing asks again.
  validation {
    condition     = var.environment != "prod" || var.lake.noncurrent_days >= 7
    error_message = "In production what was overwritten or deleted can be brought back for a week at least."
  }
}

variable "secret_operator_arns" {
  description = "Who may store credentials besides the extractors: ARN patterns of the roles that run `avesa setup-service` (modules/encryption)."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.secret_operator_arns : strcontains(arn, ":iam::${var.account_id}:")])
    error_message = "Roles of this environment's account."
  }
}

# -- services ---------------------------------------------------------------------------------------------------------
variable "image" {
  description = "The image by digest: REPOSITORY@sha256:... (`make deploy` builds and passes it)."
  type        = string

  validation {
    condition     = can(regex("@sha256:[0-9a-f]{64}$", var.image))
    error_message = "An image is named by its digest: a tag may be another image tomorrow."
  }
}

variable "architecture" {
  description = "ARM64 (Graviton, about a fifth cheaper) or X86_64."
  type        = string
  default     = "ARM64"
}

variable "capacity" {
  description = "Of each fleet: how many tasks are on demand for sure, and the ratio of on demand to Spot beyond. Spot is reclaimed with two minutes' notice, which is enough to drain."
  type = object({
    on_demand_base   = number
    on_demand_weight = number
    spot_weight      = number
  })
  default = { on_demand_base = 1, on_demand_weight = 1, spot_weight = 0 }

  validation {
    condition     = var.environment != "prod" || var.capacity.on_demand_base >= 1
    error_message = "In production one task of each fleet is on demand."
  }
}

variable "services" {
  description = "Size and number of tasks by service; a group takes its service's, where it has none of its own. `max` is cut to the shards there are."
  type = object({
    extractor   = optional(object({ cpu = optional(number, 512), memory = optional(number, 1024), disk_gib = optional(number, 20), min = optional(number, 1), max = optional(number, 4) }), {})
    transformer = optional(object({ cpu = optional(number, 512), memory = optional(number, 2048), disk_gib = optional(number, 20), min = optional(number, 1), max = optional(number, 4) }), {})
    compactor   = optional(object({ cpu = optional(number, 1024), memory = optional(number, 4096), disk_gib = optional(number, 30), min = optional(number, 1), max = optional(number, 4) }), {})
  })
  default = {}

  validation {
    condition     = alltrue([for one in values(var.services) : one.min >= 1 && one.min <= one.max])
    error_message = "At least one task of each service, and min <= max: AWS turns nothing on for an event, somebody must be there to read."
  }
}

variable "extractor_groups" {
  description = <<-EOT
    Fleets of extractors bound to some vendors, by name: a service, a role, a log and scaling each. Only their role reads
    these vendors' secrets. The fleet without a name serves all other vendors, by name too; it is left out when none is
    left. Whoever moves a vendor from one fleet to another loses nothing: a lease decides who reads.
  EOT
  type = map(object({
    services = set(string)
    cpu      = optional(number)
    memory   = optional(number)
    min      = optional(number)
    max      = optional(number)
  }))
  default = {}

  validation {
    condition     = alltrue([for name in keys(var.extractor_groups) : length(name) <= 20 && can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", name))])
    error_message = "Names of small letters, digits and single hyphens, at most 20 characters."
  }

  validation {
    condition     = alltrue([for one in values(var.extractor_groups) : length(one.services) > 0])
    error_message = "A group has one vendor or more."
  }

  validation {
    condition     = length(setsubtract(flatten([for one in values(var.extractor_groups) : tolist(one.services)]), local.vendors)) == 0
    error_message = "There is no integration of that name in mappings/integrations, nor in own_mappings."
  }

  validation {
    condition     = length(flatten([for one in values(var.extractor_groups) : tolist(one.services)])) == length(distinct(flatten([for one in values(var.extractor_groups) : tolist(one.services)])))
    error_message = "A vendor is in one group."
  }
}

variable "transformer_groups" {
  description = <<-EOT
    Fleets of transformers bound to some canonical tables, by name, with positions, scaling and failure of their own. The
    fleet without a name leaves these tables to them. A group never takes back a table that it left (docs/scaling.md):
    to undo one, give its tables to a group of a new name. fan_out: its reads are pushed, out of a throughput of its own;
    from the third reader of the raw stream on it needs that.
  EOT
  type = map(object({
    tables  = set(string)
    fan_out = optional(bool, false)
    cpu     = optional(number)
    memory  = optional(number)
    min     = optional(number)
    max     = optional(number)
  }))
  default = {}

  validation {
    condition     = alltrue([for name in keys(var.transformer_groups) : length(name) <= 20 && can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", name))])
    error_message = "Names of small letters, digits and single hyphens, at most 20 characters."
  }

  validation {
    condition     = alltrue([for one in values(var.transformer_groups) : length(one.tables) > 0])
    error_message = "A group has one table or more."
  }

  validation {
    condition     = length(setsubtract(flatten([for one in values(var.transformer_groups) : tolist(one.tables)]), local.tables)) == 0
    error_message = "There is no canonical table of that name in mappings/canonical, nor in own_mappings."
  }

  validation {
    condition     = length(flatten([for one in values(var.transformer_groups) : tolist(one.tables)])) == length(distinct(flatten([for one in values(var.transformer_groups) : tolist(one.tables)])))
    error_message = "A table is in one group: two would map every event of it twice."
  }
}

variable "own_mappings" {
  description = "A folder of your own mapping files in the image (`--mappings`), and what it adds to ours. stores_tokens: its vendor gives a new refresh token with each answer."
  type = object({
    folder       = string
    integrations = optional(map(object({ stores_tokens = optional(bool, false) })), {})
    tables       = optional(set(string), [])
  })
  default = null
}

variable "scaling" {
  description = "When a fleet grows and shrinks (modules/service)."
  type = object({
    out_above_ms = optional(number, 60000)
    in_below_ms  = optional(number, 5000)
    cpu_percent  = optional(number, 60)
  })
  default = {}
}

variable "stop_s" {
  description = "Seconds a service takes to finish and commit when it is asked to stop."
  type        = number
  default     = 25
}

variable "settings" {
  description = "Further settings of the services: AVESA_... variables of services/runtime/settings.py."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.settings) : can(regex("^AVESA_[A-Z_]+$", name))])
    error_message = "Names begin with AVESA_."
  }

  validation {
    condition     = length(setintersection(keys(var.settings), ["AVESA_EMF", "AVESA_STATE_DIR", "AVESA_STOP_S", "AVESA_RETENTION_S", "AVESA_FAN_OUT"])) == 0
    error_message = "This one follows from other variables of this root."
  }
}

# -- watching ---------------------------------------------------------------------------------------------------------
variable "alert_emails" {
  description = "Addresses that alarms are mailed to; each must confirm once."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.alert_emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", address))])
    error_message = "Each must be an e-mail address."
  }

  validation {
    condition     = var.environment != "prod" || length(var.alert_emails) > 0
    error_message = "Somebody hears of production's alarms."
  }
}

variable "webhook_url" {
  description = "Where alarms are posted to besides, https; empty: nowhere. It holds a key: pass it as TF_VAR_webhook_url."
  type        = string
  default     = ""
  sensitive   = true
}

variable "thresholds" {
  description = "Where alarms ring, where it is not at their defaults: names and defaults in modules/observability."
  type        = map(number)
  default     = {}

  # Terraform drops what a module does not know without a word.
  validation {
    condition     = length(setsubtract(keys(var.thresholds), flatten(regexall("([a-z_]+) *= optional\\(number", file("${path.module}/../modules/observability/variables.tf"))))) == 0
    error_message = "The module knows no such threshold."
  }
}

variable "budget_usd_per_month" {
  description = "What the environment may cost; told at 80 % of it, and when the forecast says that it will be more."
  type        = number
  default     = 500

  validation {
    condition     = var.budget_usd_per_month > 0
    error_message = "More than nothing."
  }
}

variable "log_retention_days" {
  description = "How long logs are kept."
  type        = number
  default     = 365

  validation {
    condition     = var.environment != "prod" || var.log_retention_days >= 365
    error_message = "Production's logs are kept for a year."
  }
}

variable "monitoring" {
  description = <<-EOT
    Who watches from another account (modules/cross-account): the account, what this environment is to it, and, once the
    monitoring account has been applied, its sink. In the monitoring account: alert_emails, who is mailed the alarms of
    every environment (an address that is in an environment's own alert_emails too gets that one's twice); source_services,
    production's services, for its dashboard here.
  EOT
  type = object({
    mode               = optional(string, "none")
    account_id         = optional(string)
    source_account_ids = optional(list(string), [])
    sink_arn           = optional(string)
    alert_emails       = optional(set(string), [])
    source_services    = optional(map(object({ service = string, group = string, log_group_name = string })), {})
  })
  default = {}

  validation {
    condition     = alltrue([for address in var.monitoring.alert_emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", address))])
    error_message = "Each must be an e-mail address."
  }

  validation {
    condition     = var.monitoring.mode == "monitoring" || length(var.monitoring.alert_emails) == 0
    error_message = "The topic that collects every environment's alarms is in the monitoring account: its addresses belong there."
  }

  # The dashboard of the other account is of one environment, and the policies name each account.
  validation {
    condition     = length(var.monitoring.source_account_ids) <= 1 || length(var.monitoring.source_services) == 0
    error_message = "The dashboard of the watched account is of one account: with several, leave source_services out."
  }
}

variable "features" {
  description = "What is created. All of it in an account; an emulator lacks some."
  type = object({
    autoscaling        = optional(bool, true)
    budgets            = optional(bool, true)
    cloudtrail         = optional(bool, true)
    composite_alarms   = optional(bool, true)
    container_insights = optional(bool, true)
    oam                = optional(bool, true)
    saved_queries      = optional(bool, true)
    task_deaths        = optional(bool, true)
    wait_for_services  = optional(bool, true)
  })
  default = {}

  validation {
    condition     = var.environment != "prod" || alltrue(values(var.features))
    error_message = "Production has all of it."
  }
}
