"""The memory of what was answered: every record of every answer, with the version served and when it was asked for."""

from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Literal, TypeAlias

import msgspec

ServedKind: TypeAlias = Literal["full", "ids", "part", "missing"]


class Served(msgspec.Struct, frozen=True, gc=False):
    """One record in one answer.

    `kind`: `full` the whole record; `ids` only its id (`fields=id`); `part` another projection; `missing` a 404 for
    this id, with version 0. `path` is the endpoint (`service/boards/{id}/statuses` for one below a record).
    `arrived_at` is the arrival of the request, UTC, microseconds; the record was read at that moment.
    """

    path: str
    record_id: int
    version: int
    arrived_at: datetime
    kind: ServedKind


class _Answer(msgspec.Struct, frozen=True, gc=False):
    path: str
    kind: ServedKind
    arrived_at: datetime
    ids: "array[int]"
    versions: "array[int]"


class ServedLog:
    """One row per answer inside, one per record outside: 16 bytes a record."""

    __slots__ = ("_answers", "rows_count")

    def __init__(self) -> None:
        self._answers: list[_Answer] = []
        self.rows_count = 0

    def add(
        self, path: str, kind: ServedKind, arrived_at: datetime, ids: Sequence[int], versions: Sequence[int]
    ) -> None:
        """Remembers one answer. Ids and versions go in pairs."""
        if ids:
            self._answers.append(_Answer(path, kind, arrived_at, array("q", ids), array("q", versions)))
            self.rows_count += len(ids)

    def rows(self) -> Iterator[Served]:
        """Every record served until the first row is taken, in the order of the answers."""
        for answer in self._answers[: len(self._answers)]:
            for record_id, version in zip(answer.ids, answer.versions, strict=True):
                yield Served(answer.path, record_id, version, answer.arrived_at, answer.kind)
