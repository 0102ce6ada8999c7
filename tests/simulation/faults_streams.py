"""More faults of streams: iterators that expire, a hot shard, very many shards, streams made anew, quiet shards."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Final

from services.contracts.errors import NotFoundError, RetryableError
from services.contracts.gaps import GapRules
from services.contracts.log import PositionExpired, Retried
from services.contracts.partitions import HashRange
from services.contracts.ports import Entry
from services.contracts.times import UtcTime, shifted
from services.runtime.attributes import from_item
from services.runtime.commits import NUMBER
from services.runtime.shards import scope_of
from tests.simulation.aws import THROTTLED, Committed
from tests.simulation.calls import Call, Twist
from tests.simulation.faults import a_process, a_stream, injector
from tests.simulation.oracle import waiting
from tests.simulation.world import RETENTION_S, World

ITERATOR_S: Final = 3.0  # instead of AWS's five minutes
LANDED_S: Final = 12.0  # a put whose answer was lost has arrived by then
DRAINED_MAX_S: Final = 75.0
ANCIENT_SHARDS, ANCIENT_GENERATION = 1_000, 250
ANCIENT_READ_MAX_S: Final = 330.0  # as long as readers may die of a record (faults_records.ISOLATED_MAX_S)
HOURS_QUIET: Final = 30  # more than retention
TOLD_LATE_S: Final = 4 * 3_600.0  # what a commit says is some seconds old, and every two of them are an hour
HOUR_S: Final = 3_600.0


# -- 13 ---------------------------------------------------------------------------------------------------------------
def with_ancient_shards(world: World) -> None:
    """A stream that was resharded for years: more than a thousand shards, all but the last few closed and empty."""
    found = world.aws.streams._find(world.names.canonical_stream)
    ranges = [shard.hash_range for shard in found.shards.values()]
    found.shards.clear()
    ids: list[str] = []
    for number in range(ANCIENT_SHARDS):
        parents = (ids[number - ANCIENT_GENERATION],) if number >= ANCIENT_GENERATION else ()
        ids.append(found.add(ranges[number % len(ranges)], parents))
        found.shards[ids[-1]].closed = True
    for number, hash_range in enumerate(ranges):
        found.add(hash_range, (ids[number - len(ranges)],))


@injector(13, reshards=True, prepare=with_ancient_shards, every=100)
async def more_than_a_thousand_shards(world: World, random: Random) -> None:
    """Each of them is read to its end, by its generation, before one that counts is read at all."""
    streams, stream = world.aws.streams, world.names.canonical_stream
    world.strike(13, f"{stream} has {len(streams._describe(stream).shards)} shards; {streams.reshard(stream, random)}")
    until = world.loop.now + ANCIENT_READ_MAX_S
    while left := await _not_ended(world, stream):
        if world.loop.now > until:
            world.object("stalled", f"{len(left)} closed shards not read to their end: {', '.join(left[:3])}")
            return
        await asyncio.sleep(5.0)


async def _not_ended(world: World, stream: str) -> list[str]:
    scope = scope_of(stream, world.aws.streams.created(stream), "compactor")
    rows = await world.aws.rows.rows(world.names.leases)
    ended = {row["name"] for row in rows if row["scope"] == scope and row.get("ended")}
    shards = world.aws.streams._describe(stream).shards
    return [shard.shard_id for shard in shards if shard.closed and shard.shard_id not in ended]


# -- 14, 15 -----------------------------------------------------------------------------------------------------------
@injector(14)
async def iterators_expire_in_back_pressure(world: World, random: Random) -> None:
    """What readers do with what they read takes longer than an iterator lives."""
    until = world.loop.now + random.uniform(12.0, 25.0)

    def slow(call: Call) -> Twist | None:
        is_output = call.name in ("objects.create", "threads.run") and call.process.service != "extractor"
        return Twist(delay_s=1.5 * ITERATOR_S) if is_output and random.random() < 0.3 else None

    stop = world.intercept(slow)
    try:
        with _told_of_expiry(world, lambda: world.strike(14, "an iterator expired")):
            while world.loop.now < until:
                _expire_older_than(world, ITERATOR_S)
                await asyncio.sleep(0.5)
    finally:
        stop()


@injector(15, emits=(Retried,))
async def iterator_expires_and_so_fails_its_renewal(world: World, random: Random) -> None:
    struck = False

    def refuse(call: Call) -> Twist | None:
        nonlocal struck
        if call.name != "streams.iterator":
            return None
        if not struck:
            world.strike(15, f"{call.process.name} gets no iterator for {call.subject} {call.detail[-3:]}")
        struck = True
        return Twist(error=RetryableError("the service answered 500", code="unavailable"))

    stop = world.intercept(refuse)
    _expire_older_than(world, 0.0)
    try:
        await asyncio.sleep(random.uniform(8.0, 30.0))
    finally:
        stop()


def _expire_older_than(world: World, seconds: float) -> None:
    conditions = world.aws.streams.conditions
    conditions.iterators_expired_at = max(conditions.iterators_expired_at, world.loop.now - seconds)


@contextmanager
def _told_of_expiry(world: World, tell: Callable[[], None]) -> Iterator[None]:
    conditions = world.aws.streams.conditions
    before, conditions.on_expired = conditions.on_expired, tell
    try:
        yield
    finally:
        conditions.on_expired = before


# -- 21 ---------------------------------------------------------------------------------------------------------------
@injector(21, emits=(Retried,))
async def one_hot_shard(world: World, random: Random) -> None:
    """One shard of the canonical stream takes nothing for as long as sixty lease renewals last: only what goes there
    stalls, and what is held for it is bounded."""
    streams, stream = world.aws.streams, world.names.canonical_stream
    chosen = random.choice(streams.open_shards(stream))
    hot = streams._find(stream).shards[chosen].hash_range
    refused, began = 0, world.loop.now

    def refuse(to: str, shard_id: str, entry: Entry) -> str:
        nonlocal refused
        if to != stream or not hot.first <= entry.hash_key <= hot.last:
            return ""
        if not refused:
            world.strike(21, f"{stream} {shard_id[-3:]} takes nothing")
        refused += 1
        return THROTTLED

    streams.conditions.refuses.append(refuse)
    try:
        for _ in range(int(random.uniform(30.0, 45.0))):
            await asyncio.sleep(1.0)
            _check_memory(world)
    finally:
        streams.conditions.refuses.remove(refuse)
    if world.alone and refused:
        _check_others_went_on(world, stream, hot, began)


def _check_memory(world: World) -> None:
    """What publishers hold is bounded; whatever its size, one envelope always fits."""
    for process in world.alive():
        for publisher in process.publishers:
            if publisher.held_bytes > world.scale.bounds.held_bytes_max:
                world.object("wrong", f"{process.name} holds {publisher.held_bytes} bytes")


def _check_others_went_on(world: World, stream: str, hot: HashRange, since: float) -> None:
    """What entered the raw stream for other shards is on the canonical one, but for the last seconds."""
    log, late = world.aws.streams.log, world.clock.ago(10.0)
    began = world.clock.ago(world.loop.now - since)
    raw = [stored for stored in log.get(world.names.raw_stream, []) if began < stored.record.arrived_at < late]
    waited = {
        stored.hash_key: stored.record.arrived_at for stored in raw if not hot.first <= stored.hash_key <= hot.last
    }
    there = {stored.hash_key: stored.record.arrived_at for stored in log.get(stream, [])}
    for hash_key, at in waited.items():
        if there.get(hash_key, "") < at:
            world.object("stalled", f"{hash_key} waits for a shard that it does not go to")


# -- 31 ---------------------------------------------------------------------------------------------------------------
@injector(31)
async def stream_made_anew_under_its_name(world: World, random: Random) -> None:
    """It is drained, deleted and, some time later, created with another number of shards."""
    streams, stream = world.aws.streams, a_stream(world, random)
    is_gone = False

    def refuse(call: Call) -> Twist | None:
        if call.port != "streams" or call.subject != stream:
            return None
        if is_gone:
            return Twist(error=NotFoundError(f"no stream {stream}"))
        closing = RetryableError("the stream is about to be deleted", code="unavailable")
        return Twist(error=closing) if call.method == "put" else None

    stop, until = world.intercept(refuse), world.loop.now + DRAINED_MAX_S
    try:
        await asyncio.sleep(LANDED_S)
        while any(stream in waits for waits in await waiting(world)):
            if world.loop.now > until:
                return
            await asyncio.sleep(1.0)
        before = streams.created(stream)
        streams.delete(stream)
        streams.create(stream, random.choice((2, 4, 6)))
        world.strike(31, f"{stream} of {before} is one of {streams.created(stream)} now")
        is_gone = True  # to everybody but operators
        await asyncio.sleep(random.choice((0.0, 2.0, 8.0)))
    finally:
        stop()


# -- 56 ---------------------------------------------------------------------------------------------------------------
@injector(56, every=10)
async def shard_quiet_for_longer_than_retention(world: World, random: Random) -> None:
    """Hours pass at every wall clock while everybody reads; a shard to which nothing comes is no gap."""
    streams, stream, began = world.aws.streams, a_stream(world, random), world.loop.now
    created, children = streams.created(stream), streams.split(stream, random.choice(streams.open_shards(stream)))
    await asyncio.sleep(5.0)
    for _ in range(HOURS_QUIET):
        world.clock.leap(HOUR_S)
        await asyncio.sleep(2.0)
        process = a_process(world, random, "transformer", "compactor")
        if process is not None and random.random() < 0.05:
            process.kill()  # whoever comes next starts from a row whose position is as old
    for at, _, event in world.heard:
        if at >= began and isinstance(event, PositionExpired) and _was_read(world, at, event):
            world.object("wrong", f"{event.group} calls {event.stream} {event.shard} expired, and has read it")
    if streams.created(stream) != created:
        return
    held = {child: streams.held(stream, child) for child in children}
    quiet = [child for child in children if not held[child] or held[child][-1].arrived_at < world.clock.ago(86_400.0)]
    for child in quiet[:1]:
        world.strike(56, f"{stream} {child[-3:]} was quiet for {HOURS_QUIET} hours")


def _told_at(commit: Committed) -> UtcTime:
    """Until when a shard was read, as far as a commit knows: older than itself where reading was barred (row 15)."""
    row = from_item(commit.after)
    return max(str(row.get("read_to_end_at") or ""), str(row.get("arrived_at") or ""))


def _was_read(world: World, at: float, event: PositionExpired) -> bool:
    """Was a shard that was called expired committed within retention, and has nothing unread been there for longer?

    Other faults may keep a group from its commits for as long, since time flies. A stream that was deleted (row 31)
    is, as a whole, expired on suspicion.
    """
    if event.shard.startswith("all of"):
        return False
    scope = scope_of(event.stream, "", event.group)
    writes = [
        write
        for write in world.aws.rows.log
        if write.at <= at and write.key["scope"].startswith(scope) and write.key["name"] == event.shard
    ]
    commits = [
        write
        for write in writes
        if NUMBER in write.values and not write.values.keys().isdisjoint(("position", "read_to_end_at"))
    ]
    told = world.clock.then(at)
    horizon = GapRules(RETENTION_S).horizon(told)
    if commits and _told_at(commits[-1]) < shifted(horizon, seconds=TOLD_LATE_S):
        return False
    if not commits and world.clock.then(writes[0].at) > shifted(told, seconds=-TOLD_LATE_S):
        return False  # a child whose parents were behind for as long: nobody can tell what it once held
    position = int(from_item(commits[-1].after).get("position") or 0) if commits else 0
    records = [one.record for one in world.aws.streams.log.get(event.stream, []) if one.shard_id == event.shard]
    return not any(int(record.sequence) > position and record.arrived_at < horizon for record in records)
