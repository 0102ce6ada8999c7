"""Merging batches, in any order and with any deaths in between, gives the fold of their union."""

import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.compactor.history import Watermark
from services.compactor.merge import Merged, merge
from services.compactor.parquet import canonical_file, observations, read
from services.contracts.errors import ConflictError, RetryableError
from services.contracts.events import CanonicalEvent
from services.contracts.rows import folded_rows
from services.contracts.schema import CanonicalTable
from services.contracts.times import UtcTime
from tests.compactor.memory_history import Held, MemoryHistories, MemoryHistory
from tests.compactor.observed import TABLES, TENANT, TICKETS, USERS, at, seen
from tests.compactor.observed import observations as any_observations


def batch_of(events: list[CanonicalEvent], table: CanonicalTable = TICKETS) -> pa.Table:
    return observations(read(canonical_file(events, table, {})), table)


def put(
    held: Held, *events: CanonicalEvent, cut: int = 1, table: CanonicalTable = TICKETS, dies_at: str = ""
) -> Merged:
    """One merge. A merger that dies leaves what it had committed."""
    history = MemoryHistory(held, dies_at)
    return merge(history, TENANT, table, batch_of(list(events), table), Watermark("s", {"connectwise/0": cut}))


def versions(held: Held) -> list[str]:
    """Each version as `content from-to`, in seconds."""
    return [f"{row['summary']} {_second(row['valid_from'])}-{_second(row['valid_to'])}" for row in held.rows]


def _second(time: UtcTime | None) -> str:
    return "" if time is None else str(int(time[17:19]))


@given(st.data(), st.sampled_from([TICKETS, USERS]))
@settings(max_examples=40, deadline=None)
def test_batches_with_deaths_between_the_two_commits_merge_to_the_fold_of_their_union(
    data: st.DataObject, table: CanonicalTable
) -> None:
    check_batches(data, table)


def check_batches(data: st.DataObject, table: CanonicalTable) -> None:
    batches = data.draw(st.lists(st.lists(any_observations(table), max_size=6), max_size=6))
    histories = MemoryHistories()
    for cut, events in enumerate(batches, start=1):
        histories.dies_at = data.draw(st.lists(st.sampled_from(["timeline", "versions"]), max_size=2))
        for _ in range(3):
            history = histories(TENANT, table)
            try:
                merge(history, TENANT, table, batch_of(events, table), Watermark("s", {"connectwise/0": cut}))
                break
            except RetryableError:
                continue
    every = [event for events in batches for event in events]
    assert histories.rows() == folded_rows(every, TABLES)


@given(st.lists(any_observations(), max_size=8), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_batches_does_not_matter(events: list[CanonicalEvent], chance: random.Random) -> None:
    held = Held(TICKETS)
    for event in chance.sample(events * 2, len(events) * 2):
        put(held, event)
    assert held.rows == folded_rows(events, TABLES)


def test_a_late_observation_splits_the_version_it_falls_into() -> None:
    held = Held(TICKETS)
    put(held, seen({"summary": "A"}, 1), seen({"summary": "A"}, 3))
    put(held, seen({"summary": "B"}, 2))
    assert versions(held) == ["A 1-2", "B 2-3", "A 3-"]


def test_a_delete_of_something_never_seen_leaves_no_row_and_closes_what_comes_late() -> None:
    held = Held(TICKETS)
    put(held, seen(None, 5))
    assert versions(held) == []
    put(held, seen({"summary": "A"}, 1))
    assert versions(held) == ["A 1-5"]


def test_untracked_values_of_an_observation_inside_a_run_come_back_when_it_is_split() -> None:
    held = Held(TICKETS)
    put(held, seen({"summary": "A", "views": 1}, 1), seen({"summary": "A", "views": 2}, 3))
    put(held, seen({"summary": "B"}, 2))
    first = held.rows[0]
    assert (first["views"], first["last_effective_at"]) == (1, at(1))


def test_changes_after_what_is_known_read_no_history() -> None:
    held = Held(TICKETS)
    put(held, seen({"summary": "A"}, 1))
    put(held, seen({"summary": "B"}, 2))
    history = MemoryHistory(held)
    later = [seen({"summary": "C"}, 3), seen(None, 4), seen({"summary": "D"}, 5)]
    merge(history, TENANT, TICKETS, batch_of(later), Watermark("s", {}))
    assert history.closed_reads == 0
    assert len(held.rows) == 4


def test_what_is_known_already_changes_nothing_but_the_watermark() -> None:
    held = Held(TICKETS)
    events = (seen({"summary": "A"}, 1), seen({"summary": "B"}, 2), seen(None, 3))
    put(held, *events)
    again = put(held, *events, cut=2)
    assert (again.rows_written, again.rows_removed, again.remembered) == (0, 0, 0)
    assert held.watermark == Watermark("s", {"connectwise/0": 2})


def test_the_timeline_grows_before_the_versions_change() -> None:
    held = Held(TICKETS)
    put(held, seen({"summary": "A"}, 1))
    with pytest.raises(RetryableError):
        put(held, seen({"summary": "A"}, 2), dies_at="timeline")
    assert [entry["effective_at"] for entry in held.timeline] == [at(1)]
    assert held.rows[0]["last_effective_at"] == at(1)


def test_of_two_mergers_of_one_table_one_is_refused() -> None:
    held = Held(TICKETS)
    slow, fast = MemoryHistory(held), MemoryHistory(held)
    batch = batch_of([seen({"summary": "A"}, 1)])
    merge(fast, TENANT, TICKETS, batch, Watermark("s", {}))
    with pytest.raises(ConflictError):
        merge(slow, TENANT, TICKETS, batch, Watermark("s", {}))


def test_a_table_of_living_rows_forgets_no_delete() -> None:
    held = Held(USERS)
    put(held, seen({"name": "A"}, 1, table=USERS), table=USERS)
    put(held, seen(None, 3, table=USERS), table=USERS)
    put(held, seen({"name": "B"}, 2, table=USERS), table=USERS)
    assert held.rows == []
    assert [(entry["effective_at"], entry["op"]) for entry in held.timeline] == [(at(3), "delete")]


def test_cut_numbers_of_another_stream_are_not_compared() -> None:
    watermark = Watermark("old stream", {"connectwise/0": 9})
    assert watermark.covers("old stream", ["connectwise/0"], 9)
    assert not watermark.covers("new stream", ["connectwise/0"], 1)
    assert watermark.raised(Watermark("new stream", {"connectwise/0": 1})).cuts == {"connectwise/0": 1}
    assert watermark.raised(Watermark("old stream", {"connectwise/0": 3, "x/0": 1})).cuts == {
        "connectwise/0": 9,
        "x/0": 1,
    }
