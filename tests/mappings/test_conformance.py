"""The shipped integrations beside what their vendors publish: `make conform`, and what it must show.

The descriptions are not part of the project. AVESA_VENDOR_SPECS says where they lie (default: beside the repository);
without them these tests skip.
"""

import os
from pathlib import Path

import pytest

from services.cli.conforming import COUNTED_CLASSES, Compared, compare
from services.contracts.conformance import tally
from services.runtime.mapping_files import load_mappings

MAPPINGS = load_mappings()
CONFIRMED_MIN = 150  # facts, over all services whose descriptions are evidence
EXPLAINED_WORDS_MIN = 4  # why, and where that is written
SHARE_MIN = 0.95  # of what is described


def descriptions() -> Path:
    place = os.environ.get("AVESA_VENDOR_SPECS")  # noqa: TID251 - read by a test, not by the program
    folder = Path(place or Path(__file__).resolve().parents[3] / "shared" / "vendors" / "specs")
    if not folder.is_dir():
        pytest.skip(f"the vendors' descriptions are not here: {folder} (AVESA_VENDOR_SPECS names their folder)")
    return folder


def compared(service: str) -> Compared:
    found = compare(MAPPINGS.integrations[service], MAPPINGS.tables, descriptions())
    if found is None:
        pytest.skip(f"{service} has no description in {descriptions()}")
    return found


@pytest.mark.parametrize("service", MAPPINGS.integrations)
def test_every_contradiction_is_explained_in_the_file(service: str) -> None:
    found = compared(service)
    wrong = [fact for fact in found.facts if fact.verdict in ("contradicted", "needless")]
    assert wrong == [] or not found.counts


@pytest.mark.parametrize("service", MAPPINGS.integrations)
def test_an_explanation_is_more_than_a_word(service: str) -> None:
    for name, endpoint in MAPPINGS.integrations[service].endpoints.items():
        for fact, why in endpoint.described.differs.items():
            assert len(why.split()) >= EXPLAINED_WORDS_MIN, f"{name}: {fact}"


@pytest.mark.parametrize("service", MAPPINGS.integrations)
def test_at_least_ten_endpoints_of_a_service_are_read(service: str) -> None:
    assert len({fact.endpoint for fact in compared(service).facts}) >= 10


def test_what_is_described_is_confirmed() -> None:
    found = [compare(each, MAPPINGS.tables, descriptions()) for each in MAPPINGS.integrations.values()]
    counted = tally(fact for each in found if each is not None and each.counts for fact in each.facts)
    assert counted.confirmed >= CONFIRMED_MIN
    assert counted.share >= SHARE_MIN


def test_what_is_only_a_hint_is_reported_and_not_counted() -> None:
    sources = (descriptions() / "SOURCES.md").read_text("utf-8")
    assert "| servicenow | D |" in sources
    assert COUNTED_CLASSES == "AB"
