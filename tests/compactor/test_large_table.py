"""A table of a million versions: how little of it a question reads."""

from collections.abc import Iterator

import pytest

from services.compactor.lake import Lake
from services.compactor.local_table import local_warehouse, merge_events
from services.contracts.mapping_files import MappingFiles
from tests.compactor.large import TICKETS, fill
from tests.compactor.observed import TENANT, seen_at
from tests.fakes import InlineThreads, MemoryObjects

TICKETS_HELD, VERSIONS = 100_000, 10
TICKET = "77777"


@pytest.fixture(scope="module")
def lake() -> Iterator[Lake]:
    with local_warehouse() as warehouse:
        fill(warehouse, TICKETS_HELD, VERSIONS, remembered=100_000)
        time = "2026-02-01T00:00:00.000000Z"
        changed = [seen_at({"summary": "new"}, time, record_id=str(one), table=TICKETS) for one in range(0, 99_999, 97)]
        merge_events(warehouse.history, TENANT, TICKETS, changed, 1)
        yield Lake(warehouse, MemoryObjects(), InlineThreads(), MappingFiles({}, {"tickets": TICKETS}))


async def test_one_tickets_history_reads_a_small_part(lake: Lake) -> None:
    found = await lake.history_of(TENANT, "tickets", TICKET)
    print(f"\none ticket's history: {found.reads}")
    assert [row["valid_to"] is None for row in found.versions] == [False] * 9 + [True]
    assert found.reads.bytes < 0.05 * found.reads.bytes_there


async def test_current_rows_are_read_without_the_closed_ones(lake: Lake) -> None:
    found = await lake.query("SELECT * FROM tickets WHERE is_current")
    print(f"\ncurrent rows: {found.reads}")
    assert len(found.rows) == TICKETS_HELD
    assert found.reads.bytes < 0.2 * found.reads.bytes_there


async def test_sql_for_one_ticket_reads_a_small_part(lake: Lake) -> None:
    found = await lake.query(f"SELECT valid_from, status FROM tickets WHERE record_id = '{TICKET}'")
    print(f"\none ticket in SQL: {found.reads}")
    assert len(found.rows) == VERSIONS
    assert found.reads.bytes < 0.05 * found.reads.bytes_there


async def test_as_of_a_time_reads_the_columns_it_is_asked_for(lake: Lake) -> None:
    found = await lake.query("SELECT count(*) FROM tickets", at="2025-01-01T00:00:00.000000Z")
    print(f"\nas of a time: {found.reads}")
    assert found.rows[0][0] > 0
    assert found.reads.bytes < 0.25 * found.reads.bytes_there
