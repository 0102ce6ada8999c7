"""Times as vendors write them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.errors import UsageError
from services.contracts.times import UtcTime, read_time, shifted, utc_text
from services.extractor.stamps import format_time, read_stamp, zone_of

AT: UtcTime = "2026-01-31T09:15:00.987654Z"
LATEST = "2026-02-01T12:00:00.000000Z"
NEW_YORK = zone_of("America/New_York")
LOCAL = "%Y-%m-%d %H:%M:%S"


@pytest.mark.parametrize(
    ("spelling", "text"),
    [
        ("rfc3339_s", "2026-01-31T09:15:00Z"),
        ("rfc3339_ms", "2026-01-31T09:15:00.987Z"),
        ("rfc3339_us", "2026-01-31T09:15:00.987654Z"),
        ("epoch_s", "1769850900"),
        ("epoch_ms", "1769850900987"),
        ("date", "2026-01-31"),
        ("http", "Sat, 31 Jan 2026 09:15:00 GMT"),
        ("%d.%m.%y %H:%M", "31.01.26 09:15"),
    ],
)
def test_a_mark_is_cut_to_the_vendor_s_precision_never_rounded_up(spelling: str, text: str) -> None:
    assert format_time(AT, spelling) == text


def test_a_spelling_without_a_zone_stands_in_the_vendor_s() -> None:
    assert format_time(AT, LOCAL, NEW_YORK) == "2026-01-31 04:15:00"
    assert format_time("2026-01-31T03:00:00.000000Z", "date", NEW_YORK) == "2026-01-30"
    assert format_time(AT, "rfc3339_s", NEW_YORK) == "2026-01-31T09:15:00Z"


def test_a_day_that_ends_what_is_asked_for_is_the_one_after() -> None:
    late = "2026-02-01T03:00:00.000000Z"
    assert format_time(late, "date", NEW_YORK, end=True) == "2026-02-01"
    assert format_time(late, "%m/%d/%Y", end=True) == "02/02/2026"
    assert format_time("2026-02-01T05:00:00.000000Z", "date", NEW_YORK, end=True) == "2026-02-01"
    assert format_time(late, "%m/%d/%Y %H:%M", end=True) == "02/01/2026 03:00"


def test_the_hour_that_clocks_repeat_is_never_later_than_the_mark_however_it_is_meant() -> None:
    first, second = "2026-11-01T05:30:00.000000Z", "2026-11-01T06:30:00.000000Z"  # both 01:30 in New York
    assert format_time(first, LOCAL, NEW_YORK) == "2026-11-01 00:30:00"
    assert format_time(second, LOCAL, NEW_YORK) == "2026-11-01 01:30:00"
    assert format_time(first, LOCAL, NEW_YORK, end=True) == "2026-11-01 01:30:00"
    assert format_time(second, LOCAL, NEW_YORK, end=True) == "2026-11-01 02:30:00"


@given(
    st.integers(0, 2 * 366 * 86_400),
    st.sampled_from(["America/New_York", "Europe/Paris", "Australia/Lord_Howe", "UTC"]),
)
def test_no_local_time_is_ever_later_than_its_mark_nor_an_end_earlier(seconds: int, name: str) -> None:
    time, zone = shifted("2026-01-01T00:00:00.000000Z", seconds=seconds), zone_of(name)
    for fold in (0, 1):
        since = format_time(time, LOCAL, zone).replace(" ", "T")
        until = format_time(time, LOCAL, zone, end=True).replace(" ", "T")
        assert _meant(since, name, fold) <= time <= _meant(until, name, fold)


def _meant(text: str, name: str, fold: int) -> UtcTime:
    return utc_text(datetime.fromisoformat(text).replace(tzinfo=zone_of(name), fold=fold))


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ('"2026-01-31T09:15:00.1234567+01:00"', "2026-01-31T08:15:00.123456Z"),
        ('"2026-01-31 09:15:00"', "2026-01-31T14:15:00.000000Z"),
        ('"/Date(1769850900123+0000)/"', "2026-01-31T09:15:00.123000Z"),
        ('"/Date(1769850900123)/"', "2026-01-31T09:15:00.123000Z"),
        ('"/Date(-1000-0500)/"', "1969-12-31T23:59:59.000000Z"),
        ('"1769850900123"', "2026-01-31T09:15:00.123000Z"),
        ('"1769850900"', "2026-01-31T09:15:00.000000Z"),
        ("1769850900.9999999", "2026-01-31T09:15:00.999999Z"),
        ("null", None),
        ('""', None),
        ('"2027-01-01T00:00:00Z"', None),
    ],
)
def test_a_stamp_is_read_however_it_is_written(text: str, stamp: str | None) -> None:
    assert read_stamp(text.encode(), LATEST, NEW_YORK) == stamp


@pytest.mark.parametrize("text", ['"soon"', "true", "[]", "1e40", '"/Date(x)/"', '"2026-02-30T00:00:00Z"'])
def test_what_is_no_time_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="time"):
        read_stamp(text.encode(), LATEST)


def test_a_zone_is_an_iana_name() -> None:
    assert zone_of("UTC") is UTC
    with pytest.raises(UsageError):
        zone_of("Mars/Olympus")
    assert read_time("2026-07-01 12:00", zone_of("Europe/Paris")) == "2026-07-01T10:00:00.000000Z"
