"""Rebuilding a table: observations gathered on local disk, folded as if the table were empty, swapped in.

    observations -> buckets of record ids on disk -> folded one after the other -> rows on disk -> three commits

The commits, in this order: the version table says what is coming, the timeline grows by the new entries, the version
table is swapped (rows, columns and the mappings it is made with, in one), the timeline loses the old entries. Whoever
reads in between finds the old versions or the new ones, each with a timeline that knows at least what belongs to them;
nobody merges into the old ones any more. Killed anywhere, doing it again is right: what is swapped in follows from the
raw archive alone.

Bounds: a batch of `FLUSH_ROWS` observations in memory while they are gathered, `STEP_OBSERVATIONS` while they are
folded (more only where one record has more), parts of `PART_BYTES` while they are written; the rest is on disk.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.table import Transaction

from services.compactor.change import change_of
from services.compactor.files import STAGE, fitting
from services.compactor.history import FILE, POSITION, Watermark
from services.compactor.iceberg import FLOORS, NOTHING_REMOVED, REBUILDING, SCD, IcebergHistory, version_schema
from services.compactor.merging import STEP_OBSERVATIONS
from services.compactor.parquet import canonical_file, conformed, observations, read, rows_to_arrow, version_kinds
from services.compactor.shelf import Shelf
from services.contracts.envelope import checksum
from services.contracts.errors import UsageError
from services.contracts.events import CanonicalEvent
from services.contracts.schema import TIMELINE_COLUMNS, CanonicalTable
from services.runtime.dead_letters import DeadLetter

FLUSH_ROWS: Final = 65_536
BUCKET_RAW_BYTES: Final = 4 << 20  # of the raw archive: about as many events as one fold takes
BUCKETS_MAX: Final = 256  # each is an open file; beyond it a bucket takes several folds
PART_BYTES: Final = 64 << 20  # in memory, a quarter of it as Parquet: layout.Limits.file_bytes
HASH: Final = "_hash"
VALUES: Final[Mapping[str, bool]] = {"open": True, "closed": False}
OPS: Final = ("delete", "upsert")


# -- gathering --------------------------------------------------------------------------------------------------------
def buckets_for(raw_bytes: int) -> int:
    """In how many buckets the observations made of so many bytes of the raw archive are gathered."""
    return min(BUCKETS_MAX, 1 + raw_bytes // BUCKET_RAW_BYTES)


class Gathered:
    """The observations of one service's records, on disk, until all are there. Methods block."""

    def __init__(self, folder: Path, table: CanonicalTable, buckets: int) -> None:
        self.table, self._buckets, self._shelf = table, buckets, Shelf(folder)
        self._held: list[pa.Table] = []
        self._rows = 0

    def add(self, events: Sequence[CanonicalEvent]) -> list[DeadLetter]:
        """Take observations in; letters for those whose values their columns cannot hold."""
        if not events:
            return []
        data, unfit = fitting(events, partial(canonical_file, table=self.table, about={}))
        if data is not None:
            rows = observations(read(data), self.table)
            hashes = [zlib.crc32(record_id.encode()) for record_id in rows.column("record_id").to_pylist()]
            self._held.append(rows.append_column(HASH, pa.array(hashes, pa.int64())))
            self._rows += rows.num_rows
        if self._rows >= FLUSH_ROWS:
            self._flush()
        return [_letter(event, reason) for event, reason in unfit]

    def _flush(self) -> None:
        if not self._held:
            return
        rows = pa.concat_tables(self._held).combine_chunks()
        self._held, self._rows = [], 0
        buckets = pc.subtract(
            rows.column(HASH), pc.multiply(pc.divide(rows.column(HASH), self._buckets), self._buckets)
        )
        order = pc.sort_indices(buckets)
        rows, start = rows.take(order), 0
        for found in pc.value_counts(buckets.take(order)).to_pylist():
            self._shelf.put(str(found["values"]), rows.slice(start, found["counts"]))
            start += found["counts"]

    def batches(self) -> Iterator[pa.Table]:
        """All of them, `STEP_OBSERVATIONS` at a time or so, every record whole in one batch; once."""
        self._flush()
        self._shelf.close()
        for bucket, count in self._shelf.counts.items():
            slices = 1 + (count - 1) // STEP_OBSERVATIONS
            for number in range(slices):
                rows = pa.concat_tables(
                    part.filter(_is_slice(part.column(HASH), self._buckets, slices, number))
                    for part in self._shelf.parts(bucket, PART_BYTES)
                )
                if rows.num_rows:
                    yield rows.drop_columns([HASH])
            self._shelf.drop(bucket)


def _is_slice(hashes: pa.ChunkedArray, buckets: int, slices: int, number: int) -> pa.ChunkedArray:
    """What of a bucket is folded in its `number`-th turn: by the part of the hash that the bucket does not decide."""
    rest = pc.divide(hashes, buckets)
    return pc.equal(pc.subtract(rest, pc.multiply(pc.divide(rest, slices), slices)), number)


def _letter(event: CanonicalEvent, reason: str) -> DeadLetter:
    """Named by what it says, so that meeting it again writes the same letter."""
    data = msgspec.json.encode(event)
    return DeadLetter(
        event.tenant_id,
        STAGE,
        event.table,
        f"raw-{event.mapping_version:06d}-{checksum(data)}",
        "bad_value",
        reason,
        event.observed_at,
        record_id=event.record_id,
        text=data.decode(),
    )


# -- folding ----------------------------------------------------------------------------------------------------------
class NoHistory:
    """`HistoryTables` of a table that holds nothing: folding into it gives the whole history."""

    watermark: Final = Watermark("", {})
    floors: Final[Mapping[str, int]] = {}
    is_rebuilding: Final = False

    def __init__(self, table: CanonicalTable) -> None:
        self.kinds = version_kinds(table)
        self._rows = rows_to_arrow([], {**self.kinds, FILE: "string", POSITION: "int64"})

    def open_rows(self, record_ids: pa.Array) -> pa.Table:
        del record_ids
        return self._rows

    def closed_rows(self, record_ids: pa.Array) -> pa.Table:
        del record_ids
        return self._rows

    def remembered(self, record_ids: pa.Array, *, deletes_only: bool) -> pa.Table:
        del record_ids, deletes_only
        return rows_to_arrow([], TIMELINE_COLUMNS)

    def remember(self, entries: pa.Table) -> None:
        raise NotImplementedError  # it is folded into, and never merged

    def commit(self, removed: pa.Table, added: pa.Table, watermark: Watermark) -> None:
        raise NotImplementedError


class Folded:
    """The rows of both tables as they are to be, on disk. Methods block."""

    def __init__(self, folder: Path, tenant_id: str, table: CanonicalTable) -> None:
        self.table, self._tenant_id, self._shelf = table, tenant_id, Shelf(folder)

    def add(self, batch: pa.Table, table: CanonicalTable) -> None:
        """Fold observations, every record whole, by their own mapping's idea of the table."""
        change = change_of(NoHistory(table), self._tenant_id, table, batch)
        rows = conformed(change.added, version_kinds(self.table))
        for key, value in VALUES.items():
            self._shelf.put(key, rows.filter(pc.equal(rows.column("is_current"), value)))
        for op in OPS:
            self._shelf.put(op, change.remembered.filter(pc.equal(change.remembered.column("op"), op)))

    def close(self) -> None:
        """Nothing more will be added."""
        self._shelf.close()

    @property
    def versions_count(self) -> int:
        return sum(self._shelf.counts.get(key, 0) for key in VALUES)

    def versions(self) -> Iterator[tuple[Any, pa.Table]]:
        """(`is_current`, rows) in parts."""
        for key, value in VALUES.items():
            yield from ((value, part) for part in self._shelf.parts(key, PART_BYTES))

    def timeline(self) -> Iterator[tuple[Any, pa.Table]]:
        """(`op`, entries) in parts."""
        for op in OPS:
            yield from ((op, part) for part in self._shelf.parts(op, PART_BYTES))


def combined(tables: Mapping[str, CanonicalTable]) -> CanonicalTable:
    """The table as all services that feed it have it: the columns of each, by service.

    Errors: UsageError where two contradict each other: then they can only be rebuilt together.
    """
    (first_service, table), *others = tables.items()
    columns, owners = dict(table.columns), dict.fromkeys(table.columns, first_service)
    for service, other in others:
        if other.scd != table.scd:
            raise _contradiction(f"scd is {table.scd} for {first_service} and {other.scd} for {service}")
        for name, column in other.columns.items():
            if columns.setdefault(name, column).type != column.type:
                raise _contradiction(
                    f"column {name} is {columns[name].type} for {owners[name]} and {column.type} for {service}"
                )
            owners.setdefault(name, service)
    return msgspec.structs.replace(table, columns=columns)


def _contradiction(what: str) -> UsageError:
    return UsageError(
        f"services that feed one table contradict each other: {what}",
        code="bad_mapping",
        remedy="Rebuild all of them: without --service, and with --mappings where they have files of your own.",
    )


# -- swapping ---------------------------------------------------------------------------------------------------------
def versions_count(history: IcebergHistory) -> int:
    """How many rows the version table holds."""
    return sum(file.extent.living for file in history.versions.files.values())


def swap(history: IcebergHistory, folded: Folded, floors: Mapping[str, int], moved: Callable[[], None]) -> None:
    """Make the tables hold what is folded, and nothing else. `history` was opened when the merge lease was taken, and
    is good for one swap; `moved` is called again and again, and may end it by raising.

    Errors: ConflictError when somebody else changed a table since; RetryableError. Doing it again is right.
    """

    def watched(parts: Iterable[tuple[Any, pa.Table]]) -> Iterator[tuple[Any, pa.Table]]:
        for part in parts:
            moved()
            yield part
        moved()

    number = msgspec.json.encode(dict(floors), order="sorted").decode()
    versions, timeline = history.versions, history.timeline
    versions.change(NOTHING_REMOVED, {}, {REBUILDING: number})
    for op, entries in watched(folded.timeline()):
        timeline.change(NOTHING_REMOVED, {op: entries}, {})
        timeline = timeline.again()
    versions.again().swap(partial(_reshape, table=folded.table, floors=number), watched(folded.versions()))
    timeline.swap(lambda _: None, watched(folded.timeline()))


def _reshape(transaction: Transaction, table: CanonicalTable, floors: str) -> None:
    """Columns that are gone or of another type go; those and new ones come, under ids that no file has yet."""
    known = {field.name: field.field_type for field in transaction.table_metadata.schema().fields}
    wanted = {field.name: field for field in version_schema(table).fields}
    gone = [name for name, kind in known.items() if name not in wanted or wanted[name].field_type != kind]
    come = [field for name, field in wanted.items() if name in gone or name not in known]
    if gone or come:
        with transaction.update_schema(allow_incompatible_changes=True) as update:
            for name in gone:
                update.delete_column(name)
            for field in come:
                update.add_column(field.name, field.field_type, doc=field.doc)
    transaction.set_properties({FLOORS: floors, SCD: str(table.scd)})
