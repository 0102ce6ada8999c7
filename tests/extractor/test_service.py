"""The extractor for ever: polls, sweeps, comings and goings, on a clock that takes no time."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from services.contracts.errors import RetryableError
from services.contracts.log import (
    CredentialsRefused,
    EndpointFailed,
    EndpointsLate,
    LeaseLost,
    ServiceAlive,
    ServiceStarted,
    ServiceStopped,
    WaitingFor,
)
from services.contracts.times import shifted
from services.extractor.service import run
from services.extractor.tenants import RECONNECT_S
from services.extractor.unit import LEASE_SCOPE
from services.runtime.runtime import Runtime
from tests.extractor.world import NAMES, START, SWEEP, TICKETS, World, answered, opened

INTERVAL_S = 60.0
SWEEP_S = 3600.0


@asynccontextmanager
async def running(
    world: World, runtime: Runtime | None = None, services: tuple[str, ...] = ()
) -> AsyncIterator[Runtime]:
    """An extractor at work, stopped cleanly at the end."""
    runtime = runtime or world.runtime()
    stopping = asyncio.Event()
    renewing = asyncio.create_task(runtime.leases.renew_forever())
    task = asyncio.create_task(run(runtime, world.mappings, stopping, services=services, transport=world.wire))
    try:
        yield runtime
    finally:
        stopping.set()
        await task
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


async def until(world: World, holds: Callable[[], bool], seconds_max: float = 900.0) -> float:
    """Let time pass until it holds; how long it took."""
    start = world.clock.monotonic()
    while not holds():
        assert world.clock.monotonic() - start < seconds_max, "it never came"
        await world.clock.sleep(1)
    return world.clock.monotonic() - start


def ops(world: World, record_id: int) -> list[str]:
    return [op for op, _, _ in world.history(record_id)]


def at(seconds: float) -> str:
    return shifted(START, seconds=seconds)


def filled(world: World, count: int = 3) -> None:
    for number in range(1, count + 1):
        world.vendor.put("tickets", number, at(number - 3600))


async def test_a_change_is_published_within_its_interval() -> None:
    async with opened() as world, running(world):
        filled(world)
        await until(world, lambda: len(world.events) == 3)
        world.vendor.put("tickets", 2, name="changed")
        assert await until(world, lambda: len(world.events) == 4) <= INTERVAL_S + 1
    assert world.heard(ServiceStarted)
    assert world.heard(ServiceStopped)


async def test_an_idle_service_publishes_nothing_and_writes_little() -> None:
    async with opened() as world:
        filled(world)
        async with running(world):
            await until(world, lambda: len(world.events) == 3)
            writes: list[str] = []

            async def count(call: Any) -> None:
                if call.method == "write" and call.subject == NAMES.last_updated:
                    writes.append(call.subject)

            world.rows.before = count
            await world.clock.sleep(3_000)
            assert len(world.events) == 3
            assert len(writes) <= 3_000 / 300 + 1


async def test_a_record_that_shows_late_is_caught_by_the_settle_pass() -> None:
    async with opened() as world:
        filled(world)
        async with running(world):
            await until(world, lambda: len(world.events) == 3)
            world.vendor.put("tickets", 9, name="late")
            world.vendor.visible_at["tickets", 9] = shifted(world.clock.now(), seconds=90)
            await until(world, lambda: len(world.events) == 4, seconds_max=700)


async def test_a_sweep_that_is_asked_to_slow_down_is_no_failure() -> None:
    async with opened() as world, running(world):
        filled(world)
        await until(world, lambda: len(world.events) == 3)

        def busy(request: web.Request) -> Any:
            single = request.path.rpartition("/")[2].isdecimal()
            return answered(world.vendor.answer(b"", 429, **{"Retry-After": "7200"})) if single else None

        world.vendor.spoil = busy
        world.vendor.drop("tickets", 3)
        await until(world, lambda: "/tickets/3" in world.vendor.asked, SWEEP_S + 600)
        await world.clock.sleep(5)
        assert not world.heard(EndpointFailed)


async def test_a_deletion_is_found_by_the_next_sweep() -> None:
    async with opened() as world:
        filled(world)
        async with running(world):
            await until(world, lambda: len(world.events) == 3)
            world.vendor.drop("tickets", 2)
            took = await until(world, lambda: ops(world, 2)[-1] == "delete", seconds_max=4_000)
            assert took > 3_000
            filled(world)
            await until(world, lambda: ops(world, 2) == ["upsert", "delete", "upsert"], seconds_max=4_000)


async def test_children_wait_for_their_parent_s_first_walk() -> None:
    async with opened() as world:
        notes = {**TICKETS, "path": "tickets/{parent_id}/notes", "deletes": None, "parent": {"endpoint": "tickets"}}
        world.use({"tickets": TICKETS, "notes": notes})
        filled(world, 1)
        world.vendor.put("tickets/1/notes", 7, at(-60))
        async with running(world):
            await until(world, lambda: len(world.events) == 2)
        assert not world.heard(EndpointFailed)


async def test_new_and_paused_services_are_noticed_within_a_minute() -> None:
    async with opened() as world:
        filled(world)
        async with running(world):
            await until(world, lambda: len(world.events) == 3)
            await world.connect("globex")
            assert await until(world, lambda: len(world.events) == 6) <= 60
            await world.connect("globex", enabled=False)
            await world.clock.sleep(60)
            row = await world.rows.get(NAMES.leases, {"scope": LEASE_SCOPE, "name": "globex/desk"})
            assert row is not None
            assert "owner" not in row


async def test_an_interval_of_the_row_s_own_is_kept() -> None:
    async with opened() as world:
        filled(world)
        await world.connect(interval_s=5)
        async with running(world):
            await until(world, lambda: len(world.events) == 3)
            world.vendor.put("tickets", 2, name="changed")
            assert await until(world, lambda: len(world.events) == 4) <= 6


async def test_a_fleet_may_be_bound_to_some_vendors() -> None:
    async with opened() as world:
        filled(world)
        async with running(world, services=("payroll",)):
            await world.clock.sleep(120)
            assert world.vendor.asked == []
        async with running(world, services=("desk",)):
            await until(world, lambda: len(world.events) == 3)


async def test_revoked_credentials_stop_one_tenant_and_resume_by_themselves() -> None:
    async with opened(connected=("acme", "globex")) as world:
        filled(world)
        async with running(world):
            await until(world, lambda: len(world.events) == 6)
            await world.connect(key="revoked", updated_at=at(1))
            await until(world, lambda: bool(world.heard(CredentialsRefused)))
            assert (await world.status())["status"] == "reconnect needed"
            asked = len(world.vendor.asked)
            world.vendor.put("tickets", 2, name="changed")
            await until(world, lambda: len(world.events) == 7)  # globex goes on
            await world.secrets.put(NAMES.secret("acme", "desk"), {"site": world.vendor.url, "key": "hunter2-hunter2"})
            await until(world, lambda: len(world.events) == 8, seconds_max=RECONNECT_S + 60)
            assert len(world.vendor.asked) - asked < 30
        assert (await world.status())["status"] == "ok"


async def test_replaced_credentials_are_used_within_a_minute() -> None:
    async with opened() as world:
        filled(world)
        await world.connect(key="wrong", status="ok")
        async with running(world):
            await until(world, lambda: bool(world.heard(CredentialsRefused)))
            await world.connect(status="ok", updated_at=at(5))
            assert await until(world, lambda: len(world.events) == 3) <= 60


async def test_a_failing_endpoint_is_tried_again_less_and_less_and_recovers() -> None:
    async with opened() as world:
        world.use({"tickets": TICKETS, "payroll": {**TICKETS, "path": "payroll", "deletes": None}})
        filled(world)
        async with running(world):
            await until(world, lambda: len(world.events) == 3)
            await world.clock.sleep(3_000)
            assert 3 <= len(world.heard(EndpointFailed)) <= 10
            assert (await world.row("payroll"))["failed_code"] == "not_found"
            world.vendor.put("payroll", 1)
            await until(world, lambda: len(world.events) == 4, seconds_max=1_000)
            await world.clock.sleep(1)
            assert "failed_code" not in await world.row("payroll")


async def test_of_two_workers_one_works_and_a_dead_one_is_replaced_within_one_and_a_half_lease_times() -> None:
    async with opened() as world:
        filled(world)
        first, second = world.runtime(), world.runtime()
        dying = asyncio.create_task(run(first, world.mappings, asyncio.Event(), transport=world.wire))
        renewing = asyncio.create_task(first.leases.renew_forever())
        await until(world, lambda: len(world.events) == 3)
        async with running(world, second):
            await world.clock.sleep(60)
            assert len(world.events) == 3
            dying.cancel()
            renewing.cancel()
            key = {"scope": LEASE_SCOPE, "name": "acme/desk"}
            await world.rows.write(NAMES.leases, key, {"owner": "a worker killed uncleanly", "counter": 1_000})
            await asyncio.gather(dying, renewing, return_exceptions=True)
            world.vendor.put("tickets", 2, name="changed")
            held = lambda: bool(second.leases.held)  # noqa: E731
            assert await until(world, held) <= 1.5 * second.leases.lease_s
            await until(world, lambda: len(world.events) == 4)


async def test_who_lost_the_lease_stops_quietly_and_cannot_save() -> None:
    async with opened() as world:
        filled(world)
        async with running(world):
            await until(world, lambda: len(world.events) == 3)
            key = {"scope": LEASE_SCOPE, "name": "acme/desk"}
            await world.rows.write(NAMES.leases, key, {"owner": "another", "epoch": 50})
            await until(world, lambda: bool(world.heard(LeaseLost)))
        assert not world.heard(EndpointFailed)


async def test_a_service_without_a_mapping_or_endpoints_is_said_once_and_left_alone() -> None:
    async with opened() as world:
        await world.connect(service="payroll")
        world.use({"tickets": {**TICKETS, "enabled": False}})
        async with running(world):
            await world.clock.sleep(300)
        assert [event.code for event in world.heard(EndpointFailed)] == ["unknown_service"]
        assert world.vendor.asked == []


async def test_a_table_that_cannot_be_reached_is_waited_for() -> None:
    async with opened() as world:
        filled(world)
        world.rows.fail_next("scan", RetryableError("no network"), times=2)
        async with running(world):
            await until(world, lambda: len(world.events) == 3)
        assert world.heard(WaitingFor)


async def test_a_mistake_of_ours_in_one_unit_is_told_and_the_others_go_on() -> None:
    async with opened(connected=("acme", "globex")) as world:
        filled(world)

        async def broken(call: Any) -> None:
            if call.subject == NAMES.secret("acme", "desk"):
                raise ZeroDivisionError("payload 42")

        world.secrets.before = broken
        async with running(world):
            await until(world, lambda: len(world.events) == 3 and bool(world.heard(EndpointFailed)))
            (told,) = world.heard(EndpointFailed)
            assert told.tenant_id == "acme"
            assert "ZeroDivisionError at " in told.what
            assert "payload" not in told.what


async def test_stopping_in_the_middle_of_a_walk_saves_where_it_is() -> None:
    async with opened() as world:
        world.use({"tickets": {**TICKETS, "deletes": {**SWEEP, "interval_s": 1}}})
        filled(world, 1_000)
        stopping = asyncio.Event()

        def stop_after_three(_: Any) -> None:
            if len(world.vendor.asked) == 3:
                stopping.set()

        world.vendor.spoil = stop_after_three
        await run(world.runtime(), world.mappings, stopping, transport=world.wire)
        walk = (await world.row())["marks"]["walk"]
        assert walk["place"]["after"] == str(len(world.events))
        assert len(world.events) < 1_000
        world.vendor.spoil = lambda _: None
        async with running(world):
            await until(world, lambda: len({event.record_id for event in world.events}) == 1_000)
        assert len(world.events) == 1_000


async def test_a_vendor_that_hangs_does_not_keep_us_from_stopping() -> None:
    async with opened() as world:
        filled(world)
        asked, released, stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def hang() -> web.StreamResponse:
            asked.set()
            await released.wait()
            return world.vendor.answer([])

        world.vendor.spoil = lambda _: hang()
        task = asyncio.create_task(run(world.runtime(), world.mappings, stopping, transport=world.wire))
        await asked.wait()
        stopping.set()
        world.clock.on_the_wire = 0  # let time pass though a request is under way
        await asyncio.wait_for(task, 5)
        released.set()


async def test_a_restored_record_that_vanished_while_it_was_looked_for_is_looked_for_again() -> None:
    async with opened() as world, running(world):
        filled(world)
        await until(world, lambda: len(world.events) == 3)
        world.vendor.drop("tickets", 2)
        await until(world, lambda: ops(world, 2) == ["upsert", "delete"], 2 * SWEEP_S)
        shown: list[str] = []

        def spoil(request: web.Request) -> None:
            """It is there for the next sweep, and gone again whenever it is looked for after that."""
            if "fields" in request.query:
                filled(world)
                shown.append(request.path_qs)
            elif shown and "updated >=" not in request.query.get("where", ""):
                world.vendor.lists["tickets"].pop(2, None)

        world.vendor.spoil = spoil
        await until(world, lambda: 2 not in world.vendor.lists["tickets"] and len(shown) > 0, 2 * SWEEP_S)
        await world.clock.sleep(10)
        world.vendor.spoil = lambda _: None
        filled(world)  # back for good, still under its old stamp
        await until(world, lambda: ops(world, 2)[-1] == "upsert", 3 * SWEEP_S)


async def test_how_late_the_tenants_of_each_tier_are_is_told_once_a_minute() -> None:
    async with opened() as world:
        await world.connect("zoo", tier="premium")
        filled(world)

        def late(tier: str) -> float:
            return float([event.seconds for event in world.heard(EndpointsLate) if event.tier == tier][-1])

        async with running(world):
            await world.clock.sleep(600)
            assert (late("standard"), late("premium")) == (0, 0)
            assert 10 <= len(world.heard(ServiceAlive)) <= 11
            assert {event.group for event in world.heard(ServiceAlive)} == {"extractor"}
            world.vendor.spoil = lambda _: answered(world.vendor.answer(b"", 500))
            await world.clock.sleep(3_600)
            assert late("standard") > 3_000
            assert late("premium") > 3_000
            await world.rows.write(
                NAMES.tenant_services, {"tenant_id": "zoo", "service": "desk"}, {"enabled": False}, None
            )
            await world.clock.sleep(300)
            assert late("standard") > 3_000
            assert late("premium") == 0


async def test_a_fleet_bound_to_vendors_has_a_name_of_its_own() -> None:
    async with opened() as world, running(world, services=("desk",)):
        await world.clock.sleep(5)
        (alive,) = world.heard(ServiceAlive)
        assert (alive.service, alive.group) == ("extractor", "extractor-desk")
