# Applied, not planned: the provider computes parts of the rules. So nothing is overridden during the plan here.
mock_provider "aws" {}

variables {
  environment = "prod"
  account_id  = "222222222222"
  region      = "us-east-2"
  bucket      = "data-storage-msp-prod"
  kms_key_arn = "arn:aws:kms:us-east-2:222222222222:key/data"
  protected   = true
}

run "no_current_object_of_a_tenant_ever_expires" {
  command = apply

  assert {
    condition = [
      for rule in aws_s3_bucket_lifecycle_configuration.this.rule : one(rule.filter).prefix if try(one(rule.expiration).days, null) != null && try(one(rule.expiration).days, 0) > 0
    ] == ["_avesa/athena/"]
    error_message = "Only query results end by age."
  }

  assert {
    condition     = join(",", [for rule in aws_s3_bucket_lifecycle_configuration.this.rule : rule.id if try(one(rule.abort_incomplete_multipart_upload).days_after_initiation, 0) == 7]) == "abandoned-uploads"
    error_message = "Abandoned uploads end everywhere, after a week."
  }
}

run "old_versions_end_soonest_where_the_services_overwrite_all_day" {
  command = apply

  assert {
    condition = { for rule in aws_s3_bucket_lifecycle_configuration.this.rule : rule.id => one(rule.noncurrent_version_expiration).noncurrent_days if length(rule.noncurrent_version_expiration) > 0 } == {
      old-versions            = 30
      old-versions-of-our-own = 3
    }
    error_message = "A month for tenants, three days for _avesa/."
  }
}

run "rarely_read_objects_move_only_where_it_is_asked_for" {
  command = apply

  variables {
    tiering_days = 90
  }

  assert {
    condition     = [for rule in aws_s3_bucket_lifecycle_configuration.this.rule : one(rule.transition).storage_class if length(rule.transition) > 0] == ["INTELLIGENT_TIERING"]
    error_message = "And never to a class that takes hours to read from."
  }
}
