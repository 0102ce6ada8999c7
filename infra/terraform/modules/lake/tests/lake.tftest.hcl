mock_provider "aws" {
  override_during = plan

  mock_resource "aws_s3_bucket" {
    defaults = {
      id  = "data-storage-msp-prod"
      arn = "arn:aws:s3:::data-storage-msp-prod"
    }
  }
}

variables {
  environment = "prod"
  account_id  = "222222222222"
  region      = "us-east-2"
  bucket      = "data-storage-msp-prod"
  kms_key_arn = "arn:aws:kms:us-east-2:222222222222:key/data"
  protected   = true
}

run "the_bucket_refuses_what_nobody_may_ever_do" {
  command = plan

  assert {
    condition = [for statement in jsondecode(aws_s3_bucket_policy.this.policy).Statement : statement.Sid] == [
      "InsecureTransport", "OldTls", "OtherAccounts", "OtherEncryption", "OtherKey", "PermanentDeletion",
    ]
    error_message = "Six denials."
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_s3_bucket_policy.this.policy).Statement : statement.Effect == "Deny"])
    error_message = "The bucket's policy gives nothing to anybody."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_s3_bucket_policy.this.policy).Statement :
      statement.Resource == ["arn:aws:s3:::data-storage-msp-prod", "arn:aws:s3:::data-storage-msp-prod/*"] if contains(["InsecureTransport", "OldTls", "OtherAccounts", "PermanentDeletion"], statement.Sid)
    ])
    error_message = "Bucket and objects."
  }

  # A negated condition is true of an absent header: without the test for null, every plain PutObject would be refused.
  assert {
    condition = alltrue([
      for statement in jsondecode(aws_s3_bucket_policy.this.policy).Statement : keys(statement.Condition.Null) == keys(statement.Condition.StringNotEquals) if contains(["OtherEncryption", "OtherKey"], statement.Sid)
    ])
    error_message = "A request that names no encryption is not refused."
  }
}

run "the_bucket_is_private_versioned_and_encrypted" {
  command = plan

  assert {
    condition = (
      !aws_s3_bucket.this.force_destroy &&
      one(aws_s3_bucket_versioning.this.versioning_configuration).status == "Enabled" &&
      one(one(aws_s3_bucket_server_side_encryption_configuration.this.rule).apply_server_side_encryption_by_default).kms_master_key_id == var.kms_key_arn &&
      one(aws_s3_bucket_server_side_encryption_configuration.this.rule).bucket_key_enabled &&
      one(aws_s3_bucket_ownership_controls.this.rule).object_ownership == "BucketOwnerEnforced"
    )
    error_message = "Versions, the data key with a bucket key, no access lists, no forced end."
  }

  assert {
    condition = alltrue([
      aws_s3_bucket_public_access_block.this.block_public_acls, aws_s3_bucket_public_access_block.this.block_public_policy,
      aws_s3_bucket_public_access_block.this.ignore_public_acls, aws_s3_bucket_public_access_block.this.restrict_public_buckets,
    ])
    error_message = "Nothing is public."
  }
}

run "questions_are_bounded_and_answered_encrypted" {
  command = plan

  assert {
    condition = (
      one(aws_athena_workgroup.this.configuration).enforce_workgroup_configuration &&
      one(aws_athena_workgroup.this.configuration).bytes_scanned_cutoff_per_query == 1099511627776 &&
      one(one(aws_athena_workgroup.this.configuration).result_configuration).output_location == "s3://data-storage-msp-prod/_avesa/athena/" &&
      one(one(one(aws_athena_workgroup.this.configuration).result_configuration).encryption_configuration).kms_key_arn == var.kms_key_arn
    )
    error_message = "The workgroup's settings win over the client's."
  }

  assert {
    condition     = aws_athena_workgroup.this.name == "avesa-prod" && aws_glue_catalog_database.views.name == "avesa_prod"
    error_message = "Names as services/contracts/names.py."
  }
}

run "an_unprotected_lake_can_be_taken_down" {
  command = plan

  variables {
    protected = false
  }

  assert {
    condition     = aws_s3_bucket.this.force_destroy && !strcontains(aws_s3_bucket_policy.this.policy, "PermanentDeletion")
    error_message = "Else a test environment could never end."
  }
}
