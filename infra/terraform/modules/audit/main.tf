# Who did what, kept where those who did it cannot change it. Object calls on the lake are data events; calls on
# secrets are management events (CloudTrail records no data events for Secrets Manager), so the trail takes all of these.
locals {
  trail_name = "avesa-${var.environment}"
  trail_arn  = "arn:${var.partition}:cloudtrail:${var.region}:${var.account_id}:trail/${local.trail_name}"
  secrets    = "arn:${var.partition}:secretsmanager:${var.region}:${var.account_id}:secret:avesa/${var.environment}/"
}

resource "aws_s3_bucket" "this" {
  bucket        = "avesa-audit-${var.environment}-${var.account_id}"
  force_destroy = !var.protected

  # Always, though nothing is locked where nothing is protected: it can be given to a new bucket only, so that an
  # environment that is protected later, or no longer, would have its trail replaced, and lose it.
  object_lock_enabled = true

  # What has to be made anew is made first, and its name is taken: such a change fails, and nothing is lost.
  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_object_lock_configuration" "this" {
  count = var.protected ? 1 : 0

  bucket = aws_s3_bucket.this.id

  rule {
    default_retention {
      mode = "GOVERNANCE"
      days = var.lock_days
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket = aws_s3_bucket.this.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    id     = "end"
    status = "Enabled"

    filter {}

    expiration {
      days = var.retention_days
    }

    noncurrent_version_expiration {
      noncurrent_days = 7
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

resource "aws_s3_bucket_policy" "this" {
  bucket = aws_s3_bucket.this.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "InsecureTransport"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.this.arn, "${aws_s3_bucket.this.arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
      {
        Sid       = "TrailLooks"
        Effect    = "Allow"
        Principal = { Service = "cloudtrail.amazonaws.com" }
        Action    = "s3:GetBucketAcl"
        Resource  = aws_s3_bucket.this.arn
        Condition = { StringEquals = { "aws:SourceArn" = local.trail_arn } }
      },
      {
        Sid       = "TrailWrites"
        Effect    = "Allow"
        Principal = { Service = "cloudtrail.amazonaws.com" }
        Action    = "s3:PutObject"
        Resource  = "${aws_s3_bucket.this.arn}/AWSLogs/${var.account_id}/*"
        Condition = { StringEquals = { "aws:SourceArn" = local.trail_arn, "s3:x-amz-acl" = "bucket-owner-full-control" } }
      },
    ]
  })

  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_cloudtrail" "this" {
  #checkov:skip=CKV_AWS_252:EventBridge tells at once of the calls that matter (rules below); a topic of delivered files tells nothing
  #checkov:skip=CKV2_AWS_10:the files are locked in S3 and asked by Athena; a second copy in CloudWatch Logs costs 0.50 USD/GB and proves no more
  name                          = local.trail_name
  s3_bucket_name                = aws_s3_bucket.this.id
  kms_key_id                    = var.kms_key_arn
  enable_log_file_validation    = true
  is_multi_region_trail         = true
  include_global_service_events = true

  advanced_event_selector {
    name = "Every management call, those on secrets and keys among them"

    field_selector {
      field  = "eventCategory"
      equals = ["Management"]
    }
  }

  advanced_event_selector {
    name = "Objects of the lake"

    field_selector {
      field  = "eventCategory"
      equals = ["Data"]
    }

    field_selector {
      field  = "resources.type"
      equals = ["AWS::S3::Object"]
    }

    field_selector {
      field           = "resources.ARN"
      starts_with     = ["${var.lake_bucket_arn}/"]
      not_starts_with = length(var.excluded_prefixes) > 0 ? [for prefix in var.excluded_prefixes : "${var.lake_bucket_arn}/${prefix}"] : null
    }
  }

  depends_on = [aws_s3_bucket_policy.this]
}

# -- what must not wait for somebody to read the trail -----------------------------------------------------------------
# None of these belongs to a day's work of the services; a person who does it on purpose gets one mail.
locals {
  watched = {
    secrets = {
      description = "A tenant's secret was deleted, or opened to others."
      source      = "aws.secretsmanager"
      detail = {
        eventSource = ["secretsmanager.amazonaws.com"]
        eventName   = ["DeleteResourcePolicy", "DeleteSecret", "PutResourcePolicy", "ReplicateSecretToRegions", "UpdateSecret"]
        requestParameters = {
          secretId = [{ prefix = "avesa/${var.environment}/" }, { prefix = local.secrets }]
        }
      }
    }
    keys = {
      description = "A key was disabled, given a new policy, or will be deleted."
      source      = "aws.kms"
      detail = {
        eventSource = ["kms.amazonaws.com"]
        eventName   = ["DisableKey", "PutKeyPolicy", "ScheduleKeyDeletion"]
        resources   = { ARN = var.watched_key_arns }
      }
    }
    trail = {
      description = "The trail was stopped or changed."
      source      = "aws.cloudtrail"
      detail = {
        eventSource       = ["cloudtrail.amazonaws.com"]
        eventName         = ["DeleteTrail", "PutEventSelectors", "StopLogging", "UpdateTrail"]
        requestParameters = { "$or" = [{ name = [local.trail_name, local.trail_arn] }, { trailName = [local.trail_name, local.trail_arn] }] }
      }
    }
  }
}

resource "aws_cloudwatch_event_rule" "this" {
  for_each = local.watched

  name        = "avesa-${var.environment}-audit-${each.key}"
  description = each.value.description
  event_pattern = jsonencode({
    source      = [each.value.source]
    detail-type = ["AWS API Call via CloudTrail"]
    detail      = each.value.detail
  })
}

resource "aws_cloudwatch_event_target" "this" {
  for_each = aws_cloudwatch_event_rule.this

  rule      = each.value.name
  target_id = "alerts"
  arn       = var.topic_arn

  input_transformer {
    input_paths = {
      event = "$.detail.eventName"
      time  = "$.time"
      who   = "$.detail.userIdentity.arn"
    }
    input_template = "\"AVESA ${var.environment}: ${each.value.description} <event> by <who> at <time>. See the trail ${local.trail_name}.\""
  }
}
