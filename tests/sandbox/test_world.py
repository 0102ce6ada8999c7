"""The living world: what it is made of, how it changes, what it remembers."""

from collections import Counter
from datetime import timedelta
from random import Random
from typing import Any

import msgspec
import pytest

from services.sandbox.recipes import RECIPES, TICKET_NOTES_PATH
from services.sandbox.times import moment_of, seconds_of
from services.sandbox.world import PAST_S, World
from tests.sandbox.visitor import NOON, Clock, small_world

PATHS = [recipe.path for recipe in RECIPES]
NOTES = TICKET_NOTES_PATH


def records(world: World, path: str) -> dict[int, dict[str, Any]]:
    return {number: msgspec.json.decode(raw) for number, raw in world.current("acme", path).items()}


def living(world: World) -> dict[str, dict[int, bytes]]:
    return {path: world.current("acme", path) for path in PATHS}


def test_the_same_seed_and_clock_make_the_same_world() -> None:
    one, other = small_world(Clock(), seed=7), small_world(Clock(), seed=7)
    assert one.change("acme", 200) == other.change("acme", 200)
    assert living(one) == living(other)


def test_every_endpoint_has_the_minimum_and_what_was_asked_for() -> None:
    world = small_world(Clock())
    assert len(world.current("acme", "service/tickets")) == 40
    assert min(len(world.current("acme", path)) for path in PATHS) == 3


def test_an_unknown_endpoint_cannot_be_populated() -> None:
    world = World(Clock(), Random(1))
    with pytest.raises(KeyError, match="no such endpoint: service/cars"):
        world.populate("acme", {"service/cars": 1})


def test_stamps_are_whole_seconds_spread_over_two_years() -> None:
    world = small_world(Clock(), **{"time/entries": 400})
    stamps = [moment_of(record["_info"]["lastUpdated"]) for record in records(world, "time/entries").values()]
    assert all(stamp.microsecond == 0 and NOON - timedelta(seconds=PAST_S + 1) <= stamp < NOON for stamp in stamps)
    assert min(stamps) < NOON - timedelta(days=300)


def test_what_a_record_refers_to_exists_also_after_a_thousand_changes() -> None:
    clock = Clock()
    world = small_world(clock, **{"time/entries": 60, "expense/entries": 20, "company/contacts": 40})
    for _ in range(100):
        clock.advance(0.4)
        world.change("acme", 10)
    tickets = records(world, "service/tickets").keys() | records(world, "project/tickets").keys()
    companies, members = records(world, "company/companies"), records(world, "system/members")
    targets = {"Company": companies.keys(), "Activity": records(world, "sales/activities").keys()}
    for entry in records(world, "time/entries").values():
        assert entry["chargeToId"] in targets.get(entry["chargeToType"], tickets)
        assert entry["company"]["id"] in companies
        assert entry["member"]["id"] in members
        assert "ticket" not in entry or entry["ticket"]["id"] in tickets
    assert all(contact["company"]["id"] in companies for contact in records(world, "company/contacts").values())


def test_a_contact_named_by_a_ticket_belongs_to_the_ticket_s_company() -> None:
    world = small_world(Clock(), **{"company/contacts": 200})
    contacts = records(world, "company/contacts")
    named = [ticket for ticket in records(world, "service/tickets").values() if ticket.get("contact")]
    assert named
    assert all(contacts[ticket["contact"]["id"]]["company"]["id"] == ticket["company"]["id"] for ticket in named)


def test_the_data_is_as_awkward_as_the_vendor_s() -> None:
    world = small_world(Clock(), **{"service/tickets": 200})
    text = b"".join(world.current("acme", "service/tickets").values())
    fields = Counter(name for record in records(world, "service/tickets").values() for name in record)
    values = [value for record in records(world, "service/tickets").values() for value in record.values()]
    assert None in values
    assert "" in values
    assert fields["budgetHours"] < fields["id"], "some fields are absent"
    for awkward in ("☕", "<b>", "無線", "\\u200b", "10 €", "T00:00:00Z", ".50,"):
        assert awkward.replace("\\u200b", "\u200b").encode() in text


def test_every_version_of_a_record_is_kept_and_the_last_is_current() -> None:
    world = small_world(Clock())
    before = world.current("acme", "service/tickets")[1]
    entry = world.update("acme", "service/tickets", 1, {"summary": "changed"})
    assert entry.version == 2
    assert world.state("acme", "service/tickets", 1, 1) == before
    assert world.state("acme", "service/tickets", 1, 2) == world.current("acme", "service/tickets")[1]
    with pytest.raises(IndexError):
        world.state("acme", "service/tickets", 1, 0)


def test_an_update_renews_the_stamp_and_keeps_the_rest() -> None:
    clock = Clock()
    world = small_world(clock)
    before = records(world, "service/tickets")[1]
    world.update("acme", "service/tickets", 1, {"summary": "changed"})
    after = records(world, "service/tickets")[1]
    assert after["_info"]["lastUpdated"] == "2026-01-06T12:00:00Z"
    assert after["_info"]["dateEntered"] == before["_info"]["dateEntered"]
    assert {name for name in after if after[name] != before.get(name)} == {"summary", "_info"}


def test_a_field_can_be_removed_and_a_record_stamped_in_the_past() -> None:
    world = small_world(Clock())
    early = seconds_of(moment_of("2020-01-01T00:00:00Z"))
    world.update("acme", "service/tickets", 1, {"summary": msgspec.UNSET}, stamped_at=early)
    after = records(world, "service/tickets")[1]
    assert "summary" not in after
    assert after["_info"]["lastUpdated"] == "2020-01-01T00:00:00Z"


def test_a_thousand_changes_hold_every_kind_and_some_are_late() -> None:
    clock = Clock()
    world = small_world(clock)
    changes = []
    for _ in range(100):
        changes += world.change("acme", 10)
        clock.advance(0.3)
    kinds = Counter(change.kind for change in changes)
    assert set(kinds) == {"create", "update", "twice", "again", "touch", "delete", "convert"}
    assert {change.kind for change in changes if change.late} == {"create", "update"}


def test_a_late_change_is_stamped_between_the_record_s_former_stamp_and_now() -> None:
    clock = Clock()
    world = small_world(clock)
    for _ in range(500):
        before = {(path, number): raw for path, found in living(world).items() for number, raw in found.items()}
        clock.advance(0.7)
        (change,) = world.change("acme", 1, late_s_max=60)
        if not change.late:
            continue
        assert seconds_of(clock()) - 60 <= change.stamped_at < seconds_of(clock())
        assert change.record_id is not None
        former = before.get((change.path, change.record_id))
        if former is not None:
            stamp = seconds_of(moment_of(msgspec.json.decode(former)["_info"]["lastUpdated"]))
            assert stamp < change.stamped_at
            return
    pytest.fail("500 changes, and no late update among them")


def test_versions_within_one_second_differ_under_one_stamp() -> None:
    world = small_world(Clock())
    for change in world.change("acme", 100):
        if change.kind != "twice" or change.record_id is None:
            continue
        states = world.sites["acme"].tables[change.path].versions[change.record_id][-len(change.groups) :]
        stamps = {msgspec.json.decode(state)["_info"]["lastUpdated"] for state in states}
        assert stamps == {"2026-01-06T12:00:00Z"}
        assert len(set(states)) == len(states)
        return
    pytest.fail("100 changes, and no double one among them")


def test_a_converted_ticket_leaves_one_list_and_enters_the_other_under_its_id() -> None:
    world = small_world(Clock())
    summary = records(world, "service/tickets")[1]["summary"]
    world.convert("acme", 1)
    assert 1 not in world.current("acme", "service/tickets")
    assert records(world, "project/tickets")[1]["summary"] == summary
    assert "project" in records(world, "project/tickets")[1]
    assert world.deleted("acme") == []


def test_a_note_renews_the_ticket_it_belongs_to() -> None:
    clock = Clock()
    world = small_world(clock)
    for act in ("create", "update", "delete"):
        clock.advance(60)
        if act == "create":
            note = world.create("acme", NOTES)
        elif act == "update":
            world.update("acme", NOTES, note.id, {"text": "again"}, stamped_at=note.stamp)
        else:
            world.delete("acme", NOTES, note.id)
        ticket = world.sites["acme"].find("service/tickets", note.owner_id or 0)
        assert ticket is not None
        assert ticket.stamp == int(clock().timestamp()), act


def test_the_notes_of_a_converted_ticket_go_with_it() -> None:
    world = small_world(Clock(), **{NOTES: 40})
    note = next(iter(world.sites["acme"].tables[NOTES].entries.values()))
    before = world.current("acme", NOTES)[note.id]
    assert note.owner_id is not None
    world.convert("acme", note.owner_id)
    assert note.id not in world.current("acme", NOTES)
    assert world.current("acme", "project/tickets/{id}/notes")[note.id] == before
    assert world.deleted("acme") == []


def test_tickets_of_both_lists_never_share_an_id() -> None:
    clock = Clock()
    world = small_world(clock)
    world.change("acme", 500)
    assert not world.current("acme", "service/tickets").keys() & world.current("acme", "project/tickets").keys()


def test_a_deleted_record_is_gone_and_remembered() -> None:
    world = small_world(Clock())
    world.delete("acme", "time/entries", 1)
    assert 1 not in world.current("acme", "time/entries")
    (gone,) = world.deleted("acme")
    assert (gone.path, gone.record_id, gone.deleted_at) == ("time/entries", 1, NOON)


def test_the_vendor_deletes_nothing_that_others_refer_to() -> None:
    world = small_world(Clock())
    ticket = world.sites["acme"].find("service/tickets", 1)
    assert ticket is not None
    link = frozenset({("service/tickets", 1)})
    entry = world.create("acme", "time/sheets")
    world.rewrite("acme", entry, entry.data, link)
    assert not world.sites["acme"].is_leaf(ticket)
    world.delete("acme", "time/sheets", entry.id)
    others = sum(1 for path in PATHS for one in world.sites["acme"].tables[path].entries.values() if link <= one.links)
    assert world.sites["acme"].is_leaf(ticket) == (others == 0)


def test_a_bulk_edit_stamps_many_records_in_one_second() -> None:
    world = small_world(Clock())
    assert world.stamp_together("acme", "service/tickets", 30) == 30
    stamps = Counter(record["_info"]["lastUpdated"] for record in records(world, "service/tickets").values())
    assert stamps["2026-01-06T12:00:00Z"] == 30
