"""The tables of a history as Iceberg: what the twin in memory does, on files; and what only files can get wrong."""

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Barrier, Thread
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.compactor.history import Watermark
from services.compactor.iceberg import Warehouse
from services.compactor.layout import Limits
from services.compactor.local_table import LocalGlue, local_warehouse, merge_events, merge_files, version_rows
from services.compactor.merge import merge
from services.compactor.parquet import canonical_file, observations, read
from services.compactor.upkeep import keep_house, named
from services.contracts.errors import ConflictError, FatalError, RetryableError
from services.contracts.events import CanonicalEvent
from services.contracts.rows import folded_rows, reading_order
from services.contracts.schema import CanonicalTable, Column
from services.contracts.times import utc_text
from services.runtime.settings import Settings
from tests.compactor.observed import TABLES, TENANT, TICKETS, USERS, at, seen
from tests.compactor.observed import observations as any_observations


@pytest.fixture
def warehouse() -> Iterator[Warehouse]:
    with local_warehouse() as made:
        yield made


def put(warehouse: Warehouse, *events: CanonicalEvent, cut: int = 1, table: CanonicalTable = TICKETS) -> None:
    merge_events(warehouse.history, TENANT, table, list(events), cut)


def rows(warehouse: Warehouse, table: CanonicalTable = TICKETS) -> list[dict[str, object]]:
    return sorted(version_rows(warehouse, TENANT, table), key=reading_order)


@given(st.lists(st.lists(st.one_of(any_observations(), any_observations(USERS)), max_size=6), max_size=5))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_batches_merged_into_real_tables_are_the_fold_of_their_union(batches: list[list[CanonicalEvent]]) -> None:
    every = [event for events in batches for event in events]
    assert merge_files(batches, TABLES) == folded_rows(every, TABLES)


def test_every_type_of_column_survives_the_table(warehouse: Warehouse) -> None:
    table = CanonicalTable(
        "all",
        {kind: Column(kind) for kind in ("string", "int64", "float64", "decimal", "bool", "timestamp", "date", "json")},
    )
    values = {
        "string": "ü\n", "int64": -(2**63), "float64": 0.1, "decimal": "0.000000001", "bool": False,
        "timestamp": "0001-01-01T00:00:00.000001Z", "date": "9999-12-31", "json": '{"a":1.50}', "custom_fields": "{}",
    }  # fmt: skip
    events = [seen(values, 1, table=table), seen({}, 2, table=table)]
    put(warehouse, *events, table=table)
    assert rows(warehouse, table) == folded_rows(events, {"all": table})


def test_one_merge_is_one_snapshot_with_its_watermark_and_a_merge_without_news_none(warehouse: Warehouse) -> None:
    put(warehouse, seen({"summary": "A"}, 1), cut=1)
    put(warehouse, seen({"summary": "B"}, 2), cut=2)
    put(warehouse, seen({"summary": "B"}, 2), cut=3)
    table = warehouse.load(TENANT, "tickets")
    assert table is not None
    assert len(table.metadata.snapshots) == 2
    assert warehouse.history(TENANT, TICKETS).watermark == Watermark("local", {"local/0": 3})


def test_of_two_mergers_of_one_table_one_is_refused_and_then_right(warehouse: Warehouse) -> None:
    put(warehouse, seen({"summary": "A"}, 1))
    _two_mergers(warehouse)


@pytest.mark.emulator
def test_of_two_mergers_of_one_table_in_glue_one_is_refused_and_then_right(settings: Settings) -> None:
    warehouse = _in_glue(settings)
    put(warehouse, seen({"summary": "A"}, 1))
    _two_mergers(warehouse)
    assert warehouse.tenants() == [TENANT]


def _in_glue(settings: Settings) -> Warehouse:
    import boto3

    boto3.client("s3", endpoint_url=settings.endpoint_url).create_bucket(
        Bucket=settings.names.bucket, CreateBucketConfiguration={"LocationConstraint": "us-east-2"}
    )
    return Warehouse.on_glue(settings)


def _two_mergers(warehouse: Warehouse) -> None:
    def batch(event: CanonicalEvent) -> pa.Table:
        return observations(read(canonical_file([event], TICKETS, {})), TICKETS)

    news = [seen({"summary": "B"}, 2), seen({"summary": "C"}, 3)]
    fast, slow = warehouse.history(TENANT, TICKETS), warehouse.history(TENANT, TICKETS)
    merge(fast, TENANT, TICKETS, batch(news[0]), Watermark("local", {"a/0": 2}))
    with pytest.raises(ConflictError):
        merge(slow, TENANT, TICKETS, batch(news[1]), Watermark("local", {"b/0": 2}))
    merge(warehouse.history(TENANT, TICKETS), TENANT, TICKETS, batch(news[1]), Watermark("local", {"b/0": 2}))
    assert rows(warehouse) == folded_rows([seen({"summary": "A"}, 1), *news], TABLES)
    assert warehouse.history(TENANT, TICKETS).watermark.cuts == {"a/0": 2, "b/0": 2, "local/0": 1}


class LossyGlue(LocalGlue):
    """Loses the answer of the next update of the table `loses`: it took effect."""

    loses = ""

    def update_table(self, **request: Any) -> None:
        super().update_table(**request)
        if request["TableInput"]["Name"] == self.loses:
            self.loses = ""
            raise ConnectionResetError("the answer was lost")


@pytest.mark.parametrize("table", ["tickets", "tickets_timeline"])
def test_a_commit_whose_answer_was_lost_is_found_in_the_table(table: str) -> None:
    glue, later = LossyGlue(), seen({"summary": "A"}, 2)
    with local_warehouse(glue=glue) as warehouse:
        put(warehouse, seen({"summary": "A"}, 1), cut=1)
        glue.loses = table
        with pytest.raises(RetryableError):
            put(warehouse, later, cut=2)
        found = warehouse.history(TENANT, TICKETS).watermark.covers("local", ["local/0"], 2)
        assert found is (table == "tickets")
        put(warehouse, later, cut=2)
        assert rows(warehouse) == folded_rows([seen({"summary": "A"}, 1), later], TABLES)


def test_two_who_create_the_tables_at_once_end_with_one_of_each(warehouse: Warehouse) -> None:
    outcomes: list[str] = []

    def work(number: int) -> None:
        for _ in range(5):
            try:
                put(warehouse, seen({"summary": "A"}, 1, record_id=str(number)), cut=number)
                outcomes.append("merged")
                return
            except ConflictError:
                outcomes.append("refused")

    threads = [Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("merged") == 3
    assert [row["record_id"] for row in rows(warehouse)] == ["0", "1", "2"]


def test_a_new_column_is_added_and_is_null_in_older_rows(warehouse: Warehouse) -> None:
    older = CanonicalTable("tickets", {"summary": Column("string")})
    put(warehouse, seen({"summary": "A"}, 1, record_id="1", table=older), table=older)
    put(warehouse, seen({"summary": "B", "views": 2}, 2, record_id="2"))
    assert [(row["summary"], row["views"]) for row in rows(warehouse)] == [("A", None), ("B", 2)]


def test_a_column_of_another_type_stops_the_merge_and_says_what_to_do(warehouse: Warehouse) -> None:
    put(warehouse, seen({"summary": "A"}, 1))
    other = CanonicalTable("tickets", {"summary": Column("int64")})
    with pytest.raises(FatalError, match="column summary of acme/tickets is string"):
        put(warehouse, seen({"summary": 1}, 2, table=other), table=other)


@pytest.fixture
def small() -> Iterator[Warehouse]:
    """A warehouse whose files are full, and whose snapshots old, after a few rows."""
    with local_warehouse(
        limits=Limits(small_rows=4, fan_in=2, file_rows=8, snapshots=5, snapshots_kept=2, manifests=4)
    ) as made:
        yield made


def test_a_change_appends_and_marks_the_row_it_replaces_as_dead(warehouse: Warehouse) -> None:
    every = [seen({"summary": "A"}, 1, record_id=f"{number:02d}") for number in range(16)]
    put(warehouse, *every)
    before = set(_files(warehouse))
    change = seen({"summary": "B"}, 2, record_id="05")
    put(warehouse, change, cut=2)
    assert before < set(_files(warehouse))
    assert rows(warehouse) == folded_rows([*every, change], TABLES)


def test_files_stay_few_however_often_a_table_changes(warehouse: Warehouse) -> None:
    events = [seen({"summary": str(second)}, second) for second in range(1, 30)]
    for event in events:
        put(warehouse, event)
    assert len(_files(warehouse)) < 2 * Limits().fan_in
    assert rows(warehouse) == folded_rows(events, TABLES)


def test_services_whose_record_ids_are_equal_are_kept_apart(warehouse: Warehouse) -> None:
    events = [seen({"summary": service}, 1, service=service) for service in ("connectwise", "servicenow")]
    put(warehouse, *events)
    gone = seen(None, 2, service="servicenow")
    put(warehouse, gone, cut=2)
    assert rows(warehouse) == folded_rows([*events, gone], TABLES)


def test_maintenance_removes_what_only_old_snapshots_name_and_nothing_else(small: Warehouse) -> None:
    warehouse = small
    events = [seen({"summary": str(second)}, second) for second in range(1, 20)]
    for event in events:
        put(warehouse, event)
    history = warehouse.history(TENANT, TICKETS)
    assert history.maintain("2026-01-01T00:00:00.000000Z") == 0  # as if all were younger than an hour
    assert warehouse.history(TENANT, TICKETS).maintain("2999-01-01T00:00:00.000000Z") > 10
    table = warehouse.load(TENANT, "tickets")
    assert table is not None
    assert len(table.metadata.snapshots) <= 3
    for snapshot in table.metadata.snapshots:
        assert table.scan(snapshot_id=snapshot.snapshot_id).to_arrow().num_rows >= 18
    assert rows(warehouse) == folded_rows(events, TABLES)
    put(warehouse, seen(None, 30), cut=99)
    assert rows(warehouse)[-1]["valid_to"] == at(30)


def test_a_refused_commit_leaves_no_files_behind(warehouse: Warehouse) -> None:
    put(warehouse, seen({"summary": "A"}, 1))
    table = warehouse.load(TENANT, "tickets")
    assert table is not None
    folder = Path(urlsplit(table.location()).path)
    _two_mergers(warehouse)
    known = {Path(urlsplit(path).path).name for path in _named(warehouse)}
    assert {file.name for file in folder.rglob("*.parquet")} <= known


def test_columns_may_be_called_like_what_the_fold_asks_for(warehouse: Warehouse) -> None:
    names = ["effective_at", "deleted", "row_digest", "place", "row", "entity", "op", "last", "first", "order"]
    table = CanonicalTable("tickets", {name: Column("string") for name in names})
    events = [seen({name: f"{name} {second}" for name in names}, second, table=table) for second in (1, 2, 3)]
    for cut, event in enumerate(reversed(events)):
        put(warehouse, event, cut=cut, table=table)
    assert rows(warehouse, table) == folded_rows(events, {"tickets": table})


def test_a_record_id_too_long_for_bounds_hides_no_other(warehouse: Warehouse) -> None:
    long, ids = "x" * 5_000, [f"{number:06d}" for number in range(4_096)]
    events = [seen({"summary": "A"}, 1, record_id=one) for one in (*ids, long, "zz")]
    put(warehouse, *events)
    news = [seen({"summary": "B"}, 2, record_id=one) for one in (long, "zz")]
    put(warehouse, *news, cut=2)
    assert rows(warehouse) == folded_rows([*events, *news], TABLES)


def test_a_column_that_only_the_table_has_stays_in_rows_that_are_written_again(warehouse: Warehouse) -> None:
    wider = CanonicalTable("tickets", {**TICKETS.columns, "queue": Column("string")})
    put(warehouse, seen({"summary": "A", "queue": "Q"}, 1, table=wider), table=wider)
    put(warehouse, seen(None, 2), cut=2)
    assert [(row["queue"], row["valid_to"]) for row in rows(warehouse, wider)] == [("Q", at(2))]


def test_a_table_made_with_history_does_not_go_on_without(warehouse: Warehouse) -> None:
    put(warehouse, seen({"summary": "A"}, 1))
    with pytest.raises(FatalError, match="was made with scd 2, the mapping says 1"):
        warehouse.history(TENANT, CanonicalTable("tickets", TICKETS.columns, scd=1))


def test_what_a_dead_merger_left_behind_is_removed_after_a_day_and_nothing_else(small: Warehouse) -> None:
    warehouse = small
    events = [seen({"summary": str(second)}, second) for second in range(1, 20)]
    for event in events:
        put(warehouse, event)
    table = warehouse.open(TENANT, "tickets")
    assert table is not None
    folder = Path(urlsplit(table.table.location()).path)
    old, young = folder / "data" / "old.parquet", folder / "data" / "young.parquet"
    for file in (old, young):
        file.touch()
    os.utime(old, (0, 0))
    now = utc_text(datetime.now(UTC) + timedelta(hours=2))  # snapshots are old, files made just now are not
    assert keep_house(table, now) > 10
    assert (old.exists(), young.exists()) == (False, True)
    assert rows(warehouse) == folded_rows(events, TABLES)
    (state,) = [one for one in warehouse.upkeep(TENANT) if one.table == "tickets"]
    assert (state.rows, state.swept_at) == (19, now)
    assert state.snapshots <= 3


def test_two_workers_who_insert_the_same_new_record_at_once_leave_one_current_row(warehouse: Warehouse) -> None:
    _insert_at_once(warehouse)


@pytest.mark.emulator
def test_two_workers_who_insert_the_same_new_record_at_once_in_glue_leave_one_current_row(settings: Settings) -> None:
    _insert_at_once(_in_glue(settings))


def _insert_at_once(warehouse: Warehouse) -> None:
    """Both have read the table when neither has written; who is refused reads it again."""
    put(warehouse, seen({"summary": "another"}, 1, record_id="0"))
    together, refused = Barrier(2, timeout=60), []

    def insert(number: int) -> None:
        batch = observations(read(canonical_file([seen({"summary": "new"}, 2)], TICKETS, {})), TICKETS)
        history = warehouse.history(TENANT, TICKETS)
        history.open_rows(batch.column("record_id").combine_chunks())
        together.wait()
        for _ in range(3):
            try:
                merge(history, TENANT, TICKETS, batch, Watermark("local", {f"{number}/0": 1}))
                return
            except ConflictError:
                refused.append(number)
                history = warehouse.history(TENANT, TICKETS)

    workers = [Thread(target=insert, args=(number,)) for number in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [row["record_id"] for row in rows(warehouse) if row["is_current"]] == ["0", "1"]
    assert len(refused) == 1


def _files(warehouse: Warehouse) -> list[str]:
    table = warehouse.load(TENANT, "tickets")
    assert table is not None
    return [task.file.file_path for task in table.scan().plan_files()]


def _named(warehouse: Warehouse) -> set[str]:
    table = warehouse.load(TENANT, "tickets")
    assert table is not None
    return named(table, table.metadata.snapshots)
