"""The shipped mapping files: they decode, they fit each other, and the vendor's own description knows what they name.

The descriptions are not part of the project. AVESA_VENDOR_SPECS says where they lie (default: beside the repository);
without them those tests skip.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from services.contracts import access, fields, reading
from services.contracts.integration import Endpoint, Integration
from services.contracts.mapping_files import check_against, decode_integration, decode_table, json_schema
from services.contracts.schema import RESERVED_COLUMNS, CanonicalTable
from services.transformer.mapper import compile_fields

REPOSITORY = Path(__file__).resolve().parents[2]
MAPPINGS = REPOSITORY / "mappings"
FILES = {kind: sorted((MAPPINGS / kind).glob("*.json")) for kind in ("canonical", "integrations")}
TABLES = {file.stem: decode_table(file.read_bytes(), file.name) for file in FILES["canonical"]}
INTEGRATIONS = {file.stem: decode_integration(file.read_bytes(), file.name) for file in FILES["integrations"]}
CONNECTWISE = INTEGRATIONS["connectwise"]

# Which table a reference joins, on (service, id).
JOINS = {
    "agreement_id": "agreements",
    "alert_id": "alerts",
    "assigned_to_id": "users",
    "assistant_contact_id": "contacts",
    "bill_to_company_id": "companies",
    "bill_to_contact_id": "contacts",
    "billing_contact_id": "contacts",
    "catalog_id": "products",
    "closed_by_id": "users",
    "company_id": "companies",
    "contact_id": "contacts",
    "default_contact_id": "contacts",
    "default_merge_contact_id": "contacts",
    "device_id": "devices",
    "expense_approver_id": "users",
    "installed_by_id": "users",
    "invoice_id": "invoices",
    "manager_contact_id": "contacts",
    "manager_id": "users",
    "member_id": "users",
    "merged_into_ticket_id": "tickets",
    "opportunity_id": "opportunities",
    "owner_id": "users",
    "parent_agreement_id": "agreements",
    "parent_alert_id": "alerts",
    "parent_company_id": "companies",
    "parent_device_id": "devices",
    "parent_ticket_id": "tickets",
    "project_id": "projects",
    "reports_to_id": "users",
    "secondary_owner_id": "users",
    "ship_to_company_id": "companies",
    "ship_to_contact_id": "contacts",
    "subcontract_company_id": "companies",
    "technical_contact_id": "contacts",
    "territory_manager_id": "users",
    "ticket_id": "tickets",
    "time_approver_id": "users",
    "user_id": "users",
    "vendor_id": "companies",
}

# The copy of the vendor's description we have is cut to 48 paths; both lists are in the vendor's own file (2025.8, the
# types of github.com/covenanttechnologysolutions/connectwise-rest) with the fields our mapping names.
NOT_DESCRIBED = {
    "configurations": "company/configurations is cut",
    "expense_entries": "expense/entries is cut",
    "project_ticket_notes": "project/tickets/{id}/notes is cut",
}

# What the vendor calls the record types behind our tables.
VENDOR_TYPES = {
    "agreements": "Agreement",
    "companies": "Company",
    "contacts": "Contact",
    "invoices": "Invoice",
    "opportunities": "Opportunity",
    "projects": "Project",
    "tickets": "Ticket",
    "products": "CatalogItem",
    "users": "Member",
}

JSON_TYPES = {
    "string": {"string", "integer", "number"},
    "int64": {"integer"},
    "float64": {"integer", "number"},
    "decimal": {"integer", "number"},
    "bool": {"boolean"},
    "timestamp": {"string"},
    "date": {"string"},
    "json": {"array", "object"},
}
Schema: TypeAlias = dict[str, Any]


class Description:
    """A vendor's OpenAPI file, asked for one thing: what lies at this path of a record of this list."""

    def __init__(self, document: Schema) -> None:
        self._document = document
        self._lists = {_anonymous(path): item["get"] for path, item in document["paths"].items() if "get" in item}

    def parameters_of(self, path: str) -> set[str]:
        return {parameter["name"] for parameter in self._lists[_anonymous(path)]["parameters"]}

    def type_at(self, path: str, field: str) -> str | None:
        """The JSON type at a dotted path of a record; None where the description has no such field."""
        content = self._lists[_anonymous(path)]["responses"]["200"]["content"]
        found: Schema | None = self._open(content["application/json"]["schema"]["items"])
        for key in field.split("."):
            found = self._step(found, key) if found is not None else None
        return found.get("type", "object") if found is not None else None

    def refers_to(self, path: str, field: str) -> str | None:
        """The record type a field refers to (`Company`), from the name of its schema (`CompanyReference`)."""
        content = self._lists[_anonymous(path)]["responses"]["200"]["content"]
        record = self._open(content["application/json"]["schema"]["items"])
        schema = record["properties"].get(field, {}).get("$ref", "")
        return schema.rsplit("/", 1)[-1].removesuffix("Reference") or None

    def _step(self, schema: Schema, key: str) -> Schema | None:
        if key.isdigit():
            found = schema.get("items")
        else:
            found = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
        return self._open(found) if isinstance(found, dict) else None

    def _open(self, schema: Schema) -> Schema:
        while "$ref" in schema:
            schema = self._document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]
        return schema


def _anonymous(path: str) -> str:
    """`/service/boards/{parentId}/statuses` and `service/boards/{board_id}/statuses` are the same list."""
    return re.sub(r"\{[^}]*\}", "{}", path).strip("/")


@pytest.fixture(scope="module")
def description() -> Description:
    place = os.environ.get("AVESA_VENDOR_SPECS")  # noqa: TID251 - read by a test, not by the program
    file = Path(place or REPOSITORY.parent / "shared" / "vendors" / "specs") / "connectwise_psa.json"
    if not file.is_file():
        pytest.skip(f"the vendor's description is not here: {file} (AVESA_VENDOR_SPECS names its folder)")
    return Description(json.loads(file.read_bytes()))


def _described() -> Iterator[tuple[str, Endpoint]]:
    return ((name, endpoint) for name, endpoint in CONNECTWISE.endpoints.items() if name not in NOT_DESCRIBED)


def _sources(field: fields.Field) -> tuple[str, ...]:
    """Every path a field reads its value from."""
    match field:
        case str():
            return (field,)
        case fields.First(paths=paths) | fields.Call(paths=paths):
            return tuple(paths)
        case fields.Item(path=path) | fields.ValueMap(path=path) | fields.When(path=path):
            return (path,)
        case fields.Constant():
            return ()


def _tests(field: fields.Field) -> tuple[str, ...]:
    """Every path a field only looks at."""
    return (field.test,) if isinstance(field, fields.When) else ()


# -- the files among themselves -----------------------------------------------------------------------------------
def test_every_file_is_named_after_what_it_describes() -> None:
    assert {name: table.table for name, table in TABLES.items()} == {name: name for name in TABLES}
    assert {name: each.service for name, each in INTEGRATIONS.items()} == {name: name for name in INTEGRATIONS}


@pytest.mark.parametrize(("kind", "holder"), [("integration", Integration), ("canonical", CanonicalTable)])
def test_the_committed_schema_is_that_of_the_types(kind: str, holder: type[Integration] | type[CanonicalTable]) -> None:
    committed = json.loads((MAPPINGS / "schema" / f"{kind}.json").read_bytes())
    assert committed == json_schema(holder), "make schema"


@pytest.mark.parametrize(
    ("file", "schema"),
    [(file, kind.removesuffix("s")) for kind, files in FILES.items() for file in files],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_every_file_begins_with_its_schema(file: Path, schema: str) -> None:
    first, value = next(iter(json.loads(file.read_bytes()).items()))
    assert (first, value) == ("$schema", f"../schema/{schema}.json")
    assert (file.parent / value).is_file()


def test_the_fourteen_tables_are_there_and_keep_history() -> None:
    expected = {"agreements", "alerts", "companies", "contacts", "devices", "events", "invoices", "notes"}
    assert expected | {"opportunities", "products", "projects", "tickets", "time_entries", "users"} <= set(TABLES)
    assert {table.scd for table in TABLES.values()} == {2}


def test_no_column_takes_a_name_that_every_row_already_has() -> None:
    for table in TABLES.values():
        assert not RESERVED_COLUMNS & set(table.columns), table.table


def test_every_column_says_what_it_means() -> None:
    silent = [f"{t.table}.{name}" for t in TABLES.values() for name, c in t.columns.items() if not c.description]
    assert silent == []


def test_every_table_shows_the_vendors_id_and_every_id_is_text() -> None:
    for table in TABLES.values():
        ids = {name: column.type for name, column in table.columns.items() if name == "id" or name.endswith("_id")}
        assert "id" in ids, table.table
        assert set(ids.values()) == {"string"}, table.table


def test_a_save_without_a_change_makes_no_version() -> None:
    for table in TABLES.values():
        assert not table.columns["last_updated"].tracked, table.table
        assert not table.columns["last_updated_by"].tracked, table.table


def test_every_reference_joins_a_table_that_exists() -> None:
    assert set(JOINS.values()) <= set(TABLES)


def test_a_column_that_says_it_joins_is_in_the_map_of_references() -> None:
    said = {
        name: found.group(1)
        for table in TABLES.values()
        for name, column in table.columns.items()
        if (found := re.search(r"joins (\w+)\.record_id", column.description))
    }
    assert said == {name: JOINS[name] for name in said}
    assert set(JOINS) - set(said) == {"member_id"}  # the second name of user_id


@pytest.mark.parametrize("service", INTEGRATIONS)
def test_every_mapped_column_is_in_its_table_and_can_be_compiled(service: str) -> None:
    integration = INTEGRATIONS[service]
    check_against(integration, TABLES, f"{service}.json")
    for name, endpoint in integration.endpoints.items():
        if endpoint.canonical is not None:
            custom = endpoint.custom_fields or integration.custom_fields
            assert compile_fields(TABLES[endpoint.canonical.table], endpoint.canonical, custom, name)


@pytest.mark.parametrize("service", INTEGRATIONS)
def test_every_row_shows_the_vendors_id_and_when_it_changed_where_that_is_told(service: str) -> None:
    for name, endpoint in INTEGRATIONS[service].endpoints.items():
        if endpoint.canonical is not None:
            mapped = endpoint.canonical.fields
            assert "id" in mapped, name
            told = endpoint.updated_at or INTEGRATIONS[service].updated_at
            assert told is None or {"last_updated", "occurred_at"} & mapped.keys(), name


@pytest.mark.parametrize("service", INTEGRATIONS)
def test_every_integration_is_complete(service: str) -> None:
    integration = INTEGRATIONS[service]
    assert len(integration.endpoints) >= 10
    assert integration.described_by
    assert all(credential.title and credential.hint for credential in integration.credentials.values())
    assert all(endpoint.title for endpoint in integration.endpoints.values())
    assert integration.limits != access.Limits(), "the vendor's own limits"


@pytest.mark.parametrize("service", INTEGRATIONS)
def test_what_is_hidden_in_prompts_is_marked_as_secret(service: str) -> None:
    for name, credential in INTEGRATIONS[service].credentials.items():
        hidden = re.search(r"password|secret|private|token$|_key$", name) and "public" not in name
        assert credential.secret or not hidden, name


def test_every_template_is_filled_from_a_credential() -> None:
    assert isinstance(CONNECTWISE.auth, access.BasicAuth)
    templates = [CONNECTWISE.base_url, CONNECTWISE.auth.username, CONNECTWISE.auth.password]
    used = set(re.findall(r"\{(\w+)\}", " ".join([*templates, *CONNECTWISE.headers.values()])))
    assert used == set(CONNECTWISE.credentials)


def test_a_deleted_record_is_confirmed_at_its_own_path() -> None:
    for name, endpoint in CONNECTWISE.endpoints.items():
        assert isinstance(endpoint.deletes, reading.Sweep), name
        own = None if endpoint.parent is not None else f"{endpoint.path}/{{record_id}}"
        assert endpoint.deletes.confirm == own, name


def test_service_and_project_tickets_are_one_family_and_one_table() -> None:
    assert CONNECTWISE.family_of("tickets") == CONNECTWISE.family_of("project_tickets") == "tickets"


def test_passwords_never_leave_the_extractor() -> None:
    dropped = {name: endpoint.drop for name, endpoint in CONNECTWISE.endpoints.items() if endpoint.drop}
    assert dropped == {
        "contacts": ["portalPassword"],
        "configurations": ["questions"],  # a question's answer may be of the type Password
        "members": ["password", "token", "office365"],
    }


def test_a_backfill_goes_in_chunks_of_days_for_services_that_exist() -> None:
    backfill = json.loads((MAPPINGS / "backfill.json").read_bytes())
    assert backfill["chunk_days"] == 30
    for service, settings in backfill["services"].items():
        assert (MAPPINGS / "integrations" / f"{service}.json").is_file()
        assert settings["chunk_days"] > 0


# -- the files against the vendor's description ----------------------------------------------------------------------
def test_the_vendor_describes_every_list_but_the_named_ones(description: Description) -> None:
    for name, endpoint in CONNECTWISE.endpoints.items():
        if name in NOT_DESCRIBED:
            with pytest.raises(KeyError):
                description.parameters_of(endpoint.path)
        else:
            assert description.parameters_of(endpoint.path), name


def test_the_vendor_has_every_mapped_field_in_a_type_its_column_can_hold(description: Description) -> None:
    wrong = []
    for name, endpoint in _described():
        mapping = endpoint.canonical
        for column, field in mapping.fields.items() if mapping is not None else ():
            expected = JSON_TYPES[TABLES[mapping.table].columns[column].type] if mapping is not None else set()
            if isinstance(field, fields.ValueMap):
                expected = {"string", "integer", "boolean"}
            if isinstance(field, fields.Call):  # what a function takes is its own affair, but it must be there
                expected = {"string", "integer", "number", "boolean", "array", "object"}
            places = [(path, expected) for path in _sources(field)] + [(path, {"string"}) for path in _tests(field)]
            for path, allowed in places:
                found = description.type_at(endpoint.path, path)
                if found not in allowed:
                    wrong.append(f"{name}.{column}: {path} is {found or 'not described'}")
    assert wrong == []


def test_a_reference_of_ours_is_a_reference_to_that_record_type_at_the_vendor(description: Description) -> None:
    checked = 0
    for name, endpoint in _described():
        for column, field in endpoint.canonical.fields.items() if endpoint.canonical is not None else ():
            for path in _sources(field) if column in JOINS else ():
                if path.endswith(".id"):
                    found = description.refers_to(endpoint.path, path.removesuffix(".id"))
                    assert found == VENDOR_TYPES[JOINS[column]], f"{name}.{column}"
                    checked += 1
    assert checked > 40


def test_the_vendors_custom_fields_are_a_list_of_captions_and_values(description: Description) -> None:
    custom = CONNECTWISE.custom_fields
    assert isinstance(custom, fields.NamedValues)
    for name in ("tickets", "project_tickets", "time_entries", "companies", "contacts", "members", "agreements"):
        path = CONNECTWISE.endpoints[name].path
        assert description.type_at(path, custom.path) == "array"
        assert description.type_at(path, f"{custom.path}.0.{custom.name}") == "string"
        assert description.type_at(path, f"{custom.path}.0.{custom.value}") is not None
