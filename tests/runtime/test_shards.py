"""Work on shards: every record once per owner, in order, parents before children."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

from services.contracts.errors import ConflictError, RetryableError
from services.contracts.log import Event, LeaseGained, Retried
from services.contracts.names import Names
from services.contracts.partitions import HASH_KEY_SPACE
from services.contracts.ports import Entry, Row, Shard
from services.runtime.leases import STALL_MAX_S, Lease
from services.runtime.provision import table_keys
from services.runtime.reading import read_shard
from services.runtime.runtime import Runtime
from services.runtime.shards import ShardWork
from services.runtime.sharing import Share
from tests.fakes import Call, FakeChance, FakeClock, MemoryRows, MemoryStreams
from tests.runtimes import fake_runtime

NAMES = Names("test")
STREAM = NAMES.raw_stream
FIRST = "shardId-000000000000"


class Reader:
    """A service that remembers what it read and commits after every batch."""

    def __init__(self, shards: int = 2) -> None:
        self.clock = FakeClock()
        self.streams = MemoryStreams(self.clock, [STREAM], shards=shards)
        self.rows = MemoryRows(table_keys(NAMES))
        self.read: list[str] = []
        self.said: list[Event] = []
        self.fail_after = -1
        self.runtime = self.worker(1)

    def worker(self, seed: int) -> Runtime:
        return fake_runtime(NAMES, self.clock, self.streams, self.rows, chance=FakeChance(seed), emit=self.said.append)

    def shard_work(self, runtime: Runtime) -> ShardWork:
        return ShardWork(STREAM, "reader", runtime.streams, runtime.leases, self.clock, runtime.emit, self.work)

    async def put(self, *texts: str) -> None:
        entries = [Entry(text.encode(), text, hash(text) % HASH_KEY_SPACE) for text in texts]
        await self.streams.put(STREAM, entries)

    async def work(self, lease: Lease, shard: Shard, _parents: Sequence[Row]) -> None:
        after = (await lease.committed()).get("position")

        async for batch in read_shard(self.runtime, STREAM, shard.shard_id, after, lease):
            if 0 <= self.fail_after <= len(self.read):
                self.fail_after = -1
                raise RetryableError("the other side is down")
            self.read += [record.data.decode() for record in batch.records]
            await lease.commit({"position": batch.position, "ended": batch.ended})

    async def run_for(self, seconds: float, seed: int = 1) -> None:
        """A worker for a while; then it is killed."""
        running = self.start(seed)
        await self.clock.sleep(seconds)
        await end(running)

    def start(self, seed: int, stopping: asyncio.Event | None = None) -> "asyncio.Future[Any]":
        runtime = self.worker(seed)
        work = self.shard_work(runtime).run(stopping or asyncio.Event())
        return asyncio.gather(work, runtime.leases.renew_forever())

    async def owners(self) -> list[int]:
        """How many shards each owner has."""
        info = await self.streams.describe(STREAM)
        scope = {"scope": f"reader/{STREAM}/{info.created}"}
        rows = [row async for row in self.rows.query(NAMES.leases, scope)]
        return sorted(Counter(row["owner"] for row in rows if not row.get("ended")).values())


async def end(*running: "asyncio.Future[Any]") -> None:
    for one in running:
        one.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_every_record_of_every_shard_is_read() -> None:
    reader = Reader(shards=3)
    await reader.put(*(f"r{n}" for n in range(50)))
    await reader.run_for(30)
    assert sorted(reader.read) == sorted(f"r{n}" for n in range(50))


async def test_the_next_owner_goes_on_after_what_was_committed() -> None:
    reader = Reader()
    await reader.put("a", "b")
    await reader.run_for(30)
    await reader.put("c")
    await reader.run_for(30, seed=2)
    assert sorted(reader.read) == ["a", "b", "c"]


async def test_a_child_is_read_after_all_of_its_parents() -> None:
    reader = Reader(shards=1)
    await reader.put("parent1", "parent2")
    left, right = reader.streams.split(STREAM, FIRST)
    await reader.put("child1", "child2")
    grandchild = reader.streams.merge(STREAM, left, right)
    await reader.put("grandchild")
    await reader.run_for(120)
    stages = [text.rstrip("12") for text in reader.read]
    assert stages == ["parent", "parent", "child", "child", "grandchild"]
    assert grandchild


async def test_a_fault_pauses_the_shard_and_it_goes_on_from_its_last_commit() -> None:
    reader = Reader(shards=1)
    await reader.put("a", "b")
    reader.fail_after = 0
    await reader.run_for(60)
    assert reader.read == ["a", "b"]


async def test_an_iterator_that_expired_is_replaced_without_a_gap() -> None:
    reader = Reader(shards=1)
    await reader.put("a")
    seen = []
    async for batch in read_shard(reader.runtime, STREAM, FIRST, None):
        seen += [record.data.decode() for record in batch.records]
        if seen == ["a"]:
            reader.clock.advance(400)
            await reader.put("b")
        if seen == ["a", "b"]:
            break
    assert seen == ["a", "b"]


async def test_nothing_found_is_not_caught_up_while_the_shard_says_it_is_behind() -> None:
    reader = Reader(shards=1)
    await reader.put("a")
    reader.clock.advance(5)
    reader.streams.empty_next(2)
    found = []
    async for batch in read_shard(reader.runtime, STREAM, FIRST, None):
        found.append((len(batch.records), batch.caught_up))
        if batch.records:
            break
    assert found == [(0, False), (0, False), (1, True)]


async def test_a_stream_made_again_under_the_same_name_is_read_from_its_start() -> None:
    reader = Reader(shards=1)
    await reader.put("old")
    await reader.run_for(30)
    reader.streams.delete(STREAM)
    reader.streams.create(STREAM, 1)
    await reader.put("new")
    await reader.run_for(30, seed=2)
    assert reader.read == ["old", "new"]


async def test_a_stream_that_goes_away_under_us_and_comes_back_is_read_on() -> None:
    reader = Reader(shards=1)
    await reader.put("old")
    running = reader.start(1)
    await reader.clock.sleep(30)
    reader.streams.delete(STREAM)
    await reader.clock.sleep(30)
    reader.streams.create(STREAM, 1)
    await reader.put("new")
    await reader.clock.sleep(60)
    assert not running.done()
    await end(running)
    assert reader.read == ["old", "new"]


async def test_a_stream_made_anew_between_two_looks_is_read_by_its_new_rows_alone() -> None:
    reader = Reader(shards=1)
    await reader.put("old")
    running = reader.start(1)
    await reader.clock.sleep(30)
    reader.streams.delete(STREAM)
    reader.streams.create(STREAM, 1)
    await reader.clock.sleep(30)
    await reader.put("new")
    await reader.clock.sleep(30)
    await end(running)
    assert reader.read == ["old", "new"]
    rows = {row["scope"]: row["position"] async for row in reader.rows.scan(NAMES.leases)}
    former, present = [rows[scope] for scope in sorted(rows)]
    assert int(former) < int(present)


async def test_a_second_and_a_third_worker_get_an_even_share_and_nothing_is_read_twice() -> None:
    reader = Reader(shards=6)
    first = reader.start(1)
    await reader.clock.sleep(20)
    assert await reader.owners() == [6]
    second = reader.start(2)
    await reader.clock.sleep(60)
    assert await reader.owners() == [3, 3]
    third = reader.start(3)
    await reader.put(*(f"r{n}" for n in range(60)))
    await reader.clock.sleep(60)
    assert await reader.owners() == [2, 2, 2]
    assert sorted(reader.read) == sorted(f"r{n}" for n in range(60))
    await end(first, second, third)


async def test_the_shards_of_a_dead_worker_are_spread_over_the_others_within_one_and_a_half_lease_times() -> None:
    reader = Reader(shards=6)
    workers = [reader.start(seed) for seed in (1, 2, 3)]
    await reader.clock.sleep(90)
    assert await reader.owners() == [2, 2, 2]
    await end(workers[0])
    await reader.clock.sleep(15)
    assert await reader.owners() == [3, 3]
    await end(*workers[1:])


async def test_a_worker_that_stops_leaves_its_shards_at_once_to_the_others() -> None:
    reader = Reader(shards=4)
    stopping = asyncio.Event()
    first = reader.start(1, stopping)
    await reader.clock.sleep(20)
    stopping.set()
    await reader.clock.sleep(1.5)
    second = reader.start(2)
    await reader.clock.sleep(1)
    assert await reader.owners() == [4]
    await end(first, second)


async def test_children_are_found_as_soon_as_their_parent_has_ended() -> None:
    reader = Reader(shards=1)
    await reader.put("a")
    running = reader.start(1)
    await reader.clock.sleep(20)
    reader.streams.split(STREAM, FIRST)
    await reader.put("b")
    await reader.clock.sleep(2)
    await end(running)
    assert reader.read == ["a", "b"]


async def test_a_shard_that_is_throttled_is_read_on_after_a_pause_from_the_record_it_had() -> None:
    reader = Reader(shards=1)
    await reader.put("a", "b")
    reader.streams.fail_next("read", RetryableError("slow down", code="throttled"), times=6)
    await reader.run_for(60)
    assert reader.read == ["a", "b"]
    assert [event.what for event in reader.said if isinstance(event, Retried)] == [f"reading {FIRST}"] * 6


async def test_an_expired_iterator_whose_replacement_fails_too_is_tried_again_for_ever() -> None:
    reader = Reader(shards=1)
    await reader.put("a")
    running = reader.start(1)
    await reader.clock.sleep(20)
    reader.streams.fail_next("read", ConflictError("expired"))
    reader.streams.fail_next("iterator", RetryableError("down"), times=40)
    await reader.put("b")
    await reader.clock.sleep(600)
    await end(running)
    assert reader.read == ["a", "b"]


async def test_a_shard_is_never_read_more_often_than_two_groups_may() -> None:
    reader = Reader(shards=1)
    reads: list[float] = []

    async def count(call: Call) -> None:
        if call.method == "read":
            reads.append(reader.clock.monotonic())

    reader.streams.before = count
    reader.streams.empty_next(200)  # and yet behind
    await reader.put("a")
    await reader.run_for(60)
    per_second = Counter(int(at) for at in reads)
    assert max(per_second.values()) <= 3
    assert len(reads) <= 60 * 2.5


async def test_what_was_let_go_for_a_worker_is_taken_by_it_also_beyond_its_even_count() -> None:
    reader = Reader(shards=4)
    first, second = reader.worker(1), reader.worker(2)
    scope = f"reader/{STREAM}/{(await reader.streams.describe(STREAM)).created}"
    names = [shard.shard_id for shard in (await reader.streams.describe(STREAM)).shards]
    for name in names:
        await (first if name == names[0] else second).leases.acquire(scope, name)
    share = Share(second.leases, scope)
    assert await second.leases.ask(scope, names[0], (await second.leases.survey(scope))[names[0]])
    lease = first.leases.holds(scope, names[0])
    assert lease is not None
    await lease.release()
    taken: list[Lease] = []
    await share.turn(names, await second.leases.survey(scope), 10, taken.append)
    assert [lease.name for lease in taken] == [names[0]]


async def test_work_that_waits_when_its_lease_is_lost_is_broken_off_and_begun_anew_once() -> None:
    reader = Reader(shards=1)
    at_work: list[Lease] = []

    async def wait_for_ever(lease: Lease, _shard: Shard, _parents: Sequence[Row]) -> None:
        at_work.append(lease)
        try:
            await asyncio.Event().wait()
        finally:
            at_work.remove(lease)

    runtime = reader.worker(1)
    work = ShardWork(STREAM, "reader", runtime.streams, runtime.leases, reader.clock, runtime.emit, wait_for_ever)
    running = asyncio.gather(work.run(asyncio.Event()), runtime.leases.renew_forever())
    await reader.clock.sleep(20 * STALL_MAX_S)
    assert len([event for event in reader.said if isinstance(event, LeaseGained)]) > 10
    assert len(at_work) == 1
    await end(running)


async def test_a_drain_keeps_what_it_is_done_with_while_it_works_on_the_rest() -> None:
    reader = Reader(shards=2)
    runtime = reader.worker(1)

    async def work(lease: Lease, shard: Shard, _parents: Sequence[Row]) -> None:
        for _ in range(0 if shard.shard_id == FIRST else 10):
            await reader.clock.sleep(STALL_MAX_S / 2)
            lease.alive()

    drained = ShardWork(STREAM, "reader", runtime.streams, runtime.leases, reader.clock, runtime.emit, work)
    renewing = asyncio.ensure_future(runtime.leases.renew_forever())
    held: list[Lease] = []
    await drained.drain(asyncio.Event(), held)
    assert [lease.lost.is_set() for lease in held] == [False, False]
    await end(renewing)
