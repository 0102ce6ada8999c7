"""How old what was read of a service is, measured by what was promised: from the rows that its owner keeps. Pure."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec

from services.contracts.log import TIERS, EndpointsLate, Tier
from services.contracts.reading import SinceTime
from services.contracts.times import UtcTime, seconds_between, utc_text
from services.extractor.plan import Spec

if TYPE_CHECKING:  # brings asyncio along, which `avesa --help` does without
    from services.extractor.tenants import TenantService

Promises = Mapping[str, float]  # seconds, by endpoint


class Told(msgspec.Struct, frozen=True):
    """What the owner of a service tells with its signs of life: when endpoints were read to their end, as far as that
    was and they are available, and how much its pace stretches their intervals (1 or more)."""

    read_at: Mapping[str, UtcTime]
    factor: float = 1.0


def told(lease: Mapping[str, Any]) -> Told:
    """What a lease row says; what cannot be read of it (another release wrote it) was not told."""
    progress = lease.get("progress")
    found = progress if isinstance(progress, dict) else {}
    reads = found.get("reads")
    at = reads.items() if isinstance(reads, dict) else ()
    read_at = {name: utc_text(datetime.fromtimestamp(then, UTC)) for name, then in at if isinstance(then, int)}
    try:
        return Told(read_at, max(1.0, float(found.get("pace") or 1.0)))
    except (TypeError, ValueError):
        return Told(read_at)


def promised_s(spec: Spec) -> float:
    """How old an endpoint may be: its interval, and the lag that the vendor is known to have."""
    lag_s = spec.incremental.lag_s if isinstance(spec.incremental, SinceTime) else 0.0
    return spec.endpoint.interval_s + lag_s


def late_s(row: "TenantService", promises: Promises, known: Told, quiet_s: float, now: UtcTime) -> float:
    """How much older than promised the latest endpoint of a service is; 0 where none is.

    Shape:  `quiet_s`: for how long nobody has worked on the service. What was never read to its end is as old as that:
            somebody may be at its first walk for a day. A service that is paused or waits for a person is not late:
            its credentials have an alarm of their own.
    """
    if not row.enabled or row.refused:
        return 0.0
    ages = {name: seconds_between(at, now) for name, at in known.read_at.items()}
    return max([0.0, *(ages.get(name, quiet_s) - promised for name, promised in promises.items())])


def latest(found: Iterable[tuple[Tier, float]]) -> list[EndpointsLate]:
    """The latest of each tier that there is, from (tier, seconds late) of each service."""
    worst: dict[Tier, float] = {}
    for tier, seconds in found:
        worst[tier] = max(worst.get(tier, 0.0), seconds)
    return [EndpointsLate(tier=tier, seconds=worst[tier]) for tier in TIERS if tier in worst]
