"""History is a function of the set of observations: in every order of arrival, repeated, cut and interrupted as you
like, the fold and the live labels say what the oracle says (DESIGN 2.2 and 2.3).

A sequence is one set in one order of arrival. A seed makes SETS of them; `make test` takes a hundred thousand for the
fold and as many for the labels, `make soak` a million. The tables of the lake: test_merged.py.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import permutations
from random import Random
from statistics import median

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.contracts.events import CanonicalEvent
from services.contracts.fold import Version, fold
from services.contracts.rows import entity_of, folded_rows, observation_of, version_row
from services.contracts.times import UtcTime
from services.transformer.timelines import TIMELINE_MAX, Seen, Timeline, observe, versions
from tests.compactor.observed import TABLES, at
from tests.history import oracle
from tests.history.sequences import (
    ALIKE,
    CONTENTS,
    DELETED,
    FAMILIES,
    MAPPING_VERSIONS,
    PLACES,
    SERVICES,
    Place,
    arrival,
    hold,
    line,
    observation,
    records,
    reduced,
    sets,
)

SETS = 5_100  # one in a hundred is too long to be remembered whole
SEEDS = range(20)
SOAK_SETS = 25_000
SOAK_SEEDS = range(1_000, 1_040)
CRASHES_MAX = 2

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Timeline | None).decode
decode_value = msgspec.json.Decoder().decode

Events = list[CanonicalEvent]
Facts = list[tuple[UtcTime, UtcTime | None, str]]


# -- what the sets are like -------------------------------------------------------------------------------------------
def test_the_median_set_has_eight_observations_and_half_of_all_are_ties() -> None:
    sizes, tied = [], 0
    for events in sets(0, SETS):
        distinct = {(e.effective_at, e.observed_at, e.mapping_version, e.op, e.row_digest) for e in events}
        times = [effective_at for effective_at, *_ in distinct]
        sizes.append(len(distinct))
        tied += sum(times.count(time) > 1 for time in times)
    assert median(sizes) >= 8
    assert tied >= sum(sizes) / 2


def test_the_sets_have_all_that_histories_are_made_of() -> None:
    events = [event for its in sets(0, SETS) for event in its]
    upserts, entities = [e for e in events if e.op == "upsert"], {entity_of(e) for e in events}
    assert {TABLES[entity.table].scd for entity in entities} == {1, 2}
    assert {entity.service for entity in entities} == set(SERVICES)
    assert {entity.family for entity in entities} == set(FAMILIES)
    assert len(entities) == SETS
    assert len({"".join(msgspec.structs.astuple(entity)) for entity in entities}) < SETS
    assert 0.1 < 1 - len(upserts) / len(events) < 0.2
    assert {e.mapping_version for e in events} == set(MAPPING_VERSIONS)
    assert len({e.row_digest for e in upserts}) > 2 * len({e.record_hash for e in upserts})
    assert any("custom_fields" in line(e) for e in upserts)


def test_what_fails_is_shown_with_the_fewest_that_make_it_fail() -> None:
    assert reduced(list(range(100)), lambda items: {7, 70} <= set(items)) == [7, 70]
    with pytest.raises(AssertionError, match="seed 1; these are enough, in this order:\n  3\n"):
        hold(lambda items: 6 // (items[-1] - 3), [1, 2, 3], "seed 1")


# -- the fold ---------------------------------------------------------------------------------------------------------
def check_fold(events: Events) -> None:
    assert folded_rows(events, TABLES) == oracle.rows(events, TABLES)


def check_folds(seed: int, count: int = SETS) -> None:
    """All entities of a seed at once, their observations mixed."""
    events = arrival(Random(seed), [event for its in sets(seed, count) for event in its])
    hold(check_fold, events, f"sets of seed {seed}", line)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_fold_of_any_order_with_any_repetition_is_the_oracles(seed: int) -> None:
    check_folds(seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", SOAK_SEEDS)
def test_a_million_folds_are_the_oracles(seed: int) -> None:
    check_folds(seed, SOAK_SETS)


@settings(max_examples=300, deadline=None)
@given(records(PLACES), st.randoms(use_true_random=False))
def test_the_fold_of_whatever_hypothesis_thinks_of_is_the_oracles(events: Events, chance: Random) -> None:
    check_fold(arrival(chance, events))


@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE)
def test_the_fold_takes_none_for_another(one: Place, other: Place) -> None:
    old, new, *_ = CONTENTS["tickets"]
    rows = folded_rows(
        [observation(one, old, at(1)), observation(other, new, at(2)), observation(one, DELETED, at(3))], TABLES
    )
    assert {(row["service"], row["family"], row["record_id"], row["valid_from"], row["valid_to"]) for row in rows} == {
        (*one[1:], at(1), at(3)),
        (*other[1:], at(2), None),
    }


# -- live -------------------------------------------------------------------------------------------------------------
def readings(events: Events, chance: Random) -> Iterator[tuple[int, Seen]]:
    """What each observation of one entity turns out to be, by position, as a shard reads them: a few at a time, and
    what is remembered is written down with the position. After a crash the next owner starts from some such pair and
    reads everything since again."""
    scd, timeline = TABLES[events[0].table].scd, None
    position, crashes = 0, chance.randint(0, CRASHES_MAX)
    committed = [(position, encode(timeline))]
    while position < len(events):
        for event in events[position : position + chance.randint(1, 8)]:
            seen = observe(timeline, event, scd=scd)
            timeline = seen.timeline
            yield position, seen
            position += 1
        if crashes and chance.random() < 0.3:
            crashes -= 1
            del committed[chance.randint(1, len(committed)) :]
            position, written = committed[-1]
            timeline = decode(written)
        else:
            committed.append((position, encode(timeline)))


def check_live(events: Events, chance: Random) -> None:
    """The arrivals of one entity: every label is right, however often it is given, and so is what is remembered."""
    table, timeline = TABLES[events[0].table], Timeline(())
    meanings: dict[int, oracle.Meaning] = {}
    for position, seen in readings(events, chance):
        if position not in meanings:
            meanings[position] = oracle.meaning(events[:position], events[position], table)
        expected, timeline = meanings[position], seen.timeline
        told = {
            name: (decode_value(change.before), decode_value(change.after)) for name, change in seen.changed.items()
        }
        assert (seen.label, seen.previous_from) == (expected.label, expected.previous_from), f"event {position + 1}"
        assert told == expected.changed or (expected.forgettable and not told), f"event {position + 1}"
    assert facts(versions(timeline, table.scd)) == expected_facts(events)


def facts(history: Iterable[Version[None]]) -> Facts:
    return [(version.valid_from, version.valid_to, version.last.record_hash) for version in history]


def expected_facts(events: Sequence[CanonicalEvent]) -> Facts:
    rows = oracle.history(events, TABLES[events[0].table])
    return [(row["valid_from"], row["valid_to"], row["record_hash"]) for row in rows]


def check_lives(seed: int, count: int = SETS) -> None:
    """Each entity of a seed that is remembered whole."""
    chance = Random(seed)
    for number, events in enumerate(sets(seed, count)):
        if len({event.effective_at for event in events}) <= TIMELINE_MAX:
            check = partial(check_live_from, f"{seed}/{number}")
            hold(check, arrival(chance, events), f"set {number} of seed {seed}", line)


def check_live_from(seed: str, events: Events) -> None:
    check_live(events, Random(seed))


@pytest.mark.parametrize("seed", SEEDS)
def test_labels_and_what_is_remembered_are_right_in_any_order_with_any_repetition_and_crash(seed: int) -> None:
    check_lives(seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", SOAK_SEEDS)
def test_a_million_live_histories_are_the_oracles(seed: int) -> None:
    check_lives(seed, SOAK_SETS)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES).flatmap(lambda one: records([one])), st.randoms(use_true_random=False))
def test_the_live_history_of_whatever_hypothesis_thinks_of_is_the_oracles(events: Events, chance: Random) -> None:
    check_live(arrival(chance, events), chance)


# -- every order ------------------------------------------------------------------------------------------------------
SMALL_SETS = 50  # of each size


@pytest.mark.parametrize("size", range(1, 7))
def test_every_permutation_of_a_small_set_folds_to_the_oracles_rows(size: int) -> None:
    for events in sets(size, SMALL_SETS, size):
        table, entity = TABLES[events[0].table], entity_of(events[0])
        first, *others = (fold(order, table.scd) for order in permutations(map(observation_of, events)))
        assert [version_row(entity, version, table) for version in first] == oracle.history(events, table)
        assert all(other == first for other in others)


@pytest.mark.parametrize("size", range(1, 7))
def test_at_every_step_of_every_permutation_of_a_small_set_the_oracles_versions_are_remembered(size: int) -> None:
    for events in sets(size, SMALL_SETS, size):
        every_order(None, events, frozenset(range(size)), {})


def every_order(
    timeline: Timeline | None, events: Events, coming: frozenset[int], expected: dict[frozenset[int], Facts]
) -> None:
    """All permutations as a tree: those that begin alike share their beginning. `expected`: by what is yet to come."""
    scd = TABLES[events[0].table].scd
    if timeline is not None:
        if coming not in expected:
            expected[coming] = expected_facts([event for number, event in enumerate(events) if number not in coming])
        assert facts(versions(timeline, scd)) == expected[coming], "\n".join(map(line, events))
    for number in coming:
        every_order(observe(timeline, events[number], scd=scd).timeline, events, coming - {number}, expected)
