"""What hangs from another endpoint's records: below which of them a pass reads, and from where on. Pure.

Where the vendor changes a parent whenever what hangs from it changes (`Parent.when_changed`), a pass reads below those
parents alone whose entry is not the one they were last read below with; once more a lag later, for what became visible
late; and below all of them now and then.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from services.contracts.integration import Parent
from services.contracts.reading import DeltaToken, SinceId, SinceTime
from services.contracts.times import UtcTime, shifted
from services.extractor.marks import NOWHERE, Increment, Pass, PassKind, Reached, Walk, after_id, gone_on
from services.extractor.memory import Below, Entry

STATE_BYTES = 8


class Upper(msgspec.Struct, frozen=True):
    """A parent to read below: `values` for the child's templates, `key` to know it by, `state` to see that it changed,
    `changed_at` when it last did, or was found to ("": nobody asks).

    Shape: `key` is the value of `Parent.path`, with `Parent.values` a JSON array of it and them.
    """

    key: str
    values: dict[str, str]
    state: bytes = b""
    changed_at: UtcTime = ""


class Begin(msgspec.Struct, frozen=True):
    """Where reading one list begins; with nothing: at its beginning, everything."""

    since: UtcTime | None = None
    token: str | None = None
    after: str | None = None

    @property
    def whole(self) -> bool:
        return self.since is None and self.token is None and self.after is None


def uppers(
    items: Iterable[tuple[str, Entry]],
    parent: Parent,
    part: int | None,
    inherits: Sequence[tuple[str, int]],
    dispensable: frozenset[str] = frozenset(),
) -> dict[str, Upper]:
    """The parents that are there, by key, in its order.

    Shape:  `part` is which part of a composite id the value is, None where it is all of it; `inherits` are further
            values by name and by place in an entry's links. Parents that give the same values are one; one that lacks
            a value that is not `dispensable`, or was remembered before anybody asked for it, gives none.
    """
    found: dict[str, Upper] = {}
    links_min = max((place + 1 for _, place in inherits), default=0)
    for record_id, entry in items:
        if entry.deleted or len(entry.links) < links_min:
            continue
        own = record_id if part is None else msgspec.json.decode(record_id, type=list[str])[part]
        values = {parent.name: own, **{name: entry.links[place] for name, place in inherits}}
        if not all(value or name in dispensable for name, value in values.items()):
            continue
        key = msgspec.json.encode(list(values.values())).decode() if inherits else own
        known = found.get(key)
        state, changed_at = b"", ""
        if parent.when_changed:
            state = _state(entry, known.state if known is not None else b"")
            changed_at = max(entry.effective_at, known.changed_at if known is not None else "")
        found[key] = Upper(key, values, state, changed_at)
    return {key: found[key] for key in sorted(found)}


def included(parent: Parent | None, values: Mapping[str, str] | None) -> bytes:
    """What the records read below a parent take along of it: a JSON object, b"" where they take nothing. `values` are
    `Upper.values`; None where a list below no parent is read."""
    if parent is None or values is None or not parent.include:
        return b""
    return msgspec.json.encode({name: values[name] or None for name in parent.include})


def _state(entry: Entry, others: bytes) -> bytes:
    told = others + entry.digest + entry.effective_at.encode()
    return hashlib.blake2b(told, digest_size=STATE_BYTES).digest()


def lag_s(increments: Iterable[Increment | None], tick_s: float) -> float:
    """Seconds after which neither the child nor its parent shows anything late: a tick at least, for until then the
    parent may change again under the same stamp."""
    return max((one.lag_s for one in increments if isinstance(one, SinceTime | SinceId)), default=0.0) + tick_s


def all_due(parent: Parent, below_all_at: UtcTime | None, now: UtcTime) -> bool:
    """Is it time to read below all parents, changed or not?"""
    return below_all_at is None or now >= shifted(below_all_at, seconds=parent.all_every_s)


def due(upper: Upper, below: Below | None, planned: Pass | Walk, now: UtcTime, lag_s: float) -> bool:
    """Is this parent to be read below, where only changed ones are?"""
    if below is None or planned.all_below or planned.kind == "full" or below.parent != upper.state:
        return True
    if below.since is None or below.read_at is None:
        return False  # there was nothing below it
    settled_at = shifted(below.since, seconds=lag_s)
    return below.read_at < settled_at <= now


def begin(
    planned: Pass | Walk,
    below: Below | None,
    parent: Parent,
    incremental: Increment | None,
    *,
    tick_s: float,
    lag_s: float,
) -> Begin:
    """Where reading below one parent begins. A parent that is new is read from the start."""
    if below is None or planned.kind == "full":
        return Begin()
    match incremental:
        case SinceTime() if parent.when_changed:
            # Passes that left it out moved the mark: what counts is when it was read below last.
            behind_s = lag_s + incremental.overlap_s + tick_s
            since = shifted(below.read_at, seconds=-behind_s) if below.read_at else None
            return Begin(since=since and planned.since and min(since, planned.since))
        case SinceTime():
            return Begin(since=planned.since)
        case DeltaToken():
            return Begin(token=below.reached.token)
        case SinceId():
            return Begin(after=after_id(below.reached.seen_ids, _kind(planned, parent)))
    return Begin()


def _kind(planned: Pass | Walk, parent: Parent) -> PassKind:
    """A parent that is read below when it changed has no settle passes in between."""
    return "settle" if parent.when_changed and planned.kind == "live" else planned.kind


def read_below(
    upper: Upper,
    before: Below | None,
    planned: Pass | Walk,
    parent: Parent,
    walked: Reached,
    began_at: UtcTime,
    incremental: Increment | None,
) -> Below:
    """What is to be remembered once everything below a parent is published."""
    known = before.reached if before is not None else NOWHERE
    reached = gone_on(known, walked, _kind(planned, parent), began_at, incremental)
    if not parent.when_changed:
        return Below(reached=reached)
    since = before.since if before is not None and before.parent == upper.state else None
    # What changed long before it was read below has settled, and is not read once more.
    return Below(upper.state, since or min(began_at, upper.changed_at or began_at), began_at, reached)
