# How many tasks. Step scaling, not target tracking, on the lag: what a fleet is behind does not shrink in proportion to
# its tasks, which target tracking takes for granted (AWS documentation, "Target tracking scaling policies").

locals {
  scales_on_lag = try(var.scaling.lag, null) != null
  scales_on_cpu = try(var.scaling.cpu_percent, null) != null
  dimensions    = { Environment = var.environment, Service = var.service, Group = var.metric_group }
}

resource "aws_appautoscaling_target" "this" {
  count = var.scaling == null ? 0 : 1

  service_namespace  = "ecs"
  scalable_dimension = "ecs:service:DesiredCount"
  resource_id        = "service/${element(split("/", var.cluster_arn), -1)}/${aws_ecs_service.this.name}"
  min_capacity       = var.tasks.min
  max_capacity       = var.tasks.max
}

resource "aws_appautoscaling_policy" "out" {
  count = local.scales_on_lag ? 1 : 0

  name               = "${local.name}-out"
  policy_type        = "StepScaling"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity"
    metric_aggregation_type = "Maximum"
    cooldown                = 180 # a task starts, shards are handed over, the lag begins to shrink

    step_adjustment {
      metric_interval_lower_bound = 0
      metric_interval_upper_bound = 4 * var.scaling.lag.out_above_ms
      scaling_adjustment          = 1
    }

    step_adjustment {
      metric_interval_lower_bound = 4 * var.scaling.lag.out_above_ms
      scaling_adjustment          = 2
    }
  }
}

resource "aws_appautoscaling_policy" "in" {
  count = local.scales_on_lag ? 1 : 0

  name               = "${local.name}-in"
  policy_type        = "StepScaling"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id

  step_scaling_policy_configuration {
    adjustment_type         = "ChangeInCapacity"
    metric_aggregation_type = "Maximum"
    cooldown                = 600

    step_adjustment {
      metric_interval_upper_bound = 0
      scaling_adjustment          = -1
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "out" {
  count = local.scales_on_lag ? 1 : 0

  alarm_name          = "avesa-${var.environment}-${local.fleet}-scale-out"
  alarm_description   = "Not for people: ${local.name} gets another task."
  namespace           = "AVESA"
  metric_name         = "ShardsBehindMs"
  dimensions          = local.dimensions
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 3
  datapoints_to_alarm = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.scaling.lag.out_above_ms
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_appautoscaling_policy.out[0].arn]
}

# In ALARM whenever all is well and there is more than the least: it belongs into no composite alarm.
resource "aws_cloudwatch_metric_alarm" "in" {
  count = local.scales_on_lag ? 1 : 0

  alarm_name          = "avesa-${var.environment}-${local.fleet}-scale-in"
  alarm_description   = "Not for people: ${local.name} lets go of a task."
  namespace           = "AVESA"
  metric_name         = "ShardsBehindMs"
  dimensions          = local.dimensions
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 15
  datapoints_to_alarm = 15
  comparison_operator = "LessThanThreshold"
  threshold           = var.scaling.lag.in_below_ms
  treat_missing_data  = "notBreaching" # who does not say how it stands keeps its tasks
  alarm_actions       = [aws_appautoscaling_policy.in[0].arn]
}

resource "aws_appautoscaling_policy" "cpu" {
  count = local.scales_on_cpu ? 1 : 0

  name               = "${local.name}-cpu"
  policy_type        = "TargetTrackingScaling"
  service_namespace  = aws_appautoscaling_target.this[0].service_namespace
  scalable_dimension = aws_appautoscaling_target.this[0].scalable_dimension
  resource_id        = aws_appautoscaling_target.this[0].resource_id

  target_tracking_scaling_policy_configuration {
    target_value       = var.scaling.cpu_percent
    scale_out_cooldown = 180
    scale_in_cooldown  = 600

    predefined_metric_specification {
      predefined_metric_type = "ECSServiceAverageCPUUtilization"
    }
  }
}
