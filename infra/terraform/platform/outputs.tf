output "environment" {
  description = "Name of the environment."
  value       = var.environment
}

output "image" {
  description = "The image that runs, by its digest."
  value       = var.image
}

output "cluster_name" {
  description = "ECS cluster."
  value       = aws_ecs_cluster.this.name
}

output "service_names" {
  description = "ECS services."
  value       = sort([for one in module.service : one.service_name])
}

output "role_names" {
  description = "Task role of each ECS service."
  value       = { for one in module.service : one.service_name => one.role_name }
}

output "policies" {
  description = "What each task role may do, as JSON, by ECS service."
  value       = { for one in module.service : one.service_name => one.policy }
}

output "log_group_names" {
  description = "Log group of each ECS service."
  value       = { for one in module.service : one.service_name => one.log_group_name }
}

output "stream_names" {
  description = "Streams: raw, canonical."
  value       = module.streams.names
}

output "table_names" {
  description = "Tables: tenant_services, last_updated, leases, backfill_jobs."
  value       = module.tables.names
}

output "bucket" {
  description = "Bucket of the lake."
  value       = module.lake.bucket
}

output "athena_workgroup" {
  description = "Athena workgroup."
  value       = module.lake.athena_workgroup
}

output "secrets_prefix" {
  description = "ARNs of this environment's secrets begin with this."
  value       = module.secrets.arn_prefix
}

output "operator_policy_arn" {
  description = "Policy for whoever runs `avesa setup-service`."
  value       = module.secrets.operator_policy_arn
}

output "nat_addresses" {
  description = "Addresses from which vendors are called, for their allow lists."
  value       = module.network.nat_addresses
}

output "alarm_names" {
  description = "Alarms for people."
  value       = module.observability.alarm_names
}

output "scaling_alarm_names" {
  description = "Alarms that move the number of tasks."
  value       = sort(flatten([for one in module.service : one.scaling_alarm_names]))
}

output "topic_arn" {
  description = "Topic of the alarms: avesa-alerts-{environment}."
  value       = module.observability.topic_arn
}

output "dashboard_url" {
  description = "Dashboard AVESA-DataPipeline-{ENVIRONMENT}."
  value       = module.observability.dashboard_url
}

output "sink_arn" {
  description = "In the monitoring account: what production's `monitoring.sink_arn` is."
  value       = module.cross_account.sink_arn
}

output "settings" {
  description = "What a person's shell needs so that `avesa` speaks to this environment: terraform output -raw settings > .env"
  value = join("", [for name, value in merge(local.settings, { ENVIRONMENT = var.environment, AWS_REGION = var.region }) :
    "${name}=${value}\n"
  ])
}
