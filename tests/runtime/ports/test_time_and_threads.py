"""The contracts of `Clock`, `Chance` and `Threads`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest

from services.contracts.ports import Chance, Clock, Threads
from services.runtime.chance import SystemChance
from services.runtime.clock import SystemClock
from services.runtime.threads import WorkerThreads
from tests.fakes import FakeChance, FakeClock, InlineThreads


@pytest.mark.parametrize("clock", [SystemClock(), FakeClock()])
async def test_sleeping_takes_at_least_its_time(clock: Clock) -> None:
    before, began = clock.monotonic(), clock.now()
    await clock.sleep(0.002)
    assert clock.monotonic() - before >= 0.0019
    assert clock.now() > began
    await clock.sleep(-1)


@pytest.mark.parametrize("chance", [SystemChance(), FakeChance()])
def test_tokens_differ_and_fractions_stay_below_one(chance: Chance) -> None:
    assert len({chance.token() for _ in range(100)}) == 100
    assert all(0 <= chance.fraction() < 1 for _ in range(100))


@pytest.fixture(params=[InlineThreads, partial(WorkerThreads, 2)], ids=["inline", "pool"])
async def threads(request: pytest.FixtureRequest) -> AsyncIterator[Threads]:
    make: Callable[[], InlineThreads | WorkerThreads] = request.param
    made = make()
    yield made
    if isinstance(made, WorkerThreads):
        made.close()


async def test_work_in_threads_gives_its_result_or_its_error(threads: Threads) -> None:
    assert await threads.run(sorted, [3, 1, 2], reverse=True) == [3, 2, 1]
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda: 1 // 0)


async def test_more_work_than_threads_is_all_done(threads: Threads) -> None:
    waiting: list[Awaitable[int]] = [threads.run(abs, -number) for number in range(50)]
    assert [await one for one in waiting] == list(range(50))
