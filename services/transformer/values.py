"""From a vendor's value to the typed value of a column, as the *JSON values* of contracts/rows.py.

A payload is decoded so that every number keeps its digits: integers as `int` of any size, numbers with a fraction or
an exponent as `msgspec.Raw`, the very token. Null and absent are None in every type.

Empty text: stays "" in a string column, where it is a value; is null in every other type, as is text of blanks only.
In a string column nothing is touched: HTML, emoji and white space arrive as the vendor wrote them.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, tzinfo
from decimal import Decimal, InvalidOperation
from functools import lru_cache, partial
from typing import Any

import msgspec

from services.contracts.errors import RejectedError
from services.contracts.json_text import without_lone_surrogates
from services.contracts.schema import ColumnType
from services.contracts.times import read_time

Converter = Callable[[Any], Any]

INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1
INT64_DIGITS = 19
DECIMAL_FRACTION_DIGITS = 9  # decimal(38,9): contracts/schema.py
DECIMAL_INTEGER_DIGITS = 38 - DECIMAL_FRACTION_DIGITS
DIGITS_MAX = 400  # longer number tokens are no numbers a column could hold; keeps int and Decimal work bounded
SHOWN_CHARS = 40  # how much of a bad value its error shows
REMEDY = (
    "Mend the record at the source: it is read again when it changes. If many records are like this, the source has "
    "changed: the mapping's path or the column's type no longer fits it."
)

_decoder = msgspec.json.Decoder(float_hook=msgspec.Raw)
_canonical = msgspec.json.Encoder(order="deterministic")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_UTC = re.compile(r"(\d{4}-\d\d-\d\d)[T ]((?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d)(?:\.(\d+))?Z", re.ASCII)


class UnfitError(ValueError):
    """A value its column's type cannot hold; the message says what was expected and what was met."""


def decode_payload(payload: bytes | msgspec.Raw) -> dict[str, Any]:
    """A vendor's record with every number's digits kept; a lone surrogate is U+FFFD.

    Errors: RejectedError `payload_unreadable`.
    """
    try:
        record = _decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise _unreadable(f"the payload cannot be decoded ({err})") from err
    if type(record) is not dict:
        raise _unreadable("the payload is not a JSON object")
    return record


def _unreadable(what: str) -> RejectedError:
    return RejectedError(what, code="payload_unreadable", where="$", remedy=REMEDY)


def _decode(payload: bytes | msgspec.Raw) -> Any:
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        text = bytes(payload)
        repaired = without_lone_surrogates(text)
        if repaired == text:
            raise
        return _decoder.decode(repaired)


def json_text(value: Any) -> str:
    """Canonical JSON text of a decoded value: keys sorted, no white space, numbers as written. Errors: UnfitError."""
    try:
        return _canonical.encode(value).decode()
    except RecursionError:
        raise UnfitError("expected JSON of bounded depth") from None


def text_of(value: Any) -> str:
    """A scalar as text: a number by its token, a bool as `true` or `false`. Errors: UnfitError for anything else."""
    kind = type(value)
    if kind is str:
        return value  # type: ignore[no-any-return]
    if kind is bool:
        return "true" if value else "false"
    if kind is int:
        return str(value)
    if kind is msgspec.Raw:
        return str(value, "ascii")
    raise _unfit("text", value)


def decimal_of(value: Any) -> Decimal | None:
    """The exact number in a JSON number or in its text; None for null and blank text. Errors: UnfitError."""
    if value is None:
        return None
    if type(value) not in (str, int, msgspec.Raw):
        raise _unfit("a number", value)
    text = text_of(value).strip()
    if not text:
        return None
    if len(text) > DIGITS_MAX or not _NUMBER.fullmatch(text):
        raise _unfit("a number", value)
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent beyond what Decimal can hold
        raise _unfit("a number", value) from None


def converter(kind: ColumnType, zone: tzinfo = UTC) -> Converter:
    """The function that makes a decoded value the JSON value of a column. `zone` is where times without one stand.

    Errors: the function raises UnfitError.
    """
    if kind == "timestamp":
        return partial(_timestamp, zone=zone)
    return _CONVERTERS[kind]


def _string(value: Any) -> str | None:
    return None if value is None else text_of(value)


def _int64(value: Any) -> int | None:
    if type(value) is str and len(value) < DIGITS_MAX and _INTEGER.fullmatch(value.strip()):
        value = int(value)
    if type(value) is not int:
        number = decimal_of(value)
        if number is None:
            return None
        if number.adjusted() >= INT64_DIGITS or number != number.to_integral_value():
            raise _unfit("an integer of 64 bits", value)
        value = int(number)
    if not INT64_MIN <= value <= INT64_MAX:
        raise _unfit("an integer of 64 bits", value)
    return value  # type: ignore[no-any-return]


def _float64(value: Any) -> float | None:
    number = decimal_of(value)
    if number is None:
        return None
    result = float(number)
    if result in (float("inf"), float("-inf")):
        raise _unfit("a number of 64 bits", value)
    return result + 0.0  # -0.0 is 0.0: they are equal, and so must be their digests


def _decimal(value: Any) -> str | None:
    number = decimal_of(value)
    if number is None:
        return None
    if not number:
        return "0"
    # Its magnitude first: written out, 1e999999 would be a million digits.
    if not -DECIMAL_FRACTION_DIGITS <= number.adjusted() < DECIMAL_INTEGER_DIGITS:
        raise _unfit(_A_DECIMAL, value)
    whole, _, fraction = format(number, "f").partition(".")
    fraction = fraction.rstrip("0")
    if len(fraction) > DECIMAL_FRACTION_DIGITS:
        raise _unfit(_A_DECIMAL, value)
    return f"{whole}.{fraction}" if fraction else whole


_A_DECIMAL = (
    f"a decimal of at most {DECIMAL_INTEGER_DIGITS} digits before and {DECIMAL_FRACTION_DIGITS} after the point"
)
_BOOLS: Mapping[str, bool | None] = {"true": True, "1": True, "false": False, "0": False, "": None}


def _bool(value: Any) -> bool | None:
    if value is None or value is True or value is False:
        return value
    if type(value) in (str, int):
        text = str(value).strip().lower()
        if text in _BOOLS:
            return _BOOLS[text]
    raise _unfit("true or false", value)


def _timestamp(value: Any, zone: tzinfo) -> str | None:
    if value is None:
        return None
    if type(value) is not str:
        raise _unfit("a time such as 2026-01-31T09:15:00Z", value)
    found = _UTC.fullmatch(value)  # what most vendors write, an order of magnitude faster than read_time
    if found is not None and _is_day(found[1]):
        return f"{found[1]}T{found[2]}.{(found[3] or '')[:6]:0<6}Z"
    if not value or value.isspace():
        return None
    try:
        return read_time(value, zone)
    except ValueError:
        raise _unfit("a time such as 2026-01-31T09:15:00Z", value) from None


def _date(value: Any) -> str | None:
    """`YYYY-MM-DD`; of a timestamp its calendar day as written, whatever its zone; of `/Date(...)/` that in UTC."""
    if value is None:
        return None
    text = value.strip() if type(value) is str else None
    if text == "":
        return None
    if text is not None and text.startswith("/") and _is_time(text):
        return read_time(text)[:10]
    if text is None or not _is_day(text[:10]) or (len(text) > len("2026-01-31") and not _is_time(text)):
        raise _unfit("a date such as 2026-01-31", value)
    return text[:10]


def _json(value: Any) -> str | None:
    if value is None or (type(value) is str and not value.strip()):
        return None
    return json_text(value)


_CONVERTERS: Mapping[ColumnType, Converter] = {
    "string": _string,
    "int64": _int64,
    "float64": _float64,
    "decimal": _decimal,
    "bool": _bool,
    "date": _date,
    "json": _json,
}


@lru_cache(maxsize=4096)
def _is_day(text: str) -> bool:
    if not _DAY.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_time(text: str) -> bool:
    try:
        read_time(text)
    except ValueError:
        return False
    return True


def _unfit(expected: str, value: Any) -> UnfitError:
    kind = type(value)
    if kind is dict or kind is list:
        met = "an object" if kind is dict else "a list"
    elif kind is msgspec.Raw:
        met = str(value, "ascii")[:SHOWN_CHARS]
    elif kind is int:
        met = f"{value}"[:SHOWN_CHARS]
    else:
        met = json_text(value)[:SHOWN_CHARS]
    return UnfitError(f"expected {expected}, met {met}")
