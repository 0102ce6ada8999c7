"""One Iceberg table at the snapshot it was loaded with: finding rows, and changing them in one snapshot."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Final, TypeVar, cast

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.conversions import from_bytes
from pyiceberg.exceptions import (
    CommitFailedException,
    CommitStateUnknownException,
    TableAlreadyExistsError,
    ValidationException,
)
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import schema_to_pyarrow
from pyiceberg.manifest import DataFile, ManifestContent
from pyiceberg.table import Table, Transaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.update import AssertRefSnapshotId
from pyiceberg.types import PrimitiveType

from services.compactor import data_files
from services.compactor.history import FILE, POSITION
from services.compactor.layout import NEW, Extent, Limits, chunk_sizes, rewrites
from services.compactor.parquet import ICEBERG_KINDS
from services.compactor.snapshot import Held, Replacement
from services.contracts.errors import ConflictError, RetryableError
from services.runtime.aws_errors import translated

T = TypeVar("T")
R = TypeVar("R")
READERS: Final = 8
SORTED_BY: Final = ("record_id", "service", "family", "valid_from", "effective_at")


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


class LiveFile(msgspec.Struct, frozen=True):
    """A data file and, where rows of it are dead, the file that says which."""

    data: DataFile
    deletes: DataFile | None = None

    @property
    def value(self) -> Any:
        """Of the one column that the table is partitioned by."""
        return self.data.partition[0]

    @property
    def extent(self) -> Extent:
        dead = 0 if self.deletes is None else self.deletes.record_count
        return Extent(self.data.file_path, self.data.record_count, dead, self.data.file_size_in_bytes)


class OpenTable:
    """A table that is partitioned by one column; on no other snapshot than the one it was loaded with."""

    def __init__(self, table: Table, limits: Limits, endpoint_url: str | None) -> None:
        self.table, self.limits, self._endpoint_url = table, limits, endpoint_url
        self._dead: dict[str, pa.Array] = {}  # by path of the file that says so
        self.schema, self.column = _arrow_schema(table.metadata), table.spec().fields[0].name

    def errors(self, action: str) -> Any:
        return lake_errors(f"{action} {'.'.join(self.table.name())}", self._endpoint_url)

    # -- what is there
    @cached_property
    def _held(self) -> Held:
        """The manifests of the snapshot, each with its living entries."""
        snapshot = self.table.current_snapshot()
        if snapshot is None:
            return []
        with self.errors("planning a read of"):
            return [(it, it.fetch_manifest_entry(self.table.io)) for it in snapshot.manifests(self.table.io)]

    @cached_property
    def files(self) -> dict[str, LiveFile]:
        """Every living data file, by path."""
        by_content: dict[ManifestContent, list[DataFile]] = {ManifestContent.DATA: [], ManifestContent.DELETES: []}
        for manifest, entries in self._held:
            by_content[manifest.content] += (entry.data_file for entry in entries)
        deletes = {file.lower_bounds[data_files.PATH_ID].decode(): file for file in by_content[ManifestContent.DELETES]}
        return {
            file.file_path: LiveFile(file, deletes.get(file.file_path)) for file in by_content[ManifestContent.DATA]
        }

    def partition(self, value: Any) -> list[LiveFile]:
        return [file for file in self.files.values() if file.value == value]

    @property
    def kinds(self) -> dict[str, str]:
        """The columns, in order, and our kinds of them."""
        return {field.name: ICEBERG_KINDS[str(field.field_type)] for field in self.table.schema().fields}

    def dead(self, file: LiveFile) -> pa.Array:
        """The positions of its dead rows; read once, because whoever finds rows in a file mostly changes them."""
        if file.deletes is None:
            return data_files.NO_POSITIONS
        path = file.deletes.file_path
        if path not in self._dead:
            self._dead[path] = data_files.read_positions(self.table.io, file.deletes)
        return self._dead[path]

    def bounds(self, file: LiveFile, name: str = "record_id") -> tuple[Any, Any]:
        """The least and the greatest value of a column; None where the file does not say. Times as microseconds."""
        field = self.table.schema().find_field(name)
        found = [(bounds or {}).get(field.field_id) for bounds in (file.data.lower_bounds, file.data.upper_bounds)]
        kind = cast("PrimitiveType", field.field_type)
        lower, upper = (None if bound is None else from_bytes(kind, bound) for bound in found)
        return lower, upper

    def find(self, files: Iterable[LiveFile], record_ids: pa.Array, io: FileIO | None = None) -> pa.Table:
        """The rows of these records (sorted, distinct) among `files`, with FILE and POSITION."""

        def rows_of(file: LiveFile) -> pa.Table | None:
            return data_files.find(io or self.table.io, file.data.file_path, self.dead(file), record_ids)

        candidates = [file for file in files if self._may_hold(file, record_ids)]
        with self.errors("reading"):
            found = [rows for rows in in_parallel(rows_of, candidates) if rows is not None]
        schema = self.schema.append(pa.field(FILE, pa.string())).append(pa.field(POSITION, pa.int64()))
        return pa.concat_tables([schema.empty_table(), *(_conform(rows, schema) for rows in found)])

    def _may_hold(self, file: LiveFile, record_ids: pa.Array) -> bool:
        lower, upper = self.bounds(file)
        if not len(record_ids):
            return False
        return lower is None or upper is None or data_files.any_between(record_ids, lower, upper)

    # -- changing it
    def change(self, removed: pa.Table, added: Mapping[Any, pa.Table], properties: Mapping[str, str]) -> None:
        """Rows at (FILE, POSITION) of `removed` go, `added` ones come to their partitions: one snapshot (none where
        no row changes), with the properties, on the snapshot that was read.

        Errors: ConflictError; then nothing changed and what was written is removed.
        """
        dying = {
            path.as_py(): removed.filter(pc.equal(removed.column(FILE), path)).column(POSITION).combine_chunks()
            for path in pc.unique(removed.column(FILE))
        }
        dead = {path: pa.concat_arrays([self.dead(self.files[path]), more]) for path, more in dying.items()}
        transaction = self.table.transaction()
        if properties:
            transaction.set_properties(dict(properties))
        gone: set[str] = set()
        written: list[DataFile] = []
        with self.errors("writing"):
            for value in {*added, *(self.files[path].value for path in dead)}:
                rows = added.get(value, self.schema.empty_table())
                for group in self._rewrites(value, rows.num_rows, dead):
                    paths = [path for path in group if path != NEW]
                    written += self._rewrite(paths, dead, rows if NEW in group else rows.slice(0, 0), value)
                    gone.update(paths)
            for path, positions in dead.items():
                if path not in gone:
                    written.append(
                        data_files.write_positions(self.table.io, self.table.metadata, self.files[path].data, positions)
                    )
        gone |= {
            deletes.file_path
            for path, file in self.files.items()
            if (deletes := file.deletes) is not None and (path in gone or path in dead)
        }
        self._commit(transaction, gone, written)

    def swap(self, prepare: Callable[[Transaction], None], rows: Iterable[tuple[Any, pa.Table]]) -> None:
        """Everything goes, `rows` (partition, rows) come, in one commit with what `prepare` changes of the table
        (its columns, its properties): readers see the old table or the new one.

        Errors: ConflictError, and whatever `rows` raises; then nothing changed and what was written is removed.
        """
        transaction = self.table.transaction()
        written: list[DataFile] = []
        try:
            with self.errors("rewriting"):
                prepare(transaction)
                for value, part in rows:
                    written += self._write(transaction.table_metadata, part, part.nbytes // 4, value)
        except BaseException:  # also Ctrl-C: nothing names these files
            self.remove(file.file_path for file in written)
            raise
        gone = {entry.data_file.file_path for _, entries in self._held for entry in entries}
        self._commit(transaction, gone, written)

    def again(self) -> "OpenTable":
        """The table as our own last commit left it, for the next one: somebody else's in between makes that fail."""
        return OpenTable(self.table, self.limits, self._endpoint_url)

    def _rewrites(self, value: Any, added: int, dead: Mapping[str, pa.Array]) -> list[tuple[str, ...]]:
        extents = [file.extent for file in self.partition(value)]
        extents = [
            msgspec.structs.replace(extent, dead=len(dead[extent.path])) if extent.path in dead else extent
            for extent in extents
        ]
        return rewrites([*extents, Extent(NEW, added)] if added else extents, self.limits)

    def _rewrite(
        self, paths: Sequence[str], dead: Mapping[str, pa.Array], added: pa.Table, value: Any
    ) -> list[DataFile]:
        """The new files of a group: what lives of the old ones, and what comes."""

        def living(path: str) -> pa.Table:
            file = self.files[path]
            positions = dead[path] if path in dead else self.dead(file)
            return _conform(data_files.read_living(self.table.io, path, positions), self.schema)

        rows = pa.concat_tables([*in_parallel(living, paths), _conform(added, self.schema)])
        size = sum(self.files[path].extent.living_bytes for path in paths)
        return self._write(self.table.metadata, rows, size, value)

    def _write(self, metadata: TableMetadata, rows: pa.Table, size: int, value: Any) -> list[DataFile]:
        order = [(name, "ascending") for name in SORTED_BY if name in rows.column_names]
        rows = _conform(rows.take(pc.sort_indices(rows, sort_keys=order)), _arrow_schema(metadata))
        sizes = chunk_sizes(rows.num_rows, size, self.limits)
        return list(data_files.write_rows(self.table.io, metadata, rows, sizes, value))

    def _commit(self, transaction: Transaction, gone: Collection[str], written: Sequence[DataFile]) -> None:
        try:
            with self.errors("committing to"):
                if gone or written:
                    io, manifests = self.table.io, self.limits.manifests
                    Replacement(transaction, io, self._held, gone, written, manifests).commit()
                else:  # properties alone hold on what was read too
                    current = self.table.current_snapshot()
                    expected = None if current is None else current.snapshot_id
                    held = {"type": "assert-ref-snapshot-id", "ref": MAIN_BRANCH, "snapshot-id": expected}
                    transaction._apply((), (AssertRefSnapshotId.model_validate(held),))
                transaction.commit_transaction()
        except ConflictError:
            self.remove(file.file_path for file in written)
            raise

    def remove(self, paths: Iterable[str]) -> None:
        """Delete files that nothing names."""
        with self.errors("removing files of"):
            for path in paths:
                self.table.io.delete(path)


def in_parallel(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    if len(items) < 2:
        return [work(item) for item in items]
    with ThreadPoolExecutor(READERS) as pool:
        return list(pool.map(work, items))


def _arrow_schema(metadata: TableMetadata) -> pa.Schema:
    return schema_to_pyarrow(metadata.schema(), include_field_ids=False)


def _conform(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The columns of `schema`, in its order; missing ones are null."""
    present = set(rows.column_names)
    columns = [
        pc.cast(rows.column(field.name), field.type) if field.name in present else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
