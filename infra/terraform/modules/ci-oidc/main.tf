# GitHub Actions takes these roles with the token of a run: no key of AWS is stored anywhere.
#   avesa-plan          pull requests and the main branch; reads configuration and state, writes nothing but the lock
#   avesa-image         the main branch; pushes images, which can never be overwritten
#   avesa-apply-{env}   runs of the main branch in the GitHub environment {env}, after its approvals; builds that
#                       environment and no other. The subject of such a run names no branch: the claim `ref` does (IAM user
#                       guide, "Available keys for AWS OIDC federation", GitHub; since January 2026)
# Neither reads what tenants entrust to us: no object, row, record or secret. Neither may delete a stream, table, bucket,
# key or trail, or shorten what is kept: that takes a person with an administrator's role (README.md, "Teardown").
# All of this lies under path /avesa-ci/, where no apply role may change anything; what they may make lies under
# /avesa/{env}/ and carries a boundary.

locals {
  iam      = "arn:${var.partition}:iam::${var.account_id}"
  issuer   = "token.actions.githubusercontent.com"
  provider = "${local.iam}:oidc-provider/${local.issuer}"
  path     = "/avesa-ci/"
  here     = "${var.region}:${var.account_id}"

  trust = {
    for name, subjects in merge(
      {
        plan  = [for subject in var.plan_subjects : "repo:${var.github_repository}:${subject}"]
        image = ["repo:${var.github_repository}:${var.image_subject}"]
      },
      { for environment in var.environments : "apply-${environment}" => ["repo:${var.github_repository}:environment:${environment}"] },
      ) : name => jsonencode({
        Version = "2012-10-17"
        Statement = [{
          Effect    = "Allow"
          Principal = { Federated = local.provider }
          Action    = "sts:AssumeRoleWithWebIdentity"
          Condition = {
            StringEquals = merge(
              { "${local.issuer}:aud" = "sts.amazonaws.com", "${local.issuer}:sub" = subjects },
              startswith(name, "apply-") && var.apply_ref != null ? { "${local.issuer}:ref" = var.apply_ref } : {},
            )
          }
        }]
    })
  }
}

resource "aws_iam_openid_connect_provider" "github" {
  count = var.create_provider ? 1 : 0

  url            = "https://${local.issuer}"
  client_id_list = ["sts.amazonaws.com"]
}

# -- plan --------------------------------------------------------------------------------------------------------------
resource "aws_iam_role" "plan" {
  name                 = "avesa-plan"
  path                 = local.path
  description          = "GitHub Actions plans ${var.github_repository}."
  assume_role_policy   = local.trust["plan"]
  max_session_duration = 3600

  depends_on = [aws_iam_openid_connect_provider.github]
}

resource "aws_iam_role_policy_attachment" "plan_read" {
  role       = aws_iam_role.plan.name
  policy_arn = aws_iam_policy.read.arn
}

resource "aws_iam_role_policy" "plan_state" {
  name = "state"
  role = aws_iam_role.plan.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Sid = "FindState", Effect = "Allow", Action = "s3:ListBucket", Resource = var.state_bucket_arn },
      { Sid = "ReadState", Effect = "Allow", Action = "s3:GetObject", Resource = [for name in var.environments : "${var.state_bucket_arn}/${name}/*"] },
      { Sid = "LockState", Effect = "Allow", Action = ["s3:DeleteObject", "s3:PutObject"], Resource = [for name in var.environments : "${var.state_bucket_arn}/${name}/*.tflock"] },
      local.state_key,
    ]
  })
}

locals {
  state_key = {
    Sid       = "StateKey"
    Effect    = "Allow"
    Action    = ["kms:Decrypt", "kms:GenerateDataKey"]
    Resource  = var.state_kms_key_arn
    Condition = { StringEquals = { "kms:ViaService" = "s3.${var.region}.amazonaws.com" } }
  }
}

# Configuration only. Where AWS has no resource for a Describe or List, "*" is all there is.
resource "aws_iam_policy" "read" {
  #checkov:skip=CKV_AWS_355:these actions read configuration, most of them know no resource, and the plan role writes nothing
  name        = "avesa-ci-read"
  path        = local.path
  description = "Read the configuration of what infra/terraform makes, never its contents."
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "Configuration"
        Effect = "Allow"
        Action = [
          "application-autoscaling:Describe*", "application-autoscaling:ListTagsForResource",
          "athena:GetWorkGroup", "athena:ListTagsForResource",
          "budgets:ListTagsForResource", "budgets:ViewBudget",
          "cloudtrail:DescribeTrails", "cloudtrail:GetEventSelectors", "cloudtrail:GetInsightSelectors", "cloudtrail:GetTrail", "cloudtrail:GetTrailStatus", "cloudtrail:ListTags",
          "cloudwatch:DescribeAlarms", "cloudwatch:GetDashboard", "cloudwatch:ListTagsForResource",
          "dynamodb:DescribeContinuousBackups", "dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive", "dynamodb:ListTagsOfResource",
          "ec2:Describe*",
          "ecr:DescribeImages", "ecr:DescribeRepositories", "ecr:GetLifecyclePolicy", "ecr:GetRepositoryPolicy", "ecr:ListTagsForResource",
          "ecs:Describe*", "ecs:List*",
          "events:DescribeRule", "events:ListTagsForResource", "events:ListTargetsByRule",
          "glue:GetDatabase", "glue:GetTags",
          "kinesis:DescribeStream", "kinesis:DescribeStreamConsumer", "kinesis:DescribeStreamConsumer", "kinesis:DescribeStreamSummary", "kinesis:ListTagsForResource", "kinesis:ListTagsForStream",
          "kms:DescribeKey", "kms:GetKeyPolicy", "kms:GetKeyRotationStatus", "kms:ListAliases", "kms:ListResourceTags",
          "logs:DescribeLogGroups", "logs:DescribeMetricFilters", "logs:DescribeQueryDefinitions", "logs:DescribeResourcePolicies", "logs:ListTagsForResource",
          "oam:GetLink", "oam:GetSink", "oam:GetSinkPolicy", "oam:ListTagsForResource",
          "sns:GetSubscriptionAttributes", "sns:GetTopicAttributes", "sns:ListTagsForResource",
        ]
        Resource = "*"
      },
      {
        Sid    = "Identities"
        Effect = "Allow"
        Action = [
          "iam:GetOpenIDConnectProvider", "iam:GetPolicy", "iam:GetPolicyVersion", "iam:GetRole", "iam:GetRolePolicy",
          "iam:ListAttachedRolePolicies", "iam:ListInstanceProfilesForRole", "iam:ListPolicyVersions", "iam:ListRolePolicies",
        ]
        Resource = ["${local.iam}:role/avesa/*", "${local.iam}:policy/avesa/*", "${local.iam}:policy/avesa-ci/*", local.provider]
      },
      {
        Sid    = "Buckets"
        Effect = "Allow"
        Action = [
          "s3:GetAccelerateConfiguration", "s3:GetBucket*", "s3:GetEncryptionConfiguration", "s3:GetLifecycleConfiguration",
          "s3:GetReplicationConfiguration", "s3:ListBucket",
        ]
        Resource = ["arn:${var.partition}:s3:::data-storage-msp-*", "arn:${var.partition}:s3:::avesa-audit-*"]
      },
    ]
  })
}

# -- image -------------------------------------------------------------------------------------------------------------
resource "aws_iam_role" "image" {
  name                 = "avesa-image"
  path                 = local.path
  description          = "GitHub Actions pushes images of ${var.github_repository}."
  assume_role_policy   = local.trust["image"]
  max_session_duration = 3600

  depends_on = [aws_iam_openid_connect_provider.github]
}

resource "aws_iam_role_policy" "image" {
  name = "push"
  role = aws_iam_role.image.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Sid = "LogIn", Effect = "Allow", Action = "ecr:GetAuthorizationToken", Resource = "*" }, # knows no resource
      {
        Sid    = "Push"
        Effect = "Allow"
        Action = [
          "ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:CompleteLayerUpload", "ecr:DescribeImages", "ecr:GetDownloadUrlForLayer",
          "ecr:InitiateLayerUpload", "ecr:PutImage", "ecr:UploadLayerPart",
        ]
        Resource = local.images
      },
    ]
  })
}

# -- apply -------------------------------------------------------------------------------------------------------------
resource "aws_iam_role" "apply" {
  for_each = var.environments

  name                 = "avesa-apply-${each.key}"
  path                 = local.path
  description          = "GitHub Actions applies ${each.key} of ${var.github_repository}."
  assume_role_policy   = local.trust["apply-${each.key}"]
  max_session_duration = 7200 # a first apply waits for services to be steady

  depends_on = [aws_iam_openid_connect_provider.github]
}

resource "aws_iam_role_policy_attachment" "apply_read" {
  for_each = aws_iam_role.apply

  role       = each.value.name
  policy_arn = aws_iam_policy.read.arn
}

# A managed policy holds 6,144 characters: three of them, by what they touch.
resource "aws_iam_role_policy_attachment" "apply" {
  for_each = aws_iam_policy.apply

  role       = aws_iam_role.apply[local.apply[each.key].environment].name
  policy_arn = each.value.arn
}

resource "aws_iam_policy" "apply" {
  for_each = local.apply

  name        = "avesa-ci-${each.key}"
  path        = local.path
  description = "What GitHub Actions may make and change in ${each.value.environment}: ${each.value.part}."
  policy      = jsonencode({ Version = "2012-10-17", Statement = each.value.statements })
}

resource "aws_iam_policy" "boundary" {
  for_each = var.environments

  name        = "avesa-boundary-${each.key}"
  path        = local.path
  description = "The most a role of ${each.key} can ever be allowed: this environment's resources."
  policy      = jsonencode({ Version = "2012-10-17", Statement = local.boundary[each.key] })
}
