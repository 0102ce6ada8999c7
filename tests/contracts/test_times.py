"""Times are text of one width, so that order of text is order of time."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.times import moment, read_time, seconds_between, shifted, utc_text


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-01-31", "2026-01-31T00:00:00.000000Z"),
        ("2026-01-31T09:15:00Z", "2026-01-31T09:15:00.000000Z"),
        ("2026-01-31 09:15", "2026-01-31T09:15:00.000000Z"),
        ("2026-01-31T09:15:00.9999999Z", "2026-01-31T09:15:00.999999Z"),
        ("2026-01-31T09:15:00.5+02:00", "2026-01-31T07:15:00.500000Z"),
        ("2026-01-31T09:15:00-0500", "2026-01-31T14:15:00.000000Z"),
    ],
)
def test_every_usual_spelling_is_read_and_finer_digits_are_cut(written: str, read: str) -> None:
    assert read_time(written) == read


def test_a_time_without_a_zone_stands_in_the_zone_it_is_read_for() -> None:
    assert read_time("2026-07-01 12:00:00", ZoneInfo("America/New_York")) == "2026-07-01T16:00:00.000000Z"


@pytest.mark.parametrize(
    "written", ["", "soon", "2026-13-01", "2026-02-30T00:00:00Z", "0001-01-01T00:00:00+05:00", "5"]
)
def test_what_is_no_time_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match="is not a time"):
        read_time(written)


FIRST, LAST = datetime.fromisoformat("0001-01-02"), datetime.fromisoformat("9999-12-30")
moments = st.datetimes(min_value=FIRST, max_value=LAST, timezones=st.just(UTC))


@given(moments, moments)
def test_order_of_text_is_order_of_time(a: datetime, b: datetime) -> None:
    assert (utc_text(a) < utc_text(b)) == (a < b)
    assert moment(utc_text(a)) == a


@given(moments, st.integers(-86_400_000_000, 86_400_000_000))
def test_a_shift_moves_by_exactly_so_many_microseconds(start: datetime, microseconds: int) -> None:
    moved = shifted(utc_text(start), microseconds=microseconds)
    assert moment(moved) - start in {timedelta(microseconds=microseconds), timedelta(0)}


def test_seconds_between_is_signed() -> None:
    a, b = "2026-01-01T00:00:00.000000Z", "2026-01-01T00:01:00.500000Z"
    assert (seconds_between(a, b), seconds_between(b, a)) == (60.5, -60.5)


def test_any_zone_becomes_utc() -> None:
    assert utc_text(datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=1)))) == "2026-01-01T00:00:00.000000Z"
