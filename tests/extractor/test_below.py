"""What hangs from another endpoint's records."""

import pytest

from services.contracts.integration import Parent
from services.contracts.reading import DeltaToken, SinceId, SinceTime
from services.contracts.times import shifted
from services.extractor.below import Begin, Upper, all_due, begin, due, included, lag_s, read_below, uppers
from services.extractor.marks import Increment, Pass, Reached, SeenId
from services.extractor.memory import Below, Entry

START = "2026-01-31T12:00:00.000000Z"
PLAIN = Parent("teams")
CHANGED = Parent("teams", when_changed=True, all_every_s=3_600)
SINCE = SinceTime("updated >= {since}", overlap_s=5, lag_s=300)
LIVE, FULL = Pass("live", "2026-01-31T11:59:00.000000Z"), Pass("full")


def at(seconds: float) -> str:
    return shifted(START, seconds=seconds)


def entry(content: str = "A", effective: float = 0, deleted: bool = False, links: tuple[str, ...] = ()) -> Entry:
    return Entry(content.encode() * 16, at(effective), at(effective), deleted, links=links)


def begun(below: Below | None, incremental: Increment | None, parent: Parent = PLAIN, planned: Pass = LIVE) -> Begin:
    return begin(planned, below, parent, incremental, tick_s=1.0, lag_s=300)


def test_the_parents_are_those_that_are_there_in_order() -> None:
    found = uppers([("b", entry()), ("a", entry()), ("c", entry(deleted=True))], PLAIN, None, ())
    assert list(found.values()) == [Upper("a", {"parent_id": "a"}), Upper("b", {"parent_id": "b"})]


def test_a_part_of_an_id_names_a_parent_once() -> None:
    ids = ['["x","1"]', '["x","2"]', '["y","1"]']
    assert list(uppers([(one, entry()) for one in ids], PLAIN, 0, ())) == ["x", "y"]


def test_values_of_a_parent_go_along_and_one_that_lacks_them_gives_none() -> None:
    parent = Parent("teams", values={"site": "site.id", "drive": "drive.id"})
    items = [("a", entry(links=("d1", "s1"))), ("b", entry(links=("d2", ""))), ("c", entry())]
    (only,) = uppers(items, parent, None, (("site", 1), ("drive", 0))).values()
    assert only == Upper('["a","s1","d1"]', {"parent_id": "a", "site": "s1", "drive": "d1"})


def test_a_value_that_is_only_taken_along_may_be_missing() -> None:
    parent = Parent("teams", values={"site": "site.id", "lead": "lead"}, include=["parent_id", "lead"])
    items = [("a", entry(links=("s1", ""))), ("b", entry(links=("", "ann")))]
    (only,) = uppers(items, parent, None, (("site", 0), ("lead", 1)), frozenset({"lead"})).values()
    assert included(parent, only.values) == b'{"parent_id":"a","lead":null}'


def test_below_no_parent_nothing_is_taken_along() -> None:
    assert included(Parent("teams", include=["parent_id"]), None) == b""
    assert included(Parent("teams"), {"parent_id": "a"}) == b""
    assert included(None, None) == b""


def test_a_parent_that_changed_in_content_or_in_time_is_told_from_what_it_was() -> None:
    states = {
        uppers([("a", one)], CHANGED, None, ())["a"].state
        for one in (entry("A", 0), entry("B", 0), entry("A", 1), entry("A", 0, links=()))
    }
    assert len(states) == 3


@pytest.mark.parametrize("incremental", [SINCE, DeltaToken("t"), SinceId(), None])
def test_a_new_parent_and_a_full_pass_are_read_from_the_start(incremental: Increment | None) -> None:
    read = Below(reached=Reached("t", (SeenId("7", at(-900)),)))
    assert begun(None, incremental).whole
    assert begun(read, incremental, planned=FULL).whole


def test_below_a_parent_it_goes_on_by_time_by_token_or_by_id() -> None:
    read = Below(reached=Reached("t", (SeenId("7", at(-900)), SeenId("9", at(-10)))))
    assert begun(read, SINCE) == Begin(since=LIVE.since)
    assert begun(read, DeltaToken("t")) == Begin(token="t")
    assert begun(read, SinceId()) == Begin(after="9")
    assert begun(read, SinceId(), planned=Pass("settle")) == Begin(after="7")


def test_a_parent_left_out_for_long_is_read_from_where_it_was_left() -> None:
    read = Below(b"s", at(-9_000), at(-9_000))
    assert begun(read, SINCE, CHANGED) == Begin(since=at(-9_000 - 300 - 5 - 1))
    assert begun(Below(), SINCE, CHANGED).whole


def test_only_changed_parents_are_due_and_once_more_when_what_shows_late_has_shown() -> None:
    upper = Upper("a", {}, b"new")
    first = read_below(upper, Below(b"old", at(-900), at(-900)), LIVE, CHANGED, Reached(), at(0), SINCE)
    assert first == Below(b"new", at(0), at(0))
    assert due(upper, Below(b"old", at(-900), at(-900)), LIVE, at(0), 300)
    assert not due(upper, first, LIVE, at(299), 300)
    assert due(upper, first, LIVE, at(300), 300)
    settled = read_below(upper, first, LIVE, CHANGED, Reached(), at(301), SINCE)
    assert settled == Below(b"new", at(0), at(301))
    assert not due(upper, settled, LIVE, at(9_000), 300)
    old = Upper("a", {}, b"new", at(-9_000))
    assert not due(old, read_below(old, None, LIVE, CHANGED, Reached(), at(0), SINCE), LIVE, at(9_000), 300)


def test_everything_is_due_now_and_then() -> None:
    upper, read = Upper("a", {}, b"s"), Below(b"s", at(-900), at(-100))
    assert due(upper, read, Pass("live", all_below=True), at(0), 300)
    assert due(upper, read, FULL, at(0), 300)
    assert due(upper, None, LIVE, at(0), 300)
    assert all_due(CHANGED, None, at(0))
    assert not all_due(CHANGED, at(-3_599), at(0))
    assert all_due(CHANGED, at(-3_600), at(0))


def test_where_nobody_asks_nothing_but_that_it_was_read_is_remembered() -> None:
    upper = Upper("a", {})
    assert read_below(upper, None, LIVE, PLAIN, Reached("t"), at(0), SINCE) == Below()
    assert read_below(upper, None, LIVE, PLAIN, Reached("t"), at(0), DeltaToken("t")) == Below(reached=Reached("t"))


def test_the_longer_lag_counts() -> None:
    assert lag_s([SINCE, SinceId(lag_s=900), DeltaToken("t"), None], 1.0) == 901
    assert lag_s([None], 1.0) == 1  # until then it may change again under the same stamp
