"""Work on shards: every record once per owner, in order, parents before children."""

import asyncio
from collections.abc import Sequence

from services.contracts.errors import RetryableError
from services.contracts.partitions import HASH_KEY_SPACE
from services.contracts.ports import Entry, Row, Shard
from services.runtime.leases import Lease, Leases
from services.runtime.shards import ShardWork, read_shard
from tests.fakes import FakeChance, FakeClock, MemoryRows, MemoryStreams

STREAM = "raw"


class Reader:
    """A service that remembers what it read and commits after every batch."""

    def __init__(self, shards: int = 2) -> None:
        self.clock = FakeClock()
        self.streams = MemoryStreams(self.clock, [STREAM], shards=shards)
        self.rows = MemoryRows({"Leases": ("scope", "name")})
        self.read: list[str] = []
        self.fail_after = -1

    async def put(self, *texts: str) -> None:
        entries = [Entry(text.encode(), text, hash(text) % HASH_KEY_SPACE) for text in texts]
        await self.streams.put(STREAM, entries)

    async def work(self, lease: Lease, shard: Shard, _parents: Sequence[Row]) -> None:
        after = lease.row.get("position")
        async for batch in read_shard(self.streams, self.clock, STREAM, shard.shard_id, after, lease):
            if 0 <= self.fail_after <= len(self.read):
                self.fail_after = -1
                raise RetryableError("the other side is down")
            self.read += [record.data.decode() for record in batch.records]
            await lease.commit({"position": batch.position, "ended": batch.ended})

    async def run_for(self, seconds: float, seed: int = 1) -> None:
        leases = Leases(self.rows, "Leases", self.clock, FakeChance(seed), lambda _: None, 10.0)
        work = ShardWork(STREAM, "reader", self.streams, leases, self.clock, lambda _: None, self.work)
        running = asyncio.create_task(work.run(asyncio.Event()))
        renewing = asyncio.create_task(leases.renew_forever())
        await self.clock.sleep(seconds)
        running.cancel()
        renewing.cancel()
        await asyncio.gather(running, renewing, return_exceptions=True)


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
    left, right = reader.streams.split(STREAM, "shardId-000000000000")
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
    async for batch in read_shard(reader.streams, reader.clock, STREAM, "shardId-000000000000", None):
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
    async for batch in read_shard(reader.streams, reader.clock, STREAM, "shardId-000000000000", None):
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
    leases = Leases(reader.rows, "Leases", reader.clock, FakeChance(1), lambda _: None, 10.0)
    work = ShardWork(STREAM, "reader", reader.streams, leases, reader.clock, lambda _: None, reader.work)
    running = asyncio.create_task(work.run(asyncio.Event()))
    await reader.clock.sleep(30)
    reader.streams.delete(STREAM)
    await reader.clock.sleep(30)
    reader.streams.create(STREAM, 1)
    await reader.put("new")
    await reader.clock.sleep(60)
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert reader.read == ["old", "new"]
