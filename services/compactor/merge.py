"""Merging a batch of observations into the two tables of a history: what is read, what is written, in which order.

The version table shows versions; the timeline remembers what a version no longer shows: every delete, and every
observation of a version but its last. Together they give back the set of observations of any entity, so that a merge
is: read that set, add the batch, fold, write the rows that differ (change.py).

Two commits, in this order: the timeline grows, then the version table changes in one snapshot on the snapshot that
was read, with the watermark. A crash in between leaves the timeline knowing more than the versions show; the same
batch comes again and finds it there. Why this is right: docs/decisions/0003-history-is-a-fold.md; measurements and
the search for counter-examples: tests/history and tests/compactor/test_merge.py.
"""

from collections.abc import Iterator, Mapping

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from services.compactor.change import change_of, joined
from services.compactor.history import HistoryTables, Watermark
from services.contracts.schema import CanonicalTable


class Merged(msgspec.Struct, frozen=True):
    """What a merge did. `rows_written` counts version rows added."""

    observations: int = 0
    rows_written: int = 0
    rows_removed: int = 0
    remembered: int = 0

    def __add__(self, other: "Merged") -> "Merged":
        return Merged(
            self.observations + other.observations,
            self.rows_written + other.rows_written,
            self.rows_removed + other.rows_removed,
            self.remembered + other.remembered,
        )


class StaleError(Exception):
    """`rows` of the batch were made by a mapping older than the table's, and no newer one made the same: in no version
    may they stand. Nothing was changed."""

    def __init__(self, rows: pa.Table) -> None:
        super().__init__(f"{rows.num_rows} observations made by an older mapping")
        self.rows = rows


def merge(
    history: HistoryTables,
    tenant_id: str,
    table: CanonicalTable,
    batch: pa.Table,
    watermark: Watermark,
    *,
    by_service: Mapping[str, CanonicalTable] | None = None,
    drop_stale: bool = False,
) -> Merged:
    """Fold `batch` (`parquet.observations`) into the tables and set the watermark.

    `by_service` has the table as the mapping of a service has it, where that is not `table`: an entity is of one
    service, and what is tracked of it is what that service's mapping says.

    Errors: ConflictError when another merger was faster (open the tables anew and merge again), RetryableError;
            StaleError unless they are to be dropped, because they are written down elsewhere by now.
    """
    changes = [change_of(history, tenant_id, own, part) for own, part in _apart(batch, table, by_service or {})]
    change = joined(changes)
    if change.stale.num_rows and not drop_stale:
        raise StaleError(change.stale)
    if change.remembered.num_rows:
        history.remember(change.remembered)
    history.commit(change.removed, change.added, history.watermark.raised(watermark))
    return Merged(batch.num_rows, change.added.num_rows, change.removed.num_rows, change.remembered.num_rows)


def _apart(
    batch: pa.Table, table: CanonicalTable, by_service: Mapping[str, CanonicalTable]
) -> Iterator[tuple[CanonicalTable, pa.Table]]:
    """The batch in parts: one of all services that have the table as it is, and one of each that does not."""
    services = batch.column("service")
    differing = {
        service: own for service in pc.unique(services).to_pylist() if (own := by_service.get(service, table)) != table
    }
    theirs = pc.is_in(services, value_set=pa.array(list(differing), pa.string()))
    rest = batch.filter(pc.invert(theirs))
    if rest.num_rows or not differing:
        yield table, rest
    for service, own in differing.items():
        yield own, batch.filter(pc.equal(services, service))
