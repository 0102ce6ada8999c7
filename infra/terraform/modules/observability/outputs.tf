output "topic_arn" {
  description = "Topic avesa-alerts-{env}."
  value       = aws_sns_topic.alerts.arn
}

output "dashboard_url" {
  description = "The dashboard AVESA-DataPipeline-{ENV} in the console."
  value       = "https://${var.region}.console.aws.amazon.com/cloudwatch/home?region=${var.region}#dashboards/dashboard/${aws_cloudwatch_dashboard.pipeline[var.environment].dashboard_name}"
}

output "alarm_names" {
  description = "Every alarm of the environment: what `avesa doctor` looks for."
  value       = sort(concat([for alarm in aws_cloudwatch_metric_alarm.this : alarm.alarm_name], [for alarm in aws_cloudwatch_composite_alarm.environment : alarm.alarm_name]))
}

output "alarms" {
  description = "The alarms as data."
  value       = local.alarms
}
