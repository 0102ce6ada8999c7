"""An event loop whose time is virtual: when nothing can run, the clock leaps to the next timer. No sockets, no threads.

Which callback runs when follows from the order of calls alone, so one seed is one history.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")


TURNS_MAX: Final = 200_000  # of the loop in which no time passes: somebody spins


class DeadlockError(BaseException):
    """Nothing can ever run again, or runs for ever at one instant, and the history is not at its end."""


class _Selector:
    """Stands where a selector would wait for sockets: it lets the time pass at once."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop
        self._turns = 0

    def select(self, timeout: float | None) -> list[Any]:
        if timeout is None:
            raise DeadlockError("nothing is scheduled any more")
        self._turns += 1
        if timeout > 0:
            self._loop.now += timeout
            self._turns = 0
        elif self._turns > TURNS_MAX:
            self._turns = 0
            raise DeadlockError("somebody spins, and no time passes")
        return []

    def close(self) -> None:
        """Nothing is held."""


class VirtualLoop(asyncio.BaseEventLoop):
    """`now` is the virtual time in seconds since the start."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._selector = _Selector(self)

    def time(self) -> float:
        return self.now

    def _process_events(self, event_list: list[Any]) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody calls from another thread."""


def run(main: Coroutine[Any, Any, T], loop: VirtualLoop) -> T:
    """`main` to its end; whatever still runs then is cancelled."""
    try:
        return loop.run_until_complete(main)
    finally:
        loop.run_until_complete(_ended(loop))
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


async def _ended(loop: VirtualLoop) -> None:
    left = asyncio.all_tasks(loop) - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
