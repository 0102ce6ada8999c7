"""How fast, as ratios within one run: this machine is shared and noisy, seconds mean little (`make bench`)."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from time import perf_counter

import msgspec
import pytest

from services.contracts.events import ChangeEvent
from services.contracts.fold import fold
from services.contracts.partitions import Partition
from services.contracts.rows import observation_of
from services.runtime.envelopes import seal, unseal
from services.runtime.mapping_files import load_mappings
from services.sandbox.sites import Keys
from services.sandbox.world import World
from services.transformer.mapper import Mapper
from services.transformer.pinned import shipped

pytestmark = pytest.mark.bench

TICKETS = 5_000
ROUNDS = 3
TIME = "2026-01-01T00:00:00.000000Z"


@pytest.fixture(scope="module")
def events() -> list[ChangeEvent]:
    world = World(lambda: datetime.now(UTC), Random(1))
    world.add_site("acme", Keys("acme", "a", "b", "c"))
    world.populate("acme", {"service/tickets": TICKETS}, minimum=1)
    return [
        ChangeEvent("acme", "connectwise", "tickets", str(number), "upsert", TIME, TIME, payload=msgspec.Raw(raw))
        for number, raw in world.current("acme", "service/tickets").items()
    ]


def best(work: Callable[[], object]) -> float:
    """Seconds of the fastest of a few rounds."""
    found = []
    for _ in range(ROUNDS):
        started = perf_counter()
        work()
        found.append(perf_counter() - started)
    return min(found)


def test_mapping_a_ticket_beside_only_parsing_it(events: list[ChangeEvent]) -> None:
    mapper = Mapper(shipped(load_mappings(), "acme", "connectwise")["tickets"])
    parsing = best(lambda: [json.loads(bytes(event.payload)) for event in events])  # type: ignore[arg-type]
    mapping = best(lambda: [mapper.map(event) for event in events])
    count, columns = len(events), len(mapper.table.all_columns())
    print(
        f"\nmapping {columns} columns: {count / mapping:,.0f} events/s, {mapping / parsing:.1f} times json.loads alone"
    )


def test_an_envelope_beside_one_record_an_event(events: list[ChangeEvent]) -> None:
    lines = [msgspec.json.encode(event) for event in events]
    envelopes = seal(Partition("acme", "connectwise", "tickets"), "tickets", lines)
    before, after = sum(map(len, lines)), sum(len(envelope.data) for envelope in envelopes)
    opening = best(lambda: [unseal(e.header, e.data[8 + int.from_bytes(e.data[4:8], "big") :]) for e in envelopes])
    print(
        f"\nenvelopes: {len(lines):,} events in {len(envelopes)} Kinesis records, {before / after:.1f} times smaller; "
        f"opened at {len(lines) / opening:,.0f} events/s"
    )


def test_folding_beside_sorting(events: list[ChangeEvent]) -> None:
    mapper = Mapper(shipped(load_mappings(), "acme", "connectwise")["tickets"])
    mapped = [canonical for event in events if (canonical := mapper.map(event)) is not None]
    seen = [observation_of(event) for event in mapped]
    entities = [seen[start : start + 10] for start in range(0, len(seen), 10)]
    sorting = best(lambda: [sorted(one, key=lambda o: (o.effective_at, o.observed_at)) for one in entities])
    folding = best(lambda: [fold(one) for one in entities])
    print(f"\nfold: {len(seen) / folding:,.0f} observations/s, {folding / sorting:.1f} times sorting them")
