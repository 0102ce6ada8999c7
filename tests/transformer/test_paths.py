"""Dotted paths: what is there, what is null, what is absent."""

from typing import Any

import pytest

from services.transformer.paths import ABSENT, RETYPED, compile_path

RECORD: dict[str, Any] = {
    "id": 7,
    "status": {"name": "New", "note": None},
    "company": None,
    "owner": "",
    "board": "Help Desk",
    "emails": [{"address": "a@b.example"}],
    "team.name": "flat",
    "site": {"country": {"code": "US"}},
    "": "nameless",
    "codes": {"0": "zero"},
    "agreement": [],
    "parent": 0,
    "area": False,
    "type": "Incident",
    "type.name": "Flat",
    "sla": {"id": 3},
    "sla.name.short": "P1",
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("id", 7),
        ("status.name", "New"),
        ("site.country.code", "US"),
        ("emails.0.address", "a@b.example"),
        ("codes.0", "zero"),
        ("team.name", "flat"),
        ("type.name", "Flat"),
        ("sla.name.short", "P1"),
    ],
)
def test_a_path_leads_through_objects_and_positions(path: str, value: object) -> None:
    assert compile_path(path)(RECORD) == value


@pytest.mark.parametrize("path", ["nothing", "status.colour", "nothing.name", "nothing.name.first", "site.x.y", "7"])
def test_what_is_not_there_is_absent(path: str) -> None:
    assert compile_path(path)(RECORD) is ABSENT


@pytest.mark.parametrize(
    "path",
    [
        "company",
        "status.note",
        "company.name",
        "company.a.b",
        "owner.name",
        "agreement.name",
        "parent.name",
        "area.id",
        "emails.3.address",
    ],
)
def test_null_an_empty_reference_and_a_place_beyond_the_end_are_null_and_not_absent(path: str) -> None:
    assert compile_path(path)(RECORD) is None


@pytest.mark.parametrize("path", ["board.name", "id.name", "board.name.first", "emails.address"])
def test_below_a_field_that_changed_its_type_nothing_can_be_read(path: str) -> None:
    assert compile_path(path)(RECORD) is RETYPED


def test_nesting_is_tried_before_a_key_that_holds_the_dots_itself() -> None:
    assert compile_path("a.b")({"a": {"b": 1}, "a.b": 2}) == 1
    assert compile_path("a.b.c")({"a.b.c": 3}) == 3
