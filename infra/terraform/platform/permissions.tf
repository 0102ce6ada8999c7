# Everything the services may do in AWS, and why. One list per service; each statement has one reason, and its sid says it.
# What they call is written in services/runtime/{kinesis,rows,objects,secrets}.py and, for the lake, in
# services/compactor/iceberg.py; tests/infra compares this with the calls that an emulator recorded.
#
# Names are put together here, not taken from resources, so that a plan shows every policy but for the ids of the keys.
# A statement is {sid, actions, resources, conditions}; conditions are names of local.conditions.

locals {
  of_account = "${var.region}:${var.account_id}"

  arn = {
    streams = { for key, name in local.names.streams : key => "arn:${var.partition}:kinesis:${local.of_account}:stream/${name}" }
    tables  = { for key, name in local.names.tables : key => "arn:${var.partition}:dynamodb:${local.of_account}:table/${name}" }
    bucket  = "arn:${var.partition}:s3:::${local.names.bucket}"
    objects = "arn:${var.partition}:s3:::${local.names.bucket}"
    secrets = "arn:${var.partition}:secretsmanager:${local.of_account}:secret:avesa/${var.environment}"
    glue    = "arn:${var.partition}:glue:${local.of_account}"
  }

  # Rows of the lease table by their scopes, its partition key: services/runtime/{leases,shards,gaps}.py,
  # services/extractor/{unit,refresh}.py, services/transformer/{groups,parking}.py, services/compactor/{merging,healing}.py.
  scopes = merge(
    {
      look           = ["-"] # no tenant's: services/cli/world.py asks for this row to see whether the environment is there
      extract        = ["extract", "token"]
      gaps           = ["gaps"]
      compact        = ["compactor/*", "gaps", "heal", "healed", "merge"]
      former_streams = ["transformer/*", "transformer-*/*"]
      heal           = ["gaps", "heal"]
    },
    { for name in keys(local.transformers) : name => ["${name}/${local.names.streams.raw}/*", "gaps", "groups", "parked/${name}"] },
  )

  # What a role may list, as prefixes of keys.
  prefixes = merge(
    {
      extract = ["_avesa/state/memory/*", "*/dead-letter/extract/*", "*/oversize/*"]
      compact = [
        "_avesa/cuts/*", "_avesa/spool/*", "*/canonical/*", "*/dead-letter/compact/*", "*/dead-letter/merge/*",
        "*/mappings/*", "*/oversize/*", "*/raw/*", "*/tables/*", "*/timeline/*",
      ]
    },
    { for name in keys(local.transformers) : name => [
      "_avesa/state/${name}/*", "*/dead-letter/transform/*", "*/mappings/*", "*/oversize/*", "*/parked/${name}/*",
    ] },
  )

  conditions = merge(
    { none = [] },

    # A key may only be used through the service whose data it encrypts.
    { for service in ["dynamodb", "kinesis", "s3", "secretsmanager"] : "via_${service}" => [
      { test = "StringEquals", key = "kms:ViaService", values = ["${service}.${var.region}.amazonaws.com"] },
    ] },

    # The second test because the first holds where the request names no row at all.
    { for name, scopes in local.scopes : "rows_${name}" => [
      { test = "ForAllValues:StringLike", key = "dynamodb:LeadingKeys", values = scopes },
      { test = "Null", key = "dynamodb:LeadingKeys", values = ["false"] },
    ] },

    # Who may not list is told 403 of an object that is missing, and takes it for a mistake in its rights instead of for
    # lost state. A GetObject carries no prefix, hence IfExists (S3 API reference, GetObject).
    { for name, prefixes in local.prefixes : "keys_${name}" => [
      { test = "StringLikeIfExists", key = "s3:prefix", values = prefixes },
    ] },
  )

  statements = merge(
    { for name, one in local.extractors : name => concat(local.extractor_statements, local.secret_statements[name]) },
    local.transformer_statements,
    { compactor = local.compactor_statements },
  )

  permissions = { for name, statements in local.statements : name => [for one in statements : {
    sid        = one.sid
    effect     = one.sid == "LeaveInstancesOfOthers" ? "Deny" : "Allow"
    actions    = one.actions
    resources  = one.resources
    conditions = local.conditions[one.when]
  }] }
}

# -- extractor --------------------------------------------------------------------------------------------------------
locals {
  extractor_statements = [
    {
      sid       = "PublishRawEvents"
      actions   = ["kinesis:DescribeStreamSummary", "kinesis:ListShards", "kinesis:PutRecords"]
      resources = [local.arn.streams.raw]
      when      = "none"
    },
    {
      sid       = "EncryptRawEvents"
      actions   = ["kms:GenerateDataKey"]
      resources = [module.encryption.key_arns["data"]]
      when      = "via_kinesis"
    },
    {
      sid       = "SeeEnvironment"
      actions   = ["dynamodb:GetItem"]
      resources = [local.arn.tables.tenant_services]
      when      = "rows_look"
    },
    {
      sid       = "FindConnectedServices"
      actions   = ["dynamodb:Query", "dynamodb:Scan"]
      resources = [local.arn.tables.tenant_services]
      when      = "none"
    },
    {
      # "reconnect needed", and rows of a partner's customers (services/extractor/{tenants,partners}.py).
      sid       = "TellStateOfServices"
      actions   = ["dynamodb:UpdateItem"]
      resources = [local.arn.tables.tenant_services]
      when      = "none"
    },
    {
      sid       = "KeepMarksOfEndpoints"
      actions   = ["dynamodb:GetItem", "dynamodb:UpdateItem"]
      resources = [local.arn.tables.last_updated]
      when      = "none"
    },
    {
      sid       = "HoldLeasesOnServices"
      actions   = ["dynamodb:GetItem", "dynamodb:Query", "dynamodb:UpdateItem"]
      resources = [local.arn.tables.leases]
      when      = "rows_extract"
    },
    {
      sid       = "SeeGaps"
      actions   = ["dynamodb:Query"]
      resources = [local.arn.tables.leases]
      when      = "rows_gaps"
    },
    {
      sid       = "DecryptTables"
      actions   = ["kms:Decrypt"]
      resources = [module.encryption.key_arns["data"]]
      when      = "via_dynamodb"
    },
    {
      sid       = "KeepMemoryOfEndpoints"
      actions   = ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
      resources = ["${local.arn.objects}/_avesa/state/memory/*"]
      when      = "none"
    },
    {
      # Written once: where there is an object already, it is read and compared (services/runtime/objects.py).
      sid       = "WriteLettersAndLargeBodies"
      actions   = ["s3:GetObject", "s3:PutObject"]
      resources = ["${local.arn.objects}/*/dead-letter/extract/*", "${local.arn.objects}/*/oversize/*"]
      when      = "none"
    },
    {
      sid       = "TellMissingFromForbidden"
      actions   = ["s3:ListBucket"]
      resources = [local.arn.bucket]
      when      = "keys_extract"
    },
    {
      sid       = "EncryptAndDecryptObjects"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [module.encryption.key_arns["data"]]
      when      = "via_s3"
    },
  ]

  # ARNs of secrets end in six characters of AWS. What an extractor may read of each vendor is the tenant's secret and
  # those of the tenant's instances of it: avesa/{env}/{tenant}/{vendor} and .../{vendor}/{instance}.
  secret_arns = { for vendor in local.vendors : vendor => {
    tenants   = "${local.arn.secrets}/*/${vendor}-??????"
    instances = "${local.arn.secrets}/*/${vendor}/*"
  } }

  secret_statements = { for name, one in local.extractors : name => concat(
    [
      {
        sid       = "ReadCredentials"
        actions   = ["secretsmanager:GetSecretValue"]
        resources = one.vendors == null ? ["${local.arn.secrets}/*"] : flatten([for vendor in sort(one.vendors) : values(local.secret_arns[vendor])])
        when      = "none"
      },
      {
        sid       = "DecryptCredentials"
        actions   = ["kms:Decrypt"]
        resources = [module.encryption.key_arns["secrets"]]
        when      = "via_secretsmanager"
      },
    ],

    # `*` goes over slashes: without this an instance that somebody called after a vendor, such as
    # {tenant}/connectwise/zendesk, would be readable by the fleet of zendesk.
    one.vendors == null ? [] : [for others in [setsubtract(local.vendors, one.vendors)] : {
      sid       = "LeaveInstancesOfOthers"
      actions   = ["secretsmanager:GetSecretValue", "secretsmanager:PutSecretValue"]
      resources = [for vendor in sort(others) : local.secret_arns[vendor].instances]
      when      = "none"
    } if length(others) > 0],

    # Refresh tokens that a vendor replaces at each use. Never CreateSecret or RestoreSecret: what a person has removed,
    # no extractor brings back.
    [for storing in [setintersection(local.token_storing, one.vendors == null ? local.vendors : one.vendors)] : {
      sid       = "StoreRefreshTokens"
      actions   = ["secretsmanager:PutSecretValue"]
      resources = flatten([for vendor in sort(storing) : values(local.secret_arns[vendor])])
      when      = "none"
    } if length(storing) > 0],
    [for storing in [setintersection(local.token_storing, one.vendors == null ? local.vendors : one.vendors)] : {
      sid       = "EncryptRefreshTokens"
      actions   = ["kms:GenerateDataKey"]
      resources = [module.encryption.key_arns["secrets"]]
      when      = "via_secretsmanager"
    } if length(storing) > 0],
  ) }
}

# -- transformer ------------------------------------------------------------------------------------------------------
locals {
  transformer_statements = { for name, one in local.transformers : name => concat(
    one.fan_out ? [
      {
        sid       = "FindRawShards"
        actions   = ["kinesis:DescribeStreamSummary", "kinesis:ListShards"]
        resources = [local.arn.streams.raw]
        when      = "none"
      },
      {
        # The consumer is Terraform's (main.tf), so that it ends with its fleet: nothing is registered from here.
        sid       = "ReadRawEventsPushed"
        actions   = ["kinesis:DescribeStreamConsumer", "kinesis:SubscribeToShard"]
        resources = [local.arn.streams.raw, "${local.arn.streams.raw}/consumer/avesa-${name}:*"]
        when      = "none"
      },
      ] : [
      {
        sid       = "ReadRawEvents"
        actions   = ["kinesis:DescribeStreamSummary", "kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards"]
        resources = [local.arn.streams.raw]
        when      = "none"
      },
    ],
    [
      {
        sid       = "PublishCanonicalEvents"
        actions   = ["kinesis:DescribeStreamSummary", "kinesis:ListShards", "kinesis:PutRecords"]
        resources = [local.arn.streams.canonical]
        when      = "none"
      },
      {
        sid       = "EncryptAndDecryptEvents"
        actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
        resources = [module.encryption.key_arns["data"]]
        when      = "via_kinesis"
      },
      {
        sid       = "SeeEnvironment"
        actions   = ["dynamodb:GetItem"]
        resources = [local.arn.tables.tenant_services]
        when      = "rows_look"
      },
      {
        sid       = "HoldLeasesAndParkPartitions"
        actions   = ["dynamodb:GetItem", "dynamodb:Query", "dynamodb:UpdateItem"]
        resources = [local.arn.tables.leases]
        when      = "rows_${name}"
      },
      {
        sid       = "DecryptTables"
        actions   = ["kms:Decrypt"]
        resources = [module.encryption.key_arns["data"]]
        when      = "via_dynamodb"
      },
      {
        sid       = "KeepTimelines"
        actions   = ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
        resources = ["${local.arn.objects}/_avesa/state/${name}/*"]
        when      = "none"
      },
      {
        # Written once and never again, but for oversize bodies also read: those of raw events.
        sid     = "PinMappingsParkAndWriteLetters"
        actions = ["s3:GetObject", "s3:PutObject"]
        resources = [
          "${local.arn.objects}/*/dead-letter/transform/*", "${local.arn.objects}/*/mappings/*",
          "${local.arn.objects}/*/oversize/*", "${local.arn.objects}/*/parked/${name}/*",
        ]
        when = "none"
      },
      {
        sid       = "ListMappingsAndTellMissingFromForbidden"
        actions   = ["s3:ListBucket"]
        resources = [local.arn.bucket]
        when      = "keys_${name}"
      },
      {
        sid       = "EncryptAndDecryptObjects"
        actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
        resources = [module.encryption.key_arns["data"]]
        when      = "via_s3"
      },
    ],
  ) }
}

# -- compactor --------------------------------------------------------------------------------------------------------
locals {
  compactor_statements = [
    {
      sid       = "ReadBothStreams"
      actions   = ["kinesis:DescribeStreamSummary", "kinesis:GetRecords", "kinesis:GetShardIterator", "kinesis:ListShards"]
      resources = [local.arn.streams.raw, local.arn.streams.canonical]
      when      = "none"
    },
    {
      # What a stream dropped before it was read comes again out of the raw archive (services/compactor/healing.py).
      sid       = "PublishArchivedEventsAgain"
      actions   = ["kinesis:PutRecords"]
      resources = [local.arn.streams.raw]
      when      = "none"
    },
    {
      sid       = "EncryptAndDecryptEvents"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [module.encryption.key_arns["data"]]
      when      = "via_kinesis"
    },
    {
      sid       = "SeeEnvironment"
      actions   = ["dynamodb:GetItem"]
      resources = [local.arn.tables.tenant_services]
      when      = "rows_look"
    },
    {
      sid       = "HoldLeasesAndHealGaps"
      actions   = ["dynamodb:GetItem", "dynamodb:Query", "dynamodb:UpdateItem"]
      resources = [local.arn.tables.leases]
      when      = "rows_compact"
    },
    {
      # A stream that was made anew leaves positions behind, of every group: what they missed becomes a gap.
      sid       = "FindPositionsOfFormerStreams"
      actions   = ["dynamodb:Scan"]
      resources = [local.arn.tables.leases]
      when      = "none"
    },
    {
      sid       = "MarkPositionsOfFormerStreams"
      actions   = ["dynamodb:UpdateItem"]
      resources = [local.arn.tables.leases]
      when      = "rows_former_streams"
    },
    {
      sid       = "CloseGaps"
      actions   = ["dynamodb:DeleteItem"]
      resources = [local.arn.tables.leases]
      when      = "rows_heal"
    },
    {
      # What neither stream nor archive holds, the vendors do: their endpoints are asked to be read again.
      sid       = "FindServicesToBeReadAgain"
      actions   = ["dynamodb:Scan"]
      resources = [local.arn.tables.tenant_services, local.arn.tables.last_updated]
      when      = "none"
    },
    {
      sid       = "AskEndpointsToBeReadAgain"
      actions   = ["dynamodb:UpdateItem"]
      resources = [local.arn.tables.last_updated]
      when      = "none"
    },
    {
      sid       = "DecryptTables"
      actions   = ["kms:Decrypt"]
      resources = [module.encryption.key_arns["data"]]
      when      = "via_dynamodb"
    },
    {
      # Parts of an hour become one file and go; spool and cuts go when they are merged; snapshots of tables expire.
      sid     = "WriteTheLake"
      actions = ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
      resources = [for prefix in ["_avesa/cuts", "_avesa/spool", "*/canonical", "*/raw", "*/tables", "*/timeline"] :
        "${local.arn.objects}/${prefix}/*"
      ]
      when = "none"
    },
    {
      # Arrow writes files of more than 5 MiB in parts.
      sid       = "AbortUploadsOfTables"
      actions   = ["s3:AbortMultipartUpload"]
      resources = ["${local.arn.objects}/*/tables/*", "${local.arn.objects}/*/timeline/*"]
      when      = "none"
    },
    {
      sid       = "ReadMappings"
      actions   = ["s3:GetObject"]
      resources = ["${local.arn.objects}/*/mappings/*"]
      when      = "none"
    },
    {
      sid     = "WriteLettersAndLargeBodies"
      actions = ["s3:GetObject", "s3:PutObject"]
      resources = [
        "${local.arn.objects}/*/dead-letter/compact/*", "${local.arn.objects}/*/dead-letter/merge/*",
        "${local.arn.objects}/*/oversize/*",
      ]
      when = "none"
    },
    {
      sid       = "ListTheLake"
      actions   = ["s3:ListBucket"]
      resources = [local.arn.bucket]
      when      = "keys_compact"
    },
    {
      sid       = "EncryptAndDecryptObjects"
      actions   = ["kms:Decrypt", "kms:GenerateDataKey"]
      resources = [module.encryption.key_arns["data"]]
      when      = "via_s3"
    },
    {
      # Databases of tenants only: avesa_{env}, that of the views, is nobody's but `avesa views`.
      sid     = "CommitTables"
      actions = ["glue:CreateDatabase", "glue:CreateTable", "glue:GetDatabase", "glue:GetTable", "glue:UpdateTable"]
      resources = [
        "${local.arn.glue}:catalog",
        "${local.arn.glue}:database/avesa_${var.environment}_*",
        "${local.arn.glue}:table/avesa_${var.environment}_*/*",
      ]
      when = "none"
    },
  ]
}
