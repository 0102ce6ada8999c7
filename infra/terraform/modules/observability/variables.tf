# -- where -------------------------------------------------------------------------------------------------------------
variable "environment" {
  description = "Name of the environment: dev, staging, prod, local."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", var.environment)) && length(var.environment) <= 32
    error_message = "Small letters and digits, parted by single hyphens; at most 32 characters."
  }
}

variable "region" {
  description = "AWS region of the environment."
  type        = string
}

variable "account_id" {
  description = "Account of the environment."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "An account id has twelve digits."
  }
}

variable "partition" {
  description = "Partition of the account, as in every ARN."
  type        = string
  default     = "aws"
}

variable "kms_key_arn" {
  description = "The logs key of module encryption: encrypts the topic and the log group of task deaths. Its policy lets alarms, events, budgets and logs use it."
  type        = string
}

# -- who is told -------------------------------------------------------------------------------------------------------
variable "alert_emails" {
  description = "Addresses that every alarm is mailed to. Each must confirm its subscription once."
  type        = set(string)
  default     = []

  validation {
    condition     = alltrue([for address in var.alert_emails : can(regex("^[^@\\s]+@[^@\\s]+\\.[^@\\s]+$", address))])
    error_message = "Each must be an e-mail address."
  }
}

variable "webhook_url" {
  description = "Where every alarm is posted to, such as an on-call service; https only. Empty: nowhere. It holds a key: secret."
  type        = string
  default     = ""
  sensitive   = true

  validation {
    condition     = var.webhook_url == "" || startswith(var.webhook_url, "https://")
    error_message = "A webhook is reached over https."
  }
}

variable "central_topic_arn" {
  description = "Topic in the monitoring account that collects the alarms of all environments (module cross-account). Empty: none."
  type        = string
  default     = ""
}

# -- what is watched ---------------------------------------------------------------------------------------------------
variable "cluster_name" {
  description = "ECS cluster of the services: avesa-{env}."
  type        = string
}

variable "services" {
  description = <<-EOT
    The ECS services, by name (avesa-{service}-{env}, avesa-{service}-{group}-{env}).
    service: extractor, transformer or compactor. group: the dimension `Group` of its metrics: the service itself,
    transformer-{group} as `avesa transformer --group` says, or for an extractor bound to vendors
    extractor-{vendors, sorted, joined by -} as `avesa extractor --services` says. max_tasks: where its scaling ends.
  EOT
  type = map(object({
    service        = string
    group          = string
    log_group_name = string
    max_tasks      = number
  }))

  validation {
    condition     = alltrue([for one in var.services : contains(["extractor", "transformer", "compactor"], one.service)])
    error_message = "A service is an extractor, a transformer or a compactor."
  }
}

variable "stream_names" {
  description = "Names of the streams, by kind: raw, canonical."
  type        = object({ raw = string, canonical = string })
}

variable "source_account_id" {
  description = "In the monitoring account: the account of an environment to be watched from here. Its metrics and logs come over the OAM link. Empty: none."
  type        = string
  default     = ""
}

variable "source_environment" {
  description = "In the monitoring account: the environment in source_account_id that gets a dashboard here."
  type        = string
  default     = "prod"
}

variable "source_services" {
  description = "The services of source_environment, as in `services`."
  type        = map(object({ service = string, group = string, log_group_name = string }))
  default     = {}
}

# -- thresholds --------------------------------------------------------------------------------------------------------
variable "tiers" {
  description = "By tenant tier (services/contracts/log.py: TIERS): how many seconds later than promised an endpoint may be read before somebody is told."
  type        = map(object({ late_max_s = number }))
  default = {
    premium  = { late_max_s = 300 }
    standard = { late_max_s = 900 }
    basic    = { late_max_s = 3600 }
  }
}

variable "thresholds" {
  description = "Where alarms ring. Each stands beside its alarm in alarms.tf; periods are there too."
  type = object({
    shards_behind_ms      = optional(number, 300000)
    iterator_age_ms       = optional(number, 600000)
    lake_behind_s         = optional(number, 1800)
    records_rejected      = optional(number, 100)
    endpoints_failed      = optional(number, 30)
    vendor_throttled      = optional(number, 3000)
    write_throttles       = optional(number, 100)
    puts_refused          = optional(number, 10)
    kinesis_bytes_per_day = optional(number, 50000000000)
  })
  default = {}
}

variable "budget_usd_per_month" {
  description = "What the environment may cost; told at 80 % and when the forecast says that it will be more. Counts what carries the tag budget_tag."
  type        = number
  default     = 500
}

variable "budget_tag" {
  description = "Cost allocation tag, and its value, of all that belongs to the environment. Must be activated once in the billing console."
  type        = object({ key = string, value = string })
  default     = null
}

variable "features" {
  description = "What is created besides alarms, topic and dashboard; the emulator lacks some of it."
  type = object({
    composite_alarms = optional(bool, true)
    budgets          = optional(bool, true)
    saved_queries    = optional(bool, true)
    task_deaths      = optional(bool, true)
  })
  default = {}
}

variable "runbook_url" {
  description = "Where docs/runbook.md can be read; alarm descriptions link to its sections."
  type        = string
  default     = "docs/runbook.md"
}

variable "log_retention_days" {
  description = "How long the log group of task deaths keeps its events."
  type        = number
  default     = 365
}
