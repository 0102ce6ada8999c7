# The dashboard AVESA-DataPipeline-{ENV}: by stage, by table, by tenant. In the monitoring account there is a second
# one, of the environment in the other account, whose metrics and logs come over the OAM link (`accountId`).
#
# A section is a line of text and its panels, three in a row of 24 columns.

locals {
  columns = 3
  height  = 6

  views = merge(
    { (var.environment) = { account_id = "", alarms = true, services = { for name, one in var.services : name => { service = one.service, group = one.group, log_group_name = one.log_group_name } } } },
    var.source_account_id == "" ? {} : { (var.source_environment) = { account_id = var.source_account_id, alarms = false, services = var.source_services } },
  )

  sections = {
    for environment, view in local.views : environment => [
      {
        title = "Extractor: what is read from vendors"
        panels = [
          { title = "Changes published", stat = "Sum", metrics = [["AVESA", "EventsPublishedCount", "Environment", environment]] },
          { title = "Later than promised (s), by tier", stat = "Maximum", metrics = [for tier in sort(keys(var.tiers)) : ["AVESA", "EndpointsLateSeconds", "Environment", environment, "Tier", tier]] },
          {
            title = "Failures, refusals, waits", stat = "Sum"
            metrics = [
              for name in ["EndpointFailedCount", "CredentialsRefusedCount", "VendorThrottledCount", "SweepSuspiciousCount"] :
              ["AVESA", name, "Environment", environment]
            ]
          },
        ]
      },
      {
        title = "Streams"
        panels = [
          { title = "Bytes in", stat = "Sum", metrics = [for kind in ["raw", "canonical"] : ["AWS/Kinesis", "IncomingBytes", "StreamName", "avesa-${kind}-${environment}"]] },
          { title = "Age of what is read (ms)", stat = "Maximum", metrics = [for kind in ["raw", "canonical"] : ["AWS/Kinesis", "GetRecords.IteratorAgeMilliseconds", "StreamName", "avesa-${kind}-${environment}"]] },
          {
            title = "Refused", stat = "Sum"
            metrics = concat(
              [for kind in ["raw", "canonical"] : ["AWS/Kinesis", "WriteProvisionedThroughputExceeded", "StreamName", "avesa-${kind}-${environment}"]],
              [["AVESA", "PutsRefusedCount", "Environment", environment]],
            )
          },
        ]
      },
      {
        title = "Transformer and compactor"
        panels = [
          { title = "Behind the streams (ms), by group", stat = "Maximum", metrics = [for one in view.services : ["AVESA", "ShardsBehindMs", "Environment", environment, "Service", one.service, "Group", one.group] if one.service != "extractor"] },
          { title = "Changes transformed and cut", stat = "Sum", metrics = [for name in ["EventsTransformedCount", "CutCommittedRows", "EventsReadAgainCount"] : ["AVESA", name, "Environment", environment]] },
          { title = "Lake behind (s)", stat = "Maximum", metrics = [["AVESA", "LakeBehindSeconds", "Environment", environment]] },
          {
            title = "Set aside", stat = "Sum"
            metrics = [
              for name in ["RecordsRejectedCount", "PartitionParkedCount", "EnvelopesHeldCount", "PoisonSuspectedCount", "PoisonIsolatedCount"] :
              ["AVESA", name, "Environment", environment]
            ]
          },
          {
            title = "Never to be seen", stat = "Sum"
            metrics = [
              for name in ["MemoryLostCount", "PositionExpiredCount", "LeaseRestoredCount", "GapHealedCount"] :
              ["AVESA", name, "Environment", environment]
            ]
          },
          { title = "Processes alive, by group", stat = "Sum", period = 60, metrics = [for one in view.services : ["AVESA", "ServiceAliveCount", "Environment", environment, "Service", one.service, "Group", one.group]] },
        ]
      },
      {
        title = "By table"
        panels = [
          { title = "Observations merged", stat = "Sum", metrics = [[{ id = "tables", label = "", expression = "SEARCH('{AVESA,Environment,Table} MetricName=\"TableMergedObservations\" Environment=\"${environment}\"', 'Sum', 300)" }]] },
          { title = "Rows written", stat = "Sum", metrics = [[{ id = "tables", label = "", expression = "SEARCH('{AVESA,Environment,Table} MetricName=\"TableMergedRowsWritten\" Environment=\"${environment}\"', 'Sum', 300)" }]] },
          { title = "Fields vanished, tables rebuilt", stat = "Sum", metrics = [for name in ["FieldsVanishedCount", "TableRebuiltCount"] : ["AVESA", name, "Environment", environment]] },
        ]
      },
      {
        title  = "By tenant"
        panels = [for key in sort(keys(local.queries)) : { title = local.queries[key].title, query = local.queries[key].query } if local.queries[key].panel]
      },
    ]
  }

  # How many rows of the grid stand above each section: a title is one high.
  tops = {
    for environment, sections in local.sections : environment => [
      for at in range(length(sections)) :
      sum(concat([local.views[environment].alarms ? local.height : 0], [for above in slice(sections, 0, at) : 1 + local.height * ceil(length(above.panels) / local.columns)]))
    ]
  }

  # Each panel with its place and what all kinds of panels say.
  placed = {
    for environment, sections in local.sections : environment => flatten([
      for at, section in sections : [
        for number, panel in section.panels : {
          shows = panel
          place = {
            x      = number % local.columns * 24 / local.columns
            y      = local.tops[environment][at] + 1 + floor(number / local.columns) * local.height
            width  = 24 / local.columns
            height = local.height
          }
          properties = merge(
            { title = panel.title, region = var.region },
            { for key, value in { accountId = local.views[environment].account_id } : key => value if value != "" },
          )
        }
      ]
    ])
  }

  sources = { for environment, view in local.views : environment => sort(distinct([for one in view.services : one.log_group_name])) }

  widgets = {
    for environment, sections in local.sections : environment => concat(
      [
        for view in [local.views[environment]] : {
          type = "alarm", x = 0, y = 0, width = 24, height = local.height
          properties = {
            title  = "Alarms"
            alarms = [for name in sort(keys(local.alarms)) : "${local.alarm_arns}:avesa-${environment}-${name}"]
          }
        } if view.alarms
      ],
      [
        for at, section in sections : {
          type       = "text", x = 0, y = local.tops[environment][at], width = 24, height = 1
          properties = { markdown = "## ${section.title}" }
        }
      ],
      [
        for panel in local.placed[environment] : merge(panel.place, {
          type = "metric"
          properties = merge(panel.properties, {
            view    = "timeSeries"
            stat    = panel.shows.stat
            period  = try(panel.shows.period, 300)
            metrics = panel.shows.metrics
          })
        }) if can(panel.shows.metrics)
      ],
      [
        for panel in local.placed[environment] : merge(panel.place, {
          type = "log"
          properties = merge(panel.properties, {
            view  = "table"
            query = join(" | ", concat([for name in local.sources[environment] : "SOURCE '${name}'"], [panel.shows.query]))
          })
        }) if can(panel.shows.query)
      ],
    )
  }
}

resource "aws_cloudwatch_dashboard" "pipeline" {
  for_each = local.views

  dashboard_name = "AVESA-DataPipeline-${upper(each.key)}"
  dashboard_body = jsonencode({ periodOverride = "inherit", start = "-PT6H", widgets = local.widgets[each.key] })
}
