# One environment, from its keys to its alarms. The wiring is here and nowhere else.

# -- ground -----------------------------------------------------------------------------------------------------------
module "encryption" {
  source = "../modules/encryption"

  environment              = var.environment
  account_id               = var.account_id
  region                   = var.region
  partition                = var.partition
  secret_operator_arns     = var.secret_operator_arns
  alarm_source_account_ids = var.monitoring.source_account_ids
  deletion_window_days     = var.protected ? 30 : 7
}

module "network" {
  source = "../modules/network"

  environment              = var.environment
  account_id               = var.account_id
  region                   = var.region
  partition                = var.partition
  kms_key_arn              = module.encryption.key_arns["logs"]
  cidr                     = var.network.cidr
  availability_zones       = var.network.availability_zones
  nat                      = var.network.nat
  interface_endpoints      = var.network.interface_endpoints
  flow_logs                = var.network.flow_logs
  log_retention_days       = var.log_retention_days
  keep_logs                = var.protected
  permissions_boundary_arn = var.permissions_boundary_arn
}

module "streams" {
  source = "../modules/streams"

  environment = var.environment
  kms_key_arn = module.encryption.key_arns["data"]
  streams     = var.streams
}

module "tables" {
  source = "../modules/tables"

  environment = var.environment
  kms_key_arn = module.encryption.key_arns["data"]
  protected   = var.protected
  names       = local.names.tables
}

module "lake" {
  source = "../modules/lake"

  environment            = var.environment
  account_id             = var.account_id
  region                 = var.region
  partition              = var.partition
  bucket                 = local.names.bucket
  kms_key_arn            = module.encryption.key_arns["data"]
  protected              = var.protected
  noncurrent_days        = var.lake.noncurrent_days
  system_noncurrent_days = var.lake.system_noncurrent_days
  query_bytes_max        = var.lake.query_bytes_max
}

module "secrets" {
  source = "../modules/secrets"

  environment      = var.environment
  account_id       = var.account_id
  region           = var.region
  partition        = var.partition
  kms_key_arn      = module.encryption.key_arns["secrets"]
  data_kms_key_arn = module.encryption.key_arns["data"]
  table_arns       = values(local.arn.tables)
}

# -- services ---------------------------------------------------------------------------------------------------------
resource "aws_ecs_cluster" "this" {
  #checkov:skip=CKV_AWS_65:Production refuses to be without (var.features); development does not pay for metrics nobody looks at.
  name = local.names.cluster

  setting {
    name  = "containerInsights"
    value = var.features.container_insights ? "enabled" : "disabled"
  }
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  cluster_name       = aws_ecs_cluster.this.name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

# By this role ECS pulls the image and writes the logs, of every fleet; no task ever has it.
resource "aws_iam_role" "execution" {
  name                 = "avesa-execution-${var.environment}"
  path                 = "/avesa/${var.environment}/" # modules/ci-oidc lets CI make roles there only
  description          = "ECS starts the tasks of ${var.environment} by it"
  permissions_boundary = var.permissions_boundary_arn

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TasksOfThisAccount"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = var.account_id }
        ArnLike      = { "aws:SourceArn" = "arn:${var.partition}:ecs:${local.of_account}:*" }
      }
    }]
  })
}

resource "aws_iam_role_policy" "execution" {
  name = "permissions"
  role = aws_iam_role.execution.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Sid      = "LogInToRegistry"
        Effect   = "Allow"
        Action   = ["ecr:GetAuthorizationToken"]
        Resource = ["*"] # AWS has no smaller resource for it: Service Authorization Reference, Amazon ECR
      },
      {
        Sid      = "PullImage"
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = [local.repository_arn]
      },
      {
        Sid      = "WriteLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = ["arn:${var.partition}:logs:${local.of_account}:log-group:/avesa/${var.environment}/*:log-stream:*"]
      },
    ]
  })
}

locals {
  # An image that is not in ECR needs no right to be pulled; then this names the repository that bootstrap makes.
  registry       = try(regex("^(?P<account>[0-9]{12})\\.dkr\\.ecr\\.(?P<region>[a-z0-9-]+)\\.amazonaws\\.com[.a-z]*/(?P<name>[^@:]+)", var.image), { account = var.account_id, region = var.region, name = "avesa" })
  repository_arn = "arn:${var.partition}:ecr:${local.registry.region}:${local.registry.account}:repository/${local.registry.name}"
}

# Enhanced fan-out costs by the hour, also when nobody reads: the consumer ends with its fleet. The code finds it by its
# name (services/transformer/groups.py, Binding.consumer).
resource "aws_kinesis_stream_consumer" "this" {
  for_each = { for name, one in local.transformers : name => one if one.fan_out }

  name       = "avesa-${each.key}"
  stream_arn = module.streams.arns["raw"]
}

module "service" {
  source   = "../modules/service"
  for_each = local.fleets

  environment              = var.environment
  account_id               = var.account_id
  region                   = var.region
  partition                = var.partition
  service                  = each.value.service
  group                    = each.value.group
  metric_group             = each.value.metric_group
  cluster_arn              = aws_ecs_cluster.this.arn
  image                    = var.image
  command                  = each.value.command
  variables                = local.settings
  size                     = local.sizes[each.key]
  architecture             = var.architecture
  capacity                 = var.capacity
  stop_s                   = var.stop_s
  tasks                    = { initial = min(local.sizes[each.key].min, local.most[each.key]), min = min(local.sizes[each.key].min, local.most[each.key]), max = local.most[each.key] }
  scaling                  = var.features.autoscaling ? local.scaling[each.value.service] : null
  wait_s                   = var.features.wait_for_services ? 900 : 0
  subnet_ids               = module.network.private_subnet_ids
  security_group_ids       = [module.network.service_security_group_id]
  execution_role_arn       = aws_iam_role.execution.arn
  permissions              = local.permissions[each.key]
  permissions_boundary_arn = var.permissions_boundary_arn
  log_kms_key_arn          = module.encryption.key_arns["logs"]
  log_retention_days       = var.log_retention_days
  keep_logs                = var.protected

  # ECS pulls, and takes its place on Fargate, before the service can be steady.
  depends_on = [aws_ecs_cluster_capacity_providers.this, aws_iam_role_policy.execution]
}

locals {
  # Extractors have no shards: what they share are connected services, and what they lack first is processor time.
  scaling = {
    extractor   = { lag = null, cpu_percent = var.scaling.cpu_percent }
    transformer = { lag = { out_above_ms = var.scaling.out_above_ms, in_below_ms = var.scaling.in_below_ms }, cpu_percent = null }
    compactor   = { lag = { out_above_ms = var.scaling.out_above_ms, in_below_ms = var.scaling.in_below_ms }, cpu_percent = null }
  }
}

# -- watching ---------------------------------------------------------------------------------------------------------
module "observability" {
  source = "../modules/observability"

  environment       = var.environment
  account_id        = var.account_id
  region            = var.region
  partition         = var.partition
  kms_key_arn       = module.encryption.key_arns["logs"]
  alert_emails      = var.alert_emails
  webhook_url       = var.webhook_url
  central_topic_arn = module.cross_account.central_topic_arn == null ? "" : module.cross_account.central_topic_arn
  cluster_name      = aws_ecs_cluster.this.name
  stream_names      = { raw = module.streams.names["raw"], canonical = module.streams.names["canonical"] }
  source_account_id = var.monitoring.mode == "monitoring" ? try(var.monitoring.source_account_ids[0], "") : ""
  source_services   = var.monitoring.source_services
  thresholds        = var.thresholds
  budget_tag        = { key = "Environment", value = var.environment }

  budget_usd_per_month = var.budget_usd_per_month
  log_retention_days   = var.log_retention_days

  services = { for name, one in module.service : one.service_name => {
    service        = local.fleets[name].service
    group          = one.metric_group
    log_group_name = one.log_group_name
    max_tasks      = one.max_tasks
  } }

  features = {
    composite_alarms = var.features.composite_alarms
    budgets          = var.features.budgets
    saved_queries    = var.features.saved_queries
    task_deaths      = var.features.task_deaths
  }
}

module "cross_account" {
  source = "../modules/cross-account"

  environment           = var.environment
  account_id            = var.account_id
  region                = var.region
  partition             = var.partition
  mode                  = var.monitoring.mode
  monitoring_account_id = var.monitoring.account_id
  source_account_ids    = var.monitoring.source_account_ids
  sink_arn              = var.monitoring.sink_arn
  alert_emails          = var.monitoring.alert_emails
  oam                   = var.features.oam
  kms_key_arn           = module.encryption.key_arns["logs"] # alarms publish to it: the key of topics, not of data
}

module "audit" {
  source   = "../modules/audit"
  for_each = var.features.cloudtrail ? toset(["trail"]) : toset([])

  environment     = var.environment
  account_id      = var.account_id
  region          = var.region
  partition       = var.partition
  kms_key_arn     = module.encryption.key_arns["logs"]
  protected       = var.protected
  lake_bucket_arn = module.lake.bucket_arn

  watched_key_arns = values(module.encryption.key_arns)
  topic_arn        = module.observability.topic_arn
}
