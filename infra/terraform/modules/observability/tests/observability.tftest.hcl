mock_provider "aws" {
  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:us-east-2:111111111111:avesa-alerts-dev" }
  }

  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:us-east-2:111111111111:log-group:made-up" }
  }
}

variables {
  environment  = "dev"
  region       = "us-east-2"
  account_id   = "111111111111"
  kms_key_arn  = "arn:aws:kms:us-east-2:111111111111:key/logs"
  cluster_name = "avesa-dev"
  stream_names = { raw = "avesa-raw-dev", canonical = "avesa-canonical-dev" }
  services = {
    avesa-extractor-dev           = { service = "extractor", group = "extractor", log_group_name = "/avesa/dev/extractor", max_tasks = 4 }
    avesa-transformer-dev         = { service = "transformer", group = "transformer", log_group_name = "/avesa/dev/transformer", max_tasks = 4 }
    avesa-transformer-tickets-dev = { service = "transformer", group = "transformer-tickets", log_group_name = "/avesa/dev/transformer-tickets", max_tasks = 0 }
  }
}

run "names_and_encryption" {
  command = plan

  assert {
    condition     = aws_sns_topic.alerts.name == "avesa-alerts-dev" && aws_sns_topic.alerts.kms_master_key_id == var.kms_key_arn
    error_message = "The topic's name, and its key."
  }

  assert {
    condition     = keys(aws_cloudwatch_dashboard.pipeline) == ["dev"] && aws_cloudwatch_dashboard.pipeline["dev"].dashboard_name == "AVESA-DataPipeline-DEV"
    error_message = "One dashboard, of this environment."
  }

  assert {
    condition     = alltrue([for name, alarm in aws_cloudwatch_metric_alarm.this : alarm.alarm_name == "avesa-dev-${name}"])
    error_message = "avesa-{environment}-{name}: the topic's policy and its key let such alarms publish."
  }

  assert {
    condition     = alltrue([for one in jsondecode(aws_sns_topic_policy.alerts.policy).Statement : one.Resource == "arn:aws:sns:us-east-2:111111111111:avesa-alerts-dev" && one.Action == "sns:Publish"])
    error_message = "Publishing only, to this topic only."
  }
}

run "a_fleet_is_watched_for_what_it_does" {
  command = plan

  assert {
    condition     = !contains(keys(aws_cloudwatch_metric_alarm.this), "shards-behind-extractor") && contains(keys(aws_cloudwatch_metric_alarm.this), "shards-behind-transformer")
    error_message = "Extractors read no shards."
  }

  assert {
    condition     = contains(keys(aws_cloudwatch_metric_alarm.this), "missing-heartbeat-extractor") && !contains(keys(aws_cloudwatch_metric_alarm.this), "missing-heartbeat-transformer-tickets")
    error_message = "A fleet of no tasks is not missed."
  }

  assert {
    condition     = one([for query in aws_cloudwatch_metric_alarm.this["saturated-transformer"].metric_query : query.expression if query.id == "result"]) == "IF(alive / 5 > 3.5 AND behind > 300000, 1, 0)"
    error_message = "Saturated: as many processes as there may be, and behind."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["missing-heartbeat-extractor"].treat_missing_data == "breaching"
    error_message = "Silence is what a heartbeat is missed by."
  }
}

run "an_alarm_is_called_after_its_fleet_and_not_after_its_vendors" {
  command = plan

  variables {
    services = {
      avesa-extractor-dev     = { service = "extractor", group = "extractor-${join("-", [for i in range(60) : "some_vendor_number_${i}"])}", log_group_name = "/avesa/dev/extractor", max_tasks = 4 }
      avesa-extractor-psa-dev = { service = "extractor", group = "extractor-connectwise", log_group_name = "/avesa/dev/extractor-psa", max_tasks = 2 }
    }
  }

  assert {
    condition     = contains(keys(aws_cloudwatch_metric_alarm.this), "missing-heartbeat-extractor") && contains(keys(aws_cloudwatch_metric_alarm.this), "missing-heartbeat-extractor-psa")
    error_message = "A vendor more is no other alarm, and no name of more than 255 characters."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.this["missing-heartbeat-extractor-psa"].dimensions["Group"] == "extractor-connectwise"
    error_message = "What it looks at is what the fleet says."
  }
}

run "the_monitoring_account_hears_of_it_too" {
  command = apply

  variables {
    alert_emails      = ["one@example.com", "two@example.com"]
    webhook_url       = "https://example.com/key"
    central_topic_arn = "arn:aws:sns:us-east-2:222222222222:avesa-alerts-central"
  }

  assert {
    condition     = alltrue([for alarm in values(aws_cloudwatch_metric_alarm.this) : toset(alarm.alarm_actions) == toset([aws_sns_topic.alerts.arn, var.central_topic_arn]) && alarm.ok_actions == alarm.alarm_actions])
    error_message = "Both topics, when it rings and when it stops."
  }

  assert {
    condition     = length(aws_sns_topic_subscription.email) == 2 && length(aws_sns_topic_subscription.webhook) == 1
    error_message = "Each address, and the webhook."
  }
}

run "another_account_is_watched_from_here" {
  command = plan

  variables {
    source_account_id  = "333333333333"
    source_environment = "prod"
    source_services    = { avesa-transformer-prod = { service = "transformer", group = "transformer", log_group_name = "/avesa/prod/transformer" } }
  }

  assert {
    condition     = alltrue([for widget in jsondecode(aws_cloudwatch_dashboard.pipeline["prod"].dashboard_body).widgets : try(widget.properties.accountId, "") == "333333333333" if widget.type != "text"])
    error_message = "Every panel of production's dashboard looks into production's account."
  }
}

run "what_an_emulator_lacks_can_be_left_out" {
  command = plan

  variables {
    features = { composite_alarms = false, budgets = false, saved_queries = false, task_deaths = false }
  }

  assert {
    condition     = length(aws_cloudwatch_composite_alarm.environment) + length(aws_budgets_budget.month) + length(aws_cloudwatch_query_definition.this) + length(aws_cloudwatch_event_rule.task_deaths) == 0
    error_message = "None of it."
  }

  assert {
    condition     = !contains(keys(aws_cloudwatch_metric_alarm.this), "task-deaths")
    error_message = "No alarm without what it looks at."
  }
}

run "a_webhook_is_reached_over_tls" {
  command = plan

  variables {
    webhook_url = "http://example.com/key"
  }

  expect_failures = [var.webhook_url]
}
