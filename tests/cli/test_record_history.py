"""One record's rows as steps: what changed, when it was gone, what held when."""

from typing import Any

from services.cli.record_history import Difference, Entity, as_of, differences, histories
from services.contracts.rows import folded_rows
from tests.compactor.observed import TABLES, TENANT, TICKETS, at, seen


def told(*observed: Any, deletes: list[float] | None = None, record_id: str = "1") -> list[Entity]:
    """The histories of what was observed; `deletes` are the seconds of those that the timeline table remembers."""
    rows = [row for row in folded_rows(observed, TABLES) if row["record_id"] == record_id]
    return histories(TICKETS, record_id, rows, [gone(second) for second in deletes or []])


def gone(second: float, op: str = "delete") -> dict[str, Any]:
    owner = {"tenant_id": TENANT, "service": "connectwise", "family": "tickets", "record_id": "1"}
    return {**owner, "op": op, "effective_at": at(second), "observed_at": at(second + 0.5)}


def test_each_version_is_a_step_and_tells_what_differs_from_the_one_before() -> None:
    (entity,) = told(seen({"summary": "A", "hours": "1.5"}, 1), seen({"summary": "B", "hours": "1.5"}, 3))
    first, second = entity.steps
    assert (first.event, first.at, first.until, first.changed) == ("first seen", at(1), at(3), {})
    assert (second.event, second.at, second.until) == ("changed", at(3), None)
    assert second.changed == {"summary": Difference("A", "B")}
    assert not entity.deleted


def test_a_gap_is_a_deletion_and_what_follows_it_is_compared_over_it() -> None:
    (entity,) = told(seen({"summary": "A"}, 1), seen(None, 2), seen({"summary": "B"}, 4), deletes=[2])
    assert [(step.event, step.at, step.until) for step in entity.steps] == [
        ("first seen", at(1), at(2)),
        ("deleted", at(2), at(4)),
        ("restored", at(4), None),
    ]
    assert entity.steps[1].observed_at == at(2.5)
    assert entity.steps[2].changed == {"summary": Difference("A", "B")}


def test_what_is_deleted_now_ends_with_its_deletion() -> None:
    (entity,) = told(seen({"summary": "A"}, 1), seen(None, 2))
    assert entity.deleted
    assert (entity.steps[-1].event, entity.steps[-1].until, entity.steps[-1].observed_at) == ("deleted", None, None)


def test_a_deletion_of_which_no_version_is_left_is_told_all_the_same() -> None:
    (entity,) = told(deletes=[2, 5])
    assert [(step.event, step.at) for step in entity.steps] == [("deleted", at(5))]


def test_observations_that_made_no_version_are_no_deletions() -> None:
    assert histories(TICKETS, "1", [], [gone(2, op="upsert")]) == []


def test_the_same_id_at_two_tenants_is_two_records() -> None:
    found = told(seen({"summary": "A"}, 1), seen({"summary": "Z"}, 1, tenant_id="be-ta"))
    assert [entity.tenant_id for entity in found] == [TENANT, "be-ta"]
    assert found[0].title == f"tickets 1 of {TENANT}, connectwise"


def test_the_step_that_held_at_a_time_begins_with_it_and_ends_before_the_next() -> None:
    (entity,) = told(seen({"summary": "A"}, 1), seen({"summary": "B"}, 3))
    found = [as_of(entity.steps, at(second)) for second in (0.5, 1, 2.9, 3, 99)]
    assert [step.row["summary"] if step and step.row else None for step in found] == [None, "A", "A", "B", "B"]


def test_custom_fields_are_compared_one_by_one() -> None:
    before = {"summary": "A", "custom_fields": '{"VIP":false,"Tag":"x"}', "valid_from": at(1)}
    after = {"summary": "A", "custom_fields": '{"VIP":true,"Site":1}', "valid_from": at(2)}
    assert differences(TICKETS, before, after) == {
        "custom_fields.VIP": Difference(False, True),
        "custom_fields.Tag": Difference("x", None),
        "custom_fields.Site": Difference(None, 1),
    }


def test_custom_fields_that_are_no_object_are_compared_whole() -> None:
    assert differences(TICKETS, {"custom_fields": "[1]"}, {"custom_fields": None}) == {
        "custom_fields": Difference("[1]", None)
    }
