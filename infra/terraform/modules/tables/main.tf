locals {
  # Keys as services/runtime/provision.py gives them for the emulator; a test compares the two. All are strings.
  tables = {
    tenant_services = { hash_key = "tenant_id", range_key = "service", indexes = {} }
    last_updated    = { hash_key = "tenant_id", range_key = "service_endpoint", indexes = {} }
    leases          = { hash_key = "scope", range_key = "name", indexes = {} }
    backfill_jobs = {
      hash_key  = "job_id"
      range_key = null
      indexes   = { tenant-status-index = { hash_key = "tenant_id", range_key = "status" } }
    }
  }

  attributes = {
    for key, table in local.tables : key => toset(compact(concat(
      [table.hash_key, table.range_key],
      flatten([for index in values(table.indexes) : [index.hash_key, index.range_key]]),
    )))
  }
}

resource "aws_dynamodb_table" "this" {
  for_each = local.tables

  name                        = var.names[each.key]
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = each.value.hash_key
  range_key                   = each.value.range_key
  deletion_protection_enabled = var.protected

  dynamic "attribute" {
    for_each = local.attributes[each.key]

    content {
      name = attribute.value
      type = "S"
    }
  }

  dynamic "global_secondary_index" {
    for_each = each.value.indexes

    content {
      name            = global_secondary_index.key
      hash_key        = global_secondary_index.value.hash_key
      range_key       = global_secondary_index.value.range_key
      projection_type = "ALL"
    }
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms_key_arn
  }

  # What has to be made anew (another key) is made first, and its name is taken: such a change fails, and nothing is lost.
  lifecycle {
    create_before_destroy = true
  }
}
