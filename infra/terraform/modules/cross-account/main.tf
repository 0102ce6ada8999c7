# One account watches, the others are watched. Two ways lead across, both one-way and without any role to assume:
# the link lets the monitoring account read metrics and logs; the topic lets the alarms of the others be heard there.
locals {
  central_topic_name = "avesa-alerts-central"
  central_topic_arn  = "arn:${var.partition}:sns:${var.region}:${coalesce(var.monitoring_account_id, var.account_id)}:${local.central_topic_name}"
  monitoring         = var.mode == "monitoring" ? 1 : 0
  alarm_account_ids  = concat([var.account_id], var.source_account_ids)
  shared             = ["AWS::CloudWatch::Metric", "AWS::Logs::LogGroup"]
}

# -- the monitoring account --------------------------------------------------------------------------------------------
resource "aws_oam_sink" "this" {
  count = local.monitoring * (var.oam ? 1 : 0)

  name = "avesa"
}

resource "aws_oam_sink_policy" "this" {
  count = local.monitoring * (var.oam && length(var.source_account_ids) > 0 ? 1 : 0)

  sink_identifier = aws_oam_sink.this[0].arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "NamedAccountsMetricsAndLogs"
      Effect    = "Allow"
      Principal = { AWS = var.source_account_ids }
      Action    = ["oam:CreateLink", "oam:UpdateLink"]
      Resource  = "*" # the sink itself
      Condition = { "ForAllValues:StringEquals" = { "oam:ResourceTypes" = local.shared } }
    }]
  })
}

resource "aws_sns_topic" "central" {
  count = local.monitoring

  name              = local.central_topic_name
  display_name      = "AVESA alarms of every environment"
  kms_master_key_id = var.kms_key_arn
}

resource "aws_sns_topic_policy" "central" {
  count = local.monitoring

  arn = aws_sns_topic.central[0].arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "AlarmsOfNamedAccounts"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.central[0].arn
        Condition = {
          ArnLike      = { "aws:SourceArn" = [for id in local.alarm_account_ids : "arn:${var.partition}:cloudwatch:${var.region}:${id}:alarm:avesa-*"] }
          StringEquals = { "aws:SourceAccount" = local.alarm_account_ids }
        }
      },
      {
        Sid       = "InsecureTransport"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sns:Publish"
        Resource  = aws_sns_topic.central[0].arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

resource "aws_sns_topic_subscription" "central" {
  for_each = var.mode == "monitoring" ? var.alert_emails : []

  topic_arn = aws_sns_topic.central[0].arn
  protocol  = "email"
  endpoint  = each.value
}

# -- a watched account -------------------------------------------------------------------------------------------------
resource "aws_oam_link" "this" {
  count = var.mode == "source" && var.oam && var.sink_arn != null ? 1 : 0

  label_template  = "avesa-${var.environment}"
  resource_types  = local.shared
  sink_identifier = var.sink_arn

  link_configuration {
    metric_configuration {
      filter = "Namespace IN ('AVESA', 'AWS/Kinesis', 'AWS/DynamoDB', 'AWS/ECS', 'AWS/S3', 'AWS/Events', 'AWS/SNS', 'ECS/ContainerInsights')"
    }
    log_group_configuration {
      filter = "LogGroupName LIKE '/avesa/${var.environment}/%' OR LogGroupName LIKE '/aws/events/avesa-${var.environment}%'"
    }
  }
}
