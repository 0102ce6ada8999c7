# What production must have whatever somebody writes into its file, and what happens to one who leaves it out.
mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "444455556666" }
  }

  mock_data "aws_availability_zones" {
    defaults = { names = ["us-east-2a", "us-east-2b", "us-east-2c"] }
  }
}

variables {
  environment  = "prod"
  account_id   = "444455556666"
  protected    = true
  image        = "444455556666.dkr.ecr.us-east-2.amazonaws.com/avesa@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  alert_emails = ["ops@example.com"]
  network      = { cidr = "10.30.0.0/16", availability_zones = ["us-east-2a", "us-east-2b", "us-east-2c"], nat = "per_az" }
}

run "production_is_safe_by_default" {
  command = plan

  assert {
    condition     = var.capacity.on_demand_base >= 1
    error_message = "One task of each fleet is on demand."
  }

  assert {
    condition     = var.streams.raw.retention_hours >= 168 && var.streams.canonical.retention_hours >= 168
    error_message = "A week of both streams is kept."
  }

  assert {
    condition     = length(module.network.private_subnet_ids) == 3 && length(module.network.nat_addresses) == 3
    error_message = "Three zones, each with a way out."
  }

  assert {
    condition     = alltrue(values(var.features)) && length(module.audit) == 1
    error_message = "Everything that watches is on."
  }
}

run "no_production_without_protection" {
  command = plan

  variables {
    protected = false
  }

  expect_failures = [var.protected]
}

run "no_production_with_one_way_out" {
  command = plan

  variables {
    network = { cidr = "10.30.0.0/16", availability_zones = ["us-east-2a", "us-east-2b"], nat = "single" }
  }

  expect_failures = [var.network]
}

run "no_production_on_spot_alone" {
  command = plan

  variables {
    capacity = { on_demand_base = 0, on_demand_weight = 0, spot_weight = 1 }
  }

  expect_failures = [var.capacity]
}

run "no_production_with_a_day_of_retention" {
  command = plan

  variables {
    streams = { raw = { retention_hours = 24 }, canonical = { retention_hours = 24 } }
  }

  expect_failures = [var.streams]
}

run "no_production_with_alarms_nobody_hears" {
  command = plan

  variables {
    alert_emails = []
  }

  expect_failures = [var.alert_emails]
}

run "no_production_with_a_month_of_logs" {
  command = plan

  variables {
    log_retention_days = 30
  }

  expect_failures = [var.log_retention_days]
}

run "no_production_without_a_trail" {
  command = plan

  variables {
    features = { cloudtrail = false }
  }

  expect_failures = [var.features]
}

run "no_production_without_scaling" {
  command = plan

  variables {
    features = { autoscaling = false }
  }

  expect_failures = [var.features]
}

run "no_production_with_the_other_accounts_operators" {
  command = plan

  variables {
    secret_operator_arns = ["arn:aws:iam::111122223333:role/operator"]
  }

  expect_failures = [var.secret_operator_arns]
}

run "no_production_without_a_task_of_a_service" {
  command = plan

  variables {
    services = { compactor = { min = 0 } }
  }

  expect_failures = [var.services]
}

run "no_production_that_ends_deleted_objects_at_once" {
  command = plan

  variables {
    lake = { noncurrent_days = 1, system_noncurrent_days = 1 }
  }

  expect_failures = [var.lake]
}

run "no_production_without_a_record_of_connections" {
  command = plan

  variables {
    network = { cidr = "10.30.0.0/16", availability_zones = ["us-east-2a", "us-east-2b"], nat = "per_az", flow_logs = false }
  }

  expect_failures = [var.network]
}

run "no_environment_with_another_ones_tag" {
  command = plan

  variables {
    tags = { environment = "Production" }
  }

  expect_failures = [var.tags]
}

run "logs_of_a_group_outlive_it" {
  command = plan

  assert {
    condition     = alltrue([for one in values(module.service) : one.keeps_logs])
    error_message = "A year of logs is no part of a day's change."
  }
}
