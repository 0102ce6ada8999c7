"""Opening a unit: its access to the vendor, what a former owner used of its budget, its endpoints' rows claimed, their
memories loaded; and closing it again."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from services.contracts.errors import ConflictError, FencedError, NotFoundError, RetryableError, UsageError
from services.contracts.integration import Integration
from services.contracts.log import EventsReadAgain
from services.extractor.access import VendorAccess
from services.extractor.customers import listed_by
from services.extractor.endpoint import EndpointWork, gathered
from services.extractor.family import Family
from services.extractor.fetch import Caller, Transport
from services.extractor.ledger import Desk, open_ledger
from services.extractor.plan import Spec, specs
from services.extractor.refresh import Account
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
    account = await _account(runtime, row)

    def alive() -> None:
        if lease.lost.is_set():
            raise FencedError(f"the lease on {lease.name} is lost")
        lease.alive()

    access = VendorAccess(runtime, transport, integration, account, alive=alive)
    caller = Caller(runtime, transport, access, integration.limits, (row.tenant_id, row.service), alive)
    lease.progress = {**lease.progress, "unsaved": 0}
    lease.news = lambda: {"used": caller.used()}  # as it is when the lease is renewed, and when it is let go
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
    _count_former_use(desk)
    works: dict[str, EndpointWork] = {}
    unit: Unit | None = None
    try:
        await _open_endpoints(desk, specs(integration), works)
        unit = Unit(desk, row, works, listed_by(integration))
        yield unit
    finally:
        try:
            if unit is not None and not lease.lost.is_set():
                with contextlib.suppress(ConflictError, RetryableError):
                    await unit.save()
        finally:
            for work in works.values():
                work.ledger.memory.state.close()
            await access.close()


async def _open_endpoints(desk: Desk, known: Mapping[str, Spec], works: dict[str, EndpointWork]) -> None:
    families: dict[str, Family] = {}
    ledgers = await gathered(open_ledger(desk, spec) for spec in known.values())
    for spec, ledger in zip(known.values(), ledgers, strict=True):  # parents come first
        family = families.setdefault(spec.family, Family(spec.family))
        parent = works[spec.parent.endpoint] if spec.parent is not None else None
        works[spec.name] = EndpointWork(desk, spec, family, ledger, parent, works)


async def _account(runtime: Runtime, row: TenantService) -> Account:
    """A partner's customers are read with the partner's credentials. Errors: UsageError."""
    name = row.secret or runtime.names.secret(row.tenant_id, row.service)
    try:
        return Account(name, await runtime.secrets.get(name), row.account_id)
    except NotFoundError as err:
        raise UsageError(
            f"the secret {name} is missing", code="bad_credentials", remedy="Run `avesa setup-service` again."
        ) from err


def _tell_read_again(desk: Desk) -> None:
    """How much the former owner, who did not let go, had published without saving."""
    unsaved = int(_progress(desk.lease).get("unsaved") or 0) if desk.lease.taken_over else 0
    if unsaved > 0:
        desk.runtime.emit(EventsReadAgain(service="extractor", shard=desk.lease.name, count=unsaved))


def _count_former_use(desk: Desk) -> None:
    """What the former owner used of the budget counts; one that did not let go may have used all for a lease time."""
    told = _progress(desk.lease).get("used")
    unknown_s = desk.runtime.leases.lease_s if desk.lease.taken_over else 0.0
    desk.caller.resume(told if isinstance(told, str) else None, unknown_s=unknown_s)


def _progress(lease: Lease) -> Mapping[str, Any]:
    """What the former owner told last."""
    progress = lease.row.get("progress")
    return progress if isinstance(progress, dict) else {}
