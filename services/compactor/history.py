"""What a merge needs of the two tables of a history, and says to them."""

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

import msgspec
import pyarrow as pa

# Where a row that was read lies: columns besides those of its table.
FILE: Final = "_file"
POSITION: Final = "_position"


class Watermark(msgspec.Struct, frozen=True):
    """Up to which cut each bucket (`{service}/{bucket}`) of one life of the stream is merged. Numbers of another
    stream say nothing here: a tenant may move to streams of its own, or a stream be made anew."""

    stream: str
    cuts: Mapping[str, int]

    def covers(self, stream: str, buckets: Iterable[str], cut: int) -> bool:
        return stream == self.stream and all(self.cuts.get(bucket, -1) >= cut for bucket in buckets)

    def raised(self, other: "Watermark") -> "Watermark":
        """This one, and what `other` adds; of another stream only what `other` says."""
        if other.stream != self.stream:
            return other
        return Watermark(
            self.stream,
            {
                bucket: max(self.cuts.get(bucket, -1), other.cuts.get(bucket, -1))
                for bucket in sorted({*self.cuts, *other.cuts})
            },
        )


class HistoryTables(Protocol):
    """A version table and its timeline, as one merge sees them: opened anew for each.

    Shape:  rows are Arrow tables: of the version table, with FILE and POSITION besides, or of TIMELINE_COLUMNS.
            Asked for record ids they hold every row of these, of whatever service and family.
    Errors: RetryableError, FatalError.
    """

    @property
    def watermark(self) -> Watermark: ...

    @property
    def kinds(self) -> Mapping[str, str]:
        """The columns of the version table as it lies and their kinds; some may be of other mappings than ours."""
        ...

    @property
    def floors(self) -> Mapping[str, int]:
        """By service the mapping that the table was last rebuilt with: an older one no longer makes rows here."""
        ...

    @property
    def is_rebuilding(self) -> bool:
        """Was a rebuild begun that has not been swapped in?"""
        ...

    def open_rows(self, record_ids: pa.Array) -> pa.Table: ...

    def closed_rows(self, record_ids: pa.Array) -> pa.Table: ...

    def remembered(self, record_ids: pa.Array, *, deletes_only: bool) -> pa.Table: ...

    def remember(self, entries: pa.Table) -> None:
        """Add to the timeline. Errors: ConflictError when somebody else did since it was read."""
        ...

    def commit(self, removed: pa.Table, added: pa.Table, watermark: Watermark) -> None:
        """Replace rows that were read, in one snapshot together with the watermark.

        Errors: ConflictError when the table is not the one that was read; then nothing changed.
        """
        ...
