"""The files of an Iceberg table one by one: rows of a data file but its dead ones, and which of its rows are dead.

Columns are matched by name: a column is never renamed, and one whose type changes gets a new table content with it
(`OpenTable.swap`), so equal names are equal fields. Row groups that cannot hold a record are not read.
"""

import uuid
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import write_file
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import PartitionFieldValue, PartitionKey
from pyiceberg.table import WriteTask
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata

from services.compactor.history import FILE, POSITION

# Reserved field ids: https://iceberg.apache.org/spec/#reserved-field-ids
PATH_ID: Final = 2147483546
POS_ID: Final = 2147483545
DELETES_SCHEMA: Final = pa.schema(
    [
        pa.field("file_path", pa.string(), nullable=False, metadata={"PARQUET:field_id": str(PATH_ID)}),
        pa.field("pos", pa.int64(), nullable=False, metadata={"PARQUET:field_id": str(POS_ID)}),
    ]
)
# Arrow writes no bounds of a row group whose values are longer than 4,096 bytes, and pyiceberg then takes those of the
# other row groups for the file's: such a file is to have none.
BOUNDED_ID_CHARS: Final = 512
NO_POSITIONS: Final = pa.array([], pa.int64())


@contextmanager
def _opened(io: FileIO, path: str) -> Iterator[pq.ParquetFile]:
    with io.new_input(path).open() as source, pq.ParquetFile(source, pre_buffer=True) as held:
        yield held


# -- reading ----------------------------------------------------------------------------------------------------------
def read_positions(io: FileIO, deletes: DataFile) -> pa.Array:
    """The dead rows of the one data file that `deletes` is about, counted from 0."""
    with _opened(io, deletes.file_path) as held:
        return held.read(columns=["pos"]).column("pos").combine_chunks()


def read_living(io: FileIO, path: str, dead: pa.Array) -> pa.Table:
    """The rows of a data file but the dead ones."""
    with _opened(io, path) as held:
        rows = held.read().replace_schema_metadata(None)
    return rows.filter(pc.invert(pc.is_in(pa.arange(0, rows.num_rows), value_set=dead))) if len(dead) else rows


def read_at(io: FileIO, path: str, positions: pa.Array, columns: Sequence[str]) -> pa.Table:
    """Some columns of the rows at these positions."""
    with _opened(io, path) as held:
        starts = [*_starts(held.metadata), held.metadata.num_rows]
        parts = []
        for group in range(held.num_row_groups):
            within = positions.filter(
                pc.and_(pc.greater_equal(positions, starts[group]), pc.less(positions, starts[group + 1]))
            )
            if len(within):
                rows = held.read_row_group(group, columns=list(columns)).select(list(columns))
                parts.append(rows.take(pc.subtract(within, starts[group])))
    return pa.concat_tables(parts).replace_schema_metadata(None)


def find(io: FileIO, path: str, dead: pa.Array, record_ids: pa.Array) -> pa.Table | None:
    """The living rows of these records (sorted, distinct), with FILE and POSITION; None where there are none.

    Reads `record_id` of the row groups that may hold one, then the row groups that do.
    """
    with _opened(io, path) as held:
        starts = _starts(held.metadata)
        groups = [group for group in range(held.num_row_groups) if _may_hold(held.metadata, group, record_ids)]
        hits: dict[int, pa.Array] = {}
        for group in groups:
            ids = held.read_row_group(group, columns=["record_id"]).column("record_id")
            asked = pc.is_in(ids, value_set=record_ids)
            places = pc.add(pc.indices_nonzero(asked).cast(pa.int64()), starts[group])
            living = places.filter(pc.invert(pc.is_in(places, value_set=dead)))
            if len(living):
                hits[group] = living
        if not hits:
            return None
        parts = [held.read_row_group(group).take(pc.subtract(places, starts[group])) for group, places in hits.items()]
    rows = pa.concat_tables(parts).replace_schema_metadata(None)
    rows = rows.append_column(FILE, pa.array([path] * rows.num_rows, pa.string()))
    return rows.append_column(POSITION, pa.concat_arrays(list(hits.values())))


def _starts(metadata: pq.FileMetaData) -> list[int]:
    starts, rows = [], 0
    for group in range(metadata.num_row_groups):
        starts.append(rows)
        rows += metadata.row_group(group).num_rows
    return starts


def _may_hold(metadata: pq.FileMetaData, group: int, record_ids: pa.Array) -> bool:
    """Parquet leaves out bounds of very long values; such a row group may hold anything."""
    held = metadata.row_group(group)
    column = next(place for place in range(held.num_columns) if held.column(place).path_in_schema == "record_id")
    bounds = held.column(column).statistics
    return bounds is None or not bounds.has_min_max or any_between(record_ids, bounds.min, bounds.max)


def any_between(record_ids: pa.Array, first: str, last: str) -> bool:
    """Is any of these (sorted) between two ids, both included?"""
    place = bisect_left(record_ids, first, key=lambda scalar: scalar.as_py())
    return place < len(record_ids) and record_ids[place].as_py() <= last


# -- writing ----------------------------------------------------------------------------------------------------------
def write_rows(
    io: FileIO, metadata: TableMetadata, rows: pa.Table, sizes: Sequence[int], value: Any
) -> Iterator[DataFile]:
    """Data files of `sizes` rows each, one after the other, in the partition `value`."""
    schema, start = metadata.schema(), 0
    longest = pc.max(pc.utf8_length(rows.column("record_id"))).as_py() or 0
    key = _partition(metadata, value)
    tasks = []
    for number, size in enumerate(sizes):
        batches = rows.slice(start, size).combine_chunks().to_batches()
        tasks.append(WriteTask(uuid.uuid4(), number, schema, batches, partition_key=key))
        start += size
    for file in write_file(io, metadata, iter(tasks)):
        if longest > BOUNDED_ID_CHARS:
            for bounds in (file.lower_bounds, file.upper_bounds):
                bounds.pop(schema.find_field("record_id").field_id, None)
        yield file


def _partition(metadata: TableMetadata, value: Any) -> PartitionKey:
    spec = metadata.spec()
    return PartitionKey([PartitionFieldValue(spec.fields[0], value)], spec, metadata.schema())


def write_positions(io: FileIO, metadata: TableMetadata, file: DataFile, dead: pa.Array) -> DataFile:
    """A file that says which rows of `file` are dead. One for each data file: some engines refuse wider ones."""
    locations = load_location_provider(metadata.location, metadata.properties)
    path = locations.new_data_location(f"{uuid.uuid4()}-deletes.parquet", _partition(metadata, file.partition[0]))
    rows = pa.table([pa.array([file.file_path] * len(dead), pa.string()), dead.sort()], schema=DELETES_SCHEMA)
    output = io.new_output(path)
    with output.create() as stream:
        pq.write_table(rows, stream, compression="zstd")
    written = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=path,
        file_format=FileFormat.PARQUET,
        partition=file.partition,
        record_count=len(dead),
        file_size_in_bytes=len(output),
        value_counts={PATH_ID: len(dead), POS_ID: len(dead)},
        null_value_counts={PATH_ID: 0, POS_ID: 0},
        lower_bounds={PATH_ID: file.file_path.encode()},
        upper_bounds={PATH_ID: file.file_path.encode()},
    )
    written.spec_id = metadata.default_spec_id
    return written
