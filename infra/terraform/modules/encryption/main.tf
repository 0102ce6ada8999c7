# Three keys, one for each class of data, so that whoever may use one gains nothing from the others:
#   data     streams, tables, lake: used by our roles, through these services only
#   secrets  credentials of tenants: used by the extractors and named operators, through Secrets Manager only
#   logs     what the platform says of itself: log groups, trail, alarm topics; AWS services use it
# In every policy the account may administer the key (else a key can be lost for good) but not use it directly, and
# has no CreateGrant: an administrator who wants to read has to change the policy, and that is recorded and rings.

locals {
  root = "arn:${var.partition}:iam::${var.account_id}:root"

  administration = {
    Sid       = "Administration"
    Effect    = "Allow"
    Principal = { AWS = local.root }
    Action = [
      "kms:CancelKeyDeletion", "kms:CreateAlias", "kms:DeleteAlias", "kms:DescribeKey", "kms:DisableKey",
      "kms:DisableKeyRotation", "kms:EnableKey", "kms:EnableKeyRotation", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus",
      "kms:ListAliases", "kms:ListGrants", "kms:ListKeyPolicies", "kms:ListKeyRotations", "kms:ListResourceTags", "kms:PutKeyPolicy",
      "kms:RevokeGrant", "kms:RotateKeyOnDemand", "kms:ScheduleKeyDeletion", "kms:TagResource", "kms:UntagResource",
      "kms:UpdateAlias", "kms:UpdateKeyDescription",
    ]
    Resource = "*"
  }

  use = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]

  data = [
    local.administration,
    {
      Sid       = "UseThroughServices"
      Effect    = "Allow"
      Principal = { AWS = local.root }
      Action    = local.use
      Resource  = "*"
      Condition = {
        StringEquals = {
          "kms:CallerAccount" = var.account_id
          "kms:ViaService"    = [for service in ["dynamodb", "kinesis", "s3"] : "${service}.${var.region}.amazonaws.com"]
        }
      }
    },
    {
      # DynamoDB works with grants: DynamoDB developer guide, "Encryption at rest: how it works".
      Sid       = "GrantToDynamoDB"
      Effect    = "Allow"
      Principal = { AWS = local.root }
      Action    = ["kms:CreateGrant", "kms:RetireGrant"]
      Resource  = "*"
      Condition = {
        Bool = { "kms:GrantIsForAWSResource" = "true" }
        StringEquals = {
          "kms:CallerAccount" = var.account_id
          "kms:ViaService"    = "dynamodb.${var.region}.amazonaws.com"
        }
      }
    },
  ]

  # The roles of modules/service: path /avesa/{environment}/, name avesa-extractor[-{group}]-{environment}.
  extractors = "arn:${var.partition}:iam::${var.account_id}:role/avesa/${var.environment}/avesa-extractor-*"

  secrets = [
    local.administration,
    {
      # Both must agree: IAM allows the action, and this statement knows the caller. "*" in IAM is not enough.
      Sid       = "UseThroughSecretsManager"
      Effect    = "Allow"
      Principal = { AWS = local.root }
      Action    = local.use
      Resource  = "*"
      Condition = {
        ArnLike      = { "aws:PrincipalArn" = concat([local.extractors], var.secret_operator_arns) }
        StringEquals = { "kms:CallerAccount" = var.account_id, "kms:ViaService" = "secretsmanager.${var.region}.amazonaws.com" }
      }
    },
  ]

  trail            = "arn:${var.partition}:cloudtrail:${var.region}:${var.account_id}:trail/avesa-${var.environment}"
  alarm_account_id = concat([var.account_id], var.alarm_source_account_ids)

  logs = [
    local.administration,
    {
      # CloudWatch Logs user guide, "Encrypt log data in CloudWatch Logs using KMS".
      Sid       = "LogGroups"
      Effect    = "Allow"
      Principal = { Service = "logs.${var.region}.amazonaws.com" }
      Action    = local.use
      Resource  = "*"
      Condition = {
        ArnLike = {
          "kms:EncryptionContext:aws:logs:arn" = [
            for name in local.log_groups : "arn:${var.partition}:logs:${var.region}:${var.account_id}:log-group:${name}"
          ]
        }
      }
    },
    {
      # CloudTrail user guide, "Configure KMS key policies for CloudTrail": Decrypt because the bucket has a bucket key.
      Sid       = "TrailFiles"
      Effect    = "Allow"
      Principal = { Service = "cloudtrail.amazonaws.com" }
      Action    = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKey*"]
      Resource  = "*"
      Condition = { StringEquals = { "aws:SourceArn" = local.trail } }
    },
    {
      Sid       = "ReadTrailAndPublish"
      Effect    = "Allow"
      Principal = { AWS = local.root }
      Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
      Resource  = "*"
      Condition = {
        StringEquals = {
          "kms:CallerAccount" = var.account_id
          "kms:ViaService"    = [for service in ["s3", "sns"] : "${service}.${var.region}.amazonaws.com"]
        }
      }
    },
    {
      Sid       = "AlarmsToTopics"
      Effect    = "Allow"
      Principal = { Service = "cloudwatch.amazonaws.com" }
      Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
      Resource  = "*"
      Condition = {
        ArnLike      = { "aws:SourceArn" = [for id in local.alarm_account_id : "arn:${var.partition}:cloudwatch:${var.region}:${id}:alarm:avesa-*"] }
        StringEquals = { "aws:SourceAccount" = local.alarm_account_id }
      }
    },
    {
      # EventBridge sends no aws:SourceAccount or aws:SourceArn to KMS; a condition on them drops every event without
      # a word: SNS developer guide, "Key management", section on event sources and encrypted topics.
      Sid       = "EventsToTopics"
      Effect    = "Allow"
      Principal = { Service = "events.amazonaws.com" }
      Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
      Resource  = "*"
    },
    {
      Sid       = "BudgetsToTopics"
      Effect    = "Allow"
      Principal = { Service = "budgets.amazonaws.com" }
      Action    = ["kms:Decrypt", "kms:GenerateDataKey*"]
      Resource  = "*"
      Condition = {
        ArnLike      = { "aws:SourceArn" = "arn:${var.partition}:budgets::${var.account_id}:*" }
        StringEquals = { "aws:SourceAccount" = var.account_id }
      }
    },
  ]

  # What ECS Container Insights and EventBridge name themselves cannot begin with /avesa/.
  log_groups = [
    "/avesa/${var.environment}/*",
    "/aws/ecs/containerinsights/avesa-${var.environment}/*",
    "/aws/events/avesa-${var.environment}*",
  ]

  keys = {
    data    = { description = "AVESA ${var.environment}: streams, tables, lake", policy = jsonencode({ Version = "2012-10-17", Statement = local.data }) }
    secrets = { description = "AVESA ${var.environment}: credentials of tenants", policy = jsonencode({ Version = "2012-10-17", Statement = local.secrets }) }
    logs    = { description = "AVESA ${var.environment}: logs, trail, alarm topics", policy = jsonencode({ Version = "2012-10-17", Statement = local.logs }) }
  }
}

resource "aws_kms_key" "this" {
  for_each = local.keys

  description             = each.value.description
  policy                  = each.value.policy
  enable_key_rotation     = true
  deletion_window_in_days = var.deletion_window_days
}

resource "aws_kms_alias" "this" {
  for_each = aws_kms_key.this

  name          = "alias/avesa-${each.key}-${var.environment}"
  target_key_id = each.value.key_id
}
