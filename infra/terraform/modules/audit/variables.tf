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

variable "kms_key_arn" {
  description = "The logs key: encrypts the trail's files."
  type        = string
}

variable "protected" {
  description = "Never delete the trail's bucket while it holds files, and let nobody change a file for `lock_days`."
  type        = bool
}

variable "lake_bucket_arn" {
  description = "Bucket whose object calls are recorded."
  type        = string
}

variable "watched_key_arns" {
  description = "Keys whose disabling or deletion rings at once: without its key, data is gone for good."
  type        = list(string)
}

variable "topic_arn" {
  description = "Topic that hears of changes to secrets, keys and the trail itself."
  type        = string
}

variable "excluded_prefixes" {
  description = "Key prefixes of the lake left out of the data events to save cost, such as \"_avesa/\". Empty: everything is recorded."
  type        = list(string)
  default     = []
}

variable "retention_days" {
  description = "Days the trail's files are kept."
  type        = number
  default     = 400
}

variable "lock_days" {
  description = "Days during which nobody can delete or change a file of the trail (object lock, governance mode; only where protected)."
  type        = number
  default     = 90
}
