"""Every name the system gives: streams, tables, buckets, object keys. One module for code, Terraform and tests."""

import re
from typing import Final

import msgspec

from services.contracts.errors import UsageError
from services.contracts.partitions import Partition

TENANT_PATTERN: Final = re.compile(r"[a-z0-9]+([-_][a-z0-9]+)*")
SEQUENCE_DIGITS: Final = 129  # of a sequence number, at most: AWS API reference, PutRecordsResultEntry
JOBS_BY_STATUS: Final = "tenant-status-index"  # of the table of backfill jobs: key (`tenant_id`, `status`)
SYSTEM_PREFIX: Final = "_avesa"  # what is ours, not a tenant's: tenant ids cannot begin with an underscore


class Names(msgspec.Struct, frozen=True):
    """The names of one environment. In `prod` tables carry no suffix, elsewhere `-{env}` (DESIGN 6)."""

    environment: str
    bucket_name: str = ""
    tenant_services_table: str = ""
    last_updated_table: str = ""

    def _table(self, name: str) -> str:
        return name if self.environment == "prod" else f"{name}-{self.environment}"

    @property
    def raw_stream(self) -> str:
        return f"avesa-raw-{self.environment}"

    @property
    def canonical_stream(self) -> str:
        return f"avesa-canonical-{self.environment}"

    @property
    def bucket(self) -> str:
        return self.bucket_name or f"data-storage-msp-{self.environment}"

    @property
    def tenant_services(self) -> str:
        """Table: key (`tenant_id`, `service`)."""
        return self.tenant_services_table or self._table("TenantServices")

    @property
    def last_updated(self) -> str:
        """Table: key (`tenant_id`, `service_endpoint` = `{service}#{endpoint}`)."""
        return self.last_updated_table or self._table("LastUpdated")

    @property
    def leases(self) -> str:
        """Table: key (`scope`, `name`)."""
        return self._table("Leases")

    @property
    def backfill_jobs(self) -> str:
        """Table: key (`job_id`); index `JOBS_BY_STATUS`."""
        return self._table("BackfillJobs")

    def secret(self, tenant_id: str, service: str) -> str:
        """One secret per tenant and service."""
        return f"avesa/{self.environment}/{tenant_id}/{service.replace(':', '/')}"

    @property
    def secrets_key(self) -> str:
        """Alias of the key that encrypts them (infra/terraform/modules/encryption)."""
        return f"alias/avesa-secrets-{self.environment}"

    def database(self, tenant_id: str) -> str:
        """Glue database of a tenant; `-` becomes `__`, so that two tenants never share one."""
        return f"avesa_{self.environment}_{tenant_id.replace('-', '__')}"

    @property
    def views_database(self) -> str:
        """Where the views of `avesa views` go, over all tenants; never a tenant's database."""
        return f"avesa_{self.environment}"

    def tables_location(self, tenant_id: str, table: str) -> str:
        return f"s3://{self.bucket}/{tenant_id}/tables/{table}"

    def timeline_location(self, tenant_id: str, table: str) -> str:
        return f"s3://{self.bucket}/{tenant_id}/timeline/{table}"


def timeline_table(table: str) -> str:
    """The name of the table that holds what a version no longer shows."""
    return f"{table}_timeline"


def checked_tenant(tenant_id: str) -> str:
    """`tenant_id`, if it is one."""
    if not TENANT_PATTERN.fullmatch(tenant_id) or len(tenant_id) > 64:
        raise UsageError(
            f"{tenant_id!r} is not a tenant id",
            remedy="Use small letters and digits, parted by single '-' or '_' (such as acme-msp).",
        )
    return tenant_id


def _folder(service: str) -> str:
    return service.replace(":", "__")


def raw_folder(tenant_id: str, service: str, endpoint: str) -> str:
    return f"{tenant_id}/raw/{_folder(service)}/{endpoint}"


def canonical_folder(tenant_id: str, table: str) -> str:
    return f"{tenant_id}/canonical/{table}"


def hour_key(folder: str, hour: str) -> str:
    """The one file of a complete hour. `hour` is `2026-01-31T09`."""
    return f"{folder}/{hour}.parquet"


def part_key(folder: str, hour: str, shard: str, cut: int) -> str:
    """One cut's part of an hour that is not complete yet."""
    return f"{folder}/{hour}/{shard}-{cut:012d}.parquet"


def dead_letter_key(tenant_id: str, stage: str, group: str, position: str) -> str:
    """Named by position, so that it is written once however often it is met."""
    return f"{tenant_id}/dead-letter/{stage}/{group}/{position}.json"


def mapping_key(tenant_id: str, table: str, service: str, version: int) -> str:
    """The immutable copy of a pinned mapping."""
    return f"{tenant_id}/mappings/{table}/{_folder(service)}/{version:06d}.json"


def state_key(scope: str, name: str, epoch: int, number: int) -> str:
    """One segment of a snapshot; the epoch keeps two owners from ever writing the same name."""
    return f"{SYSTEM_PREFIX}/state/{_safe(scope)}/{_safe(name)}/{epoch:08d}-{number:08d}.seg"


def spool_key(scope: str, shard: str, epoch: int, number: int) -> str:
    return f"{SYSTEM_PREFIX}/spool/{_safe(scope)}/{_safe(shard)}/{epoch:08d}-{number:08d}.spool"


def cut_key(scope: str, shard: str, cut: int) -> str:
    """The list of what one cut wrote."""
    return f"{SYSTEM_PREFIX}/cuts/{_safe(scope)}/{_safe(shard)}/{cut:012d}.json"


def oversize_key(tenant_id: str, digest: str) -> str:
    """A body too large for a stream."""
    return f"{tenant_id}/oversize/{digest}.ndjson.zst"


def parked_scope(group: str) -> str:
    """Lease-table scope of a consumer group's parked partitions; a row is named by its partition's text."""
    return f"parked/{group}"


def parked_root(tenant_id: str) -> str:
    """What waits of all parked partitions of a tenant."""
    return f"{tenant_id}/parked"


def parked_folder(group: str, partition: Partition) -> str:
    """What waits of one partition for one consumer group."""
    owner = f"{partition.service}/{partition.group}/{partition.bucket}"
    return f"{parked_root(partition.tenant_id)}/{group}/{owner}"


def parked_key(group: str, partition: Partition, shard: str, sequence: str) -> str:
    """One envelope of a parked partition, as it arrived. Keys sort as the envelopes arrived: the shards that a
    partition travels through are numbered upwards, and sequence numbers are padded to one width."""
    return f"{parked_folder(group, partition)}/{shard}-{sequence:0>{SEQUENCE_DIGITS}}"


def parked_place(key: str) -> tuple[str, Partition]:
    """Group and partition of a parked envelope's key."""
    tenant_id, _, group, service, family, bucket, _ = key.split("/")
    return group, Partition(tenant_id, service, family, int(bucket))


def _safe(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._/-]", "_", text)
