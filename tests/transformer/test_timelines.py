"""Live labels, sentence by sentence, and the bounds of what is remembered. In any order of arrival: tests/history."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from services.contracts.events import CanonicalEvent, Op
from services.contracts.fold import Version, fold
from services.contracts.rows import observation_of
from services.transformer import timelines
from services.transformer.timelines import TIMELINE_MAX, Seen, Timeline, labelled, observe, versions


def at(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02d}:{second % 60:02d}.000000Z"


def seen(
    tracked: str, effective: int, observed: int = 0, untracked: str = "", mapping_version: int = 1
) -> CanonicalEvent:
    """One event; `tracked` "" is a delete."""
    op: Op = "upsert" if tracked else "delete"
    event = CanonicalEvent(
        "acme",
        "desk",
        "tickets",
        "tickets",
        "tickets",
        "1",
        op,
        at(effective),
        at(observed),
        "vendor",
        "",
        mapping_version,
    )
    if not tracked:
        return event
    row = msgspec.Raw(msgspec.json.encode({"status": tracked, **({"note": untracked} if untracked else {})}))
    return msgspec.structs.replace(event, record_hash=tracked, row_digest=f"{tracked}/{untracked}", row=row)


def gone(effective: int, observed: int = 0) -> CanonicalEvent:
    return seen("", effective, observed)


def told(events: Iterable[CanonicalEvent], *, lost: bool = False) -> list[Seen]:
    timeline: Timeline | None = None
    all_seen = []
    for event in events:
        all_seen.append(observe(timeline, event, lost=lost))
        timeline = all_seen[-1].timeline
    return all_seen


def labels(*events: CanonicalEvent, lost: bool = False) -> str:
    return " ".join(one.label for one in told(events, lost=lost))


def last(*events: CanonicalEvent) -> Seen:
    return told(events)[-1]


def changed(one: Seen) -> dict[str, tuple[str, str]]:
    return {name: (bytes(c.before).decode(), bytes(c.after).decode()) for name, c in one.changed.items()}


# -- sentences --------------------------------------------------------------------------------------------------------
def test_the_first_sight_is_new_and_the_same_content_later_unchanged() -> None:
    assert labels(seen("A", 1), seen("A", 2)) == "new unchanged"


def test_a_change_names_the_version_it_closes_and_each_column_before_and_after() -> None:
    one = last(seen("A", 1), seen("A", 2), seen("B", 3, untracked="x"))
    assert (one.label, one.previous_from) == ("changed", at(1))
    assert changed(one) == {"status": ('"A"', '"B"'), "note": ("null", '"x"')}


def test_a_touch_changes_untracked_columns_only_and_stays_in_its_version() -> None:
    one = last(seen("A", 1, untracked="x"), seen("A", 2, untracked="y"))
    assert (one.label, one.previous_from) == ("touched", at(1))
    assert changed(one) == {"note": ('"x"', '"y"')}


def test_what_falls_before_the_newest_is_late() -> None:
    assert labels(seen("A", 3), seen("B", 2)) == "new late"
    assert labels(seen("A", 3), seen("B", 2), seen("A", 3)) == "new late repeated"
    assert labels(seen("A", 3), gone(2), seen("B", 4)) == "new late changed"


def test_a_late_observation_moves_the_start_of_the_version_after_it() -> None:
    assert last(seen("A", 1), seen("A", 3), seen("B", 2), seen("C", 4)).previous_from == at(3)


def test_the_very_same_observation_is_repeated_and_one_that_loses_its_tie_superseded() -> None:
    assert labels(seen("A", 1), seen("A", 1)) == "new repeated"
    assert labels(seen("A", 1, 5), seen("B", 1, 4)) == "new superseded"
    assert labels(gone(1), seen("A", 1, 9)) == "deleted superseded"


def test_a_tie_that_is_won_says_what_it_means_now() -> None:
    assert labels(seen("A", 1, 4), seen("B", 1, 5)) == "new changed"
    assert labels(seen("A", 1, 4), seen("A", 1, 5)) == "new unchanged"
    assert labels(seen("A", 1), gone(1)) == "new deleted"
    assert labels(seen("A", 1, 4), seen("C", 2), seen("B", 1, 5)) == "new changed late"


def test_a_delete_closes_the_version_and_a_second_one_changes_nothing() -> None:
    deleted, again = told([seen("A", 1), gone(2), gone(3)])[1:]
    assert (deleted.label, deleted.previous_from) == ("deleted", at(1))
    assert (again.label, again.previous_from) == ("unchanged", at(1))


def test_an_upsert_after_a_delete_is_restored_and_compared_with_what_was_deleted() -> None:
    one = last(seen("A", 1, untracked="x"), gone(2), seen("B", 3, untracked="x"))
    assert (one.label, one.previous_from, changed(one)) == ("restored", at(1), {"status": ('"A"', '"B"')})
    assert changed(last(seen("A", 1), gone(2), seen("A", 3))) == {}


def test_a_delete_of_something_never_seen_is_remembered() -> None:
    assert labels(gone(3), seen("A", 1), seen("A", 4)) == "deleted late restored"
    assert labels(gone(3), seen("A", 4)) == "deleted new"


def test_where_the_deleted_row_itself_lost_its_tie_the_columns_are_not_guessed() -> None:
    one = last(seen("A", 1), seen("B", 2), gone(2), seen("C", 3))
    assert (one.label, changed(one)) == ("restored", {})


def test_without_memory_everything_unheard_of_is_unknown_and_what_follows_is_not() -> None:
    assert labels(seen("A", 5), seen("B", 3), seen("B", 6), lost=True) == "unknown unknown changed"
    assert labels(gone(5), seen("B", 6), lost=True) == "unknown unknown"


def test_a_higher_mapping_version_with_the_same_content_changes_nothing() -> None:
    assert (
        labels(seen("A", 1), seen("A", 1, mapping_version=2), seen("A", 2, mapping_version=1))
        == "new unchanged unchanged"
    )


def test_with_scd_1_every_reading_is_its_own_beginning() -> None:
    timeline = observe(observe(None, seen("A", 1), scd=1).timeline, seen("A", 2), scd=1).timeline
    assert observe(timeline, seen("B", 3), scd=1).previous_from == at(2)


def test_a_label_says_nothing_about_before_where_it_knows_nothing() -> None:
    event = labelled(seen("A", 1), last(seen("A", 1)))
    assert (event.label, event.previous_from, event.changed) == ("new", None, {})


def test_a_row_too_large_to_remember_is_labelled_without_its_columns() -> None:
    huge = "x" * timelines.ROW_BYTES_MAX
    one = last(seen("A", 1, untracked=huge), seen("B", 2))
    assert (one.label, one.changed, one.timeline.row) == ("changed", {}, b'{"status":"B"}')


# -- bounds -----------------------------------------------------------------------------------------------------------
def test_what_is_remembered_is_bounded_and_the_versions_it_tells_stay_exact() -> None:
    events = [seen("AABBB"[second % 5], second, untracked=str(second)) for second in range(200)]
    timeline = last(*events).timeline
    assert len(timeline.survivors) == TIMELINE_MAX
    assert timeline.incomplete
    exact = facts(folded(events))
    assert facts(versions(timeline)) == exact[-len(versions(timeline)) :]


def test_the_start_of_a_long_version_is_not_forgotten() -> None:
    events = [seen("A", second, untracked=str(second)) for second in range(10, 10 + 3 * TIMELINE_MAX)]
    assert facts(versions(last(*events).timeline)) == [(at(10), None, "A")]
    assert last(*events, seen("B", 900)).previous_from == at(10)


def test_what_comes_before_everything_remembered_is_unknown_once_something_was_trimmed() -> None:
    events = [seen("A", second, untracked=str(second)) for second in range(10, 11 + TIMELINE_MAX)]
    assert last(*events, seen("B", 5)).label == "unknown"
    assert last(*events[:-1], seen("B", 5)).label == "late"


def facts(history: Iterable[Version[Any]]) -> list[tuple[str, str | None, str]]:
    return [(v.valid_from, v.valid_to, v.last.record_hash) for v in history]


def folded(events: Sequence[CanonicalEvent]) -> tuple[Version[Any], ...]:
    return fold([observation_of(event) for event in events])


def test_what_is_remembered_survives_being_written_down() -> None:
    events = [seen("A", second, untracked=str(second)) for second in range(10, 11 + TIMELINE_MAX)]
    for one in told([*events, gone(900)]):
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(one.timeline), type=Timeline) == one.timeline
