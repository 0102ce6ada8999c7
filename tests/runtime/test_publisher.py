"""The publisher: everything arrives, in the order of its partition, whatever part of a request fails."""

import asyncio
from random import Random

import pytest

from services.contracts.envelope import split
from services.contracts.errors import RetryableError
from services.contracts.partitions import Partition
from services.runtime.envelopes import Sealed, seal, unseal
from services.runtime.publisher import ATTEMPTS_MAX, Publisher
from tests.fakes import FakeChance, FakeClock, MemoryObjects, MemoryStreams

STREAM = "raw"


class Bench:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.streams = MemoryStreams(self.clock, [STREAM], shards=3)
        self.objects = MemoryObjects()
        self.publisher = Publisher(STREAM, self.streams, self.objects, self.clock, FakeChance(), lambda _: None)

    def arrived(self) -> dict[Partition, list[bytes]]:
        by_partition: dict[Partition, list[bytes]] = {}
        for record in self.streams.records(STREAM):
            header, packed = split(record.data)
            body = self.objects.held[header.object_key] if header.object_key else packed
            by_partition.setdefault(header.partition, []).extend(unseal(header, body))
        return by_partition


def partition(number: int) -> Partition:
    return Partition("acme", "connectwise", f"group{number}")


def envelopes(number: int, first: int, count: int) -> list[Sealed]:
    return [seal(partition(number), "e", [str(n).encode()])[0] for n in range(first, first + count)]


def without_repeats(lines: list[bytes]) -> list[bytes]:
    return list(dict.fromkeys(lines))


async def test_failed_entries_are_sent_again_alone_and_order_within_a_partition_holds() -> None:
    bench, random = Bench(), Random(1)
    for _ in range(30):
        bench.streams.refuse_next(random.sample(range(4), random.randint(0, 4)))
    await bench.publisher.publish([e for n in range(4) for e in envelopes(n, 0, 10)])
    assert bench.arrived() == {partition(n): [str(i).encode() for i in range(10)] for n in range(4)}


async def test_callers_that_share_a_partition_never_overtake_each_other() -> None:
    bench = Bench()
    bench.streams.refuse_next([0])
    bench.streams.refuse_next([1])
    await asyncio.gather(
        bench.publisher.publish([*envelopes(1, 0, 5), *envelopes(2, 0, 5)]),
        bench.publisher.publish([*envelopes(2, 5, 5), *envelopes(1, 5, 5)]),
    )
    assert bench.arrived() == {partition(n): [str(i).encode() for i in range(10)] for n in (1, 2)}


async def test_an_answer_that_was_lost_repeats_but_loses_nothing() -> None:
    bench = Bench()
    bench.streams.lose_next("put", times=2)
    await bench.publisher.publish(envelopes(1, 0, 4))
    assert without_repeats(bench.arrived()[partition(1)]) == [b"0", b"1", b"2", b"3"]


async def test_a_stream_that_takes_nothing_is_given_up_after_a_bounded_number_of_tries() -> None:
    bench = Bench()
    bench.streams.fail_next("put", RetryableError("down"), times=ATTEMPTS_MAX)
    with pytest.raises(RetryableError, match="takes nothing"):
        await bench.publisher.publish(envelopes(1, 0, 1))
    await bench.publisher.publish(envelopes(1, 0, 1))


async def test_the_answer_names_the_last_position_in_each_shard() -> None:
    bench = Bench()
    last = await bench.publisher.publish([e for n in range(6) for e in envelopes(n, 0, 3)])
    info = await bench.streams.describe(STREAM)
    assert set(last) <= {shard.shard_id for shard in info.shards}
    assert max(map(int, last.values())) == max(int(r.sequence) for r in bench.streams.records(STREAM))


async def test_a_body_too_large_for_the_stream_is_stored_before_its_envelope() -> None:
    bench = Bench()
    await bench.publisher.publish(seal(partition(1), "e", [b"x" * 2_000_000]))
    assert bench.arrived() == {partition(1): [b"x" * 2_000_000]}
