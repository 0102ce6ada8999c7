"""The transformer: raw stream in, canonical stream out, every observation mapped and labelled.

The order of effects is the guarantee: output durable, then state durable, then position committed. Whatever happens
in between, the next owner reads again from the committed pair of position and state, and the fold absorbs the repeat.
Leases are renewed by whoever made the runtime (`Leases.renew_forever`), beside this.
"""

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count
from weakref import WeakKeyDictionary

from services.contracts.errors import FatalError
from services.contracts.gaps import GapRules
from services.contracts.log import MemoryLost, ServiceStarted, ServiceStopped
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import state_key
from services.contracts.ports import Row, Shard
from services.runtime.beat import beat, shards_behind
from services.runtime.gaps import Gaps
from services.runtime.leases import Lease
from services.runtime.loop import run_together, until
from services.runtime.reading import read_shard
from services.runtime.runtime import Runtime
from services.runtime.shards import ShardWork, WorkOnShard
from services.runtime.snapshots import SnapshotState
from services.transformer.catalogue import Catalogue, check
from services.transformer.groups import ALL_TABLES, SERVICE, Binding, join, refuse_others, watch
from services.transformer.shard import Bench, Limits, ShardRun, Totals
from services.transformer.state import Memory


class Transformer:
    """One worker's share of a group's work on the raw stream."""

    def __init__(
        self,
        runtime: Runtime,
        mappings: MappingFiles,
        limits: Limits | None = None,
        binding: Binding = ALL_TABLES,
        gaps: GapRules | None = None,
    ) -> None:
        """Errors: UsageError for a mapping that cannot be compiled."""
        check(mappings, binding)
        self._runtime, self._binding, self._stream = runtime, binding, runtime.names.raw_stream
        catalogue = Catalogue(runtime.objects, mappings, runtime.clock, runtime.emit, binding)
        publisher = runtime.publisher(runtime.names.canonical_stream)
        self._bench = Bench(runtime, catalogue, publisher, limits or Limits())
        self._gaps = Gaps(runtime, gaps or GapRules(), binding.group, self._stream)
        self._consumer = binding.consumer if binding.fan_out else None
        self._segments: WeakKeyDictionary[Lease, Iterator[int]] = WeakKeyDictionary()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set; then what was read is finished, committed and let go.

        Errors: FatalError that no retry can cure.
        """
        await until(stopping, join(self._runtime, self._binding))
        shards = self._shards(partial(self._work, totals=Totals()))
        group, worker, emit = self._binding.group, self._runtime.leases.worker, self._runtime.emit
        emit(ServiceStarted(service=group, worker=worker))
        alive = beat(self._runtime, SERVICE, group, lambda: [shards_behind(self._runtime, SERVICE, group)])
        await run_together([shards.run, partial(watch, self._runtime, self._binding), alive], stopping)
        emit(ServiceStopped(service=group, worker=worker, reason="asked to stop"))

    async def drain(self, stopping: asyncio.Event | None = None) -> Totals:
        """Transform what the stream holds now, commit and return what that was. Errors: those of `ShardWork.drain`."""
        await join(self._runtime, self._binding)
        stopping, totals, held = stopping or asyncio.Event(), Totals(), list[Lease]()
        try:
            await self._shards(partial(self._work, totals=totals, drain=True)).drain(stopping, held)
        finally:
            await asyncio.gather(*(lease.release() for lease in held))
        return totals

    async def resting(self) -> bool:
        """Is nobody transforming? Every shard could be leased then, and is let go at once. Errors: RetryableError."""
        held = list[Lease]()
        try:
            await self._shards(_nothing).drain(asyncio.Event(), held)
        except FatalError as err:
            if err.code != "already_running":
                raise
            return False
        finally:
            await asyncio.gather(*(lease.release() for lease in held))
        return True

    def _shards(self, work: WorkOnShard) -> ShardWork:
        runtime, group = self._runtime, self._binding.group
        return ShardWork(self._stream, group, runtime.streams, runtime.leases, runtime.clock, runtime.emit, work)

    async def _work(
        self, lease: Lease, shard: Shard, parents: Sequence[Row], *, totals: Totals, drain: bool = False
    ) -> None:
        """One shard, from what is committed until it ends, the lease is to be left or, draining, it is caught up."""
        run = await self._open(lease, shard, parents, totals)
        try:
            watch = await self._gaps.watch(lease, shard, lease.row, parents)
            async for batch in read_shard(
                self._runtime, self._stream, shard.shard_id, run.position, lease, self._consumer
            ):
                await watch.meet(batch.records, caught_up=batch.caught_up and not batch.ended)
                whole = await run.take(batch)
                if whole and batch.ended:
                    await run.finish(ended=True)
                    return
                if not whole or (drain and batch.caught_up and not shard.closed):
                    break
                if run.due():
                    await run.commit()
            await run.finish()
        finally:
            await run.close()

    async def _open(self, lease: Lease, shard: Shard, parents: Sequence[Row], totals: Totals) -> ShardRun:
        """Load what is committed."""
        runtime = self._runtime
        row = await lease.committed()
        refuse_others(self._binding, [row, *parents])
        numbers = self._segments.setdefault(lease, count(1))  # one lease may be worked on several times
        state = SnapshotState(
            runtime.objects,
            runtime.states.open(f"{lease.scope}/{lease.name}/{lease.epoch}"),
            lambda _: state_key(lease.scope, lease.name, lease.epoch, next(numbers)),
        )
        memory = Memory(state)
        try:
            if not await memory.load(row, parents, shard.hash_range):
                memory.mark_lost(shard.shard_id)
                runtime.emit(MemoryLost(scope=lease.scope, name=lease.name))
        except BaseException:
            memory.close()
            raise
        return ShardRun(self._bench, lease, shard, memory, row, totals)


async def _nothing(_lease: Lease, _shard: Shard, _parents: Sequence[Row]) -> None:
    """The work of who only asks whether there is a lease."""
