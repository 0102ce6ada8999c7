mock_provider "aws" {
  override_during = plan

  mock_resource "aws_oam_sink" {
    defaults = { arn = "arn:aws:oam:us-east-2:111111111111:sink/1" }
  }

  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:us-east-2:111111111111:avesa-alerts-central" }
  }
}

variables {
  environment           = "dev"
  account_id            = "111111111111"
  region                = "us-east-2"
  mode                  = "monitoring"
  monitoring_account_id = "111111111111"
  source_account_ids    = ["222222222222"]
  kms_key_arn           = "arn:aws:kms:us-east-2:111111111111:key/logs"
}

run "only_named_accounts_link_and_only_metrics_and_logs" {
  command = plan

  assert {
    condition     = jsondecode(aws_oam_sink_policy.this[0].policy).Statement[0].Principal == { AWS = ["222222222222"] }
    error_message = "The accounts named, never everybody."
  }

  assert {
    condition     = jsondecode(aws_oam_sink_policy.this[0].policy).Statement[0].Condition == { "ForAllValues:StringEquals" = { "oam:ResourceTypes" = ["AWS::CloudWatch::Metric", "AWS::Logs::LogGroup"] } }
    error_message = "No traces, nothing else."
  }

  assert {
    condition     = jsondecode(aws_oam_sink_policy.this[0].policy).Statement[0].Action == ["oam:CreateLink", "oam:UpdateLink"]
    error_message = "Linking is all a source account does."
  }
}

run "alarms_of_both_accounts_are_heard_in_one_place" {
  command = plan

  assert {
    condition = jsondecode(aws_sns_topic_policy.central[0].policy).Statement[0].Condition == {
      ArnLike      = { "aws:SourceArn" = ["arn:aws:cloudwatch:us-east-2:111111111111:alarm:avesa-*", "arn:aws:cloudwatch:us-east-2:222222222222:alarm:avesa-*"] }
      StringEquals = { "aws:SourceAccount" = ["111111111111", "222222222222"] }
    }
    error_message = "Our alarms of the accounts named."
  }

  assert {
    condition     = length(aws_oam_link.this) == 0 && aws_sns_topic.central[0].kms_master_key_id == var.kms_key_arn
    error_message = "The monitoring account links to nobody; its topic is encrypted."
  }
}

run "somebody_hears_of_them" {
  command = plan

  variables {
    alert_emails = ["one@example.com", "two@example.com"]
  }

  assert {
    condition     = output.heard_by == tolist(["one@example.com", "two@example.com"])
    error_message = "Each address."
  }
}

run "without_observability_access_manager_there_is_a_topic_all_the_same" {
  command = plan

  variables {
    oam = false
  }

  assert {
    condition     = length(aws_oam_sink.this) + length(aws_oam_sink_policy.this) == 0 && length(aws_sns_topic.central) == 1
    error_message = "No sink, no policy of one; alarms are heard."
  }
}

run "production_is_watched_and_watches_nobody" {
  command = plan

  variables {
    environment        = "prod"
    account_id         = "222222222222"
    mode               = "source"
    source_account_ids = []
    sink_arn           = "arn:aws:oam:us-east-2:111111111111:sink/1"
  }

  assert {
    condition     = length(aws_oam_sink.this) == 0 && length(aws_sns_topic.central) == 0 && aws_oam_link.this[0].resource_types == toset(["AWS::CloudWatch::Metric", "AWS::Logs::LogGroup"])
    error_message = "A link and nothing else."
  }

  assert {
    condition     = output.central_topic_arn == "arn:aws:sns:us-east-2:111111111111:avesa-alerts-central"
    error_message = "Its alarms go to the monitoring account."
  }
}

run "before_the_sink_is_known_there_is_no_link" {
  command = plan

  variables {
    environment        = "prod"
    account_id         = "222222222222"
    mode               = "source"
    source_account_ids = []
  }

  assert {
    condition     = length(aws_oam_link.this) == 0
    error_message = "Production can be applied first."
  }
}

run "staging_shares_the_monitoring_account_and_uses_its_topic" {
  command = plan

  variables {
    environment        = "staging"
    mode               = "none"
    source_account_ids = []
  }

  assert {
    condition     = length(aws_oam_sink.this) + length(aws_oam_link.this) + length(aws_sns_topic.central) == 0 && output.central_topic_arn == "arn:aws:sns:us-east-2:111111111111:avesa-alerts-central"
    error_message = "Nothing to make, one place to tell."
  }
}

run "an_account_never_links_to_itself" {
  command = plan

  variables {
    mode = "source"
  }

  expect_failures = [var.monitoring_account_id]
}

run "a_wildcard_is_no_account" {
  command = plan

  variables {
    source_account_ids = ["*"]
  }

  expect_failures = [var.source_account_ids]
}
