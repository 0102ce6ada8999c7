output "sink_arn" {
  description = "ARN of the sink in mode monitoring, else null. Production's `sink_arn` is this."
  value       = one(aws_oam_sink.this[*].arn)
}

output "central_topic_arn" {
  description = "ARN of the one topic that collects the alarms of every environment, in any mode; null without a monitoring account."
  value       = var.monitoring_account_id == null ? null : local.central_topic_arn
}

output "link_arn" {
  description = "ARN of the link in mode source once the sink is known, else null."
  value       = one(aws_oam_link.this[*].arn)
}

output "heard_by" {
  description = "Who is mailed the alarms of every environment."
  value       = sort([for one in aws_sns_topic_subscription.central : one.endpoint])
}
