"""The table of what emulators do wrong stays true of the suite."""

from types import ModuleType

import pytest

from tests.runtime.ports import (
    known_wrong,
    test_objects,
    test_resharding,
    test_rows,
    test_secrets,
    test_streams,
)
from tests.runtime.ports.known_wrong import KNOWN_WRONG, Wrong, known
from tests.runtime.ports.worlds import EMULATORS, IN_MEMORY

SUITE: tuple[ModuleType, ...] = (test_objects, test_resharding, test_rows, test_secrets, test_streams)


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {("stale", "test_tide"): Wrong("has no moon", "no tide")}
    monkeypatch.setattr(known_wrong, "KNOWN_WRONG", wrong)


def test_every_entry_names_an_emulator_and_a_test_of_the_suite() -> None:
    tests = {name for module in SUITE for name in vars(module) if name.startswith("test_")}
    assert {emulator for emulator, _ in KNOWN_WRONG} <= {*IN_MEMORY, *EMULATORS}
    assert {test for _, test in KNOWN_WRONG} <= tests


@pytest.mark.usefixtures("listed")
def test_what_fails_in_the_known_way_is_said_by_name() -> None:
    with pytest.raises(pytest.xfail.Exception, match="stale has no moon"), known("stale", "test_tide"):
        raise AssertionError("no tide at all")


@pytest.mark.usefixtures("listed")
def test_what_fails_in_another_way_fails() -> None:
    with pytest.raises(AssertionError, match="high water"), known("stale", "test_tide"):
        raise AssertionError("high water")


@pytest.mark.usefixtures("listed")
def test_an_emulator_that_was_mended_is_heard_of() -> None:
    with pytest.raises(pytest.fail.Exception, match="stale is mended"), known("stale", "test_tide"):
        pass


def test_a_test_that_is_not_listed_is_left_alone() -> None:
    with pytest.raises(ZeroDivisionError), known("memory", "test_tide"):
        _ = 1 // 0
