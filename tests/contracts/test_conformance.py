"""An integration beside a description: what is confirmed, contradicted, explained, and what nobody describes."""

from typing import Any

import msgspec
import pytest

from services.contracts.conformance import Fact, conform, tally
from services.contracts.integration import Integration
from services.contracts.openapi import Description
from services.contracts.schema import CanonicalTable

TICKET: dict[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "integer"},
        "updated": {"type": "string", "format": "date-time"},
        "subject": {"type": "string"},
        "customer": {"allOf": [{"$ref": "#/components/schemas/Named"}, {"properties": {"vip": {"type": "boolean"}}}]},
        "phones": {"type": "array", "items": {"type": "object", "properties": {"kind": {}, "number": {}}}},
        "extra": {"type": "object", "additionalProperties": True, "properties": {"known": {"type": "string"}}},
        "owner": {"oneOf": [{"$ref": "#/components/schemas/Named"}, {"type": "string"}]},
        "cut": {"$ref": "#/components/schemas/CutAway"},
        "@odata.type": {"type": "string"},
        "SiteId": {"type": "string"},
    },
}
OPENAPI: dict[str, Any] = {
    "openapi": "3.0.3",
    "servers": [{"url": "https://desk.example/api/v2"}],
    "components": {
        "schemas": {
            "Ticket": TICKET,
            "Named": {"type": "object", "properties": {"id": {"type": "integer"}, "name": {"type": "string"}}},
            "Circle": {"allOf": [{"$ref": "#/components/schemas/Circle"}]},
        },
        "parameters": {"size": {"name": "size", "in": "query", "schema": {"type": "integer", "maximum": 100}}},
    },
    "paths": {
        "/tickets": {
            "parameters": [{"$ref": "#/components/parameters/size"}],
            "get": {
                "parameters": [
                    {"name": "page", "in": "query", "schema": {"type": "integer"}},
                    {"name": "sort", "in": "query", "schema": {"type": "string", "enum": ["id", "updated"]}},
                    {"name": "If-Modified-Since", "in": "header", "schema": {"type": "string"}},
                ],
                "responses": {
                    "200": {
                        "content": {
                            "application/json": {
                                "schema": {
                                    "type": "object",
                                    "properties": {
                                        "tickets": {"type": "array", "items": {"$ref": "#/components/schemas/Ticket"}},
                                        "meta": {"type": "object", "properties": {"total": {"type": "integer"}}},
                                    },
                                }
                            }
                        }
                    }
                },
            },
        },
        "/tickets/{ticketId}": {"get": {"responses": {"200": {"description": "one"}}}},
        "/tickets/{ticketId}/notes": {
            "get": {
                "responses": {
                    "200": {"content": {"application/json": {"examples": {"a": {"value": [{"id": 1, "text": "x"}]}}}}}
                }
            }
        },
    },
}
SWAGGER: dict[str, Any] = {
    "swagger": "2.0",
    "basePath": "/api/v2",
    "definitions": {"Ticket": TICKET},
    "paths": {
        "/tickets": {
            "get": {
                "parameters": [
                    {"name": "size", "in": "query", "type": "integer", "description": "at most 50 per page"}
                ],
                "responses": {"200": {"schema": {"type": "array", "items": {"$ref": "#/definitions/Ticket"}}}},
            }
        }
    },
}
ENDPOINT: dict[str, Any] = {"path": "tickets", "records": "tickets", "record_id": "id", "updated_at": "updated"}
TABLES = {
    "tickets": msgspec.convert(
        {
            "table": "tickets",
            "columns": {
                "name": {"type": "string"},
                "hours": {"type": "decimal"},
                "at": {"type": "timestamp"},
                "all": {"type": "json"},
            },
        },
        CanonicalTable,
    )
}


def judged(description: dict[str, Any] = OPENAPI, **changes: Any) -> dict[str, Fact]:
    """The facts of one endpoint, by name."""
    whole = {"service": "desk", "title": "Desk", "base_url": "{api_url}/api/v2", "auth": {"type": "none"}}
    notes = {"path": "tickets/{ticket_id}/notes", "record_id": "id", "parent": {"endpoint": "tickets"}}
    plain = whole | {"endpoints": {"tickets": ENDPOINT | changes, "notes": notes}}
    facts = conform(msgspec.convert(plain, Integration), Description(description), TABLES)
    return {fact.fact: fact for fact in facts if fact.endpoint == "tickets"}


def verdicts(description: dict[str, Any] = OPENAPI, **changes: Any) -> dict[str, str]:
    return {name: fact.verdict for name, fact in judged(description, **changes).items()}


def mapped(**columns: Any) -> dict[str, Any]:
    return {"canonical": {"table": "tickets", "fields": columns}}


def test_a_list_that_is_as_described_is_confirmed_in_every_fact() -> None:
    pages = {"type": "page", "size_param": "size", "size": 100, "total": "meta.total"}
    assert verdicts(pagination=pages, params={"sort": "id"}) == {
        "path": "confirmed",
        "query.sort": "confirmed",
        "query.sort=id": "confirmed",
        "query.page": "confirmed",
        "query.size": "confirmed",
        "page_size": "confirmed",
        "page.meta.total": "confirmed",
        "records": "confirmed",
        "record_id": "confirmed",
        "updated_at": "confirmed",
    }


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"method": "POST"}, "path"),
        ({"params": {"srot": "id"}}, "query.srot"),
        ({"params": {"sort": "subject"}}, "query.sort=subject"),
        ({"pagination": {"type": "page", "size_param": "size", "size": 101}}, "page_size"),
        ({"records": "meta"}, "records"),
        ({"records": "data"}, "records"),
        ({"record_id": "guid"}, "record_id"),
        ({"record_id": ["id", "guid"]}, "record_id.guid"),
        ({"updated_at": "modified"}, "updated_at"),
        ({"pagination": {"type": "cursor", "path": "meta.next"}}, "page.meta.next"),
        ({"incremental": {"type": "delta", "path": "delta", "as_url": True}}, "delta.delta"),
        ({"drop": ["password"]}, "drop.password"),
        ({"deleted_when": {"path": "deleted"}}, "deleted_when.deleted"),
        ({"tombstones": [{"endpoint": "notes", "record_id": "merged_id"}]}, "tombstone.merged_id"),
        ({"described": {"schema": "Tiket"}}, "schema"),
        ({"described": {"path": "/tikets"}}, "path"),
        (mapped(name="customer.nme"), "field.customer.nme"),
        (mapped(name={"type": "first", "paths": ["subject", "title"]}), "field.title"),
        (
            mapped(name={"type": "item", "path": "phones", "test": "type", "equals": ["work"], "value": "number"}),
            "field.phones.*.type",
        ),
        (mapped(name="customer"), "field.customer"),
        (mapped(name="phones"), "field.phones"),
        (mapped(at="id"), "field.id"),
        (mapped(hours="customer.vip"), "field.customer.vip"),
        (mapped(name="subject.text"), "field.subject.text"),
        (mapped(name="subject.0"), "field.subject.0"),
        ({"custom_fields": {"type": "list", "path": "phones", "name": "name", "value": "number"}},
         "custom_fields.phones.*.name"),
    ],
)  # fmt: skip
def test_what_the_description_does_not_have_is_contradicted(changes: dict[str, Any], fact: str) -> None:
    assert verdicts(**changes)[fact] == "contradicted"


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        (mapped(name="customer.name"), "field.customer.name"),
        (mapped(name="owner.name"), "field.owner.name"),
        (mapped(name="phones.0.number"), "field.phones.0.number"),
        (mapped(name="@odata.type"), "field.@odata.type"),
        (mapped(name="extra.known"), "field.extra.known"),
        (mapped(all="phones"), "field.phones"),
        (
            {"incremental": {"type": "time", "headers": {"if-modified-since": "{since}"}}},
            "header.if-modified-since",
        ),
        ({"deletes": {"type": "sweep", "confirm": "tickets/{record_id}"}}, "confirm"),
    ],
)
def test_what_lies_deeper_is_found(changes: dict[str, Any], fact: str) -> None:
    assert verdicts(**changes)[fact] == "confirmed"


@pytest.mark.parametrize(
    ("changes", "fact"),
    [
        ({"path": "cars"}, "path"),
        ({"path": "cars"}, "record_id"),
        (mapped(name="extra.whatever"), "field.extra.whatever"),
        (mapped(name="cut.name"), "field.cut.name"),
        (mapped(name="Site.Name"), "field.Site.Name"),
        ({"headers": {"Accept": "application/json"}}, "header.Accept"),
        ({"pagination": {"type": "link"}}, "page.header.Link"),
    ],
)
def test_what_nobody_says_is_neither(changes: dict[str, Any], fact: str) -> None:
    assert verdicts(**changes)[fact] == "not described"


def test_a_contradiction_says_what_was_probably_meant() -> None:
    assert judged(params={"srot": "id"})["query.srot"].says == "there is no such parameter. Did you mean 'sort'?"
    assert judged(updated_at="update")["updated_at"].says == "there is no 'update' here. Did you mean 'updated'?"
    assert judged(path="ticket")["path"].says == "GET ticket. Did you mean '/tickets'?"


def test_a_contradiction_that_the_file_explains_is_explained() -> None:
    facts = judged(record_id="guid", described={"differs": {"record_id": "since 2026: https://desk.example/changes"}})
    assert facts["record_id"] == Fact("tickets", "record_id", "explained", "since 2026: https://desk.example/changes")


def test_one_explanation_may_cover_all_facts_that_begin_alike() -> None:
    found = verdicts(
        **mapped(name="subject.a", all="subject.b"), described={"differs": {"field.subject.*": "a newer form"}}
    )
    assert (found["field.subject.a"], found["field.subject.b"]) == ("explained", "explained")


def test_an_explanation_of_nothing_is_needless() -> None:
    facts = conform(
        msgspec.convert(
            {
                "service": "desk",
                "title": "Desk",
                "base_url": "x",
                "auth": {"type": "none"},
                "endpoints": {
                    "tickets": ENDPOINT | {"described": {"differs": {"record_id": "no more", "query.x": "?"}}}
                },
            },
            Integration,
        ),
        Description(OPENAPI),
    )
    assert [fact.fact for fact in facts if fact.verdict == "needless"] == ["record_id", "query.x"]
    assert tally(facts).needless == 2


def test_an_explanation_may_not_cover_what_is_confirmed_as_well() -> None:
    facts = judged(**mapped(name="subject", all="title"), described={"differs": {"field.*": "all is new"}})
    assert facts["field.*"].verdict == "needless"
    assert facts["field.*"].says == "`differs` covers what is confirmed as well: name what is not"


def test_examples_speak_where_there_is_no_schema() -> None:
    notes: dict[str, Any] = {"path": "tickets/{n}/notes", "records": "", "record_id": "id", "updated_at": None}
    assert verdicts(**notes, **mapped(name="text", all="later")) == {
        "path": "confirmed",
        "records": "confirmed",
        "record_id": "confirmed",
        "field.text": "confirmed",
        "field.later": "not described",
    }


def test_a_parents_value_is_looked_for_in_the_parents_record() -> None:
    plain = {
        "service": "desk", "title": "Desk", "base_url": "x", "auth": {"type": "none"},
        "endpoints": {
            "tickets": ENDPOINT,
            "notes": {"path": "tickets/{ticket_id}/notes", "record_id": "id",
                      "parent": {"endpoint": "tickets", "path": "id", "values": {"who": "customer.nme"}}},
        },
    }  # fmt: skip
    facts = conform(msgspec.convert(plain, Integration), Description(OPENAPI))
    found = {fact.fact: fact.verdict for fact in facts if fact.fact.startswith("parent.")}
    assert found == {"parent.id": "confirmed", "parent.customer.nme": "contradicted"}


def test_what_records_take_along_of_their_parent_is_described_nowhere() -> None:
    parent = {"endpoint": "tickets", "name": "ticket_id", "include": ["ticket_id"]}
    canonical = {"table": "notes", "fields": {"ticket_id": "_parent.ticket_id", "text": "txt"}}
    notes = {"path": "tickets/{ticket_id}/notes", "record_id": ["_parent.ticket_id", "id"], "parent": parent}
    plain = {
        "service": "desk", "title": "Desk", "base_url": "x", "auth": {"type": "none"},
        "endpoints": {"tickets": ENDPOINT, "notes": notes | {"canonical": canonical}},
    }  # fmt: skip
    facts = conform(msgspec.convert(plain, Integration), Description(OPENAPI))
    ours = {fact.fact: (fact.verdict, fact.says) for fact in facts if "_parent" in fact.fact}
    told = ("not described", "a value of the parent's record (`parent.include`)")
    assert ours == {"record_id._parent.ticket_id": told, "field._parent.ticket_id": told}


def test_a_named_schema_stands_for_the_record_where_the_path_tells_nothing() -> None:
    found = verdicts(path="query", described={"schema": "Ticket"}, record_id="guid")
    assert (found["path"], found["updated_at"], found["record_id"]) == ("not described", "confirmed", "contradicted")


def test_swagger_two_is_understood_like_openapi_three() -> None:
    pages = {"type": "page", "param": None, "size_param": "size", "size": 51}
    found = verdicts(SWAGGER, records="", pagination=pages, **mapped(name="customer.vip"))
    assert found["records"] == found["record_id"] == found["query.size"] == "confirmed"
    assert found["page_size"] == "contradicted"


def test_a_description_that_turns_in_a_circle_ends() -> None:
    assert verdicts(described={"schema": "Circle"})["record_id"] == "not described"


def test_the_plainest_of_several_paths_counts() -> None:
    both: dict[str, Any] = {"paths": {"/{table}": {"get": {}}, "/tickets": {"get": {}}}}
    assert Description(both).path_like("tickets") == "/tickets"
    assert Description(both).path_like("cars") == "/{table}"
    assert Description(both).path_like("cars/1") is None


@pytest.mark.parametrize("other", [[], {}, {"paths": []}, "text", None])
def test_what_is_no_description_is_refused(other: Any) -> None:
    with pytest.raises(ValueError, match="neither OpenAPI nor Swagger"):
        Description(other)


def test_the_share_is_of_what_is_described() -> None:
    facts = [Fact("a", str(n), verdict) for n, verdict in enumerate(["confirmed"] * 3 + ["explained", "not described"])]  # type: ignore[arg-type]
    assert tally(facts).share == 0.75
    assert tally([]).share == 1.0
