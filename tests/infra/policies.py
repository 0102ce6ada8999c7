"""Who may do what: policy documents as IAM evaluates them, as far as ours go. Pure.

Source: IAM User Guide, Policy evaluation logic; JSON policy elements: Condition operators.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from tests.infra.calls import Call

ELEMENTS: Final = {"Sid", "Effect", "Action", "Resource", "Condition"}
OPERATORS: Final = {"StringEquals", "StringLike", "ArnLike", "ArnEquals", "Null"}


class Condition(msgspec.Struct, frozen=True):
    """`operator` without its set and its IfExists; `every` of the request's values (ForAllValues), or any."""

    operator: str
    key: str
    values: tuple[str, ...]
    every: bool = False
    if_exists: bool = False

    def holds(self, context: Mapping[str, tuple[str, ...]]) -> bool:
        given = context.get(self.key)
        if self.operator == "Null":
            return (str(given is None).lower(),) == self.values
        if given is None:
            return self.if_exists or self.every
        exact = self.operator.endswith("Equals")
        met = (any(value == wanted if exact else matches(wanted, value) for wanted in self.values) for value in given)
        return all(met) if self.every else any(met)


class Statement(msgspec.Struct, frozen=True):
    sid: str
    effect: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]
    conditions: tuple[Condition, ...] = ()

    def matches(self, call: Call) -> bool:
        context = dict(call.context)
        return (
            any(matches(action.lower(), call.action.lower()) for action in self.actions)
            and any(matches(resource, call.resource) for resource in self.resources)
            and all(condition.holds(context) for condition in self.conditions)
        )


def statements(document: str | bytes) -> list[Statement]:
    """Those of a policy. Errors: ValueError for an element or a condition that is not understood here."""
    return [_statement(raw) for raw in _many(msgspec.json.decode(document)["Statement"])]


def denied(held: Sequence[Statement], calls: Iterable[Call]) -> list[Call]:
    """The calls that a role with these statements may not make, in order."""
    allow = [statement for statement in held if statement.effect == "Allow"]
    deny = [statement for statement in held if statement.effect == "Deny"]
    return sorted(
        call
        for call in set(calls)
        if not any(one.matches(call) for one in allow) or any(one.matches(call) for one in deny)
    )


def unused(held: Sequence[Statement], calls: Iterable[Call]) -> list[tuple[str, str]]:
    """What is allowed and was never needed: (sid, action) and (sid, resource), in order."""
    used: dict[str, set[str]] = defaultdict(set)
    made = set(calls)
    for statement in held:
        for call in filter(statement.matches, made):
            used[statement.sid] |= {one for one in statement.actions if matches(one.lower(), call.action.lower())}
            used[statement.sid] |= {one for one in statement.resources if matches(one, call.resource)}
    return [
        (statement.sid, one)
        for statement in held
        if statement.effect == "Allow"
        for one in (*statement.actions, *statement.resources)
        if one not in used[statement.sid]
    ]


def matches(pattern: str, text: str) -> bool:
    """IAM's wildcards: `*` is any characters, `?` one."""
    return re.fullmatch(re.escape(pattern).replace(r"\*", ".*").replace(r"\?", "."), text, re.S) is not None


def _statement(raw: Mapping[str, Any]) -> Statement:
    if unknown := set(raw) - ELEMENTS:
        raise ValueError(f"not understood: {sorted(unknown)}")
    return Statement(
        raw.get("Sid", ""),
        raw["Effect"],
        tuple(_many(raw["Action"])),
        tuple(_many(raw["Resource"])),
        tuple(_conditions(raw.get("Condition", {}))),
    )


def _conditions(raw: Mapping[str, Mapping[str, Any]]) -> Iterator[Condition]:
    for written, keys in raw.items():
        bare = written.removeprefix("ForAllValues:").removeprefix("ForAnyValue:").removesuffix("IfExists")
        if bare not in OPERATORS:
            raise ValueError(f"not understood: {written}")
        for key, values in keys.items():
            every, if_exists = written.startswith("ForAllValues:"), written.endswith("IfExists")
            yield Condition(bare, key, tuple(_many(values)), every, if_exists)


def _many(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
