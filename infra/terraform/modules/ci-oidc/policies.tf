# The statements of the apply roles and boundaries, by environment. Names are those of services/contracts/names.py.

locals {
  s3     = "arn:${var.partition}:s3:::"
  images = "arn:${var.partition}:ecr:${local.here}:repository/avesa" # one for all environments of the account: bootstrap
  tables = {
    for env in var.environments : env => [
      for name in ["TenantServices", "LastUpdated", "Leases", "BackfillJobs"] :
      "arn:${var.partition}:dynamodb:${local.here}:table/${name}${env == "prod" ? "" : "-${env}"}"
    ]
  }
  streams = { for env in var.environments : env => ["arn:${var.partition}:kinesis:${local.here}:stream/avesa-raw-${env}", "arn:${var.partition}:kinesis:${local.here}:stream/avesa-canonical-${env}"] }
  roles   = { for env in var.environments : env => "${local.iam}:role/avesa/${env}/*" }
  logs = {
    for env in var.environments : env => [
      for name in ["/avesa/${env}/*", "/aws/events/avesa-${env}*", "/aws/ecs/containerinsights/avesa-${env}/*"] : "arn:${var.partition}:logs:${local.here}:log-group:${name}"
    ]
  }

  storing = {
    for env in var.environments : env => [
      {
        Sid      = "FindState"
        Effect   = "Allow"
        Action   = "s3:ListBucket"
        Resource = var.state_bucket_arn
      },
      {
        Sid      = "State"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject"]
        Resource = "${var.state_bucket_arn}/${env}/*"
      },
      {
        Sid      = "Unlock"
        Effect   = "Allow"
        Action   = "s3:DeleteObject"
        Resource = "${var.state_bucket_arn}/${env}/*.tflock"
      },
      local.state_key,
      {
        Sid    = "Streams"
        Effect = "Allow"
        Action = [
          "kinesis:AddTagsToStream", "kinesis:CreateStream", "kinesis:DeregisterStreamConsumer", "kinesis:DisableEnhancedMonitoring", "kinesis:EnableEnhancedMonitoring",
          "kinesis:IncreaseStreamRetentionPeriod", "kinesis:RegisterStreamConsumer", "kinesis:RemoveTagsFromStream", "kinesis:StartStreamEncryption",
          "kinesis:TagResource", "kinesis:UntagResource", "kinesis:UpdateShardCount", "kinesis:UpdateStreamMode",
        ]
        Resource = concat(local.streams[env], [for arn in local.streams[env] : "${arn}/consumer/*"])
      },
      {
        # Enhanced fan-out of a group of transformers: the root makes and ends it with the group.
        Sid      = "Consumers"
        Effect   = "Allow"
        Action   = ["kinesis:DeregisterStreamConsumer", "kinesis:RegisterStreamConsumer"]
        Resource = concat(local.streams[env], [for arn in local.streams[env] : "${arn}/consumer/avesa-transformer-*"])
      },
      {
        Sid      = "Tables"
        Effect   = "Allow"
        Action   = ["dynamodb:CreateTable", "dynamodb:TagResource", "dynamodb:UntagResource", "dynamodb:UpdateContinuousBackups", "dynamodb:UpdateTable"]
        Resource = concat(local.tables[env], [for arn in local.tables[env] : "${arn}/index/*"])
      },
      {
        Sid    = "Buckets"
        Effect = "Allow"
        Action = [
          "s3:CreateBucket", "s3:PutBucketObjectLockConfiguration", "s3:PutBucketOwnershipControls", "s3:PutBucketPolicy",
          "s3:PutBucketPublicAccessBlock", "s3:PutBucketTagging", "s3:PutBucketVersioning", "s3:PutEncryptionConfiguration", "s3:PutLifecycleConfiguration",
        ]
        Resource = ["${local.s3}data-storage-msp-${env}", "${local.s3}avesa-audit-${env}-${var.account_id}"]
      },
      {
        Sid      = "NewKeys"
        Effect   = "Allow"
        Action   = ["kms:CreateKey", "kms:TagResource"]
        Resource = "*" # a key has no name before it is made, nor tags: hence IfExists, which spares every key that is another's
        Condition = {
          StringEquals         = { "aws:RequestTag/Environment" = env }
          StringEqualsIfExists = { "aws:ResourceTag/Environment" = env }
        }
      },
      {
        Sid    = "Keys"
        Effect = "Allow"
        Action = [
          "kms:CreateAlias", "kms:EnableKeyRotation", "kms:PutKeyPolicy", "kms:TagResource", "kms:UntagResource",
          "kms:UpdateAlias", "kms:UpdateKeyDescription",
        ]
        Resource  = "arn:${var.partition}:kms:${local.here}:key/*"
        Condition = { StringEquals = { "aws:ResourceTag/Environment" = env } }
      },
      {
        Sid      = "Aliases"
        Effect   = "Allow"
        Action   = ["kms:CreateAlias", "kms:UpdateAlias"]
        Resource = "arn:${var.partition}:kms:${local.here}:alias/avesa-*-${env}"
      },
      {
        Sid      = "EncryptedByServices"
        Effect   = "Allow"
        Action   = ["kms:CreateGrant", "kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*", "kms:RetireGrant"]
        Resource = "arn:${var.partition}:kms:${local.here}:key/*"
        Condition = {
          StringEquals = {
            "aws:ResourceTag/Environment" = env
            "kms:ViaService"              = [for service in ["dynamodb", "kinesis"] : "${service}.${var.region}.amazonaws.com"]
          }
        }
      },
      {
        Sid      = "Catalog"
        Effect   = "Allow"
        Action   = ["glue:CreateDatabase", "glue:TagResource", "glue:UntagResource", "glue:UpdateDatabase"]
        Resource = ["arn:${var.partition}:glue:${local.here}:catalog", "arn:${var.partition}:glue:${local.here}:database/avesa_${env}"]
      },
      {
        Sid      = "Workgroup"
        Effect   = "Allow"
        Action   = ["athena:CreateWorkGroup", "athena:TagResource", "athena:UntagResource", "athena:UpdateWorkGroup"]
        Resource = "arn:${var.partition}:athena:${local.here}:workgroup/avesa-${env}"
      },
      {
        Sid      = "Trail"
        Effect   = "Allow"
        Action   = ["cloudtrail:AddTags", "cloudtrail:CreateTrail", "cloudtrail:PutEventSelectors", "cloudtrail:RemoveTags", "cloudtrail:StartLogging", "cloudtrail:UpdateTrail"]
        Resource = "arn:${var.partition}:cloudtrail:${local.here}:trail/avesa-${env}"
      },
    ]
  }

  running = {
    for env in var.environments : env => [
      {
        Sid      = "Cluster"
        Effect   = "Allow"
        Action   = ["ecs:CreateCluster", "ecs:DeleteCluster", "ecs:PutClusterCapacityProviders", "ecs:TagResource", "ecs:UntagResource", "ecs:UpdateCluster", "ecs:UpdateClusterSettings"]
        Resource = "arn:${var.partition}:ecs:${local.here}:cluster/avesa-${env}"
      },
      {
        Sid      = "Services"
        Effect   = "Allow"
        Action   = ["ecs:CreateService", "ecs:DeleteService", "ecs:TagResource", "ecs:UntagResource", "ecs:UpdateService"]
        Resource = "arn:${var.partition}:ecs:${local.here}:service/avesa-${env}/*"
      },
      {
        Sid      = "TaskDefinitions"
        Effect   = "Allow"
        Action   = ["ecs:RegisterTaskDefinition", "ecs:TagResource", "ecs:UntagResource"]
        Resource = "arn:${var.partition}:ecs:${local.here}:task-definition/avesa-*-${env}:*"
      },
      {
        # No resource can be named for these: service authorization reference (ECS, Logs, SNS).
        Sid    = "WithoutResource"
        Effect = "Allow"
        Action = [
          "ecs:CreateCluster", "logs:DeleteQueryDefinition", "logs:DeleteResourcePolicy",
          "logs:PutQueryDefinition", "logs:PutResourcePolicy", "sns:SetSubscriptionAttributes", "sns:Unsubscribe",
        ]
        Resource  = "*"
        Condition = { StringEquals = { "aws:RequestedRegion" = var.region } }
      },
      {
        Sid       = "Scaling"
        Effect    = "Allow"
        Action    = [for verb in ["DeleteScalingPolicy", "DeregisterScalableTarget", "PutScalingPolicy", "RegisterScalableTarget", "TagResource", "UntagResource"] : "application-autoscaling:${verb}"]
        Resource  = "arn:${var.partition}:application-autoscaling:${local.here}:scalable-target/*"
        Condition = { StringEqualsIfExists = { "application-autoscaling:service-namespace" = "ecs" } }
      },
      {
        Sid      = "LogGroups"
        Effect   = "Allow"
        Action   = [for verb in ["AssociateKmsKey", "CreateLogGroup", "DeleteLogGroup", "DeleteMetricFilter", "PutMetricFilter", "PutRetentionPolicy", "TagResource", "UntagResource"] : "logs:${verb}"]
        Resource = concat(local.logs[env], [for arn in local.logs[env] : "${arn}:*"])
      },
      {
        Sid      = "Alarms"
        Effect   = "Allow"
        Action   = [for verb in ["DeleteAlarms", "DisableAlarmActions", "EnableAlarmActions", "PutCompositeAlarm", "PutMetricAlarm", "TagResource", "UntagResource"] : "cloudwatch:${verb}"]
        Resource = "arn:${var.partition}:cloudwatch:${local.here}:alarm:avesa-${env}-*"
      },
      {
        # Before it registers a fleet or makes a policy, Application Auto Scaling tries with the caller's rights whether he
        # may make and remove alarms, naming none, and refuses who may not: Application Auto Scaling user guide,
        # "Permissions validation". Those of target tracking are called TargetTracking-service/{cluster}/{service}-...
        Sid      = "AlarmsOfScaling"
        Effect   = "Allow"
        Action   = ["cloudwatch:DeleteAlarms", "cloudwatch:PutMetricAlarm"]
        Resource = "*"
        Condition = {
          StringEquals         = { "aws:RequestedRegion" = var.region }
          StringEqualsIfExists = { "aws:ResourceTag/Environment" = env } # no other environment's alarms
        }
      },
      {
        Sid      = "Dashboards"
        Effect   = "Allow"
        Action   = ["cloudwatch:DeleteDashboards", "cloudwatch:PutDashboard"]
        Resource = "arn:${var.partition}:cloudwatch::${var.account_id}:dashboard/AVESA-*"
      },
      {
        Sid      = "Topics"
        Effect   = "Allow"
        Action   = ["sns:CreateTopic", "sns:DeleteTopic", "sns:SetTopicAttributes", "sns:Subscribe", "sns:TagResource", "sns:UntagResource"]
        Resource = ["arn:${var.partition}:sns:${local.here}:avesa-alerts-${env}", "arn:${var.partition}:sns:${local.here}:avesa-alerts-central"]
      },
      {
        Sid      = "Rules"
        Effect   = "Allow"
        Action   = [for verb in ["DeleteRule", "DisableRule", "EnableRule", "PutRule", "PutTargets", "RemoveTargets", "TagResource", "UntagResource"] : "events:${verb}"]
        Resource = "arn:${var.partition}:events:${local.here}:rule/avesa-${env}-*"
      },
      {
        # CreateLink asks for the other two as well: CloudWatch user guide, "Link monitoring accounts with source accounts".
        Sid      = "CrossAccountWatching"
        Effect   = "Allow"
        Action   = ["cloudwatch:Link", "logs:Link", "oam:CreateLink", "oam:CreateSink", "oam:DeleteLink", "oam:DeleteSink", "oam:PutSinkPolicy", "oam:TagResource", "oam:UntagResource", "oam:UpdateLink"]
        Resource = "*"
        Condition = {
          StringEquals = { "aws:RequestedRegion" = var.region }
        }
      },
      {
        Sid      = "Budgets"
        Effect   = "Allow"
        Action   = ["budgets:ModifyBudget", "budgets:TagResource", "budgets:UntagResource"]
        Resource = "arn:${var.partition}:budgets::${var.account_id}:budget/avesa-${env}*"
      },
    ]
  }

  connecting = {
    for env in var.environments : env => [
      {
        # Every role made or changed carries the boundary, so CI can give no more than it says.
        Sid       = "RolesWithinBoundary"
        Effect    = "Allow"
        Action    = ["iam:AttachRolePolicy", "iam:CreateRole", "iam:DeleteRolePolicy", "iam:DetachRolePolicy", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy"]
        Resource  = local.roles[env]
        Condition = { StringEquals = { "iam:PermissionsBoundary" = "${local.iam}:policy${local.path}avesa-boundary-${env}" } }
      },
      {
        Sid      = "Roles"
        Effect   = "Allow"
        Action   = ["iam:DeleteRole", "iam:TagRole", "iam:UntagRole", "iam:UpdateAssumeRolePolicy", "iam:UpdateRole", "iam:UpdateRoleDescription"]
        Resource = local.roles[env]
      },
      {
        Sid      = "Policies"
        Effect   = "Allow"
        Action   = ["iam:CreatePolicy", "iam:CreatePolicyVersion", "iam:DeletePolicy", "iam:DeletePolicyVersion", "iam:TagPolicy", "iam:UntagPolicy"]
        Resource = "${local.iam}:policy/avesa/${env}/*"
      },
      {
        Sid       = "HandOver"
        Effect    = "Allow"
        Action    = "iam:PassRole"
        Resource  = local.roles[env]
        Condition = { StringEquals = { "iam:PassedToService" = ["ecs-tasks.amazonaws.com", "vpc-flow-logs.amazonaws.com"] } }
      },
      {
        Sid       = "RolesOfServices"
        Effect    = "Allow"
        Action    = "iam:CreateServiceLinkedRole"
        Resource  = "${local.iam}:role/aws-service-role/*"
        Condition = { StringEquals = { "iam:AWSServiceName" = ["ecs.amazonaws.com", "ecs.application-autoscaling.amazonaws.com", "kinesis.amazonaws.com"] } }
      },
      {
        # EC2 knows no names, only tags, and many of these touch things that have none yet: hence IfExists. What another
        # environment has tagged is out of reach, also for CreateTags, which could else make it this one's.
        Sid    = "Network"
        Effect = "Allow"
        Action = [for verb in [
          "AllocateAddress", "AssociateRouteTable", "AttachInternetGateway", "AuthorizeSecurityGroupEgress", "AuthorizeSecurityGroupIngress",
          "CreateFlowLogs", "CreateInternetGateway", "CreateNatGateway", "CreateRoute", "CreateRouteTable", "CreateSecurityGroup", "CreateSubnet",
          "CreateTags", "CreateVpc", "CreateVpcEndpoint", "DeleteRoute", "DeleteTags", "DetachInternetGateway", "DisassociateAddress", "DisassociateRouteTable",
          "ModifySecurityGroupRules", "ModifySubnetAttribute", "ModifyVpcAttribute", "ModifyVpcEndpoint", "ReleaseAddress", "ReplaceRoute",
          "RevokeSecurityGroupEgress", "RevokeSecurityGroupIngress", "UpdateSecurityGroupRuleDescriptionsEgress", "UpdateSecurityGroupRuleDescriptionsIngress",
        ] : "ec2:${verb}"]
        Resource = "*"
        Condition = {
          StringEquals         = { "aws:RequestedRegion" = var.region }
          StringEqualsIfExists = { "aws:ResourceTag/Environment" = env }
        }
      },
      {
        Sid    = "NetworkOfThisEnvironment"
        Effect = "Allow"
        Action = [for verb in [
          "DeleteFlowLogs", "DeleteInternetGateway", "DeleteNatGateway", "DeleteRouteTable", "DeleteSecurityGroup", "DeleteSubnet", "DeleteVpc", "DeleteVpcEndpoints",
        ] : "ec2:${verb}"]
        Resource  = "*"
        Condition = { StringEquals = { "aws:RequestedRegion" = var.region, "aws:ResourceTag/Environment" = env } }
      },
    ]
  }

  apply = merge(flatten([
    for env in var.environments : [
      { "storing-${env}" = { environment = env, part = "state, data and their keys", statements = local.storing[env] } },
      { "running-${env}" = { environment = env, part = "services and watching", statements = local.running[env] } },
      { "connecting-${env}" = { environment = env, part = "network and roles", statements = local.connecting[env] } },
    ]
  ])...)

  boundary = {
    for env in var.environments : env => [
      {
        Sid    = "OwnData"
        Effect = "Allow"
        Action = ["athena:*", "dynamodb:*", "glue:*", "kinesis:*", "s3:*"]
        Resource = concat(
          local.streams[env], [for arn in local.streams[env] : "${arn}/consumer/*"],
          local.tables[env], [for arn in local.tables[env] : "${arn}/index/*"],
          ["${local.s3}data-storage-msp-${env}", "${local.s3}data-storage-msp-${env}/*"],
          [for name in ["catalog", "database/avesa_${env}", "database/avesa_${env}_*", "table/avesa_${env}/*", "table/avesa_${env}_*/*"] : "arn:${var.partition}:glue:${local.here}:${name}"],
          ["arn:${var.partition}:athena:${local.here}:workgroup/avesa-${env}"],
        )
      },
      {
        Sid      = "OwnSecrets"
        Effect   = "Allow"
        Action   = ["secretsmanager:CreateSecret", "secretsmanager:DeleteSecret", "secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue", "secretsmanager:RestoreSecret"]
        Resource = "arn:${var.partition}:secretsmanager:${local.here}:secret:avesa/${env}/*"
      },
      {
        Sid       = "OwnKeysThroughServices"
        Effect    = "Allow"
        Action    = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*"]
        Resource  = "arn:${var.partition}:kms:${local.here}:key/*"
        Condition = { StringEquals = { "aws:ResourceTag/Environment" = env } }
      },
      {
        Sid      = "OwnLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        Resource = [for arn in local.logs[env] : "${arn}:*"]
      },
      {
        Sid      = "OwnImages"
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = local.images
      },
      {
        Sid      = "WithoutResource"
        Effect   = "Allow"
        Action   = ["cloudwatch:PutMetricData", "ecr:GetAuthorizationToken", "logs:DescribeLogGroups"]
        Resource = "*"
      },
    ]
  }
}
