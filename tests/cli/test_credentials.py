"""Credentials from the environment, from files, from a person."""

from io import StringIO
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.cli.credentials import (
    FILE_LENGTH_MAX,
    asked,
    from_file,
    from_variables,
    missing_variables,
    told_variables,
    variables_set,
)
from services.cli.screen import Screen
from services.contracts.errors import UsageError
from services.contracts.integration import Integration

PEM = "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----"


def integration(auth: Any, **named: dict[str, Any]) -> Integration:
    plain = {
        "service": "desk",
        "title": "Desk",
        "base_url": "https://desk.example",
        "auth": auth,
        "endpoints": {},
        "credentials": {name: {"title": name.title(), **more} for name, more in named.items()},
    }
    return msgspec.convert(plain, Integration)


BASIC = {"type": "basic", "username": "{user}", "password": "{password}"}
KEY = {"type": "bearer", "token": "{key}"}
TWO = integration([BASIC, KEY], user={}, password={"secret": True}, key={"secret": True})
ONE = integration(KEY, key={"secret": True}, zone={"default": "eu"}, org={"required": False, "hint": "Of a group."})


class Person:
    """Answers prompts in order, and remembers what was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.titles, self.hidden, self.notes = list(answers), list[str](), list[str](), StringIO()

    def answer(self, title: str, default: str | None, hidden: bool) -> str:
        self.titles.append(title)
        if hidden:
            self.hidden.append(title)
        return self.answers.pop(0) or default or ""

    def asked(self, integration: Integration, **found: str) -> dict[str, str]:
        return asked(integration, found, Screen(err=self.notes), self.answer)


def test_a_key_of_many_lines_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(PEM + "\n\n")
    variables = {"DESK_KEY": f"@{tmp_path}/key.pem"}
    assert from_variables("desk", ONE, variables.get) == {"key": PEM}


def test_an_instance_has_variables_of_its_own_before_those_it_shares_and_each_is_named() -> None:
    variables = {"DESK_KEY": "everybody", "DESK_BERLIN_KEY": "berlin", "DESK_ZONE": "eu"}
    assert from_variables("desk:berlin", ONE, variables.get) == {"key": "berlin", "zone": "eu"}
    told = told_variables("desk:berlin", variables_set("desk:berlin", ONE, variables.get))
    assert told == (
        "credentials from the environment: DESK_BERLIN_KEY and DESK_ZONE. "
        "DESK_ZONE: not of desk:berlin alone, DESK_BERLIN_... would be"
    )
    told = told_variables("desk", variables_set("desk", ONE, variables.get))
    assert told == "credentials from the environment: DESK_KEY and DESK_ZONE"


def test_what_only_begins_like_a_file_is_itself() -> None:
    for text in ("@home", "plain", "@" + "x" * 5_000):
        assert from_file(text) == text


def test_a_path_that_names_no_file_is_told_and_not_shown(tmp_path: Path) -> None:
    for text in (f"@{tmp_path}/kye.pem", "@./kye.pem", f"@{tmp_path}"):
        with pytest.raises(UsageError, match="no such file") as told:
            from_file(text)
        assert "kye" not in str(told.value)


def test_a_file_that_holds_no_credential_is_told(tmp_path: Path) -> None:
    (tmp_path / "long").write_text("x" * (FILE_LENGTH_MAX + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfa")
    for name in ("long", "binary"):
        with pytest.raises(UsageError, match=name):
            from_file(f"@{tmp_path}/{name}")


def test_of_several_ways_what_is_missing_is_told_for_each() -> None:
    error = missing_variables("desk", TWO, {"user": "maria"})
    assert "DESK_PASSWORD; or DESK_KEY" in str(error)
    assert missing_variables("desk", TWO, {"key": "k"}) is None
    assert missing_variables("desk", TWO, {"user": "maria", "password": "p"}) is None


def test_what_has_a_default_or_may_be_left_empty_is_not_missing() -> None:
    assert missing_variables("desk", ONE, {"key": "k"}) is None
    assert "DESK_KEY" in str(missing_variables("desk", ONE, {}))


def test_enter_takes_a_default_and_skips_what_may_be_left_empty() -> None:
    person = Person("", "secret", "", "")
    assert person.asked(ONE) == {"key": "secret"}
    assert person.titles == ["Key", "Key", "Zone", "Org (Enter for none)"]
    assert person.hidden == ["Key", "Key"]
    assert "Of a group." in person.notes.getvalue()
    assert Person("secret", "us", "7").asked(ONE) == {"key": "secret", "zone": "us", "org": "7"}


def test_a_person_chooses_one_of_several_ways_and_is_asked_for_that_alone() -> None:
    person = Person("3", "2", "k")
    assert person.asked(TWO, user="maria") == {"key": "k"}
    assert "1  user name and password: Password" in person.notes.getvalue()
    assert "2  a token: Key" in person.notes.getvalue()


def test_where_all_was_found_nobody_is_asked() -> None:
    assert Person().asked(TWO, key="k") == {"key": "k"}
    assert Person().asked(ONE, key="k") == {"key": "k"}


def test_a_person_may_name_a_file(tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_text(PEM)
    assert Person(f"@{tmp_path}/key.pem", "", "").asked(ONE) == {"key": PEM}
