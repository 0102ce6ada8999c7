"""From a vendor's record to a canonical row: every kind of field, custom fields, bad values, drift; golden pairs."""

from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from services.contracts.errors import RejectedError, UsageError
from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.fields import (
    Call,
    CanonicalMapping,
    Constant,
    CustomFields,
    Field,
    First,
    KeyPattern,
    NamedValues,
    ObjectAt,
    ValueMap,
    When,
)
from services.contracts.integration import Endpoint
from services.contracts.rows import digests
from services.contracts.schema import CanonicalTable, Column
from services.runtime.mapping_files import load_mappings
from services.transformer.drift import Drift
from services.transformer.mapper import Mapper, routes
from services.transformer.pinned import Pinned, PinnedEndpoint, shipped
from tests.transformer.world import TICKETS, files, gone, ticket

GOLDEN = Path(__file__).parent / "golden"
TABLE = CanonicalTable(
    "things",
    {"a": Column("string"), "b": Column("int64"), "c": Column("bool", tracked=False), "d": Column("timestamp")},
)


def mapper(
    fields: dict[str, Field],
    custom_fields: CustomFields | None = None,
    table: CanonicalTable = TABLE,
    zone: str = "UTC",
    blank: Literal["text", "null"] = "text",
) -> Mapper:
    endpoint = PinnedEndpoint("things", CanonicalMapping("things", fields, zone, blank))
    return Mapper(Pinned("acme", "desk", 3, table, {"things": endpoint}, custom_fields))


def mapped(made: Mapper, payload: str, drift: Drift | None = None) -> CanonicalEvent:
    now = "2026-01-01T00:00:00.000000Z"
    raw = msgspec.Raw(payload.encode())
    event = made.map(ChangeEvent("acme", "desk", "things", "1", "upsert", now, now, payload=raw), drift)
    assert event is not None
    return event


def row(fields: dict[str, Field], payload: str, custom_fields: CustomFields | None = None) -> str:
    event = mapped(mapper(fields, custom_fields), payload)
    return bytes(event.row).decode()  # type: ignore[arg-type]


def test_a_row_holds_its_values_in_column_order_without_nulls() -> None:
    assert row({"b": "y", "a": "x.z"}, '{"y":"5","x":{"z":"Ä"},"other":1}') == '{"a":"Ä","b":5}'
    assert row({"b": "y", "a": "x.z"}, '{"y":null}') == "{}"


def test_the_digests_of_a_row_are_those_of_the_contracts() -> None:
    event = mapped(mapper({"a": "a", "b": "b", "c": "c"}), '{"a":"1","b":2.0,"c":"true"}')
    assert (event.record_hash, event.row_digest) == digests(TABLE, {"a": "1", "b": 2, "c": True})
    touched = mapped(mapper({"a": "a", "b": "b", "c": "c"}), '{"a":1,"b":"2","c":0}')
    assert touched.record_hash == event.record_hash
    assert touched.row_digest != event.row_digest


def test_an_event_carries_what_it_came_with_and_who_mapped_it() -> None:
    (made,) = shipped(files(), "acme", "desk", 7).values()
    event = Mapper(made).map(ticket("9", 5, observed=6))
    assert event is not None
    assert (event.table, event.family, event.record_id, event.op) == ("tickets", "tickets", "9", "upsert")
    assert (event.effective_at[17:19], event.observed_at[17:19]) == ("05", "06")
    assert (event.mapping_version, event.label, event.evidence) == (7, "unknown", "vendor")


FIRST = First(["x", "y.z"])
MAP = ValueMap("x", {"1": "one", "true": "yes"})
WHEN = When("x", "y", ["Ticket"])


@pytest.mark.parametrize(
    ("field", "payload", "expected"),
    [
        (FIRST, '{"x":"1","y":{"z":"2"}}', '{"a":"1"}'),
        (FIRST, '{"x":null,"y":{"z":"2"}}', '{"a":"2"}'),
        (FIRST, '{"x":""}', '{"a":""}'),
        (FIRST, "{}", "{}"),
        (FIRST, '{"x":"1","y":"re-typed"}', '{"a":"1"}'),
        (First(["y.z", "x"]), '{"x":"1","y":"re-typed"}', '{"a":"1"}'),
        (MAP, '{"x":1}', '{"a":"one"}'),
        (MAP, '{"x":true}', '{"a":"yes"}'),
        (MAP, '{"x":"other"}', '{"a":"other"}'),
        (MAP, '{"x":null}', "{}"),
        (ValueMap("x", {"1": "one"}, default="many"), '{"x":2}', '{"a":"many"}'),
        (WHEN, '{"x":7,"y":"Ticket"}', '{"a":"7"}'),
        (WHEN, '{"x":7,"y":"Project"}', "{}"),
        (WHEN, '{"x":7}', "{}"),
        (Constant("fixed"), "{}", '{"a":"fixed"}'),
        (Call("join_space", ["x", "y"]), '{"x":"Maria","y":"Lopez"}', '{"a":"Maria Lopez"}'),
        (Call("join_space", ["x", "y"]), "{}", "{}"),
    ],
)
def test_every_kind_of_field(field: Field, payload: str, expected: str) -> None:
    assert row({"a": field}, payload) == expected


def test_a_time_without_a_zone_stands_in_the_mappings_zone() -> None:
    event = mapped(mapper({"d": "d"}, zone="America/New_York"), '{"d":"2026-01-31 09:15:00"}')
    assert bytes(event.row) == b'{"d":"2026-01-31T14:15:00.000000Z"}'  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "payload", "expected"),
    [
        (
            NamedValues("own", "caption", "value"),
            '{"own":[{"caption":"B","value":1.50},{"caption":"A","value":"x"},{"caption":"C"},{"caption":"D","value":null}]}',
            {"A": "x", "B": 1.5},
        ),
        (
            NamedValues("own", "caption", "value"),
            '{"own":[{"caption":"A"},{"caption":"A","value":2},{"caption":"A (2)","value":3},{"value":4}]}',
            {"A (2)": 2, "A (2) (2)": 3, "unnamed": 4},
        ),
        (ObjectAt("own.fields"), '{"own":{"fields":{"b":[1],"a":null}}}', {"b": [1]}),
        (KeyPattern(suffix="__c"), '{"Id":1,"Tier__c":"Gold","Old__c":null}', {"Tier__c": "Gold"}),
        (KeyPattern(prefix="u_"), '{"u_asset":"A-1","name":"x"}', {"u_asset": "A-1"}),
    ],
)
def test_custom_fields_by_each_rule(rule: CustomFields, payload: str, expected: dict[str, Any]) -> None:
    found = msgspec.json.decode(row({}, payload, rule))
    assert msgspec.json.decode(found["custom_fields"]) == expected


def test_an_endpoints_own_rule_for_custom_fields_counts_before_the_services() -> None:
    endpoint = PinnedEndpoint("things", CanonicalMapping("things", {}), ObjectAt("own"))
    made = Mapper(Pinned("acme", "desk", 3, TABLE, {"things": endpoint}, KeyPattern(prefix="u_")))
    event = mapped(made, '{"own":{"a":1},"u_b":2}')
    assert bytes(event.row).decode() == r'{"custom_fields":"{\"a\":1}"}'  # type: ignore[arg-type]


def test_custom_fields_are_canonical_text_and_null_where_there_are_none() -> None:
    rule = NamedValues("own", "n", "v")
    assert row({}, '{"own":[{"n":"b","v":1.50},{"n":"a","v":{"y":1,"x":2}}]}', rule) == (
        r'{"custom_fields":"{\"a\":{\"x\":2,\"y\":1},\"b\":1.50}"}'
    )
    for payload in ('{"own":[]}', '{"own":null}', "{}", '{"own":[{"n":"a","v":null}]}', '{"own":""}'):
        assert row({}, payload, rule) == "{}"


@pytest.mark.parametrize(
    ("fields", "payload", "where"),
    [
        ({"b": "x.y"}, '{"x":{"y":5.5}}', "$.x.y"),
        ({"a": "x"}, '{"x":{"z":1}}', "$.x"),
        ({"b": First(["x", "y"])}, '{"y":"many"}', "$.x, $.y"),
        ({"a": MAP}, '{"x":[]}', "$.x"),
        ({"b": Call("minutes_to_hours", ["x"])}, '{"x":"soon"}', "$.x"),
        ({}, '{"own":{"a":1}}', "$.own"),
        ({}, '{"own":["a"]}', "$.own"),
        ({"a": "x.y"}, '{"x":"re-typed"}', "$.x.y"),
        ({"a": "x.y"}, '{"x":["re-typed"]}', "$.x.y"),
        ({"a": First(["x.y", "z"])}, '{"x":"re-typed","z":null}', "$.x.y, $.z"),
        ({"a": ValueMap("x.y", {})}, '{"x":"re-typed"}', "$.x.y"),
        ({"a": When("z", "x.y", ["Ticket"])}, '{"x":"re-typed","z":1}', "$.z, $.x.y"),
        ({"a": Call("join_space", ["x.y", "z"])}, '{"x":"re-typed","z":1}', "$.x.y, $.z"),
    ],
)
def test_a_value_its_column_cannot_hold_is_rejected_with_its_place(
    fields: dict[str, Field], payload: str, where: str
) -> None:
    with pytest.raises(RejectedError) as caught:
        row(fields, payload, NamedValues("own", "n", "v"))
    assert (caught.value.code, caught.value.where) == ("bad_value", where)
    assert "expected" in caught.value.what


def test_an_upsert_without_a_payload_is_rejected() -> None:
    now = "2026-01-01T00:00:00.000000Z"
    with pytest.raises(RejectedError, match="without its payload"):
        mapper({"a": "a"}).map(ChangeEvent("acme", "desk", "things", "1", "upsert", now, now))


def test_a_delete_maps_to_a_delete_and_what_no_table_wants_to_nothing() -> None:
    made = Mapper(shipped(files(), "acme", "desk")["tickets"])
    deleted = made.map(gone("4", 2))
    assert deleted is not None
    assert (deleted.op, deleted.record_hash, deleted.row_digest, deleted.row) == ("delete", "", "", msgspec.UNSET)
    assert made.map(ticket(endpoint="notes")) is None
    assert made.map(gone(endpoint="notes")) is None


def test_an_endpoint_of_a_mapped_family_gives_its_deletions_only() -> None:
    recycled = Endpoint("recycle-bin", "id", family="tickets")
    found = routes(map(Mapper, shipped(files(recycled=recycled), "acme", "desk").values()))
    (made,) = found["recycled"]
    deleted = made.map(gone("4", endpoint="recycled"))
    assert deleted is not None
    assert (deleted.table, deleted.family) == ("tickets", "tickets")
    assert made.map(ticket("4", endpoint="recycled")) is None
    assert "notes" not in found


def test_empty_text_is_null_where_the_vendor_writes_null_so() -> None:
    made = mapper({"a": FIRST, "b": "b", "c": MAP}, blank="null")
    assert bytes(mapped(made, '{"x":"","y":{"z":"2"},"b":"","c":""}').row) == b'{"a":"2"}'  # type: ignore[arg-type]
    assert bytes(mapped(made, '{"x":"","y":{"z":""},"b":"0"}').row) == b'{"b":0}'  # type: ignore[arg-type]
    assert row({"a": "x"}, '{"x":""}') == '{"a":""}'


def test_drift_names_the_paths_that_no_record_had() -> None:
    made, drift = mapper({"a": "x.y", "b": "z", "c": "w"}), Drift()
    mapped(made, '{"x":{"y":"1"},"w":null}', drift)
    mapped(made, '{"x":{}}', drift)
    assert (drift.records, drift.missing()) == (2, ["$.z"])
    assert drift.absent["$.x.y"] == 1


@pytest.mark.parametrize(
    ("fields", "zone", "what"),
    [
        ({"a": Call("no_such", ["x"])}, "UTC", "no function 'no_such'"),
        ({"a": Call("minutes_to_hours", ["x", "y"])}, "UTC", "does not take 2 values"),
        ({"b": Constant("many")}, "UTC", "expected a number"),
        ({"a": "x"}, "Mars/Olympus", "no time zone"),
        ({"a": "x"}, "../etc", "no time zone"),
    ],
)
def test_a_mapping_that_cannot_work_is_told_when_it_is_compiled(fields: dict[str, Field], zone: str, what: str) -> None:
    with pytest.raises(UsageError, match=what) as caught:
        mapper(fields, zone=zone)
    assert caught.value.code == "bad_mapping"


@pytest.mark.parametrize("pair", sorted(path.stem for path in GOLDEN.glob("*.json")))
def test_golden_pair(pair: str) -> None:
    held = msgspec.json.decode((GOLDEN / f"{pair}.json").read_bytes(), type=dict[str, msgspec.Raw])
    event = msgspec.json.decode(held["event"], type=ChangeEvent)
    found = routes(map(Mapper, shipped(load_mappings(), event.tenant_id, event.service).values()))
    canonical = [made.map(event) for made in found[event.endpoint]]
    assert msgspec.json.decode(msgspec.json.encode(canonical)) == msgspec.json.decode(held["canonical"])


def test_the_order_of_columns_never_changes_a_digest() -> None:
    other = CanonicalTable("tickets", dict(reversed(TICKETS.columns.items())))
    one = Mapper(shipped(files(), "acme", "desk")["tickets"]).map(ticket())
    two = Mapper(shipped(files(table=other), "acme", "desk")["tickets"]).map(ticket())
    assert one is not None
    assert two is not None
    assert (one.record_hash, one.row_digest) == (two.record_hash, two.row_digest)
