"""The extractor: every connected service is a unit, each in a task of its own, under a lease of its own.

    run            what is connected (`tenants`) -> a lease each -> its endpoints and memories (`opening`)
                   -> a loop per endpoint and per family (`unit`): read (`endpoint`), look for the deleted (`sweep`)
    run_once       the same once, for whoever waits for it

Leases are renewed by whoever made the runtime (`Leases.renew_forever`), beside this.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Final

from services.contracts.errors import AvesaError, FatalError, UnauthorizedError, UsageError
from services.contracts.integration import Integration, integration_name
from services.contracts.log import ServiceStarted, ServiceStopped
from services.contracts.mapping_files import MappingFiles
from services.extractor.fetch import Http, Transport
from services.extractor.fleet import Fleet
from services.extractor.opening import opened
from services.extractor.plan import specs
from services.extractor.schedule import in_force, tuned
from services.extractor.summary import EndpointSummary, Summary
from services.extractor.tenants import Sharers, TenantService, connected, refuse
from services.extractor.unit import LEASE_SCOPE, Watch
from services.runtime.beat import beat
from services.runtime.loop import run_together
from services.runtime.mapping_files import find_integration
from services.runtime.runtime import Runtime

SERVICE: Final = "extractor"
UNITS_AT_ONCE: Final = 32  # of one `run_once`
WAIT_LEASES: Final = 1.5  # lease times until a dead owner's work can be ours


async def run(
    runtime: Runtime,
    mappings: MappingFiles,
    stopping: asyncio.Event,
    *,
    services: Sequence[str] = (),
    interval_s: float | None = None,
    transport: Transport | None = None,
) -> None:
    """Serve every enabled row of TenantServices (of these `services` only, if any) until `stopping` is set.

    `interval_s`: how often every endpoint is read, where its row does not say it; None: as the mapping file says.
    """
    worker = runtime.leases.worker
    runtime.emit(ServiceStarted(service=SERVICE, worker=worker))
    async with _carrier(transport) as carrier:
        fleet = Fleet(runtime, mappings, carrier, frozenset(services), interval_s)
        await run_together([fleet.run, beat(runtime, SERVICE, group_of(services), fleet.late)], stopping)
    runtime.emit(ServiceStopped(service=SERVICE, worker=worker, reason="asked to stop"))


def group_of(services: Sequence[str]) -> str:
    """What a fleet is called that is bound to these services: `extractor`, or `extractor-autotask-connectwise`."""
    return "-".join([SERVICE, *sorted(set(services))])


async def run_once(
    runtime: Runtime,
    mappings: MappingFiles,
    tenant_id: str | None = None,
    service: str | None = None,
    endpoint: str | None = None,
    sweep: bool = True,
    *,
    transport: Transport | None = None,
    watch: Watch = lambda _: None,
) -> Summary:
    """Bring everything chosen up to date and let go of it again. `watch` hears of an endpoint at each of its pages.

    Errors: UsageError for a tenant, service or endpoint that is not there; all else is in the summary.
    """
    rows, sharers = await _chosen(runtime, mappings, tenant_id, service, endpoint)
    at_once = asyncio.Semaphore(UNITS_AT_ONCE)

    async def one(row: TenantService) -> list[EndpointSummary]:
        async with at_once:
            try:
                integration = in_force(find_integration(mappings, row.service), row, sharers.of(row))
                return await _run_unit(runtime, integration, row, endpoint, sweep, carrier, watch)
            except AvesaError as err:
                return [EndpointSummary(row.tenant_id, row.service, "*", code=err.code, what=str(err))]

    async with _carrier(transport) as carrier:
        done = await asyncio.gather(*(one(row) for row in rows))
    return Summary(tuple(found for summaries in done for found in summaries))


async def _chosen(
    runtime: Runtime, mappings: MappingFiles, tenant_id: str | None, service: str | None, endpoint: str | None
) -> tuple[list[TenantService], Sharers]:
    """The rows meant, and who shares a credential among all there are."""
    found = await connected(runtime.rows, runtime.names)
    rows = [row for row in found.services if tenant_id in (None, row.tenant_id)]
    if tenant_id is not None and not rows:
        raise UsageError(
            f"no service is connected to tenant {tenant_id!r}", code="unknown_tenant", remedy="See `avesa services`."
        )
    rows = [row for row in rows if service in (None, row.service, integration_name(row.service))]
    if service is not None and not rows:
        raise UsageError(
            f"service {service!r} is not connected", code="unknown_service", remedy="See `avesa services`."
        )
    if endpoint is not None:
        rows = [row for row in rows if endpoint in specs(tuned(find_integration(mappings, row.service), row))]
        if not rows:
            raise UsageError(f"no connected service has an endpoint {endpoint!r}", remedy="See `avesa mapping show`.")
    if rows and tenant_id is not None and not any(row.enabled for row in rows):
        raise UsageError(f"{', '.join(row.name for row in rows)} is paused", remedy="Resume it with `avesa services`.")
    if not found.services and found.unreadable:
        raise found.unreadable[0]
    return [row for row in rows if row.enabled], Sharers(runtime.names, found.services)


async def _run_unit(
    runtime: Runtime,
    integration: Integration,
    row: TenantService,
    endpoint: str | None,
    sweeping: bool,
    transport: Transport,
    watch: Watch,
) -> list[EndpointSummary]:
    known = specs(integration)
    lease = await runtime.leases.wait_for(LEASE_SCOPE, row.name, WAIT_LEASES * runtime.leases.lease_s)
    if lease is None:
        raise await _held_by_another(runtime, row)
    try:
        publisher = runtime.publisher(runtime.names.raw_stream)
        async with opened(runtime, integration, row, lease, publisher, transport, asyncio.Event()) as unit:
            return await unit.run_once({endpoint} if endpoint else set(known), sweeping=sweeping, watch=watch)
    except (UnauthorizedError, UsageError) as err:
        await refuse(runtime, row, err)
        raise
    finally:
        await lease.release()


async def _held_by_another(runtime: Runtime, row: TenantService) -> FatalError:
    held = await runtime.rows.get(runtime.names.leases, {"scope": LEASE_SCOPE, "name": row.name}) or {}
    return FatalError(
        f"{row.name} is being read by worker {held.get('owner') or 'unknown'}",
        code="already_running",
        remedy="It stays up to date by itself; or stop that extractor, or wait for it, and try again.",
    )


@asynccontextmanager
async def _carrier(transport: Transport | None) -> AsyncIterator[Transport]:
    if transport is not None:
        yield transport
        return
    async with Http() as http:
        yield http
