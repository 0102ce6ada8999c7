output "arn_prefix" {
  description = "ARN prefix of this environment's secrets: {arn_prefix}{tenant}/{service}[/{instance}]-{six characters of AWS}."
  value       = local.arn_prefix
}

output "operator_policy_arn" {
  description = "Managed policy for whoever runs `avesa setup-service`: attach it to the operators' role."
  value       = aws_iam_policy.operator.arn
}
