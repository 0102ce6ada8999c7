# Who hears of what, across environments and accounts.
mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }

  mock_data "aws_availability_zones" {
    defaults = { names = ["us-east-2a", "us-east-2b", "us-east-2c"] }
  }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:us-east-2:111122223333:key/00000000-0000-0000-0000-000000000000" }
  }
}

variables {
  environment  = "dev"
  account_id   = "111122223333"
  protected    = false
  image        = "111122223333.dkr.ecr.us-east-2.amazonaws.com/avesa@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  alert_emails = ["dev@example.com"]
  network      = { cidr = "10.20.0.0/16", availability_zones = ["us-east-2a", "us-east-2b"], nat = "single" }
  monitoring = {
    mode               = "monitoring"
    account_id         = "111122223333"
    source_account_ids = ["444455556666"]
    alert_emails       = ["oncall@example.com"]
  }
}

run "the_central_topic_has_listeners_of_its_own" {
  command = plan

  assert {
    condition     = module.cross_account.heard_by == tolist(["oncall@example.com"])
    error_message = "Who is on call for all of it, and not dev's own addresses, which would get dev's alarms twice."
  }
}

run "a_central_topic_that_nobody_hears_is_told_of" {
  command = plan

  variables {
    monitoring = { mode = "monitoring", account_id = "111122223333", source_account_ids = ["444455556666"] }
  }

  expect_failures = [check.somebody_hears_of_every_environment]
}

run "its_addresses_belong_to_the_monitoring_account" {
  command = plan

  variables {
    monitoring = { mode = "none", account_id = "111122223333", alert_emails = ["oncall@example.com"] }
  }

  expect_failures = [var.monitoring]
}

run "an_emulator_has_the_topic_and_no_sink" {
  command = plan

  variables {
    features = { oam = false }
  }

  assert {
    condition     = module.cross_account.sink_arn == null && module.cross_account.central_topic_arn == "arn:aws:sns:us-east-2:111122223333:avesa-alerts-central"
    error_message = "features.oam is about the link alone."
  }
}

run "an_alarm_keeps_its_name_when_a_vendor_is_added" {
  command = plan

  variables {
    extractor_groups = { psa = { services = ["connectwise", "autotask_psa"] } }
  }

  assert {
    condition     = contains(output.alarm_names, "avesa-dev-missing-heartbeat-extractor") && contains(output.alarm_names, "avesa-dev-missing-heartbeat-extractor-psa")
    error_message = "Fleets have alarms by their names."
  }
}
