"""The fold (DESIGN 2.2) by example, and what holds of every history. Against an oracle, in any order: tests/history."""

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from services.contracts.fold import Observation, Version, fold, survivors

Seen = Observation[str]


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}.000000Z"


def seen(tracked: str, effective: int, observed: int = 0, untracked: str = "", mapping_version: int = 1) -> Seen:
    """`tracked` None-like "" is a delete."""
    digest = f"{tracked}/{untracked}" if tracked else ""
    return Observation(at(effective), at(observed), not tracked, mapping_version, tracked, digest, digest)


def gone(effective: int, observed: int = 0) -> Seen:
    return seen("", effective, observed)


def shown(versions: Iterable[Version[str]]) -> str:
    """`A 1-2, B 2-` for A on [1, 2) and B from 2 on."""
    return ", ".join(
        f"{v.last.record_hash} {v.valid_from[17:19].lstrip('0')}-{(v.valid_to or '')[17:19].lstrip('0')}"
        for v in versions
    )


def test_neighbours_with_equal_tracked_columns_are_one_version() -> None:
    assert shown(fold([seen("A", 1), seen("A", 3)])) == "A 1-"


def test_a_late_observation_splits_the_run_it_falls_into() -> None:
    assert shown(fold([seen("A", 1), seen("A", 3), seen("B", 2)])) == "A 1-2, B 2-3, A 3-"


def test_a_delete_ends_the_interval_and_a_later_upsert_opens_a_new_one_after_the_gap() -> None:
    assert shown(fold([seen("A", 1), gone(3), seen("A", 5)])) == "A 1-3, A 5-"


def test_a_delete_of_something_never_seen_leaves_no_row_but_closes_an_earlier_upsert() -> None:
    assert shown(fold([gone(3)])) == ""
    assert shown(fold([gone(3), seen("A", 1)])) == "A 1-3"


def test_at_one_time_a_delete_wins_then_the_later_reading_then_the_higher_mapping_then_the_greater_digest() -> None:
    assert shown(fold([gone(1), seen("A", 1, observed=9)])) == ""
    assert shown(fold([seen("B", 1, observed=1), seen("A", 1, observed=2)])) == "A 1-"
    assert shown(fold([seen("B", 1), seen("A", 1, mapping_version=2)])) == "A 1-"
    assert shown(fold([seen("A", 1), seen("B", 1)])) == "B 1-"


def test_untracked_columns_make_no_version_and_take_the_last_values() -> None:
    (only,) = fold([seen("A", 1, untracked="x"), seen("A", 2, untracked="y")])
    assert (only.valid_from, only.last.row, only.first.row) == (at(1), "A/y", "A/x")


def test_without_history_there_is_one_row_per_living_record() -> None:
    assert shown(fold([seen("A", 1), seen("A", 3)], scd=1)) == "A 3-"
    assert shown(fold([seen("A", 1), gone(3)], scd=1)) == ""
    assert shown(fold([seen("B", 5), gone(3)], scd=1)) == "B 5-"


observations = st.builds(
    seen,
    tracked=st.sampled_from(["A", "B", "C", ""]),
    effective=st.integers(1, 6),  # few moments: about half of the observations are ties
    observed=st.integers(0, 3),
    untracked=st.sampled_from(["", "x", "y"]),
    mapping_version=st.integers(1, 2),
)


@settings(max_examples=1_000, deadline=None)
@given(st.lists(observations, max_size=16))
def test_versions_never_overlap_and_at_most_one_is_open(history: list[Seen]) -> None:
    versions = fold(history)
    assert all(v.valid_to is None or v.valid_from < v.valid_to for v in versions)
    assert all(a.valid_to is not None and a.valid_to <= b.valid_from for a, b in pairwise(versions))


@settings(max_examples=1_000, deadline=None)
@given(st.lists(observations, max_size=16))
def test_losers_can_be_forgotten(history: list[Seen]) -> None:
    """What lets a table keep survivors only: the fold of the survivors is the fold of all."""
    assert fold(survivors(history)) == fold(history)
