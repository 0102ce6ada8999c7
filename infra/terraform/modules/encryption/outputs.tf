output "key_arns" {
  description = "ARN of each key: data, secrets, logs."
  value       = { for name, key in aws_kms_key.this : name => key.arn }
}

output "aliases" {
  description = "Alias of each key: alias/avesa-{data|secrets|logs}-{environment}."
  value       = { for name, alias in aws_kms_alias.this : name => alias.name }
}
