"""When open files are closed, what belongs to which hour, and what a row says."""

import msgspec
import pytest

from services.compactor.cuts import (
    Cut,
    OpenFiles,
    Rules,
    Run,
    ShardRow,
    by_hour,
    due,
    hour_is_complete,
    is_cut_until,
    may_have_expired,
    past_quiet_hours,
    read_row,
    with_cut,
)
from services.contracts.partitions import HASH_KEY_SPACE, HashRange
from services.contracts.ports import Record, Shard

RULES = Rules()
EVERYTHING = HashRange(0, HASH_KEY_SPACE - 1)


def clock(text: str) -> str:
    """`9:59` of a day."""
    hour, minute = text.split(":")
    return f"2026-01-31T{int(hour):02d}:{minute}:00.000000Z"


def arrived(*times: str) -> list[Record]:
    return [Record(str(number), clock(time), b"") for number, time in enumerate(times)]


def cut(number: int, hour: str = "2026-01-31T09") -> Cut:
    return Cut(number, hour, "1", "2", ())


def shard(name: str) -> Shard:
    return Shard(name, EVERYTHING)


@pytest.mark.parametrize(
    ("held", "now", "why"),
    [
        (None, 1e9, None),
        (OpenFiles(1, since=0, last_at=0), 119, None),
        (OpenFiles(1, since=0, last_at=0), 120, "idle"),
        (OpenFiles(1, since=0, last_at=250), 299, None),
        (OpenFiles(1, since=0, last_at=250), 300, "age"),
        (OpenFiles(4 << 20, since=0, last_at=0), 0, "bytes"),
    ],
)
def test_open_files_are_closed_when_quiet_old_or_large(held: OpenFiles | None, now: float, why: str | None) -> None:
    assert due(held, RULES, now) == why


def test_open_files_are_closed_at_the_end_of_a_shard_and_on_request_and_only_if_there_are_any() -> None:
    held = OpenFiles(1, 0, 0)
    assert (due(held, RULES, 0, ended=True), due(held, RULES, 0, asked=True)) == ("end", "request")
    assert due(None, RULES, 0, ended=True, asked=True) is None


def test_the_running_maximum_of_arrival_times_cuts_the_hour() -> None:
    runs = list(by_hour(arrived("9:58", "9:57", "10:01", "9:59", "10:02"), None))
    assert [(at, [record.sequence for record in records]) for at, records in runs] == [
        (clock("9:58"), ["0", "1"]),
        (clock("10:02"), ["2", "3", "4"]),
    ]


def test_an_hour_that_was_left_is_not_entered_again() -> None:
    ((at, records),) = by_hour(arrived("9:59"), clock("10:00"))
    assert (at, len(records)) == (clock("10:00"), 1)


def test_a_quiet_shard_passes_an_hour_when_it_is_surely_over() -> None:
    assert past_quiet_hours(clock("9:30"), clock("10:09")) == clock("9:30")
    assert past_quiet_hours(clock("9:30"), clock("10:10")) == clock("10:00")
    assert past_quiet_hours(None, clock("10:10")) == clock("10:00")


def test_an_hour_is_complete_when_every_shard_is_past_it() -> None:
    hour, shards = "2026-01-31T09", [shard("a"), shard("b")]
    past, within = ShardRow(arrived_at=clock("10:00")), ShardRow(arrived_at=clock("9:59"))
    assert hour_is_complete(hour, shards, {"a": past, "b": past})
    assert not hour_is_complete(hour, shards, {"a": past, "b": within})
    assert not hour_is_complete(hour, shards, {"a": past})
    assert hour_is_complete(hour, shards, {"a": past, "b": msgspec.structs.replace(within, ended=True)})
    assert not hour_is_complete(hour, shards, {"a": past, "b": msgspec.structs.replace(past, cut=cut(1))})


def test_cuts_of_one_hour_are_one_run_and_a_gap_begins_another() -> None:
    waiting: tuple[Run, ...] = ()
    for number, hour in ((1, "h9"), (2, "h9"), (3, "h10"), (5, "h10")):
        waiting = with_cut(waiting, "a", cut(number, hour), merges=True)
    assert waiting == (Run("a", "h9", 1, 2, 0), Run("a", "h10", 3, 3, 2), Run("a", "h10", 5, 5, 4))
    assert list(waiting[0].unmerged) == [1, 2]
    assert with_cut((), "a", cut(7), merges=False) == (Run("a", "2026-01-31T09", 7, 7, 7),)


def test_a_row_is_read_back_as_it_was_written() -> None:
    row = ShardRow("9", "7", clock("9:00"), ("key",), clock("9:01"), cut(3), 2, 1, (Run("a", "h", 1, 2, 1),), True)
    written = {"owner": "me", "epoch": 4, **msgspec.to_builtins(row)}
    assert read_row({name: value for name, value in written.items() if value is not None}) == row


def test_a_child_starts_after_its_parents_with_what_waits_of_theirs() -> None:
    parents = [
        msgspec.to_builtins(ShardRow(cuts=4, merged=3, arrived_at=clock("9:05"), waiting=(Run("a", "h", 3, 4, 3),))),
        msgspec.to_builtins(ShardRow(cuts=7, merged=7, arrived_at=clock("9:01"))),
    ]
    child = read_row({"owner": "me", "epoch": 1}, parents)
    assert (child.cuts, child.merged, child.arrived_at) == (7, 7, clock("9:05"))
    assert child.waiting == (Run("a", "h", 3, 4, 3),)
    assert read_row({"cuts": 8, "merged": 8}, parents) == ShardRow(cuts=8, merged=8)


def test_a_position_may_have_expired_unless_the_shard_was_read_to_its_end_since() -> None:
    row = ShardRow("9", arrived_at=clock("1:00"), read_to_end_at=clock("2:00"))
    assert may_have_expired(row, {}, clock("9:00"), retention_s=3600)
    assert not may_have_expired(row, {"read_to_end_at": clock("8:30")}, clock("9:00"), retention_s=3600)
    assert not may_have_expired(ShardRow(), {}, clock("9:00"), retention_s=3600)


UNTIL = "2026-01-31T09:30:00.000000Z"
SOONER, NO_SOONER = "2026-01-31T09:29:59.999999Z", UNTIL


@pytest.mark.parametrize(
    ("row", "progress", "holds"),
    [
        (ShardRow(), {}, False),
        (ShardRow(arrived_at=SOONER), {}, False),
        (ShardRow(arrived_at=NO_SOONER), {}, True),
        (ShardRow(arrived_at=NO_SOONER, spool=("one",)), {}, False),
        (ShardRow(arrived_at=NO_SOONER, cut=Cut(1, "2026-01-31T09", "1", "2", ())), {}, False),
        (ShardRow(ended=True), {}, True),
        (ShardRow(read_to_end_at=SOONER), {}, False),
        (ShardRow(read_to_end_at=NO_SOONER), {}, True),
        (ShardRow(position="7"), {"position": "7", "read_to_end_at": NO_SOONER}, True),
        (ShardRow(position="7"), {"position": "7", "read_to_end_at": SOONER}, False),
        (ShardRow(position="7"), {"position": "10", "read_to_end_at": NO_SOONER}, False),  # read, and cut nowhere yet
        (ShardRow(position="10"), {"position": "7", "read_to_end_at": NO_SOONER}, True),
        (ShardRow(), {"position": None, "read_to_end_at": NO_SOONER}, True),  # nothing ever came
        (ShardRow(), {"position": "1", "read_to_end_at": NO_SOONER}, False),
    ],
)
def test_a_shard_is_cut_until_a_moment_where_nothing_older_can_be_anywhere_else(
    row: ShardRow, progress: dict[str, str | None], holds: bool
) -> None:
    assert is_cut_until(row, progress, UNTIL) is holds
