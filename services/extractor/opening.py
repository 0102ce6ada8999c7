"""Opening a unit: its credentials, its endpoints' rows claimed, their memories loaded; and closing it again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from services.contracts.errors import ConflictError, FencedError, NotFoundError, RetryableError, UsageError
from services.contracts.integration import Integration
from services.contracts.log import EventsReadAgain
from services.extractor.auth import site_of
from services.extractor.endpoint import EndpointWork, Family, gathered
from services.extractor.fetch import Caller, Transport
from services.extractor.ledger import Desk, open_ledger
from services.extractor.plan import Spec, specs
from services.extractor.tenants import TenantService
from services.extractor.unit import Unit
from services.runtime.leases import Lease
from services.runtime.publisher import Publisher
from services.runtime.runtime import Runtime


@asynccontextmanager
async def opened(
    runtime: Runtime,
    integration: Integration,
    row: TenantService,
    lease: Lease,
    publisher: Publisher,
    transport: Transport,
    stopping: asyncio.Event,
) -> AsyncIterator[Unit]:
    """The unit of `row`, ready to work; what it knows is saved when the block ends without an error of ours.

    Errors: UsageError, UnauthorizedError: a person must act; FencedError; RetryableError.
    """
    credentials = await _secret(runtime, row)

    def alive() -> None:
        if lease.lost.is_set():
            raise FencedError(f"the lease on {lease.name} is lost")
        lease.alive()

    site = site_of(integration, credentials)
    caller = Caller(runtime, transport, site, integration.limits, (row.tenant_id, row.service), alive)
    lease.progress = {"unsaved": 0}
    desk = Desk(
        runtime=runtime,
        tenant_id=row.tenant_id,
        service=row.service,
        caller=caller,
        publisher=publisher,
        lease=lease,
        stopping=stopping,
        parallel=integration.limits.concurrency,
    )
    _tell_read_again(desk)
    works: dict[str, EndpointWork] = {}
    unit: Unit | None = None
    try:
        await _open_endpoints(desk, specs(integration), works)
        unit = Unit(desk, row, works)
        yield unit
    finally:
        try:
            if unit is not None and not lease.lost.is_set():
                with contextlib.suppress(ConflictError, RetryableError):
                    await unit.save()
        finally:
            for work in works.values():
                work.ledger.memory.state.close()


async def _open_endpoints(desk: Desk, known: Mapping[str, Spec], works: dict[str, EndpointWork]) -> None:
    families: dict[str, Family] = {}
    ledgers = await gathered(open_ledger(desk, spec) for spec in known.values())
    for spec, ledger in zip(known.values(), ledgers, strict=True):  # parents come first
        family = families.setdefault(spec.family, Family(spec.family))
        parent = works[spec.parent.endpoint] if spec.parent is not None else None
        works[spec.name] = EndpointWork(desk, spec, family, ledger, parent)


async def _secret(runtime: Runtime, row: TenantService) -> dict[str, str]:
    name = row.secret or runtime.names.secret(row.tenant_id, row.service)
    try:
        return await runtime.secrets.get(name)
    except NotFoundError as err:
        raise UsageError(
            f"the secret {name} is missing", code="bad_credentials", remedy="Run `avesa setup-service` again."
        ) from err


def _tell_read_again(desk: Desk) -> None:
    """How much the former owner, who did not let go, had published without saving."""
    progress = desk.lease.row.get("progress") if desk.lease.taken_over else None
    unsaved = int(progress.get("unsaved") or 0) if isinstance(progress, dict) else 0
    if unsaved > 0:
        desk.runtime.emit(EventsReadAgain(service="extractor", shard=desk.lease.name, count=unsaved))
