"""Filters evaluated on records: comparisons, and a parser for the two filter languages that several vendors share.

sql_like("Status = 'Open' AND (SystemModstamp > 2026-01-01T00:00:00Z OR Id IN ('1', '2'))", SQL)
sql_like("createdDateTime ge 2026-01-01T00:00:00Z and not startswith(displayName, 'A')", ODATA)
"""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from services.sandbox.vendors.dialect import RefusedError
from services.sandbox.vendors.store import value_at

Test = Callable[[dict[str, Any]], bool]
DEPTH_MAX: Final = 50  # of parentheses


def compare(found: Any, operator: str, wanted: Any) -> bool:
    """`found op wanted`, as databases do: with null only `=` and `!=` can hold.

    Shape:  operators `= != > >= < <= in contains begins ends`; times compare as times, numbers as numbers, also where
            one side is text; everything else as text without regard to case.
    """
    if operator == "in":
        return any(compare(found, "=", one) for one in wanted)
    if found is None or wanted is None:
        return {"=": found is wanted, "!=": found is not wanted}.get(operator, False)
    if operator in ("contains", "begins", "ends"):
        left, right = str(found).lower(), str(wanted).lower()
        return {"contains": right in left, "begins": left.startswith(right), "ends": left.endswith(right)}[operator]
    one, other = _comparable(found, wanted)
    if operator == "=":
        return bool(one == other)
    if operator == "!=":
        return bool(one != other)
    if operator not in (">", ">=", "<", "<="):
        raise RefusedError("bad_request", f"operator {operator}")
    return bool({">": one > other, ">=": one >= other, "<": one < other, "<=": one <= other}[operator])


def _comparable(found: Any, wanted: Any) -> tuple[Any, Any]:
    for read in (_as_number, as_time):
        left, right = read(found), read(wanted)
        if left is not None and right is not None:
            return left, right
    return str(found).lower(), str(wanted).lower()


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def as_time(value: Any) -> datetime | None:
    """RFC 3339 and its relatives; UTC where no zone is shown. None for anything else."""
    if not isinstance(value, str) or len(value) < 10 or value[4:5] != "-":
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


class Language(msgspec.Struct, frozen=True):
    """`operators`: how the language spells each of `compare`'s; `escaped`: a quote inside a text."""

    operators: Mapping[str, str]
    functions: Mapping[str, str] = {}
    escaped: str = "''"


SQL: Final = Language(
    {"=": "=", "!=": "!=", "<>": "!=", ">": ">", ">=": ">=", "<": "<", "<=": "<=", "in": "in", "like": "like"},
    escaped="\\'",
)
ODATA: Final = Language(
    {"eq": "=", "ne": "!=", "gt": ">", "ge": ">=", "lt": "<", "le": "<=", "in": "in"},
    {"startswith": "begins", "endswith": "ends", "contains": "contains"},
)
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^'\\]|''|\\.)*')|(?P<sign><=|>=|!=|<>|=|<|>|\(|\)|,)|(?P<word>[^\s(),'<>=!]+))", re.DOTALL
)


def sql_like(text: str, language: Language) -> Test:
    """A test from a filter text: comparisons joined by and, or, not, with parentheses. An empty text lets all pass.

    Errors: RefusedError `bad_request` where it cannot be read.
    """
    if not text.strip():
        return lambda _: True
    parser = _Parser(text, language)
    found = parser.either(0)
    if parser.left:
        raise RefusedError("bad_request", f"unexpected {parser.left[0][1]!r} in the filter")
    return found


class _Parser:
    def __init__(self, text: str, language: Language) -> None:
        self._language = language
        self.left: list[tuple[str, str]] = []
        place = 0
        while place < len(text.rstrip()):
            token = _TOKEN.match(text, place)
            if token is None or token.lastgroup is None:
                raise RefusedError("bad_request", f"unreadable filter at {text[place : place + 20]!r}")
            self.left.append((token.lastgroup, token.group(token.lastgroup)))
            place = token.end()

    def either(self, depth: int) -> Test:
        return self._joined(self._all, "or", any, depth)

    def _all(self, depth: int) -> Test:
        return self._joined(self._one, "and", all, depth)

    def _joined(
        self, part: Callable[[int], Test], word: str, whole: Callable[[Sequence[bool]], bool], depth: int
    ) -> Test:
        parts = [part(depth)]
        while self._is(word):
            self._take()
            parts.append(part(depth))
        return parts[0] if len(parts) == 1 else lambda content: whole([test(content) for test in parts])

    def _one(self, depth: int) -> Test:
        if depth > DEPTH_MAX:
            raise RefusedError("bad_request", "the filter is too deep")
        if self._is("not"):
            self._take()
            inner = self._one(depth + 1)
            return lambda content: not inner(content)
        if self._is("("):
            self._take()
            inner = self.either(depth + 1)
            self._expect(")")
            return inner
        return self._comparison()

    def _comparison(self) -> Test:
        field = self._take()
        function = self._language.functions.get(field.lower())
        if function is not None and self._is("("):
            self._take()
            path = self._take()
            self._expect(",")
            wanted = self._value()
            self._expect(")")
            return _tested(path, function, wanted)
        spelled = self._take().lower()
        operator = self._language.operators.get(spelled)
        if operator is None:
            raise RefusedError("bad_request", f"no operator {spelled!r}")
        if operator == "in":
            return _tested(field, "in", self._values())
        wanted = self._value()
        if operator == "like":
            return _tested(field, *_liked(str(wanted)))
        return _tested(field, operator, wanted)

    def _values(self) -> list[Any]:
        self._expect("(")
        found = [self._value()]
        while self._is(","):
            self._take()
            found.append(self._value())
        self._expect(")")
        return found

    def _value(self) -> Any:
        if not self.left:
            raise RefusedError("bad_request", "the filter ends too early")
        kind, text = self.left.pop(0)
        if kind == "text":
            return text[1:-1].replace(self._language.escaped, "'").replace("\\\\", "\\")
        if kind == "sign":
            raise RefusedError("bad_request", f"unexpected {text!r} in the filter")
        return {"null": None, "true": True, "false": False}.get(text.lower(), text)

    def _is(self, word: str) -> bool:
        return bool(self.left) and self.left[0][0] != "text" and self.left[0][1].lower() == word

    def _take(self) -> str:
        if not self.left:
            raise RefusedError("bad_request", "the filter ends too early")
        return self.left.pop(0)[1]

    def _expect(self, sign: str) -> None:
        if not self._is(sign):
            raise RefusedError("bad_request", f"{sign!r} is missing in the filter")
        self._take()


def _tested(path: str, operator: str, wanted: Any) -> Test:
    dotted = path.replace("/", ".")
    return lambda content: compare(value_at(content, dotted), operator, wanted)


def _liked(pattern: str) -> tuple[str, str]:
    """`%abc%` -> contains, `abc%` -> begins, `%abc` -> ends, `abc` -> equals."""
    inner = pattern.strip("%")
    match (pattern.startswith("%"), pattern.endswith("%")):
        case (True, True):
            return "contains", inner
        case (False, True):
            return "begins", inner
        case (True, False):
            return "ends", inner
        case _:
            return "=", inner
