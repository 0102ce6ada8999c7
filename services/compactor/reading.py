"""Iceberg tables as one Arrow dataset, read only as far as a query asks, and a count of what was read.

Arrow leaves out files and row groups that a filter excludes: each file comes with what its manifest entry promises of
its rows. Dead rows are in the files all the same; `Rows.dead` says which they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Any, Final

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.dataset as ds
from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile

from services.compactor.data_files import read_at
from services.compactor.open_table import LiveFile, OpenTable, in_parallel
from services.compactor.parquet import KEY
from services.contracts.errors import AvesaError, RetryableError, UsageError

WHOLE_BYTES_MAX: Final = 256 << 10  # a smaller file is read at once: one request, not one for each piece of it
FILE_NUMBER: Final = "_file"  # of a row: which file it lies in
IDENTITY: Final = (*KEY, "valid_from")  # of a row within a file of versions
BOUNDED: Final = ("record_id", "valid_from", "valid_to", "effective_at")  # columns whose bounds manifests hold
FORMAT: Final = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True))


class Reads(msgspec.Struct, frozen=True):
    """Files opened of those there are, bytes read of all they hold."""

    files: int = 0
    files_there: int = 0
    bytes: int = 0
    bytes_there: int = 0


class Meter:
    """Counts what is read of data files, from whatever thread."""

    def __init__(self) -> None:
        self._lock, self._read, self._there = Lock(), dict[str, int](), dict[str, int]()
        self._failure: RetryableError | None = None

    def expect(self, tables: Sequence[OpenTable]) -> None:
        """Count the files of these tables as there."""
        for table in tables:
            for path, file in table.files.items():
                self._there[path] = file.data.file_size_in_bytes

    def count(self, path: str, length: int) -> None:
        with self._lock:
            self._read[path] = self._read.get(path, 0) + length

    def fail(self, path: str, err: Exception) -> None:
        self._failure = RetryableError(f"{path} cannot be read ({err})", code="unavailable")

    @contextmanager
    def told(self) -> Iterator[None]:
        """A file that cannot be read is that, whatever whoever asked for it makes of it. Errors: RetryableError."""
        try:
            yield
        except (duckdb.Error, AvesaError) as err:
            raise self._failure or err from err

    @property
    def reads(self) -> Reads:
        with self._lock:
            read = [size for path, size in self._read.items() if path in self._there]
            return Reads(len(read), len(self._there), sum(self._read.values()), sum(self._there.values()))


class _LazyFile:
    """A file that is opened when it is first read, and counted: what `pyarrow.PythonFile` asks of a file."""

    closed = False

    def __init__(self, io: FileIO, path: str, size: int, meter: Meter) -> None:
        self._io, self._path, self._size, self._meter = io, path, size, meter
        self._source: InputStream | None = None
        self._whole: bytes | None = None
        self._place = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self._place = (0, self._place, self._size)[whence] + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int = -1) -> bytes:
        try:
            if self._size <= WHOLE_BYTES_MAX:
                return self._read_whole(size)
            if self._source is None:
                self._source = self._io.new_input(self._path).open()
            self._source.seek(self._place)
            data = self._source.read(self._size - self._place if size < 0 else size)
        except OSError as err:
            self._meter.fail(self._path, err)
            raise
        self._place += len(data)
        self._meter.count(self._path, len(data))
        return data

    def _read_whole(self, size: int) -> bytes:
        if self._whole is None:
            with self._io.new_input(self._path).open() as source:
                self._whole = source.read()
            self._meter.count(self._path, len(self._whole))
        end = self._size if size < 0 else self._place + size
        data = self._whole[self._place : end]
        self._place += len(data)
        return data

    def close(self) -> None:
        self.closed = True
        if self._source is not None:
            self._source.close()


def _lazily(io: FileIO, path: str, size: int, meter: Meter) -> pa.PythonFile:
    return pa.PythonFile(_LazyFile(io, path, size, meter), mode="r")


class MeteredIO(FileIO):
    """Reads through `io`, and counts."""

    def __init__(self, io: FileIO, meter: Meter) -> None:
        super().__init__(io.properties)
        self._io, self._meter = io, meter

    def new_input(self, location: str) -> InputFile:
        return _MeteredInput(self._io, self._io.new_input(location), self._meter)

    def new_output(self, location: str) -> OutputFile:
        return self._io.new_output(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        self._io.delete(location)


class _MeteredInput(InputFile):
    def __init__(self, io: FileIO, held: InputFile, meter: Meter) -> None:
        super().__init__(held.location)
        self._io, self._held, self._meter = io, held, meter

    def __len__(self) -> int:
        return len(self._held)

    def exists(self) -> bool:
        return self._held.exists()

    def open(self, seekable: bool = True) -> Any:
        del seekable
        return _lazily(self._io, self.location, len(self._held), self._meter)


class Rows(msgspec.Struct, frozen=True):
    """Every file of some tables as a dataset with FILE_NUMBER besides, and the rows of it that are dead: their
    FILE_NUMBER and IDENTITY. A column that only some tables have is null in the others."""

    files: ds.Dataset
    dead: pa.Table


def rows_of(tables: Sequence[OpenTable], meter: Meter) -> Rows:
    """The rows of tables of one kind. Errors: UsageError where they have a column of different types."""
    _check_types(tables)
    numbered = list(enumerate((table, file) for table in tables for file in table.files.values()))
    fragments = [
        FORMAT.make_fragment(
            _lazily(table.table.io, file.data.file_path, file.data.file_size_in_bytes, meter),
            partition_expression=_promise(table, file, number),
        )
        for number, (table, file) in numbered
    ]
    schema = pa.unify_schemas([table.schema for table in tables]).append(pa.field(FILE_NUMBER, pa.int32()))
    decaying = [(number, table, file) for number, (table, file) in numbered if file.deletes is not None]
    dead = in_parallel(lambda it: _dead_of(it[1], it[2], it[0], meter), decaying)
    return Rows(ds.FileSystemDataset(fragments, schema, FORMAT), pa.concat_tables([_NONE_DEAD, *dead]))


def _check_types(tables: Sequence[OpenTable]) -> None:
    """Tenants whose tables are rebuilt at different times may differ for as long."""
    known: dict[str, tuple[str, OpenTable]] = {}
    for table in tables:
        for name, kind in table.kinds.items():
            first_kind, first = known.setdefault(name, (kind, table))
            if kind != first_kind:
                names = [".".join(one.table.name()) for one in (first, table)]
                raise UsageError(
                    f"column {name} is {first_kind} in {names[0]} and {kind} in {names[1]}",
                    remedy="Ask one tenant with --tenant-id, or rebuild the tables of the others: avesa replay --help.",
                )


def _promise(table: OpenTable, file: LiveFile, number: int) -> ds.Expression:
    """What is true of every row of a file."""
    promise = (ds.field(FILE_NUMBER) == pa.scalar(number, pa.int32())) & (ds.field(table.column) == file.value)
    for name in BOUNDED:
        if name in table.schema.names:
            lower, upper = (pa.scalar(bound, table.schema.field(name).type) for bound in table.bounds(file, name))
            if lower.is_valid and upper.is_valid:
                promise &= (ds.field(name) >= lower) & (ds.field(name) <= upper)
    return promise


def _dead_of(table: OpenTable, file: LiveFile, number: int, meter: Meter) -> pa.Table:
    io = MeteredIO(table.table.io, meter)
    rows = read_at(io, file.data.file_path, table.dead(file), IDENTITY)
    return rows.append_column(FILE_NUMBER, pa.array([number] * rows.num_rows, pa.int32())).cast(_NONE_DEAD.schema)


_NONE_DEAD: Final = pa.schema(
    [*((name, pa.string()) for name in KEY), ("valid_from", pa.timestamp("us", tz="UTC")), (FILE_NUMBER, pa.int32())]
).empty_table()
