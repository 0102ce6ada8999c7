"""The compactor: both streams into files, and the canonical ones into the Iceberg tables.

Each shard is read, spooled and cut on its own (cutting.py); what is cut is merged table by table (merging.py), and the
files of a complete hour become one (hours.py). Leases are renewed by whoever made the runtime
(`Leases.renew_forever`), beside this.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, Final, TypeVar

from services.compactor.cut_writer import Totals
from services.compactor.cuts import Rules
from services.compactor.cutting import SERVICE, ShardCutter, Workshop
from services.compactor.files import Kind
from services.compactor.hours import Hours
from services.compactor.merging import DRAIN_LEASE_TIMES, Histories, Merging
from services.compactor.tables import Tables
from services.contracts.errors import FatalError, RetryableError
from services.contracts.log import Retried
from services.contracts.ports import Row, Shard
from services.contracts.schema import CanonicalTable
from services.runtime.leases import Lease
from services.runtime.loop import run_together
from services.runtime.runtime import Runtime
from services.runtime.shards import PAUSE_FIRST_S, PAUSE_MAX_S, ShardWork, ready, scope_of

T = TypeVar("T")
DRAIN_ATTEMPTS_MAX: Final = 8  # of one thing in a row, with growing pauses: about a minute
DRAIN_WAVES_MAX: Final = 32  # generations of reshards met while draining


class Compactor:
    """One worker's share of both streams. `histories` opens the tables of a tenant: `Warehouse.history`."""

    def __init__(
        self, runtime: Runtime, tables: Mapping[str, CanonicalTable], histories: Histories, rules: Rules | None = None
    ) -> None:
        self._runtime = runtime
        self._streams: dict[Kind, str] = {"raw": runtime.names.raw_stream, "canonical": runtime.names.canonical_stream}
        self._cutters: dict[ShardCutter, None] = {}
        self.totals, known = Totals(), Tables(runtime.objects, tables)
        self._workshop = Workshop(runtime, rules or Rules(), known, count(1), self.totals)
        self._merging = Merging(runtime, histories, known, self._cutters, self.totals)
        self._hours = Hours(runtime, self._cutters, self.totals)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set; then what was read is spooled, committed and let go.

        Errors: FatalError that no retry can cure.
        """
        runtime = self._runtime
        streams, leases, clock, emit = runtime.streams, runtime.leases, runtime.clock, runtime.emit
        shards = [
            ShardWork(stream, SERVICE, streams, leases, clock, emit, partial(self._work, kind, stopping)).run
            for kind, stream in self._streams.items()
        ]
        await run_together([*shards, self._merging.run, self._hours.run], stopping)

    async def drain(self, stopping: asyncio.Event | None = None) -> Totals:
        """Read both streams until caught up, cut all of it, merge it; what that was.

        Errors: FatalError `already_running` when another worker keeps a shard; what still fails after bounded tries.
        """
        stopping = stopping or asyncio.Event()
        held: list[Lease] = []
        try:
            await _all(self._drain_stream(kind, held, stopping) for kind in self._streams)
            if not stopping.is_set():
                await self._merging.drain()
                await self._hours.consolidate()
            return self.totals
        finally:
            self._cutters.clear()
            await asyncio.gather(*(lease.release() for lease in held))

    async def _work(
        self, kind: Kind, stopping: asyncio.Event, lease: Lease, shard: Shard, parents: Sequence[Row]
    ) -> None:
        """One shard, from what is committed until it ends or we are asked to stop."""
        cutter = self._cutter(kind, lease, shard)
        try:
            await cutter.open(parents)
            self._cutters[cutter] = None
            await cutter.run(stopping)
        finally:
            self._cutters.pop(cutter, None)

    def _cutter(self, kind: Kind, lease: Lease, shard: Shard) -> ShardCutter:
        return ShardCutter(self._workshop, kind, self._streams[kind], lease, shard)

    # -- draining
    async def _drain_stream(self, kind: Kind, held: list[Lease], stopping: asyncio.Event) -> None:
        """Every shard, parents before their children; their leases are kept until what they cut is merged."""
        drained: set[str] = set()
        for _ in range(DRAIN_WAVES_MAX):
            scope, found = await self._patiently(partial(self._ready_shards, kind))
            wave = [(shard, parents) for shard, parents in found if shard.shard_id not in drained]
            if not wave or stopping.is_set():
                return
            await _all(self._drain_shard(kind, scope, shard, parents, held, stopping) for shard, parents in wave)
            drained.update(shard.shard_id for shard, _ in wave)
        raise RetryableError(f"stream {self._streams[kind]} is resharded faster than it can be drained")

    async def _ready_shards(self, kind: Kind) -> tuple[str, list[tuple[Shard, list[Row]]]]:
        """The lease scope of the stream, and each shard that may be read now with the rows of its parents."""
        leases, stream = self._runtime.leases, self._streams[kind]
        info = await self._runtime.streams.describe(stream)
        scope = scope_of(stream, info.created, SERVICE)
        rows = {row["name"]: row async for row in leases.rows.query(leases.table, {"scope": scope})}
        ended = {name: bool(row.get("ended")) for name, row in rows.items()}
        due = [shard for shard in info.shards if not ended.get(shard.shard_id) and ready(shard, info, ended)]
        return scope, [(shard, [rows[parent] for parent in shard.parents if parent in rows]) for shard in due]

    async def _drain_shard(
        self,
        kind: Kind,
        scope: str,
        shard: Shard,
        parents: Sequence[Row],
        held: list[Lease],
        stopping: asyncio.Event,
    ) -> None:
        leases = self._runtime.leases
        wait_s = DRAIN_LEASE_TIMES * leases.lease_s
        lease = await self._patiently(partial(leases.wait_for, scope, shard.shard_id, wait_s))
        if lease is None:
            raise FatalError(
                f"another worker is compacting {shard.shard_id}",
                code="already_running",
                where=scope,
                remedy="It does this work already: stop it first, or leave the work to it.",
            )
        held.append(lease)

        async def work() -> None:
            cutter = self._cutter(kind, lease, shard)
            await cutter.open(parents)
            await cutter.run(stopping, drain=True)
            self._cutters[cutter] = None

        await self._patiently(work)

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """`work`, tried again with growing pauses. Errors: its RetryableError after `DRAIN_ATTEMPTS_MAX`."""
        for attempt in range(1, DRAIN_ATTEMPTS_MAX):
            try:
                return await work()
            except RetryableError as err:
                pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2**attempt)
                self._runtime.emit(Retried(what=f"{SERVICE} drain", code=err.code, wait_s=pause_s))
                await self._runtime.clock.sleep(pause_s)
        return await work()


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All of it at once; the first error ends the rest."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
