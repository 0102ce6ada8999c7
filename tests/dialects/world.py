"""One customer at one hostile vendor: its server over HTTP, the AWS twins in memory, and extractors that can be killed.

Time is virtual. It stands still while a request is on the wire and leaps when nobody has anything else to do, so that
minutes of lags, intervals and leases pass in milliseconds while every byte goes through real sockets.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from services.contracts.envelope import split
from services.contracts.events import ChangeEvent
from services.contracts.integration import Integration
from services.contracts.log import Event
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import Names
from services.contracts.ports import Value
from services.contracts.times import UtcTime, moment, shifted
from services.extractor.answers import Answer
from services.extractor.fetch import Bounds, Http
from services.extractor.requests import Request
from services.extractor.service import run, run_once
from services.extractor.summary import Summary
from services.extractor.unit import LEASE_SCOPE
from services.runtime.envelopes import unseal
from services.runtime.provision import table_keys
from services.runtime.runtime import Runtime
from services.sandbox.vendors.dialect import Dialect
from services.sandbox.vendors.hostility import Hostility
from services.sandbox.vendors.server import SERVING, Running, start
from services.sandbox.vendors.store import Store
from tests.fakes import Call, FakeChance, FakeClock, MemoryObjects, MemoryRows, MemorySecrets, MemoryStreams
from tests.runtimes import fake_runtime

NAMES: Final = Names("hostile")
START: Final = "2026-01-31T12:00:00.250000Z"
TENANT: Final = "acme"
LEASE_S: Final = 10.0
WIRE_S: Final = 0.02  # virtual: the way there, and the way back
SILENCE_S: Final = 0.4  # real: how long a client waits for the next byte
STALL_S: Final = 0.6  # real: how long an answer takes that is too slow
ROUGH_S: Final = 60.0  # a page that was read is published within so many seconds


class Killed(BaseException):
    """SIGKILL: nobody cleans up after it."""


class WireClock(FakeClock):
    """A clock that stands still while a request is on the wire: real I/O takes no time."""

    def __init__(self, now: UtcTime = START) -> None:
        super().__init__(now)
        self._on_the_wire = 0
        self._parked = False

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        self._on_the_wire += 1
        try:
            yield
        finally:
            self._on_the_wire -= 1
            if self._parked and not self._on_the_wire:
                self._parked = False
                loop = asyncio.get_running_loop()
                loop.call_soon(self._watch, loop, 0)

    def _watch(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        if self._on_the_wire:
            self._parked = True
        else:
            super()._watch(loop, turns)


class Wire(Http):
    """HTTP to the sandbox, by whatever name a vendor's host is called. A way takes WIRE_S of virtual time.

    What the server served is noted as delivered once the client has all of it, if that one may still publish.
    """

    def __init__(self, world: "World", bounds: Bounds) -> None:
        super().__init__(bounds)
        self._world = world
        self.arrived: Callable[[Request, Answer], None] = lambda _request, _answer: None
        self.sent: list[Request] = []

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        world, parts = self._world, urlsplit(request.url)
        self.sent.append(request)
        there = msgspec.structs.replace(
            request, url=request.url.replace(f"{parts.scheme}://{parts.netloc}", world.vendor.url, 1)
        )
        await world.pass_by(Call("ask", request.url))
        await world.clock.sleep(WIRE_S)
        with world.clock.standing_still():
            answer = await super().send(there, {**headers, "Host": parts.netloc})
        await world.clock.sleep(WIRE_S)
        self.arrived(request, answer)
        await world.pass_by(Call("answered", request.url))
        number, worker = answer.headers.get(SERVING.lower()), _worker.get()
        if number is not None and not (worker is not None and worker.out_of_touch):
            world.hostility.served[int(number)].delivered = True
        return answer


class Worker:
    """One extractor process from its start to its end."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.dead = False
        self.out_of_touch = False
        self.stopping = asyncio.Event()
        self.heard: list[Event] = []
        self.runtime = world.runtime(self.heard.append)
        self._renewing: asyncio.Future[None] | None = None
        self._main: asyncio.Future[None] | None = None

    def start(self) -> None:
        token = _worker.set(self)
        try:
            self._main = asyncio.ensure_future(self._live())
        finally:
            _worker.reset(token)

    async def _live(self) -> None:
        world = self.world
        self._renewing = asyncio.ensure_future(self.runtime.leases.renew_forever())
        try:
            await run(self.runtime, world.mappings, self.stopping, transport=world.wire)
        finally:
            self._renewing.cancel()
            if not self.dead:
                await self.runtime.leases.release_all()

    @property
    def running(self) -> bool:
        return not self.dead and self._main is not None and not self._main.done()

    def kill(self) -> None:
        """Now: nothing of it has an effect from here on."""
        if not self.dead:
            self.dead = True
            self.world.note_rough()
            if self._main is not None:
                asyncio.get_running_loop().call_soon(self._main.cancel)

    def lose_touch(self) -> None:
        """It no longer renews its leases, and does not know: a second owner will come."""
        self.world.note_rough(3 * LEASE_S)
        self.out_of_touch = True
        if self._renewing is not None:
            self._renewing.cancel()

    async def stop(self) -> None:
        """SIGTERM, and wait."""
        self.stopping.set()
        await self.buried()

    async def buried(self) -> None:
        """Until it has come to its end. Errors: what it died of, if it was neither stopped nor killed."""
        if self._main is None:
            return
        await asyncio.wait([self._main])
        if not self.dead and not self._main.cancelled() and (err := self._main.exception()) is not None:
            raise err


_worker: ContextVar[Worker | None] = ContextVar("worker", default=None)


class World:
    """One environment with one vendor. `rough`: spans in which a reader was broken off, so that it read what it did not
    come to publish, or published what it did not come to remember."""

    def __init__(self, dialect: Dialect, integration: Integration, seed: int = 0) -> None:
        self.clock = WireClock()
        self.rng = Random(seed)
        self.dialect, self.integration = dialect, integration
        self.store = Store(dialect.collections, moment(self.clock.now()), Random(seed + 1))
        self.hostility = Hostility(dialect, self.store, Random(seed + 2))
        self.vendor: Running
        self.wire: Wire
        self.streams = MemoryStreams(self.clock, [NAMES.raw_stream], before=self._before, after=self._after)
        self.objects = MemoryObjects(before=self._before, after=self._after)
        self.rows = MemoryRows(table_keys(NAMES), before=self._before, after=self._after)
        self.secrets = MemorySecrets(before=self._before, after=self._after)
        self.mappings = MappingFiles({integration.service: integration}, {})
        self.chance = FakeChance(seed + 3)
        self.said: list[Event] = []
        self.rough: list[tuple[UtcTime, UtcTime]] = []
        self.trap: Callable[[Call, bool], bool] = lambda _call, _done: False

    # -- its parts ----------------------------------------------------------------------------------------------------
    def runtime(self, hear: Callable[[Event], None] = lambda _: None) -> Runtime:
        """A new worker."""

        def emit(event: Event) -> None:
            self.said.append(event)
            hear(event)

        return fake_runtime(
            NAMES,
            self.clock,
            self.streams,
            self.rows,
            objects=self.objects,
            secrets=self.secrets,
            chance=self.chance,
            lease_s=LEASE_S,
            emit=emit,
        )

    async def connect(self, tenant_id: str = TENANT, **typed: str) -> None:
        """What a person does: credentials typed, or typed anew."""
        service, now = self.integration.service, self.clock.now()
        secret = NAMES.secret(tenant_id, service)
        await self.secrets.put(secret, {**self.dialect.credentials(self.store), **typed})
        row: dict[str, Value] = {"company_name": "Acme", "enabled": True, "secret": secret, "status": "ok"}
        row |= {"created_at": now, "updated_at": now}
        await self.rows.write(NAMES.tenant_services, {"tenant_id": tenant_id, "service": service}, row)

    async def status(self, tenant_id: str = TENANT) -> dict[str, Any]:
        """The row of `TenantServices`."""
        key = {"tenant_id": tenant_id, "service": self.integration.service}
        return await self.rows.get(NAMES.tenant_services, key) or {}

    async def lease(self) -> dict[str, Any]:
        """The row of the lease on the service."""
        key = {"scope": LEASE_SCOPE, "name": f"{TENANT}/{self.integration.service}"}
        return await self.rows.get(NAMES.leases, key) or {}

    async def mark(self, endpoint: str) -> dict[str, Any]:
        """The endpoint's `LastUpdated` row."""
        key = {"tenant_id": TENANT, "service_endpoint": f"{self.integration.service}#{endpoint}"}
        return await self.rows.get(NAMES.last_updated, key) or {}

    async def walked(self) -> bool:
        """Was every endpoint read once?"""
        rows = [await self.mark(name) for name in self.integration.endpoints]
        return all((row.get("marks") or {}).get("fresh") for row in rows)

    def worker(self) -> Worker:
        """An extractor process, started."""
        made = Worker(self)
        made.start()
        return made

    async def run_once(self, **options: Any) -> Summary:
        """`avesa run --once`, of a process of its own."""
        runtime = self.runtime()
        renewing = asyncio.ensure_future(runtime.leases.renew_forever())
        try:
            return await run_once(runtime, self.mappings, transport=self.wire, **options)
        finally:
            renewing.cancel()
            await runtime.leases.release_all()

    async def settle(self, rounds: int = 3, *, sweep: bool = True) -> list[Summary]:
        """A quiet end: what lags has come to rest, every list was read and swept, and what is missing confirmed."""
        found = []
        for _ in range(rounds):
            await self.clock.sleep(self.rest_s)
            found.append(await self.run_once(sweep=sweep))
        return found

    @property
    def rest_s(self) -> float:
        """Longer than any lag of the integration."""
        lags = [300.0]
        for endpoint in self.integration.endpoints.values():
            lags.append(getattr(endpoint.incremental or self.integration.incremental, "lag_s", 0.0))
        return 2 * max(lags) + 30.0

    @property
    def events(self) -> list[ChangeEvent]:
        """Every event of the first tenant on the raw stream, in order, those beside it too."""
        return self.events_of(TENANT)

    def events_of(self, tenant_id: str) -> list[ChangeEvent]:
        return [event for _, event in self._arrived() if event.tenant_id == tenant_id]

    @property
    def arrivals(self) -> list[UtcTime]:
        """When each of `events` arrived on the stream."""
        return [arrived_at for arrived_at, event in self._arrived() if event.tenant_id == TENANT]

    def _arrived(self) -> Iterator[tuple[UtcTime, ChangeEvent]]:
        for record in self.streams.records(NAMES.raw_stream):
            header, body = split(record.data)
            if header.object_key is not None:
                body = self.objects.held[header.object_key]
            for line in unseal(header, body):
                yield record.arrived_at, _decode(line)

    def heard(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.said if isinstance(event, kind)]

    # -- death --------------------------------------------------------------------------------------------------------
    def note_rough(self, seconds: float = 0.0) -> None:
        """A reader dies or is broken off, now or within so many seconds."""
        now = self.clock.now()
        self.rough.append((shifted(now, seconds=-ROUGH_S), shifted(now, seconds=seconds + ROUGH_S)))

    async def pass_by(self, call: Call) -> None:
        """Where a dead process goes no further, and where it may be killed."""
        await self._before(call)

    async def _before(self, call: Call) -> None:
        self._meet(call, False)

    async def _after(self, call: Call) -> None:
        self._meet(call, True)

    def _meet(self, call: Call, done: bool) -> None:
        worker = _worker.get()
        if worker is None:
            return
        if worker.dead:
            raise Killed
        if self.trap(call, done):
            worker.kill()
            raise Killed


def _not_of_the_dead(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Tasks of killed processes end with nobody there to hear of it."""
    if not isinstance(context.get("exception"), Killed):
        loop.default_exception_handler(context)


_decode = msgspec.json.Decoder(ChangeEvent).decode


@asynccontextmanager
async def opened(
    dialect: Dialect, integration: Integration, seed: int = 0, *, bounds: Bounds | None = None, populate: bool = True
) -> AsyncIterator[World]:
    """A world whose vendor listens, whose records are made, and whose one customer is connected."""
    asyncio.get_running_loop().set_exception_handler(_not_of_the_dead)
    world = World(dialect, integration, seed)
    if populate:
        world.store.populate()

    async def stall() -> None:
        await asyncio.sleep(STALL_S)

    world.vendor = await start(world.hostility, lambda: moment(world.clock.now()), stall)
    try:
        async with Wire(world, bounds or Bounds(silence_s=SILENCE_S)) as wire:
            world.wire = wire
            await world.connect()
            yield world
    finally:
        await world.vendor.close()
