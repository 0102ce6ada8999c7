"""DESIGN 2.2 and 2.3 as slow code, each sentence (in quotes) beside the lines that say it.

It shares nothing with what it is held against but the events: it asks of each moment who holds it, and of each pair
who beats whom. Contents are compared by their columns, not by their digests.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from services.contracts.events import CanonicalEvent, Label
from services.contracts.schema import CanonicalTable
from services.contracts.times import UtcTime

Seen = Sequence[CanonicalEvent]
Row = dict[str, Any]
SAYS_NOTHING_ABOUT_NOW = ("new", "late", "superseded", "repeated", "unknown")


# -- 2.2: the fold ----------------------------------------------------------------------------------------------------
def rows(seen: Iterable[CanonicalEvent], tables: Mapping[str, CanonicalTable]) -> list[Row]:
    """Every version row of every entity, in the order of tenant, service, record, family and start."""
    # "For one entity (`tenant_id`, `table`, `service`, `family`, `record_id`) and any set of observations"
    entities: dict[tuple[str, ...], list[CanonicalEvent]] = {}
    for one in seen:
        entities.setdefault((one.tenant_id, one.table, one.service, one.family, one.record_id), []).append(one)
    found = [row for entity, its in entities.items() for row in history(its, tables[entity[1]])]
    return sorted(
        found, key=lambda row: [row[name] for name in ("tenant_id", "service", "record_id", "family", "valid_from")]
    )


def history(seen: Seen, table: CanonicalTable) -> list[Row]:
    """The version rows of one entity, oldest first."""
    # "Ordered by `effective_at`. At the same `effective_at` one survives"
    moments = sorted({one.effective_at for one in seen})
    holder = {moment: survivor(moment, seen) for moment in moments}
    shown = {moment: _tracked(holder[moment], table) for moment in moments}
    if table.scd == 1:
        # "one row per living record, its survivor with the greatest `effective_at` as `valid_from`, no collapse; a
        # delete removes the row"
        last = moments[-1]
        return [] if holder[last].op == "delete" else [_row(last, None, holder[last], holder[last], table)]
    found = []
    for start in moments:
        # "A delete ends the interval and opens none"
        if holder[start].op == "delete":
            continue
        # "Neighbours whose *tracked* columns are equal are one version. It starts at the earliest"
        before = [moment for moment in moments if moment < start]
        if before and shown[max(before)] == shown[start]:
            continue
        # "A version holds on [`valid_from`, `valid_to`); the open one has `valid_to` null"
        others = [moment for moment in moments if moment > start and shown[moment] != shown[start]]
        end = min(others) if others else None
        inside = [moment for moment in moments if start <= moment and (end is None or moment < end)]
        found.append(_row(start, end, holder[start], holder[max(inside)], table))
    return found


def survivor(moment: UtcTime, seen: Seen) -> CanonicalEvent:
    """The one at a moment that no other beats. "Losers are dropped: the order is a maximum." """
    ties = [one for one in seen if one.effective_at == moment]
    return next(one for one in ties if not any(beats(other, one) for other in ties))


def beats(one: CanonicalEvent, other: CanonicalEvent) -> bool:
    if one.op != other.op:  # "a delete beats an upsert;
        return one.op == "delete"
    if one.observed_at != other.observed_at:  # then the later `observed_at`;
        return one.observed_at > other.observed_at
    if one.mapping_version != other.mapping_version:  # then the higher `mapping_version`;
        return one.mapping_version > other.mapping_version
    return one.row_digest > other.row_digest  # then the greater digest of the whole mapped row."


def _row(
    start: UtcTime, end: UtcTime | None, first: CanonicalEvent, last: CanonicalEvent, table: CanonicalTable
) -> Row:
    # "Canonical row = the table's columns + `custom_fields` (JSON text) + ..."
    values = _values(last)
    row: Row = {name: values.get(name) for name in (*table.columns, "custom_fields")}  # "of its last"
    row["tenant_id"] = last.tenant_id
    row["service"] = last.service
    row["family"] = last.family
    row["record_id"] = last.record_id
    row["valid_from"] = start
    row["valid_to"] = end
    row["is_current"] = end is None  # "the open one has `valid_to` null and `is_current` true"
    row["record_hash"] = last.record_hash
    row["observed_at"] = first.observed_at  # "A row shows `observed_at` of its first observation;
    row["mapping_version"] = last.mapping_version  # `mapping_version`, untracked columns,
    row["last_effective_at"] = last.effective_at  # `last_effective_at`,
    row["last_observed_at"] = last.observed_at  # `last_observed_at` of its last."
    return row


# -- 2.3: labels ------------------------------------------------------------------------------------------------------
class Meaning(msgspec.Struct, frozen=True):
    """What an observation means now. `forgettable`: the row before may be forgotten, and then no column is named."""

    label: Label
    previous_from: UtcTime | None = None
    changed: dict[str, tuple[Any, Any]] = {}
    forgettable: bool = False


def meaning(before: Seen, event: CanonicalEvent, table: CanonicalTable) -> Meaning:
    """The label of `event` where `before` is every observation of its entity that came before it."""
    ties = [one for one in before if one.effective_at == event.effective_at]
    if ties:
        held = survivor(event.effective_at, ties)
        if beats(held, event):
            return Meaning("superseded")  # "`superseded` (lost its tie)"
        if not beats(event, held):
            return Meaning("repeated")
    if any(one.effective_at > event.effective_at for one in before):
        return Meaning("late")
    survivors = [survivor(moment, before) for moment in sorted({one.effective_at for one in before})]
    living = [one for one in survivors if one.op == "upsert"]
    label = _label_of_the_newest(survivors, living, event, table)
    if label in SAYS_NOTHING_ABOUT_NOW or not living:
        return Meaning(label)
    # "the previous version's start": with scd 1 each living row is its own ("no collapse")
    start = living[-1].effective_at if table.scd == 1 else history(before, table)[-1]["valid_from"]
    if label not in ("changed", "touched", "restored"):
        return Meaning(label, start)
    # "the changed columns with before and after for `changed`, `touched`, `restored`"; timelines.py remembers "the
    # mapped row of the newest that lives", which is forgotten where a newer one came and lost its tie to a delete
    was, now = _values(living[-1]), _values(event)
    changed = {name: (was.get(name), now.get(name)) for name in {*was, *now} if was.get(name) != now.get(name)}
    lost = any(one.op == "upsert" and one.effective_at > living[-1].effective_at for one in before)
    return Meaning(label, start, changed, forgettable=lost)


def _label_of_the_newest(survivors: Seen, living: Seen, event: CanonicalEvent, table: CanonicalTable) -> Label:
    if event.op == "delete":  # "A delete of something never seen leaves no row but is remembered"
        return "unchanged" if survivors and survivors[-1].op == "delete" else "deleted"
    if not living:
        return "new"
    if survivors[-1].op == "delete":
        return "restored"
    if _values(survivors[-1]) == _values(event):
        return "unchanged"
    # "`touched` (untracked columns only)"
    return "touched" if _tracked(survivors[-1], table) == _tracked(event, table) else "changed"


# -- contents ---------------------------------------------------------------------------------------------------------
def _values(event: CanonicalEvent) -> Row:
    return {} if isinstance(event.row, msgspec.UnsetType) else _decoded(bytes(event.row))


@lru_cache(maxsize=1_024)
def _decoded(row: bytes) -> Row:
    return dict(msgspec.json.decode(row, type=dict[str, Any]))


def _tracked(event: CanonicalEvent, table: CanonicalTable) -> Row | None:
    """The columns whose change makes a version; None for a record that is not there."""
    if event.op == "delete":
        return None
    return {
        name: value for name, value in _values(event).items() if name == "custom_fields" or table.columns[name].tracked
    }
