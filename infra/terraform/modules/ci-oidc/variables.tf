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

variable "github_repository" {
  description = "The one repository that may deploy, as OWNER/NAME."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9-]+/[A-Za-z0-9._-]+$", var.github_repository))
    error_message = "OWNER/NAME, exactly, without wildcards."
  }
}

variable "environments" {
  description = "Environments of this account. Each is a GitHub environment (with its approvals) and gets an apply role of its own."
  type        = set(string)

  validation {
    condition     = length(var.environments) > 0 && alltrue([for name in var.environments : can(regex("^[a-z0-9]+(-[a-z0-9]+)*$", name))])
    error_message = "At least one name of small letters, digits and single hyphens."
  }
}

variable "state_bucket_arn" {
  description = "Bucket of the Terraform state; an environment's state lies under `{environment}/`."
  type        = string
}

variable "state_kms_key_arn" {
  description = "Key of the state bucket."
  type        = string
}

variable "create_provider" {
  description = "False where the account has GitHub's OIDC provider already: there can be only one."
  type        = bool
  default     = true
}

variable "plan_subjects" {
  description = "Which runs of the repository may plan, as the end of GitHub's `sub` claim: pull requests, and the branch that is deployed (its plan before the approval, the nightly look for drift)."
  type        = list(string)
  default     = ["pull_request", "ref:refs/heads/main"]

  validation {
    condition     = length(var.plan_subjects) > 0 && !anytrue([for subject in var.plan_subjects : strcontains(subject, "*") || startswith(subject, "environment:")])
    error_message = "Exact subjects without wildcards; environments belong to the apply roles."
  }
}

variable "image_subject" {
  description = "Which run may push images, as the end of GitHub's `sub` claim: the branch that is deployed."
  type        = string
  default     = "ref:refs/heads/main"

  validation {
    condition     = startswith(var.image_subject, "ref:refs/") && !strcontains(var.image_subject, "*")
    error_message = "One branch or tag, exactly: a pull request pushes no image."
  }
}

variable "apply_ref" {
  description = "The branch whose runs may apply, as GitHub's `ref` claim. Null: any branch that the GitHub environment lets deploy (in a partition whose STS does not know the claim)."
  type        = string
  default     = "refs/heads/main"

  validation {
    condition     = var.apply_ref == null || (startswith(coalesce(var.apply_ref, "-"), "refs/") && !strcontains(coalesce(var.apply_ref, "-"), "*"))
    error_message = "One branch or tag, exactly."
  }
}
