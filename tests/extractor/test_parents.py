"""What hangs from another endpoint's records. Over real HTTP."""

from typing import Any

import msgspec
import pytest

from services.contracts.times import shifted
from tests.extractor.world import INCREMENTAL, START, TICKETS, World, answered, opened

PLAIN: dict[str, Any] = {**TICKETS, "deletes": None}
NOTES: dict[str, Any] = {**PLAIN, "path": "tickets/{parent_id}/notes", "parent": {"endpoint": "tickets"}}
CHANGED: dict[str, Any] = {**NOTES, "parent": {"endpoint": "tickets", "when_changed": True, "all_every_s": 7_200}}


def at(seconds: float) -> str:
    return shifted(START, seconds=seconds)


def filled(world: World, count: int = 3) -> None:
    """Tickets, each with a note."""
    for number in range(1, count + 1):
        world.vendor.put("tickets", number, at(number - 36_000))
        world.vendor.put(f"tickets/{number}/notes", number * 10, at(number - 36_000))


def below(world: World) -> list[str]:
    """The tickets whose notes were asked for, in order."""
    found = [asked.split("/")[2] for asked in world.vendor.asked if "/notes" in asked]
    world.vendor.asked.clear()
    return found


async def test_values_of_the_parent_s_record_go_into_the_child_s_templates() -> None:
    async with opened() as world:
        parent = {"endpoint": "tickets", "values": {"site": "site.id", "drive": "drive"}}
        files = {**PLAIN, "path": "sites/{site}/drives/{drive}/{parent_id}", "parent": parent}
        world.use({"tickets": PLAIN, "files": files})
        world.vendor.put("tickets", 1, at(-60), site={"id": "s1"}, drive="d1")
        world.vendor.put("tickets", 2, at(-60), drive="d2")  # has no site: nothing to ask for
        world.vendor.put("sites/s1/drives/d1/1", 7, at(-60))
        world.vendor.routes["sites/s1/drives/d1/1"] = lambda _: world.vendor.answer(
            list(world.vendor.lists["sites/s1/drives/d1/1"].values())
        )
        summary = await world.run()
        assert (summary.complete, summary.published) == (True, 3)
        world.clock.advance(60)
        world.vendor.put("sites/s1/drives/d1/1", 8)
        assert (await world.run()).published == 1  # a new worker: what the parent said is remembered


async def test_values_that_are_asked_for_later_are_read_once_more_and_not_published() -> None:
    async with opened() as world:
        world.use({"tickets": PLAIN})
        world.vendor.put("tickets", 1, at(-36_000), site="s1")
        await world.run()
        files = {**PLAIN, "path": "sites/{site}", "parent": {"endpoint": "tickets", "values": {"site": "site"}}}
        world.use({"tickets": PLAIN, "files": files})
        world.vendor.put("sites/s1", 7, at(-60))
        world.vendor.routes["sites/s1"] = lambda _: world.vendor.answer(list(world.vendor.lists["sites/s1"].values()))
        world.clock.advance(60)
        summary = await world.run()
        assert {done.endpoint: done.published for done in summary.endpoints} == {"tickets": 0, "files": 1}


def taken(world: World) -> list[tuple[str, str, Any]]:
    """(record id, op, what it took along of its parent) of every note, in order."""
    payloads = [(e, {} if e.op == "delete" else msgspec.json.decode(bytes(e.payload))) for e in world.events]  # type: ignore[arg-type]
    return [(e.record_id, e.op, found.get("_parent")) for e, found in payloads if e.endpoint == "notes"]


@pytest.mark.parametrize("when_changed", [True, False])
@pytest.mark.parametrize("incremental", [INCREMENTAL, None])
async def test_a_value_of_the_parent_goes_along_and_its_change_is_a_change_of_what_hangs_below(
    incremental: Any, when_changed: bool
) -> None:
    async with opened() as world:
        parent = {"endpoint": "tickets", "values": {"state": "state"}, "include": ["parent_id", "state"]}
        notes = {**NOTES, "parent": parent | {"when_changed": when_changed}, "incremental": incremental}
        world.use({"tickets": PLAIN, "notes": notes})
        world.vendor.put("tickets", 1, at(-36_000), state="open")
        world.vendor.put("tickets", 2, at(-36_000))  # has no state: its notes are read all the same
        for number in (1, 2):
            world.vendor.put(f"tickets/{number}/notes", number * 10, at(-36_000))
        await world.run()
        one, other = ("10", "upsert", {"parent_id": "1", "state": "open"}), {"parent_id": "2", "state": None}
        assert taken(world) == [one, ("20", "upsert", other)]
        world.clock.advance(400)
        world.vendor.put("tickets", 1, state="closed")  # its note was not touched
        assert (await world.run()).published == 2
        assert taken(world)[2:] == [("10", "upsert", {"parent_id": "1", "state": "closed"})]
        world.clock.advance(400)
        assert (await world.run()).published == 0


async def test_records_below_two_parents_are_two_and_a_sweep_below_each_tells_which_is_gone() -> None:
    async with opened() as world:
        seat = {"record_id": ["_parent.ticket", "id"], "deletes": {"type": "sweep", "interval_s": 3_600}}
        parent = {"endpoint": "tickets", "name": "ticket", "include": ["ticket"]}
        world.use({"tickets": PLAIN, "notes": {**NOTES, "path": "tickets/{ticket}/notes", "parent": parent, **seat}})
        for number in (1, 2, 3):
            world.vendor.put("tickets", number, at(-36_000))
            world.vendor.put(f"tickets/{number}/notes", 7, at(-36_000))  # the same licence, say
        await world.run()
        assert [found[0] for found in taken(world)] == ['["1","7"]', '["2","7"]', '["3","7"]']
        world.vendor.drop("tickets/2/notes", 7)
        for _ in range(3):  # nobody can ask for one: the second sweep that misses it is believed
            world.clock.advance(3_700)
            await world.run()
        assert taken(world)[3:] == [('["2","7"]', "delete", None)]


async def test_what_a_record_took_along_serves_what_hangs_from_it() -> None:
    async with opened() as world:
        parent = {"endpoint": "tickets", "name": "ticket", "include": ["ticket"]}
        below = {"endpoint": "notes", "name": "note", "values": {"ticket": "_parent.ticket"}, "include": ["ticket"]}
        files = {**PLAIN, "path": "files/{ticket}/{note}", "parent": below}
        notes = {**NOTES, "path": "tickets/{ticket}/notes", "parent": parent}
        world.use({"tickets": PLAIN, "notes": notes, "files": files})
        filled(world, 1)
        world.vendor.put("files/1/10", 5, at(-60))
        world.vendor.routes["files/1/10"] = lambda _: world.vendor.answer(
            list(world.vendor.lists["files/1/10"].values())
        )
        assert (await world.run()).published == 3
        (file,) = [event for event in world.events if event.endpoint == "files"]
        assert msgspec.json.decode(bytes(file.payload))["_parent"] == {"ticket": "1"}  # type: ignore[arg-type]


async def test_records_that_begin_to_take_values_along_are_read_again() -> None:
    async with opened() as world:
        world.use({"tickets": PLAIN, "notes": CHANGED})
        filled(world, 2)
        await world.run()
        parent = {**CHANGED["parent"], "include": ["parent_id"]}
        world.use({"tickets": PLAIN, "notes": {**CHANGED, "parent": parent}})
        world.clock.advance(60)
        assert (await world.run()).published == 2
        assert [found[2] for found in taken(world)[2:]] == [{"parent_id": "1"}, {"parent_id": "2"}]


@pytest.mark.parametrize("incremental", [INCREMENTAL, None, {"type": "id"}])
async def test_only_below_parents_that_changed_is_read(incremental: Any) -> None:
    async with opened() as world:
        world.use({"tickets": PLAIN, "notes": {**CHANGED, "incremental": incremental}})
        filled(world, 5)
        assert (await world.run()).published == 10
        assert below(world) == ["1", "2", "3", "4", "5"]
        world.clock.advance(301)
        await world.run()
        assert below(world) == []  # they changed long ago: nothing shows late
        world.vendor.put("tickets", 3, name="changed")
        world.vendor.put("tickets/3/notes", 31)
        world.clock.advance(60)
        assert (await world.run()).published == 2
        assert below(world) == ["3"]
        world.clock.advance(60)
        await world.run()
        assert below(world) == []
        world.clock.advance(300)
        await world.run()
        assert below(world) == ["3"]  # once more, for what shows late
        world.clock.advance(300)
        await world.run()
        assert below(world) == []


async def test_what_is_added_below_a_parent_in_the_second_in_which_that_was_read_is_not_missed() -> None:
    async with opened() as world:
        whole = {**PLAIN, "incremental": {"type": "none"}}
        world.use({"tickets": whole, "notes": {**CHANGED, "incremental": {"type": "none"}}})
        world.vendor.put("tickets", 1)
        world.vendor.put("tickets/1/notes", 10)
        await world.run()
        world.clock.advance(0.5)
        world.vendor.put("tickets", 1)  # under the same stamp
        world.vendor.put("tickets/1/notes", 11)
        world.clock.advance(60)
        await world.run()
        assert [op for op, _, _ in world.history(11)] == ["upsert"]


async def test_a_parent_with_nothing_below_it_is_asked_about_again_when_it_changes() -> None:
    async with opened() as world:
        world.use({"tickets": PLAIN, "notes": CHANGED})
        filled(world, 2)
        world.vendor.put("tickets", 3)  # the vendor knows no notes of it: 404
        assert (await world.run()).complete
        assert below(world) == ["1", "2", "3"]
        for _ in range(3):
            world.clock.advance(400)
            await world.run()
        assert "3" not in below(world)
        world.vendor.put("tickets", 3, name="changed")
        world.vendor.put("tickets/3/notes", 30, at(-9_000))
        world.clock.advance(60)
        assert (await world.run()).published == 2


async def test_what_changed_below_a_parent_while_it_was_out_of_sight_is_read_when_it_is_back() -> None:
    async with opened() as world:
        world.use({"tickets": PLAIN, "notes": NOTES})
        filled(world, 2)
        assert (await world.run()).complete
        hidden = world.vendor.lists.pop("tickets/2/notes")  # 404: as for a repository of which access was taken
        hidden[20] = {**hidden[20], "name": "changed", "updated": world.clock.now()}
        for _ in range(3):
            world.clock.advance(3_600)
            world.vendor.put("tickets/1/notes", 10, name=f"changed at {world.clock.now()}")
            assert (await world.run()).complete
        assert [op for op, _, _ in world.history(20)] == ["upsert"]
        world.vendor.lists["tickets/2/notes"] = hidden
        world.clock.advance(60)
        await world.run()
        assert [op for op, _, _ in world.history(20)] == ["upsert", "upsert"]


async def test_a_note_that_shows_after_its_ticket_s_change_is_caught() -> None:
    async with opened() as world:
        world.use({"tickets": PLAIN, "notes": CHANGED})
        filled(world)
        await world.run()
        world.clock.advance(3_000)
        await world.run()
        world.vendor.put("tickets", 2, name="changed")
        world.vendor.put("tickets/2/notes", 21)
        world.vendor.visible_at["tickets/2/notes", 21] = shifted(world.clock.now(), seconds=200)
        for _ in range(6):
            world.clock.advance(60)
            await world.run()
        assert [op for op, _, _ in world.history(21)] == ["upsert"]


async def test_below_all_parents_is_read_now_and_then() -> None:
    async with opened() as world:
        world.use({"tickets": PLAIN, "notes": CHANGED})
        filled(world)
        await world.run()
        world.clock.advance(600)
        await world.run()
        below(world)
        world.vendor.put("tickets/2/notes", 21)  # and the ticket says nothing
        world.clock.advance(600)
        assert (await world.run()).published == 0
        world.clock.advance(6_001)
        assert (await world.run()).published == 1
        assert below(world) == ["1", "2", "3"]


async def test_a_pass_below_that_was_stopped_goes_on_with_the_next_parent() -> None:
    async with opened() as world:
        world.use({"tickets": PLAIN, "notes": CHANGED}, limits={"requests": 1_000, "window_s": 1, "concurrency": 1})
        filled(world, 4)

        def down(request: Any) -> Any:
            world.clock.advance(31)
            return answered(world.vendor.answer(b"", 400)) if "/3/" in request.path else None

        world.vendor.spoil = down
        assert not (await world.run()).complete
        assert below(world) == ["1", "2", "3"]
        world.vendor.spoil = lambda _: None
        await world.run()
        assert below(world)[0] == "3"
        assert len(world.events) == 8


async def test_a_parent_that_goes_away_takes_its_progress_along_and_comes_back_whole() -> None:
    async with opened() as world:
        tickets = {**PLAIN, "deleted_when": {"path": "gone", "equals": ["true"]}}
        world.use({"tickets": tickets, "notes": CHANGED})
        filled(world)
        await world.run()
        world.clock.advance(3_600)
        world.vendor.put("tickets", 2, gone=True)
        await world.run()
        below(world)
        world.vendor.put("tickets/2/notes", 22, at(-300))  # moved there, with its old stamp
        world.vendor.put("tickets", 2, gone=False)
        world.clock.advance(60)
        await world.run()
        assert "2" in below(world)
        assert [op for op, _, _ in world.history(22)] == ["upsert"]


async def test_growing_ids_are_followed_below_each_parent() -> None:
    async with opened() as world:
        world.use({"tickets": PLAIN, "notes": {**NOTES, "incremental": {"type": "id"}}})
        filled(world, 2)
        await world.run()
        world.clock.advance(60)
        world.vendor.put("tickets/1/notes", 11)
        world.vendor.asked.clear()
        assert (await world.run()).published == 1
        assert [asked[-7:] for asked in world.vendor.asked if "/1/notes" in asked] == ["3E%2010"]


async def test_lists_that_are_always_read_whole_are_read_below_changed_parents_alone() -> None:
    async with opened() as world:
        world.use({"tickets": PLAIN, "notes": {**CHANGED, "incremental": {"type": "none"}}})
        filled(world, 3)
        await world.run()
        world.clock.advance(301)
        await world.run()
        below(world)
        world.clock.advance(60)
        await world.run()
        assert below(world) == []
        world.vendor.put("tickets", 2, name="changed")
        world.vendor.put("tickets/2/notes", 21)
        world.clock.advance(60)
        assert (await world.run()).published == 2
        assert below(world) == ["2"]
        world.clock.advance(7_200)
        await world.run()
        assert below(world) == ["1", "2", "3"]
