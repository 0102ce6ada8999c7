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
  description = "The logs key: encrypts the flow log group."
  type        = string
}

variable "cidr" {
  description = "Addresses of the VPC, /16 to /20. Each zone takes a sixteenth for private and a sixteenth for public subnets."
  type        = string

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && tonumber(split("/", var.cidr)[1]) >= 16 && tonumber(split("/", var.cidr)[1]) <= 20
    error_message = "A CIDR block of /16 to /20, such as 10.20.0.0/16."
  }
}

variable "availability_zones" {
  description = "Names of two or three zones. Their order gives the subnets' addresses: append, never reorder."
  type        = list(string)

  validation {
    condition     = length(var.availability_zones) >= 2 && length(var.availability_zones) <= 3 && length(distinct(var.availability_zones)) == length(var.availability_zones)
    error_message = "Two or three different zones."
  }
}

variable "nat" {
  description = "Way out: \"single\" gateway, one \"per_az\", or \"none\" (then nothing reaches a vendor, and AWS only through endpoints)."
  type        = string

  validation {
    condition     = contains(["none", "single", "per_az"], var.nat)
    error_message = "One of none, single, per_az."
  }
}

variable "interface_endpoints" {
  description = "AWS services reached without NAT, by the last part of the service name, such as \"kinesis-streams\". About 7 USD a month each and zone; pays from 400 GB a month."
  type        = list(string)
  default     = []
}

variable "flow_logs" {
  description = "Record refused and accepted connections."
  type        = bool
  default     = true
}

variable "log_retention_days" {
  description = "Days the flow logs are kept."
  type        = number
  default     = 365
}

variable "permissions_boundary_arn" {
  description = "Boundary of the roles made here; null where bootstrap made none (the emulator)."
  type        = string
  default     = null
}

variable "keep_logs" {
  description = "The flow logs outlive their VPC: Terraform forgets the log group instead of deleting it."
  type        = bool
  default     = false
}
