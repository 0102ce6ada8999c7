"""Reading the lake: versions, raw records and SQL, over one tenant or all."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from services.compactor import parquet
from services.compactor.iceberg import Warehouse
from services.compactor.lake import Lake
from services.compactor.local_table import local_warehouse, merge_events
from services.contracts.errors import RetryableError, UsageError
from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import hour_key, part_key, raw_folder
from services.contracts.rows import folded_rows
from services.contracts.schema import CanonicalTable, Column
from tests.compactor.observed import TABLES, TENANT, TICKETS, at, read, seen
from tests.fakes import InlineThreads, MemoryObjects

EVENTS = [
    seen({"summary": "A", "hours": "1.5"}, 1),
    seen({"summary": "B", "hours": "1.5"}, 2),
    seen({"summary": "C"}, 1, record_id="2"),
    seen(None, 3, record_id="2"),
]
THEIRS = seen({"summary": "Z"}, 1, tenant_id="be-ta")


class Stocked:
    """A lake with a table of two tenants and a raw archive."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.warehouse, self.objects = warehouse, MemoryObjects()
        self.lake = Lake(warehouse, self.objects, InlineThreads(), MappingFiles({}, TABLES))
        self.merge(*EVENTS)
        self.merge(THEIRS)

    def merge(self, *events: CanonicalEvent) -> None:
        merge_events(self.warehouse.history, events[0].tenant_id, TICKETS, events, 1)

    def archive(self, *events: ChangeEvent, part: int | None = None, hour: str = "2026-01-31T09") -> None:
        folder = raw_folder(TENANT, "connectwise", "tickets")
        key = hour_key(folder, hour) if part is None else part_key(folder, hour, "shard", part)
        self.objects.held[key] = parquet.raw_file(events, {})


@pytest.fixture
async def stocked() -> AsyncIterator[Stocked]:
    with local_warehouse() as warehouse:
        yield Stocked(warehouse)


async def test_versions_are_the_fold_of_what_was_observed(stocked: Stocked) -> None:
    assert await stocked.lake.versions(None, "tickets") == folded_rows([*EVENTS, THEIRS], TABLES)
    assert await stocked.lake.versions(TENANT, "tickets") == folded_rows(EVENTS, TABLES)
    assert await stocked.lake.tenants() == [TENANT, "be-ta"]


async def test_the_current_rows_and_those_of_one_record_and_of_one_moment(stocked: Stocked) -> None:
    lake = stocked.lake
    assert [row["summary"] for row in await lake.current(TENANT, "tickets")] == ["B"]
    history = await lake.history_of(TENANT, "tickets", "1")
    assert [row["summary"] for row in history.versions] == ["A", "B"]
    assert (history.reads.files, history.reads.files_there) == (2, 3)
    assert history.reads.bytes > 0
    assert [row["summary"] for row in await lake.versions(TENANT, "tickets", at=at(1.5))] == ["A", "C"]
    assert [row["op"] for row in (await lake.history_of(TENANT, "tickets", "2")).timeline] == ["delete"]
    assert await lake.versions("nobody", "tickets") == []


async def test_sql_sees_the_tables_of_all_tenants_or_of_one(stocked: Stocked) -> None:
    sql = "SELECT tenant_id, record_id, summary FROM tickets WHERE is_current ORDER BY 1, 2"
    every = await stocked.lake.query(sql)
    assert every.columns == ("tenant_id", "record_id", "summary")
    assert every.rows == [("acme", "1", "B"), ("be-ta", "1", "Z")]
    assert (await stocked.lake.query(sql, "be-ta")).rows == [("be-ta", "1", "Z")]


async def test_times_are_utc_text_and_numbers_are_exact(stocked: Stocked) -> None:
    found = await stocked.lake.query("SELECT valid_from, hours, sum(hours) OVER () FROM tickets WHERE summary = 'A'")
    assert found.rows == [(at(1), "1.5", "1.5")]


async def test_sql_as_of_a_time_sees_what_held_then(stocked: Stocked) -> None:
    sql = "SELECT summary FROM tickets ORDER BY 1"
    assert (await stocked.lake.query(sql, at=at(1.5))).rows == [("A",), ("C",), ("Z",)]
    assert (await stocked.lake.query(sql, at=at(0.5))).rows == []


async def test_the_timeline_can_be_queried_too(stocked: Stocked) -> None:
    sql = "SELECT tenant_id, record_id, effective_at FROM tickets_timeline WHERE op = 'delete'"
    assert (await stocked.lake.query(sql)).rows == [("acme", "2", at(3))]


async def test_raw_is_the_newest_observation_of_each_living_record_over_parts_and_hours(stocked: Stocked) -> None:
    stocked.archive(read("1", 5, '{"id":1,"status":{"name":"New"}}'), read("2", 1), hour="2026-01-31T08")
    stocked.archive(read("1", 6, '{"id":1,"status":{"name":"Done"}}'), part=1)
    gone = msgspec.structs.replace(read("2", 7), op="delete", payload=msgspec.UNSET)
    stocked.archive(read("3", 2, '{"id":3,"status":{"name":"New"}}'), gone, read("1", 4), part=2)
    sql = "SELECT record_id, payload->>'$.status.name' FROM raw.connectwise.tickets ORDER BY 1"
    assert (await stocked.lake.query(sql)).rows == [("1", "Done"), ("3", "New")]
    latest = await stocked.lake.raw_latest(TENANT, "connectwise", "tickets")
    assert latest.column("record_id").to_pylist() == ["1", "3"]


async def test_a_delete_at_the_same_time_beats_what_was_seen(stocked: Stocked) -> None:
    gone = msgspec.structs.replace(read("1", 5), op="delete", payload=msgspec.UNSET)
    stocked.archive(gone, read("1", 5))
    assert (await stocked.lake.raw_latest(TENANT, "connectwise", "tickets")).num_rows == 0


async def test_raw_and_tables_join_and_a_service_may_carry_an_instance(stocked: Stocked) -> None:
    stocked.archive(read("1", 5, '{"id":1}'))
    joined = "SELECT count(*) FROM raw.connectwise.tickets JOIN tickets USING (tenant_id, record_id) WHERE is_current"
    assert (await stocked.lake.query(joined)).rows == [(1,)]
    assert (await stocked.lake.query('SELECT count(*) FROM raw."microsoft_365:contoso".users')).rows == [(0,)]


async def test_a_table_without_rows_yet_is_empty_and_one_that_nobody_knows_is_an_error(stocked: Stocked) -> None:
    assert (await stocked.lake.query("SELECT count(*) FROM users")).rows == [(0,)]
    with pytest.raises(UsageError, match="there is no table 'tickts'"):
        await stocked.lake.query("SELECT * FROM tickts")


@pytest.mark.parametrize(
    "sql",
    ["SELECT nonsense FROM tickets", "DELETE FROM tickets", "SELEC 1", "SELECT * FROM read_csv('/etc/passwd')",
     "SELECT * FROM '/etc/passwd'", "SELECT * FROM raw.tickets"],
)  # fmt: skip
async def test_sql_that_cannot_be_run_is_an_error_of_use(stocked: Stocked, sql: str) -> None:
    with pytest.raises(UsageError):
        await stocked.lake.query(sql)


async def test_a_name_of_the_query_itself_is_none_of_the_lake(stocked: Stocked) -> None:
    assert (await stocked.lake.query("WITH x AS (SELECT 7 AS seven) SELECT seven FROM x")).rows == [(7,)]


async def test_tables_of_tenants_with_different_columns_are_one_in_sql(stocked: Stocked) -> None:
    wider = CanonicalTable("tickets", {**TICKETS.columns, "queue": Column("string")})
    merge_events(
        stocked.warehouse.history, "gamma", wider, [seen({"queue": "Q"}, 1, table=wider, tenant_id="gamma")], 1
    )
    found = await stocked.lake.query("SELECT tenant_id, queue FROM tickets WHERE is_current ORDER BY 1")
    assert found.rows == [("acme", None), ("be-ta", None), ("gamma", "Q")]
    assert [row["queue"] for row in await stocked.lake.current("gamma", "tickets")] == ["Q"]


async def test_odd_names_and_odd_values_are_answered(stocked: Stocked) -> None:
    lake = stocked.lake
    own = "WITH tickets AS (SELECT * FROM main.tickets WHERE is_current) SELECT count(*) FROM tickets"
    assert (await lake.query(own, TENANT)).rows == [(1,)]
    hidden = "SELECT (WITH tickets AS (SELECT 7 AS n) SELECT n FROM tickets), count(*) FROM tickets WHERE is_current"
    assert (await lake.query(hidden, TENANT)).rows == [(7, 1)]
    odd = (
        "SELECT 'infinity'::TIMESTAMP, [1, NULL], {'a': 1}, INTERVAL 90 MINUTE, 'infinity'::TIMESTAMPTZ, "
        "DATE '0001-01-01'"
    )
    assert (await lake.query(odd)).rows == [("infinity", "[1,null]", '{"a":1}', "01:30:00", "infinity", "0001-01-01")]
    assert (await lake.query("SELECT count(*) FROM raw.ConnectWise.tickets, raw.connectwise.tickets b")).rows == [(0,)]


async def test_the_timeline_as_of_a_time_is_what_was_so_by_then(stocked: Stocked) -> None:
    sql = "SELECT count(*) FROM tickets_timeline WHERE op = 'delete'"
    assert [(await stocked.lake.query(sql, at=at(second))).rows for second in (2, 3)] == [[(0,)], [(1,)]]


async def test_a_file_that_is_gone_is_told_as_that(stocked: Stocked) -> None:
    table = stocked.warehouse.open(TENANT, "tickets")
    assert table is not None
    for path in table.files:
        table.table.io.delete(path)
    for asked in (
        stocked.lake.query("SELECT sum(views) FROM tickets", TENANT),
        stocked.lake.current(TENANT, "tickets"),
    ):
        with pytest.raises(RetryableError, match="cannot be read"):
            await asked


async def test_tenants_whose_columns_are_of_different_types_are_named(stocked: Stocked) -> None:
    other = CanonicalTable("tickets", {**TICKETS.columns, "summary": Column("int64")})
    events = [seen({"summary": 1}, 1, table=other, tenant_id="gamma")]
    merge_events(stocked.warehouse.history, "gamma", other, events, 1)
    with pytest.raises(UsageError, match=r"column summary is string in .* and int64 in .*gamma"):
        await stocked.lake.query("SELECT count(*) FROM tickets")
    assert (await stocked.lake.query("SELECT summary FROM tickets", "gamma")).rows == [(1,)]
