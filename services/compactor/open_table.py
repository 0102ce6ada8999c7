"""One Iceberg table at the snapshot it was loaded with: reading its data files, rewriting them, keeping house.

What reads and writes single files (`ArrowScan`, `write_file`) is less public than the rest of pyiceberg 0.12: this is
the one place that uses it, and `pyproject.toml` pins the version.
"""

import uuid
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    TableAlreadyExistsError,
    ValidationException,
)
from pyiceberg.expressions import AlwaysTrue, BooleanExpression, In
from pyiceberg.io.pyarrow import ArrowScan, schema_to_pyarrow, write_file
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.table import FileScanTask, Table, WriteTask
from pyiceberg.table.snapshots import Snapshot

from services.compactor.layout import DataLeaf, Limits, Rewrite, chunk_sizes
from services.compactor.parquet import Key
from services.contracts.errors import ConflictError, RetryableError
from services.contracts.times import UtcTime, moment
from services.runtime.aws_errors import translated

READERS: Final = 8
IN_MAX: Final = 200  # beyond this pyiceberg and Arrow prune nothing by a list of values
EXPIRED_MAX: Final = 100  # snapshots of one round of maintenance
_is_in: Callable[..., BooleanExpression] = In  # its constructor is pydantic's, which says nothing of its arguments


@contextmanager
def lake_errors(action: str, endpoint_url: str | None) -> Iterator[None]:
    """Raise what pyiceberg and Arrow raise as our errors."""
    try:
        with translated(action, endpoint_url):
            yield
    except (CommitFailedException, ValidationException, TableAlreadyExistsError) as err:
        raise ConflictError(f"{action}: somebody else changed the table ({err})") from err
    except CommitStateUnknownException as err:
        raise RetryableError(f"{action}: the outcome is not known ({err})", code="timeout") from err
    except OSError as err:  # Arrow's file systems: a missing object, a refused or broken connection
        raise RetryableError(f"{action}: {err}", code="unavailable") from err


class OpenTable:
    """Reading and rewriting data files of a table that is partitioned by one column; on no other snapshot than the
    one it was loaded with."""

    def __init__(self, table: Table, limits: Limits, endpoint_url: str | None) -> None:
        self.table, self._limits, self._endpoint_url = table, limits, endpoint_url
        self._record_id = table.schema().find_field("record_id").field_id

    def errors(self, action: str) -> Any:
        return lake_errors(f"{action} {'.'.join(self.table.name())}", self._endpoint_url)

    @cached_property
    def files(self) -> dict[str, DataFile]:
        """Every live data file, by path."""
        with self.errors("planning a read of"):
            return {task.file.file_path: task.file for task in self.table.scan().plan_files()}

    def partition(self, value: Any) -> list[DataFile]:
        return [file for file in self.files.values() if file.partition[0] == value]

    def leaf(self, file: DataFile) -> DataLeaf:
        return DataLeaf(file.file_path, self._bound(file.lower_bounds) or "", file.record_count)

    def _bound(self, bounds: Mapping[int, bytes] | None) -> str | None:
        # Parquet leaves out bounds of very long values; such a file may hold anything.
        found = (bounds or {}).get(self._record_id)
        return None if found is None else found.decode(errors="replace")

    def _may_hold(self, file: DataFile, ids: Sequence[str]) -> bool:
        lower, upper = self._bound(file.lower_bounds), self._bound(file.upper_bounds)
        if lower is None or upper is None:
            return True
        place = bisect_left(ids, lower)
        return place < len(ids) and ids[place] <= upper

    def find(self, files: Iterable[DataFile], keys: Collection[Key]) -> list[tuple[DataFile, pa.Table]]:
        """The rows of these entities, file by file, among `files`; only files that may hold one are opened."""
        ids = sorted({record_id for _, _, record_id in keys})
        candidates = [file for file in files if self._may_hold(file, ids)]
        if not candidates:
            return []
        wanted = pa.array(ids, pa.string())
        pushed: BooleanExpression = _is_in("record_id", ids) if len(ids) <= IN_MAX else AlwaysTrue()

        def rows_of(file: DataFile) -> pa.Table:
            rows = self.read(file, pushed)
            rows = rows.filter(pc.is_in(pc.cast(rows.column("record_id"), pa.string()), value_set=wanted))
            return rows.filter(pa.array([key in keys for key in keys_of(rows)], pa.bool_()))

        with self.errors("reading"), ThreadPoolExecutor(READERS) as pool:
            tables = pool.map(rows_of, candidates)
            return [(file, rows) for file, rows in zip(candidates, tables, strict=True) if rows.num_rows]

    def read(self, file: DataFile, row_filter: BooleanExpression) -> pa.Table:
        schema = self.table.schema()
        return ArrowScan(self.table.metadata, self.table.io, schema, row_filter).to_table([FileScanTask(file)])

    def write(
        self,
        rewrite: Rewrite,
        added: pa.Table,
        value: Any,
        keep: Callable[[DataFile, pa.Table], pa.Table],
        rows_max: int,
    ) -> list[DataFile]:
        """The new files of one rewrite, their rows sorted by record; nothing is committed yet."""
        schema = schema_to_pyarrow(self.table.schema(), include_field_ids=False)
        with self.errors("rewriting"), ThreadPoolExecutor(READERS) as pool:
            kept = pool.map(
                lambda path: keep(self.files[path], self.read(self.files[path], AlwaysTrue())), rewrite.paths
            )
            parts = [
                _conform(part, schema) for part in (*kept, added.slice(rewrite.start, rewrite.end - rewrite.start))
            ]
            rows = pa.concat_tables(parts)
            order = [(name, "ascending") for name in ("record_id", "service", "family", "valid_from", "effective_at")]
            rows = rows.take(pc.sort_indices(rows, sort_keys=[key for key in order if key[0] in rows.column_names]))
            return list(write_file(self.table.io, self.table.metadata, self._tasks(rows, value, rows_max)))

    def _tasks(self, rows: pa.Table, value: Any, rows_max: int) -> Iterator[WriteTask]:
        schema, spec, start = self.table.schema(), self.table.spec(), 0
        key = PartitionKey([PartitionFieldValue(spec.fields[0], value)], spec, schema)
        written = uuid.uuid4()
        for number, size in enumerate(chunk_sizes(rows.num_rows, rows_max)):
            batches = rows.slice(start, size).combine_chunks().to_batches()
            yield WriteTask(written, number, schema, batches, partition_key=key)
            start += size

    def commit(self, replaced: Iterable[str], written: Sequence[DataFile], properties: Mapping[str, str]) -> None:
        """One snapshot (none where no file changes) and the properties, on the snapshot that was read.

        Errors: ConflictError; then nothing changed and what was written is removed.
        """
        gone = [self.files[path] for path in replaced]
        try:
            with self.errors("committing to"):
                transaction = self.table.transaction()
                if properties:
                    transaction.set_properties(dict(properties))
                if gone or written:
                    update = transaction.update_snapshot()
                    producer = update.overwrite() if gone else update.fast_append()
                    for file in gone:
                        producer.delete_data_file(file)
                    for file in written:
                        producer.append_data_file(file)
                    producer.commit()
                transaction.commit_transaction()
        except ConflictError:
            self._remove(file.file_path for file in written)
            raise

    def _remove(self, paths: Iterable[str]) -> None:
        with self.errors("removing files of"):
            for path in paths:
                self.table.io.delete(path)

    # -- maintenance
    def maintain(self, now: UtcTime) -> int:
        """Expire old snapshots, remove the files only they named, join manifests; returns the files removed.

        What a kept snapshot names stays; kept are the newest few and all younger than an hour, so that nobody's
        read is cut short. Costs no request until there is something to do.
        """
        try:
            if len(self.table.metadata.snapshots) <= self._limits.snapshots:
                return 0
            with self.errors("maintaining"):
                current = self.table.current_snapshot()
                if current is not None and len(current.manifests(self.table.io)) > self._limits.manifests:
                    transaction = self.table.transaction()
                    transaction.update_snapshot().merge_append().commit()
                    transaction.commit_transaction()
                return self._expire(now)
        except (ConflictError, RetryableError):
            return 0  # another time: what is merged is merged

    def _expire(self, now: UtcTime) -> int:
        young_ms = int((moment(now) - timedelta(seconds=self._limits.snapshot_age_s)).timestamp() * 1000)
        ordered = sorted(self.table.metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)
        before_kept = ordered[: -self._limits.snapshots_kept]
        old = [snapshot for snapshot in before_kept if snapshot.timestamp_ms < young_ms][:EXPIRED_MAX]
        if not old:
            return 0
        expired = {snapshot.snapshot_id for snapshot in old}
        named = self._named(snapshot for snapshot in ordered if snapshot.snapshot_id not in expired)
        obsolete = self._named(old) - named
        self.table.maintenance.expire_snapshots().by_ids(sorted(expired)).commit()
        self._remove(sorted(obsolete))
        return len(obsolete)

    def _named(self, snapshots: Iterable[Snapshot]) -> set[str]:
        """Every file these snapshots name: manifest lists, manifests, live data files."""
        lists = {snapshot.manifest_list: snapshot for snapshot in snapshots}
        manifests = {
            manifest.manifest_path: manifest
            for snapshot in lists.values()
            for manifest in snapshot.manifests(self.table.io)
        }
        data = {
            entry.data_file.file_path
            for manifest in manifests.values()
            for entry in manifest.fetch_manifest_entry(self.table.io, discard_deleted=True)
        }
        return {*lists, *manifests, *data}


def keys_of(rows: pa.Table) -> list[Key]:
    columns = (rows.column(name).to_pylist() for name in ("service", "family", "record_id"))
    return list(zip(*columns, strict=True))


def _conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, in its order; missing ones are null."""
    present = set(rows.column_names)
    columns = [
        pc.cast(rows.column(field.name), field.type) if field.name in present else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
