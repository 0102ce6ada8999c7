"""A partner's customers, and what their services are called."""

from typing import Any

import msgspec
import pytest

from services.contracts.access import Limits, NoAuth
from services.contracts.errors import RejectedError, RetryableError
from services.contracts.integration import Integration
from services.contracts.reading import Customers, NextUrl, PageNumber
from services.extractor.access import Fixed
from services.extractor.answers import Answer
from services.extractor.auth import Site
from services.extractor.customers import Customer, instance_of, list_customers, listed_by
from services.extractor.fetch import Caller
from services.extractor.requests import Request
from tests.extractor.token_vendor import OAUTH, World, answer

SITE = Site("https://desk.example/api", {"org": "7"}, {"X-Key": "k"})
LISTED = Customers(
    "orgs/{org}/customers", "id", "name.full", records="value", params={"top": "2"}, pagination=NextUrl("more")
)


def customer(number: int) -> dict[str, Any]:
    return {"id": number, "name": {"full": f"Customer {number}"}}


async def listed(told: dict[str, Answer], customers: Customers = LISTED) -> tuple[list[Customer], list[Request]]:
    world = World(OAUTH)
    world.vendor.planned = lambda request: told.get(request.address, answer(404))
    caller = Caller(world.runtime, world.vendor, Fixed(SITE), Limits(), ("acme", "desk"))
    how = listed_by(Integration("desk", "Desk", "https://desk.example/api", NoAuth(), {}, customers=customers))
    assert how is not None
    return await list_customers(world.runtime, caller, how), world.vendor.asked


async def test_every_page_is_read_and_each_customer_told_once() -> None:
    first = "https://desk.example/api/orgs/7/customers?top=2"
    second = "https://desk.example/api/orgs/7/customers?page=2"
    found, asked = await listed(
        {
            first: answer(200, {"value": [customer(1), customer(2)], "more": second}),
            second: answer(200, {"value": [customer(2), {"id": "x"}]}),
        }
    )
    assert found == [Customer("1", "Customer 1"), Customer("2", "Customer 2"), Customer("x", "x")]
    assert [request.source for request in asked] == [
        "GET orgs/{org}/customers page 1",
        "GET orgs/{org}/customers page 2",
    ]


async def test_the_list_may_lie_at_an_address_of_its_own_and_be_the_whole_answer() -> None:
    customers = Customers("https://partner.example/{org}/all", "id", "id")
    found, _ = await listed({"https://partner.example/7/all": answer(200, [{"id": "a"}])}, customers)
    assert found == [Customer("a", "a")]


@pytest.mark.parametrize("more", ["https://desk.example/api/orgs/7/customers?top=2", "https://evil.example/x"])
async def test_pages_that_do_not_end_or_lead_elsewhere_are_not_followed(more: str) -> None:
    first = "https://desk.example/api/orgs/7/customers?top=2"
    with pytest.raises(RejectedError):
        await listed({first: answer(200, {"value": [], "more": more})})


async def test_pages_may_be_numbered_as_those_of_any_list() -> None:
    numbered = Customers(
        "companies",
        "id",
        "name.full",
        "content",
        pagination=PageNumber(first=0, size=2, pages="page.totalPages"),
    )
    pages = {
        f"https://desk.example/api/companies?page={number}": answer(
            200, {"content": [customer(2 * number), customer(2 * number + 1)], "page": {"totalPages": 2}}
        )
        for number in range(2)
    }
    found, _ = await listed(pages, numbered)
    assert [one.id for one in found] == ["0", "1", "2", "3"]


async def test_a_customer_without_an_id_is_no_answer() -> None:
    first = "https://desk.example/api/orgs/7/customers?top=2"
    with pytest.raises(RetryableError):
        await listed({first: answer(200, {"value": [{"name": "x"}]})})


@pytest.mark.parametrize(
    ("title", "id", "taken", "name"),
    [
        ("Contoso Ltd.", "7", set(), "desk:contoso-ltd"),
        ("Contoso", "0B2F-1111-AABBCCDD", {"desk:contoso"}, "desk:contoso-aabbccdd"),
        ("Ünïcödé & Söhne", "7", set(), "desk:n-c-d-s-hne"),
        ("東京", "0b2f", set(), "desk:0b2f"),
        ("x" * 200, "7", set(), f"desk:{'x' * 48}"),
    ],
)
def test_a_customers_service_is_called_as_people_call_the_customer(
    title: str, id: str, taken: set[str], name: str
) -> None:
    assert instance_of("desk:partner", Customer(id, title), taken) == name


def test_customers_that_no_name_tells_apart_are_told() -> None:
    with pytest.raises(RejectedError, match="cannot be told"):
        instance_of("desk", Customer("7", "A"), {"desk:a", "desk:a-7"})


def test_a_customer_shows_no_secret() -> None:
    assert msgspec.json.encode(Customer("7", "A")) == b'{"id":"7","title":"A"}'
