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

import msgspec
import pytest

from services.contracts import integration as kinds
from services.contracts.integration import Endpoint, Integration
from services.contracts.schema import RESERVED_COLUMNS, CanonicalTable

REPOSITORY = Path(__file__).resolve().parents[2]
MAPPINGS = REPOSITORY / "mappings"
TABLES = {
    file.stem: msgspec.json.decode(file.read_bytes(), type=CanonicalTable)
    for file in sorted((MAPPINGS / "canonical").glob("*.json"))
}
CONNECTWISE = msgspec.json.decode((MAPPINGS / "integrations" / "connectwise.json").read_bytes(), type=Integration)

# Which table a reference joins, on (service, id).
JOINS = {
    "agreement_id": "agreements",
    "assistant_contact_id": "contacts",
    "bill_to_company_id": "companies",
    "bill_to_contact_id": "contacts",
    "billing_contact_id": "contacts",
    "closed_by_id": "users",
    "company_id": "companies",
    "contact_id": "contacts",
    "default_contact_id": "contacts",
    "default_merge_contact_id": "contacts",
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
NOT_DESCRIBED = {"configurations": "company/configurations is cut", "expense_entries": "expense/entries is cut"}

# What the vendor calls the record types behind our tables.
VENDOR_TYPES = {
    "agreements": "Agreement",
    "companies": "Company",
    "contacts": "Contact",
    "invoices": "Invoice",
    "opportunities": "Opportunity",
    "projects": "Project",
    "tickets": "Ticket",
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


def _sources(field: kinds.Field) -> tuple[str, ...]:
    """Every path a field reads its value from."""
    match field:
        case str():
            return (field,)
        case kinds.First(paths=paths) | kinds.Call(paths=paths):
            return tuple(paths)
        case kinds.ValueMap(path=path) | kinds.When(path=path):
            return (path,)
        case kinds.Constant():
            return ()


def _tests(field: kinds.Field) -> tuple[str, ...]:
    """Every path a field only looks at."""
    return (field.test,) if isinstance(field, kinds.When) else ()


# -- the files among themselves -----------------------------------------------------------------------------------
def test_every_file_decodes_into_its_type_and_is_named_after_what_it_describes() -> None:
    assert {name: table.table for name, table in TABLES.items()} == {name: name for name in TABLES}
    for file in (MAPPINGS / "integrations").glob("*.json"):
        assert msgspec.json.decode(file.read_bytes(), type=Integration).service == file.stem


def test_the_ten_tables_are_there_and_keep_history() -> None:
    expected = {"agreements", "companies", "contacts", "devices", "invoices", "opportunities"}
    assert expected | {"projects", "tickets", "time_entries", "users"} <= set(TABLES)
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


def test_every_mapped_column_is_in_its_table() -> None:
    for name, endpoint in CONNECTWISE.endpoints.items():
        if endpoint.canonical is not None:
            table = TABLES[endpoint.canonical.table]
            assert set(endpoint.canonical.fields) <= set(table.all_columns()), name


def test_every_endpoint_below_another_names_one_that_exists_and_uses_its_value() -> None:
    for name, endpoint in CONNECTWISE.endpoints.items():
        wanted = set(re.findall(r"\{(\w+)\}", endpoint.path))
        assert wanted == ({endpoint.parent.name} if endpoint.parent is not None else set()), name
        assert endpoint.parent is None or endpoint.parent.endpoint in CONNECTWISE.endpoints, name


def test_every_template_is_filled_from_a_credential() -> None:
    assert isinstance(CONNECTWISE.auth, kinds.BasicAuth)
    templates = [CONNECTWISE.base_url, CONNECTWISE.auth.username, CONNECTWISE.auth.password]
    used = set(re.findall(r"\{(\w+)\}", " ".join([*templates, *CONNECTWISE.headers.values()])))
    assert used == set(CONNECTWISE.credentials)


def test_a_deleted_record_is_confirmed_at_its_own_path() -> None:
    for name, endpoint in CONNECTWISE.endpoints.items():
        assert isinstance(endpoint.deletes, kinds.Sweep), name
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


def test_the_vendor_takes_every_query_parameter_we_send(description: Description) -> None:
    pages = CONNECTWISE.pagination
    assert isinstance(pages, kinds.Keyset)
    assert pages.size_param is not None
    assert CONNECTWISE.filter is not None
    for name, endpoint in _described():
        assert isinstance(endpoint.deletes, kinds.Sweep)
        sent = {CONNECTWISE.filter.param, pages.size_param, *pages.order, *endpoint.params, *endpoint.deletes.params}
        assert sent <= description.parameters_of(endpoint.path), name


def test_the_vendor_has_every_key_stamp_and_dropped_field(description: Description) -> None:
    pages = CONNECTWISE.pagination
    assert isinstance(pages, kinds.Keyset)
    for name, endpoint in _described():
        keys = [endpoint.record_id] if isinstance(endpoint.record_id, str) else endpoint.record_id
        assert isinstance(endpoint.deletes, kinds.Sweep)
        for key in [*keys, pages.key, *endpoint.deletes.params["fields"].split(",")]:
            assert description.type_at(endpoint.path, key) == "integer", f"{name}: {key}"
        if endpoint.updated_at is not None:
            assert description.type_at(endpoint.path, endpoint.updated_at) == "string", name
        for path in endpoint.drop:
            assert description.type_at(endpoint.path, path) is not None, f"{name}: {path}"
    for rule in CONNECTWISE.drop_items:
        assert description.type_at("service/tickets", f"{rule.path}.0.{rule.test}") == "string", rule


def test_the_vendor_has_every_mapped_field_in_a_type_its_column_can_hold(description: Description) -> None:
    wrong = []
    for name, endpoint in _described():
        mapping = endpoint.canonical
        for column, field in mapping.fields.items() if mapping is not None else ():
            expected = JSON_TYPES[TABLES[mapping.table].columns[column].type] if mapping is not None else set()
            if isinstance(field, kinds.ValueMap):
                expected = {"string", "integer", "boolean"}
            if isinstance(field, kinds.Call):  # what a function takes is its own affair, but it must be there
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
    assert isinstance(custom, kinds.NamedValues)
    for name in ("tickets", "project_tickets", "time_entries", "companies", "contacts", "members", "agreements"):
        path = CONNECTWISE.endpoints[name].path
        assert description.type_at(path, custom.path) == "array"
        assert description.type_at(path, f"{custom.path}.0.{custom.name}") == "string"
        assert description.type_at(path, f"{custom.path}.0.{custom.value}") is not None
