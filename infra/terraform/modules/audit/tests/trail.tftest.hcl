mock_provider "aws" {
  override_during = plan

  mock_resource "aws_s3_bucket" {
    defaults = {
      id  = "avesa-audit-prod-222222222222"
      arn = "arn:aws:s3:::avesa-audit-prod-222222222222"
    }
  }
}

variables {
  environment      = "prod"
  account_id       = "222222222222"
  region           = "us-east-2"
  kms_key_arn      = "arn:aws:kms:us-east-2:222222222222:key/logs"
  protected        = true
  lake_bucket_arn  = "arn:aws:s3:::data-storage-msp-prod"
  watched_key_arns = ["arn:aws:kms:us-east-2:222222222222:key/data"]
  topic_arn        = "arn:aws:sns:us-east-2:222222222222:avesa-alerts-prod"
}

run "the_trail_takes_every_management_call_and_every_object_of_the_lake" {
  command = plan

  assert {
    condition     = aws_cloudtrail.this.is_multi_region_trail && aws_cloudtrail.this.include_global_service_events && aws_cloudtrail.this.enable_log_file_validation && aws_cloudtrail.this.kms_key_id == var.kms_key_arn
    error_message = "All regions, validated, encrypted."
  }

  assert {
    condition = toset(flatten([
      for selector in aws_cloudtrail.this.advanced_event_selector : [for field in selector.field_selector : "${field.field}=${join(",", concat(coalesce(field.equals, []), coalesce(field.starts_with, [])))}"]
    ])) == toset(["eventCategory=Management", "eventCategory=Data", "resources.type=AWS::S3::Object", "resources.ARN=arn:aws:s3:::data-storage-msp-prod/"])
    error_message = "Secrets Manager's calls are management events."
  }
}

run "only_this_trail_writes_and_nobody_can_rewrite" {
  command = plan

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_s3_bucket_policy.this.policy).Statement : statement.Condition.StringEquals["aws:SourceArn"] == "arn:aws:cloudtrail:us-east-2:222222222222:trail/avesa-prod" if statement.Effect == "Allow"
    ])
    error_message = "Another account's trail cannot be pointed here."
  }

  assert {
    condition     = aws_s3_bucket.this.object_lock_enabled && one(one(aws_s3_bucket_object_lock_configuration.this[0].rule).default_retention).days == 90 && !aws_s3_bucket.this.force_destroy
    error_message = "Files are locked."
  }
}

run "what_must_not_wait_is_told_at_once" {
  command = plan

  assert {
    condition     = toset(values(aws_cloudwatch_event_rule.this)[*].name) == toset(["avesa-prod-audit-secrets", "avesa-prod-audit-keys", "avesa-prod-audit-trail"]) && alltrue([for target in values(aws_cloudwatch_event_target.this) : target.arn == var.topic_arn])
    error_message = "Three rules, one topic."
  }

  assert {
    condition     = jsondecode(aws_cloudwatch_event_rule.this["keys"].event_pattern).detail.resources.ARN == ["arn:aws:kms:us-east-2:222222222222:key/data"] && contains(jsondecode(aws_cloudwatch_event_rule.this["keys"].event_pattern).detail.eventName, "ScheduleKeyDeletion")
    error_message = "Our keys only."
  }

  assert {
    condition     = jsondecode(aws_cloudwatch_event_rule.this["secrets"].event_pattern).detail.requestParameters.secretId == [{ prefix = "avesa/prod/" }, { prefix = "arn:aws:secretsmanager:us-east-2:222222222222:secret:avesa/prod/" }]
    error_message = "A caller may name a secret by name or ARN."
  }
}

run "an_unprotected_trail_can_be_taken_down" {
  command = plan

  variables {
    protected = false
  }

  assert {
    condition     = aws_s3_bucket.this.force_destroy && length(aws_s3_bucket_object_lock_configuration.this) == 0
    error_message = "No file is locked."
  }

  assert {
    condition     = aws_s3_bucket.this.object_lock_enabled
    error_message = "A bucket that can lock later need not be replaced for it."
  }
}
