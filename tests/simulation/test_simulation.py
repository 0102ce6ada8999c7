"""Histories inside `make test`: at least three hundred seeds, in parts that the workers of a test run share."""

import os
import re
import subprocess
import sys
from contextlib import closing
from typing import Final

import msgspec
import pytest

from tests.compactor.observed import seen
from tests.simulation.every_fault import FAULTS
from tests.simulation.loop import VirtualLoop
from tests.simulation.oracle import repeated
from tests.simulation.run import FAULTS_MIN, Report, rows_of, simulate
from tests.simulation.vendor import TENANTS
from tests.simulation.world import Scale, World

SEEDS: Final = 304
PARTS: Final = 8  # each far below the bound on one test (pyproject.toml: faulthandler_timeout)
REPLAYED: Final = "0-3"
PART_S_MAX: Final = 235.0


def _simulated(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, PYTHONHASHSEED="0")  # noqa: TID251  what a subprocess inherits
    command = [sys.executable, "-m", "tests.simulation", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PART_S_MAX, check=False)


@pytest.mark.parametrize("part", range(PARTS))
def test_whatever_happens_the_lake_equals_its_source(part: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Lost 0, doubled 0, wrong 0, stalls 0: else the command ends with 1, and prints which seed to replay. Whoever is
    the last of all parts sees that every row struck."""
    first, last = part * SEEDS // PARTS, (part + 1) * SEEDS // PARTS - 1
    ended = _simulated("--seeds", f"{first}-{last}", "--jobs", "1")
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout[-20_000:] + ended.stderr[-5_000:]
    (told,) = (line for line in ended.stdout.splitlines() if line.startswith("struck"))
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # noqa: TID251  all workers of this run
    (shared / f"struck-{part}").write_text(told)
    parts = [path.read_text() for path in shared.glob("struck-*")]
    if len(parts) == PARTS:
        struck = {int(row) for line in parts for row in re.findall(r"(\d+): \d+", line)}
        assert struck == set(FAULTS)


def test_a_seed_replays_exactly() -> None:
    """A digest is of everything that happened, in its order; other seeds ran before it in one of the two."""
    once, again = (_digests("--seeds", REPLAYED, "--jobs", jobs) for jobs in ("1", "2"))
    assert len(once) == 4
    assert once == again


def _digests(*arguments: str) -> list[str]:
    told = _simulated(*arguments, "--digests").stdout
    return sorted(line for line in told.splitlines() if line.startswith("digest"))


def test_the_plan_has_every_row_and_half_of_all_seeds_reshard() -> None:
    planned = [rows_of(seed) for seed in range(SEEDS)]
    resharding = sum(any(FAULTS[row].reshards for row in rows) for rows in planned)
    assert {row for rows in planned for row in rows} == set(FAULTS)
    assert resharding >= SEEDS // 2
    assert min(len(rows) for rows in planned) >= FAULTS_MIN


def test_a_report_counts_what_it_found() -> None:
    from tests.simulation.oracle import Finding

    report = Report(1, (Finding("lost", "a"), Finding("wrong", "b")), {}, (), 200, 0, 0, 0, 0, 0, "")
    assert (report.count("lost"), report.count("doubled")) == (1, 0)


def test_what_a_file_holds_twice_is_found_whatever_its_label_and_what_another_request_saw_is_not_the_same() -> None:
    """As after a gap (seed 1588): all remembered deletions are published again, from another source."""
    gone = msgspec.structs.replace(seen(None, 1), evidence="sweep", source="GET tickets/1 not found", label="deleted")
    again = msgspec.structs.replace(gone, source="tickets: deleted before", label="repeated")
    assert repeated([gone, again]) == 0
    assert repeated([gone, again, msgspec.structs.replace(gone, label="late")]) == 1


def test_customers_who_go_home_early_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_: World) -> None:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(World, "customers_work", fail)
    report = simulate(0, [], scale=Scale(records=4, changes=50, work_s=40.0, observations_min=20))
    assert [finding.kind for finding in report.findings] == ["crashed"]


def test_before_anything_was_published_nothing_was_seen_to_be_gone() -> None:
    with closing(VirtualLoop()) as loop:
        assert not World(loop, 0).vendor.seen_gone(TENANTS[0], "tickets", 1)
