"""A customer's API kept open: what has to be discovered first, and a token that is fresh at every call.

One renewal is under way at a time, and those who need it wait for it; it outlives them, for what a vendor gave us once
must not be lost because a page was broken off.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, Protocol

from services.contracts.access import Discovery, TokenAuth
from services.contracts.errors import NotFoundError, RejectedError, UnauthorizedError
from services.contracts.integration import Integration
from services.contracts.ports import Secrets
from services.extractor.auth import ACCESS_TOKEN, ACCOUNT, Site, chosen, given, hidden_of, require, signed, site_of
from services.extractor.discovery import discovered, discovery_request
from services.extractor.meanings import Terms, error_of
from services.extractor.refresh import Account, Line, Tokens, Transport
from services.extractor.requests import Request
from services.runtime.loop import cancelled
from services.runtime.runtime import Runtime

CLOSE_S: Final = 20.0  # for a renewal under way, before it is broken off


class Access(Protocol):
    """How a `Caller` gets at an API."""

    async def site(self) -> Site:
        """The API as it is asked now: its token holds for a while, what has to be discovered first is known.

        Errors: UsageError, UnauthorizedError: a person must act; RetryableError.
        """
        ...

    async def renewed(self, refused: Site) -> Site:
        """After the vendor answered 401 to a request made with `refused`: a site with a new token and what is
        discovered anew; `refused` itself where there is nothing that could be renewed. Errors: as `site`.
        """
        ...


class Fixed:
    """`Access` to what neither expires nor has to be discovered."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def site(self) -> Site:
        return self._site

    async def renewed(self, refused: Site) -> Site:
        return refused


class VendorAccess:
    """`Access` by whatever way an account's credentials allow. Nothing is asked before the first call needs it.

    Shape:  `alive` is called as we go, and raises when we must stop; `secrets` is where new refresh tokens go, the
            runtime's unless given.
    Errors: UsageError: a credential is missing.
    """

    def __init__(
        self,
        runtime: Runtime,
        transport: Transport,
        integration: Integration,
        account: Account,
        *,
        alive: Callable[[], None] = lambda: None,
        secrets: Secrets | None = None,
    ) -> None:
        require(integration, account.credentials)
        auth = chosen(integration, account.credentials)
        self._integration, self._account = integration, account
        self._line = Line(runtime, transport, integration.service, alive)
        self._tokens: Tokens | None = None
        if isinstance(auth, TokenAuth):
            self._tokens = Tokens(self._line, integration, auth, account, secrets or runtime.secrets)
        self._before: dict[str, str] | None = None  # discovered without a token,
        self._after: dict[str, str] | None = None  # and with one
        self._site: Site | None = None
        self._renewing: asyncio.Task[Site] | None = None

    @property
    def credentials(self) -> dict[str, str]:
        """The secret as it is now: a refresh token in it may be new."""
        return self._tokens.credentials if self._tokens is not None else self._account.credentials

    async def site(self) -> Site:
        if self._site is not None and (self._tokens is None or not self._tokens.due):
            return self._site
        return await self._together(None)

    async def renewed(self, refused: Site) -> Site:
        site = await self.site()
        return site if site is not refused else await self._together(refused)

    async def close(self) -> None:
        """Let a renewal under way end, so that what it gets is stored."""
        renewing = self._renewing
        if renewing is not None:
            sleeping = asyncio.ensure_future(self._line.runtime.clock.sleep(CLOSE_S))
            both: list[asyncio.Future[Any]] = [renewing, sleeping]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            await cancelled(both)
        if self._tokens is not None:
            await self._tokens.close()

    async def _together(self, refused: Site | None) -> Site:
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(refused))
            self._renewing.add_done_callback(self._ended)
        return await asyncio.shield(self._renewing)

    def _ended(self, task: "asyncio.Task[Site]") -> None:
        self._renewing = None
        if not task.cancelled():
            task.exception()  # told to those who waited, if any still do

    async def _renew(self, refused: Site | None) -> Site:
        if refused is not None:
            self._before = self._after = None
        if self._before is None:
            self._before = await self._discover({}, authenticated=False)
        token = refused.values.get(ACCESS_TOKEN) if refused is not None else None
        found = await self._let_in(self._before, token)
        values = {**self._named(), **found}
        site = site_of(self._integration, self.credentials, values, self._tokens.hidden if self._tokens else ())
        self._site = refused if refused is not None and site == refused else site
        return self._site

    async def _let_in(self, before: Mapping[str, str], refused: str | None) -> dict[str, str]:
        """All that is found: before, with a token, and what is discovered with it."""
        if self._tokens is None:
            if self._after is None:
                self._after = await self._discover(before, authenticated=True)
            return {**before, **self._after}
        exchanges = self._tokens.exchanges
        token = await self._tokens.fresh(before, refused)
        if self._after is None:
            try:
                self._after = await self._discover({**before, **token.found}, authenticated=True)
            except UnauthorizedError:
                if self._tokens.exchanges > exchanges:
                    raise
                token = await self._tokens.fresh(before, token.value)  # it was one from the secret
                self._after = await self._discover({**before, **token.found}, authenticated=True)
        return {**before, **token.found, **self._after}

    async def _discover(self, found: Mapping[str, str], *, authenticated: bool) -> dict[str, str]:
        """What the steps of one kind tell, in their order; each may ask with what those before it told."""
        told: dict[str, str] = {}
        for step in self._integration.discovery:
            if step.authenticated is authenticated:
                site = self._early({**found, **told})
                request = discovery_request(self._integration, step, site)
                told |= await self._line.repeated(partial(self._look, step, request, site))
        return told

    async def _look(self, step: Discovery, request: Request, site: Site) -> dict[str, str]:
        answer = await self._line.transport.send(request, {})
        terms = Terms(tuple(self._integration.errors))
        error = error_of(answer, request, site, self._line.runtime.clock.now(), terms)
        if isinstance(error, RejectedError | NotFoundError):
            remedy = error.remedy or "Check the credentials and what they name: `avesa setup-service`."
            raise UnauthorizedError(error.what, remedy=remedy)
        if error is not None:
            raise error
        return discovered(step, answer.body, site.values, request)

    def _early(self, found: Mapping[str, str]) -> Site:
        """Who we are as far as it is known; where the API lies may not be."""
        values = {**given(self._integration, self.credentials), **self._named(), **found}
        headers, params = signed(self._integration, self.credentials, values, known_only=True)
        secrets = self._tokens.hidden if self._tokens else ()
        return Site("", values, headers, params, hidden_of(self._integration, values, headers, secrets))

    def _named(self) -> dict[str, str]:
        return {ACCOUNT: self._account.account_id} if self._account.account_id else {}
