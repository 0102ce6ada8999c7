"""`HistoryTables` in memory: rows in a dictionary, commits that hold only on what was read, deaths at a named step."""

from collections.abc import Collection, Sequence
from typing import Any

from services.compactor.merge import Remembered, Row, Watermark
from services.compactor.parquet import Key
from services.contracts.errors import ConflictError, RetryableError
from services.contracts.rows import reading_order
from services.contracts.schema import CanonicalTable
from services.contracts.times import UtcTime

RowId = tuple[Key, UtcTime]


class Held:
    """The two tables of one history, as they are committed."""

    def __init__(self) -> None:
        self.rows: dict[RowId, Row] = {}
        self.timeline: list[Remembered] = []
        self.watermark = Watermark("", {})
        self.commits = 0


class MemoryHistory:
    """One merger's view of `held`. `dies_at` names the commit after which it dies: its answer is lost."""

    def __init__(self, held: Held, dies_at: str = "") -> None:
        self._held, self._dies_at = held, dies_at
        self._read = held.commits
        self._rows, self._timeline = dict(held.rows), list(held.timeline)
        self.watermark = held.watermark
        self.closed_reads = 0

    def open_rows(self, keys: Collection[Key]) -> list[Row]:
        return [dict(row) for (key, _), row in self._rows.items() if key in keys and row["is_current"]]

    def closed_rows(self, keys: Collection[Key]) -> list[Row]:
        self.closed_reads += 1
        return [dict(row) for (key, _), row in self._rows.items() if key in keys and not row["is_current"]]

    def remembered(self, keys: Collection[Key], *, deletes_only: bool) -> list[Remembered]:
        return [it for it in self._timeline if it.key in keys and (it.op == "delete" or not deletes_only)]

    def remember(self, entries: Sequence[Remembered]) -> None:
        self._check()
        self._held.timeline += entries
        self._committed("timeline")

    def commit(self, removed: Sequence[Row], added: Sequence[Row], watermark: Watermark) -> None:
        self._check()
        for row in removed:
            assert self._held.rows.pop(_row_id(row)) == row
        for row in added:
            assert _row_id(row) not in self._held.rows, "a row is doubled"
            self._held.rows[_row_id(row)] = dict(row)
        self._held.watermark = watermark
        self._committed("versions")

    def maintain(self, now: UtcTime) -> int:
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
        held = self.held.setdefault((tenant_id, table.table), Held())
        return MemoryHistory(held, self.dies_at.pop(0) if self.dies_at else "")

    def rows(self) -> list[dict[str, Any]]:
        """Every version row of every tenant, in reading order."""
        return sorted((dict(row) for held in self.held.values() for row in held.rows.values()), key=reading_order)


def _row_id(row: Row) -> RowId:
    return (row["service"], row["family"], row["record_id"]), row["valid_from"]
