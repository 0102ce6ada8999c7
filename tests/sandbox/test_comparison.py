"""The comparison fails for one differing row, whatever the difference."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from services.contracts.rows import Entity
from services.sandbox.comparison import Bounds, Expected, Verdict, compare

T1, T2, T3 = (f"2026-01-0{day}T00:00:00.000000Z" for day in (1, 2, 3))
TICKET = Entity("acme", "tickets", "connectwise", "tickets", "7")


def exactly(time: str) -> Bounds:
    return Bounds(time, time)


HISTORY = (
    Expected(exactly(T1), exactly(T2), "aa", {"status": "New"}),
    Expected(exactly(T2), None, "bb", {"status": "Done"}),
)


def row(valid_from: str, valid_to: str | None, record_hash: str, status: str) -> dict[str, Any]:
    return {
        "tenant_id": "acme",
        "service": "connectwise",
        "family": "tickets",
        "record_id": "7",
        "valid_from": valid_from,
        "valid_to": valid_to,
        "is_current": valid_to is None,
        "record_hash": record_hash,
        "status": status,
    }


RIGHT = [row(T1, T2, "aa", "New"), row(T2, None, "bb", "Done")]


def verdict(rows: Sequence[Mapping[str, Any]], *histories: tuple[Expected, ...]) -> Verdict:
    return compare("acme", "tickets", {TICKET: list(histories or (HISTORY,))}, rows, ["status"])


def counts(rows: Sequence[Mapping[str, Any]]) -> tuple[int, int, int]:
    found = verdict(rows)
    return found.lost, found.doubled, found.wrong


def test_the_right_rows_in_any_order_hold() -> None:
    assert verdict([*reversed(RIGHT)]).holds


def test_a_dropped_row_is_lost() -> None:
    assert counts(RIGHT[:1]) == (1, 0, 0)
    assert counts([]) == (2, 0, 0)


def test_a_doubled_row_is_doubled() -> None:
    assert counts([*RIGHT, RIGHT[1]]) == (0, 1, 0)


def test_an_altered_row_is_wrong_whatever_was_altered() -> None:
    for altered in (
        {**RIGHT[1], "status": "Open"},
        {**RIGHT[1], "record_hash": "cc"},
        {**RIGHT[1], "valid_from": T3},
        {**RIGHT[1], "valid_to": T3, "is_current": False},
        {**RIGHT[1], "is_current": False, "valid_to": T3},
    ):
        assert counts([RIGHT[0], altered]) == (0, 0, 1), altered
    assert counts([{**RIGHT[0], "valid_to": None, "is_current": True}, RIGHT[1]]) == (0, 0, 1)


def test_a_row_of_a_record_that_never_was_is_doubled() -> None:
    assert counts([*RIGHT, {**RIGHT[1], "record_id": "8"}]) == (0, 1, 0)


def test_a_time_that_cannot_be_known_exactly_must_lie_within_its_bounds() -> None:
    soft = (replace(HISTORY[0], valid_to=Bounds(T1, T3)),)
    assert verdict([row(T1, T2, "aa", "New")], soft).holds
    assert not verdict([row(T1, "2026-01-04T00:00:00.000000Z", "aa", "New")], soft).holds


def test_either_of_two_histories_will_do_where_it_cannot_be_known_which() -> None:
    only_first = (replace(HISTORY[0], valid_to=None),)
    assert verdict([row(T1, None, "aa", "New")], HISTORY, only_first).holds
    assert verdict(RIGHT, HISTORY, only_first).holds
