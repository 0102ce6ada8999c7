"""What engines that are not ours read of the tables as they lie: position deletes and all."""

from collections.abc import Iterator
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import polars as pl
import pytest

from services.compactor.iceberg import Warehouse
from services.compactor.layout import Limits
from services.compactor.local_table import local_warehouse, merge_events
from services.contracts.rows import folded_rows
from tests.compactor.observed import TABLES, TENANT, TICKETS, seen

LIMITS = Limits(small_rows=256, fan_in=4, file_rows=1_024)


@pytest.fixture(scope="module")
def history() -> Iterator[tuple[Warehouse, list[dict[str, object]]]]:
    """A table that was merged into twenty times, and its rows by the fold."""
    chance = Random(5)
    batches = [
        [
            seen(
                {"summary": str(cut)} if chance.random() < 0.9 else None, cut + 1, record_id=str(chance.randrange(900))
            )
            for _ in range(200)
        ]
        for cut in range(20)
    ]
    with local_warehouse(limits=LIMITS) as warehouse:
        for cut, events in enumerate(batches):
            merge_events(warehouse.history, TENANT, TICKETS, events, cut)
        yield warehouse, folded_rows([event for events in batches for event in events], TABLES)


def metadata(warehouse: Warehouse) -> str:
    """The path of the table's metadata. Some of its rows are dead, else this would show little."""
    table = warehouse.open(TENANT, "tickets")
    assert table is not None
    assert sum(file.extent.dead for file in table.files.values()) > 0
    return str(Path(urlsplit(table.table.metadata_location).path))


def test_three_readers_agree(history: tuple[Warehouse, list[dict[str, object]]]) -> None:
    warehouse, rows = history
    wanted = (len(rows), sum(bool(row["is_current"]) for row in rows))
    theirs = pl.scan_iceberg(metadata(warehouse), reader_override="native").select(pl.len(), pl.col("is_current").sum())
    assert theirs.collect().row(0) == wanted
    table = warehouse.load(TENANT, "tickets")
    assert table is not None
    counted = (table.scan().to_arrow().num_rows, table.scan(row_filter="is_current = true").to_arrow().num_rows)
    assert counted == wanted


def test_they_read_the_same_rows(history: tuple[Warehouse, list[dict[str, object]]]) -> None:
    warehouse, rows = history
    theirs = pl.scan_iceberg(metadata(warehouse), reader_override="native").select("record_id", "summary", "is_current")
    ours = [(row["record_id"], row["summary"], row["is_current"]) for row in rows]
    assert sorted(theirs.collect().rows()) == sorted(ours)
