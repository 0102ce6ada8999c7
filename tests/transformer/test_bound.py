"""Fleets bound to some tables: what each reads, where each stands, and what one's trouble is to the others."""

from pathlib import Path

import msgspec
import pytest

from services.contracts.errors import FatalError, UsageError
from services.contracts.fields import Call, CanonicalMapping
from services.contracts.mapping_files import MappingFiles
from services.contracts.partitions import Partition
from services.contracts.schema import CanonicalTable, Column
from services.runtime.envelopes import seal
from services.runtime.mapping_files import load_mappings
from services.transformer.catalogue import check
from services.transformer.groups import WATCH_S, Binding, join, remembered
from tests.transformer.world import NAMES, World, files, ticket

TICKETS = Binding("transformer-tickets", ("tickets",))
NOTES = Binding("transformer-notes", ("notes",))
BOTH = Binding("transformer-tickets", ("notes", "tickets"))


def two_tables() -> MappingFiles:
    """As `files`, with notes in a table of their own."""
    known = files()
    desk = known.integrations["desk"]
    notes = msgspec.structs.replace(desk.endpoints["notes"], canonical=CanonicalMapping("notes", {"id": "id"}))
    desk = msgspec.structs.replace(desk, endpoints={**desk.endpoints, "notes": notes})
    return MappingFiles({"desk": desk}, {**known.tables, "notes": CanonicalTable("notes", {"id": Column("string")})})


async def publish(world: World, *record_ids: str) -> None:
    """A ticket and a note of each."""
    await world.publish(*(ticket(one) for one in record_ids), *(ticket(one, endpoint="notes") for one in record_ids))


def told(world: World) -> list[tuple[str, str]]:
    return sorted((event.table, event.record_id) for event in world.canonical())


async def test_each_group_transforms_its_tables_and_stands_where_it_has_come_to() -> None:
    world = World()
    await publish(world, "1")
    assert (await world.worker(two_tables(), binding=TICKETS).drain()).events == 1
    assert told(world) == [("tickets", "1")]
    await publish(world, "2")
    assert (await world.worker(two_tables(), binding=NOTES).drain()).events == 2
    assert (await world.worker(two_tables(), binding=TICKETS).drain()).events == 1
    assert told(world) == [("notes", "1"), ("notes", "2"), ("tickets", "1"), ("tickets", "2")]


async def test_groups_that_cover_the_same_table_say_the_same() -> None:
    world = World()
    await publish(world, "1")
    for group in (TICKETS, Binding("transformer-more", ("tickets",))):
        await world.worker(two_tables(), binding=group).drain()
    one, other = world.canonical()
    assert one == other


async def test_an_envelope_of_another_groups_table_is_passed_by_its_header() -> None:
    world = World()
    partition = Partition("acme", "desk", "notes")
    (sealed,) = seal(partition, "notes", [msgspec.json.encode(ticket(endpoint="notes"))])
    await world.put_raw(sealed.data[:-8] + b"unusable", partition)
    assert (await world.worker(two_tables(), binding=TICKETS).drain()).events == 0
    assert not world.letters()
    await world.worker(two_tables(), binding=NOTES).drain()
    assert len(world.letters()) == 1


async def test_no_mapping_of_another_groups_table_is_pinned() -> None:
    world = World()
    await publish(world, "1")
    await world.worker(two_tables(), binding=TICKETS).drain()
    assert {key.split("/")[2] for key in world.objects.held if "/mappings/" in key} == {"tickets"}


async def test_a_pinned_mapping_that_is_broken_stops_its_own_table_only() -> None:
    world = World()
    world.objects.held["acme/mappings/notes/desk/000001.json"] = b"no JSON"
    await publish(world, "1")
    assert (await world.worker(two_tables(), binding=TICKETS).drain()).events == 1
    with pytest.raises(FatalError):
        await world.worker(two_tables(), binding=NOTES).drain()


async def test_a_worker_bound_to_more_never_goes_on_from_where_one_bound_to_less_has_come_to() -> None:
    world = World(shards=1)
    await publish(world, "1")
    late = world.worker(two_tables(), binding=BOTH)
    await join(late.ports, BOTH)  # nothing was read yet: it may
    early = world.worker(two_tables(), binding=TICKETS)
    await early.drain()
    with pytest.raises(FatalError, match="notes"):
        await late.drain()


async def test_nor_do_the_children_of_a_shard_that_one_bound_to_less_has_ended() -> None:
    world = World(shards=1)
    await publish(world, "1")
    (shard,) = (await world.streams.describe(NAMES.raw_stream)).shards
    world.streams.split(NAMES.raw_stream, shard.shard_id)
    narrow = world.worker(two_tables(), binding=TICKETS)
    await narrow.drain()
    for row in [row async for row in world.rows.scan(NAMES.leases)]:
        if row["name"] != shard.shard_id:  # as if only the parent had been read, and the group forgotten
            await world.rows.delete(NAMES.leases, {"scope": row["scope"], "name": row["name"]})
    with pytest.raises(FatalError, match="notes"):
        await world.worker(two_tables(), binding=BOTH).drain()


async def test_a_fleet_that_leaves_a_table_to_others_goes_on_and_its_old_workers_end() -> None:
    world = World(shards=1)
    old, new = (world.worker(two_tables(), binding=bound) for bound in (BOTH, TICKETS))
    async with old.running():
        await publish(world, "1")
        await world.clock.sleep(10)
        async with new.running():
            await world.clock.sleep(WATCH_S + 1)
            with pytest.raises(FatalError, match="to other tables"):
                old.task.result()
            await publish(world, "2")
            await world.clock.sleep(30)
            await world.worker(two_tables(), binding=NOTES).drain()
    assert set(told(world)) == {("notes", "1"), ("notes", "2"), ("tickets", "1"), ("tickets", "2")}


async def test_draining_every_group_that_is_remembered_leaves_no_table_behind() -> None:
    world = World()
    for group in (Binding(others=("tickets",)), TICKETS):
        await world.worker(two_tables(), binding=group).drain()
    await publish(world, "1")
    for group in await remembered(world.runtime()):
        await world.worker(two_tables(), binding=group).drain()
    assert told(world) == [("notes", "1"), ("tickets", "1")]


async def test_a_group_by_enhanced_fan_out_loses_nothing_and_lets_go_in_time() -> None:
    world = World(shards=2)
    pushed = msgspec.structs.replace(TICKETS, fan_out=True)
    worker = world.worker(two_tables(), binding=pushed)
    async with worker.running():
        for number in range(3):
            await publish(world, str(number))
            await world.clock.sleep(200)  # across the end of subscriptions
        stopped_at = world.clock.monotonic()
        await worker.stop()
        assert world.clock.monotonic() - stopped_at <= 5
    assert told(world) == [("tickets", "0"), ("tickets", "1"), ("tickets", "2")]
    assert world.streams.consumers(NAMES.raw_stream) == ["avesa-transformer-tickets"]


def test_a_mapping_that_cannot_be_compiled_stops_its_own_group_only() -> None:
    known = two_tables()
    desk = known.integrations["desk"]
    wrong = msgspec.structs.replace(
        desk.endpoints["notes"], canonical=CanonicalMapping("notes", {"id": Call("no_such", ["id"])})
    )
    broken = msgspec.structs.replace(desk, endpoints={**desk.endpoints, "notes": wrong})
    mappings = MappingFiles({"desk": broken}, known.tables)
    check(mappings, TICKETS)
    for bound in (NOTES, Binding()):
        with pytest.raises(UsageError):
            check(mappings, bound)


@pytest.mark.parametrize("broken", ["no JSON", '{"table": "tickets", "columns": {"id": {"type": "text"}}}'])
async def test_a_broken_table_file_stops_its_own_fleet_only(tmp_path: Path, broken: str) -> None:
    (tmp_path / "canonical").mkdir()
    (tmp_path / "canonical" / "tickets.json").write_text(broken)
    entries = Binding("transformer-x", ("time_entries",))
    mappings = load_mappings(tmp_path, entries.routes_table)
    world = World()
    worker = world.worker(mappings, binding=entries)
    async with worker.running():
        await world.clock.sleep(5)
        assert not worker.task.done()
        await worker.stop()
    with pytest.raises(UsageError, match=r"tickets\.json"):
        load_mappings(tmp_path)
