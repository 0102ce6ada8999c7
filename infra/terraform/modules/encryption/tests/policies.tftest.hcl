# Who may use which key. The policies are read back as a plan gives them, statement by statement.
mock_provider "aws" {}

variables {
  environment              = "prod"
  account_id               = "222222222222"
  region                   = "us-east-2"
  secret_operator_arns     = ["arn:aws:iam::222222222222:role/operator"]
  alarm_source_account_ids = ["333333333333"]
}

run "there_is_one_rotating_key_for_each_class_of_data" {
  command = plan

  assert {
    condition     = toset(keys(aws_kms_key.this)) == toset(["data", "secrets", "logs"])
    error_message = "Exactly three keys."
  }

  assert {
    condition     = alltrue([for key in values(aws_kms_key.this) : key.enable_key_rotation && key.deletion_window_in_days == 30])
    error_message = "Keys rotate, and there are thirty days to take a deletion back."
  }

  assert {
    condition     = toset(values(aws_kms_alias.this)[*].name) == toset(["alias/avesa-data-prod", "alias/avesa-secrets-prod", "alias/avesa-logs-prod"])
    error_message = "Aliases as everywhere else."
  }
}

run "an_administrator_cannot_read_with_a_key_nor_hand_it_on" {
  command = plan

  assert {
    condition = alltrue(flatten([
      for key in values(aws_kms_key.this) : [
        for statement in jsondecode(key.policy).Statement : [
          for action in flatten([statement.Action]) : !contains(["kms:*", "kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey*", "kms:ReEncrypt*", "kms:CreateGrant"], action)
        ] if try(statement.Condition, null) == null && try(statement.Principal.AWS, "") != ""
      ]
    ]))
    error_message = "The account uses a key only under a condition."
  }

  assert {
    condition = alltrue(flatten([
      for key in values(aws_kms_key.this) : [
        for statement in jsondecode(key.policy).Statement :
        statement.Effect == "Allow" && (try(statement.Principal.AWS, "") == "arn:aws:iam::222222222222:root" || try(statement.Principal.Service, "") != "")
      ]
    ]))
    error_message = "The only principals are this account and AWS services; never everybody."
  }
}

run "the_data_key_works_through_three_services_and_knows_no_service_principal" {
  command = plan

  assert {
    condition = [
      for statement in jsondecode(aws_kms_key.this["data"].policy).Statement : statement.Condition.StringEquals["kms:ViaService"] if statement.Sid == "UseThroughServices"
    ][0] == [for name in ["dynamodb", "kinesis", "s3"] : "${name}.us-east-2.amazonaws.com"]
    error_message = "Streams, tables, lake."
  }

  assert {
    condition     = alltrue([for statement in jsondecode(aws_kms_key.this["data"].policy).Statement : try(statement.Principal.Service, "") == ""])
    error_message = "Tenants' data is never open to a service of its own accord."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_kms_key.this["data"].policy).Statement : statement.Condition.Bool["kms:GrantIsForAWSResource"] == "true" if contains(flatten([statement.Action]), "kms:CreateGrant")
    ])
    error_message = "Grants are for AWS services only."
  }
}

run "only_extractors_and_operators_open_secrets" {
  command = plan

  assert {
    condition     = length(jsondecode(aws_kms_key.this["secrets"].policy).Statement) == 2
    error_message = "Administration and one use."
  }

  assert {
    condition = jsondecode(aws_kms_key.this["secrets"].policy).Statement[1].Condition == {
      ArnLike = {
        "aws:PrincipalArn" = ["arn:aws:iam::222222222222:role/avesa/prod/avesa-extractor-*", "arn:aws:iam::222222222222:role/operator"]
      }
      StringEquals = { "kms:CallerAccount" = "222222222222", "kms:ViaService" = "secretsmanager.us-east-2.amazonaws.com" }
    }
    error_message = "Extractors of this environment and the operators named, through Secrets Manager."
  }
}

run "services_use_the_logs_key_for_this_account_only" {
  command = plan

  assert {
    condition = toset([for statement in jsondecode(aws_kms_key.this["logs"].policy).Statement : statement.Principal.Service if try(statement.Principal.Service, "") != ""]) == toset([
      "logs.us-east-2.amazonaws.com", "cloudtrail.amazonaws.com", "cloudwatch.amazonaws.com", "events.amazonaws.com", "budgets.amazonaws.com",
    ])
    error_message = "Log groups, trail, alarms, events, budgets."
  }

  assert {
    condition = alltrue([
      for statement in jsondecode(aws_kms_key.this["logs"].policy).Statement : can(statement.Condition) if try(statement.Principal.Service, "events.amazonaws.com") != "events.amazonaws.com"
    ])
    error_message = "All but EventBridge, which carries no condition keys to KMS, act for this account's resources."
  }

  assert {
    condition = [
      for statement in jsondecode(aws_kms_key.this["logs"].policy).Statement : statement.Condition.StringEquals["aws:SourceAccount"] if statement.Sid == "AlarmsToTopics"
    ][0] == ["222222222222", "333333333333"]
    error_message = "Alarms of the watched account can reach the central topic."
  }
}

run "a_whole_account_is_no_operator" {
  command = plan

  variables {
    secret_operator_arns = ["arn:aws:iam::*:role/operator"]
  }

  expect_failures = [var.secret_operator_arns]
}
