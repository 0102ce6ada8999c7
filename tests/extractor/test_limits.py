"""The budget of one tenant and service."""

from hypothesis import given
from hypothesis import strategies as st

from services.contracts.integration import Limits
from services.extractor.limits import REFUSED_MAX_S, RETRY_AFTER_MAX_S, accepted, budget_of, refused, reserve


def test_a_share_is_left_to_the_customer_s_other_tools() -> None:
    budget = budget_of(Limits(requests=10, window_s=60, share=0.5))
    granted = [reserve(budget, now=0.0) for _ in range(6)]
    assert granted == [0.0] * 5 + [60.0]


def test_background_work_leaves_room_for_live_reads() -> None:
    budget = budget_of(Limits(requests=10, window_s=60, share=1))
    background = [reserve(budget, 0.0, background=True) for _ in range(9)]
    assert background == [0.0] * 8 + [60.0]
    assert reserve(budget, 0.0) == 0.0


def test_retry_after_holds_everybody_back() -> None:
    budget = budget_of(Limits())
    assert refused(budget, 100.0, 7.0, jitter=0.9) == 7.0
    assert reserve(budget, 103.0) == 4.0
    assert reserve(budget, 107.0) == 0.0


def test_refusals_without_a_time_wait_longer_and_longer_until_one_request_passes() -> None:
    budget = budget_of(Limits())
    waits = [refused(budget, 0.0, None, jitter=0.5) for _ in range(8)]
    assert waits[:3] == [1.0, 2.0, 4.0]
    assert waits[-1] == REFUSED_MAX_S
    accepted(budget)
    assert refused(budget, 0.0, None, jitter=0.5) == 1.0


def test_no_vendor_can_make_us_wait_for_ever() -> None:
    assert refused(budget_of(Limits()), 0.0, 1e9, jitter=0.0) == RETRY_AFTER_MAX_S


@given(st.integers(1, 20), st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=200))
def test_no_window_ever_holds_more_than_our_share(requests: int, asks: list[tuple[float, bool]]) -> None:
    limits = Limits(requests=requests, window_s=10.0, share=0.7)
    budget, now, granted = budget_of(limits), 0.0, list[float]()
    for step, background in asks:
        now += step
        wait_s = reserve(budget, now, background=background)
        while wait_s > 0:
            now += wait_s
            wait_s = reserve(budget, now, background=background)
        granted.append(now)
    for start in granted:
        assert sum(start <= at < start + 10.0 for at in granted) <= max(1, int(requests * 0.7))
