"""What merging into a large table costs, and what reading a little of it (`make bench-table`, some minutes).

Two tables, the second with nine million closed rows besides; merges of both in turn, so that what else the machine does
meets both alike. Bytes are everything a merge writes: data, deletes, manifests, metadata, and rewriting of files.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from time import perf_counter
from urllib.parse import urlsplit

import msgspec
import pytest

from services.compactor.history import Watermark
from services.compactor.iceberg import Warehouse
from services.compactor.local_table import local_warehouse
from services.compactor.merge import merge
from services.compactor.parquet import canonical_file, observations, read
from tests.compactor.large import TICKETS, changes, fill
from tests.compactor.observed import TENANT

pytestmark = pytest.mark.bench

CURRENT, VERSIONS = 1_000_000, 10
CHANGES = 1_000  # of one merge
TURNS = 12
LONG_TURNS = 270  # until files that lost rows at random have been rewritten


class Cost(msgspec.Struct):
    """Seconds of each merge, and bytes of all."""

    seconds: list[float] = []
    bytes: int = 0

    @property
    def median(self) -> float:
        return sorted(self.seconds)[len(self.seconds) // 2]


class Bench:
    """A large table and what merging into it has cost, by the kind of change."""

    def __init__(self, warehouse: Warehouse, versions: int) -> None:
        self.warehouse, self.turn, self.costs = warehouse, 0, dict[str, Cost]()
        history = fill(warehouse, CURRENT, versions, remembered=500_000)
        self.folder = Path(urlsplit(history.versions.table.location()).path).parents[1]
        files = history.versions.files.values()
        self.current_bytes = sum(file.data.file_size_in_bytes for file in files if file.value)
        self.all_bytes = sum(file.data.file_size_in_bytes for file in files)

    def merge(self, kind: str, recent: float, late: float = 0.0) -> None:
        self.turn += 1
        events = changes(Random(self.turn), CURRENT, CHANGES, recent, late, self.turn)
        batch = observations(read(canonical_file(events, TICKETS, {})), TICKETS)
        cost, before = self.costs.setdefault(kind, Cost()), self._sizes()
        started = perf_counter()
        merge(self.warehouse.history(TENANT, TICKETS), TENANT, TICKETS, batch, Watermark("s", {"c/0": self.turn}))
        cost.seconds.append(perf_counter() - started)
        cost.bytes += sum(size for path, size in self._sizes().items() if path not in before)

    def _sizes(self) -> dict[Path, int]:
        return {path: path.stat().st_size for path in self.folder.rglob("*") if path.is_file()}

    def share(self, kind: str) -> float:
        """Bytes of one merge as a share of those of the current rows."""
        cost = self.costs[kind]
        return cost.bytes / len(cost.seconds) / self.current_bytes


@pytest.fixture(scope="module")
def tables() -> Iterator[tuple[Bench, Bench]]:
    with ExitStack() as stack:
        alone, long = (Bench(stack.enter_context(local_warehouse()), versions) for versions in (1, VERSIONS))
        print(
            f"\ncurrent rows alone: {alone.all_bytes / 1e6:.0f} MB; with their history: {long.all_bytes / 1e6:.0f} MB"
        )
        yield alone, long


@pytest.mark.parametrize(
    ("kind", "recent", "late", "ratio_max"),
    [("90/10", 0.9, 0.0, 1.2), ("uniform", 0.0, 0.0, 1.2), ("90/10, 5 % late by a year", 0.9, 0.05, 4.0)],
)
def test_history_does_not_make_merges_slower(
    tables: tuple[Bench, Bench], kind: str, recent: float, late: float, ratio_max: float
) -> None:
    alone, long = tables
    for _ in range(TURNS):
        alone.merge("90/10" if late else kind, recent)
        long.merge(kind, recent, late)
    base, own = alone.costs["90/10" if late else kind], long.costs[kind]
    ratio = own.median / base.median
    print(
        f"\n{kind}: {CHANGES:,} changes into {CURRENT:,} current rows {base.median:.2f} s, with "
        f"{CURRENT * (VERSIONS - 1):,} closed ones {own.median:.2f} s ({ratio:.2f} times; at most {ratio_max}); "
        f"{long.share(kind):.2%} of the current rows' bytes"
    )
    assert ratio <= ratio_max


@pytest.mark.parametrize(("kind", "recent"), [("long 90/10", 0.9), ("long uniform", 0.0)])
def test_a_merge_writes_little_its_share_of_rewriting_included(kind: str, recent: float) -> None:
    with local_warehouse() as warehouse:
        bench = Bench(warehouse, 1)
        for _ in range(LONG_TURNS):
            bench.merge(kind, recent)
        files = warehouse.history(TENANT, TICKETS).versions.files.values()
        dead, rows = sum(file.extent.dead for file in files), sum(file.extent.rows for file in files)
        print(
            f"\n{kind}: {LONG_TURNS} merges, each {bench.share(kind):.2%} of the current rows' bytes, "
            f"{bench.costs[kind].median:.2f} s, the longest {max(bench.costs[kind].seconds):.1f} s; "
            f"{len(files)} files, {dead / rows:.0%} of their rows dead"
        )
        assert bench.share(kind) <= 0.05
