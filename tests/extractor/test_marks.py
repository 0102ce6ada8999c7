"""No loss at cursor boundaries."""

from hypothesis import given
from hypothesis import strategies as st

from services.contracts.integration import Incremental
from services.contracts.times import shifted
from services.extractor.marks import Marks, Pass, Walk, finished, fitting, next_pass, settle_due

START = "2026-01-31T12:00:00.000000Z"
HOURLY = Incremental("updated >= {since}", overlap_s=5, lag_s=300)


def at(seconds: float) -> str:
    return shifted(START, seconds=seconds)


def test_first_contact_is_a_full_walk_and_settles_a_lag_behind_its_start() -> None:
    assert next_pass(Marks(), HOURLY, at(0), 1.0) == Pass("full")
    assert finished(Marks(), "full", at(0), HOURLY) == Marks(at(0), at(-300), swept_at=at(0))


def test_a_live_poll_reads_a_little_before_the_last_one() -> None:
    marks = Marks(at(0), at(-300))
    assert next_pass(marks, HOURLY, at(60), 1.0) == Pass("live", at(-6))
    assert finished(marks, "live", at(60), HOURLY) == Marks(at(60), at(-300))


def test_once_per_lag_a_settle_pass_moves_the_cursor() -> None:
    marks = Marks(at(290), at(-300))
    assert not settle_due(marks, HOURLY, at(299))
    assert next_pass(marks, HOURLY, at(300), 1.0) == Pass("settle", at(-301))
    assert finished(marks, "settle", at(300), HOURLY) == Marks(at(300), at(0))


def test_a_settle_pass_never_reads_less_than_a_live_poll_would() -> None:
    wide = Incremental("x", overlap_s=1_000, lag_s=10)
    assert next_pass(Marks(at(0), at(-10)), wide, at(60), 1.0, settle=True) == Pass("settle", at(-1001))


def test_without_a_way_to_ask_for_changes_each_pass_reads_everything() -> None:
    marks = finished(Marks(), "full", at(0), None)
    assert next_pass(marks, None, at(60), 1.0) == Pass("full")
    assert finished(marks, "full", at(60), None) == Marks(at(60), at(60), swept_at=at(0))


def test_marks_of_another_list_are_worth_nothing() -> None:
    marks = Marks(at(0), at(-300), shape="old")
    assert fitting(marks, "old") is marks
    assert fitting(marks, "new") == Marks(shape="new")


def test_a_finished_pass_leaves_no_walk() -> None:
    marks = Marks(at(0), at(-300), walk=Walk("live", at(60)))
    assert finished(marks, "live", at(60), HOURLY).walk is None


def test_a_vendor_clock_that_steps_back_takes_the_marks_along() -> None:
    marks = finished(Marks(at(3600), at(3300)), "live", at(0), HOURLY)
    assert (marks.fresh, marks.settled) == (at(0), at(-300))


changes = st.lists(st.tuples(st.floats(0, 3_000), st.floats(0, 300)), max_size=20)  # (stamp, visible so much later)
waits = st.lists(st.floats(1, 700), min_size=1, max_size=60)


@given(changes, waits, st.booleans())
def test_whatever_shows_within_the_lag_is_read(
    hidden: list[tuple[float, float]], steps: list[float], cut: bool
) -> None:
    """Stamps are cut to seconds, and the vendor may compare with `>`."""
    marks, now, read = Marks(), 0.0, set[int]()
    for step in [*steps, 3_400.0, 700.0]:
        planned = next_pass(marks, HOURLY, at(now), 1.0)
        for number, (stamp, later) in enumerate(hidden):
            shown_as = at(stamp)[:19] + "Z" if cut else at(stamp)
            since = (planned.since or "")[:19] + "Z" if cut else planned.since or ""
            if stamp + later <= now and (planned.since is None or shown_as > since):
                read.add(number)
        marks = finished(marks, planned.kind, at(now), HOURLY)
        now += step
    assert read == set(range(len(hidden)))
