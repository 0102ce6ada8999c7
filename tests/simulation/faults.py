"""The faults of `../shared/faults.md`, each an injector named by its row. To add one:

    @injector(27, emits=(...))
    async def what_befalls(world: World, random: Random) -> None:
        ...

An injector runs beside the history, as an operator or as fate: it begins its fault at once, calls
`world.strike(row, what)` each time the fault really took effect, and returns when it is over and everything it changed
is as before (a process it killed is started again by its supervisor). It has no time limit but its own: `PATIENCE_S`
for what may never come about. Most are an `ambush`: a twist for the next calls that match. `emits` are the events one
of which must have been heard since the first strike (I6); `reshards` marks the rows that reshard.
"""

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import msgspec

from services.contracts.errors import RetryableError, ThrottledError
from services.contracts.log import Event, LeaseGained, LeaseLost, RecordsRejected, Retried, WaitingFor
from services.contracts.partitions import Partition
from services.contracts.ports import Entry
from tests.simulation.calls import Call, Twist
from tests.simulation.processes import Process
from tests.simulation.vendor import SERVICE, TENANTS
from tests.simulation.world import World

PATIENCE_S: Final = 40.0
Injector = Callable[[World, Random], Awaitable[None]]


class Fault(msgspec.Struct, frozen=True):
    """One row of faults.md. `prepare` makes a world fit for it before anything runs; `every`: it is costly, and planned
    for one seed in so many."""

    row: int
    inject: Injector
    emits: tuple[type[Event], ...] = ()
    reshards: bool = False
    prepare: Callable[[World], None] | None = None
    every: int = 1


FAULTS: Final[dict[int, Fault]] = {}


def injector(
    row: int,
    *,
    emits: tuple[type[Event], ...] = (),
    reshards: bool = False,
    prepare: Callable[[World], None] | None = None,
    every: int = 1,
) -> Callable[[Injector], Injector]:
    """The injector of a row."""

    def add(inject: Injector) -> Injector:
        assert row not in FAULTS, f"row {row} has an injector"
        FAULTS[row] = Fault(row, inject, emits, reshards, prepare, every)
        return inject

    return add


# -- what injectors share ---------------------------------------------------------------------------------------------
async def ambush(
    world: World,
    row: int,
    matches: Callable[[Call], bool],
    twist: Callable[[Call], Twist],
    *,
    times: int = 1,
    within_s: float = PATIENCE_S,
) -> int:
    """`twist` for the next `times` calls that match, within a time; how many it struck."""
    struck, done = 0, asyncio.Event()

    def intercept(call: Call) -> Twist | None:
        nonlocal struck
        if struck >= times or not matches(call):
            return None
        struck += 1
        chosen = twist(call)
        world.strike(row, f"{call.process.name} {call.text}: {chosen.text}")
        if struck >= times:
            done.set()
        return chosen

    stop = world.intercept(intercept)
    try:
        await asyncio.wait_for(done.wait(), within_s)
    except TimeoutError:
        pass
    finally:
        stop()
    return struck


async def storm(
    world: World, row: int, matches: Callable[[Call], bool], twist: Callable[[Call], Twist | None], seconds: float
) -> int:
    """`twist` for every call that matches, for a time."""
    struck = 0

    def intercept(call: Call) -> Twist | None:
        nonlocal struck
        chosen = twist(call) if matches(call) else None
        if chosen is not None:
            struck += 1
        if struck == 1 and chosen is not None:
            world.strike(row, f"{call.process.name} {call.text}: {chosen.text}, for {seconds:.0f} s")
        return chosen

    stop = world.intercept(intercept)
    try:
        await asyncio.sleep(seconds)
    finally:
        stop()
    return struck


def is_service(call: Call, service: str) -> bool:
    return call.process.service == service


def is_commit(call: Call) -> bool:
    """A write of a position."""
    return call.name == "rows.write" and "position" in call.values


def is_renewal(call: Call) -> bool:
    return call.name == "rows.write" and "counter" in call.values and "owner" not in call.values


def unavailable(_: Call) -> Twist:
    return Twist(error=RetryableError("the service answered 500", code="unavailable"))


def throttled(_: Call) -> Twist:
    return Twist(error=ThrottledError("slow down"))


def a_process(world: World, random: Random, *services: str) -> Process | None:
    """One that runs, if any does."""
    found = [process for process in world.alive() if not services or process.service in services]
    return random.choice(found) if found else None


def owners(world: World, process: Process) -> list[tuple[str, str]]:
    """(scope, name) of the leases that a process holds."""
    return [(lease.scope, lease.name) for lease in process.runtime.leases.held]


def a_stream(world: World, random: Random) -> str:
    return random.choice((world.names.raw_stream, world.names.canonical_stream))


# -- 1, 2, 3, 5, 6, 8: workers die, freeze, lose their leases ---------------------------------------------------------
@injector(1, emits=(LeaseGained,))
async def killed_between_state_and_position(world: World, random: Random) -> None:
    await ambush(
        world,
        1,
        lambda call: call.name == "objects.create" and "/state/transformer" in call.subject,
        lambda _: Twist(kill="after"),
    )


@injector(2, emits=(LeaseGained,))
async def killed_between_publishing_and_state(world: World, random: Random) -> None:
    await ambush(
        world,
        2,
        lambda call: call.name == "streams.put" and is_service(call, "transformer"),
        lambda _: Twist(kill="after"),
    )


@injector(3, emits=(LeaseLost,))
async def frozen_until_others_took_over(world: World, random: Random) -> None:
    process = a_process(world, random)
    if process is None or process.frozen:  # by another fault, which lets it go when it likes
        return
    held, epochs = owners(world, process), len(world.aws.rows.log)
    seconds = world.scale.lease_s * random.uniform(2.0, 3.5)
    process.freeze(seconds)
    await asyncio.sleep(seconds)
    taken = [
        write
        for write in world.aws.rows.log[epochs:]
        if write.values.get("owner") and (write.key["scope"], write.key["name"]) in held and write.by != process.name
    ]
    at = world.loop.now - 0.1
    await asyncio.sleep(1.0)
    if taken and process.running:
        world.struck_at.setdefault(3, at)
        world.strike(3, f"{process.name} thaws, {len(taken)} leases of its are {taken[0].by}'s")


@injector(5)
async def renewal_took_effect_and_its_answer_was_lost(world: World, random: Random) -> None:
    await ambush(world, 5, is_renewal, lambda _: Twist(lost=True), times=random.randint(1, 4))


@injector(6, emits=(LeaseLost, LeaseGained))
async def lease_table_throttled(world: World, random: Random) -> None:
    service = random.choice(("extractor", "transformer", "compactor", ""))
    await storm(
        world,
        6,
        lambda call: (
            call.port == "rows" and call.subject == world.names.leases and service in ("", call.process.service)
        ),
        throttled,
        2 * world.scale.lease_s,
    )


@injector(8, emits=(LeaseGained,))
async def killed_at_any_time(world: World, random: Random) -> None:
    for _ in range(random.randint(1, 4)):
        await asyncio.sleep(random.uniform(0.0, 6.0))
        process = a_process(world, random)
        if process is not None:
            world.strike(8, process.name)
            process.kill()


# -- 9 to 12: reshards ------------------------------------------------------------------------------------------------
@injector(9, reshards=True)
async def split_while_it_is_read(world: World, random: Random) -> None:
    stream = a_stream(world, random)
    shard_id = random.choice(world.aws.streams.open_shards(stream))
    children = world.aws.streams.split(stream, shard_id)
    world.strike(9, f"{stream} {shard_id[-3:]} became {children[0][-3:]} and {children[1][-3:]}")


@injector(10, reshards=True)
async def merged_with_one_parent_lagging(world: World, random: Random) -> None:
    stream = a_stream(world, random)
    place = random.randrange(len(world.aws.streams.open_shards(stream)) - 1)
    pair = world.aws.streams.open_shards(stream)[place : place + 2]
    slow = random.choice(pair)
    lagging = asyncio.ensure_future(lag(world, stream, slow, random.uniform(8.0, 20.0)))
    await asyncio.sleep(random.uniform(1.0, 6.0))
    if set(pair) <= set(world.aws.streams.open_shards(stream)):
        child = world.aws.streams.merge(stream, *pair)
        world.strike(10, f"{stream} {pair[0][-3:]} and {pair[1][-3:]} became {child[-3:]}, {slow[-3:]} lags")
    await lagging


@injector(11, reshards=True)
async def two_generations_while_lagging(world: World, random: Random) -> None:
    stream = a_stream(world, random)
    shard_id = random.choice(world.aws.streams.open_shards(stream))
    lagging = asyncio.ensure_future(lag(world, stream, shard_id, random.uniform(8.0, 20.0)))
    await asyncio.sleep(random.uniform(1.0, 4.0))
    if shard_id in world.aws.streams.open_shards(stream):
        children = world.aws.streams.split(stream, shard_id)
        await asyncio.sleep(random.uniform(0.0, 3.0))
        if set(children) <= set(world.aws.streams.open_shards(stream)):
            if random.random() < 0.5:
                grandchildren: tuple[str, ...] = (world.aws.streams.merge(stream, *children),)
            else:
                grandchildren = world.aws.streams.split(stream, random.choice(children))
            names = ", ".join(child[-3:] for child in grandchildren)
            world.strike(11, f"{stream} {shard_id[-3:]} became in two steps {names}")
    await lagging


async def lag(world: World, stream: str, shard_id: str, seconds: float) -> None:
    """Nobody gets anything out of a shard for a time."""

    def intercept(call: Call) -> Twist | None:
        mine = call.name == "streams.read" and call.subject == stream and call.detail == shard_id
        return Twist(error=ThrottledError("slow down")) if mine else None

    stop = world.intercept(intercept)
    await asyncio.sleep(seconds)
    stop()


@injector(12, reshards=True)
async def resharded_during_a_flush(world: World, random: Random) -> None:
    """Between a producer's asking and its records' arrival."""
    streams, stream, delay_s = world.aws.streams, a_stream(world, random), random.uniform(0.5, 3.0)
    met = asyncio.Event()
    keys: list[int] = []

    def intercept(call: Call) -> Twist | None:
        if call.name != "streams.put" or call.subject != stream or met.is_set():
            return None
        keys.append(call.detail[0].hash_key)
        met.set()
        return Twist(delay_s=delay_s)

    stop = world.intercept(intercept)
    try:
        await asyncio.wait_for(met.wait(), PATIENCE_S)
    except TimeoutError:
        return
    finally:
        stop()
    await asyncio.sleep(delay_s / 2)
    shard_id = streams.shard_of(stream, keys[0])
    open_shards = streams.open_shards(stream)
    place = open_shards.index(shard_id)
    if random.random() < 0.5 and len(open_shards) > 2 and place + 1 < len(open_shards):
        child = streams.merge(stream, *open_shards[place : place + 2])
        world.strike(12, f"{stream} {shard_id[-3:]} and its neighbour became {child[-3:]} during a put")
    else:
        children = streams.split(stream, shard_id)
        world.strike(12, f"{stream} {shard_id[-3:]} became {children[0][-3:]} and {children[1][-3:]} during a put")
    await asyncio.sleep(delay_s)


# -- 14 to 24: reading, writing, bad records --------------------------------------------------------------------------
@injector(16)
async def empty_reads_that_are_behind(world: World, random: Random) -> None:
    conditions, share = world.aws.streams.conditions, random.uniform(0.3, 0.95)

    def starve(stream: str, shard_id: str) -> bool:
        return random.random() < share

    def struck() -> None:
        world.strike(16, "an empty read with records ahead")

    before, conditions.on_starved = conditions.on_starved, struck
    conditions.starves.append(starve)
    await asyncio.sleep(random.uniform(5.0, 15.0))
    conditions.starves.remove(starve)
    conditions.on_starved = before


@injector(17, emits=(Retried,))
async def reads_throttled(world: World, random: Random) -> None:
    stream, share = a_stream(world, random), random.uniform(0.5, 1.0)
    await storm(
        world,
        17,
        lambda call: call.name == "streams.read" and call.subject == stream,
        lambda call: throttled(call) if random.random() < share else None,
        random.uniform(5.0, 20.0),
    )


@injector(18)
async def puts_fail_in_part(world: World, random: Random) -> None:
    """Some entries of a request; one of a request of one stands for it."""
    conditions, share = world.aws.streams.conditions, random.uniform(0.3, 0.8)
    struck = False

    def refuse(stream: str, shard_id: str, entry: Entry) -> str:
        nonlocal struck
        if random.random() >= share:
            return ""
        if not struck:
            world.strike(18, f"an entry for {stream} {shard_id[-3:]} is refused")
        struck = True
        return random.choice(("ProvisionedThroughputExceededException", "InternalFailure"))

    conditions.refuses.append(refuse)
    await asyncio.sleep(random.uniform(5.0, 15.0))
    conditions.refuses.remove(refuse)


@injector(19)
async def put_stored_and_its_answer_lost(world: World, random: Random) -> None:
    await ambush(
        world, 19, lambda call: call.name == "streams.put", lambda _: Twist(lost=True), times=random.randint(1, 5)
    )


@injector(20)
async def first_copy_lands_late(world: World, random: Random) -> None:
    await ambush(
        world,
        20,
        lambda call: call.name == "streams.put",
        lambda _: Twist(late_s=random.uniform(1.0, 10.0)),
        times=random.randint(1, 4),
    )


@injector(22, emits=(RecordsRejected,))
async def records_that_are_none(world: World, random: Random) -> None:
    """Bytes that are no envelope, an envelope of what is no zstd, one whose checksum is another's."""
    from services.contracts.envelope import join, split
    from services.runtime.envelopes import seal

    partition = Partition(random.choice(TENANTS), SERVICE, random.choice(("tickets", "users")))
    (good,) = seal(partition, partition.group, [b'{"tenant_id": "x"}', b"not json"])
    header, packed = split(good.data)
    other = msgspec.structs.replace(header, checksum="0" * 32)
    stream = a_stream(world, random)
    for data in (b"garbage", b"AVE1\xff\xff\xff\xff", join(header, b"no zstd"), join(other, packed), good.data):
        if await _stored(world, stream, Entry(data, partition.text, partition.hash_key)):
            world.strike(22, f"{len(data)} bad bytes on {stream}")
        await asyncio.sleep(random.uniform(0.0, 2.0))


async def _stored(world: World, stream: str, entry: Entry) -> bool:
    """Has a shard taken it, which refuses what it is given while other faults last?"""
    for _ in range(int(PATIENCE_S)):
        (put,) = world.aws.streams._put(stream, [entry])
        if not put.error:
            return True
        await asyncio.sleep(1.0)
    return False


@injector(24, emits=(Retried, WaitingFor))
async def stream_takes_nothing(world: World, random: Random) -> None:
    stream = a_stream(world, random)
    await storm(
        world,
        24,
        lambda call: call.name == "streams.put" and call.subject == stream,
        unavailable,
        random.uniform(5.0, 30.0),
    )


# -- 26 to 33: objects, clocks, stops ---------------------------------------------------------------------------------
@injector(26)
async def object_stored_and_its_answer_lost(world: World, random: Random) -> None:
    await ambush(
        world,
        26,
        lambda call: call.name in ("objects.create", "objects.put"),
        lambda _: Twist(lost=True),
        times=random.randint(1, 6),
    )


@injector(28)
async def clocks_are_wrong_and_step(world: World, random: Random) -> None:
    for _ in range(3):
        process = a_process(world, random)
        if process is not None:
            process.skew_s = world.a_skew(process.service, random)
            world.strike(28, f"the clock of {process.name} steps to {process.skew_s:+.0f} s")
        await asyncio.sleep(random.uniform(1.0, 8.0))


@injector(29, emits=(LeaseGained,))
async def asked_to_stop(world: World, random: Random) -> None:
    for _ in range(random.randint(1, 2)):
        process = a_process(world, random)
        if process is None or process.stopping.is_set():
            continue
        world.strike(29, process.name)
        process.stop()
        await asyncio.sleep(30.0 if random.random() < 0.7 else random.uniform(0.0, 2.0))
        process.kill()


@injector(32)
async def loop_blocked_by_a_computation(world: World, random: Random) -> None:
    """For half a lease time: long enough to miss renewals, too short to lose the lease."""
    process = a_process(world, random)
    if process is not None and not process.frozen:
        seconds = world.scale.lease_s * 0.5
        world.strike(32, f"{process.name} computes for {seconds:.0f} s")
        process.freeze(seconds)
        await asyncio.sleep(seconds)


@injector(33)
async def arrival_times_jump_back(world: World, random: Random) -> None:
    conditions = world.aws.streams.conditions
    before = conditions.on_jump
    conditions.jitter_s, conditions.on_jump = (
        random.uniform(1.0, 20.0),
        lambda: world.strike(33, "a record arrives early"),
    )
    await asyncio.sleep(random.uniform(10.0, 40.0))
    conditions.jitter_s, conditions.on_jump = 0.0, before


# -- 51 to 60: the lake -----------------------------------------------------------------------------------------------
@injector(51)
async def merge_committed_and_its_answer_lost(world: World, random: Random) -> None:
    await ambush(
        world, 51, lambda call: call.name == "catalog.commit", lambda _: Twist(lost=True), times=random.randint(1, 3)
    )


@injector(53, emits=(LeaseGained,))
async def killed_between_timeline_and_versions(world: World, random: Random) -> None:
    await ambush(world, 53, lambda call: call.name == "catalog.remember", lambda _: Twist(kill="after"))


@injector(58, emits=(Retried, WaitingFor))
async def catalog_down(world: World, random: Random) -> None:
    await storm(world, 58, lambda call: call.port == "catalog", unavailable, random.uniform(10.0, 30.0))


@injector(60, emits=(Retried, WaitingFor))
async def object_store_refuses_writes(world: World, random: Random) -> None:
    await storm(
        world,
        60,
        lambda call: call.name in ("objects.create", "objects.put"),
        unavailable,
        random.uniform(5.0, 25.0),
    )
