"""What records tell of the deletion of others."""

import itertools

import pytest

from services.contracts.fold import Observation, fold
from services.contracts.times import shifted
from services.extractor.memory import Entry, Ruling, judge, latest
from services.extractor.records import VendorRecord, digest_of
from services.extractor.tombstones import judge_grave

START = "2026-01-31T12:00:00.000000Z"


def at(seconds: float) -> str:
    return shifted(START, seconds=seconds)


def entry(effective: float, observed: float, deleted: bool = False, sure: bool = True) -> Entry:
    return Entry(b"x" * 16, at(effective), at(observed), deleted, sure=sure)


def judged(newest: Entry | None, gone: float | None, read: float = 100) -> Ruling | str | None:
    return judge_grave(newest, None if gone is None else at(gone), at(read), tick_s=1.0)


def test_a_record_is_gone_since_the_tombstone_says_or_since_it_was_read() -> None:
    assert judged(entry(5, 6), 50) == Ruling(at(50), at(100), "vendor")
    assert judged(entry(5, 6), None) == Ruling(at(100), at(100), "vendor")


def test_a_record_that_was_never_published_may_be_on_its_way() -> None:
    assert judged(None, 50) == Ruling(at(50), at(100), "vendor")


def test_what_is_known_to_be_gone_is_not_told_again() -> None:
    assert judged(entry(40, 41, deleted=True), 50) is None
    assert judged(entry(40, 41, deleted=True, sure=False), 50) == Ruling(at(40), at(41), "vendor")


def test_a_record_that_was_read_after_its_tombstone_has_to_be_looked_for() -> None:
    assert judged(entry(5, 60), 50) == "ask"


def test_a_record_read_within_the_second_of_its_tombstone_is_gone() -> None:
    assert judged(entry(5, 50.7), 50) == Ruling(at(50), at(100), "vendor")
    assert judged(entry(50, 50.7), 50) == Ruling(at(50), at(100), "vendor")
    assert judged(entry(50.2, 50.7), 50) == Ruling(at(100), at(100), "vendor")


@pytest.mark.parametrize("order", list(itertools.permutations(["list", "feed"])))
@pytest.mark.parametrize(("read", "alive"), [(40.0, False), (60.0, True)])
def test_the_order_of_arrival_does_not_matter(order: tuple[str, ...], read: float, alive: bool) -> None:
    """Stamped 5, deleted at 50; the list was read before or after that, the feed at 70."""
    known: Entry | None = None
    published: list[Observation[str]] = []
    for what in order:
        found: Ruling | str | None
        if what == "feed":
            found = judged(known, 50, 70)
        else:
            record = VendorRecord("7", b"A", digest_of(b"A"), at(5))
            found = judge(known, known, record, at(read), 1.0, meanwhile=order[0] == "feed")
        if isinstance(found, Ruling):
            gone = what == "feed"
            published.append(Observation(found.effective_at, found.observed_at, gone, 1, "A", "A", "A"))
            known = latest([known, Entry(digest_of(b"A"), found.effective_at, found.observed_at, gone)])
    assert bool([version for version in fold(published) if version.is_current]) == alive
