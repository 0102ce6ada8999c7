"""Which part of a condition the indexes answer: ranges of ids and stamps, and what is left to test record by record."""

from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import msgspec

from services.sandbox.conditions import Compare, Condition, Every
from services.sandbox.times import seconds_of

ID = ("id",)
STAMP = ("_info", "lastUpdated")
_LOWEST, _HIGHEST = -(2**62), 2**62


class Narrowed(msgspec.Struct, frozen=True):
    """Closed ranges of ids and of stamps (seconds since 1970), and the condition that remains (None: nothing)."""

    id_min: int = _LOWEST
    id_max: int = _HIGHEST
    stamp_min: int = _LOWEST
    stamp_max: int = _HIGHEST
    rest: Condition | None = None

    @property
    def by_stamp(self) -> bool:
        return self.stamp_min > _LOWEST or self.stamp_max < _HIGHEST


def narrow(condition: Condition | None) -> Narrowed:
    """The same condition as ranges and a rest. Only comparisons joined by `and` at the top become ranges."""
    if condition is None:
        return Narrowed()
    ranges = {"id": (_LOWEST, _HIGHEST), "stamp": (_LOWEST, _HIGHEST)}
    rest: list[Condition] = []
    for part in _conjuncts(condition):
        found = _range_of(part) if isinstance(part, Compare) else None
        if found is None:
            rest.append(part)
            continue
        name, low, high = found
        ranges[name] = (max(ranges[name][0], low), min(ranges[name][1], high))
    remaining = None if not rest else rest[0] if len(rest) == 1 else Every(tuple(rest))
    return Narrowed(*ranges["id"], *ranges["stamp"], remaining)


def _conjuncts(condition: Condition) -> Iterable[Condition]:
    if not isinstance(condition, Every):
        return (condition,)
    return (deeper for part in condition.parts for deeper in _conjuncts(part))


def _range_of(compare: Compare) -> tuple[str, int, int] | None:
    """(index, lowest, highest) of whole numbers that satisfy the comparison; None where no index answers it."""
    value, path = compare.value, compare.column.path
    if path == ID and isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        name = "id"
        below = int(Decimal(value).to_integral_value(ROUND_FLOOR))
        above = int(Decimal(value).to_integral_value(ROUND_CEILING))
    elif path == STAMP and isinstance(value, datetime):
        name = "stamp"
        below = seconds_of(value)
        above = below if value.microsecond == 0 else below + 1
    else:
        return None
    return {
        ">": (name, below + 1, _HIGHEST),
        ">=": (name, above, _HIGHEST),
        "<": (name, _LOWEST, above - 1),
        "<=": (name, _LOWEST, below),
        "=": (name, above, below),  # an empty range where the value has a fraction
    }.get(compare.operator)
