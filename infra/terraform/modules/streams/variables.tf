variable "environment" {
  description = "Name of the environment: part of every name, so it never changes."
  type        = string

  validation {
    condition     = length(var.environment) <= 32 && can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", var.environment))
    error_message = "Small letters, digits and single hyphens, at most 32 characters (as services/runtime/settings.py)."
  }
}

variable "kms_key_arn" {
  description = "The data key: encrypts the records."
  type        = string
}

variable "streams" {
  description = "Streams by short name (raw, canonical). `shards` counts only in mode PROVISIONED; on-demand streams size themselves."
  type = map(object({
    mode                = optional(string, "ON_DEMAND")
    shards              = optional(number, 2)
    retention_hours     = optional(number, 168)
    shard_level_metrics = optional(list(string), [])
  }))

  validation {
    condition     = alltrue([for stream in values(var.streams) : contains(["ON_DEMAND", "PROVISIONED"], stream.mode)])
    error_message = "Mode is ON_DEMAND or PROVISIONED."
  }

  validation {
    condition     = alltrue([for stream in values(var.streams) : stream.retention_hours >= 24 && stream.retention_hours <= 8760])
    error_message = "Retention is a day to a year: 24 to 8760 hours."
  }

  validation {
    condition     = alltrue([for stream in values(var.streams) : stream.shards >= 1])
    error_message = "A stream has one shard or more."
  }
}
