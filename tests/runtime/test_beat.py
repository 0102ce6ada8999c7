"""The signs of life of a service, on a clock that takes no time."""

import asyncio

from services.contracts.log import Event, LakeBehind, ServiceAlive, ShardsBehind
from services.contracts.names import Names
from services.runtime.beat import EVERY_S, beat, shards_behind
from services.runtime.runtime import Runtime
from services.runtime.shards import scope_of
from tests.fakes import FakeClock, MemoryRows, MemoryStreams
from tests.runtimes import fake_runtime

NAMES = Names("test")


def runtime_of(said: list[Event]) -> Runtime:
    clock = FakeClock()
    rows = MemoryRows({NAMES.leases: ("scope", "name")})
    return fake_runtime(NAMES, clock, MemoryStreams(clock), rows, emit=said.append)


async def test_a_process_says_once_a_minute_that_it_lives_and_what_it_measures() -> None:
    said: list[Event] = []
    runtime, stopping = runtime_of(said), asyncio.Event()
    alive = beat(runtime, "compactor", "compactor", lambda: [LakeBehind(seconds=3.0)])
    running = asyncio.ensure_future(alive(stopping))
    await runtime.clock.sleep(2.5 * EVERY_S)
    stopping.set()
    await running
    assert said == 3 * [ServiceAlive(service="compactor", group="compactor"), LakeBehind(seconds=3.0)]


async def test_shards_are_as_far_behind_as_the_worst_of_them_and_as_long_as_nobody_read_it() -> None:
    runtime, scope = runtime_of([]), scope_of("raw", "1", "transformer")

    def behind() -> int:
        return shards_behind(runtime, "transformer", "transformer").ms

    assert behind() == 0
    first = await runtime.leases.acquire(scope, "0")
    second = await runtime.leases.acquire(scope, "1")
    other = await runtime.leases.acquire(scope_of("raw", "1", "transformer-tickets"), "0")
    assert first is not None
    assert second is not None
    assert other is not None
    first.tell(1, behind_ms=200)
    second.tell(1, behind_ms=900)
    other.tell(1, behind_ms=70_000)
    assert behind() == 900
    await runtime.clock.sleep(10)
    second.tell(0, behind_ms=0)
    assert behind() == 10_200
    first.tell(0, behind_ms=0)
    assert behind() == 0
    assert shards_behind(runtime, "transformer", "transformer-tickets") == ShardsBehind(
        service="transformer", group="transformer-tickets", ms=80_000
    )
