"""Live labels (DESIGN 2.3): what an observation means now, told from what is remembered of its entity.

Advice for live readers, outside the fold: a label never decides what is sent on, may be old, late or lost, and the
lake is right all the same. What is remembered is held to the fold by a property test: `versions(timeline)` has the
(`valid_from`, `valid_to`, `record_hash`) that folding every observation has.
"""

from bisect import bisect_left
from operator import attrgetter
from typing import Any

import msgspec

from services.contracts.events import CanonicalEvent, Change, Label
from services.contracts.fold import Observation, Scd, Version, fold, rank
from services.contracts.times import UtcTime

TIMELINE_MAX = 32  # survivors remembered of one entity, about 200 bytes each
ROW_BYTES_MAX = 256 * 1024  # a larger row is not remembered: its changes are labelled without their columns

_decode_row = msgspec.json.Decoder(dict[str, Any]).decode
_when = attrgetter("effective_at")


class Survivor(Observation[None], frozen=True, gc=False, array_like=True):
    """One observation that won its `effective_at`, without its row."""


class Timeline(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What is remembered of one entity.

    Shape:  `survivors`, oldest first, at most TIMELINE_MAX. `row` is the mapped row of the newest that lives, empty
            where it is not known. `since`: the start of the version that the oldest survivor belongs to, where it is
            earlier than that survivor; None where it is not. `incomplete`: older ones were trimmed or lost.
    """

    survivors: tuple[Survivor, ...]
    row: bytes = b""
    since: UtcTime | None = None
    incomplete: bool = False


class Seen(msgspec.Struct, frozen=True, gc=False):
    """What one observation turned out to be, and what to remember from now on.

    `previous_from`: the start of the version that held before this observation: the one that it closes, extends or,
    after a gap, follows. None for the labels that say nothing about now: new, late, superseded, repeated, unknown.
    `changed`: each differing column before and after; for changed, touched and restored.
    """

    timeline: Timeline
    label: Label
    previous_from: UtcTime | None = None
    changed: dict[str, Change] = {}


def observe(timeline: Timeline | None, event: CanonicalEvent, *, scd: Scd = 2, lost: bool = False) -> Seen:
    """The label of one observation, given what is remembered of its entity (None: nothing).

    Shape:  any order, duplicates welcome. `lost`: memory was lost, so that an entity without a timeline may be old.
    Errors: none.
    """
    survivor = _survivor(event)
    if timeline is None:
        first = Timeline((survivor,), _row(event), None, incomplete=lost)
        return Seen(first, "unknown" if lost else "deleted" if survivor.deleted else "new")
    at = bisect_left(timeline.survivors, survivor.effective_at, key=_when)
    held = timeline.survivors[at] if at < len(timeline.survivors) else None
    if held is not None and held.effective_at == survivor.effective_at:
        if rank(survivor) <= rank(held):
            return Seen(timeline, "repeated" if survivor == held else "superseded")
        kept = (*timeline.survivors[:at], survivor, *timeline.survivors[at + 1 :])
    elif at == 0 and timeline.incomplete:
        return Seen(timeline, "unknown")  # what was trimmed may have known it; it is not remembered either
    else:
        kept = (*timeline.survivors[:at], survivor, *timeline.survivors[at:])
    after = _with(timeline, kept, event)
    if kept[-1] is not survivor:
        return Seen(after, "late")
    return _now(timeline, after, event, survivor, scd)


def versions(timeline: Timeline, scd: Scd = 2) -> tuple[Version[None], ...]:
    """The versions that a timeline tells of, oldest first; all of them, unless it is incomplete."""
    told = fold(timeline.survivors, scd)
    if timeline.since is None or not told or told[0].first is not timeline.survivors[0] or scd == 1:
        return told
    return (msgspec.structs.replace(told[0], valid_from=timeline.since), *told[1:])


def labelled(event: CanonicalEvent, seen: Seen) -> CanonicalEvent:
    """The event as live readers get it."""
    if seen.previous_from is None:
        return msgspec.structs.replace(event, label=seen.label)
    return msgspec.structs.replace(event, label=seen.label, previous_from=seen.previous_from, changed=seen.changed)


def _now(before: Timeline, after: Timeline, event: CanonicalEvent, survivor: Survivor, scd: Scd) -> Seen:
    """The label of the newest observation: it says how the entity stands now."""
    was, lived = before.survivors[-1], _newest_living(before.survivors)
    if lived is None and not survivor.deleted:
        return Seen(after, "unknown" if before.incomplete else "new")
    previous_from = _start(before, scd)
    if survivor.deleted:
        return Seen(after, "unchanged" if was.deleted else "deleted", previous_from)
    if was.deleted:
        return Seen(after, "restored", previous_from, changes(before.row, event.row))
    if survivor.row_digest == was.row_digest:
        return Seen(after, "unchanged", previous_from)
    label: Label = "touched" if survivor.record_hash == was.record_hash else "changed"
    return Seen(after, label, previous_from, changes(before.row, event.row))


def _start(timeline: Timeline, scd: Scd) -> UtcTime | None:
    """Where the newest version began."""
    if scd == 1:
        lived = _newest_living(timeline.survivors)
        return None if lived is None else lived.effective_at
    told = versions(timeline)
    return told[-1].valid_from if told else None


def changes(before: bytes, after: msgspec.Raw | msgspec.UnsetType) -> dict[str, Change]:
    """The columns in which two rows differ; none where one of the rows is not known."""
    if not before or isinstance(after, msgspec.UnsetType) or len(bytes(after)) > ROW_BYTES_MAX:
        return {}
    old, new = _decode_row(before), _decode_row(after)
    return {
        name: Change(_json(old.get(name)), _json(new.get(name)))
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    }


def _json(value: Any) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _with(timeline: Timeline, survivors: tuple[Survivor, ...], event: CanonicalEvent) -> Timeline:
    """`timeline` with its survivors replaced, trimmed to TIMELINE_MAX, and the row of the newest that lives."""
    row = timeline.row
    newest = _newest_living(survivors)
    if newest is not _newest_living(timeline.survivors):
        row = _row(event) if newest is not None and newest.effective_at == event.effective_at else b""
    since, incomplete = timeline.since, timeline.incomplete
    if since is not None and not _one_run(survivors[0], timeline.survivors[0]):
        since = None  # the oldest lost its tie to one of another content
    while len(survivors) > TIMELINE_MAX:
        oldest, survivors, incomplete = survivors[0], survivors[1:], True
        since = (since or oldest.effective_at) if _one_run(oldest, survivors[0]) else None
    return Timeline(survivors, row, since, incomplete)


def _one_run(one: Survivor, other: Survivor) -> bool:
    return (one.deleted, one.record_hash) == (other.deleted, other.record_hash)


def _newest_living(survivors: tuple[Survivor, ...]) -> Survivor | None:
    return next((survivor for survivor in reversed(survivors) if not survivor.deleted), None)


def _row(event: CanonicalEvent) -> bytes:
    row = b"" if isinstance(event.row, msgspec.UnsetType) else bytes(event.row)
    return row if len(row) <= ROW_BYTES_MAX else b""


def _survivor(event: CanonicalEvent) -> Survivor:
    return Survivor(
        event.effective_at,
        event.observed_at,
        event.op == "delete",
        event.mapping_version,
        event.record_hash,
        event.row_digest,
        None,
    )
