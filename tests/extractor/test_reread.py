"""What an endpoint had published was lost: it publishes everything again when it is asked to (faults.md row 30)."""

from typing import Any

from aiohttp import web

from services.contracts.gaps import Gap
from tests.extractor.test_service import running, until
from tests.extractor.world import NAMES, TICKETS, World, answered, opened


async def ask(world: World, endpoint: str = "tickets", asked_at: str | None = None) -> str:
    """As the compactor asks: the row of the endpoint first."""
    at = asked_at or world.clock.now()
    key = {"tenant_id": "acme", "service_endpoint": f"desk#{endpoint}"}
    await world.rows.write(NAMES.last_updated, key, {"reread_asked_at": at})
    return at


async def until_reread(world: World, asked_at: str) -> None:
    async with running(world):
        while (await world.row())["marks"].get("reread") != asked_at:
            await world.clock.sleep(1)


async def note_gap(world: World, asked_at: str) -> Gap:
    """And then the row of the gap."""
    now = world.clock.now()
    stream = NAMES.raw_stream
    gap = Gap(group="compactor", stream=stream, shard="all", since=now, until=now, at=now, state="source")
    news = {"group": gap.group, "stream": stream, "shard": "all", "since": now, "until": now, "at": now}
    await world.rows.write(NAMES.leases, gap.key, {**news, "state": "source", "asked_at": asked_at})
    return gap


def facts(world: World) -> set[tuple[Any, ...]]:
    """What the fold sees of the raw stream."""
    return {(e.record_id, e.op, e.effective_at, e.observed_at, bytes(e.payload or b"")) for e in world.events}


async def test_everything_is_published_again_deletions_too_and_says_nothing_new() -> None:
    async with opened() as world:
        for number in range(1, 251):
            world.vendor.put("tickets", number)
        await world.read()
        world.vendor.drop("tickets", 7)
        world.clock.advance(3_700)
        await world.read()
        before, count = facts(world), len(world.events)
        asked_at = await ask(world)
        world.clock.advance(60)
        summary = await world.read()
        assert (len(world.events) - count, facts(world)) == (250, before)
        assert summary.published == 249
        assert [op for op, _, _ in world.history(7)] == ["upsert", "delete", "delete"]
        assert (await world.row())["marks"]["reread"] == asked_at


async def test_it_is_done_once_and_the_reads_after_it_are_as_before() -> None:
    async with opened() as world:
        world.vendor.put("tickets", 1)
        await world.read()
        await ask(world)
        await world.read()
        count = len(world.events)
        world.clock.advance(60)
        assert (await world.read()).published == 0
        assert len(world.events) == count


async def test_a_change_found_on_the_way_is_published_as_the_change_it_is() -> None:
    async with opened() as world:
        world.vendor.put("tickets", 1, name="A")
        world.vendor.put("tickets", 2, name="A")
        await world.read()
        world.clock.advance(60)
        world.vendor.put("tickets", 1, name="B")
        await ask(world)
        await world.read()
        assert [time for _, time, _ in world.history(1)] == ["12:00:00", "12:01:00"]
        assert [time for _, time, _ in world.history(2)] == ["12:00:00", "12:00:00"]


async def test_an_endpoint_that_fails_on_the_way_has_not_done_it_and_does_it_next_time() -> None:
    async with opened() as world:
        for number in range(1, 151):
            world.vendor.put("tickets", number)
        await world.read()
        asked_at = await ask(world)

        def denied(request: web.Request) -> Any:
            return answered(world.vendor.answer({}, 403)) if "%20100" in request.path_qs else None

        world.vendor.spoil = denied
        await world.run()
        assert "reread" not in (await world.row())["marks"]
        world.vendor.spoil = lambda _: None
        await world.read()
        assert (await world.row())["marks"]["reread"] == asked_at
        assert len(world.history(150)) == 2


async def test_a_walk_under_way_that_publishes_only_what_is_new_does_not_count_for_it() -> None:
    async with opened() as world:
        world.use({"tickets": TICKETS | {"incremental": None}})
        for number in range(1, 151):
            world.vendor.put("tickets", number)
        await world.read()
        row = await world.row()
        walk: dict[str, Any] = {"kind": "full", "started_at": world.clock.now(), "place": {"after": "100"}}
        await world.rows.write(
            NAMES.last_updated,
            {"tenant_id": "acme", "service_endpoint": "desk#tickets"},
            {"marks": row["marks"] | {"walk": walk}},
        )
        asked_at = await ask(world)
        await world.read()
        assert ((await world.row())["marks"]["reread"], len(world.history(1))) == (asked_at, 2)


async def test_a_walk_that_publishes_everything_goes_on_where_it_was_stopped() -> None:
    async with opened() as world:
        for number in range(1, 251):
            world.vendor.put("tickets", number)
        await world.read()
        asked_at = await ask(world)
        world.vendor.spoil = lambda request: (
            answered(world.vendor.answer({}, 403)) if "%20200" in request.path_qs else None
        )
        async with running(world):
            await until(world, lambda: len(world.events) == 450)
            await world.clock.sleep(60)
        world.vendor.spoil = lambda _: None
        await until_reread(world, asked_at)
        assert len(world.events) == 500


async def test_a_running_extractor_notices_that_it_is_asked() -> None:
    async with opened() as world:
        world.vendor.put("tickets", 1)
        async with running(world):
            await until(world, lambda: len(world.events) == 1)
            await note_gap(world, await ask(world))
            await until(world, lambda: len(world.events) == 2, seconds_max=120)
            await world.clock.sleep(600)
            assert len(world.events) == 2
        assert len(set(facts(world))) == 1


async def test_a_lost_memory_publishes_everything_once_asked_or_not() -> None:
    async with opened() as world:
        world.vendor.put("tickets", 1)
        await world.read()
        asked_at = await ask(world)
        for key in [key for key in world.objects.held if "/state/memory/" in key]:
            del world.objects.held[key]
        await world.read()
        assert ((await world.row())["marks"]["reread"], len(world.events)) == (asked_at, 2)
