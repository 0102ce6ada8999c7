"""Templates: `{name}` in a text of a mapping file, filled with values. Anything else in braces stands for itself."""

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

import msgspec

from services.contracts.errors import UsageError

_NAME = re.compile(r"\{([a-z][a-z0-9_]*)\}")

# What a page or a time brings (`contracts/reading.py`): where there is none, whoever asks for it is left out.
PASSING: Final = frozenset(
    {"since", "until", "page", "offset", "size", "cursor", "after", "after_time", "token", "fields", "where"}
)
ABSENT: Final = frozenset({"since", "until", "cursor", "after", "after_time", "token", "where"})  # on some requests
NUMBERS: Final = frozenset({"{page}", "{offset}", "{size}"})  # alone in a body they are numbers
WHERE_LIST: Final = "where[]"  # the clauses as a JSON list; no template can ask for it by this name
_LEFT_OUT: Final = object()


def names_in(template: str) -> frozenset[str]:
    """The names a template asks for."""
    return frozenset(_NAME.findall(template))


def fill(template: str, values: Mapping[str, str]) -> str:
    """`template` with every `{name}` replaced by its value; values are not looked into again.

    Errors: UsageError for a name without a value. Values never appear in it.
    """
    missing = sorted(names_in(template) - values.keys())
    if missing:
        known = ", ".join(sorted(values)) or "nothing"
        raise UsageError(
            f"{template!r} asks for {{{missing[0]}}}, which has no value",
            code="bad_mapping",
            remedy=f"Known here: {known}. A missing credential is given with `avesa setup-service`.",
        )
    return _NAME.sub(lambda found: values[found.group(1)], template)


def fill_or_leave(template: str, values: Mapping[str, str], optional: Collection[str] = ()) -> str | None:
    """`template` filled; None, to be left out, where it asks for something passing that there is not, or for one of
    the `optional` credentials that was left empty. Errors: as `fill`."""
    for name in names_in(template):
        if name in PASSING and name not in values:
            return None
        if name in optional and not values.get(name):
            return None
    return fill(template, values)


def fill_all(templates: Mapping[str, str], values: Mapping[str, str], optional: Collection[str] = ()) -> dict[str, str]:
    """Every template filled, without those that are left out. Errors: as `fill`."""
    filled = {name: fill_or_leave(template, values, optional) for name, template in templates.items()}
    return {name: text for name, text in filled.items() if text is not None}


def fill_json(value: Any, values: Mapping[str, str], optional: Collection[str] = ()) -> Any:
    """A JSON value whose strings are templates, filled; members and items that are left out are not in it.

    Shape:  `"{size}"` alone becomes a number; `"{where}"` alone, where the clauses are JSON, the list of them.
    Errors: as `fill`; UsageError `bad_mapping` for clauses that are no JSON.
    """
    filled = _filled(value, values, optional)
    return None if filled is _LEFT_OUT else filled


def _filled(value: Any, values: Mapping[str, str], optional: Collection[str]) -> Any:
    match value:
        case str():
            return _text(value, values, optional)
        case dict():
            members = {key: _filled(inner, values, optional) for key, inner in value.items()}
            return {key: inner for key, inner in members.items() if inner is not _LEFT_OUT}
        case list():
            items = [_filled(inner, values, optional) for inner in value]
            return [inner for inner in items if inner is not _LEFT_OUT]
        case _:
            return value


def _text(template: str, values: Mapping[str, str], optional: Collection[str]) -> Any:
    if template == "{where}" and WHERE_LIST in values:
        try:
            return msgspec.json.decode(values[WHERE_LIST])
        except msgspec.DecodeError as err:
            raise UsageError(f"the clauses are no JSON ({err})", code="bad_mapping") from err
    text = fill_or_leave(template, values, optional)
    if text is None:
        return _LEFT_OUT
    return int(text) if template in NUMBERS else text
