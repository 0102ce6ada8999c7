"""What a person who writes a mapping file is told: file, JSON path, what was expected, what to do."""

import json
from typing import Any

import pytest

from services.contracts.errors import UsageError
from services.contracts.mapping_files import MappingError, Problem, check_against, decode_integration, decode_table
from services.contracts.schema import CanonicalTable

TICKETS: dict[str, Any] = {
    "table": "tickets",
    "columns": {"summary": {"type": "string"}, "closed_date": {"type": "timestamp", "tracked": False}},
}
ACME: dict[str, Any] = {
    "service": "acme",
    "title": "Acme PSA",
    "base_url": "https://{host}/api",
    "auth": {"type": "basic", "username": "{user}", "password": "{password}"},
    "credentials": {
        "host": {"title": "Host"},
        "user": {"title": "User"},
        "password": {"title": "Password", "secret": True},
    },
    "filter": {"param": "conditions"},
    "endpoints": {
        "tickets": {
            "path": "service/tickets",
            "record_id": "id",
            "canonical": {"table": "tickets", "fields": {"summary": "summary"}},
        }
    },
}


def acme(**changes: Any) -> bytes:
    return json.dumps(ACME | changes).encode()


def acme_tickets(**changes: Any) -> bytes:
    return acme(endpoints={"tickets": ACME["endpoints"]["tickets"] | changes})


def problems_of_integration(data: bytes) -> list[Problem]:
    with pytest.raises(MappingError) as caught:
        decode_integration(data, "acme.json")
    return list(caught.value.problems)


def problems_of_table(data: bytes) -> list[Problem]:
    with pytest.raises(MappingError) as caught:
        decode_table(data, "tickets.json")
    return list(caught.value.problems)


def told(data: bytes) -> tuple[str, str, str]:
    """(at, what, remedy) of the only problem of an integration."""
    (problem,) = problems_of_integration(data)
    return problem.at, problem.what, problem.remedy


def tickets_table() -> dict[str, CanonicalTable]:
    return {"tickets": decode_table(json.dumps(TICKETS).encode(), "tickets.json")}


def test_a_good_file_is_read() -> None:
    integration = decode_integration(acme(), "acme.json")
    check_against(integration, tickets_table(), "acme.json")
    assert integration.endpoints["tickets"].record_id == "id"


def test_a_byte_order_mark_is_no_problem() -> None:
    assert decode_table(b"\xef\xbb\xbf" + json.dumps(TICKETS).encode(), "tickets.json").table == "tickets"


def test_an_error_reads_as_file_path_what_and_remedy() -> None:
    with pytest.raises(UsageError) as caught:
        decode_integration(acme_tickets(recordid="id"), "mappings/integrations/acme.json")
    assert str(caught.value) == (
        "mappings/integrations/acme.json at $.endpoints.tickets.recordid: "
        "there is no field 'recordid' here. Did you mean 'record_id'?"
    )
    assert caught.value.code == "bad_mapping"


def test_a_typo_is_compared_with_the_fields_of_its_own_place_only() -> None:
    assert told(acme_tickets(titel="x"))[2] == "Did you mean 'title'?"
    at, _, remedy = told(acme(auth={"type": "basic", "username": "{user}", "password": "{password}", "titel": "x"}))
    assert (at, remedy) == ("$.auth.titel", "Known here: password, type, username.")


def test_a_misspelt_required_field_is_one_problem_not_two() -> None:
    without = {name: value for name, value in ACME.items() if name != "title"}
    assert told(json.dumps(without | {"titel": "x"}).encode()) == (
        "$.titel",
        "there is no field 'titel' here",
        "Did you mean 'title'?",
    )


def test_a_missing_field_is_named() -> None:
    assert told(acme_tickets().replace(b'"record_id": "id", ', b""))[:2] == (
        "$.endpoints.tickets",
        "the field 'record_id' is missing",
    )


@pytest.mark.parametrize(
    ("change", "at", "what"),
    [
        ({"record_id": 5}, "record_id", "expected text or a list, got a whole number"),
        ({"record_id": ["id", 5]}, "record_id[1]", "expected text, got a whole number"),
        ({"interval_s": "60"}, "interval_s", "expected a number, got text"),
        ({"enabled": "yes"}, "enabled", "expected true or false, got text"),
        ({"pagination": {"type": "page", "size": 0}}, "pagination.size", "expected a whole number >= 1"),
        ({"params": {"$select": 1}}, 'params["$select"]', "expected text, got a whole number"),
        ({"drop": "password"}, "drop", "expected a list, got text"),
    ],
)
def test_a_wrong_type_is_told_in_plain_words_at_its_exact_path(change: dict[str, Any], at: str, what: str) -> None:
    assert told(acme_tickets(**change))[:2] == (f"$.endpoints.tickets.{at}", what)


def test_a_variant_nobody_knows_is_compared_with_those_there_are() -> None:
    assert told(acme(auth={"type": "basik"})) == (
        "$.auth.type",
        "'basik' is no type known here",
        "Did you mean 'basic'?",
    )
    _, what, remedy = told(acme(auth={}))
    assert what == "the field 'type' is missing"
    assert remedy.startswith("Known here: basic, bearer, headers, jwt_bearer, none, oauth2_client_credentials")


def test_a_mistake_inside_a_variant_is_told_where_it_stands() -> None:
    fields = {"summary": {"type": "first", "path": ["a"]}}
    at, what, _ = told(acme_tickets(canonical={"table": "tickets", "fields": fields}))
    assert (at, what) == ("$.endpoints.tickets.canonical.fields.summary.path", "there is no field 'path' here")


def test_every_problem_of_a_file_is_told_at_once() -> None:
    found = problems_of_integration(acme_tickets(pth="x", record_id=5, interval_s="x"))
    assert [problem.at.rpartition(".")[2] for problem in found] == ["record_id", "pth", "interval_s"]


def test_of_several_problems_the_error_tells_the_first_and_where_to_see_the_rest() -> None:
    with pytest.raises(MappingError, match=r"`avesa mapping validate` shows 2 more"):
        decode_integration(acme_tickets(pth="x", record_id=5, interval_s="x"), "acme.json")


def test_a_column_type_nobody_knows_is_compared_with_those_there_are() -> None:
    columns = {"summary": {"type": "strin"}}
    (problem,) = problems_of_table(json.dumps(TICKETS | {"columns": columns}).encode())
    assert problem.at == "$.columns.summary.type"
    assert problem.what.startswith('"strin" is not one of string, int64')
    assert problem.remedy == "Did you mean 'string'?"


def test_a_number_in_quotes_is_told_apart_from_the_number() -> None:
    (problem,) = problems_of_table(json.dumps(TICKETS | {"scd": "2"}).encode())
    assert (problem.what, problem.remedy) == ('"2" is not one of 1, 2', "It stands without quotes.")


def test_a_bad_name_is_told_what_names_are_made_of() -> None:
    (problem,) = problems_of_table(json.dumps(TICKETS | {"columns": {"Summary": {"type": "string"}}}).encode())
    assert problem.at == "$.columns.Summary"
    assert problem.what.startswith("a name is made of small letters")


def test_columns_that_every_row_has_are_refused() -> None:
    columns = {name: {"type": "string"} for name in ("tenant_id", "custom_fields", "summary")}
    found = problems_of_table(json.dumps(TICKETS | {"columns": columns}).encode())
    assert [problem.at for problem in found] == ["$.columns.tenant_id", "$.columns.custom_fields"]


@pytest.mark.parametrize(
    ("text", "at", "remedy"),
    [
        (b'{\n  "table": "tickets",\n}', "line 3, column 1", "There is a comma after the last item: remove it."),
        (b'{\n  "table": 1 // one\n}', "line 2, column 14", "JSON has no comments: use `title` or `description`."),
        (b"{\n  'table': 1\n}", "line 2, column 3", "JSON takes double quotes only."),
        (b'{\n  "table"', "line 2, column 10", ""),
        (b'{\n"table": "\xff"}', "line 2", "Save the file as UTF-8."),
        (b"", "line 1, column 1", ""),
        (b"[" * 100_000, "$", ""),
        (b'{"scd": NaN}', "$", ""),
    ],
)
def test_what_is_not_json_is_told_with_its_line(text: bytes, at: str, remedy: str) -> None:
    (problem,) = problems_of_table(text)
    assert (problem.at, problem.remedy) == (at, remedy)


def test_a_key_given_twice_is_no_silent_loss() -> None:
    text = b'{"table": "tickets", "columns": {"a": {"type": "string"}, "a": {"type": "json"}}}'
    (problem,) = problems_of_table(text)
    assert (problem.at, problem.what) == ("$.columns.a", "'a' stands here more than once")


# -- what fits its type and cannot work -------------------------------------------------------------------------------
def test_a_template_may_name_known_credentials_only() -> None:
    assert told(acme(base_url="https://{hst}/")) == (
        "$.base_url",
        "there is nothing to fill {hst} with",
        "Did you mean 'host'?",
    )
    assert told(acme(headers={"x-key": "{token}"}))[::2] == (
        '$.headers["x-key"]',
        "Add 'token' to `credentials`. Known here: host, password, user.",
    )


def test_a_path_may_also_name_what_its_parent_gives() -> None:
    child = {"path": "tickets/{ticket_id}/notes", "record_id": "id"}
    parent = {"endpoint": "tickets", "name": "ticket_id"}
    both = ACME["endpoints"] | {"notes": child | {"parent": parent}}
    assert decode_integration(acme(endpoints=both), "acme.json").endpoints["notes"].parent is not None
    assert told(acme(endpoints=ACME["endpoints"] | {"notes": child}))[0] == "$.endpoints.notes.path"


def test_a_parent_that_is_not_there_is_refused() -> None:
    assert told(acme_tickets(parent={"endpoint": "tikets"}))[::2] == (
        "$.endpoints.tickets.parent.endpoint",
        "Did you mean 'tickets'?",
    )


def test_a_clause_needs_a_filter_to_stand_in() -> None:
    without = json.loads(acme_tickets(incremental={"type": "time", "clause": "updated > {since}"}))
    del without["filter"]
    at, what, _ = told(json.dumps(without).encode())
    assert (at, what) == ("$.endpoints.tickets.incremental.clause", "a clause needs a filter to stand in")


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"incremental": {"type": "time", "clause": "updated > since"}}, "incremental.clause"),
        ({"incremental": {"type": "time", "params": {"since": "now"}}}, "incremental.params"),
        ({"incremental": {"type": "time", "clause": "{sinc} {since}"}}, "incremental.clause"),
        ({"params": {"site": "{sit}"}}, "params.site"),
        ({"pagination": {"type": "keyset", "key": "id", "clause": "id > 0", "order": {}}}, "pagination.clause"),
        ({"deletes": {"type": "sweep", "confirm": "service/tickets"}}, "deletes.confirm"),
    ],
)
def test_a_template_must_hold_its_value_and_nothing_unknown(change: dict[str, Any], at: str) -> None:
    assert told(acme_tickets(**change))[0] == f"$.endpoints.tickets.{at}"


def test_an_endpoint_may_do_without_the_incremental_reading_of_its_integration() -> None:
    everywhere = {"type": "time", "clause": "updated > {since}"}
    data = acme(
        incremental=everywhere, endpoints={"all": {"path": "all", "record_id": "id", "incremental": {"type": "none"}}}
    )
    assert decode_integration(data, "acme.json").endpoints["all"].incremental is not None


def test_a_time_zone_must_exist() -> None:
    mapping = {"table": "tickets", "fields": {}, "time_zone": "Europe/Berln"}
    assert told(acme_tickets(canonical=mapping)) == (
        "$.endpoints.tickets.canonical.time_zone",
        "'Europe/Berln' is no time zone",
        "Did you mean 'Europe/Berlin'?",
    )


# -- all files together -----------------------------------------------------------------------------------------------
def problems_together(canonical: dict[str, Any]) -> list[Problem]:
    with pytest.raises(MappingError) as caught:
        check_against(decode_integration(acme_tickets(canonical=canonical), "acme.json"), tickets_table(), "acme.json")
    return list(caught.value.problems)


def test_an_unknown_table_is_compared_with_those_there_are() -> None:
    (problem,) = problems_together({"table": "tikets", "fields": {}})
    assert problem == Problem(
        "acme.json",
        "$.endpoints.tickets.canonical.table",
        "there is no canonical table 'tikets'",
        "Did you mean 'tickets'?",
    )


def test_every_unknown_column_is_compared_with_those_of_its_table() -> None:
    found = problems_together({"table": "tickets", "fields": {"sumary": "a", "closed_date": "b", "zzz": "c"}})
    assert [(problem.at, problem.remedy) for problem in found] == [
        ("$.endpoints.tickets.canonical.fields.sumary", "Did you mean 'summary'?"),
        ("$.endpoints.tickets.canonical.fields.zzz", "`avesa mapping show tickets` lists its columns."),
    ]


def test_custom_fields_may_be_mapped_like_any_column() -> None:
    integration = decode_integration(
        acme_tickets(canonical={"table": "tickets", "fields": {"custom_fields": "custom"}}), "acme.json"
    )
    check_against(integration, tickets_table(), "acme.json")
