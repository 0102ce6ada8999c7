locals {
  fleet          = var.group == "" ? var.service : "${var.service}-${var.group}"
  name           = "avesa-${local.fleet}-${var.environment}"
  log_group_name = "/avesa/${var.environment}/${local.fleet}"
  state_path     = "/var/lib/avesa"

  # What is written while everything else is read-only. Fargate makes such a volume root's with mode 0755, unless the
  # image declares the same path as a VOLUME: then owner and mode are the image's (Dockerfile; AWS documentation,
  # "Use bind mounts with Amazon ECS"; aws/containers-roadmap 938).
  volumes = { state = local.state_path, tmp = "/tmp" }
}

# -- the log ----------------------------------------------------------------------------------------------------------
resource "aws_cloudwatch_log_group" "this" {
  name              = local.log_group_name
  retention_in_days = var.log_retention_days
  kms_key_id        = var.log_kms_key_arn

  # A group that is taken out of a map is a day's work; a year of its log is not. Terraform forgets it then, and who gives
  # the name to a group again imports it (README.md).
  skip_destroy = var.keep_logs
}

# -- the role ---------------------------------------------------------------------------------------------------------
resource "aws_iam_role" "task" {
  name                 = local.name
  path                 = "/avesa/${var.environment}/" # modules/ci-oidc lets CI make roles there only
  description          = "What ${local.fleet} of ${var.environment} may do: infra/terraform/platform/permissions.tf"
  permissions_boundary = var.permissions_boundary_arn

  # Both conditions keep another account's ECS from being talked into taking this role (AWS: confused deputy).
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TasksOfThisAccount"
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ecs-tasks.amazonaws.com" }
      Condition = {
        StringEquals = { "aws:SourceAccount" = var.account_id }
        ArnLike      = { "aws:SourceArn" = "arn:${var.partition}:ecs:${var.region}:${var.account_id}:*" }
      }
    }]
  })
}

resource "aws_iam_role_policy" "task" {
  name = "permissions"
  role = aws_iam_role.task.id

  policy = local.policy

  lifecycle {
    precondition {
      # IAM user guide, "IAM and AWS STS quotas": all inline policies of a role together.
      condition     = length(local.policy) <= 10240
      error_message = "The policy of ${local.name} has ${length(local.policy)} characters, and IAM takes 10,240 for a role: give some of its vendors to another group."
    }
  }
}

locals {
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [for one in var.permissions : merge(
      { Sid = one.sid, Effect = one.effect, Action = sort(one.actions), Resource = sort(one.resources) },
      length(one.conditions) == 0 ? {} : {
        Condition = { for test in distinct(one.conditions[*].test) : test => {
          for condition in one.conditions : condition.key => sort(condition.values) if condition.test == test
        } }
      },
    )]
  })
}

# -- the task ---------------------------------------------------------------------------------------------------------
resource "aws_ecs_task_definition" "this" {
  family                   = local.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.size.cpu
  memory                   = var.size.memory
  task_role_arn            = aws_iam_role.task.arn
  execution_role_arn       = var.execution_role_arn

  # A revision that was deregistered can start no service again, and it is what the circuit breaker and a person go back
  # to (ECS developer guide, "Task definition states"). They cost nothing.
  skip_destroy = true

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = var.architecture
  }

  # 20 GiB come with every task and cannot be asked for; 21 is the least that can.
  dynamic "ephemeral_storage" {
    for_each = var.size.disk_gib > 20 ? [var.size.disk_gib] : []
    content {
      size_in_gib = ephemeral_storage.value
    }
  }

  dynamic "volume" {
    for_each = local.volumes
    content {
      name = volume.key
    }
  }

  container_definitions = jsonencode([{
    name                   = var.service
    image                  = var.image
    essential              = true
    command                = var.command
    user                   = "10001:10001"
    privileged             = false
    readonlyRootFilesystem = true

    # The service asks to be stopped, drains, commits and lets go of its leases; then there is time to spare.
    stopTimeout = min(120, var.stop_s + 10)

    linuxParameters = {
      initProcessEnabled = true # passes SIGTERM on and reaps, whatever becomes the first process
      capabilities       = { add = [], drop = ["ALL"] }
    }

    environment = [for name in sort(keys(local.variables)) : { name = name, value = local.variables[name] }]
    mountPoints = [for name in sort(keys(local.volumes)) : { sourceVolume = name, containerPath = local.volumes[name], readOnly = false }]

    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.this.name
        awslogs-region        = var.region
        awslogs-stream-prefix = local.fleet
        mode                  = "non-blocking" # a log that cannot be delivered never holds up the event loop
        max-buffer-size       = "25m"
      }
    }
  }])
}

locals {
  variables = merge(var.variables, {
    ENVIRONMENT     = var.environment
    AWS_REGION      = var.region
    AVESA_EMF       = "true"
    AVESA_STATE_DIR = "${local.state_path}/state"
    AVESA_STOP_S    = tostring(var.stop_s)
  })
}

# -- the service ------------------------------------------------------------------------------------------------------
resource "aws_ecs_service" "this" {
  name                          = local.name
  cluster                       = var.cluster_arn
  task_definition               = aws_ecs_task_definition.this.arn
  desired_count                 = var.tasks.initial
  platform_version              = "LATEST"
  propagate_tags                = "SERVICE"
  enable_ecs_managed_tags       = true
  enable_execute_command        = false # nobody gets a shell where tenants' data are
  availability_zone_rebalancing = "ENABLED"
  wait_for_steady_state         = var.wait_s > 0

  # Without this a change of the mix below would delete the service and make it anew.
  force_new_deployment = true

  dynamic "capacity_provider_strategy" {
    for_each = { for name, one in local.capacity : name => one if one.base + one.weight > 0 }
    content {
      capacity_provider = capacity_provider_strategy.key
      base              = capacity_provider_strategy.value.base
      weight            = capacity_provider_strategy.value.weight
    }
  }

  # New tasks come before old ones go: leases decide who works, so for a moment there may be twice as many.
  deployment_minimum_healthy_percent = 100
  deployment_maximum_percent         = 200

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = var.security_group_ids
    assign_public_ip = false
  }

  # The number of tasks is the scaling's to change (or an operator's, where there is none); all else is Terraform's.
  lifecycle {
    ignore_changes = [desired_count]
  }

  timeouts {
    create = "${max(var.wait_s, 60)}s"
    update = "${max(var.wait_s, 60)}s"
  }

  # A task that starts before it may do anything fails, and the circuit breaker takes that for a bad image.
  depends_on = [aws_iam_role_policy.task]
}

locals {
  capacity = {
    FARGATE      = { base = var.capacity.on_demand_base, weight = var.capacity.on_demand_weight }
    FARGATE_SPOT = { base = 0, weight = var.capacity.spot_weight }
  }
}
