"""An integration as the extractor works with it."""

from typing import Any

import msgspec
import pytest

from services.contracts.errors import UsageError
from services.contracts.integration import Integration, Keyset, Sweep
from services.extractor.plan import spec_of, specs, with_parents
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
        {"a": {}, "b": {"updated_at": "u"}}, pagination=keyset, updated_at="m.t", deletes={"type": "sweep"}
    )
    a, b = specs(made).values()
    assert isinstance(a.pagination, Keyset)
    assert a.rules.key == ("id",)
    assert isinstance(a.sweep, Sweep)
    assert (a.rules.updated_at, b.rules.updated_at) == (("m", "t"), ("u",))


def test_an_incremental_that_asks_nothing_is_none() -> None:
    assert spec_of(integration({"a": {"incremental": {}}}), "a").incremental is None


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


def test_every_shipped_integration_can_be_read() -> None:
    for made in load_mappings().integrations.values():
        assert specs(made)
