"""What an environment needs in AWS, created on an emulator and only there: in an account Terraform does it."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from services.contracts.errors import ConflictError, FatalError, NotFoundError, RetryableError
from services.contracts.names import Names
from services.contracts.ports import Clock
from services.runtime.aws import open_clients
from services.runtime.aws_client import Client
from services.runtime.clock import SystemClock
from services.runtime.settings import Settings

RETENTION_HOURS: Final = 7 * 24
POLL_S: Final = 0.2
SERVICES: Final = ("kinesis", "dynamodb", "s3")


def table_keys(names: Names) -> dict[str, tuple[str, str]]:
    """The tables and their keys (partition, sort), as the docstrings of `contracts/names.py` give them."""
    return {
        names.tenant_services: ("tenant_id", "service"),
        names.last_updated: ("tenant_id", "service_endpoint"),
        names.leases: ("scope", "name"),
    }


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
            *(_ensure_table(clients["dynamodb"], *table, clock, deadline) for table in table_keys(names).items()),
            _ensure_bucket(clients["s3"], names.bucket, settings.region),
        )


async def missing(settings: Settings) -> list[str]:
    """What of the environment is not there, one readable line each; empty when all is."""
    names = settings.names
    async with open_clients(settings, *SERVICES) as clients:
        found = await asyncio.gather(
            *(_stream(clients["kinesis"], name) for name in _streams(names)),
            *(_table(clients["dynamodb"], name) for name in table_keys(names)),
            _bucket(clients["s3"], names.bucket),
        )
    wanted = (
        *(f"stream {name}" for name in _streams(names)),
        *(f"table {name}" for name in table_keys(names)),
        f"bucket {names.bucket}",
    )
    return [line for line, state in zip(wanted, found, strict=True) if state is None]


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


async def _ensure_table(client: Client, name: str, key: tuple[str, str], clock: Clock, deadline: float) -> None:
    schema: Mapping[str, Any] = {
        "AttributeDefinitions": [{"AttributeName": attribute, "AttributeType": "S"} for attribute in key],
        "KeySchema": [
            {"AttributeName": attribute, "KeyType": kind}
            for attribute, kind in zip(key, ("HASH", "RANGE"), strict=True)
        ],
        "BillingMode": "PAY_PER_REQUEST",
    }
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
