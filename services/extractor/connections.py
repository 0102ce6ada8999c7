"""Who may open a connection next. A server that takes its time holds up nobody but those who ask it."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Lanes:
    """Connections, at most so many of a worker, shared by hosts: the next that is free goes to the waiting host that
    has the fewest, first come, first served. One that has none never waits: a host whose every answer takes half a
    minute ends up with all that nobody else wants, and no more.

    Bound: `most`, or one for each host of which something is asked, whichever is more.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._busy: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    @asynccontextmanager
    async def lane(self, host: str) -> AsyncIterator[None]:
        await self._enter(host)
        try:
            yield
        finally:
            self._leave(host)

    async def _enter(self, host: str) -> None:
        if self._busy[host] == 0 or (not self._waiting and self._busy.total() < self._most):
            self._busy[host] += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(host, deque()).append(turn)
        try:
            await turn  # whoever wakes us has counted us
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(host)
            else:
                self._forget(host, turn)
            raise

    def _leave(self, host: str) -> None:
        self._busy[host] -= 1
        if self._busy[host] == 0:
            del self._busy[host]
        while self._waiting:
            least = min(self._waiting, key=lambda waiting: self._busy[waiting])
            if self._busy[least] > 0 and self._busy.total() >= self._most:
                return
            turn = self._waiting[least][0]
            self._forget(least, turn)
            self._busy[least] += 1
            turn.set_result(None)

    def _forget(self, host: str, turn: "asyncio.Future[None]") -> None:
        self._waiting[host].remove(turn)
        if not self._waiting[host]:
            del self._waiting[host]
