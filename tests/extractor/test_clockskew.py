"""The vendor's clock."""

from hypothesis import given
from hypothesis import strategies as st

from services.contracts.times import shifted
from services.extractor.clockskew import Offset, earliest_time, read_offset, vendor_time

NOON = "2026-01-31T12:00:00.250000Z"


def test_clocks_that_may_agree_are_taken_to_agree() -> None:
    offset = read_offset("Sat, 31 Jan 2026 12:00:00 GMT", NOON, elapsed_s=0.5)
    assert (offset.least_s, offset.most_s) == (-0.75, 0.75)
    assert vendor_time(NOON, offset) == NOON


def test_a_vendor_ahead_is_followed_to_the_nearest_bound() -> None:
    offset = read_offset("Sat, 31 Jan 2026 12:00:10 GMT", NOON, elapsed_s=0.5)
    assert vendor_time(NOON, offset) == "2026-01-31T12:00:09.500000Z"
    assert earliest_time(NOON, offset) == NOON


def test_a_vendor_behind_holds_the_marks_back() -> None:
    offset = read_offset("Sat, 31 Jan 2026 11:59:50 GMT", NOON, elapsed_s=0.5)
    assert vendor_time(NOON, offset) == "2026-01-31T11:59:51.000000Z"
    assert earliest_time(NOON, offset) == "2026-01-31T11:59:49.500000Z"


def test_a_date_that_is_missing_or_no_date_says_nothing() -> None:
    assert read_offset(None, NOON, 1.0) == read_offset("yesterday", NOON, 1.0) == Offset()


@given(st.floats(-5_000, 5_000), st.floats(0, 30), st.floats(0, 1))
def test_the_marks_never_run_ahead_of_the_vendor(true_s: float, elapsed_s: float, share: float) -> None:
    answered_at = shifted(NOON, seconds=true_s + elapsed_s * share)
    date = f"Sat, 31 Jan 2026 {answered_at[11:19]} GMT"
    if answered_at[:10] == "2026-01-31":
        offset = read_offset(date, NOON, elapsed_s)
        assert offset.least_s <= true_s + 1e-5
        assert true_s <= offset.most_s + 1e-5
        assert earliest_time(NOON, offset) <= shifted(NOON, seconds=max(0.0, true_s) + 1e-5)
        assert earliest_time(NOON, offset) <= shifted(NOON, seconds=true_s + 1e-5)
