"""The publisher: everything arrives, in the order of its partition, whatever part of a request fails."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.contracts.envelope import BODY_BYTES_MAX, split
from services.contracts.errors import FatalError, NotFoundError, RetryableError
from services.contracts.log import Event, PutsRefused, WaitingFor
from services.contracts.partitions import Partition
from services.contracts.ports import Entry, Put, Record
from services.contracts.times import seconds_between
from services.runtime.envelopes import Sealed, seal, unseal
from services.runtime.lanes import ATTEMPTS_MAX, SHARD_BYTES_S, SHARD_RECORDS_S, Bounds
from services.runtime.publisher import DESCRIBE_EVERY_S, Publisher
from services.runtime.tickets import Ticket
from tests.fakes import Call, FakeChance, FakeClock, MemoryObjects, MemoryStreams

STREAM = "raw"
HOT = "ProvisionedThroughputExceededException"


class Refusing(MemoryStreams):
    """A stream that refuses the entries `refuses` points at, and keeps every request as its hash keys."""

    def __init__(self, clock: FakeClock, shards: int) -> None:
        super().__init__(clock, [STREAM], shards)
        self.refuses: Callable[[Entry], bool] = lambda _: False
        self.requests: list[list[int]] = []

    async def put(self, stream: str, entries: Sequence[Entry]) -> list[Put]:
        self.requests.append([entry.hash_key for entry in entries])
        taken = [entry for entry in entries if not self.refuses(entry)]
        stored = iter(await super().put(stream, taken) if taken else [])
        return [Put(error=HOT) if self.refuses(entry) else next(stored) for entry in entries]


class Bench:
    def __init__(self, shards: int = 3, bounds: Bounds | None = None, seed: int = 0) -> None:
        self.clock = FakeClock()
        self.streams = Refusing(self.clock, shards)
        self.objects = MemoryObjects()
        self.heard: list[Event] = []
        self.publisher = Publisher(
            STREAM, self.streams, self.objects, self.clock, FakeChance(seed), self.heard.append, bounds
        )

    def arrived(self) -> dict[Partition, list[bytes]]:
        by_partition: dict[Partition, list[bytes]] = {}
        for record in self.streams.records(STREAM):
            header, packed = split(record.data)
            body = self.objects.held[header.object_key] if header.object_key else packed
            by_partition.setdefault(header.partition, []).extend(unseal(header, body))
        return by_partition

    async def shard_of(self, at: Partition) -> str:
        info = await self.streams.describe(STREAM)
        (found,) = (shard.shard_id for shard in info.shards if not shard.closed and shard.hash_range.holds(at))
        return found

    async def partitions_of(self, shard_id: str, count: int) -> list[Partition]:
        found = [partition(n) for n in range(200) if await self.shard_of(partition(n)) == shard_id]
        return found[:count]

    def make_hot(self, partitions: Iterable[Partition]) -> None:
        keys = {at.hash_key for at in partitions}
        self.streams.refuses = lambda entry: entry.hash_key in keys


def partition(number: int) -> Partition:
    return Partition("acme", "connectwise", f"group{number}")


def envelopes(at: int | Partition, first: int, count: int, *, replay: bool = False, size: int = 0) -> list[Sealed]:
    place = partition(at) if isinstance(at, int) else at
    noise = Random(first)
    return [
        seal(place, "e", [b"%d %s" % (n, noise.randbytes(size).hex().encode())], replay=replay)[0]
        for n in range(first, first + count)
    ]


def numbers(lines: Iterable[bytes]) -> list[int]:
    return [int(line.split()[0]) for line in lines]


def once(arrived: dict[Partition, list[bytes]]) -> dict[Partition, list[int]]:
    return {at: list(dict.fromkeys(numbers(lines))) for at, lines in arrived.items()}


async def nothing_is_left() -> None:
    for _ in range(5):  # what was cancelled needs a turn or two to end
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}


# -- order ------------------------------------------------------------------------------------------------------------
async def test_failed_entries_are_sent_again_alone_and_order_within_a_partition_holds() -> None:
    bench, random = Bench(shards=1), Random(1)
    for _ in range(30):
        bench.streams.refuse_next(random.sample(range(4), random.randint(0, 4)))
    await bench.publisher.publish([e for n in range(4) for e in envelopes(n, 0, 10)])
    assert {at: numbers(lines) for at, lines in bench.arrived().items()} == {
        partition(n): list(range(10)) for n in range(4)
    }


async def test_callers_that_share_a_partition_never_overtake_each_other() -> None:
    bench = Bench(shards=1)
    bench.streams.refuse_next([0])
    bench.streams.refuse_next([1])
    await asyncio.gather(
        bench.publisher.publish([*envelopes(1, 0, 5), *envelopes(2, 0, 5)]),
        bench.publisher.publish([*envelopes(2, 5, 5), *envelopes(1, 5, 5)]),
    )
    assert {at: numbers(lines) for at, lines in bench.arrived().items()} == {
        partition(n): list(range(10)) for n in (1, 2)
    }


async def test_no_request_holds_two_envelopes_of_one_partition_and_partitions_share_requests() -> None:
    bench = Bench(shards=1)
    await bench.publisher.publish([e for n in range(5) for e in envelopes(n, 0, 4)])
    assert all(len(set(request)) == len(request) for request in bench.streams.requests)
    assert len(bench.streams.requests) == 4


async def test_an_answer_that_was_lost_repeats_but_loses_nothing() -> None:
    bench = Bench()
    bench.streams.lose_next("put", times=2)
    await bench.publisher.publish(envelopes(1, 0, 4))
    assert once(bench.arrived()) == {partition(1): [0, 1, 2, 3]}


async def test_a_body_too_large_for_the_stream_is_stored_before_its_envelope() -> None:
    bench = Bench()

    async def body_is_there(call: Call) -> None:
        assert call.method != "put" or bench.objects.held

    bench.streams.before = body_is_there
    await bench.publisher.publish(seal(partition(1), "e", [b"x" * 2_000_000]))
    assert bench.arrived() == {partition(1): [b"x" * 2_000_000]}


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_whatever_fails_is_lost_or_reshards_each_partition_stays_whole_and_in_order(seed: int) -> None:
    asyncio.run(_storm(seed))


async def _storm(seed: int) -> None:
    bench, random = Bench(shards=3, bounds=Bounds(lane_bytes_max=2_000, held_bytes_max=4_000), seed=seed), Random(seed)
    most = 0

    async def strike(call: Call) -> None:
        nonlocal most
        most = max(most, bench.publisher.held_bytes)
        await bench.clock.sleep(random.random())
        if call.method != "put":
            if random.random() < 0.3:
                raise RetryableError("down")
            return
        fault = random.randrange(10)
        if fault == 0:
            raise RetryableError("down")
        if fault == 1:
            bench.streams.lose_next("put")
        if fault in (2, 3, 4):
            bench.streams.refuse_next(random.sample(range(6), random.randint(1, 6)))
        if fault == 5:
            await _reshard(bench, random)

    bench.streams.before = strike
    calls = [
        bench.publisher.publish(
            [e for n in range(6) for e in envelopes(10 * caller + n, 0, 6, replay=random.random() < 0.3)]
        )
        for caller in range(3)
    ]
    await asyncio.gather(*calls)
    expected = {partition(10 * caller + n): list(range(6)) for caller in range(3) for n in range(6)}
    assert once(bench.arrived()) == expected
    for lines in bench.arrived().values():  # a repeat comes before the next one, never after it
        assert numbers(lines) == sorted(numbers(lines))
    assert most <= 4_000
    assert bench.publisher.held_bytes == 0
    assert bench.publisher.lane_bytes() == {}
    assert bench.publisher._leaving == []
    await nothing_is_left()


async def _reshard(bench: Bench, random: Random) -> None:
    shards = bench.streams._find(STREAM).shards
    open_ids = sorted((key for key, s in shards.items() if not s.closed), key=lambda key: shards[key].hash_range.first)
    if random.random() < 0.5 or len(open_ids) == 1:
        bench.streams.split(STREAM, random.choice(open_ids))
    else:
        place = random.randrange(len(open_ids) - 1)
        bench.streams.merge(STREAM, open_ids[place], open_ids[place + 1])


# -- lanes ------------------------------------------------------------------------------------------------------------
async def test_a_hot_shard_delays_no_envelope_of_another() -> None:
    bench = Bench(shards=2)
    hot, cold = [await bench.partitions_of(f"shardId-00000000000{n}", 2) for n in (0, 1)]
    bench.make_hot(hot)
    held_up = await bench.publisher.offer([e for at in hot for e in envelopes(at, 0, 3)])
    await bench.publisher.publish([e for at in cold for e in envelopes(at, 0, 3)])
    assert bench.clock.monotonic() == 0.0
    assert not held_up.done
    bench.make_hot([])
    await held_up.stored()
    assert once(bench.arrived()) == {at: [0, 1, 2] for at in [*hot, *cold]}


async def test_a_shard_that_stays_hot_is_named() -> None:
    bench = Bench(shards=2)
    hot, steady = await bench.partitions_of("shardId-000000000000", 2)
    bench.make_hot([hot])

    async def trickle() -> None:
        for n in range(400):
            await bench.publisher.publish(envelopes(steady, n, 1))

    _, refused = await asyncio.gather(trickle(), bench.publisher.offer(envelopes(hot, 0, 1)))
    said = [event for event in bench.heard if isinstance(event, PutsRefused)]
    assert {(event.shard, event.code) for event in said} == {("shardId-000000000000", HOT)}
    bench.make_hot([])
    await refused.stored()


async def test_only_callers_that_feed_a_full_lane_wait_and_memory_stays_bounded() -> None:
    bench = Bench(shards=2, bounds=Bounds(lane_bytes_max=1_000, held_bytes_max=1_500))
    (hot,), (cold,) = [await bench.partitions_of(f"shardId-00000000000{n}", 1) for n in (0, 1)]
    bench.make_hot([hot])
    waiting = asyncio.create_task(bench.publisher.offer(envelopes(hot, 0, 50)))
    await asyncio.sleep(0)
    for n in range(20):
        await bench.publisher.publish(envelopes(cold, n, 1))
        assert bench.publisher.held_bytes <= 1_000
    assert not waiting.done()
    bench.make_hot([])
    await (await waiting).stored()
    assert once(bench.arrived())[hot] == list(range(50))


async def test_a_small_envelope_does_not_pass_a_large_one_that_waits_for_room() -> None:
    bench = Bench(shards=1, bounds=Bounds(lane_bytes_max=1_500))
    sizes = [400, 10, 500, 10, 400, 10, 500, 10]
    await bench.publisher.publish([e for n, size in enumerate(sizes) for e in envelopes(1, n, 1, size=size)])
    assert once(bench.arrived()) == {partition(1): list(range(8))}


async def test_an_envelope_larger_than_the_bound_passes_alone() -> None:
    bench = Bench(bounds=Bounds(lane_bytes_max=10, held_bytes_max=10))
    await bench.publisher.publish(envelopes(1, 0, 3))
    assert once(bench.arrived()) == {partition(1): [0, 1, 2]}


async def test_after_a_split_what_waits_moves_whole_and_in_order_to_lanes_of_its_own() -> None:
    bench = Bench(shards=1)
    await bench.publisher.publish(envelopes(0, 0, 1))
    bench.clock.advance(DESCRIBE_EVERY_S)
    low, high = bench.streams.split(STREAM, "shardId-000000000000")
    first, second = [(await bench.partitions_of(shard_id, 1))[0] for shard_id in (low, high)]
    ticket = await bench.publisher.offer([*envelopes(first, 0, 5), *envelopes(second, 0, 5)])
    bench.streams.requests.clear()
    await ticket.stored()
    assert sorted(map(len, bench.streams.requests)) == [1] * 8 + [2]  # the first taught it the shards
    arrived = once(bench.arrived())
    assert (arrived[first], arrived[second]) == (list(range(5)), list(range(5)))


async def test_after_a_reshard_a_lane_that_rests_moves_at_once() -> None:
    bench = Bench(shards=2)
    (hot,), (cold,) = [await bench.partitions_of(f"shardId-00000000000{n}", 1) for n in (0, 1)]
    bench.make_hot([hot])
    ticket = await bench.publisher.offer(envelopes(hot, 0, 1))
    await bench.clock.sleep(DESCRIBE_EVERY_S + 3)
    bench.make_hot([])
    bench.streams.merge(STREAM, "shardId-000000000000", "shardId-000000000001")
    await bench.publisher.publish(envelopes(cold, 0, 2))
    await ticket.stored()
    assert bench.clock.monotonic() == DESCRIBE_EVERY_S + 3


async def test_without_a_map_of_the_shards_one_lane_takes_everything_and_says_so() -> None:
    bench = Bench(shards=3)
    bench.streams.fail_next("describe", FatalError("not allowed"))
    await bench.publisher.publish([e for n in range(30) for e in envelopes(n, 0, 2)])
    assert [len(request) for request in bench.streams.requests] == [30, 30]
    assert [type(event) for event in bench.heard] == [WaitingFor]
    bench.clock.advance(DESCRIBE_EVERY_S)
    await bench.publisher.publish([e for n in range(30) for e in envelopes(n, 2, 1)])
    assert len(bench.streams.requests) == 2 + 3


async def test_the_shards_are_asked_for_at_most_every_few_seconds() -> None:
    bench, asked = Bench(shards=1), 0

    async def count(call: Call) -> None:
        nonlocal asked
        asked += call.method == "describe"
        if call.method == "describe":
            raise RetryableError("down")

    bench.streams.before = count
    for n in range(50):
        await bench.publisher.publish(envelopes(1, n, 1))
    assert asked == 1


# -- pace -------------------------------------------------------------------------------------------------------------
def in_any_span(records: Sequence[Record], span_s: float, weigh: Callable[[Record], int]) -> int:
    """The most that arrived within any half-open span of that length."""
    times = [(seconds_between("2026-01-01T00:00:00.000000Z", r.arrived_at), weigh(r)) for r in records]
    return max((sum(weight for at, weight in times if start <= at < start + span_s) for start, _ in times), default=0)


def weight(record: Record) -> int:
    return len(record.data) + len(split(record.data)[0].partition.text)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 1_000), small=st.booleans())
def test_in_no_second_a_shard_gets_more_than_it_takes(seed: int, small: bool) -> None:
    asyncio.run(_paced(seed, small))


async def _paced(seed: int, small: bool) -> None:
    random = Random(seed)
    bounds = Bounds(shard_bytes_s=1 << 20 if small else 20_000, shard_records_s=17 if small else 1_000)
    bench = Bench(shards=2, bounds=bounds, seed=seed)
    sent = [
        e for n in range(6) for e in envelopes(n, 0, 20, replay=n > 3, size=0 if small else random.randrange(4_000))
    ]
    random.shuffle(sent)
    for first in range(0, len(sent), 30):
        await bench.publisher.offer(sent[first : first + 30])
        await bench.clock.sleep(random.random())
    await bench.publisher.publish(envelopes(0, 99, 1))
    await bench.publisher.publish(envelopes(5, 99, 1, replay=True))
    for shard in bench.streams._find(STREAM).shards.values():
        background = [record for record in shard.records if split(record.data)[0].replay]
        for records, span_s in ((shard.records, 1.0), (background, 2.0)):
            assert in_any_span(records, span_s, weight) <= bounds.shard_bytes_s
            assert in_any_span(records, span_s, lambda _: 1) <= bounds.shard_records_s


async def test_a_shard_is_sent_as_much_as_it_takes() -> None:
    bench = Bench(shards=1)
    sent = [e for n in range(8) for e in envelopes(n, 0, 10, size=100_000)]
    await bench.publisher.publish(sent)
    assert bench.publisher.sent.bytes_after > 7 * SHARD_BYTES_S
    assert bench.publisher.sent.bytes_after / SHARD_BYTES_S - 1 <= bench.clock.monotonic() <= 10
    bench, many = Bench(shards=1), 3 * SHARD_RECORDS_S
    await bench.publisher.publish([e for n in range(500) for e in envelopes(n, 0, many // 500)])
    assert bench.clock.monotonic() == 2.0


async def test_background_work_goes_after_live_work_and_takes_at_most_half_of_a_shard() -> None:
    bench = Bench(shards=1, bounds=Bounds(shard_records_s=10))
    replayed = await bench.publisher.offer([e for n in range(4) for e in envelopes(n, 0, 10, replay=True)])
    live = await bench.publisher.offer([e for n in range(4, 8) for e in envelopes(n, 0, 10)])
    await live.stored()
    assert 3.0 <= bench.clock.monotonic() <= 4.0
    assert not replayed.done
    started = bench.clock.monotonic()
    await replayed.stored()
    assert 5.0 <= bench.clock.monotonic() - started <= 8.0


async def test_a_live_envelope_does_not_wait_where_background_work_has_to() -> None:
    bench = Bench(shards=1, bounds=Bounds(shard_records_s=10))
    await bench.publisher.offer(envelopes(1, 0, 30, replay=True))
    await bench.clock.sleep(1.5)
    await bench.publisher.publish(envelopes(2, 0, 1))
    assert bench.clock.monotonic() == 1.5


async def test_background_work_leaves_room_for_live_work() -> None:
    bench = Bench(shards=1, bounds=Bounds(lane_bytes_max=4_000, shard_records_s=1))
    waiting = asyncio.create_task(bench.publisher.offer(envelopes(1, 0, 50, replay=True)))
    await asyncio.sleep(0)
    await asyncio.wait_for(bench.publisher.offer(envelopes(2, 0, 1)), 1)
    assert not waiting.done()
    await (await waiting).stored()


async def test_within_a_partition_live_and_background_keep_their_order() -> None:
    bench = Bench(shards=1)
    mixed = [e for n in range(10) for e in envelopes(1, n, 1, replay=n % 3 == 0)]
    await bench.publisher.publish(mixed)
    assert once(bench.arrived()) == {partition(1): list(range(10))}


# -- giving up --------------------------------------------------------------------------------------------------------
async def test_a_stream_that_takes_nothing_is_given_up_after_a_bounded_number_of_tries() -> None:
    bench = Bench()
    bench.streams.fail_next("put", RetryableError("down"), times=ATTEMPTS_MAX)
    with pytest.raises(RetryableError, match="takes nothing"):
        await bench.publisher.publish(envelopes(1, 0, 1))
    assert 20 < bench.clock.monotonic() < 100
    await nothing_is_left()
    await bench.publisher.publish(envelopes(1, 0, 1))


async def test_one_shard_that_takes_nothing_fails_the_tickets_that_wait_for_it_alone() -> None:
    bench = Bench(shards=2, bounds=Bounds(lane_bytes_max=500))
    (hot,), (cold,) = [await bench.partitions_of(f"shardId-00000000000{n}", 1) for n in (0, 1)]
    bench.make_hot([hot])
    offers = [asyncio.create_task(bench.publisher.offer(envelopes(hot, n, 5))) for n in (0, 5)]
    mixed = await bench.publisher.offer([*envelopes(cold, 0, 3)])
    await mixed.stored()
    for offer in offers:
        with pytest.raises(RetryableError, match="takes nothing"):
            await (await offer).stored()
    assert bench.publisher.held_bytes == 0
    await nothing_is_left()


async def test_a_caller_learns_what_was_stored_before_the_failure() -> None:
    bench = Bench(shards=1)
    await bench.publisher.publish(envelopes(9, 0, 1))
    sent = seal(partition(1), "e", [b"%d %s" % (n, b"x" * (BODY_BYTES_MAX // 2)) for n in range(4)])
    assert len(sent) == 4
    keep = iter([False, False])
    bench.streams.refuses = lambda entry: next(keep, True)
    ticket = await bench.publisher.offer(sent)
    with pytest.raises(RetryableError):
        await ticket.stored()
    assert (ticket.done, ticket.stored_count, ticket.events_stored(partition(1))) == (True, 1, 1)


async def test_a_ticket_that_failed_has_nothing_under_way() -> None:
    bench = Bench(shards=2)
    (hot,), (cold,) = [await bench.partitions_of(f"shardId-00000000000{n}", 1) for n in (0, 1)]
    bench.make_hot([hot])
    ticket = await bench.publisher.offer([*envelopes(hot, 0, 2), *envelopes(cold, 0, 2)])
    with pytest.raises(RetryableError):
        await ticket.stored()
    assert (ticket.events_stored(hot), ticket.events_stored(cold)) == (0, 2)


@pytest.mark.parametrize("error", [NotFoundError("no stream"), FatalError("not allowed")])
async def test_what_waiting_does_not_mend_is_raised_at_once(error: Exception) -> None:
    bench = Bench()
    bench.streams.fail_next("put", error)
    with pytest.raises(type(error)):
        await bench.publisher.publish(envelopes(1, 0, 2))
    assert bench.clock.monotonic() == 0.0
    await nothing_is_left()


async def test_a_mistake_of_ours_leaves_nobody_waiting() -> None:
    bench = Bench()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    bench.streams.fail_next("put", ZeroDivisionError())
    with pytest.raises(RetryableError, match="broken off"):
        await bench.publisher.publish(envelopes(1, 0, 2))
    await bench.publisher.publish(envelopes(1, 0, 2))


async def test_an_offer_whose_body_cannot_be_stored_takes_nothing() -> None:
    bench = Bench()
    bench.objects.fail_next("create", RetryableError("no room"))
    with pytest.raises(RetryableError, match="no room"):
        await bench.publisher.offer(seal(partition(1), "e", [b"x" * 2_000_000]))
    assert bench.publisher.held_bytes == 0
    assert bench.streams.records(STREAM) == []


# -- leaving ----------------------------------------------------------------------------------------------------------
async def _cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_caller_that_is_cancelled_withdraws_what_is_not_on_its_way() -> None:
    bench = Bench(shards=1)
    await bench.publisher.publish(envelopes(9, 0, 1))
    arrived = asyncio.Event()

    async def slow(_: Call) -> None:
        arrived.set()
        await bench.clock.sleep(3)

    bench.streams.before = slow
    caller = asyncio.create_task(bench.publisher.publish(envelopes(1, 0, 5)))
    await arrived.wait()
    other = await bench.publisher.offer(envelopes(1, 5, 1))
    await _cancelled(caller)
    await other.stored()
    assert once(bench.arrived())[partition(1)] == [0, 5]
    assert bench.publisher.held_bytes == 0


async def test_what_was_withdrawn_while_on_its_way_is_not_sent_again() -> None:
    bench = Bench(shards=1)
    bench.make_hot([partition(1)])
    ticket = await bench.publisher.offer(envelopes(1, 0, 2))

    async def withdraw(call: Call) -> None:
        if call.method == "describe":
            bench.publisher.withdraw(ticket)

    bench.streams.before = withdraw
    with pytest.raises(RetryableError, match="withdrawn"):
        await ticket.stored()
    await nothing_is_left()
    assert bench.streams.records(STREAM) == []


async def test_an_offer_cancelled_while_it_waits_for_room_leaves_nothing_behind() -> None:
    bench = Bench(shards=1, bounds=Bounds(lane_bytes_max=500))
    bench.make_hot([partition(1)])
    caller = asyncio.create_task(bench.publisher.offer(envelopes(1, 0, 20)))
    await bench.clock.sleep(2)
    await _cancelled(caller)
    await nothing_is_left()  # though the lane was resting for seconds
    assert bench.publisher.held_bytes == 0


async def test_nothing_offered_is_stored_at_once() -> None:
    ticket: Ticket = await Bench().publisher.offer([])
    await ticket.stored()
    assert ticket.done
    await nothing_is_left()


async def test_what_was_sent_is_counted() -> None:
    bench = Bench()
    sealed = [*envelopes(1, 0, 2), *seal(partition(2), "e", [b"x" * 2_000_000])]
    await bench.publisher.publish(sealed)
    sent = bench.publisher.sent
    assert (sent.events, sent.envelopes) == (3, 3)
    assert sent.bytes_before == sum(e.header.body_bytes for e in sealed)
    assert sent.bytes_after == sum(len(e.data) + len(e.beside or b"") for e in sealed)
