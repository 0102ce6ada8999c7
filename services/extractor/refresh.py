"""Where tokens come from, and how a refresh token that can be spent once is never lost and never spent by two.

It is spent under a lease of its own (one per secret, whoever needs it: the owner of (tenant, service), those of a
partner's customers, a command). The attempt is recorded in the lease's row first, which is also the fence; the answer
is stored in the secret before it is used. Who finds an attempt without an answer knows that its maker died in between:
the old token is tried once more while the vendor grants it, else a person must connect anew. An attempt whose end its
maker saw is struck out, whatever the end. The row holds it, not the secret, because Secrets Manager advises against
writing a secret more than once in ten minutes ("AWS Secrets Manager quotas").
Source: RFC 6749 6; RFC 9700 4.14.2 (a spent token that is shown again may end all of them).
"""

import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, Protocol, TypeVar

import msgspec

from services.contracts.access import JwtBearer, RefreshToken, TokenAuth
from services.contracts.errors import (
    AvesaError,
    ConflictError,
    NotFoundError,
    RetryableError,
    ThrottledError,
    UnauthorizedError,
    UsageError,
)
from services.contracts.integration import Integration
from services.contracts.log import Retried
from services.contracts.ports import Secrets
from services.contracts.times import seconds_between, shifted
from services.extractor.answers import Answer
from services.extractor.auth import ACCOUNT, OURS, given, hidden_of
from services.extractor.clockskew import read_offset
from services.extractor.requests import Request
from services.extractor.tokens import (
    Token,
    kept_text,
    read_kept,
    read_token,
    refusal,
    remedy_of,
    signed_assertion,
    token_request,
)
from services.runtime.leases import Lease
from services.runtime.runtime import Runtime

T = TypeVar("T")

TRIES_MAX: Final = 3  # of one call for a token, or to discover something
WAIT_FIRST_S, WAIT_MAX_S = 1.0, 60.0  # a vendor that asks for a longer wait is asked again by whoever needs it
STORE_TRIES_MAX: Final = 8  # of writing a new refresh token: one that is not stored locks the customer out
RETRY_S: Final = 30.0  # until a token that still holds is refreshed again, where that failed
SKEW_S: Final = 30.0  # clocks that differ by more make an assertion that was refused worth another try
ROUNDS_MAX: Final = 3  # of waiting for somebody else who is refreshing
WAIT_LEASES: Final = 1.5  # lease times until a dead owner's attempt can be ours
ATTEMPTS_MAX: Final = 2  # with one refresh token: the first, and one after a crash
TOKEN_SCOPE: Final = "token"  # noqa: S105 - of leases; their names are those of secrets
ATTEMPT: Final = "attempt"  # in a lease's row: {of, at, count}
KEPT: Final = f"{OURS}token"  # in a secret: the token that came with its refresh token,
CONNECTED_AT: Final = f"{OURS}connected_at"  # when a person gave it: who gives it again wants it tried again,
GIVEN: Final = f"{OURS}given"  # and of what was given, the mark: it may be spent since


class Transport(Protocol):
    """Whatever carries a request to a vendor and an answer back; `fetch.Http` does."""

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """One try, whatever its status. Errors: RetryableError; RejectedError `too_large`, `wrong_host`."""
        ...


class Account(msgspec.Struct, frozen=True):
    """Whose API: the credentials as read from `secret` (its name), and the partner's customer they are used for."""

    secret: str
    credentials: dict[str, str]
    account_id: str = ""

    def __repr__(self) -> str:
        return f"Account({self.secret!r})"  # never the credentials


class Line(msgspec.Struct, frozen=True):
    """How a vendor is asked for what is no data: in no budget, with few tries. `alive` is called as we go, and raises
    when we must stop."""

    runtime: Runtime
    transport: Transport
    service: str
    alive: Callable[[], None]

    async def repeated(self, work: Callable[[], Awaitable[T]]) -> T:
        """`work`, again while it passes. Errors: its own; RetryableError when the tries are used up."""
        tries = 0
        while True:
            self.alive()
            try:
                return await work()
            except RetryableError as err:
                tries += 1
                wait_s = self._wait_s(err, tries)
                if tries >= TRIES_MAX or wait_s > WAIT_MAX_S:
                    raise
                await self.wait(err, wait_s)

    async def wait(self, err: AvesaError, seconds: float) -> None:
        """Before the next try."""
        self.runtime.emit(Retried(what=f"{self.service} token", code=err.code, wait_s=seconds))
        await self.runtime.clock.sleep(seconds)

    def _wait_s(self, err: RetryableError, tries: int) -> float:
        told_s = err.retry_after_s if isinstance(err, ThrottledError) else None
        return told_s if told_s is not None else self.pause_s(tries)

    def pause_s(self, tries: int) -> float:
        """Twice as long after each try, jittered."""
        return min(WAIT_MAX_S, WAIT_FIRST_S * 2.0 ** (tries - 1)) * (0.5 + self.runtime.chance.fraction())


class Tokens:
    """The tokens of one account. `fresh` is not called twice at a time (`access.py` sees to it)."""

    def __init__(
        self, line: Line, integration: Integration, auth: TokenAuth, account: Account, secrets: Secrets
    ) -> None:
        self._line, self._integration, self._auth, self._account = line, integration, auth, account
        self._secrets = secrets
        self._token = read_kept(account.credentials.get(KEPT)) if _rotates(auth) else None
        self._unstored: tuple[dict[str, str], Token] | None = None
        self._retry_at = float("-inf")
        self._skew_s = 0.0
        self.credentials = account.credentials
        self.exchanges = 0  # how often the vendor gave us one

    @property
    def due(self) -> bool:
        """Is there none, or does it expire soon?"""
        clock = self._line.runtime.clock
        return self._token is None or (self._token.renew_at <= clock.now() and clock.monotonic() >= self._retry_at)

    @property
    def hidden(self) -> tuple[str, ...]:
        """What no message may show."""
        named = self._auth.credential if isinstance(self._auth, RefreshToken) else ""
        known = (self._token.value if self._token is not None else "", self.credentials.get(named, ""))
        return tuple(text for text in known if text)

    async def fresh(self, found: Mapping[str, str], refused: str | None = None) -> Token:
        """A token that holds for a while, another than the one that was `refused`. `found`: what was discovered.

        Errors: UnauthorizedError, UsageError: a person must act; RetryableError, unless the one we have still holds.
        """
        if self._token is not None and self._token.value != refused and not self.due:
            return self._token
        try:
            self._token = await self._another(found, refused)
        except RetryableError as err:
            token, clock = self._token, self._line.runtime.clock
            if token is None or token.value == refused or token.expires_at <= clock.now():
                raise
            self._retry_at = clock.monotonic() + RETRY_S
            self._line.runtime.emit(Retried(what=f"{self._line.service} token", code=err.code, wait_s=RETRY_S))
            return token
        return self._token

    async def close(self) -> None:
        """A last try to store what could not be stored."""
        if self._unstored is not None:
            with contextlib.suppress(RetryableError):
                await self._store(*self._unstored, tries_max=1)

    async def _another(self, found: Mapping[str, str], refused: str | None) -> Token:
        if _rotates(self._auth):
            return await self._spent_in_turn(found, refused)
        token = await self._exchanged(self.credentials, found)
        auth = self._auth
        if isinstance(auth, RefreshToken) and token.refresh not in (None, self.credentials[auth.credential]):
            with contextlib.suppress(RetryableError):  # the old one holds as well
                await self._store(self.credentials, token, tries_max=1)
        return token

    # -- one exchange -------------------------------------------------------------------------------------------------
    async def _exchanged(self, credentials: dict[str, str], found: Mapping[str, str]) -> Token:
        """A token from the vendor. An assertion that is refused where clocks differ is made again on its clock."""
        values = {**given(self._integration, credentials), **_account(self._account), **found}
        skew_s = self._skew_s
        try:
            token = await self._line.repeated(lambda: self._asked(values))
        except UnauthorizedError:
            if not isinstance(self._auth, JwtBearer) or abs(self._skew_s - skew_s) < SKEW_S:
                raise
            token = await self._line.repeated(lambda: self._asked(values))
        self.exchanges += 1
        return token

    async def _asked(self, values: Mapping[str, str]) -> Token:
        auth, clock = self._auth, self._line.runtime.clock
        now, started = clock.now(), clock.monotonic()
        assertion = ""
        if isinstance(auth, JwtBearer):
            assertion = signed_assertion(auth, values, shifted(now, seconds=self._skew_s))
        request = token_request(self._integration, auth, values, assertion)
        hidden = hidden_of(self._integration, values, dict(request.headers), (assertion, *self.hidden))
        answer = await self._line.transport.send(request, {})
        self._skew_s = read_offset(answer.headers.get("date"), now, clock.monotonic() - started).likely_s
        error = refusal(answer, auth, request, hidden, now)
        if error is not None:
            raise error
        return read_token(answer, auth, now, request.source)

    # -- refresh tokens that are spent --------------------------------------------------------------------------------
    async def _spent_in_turn(self, found: Mapping[str, str], refused: str | None) -> Token:
        """The token that somebody else has just stored, or a new one, as soon as it is our turn."""
        leases, clock = self._line.runtime.leases, self._line.runtime.clock
        for _ in range(ROUNDS_MAX):
            token = await self._stored(refused)
            if token is not None:
                return token
            self._line.alive()
            lease = await leases.wait_for(TOKEN_SCOPE, self._account.secret, WAIT_LEASES * leases.lease_s)
            if lease is None:
                await clock.sleep(WAIT_FIRST_S)
                continue
            try:
                return await self._spent(lease, found, refused)
            except ConflictError as err:
                raise RetryableError("another worker has begun to refresh the token") from err
            finally:
                await lease.release()
        raise RetryableError("another worker is refreshing the token, and takes its time")

    async def _spent(self, lease: Lease, found: Mapping[str, str], refused: str | None) -> Token:
        """The order is the guarantee: recorded, spent, stored, used."""
        if self._unstored is None:
            token = await self._stored(refused)
            if token is not None:
                return token
            spent = self.credentials
            await self._record(lease, spent)
            try:
                self._unstored = spent, await self._exchanged(spent, found)
            except AvesaError:
                await lease.note({ATTEMPT: None})
                raise
        token = await self._store(*self._unstored, tries_max=STORE_TRIES_MAX)
        self._unstored = None
        return token

    async def _stored(self, refused: str | None) -> Token | None:
        """What the secret holds now: the credentials, and the token, if it is worth using."""
        if self._unstored is not None:
            return None
        self.credentials = await self._secret()
        token = read_kept(self.credentials.get(KEPT))
        if token is None or token.value == refused or token.renew_at <= self._line.runtime.clock.now():
            return None
        return token

    async def _record(self, lease: Lease, spent: Mapping[str, str]) -> None:
        """Make durable that `spent` is about to be spent. Errors: UnauthorizedError where it may have been, by somebody
        who died of it, and the vendor takes it no more; ConflictError where the lease is not ours any more."""
        assert isinstance(self._auth, RefreshToken)
        now, of = self._line.runtime.clock.now(), _digest(spent, self._auth)
        at, count = now, 1
        before = (await lease.committed()).get(ATTEMPT)
        if isinstance(before, dict) and before.get("of") == of:
            at, count = str(before.get("at")), int(before.get("count") or 1) + 1
            passed_s = max(0.0, seconds_between(at, now))  # clocks of workers may differ
            if count > ATTEMPTS_MAX or passed_s >= self._auth.grace_s:
                raise UnauthorizedError(
                    f"a refresh of the token was begun at {at} and broken off; the next one was lost with its answer",
                    remedy=remedy_of(self._auth),
                )
        await lease.note({ATTEMPT: {"of": of, "at": at, "count": count}})

    async def _store(self, spent: Mapping[str, str], token: Token, *, tries_max: int) -> Token:
        """Keep the refresh token that came with `token`, and `token`; where somebody has replaced what we spent, theirs
        stays. Errors: RetryableError when the tries are used up."""
        assert isinstance(self._auth, RefreshToken)
        name, tries = self._auth.credential, 0
        while True:
            try:
                held = await self._secret()
                if held.get(name) not in (spent.get(name), token.refresh):
                    self.credentials = held
                    return read_kept(held.get(KEPT)) or token
                self.credentials = {**held, name: token.refresh or held[name]}
                if _rotates(self._auth):
                    self.credentials[KEPT] = kept_text(token)
                await self._secrets.put(self._account.secret, self.credentials)
                return token
            except RetryableError as err:
                tries += 1
                if tries >= tries_max:
                    raise
                await self._line.wait(err, self._line.pause_s(tries))

    async def _secret(self) -> dict[str, str]:
        try:
            return await self._secrets.get(self._account.secret)
        except NotFoundError as err:
            raise UsageError(
                f"the secret {self._account.secret} is missing",
                code="bad_credentials",
                remedy="Run `avesa setup-service` again.",
            ) from err


def given_mark(refresh_token: str) -> str:
    """By which a refresh token that a person gave is known again."""
    return hashlib.blake2b(refresh_token.encode(), digest_size=16).hexdigest()


def _rotates(auth: TokenAuth) -> bool:
    return isinstance(auth, RefreshToken) and auth.rotates


def _account(account: Account) -> dict[str, str]:
    return {ACCOUNT: account.account_id} if account.account_id else {}


def _digest(credentials: Mapping[str, str], auth: RefreshToken) -> str:
    """Which state of a secret: some vendors give the same refresh token again, with another token."""
    text = "\n".join(credentials.get(name, "") for name in (auth.credential, KEPT, CONNECTED_AT))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
