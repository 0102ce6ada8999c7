"""Typed values: the same value in any spelling is one value, and what a type cannot hold is told."""

from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.errors import RejectedError
from services.contracts.schema import ColumnType
from services.contracts.times import read_time
from services.transformer.values import UnfitError, converter, decode_payload

BIG = "123456789012345678901234567890"


def read(kind: ColumnType, token: str, zone: str = "UTC") -> Any:
    """The JSON value of a column of `kind` for a vendor's value, written as JSON."""
    value = decode_payload(b'{"it":' + token.encode() + b"}")["it"]
    return converter(kind, ZoneInfo(zone))(value)


@pytest.mark.parametrize("kind", ["string", "int64", "float64", "decimal", "bool", "timestamp", "date", "json"])
def test_null_is_null_in_every_type_and_empty_text_in_every_type_but_string(kind: ColumnType) -> None:
    assert read(kind, "null") is None
    assert read(kind, '""') == ("" if kind == "string" else None)
    assert read(kind, '"  "') == ("  " if kind == "string" else None)


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ('"<b>\\n 😀 </b> "', "<b>\n 😀 </b> "),
        ("5", "5"),
        ("5.0", "5.0"),
        ("1.50", "1.50"),
        ("1e-7", "1e-7"),
        ("0.0000001", "0.0000001"),
        (BIG, BIG),
        ("0.12345678901234567890123", "0.12345678901234567890123"),
        ("true", "true"),
        ("false", "false"),
    ],
)
def test_text_is_untouched_and_a_number_as_text_is_its_token(token: str, text: str) -> None:
    assert read("string", token) == text


@pytest.mark.parametrize("token", ["5", '"5"', "5.0", '"5.0"', "0.5e1", '" 5 "', '"+5"', '"005"'])
def test_five_is_five_however_it_is_written(token: str) -> None:
    assert read("int64", token) == 5
    assert type(read("int64", token)) is int
    assert read("decimal", token) == "5"
    assert read("float64", token) == 5.0
    assert type(read("float64", token)) is float


def test_an_integer_has_64_bits() -> None:
    assert read("int64", "9223372036854775807") == 2**63 - 1
    assert read("int64", "-9223372036854775808") == -(2**63)
    for token in ("9223372036854775808", "-9223372036854775809", '"9223372036854775808"', BIG, "1e300"):
        with pytest.raises(UnfitError, match="expected an integer of 64 bits"):
            read("int64", token)


@pytest.mark.parametrize(
    ("token", "text"),
    [
        ("1.50", "1.5"),
        ("-0.10", "-0.1"),
        ("0.00", "0"),
        ("-0.0", "0"),
        ("0e50", "0"),
        ("1e3", "1000"),
        ("1E-9", "0.000000001"),
        ("1.0000000000000", "1"),
        ("100", "100"),
        ('"1234567890123456789012345678.123456789"', "1234567890123456789012345678.123456789"),
        ("99999999999999999999999999999.999999999", "99999999999999999999999999999.999999999"),
    ],
)
def test_a_decimal_is_exact_without_trailing_zeros_or_exponent(token: str, text: str) -> None:
    assert read("decimal", token) == text


@pytest.mark.parametrize(
    "token", ["0.1234567891", "1e-10", "1e29", "100000000000000000000000000000", "1e999999999", "1e-999999999", '"1,5"']
)
def test_a_decimal_that_does_not_fit_is_bad_and_never_rounded(token: str) -> None:
    with pytest.raises(UnfitError):
        read("decimal", token)


@pytest.mark.parametrize(
    ("kind", "token"),
    [
        ("string", "{}"),
        ("string", "[1]"),
        ("int64", "5.5"),
        ("int64", '"five"'),
        ("int64", "true"),
        ("int64", '"1_000"'),
        ("int64", '"٣"'),
        ("float64", '"NaN"'),
        ("float64", "1e400"),
        ("float64", '"Infinity"'),
        ("decimal", "false"),
        ("decimal", '"' + "1" * 500 + '"'),
        ("bool", "2"),
        ("bool", '"yes"'),
        ("bool", "1.0"),
        ("timestamp", "1769850900"),
        ("timestamp", '"yesterday"'),
        ("timestamp", '"2026-02-30T00:00:00Z"'),
        ("timestamp", '"0000-01-01T00:00:00Z"'),
        ("date", '"2026-02-30"'),
        ("date", '"31.01.2026"'),
        ("date", '"2026-01-31T25:00:00Z"'),
        ("date", "20260131"),
    ],
)
def test_a_value_that_its_type_cannot_hold_is_bad(kind: ColumnType, token: str) -> None:
    with pytest.raises(UnfitError, match=r"^expected .+, met "):
        read(kind, token)


@pytest.mark.parametrize(
    ("token", "value"), [("true", True), ("1", True), ('"1"', True), ('"TRUE"', True), ('" True "', True)]
)
def test_a_bool_in_its_spellings(token: str, value: bool) -> None:
    assert read("bool", token) is value
    opposite = token.replace("true", "false").replace("TRUE", "FALSE").replace("True", "False").replace("1", "0")
    assert read("bool", opposite) is not value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T09:15:00Z", "2026-01-31T09:15:00.000000Z"),
        ("2026-01-31T09:15:00.1234567Z", "2026-01-31T09:15:00.123456Z"),
        ("2026-01-31T09:15:00.9999999Z", "2026-01-31T09:15:00.999999Z"),
        ("2026-01-31T09:15:00+02:00", "2026-01-31T07:15:00.000000Z"),
        ("2026-01-31 09:15:00", "2026-01-31T08:15:00.000000Z"),
        ("2026-01-31", "2026-01-30T23:00:00.000000Z"),
    ],
)
def test_a_time_is_utc_and_one_without_a_zone_stands_in_the_mappings(text: str, expected: str) -> None:
    assert read("timestamp", f'"{text}"', "Europe/Berlin") == expected


@given(st.datetimes(), st.sampled_from(["", "Z", "+05:30", ".5Z", ".1234567Z"]), st.sampled_from("T "))
def test_the_short_way_to_read_a_time_agrees_with_the_long_one(moment: Any, tail: str, between: str) -> None:
    text = moment.replace(microsecond=0).isoformat(between) + tail
    try:
        expected = read_time(text)
    except ValueError:  # before the year 1 or after 9999, seen from UTC
        return
    assert converter("timestamp", UTC)(text) == expected


@pytest.mark.parametrize(
    "text", ["2026-01-31", "2026-01-31T23:30:00-08:00", " 2026-01-31 00:00:00 ", "2026-01-31T09:15Z"]
)
def test_the_date_of_a_time_is_its_day_as_written(text: str) -> None:
    assert read("date", f'"{text}"') == "2026-01-31"


def test_json_text_has_its_keys_sorted_and_its_numbers_as_written() -> None:
    written = '{"b": [1.50, 1e5, {"d": null, "c": "é"}], "a": ' + BIG + "}"
    assert read("json", written) == '{"a":' + BIG + ',"b":[1.50,1e5,{"c":"é","d":null}]}'
    assert read("json", "[]") == "[]"


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (rb'{"it":"a\ud800b"}', "a\N{REPLACEMENT CHARACTER}b"),
        (rb'{"it":"\udc00\ud83d\ude00"}', "\N{REPLACEMENT CHARACTER}😀"),
        (rb'{"it":"\\ud800 \ud800"}', "\\ud800 \N{REPLACEMENT CHARACTER}"),
        (b'{"it":"a\xed\xa0\x80b"}', "a\N{REPLACEMENT CHARACTER}b"),
    ],
)
def test_a_lone_surrogate_becomes_the_replacement_character(payload: bytes, text: str) -> None:
    assert decode_payload(payload)["it"] == text


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
