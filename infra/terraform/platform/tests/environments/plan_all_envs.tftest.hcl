# Every environment's file makes a whole plan, and what it says of itself holds. No provider is asked.
# Once for each file: terraform test -test-directory=tests/environments -var-file=../environments/dev.tfvars
mock_provider "aws" {
  mock_data "aws_availability_zones" {
    defaults = { names = ["us-east-2a", "us-east-2b", "us-east-2c"] }
  }
}

variables {
  image = "111122223333.dkr.ecr.us-east-2.amazonaws.com/avesa@sha256:0000000000000000000000000000000000000000000000000000000000000000"
}

run "the_file_plans" {
  command = plan

  # What is made up is some other account's.
  expect_failures = [check.account]

  assert {
    condition     = local.names.cluster == "avesa-${var.environment}"
    error_message = "The cluster is called after the environment."
  }

  assert {
    condition     = local.names.tables.leases == (var.environment == "prod" ? "Leases" : "Leases-${var.environment}")
    error_message = "Only production's tables are without a suffix."
  }

  assert {
    condition     = toset(keys(module.service)) == toset(["extractor", "transformer", "compactor"])
    error_message = "One fleet of each service."
  }

  assert {
    condition     = alltrue([for name, fleet in local.fleets : local.most[name] >= local.sizes[name].min])
    error_message = "No fleet has a least that is more than its most."
  }
}
