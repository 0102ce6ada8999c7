"""Trying credentials before they are trusted: one cheap call, or one per endpoint."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import msgspec

from services.contracts.errors import AvesaError, NotFoundError, RejectedError, UnauthorizedError
from services.contracts.integration import Integration, Keyset, PageNumber, Pagination
from services.contracts.times import UtcTime
from services.extractor.auth import site_of
from services.extractor.fetch import Caller, Http, Patience, Transport
from services.extractor.pagination import Place, ask
from services.extractor.plan import Spec, specs
from services.extractor.records import read_ids
from services.extractor.requests import list_request
from services.runtime.runtime import Runtime

PATIENCE = Patience(tries_max=2, throttled_max_s=60.0)  # somebody is waiting at a prompt


class Reach(msgspec.Struct, frozen=True):
    """What came of asking one endpoint. `code` is empty where it answered; `sample` is an id it showed."""

    endpoint: str
    code: str = ""
    what: str = ""
    sample: str | None = None


async def prove(
    runtime: Runtime,
    integration: Integration,
    credentials: Mapping[str, str],
    *,
    service: str = "",
    transport: Transport | None = None,
) -> None:
    """Returns when the vendor accepts these credentials: the first endpoint it lets us read proves them.

    Errors: UsageError, UnauthorizedError: they are wrong; RejectedError: right, but they may read nothing;
    RetryableError: the vendor could not be asked.
    """
    async with _caller(runtime, integration, credentials, service, transport) as caller:
        await prove_caller(caller, specs(integration))


async def prove_caller(caller: Caller, known: Mapping[str, Spec]) -> None:
    """The same for a caller at hand."""
    refused: RejectedError | NotFoundError | None = None
    for spec in known.values():
        if spec.parent is None:
            try:
                await _first_id(caller, spec, None)
                return
            except (RejectedError, NotFoundError) as err:
                refused = refused or err
    if refused is not None:
        raise refused


async def check(
    runtime: Runtime,
    integration: Integration,
    credentials: Mapping[str, str],
    *,
    service: str = "",
    transport: Transport | None = None,
) -> list[Reach]:
    """Ask every endpoint for one record, parents first.

    Errors: UsageError; UnauthorizedError: the credentials are wrong, so no endpoint needs to be asked.
    """
    reached: dict[str, Reach] = {}
    async with _caller(runtime, integration, credentials, service, transport) as caller:
        for name, spec in specs(integration).items():
            reached[name] = await _reach(caller, spec, reached)
    return list(reached.values())


async def _reach(caller: Caller, spec: Spec, reached: Mapping[str, Reach]) -> Reach:
    parent = None
    if spec.parent is not None:
        above = reached[spec.parent.endpoint]
        if above.code:
            return Reach(spec.name, above.code, f"its parent {above.endpoint} cannot be read")
        if above.sample is None:
            return Reach(spec.name, what=f"nothing to ask below: {above.endpoint} is empty")
        parent = _linked(above.sample, spec)
    try:
        return Reach(spec.name, sample=await _first_id(caller, spec, parent))
    except UnauthorizedError:
        raise
    except AvesaError as err:
        return Reach(spec.name, err.code, str(err))


def _linked(sample: str, spec: Spec) -> str:
    if not sample.startswith("["):
        return sample
    return msgspec.json.decode(sample, type=list[str])[spec.link]


async def _first_id(caller: Caller, spec: Spec, parent: str | None) -> str | None:
    page = ask(_smallest(spec.pagination), Place())
    request = list_request(caller.site.base_url, caller.site.values, spec, page, parent=parent)

    def read(body: bytes, _: UtcTime) -> str | None:
        return next(iter(read_ids(body, spec.rules).ids), None)

    return (await caller.get(request, read)).value


def _smallest(pagination: Pagination) -> Pagination:
    """Pages of one record, where the vendor lets us choose."""
    if isinstance(pagination, PageNumber | Keyset) and pagination.size_param is not None:
        return msgspec.structs.replace(pagination, size=1)
    return pagination


@asynccontextmanager
async def _caller(
    runtime: Runtime,
    integration: Integration,
    credentials: Mapping[str, str],
    service: str,
    transport: Transport | None,
) -> AsyncIterator[Caller]:
    site = site_of(integration, credentials)
    label = ("", service or integration.service)
    if transport is not None:
        yield Caller(runtime, transport, site, integration.limits, label, patience=PATIENCE)
        return
    async with Http() as http:
        yield Caller(runtime, http, site, integration.limits, label, patience=PATIENCE)
