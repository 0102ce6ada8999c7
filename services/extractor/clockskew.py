"""The vendor's clock, read from its `Date` headers: times of ours become times of the vendor's.

A `Date` is cut to whole seconds and written while the request was under way, so an answer bounds the offset of the
vendor's clock from ours: at least `date - end`, less than `date + 1 s - start`.
"""

from datetime import UTC
from email.utils import parsedate_to_datetime

import msgspec

from services.contracts.times import UtcTime, seconds_between, shifted, utc_text

DATE_TICK_S = 1.0


class Offset(msgspec.Struct, frozen=True, gc=False):
    """Bounds of (vendor's clock - our clock), in seconds. Without a `Date` we take the clocks to agree."""

    least_s: float = 0.0
    most_s: float = 0.0

    @property
    def likely_s(self) -> float:
        """0 where the clocks may agree, else the nearest bound: a clock that is right is never corrected."""
        if self.least_s <= 0.0 <= self.most_s:
            return 0.0
        return self.least_s if self.least_s > 0.0 else self.most_s


def read_offset(date: str | None, started_at: UtcTime, elapsed_s: float) -> Offset:
    """What one answer tells. `elapsed_s` is measured on a clock that never steps.

    Errors: none; a `Date` that cannot be read tells nothing.
    """
    if date is None:
        return Offset()
    try:
        told = parsedate_to_datetime(date)
    except ValueError:
        return Offset()
    told_at = utc_text(told if told.tzinfo is not None else told.replace(tzinfo=UTC))
    ahead_s = seconds_between(started_at, told_at)
    return Offset(ahead_s - max(0.0, elapsed_s), ahead_s + DATE_TICK_S)


def vendor_time(started_at: UtcTime, offset: Offset) -> UtcTime:
    """The start of a request on the vendor's clock: the `observed_at` of what it returned."""
    return shifted(started_at, seconds=offset.likely_s)


def earliest_time(started_at: UtcTime, offset: Offset) -> UtcTime:
    """The earlier of our clock and the vendor's, as far as it can be known: where a mark may move to."""
    return min(started_at, shifted(started_at, seconds=offset.least_s))
