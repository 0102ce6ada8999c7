"""Access kept open: tokens in time, one call at a time, and no refresh token lost or spent twice."""

import asyncio
import contextlib
from typing import Any

import pytest

from services.contracts.errors import RetryableError, UnauthorizedError, UsageError
from services.extractor.access import VendorAccess
from services.extractor.answers import Answer
from services.extractor.refresh import CONNECTED_AT, KEPT, TRIES_MAX
from services.extractor.requests import Request
from tests.extractor.token_vendor import GIVEN, LEASE_S, LIFETIME_S, OAUTH, ROTATING, SECRET, World, answer, nothing

GRACE = ROTATING | {"grace_s": 600.0}


def bearer(site: Any) -> str:
    return str(site.headers["Authorization"]).removeprefix("Bearer ").removesuffix("-secret")


async def token(access: VendorAccess) -> str:
    return bearer(await access.site())


# -- one token --------------------------------------------------------------------------------------------------------
async def test_a_token_is_asked_for_once_and_used_until_shortly_before_it_expires() -> None:
    world = World(OAUTH)
    access = world.access()
    assert [await token(access) for _ in range(3)] == ["a1"] * 3
    world.clock.advance(LIFETIME_S - 301)
    assert await token(access) == "a1"
    world.clock.advance(2)
    assert await token(access) == "a2"
    assert len(world.vendor.asked) == 2


async def test_all_who_need_a_token_wait_for_one_call() -> None:
    world = World(OAUTH)
    access = world.access()
    assert {bearer(site) for site in await asyncio.gather(*(access.site() for _ in range(20)))} == {"a1"}
    refused = await access.site()
    renewed = await asyncio.gather(*(access.renewed(refused) for _ in range(20)))
    assert {bearer(site) for site in renewed} == {"a2"}
    assert (len(world.vendor.asked), world.vendor.most_under_way) == (2, 1)


async def test_a_token_refused_long_ago_is_not_renewed_again() -> None:
    world = World(OAUTH)
    access = world.access()
    refused = await access.site()
    fresh = await access.renewed(refused)
    assert await access.renewed(refused) is fresh
    assert len(world.vendor.asked) == 2


async def test_a_key_that_is_refused_cannot_be_renewed() -> None:
    world = World({"type": "bearer", "token": "{client_secret}"})
    access = world.access()
    site = await access.site()
    assert await access.renewed(site) is site
    assert world.vendor.asked == []


async def test_a_refresh_that_fails_once_is_repeated() -> None:
    world = World(OAUTH)
    failing = iter([answer(503), answer(429, **{"retry-after": "7"})])
    world.vendor.planned = lambda _: next(failing, None)
    assert await token(world.access()) == "a1"
    assert world.clock.monotonic() >= 7


async def test_a_vendor_that_gives_no_token_is_asked_a_few_times_only() -> None:
    world = World(OAUTH)
    world.vendor.planned = lambda _: answer(500)
    with pytest.raises(RetryableError):
        await world.access().site()
    assert len(world.vendor.asked) == TRIES_MAX


async def test_a_token_that_still_holds_is_used_while_it_cannot_be_refreshed() -> None:
    world = World(OAUTH)
    access = world.access()
    await access.site()
    world.vendor.planned = lambda _: answer(500)
    world.clock.advance(LIFETIME_S - 200)
    assert await token(access) == "a1"
    asked = len(world.vendor.asked)
    assert await token(access) == "a1"
    assert len(world.vendor.asked) == asked, "not again at once"
    world.clock.advance(200)
    with pytest.raises(RetryableError):
        await access.site()
    world.vendor.planned = lambda _: None
    assert await token(access) == "a2"


async def test_refused_credentials_say_what_to_do_and_show_nothing() -> None:
    world = World(OAUTH)
    told = {"error": "invalid_client", "error_description": "no such secret hunter2-hunter2"}
    world.vendor.planned = lambda _: answer(401, told)
    with pytest.raises(UnauthorizedError, match="id or secret is wrong") as raised:
        await world.access().site()
    assert "hunter2" not in str(raised.value)
    assert len(world.vendor.asked) == 1, "a refusal is not repeated"


async def test_new_tokens_are_hidden_as_the_credentials_are() -> None:
    world = World(ROTATING)
    site = await world.access().site()
    assert site.scrubbed("a1-secret, hunter2-hunter2 and a%201") == "***, *** and a%201"
    assert "secret" not in repr(site)


async def test_who_broke_off_does_not_break_off_the_refresh() -> None:
    world = World(GRACE)
    access = world.access()
    waiting = asyncio.ensure_future(access.site())
    await world.clock.sleep(0.05)
    assert world.vendor.under_way
    waiting.cancel()
    await access.close()
    assert world.secrets.held[SECRET]["refresh_token"] == "r1"


async def test_a_missing_credential_is_told_before_anything_is_asked() -> None:
    world = World(OAUTH)
    world.secrets.held[SECRET] = {"client_id": "maria", "refresh_token": "r0"}
    with pytest.raises(UsageError, match="client_secret"):
        world.access()


# -- discovery --------------------------------------------------------------------------------------------------------
WHOAMI = {"url": "https://desk.example/whoami", "values": {"region": "place.region"}}
ZONE = {"url": "https://find.desk.example/zone?user={client_id}", "authenticated": False, "values": {"api": "url"}}


def discovering(world: World, told: dict[str, Answer]) -> None:
    world.vendor.planned = lambda request: next((told[end] for end in told if request.url.endswith(end)), None)


async def test_what_is_discovered_comes_first_and_fills_templates() -> None:
    more = {"base_url": "{api}/v1", "headers": {"X-Region": "{region}"}, "discovery": [WHOAMI, ZONE]}
    world = World(OAUTH | {"token_url": "{api}/token"}, **more)
    discovering(
        world,
        {
            "zone": answer(200, {"url": "https://eu.desk.example/"}),
            "whoami": answer(200, {"place": {"region": "eu-1"}}),
        },
    )
    world.integration.discovery[1].hosts.append("desk.example")
    access = world.access()
    site = await access.site()
    assert (site.base_url, site.headers["X-Region"]) == ("https://eu.desk.example/v1", "eu-1")
    zone, asked, whoami = world.vendor.asked
    assert (zone.address, zone.headers) == (
        "https://find.desk.example/zone?user=maria",
        (("Accept", "application/json"),),
    )
    assert asked.url == "https://eu.desk.example/token"
    assert dict(whoami.headers)["Authorization"] == "Bearer a1-secret"
    await access.site()
    assert len(world.vendor.asked) == 3, "once"
    discovering(
        world,
        {"zone": answer(200, {"url": "https://us.desk.example"}), "whoami": answer(200, {"place": {"region": "us-1"}})},
    )
    assert (await access.renewed(site)).base_url == "https://us.desk.example/v1"


@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example",
        "https://notdesk.example",
        "https://desk.example.evil.example",
        "http://eu.desk.example",
        "https://x@eu.desk.example",
        "http://127.0.0.1",
    ],
)
async def test_an_address_that_is_not_the_vendors_is_never_used(url: str) -> None:
    world = World(OAUTH, base_url="{api}/v1", discovery=[ZONE | {"hosts": ["desk.example"]}])
    discovering(world, {"zone": answer(200, {"url": url})})
    with pytest.raises(UnauthorizedError) as raised:
        await world.access().site()
    assert raised.value.code == "wrong_host"
    assert len(world.vendor.asked) == 1


async def test_one_account_of_several_is_chosen_by_name_or_is_the_first() -> None:
    step = WHOAMI | {"records": "", "values": {"tenant": "id"}, "where": {"name": "{org}"}}
    named = {"org": {"title": "Organisation", "required": False}}
    accounts = answer(200, [{"id": "1", "name": "Berlin"}, {"id": "2", "name": "Paris"}])
    for org, expected in (("paris", "2"), ("", "1")):
        world = World(
            OAUTH, discovery=[step], credentials=dict(named, client_id={"title": "c"}, client_secret={"title": "s"})
        )
        world.secrets.held[SECRET] = {"client_id": "m", "client_secret": "s", "org": org}
        discovering(world, {"whoami": accounts})
        assert (await world.access().site()).values["tenant"] == expected
    world.secrets.held[SECRET]["org"] = "Rome"
    with pytest.raises(UnauthorizedError, match="Rome"):
        await world.access().site()


async def test_a_key_alone_may_need_discovery_and_has_it_made_anew_when_refused() -> None:
    step = {"url": "https://find.desk.example/zone", "values": {"api": "url"}, "hosts": ["desk.example"]}
    world = World({"type": "bearer", "token": "{client_secret}"}, base_url="{api}", discovery=[step])
    discovering(world, {"zone": answer(200, {"url": "https://eu.desk.example"})})
    access = world.access()
    site = await access.site()
    assert dict(world.vendor.asked[0].headers)["Authorization"] == "Bearer hunter2-hunter2"
    assert await access.renewed(site) is site, "nothing has changed"
    discovering(world, {"zone": answer(200, {"url": "https://us.desk.example"})})
    assert (await access.renewed(site)).base_url == "https://us.desk.example"


async def test_a_token_kept_in_the_secret_that_discovery_refuses_is_refreshed() -> None:
    world = World(ROTATING, discovery=[WHOAMI])
    found = answer(200, {"place": {"region": "eu-1"}})
    discovering(world, {"whoami": found})
    await world.access().site()

    def planned(request: Request) -> Answer | None:
        if not request.url.endswith("whoami"):
            return None
        return answer(401) if dict(request.headers)["Authorization"] == "Bearer a1-secret" else found

    world.vendor.planned = planned
    assert await token(world.access()) == "a2"


# -- refresh tokens that are spent (faults.md 41) ---------------------------------------------------------------------
async def test_the_next_refresh_token_is_stored_before_its_token_is_used() -> None:
    world = World(ROTATING)
    await world.access().site()
    assert world.secrets.held[SECRET]["refresh_token"] == "r1"
    assert "a1-secret" in world.secrets.held[SECRET][KEPT]


async def test_a_restart_uses_the_token_of_the_secret() -> None:
    world = World(ROTATING)
    await world.access().site()
    assert await token(world.access(world.worker())) == "a1"
    assert world.vendor.given == 1


async def test_many_workers_and_commands_refresh_once() -> None:
    world = World(ROTATING)
    opened = [world.access(world.worker()) for _ in range(8)]
    sites = await asyncio.gather(*(access.site() for access in opened))
    assert {bearer(site) for site in sites} == {"a1"}
    renewed = await asyncio.gather(*(access.renewed(site) for access, site in zip(opened, sites, strict=True)))
    assert {bearer(site) for site in renewed} == {"a2"}
    assert (world.vendor.given, world.vendor.most_under_way, world.vendor.replayed) == (2, 1, 0)


async def test_credentials_replaced_while_a_refresh_is_under_way_stay() -> None:
    world = World(ROTATING)

    async def replace(_: Request) -> None:
        world.secrets.held[SECRET] = GIVEN | {"refresh_token": "another"}

    world.vendor.after = replace
    await world.access().site()
    assert world.secrets.held[SECRET] == GIVEN | {"refresh_token": "another"}


async def test_a_store_that_is_down_for_a_while_loses_no_refresh_token() -> None:
    world = World(ROTATING)
    world.secrets.fail_next("put", RetryableError("down"), times=12)
    access = world.access()
    with pytest.raises(RetryableError):
        await access.site()
    assert await token(access) == "a1", "not used before it was stored, and stored at the next call"
    assert world.secrets.held[SECRET]["refresh_token"] == "r1"
    assert world.vendor.given == 1


async def test_a_stored_token_whose_answer_was_lost_is_found() -> None:
    world = World(ROTATING)
    world.secrets.lose_next("put")
    assert await token(world.access()) == "a1"
    assert world.secrets.held[SECRET]["refresh_token"] == "r1"


async def test_a_vendor_that_gives_the_same_refresh_token_again_is_no_crash() -> None:
    world = World(ROTATING)
    world.vendor.planned = lambda _: answer(200, {"access_token": f"a{len(world.vendor.asked)}", "expires_in": 600})
    access = world.access()
    for number in (1, 2, 3):
        assert await token(access) == f"a{number}"
        world.clock.advance(599)
    assert world.secrets.held[SECRET]["refresh_token"] == "r0"


async def test_a_network_that_fails_during_a_refresh_spends_nothing_by_our_own_account() -> None:
    world = World(ROTATING)
    world.vendor.planned = lambda _: answer(502)
    access = world.access()
    with pytest.raises(RetryableError):
        await access.site()
    world.vendor.planned = lambda _: None
    assert await token(world.access(world.worker())) == "a1"


async def test_a_refresh_token_that_does_not_rotate_is_replaced_where_a_new_one_comes_along() -> None:
    world = World(ROTATING | {"rotates": False})
    world.vendor.planned = lambda _: answer(200, {"access_token": "a1", "refresh_token": "r9"})
    await world.access().site()
    assert world.secrets.held[SECRET] == GIVEN | {"refresh_token": "r9"}
    world.secrets.fail_next("put", RetryableError("down"))
    world.vendor.planned = lambda _: answer(200, {"access_token": "a2", "refresh_token": "r10"})
    assert await token(world.access()) == "a2", "the old one holds as well"


class Killed(BaseException):
    """The process is gone: whatever it calls from now on never happens."""


class Killer:
    """Ends a worker at its n-th step: before the call takes effect (even) or after it (odd)."""

    def __init__(self, world: World, at: int | None) -> None:
        self.steps, self._at = 0, at
        for port in (world.rows, world.secrets, world.vendor):
            port.before = port.after = self.step

    async def step(self, _: Any) -> None:
        if self._at is not None and self.steps >= self._at:
            raise Killed
        self.steps += 1


async def killed_at(world: World, at: int | None) -> int:
    """A worker asks for a token and dies at a step; how many steps it made."""
    killer = Killer(world, at)
    with contextlib.suppress(Killed):
        await world.access(world.worker()).site()
    Killer(world, None)
    return killer.steps


async def steps_of(auth: dict[str, Any]) -> int:
    return await killed_at(World(auth), None)


async def test_killed_at_any_step_it_heals_where_the_vendor_grants_a_grace() -> None:
    steps = await steps_of(GRACE)
    assert steps > 15
    for at in range(steps):
        world = World(GRACE)
        await killed_at(world, at)
        began = world.clock.monotonic()
        runtime = world.worker()
        assert (await world.access(runtime).site()).headers, at
        assert world.clock.monotonic() - began < 60, at
        assert world.vendor.replayed == 0, at
        shown = world.secrets.held[SECRET]["refresh_token"]
        assert shown == f"r{world.vendor.given}", at
        again = world.access(world.worker())
        assert bearer(await again.renewed(await again.site())) == f"a{world.vendor.given}", "and goes on"


async def test_killed_at_any_step_without_a_grace_it_heals_or_asks_to_be_connected_anew() -> None:
    lost = set()
    for at in range(await steps_of(ROTATING)):
        world = World(ROTATING)
        await killed_at(world, at)
        began = world.clock.monotonic()
        (came,) = await asyncio.gather(world.access(world.worker()).site(), return_exceptions=True)
        assert world.clock.monotonic() - began < 60, at
        if isinstance(came, BaseException):
            lost.add(at)
            for _ in range(2):
                with pytest.raises(UnauthorizedError, match="connect the application anew"):
                    await world.access(world.worker()).site()
            again = {"refresh_token": f"r{world.vendor.given}", CONNECTED_AT: "now"}
            world.secrets.held[SECRET] = GIVEN | again
            assert (await world.access(world.worker()).site()).headers
        assert world.vendor.replayed == 0, "a spent token is never shown again"
    assert lost, "it can be killed between spending and storing"
    assert lost == set(range(min(lost), max(lost) + 1)), "and only there"


async def test_the_old_token_is_tried_once_more_and_not_for_ever() -> None:
    world = World(GRACE)

    async def die(_: Request) -> None:
        raise Killed

    for _ in range(2):
        world.vendor.after = die
        with pytest.raises(Killed):
            await world.access(world.worker()).site()
    with pytest.raises(UnauthorizedError, match="broken off"):
        await world.access(world.worker()).site()
    assert len(world.vendor.asked) == 2


async def test_after_the_grace_the_old_token_is_not_tried() -> None:
    world = World(GRACE)

    async def die(_: Request) -> None:
        raise Killed

    world.vendor.after = die
    with pytest.raises(Killed):
        await world.access(world.worker()).site()
    world.clock.advance(600 + LEASE_S)
    with pytest.raises(UnauthorizedError, match="broken off"):
        await world.access(world.worker()).site()
    assert len(world.vendor.asked) == 1


async def frozen_while_the_vendor_answers(world: World) -> asyncio.Task[Any]:
    """A worker that has spent the token and moves again after its lease is lost."""

    async def freeze(_: Request) -> None:
        world.vendor.after = nothing
        await world.clock.sleep(10 * LEASE_S)

    world.vendor.after = freeze
    frozen = asyncio.ensure_future(world.access(world.worker()).site())
    await world.clock.sleep(1.0)
    return frozen


async def test_a_worker_that_thaws_does_not_undo_what_its_successor_stored() -> None:
    world = World(GRACE)
    frozen = await frozen_while_the_vendor_answers(world)
    assert await token(world.access(world.worker())) == "a2"
    assert bearer(await frozen) == "a2"
    assert world.secrets.held[SECRET]["refresh_token"] == "r2"


async def test_a_worker_that_thaws_heals_what_its_successor_could_not() -> None:
    world = World(ROTATING)
    frozen = await frozen_while_the_vendor_answers(world)
    with pytest.raises(UnauthorizedError):
        await world.access(world.worker()).site()
    assert bearer(await frozen) == "a1"
    assert await token(world.access(world.worker())) == "a1"
    assert (world.vendor.given, world.vendor.replayed) == (1, 0)
