"""What an environment needs in AWS, created on an emulator and only there: in an account Terraform does it.

The two agree: tests/infra/test_agreement.py compares what each of them created.
"""

import asyncio
from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

from services.contracts.errors import ConflictError, FatalError, NotFoundError, RetryableError
from services.contracts.names import JOBS_BY_STATUS, Names
from services.contracts.ports import Clock
from services.runtime.aws import open_clients
from services.runtime.aws_client import Client
from services.runtime.clock import SystemClock
from services.runtime.settings import Settings

RETENTION_HOURS: Final = 7 * 24
POLL_S: Final = 0.2
KEY_TYPES: Final = ("HASH", "RANGE")
SERVICES: Final = ("kinesis", "dynamodb", "s3")

Key = tuple[str, ...]  # names of attributes: partition, and sort where there is one


def table_keys(names: Names) -> dict[str, Key]:
    """The tables and their keys, as the docstrings of `contracts/names.py` give them; every attribute is a string."""
    return {
        names.tenant_services: ("tenant_id", "service"),
        names.last_updated: ("tenant_id", "service_endpoint"),
        names.leases: ("scope", "name"),
        names.backfill_jobs: ("job_id",),
    }


def table_indexes(names: Names) -> dict[str, dict[str, Key]]:
    """The global secondary indexes of the tables that have some, and their keys; each shows the whole row."""
    return {names.backfill_jobs: {JOBS_BY_STATUS: ("tenant_id", "status")}}


async def ensure(settings: Settings, *, shards: int = 2, wait_s: float = 60.0, clock: Clock | None = None) -> None:
    """Create what is missing and wait, at most `wait_s`, until it can be used. What is there stays as it is.

    Errors: FatalError when the endpoint is not an emulator; RetryableError `timeout`.
    """
    if not settings.emulator:
        raise FatalError(
            f"{settings.endpoint_url or 'real AWS'} is not an emulator, so nothing is created there",
            code="usage",
            remedy="Create the environment with Terraform (infra/terraform), or use the embedded AWS.",
        )
    clock = clock or SystemClock()
    deadline = clock.monotonic() + wait_s
    names = settings.names
    async with open_clients(settings, *SERVICES) as clients:
        await asyncio.gather(
            *(_ensure_stream(clients["kinesis"], name, shards, clock, deadline) for name in _streams(names)),
            *(
                _ensure_table(
                    clients["dynamodb"], name, _schema(key, table_indexes(names).get(name, {})), clock, deadline
                )
                for name, key in table_keys(names).items()
            ),
            _ensure_bucket(clients["s3"], names.bucket, settings.region),
        )


async def missing(settings: Settings) -> list[str]:
    """What of the environment is not there, one readable line each; empty when all is."""
    names = settings.names
    async with open_clients(settings, *SERVICES) as clients:
        streams, tables, bucket = await asyncio.gather(
            asyncio.gather(*(_stream(clients["kinesis"], name) for name in _streams(names))),
            asyncio.gather(*(_table(clients["dynamodb"], name) for name in table_keys(names))),
            _bucket(clients["s3"], names.bucket),
        )
    lines = [f"stream {name}" for name, found in zip(_streams(names), streams, strict=True) if found is None]
    for name, table in zip(table_keys(names), tables, strict=True):
        if table is None:
            lines.append(f"table {name}")
            continue
        held = {index["IndexName"] for index in table.get("GlobalSecondaryIndexes", ())}
        lines += [f"index {index} of table {name}" for index in table_indexes(names).get(name, {}) if index not in held]
    return lines if bucket is not None else [*lines, f"bucket {names.bucket}"]


def _streams(names: Names) -> tuple[str, str]:
    return names.raw_stream, names.canonical_stream


async def _found(client: Client, operation: str, subject: str, **arguments: Any) -> dict[str, Any] | None:
    try:
        return await client.call(operation, subject, **arguments)
    except NotFoundError:
        return None


async def _stream(client: Client, name: str) -> dict[str, Any] | None:
    answer = await _found(client, "describe_stream_summary", f"stream {name}", StreamName=name)
    return answer and dict(answer["StreamDescriptionSummary"])


async def _table(client: Client, name: str) -> dict[str, Any] | None:
    answer = await _found(client, "describe_table", f"table {name}", TableName=name)
    return answer and dict(answer["Table"])


async def _bucket(client: Client, name: str) -> dict[str, Any] | None:
    return await _found(client, "head_bucket", f"bucket {name}", Bucket=name)


async def _create(client: Client, operation: str, subject: str, **arguments: Any) -> None:
    try:
        await client.call(operation, subject, **arguments)
    except (ConflictError, RetryableError) as err:
        if err.code == "aws_unreachable":
            raise
        # Somebody else creates it, or it is busy: whoever called looks again.


async def _ensure_stream(client: Client, name: str, shards: int, clock: Clock, deadline: float) -> None:
    while (found := await _stream(client, name)) is None or found["StreamStatus"] not in ("ACTIVE", "UPDATING"):
        if found is None:
            await _create(client, "create_stream", f"stream {name}", StreamName=name, ShardCount=shards)
        else:
            await _pause(f"stream {name}", clock, deadline)
    if found["RetentionPeriodHours"] < RETENTION_HOURS:
        await _create(
            client, "increase_stream_retention_period", f"stream {name}",
            StreamName=name, RetentionPeriodHours=RETENTION_HOURS,
        )  # fmt: skip


def _schema(key: Key, indexes: Mapping[str, Key]) -> dict[str, Any]:
    """The arguments of CreateTable. An empty list of indexes would be refused."""
    attributes = sorted({*key, *chain(*indexes.values())})
    schema: dict[str, Any] = {
        "AttributeDefinitions": [{"AttributeName": attribute, "AttributeType": "S"} for attribute in attributes],
        "KeySchema": _key_schema(key),
        "BillingMode": "PAY_PER_REQUEST",
    }
    if indexes:
        schema["GlobalSecondaryIndexes"] = [
            {"IndexName": index, "KeySchema": _key_schema(by), "Projection": {"ProjectionType": "ALL"}}
            for index, by in indexes.items()
        ]
    return schema


def _key_schema(key: Key) -> list[dict[str, str]]:
    return [{"AttributeName": attribute, "KeyType": kind} for attribute, kind in zip(key, KEY_TYPES, strict=False)]


async def _ensure_table(client: Client, name: str, schema: Mapping[str, Any], clock: Clock, deadline: float) -> None:
    while (found := await _table(client, name)) is None or found["TableStatus"] not in ("ACTIVE", "UPDATING"):
        if found is None:
            await _create(client, "create_table", f"table {name}", TableName=name, **schema)
        else:
            await _pause(f"table {name}", clock, deadline)


async def _ensure_bucket(client: Client, name: str, region: str) -> None:
    if await _bucket(client, name) is None:
        # us-east-1 is the one region that must not be named: AWS API reference, CreateBucket.
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        await _create(client, "create_bucket", f"bucket {name}", Bucket=name, **where)


async def _pause(what: str, clock: Clock, deadline: float) -> None:
    if clock.monotonic() >= deadline:
        raise RetryableError(f"{what} is still not active", code="timeout")
    await clock.sleep(POLL_S)
