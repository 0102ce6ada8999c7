"""One record's rows of a version table and its timeline, as steps that a person can follow. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from services.contracts.schema import CUSTOM_FIELDS, ROW_COLUMNS, CanonicalTable
from services.contracts.times import UtcTime

Event = Literal["first seen", "changed", "restored", "deleted"]
Row = Mapping[str, Any]


class Difference(msgspec.Struct, frozen=True):
    """What a column held before and what it holds now, as JSON values."""

    before: Any
    after: Any


class Step(msgspec.Struct, frozen=True):
    """What became of the record at one moment; it held, or was gone, [`at`, `until`), without `until` still does.

    `observed_at` is when we saw it first, None where no table tells. `row` is the version, None for a deletion.
    `changed` compares with the version before, also over a gap; a custom field is a column of its own there.
    """

    event: Event
    at: UtcTime
    until: UtcTime | None
    observed_at: UtcTime | None
    changed: dict[str, Difference] = {}
    row: dict[str, Any] | None = None


class Entity(msgspec.Struct, frozen=True):
    """One record of one tenant's service, its steps in order of time, at least one."""

    tenant_id: str
    table: str
    service: str
    family: str
    record_id: str
    steps: tuple[Step, ...]

    @property
    def named(self) -> dict[str, str]:
        return {name: getattr(self, name) for name in self.__struct_fields__ if name != "steps"}

    @property
    def title(self) -> str:
        """`tickets 4711 of acme-msp, connectwise`, with the family where the table's name does not tell it."""
        family = "" if self.family == self.table else f" ({self.family})"
        return f"{self.table} {self.record_id} of {self.tenant_id}, {self.service}{family}"

    @property
    def deleted(self) -> bool:
        return self.steps[-1].row is None


def histories(table: CanonicalTable, record_id: str, rows: Iterable[Row], timeline: Iterable[Row]) -> list[Entity]:
    """What the version table and the timeline table hold of one record id, record by record.

    Shape: the same id may be a record of several tenants, services and families.
    """
    versions: dict[tuple[str, str, str], list[Row]] = {}
    deletes: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        versions.setdefault(_owner(row), []).append(row)
    for row in timeline:
        if row["op"] == "delete":
            deletes.setdefault(_owner(row), []).append(row)
    return [
        Entity(owner[0], table.table, owner[1], owner[2], record_id, tuple(steps))
        for owner in sorted({*versions, *deletes})
        if (steps := list(_steps(table, versions.get(owner, ()), deletes.get(owner, ()))))
    ]


def as_of(steps: Sequence[Step], at: UtcTime) -> Step | None:
    """The step that held at a time, None before the first."""
    return next((step for step in steps if step.at <= at and (step.until is None or at < step.until)), None)


def differences(table: CanonicalTable, before: Row, after: Row) -> dict[str, Difference]:
    """The business columns that differ, in the table's order, then those that only the rows have."""
    columns = [*table.all_columns(), *(name for name in after if name not in table.all_columns())]
    found: dict[str, Difference] = {}
    for name in columns:
        old, new = before.get(name), after.get(name)
        if name in ROW_COLUMNS or old == new:
            continue
        if name == CUSTOM_FIELDS:
            found |= _custom_differences(old, new)
        else:
            found[name] = Difference(old, new)
    return found


def _owner(row: Row) -> tuple[str, str, str]:
    return (row["tenant_id"], row["service"], row["family"])


def _steps(table: CanonicalTable, rows: Sequence[Row], deletes: Sequence[Row]) -> Iterator[Step]:
    versions = sorted(rows, key=lambda row: str(row["valid_from"]))
    seen_gone = {row["effective_at"]: row["observed_at"] for row in deletes}
    if not versions:
        yield from _never_alive(seen_gone)
    before: Row | None = None
    for place, row in enumerate(versions):
        starts: UtcTime = row["valid_from"]
        ends: UtcTime | None = row["valid_to"]
        changed = {} if before is None else differences(table, before, row)
        yield Step(_event(before, row), starts, ends, row["observed_at"], changed, dict(row))
        following = versions[place + 1]["valid_from"] if place + 1 < len(versions) else None
        if ends is not None and ends != following:
            yield Step("deleted", ends, following, seen_gone.get(ends))
        before = row


def _event(before: Row | None, row: Row) -> Event:
    if before is None:
        return "first seen"
    return "changed" if before["valid_to"] == row["valid_from"] else "restored"


def _never_alive(seen_gone: Mapping[UtcTime, UtcTime]) -> Iterator[Step]:
    """No version is left: of a table that keeps none, or of a record whose deletion is all that was ever seen."""
    if seen_gone:
        last = max(seen_gone)
        yield Step("deleted", last, None, seen_gone[last])


def _custom_differences(old: str | None, new: str | None) -> dict[str, Difference]:
    before, after = _fields(old), _fields(new)
    if before is None or after is None:
        return {CUSTOM_FIELDS: Difference(old, new)}
    names = [*before, *(name for name in after if name not in before)]
    return {
        f"{CUSTOM_FIELDS}.{name}": Difference(before.get(name), after.get(name))
        for name in names
        if before.get(name) != after.get(name)
    }


def _fields(text: str | None) -> dict[str, Any] | None:
    """The custom fields by name; None where the text is no object."""
    if text is None:
        return {}
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.DecodeError:
        return None
