"""Templates of mapping files."""

import pytest

from services.contracts.errors import UsageError
from services.extractor.templates import WHERE_LIST, fill, fill_all, fill_json, fill_or_leave, names_in


def test_every_name_is_replaced_by_its_value() -> None:
    assert fill("{company_id}+{public_key}", {"company_id": "acme", "public_key": "k"}) == "acme+k"


def test_a_value_is_not_filled_again() -> None:
    assert fill("{a}", {"a": "{b}", "b": "secret"}) == "{b}"


def test_braces_that_hold_no_name_stand_for_themselves() -> None:
    assert fill('{"filter": {x}} {}', {"x": "1"}) == '{"filter": 1} {}'
    assert names_in("{Id} {parent_id}") == {"parent_id"}


def test_an_unknown_name_is_an_error_that_shows_no_value() -> None:
    with pytest.raises(UsageError) as raised:
        fill("{user}:{pasword}", {"user": "maria", "password": "hunter2"})
    assert "{pasword}" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_what_a_page_or_a_time_would_bring_is_left_out_where_there_is_none() -> None:
    assert fill_or_leave("x{since}", {}) is None
    assert fill_or_leave("x{since}", {"since": "1"}) == "x1"
    assert fill_or_leave("{org}", {"org": ""}, {"org"}) is None
    assert fill_or_leave("{org}", {"org": ""}) == ""
    assert fill_all({"a": "{cursor}", "b": "{x}"}, {"x": "1"}) == {"b": "1"}
    with pytest.raises(UsageError):
        fill_or_leave("{tenant}", {})


def test_json_is_filled_where_it_has_texts() -> None:
    value = {"a": ["{page}", {"b": "{cursor}"}, None], "c": {"d": "{size}!"}, "e": 1.5}
    assert fill_json(value, {"page": "2", "size": "9"}) == {"a": [2, {}, None], "c": {"d": "9!"}, "e": 1.5}


def test_clauses_of_json_alone_are_a_list() -> None:
    assert fill_json({"f": "{where}"}, {WHERE_LIST: '[{"a":1}]', "where": "x"}) == {"f": [{"a": 1}]}
    assert fill_json({"f": "{where}"}, {}) == {}
    with pytest.raises(UsageError):
        fill_json({"f": "{where}"}, {WHERE_LIST: "[id > 1]", "where": "x"})
