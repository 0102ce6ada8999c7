mock_provider "aws" {}

variables {
  environment = "dev"
  account_id  = "111111111111"
  region      = "us-east-2"
  kms_key_arn = "arn:aws:kms:us-east-2:111111111111:key/secrets"

  data_kms_key_arn = "arn:aws:kms:us-east-2:111111111111:key/data"
  table_arns       = ["arn:aws:dynamodb:us-east-2:111111111111:table/TenantServices-dev", "arn:aws:dynamodb:us-east-2:111111111111:table/BackfillJobs-dev"]
}

run "an_operator_reaches_one_environments_secrets_through_secrets_manager" {
  command = plan

  assert {
    condition     = jsondecode(aws_iam_policy.operator.policy).Statement[0].Resource == "arn:aws:secretsmanager:us-east-2:111111111111:secret:avesa/dev/*"
    error_message = "No other environment's."
  }

  assert {
    condition     = jsondecode(aws_iam_policy.operator.policy).Statement[1].Condition == { StringEquals = { "kms:ViaService" = "secretsmanager.us-east-2.amazonaws.com" } }
    error_message = "The key is no use by itself."
  }

  assert {
    condition     = output.arn_prefix == "arn:aws:secretsmanager:us-east-2:111111111111:secret:avesa/dev/"
    error_message = "As services/contracts/names.py names secrets."
  }
}

run "and_the_rows_without_which_no_service_is_connected" {
  command = plan

  assert {
    condition = one([for one in jsondecode(aws_iam_policy.operator.policy).Statement : one.Resource if one.Sid == "RowsOfServices"]) == [
      "arn:aws:dynamodb:us-east-2:111111111111:table/TenantServices-dev", "arn:aws:dynamodb:us-east-2:111111111111:table/BackfillJobs-dev",
      "arn:aws:dynamodb:us-east-2:111111111111:table/TenantServices-dev/index/*", "arn:aws:dynamodb:us-east-2:111111111111:table/BackfillJobs-dev/index/*",
    ]
    error_message = "The tables named, and their indexes."
  }

  assert {
    condition     = one([for one in jsondecode(aws_iam_policy.operator.policy).Statement : one if one.Sid == "ThroughTablesOnly"]) == { Sid = "ThroughTablesOnly", Effect = "Allow", Action = ["kms:Decrypt"], Resource = "arn:aws:kms:us-east-2:111111111111:key/data", Condition = { StringEquals = { "kms:ViaService" = "dynamodb.us-east-2.amazonaws.com" } } }
    error_message = "Rows are encrypted with the data key: without it none is read or written."
  }
}
