# What is asked of the logs: saved for Logs Insights, and, where `panel` is set, shown by the dashboard per tenant.
# Tenants are no dimension of metrics (each would be paid for by the month); their lines carry `tenant_id`.

locals {
  queries = {
    "changes-by-tenant" = {
      title = "Changes published, by tenant", panel = true
      query = "filter event = \"EventsPublished\" | stats sum(EventsPublishedCount) as changes by tenant_id, service | sort changes desc | limit 25"
    }
    "rows-by-tenant" = {
      title = "Rows written to the lake, by tenant", panel = true
      query = "filter event = \"TableMerged\" | stats sum(TableMergedObservations) as observations, sum(TableMergedRowsWritten) as rows_written by tenant_id, table | sort observations desc | limit 25"
    }
    "dead-letters-by-tenant" = {
      title = "Dead letters, by tenant and reason", panel = true
      query = "filter event = \"RecordsRejected\" | stats sum(RecordsRejectedCount) as letters by tenant_id, group, code, stage | sort letters desc | limit 25"
    }
    "failures-by-tenant" = {
      title = "Endpoints that fail, by tenant", panel = true
      query = "filter event = \"EndpointFailed\" | stats sum(EndpointFailedCount) as failures, latest(what) as cause by tenant_id, service, endpoint, code | sort failures desc | limit 25"
    }
    "credentials-by-tenant" = {
      title = "Credentials refused, by tenant", panel = true
      query = "filter event = \"CredentialsRefused\" | stats sum(CredentialsRefusedCount) as refusals, max(@timestamp) as last by tenant_id, service | sort last desc | limit 25"
    }
    "throttling-by-tenant" = {
      title = "Waits that vendors asked for, by tenant", panel = true
      query = "filter event = \"VendorThrottled\" | stats sum(VendorThrottledCount) as waits, sum(wait_s) as waited_s by tenant_id, service | sort waited_s desc | limit 25"
    }
    "warnings-and-errors" = {
      title = "Everything that was a warning or an error", panel = false
      query = "filter level in [\"warning\", \"error\"] | sort @timestamp desc | limit 200"
    }
    "of-one-tenant" = {
      title = "All that was said of one tenant (put its id in)", panel = false
      query = "filter tenant_id = \"TENANT\" and ispresent(level) | sort @timestamp desc | limit 200"
    }
    "waiting-and-retries" = {
      title = "What services wait for", panel = false
      query = "filter event in [\"WaitingFor\", \"Retried\"] | stats count(*) as times, latest(why) as cause by event, what, code | sort times desc | limit 50"
    }
    "owners-of-work" = {
      title = "Leases gained, lost and restored", panel = false
      query = "filter event in [\"LeaseGained\", \"LeaseLost\", \"LeaseRestored\"] | sort @timestamp desc | limit 200"
    }
    "vanished-fields" = {
      title = "Fields that records no longer have", panel = false
      query = "filter event = \"FieldsVanished\" | sort @timestamp desc | limit 100"
    }
  }

  log_groups = sort(distinct([for one in var.services : one.log_group_name]))
}

resource "aws_cloudwatch_query_definition" "this" {
  for_each = { for name, one in local.queries : name => one if var.features.saved_queries }

  name            = "AVESA/${var.environment}/${each.key}"
  log_group_names = local.log_groups
  query_string    = each.value.query
}
