"""A whole compactor over the ports in memory: put events on the streams, run workers, kill them, look at the lake."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import msgspec

from services.compactor import parquet
from services.compactor.cut_writer import Totals
from services.compactor.cuts import Rules, ShardRow, read_row
from services.compactor.service import Compactor
from services.contracts.errors import FatalError, RetryableError
from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.log import Event
from services.contracts.names import Names
from services.contracts.partitions import Partition
from services.contracts.ports import Threads
from services.contracts.schema import CanonicalTable
from services.runtime.envelopes import Sealed, seal
from services.runtime.leases import Leases
from services.runtime.provision import table_keys
from services.runtime.publisher import Publisher
from tests.compactor.memory_history import MemoryHistories, MemoryHistory
from tests.compactor.observed import TABLES
from tests.fakes import (
    Call,
    FakeChance,
    FakeClock,
    InlineThreads,
    MemoryObjects,
    MemoryRows,
    MemoryStreams,
)
from tests.runtimes import fake_runtime

LEASE_S = 30.0
TURNS = 100


class Killed(BaseException):
    """SIGKILL: nobody cleans up after it."""


class Plant:
    """One environment. Workers come and go; what they leave stays."""

    def __init__(self, shards: int = 1, rules: Rules | None = None, now: str = "2026-01-31T09:10:00.000000Z") -> None:
        self.names = Names("test")
        self.clock = FakeClock(now)
        streams = [self.names.raw_stream, self.names.canonical_stream]
        self.streams = MemoryStreams(self.clock, streams, shards, before=self._before)
        self.objects = MemoryObjects(before=self._before)
        self.rows = MemoryRows(table_keys(self.names), before=self._before)
        self.histories = MemoryHistories()
        self.rules = rules or Rules()
        self.events: list[Event] = []
        self.catalog_is_down = False
        self.broken_tables: set[str] = set()
        self.calls = 0
        self.calls_max: int | None = None
        self._workers = 0
        self.leases: Leases | None = None
        self.threads: Threads = InlineThreads()
        self.stopping = asyncio.Event()

    # -- the streams
    async def put(self, *events: CanonicalEvent | ChangeEvent, replay: bool = False) -> None:
        """Publish events, an envelope for each run of one partition, as transformer and extractor do."""
        for event in events:
            canonical = isinstance(event, CanonicalEvent)
            group = event.table if isinstance(event, CanonicalEvent) else event.endpoint
            partition = Partition(event.tenant_id, event.service, group)
            envelopes = seal(partition, event.endpoint, [msgspec.json.encode(event)], replay=replay)
            await self.put_sealed(canonical, envelopes)

    async def put_sealed(self, canonical: bool, envelopes: Sequence[Sealed]) -> None:
        stream = self.names.canonical_stream if canonical else self.names.raw_stream
        chance = FakeChance()
        await Publisher(stream, self.streams, self.objects, self.clock, chance, self.events.append).publish(envelopes)

    # -- workers
    def compactor(self) -> Compactor:
        """A new worker, with an identity of its own."""
        self._workers += 1
        self.stopping = asyncio.Event()
        self.runtime = fake_runtime(
            self.names,
            self.clock,
            self.streams,
            self.rows,
            objects=self.objects,
            threads=self.threads,
            chance=FakeChance(self._workers),
            lease_s=LEASE_S,
            emit=self.events.append,
        )
        self.leases = self.runtime.leases
        return Compactor(self.runtime, TABLES, self._history, self.rules)

    def _history(self, tenant_id: str, table: CanonicalTable) -> MemoryHistory:
        if self.catalog_is_down:
            raise RetryableError("the catalog is down")
        if table.table in self.broken_tables:
            raise FatalError("the table is broken", code="bad_mapping")
        return self.histories(tenant_id, table)

    async def run(
        self, seconds: float, *, stop: bool = True, beside: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """A worker for a while, and something beside it; then it stops cleanly, or is killed."""
        compactor = self.compactor()
        other = asyncio.ensure_future(beside()) if beside else None
        await self._beside_renewal(lambda: self._run(compactor, seconds, stop))
        if other is not None:
            other.cancel()
            (failure,) = await asyncio.gather(other, return_exceptions=True)
            if isinstance(failure, Exception):
                raise failure

    async def _run(self, compactor: Compactor, seconds: float, stop: bool) -> None:
        running = asyncio.ensure_future(compactor.run(self.stopping))
        sleeping = asyncio.ensure_future(self.clock.sleep(seconds))
        await asyncio.wait({running, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        if not stop and not running.done():
            self.calls_max = self.calls  # dead from here on: whatever it still tries has no effect
            running.cancel()
        self.stopping.set()
        sleeping.cancel()
        results = await asyncio.gather(running, return_exceptions=True)
        for _ in range(TURNS):  # what was cancelled gets its turn to fail at cleaning up
            await asyncio.sleep(0)
        self.calls_max = None
        for error in results:
            if isinstance(error, Exception):
                raise error

    async def drain(self) -> Totals:
        totals: Totals = await self._beside_renewal(self.compactor().drain)
        return totals

    async def archive(self) -> Totals:
        totals: Totals = await self._beside_renewal(self.compactor().archive)
        return totals

    async def drain_killed_at(self, call: int) -> bool:
        """A drain whose worker dies at the `call`-th call of any port; False when it needed fewer."""
        self.calls_max = self.calls + call
        try:
            await self._beside_renewal(self.compactor().drain)
        except Killed:
            return True
        finally:
            self.calls_max = None
        return False

    async def _beside_renewal(self, work: Callable[[], Awaitable[Any]]) -> Any:
        assert self.leases is not None
        renewing = asyncio.ensure_future(self.leases.renew_forever())
        try:
            return await work()
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _before(self, _: Call) -> None:
        if self.calls_max is not None and self.calls >= self.calls_max:
            raise Killed
        self.calls += 1

    # -- what is there
    def keys(self, part: str) -> list[str]:
        """Names of objects that hold `part`."""
        return sorted(key for key in self.objects.held if part in key)

    def raw(self) -> list[ChangeEvent]:
        """Everything in the raw archive, parts and hours."""
        return [event for key in self.keys("/raw/") for event in parquet.raw_events(self.objects.held[key])]

    def canonical(self) -> list[CanonicalEvent]:
        """Every observation in canonical files."""
        return [
            event
            for key in self.keys("/canonical/")
            for event in parquet.canonical_events(self.objects.held[key], TABLES[key.split("/")[2]])
        ]

    async def shard_rows(self, stream: str) -> dict[str, ShardRow]:
        info = await self.streams.describe(stream)
        scope = {"scope": f"compactor/{stream}/{info.created}"}
        return {row["name"]: read_row(row) async for row in self.rows.query(self.names.leases, scope)}

    def said(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]
