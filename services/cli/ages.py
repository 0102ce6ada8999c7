"""Moments and durations as people write and read them. Everything is UTC."""

from services.contracts.errors import UsageError
from services.contracts.times import UtcTime, read_time, seconds_between

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


def moment_meant(text: str, option: str) -> UtcTime:
    """What a person typed as a moment. A bare date is its midnight. Errors: UsageError."""
    try:
        return read_time(text)
    except ValueError as err:
        raise UsageError(str(err), where=option, remedy="Such as 2026-01-31 or 2026-01-31T09:15:00Z.") from err


def shown_time(time: UtcTime) -> str:
    """`2026-01-31 09:15:00`, with as much of the second's fraction as there is."""
    text = time.removesuffix("Z").replace("T", " ")
    return text.rstrip("0").rstrip(".") if text.endswith("0") else text


def rough(seconds: float) -> str:
    """`42 s`, `12 min`, `3 h 5 min`, `2 d 4 h`, `40 d`: as exact as anybody asks, cut off and never rounded up."""
    left = max(0, int(seconds))
    for place, (unit, length) in enumerate(_UNITS[:-1]):
        if left >= length:
            whole, rest = divmod(left, length)
            smaller, smaller_length = _UNITS[place + 1]
            rest //= smaller_length
            plain = rest == 0 or unit == "min" or (unit == "d" and whole >= 7)
            return f"{whole} {unit}" if plain else f"{whole} {unit} {rest} {smaller}"
    return f"{left} s"


def ago(then: UtcTime, now: UtcTime) -> str:
    """`3 min ago`."""
    return f"{rough(seconds_between(then, now))} ago"
