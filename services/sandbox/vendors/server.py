"""A dialect as a server: real HTTP on one port, whatever name the client calls it by. A thin shell around `hostility`.

The client's transport names the vendor's host in `Host`; a name the dialect does not answer for is noted in `astray`
and refused. Each answer carries its number in `X-Serving`, so that a client can say which ones reached it whole.
"""

import asyncio
import traceback
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

from aiohttp import web

from services.sandbox.vendors.dialect import Request
from services.sandbox.vendors.hostility import Hostility, Serving

SERVING: Final = "X-Serving"
URL_CHARACTERS_MAX: Final = 65_536
SHUTDOWN_S: Final = 0.2


class Running:
    """A server that accepts requests. `astray`: what was asked of hosts that are not the vendor's; `broken`: requests
    that a dialect's own mistake left without an answer."""

    def __init__(self, hostility: Hostility, now: Callable[[], datetime], stall: Callable[[], Awaitable[None]]) -> None:
        self.hostility = hostility
        self.astray: list[str] = []
        self.broken: list[str] = []
        self.port = 0
        self._now, self._stall = now, stall
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def open(self) -> None:
        app = web.Application(client_max_size=32 * 2**20)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=SHUTDOWN_S, max_line_size=URL_CHARACTERS_MAX
        )
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, incoming: web.Request) -> web.StreamResponse:
        host = incoming.headers.get("Host", "")
        if not self.hostility.dialect.answers_for(host):
            self.astray.append(f"{incoming.method} {host}{incoming.path}")
            return web.Response(status=421, text="no such host here")
        request = Request(
            method=incoming.method,
            origin=f"https://{host}",
            path=incoming.path,
            query=dict(incoming.query),
            headers={name.lower(): text for name, text in incoming.headers.items()},
            at=self._now(),
            body=await incoming.read(),
            pairs=tuple(incoming.query.items()),
        )
        serving = self._respond(request)
        if serving.manner == "cut":
            return await _cut(incoming, serving)
        if serving.manner == "slow":
            await self._stall()
        answer = serving.answer
        return web.Response(
            status=answer.status, body=answer.body, headers={**answer.headers, SERVING: str(serving.number)}
        )

    def _respond(self, request: Request) -> Serving:
        serving = None
        try:
            serving = self.hostility.respond(request)
        finally:
            if serving is None:
                self.broken.append(f"{request.method} {request.url()}: {traceback.format_exc(limit=-3)}")
        return serving


async def start(
    hostility: Hostility, now: Callable[[], datetime], stall: Callable[[], Awaitable[None]] | None = None
) -> Running:
    """Serves a vendor on a free port until `close()`. `stall` is how long an answer that is too slow takes."""
    running = Running(hostility, now, stall or (lambda: asyncio.sleep(1.0)))
    await running.open()
    return running


async def _cut(incoming: web.Request, serving: Serving) -> web.StreamResponse:
    """Promises the whole body, sends half of it, and hangs up."""
    answer = serving.answer
    response = web.StreamResponse(status=answer.status, headers=answer.headers)
    response.content_length = len(answer.body)
    await response.prepare(incoming)
    await response.write(answer.body[: len(answer.body) // 2])
    if incoming.transport is not None:
        incoming.transport.close()
    return response
