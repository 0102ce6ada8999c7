"""The real extractor reads Salesforce's dialect over HTTP; and the dialect itself, where a reader could be misled."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from msgspec.structs import replace

from services.contracts.integration import Integration
from services.sandbox.vendors.access import PublicKey, tokens_of
from services.sandbox.vendors.dialect import Answer, Request, answered
from services.sandbox.vendors.salesforce import (
    CLIENT_ID,
    CLIENT_SECRET,
    DATA,
    DIALECT,
    INSTANCE_HOST,
    KEY_FACT,
    LOGIN_HOST,
    USERNAME,
)
from services.sandbox.vendors.store import Store
from tests.dialects.described import held_against
from tests.dialects.every import integration_of
from tests.dialects.oracle import Oracle
from tests.dialects.seeds import part_of, quickened
from tests.dialects.world import World, opened

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
CONNECTED = {"login_url": f"https://{LOGIN_HOST}", "client_id": CLIENT_ID}


def reading(*endpoints: str) -> Integration:
    """The integration with small pages: these endpoints and what they need, or all."""
    integration = integration_of("salesforce")
    return quickened(part_of(integration, Random(0), endpoints or tuple(integration.endpoints)), Random(0))


def check(world: World) -> None:
    oracle = Oracle(world.integration, world.store, world.hostility.served, world.rough)
    assert oracle.judge(world.events, world.arrivals).findings == []
    assert world.vendor.astray == []


def payload(world: World, endpoint: str, record_id: str) -> Any:
    """The newest observation of a record."""
    found = [event for event in world.events if (event.endpoint, event.record_id) == (endpoint, record_id)]
    assert found[-1].payload is not msgspec.UNSET
    return msgspec.json.decode(found[-1].payload)


def vendor(count: int = 6) -> Store:
    store = Store(DIALECT.collections, NOW, Random(1))
    store.populate(dict.fromkeys(store.collections, count))
    return store


def asked(store: Store, path: str, **query: str) -> Answer:
    """What the dialect answers to somebody who is signed in."""
    headers = {"authorization": f"Bearer {tokens_of(store).issue(60)}"}
    return answered(DIALECT, store, Request("GET", f"https://{INSTANCE_HOST}", DATA + path, query, headers, store.now))


def records(answer: Answer) -> list[Any]:
    assert answer.status == 200, answer.body
    found = msgspec.json.decode(answer.body)["records"]
    assert isinstance(found, list)
    return found


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, msgspec.json.decode(answer.body)[0]["errorCode"]


# -- the extractor reads it -------------------------------------------------------------------------------------------
async def test_every_record_arrives_once_and_so_does_an_update_a_deletion_and_a_late_record() -> None:
    async with opened(DIALECT, reading()) as world:
        assert (await world.run_once()).complete
        assert len(world.events) == sum(len(world.store.rows(name)) for name in world.store.collections)
        cases, accounts = world.store.rows("cases"), world.store.rows("accounts")
        world.store.update("cases", cases[0].id)
        world.store.delete("cases", cases[1].id)
        world.store.merge("accounts", accounts[0].id, accounts[1].id)
        late = world.store.create("cases", late_s=90.0)
        await world.settle()
        check(world)
        ops = [(event.record_id, event.op) for event in world.events if event.endpoint in ("cases", "accounts")]
        assert (cases[1].id, "delete") in ops
        assert (accounts[0].id, "delete") in ops
        assert ops.count((late.id, "upsert")) == 1
        assert ops.count((cases[0].id, "upsert")) == 2


async def test_what_was_emptied_from_the_recycle_bin_is_found_by_the_sweep() -> None:
    async with opened(DIALECT, reading("tasks")) as world:
        await world.run_once()
        for row in world.store.rows("tasks"):
            world.store.delete("tasks", row.id)
            if not records(asked(world.store, "queryAll", q=f"SELECT Id FROM Task WHERE Id = '{row.id}'")):
                break
        else:
            pytest.fail("every deleted task is still in the bin")
        await world.settle()
        check(world)
        assert (row.id, "delete") in [(event.record_id, event.op) for event in world.events]


async def test_fields_that_do_not_fit_into_one_request_come_joined() -> None:
    async with opened(DIALECT, reading("campaigns")) as world:
        await world.run_once()
        found = payload(world, "campaigns", world.store.rows("campaigns")[0].id)
        assert {f"Score_{number:03d}__c" for number in range(205)} <= set(found)
        lists = [one.request.query["q"] for one in world.hostility.served if one.request.path.endswith("/queryAll")]
        assert max(len(text.split(",")) for text in lists) <= 200


async def test_a_page_that_the_vendor_cuts_short_does_not_end_the_walk() -> None:
    async with opened(DIALECT, reading("contacts")) as world:
        world.store.page_sizes["batch:contacts"] = 2
        await world.run_once()
        check(world)


async def test_names_of_other_records_come_along() -> None:
    async with opened(DIALECT, reading("cases", "accounts", "users")) as world:
        world.store.update("cases", world.store.rows("cases")[0].id)
        await world.run_once()
        for row in world.store.rows("cases"):
            found = payload(world, "cases", row.id)
            account = world.store.find("accounts", str(row.content["AccountId"]))
            assert (found["Account"] or {}).get("Name") == (account.content["Name"] if account is not None else None)
            owner = str(row.content["OwnerId"])[:3]
            assert (found["Owner"] or {}).get("Type") == {"005": "User", "00G": "Queue"}.get(owner)


async def test_a_refresh_token_serves_again_and_again() -> None:
    async with opened(DIALECT, reading("groups")) as world:
        assert (await world.run_once()).complete
        tokens_of(world.store).expire()
        await world.clock.sleep(10)
        assert (await world.run_once()).complete
        assert tokens_of(world.store).refreshes == 2
        check(world)


async def test_an_app_is_let_in_without_a_user_by_its_own_secret() -> None:
    typed = CONNECTED | {"client_secret": CLIENT_SECRET}
    async with opened(replace(DIALECT, credentials=lambda _: typed), reading("groups")) as world:
        assert (await world.run_once()).complete
        assert (tokens_of(world.store).refreshes, tokens_of(world.store).issued) == (0, 1)
        check(world)


async def test_an_assertion_signed_with_the_private_key_is_exchanged_for_a_session() -> None:
    key = rsa.generate_private_key(public_exponent=65_537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    typed = CONNECTED | {"username": USERNAME, "private_key": pem}
    async with opened(replace(DIALECT, credentials=lambda _: typed), reading("groups")) as world:
        world.store.facts[KEY_FACT] = PublicKey(key.public_key().public_numbers().n)
        assert (await world.run_once()).complete
        check(world)


async def test_half_of_the_days_quota_is_left_to_other_tools() -> None:
    async with opened(DIALECT, reading("groups")) as world:
        world.store.facts["limit:day"] = 40
        worker = world.worker()
        await world.clock.sleep(3_600)
        await worker.stop()
        counted = [one.answer.status for one in world.hostility.served if one.request.path.startswith(DATA)]
        assert set(counted) == {200}
        assert 20 <= len(counted) <= 22  # once in a while one asks whether there is more by now


async def test_an_object_that_may_not_be_seen_names_its_permission_and_orders_are_skipped() -> None:
    integration = reading("accounts", "orders")
    for name, told in (("accounts", [("accounts", "forbidden")]), ("orders", [])):
        hidden = replace(DIALECT, answer=_without)
        part = replace(integration, endpoints={name: integration.endpoints[name]})
        async with opened(hidden, part) as world:
            summary = await world.run_once()
            assert [(failed.endpoint, failed.code) for failed in summary.failed] == told
            assert world.events == []


def _without(store: Store, request: Request) -> Answer:
    """An org whose integration user sees neither accounts nor orders."""
    if request.path.startswith((DATA + "sobjects/Account/", DATA + "sobjects/Order/")):
        return DIALECT.error("not_found", request.path, None)
    return DIALECT.answer(store, request)


async def test_every_answer_and_every_request_is_as_described() -> None:
    """The description is of 2013 (API 27.0) and leaves relationships out, and has no customer's own fields."""
    found = await held_against("salesforce", "salesforce.json")
    assert found.answers >= 100
    assert set(found.unknown) == {"POST /services/oauth2/token"}
    newer = {"HasOptedOutOfEmail", "OrderId", "OrderNumber", "PoNumber", "TotalAmount"}
    above = "Account Campaign Contact Contract CreatedBy CustomerSigned LastModifiedBy Manager Opportunity Order Owner "
    above += "Parent PricebookEntry Product2 Profile ReportsTo UserRole What Who"
    names = {text.partition(" records.*.")[2].partition(".")[0] for text in found.differences()}
    assert {name for name in names if not name.endswith("__c")} <= newer | set(above.split())


# -- the dialect ------------------------------------------------------------------------------------------------------
def test_rows_pass_the_filter_and_come_in_the_order_that_is_asked_for() -> None:
    store = vendor()
    ids = sorted((row.id for row in store.rows("accounts")), key=str.lower)
    where = f"SystemModstamp >= 2020-01-01T00:00:00Z AND Id > '{ids[1]}'"
    found = records(asked(store, "query", q=f"SELECT Id,Name FROM Account WHERE {where} ORDER BY Id LIMIT 3"))
    assert [one["Id"] for one in found] == ids[2:5]
    later = (NOW + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert records(asked(store, "query", q=f"SELECT Id FROM Account WHERE SystemModstamp >= {later}")) == []


def test_only_query_all_shows_deleted_and_merged_records() -> None:
    store = vendor(30)
    rows = store.rows("accounts")
    for loser in rows[1:20]:
        store.merge("accounts", loser.id, rows[0].id)
    assert len(records(asked(store, "query", q="SELECT Id FROM Account"))) == 11
    found = records(
        asked(store, "queryAll", q="SELECT Id,IsDeleted,MasterRecordId FROM Account WHERE IsDeleted = true")
    )
    assert 0 < len(found) < 19
    assert {one["MasterRecordId"] for one in found} == {rows[0].id}
    binned = found[0]["Id"]
    assert code(asked(store, f"sobjects/Account/{binned}", fields="Id")) == (404, "ENTITY_IS_DELETED")


def test_what_exceeds_a_batch_waits_behind_a_locator_that_is_forgotten() -> None:
    store = vendor()
    store.page_sizes["batch:accounts"] = 4
    first = msgspec.json.decode(asked(store, "query", q="SELECT Id FROM Account").body)
    assert (len(first["records"]), first["done"]) == (4, False)
    path = first["nextRecordsUrl"].removeprefix(DATA)
    rest = msgspec.json.decode(asked(store, path).body)
    assert (len(rest["records"]), rest["done"]) == (2, True)
    store.forget_kept()
    assert code(asked(store, path)) == (400, "INVALID_QUERY_LOCATOR")


@pytest.mark.parametrize(
    ("soql", "expected"),
    [
        ("SELECT Id FROM Invoice", (400, "INVALID_TYPE")),
        ("SELECT Id,NoSuchField FROM Account", (400, "INVALID_FIELD")),
        ("SELECT Id,NoSuch.Name FROM Account", (400, "INVALID_FIELD")),
        ("SELECT Id,id FROM Account", (400, "MALFORMED_QUERY")),
        ("SELECT Id FROM Account WHERE Id > 5", (400, "MALFORMED_QUERY")),
        ("SELECT Id FROM Account WHERE SystemModstamp > '2026-01-01T00:00:00Z'", (400, "MALFORMED_QUERY")),
        ("SELECT FROM Account", (400, "MALFORMED_QUERY")),
        (f"SELECT {'x' * 17_000} FROM Account", (414, "URI_TOO_LONG")),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused(soql: str, expected: tuple[int, str]) -> None:
    assert code(asked(vendor(), "query", q=soql)) == expected


def test_ids_differ_even_where_case_does_not_count() -> None:
    ids = [row.id for row in vendor(60).rows("contacts")]
    assert len({found.lower() for found in ids}) == 60
    assert {len(found) for found in ids} == {18}


def test_a_spent_quota_is_told_without_a_time_to_wait() -> None:
    store = vendor()
    store.facts["limit:day"] = 1
    first, second = (asked(store, "query", q="SELECT Id FROM Group") for _ in range(2))
    assert first.headers["Sforce-Limit-Info"] == "api-usage=1/1"
    assert code(second) == (403, "REQUEST_LIMIT_EXCEEDED")
    assert "Retry-After" not in second.headers


def test_wrong_credentials_are_refused() -> None:
    store = vendor()
    stranger = Request("GET", f"https://{INSTANCE_HOST}", DATA + "limits", {}, {"authorization": "Bearer x"}, NOW)
    assert code(answered(DIALECT, store, stranger)) == (401, "INVALID_SESSION_ID")
    form = f"grant_type=client_credentials&client_id={CLIENT_ID}&client_secret=wrong".encode()
    token = answered(
        DIALECT, store, Request("POST", f"https://{LOGIN_HOST}", "/services/oauth2/token", {}, {}, NOW, form)
    )
    assert (token.status, msgspec.json.decode(token.body)["error"]) == (400, "invalid_grant")
