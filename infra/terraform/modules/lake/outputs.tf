output "bucket" {
  description = "Name of the bucket."
  value       = aws_s3_bucket.this.id
}

output "bucket_arn" {
  description = "ARN of the bucket; its objects are `{arn}/{key}`."
  value       = aws_s3_bucket.this.arn
}

output "views_database" {
  description = "Glue database of the views over all tenants: avesa_{environment}."
  value       = aws_glue_catalog_database.views.name
}

output "glue_arns" {
  description = "Glue: the catalog, and ARN patterns of the databases and tables of this environment (those of tenants are made by the compactor)."
  value = {
    catalog   = "${local.glue}:catalog"
    databases = ["${local.glue}:database/${local.views_database}", "${local.glue}:database/${local.views_database}_*"]
    tables    = ["${local.glue}:table/${local.views_database}/*", "${local.glue}:table/${local.views_database}_*/*"]
  }
}

output "athena_workgroup" {
  description = "Athena workgroup: results encrypted, location and scan limit enforced."
  value       = aws_athena_workgroup.this.name
}

output "athena_workgroup_arn" {
  description = "ARN of the workgroup."
  value       = aws_athena_workgroup.this.arn
}
