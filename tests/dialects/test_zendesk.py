"""The real extractor reads Zendesk's dialect over HTTP; and the dialect itself, where a reader could be misled."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
from msgspec.structs import replace

from services.contracts.integration import Integration
from services.sandbox.vendors.dialect import Answer, Request, answered
from services.sandbox.vendors.store import Store
from services.sandbox.vendors.zendesk import DIALECT, EXPORTS_PER_MINUTE, LISTINGS, OAUTH_TOKEN
from tests.dialects.described import held_against
from tests.dialects.every import integration_of
from tests.dialects.oracle import Oracle
from tests.dialects.seeds import part_of, quickened
from tests.dialects.world import World, opened

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
HOST = "https://acme.zendesk.com"
# What the rebuilt description lacks (SOURCES.md): cursor pagination, the envelope of some lists, ticket events.
PAGES = {"page[size]", "page[after]", "meta", "links", "count", "next_page", "previous_page", "end_of_stream"}
EVENT = {"child_events", "created_at", "event_type", "system", "timestamp", "updater_id", "via"}


def reading(*endpoints: str) -> Integration:
    """The integration with small pages: these endpoints and what they need, or all."""
    integration = integration_of("zendesk")
    return quickened(part_of(integration, Random(0), endpoints or tuple(integration.endpoints)), Random(0))


def check(world: World) -> None:
    oracle = Oracle(world.integration, world.store, world.hostility.served, world.rough)
    assert oracle.judge(world.events, world.arrivals).findings == []
    assert oracle.check_contents(world.events) == []
    assert world.vendor.astray == []


def vendor(count: int = 6) -> Store:
    """Whose records rested a minute, so that exports show them."""
    store = Store(DIALECT.collections, NOW - timedelta(seconds=61), Random(1))
    store.populate(dict.fromkeys(store.collections, count))
    store.turn(NOW)
    return store


def asked(store: Store, path: str, query: Mapping[str, str] | None = None) -> Answer:
    headers = {"authorization": f"Bearer {OAUTH_TOKEN}"}
    return answered(DIALECT, store, Request("GET", HOST, f"/api/v2/{path}", query or {}, headers, store.now))


def told(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    found: dict[str, Any] = msgspec.json.decode(answer.body)
    return found


def exported(store: Store, kind: str, query: Mapping[str, str]) -> dict[str, Any]:
    return told(asked(store, f"incremental/{kind}", query))


# -- the extractor reads it -------------------------------------------------------------------------------------------
async def test_every_record_arrives_once_and_so_does_an_update_a_deletion_and_a_late_record() -> None:
    async with opened(DIALECT, reading()) as world:
        await world.clock.sleep(100)
        assert (await world.run_once()).complete
        assert len(world.events) == sum(len(world.store.rows(name)) for name in world.store.collections)
        tickets, people = world.store.rows("tickets"), world.store.rows("users")
        world.store.update("tickets", tickets[0].id)
        world.store.delete("users", people[0].id)
        world.store.delete("organizations", world.store.rows("organizations")[0].id)
        world.store.delete("agents", world.store.rows("agents")[0].id)
        world.store.create("ticket_comments", tickets[2].id)
        late = [world.store.create(name, late_s=90.0) for name in ("tickets", "organizations", "audit_logs")]
        await world.settle()
        check(world)
        ops = [(event.endpoint, event.record_id, event.op) for event in world.events]
        assert ops.count(("tickets", tickets[0].id, "upsert")) == 2
        assert ("users", people[0].id, "delete") in ops
        assert [ops.count((row.collection, row.id, "upsert")) for row in late] == [1, 1, 1]
        assert {name for name, _, op in ops if op == "delete"} == {"users", "organizations", "agents"}


async def test_the_export_goes_on_from_its_last_cursor_with_no_start_time_beside_it() -> None:
    async with opened(DIALECT, reading("tickets")) as world:
        world.store.page_sizes["tickets"] = 6
        await world.clock.sleep(100)
        await world.run_once(sweep=False)
        await world.clock.sleep(100)
        await world.run_once(sweep=False)
        asked_for = [dict(parse_qsl(urlsplit(r.address).query)) for r in world.wire.sent if "incremental" in r.url]
        assert asked_for[0] == {"start_time": "0"}
        assert len(asked_for) > 2
        assert all(query.keys() == {"cursor"} for query in asked_for[1:])
        check(world)


async def test_an_account_without_tickets_is_read_and_has_no_cursor_to_keep() -> None:
    async with opened(DIALECT, reading("tickets")) as world:
        summary = await world.run_once(sweep=False)  # all of them changed within the last minute
        assert summary.complete, summary.failed
        assert world.events == []
        await world.settle()
        check(world)


async def test_a_deletion_is_told_by_the_export_and_by_the_list_of_the_deleted_and_published_once() -> None:
    async with opened(DIALECT, reading("tickets", "deleted_tickets")) as world:
        await world.clock.sleep(100)
        await world.run_once()
        gone, back = world.store.rows("tickets")[:2]
        world.store.delete("tickets", gone.id)
        world.store.delete("tickets", back.id)
        await world.clock.sleep(10)
        await world.run_once()  # the list of the deleted shows them at once
        deleted = [event for event in world.events if event.op == "delete"]
        assert {event.record_id for event in deleted} == {gone.id, back.id}
        world.store.restore("tickets", back.id)
        await world.settle()
        check(world)
        deletions = [event.record_id for event in world.events if event.op == "delete" and event.endpoint == "tickets"]
        assert sorted(deletions) == sorted([gone.id, back.id])


async def test_comments_are_read_below_tickets_that_changed_and_no_others() -> None:
    async with opened(DIALECT, reading("ticket_comments")) as world:
        await world.clock.sleep(100)
        await world.run_once()
        ticket = world.store.rows("tickets")[3]
        made = world.store.create("ticket_comments", ticket.id)
        await world.clock.sleep(100)
        before = len(world.wire.sent)
        await world.run_once(sweep=False)
        below = [request.url for request in world.wire.sent[before:] if request.url.endswith("/comments")]
        assert set(below) == {f"{HOST}/api/v2/tickets/{ticket.id}/comments"}
        (read,) = [event for event in world.events if event.record_id == made.id]
        assert msgspec.json.decode(bytes(read.payload))["_parent"] == {"ticket_id": ticket.id}  # type: ignore[arg-type]
        check(world)


async def test_an_oauth_token_serves_as_well_as_an_api_token() -> None:
    typed = {"subdomain": "acme", "oauth_token": OAUTH_TOKEN}
    async with opened(replace(DIALECT, credentials=lambda _: typed), reading("groups")) as world:
        assert (await world.run_once()).complete
        check(world)


async def test_a_plan_without_an_audit_log_is_no_failure() -> None:
    async with opened(DIALECT, reading("audit_logs", "groups")) as world:
        world.hostility.begin(43, ["audit_logs"])
        summary = await world.run_once()
        assert not summary.failed
        assert {event.endpoint for event in world.events} == {"groups"}


async def test_never_more_exports_in_a_minute_than_the_vendor_allows() -> None:
    names = ("tickets", "users", "organizations", "ticket_events", "ticket_metric_events")
    async with opened(DIALECT, reading(*names)) as world:
        worker = world.worker()
        for _ in range(10):
            for name in names:
                world.hostility.changes.any(name)
            await world.clock.sleep(60)
        await worker.stop()
        assert {serving.answer.status for serving in world.hostility.served} == {200}


async def test_every_answer_and_every_request_is_as_described() -> None:
    found = await held_against("zendesk", "zendesk.json")
    assert found.answers >= 50
    singles = {f"GET /api/v2/{listing.path}" for listing in LISTINGS}  # whose single records are not described
    assert {name.rpartition("/")[0] for name in found.unknown} <= singles
    left = {name for name in found.differences() if name.rpartition(" ")[2] not in PAGES}
    known = {f"answer /api/v2/incremental/ticket_events ticket_events.*.{name}" for name in EVENT}
    known |= {
        "answer /api/v2/incremental/organizations organizations.*.deleted_at",
        "answer /api/v2/tickets/{ticket_id}/comments comments.*.audit_id",
    }
    assert left == known


# -- the dialect ------------------------------------------------------------------------------------------------------
def test_an_export_leaves_out_the_last_minute_and_shows_it_a_minute_later() -> None:
    store = vendor()
    first = exported(store, "tickets/cursor", {"start_time": "0"})
    assert (len(first["tickets"]), first["end_of_stream"]) == (6, True)
    changed = store.rows("tickets")[0]
    store.update("tickets", changed.id)
    following = {"cursor": first["after_cursor"]}
    assert exported(store, "tickets/cursor", following)["tickets"] == []
    store.turn(store.now + timedelta(seconds=61))
    assert [one["id"] for one in exported(store, "tickets/cursor", following)["tickets"]] == [changed.raw_id]


def test_exports_show_the_deleted_who_say_so() -> None:
    store = vendor()
    gone = [store.rows(name)[0].id for name in ("tickets", "users", "organizations")]
    for name, record_id in zip(("tickets", "users", "organizations"), gone, strict=True):
        store.delete(name, record_id)
    store.turn(store.now + timedelta(seconds=61))
    tickets = exported(store, "tickets/cursor", {"start_time": "0"})["tickets"]
    assert [str(one["id"]) for one in tickets if one["status"] == "deleted"] == [gone[0]]
    users = exported(store, "users/cursor", {"start_time": "0"})["users"]
    assert [str(one["id"]) for one in users if not one["active"]] == [gone[1]]
    organizations = exported(store, "organizations", {"start_time": "0"})["organizations"]
    assert [str(one["id"]) for one in organizations if one["deleted_at"]] == [gone[2]]
    assert [str(one["id"]) for one in told(asked(store, "deleted_tickets"))["deleted_tickets"]] == [gone[0]]


def test_a_page_by_time_ends_with_a_whole_second_which_the_next_shows_again() -> None:
    store = Store(DIALECT.collections, NOW - timedelta(seconds=100), Random(1))
    for second in (0, 0, 0, 1, 2):
        store.create("organizations", stamp=NOW - timedelta(seconds=200 - second))
    store.turn(NOW)
    first = exported(store, "organizations", {"start_time": "0", "per_page": "2"})
    assert (first["count"], first["end_of_stream"]) == (3, False)
    following = exported(store, "organizations", {"start_time": str(first["end_time"]), "per_page": "2"})
    assert (following["count"], following["end_of_stream"]) == (5, True)


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("incremental/tickets/cursor", {}, 400),
        ("incremental/tickets/cursor", {"start_time": "0", "cursor": "MA"}, 400),
        ("incremental/tickets/cursor", {"cursor": "nonsense"}, 400),
        ("incremental/organizations", {"start_time": str(int(NOW.timestamp()))}, 422),
        ("groups", {"page[size]": "101"}, 400),
        ("audit_logs", {"sort": "action"}, 400),
        ("tickets/1/comments", {}, 404),
        ("nothing", {}, 404),
    ],
)
def test_what_the_vendor_refuses_is_refused(path: str, query: dict[str, str], status: int) -> None:
    assert asked(vendor(), path, query).status == status


def test_a_list_without_a_cursor_is_numbered() -> None:
    store = vendor()
    page = told(asked(store, "groups.json", {"per_page": "4"}))
    assert (len(page["groups"]), page["count"]) == (4, 6)
    assert "page=2" in page["next_page"]


def test_exports_are_counted_and_every_answer_tells_what_is_left() -> None:
    store = vendor()
    answers = [asked(store, "incremental/tickets/cursor", {"start_time": "0"}) for _ in range(EXPORTS_PER_MINUTE + 1)]
    assert [answer.status for answer in answers] == [200] * EXPORTS_PER_MINUTE + [429]
    assert answers[0].headers["X-Rate-Limit-Remaining"] == "199"
    assert "Retry-After" in answers[-1].headers


def test_wrong_credentials_are_refused() -> None:
    for headers in ({"authorization": "Basic eDp5"}, {"authorization": "Bearer x"}, {}):
        request = Request("GET", HOST, "/api/v2/groups", {}, headers, NOW)
        answer = answered(DIALECT, vendor(), request)
        assert (answer.status, msgspec.json.decode(answer.body)) == (401, {"error": "Couldn't authenticate you"})
