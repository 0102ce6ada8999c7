# Once for each account, by an administrator, before anything else: where Terraform keeps what it knows, and who may
# deploy. Its own state is small and local at first; README.md says how to move it into the bucket it makes.

locals {
  bucket = "avesa-terraform-state-${var.account_id}"
  root   = "arn:${var.partition}:iam::${var.account_id}:root"
}

# -- the state's key ---------------------------------------------------------------------------------------------------
# The account's IAM decides who uses it, but only through S3 and ECR: for state and images, never for tenants' data.
resource "aws_kms_key" "state" {
  description             = "AVESA: Terraform state and images"
  enable_key_rotation     = true
  deletion_window_in_days = 30

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "Administration"
        Effect    = "Allow"
        Principal = { AWS = local.root }
        Action = [
          "kms:CancelKeyDeletion", "kms:CreateAlias", "kms:DeleteAlias", "kms:DescribeKey", "kms:DisableKey", "kms:EnableKey",
          "kms:EnableKeyRotation", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListAliases", "kms:ListGrants", "kms:ListKeyPolicies",
          "kms:ListResourceTags", "kms:PutKeyPolicy", "kms:RevokeGrant", "kms:ScheduleKeyDeletion", "kms:TagResource",
          "kms:UntagResource", "kms:UpdateAlias", "kms:UpdateKeyDescription",
        ]
        Resource = "*"
      },
      {
        Sid       = "UseThroughServices"
        Effect    = "Allow"
        Principal = { AWS = local.root }
        Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource  = "*"
        Condition = {
          StringEquals = { "kms:CallerAccount" = var.account_id, "kms:ViaService" = [for service in ["ecr", "s3"] : "${service}.${var.region}.amazonaws.com"] }
        }
      },
      {
        # A repository works with grants of its own: ECR user guide, "Encryption at rest".
        Sid       = "GrantToRegistry"
        Effect    = "Allow"
        Principal = { AWS = local.root }
        Action    = ["kms:CreateGrant", "kms:RetireGrant"]
        Resource  = "*"
        Condition = {
          Bool         = { "kms:GrantIsForAWSResource" = "true" }
          StringEquals = { "kms:CallerAccount" = var.account_id, "kms:ViaService" = "ecr.${var.region}.amazonaws.com" }
        }
      },
    ]
  })

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "state" {
  name          = "alias/avesa-terraform-state"
  target_key_id = aws_kms_key.state.key_id
}

# -- the state's bucket ------------------------------------------------------------------------------------------------
resource "aws_s3_bucket" "state" {
  bucket = local.bucket

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_s3_bucket_versioning" "state" {
  bucket = aws_s3_bucket.state.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    bucket_key_enabled = true

    apply_server_side_encryption_by_default {
      sse_algorithm     = "aws:kms"
      kms_master_key_id = aws_kms_key.state.arn
    }
  }
}

resource "aws_s3_bucket_public_access_block" "state" {
  bucket = aws_s3_bucket.state.id

  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_ownership_controls" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

# A state is small: a year of versions costs cents and is the only way back from a bad one.
resource "aws_s3_bucket_lifecycle_configuration" "state" {
  bucket = aws_s3_bucket.state.id

  rule {
    id     = "old-versions"
    status = "Enabled"

    filter {}

    noncurrent_version_expiration {
      noncurrent_days = 365
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 7
    }
  }

  depends_on = [aws_s3_bucket_versioning.state]
}

resource "aws_s3_bucket_policy" "state" {
  bucket = aws_s3_bucket.state.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid       = "InsecureTransport"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.state.arn, "${aws_s3_bucket.state.arn}/*"]
        Condition = { Bool = { "aws:SecureTransport" = "false" } }
      },
      {
        Sid       = "OtherAccounts"
        Effect    = "Deny"
        Principal = "*"
        Action    = "s3:*"
        Resource  = [aws_s3_bucket.state.arn, "${aws_s3_bucket.state.arn}/*"]
        Condition = {
          Bool            = { "aws:PrincipalIsAWSService" = "false" }
          StringNotEquals = { "aws:PrincipalAccount" = var.account_id }
        }
      },
    ]
  })

  depends_on = [aws_s3_bucket_public_access_block.state]
}

# -- the images --------------------------------------------------------------------------------------------------------
# One repository for all environments of the account: what staging ran is, byte for byte, what comes next.
resource "aws_ecr_repository" "images" {
  name                 = "avesa"
  image_tag_mutability = "IMMUTABLE"

  image_scanning_configuration {
    scan_on_push = true
  }

  encryption_configuration {
    encryption_type = "KMS"
    kms_key         = aws_kms_key.state.arn
  }
}

# What a rollback may need stays: a hundred releases. Untagged manifests are left alone: they are the architectures of tagged ones.
resource "aws_ecr_lifecycle_policy" "images" {
  repository = aws_ecr_repository.images.name
  policy = jsonencode({
    rules = [
      {
        rulePriority = 1
        description  = "keep the last hundred releases"
        selection    = { tagStatus = "tagged", tagPatternList = ["*"], countType = "imageCountMoreThan", countNumber = 100 }
        action       = { type = "expire" }
      },
    ]
  })
}

# -- who may deploy ----------------------------------------------------------------------------------------------------
module "ci" {
  source   = "../modules/ci-oidc"
  for_each = toset(var.github_repository[*])

  account_id        = var.account_id
  region            = var.region
  partition         = var.partition
  github_repository = each.value
  environments      = var.environments
  state_bucket_arn  = aws_s3_bucket.state.arn
  state_kms_key_arn = aws_kms_key.state.arn
  create_provider   = var.create_oidc_provider
  plan_subjects     = var.plan_subjects
  apply_ref         = var.apply_ref
}
