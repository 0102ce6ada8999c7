"""Time as the contracts carry it: UTC text of one fixed width, so that order of text is order of time.

A `UtcTime` is RFC 3339 with exactly six digits of a second and a `Z`: `2026-01-31T09:15:00.000000Z`. Finer digits
are cut, never rounded (a rounded stamp could leap over the change that follows it). Why text and not `datetime`:
docs/decisions/0002-times-are-text.md.
"""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Annotated

import msgspec

UtcTime = Annotated[str, msgspec.Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$")]

# Date, one separator, time; seconds, a fraction and the zone may be missing. Vendors use all of these.
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d)(?::(\d\d)(?:[.,](\d+))?)?\s*(Z|z|UTC|[+-]\d\d:?\d\d|[+-]\d\d)?", re.ASCII
)
# Milliseconds since 1970, as .NET's first JSON serializers wrote a time. What stands behind the sign is for display.
_DATE_CALL = re.compile(r"/Date\((-?\d{1,17})(?:[+-]\d{4})?\)/", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc_text(moment: datetime) -> UtcTime:
    """`moment` (must carry a zone) as contract text."""
    if moment.tzinfo is None:
        raise ValueError("a time without a zone has no place in UTC")
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


def moment(time: UtcTime) -> datetime:
    """The datetime (UTC) of contract text."""
    return datetime.fromisoformat(time)


def shifted(time: UtcTime, *, seconds: float = 0.0, microseconds: int = 0) -> UtcTime:
    """`time` moved by a duration; stays inside the years 1 to 9999."""
    try:
        return utc_text(moment(time) + timedelta(seconds=seconds, microseconds=microseconds))
    except OverflowError:
        return time


def seconds_between(earlier: UtcTime, later: UtcTime) -> float:
    """Seconds from `earlier` to `later`, negative when they are the other way round."""
    return (moment(later) - moment(earlier)).total_seconds()


def read_time(text: str, zone: tzinfo = UTC) -> UtcTime:
    """Any spelling of RFC 3339 or ISO 8601 (and a bare date), or `/Date(1439434356790+0000)/`, as contract text.

    Shape:  a bare date is its midnight; a time without a zone stands in `zone`.
    Errors: ValueError, naming what was read.
    """
    found = _TIME.fullmatch(text.strip())
    if found is None:
        call = _DATE_CALL.fullmatch(text.strip())
        if call is not None:
            return _after_epoch(int(call[1]), text)
        try:
            return utc_text(datetime.fromisoformat(text.strip() + "T00:00:00").replace(tzinfo=zone))
        except (ValueError, OverflowError):
            raise ValueError(f"{text[:60]!r} is not a time (expected RFC 3339, such as 2026-01-31T09:15:00Z)") from None
    day, minute, second, fraction, offset = found.groups()
    plain = f"{day}T{minute}:{second or '00'}.{(fraction or '')[:6].ljust(6, '0')}"
    try:
        if offset is None:
            return utc_text(datetime.fromisoformat(plain).replace(tzinfo=zone))
        if offset in ("Z", "z", "UTC"):
            datetime.fromisoformat(plain)  # is there such a moment?
            return plain + "Z"
        return utc_text(datetime.fromisoformat(plain + offset))
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:60]!r} is not a time (no such moment)") from None


def _after_epoch(milliseconds: int, text: str) -> UtcTime:
    try:
        return utc_text(_EPOCH + timedelta(milliseconds=milliseconds))
    except OverflowError:
        raise ValueError(f"{text[:60]!r} is not a time (no such moment)") from None
