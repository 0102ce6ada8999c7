"""The life of a service: run its tasks together and stop them cleanly at a signal.

First SIGINT or SIGTERM: finish what is in hand, commit, let go. A second one: stop at once (nothing acknowledged is
lost: the next run reads again what was not committed).
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, Final, TypeVar

from services.contracts.errors import AvesaError
from services.contracts.ports import Clock

T = TypeVar("T")
Part = Callable[[asyncio.Event], Awaitable[None]]

BEAT_S: Final = 30.0  # between two signs of life of who waits for others; a tenth of `leases.STALL_MAX_S`


def install_signals(stopping: asyncio.Event) -> None:
    """The first signal sets `stopping`, the second ends the process with the shell's code for it."""

    def on_signal(number: int) -> None:
        if stopping.is_set():
            os._exit(128 + number)
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal, number)


async def run_together(parts: Sequence[Part], stopping: asyncio.Event) -> None:
    """Run parts until all have ended. The first to fail stops the others cleanly, then its error is raised."""
    tasks = [asyncio.ensure_future(part(stopping)) for part in parts]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        stopping.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
    finally:
        await cancelled(tasks)
    for result in done:
        if isinstance(result, BaseException):
            raise result


async def pause(clock: Clock, stopping: asyncio.Event, seconds: float) -> None:
    """Sleep, or less when we are asked to stop."""
    sleeping, stopped = asyncio.ensure_future(clock.sleep(seconds)), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({sleeping, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        sleeping.cancel()
        stopped.cancel()


async def until(ending: asyncio.Event, work: Awaitable[None]) -> None:
    """`work`, broken off wherever it waits when `ending` is set: for what can be begun anew from what is committed."""
    working, ended = asyncio.ensure_future(work), asyncio.ensure_future(ending.wait())
    both: list[asyncio.Future[Any]] = [working, ended]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            working.result()
    finally:
        await cancelled(both)


async def beating(work: Awaitable[T], beat: Callable[[], None], clock: Clock) -> T:
    """`work`, and a beat every BEAT_S while it lasts: it waits for others, and that is no stall of ours."""
    waiting = asyncio.ensure_future(work)
    try:
        while not waiting.done():
            beat()
            sleeping = asyncio.ensure_future(clock.sleep(BEAT_S))
            try:
                await asyncio.wait({waiting, sleeping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                sleeping.cancel()
        return waiting.result()
    finally:
        await cancelled([waiting])


async def all_of(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """All of it at once; the first error ends the rest."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        await cancelled(tasks)


async def cancelled(tasks: Sequence[asyncio.Future[Any]]) -> list[Any]:
    """Cancel what still runs; what came of each, results and errors alike, once all have ended."""
    for task in tasks:
        task.cancel()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def outcome_of(work: Awaitable[T]) -> T | Exception:
    """What came of `work`, or what it raised that nobody meant it to. Errors: what it raised on purpose."""
    try:
        return await work
    except AvesaError:
        raise
    except Exception as err:
        return err
