"""An extractor's world: a small vendor over real HTTP, the rest in memory, and a clock that waits for the wire."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from email.utils import format_datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web

from services.contracts.envelope import split
from services.contracts.events import ChangeEvent
from services.contracts.integration import Integration
from services.contracts.log import Event
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import Names
from services.contracts.times import moment
from services.extractor.answers import Answer
from services.extractor.fetch import Bounds, Http
from services.extractor.requests import Request
from services.extractor.service import run_once
from services.extractor.summary import EndpointSummary, Summary
from services.runtime.envelopes import unseal
from services.runtime.provision import table_keys
from services.runtime.runtime import Runtime
from tests.fakes import (
    FakeChance,
    FakeClock,
    MemoryObjects,
    MemoryRows,
    MemorySecrets,
    MemoryStreams,
)
from tests.runtimes import fake_runtime

NAMES = Names("test")
LEASE_S = 10.0
START = "2026-01-31T12:00:00.000000Z"
KEY = "hunter2-hunter2"
Planned = Callable[[web.Request], Awaitable[web.StreamResponse] | None]


class WireClock(FakeClock):
    """A clock that stands still while a request is on the wire: real I/O takes no time."""

    def __init__(self, now: str = START) -> None:
        super().__init__(now)
        self.on_the_wire = 0

    def _watch(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        if self.on_the_wire:
            loop.call_later(0.0005, self._watch, loop, 0)
            return
        super()._watch(loop, turns)


class Wire(Http):
    """HTTP during which the clock stands still, but for requests to a path of `patient`."""

    def __init__(self, clock: WireClock, bounds: Bounds | None = None) -> None:
        super().__init__(bounds)
        self._clock = clock
        self.patient: set[str] = set()

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        still = urlsplit(request.url).path not in self.patient
        self._clock.on_the_wire += still
        try:
            return await super().send(request, headers)
        finally:
            self._clock.on_the_wire -= still


class Vendor:
    """Lists by path, filtered by `since` and `id >`, sorted by id, in pages; and one record by its id.

    `spoil` may answer a request instead, or return None to let it pass; `routes` answer the requests to a path;
    `asked` is every request, in order.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.lists: dict[str, dict[int, Any]] = {}
        self.visible_at: dict[tuple[str, int], str] = {}
        self.asked: list[str] = []
        self.spoil: Planned = lambda _: None
        self.routes: dict[str, Callable[[web.Request], web.Response]] = {}
        self.url = ""

    def put(self, path: str, record_id: int, stamp: str | None = None, **fields: Any) -> None:
        """A record as the vendor holds it; `stamp` is cut to the second, now by default."""
        stamped = (stamp or self.clock.now())[:19] + "Z"
        self.lists.setdefault(path, {})[record_id] = {"id": record_id, **fields, "updated": stamped}

    def drop(self, path: str, record_id: int) -> None:
        del self.lists[path][record_id]

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path_qs)
        planned = self.spoil(request)
        if planned is not None:
            return await planned
        if request.headers.get("X-Key") != KEY:
            return self.answer({"message": f"wrong key {request.headers.get('X-Key')}"}, 401)
        routed = self.routes.get(request.path.strip("/"))
        if routed is not None:
            return routed(request)
        path, _, last = request.path.strip("/").rpartition("/")
        if path in self.lists and last.isdecimal():
            found = self.lists[path].get(int(last))
            return self.answer(found) if found is not None else self.answer({"message": "no such record"}, 404)
        path = request.path.strip("/")
        if path not in self.lists:
            return self.answer({"message": "no such list"}, 404)
        return self.answer(self._page(path, request.query))

    def _page(self, path: str, query: Mapping[str, str]) -> list[Any]:
        where = query.get("where", "")
        since = re.search(r"updated >= (\S+)", where)
        after = re.search(r"id > (\d+)", where)
        size = int(query.get("size", "1000"))
        found = [
            record
            for record_id, record in sorted(self.lists[path].items())
            if (since is None or record["updated"] >= since.group(1))
            and (after is None or record_id > int(after.group(1)))
            and self.visible_at.get((path, record_id), "") <= self.clock.now()
        ]
        start = (int(query.get("page", "1")) - 1) * size
        return found[start : start + size]

    def answer(self, body: Any, status: int = 200, **headers: str) -> web.Response:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return web.Response(status=status, body=data, headers={"Date": self.date, **headers})

    @property
    def date(self) -> str:
        return format_datetime(moment(self.clock.now()).replace(microsecond=0), usegmt=True)


async def answered(response: web.StreamResponse) -> web.StreamResponse:
    """A response for `Vendor.spoil`."""
    return response


INCREMENTAL = {"type": "time", "clause": "updated >= {since}", "overlap_s": 5, "lag_s": 300}
SWEEP = {"type": "sweep", "interval_s": 3600, "params": {"fields": "id"}, "confirm": "tickets/{record_id}"}
TICKETS: dict[str, Any] = {
    "path": "tickets",
    "record_id": "id",
    "updated_at": "updated",
    "incremental": INCREMENTAL,
    "deletes": SWEEP,
}


def integration(endpoints: Mapping[str, Mapping[str, Any]] | None = None, **more: Any) -> Integration:
    """A vendor `desk` with tickets, read by keyset in pages of 100."""
    plain: dict[str, Any] = {
        "service": "desk",
        "title": "Desk",
        "base_url": "{site}",
        "auth": {"type": "headers", "headers": {"X-Key": "{key}"}},
        "credentials": {"site": {"title": "Site"}, "key": {"title": "Key", "secret": True}},
        "filter": {"param": "where"},
        "limits": {"requests": 100_000, "window_s": 1, "share": 1, "concurrency": 4},
        "pagination": {
            "type": "keyset",
            "key": "id",
            "clause": "id > {after}",
            "order": {"order": "id"},
            "size_param": "size",
            "size": 100,
        },
        "endpoints": endpoints if endpoints is not None else {"tickets": TICKETS},
    }
    return msgspec.convert(plain | more, Integration)


class World:
    """One environment, its vendor, and workers that come and go."""

    def __init__(self, clock: WireClock, vendor: Vendor, wire: Wire) -> None:
        self.clock, self.vendor, self.wire = clock, vendor, wire
        self.streams = MemoryStreams(clock, [NAMES.raw_stream])
        self.objects = MemoryObjects()
        self.rows = MemoryRows(table_keys(NAMES))
        self.secrets = MemorySecrets()
        self.mappings = MappingFiles({"desk": integration()}, {})
        self.said: list[Event] = []
        self.chance = FakeChance()

    def runtime(self) -> Runtime:
        """A new worker."""
        return fake_runtime(
            NAMES,
            self.clock,
            self.streams,
            self.rows,
            objects=self.objects,
            secrets=self.secrets,
            chance=self.chance,
            lease_s=LEASE_S,
            emit=self.said.append,
        )

    def use(self, endpoints: Mapping[str, Mapping[str, Any]], **more: Any) -> None:
        self.mappings = MappingFiles({"desk": integration(endpoints, **more)}, {})

    async def connect(self, tenant_id: str = "acme", service: str = "desk", key: str = KEY, **values: Any) -> None:
        secret = NAMES.secret(tenant_id, service)
        await self.secrets.put(secret, {"site": self.vendor.url, "key": key})
        row = {"company_name": "Acme", "enabled": True, "secret": secret, "created_at": self.clock.now(), **values}
        await self.rows.write(NAMES.tenant_services, {"tenant_id": tenant_id, "service": service}, row)

    async def run(self, runtime: Runtime | None = None, **options: Any) -> Summary:
        """`run_once`, by a new worker unless one is given"""
        return await run_once(runtime or self.runtime(), self.mappings, transport=self.wire, **options)

    async def read(self, **options: Any) -> EndpointSummary:
        """`run`, where there is one endpoint and all goes well."""
        summary = await self.run(**options)
        assert summary.complete, summary
        (only,) = summary.endpoints
        return only

    @property
    def events(self) -> list[ChangeEvent]:
        """Every event on the raw stream, in order."""
        decode = msgspec.json.Decoder(ChangeEvent).decode
        return [
            decode(line) for record in self.streams.records(NAMES.raw_stream) for line in unseal(*split(record.data))
        ]

    def history(self, record_id: int | str) -> list[tuple[str, str, str]]:
        """(op, effective time of day, evidence) of one record's events."""
        return [
            (event.op, event.effective_at[11:].removesuffix("Z").removesuffix(".000000"), event.evidence)
            for event in self.events
            if event.record_id == str(record_id)
        ]

    async def row(self, endpoint: str = "tickets", tenant_id: str = "acme") -> dict[str, Any]:
        key = {"tenant_id": tenant_id, "service_endpoint": f"desk#{endpoint}"}
        return await self.rows.get(NAMES.last_updated, key) or {}

    async def status(self, tenant_id: str = "acme") -> dict[str, Any]:
        return await self.rows.get(NAMES.tenant_services, {"tenant_id": tenant_id, "service": "desk"}) or {}

    def heard(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.said if isinstance(event, kind)]


@asynccontextmanager
async def opened(bounds: Bounds | None = None, connected: Iterable[str] = ("acme",)) -> AsyncIterator[World]:
    """A world with its vendor on a free port, connected for the tenants named."""
    clock = WireClock()
    vendor = Vendor(clock)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", vendor.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        vendor.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with Wire(clock, bounds) as wire:
            world = World(clock, vendor, wire)
            for tenant_id in connected:
                await world.connect(tenant_id)
            yield world
    finally:
        await runner.cleanup()
