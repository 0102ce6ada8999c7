"""How parts become batches of bounded size, and what a rebuilt table takes of older mappings."""

from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pyarrow as pa
import pytest

from services.compactor.cuts import Part
from services.compactor.history import Watermark
from services.compactor.merge import StaleError
from services.compactor.merging import Pending, Step, batches, merge_step, stale_letters
from services.compactor.parquet import canonical_file
from services.contracts.errors import FatalError
from services.contracts.events import CanonicalEvent
from services.contracts.rows import folded_rows, reading_order
from services.contracts.schema import CanonicalTable, Column
from tests.compactor.memory_history import Held, MemoryHistories, MemoryHistory
from tests.compactor.observed import TABLES, TENANT, TICKETS, at, seen


def part(*record_ids: int) -> bytes:
    return canonical_file([seen({}, 1, record_id=str(one)) for one in record_ids], TICKETS, {})


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        ([], []),
        ([[1], [2]], [2]),
        ([[1, 2, 3]], [3]),
        ([[1, 2], [3, 4]], [3, 1]),
        ([[1, 2, 3, 4, 5, 6, 7]], [3, 3, 1]),
    ],
)
def test_parts_are_merged_in_batches_of_bounded_size_and_no_row_is_left_out(
    parts: list[list[int]], sizes: list[int]
) -> None:
    found = list(batches((part(*ids) for ids in parts), rows_max=3))
    assert [sum(rows.num_rows for rows in batch) for batch in found] == sizes
    ids = [record_id for batch in found for rows in batch for record_id in rows.column("record_id").to_pylist()]
    assert ids == [str(one) for some in parts for one in some]


# -- a table that was rebuilt with mapping 2 --------------------------------------------------------------------------
def step(*events: CanonicalEvent, made: CanonicalTable = TICKETS, rebuilt: int = 0, drop_stale: bool = False) -> Step:
    """A merge of one part, whose rows `made` has made."""
    part = Part(TENANT, "tickets", "folder", "key", len(events), (("connectwise", 0),), (("connectwise", 1),))
    cutter = cast("Any", SimpleNamespace(lease=SimpleNamespace(scope="stream")))
    pending = Pending(cutter, "shard", 1, "2026-01-31T09", part, ("connectwise/0",))
    data = canonical_file(events, made, {})
    return Step(TENANT, TICKETS, {}, [pending], [data], {"connectwise": rebuilt}, at(0), drop_stale)


@pytest.fixture
def histories() -> MemoryHistories:
    made = MemoryHistories()
    made(TENANT, TICKETS)
    return made


def test_what_a_new_mapping_makes_does_not_enter_the_table_of_the_old_one(histories: MemoryHistories) -> None:
    with pytest.raises(FatalError, match="avesa replay --from raw --table tickets --rebuild --tenant-id acme"):
        merge_step(histories, step(seen({}, 1, version=2), rebuilt=2))
    assert histories.rows() == []


def test_what_an_old_mapping_makes_changes_nothing_where_the_new_one_made_it_too(histories: MemoryHistories) -> None:
    histories.held[TENANT, "tickets"].floors = {"connectwise": 2}
    news = [seen({"hours": "1.5"}, 1, version=2), seen({"hours": "2"}, 2, version=2)]
    merge_step(histories, step(*news, rebuilt=2))
    before = CanonicalTable("tickets", {"hours": Column("string")})
    merge_step(histories, step(seen({"hours": "one and a half"}, 1, table=before), made=before))
    assert histories.rows() == folded_rows(news, TABLES)


def test_what_only_an_old_mapping_made_is_left_out_and_written_down(histories: MemoryHistories) -> None:
    histories.held[TENANT, "tickets"].floors = {"connectwise": 2}
    news, old = seen({"summary": "A"}, 1, version=2), [seen({"summary": "B"}, 2), seen({"summary": "C"}, 3)]
    with pytest.raises(StaleError) as told:
        merge_step(histories, step(news, *old))
    letters = stale_letters(TENANT, TICKETS, told.value.rows, at(9))
    assert [(letter.record_id, letter.code) for letter in letters] == [("1", "old_mapping")] * 2
    merge_step(histories, step(news, *old, drop_stale=True))
    assert histories.rows() == folded_rows([news], TABLES)


def test_nothing_enters_a_table_whose_rebuild_was_begun_and_not_finished() -> None:
    begun = MemoryHistory(Held(TICKETS))
    begun.is_rebuilding = True
    with pytest.raises(FatalError, match="is not rebuilt with it yet"):
        merge_step(lambda _tenant, _table: begun, step(seen({}, 1)))


# -- what nobody thought of, and several services ---------------------------------------------------------------------
def test_a_merge_that_fails_in_a_way_nobody_thought_of_concerns_its_table_alone() -> None:
    def broken(_tenant: str, _table: CanonicalTable) -> MemoryHistory:
        raise pa.ArrowInvalid("nobody thought of this")

    with pytest.raises(FatalError, match="nobody thought of this"):
        merge_step(broken, step(seen({}, 1)))


def test_services_that_do_not_agree_whether_a_table_has_history_are_not_merged(histories: MemoryHistories) -> None:
    apart = msgspec.structs.replace(
        step(seen({}, 1)), by_service={"a": TICKETS, "b": msgspec.structs.replace(TICKETS, scd=1)}
    )
    with pytest.raises(FatalError, match="scd 1 and 2"):
        merge_step(histories, apart)


def test_what_is_tracked_of_an_entity_is_what_its_own_service_tracks(histories: MemoryHistories) -> None:
    """In one service `note` makes versions, in the other it does not; one batch has both."""
    tracking = CanonicalTable("tickets", {**TICKETS.columns, "note": Column("string")})
    events = [
        seen({"summary": "A", "note": note}, second, service=service, table=table)
        for service, table in (("connectwise", TICKETS), ("servicenow", tracking))
        for second, note in ((1, "x"), (2, "y"), (3, "x"))
    ]
    both = {"connectwise": TICKETS, "servicenow": tracking}
    for some in (events[::2], events[1::2]):
        merge_step(histories, msgspec.structs.replace(step(*some), by_service=both))
        histories.held[TENANT, "tickets"].watermark = Watermark("", {})
    own = [folded_rows([event for event in events if event.service == it], {"tickets": both[it]}) for it in both]
    assert histories.rows() == sorted([row for rows in own for row in rows], key=reading_order)
