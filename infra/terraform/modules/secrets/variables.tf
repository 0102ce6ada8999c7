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
  description = "The secrets key."
  type        = string
}

variable "data_kms_key_arn" {
  description = "The data key: encrypts the tables."
  type        = string
}

variable "table_arns" {
  description = "Tables whose rows say which services are connected."
  type        = list(string)

  validation {
    condition     = alltrue([for arn in var.table_arns : !strcontains(arn, "*")])
    error_message = "Named exactly."
  }
}
