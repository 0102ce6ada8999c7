# What every task of AVESA is, and when there are more of them.
mock_provider "aws" {}

variables {
  environment        = "dev"
  account_id         = "111122223333"
  region             = "us-east-2"
  service            = "transformer"
  metric_group       = "transformer"
  cluster_arn        = "arn:aws:ecs:us-east-2:111122223333:cluster/avesa-dev"
  image              = "111122223333.dkr.ecr.us-east-2.amazonaws.com/avesa@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  command            = ["transformer"]
  variables          = { BUCKET_NAME = "data-storage-msp-dev" }
  size               = { cpu = 512, memory = 1024 }
  tasks              = { initial = 1, min = 1, max = 4 }
  capacity           = { on_demand_base = 1, on_demand_weight = 0, spot_weight = 1 }
  scaling            = { lag = { out_above_ms = 60000, in_below_ms = 5000 } }
  subnet_ids         = ["subnet-1", "subnet-2"]
  security_group_ids = ["sg-1"]
  execution_role_arn = "arn:aws:iam::111122223333:role/avesa/dev/avesa-execution-dev"
  log_kms_key_arn    = "arn:aws:kms:us-east-2:111122223333:key/logs"

  permissions = [
    { sid = "ReadRaw", actions = ["kinesis:GetRecords"], resources = ["arn:aws:kinesis:us-east-2:111122223333:stream/avesa-raw-dev"] },
    {
      sid        = "Leases"
      actions    = ["dynamodb:UpdateItem", "dynamodb:GetItem"]
      resources  = ["arn:aws:dynamodb:us-east-2:111122223333:table/Leases-dev"]
      conditions = [{ test = "ForAllValues:StringLike", key = "dynamodb:LeadingKeys", values = ["transformer/*"] }]
    },
  ]
}

run "a_task_can_write_nowhere_but_where_it_must" {
  command = plan

  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[0].readonlyRootFilesystem && jsondecode(aws_ecs_task_definition.this.container_definitions)[0].user == "10001:10001"
    error_message = "Its root is read-only, and it is not root."
  }

  assert {
    condition     = { for one in jsondecode(aws_ecs_task_definition.this.container_definitions)[0].mountPoints : one.containerPath => one.readOnly } == { "/tmp" = false, "/var/lib/avesa" = false }
    error_message = "State and temporary files have volumes that end with the task."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[0].linuxParameters.capabilities.drop == ["ALL"] && jsondecode(aws_ecs_task_definition.this.container_definitions)[0].linuxParameters.initProcessEnabled
    error_message = "It has no capability, and an init that passes signals on."
  }

  assert {
    condition     = !aws_ecs_service.this.enable_execute_command && !aws_ecs_service.this.network_configuration[0].assign_public_ip
    error_message = "Nobody gets in."
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[0].logConfiguration.options.mode == "non-blocking"
    error_message = "A log that cannot be delivered holds nobody up."
  }
}

run "it_is_told_where_it_is" {
  command = plan

  assert {
    condition = { for one in jsondecode(aws_ecs_task_definition.this.container_definitions)[0].environment : one.name => one.value } == {
      AVESA_EMF       = "true"
      AVESA_STATE_DIR = "/var/lib/avesa/state"
      AVESA_STOP_S    = "25"
      AWS_REGION      = "us-east-2"
      BUCKET_NAME     = "data-storage-msp-dev"
      ENVIRONMENT     = "dev"
    }
    error_message = "The variables of services/runtime/settings.py."
  }
}

run "there_is_time_to_drain" {
  command = plan

  variables {
    stop_s = 110
  }

  assert {
    condition     = jsondecode(aws_ecs_task_definition.this.container_definitions)[0].stopTimeout == 120
    error_message = "ECS waits longer than the service takes, and Fargate waits 120 s at most."
  }
}

run "a_bad_image_does_not_stay" {
  command = plan

  assert {
    condition     = aws_ecs_service.this.deployment_circuit_breaker[0].enable && aws_ecs_service.this.deployment_circuit_breaker[0].rollback && aws_ecs_service.this.deployment_minimum_healthy_percent == 100
    error_message = "What does not start is rolled back, and until then the old tasks work."
  }
}

run "the_mix_of_capacity_is_a_variable" {
  command = plan

  assert {
    condition     = { for one in aws_ecs_service.this.capacity_provider_strategy : one.capacity_provider => "${one.base}/${one.weight}" } == { FARGATE = "1/0", FARGATE_SPOT = "0/1" }
    error_message = "The first task on demand, all others on Spot."
  }
}

run "all_of_it_may_be_spot" {
  command = plan

  variables {
    capacity     = { on_demand_base = 0, on_demand_weight = 0, spot_weight = 1 }
    architecture = "X86_64"
  }

  assert {
    condition     = [for one in aws_ecs_service.this.capacity_provider_strategy : one.capacity_provider] == ["FARGATE_SPOT"]
    error_message = "ECS takes no provider without base and weight."
  }

  assert {
    condition     = aws_ecs_task_definition.this.runtime_platform[0].cpu_architecture == "X86_64"
    error_message = "The architecture is a variable of its own."
  }
}

run "who_is_behind_gets_another_task" {
  command = plan

  assert {
    condition     = aws_cloudwatch_metric_alarm.out[0].metric_name == "ShardsBehindMs" && aws_cloudwatch_metric_alarm.out[0].dimensions == tomap({ Environment = "dev", Service = "transformer", Group = "transformer" })
    error_message = "By the metric that this fleet emits."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.out[0].threshold == 60000 && aws_cloudwatch_metric_alarm.in[0].threshold == 5000 && aws_cloudwatch_metric_alarm.in[0].comparison_operator == "LessThanThreshold"
    error_message = "More above, fewer below."
  }

  assert {
    condition     = aws_appautoscaling_target.this[0].resource_id == "service/avesa-dev/avesa-transformer-dev" && aws_appautoscaling_target.this[0].max_capacity == 4
    error_message = "Of this service, as far as there is work."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.in[0].treat_missing_data == "notBreaching"
    error_message = "Who does not say how it stands keeps its tasks."
  }
}

run "without_shards_the_processors_tell" {
  command = plan

  variables {
    service      = "extractor"
    group        = "psa"
    metric_group = "extractor-connectwise"
    command      = ["extractor", "--services", "connectwise"]
    scaling      = { cpu_percent = 60 }
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.out) == 0 && aws_appautoscaling_policy.cpu[0].target_tracking_scaling_policy_configuration[0].target_value == 60
    error_message = "Target tracking on their use."
  }

  assert {
    condition     = output.service_name == "avesa-extractor-psa-dev" && output.log_group_name == "/avesa/dev/extractor-psa"
    error_message = "The group is part of every name."
  }
}

run "scaling_may_be_left_out" {
  command = plan

  variables {
    scaling = null
  }

  assert {
    condition     = length(aws_appautoscaling_target.this) == 0 && output.max_tasks == 1
    error_message = "Then the number at the start is all there is."
  }
}

run "a_policy_says_what_was_given_and_nothing_else" {
  command = plan

  assert {
    condition = jsondecode(aws_iam_role_policy.task.policy).Statement == [
      { Sid = "ReadRaw", Effect = "Allow", Action = ["kinesis:GetRecords"], Resource = ["arn:aws:kinesis:us-east-2:111122223333:stream/avesa-raw-dev"] },
      {
        Sid       = "Leases"
        Effect    = "Allow"
        Action    = ["dynamodb:GetItem", "dynamodb:UpdateItem"]
        Resource  = ["arn:aws:dynamodb:us-east-2:111122223333:table/Leases-dev"]
        Condition = { "ForAllValues:StringLike" = { "dynamodb:LeadingKeys" = ["transformer/*"] } }
      },
    ]
    error_message = "Statement by statement."
  }

  assert {
    condition     = jsondecode(aws_iam_role.task.assume_role_policy).Statement[0].Condition.StringEquals["aws:SourceAccount"] == "111122223333"
    error_message = "Only tasks of this account take the role."
  }
}

# -- wrong inputs -------------------------------------------------------------------------------------------------------
run "no_action_is_a_wildcard" {
  command = plan

  variables {
    permissions = [{ sid = "All", actions = ["s3:*"], resources = ["arn:aws:s3:::data-storage-msp-dev/*"] }]
  }

  expect_failures = [var.permissions]
}

run "no_resource_is_everything" {
  command = plan

  variables {
    permissions = [{ sid = "All", actions = ["s3:GetObject"], resources = ["*"] }]
  }

  expect_failures = [var.permissions]
}

run "no_secret_is_a_variable" {
  command = plan

  variables {
    variables = { CONNECTWISE_PASSWORD = "hunter2" }
  }

  expect_failures = [var.variables]
}

run "fargate_has_no_such_size" {
  command = plan

  variables {
    size = { cpu = 256, memory = 4096 }
  }

  expect_failures = [var.size]
}

run "a_fleet_does_not_swing" {
  command = plan

  variables {
    scaling = { lag = { out_above_ms = 6000, in_below_ms = 5000 } }
  }

  expect_failures = [var.scaling]
}

run "a_drain_that_fargate_would_cut_off" {
  command = plan

  variables {
    stop_s = 115
  }

  expect_failures = [var.stop_s]
}

run "there_is_a_revision_to_go_back_to" {
  command = plan

  assert {
    condition     = aws_ecs_task_definition.this.skip_destroy
    error_message = "A deregistered revision starts no service: neither the circuit breaker's nor a person's way back."
  }
}

run "a_log_outlives_its_service_where_it_is_to" {
  command = plan

  variables {
    keep_logs = true
  }

  assert {
    condition     = aws_cloudwatch_log_group.this.skip_destroy
    error_message = "Terraform forgets the log group of a group that is no more, and AWS keeps it."
  }
}

run "a_policy_that_iam_would_refuse_is_refused_before" {
  command = plan

  variables {
    permissions = [for number in range(100) : {
      sid       = "Vendor${number}"
      actions   = ["secretsmanager:GetSecretValue"]
      resources = ["arn:aws:secretsmanager:us-east-2:111122223333:secret:avesa/dev/*/vendor_${number}-??????"]
    }]
  }

  expect_failures = [aws_iam_role_policy.task]
}
