# An apply by a provider that asks nobody: what follows from the variables is as it would be, the rest is made up. What
# the provider checks the form of is made up in that form.
mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "000000000000" }
  }

  mock_data "aws_availability_zones" {
    defaults = { names = ["us-east-2a", "us-east-2b", "us-east-2c"] }
  }

  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::000000000000:role/made-up" }
  }

  mock_resource "aws_kinesis_stream" {
    defaults = { arn = "arn:aws:kinesis:us-east-2:000000000000:stream/made-up" }
  }

  mock_resource "aws_ecs_cluster" {
    defaults = { arn = "arn:aws:ecs:us-east-2:000000000000:cluster/made-up" }
  }

  mock_resource "aws_ecs_task_definition" {
    defaults = { arn = "arn:aws:ecs:us-east-2:000000000000:task-definition/made-up:1" }
  }

  mock_resource "aws_appautoscaling_policy" {
    defaults = { arn = "arn:aws:autoscaling:us-east-2:000000000000:scalingPolicy:made-up" }
  }

  mock_resource "aws_sns_topic" {
    defaults = { arn = "arn:aws:sns:us-east-2:000000000000:made-up" }
  }

  mock_resource "aws_cloudwatch_log_group" {
    defaults = { arn = "arn:aws:logs:us-east-2:000000000000:log-group:made-up" }
  }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:us-east-2:000000000000:key/made-up" }
  }
}

override_resource {
  target = module.encryption.aws_kms_key.this["data"]
  values = { arn = "arn:aws:kms:us-east-2:000000000000:key/data" }
}

override_resource {
  target = module.encryption.aws_kms_key.this["secrets"]
  values = { arn = "arn:aws:kms:us-east-2:000000000000:key/secrets" }
}

run "all" {
  command = apply
}
