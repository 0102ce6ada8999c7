"""Work on the shards of a stream: find them, share them, read them in order, parents before children.

Each group (a service, or a transformer of some tables) reads the whole stream. One lease row per shard holds the
committed position and whatever state belongs to it; the row is keyed by the stream's creation, so that a new stream
of the same name starts afresh. Reading itself is `reading.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final, TypeVar

import msgspec

from services.contracts.errors import FatalError, FencedError, NotFoundError, RetryableError
from services.contracts.log import Event, Retried, WaitingFor
from services.contracts.ports import Clock, Row, Shard, StreamInfo, Streams
from services.runtime.gaps import HaltedError
from services.runtime.leases import Lease, Leases, all_alive
from services.runtime.loop import all_of, beating, cancelled, pause, until
from services.runtime.sharing import Share, rest_s

T = TypeVar("T")

DISCOVER_S: Final = 10.0
LOOK_MIN_S: Final = 0.5  # between two looks
SHARDS_MAX: Final = 10_000  # of one worker
PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 15.0
HALTED_S: Final = 60.0  # between two looks at a shard that halts behind a gap
LEAVE_MAX_S: Final = 4.0  # of a clean stop (faults.md row 29)
DRAIN_LEASE_TIMES: Final = 1.5  # a dead owner's lease is free after one lease time and the time to notice it
DRAIN_ATTEMPTS_MAX: Final = 8  # of one shard in a row, with growing pauses: about a minute
DRAIN_WAVES_MAX: Final = 32  # generations of reshards met while draining


def scope_of(stream: str, created: str, group: str) -> str:
    """Lease scope of one group's work on one life of a stream."""
    return f"{group}/{stream}/{created}"


def ready(shard: Shard, info: StreamInfo, ended: Mapping[str, bool]) -> bool:
    """May this shard be read now? Not before every parent that the stream still lists was read to its end."""
    listed = {known.shard_id for known in info.shards}
    return all(ended.get(parent, False) for parent in shard.parents if parent in listed)


def behind_ms(leases: Leases, group: str) -> int:
    """How far one worker's shards of a group are behind the newest record of theirs, at most; 0 without a shard."""
    return max((lease.behind_ms for lease in leases.held if lease.scope.startswith(f"{group}/")), default=0)


WorkOnShard = Callable[[Lease, Shard, Sequence[Row]], Awaitable[None]]


class ShardWork:
    """Keeps one worker busy with its share of the shards of a stream.

    `work(lease, shard, parent_rows)` runs until it is cancelled, is asked to leave (`lease.leaving`), loses its lease
    (FencedError) or the shard has ended; it commits `ended: True` itself. A RetryableError pauses that shard alone and
    starts it again from its row.
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
        self._share: Share | None = None
        self._look = asyncio.Event()  # something ended: there may be children to read

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set; then every shard is finished cleanly and let go.

        Errors: whatever a shard's work raised that no retry can cure.
        """
        watching = asyncio.ensure_future(self._watch(stopping))
        try:
            while not stopping.is_set():
                self._look.clear()
                await self._take_what_is_ready()
                self._raise_failures()
                await pause(self._clock, stopping, LOOK_MIN_S)  # many shards may end at once
                await pause(self._clock, self._look, rest_s(self._leases, self._share, DISCOVER_S) - LOOK_MIN_S)
            await self._leave()
        finally:
            await cancelled([watching, *self._tasks.values()])

    async def _watch(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._look.set()

    async def _leave(self) -> None:
        """Let every shard finish what is in hand; what takes too long is read again by whoever comes next."""
        working: asyncio.Future[Any] = asyncio.gather(*self._tasks.values())
        late: asyncio.Future[Any] = asyncio.ensure_future(self._clock.sleep(LEAVE_MAX_S))
        for lease in self._leases.held:
            lease.leaving.set()
        try:
            await asyncio.wait({working, late}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                working.result()
        finally:
            await cancelled([working, late])

    async def drain(self, stopping: asyncio.Event, held: list[Lease]) -> None:
        """Once over what the stream holds now, parents before their children; `work` returns when it is caught up.

        Every lease taken is appended to `held`, for the caller to release when what was read is done with.

        Errors: FatalError `already_running` when another worker keeps a shard; a RetryableError that outlasts
        DRAIN_ATTEMPTS_MAX.
        """
        drained: set[str] = set()
        leaving = asyncio.ensure_future(_tell_leaving(stopping, held))
        try:
            for _ in range(DRAIN_WAVES_MAX):
                found = await self._patiently(self._ready_shards)
                wave = [shard for name, shard in found.shards.items() if name not in drained]
                if not wave or stopping.is_set():
                    return
                work = all_of(self._drain_shard(found, shard, stopping, held) for shard in wave)
                await beating(work, partial(all_alive, held), self._clock)
                drained.update(shard.shard_id for shard in wave)
        finally:
            await cancelled([leaving])
        raise RetryableError(f"stream {self._stream} is resharded faster than it can be drained")

    async def _ready_shards(self) -> "_Found":
        """What there is, and which of it may be read now."""
        info = await self._streams.describe(self._stream)
        scope = scope_of(self._stream, info.created, self._group)
        rows = await self._leases.survey(scope)
        ended = {name: bool(row.get("ended")) for name, row in rows.items()}
        due = {s.shard_id: s for s in info.shards if not ended.get(s.shard_id) and ready(s, info, ended)}
        return _Found(scope, rows, due)

    async def _drain_shard(self, found: "_Found", shard: Shard, stopping: asyncio.Event, held: list[Lease]) -> None:
        scope = found.scope
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
        if stopping.is_set():
            lease.leaving.set()
        await self._patiently(partial(self._work, lease, shard, found.parents(shard)))

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
            found = await self._ready_shards()
            if self._share is None or self._share.scope != found.scope:
                await self._abandon()
                self._share = Share(self._leases, found.scope)
            room = SHARDS_MAX - len(self._tasks)
            names = [name for name in found.shards if not self._is_ending(found.scope, name)]
            await self._share.turn(names, found.rows, room, partial(self._start, found))
        except (RetryableError, NotFoundError) as err:
            self._emit(WaitingFor(what=f"stream {self._stream}", why=str(err)))

    def _is_ending(self, scope: str, shard_id: str) -> bool:
        """Its lease is lost and the work on it not at its end yet: one shard never has two tasks here."""
        task = self._tasks.get(shard_id)
        return task is not None and not task.done() and self._leases.holds(scope, shard_id) is None

    async def _abandon(self) -> None:
        """The stream was made anew under its name: shards may have the names of former ones, and are others."""
        working = list(self._tasks.values())
        self._tasks.clear()
        await cancelled(working)

    def _start(self, found: "_Found", lease: Lease) -> None:
        shard = found.shards[lease.name]
        self._tasks[lease.name] = asyncio.create_task(self._keep_working(lease, shard, found.parents(shard)))

    async def _keep_working(self, lease: Lease, shard: Shard, parents: Sequence[Row]) -> None:
        pause_s, foreseen = PAUSE_FIRST_S, False
        try:
            while not (lease.lost.is_set() or lease.leaving.is_set()):
                started = self._clock.monotonic()
                try:
                    await until(lease.lost, self._work(lease, shard, parents))
                    break
                except FencedError:
                    break
                except NotFoundError as err:  # the shard or its stream is gone: what there is now is found anew
                    await lease.see()
                    self._emit(WaitingFor(what=f"{self._group} on {shard.shard_id}", why=str(err)))
                    break
                except HaltedError as err:  # its lease is kept, so that no other worker meets it in vain
                    self._emit(WaitingFor(what=f"{self._group} on {shard.shard_id}", why=str(err)))
                    lease.alive()
                    await pause(self._clock, lease.leaving, HALTED_S)
                except RetryableError as err:
                    if self._clock.monotonic() - started > PAUSE_MAX_S:
                        pause_s = PAUSE_FIRST_S
                    self._emit(Retried(what=f"{self._group} on {shard.shard_id}", code=err.code, wait_s=pause_s))
                    lease.alive()
                    await pause(self._clock, lease.leaving, pause_s)
                    pause_s = min(PAUSE_MAX_S, pause_s * 2)
            foreseen = True
        except (FatalError, asyncio.CancelledError):
            foreseen = True
            raise
        finally:
            await lease.release(badly=not foreseen)
            self._look.set()


class _Found(msgspec.Struct, frozen=True):
    """One look at a stream: its lease scope and rows, and the shards that may be read now."""

    scope: str
    rows: dict[str, Row]
    shards: dict[str, Shard]

    def parents(self, shard: Shard) -> list[Row]:
        return [self.rows[parent] for parent in shard.parents if parent in self.rows]


async def _tell_leaving(stopping: asyncio.Event, held: Sequence[Lease]) -> None:
    await stopping.wait()
    for lease in held:
        lease.leaving.set()
