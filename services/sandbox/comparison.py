"""Two histories side by side: what the source served and what the lake holds, every difference counted and named."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from services.contracts.rows import Entity
from services.contracts.times import UtcTime

EXAMPLES_MAX = 5  # differences told in full; the rest are counted


class Bounds(msgspec.Struct, frozen=True, gc=False):
    """When something began, both ends included; equal where it is known exactly."""

    earliest: UtcTime
    latest: UtcTime

    def hold(self, time: UtcTime) -> bool:
        return self.earliest <= time <= self.latest


class Expected(msgspec.Struct, frozen=True):
    """One version as it must be: when it holds and what its columns say. `valid_to` None: it is current."""

    valid_from: Bounds
    valid_to: Bounds | None
    record_hash: str
    values: Mapping[str, Any]


History = tuple[Expected, ...]


class Verdict(msgspec.Struct):
    """What a comparison found, for one tenant's table."""

    tenant_id: str
    table: str
    current: int = 0
    versions: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    examples: list[str] = []

    @property
    def holds(self) -> bool:
        return not (self.lost or self.doubled or self.wrong)

    def tell(self, kind: Literal["lost", "doubled", "wrong"], what: str) -> None:
        """Count one difference, and keep the first few in words."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < EXAMPLES_MAX:
            self.examples.append(f"{kind}: {what}")


def compare(
    tenant_id: str,
    table: str,
    expected: Mapping[Entity, Sequence[History]],
    rows: Iterable[Mapping[str, Any]],
    columns: Sequence[str],
) -> Verdict:
    """Every entity of one tenant's table against the lake's version rows (JSON values).

    Shape:  `expected` holds for each entity the histories that would all be right (more than one where it cannot be
            known which answer reached us); `columns` are compared value by value.
    """
    verdict = Verdict(tenant_id, table)
    found: dict[Entity, list[Mapping[str, Any]]] = {}
    for row in rows:
        entity = Entity(row["tenant_id"], table, row["service"], row["family"], row["record_id"])
        found.setdefault(entity, []).append(row)
        verdict.versions += 1
        verdict.current += bool(row["is_current"])
    for entity in sorted({*expected, *found}):
        held = sorted(found.get(entity, ()), key=lambda row: str(row["valid_from"]))
        histories = expected.get(entity) or [()]
        if not any(_equal(history, held, columns) for history in histories):
            _explain(verdict, entity, histories[0], held, columns)
    return verdict


def _equal(history: History, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> bool:
    return len(history) == len(rows) and not any(
        _difference(version, row, columns) for version, row in zip(history, rows, strict=True)
    )


def _difference(version: Expected, row: Mapping[str, Any], columns: Sequence[str]) -> str:
    """What is wrong with a row, or nothing."""
    if row["record_hash"] != version.record_hash:
        return f"record_hash {row['record_hash']}, expected {version.record_hash}"
    if not version.valid_from.hold(row["valid_from"]):
        return f"valid_from {row['valid_from']}, expected {version.valid_from.earliest}..{version.valid_from.latest}"
    if version.valid_to is None:
        if row["valid_to"] is not None or not row["is_current"]:
            return f"closed at {row['valid_to']}, expected to be current"
    elif row["valid_to"] is None or row["is_current"] or not version.valid_to.hold(row["valid_to"]):
        return f"valid_to {row['valid_to']}, expected {version.valid_to.earliest}..{version.valid_to.latest}"
    for column in columns:
        if row[column] != version.values.get(column):
            return f"{column} {row[column]!r}, expected {version.values.get(column)!r}"
    return ""


def _explain(
    verdict: Verdict, entity: Entity, history: History, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]
) -> None:
    """Count what differs: expected versions without a row, rows without a version, and pairs that disagree."""
    who = f"{entity.service} {entity.family} {entity.record_id}"
    versions, left = list(history), list(rows)
    for version in history:  # what matches fully is out of the way first
        match = next((row for row in left if not _difference(version, row, columns)), None)
        if match is not None:
            versions.remove(version)
            left.remove(match)
    while versions and left:
        verdict.tell("wrong", f"{who}: {_difference(versions.pop(0), left.pop(0), columns)}")
    for version in versions:
        verdict.tell("lost", f"{who}: no row for the version from {version.valid_from.earliest}")
    for row in left:
        verdict.tell("doubled", f"{who}: a row from {row['valid_from']} that nothing explains")
