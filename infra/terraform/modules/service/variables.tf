# -- which ------------------------------------------------------------------------------------------------------------
variable "environment" {
  description = "Name of the environment: part of every name, so it never changes."
  type        = string

  validation {
    condition     = length(var.environment) <= 20 && can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", var.environment))
    error_message = "Small letters, digits and single hyphens, at most 20 characters: a role's name has 64 in all."
  }
}

variable "account_id" {
  description = "Account of the environment: the only one whose ECS may hand out the role."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "An account id has twelve digits."
  }
}

variable "region" {
  description = "AWS region of the environment."
  type        = string
}

variable "partition" {
  description = "AWS partition: aws, aws-us-gov or aws-cn."
  type        = string
  default     = "aws"
}

variable "service" {
  description = "extractor, transformer or compactor: one of the commands of the image."
  type        = string

  validation {
    condition     = contains(["extractor", "transformer", "compactor"], var.service)
    error_message = "One of extractor, transformer, compactor."
  }
}

variable "group" {
  description = "Name of the group where several fleets share the work of a service; empty: the one that takes the rest."
  type        = string
  default     = ""

  validation {
    condition     = var.group == "" || (length(var.group) <= 20 && can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", var.group)))
    error_message = "Small letters, digits and single hyphens, at most 20 characters."
  }
}

variable "metric_group" {
  description = "Dimension Group of the metrics that this fleet emits: services/contracts/log.py."
  type        = string
}

# -- what runs --------------------------------------------------------------------------------------------------------
variable "cluster_arn" {
  description = "ECS cluster; its capacity providers are FARGATE and FARGATE_SPOT."
  type        = string
}

variable "image" {
  description = "Image by digest, so that a rollback brings back the bytes that ran."
  type        = string
}

variable "command" {
  description = "Arguments of the image's `avesa`, the name of the service first."
  type        = list(string)

  validation {
    condition     = length(var.command) > 0 && var.command[0] == var.service
    error_message = "The first word is the service."
  }
}

variable "variables" {
  description = "Environment variables: services/runtime/settings.py. Nothing secret: they show in the console."
  type        = map(string)
  default     = {}

  validation {
    condition     = !anytrue([for name in keys(var.variables) : can(regex("SECRET|PASSWORD|TOKEN|ACCESS_KEY", name))])
    error_message = "A secret does not belong into an environment variable; credentials are in Secrets Manager, AWS keys come with the role."
  }
}

variable "size" {
  description = "Fargate's cpu units and memory (MiB), and its disk (GiB, 20 without extra cost)."
  type        = object({ cpu = number, memory = number, disk_gib = optional(number, 20) })

  validation {
    condition = contains(lookup({
      "256"  = [512, 1024, 2048]
      "512"  = range(1024, 4097, 1024)
      "1024" = range(2048, 8193, 1024)
      "2048" = range(4096, 16385, 1024)
      "4096" = range(8192, 30721, 1024)
      "8192" = range(16384, 61441, 4096)
    }, tostring(var.size.cpu), []), var.size.memory)
    error_message = "Fargate has no such size: AWS documentation, \"Task CPU and memory\"."
  }

  validation {
    condition     = var.size.disk_gib >= 20 && var.size.disk_gib <= 200
    error_message = "20 to 200 GiB."
  }
}

variable "architecture" {
  description = "ARM64 (about a fifth cheaper) or X86_64; the image must have it."
  type        = string
  default     = "ARM64"

  validation {
    condition     = contains(["ARM64", "X86_64"], var.architecture)
    error_message = "ARM64 or X86_64."
  }
}

variable "stop_s" {
  description = "Seconds the service takes to finish and commit what it has in hand: AVESA_STOP_S."
  type        = number
  default     = 25

  validation {
    condition     = var.stop_s >= 1 && var.stop_s <= 110
    error_message = "1 to 110: Fargate kills after at most 120 s, and some of that is needed to let go of leases."
  }
}

# -- how many ---------------------------------------------------------------------------------------------------------
variable "tasks" {
  description = "Tasks at the first start, at least and at most. `max` is never more than there is work to share."
  type        = object({ initial = number, min = number, max = number })

  validation {
    condition     = 0 <= var.tasks.min && var.tasks.min <= var.tasks.initial && var.tasks.initial <= var.tasks.max
    error_message = "min <= initial <= max."
  }
}

variable "capacity" {
  description = "Which Fargate: `on_demand_base` tasks are on demand, the rest in the ratio of the two weights."
  type        = object({ on_demand_base = number, on_demand_weight = number, spot_weight = number })

  validation {
    condition     = var.capacity.on_demand_weight + var.capacity.spot_weight > 0
    error_message = "One of the weights must be greater than 0."
  }
}

variable "scaling" {
  description = <<-EOT
    When the number of tasks changes; null: never.
    lag: by AVESA ShardsBehindMs of this fleet, the greatest of a minute; more above `out_above_ms` for three minutes,
    fewer below `in_below_ms` for fifteen. cpu_percent: by the average use of the processors, for a service without
    shards. One of the two.
  EOT
  type = object({
    lag         = optional(object({ out_above_ms = number, in_below_ms = number }))
    cpu_percent = optional(number)
  })
  default = null

  validation {
    condition     = var.scaling == null || (try(var.scaling.lag, null) == null) != (try(var.scaling.cpu_percent, null) == null)
    error_message = "Either lag or cpu_percent."
  }

  validation {
    condition     = try(var.scaling.lag.in_below_ms < var.scaling.lag.out_above_ms / 2, true)
    error_message = "Between in_below_ms and out_above_ms lies a factor of two at least, or the fleet would swing."
  }
}

variable "wait_s" {
  description = "Seconds that an apply waits until the new tasks run and the old are gone; 0: it does not wait."
  type        = number
  default     = 900
}

# -- where ------------------------------------------------------------------------------------------------------------
variable "subnet_ids" {
  description = "Private subnets."
  type        = list(string)
}

variable "security_group_ids" {
  description = "Security groups: out on 443, nothing in."
  type        = list(string)
}

# -- what it may ------------------------------------------------------------------------------------------------------
variable "execution_role_arn" {
  description = "Role by which ECS pulls the image and writes the log; never the task's own."
  type        = string
}

variable "permissions" {
  description = "Everything the service may do in AWS: one statement for each reason. Exact actions; no `*` as a resource."
  type = list(object({
    sid        = string
    effect     = optional(string, "Allow")
    actions    = set(string)
    resources  = set(string)
    conditions = optional(list(object({ test = string, key = string, values = set(string) })), [])
  }))

  validation {
    condition     = alltrue([for one in var.permissions : !anytrue([for action in one.actions : strcontains(action, "*")])])
    error_message = "Name every action: no wildcard."
  }

  validation {
    condition     = alltrue([for one in var.permissions : length(one.actions) > 0 && length(one.resources) > 0 && !contains(one.resources, "*")])
    error_message = "Every statement names actions and resources; \"*\" is none."
  }

  validation {
    condition     = length(distinct(var.permissions[*].sid)) == length(var.permissions)
    error_message = "Every sid once."
  }
}

variable "permissions_boundary_arn" {
  description = "Boundary that bootstrap asks of every role; null: none."
  type        = string
  default     = null
}

# -- what it says -----------------------------------------------------------------------------------------------------
variable "log_kms_key_arn" {
  description = "Key that encrypts the log group."
  type        = string
}

variable "log_retention_days" {
  description = "How long the log is kept. The lake is the record; the log is for whoever operates."
  type        = number
  default     = 365
}

variable "keep_logs" {
  description = "The log outlives the service: Terraform forgets it instead of deleting it."
  type        = bool
  default     = false
}
