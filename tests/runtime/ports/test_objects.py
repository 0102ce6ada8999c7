"""The contract of `Objects`."""

import asyncio

import pytest

from services.contracts.errors import ConflictError, NotFoundError
from tests.runtime.ports.worlds import World


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
