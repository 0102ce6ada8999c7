"""Moments and durations as people write and read them."""

import pytest

from services.cli.ages import ago, moment_meant, rough, shown_time
from services.contracts.errors import UsageError


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0 s"), (0.9, "0 s"), (59.9, "59 s"), (60, "1 min"), (119, "1 min"), (3_600, "1 h"), (11_520, "3 h 12 min"),
     (86_400, "1 d"), (187_200, "2 d 4 h"), (604_800, "7 d"), (8_640_000, "100 d")],
)  # fmt: skip
def test_a_duration_is_as_exact_as_anybody_asks_and_never_rounded_up(seconds: float, text: str) -> None:
    assert rough(seconds) == text


def test_a_time_shows_as_much_of_its_second_as_there_is() -> None:
    assert shown_time("2026-01-31T09:15:00.000000Z") == "2026-01-31 09:15:00"
    assert shown_time("2026-01-31T09:15:00.250000Z") == "2026-01-31 09:15:00.25"
    assert shown_time("2026-01-31T09:15:00.123456Z") == "2026-01-31 09:15:00.123456"
    assert ago("2026-01-31T09:15:00.000000Z", "2026-01-31T09:16:05.000000Z") == "1 min ago"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("2026-01-31", "2026-01-31T00:00:00.000000Z"), ("2026-01-31T09:15Z", "2026-01-31T09:15:00.000000Z"),
     ("2026-01-31 09:15:00+02:00", "2026-01-31T07:15:00.000000Z")],
)  # fmt: skip
def test_a_moment_may_be_written_in_many_ways(typed: str, meant: str) -> None:
    assert moment_meant(typed, "--as-of") == meant


@pytest.mark.parametrize("typed", ["yesterday", "2026-13-01", ""])
def test_what_is_no_moment_is_a_mistake_of_usage(typed: str) -> None:
    with pytest.raises(UsageError) as raised:
        moment_meant(typed, "--as-of")
    assert (raised.value.where, "2026-01-31" in raised.value.remedy) == ("--as-of", True)
