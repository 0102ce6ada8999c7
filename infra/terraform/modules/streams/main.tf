# A stream holds what the next stage has not read yet: for `retention_hours` it is the only copy. Nothing in Kinesis
# protects a stream from deletion, so the apply role may not delete one (modules/ci-oidc), and the raw archive in the
# lake replays what was archived.
resource "aws_kinesis_stream" "this" {
  for_each = var.streams

  name                = "avesa-${each.key}-${var.environment}"
  retention_period    = each.value.retention_hours
  shard_count         = each.value.mode == "PROVISIONED" ? each.value.shards : null
  shard_level_metrics = each.value.shard_level_metrics

  # Literal: scanners do not follow expressions (checkov CKV_AWS_43).
  encryption_type = "KMS"
  kms_key_id      = var.kms_key_arn

  # Consumers with enhanced fan-out register themselves at run time (AVESA_FAN_OUT); they must not block a teardown.
  enforce_consumer_deletion = true

  stream_mode_details {
    stream_mode = each.value.mode
  }

  # What has to be made anew is made first, and its name is taken: such a change fails, and nothing is lost.
  lifecycle {
    create_before_destroy = true
  }
}
