output "plan_role_arn" {
  description = "Role of pull requests: plans every environment of this account, changes none."
  value       = aws_iam_role.plan.arn
}

output "apply_role_arns" {
  description = "Role that applies an environment, by its name."
  value       = { for environment, role in aws_iam_role.apply : environment => role.arn }
}

output "permissions_boundary_arns" {
  description = "Boundary every role of an environment must carry, by its name."
  value       = { for environment, policy in aws_iam_policy.boundary : environment => policy.arn }
}

output "image_role_arn" {
  description = "Role of the main branch: pushes images."
  value       = aws_iam_role.image.arn
}
