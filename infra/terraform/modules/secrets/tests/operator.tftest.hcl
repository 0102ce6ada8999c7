mock_provider "aws" {}

variables {
  environment = "dev"
  account_id  = "111111111111"
  region      = "us-east-2"
  kms_key_arn = "arn:aws:kms:us-east-2:111111111111:key/secrets"
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
