"""The real extractor reads ServiceNow's dialect over HTTP; and the dialect itself, where a reader could be misled."""

from datetime import UTC, datetime
from random import Random
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from msgspec.structs import replace

from services.contracts.integration import Integration
from services.sandbox.vendors.access import tokens_of
from services.sandbox.vendors.dialect import Answer, Request, answered
from services.sandbox.vendors.servicenow import DIALECT, PASSWORD, USER, glide_time
from services.sandbox.vendors.store import Store
from tests.dialects.described import held_against
from tests.dialects.every import integration_of
from tests.dialects.oracle import Oracle
from tests.dialects.seeds import part_of, quickened
from tests.dialects.world import World, opened

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
HOST = "https://acme.service-now.com"
RECORD = {"sys_id", "sys_class_name", "sys_created_by", "sys_created_on", "sys_mod_count", "sys_updated_by"}


def reading(*endpoints: str) -> Integration:
    """The integration with small pages: these endpoints and what they need, or all."""
    integration = integration_of("servicenow")
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


def asked(store: Store, path: str, **query: str) -> Answer:
    """What the dialect answers to somebody who is signed in."""
    headers = {"authorization": f"Bearer {tokens_of(store).issue(60)}"}
    return answered(DIALECT, store, Request("GET", HOST, f"/api/now/table/{path}", query, headers, NOW))


def result(answer: Answer) -> Any:
    return msgspec.json.decode(answer.body)["result"]


# -- the extractor reads it -------------------------------------------------------------------------------------------
async def test_every_record_arrives_once_and_so_does_an_update_a_deletion_and_a_late_record() -> None:
    async with opened(DIALECT, reading()) as world:
        assert (await world.run_once()).complete
        records = sum(len(world.store.rows(name)) for name in world.store.collections)
        graves = [event for event in world.events if event.endpoint == "deleted_records"]
        assert len(world.events) - len(graves) == records
        incidents = world.store.rows("incidents")
        world.store.update("incidents", incidents[0].id)
        world.store.delete("incidents", incidents[1].id)
        world.store.delete("configuration_items", world.store.rows("configuration_items")[0].id)
        late = world.store.create("incidents", late_s=90.0)
        await world.settle()
        check(world)
        ops = [(event.record_id, event.op) for event in world.events if event.endpoint == "incidents"]
        assert (incidents[1].id, "delete") in ops
        assert ops.count((late.id, "upsert")) == 1
        assert ops.count((incidents[0].id, "upsert")) == 2


async def test_the_audit_tells_of_a_deletion_at_once_and_when_it_was() -> None:
    async with opened(DIALECT, reading("incidents")) as world:
        await world.run_once()
        gone = world.store.rows("incidents")[0]
        await world.clock.sleep(7)
        world.store.delete("incidents", gone.id)
        deleted_at = glide_time(world.store.now)
        await world.clock.sleep(20)
        await world.run_once()
        (deletion,) = [event for event in world.events if event.op == "delete"]
        assert (deletion.record_id, deletion.effective_at[:19].replace("T", " ")) == (gone.id, deleted_at)


async def test_no_password_leaves_the_extractor() -> None:
    async with opened(DIALECT, reading("users", "customer_contacts", "incidents")) as world:
        await world.run_once()
        world.store.delete("users", world.store.rows("users")[0].id)
        await world.settle()
        shown = b"".join(serving.answer.body for serving in world.hostility.served)
        published = b"".join(bytes(event.payload) for event in world.events if event.payload is not msgspec.UNSET)
        assert b"user_password" in shown
        assert b"<user_password>" in shown
        assert b"user_password" not in published


async def test_a_user_with_a_password_is_let_in_as_well_as_an_oauth_client() -> None:
    typed = {"instance_url": HOST, "username": USER, "password": PASSWORD}
    async with opened(replace(DIALECT, credentials=lambda _: typed), reading("groups")) as world:
        assert (await world.run_once()).complete
        assert tokens_of(world.store).issued == 0
        check(world)


async def test_a_table_that_the_instance_does_not_have_is_skipped_quietly() -> None:
    integration = reading("groups", "alerts")
    alerts = replace(integration.endpoints["alerts"], path="table/em_alert_missing")
    async with opened(DIALECT, replace(integration, endpoints={**integration.endpoints, "alerts": alerts})) as world:
        summary = await world.run_once()
        assert summary.complete
        assert {event.endpoint for event in world.events} - {"deleted_records"} == {"groups"}


async def test_every_answer_and_every_request_is_as_described() -> None:
    """The description shows `sysparm_display_value=false`: with `all` every field is an object (Table API)."""
    found = await held_against("servicenow", "servicenow.json", prefix="/api/now")
    assert found.answers >= 100
    assert set(found.unknown) == {"POST /oauth_token.do"}
    fields = {name.partition(" result.*.")[2].partition(" ")[0] for name in found.differences()}
    assert fields <= {*RECORD, "sys_updated_on"}


# -- the dialect ------------------------------------------------------------------------------------------------------
def test_conditions_are_joined_and_rows_sorted_as_the_query_says() -> None:
    store = vendor()
    rows = sorted(store.rows("incidents"), key=lambda row: row.id)
    found = result(asked(store, "incident", sysparm_query=f"sys_id>{rows[2].id}^ORDERBYsys_id", sysparm_limit="2"))
    assert [one["sys_id"] for one in found] == [row.id for row in rows[3 : 3 + len(found)]]
    since = sorted(glide_time(row.updated) for row in rows)[3]
    found = result(asked(store, "incident", sysparm_query=f"sys_updated_on>={since}"))
    assert {one["sys_id"] for one in found} == {row.id for row in rows if glide_time(row.updated) >= since}
    either = f"sys_id={rows[0].id}^ORsys_id={rows[1].id}"
    assert len(result(asked(store, "incident", sysparm_query=either))) == 2
    assert result(asked(store, "incident", sysparm_query="sys_idISEMPTY")) == []


def test_a_condition_on_an_unknown_field_is_dropped_and_all_is_shown() -> None:
    store = vendor()
    assert len(result(asked(store, "incident", sysparm_query="no_such_field=1"))) == 6


def test_a_list_shows_the_records_of_child_tables_unless_it_is_told_not_to() -> None:
    store = vendor()
    assert len(result(asked(store, "core_company"))) == 12
    assert len(result(asked(store, "core_company", sysparm_query="sys_class_name!=customer_account"))) == 6


def test_a_field_is_shown_as_its_value_its_label_or_both() -> None:
    store = vendor()
    sys_id = store.rows("incidents")[0].id
    for mode, shown in (("false", str), ("true", str), ("all", dict)):
        found = result(asked(store, f"incident/{sys_id}", sysparm_display_value=mode, sysparm_fields="priority,sys_id"))
        assert set(found) == {"priority", "sys_id"}
        assert isinstance(found["priority"], shown)


def test_a_page_may_be_short_though_more_follow() -> None:
    store = vendor(40)
    sizes, after = [], "0"
    while found := result(
        asked(
            store, "incident", sysparm_query=f"sys_id>{after}^ORDERBYsys_id", sysparm_limit="4", sysparm_fields="sys_id"
        )
    ):
        sizes.append(len(found))
        after = found[-1]["sys_id"]
    assert sum(sizes) == 40
    assert min(sizes[:-1]) < 4


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        ("no_such_table", 400, "Invalid table no_such_table"),
        (f"incident/{'0' * 32}", 404, "No Record found"),
    ],
)
def test_what_is_not_there_is_told_in_the_vendors_shape(path: str, status: int, message: str) -> None:
    answer = asked(vendor(), path)
    told = msgspec.json.decode(answer.body)
    assert (answer.status, told["error"]["message"], told["status"]) == (status, message, "failure")


def test_wrong_credentials_are_refused() -> None:
    store = vendor()
    basic = Request("GET", HOST, "/api/now/table/incident", {}, {"authorization": "Basic eDp5"}, NOW)
    assert answered(DIALECT, store, basic).status == 401
    form = f"grant_type=client_credentials&client_id=x&client_secret={quote('y')}".encode()
    token = answered(DIALECT, store, Request("POST", HOST, "/oauth_token.do", {}, {}, NOW, form))
    assert (token.status, msgspec.json.decode(token.body)["error"]) == (401, "invalid_client")
