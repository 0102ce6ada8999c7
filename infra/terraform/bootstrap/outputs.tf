output "state_bucket" {
  description = "Bucket of the state: `bucket` in environments/{environment}.backend.hcl."
  value       = aws_s3_bucket.state.id
}

output "state_kms_key_arn" {
  description = "Key of the state: `kms_key_id` in environments/{environment}.backend.hcl."
  value       = aws_kms_key.state.arn
}

output "backend" {
  description = "environments/{environment}.backend.hcl, by environment, ready to be written to the file."
  value = {
    for environment in var.environments : environment => join("\n", [
      "bucket     = \"${aws_s3_bucket.state.id}\"",
      "key        = \"${environment}/platform.tfstate\"",
      "region     = \"${var.region}\"",
      "kms_key_id = \"arn:${var.partition}:kms:${var.region}:${var.account_id}:${aws_kms_alias.state.name}\"",
      "",
    ])
  }
}

output "plan_role_arn" {
  description = "GitHub variable of the repository for pull requests of this account's environments; null without GitHub."
  value       = one([for ci in values(module.ci) : ci.plan_role_arn])
}

output "apply_role_arns" {
  description = "GitHub variable of each GitHub environment; empty without GitHub."
  value       = merge([for ci in values(module.ci) : ci.apply_role_arns]...)
}

output "permissions_boundary_arns" {
  description = "`permissions_boundary_arn` in environments/{environment}.tfvars; empty without GitHub."
  value       = merge([for ci in values(module.ci) : ci.permissions_boundary_arns]...)
}

output "image_repository" {
  description = "Where images are pushed to."
  value       = aws_ecr_repository.images.repository_url
}

output "image_role_arn" {
  description = "Role of the main branch that pushes images; null without GitHub."
  value       = one([for ci in values(module.ci) : ci.image_role_arn])
}
