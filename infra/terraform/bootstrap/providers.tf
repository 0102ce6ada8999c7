provider "aws" {
  region              = var.region
  allowed_account_ids = [var.account_id]

  default_tags {
    tags = { Project = "avesa", Environment = "bootstrap", ManagedBy = "terraform" }
  }
}
