locals {
  system         = "_avesa/" # SYSTEM_PREFIX of services/contracts/names.py: what is ours, not a tenant's
  glue           = "arn:${var.partition}:glue:${var.region}:${var.account_id}"
  views_database = "avesa_${var.environment}"
  objects        = "${aws_s3_bucket.this.arn}/*"
}

resource "aws_s3_bucket" "this" {
  bucket        = var.bucket
  force_destroy = !var.protected

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

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    bucket_key_enabled = true # one KMS call for many objects: without it KMS costs more than the PUTs

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

# -- who may never do what ---------------------------------------------------------------------------------------------
# Denials only: what a role may do stands in its own policy (platform/permissions.tf).
locals {
  denials = [
    {
      Sid       = "InsecureTransport"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.this.arn, local.objects]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    },
    {
      Sid       = "OldTls"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.this.arn, local.objects]
      Condition = { NumericLessThan = { "s3:TlsVersion" = "1.2" } }
    },
    {
      Sid       = "OtherAccounts"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.this.arn, local.objects]
      Condition = {
        Bool            = { "aws:PrincipalIsAWSService" = "false" }
        StringNotEquals = { "aws:PrincipalAccount" = var.account_id }
      }
    },
    {
      # A request that names no encryption gets the bucket's; only one that asks for another is refused. "Null", because
      # a negated condition is also true of what is absent.
      Sid       = "OtherEncryption"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:PutObject"
      Resource  = local.objects
      Condition = {
        Null            = { "s3:x-amz-server-side-encryption" = "false" }
        StringNotEquals = { "s3:x-amz-server-side-encryption" = "aws:kms" }
      }
    },
    {
      Sid       = "OtherKey"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:PutObject"
      Resource  = local.objects
      Condition = {
        Null            = { "s3:x-amz-server-side-encryption-aws-kms-key-id" = "false" }
        StringNotEquals = { "s3:x-amz-server-side-encryption-aws-kms-key-id" = var.kms_key_arn }
      }
    },
  ]

  # Versions end by the lifecycle rules below, never by hand: a thief or a mistake can hide an object, not end it.
  protection = {
    Sid       = "PermanentDeletion"
    Effect    = "Deny"
    Principal = "*"
    Action    = ["s3:DeleteBucket", "s3:DeleteObjectVersion"]
    Resource  = [aws_s3_bucket.this.arn, local.objects]
  }
}

resource "aws_s3_bucket_policy" "this" {
  bucket = aws_s3_bucket.this.id
  policy = jsonencode({ Version = "2012-10-17", Statement = concat(local.denials, var.protected ? [local.protection] : []) })

  depends_on = [aws_s3_bucket_public_access_block.this]
}

# -- how long ----------------------------------------------------------------------------------------------------------
# Current objects of tenants never expire: raw/ and canonical/ are kept for ever, Iceberg's files end by maintenance.
# Where two rules meet, the shorter time wins (S3 user guide, "Lifecycle configuration examples", overlapping filters).
resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket = aws_s3_bucket.this.id

  rule {
    id     = "abandoned-uploads"
    status = "Enabled"

    filter {}

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  rule {
    id     = "old-versions"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = var.noncurrent_days
    }

    expiration {
      expired_object_delete_marker = true
    }
  }

  rule {
    id     = "old-versions-of-our-own"
    status = "Enabled"

    filter {
      prefix = local.system
    }

    noncurrent_version_expiration {
      noncurrent_days = var.system_noncurrent_days
    }
  }

  rule {
    id     = "query-results"
    status = "Enabled"

    filter {
      prefix = "${local.system}athena/"
    }

    expiration {
      days = var.query_result_days
    }
  }

  dynamic "rule" {
    for_each = var.tiering_days[*]

    content {
      id     = "rarely-read"
      status = "Enabled"

      filter {
        object_size_greater_than = 131072 # smaller ones are never moved to a cheaper tier
      }

      transition {
        days          = rule.value
        storage_class = "INTELLIGENT_TIERING"
      }
    }
  }

  depends_on = [aws_s3_bucket_versioning.this]
}

# -- how it is asked ---------------------------------------------------------------------------------------------------
# The databases of tenants, avesa_{environment}_{tenant}, are made by the compactor when a tenant's first table is.
resource "aws_glue_catalog_database" "views" {
  name        = local.views_database
  description = "Views over all tenants (avesa views)."
}

resource "aws_athena_workgroup" "this" {
  name          = "avesa-${var.environment}"
  description   = "Questions to the lake: results encrypted, bytes limited."
  force_destroy = !var.protected

  configuration {
    enforce_workgroup_configuration    = true
    publish_cloudwatch_metrics_enabled = true
    bytes_scanned_cutoff_per_query     = var.query_bytes_max

    result_configuration {
      output_location       = "s3://${aws_s3_bucket.this.id}/${local.system}athena/"
      expected_bucket_owner = var.account_id

      encryption_configuration {
        encryption_option = "SSE_KMS"
        kms_key_arn       = var.kms_key_arn
      }
    }
  }
}
