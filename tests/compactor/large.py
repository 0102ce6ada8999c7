"""Large tables for measurements: made in SQL and written as merges would have left them, without merging for hours."""

from collections.abc import Iterator
from random import Random
from typing import Any, Final

import duckdb
import pyarrow as pa
from pyiceberg.table import Transaction

from services.compactor.iceberg import IcebergHistory, Warehouse
from services.compactor.parquet import conformed, version_kinds
from services.contracts.events import CanonicalEvent
from services.contracts.schema import TIMELINE_COLUMNS, CanonicalTable, Column
from tests.compactor.observed import TENANT, seen_at

TICKETS: Final = CanonicalTable(
    "tickets",
    {
        "summary": Column("string"),
        "status": Column("string"),
        "priority": Column("string"),
        "board": Column("string"),
        "company_id": Column("string"),
        "contact_name": Column("string"),
        "hours": Column("decimal"),
        "closed": Column("bool"),
        "due_at": Column("timestamp"),
        "views": Column("int64", tracked=False),
    },
)
YEARS: Final = 3
END: Final = "2026-01-01 00:00:00+00"  # nothing in the table is later
FILE_ROWS: Final = 170_000  # what a full file of such rows holds

# Tickets are opened evenly over the years and change soon after they were opened, most of them for a month or so.
STARTS: Final = """
SELECT ticket::VARCHAR AS record_id, ticket, version,
       to_timestamp(epoch(TIMESTAMPTZ '{end}') - {years} * 31536000 * (1 - ticket / {tickets}::DOUBLE)
                    + (version * 400000 + hash(ticket, version) % 400000)::DOUBLE)
           - INTERVAL 90 DAY AS valid_from
FROM range({tickets}) AS t(ticket), range({versions}) AS v(version)
"""
VERSIONS: Final = """
SELECT record_id, least(valid_from, TIMESTAMPTZ '{end}') AS valid_from,
       lead(valid_from) OVER (PARTITION BY ticket ORDER BY version) AS valid_to,
       version = {versions} - 1 AS is_current,
       'Printer ' || hash(ticket) % 100000 || ' does not ' || hash(ticket, 7) % 1000 AS summary,
       ['New', 'In progress', 'Waiting', 'Done'][1 + (hash(ticket, version, 1) % 4)::BIGINT] AS status,
       ['Low', 'Medium', 'High'][1 + (hash(ticket, version, 2) % 3)::BIGINT] AS priority,
       'Board ' || hash(ticket, 3) % 12 AS board, (hash(ticket, 4) % 400)::VARCHAR AS company_id,
       'Contact ' || hash(ticket, 5) % 5000 AS contact_name,
       (hash(ticket, version, 6) % 400 / 4)::DECIMAL(38, 9) AS hours,
       hash(ticket, version, 8) % 2 = 0 AS closed, valid_from + INTERVAL 7 DAY AS due_at,
       version::BIGINT AS views, md5(ticket || '-' || version) AS record_hash,
       valid_from AS observed_at, valid_from AS last_effective_at, valid_from AS last_observed_at, 1 AS mapping_version,
       'connectwise' AS service, 'tickets' AS family, '{tenant}' AS tenant_id
FROM starts
"""


def fill(warehouse: Warehouse, tickets: int, versions: int, remembered: int = 0) -> IcebergHistory:
    """A table of so many tickets, each with so many versions, the last of them current; and a timeline."""
    history = warehouse.history(TENANT, TICKETS)
    with duckdb.connect() as sql:
        sql.execute("SET TimeZone = 'UTC'")
        numbers: dict[str, Any] = {
            "tickets": tickets, "versions": versions, "years": YEARS, "end": END, "tenant": TENANT
        }  # fmt: skip
        sql.execute(f"CREATE TABLE starts AS {STARTS.format(**numbers)}")
        sql.execute(f"CREATE TABLE versions AS {VERSIONS.format(**numbers)}")
        history.versions.swap(_nothing, _parts(sql, tickets, versions))
        if remembered:
            entries = sql.sql(
                f"SELECT '{TENANT}' AS tenant_id, 'connectwise' AS service, 'tickets' AS family, record_id, "
                "valid_from AS effective_at, valid_from AS observed_at, 'upsert' AS op, 1 AS mapping_version, "
                f"record_hash, NULL::VARCHAR AS untracked FROM versions LIMIT {remembered}"
            ).to_arrow_table()
            history.remember(conformed(entries, TIMELINE_COLUMNS))
    return warehouse.history(TENANT, TICKETS)


def _nothing(transaction: Transaction) -> None:
    del transaction


def _parts(sql: duckdb.DuckDBPyConnection, tickets: int, versions: int) -> Iterator[tuple[bool, pa.Table]]:
    for is_current, rows, order in ((True, tickets, "valid_from"), (False, tickets * (versions - 1), "valid_to")):
        sql.execute(
            f"CREATE OR REPLACE TABLE ordered AS FROM versions WHERE is_current = {is_current} ORDER BY {order}"
        )
        for start in range(0, rows, FILE_ROWS):
            part = sql.sql(f"SELECT * FROM ordered LIMIT {FILE_ROWS} OFFSET {start}").to_arrow_table()
            yield is_current, conformed(part, version_kinds(TICKETS))


def changes(chance: Random, tickets: int, count: int, recent: float, late: float, turn: int) -> list[CanonicalEvent]:
    """New content for `count` tickets: of these the share `recent` among the last thirtieth opened, the others any; the
    share `late` a year before the rest. Turns come one after the other."""
    events = []
    for place in range(count):
        newest = chance.random() < recent
        ticket = chance.randrange(tickets - tickets // 30, tickets) if newest else chance.randrange(tickets)
        year = 2025 if place < late * count else 2026
        values = {"summary": f"Changed {turn}-{place}", "status": "Done", "hours": "1.25", "closed": True}
        time = f"{year}-02-{1 + turn // 1440 % 28:02d}T{turn // 60 % 24:02d}:{turn % 60:02d}:00.{place:06d}Z"
        events.append(seen_at(values, time, record_id=str(ticket), table=TICKETS))
    return events
