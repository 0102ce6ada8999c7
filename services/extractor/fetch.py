"""HTTP, the only place that speaks it. `Http` sends one request; `Caller` gets an answer that can be used.

Everything has a bound: the time to connect, the time between two bytes, the time of a whole answer, its size, its
redirects (never to another host), the tries. A 429 is no failed try: it slows everybody down and goes on. A server that
takes its time holds up nobody but those who ask it (`Lanes`).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import IO, Final, Generic, Protocol, Self, TypeVar

import aiohttp
import msgspec
from msgspec.structs import asdict, replace
from yarl import URL

from services.contracts.access import Limits
from services.contracts.errors import (
    AvesaError,
    NotFoundError,
    RejectedError,
    RetryableError,
    ThrottledError,
    UnauthorizedError,
)
from services.contracts.log import Retried, VendorThrottled
from services.contracts.times import UtcTime
from services.extractor.access import Access
from services.extractor.addresses import followed
from services.extractor.answers import (
    BODY_BYTES_MAX,
    CHUNK_BYTES,
    FILE_BYTES_MAX,
    NO_CONTENT,
    Answer,
    Format,
    batches,
    spool,
    whole,
)
from services.extractor.auth import Site
from services.extractor.clockskew import earliest_time, read_offset, vendor_time
from services.extractor.connections import Lanes
from services.extractor.limits import accepted, budget_of, fullness, refused, reserve, resume, settle, tell, used
from services.extractor.meanings import NO_TERMS, Terms, error_of, is_empty
from services.extractor.requests import Request
from services.runtime.runtime import Runtime

T = TypeVar("T")
Read = Callable[[Answer, UtcTime], T]

USER_AGENT: Final = "avesa"
REDIRECTS_MAX: Final = 3
CONNECTIONS_MAX: Final = 512  # of a worker; besides, a host of which nothing is asked yet never waits
IDLE_CONNECTION_S: Final = 30.0
NAMES_HELD_S: Final = 300  # what an address resolved to
TRIES_MAX: Final = 6
WAIT_FIRST_S, WAIT_MAX_S = 0.5, 30.0
THROTTLED_MAX_S: Final = 3_600.0  # of one request; longer, and the endpoint tries again at its next turn
NAP_MAX_S: Final = 30.0  # a long wait is slept in pieces, so that the lease sees us move
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SAME_AGAIN = frozenset({307, 308})  # the only redirects that keep a POST one: RFC 9110 15.4


class Download(Request, frozen=True):
    """A request whose answer may be longer than what fits into memory: it comes as `Answer.file`, which whoever asked
    closes."""


class Bounds(msgspec.Struct, frozen=True):
    """Of one request: the time to connect, between two bytes and for a whole answer; the answer's size in memory, and
    for a download on disk, with its own time."""

    connect_s: float = 10.0
    silence_s: float = 60.0
    whole_s: float = 300.0
    body_bytes: int = BODY_BYTES_MAX
    file_bytes: int = FILE_BYTES_MAX
    file_s: float = 3_600.0


class Transport(Protocol):
    """Whatever carries a request to a vendor and an answer back."""

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """One try, whatever its status. The request's own headers go before `headers`. A `Download` may be answered
        with a file, which the caller closes.

        Errors: RetryableError; RejectedError `too_large`, `wrong_host`.
        """
        ...


def unreached(err: aiohttp.ClientError | OSError) -> tuple[str, str]:
    """Why there is no whole answer, and what to do, in words of a person who never heard of our libraries. The texts of
    such errors are not shown: they may hold a URL."""
    match err:
        case aiohttp.ClientConnectorDNSError():
            return "no such host is known", "Look at the spelling of the address, and whether this machine can use DNS."
        case aiohttp.ClientConnectorCertificateError():
            cause = "its certificate is not one that this machine trusts"
            return cause, "Look at the address; where a proxy opens TLS, this machine must trust its certificate."
        case aiohttp.ClientSSLError():
            return "it does not speak TLS as we do", "Look at the address and its port."
        case aiohttp.ClientConnectorError() if isinstance(err.os_error, ConnectionRefusedError):
            return "it refuses connections", "Look at the address and its port, and whether the server runs."
        case aiohttp.ClientConnectorError():
            return "no way leads there", "Look at this machine's network, and whether a firewall lets us through."
        case _:
            return (
                "the connection broke off",
                "It is asked again; where that goes on, the vendor's status page may say why.",
            )


class Http:
    """`Transport` over the network. Keeps no cookie: customers share nothing."""

    def __init__(self, bounds: Bounds | None = None, connections_max: int = CONNECTIONS_MAX) -> None:
        self._bounds = bounds or Bounds()
        self._lanes = Lanes(connections_max)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_CONNECTION_S, ttl_dns_cache=NAMES_HELD_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "gzip, deflate"},
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, err: BaseException | None, at: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        address, sent = request.address, _headers(request, headers)
        for _ in range(REDIRECTS_MAX + 1):
            answer = await self._once(request, address, sent)
            location = answer.headers.get("location")
            if answer.status not in _REDIRECTS or location is None:
                return answer
            if request.method != "GET" and answer.status not in _SAME_AGAIN:
                return answer
            address = followed(address, location)
        raise RejectedError(f"{request.source}: redirected without end", code="pages_do_not_advance")

    async def _once(self, request: Request, address: str, headers: Mapping[str, str]) -> Answer:
        assert self._session is not None, "used inside `async with`"
        url, bounds, long = URL(address, encoded=True), self._bounds, isinstance(request, Download)
        timeout = aiohttp.ClientTimeout(
            total=bounds.file_s if long else bounds.whole_s, connect=bounds.connect_s, sock_read=bounds.silence_s
        )
        body = request.body or None
        try:
            async with (
                self._lanes.lane(url.authority),
                self._session.request(
                    request.method, url, headers=headers, data=body, timeout=timeout, allow_redirects=False
                ) as response,
            ):
                told = {name.lower(): text for name, text in response.headers.items()}
                if long and 200 <= response.status < 300:
                    return Answer(response.status, b"", told, await self._file(response, request.source))
                return Answer(response.status, await self._body(response, request.source), told)
        except TimeoutError as err:
            remedy = "It is asked again; where that goes on, look whether a firewall or proxy holds calls back."
            what = f"{request.source}: {url.host} did not answer in time"
            raise RetryableError(what, code="timeout", remedy=remedy) from err
        except (aiohttp.ClientError, OSError) as err:
            cause, remedy = unreached(err)
            raise RetryableError(f"{request.source}: no answer from {url.host}: {cause}", remedy=remedy) from err

    async def _body(self, response: aiohttp.ClientResponse, source: str) -> bytes:
        chunks = [chunk async for chunk in _chunks(response, self._bounds.body_bytes, source)]
        return b"".join(chunks)

    async def _file(self, response: aiohttp.ClientResponse, source: str) -> IO[bytes]:
        file = spool()
        try:
            async for chunk in _chunks(response, self._bounds.file_bytes, source):
                file.write(chunk)  # 256 KiB into the page cache
            file.seek(0)
        except BaseException:
            file.close()
            raise
        return file


async def _chunks(response: aiohttp.ClientResponse, bytes_max: int, source: str) -> AsyncGenerator[bytes, None]:
    """The body, decompressed where a header says that it is not. Errors: RejectedError `too_large`."""
    size = 0
    async for chunk in response.content.iter_chunked(CHUNK_BYTES):
        size += len(chunk)
        if size > bytes_max:
            raise RejectedError(f"{source}: an answer of more than {bytes_max} bytes", code="too_large")
        yield chunk


def _headers(request: Request, headers: Mapping[str, str]) -> dict[str, str]:
    """All that is sent, each name once; what the request itself says counts."""
    accept = "*/*" if isinstance(request, Download) else "application/json"
    content = {"Content-Type": request.content_type} if request.content_type else {}
    named = {name.lower(): (name, text) for name, text in (("Accept", accept), *headers.items(), *content.items())}
    named |= {name.lower(): (name, text) for name, text in request.headers}
    return dict(named.values())


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


def _whole(answer: Answer, _observed_at: UtcTime) -> Answer:
    return whole(answer)


def _anything(_answer: Answer, _observed_at: UtcTime) -> bool:
    return True


class Caller:
    """Asks one customer's API, within its budget. `alive` is called as we go, and raises when we must stop."""

    def __init__(
        self,
        runtime: Runtime,
        transport: Transport,
        access: Access,
        limits: Limits,
        label: tuple[str, str],
        alive: Callable[[], None] = _no_lease,
        patience: Patience | None = None,
    ) -> None:
        self._runtime, self._transport, self._access, self._alive = runtime, transport, access, alive
        self._tenant_id, self._service = label
        self._patience = patience or Patience()
        self._budget = budget_of(limits)
        self._slots = asyncio.Semaphore(limits.concurrency)
        self._background_slots = asyncio.Semaphore(max(1, limits.concurrency - 1))  # one is for live reads
        self._turns = {False: asyncio.Lock(), True: asyncio.Lock()}  # first come, first served; live and background

    async def site(self) -> Site:
        """The API as it is asked now. Errors: as `Access.site`."""
        return await self._access.site()

    # -- the budget ---------------------------------------------------------------------------------------------------
    @property
    def fullness(self) -> float:
        """How full the budget is: 0.0 unused, 1.0 nobody may ask just now."""
        return fullness(self._budget, self._runtime.clock.monotonic())

    def used(self) -> str:
        """What a successor must know of what was used; see `limits.used`."""
        return used(self._budget, self._runtime.clock.monotonic(), self._runtime.clock.now())

    def resume(self, told: str | None, *, unknown_s: float = 0.0) -> None:
        """Count what a former owner used, before anything is asked; see `limits.resume`."""
        clock = self._runtime.clock
        resume(self._budget, told, clock.monotonic(), clock.now(), unknown_s=unknown_s)

    # -- asking -------------------------------------------------------------------------------------------------------
    async def get(
        self,
        request: Request,
        read: Read[T],
        *,
        terms: Terms = NO_TERMS,
        calls: Calls | None = None,
        background: bool = False,
    ) -> Got[T]:
        """The answer to `request`, as `read` (in a thread) makes it of the answer and its `observed_at`.

        Shape:  what a rule of the `terms` calls `empty` is read as an answer without content (204).
        Errors: RetryableError when the tries are used up (ThrottledError: told to wait for too long);
                UnauthorizedError, after one renewal of the token, or `stopped`; RejectedError `forbidden`,
                `not_available`, `vendor_error`, `too_large`, `wrong_host`; NotFoundError; ReadAgainError; those of
                `read` and of `Access`.
        """
        got = await self._get(request, read, terms, calls, background)
        if isinstance(got.value, NotFoundError):
            raise got.value
        return Got(got.value, got.observed_at, got.earliest_at)

    async def is_there(self, request: Request, *, terms: Terms = NO_TERMS, calls: Calls | None = None) -> Got[bool]:
        """Is there anything at all? `gone` (404 and 410, unless the terms say otherwise) is an answer here.

        Errors: as `get`, but for NotFoundError.
        """
        got = await self._get(request, _anything, terms, calls, background=True)
        return Got(not isinstance(got.value, NotFoundError), got.observed_at, got.earliest_at)

    async def download(
        self,
        request: Request,
        read: Read[T],
        format: Format,
        *,
        terms: Terms = NO_TERMS,
        calls: Calls | None = None,
        background: bool = False,
    ) -> AsyncGenerator[Got[T], None]:
        """A long NDJSON or CSV answer, batch by batch (at least one), each as `read` makes it: memory stays flat.

        Shape:  all of it has arrived on disk before the first batch; every batch has the times of the request.
        Errors: as `get`.
        """
        asked = Download(**asdict(request))
        got = await self.get(asked, _whole, terms=terms, calls=calls, background=background)
        parts = batches(got.value, format)
        try:
            while (part := await self._runtime.threads.run(_read_next, parts, read, got.observed_at)) is not None:
                self._alive()
                yield Got(part[0], got.observed_at, got.earliest_at)
        except AvesaError as err:
            err.where = err.where or request.source
            raise
        finally:
            if got.value.file is not None:
                with contextlib.suppress(ValueError):  # a thread is at it still: it goes with the thread's last hold
                    parts.close()
                    got.value.file.close()

    async def _get(
        self, request: Request, read: Read[T], terms: Terms, calls: Calls | None, background: bool
    ) -> Got[T | NotFoundError]:
        tries, throttled_s, renewed = 0, 0.0, False
        while True:
            site = await self._access.site()
            await self._turn(request.cost, background)
            try:
                got = await self._try(request, site, read, terms, calls, background)
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
            except UnauthorizedError as err:
                if renewed or err.code != "bad_credentials" or await self._access.renewed(site) is site:
                    raise
                renewed = True

    async def _try(
        self, request: Request, site: Site, read: Read[T], terms: Terms, calls: Calls | None, background: bool
    ) -> Got[T | NotFoundError]:
        """One try, granted already, whose cost is settled here."""
        clock = self._runtime.clock
        async with contextlib.AsyncExitStack() as slots:
            try:
                if background:
                    await slots.enter_async_context(self._background_slots)
                await slots.enter_async_context(self._slots)
                if calls is not None:
                    calls.count += 1
                started_at, started = clock.now(), clock.monotonic()
                answer = await self._transport.send(_signed(request, site), site.headers)
            finally:
                settle(self._budget, clock.monotonic(), request.cost)
            offset = read_offset(answer.headers.get("date"), started_at, clock.monotonic() - started)
            tell(self._budget, answer.headers, clock.monotonic(), vendor_time(clock.now(), offset))
            observed_at = vendor_time(started_at, offset)
            understood = partial(_understood, answer, request, site, clock.now(), terms, read, observed_at)
            value = await self._read(answer, request, understood)
        if isinstance(value, AvesaError) and not isinstance(value, NotFoundError):
            raise value
        return Got(value, observed_at, earliest_time(started_at, offset))

    async def _read(self, answer: Answer, request: Request, understood: Callable[[], T]) -> T:
        """In a thread. What cannot be read is told with the request it came from."""
        try:
            return await self._runtime.threads.run(understood)
        except BaseException as err:
            if answer.file is not None:
                answer.file.close()
            if isinstance(err, AvesaError):
                err.where = err.where or request.source
            raise

    def _slow_down(self, err: ThrottledError) -> float:
        clock, chance = self._runtime.clock, self._runtime.chance
        wait_s = refused(self._budget, clock.monotonic(), err.retry_after_s, chance.fraction())
        self._runtime.emit(VendorThrottled(tenant_id=self._tenant_id, service=self._service, wait_s=wait_s))
        return wait_s

    async def _turn(self, cost: float, background: bool) -> None:
        """Wait until the budget grants a request; it is under way then. Errors: ThrottledError: not for too long."""
        async with self._turns[background]:
            self._alive()
            while (wait_s := reserve(self._budget, self._runtime.clock.monotonic(), cost, background=background)) > 0:
                if wait_s > self._patience.throttled_max_s:
                    what = f"the budget of {self._service} is used up for {wait_s / 60:.0f} more minutes"
                    raise ThrottledError(what, retry_after_s=wait_s)
                await self._nap(min(wait_s, NAP_MAX_S))

    async def _nap(self, seconds: float) -> None:
        while seconds > 0:
            await self._runtime.clock.sleep(min(seconds, NAP_MAX_S))
            seconds -= NAP_MAX_S
            self._alive()


def _signed(request: Request, site: Site) -> Request:
    """With the query parameters that say who we are."""
    return replace(request, query=(*request.query, *site.params.items())) if site.params else request


def _understood(
    answer: Answer, request: Request, site: Site, now: UtcTime, terms: Terms, read: Read[T], observed_at: UtcTime
) -> T | AvesaError:
    """What `read` makes of an answer that may be read, or what is wrong with it. Errors: those of `read`."""
    error = error_of(answer, request, site, now, terms)
    empty = error is None and is_empty(answer, terms)
    if answer.file is not None and (empty or error is not None):
        answer.file.close()
    if error is not None:
        return error
    return read(Answer(NO_CONTENT, b"", answer.headers) if empty else answer, observed_at)


def _read_next(parts: Iterator[Answer], read: Read[T], observed_at: UtcTime) -> tuple[T] | None:
    part = next(parts, None)
    return None if part is None else (read(part, observed_at),)
