# Tasks that ended and were not asked to. A rule counts them, which is what the alarm sees (AWS/Events, TriggeredRules),
# and writes each with ECS's reason into a log group, which is what whoever looks needs.
#
# Not among them: what the scheduler stops for a deployment or a smaller fleet, what a person stops, and Spot taking its
# capacity back (ECS API reference, Task: stopCode). A task that failed its health check is stopped by the scheduler,
# and only its reason tells.

locals {
  task_deaths = "avesa-${var.environment}-task-deaths"
  deaths      = toset(var.features.task_deaths ? [local.task_deaths] : [])
}

resource "aws_cloudwatch_event_rule" "task_deaths" {
  for_each = local.deaths

  name        = each.value
  description = "Tasks of ${var.cluster_name} that died or could not start"
  event_pattern = jsonencode({
    source        = ["aws.ecs"]
    "detail-type" = ["ECS Task State Change"]
    detail = {
      clusterArn = ["arn:${var.partition}:ecs:${var.region}:${var.account_id}:cluster/${var.cluster_name}"]
      lastStatus = ["STOPPED"]
      "$or" = [
        { stopCode = ["EssentialContainerExited", "InfrastructureHealth", "TaskFailedToStart"] },
        { stoppedReason = [{ prefix = "Task failed" }] },
      ]
    }
  })
}

# EventBridge writes to log groups of this prefix only: EventBridge user guide, targets, CloudWatch Logs groups.
resource "aws_cloudwatch_log_group" "task_deaths" {
  for_each = local.deaths

  name              = "/aws/events/${each.value}"
  kms_key_id        = var.kms_key_arn
  retention_in_days = var.log_retention_days
}

resource "aws_cloudwatch_event_target" "task_deaths" {
  for_each = local.deaths

  rule      = aws_cloudwatch_event_rule.task_deaths[each.key].name
  target_id = "log"
  arn       = aws_cloudwatch_log_group.task_deaths[each.key].arn

  depends_on = [aws_cloudwatch_log_resource_policy.task_deaths]
}

resource "aws_cloudwatch_log_resource_policy" "task_deaths" {
  for_each = local.deaths

  policy_name = each.value
  policy_document = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "Events"
      Effect    = "Allow"
      Principal = { Service = ["delivery.logs.amazonaws.com", "events.amazonaws.com"] }
      Action    = ["logs:CreateLogStream", "logs:PutLogEvents"]
      Resource  = "arn:${var.partition}:logs:${var.region}:${var.account_id}:log-group:/aws/events/${each.value}:*"
    }]
  })
}
