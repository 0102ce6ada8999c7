"""The compactor: both streams into files, and the canonical ones into the Iceberg tables.

Each shard is read, spooled and cut on its own (cutting.py); what is cut is merged table by table (merging.py), and the
files of a complete hour become one (hours.py). Leases are renewed by whoever made the runtime
(`Leases.renew_forever`), beside this.
"""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count

from services.compactor.cut_writer import Totals
from services.compactor.cuts import Rules
from services.compactor.cutting import SERVICE, ShardCutter, Workshop
from services.compactor.files import Kind
from services.compactor.healing import Healing, Round
from services.compactor.hours import Hours
from services.compactor.merging import Histories, Merging
from services.compactor.tables import Tables
from services.contracts.integration import Integration
from services.contracts.log import Event, LakeBehind, ServiceStarted, ServiceStopped
from services.contracts.ports import Row, Shard
from services.contracts.schema import CanonicalTable
from services.contracts.times import seconds_between
from services.runtime.beat import beat, shards_behind
from services.runtime.leases import Lease, all_alive
from services.runtime.loop import all_of, beating, run_together
from services.runtime.runtime import Runtime
from services.runtime.shards import ShardWork, WorkOnShard


class Compactor:
    """One worker's share of both streams. `histories` opens the tables of a tenant: `Warehouse.history`."""

    def __init__(
        self,
        runtime: Runtime,
        tables: Mapping[str, CanonicalTable],
        histories: Histories,
        rules: Rules | None = None,
        integrations: Mapping[str, Integration] | None = None,
    ) -> None:
        self._runtime = runtime
        self._streams: dict[Kind, str] = {"raw": runtime.names.raw_stream, "canonical": runtime.names.canonical_stream}
        self._cutters: dict[ShardCutter, None] = {}
        self.totals, known = Totals(), Tables(runtime.objects, tables)
        self._workshop = Workshop(runtime, rules or Rules(), known, count(1), self.totals)
        self._merging = Merging(runtime, histories, known, self._cutters, self.totals)
        self._hours = Hours(runtime, self._cutters, self.totals)
        self._healing = Healing(runtime, integrations or {}, self._workshop.rules.gaps)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set; then what was read is spooled, committed and let go.

        Errors: FatalError that no retry can cure.
        """
        shards = [self._shards(stream, partial(self._work, kind)).run for kind, stream in self._streams.items()]
        worker, emit = self._runtime.leases.worker, self._runtime.emit
        emit(ServiceStarted(service=SERVICE, worker=worker))
        alive = beat(self._runtime, SERVICE, SERVICE, self._measure)
        await run_together([*shards, self._merging.run, self._hours.run, self._healing.run, alive], stopping)
        emit(ServiceStopped(service=SERVICE, worker=worker, reason="asked to stop"))

    def _measure(self) -> list[Event]:
        """How far reading is behind the streams, and the tables behind what was read."""
        now = self._runtime.clock.now()
        since = min((at for cutter in self._cutters if (at := cutter.unfinished_since) is not None), default=now)
        lake = LakeBehind(seconds=max(0.0, seconds_between(since, now)))
        return [shards_behind(self._runtime, SERVICE, SERVICE), lake]

    def _shards(self, stream: str, work: WorkOnShard) -> ShardWork:
        runtime = self._runtime
        return ShardWork(stream, SERVICE, runtime.streams, runtime.leases, runtime.clock, runtime.emit, work)

    async def drain(self, stopping: asyncio.Event | None = None) -> Totals:
        """Read both streams until caught up, cut all of it, merge it; what that was.

        Errors: those of `ShardWork.drain`.
        """
        stopping = stopping or asyncio.Event()
        held: list[Lease] = []
        try:
            await all_of(
                self._shards(stream, partial(self._drain, kind)).drain(stopping, held)
                for kind, stream in self._streams.items()
            )
            if not stopping.is_set():
                await beating(self._merging.drain(), partial(all_alive, held), self._runtime.clock)
                await self._hours.consolidate()
            return self.totals
        finally:
            self._cutters.clear()
            await asyncio.gather(*(lease.release() for lease in held))

    async def heal(self) -> Round:
        """One round over what expired unread. What it publishes is to be transformed and drained once more."""
        return await self._healing.heal_once()

    async def archive(self, stopping: asyncio.Event | None = None) -> Totals:
        """Read the raw stream until caught up and cut all of it, so that raw/ holds what had arrived; merge nothing.

        Errors: those of `ShardWork.drain`.
        """
        stopping = stopping or asyncio.Event()
        held: list[Lease] = []
        try:
            await self._shards(self._streams["raw"], partial(self._drain, "raw")).drain(stopping, held)
            return self.totals
        finally:
            self._cutters.clear()
            await asyncio.gather(*(lease.release() for lease in held))

    async def _work(self, kind: Kind, lease: Lease, shard: Shard, parents: Sequence[Row]) -> None:
        """One shard, from what is committed until it ends or the lease is to be left."""
        cutter = self._cutter(kind, lease, shard)
        try:
            await cutter.open(parents)
            self._cutters[cutter] = None
            await cutter.run()
        finally:
            self._cutters.pop(cutter, None)

    async def _drain(self, kind: Kind, lease: Lease, shard: Shard, parents: Sequence[Row]) -> None:
        """One shard, from what is committed until it is caught up; its cuts wait to be merged."""
        cutter = self._cutter(kind, lease, shard)
        await cutter.open(parents)
        await cutter.run(drain=True)
        self._cutters[cutter] = None

    def _cutter(self, kind: Kind, lease: Lease, shard: Shard) -> ShardCutter:
        return ShardCutter(self._workshop, kind, self._streams[kind], lease, shard)
