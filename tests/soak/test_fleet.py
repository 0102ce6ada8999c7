"""Three workers of each service on the embedded AWS, under load: killed again and again, and stopped as they should be.

Run by `make soak`; the figures show with `ARGS=-rP`.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest

from services.contracts.ports import Row
from services.runtime.settings import Settings
from services.sandbox.embedded import LEASE_S
from tests.soak.fleet import NEVER, Ended, Yard, counts, span, within, yard
from tests.whole.plant import SERVICE

pytestmark = [pytest.mark.soak, pytest.mark.emulator]

KILLING_S: Final = 60.0
KILL_EVERY_S: Final = 5.0
TAKEOVER_MAX_S: Final = 1.5 * LEASE_S
RELEASE_MAX_S: Final = 5.0
STOP_EVERY_S: Final = 6.0
POLL_S: Final = 0.25


async def test_a_fleet_that_is_killed_again_and_again_brings_everything_to_the_lake_once(
    settings: Settings, tmp_path: Path
) -> None:
    async with yard(settings, tmp_path) as made:
        async with living(made):
            kills = await killed(made)
            await all_taken(made, kills)
        took = [span(made.watch.taken(at, epoch), kill) for kill in kills for at, epoch in kill.held.items()]
        again = made.fleet.counted("EventsReadAgain")
        await made.fleet.stop()
        differences = await made.differences()
        print(
            f"\n{len(kills)} kills ({counts(kill.name.partition('-')[0] for kill in kills)}) under {made.changes:,} "
            f"changes at the vendor; {again:,} events read again\n"
            f"from kill to takeover of {len(took)} shards: {within(took)}; 1.5 lease times: {TAKEOVER_MAX_S:.0f} s\n"
            f"lake and source differ in {len(differences)} places"
        )
        assert differences == []
        assert made.watch.backwards == []
        assert made.fleet.notes == []
        assert again > 0, "no kill struck work in hand"
        assert max(one.after for one in took) <= TAKEOVER_MAX_S


async def test_a_worker_that_is_asked_to_stop_lets_go_at_once_and_nothing_is_done_twice(
    settings: Settings, tmp_path: Path
) -> None:
    async with yard(settings, tmp_path) as made:
        async with living(made):
            stops = await rolled(made)
            await all_taken(made, stops)
        let_go = [span(made.watch.let_go(at, epoch), stop) for stop in stops for at, epoch in stop.held.items()]
        took = [span(made.watch.taken(at, epoch), stop) for stop in stops for at, epoch in stop.held.items()]
        await made.fleet.stop()
        await made.watch.look()
        transformed, cut = await expected(made)
        said = made.fleet.counted("EventsTransformed"), made.fleet.counted("CutCommitted", "rows")
        again = made.fleet.counted("EventsReadAgain")
        differences = await made.differences()
        print(
            f"\n{len(stops)} workers stopped and started again under {made.changes:,} changes at the vendor\n"
            f"from SIGTERM until {len(let_go)} shards were let go: {within(let_go)}\n"
            f"until they were taken by another: {within(took)}\n"
            f"{transformed:,} events committed by transformers, {said[0]:,} transformed; {cut:,} committed by "
            f"compactors, {said[1]:,} written; {again} read again\n"
            f"lake and source differ in {len(differences)} places"
        )
        assert differences == []
        assert again == 0
        assert said == (transformed, cut)
        assert made.watch.backwards == []
        assert made.fleet.notes == []
        assert max(one.after for one in let_go) <= RELEASE_MAX_S


@asynccontextmanager
async def living(made: Yard) -> AsyncIterator[None]:
    """The customers at work meanwhile."""
    work = asyncio.create_task(made.live())
    try:
        yield
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def killed(made: Yard) -> list[Ended]:
    """Of each service in turn the process with most shards, every KILL_EVERY_S; it is started again by itself."""
    kills: list[Ended] = []
    services, began = list(made.fleet.sharing), made.clock.monotonic()
    while made.clock.monotonic() - began < KILLING_S:
        name, held = await made.busiest(services[len(kills) % len(services)])
        at = made.clock.monotonic()
        made.fleet.children[name].kill()
        kills.append(Ended(name, at, held))
        made.orphaned |= held.items()
        await made.clock.sleep(KILL_EVERY_S)
    return kills


async def rolled(made: Yard) -> list[Ended]:
    """Every process once: SIGTERM, and another one in its place."""
    stops: list[Ended] = []
    for name in [name for names in zip(*made.fleet.sharing.values(), strict=True) for name in names]:
        held = made.fleet.held(name, await made.watch.look())
        stops.append(Ended(name, made.clock.monotonic(), held))
        await made.fleet.stop(name)
        made.fleet.start(name)
        await made.clock.sleep(STOP_EVERY_S)
    return stops


async def all_taken(made: Yard, ended: list[Ended]) -> None:
    """Until everything that was held has another owner, or should have had one long ago."""
    until = made.clock.monotonic() + 2 * TAKEOVER_MAX_S
    wanted = [(at, epoch) for one in ended for at, epoch in one.held.items()]
    while made.clock.monotonic() < until and any(made.watch.taken(*one) is NEVER for one in wanted):
        await made.clock.sleep(POLL_S)


async def expected(made: Yard) -> tuple[int, int]:
    """How many events the transformers and the compactors have committed, by the rows and what lies in the streams."""
    names, integration = made.runtime.names, made.plant.mappings.integrations[SERVICE]
    mapped = {name for name, endpoint in integration.endpoints.items() if endpoint.canonical is not None}
    rows = {(*scope.split("/")[:2], shard): row for (scope, shard), row in made.watch.rows.items()}
    transformed = cut = 0
    for stream in (names.raw_stream, names.canonical_stream):
        async for shard, sequence, header in made.headers(stream):
            compactor = rows["compactor", stream, shard]
            if sequence <= int(compactor.get("position") or 0) and not any(
                first <= sequence <= last for first, last in in_no_file(compactor)
            ):
                cut += header.count
            if stream == names.raw_stream and header.endpoint in mapped:
                committed = int(rows["transformer", stream, shard].get("position") or 0)
                transformed += header.count if sequence <= committed else 0
    return transformed, cut


def in_no_file(row: Row) -> list[tuple[int, int]]:
    """What of a compactor's shard is committed and not cut yet, by sequences: recorded as a cut, or spooled."""
    cut, position = row.get("cut"), int(row.get("position") or 0)
    recorded = [(int(cut["first"]), int(cut["last"]))] if cut else []
    return [*recorded, (int(row["first"]), position)] if row.get("first") else recorded
