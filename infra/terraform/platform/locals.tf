# What follows from the variables: names (services/contracts/names.py is the source, and tests/infra compares) and fleets.

locals {
  suffix = var.environment == "prod" ? "" : "-${var.environment}"

  names = {
    cluster = "avesa-${var.environment}"
    bucket  = "data-storage-msp-${var.environment}"
    streams = { raw = "avesa-raw-${var.environment}", canonical = "avesa-canonical-${var.environment}" }
    tables = {
      tenant_services = "TenantServices${local.suffix}"
      last_updated    = "LastUpdated${local.suffix}"
      leases          = "Leases${local.suffix}"
      backfill_jobs   = "BackfillJobs${local.suffix}"
    }
  }

  # -- what there is to be shared, out of the mapping files themselves
  mappings           = "${path.module}/../../../mappings"
  own                = var.own_mappings == null ? { folder = null, integrations = {}, tables = [] } : var.own_mappings
  shipped            = { for file in fileset("${local.mappings}/integrations", "*.json") : trimsuffix(file, ".json") => jsondecode(file("${local.mappings}/integrations/${file}")) }
  vendors            = setunion(keys(local.shipped), keys(local.own.integrations))
  tables             = setunion([for file in fileset("${local.mappings}/canonical", "*.json") : trimsuffix(file, ".json")], local.own.tables)
  own_mappings_words = local.own.folder == null ? [] : ["--mappings", local.own.folder]

  # Vendors whose refresh token is stored again after use (services/extractor/refresh.py).
  token_storing = setunion(
    [for name, one in local.shipped : name if contains(flatten([one.auth])[*].type, "oauth2_refresh_token")],
    [for name, one in local.own.integrations : name if one.stores_tokens],
  )

  # -- the fleets, by what stands between `avesa-` and `-{environment}` in their names
  grouped_vendors = setunion([], [for one in values(var.extractor_groups) : one.services]...)
  grouped_tables  = setunion([], [for one in values(var.transformer_groups) : one.tables]...)

  # Null: every service there is, also one whose mapping file nobody listed here.
  other_vendors = length(local.grouped_vendors) == 0 ? null : setsubtract(local.vendors, local.grouped_vendors)

  extractors = merge(
    { for name in ["extractor"] : name => { group = "", vendors = local.other_vendors, own = {} } if local.other_vendors == null || length(coalesce(local.other_vendors, [])) > 0 },
    { for name, one in var.extractor_groups : "extractor-${name}" => { group = name, vendors = one.services, own = one } },
  )

  transformers = merge(
    { for name in ["transformer"] : name => { group = "", words = length(local.grouped_tables) == 0 ? [] : ["--except-tables", join(",", sort(local.grouped_tables))], fan_out = false, own = {} } if length(setsubtract(local.tables, local.grouped_tables)) > 0 },
    { for name, one in var.transformer_groups : "transformer-${name}" => { group = name, words = ["--group", name, "--tables", join(",", sort(one.tables))], fan_out = one.fan_out, own = one } },
  )

  # No fleet has more tasks than there is work to share: what extractors share is connected services, which nobody
  # knows here; transformers and compactors share shards.
  work = {
    extractor   = null
    transformer = var.streams.raw.shards
    compactor   = max(var.streams.raw.shards, var.streams.canonical.shards)
  }

  fleets = merge(
    { for name, one in local.extractors : name => {
      service      = "extractor"
      group        = one.group
      metric_group = one.vendors == null ? "extractor" : "extractor-${join("-", sort(one.vendors))}"
      command      = concat(["extractor"], one.vendors == null ? [] : ["--services", join(",", sort(one.vendors))], local.own_mappings_words)
      fan_out      = false
      own          = one.own
    } },
    { for name, one in local.transformers : name => {
      service      = "transformer"
      group        = one.group
      metric_group = name
      command      = concat(["transformer"], one.words, one.fan_out ? ["--fan-out"] : [], local.own_mappings_words)
      fan_out      = one.fan_out
      own          = one.own
    } },
    { compactor = { service = "compactor", group = "", metric_group = "compactor", command = concat(["compactor"], local.own_mappings_words), fan_out = false, own = {} } },
  )

  sizes = { for name, one in local.fleets : name => {
    for field, value in var.services[one.service] : field => try(coalesce(one.own[field], value), value)
  } }

  most = { for name, one in local.fleets : name => min(local.sizes[name].max, coalesce(local.work[one.service], local.sizes[name].max)) }

  settings = merge(var.settings, {
    BUCKET_NAME           = module.lake.bucket
    TENANT_SERVICES_TABLE = module.tables.names["tenant_services"]
    LAST_UPDATED_TABLE    = module.tables.names["last_updated"]
    AVESA_RETENTION_S     = tostring(var.streams.raw.retention_hours * 3600)
  })
}
