"""Values, events and files: each way there has its exact way back, and the same events are the same bytes."""

import random
from decimal import Decimal
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.compactor import parquet
from services.contracts.errors import FatalError
from services.contracts.events import CanonicalEvent, Change
from services.contracts.rows import observation_of
from services.contracts.schema import CanonicalTable, Column
from services.contracts.times import utc_text
from tests.compactor.observed import TICKETS, observations, read, seen


def plain(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(st.characters(exclude_categories=["Cs"])),
    "json": st.just('{"a":[1,2.50]}'),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "float64": st.floats(allow_nan=False, allow_infinity=False).map(lambda number: number + 0.0),
    "bool": st.booleans(),
    "decimal": st.decimals(-(10**28), 10**28, places=9).map(lambda number: "0" if not number else plain(number)),
    "timestamp": st.datetimes(timezones=st.timezones().map(lambda _: __import__("datetime").UTC)).map(utc_text),
    "date": st.dates().map(lambda day: day.isoformat()),
}


@given(st.data(), st.sampled_from(sorted(VALUES)))
@settings(max_examples=300, deadline=None)
def test_a_column_gives_back_the_values_it_was_made_of(data: st.DataObject, kind: str) -> None:
    values = data.draw(st.lists(st.none() | VALUES[kind], max_size=5))
    assert parquet.from_arrow(parquet.to_arrow(values, kind), kind) == values


@pytest.mark.parametrize(
    ("kind", "value"),
    [("decimal", "0.1234567891"), ("decimal", "1e40"), ("date", "2026-02-30"), ("int64", 2**63), ("int64", "five"),
     ("bool", "yes"), ("timestamp", "2026-13-01T00:00:00.000000Z"), ("string", 5)],
)  # fmt: skip
def test_a_value_its_column_cannot_hold_is_refused(kind: str, value: Any) -> None:
    with pytest.raises(parquet.UNFIT):
        parquet.to_arrow([value], kind)


@given(st.lists(observations(), min_size=1, max_size=6), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_the_same_events_are_the_same_bytes_in_any_order(events: list[CanonicalEvent], chance: random.Random) -> None:
    shuffled = chance.sample(events * 2, len(events) * 2)
    assert parquet.canonical_file(shuffled, TICKETS, {}) == parquet.canonical_file(events, TICKETS, {})


def test_a_canonical_file_gives_back_its_events() -> None:
    change = Change(msgspec.Raw(b'"A"'), msgspec.Raw(b'"B"'))
    told = msgspec.structs.replace(
        seen({"summary": "B", "hours": "1.5"}, 2), label="changed", previous_from="2026-01-31T09:00:01.000000Z",
        changed={"summary": change},
    )  # fmt: skip
    gone = seen(None, 3)
    assert parquet.canonical_events(parquet.canonical_file([gone, told], TICKETS, {}), TICKETS) == [told, gone]


def test_what_the_fold_sees_of_a_file_is_what_it_sees_of_its_events() -> None:
    events = [seen({"summary": "B", "views": 1}, 2), seen({}, 3), seen(None, 4)]
    found = parquet.observations(parquet.read(parquet.canonical_file(events, TICKETS, {})), TICKETS)
    narrow = parquet.SEEN_FIELDS
    wanted = [msgspec.to_builtins(observation_of(event)) for event in events]
    times = {"_effective_at", "observed_at"}
    kinds = {name: "timestamp" if name in times else "json" for name in narrow}
    assert parquet.rows_from_arrow(found.select(narrow), kinds) == [
        {name: seen[name.lstrip("_")] for name in narrow} for seen in wanted
    ]
    values = parquet.rows_from_arrow(found, parquet.column_kinds(TICKETS), nulls=False)
    assert values == [seen["row"] or {} for seen in wanted]
    assert (
        found.select(parquet.KEY).to_pylist()
        == [dict(zip(parquet.KEY, ("connectwise", "tickets", "1"), strict=True))] * 3
    )


def test_a_raw_file_gives_back_its_events_with_every_token_of_a_payload() -> None:
    events = [
        read("1", 1, '{"id":1,"price":1.50,"name":"\\ud800"}'),
        msgspec.structs.replace(read("2", 2), op="delete"),
    ]
    deleted = msgspec.structs.replace(events[1], payload=msgspec.UNSET)
    assert parquet.raw_events(parquet.raw_file([deleted, events[0]], {})) == [events[0], deleted]


def test_a_column_may_be_named_like_what_an_observation_carries() -> None:
    table = CanonicalTable("opportunities", {"source": Column("string"), "op": Column("string")})
    event = seen({"source": "web", "op": "x"}, 1, table=table)
    assert parquet.canonical_events(parquet.canonical_file([event], table, {}), table) == [event]


def test_an_observation_in_two_parts_is_once_in_the_hour_and_labels_make_no_difference() -> None:
    event, other = seen({"summary": "A"}, 1), seen({"summary": "A"}, 1, record_id="0")
    again = msgspec.structs.replace(event, label="repeated")
    parts = [parquet.canonical_file([event], TICKETS, {}), parquet.canonical_file([other, again], TICKETS, {})]
    whole = parquet.consolidated(parts, {"hour": "h"})
    assert whole is not None
    assert [row["record_id"] for row in parquet.read(whole).to_pylist()] == ["0", "1"]
    assert parquet.consolidated(parts[::-1], {"hour": "h"}) == whole
    assert all(parquet.holds_all(whole, part) for part in parts)
    assert not parquet.holds_all(whole, parquet.canonical_file([seen({}, 9)], TICKETS, {}))


def test_what_saw_a_deletion_is_part_of_it_so_that_one_published_again_after_a_gap_stands_beside_the_first() -> None:
    gone = msgspec.structs.replace(seen(None, 1), evidence="sweep", source="GET tickets/1 not found")
    again = msgspec.structs.replace(gone, source="tickets: deleted before", label="repeated")
    parts = [parquet.canonical_file(events, TICKETS, {}) for events in ([gone, again], [again])]
    whole = parquet.consolidated(parts, {"hour": "h"})
    assert whole is not None
    assert parquet.canonical_events(whole, TICKETS) == [gone, again]


def test_parts_of_an_older_mapping_lack_a_column_and_have_null_in_it() -> None:
    older = CanonicalTable("tickets", {"summary": Column("string")})
    first = parquet.canonical_file([seen({"summary": "A"}, 1, table=older)], older, {})
    second = parquet.canonical_file([seen({"summary": "B", "views": 1}, 2)], TICKETS, {})
    whole = parquet.consolidated([first, second], {})
    assert whole is not None
    events = parquet.canonical_events(whole, TICKETS)
    assert [bytes(event.row) for event in events if not isinstance(event.row, msgspec.UnsetType)] == [
        b'{"summary":"A"}',
        b'{"summary":"B","views":1}',
    ]


def test_parts_between_which_a_column_changed_its_type_stay_apart() -> None:
    older = CanonicalTable("tickets", {"hours": Column("string")})
    parts = [parquet.canonical_file([seen({"hours": "1"}, 1, table=table)], table, {}) for table in (older, TICKETS)]
    assert parquet.consolidated(parts, {}) is None


def test_a_file_says_which_cut_it_is_part_of() -> None:
    assert parquet.about(parquet.raw_file([read("1", 1)], {"cut": "7", "first": "a"})) == {"cut": "7", "first": "a"}


def test_row_groups_are_small_enough_to_find_one_record() -> None:
    import pyarrow.parquet as pq

    data = parquet.raw_file([read(str(number), 1) for number in range(10_000)], {})
    assert pq.ParquetFile(pa.BufferReader(data)).num_row_groups == 2


@pytest.mark.parametrize("values", [pa.array([True]), pa.array(["soon"])])
def test_a_column_that_cannot_become_its_kind_says_which_it_is(values: pa.Array) -> None:
    with pytest.raises(FatalError, match="column due_on is no date"):
        parquet.conformed(pa.table({"due_on": values}), {"due_on": "date"})
