"""docs/security.md: each resource and each test that it names is there, and no control stands without a test."""

import re
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

ROOT: Final = Path(__file__).parents[2]
TERRAFORM: Final = ROOT / "infra" / "terraform"
PAGE: Final = ROOT / "docs" / "security.md"
ASKED: Final = ("CC6.1", "CC6.6", "CC6.7", "CC7.1", "CC7.2", "CC8.1", "A1.2", "C1.1", "C1.2")
CRITERION: Final = r"(?:CC[1-9]|A1|C1|PI1)\.\d"
ANNEX: Final = r"A\.[5-8]\.\d{1,2}"


class Control(NamedTuple):
    """One row."""

    criteria: str
    annex: str
    what: str
    carried_by: str
    held_by: str


CONTROLS: Final = [
    Control(*(cell.strip() for cell in row.split("|")))
    for row in re.findall(r"^\| ((?:CC|A|C|PI)\d.*)\|$", PAGE.read_text(), re.MULTILINE)
]

each = pytest.mark.parametrize("control", CONTROLS, ids=lambda control: f"{control.criteria}-{control.what[:32]}")


@cache
def text_of(folder: str) -> str:
    """All Terraform of a module, or of a root."""
    at = TERRAFORM / folder if (TERRAFORM / folder).is_dir() else TERRAFORM / "modules" / folder
    files = sorted(at.glob("*.tf"))
    assert files, folder
    return "".join(file.read_text() for file in files)


@cache
def said_in(name: str) -> str:
    """Every test file of that name, one after the other."""
    found = [file for file in (*TERRAFORM.rglob(name), *(ROOT / "tests").rglob(name)) if ".terraform" not in file.parts]
    assert found, f"no test file {name}"
    return "".join(file.read_text() for file in found)


@each
def test_what_carries_it_is_there(control: Control) -> None:
    resources = re.findall(r"`([a-z-]+)` `(aws_\w+)\.(\w+)`", control.carried_by)
    assert resources or "](" in control.carried_by
    for module, kind, name in resources:
        assert f'resource "{kind}" "{name}"' in text_of(module), (module, kind, name)


@each
def test_what_holds_it_is_there(control: Control) -> None:
    tests = re.findall(r"`([\w.]+)::(\w+)`", control.held_by)
    assert tests, "a control that no test holds"
    for file, name in tests:
        said = rf'^run "{name}"' if file.endswith(".tftest.hcl") else rf"^(?:async )?def {name}\("
        assert re.search(said, said_in(file), re.MULTILINE), f"{file}::{name}"


@each
def test_it_names_criteria_as_they_are_numbered(control: Control) -> None:
    assert re.fullmatch(rf"{CRITERION}(, {CRITERION})*", control.criteria)
    assert re.fullmatch(rf"{ANNEX}(, {ANNEX})*", control.annex)


def test_every_control_that_was_asked_for_is_carried() -> None:
    carried = {criterion for control in CONTROLS for criterion in re.findall(CRITERION, control.criteria)}
    assert carried.issuperset(ASKED)
