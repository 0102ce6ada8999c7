"""No loss at cursor boundaries."""

from hypothesis import given
from hypothesis import strategies as st

from services.contracts.reading import DeltaToken, SinceId, SinceTime
from services.contracts.times import shifted
from services.extractor.marks import (
    LONG_AGO,
    Marks,
    Pass,
    Progress,
    Reached,
    SeenId,
    Walk,
    finished,
    fitting,
    forgetting,
    next_pass,
    settle_due,
)
from services.extractor.pagination import Turn

START = "2026-01-31T12:00:00.000000Z"
HOURLY = SinceTime("updated >= {since}", overlap_s=5, lag_s=300)
GROWING = SinceId(lag_s=300)
DELTA = DeltaToken("@odata.deltaLink")
FULL, LIVE, SETTLE = Pass("full"), Pass("live"), Pass("settle")


def at(seconds: float) -> str:
    return shifted(START, seconds=seconds)


def test_first_contact_is_a_full_walk_and_settles_a_lag_behind_its_start() -> None:
    assert next_pass(Marks(), HOURLY, at(0), 1.0) == Pass("full")
    assert finished(Marks(), FULL, at(0), HOURLY) == Marks(at(0), at(-300), swept_at=at(0))


def test_a_live_poll_reads_a_little_before_the_last_one() -> None:
    marks = Marks(at(0), at(-300))
    assert next_pass(marks, HOURLY, at(60), 1.0) == Pass("live", at(-6))
    assert finished(marks, LIVE, at(60), HOURLY) == Marks(at(60), at(-300))


def test_once_per_lag_a_settle_pass_moves_the_cursor() -> None:
    marks = Marks(at(290), at(-300))
    assert not settle_due(marks, HOURLY, at(299))
    assert next_pass(marks, HOURLY, at(300), 1.0) == Pass("settle", at(-301))
    assert finished(marks, SETTLE, at(300), HOURLY) == Marks(at(300), at(0))


def test_a_settle_pass_never_reads_less_than_a_live_poll_would() -> None:
    wide = SinceTime("x", overlap_s=1_000, lag_s=10)
    assert next_pass(Marks(at(0), at(-10)), wide, at(60), 1.0, settle=True) == Pass("settle", at(-1001))


def test_without_a_way_to_ask_for_changes_each_pass_reads_everything() -> None:
    marks = finished(Marks(), FULL, at(0), None)
    assert next_pass(marks, None, at(60), 1.0) == Pass("full")
    assert finished(marks, FULL, at(60), None) == Marks(at(60), at(60), swept_at=at(0))


def test_marks_of_another_list_are_worth_nothing() -> None:
    marks = Marks(at(0), at(-300), shape="old")
    assert fitting(marks, "old") is marks
    assert fitting(marks, "new") == Marks(shape="new")


def test_a_finished_pass_leaves_no_walk() -> None:
    marks = Marks(at(0), at(-300), walk=Walk("live", at(60)))
    assert finished(marks, LIVE, at(60), HOURLY).walk is None


def test_a_vendor_clock_that_steps_back_takes_the_marks_along() -> None:
    marks = finished(Marks(at(3600), at(3300)), LIVE, at(0), HOURLY)
    assert (marks.fresh, marks.settled) == (at(0), at(-300))


# -- by token ---------------------------------------------------------------------------------------------------------
def test_the_token_of_a_pass_begins_the_next() -> None:
    assert next_pass(Marks(), DELTA, at(0), 1.0) == FULL
    marks = finished(Marks(), FULL, at(0), DELTA, Reached("t1"))
    assert marks == Marks(at(0), at(0), swept_at=at(0), token="t1")
    assert next_pass(marks, DELTA, at(60), 1.0, settle=True) == Pass("live", token="t1")
    assert finished(marks, LIVE, at(60), DELTA, Reached("t2")).token == "t2"


def test_without_a_token_everything_is_read() -> None:
    marks = finished(Marks(), FULL, at(0), DELTA, Reached())
    assert next_pass(marks, DELTA, at(60), 1.0) == FULL


def test_a_token_that_is_forgotten_makes_a_sweep_due() -> None:
    marks = Marks(at(0), at(0), swept_at=at(0), walk=Walk("live", at(0), token="t"), token="t", shape="s")
    assert forgetting(marks) == Marks(at(0), at(0), swept_at=LONG_AGO, shape="s")
    assert forgetting(Marks(at(0), at(0), swept_at=at(0), walk=Walk("live", at(0)))).swept_at == at(0)


def test_the_token_told_last_counts() -> None:
    progress = Progress(DELTA)
    for token in ("t1", None, "t2", None):
        progress.note(Turn(1, token=token), at(0), None)
    assert progress.reached == Reached("t2")


# -- by id ------------------------------------------------------------------------------------------------------------
def test_a_live_poll_goes_on_after_the_highest_id_and_a_settle_pass_after_the_settled_one() -> None:
    marks = Marks(at(0), at(-300), seen_ids=(SeenId("7", at(-300)), SeenId("9", at(0))))
    assert next_pass(marks, GROWING, at(60), 1.0) == Pass("live", after="9")
    assert next_pass(marks, GROWING, at(300), 1.0) == Pass("settle", after="7")
    settled = finished(marks, SETTLE, at(300), GROWING, Reached(seen_ids=(SeenId("12", at(300)),)))
    assert settled.seen_ids == (SeenId("9", at(0)), SeenId("12", at(300)))


def test_until_something_has_settled_a_settle_pass_begins_with_the_first_id() -> None:
    progress = Progress(GROWING)
    progress.note(Turn(1, keys=("9",)), at(0), None)
    marks = finished(Marks(), FULL, at(0), GROWING, progress.reached)
    assert next_pass(marks, GROWING, at(60), 1.0, settle=True) == SETTLE
    assert next_pass(marks, GROWING, at(60), 1.0) == Pass("live", after="9")


def test_what_carries_an_old_stamp_has_settled_at_the_first_walk() -> None:
    progress = Progress(GROWING)
    progress.note(Turn(2, keys=("1", "2")), at(0), at(-900))
    progress.note(Turn(2, keys=("3", "4")), at(1), at(-10))
    progress.note(Turn(1, keys=("5",)), at(2), at(-900))
    assert progress.reached == Reached(seen_ids=(SeenId("2", at(-300)), SeenId("5", at(0))))


def test_a_page_without_ids_changes_nothing() -> None:
    progress = Progress(GROWING, after="7")
    progress.note(Turn(0), at(0), None)
    assert progress.reached.seen_ids[-1] == SeenId("7", at(0))


def test_few_ids_are_remembered_however_often_it_is_read() -> None:
    marks = Marks()
    for second in range(0, 3_600, 5):
        planned = next_pass(marks, GROWING, at(second), 1.0)
        marks = finished(marks, planned, at(second), GROWING, Reached(seen_ids=(SeenId(str(second), at(second)),)))
        assert len(marks.seen_ids) <= 20
    assert marks.seen_ids[0].at >= at(3_595 - 700)


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
        marks = finished(marks, planned, at(now), HOURLY)
        now += step
    assert read == set(range(len(hidden)))


@given(changes, waits)
def test_whatever_id_shows_within_the_lag_is_read(hidden: list[tuple[float, float]], steps: list[float]) -> None:
    """Ids are given in order of time."""
    rows = [(number, stamp + later) for number, (stamp, later) in enumerate(sorted(hidden), 1)]
    marks, now, read = Marks(), 0.0, set[int]()
    for step in [*steps, 3_400.0, 700.0, 700.0]:
        planned = next_pass(marks, GROWING, at(now), 1.0)
        shown = [number for number, visible_at in rows if visible_at <= now and number > int(planned.after or 0)]
        read |= set(shown)
        progress = Progress(GROWING, after=planned.after)
        progress.note(Turn(len(shown), keys=tuple(map(str, shown))), at(now), None)
        marks = finished(marks, planned, at(now), GROWING, progress.reached)
        now += step
    assert read == {number for number, _ in rows}
