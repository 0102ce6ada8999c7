"""The budget of one tenant and service."""

import asyncio
from bisect import bisect_left
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.access import LimitHeaders, Limits, Quota
from services.contracts.errors import UsageError
from services.contracts.times import shifted
from services.extractor.limits import (
    REFUSED_MAX_S,
    RETRY_AFTER_MAX_S,
    Budget,
    accepted,
    budget_of,
    fullness,
    refused,
    reserve,
    resume,
    settle,
    tell,
    used,
)
from tests.fakes import FakeClock

AT = "2026-01-31T12:00:00.000000Z"  # 1769860800
DAY_S = 86_400.0


def ask(budget: Budget, now: float, cost: float = 1.0, *, background: bool = False) -> float:
    """A call that takes no time."""
    wait_s = reserve(budget, now, cost, background=background)
    if wait_s == 0:
        settle(budget, now, cost)
    return wait_s


def taken(budget: Budget, now: float, *, background: bool = False) -> int:
    """How many calls are granted at once."""
    count = 0
    while ask(budget, now, background=background) == 0:
        count += 1
    return count


# -- quotas -----------------------------------------------------------------------------------------------------------
def test_a_share_is_left_to_the_customer_s_other_tools() -> None:
    budget = budget_of(Limits(requests=10, window_s=60, share=0.5))
    assert [ask(budget, now=0.0) for _ in range(6)] == [0.0] * 5 + [60.0]


def test_background_work_leaves_room_for_live_reads() -> None:
    budget = budget_of(Limits(requests=10, window_s=60, share=1))
    assert [ask(budget, 0.0, background=True) for _ in range(9)] == [0.0] * 8 + [60.0]
    assert ask(budget, 0.0) == 0.0


def test_a_call_counts_until_a_window_after_its_answer_came() -> None:
    budget = budget_of(Limits(requests=1, window_s=60, share=1))
    assert reserve(budget, 0.0) == 0.0
    assert 0 < reserve(budget, 100.0) < 1
    settle(budget, 110.0)
    assert reserve(budget, 111.0) == 59.0
    assert reserve(budget, 170.0) == 0.0


def test_every_quota_holds() -> None:
    budget = budget_of(Limits(requests=10, window_s=1, share=1, quotas=[Quota(15, DAY_S), Quota(10, 60, "points")]))
    assert [ask(budget, 0.0, cost) for cost in (4, 4, 4)] == [0.0, 0.0, 60.0]
    assert taken(budget, 0.0) == 2
    assert taken(budget, 60.0) == 10
    assert taken(budget, 120.0) == 1
    assert ask(budget, 130.0) > DAY_S - 200


def test_a_call_that_costs_more_than_all_there_is_waits_until_nothing_else_counts() -> None:
    budget = budget_of(Limits(share=1, quotas=[Quota(10, 60, "points")]))
    assert ask(budget, 0.0, 1.0) == 0.0
    assert ask(budget, 0.0, 25.0) == 60.0
    assert ask(budget, 60.0, 25.0) == 0.0


def test_fractions_of_points_that_come_and_go_leave_nothing_behind() -> None:
    budget = budget_of(Limits(share=1, quotas=[Quota(1, 60, "points")]))
    assert [reserve(budget, 0.0, cost) for cost in (0.1, 0.2, 0.7)] == [0.0] * 3
    for cost in (0.7, 0.1, 0.2):
        settle(budget, 0.0, cost)
    assert [ask(budget, now, 5.0) for now in (0.0, 60.0)] == [60.0, 0.0]


def test_less_than_one_call_a_window_is_one_in_a_longer_window() -> None:
    budget = budget_of(Limits(requests=1, window_s=60, share=0.25))
    assert [ask(budget, now) for now in (0.0, 60.0, 240.0)] == [0.0, 180.0, 0.0]


CALLS = st.lists(
    st.tuples(st.floats(0, 3), st.floats(0, 8), st.floats(0, 1), st.booleans()), max_size=120
)  # until the next, how long it takes, where on its way it arrives, background


@given(st.integers(1, 20), CALLS)
def test_no_window_ever_holds_more_than_our_share_as_the_vendor_counts(
    requests: int, calls: list[tuple[float, float, float, bool]]
) -> None:
    budget, now = budget_of(Limits(requests=requests, window_s=10.0, share=0.7)), 0.0
    arrived: list[float] = []
    ends: list[float] = []
    for step, takes, part, background in calls:
        now += step
        while True:
            for end in sorted(end for end in ends if end <= now):
                settle(budget, end)
                ends.remove(end)
            wait_s = reserve(budget, now, background=background)
            if wait_s == 0:
                break
            now = min([now + wait_s, *(end for end in ends if end > now)])
        arrived.append(now + takes * part)
        ends.append(now + takes)
    for start in arrived:
        assert sum(start <= at < start + 10.0 for at in arrived) <= max(1, int(requests * 0.7))


def test_a_budget_tells_how_full_it_is() -> None:
    budget = budget_of(Limits(requests=10, window_s=60, share=1, quotas=[Quota(8, DAY_S)]))
    assert fullness(budget, 0.0) == 0.0
    for _ in range(4):
        ask(budget, 0.0)
    assert (fullness(budget, 0.0), fullness(budget, 1_000.0)) == (0.5, 0.5)
    refused(budget, 1_000.0, 30.0, jitter=0.0)
    assert (fullness(budget, 1_001.0), fullness(budget, 1_031.0)) == (1.0, 0.5)


# -- refusals ---------------------------------------------------------------------------------------------------------
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


# -- what the vendor tells --------------------------------------------------------------------------------------------
SECONDS = LimitHeaders(remaining="X-Left", limit="X-Limit", reset="X-Reset")
USAGE = LimitHeaders(remaining="Limit-Info", pattern=r"api-usage=(?P<used>\d+)/(?P<limit>\d+)", window_s=DAY_S)
DRAFT = LimitHeaders(remaining="RateLimit", pattern=r"r=(?P<remaining>\d+);\s*t=(?P<reset>\d+)")


@pytest.mark.parametrize(
    ("header", "told", "granted", "again_s"),
    [
        (SECONDS, {"x-left": "50", "x-limit": "100", "x-reset": "30"}, 30, 30.0),
        (SECONDS, {"x-left": "7", "x-limit": "100, 100;w=60", "x-reset": "30"}, 0, 30.0),
        (LimitHeaders("X-Left", "X-Limit", "X-Reset", "epoch_s"),
         {"x-left": "50", "x-limit": "100", "x-reset": "1769860845"}, 30, 45.0),
        (LimitHeaders("X-Left", "X-Limit", "X-Reset", "epoch_ms"),
         {"x-left": "50", "x-limit": "100", "x-reset": "1769860845500"}, 30, 45.5),
        (USAGE, {"limit-info": "api-usage=70/100"}, 10, DAY_S / 60),
        (DRAFT, {"ratelimit": '"default";r=5;t=20'}, 4, 20.0),
        (LimitHeaders("X-Left", None, None, window_s=60), {"x-left": "0"}, 0, 1.0),
    ],
)  # fmt: skip
def test_headers_of_every_style_are_heeded_and_other_tools_keep_their_part(
    header: LimitHeaders, told: dict[str, str], granted: int, again_s: float
) -> None:
    budget = budget_of(Limits(requests=10_000, headers=[header]))
    tell(budget, told, 0.0, AT)
    assert taken(budget, 0.0) == granted
    assert ask(budget, 0.0) == again_s
    assert ask(budget, again_s) == 0.0


def test_headers_that_say_nothing_readable_change_nothing() -> None:
    budget = budget_of(Limits(requests=100, share=1, headers=[SECONDS, USAGE, DRAFT]))
    for told in ({}, {"x-left": "many"}, {"x-limit": "10"}, {"limit-info": "none"}, {"ratelimit": "r=x;t=1"}):
        tell(budget, told, 0.0, AT)
    assert taken(budget, 0.0) == 100


def test_when_nothing_is_left_and_nobody_knows_until_when_one_call_finds_out() -> None:
    budget = budget_of(Limits(headers=[USAGE]))
    tell(budget, {"limit-info": "api-usage=99/100"}, 0.0, AT)
    assert reserve(budget, DAY_S / 60) == 0.0
    assert reserve(budget, DAY_S / 60) > 0
    settle(budget, DAY_S / 60 + 1)
    tell(budget, {"limit-info": "api-usage=10/100"}, DAY_S / 60 + 1, AT)
    assert reserve(budget, DAY_S / 60 + 1) == 0.0


def test_an_older_answer_that_comes_late_makes_no_room() -> None:
    budget = budget_of(Limits(share=1, headers=[SECONDS]))
    for left in ("2", "3"):
        tell(budget, {"x-left": left, "x-limit": "100", "x-reset": "30"}, 0.0, AT)
    assert taken(budget, 0.0) == 2


def test_background_work_leaves_a_part_of_what_is_told_too() -> None:
    budget = budget_of(Limits(requests=10_000, share=1, headers=[SECONDS]))
    tell(budget, {"x-left": "100", "x-limit": "100", "x-reset": "30"}, 0.0, AT)
    assert taken(budget, 0.0, background=True) == 80
    assert taken(budget, 0.0) == 20


def test_a_pattern_that_is_none_is_told_before_anything_is_asked() -> None:
    with pytest.raises(UsageError):
        budget_of(Limits(headers=[LimitHeaders("X", pattern="(")]))


# -- from one owner to the next ---------------------------------------------------------------------------------------
DAILY = Limits(requests=60, window_s=60, share=1, quotas=[Quota(1_000, DAY_S)])


def test_what_a_day_has_used_survives_a_restart() -> None:
    former = budget_of(DAILY)
    for minute in range(10):
        assert taken(former, 60.0 * minute) == 60
    told = used(former, 600.0, AT)
    assert len(told) < 250
    later = budget_of(DAILY)
    resume(later, told, 5.0, shifted(AT, seconds=3_600.0))
    assert fullness(later, 5.0) == 0.6
    assert sum(taken(later, 5.0 + 60.0 * minute) for minute in range(20)) == 400


def test_what_was_used_long_ago_counts_no_more() -> None:
    former = budget_of(DAILY)
    assert taken(former, 0.0) == 60
    later = budget_of(DAILY)
    resume(later, used(former, 0.0, AT), 0.0, shifted(AT, seconds=2 * DAY_S))
    assert fullness(later, 0.0) == 0.0


def test_of_an_owner_that_died_all_is_counted_that_it_can_have_asked_for() -> None:
    former = budget_of(DAILY)
    assert ask(former, 0.0) == 0.0
    later = budget_of(DAILY)
    resume(later, used(former, 0.0, AT), 0.0, AT, unknown_s=10.0)
    assert ask(later, 0.0) == 60.0
    assert 0.06 < fullness(later, 60.0) < 0.07  # of a day, not all of it


def test_a_death_does_not_cost_the_quota_of_an_hour() -> None:
    hourly = Limits(requests=10_000, window_s=3_600, share=0.5, concurrency=4)
    former = budget_of(hourly)
    assert [ask(former, 0.0) for _ in range(1_000)] == [0.0] * 1_000
    later = budget_of(hourly)
    resume(later, used(former, 0.0, AT), 0.0, AT, unknown_s=10.0)
    assert 3_000 < taken(later, 0.0) < 4_000  # four at a time, in ten seconds: some hundreds


def test_what_cannot_be_read_is_taken_for_a_budget_used_up_just_now() -> None:
    budget = budget_of(Limits(requests=10, share=1))
    resume(budget, "[]", 0.0, AT)
    assert ask(budget, 0.0) == 60.0
    unused = budget_of(Limits(requests=10, share=1))
    resume(unused, None, 0.0, AT)
    assert taken(unused, 0.0) == 10


@pytest.mark.parametrize("seed", range(8))
async def test_three_owners_who_hand_a_service_around_never_exceed_what_the_vendor_allows(seed: int) -> None:
    """A server that allows 60 calls in any minute; owners with clocks of their own, who let go or die."""
    clock, random, lease_s = FakeClock(), Random(seed), 10.0
    limits = Limits(requests=60, window_s=60, share=1)
    arrived: list[float] = []
    told: str | None = None
    unknown_s = 0.0

    async def call(budget: Budget) -> None:
        await clock.sleep(random.uniform(0, 4))
        arrived.append(clock.monotonic())
        await clock.sleep(random.uniform(0, 4))
        settle(budget, clock.monotonic())

    for turn in range(40):
        budget, skew_s = budget_of(limits), (turn % 3 - 1) * 140.0
        resume(budget, told, clock.monotonic(), shifted(clock.now(), seconds=skew_s), unknown_s=unknown_s)
        renewed_at, until = clock.monotonic(), clock.monotonic() + random.uniform(1, 200)
        calls: set[asyncio.Task[None]] = set()
        while clock.monotonic() < until:
            if clock.monotonic() - renewed_at >= lease_s / 4:
                renewed_at = clock.monotonic()
                told = used(budget, renewed_at, shifted(clock.now(), seconds=skew_s))
            wait_s = reserve(budget, clock.monotonic(), background=turn % 2 == 0)
            if wait_s == 0:
                calls.add(asyncio.create_task(call(budget)))
            await clock.sleep(min(0.2, wait_s))
        if random.random() < 0.5:  # it lets go: nothing is under way, and it tells last
            await asyncio.gather(*calls)
            told, unknown_s = used(budget, clock.monotonic(), shifted(clock.now(), seconds=skew_s)), 0.0
        else:  # it dies: what it told last is old, and its calls arrive while its lease runs out
            unknown_s = lease_s
            await clock.sleep(lease_s)
            await asyncio.gather(*calls)
    arrived.sort()
    most = max(bisect_left(arrived, start + 60.0) - at for at, start in enumerate(arrived))
    assert len(arrived) > 800
    assert most <= 60
