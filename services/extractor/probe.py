"""Trying credentials before they are trusted: one cheap call, or one per endpoint."""

from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager

from msgspec import Struct
from msgspec.structs import replace

from services.contracts.access import RefreshToken
from services.contracts.errors import AvesaError, NotFoundError, RejectedError, UnauthorizedError, UsageError
from services.contracts.integration import Integration
from services.contracts.ports import Secrets
from services.contracts.reading import Cursor, Keyset, LinkHeader, NextUrl, PageNumber, Pagination, SinceTime
from services.contracts.times import shifted
from services.extractor.access import VendorAccess
from services.extractor.auth import chosen
from services.extractor.below import uppers
from services.extractor.customers import Customer, list_customers, listed_by
from services.extractor.fetch import Caller, Http, Patience, Transport
from services.extractor.memory import Entry
from services.extractor.plan import Spec, specs
from services.extractor.records import VendorRecord, read_page
from services.extractor.refresh import CONNECTED_AT, GIVEN, KEPT, Account, given_mark
from services.extractor.requests import ParentValues
from services.extractor.walking import look_at, walk
from services.runtime.runtime import Runtime

PATIENCE = Patience(tries_max=2, throttled_max_s=60.0)  # somebody is waiting at a prompt
EXPORTED_S = 86_400.0  # of a list that is exported, to keep the job small: what changed in so long


class Reach(Struct, frozen=True):
    """What came of asking one endpoint. `code` is empty where it answered; `sample` is an id it showed; `permission` is
    what the credentials lack, in the vendor's words, where they may not read it."""

    endpoint: str
    code: str = ""
    what: str = ""
    sample: str | None = None
    permission: str = ""


class Typed:
    """Credentials that a person has just typed, as `Secrets`: what a vendor gives for them, such as the next refresh
    token, is stored at once (without a store: nowhere); they themselves are not."""

    def __init__(self, secrets: Secrets | None, account: Account) -> None:
        self._secrets, self._typed = secrets, {account.secret: account.credentials}

    async def get(self, name: str) -> dict[str, str]:
        return dict(self._typed[name])

    async def put(self, name: str, values: Mapping[str, str]) -> None:
        if self._secrets is not None:
            await self._secrets.put(name, values)
        self._typed[name] = dict(values)

    async def delete(self, name: str) -> None:
        raise AssertionError(f"nobody who tries credentials deletes {name}")


# -- one endpoint is enough -------------------------------------------------------------------------------------------
async def prove(
    runtime: Runtime,
    integration: Integration,
    credentials: Mapping[str, str],
    *,
    service: str = "",
    secret: str | None = None,
    transport: Transport | None = None,
) -> dict[str, str]:
    """What has to be stored, once the vendor accepts these credentials: the first endpoint it lets us read proves them.

    Shape:  `secret` is where the next refresh token goes, at once; None: nothing may be stored.
    Errors: UsageError, UnauthorizedError: they are wrong, or cannot be tried without storing what comes of it;
            RejectedError: right, but they may read nothing; RetryableError: the vendor could not be asked.
    """
    if secret is None and spends(integration, credentials):
        raise UsageError(
            f"the refresh token of {integration.title} can be used once: trying it spends it",
            remedy="Leave out --dry-run; the one that comes for it is stored at once.",
        )
    typed = dict(credentials)
    if secret is not None:
        typed = await _gone_on(runtime, integration, typed, secret)
    account = Account(secret or "", typed)
    secrets = Typed(runtime.secrets if secret is not None else None, account)
    async with _opened(runtime, integration, account, service, transport, secrets) as (caller, access):
        await prove_caller(runtime, caller, specs(integration))
        return access.credentials


async def _gone_on(runtime: Runtime, integration: Integration, typed: dict[str, str], secret: str) -> dict[str, str]:
    """`typed`, with the refresh token that came for the one that was typed, if that was tried before: to type it again
    is no mistake."""
    auth = chosen(integration, typed)
    if not isinstance(auth, RefreshToken):
        return typed
    try:
        held = await runtime.secrets.get(secret)
    except NotFoundError:
        held = {}
    marked = {**typed, GIVEN: given_mark(typed.get(auth.credential, "")), CONNECTED_AT: runtime.clock.now()}
    if held.get(GIVEN) != marked[GIVEN]:
        return marked
    kept = {name: held[name] for name in (auth.credential, KEPT) if name in held}
    return marked | kept


def spends(integration: Integration, credentials: Mapping[str, str]) -> bool:
    """Does trying these credentials use one of them up? Errors: UsageError."""
    auth = chosen(integration, credentials)
    return isinstance(auth, RefreshToken) and auth.rotates


async def prove_caller(runtime: Runtime, caller: Caller, known: Mapping[str, Spec]) -> None:
    """The same for a caller at hand."""
    refused: RejectedError | NotFoundError | None = None
    for spec in known.values():
        if spec.parent is None:
            try:
                await _first(runtime, caller, spec, None)
                return
            except (RejectedError, NotFoundError) as err:
                refused = refused or err
    if refused is not None:
        raise refused


# -- each endpoint ----------------------------------------------------------------------------------------------------
async def check(
    runtime: Runtime,
    integration: Integration,
    account: Account,
    *,
    service: str = "",
    transport: Transport | None = None,
) -> list[Reach]:
    """Ask every endpoint for one record, parents first.

    Errors: UsageError; UnauthorizedError: the credentials are wrong, so no endpoint needs to be asked.
    """
    reached: dict[str, Reach] = {}
    samples: dict[str, VendorRecord] = {}
    async with _opened(runtime, integration, account, service, transport, runtime.secrets) as (caller, _):
        known = specs(integration)
        for name, spec in known.items():
            parent = None
            if spec.parent is not None:
                above = spec.parent.endpoint
                parent = _values(spec, known[above], samples.get(above))
                if parent is None:
                    reached[name] = _below(name, reached[above])
                    continue
            reached[name], found = await _reach(runtime, caller, spec, parent)
            if found is not None:
                samples[name] = found
    return list(reached.values())


async def customers_reached(
    runtime: Runtime,
    integration: Integration,
    account: Account,
    *,
    service: str = "",
    transport: Transport | None = None,
) -> list[Customer]:
    """The customers that a partner's credentials reach; none where the integration does not say how to list them.

    Errors: as `list_customers`.
    """
    listed = listed_by(integration)
    if listed is None:
        return []
    async with _opened(runtime, integration, account, service, transport, runtime.secrets) as (caller, _):
        return await list_customers(runtime, caller, listed)


def _below(name: str, above: Reach) -> Reach:
    """An endpoint that cannot be asked, for want of a parent."""
    if above.code:
        return Reach(name, above.code, f"its parent {above.endpoint} cannot be read")
    return Reach(name, what=f"nothing to ask below: {above.endpoint} showed no record that has any")


async def _reach(
    runtime: Runtime, caller: Caller, spec: Spec, parent: ParentValues | None
) -> tuple[Reach, VendorRecord | None]:
    try:
        found = await _first(runtime, caller, spec, parent)
    except UnauthorizedError:
        raise
    except AvesaError as err:
        lacking = spec.permission if err.code == "forbidden" else ""
        return Reach(spec.name, err.code, str(err), permission=lacking), None
    return Reach(spec.name, sample=found.record_id if found is not None else None), found


def _values(spec: Spec, above: Spec, sample: VendorRecord | None) -> ParentValues | None:
    """What a record of the parent gives to the templates of the child."""
    if sample is None or spec.parent is None:
        return None
    entry = Entry(sample.digest, "", "", links=sample.links)
    part = spec.link if above.rules.composite else None
    found = uppers([(sample.record_id, entry)], spec.parent, part, spec.inherits, spec.dispensable)
    return next((upper.values for upper in found.values()), None)


async def _first(runtime: Runtime, caller: Caller, spec: Spec, parent: ParentValues | None) -> VendorRecord | None:
    """The first record of a list, None where the first page shows none."""
    asked = replace(spec, pagination=_smallest(spec.pagination))
    since = shifted(runtime.clock.now(), seconds=-EXPORTED_S) if _exported(spec) else None
    look = look_at(runtime, caller, asked)
    async with aclosing(walk(look, read_page, since=since, parent=parent)) as steps:
        async for step in steps:
            return next(iter(step.got.value.records), None)
    return None


def _exported(spec: Spec) -> bool:
    return spec.export is not None and isinstance(spec.incremental, SinceTime)


def _smallest(pagination: Pagination) -> Pagination:
    """Pages of one record, where the vendor lets us choose."""
    if (
        isinstance(pagination, PageNumber | Keyset | Cursor | NextUrl | LinkHeader)
        and pagination.size_param is not None
    ):
        return replace(pagination, size=1)
    return pagination


@asynccontextmanager
async def _opened(
    runtime: Runtime,
    integration: Integration,
    account: Account,
    service: str,
    transport: Transport | None,
    secrets: Secrets,
) -> AsyncIterator[tuple[Caller, VendorAccess]]:
    if transport is None:
        async with Http() as http, _opened(runtime, integration, account, service, http, secrets) as opened:
            yield opened
        return
    access = VendorAccess(runtime, transport, integration, account, secrets=secrets)
    label = ("", service or integration.service)
    try:
        yield Caller(runtime, transport, access, integration.limits, label, patience=PATIENCE), access
    finally:
        await access.close()
