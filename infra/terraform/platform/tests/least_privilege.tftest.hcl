# What each role may do, exactly: another action, another table or a wider pattern must be written here too, and read.
# tests/infra compares the same policies with the calls an emulator recorded.
mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }

  mock_data "aws_availability_zones" {
    defaults = { names = ["us-east-2a", "us-east-2b", "us-east-2c"] }
  }
}

# Known before anything is made, so that a plan shows every policy.
override_module {
  target = module.encryption
  outputs = {
    key_arns = {
      data    = "arn:aws:kms:us-east-2:111122223333:key/data"
      secrets = "arn:aws:kms:us-east-2:111122223333:key/secrets"
      logs    = "arn:aws:kms:us-east-2:111122223333:key/logs"
    }
  }
}

variables {
  environment        = "dev"
  account_id         = "111122223333"
  protected          = false
  image              = "111122223333.dkr.ecr.us-east-2.amazonaws.com/avesa@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  alert_emails       = ["ops@example.com"]
  network            = { cidr = "10.20.0.0/16", availability_zones = ["us-east-2a", "us-east-2b", "us-east-2c"], nat = "per_az" }
  extractor_groups   = { psa = { services = ["connectwise"] }, books = { services = ["xero"] } }
  transformer_groups = { tickets = { tables = ["tickets"], fan_out = true } }
}

run "roles" {
  command = plan

  assert {
    condition = toset(flatten([for one in jsondecode(output.policies["avesa-extractor-psa-dev"]).Statement : one.Action if one.Effect == "Allow"])) == toset([
      "dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:UpdateItem",
      "kinesis:DescribeStreamSummary", "kinesis:ListShards", "kinesis:PutRecords",
      "kms:Decrypt", "kms:GenerateDataKey",
      "s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject",
      "secretsmanager:GetSecretValue",
    ])
    error_message = "An extractor whose vendors store no tokens: exactly these."
  }

  assert {
    condition     = setsubtract(flatten([for one in jsondecode(output.policies["avesa-extractor-books-dev"]).Statement : one.Action]), flatten([for one in jsondecode(output.policies["avesa-extractor-psa-dev"]).Statement : one.Action if one.Effect == "Allow"])) == toset(["secretsmanager:PutSecretValue"])
    error_message = "One whose vendors do writes secrets besides, and nothing else."
  }

  assert {
    condition = toset(flatten([for one in jsondecode(output.policies["avesa-transformer-dev"]).Statement : one.Action])) == toset([
      "dynamodb:GetItem", "dynamodb:Query", "dynamodb:UpdateItem",
      "kinesis:DescribeStreamSummary", "kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards", "kinesis:PutRecords",
      "kms:Decrypt", "kms:GenerateDataKey",
      "s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject",
    ])
    error_message = "A transformer that polls: exactly these. No secrets."
  }

  assert {
    condition = toset(flatten([for one in jsondecode(output.policies["avesa-transformer-tickets-dev"]).Statement : one.Action])) == toset([
      "dynamodb:GetItem", "dynamodb:Query", "dynamodb:UpdateItem",
      "kinesis:DescribeStreamConsumer", "kinesis:DescribeStreamSummary", "kinesis:ListShards", "kinesis:PutRecords", "kinesis:SubscribeToShard",
      "kms:Decrypt", "kms:GenerateDataKey",
      "s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject",
    ])
    error_message = "One that is pushed subscribes, and neither polls nor registers."
  }

  assert {
    condition = toset(flatten([for one in jsondecode(output.policies["avesa-compactor-dev"]).Statement : one.Action])) == toset([
      "dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:UpdateItem",
      "glue:CreateDatabase", "glue:CreateTable", "glue:GetDatabase", "glue:GetTable", "glue:UpdateTable",
      "kinesis:DescribeStreamSummary", "kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards", "kinesis:PutRecords",
      "kms:Decrypt", "kms:GenerateDataKey",
      "s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:ListBucket", "s3:PutObject",
    ])
    error_message = "The compactor: exactly these. No secrets."
  }

  # -- of every role
  assert {
    condition     = alltrue([for policy in values(output.policies) : alltrue([for one in jsondecode(policy).Statement : !contains(one.Resource, "*") && !anytrue([for action in one.Action : strcontains(action, "*")])])])
    error_message = "No action and no resource is \"*\"."
  }

  assert {
    condition     = alltrue([for policy in values(output.policies) : alltrue([for one in jsondecode(policy).Statement : try(length(one.Condition.StringEquals["kms:ViaService"]) == 1, false) if anytrue([for action in one.Action : startswith(action, "kms:")])])])
    error_message = "A key is used through one service."
  }

  assert {
    condition     = alltrue([for policy in values(output.policies) : alltrue([for one in jsondecode(policy).Statement : one.Condition.Null["dynamodb:LeadingKeys"] == ["false"] && length(one.Condition["ForAllValues:StringLike"]["dynamodb:LeadingKeys"]) > 0 if one.Resource == ["arn:aws:dynamodb:us-east-2:111122223333:table/Leases-dev"] && one.Action != ["dynamodb:Scan"]])])
    error_message = "Rows of the lease table are reached by scope, and never without one."
  }

  assert {
    condition     = alltrue([for policy in values(output.policies) : alltrue([for one in jsondecode(policy).Statement : length(one.Condition.StringLikeIfExists["s3:prefix"]) > 0 if contains(one.Action, "s3:ListBucket")])])
    error_message = "Lists are of prefixes."
  }

  assert {
    condition     = alltrue([for policy in values(output.policies) : alltrue([for one in jsondecode(policy).Statement : alltrue([for resource in one.Resource : resource != "arn:aws:s3:::data-storage-msp-dev/*"])])])
    error_message = "Objects are reached by prefix."
  }

  assert {
    condition     = alltrue([for policy in values(output.policies) : length(policy) < 10240])
    error_message = "A role's inline policies hold 10,240 characters."
  }

  # -- secrets by vendor
  assert {
    condition = one([for one in jsondecode(output.policies["avesa-extractor-psa-dev"]).Statement : one.Resource if one.Sid == "ReadCredentials"]) == [
      "arn:aws:secretsmanager:us-east-2:111122223333:secret:avesa/dev/*/connectwise-??????",
      "arn:aws:secretsmanager:us-east-2:111122223333:secret:avesa/dev/*/connectwise/*",
    ]
    error_message = "A fleet bound to a vendor reads that vendor's secrets."
  }

  assert {
    condition     = !anytrue([for resource in one([for one in jsondecode(output.policies["avesa-extractor-dev"]).Statement : one.Resource if one.Sid == "ReadCredentials"]) : strcontains(resource, "/connectwise") || strcontains(resource, "/xero") || endswith(resource, "/dev/*")])
    error_message = "And the fleet without a name does not."
  }

  assert {
    condition     = contains(one([for one in jsondecode(output.policies["avesa-extractor-psa-dev"]).Statement : one.Resource if one.Effect == "Deny"]), "arn:aws:secretsmanager:us-east-2:111122223333:secret:avesa/dev/*/xero/*")
    error_message = "An instance of another vendor that is called like this fleet's vendor stays that other's."
  }

  assert {
    condition     = !strcontains(join("", [for name, policy in output.policies : policy if !strcontains(name, "extractor")]), "secretsmanager")
    error_message = "Only extractors reach secrets."
  }

  # -- the role that starts them
  assert {
    condition     = [for one in jsondecode(aws_iam_role_policy.execution.policy).Statement : one.Sid if contains(one.Resource, "*")] == ["LogInToRegistry"]
    error_message = "AWS has no resource for the login to the registry, and for everything else it has."
  }

  assert {
    condition     = !contains([for one in values(module.service) : one.role_name], aws_iam_role.execution.name)
    error_message = "No task has the role that starts it."
  }
}

run "without_groups" {
  command = plan

  variables {
    extractor_groups   = {}
    transformer_groups = {}
  }

  assert {
    condition     = one([for one in jsondecode(output.policies["avesa-extractor-dev"]).Statement : one.Resource if one.Sid == "ReadCredentials"]) == ["arn:aws:secretsmanager:us-east-2:111122223333:secret:avesa/dev/*"]
    error_message = "The one fleet there is reads every vendor, also one whose mapping file nobody listed: of this environment."
  }

  assert {
    condition     = alltrue([for resource in one([for one in jsondecode(output.policies["avesa-extractor-dev"]).Statement : one.Resource if one.Sid == "StoreRefreshTokens"]) : anytrue([for vendor in local.token_storing : strcontains(resource, "/${vendor}")])])
    error_message = "It writes the secrets of those vendors whose tokens are spent, and of no other."
  }
}
