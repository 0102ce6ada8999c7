"""The vendor as a server: any number of sites over real HTTP on one port. A thin shell around `dialect`.

An answer is recorded as served before it leaves, so what a client may have seen is always in the log; an answer that a
fault spoils is not recorded.
"""

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable
from random import Random

from aiohttp import web

from services.sandbox.control import routes
from services.sandbox.dialect import Answer, Request, answer, spoiled
from services.sandbox.faults import Fault, Faults, befalls
from services.sandbox.world import World

URL_CHARACTERS_MAX = 16_384
SHUTDOWN_S = 2.0


class Running:
    """A server that accepts requests. `faults` may be replaced at any time; `struck` counts what befell answers."""

    def __init__(self, world: World, faults: Faults, rng: Random, sleep: Callable[[float], Awaitable[None]]) -> None:
        self.world = world
        self.faults = faults
        self.struck: Counter[Fault] = Counter()
        self.host = ""
        self.port = 0
        self._rng = rng
        self._sleep = sleep
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:8080`, without the vendor's base path (`dialect.BASE_PATH`)."""
        return f"http://{self.host}:{self.port}"

    async def open(self, host: str, port: int, control: bool) -> None:
        app = web.Application(client_max_size=32 * 2**20)
        if control:
            app.add_routes(routes(self.world))
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=SHUTDOWN_S, max_line_size=URL_CHARACTERS_MAX
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self.host, self.port = host, self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stops accepting, lets open requests end for at most `SHUTDOWN_S`. May be called twice."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        request = Request(
            method=incoming.method,
            origin=str(incoming.url.origin()),
            path=incoming.path,
            parameters=dict(incoming.query),
            headers={name.lower(): text for name, text in incoming.headers.items()},
            arrived_at=self.world.now(),
        )
        given = answer(self.world, request)
        fault = befalls(self.faults, self._rng) if given.status == 200 else None
        if fault is not None:
            self.struck[fault] += 1
            given = spoiled(given, fault, self.faults, self._rng)
        if given.shown is not None:
            shown = given.shown
            shown.site.log.add(shown.path, shown.kind, request.arrived_at, shown.ids, shown.versions)
        if fault == "cut":
            return await _cut(incoming, given)
        if fault == "slow":
            await self._sleep(self.faults.slow_s)
        return web.Response(status=given.status, body=given.body, headers=given.headers)


async def start(
    world: World,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    faults: Faults | None = None,
    rng: Random | None = None,
    control: bool = False,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Running:
    """Serves the world until `close()`. Port 0 takes a free one; `rng` draws the faults.

    Errors: OSError where the port is taken.
    """
    running = Running(world, faults or Faults(), rng or Random(0), sleep)
    await running.open(host, port, control)
    return running


def serve_forever(
    world: World,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    faults: Faults | None = None,
    rng: Random | None = None,
    control: bool = True,
    ready: Callable[[Running], None] = lambda _: None,
) -> None:
    """The same in a process of its own, until SIGINT or SIGTERM. `ready` is called once requests are accepted."""

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        running = await start(world, host, port, faults=faults, rng=rng, control=control)
        try:
            ready(running)
            await stop.wait()
        finally:
            await running.close()

    asyncio.run(run())


async def _cut(incoming: web.Request, given: Answer) -> web.StreamResponse:
    """Promises the whole body, sends half of it, and hangs up."""
    response = web.StreamResponse(status=given.status, headers=given.headers)
    response.content_length = len(given.body)
    await response.prepare(incoming)
    await response.write(given.body[: len(given.body) // 2])
    if incoming.transport is not None:
        incoming.transport.close()
    return response
