"""The real extractor reads Autotask's dialect over HTTP; and the dialect itself, where a reader could be misled."""

from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from services.contracts.integration import Integration
from services.sandbox.vendors.autotask_psa import CODE, DIALECT, FRONT_HOST, SECRET, USER, ZONE_HOST, autotask_time
from services.sandbox.vendors.dialect import Answer, Request, answered
from services.sandbox.vendors.store import Store
from tests.dialects.described import held_against
from tests.dialects.every import integration_of
from tests.dialects.oracle import Oracle
from tests.dialects.seeds import part_of, quickened
from tests.dialects.world import World, opened

NOW = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)
HEADERS = {"username": USER, "secret": SECRET, "apiintegrationcode": CODE}


def reading(*endpoints: str) -> Integration:
    """The integration with small pages: these endpoints and what they need, or all."""
    integration = integration_of("autotask_psa")
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


def asked(store: Store, path: str, body: Any = None, **query: str) -> Answer:
    """What the zone answers to its API user: a POST where there is a body."""
    method = "GET" if body is None else "POST"
    url = f"/atservicesrest/V1.0/{path}"
    return answered(
        DIALECT, store, Request(method, f"https://{ZONE_HOST}", url, query, HEADERS, NOW, msgspec.json.encode(body))
    )


def told(answer: Answer) -> Any:
    return msgspec.json.decode(answer.body)


def ids(answer: Answer) -> list[int]:
    return [item["id"] for item in told(answer)["items"]]


def where(op: str, field: str, value: Any) -> dict[str, Any]:
    return {"Filter": [{"op": op, "field": field, "value": value}]}


# -- the extractor reads it -------------------------------------------------------------------------------------------
async def test_every_record_arrives_once_and_so_does_an_update_a_deletion_and_a_late_record() -> None:
    async with opened(DIALECT, reading()) as world:
        assert (await world.run_once()).complete
        records = sum(len(world.store.rows(name)) for name in world.store.collections)
        assert len(world.events) == records
        tickets = world.store.rows("tickets")
        world.store.update("tickets", tickets[0].id)
        world.store.delete("tickets", tickets[1].id)
        world.store.delete("contracts", world.store.rows("contracts")[0].id)
        late = world.store.create("tickets", late_s=90.0)
        await world.settle()
        check(world)
        ops = [(event.record_id, event.op) for event in world.events if event.endpoint == "tickets"]
        assert (tickets[1].id, "delete") in ops
        assert ops.count((late.id, "upsert")) == 1
        assert ops.count((tickets[0].id, "upsert")) == 2


async def test_the_log_of_deleted_tickets_tells_of_one_at_once_and_when_it_was() -> None:
    async with opened(DIALECT, reading("tickets")) as world:
        await world.run_once()
        gone = world.store.rows("tickets")[0]
        await world.clock.sleep(7)
        world.store.delete("tickets", gone.id)
        deleted_at = world.store.now
        await world.clock.sleep(20)
        await world.run_once()
        deletion = next(event for event in world.events if (event.endpoint, event.op) == ("tickets", "delete"))
        assert (deletion.record_id, deletion.effective_at[:22]) == (gone.id, autotask_time(deleted_at)[:22])


async def test_the_company_of_the_customer_itself_whose_id_is_0_is_read_too() -> None:
    async with opened(DIALECT, reading("companies")) as world:
        await world.run_once()
        assert "0" in {event.record_id for event in world.events}


async def test_a_deletion_that_no_log_tells_is_found_by_a_sweep_and_confirmed_by_a_count() -> None:
    async with opened(DIALECT, reading("time_entries")) as world:
        await world.run_once()
        gone = world.store.rows("time_entries")[0]
        world.store.delete("time_entries", gone.id)
        await world.settle()
        check(world)
        assert [event.record_id for event in world.events if event.op == "delete"] == [gone.id]
        counts = [one.request for one in world.hostility.served if one.request.path.endswith("/query/count")]
        asked_for = [msgspec.json.decode(request.query["search"]) for request in counts]
        assert {"filter": [{"op": "eq", "field": "id", "value": int(gone.id)}]} in asked_for


async def test_an_unknown_api_user_is_told_that_the_user_name_is_wrong() -> None:
    typed = {"username": "nobody@acme.com", "secret": SECRET, "integration_code": CODE}
    async with opened(replace(DIALECT, credentials=lambda _: typed), reading("billing_codes")) as world:
        await world.run_once()
        status = await world.status()
        assert status["status"] == "reconnect needed"
        assert "check the user name" in status["status_what"]


async def test_every_answer_and_every_request_is_as_described() -> None:
    """The description's fields are of 2020, their first letters lowered by rule (SOURCES.md)."""
    found = await held_against("autotask_psa", "autotask_psa.json", prefix="/atservicesrest")
    assert found.answers >= 100
    assert {path.partition("?")[0] for path in found.unknown} <= {"GET /atservicesrest/v1.0/zoneInformation"}
    assert (
        found.differences(
            but={
                "answer /V1.0/Contracts/query items.*.lastModifiedDateTime": "newer than the description",
                "answer /V1.0/Companies/query items.*.sicCode": "sICCode by rule",
            }
        )
        == []
    )


# -- the dialect ------------------------------------------------------------------------------------------------------
def test_who_asks_anybody_but_his_own_zone_is_not_known() -> None:
    store = vendor()
    zone = Request("GET", f"https://{FRONT_HOST}", "/atservicesrest/v1.0/zoneInformation", {"user": USER}, {}, NOW)
    assert told(answered(DIALECT, store, zone))["url"] == f"https://{ZONE_HOST}/atservicesrest/"
    unknown = answered(DIALECT, store, replace(zone, query={"user": "x"}))
    assert (unknown.status, told(unknown)) == (500, {"errors": ["Zone information could not be determined."]})
    elsewhere = replace(zone, path="/atservicesrest/v1.0/Tickets/query", headers=HEADERS)
    assert answered(DIALECT, store, elsewhere).status == 401
    wrong = replace(elsewhere, origin=f"https://{ZONE_HOST}", headers={**HEADERS, "secret": "x"})
    assert answered(DIALECT, store, wrong).status == 401


def test_a_page_is_sorted_by_id_and_cut_and_tells_where_the_next_one_is() -> None:
    store = vendor(7)
    first = told(asked(store, "Companies/query", {**where("gte", "id", 0), "MaxRecords": 3}))
    assert [item["id"] for item in first["items"]] == [0, 1, 2]
    assert first["pageDetails"]["count"] == 3
    following = first["pageDetails"]["nextPageUrl"]
    token = following.partition("paging=")[2]
    assert ids(asked(store, "Companies/query/next", paging=token)) == [3, 4, 5]
    last = told(asked(store, "Companies/query", where("gt", "id", 3)))
    assert ([item["id"] for item in last["items"]], last["pageDetails"]["nextPageUrl"]) == ([4, 5, 6], None)


def test_filters_are_evaluated_by_post_and_get_alike() -> None:
    store = vendor(12)
    rows = store.rows("companies")
    since = sorted(row.updated for row in rows)[5]
    late = sorted(row.raw_id for row in rows if row.updated >= since)
    condition = where("gte", "lastActivityDate", since.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
    assert ids(asked(store, "Companies/query", condition)) == late
    assert ids(asked(store, "Companies/query", search=msgspec.json.encode(condition).decode())) == late
    both = {"filter": [{"op": "or", "items": [*where("eq", "id", 1)["Filter"], *where("eq", "id", 4)["Filter"]]}]}
    assert ids(asked(store, "Companies/query", both)) == [1, 4]
    north = [row.raw_id for row in rows if row.content["userDefinedFields"][0]["value"] == "North"]
    defined = {"filter": [{"op": "eq", "field": "Region", "value": "North", "udf": True}]}
    assert ids(asked(store, "Companies/query", defined)) == north
    assert ids(asked(store, "Companies/query", where("in", "id", [2, 3, 99]))) == [2, 3]
    assert ids(asked(store, "Companies/query", where("exist", "id", None))) == [row.raw_id for row in rows]


def test_only_the_fields_that_were_asked_for_are_shown() -> None:
    found = told(asked(vendor(), "Companies/query", {**where("eq", "id", 2), "IncludeFields": ["id", "companyName"]}))
    assert set(found["items"][0]) == {"id", "companyName"}


def test_a_record_that_is_not_there_is_null_and_counts_nothing() -> None:
    store = vendor()
    assert told(asked(store, "Tickets/3"))["item"]["id"] == 3
    assert told(asked(store, "Tickets/99")) == {"item": None}
    assert told(asked(store, "Tickets/query/count", where("eq", "id", 99))) == {"queryCount": 0}
    assert told(asked(store, "Tickets/query/count", where("lte", "id", 4))) == {"queryCount": 4}


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("NoSuchEntity/query", where("gte", "id", 0), 404, "No HTTP resource"),
        ("Tickets/query", {"MaxRecords": 5}, 500, "A filter is required"),
        ("Tickets/query", {**where("gte", "id", 0), "MaxRecords": 501}, 500, "MaxRecords"),
        ("Tickets/query", where("gte", "noSuchField", 0), 500, "Unable to find noSuchField in the Tickets Entity"),
        ("Tickets/query", where("about", "id", 0), 500, "operator about"),
    ],
)
def test_what_cannot_be_answered_is_told_in_the_vendors_shape(path: str, body: Any, status: int, said: str) -> None:
    answer = asked(vendor(), path, body)
    assert answer.status == status
    assert said in told(answer)["errors"][0]


def test_requests_of_all_integrations_count_and_beyond_the_threshold_all_are_refused() -> None:
    store = vendor()
    store.facts["limit:hour"] = 3
    for _ in range(3):
        threshold = told(asked(store, "ThresholdInformation"))
    assert threshold["currentTimeframeRequestCount"] == 3
    assert asked(store, "ThresholdInformation").status == 429
    store.turn(NOW + timedelta(hours=1, seconds=1))


def test_times_have_no_zone_and_no_zeros_at_the_end() -> None:
    assert autotask_time(datetime(2026, 1, 31, 12, 0, 0, 250_000, UTC)) == "2026-01-31T12:00:00.25"
    assert autotask_time(datetime(2026, 1, 31, 12, 0, 30, tzinfo=UTC)) == "2026-01-31T12:00:30"
