"""The vendor's query language, without a server."""

from decimal import Decimal

import pytest

from services.sandbox.conditions import DEPTH_MAX, QueryError, parse, truth_of
from services.sandbox.narrowing import Narrowed, narrow
from services.sandbox.query import resolve
from services.sandbox.recipes import BY_PATH
from services.sandbox.times import moment_of, seconds_of

TICKET = {
    "id": 7,
    "summary": "Printer ☕ 100% broken (Ärger)",
    "siteName": "",
    "contact": None,
    "company": {"id": 3, "identifier": "ACME", "name": "Acme & Söhne"},
    "actualHours": Decimal("2.50"),
    "closedFlag": False,
    "requiredDate": "2026-01-06T00:00:00Z",
    "_info": {"lastUpdated": "2026-01-06T12:00:00Z", "updatedBy": "ZADMIN"},
}


def truth(conditions: str) -> bool | None:
    return truth_of(parse(conditions, lambda text: resolve(BY_PATH["service/tickets"], text)))(TICKET)


def narrowed(conditions: str) -> Narrowed:
    return narrow(parse(conditions, lambda text: resolve(BY_PATH["service/tickets"], text)))


@pytest.mark.parametrize(
    "conditions",
    [
        "id = 7",
        "id != 8 and id >= 7 and id <= 7",
        "ID < 8 AND Id > 6.5",
        "actualHours = 2.5",
        "closedFlag = False",
        "not closedFlag = true",
        "company/id in (1, 2, 3)",
        "company/identifier not in ('other', \"none\")",
        'summary contains "PRINTER"',
        "summary like 'printer*broken%'",
        "summary not like '%laptop%'",
        'summary like "%100% b%(Ärger)"',
        "siteName = ''",
        "contact = null and contact/name = null",
        "company/name != null",
        "lastUpdated >= [2026-01-06T12:00:00Z]",
        "_info/lastUpdated<[2026-01-06T14:00:00+01:00]",
        "requiredDate = [2026-01-06]",
        "updatedBy = 'zadmin'",
        "id = 1 or id = 7 and closedFlag = false",
        "(id = 1 or id = 7) and not (closedFlag = true)",
    ],
)
def test_a_condition_that_holds(conditions: str) -> None:
    assert truth(conditions) is True


@pytest.mark.parametrize(
    "conditions",
    [
        "id = 8",
        "id in (1, 2)",
        "(id = 7 or id = 1) and closedFlag = true",
        "not id = 7",
        "summary like 'printer'",
        "lastUpdated > [2026-01-06T12:00:00Z]",
        "contact != null",
    ],
)
def test_a_condition_that_does_not_hold(conditions: str) -> None:
    assert truth(conditions) is False


@pytest.mark.parametrize("conditions", ["contact/name = 'Ana'", "not contact/name = 'Ana'", "city != 'Tampa'"])
def test_a_missing_value_makes_a_comparison_unknown(conditions: str) -> None:
    assert truth(conditions) is None


def test_an_unknown_part_does_not_hide_a_certain_one() -> None:
    assert truth("city = 'Tampa' or id = 7") is True
    assert truth("city = 'Tampa' and id = 8") is False


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ("id >", "expected a value, found the end"),
        ("id = 7 id = 8", "expected the end"),
        ("(id = 7", "expected '\\)'"),
        ("id = 7 and", "expected a field"),
        ("id ~ 7", "cannot read conditions at character 4"),
        ('summary = "open', "cannot read conditions at character 11"),
        ("summry = 'x'", "has no field 'summry'"),
        ("company/colour = 'x'", "has no field 'company/colour'"),
        ("id = '7'", "id is a number, '7' is a text"),
        ("lastUpdated > '2026-01-06T12:00:00Z'", "lastUpdated is a date"),
        ("lastUpdated > [yesterday]", "is not a time"),
        ("id like 'x'", "like asks for text"),
        ("id not = 7", "expected an operator"),
        ("id in ()", "expected a value"),
        ("(" * (DEPTH_MAX + 1) + "id = 7" + ")" * (DEPTH_MAX + 1), "nested more than"),
        ("id = 7 or " * 2000 + "id = 7", "characters long"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(conditions: str, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        truth(conditions)


def test_ids_and_stamps_joined_by_and_become_ranges() -> None:
    noon = seconds_of(moment_of("2026-01-06T12:00:00Z"))
    found = narrowed("lastUpdated >= [2026-01-06T12:00:00Z] and (id > 5 and lastUpdated < [2026-01-06T12:00:01.5Z])")
    assert found == Narrowed(id_min=6, stamp_min=noon, stamp_max=noon + 1)


def test_a_stamp_with_a_fraction_is_met_by_no_whole_second() -> None:
    noon = seconds_of(moment_of("2026-01-06T12:00:00Z"))
    assert narrowed("lastUpdated >= [2026-01-06T12:00:00.5Z]").stamp_min == noon + 1
    assert narrowed("lastUpdated > [2026-01-06T12:00:00.5Z]").stamp_min == noon + 1
    found = narrowed("lastUpdated = [2026-01-06T12:00:00.5Z]")
    assert found.stamp_min > found.stamp_max


def test_what_no_index_answers_is_left_to_test() -> None:
    assert narrowed("id > 5 or id < 3").rest is not None
    assert narrowed("id > 5 and closedFlag = true").id_min == 6
    assert narrowed("id != 5").rest is not None
