"""More faults of workers and of their rows: twins, rows that vanish, conditions that were met already."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

from services.contracts.errors import ThrottledError
from services.contracts.log import LeaseRestored
from tests.simulation.calls import Call, Twist
from tests.simulation.faults import PATIENCE_S, a_process, injector, is_commit
from tests.simulation.processes import Process, Service
from tests.simulation.world import WORK, World

TWIN_STOPS_S = 30.0


@asynccontextmanager
async def beside(world: World, service: str, name: str, work: Service, mark: str = "") -> AsyncIterator[Process]:
    """One more process of a service, as long as the block lasts; then it is asked to stop. `mark` tells it in the
    trace from another of its name."""
    process, name = Process(world, service, f"{name}{mark}", 0.0, work), f"{name}{mark}"
    world.processes[name] = process
    world.note(process.name, "start", "beside the others")
    running = asyncio.ensure_future(process.run())
    try:
        yield process
    finally:
        process.stop()
        await asyncio.wait([running], timeout=TWIN_STOPS_S)
        process.kill()
        await running
        if world.processes.get(name) is process:
            del world.processes[name]


# -- 4 ----------------------------------------------------------------------------------------------------------------
@injector(4)
async def two_workers_that_are_the_same_in_everything(world: World, random: Random) -> None:
    """Two processes of one name start at one instant; only what they draw for themselves tells them apart."""
    service = random.choice(sorted(WORK))
    work, name = WORK[service], f"{service}-twin"
    async with beside(world, service, name, work) as one, beside(world, service, name, work, "'") as other:
        world.strike(4, f"two of {service} that are the same")
        if one.runtime.leases.worker == other.runtime.leases.worker:
            world.object("wrong", "two workers have one identity")
        await asyncio.sleep(random.uniform(10.0, 25.0))
    processes = defaultdict[str, set[str]](set)
    for write in world.aws.rows.log:
        if write.values.get("owner") is not None:
            processes[write.values["owner"]].add(write.by)
    for owner, names in processes.items():
        if len(names) > 1:
            world.object("wrong", f"{sorted(names)} were all known as {owner}")


# -- 7 ----------------------------------------------------------------------------------------------------------------
@injector(7, emits=(LeaseRestored,))
async def lease_row_deleted_while_its_owner_lives(world: World, random: Random) -> None:
    """Should the owner die before it notices, an operator brings the row back from a backup: nobody else may take the
    shard meanwhile, for two faults at once is not what the row is about."""
    for _ in range(2):
        process = a_process(world, random)
        if process is None or process.frozen:
            continue
        chosen = [lease for lease in process.runtime.leases.held if not lease.lost.is_set()]
        if not chosen:
            continue
        lease = random.choice(chosen)
        await _delete_row(world, process, lease.key)


async def _delete_row(world: World, owner: Process, key: dict[str, str]) -> None:
    rows, table = world.aws.rows, world.names.leases
    before = await rows.get(table, key)
    if before is None or before.get("owner") != owner.runtime.leases.worker:
        return

    def intercept(call: Call) -> Twist | None:
        mine = call.name == "rows.write" and call.subject == table and call.key == key
        return Twist(error=ThrottledError("slow down")) if mine and call.process is not owner else None

    stop = world.intercept(intercept)
    at = world.loop.now
    await rows.delete(table, key)
    world.note("operator", "deletes", f"lease row {key}, of {owner.name}")
    try:
        while not rows.held(table, key):
            await asyncio.sleep(0.1)
            if not owner.running or owner.frozen or owner.runtime.leases.holds(key["scope"], key["name"]) is None:
                break
        after = await rows.get(table, key)
        if after is None or after.get("epoch") is None:  # nothing but what a last, late write of its left
            kept = {name: value for name, value in before.items() if name not in (*key, "owner")}
            await rows.write(table, key, kept)
            return
    finally:
        stop()
    world.struck_at.setdefault(7, at)  # it was told of before we saw it
    world.strike(7, f"the row {key['name']} of {owner.name} was gone for {world.loop.now - at:.1f} s")
    if after.get("position") is None and before.get("position") is not None:
        world.object("wrong", f"the row of {key['name']} is there again, without its position")


# -- 25 ---------------------------------------------------------------------------------------------------------------
@injector(25)
async def condition_fails_because_it_was_met_already(world: World, random: Random) -> None:
    """The write takes effect, its answer is lost, the library writes again by itself, and that is refused; and a commit
    that had left before its owner froze arrives when another owns the row."""
    await _commit_arrives_too_late(world, random)
    left = random.randint(2, 6)

    def intercept(call: Call) -> Twist | None:
        nonlocal left
        repeats_badly = any(call.values.get(name, held) != held for name, held in call.expect.items())
        if left == 0 or not repeats_badly:
            return None
        left -= 1
        world.strike(25, f"{call.process.name} {call.name} {call.key}: asked twice")
        return Twist(again=True)

    stop = world.intercept(intercept)
    try:
        for _ in range(int(PATIENCE_S)):
            await asyncio.sleep(1.0)
            if left == 0:
                break
            if left and random.random() < 0.15:  # leases change hands
                process = a_process(world, random)
                if process is not None:
                    process.stop()
    finally:
        stop()


async def _commit_arrives_too_late(world: World, random: Random) -> None:
    met: list[Call] = []

    def intercept(call: Call) -> Twist | None:
        if met or not is_commit(call) or call.process.frozen:
            return None
        met.append(call)
        return starved(call.process, world.scale.lease_s * random.uniform(2.0, 3.0))

    stop, log = world.intercept(intercept), len(world.aws.rows.log)
    try:
        for _ in range(int(PATIENCE_S)):
            await asyncio.sleep(1.0)
            if met and not met[0].process.frozen:
                break
    finally:
        stop()
    others = [
        write for write in world.aws.rows.log[log:] if met and write.key == met[0].key and write.values.get("owner")
    ]
    if others and met[0].process.running:
        world.strike(25, f"a commit of {met[0].process.name} arrives when {met[0].key['name']} is {others[-1].by}'s")


def starved(process: Process, seconds: float) -> Twist:
    """The whole process stands still, and what it has just begun with it."""
    process.freeze(seconds)
    return Twist(delay_s=seconds + 0.001)
