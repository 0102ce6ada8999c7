"""Rows on local disk, by key: written a bit at a time, read back in parts of bounded size. A cache, gone with its
folder.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

READ_ROWS = 8_192


class Shelf:
    """One Parquet file for each key; first everything is put, then everything is read. Methods block.

    Errors: OSError when the disk is full.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._counts: dict[str, int] = {}

    @property
    def counts(self) -> dict[str, int]:
        """How many rows there are, by key."""
        return dict(self._counts)

    def put(self, key: str, rows: pa.Table) -> None:
        if rows.num_rows:
            if key not in self._writers:
                self._writers[key] = pq.ParquetWriter(self._path(key), rows.schema, compression="zstd")
            self._writers[key].write_table(rows)
            self._counts[key] = self._counts.get(key, 0) + rows.num_rows

    def close(self) -> None:
        """Nothing more will be put."""
        for writer in self._writers.values():
            writer.close()

    def parts(self, key: str, bytes_max: int) -> Iterator[pa.Table]:
        """The rows of a key, in the order they came, in parts of about so many bytes in memory."""
        part: list[pa.RecordBatch] = []
        size = 0
        for batch in self._batches(key):
            part.append(batch)
            size += batch.nbytes
            if size >= bytes_max:
                yield pa.Table.from_batches(part)
                part, size = [], 0
        if part:
            yield pa.Table.from_batches(part)

    def drop(self, key: str) -> None:
        self._path(key).unlink(missing_ok=True)

    def _batches(self, key: str) -> Iterator[pa.RecordBatch]:
        if key in self._counts:
            with pq.ParquetFile(self._path(key)) as held:
                yield from held.iter_batches(READ_ROWS)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.parquet"
