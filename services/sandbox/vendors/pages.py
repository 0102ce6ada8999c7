"""Pages of every kind, cut from rows in order. Pure."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from services.sandbox.vendors.store import Row, value_at


class Cut(msgspec.Struct, frozen=True):
    """One page: its rows, where it begins among `total`, and whether more follow."""

    rows: list[Row]
    start: int
    total: int
    more: bool

    @property
    def end(self) -> int:
        """Where the next page begins."""
        return self.start + len(self.rows)


def by_offset(rows: Sequence[Row], start: int, size: int) -> Cut:
    """Rows from `start` on (0: the first)."""
    page = list(rows[start : start + size])
    return Cut(page, start, len(rows), start + len(page) < len(rows))


def by_number(rows: Sequence[Row], page: int, size: int, first: int = 1) -> Cut:
    """The page of that number, counted from `first`."""
    return by_offset(rows, max(0, page - first) * size, size)


def by_key(rows: Sequence[Row], key: Callable[[Row], Any], after: Any, size: int) -> Cut:
    """Rows, sorted by `key`, whose key is greater than `after` (None: from the first)."""
    left = sorted((row for row in rows if after is None or key(row) > after), key=key)
    return by_offset(left, 0, size)


def pages_of(cut: Cut, size: int) -> int:
    """How many pages there are in all."""
    return -(-cut.total // size)


def sealed(value: Any) -> str:
    """An opaque cursor around plain values."""
    return base64.urlsafe_b64encode(msgspec.json.encode(value)).decode().rstrip("=")


def unsealed(cursor: str) -> Any:
    """What `sealed` was given, None for anything else."""
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, msgspec.DecodeError, ValueError):
        return None


def sorted_by(rows: Sequence[Row], *paths: str, descending: bool = False) -> list[Row]:
    """Rows in the order of what stands at paths; null comes first, equal ones stay in order of creation."""

    def key(row: Row) -> tuple[tuple[int, Any], ...]:
        return tuple(_ordered(value_at(row.content, path)) for path in paths)

    return sorted(rows, key=key, reverse=descending)


def _ordered(value: Any) -> tuple[int, Any]:
    """Values of different kinds do not compare: null, then flags and numbers, then text."""
    if value is None:
        return (0, 0)
    return (1, value) if isinstance(value, int | float) else (2, str(value))
