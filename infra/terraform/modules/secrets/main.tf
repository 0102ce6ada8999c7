# The secrets themselves are made by `avesa setup-service`, one for each tenant and service, and never enter Terraform's
# state. What can be given beforehand is who may do that: this policy, and the secrets key's (modules/encryption).
locals {
  arn_prefix = "arn:${var.partition}:secretsmanager:${var.region}:${var.account_id}:secret:avesa/${var.environment}/"
}

resource "aws_iam_policy" "operator" {
  name        = "avesa-secrets-operator-${var.environment}"
  path        = "/avesa/${var.environment}/"
  description = "Store, replace and remove tenants' credentials of ${var.environment}: for people who run avesa setup-service."

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
    ]
  })
}
