"""A read never contradicts an earlier read."""

from hypothesis import given
from hypothesis import strategies as st

from services.contracts.fold import Observation, fold
from services.contracts.times import shifted
from services.extractor.memory import Entry, Memory, Ruling, after, again, judge, latest
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


reads = st.lists(
    st.tuples(
        st.sampled_from(["A", "B", "C", None]),  # None: it was gone
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
        read = record(content, stamp)
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
            known = Entry(digest, ruling.effective_at, ruling.observed_at, content is None, sure=fate == "alive")
            if fate != "died before publishing":
                text = content or ""
                gone = content is None
                published.append(Observation(ruling.effective_at, ruling.observed_at, gone, 1, text, text, text))
        if fate == "alive":
            current = next((version.last.row for version in fold(published) if version.is_current), None)
            assert current == content


def test_the_newest_of_a_family_is_the_one_the_history_shows() -> None:
    old, new, gone = entry("A", 5, 90), entry("B", 6, 7), entry("B", 6, 6, deleted=True)
    assert latest([old, None, new]) is new
    assert latest([gone, new]) is gone
    assert latest([None]) is None


async def test_memory_survives_in_its_segments() -> None:
    objects, states = MemoryObjects(), MemoryStates()
    memory = Memory(SnapshotState(objects, states.open("a"), lambda n: f"a/{n}"))
    memory.put({"1": entry("A", 5, 6), '["é"]': entry("B", 5, 6, deleted=True)})
    memory.note_read(["9"])
    segments = list(await memory.state.save())
    again = Memory(SnapshotState(objects, states.open("b"), lambda n: f"b/{n}"))
    assert await again.state.load(segments)
    assert dict(again.items()) == {"1": entry("A", 5, 6), '["é"]': entry("B", 5, 6, deleted=True)}
    assert list(again.living()) == ["1"]
    assert again.has_read("9")
    again.forget_parents({"8"})
    assert not again.has_read("9")


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
