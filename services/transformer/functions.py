"""The named functions that a mapping's `{"type": "function"}` may call: small, pure, one registry.

Each takes the decoded values at its `paths`, in order, None for null or absent, and returns a value that the column's
type then reads. It raises UnfitError for a value it cannot use. A function never changes its meaning once shipped:
pinned mappings name it (DESIGN 2.4). A new meaning is a new name.
"""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from services.contracts.times import moment, read_time, utc_text
from services.transformer.values import UnfitError, decimal_of, json_text, text_of

Function = Callable[..., Any]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BILLIONTH = Decimal("1E-9")  # the finest a decimal column holds
_REAL_FROM = 1950  # the first year of `real_time`
_MAGNITUDE_MAX = 18  # of a duration or a count of seconds, as a power of ten


def join_space(*values: Any) -> str | None:
    """The texts that are there, joined by one space: first and last name."""
    return " ".join(_texts(values)) or None


def join_comma(*values: Any) -> str | None:
    """The texts that are there, joined by a comma and a space: the lines of an address."""
    return ", ".join(_texts(values)) or None


def minutes_to_hours(minutes: Any) -> str | None:
    """Hours, to a billionth (half to even)."""
    return _hours(minutes, 60)


def seconds_to_hours(seconds: Any) -> str | None:
    """Hours, to a billionth (half to even)."""
    return _hours(seconds, 3600)


def time_to_hours(time: Any) -> str | None:
    """Hours, to a billionth, of a duration that is written as the time so long after 1970 began:
    `1970-01-02 01:30:00` is 25.5."""
    if time is None or time == "":
        return None
    try:
        elapsed = moment(read_time(text_of(time))) - _EPOCH
    except ValueError as err:
        raise UnfitError(f"expected a duration written as a time, met {text_of(time)[:40]!r}") from err
    return _hours(elapsed // timedelta(microseconds=1), 3_600_000_000)


def open_won_lost(closed: Any, won: Any) -> str | None:
    """`open`, `won` or `lost`, from two flags: is it closed, and was it won."""
    if closed is None:
        return None
    if text_of(closed).lower() != "true":
        return "open"
    return "won" if won is not None and text_of(won).lower() == "true" else "lost"


def epoch_s(seconds: Any) -> str | None:
    """The time that is so many seconds after 1970 began, UTC."""
    return _epoch(seconds, 1_000_000)


def epoch_ms(milliseconds: Any) -> str | None:
    """The time that is so many milliseconds after 1970 began, UTC."""
    return _epoch(milliseconds, 1_000)


def lower(text: Any) -> str | None:
    """In small letters: an e-mail address or a word that a vendor spells now so, now so."""
    return None if text is None else text_of(text).lower()


def default_email(items: Any) -> str | None:
    """Of a list of ways to reach somebody (`communicationType`, `value`, `defaultFlag`) the default e-mail address."""
    if items is None:
        return None
    if not isinstance(items, list):
        raise UnfitError("expected a list of ways to reach somebody")
    addresses = (item for item in items if isinstance(item, dict) and item.get("communicationType") == "Email")
    default = next((item.get("value") for item in addresses if item.get("defaultFlag") is True), None)
    return None if default is None else text_of(default)


def json_array(*values: Any) -> str | None:
    """The texts as a JSON array, as the record id of a composite key is written; null where one is missing."""
    return None if any(value is None for value in values) else json_text([text_of(value) for value in values])


def names(items: Any) -> list[str] | None:
    """The `name` of each object of a list, each text of it as it is: labels."""
    if items is None:
        return None
    if not isinstance(items, list):
        raise UnfitError("expected a list of things with names")
    found = (item.get("name") if isinstance(item, dict) else item for item in items)
    return [text_of(name) for name in found if name is not None]


def first_line(text: Any) -> str | None:
    """The first line of a text: the subject of a commit."""
    return None if text is None else text_of(text).partition("\n")[0].rstrip("\r") or None


def last_two_steps(address: Any) -> str | None:
    """The last two steps of the path of an address: `acme/web` of `https://api.example.com/repos/acme/web`."""
    if address is None:
        return None
    steps = [step for step in text_of(address).partition("://")[2].partition("?")[0].split("/")[1:] if step]
    return "/".join(steps[-2:]) or None


def default_phone(phones: Any) -> str | None:
    """Of a list of telephones in parts (`PhoneType`, `PhoneCountryCode`, `PhoneAreaCode`, `PhoneNumber`) the default
    one, its parts joined by spaces."""
    return _phone(phones, "DEFAULT")


def fax_phone(phones: Any) -> str | None:
    """Of such a list the fax."""
    return _phone(phones, "FAX")


def real_time(*times: Any) -> str | None:
    """The first of times that is one, null where none is: 1900-01-01 and 0001-01-01 are what databases hold whose
    columns must not be empty. Times before 1950 count as none: not for birthdays."""
    texts = (text_of(time) for time in times if time is not None)
    return next((text for text in texts if text and not (text[:4].isdecimal() and int(text[:4]) < _REAL_FROM)), None)


def positive(*numbers: Any) -> str | None:
    """The first of numbers that is above 0, null where none is: an id, of a vendor that writes 0 or -1 for none."""
    found = (text_of(number) for number in numbers if (_number(number) or 0) > 0)
    return next(found, None)


FUNCTIONS: Final[Mapping[str, Function]] = {
    function.__name__: function
    for function in (
        join_space,
        join_comma,
        minutes_to_hours,
        seconds_to_hours,
        time_to_hours,
        open_won_lost,
        epoch_s,
        epoch_ms,
        lower,
        default_email,
        json_array,
        names,
        first_line,
        last_two_steps,
        default_phone,
        fax_phone,
        real_time,
        positive,
    )
}


def _texts(values: tuple[Any, ...]) -> list[str]:
    texts = [text_of(value) for value in values if value is not None]
    return [text for text in texts if text and not text.isspace()]


def _phone(phones: Any, kind: str) -> str | None:
    if phones is None:
        return None
    if not isinstance(phones, list):
        raise UnfitError("expected a list of telephones")
    one = next((phone for phone in phones if isinstance(phone, dict) and phone.get("PhoneType") == kind), {})
    return join_space(*(one.get(f"Phone{part}") for part in ("CountryCode", "AreaCode", "Number")))


def _number(value: Any) -> Decimal | None:
    number = decimal_of(value)
    if number and number.adjusted() > _MAGNITUDE_MAX:
        raise UnfitError(f"expected a number below 1E{_MAGNITUDE_MAX}, met one of {number.adjusted() + 1} digits")
    return number


def _hours(value: Any, per_hour: int) -> str | None:
    number = _number(value)
    return None if number is None else format((number / per_hour).quantize(_BILLIONTH), "f")


def _epoch(value: Any, microseconds: int) -> str | None:
    number = _number(value)
    if number is None:
        return None
    try:
        return utc_text(_EPOCH + timedelta(microseconds=math.floor(number * microseconds)))
    except OverflowError:
        raise UnfitError("expected a time between the years 1 and 9999") from None
