"""Dotted paths over decoded JSON, compiled once.

What is not there (`ABSENT`) is told apart from what is null, and from what no longer can be reached because something
on the way has another type (`RETYPED`): the first is drift, the last a value that cannot be read (DESIGN 2.2).
"""

from collections.abc import Callable
from enum import Enum
from typing import Any, Final


class Nowhere(Enum):
    """What a path may lead to instead of a value."""

    ABSENT = "absent"
    RETYPED = "retyped"


ABSENT: Final = Nowhere.ABSENT
RETYPED: Final = Nowhere.RETYPED
Getter = Callable[[Any], Any]


def compile_path(path: str) -> Getter:
    """A function from a decoded JSON value to what lies at `path`, or `ABSENT`, or `RETYPED`.

    Shape:  parts are object keys, or positions where a list is met: `emails.0.address`. Where that leads nowhere, the
            whole path is tried as one key, because some vendors write `company.name` flat.
            On the way null, "", 0, false and [] count as an empty reference, as vendors write one: what lies below is
            null. So does a position beyond the end of a list. Any other scalar on the way, or a list where a key is
            wanted, means that the field has another type than it had: RETYPED.
    Errors: none.
    """
    parts = path.split(".")
    if len(parts) == 1:
        return _one_key(path)
    if len(parts) == 2 and not parts[1].isdecimal():
        return _two_keys(path, *parts)
    return _many_keys(path, parts)


def _one_key(key: str) -> Getter:
    def get(record: Any) -> Any:
        if type(record) is dict:
            return record.get(key, ABSENT)
        return step(record, key)

    return get


def _two_keys(path: str, first: str, second: str) -> Getter:
    """The commonest path (`status.name`), without a loop."""

    def get(record: Any) -> Any:
        if type(record) is not dict:
            return step(step(record, first), second)
        inner = record.get(first, ABSENT)
        value = inner.get(second, ABSENT) if type(inner) is dict else step(inner, second)
        return record.get(path, value) if type(value) is Nowhere else value

    return get


def _many_keys(path: str, parts: list[str]) -> Getter:
    first, rest = parts[0], parts[1:]

    def get(record: Any) -> Any:
        value = step(record, first)
        for part in rest:
            value = step(value, part)
        return record.get(path, value) if type(value) is Nowhere and type(record) is dict else value

    return get


def step(value: Any, part: str) -> Any:
    """One part of a path further down."""
    if type(value) is dict:
        return value.get(part, ABSENT)
    if type(value) is list and part.isascii() and part.isdecimal():
        position = int(part)
        return value[position] if position < len(value) else None
    if type(value) is Nowhere:
        return value
    return RETYPED if value else None


def json_path(path: str) -> str:
    """How `path` is shown in an error."""
    return f"$.{path}"
