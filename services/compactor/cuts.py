"""When a shard's open files are closed, what that cut is called, and when an hour is complete. Pure.

A cut is recorded in the shard's lease row before anything of it is written, so that whoever comes next completes the
same cut under the same names. Hours follow the running maximum of arrival times: a record that arrived out of order
belongs to the hour that was open, and an hour once closed stays closed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from services.contracts.gaps import GapRules, complete_until
from services.contracts.partitions import HashRange, Partition
from services.contracts.ports import Record, Row, Shard
from services.contracts.times import UtcTime, moment, shifted

HOUR_CHARS: Final = len("2026-01-31T09")
# A quiet shard's hour is over this long after it ended on our clock: more than clocks are apart (faults.md row 28).
HOUR_GRACE_S: Final = 600.0

Reason = Literal["hour", "end", "bytes", "idle", "age", "request"]


class Rules(msgspec.Struct, frozen=True):
    """When what was read is spooled and when it is cut.

    Units: `cut_bytes` counts envelopes as they lie in the stream, compressed: about 30,000 events; it bounds what a
           shard holds in memory.
    """

    spool_age_max_s: float = 60.0
    cut_age_max_s: float = 300.0
    cut_idle_s: float = 120.0
    cut_bytes: int = 4 << 20
    gaps: GapRules = GapRules()


class Cut(msgspec.Struct, frozen=True):
    """A cut as it is recorded: everything from position `first` to `last` of its shard, all in one hour."""

    number: int
    hour: str
    first: str
    last: str
    spool: tuple[str, ...]

    @property
    def about(self) -> dict[str, str]:
        """What its files say of themselves: two that agree in this are the same."""
        return {"cut": str(self.number), "hour": self.hour, "first": self.first, "last": self.last}


class Run(msgspec.Struct, frozen=True):
    """The cuts `first` to `last` of one shard within one hour, whose files still wait: to be merged (those above
    `merged`), then for the hour to be complete."""

    shard: str
    hour: str
    first: int
    last: int
    merged: int

    @property
    def unmerged(self) -> range:
        return range(self.merged + 1, self.last + 1)


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """One file of a cut. `buckets` are the virtual partitions in it as (service, bucket), `mappings` the mappings its
    rows were made with as (service, mapping_version); both empty for raw files."""

    tenant_id: str
    name: str  # table or endpoint
    folder: str
    key: str
    count: int
    buckets: tuple[tuple[str, int], ...] = ()
    mappings: tuple[tuple[str, int], ...] = ()

    def within(self, held: HashRange) -> list[str]:
        """Its buckets that lie in a hash range, as a watermark spells them."""
        return [
            f"{service}/{bucket}"
            for service, bucket in self.buckets
            if held.holds(Partition(self.tenant_id, service, self.name, bucket))
        ]


class Manifest(msgspec.Struct, frozen=True):
    """What one cut wrote: the object at `names.cut_key`."""

    shard: str
    cut: int
    hour: str
    first: str
    last: str
    parts: tuple[Part, ...]


class ShardRow(msgspec.Struct, frozen=True):
    """What a shard's lease row holds for us.

    `arrived_at` is the running maximum of what is committed, or the hour the shard was read past; `waiting` may name
    cuts of ancestors, inherited with their hash ranges. `read_to_end_at` is when nothing newer was in the shard.
    """

    position: str | None = None
    first: str | None = None  # position of the first record spooled, and when it was read
    opened_at: UtcTime | None = None
    spool: tuple[str, ...] = ()
    arrived_at: UtcTime | None = None
    cut: Cut | None = None
    cuts: int = 0
    merged: int = 0
    waiting: tuple[Run, ...] = ()
    ended: bool = False
    read_to_end_at: UtcTime | None = None


def read_row(row: Mapping[str, Any], parents: Sequence[Row] = (), now: UtcTime | None = None) -> ShardRow:
    """A lease row as we know it; one that we never wrote starts from its parents' rows: their cuts come before ours,
    and what still waits of theirs is ours to finish too.

    Without parents its cuts begin at the seconds of `now` since 1970: a row that was lost and begins anew gives no
    number twice, so that nothing of it is taken for merged (docs/decisions/0010)."""
    own = msgspec.convert(
        {name: row[name] for name in ShardRow.__struct_fields__ if name in row}, ShardRow, strict=False
    )
    if has_begun(row):
        return own
    if not parents:
        first = int(moment(now).timestamp()) if now else 0
        return msgspec.structs.replace(own, cuts=first, merged=first)
    ancestors = [read_row(parent) for parent in parents]
    cuts = max(ancestor.cuts for ancestor in ancestors)
    return msgspec.structs.replace(
        own,
        cuts=cuts,
        merged=cuts,
        arrived_at=max((ancestor.arrived_at for ancestor in ancestors if ancestor.arrived_at), default=None),
        waiting=tuple(run for ancestor in ancestors for run in ancestor.waiting),
    )


def has_begun(row: Mapping[str, Any]) -> bool:
    """Has this row been committed to by us, and not only leased?"""
    return "cuts" in row


def hour_of(time: UtcTime) -> str:
    """`2026-01-31T09` of a time."""
    return time[:HOUR_CHARS]


def hour_start(hour: str) -> UtcTime:
    return f"{hour}:00:00.000000Z"


def by_hour(records: Iterable[Record], arrived_at: UtcTime | None) -> Iterator[tuple[UtcTime, list[Record]]]:
    """Records in runs of one hour each, with the running maximum of arrival times at the end of each run."""
    run: list[Record] = []
    for record in records:
        highest = record.arrived_at if arrived_at is None else max(arrived_at, record.arrived_at)
        if run and arrived_at is not None and hour_of(highest) != hour_of(arrived_at):
            yield arrived_at, run
            run = []
        run.append(record)
        arrived_at = highest
    if run and arrived_at is not None:
        yield arrived_at, run


class OpenFiles(msgspec.Struct, frozen=True):
    """What a shard has read since its last cut. `since` and `last_at` are monotonic seconds: when the oldest of it
    came, and the newest."""

    size: int
    since: float
    last_at: float


def due(held: OpenFiles | None, rules: Rules, now: float, *, ended: bool = False, asked: bool = False) -> Reason | None:
    """Why the open files must be closed now; None while they may stay open, or there are none.

    A new hour is not asked here: whoever reads meets it between two records (`by_hour`).
    """
    if held is None:
        return None
    reasons: tuple[tuple[Reason, bool], ...] = (
        ("end", ended),
        ("request", asked),
        ("bytes", held.size >= rules.cut_bytes),
        ("age", now - held.since >= rules.cut_age_max_s),
        ("idle", now - held.last_at >= rules.cut_idle_s),
    )
    return next((reason for reason, holds in reasons if holds), None)


def with_cut(waiting: Sequence[Run], shard: str, cut: Cut, *, merges: bool) -> tuple[Run, ...]:
    """`waiting` and a cut just completed: part of the last run, or a run of its own. Raw cuts need no merge."""
    merged = cut.number - 1 if merges else cut.number
    if waiting and (waiting[-1].shard, waiting[-1].hour, waiting[-1].last) == (shard, cut.hour, cut.number - 1):
        last = waiting[-1]
        longer = Run(shard, cut.hour, last.first, cut.number, last.merged if merges else cut.number)
        return (*waiting[:-1], longer)
    return (*waiting, Run(shard, cut.hour, cut.number, cut.number, merged))


def past_quiet_hours(arrived_at: UtcTime | None, now: UtcTime) -> UtcTime | None:
    """Where a shard stands that was read to its end at `now` with nothing open: its arrival time, or the start of
    the hour it is surely in. Later records count as of that hour at least."""
    certain = hour_start(hour_of(shifted(now, seconds=-HOUR_GRACE_S)))
    return max(arrived_at or certain, certain)


def hour_is_complete(hour: str, shards: Iterable[Shard], rows: Mapping[str, ShardRow]) -> bool:
    """Has every shard of the stream passed this hour: cut in a later one, or read to its end after it?"""
    for shard in shards:
        row = rows.get(shard.shard_id)
        if row is None or (row.cut is not None and row.cut.hour <= hour):
            return False
        if not row.ended and (row.arrived_at is None or hour_of(row.arrived_at) <= hour):
            return False
    return True


def is_cut_until(row: ShardRow, progress: Mapping[str, Any], until: UtcTime) -> bool:
    """Does everything that arrived in this shard before `until` lie in files?

    Shape:  `progress` is what the owner told with its last sign of life: how far it has read, cut or not, and when
            that was the end of the shard. It may be older than the row, never newer than what it says of itself.
    """
    if row.spool or row.cut is not None:
        return False
    if row.ended or (row.arrived_at is not None and row.arrived_at >= until):
        return True
    if row.read_to_end_at is not None and row.read_to_end_at >= until:
        return True
    read_to, read_to_end_at = progress.get("position"), progress.get("read_to_end_at")
    all_cut = read_to is None or int(read_to) <= int(row.position or 0)
    return all_cut and isinstance(read_to_end_at, str) and read_to_end_at >= until


def may_have_expired(row: ShardRow, progress: Mapping[str, Any], now: UtcTime, retention_s: float) -> bool:
    """May the stream have dropped records after the committed position? Not while it was read to its end within
    retention: a quiet shard is no gap."""
    complete = complete_until(msgspec.structs.asdict(row), [progress])
    return complete is not None and complete < GapRules(retention_s).horizon(now)
