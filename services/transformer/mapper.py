"""From a vendor's record to a canonical row: a pinned mapping compiled once to closures, then called per event."""

from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, tzinfo
from inspect import signature
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from services.contracts.errors import RejectedError, UsageError
from services.contracts.events import CanonicalEvent, Change, ChangeEvent
from services.contracts.fields import (
    Call,
    CanonicalMapping,
    Constant,
    CustomFields,
    Field,
    First,
    Item,
    KeyPattern,
    NamedValues,
    ValueMap,
    When,
)
from services.contracts.rows import digests
from services.contracts.schema import CUSTOM_FIELDS, CanonicalTable, Column
from services.transformer.drift import Drift
from services.transformer.functions import FUNCTIONS
from services.transformer.paths import ABSENT, RETYPED, Getter, Nowhere, compile_path, json_path
from services.transformer.pinned import Pinned
from services.transformer.values import REMEDY, Converter, UnfitError, converter, decode_payload, json_text, text_of

UNNAMED = "unnamed"  # a custom field without a name
_encode = msgspec.json.Encoder().encode


class Filler(NamedTuple):
    """How one column is filled: `get` takes the raw value from a record, `convert` makes it the column's type.

    A tuple and not a Struct: the loop over forty of them unpacks it, which is half the time of reading its fields.
    """

    column: str
    get: Getter
    convert: Converter
    where: str  # the JSON paths it reads, for errors and drift
    text: bool  # a string column: text needs no conversion


class Mapper:
    """One pinned mapping, compiled. Holds nothing of the events it maps; any number of threads may share one."""

    def __init__(self, pinned: Pinned) -> None:
        """Errors: UsageError `bad_mapping` for a function, time zone or constant that cannot be."""
        self.table, self.mapping_version = pinned.table, pinned.mapping_version
        self.families = {name: endpoint.family for name, endpoint in pinned.endpoints.items()}
        self._fillers = {
            name: compile_fields(
                pinned.table,
                endpoint.mapping,
                endpoint.custom_fields or pinned.custom_fields,
                f"{pinned.service} {name}",
            )
            for name, endpoint in pinned.endpoints.items()
            if endpoint.mapping is not None
        }

    def map(self, event: ChangeEvent, drift: Drift | None = None) -> CanonicalEvent | None:
        """The canonical event, its label still unknown; None where this mapping has no use for the event.

        Shape:  a delete maps to a delete. `drift` takes note of the paths that were not there.
        Errors: RejectedError: `payload_unreadable`, or `bad_value` with `where` = the JSON path and what was expected.
        """
        family = self.families.get(event.endpoint)
        if family is None:
            return None
        if event.op == "delete":
            return self._event(event, family)
        fillers = self._fillers.get(event.endpoint)
        if fillers is None:
            return None
        if isinstance(event.payload, msgspec.UnsetType):
            raise RejectedError("an upsert without its payload", code="payload_unreadable", where="$", remedy=REMEDY)
        row, absent = fill(fillers, decode_payload(event.payload))
        if drift is not None:
            drift.note(absent)
        return self._event(event, family, *digests(self.table, row), msgspec.Raw(_encode(row)))

    def emptied(self, endpoint: str, changed: Mapping[str, Change]) -> list[str]:
        """Where the columns come from that a change left without a value."""
        emptied = {column for column, change in changed.items() if bytes(change.after) == b"null"}
        return [filler.where for filler in self._fillers.get(endpoint, ()) if filler.column in emptied]

    def _event(
        self,
        event: ChangeEvent,
        family: str,
        record_hash: str = "",
        row_digest: str = "",
        row: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET,
    ) -> CanonicalEvent:
        return CanonicalEvent(
            event.tenant_id,
            event.service,
            event.endpoint,
            family,
            self.table.table,
            event.record_id,
            event.op,
            event.effective_at,
            event.observed_at,
            event.evidence,
            event.source,
            self.mapping_version,
            record_hash,
            row_digest,
            row,
        )


Routes = Mapping[str, tuple[Mapper, ...]]


def routes(mappers: Iterable[Mapper]) -> Routes:
    """Which mappers an endpoint's events go to: one, or several where its deletions concern several tables."""
    found: dict[str, tuple[Mapper, ...]] = {}
    for mapper in mappers:
        for endpoint in mapper.families:
            found[endpoint] = (*found.get(endpoint, ()), mapper)
    return found


def fill(fillers: Iterable[Filler], record: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(the row's non-null JSON values in column order, the paths that were not there). Errors: RejectedError."""
    row: dict[str, Any] = {}
    absent: list[str] = []
    column = where = ""
    try:
        for column, get, convert, where, text in fillers:
            value = get(record)
            if value is None:
                continue
            if text and type(value) is str:
                row[column] = value
            elif value is ABSENT:
                absent.append(where)
            elif value is RETYPED:
                raise UnfitError("expected an object around it, met something else")
            elif (value := convert(value)) is not None:
                row[column] = value
    except UnfitError as err:
        raise RejectedError(f"column {column}: {err}", code="bad_value", where=where, remedy=REMEDY) from err
    return row, absent


# -- compiling ---------------------------------------------------------------------------------------------------------
def compile_fields(
    table: CanonicalTable, mapping: CanonicalMapping, custom_fields: CustomFields | None, shown: str
) -> tuple[Filler, ...]:
    """The fillers of one endpoint, in column order. Errors: UsageError `bad_mapping`."""
    at = f"{shown} $.canonical"
    zone = _zone(mapping.time_zone, f"{at}.time_zone")
    fillers = [
        _filler(name, column, mapping.fields[name], zone, f"{at}.fields.{name}")
        for name, column in table.all_columns().items()
        if name in mapping.fields
    ]
    if mapping.blank == "null":
        fillers = [_without_blanks(filler, mapping.fields[filler.column]) for filler in fillers]
    if custom_fields is not None and CUSTOM_FIELDS not in mapping.fields:
        fillers.append(_custom_filler(custom_fields))
    return tuple(fillers)


def _zone(name: str, at: str) -> tzinfo:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as err:
        raise _mapping_error(f"there is no time zone {name!r}", at, "Use an IANA name, such as Europe/Berlin.") from err


def _filler(name: str, column: Column, field: Field, zone: tzinfo, at: str) -> Filler:
    convert, text = converter(column.type, zone), column.type == "string"
    if isinstance(field, Constant):
        try:
            value = convert(field.value)
        except UnfitError as err:
            raise _mapping_error(str(err), at) from err
        return Filler(name, lambda _record: value, _same, at, text)
    get, paths = _getter(field, at)
    return Filler(name, get, convert, ", ".join(json_path(path) for path in paths), text)


def _getter(field: Field, at: str) -> tuple[Getter, list[str]]:
    """What takes a column's value out of a record, and the paths it looks at."""
    match field:
        case First(paths):
            return _first(paths), paths
        case ValueMap(path, values, default):
            return _mapped(path, values, default), [path]
        case When(path, test, equals):
            return _when(path, test, equals), [path, test]
        case Item():
            return _item(field), [field.path]
        case Call(function, paths):
            return _called(function, paths, at), paths
        case _:
            assert isinstance(field, str), "a constant has no getter"
            return compile_path(field), [field]


def _without_blanks(filler: Filler, field: Field) -> Filler:
    """The same column of a vendor that writes null as empty text."""
    get = _first(field.paths, blank=("",)) if isinstance(field, First) else filler.get
    convert = filler.convert
    return filler._replace(get=get, convert=lambda value: None if value == "" else convert(value), text=False)


def _same(value: Any) -> Any:
    return value


def _mapping_error(what: str, at: str, remedy: str = "") -> UsageError:
    return UsageError(what, code="bad_mapping", where=at, remedy=remedy)


def _first(paths: list[str], blank: tuple[str, ...] = ()) -> Getter:
    getters = [compile_path(path) for path in paths]

    def get(record: Any) -> Any:
        without: Any = ABSENT  # what stands where none has a value: null before absent, what cannot be read before both
        for getter in getters:
            value = getter(record)
            if value is not None and type(value) is not Nowhere:
                if value not in blank:
                    return value
                value = None
            if value is not ABSENT and without is not RETYPED:
                without = value
        return without

    return get


def _mapped(path: str, values: Mapping[str, str], default: str | None) -> Getter:
    getter = compile_path(path)

    def get(record: Any) -> Any:
        value = getter(record)
        if value is None or type(value) is Nowhere:
            return value
        return values.get(text_of(value), value if default is None else default)

    return get


def _when(path: str, test: str, equals: list[str]) -> Getter:
    getter, tested, wanted = compile_path(path), compile_path(test), frozenset(equals)

    def get(record: Any) -> Any:
        met = tested(record)
        if met is None or type(met) is Nowhere:
            return met
        return getter(record) if text_of(met) in wanted else None

    return get


def _item(field: Item) -> Getter:
    getter, tested, wanted = compile_path(field.path), compile_path(field.test), frozenset(field.equals)
    value = None if field.value is None else compile_path(field.value)

    def get(record: Any) -> Any:
        items = getter(record)
        if items is None or type(items) is Nowhere:
            return items
        if not isinstance(items, list):
            return RETYPED
        for item in items:
            met = tested(item)
            if met is not None and type(met) is not Nowhere and text_of(met) in wanted:
                return item if value is None else value(item)
        return None

    return get


def _called(name: str, paths: list[str], at: str) -> Getter:
    function = FUNCTIONS.get(name)
    if function is None:
        raise _mapping_error(f"there is no function {name!r}", at, f"Known: {', '.join(sorted(FUNCTIONS))}.")
    try:
        signature(function).bind(*paths)
    except TypeError as err:
        raise _mapping_error(f"function {name!r} does not take {len(paths)} values", at) from err
    getters = [compile_path(path) for path in paths]

    def get(record: Any) -> Any:
        values = [getter(record) for getter in getters]
        if RETYPED in values:
            return RETYPED
        if all(value is ABSENT for value in values):
            return ABSENT
        return function(*[None if value is ABSENT else value for value in values])

    return get


# -- the customer's own fields ---------------------------------------------------------------------------------------
def _custom_filler(rule: CustomFields) -> Filler:
    pairs, where = _pairs_of(rule)

    def get(record: Any) -> Any:
        found = pairs(record)
        return found if found is None or type(found) is Nowhere else named(found)

    return Filler(CUSTOM_FIELDS, get, lambda fields: json_text(fields) if fields else None, where, text=False)


def named(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """{name: value} of a customer's fields, nulls left out: null and missing are the same here too.

    A name met again becomes `name (2)`, counted over empty ones too, so that filling one renames no other.
    """
    fields: dict[str, Any] = {}
    for name, value in pairs:
        unique, count = name, 1
        while unique in fields:
            count += 1
            unique = f"{name} ({count})"
        fields[unique] = value
    return {name: value for name, value in fields.items() if value is not None}


def _pairs_of(rule: CustomFields) -> tuple[Callable[[Any], Any], str]:
    """A function from a record to (name, value) pairs, None or ABSENT; and where it looks."""
    match rule:
        case KeyPattern(prefix, suffix):
            return lambda record: (
                pair for pair in record.items() if pair[0].startswith(prefix) and pair[0].endswith(suffix)
            ), json_path(f"{prefix}*{suffix}")
        case NamedValues(path, name, value):
            return _expecting(path, list, "a list", _list_pairs(compile_path(name), compile_path(value))), json_path(
                path
            )
        case _:
            return _expecting(rule.path, dict, "an object", lambda found: found.items()), json_path(rule.path)


def _list_pairs(name: Getter, value: Getter) -> Callable[[Any], Any]:
    def pairs(items: list[Any]) -> Iterable[tuple[str, Any]]:
        for item in items:
            called, held = name(item), value(item)
            if called is RETYPED or held is RETYPED:
                raise UnfitError("expected custom fields that are objects")
            yield UNNAMED if called is None or called is ABSENT else text_of(called), None if held is ABSENT else held

    return pairs


def _expecting(path: str, kind: type, expected: str, pairs: Callable[[Any], Any]) -> Callable[[Any], Any]:
    getter = compile_path(path)

    def get(record: Any) -> Any:
        found = getter(record)
        if found is None or type(found) is Nowhere or found == "":
            return None if found == "" else found
        if type(found) is not kind:
            raise UnfitError(f"expected {expected} of custom fields")
        return pairs(found)

    return get
