"""Trying credentials before they are trusted."""

import pytest

from services.contracts.errors import RejectedError, RetryableError, UnauthorizedError
from services.extractor.probe import Reach, check, prove
from tests.extractor.world import KEY, TICKETS, World, answered, opened


async def proven(world: World, key: str = KEY) -> None:
    credentials = {"site": world.vendor.url, "key": key}
    await prove(world.runtime(), world.mappings.integrations["desk"], credentials, transport=world.wire)


async def checked(world: World, key: str = KEY) -> list[Reach]:
    credentials = {"site": world.vendor.url, "key": key}
    return await check(world.runtime(), world.mappings.integrations["desk"], credentials, transport=world.wire)


async def test_one_cheap_call_proves_credentials() -> None:
    async with opened() as world:
        world.vendor.put("tickets", 1)
        await proven(world)
        assert len(world.vendor.asked) == 1
        assert "size=1" in world.vendor.asked[0]


async def test_wrong_credentials_are_refused_and_not_shown() -> None:
    async with opened() as world:
        with pytest.raises(UnauthorizedError) as raised:
            await proven(world, key="wrong-wrong-wrong")
        assert "wrong-wrong-wrong" not in str(raised.value)


async def test_credentials_that_may_not_read_the_first_endpoint_are_still_good() -> None:
    async with opened() as world:
        world.use({"payroll": {**TICKETS, "path": "payroll"}, "tickets": TICKETS})
        world.vendor.put("tickets", 1)
        await proven(world)
        world.vendor.spoil = lambda _: answered(world.vendor.answer({}, 403))
        with pytest.raises(RejectedError):
            await proven(world)


async def test_a_vendor_that_is_down_proves_nothing_and_is_not_waited_for_long() -> None:
    async with opened() as world:
        world.vendor.spoil = lambda _: answered(world.vendor.answer({}, 500))
        with pytest.raises(RetryableError):
            await proven(world)
        assert world.clock.monotonic() < 10


async def test_each_endpoint_tells_whether_it_can_be_reached() -> None:
    async with opened() as world:
        below = {**TICKETS, "parent": {"endpoint": "tickets"}}
        world.use(
            {
                "tickets": TICKETS,
                "notes": {**below, "path": "tickets/{parent_id}/notes"},
                "payroll": {**TICKETS, "path": "payroll"},
                "slips": {**TICKETS, "path": "payroll/{parent_id}", "parent": {"endpoint": "payroll"}},
            },
        )
        world.vendor.put("tickets", 4)
        world.vendor.put("tickets/4/notes", 9)
        found = {reach.endpoint: (reach.code, reach.sample) for reach in await checked(world)}
        assert found == {
            "tickets": ("", "4"),
            "notes": ("", "9"),
            "payroll": ("not_found", None),
            "slips": ("not_found", None),
        }


async def test_an_empty_parent_leaves_nothing_to_ask() -> None:
    async with opened() as world:
        world.use(
            {"tickets": TICKETS, "notes": {**TICKETS, "path": "x/{parent_id}", "parent": {"endpoint": "tickets"}}}
        )
        world.vendor.lists["tickets"] = {}
        assert [reach.code for reach in await checked(world)] == ["", ""]
