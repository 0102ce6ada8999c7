"""Types that do not lie: from a vendor's token to a value in a Parquet file and back, or to a dead letter. In tables.

Decided here, where the design leaves room (2.2.6: what its column's type cannot hold is a bad row):
- A decimal is never rounded, so a token of ten digits after the point is a bad row; a float64 is the nearest one.
- A time that the clock skipped or struck twice (summer time) is read with the offset that held before the change.
- A leap second, a time before the year 1 or after 9999, and a spelling that is not ISO 8601 are bad rows.
- A stand-in for "no time" (`0001-01-01T00:00:00`) is the time it says; a mapping turns it into null with a `map`.
- Of a key that is there twice, the last holds.
"""

from typing import Any

import msgspec
import pytest

from services.compactor.parquet import canonical_events, canonical_file
from services.contracts.errors import RejectedError
from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.fields import Call, CanonicalMapping, Field, ValueMap
from services.contracts.schema import CanonicalTable, Column, ColumnType
from services.transformer.mapper import Mapper
from services.transformer.pinned import Pinned, PinnedEndpoint
from tests.transformer.world import time

LONG = "123456789012345678901234567890"  # thirty digits


def mapped(kind: ColumnType, payload: bytes, zone: str = "UTC", field: Field = "it") -> CanonicalEvent:
    """What a payload becomes in a table whose one column `it` is of `kind`."""
    endpoint = PinnedEndpoint("things", CanonicalMapping("things", {"it": field}, zone))
    mapper = Mapper(Pinned("acme", "desk", 1, table(kind), {"things": endpoint}))
    raw = msgspec.Raw(payload)
    event = mapper.map(ChangeEvent("acme", "desk", "things", "1", "upsert", time(1), time(2), payload=raw))
    assert event is not None
    return event


def table(kind: ColumnType) -> CanonicalTable:
    return CanonicalTable("things", {"it": Column(kind)})


def value_of(event: CanonicalEvent) -> Any:
    assert isinstance(event.row, msgspec.Raw)
    return msgspec.json.decode(event.row).get("it")


def typed(kind: ColumnType, token: str, zone: str = "UTC", field: Field = "it") -> Any:
    """The JSON value of a vendor's token, the same from the mapper as out of a Parquet file."""
    event = mapped(kind, b'{"it":%b}' % token.encode(), zone, field)
    (read,) = canonical_events(canonical_file([event], table(kind), {}), table(kind))
    assert read == event
    return value_of(event)


def rejected(kind: ColumnType, token: str, zone: str = "UTC", field: Field = "it") -> RejectedError:
    with pytest.raises(RejectedError) as caught:
        mapped(kind, b'{"it":%b}' % token.encode(), zone, field)
    return caught.value


# -- money as decimal, integers beyond 2^53 ---------------------------------------------------------------------------
NINES = "9" * 29 + "." + "9" * 9
NUMBERS: list[tuple[ColumnType, str, Any]] = [
    ("decimal", "0.1", "0.1"),
    ("decimal", "0.30", "0.3"),
    ("decimal", "19.99", "19.99"),
    ("decimal", "-19.99", "-19.99"),
    ("decimal", '"19.99"', "19.99"),
    ("decimal", '" 19.99 "', "19.99"),
    ("decimal", "1e2", "100"),
    ("decimal", "1.5E+2", "150"),
    ("decimal", "1e-9", "0.000000001"),
    ("decimal", "0.000000010", "0.00000001"),
    ("decimal", "-0.00", "0"),
    ("decimal", "9007199254740993", "9007199254740993"),
    ("decimal", "9007199254740993.01", "9007199254740993.01"),
    ("decimal", NINES, NINES),
    ("decimal", f"-{NINES}", f"-{NINES}"),
    ("decimal", "1." + "0" * 100, "1"),
    ("int64", "9007199254740993", 9007199254740993),
    ("int64", '"9007199254740993"', 9007199254740993),
    ("int64", "9007199254740993.0", 9007199254740993),
    ("int64", "9223372036854775807", 2**63 - 1),
    ("int64", "-9223372036854775808", -(2**63)),
    ("int64", '"-9223372036854775808"', -(2**63)),
    ("int64", "9.223372036854775807e18", 2**63 - 1),
    ("int64", "5.0", 5),
    ("int64", "1e2", 100),
    ("int64", "-0", 0),
    ("float64", "0.1", 0.1),
    ("float64", "0.30000000000000004", 0.1 + 0.2),
    ("float64", '"2.5"', 2.5),
    ("float64", "5", 5.0),
    ("float64", "1e308", 1e308),
    ("float64", "5e-324", 5e-324),
    ("float64", "1e-400", 0.0),
    ("float64", "-0.0", 0.0),
    ("float64", "9007199254740993", 9007199254740992.0),
    ("string", "9007199254740993", "9007199254740993"),
    ("string", LONG, LONG),
    ("string", "5.00", "5.00"),
    ("string", "1e-7", "1e-7"),
    ("string", "0.12345678901234567890123", "0.12345678901234567890123"),
]
NO_NUMBERS: list[tuple[ColumnType, str]] = [
    ("decimal", "0.30000000000000004"),  # 0.1 + 0.2 of somebody's floats: the vendor's cents are not known to us
    ("decimal", "0.1234567891"),
    ("decimal", "1e29"),
    ("decimal", LONG),
    ("decimal", "1e999999999"),
    ("decimal", "1e-999999999"),
    ("decimal", '"1,234.50"'),
    ("decimal", '"1,5"'),
    ("decimal", '"$5"'),
    ("decimal", '"' + "1" * 500 + '"'),
    ("decimal", '"NaN"'),
    ("decimal", "true"),
    ("decimal", '{"value":5}'),
    ("int64", "9223372036854775808"),
    ("int64", "-9223372036854775809"),
    ("int64", "9.3e18"),
    ("int64", "5.5"),
    ("int64", '"5.5"'),
    ("int64", '"five"'),
    ("int64", '"0x10"'),
    ("int64", '"1_000"'),
    ("int64", '"٣"'),
    ("int64", "1e300"),
    ("int64", "false"),
    ("int64", "[5]"),
    ("float64", "1e309"),
    ("float64", '"Infinity"'),
    ("float64", '"NaN"'),
    ("float64", "true"),
]


@pytest.mark.parametrize(("kind", "token", "value"), NUMBERS)
def test_a_number_is_exact_in_the_type_of_its_column(kind: ColumnType, token: str, value: Any) -> None:
    found = typed(kind, token)
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize(("kind", "token"), NO_NUMBERS)
def test_a_number_its_column_cannot_hold_is_a_bad_row_and_never_another_number(kind: ColumnType, token: str) -> None:
    error = rejected(kind, token)
    assert (error.code, error.where) == ("bad_value", "$.it")
    assert error.what.startswith("column it: expected ")
    assert error.remedy


@pytest.mark.parametrize("token", ["NaN", "Infinity", "-Infinity", "05", ".5", "5.", "+5", "9" * 4301])
def test_what_is_no_json_number_is_no_payload(token: str) -> None:
    assert rejected("string", token).code == "payload_unreadable"


FIVES = ["5", "5.0", "5.00", "0.5e1", '"5"', '"5.00"', '" 5 "', '"+5"', '"005"']


@pytest.mark.parametrize(
    ("kind", "tokens"),
    [
        ("decimal", FIVES),
        ("int64", FIVES),
        ("float64", FIVES),
        ("decimal", ["0", "0.0", "-0", "0e9", '"-0.00"']),
        ("float64", ["0", "0.0", "-0.0"]),
        ("bool", ["true", "1", '"1"', '"true"', '"True"', '" TRUE "']),
        ("timestamp", ['"2026-01-31T09:15:00Z"', '"2026-01-31 10:15:00.0000004+01:00"', '"2026-01-31t09:15z"']),
        ("date", ['"2026-01-31"', '"2026-01-31T00:00:00Z"', '" 2026-01-31 "']),
        ("json", ['{"a":1,"b":2}', '{ "b": 2, "a": 1 }']),
        ("int64", ["null", '""', '" "']),
        ("string", ['"é"', r'"\u00e9"']),
    ],
)
def test_spellings_of_one_value_are_one_hash(kind: ColumnType, tokens: list[str]) -> None:
    assert len({mapped(kind, b'{"it":%b}' % token.encode()).record_hash for token in tokens}) == 1


@pytest.mark.parametrize(
    ("kind", "tokens"),
    [
        ("string", ["5", "5.0", '"5 "', '""', "null", '"null"']),
        ("decimal", ["5", "5.000000001", "0", "null"]),
        ("bool", ["true", "false", "null"]),
        ("json", ["[1]", "[1.0]", '["1"]', "[]", "{}", "null"]),
        ("string", ['"é"', '"e\N{COMBINING ACUTE ACCENT}"']),
    ],
)
def test_different_values_are_different_hashes(kind: ColumnType, tokens: list[str]) -> None:
    hashes = {mapped(kind, b'{"it":%b}' % token.encode()).record_hash for token in tokens}
    assert len(hashes) == len(tokens)


# -- times as UTC microseconds, whatever the vendor's format or zone --------------------------------------------------
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
TIMES = [
    ("2026-01-31T09:15:00Z", "UTC", "2026-01-31T09:15:00.000000Z"),
    ("2026-01-31T09:15:00Z", BERLIN, "2026-01-31T09:15:00.000000Z"),
    ("2026-01-31T09:15:00+02:00", BERLIN, "2026-01-31T07:15:00.000000Z"),
    ("2026-01-31T09:15:00-0530", BERLIN, "2026-01-31T14:45:00.000000Z"),
    ("2026-01-31T09:15:00.000+00", BERLIN, "2026-01-31T09:15:00.000000Z"),
    ("2026-01-31 09:15:00 UTC", BERLIN, "2026-01-31T09:15:00.000000Z"),
    ("2026-01-31T09:15:00", "UTC", "2026-01-31T09:15:00.000000Z"),
    ("2026-01-31T09:15:00", BERLIN, "2026-01-31T08:15:00.000000Z"),
    ("2026-07-31T09:15:00", BERLIN, "2026-07-31T07:15:00.000000Z"),
    ("2026-01-31 09:15", NEW_YORK, "2026-01-31T14:15:00.000000Z"),
    ("2026-01-31", BERLIN, "2026-01-30T23:00:00.000000Z"),
    ("20260131", "UTC", "2026-01-31T00:00:00.000000Z"),
    # The clock goes from 2:00 to 3:00, and half a year later from 3:00 back to 2:00.
    ("2026-03-29T01:59:59", BERLIN, "2026-03-29T00:59:59.000000Z"),
    ("2026-03-29T02:30:00", BERLIN, "2026-03-29T01:30:00.000000Z"),
    ("2026-03-29T03:00:00", BERLIN, "2026-03-29T01:00:00.000000Z"),
    ("2026-10-25T02:30:00", BERLIN, "2026-10-25T00:30:00.000000Z"),
    ("2026-10-25T03:00:00", BERLIN, "2026-10-25T02:00:00.000000Z"),
    # Digits beyond microseconds are cut: rounded, the second could become the next.
    ("2026-01-31T09:15:00.1Z", "UTC", "2026-01-31T09:15:00.100000Z"),
    ("2026-01-31T09:15:00,5Z", "UTC", "2026-01-31T09:15:00.500000Z"),
    ("2026-01-31T09:15:59.9999999Z", "UTC", "2026-01-31T09:15:59.999999Z"),
    ("2026-01-31T10:15:59.999999999+01:00", "UTC", "2026-01-31T09:15:59.999999Z"),
    ("0001-01-01T00:00:00", "UTC", "0001-01-01T00:00:00.000000Z"),
    ("9999-12-31T23:59:59.9999999Z", "UTC", "9999-12-31T23:59:59.999999Z"),
    ("2024-02-29T00:00:00Z", "UTC", "2024-02-29T00:00:00.000000Z"),
    (r"\/Date(1769850900123+0100)\/", BERLIN, "2026-01-31T09:15:00.123000Z"),
]
NO_TIMES = [
    ('"2016-12-31T23:59:60Z"', "UTC"),
    ('"2026-02-29T00:00:00Z"', "UTC"),
    ('"2026-01-31T25:00:00Z"', "UTC"),
    ('"0001-01-01T00:00:00"', BERLIN),
    ('"0001-01-01T00:00:00+00:01"', "UTC"),
    ('"9999-12-31T23:59:59-00:01"', "UTC"),
    ('"0000-00-00 00:00:00"', "UTC"),
    ('"01/31/2026 09:15"', "UTC"),
    ('"Sat, 31 Jan 2026 09:15:00 GMT"', "UTC"),
    (r'"\/Date(99999999999999999)\/"', "UTC"),
    ('"yesterday"', "UTC"),
    ("1769850900", "UTC"),  # seconds or milliseconds? The mapping has to say so
    ('"1769850900"', "UTC"),
    ("true", "UTC"),
    ("{}", "UTC"),
]


@pytest.mark.parametrize(("text", "zone", "value"), TIMES)
def test_a_time_is_utc_in_microseconds(text: str, zone: str, value: str) -> None:
    assert typed("timestamp", f'"{text}"', zone) == value


@pytest.mark.parametrize(("token", "zone"), NO_TIMES)
def test_what_is_no_time_is_a_bad_row(token: str, zone: str) -> None:
    assert rejected("timestamp", token, zone).what.startswith("column it: expected a time such as ")


@pytest.mark.parametrize(
    ("function", "token", "value"),
    [
        ("epoch_s", "1769850900", "2026-01-31T09:15:00.000000Z"),
        ("epoch_s", '"1769850900"', "2026-01-31T09:15:00.000000Z"),
        ("epoch_s", "1769850900.9999999", "2026-01-31T09:15:00.999999Z"),
        ("epoch_s", "1.7698509e9", "2026-01-31T09:15:00.000000Z"),
        ("epoch_s", "0", "1970-01-01T00:00:00.000000Z"),
        ("epoch_s", "-0.0000001", "1969-12-31T23:59:59.999999Z"),
        ("epoch_ms", "1769850900123", "2026-01-31T09:15:00.123000Z"),
        ("epoch_ms", "1769850900123.4567", "2026-01-31T09:15:00.123456Z"),
        ("epoch_ms", "null", None),
        ("epoch_ms", '""', None),
    ],
)
def test_a_count_since_1970_is_a_time_where_the_mapping_says_which(
    function: str, token: str, value: str | None
) -> None:
    assert typed("timestamp", token, BERLIN, Call(function, ["it"])) == value


@pytest.mark.parametrize(
    ("function", "token"), [("epoch_s", "1769850900123"), ("epoch_ms", "1e300"), ("epoch_s", "{}")]
)
def test_a_count_that_leads_nowhere_is_a_bad_row(function: str, token: str) -> None:
    assert rejected("timestamp", token, field=Call(function, ["it"])).code == "bad_value"


@pytest.mark.parametrize("never", ["0001-01-01T00:00:00", "0000-00-00 00:00:00", "1/1/1900"])
def test_a_mapping_turns_a_stand_in_for_no_time_into_null(never: str) -> None:
    field = ValueMap("it", {never: ""})
    assert typed("timestamp", f'"{never}"', BERLIN, field) is None
    assert typed("timestamp", '"2026-01-31T09:15:00Z"', BERLIN, field) == "2026-01-31T09:15:00.000000Z"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2026-01-31", "2026-01-31"),
        ("2026-01-31T23:30:00-08:00", "2026-01-31"),  # its own calendar day, not that of Greenwich
        ("2026-01-31T00:00:00Z", "2026-01-31"),
        ("0001-01-01", "0001-01-01"),
        ("9999-12-31", "9999-12-31"),
    ],
)
def test_a_date_is_a_day_as_written(text: str, value: str) -> None:
    assert typed("date", f'"{text}"', BERLIN) == value


@pytest.mark.parametrize("token", ['"2026-02-30"', '"31.01.2026"', '"2026-01-31 noon"', "20260131", "0", "false"])
def test_what_is_no_date_is_a_bad_row(token: str) -> None:
    assert rejected("date", token).what.startswith("column it: expected a date such as ")


# -- booleans ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("token", ["true", "1", '"1"', '"true"', '"True"', '" TRUE "'])
def test_true_in_its_spellings(token: str) -> None:
    assert typed("bool", token) is True


@pytest.mark.parametrize("token", ["false", "0", "-0", '"0"', '"false"', '"False"', '"FALSE"'])
def test_false_in_its_spellings(token: str) -> None:
    assert typed("bool", token) is False


@pytest.mark.parametrize("token", ["2", "-1", "1.0", '"yes"', '"N"', '"on"', '"null"', "[]"])
def test_any_other_spelling_of_a_bool_is_a_bad_row(token: str) -> None:
    assert rejected("bool", token).what.startswith("column it: expected true or false, met ")


def test_a_mapping_says_what_yes_and_no_are() -> None:
    field = ValueMap("it", {"yes": "true", "no": "false"})
    assert [typed("bool", token, field=field) for token in ('"yes"', '"no"', "true", "null")] == [
        True,
        False,
        True,
        None,
    ]


# -- empty string, null, absent ---------------------------------------------------------------------------------------
KINDS: list[ColumnType] = ["string", "int64", "float64", "decimal", "bool", "timestamp", "date", "json"]


@pytest.mark.parametrize("kind", KINDS)
def test_null_and_absent_are_one_and_empty_text_is_a_value_of_a_string_only(kind: ColumnType) -> None:
    absent = mapped(kind, b"{}")
    assert absent.record_hash == mapped(kind, b'{"it":null}').record_hash
    assert typed(kind, "null") is None
    for token in ('""', '" "', r'"\t\n"'):
        assert typed(kind, token) == (msgspec.json.decode(token) if kind == "string" else None)
    empty = mapped(kind, b'{"it":""}')
    assert (empty.record_hash == absent.record_hash) is (kind != "string")


# -- text untouched ---------------------------------------------------------------------------------------------------
TEXTS = {
    "HTML": '<p class="x">5 &lt; 6 &amp; <b>7</b><br/></p>\r\n<script>alert(1)</script>',
    "emoji": "😀 👩‍👩‍👧‍👦 🇩🇪 👍🏽",
    "right to left": "\u202bשלום עולם\u202c مرحبا",
    "blanks": "  two  \t\n ",
    "no-break": "\N{NO-BREAK SPACE}\N{ZERO WIDTH SPACE}\N{BYTE ORDER MARK}",
    "control": "\x00\x01\x1b[31m\x7f",
    "not composed": "e\N{COMBINING ACUTE ACCENT}",
    "what JSON escapes": '\\ / " \u2028 \u2029',
    "like another type": "null",
    "megabyte": "ä\x00<b>" * 200_000,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_text_is_untouched(text: str) -> None:
    assert typed("string", msgspec.json.encode(text).decode()) == text


def test_text_is_the_same_whether_the_vendor_escapes_it_or_not() -> None:
    assert typed("string", r'"\ud83d\ude00 \u00e9 \/ \u003cb\u003e"') == "😀 é / <b>"


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (rb'{"it":"a\ud83db"}', "a\N{REPLACEMENT CHARACTER}b"),
        (rb'{"it":"\ude00\ud83d"}', "\N{REPLACEMENT CHARACTER}" * 2),
        (b'{"it":"a\xed\xa0\xbdb"}', "a\N{REPLACEMENT CHARACTER}b"),
        (rb'{"it":"\ud83d\ude00\ud83d"}', "😀\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_half_a_surrogate_pair_is_the_replacement_character(payload: bytes, text: str) -> None:
    assert value_of(mapped("string", payload)) == text


@pytest.mark.parametrize(("token", "text"), [("true", "true"), ("false", "false"), ("1.50", "1.50")])
def test_a_scalar_in_a_string_column_is_its_token(token: str, text: str) -> None:
    assert typed("string", token) == text


@pytest.mark.parametrize("token", ["{}", "[]", '["a"]', '{"name":"a"}'])
def test_a_list_or_an_object_is_no_text(token: str) -> None:
    assert rejected("string", token).what.startswith("column it: expected text, met ")


# -- json -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("token", "text"),
    [
        ('{"b":1,"a":{"d":null,"c":[2,1]}}', '{"a":{"c":[2,1],"d":null},"b":1}'),
        ('{"a":1,"a":2}', '{"a":2}'),
        ("[" + LONG + ",9007199254740993,1.50,1e400]", "[" + LONG + ",9007199254740993,1.50,1e400]"),
        ('"text"', '"text"'),
        ("0", "0"),
        ("false", "false"),
        ("{}", "{}"),
        ('{"html":"<b>","emoji":"😀","escaped":"\\u00e9"}', '{"emoji":"😀","escaped":"é","html":"<b>"}'),
        ("[" * 500 + "]" * 500, "[" * 500 + "]" * 500),
    ],
)
def test_json_is_the_vendors_with_its_keys_in_order(token: str, text: str) -> None:
    assert typed("json", token) == text


def test_of_a_field_that_is_there_twice_the_last_holds() -> None:
    assert value_of(mapped("int64", b'{"it":1,"it":2}')) == 2
