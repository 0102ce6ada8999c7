"""The real extractor reads HaloPSA's dialect over HTTP; and the dialect itself, where a reader could be misled."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import urlencode

import msgspec
import pytest
from msgspec.structs import replace

from services.contracts.integration import Integration
from services.sandbox.vendors.access import tokens_of
from services.sandbox.vendors.dialect import Answer, Request, answered
from services.sandbox.vendors.halopsa import CLIENT_ID, CLIENT_SECRET, DIALECT, HOST, PER_WINDOW, WINDOW_S, halo_time
from services.sandbox.vendors.store import Row, Store
from tests.dialects.described import held_against
from tests.dialects.every import integration_of
from tests.dialects.oracle import Oracle
from tests.dialects.seeds import part_of, quickened
from tests.dialects.world import World, opened

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
BELOW = ("tickets", "actions", "action_times", "deleted_tickets")


def reading(*endpoints: str) -> Integration:
    """The integration with small pages: these endpoints and what they need, or all."""
    integration = integration_of("halopsa")
    return quickened(part_of(integration, Random(0), endpoints or tuple(integration.endpoints)), Random(0))


def check(world: World) -> None:
    oracle = Oracle(world.integration, world.store, world.hostility.served, world.rough)
    assert oracle.judge(world.events, world.arrivals).findings == []
    assert oracle.check_contents(world.events) == []
    assert world.vendor.astray == []


def ops(world: World, endpoint: str, row: Row) -> list[str]:
    """What was published of a record, in order."""
    return [event.op for event in world.events if (event.endpoint, event.record_id) == (endpoint, row.id)]


def vendor(count: int = 6) -> Store:
    store = Store(DIALECT.collections, NOW, Random(1))
    store.populate(dict.fromkeys(store.collections, count))
    return store


def asked(store: Store, path: str, *, at: datetime = NOW, **query: str) -> Answer:
    """What the dialect answers to somebody who has a token."""
    headers = {"authorization": f"Bearer {tokens_of(store).issue(3_600)}"}
    return answered(DIALECT, store, Request("GET", f"https://{HOST}", f"/api/{path}", query, headers, at))


def told(answer: Answer) -> Any:
    return msgspec.json.decode(answer.body)


def ids(answer: Answer, key: str) -> list[Any]:
    return [item["id"] for item in told(answer)[key]]


# -- the extractor reads it -------------------------------------------------------------------------------------------
async def test_every_record_arrives_once_and_so_does_an_update_a_deletion_and_a_late_record() -> None:
    integration = reading()
    roomy = replace(integration, limits=replace(integration.limits, share=1.0))
    async with opened(DIALECT, roomy) as world:
        world.store.facts["limit:window"] = 10_000
        assert (await world.run_once()).complete
        assert len(world.events) == sum(len(world.store.rows(name)) for name in world.store.collections)
        tickets = world.store.rows("tickets")
        world.store.update("tickets", tickets[0].id)
        world.store.delete("tickets", tickets[1].id)
        client = world.store.rows("clients")[0]
        world.store.delete("clients", client.id)
        late = world.store.create("tickets", late_s=90.0)
        await world.settle()
        check(world)
        assert ops(world, "tickets", tickets[0]) == ["upsert", "upsert"]
        assert ops(world, "tickets", tickets[1]) == ["upsert", "delete"]
        assert ops(world, "clients", client) == ["upsert", "delete"]
        assert ops(world, "tickets", late) == ["upsert"]


async def test_the_list_of_deleted_tickets_tells_of_one_before_any_sweep() -> None:
    async with opened(DIALECT, reading("tickets")) as world:
        await world.run_once(sweep=False)
        gone = world.store.rows("tickets")[0]
        world.store.delete("tickets", gone.id)
        await world.clock.sleep(310)
        await world.run_once(sweep=False)
        assert ops(world, "tickets", gone) == ["upsert", "delete"]


async def test_only_tickets_that_changed_are_asked_for_their_actions() -> None:
    async with opened(DIALECT, reading(*BELOW)) as world:
        await world.run_once(sweep=False)
        asked_before = len(world.hostility.served)
        ticket = world.store.rows("tickets")[3]
        action = world.store.create("actions", ticket.id)
        world.store.update("action_times", world.store.rows("action_times", ticket.id)[0].id)
        await world.clock.sleep(61)
        await world.run_once(sweep=False)
        assert ops(world, "actions", action) == ["upsert"]
        below = [one.request for one in world.hostility.served[asked_before:] if one.request.path.endswith("/Actions")]
        assert {request.query["ticket_id"] for request in below} == {ticket.id}


async def test_clocks_and_counters_make_no_changes() -> None:
    async with opened(DIALECT, reading("tickets", "clients", "agents", "projects")) as world:
        await world.run_once()
        count = len(world.events)
        shown = b"".join(one.answer.body for one in world.hostility.served)
        assert all(name in shown for name in (b"ticketage", b"open_ticket_count", b"is_online"))
        await world.settle()
        assert len(world.events) == count


async def test_no_password_leaves_the_extractor() -> None:
    async with opened(DIALECT, reading("agents", "clients", "users", "suppliers")) as world:
        await world.run_once()
        shown = b"".join(one.answer.body for one in world.hostility.served)
        published = b"".join(bytes(event.payload) for event in world.events if event.payload is not msgspec.UNSET)
        assert b"hunter" in shown
        assert b"hunter" not in published


async def test_inactive_records_are_read_too() -> None:
    async with opened(DIALECT, reading("clients", "agents")) as world:
        await world.run_once()
        read = {(event.endpoint, event.record_id) for event in world.events}
        hidden = [row for row in world.store.rows("clients") if row.content["inactive"]]
        disabled = [row for row in world.store.rows("agents") if row.content["isdisabled"]]
        assert hidden
        assert disabled
        assert {(row.collection, row.id) for row in [*hidden, *disabled]} <= read


@pytest.mark.parametrize(("typed", "query"), [({}, {}), ({"tenant": "acme"}, {"tenant": "acme"})])
async def test_a_tenant_is_named_to_the_token_endpoint_where_there_is_one(
    typed: dict[str, str], query: dict[str, str]
) -> None:
    named = replace(DIALECT, credentials=lambda store: {**DIALECT.credentials(store), **typed})
    async with opened(named, reading("statuses")) as world:
        assert (await world.run_once()).complete
        tokens = [one.request for one in world.hostility.served if one.request.path == "/auth/token"]
        assert [(request.query, request.form["scope"]) for request in tokens] == [(query, "all")]


async def test_every_answer_and_every_request_is_as_described() -> None:
    found = await held_against("halopsa", "halopsa.json", prefix="/api")
    assert found.answers >= 100
    assert set(found.unknown) == {"POST /auth/token"}
    known = {"answer /Actions actions.*.who": "the record that a POST takes has no such field; answers do"}
    assert found.differences(but=known) == []


# -- the dialect ------------------------------------------------------------------------------------------------------
def test_a_token_is_given_to_the_application_alone_and_ends() -> None:
    store = vendor()
    form = {"grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, "scope": "all"}
    request = Request("POST", f"https://{HOST}", "/auth/token", {}, {}, NOW, urlencode(form).encode())
    token = told(answered(DIALECT, store, request))
    assert token["expires_in"] == 3600
    wrong = replace(request, body=urlencode({**form, "client_secret": "x"}).encode())
    assert told(answered(DIALECT, store, wrong))["error"] == "invalid_client"
    headers = {"authorization": f"Bearer {token['access_token']}"}
    later = Request("GET", f"https://{HOST}", "/api/Status", {}, headers, NOW + timedelta(seconds=3601))
    assert answered(DIALECT, store, replace(later, at=NOW)).status == 200
    assert answered(DIALECT, store, later).status == 401


def test_pages_are_numbered_and_count_the_records_of_all_of_them() -> None:
    store = vendor(7)
    pages = [
        asked(store, "Item", pageinate="true", page_no=str(page), page_size="3", order="id", orderdesc="false")
        for page in (1, 2, 3, 4)
    ]
    assert [ids(page, "items") for page in pages] == [[1, 2, 3], [4, 5, 6], [7], []]
    assert {told(page)["record_count"] for page in pages} == {7}
    for _ in range(113):
        store.create("items")
    assert len(ids(asked(store, "Item", pageinate="true", page_no="1", page_size="500"), "items")) == 100
    assert len(ids(asked(store, "Item"), "items")) == 50


def test_what_changed_after_a_time_is_listed_and_not_what_changed_at_it() -> None:
    store = vendor(8)
    rows = sorted(store.rows("projects"), key=lambda row: row.updated)
    found = asked(store, "Projects", lastupdatefromdate=halo_time(rows[4].updated))
    assert sorted(ids(found, "tickets")) == sorted(row.raw_id for row in rows[5:])
    assert asked(store, "Tickets", lastupdatefromdate="yesterday").status == 400
    assert len(ids(asked(store, "Tickets", no_such_parameter="1"), "tickets")) == 8


def test_inactive_and_deleted_records_are_hidden_unless_they_are_asked_for() -> None:
    store = vendor(10)
    hidden = {row.raw_id for row in store.rows("users") if row.content["inactive"]}
    assert hidden.isdisjoint(ids(asked(store, "Users"), "users"))
    assert hidden <= set(ids(asked(store, "Users", includeinactive="true"), "users"))
    gone = store.rows("tickets")[2]
    store.delete("tickets", gone.id)
    assert gone.raw_id not in ids(asked(store, "Tickets"), "tickets")
    (deleted,) = told(asked(store, "Tickets", deleted="true"))["tickets"]
    assert (deleted["id"], deleted["deleted"]) == (gone.raw_id, True)
    assert told(asked(store, f"Tickets/{gone.raw_id}"))["deleted"] is True


def test_tickets_projects_and_opportunities_share_one_row_of_ids() -> None:
    store = vendor(5)
    found = [ids(asked(store, path), "tickets") for path in ("Tickets", "Projects", "Opportunities")]
    assert len({number for numbers in found for number in numbers}) == 15
    assert told(asked(store, f"Tickets/{found[1][0]}"))["id"] == found[1][0]


def test_actions_are_those_of_one_ticket() -> None:
    store = vendor(3)
    ticket = store.rows("tickets")[0]
    answer = told(asked(store, "Actions", ticket_id=ticket.id))
    assert {action["ticket_id"] for action in answer["actions"]} == {ticket.raw_id}
    assert answer["record_count"] == 3
    assert len(told(asked(store, "Actions", ticket_id=ticket.id, count="2"))["actions"]) == 2
    assert asked(store, "Actions").status == 400


@pytest.mark.parametrize(("path", "status"), [("NoSuchThing", 404), ("Client/99", 404), ("Item/1", 404)])
def test_what_is_not_there_is_told(path: str, status: int) -> None:
    assert asked(vendor(), path).status == status


def test_requests_beyond_the_rolling_window_are_refused() -> None:
    store = vendor()
    assert {asked(store, "Status").status for _ in range(PER_WINDOW)} == {200}
    refused = asked(store, "Status")
    assert (refused.status, told(refused)["error"]) == (
        429,
        "Rate Limit Reached - 300 Requests per rolling 5 minute window",
    )
    assert asked(store, "Status", at=NOW + timedelta(seconds=WINDOW_S + 1)).status == 200
