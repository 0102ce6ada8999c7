"""Simulated AWS: the twins of `tests/fakes.py` with the manners of the real thing, and a log of all that was stored.

Every process has its own view (`seen_by`): the state is shared, the way there is the process's (`Process.call`).
Without a process a call is an operator's: at once and never at fault.

Sources: AWS API reference (PutRecords, GetRecords, GetShardIterator, SplitShard, MergeShards), Kinesis developer guide
("Quotas and limits", "Strategies for resharding": records of a parent before those of its children).
"""

import copy
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from random import Random
from typing import Any, ClassVar, Final, Self, TypeVar

import msgspec

from services.contracts.errors import ConflictError, ThrottledError
from services.contracts.names import Names
from services.contracts.partitions import HASH_KEY_SPACE
from services.contracts.ports import Entry, Key, Page, Put, Record, Row, Value
from services.contracts.times import UtcTime, moment, shifted
from services.runtime.provision import table_keys
from tests.fakes import FakeClock, Faulty, MemoryObjects, MemoryRows, MemorySecrets, MemoryStreams
from tests.simulation.calls import Call
from tests.simulation.loop import VirtualLoop
from tests.simulation.processes import Process

T = TypeVar("T")

# The first sequence numbers have 55 digits and the later ones 56, so that whoever compares them as text is found out.
SEQUENCE_FIRST: Final = 10**55 - 40_000_000_000_000_000_000_000
SEQUENCE_STEP: Final = 1_000_000_000_000_000_000_000
THROTTLED: Final = "ProvisionedThroughputExceededException"


class Quotas(msgspec.Struct, frozen=True):
    """Of one shard and second: AWS's own. Kinesis developer guide, "Quotas and limits".

    `trims` by retention: else that is an operator's hand (`SimStreams.trim`), at a moment of a fault's choosing.
    """

    write_bytes: int = 1 << 20
    write_records: int = 1_000
    reads: int = 5
    read_bytes: int = 2 << 20
    trims: bool = False


class AwsClock(FakeClock):
    """AWS's own time: that of the loop, which never steps but when an operator lets hours pass (`leap`)."""

    def __init__(self, loop: VirtualLoop, now: UtcTime) -> None:
        super().__init__(now)
        self.loop = loop
        self._began: datetime = moment(now)
        self._leapt_s = 0.0
        self._leaps: list[tuple[float, float]] = []

    def now(self) -> UtcTime:
        return self.shifted_by(0.0)

    def shifted_by(self, seconds: float) -> UtcTime:
        """What a clock shows that is wrong by so much."""
        return self._shown(self.loop.now + self._leapt_s + seconds)

    def then(self, at: float) -> UtcTime:
        """What it showed at a time of the loop."""
        return self._shown(at + sum(seconds for when, seconds in self._leaps if when <= at))

    def _shown(self, seconds: float) -> UtcTime:
        at = self._began + timedelta(seconds=seconds)
        return at.isoformat(timespec="microseconds")[:26] + "Z"

    def monotonic(self) -> float:
        return self.loop.now

    def ago(self, seconds: float) -> UtcTime:
        """So long before now."""
        return shifted(self.now(), seconds=-seconds)

    def leap(self, seconds: float) -> None:
        """Every wall clock goes on by so much; no monotonic clock does."""
        self._leapt_s += seconds
        self._leaps.append((self.loop.now, seconds))


class Stored(msgspec.Struct, frozen=True, gc=False):
    """One record ever stored. `life` is the stream's creation."""

    life: str
    shard_id: str
    record: Record
    hash_key: int


class Committed(msgspec.Struct, frozen=True, gc=False):
    """One write of a row that took effect. `expect` is what it was conditional on, `after` the row as it was then."""

    at: float
    by: str
    key: dict[str, str]
    values: dict[str, Any]
    expect: dict[str, Any]
    after: dict[str, Any]


class Simulated(Faulty):
    """A twin whose calls go the way of the process that makes them."""

    port: ClassVar[str]
    _process: Process | None = None
    _detail: Any = None

    def seen_by(self, process: Process) -> Self:
        """The same state, by that process's way."""
        view = copy.copy(self)
        view._process = process
        return view

    async def _call(self, method: str, subject: str, effect: Callable[[], T]) -> T:
        detail, self._detail = self._detail, None  # set by the method that awaits us: nobody came between
        if self._process is None:
            return effect()
        return await self._process.call(Call(self._process, self.port, method, subject, detail), effect)


class _Bucket:
    """Tokens of one second that flow back evenly."""

    def __init__(self, most: float, now: float) -> None:
        self._most, self._held, self._at = most, most, now

    def take(self, amount: float, now: float) -> bool:
        self._held = min(self._most, self._held + (now - self._at) * self._most)
        self._at = now
        if self._held < min(amount, self._most):
            return False
        self._held -= amount
        return True


class StreamConditions:
    """What is wrong with the streams, for all who use them. Add and remove at will.

    `refuses(stream, shard_id, entry)`: the error code of an entry that is not stored, or "".
    `starves(stream, shard_id)`: this read returns nothing, though there may be something.
    `jitter_s`: arrival times are early by up to so much, and so not monotone. Iterators made up to
    `iterators_expired_at` have expired. `on_jump`, `on_starved`, `on_expired` are told when that made a difference.
    """

    def __init__(self) -> None:
        self.refuses: list[Callable[[str, str, Entry], str]] = []
        self.starves: list[Callable[[str, str], bool]] = []
        self.jitter_s = 0.0
        self.on_jump: Callable[[], None] = lambda: None
        self.on_starved: Callable[[], None] = lambda: None
        self.on_expired: Callable[[], None] = lambda: None
        self.iterators_expired_at = -1.0


class SimStreams(Simulated, MemoryStreams):
    """Kinesis. `log` holds everything ever stored, by stream, whatever became of it."""

    port = "streams"

    def __init__(self, clock: AwsClock, random: Random, names: Sequence[str], shards: int, quotas: Quotas) -> None:
        self.log: dict[str, list[Stored]] = {}
        self.conditions = StreamConditions()
        self.quotas = quotas
        self._random, self._buckets, self._numbered = random, dict[tuple[str, str, str], _Bucket](), [0]
        super().__init__(clock, names, shards)

    # what a process does
    async def put(self, stream: str, entries: Sequence[Entry]) -> list[Put]:
        self._detail = entries
        return await super().put(stream, entries)

    async def iterator(self, stream: str, shard_id: str, after: str | None) -> str:
        self._detail = shard_id
        return await super().iterator(stream, shard_id, after)

    async def read(self, stream: str, iterator: str, limit: int) -> Page:
        self._detail = iterator.split("|")[1]
        return await super().read(stream, iterator, limit)

    # what an operator does
    def open_shards(self, stream: str) -> list[str]:
        """Ids of the shards that take records, in order of their hash keys."""
        found = self._find(stream).shards.items()
        return [name for name, shard in sorted(found, key=lambda item: item[1].hash_range.first) if not shard.closed]

    def created(self, stream: str) -> str:
        return self._find(stream).created

    def reshard(self, stream: str, random: Random) -> str:
        """One split or merge, wherever it is possible; says what."""
        open_shards = self.open_shards(stream)
        if len(open_shards) > 2 and random.random() < 0.5:
            place = random.randrange(len(open_shards) - 1)
            pair = open_shards[place : place + 2]
            return f"{pair[0][-3:]} and {pair[1][-3:]} became {self.merge(stream, *pair)[-3:]}"
        shard_id = random.choice(open_shards)
        children = self.split(stream, shard_id)
        return f"{shard_id[-3:]} became {children[0][-3:]} and {children[1][-3:]}"

    def trim(self, stream: str, shard_id: str, count: int) -> list[Record]:
        """Retention takes the oldest `count` records of a shard; returns them."""
        records = self._find(stream).shards[shard_id].records
        gone = records[:count]
        del records[:count]
        return gone

    def held(self, stream: str, shard_id: str) -> list[Record]:
        """What a shard holds now."""
        return self._find(stream).shards[shard_id].records

    def shard_of(self, stream: str, hash_key: int) -> str:
        """The open shard that a hash key goes to."""
        for shard_id in self.open_shards(stream):
            held = self._find(stream).shards[shard_id].hash_range
            if held.first <= hash_key <= held.last:
                return shard_id
        raise AssertionError(f"no shard holds {hash_key} < {HASH_KEY_SPACE}")

    # effects
    def _put(self, stream: str, entries: Sequence[Entry]) -> list[Put]:
        return [self._store(stream, entry) for entry in entries]

    def _store(self, stream: str, entry: Entry) -> Put:
        shard_id = self.shard_of(stream, entry.hash_key)
        size = len(entry.data) + len(entry.partition_key)
        code = next((code for refuse in self.conditions.refuses if (code := refuse(stream, shard_id, entry))), "")
        if (
            code
            or not self._take(stream, shard_id, "write_records", 1)
            or not self._take(stream, shard_id, "write_bytes", size)
        ):
            return Put(error=code or THROTTLED)
        found = self._find(stream)
        self._numbered[0] += self._random.randint(1, 9)
        sequence = str(SEQUENCE_FIRST + self._numbered[0] * SEQUENCE_STEP + int(shard_id[-4:]))
        record = Record(sequence, self._arrival(found.shards[shard_id].records), bytes(entry.data))
        found.shards[shard_id].records.append(record)
        self.log.setdefault(stream, []).append(Stored(found.created, shard_id, record, entry.hash_key))
        return Put(shard_id, sequence)

    def _arrival(self, before: Sequence[Record]) -> UtcTime:
        """Arrival times are near the truth and not monotone: developer guide, ApproximateArrivalTimestamp."""
        now = self._clock.now()
        if not self.conditions.jitter_s:
            return now
        at = shifted(now, seconds=-self._random.random() * self.conditions.jitter_s)
        if before and at < before[-1].arrived_at:
            self.conditions.on_jump()
        return at

    def _read(self, stream: str, iterator: str, limit: int) -> Page:
        _, shard_id, _, made = iterator.split("|")
        if not self._take(stream, shard_id, "reads", 1):
            raise ThrottledError(f"more than {self.quotas.reads} reads a second of {shard_id}")
        if float(made) <= self.conditions.iterators_expired_at:
            self.conditions.on_expired()
            raise ConflictError("the iterator has expired")
        starved = any(starve(stream, shard_id) for starve in self.conditions.starves)
        self._empty_reads = int(starved)
        page = super()._read(stream, iterator, limit)
        self._empty_reads = 0
        if starved and page.behind_ms:
            self.conditions.on_starved()
        size = sum(len(record.data) for record in page.records)
        if size and not self._take(stream, shard_id, "read_bytes", size):
            raise ThrottledError(f"more than {self.quotas.read_bytes} bytes a second of {shard_id}")
        return page

    def _first(self, records: list[Record], after: int) -> int:
        if self.quotas.trims:
            return super()._first(records, after)
        return bisect_right(records, after, key=_number)

    def _take(self, stream: str, shard_id: str, what: str, amount: float) -> bool:
        now, at = self._clock.monotonic(), (stream, shard_id, what)
        if at not in self._buckets:
            self._buckets[at] = _Bucket(float(getattr(self.quotas, what)), now)
        return self._buckets[at].take(amount, now)


def _number(record: Record) -> int:
    return int(record.sequence)


class SimObjects(Simulated, MemoryObjects):
    """S3."""

    port = "objects"


class SimRows(Simulated, MemoryRows):
    """DynamoDB. `log` holds every write to a lease row that took effect."""

    port = "rows"

    def __init__(self, names: Names, clock: AwsClock) -> None:
        super().__init__(table_keys(names))
        self.log: list[Committed] = []
        self._names, self._clock = names, clock

    async def get(self, table: str, key: Key) -> Row | None:
        self._detail = (key,)
        return await super().get(table, key)

    async def write(
        self, table: str, key: Key, values: Mapping[str, Value], expect: Mapping[str, Value] | None = None
    ) -> None:
        self._detail = (key, values, expect)
        await super().write(table, key, values, expect)

    async def delete(self, table: str, key: Key, expect: Mapping[str, Value] | None = None) -> None:
        self._detail = (key, {}, expect)
        await super().delete(table, key, expect)

    async def _call(self, method: str, subject: str, effect: Callable[[], T]) -> T:
        if method != "write" or subject != self._names.leases:
            return await super()._call(method, subject, effect)
        key, values, expect = self._detail
        by = self._process.name if self._process else "operator"

        def logged() -> T:
            result = effect()
            after = self.held(subject, key)
            self.log.append(Committed(self._clock.monotonic(), by, dict(key), dict(values), dict(expect or {}), after))
            return result

        return await super()._call(method, subject, logged)

    # what an operator does
    def held(self, table: str, key: Key) -> dict[str, Any]:
        """A row as it is, in DynamoDB's own form."""
        return dict(self._tables[table].get(self._place(table, key), {}))

    async def rows(self, table: str) -> list[Row]:
        """Every row, at once."""
        found: AsyncIterator[Row] = MemoryRows.scan(self, table)
        return [row async for row in found]


class SimSecrets(Simulated, MemorySecrets):
    """Secrets Manager."""

    port = "secrets"


class Aws:
    """All of it, in one account."""

    def __init__(
        self, clock: AwsClock, names: Names, random: Random, shards: int, quotas: Quotas | None = None
    ) -> None:
        self.clock = clock
        streams = [names.raw_stream, names.canonical_stream]
        self.streams = SimStreams(clock, random, streams, shards, quotas or Quotas())
        self.objects = SimObjects()
        self.rows = SimRows(names, clock)
        self.secrets = SimSecrets()
