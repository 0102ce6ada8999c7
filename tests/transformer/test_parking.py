"""Parking: of what cannot be used there is a bound; beyond it a partition waits whole and in order, others go on."""

from collections.abc import Sequence
from random import Random

import msgspec
import pytest

from services.contracts.envelope import split
from services.contracts.events import CanonicalEvent
from services.contracts.log import EnvelopesHeld, PartitionParked
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import parked_key, parked_place, parked_scope
from services.contracts.partitions import HASH_KEY_SPACE, HashRange, Partition
from services.runtime.envelopes import seal, unseal
from services.runtime.poison import WHOLE, Conviction, Reading
from services.runtime.runtime import Runtime
from services.runtime.snapshots import SnapshotState
from services.transformer.batches import Envelope, Output, rehearse, transform
from services.transformer.budget import Budget
from services.transformer.mapper import Mapper, Routes, routes
from services.transformer.parking import NOTICE_S, REFRESH_S, Parking, parked, release
from services.transformer.pinned import shipped
from services.transformer.state import Memory
from tests.fakes import Call, MemoryObjects, MemoryState
from tests.transformer.world import NAMES, World, files, texts, ticket, time

GROUP = "transformer"
AT = time(0)
MAX = 5
ROUTES: dict[tuple[str, str], Routes] = {
    (tenant, "desk"): routes(Mapper(pinned) for pinned in shipped(files(), tenant, "desk").values())
    for tenant in ("acme", "other", "third")
}


class Killed(BaseException):
    """SIGKILL."""


def place(tenant: str = "acme") -> Partition:
    return Partition(tenant, "desk", "tickets")


def envelope(number: int, good: int = 1, bad: int = 0, tenant: str = "acme", shard: str = "shard-1") -> Envelope:
    """One envelope of some good tickets and then some bad ones; the sequence number is its number."""
    events = [ticket(f"{number}.{n}", tenant=tenant) for n in range(good)]
    events += [ticket(f"{number}.{n}", tenant=tenant, hours="soon") for n in range(good, good + bad)]
    (sealed,) = seal(place(tenant), "tickets", [msgspec.json.encode(event) for event in events])
    return Envelope(shard, str(number), *split(sealed.data), sealed.data)


async def memory() -> Memory:
    made = Memory(SnapshotState(MemoryObjects(), MemoryState(), str))
    assert await made.load({}, [], HashRange(0, HASH_KEY_SPACE - 1))
    return made


def published(output: Output) -> list[CanonicalEvent]:
    lines = [line for sealed in output.sealed() for line in unseal(*split(sealed.data))]
    return [msgspec.json.decode(line, type=CanonicalEvent) for line in lines]


async def transformed(envelopes: Sequence[Envelope], budget: Budget | None = None) -> Output:
    output = Output()
    transform(envelopes, ROUTES, await memory(), output, AT, budget)
    return output


# -- the budget -------------------------------------------------------------------------------------------------------
def test_a_budget_is_of_one_partition_and_one_hour() -> None:
    budget = Budget(10)
    budget.spend(place(), time(0), 8)
    assert (budget.left(place(), time(3599)), budget.left(place("other"), time(0))) == (2, 10)
    budget.spend(place(), time(10), 5)
    assert budget.left(place(), time(20)) == 0
    assert budget.left(place(), time(3600)) == 10


def test_a_partition_that_a_person_released_begins_again() -> None:
    budget = Budget(10)
    budget.spend(place(), AT, 10)
    budget.forgive(place())
    assert budget.left(place(), AT) == 10


# -- transforming under it --------------------------------------------------------------------------------------------
async def test_ten_thousand_bad_lines_at_once_write_no_letter_and_are_held_whole() -> None:
    output = await transformed([envelope(1, 3), *(envelope(n, 2, 2_000) for n in range(2, 7))], Budget())
    assert (len(published(output)), output.letters, output.events) == (3, [], 3)
    (held,) = output.held.values()
    assert ([one.sequence for one in held.envelopes], held.code) == (["2", "3", "4", "5", "6"], "bad_value")


async def test_up_to_the_budget_bad_lines_are_letters_and_the_good_ones_flow() -> None:
    budget = Budget(MAX)
    output = await transformed([envelope(1, 1, MAX - 1), envelope(2, 1, 1), envelope(3)], budget)
    assert (len(published(output)), len(output.letters), output.held) == (3, MAX, {})
    assert budget.left(place(), AT) == 0


async def test_what_follows_a_held_envelope_is_held_in_order_and_other_partitions_flow() -> None:
    envelopes = [envelope(n, bad=MAX + 1 if n == 2 else 0, tenant=("acme", "other")[n % 2]) for n in range(8)]
    output = await transformed(envelopes, Budget(MAX))
    assert [one.sequence for one in output.held[place()].envelopes] == ["2", "4", "6"]
    assert [event.record_id for event in published(output) if event.tenant_id == "other"] == [
        "1.0", "3.0", "5.0", "7.0",
    ]  # fmt: skip
    assert [event.record_id for event in published(output) if event.tenant_id == "acme"] == ["0.0"]


async def test_an_envelope_that_cannot_be_opened_costs_one_letter() -> None:
    budget = Budget(1)
    broken = [msgspec.structs.replace(envelope(n), packed=b"?") for n in (1, 2)]
    output = await transformed(broken, budget)
    assert ([one.code for one in output.letters], len(output.held)) == (["bad_envelope"], 1)


# -- poison in it -----------------------------------------------------------------------------------------------------
async def test_a_convicted_line_is_a_letter_in_its_place_and_its_neighbours_flow() -> None:
    poison = Reading({1: Conviction("7", 1, 9)})
    output = await transformed([msgspec.structs.replace(envelope(7, 3), reading=poison)])
    assert [event.record_id for event in published(output)] == ["7.0", "7.2"]
    ((letter),) = output.letters
    assert (letter.position, letter.code, letter.attempts) == ("shard-1-7-2", "poison", 9)
    assert '"7.1"' in (letter.text or "")


async def test_a_record_convicted_whole_is_a_letter_with_all_its_bytes() -> None:
    poison = Reading({WHOLE: Conviction("7", WHOLE, 9, "ValueError")})
    output = await transformed([msgspec.structs.replace(envelope(7, 3), reading=poison)])
    assert (published(output), output.events) == ([], 0)
    assert [(letter.position, letter.code) for letter in output.letters] == [("shard-1-7", "poison")]
    assert "ValueError" in output.letters[0].reason


async def test_a_trial_of_some_lines_reads_only_those() -> None:
    output = await transformed([msgspec.structs.replace(envelope(7, 5), reading=Reading(start=1, stop=3))])
    assert [event.record_id for event in published(output)] == ["7.1", "7.2"]


async def test_a_rehearsal_leaves_no_trace_in_the_memory() -> None:
    held = await memory()
    rehearse([envelope(1, 3)], ROUTES, held, AT)
    output = Output()
    transform([envelope(1, 3)], ROUTES, held, output, AT)
    assert texts(published(output)) == [("1.0", "new"), ("1.1", "new"), ("1.2", "new")]


# -- parking ----------------------------------------------------------------------------------------------------------
class Shard:
    """A shard whose workers take one envelope after the other, and may die at any call of a port."""

    def __init__(self, world: World, envelopes: Sequence[Envelope], shard: str = "shard-1") -> None:
        self.world, self.envelopes, self.shard = world, envelopes, shard
        self.position = 0
        self.out: dict[str, CanonicalEvent] = {}

    async def work(self, runtime: Runtime, at_once: int) -> None:
        """From the committed position to the end, in the order of effects of a shard's run."""
        parking, budget, memory_ = Parking(runtime, GROUP), Budget(MAX), await memory()
        ahead = [one for one in self.envelopes if int(one.sequence) > self.position]
        for start in range(0, len(ahead), at_once):
            for partition in await parking.refresh():
                budget.forgive(partition)
            piece = ahead[start : start + at_once]
            output = Output()
            transform(await parking.passed(piece), ROUTES, memory_, output, runtime.clock.now(), budget)
            await parking.park(output.held, budget.letters_max)
            await runtime.dead_letters.write(output.letters)
            self.out |= {event.record_id: event for event in published(output)}
            self.position = int(piece[-1].sequence)
            await runtime.clock.sleep(0.5)

    def held(self, tenant: str = "acme") -> list[str]:
        return [key for key in sorted(self.world.objects.held) if key.startswith(f"{tenant}/parked/")]


def some_envelopes(chance: Random, count: int) -> list[Envelope]:
    """Three tenants; one of them goes bad somewhere on the way."""
    bad_from, bad = chance.randrange(count), chance.choice(["acme", "other"])
    return [
        envelope(
            n,
            chance.randint(1, 3),
            chance.randint(0, 2 * MAX) if n >= bad_from and tenant == bad else 0,
            tenant,
        )
        for n in range(1, count + 1)
        for tenant in [chance.choice(["acme", "other", "third"])]
    ]


@pytest.mark.parametrize("seed", range(15))
async def test_whatever_dies_every_envelope_is_taken_or_held_and_held_ones_keep_their_order(seed: int) -> None:
    chance = Random(seed)
    world = World(shards=1)
    shard = Shard(world, some_envelopes(chance, 60))
    calls_left = chance.randint(3, 60)

    async def die(_: Call) -> None:
        nonlocal calls_left
        calls_left -= 1
        if calls_left == 0:
            raise Killed

    for port in (world.objects, world.rows):
        port.before = die
    lives = 0
    while shard.position < 60:
        lives += 1
        try:
            await shard.work(world.runtime(), chance.randint(1, 8))
        except Killed:
            calls_left = chance.randint(20, 90)
    calls_left = -1
    keys = [key for tenant in ("acme", "other", "third") for key in shard.held(tenant)]
    held = {int(key.rpartition("-")[2]) for key in keys}
    marks = [row async for row in world.rows.query(NAMES.leases, {"scope": parked_scope(GROUP)})]
    assert len(marks) <= 1
    assert {parked_place(key)[1].text for key in keys} <= {row["name"] for row in marks}
    for one in shard.envelopes:
        its = [event for event in shard.out.values() if event.record_id.split(".")[0] == one.sequence]
        assert its or int(one.sequence) in held
    for tenant in ("acme", "other", "third"):
        arrived = [int(one.sequence) for one in shard.envelopes if one.header.partition == place(tenant)]
        waiting = [int(key.rpartition("-")[2]) for key in shard.held(tenant)]
        assert waiting == arrived[len(arrived) - len(waiting) :]  # whole from some point on, and in order
    letters = [letter for key, letter in world.letters().items() if letter.tenant_id != "third"]
    assert len(letters) <= MAX * lives
    assert len(marks) <= len(world.of(PartitionParked)) <= 1 + len(marks)


async def test_parking_rings_once_and_says_what_and_why() -> None:
    world = World()
    shard = Shard(world, [envelope(1, 1, MAX + 1), envelope(2), envelope(3, tenant="other")])
    await shard.work(world.runtime(), at_once=1)
    ((rang),) = world.of(PartitionParked)
    assert isinstance(rang, PartitionParked)
    assert (rang.level, rang.tenant_id, rang.service, rang.group) == ("error", "acme", "desk", "tickets")
    assert len(world.of(EnvelopesHeld)) == 2
    ((one),) = await parked(world.runtime(), "acme")
    assert (one.envelopes, one.since, one.reason) == (2, time(0), rang.reason)
    assert await parked(world.runtime(), "other") == []
    assert await parked(world.runtime(), "acme", "other_service") == []
    row = await world.rows.get(NAMES.leases, {"scope": parked_scope(GROUP), "name": place().text})
    assert row is not None
    assert (row["code"], row["shard"], row["sequence"], row["letters"]) == ("bad_value", "shard-1", "1", MAX)


async def test_two_shards_that_park_one_partition_make_one_mark_and_one_alarm() -> None:
    world = World()
    first, second = Parking(world.runtime(), GROUP), Parking(world.runtime(), GROUP)
    beyond = (await transformed([envelope(1, 0, 2)], Budget(1))).held
    await first.park(beyond, 1)
    await second.park(beyond, 1)
    assert len(world.of(PartitionParked)) == 1
    assert second.is_parked(place())


async def test_a_mark_set_or_removed_elsewhere_is_noticed_within_a_minute_and_read_no_oftener() -> None:
    world = World()
    mine, theirs = Parking(world.runtime(), GROUP), Parking(world.runtime(), GROUP)
    assert await mine.refresh() == frozenset()
    await theirs.park((await transformed([envelope(1, 0, 2)], Budget(1))).held, 1)
    assert await mine.refresh() == frozenset()
    assert not mine.is_parked(place())
    world.clock.advance(REFRESH_S)
    await mine.refresh()
    assert mine.is_parked(place())
    await world.rows.delete(NAMES.leases, {"scope": parked_scope(GROUP), "name": place().text})
    world.clock.advance(REFRESH_S)
    assert await mine.refresh() == {place()}
    assert not mine.is_parked(place())


async def test_groups_park_apart() -> None:
    world = World()
    await Parking(world.runtime(), "transformer-mine").park((await transformed([envelope(1, 0, 2)], Budget(1))).held, 1)
    ours = Parking(world.runtime(), GROUP)
    await ours.refresh()
    assert not ours.is_parked(place())


def test_keys_of_held_envelopes_sort_as_they_arrived_also_over_a_reshard() -> None:
    at = Partition("acme", "desk:berlin", "tickets", 3)
    arrived = [("shardId-000000000001", "9"), ("shardId-000000000001", "10"), ("shardId-000000000007", "11")]
    keys = [parked_key(GROUP, at, *one) for one in arrived]
    assert keys == sorted(keys)
    assert {parked_place(key) for key in keys} == {(GROUP, at)}


# -- release ----------------------------------------------------------------------------------------------------------
async def parked_world() -> tuple[World, list[Envelope]]:
    """Two parked partitions of one tenant's, and one of another's."""
    world = World(shards=1)
    envelopes = [envelope(n, 2, MAX + 1 if n < 3 else 0, tenant=("acme", "other")[n % 2]) for n in range(1, 41)]
    await Shard(world, envelopes).work(world.runtime(), at_once=4)
    return world, [one for one in envelopes if one.source[0] == "acme"]


def sent(world: World) -> list[Envelope]:
    found = []
    for record in world.streams.records(NAMES.raw_stream):
        found.append(Envelope("raw", record.sequence, *split(record.data), record.data))
    return found


async def test_a_release_sends_everything_again_in_order_as_replayed_and_leaves_nothing_behind() -> None:
    world, envelopes = await parked_world()
    runtime = world.runtime()
    began = world.clock.monotonic()
    (done,) = await release(runtime, await parked(runtime, "acme"))
    assert (done.envelopes, done.again) == (20, False)
    assert world.clock.monotonic() - began >= NOTICE_S > REFRESH_S
    assert [one.packed for one in sent(world)] == [one.packed for one in envelopes]
    assert all(one.header.replay for one in sent(world))
    assert await parked(runtime, "acme") == []
    assert len(await parked(runtime, "other")) == 1
    assert not any(key.startswith("acme/parked") for key in world.objects.held)


async def test_a_release_that_is_killed_anywhere_is_finished_by_the_next() -> None:
    kills = 0
    for call in range(1, 200):
        world, envelopes = await parked_world()
        left = call

        async def die(_: Call) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise Killed

        for port in (world.objects, world.rows):
            port.before = die
        runtime = world.runtime()
        try:
            await release(runtime, await parked(runtime, "acme"))
        except Killed:
            kills += 1
            left = -1
            await release(world.runtime(), await parked(world.runtime(), "acme"))
        else:
            break
        in_order = list(dict.fromkeys(one.packed for one in sent(world)))
        assert in_order == [one.packed for one in envelopes]
        assert await parked(world.runtime(), "acme") == []
    assert kills > 20


async def test_what_a_slow_worker_held_after_the_release_is_sent_again_too() -> None:
    world, _ = await parked_world()
    runtime = world.runtime()
    late = Parking(runtime, GROUP)
    await late.refresh()
    waiting = await parked(runtime, "acme")
    slow: list[str] = []

    async def hold(call: Call) -> None:
        if call.method == "put" and not slow:
            slow.append(call.subject)
            await late.hold([envelope(99)])

    world.streams.after = hold
    (done,) = await release(runtime, waiting)
    assert (done.envelopes, done.again) == (21, False)
    assert sent(world)[-1].header.checksum == envelope(99).header.checksum


async def test_a_partition_that_is_parked_again_meanwhile_keeps_waiting_and_it_is_said() -> None:
    world, _ = await parked_world()
    runtime = world.runtime()
    waiting = await parked(runtime, "acme")

    async def park(call: Call) -> None:
        if call.method == "delete":
            world.rows.after = no_more
            await Parking(runtime, GROUP).park((await transformed([envelope(1, 0, 2)], Budget(1))).held, 1)

    async def no_more(_: Call) -> None:
        return

    world.rows.after = park
    (done,) = await release(runtime, waiting)
    assert (done.envelopes, done.again) == (0, True)
    assert len(await parked(runtime, "acme")) == 1


# -- services nobody knows --------------------------------------------------------------------------------------------
async def test_what_no_mapping_file_describes_waits_for_one_and_nobody_else_does() -> None:
    world = World()
    await world.publish(ticket("1"), ticket("2", tenant="other"))
    stranger = MappingFiles({}, files().tables)
    await world.worker(stranger).drain()
    assert world.canonical() == []
    waiting = [one for tenant in ("acme", "other") for one in await parked(world.runtime(), tenant)]
    assert [(one.service, one.envelopes) for one in waiting] == [("desk", 1), ("desk", 1)]
    assert "start the transformer with" in waiting[0].reason
    assert len(world.of(PartitionParked)) == 2
    await release(world.runtime(), await parked(world.runtime(), "acme"))
    assert texts(await world.drain()) == [("1", "new")]


async def test_an_unknown_service_holds_up_no_other() -> None:
    world = World()
    unknown = msgspec.structs.replace(ticket("1"), service="elsewhere")
    await world.publish(unknown, ticket("2"))
    assert texts(await world.drain()) == [("2", "new")]
    assert [one.service for one in await parked(world.runtime(), "acme")] == ["elsewhere"]
