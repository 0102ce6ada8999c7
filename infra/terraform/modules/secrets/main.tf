# The secrets themselves are made by `avesa setup-service`, one for each tenant and service, and never enter Terraform's
# state. What can be given beforehand is who may do that: this policy, and the secrets key's (modules/encryption). A
# service is connected by its secret and its rows, so it is about both.
locals {
  arn_prefix = "arn:${var.partition}:secretsmanager:${var.region}:${var.account_id}:secret:avesa/${var.environment}/"
}

resource "aws_iam_policy" "operator" {
  name        = "avesa-secrets-operator-${var.environment}"
  path        = "/avesa/${var.environment}/"
  description = "Connect and remove tenants' services of ${var.environment}, their credentials and rows: for people who run avesa setup-service."

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid    = "OneEnvironment"
        Effect = "Allow"
        Action = [
          "secretsmanager:CreateSecret", "secretsmanager:DeleteSecret", "secretsmanager:DescribeSecret",
          "secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue", "secretsmanager:RestoreSecret",
        ]
        Resource = "${local.arn_prefix}*"
      },
      {
        Sid      = "ThroughSecretsManagerOnly"
        Effect   = "Allow"
        Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
        Resource = var.kms_key_arn
        Condition = {
          StringEquals = { "kms:ViaService" = "secretsmanager.${var.region}.amazonaws.com" }
        }
      },
      {
        Sid      = "RowsOfServices"
        Effect   = "Allow"
        Action   = ["dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:UpdateItem"]
        Resource = concat(var.table_arns, [for arn in var.table_arns : "${arn}/index/*"])
      },
      {
        # Who reads or writes a row of a table with a customer's key decrypts the table's key with it, as himself:
        # DynamoDB developer guide, "DynamoDB encryption at rest usage notes", Decrypt.
        Sid      = "ThroughTablesOnly"
        Effect   = "Allow"
        Action   = ["kms:Decrypt"]
        Resource = var.data_kms_key_arn
        Condition = {
          StringEquals = { "kms:ViaService" = "dynamodb.${var.region}.amazonaws.com" }
        }
      },
    ]
  })
}
