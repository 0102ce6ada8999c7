"""More faults of what is kept: cuts, tables, memories, mappings, hours."""

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any, Final

import msgspec

from services.compactor import parquet
from services.compactor.merging import Step, merge_step
from services.contracts.fields import CanonicalMapping
from services.contracts.log import EventsTransformed, LeaseLost, MemoryLost
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import canonical_folder, hour_key, mapping_key
from services.contracts.ports import Row
from services.contracts.schema import CanonicalTable, Column
from services.runtime.attributes import from_item
from services.transformer.service import Transformer
from tests.simulation.calls import Call, Twist
from tests.simulation.faults import PATIENCE_S, ambush, injector
from tests.simulation.faults_workers import beside, starved
from tests.simulation.oracle import Logs, repeated, unread
from tests.simulation.processes import Process
from tests.simulation.real_tables import RealTables, with_real_tables
from tests.simulation.vendor import SERVICE, TABLES, TENANTS
from tests.simulation.world import World

HOUR_S: Final = 3_600.0
HOURS_DONE_MAX_S: Final = 150.0
SEEN_S: Final = 15.0  # a poll has seen a change by then
LOOKS_PER_S: Final = 5
EXPIRIES: Final = 4  # in one history


# -- 27 ---------------------------------------------------------------------------------------------------------------
@injector(27, emits=(LeaseLost,))
async def two_finish_one_recorded_cut(world: World, random: Random) -> None:
    """The owner freezes after it has recorded a cut, another completes it, and then the first thaws."""
    frozen: list[Call] = []

    def intercept(call: Call) -> Twist | None:
        if frozen or call.name != "rows.write" or call.values.get("cut") is None:
            return None
        frozen.append(call)
        return Twist(freeze_s=world.scale.lease_s * random.uniform(2.2, 3.2))

    stop, before = world.intercept(intercept), len(world.aws.rows.log)
    try:
        await _until(world, lambda: bool(frozen), PATIENCE_S)
    finally:
        stop()
    if not frozen:
        return
    process, key, cut = frozen[0].process, frozen[0].key, frozen[0].values["cut"]
    number = cut["number"]

    def completed() -> bool:
        writes = [write for write in world.aws.rows.log[before:] if write.key == key]
        if not any(write.by == process.name and write.values.get("cut") == cut for write in writes):
            return False  # it was refused: whoever completes a cut of this number completes its own
        others = [write for write in writes if write.by != process.name]
        return any(int(from_item(write.after).get("cuts") or 0) >= number for write in others)

    def believes() -> bool:
        """It has not heard yet that the lease is lost: when it thaws, it finishes the cut too."""
        return process.frozen and process.runtime.leases.holds(key["scope"], key["name"]) is not None

    await _until(world, lambda: completed() or not process.frozen, PATIENCE_S)
    at, is_twofold = world.loop.now, completed() and believes()
    await _until(world, lambda: not process.frozen, PATIENCE_S)
    await asyncio.sleep(1.0)
    if is_twofold and process.running:
        world.struck_at.setdefault(27, at)
        world.strike(27, f"another has completed cut {number} of {key['name']} when {process.name} thaws")


async def _until(world: World, done: Any, seconds_max: float) -> bool:
    for _ in range(int(seconds_max * LOOKS_PER_S)):
        if done():
            return True
        await asyncio.sleep(1 / LOOKS_PER_S)
    return bool(done())


# -- 52 ---------------------------------------------------------------------------------------------------------------
@injector(52)
async def two_workers_merge_one_table(world: World, random: Random) -> None:
    """One has read the table when another merges the same parts; and one that was frozen merges what others did."""
    steps: dict[str, Step] = {}
    left = random.randint(1, 4)

    def intercept(call: Call) -> Twist | None:
        nonlocal left
        if call.name == "threads.run" and call.subject == merge_step.__name__:
            steps[call.process.name] = call.detail[1]
        if left and call.name in ("catalog.remember", "catalog.commit") and call.process.name in steps:
            left -= 1
            merged = merge_step(world.histories, steps.pop(call.process.name))
            world.strike(
                52, f"another merges {merged.observations} observations into {call.subject} before {call.method}"
            )
        return None

    stop = world.intercept(intercept)
    try:
        await _until(world, lambda: left == 0, PATIENCE_S)
    finally:
        stop()
    await ambush(
        world,
        52,
        lambda call: call.name == "threads.run" and call.subject == merge_step.__name__,
        lambda call: starved(call.process, world.scale.lease_s * random.uniform(1.5, 2.5)),
    )


# -- 54 ---------------------------------------------------------------------------------------------------------------
@injector(54, prepare=with_real_tables, every=50)
async def snapshots_expire_during_reads_and_merges(world: World, random: Random) -> None:
    """House is kept between a merge's reading and its commit, and while somebody reads the newest snapshot."""
    tables = world.histories
    assert isinstance(tables, RealTables)
    left = EXPIRIES

    def intercept(call: Call) -> Twist | None:
        nonlocal left
        if not left or call.name != "catalog.commit":
            return None
        tenant_id, _, name = call.subject.partition("/")
        read = tables.reader(tenant_id, name)
        before = read()
        removed = tables.keep_house(tenant_id, name)
        if removed:
            left -= 1
            world.strike(54, f"{removed} files go while {call.process.name} merges {call.subject}")
            if read() != before:
                world.object("lost", f"a reader of {call.subject} does not find what it held on to")
        return None

    stop = world.intercept(intercept)
    try:
        await _until(world, lambda: left == 0, PATIENCE_S)
    finally:
        stop()


# -- 55 ---------------------------------------------------------------------------------------------------------------
@injector(55, emits=(MemoryLost,))
async def memory_removed(world: World, random: Random) -> None:
    """What a row names as memory is gone, and so is the process that had it."""
    if random.random() < 0.6:
        rows = await world.aws.rows.rows(world.names.leases)
        shards = [row for row in rows if row["scope"].startswith("transformer/")]  # a gap's row has a `state` as well
        await _remove_memory(world, random, "transformer", shards)
        return
    # Of what vanished before all was read again nobody remembers that it ever was, and of what came back, that it had
    # vanished: no sweep tells of either.
    world.vendor.vanishing = world.vendor.old_stamps = False
    try:
        logs = Logs(world)
        if not await _until(world, lambda: _is_swept(world, logs), 2 * PATIENCE_S):
            return
        began = world.clock.now()
        rows = await world.aws.rows.rows(world.names.last_updated)
        await _remove_memory(world, random, "extractor", [row for row in rows if row.get("segments")])
        await _until(world, lambda: _is_read_again(world, logs, began), 2 * PATIENCE_S)
    finally:
        world.vendor.vanishing = True


async def _remove_memory(world: World, random: Random, service: str, rows: Sequence[Row]) -> None:
    keys = [segment["key"] for row in rows for segment in row.get("state") or row.get("segments") or []]
    keys = [key for key in keys if key in world.aws.objects.held]
    if not keys:
        return
    key, struck = random.choice(keys), asyncio.Event()

    def intercept(call: Call) -> Twist | None:
        if call.name == "objects.get" and call.subject == key and not struck.is_set():
            struck.set()
            world.strike(55, f"{call.process.name} does not find {key}")
        return None

    del world.aws.objects.held[key]
    world.note("operator", "deletes", key)
    stop = world.intercept(intercept)
    for process in world.alive(service):
        process.kill()
    await _until(world, struck.is_set, PATIENCE_S)
    stop()


def _is_swept(world: World, logs: Logs) -> bool:
    """Nothing is unread but what changed just now."""
    logs.update()
    late = world.clock.ago(SEEN_S)
    for name in unread(world, logs):
        tenant_id, endpoint, record_id = name.split("/")
        if "deleted" in record_id or world.vendor.records[tenant_id, endpoint][int(record_id)]["updated"] < late:
            return False
    return True


def _is_read_again(world: World, logs: Logs, since: str) -> bool:
    """Every record of at least one endpoint was published since."""
    logs.update()
    seen = {(event.tenant_id, event.endpoint, event.record_id) for event in logs.raw if event.observed_at > since}
    return any(
        all((*at, str(record_id)) in seen for record_id in records) for at, records in world.vendor.records.items()
    )


# -- 57 ---------------------------------------------------------------------------------------------------------------
@injector(57)
async def two_mapping_versions_at_once(world: World, random: Random) -> None:
    """A transformer of a newer release, whose mapping fills one column more, works beside the old ones."""
    files = _newer(world.mappings)

    async def work(process: Process) -> None:
        scale = world.scale
        await Transformer(process.runtime, files, scale.limits, gaps=scale.rules.gaps).run(process.stopping)

    world.tables.update(files.tables)
    async with beside(world, "transformer", "transformer-new", work) as newer:
        await asyncio.sleep(random.uniform(25.0, 45.0))
    if not any(isinstance(event, EventsTransformed) for event in newer.heard):
        return
    held = world.aws.objects.held
    pinned = [
        (tenant_id, name)
        for tenant_id in TENANTS
        for name in TABLES
        if mapping_key(tenant_id, name, SERVICE, 2) in held
    ]
    for tenant_id, name in pinned:
        world.strike(57, f"{tenant_id}/{name} has two mappings at work")


def _newer(files: MappingFiles) -> MappingFiles:
    """Every table has a column `stamp`, which the new mappings fill, untracked as any that enters."""
    tables = {name: _wider(table) for name, table in files.tables.items()}
    integration = files.integrations[SERVICE]
    endpoints = {
        name: msgspec.structs.replace(endpoint, canonical=_filled(endpoint.canonical))
        for name, endpoint in integration.endpoints.items()
    }
    newer = msgspec.structs.replace(integration, endpoints=endpoints)
    return msgspec.structs.replace(files, integrations={SERVICE: newer}, tables=tables)


def _wider(table: CanonicalTable) -> CanonicalTable:
    return msgspec.structs.replace(table, columns={**table.columns, "stamp": Column("string", tracked=False)})


def _filled(mapping: CanonicalMapping | None) -> CanonicalMapping | None:
    if mapping is None:
        return None
    return msgspec.structs.replace(mapping, fields={**mapping.fields, "stamp": "updated"})


# -- 59 ---------------------------------------------------------------------------------------------------------------
@injector(59)
async def compactor_restarted_in_the_middle_of_an_hour(world: World, random: Random) -> None:
    """Then the hour passes, and its files are to be whole: one of each table, every observation in it once."""
    hours = [world.clock.now()[:13]]
    for process in world.alive("compactor"):
        world.strike(59, process.name)
        process.stop()
        await asyncio.sleep(random.uniform(0.0, 8.0))
    for _ in range(3):  # an hour is over some minutes after it ended, where nothing comes any more
        await asyncio.sleep(2.0)
        world.clock.leap(HOUR_S / 2)
    done = await _until(world, lambda: not _parts(world, hours[0]), HOURS_DONE_MAX_S)
    if not done and world.alone:
        world.object("stalled", f"hour {hours[0]} is not one file: {', '.join(_parts(world, hours[0])[:3])}")
    for tenant_id in TENANTS:
        for name in TABLES:
            data = world.aws.objects.held.get(hour_key(canonical_folder(tenant_id, name), hours[0]))
            count = 0 if data is None else repeated(parquet.canonical_events(data, TABLES[name]))
            if count:
                world.object("doubled", f"{count} observations twice in {tenant_id}/{name} of {hours[0]}")


def _parts(world: World, hour: str) -> list[str]:
    """What still lies apart of an hour."""
    return [key for key in sorted(world.aws.objects.held) if f"/{hour}/" in key and key.endswith(".parquet")]
