"""When an endpoint is read next."""

from itertools import pairwise
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.access import Limits
from services.extractor.limits import budget_of, reserve, settle
from services.extractor.schedule import (
    FACTOR_MAX,
    FAILED_MAX_S,
    LATE_SPREAD_S,
    NEW_SPREAD_S,
    NOT_AVAILABLE_S,
    PACE_S,
    STRETCHED_MAX_S,
    Pace,
    divided,
    early,
    failed_rest_s,
    first_rest_s,
    in_force,
    paced,
    stretched,
    tuned,
)
from services.extractor.tenants import Override, TenantService
from tests.extractor.world import TICKETS, integration

FRACTIONS = [0.0, 0.25, 0.5, 0.75, 0.999]
DESK = integration(
    {"tickets": {**TICKETS, "interval_s": 60}, "boards": {**TICKETS, "interval_s": 3600, "enabled": False}}
)


def row(**fields: Any) -> TenantService:
    return TenantService("acme", "desk", **fields)


def intervals(row: TenantService, fleet_s: float | None = None) -> dict[str, float]:
    return {name: endpoint.interval_s for name, endpoint in tuned(DESK, row, fleet_s).endpoints.items()}


# -- what is in force -------------------------------------------------------------------------------------------------
def test_of_all_intervals_given_the_most_particular_counts() -> None:
    assert intervals(row()) == {"tickets": 60, "boards": 3600}
    assert intervals(row(), 30) == {"tickets": 30, "boards": 30}
    assert intervals(row(interval_s=20), 30) == {"tickets": 20, "boards": 20}
    assert intervals(row(interval_s=20, endpoints={"boards": Override(5)}), 30) == {"tickets": 20, "boards": 5}


def test_a_tenant_switches_an_endpoint_off_or_on_whatever_the_file_says() -> None:
    switched = {"tickets": Override(enabled=False), "boards": Override(enabled=True), "unheard_of": Override(1, True)}
    found = tuned(DESK, row(endpoints=switched))
    assert {name: endpoint.enabled for name, endpoint in found.endpoints.items()} == {"tickets": False, "boards": True}
    assert intervals(row(endpoints=switched)) == intervals(row())


def test_who_asks_for_nothing_gets_the_file_itself() -> None:
    assert tuned(DESK, row()) is DESK


def test_all_who_share_a_credential_together_stay_within_its_budget() -> None:
    limits = Limits(requests=60, share=0.8, concurrency=4, per="credential")
    for sharers in (1, 2, 3, 7, 48):
        budgets = [budget_of(divided(limits, sharers)) for _ in range(sharers)]
        granted = []
        for second in range(300):
            for budget in budgets * 2:
                if not reserve(budget, second):
                    settle(budget, second)
                    granted.append(second)
        most = max(sum(start <= at < start + 60 for at in granted) for start in range(240))
        assert 0 < most <= 48, sharers
        assert divided(limits, sharers).concurrency == max(1, 4 // sharers)


def test_an_account_of_its_own_has_a_budget_of_its_own() -> None:
    assert divided(Limits(requests=60), 10) == Limits(requests=60)
    assert in_force(DESK, row(), 10).limits == DESK.limits


def test_a_partner_s_own_service_reads_nothing_that_asks_for_a_customer() -> None:
    below = {**TICKETS, "path": "accounts/{account_id}/tickets"}
    customers = {"path": "accounts", "id": "id", "title": "name"}
    partner = integration({"tickets": below, "accounts": TICKETS}, customers=customers)

    def enabled(row: TenantService) -> set[str]:
        return {name for name, one in tuned(partner, row).endpoints.items() if one.enabled}

    assert enabled(row()) == {"accounts"}
    assert enabled(row(account_id="7")) == {"tickets", "accounts"}
    assert enabled(row(endpoints={"tickets": Override(enabled=True)})) == {"accounts"}
    everywhere = integration({"tickets": TICKETS}, customers=customers, headers={"X-Account": "{account_id}"})
    assert not tuned(everywhere, row()).endpoints["tickets"].enabled


# -- the pace ---------------------------------------------------------------------------------------------------------
def test_a_full_budget_slows_down_step_by_step_and_a_roomy_one_takes_it_back() -> None:
    pace, now, seen = Pace(), 0.0, []
    for fullness in [1.0] * 3 + [0.9] * 3 + [0.2] * 7:
        pace = paced(pace, fullness, now)
        assert pace.changed_at < now or paced(pace, 1.0, now + PACE_S / 2) is pace
        now += PACE_S
        seen.append(round(pace.factor, 2))
    assert seen == [1.5, 2.25, 3.38, 3.38, 3.38, 3.38, 2.7, 2.16, 1.73, 1.38, 1.11, 1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=60))
def test_the_pace_has_bounds(looks: list[float]) -> None:
    pace = Pace()
    for turn, fullness in enumerate(looks):
        pace = paced(pace, fullness, turn * PACE_S)
    assert 1.0 <= pace.factor <= FACTOR_MAX


def test_tickets_give_way_less_than_reference_lists() -> None:
    assert (stretched(60, 1.0), stretched(3_600, 1.0)) == (60, 3_600)
    assert (stretched(60, 16.0), stretched(300, 16.0), stretched(3_600, 16.0)) == (240, 4_800, 57_600)
    assert stretched(3_600, FACTOR_MAX) == STRETCHED_MAX_S
    assert stretched(7 * 86_400, FACTOR_MAX) == 7 * 86_400


# -- the next time ----------------------------------------------------------------------------------------------------
def test_what_was_read_lately_waits_for_its_time_after_a_restart() -> None:
    assert [round(first_rest_s(3_600, 600, fraction)) for fraction in (0.0, 0.999)] == [3_000, 2_700]


def test_what_is_new_or_overdue_begins_soon_and_not_all_at_once() -> None:
    new = sorted(first_rest_s(60, None, fraction) for fraction in FRACTIONS)
    late = sorted(first_rest_s(60, 5_000, fraction) for fraction in FRACTIONS)
    assert new[0] == late[0] == 0
    assert NEW_SPREAD_S / 2 < new[-1] < NEW_SPREAD_S
    assert LATE_SPREAD_S / 2 < late[-1] < LATE_SPREAD_S
    assert first_rest_s(3, 5_000, 0.999) < 3
    assert all(first < second for first, second in pairwise(new))


def test_a_clock_that_went_back_makes_nobody_wait_for_more_than_an_interval() -> None:
    assert first_rest_s(60, -5_000, 0.0) == 60


def test_chance_brings_a_read_forward_and_never_puts_it_off() -> None:
    assert [round(early(60, fraction), 1) for fraction in FRACTIONS] == [60, 58.5, 57, 55.5, 54]


def test_failures_rest_longer_and_longer_up_to_a_bound() -> None:
    rests = [failed_rest_s(failures, "unavailable", 0.0) for failures in range(1, 60)]
    assert rests[:5] == [15, 30, 60, 120, 240]
    assert rests[-1] == FAILED_MAX_S
    assert failed_rest_s(1, "not_available", 0.0) == NOT_AVAILABLE_S


def test_overrides_come_out_of_a_row_as_they_were_put_in() -> None:
    held = {"tenant_id": "acme", "service": "desk", "endpoints": {"tickets": {"interval_s": 15, "enabled": False}}}
    found = msgspec.convert(held, TenantService, strict=False)
    assert found.endpoints == {"tickets": Override(15.0, False)}
    assert hash(found.settings) != hash(row().settings)
