"""HTTP, the only place that speaks it. `Http` sends one request; `Caller` gets an answer that can be used.

Everything has a bound: the time to connect, the time between two bytes, the time of a whole answer, its size, its
redirects (never to another host), the tries. A 429 is no failed try: it slows everybody down and goes on.
"""

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Final, Generic, Protocol, Self, TypeVar

import aiohttp
import msgspec
from yarl import URL

from services.contracts.errors import (
    AvesaError,
    NotFoundError,
    RejectedError,
    RetryableError,
    ThrottledError,
    UnauthorizedError,
)
from services.contracts.integration import Limits
from services.contracts.log import Retried, VendorThrottled
from services.contracts.times import UtcTime, seconds_between, utc_text
from services.extractor.auth import Site
from services.extractor.clockskew import earliest_time, read_offset, vendor_time
from services.extractor.limits import accepted, budget_of, refused, reserve
from services.extractor.requests import Request, followed
from services.runtime.runtime import Runtime

T = TypeVar("T")

USER_AGENT: Final = "avesa"
BODY_BYTES_MAX: Final = 128 * 1024 * 1024  # one record of 20 MB on a page of a thousand is no reason to fail
CHUNK_BYTES: Final = 256 * 1024
REDIRECTS_MAX: Final = 3
CONNECTIONS_MAX: Final = 200
TRIES_MAX: Final = 6
WAIT_FIRST_S, WAIT_MAX_S = 0.5, 30.0
THROTTLED_MAX_S: Final = 3_600.0  # of one request; longer, and the endpoint tries again at its next turn
NAP_MAX_S: Final = 30.0  # a long wait is slept in pieces, so that the lease sees us move
SAID_LENGTH_MAX: Final = 200
NO_CONTENT: Final = 204
NOTHING: Final = b"null"  # how a reader is told of an answer without a body
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 425})
_GONE = frozenset({404, 410})


class Answer(msgspec.Struct, frozen=True):
    """What came back. Names of `headers` are lower case."""

    status: int
    body: bytes
    headers: dict[str, str] = {}


class Bounds(msgspec.Struct, frozen=True):
    """Of one request: the time to connect, between two bytes and for a whole answer, and the answer's size."""

    connect_s: float = 10.0
    silence_s: float = 60.0
    whole_s: float = 300.0
    body_bytes: int = BODY_BYTES_MAX


class Transport(Protocol):
    """Whatever carries a request to a vendor and an answer back."""

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """One try, whatever its status. Errors: RetryableError; RejectedError `too_large`, `wrong_host`."""
        ...


class Http:
    """`Transport` over the network. Keeps no cookie: customers share nothing."""

    def __init__(self, bounds: Bounds | None = None) -> None:
        self._bounds = bounds or Bounds()
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        bounds = self._bounds
        timeout = aiohttp.ClientTimeout(total=bounds.whole_s, sock_connect=bounds.connect_s, sock_read=bounds.silence_s)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=timeout,
            headers={"User-Agent": USER_AGENT, "Accept": "application/json", "Accept-Encoding": "gzip, deflate"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        address = request.address
        for _ in range(REDIRECTS_MAX + 1):
            answer = await self._once(address, headers, request.source)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or location is None:
                return answer
            address = followed(address, location)
        raise RejectedError(f"{request.source}: redirected without end", code="pages_do_not_advance")

    async def _once(self, address: str, headers: Mapping[str, str], source: str) -> Answer:
        assert self._session is not None, "used inside `async with`"
        url = URL(address, encoded=True)
        try:
            async with self._session.get(url, headers=headers, allow_redirects=False) as response:
                body = await self._body(response, source)
                return Answer(response.status, body, {name.lower(): text for name, text in response.headers.items()})
        except TimeoutError as err:
            raise RetryableError(f"{source}: {url.host} did not answer in time", code="timeout") from err
        except (aiohttp.ClientError, OSError) as err:  # their texts may hold a URL: the kind says enough
            raise RetryableError(f"{source}: no whole answer from {url.host} ({type(err).__name__})") from err

    async def _body(self, response: aiohttp.ClientResponse, source: str) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):  # already decompressed
            size += len(chunk)
            if size > self._bounds.body_bytes:
                what = f"{source}: an answer of more than {self._bounds.body_bytes} bytes"
                raise RejectedError(what, code="too_large")
            chunks.append(chunk)
        return b"".join(chunks)


class Got(msgspec.Struct, Generic[T], frozen=True):
    """What an answer holds; when it was asked for on the vendor's clock, and on the earlier of both clocks."""

    value: T
    observed_at: UtcTime
    earliest_at: UtcTime


class Calls(msgspec.Struct):
    """Requests sent, tries included."""

    count: int = 0


class Patience(msgspec.Struct, frozen=True):
    """How long one request is tried."""

    tries_max: int = TRIES_MAX
    throttled_max_s: float = THROTTLED_MAX_S


def _no_lease() -> None:
    """For callers that hold none."""


def _anything(_body: bytes, _observed_at: UtcTime) -> bool:
    return True


class Caller:
    """Asks one customer's API, within its budget. `alive` is called as we go, and raises when we must stop."""

    def __init__(
        self,
        runtime: Runtime,
        transport: Transport,
        site: Site,
        limits: Limits,
        label: tuple[str, str],
        alive: Callable[[], None] = _no_lease,
        patience: Patience | None = None,
    ) -> None:
        self.site = site
        self._runtime, self._transport, self._alive = runtime, transport, alive
        self._tenant_id, self._service = label
        self._patience = patience or Patience()
        self._budget = budget_of(limits)
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._turns = {False: asyncio.Lock(), True: asyncio.Lock()}  # first come, first served; live and background

    async def get(
        self,
        request: Request,
        read: Callable[[bytes, UtcTime], T],
        *,
        calls: Calls | None = None,
        background: bool = False,
    ) -> Got[T]:
        """The answer to `request`, as `read` (in a thread) makes it of its bytes and its `observed_at`.

        Errors: RetryableError when the tries are used up (ThrottledError: told to wait for too long);
        UnauthorizedError; RejectedError `forbidden`, `vendor_error`, `too_large`, `wrong_host`; NotFoundError.
        """
        got = await self._get(request, read, calls, background)
        if isinstance(got.value, NotFoundError):
            raise got.value
        return Got(got.value, got.observed_at, got.earliest_at)

    async def is_there(self, request: Request, *, calls: Calls | None = None) -> Got[bool]:
        """Is there anything at all? 404 and 410 are an answer here. Errors: as `get`, but for NotFoundError."""
        got = await self._get(request, _anything, calls, background=True)
        return Got(not isinstance(got.value, NotFoundError), got.observed_at, got.earliest_at)

    async def _get(
        self, request: Request, read: Callable[[bytes, UtcTime], T], calls: Calls | None, background: bool
    ) -> Got[T | NotFoundError]:
        tries, throttled_s = 0, 0.0
        while True:
            await self._turn(background)
            if calls is not None:
                calls.count += 1
            try:
                async with self._slots:
                    got = await self._try(request, read)
                accepted(self._budget)
                return got
            except ThrottledError as err:
                throttled_s += self._slow_down(err)
                if throttled_s > self._patience.throttled_max_s:
                    raise
            except RetryableError as err:
                tries += 1
                if tries >= self._patience.tries_max:
                    raise
                wait_s = min(WAIT_MAX_S, WAIT_FIRST_S * 2**tries) * (0.5 + self._runtime.chance.fraction())
                self._runtime.emit(Retried(what=f"{self._service} {request.source}", code=err.code, wait_s=wait_s))
                await self._nap(wait_s)

    async def _try(self, request: Request, read: Callable[[bytes, UtcTime], T]) -> Got[T | NotFoundError]:
        clock = self._runtime.clock
        started_at, started = clock.now(), clock.monotonic()
        answer = await self._transport.send(request, self.site.headers)
        offset = read_offset(answer.headers.get("date"), started_at, clock.monotonic() - started)
        observed_at, earliest_at = vendor_time(started_at, offset), earliest_time(started_at, offset)
        error = error_of(answer, request, self.site, clock.now())
        if isinstance(error, NotFoundError):
            return Got(error, observed_at, earliest_at)
        if error is not None:
            raise error
        body = NOTHING if answer.status == NO_CONTENT else answer.body
        try:
            value = await self._runtime.threads.run(read, body, observed_at)
        except AvesaError as err:
            err.where = err.where or request.source
            raise
        return Got(value, observed_at, earliest_at)

    def _slow_down(self, err: ThrottledError) -> float:
        clock, chance = self._runtime.clock, self._runtime.chance
        wait_s = refused(self._budget, clock.monotonic(), err.retry_after_s, chance.fraction())
        self._runtime.emit(VendorThrottled(tenant_id=self._tenant_id, service=self._service, wait_s=wait_s))
        return wait_s

    async def _turn(self, background: bool) -> None:
        """Wait until the budget grants a request."""
        async with self._turns[background]:
            self._alive()
            while (wait_s := reserve(self._budget, self._runtime.clock.monotonic(), background=background)) > 0:
                await self._nap(min(wait_s, NAP_MAX_S))

    async def _nap(self, seconds: float) -> None:
        while seconds > 0:
            await self._runtime.clock.sleep(min(seconds, NAP_MAX_S))
            seconds -= NAP_MAX_S
            self._alive()


def error_of(answer: Answer, request: Request, site: Site, now: UtcTime) -> AvesaError | None:
    """What a status means to whoever asked; None where the body is the answer. Never shows a credential."""
    status = answer.status
    if 200 <= status < 300:
        return None
    retry_after_s = read_retry_after(answer.headers.get("retry-after"), now)
    if status == 429 or (status == 503 and retry_after_s is not None):
        return ThrottledError(f"{request.source}: asked to slow down", retry_after_s=retry_after_s)
    said = site.scrubbed(what_it_says(answer.body))
    what = f"{request.source}: the vendor answered {status}" + (f" and said {said!r}" if said else "")
    if status in _PASSING or status >= 500:
        return RetryableError(what, code="unavailable")
    if status == 401:
        return UnauthorizedError(what, remedy="Replace the credentials with `avesa setup-service`.")
    if status == 403:
        remedy = "Grant these credentials the permission at the vendor, or switch the endpoint off in the mapping."
        return RejectedError(what, code="forbidden", remedy=remedy)
    return NotFoundError(what) if status in _GONE else RejectedError(what, code="vendor_error")


def read_retry_after(text: str | None, now: UtcTime) -> float | None:
    """Seconds named by a `Retry-After` (a number or a date), None where there is none to be read."""
    if text is None:
        return None
    try:
        return max(0.0, float(int(text.strip())))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, seconds_between(now, utc_text(until if until.tzinfo is not None else until.replace(tzinfo=UTC))))


def what_it_says(body: bytes) -> str:
    """The message in the JSON of an error, if there is one."""
    try:
        plain = msgspec.json.decode(body[:65_536])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    if isinstance(plain, dict):
        for name in ("message", "error_description", "error", "title", "detail"):
            found = plain.get(name)
            if isinstance(found, str):
                return found[:SAID_LENGTH_MAX]
    return ""
