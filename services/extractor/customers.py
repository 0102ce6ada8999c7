"""A partner's customers: one credential, many accounts, each an instance of the service (`microsoft_365:contoso`)."""

import re
from collections.abc import Collection
from typing import Final

import msgspec

from services.contracts.access import Customers
from services.contracts.errors import RejectedError, RetryableError
from services.contracts.integration import integration_name
from services.contracts.times import UtcTime
from services.extractor.addresses import base_url, followed
from services.extractor.answers import Answer
from services.extractor.auth import filled
from services.extractor.fetch import Caller
from services.extractor.raw_json import KeyPath, UnreadableError, compact, items_of, scalar_text, split_path, value_at
from services.extractor.requests import Request
from services.extractor.templates import fill

PAGES_MAX: Final = 1_000
INSTANCE_LENGTH_MAX: Final = 48  # of the 128 that a service's name may have
_NO_LETTERS = re.compile(r"[^a-z0-9]+")


class Customer(msgspec.Struct, frozen=True):
    """One customer of a partner, as the vendor names it: `id` fills `{account_id}`."""

    id: str
    title: str


class _Page(msgspec.Struct, frozen=True):
    customers: tuple[Customer, ...]
    next: str | None


async def list_customers(caller: Caller, customers: Customers) -> list[Customer]:
    """Every customer that the partner's credentials reach, each once, in the vendor's order.

    Errors: as `Caller.get`; RejectedError `pages_do_not_advance`, `wrong_host`.
    """
    site = await caller.site()
    rules = _Rules(split_path(customers.records), split_path(customers.id), split_path(customers.title), customers.next)
    place, shown = fill(customers.path, site.values), f"GET {customers.path}"
    url = base_url(place, {}) if "://" in place else f"{site.base_url}/{place.strip('/')}"
    asked = Request(url=url, query=tuple(filled(customers.params, site.values).items()), source=shown)
    found: dict[str, Customer] = {}
    seen: set[str] = set()
    for number in range(1, PAGES_MAX + 1):
        seen.add(asked.address)
        page = (await caller.get(asked, rules.read)).value
        found |= {customer.id: customer for customer in page.customers if customer.id not in found}
        if page.next is None:
            return list(found.values())
        asked = Request(url=followed(asked.address, page.next), source=f"{shown} page {number + 1}")
        if asked.address in seen:
            break
    raise RejectedError(f"{shown}: the pages of customers do not end", code="pages_do_not_advance")


class _Rules(msgspec.Struct, frozen=True):
    records: KeyPath
    id: KeyPath
    title: KeyPath
    next: str | None

    def read(self, answer: Answer, _: UtcTime) -> _Page:
        """One page. Errors: RetryableError `bad_answer`."""
        try:
            body = compact(answer.body)
            customers = tuple(self._customer(item) for item in items_of(value_at(body, self.records) or b"[]"))
        except UnreadableError as err:
            raise RetryableError("no list of customers", code="bad_answer") from err
        following = scalar_text(value_at(body, split_path(self.next))) if self.next is not None else None
        return _Page(customers, following or None)

    def _customer(self, item: bytes) -> Customer:
        found = scalar_text(value_at(item, self.id))
        if not found:
            raise RetryableError("a customer without an id", code="bad_answer")
        return Customer(found, scalar_text(value_at(item, self.title)) or found)


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
