"""When each endpoint is read next, and what gives way where not everything can be had as often as promised. Pure.

An interval is the most particular that is given: of the tenant's endpoint, of the tenant's service, of the fleet, of
the mapping file. A read is never later than its interval but by what the vendor's budget forces (`Pace`), and a little
earlier by chance, so that what began together drifts apart. Times are monotonic seconds of one worker.
"""

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from services.contracts.access import Limits
from services.contracts.integration import Endpoint, Integration
from services.extractor.summary import NOT_AVAILABLE

if TYPE_CHECKING:  # brings asyncio along, which `avesa --help` does without
    from services.extractor.tenants import Override, TenantService

JITTER: Final = 0.1  # the part of an interval by which a read may come early
NEW_SPREAD_S: Final = 10.0  # over which the endpoints of a service never read before begin
LATE_SPREAD_S: Final = 30.0  # over which those begin that are overdue when a worker takes them up
FAILED_FIRST_S, FAILED_MAX_S = 15.0, 900.0  # after a failure, doubling
NOT_AVAILABLE_S: Final = 6 * 3_600.0  # until we look whether a customer has bought what it did not have

FULL, ROOMY = 0.95, 0.85  # of our share of the budget; background work alone never fills it beyond 0.8 (`limits.py`)
PACE_S: Final = 60.0  # between two changes of pace: what a change does must show first
SLOWER, FASTER = 1.5, 0.8
FACTOR_MAX: Final = 64.0
QUICK_S: Final = 120.0  # what is wanted as often as that gives way last
STRETCHED_MAX_S: Final = 86_400.0


# -- what is in force -------------------------------------------------------------------------------------------------
def in_force(
    integration: Integration, row: "TenantService", sharers: int = 1, interval_s: float | None = None
) -> Integration:
    """What this tenant's unit works by: the integration `tuned`, with its part of a budget that so many share."""
    found = tuned(integration, row, interval_s)
    return replace(found, limits=divided(found.limits, sharers))


def tuned(integration: Integration, row: "TenantService", interval_s: float | None = None) -> Integration:
    """The integration as this tenant wants it: its intervals and switches. `interval_s` is the fleet's.

    Endpoints the file does not know are passed over: another release may. A partner's own service, which is no
    customer's, reads nothing that asks for one.
    """
    general_s, lone = row.interval_s or interval_s, integration.customers is not None and not row.account_id
    if general_s is None and not row.endpoints and not lone:
        return integration
    for_all = lone and _asks_for_account(integration.base_url, integration.headers)
    endpoints = {
        name: _tuned(endpoint, row.endpoints.get(name), general_s, lone and (for_all or _asks_for_account(endpoint)))
        for name, endpoint in integration.endpoints.items()
    }
    return replace(integration, endpoints=endpoints)


def _asks_for_account(*parts: object) -> bool:
    return b"{account_id}" in msgspec.json.encode(parts)


def _tuned(endpoint: Endpoint, override: "Override | None", general_s: float | None, never: bool) -> Endpoint:
    enabled, interval_s = endpoint.enabled, general_s or endpoint.interval_s
    if override is not None:
        enabled = enabled if override.enabled is None else override.enabled
        interval_s = override.interval_s or interval_s
    return replace(endpoint, enabled=enabled and not never, interval_s=interval_s)


def divided(limits: Limits, sharers: int) -> Limits:
    """The part of a budget that one of so many takes who share a credential."""
    if sharers <= 1 or limits.per != "credential":
        return limits
    return replace(limits, share=limits.share / sharers, concurrency=max(1, limits.concurrency // sharers))


# -- the pace ---------------------------------------------------------------------------------------------------------
class Pace(msgspec.Struct, frozen=True):
    """How much a unit's reads are stretched: 1 where its budget is enough. `changed_at`: monotonic seconds."""

    factor: float = 1.0
    changed_at: float = float("-inf")


def paced(pace: Pace, fullness: float, now: float) -> Pace:
    """The pace after a look at the budget. `fullness`: how much of our share is used, 0 to 1."""
    if now - pace.changed_at < PACE_S:
        return pace
    if fullness >= FULL:
        factor = min(FACTOR_MAX, pace.factor * SLOWER)
    elif fullness <= ROOMY:
        factor = max(1.0, pace.factor * FASTER)
    else:
        return pace
    return pace if factor == pace.factor else Pace(factor, now)


def stretched(interval_s: float, factor: float) -> float:
    """The interval at a pace. What is wanted most often gives way least: of a factor 16, tickets feel 4."""
    felt = factor**0.5 if interval_s <= QUICK_S else factor
    return max(interval_s, min(STRETCHED_MAX_S, interval_s * felt))


# -- the next time ----------------------------------------------------------------------------------------------------
def first_rest_s(interval_s: float, age_s: float | None, fraction: float) -> float:
    """Seconds until the first read after a unit is taken up, spread by chance (0 <= `fraction` < 1).

    Shape: `age_s` since it was read last, None where it never was, or a read of it was broken off.
    """
    if age_s is None:
        return min(interval_s, NEW_SPREAD_S) * fraction
    left_s = interval_s - max(0.0, age_s)
    return early(left_s, fraction) if left_s > 0 else min(interval_s, LATE_SPREAD_S) * fraction


def early(interval_s: float, fraction: float) -> float:
    """An interval, or up to a tenth less of it."""
    return interval_s * (1 - JITTER * fraction)


def failed_rest_s(failures: int, code: str, fraction: float) -> float:
    """Seconds until an endpoint is tried again that has failed so many times in a row."""
    if code == NOT_AVAILABLE:
        return early(NOT_AVAILABLE_S, fraction)
    return early(min(FAILED_MAX_S, FAILED_FIRST_S * 2 ** min(failures - 1, 10)), fraction)
