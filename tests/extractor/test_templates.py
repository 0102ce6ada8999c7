"""Templates of mapping files."""

import pytest

from services.contracts.errors import UsageError
from services.extractor.templates import fill, names_in


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
