variable "environment" {
  description = "Name of the environment: part of every name, so it never changes."
  type        = string

  validation {
    condition     = length(var.environment) <= 32 && can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", var.environment))
    error_message = "Small letters, digits and single hyphens, at most 32 characters (as services/runtime/settings.py)."
  }
}

variable "account_id" {
  description = "Account the resources live in."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "An account id has twelve digits."
  }
}

variable "region" {
  description = "Region the resources live in. A variable, because provider 5 and 6 name the data source's attribute differently."
  type        = string
}

variable "partition" {
  description = "Partition of the account, as in every ARN."
  type        = string
  default     = "aws"
}

variable "bucket" {
  description = "Full name of the bucket: data-storage-msp-{environment}."
  type        = string
}

variable "kms_key_arn" {
  description = "The data key: encrypts every object."
  type        = string
}

variable "protected" {
  description = "Never delete a bucket that holds objects, even on destroy."
  type        = bool
}

variable "noncurrent_days" {
  description = "Days an overwritten or deleted object can still be brought back. Erasure of a person is complete only after them."
  type        = number
  default     = 30

  validation {
    condition     = var.noncurrent_days >= 1
    error_message = "At least one day."
  }
}

variable "system_noncurrent_days" {
  description = "The same for `_avesa/` (spool, state, cuts, query results): the services replace these all day."
  type        = number
  default     = 3

  validation {
    condition     = var.system_noncurrent_days >= 1 && var.system_noncurrent_days <= var.noncurrent_days
    error_message = "At least one day, and no longer than the lake itself."
  }
}

variable "tiering_days" {
  description = "Days after which objects over 128 KB move to Intelligent-Tiering (raw and canonical files are kept for ever and rarely read); null: never."
  type        = number
  default     = null
}

variable "query_result_days" {
  description = "Days an Athena result is kept."
  type        = number
  default     = 7
}

variable "query_bytes_max" {
  description = "Bytes one Athena query may scan before it is cancelled; at least 10 MB (Athena's own bound)."
  type        = number
  default     = 1099511627776

  validation {
    condition     = var.query_bytes_max >= 10485760
    error_message = "Athena takes 10 MB or more."
  }
}
