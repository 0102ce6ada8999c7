"""Trying credentials before they are trusted."""

from typing import Any

import pytest

from services.contracts.errors import RejectedError, RetryableError, UnauthorizedError, UsageError
from services.extractor.answers import Answer
from services.extractor.probe import Reach, check, prove
from services.extractor.refresh import Account
from services.extractor.requests import Request
from tests.extractor.token_vendor import GIVEN, ROTATING, SECRET, answer
from tests.extractor.token_vendor import World as TokenWorld
from tests.extractor.world import KEY, TICKETS, World, answered, opened


async def proven(world: World, key: str = KEY) -> None:
    credentials = {"site": world.vendor.url, "key": key}
    await prove(world.runtime(), world.mappings.integrations["desk"], credentials, transport=world.wire)


async def checked(world: World, key: str = KEY) -> list[Reach]:
    account = Account("secret", {"site": world.vendor.url, "key": key})
    return await check(world.runtime(), world.mappings.integrations["desk"], account, transport=world.wire)


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


async def test_an_endpoint_that_may_not_be_read_names_the_permission_it_needs() -> None:
    async with opened() as world:
        world.use({"tickets": {**TICKETS, "permission": "Tickets.Read.All"}})
        world.vendor.spoil = lambda _: answered(world.vendor.answer({"message": "denied"}, 403))
        (reach,) = await checked(world)
        assert (reach.endpoint, reach.code, reach.permission) == ("tickets", "forbidden", "Tickets.Read.All")
        assert "Tickets.Read.All" in reach.what


async def test_a_parents_further_values_reach_its_children() -> None:
    async with opened() as world:
        values = {"team": "team.name"}
        below = {"path": "teams/{team}/{parent_id}", "parent": {"endpoint": "tickets", "values": values}}
        world.use({"tickets": TICKETS, "notes": {**TICKETS, **below}})
        world.vendor.put("tickets", 4, team={"name": "blue"})
        world.vendor.put("teams/blue/4", 9)
        assert [reach.sample for reach in await checked(world)] == ["4", "9"]


# -- refresh tokens that can be used once -----------------------------------------------------------------------------
def tickets(world: TokenWorld, status: int = 200) -> None:
    def planned(request: Request) -> Answer | None:
        return answer(status, [{"id": 1}]) if request.url.endswith("tickets") else None

    world.vendor.planned = planned


async def tried(world: TokenWorld, secret: str | None = SECRET, **typed: str) -> dict[str, str]:
    credentials: dict[str, Any] = {**GIVEN, **typed}
    return await prove(world.runtime, world.integration, credentials, secret=secret, transport=world.vendor)


async def test_what_comes_for_a_typed_refresh_token_is_stored_at_once() -> None:
    world = TokenWorld(ROTATING)
    world.secrets.held.clear()
    tickets(world)
    stored = await tried(world)
    assert stored == world.secrets.held[SECRET]
    assert stored["refresh_token"] == "r1"
    reached = await check(world.runtime, world.integration, Account(SECRET, stored), transport=world.vendor)
    assert ([reach.sample for reach in reached], world.vendor.given) == (["1"], 1)


async def test_credentials_typed_again_after_the_refresh_token_was_spent_go_on_from_the_next() -> None:
    world = TokenWorld(ROTATING)
    world.secrets.held.clear()
    tickets(world, 500)
    with pytest.raises(RetryableError):
        await tried(world)
    tickets(world)
    assert (await tried(world, client_id="other"))["client_id"] == "other"
    assert (world.vendor.given, world.vendor.replayed) == (1, 0)


async def test_a_refresh_token_that_is_refused_leaves_the_stored_one_alone() -> None:
    world = TokenWorld(ROTATING)
    tickets(world)
    with pytest.raises(UnauthorizedError):
        await tried(world, refresh_token="wrong")
    assert world.secrets.held[SECRET] == GIVEN


async def test_a_dry_run_spends_no_refresh_token() -> None:
    world = TokenWorld(ROTATING)
    with pytest.raises(UsageError, match="once"):
        await tried(world, secret=None)
    assert world.vendor.asked == []


async def test_a_dry_run_stores_nothing_where_nothing_is_spent() -> None:
    world = TokenWorld(ROTATING | {"rotates": False})
    world.secrets.held.clear()
    world.vendor.rotates = True
    tickets(world)
    assert (await tried(world, secret=None))["refresh_token"] == "r1"
    assert world.secrets.held == {}
