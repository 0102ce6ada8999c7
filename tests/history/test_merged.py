"""The tables of the lake are a function of the set of observations: however batches are cut, ordered and repeated, and
wherever a merger dies, they hold the oracle's rows (DESIGN 2.2, 2.3).

A merge costs about the same for one entity as for many, so that thousands of sequences go through it side by side.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import permutations
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.compactor.history import Watermark
from services.compactor.merge import merge
from services.compactor.parquet import canonical_file, observations, read
from services.contracts.errors import RetryableError
from services.contracts.events import CanonicalEvent
from tests.compactor.memory_history import MemoryHistories
from tests.compactor.observed import TABLES, TENANT, at
from tests.history import oracle
from tests.history.sequences import ALIKE, CONTENTS, PLACES, Place, arrival, hold, line, observation, records, sets

SETS = 1_000  # of one seed, merged side by side
SEEDS = range(10)
SOAK_SEEDS = range(1_000, 1_100)
EXAMPLES = 30
BATCHES_MAX = 5

Events = list[CanonicalEvent]
Deaths = tuple[str, ...]  # after which commit a merger of one batch dies, until the last of them does not
Delivery = tuple[int, CanonicalEvent]  # the number of its batch


def merge_all(batches: Sequence[tuple[Events, Deaths]]) -> list[oracle.Row]:
    """The rows of all version tables after these merges. The one place that knows what a merge takes."""
    histories = MemoryHistories()
    for cut, (events, deaths) in enumerate(batches, start=1):
        for table in TABLES.values():
            seen = [event for event in events if event.table == table.table]
            batch = observations(read(canonical_file(seen, table, {})), table)
            for death in (*deaths, ""):
                histories.dies_at = [death]
                with suppress(RetryableError):
                    merge(histories(TENANT, table), TENANT, table, batch, Watermark("stream", {"desk/0": cut}))
    return histories.rows()


# -- any order, any cut, any death ------------------------------------------------------------------------------------
def delivered(events: Events, chance: Random) -> tuple[list[Deaths], list[Delivery]]:
    """`events` in some order, some of them again, in a few batches, each merged until nobody dies of it."""
    deaths = [_deaths(chance) for _ in range(chance.randint(2, BATCHES_MAX))]
    return deaths, [(chance.randrange(len(deaths)), event) for event in arrival(chance, events)]


def check_deliveries(deaths: Sequence[Deaths], deliveries: Sequence[Delivery]) -> None:
    batches = [([event for at, event in deliveries if at == number], its) for number, its in enumerate(deaths)]
    assert merge_all(batches) == oracle.rows((event for _, event in deliveries), TABLES)


def _deaths(chance: Random) -> Deaths:
    return tuple(chance.choices(("timeline", "versions"), k=chance.choice((0, 0, 1, 2))))


def _shown(delivery: Delivery) -> str:
    return f"batch {delivery[0] + 1}: {line(delivery[1])}"


def check_seed(seed: int) -> None:
    deaths, deliveries = delivered([event for its in sets(seed, SETS) for event in its], Random(seed))
    hold(partial(check_deliveries, deaths), deliveries, f"seed {seed}, deaths by batch {deaths}", _shown)


@pytest.mark.parametrize("seed", SEEDS)
def test_batches_in_any_order_with_any_repetition_and_death_merge_to_the_oracles_rows(seed: int) -> None:
    check_seed(seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", SOAK_SEEDS)
def test_many_more_batches_merge_to_the_oracles_rows(seed: int) -> None:
    check_seed(seed)


@settings(max_examples=EXAMPLES, deadline=None)
@given(records(PLACES), st.randoms(use_true_random=False))
def test_whatever_hypothesis_thinks_of_merges_to_the_oracles_rows(events: Events, chance: Random) -> None:
    check_deliveries(*delivered(events, chance))


# -- every order ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("size", range(2, 7))
def test_a_small_set_merged_one_by_one_in_every_permutation_gives_the_oracles_rows(size: int) -> None:
    """Each permutation is an entity of its own, and batch n holds the n-th observation of each."""
    deaths: list[Deaths] = [("timeline", "versions")] * size
    deliveries = [
        (position, msgspec.structs.replace(event, record_id=f"{event.record_id} in order {number}"))
        for events in sets(size, len(PLACES), size)[::8]
        for number, order in enumerate(permutations(events))
        for position, event in enumerate(order)
    ]
    hold(partial(check_deliveries, deaths), deliveries, f"size {size}", _shown)


# -- who is who -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE)
def test_a_merge_takes_none_for_another(one: Place, other: Place) -> None:
    old, new, *_ = CONTENTS["tickets"]
    rows = merge_all([([observation(one, old, at(1))], ()), ([observation(other, new, at(2))], ())])
    assert {(row["service"], row["family"], row["record_id"], row["valid_from"], row["valid_to"]) for row in rows} == {
        (*one[1:], at(1), None),
        (*other[1:], at(2), None),
    }
