"""Commits to one row by its one owner, each exactly once and in order.

A fence keeps others out, but not the owner's own past: a write whose answer was lost may still be on its way, and take
effect after a later one. So each commit of an owner carries a number and is conditional on the one before it; and one
whose fate is unknown is repeated, unchanged, before anything else is committed.
"""

from collections.abc import Mapping
from typing import Final

from services.contracts.errors import ConflictError
from services.contracts.ports import Key, Row, Rows, Value
from services.runtime.attributes import from_attribute, to_attribute

NUMBER: Final = "commits"


class Commits:
    """What an owner commits to one row from `number` on. One at a time: the caller sees to that."""

    def __init__(self, rows: Rows, table: str, key: Key, number: int) -> None:
        self._rows, self._table, self._key = rows, table, key
        self.number = number
        self._unsure: tuple[Mapping[str, Value], Mapping[str, Value]] | None = None

    async def commit(self, values: Mapping[str, Value], fence: Mapping[str, Value]) -> None:
        """Write `values` if `fence` holds and the row has seen our last commit and none since.

        Errors: ConflictError where that is not so; RetryableError: it may have been applied, or may yet be.
        """
        await self.settle()
        self._unsure = values, fence
        await self.settle()

    async def settle(self) -> None:
        """The commit whose fate is unknown, if there is one, is applied. Errors: as `commit`."""
        if self._unsure is None:
            return
        values, fence = self._unsure
        news = {**values, NUMBER: self.number + 1}
        try:
            await self._rows.write(self._table, self._key, news, expect={**fence, NUMBER: self.number or None})
        except ConflictError:
            row = await self._rows.get(self._table, self._key)
            if row is None or not _holds(row, {**fence, **news}):
                self._unsure = None
                raise
        self.number, self._unsure = self.number + 1, None


def number_of(row: Row) -> int:
    """How many commits a row has seen."""
    return int(row.get(NUMBER) or 0)


def _holds(row: Row, values: Mapping[str, Value]) -> bool:
    return all(
        row.get(name) == (None if value is None else from_attribute(to_attribute(value)))
        for name, value in values.items()
    )
