# What an environment's file may not say is refused before anything is planned.
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
  alert_emails = ["ops@example.com"]
  network      = { cidr = "10.20.0.0/16", availability_zones = ["us-east-2a", "us-east-2b", "us-east-2c"], nat = "per_az" }
}

run "another_account_is_noticed" {
  command = plan

  variables {
    account_id = "999900001111"
  }

  expect_failures = [check.account]
}

run "production_has_one_name" {
  command = plan

  variables {
    environment = "production"
  }

  expect_failures = [var.environment]
}

run "an_account_has_twelve_digits" {
  command = plan

  variables {
    account_id = "12345"
  }

  expect_failures = [var.account_id]
}

run "an_address_is_one" {
  command = plan

  variables {
    alert_emails = ["ops at example.com"]
  }

  expect_failures = [var.alert_emails]
}

run "an_image_has_a_digest" {
  command = plan

  variables {
    image = "111122223333.dkr.ecr.us-east-2.amazonaws.com/avesa:latest"
  }

  expect_failures = [var.image]
}

run "a_group_names_vendors_that_are_there" {
  command = plan

  variables {
    extractor_groups = { psa = { services = ["conectwise"] } }
  }

  expect_failures = [var.extractor_groups]
}

run "a_vendor_is_in_one_group" {
  command = plan

  variables {
    extractor_groups = { one = { services = ["zendesk"] }, two = { services = ["zendesk", "xero"] } }
  }

  expect_failures = [var.extractor_groups]
}

run "a_group_names_tables_that_are_there" {
  command = plan

  variables {
    transformer_groups = { tickets = { tables = ["ticket"] } }
  }

  expect_failures = [var.transformer_groups]
}

run "an_account_is_not_emulated" {
  command = plan

  variables {
    emulator_endpoint = "http://127.0.0.1:4566"
  }

  expect_failures = [var.emulator_endpoint]
}

run "a_threshold_is_one_that_the_module_knows" {
  command = plan

  variables {
    thresholds = { iterator_age = 5 }
  }

  expect_failures = [var.thresholds]
}

run "settings_are_settings" {
  command = plan

  variables {
    settings = { LEASE_S = "30" }
  }

  expect_failures = [var.settings]
}
