"""From an endpoint to the request that reads it."""

from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from services.contracts.errors import RejectedError, UsageError
from services.contracts.integration import Integration
from services.extractor.auth import Site
from services.extractor.pagination import Place, ask
from services.extractor.plan import Spec, spec_of
from services.extractor.requests import Request, Scope, list_request, one_request, record_request

SINCE = "2026-01-31T09:15:00.987654Z"
UNTIL = "2026-01-31T10:15:00.987654Z"
KEYSET = {"type": "keyset", "key": "id", "clause": "id > {after}", "order": {"orderBy": "id"}, "size": 5}
SINCE_TIME = {"type": "time", "params": {"updated_since": "{since}"}}


def spec(integration: dict[str, Any] | None = None, **endpoint: Any) -> Spec:
    plain = {
        "service": "desk",
        "title": "Desk",
        "base_url": "https://x/api",
        "auth": {"type": "none"},
        "filter": {"param": "conditions"},
        "credentials": {"org": {"title": "Organisation", "required": False}},
        "endpoints": {
            "boards": {"path": "boards", "record_id": "id"},
            "tickets": {"path": "service/tickets", "record_id": "id", **endpoint},
        },
    }
    return spec_of(msgspec.convert({**plain, **(integration or {})}, Integration), "tickets")


def site(**values: str) -> Site:
    return Site("https://x/api", values, {})


def asked(found: Spec, place: Place | None = None, scope: Scope | None = None, **values: str) -> Request:
    return list_request(site(**values), found, ask(found.pagination, place or Place()), scope or Scope())


def body_of(request: Request) -> Any:
    return msgspec.json.decode(request.body)


def test_clauses_are_joined_with_what_the_endpoint_always_asks() -> None:
    found = spec(
        params={"conditions": "closed=false", "fields": "{wanted}"},
        incremental={"type": "time", "clause": "lastUpdated >= [{since}]"},
        pagination=KEYSET,
    )
    request = asked(found, Place(1, "42"), Scope(since=SINCE), wanted="id")
    query = parse_qs(urlsplit(request.address).query)
    assert query["conditions"] == ["closed=false and lastUpdated >= [2026-01-31T09:15:00Z] and id > 42"]
    assert query["fields"] == ["id"]
    assert request.url == "https://x/api/service/tickets"
    assert request.source == "GET service/tickets after 42"


def test_a_filter_may_lead_its_clauses_and_stand_in_any_template() -> None:
    language = {"filter": {"lead": "where ", "join": " or "}}
    found = spec(
        language,
        params={"q": "select id from t {where} limit {size}"},
        incremental={"type": "time", "clause": "t > {since}"},
        pagination={**KEYSET, "order": {}},
    )
    assert asked(found, scope=Scope(since=SINCE)).query == (
        ("q", "select id from t where t > 2026-01-31T09:15:00Z or id > 0 limit 5"),
    )


def test_clauses_of_json_become_a_list_whatever_their_values_hold() -> None:
    language = {"filter": {"json": True}}
    clause = '{"op": "gt", "field": "name", "value": "{after}"}'
    found = spec(
        language,
        method="POST",
        body={"type": "json", "value": {"filter": "{where}", "max": "{size}"}},
        pagination={**KEYSET, "clause": clause, "start": None, "order": {}},
    )
    assert body_of(asked(found)) == {"max": 5}
    assert body_of(asked(found, Place(1, 'a"b'))) == {
        "max": 5,
        "filter": [{"op": "gt", "field": "name", "value": 'a"b'}],
    }


def test_clauses_of_json_may_stand_in_one_parameter() -> None:
    language = {"filter": {"param": "search", "json": True, "lead": '{"filter":[', "join": ","}}
    found = spec(language, pagination={**KEYSET, "clause": '{"id":{after}}', "order": {}})
    assert asked(found, Place(1, "7")).query == (("search", '{"filter":[{"id":7}'),)


def test_a_full_read_asks_for_everything() -> None:
    found = spec(incremental=SINCE_TIME)
    assert asked(found).query == ()
    assert asked(found, scope=Scope(since=SINCE)).query == (("updated_since", "2026-01-31T09:15:00Z"),)


def test_what_asks_for_something_that_there_is_not_is_left_out() -> None:
    found = spec(
        params={"from": "{since}", "org": "{org}", "v": "1", "c": "x{cursor}"},
        headers={"If-Modified-Since": "{since}", "Org": "{org}"},
        incremental={"type": "time"},
        body={"type": "form", "fields": {"a": "{since}", "b": "b", "o": "{org}"}},
        method="POST",
    )
    bare = asked(found, org="")
    assert (bare.query, bare.headers, bare.body) == ((("v", "1"),), (), b"b=b")
    full = asked(found, scope=Scope(since=SINCE), org="acme & co")
    assert full.headers == (("If-Modified-Since", "2026-01-31T09:15:00Z"), ("Org", "acme & co"))
    assert full.body == b"a=2026-01-31T09%3A15%3A00Z&b=b&o=acme%20%26%20co"
    assert full.content_type == "application/x-www-form-urlencoded"


def test_a_value_that_must_be_there_is_missed_aloud() -> None:
    with pytest.raises(UsageError):
        asked(spec(params={"x": "{tenant}"}))


def test_a_json_body_is_filled_member_by_member() -> None:
    value = {
        "page": {"number": "{page}", "size": "{size}", "label": "p{page}"},
        "since": "{since}",
        "sort": [{"by": "id"}, "{cursor}"],
        "flag": True,
        "braces": "{Not a name}",
    }
    found = spec(
        method="POST",
        body={"type": "json", "value": value},
        pagination={"type": "page", "param": None, "size": 50},
        incremental={"type": "time"},
    )
    request = asked(found, Place(2), Scope(since=SINCE))
    assert body_of(request) == {
        "page": {"number": 3, "size": 50, "label": "p3"},
        "since": "2026-01-31T09:15:00Z",
        "sort": [{"by": "id"}],
        "flag": True,
        "braces": "{Not a name}",
    }
    assert (request.method, request.query, request.content_type) == ("POST", (), "application/json")
    assert request.source == "POST service/tickets page 3"


def test_a_graphql_query_stays_as_it_is_and_its_variables_are_filled() -> None:
    query = "query($after: String) { tickets(after: $after) {id} }"
    found = spec(
        method="POST",
        body={"type": "graphql", "query": query, "variables": {"after": "{cursor}", "first": "{size}"}},
        pagination={"type": "cursor", "path": "next", "param": None, "size": 20},
    )
    assert body_of(asked(found)) == {"query": query, "variables": {"first": 20}}
    assert body_of(asked(found, Place(1, cursor="x")))["variables"] == {"after": "x", "first": 20}


def test_the_next_address_is_used_as_it_stands() -> None:
    found = spec(params={"a": "1"}, headers={"Prefer": "x"}, pagination={"type": "next_url", "path": "next"})
    request = asked(found, Place(3, cursor="https://x/api/service/tickets?skip=%2B"))
    assert request.address == "https://x/api/service/tickets?skip=%2B"
    assert request.headers == (("Prefer", "x"),)
    assert request.source == "GET service/tickets page 4"
    with pytest.raises(RejectedError):
        asked(found, Place(1, cursor="https://elsewhere/api"))


def test_an_absolute_path_leads_to_its_own_host_alone() -> None:
    assert asked(spec(path="https://x/other/list")).url == "https://x/other/list"
    assert asked(spec(path="{instance}/v1/{name}"), instance="https://x/", name="a/b").url == "https://x/v1/a%2Fb"
    assert asked(spec(path="https://y/v2/list", base_url="https://{where_to}"), where_to="y").url == "https://y/v2/list"
    with pytest.raises(RejectedError):
        asked(spec(path="https://y/v2/list"))


def test_an_endpoint_may_lie_below_another_address() -> None:
    found = spec(base_url="https://{shop}.example/v2", path="/list?fixed=1", params={"a": "b"})
    assert asked(found, shop="acme").address == "https://acme.example/v2/list?fixed=1&a=b"


def test_a_delta_read_begins_with_its_token_or_with_what_comes_first() -> None:
    delta = {"type": "delta", "path": "next", "param": "token", "first": {"init": "1"}, "first_path": "start"}
    found = spec(incremental=delta)
    assert (asked(found).url, asked(found).query) == ("https://x/api/start", (("init", "1"),))
    again = asked(found, scope=Scope(token="t"))
    assert (again.url, again.query) == ("https://x/api/service/tickets", (("token", "t"),))
    in_template = spec(params={"from": "{token}"}, incremental={"type": "delta", "path": "next"})
    assert asked(in_template, scope=Scope(token="t")).query == (("from", "t"),)


def test_a_window_has_both_ends_in_the_vendor_s_own_time() -> None:
    incremental = {
        "type": "time",
        "params": {"q": "{since}..{until}"},
        "format": "%d/%m/%Y %H:%M:%S",
        "time_zone": "{zone}",
    }
    found = spec(incremental=incremental)
    request = asked(found, scope=Scope(since=SINCE, until=UNTIL), zone="America/New_York")
    assert request.query == (("q", "31/01/2026 04:15:00..31/01/2026 05:15:00"),)


def test_a_sweep_asks_for_ids_alone() -> None:
    found = spec(params={"fields": "id,name"}, deletes={"type": "sweep", "params": {"fields": "id"}})
    assert found.for_sweep is not None
    assert asked(found.for_sweep).query == (("fields", "id"),)


def test_values_in_a_path_are_encoded_and_credentials_are_not_shown() -> None:
    found = spec(path="{account}/boards/{board_id}/statuses", parent={"endpoint": "boards", "name": "board_id"})
    request = asked(found, scope=Scope(parent={"board_id": "a/b ?"}), account="hunter2")
    assert request.url == "https://x/api/hunter2/boards/a%2Fb%20%3F/statuses"
    assert request.source == "GET {account}/boards/a/b ?/statuses"


def test_names_of_fields_are_joined_as_the_vendor_wants_them() -> None:
    found = spec(params={"properties": "{fields}"}, fields={"names": ["a", "b"], "join": ";"})
    assert asked(found, scope=Scope(fields=("a", "b"))).query == (("properties", "a;b"),)


def test_a_call_costs_what_the_endpoint_says() -> None:
    assert asked(spec(cost=5)).cost == 5


def test_one_record_is_asked_for_by_its_id() -> None:
    found = spec(deletes={"type": "sweep", "confirm": "/tickets/{record_id}"})
    request = record_request(site(), found, '["1","2"]')
    assert request.url == "https://x/api/tickets/%5B%221%22%2C%222%22%5D"


def test_a_request_of_its_own_is_posted_when_it_has_a_body() -> None:
    found = spec(body={"type": "json", "value": {"q": "{where}"}})
    request = one_request(site(), found, "jobs", {"where": "x = 1"}, body=found.body)
    assert (request.method, body_of(request), request.source) == ("POST", {"q": "x = 1"}, "POST jobs")
    assert one_request(site(), found, "jobs/{job}", {"job": "7"}).source == "GET jobs/7"
