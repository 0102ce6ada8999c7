variable "environment" {
  description = "Name of the environment: part of every name, so it never changes."
  type        = string

  validation {
    condition     = length(var.environment) <= 32 && can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", var.environment))
    error_message = "Small letters, digits and single hyphens, at most 32 characters (as services/runtime/settings.py)."
  }
}

variable "kms_key_arn" {
  description = "The data key: encrypts tables, indexes and backups."
  type        = string
}

variable "protected" {
  description = "Deletion protection. Point-in-time recovery is always on."
  type        = bool
}

variable "names" {
  description = "Full name of each table: the root knows the rule (production has no suffix)."
  type = object({
    tenant_services = string
    last_updated    = string
    leases          = string
    backfill_jobs   = string
  })
}
