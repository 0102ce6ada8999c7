"""How vendors tell that a record is gone: flags, lists of the deleted, audit entries, merges, ids elsewhere. Over real
HTTP."""

from typing import Any

import pytest
from aiohttp import web

from services.contracts.errors import RetryableError
from services.contracts.log import SweepSuspicious
from services.contracts.ports import Value
from services.contracts.times import shifted
from tests.extractor.world import NAMES, START, SWEEP, TICKETS, World, answered, opened
from tests.fakes import Call, nothing

PLAIN: dict[str, Any] = {**TICKETS, "deletes": None}
FLAGGED: dict[str, Any] = {**PLAIN, "deleted_when": {"path": "active", "equals": ["false"]}}
FEED: dict[str, Any] = {
    **PLAIN,
    "path": "bin",
    "tombstones": [{"endpoint": "tickets", "record_id": "ticket", "at": "deleted_at"}],
}
AUDIT: dict[str, Any] = {
    **PLAIN,
    "path": "audit",
    "tombstones": [
        {
            "endpoint": "tickets",
            "record_id": "target.id",
            "at": "updated",
            "when": {"path": "action", "equals": ["ticket.destroy"]},
        }
    ],
}
MERGES: dict[str, Any] = {
    **PLAIN,
    "tombstones": [
        {"endpoint": "tickets", "record_id": "merged", "at": "updated", "when": {"path": "merged", "equals": []}}
    ],
}


def at(seconds: float) -> str:
    return shifted(START, seconds=seconds)


def filled(world: World, count: int = 3, path: str = "tickets") -> None:
    for number in range(1, count + 1):
        world.vendor.put(path, number, at(number - 3600), active=True)


def buried(world: World, grave: int, ticket: int, seconds: float) -> None:
    """An entry of the bin: the ticket is gone since then."""
    world.vendor.lists.setdefault("tickets", {}).pop(ticket, None)
    world.vendor.put("bin", grave, at(seconds), ticket=ticket, deleted_at=at(seconds))


def reading(world: World, *endpoints: str) -> None:
    """A world with these of all endpoints."""
    known = {"tickets": PLAIN, "bin": FEED, "audit": AUDIT}
    world.use({name: known[name] for name in endpoints})
    for name in endpoints:
        world.vendor.lists.setdefault(name, {})


# -- flags ------------------------------------------------------------------------------------------------------------
async def test_a_record_that_says_it_is_deleted_is() -> None:
    async with opened() as world:
        world.use({"tickets": FLAGGED})
        filled(world)
        await world.read()
        world.clock.advance(60)
        world.vendor.put("tickets", 2, at(30), active=False)
        done = await world.read()
        assert (done.published, done.deleted) == (0, 1)
        assert world.history(2)[-1] == ("delete", "12:00:30", "vendor")
        world.clock.advance(60)
        done = await world.read()
        assert (done.published, done.deleted) == (0, 0)
        world.vendor.put("tickets", 2, at(90), active=True)
        world.clock.advance(60)
        await world.read()
        assert world.history(2)[-1] == ("upsert", "12:01:30", "vendor")


async def test_a_flag_that_changes_no_stamp_deletes_from_when_it_was_read() -> None:
    async with opened() as world:
        world.use({"tickets": {**FLAGGED, "incremental": None}})
        filled(world)
        await world.read()
        world.clock.advance(60)
        world.vendor.put("tickets", 2, at(2 - 3600), active=False)
        assert (await world.read()).deleted == 1
        assert world.history(2)[-1] == ("delete", "12:01:00", "vendor")


async def test_nothing_is_read_below_a_record_that_says_it_is_deleted() -> None:
    async with opened() as world:
        notes = {**PLAIN, "path": "tickets/{parent_id}/notes", "parent": {"endpoint": "tickets"}}
        world.use({"tickets": FLAGGED, "notes": notes})
        filled(world, 2)
        world.vendor.put("tickets", 2, active=False)
        for number in (1, 2):
            filled(world, 1, f"tickets/{number}/notes")
        await world.run()
        assert {asked.split("?")[0] for asked in world.vendor.asked} == {"/tickets", "/tickets/1/notes"}


async def test_a_sweep_takes_a_flagged_record_for_gone_and_a_read_that_shows_the_flag_too() -> None:
    async with opened() as world:
        world.use({"tickets": {**FLAGGED, "deletes": {**SWEEP, "params": {}}}})
        filled(world, 5)
        await world.read()
        world.clock.advance(60)
        world.vendor.put("tickets", 2, at(2 - 3600), active=False)  # no poll shows it
        done = await world.read()
        assert (done.published, done.deleted) == (0, 1)
        assert world.history(2)[-1][0] == "delete"
        assert world.events[-1].source == "GET tickets/2 says it is deleted"
        world.clock.advance(60)
        world.vendor.asked.clear()
        assert (await world.read()).deleted == 0
        assert len(world.vendor.asked) == 2  # a poll and a sweep: nothing is strange about it
        assert not world.heard(SweepSuspicious)


# -- lists of the deleted ---------------------------------------------------------------------------------------------
async def test_an_entry_of_the_bin_deletes_the_record_of_another_endpoint() -> None:
    async with opened() as world:
        reading(world, "tickets", "bin")
        filled(world)
        await world.run()
        world.clock.advance(60)
        buried(world, 1, 2, 40)
        summary = await world.run()
        assert {done.endpoint: (done.published, done.deleted) for done in summary.endpoints} == {
            "tickets": (0, 1),
            "bin": (1, 0),
        }
        assert world.history(2)[0] == ("upsert", "11:00:02", "vendor")
        assert ("delete", "12:00:40", "vendor") in world.history(2)
        gone = next(event for event in world.events if event.op == "delete")
        assert (gone.endpoint, gone.source) == ("tickets", "GET bin after 0")
        world.clock.advance(3_600)
        assert (await world.run()).deleted == 0


@pytest.mark.parametrize("first", ["tickets", "bin"])
async def test_it_does_not_matter_which_comes_to_hand_first(first: str) -> None:
    async with opened() as world:
        reading(world, "tickets", "bin")
        filled(world)
        await world.run()
        world.clock.advance(60)
        world.vendor.put("tickets", 2, at(30), name="last words")
        slow = world.vendor.answer(list(world.vendor.lists["tickets"].values()))
        buried(world, 1, 2, 60)  # while that answer is on its way

        async def late() -> web.StreamResponse:
            while not any(event.op == "delete" for event in world.events):
                await world.clock.sleep(1)
            return slow

        if first == "bin":
            world.wire.patient.add("/tickets")
            world.vendor.spoil = lambda request: late() if request.path == "/tickets" else None
        else:
            world.vendor.spoil = lambda request: answered(slow) if request.path == "/tickets" else None
        await world.run()
        newest = max(world.history(2), key=lambda one: (one[1], one[0] == "delete"))
        assert newest[0] == "delete"
        world.vendor.spoil = lambda _: None
        world.clock.advance(60)
        assert (await world.run()).published == 0


async def test_a_tombstone_of_a_record_that_came_back_deletes_nothing() -> None:
    async with opened() as world:
        world.use({"tickets": TICKETS, "bin": FEED})
        world.vendor.lists["bin"] = {}
        filled(world)
        await world.run(sweep=False)
        world.clock.advance(60)
        world.vendor.put("tickets", 2, at(50), name="back")
        await world.run(sweep=False)
        world.clock.advance(60)
        world.vendor.put("bin", 1, at(70), ticket=2, deleted_at=at(20))
        summary = await world.run(sweep=False)
        assert (summary.complete, summary.deleted) == (True, 0)
        assert "/tickets/2" in world.vendor.asked  # it was looked for
        world.vendor.put("bin", 2, at(100), ticket=3, deleted_at=at(-7_200))
        world.vendor.drop("tickets", 3)
        world.clock.advance(60)
        assert (await world.run(sweep=False)).deleted == 1
        assert world.history(3)[-1] == ("delete", "12:03:00", "vendor")


async def test_where_no_record_can_be_read_an_old_tombstone_is_let_be() -> None:
    async with opened() as world:
        reading(world, "tickets", "bin")
        filled(world)
        world.vendor.put("bin", 1, at(-7_200), ticket=2, deleted_at=at(-7_200))
        await world.run()
        world.clock.advance(60)
        world.vendor.put("tickets", 3, at(50))
        await world.run()
        world.vendor.put("bin", 2, at(70), ticket=3, deleted_at=at(20))
        world.clock.advance(60)
        assert (await world.run()).deleted == 0


async def test_a_tombstone_of_a_record_never_seen_leaves_nothing_alive() -> None:
    async with opened() as world:
        reading(world, "tickets", "bin")
        buried(world, 1, 9, -60)
        await world.run()
        assert [op for op, _, _ in world.history(9)] == ["delete"]
        world.clock.advance(60)
        world.vendor.put("tickets", 9, name="back")
        await world.run()
        assert world.history(9)[-1] == ("upsert", "12:01:00", "vendor")


async def test_a_tombstone_of_an_endpoint_that_is_not_read_is_let_be() -> None:
    async with opened() as world:
        reading(world, "bin")
        buried(world, 1, 2, -60)
        summary = await world.run()
        assert (summary.complete, summary.published, summary.deleted) == (True, 1, 0)


async def test_killed_between_a_tombstone_and_its_record_both_are_read_again() -> None:
    async with opened() as world:
        reading(world, "tickets", "bin")
        filled(world)
        await world.run()
        world.clock.advance(60)
        buried(world, 1, 2, 40)

        async def down_after_one(call: Call) -> None:
            if call.method == "put" and len(world.events) == 4:
                raise RetryableError("down")

        world.streams.before = down_after_one
        assert not (await world.run()).complete
        world.streams.before = nothing
        assert [op for op, _, _ in world.history(2)] == ["upsert", "delete"]
        await world.run()
        assert len([event for event in world.events if event.endpoint == "bin"]) == 1
        assert [op for op, _, _ in world.history(2)] == ["upsert", "delete"]


async def test_only_the_entries_of_an_audit_log_that_say_so_delete() -> None:
    async with opened() as world:
        reading(world, "tickets", "audit")
        filled(world)
        world.vendor.put("audit", 101, at(-60), action="ticket.view", target={"id": 1})
        await world.run()
        world.clock.advance(60)
        world.vendor.put("audit", 102, at(30), action="ticket.destroy", target={"id": 2})
        assert (await world.run()).deleted == 1
        assert world.history(1) == [("upsert", "11:00:01", "vendor")]
        assert world.history(2)[-1] == ("delete", "12:00:30", "vendor")


async def test_the_loser_of_a_merge_is_gone() -> None:
    async with opened() as world:
        world.use({"tickets": MERGES})
        filled(world)
        await world.read()
        world.clock.advance(60)
        world.vendor.drop("tickets", 2)
        world.vendor.put("tickets", 1, at(30), merged=2)
        done = await world.read()
        assert (done.published, done.deleted) == (1, 1)
        assert world.history(2)[-1] == ("delete", "12:00:30", "vendor")


async def test_a_lost_memory_does_not_make_old_tombstones_true() -> None:
    async with opened() as world:
        reading(world, "tickets", "bin")
        filled(world)
        buried(world, 1, 2, -900)
        await world.run()
        filled(world)  # restored, under its old stamp
        await world.objects.delete([key for key in world.objects.held if "/state/memory/" in key])
        world.clock.advance(60)
        await world.run()
        world.clock.advance(60)
        await world.run()
        assert max(world.history(2), key=lambda one: (one[1], one[0] == "delete"))[0] == "upsert"


# -- ids elsewhere ----------------------------------------------------------------------------------------------------
async def test_a_sweep_reads_ids_where_they_are_listed() -> None:
    async with opened() as world:
        elsewhere = {
            "path": "all/ids",
            "records": "ids.list",
            "params": {},
            "pagination": {"type": "none"},
            "confirm": "tickets/{record_id}",
        }
        world.use({"tickets": {**TICKETS, "deletes": {**SWEEP, **elsewhere}}})
        filled(world, 5)
        world.vendor.routes["all/ids"] = lambda _: world.vendor.answer(
            {"ids": {"list": [{"id": one} for one in world.vendor.lists["tickets"]]}}
        )
        await world.read()
        world.vendor.drop("tickets", 2)
        world.clock.advance(60)
        assert (await world.read()).deleted == 1
        assert "/all/ids" in world.vendor.asked


# -- a read that says too little --------------------------------------------------------------------------------------
async def test_where_no_record_can_be_found_one_by_one_nothing_is_believed_to_be_gone() -> None:
    async with opened() as world:
        filled(world, 6)
        await world.read()
        world.clock.advance(60)
        world.vendor.spoil = lambda request: (
            answered(world.vendor.answer([{"id": number} for number in range(1, 5)]))  # two moved between pages
            if "fields" in request.query
            else answered(world.vendor.answer({"message": "no route"}, 404))  # a gateway, or a wrong path
            if request.path.rpartition("/")[2].isdecimal()
            else None
        )
        done = await world.read()
        assert (done.deleted, len(world.heard(SweepSuspicious))) == (0, 1)
        world.vendor.spoil = lambda _: None
        world.vendor.drop("tickets", 2)
        world.clock.advance(3_600)
        assert (await world.read()).deleted == 1


async def test_below_parents_whose_lists_are_suddenly_not_found_nothing_is_deleted() -> None:
    async with opened() as world:
        notes = {
            **TICKETS,
            "path": "tickets/{parent_id}/notes",
            "parent": {"endpoint": "tickets"},
            "deletes": {**SWEEP, "confirm": "notes/{record_id}"},
        }
        world.use({"tickets": PLAIN, "notes": notes})
        filled(world, 4)
        for ticket in range(1, 5):
            world.vendor.put(f"tickets/{ticket}/notes", ticket, at(-600))
            world.vendor.put("notes", ticket, at(-600))
        await world.run()
        world.clock.advance(60)
        for path in ("tickets/4/notes", "notes"):
            world.vendor.lists.pop(path)
        assert (await world.run()).deleted == 0


async def test_a_record_that_goes_away_while_it_is_looked_at_is_gone() -> None:
    async with opened() as world:
        world.use({"tickets": {**FLAGGED, "deletes": SWEEP}})
        filled(world, 4)
        await world.read()
        world.clock.advance(60)
        looks: list[str] = []

        def fading(request: web.Request) -> Any:
            if "fields" in request.query:
                return answered(world.vendor.answer([{"id": 1}, {"id": 3}, {"id": 4}]))
            if request.path == "/tickets/2":
                looks.append(request.path)
                return answered(world.vendor.answer({"id": 2, "active": True}, 200 if len(looks) == 1 else 404))
            return None

        world.vendor.spoil = fading
        assert (await world.read()).deleted == 1


async def test_one_list_of_ids_may_serve_what_hangs_from_many_parents() -> None:
    async with opened() as world:
        sweep = {"type": "sweep", "path": "notes", "params": {"fields": "id"}, "confirm": "notes/{record_id}"}
        notes = {**PLAIN, "path": "tickets/{parent_id}/notes", "parent": {"endpoint": "tickets"}, "deletes": sweep}
        world.use({"tickets": PLAIN, "notes": notes})
        filled(world, 3)
        for number in (1, 2, 3):
            world.vendor.put(f"tickets/{number}/notes", number * 10, at(-60))
            world.vendor.put("notes", number * 10, at(-60))
        await world.run()
        world.vendor.drop("tickets/2/notes", 20)
        world.vendor.drop("notes", 20)
        world.clock.advance(60)
        world.vendor.asked.clear()
        assert (await world.run()).deleted == 1
        assert len([asked for asked in world.vendor.asked if "fields" in asked]) == 1


async def test_the_memory_of_a_former_version_is_read() -> None:
    async with opened() as world:
        reading(world, "tickets")
        filled(world)
        await world.read()
        row = await world.row()
        marks: dict[str, Value] = {name: row["marks"][name] for name in ("fresh", "settled", "shape", "swept_at")}
        key = {"tenant_id": "acme", "service_endpoint": "desk#tickets"}
        await world.rows.write(NAMES.last_updated, key, {"marks": marks})
        world.clock.advance(60)
        assert (await world.read()).published == 0
