"""What fits its type in an integration and cannot work: each mistake is told at its path, with what is allowed."""

import json
from typing import Any

import pytest

from services.contracts.mapping_files import decode_integration
from tests.contracts.test_mapping_files import ACME, acme, acme_tickets, problems_of_integration, told

Change = dict[str, Any]
PAGES: Change = {"type": "page", "param": "page"}
TIME: Change = {"type": "time", "params": {"since": "{since}"}}
TOKEN: Change = {"type": "oauth2_client_credentials", "token_url": "https://{host}/token", "client_id": "{user}",
                 "client_secret": "{password}"}  # fmt: skip
BODY: Change = {"method": "POST", "body": {"type": "json", "value": {"x": 1}}}
JOB: Change = {"create": "jobs", "body": {"type": "json", "value": {}}, "id": "id", "poll": "jobs/{job}",
               "status": "s", "done": ["ok"]}  # fmt: skip
ENDPOINT = "$.endpoints.tickets"


def read(data: bytes) -> None:
    decode_integration(data, "acme.json")


@pytest.mark.parametrize(
    "change",
    [
        {"pagination": PAGES, "params": {"p": "{page}", "n": "{size}"}},
        {
            "pagination": {"type": "offset", "param": None},
            **BODY,
            "body": {"type": "json", "value": {"at": "{offset}"}},
        },
        {"pagination": {"type": "cursor", "path": "next"}, "headers": {"x-cursor": "{cursor}"}},
        {"pagination": {"type": "keyset", "key": "id"}, "params": {"after": "{after}"}},
        {"pagination": {"type": "keyset", "key": "id", "param": "after"}, "incremental": {"type": "id"}},
        {"pagination": {"type": "time_keyset", "time": "t", "id": "id", "clause": "t>{after_time} or id>{after}"}},
        {
            "pagination": {"type": "time_window", "cap": 1000, "inner": PAGES},
            "incremental": {"type": "time", "params": {"from": "{since}", "to": "{until}"}},
        },
        {"incremental": {"type": "delta", "path": "token"}, "params": {"sync": "{token}"}},
        {"incremental": {"type": "time"}, "path": "tickets/since/{since}"},
        {"incremental": {"type": "time", "newest_first": True}, "updated_at": "t"},
        {"incremental": TIME | {"format": "%Y-%m-%d %H:%M:%S", "time_zone": "Europe/Berlin"}},
        {"fields": {"names": ["id"]}, "params": {"select": "{fields}"}},
        {"export": JOB, "path": "jobs/{job}/rows", "format": "csv"},
        {"method": "POST", "body": {"type": "graphql", "query": "{ viewer {login} }"}},
        {"tombstones": [{"endpoint": "tickets", "record_id": "gone"}]},
        {"path": "https://{host}/v2/tickets"},
        {"base_url": "https://other.example", "path": "https://OTHER.example/tickets"},
    ],
)
def test_what_can_work_is_read(change: Change) -> None:
    read(acme_tickets(**change))


@pytest.mark.parametrize(
    ("change", "at", "what"),
    [
        # placeholders that nothing fills in their place
        ({"params": {"p": "{page}"}}, "params.p", "there is nothing to fill {page} with"),
        ({"params": {"c": "{cursor}"}, "pagination": PAGES}, "params.c", "there is nothing to fill {cursor} with"),
        ({"headers": {"x": "{since}"}}, "headers.x", "there is nothing to fill {since} with"),
        ({"path": "jobs/{job}"}, "path", "there is nothing to fill {job} with"),
        ({"params": {"q": "{where}"}}, "params.q", "there is nothing to fill {where} with"),
        ({"params": {"f": "{fields}"}}, "params.f", "there is nothing to fill {fields} with"),
        ({"base_url": "https://{hst}"}, "base_url", "there is nothing to fill {hst} with"),
        ({**BODY, "body": {"type": "json", "value": {"a": [{"b": "{nix}"}]}}}, "body.value.a[0].b",
         "there is nothing to fill {nix} with"),
        ({"incremental": TIME | {"time_zone": "{zone}"}}, "incremental.time_zone",
         "there is nothing to fill {zone} with"),
        ({"deletes": {"type": "sweep", "confirm": "t/{record_id}/{x}"}}, "deletes.confirm",
         "there is nothing to fill {x} with"),
        ({"deletes": {"type": "sweep", "params": {"a": "{x}"}}}, "deletes.params.a",
         "there is nothing to fill {x} with"),
        # pages that nothing turns
        ({"pagination": {"type": "page", "param": None}}, "pagination", "the page number is sent nowhere"),
        ({"pagination": {"type": "offset", "param": None}}, "pagination", "the offset is sent nowhere"),
        ({"pagination": {"type": "cursor", "path": "n", "param": None}}, "pagination", "the cursor is sent nowhere"),
        ({"pagination": {"type": "cursor"}}, "pagination", "a cursor comes from exactly one place"),
        ({"pagination": {"type": "cursor", "path": "n", "header": "N"}}, "pagination",
         "a cursor comes from exactly one place"),
        ({"pagination": {"type": "keyset", "key": "id"}}, "pagination", "the last key is sent nowhere"),
        ({"pagination": {"type": "time_keyset", "time": "t", "id": "id", "clause": "t > {after_time}"}},
         "pagination.clause", "{after} is missing"),
        ({"pagination": {"type": "time_keyset", "time": "t", "id": "id", "clause": "{after_time}{after}",
                         "format": "%Q"}}, "pagination.format", "%Q is no directive of strftime"),
        ({"deletes": {"type": "sweep", "pagination": {"type": "keyset", "key": "id"}}}, "deletes.pagination",
         "the last key is sent nowhere"),
        ({"pagination": {"type": "time_window", "cap": 9, "start": "soon"},
          "incremental": {"type": "time", "params": {"a": "{since}", "b": "{until}"}}}, "pagination.start",
         "'soon' is no date"),
        ({"pagination": {"type": "time_window", "cap": 9, "longest_s": 1, "shortest_s": 2},
          "incremental": {"type": "time", "params": {"a": "{since}", "b": "{until}"}}}, "pagination.shortest_s",
         "the shortest window is longer than the longest"),
        ({"pagination": {"type": "offset", "size": 10, "overlap": 10}}, "pagination.overlap",
         "it overlaps by a whole page"),
        ({"pagination": {"type": "time_window", "cap": 9}}, "pagination", "windows of time need a time to ask for"),
        ({"incremental": {"type": "delta", "path": "t", "param": "t", "first_path": "{x}"}}, "incremental.first_path",
         "there is nothing to fill {x} with"),
        # increments that ask for nothing
        ({"pagination": {"type": "time_window", "cap": 9}, "incremental": TIME}, "incremental", "{until} is missing"),
        ({"incremental": {"type": "time"}}, "incremental", "{since} is missing"),
        ({"incremental": {"type": "time", "newest_first": True}}, "incremental.newest_first",
         "records must tell when they changed"),
        ({"incremental": {"type": "id"}, "pagination": PAGES}, "incremental",
         "`incremental` of type `id` asks by the keyset"),
        ({"incremental": {"type": "delta", "path": "t"}}, "incremental", "the token is sent nowhere"),
        ({"incremental": TIME | {"format": "%Y-%Q"}}, "incremental.format", "%Q is no directive of strftime"),
        ({"incremental": TIME | {"time_zone": "Mars/Base"}}, "incremental.time_zone", "'Mars/Base' is no time zone"),
        # names of what is not there
        ({"tombstones": [{"endpoint": "tikets", "record_id": "id"}]}, "tombstones[0].endpoint",
         "there is no endpoint 'tikets'"),
        ({"parent": {"endpoint": "tickets"}}, "parent.endpoint", "it lies below itself"),
        # hosts that are never asked
        ({"path": "https://other.example/tickets"}, "path",
         "https://other.example is another host than that of `base_url`, https://{host}"),
        ({"deletes": {"type": "sweep", "path": "https://other.example/ids"}}, "deletes.path",
         "https://other.example is another host than that of `base_url`, https://{host}"),
        ({"base_url": "{host}/api", "path": "https://other.example/tickets"}, "path",
         "https://other.example is another host than that of `base_url`, {host}/api"),
        # what cannot be sent or answered so
        ({"body": {"type": "json", "value": {}}}, "method", "a GET has no body"),
        ({"format": "csv", "records": "rows"}, "records", "csv has records only, and no path to them"),
        ({"format": "ndjson", "pagination": {"type": "cursor", "path": "next"}}, "pagination.path",
         "ndjson has nothing but records, and no 'path' beside them"),
        ({"export": JOB | {"poll": "jobs"}, "path": "jobs"}, "export.poll", "{job} is missing"),
        ({"export": JOB | {"failed": ["ok"]}, "path": "jobs/{job}"}, "export.failed",
         "a status is either done or failed"),
        ({"fields": {"names": []}, "params": {"f": "{fields}"}}, "fields", "no field is named"),
        ({"fields": {"names": ["id"]}}, "fields", "{fields} is missing"),
        ({"errors": [{"means": "skip"}]}, "errors[0]", "this rule would fit every answer"),
        ({"errors": [{"means": "skip", "status": [42]}]}, "errors[0].status[0]", "42 is no HTTP status"),
        ({"errors": [{"means": "skip", "status": [400], "contains": "x"}]}, "errors[0]",
         "`equals` and `contains` need a `path` to look at"),
        ({"custom_fields": {"type": "keys"}}, "custom_fields", "every field would be a custom one"),
    ],
)  # fmt: skip
def test_a_mistake_of_an_endpoint_is_told_at_its_path(change: Change, at: str, what: str) -> None:
    assert told(acme_tickets(**change))[:2] == (f"{ENDPOINT}.{at}", what)


@pytest.mark.parametrize(
    ("change", "at", "what"),
    [
        ({"auth": {"type": "bearer", "token": "{toke}"}}, "$.auth.token", "there is nothing to fill {toke} with"),
        ({"auth": [ACME["auth"], {"type": "bearer", "token": "{t}"}]}, "$.auth[1].token",
         "there is nothing to fill {t} with"),
        ({"auth": {"type": "headers"}}, "$.auth", "no key is sent"),
        ({"auth": TOKEN | {"headers": {"X": "{password}"}}}, "$.auth.headers", "no header carries the token"),
        ({"auth": TOKEN | {"client_id": "{client_id}"}}, "$.auth.client_id",
         "there is nothing to fill {client_id} with"),
        ({"auth": {"type": "session", "url": "login"}}, "$.auth", "a login sends exactly one of `form` and `json`"),
        ({"auth": TOKEN | {"type": "oauth2_refresh_token"}}, "$.auth.credential",
         "there is no credential 'refresh_token'"),
        ({"discovery": [{"url": "https://{hots}", "values": {"zone": "z"}}]}, "$.discovery[0].url",
         "there is nothing to fill {hots} with"),
        ({"discovery": [{"url": "x", "values": {"host": "z"}}]}, "$.discovery[0].values.host",
         "'host' is a credential already"),
        ({"discovery": [{"url": "x", "values": {"z": "z"}, "where": {"id": "{user}"}}]}, "$.discovery[0].where",
         "there is no list to pick from"),
        ({"headers": {"x": "{access_token}"}}, "$.headers.x", "there is nothing to fill {access_token} with"),
        ({"headers": {"x": "{account_id}"}}, "$.headers.x", "there is nothing to fill {account_id} with"),
        ({"customers": {"path": "c/{account_id}", "id": "id", "title": "t"}}, "$.customers.path",
         "there is nothing to fill {account_id} with"),
        ({"time_zone": "Nowhere"}, "$.time_zone", "'Nowhere' is no time zone"),
        ({"limits": {"headers": [{"window_s": 5}]}}, "$.limits.headers[0]", "no header is named"),
        ({"limits": {"headers": [{"remaining": "x", "pattern": "("}]}}, "$.limits.headers[0].pattern",
         "this is no regular expression: missing ), unterminated subpattern at position 0"),
        ({"limits": {"headers": [{"remaining": "x", "pattern": r"(?P<usd>\d+)"}]}}, "$.limits.headers[0].pattern",
         "it needs the group `used` or `remaining`"),
        ({"errors": [{"means": "stop"}]}, "$.errors[0]", "this rule would fit every answer"),
        ({"custom_fields": {"type": "keys"}}, "$.custom_fields", "every field would be a custom one"),
    ],
)  # fmt: skip
def test_a_mistake_of_the_whole_is_told_at_its_path(change: Change, at: str, what: str) -> None:
    assert told(acme(**change))[:2] == (at, what)


@pytest.mark.parametrize(
    ("parent", "at", "what"),
    [
        ({"endpoint": "tikets"}, "parent.endpoint", "there is no endpoint 'tikets'"),
        ({"path": "number"}, "parent.path", "'number' is no part of the parent's record id"),
        ({"name": "host"}, "parent", "'host' has a value already"),
        ({"values": {"user": "user.id"}}, "parent", "'user' has a value already"),
        ({"include": ["number"]}, "parent.include[0]", "the parent gives no 'number'"),
        ({"include": ["parent_id", "parent_id"]}, "parent.include[1]", "'parent_id' stands here more than once"),
        (
            {"values": {"team": "_parent.team"}},
            "parent.values.team",
            "'_parent.team' is a value of the parent's record, and the endpoint has no `parent`",
        ),
    ],
)
def test_a_parent_must_be_there_and_give_what_is_asked_of_it(parent: Change, at: str, what: str) -> None:
    notes = {"path": "notes", "record_id": "id", "parent": {"endpoint": "tickets"} | parent}
    assert told(acme(endpoints=ACME["endpoints"] | {"notes": notes}))[:2] == (f"$.endpoints.notes.{at}", what)


def below(**change: Any) -> bytes:
    """Notes below tickets, which take the id of their ticket along."""
    notes = {"path": "t/{ticket}/notes", "record_id": "id",
             "parent": {"endpoint": "tickets", "name": "ticket", "include": ["ticket"]}}  # fmt: skip
    return acme(endpoints=ACME["endpoints"] | {"notes": notes | change})


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"record_id": ["_parent.tiket", "id"]}, "record_id[0]"),
        ({"updated_at": "_parent.tiket"}, "updated_at"),
        ({"deleted_when": {"path": "_parent.tiket"}}, "deleted_when.path"),
        ({"tombstones": [{"endpoint": "tickets", "record_id": "_parent.tiket"}]}, "tombstones[0].record_id"),
        ({"pagination": {"type": "keyset", "key": "_parent.tiket", "param": "after"}}, "pagination.key"),
        ({"canonical": {"table": "notes", "fields": {"id": "id", "ticket_id": "_parent.tiket"}}},
         "canonical.fields.ticket_id"),
    ],
)  # fmt: skip
def test_what_records_do_not_take_along_can_be_named_nowhere(change: Change, at: str) -> None:
    assert told(below(**change)) == (
        f"$.endpoints.notes.{at}", "records take no 'tiket' of their parent along", "Did you mean 'ticket'?",
    )  # fmt: skip


def test_what_records_take_along_may_be_named_wherever_a_path_of_theirs_may() -> None:
    read(below(record_id=["_parent.ticket", "id"], deletes={"type": "sweep", "path": "t/{ticket}/ids"}))
    read(below(canonical={"table": "notes", "fields": {"id": "id", "ticket_id": "_parent.ticket"}}))


def test_a_list_of_ids_below_no_parent_cannot_tell_ids_that_hold_the_parents() -> None:
    at, what, _ = told(below(record_id=["_parent.ticket", "id"], deletes={"type": "sweep", "path": "notes"}))
    assert at == "$.endpoints.notes.deletes.path"
    assert what == "a list that is not read below each parent cannot tell the record ids"


def test_a_record_that_is_looked_for_does_not_tell_its_parent() -> None:
    notes = {"path": "t/{parent_id}/notes", "record_id": "id", "parent": {"endpoint": "tickets"}}
    sweep = {"deletes": {"type": "sweep", "confirm": "t/{parent_id}/notes/{record_id}"}}
    at, what, _ = told(acme(endpoints=ACME["endpoints"] | {"notes": notes | sweep}))
    assert (at, what) == ("$.endpoints.notes.deletes.confirm", "there is nothing to fill {parent_id} with")


def test_what_nothing_fills_is_told_with_what_would_and_all_that_is_known() -> None:
    assert told(acme_tickets(params={"p": "{page}"}))[2] == (
        "`pagination` of type `page` brings it. Known here: host, password, user."
    )
    assert told(acme_tickets(params={"p": "{passwrd}"}))[2] == "Did you mean 'password'?"


def test_what_was_discovered_or_came_with_a_token_fills_requests() -> None:
    found = {"discovery": [{"url": "https://{host}/me", "values": {"region": "r"}, "authenticated": False}]}
    token = TOKEN | {"token_url": "https://{region}/token", "answer": {"values": {"instance_url": "instance_url"}}}
    read(acme(**found, auth=token, base_url="{instance_url}/{region}"))


def test_an_account_of_a_partner_fills_what_belongs_to_it() -> None:
    customers = {"path": "customers", "id": "id", "title": "name"}
    read(acme(customers=customers, base_url="https://{host}/{account_id}"))


def test_clauses_need_a_place_to_stand() -> None:
    change = {"incremental": {"type": "time", "clause": "t > {since}"}}
    plain = json.loads(acme_tickets(**change)) | {"filter": {"join": " AND "}}
    assert told(json.dumps(plain).encode())[:2] == (ENDPOINT, "there are clauses and no {where} they could stand in")
    plain = json.loads(acme_tickets(**change, params={"q": "SELECT {where}"})) | {"filter": {}}
    read(json.dumps(plain).encode())


def test_a_mistake_in_a_default_is_told_once_however_many_endpoints_take_it() -> None:
    both = {"tickets": ACME["endpoints"]["tickets"], "notes": {"path": "notes", "record_id": "id"}}
    (problem,) = problems_of_integration(acme(endpoints=both, pagination={"type": "keyset", "key": "id"}))
    assert (problem.at, problem.what) == ("$.pagination", "the last key is sent nowhere")


def test_an_endpoint_of_a_table_that_is_not_routed_concerns_others() -> None:
    data = acme_tickets(params={"p": "{nothing}"})
    assert decode_integration(data, "acme.json", lambda table: table != "tickets").service == "acme"


def test_a_parent_whose_table_is_not_routed_is_not_looked_into() -> None:
    notes = {"path": "t/{parent_id}/notes", "record_id": "id", "parent": {"endpoint": "tickets"}}
    data = acme(endpoints=ACME["endpoints"] | {"notes": notes})
    assert decode_integration(data, "acme.json", lambda table: table != "tickets").endpoints["notes"].parent is not None
