output "service_name" {
  description = "avesa-{service}[-{group}]-{environment}."
  value       = aws_ecs_service.this.name
}

output "role_arn" {
  description = "Role of the tasks."
  value       = aws_iam_role.task.arn
}

output "role_name" {
  description = "Name of the role of the tasks."
  value       = aws_iam_role.task.name
}

output "policy" {
  description = "What the role may do, as JSON: what tests compare with the calls that the code makes."
  value       = aws_iam_role_policy.task.policy
}

output "log_group_name" {
  description = "/avesa/{environment}/{service}[-{group}]."
  value       = aws_cloudwatch_log_group.this.name
}

output "task_definition_arn" {
  description = "The revision that runs; the one before it is what a rollback takes."
  value       = aws_ecs_task_definition.this.arn
}

output "container" {
  description = "The container as ECS gets it, as JSON."
  value       = aws_ecs_task_definition.this.container_definitions
}

output "max_tasks" {
  description = "Where scaling ends; the number at the start where there is none."
  value       = var.scaling == null ? var.tasks.initial : var.tasks.max
}

output "metric_group" {
  description = "Dimension Group of its metrics."
  value       = var.metric_group
}

output "scaling_alarm_names" {
  description = "Alarms that move the number of tasks; not for people."
  value       = concat(aws_cloudwatch_metric_alarm.out[*].alarm_name, aws_cloudwatch_metric_alarm.in[*].alarm_name)
}

output "keeps_logs" {
  description = "Whether its log outlives it."
  value       = aws_cloudwatch_log_group.this.skip_destroy
}
