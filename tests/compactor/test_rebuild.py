"""A table made again: equal to the fold of what it is made of, swapped in whole, and finished whenever it is killed."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st

from services.compactor import rebuild
from services.compactor.iceberg import IcebergHistory, Warehouse
from services.compactor.local_table import LocalGlue, local_warehouse, merge_events, version_rows
from services.compactor.parquet import rows_from_arrow, version_kinds
from services.compactor.rebuild import Folded, Gathered, buckets_for, combined, swap, versions_count
from services.compactor.upkeep import named
from services.contracts.errors import ConflictError, FencedError, RetryableError, UsageError
from services.contracts.events import CanonicalEvent
from services.contracts.rows import folded_rows, reading_order
from services.contracts.schema import TIMELINE_COLUMNS, CanonicalTable, Column
from services.runtime.settings import Settings
from tests.compactor.observed import TABLES, TENANT, TICKETS, USERS, seen
from tests.compactor.observed import observations as any_observations

# What a mapping of the second number makes of the same records: hours are text now, notes are tracked, views are gone.
AFTER = CanonicalTable(
    "tickets",
    {
        "summary": Column("string"),
        "hours": Column("string"),
        "due_at": Column("timestamp"),
        "note": Column("string"),
        "city": Column("string", tracked=False),
    },
)


def before(second: float, note: str = "x", record_id: str = "1", **more: Any) -> CanonicalEvent:
    return seen(
        {"summary": "A", "hours": "1.5", "views": int(second), "note": note, **more}, second, record_id=record_id
    )


def after(second: float, note: str = "x", record_id: str = "1", **more: Any) -> CanonicalEvent:
    values = {"summary": "A", "hours": "1.50 h", "note": note, "city": "Ulm", **more}
    return seen(values, second, record_id=record_id, table=AFTER, version=2)


OLD = [before(1), before(2, "y"), before(3, "y"), before(1, record_id="2"), seen(None, 4, record_id="2")]
NEW = [
    after(1), after(2, "y"), after(3, "y"), after(1, record_id="2"),
    seen(None, 4, record_id="2", table=AFTER, version=2),
]  # fmt: skip


@pytest.fixture
def warehouse() -> Iterator[Warehouse]:
    with local_warehouse() as made:
        yield made


def put(warehouse: Warehouse, *events: CanonicalEvent, cut: int = 1, table: CanonicalTable = TICKETS) -> None:
    merge_events(warehouse.history, TENANT, table, list(events), cut)


def rows(warehouse: Warehouse, table: CanonicalTable) -> list[dict[str, Any]]:
    return sorted(version_rows(warehouse, TENANT, table), key=reading_order)


def timeline(warehouse: Warehouse) -> list[dict[str, Any]]:
    held = warehouse.load(TENANT, "tickets_timeline")
    assert held is not None
    return rows_from_arrow(held.scan().to_arrow(), TIMELINE_COLUMNS)


def folded(
    folder: Path, events: Sequence[CanonicalEvent], table: CanonicalTable = AFTER, *, buckets: int = 3, at_once: int = 2
) -> Folded:
    made = Folded(folder / "rows", TENANT, table)
    gathered = Gathered(folder / "gathered", table, buckets)
    for start in range(0, len(events), at_once):
        assert gathered.add(events[start : start + at_once]) == []
    for batch in gathered.batches():
        made.add(batch, table)
    made.close()
    return made


def never() -> None:
    """Nothing stops it."""


def rebuilt(
    warehouse: Warehouse,
    folder: Path,
    events: Sequence[CanonicalEvent],
    table: CanonicalTable = AFTER,
    floors: Mapping[str, int] | None = None,
    moved: Callable[[], None] = never,
) -> IcebergHistory:
    history = warehouse.rebuilding(TENANT, table)
    swap(history, folded(folder, events, table), {"connectwise": 2} if floors is None else floors, moved)
    return history


# -- gathering and folding --------------------------------------------------------------------------------------------
@given(events=st.lists(any_observations(), max_size=30), buckets=st.integers(1, 4), step=st.integers(1, 4))
@examples(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_the_buckets_the_rows_are_the_fold_of_all_observations(
    events: list[CanonicalEvent], buckets: int, step: int
) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        patched.setattr(rebuild, "STEP_OBSERVATIONS", step)
        patched.setattr(rebuild, "FLUSH_ROWS", 5)
        made = folded(Path(folder), events, TICKETS, buckets=buckets)
        found = [row for _, part in made.versions() for row in rows_from_arrow(part, version_kinds(TICKETS))]
    assert sorted(found, key=reading_order) == folded_rows(events, TABLES)


def test_buckets_follow_the_size_of_the_archive_within_a_bound() -> None:
    assert [buckets_for(size) for size in (0, 9 << 20, 1 << 40)] == [1, 3, 256]


def test_an_observation_whose_value_does_not_fit_is_a_letter_named_by_what_it_says(tmp_path: Path) -> None:
    gathered = Gathered(tmp_path / "gathered", TICKETS, 1)
    unfit = seen({"hours": "1e60"}, 1)
    (letter,) = gathered.add([unfit, before(2)])
    assert (letter.stage, letter.code, letter.record_id) == ("compact", "bad_value", "1")
    assert gathered.add([unfit]) == [letter]
    assert sum(batch.num_rows for batch in gathered.batches()) == 1


def test_services_that_feed_one_table_share_its_columns_or_are_refused() -> None:
    wider = CanonicalTable("tickets", {"city": Column("string")})
    assert list(combined({"a": TICKETS, "b": wider}).columns) == [*TICKETS.columns, "city"]
    with pytest.raises(UsageError, match="column hours is decimal for a and string for b"):
        combined({"a": TICKETS, "b": AFTER})
    with pytest.raises(UsageError, match="scd is 2 for a and 1 for b"):
        combined({"a": TICKETS, "b": msgspec.structs.replace(TICKETS, scd=1)})


# -- swapping ---------------------------------------------------------------------------------------------------------
def test_a_rebuilt_table_is_the_fold_under_the_new_mapping_with_its_columns(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    put(warehouse, *OLD)
    rebuilt(warehouse, tmp_path, NEW)
    assert rows(warehouse, AFTER) == folded_rows(NEW, {"tickets": AFTER})
    table = warehouse.load(TENANT, "tickets")
    assert table is not None
    assert {field.name for field in table.schema().fields} == set(version_kinds(AFTER))
    assert {entry["mapping_version"] for entry in timeline(warehouse)} == {2}


def test_live_merges_go_on_where_the_rebuild_ended(warehouse: Warehouse, tmp_path: Path) -> None:
    put(warehouse, *OLD, cut=7)
    rebuilt(warehouse, tmp_path, NEW)
    history = warehouse.history(TENANT, AFTER)
    assert history.watermark.cuts == {"local/0": 7}
    assert history.floors == {"connectwise": 2}
    late = [after(2, "z", summary="B"), after(9, record_id="2"), after(4)]
    put(warehouse, *late, *NEW, cut=8, table=AFTER)
    assert rows(warehouse, AFTER) == folded_rows([*NEW, *late], {"tickets": AFTER})


def test_the_swap_is_one_snapshot_and_the_one_before_it_is_still_readable(warehouse: Warehouse, tmp_path: Path) -> None:
    put(warehouse, *OLD)
    old = warehouse.load(TENANT, "tickets")
    assert old is not None
    was, snapshot, ids = old.scan().to_arrow(), old.current_snapshot(), field_ids(warehouse)
    assert snapshot is not None
    rebuilt(warehouse, tmp_path, NEW)
    table = warehouse.load(TENANT, "tickets")
    assert table is not None
    assert len(table.metadata.snapshots) == len(old.metadata.snapshots) + 1
    assert table.scan(snapshot_id=snapshot.snapshot_id).to_arrow() == was
    now = field_ids(warehouse)
    assert now["hours"] not in ids.values()
    assert {name for name, number in now.items() if ids.get(name) != number} == {"hours", "city"}
    assert table.spec().fields[0].source_id == now["is_current"] == ids["is_current"]


def field_ids(warehouse: Warehouse) -> dict[str, int]:
    table = warehouse.load(TENANT, "tickets")
    assert table is not None
    return {field.name: field.field_id for field in table.schema().fields}


@pytest.mark.emulator
def test_a_table_in_glue_is_swapped_too(settings: Settings, tmp_path: Path) -> None:
    import boto3

    boto3.client("s3", endpoint_url=settings.endpoint_url).create_bucket(
        Bucket=settings.names.bucket, CreateBucketConfiguration={"LocationConstraint": "us-east-2"}
    )
    warehouse = Warehouse.on_glue(settings)
    put(warehouse, *OLD)
    rebuilt(warehouse, tmp_path, NEW)
    assert rows(warehouse, AFTER) == folded_rows(NEW, {"tickets": AFTER})
    put(warehouse, after(9, "z"), cut=2, table=AFTER)
    assert rows(warehouse, AFTER) == folded_rows([*NEW, after(9, "z")], {"tickets": AFTER})


def test_a_table_that_nobody_made_yet_is_made(warehouse: Warehouse, tmp_path: Path) -> None:
    rebuilt(warehouse, tmp_path, NEW)
    assert rows(warehouse, AFTER) == folded_rows(NEW, {"tickets": AFTER})


def test_a_table_that_nothing_feeds_any_longer_becomes_empty(warehouse: Warehouse, tmp_path: Path) -> None:
    put(warehouse, *OLD)
    history = rebuilt(warehouse, tmp_path, [])
    assert rows(warehouse, AFTER) == timeline(warehouse) == []
    assert versions_count(history) == len(folded_rows(OLD, TABLES))  # as it was opened


def test_a_table_without_history_is_rebuilt_and_its_deletes_are_remembered(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    events = [seen({"name": "A"}, 1, table=USERS), seen({"name": "B"}, 2, table=USERS), seen(None, 3, table=USERS)]
    others = [seen({"name": name}, 1, table=USERS, record_id="2") for name in "AB"]
    put(warehouse, *events[:2], table=USERS)
    rebuilt(warehouse, tmp_path, [*events, *others], USERS, {})
    put(warehouse, seen({"name": "C"}, 2.5, table=USERS), cut=2, table=USERS)
    assert rows(warehouse, USERS) == folded_rows([*events, *others], TABLES)


def test_no_other_table_is_touched(warehouse: Warehouse, tmp_path: Path) -> None:
    put(warehouse, *OLD)
    put(warehouse, seen({"name": "A"}, 1, table=USERS), table=USERS)
    merge_events(warehouse.history, "other", TICKETS, [before(1)], 1)
    places = [(TENANT, "users"), (TENANT, "users_timeline"), ("other", "tickets"), ("other", "tickets_timeline")]
    was = [warehouse.load(*place) for place in places]
    rebuilt(warehouse, tmp_path, NEW)
    assert [warehouse.load(*place) for place in places] == was


# -- killed -----------------------------------------------------------------------------------------------------------
class DyingGlue(LocalGlue):
    """Dies at an update: before it has an effect, or after, so that its answer is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.updates_left: int | None = None
        self.answer_is_lost = False

    def update_table(self, **request: Any) -> None:
        if self.updates_left is None:
            super().update_table(**request)
            return
        self.updates_left -= 1
        if self.updates_left >= 0 or (self.updates_left == -1 and self.answer_is_lost):
            super().update_table(**request)
        if self.updates_left < 0:
            raise ConnectionResetError("killed")


@pytest.mark.parametrize("answer_is_lost", [False, True])
@pytest.mark.parametrize("commits", range(6))
def test_killed_at_any_commit_the_table_is_the_old_or_the_new_one_and_again_finishes(
    commits: int, answer_is_lost: bool, tmp_path: Path
) -> None:
    glue = DyingGlue()
    with local_warehouse(glue=glue) as warehouse:
        put(warehouse, *OLD)
        old, new = folded_rows(OLD, TABLES), folded_rows(NEW, {"tickets": AFTER})
        glue.updates_left, glue.answer_is_lost = commits, answer_is_lost
        try:
            rebuilt(warehouse, tmp_path / "first", NEW)
        except RetryableError:
            assert commits < 5
        swapped = commits + answer_is_lost > 3
        assert rows(warehouse, AFTER if swapped else TICKETS) == (new if swapped else old)
        glue.updates_left = None
        assert warehouse.rebuilding(TENANT, AFTER).is_rebuilding is (0 < commits + answer_is_lost < 4)
        if swapped:  # whoever merges in between is right, and is not lost
            put(warehouse, after(2, "z"), cut=2, table=AFTER)
            assert rows(warehouse, AFTER) == folded_rows([*NEW, after(2, "z")], {"tickets": AFTER})
        rebuilt(warehouse, tmp_path / "second", [*NEW, after(2, "z")])
        put(warehouse, after(2.5, "w"), cut=3, table=AFTER)
        assert rows(warehouse, AFTER) == folded_rows([*NEW, after(2, "z"), after(2.5, "w")], {"tickets": AFTER})


@pytest.mark.parametrize("turn", range(1, 9))
def test_ended_at_any_turn_it_leaves_no_file_behind_that_no_snapshot_names(
    turn: int, warehouse: Warehouse, tmp_path: Path
) -> None:
    put(warehouse, *OLD)
    turns = iter(range(turn - 1))

    def moved() -> None:
        if next(turns, None) is None:
            raise FencedError("somebody else merges")

    old = rows(warehouse, TICKETS)
    files, known = data_files(warehouse), data_files(warehouse, of_snapshots=True)
    assert files == known
    with pytest.raises(FencedError):
        rebuilt(warehouse, tmp_path, NEW, moved=moved)
    assert data_files(warehouse) == data_files(warehouse, of_snapshots=True)
    if turn < 6:
        assert rows(warehouse, TICKETS) == old


def data_files(warehouse: Warehouse, *, of_snapshots: bool = False) -> set[str]:
    from urllib.parse import urlsplit

    table = warehouse.open(TENANT, "tickets")
    assert table is not None
    if of_snapshots:
        paths = {urlsplit(path).path for path in named(table.table, table.table.metadata.snapshots)}
        return {path for path in paths if path.endswith(".parquet")}
    return {str(path) for path in Path(urlsplit(table.table.location()).path).rglob("*.parquet")}


@pytest.mark.parametrize("name", ["tickets", "tickets_timeline"])
def test_who_merged_meanwhile_is_not_overwritten(name: str, warehouse: Warehouse, tmp_path: Path) -> None:
    put(warehouse, *OLD)
    made, history = folded(tmp_path, NEW), warehouse.rebuilding(TENANT, AFTER)
    put(warehouse, before(9, summary="B"), cut=2)
    if name == "tickets":  # of the other table nobody noticed
        history = IcebergHistory(history.versions, lambda: warehouse.rebuilding(TENANT, AFTER).timeline)
    with pytest.raises(ConflictError):
        swap(history, made, {}, never)
    assert rows(warehouse, TICKETS) == folded_rows([*OLD, before(9, summary="B")], TABLES)
