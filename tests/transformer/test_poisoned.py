"""A transformer whose program cannot read one record: it is a dead letter in the end, and nothing else is."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import msgspec
import pytest

from services.contracts.log import PartitionParked, PoisonIsolated
from services.contracts.names import parked_scope
from services.runtime.envelopes import unseal
from services.runtime.leases import Leases
from services.runtime.poison import WHOLE
from services.transformer.batches import Envelope, rehearse, transform
from services.transformer.parking import REFRESH_S, parked, release
from services.transformer.shard import Limits
from tests.fakes import InlineThreads
from tests.transformer.world import NAMES, Unplugged, Worker, World, files, ticket

P = ParamSpec("P")
T = TypeVar("T")
ATTEMPTS_MAX = 40


class Killed(BaseException):
    """SIGKILL."""


class FatalThreads(InlineThreads):
    """A program that cannot read the record `fatal`: its process ends, or it raises."""

    def __init__(self, leases: Leases, fatal: str, *, raises: bool = False) -> None:
        self._leases, self._fatal, self._raises = leases, f'"{fatal}"'.encode(), raises

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        function: Any = work
        if function in {transform, rehearse} and any(map(self._meets, args[0])):  # type: ignore[call-overload]
            if self._raises:
                raise ZeroDivisionError
            self._leases.rows = Unplugged()  # type: ignore[assignment]  # dead: whatever it still tries has no effect
            raise Killed
        return await super().run(work, *args, **kwargs)

    def _meets(self, envelope: Envelope) -> bool:
        reading = envelope.reading
        lines = [] if WHOLE in reading.convicted else unseal(envelope.header, envelope.packed)
        return any(
            self._fatal in line and reading.tries(n) and n not in reading.convicted for n, line in enumerate(lines)
        )


async def drained(world: World, fatal: str, *, raises: bool = False) -> int:
    """Workers one after the other until one has drained everything: how many died."""
    for deaths in range(ATTEMPTS_MAX):
        runtime = world.runtime()
        runtime = msgspec.structs.replace(runtime, threads=FatalThreads(runtime.leases, fatal, raises=raises))
        try:
            await Worker(runtime, files()).drain()
        except Killed:
            continue
        return deaths
    raise AssertionError("it is never done")


@pytest.mark.parametrize("fatal", ["t0", "t777", "t1999"])
async def test_a_fatal_record_among_thousands_is_convicted_and_all_others_come_out(fatal: str) -> None:
    world = World(shards=1)
    tickets = [ticket(f"t{number}") for number in range(2_000)]
    await world.publish(*tickets, together=50)
    deaths = await drained(world, fatal)
    assert deaths <= 2 + 11 + 2 + 3
    assert {event.record_id for event in world.canonical()} == {one.record_id for one in tickets} - {fatal}
    ((letter),) = world.letters().values()
    assert (letter.code, letter.stage, letter.group) == ("poison", "transform", "tickets")
    assert f'"{fatal}"' in (letter.text or "")
    assert len(world.of(PoisonIsolated)) == 1
    ((row),) = (await world.lease_rows()).values()
    assert not {"trial", "poison", "deaths"} & set(row)


async def test_a_record_that_raises_is_convicted_without_a_death() -> None:
    world = World(shards=1)
    await world.publish(*(ticket(f"t{number}") for number in range(300)), together=20)
    assert await drained(world, "t123", raises=True) == 0
    assert len(world.canonical()) == 299
    ((letter),) = world.letters().values()
    assert (letter.code, letter.attempts) == ("poison", 1)
    assert "ZeroDivisionError" in letter.reason


async def test_a_flood_of_bad_records_parks_its_partition_and_a_release_brings_all_of_it() -> None:
    world = World(shards=1)
    limits = Limits(letters_per_hour_max=10)
    bad = [ticket(f"b{number}", hours="soon") for number in range(40)]
    await world.publish(ticket("first"), *bad, ticket("last"), together=7)
    await world.publish(ticket("theirs", tenant="other"))
    await world.worker(limits=limits).drain()
    assert {event.record_id for event in world.canonical()} == {"first", "theirs"}
    assert len(world.letters()) == 6  # the second envelope would have been too much
    assert len(world.of(PartitionParked)) == 1
    await world.publish(ticket("later"), ticket("them", tenant="other"))
    await world.worker(limits=limits).drain()
    assert {event.record_id for event in world.canonical()} == {"first", "theirs", "them"}

    runtime = world.runtime()
    (done,) = await release(runtime, await parked(runtime, "acme"))
    assert (done.envelopes, done.again) == (6, False)
    await world.worker(limits=Limits(letters_per_hour_max=1_000)).drain()
    assert {event.record_id for event in world.canonical()} == {"first", "last", "later", "theirs", "them"}
    assert len(world.letters()) == 6 + 34


async def test_a_running_worker_notices_a_release_within_a_minute() -> None:
    world = World(shards=1)
    await world.publish(*(ticket(f"b{number}", hours="soon") for number in range(12)))
    async with world.worker(limits=Limits(letters_per_hour_max=10)).running() as worker:
        await world.clock.sleep(30)
        assert len(world.of(PartitionParked)) == 1
        mark = {"scope": parked_scope("transformer"), "name": "acme/desk/tickets/0"}
        await world.rows.delete(NAMES.leases, mark)
        await world.clock.sleep(REFRESH_S)
        await world.publish(ticket("1"))
        await world.clock.sleep(30)
        assert [event.record_id for event in world.canonical()] == ["1"]
        await worker.stop()
