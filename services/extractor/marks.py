"""How far an endpoint has been read: two marks, and what each pass may move. Pure (DESIGN 4, "No loss").

`fresh` is the start of the last pass: a live poll reads from a little before it and publishes at once. A vendor may
show a change only some time after its stamp, so once per `lag_s` a settle pass reads from `settled` on: everything
stamped before (its start - lag) is visible by then, and only that moves `settled`. First contact is a full walk.
All times are on the vendor's clock, or earlier.
"""

from typing import Literal

import msgspec

from services.contracts.integration import Incremental
from services.contracts.times import UtcTime, shifted
from services.extractor.pagination import Place

PassKind = Literal["full", "live", "settle"]


class Pass(msgspec.Struct, frozen=True):
    """What to read next: everything, or what changed `since`. `reread`: all of it is published again, as was asked
    then."""

    kind: PassKind
    since: UtcTime | None = None
    reread: UtcTime | None = None


class Walk(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pass under way, so that a restart goes on with it: `place` in the pages, or the last parent read to its end."""

    kind: PassKind
    started_at: UtcTime
    since: UtcTime | None = None
    place: Place = Place()
    parent: str | None = None
    reread: UtcTime | None = None


class Marks(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far an endpoint has been read; `shape` is the list it holds for (`plan.Spec.shape`). Everything was published
    again after it was asked for at `reread`. `lost`: the memory is, and what it knew is not built up again yet."""

    fresh: UtcTime | None = None
    settled: UtcTime | None = None
    swept_at: UtcTime | None = None
    walk: Walk | None = None
    shape: str = ""
    reread: UtcTime | None = None
    lost: bool = False


def fitting(marks: Marks, shape: str) -> Marks:
    """The marks, if they were made for this list; else new ones: everything is read again, nothing is forgotten."""
    return marks if marks.shape == shape else Marks(shape=shape)


def settle_due(marks: Marks, incremental: Incremental, now: UtcTime) -> bool:
    """Once per lag: has everything for another lag come to rest?"""
    return marks.settled is None or now >= shifted(marks.settled, seconds=2 * incremental.lag_s)


def next_pass(
    marks: Marks, incremental: Incremental | None, now: UtcTime, tick_s: float, *, settle: bool = False
) -> Pass:
    """What is to be read now. `settle` asks for a settle pass whether it is due or not."""
    if incremental is None or marks.fresh is None or marks.settled is None:
        return Pass("full")
    # One tick more, so that a vendor that compares with `>` shows the mark's own tick too.
    live = shifted(marks.fresh, seconds=-incremental.overlap_s - tick_s)
    if not settle and not settle_due(marks, incremental, now):
        return Pass("live", live)
    return Pass("settle", min(live, shifted(marks.settled, seconds=-tick_s)))


def finished(marks: Marks, kind: PassKind, started_at: UtcTime, incremental: Incremental | None) -> Marks:
    """The marks after a pass whose every record is published."""
    settled_to = shifted(started_at, seconds=-(incremental.lag_s if incremental is not None else 0.0))
    settled = settled_to
    if kind == "live" and marks.settled is not None:
        # Only back, and only when the vendor's clock went back: what it stamps now must not lie behind the mark.
        went_back = marks.fresh is not None and started_at < marks.fresh
        settled = min(marks.settled, settled_to) if went_back else marks.settled
    swept_at = marks.swept_at
    if kind == "full" and swept_at is None:
        swept_at = started_at  # whoever has just read everything has nothing to look for
    return Marks(started_at, settled, swept_at, None, marks.shape, marks.reread)
