"""Drift: the model or the vendor changes, and rows keep flowing; what changed is said, what cannot be read is kept."""

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from services.contracts.events import ChangeEvent
from services.contracts.fields import Field
from services.contracts.log import FieldsMissing, FieldsVanished, MappingHeld, RecordsRejected
from services.contracts.mapping_files import MappingFiles
from services.contracts.rows import folded_rows
from services.contracts.schema import CanonicalTable, Column
from services.transformer.drift import LOST_MIN, RECORDS_MIN, Drift, DriftWatch
from tests.transformer.world import FIELDS, TICKETS, World, files, labels, ticket, time

PLACE = ("acme", "desk", "tickets")
ULM = {"city": "Ulm"}
PINNED = "acme/mappings/tickets/desk/{:06d}.json"


def with_column(name: str, column: Column) -> CanonicalTable:
    return msgspec.structs.replace(TICKETS, columns={**TICKETS.columns, name: column})


WIDER = with_column("city", Column("string"))


def wider() -> MappingFiles:
    return files({**FIELDS, "city": "site.city"}, WIDER)


def lacking(event: ChangeEvent, name: str) -> ChangeEvent:
    """The same record from a vendor that has dropped a field."""
    payload = msgspec.json.decode(bytes(event.payload))  # type: ignore[arg-type]
    del payload[name]
    return msgspec.structs.replace(event, payload=msgspec.Raw(msgspec.json.encode(payload)))


# -- the model changes ------------------------------------------------------------------------------------------------
async def test_a_new_column_enters_untracked_is_null_in_old_rows_and_makes_no_version() -> None:
    world = World()
    await world.publish(ticket("1", 1, site=ULM), ticket("2", 1, site=ULM))
    await world.drain()
    await world.publish(ticket("2", 2, site=ULM), ticket("3", 2, site=ULM))
    await world.worker(wider()).drain()
    assert labels(world.canonical()) == ["new", "new", "touched", "new"]
    rows = folded_rows(world.canonical(), {"tickets": WIDER})
    assert [(row["record_id"], row["valid_from"], row["city"], row["mapping_version"]) for row in rows] == [
        ("1", time(1), None, 1),
        ("2", time(1), "Ulm", 2),
        ("3", time(2), "Ulm", 2),
    ]


async def test_a_column_that_entered_makes_no_version_when_its_value_changes() -> None:
    world = World()
    await world.publish(ticket("1", 1))
    await world.drain()
    await world.publish(ticket("1", 2, site=ULM), ticket("1", 3, site={"city": "Bonn"}))
    await world.worker(wider()).drain()
    (row,) = folded_rows(world.canonical(), {"tickets": WIDER})
    assert (row["valid_from"], row["valid_to"], row["city"]) == (time(1), None, "Bonn")


async def test_a_tenant_that_comes_later_begins_with_the_new_file_and_has_the_column_tracked() -> None:
    world = World()
    await world.publish(ticket("1", 1))
    await world.drain()
    await world.publish(*(ticket("1", at, tenant="later", site={"city": str(at)}) for at in (1, 2)))
    await world.worker(wider()).drain()
    assert [(event.tenant_id, event.mapping_version, event.label) for event in world.canonical()] == [
        ("acme", 1, "new"),
        ("later", 1, "new"),
        ("later", 1, "changed"),
    ]


def filled(without: str) -> dict[str, Field]:
    return {name: field for name, field in FIELDS.items() if name != without}


@pytest.mark.parametrize(
    ("fields", "table", "what"),
    [
        (FIELDS, with_column("hours", Column("string")), "column hours was decimal and is string"),
        (FIELDS, with_column("hours", Column("float64")), "column hours was decimal and is float64"),
        (FIELDS, with_column("summary", Column("string", tracked=False)), "column summary is no longer tracked"),
        (FIELDS, with_column("last_updated", Column("timestamp")), "column last_updated became tracked"),
        (filled("summary"), TICKETS, "endpoint tickets fills summary in another way"),
        (
            filled("summary"),
            CanonicalTable("tickets", {name: c for name, c in TICKETS.columns.items() if name != "summary"}),
            "column summary is gone",
        ),
        ({**FIELDS, "summary": "subject"}, TICKETS, "endpoint tickets fills summary in another way"),
    ],
)
async def test_what_would_change_old_rows_waits_is_said_once_and_the_old_mapping_makes_the_rows(
    fields: Mapping[str, Field], table: CanonicalTable, what: str
) -> None:
    world = World()
    await world.publish(ticket("1", 1, touched=1))
    await world.drain()
    pinned = world.objects.held[PINNED.format(1)]
    await world.publish(ticket("1", 2, touched=2), ticket("2", 2))
    worker = world.worker(files(fields, table))
    await worker.drain()
    await worker.drain()
    assert labels(world.canonical()) == ["new", "touched", "new"]
    assert {(event.mapping_version, event.record_hash) for event in world.canonical()[:2]} == {
        (1, world.canonical()[0].record_hash)
    }
    assert {key: data for key, data in world.objects.held.items() if "/mappings/" in key} == {PINNED.format(1): pinned}
    assert world.letters() == {}
    (said,) = world.of(MappingHeld)
    assert isinstance(said, MappingHeld)
    assert (said.tenant_id, said.service, said.table) == ("acme", "desk", "tickets")
    assert what in said.what


# -- a vendor's field disappears --------------------------------------------------------------------------------------
async def test_a_field_that_disappears_is_null_in_rows_that_flow_on_and_is_told_once_by_its_path() -> None:
    world = World(shards=1)
    numbers = [str(number) for number in range(RECORDS_MIN)]
    await world.publish(*(ticket(number, 1) for number in numbers))
    await world.drain()
    assert world.of(FieldsVanished) == []
    for at in (2, 3):
        await world.publish(*(lacking(ticket(number, at), "hours") for number in numbers))
        await world.drain()
    assert labels(world.canonical()) == ["new"] * RECORDS_MIN + ["changed"] * RECORDS_MIN + ["unchanged"] * RECORDS_MIN
    rows = folded_rows(world.canonical(), {"tickets": TICKETS})
    assert [row["hours"] for row in rows] == ["1.5", None] * RECORDS_MIN
    assert world.letters() == {}
    assert world.of(FieldsVanished) == [
        FieldsVanished(tenant_id="acme", service="desk", endpoint="tickets", paths="$.hours", count=1)
    ]


def drift(records: int = RECORDS_MIN, absent: int = RECORDS_MIN, lost: int = LOST_MIN) -> Drift:
    return Drift(records, {"$.a": absent, "$.never": records}, {"$.a": lost})


def vanished(watch: DriftWatch, found: Drift) -> list[str]:
    return [event.paths for event in watch.add(PLACE, found) if isinstance(event, FieldsVanished)]


def test_a_path_is_told_once_however_many_batches_lack_it() -> None:
    watch = DriftWatch()
    assert [(type(event), event.paths) for event in watch.add(PLACE, drift())] == [  # type: ignore[attr-defined]
        (FieldsMissing, "$.a, $.never"),
        (FieldsVanished, "$.a"),
    ]
    for _ in range(3):
        assert list(watch.add(PLACE, drift())) == []
    other = Drift(RECORDS_MIN, {"$.b": RECORDS_MIN}, {"$.b": LOST_MIN})
    assert vanished(watch, other) == ["$.b"]
    assert list(watch.add(("acme-2", *PLACE[1:]), drift()))


def test_batches_are_added_up_until_they_mean_something() -> None:
    watch, tenth = DriftWatch(), drift(RECORDS_MIN // 10, RECORDS_MIN // 10, 1)
    told = [vanished(watch, tenth) for _ in range(10)]
    assert told == [[]] * 9 + [["$.a"]]


def test_the_records_that_lost_it_may_have_come_among_those_that_still_had_it() -> None:
    watch = DriftWatch()
    assert vanished(watch, drift(absent=RECORDS_MIN - 1)) == []
    assert vanished(watch, drift(lost=0)) == ["$.a"]
    assert vanished(watch, drift(lost=0)) == []


@pytest.mark.parametrize("found", [drift(absent=RECORDS_MIN - 1), drift(lost=LOST_MIN - 1), drift(lost=0)])
def test_a_field_that_some_still_have_or_few_ever_had_has_not_vanished(found: Drift) -> None:
    assert vanished(DriftWatch(), found) == []


async def test_a_field_that_people_emptied_has_not_vanished() -> None:
    world = World(shards=1)
    numbers = [str(number) for number in range(RECORDS_MIN)]
    await world.publish(*(ticket(number, 1) for number in numbers))
    await world.publish(*(ticket(number, 2, hours=None) for number in numbers))
    await world.drain()
    assert world.of(FieldsVanished) == []


# -- a vendor's field changes its type --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changed", "path", "reason"),
    [
        ({"hours": "soon"}, "$.hours", "column hours: expected a number, met "),
        ({"hours": {"value": 1.5}}, "$.hours", "column hours: expected a number, met an object"),
        ({"hours": True}, "$.hours", "column hours: expected a number, met true"),
        ({"summary": {"text": "Printer"}}, "$.summary", "column summary: expected text, met an object"),
        ({"_info": "2026-01-01"}, "$._info.lastUpdated", "column last_updated: expected an object around it"),
        ({"_info": {"lastUpdated": 1769850900}}, "$._info.lastUpdated", "column last_updated: expected a time"),
        ({"customFields": {"Tier": "Gold"}}, "$.customFields", "column custom_fields: expected a list"),
    ],
)
async def test_a_field_that_changed_its_type_is_a_dead_letter_and_the_others_flow(
    changed: dict[str, Any], path: str, reason: str
) -> None:
    world = World(shards=1)
    bad = ticket("2", 2, **changed)
    await world.publish(ticket("1", 1), ticket("2", 1), bad, ticket("3", 2))
    await world.drain()
    assert [(event.record_id, event.effective_at) for event in world.canonical()] == [
        ("1", time(1)),
        ("2", time(1)),
        ("3", time(2)),
    ]
    (letter,) = world.letters().values()
    assert (letter.tenant_id, letter.group, letter.record_id) == ("acme", "tickets", "2")
    assert (letter.code, letter.where) == ("bad_value", path)
    assert letter.reason.startswith(reason)
    assert "mapping's path" in letter.remedy
    assert letter.text == msgspec.json.encode(bad).decode()
    (said,) = world.of(RecordsRejected)
    assert isinstance(said, RecordsRejected)
    assert (said.tenant_id, said.group, said.code, said.count) == ("acme", "tickets", "bad_value", 1)


async def test_a_vendor_that_changes_a_type_for_all_is_one_line_in_the_log_and_a_letter_for_each() -> None:
    world = World(shards=1)
    await world.publish(*(ticket(str(number), hours=[]) for number in range(50)))
    assert await world.drain() == []
    assert len(world.letters()) == 50
    assert [event.count for event in world.of(RecordsRejected)] == [50]  # type: ignore[attr-defined]
