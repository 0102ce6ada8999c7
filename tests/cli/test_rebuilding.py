"""A rebuild over the ports in memory and real tables in a folder: alone, beside running services, killed in between."""

import asyncio
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from services.cli import rebuilding
from services.cli.rebuilding import Rebuilder, Rebuilt, settled_at
from services.cli.screen import Screen
from services.compactor.iceberg import Warehouse
from services.compactor.local_table import local_warehouse, version_rows
from services.compactor.service import Compactor
from services.contracts.errors import FatalError
from services.contracts.events import ChangeEvent
from services.contracts.log import TableRebuilt
from services.contracts.mapping_files import MappingFiles
from services.contracts.rows import folded_rows, reading_order
from services.contracts.schema import CanonicalTable, Column
from services.contracts.times import shifted
from services.runtime.runtime import Runtime
from services.transformer.catalogue import AGE_MAX_S
from services.transformer.pinned import Pinned, shipped
from services.transformer.rederive import Rederiver
from services.transformer.service import Transformer
from tests.transformer.world import FIELDS, TICKETS, World, files, gone, ticket, time

# Hours become text, and the modification time counts from now on: both wait for a rebuild.
WIDER = CanonicalTable("tickets", {**TICKETS.columns, "hours": Column("string"), "last_updated": Column("timestamp")})
OLD, NEW = files(), files(FIELDS, WIDER)
EVENTS = [ticket("1", 1), ticket("1", 2, touched=1), ticket("1", 3, "Monitor"), ticket("2", 1), gone("2", 4)]


class Town(World):
    """A world with a lake. Workers come and go."""

    def __init__(self, warehouse: Warehouse) -> None:
        super().__init__()
        self.warehouse = warehouse
        self.sent: list[ChangeEvent] = []

    async def send(self, *events: ChangeEvent) -> None:
        self.sent += events
        await self.publish(*events)

    async def round(self, mappings: MappingFiles = OLD) -> None:
        """As `run --once` does."""
        async with self.beside() as runtime:
            await Transformer(runtime, mappings).drain()
            await Compactor(runtime, mappings.tables, self.warehouse.history).drain()

    @asynccontextmanager
    async def beside(self, *parts: Callable[[Runtime, asyncio.Event], Awaitable[None]]) -> AsyncIterator[Runtime]:
        """A runtime whose leases are renewed, and what runs on it until the block ends."""
        runtime, stopping = self.runtime(), asyncio.Event()
        renewing = asyncio.ensure_future(runtime.leases.renew_forever())
        running = [asyncio.ensure_future(part(runtime, stopping)) for part in parts]
        try:
            yield runtime
            stopping.set()
            await asyncio.gather(*running)
        finally:
            for task in (*running, renewing):
                task.cancel()
            await asyncio.gather(*running, renewing, return_exceptions=True)
            await runtime.leases.release_all()

    async def rebuild(self, mappings: MappingFiles = NEW, service: str | None = None) -> Rebuilt:
        async with self.beside() as runtime:
            screen = Screen(io.StringIO(), io.StringIO())
            rebuilder = Rebuilder(runtime, self.warehouse, mappings, "tickets", service, screen)
            (done,) = await rebuilder.rebuild(await rebuilder.plans())
        return done

    def versions(self, table: CanonicalTable) -> list[dict[str, Any]]:
        return sorted(version_rows(self.warehouse, "acme", table), key=reading_order)

    def wanted(self, mappings: MappingFiles, number: int = 1) -> list[dict[str, Any]]:
        return folded(self.sent, shipped(mappings, "acme", "desk", number)["tickets"])


def folded(events: Sequence[ChangeEvent], pinned: Pinned) -> list[dict[str, Any]]:
    """The oracle: every event through the mapping, then the pure fold."""
    return folded_rows(Rederiver(pinned).rederive(events, time(0)).events, {"tickets": pinned.table})


@pytest.fixture
def town() -> Iterator[Town]:
    with local_warehouse() as warehouse:
        yield Town(warehouse)


async def test_a_change_that_waits_comes_into_force_with_the_rebuild_and_live_goes_on_with_it(town: Town) -> None:
    await town.send(*EVENTS)
    await town.round()
    await town.send(ticket("3", 5, hours="many"))
    await town.round(NEW)
    assert town.versions(TICKETS) == town.wanted(OLD)
    done = await town.rebuild()
    assert (done.mappings, done.events, done.rejected, done.code) == ({"desk": 2}, 6, 0, "")
    assert (done.versions_before, done.versions) == (3, 5)
    assert town.versions(WIDER) == town.wanted(NEW, 2)
    await town.send(ticket("1", 2, "Late"), ticket("3", 9))
    await town.round(NEW)
    assert town.versions(WIDER) == town.wanted(NEW, 2)
    assert [(event.events, event.rows) for event in town.said if isinstance(event, TableRebuilt)] == [(6, 5)]


async def test_what_nobody_read_or_merged_yet_is_in_the_table_once_and_made_with_the_new_mapping(town: Town) -> None:
    await town.send(*EVENTS[:2])
    await town.round()
    await town.send(EVENTS[2])
    async with town.beside() as runtime:
        await Transformer(runtime, OLD).drain()
    await town.send(*EVENTS[3:])
    done = await town.rebuild()
    assert done.events == len(EVENTS)
    assert town.versions(WIDER) == town.wanted(NEW, 2)
    await town.round(NEW)
    assert town.versions(WIDER) == town.wanted(NEW, 2)
    assert [key for key in town.letters() if "/merge/" in key] == []


async def test_a_record_the_new_mapping_cannot_use_is_a_dead_letter_written_once(town: Town) -> None:
    await town.send(*EVENTS, ticket("3", 5, hours="many"))
    await town.round(NEW)
    done = await town.rebuild(OLD)
    assert (done.rejected, len(town.letters())) == (1, 1)
    await town.rebuild(OLD)
    assert len(town.letters()) == 1
    assert town.versions(TICKETS) == town.wanted(OLD, 2)


async def test_files_that_say_the_same_make_the_same_table_again_under_the_same_number(town: Town) -> None:
    await town.send(*EVENTS)
    await town.round()
    before = town.versions(TICKETS)
    done = await town.rebuild(OLD)
    assert (done.mappings, done.versions, town.versions(TICKETS)) == ({"desk": 1}, len(before), before)


@pytest.mark.parametrize("mappings", [NEW, OLD], ids=["changed", "the same"])
async def test_a_rebuild_beside_running_services_loses_and_doubles_nothing(
    mappings: MappingFiles, town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Services run with the former files all the time; the vendor never stops."""
    monkeypatch.setattr(rebuilding, "MARGIN_S", 0.0)  # all clocks are one: what a margin would hide shows
    clock, waited_s = town.clock, list[float]()

    async def vendor(_: Runtime, stopping: asyncio.Event) -> None:
        for number in range(1, 10_000):
            if stopping.is_set():
                return
            await town.send(ticket(str(number % 7), number, f"v{number // 9}", touched=number // 3))
            if number % 5 == 0:
                await town.send(gone(str(number % 7), number))
            await clock.sleep(17)

    async def transformer(runtime: Runtime, stopping: asyncio.Event) -> None:
        await Transformer(runtime, OLD).run(stopping)

    async def compactor(runtime: Runtime, stopping: asyncio.Event) -> None:
        await Compactor(runtime, OLD.tables, town.warehouse.history).run(stopping)

    async with town.beside(transformer), town.beside(compactor):
        async with town.beside(vendor):
            await clock.sleep(700)
            for _ in range(2):
                started = clock.monotonic()
                assert (await town.rebuild(mappings)).code == ""
                waited_s.append(clock.monotonic() - started)
            await clock.sleep(300)
        await clock.sleep(1_000)
    table = mappings.tables["tickets"]
    assert town.versions(table) == town.wanted(mappings, 2 if mappings is NEW else 1)
    assert town.letters() == {}
    noticed_s = AGE_MAX_S if mappings is NEW else 0.0
    assert noticed_s < waited_s[0] < noticed_s + 600
    assert waited_s[1] < 600


async def test_where_transformers_run_and_nobody_cuts_we_do_it_ourselves(town: Town) -> None:
    async def transformer(runtime: Runtime, stopping: asyncio.Event) -> None:
        await Transformer(runtime, OLD).run(stopping)

    await town.send(*EVENTS)
    await town.round()
    async with town.beside(transformer):
        await town.clock.sleep(60)
        await town.send(ticket("3", 5))
        assert (await town.rebuild()).events == len(EVENTS) + 1
    assert town.versions(WIDER) == town.wanted(NEW, 2)


async def test_a_compactor_that_never_cuts_ends_it_with_a_word_and_again_goes_on_at_once(town: Town) -> None:
    async def transformer(runtime: Runtime, stopping: asyncio.Event) -> None:
        await Transformer(runtime, OLD).run(stopping)

    async def stuck(runtime: Runtime, stopping: asyncio.Event) -> None:
        info = await runtime.streams.describe(runtime.names.raw_stream)
        for shard in info.shards:
            await runtime.leases.acquire(f"compactor/{runtime.names.raw_stream}/{info.created}", shard.shard_id)
        while not stopping.is_set():
            for lease in runtime.leases.held:
                lease.alive()
            await town.clock.sleep(1)

    await town.send(*EVENTS)
    await town.round()
    before = town.versions(TICKETS)
    async with town.beside(transformer):
        async with town.beside(stuck):
            with pytest.raises(FatalError, match=r"not cut into raw/ after 20 min.*goes on from here"):
                await town.rebuild()
        assert town.versions(TICKETS) == before
        started = town.clock.monotonic()
        assert (await town.rebuild()).mappings == {"desk": 2}
        assert town.clock.monotonic() - started < 60
    assert town.versions(WIDER) == town.wanted(NEW, 2)


async def test_killed_between_pin_and_swap_the_old_table_stands_until_it_is_run_again(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    await town.send(*EVENTS)
    await town.round()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rebuilding, "swap", killed)
        with pytest.raises(KeyboardInterrupt):
            await town.rebuild()
    assert town.versions(TICKETS) == town.wanted(OLD)
    await town.send(ticket("3", 5))
    async with town.beside() as runtime:
        await Transformer(runtime, NEW).drain()
    assert (await town.rebuild()).mappings == {"desk": 2}
    await town.round(NEW)
    assert town.versions(WIDER) == town.wanted(NEW, 2)


async def test_a_lake_without_its_raw_archive_is_not_emptied(town: Town) -> None:
    await town.send(*EVENTS)
    await town.round()
    before = town.versions(TICKETS)
    await town.objects.delete([key for key in town.objects.held if "/raw/" in key])
    done = await town.rebuild()
    assert (done.code, "raw/ holds nothing" in done.what) == ("not_found", True)
    assert town.versions(TICKETS) == before


async def test_a_mapping_that_has_no_use_for_what_it_reads_leaves_the_old_table(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuilding, "LETTERS_MAX", 1)
    await town.send(*EVENTS)
    await town.round()
    broken = files({**FIELDS, "hours": "summary"})
    done = await town.rebuild(broken)
    assert (done.code, "column hours" in done.what) == ("bad_mapping", True)
    assert town.versions(TICKETS) == town.wanted(OLD)
    assert (await town.rebuild()).mappings == {"desk": 3}
    assert town.versions(WIDER) == town.wanted(NEW, 3)


async def test_of_two_services_one_is_pinned_anew_and_the_other_made_again_as_it_was(town: Town) -> None:
    berlin = [msgspec.structs.replace(event, service="desk:berlin") for event in EVENTS]
    await town.send(*EVENTS)
    await town.publish(*berlin)
    await town.round()
    renamed = files({**FIELDS, "summary": "id"})
    done = await town.rebuild(renamed, service="desk")
    assert done.mappings == {"desk": 2, "desk:berlin": 1}
    other = folded(berlin, shipped(OLD, "acme", "desk:berlin")["tickets"])
    assert town.versions(TICKETS) == sorted([*town.wanted(renamed, 2), *other], key=reading_order)
    refused = await town.rebuild(NEW, service="desk")
    assert "contradict each other: column hours is string for desk and decimal for desk:berlin" in refused.what
    assert (await town.rebuild(NEW)).mappings == {"desk": 3, "desk:berlin": 2}


PINNED = msgspec.structs.replace(shipped(OLD, "acme", "desk", 2)["tickets"], rebuilt=2, rebuilt_at=time(0))


@pytest.mark.parametrize(
    ("floors", "at"), [({}, shifted(time(0), seconds=600)), ({"desk": 1}, time(600)), ({"desk": 2}, time(3_000))]
)
def test_what_has_to_be_in_raw_follows_from_the_pin_until_the_table_has_it(floors: dict[str, int], at: str) -> None:
    assert settled_at({"desk": PINNED}, floors, time(3_000)) == at
    never = msgspec.structs.replace(PINNED, rebuilt=0, rebuilt_at=None)
    assert settled_at({"desk": PINNED, "desk:berlin": never}, floors, time(3_000)) == time(3_000)
