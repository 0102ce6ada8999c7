"""All units of one worker: which rows there are, whose leases are free, and what became of each unit."""

import asyncio
import traceback
from pathlib import Path
from typing import Final

import msgspec

from services.contracts.errors import (
    AvesaError,
    ConflictError,
    NotFoundError,
    RetryableError,
    UnauthorizedError,
    UsageError,
)
from services.contracts.gaps import Gap
from services.contracts.integration import Integration, integration_name
from services.contracts.log import EndpointFailed, EndpointsLate, WaitingFor
from services.contracts.mapping_files import MappingFiles
from services.contracts.partitions import Partition
from services.contracts.ports import Row
from services.contracts.times import seconds_between
from services.extractor.fetch import Transport
from services.extractor.freshness import Promises, late_s, latest, promised_s, told
from services.extractor.opening import opened
from services.extractor.plan import specs
from services.extractor.schedule import in_force
from services.extractor.tenants import Sharers, TenantService, connected, refuse
from services.extractor.unit import LEASE_SCOPE
from services.runtime.gaps import gaps
from services.runtime.leases import Lease
from services.runtime.loop import pause
from services.runtime.mapping_files import find_integration
from services.runtime.runtime import Runtime
from services.runtime.sharing import Share, rest_s
from services.runtime.threads import SomeThreads

SCAN_S: Final = 30.0  # a service that is new, changed or gone is noticed within a minute
AGAIN_S: Final = 30.0  # until a unit that failed as a whole is tried again
NEWCOMER_S: Final = 2 * SCAN_S  # by then every worker has seen it, and those it shares a budget with have made room
UNITS_MAX: Final = 1_000  # of one worker
UNIT_THREADS_MAX: Final = 2  # pieces of a unit's computation at a time
SAID_MAX: Final = 1_000  # complaints remembered so as not to repeat them


class _Running(msgspec.Struct):
    settings: object
    row: TenantService
    lease: Lease
    task: "asyncio.Task[None]"
    stopping: asyncio.Event


class Fleet:
    """All units of one worker."""

    def __init__(
        self,
        runtime: Runtime,
        mappings: MappingFiles,
        transport: Transport,
        only: frozenset[str] = frozenset(),
        interval_s: float | None = None,
    ) -> None:
        self._runtime, self._mappings, self._transport = runtime, mappings, transport
        self._only, self._interval_s = only, interval_s
        self._sharers = Sharers(runtime.names)
        self._publisher = runtime.publisher(runtime.names.raw_stream)
        self._rows: tuple[TenantService, ...] = ()
        self._promises: dict[str, Promises] = {}
        self._held: dict[str, Row] = {}  # lease rows as surveyed last, ours and others'
        self._running: dict[str, _Running] = {}
        self._not_before: dict[str, float] = {}
        self._said: set[str] = set()
        self._asked: frozenset[Gap] = frozenset()
        self._share = Share(runtime.leases, LEASE_SCOPE)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set; then every unit is finished cleanly and let go."""
        clock, scanned_at = self._runtime.clock, float("-inf")
        try:
            while not stopping.is_set():
                if clock.monotonic() - scanned_at >= SCAN_S:
                    await self._scan()
                    scanned_at = clock.monotonic()
                self._retire()
                await self._take_our_share()
                await pause(clock, stopping, rest_s(self._runtime.leases, self._share, SCAN_S))
        finally:
            for running in self._running.values():
                running.stopping.set()
            await asyncio.gather(*(running.task for running in self._running.values()), return_exceptions=True)
            self._retire()

    async def _scan(self) -> None:
        """What is connected now; units whose row changed or went are stopped, and start anew if they may."""
        try:
            found = await connected(self._runtime.rows, self._runtime.names)
            asked = frozenset(gap for gap in await gaps(self._runtime) if gap.state == "source")
        except (RetryableError, NotFoundError) as err:
            self._runtime.emit(WaitingFor(what="tables TenantServices and Leases", why=str(err)))
            return
        for unreadable in found.unreadable:
            self._say_once("", unreadable)
        self._sharers = Sharers(self._runtime.names, found.services)
        promises = {row.name: self._promised(row) for row in found.services}
        self._promises = {name: promised for name, promised in promises.items() if promised is not None}
        self._rows = tuple(row for row in found.services if row.name in self._promises)
        settings = {row.name: self._settings(row) for row in self._rows if row.enabled}
        fresh = asked - self._asked
        for name, running in self._running.items():
            if settings.get(name) != running.settings or (fresh and self._concerned(running.row, fresh)):
                running.stopping.set()
        self._asked = asked

    def _sharers_of(self, row: TenantService) -> int:
        """How many live on one budget with this row, itself included."""
        integration = self._mappings.integrations.get(integration_name(row.service))
        shared = integration is not None and integration.limits.per == "credential"
        return self._sharers.of(row) if shared else 1

    def _settings(self, row: TenantService) -> object:
        """What a unit has to start anew for."""
        return row.settings, self._sharers_of(row)

    def _concerned(self, row: TenantService, asked: frozenset[Gap]) -> bool:
        """Is a unit asked to publish again what a stream lost? It finds in its rows what exactly, when it starts."""
        families = {spec.family for spec in specs(find_integration(self._mappings, row.service)).values()}
        partitions = [Partition(row.tenant_id, row.service, family) for family in families]
        return any(gap.hash_range.holds(partition) for gap in asked for partition in partitions)

    def late(self) -> list[EndpointsLate]:
        """How late the latest endpoint of each tier is, of all that is ours or another worker's, or nobody's."""
        leases, now = self._runtime.leases, self._runtime.clock.now()
        held = ((row, self._held.get(row.name, {})) for row in self._rows)
        return latest(
            (
                row.tier,
                late_s(row, self._promises[row.name], told(lease), leases.quiet_s(LEASE_SCOPE, row.name, lease), now),
            )
            for row, lease in held
        )

    def _promised(self, row: TenantService) -> Promises | None:
        """How often each endpoint of a service is to be read; None where it is not ours to read."""
        if self._only and not self._only & {row.service, integration_name(row.service)}:
            return None
        try:
            integration = self._integration(row)
            promises = {name: promised_s(spec) for name, spec in specs(integration).items()}
        except UsageError as err:
            self._say_once(row.name, err)
            return None
        return promises if promises or (row.connect_all and integration.customers is not None) else None

    def _integration(self, row: TenantService) -> Integration:
        """As this tenant wants it, with its part of the budget. Errors: UsageError."""
        integration = find_integration(self._mappings, row.service)
        return in_force(integration, row, self._sharers_of(row), self._interval_s)

    def _say_once(self, name: str, err: UsageError) -> None:
        """A row or mapping that cannot be used is skipped; it is said when it is met, not at every scan."""
        if f"{name} {err}" not in self._said:
            if len(self._said) >= SAID_MAX:
                self._said.clear()
            self._said.add(f"{name} {err}")
            self._fail(name, err.code, str(err))

    async def _take_our_share(self) -> None:
        """Start what is ours to do; what another worker asks for is finished and handed over."""
        leases = self._runtime.leases
        rows = {row.name: row for row in self._rows if self._may_be_ours(row)}
        try:
            self._held, room = await leases.survey(LEASE_SCOPE), UNITS_MAX - len(self._running)
            await self._share.turn(rows, self._held, room, lambda lease: self._start(rows[lease.name], lease))
        except (RetryableError, NotFoundError) as err:
            self._runtime.emit(WaitingFor(what="the leases on services", why=str(err)))
            return
        for running in self._running.values():
            if running.lease.leaving.is_set():
                running.stopping.set()

    def _start(self, row: TenantService, lease: Lease) -> None:
        stopping = asyncio.Event()
        task = asyncio.create_task(self._serve(row, lease, stopping))
        self._running[row.name] = _Running(self._settings(row), row, lease, task, stopping)

    def _may_be_ours(self, row: TenantService) -> bool:
        """It is ours, or might be taken by anybody now."""
        if row.name in self._running:
            return self._runtime.leases.holds(LEASE_SCOPE, row.name) is not None
        clock, now = self._runtime.clock, self._runtime.clock.now()
        if self._sharers_of(row) > 1 and row.updated_at and 0.0 <= seconds_between(row.updated_at, now) < NEWCOMER_S:
            return False
        return row.may_try(now) and clock.monotonic() >= self._not_before.get(row.name, float("-inf"))

    async def _serve(self, row: TenantService, lease: Lease, stopping: asyncio.Event) -> None:
        """One unit from lease to lease. What it cannot help concerns no other."""
        runtime = msgspec.structs.replace(self._runtime, threads=SomeThreads(self._runtime.threads, UNIT_THREADS_MAX))
        try:
            integration = self._integration(row)
            async with opened(runtime, integration, row, lease, self._publisher, self._transport, stopping) as unit:
                await unit.run()
        except ConflictError:
            return  # another owner works on it: quietly
        except (UnauthorizedError, UsageError) as err:
            await refuse(runtime, row, err)
            self._rows = tuple(other for other in self._rows if other.name != row.name)  # until the next scan
        except AvesaError as err:
            self._fail(row.name, err.code, str(err))
        finally:
            await lease.release()

    def _retire(self) -> None:
        """Units that ended; one that died of a mistake of ours is told, and the others go on."""
        for name, running in list(self._running.items()):
            if not running.task.done():
                continue
            del self._running[name]
            if not running.stopping.is_set():
                self._not_before[name] = self._runtime.clock.monotonic() + AGAIN_S
            err = None if running.task.cancelled() else running.task.exception()
            if err is not None:
                self._fail(name, "unavailable", _mistake(err))

    def _fail(self, name: str, code: str, what: str) -> None:
        tenant_id, _, service = name.partition("/")
        self._runtime.emit(EndpointFailed(tenant_id=tenant_id, service=service, endpoint="*", code=code, what=what))


def _mistake(err: BaseException) -> str:
    """Where a mistake of ours happened; not its text, which may hold a payload."""
    frames = traceback.extract_tb(err.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"internal error: {type(err).__name__}{place}"
