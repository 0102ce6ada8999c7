# What cannot be a reason to refuse, and still is worth a word at every plan.

data "aws_caller_identity" "current" {}

data "aws_availability_zones" "available" {
  #checkov:skip=CKV_AWS_394:Nothing is made of what it returns; the zones are a variable, and this checks them.
  state = "available"
}

check "account" {
  assert {
    condition     = data.aws_caller_identity.current.account_id == var.account_id
    error_message = "These credentials are of account ${data.aws_caller_identity.current.account_id}, ${var.environment} lives in ${var.account_id}."
  }
}

# Also tells when the provider talks to another region than the variable says: zones are named after theirs.
check "zones" {
  assert {
    condition     = length(setsubtract(var.network.availability_zones, data.aws_availability_zones.available.names)) == 0
    error_message = "Not all of ${join(", ", var.network.availability_zones)} can be used by this account: ${join(", ", data.aws_availability_zones.available.names)} can."
  }
}

check "readers_of_the_raw_stream" {
  assert {
    condition     = length([for one in values(local.transformers) : one if !one.fan_out]) <= 1
    error_message = "The compactor and ${length([for one in values(local.transformers) : one if !one.fan_out])} fleets of transformers poll the raw stream; a shard answers two well (5 reads and 2 MiB a second). Give groups fan_out = true: docs/scaling.md."
  }
}

check "work_for_every_task" {
  assert {
    condition     = alltrue([for name, one in local.fleets : local.sizes[name].max == local.most[name]])
    error_message = "Some fleets may not grow as far as asked, because there are fewer shards to share: ${join(", ", [for name, one in local.fleets : "${name} to ${local.most[name]}" if local.sizes[name].max != local.most[name]])}."
  }
}

check "somebody_hears_of_every_environment" {
  assert {
    condition     = var.monitoring.mode != "monitoring" || length(var.monitoring.alert_emails) > 0
    error_message = "Every environment's alarms are published to the central topic, and nobody is subscribed to it: monitoring.alert_emails."
  }
}
