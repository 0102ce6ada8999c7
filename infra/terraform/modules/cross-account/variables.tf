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

variable "mode" {
  description = "\"monitoring\": this environment holds the sink and the central topic. \"source\": it lets the monitoring account read its metrics and logs. \"none\": neither (it shares the monitoring account)."
  type        = string

  validation {
    condition     = contains(["none", "monitoring", "source"], var.mode)
    error_message = "One of none, monitoring, source."
  }
}

variable "monitoring_account_id" {
  description = "Account that watches; null: nobody watches from elsewhere, and there is no central topic."
  type        = string
  default     = null

  validation {
    condition     = var.monitoring_account_id == null || can(regex("^[0-9]{12}$", var.monitoring_account_id))
    error_message = "An account id has twelve digits."
  }

  validation {
    condition     = var.mode == "none" || var.monitoring_account_id != null
    error_message = "Modes monitoring and source need the monitoring account's id."
  }

  validation {
    condition     = var.mode != "monitoring" || var.monitoring_account_id == var.account_id
    error_message = "The sink lies in the monitoring account itself."
  }

  validation {
    condition     = var.mode != "source" || var.monitoring_account_id != var.account_id
    error_message = "An account cannot be linked to itself: use mode none."
  }
}

variable "source_account_ids" {
  description = "Accounts that may link to the sink and whose alarms may publish to the central topic (mode monitoring)."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for id in var.source_account_ids : can(regex("^[0-9]{12}$", id))])
    error_message = "Account ids of twelve digits; no wildcards."
  }
}

variable "sink_arn" {
  description = "ARN of the sink (output of the monitoring environment). Null in mode source: no link yet, as on the first apply."
  type        = string
  default     = null
}

variable "kms_key_arn" {
  description = "The logs key: encrypts the central topic. Its policy must admit alarms of the source accounts (module encryption, alarm_source_account_ids)."
  type        = string
}

variable "oam" {
  description = "Make sink or link. False where only the topic is wanted (the emulator has no OAM)."
  type        = bool
  default     = true
}

variable "alert_emails" {
  description = "Who hears of the alarms of every environment (mode monitoring). Each must confirm its subscription once."
  type        = set(string)
  default     = []
}
