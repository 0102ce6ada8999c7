"""How far an endpoint has been read, and what each pass may move. Pure (DESIGN 4, "No loss").

By time: `fresh` is the start of the last pass: a live poll reads from a little before it and publishes at once. A
vendor may show a change only some time after its stamp, so once per `lag_s` a settle pass reads from `settled` on:
everything stamped before (its start - lag) is visible by then, and only that moves `settled`. First contact is a full
walk. All times are on the vendor's clock, or earlier.

By id it is the same: a live poll goes on after the highest id seen, a settle pass after the settled one, and moves that
to the highest id that was seen a lag before it began. By delta token the vendor keeps the mark: the token of a pass
that was published to its end begins the next.
"""

from collections.abc import Sequence
from typing import Final, Literal

import msgspec
from msgspec.structs import replace

from services.contracts.reading import DeltaToken, SinceId, SinceTime
from services.contracts.times import UtcTime, shifted
from services.extractor.pagination import Place, Turn

PassKind = Literal["full", "live", "settle"]
Increment = SinceTime | DeltaToken | SinceId

SEEN_PER_LAG: Final = 8  # how many of the ids seen within a lag are remembered
LONG_AGO: Final[UtcTime] = "1970-01-01T00:00:00.000000Z"


class SeenId(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The highest id that what was visible `at` some time had; empty: none."""

    id: str
    at: UtcTime


class Reached(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Where a list was read to: by the vendor's token, or by its ids, the settled one and then later ones in order of
    time."""

    token: str | None = None
    seen_ids: tuple[SeenId, ...] = ()


NOWHERE: Final = Reached()


class Pass(msgspec.Struct, frozen=True):
    """What to read next: everything, or what changed `since`, or since `token` was given, or what comes `after` an id.

    `reread`: all of it is published again, as was asked then. `all_below`: below every parent, changed or not.
    """

    kind: PassKind
    since: UtcTime | None = None
    reread: UtcTime | None = None
    token: str | None = None
    after: str | None = None
    all_below: bool = False


class Walk(msgspec.Struct, frozen=True, omit_defaults=True):
    """A pass under way, so that a restart goes on with it: `place` in the pages, or the last parent read to its end."""

    kind: PassKind
    started_at: UtcTime
    since: UtcTime | None = None
    place: Place = Place()
    parent: str | None = None
    reread: UtcTime | None = None
    token: str | None = None
    after: str | None = None
    all_below: bool = False


class Marks(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far an endpoint has been read; `shape` is the list it holds for (`plan.Spec.shape`). Everything was published
    again after it was asked for at `reread`. `lost`: the memory is, and what it knew is not built up again yet.
    `below_all_at`: when a pass last began that read below every parent."""

    fresh: UtcTime | None = None
    settled: UtcTime | None = None
    swept_at: UtcTime | None = None
    walk: Walk | None = None
    shape: str = ""
    reread: UtcTime | None = None
    lost: bool = False
    token: str | None = None
    seen_ids: tuple[SeenId, ...] = ()
    below_all_at: UtcTime | None = None

    @property
    def reached(self) -> Reached:
        return Reached(self.token, self.seen_ids)


def fitting(marks: Marks, shape: str) -> Marks:
    """The marks, if they were made for this list; else new ones: everything is read again, nothing is forgotten."""
    return marks if marks.shape == shape else Marks(shape=shape)


def settle_due(marks: Marks, incremental: SinceTime | SinceId, now: UtcTime) -> bool:
    """Once per lag: has everything for another lag come to rest?"""
    return marks.settled is None or now >= shifted(marks.settled, seconds=2 * incremental.lag_s)


def next_pass(
    marks: Marks,
    incremental: Increment | None,
    now: UtcTime,
    tick_s: float,
    *,
    settle: bool = False,
    below: bool = False,
) -> Pass:
    """What is to be read now. `settle` asks for a settle pass whether it is due or not; `below`: of what hangs from a
    parent, where each parent has tokens and ids of its own (`below.py`)."""
    if incremental is None or marks.fresh is None or marks.settled is None:
        return Pass("full")
    if isinstance(incremental, DeltaToken):
        return Pass("live", token=marks.token) if marks.token is not None or below else Pass("full")
    settle = settle or settle_due(marks, incremental, now)
    if isinstance(incremental, SinceId):
        kind: PassKind = "settle" if settle else "live"
        return Pass(kind, after=after_id(marks.seen_ids, kind))
    # One tick more, so that a vendor that compares with `>` shows the mark's own tick too.
    live = shifted(marks.fresh, seconds=-incremental.overlap_s - tick_s)
    return Pass("settle", min(live, shifted(marks.settled, seconds=-tick_s))) if settle else Pass("live", live)


def after_id(seen: Sequence[SeenId], kind: PassKind) -> str | None:
    """The id after which a pass begins; None: with the first."""
    if not seen or kind == "full":
        return None
    return (seen[0] if kind == "settle" else seen[-1]).id or None


def gone_on(
    before: Reached, walked: Reached, kind: PassKind, started_at: UtcTime, incremental: Increment | None
) -> Reached:
    """Where a list was read to, once a pass that began at `started_at` came to its end; `walked` is what it saw.

    Few of the ids seen are kept, so that the settled one is up to an eighth of a lag older than it could be.
    """
    if isinstance(incremental, DeltaToken):
        # A full read shows what is there, not what went away: the token that was held tells that, and is gone on with.
        held = before.token if kind == "full" else None
        return Reached(token=held or walked.token)
    if not isinstance(incremental, SinceId):
        return NOWHERE
    if not before.seen_ids:
        return Reached(seen_ids=walked.seen_ids)
    kept, latest = list(before.seen_ids), walked.seen_ids[-1]
    if latest.at >= shifted(kept[-1].at, seconds=incremental.lag_s / SEEN_PER_LAG):
        kept.append(latest)
    horizon = shifted(started_at, seconds=-incremental.lag_s)
    while kind != "live" and len(kept) > 1 and kept[1].at <= horizon:
        kept.pop(0)
    return Reached(seen_ids=tuple(kept))


class Progress:
    """How far the reading of one list has come: when it began, the token told last, the ids seen."""

    def __init__(
        self, incremental: Increment | None, began_at: UtcTime | None = None, after: str | None = None
    ) -> None:
        self.began_at = began_at
        self._incremental, self._highest = incremental, after
        self._token: str | None = None
        self._settling = after is None
        self._settled = ""

    def note(self, turn: Turn, earliest_at: UtcTime, oldest_to: UtcTime | None) -> None:
        """A page. `oldest_to`: all records on it carry a stamp, and this is the newest of them; else None."""
        self.began_at = self.began_at or earliest_at
        self._token = turn.token or self._token
        if not isinstance(self._incremental, SinceId) or not turn.keys:
            return
        # What carries a stamp of more than a lag ago has settled: the first settle pass need not begin before it.
        horizon = shifted(self.began_at, seconds=-self._incremental.lag_s)
        self._settling = self._settling and oldest_to is not None and oldest_to < horizon
        self._highest = turn.keys[-1]
        if self._settling:
            self._settled = self._highest

    @property
    def reached(self) -> Reached:
        if not isinstance(self._incremental, SinceId) or self.began_at is None:
            return Reached(token=self._token)
        settled = SeenId(self._settled, shifted(self.began_at, seconds=-self._incremental.lag_s))
        return Reached(seen_ids=(settled, SeenId(self._highest or "", self.began_at)))


def forgetting(marks: Marks) -> Marks:
    """The marks without a token or place that the vendor no longer takes. All is read again; what was deleted meanwhile
    no token will tell, so a sweep is due, where there is one."""
    forgot = replace(marks, walk=None, token=None)
    return forgot if marks.token is None else sweep_soon(forgot)


def sweep_soon(marks: Marks) -> Marks:
    """What was deleted unseen is looked for at the next opportunity, where sweeps are."""
    return marks if marks.swept_at is None else replace(marks, swept_at=LONG_AGO)


def finished(
    marks: Marks,
    done: Pass | Walk,
    started_at: UtcTime,
    incremental: Increment | None,
    walked: Reached = NOWHERE,
) -> Marks:
    """The marks after a pass whose every record is published; `walked` is what it read to."""
    lag_s = incremental.lag_s if isinstance(incremental, SinceTime | SinceId) else 0.0
    settled_to = shifted(started_at, seconds=-lag_s)
    settled = settled_to
    if done.kind == "live" and marks.settled is not None and not isinstance(incremental, DeltaToken):
        # Only back, and only when the vendor's clock went back: what it stamps now must not lie behind the mark.
        went_back = marks.fresh is not None and started_at < marks.fresh
        settled = min(marks.settled, settled_to) if went_back else marks.settled
    swept_at = marks.swept_at
    if done.kind == "full" and swept_at is None:
        swept_at = started_at  # whoever has just read everything has nothing to look for
    reached = gone_on(marks.reached, walked, done.kind, started_at, incremental)
    return Marks(
        fresh=started_at,
        settled=settled,
        swept_at=swept_at,
        shape=marks.shape,
        reread=done.reread or marks.reread,
        token=reached.token,
        seen_ids=reached.seen_ids,
        below_all_at=started_at if done.all_below else marks.below_all_at,
    )
