"""What a sweep means."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from services.contracts.times import shifted
from services.extractor.deletes import (
    SUSPICIOUS_CONFIRMS_MAX,
    Candidate,
    Findings,
    find,
    id_digest,
    judge_sweep,
    missing_twice,
)
from services.extractor.memory import Entry

START = "2026-01-31T12:00:00.000000Z"


def at(seconds: float) -> str:
    return shifted(START, seconds=seconds)


def entry(observed: float = -60, deleted: bool = False, missing: float | None = None, effective: float = -60) -> Entry:
    return Entry(b"x" * 16, at(effective), at(observed), deleted, None if missing is None else at(missing))


def swept(seen: Iterable[str], **memories: dict[str, Entry]) -> Findings:
    return find({name: entries.items() for name, entries in memories.items()}, {id_digest(one) for one in seen}, at(0))


def ids(candidates: Iterable[Candidate]) -> list[str]:
    return sorted(candidate.record_id for candidate in candidates)


def candidates(count: int) -> list[Candidate]:
    return [Candidate(str(number), entry(), {"a": entry()}) for number in range(count)]


def test_what_nobody_showed_is_missing() -> None:
    findings = swept(["1"], tickets={"1": entry(), "2": entry(), "3": entry(deleted=True)})
    assert (findings.known, ids(findings.missing)) == (2, ["2"])


def test_what_was_published_since_the_sweep_began_is_no_candidate() -> None:
    assert swept([], tickets={"1": entry(observed=0), "2": entry(observed=5)}).missing == []


def test_a_record_that_moved_within_its_family_is_not_missing() -> None:
    assert swept(["1"], tickets={"1": entry()}, projects={}).missing == []
    assert swept([], tickets={"1": entry()}, projects={"1": entry(observed=5)}).missing == []


def test_the_endpoint_that_published_last_gives_the_deletion() -> None:
    (missing,) = swept([], tickets={"1": entry(effective=-50)}, projects={"1": entry(effective=-40)}).missing
    assert missing.endpoint == "projects"


def test_what_an_earlier_sweep_missed_and_this_one_shows_is_back() -> None:
    assert ids(swept(["1"], tickets={"1": entry(missing=-30), "2": entry()}).back) == ["1"]


def test_half_or_less_is_suspicious_and_believed_only_record_by_record() -> None:
    assert judge_sweep(Findings(10, candidates(5), []), readable=True) == "read_all_or_none"
    assert judge_sweep(Findings(10, candidates(10), []), readable=True) == "read_all_or_none"
    assert judge_sweep(Findings(10, candidates(5), []), readable=False) == "suspicious"
    many = candidates(SUSPICIOUS_CONFIRMS_MAX + 1)
    assert judge_sweep(Findings(len(many), many, []), readable=True) == "suspicious"


def test_a_few_are_read_each_or_swept_again() -> None:
    assert judge_sweep(Findings(10, candidates(4), []), readable=True) == "read_each"
    assert judge_sweep(Findings(10, candidates(4), []), readable=False) == "sweep_again"
    assert judge_sweep(Findings(0, [], []), readable=True) == "nothing_missing"


def test_only_two_sweeps_make_a_witness() -> None:
    findings = swept([], tickets={"1": entry(missing=-30), "2": entry(), "3": entry(missing=0)})
    gone, suspected = missing_twice(findings, at(0))
    assert (ids(gone), ids(suspected)) == (["1"], ["2", "3"])


@given(st.sets(st.text(min_size=1, max_size=3), max_size=30), st.data())
def test_nothing_that_was_seen_is_ever_missing(known: set[str], data: st.DataObject) -> None:
    seen = data.draw(st.sets(st.sampled_from(sorted(known)))) if known else set()
    findings = swept(seen, tickets={record_id: entry() for record_id in known})
    assert ids(findings.missing) == sorted(known - seen)
    assert findings.known == len(known)
