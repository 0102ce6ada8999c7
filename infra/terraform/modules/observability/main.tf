# Who is told (a topic), of what (alarms.tf), and one alarm that says whether the environment is well.

locals {
  topic_name = "avesa-alerts-${var.environment}"
  topic_arn  = "arn:${var.partition}:sns:${var.region}:${var.account_id}:${local.topic_name}"
  alarm_arns = "arn:${var.partition}:cloudwatch:${var.region}:${var.account_id}:alarm"
  told       = compact([aws_sns_topic.alerts.arn, var.central_topic_arn])
  webhooks   = nonsensitive(var.webhook_url == "") ? [] : ["webhook"]
  critical   = sort([for name, one in local.alarms : name if one.severity == "critical"])
}

# -- the topic ---------------------------------------------------------------------------------------------------------
resource "aws_sns_topic" "alerts" {
  name              = local.topic_name
  display_name      = "AVESA ${var.environment}"
  kms_master_key_id = var.kms_key_arn
}

resource "aws_sns_topic_policy" "alerts" {
  arn = aws_sns_topic.alerts.arn
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Alarms"
        Effect    = "Allow"
        Principal = { Service = "cloudwatch.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = local.topic_arn
        Condition = {
          ArnLike      = { "aws:SourceArn" = "${local.alarm_arns}:avesa-${var.environment}-*" }
          StringEquals = { "aws:SourceAccount" = var.account_id }
        }
      },
      {
        Sid       = "Budgets"
        Effect    = "Allow"
        Principal = { Service = "budgets.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = local.topic_arn
        Condition = { StringEquals = { "aws:SourceAccount" = var.account_id } }
      },
      {
        # The rules of modules/audit. EventBridge carries no condition keys to an encrypted topic.
        Sid       = "Events"
        Effect    = "Allow"
        Principal = { Service = "events.amazonaws.com" }
        Action    = "sns:Publish"
        Resource  = local.topic_arn
      },
      {
        Sid       = "OverTlsOnly"
        Effect    = "Deny"
        Principal = "*"
        Action    = "sns:Publish"
        Resource  = local.topic_arn
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
    ]
  })
}

resource "aws_sns_topic_subscription" "email" {
  for_each = var.alert_emails

  topic_arn = aws_sns_topic.alerts.arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_sns_topic_subscription" "webhook" {
  for_each = toset(local.webhooks)

  topic_arn = aws_sns_topic.alerts.arn
  protocol  = "https"
  endpoint  = var.webhook_url
}

# -- the alarms --------------------------------------------------------------------------------------------------------
resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name        = "avesa-${var.environment}-${each.key}"
  alarm_description = "[${each.value.severity}] ${each.value.what} ${var.runbook_url}#${each.value.runbook}"

  namespace   = each.value.expression == "" ? each.value.namespace : null
  metric_name = each.value.expression == "" ? each.value.metric : null
  statistic   = each.value.expression == "" ? each.value.statistic : null
  dimensions  = each.value.expression == "" ? each.value.dimensions : null
  period      = each.value.expression == "" ? each.value.period_s : null

  comparison_operator = each.value.comparison
  threshold           = each.value.threshold
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.datapoints
  treat_missing_data  = each.value.missing

  alarm_actions = local.told
  ok_actions    = local.told

  dynamic "metric_query" {
    for_each = each.value.expression == "" ? [] : [each.value.expression]

    content {
      id          = "result"
      expression  = metric_query.value
      label       = each.key
      return_data = true
    }
  }

  dynamic "metric_query" {
    for_each = each.value.queries

    content {
      id = metric_query.key

      metric {
        namespace   = "AVESA"
        metric_name = metric_query.value.metric
        stat        = metric_query.value.statistic
        period      = each.value.period_s
        dimensions  = metric_query.value.dimensions
      }
    }
  }

  # CloudWatch deletes no alarm that a composite one still looks at, and Terraform would delete it first: with this, what
  # depends on it is changed before (terraform-provider-aws issue 34807). It holds for all that alarms depend on, too.
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_cloudwatch_composite_alarm" "environment" {
  for_each = toset(var.features.composite_alarms ? ["unhealthy"] : [])

  alarm_name        = "avesa-${var.environment}-${each.value}"
  alarm_description = "[critical] At least one critical alarm of ${var.environment} rings. ${var.runbook_url}#${each.value}"
  alarm_rule        = join(" OR ", [for name in local.critical : "ALARM(\"${aws_cloudwatch_metric_alarm.this[name].alarm_name}\")"])

  alarm_actions = local.told
  ok_actions    = local.told

  lifecycle {
    precondition {
      # CloudWatch API reference, PutCompositeAlarm: up to 100 alarms.
      condition     = length(local.critical) <= 100
      error_message = "A composite alarm looks at 100 alarms at most: run fewer groups, or switch features.composite_alarms off."
    }

    precondition {
      # CloudWatch API reference, PutCompositeAlarm: AlarmRule, up to 10,240 characters.
      condition     = sum([for name in local.critical : length("ALARM(\"avesa-${var.environment}-${name}\") OR ")]) <= 10240
      error_message = "A composite alarm's rule has 10,240 characters at most: run fewer groups, or switch features.composite_alarms off."
    }
  }
}

# -- money -------------------------------------------------------------------------------------------------------------
resource "aws_budgets_budget" "month" {
  for_each = toset(var.features.budgets ? ["month"] : [])

  account_id   = var.account_id
  name         = "avesa-${var.environment}"
  budget_type  = "COST"
  limit_amount = var.budget_usd_per_month
  limit_unit   = "USD"
  time_unit    = "MONTHLY"

  dynamic "cost_filter" {
    for_each = var.budget_tag == null ? [] : [var.budget_tag]

    content {
      name   = "TagKeyValue"
      values = [format("user:%s$%s", cost_filter.value.key, cost_filter.value.value)]
    }
  }

  dynamic "notification" {
    for_each = { ACTUAL = 80, FORECASTED = 100 }

    content {
      notification_type         = notification.key
      comparison_operator       = "GREATER_THAN"
      threshold                 = notification.value
      threshold_type            = "PERCENTAGE"
      subscriber_sns_topic_arns = [aws_sns_topic.alerts.arn]
    }
  }

  depends_on = [aws_sns_topic_policy.alerts]
}
