"""Work on the shards of a stream: find them, lease them, read them in order, parents before children.

Each group (a service) reads the whole stream. One lease row per shard holds the committed position and whatever state
belongs to it; the row is keyed by the stream's creation, so that a new stream of the same name starts afresh.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import msgspec

from services.contracts.errors import ConflictError, FatalError, FencedError, NotFoundError, RetryableError
from services.contracts.log import Event, Retried, WaitingFor
from services.contracts.ports import Clock, Record, Row, Shard, StreamInfo, Streams
from services.runtime.leases import Lease, Leases
from services.runtime.loop import all_of, pause

T = TypeVar("T")

READ_LIMIT = 2_000  # records of one read; an envelope may hold 900,000 bytes, a GetRecords answer at most 10 MiB
POLL_S = 0.5  # two groups at 2 reads/s leave one of the 5 reads/s that a shard allows: AWS API reference, GetRecords
IDLE_POLL_S = 1.0
DISCOVER_S = 10.0
PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 15.0
DRAIN_LEASE_TIMES = 1.5  # a dead owner's lease is free after one lease time and the time to notice it
DRAIN_ATTEMPTS_MAX = 8  # of one shard in a row, with growing pauses: about a minute
DRAIN_WAVES_MAX = 32  # generations of reshards met while draining


class Batch(msgspec.Struct, frozen=True):
    """What one read returned. `position` is the last sequence delivered so far, None before the first record.

    `caught_up`: nothing newer was in the shard. `ended`: a closed shard was read to its end.
    """

    records: tuple[Record, ...]
    position: str | None
    caught_up: bool
    ended: bool


async def read_shard(
    streams: Streams, clock: Clock, stream: str, shard_id: str, after: str | None, lease: Lease | None = None
) -> AsyncIterator[Batch]:
    """Every record after `after`, for ever or until the shard ends; an empty batch where there was nothing.

    Errors: RetryableError when reading fails; a new call with the last position goes on.
    """
    position = after
    iterator: str | None = await streams.iterator(stream, shard_id, position)
    while iterator is not None:
        if lease is not None:
            lease.alive()
        try:
            page = await streams.read(stream, iterator, READ_LIMIT)
        except ConflictError:  # the iterator expired while we were busy: start again after what we delivered
            iterator = await streams.iterator(stream, shard_id, position)
            continue
        iterator = page.next_iterator
        if page.records:
            position = page.records[-1].sequence
        caught_up = page.behind_ms == 0
        yield Batch(page.records, position, caught_up, ended=iterator is None)
        if iterator is not None and caught_up:
            await clock.sleep(POLL_S if page.records else IDLE_POLL_S)


def scope_of(stream: str, created: str, group: str) -> str:
    """Lease scope of one group's work on one life of a stream."""
    return f"{group}/{stream}/{created}"


def ready(shard: Shard, info: StreamInfo, ended: Mapping[str, bool]) -> bool:
    """May this shard be read now? Not before every parent that the stream still lists was read to its end."""
    listed = {known.shard_id for known in info.shards}
    return all(ended.get(parent, False) for parent in shard.parents if parent in listed)


WorkOnShard = Callable[[Lease, Shard, Sequence[Row]], Awaitable[None]]


class ShardWork:
    """Keeps one worker busy with every shard of a stream that it can lease.

    `work(lease, shard, parent_rows)` runs until it is cancelled, loses its lease (FencedError) or the shard has ended;
    it commits `ended: True` itself. A RetryableError pauses that shard alone and starts it again from its row.
    """

    def __init__(
        self,
        stream: str,
        group: str,
        streams: Streams,
        leases: Leases,
        clock: Clock,
        emit: Callable[[Event], None],
        work: WorkOnShard,
    ) -> None:
        self._stream, self._group, self._streams, self._leases = stream, group, streams, leases
        self._clock, self._emit, self._work = clock, emit, work
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set; then every shard is finished cleanly and let go.

        Errors: whatever a shard's work raised that no retry can cure.
        """
        try:
            while not stopping.is_set():
                await self._take_what_is_ready()
                self._raise_failures()
                await pause(self._clock, stopping, min(DISCOVER_S, self._leases.lease_s / 4))
            await asyncio.gather(*self._tasks.values())
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def drain(self, stopping: asyncio.Event, held: list[Lease]) -> None:
        """Once over what the stream holds now, parents before their children; `work` returns when it is caught up.

        Every lease taken is appended to `held`, for the caller to release when what was read is done with.

        Errors: FatalError `already_running` when another worker keeps a shard; a RetryableError that outlasts
        DRAIN_ATTEMPTS_MAX.
        """
        drained: set[str] = set()
        for _ in range(DRAIN_WAVES_MAX):
            scope, found = await self._patiently(self._ready_shards)
            wave = [(shard, parents) for shard, parents in found if shard.shard_id not in drained]
            if not wave or stopping.is_set():
                return
            await all_of(self._drain_shard(scope, shard, parents, held) for shard, parents in wave)
            drained.update(shard.shard_id for shard, _ in wave)
        raise RetryableError(f"stream {self._stream} is resharded faster than it can be drained")

    async def _ready_shards(self) -> tuple[str, list[tuple[Shard, list[Row]]]]:
        """The lease scope of the stream, and each shard that may be read now with the rows of its parents."""
        info = await self._streams.describe(self._stream)
        scope = scope_of(self._stream, info.created, self._group)
        rows = {row["name"]: row async for row in self._leases.rows.query(self._leases.table, {"scope": scope})}
        ended = {name: bool(row.get("ended")) for name, row in rows.items()}
        due = [shard for shard in info.shards if not ended.get(shard.shard_id) and ready(shard, info, ended)]
        return scope, [(shard, [rows[parent] for parent in shard.parents if parent in rows]) for shard in due]

    async def _drain_shard(self, scope: str, shard: Shard, parents: Sequence[Row], held: list[Lease]) -> None:
        wait_s = DRAIN_LEASE_TIMES * self._leases.lease_s
        lease = await self._patiently(partial(self._leases.wait_for, scope, shard.shard_id, wait_s))
        if lease is None:
            raise FatalError(
                f"another {self._group} works on {shard.shard_id}",
                code="already_running",
                where=scope,
                remedy="It does this work already: leave it to that one, or stop it first.",
            )
        held.append(lease)
        await self._patiently(partial(self._work, lease, shard, parents))

    async def _patiently(self, work: Callable[[], Awaitable[T]]) -> T:
        """`work`, tried again with growing pauses. Errors: its RetryableError after DRAIN_ATTEMPTS_MAX."""
        for attempt in range(1, DRAIN_ATTEMPTS_MAX):
            try:
                return await work()
            except RetryableError as err:
                pause_s = min(PAUSE_MAX_S, PAUSE_FIRST_S * 2**attempt)
                self._emit(Retried(what=f"{self._group} on {self._stream}", code=err.code, wait_s=pause_s))
                await self._clock.sleep(pause_s)
        return await work()

    def _raise_failures(self) -> None:
        for shard_id, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[shard_id]
                task.result()

    async def _take_what_is_ready(self) -> None:
        try:
            scope, found = await self._ready_shards()
            for shard, parents in found:
                if shard.shard_id in self._tasks:
                    continue
                lease = await self._leases.acquire(scope, shard.shard_id)
                if lease is not None:
                    self._tasks[shard.shard_id] = asyncio.create_task(self._keep_working(lease, shard, parents))
        except (RetryableError, NotFoundError) as err:
            self._emit(WaitingFor(what=f"stream {self._stream}", why=str(err)))

    async def _keep_working(self, lease: Lease, shard: Shard, parents: Sequence[Row]) -> None:
        pause_s = PAUSE_FIRST_S
        try:
            while not lease.lost.is_set():
                started = self._clock.monotonic()
                try:
                    await self._work(lease, shard, parents)
                    return
                except FencedError:
                    return
                except NotFoundError as err:  # the shard or its stream is gone: what there is now is found anew
                    self._emit(WaitingFor(what=f"{self._group} on {shard.shard_id}", why=str(err)))
                    return
                except RetryableError as err:
                    if self._clock.monotonic() - started > PAUSE_MAX_S:
                        pause_s = PAUSE_FIRST_S
                    self._emit(Retried(what=f"{self._group} on {shard.shard_id}", code=err.code, wait_s=pause_s))
                    lease.alive()
                    await self._clock.sleep(pause_s)
                    pause_s = min(PAUSE_MAX_S, pause_s * 2)
        finally:
            await lease.release()


def read_again(lease: Lease, committed: str | None) -> int:
    """The sequence up to which the former owner had read without committing, 0 if it let go cleanly."""
    progress = lease.row.get("progress") if lease.taken_over else None
    reached = int(progress["position"]) if isinstance(progress, dict) and progress.get("position") else 0
    return reached if reached > int(committed or 0) else 0
