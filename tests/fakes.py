"""Every port in memory: small, exact, and at fault only when told to be.

`tests/runtime/ports` holds these and the real ones to one contract. Faults are hooks around each call:
`before` may raise (the call had no effect) or wait, `after` may raise (it had, and the answer is lost).
"""

import asyncio
import heapq
import random
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any, Final, ParamSpec, TypeVar

import msgspec

from services.contracts.errors import ConflictError, FatalError, NotFoundError, RetryableError
from services.contracts.partitions import HASH_KEY_SPACE, HashRange
from services.contracts.ports import (
    CONSUMERS_MAX,
    SUBSCRIPTION_S,
    TAKEOVER_S,
    Entry,
    Key,
    ObjectInfo,
    Page,
    Put,
    Record,
    Row,
    Shard,
    StreamInfo,
    Value,
)
from services.contracts.times import UtcTime, seconds_between, shifted
from services.runtime.attributes import from_item, to_attribute, to_item

P = ParamSpec("P")
T = TypeVar("T")


# -- time, chance, threads --------------------------------------------------------------------------------------------
class FakeClock:
    """Time that passes only in `sleep`, `advance` and `set`.

    A sleeper wakes when nothing else in the loop can run, the earliest first: no real time passes, and no task loses
    a turn to one that sleeps less. One clock per loop.
    """

    TURNS_MAX: Final = 1_000  # a task that only spins would hold up time for ever

    def __init__(self, now: UtcTime = "2026-01-01T00:00:00.000000Z") -> None:
        self._start = now
        self._passed = 0.0
        self._stepped = 0.0
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()
        self._watching = False

    def now(self) -> UtcTime:
        return shifted(self._start, seconds=self._passed + self._stepped)

    def monotonic(self) -> float:
        return self._passed

    def advance(self, seconds: float) -> None:
        """Let time pass; sleepers whose time has come go on."""
        self._passed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._passed:
            self._wake()

    def set(self, now: UtcTime) -> None:
        """Step the wall clock, forth or back; `monotonic` and sleepers do not notice."""
        self._stepped += seconds_between(self.now(), now)

    async def sleep(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        woken: asyncio.Future[None] = loop.create_future()
        heapq.heappush(self._sleepers, (self._passed + max(0.0, seconds), next(self._order), woken))
        if not self._watching:
            self._watching = True
            loop.call_soon(self._watch, loop, 0)
        await woken

    def _watch(self, loop: asyncio.AbstractEventLoop, turns: int) -> None:
        """Once a turn: is there anything to do but sleep?"""
        if getattr(loop, "_ready", ()) and turns < self.TURNS_MAX:
            loop.call_soon(self._watch, loop, turns + 1)
            return
        while self._sleepers and self._sleepers[0][2].done():  # cancelled
            heapq.heappop(self._sleepers)
        if self._sleepers:
            self._passed = max(self._passed, self._sleepers[0][0])
            self._wake()
        self._watching = bool(self._sleepers)
        if self._watching:
            loop.call_soon(self._watch, loop, 0)

    def _wake(self) -> None:
        _, _, woken = heapq.heappop(self._sleepers)
        if not woken.done():
            woken.set_result(None)


class FakeChance:
    """The same draws for the same seed; every token differs."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def token(self) -> str:
        return f"{self._random.getrandbits(128):032x}"

    def fraction(self) -> float:
        return self._random.random()


class InlineThreads:
    """No threads: the work is done at once, after others have had a turn."""

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(0)
        return work(*args, **kwargs)


# -- faults -----------------------------------------------------------------------------------------------------------
class Call(msgspec.Struct, frozen=True):
    """One call of a port: `method` as the port names it, `subject` the stream, key, table or secret it is about."""

    method: str
    subject: str


Hook = Callable[[Call], Awaitable[None]]


async def nothing(_: Call) -> None:
    """The hook that does nothing."""


class Faulty:
    """What the ports in memory share: hooks, and faults ordered for the next calls of a method."""

    def __init__(self, before: Hook = nothing, after: Hook = nothing) -> None:
        self.before = before
        self.after = after
        self._ordered: list[tuple[str, Exception, bool]] = []

    def fail_next(self, method: str, error: Exception, times: int = 1) -> None:
        """The next `times` calls of `method` raise and have no effect."""
        self._ordered.extend([(method, error, False)] * times)

    def lose_next(self, method: str, times: int = 1) -> None:
        """The next `times` calls of `method` take effect, and their answers are lost."""
        lost = RetryableError(f"the answer of {method} was lost", code="timeout")
        self._ordered.extend([(method, lost, True)] * times)

    async def _call(self, method: str, subject: str, effect: Callable[[], T]) -> T:
        call = Call(method, subject)
        await asyncio.sleep(0)  # as any call over a network, this lets others run
        await self.before(call)
        ordered = next((fault for fault in self._ordered if fault[0] == method), None)
        if ordered is not None:
            self._ordered.remove(ordered)
            if not ordered[2]:
                raise ordered[1]
        result = effect()
        await self.after(call)
        if ordered is not None:
            raise ordered[1]
        return result


# -- streams ----------------------------------------------------------------------------------------------------------
class _Shard:
    def __init__(self, hash_range: HashRange, parents: tuple[str, ...] = ()) -> None:
        self.hash_range = hash_range
        self.parents = parents
        self.closed = False
        self.records: list[Record] = []


class _Subscription:
    """One consumer's hold on one shard, until the next takes over."""

    def __init__(self, after: int, since: float) -> None:
        self.after = after
        self.since = since


class _Stream:
    def __init__(self, created: UtcTime) -> None:
        self.created = created
        self.consumers: dict[str, dict[str, _Subscription]] = {}  # by name: by shard, the latest subscription
        self.shards: dict[str, _Shard] = {}

    def add(self, hash_range: HashRange, parents: tuple[str, ...] = ()) -> str:
        shard_id = f"shardId-{len(self.shards):012d}"
        self.shards[shard_id] = _Shard(hash_range, parents)
        return shard_id


class MemoryStreams(Faulty):
    """Kinesis, with what emulators lack: parents that keep their records, retention, expiry, and ordered faults."""

    ITERATOR_S: Final = 300.0
    PUSH_S: Final = 0.2  # from one look for what may be pushed to the next
    PUSH_IDLE_S: Final = 5.0  # and an empty page so often where nothing arrives
    READ_BYTES_MAX: Final = 10 << 20  # GetRecords: AWS API reference
    ENTRIES_MAX: Final = 500
    RECORD_BYTES_MAX: Final = 1 << 20  # data and partition key of an entry, unless the stream is told otherwise

    def __init__(
        self,
        clock: FakeClock,
        names: Iterable[str] = (),
        shards: int = 2,
        retention_s: float = 7 * 86_400.0,
        before: Hook = nothing,
        after: Hook = nothing,
    ) -> None:
        super().__init__(before, after)
        self._clock = clock
        self._retention_s = retention_s
        self._streams: dict[str, _Stream] = {}
        self._created = count()
        self._sequences = count(7)  # of growing length: whoever compares them as text is found out
        self._refused: list[tuple[frozenset[int], str]] = []
        self._empty_reads = 0
        for name in names:
            self.create(name, shards)

    # what an operator does
    def create(self, stream: str, shards: int = 2) -> None:
        made = _Stream(shifted(self._clock.now(), microseconds=next(self._created)))
        width = HASH_KEY_SPACE // shards
        for number in range(shards):
            last = HASH_KEY_SPACE - 1 if number == shards - 1 else (number + 1) * width - 1
            made.add(HashRange(number * width, last))
        self._streams[stream] = made

    def delete(self, stream: str) -> None:
        del self._streams[stream]

    def split(self, stream: str, shard_id: str, at: int | None = None) -> tuple[str, str]:
        """Close a shard; its two children meet at hash key `at`, or in the middle."""
        found = self._streams[stream]
        parent = found.shards[shard_id]
        first, last = parent.hash_range.first, parent.hash_range.last
        middle = (first + last + 1) // 2 if at is None else at
        assert first < middle <= last
        assert not parent.closed
        parent.closed = True
        parents = (shard_id,)
        return found.add(HashRange(first, middle - 1), parents), found.add(HashRange(middle, last), parents)

    def merge(self, stream: str, shard_id: str, neighbour_id: str) -> str:
        """Close two neighbours; one child takes both ranges."""
        found = self._streams[stream]
        parents = [found.shards[shard_id], found.shards[neighbour_id]]
        low, high = sorted((parent.hash_range for parent in parents), key=lambda held: held.first)
        assert low.last + 1 == high.first
        assert not any(parent.closed for parent in parents)
        for parent in parents:
            parent.closed = True
        return found.add(HashRange(low.first, high.last), (shard_id, neighbour_id))

    # faults besides those of Faulty
    def refuse_next(self, entries: Iterable[int], code: str = "ProvisionedThroughputExceededException") -> None:
        """The next put fails in part: the entries at these places."""
        self._refused.append((frozenset(entries), code))

    def empty_next(self, times: int = 1) -> None:
        """The next reads find nothing, though there may be something: only `behind_ms` tells."""
        self._empty_reads += times

    # the port
    async def describe(self, stream: str) -> StreamInfo:
        return await self._call("describe", stream, lambda: self._describe(stream))

    async def put(self, stream: str, entries: Sequence[Entry]) -> list[Put]:
        assert 1 <= len(entries) <= self.ENTRIES_MAX, f"{len(entries)} entries"
        if any(len(entry.data) + len(entry.partition_key.encode()) > self.RECORD_BYTES_MAX for entry in entries):
            raise FatalError(f"a record of more than {self.RECORD_BYTES_MAX} bytes", code="too_large")
        return await self._call("put", stream, lambda: self._put(stream, entries))

    async def iterator(self, stream: str, shard_id: str, after: str | None) -> str:
        return await self._call("iterator", stream, lambda: self._iterator(stream, shard_id, int(after or 0)))

    async def read(self, stream: str, iterator: str, limit: int) -> Page:
        return await self._call("read", stream, lambda: self._read(stream, iterator, limit))

    async def subscribe(
        self, stream: str, consumer: str, shard_id: str, after: str | None
    ) -> AsyncGenerator[Page, None]:
        """Faults: `subscribe` is the call, `push` every look for the next page."""
        held = await self._call(
            "subscribe", stream, lambda: self._subscribe(stream, consumer, shard_id, int(after or 0))
        )
        said_at = float("-inf")
        while (now := self._clock.monotonic()) - held.since < SUBSCRIPTION_S:
            page = await self._call("push", stream, lambda: self._push(stream, consumer, shard_id, held))
            if page.records or page.next_iterator is None or now - said_at >= self.PUSH_IDLE_S:
                said_at = now
                yield page
            if page.next_iterator is None:
                return
            await self._clock.sleep(self.PUSH_S)

    def consumers(self, stream: str) -> list[str]:
        """The names registered with a stream."""
        return sorted(self._find(stream).consumers)

    def deregister(self, stream: str, consumer: str) -> None:
        """What an operator may do at any time."""
        del self._find(stream).consumers[consumer]

    def records(self, stream: str) -> list[Record]:
        """All a stream holds, in order of arrival, whatever the shard."""
        held = (record for shard in self._find(stream).shards.values() for record in shard.records)
        return sorted(held, key=lambda record: int(record.sequence))

    def _find(self, stream: str) -> _Stream:
        if stream not in self._streams:
            raise NotFoundError(f"no stream {stream}")
        return self._streams[stream]

    def _describe(self, stream: str) -> StreamInfo:
        found = self._find(stream)
        shards = (
            Shard(shard_id, shard.hash_range, shard.parents, shard.closed) for shard_id, shard in found.shards.items()
        )
        return StreamInfo(found.created, tuple(shards))

    def _put(self, stream: str, entries: Sequence[Entry]) -> list[Put]:
        found = self._find(stream)
        refused, code = self._refused.pop(0) if self._refused else (frozenset[int](), "")
        return [
            Put(error=code) if place in refused else self._append(found, entry) for place, entry in enumerate(entries)
        ]

    def _append(self, stream: _Stream, entry: Entry) -> Put:
        for shard_id, shard in stream.shards.items():
            if not shard.closed and shard.hash_range.first <= entry.hash_key <= shard.hash_range.last:
                sequence = str(next(self._sequences))
                shard.records.append(Record(sequence, self._clock.now(), bytes(entry.data)))
                return Put(shard_id, sequence)
        raise AssertionError(f"no shard holds {entry.hash_key}")

    def _iterator(self, stream: str, shard_id: str, after: int) -> str:
        found = self._find(stream)
        if shard_id not in found.shards:
            raise NotFoundError(f"no shard {shard_id} in {stream}")
        return f"{found.created}|{shard_id}|{after}|{self._clock.monotonic()}"

    def _read(self, stream: str, iterator: str, limit: int) -> Page:
        found = self._find(stream)
        if iterator.count("|") != 3:
            raise ConflictError("this is no iterator")
        created, shard_id, after, made = iterator.split("|")
        if created != found.created or self._clock.monotonic() - float(made) > self.ITERATOR_S:
            raise ConflictError("the iterator has expired")
        shard = found.shards[shard_id]
        start = self._first(shard.records, int(after))
        page = self._page(shard.records[start : start + limit])
        end = start + len(page)
        if end == len(shard.records):
            return Page(tuple(page), None if shard.closed else self._iterator_after(iterator, page), 0)
        behind_ms = self._behind_ms(shard.records, int(page[-1].sequence) if page else int(after))
        return Page(tuple(page), self._iterator_after(iterator, page), behind_ms)

    def _iterator_after(self, iterator: str, page: list[Record]) -> str:
        created, shard_id, after, _ = iterator.split("|")
        return f"{created}|{shard_id}|{page[-1].sequence if page else after}|{self._clock.monotonic()}"

    def _subscribe(self, stream: str, consumer: str, shard_id: str, after: int) -> _Subscription:
        found, now = self._find(stream), self._clock.monotonic()
        if consumer not in found.consumers and len(found.consumers) == CONSUMERS_MAX:
            raise RetryableError(f"{stream} has {CONSUMERS_MAX} consumers")
        subscribed = found.consumers.setdefault(consumer, {})
        if shard_id not in found.shards:
            raise NotFoundError(f"no shard {shard_id} in {stream}")
        if shard_id in subscribed and now - subscribed[shard_id].since < TAKEOVER_S:
            raise RetryableError(f"{shard_id} was subscribed to just now")
        subscribed[shard_id] = _Subscription(after, now)
        return subscribed[shard_id]

    def _push(self, stream: str, consumer: str, shard_id: str, held: _Subscription) -> Page:
        found = self._find(stream)
        if consumer not in found.consumers:
            raise NotFoundError(f"no consumer {consumer} of {stream}")
        if found.consumers[consumer].get(shard_id) is not held:
            raise RetryableError(f"another has subscribed to {shard_id}")
        shard = found.shards[shard_id]
        page = self._page(shard.records[self._first(shard.records, held.after) :])
        held.after = int(page[-1].sequence) if page else held.after
        ended = shard.closed and self._first(shard.records, held.after) == len(shard.records)
        return Page(tuple(page), None if ended else "", self._behind_ms(shard.records, held.after))

    def _behind_ms(self, records: list[Record], after: int) -> int:
        place = self._first(records, after)
        if place == len(records):
            return 0
        return max(1, int(seconds_between(records[place].arrived_at, self._clock.now()) * 1000))

    def _first(self, records: list[Record], after: int) -> int:
        """The place of the first record behind `after` that retention still holds."""
        place = bisect_right(records, after, key=lambda record: int(record.sequence))
        horizon = shifted(self._clock.now(), seconds=-self._retention_s)
        while place < len(records) and records[place].arrived_at < horizon:
            place += 1
        return place

    def _page(self, ahead: list[Record]) -> list[Record]:
        if self._empty_reads:
            self._empty_reads -= 1
            return []
        page: list[Record] = []
        size = 0
        for record in ahead:
            size += len(record.data)
            if page and size > self.READ_BYTES_MAX:
                break
            page.append(record)
        return page


# -- objects ----------------------------------------------------------------------------------------------------------
class MemoryObjects(Faulty):
    """S3. `held` may be looked at and changed by tests."""

    def __init__(self, before: Hook = nothing, after: Hook = nothing) -> None:
        super().__init__(before, after)
        self.held: dict[str, bytes] = {}

    async def get(self, key: str) -> bytes:
        def effect() -> bytes:
            if key not in self.held:
                raise NotFoundError(f"no object {key}")
            return self.held[key]

        return await self._call("get", key, effect)

    async def put(self, key: str, data: bytes) -> None:
        await self._call("put", key, lambda: self.held.update({key: bytes(data)}))

    async def create(self, key: str, data: bytes) -> None:
        def effect() -> None:
            if self.held.setdefault(key, bytes(data)) != data:
                raise ConflictError(f"{key} exists with other content")

        await self._call("create", key, effect)

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        keys = await self._call("list", prefix, lambda: sorted(key for key in self.held if key.startswith(prefix)))
        for key in keys:
            if key in self.held:
                yield ObjectInfo(key, len(self.held[key]))

    async def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            await self._call("delete", key, partial(self.held.pop, key, None))


# -- rows -------------------------------------------------------------------------------------------------------------
_Item = dict[str, dict[str, Any]]


class MemoryRows(Faulty):
    """DynamoDB. `tables` maps each table to its key: partition, and sort if any (`provision.table_keys(names)`).

    Rows are kept in DynamoDB's own form, so that 1 and True differ and nobody shares a list with the store.
    """

    def __init__(self, tables: Mapping[str, tuple[str, ...]], before: Hook = nothing, after: Hook = nothing) -> None:
        super().__init__(before, after)
        self._keys = dict(tables)
        self._tables: dict[str, dict[tuple[str, ...], _Item]] = {table: {} for table in tables}

    async def get(self, table: str, key: Key) -> Row | None:
        def effect() -> Row | None:
            item = self._find(table).get(self._place(table, key))
            return None if item is None else from_item(item)

        return await self._call("get", table, effect)

    async def write(
        self, table: str, key: Key, values: Mapping[str, Value], expect: Mapping[str, Value] | None = None
    ) -> None:
        assert not set(key) & set(values), "a key cannot be set"
        kept, removed = to_item(values), {name for name, value in values.items() if value is None}

        def effect() -> None:
            place = self._place(table, key)
            item = self._find(table).get(place, {})
            self._check(item, expect)
            updated = item | to_item(dict(key)) | kept
            self._tables[table][place] = {name: value for name, value in updated.items() if name not in removed}

        await self._call("write", table, effect)

    async def delete(self, table: str, key: Key, expect: Mapping[str, Value] | None = None) -> None:
        def effect() -> None:
            place = self._place(table, key)
            self._check(self._find(table).get(place, {}), expect)
            self._tables[table].pop(place, None)

        await self._call("delete", table, effect)

    async def query(self, table: str, key: Key) -> AsyncIterator[Row]:
        ((name, partition),) = key.items()
        items = await self._call(
            "query", table, lambda: [item for held, item in sorted(self._find(table).items()) if held[0] == partition]
        )
        assert name == self._keys[table][0], f"{name} is not the partition of {table}"
        for item in items:
            yield from_item(item)

    async def scan(self, table: str) -> AsyncIterator[Row]:
        for item in await self._call("scan", table, lambda: list(self._find(table).values())):
            yield from_item(item)

    def _find(self, table: str) -> dict[tuple[str, ...], _Item]:
        if table not in self._tables:
            raise NotFoundError(f"no table {table}")
        return self._tables[table]

    def _place(self, table: str, key: Key) -> tuple[str, ...]:
        self._find(table)
        names = self._keys[table]
        assert set(key) == set(names), f"{key} is no key of {table}"
        return tuple(key[name] for name in names)

    def _check(self, item: _Item, expect: Mapping[str, Value] | None) -> None:
        for name, value in (expect or {}).items():
            if item.get(name) != (None if value is None else to_attribute(value)):
                raise ConflictError(f"{name} is not as expected")


# -- secrets ----------------------------------------------------------------------------------------------------------
class MemorySecrets(Faulty):
    """Secrets Manager."""

    def __init__(self, before: Hook = nothing, after: Hook = nothing) -> None:
        super().__init__(before, after)
        self.held: dict[str, dict[str, str]] = {}

    async def get(self, name: str) -> dict[str, str]:
        def effect() -> dict[str, str]:
            if name not in self.held:
                raise NotFoundError(f"no secret {name}")
            return dict(self.held[name])

        return await self._call("get", name, effect)

    async def put(self, name: str, values: Mapping[str, str]) -> None:
        await self._call("put", name, lambda: self.held.update({name: dict(values)}))

    async def delete(self, name: str) -> None:
        await self._call("delete", name, lambda: self.held.pop(name, None))


# -- local state ------------------------------------------------------------------------------------------------------
class MemoryState:
    """A local store; `full` makes it refuse what is put, as a full disk does."""

    def __init__(self) -> None:
        self._held: dict[bytes, bytes] = {}
        self.full = False

    def get(self, key: bytes) -> bytes | None:
        return self._held.get(key)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return {key: self._held[key] for key in keys if key in self._held}

    def put_many(self, items: Iterable[tuple[bytes, bytes | None]]) -> None:
        batch = dict(items)
        if self.full:
            raise RetryableError("no room", code="disk_full")
        self._held |= {key: value for key, value in batch.items() if value is not None}
        for key in (key for key, value in batch.items() if value is None):
            self._held.pop(key, None)

    def items(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        yield from sorted((key, value) for key, value in self._held.items() if key.startswith(prefix))

    def clear(self) -> None:
        self._held.clear()

    def close(self) -> None:
        self._held.clear()


class MemoryStates:
    """Opens stores; `opened` keeps the latest of each name."""

    def __init__(self) -> None:
        self.opened: dict[str, MemoryState] = {}

    def open(self, name: str) -> MemoryState:
        self.opened[name] = MemoryState()
        return self.opened[name]
