"""A read never contradicts an earlier read."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.fold import Observation, fold
from services.contracts.times import shifted
from services.extractor.marks import Reached, SeenId
from services.extractor.memory import Below, Entry, Memory, Ruling, after, again, judge, latest
from services.extractor.records import VendorRecord, digest_of
from services.runtime.snapshots import SnapshotState
from tests.fakes import MemoryObjects, MemoryStates

START = "2026-01-31T12:00:00.000000Z"


def at(seconds: float) -> str:
    return shifted(START, seconds=seconds)


def record(content: str, stamp: float | None) -> VendorRecord:
    payload = content.encode()
    return VendorRecord("7", payload, digest_of(payload), None if stamp is None else at(stamp))


def entry(content: str, effective: float, observed: float, deleted: bool = False) -> Entry:
    return Entry(digest_of(content.encode()), at(effective), at(observed), deleted)


def judged(before: Entry | None, read: VendorRecord, observed: float) -> Ruling | None:
    return judge(before, before, read, at(observed), tick_s=1.0)


def test_a_record_never_seen_holds_from_its_stamp_or_from_when_it_was_read() -> None:
    assert judged(None, record("A", 5), 60) == Ruling(at(5), at(60), "vendor")
    assert judged(None, record("A", None), 60) == Ruling(at(60), at(60), "read")


def test_what_is_as_it_was_is_not_published() -> None:
    assert judged(entry("A", 5, 60), record("A", 5), 120) is None


def test_a_later_stamp_is_believed() -> None:
    assert judged(entry("A", 5, 60), record("B", 6), 120) == Ruling(at(6), at(120), "vendor")


def test_another_content_under_the_same_stamp_holds_from_when_it_was_read() -> None:
    assert judged(entry("A", 5, 60), record("B", 5), 120) == Ruling(at(120), at(120), "read")


def test_a_stamp_that_goes_back_is_not_believed() -> None:
    assert judged(entry("A", 50, 60), record("B", 5), 120) == Ruling(at(120), at(120), "read")


def test_a_true_tie_keeps_the_stamp() -> None:
    assert judged(entry("A", 5, 5.4), record("B", 5), 5.9) == Ruling(at(5), at(5.9), "vendor")


def test_a_tie_is_no_way_out_when_the_fold_would_not_prefer_the_later_read() -> None:
    assert judged(entry("A", 5, 5.4), record("B", 5), 5.4) == Ruling(at(5.4), at(5.4), "read")
    deleted = entry("A", 5, 5.4, deleted=True)
    assert judged(deleted, record("A", 5), 5.9) == Ruling(at(5.9), at(5.9), "read")


def test_presence_after_a_deletion_is_published_though_nothing_else_changed() -> None:
    assert judged(entry("A", 50, 50, deleted=True), record("A", 5), 120) == Ruling(at(120), at(120), "read")
    assert judged(entry("A", 50, 50, deleted=True), record("A", 70), 120) == Ruling(at(70), at(120), "vendor")


def test_a_deletion_that_another_endpoint_of_the_family_published_counts() -> None:
    mine, newest = entry("A", 5, 60), entry("A", 80, 80, deleted=True)
    assert judge(mine, newest, record("A", 5), at(120), 1.0) == Ruling(at(120), at(120), "read")


def test_what_was_published_ahead_of_the_clock_is_outrun_by_a_microsecond() -> None:
    assert after(entry("A", 500, 60), at(120)) == shifted(at(500), microseconds=1)


def test_what_may_be_on_the_stream_is_published_again_to_the_microsecond() -> None:
    unsure = Entry(digest_of(b"A"), at(5), at(60), sure=False)
    assert judged(unsure, record("A", 5), 120) == Ruling(at(5), at(60), "vendor")
    assert judged(unsure, record("A", None), 120) == Ruling(at(5), at(60), "read")
    assert judged(unsure, record("B", 5), 120) == Ruling(at(120), at(120), "read")


def test_a_deletion_that_may_be_on_the_stream_is_not_settled() -> None:
    assert entry("A", 5, 6, deleted=True).settled
    assert not Entry(b"", at(5), at(6), deleted=True, sure=False).settled
    assert not entry("A", 5, 6).settled


# -- the record says that it is deleted -------------------------------------------------------------------------------
def flagged(stamp: float | None) -> VendorRecord:
    payload = b"gone"
    return VendorRecord("7", payload, digest_of(payload), None if stamp is None else at(stamp), deleted=True)


def test_a_deletion_holds_from_its_stamp_or_from_when_it_was_read() -> None:
    known = entry("A", 5, 60)
    assert judged(known, flagged(90), 120) == Ruling(at(90), at(120), "vendor")
    assert judged(known, flagged(None), 120) == Ruling(at(120), at(120), "vendor")
    assert judged(None, flagged(90), 120) == Ruling(at(90), at(120), "vendor")


def test_a_deletion_under_the_stamp_of_the_last_version_does_not_undo_that_version() -> None:
    assert judged(entry("A", 5, 60), flagged(5), 120) == Ruling(at(120), at(120), "vendor")
    assert judged(entry("A", 5, 5.4), flagged(5), 120) == Ruling(at(5), at(120), "vendor")  # within the same second


def test_a_deletion_is_published_once_and_one_that_may_be_on_the_stream_again() -> None:
    gone = Entry(digest_of(b"gone"), at(90), at(120), deleted=True)
    assert judged(gone, flagged(90), 180) is None
    assert judged(gone, flagged(95), 180) is None
    assert judged(msgspec.structs.replace(gone, sure=False), flagged(90), 180) == Ruling(at(90), at(120), "vendor")


def test_an_endpoint_that_shows_a_record_as_deleted_does_not_undo_another_that_has_it() -> None:
    here = Entry(digest_of(b"gone"), at(90), at(120), deleted=True)
    there = entry("A", 150, 160)
    assert judge(here, there, flagged(90), at(180), 1.0) is None


def test_an_answer_that_was_on_its_way_when_the_deletion_was_found_comes_before_it() -> None:
    gone = entry("A", 90, 120, deleted=True)
    for observed, stamp, expected in (
        (80.0, 5.0, at(5)),
        (80.0, None, at(80)),
        (90.5, None, shifted(at(90), microseconds=-1)),
    ):
        ruling = judge(gone, gone, record("B", stamp), at(observed), 1.0, meanwhile=True)
        assert ruling is not None
        assert ruling.effective_at == expected
    assert judge(gone, gone, record("B", 5), at(95), 1.0, meanwhile=True) == Ruling(at(95), at(95), "read")


def test_the_very_content_that_was_deleted_is_no_news_when_it_was_read_before_the_deletion() -> None:
    gone = entry("A", 90, 90, deleted=True)
    assert judge(gone, gone, record("A", 5), at(80), 1.0, meanwhile=True) is None
    unsure = msgspec.structs.replace(gone, sure=False)
    assert judge(unsure, unsure, record("A", 5), at(80), 1.0, meanwhile=True) == Ruling(at(5), at(80), "vendor")


reads = st.lists(
    st.tuples(
        st.sampled_from(["A", "B", "C", "flag", None]),  # None: a sweep found it gone; flag: it said so itself
        st.none() | st.integers(-3, 12),  # the stamp told
        st.floats(-1.5, 3.0),  # since the read before, on a clock that may step back
        st.sampled_from(["alive", "alive", "died before publishing", "died after publishing"]),
    ),
    min_size=1,
    max_size=12,
)


def published_of(
    known: Entry | None, content: str | None, stamp: int | None, now: float
) -> tuple[Ruling, bytes] | None:
    """What a read (or a sweep) publishes, as endpoint and sweep do it."""
    if content is not None:
        read = flagged(stamp) if content == "flag" else record(content, stamp)
        ruling = judge(known, known, read, at(now), 1.0)
        return None if ruling is None else (ruling, read.digest)
    if known is None or known.settled:
        return None
    if known.deleted:
        return again(known, "sweep"), known.digest
    return Ruling(after(known, at(now)), at(now), "sweep"), known.digest


@given(reads)
def test_the_current_row_always_equals_the_last_read(seen: list[tuple[str | None, int | None, float, str]]) -> None:
    """Whoever reads may die before or after publishing; the next owner knows what was written down before."""
    known: Entry | None = None
    published: list[Observation[str]] = []
    now = 0.0
    for content, stamp, step, fate in seen:
        now += step
        found = published_of(known, content, stamp, now)
        if found is not None:
            ruling, digest = found
            gone = content in (None, "flag")
            known = Entry(digest, ruling.effective_at, ruling.observed_at, gone, sure=fate == "alive")
            if fate != "died before publishing":
                text = content or ""
                published.append(Observation(ruling.effective_at, ruling.observed_at, gone, 1, text, text, text))
        if fate == "alive":
            current = next((version.last.row for version in fold(published) if version.is_current), None)
            assert current == (None if content == "flag" else content)


def test_the_newest_of_a_family_is_the_one_the_history_shows() -> None:
    old, new, gone = entry("A", 5, 90), entry("B", 6, 7), entry("B", 6, 6, deleted=True)
    assert latest([old, None, new]) is new
    assert latest([gone, new]) is gone
    assert latest([None]) is None


async def test_memory_survives_in_its_segments() -> None:
    objects, states = MemoryObjects(), MemoryStates()
    memory = Memory(SnapshotState(objects, states.open("a"), lambda n: f"a/{n}"))
    memory.put({"1": entry("A", 5, 6), '["é"]': entry("B", 5, 6, deleted=True)})
    told = Below(b"state", at(1), at(2), Reached("token", (SeenId("7", at(0)),)))
    memory.note_below({"9": Below(), "10": told})
    segments = list(await memory.state.save())
    again = Memory(SnapshotState(objects, states.open("b"), lambda n: f"b/{n}"))
    assert await again.state.load(segments)
    assert dict(again.items()) == {"1": entry("A", 5, 6), '["é"]': entry("B", 5, 6, deleted=True)}
    assert list(again.living()) == ["1"]
    assert again.below(["8", "9", "10"]) == {"9": Below(), "10": told}
    again.forget_below({"8", "10"})
    assert again.below(["9", "10"]) == {"10": told}


async def test_what_was_remembered_before_there_were_links_is_read() -> None:
    objects, states = MemoryObjects(), MemoryStates()
    memory = Memory(SnapshotState(objects, states.open("a"), lambda n: f"a/{n}"))
    old = msgspec.msgpack.encode([b"digest", at(5), at(6), False, None, True])
    memory.state.put_many([(b"r7", old), (b"p9", b"")])
    assert memory.entries(["7"]) == {"7": Entry(b"digest", at(5), at(6))}
    assert memory.below(["9"]) == {"9": Below()}


async def test_what_did_not_change_below_a_parent_costs_nothing() -> None:
    memory = Memory(SnapshotState(MemoryObjects(), MemoryStates().open("a"), lambda n: f"a/{n}"))
    memory.note_below({"9": Below()})
    await memory.state.save()
    memory.note_below({"9": Below()})
    assert not memory.state.changed


def test_an_earlier_reading_that_comes_to_hand_later_stays_before_what_was_read_after_it() -> None:
    """A ticket is read in one list, converted, read in the other, and the first answer is worked on last."""
    converted = entry("project ticket", 20, 22)
    for stamp, expected in ((5.0, at(5)), (20.0, at(20)), (None, at(18))):
        ruling = judge(None, converted, record("service ticket", stamp), at(18), tick_s=1.0)
        assert ruling is not None
        assert ruling.effective_at == expected
        read = Observation(ruling.effective_at, ruling.observed_at, False, 1, "service", "service", None)
        known = Observation(converted.effective_at, converted.observed_at, False, 1, "project", "project", None)
        assert fold([read, known])[-1].last.record_hash == "project"
