"""One contract for every port, held by its twin in memory and by the real one alike."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest

from services.contracts.errors import ConflictError, NotFoundError
from services.contracts.names import Names
from services.contracts.partitions import HASH_KEY_SPACE
from services.contracts.ports import (
    Chance,
    Clock,
    Entry,
    LocalState,
    Objects,
    Record,
    Rows,
    Secrets,
    StateFactory,
    Streams,
    Threads,
    Value,
)
from services.contracts.times import moment
from services.runtime import provision
from services.runtime.aws import connect
from services.runtime.chance import SystemChance
from services.runtime.clock import SystemClock
from services.runtime.local_state import SqliteStates
from services.runtime.settings import Settings
from services.runtime.threads import WorkerThreads
from tests.fakes import (
    FakeChance,
    FakeClock,
    InlineThreads,
    MemoryObjects,
    MemoryRows,
    MemorySecrets,
    MemoryStates,
    MemoryStreams,
)

MISSING = Names(environment="nowhere")


class World(msgspec.Struct, frozen=True):
    """The outside of one environment that has been provisioned."""

    names: Names
    streams: Streams
    objects: Objects
    rows: Rows
    secrets: Secrets


@asynccontextmanager
async def in_memory() -> AsyncIterator[World]:
    names = Names(environment="test")
    streams = MemoryStreams(FakeClock(), [names.raw_stream, names.canonical_stream])
    yield World(names, streams, MemoryObjects(), MemoryRows(provision.table_keys(names)), MemorySecrets())


@asynccontextmanager
async def on_aws(settings: Settings) -> AsyncIterator[World]:
    await provision.ensure(settings)
    async with connect(settings) as aws:
        yield World(settings.names, aws.streams, aws.objects, aws.rows, aws.secrets)


@pytest.fixture(params=["memory", pytest.param("embedded", marks=pytest.mark.emulator)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    opened = in_memory() if request.param == "memory" else on_aws(request.getfixturevalue("settings"))
    async with opened as ready:
        yield ready


@pytest.fixture
def stream(world: World) -> str:
    return world.names.raw_stream


@pytest.fixture
def table(world: World) -> str:
    return world.names.leases


def row(name: str = "shard-1", scope: str = "raw") -> dict[str, str]:
    return {"scope": scope, "name": name}


def entries(*texts: str, hash_key: int = 0) -> list[Entry]:
    return [Entry(text.encode(), "partition", hash_key) for text in texts]


async def read_all(
    streams: Streams, stream: str, shard: str, after: str | None = None, limit: int = 100
) -> list[Record]:
    """Everything up to the first page that says it is the last."""
    iterator: str | None = await streams.iterator(stream, shard, after)
    records: list[Record] = []
    while iterator is not None:
        page = await streams.read(stream, iterator, limit)
        records += page.records
        if page.behind_ms == 0:
            break
        iterator = page.next_iterator
    return records


def texts(records: list[Record]) -> list[str]:
    return [record.data.decode() for record in records]


# -- streams ----------------------------------------------------------------------------------------------------------
async def test_shards_cover_all_hash_keys_without_gap_or_overlap(world: World, stream: str) -> None:
    shards = (await world.streams.describe(stream)).shards
    ranges = sorted((shard.hash_range.first, shard.hash_range.last) for shard in shards)
    assert [first for first, _ in ranges] == [0, *(last + 1 for _, last in ranges[:-1])]
    assert ranges[-1][1] == HASH_KEY_SPACE - 1
    assert not any(shard.parents or shard.closed for shard in shards)


async def test_a_stream_tells_when_it_was_created_and_always_the_same(world: World, stream: str) -> None:
    first, second = await world.streams.describe(stream), await world.streams.describe(stream)
    assert first == second
    assert moment(first.created).year >= 2026


async def test_an_entry_lands_in_the_shard_that_holds_its_hash_key(world: World, stream: str) -> None:
    for shard in (await world.streams.describe(stream)).shards:
        for edge in (shard.hash_range.first, shard.hash_range.last):
            (put,) = await world.streams.put(stream, entries("edge", hash_key=edge))
            assert (put.shard_id, put.error) == (shard.shard_id, "")


async def test_records_come_back_in_order_with_the_sequences_that_put_named(world: World, stream: str) -> None:
    puts = await world.streams.put(stream, entries("a", "b", "c"))
    puts += await world.streams.put(stream, entries("d"))
    records = await read_all(world.streams, stream, puts[0].shard_id)
    assert texts(records) == ["a", "b", "c", "d"]
    assert [record.sequence for record in records] == [put.sequence for put in puts]


async def test_sequences_grow_as_integers(world: World, stream: str) -> None:
    puts = await world.streams.put(stream, entries(*"abcdefgh"))
    numbers = [int(put.sequence) for put in puts]
    assert numbers == sorted(set(numbers))


async def test_bytes_of_any_kind_survive_the_stream(world: World, stream: str) -> None:
    data = bytes(range(256)) * 3
    (put,) = await world.streams.put(stream, [Entry(data, "partition", 0)])
    assert [record.data for record in await read_all(world.streams, stream, put.shard_id)] == [data]


async def test_reading_resumes_just_after_a_sequence(world: World, stream: str) -> None:
    puts = await world.streams.put(stream, entries("a", "b", "c"))
    assert texts(await read_all(world.streams, stream, puts[0].shard_id, after=puts[1].sequence)) == ["c"]
    assert texts(await read_all(world.streams, stream, puts[0].shard_id, after=puts[2].sequence)) == []


async def test_a_page_holds_at_most_its_limit_and_pages_lose_nothing(world: World, stream: str) -> None:
    puts = await world.streams.put(stream, entries(*"abcde"))
    page = await world.streams.read(stream, await world.streams.iterator(stream, puts[0].shard_id, None), 2)
    assert texts(list(page.records)) == ["a", "b"]
    assert texts(await read_all(world.streams, stream, puts[0].shard_id, limit=2)) == list("abcde")


async def test_an_iterator_can_be_used_again(world: World, stream: str) -> None:
    (put,) = await world.streams.put(stream, entries("a"))
    iterator = await world.streams.iterator(stream, put.shard_id, None)
    first, second = [await world.streams.read(stream, iterator, 10) for _ in range(2)]
    assert first.records == second.records
    assert len(first.records) == 1


async def test_an_open_shard_goes_on_after_its_last_record(world: World, stream: str) -> None:
    (put,) = await world.streams.put(stream, entries("a"))
    page = await world.streams.read(stream, await world.streams.iterator(stream, put.shard_id, None), 10)
    assert page.behind_ms == 0
    assert page.next_iterator is not None
    await world.streams.put(stream, entries("b"))
    assert texts(list((await world.streams.read(stream, page.next_iterator, 10)).records)) == ["b"]


async def test_a_record_tells_when_it_arrived(world: World, stream: str) -> None:
    (put,) = await world.streams.put(stream, entries("a"))
    (record,) = await read_all(world.streams, stream, put.shard_id)
    assert moment(record.arrived_at).year >= 2026


async def test_a_put_takes_five_hundred_entries(world: World, stream: str) -> None:
    puts = await world.streams.put(stream, entries(*(str(number) for number in range(500))))
    assert len(puts) == 500
    assert not any(put.error for put in puts)


async def test_a_stream_that_is_not_there_is_not_found(world: World) -> None:
    for attempt in (
        world.streams.describe(MISSING.raw_stream),
        world.streams.put(MISSING.raw_stream, entries("a")),
        world.streams.iterator(MISSING.raw_stream, "shardId-000000000000", None),
    ):
        with pytest.raises(NotFoundError):
            await attempt


async def test_a_bad_iterator_asks_for_a_new_one(world: World, stream: str) -> None:
    good = await world.streams.iterator(stream, "shardId-000000000000", None)
    expired = good.replace("2026", "2025") if "|" in good else "0" * len(good)
    with pytest.raises(ConflictError) as caught:
        await world.streams.read(stream, expired, 10)
    assert caught.value.code == "conflict"


# -- objects ----------------------------------------------------------------------------------------------------------
async def test_an_object_is_what_was_put_last(world: World) -> None:
    await world.objects.put("acme/a", b"one")
    await world.objects.put("acme/a", b"\x00two")
    assert await world.objects.get("acme/a") == b"\x00two"


async def test_an_empty_object_is_an_object(world: World) -> None:
    await world.objects.create("acme/empty", b"")
    assert await world.objects.get("acme/empty") == b""


async def test_a_large_object_survives(world: World) -> None:
    data = bytes(range(256)) * 40_000
    await world.objects.put("acme/large", data)
    assert await world.objects.get("acme/large") == data


async def test_an_object_that_is_not_there_is_not_found(world: World) -> None:
    with pytest.raises(NotFoundError):
        await world.objects.get("acme/nothing")


async def test_creating_the_same_bytes_again_is_success(world: World) -> None:
    await world.objects.create("acme/a", b"one")
    await world.objects.create("acme/a", b"one")


async def test_creating_other_bytes_under_a_name_is_a_conflict_and_changes_nothing(world: World) -> None:
    await world.objects.create("acme/a", b"one")
    with pytest.raises(ConflictError):
        await world.objects.create("acme/a", b"two")
    assert await world.objects.get("acme/a") == b"one"


async def test_objects_are_listed_in_order_of_key_with_their_sizes(world: World) -> None:
    for key in ("acme/b", "acme/a/2", "acme/a/10", "acme/a b+c=é", "other/a"):
        await world.objects.put(key, key.encode())
    listed = [(info.key, info.size) async for info in world.objects.list("acme/")]
    expected = ["acme/a b+c=é", "acme/a/10", "acme/a/2", "acme/b"]
    assert listed == [(key, len(key.encode())) for key in expected]


async def test_lists_and_deletes_go_past_one_page(world: World) -> None:
    keys = [f"acme/{number:04d}" for number in range(1_005)]
    await asyncio.gather(*(world.objects.put(key, b"") for key in keys))
    assert [info.key async for info in world.objects.list("acme/")] == keys
    await world.objects.delete(keys)
    assert [info.key async for info in world.objects.list("acme/")] == []


async def test_a_prefix_without_objects_lists_nothing(world: World) -> None:
    assert [info async for info in world.objects.list("nobody/")] == []


async def test_deleting_takes_names_that_are_not_there(world: World) -> None:
    await world.objects.put("acme/a", b"")
    await world.objects.delete(["acme/a", "acme/never"])
    await world.objects.delete([])
    assert [info async for info in world.objects.list("acme/")] == []


# -- rows -------------------------------------------------------------------------------------------------------------
async def test_a_row_that_is_not_there_is_none(world: World, table: str) -> None:
    assert await world.rows.get(table, row()) is None


async def test_every_kind_of_value_comes_back_as_it_was(world: World, table: str) -> None:
    values: dict[str, Value] = {
        "text": "é\u0000", "empty": "", "zero": 0, "large": 10**37, "negative": -5, "yes": True, "no": False,
        "bytes": b"\x00\xff", "list": [1, "a", None, [True]], "map": {"a": {"b": b"c"}, "n": None}, "size": 3,
    }  # fmt: skip
    await world.rows.write(table, row(), values)
    assert await world.rows.get(table, row()) == {**row(), **values}
    got = await world.rows.get(table, row())
    assert got is not None
    assert type(got["zero"]) is int
    assert got["yes"] is True
    assert type(got["bytes"]) is bytes


async def test_a_tuple_comes_back_as_a_list(world: World, table: str) -> None:
    await world.rows.write(table, row(), {"parents": ("a", "b")})
    assert await world.rows.get(table, row()) == row() | {"parents": ["a", "b"]}


@pytest.mark.parametrize("value", [1.5, {1, 2}, 10**38])
async def test_what_a_row_cannot_hold_is_refused(world: World, table: str, value: object) -> None:
    with pytest.raises(TypeError):
        await world.rows.write(table, row(), {"value": value})  # type: ignore[dict-item]


async def test_writing_changes_only_the_attributes_it_names(world: World, table: str) -> None:
    await world.rows.write(table, row(), {"a": 1, "b": 2})
    await world.rows.write(table, row(), {"b": 3})
    assert await world.rows.get(table, row()) == row() | {"a": 1, "b": 3}


async def test_none_removes_an_attribute_and_words_reserved_by_dynamodb_are_free(world: World, table: str) -> None:
    await world.rows.write(table, row(), {"owner": "me", "status": 1, "a.b": 2, "ttl": 3})
    await world.rows.write(table, row(), {"owner": None, "status": 2, "never": None})
    assert await world.rows.get(table, row()) == row() | {"status": 2, "a.b": 2, "ttl": 3}


async def test_a_row_may_be_nothing_but_its_key(world: World, table: str) -> None:
    await world.rows.write(table, row(), {})
    assert await world.rows.get(table, row()) == row()


async def test_a_write_that_expects_what_is_there_goes_through(world: World, table: str) -> None:
    await world.rows.write(table, row(), {"epoch": 1, "owner": "me"})
    await world.rows.write(table, row(), {"epoch": 2}, expect={"epoch": 1, "owner": "me", "gone": None})
    assert await world.rows.get(table, row()) == row() | {"epoch": 2, "owner": "me"}


@pytest.mark.parametrize("expect", [{"epoch": 2}, {"epoch": None}, {"other": 1}, {"epoch": True}, {"epoch": "1"}])
async def test_a_write_that_expects_something_else_writes_nothing(
    world: World, table: str, expect: dict[str, Value]
) -> None:
    await world.rows.write(table, row(), {"epoch": 1})
    with pytest.raises(ConflictError):
        await world.rows.write(table, row(), {"epoch": 9, "new": 1}, expect=expect)
    assert await world.rows.get(table, row()) == row() | {"epoch": 1}


async def test_only_one_of_two_writers_creates_a_row(world: World, table: str) -> None:
    await world.rows.write(table, row(), {"owner": "first"}, expect={"owner": None})
    with pytest.raises(ConflictError):
        await world.rows.write(table, row(), {"owner": "second"}, expect={"owner": None})


async def test_nothing_is_created_where_something_was_expected(world: World, table: str) -> None:
    with pytest.raises(ConflictError):
        await world.rows.write(table, row(), {"epoch": 2}, expect={"epoch": 1})
    assert await world.rows.get(table, row()) is None


async def test_lists_and_maps_can_be_expected(world: World, table: str) -> None:
    await world.rows.write(table, row(), {"spool": ["a", "b"], "position": {"sequence": "7"}})
    await world.rows.write(table, row(), {"spool": []}, expect={"spool": ["a", "b"], "position": {"sequence": "7"}})
    with pytest.raises(ConflictError):
        await world.rows.write(table, row(), {"spool": ["c"]}, expect={"spool": ["a"]})


async def test_deleting_takes_a_row_that_is_not_there(world: World, table: str) -> None:
    await world.rows.write(table, row(), {"a": 1})
    await world.rows.delete(table, row())
    await world.rows.delete(table, row())
    assert await world.rows.get(table, row()) is None


async def test_a_delete_that_expects_something_else_deletes_nothing(world: World, table: str) -> None:
    await world.rows.write(table, row(), {"owner": "me"})
    with pytest.raises(ConflictError):
        await world.rows.delete(table, row(), expect={"owner": "you"})
    await world.rows.delete(table, row(), expect={"owner": "me"})
    assert await world.rows.get(table, row()) is None


async def test_a_query_gives_the_rows_of_one_partition_in_order_of_the_sort_key(world: World, table: str) -> None:
    for name in ("b", "a2", "a10", "B"):
        await world.rows.write(table, row(name), {"n": name})
    await world.rows.write(table, row("a", scope="canonical"), {})
    found = [found["name"] async for found in world.rows.query(table, {"scope": "raw"})]
    assert found == ["B", "a10", "a2", "b"]


async def test_queries_and_scans_go_past_one_page(world: World, table: str) -> None:
    for number in range(12):  # a page ends at 1 MB: AWS API reference, Query
        await world.rows.write(table, row(f"{number:02d}"), {"body": b"x" * 200_000})
    assert [found["name"] async for found in world.rows.query(table, {"scope": "raw"})] == [
        f"{n:02d}" for n in range(12)
    ]
    assert len([found async for found in world.rows.scan(table)]) == 12


async def test_a_scan_gives_the_rows_of_all_partitions(world: World, table: str) -> None:
    for scope in ("raw", "canonical"):
        await world.rows.write(table, row(scope=scope), {"n": 1})
    assert sorted([found["scope"] async for found in world.rows.scan(table)]) == ["canonical", "raw"]


async def test_a_table_that_is_not_there_is_not_found(world: World) -> None:
    with pytest.raises(NotFoundError):
        await world.rows.get(MISSING.leases, row())
    with pytest.raises(NotFoundError):
        await world.rows.write(MISSING.leases, row(), {"a": 1})
    with pytest.raises(NotFoundError):
        _ = [found async for found in world.rows.scan(MISSING.leases)]


# -- secrets ----------------------------------------------------------------------------------------------------------
async def test_a_secret_is_what_was_put_last(world: World) -> None:
    name = world.names.secret("acme", "connectwise")
    await world.secrets.put(name, {"public_key": "a", "private_key": "ü"})
    await world.secrets.put(name, {"public_key": "b"})
    assert await world.secrets.get(name) == {"public_key": "b"}


async def test_a_deleted_secret_is_gone_and_may_be_put_again(world: World) -> None:
    name = world.names.secret("acme", "microsoft_365:contoso")
    await world.secrets.put(name, {"token": "a"})
    await world.secrets.delete(name)
    with pytest.raises(NotFoundError):
        await world.secrets.get(name)
    await world.secrets.delete(name)
    await world.secrets.put(name, {"token": "b"})
    assert await world.secrets.get(name) == {"token": "b"}


# -- time, chance, threads --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()])
async def test_sleeping_takes_at_least_its_time(clock: Clock) -> None:
    before, began = clock.monotonic(), clock.now()
    await clock.sleep(0.002)
    assert clock.monotonic() - before >= 0.0019
    assert clock.now() > began
    await clock.sleep(-1)


@pytest.mark.parametrize("chance", [SystemChance(), FakeChance()])
def test_tokens_differ_and_fractions_stay_below_one(chance: Chance) -> None:
    assert len({chance.token() for _ in range(100)}) == 100
    assert all(0 <= chance.fraction() < 1 for _ in range(100))


@pytest.fixture(params=[InlineThreads, partial(WorkerThreads, 2)], ids=["inline", "pool"])
async def threads(request: pytest.FixtureRequest) -> AsyncIterator[Threads]:
    make: Callable[[], InlineThreads | WorkerThreads] = request.param
    made = make()
    yield made
    if isinstance(made, WorkerThreads):
        made.close()


async def test_work_in_threads_gives_its_result_or_its_error(threads: Threads) -> None:
    assert await threads.run(sorted, [3, 1, 2], reverse=True) == [3, 2, 1]
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)


async def test_more_work_than_threads_is_all_done(threads: Threads) -> None:
    waiting: list[Awaitable[int]] = [threads.run(abs, -number) for number in range(50)]
    assert [await one for one in waiting] == list(range(50))


# -- local state ------------------------------------------------------------------------------------------------------
@pytest.fixture(params=["memory", "sqlite"])
def states(request: pytest.FixtureRequest, tmp_path: Path) -> StateFactory:
    return MemoryStates() if request.param == "memory" else SqliteStates(tmp_path / "state")


@pytest.fixture
def state(states: StateFactory) -> Iterator[LocalState]:
    opened = states.open("acme/connectwise/tickets/0")
    yield opened
    opened.close()


def test_a_key_gives_its_last_value(state: LocalState) -> None:
    state.put_many([(b"a", b"1"), (b"b", b""), (b"a", b"2")])
    assert (state.get(b"a"), state.get(b"b"), state.get(b"c")) == (b"2", b"", None)


def test_none_deletes_a_key(state: LocalState) -> None:
    state.put_many([(b"a", b"1"), (b"b", b"2")])
    state.put_many([(b"a", None), (b"never", None)])
    assert dict(state.items()) == {b"b": b"2"}


def test_many_keys_are_found_at_once_and_missing_ones_left_out(state: LocalState) -> None:
    keys = [b"%d" % number for number in range(2_500)]
    state.put_many((key, key) for key in keys)
    assert state.get_many([*keys, b"missing"]) == {key: key for key in keys}
    assert state.get_many([]) == {}


def test_items_come_in_order_of_key_and_keep_to_their_prefix(state: LocalState) -> None:
    state.put_many((key, b"") for key in (b"b", b"a\xff", b"a", b"a\xff\xff", b"a/1", b"", b"\xff", b"\xff\xff"))
    assert [key for key, _ in state.items(b"a")] == [b"a", b"a/1", b"a\xff", b"a\xff\xff"]
    assert [key for key, _ in state.items(b"\xff")] == [b"\xff", b"\xff\xff"]
    assert [key for key, _ in state.items(b"a\xff")] == [b"a\xff", b"a\xff\xff"]
    assert len(list(state.items())) == 8


def test_items_may_be_changed_while_they_are_read(state: LocalState) -> None:
    state.put_many((b"%04d" % number, b"") for number in range(1_200))
    for key, _ in state.items():
        state.put_many([(key, None)])
    assert list(state.items()) == []


def test_a_batch_that_fails_changes_nothing(state: LocalState) -> None:
    def batch() -> Iterator[tuple[bytes, bytes | None]]:
        yield b"a", b"2"
        raise LookupError

    state.put_many([(b"a", b"1")])
    with pytest.raises(LookupError):
        state.put_many(batch())
    assert dict(state.items()) == {b"a": b"1"}


def test_clearing_leaves_nothing(state: LocalState) -> None:
    state.put_many([(b"a", b"1")])
    state.clear()
    assert list(state.items()) == []


def test_a_store_opened_again_is_empty_and_others_are_untouched(states: StateFactory) -> None:
    one, other = states.open("a/b"), states.open("a_b")
    one.put_many([(b"k", b"1")])
    other.put_many([(b"k", b"2")])
    assert list(states.open("a/b").items()) == []
    assert other.get(b"k") == b"2"
