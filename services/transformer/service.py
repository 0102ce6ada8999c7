"""The transformer: raw stream in, canonical stream out, every observation mapped and labelled.

The order of effects is the guarantee: output durable, then state durable, then position committed. Whatever happens
in between, the next owner reads again from the committed pair of position and state, and the fold absorbs the repeat.
Leases are renewed by whoever made the runtime (`Leases.renew_forever`), beside this.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

from services.contracts.errors import FatalError, FencedError, RetryableError
from services.contracts.log import MemoryLost, Retried
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import state_key
from services.contracts.ports import Row, Shard
from services.runtime.leases import Lease
from services.runtime.runtime import Runtime
from services.runtime.shards import PAUSE_FIRST_S, PAUSE_MAX_S, ShardWork, read_shard, ready, scope_of
from services.runtime.snapshots import SnapshotState
from services.transformer.catalogue import Catalogue, check
from services.transformer.shard import Limits, ShardRun, Totals
from services.transformer.state import Memory

GROUP = "transformer"
DRAIN_LEASE_TIMES = 1.5  # a dead owner's lease is free after one lease time and the time to notice it
DRAIN_ATTEMPTS_MAX = 8  # of one shard in a row, with growing pauses: about a minute
DRAIN_WAVES_MAX = 32  # generations of reshards met while draining


class Transformer:
    """One worker's share of the raw stream."""

    def __init__(self, runtime: Runtime, mappings: MappingFiles, limits: Limits | None = None) -> None:
        """Errors: UsageError for a mapping that cannot be compiled."""
        check(mappings)
        self._runtime, self._limits = runtime, limits or Limits()
        self._stream = runtime.names.raw_stream
        self._catalogue = Catalogue(runtime.objects, mappings, runtime.clock, runtime.emit)
        self._publisher = runtime.publisher(runtime.names.canonical_stream)
        self._segments: WeakKeyDictionary[Lease, Iterator[int]] = WeakKeyDictionary()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set; then what was read is finished, committed and let go.

        Errors: FatalError that no retry can cure.
        """
        runtime, work = self._runtime, partial(self._work, totals=Totals(), stopping=stopping)
        streams, leases, clock, emit = runtime.streams, runtime.leases, runtime.clock, runtime.emit
        await ShardWork(self._stream, GROUP, streams, leases, clock, emit, work).run(stopping)

    async def drain(self, stopping: asyncio.Event | None = None) -> Totals:
        """Transform what the stream holds now, commit and return what that was; parents before their children.

        Errors: FatalError `already_running` when another worker keeps a shard; RetryableError after
        DRAIN_ATTEMPTS_MAX.
        """
        stopping = stopping or asyncio.Event()
        totals, drained = Totals(), set[str]()
        for _ in range(DRAIN_WAVES_MAX):
            info = await self._runtime.streams.describe(self._stream)
            scope = scope_of(self._stream, info.created, GROUP)
            leases = self._runtime.leases
            rows = {row["name"]: row async for row in leases.rows.query(leases.table, {"scope": scope})}
            ended = {name: bool(row.get("ended")) for name, row in rows.items()}
            due = [shard for shard in info.shards if not ended.get(shard.shard_id) and ready(shard, info, ended)]
            wave = [shard for shard in due if shard.closed or shard.shard_id not in drained]
            if not wave or stopping.is_set():
                return totals
            parents = {shard.shard_id: [rows[parent] for parent in shard.parents if parent in rows] for shard in wave}
            await _all(self._drain(scope, shard, parents[shard.shard_id], totals, stopping) for shard in wave)
            drained |= parents.keys()
        raise RetryableError(f"stream {self._stream} is resharded faster than it can be drained")

    async def _drain(
        self, scope: str, shard: Shard, parents: Sequence[Row], totals: Totals, stopping: asyncio.Event
    ) -> None:
        leases, clock = self._runtime.leases, self._runtime.clock
        lease = await leases.wait_for(scope, shard.shard_id, DRAIN_LEASE_TIMES * leases.lease_s)
        if lease is None:
            raise _already_running(scope, shard)
        try:
            for attempt in count(1):
                try:
                    await self._work(lease, shard, parents, totals=totals, stopping=stopping, drain=True)
                    break
                except FencedError as err:
                    raise _already_running(scope, shard) from err
                except RetryableError as err:
                    if attempt == DRAIN_ATTEMPTS_MAX:
                        raise
                    pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2**attempt)
                    self._runtime.emit(Retried(what=f"{GROUP} on {shard.shard_id}", code=err.code, wait_s=pause_s))
                    await clock.sleep(pause_s)
        finally:
            await lease.release()

    async def _work(
        self,
        lease: Lease,
        shard: Shard,
        parents: Sequence[Row],
        *,
        totals: Totals,
        stopping: asyncio.Event,
        drain: bool = False,
    ) -> None:
        """One shard, from what is committed until it ends, we are asked to stop or, draining, it is caught up."""
        runtime = self._runtime
        run = await self._open(lease, shard, parents, totals)
        try:
            async for batch in read_shard(
                runtime.streams, runtime.clock, self._stream, shard.shard_id, run.position, lease
            ):
                whole = await run.take(batch, stopping)
                ended = whole and batch.ended
                done = ended or stopping.is_set() or (drain and batch.caught_up and not shard.closed)
                if done or run.due():
                    await run.commit(ended=ended)
                if done:
                    return
        finally:
            run.close()

    async def _open(self, lease: Lease, shard: Shard, parents: Sequence[Row], totals: Totals) -> ShardRun:
        """Load what is committed. Read again and not taken from the lease: the former owner may have committed until
        the very moment at which we took over, and now no more."""
        runtime = self._runtime
        row = await runtime.rows.get(runtime.leases.table, lease.key) or lease.row
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
        return ShardRun(
            runtime, lease, memory, row.get("position"), self._catalogue, self._publisher, self._limits, totals
        )


def _already_running(scope: str, shard: Shard) -> FatalError:
    return FatalError(
        f"another worker is transforming {shard.shard_id}",
        code="already_running",
        where=scope,
        remedy="It does this work already: stop it first, or leave the work to it.",
    )


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All of it at once; the first error ends the rest."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
