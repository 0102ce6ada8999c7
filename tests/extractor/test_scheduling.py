"""A fleet at work: how often, in which order, for whom, and what is nobody else's concern."""

import asyncio
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from services.contracts.log import CredentialsRefused, EndpointFailed
from services.contracts.ports import Value
from services.extractor.answers import Answer
from services.extractor.fleet import NEWCOMER_S, SCAN_S
from services.extractor.requests import Request
from services.extractor.service import run
from services.extractor.tenants import RECONNECT_S
from services.extractor.unit import LEASE_SCOPE
from tests.extractor.test_service import at, filled, running, until
from tests.extractor.world import KEY, NAMES, TICKETS, World, answered, opened

LISTS: dict[str, Any] = {"path": "boards", "record_id": "id", "interval_s": 600}


def asked(world: World, path: str = "tickets") -> int:
    return sum(line.startswith(f"/{path}") for line in world.vendor.asked)


async def progress(world: World, name: str = "acme/desk") -> Mapping[str, Any]:
    row = await world.rows.get(NAMES.leases, {"scope": LEASE_SCOPE, "name": name}) or {}
    found: Mapping[str, Any] = row.get("progress") or {}
    return found


# -- how often --------------------------------------------------------------------------------------------------------
async def test_an_endpoint_is_read_as_often_as_its_tenant_wants() -> None:
    async with opened() as world:
        filled(world)
        await world.connect(endpoints={"tickets": {"interval_s": 5}})
        async with running(world):
            await until(world, lambda: len(world.events) == 3)
            world.vendor.put("tickets", 2, name="changed")
            assert await until(world, lambda: len(world.events) == 4) <= 6


async def test_an_endpoint_is_switched_off_and_on_again_within_a_minute() -> None:
    async with opened() as world:
        world.use({"tickets": TICKETS, "boards": LISTS})
        filled(world)
        world.vendor.put("boards", 1)
        async with running(world):
            await until(world, lambda: len(world.events) == 4)
            off: dict[str, Value] = {"tickets": {"enabled": False}}
            await world.connect(endpoints=off)
            await world.clock.sleep(60)
            before = asked(world)
            world.vendor.put("tickets", 2, name="changed")
            await world.clock.sleep(600)
            assert asked(world) == before
            await world.connect(endpoints=None)
            assert await until(world, lambda: len(world.events) == 5) <= 60 + SCAN_S


async def test_a_paused_service_goes_on_within_a_scan_once_it_is_resumed() -> None:
    async with opened() as world:
        filled(world)
        await world.connect(enabled=False)
        async with running(world):
            await world.clock.sleep(120)
            assert world.vendor.asked == []
            await world.connect(enabled=True, updated_at=at(120))
            assert await until(world, lambda: len(world.events) == 3) <= SCAN_S + 15


async def test_what_was_read_lately_is_not_read_again_because_a_worker_starts() -> None:
    async with opened() as world:
        world.use({"boards": LISTS})
        world.vendor.put("boards", 1)
        async with running(world):
            await until(world, lambda: len(world.events) == 1)
        before = asked(world, "boards")
        async with running(world):
            await world.clock.sleep(300)
            assert asked(world, "boards") == before
            await until(world, lambda: asked(world, "boards") > before, seconds_max=320)


async def test_hundreds_of_tenants_do_not_ask_all_at_once() -> None:
    tenants = [f"tenant-{number}" for number in range(200)]
    async with opened(connected=tenants) as world:
        filled(world, 1)
        seconds: Counter[int] = Counter()

        def note(_: web.Request) -> None:
            seconds[int(world.clock.monotonic())] += 1

        world.vendor.spoil = note
        async with running(world):
            await until(world, lambda: len(world.events) == 200)
            await world.clock.sleep(120)
            first = max(count for second, count in seconds.items() if second < 15)
            later = max(count for second, count in seconds.items() if second >= 60)
        assert first < 60
        assert later < 40


# -- the vendor's budget ----------------------------------------------------------------------------------------------
async def test_where_the_budget_does_not_suffice_reads_are_stretched_and_tickets_feel_it_least() -> None:
    async with opened() as world:
        endpoints = {"tickets": {**TICKETS, "interval_s": 10, "deletes": None}}
        endpoints |= {f"list{number}": {**LISTS, "path": "boards", "interval_s": 300} for number in range(6)}
        world.use(endpoints, limits={"requests": 5, "window_s": 60, "share": 1, "concurrency": 4})
        filled(world, 1)
        world.vendor.put("boards", 1)
        async with running(world):
            await world.clock.sleep(3_600)
            assert float((await progress(world))["pace"]) > 1.0
            tickets, lists = asked(world), asked(world, "boards")
            await world.clock.sleep(3_600)
        tickets, lists = asked(world) - tickets, asked(world, "boards") - lists
        assert tickets / (3_600 / 10) > lists / (6 * 3_600 / 300)
        assert tickets > 150


async def test_what_is_known_of_each_read_is_told_with_the_lease() -> None:
    async with opened() as world:
        filled(world)
        async with running(world):
            await until(world, lambda: len(world.events) == 3)
            await world.clock.sleep(100)
            told = await progress(world)
            assert set(told["reads"]) == {"tickets"}
            age_s = int(world.clock.monotonic()) - (told["reads"]["tickets"] - epoch())
            assert 0 <= age_s <= 65
            assert told["pace"] == "1.00"


def epoch() -> int:
    from services.contracts.times import moment
    from tests.extractor.world import START

    return int(moment(START).timestamp())


async def test_a_customer_that_joins_a_shared_credential_waits_until_the_others_have_made_room() -> None:
    async with opened() as world:
        filled(world)
        limits = {"requests": 600, "window_s": 60, "share": 1, "concurrency": 4, "per": "credential"}
        world.use({"tickets": TICKETS}, limits=limits)
        async with running(world):
            await until(world, lambda: len(world.events) == 3)
            shared = NAMES.secret("acme", "desk")
            now = world.clock.now()
            key = {"tenant_id": "acme", "service": "desk:berlin"}
            await world.rows.write(NAMES.tenant_services, key, {"enabled": True, "secret": shared, "updated_at": now})
            took = await until(world, lambda: len(world.events) == 6)
            assert NEWCOMER_S <= took <= NEWCOMER_S + SCAN_S + 15


async def test_a_partner_s_customers_are_connected_paused_and_read_again_by_themselves() -> None:
    async with opened(connected=()) as world:
        below = {**TICKETS, "path": "a/{account_id}/tickets", "deletes": None}
        customers = {"path": "accounts", "id": "id", "title": "name"}
        world.use({"tickets": below}, customers=customers)
        for account, name in ((7, "Contoso"), (8, "Fabrikam")):
            world.vendor.put("accounts", account, name=name)
            world.vendor.put(f"a/{account}/tickets", account * 10, at(-60))
        await world.connect(connect_all=True)
        async with running(world):
            await until(world, lambda: len(world.events) == 2, seconds_max=NEWCOMER_S + 120)
            assert {event.service for event in world.events} == {"desk:contoso", "desk:fabrikam"}
            world.vendor.drop("accounts", 7)
            await world.clock.sleep(3 * 3_600)
            before = asked(world, "a/7/")
            world.vendor.put("a/7/tickets", 71)
            world.vendor.put("a/8/tickets", 81)
            await world.clock.sleep(600)
            assert asked(world, "a/7/") == before
            assert len(world.events) == 3
            world.vendor.put("accounts", 7, name="Contoso")
            await until(world, lambda: len(world.events) == 4, seconds_max=2 * 3_600)
        rows = [row async for row in world.rows.scan(NAMES.tenant_services)]
        assert sorted(row["service"] for row in rows) == ["desk", "desk:contoso", "desk:fabrikam"]


async def test_a_fleet_may_be_bound_to_one_instance_of_a_vendor() -> None:
    async with opened(connected=()) as world:
        filled(world, 1)
        for service in ("desk", "desk:berlin", "desk:paris"):
            await world.connect(service=service)
        async with running(world, services=("desk:berlin",)):
            await world.clock.sleep(300)
            assert {event.service for event in world.events} == {"desk:berlin"}
        async with running(world, services=("desk",)):
            await until(world, lambda: len({event.service for event in world.events}) == 3)


# -- nobody else's concern --------------------------------------------------------------------------------------------
class SlowFor:
    """A transport on which everything one customer asks takes so long."""

    def __init__(self, world: World, key: str, seconds: float) -> None:
        self._world, self._key, self._seconds = world, key, seconds
        self.asked = 0

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        if headers["X-Key"] == self._key:
            self.asked += 1
            await self._world.clock.sleep(self._seconds)
            headers = {**headers, "X-Key": KEY}
        return await self._world.wire.send(request, headers)


def published(world: World) -> int:
    """Envelopes, here of one event each."""
    return len(world.streams.records(NAMES.raw_stream))


async def test_a_tenant_that_answers_slowly_delays_nobody() -> None:
    async def latencies(slow_s: float) -> tuple[list[float], int]:
        tenants = [f"tenant-{number}" for number in range(12)]
        async with opened(connected=tenants) as world:
            world.use({"tickets": {**TICKETS, "interval_s": 10}})
            filled(world, 1)
            await world.connect("slow", key="slow")
            wire = SlowFor(world, "slow", slow_s)
            stopping, runtime = asyncio.Event(), world.runtime()
            task = asyncio.create_task(run(runtime, world.mappings, stopping, transport=wire))
            renewing = asyncio.create_task(runtime.leases.renew_forever())
            await until(world, lambda: len(world.events) == 13)
            took: list[float] = []
            for turn in range(20):
                began, due = world.clock.monotonic(), 13 * (turn + 1)
                world.vendor.put("tickets", 1, name=f"turn {turn}")
                while published(world) < due + len(tenants):
                    await world.clock.sleep(0.25)
                took.append(world.clock.monotonic() - began)
                while published(world) < due + 13:
                    await world.clock.sleep(0.25)
            stopping.set()
            await task
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            return sorted(took), wire.asked

    alone, _ = await latencies(0.0)
    beside, asked_slowly = await latencies(30.0)
    assert asked_slowly >= 20
    assert beside[18] <= 1.1 * alone[18]


async def test_row_42_revoked_credentials_stop_one_service_with_a_clear_status_and_it_resumes_by_itself() -> None:
    async with opened(connected=("acme", "globex")) as world:
        filled(world)
        revoked: set[str] = {"acme"}
        await world.connect(key="acme's")

        def refuse(request: web.Request) -> Any:
            if request.headers["X-Key"] == "acme's" and revoked:
                return answered(world.vendor.answer({"message": "revoked"}, 401))
            return None if request.headers["X-Key"] == KEY else handled(world, request)

        world.vendor.spoil = refuse
        async with running(world):
            await until(world, lambda: bool(world.heard(CredentialsRefused)))
            status = await world.status()
            assert (status["status"], "revoked" in status["status_what"]) == ("reconnect needed", True)
            before = asked(world)
            await world.clock.sleep(RECONNECT_S / 2)
            acme = [event for event in world.events if event.tenant_id == "acme"]
            assert (acme, len(world.events)) == ([], 3)  # globex was read all the same
            assert asked(world) - before < 10
            revoked.clear()
            await until(world, lambda: len(world.events) == 6, seconds_max=RECONNECT_S + 60)
        assert (await world.status())["status"] == "ok"


async def handled(world: World, request: web.Request) -> web.StreamResponse:
    spoil, world.vendor.spoil = world.vendor.spoil, lambda _: None
    try:
        return await world.vendor.handle(request.clone(headers={**request.headers, "X-Key": KEY}))
    finally:
        world.vendor.spoil = spoil


async def test_row_43_one_forbidden_endpoint_of_twelve_is_reported_and_eleven_go_on() -> None:
    async with opened() as world:
        names = [f"list{number}" for number in range(12)]
        world.use({name: {**TICKETS, "path": name, "deletes": None} for name in names})
        for name in names:
            world.vendor.put(name, 1, at(-60))

        def forbid(request: web.Request) -> Any:
            closed = request.path.startswith("/list7")
            return answered(world.vendor.answer({"message": "no permission"}, 403)) if closed else None

        world.vendor.spoil = forbid
        async with running(world):
            await until(world, lambda: len(world.events) == 11)
            for name in names:
                world.vendor.put(name, 1, name="changed")
            await until(world, lambda: len(world.events) == 22)
            assert {failed.endpoint for failed in world.heard(EndpointFailed)} == {"list7"}
            assert (await world.row("list7"))["failed_code"] == "forbidden"
            assert "failed_code" not in await world.row("list6")
            world.vendor.spoil = lambda _: None
            await until(world, lambda: len(world.events) == 23, seconds_max=1_000)


async def test_row_50_of_two_tasks_that_claim_the_same_one_works_and_the_other_s_write_is_fenced() -> None:
    async with opened() as world:
        filled(world)
        first, second = world.runtime(), world.runtime()
        async with running(world, first):
            await until(world, lambda: len(world.events) == 3)
            await world.clock.sleep(60)
            # the second believes that the first is dead, and the first has not heard of it
            first.leases.drop = lambda lease: None  # type: ignore[method-assign]
            row = await world.rows.get(NAMES.leases, {"scope": LEASE_SCOPE, "name": "acme/desk"}) or {}
            await world.rows.write(NAMES.leases, {"scope": LEASE_SCOPE, "name": "acme/desk"}, {"owner": None})
            async with running(world, second):
                await until(world, lambda: bool(second.leases.held))
                epoch_now = (await world.row())["epoch"]
                assert epoch_now > row["epoch"]
                world.vendor.put("tickets", 2, name="changed")
                await until(world, lambda: any(b"changed" in msgspec.json.encode(event) for event in world.events))
                await world.clock.sleep(300)
                assert (await world.row())["epoch"] == epoch_now
                assert {event.record_id for event in world.events} == {"1", "2", "3"}


async def test_what_a_customer_does_not_have_is_noted_quietly_and_seldom_asked_for() -> None:
    async with opened() as world:
        world.use({"tickets": TICKETS, "boards": {**LISTS, "errors": [{"means": "skip", "status": [402]}]}})
        filled(world)

        def refuse(request: web.Request) -> Any:
            return answered(world.vendor.answer({}, 402)) if request.path == "/boards" else None

        world.vendor.spoil = refuse
        async with running(world):
            await until(world, lambda: len(world.events) == 3)
            await world.clock.sleep(3_600)
            assert asked(world, "boards") == 1
            assert not world.heard(EndpointFailed)
            assert (await world.row("boards"))["failed_code"] == "not_available"


async def test_a_service_that_the_vendor_stops_says_so_and_resumes_by_itself() -> None:
    async with opened() as world:
        world.use({"tickets": TICKETS}, errors=[{"means": "stop", "status": [402], "say": "The subscription ended."}])
        filled(world)
        world.vendor.spoil = lambda _: answered(world.vendor.answer({}, 402))
        async with running(world):
            await until(world, lambda: bool(world.heard(CredentialsRefused)))
            status = await world.status()
            assert (status["status"], "The subscription ended." in status["status_what"]) == ("stopped", True)
            world.vendor.spoil = lambda _: None
            await until(world, lambda: len(world.events) == 3, seconds_max=RECONNECT_S + 60)
        assert (await world.status())["status"] == "ok"
