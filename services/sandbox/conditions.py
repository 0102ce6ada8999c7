"""The vendor's query language for `conditions`: text -> a condition -> true, false or unknown of a record.

    (contact/name like "Fred%" and closedFlag = false) or lastUpdated > [2016-08-20T18:04:26Z] and board/id in (3, 2)

Source: ConnectWise PSA developer guide, "Query String Parameters" and "Conditions" (operators `= != < <= > >= contains
like in not`, strings in quotes with `*` as wildcard, times in square brackets, `and`/`or`, `/` below a reference); the
example of the public client ConnectWiseManageAPI (`Get-CWMCompany.md`) has `%` as wildcard too. Letter case never
counts: neither in field names and words nor, as in the vendor's SQL Server, in compared text. A comparison with a
missing or null value is unknown (SQL), unless it asks for null.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from services.sandbox.recipe import Kind
from services.sandbox.times import moment_of

CHARACTERS_MAX = 10_000  # beyond it the vendor wants POST .../search
DEPTH_MAX = 50

Value: TypeAlias = str | int | Decimal | bool | datetime | None
Truth: TypeAlias = bool | None
Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "like", "contains"]


class QueryError(ValueError):
    """The request cannot be understood; the message says what and where. Answered with 400."""


class Column(msgspec.Struct, frozen=True):
    """A field by its path, spelled as in the records, and what it holds."""

    path: tuple[str, ...]
    kind: Kind


class Compare(msgspec.Struct, frozen=True):
    column: Column
    operator: Operator
    value: Value


class Among(msgspec.Struct, frozen=True):
    column: Column
    values: tuple[Value, ...]


class Not(msgspec.Struct, frozen=True):
    part: "Condition"


class Every(msgspec.Struct, frozen=True):
    parts: "tuple[Condition, ...]"


class Some(msgspec.Struct, frozen=True):
    parts: "tuple[Condition, ...]"


Condition: TypeAlias = Compare | Among | Not | Every | Some
Resolve: TypeAlias = Callable[[str], Column]
Test: TypeAlias = Callable[[Mapping[str, object]], Truth]


class _Token(msgspec.Struct, frozen=True):
    kind: str
    text: str
    at: int


_TOKENS = re.compile(
    r"""(?:(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<time>\[[^\]]*\])
    |(?P<number>-?\d+(?:\.\d+)?(?![\w/]))
    |(?P<word>[A-Za-z_][\w/]*)
    |(?P<sign><=|>=|!=|=|<|>)
    |(?P<mark>[(),]))""",
    re.VERBOSE,
)
_OPERATORS: tuple[Operator, ...] = get_args(Operator)
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LITERAL_WORDS: dict[str, Value] = {"true": True, "false": False, "null": None}


def parse(text: str, resolve: Resolve) -> Condition:
    """The condition that `text` spells; `resolve` knows the fields. Errors: QueryError, also from `resolve`."""
    if len(text) > CHARACTERS_MAX:
        raise QueryError(f"conditions are {len(text)} characters long, at most {CHARACTERS_MAX} are read")
    return _Parser(_tokens(text), resolve).whole()


def _tokens(text: str) -> list[_Token]:
    tokens, at, end = [], 0, len(text.rstrip())
    while at < end:
        at = len(text) - len(text[at:].lstrip())
        found = _TOKENS.match(text, at)
        if found is None or found.lastgroup is None:
            raise QueryError(f"cannot read conditions at character {at + 1}: {text[at : at + 20]!r}")
        tokens.append(_Token(found.lastgroup, found.group(found.lastgroup), at))
        at = found.end()
    tokens.append(_Token("end", "", at))
    return tokens


class _Parser:
    """Recursive descent; `or` binds weaker than `and`, `and` weaker than `not`."""

    def __init__(self, tokens: list[_Token], resolve: Resolve) -> None:
        self._tokens = tokens
        self._next = 0
        self._resolve = resolve
        self._depth = 0

    def whole(self) -> Condition:
        condition = self._either()
        if self._peek().kind != "end":
            raise self._surprise("the end, `and` or `or`")
        return condition

    def _either(self) -> Condition:
        parts = [self._both()]
        while self._accept("or"):
            parts.append(self._both())
        return parts[0] if len(parts) == 1 else Some(tuple(parts))

    def _both(self) -> Condition:
        parts = [self._single()]
        while self._accept("and"):
            parts.append(self._single())
        return parts[0] if len(parts) == 1 else Every(tuple(parts))

    def _single(self) -> Condition:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise QueryError(f"conditions are nested more than {DEPTH_MAX} deep")
        if self._accept("not"):
            condition: Condition = Not(self._single())
        elif self._accept("("):
            condition = self._either()
            self._expect(")")
        else:
            condition = self._comparison()
        self._depth -= 1
        return condition

    def _comparison(self) -> Condition:
        if self._peek().kind != "word":
            raise self._surprise("a field")
        column = self._resolve(self._take().text)
        negated = self._accept("not")
        condition = self._among(column) if self._accept("in") else self._compare(column, negated)
        return Not(condition) if negated else condition

    def _among(self, column: Column) -> Condition:
        self._expect("(")
        values = [self._literal(column)]
        while self._accept(","):
            values.append(self._literal(column))
        self._expect(")")
        return Among(column, tuple(values))

    def _compare(self, column: Column, negated: bool) -> Condition:
        found = next((symbol for symbol in _OPERATORS if symbol == self._peek().text.lower()), None)
        if found is None or (negated and found not in ("like", "contains")):
            raise self._surprise("an operator (= != < <= > >= like contains in)")
        self._take()
        if found in ("like", "contains") and column.kind != "text":
            raise QueryError(f"{found} asks for text, {'/'.join(column.path)} is a {column.kind}")
        return Compare(column, found, self._literal(column))

    def _literal(self, column: Column) -> Value:
        token = self._peek()
        value, kind = _value_of(token)
        if kind == "other":
            raise self._surprise("a value")
        self._take()
        if kind != column.kind and value is not None:
            raise QueryError(f"{'/'.join(column.path)} is a {column.kind}, {token.text} is a {kind}")
        return value

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _accept(self, word: str) -> bool:
        if self._peek().kind in ("word", "mark") and self._peek().text.lower() == word:
            self._next += 1
            return True
        return False

    def _expect(self, mark: str) -> None:
        if not self._accept(mark):
            raise self._surprise(f"{mark!r}")

    def _surprise(self, wanted: str) -> QueryError:
        token = self._peek()
        found = repr(token.text) if token.kind != "end" else "the end"
        return QueryError(f"conditions at character {token.at + 1}: expected {wanted}, found {found}")


def _value_of(token: _Token) -> tuple[Value, Kind | Literal["other"]]:
    if token.kind == "text":
        return re.sub(r"\\(.)", r"\1", token.text[1:-1]), "text"
    if token.kind == "number":
        return Decimal(token.text) if "." in token.text else int(token.text), "number"
    if token.kind == "time":
        try:
            return moment_of(token.text[1:-1]), "date"
        except ValueError:
            raise QueryError(f"{token.text} is not a time such as [2026-01-01T00:00:00Z]") from None
    if token.kind == "word" and token.text.lower() in _LITERAL_WORDS:
        return _LITERAL_WORDS[token.text.lower()], "flag"
    return None, "other"


def truth_of(condition: Condition) -> Test:
    """The condition as a function of a record's data: True, False, or None for unknown. A row counts if True."""
    match condition:
        case Compare():
            return _compare_of(condition)
        case Among():
            return _among_of(condition)
        case Not(part):
            inner = truth_of(part)
            return lambda data: None if (truth := inner(data)) is None else not truth
        case Some(parts):
            tests = [truth_of(part) for part in parts]
            return lambda data: _any(test(data) for test in tests)
        case Every(parts):
            tests = [truth_of(part) for part in parts]
            return lambda data: _all(test(data) for test in tests)


def value_at(data: Mapping[str, object], path: tuple[str, ...]) -> object:
    """The value under a path of names; None where it is missing or null."""
    value: object = data
    for name in path:
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _compare_of(compare: Compare) -> Test:
    path, wanted = compare.column.path, compare.value
    if wanted is None:
        asks_for_null = compare.operator == "="
        return lambda data: (value_at(data, path) is None) == asks_for_null
    holds = _holds(compare.operator, _comparable(wanted, compare.column.kind))
    read = _reader(compare.column)
    return lambda data: None if (value := read(data)) is None else holds(value)


def _among_of(among: Among) -> Test:
    wanted = frozenset(_comparable(value, among.column.kind) for value in among.values if value is not None)
    read = _reader(among.column)
    return lambda data: None if (value := read(data)) is None else value in wanted


def _reader(column: Column) -> Callable[[Mapping[str, object]], object]:
    path, kind = column.path, column.kind
    return lambda data: _comparable(value_at(data, path), kind)


def _comparable(value: object, kind: Kind) -> object:
    """The value as it is compared; None where it is missing or not what the field should hold."""
    if kind == "text":
        return value.casefold() if isinstance(value, str) else None
    if kind == "date" and isinstance(value, str):
        try:
            return moment_of(value)
        except ValueError:
            return None
    if kind == "number":
        return value if isinstance(value, (int, float, Decimal)) else None
    return value


def _holds(symbol: Operator, wanted: object) -> Callable[[object], bool]:
    if symbol == "contains":
        return lambda value: str(wanted) in str(value)
    if symbol == "like":
        pattern = re.compile(".*".join(map(re.escape, re.split(r"[%*]", str(wanted)))), re.DOTALL)
        return lambda value: pattern.fullmatch(str(value)) is not None
    function = _COMPARISONS[symbol]
    return lambda value: function(value, wanted)


def _any(truths: Iterable[Truth]) -> Truth:
    unknown = False
    for truth in truths:
        if truth:
            return True
        unknown = unknown or truth is None
    return None if unknown else False


def _all(truths: Iterable[Truth]) -> Truth:
    unknown = False
    for truth in truths:
        if truth is False:
            return False
        unknown = unknown or truth is None
    return None if unknown else True
