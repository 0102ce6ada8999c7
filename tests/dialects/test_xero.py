"""The real extractor reads Xero's dialect over HTTP; and the dialect itself, where a reader could be misled."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from services.contracts.integration import Integration
from services.sandbox.vendors.access import tokens_of
from services.sandbox.vendors.dialect import Answer, Request, answered
from services.sandbox.vendors.store import Store
from services.sandbox.vendors.xero import (
    ACCOUNTING,
    API_HOST,
    CLIENT_ID,
    CLIENT_SECRET,
    DIALECT,
    IDENTITY_HOST,
    ORGANISATION_ID,
    OTHER_ID,
    PROJECTS,
    net_time,
)
from tests.dialects.described import held_against
from tests.dialects.every import integration_of
from tests.dialects.oracle import Oracle
from tests.dialects.seeds import part_of, quickened
from tests.dialects.world import World, opened

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
ENVELOPE = {"Id", "Status", "ProviderName", "DateTimeUTC"}


def reading(*endpoints: str) -> Integration:
    """The integration with small pages: these endpoints and what they need, or all."""
    integration = integration_of("xero")
    return quickened(part_of(integration, Random(0), endpoints or tuple(integration.endpoints)), Random(0))


def check(world: World) -> None:
    oracle = Oracle(world.integration, world.store, world.hostility.served, world.rough)
    assert oracle.judge(world.events, world.arrivals).findings == []
    assert oracle.check_contents(world.events) == []
    assert world.vendor.astray == []


def payloads(world: World, *endpoints: str) -> list[bytes]:
    """What was published, of these endpoints or all."""
    found = [event for event in world.events if not endpoints or event.endpoint in endpoints]
    return [bytes(event.payload) for event in found if event.payload is not msgspec.UNSET]


def vendor(count: int = 6) -> Store:
    store = Store(DIALECT.collections, NOW, Random(1))
    store.populate(dict.fromkeys(store.collections, count))
    return store


def asked(store: Store, path: str, *, headers: dict[str, str] | None = None, **query: str) -> Answer:
    """What the dialect answers to an app that is connected."""
    told = {"authorization": f"Bearer {tokens_of(store).issue(60)}", "xero-tenant-id": ORGANISATION_ID}
    request = Request("GET", f"https://{API_HOST}", path, query, {**told, **(headers or {})}, store.now)
    return answered(DIALECT, store, request)


def listed(answer: Answer, name: str) -> list[Any]:
    assert answer.status == 200, answer
    found = msgspec.json.decode(answer.body)[name]
    assert isinstance(found, list)
    return found


# -- the extractor reads it -------------------------------------------------------------------------------------------
async def test_every_record_arrives_once_and_so_does_an_update_a_deletion_and_a_late_record() -> None:
    async with opened(DIALECT, reading()) as world:
        assert (await world.run_once()).complete
        assert len(world.events) == sum(len(world.store.rows(name)) for name in world.store.collections)
        invoices, items, entries = (world.store.rows(name) for name in ("invoices", "items", "time_entries"))
        world.store.update("invoices", invoices[0].id)
        world.store.delete("invoices", invoices[1].id)
        world.store.delete("items", items[0].id)
        world.store.update("time_entries", entries[0].id)
        late = world.store.create("invoices", late_s=90.0)
        await world.settle()
        check(world)
        ops = [(event.record_id, event.op) for event in world.events]
        assert {(gone.id, "delete") for gone in (invoices[1], items[0])} <= set(ops)
        assert ops.count((late.id, "upsert")) == 1
        assert [ops.count((row.id, "upsert")) for row in (invoices[0], entries[0])] == [2, 2]


async def test_a_deletion_bears_the_time_the_vendor_says() -> None:
    async with opened(DIALECT, reading("quotes")) as world:
        await world.run_once()
        gone = world.store.rows("quotes")[0]
        await world.clock.sleep(7)
        world.store.delete("quotes", gone.id)
        deleted_at = world.store.graves("quotes")[0].updated
        await world.clock.sleep(120)
        await world.run_once()
        (deletion,) = [event for event in world.events if event.op == "delete"]
        assert (deletion.record_id, datetime.fromisoformat(deletion.effective_at)) == (gone.id, deleted_at)


async def test_time_is_read_again_below_projects_that_were_worked_on_and_no_others() -> None:
    """A time entry stamps nothing; its project's minutesLogged tells."""
    async with opened(DIALECT, reading("time_entries")) as world:
        for _ in range(2):  # once more, for what became visible meanwhile
            await world.run_once(sweep=False)
            await world.clock.sleep(5)
        project = world.store.rows("projects")[0]
        made = world.store.create("time_entries", project.id, duration=77)
        before = len(world.wire.sent)
        await world.clock.sleep(160)
        await world.run_once(sweep=False)
        paths = {request.url.partition(PROJECTS)[2] for request in world.wire.sent[before:]}
        assert {path for path in paths if path.endswith("/Time")} == {f"Projects/{project.raw_id}/Time"}
        assert made.id in {event.record_id for event in world.events}


async def test_the_organisation_is_the_named_one_not_the_first() -> None:
    async with opened(DIALECT, reading("users")) as world:
        assert (await world.run_once()).complete
        told = {serving.request.headers.get("xero-tenant-id") for serving in world.hostility.served}
        assert told == {None, ORGANISATION_ID}


async def test_an_organisation_that_is_not_connected_asks_for_a_person() -> None:
    async with opened(DIALECT, reading("users")) as world:
        await world.connect(organisation="Nobody Ltd")
        await world.run_once()
        assert (await world.status())["status"] == "reconnect needed"
        assert world.events == []


async def test_a_custom_connection_needs_no_refresh_token() -> None:
    typed = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    async with opened(replace(DIALECT, credentials=lambda _: typed), reading("users")) as world:
        await world.connect(organisation="demo company (global)")
        assert (await world.run_once()).complete
        check(world)


async def test_journals_that_the_app_may_not_read_are_not_available_and_all_else_goes_on() -> None:
    async with opened(DIALECT, reading("journals", "users", "items")) as world:
        world.hostility.begin(43, ["journals"])
        summary = await world.run_once()
        assert {one.endpoint: one.code for one in summary.endpoints if one.code} == {"journals": "not_available"}
        assert summary.complete
        world.hostility.end(43)
        world.hostility.begin(43, ["users"])
        await world.clock.sleep(160)
        failed = {failed.endpoint: failed for failed in (await world.run_once()).failed}
        assert failed["users"].code == "forbidden"
        assert "accounting.settings.read" in failed["users"].what
        assert {event.endpoint for event in world.events} >= {"users", "items"}


async def test_no_bank_account_leaves_the_extractor() -> None:
    async with opened(
        DIALECT, reading("contacts", "accounts", "bank_transactions", "bank_transfers", "payments")
    ) as world:
        await world.run_once()
        published = b"".join(payloads(world))
        assert b"BankAccountNumber" in b"".join(serving.answer.body for serving in world.hostility.served)
        assert b"BankAccountNumber" not in published
        assert b"BankAccountDetails" not in published


async def test_line_items_are_read() -> None:
    async with opened(DIALECT, reading("invoices")) as world:
        await world.run_once()
        assert all(msgspec.json.decode(payload)["LineItems"] for payload in payloads(world))


async def test_every_answer_and_every_request_is_as_described() -> None:
    """The description leaves out what every answer begins with (requests-and-responses shows it)."""
    found = await held_against("xero", "xero.json")
    assert found.answers >= 100
    assert set(found.unknown) == {"POST /connect/token", "GET /connections"}
    assert {difference.rpartition(" ")[2] for difference in found.differences()} <= ENVELOPE


# -- the dialect ------------------------------------------------------------------------------------------------------
def test_a_list_without_pages_has_no_line_items() -> None:
    store = vendor()
    assert all(one["LineItems"] == [] for one in listed(asked(store, f"{ACCOUNTING}Invoices"), "Invoices"))
    assert all(one["LineItems"] for one in listed(asked(store, f"{ACCOUNTING}Invoices", page="1"), "Invoices"))


def test_archived_contacts_are_shown_to_who_asks_for_them() -> None:
    store = vendor(12)
    plain = listed(asked(store, f"{ACCOUNTING}Contacts"), "Contacts")
    all_of_them = listed(asked(store, f"{ACCOUNTING}Contacts", includeArchived="true"), "Contacts")
    assert {one["ContactStatus"] for one in plain} == {"ACTIVE"}
    assert len(all_of_them) == 12 > len(plain)


def test_what_changed_is_told_to_the_second() -> None:
    store = vendor()
    row = sorted(store.rows("items"), key=lambda row: row.updated)[3]
    for at, found in ((row.updated - timedelta(seconds=1), True), (row.updated, False)):
        since = {"if-modified-since": at.strftime("%Y-%m-%dT%H:%M:%S")}
        items = listed(asked(store, f"{ACCOUNTING}Items", headers=since), "Items")
        assert (row.raw_id in {item["ItemID"] for item in items}) is found
    assert asked(store, f"{ACCOUNTING}Items", headers={"if-modified-since": "yesterday"}).status == 400


def test_what_was_deleted_is_shown_with_its_status_or_not_at_all() -> None:
    store = vendor()
    for name, collection in (("Invoices", "invoices"), ("Items", "items"), ("BankTransfers", "bank_transfers")):
        gone = store.rows(collection)[0]
        store.delete(collection, gone.id)
        plain = listed(asked(store, ACCOUNTING + name), name)
        wide = listed(asked(store, ACCOUNTING + name, includeDeleted="true"), name)
        shown = [[one["Status"] for one in found if gone.raw_id in one.values()] for found in (plain, wide)]
        assert shown == {"Invoices": [["DELETED"]] * 2, "Items": [[], []], "BankTransfers": [[], ["DELETED"]]}[name]


def test_journals_are_those_with_a_greater_number() -> None:
    store = vendor()
    numbers = [one["JournalNumber"] for one in listed(asked(store, f"{ACCOUNTING}Journals", offset="6"), "Journals")]
    assert numbers == sorted(numbers)
    assert min(numbers) == 9


def test_a_project_knows_how_long_people_worked_on_it() -> None:
    store = vendor()
    project = store.rows("projects")[0]

    def minutes() -> int:
        projects = listed(asked(store, f"{PROJECTS}Projects"), "items")
        return sum(one["minutesLogged"] for one in projects if one["projectId"] == project.raw_id)

    before = minutes()
    store.create("time_entries", project.id, duration=77)
    assert minutes() == before + 77


def test_times_are_milliseconds_since_1970() -> None:
    assert net_time(datetime(2019, 11, 14, 18, 10, 38, 314_000, tzinfo=UTC)) == "/Date(1573755038314+0000)/"


@pytest.mark.parametrize("organisation", [OTHER_ID, ""])
def test_another_organisation_is_refused(organisation: str) -> None:
    answer = asked(vendor(), f"{ACCOUNTING}Users", headers={"xero-tenant-id": organisation})
    assert (answer.status, msgspec.json.decode(answer.body)["Detail"]) == (403, "AuthenticationUnsuccessful")


def test_an_expired_token_and_a_wrong_client_are_refused() -> None:
    store = vendor()
    answer = asked(store, f"{ACCOUNTING}Users", headers={"authorization": "Bearer old"})
    assert (answer.status, msgspec.json.decode(answer.body)["Detail"][:12]) == (401, "TokenExpired")
    form = b"grant_type=refresh_token&client_id=x&client_secret=y&refresh_token=z"
    token = answered(DIALECT, store, Request("POST", f"https://{IDENTITY_HOST}", "/connect/token", {}, {}, NOW, form))
    assert (token.status, msgspec.json.decode(token.body)) == (400, {"error": "invalid_grant"})


def test_a_refresh_token_serves_once_and_half_an_hour_more() -> None:
    store = vendor()
    first = tokens_of(store).issue_refresh()
    form = (
        f"grant_type=refresh_token&client_id={CLIENT_ID}&client_secret={CLIENT_SECRET}&refresh_token={first}".encode()
    )

    def redeemed(minutes: int) -> Answer:
        at = NOW + timedelta(minutes=minutes)
        return answered(DIALECT, store, Request("POST", f"https://{IDENTITY_HOST}", "/connect/token", {}, {}, at, form))

    assert [redeemed(minutes).status for minutes in (0, 29, 31)] == [200, 200, 400]


def test_the_sixty_first_call_of_a_minute_is_told_to_wait() -> None:
    store = vendor()
    answers = [asked(store, f"{ACCOUNTING}Users") for _ in range(61)]
    assert [answers[0].headers["X-MinLimit-Remaining"], answers[59].headers["X-MinLimit-Remaining"]] == ["59", "0"]
    assert (answers[60].status, answers[60].headers["X-Rate-Limit-Problem"]) == (429, "minute")
    assert 0 < int(answers[60].headers["Retry-After"]) <= 60


def test_an_unknown_order_filter_page_or_path_is_refused() -> None:
    store = vendor()
    assert asked(store, f"{ACCOUNTING}Invoices", order="Nothing").status == 400
    assert asked(store, f"{ACCOUNTING}Invoices", where='Status=="DRAFT"').status == 400
    assert asked(store, f"{ACCOUNTING}Invoices", page="0").status == 400
    assert asked(store, f"{PROJECTS}Projects", pageSize="501").status == 400
    assert [asked(store, path).status for path in (f"{ACCOUNTING}Nothing", f"{ACCOUNTING}Items/x", "/")] == [404] * 3
