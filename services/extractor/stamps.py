"""Times as vendors write them, and as they want them written. Pure."""

import re
from datetime import UTC, datetime, timedelta, tzinfo
from decimal import Decimal
from email.utils import format_datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from services.contracts.errors import UsageError
from services.contracts.reading import TimeFormat
from services.contracts.times import UtcTime, moment, read_time, utc_text
from services.extractor.raw_json import scalar_text

MILLISECONDS_FROM = 100_000_000_000  # as seconds that would be the year 5138, as milliseconds 1973
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_TEXT = re.compile(r"-?\d{9,17}(?:\.\d+)?", re.ASCII)
_HOURS = re.compile(r"%-?[HIklTXcrRs]")


def zone_of(name: str) -> tzinfo:
    """The time zone of an IANA name. Errors: UsageError `bad_mapping`."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as err:
        raise UsageError(
            f"{name!r} is no time zone", code="bad_mapping", remedy="Write an IANA name, such as Europe/Paris."
        ) from err


def read_stamp(value: bytes | None, latest_at: UtcTime, zone: tzinfo = UTC) -> UtcTime | None:
    """A modification time, None where there is none (null, empty, or beyond `latest_at`).

    Units:  text is RFC 3339 or ISO 8601, in `zone` where it shows none; a number, or text of nothing else, counts
            seconds or milliseconds since 1970, told by its size; `/Date(1439434356790+0000)/` counts milliseconds.
    Errors: ValueError for anything else.
    """
    if value is None or value in (b"null", b'""'):
        return None
    text = scalar_text(value)
    if text is None:
        raise ValueError(f"{value[:40].decode(errors='replace')} is not a time")
    stamp = time_of(text) if value[:1] != b'"' else time_of_text(text, zone)
    return None if stamp > latest_at else stamp


def time_of_text(text: str, zone: tzinfo = UTC) -> UtcTime:
    """A time as it stands in a string, or in a page's key. Errors: ValueError."""
    if text[4:5] != "-" and _EPOCH_TEXT.fullmatch(text):  # not 2026-..., which most are
        return time_of(text)
    return read_time(text, zone)


def time_of(number: str) -> UtcTime:
    """Seconds or milliseconds since 1970, told by their size. Errors: ValueError."""
    count = Decimal(number)
    return _after_epoch(count / 1000 if abs(count) >= MILLISECONDS_FROM else count, number)


def _after_epoch(seconds: Decimal, text: str) -> UtcTime:
    try:
        return utc_text(_EPOCH + timedelta(microseconds=int(seconds * 1_000_000 // 1)))
    except (OverflowError, ArithmeticError):
        raise ValueError(f"{text[:40]} is not a time") from None


def format_time(  # noqa: PLR0911  one for each spelling
    time: UtcTime, spelling: TimeFormat, zone: tzinfo = UTC, *, end: bool = False
) -> str:
    """A mark as the vendor reads it, cut to the spelling's precision: earlier is safe, later is not.

    Shape: `zone` is that of a spelling which shows none. The hour that clocks repeat in autumn has one text for two
           times: the text is one that is not later than `time` whichever is meant.
           `end`: the text ends what is asked for: it is not earlier than `time` instead, and a day is the one after,
           for vendors that mean its midnight; finer spellings are cut, and what comes after is asked for next time.
    """
    match spelling:
        case "rfc3339_s":
            return time[:19] + "Z"
        case "rfc3339_ms":
            return time[:23] + "Z"
        case "rfc3339_us":
            return time
        case "epoch_s":
            return str(int(moment(time).timestamp() // 1))
        case "epoch_ms":
            return str(int(moment(time).timestamp() // 1) * 1000 + int(time[20:23]))
        case "http":
            return format_datetime(moment(time).replace(microsecond=0), usegmt=True)
        case "date":
            return _day(time, zone, end=end).date().isoformat()
        case _ if _HOURS.search(spelling):
            return _local(time, zone, end=end).strftime(spelling)
        case _:
            return _day(time, zone, end=end).strftime(spelling)


def _day(time: UtcTime, zone: tzinfo, *, end: bool) -> datetime:
    local = moment(time).astimezone(zone)
    begun = local.replace(hour=0, minute=0, second=0, microsecond=0)
    return begun + timedelta(days=1) if end and begun != local else local


def _local(time: UtcTime, zone: tzinfo, *, end: bool) -> datetime:
    local = moment(time).astimezone(zone)
    first, second = local.replace(fold=0).utcoffset(), local.replace(fold=1).utcoffset()
    if first is None or second is None or first <= second:
        return local  # this text means one time
    if end:
        return local + (first - second) if local.fold else local
    return local if local.fold else local - (first - second)
