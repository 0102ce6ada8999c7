"""`HistoryTables` in memory: rows in Arrow tables, commits that hold only on what was read, deaths at a named step."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from services.compactor.history import FILE, POSITION, Watermark
from services.compactor.parquet import KEY, conformed, rows_from_arrow, rows_to_arrow, version_kinds
from services.contracts.errors import ConflictError, RetryableError
from services.contracts.rows import reading_order
from services.contracts.schema import TIMELINE_COLUMNS, CanonicalTable
from services.contracts.times import UtcTime


class Held:
    """The two tables of one history, as they are committed."""

    def __init__(self, table: CanonicalTable) -> None:
        self.kinds = version_kinds(table)
        self.versions = rows_to_arrow([], self.kinds)
        self.remembered = rows_to_arrow([], TIMELINE_COLUMNS)
        self.watermark = Watermark("", {})
        self.floors: dict[str, int] = {}
        self.commits = 0

    def widen(self, table: CanonicalTable) -> None:
        """Columns that the table has and these rows had not are null in them, as where a mapping brings a new one."""
        if not version_kinds(table).keys() <= self.kinds.keys():
            self.kinds |= version_kinds(table)
            self.versions = conformed(self.versions, self.kinds)
            self.commits += 1

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The versions as JSON values, in reading order."""
        return sorted(rows_from_arrow(self.versions, self.kinds), key=reading_order)

    @property
    def timeline(self) -> list[dict[str, Any]]:
        return rows_from_arrow(self.remembered, TIMELINE_COLUMNS)


class MemoryHistory:
    """One merger's view of `held`. `dies_at` names the commit after which it dies: its answer is lost."""

    def __init__(self, held: Held, dies_at: str = "") -> None:
        self._held, self._dies_at = held, dies_at
        self._read, self._versions, self._remembered = held.commits, held.versions, held.remembered
        self.watermark = held.watermark
        self.floors: Mapping[str, int] = dict(held.floors)
        self.is_rebuilding, self.kinds = False, held.kinds
        self.closed_reads = 0

    def open_rows(self, record_ids: pa.Array) -> pa.Table:
        return self._rows(record_ids, is_current=True)

    def closed_rows(self, record_ids: pa.Array) -> pa.Table:
        self.closed_reads += 1
        return self._rows(record_ids, is_current=False)

    def _rows(self, record_ids: pa.Array, *, is_current: bool) -> pa.Table:
        count = self._versions.num_rows
        rows = self._versions.append_column(FILE, pa.array(["memory"] * count, pa.string()))
        rows = rows.append_column(POSITION, pa.arange(0, count))
        asked = pc.is_in(rows.column("record_id"), value_set=record_ids)
        return rows.filter(pc.and_(asked, pc.equal(rows.column("is_current"), is_current)))

    def remembered(self, record_ids: pa.Array, *, deletes_only: bool) -> pa.Table:
        entries = self._remembered.filter(pc.is_in(self._remembered.column("record_id"), value_set=record_ids))
        return entries.filter(pc.equal(entries.column("op"), "delete")) if deletes_only else entries

    def remember(self, entries: pa.Table) -> None:
        self._check()
        self._held.remembered = pa.concat_tables([self._held.remembered, entries.cast(self._held.remembered.schema)])
        self._committed("timeline")

    def commit(self, removed: pa.Table, added: pa.Table, watermark: Watermark) -> None:
        self._check()
        gone = pc.is_in(pa.arange(0, self._versions.num_rows), value_set=removed.column(POSITION).combine_chunks())
        kept = self._versions.filter(pc.invert(gone))
        assert kept.num_rows == self._versions.num_rows - removed.num_rows, "a row is removed twice"
        rows = pa.concat_tables([kept, conformed(added, self._held.kinds)])
        distinct = rows.select([*KEY, "valid_from"]).group_by([*KEY, "valid_from"]).aggregate([])
        assert distinct.num_rows == rows.num_rows, "a row is doubled"
        self._held.versions, self._held.watermark = rows, watermark
        self._committed("versions")

    def maintain(self, now: UtcTime) -> int:
        del now
        return 0

    def _check(self) -> None:
        if self._held.commits != self._read:
            raise ConflictError("the table is not the one that was read")

    def _committed(self, step: str) -> None:
        self._held.commits += 1
        self._read = self._held.commits
        if step == self._dies_at:
            raise RetryableError(f"died after committing the {step}")


class MemoryHistories:
    """The histories of all tenants; `MaintainedTables` by (tenant, table)."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], Held] = {}
        self.dies_at: list[str] = []

    def __call__(self, tenant_id: str, table: CanonicalTable) -> MemoryHistory:
        held = self.held.setdefault((tenant_id, table.table), Held(table))
        held.widen(table)
        return MemoryHistory(held, self.dies_at.pop(0) if self.dies_at else "")

    def rows(self) -> list[dict[str, Any]]:
        """Every version row of every tenant, in reading order."""
        return sorted((row for held in self.held.values() for row in held.rows), key=reading_order)
