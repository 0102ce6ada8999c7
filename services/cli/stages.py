"""How far each group of transformers and the compactor have come with the streams, and which owners show life. Pure."""

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from services.compactor.cuts import Rules, ShardRow, hour_start, may_have_expired, read_row
from services.contracts.gaps import GapRules
from services.contracts.times import UtcTime, seconds_between, shifted

HANDOVER_S: Final = 60.0  # until work that was let go, or whose owner died, has been taken up by somebody who runs
LATE_S: Final = 600.0  # an owner may be so far behind: a flood, a first read
HOUR_S: Final = 3_600.0

ServiceName = Literal["transformer", "compactor"]
Row = Mapping[str, Any]


class Reader(msgspec.Struct, frozen=True):
    """One group's reading of one stream. A group is the service itself, or transformers bound to some tables."""

    service: ServiceName
    group: str
    stream: str


class Life(msgspec.Struct, frozen=True):
    """Whether an owner shows life, and how long ago it did, as far as we have looked."""

    alive: bool
    quiet_s: float


# -- shards -----------------------------------------------------------------------------------------------------------
class Waiting(msgspec.Struct, frozen=True):
    """What the stream holds behind a committed position: `events` in the envelopes looked at, the first of which
    arrived at `since`; `more`: there are others behind them."""

    events: int = 0
    more: bool = False
    since: UtcTime | None = None


class ShardLook(msgspec.Struct, frozen=True):
    """One shard that can be read now, as one look found it. `waiting` is None where the stream did not answer, `life`
    where one look cannot tell."""

    shard_id: str
    row: Row
    waiting: Waiting | None = None
    life: Life | None = None


class ShardStanding(msgspec.Struct, frozen=True, tag_field="kind", tag="shard"):
    """One shard in the hands of one group.

    Shape:  `uncut_since`: read, durable, and in no file of the lake yet; `unmerged` counts cuts whose files are in no
            table yet; all of them was read before `unmerged_since`. What the owner told with its last sign of life,
            None where it told nothing: `events_per_s` it does, `behind_ms` its reading is, `committed_at` its last
            commit. `asked_by`: the worker to whom it is to be handed over. `deaths`: owners in a row that died at it.
    """

    service: ServiceName
    group: str
    stream: str
    shard_id: str
    owner: str | None
    epoch: int
    life: Life | None
    position: str | None
    waiting: Waiting | None
    uncut_since: UtcTime | None = None
    unmerged: int = 0
    unmerged_since: UtcTime | None = None
    expired: bool = False
    events_per_s: float | None = None
    behind_ms: int | None = None
    committed_at: UtcTime | None = None
    asked_by: str | None = None
    deaths: int = 0


class Late(msgspec.Struct, frozen=True):
    """The oldest of what should have been done by now. `owned`: by somebody who is at it."""

    since: UtcTime
    age_s: float
    owned: bool


def shard_standing(
    reader: Reader, look: ShardLook, now: UtcTime, retention_s: float = GapRules().retention_s
) -> ShardStanding:
    """`retention_s`: how long the stream keeps a record."""
    row = look.row
    held = read_row(row) if reader.service == "compactor" else ShardRow()
    uncut = held.opened_at if held.spool or held.cut else None
    progress, owner = row.get("progress") or {}, row.get("owner")
    told = progress if owner is not None else {}  # of who let go it says nothing any more
    rate, behind_ms = told.get("rate"), told.get("behind_ms")
    return ShardStanding(
        reader.service,
        reader.group,
        reader.stream,
        look.shard_id,
        owner,
        int(row.get("epoch", 0)),
        look.life,
        row.get("position"),
        look.waiting,
        uncut or (held.arrived_at if held.cut else None),
        sum(len(run.unmerged) for run in held.waiting),
        _unmerged_since(held),
        may_have_expired(held, progress, now, retention_s),
        None if rate is None else float(rate),
        None if behind_ms is None else int(behind_ms),
        progress.get("committed_at"),
        row.get("asked_by"),
        int(row.get("deaths") or 0),
    )


def _unmerged_since(held: ShardRow) -> UtcTime | None:
    """No cut says when it was made; all it holds had arrived when its hour ended, and by the shard's last arrival."""
    hours = [run.hour for run in held.waiting if run.unmerged]
    if not hours:
        return None
    ended = shifted(hour_start(min(hours)), seconds=HOUR_S)
    return min(ended, held.arrived_at or ended)


class Stage(msgspec.Struct, frozen=True, tag_field="kind", tag="stage"):
    """One group's work on one stream: its shards that are not read to their end for good."""

    service: ServiceName
    group: str
    stream: str
    shards: tuple[ShardStanding, ...]

    @property
    def owners(self) -> dict[str, list[ShardStanding]]:
        """The shards of each owner."""
        found: dict[str, list[ShardStanding]] = {}
        for shard in self.shards:
            if shard.owner is not None:
                found.setdefault(shard.owner, []).append(shard)
        return found

    @property
    def events(self) -> int:
        return sum(shard.waiting.events for shard in self.shards if shard.waiting)

    @property
    def more(self) -> bool:
        return any(shard.waiting.more for shard in self.shards if shard.waiting)

    @property
    def waiting_since(self) -> UtcTime | None:
        return min((s.waiting.since for s in self.shards if s.waiting and s.waiting.since), default=None)

    @property
    def uncut_since(self) -> UtcTime | None:
        return min((shard.uncut_since for shard in self.shards if shard.uncut_since), default=None)

    @property
    def unmerged(self) -> int:
        return sum(shard.unmerged for shard in self.shards)

    @property
    def expired(self) -> int:
        return sum(shard.expired for shard in self.shards)

    def late(self, now: UtcTime) -> Late | None:
        """The oldest work that waits longer than it may, that of nobody first."""
        found = [late for shard in self.shards if (late := _late(shard, now)) is not None]
        return min(found, key=lambda late: (late.owned, late.since), default=None)


def _late(shard: ShardStanding, now: UtcTime) -> Late | None:
    owned = shard.owner is not None
    allowed_s = LATE_S if owned else HANDOVER_S
    cut_s = Rules().cut_age_max_s if owned else 0.0  # what is read may wait so long for its cut
    due = [(shard.waiting.since if shard.waiting else None, 0.0), (shard.uncut_since, cut_s)]
    due.append((shard.unmerged_since, cut_s))
    late = [since for since, usual_s in due if since and seconds_between(since, now) > usual_s + allowed_s]
    return Late(min(late), seconds_between(min(late), now), owned) if late else None


# -- life -------------------------------------------------------------------------------------------------------------
class _Beat(msgspec.Struct, frozen=True):
    epoch: int
    counter: int
    since: float
    moved: bool


class Pulse:
    """Whether owners live, told by what moves between looks: one look alone tells nothing.

    An owner shows life several times within `lease_s`, on its own clock; ours is monotonic and not compared with it.
    """

    def __init__(self, lease_s: float) -> None:
        self._lease_s = lease_s
        self._beats: dict[tuple[str, str], _Beat] = {}

    def feel(self, row: Row, monotonic: float) -> Life | None:
        """What is known by now of a lease row's owner; None where that is nothing, or nobody owns it."""
        at = (str(row.get("scope")), str(row.get("name")))
        if row.get("owner") is None:
            self._beats.pop(at, None)
            return None
        epoch, counter = int(row.get("epoch", 0)), int(row.get("counter", 0))
        beat = self._beats.get(at)
        if beat is None or (beat.epoch, beat.counter) != (epoch, counter):
            beat = self._beats[at] = _Beat(epoch, counter, monotonic, beat is not None)
        quiet_s = monotonic - beat.since
        if quiet_s > self._lease_s:
            return Life(False, quiet_s)
        return Life(True, quiet_s) if beat.moved else None
