# Names are those of services/contracts/names.py; tests/infra compares the two. Groups are part of names, and of commands.
mock_provider "aws" {
  mock_data "aws_caller_identity" {
    defaults = { account_id = "111122223333" }
  }

  mock_data "aws_availability_zones" {
    defaults = { names = ["us-east-2a", "us-east-2b", "us-east-2c"] }
  }

  mock_resource "aws_kms_key" {
    defaults = { arn = "arn:aws:kms:us-east-2:111122223333:key/00000000-0000-0000-0000-000000000000" }
  }
}

variables {
  environment  = "dev"
  account_id   = "111122223333"
  protected    = false
  image        = "111122223333.dkr.ecr.us-east-2.amazonaws.com/avesa@sha256:0000000000000000000000000000000000000000000000000000000000000000"
  alert_emails = ["ops@example.com"]
  network      = { cidr = "10.20.0.0/16", availability_zones = ["us-east-2a", "us-east-2b", "us-east-2c"], nat = "per_az" }
}

run "other_environments_have_a_suffix" {
  command = plan

  assert {
    condition     = toset(values(module.tables.names)) == toset(["TenantServices-dev", "LastUpdated-dev", "Leases-dev", "BackfillJobs-dev"])
    error_message = "Tables of dev end in -dev."
  }

  assert {
    condition     = module.streams.names["raw"] == "avesa-raw-dev" && module.streams.names["canonical"] == "avesa-canonical-dev" && local.names.bucket == "data-storage-msp-dev"
    error_message = "Streams and bucket carry the environment."
  }

  assert {
    condition     = output.service_names == tolist(["avesa-compactor-dev", "avesa-extractor-dev", "avesa-transformer-dev"])
    error_message = "Services are called avesa-{service}-{env}."
  }

  assert {
    condition     = output.log_group_names["avesa-extractor-dev"] == "/avesa/dev/extractor" && output.role_names["avesa-extractor-dev"] == "avesa-extractor-dev"
    error_message = "Log groups are /avesa/{env}/{service}; roles are called as their services."
  }

  assert {
    condition     = aws_iam_role.execution.name == "avesa-execution-dev" && output.cluster_name == "avesa-dev"
    error_message = "Execution role and cluster carry the environment."
  }
}

run "production_has_no_suffix_on_tables" {
  command = plan

  variables {
    environment = "prod"
    protected   = true
  }

  assert {
    condition     = toset(values(module.tables.names)) == toset(["TenantServices", "LastUpdated", "Leases", "BackfillJobs"])
    error_message = "Production's tables are called as in the system this one replaces."
  }

  assert {
    condition     = local.names.bucket == "data-storage-msp-prod" && contains(output.service_names, "avesa-extractor-prod")
    error_message = "All else carries the environment."
  }
}

run "without_groups_every_fleet_takes_all" {
  command = plan

  assert {
    condition     = { for name, one in local.fleets : name => join(" ", one.command) } == { extractor = "extractor", transformer = "transformer", compactor = "compactor" }
    error_message = "No fleet is bound to anything."
  }
}

run "a_group_is_a_fleet_and_the_others_leave_its_work_to_it" {
  command = plan

  variables {
    extractor_groups   = { psa = { services = ["connectwise", "autotask_psa"], max = 2 } }
    transformer_groups = { tickets = { tables = ["tickets", "notes"], fan_out = true } }
  }

  assert {
    condition     = contains(output.service_names, "avesa-extractor-psa-dev") && contains(output.service_names, "avesa-transformer-tickets-dev")
    error_message = "Groups are called avesa-{service}-{group}-{env}."
  }

  assert {
    condition     = join(" ", local.fleets["extractor-psa"].command) == "extractor --services autotask_psa,connectwise"
    error_message = "The group reads its vendors."
  }

  assert {
    condition     = toset(split(",", local.fleets["extractor"].command[2])) == setsubtract(local.vendors, ["connectwise", "autotask_psa"])
    error_message = "The other fleet reads every other vendor there is a mapping file for, and none of the group's."
  }

  assert {
    condition     = join(" ", local.fleets["transformer-tickets"].command) == "transformer --group tickets --tables notes,tickets --fan-out"
    error_message = "The group maps its tables."
  }

  assert {
    condition     = join(" ", local.fleets["transformer"].command) == "transformer --except-tables notes,tickets"
    error_message = "The other fleet leaves them to it."
  }

  assert {
    condition     = aws_kinesis_stream_consumer.this["transformer-tickets"].name == "avesa-transformer-tickets"
    error_message = "Its consumer has the name by which the code looks for it (Binding.consumer)."
  }

  assert {
    condition     = local.fleets["extractor-psa"].metric_group == "extractor-autotask_psa-connectwise" && local.fleets["transformer-tickets"].metric_group == "transformer-tickets" && local.fleets["transformer"].metric_group == "transformer"
    error_message = "Dimension Group is what the code emits: services/contracts/log.py."
  }

  assert {
    condition     = local.sizes["extractor-psa"].max == 2 && local.sizes["extractor-psa"].cpu == var.services.extractor.cpu
    error_message = "A group has its service's size where it has none of its own."
  }
}

run "a_fleet_with_nothing_left_is_left_out" {
  command = plan

  variables {
    extractor_groups = { all = { services = ["autotask_psa", "connectwise", "github", "halopsa", "microsoft_365", "salesforce", "servicenow", "xero", "zendesk"] } }
  }

  assert {
    condition     = contains(keys(local.fleets), "extractor") == (length(setsubtract(local.vendors, var.extractor_groups["all"].services)) > 0)
    error_message = "A command without --services would take everything."
  }
}

run "own_mapping_files_count" {
  command = plan

  variables {
    own_mappings     = { folder = "/opt/mappings", integrations = { acme_erp = { stores_tokens = true } }, tables = ["assets"] }
    extractor_groups = { erp = { services = ["acme_erp"] } }
  }

  assert {
    condition     = join(" ", local.fleets["extractor-erp"].command) == "extractor --services acme_erp --mappings /opt/mappings"
    error_message = "A vendor of one's own can have a fleet."
  }
}

run "no_fleet_has_more_tasks_than_shards" {
  command = plan

  variables {
    streams  = { raw = { mode = "PROVISIONED", shards = 2 }, canonical = { mode = "PROVISIONED", shards = 3 } }
    services = { extractor = { max = 6 }, transformer = { max = 6 }, compactor = { max = 6 } }
  }

  expect_failures = [check.work_for_every_task]

  assert {
    condition     = local.most == { extractor = 6, transformer = 2, compactor = 3 }
    error_message = "Transformers share raw's shards, compactors those of either stream, extractors what is connected."
  }
}

run "a_third_reader_of_the_raw_stream_is_told_of" {
  command = plan

  variables {
    transformer_groups = { tickets = { tables = ["tickets"] } }
  }

  expect_failures = [check.readers_of_the_raw_stream]
}
