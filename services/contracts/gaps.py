"""Gaps: what a group may never have read, because the stream dropped it first (faults.md rows 30, 31, 56). Pure.

A stream keeps a record for a fixed time and then drops it without a word: whoever reads after a position that is older
gets the oldest record held. So each reader knows until when it has everything, and compares that with the clock. A gap
is a row of the lease table (scope `gaps`): whoever meets it writes it before anything newer takes effect, the
compactor heals it (`healing.py`), the extractor reads again where it is asked to, `avesa status` tells of it.
Source: AWS Kinesis Data Streams developer guide, "Change the data retention period"; API reference, GetShardIterator
(AFTER_SEQUENCE_NUMBER: a position that was trimmed is no error).
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

from services.contracts.partitions import HASH_KEY_SPACE, HashRange
from services.contracts.ports import Row
from services.contracts.times import UtcTime, shifted

SCOPE: Final = "gaps"  # of their rows in the lease table
CLOCKS_APART_S: Final = 300.0  # ours and the stream's, at most (faults.md row 28)
EVERYTHING: Final = HashRange(0, HASH_KEY_SPACE - 1)

Policy = Literal["continue", "halt"]
State = Literal["open", "archive", "source", "halted"]
Progress = Mapping[str, object]


class GapRules(msgspec.Struct, frozen=True):
    """How long the streams keep a record, in seconds, and what happens where one was dropped unread: newer data flows
    and the gap is told until it is healed (`continue`), or nothing of that shard flows (`halt`)."""

    retention_s: float = 7 * 86_400.0
    on_gap: Policy = "continue"

    def horizon(self, now: UtcTime) -> UtcTime:
        """What arrived before then may be dropped already, as far as clocks agree."""
        apart_s = min(CLOCKS_APART_S, self.retention_s / 4)
        return shifted(now, seconds=apart_s - self.retention_s)


class Gap(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived in a range of hash keys between two times and one group may not have read.

    Shape:  `first` and `last` are the hash keys, both included, as decimal text. `state`: not begun (`open`), read
            again from the raw archive (`archive`) or from the vendors (`source`, asked for at `asked_at`), or left as
            it is until the policy is to go on (`halted`).
    """

    group: str
    stream: str
    shard: str
    since: UtcTime
    until: UtcTime
    at: UtcTime
    position: str = ""
    first: str = str(EVERYTHING.first)
    last: str = str(EVERYTHING.last)
    state: State = "open"
    asked_at: UtcTime | None = None

    @property
    def name(self) -> str:
        """Of its row."""
        return f"{self.group}:{self.stream}:{self.shard}:{self.position}"

    @property
    def key(self) -> dict[str, str]:
        return {"scope": SCOPE, "name": self.name}

    @property
    def hash_range(self) -> HashRange:
        return HashRange(int(self.first), int(self.last))


def read_gap(row: Row) -> Gap:
    """A row of SCOPE."""
    return msgspec.convert(row, Gap, strict=False)


def complete_until(row: Row, progress: Iterable[Progress] = ()) -> UtcTime | None:
    """Everything that arrived before then is at or before the committed position; None where none ever was.

    Shape:  `arrived_at` and `read_to_end_at` of a lease row; `progress` is what owners told with their signs of life:
            it counts where it is about what was committed, and not about what was read beyond and is lost with them.
    """
    position = _number(row.get("position"))
    told = [one.get("read_to_end_at") for one in progress if _number(one.get("position")) <= position]
    known = [time for time in (row.get("arrived_at"), row.get("read_to_end_at"), *told) if isinstance(time, str)]
    return max(known, default=None)


def inherited(ancestors: Iterable[Row]) -> UtcTime | None:
    """The same for a shard that was never read, by the rows of those it came from.

    One that was read to its end was read to the moment its children began; one that was not (the stream lists it no
    longer) holds the child back to where it was left.
    """
    ended: list[UtcTime] = []
    left: list[UtcTime] = []
    for row in ancestors:
        known = complete_until(row, [row.get("progress") or {}])
        if known is not None:
            (ended if row.get("ended") else left).append(known)
    return min(left) if left else max(ended, default=None)


def _number(position: object) -> int:
    return int(position) if isinstance(position, str | int) else 0
