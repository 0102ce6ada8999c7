variable "account_id" {
  description = "The account to prepare. With another's credentials nothing is even planned."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.account_id))
    error_message = "An account id has twelve digits."
  }
}

variable "region" {
  description = "Region of the state, and of the platform."
  type        = string
  default     = "us-east-2"
}

variable "partition" {
  description = "Partition of the account, as in every ARN."
  type        = string
  default     = "aws"
}

variable "environments" {
  description = "Environments that live in this account: [\"prod\"], or [\"dev\", \"staging\"]. Production shares an account with none."
  type        = set(string)

  validation {
    condition     = !contains(var.environments, "prod") || length(var.environments) == 1
    error_message = "Production has an account of its own."
  }
}

variable "github_repository" {
  description = "The repository that deploys, as OWNER/NAME; null: nobody deploys from GitHub, only the state is made."
  type        = string
  default     = null
}

variable "create_oidc_provider" {
  description = "False where the account has GitHub's OIDC provider already: there can be only one."
  type        = bool
  default     = true
}

variable "plan_subjects" {
  description = "Which runs of the repository may plan (modules/ci-oidc)."
  type        = list(string)
  default     = ["pull_request", "ref:refs/heads/main"]
}

variable "apply_ref" {
  description = "The branch whose runs may apply; null: what the GitHub environments let deploy decides alone (modules/ci-oidc)."
  type        = string
  default     = "refs/heads/main"
}
