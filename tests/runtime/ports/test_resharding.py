"""The contract of `Streams` where shards are split and merged.

Source: Kinesis Data Streams developer guide, resharding a stream: "After a reshard, data records that were in the
parent shard before the reshard remain there" until they expire; then the children, in whatever generation.
"""

import pytest

from services.contracts.errors import AvesaError
from tests.runtime.ports.reading import entries, put_one, read_on, read_out, texts
from tests.runtime.ports.worlds import Kinesis, is_whole, middle_of

FIRST = "shardId-000000000000"
SECOND = "shardId-000000000001"


async def test_a_split_shard_is_closed_and_its_children_name_it(kinesis: Kinesis, stream: str) -> None:
    low, high = await kinesis.split(stream, FIRST)
    shards = await kinesis.shards(stream)
    assert {shard_id: (shard.closed, shard.parents) for shard_id, shard in shards.items()} == {
        FIRST: (True, ()),
        SECOND: (False, ()),
        low: (False, (FIRST,)),
        high: (False, (FIRST,)),
    }


async def test_a_merged_pair_is_closed_and_its_child_names_both(kinesis: Kinesis, stream: str) -> None:
    child = await kinesis.merge(stream, FIRST, SECOND)
    shards = await kinesis.shards(stream)
    assert {shard_id: (shard.closed, set(shard.parents)) for shard_id, shard in shards.items()} == {
        FIRST: (True, set()),
        SECOND: (True, set()),
        child: (False, {FIRST, SECOND}),
    }


async def test_children_divide_the_hash_keys_of_their_parent(kinesis: Kinesis, stream: str) -> None:
    before = (await kinesis.shards(stream))[FIRST]
    low, high = await kinesis.split(stream, FIRST)
    shards = await kinesis.shards(stream)
    assert shards[low].hash_range.first == before.hash_range.first
    assert shards[low].hash_range.last + 1 == shards[high].hash_range.first == middle_of(before)
    assert shards[high].hash_range.last == before.hash_range.last


async def test_open_shards_cover_all_hash_keys_through_splits_and_merges(kinesis: Kinesis, stream: str) -> None:
    low, high = await kinesis.split(stream, FIRST)
    lower, _ = await kinesis.split(stream, low)
    await kinesis.merge(stream, high, SECOND)
    shards = await kinesis.shards(stream)
    assert is_whole([shard for shard in shards.values() if not shard.closed])
    assert shards[lower].parents == (low,)
    assert len(shards) == 7


async def test_a_split_parent_keeps_its_records_and_ends_with_them(kinesis: Kinesis, stream: str) -> None:
    await kinesis.streams.put(stream, entries(*"abcde"))
    await kinesis.split(stream, FIRST)
    assert await read_out(kinesis.streams, stream, FIRST, limit=2) == list("abcde")


async def test_merged_parents_keep_their_records_and_end_with_them(kinesis: Kinesis, stream: str) -> None:
    high = middle_of((await kinesis.shards(stream))[SECOND])
    await kinesis.streams.put(stream, entries(*"abc"))
    await kinesis.streams.put(stream, entries(*"xyz", hash_key=high))
    await kinesis.merge(stream, FIRST, SECOND)
    assert await read_out(kinesis.streams, stream, FIRST, limit=2) == list("abc")
    assert await read_out(kinesis.streams, stream, SECOND, limit=2) == list("xyz")


async def test_a_parent_without_records_ends(kinesis: Kinesis, stream: str) -> None:
    await kinesis.split(stream, FIRST)
    assert await read_out(kinesis.streams, stream, FIRST) == []


async def test_an_iterator_of_before_the_reshard_reads_the_parent_to_its_end(kinesis: Kinesis, stream: str) -> None:
    await kinesis.streams.put(stream, entries("a", "b"))
    page = await kinesis.streams.read(stream, await kinesis.streams.iterator(stream, FIRST, None), 1)
    await kinesis.streams.put(stream, entries("c"))
    await kinesis.split(stream, FIRST)
    found = texts(list(page.records))
    while page.next_iterator is not None and len(found) < 9:
        page = await kinesis.streams.read(stream, page.next_iterator, 1)
        found += texts(list(page.records))
    assert found == ["a", "b", "c"]


async def test_reading_a_closed_shard_resumes_just_after_any_sequence(kinesis: Kinesis, stream: str) -> None:
    puts = await kinesis.streams.put(stream, entries(*"abcd"))
    await kinesis.split(stream, FIRST)
    for place, put in enumerate(puts):
        rest = await read_out(kinesis.streams, stream, FIRST, after=put.sequence)
        assert rest == list("abcd"[place + 1 :])


async def test_a_hash_key_lands_in_the_child_that_holds_it(kinesis: Kinesis, stream: str) -> None:
    low, high = await kinesis.split(stream, FIRST)
    shards = await kinesis.shards(stream)
    for child in (low, high, SECOND):
        for edge in (shards[child].hash_range.first, shards[child].hash_range.last):
            assert await put_one(kinesis.streams, stream, "edge", edge) == child
    merged = await kinesis.merge(stream, high, SECOND)
    for edge in (shards[high].hash_range.first, shards[SECOND].hash_range.last):
        assert await put_one(kinesis.streams, stream, "edge", edge) == merged


async def test_children_hold_what_was_put_after_the_reshard_and_nothing_else(kinesis: Kinesis, stream: str) -> None:
    await put_one(kinesis.streams, stream, "before")
    low, high = await kinesis.split(stream, FIRST)
    at = (await kinesis.shards(stream))[high].hash_range.first
    await put_one(kinesis.streams, stream, "low")
    await put_one(kinesis.streams, stream, "high", at)
    for shard_id, expected in ((low, ["low"]), (high, ["high"])):
        records, ended = await read_on(kinesis.streams, stream, shard_id)
        assert (texts(records), ended) == (expected, False)
    assert await read_out(kinesis.streams, stream, FIRST) == ["before"]


async def test_a_key_read_along_its_generations_comes_back_in_the_order_it_was_put(
    kinesis: Kinesis, stream: str
) -> None:
    await kinesis.streams.put(stream, entries("1", "2"))
    low, high = await kinesis.split(stream, FIRST)
    await kinesis.streams.put(stream, entries("3", "4"))
    merged = await kinesis.merge(stream, low, high)
    await kinesis.streams.put(stream, entries("5"))
    lower, _ = await kinesis.split(stream, merged)
    await kinesis.streams.put(stream, entries("6"))
    shards = await kinesis.shards(stream)
    assert set(shards[merged].parents) == {low, high}
    assert shards[lower].parents == (merged,)
    found = [text for shard_id in (FIRST, low, merged) for text in await read_out(kinesis.streams, stream, shard_id)]
    newest, ended = await read_on(kinesis.streams, stream, lower)
    assert (found + texts(newest), ended) == (list("123456"), False)


async def test_sequences_of_a_key_grow_as_integers_through_reshards(kinesis: Kinesis, stream: str) -> None:
    sequences = [int(put.sequence) for put in await kinesis.streams.put(stream, entries("1", "2"))]
    low, high = await kinesis.split(stream, FIRST)
    sequences += [int(put.sequence) for put in await kinesis.streams.put(stream, entries("3", "4"))]
    await kinesis.merge(stream, low, high)
    sequences += [int(put.sequence) for put in await kinesis.streams.put(stream, entries("5", "6"))]
    assert sequences == sorted(set(sequences))


async def test_a_closed_shard_cannot_be_split_again(kinesis: Kinesis, stream: str) -> None:
    at = middle_of((await kinesis.shards(stream))[FIRST])
    await kinesis.split(stream, FIRST)
    with pytest.raises((AssertionError, AvesaError)):
        await kinesis.operator.split(stream, FIRST, at)
