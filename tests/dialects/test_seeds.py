"""Every dialect under random hostility: nothing lost, nothing doubled, nothing wrong, whatever the seed."""

import os
import re
import subprocess
import sys
from typing import Final

import pytest

from services.sandbox import vendors
from services.sandbox.vendors.hostility import ROWS
from tests.dialects.every import dialect_of, integration_of, services

SEEDS: Final = 160
PARTS: Final = 8  # each far below the bound on one test (pyproject.toml: faulthandler_timeout)
PART_S_MAX: Final = 235.0
SOAKED: Final = (1_000, 4_000)
SOAK_S_MAX: Final = 4 * 3_600.0


def run(seeds: str, jobs: int, seconds_max: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.dialects", "--seeds", seeds, "--jobs", str(jobs)]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds_max, check=False)


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_a_vendor_does_the_stream_holds_what_it_has(
    part: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Else the command ends with 1, and prints which seed to replay. Whoever is the last of all parts prints how often
    each row struck, and sees that each did."""
    ended = run(f"{part * SEEDS // PARTS}-{(part + 1) * SEEDS // PARTS - 1}", 1, PART_S_MAX)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-5_000:]
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # noqa: TID251  all workers of this run
    (shared / f"hostile-{part}").write_text(ended.stdout)
    parts = [path.read_text() for path in shared.glob("hostile-*")]
    if len(parts) == PARTS:
        struck = struck_in(parts)
        print(*(f"row {row} ({what}): {struck[row]}" for row, what in ROWS.items()), sep="\n")
        assert [row for row in ROWS if not struck[row]] == []


def struck_in(told: list[str]) -> dict[int, int]:
    """How often each row struck, over several runs of the command."""
    struck = dict.fromkeys(ROWS, 0)
    for row, count in re.findall(r"^row (\d+) \(.*\): (\d+)$", "\n".join(told), re.MULTILINE):
        struck[int(row)] += int(count)
    return struck


def test_every_dialect_has_its_turn() -> None:
    assert SEEDS >= 150
    assert len(services()) <= SEEDS // PARTS


@pytest.mark.soak
def test_thousands_of_seeds_lose_nothing() -> None:
    ended = run(f"{SOAKED[0]}-{SOAKED[1] - 1}", 2, SOAK_S_MAX)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-5_000:]
    assert min(struck_in([ended.stdout]).values()) > 0


@pytest.mark.parametrize("service", vendors.services())
def test_every_dialect_says_what_it_rests_on(service: str) -> None:
    """A behaviour has its source, or stands among those without one."""
    assert vendors.dialect(service).sources != ()


@pytest.mark.parametrize("service", services())
def test_every_endpoint_of_an_integration_is_answered_for(service: str) -> None:
    """By a collection of the same name, or as one that only tells of others' deletions."""
    known = {made.name for made in dialect_of(service).collections}
    integration = integration_of(service)
    unanswered = {
        name for name, endpoint in integration.endpoints.items() if endpoint.enabled and not endpoint.tombstones
    }
    assert {integration.family_of(name) for name in unanswered - known} <= {
        integration.family_of(name) for name in known
    }
