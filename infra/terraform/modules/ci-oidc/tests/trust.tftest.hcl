# Who may take which role, and what it can never do.
mock_provider "aws" {}

variables {
  account_id        = "111111111111"
  region            = "us-east-2"
  github_repository = "acme/avesa"
  environments      = ["dev", "staging"]
  state_bucket_arn  = "arn:aws:s3:::avesa-terraform-state-111111111111"
  state_kms_key_arn = "arn:aws:kms:us-east-2:111111111111:key/state"
}

run "a_role_is_given_to_exactly_one_kind_of_run" {
  command = plan

  assert {
    condition = { for name, policy in merge({ plan = aws_iam_role.plan.assume_role_policy, image = aws_iam_role.image.assume_role_policy }, { for name, role in aws_iam_role.apply : name => role.assume_role_policy }) : name => jsondecode(policy).Statement[0].Condition } == {
      plan    = { StringEquals = { "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com", "token.actions.githubusercontent.com:sub" = ["repo:acme/avesa:pull_request", "repo:acme/avesa:ref:refs/heads/main"] } }
      image   = { StringEquals = { "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com", "token.actions.githubusercontent.com:sub" = ["repo:acme/avesa:ref:refs/heads/main"] } }
      dev     = { StringEquals = { "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com", "token.actions.githubusercontent.com:sub" = ["repo:acme/avesa:environment:dev"], "token.actions.githubusercontent.com:ref" = "refs/heads/main" } }
      staging = { StringEquals = { "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com", "token.actions.githubusercontent.com:sub" = ["repo:acme/avesa:environment:staging"], "token.actions.githubusercontent.com:ref" = "refs/heads/main" } }
    }
    error_message = "Exact subjects, exact audience; who applies is of the main branch besides."
  }

  assert {
    condition     = alltrue([for role in concat([aws_iam_role.plan, aws_iam_role.image], values(aws_iam_role.apply)) : role.path == "/avesa-ci/" && jsondecode(role.assume_role_policy).Statement[0].Principal == { Federated = "arn:aws:iam::111111111111:oidc-provider/token.actions.githubusercontent.com" }])
    error_message = "GitHub's tokens and nothing else."
  }
}

run "a_pull_request_writes_nothing_but_the_lock" {
  command = plan

  assert {
    condition = alltrue(flatten([
      for statement in concat(jsondecode(aws_iam_policy.read.policy).Statement, jsondecode(aws_iam_role_policy.plan_state.policy).Statement) : [
        for action in flatten([statement.Action]) : can(regex(":(Describe|Get|List|View|Decrypt|GenerateDataKey$)", action)) || (statement.Sid == "LockState" && alltrue([for resource in flatten([statement.Resource]) : endswith(resource, ".tflock")]))
      ]
    ]))
    error_message = "Read, and lock."
  }
}

run "no_role_of_ci_reads_what_tenants_entrust_to_us" {
  command = plan

  assert {
    condition = length(setintersection(
      toset(flatten([
        for policy in concat([aws_iam_policy.read], values(aws_iam_policy.apply)) : [for statement in jsondecode(policy.policy).Statement : statement.Action if !contains(["State", "ReadState"], statement.Sid)]
      ])),
      toset([
        "s3:GetObject", "s3:GetObjectVersion", "s3:PutObject", "s3:*", "s3:Get*", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:*", "kinesis:GetRecords", "kinesis:*",
        "kinesis:GetShardIterator", "kinesis:SubscribeToShard", "secretsmanager:GetSecretValue", "secretsmanager:*", "logs:GetLogEvents", "logs:FilterLogEvents", "athena:StartQueryExecution", "glue:GetTable",
      ]),
    )) == 0
    error_message = "Neither objects nor rows, records, secrets, logs."
  }

  assert {
    condition = alltrue(flatten([
      for policy in values(aws_iam_policy.apply) : [
        for statement in jsondecode(policy.policy).Statement : [for resource in flatten([statement.Resource]) : startswith(resource, "arn:aws:s3:::avesa-terraform-state-111111111111/")] if contains(["State", "Unlock"], statement.Sid)
      ]
    ]))
    error_message = "The objects it reads are the state's."
  }
}

run "ci_ends_nothing_that_holds_data" {
  command = plan

  assert {
    condition = length(setintersection(
      toset(flatten([for policy in values(aws_iam_policy.apply) : [for statement in jsondecode(policy.policy).Statement : statement.Action]])),
      toset([
        "kinesis:DeleteStream", "kinesis:DecreaseStreamRetentionPeriod", "kinesis:StopStreamEncryption", "dynamodb:DeleteTable", "s3:DeleteBucket", "s3:DeleteBucketPolicy", "s3:DeleteObjectVersion",
        "kms:ScheduleKeyDeletion", "kms:DisableKey", "kms:DisableKeyRotation", "cloudtrail:DeleteTrail", "cloudtrail:StopLogging", "glue:DeleteDatabase", "athena:DeleteWorkGroup", "ecr:DeleteRepository",
      ]),
    )) == 0
    error_message = "That takes a person."
  }
}

run "an_environment_is_built_by_its_own_role_alone" {
  command = plan

  assert {
    condition = alltrue(flatten([
      for name, policy in aws_iam_policy.apply : [
        for statement in jsondecode(policy.policy).Statement : [for resource in flatten([statement.Resource]) : !strcontains(resource, "staging")]
      ] if endswith(name, "-dev")
    ]))
    error_message = "dev touches nothing of staging."
  }

  assert {
    condition     = length(aws_iam_policy.apply) == 6 && alltrue([for policy in concat(values(aws_iam_policy.apply), values(aws_iam_policy.boundary), [aws_iam_policy.read]) : length(policy.policy) <= 6144])
    error_message = "A managed policy holds 6,144 characters."
  }
}

run "what_carries_another_environments_tag_is_out_of_reach" {
  command = plan

  # Rights that follow from a tag are worth nothing where the tag itself can be put on what is another's.
  assert {
    condition = alltrue(flatten([
      for name, policy in aws_iam_policy.apply : [
        for statement in jsondecode(policy.policy).Statement :
        try(statement.Condition.StringEqualsIfExists["aws:ResourceTag/Environment"], statement.Condition.StringEquals["aws:ResourceTag/Environment"], "") == element(split("-", name), -1)
        if contains(flatten([statement.Resource]), "*") && anytrue([for action in flatten([statement.Action]) : contains(["kms:TagResource", "ec2:CreateTags", "ec2:DeleteTags", "ec2:ModifyVpcEndpoint", "ec2:DeleteVpc", "cloudwatch:PutMetricAlarm", "cloudwatch:DeleteAlarms"], action)])
      ]
    ]))
    error_message = "Neither keys nor networks nor alarms of another environment can be tagged, changed or deleted."
  }

  assert {
    condition = alltrue(flatten([
      for policy in values(aws_iam_policy.apply) : [
        for statement in jsondecode(policy.policy).Statement : can(statement.Condition.StringEquals["aws:ResourceTag/Environment"]) if contains(flatten([statement.Resource]), "arn:aws:kms:us-east-2:111111111111:key/*")
      ]
    ]))
    error_message = "An existing key is changed only where it carries the tag."
  }
}

run "a_fleet_can_be_registered_for_scaling" {
  command = plan

  # Application Auto Scaling tries these with the caller's rights, and names no alarm: a right to alarms by name refuses it.
  assert {
    condition = alltrue([
      for name, policy in aws_iam_policy.apply : length([for statement in jsondecode(policy.policy).Statement : 1 if statement.Resource == "*" && toset(flatten([statement.Action])) == toset(["cloudwatch:DeleteAlarms", "cloudwatch:PutMetricAlarm"])]) == 1
      if startswith(name, "running-")
    ])
    error_message = "PutMetricAlarm and DeleteAlarms without a name."
  }
}

run "where_sts_does_not_know_the_branch_the_environment_decides" {
  command = plan

  variables {
    apply_ref = null
  }

  assert {
    condition     = jsondecode(aws_iam_role.apply["dev"].assume_role_policy).Statement[0].Condition.StringEquals == { "token.actions.githubusercontent.com:aud" = "sts.amazonaws.com", "token.actions.githubusercontent.com:sub" = ["repo:acme/avesa:environment:dev"] }
    error_message = "As GitHub's rules for the environment have it."
  }
}

run "any_branch_is_no_branch" {
  command = plan

  variables {
    apply_ref = "refs/heads/*"
  }

  expect_failures = [var.apply_ref]
}

run "ci_cannot_raise_itself" {
  command = plan

  # Roles and policies it may change lie under /avesa/{env}/; its own and the boundary lie under /avesa-ci/.
  assert {
    condition = alltrue(flatten([
      for policy in values(aws_iam_policy.apply) : [
        for statement in jsondecode(policy.policy).Statement : [
          for resource in flatten([statement.Resource]) : can(regex("^arn:aws:iam::111111111111:(role|policy)/avesa/(dev|staging)/\\*$", resource)) || statement.Sid == "RolesOfServices"
        ] if anytrue([for action in flatten([statement.Action]) : startswith(action, "iam:")])
      ]
    ]))
    error_message = "No IAM outside the environment's path."
  }

  assert {
    condition = alltrue(flatten([
      for name, policy in aws_iam_policy.apply : [
        for statement in jsondecode(policy.policy).Statement : statement.Condition == { StringEquals = { "iam:PermissionsBoundary" = "arn:aws:iam::111111111111:policy/avesa-ci/avesa-boundary-${trimprefix(name, "connecting-")}" } }
        if anytrue([for action in flatten([statement.Action]) : contains(["iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy", "iam:PutRolePermissionsBoundary"], action)])
      ]
    ]))
    error_message = "Whatever it makes or changes carries the boundary."
  }

  assert {
    condition     = !anytrue(flatten([for policy in values(aws_iam_policy.apply) : [for statement in jsondecode(policy.policy).Statement : [for action in flatten([statement.Action]) : contains(["iam:*", "iam:DeleteRolePermissionsBoundary", "iam:CreateUser", "iam:CreateAccessKey", "sts:AssumeRole", "*"], action)]]]))
    error_message = "No users, no keys, no way around."
  }

  assert {
    condition     = !anytrue(flatten([for policy in values(aws_iam_policy.boundary) : [for statement in jsondecode(policy.policy).Statement : [for action in flatten([statement.Action]) : startswith(action, "iam:") || startswith(action, "sts:") || action == "*"]]]))
    error_message = "No service of ours ever gives rights."
  }
}

run "production_tables_have_no_suffix" {
  command = plan

  variables {
    environments = ["prod"]
  }

  assert {
    condition = contains(flatten([
      for statement in jsondecode(aws_iam_policy.apply["storing-prod"].policy).Statement : statement.Resource if statement.Sid == "Tables"
    ]), "arn:aws:dynamodb:us-east-2:111111111111:table/TenantServices")
    error_message = "As services/contracts/names.py."
  }
}

run "a_repository_is_named_exactly" {
  command = plan

  variables {
    github_repository = "acme/*"
  }

  expect_failures = [var.github_repository]
}

run "an_environment_is_no_subject_to_plan" {
  command = plan

  variables {
    plan_subjects = ["environment:prod"]
  }

  expect_failures = [var.plan_subjects]
}

run "images_are_pushed_by_the_main_branch_to_one_repository" {
  command = plan

  assert {
    condition     = jsondecode(aws_iam_role_policy.image.policy).Statement[1].Resource == "arn:aws:ecr:us-east-2:111111111111:repository/avesa"
    error_message = "No other."
  }

  assert {
    condition     = !anytrue(flatten([for policy in values(aws_iam_policy.apply) : [for statement in jsondecode(policy.policy).Statement : [for action in flatten([statement.Action]) : startswith(action, "ecr:")]]]))
    error_message = "Who applies runs what was built, and builds nothing."
  }
}

run "a_pull_request_pushes_no_image" {
  command = plan

  variables {
    image_subject = "pull_request"
  }

  expect_failures = [var.image_subject]
}
