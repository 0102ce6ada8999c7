"""The contract of `Streams`, but for what reshards do (test_resharding.py) and fan-out (../test_fan_out.py)."""

import pytest

from services.contracts.errors import ConflictError, FatalError, NotFoundError
from services.contracts.ports import Entry
from services.contracts.times import moment
from tests.runtime.ports.reading import entries, read_on, texts
from tests.runtime.ports.worlds import MISSING, Kinesis, everywhere_but, is_whole, middle_of

FIRST = "shardId-000000000000"
MIB = 1 << 20
DAY_S = 86_400


async def test_shards_cover_all_hash_keys_without_gap_or_overlap(kinesis: Kinesis, stream: str) -> None:
    shards = (await kinesis.streams.describe(stream)).shards
    assert len(shards) == 2
    assert is_whole(shards)
    assert not any(shard.parents or shard.closed for shard in shards)


async def test_more_than_a_thousand_shards_are_all_described(kinesis: Kinesis) -> None:
    await kinesis.operator.create("many", 1_001)
    shards = (await kinesis.streams.describe("many")).shards
    assert len({shard.shard_id for shard in shards}) == len(shards) == 1_001
    assert is_whole(shards)


async def test_a_stream_tells_when_it_was_created_and_always_the_same(kinesis: Kinesis, stream: str) -> None:
    first, second = await kinesis.streams.describe(stream), await kinesis.streams.describe(stream)
    assert first == second
    assert moment(first.created).year >= 2026


async def test_an_entry_lands_in_the_shard_that_holds_its_hash_key(kinesis: Kinesis, stream: str) -> None:
    for shard in (await kinesis.streams.describe(stream)).shards:
        for edge in (shard.hash_range.first, shard.hash_range.last):
            (put,) = await kinesis.streams.put(stream, entries("edge", hash_key=edge))
            assert (put.shard_id, put.error) == (shard.shard_id, "")


async def test_a_put_answers_entry_by_entry_in_their_order_whatever_their_shards(kinesis: Kinesis, stream: str) -> None:
    one, other = (await kinesis.streams.describe(stream)).shards
    shards = [one, other, other, one, other, one]
    puts = await kinesis.streams.put(
        stream, [Entry(b"%d" % place, "partition", middle_of(shard)) for place, shard in enumerate(shards)]
    )
    assert [put.shard_id for put in puts] == [shard.shard_id for shard in shards]
    by_sequence = {
        record.sequence: int(record.data)
        for shard in (one, other)
        for record in (await read_on(kinesis.streams, stream, shard.shard_id))[0]
    }
    assert [by_sequence[put.sequence] for put in puts] == [0, 1, 2, 3, 4, 5]


async def test_records_come_back_in_order_with_the_sequences_that_put_named(kinesis: Kinesis, stream: str) -> None:
    puts = await kinesis.streams.put(stream, entries("a", "b", "c"))
    puts += await kinesis.streams.put(stream, entries("d"))
    records, ended = await read_on(kinesis.streams, stream, puts[0].shard_id)
    assert texts(records) == ["a", "b", "c", "d"]
    assert [record.sequence for record in records] == [put.sequence for put in puts]
    assert not ended


async def test_sequences_grow_as_integers(kinesis: Kinesis, stream: str) -> None:
    puts = await kinesis.streams.put(stream, entries(*"abcdefgh"))
    puts += await kinesis.streams.put(stream, entries(*"ijkl"))
    numbers = [int(put.sequence) for put in puts]
    assert numbers == sorted(set(numbers))


async def test_bytes_of_any_kind_survive_the_stream(kinesis: Kinesis, stream: str) -> None:
    data = bytes(range(256)) * 3
    (put,) = await kinesis.streams.put(stream, [Entry(data, "partition", 0)])
    records, _ = await read_on(kinesis.streams, stream, put.shard_id)
    assert [record.data for record in records] == [data]


async def test_reading_resumes_just_after_any_sequence(kinesis: Kinesis, stream: str) -> None:
    puts = await kinesis.streams.put(stream, entries(*"abcd"))
    for place, put in enumerate(puts):
        rest, _ = await read_on(kinesis.streams, stream, put.shard_id, after=put.sequence)
        assert texts(rest) == list("abcd"[place + 1 :])


async def test_a_page_holds_at_most_its_limit_and_pages_lose_nothing(kinesis: Kinesis, stream: str) -> None:
    puts = await kinesis.streams.put(stream, entries(*"abcde"))
    page = await kinesis.streams.read(stream, await kinesis.streams.iterator(stream, puts[0].shard_id, None), 2)
    assert texts(list(page.records)) == ["a", "b"]
    records, _ = await read_on(kinesis.streams, stream, puts[0].shard_id, limit=2)
    assert texts(records) == list("abcde")


async def test_an_iterator_can_be_used_again(kinesis: Kinesis, stream: str) -> None:
    (put,) = await kinesis.streams.put(stream, entries("a"))
    iterator = await kinesis.streams.iterator(stream, put.shard_id, None)
    first, second = [await kinesis.streams.read(stream, iterator, 10) for _ in range(2)]
    assert first.records == second.records
    assert len(first.records) == 1


async def test_a_shard_without_records_is_caught_up_and_open(kinesis: Kinesis, stream: str) -> None:
    page = await kinesis.streams.read(stream, await kinesis.streams.iterator(stream, FIRST, None), 10)
    assert (page.records, page.behind_ms) == ((), 0)
    assert page.next_iterator is not None


async def test_a_page_that_is_not_the_last_says_that_more_follows(kinesis: Kinesis, stream: str) -> None:
    (put, _) = await kinesis.streams.put(stream, entries("a", "b"))
    await kinesis.clock.sleep(0.01)
    await kinesis.streams.put(stream, entries("c"))
    page = await kinesis.streams.read(stream, await kinesis.streams.iterator(stream, put.shard_id, None), 1)
    assert texts(list(page.records)) == ["a"]
    assert page.behind_ms > 0


async def test_an_open_shard_goes_on_after_its_last_record(kinesis: Kinesis, stream: str) -> None:
    (put,) = await kinesis.streams.put(stream, entries("a"))
    page = await kinesis.streams.read(stream, await kinesis.streams.iterator(stream, put.shard_id, None), 10)
    assert page.behind_ms == 0
    assert page.next_iterator is not None
    await kinesis.streams.put(stream, entries("b"))
    assert texts(list((await kinesis.streams.read(stream, page.next_iterator, 10)).records)) == ["b"]


async def test_a_record_tells_when_it_arrived(kinesis: Kinesis, stream: str) -> None:
    (put,) = await kinesis.streams.put(stream, entries("a"))
    ((record,), _) = await read_on(kinesis.streams, stream, put.shard_id)
    assert moment(record.arrived_at).year >= 2026


async def test_a_put_takes_five_hundred_entries(kinesis: Kinesis, stream: str) -> None:
    puts = await kinesis.streams.put(stream, entries(*(str(number) for number in range(500))))
    assert len(puts) == 500
    assert not any(put.error for put in puts)


async def test_a_put_of_more_than_five_hundred_entries_is_refused(kinesis: Kinesis, stream: str) -> None:
    with pytest.raises((AssertionError, FatalError)):
        await kinesis.operator.put_unchecked(stream, entries(*(str(number) for number in range(501))))


@pytest.mark.parametrize("kinesis", everywhere_but("kinesis-local"), indirect=True)  # it would take ten seconds there
async def test_a_put_takes_five_mebibytes(kinesis: Kinesis, stream: str) -> None:
    largest = Entry(bytes(MIB - 1), "p", 0)  # a record weighs its data and its key
    puts = await kinesis.streams.put(stream, [largest] * 5)
    assert not any(put.error for put in puts)


async def test_a_record_of_more_than_a_mebibyte_is_refused(kinesis: Kinesis, stream: str) -> None:
    with pytest.raises(FatalError):
        await kinesis.streams.put(stream, [Entry(bytes(MIB + 1), "p", 0)])


async def test_a_stream_that_is_not_there_is_not_found(kinesis: Kinesis) -> None:
    for attempt in (
        kinesis.streams.describe(MISSING.raw_stream),
        kinesis.streams.put(MISSING.raw_stream, entries("a")),
        kinesis.streams.iterator(MISSING.raw_stream, FIRST, None),
    ):
        with pytest.raises(NotFoundError):
            await attempt


async def test_a_shard_that_is_not_there_is_not_found(kinesis: Kinesis, stream: str) -> None:
    with pytest.raises(NotFoundError):
        await kinesis.streams.iterator(stream, "shardId-000000000099", None)


async def test_an_iterator_that_never_was_one_asks_for_a_new_one(kinesis: Kinesis, stream: str) -> None:
    with pytest.raises(ConflictError) as caught:
        await kinesis.streams.read(stream, "0" * 200, 10)
    assert caught.value.code == "conflict"


async def test_an_iterator_of_five_minutes_ago_asks_for_a_new_one(kinesis: Kinesis, stream: str) -> None:
    (put,) = await kinesis.streams.put(stream, entries("a"))
    fresh = await kinesis.streams.iterator(stream, put.shard_id, None)
    used = (await kinesis.streams.read(stream, fresh, 10)).next_iterator
    assert used is not None
    await kinesis.operator.pass_time(301)
    for iterator in (fresh, used):
        with pytest.raises(ConflictError) as caught:
            await kinesis.streams.read(stream, iterator, 10)
        assert caught.value.code == "conflict"
    records, _ = await read_on(kinesis.streams, stream, put.shard_id)
    assert texts(records) == ["a"]


async def test_records_end_with_retention_and_reading_after_one_of_them_goes_on_with_what_is_left(
    kinesis: Kinesis, stream: str
) -> None:
    (old, _) = await kinesis.streams.put(stream, entries("old", "older"))
    await kinesis.operator.pass_time(8 * DAY_S)  # the twin holds seven days, the emulators one
    await kinesis.streams.put(stream, entries("new"))
    for after in (None, old.sequence):
        records, _ = await read_on(kinesis.streams, stream, old.shard_id, after=after)
        assert texts(records) == ["new"]
