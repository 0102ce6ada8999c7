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

variable "secret_operator_arns" {
  description = <<-TEXT
    Who besides the extractors may use the secrets key: ARN patterns of the roles that run `avesa setup-service`,
    such as "arn:aws:iam::111122223333:role/aws-reserved/sso.amazonaws.com/*AWSReservedSSO_Operator_*": between them stands
    the region of the identity center, or nothing where that is us-east-1.
    IAM must allow them too. Empty: nobody but the extractors, so no credentials can be stored.
  TEXT
  type        = list(string)

  validation {
    condition     = alltrue([for arn in var.secret_operator_arns : can(regex("^arn:[a-z-]+:iam::[0-9]{12}:(role|user)/.+", arn))])
    error_message = "Each is the ARN (pattern) of a role or user in one account; the account itself cannot be a wildcard."
  }
}

variable "alarm_source_account_ids" {
  description = "Other accounts whose CloudWatch alarms publish to an encrypted topic here (the monitoring account names production)."
  type        = list(string)
  default     = []
}

variable "deletion_window_days" {
  description = "Days between the deletion of a key and its end. What it encrypted is lost after that."
  type        = number
  default     = 30

  validation {
    condition     = var.deletion_window_days >= 7 && var.deletion_window_days <= 30
    error_message = "KMS takes 7 to 30 days."
  }
}
