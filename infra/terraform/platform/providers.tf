locals {
  is_emulated = var.emulator_endpoint != null
}

provider "aws" {
  region              = var.region
  allowed_account_ids = [var.account_id] # with another account's credentials nothing is even planned

  default_tags {
    tags = merge(var.tags, { Project = "avesa", Environment = var.environment, ManagedBy = "terraform" })
  }

  # The emulator takes any key; what it lacks it answers with HTTP 500, which the provider would repeat 25 times.
  access_key                  = local.is_emulated ? "test" : null
  secret_key                  = local.is_emulated ? "test" : null
  skip_credentials_validation = local.is_emulated
  skip_metadata_api_check     = local.is_emulated
  skip_region_validation      = local.is_emulated
  s3_use_path_style           = local.is_emulated
  max_retries                 = local.is_emulated ? 2 : null

  # Every service that this root calls.
  endpoints {
    applicationautoscaling = var.emulator_endpoint
    athena                 = var.emulator_endpoint
    budgets                = var.emulator_endpoint
    cloudtrail             = var.emulator_endpoint
    cloudwatch             = var.emulator_endpoint
    cloudwatchevents       = var.emulator_endpoint
    cloudwatchlogs         = var.emulator_endpoint
    dynamodb               = var.emulator_endpoint
    ec2                    = var.emulator_endpoint
    ecs                    = var.emulator_endpoint
    glue                   = var.emulator_endpoint
    iam                    = var.emulator_endpoint
    kinesis                = var.emulator_endpoint
    kms                    = var.emulator_endpoint
    oam                    = var.emulator_endpoint
    s3                     = var.emulator_endpoint
    secretsmanager         = var.emulator_endpoint
    sns                    = var.emulator_endpoint
    sts                    = var.emulator_endpoint
  }
}
