"""Typed values, as properties; their tables are in test_types.py."""

from datetime import UTC
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.errors import RejectedError
from services.contracts.times import read_time
from services.transformer.values import UnfitError, converter, decode_payload


@given(st.datetimes(), st.sampled_from(["", "Z", "+05:30", ".5Z", ".1234567Z"]), st.sampled_from("T "))
def test_the_short_way_to_read_a_time_agrees_with_the_long_one(moment: Any, tail: str, between: str) -> None:
    text = moment.replace(microsecond=0).isoformat(between) + tail
    try:
        expected = read_time(text)
    except ValueError:  # before the year 1 or after 9999, seen from UTC
        return
    assert converter("timestamp", UTC)(text) == expected


@pytest.mark.parametrize(
    ("text", "time", "day"),
    [
        ("/Date(1573755038314)/", "2019-11-14T18:10:38.314000Z", "2019-11-14"),
        ("/Date(1539993600000+0000)/", "2018-10-20T00:00:00.000000Z", "2018-10-20"),
        ("/Date(-1)/", "1969-12-31T23:59:59.999000Z", "1969-12-31"),
    ],
)
def test_a_time_as_net_writes_it_is_a_timestamp_and_a_date(text: str, time: str, day: str) -> None:
    assert converter("timestamp", UTC)(text) == time
    assert converter("date")(text) == day


@pytest.mark.parametrize("kind", ["timestamp", "date"])
@pytest.mark.parametrize("text", ["/Date()/", "/Date(soon)/", "/Date(99999999999999999)/", "/2026-01-31/"])
def test_what_only_looks_like_such_a_time_is_refused(text: str, kind: Any) -> None:
    with pytest.raises(UnfitError):
        converter(kind, UTC)(text)


def test_an_escaped_backslash_before_a_surrogate_is_no_surrogate() -> None:
    assert decode_payload(rb'{"it":"\\ud800 \ud800"}')["it"] == "\\ud800 \N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    "payload", [b"[1]", b'{"a":', b'{"a":"\xff"}', b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}", b"7"]
)
def test_a_payload_that_is_no_readable_object_is_rejected(payload: bytes) -> None:
    with pytest.raises(RejectedError) as caught:
        decode_payload(payload)
    assert caught.value.code == "payload_unreadable"


@given(st.text())
def test_text_comes_out_as_it_went_in(text: str) -> None:
    clean = text.encode("utf-8", "replace").decode()
    assert decode_payload(msgspec.json.encode({"it": clean}))["it"] == clean
    assert converter("string")(clean) == clean
