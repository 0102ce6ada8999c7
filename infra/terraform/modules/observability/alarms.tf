# Every alarm as data; main.tf makes one resource of them. `runbook` is its section in docs/runbook.md, for which
# tests/infra/test_alarms.py holds that there is one, as it holds that the alarm rings and stops.
#
# What is missing: a count that was not sent is a count of none (notBreaching); a gauge that was not sent says nothing
# (missing: the alarm has insufficient data, and nobody is told), and that it was not sent is what missing-heartbeat
# rings for (breaching). Metrics come out of log lines, late by up to some minutes: gauges take several periods.

locals {
  environment = { Environment = var.environment }

  # Something that should not be was counted. over: how often may it be, within period_s, in all of `periods`.
  counted = {
    records-rejected = {
      metric = "RecordsRejectedCount", over = var.thresholds.records_rejected, period_s = 300, periods = 1, severity = "warning"
      what   = "Many records became dead letters: a mapping or a vendor has changed."
    }
    partition-parked = {
      metric = "PartitionParkedCount", over = 0, period_s = 300, periods = 1, severity = "critical"
      what   = "So much of a partition cannot be used that the rest of it waits until somebody releases it."
    }
    endpoints-failed = {
      metric = "EndpointFailedCount", over = var.thresholds.endpoints_failed, period_s = 900, periods = 2, severity = "warning"
      what   = "Reading from vendors fails again and again."
    }
    credentials-refused = {
      metric = "CredentialsRefusedCount", over = 0, period_s = 900, periods = 1, severity = "warning"
      what   = "A vendor refuses the credentials of a tenant: nothing of that service is read until they are renewed."
    }
    vendor-throttled = {
      metric = "VendorThrottledCount", over = var.thresholds.vendor_throttled, period_s = 900, periods = 2, severity = "warning"
      what   = "Vendors ask us to slow down so often that freshness suffers."
    }
    puts-refused = {
      metric = "PutsRefusedCount", over = var.thresholds.puts_refused, period_s = 300, periods = 2, severity = "critical"
      what   = "A stream has refused what we put for half a minute and more: it is too small, or down."
    }
    sweep-suspicious = {
      metric = "SweepSuspiciousCount", over = 0, period_s = 900, periods = 1, severity = "critical"
      what   = "A sweep found so little at a vendor that nothing was deleted: a person must say whether it is true."
    }
    memory-lost = {
      metric = "MemoryLostCount", over = 0, period_s = 300, periods = 1, severity = "critical"
      what   = "A snapshot that a row names is not in the bucket: somebody or something removed objects of ours."
    }
    position-expired = {
      metric = "PositionExpiredCount", over = 0, period_s = 300, periods = 1, severity = "critical"
      what   = "A stream may no longer hold what comes after a committed position: data may be missing until it is healed."
    }
    lease-restored = {
      metric = "LeaseRestoredCount", over = 0, period_s = 300, periods = 1, severity = "critical"
      what   = "Rows of the table of leases were removed while their owners lived."
    }
    poison-suspected = {
      metric = "PoisonSuspectedCount", over = 0, period_s = 300, periods = 1, severity = "warning"
      what   = "Worker after worker died over the same work; it is tried in isolation."
    }
    poison-isolated = {
      metric = "PoisonIsolatedCount", over = 0, period_s = 300, periods = 1, severity = "warning"
      what   = "Lines that end whoever reads them were found and are dead letters."
    }
  }

  # By what stands between `avesa-` and `-{environment}` in the service's name, not by its dimension Group: that of an
  # extractor names all its vendors, so that its alarm would be another with each vendor, and too long for its name soon.
  fleets  = { for name, one in var.services : trimsuffix(trimprefix(name, "avesa-"), "-${var.environment}") => one }
  sharing = { for fleet, one in local.fleets : fleet => one if one.service != "extractor" }
  running = { for fleet, one in local.fleets : fleet => one if one.max_tasks > 0 }
  growing = { for fleet, one in local.running : fleet => one if one.service != "extractor" }
  streams = { raw = var.stream_names.raw, canonical = var.stream_names.canonical }

  alarms = merge(
    {
      for name, one in local.counted : name => {
        runbook    = name, severity = one.severity, what = one.what
        namespace  = "AVESA", metric = one.metric, statistic = "Sum", dimensions = local.environment
        comparison = "GreaterThanThreshold", threshold = one.over, period_s = one.period_s
        periods    = one.periods, datapoints = one.periods, missing = "notBreaching", expression = "", queries = {}
      }
    },
    {
      for fleet, one in local.sharing : "shards-behind-${fleet}" => {
        runbook    = "shards-behind", severity = "critical", what = "${fleet} has been behind its stream for five minutes."
        namespace  = "AVESA", metric = "ShardsBehindMs", statistic = "Maximum"
        dimensions = merge(local.environment, { Service = one.service, Group = one.group })
        comparison = "GreaterThanThreshold", threshold = var.thresholds.shards_behind_ms, period_s = 60
        periods    = 5, datapoints = 5, missing = "missing", expression = "", queries = {}
      }
    },
    {
      for fleet, one in local.running : "missing-heartbeat-${fleet}" => {
        runbook    = "missing-heartbeat", severity = "critical", what = "No process of ${fleet} has shown life for five minutes."
        namespace  = "AVESA", metric = "ServiceAliveCount", statistic = "Sum"
        dimensions = merge(local.environment, { Service = one.service, Group = one.group })
        comparison = "LessThanThreshold", threshold = 1, period_s = 60
        periods    = 5, datapoints = 5, missing = "breaching", expression = "", queries = {}
      }
    },
    {
      # Every process shows life once a minute; a period of five minutes and a half of one allow for drift.
      for fleet, one in local.growing : "saturated-${fleet}" => {
        runbook    = "saturated", severity = "critical", what = "${fleet} runs as many tasks as it may and is still behind."
        namespace  = "", metric = "", statistic = "", dimensions = {}
        comparison = "GreaterThanThreshold", threshold = 0, period_s = 300
        periods    = 3, datapoints = 3, missing = "missing"
        expression = "IF(alive / 5 > ${one.max_tasks - 0.5} AND behind > ${var.thresholds.shards_behind_ms}, 1, 0)"
        queries = {
          alive  = { metric = "ServiceAliveCount", statistic = "Sum", dimensions = merge(local.environment, { Service = one.service, Group = one.group }) }
          behind = { metric = "ShardsBehindMs", statistic = "Maximum", dimensions = merge(local.environment, { Service = one.service, Group = one.group }) }
        }
      }
    },
    {
      lake-behind = {
        runbook    = "lake-behind", severity = "critical", what = "What was read has waited long to enter the lake's tables."
        namespace  = "AVESA", metric = "LakeBehindSeconds", statistic = "Maximum", dimensions = local.environment
        comparison = "GreaterThanThreshold", threshold = var.thresholds.lake_behind_s, period_s = 60
        periods    = 5, datapoints = 5, missing = "missing", expression = "", queries = {}
      }
    },
    {
      for tier, promise in var.tiers : "endpoints-late-${tier}" => {
        runbook    = "endpoints-late", severity = tier == "premium" ? "critical" : "warning"
        what       = "What tenants of tier ${tier} were promised is not kept: an endpoint was read later than that."
        namespace  = "AVESA", metric = "EndpointsLateSeconds", statistic = "Maximum"
        dimensions = merge(local.environment, { Tier = tier })
        comparison = "GreaterThanThreshold", threshold = promise.late_max_s, period_s = 60
        periods    = 5, datapoints = 5, missing = "missing", expression = "", queries = {}
      }
    },
    {
      for kind, name in local.streams : "iterator-age-${kind}" => {
        runbook    = "iterator-age", severity = "critical", what = "Whoever reads stream ${name} slowest is far behind."
        namespace  = "AWS/Kinesis", metric = "GetRecords.IteratorAgeMilliseconds", statistic = "Maximum", dimensions = { StreamName = name }
        comparison = "GreaterThanThreshold", threshold = var.thresholds.iterator_age_ms, period_s = 60
        periods    = 10, datapoints = 10, missing = "missing", expression = "", queries = {}
      }
    },
    {
      for kind, name in local.streams : "write-throttled-${kind}" => {
        runbook    = "write-throttled", severity = "warning", what = "Stream ${name} refuses records because its shards take no more."
        namespace  = "AWS/Kinesis", metric = "WriteProvisionedThroughputExceeded", statistic = "Sum", dimensions = { StreamName = name }
        comparison = "GreaterThanThreshold", threshold = var.thresholds.write_throttles, period_s = 300
        periods    = 3, datapoints = 3, missing = "notBreaching", expression = "", queries = {}
      }
    },
    {
      # A day is the longest that an alarm may look back: CloudWatch API reference, PutMetricAlarm.
      for kind, name in local.streams : "cost-guard-${kind}" => {
        runbook    = "cost-guard", severity = "warning", what = "Stream ${name} took more bytes within a day than is paid for gladly."
        namespace  = "AWS/Kinesis", metric = "IncomingBytes", statistic = "Sum", dimensions = { StreamName = name }
        comparison = "GreaterThanThreshold", threshold = var.thresholds.kinesis_bytes_per_day, period_s = 86400
        periods    = 1, datapoints = 1, missing = "notBreaching", expression = "", queries = {}
      }
    },
    {
      for name in var.features.task_deaths ? ["task-deaths"] : [] : name => {
        runbook    = name, severity = "warning", what = "A task of a service died, or could not start."
        namespace  = "AWS/Events", metric = "TriggeredRules", statistic = "Sum", dimensions = { RuleName = local.task_deaths }
        comparison = "GreaterThanThreshold", threshold = 0, period_s = 300
        periods    = 1, datapoints = 1, missing = "notBreaching", expression = "", queries = {}
      }
    },
  )
}
