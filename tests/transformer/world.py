"""A transformer's world in memory: events on the raw stream, what comes out on the canonical one."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from services.contracts.access import NoAuth
from services.contracts.envelope import split
from services.contracts.errors import RetryableError
from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.fields import CanonicalMapping, Field, NamedValues
from services.contracts.integration import Endpoint, Integration
from services.contracts.log import Event
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import Names
from services.contracts.partitions import Partition
from services.contracts.ports import Entry
from services.contracts.schema import CanonicalTable, Column
from services.runtime.dead_letters import DeadLetter
from services.runtime.envelopes import seal, unseal
from services.runtime.provision import table_keys
from services.runtime.runtime import Runtime
from services.transformer.groups import ALL_TABLES, Binding
from services.transformer.groups import SCOPE as GROUPS
from services.transformer.service import Transformer
from services.transformer.shard import Limits
from tests.fakes import (
    FakeChance,
    FakeClock,
    MemoryObjects,
    MemoryRows,
    MemoryStreams,
)
from tests.runtimes import fake_runtime

LEASE_S = 10.0
NAMES = Names("test")


def time(second: int) -> str:
    return f"2026-01-01T{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}.000000Z"


TICKETS = CanonicalTable(
    "tickets",
    {
        "id": Column("string"),
        "summary": Column("string"),
        "hours": Column("decimal"),
        "last_updated": Column("timestamp", tracked=False),
    },
)
FIELDS: dict[str, Field] = {"id": "id", "summary": "summary", "hours": "hours", "last_updated": "_info.lastUpdated"}


def files(
    fields: Mapping[str, Field] | None = None, table: CanonicalTable = TICKETS, **endpoints: Endpoint
) -> MappingFiles:
    """Mapping files with one integration, `desk`: tickets are mapped, notes are not."""
    mapping = CanonicalMapping("tickets", dict(fields or FIELDS))
    known = {
        "tickets": Endpoint("tickets", "id", canonical=mapping),
        "notes": Endpoint("notes", "id"),
        **endpoints,
    }
    custom = NamedValues("customFields", "caption", "value")
    return MappingFiles(
        {"desk": Integration("desk", "Desk", "https://desk.example", NoAuth(), known, custom_fields=custom)},
        {table.table: table},
    )


def ticket(
    record_id: str = "1",
    at: int = 1,
    summary: str = "Printer",
    *,
    observed: int | None = None,
    tenant: str = "acme",
    endpoint: str = "tickets",
    touched: int = 0,
    **more: Any,
) -> ChangeEvent:
    payload = {"id": record_id, "summary": summary, "hours": 1.5, "_info": {"lastUpdated": time(touched)}, **more}
    return ChangeEvent(
        tenant,
        "desk",
        endpoint,
        record_id,
        "upsert",
        time(at),
        time(at if observed is None else observed),
        payload=msgspec.Raw(msgspec.json.encode(payload)),
    )


def gone(record_id: str = "1", at: int = 1, *, tenant: str = "acme", endpoint: str = "tickets") -> ChangeEvent:
    return ChangeEvent(tenant, "desk", endpoint, record_id, "delete", time(at), time(at))


class World:
    """Streams, objects and rows that outlive any worker."""

    def __init__(self, shards: int = 2) -> None:
        self.clock = FakeClock()
        self.streams = MemoryStreams(self.clock, [NAMES.raw_stream, NAMES.canonical_stream], shards)
        self.objects = MemoryObjects()
        self.rows = MemoryRows(table_keys(NAMES))
        self.said: list[Event] = []
        self._workers = 0

    def runtime(self, clock: FakeClock | None = None) -> Runtime:
        """The ports of one more worker."""
        self._workers += 1
        return fake_runtime(
            NAMES,
            clock or self.clock,
            self.streams,
            self.rows,
            objects=self.objects,
            chance=FakeChance(self._workers),
            lease_s=LEASE_S,
            emit=self.said.append,
        )

    def worker(
        self, mappings: MappingFiles | None = None, limits: Limits | None = None, binding: Binding = ALL_TABLES
    ) -> "Worker":
        return Worker(self.runtime(), mappings or files(), limits, binding)

    async def drain(self) -> list[CanonicalEvent]:
        """Everything on the raw stream transformed by one more worker; the canonical stream since its creation."""
        await self.worker().drain()
        return self.canonical()

    async def publish(self, *events: ChangeEvent, replay: bool = False, together: int = 1_000) -> None:
        """The events as the extractor would send them: by partition, in envelopes of `together`."""
        runtime = self.runtime()
        by_place: dict[tuple[Partition, str], list[bytes]] = {}
        for event in events:
            at = (Partition(event.tenant_id, event.service, event.endpoint), event.endpoint)
            by_place.setdefault(at, []).append(msgspec.json.encode(event))
        sealed = [
            envelope
            for (partition, endpoint), lines in by_place.items()
            for start in range(0, len(lines), together)
            for envelope in seal(partition, endpoint, lines[start : start + together], replay=replay)
        ]
        await runtime.publisher(NAMES.raw_stream).publish(sealed)

    async def put_raw(self, data: bytes, partition: Partition | None = None) -> None:
        """One record that no extractor made."""
        at = partition or Partition("acme", "desk", "tickets")
        await self.streams.put(NAMES.raw_stream, [Entry(data, at.text, at.hash_key)])

    def canonical(self) -> list[CanonicalEvent]:
        """Every event on the canonical stream, in order of arrival."""
        return [event for _, events in self.envelopes() for event in events]

    def envelopes(self) -> Iterator[tuple[Any, list[CanonicalEvent]]]:
        for record in self.streams.records(NAMES.canonical_stream):
            header, packed = split(record.data)
            packed = self.objects.held[header.object_key] if header.object_key else packed
            yield header, [msgspec.json.decode(line, type=CanonicalEvent) for line in unseal(header, packed)]

    def letters(self) -> dict[str, DeadLetter]:
        return {
            key: msgspec.json.decode(data, type=DeadLetter)
            for key, data in sorted(self.objects.held.items())
            if "/dead-letter/" in key
        }

    def of(self, kind: type[Event]) -> list[Event]:
        return [event for event in self.said if isinstance(event, kind)]

    async def lease_rows(self) -> dict[str, dict[str, Any]]:
        """Of shards, by name."""
        return {row["name"]: row async for row in self.rows.scan(NAMES.leases) if row["scope"] != GROUPS}


class Worker(Transformer):
    """A transformer with its ports at hand, that can be run beside a test and killed."""

    def __init__(
        self, runtime: Runtime, mappings: MappingFiles, limits: Limits | None = None, binding: Binding = ALL_TABLES
    ) -> None:
        super().__init__(runtime, mappings, limits, binding)
        self.ports = runtime
        self.stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def task(self) -> asyncio.Task[None]:
        return self._tasks[0]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Worker"]:
        """It works beside; at the end it is killed, unless it was stopped."""
        renewing = asyncio.create_task(self.ports.leases.renew_forever())
        self._tasks = [asyncio.create_task(self.run(self.stopping)), renewing]
        try:
            yield self
        finally:
            await self.kill()

    async def stop(self) -> None:
        self.stopping.set()
        await self.task

    async def kill(self) -> None:
        """As a process ends that is killed: nothing is let go."""
        self.ports.leases.rows = Unplugged()  # type: ignore[assignment]
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Unplugged:
    """Rows that nobody hears any more."""

    async def write(self, *_: Any, **__: Any) -> None:
        raise RetryableError("killed")


def labels(events: Iterable[CanonicalEvent]) -> list[str]:
    return [event.label for event in events]


def facts(events: Iterable[CanonicalEvent]) -> set[tuple[Any, ...]]:
    """What the lake reads of events: everything but the advice."""
    return {
        (e.tenant_id, e.table, e.service, e.family, e.record_id, e.op, e.effective_at, e.observed_at, e.record_hash)
        for e in events
    }


def texts(events: Sequence[CanonicalEvent]) -> list[tuple[str, str]]:
    return [(event.record_id, event.label) for event in events]
