output "names" {
  description = "Name of each table: tenant_services, last_updated, leases, backfill_jobs."
  value       = { for key, table in aws_dynamodb_table.this : key => table.name }
}

output "arns" {
  description = "ARN of each table. Its indexes are `{arn}/index/{name}`."
  value       = { for key, table in aws_dynamodb_table.this : key => table.arn }
}
