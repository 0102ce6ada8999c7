"""The real extractor reads Graph's dialect over HTTP; and the dialect itself, where a reader could be misled."""

from collections.abc import Mapping
from datetime import UTC, datetime
from random import Random
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import msgspec
import pytest
from msgspec.structs import replace

from services.contracts.integration import Integration
from services.sandbox.vendors.access import tokens_of
from services.sandbox.vendors.dialect import Answer, RefusedError, Request, answered
from services.sandbox.vendors.microsoft_365 import (
    BASE,
    CLIENT_ID,
    CLIENT_SECRET,
    DIALECT,
    GRAPH,
    LISTINGS,
    LOGIN,
    SCOPE,
    TENANT,
    graph_time,
)
from services.sandbox.vendors.store import Store
from tests.dialects.described import held_against
from tests.dialects.every import integration_of
from tests.dialects.oracle import Oracle
from tests.dialects.seeds import part_of, quickened
from tests.dialects.world import NAMES, World, opened
from tests.dialects.world import TENANT as OURS

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def reading(*endpoints: str) -> Integration:
    """The integration with small pages: these endpoints, or all."""
    integration = integration_of("microsoft_365")
    return quickened(part_of(integration, Random(0), endpoints or tuple(integration.endpoints)), Random(0))


def check(world: World) -> None:
    oracle = Oracle(world.integration, world.store, world.hostility.served, world.rough)
    assert oracle.judge(world.events, world.arrivals).findings == []
    assert oracle.check_contents(world.events) == []
    assert world.vendor.astray == []


def vendor(count: int = 6) -> Store:
    store = Store(DIALECT.collections, NOW, Random(1))
    store.populate(dict.fromkeys(store.collections, count))
    return store


def asked(store: Store, path: str, query: Mapping[str, str] | None = None, **headers: str) -> Answer:
    """What the dialect answers to somebody who is signed in."""
    signed = {"authorization": f"Bearer {tokens_of(store).issue(60)}", **headers}
    return answered(DIALECT, store, Request("GET", f"https://{GRAPH}", f"/v1.0/{path}", query or {}, signed, NOW))


def told(answer: Answer) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(answer.body)
    return found


def followed(store: Store, address: str, **headers: str) -> dict[str, Any]:
    parts = urlsplit(address)
    return told(asked(store, parts.path.removeprefix("/v1.0/"), dict(parse_qsl(parts.query)), **headers))


def last_page(store: Store, path: str, select: str | None = None) -> dict[str, Any]:
    """The end of a round of a delta query."""
    page = told(asked(store, path, {"$select": select} if select else {}))
    while "@odata.nextLink" in page:
        page = followed(store, page["@odata.nextLink"])
    return page


# -- the extractor reads it -------------------------------------------------------------------------------------------
async def test_every_record_arrives_once_and_so_does_an_update_a_deletion_and_a_late_record() -> None:
    async with opened(DIALECT, reading()) as world:
        assert (await world.run_once()).complete
        assert len(world.events) == sum(len(world.store.rows(name)) for name in world.store.collections)
        users = world.store.rows("users")
        world.store.update("users", users[0].id)
        world.store.delete("users", users[1].id)
        world.store.delete("domains", world.store.rows("domains")[0].id)
        late = [world.store.create(name, late_s=90.0) for name in ("users", "sign_ins", "alerts")]
        await world.settle()
        check(world)
        ops = [(event.record_id, event.op) for event in world.events]
        assert (users[1].id, "delete") in ops
        assert ops.count((users[0].id, "upsert")) == 2
        assert [ops.count((row.id, "upsert")) for row in late] == [1, 1, 1]


async def test_a_change_is_read_by_the_delta_link_alone_and_whole() -> None:
    async with opened(DIALECT, reading("users")) as world:
        await world.run_once(sweep=False)
        changed = world.store.rows("users")[2]
        world.store.update("users", changed.id)
        before = len(world.wire.sent)
        await world.run_once(sweep=False)
        lists = [request for request in world.wire.sent[before:] if GRAPH in request.url]
        assert [parse_qsl(urlsplit(request.address).query)[0][0] for request in lists] == ["$deltatoken"]
        first, last = [msgspec.json.decode(bytes(e.payload)) for e in world.events if e.record_id == changed.id]  # type: ignore[arg-type]
        assert first.keys() == last.keys()
        assert "passwordProfile" not in first
        check(world)


async def test_a_licence_is_known_by_user_and_product_and_read_again_when_its_user_changes() -> None:
    async with opened(DIALECT, reading("license_details")) as world:
        assert (await world.run_once()).complete
        row = world.store.rows("license_details")[0]
        first = [event for event in world.events if event.record_id == row.id]
        assert [msgspec.json.decode(bytes(one.payload))["_parent"] for one in first] == [{"user_id": row.parent}]  # type: ignore[arg-type]
        assert row.id == f'["{row.parent}","{row.raw_id}"]'
        world.store.update("license_details", row.id)  # which changes its user
        before = len(world.wire.sent)
        await world.run_once(sweep=False)
        asked_for = [request.url for request in world.wire.sent[before:] if "licenseDetails" in request.url]
        assert asked_for == [f"https://{GRAPH}/v1.0/users/{row.parent}/licenseDetails"]
        world.store.delete("license_details", row.id)
        await world.settle()
        check(world)
        assert (row.id, "delete") in [(event.record_id, event.op) for event in world.events]


async def test_a_delta_link_that_is_forgotten_means_that_all_is_read_again_and_the_deleted_are_looked_for() -> None:
    async with opened(DIALECT, reading("groups", "devices")) as world:
        await world.run_once()
        gone = world.store.rows("groups")[0]
        world.store.delete("groups", gone.id)
        world.store.forget_kept()
        assert (await world.run_once()).complete
        assert 410 in {serving.answer.status for serving in world.hostility.served}
        await world.settle()
        assert [event.record_id for event in world.events if event.op == "delete"] == [gone.id]
        check(world)


async def test_a_tenant_without_premium_licences_has_no_sign_ins_and_that_is_no_failure() -> None:
    def refusing(store: Store, request: Request) -> Answer:
        if request.path.endswith("/signIns"):
            code = "Authentication_RequestFromNonPremiumTenantOrB2CTenant"
            body = {"error": {"code": code, "message": "Neither tenant is B2C or tenant doesn't have premium license"}}
            return Answer(403, msgspec.json.encode(body), {"Content-Type": "application/json"})
        return DIALECT.answer(store, request)

    async with opened(replace(DIALECT, answer=refusing), reading("sign_ins", "teams")) as world:
        summary = await world.run_once()
        assert not summary.failed
        assert {event.endpoint for event in world.events} == {"teams"}


async def test_one_credential_reads_a_partners_customer_with_a_token_of_that_customers_tenant() -> None:
    async with opened(DIALECT, reading("teams", "domains")) as world:
        customer = world.store.rows("customers")[0]
        row = {"company_name": "Fabrikam", "enabled": True, "status": "ok", "account_id": customer.raw_id}
        row |= {"secret": NAMES.secret(OURS, "microsoft_365"), "partner": "microsoft_365"}
        row |= {"created_at": world.clock.now(), "updated_at": world.clock.now()}
        key = {"tenant_id": OURS, "service": "microsoft_365:fabrikam"}
        await world.rows.write(NAMES.tenant_services, key, row)
        assert (await world.run_once()).complete
        tokens = {urlsplit(request.url).path for request in world.wire.sent if LOGIN in request.url}
        assert tokens == {f"/{tenant}/oauth2/v2.0/token" for tenant in (TENANT, customer.raw_id)}
        there = [event.record_id for event in world.events if event.service == "microsoft_365:fabrikam"]
        assert len(there) == sum(len(world.store.rows(name)) for name in ("teams", "domains"))


async def test_every_customer_of_a_partner_becomes_a_service_of_its_own() -> None:
    async with opened(DIALECT, reading("teams")) as world:
        key = {"tenant_id": OURS, "service": "microsoft_365"}
        await world.rows.write(NAMES.tenant_services, key, {"connect_all": True})
        worker = world.worker()
        await world.clock.sleep(300)
        await worker.stop()
        services = {event.service for event in world.events}
        assert len(services) == 1 + len(world.store.rows("customers"))
        assert all(name == "microsoft_365" or name.startswith("microsoft_365:") for name in services)


async def test_every_answer_and_every_request_is_as_described() -> None:
    """`@removed` is an annotation, which the types do not name (delta-query-overview)."""
    found = await held_against("microsoft_365", "microsoft_365.json", prefix="/v1.0")
    assert found.answers >= 40
    singles = {f"GET {BASE}{listing.path}" for listing in LISTINGS}  # whose single records are not described
    unknown = {name for name in found.unknown if name.rpartition("/")[0] not in singles}
    unknown = {name for name in unknown if not name.startswith(f"GET {BASE}teams/")}  # nor are members
    assert unknown == {f"POST /{TENANT}/oauth2/v2.0/token"}
    kinds = ("users", "groups", "devices", "contacts")
    assert set(found.differences()) <= {f"answer /{kind}/delta() value.*.@removed" for kind in kinds}


# -- the dialect ------------------------------------------------------------------------------------------------------
def test_a_round_of_changes_shows_each_as_it_is_now_and_who_was_removed() -> None:
    store = vendor(12)
    link = last_page(store, "users/delta", "displayName,jobTitle")["@odata.deltaLink"]
    assert followed(store, link)["value"][0].keys() <= {"id", "displayName", "jobTitle"}  # a replay of the last change
    kept, gone = store.rows("users")[:2]
    store.update("users", kept.id)
    store.delete("users", gone.id)
    page = followed(store, link)
    assert {"id": gone.id, "@removed": {"reason": "changed"}} in page["value"]
    assert kept.id in {one["id"] for one in page["value"]}
    minimal = followed(store, link, prefer="return=minimal")
    assert max(len(one) for one in minimal["value"] if "@removed" not in one) == 2


def test_a_page_of_changes_may_be_empty_and_more_follow() -> None:
    store = vendor()
    link = last_page(store, "devices/delta", "displayName")["@odata.deltaLink"]
    store.update("devices", store.rows("devices")[0].id)
    page = followed(store, link)
    assert page["value"] == []
    assert followed(store, page["@odata.nextLink"])["value"] != []


def test_changes_of_members_come_only_where_no_properties_are_selected() -> None:
    store = vendor()
    assert "members@delta" in told(asked(store, "groups/delta"))["value"][0]
    assert "members@delta" not in told(asked(store, "groups/delta", {"$select": "displayName"}))["value"][0]


def test_a_filter_holds_and_the_newest_sign_ins_come_first() -> None:
    store = vendor(9)
    rows = sorted(store.rows("sign_ins"), key=lambda row: row.created, reverse=True)
    since = graph_time(rows[4].created)
    page = told(asked(store, "auditLogs/signIns", {"$filter": f"createdDateTime ge {since}", "$top": "3"}))
    shown = page["value"] + followed(store, page["@odata.nextLink"])["value"]
    assert [one["id"] for one in shown] == [row.id for row in rows[:5]]


@pytest.mark.parametrize(
    ("path", "query", "status", "code"),
    [
        ("users/delta", {"$top": "5"}, 400, "BadRequest"),
        ("users", {"$top": "1000"}, 400, "BadRequest"),
        ("security/incidents", {"$top": "51"}, 400, "BadRequest"),
        ("subscribedSkus", {"$top": "5"}, 400, "BadRequest"),
        ("teams", {"$filter": "id eq '1'"}, 400, "BadRequest"),
        ("users/delta", {"$deltatoken": "forgotten"}, 410, "resyncRequired"),
        ("users/no-such-user", {}, 404, "Request_ResourceNotFound"),
        ("nothing", {}, 400, "BadRequest"),
    ],
)
def test_what_the_vendor_refuses_is_refused(path: str, query: dict[str, str], status: int, code: str) -> None:
    answer = asked(vendor(), path, query)
    assert (answer.status, told(answer)["error"]["code"]) == (status, code)
    assert ("Location" in answer.headers) == (status == 410)


def test_reports_are_shown_five_times_in_ten_seconds() -> None:
    store = vendor()
    statuses = [asked(store, "auditLogs/signIns").status for _ in range(6)]
    assert statuses == [200] * 5 + [429]


@pytest.mark.parametrize(
    ("tenant", "secret", "scope", "status"),
    [
        (TENANT, CLIENT_SECRET, SCOPE, 200),
        (TENANT, "wrong", SCOPE, 401),
        (TENANT, CLIENT_SECRET, "User.Read", 401),
        ("nobody", CLIENT_SECRET, SCOPE, 401),
    ],
)
def test_a_token_is_given_to_the_application_of_a_tenant(tenant: str, secret: str, scope: str, status: int) -> None:
    form = f"grant_type=client_credentials&client_id={CLIENT_ID}&client_secret={quote(secret)}&scope={quote(scope)}"
    request = Request("POST", f"https://{LOGIN}", f"/{tenant}/oauth2/v2.0/token", {}, {}, NOW, form.encode())
    assert answered(DIALECT, vendor(), request).status == status


def test_nobody_is_let_in_without_a_token() -> None:
    with pytest.raises(RefusedError):
        DIALECT.answer(vendor(), Request("GET", f"https://{GRAPH}", "/v1.0/users", {}, {}, NOW))
