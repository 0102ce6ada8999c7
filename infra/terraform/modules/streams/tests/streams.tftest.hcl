mock_provider "aws" {}

variables {
  environment = "dev"
  kms_key_arn = "arn:aws:kms:us-east-2:111111111111:key/data"
  streams = {
    raw       = { mode = "PROVISIONED", shards = 3, retention_hours = 24 }
    canonical = { shards = 9 }
  }
}

run "names_encryption_and_retention" {
  command = plan

  assert {
    condition     = { for key, stream in aws_kinesis_stream.this : key => stream.name } == { raw = "avesa-raw-dev", canonical = "avesa-canonical-dev" }
    error_message = "Names as services/contracts/names.py."
  }

  assert {
    condition     = alltrue([for stream in values(aws_kinesis_stream.this) : stream.encryption_type == "KMS" && stream.kms_key_id == var.kms_key_arn && stream.enforce_consumer_deletion])
    error_message = "Encrypted with the data key; consumers never block."
  }

  assert {
    condition     = aws_kinesis_stream.this["raw"].retention_period == 24 && aws_kinesis_stream.this["canonical"].retention_period == 168
    error_message = "A week, unless it is said otherwise."
  }
}

run "an_on_demand_stream_sizes_itself" {
  command = plan

  assert {
    condition     = aws_kinesis_stream.this["raw"].shard_count == 3 && aws_kinesis_stream.this["canonical"].shard_count == null
    error_message = "Shards count only in mode PROVISIONED."
  }

  assert {
    condition     = one(aws_kinesis_stream.this["canonical"].stream_mode_details).stream_mode == "ON_DEMAND"
    error_message = "On demand is the default."
  }
}

run "a_day_is_the_least" {
  command = plan

  variables {
    streams = { raw = { retention_hours = 1 } }
  }

  expect_failures = [var.streams]
}
