"""The producer: at most one unacknowledged envelope per partition, so that no partial failure can reorder.

Callers offer envelopes and go on when there is room for them; each shard has a lane that sends at the shard's own
pace, so a slow shard holds up its own partitions and the callers that feed it, nobody else. PutRecords may store some
entries of a request and refuse others; only those are sent again, and the next envelope of a partition leaves when
the one before it is acknowledged. A request that was not answered may have been stored: it is sent again, and the
fold absorbs the repeat. After a reshard what waits moves to its new lane, each partition whole and in order.
Source: AWS API reference, PutRecords ("may succeed or fail individually; does not guarantee the ordering").
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from services.contracts.errors import AvesaError, RetryableError, ThrottledError
from services.contracts.log import Event, PutsRefused, Retried, WaitingFor
from services.contracts.partitions import Partition
from services.contracts.ports import Chance, Clock, Objects, Put, Streams
from services.runtime.envelopes import Sealed
from services.runtime.lanes import ATTEMPTS_MAX, HOT_S, Bounds, Lane, LaneMap, mapped, pause_s
from services.runtime.loop import pause
from services.runtime.tickets import Held, Ticket, hold

DESCRIBE_EVERY_S = 5.0  # the shards are asked for at most so often, however many answers name one we do not know
WAIT_MIN_S = 1e-3  # what rounding leaves of a wait may be too little for the clock to move by


class Sent(msgspec.Struct):
    """What a publisher has sent since it was made."""

    events: int = 0
    envelopes: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


class Publisher:
    """Puts envelopes on one stream. Any number of callers; the order within a partition is the order of the calls.

    It needs no starting and no closing: a lane's task begins with the first envelope and ends with the last.
    """

    def __init__(
        self,
        stream: str,
        streams: Streams,
        objects: Objects,
        clock: Clock,
        chance: Chance,
        emit: Callable[[Event], None],
        bounds: Bounds | None = None,
    ) -> None:
        self._stream, self._streams, self._objects = stream, streams, objects
        self._clock, self._chance, self._emit = clock, chance, emit
        self._bounds = bounds or Bounds()
        self._map = LaneMap({}, (), Lane("", self._bounds))
        self._leaving: list[Lane] = []  # lanes of former maps, until what they hold has moved
        self._outdated, self._describe_at = True, clock.monotonic()
        self._outside: deque[Held] = deque()  # in the hands of callers that wait for room
        self._tasks: set[asyncio.Task[None]] = set()
        self.held_bytes = 0
        self.sent = Sent()

    async def publish(self, envelopes: Sequence[Sealed]) -> None:
        """Returns when every envelope is stored. Cancelled, it withdraws what is not on its way.

        Errors: as `offer` and `Ticket.stored`; some envelopes may be stored then, and publishing all of them again
        is harmless.
        """
        ticket = await self.offer(envelopes)
        try:
            await ticket.stored()
        finally:
            self.withdraw(ticket)

    async def offer(self, envelopes: Sequence[Sealed]) -> Ticket:
        """Returns as soon as there is room for all of them; the ticket tells when they are stored.

        Bounds: `Bounds.lane_bytes_max` per shard and `Bounds.held_bytes_max` in all are held, whoever offers; the
        rest stays with its callers, first come first served. One envelope always fits where nothing is held.
        Errors: those of `Objects.create` for bodies beside the stream; nothing was taken then.
        """
        for envelope in envelopes:
            if envelope.beside is not None and envelope.header.object_key is not None:
                await self._objects.create(envelope.header.object_key, envelope.beside)
                self.sent.bytes_after += len(envelope.beside)
        ticket = Ticket(len(envelopes))
        self._outside.extend(hold(envelope, ticket) for envelope in envelopes)
        self._admit()
        try:
            await ticket.admitted()
        except asyncio.CancelledError:
            self.withdraw(ticket)
            raise
        return ticket

    def withdraw(self, ticket: Ticket) -> None:
        """Nobody waits for these any longer: what is not stored is not sent (again). Harmless once all is stored."""
        if ticket.done:
            return
        ticket.withdrawn = True
        error = RetryableError(f"withdrawn before stream {self._stream} took it")
        self._give_up((*self._map.lanes.values(), self._map.rest, *self._leaving), lambda h: h.ticket is ticket, error)

    def lane_bytes(self) -> dict[str, int]:
        """Bytes held by shard id, "" where the shard is not known; for people and metrics."""
        lanes = (*self._map.lanes.values(), self._map.rest, *self._leaving)
        return {lane.shard_id: lane.held_bytes for lane in lanes if lane}

    # -- room ---------------------------------------------------------------------------------------------------------
    def _admit(self) -> None:
        """Take in what there is room for; nobody overtakes in a partition, before a full lane, or when all is full."""
        full: set[Partition | tuple[str, bool]] = set()
        left: deque[Held] = deque()
        while self._outside:
            held = self._outside.popleft()
            if held.partition in full:
                left.append(held)
                continue
            lane = self._lane(held)
            kind = lane.shard_id, held.background
            if kind in full or not lane.fits(held):
                full |= {held.partition, kind}
                left.append(held)
            elif self._has_room(held):
                self._enter(lane, held)
                held.ticket.admit()
            else:
                left.append(held)
                break
        self._outside.extendleft(reversed(left))

    def _has_room(self, held: Held) -> bool:
        return not self.held_bytes or self.held_bytes + held.size <= self._bounds.held_bytes_max

    def _lane(self, held: Held) -> Lane:
        """Where it belongs: with its partition, while that waits in a lane of a former map."""
        for lane in self._leaving:
            if held.partition in lane:
                return lane
        return self._map.find(held.entry.hash_key)

    def _enter(self, lane: Lane, held: Held) -> None:
        lane.push(held)
        self.held_bytes += held.size
        if not lane.running:
            lane.running = True
            task = asyncio.create_task(self._work(lane))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _give_up(self, lanes: Iterable[Lane], which: Callable[[Held], bool], error: AvesaError) -> None:
        """Let go of what meets the condition and is not on its way: in these lanes, and on its way into them."""
        lanes = list(lanes)
        outside = [held for held in self._outside if which(held) and self._lane(held) in lanes]
        gone = {id(held) for held in outside}
        self._outside = deque(held for held in self._outside if id(held) not in gone)
        for held in outside:
            held.ticket.admit()
            held.ticket.give_up(error)
        for lane in lanes:
            for held in lane.drop(which):
                self.held_bytes -= held.size
                held.ticket.give_up(error)
        self._admit()

    # -- one lane -----------------------------------------------------------------------------------------------------
    async def _work(self, lane: Lane) -> None:
        """Send what the lane holds until it holds nothing."""
        try:
            while lane:
                await self._turn(lane)
        finally:
            lane.running = False
            if lane in self._leaving:  # it was emptied before it moved
                self._leaving.remove(lane)
            if lane:  # the loop ends around us, or this is a mistake of ours: nobody is left waiting
                self._back(lane)
                error = RetryableError(f"the work on stream {self._stream} was broken off")
                self._give_up([lane], lambda _: True, error)

    async def _turn(self, lane: Lane) -> None:
        if self._outdated and self._clock.monotonic() >= self._describe_at:
            await self._describe()
            return
        if lane in self._leaving:
            self._move(lane)
            return
        now = self._clock.monotonic()
        wait_s = lane.wait_s(now)
        if wait_s > 0:
            lane.wake.clear()
            await pause(self._clock, lane.wake, max(wait_s, WAIT_MIN_S))
            return
        heads = lane.leave(now)
        try:
            results, asked_s = await self._put(heads)
        except AvesaError as err:  # nothing that waiting would mend
            self._back(heads)
            self._give_up([lane], lambda _: True, err)
            return
        self._settle(lane, heads, results)
        self._judge(lane, results, asked_s)
        self._admit()

    async def _put(self, heads: Sequence[Held]) -> tuple[list[Put], float]:
        """One request: what became of each, and the wait that the other side asked for."""
        for held in heads:
            held.in_flight = True
        try:
            return await self._streams.put(self._stream, [held.entry for held in heads]), 0.0
        except RetryableError as err:
            asked_s = (err.retry_after_s or 0.0) if isinstance(err, ThrottledError) else 0.0
            return [Put(error=err.code)] * len(heads), asked_s

    def _back(self, heads: Iterable[Held]) -> None:
        for held in heads:
            held.in_flight = False

    def _settle(self, lane: Lane, heads: Sequence[Held], results: Sequence[Put]) -> None:
        """What is stored leaves the lane; what is refused stays the first of its partition, if anybody wants it."""
        self._back(heads)
        for held, result in zip(heads, results, strict=True):
            if result.error and not held.ticket.withdrawn:
                continue
            lane.remove(held)
            self.held_bytes -= held.size
            if result.error:
                held.ticket.give_up(RetryableError(f"withdrawn, and stream {self._stream} did not take it"))
                continue
            self._outdated = self._outdated or result.shard_id != lane.shard_id
            self.sent.events += held.header.count
            self.sent.envelopes += 1
            self.sent.bytes_before += held.header.body_bytes
            self.sent.bytes_after += len(held.entry.data)
            held.ticket.store(held.header)

    def _judge(self, lane: Lane, results: Sequence[Put], asked_s: float) -> None:
        """After a request: how the lane goes on."""
        code = next((result.error for result in results if result.error), "")
        if not code:
            lane.failures, lane.hot_from = 0, None
            return
        lane.failures = lane.failures + 1 if all(result.error for result in results) else 0
        if lane.failures >= ATTEMPTS_MAX:
            what = f"stream {self._stream} takes nothing ({code}) after {lane.failures} tries"
            lane.failures, lane.hot_from, self._outdated = 0, None, True
            self._give_up([lane], lambda _: True, RetryableError(what))
            return
        now = self._clock.monotonic()
        rest_s = pause_s(lane.failures, self._chance.fraction(), asked_s)
        lane.not_before = now + rest_s
        self._emit(Retried(what="put_records", code=code, wait_s=rest_s))
        lane.hot_from = now if lane.hot_from is None else lane.hot_from
        if now - lane.hot_from >= HOT_S:
            lane.hot_from = now
            self._emit(PutsRefused(stream=self._stream, shard=lane.shard_id, code=code, held_bytes=lane.held_bytes))

    # -- the map ------------------------------------------------------------------------------------------------------
    async def _describe(self) -> None:
        """Learn the shards, after a reshard or at first. If they cannot be learned, the lanes stay as they are."""
        self._describe_at = self._clock.monotonic() + DESCRIBE_EVERY_S
        self._outdated = False
        try:
            info = await self._streams.describe(self._stream)
        except AvesaError as err:  # PutRecords needs no map, and may be allowed where this is not
            self._outdated = True
            self._emit(WaitingFor(what=f"the shards of stream {self._stream}", why=str(err)))
            return
        former, self._map = self._map, mapped(info.shards, self._map, self._bounds)
        for lane in (*former.lanes.values(), former.rest):
            if lane and self._map.lanes.get(lane.shard_id) is not lane:
                self._leaving.append(lane)
                lane.wake.set()

    def _move(self, lane: Lane) -> None:
        """What waits in a lane of a former map goes where the map of now says, each partition whole and in order; a
        lane may hold more than its bound for a while, all lanes together do not."""
        self._leaving.remove(lane)
        for held in lane.drop(lambda _: True):
            self.held_bytes -= held.size
            self._enter(self._lane(held), held)
        self._admit()
