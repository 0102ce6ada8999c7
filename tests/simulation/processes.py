"""Simulated processes: each with its own clock, identity and local state, that can die, freeze and be asked to stop.

All there is to a process passes `Process.call`: nothing of it reaches the world by another way. So a process that is
dead has no effect from that instant on, whatever its `finally` blocks try (but a request that had left it may still
arrive, as in the world), and one that is frozen does nothing but hold what it had asked for.
"""

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from random import Random
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from services.contracts.errors import AvesaError
from services.contracts.log import Event
from services.contracts.times import UtcTime
from services.runtime.leases import Leases
from services.runtime.publisher import Publisher
from services.runtime.runtime import Runtime
from tests.fakes import FakeChance, MemoryStates
from tests.simulation.calls import Call, Twist, lost_answer
from tests.simulation.trace import CALL

if TYPE_CHECKING:
    from tests.simulation.world import World

P = ParamSpec("P")
T = TypeVar("T")

Service = Callable[["Process"], Coroutine[Any, Any, None]]

LATENCY_S: Final = (0.001, 0.05)
INSTANT_SHARE: Final = 0.3  # of calls, that take no time worth a timer
SLOW_SHARE, SLOW_MAX_S = 0.004, 3.0  # some calls take seconds
DEATH_TURNS: Final = 40  # turns of the loop in which what was cancelled comes to its end
MONOTONIC_MAX_S: Final = 1_000_000.0  # machines have been up for as long as they like

_current: ContextVar["Process | None"] = ContextVar("process", default=None)


class Killed(BaseException):
    """SIGKILL: nobody cleans up after it."""


class ProcessClock:
    """The clocks of one machine: a wall clock that may be wrong and step, a monotonic one that began anywhere."""

    def __init__(self, process: "Process", began_s: float) -> None:
        self._process, self._began_s = process, began_s

    def now(self) -> UtcTime:
        return self._process.world.clock.shifted_by(self._process.skew_s)

    def monotonic(self) -> float:
        return self._process.world.loop.now + self._began_s

    async def sleep(self, seconds: float) -> None:
        await self._process.passes()
        await asyncio.sleep(max(0.0, seconds))
        await self._process.passes()


class ProcessThreads:
    """Threads: the work is done in one piece, some time after it was asked for."""

    def __init__(self, process: "Process") -> None:
        self._process = process

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        named = getattr(work, "func", work)  # of a partial, what it will call
        call = Call(self._process, "threads", "run", named.__name__, args)
        return await self._process.call(call, lambda: work(*args, **kwargs))


class ProcessRuntime(Runtime, frozen=True, kw_only=True):
    """A runtime whose publishers hold little, so that back-pressure is met, and can be looked at."""

    process: "Process"

    def publisher(self, stream: str) -> Publisher:
        made = Publisher(
            stream, self.streams, self.objects, self.clock, self.chance, self.emit, self.process.world.scale.bounds
        )
        self.process.publishers.append(made)
        return made


class Process:
    """One process from its start to its end. `name` is `transformer-1.3`: service, place, and which start it is.

    For faults: `kill`, `freeze`, `stop` (SIGTERM), `skew_s` (seconds its wall clock is wrong by), `allow` (exception
    types it may end with), `service` (extractor, transformer, compactor), `runtime`, `running`, `publishers`.
    """

    def __init__(self, world: "World", service: str, name: str, skew_s: float, work: Service) -> None:
        self.world, self.service, self.name, self.skew_s = world, service, name, skew_s
        self.stopping = asyncio.Event()
        self.dead = False
        self.allow: tuple[type[BaseException], ...] = ()
        self.heard: list[Event] = []
        self.publishers: list[Publisher] = []
        self._work = work
        self._random = Random(world.random.getrandbits(64))
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._thawed = asyncio.Event()
        self._thawed.set()
        self.runtime = self._runtime()

    def _runtime(self) -> Runtime:
        world, aws = self.world, self.world.aws
        clock = ProcessClock(self, self._random.random() * MONOTONIC_MAX_S)
        chance, rows = FakeChance(self._random.getrandbits(64)), aws.rows.seen_by(self)
        return ProcessRuntime(
            process=self,
            names=world.names,
            streams=aws.streams.seen_by(self),
            objects=aws.objects.seen_by(self),
            rows=rows,
            secrets=aws.secrets.seen_by(self),
            states=MemoryStates(),
            clock=clock,
            chance=chance,
            threads=ProcessThreads(self),
            leases=Leases(rows, world.names.leases, clock, chance, self._emit, world.scale.lease_s),
            emit=self._emit,
        )

    def _emit(self, event: Event) -> None:
        if not self.dead:
            self.heard.append(event)
            self.world.hear(self, event)

    # -- its life -----------------------------------------------------------------------------------------------------
    async def run(self) -> BaseException | None:
        """To its end, whichever that is; what it ended with. Only the supervisor calls it."""
        token = _current.set(self)
        try:
            main = asyncio.ensure_future(self._work(self))
            renewing = asyncio.ensure_future(self.runtime.leases.renew_forever())
        finally:
            _current.reset(token)
        await asyncio.wait([main])
        if self.dead:
            return Killed()
        if not main.cancelled() and main.exception() is None:
            released = asyncio.ensure_future(self._let_go(renewing))
            await asyncio.wait([released])
        self._end()
        await self._buried()
        return asyncio.CancelledError() if main.cancelled() else main.exception()

    async def _let_go(self, renewing: "asyncio.Future[None]") -> None:
        """As the command does when its service has ended: `cli/world.open_runtime`."""
        renewing.cancel()
        await self.runtime.leases.release_all()

    @property
    def running(self) -> bool:
        return not self.dead

    @property
    def frozen(self) -> bool:
        return not self._thawed.is_set()

    def adopt(self, task: "asyncio.Task[Any]") -> None:
        """A task that it started."""
        self._tasks[task] = None
        task.add_done_callback(self._forget)

    def _forget(self, task: "asyncio.Task[Any]") -> None:
        self._tasks.pop(task, None)

    def kill(self) -> None:
        """SIGKILL, now."""
        if not self.dead:
            self.world.note(self.name, "kill", "SIGKILL")
            self._end()

    def stop(self) -> None:
        """SIGTERM."""
        if not self.dead and not self.stopping.is_set():
            self.world.note(self.name, "stop", "SIGTERM")
            self.stopping.set()

    def freeze(self, seconds: float) -> None:
        """It stands still from now on, wherever it is; its monotonic clock goes on."""
        if self.dead or self.frozen:
            return
        self.world.note(self.name, "freeze", f"for {seconds:.1f} s")
        self._thawed.clear()
        self.world.loop.call_later(seconds, self._thaw)

    def _thaw(self) -> None:
        if not self.dead:
            self.world.note(self.name, "thaw", "")
        self._thawed.set()

    def _end(self) -> None:
        self.dead = True
        self._thawed.set()
        for task in list(self._tasks):
            task.cancel()

    async def _buried(self) -> None:
        """Every task has come to its end."""
        for _ in range(DEATH_TURNS):
            if not self._tasks:
                return
            await asyncio.sleep(0)
            for task in list(self._tasks):
                task.cancel()

    # -- its way to the world -----------------------------------------------------------------------------------------
    async def passes(self) -> None:
        """Where a frozen process stands still and a dead one goes no further."""
        if not self._thawed.is_set():
            await self._thawed.wait()
        if self.dead:
            raise Killed

    async def call(self, call: Call, effect: Callable[[], T]) -> T:
        """`effect` upon the world, with all that befalls a call on its way there and back."""
        await self.passes()
        twist = self.world.twist(call)
        if twist.kill == "before":
            self.kill()
            raise Killed
        way_s = self._latency_s() + twist.delay_s
        if twist.error is not None or twist.late_s:
            if twist.late_s:
                self.world.loop.call_later(twist.late_s, self._land, call, effect)
            await asyncio.sleep(way_s)
            await self.passes()
            raise twist.error or lost_answer(call)
        there = twist.delay_s > 0 or self._random.random() < 0.5  # most of the way is this one or the way back
        if there and way_s:
            await self._travel(way_s, call, effect)
        try:
            return await self._done(call, effect, twist, 0.0 if there else way_s)
        except AvesaError as err:
            self.world.note(self.name, CALL, f"{call.text} -> {err.code}: {err.what}")
            raise

    async def _done(self, call: Call, effect: Callable[[], T], twist: Twist, back_s: float) -> T:
        """The effect, and the way back."""
        try:
            result = effect()
            self.world.note(self.name, CALL, f"{call.text}")
            if twist.again:
                result = effect()
        finally:
            if twist.kill == "after":
                self.kill()
            if twist.freeze_s:
                self.freeze(twist.freeze_s)
            if back_s and not self.dead:
                await asyncio.sleep(back_s)
            await self.passes()
            if twist.lost:
                raise lost_answer(call)
        return result

    async def _travel(self, seconds: float, call: Call, effect: Callable[[], Any]) -> None:
        """On the way. Who goes away meanwhile, dead or no longer interested, cannot call the request back."""
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            if self._random.random() < 0.5:
                self.world.loop.call_later(self._random.random(), self._land, call, effect)
            raise

    def _land(self, call: Call, effect: Callable[[], Any]) -> None:
        """A request whose sender no longer listens arrives."""
        if call.port in ("threads", "catalog"):
            return
        try:
            effect()
            self.world.note(self.name, CALL, f"{call.text} (landed late)")
        except AvesaError as err:
            self.world.note(self.name, CALL, f"{call.text} (landed late) -> {err.code}")

    def _latency_s(self) -> float:
        if self._random.random() < INSTANT_SHARE:
            return 0.0
        least, most = LATENCY_S
        if self._random.random() < SLOW_SHARE * self.world.roughness:
            return self._random.random() * SLOW_MAX_S
        return least + (most - least) * self._random.random() ** 2


def task_factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> "asyncio.Task[Any]":
    """Every task belongs to the process that started it."""
    task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
    process = _current.get()
    if process is not None:
        process.adopt(task)
        if process.dead:
            task.cancel()
    return task
