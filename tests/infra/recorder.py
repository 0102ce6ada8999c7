"""An HTTP proxy between the services and an emulator of AWS: what each of them asks for, whatever library asks.

One port for each of them, so that nobody has to say who they are. It answers on 0.0.0.0, which is this machine and yet
no loopback address: so the services take it for AWS itself, and nothing is done for the emulator's sake.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from io import BytesIO
from typing import Any, Final

import msgspec
from aiohttp import ClientConnectionResetError, ClientSession, ClientTimeout, TCPConnector, web
from yarl import URL

from tests.infra.calls import Call, Exchange, Reader

HOST: Final = "0.0.0.0"
BODY_MAX: Final = 64 << 20
# Between two hosts only; and what this proxy says of a body itself.
HOP: Final = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect", "host"}
STREAMED: Final = "Kinesis_20131202.SubscribeToShard"


class Recorder:
    """`calls` by who made them, `unknown` what could not be read. From now on Kinesis says that records arrived
    `later_s` seconds later than they did, so that an hour can be over at once."""

    def __init__(self, upstream: str, reader: Reader) -> None:
        self.calls: dict[str, set[Call]] = defaultdict(set)
        self.unknown: list[str] = []
        self.later_s = 0
        self._upstream, self._reader = upstream, reader
        self._urls: dict[str, str] = {}
        self._session: ClientSession

    def url(self, who: str) -> str:
        """The endpoint of `who`."""
        return self._urls[who]

    @asynccontextmanager
    async def serving(self, names: Sequence[str]) -> AsyncIterator[None]:
        """Serve until the block ends."""
        runners: list[web.AppRunner] = []
        timeout, connector = ClientTimeout(total=None, sock_connect=10), TCPConnector(limit=0)
        async with ClientSession(timeout=timeout, connector=connector, auto_decompress=False) as self._session:
            try:
                for who in names:
                    app = web.Application(client_max_size=BODY_MAX)
                    app.router.add_route("*", "/{path:.*}", partial(self._serve, who))
                    runners.append(web.AppRunner(app, access_log=None, shutdown_timeout=1.0))
                    await runners[-1].setup()
                    await web.TCPSite(runners[-1], HOST, 0).start()
                    self._urls[who] = f"http://{HOST}:{runners[-1].addresses[0][1]}"
                yield
            finally:
                await asyncio.gather(*(runner.cleanup() for runner in runners))

    async def _serve(self, who: str, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        with suppress(ClientConnectionResetError):  # whoever asked was killed
            return await self._pass_on(who, request)
        return response

    async def _pass_on(self, who: str, request: web.Request) -> web.StreamResponse:
        body, target = await request.read(), request.headers.get("X-Amz-Target", "")
        kept = {name: text for name, text in request.headers.items() if name.lower() not in HOP}
        url = URL(f"{self._upstream}{request.raw_path}", encoded=True)
        async with self._session.request(
            request.method, url, headers=kept, data=BytesIO(body) if body else None, allow_redirects=False
        ) as told:
            headers = {name: text for name, text in told.headers.items() if name.lower() not in HOP}
            response = web.StreamResponse(status=told.status, headers=headers)
            if target == STREAMED and told.status == 200:
                self._note(who, request, body, told.status, b"")
                await response.prepare(request)
                async for piece in told.content.iter_any():
                    await response.write(piece)
                return response
            answer = await told.read()
        self._note(who, request, body, told.status, answer)
        if target.endswith(".GetRecords") and told.status == 200 and self.later_s:
            answer = _later(answer, self.later_s)
        if request.method != "HEAD":
            response.content_length = len(answer)
        await response.prepare(request)
        if request.method != "HEAD":
            await response.write(answer)
        return response

    def _note(self, who: str, request: web.Request, body: bytes, status: int, answer: bytes) -> None:
        headers = {name.lower(): text for name, text in request.headers.items()}
        try:
            made = self._reader.calls(Exchange(request.method, request.raw_path, headers, body, status, answer))
        except (KeyError, ValueError) as err:
            self.unknown.append(f"{who}: {err}")
            return
        self.calls[who].update(made)


def _later(answer: bytes, seconds: int) -> bytes:
    told: dict[str, Any] = msgspec.json.decode(answer)
    for record in told.get("Records", ()):
        record["ApproximateArrivalTimestamp"] += seconds
    return msgspec.json.encode(told)
