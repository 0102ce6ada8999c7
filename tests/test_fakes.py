"""What the ports in memory do beyond their twins: reshards, retention, faults on order, and time that leaps."""

import asyncio

import pytest

from services.contracts.errors import ConflictError, RetryableError, ThrottledError
from services.contracts.ports import Entry
from tests.fakes import Call, FakeClock, MemoryObjects, MemoryRows, MemoryStreams

LAST = 2**128 - 1


def entries(*texts: str, hash_key: int = 0) -> list[Entry]:
    return [Entry(text.encode(), "p", hash_key) for text in texts]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def streams(clock: FakeClock) -> MemoryStreams:
    return MemoryStreams(clock, ["raw"], shards=1)


async def texts(streams: MemoryStreams, shard: str) -> list[str]:
    page = await streams.read("raw", await streams.iterator("raw", shard, None), 100)
    return [record.data.decode() for record in page.records]


# -- time -------------------------------------------------------------------------------------------------------------
async def test_sleepers_wake_in_order_of_time_and_no_real_time_passes(clock: FakeClock) -> None:
    woken: list[tuple[str, float]] = []

    async def sleeper(name: str, *naps: float) -> None:
        for nap in naps:
            await clock.sleep(nap)
            woken.append((name, clock.monotonic()))

    await asyncio.gather(sleeper("hour", 3600), sleeper("minutes", 60, 60), sleeper("second", 1))
    assert woken == [("second", 1), ("minutes", 60), ("minutes", 120), ("hour", 3600)]
    assert clock.now() == "2026-01-01T01:00:00.000000Z"


async def test_time_waits_for_whoever_has_work_to_do(clock: FakeClock) -> None:
    async def work() -> float:
        for _ in range(50):
            await asyncio.sleep(0)
        return clock.monotonic()

    _, done_at = await asyncio.gather(clock.sleep(1), work())
    assert done_at == 0


async def test_a_task_that_only_spins_cannot_stop_time(clock: FakeClock) -> None:
    sleeping = asyncio.ensure_future(clock.sleep(5))
    while not sleeping.done():  # noqa: ASYNC110  spinning is the point
        await asyncio.sleep(0)
    assert clock.monotonic() == 5


async def test_a_sleeper_cancelled_moves_no_time(clock: FakeClock) -> None:
    sleeping = asyncio.ensure_future(clock.sleep(500))
    await asyncio.sleep(0)
    sleeping.cancel()
    await clock.sleep(1)
    assert clock.monotonic() == 1


async def test_a_step_of_the_wall_clock_leaves_the_monotonic_one_alone(clock: FakeClock) -> None:
    clock.set("2025-12-31T23:00:00.000000Z")
    await clock.sleep(2)
    assert (clock.now(), clock.monotonic()) == ("2025-12-31T23:00:02.000000Z", 2)


async def test_advancing_wakes_who_is_due(clock: FakeClock) -> None:
    sleeping = asyncio.ensure_future(clock.sleep(10))
    await asyncio.sleep(0)
    clock.advance(10)
    await sleeping
    assert clock.monotonic() == 10


# -- reshards ---------------------------------------------------------------------------------------------------------
async def test_a_split_closes_the_parent_which_keeps_its_records(streams: MemoryStreams) -> None:
    (put,) = await streams.put("raw", entries("before"))
    low, high = streams.split("raw", put.shard_id)
    await streams.put("raw", entries("low") + entries("high", hash_key=LAST))
    shards = {shard.shard_id: shard for shard in (await streams.describe("raw")).shards}
    assert shards[put.shard_id].closed
    assert shards[low].parents == shards[high].parents == (put.shard_id,)
    assert [await texts(streams, shard) for shard in (put.shard_id, low, high)] == [["before"], ["low"], ["high"]]


async def test_a_merge_has_two_parents_and_takes_both_ranges(streams: MemoryStreams) -> None:
    low, high = streams.split("raw", "shardId-000000000000")
    child = streams.merge("raw", high, low)
    shards = {shard.shard_id: shard for shard in (await streams.describe("raw")).shards}
    assert set(shards[child].parents) == {low, high}
    assert (shards[child].hash_range.first, shards[child].hash_range.last) == (0, LAST)


async def test_a_closed_shard_ends_and_an_open_one_does_not(streams: MemoryStreams) -> None:
    await streams.put("raw", entries("a", "b"))
    iterator = await streams.iterator("raw", "shardId-000000000000", None)
    streams.split("raw", "shardId-000000000000")
    first = await streams.read("raw", iterator, 1)
    assert first.next_iterator is not None
    last = await streams.read("raw", first.next_iterator, 10)
    assert (len(last.records), last.next_iterator) == (1, None)


# -- the stream's own faults ------------------------------------------------------------------------------------------
async def test_an_iterator_expires_after_five_minutes(streams: MemoryStreams, clock: FakeClock) -> None:
    iterator = await streams.iterator("raw", "shardId-000000000000", None)
    clock.advance(299)
    await streams.read("raw", iterator, 1)
    clock.advance(2)
    with pytest.raises(ConflictError):
        await streams.read("raw", iterator, 1)


async def test_records_older_than_retention_are_gone(streams: MemoryStreams, clock: FakeClock) -> None:
    await streams.put("raw", entries("old"))
    clock.advance(7 * 86_400 - 1)
    await streams.put("raw", entries("new"))
    assert await texts(streams, "shardId-000000000000") == ["old", "new"]
    clock.advance(2)
    assert await texts(streams, "shardId-000000000000") == ["new"]


async def test_behind_tells_how_long_the_next_record_has_waited(streams: MemoryStreams, clock: FakeClock) -> None:
    await streams.put("raw", entries("a", "b"))
    clock.advance(2)
    page = await streams.read("raw", await streams.iterator("raw", "shardId-000000000000", None), 1)
    assert page.behind_ms == 2000


async def test_an_empty_read_may_still_be_behind(streams: MemoryStreams) -> None:
    await streams.put("raw", entries("a"))
    streams.empty_next()
    page = await streams.read("raw", await streams.iterator("raw", "shardId-000000000000", None), 10)
    assert page.records == ()
    assert page.behind_ms > 0
    assert page.next_iterator is not None
    assert len((await streams.read("raw", page.next_iterator, 10)).records) == 1


async def test_a_stream_created_again_is_told_from_the_earlier_one(streams: MemoryStreams) -> None:
    before = (await streams.describe("raw")).created
    iterator = await streams.iterator("raw", "shardId-000000000000", None)
    streams.delete("raw")
    streams.create("raw")
    assert (await streams.describe("raw")).created != before
    with pytest.raises(ConflictError):
        await streams.read("raw", iterator, 1)


async def test_a_put_may_fail_in_part(streams: MemoryStreams) -> None:
    streams.refuse_next([1])
    puts = await streams.put("raw", entries("a", "b", "c"))
    assert [put.error for put in puts] == ["", "ProvisionedThroughputExceededException", ""]
    assert [record.data for record in streams.records("raw")] == [b"a", b"c"]


# -- faults of any port -----------------------------------------------------------------------------------------------
async def test_a_fault_ordered_is_raised_once_and_has_no_effect(streams: MemoryStreams) -> None:
    streams.fail_next("put", ThrottledError("slow down"))
    await streams.describe("raw")
    with pytest.raises(ThrottledError):
        await streams.put("raw", entries("a"))
    assert streams.records("raw") == []
    await streams.put("raw", entries("a"))


async def test_a_lost_answer_comes_after_the_effect() -> None:
    objects = MemoryObjects()
    objects.lose_next("create")
    with pytest.raises(RetryableError):
        await objects.create("a", b"1")
    await objects.create("a", b"1")
    assert objects.held == {"a": b"1"}


async def test_hooks_see_every_call_before_and_after_its_effect() -> None:
    seen: list[tuple[str, str, int]] = []

    async def before(call: Call) -> None:
        seen.append((call.method, call.subject, len(objects.held)))

    async def after(call: Call) -> None:
        seen.append((call.method, call.subject, len(objects.held)))
        raise RetryableError("lost")

    objects = MemoryObjects(before, after)
    with pytest.raises(RetryableError):
        await objects.put("a", b"1")
    assert seen == [("put", "a", 0), ("put", "a", 1)]


async def test_a_row_is_never_shared_with_the_store() -> None:
    rows = MemoryRows({"Leases": ("scope", "name")})
    key, spool = {"scope": "a", "name": "b"}, ["one"]
    await rows.write("Leases", key, {"spool": spool})
    spool.append("two")
    got = await rows.get("Leases", key)
    assert got is not None
    got["spool"].append("three")
    assert await rows.get("Leases", key) == {**key, "spool": ["one"]}
