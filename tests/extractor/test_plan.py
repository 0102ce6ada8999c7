"""An integration as the extractor works with it."""

from typing import Any

import msgspec
import pytest

from services.contracts.errors import UsageError
from services.contracts.integration import Integration
from services.contracts.reading import Keyset, Sweep
from services.extractor.plan import spec_of, specs, with_parents
from services.extractor.records import Signs
from services.runtime.mapping_files import load_mappings


def integration(endpoints: dict[str, dict[str, Any]], **more: Any) -> Integration:
    named = {name: {"path": name, "record_id": "id", **endpoint} for name, endpoint in endpoints.items()}
    plain = {"service": "desk", "title": "Desk", "base_url": "{site}", "auth": {"type": "none"}, "endpoints": named}
    return msgspec.convert(plain | more, Integration)


def child_of(parent: str, **more: Any) -> dict[str, Any]:
    return {"path": "x/{parent_id}", "parent": {"endpoint": parent}, **more}


def test_what_an_endpoint_does_not_say_the_integration_says() -> None:
    keyset = {"type": "keyset", "key": "id", "clause": "id > {after}", "order": {}}
    made = integration(
        {"a": {}, "b": {"updated_at": "u"}},
        pagination=keyset,
        updated_at="m.t",
        deletes={"type": "sweep"},
        filter={"param": "q"},
    )
    a, b = specs(made).values()
    assert isinstance(a.pagination, Keyset)
    assert a.rules.key == ("id",)
    assert isinstance(a.sweep, Sweep)
    assert (a.rules.updated_at, b.rules.updated_at) == (("m", "t"), ("u",))


def incremental_of(**endpoint: Any) -> Any:
    return spec_of(integration({"a": {"updated_at": "t", **endpoint}}, filter={"param": "q"}), "a").incremental


def test_an_incremental_that_asks_nothing_is_none() -> None:
    time = {"type": "time"}
    assert incremental_of(incremental=time) is None
    assert incremental_of(incremental={"type": "none"}) is None
    for asking in (
        {"incremental": {**time, "clause": "t > {since}"}},
        {"incremental": {**time, "headers": {"If-Modified-Since": "{since}"}}},
        {"incremental": {**time, "newest_first": True}},
        {"incremental": time, "params": {"from": "{since}"}},
        {"incremental": time, "method": "POST", "body": {"type": "json", "value": {"a": [{"b": "{since}"}]}}},
        {"incremental": {"type": "delta", "path": "token"}},
    ):
        assert incremental_of(**asking) is not None


@pytest.mark.parametrize(
    "endpoint",
    [
        {"incremental": {"type": "time", "clause": "t > {since}"}},  # no filter to put it in
        {"pagination": {"type": "keyset", "key": "id", "clause": "id > {after}"}},
        {"pagination": {"type": "time_window", "cap": 10}},  # no times to ask for
        {"pagination": {"type": "offset", "size": 5, "overlap": 5}},  # would never advance
        {"pagination": {"type": "cursor"}},  # stands nowhere
        {"incremental": {"type": "id"}},  # no keyset
        {"incremental": {"type": "time", "newest_first": True}},  # no time to tell by
    ],
)
def test_what_makes_no_sense_together_is_told_before_anything_is_asked(endpoint: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as raised:
        specs(integration({"a": endpoint}))
    assert raised.value.code == "bad_mapping"
    assert "'a'" in str(raised.value)


def test_clauses_may_stand_in_any_template() -> None:
    keyset = {"type": "keyset", "key": "id", "clause": "id > {after}"}
    body = {"type": "graphql", "query": "{x}", "variables": {"q": "{where}"}}
    assert specs(integration({"a": {"pagination": keyset, "params": {"q": "select {where}"}}}))
    assert specs(integration({"a": {"pagination": keyset, "method": "POST", "body": body}}))


def test_a_sweep_may_list_ids_elsewhere() -> None:
    elsewhere = {"type": "sweep", "path": "ids", "records": "all", "pagination": {"type": "page", "size": 7}}
    endpoint = {"records": "data", "params": {"x": "1"}, "method": "POST", "body": {"type": "form", "fields": {}}}
    (spec,) = specs(integration({"a": {**endpoint, "deletes": elsewhere}})).values()
    swept = spec.for_sweep
    assert swept is not None
    assert (swept.path, swept.method, swept.body, swept.params) == ("ids", "GET", None, {})
    assert (swept.rules.records, swept.rules.rows, spec.rules.records) == (("all",), True, ("data",))
    (same,) = specs(integration({"a": {**endpoint, "deletes": {"type": "sweep", "params": {"f": "id"}}}})).values()
    assert same.for_sweep is not None
    assert (same.for_sweep.params, same.for_sweep.method) == ({"x": "1", "f": "id"}, "POST")
    assert specs(integration({"a": {}}))["a"].for_sweep is None


def test_where_an_answer_tells_how_it_goes_on_is_known() -> None:
    def signs(pagination: dict[str, Any], **more: Any) -> Signs:
        return spec_of(integration({"a": {"pagination": pagination, **more}}), "a").rules.signs

    assert signs({"type": "cursor", "header": "X-Next", "end": "a.end"}) == Signs(header="x-next", end=("a", "end"))
    assert signs({"type": "link"}, incremental={"type": "delta", "path": "d"}) == Signs(link=True, token=("d",))
    window = {"type": "time_window", "cap": 5, "inner": {"type": "offset", "total": "n"}}
    asking = {"type": "time", "params": {"s": "{since}"}}
    assert signs(window, incremental=asking) == Signs(total=("n",))


def test_a_child_says_which_values_of_its_parent_it_needs() -> None:
    made = integration(
        {
            "a": {},
            "b": {"path": "{parent_id}/{org}", "parent": {"endpoint": "a", "values": {"org": "org.id", "n": "name"}}},
            "c": {"path": "{parent_id}/{n}", "parent": {"endpoint": "a", "values": {"n": "name"}}},
        }
    )
    known = specs(made)
    assert known["a"].rules.links == (("org", "id"), ("name",))
    assert (known["b"].inherits, known["c"].inherits) == ((("org", 0), ("n", 1)), (("n", 1),))


def test_an_endpoint_s_own_errors_come_first() -> None:
    rule = {"means": "skip", "status": [403]}
    made = integration({"a": {"errors": [{**rule, "say": "own"}]}}, errors=[{**rule, "say": "all"}])
    assert [found.say for found in specs(made)["a"].errors] == ["own", "all"]


def test_parents_come_before_their_children_even_when_they_are_off() -> None:
    made = integration(
        {"c": child_of("b"), "b": child_of("a", enabled=False), "a": {"enabled": False}, "d": {"enabled": False}}
    )
    assert list(specs(made)) == ["a", "b", "c"]
    assert with_parents(specs(made), {"c"}) == {"a", "b", "c"}
    assert with_parents(specs(made), {"a"}) == {"a"}


def test_an_endpoint_cannot_be_its_own_parent() -> None:
    with pytest.raises(UsageError):
        specs(integration({"a": child_of("b"), "b": child_of("a")}))


def test_a_parent_is_known_by_its_record_id_alone() -> None:
    composite = {"record_id": ["company", "id"]}
    made = integration({"a": composite, "b": {"path": "x/{parent_id}", "parent": {"endpoint": "a", "path": "id"}}})
    assert specs(made)["b"].link == 1
    with pytest.raises(UsageError):
        specs(integration({"a": {}, "b": {"path": "x/{parent_id}", "parent": {"endpoint": "a", "path": "guid"}}}))


def test_a_record_that_needs_its_parent_to_be_read_is_confirmed_by_a_second_sweep() -> None:
    sweep = {"type": "sweep", "confirm": "x/{parent_id}/{record_id}"}
    made = integration(
        {"a": {"deletes": {"type": "sweep", "confirm": "a/{record_id}"}}, "b": child_of("a", deletes=sweep)}
    )
    assert [spec.confirm for spec in specs(made).values()] == ["a/{record_id}", None]


def test_only_another_list_makes_a_walk_start_afresh() -> None:
    shape = spec_of(integration({"a": {}}), "a").shape
    assert spec_of(integration({"a": {"interval_s": 7, "drop": ["x"], "title": "A"}}), "a").shape == shape
    assert spec_of(integration({"a": {"params": {"open": "true"}}}), "a").shape != shape
    assert spec_of(integration({"a": {"path": "b"}}), "a").shape != shape
    assert spec_of(integration({"a": {"headers": {"X-Archived": "true"}}}), "a").shape != shape
    post = {"method": "POST", "body": {"type": "form", "fields": {"a": "b"}}}
    assert spec_of(integration({"a": post}), "a").shape != shape


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"fields": {"names": ["a"]}}, {"fields": {"names": ["a", "b"]}}),
        (
            {"incremental": {"type": "delta", "path": "t", "first": {"$select": "id"}}},
            {"incremental": {"type": "delta", "path": "t", "first": {"$select": "id,mail"}}},
        ),
    ],
)
def test_a_field_that_is_asked_for_anew_is_read_of_every_record(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert spec_of(integration({"a": before}), "a").shape != spec_of(integration({"a": after}), "a").shape


SINCE: dict[str, Any] = {"type": "time", "clause": "t > {since}"}
BELOW: dict[str, Any] = {"path": "a", "parent": {"endpoint": "b"}}


@pytest.mark.parametrize(
    "endpoint",
    [
        {**BELOW, "incremental": SINCE | {"clause": "b = {parent_id} and t > {since}"}},
        {**BELOW, "incremental": SINCE | {"params": {"b": "{parent_id}"}}},
        {**BELOW, "incremental": SINCE, "params": {"where": "b = {parent_id} and t > {since}"}},
        {"incremental": SINCE, "headers": {"X-Ask": "{account_id};{since}"}},
        {**BELOW, "params": {"where": "board = {board} and b = {parent_id}"}},
        {**BELOW, "method": "POST", "body": {"type": "json", "value": {"q": ["b = {parent_id} {cursor}"]}}},
        {
            **BELOW,
            "pagination": {"type": "keyset", "key": "id", "clause": "b = {parent_id} and id > {after}", "start": None},
        },
    ],
)
def test_whose_records_are_asked_for_is_never_left_out_together_with_a_time(endpoint: dict[str, Any]) -> None:
    credentials = {"board": {"title": "Board", "required": False}}
    with pytest.raises(UsageError, match="leaves out"):
        spec_of(integration({"a": endpoint, "b": {}}, filter={"param": "q"}, credentials=credentials), "a")


@pytest.mark.parametrize(
    "endpoint",
    [
        {**BELOW, "incremental": SINCE, "params": {"b": "{parent_id}"}},
        {**BELOW, "pagination": {"type": "keyset", "key": "id", "clause": "b = {parent_id} and id > {after}"}},
        {
            **BELOW,
            "pagination": {"type": "time_window", "cap": 9},
            "incremental": {"type": "time", "params": {"q": "b:{parent_id} t>{since} t<{until}"}},
        },
    ],
)
def test_what_is_sent_every_time_may_say_whose_records_are_asked_for(endpoint: dict[str, Any]) -> None:
    assert spec_of(integration({"a": endpoint, "b": {}}, filter={"param": "q"}), "a").shape


def test_a_sweep_sends_what_goes_with_every_list() -> None:
    swept = {"deletes": {"type": "sweep", "path": "ids", "params": {"n": "1"}}}
    spec = spec_of(integration({"a": swept}, params={"company": "{account_id}"}), "a")
    assert spec.for_sweep is not None
    assert spec.for_sweep.params == {"company": "{account_id}", "n": "1"}


def test_every_shipped_integration_can_be_read() -> None:
    for made in load_mappings().integrations.values():
        assert specs(made)
