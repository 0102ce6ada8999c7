"""Dotted paths over decoded JSON, compiled once. What is not there (`ABSENT`) is told apart from what is null."""

from collections.abc import Callable
from enum import Enum
from typing import Any, Final


class Absent(Enum):
    """The type of `ABSENT`."""

    ABSENT = "absent"

    def __repr__(self) -> str:
        return "ABSENT"


ABSENT: Final = Absent.ABSENT
Getter = Callable[[Any], Any]


def compile_path(path: str) -> Getter:
    """A function from a decoded JSON value to what lies at `path`, or `ABSENT`.

    Shape:  parts are object keys, or positions where a list is met: `emails.0.address`. Where the first key is not
            there, the whole path is tried as one key, because some vendors write `company.name` flat.
            On the way, null and "" count as an empty reference: what lies below is null. So does a position beyond
            the end of a list. Any other scalar on the way means that the field was re-typed: ABSENT, hence drift.
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
        if type(inner) is dict:
            return inner.get(second, ABSENT)
        if inner is ABSENT:
            return record.get(path, ABSENT)
        return step(inner, second)

    return get


def _many_keys(path: str, parts: list[str]) -> Getter:
    first, rest = parts[0], parts[1:]

    def get(record: Any) -> Any:
        value = step(record, first)
        if value is ABSENT:
            return step(record, path)
        for part in rest:
            value = step(value, part)
            if value is ABSENT or value is None:
                return value
        return value

    return get


def step(value: Any, part: str) -> Any:
    """One part of a path further down."""
    if type(value) is dict:
        return value.get(part, ABSENT)
    if type(value) is list and part.isascii() and part.isdecimal():
        position = int(part)
        return value[position] if position < len(value) else None
    return None if value is None or value == "" else ABSENT


def json_path(path: str) -> str:
    """How `path` is shown in an error."""
    return f"$.{path}"
