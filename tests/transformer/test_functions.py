"""The named functions of mappings."""

from typing import Any

import msgspec
import pytest

from services.transformer.functions import FUNCTIONS
from services.transformer.values import UnfitError


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("join_space", ["Maria", None, "", "Lopez"], "Maria Lopez"),
        ("join_space", [None, " "], None),
        ("join_space", [7, True], "7 true"),
        ("join_comma", ["1 Main St", None, "Suite 2"], "1 Main St, Suite 2"),
        ("minutes_to_hours", [90], "1.500000000"),
        ("minutes_to_hours", [20], "0.333333333"),
        ("minutes_to_hours", [None], None),
        ("seconds_to_hours", ["5400"], "1.500000000"),
        ("time_to_hours", ["1970-01-01 00:05:00"], "0.083333333"),
        ("time_to_hours", ["1970-01-02 01:30:00"], "25.500000000"),
        ("time_to_hours", [""], None),
        ("open_won_lost", [False, False], "open"),
        ("open_won_lost", ["true", "true"], "won"),
        ("open_won_lost", [True, None], "lost"),
        ("open_won_lost", [None, True], None),
        ("epoch_s", [msgspec.Raw(b"1769850900.1234567")], "2026-01-31T09:15:00.123456Z"),
        ("epoch_s", [-1], "1969-12-31T23:59:59.000000Z"),
        ("epoch_ms", [1769850900123], "2026-01-31T09:15:00.123000Z"),
        ("epoch_ms", [""], None),
        ("lower", ["Maria@Contoso.EXAMPLE"], "maria@contoso.example"),
        ("json_array", [1296269, 7], '["1296269","7"]'),
        ("json_array", [1296269, None], None),
        ("first_line", ["Fix crash\r\n\r\nNames first."], "Fix crash"),
        ("first_line", ["\nlate"], None),
        ("first_line", [None], None),
        ("last_two_steps", ["https://api.example.com/repos/acme/web"], "acme/web"),
        ("last_two_steps", ["https://api.example.com/repos/acme/web/?a=b/c"], "acme/web"),
        ("last_two_steps", ["https://api.example.com"], None),
        ("last_two_steps", [None], None),
    ],
)
def test_a_function_does_what_it_is_named_after(name: str, values: list[Any], expected: str | None) -> None:
    assert FUNCTIONS[name](*values) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("minutes_to_hours", "soon"),
        ("minutes_to_hours", "1e30"),
        ("epoch_s", 10**15),
        ("epoch_ms", {}),
        ("lower", []),
        ("time_to_hours", "soon"),
        ("json_array", []),
        ("first_line", []),
        ("last_two_steps", {}),
        ("names", "bug"),
        ("names", [[]]),
        ("default_phone", "555"),
        ("fax_phone", {}),
        ("real_time", {}),
        ("positive", "none"),
    ],
)
def test_a_function_says_what_it_cannot_use(name: str, value: Any) -> None:
    with pytest.raises(UnfitError):
        FUNCTIONS[name](value)


def test_the_default_e_mail_address_is_found_among_the_ways_to_reach_somebody() -> None:
    phone = {"communicationType": "Phone", "value": "1", "defaultFlag": True}
    mail = {"communicationType": "Email", "value": "a@example.com", "defaultFlag": True}
    other = {"communicationType": "Email", "value": "b@example.com", "defaultFlag": False}
    find = FUNCTIONS["default_email"]
    assert find([phone, other, mail]) == "a@example.com"
    assert [find([phone, other]), find([]), find(None)] == [None, None, None]


def test_names_are_those_of_objects_and_texts_alike() -> None:
    find = FUNCTIONS["names"]
    assert find([{"name": "bug", "id": 1}, "help wanted", {"name": None}]) == ["bug", "help wanted"]
    assert [find([]), find(None)] == [[], None]


def test_a_telephone_in_parts_is_joined() -> None:
    default = {"PhoneType": "DEFAULT", "PhoneCountryCode": "61", "PhoneAreaCode": "02", "PhoneNumber": "9999 9999"}
    fax = {"PhoneType": "FAX", "PhoneCountryCode": "", "PhoneAreaCode": None, "PhoneNumber": "1234"}
    assert FUNCTIONS["default_phone"]([fax, default]) == "61 02 9999 9999"
    assert FUNCTIONS["fax_phone"]([fax, default]) == "1234"
    assert [FUNCTIONS["default_phone"]([fax]), FUNCTIONS["fax_phone"](None)] == [None, None]


def test_a_time_that_only_fills_a_column_is_none() -> None:
    real = FUNCTIONS["real_time"]
    assert real("1900-01-01T00:00:00", None, "2026-01-31T12:00:00", "2027-01-01") == "2026-01-31T12:00:00"
    assert [real("0001-01-01T00:00:00"), real("1899-12-30T00:00:00", ""), real(None)] == [None, None, None]


def test_an_id_of_0_or_less_is_none() -> None:
    positive = FUNCTIONS["positive"]
    assert positive(None, 0, -1, 7, 8) == "7"
    assert [positive(0), positive("-1"), positive(None)] == [None, None, None]
