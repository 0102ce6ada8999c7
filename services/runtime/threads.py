"""Threads for computation that would hold up the loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Final, ParamSpec, Self, TypeVar

from services.contracts.ports import Threads

P = ParamSpec("P")
T = TypeVar("T")

QUEUED_PER_WORKER_MAX: Final = 2


class WorkerThreads:
    """`Threads` over a pool; work beyond the workers and a short queue waits in its caller.

    A cancelled caller stops waiting at once; work already begun runs to its end.
    """

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="avesa")
        self._room = asyncio.Semaphore(workers * (1 + QUEUED_PER_WORKER_MAX))

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._room:
            return await asyncio.get_running_loop().run_in_executor(self._pool, partial(work, *args, **kwargs))

    def close(self) -> None:
        """Drop what has not begun, wait for what has."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class SomeThreads:
    """`Threads` as one of many users has them: at most `at_once` pieces of its work, so that nobody's flood fills the
    queue in which the others stand."""

    def __init__(self, threads: Threads, at_once: int) -> None:
        self._threads, self._room = threads, asyncio.Semaphore(at_once)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        async with self._room:
            return await self._threads.run(work, *args, **kwargs)
