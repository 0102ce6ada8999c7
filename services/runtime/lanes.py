"""One lane per shard: what waits for the shard, whose turn it is, and how fast it may go. No I/O, no clock.

Within a lane each partition has a queue, and only its head may be on the way. Heads take turns; background work
(replayed envelopes) goes when no live head waits, and takes at most half of what the shard takes.
"""

import asyncio
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

import msgspec

from services.contracts.partitions import Partition
from services.contracts.ports import Shard
from services.runtime.tickets import Held

REQUEST_RECORDS_MAX = 500  # AWS API reference: PutRecords. Its 5 MiB are never reached: a shard takes 1 MiB a second
SHARD_BYTES_S = 1024 * 1024  # AWS API reference: PutRecords, "1 MiB per second" and shard, partition keys included
SHARD_RECORDS_S = 1_000  # the same page
BACKGROUND_S = 2.0  # background work may send in two seconds what a shard takes in one: half of it
LANE_BYTES_MAX = 16 * 1024 * 1024  # sixteen seconds of a shard; more only stands longer in memory
HELD_BYTES_MAX = 64 * 1024 * 1024  # all lanes together
ATTEMPTS_MAX = 12  # in a row without one entry stored, about a minute; then the caller pauses
WAIT_FIRST_S, WAIT_MAX_S = 0.1, 8.0
HOT_S = 30.0  # a shard that refuses for so long is named


class Bounds(msgspec.Struct, frozen=True):
    """How much a publisher holds and sends. Units: bytes as the stream counts them (data and partition key)."""

    shard_bytes_s: int = SHARD_BYTES_S
    shard_records_s: int = SHARD_RECORDS_S
    lane_bytes_max: int = LANE_BYTES_MAX
    held_bytes_max: int = HELD_BYTES_MAX


class Window:
    """What was sent in the last `span_s` seconds, and whether more may follow.

    A token bucket of one second's tokens would let two seconds' worth through within one: what lay in it, and what
    flows in. So the window slides, and no span of that length ever holds more than is allowed.
    """

    def __init__(self, span_s: float, bytes_max: int, records_max: int) -> None:
        self._span_s, self._bytes_max, self._records_max = span_s, bytes_max, records_max
        self._sent: deque[tuple[float, int]] = deque()
        self._bytes = 0

    def add(self, now: float, size: int) -> None:
        """One record leaves."""
        self._sent.append((now, size))
        self._bytes += size

    def wait_s(self, now: float, size: int, records: int = 1) -> float:
        """How long until so many records of that size together may leave: 0 is now. What is larger than all that is
        allowed leaves when nothing else is in the window."""
        while self._sent and self._sent[0][0] + self._span_s <= now:
            self._bytes -= self._sent.popleft()[1]
        bytes_left = self._bytes + min(size, self._bytes_max) - self._bytes_max
        records_left = len(self._sent) + min(records, self._records_max) - self._records_max
        if bytes_left <= 0 and records_left <= 0:
            return 0.0
        for at, sent in self._sent:
            bytes_left -= sent
            records_left -= 1
            if bytes_left <= 0 and records_left <= 0:
                return at + self._span_s - now
        raise AssertionError("an empty window takes a record")


class Lane:
    """What waits for one shard. At most one request of it is under way.

    `wake` is set when who sleeps for it should look again; `running`: a task works on it; `failures` in a row without
    one entry stored; until `not_before` (monotonic seconds) it rests; `hot_from`: since when it refuses entries.
    """

    def __init__(self, shard_id: str, bounds: Bounds) -> None:
        self.shard_id = shard_id
        self.held_bytes = 0
        self.wake = asyncio.Event()
        self.running = False
        self.failures = 0
        self.not_before = 0.0
        self.hot_from: float | None = None
        self._bytes_max = bounds.lane_bytes_max
        self._background_bytes = 0
        self._live: dict[Partition, deque[Held]] = {}  # by the head of the queue
        self._background: dict[Partition, deque[Held]] = {}
        self._pace = Window(1.0, bounds.shard_bytes_s, bounds.shard_records_s)
        self._background_pace = Window(BACKGROUND_S, bounds.shard_bytes_s, bounds.shard_records_s)

    def __bool__(self) -> bool:
        return bool(self._live or self._background)

    def __contains__(self, partition: Partition) -> bool:
        return partition in self._live or partition in self._background

    def __iter__(self) -> Iterator[Held]:
        """All it holds, each partition in its order."""
        for queues in (self._live, self._background):
            for queue in queues.values():
                yield from queue

    def fits(self, held: Held) -> bool:
        """Is there room for one more? Background work may fill half of a lane, so that live work always finds some;
        whatever its size, one always fits where nothing is held."""
        if held.background and self._background_bytes:
            return self._background_bytes + held.size <= self._bytes_max // 2 and self._fits(held)
        return self._fits(held)

    def _fits(self, held: Held) -> bool:
        return not self.held_bytes or self.held_bytes + held.size <= self._bytes_max

    def push(self, held: Held) -> None:
        """Last of its partition."""
        if not held.background and not self._live:
            self.wake.set()  # it may go where background work would have to wait
        queue = self._live.get(held.partition) or self._background.get(held.partition)
        if queue is None:
            self._place(held.partition, deque([held]))
        else:
            queue.append(held)
        self._count(held, 1)

    def wait_s(self, now: float) -> float:
        """How long until something may leave, 0 is now; asked only where something is held."""
        queue = next(iter((self._live or self._background).values()))
        return max(self.not_before - now, self._pace_s(now, queue[0]))

    def leave(self, now: float) -> list[Held]:
        """The heads that may leave now, one per partition, as many as one request and the shard's pace take."""
        heads: list[Held] = []
        for queue in self._live.values():
            # No smaller one goes before one that must wait: it might wait for ever.
            if len(heads) == REQUEST_RECORDS_MAX or self._pace_s(now, queue[0]) > 0:
                return heads
            heads.append(self._leaves(now, queue[0]))
        ahead = (
            [held.size for queue in self._live.values() for held in islice(queue, 1, None)] if self._background else []
        )
        for queue in self._background.values():
            # What live work waits behind its heads finds the room that it needs next.
            reserved_s = self._pace.wait_s(now, queue[0].size + sum(ahead), 1 + len(ahead))
            if len(heads) == REQUEST_RECORDS_MAX or reserved_s > 0 or self._pace_s(now, queue[0]) > 0:
                return heads
            heads.append(self._leaves(now, queue[0]))
        return heads

    def _leaves(self, now: float, head: Held) -> Held:
        self._pace.add(now, head.size)
        if head.background:
            self._background_pace.add(now, head.size)
        return head

    def remove(self, head: Held) -> None:
        """The head of a partition is stored, or nobody wants it; the next takes its turn behind other partitions."""
        queue = (self._background if head.background else self._live).pop(head.partition)
        removed = queue.popleft()
        assert removed is head
        self._count(head, -1)
        self._place(head.partition, queue)

    def drop(self, which: Callable[[Held], bool]) -> list[Held]:
        """Take out what is not on its way and meets the condition; the rest stays in its order."""
        before = list(self)
        dropped = [held for held in before if not held.in_flight and which(held)]
        if dropped:
            self._live, self._background = {}, {}
            self.held_bytes = self._background_bytes = 0
            gone = {id(held) for held in dropped}
            for held in before:
                if id(held) not in gone:
                    self.push(held)
            self.wake.set()
        return dropped

    def _pace_s(self, now: float, head: Held) -> float:
        wait_s = self._pace.wait_s(now, head.size)
        return max(wait_s, self._background_pace.wait_s(now, head.size)) if head.background else wait_s

    def _place(self, partition: Partition, queue: deque[Held]) -> None:
        if queue:
            (self._background if queue[0].background else self._live)[partition] = queue

    def _count(self, held: Held, sign: int) -> None:
        self.held_bytes += sign * held.size
        self._background_bytes += sign * held.size * held.background


class LaneMap:
    """Which lane a hash key belongs to. `rest` takes what no open shard claims: everything, while none is known."""

    def __init__(self, lanes: Mapping[str, Lane], shards: Iterable[Shard], rest: Lane) -> None:
        self.lanes, self.rest = lanes, rest
        self._shards = sorted((s for s in shards if s.shard_id in lanes), key=lambda shard: shard.hash_range.first)
        self._firsts = [shard.hash_range.first for shard in self._shards]

    def find(self, hash_key: int) -> Lane:
        place = bisect_right(self._firsts, hash_key) - 1
        if place < 0 or hash_key > self._shards[place].hash_range.last:
            return self.rest
        return self.lanes[self._shards[place].shard_id]


def mapped(shards: Iterable[Shard], before: LaneMap, bounds: Bounds) -> LaneMap:
    """The map of a stream's open shards; a shard known before keeps its lane."""
    still_open = [shard for shard in shards if not shard.closed]
    lanes = {s.shard_id: before.lanes.get(s.shard_id) or Lane(s.shard_id, bounds) for s in still_open}
    return LaneMap(lanes, still_open, Lane("", bounds))


def pause_s(failures: int, fraction: float, asked_s: float = 0.0) -> float:
    """How long a lane rests after a failure: doubling, with jitter, and at least what the other side asked for."""
    return max(min(WAIT_MAX_S, WAIT_FIRST_S * 2.0**failures) * (0.5 + fraction), min(WAIT_MAX_S, asked_s))
