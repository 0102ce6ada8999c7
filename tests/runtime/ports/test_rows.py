"""The contract of `Rows`."""

import pytest

from services.contracts.errors import ConflictError, NotFoundError
from services.contracts.ports import Value
from tests.runtime.ports.worlds import MISSING, World


@pytest.fixture
def table(world: World) -> str:
    return world.names.leases


def row(name: str = "shard-1", scope: str = "raw") -> dict[str, str]:
    return {"scope": scope, "name": name}


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
