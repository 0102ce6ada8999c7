"""What a stream dropped before it was read comes to the lake all the same (faults.md rows 30, 31 and 56).

The services themselves, from a vendor to the tables, over streams that keep a record for a day.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.compactor import parquet
from services.compactor.cuts import Rules
from services.compactor.healing import LEASE_SCOPE, Healing, Round
from services.compactor.service import Compactor
from services.contracts.errors import RetryableError
from services.contracts.gaps import Gap, GapRules, Policy
from services.contracts.log import GapHealed, PositionExpired, WaitingFor
from services.contracts.mapping_files import MappingFiles
from services.contracts.partitions import Partition
from services.contracts.schema import CanonicalTable, Column
from services.runtime.gaps import HaltedError, gaps
from services.runtime.runtime import Runtime
from services.transformer.service import Transformer
from tests.compactor.memory_history import MemoryHistories
from tests.extractor.world import NAMES, TICKETS, World, integration, opened
from tests.fakes import MemoryStreams

DAY_S = 86_400.0
TABLE = CanonicalTable("tickets", {"id": Column("string"), "name": Column("string")})
MAPPED = TICKETS | {"canonical": {"table": "tickets", "fields": {"id": "id", "name": "name"}}}


class Mill:
    """Vendor, extractor, transformer, compactor; each works once when it is told to, by a new worker."""

    def __init__(self, world: World, policy: Policy = "continue") -> None:
        self.world, self.histories = world, MemoryHistories()
        self.rules = GapRules(DAY_S, policy)
        world.streams = MemoryStreams(world.clock, [NAMES.raw_stream, NAMES.canonical_stream], 2, DAY_S)
        world.mappings = MappingFiles({"desk": integration({"tickets": MAPPED})}, {"tickets": TABLE})

    async def change(self, days: float, **names: str) -> None:
        """Records of the vendor by number; then time passes."""
        for number, name in names.items():
            self.world.vendor.put("tickets", int(number.removeprefix("n")), name=name)
        await self.extract()
        self.world.clock.advance(days * DAY_S)

    async def extract(self) -> None:
        assert (await self.world.run()).complete

    async def transform(self) -> None:
        runtime = self.world.runtime()
        await _renewed(runtime, Transformer(runtime, self.world.mappings, gaps=self.rules).drain())

    async def compact(self) -> None:
        runtime = self.world.runtime()
        await _renewed(runtime, self._compactor(runtime).drain())

    async def archive(self) -> None:
        """The raw stream alone."""
        runtime = self.world.runtime()
        await _renewed(runtime, self._compactor(runtime).archive())

    def _compactor(self, runtime: Runtime) -> Compactor:
        rules = Rules(gaps=self.rules)
        return Compactor(runtime, {"tickets": TABLE}, self.histories, rules)

    async def all(self) -> None:
        await self.extract()
        await self.transform()
        await self.compact()

    async def heal(self) -> Round:
        runtime = self.world.runtime()
        return await Healing(runtime, self.world.mappings.integrations, self.rules).heal_once()

    async def gaps(self) -> list[Gap]:
        return await gaps(self.world.runtime())

    @property
    def lake(self) -> list[tuple[str, str, bool]]:
        """Every version: record, name, whether it is current."""
        held = self.histories("acme", TABLE)._held
        return [(row["record_id"], row["name"], row["is_current"]) for row in held.rows]

    @property
    def raw(self) -> set[tuple[str, str]]:
        """Records and names in the raw archive."""
        keys = [key for key in self.world.objects.held if "/raw/" in key]
        events = [event for key in keys for event in parquet.raw_events(self.world.objects.held[key])]
        return {(event.record_id, bytes(event.payload or b"").decode().split('"name":"')[1][0]) for event in events}

    def heard(self, kind: Any) -> list[Any]:
        return self.world.heard(kind)


async def _renewed(runtime: Runtime, work: Any) -> None:
    renewing = asyncio.ensure_future(runtime.leases.renew_forever())
    try:
        await work
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)


@asynccontextmanager
async def mill(policy: Policy = "continue") -> AsyncIterator[Mill]:
    async with opened() as world:
        made = Mill(world, policy)
        await made.change(0.1, n1="A", n2="A")
        await made.all()
        yield made


EVERYTHING = [("1", "A", False), ("1", "B", False), ("1", "C", True), ("2", "A", False), ("2", "B", True)]
NOTHING_IS_MISSING: list[Gap] = []


async def test_row_30_what_the_transformer_missed_comes_from_the_raw_archive() -> None:
    async with mill() as works:
        await works.change(0.9, n1="B", n2="B")
        await works.compact()
        await works.change(0.5, n1="C")
        await works.all()
        assert works.lake == [("1", "A", False), ("1", "C", True), ("2", "A", True)]
        missed = await works.gaps()
        assert {(gap.group, gap.stream) for gap in missed} == {("transformer", NAMES.raw_stream)}
        assert len(works.heard(PositionExpired)) == len(missed)
        done = await works.heal()
        assert (done.healed, done.waiting, await works.gaps()) == (len(missed), {}, NOTHING_IS_MISSING)
        archived = sorted(key for key in works.world.objects.held if "/raw/" in key)
        await works.transform()
        await works.compact()
        assert works.lake == EVERYTHING
        assert sorted(key for key in works.world.objects.held if "/raw/" in key) == archived
        assert len(works.heard(GapHealed)) == len(missed)


async def test_row_30_what_the_compactor_missed_of_the_canonical_stream_comes_from_the_raw_archive() -> None:
    async with mill() as works:
        await works.change(0.1, n1="B", n2="B")
        await works.archive()
        await works.transform()
        works.world.clock.advance(0.9 * DAY_S)
        await works.archive()
        works.world.clock.advance(0.9 * DAY_S)
        await works.change(0, n1="C")
        await works.all()
        assert works.lake == [("1", "A", False), ("1", "C", True), ("2", "A", True)]
        assert {(gap.group, gap.stream) for gap in await works.gaps()} >= {("compactor", NAMES.canonical_stream)}
        await works.heal()
        await works.all()
        assert works.lake == EVERYTHING


async def test_what_was_transformed_late_is_looked_for_in_the_hours_in_which_it_had_arrived() -> None:
    async with mill() as works:
        await works.change(0.7, n1="B", n2="B")
        await works.compact()
        works.world.clock.advance(0.1 * DAY_S)
        await works.transform()
        works.world.clock.advance(0.7 * DAY_S)
        await works.archive()
        works.world.clock.advance(0.7 * DAY_S)
        await works.change(0, n1="C")
        await works.all()
        assert works.lake == [("1", "A", False), ("1", "C", True), ("2", "A", True)]
        await works.heal()
        await works.all()
        assert works.lake == EVERYTHING


async def test_of_two_who_would_heal_a_gap_one_does_and_nothing_of_it_stays_but_that_it_was() -> None:
    async with mill() as works:
        await works.change(0.9, n1="B", n2="B")
        await works.compact()
        works.world.clock.advance(0.5 * DAY_S)
        await works.all()
        count = len(await works.gaps())
        done = await asyncio.gather(works.heal(), works.heal())
        assert (sum(one.healed for one in done), len(works.heard(GapHealed))) == (count, count)
        left = [row["scope"] async for row in works.world.rows.scan(NAMES.leases)]
        assert (left.count("heal"), left.count("gaps"), left.count("healed")) == (0, 0, count)


async def test_whoever_fails_at_healing_leaves_the_gap_to_the_next_round() -> None:
    async with mill() as works:
        await works.change(0.9, n1="B", n2="B")
        await works.compact()
        await works.change(0.5, n1="C")
        await works.all()
        works.world.objects.fail_next("get", RetryableError("slow down"))
        assert "slow down" in str((await works.heal()).waiting)
        works.world.rows.lose_next("delete")
        await works.heal()
        await works.heal()
        assert await works.gaps() == NOTHING_IS_MISSING
        await works.transform()
        await works.compact()
        assert works.lake == EVERYTHING


async def test_row_30_what_the_archive_missed_is_read_from_the_vendors_again() -> None:
    async with mill() as works:
        await works.change(0.1, n1="B", n2="B")
        await works.transform()
        works.world.clock.advance(1.5 * DAY_S)
        await works.all()
        assert works.raw == {("1", "A"), ("2", "A")}
        before = works.heard(GapHealed)
        waiting = (await works.heal()).waiting
        assert any("to be read again" in why for why in waiting.values())
        assert works.heard(WaitingFor)
        await works.all()
        assert works.raw == {("1", "A"), ("2", "A"), ("1", "B"), ("2", "B")}
        await works.heal()
        await works.all()
        await works.heal()
        assert await works.gaps() == NOTHING_IS_MISSING
        assert len(works.heard(GapHealed)) > len(before)
        assert works.lake == [("1", "A", False), ("1", "B", True), ("2", "A", False), ("2", "B", True)]


async def test_row_30_what_everybody_missed_comes_back_too() -> None:
    async with mill() as works:
        await works.change(3, n1="B", n2="B")
        for _ in range(3):
            await works.all()
            await works.heal()
        assert await works.gaps() == NOTHING_IS_MISSING
        assert works.lake == [("1", "A", False), ("1", "B", True), ("2", "A", False), ("2", "B", True)]
        assert ("2", "B") in works.raw


async def test_a_gap_waits_while_the_raw_archive_does_not_hold_all_of_its_time() -> None:
    async with mill() as works:
        await works.change(0.9, n1="B", n2="B")
        works.world.clock.advance(0.5 * DAY_S)
        await works.transform()
        assert await works.gaps()
        done = await works.heal()
        assert (done.healed, {"raw/ does not hold yet" in why for why in done.waiting.values()}) == (0, {True})


async def test_what_was_published_again_and_missed_again_is_published_once_more() -> None:
    async with mill() as works:
        await works.change(0.9, n1="B", n2="B")
        await works.archive()
        await works.change(0.5, n1="C")
        await works.all()
        await works.heal()
        await works.transform()  # it is on the canonical stream; and nobody reads that for two days
        works.world.clock.advance(0.9 * DAY_S)
        await works.archive()
        works.world.clock.advance(0.9 * DAY_S)
        await works.all()
        assert works.lake != EVERYTHING
        for _ in range(2):
            await works.heal()
            await works.all()
        assert works.lake == EVERYTHING


async def test_row_56_quiet_shards_that_are_read_are_no_gap() -> None:
    async with mill() as works:
        for _ in range(6):
            works.world.clock.advance(0.5 * DAY_S)
            await works.all()
        assert (await works.gaps(), works.heard(PositionExpired)) == (NOTHING_IS_MISSING, [])


async def test_row_30_with_the_policy_to_halt_a_shard_waits_until_a_person_says_to_go_on() -> None:
    async with mill("halt") as works:
        await works.archive()
        await works.change(0.9, n1="B", n2="B")
        await works.archive()
        await works.change(0.5, n1="C")
        await works.archive()
        with pytest.raises(HaltedError):
            await works.transform()
        assert (await works.heal()).healed == 0
        works.rules = GapRules(DAY_S, "continue")
        await works.transform()
        await works.heal()
        await works.transform()
        await works.compact()
        assert works.lake == EVERYTHING


async def test_row_30_a_shard_that_halts_says_so_and_the_others_go_on() -> None:
    async with mill("halt") as works:
        world, partition = works.world, Partition("acme", "desk", "tickets")
        world.clock.advance(1.5 * DAY_S)
        info = await world.streams.describe(NAMES.raw_stream)
        (live,) = [shard.shard_id for shard in info.shards if shard.hash_range.holds(partition)]
        key = {"scope": f"transformer/{NAMES.raw_stream}/{info.created}", "name": live}
        await world.rows.write(NAMES.leases, key, {"read_to_end_at": world.clock.now()})
        await works.change(0, n1="B")
        stopping, runtime = asyncio.Event(), world.runtime()
        transformer = Transformer(runtime, world.mappings, gaps=works.rules)
        running = asyncio.ensure_future(_renewed(runtime, transformer.run(stopping)))
        await world.clock.sleep(300)
        assert not running.done()
        stopping.set()
        await running
        assert [gap.state for gap in await works.gaps()] == ["halted"]
        assert [
            record for record in world.streams.records(NAMES.canonical_stream) if record.arrived_at > "2026-02-01T23"
        ]
        assert any("AVESA_ON_GAP" in event.why for event in works.heard(WaitingFor))


async def test_row_31_what_was_left_unread_of_a_stream_that_was_made_anew_comes_from_the_raw_archive() -> None:
    async with mill() as works:
        await works.change(0.1, n1="B", n2="B")
        await works.archive()
        works.world.streams.create(NAMES.raw_stream)
        await works.change(0.1, n1="C")
        await works.all()
        assert works.lake == [("1", "A", False), ("1", "C", True), ("2", "A", True)]
        for _ in range(3):
            await works.heal()
            await works.all()
        assert await works.gaps() == NOTHING_IS_MISSING
        assert works.lake == EVERYTHING
        assert {event.group for event in works.heard(PositionExpired)} == {"transformer", "compactor"}


async def test_row_31_what_was_left_unread_of_a_canonical_stream_that_was_made_anew_comes_from_the_raw_archive() -> (
    None
):
    async with mill() as works:
        await works.change(0.1, n1="B", n2="B")
        await works.transform()
        works.world.streams.create(NAMES.canonical_stream)
        await works.change(0.1, n1="C")
        for _ in range(3):
            await works.all()
            await works.heal()
        assert await works.gaps() == NOTHING_IS_MISSING
        assert works.lake == EVERYTHING


async def missed(works: Mill) -> None:
    """The transformer has lost what only the raw archive still holds."""
    await works.change(0.9, n1="B", n2="B")
    await works.compact()
    await works.change(0.5, n1="C")
    await works.all()


async def test_row_29_healing_that_cannot_publish_ends_at_once_when_it_is_to_stop() -> None:
    async with mill() as works:
        await missed(works)
        works.world.streams.fail_next("put", RetryableError("down"), times=1_000)
        runtime, stopping = works.world.runtime(), asyncio.Event()
        running = asyncio.ensure_future(Healing(runtime, works.world.mappings.integrations, works.rules).run(stopping))
        await runtime.clock.sleep(5)
        stopped_at = runtime.clock.monotonic()
        stopping.set()
        await running
        assert runtime.clock.monotonic() - stopped_at < 1
        rows = [row async for row in runtime.rows.query(NAMES.leases, {"scope": LEASE_SCOPE})]
        assert [row.get("owner") for row in rows] == [None]


async def test_row_30_a_file_of_the_archive_that_cannot_be_read_holds_up_its_gap_and_nothing_else() -> None:
    async with mill() as works:
        await missed(works)
        objects = works.world.objects.held
        objects[next(key for key in sorted(objects) if "/raw/" in key)] = b"no Parquet"
        waiting = (await works.heal()).waiting
        assert {gap.name for gap in await works.gaps()} == set(waiting)
        assert set(waiting.values()) == {"internal error: ArrowInvalid"}
