mock_provider "aws" {}

variables {
  environment = "prod"
  kms_key_arn = "arn:aws:kms:us-east-2:222222222222:key/data"
  protected   = true
  names = {
    tenant_services = "TenantServices"
    last_updated    = "LastUpdated"
    leases          = "Leases"
    backfill_jobs   = "BackfillJobs"
  }
}

run "tables_bear_the_names_they_are_given" {
  command = plan

  assert {
    condition     = { for key, table in aws_dynamodb_table.this : key => table.name } == var.names
    error_message = "Not a suffix more: the root knows the rule."
  }
}

run "keys_and_index_are_those_of_the_code" {
  command = plan

  assert {
    condition = { for key, table in aws_dynamodb_table.this : key => "${table.hash_key}/${coalesce(table.range_key, "-")}" } == {
      tenant_services = "tenant_id/service"
      last_updated    = "tenant_id/service_endpoint"
      leases          = "scope/name"
      backfill_jobs   = "job_id/-"
    }
    error_message = "As services/runtime/provision.py."
  }

  assert {
    condition     = [for index in aws_dynamodb_table.this["backfill_jobs"].global_secondary_index : "${index.name}:${index.hash_key}/${index.range_key}:${index.projection_type}"] == ["tenant-status-index:tenant_id/status:ALL"]
    error_message = "Jobs are found by tenant and status, whole rows."
  }

  # DynamoDB refuses an attribute that is no key of table or index.
  assert {
    condition     = toset([for attribute in aws_dynamodb_table.this["backfill_jobs"].attribute : attribute.name]) == toset(["job_id", "status", "tenant_id"])
    error_message = "Attributes are those of the keys."
  }
}

run "tables_are_encrypted_restorable_and_protected" {
  command = plan

  assert {
    condition = alltrue([
      for table in values(aws_dynamodb_table.this) :
      table.deletion_protection_enabled && one(table.point_in_time_recovery).enabled && one(table.server_side_encryption).kms_key_arn == var.kms_key_arn && table.billing_mode == "PAY_PER_REQUEST"
    ])
    error_message = "Every table, no exception."
  }
}

run "recovery_stays_where_protection_is_off" {
  command = plan

  variables {
    protected = false
  }

  assert {
    condition     = alltrue([for table in values(aws_dynamodb_table.this) : !table.deletion_protection_enabled && one(table.point_in_time_recovery).enabled])
    error_message = "Only the deletion is let go."
  }
}
