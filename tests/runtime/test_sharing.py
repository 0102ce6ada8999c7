"""Who asks whom for what: a fleet comes to an even share of the work, and to rest."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from services.runtime.sharing import Holding, fair_count, wanted, weights

WORKERS = ["a", "b", "c", "d", "e"]


def settled(holdings: list[Holding], workers: list[str], rounds_max: int = 200) -> list[Holding]:
    """What comes of it when each worker in turn gets what it asks for."""
    for _ in range(rounds_max):
        before = holdings
        for worker in workers:
            asked = set(wanted(holdings, worker))
            holdings = [Holding(h.name, worker if h.name in asked else h.owner, h.rate) for h in holdings]
        if holdings == before:
            return holdings
    raise AssertionError("the fleet never came to rest")


@given(st.lists(st.sampled_from(WORKERS), min_size=1, max_size=60), st.integers(1, 5))
def test_work_of_equal_load_ends_up_even_by_count(owners: list[str], workers: int) -> None:
    here = WORKERS[:workers]
    held = [Holding(f"s{n}", owner if owner in here else here[0]) for n, owner in enumerate(owners)]
    counts = Counter(dict.fromkeys(here, 0)) + Counter()
    counts.update(h.owner for h in settled(held, here))
    every = [counts[worker] for worker in here]
    assert max(every) - min(every) <= 1


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.integers(1, 5))
def test_any_load_comes_to_rest_and_nobody_is_left_with_nothing_while_another_has_three(
    rates: list[float], workers: int
) -> None:
    here = WORKERS[:workers]
    ended = settled([Holding(f"s{n}", "a", rate) for n, rate in enumerate(rates)], here)
    counts = Counter(h.owner for h in ended)
    assert not (max(counts.values()) >= 3 and any(counts[worker] == 0 for worker in here))


def test_one_hot_shard_weighs_as_much_as_the_many_quiet_ones_together() -> None:
    ended = settled([Holding("hot", "a", 900.0)] + [Holding(f"s{n}", "a", 1.0) for n in range(7)], ["a", "b"])
    owner = {h.name: h.owner for h in ended}
    beside = [name for name, who in owner.items() if who == owner["hot"]]
    assert len(beside) < 4


def test_what_is_promised_already_is_not_asked_for_again() -> None:
    held = [Holding("s1", "b", stays=True), Holding("s2", "b", stays=True), Holding("s3", "a")]
    assert wanted(held, "c") == ["s3"] or wanted(held, "c") == []
    assert not {"s1", "s2"} & set(wanted(held, "c"))


@given(st.lists(st.floats(0, 1e9), min_size=1, max_size=30))
def test_weights_are_a_whole_for_count_and_a_whole_for_load(rates: list[float]) -> None:
    total = sum(weights([Holding(f"s{n}", "a", rate) for n, rate in enumerate(rates)]).values())
    assert abs(total - (2 if sum(rates) > 0 else 1)) < 1e-6


def test_a_fair_count_leaves_nothing_over() -> None:
    assert [fair_count(7, owners) for owners in (1, 2, 3, 8)] == [7, 4, 3, 1]
