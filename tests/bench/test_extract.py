"""The extractor beside a bare aiohttp loop over the same pages, and beside dlt's `rest_api` source on the same server
(`make bench-extract`, a minute).

Each run is a process of its own and counts its own seconds of CPU; runs take turns and the median counts, so that what
else this machine does meets all alike. What the server spends is nobody's.
"""

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from statistics import median

import msgspec
import pytest

from services.sandbox.sites import Keys
from services.sandbox.world import World
from tests.bench.extract.ours import Measured

pytestmark = pytest.mark.bench

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
PEER = REPOSITORY / ".venv-peer" / "bin" / "python"
TICKETS = 10_000
PAGE = 1_000  # what the extractor asks ConnectWise for at a time
ROUNDS = 5
RUN_S = 180.0
OF_BARE = 0.6
OF_DLT = 5.0


class Bench:
    """A server, what it serves, and what the runs so far have measured, by name."""

    def __init__(self, url: str, directory: Path, ids: int) -> None:
        self._url, self._directory, self._ids = url, directory, ids
        self._cpu_s: dict[str, list[float]] = {}

    def ours(self, task: str) -> None:
        self._run(task, sys.executable, "-m", "tests.bench.extract.ours", task, self._url, str(PAGE))

    def peer(self, task: str) -> None:
        directory = self._directory / f"{task}-{len(self._cpu_s.get(f'dlt {task}', []))}"
        self._run(
            f"dlt {task}", str(PEER), str(HERE / "extract" / "peer.py"), task, self._url, str(PAGE), str(directory)
        )

    def _run(self, name: str, *command: str) -> None:
        """One process, measured; it must have met every record once."""
        done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, timeout=RUN_S, check=True)
        measured = msgspec.json.decode(done.stdout, type=Measured)
        assert (measured.records, measured.ids) == (TICKETS, self._ids), f"{name} lost or doubled: {measured}"
        self._cpu_s.setdefault(name, []).append(measured.cpu_s)

    def pace(self, name: str) -> float:
        """Records per second of CPU, the median of all rounds."""
        return TICKETS / median(self._cpu_s[name])


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    assert PEER.exists(), "dlt has an environment of its own: run `make bench-extract`"
    directory = tmp_path_factory.mktemp("extract")
    world = World(lambda: datetime.now(UTC), Random(1))
    world.add_site("acme", Keys("acme", "a", "b", "c"))
    world.populate("acme", {"service/tickets": TICKETS}, minimum=1)
    tickets = dict(sorted(world.current("acme", "service/tickets").items()))
    file = directory / "tickets.ndjson"
    file.write_bytes(b"\n".join(tickets.values()) + b"\n")
    command = [sys.executable, "-m", "tests.bench.extract.server", str(file), str(PAGE)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            yield Bench(f"http://127.0.0.1:{int(server.stdout.readline())}", directory, sum(tickets))
        finally:
            server.terminate()


def test_the_extractor_beside_a_bare_loop_and_beside_dlt(bench: Bench) -> None:
    for _ in range(ROUNDS):
        bench.ours("bare")
        bench.ours("extract")
        bench.peer("extract")
        bench.peer("run")

    ours = bench.pace("extract")
    print(
        f"\n{TICKETS:,} tickets in pages of {PAGE:,}, median of {ROUNDS} rounds\n"
        f"{'':42}{'records/CPU-s':>14}{'ours, times':>12}"
    )
    for name, what in (
        ("extract", "ours: read, told apart, sealed, published"),
        ("bare", "a bare loop: aiohttp, json, nothing kept"),
        ("dlt extract", "dlt, its first step: pages to files"),
        ("dlt run", "dlt, all three: to JSON lines where they go"),
    ):
        print(f"{what:42}{bench.pace(name):14,.0f}{ours / bench.pace(name):12.2f}")
    assert ours >= OF_BARE * bench.pace("bare"), (
        f"{ours / bench.pace('bare'):.0%} of a bare loop, the goal is {OF_BARE:.0%}"
    )
    assert ours >= OF_DLT * bench.pace("dlt run"), f"{ours / bench.pace('dlt run'):.1f} times dlt, the goal is {OF_DLT}"
