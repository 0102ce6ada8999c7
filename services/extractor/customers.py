"""A partner's customers: one credential, many accounts, each an instance of the service (`microsoft_365:contoso`)."""

import re
from collections.abc import Collection
from contextlib import aclosing
from typing import Final

import msgspec
from msgspec.structs import replace

from services.contracts.errors import RejectedError, RetryableError
from services.contracts.integration import Endpoint, Integration, integration_name
from services.contracts.reading import NoDeletes, NoIncremental
from services.extractor.fetch import Caller
from services.extractor.plan import Spec, spec_of
from services.extractor.raw_json import KeyPath, scalar_text, split_path, value_at
from services.extractor.records import read_page
from services.extractor.walking import look_at, walk
from services.runtime.runtime import Runtime

LIST: Final = "customers"
INSTANCE_LENGTH_MAX: Final = 48  # of the 128 that a service's name may have
_NO_LETTERS = re.compile(r"[^a-z0-9]+")


class Listed(msgspec.Struct, frozen=True):
    """How the customers are listed, as an endpoint is read; `title` is where each says what it is called."""

    spec: Spec
    title: KeyPath


def listed_by(integration: Integration) -> Listed | None:
    """None where the integration does not say how. Errors: UsageError `bad_mapping`."""
    said = integration.customers
    if said is None:
        return None
    scheme, absolute, rest = said.path.rpartition("://")
    host, _, path = rest.partition("/") if absolute else ("", "", rest)
    endpoint = Endpoint(
        path,
        said.id,
        base_url=f"{scheme}://{host}" if absolute else None,
        records=said.records,
        params=said.params,
        pagination=said.pagination,
    )
    alone = replace(
        integration,
        endpoints={LIST: endpoint},
        params={},
        updated_at=None,
        incremental=NoIncremental(),
        deletes=NoDeletes(),
    )
    return Listed(spec_of(alone, LIST), split_path(said.title))


class Customer(msgspec.Struct, frozen=True):
    """One customer of a partner, as the vendor names it: `id` fills `{account_id}`."""

    id: str
    title: str


async def list_customers(runtime: Runtime, caller: Caller, listed: Listed) -> list[Customer]:
    """Every customer that the partner's credentials reach, each once, in the vendor's order.

    Errors: as `walk`; RetryableError `bad_answer` where one of them cannot be told.
    """
    found: dict[str, Customer] = {}
    async with aclosing(walk(look_at(runtime, caller, listed.spec), read_page, background=True)) as steps:
        async for step in steps:
            if step.got.value.bad:
                raise RetryableError(f"{step.source}: {step.got.value.bad[0].reason}", code="bad_answer")
            for record in step.got.value.records:
                title = scalar_text(value_at(record.payload, listed.title))
                found.setdefault(record.record_id, Customer(record.record_id, title or record.record_id))
    return list(found.values())


def instance_of(service: str, customer: Customer, taken: Collection[str]) -> str:
    """The name of the service that reads one customer: what people call it, in letters a name may have; with (the end
    of) its id where that is `taken` or nothing is left of it.

    A name once given stays with its id, whatever the vendor calls the customer later: look by `account_id` first.
    """
    name, short = integration_name(service), _NO_LETTERS.sub("", customer.id.lower())
    title = _NO_LETTERS.sub("-", customer.title.lower()).strip("-")[:INSTANCE_LENGTH_MAX].strip("-")
    for instance in (title, f"{title}-{short[-8:]}", f"{title[:12]}-{short[-INSTANCE_LENGTH_MAX:]}"):
        full = f"{name}:{instance.strip('-')}"
        if instance.strip("-") and full not in taken:
            return full
    raise RejectedError(f"{customer.title!r} ({customer.id}) cannot be told from another customer", code="conflict")
