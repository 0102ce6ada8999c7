"""Until when a shard was read, and what a gap's row says."""

import msgspec
import pytest

from services.contracts.gaps import EVERYTHING, Gap, GapRules, complete_until, inherited, read_gap

DAY_S = 86_400.0


def at(hour: int) -> str:
    return f"2026-01-31T{hour:02d}:00:00.000000Z"


@pytest.mark.parametrize(
    ("row", "progress", "known"),
    [
        ({}, {}, None),
        ({"position": "9"}, {}, None),
        ({"position": "9", "arrived_at": at(3)}, {}, at(3)),
        ({"position": "9", "arrived_at": at(3), "read_to_end_at": at(5)}, {}, at(5)),
        ({"position": "9", "arrived_at": at(3)}, {"position": "9", "read_to_end_at": at(7)}, at(7)),
        ({"position": "9", "arrived_at": at(3)}, {"position": "10", "read_to_end_at": at(7)}, at(3)),
        ({"read_to_end_at": at(2)}, {"position": None, "read_to_end_at": at(4)}, at(4)),
    ],
)
def test_a_shard_is_complete_until_its_last_record_or_until_it_was_read_to_an_end_that_is_committed(
    row: dict[str, str], progress: dict[str, str | None], known: str | None
) -> None:
    assert complete_until(row, [progress]) == known


def test_a_child_begins_where_its_parents_ended_or_where_one_of_them_was_left() -> None:
    ended = [{"ended": True, "arrived_at": at(3)}, {"ended": True, "arrived_at": at(5)}]
    assert inherited(ended) == at(5)
    assert inherited([*ended, {"arrived_at": at(2)}, {"arrived_at": at(4)}]) == at(2)
    assert inherited([{"ended": True}, {}]) is None


def test_what_may_be_dropped_reaches_as_far_as_clocks_may_be_apart() -> None:
    assert GapRules(DAY_S).horizon("2026-02-01T09:00:00.000000Z") == "2026-01-31T09:05:00.000000Z"
    assert GapRules(400.0).horizon(at(9)) == "2026-01-31T08:55:00.000000Z"


def test_a_gap_is_read_back_from_its_row() -> None:
    gap = Gap(group="compactor", stream="raw", shard="a", position="7", since=at(1), until=at(2), at=at(3))
    row = {**gap.key, **msgspec.to_builtins(gap)}
    assert read_gap({name: value for name, value in row.items() if value is not None}) == gap
    assert (gap.name, gap.hash_range) == ("compactor:raw:a:7", EVERYTHING)
