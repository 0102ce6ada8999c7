"""Reading mapping files: bytes to types, and errors a person can act on: file, JSON path, what was expected, remedy.

The types (`integration.py`, `schema.py`) are the whole grammar and msgspec judges by them. It names the first
mistake only, and `[...]` where a key stood; so what fails is walked once more beside its type, part by part, until
the smallest parts that fail are found: each is one `Problem`, and all of them are told at once.
"""

import inspect
import json
import re
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from services.contracts.errors import UsageError
from services.contracts.hints import did_you_mean, known_here
from services.contracts.integration import Integration
from services.contracts.mapping_checks import contradictions
from services.contracts.names import timeline_table
from services.contracts.schema import RESERVED_COLUMNS, CanonicalTable, Name

T = TypeVar("T")


class MappingFiles(msgspec.Struct, frozen=True):
    """All mapping files in force: integrations by service, canonical tables by name."""

    integrations: dict[str, Integration]
    tables: dict[str, CanonicalTable]


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong in a file. `at` is a JSON path (`$.endpoints.tickets.path`), or line and column."""

    file: str
    at: str
    what: str
    remedy: str = ""


class MappingError(UsageError):
    """A file that cannot be used. It reads as its first problem; `problems` holds all of them."""

    default_code = "bad_mapping"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first, more = self.problems[0], len(self.problems) - 1
        rest = f"`avesa mapping validate` shows {more} more." if more else ""
        remedy = " ".join(text for text in (first.remedy, rest) if text)
        super().__init__(first.what, where=f"{first.file} at {first.at}", remedy=remedy)


def decode_table(data: bytes, file: str) -> CanonicalTable:
    """One `mappings/canonical/{table}.json`. Errors: MappingError."""
    table = _decode(data, CanonicalTable, file)
    taken = [name for name in table.columns if name in RESERVED_COLUMNS]
    _raise_any(
        Problem(file, f"$.columns.{name}", f"every row already has a column {name!r}", "Choose another name.")
        for name in taken
    )
    if table.table.endswith(timeline_table("")):
        what = f"the name {table.table!r} is that of what {table.table.removesuffix(timeline_table(''))!r} remembers"
        raise MappingError([Problem(file, "$.table", what, "Choose another name.")])
    return table


RoutesTable = Callable[[str], bool]


def every_table(_: str) -> bool:
    """Who is bound to all canonical tables."""
    return True


def decode_integration(data: bytes, file: str, routes_table: RoutesTable = every_table) -> Integration:
    """One `mappings/integrations/{service}.json`.

    Shape:  of an endpoint that feeds a table which is not routed, that it does is all that is kept: whatever is wrong
            with it concerns others.
    Errors: MappingError.
    """
    integration = _decode(data, Integration, file, lambda plain: _reduced(plain, routes_table))
    _raise_any(Problem(file, at, what, remedy) for at, what, remedy in contradictions(integration, routes_table))
    return integration


def check_against(
    integration: Integration,
    tables: Mapping[str, CanonicalTable],
    file: str,
    routes_table: RoutesTable = every_table,
) -> None:
    """What can only be seen with all files at hand: tables and columns that exist, of the tables that are routed.

    Errors: MappingError.
    """
    found = _unknown_columns(integration, tables, routes_table)
    _raise_any(Problem(file, at, what, remedy) for at, what, remedy in found)


def json_schema(kind: type[Integration] | type[CanonicalTable]) -> dict[str, Any]:
    """JSON Schema of one kind of file, made from the same types that judge it; editors complete and check by it."""
    schema: dict[str, Any] = msgspec.json.schema(kind)
    for definition in schema["$defs"].values():
        if "description" in definition:
            definition["description"] = inspect.cleandoc(definition["description"])
    schema["$defs"][kind.__name__]["properties"][_SCHEMA_KEY] = {"type": "string"}
    return {_SCHEMA_KEY: "https://json-schema.org/draft/2020-12/schema"} | schema


def _raise_any(problems: Iterable[Problem]) -> None:
    found = list(problems)
    if found:
        raise MappingError(found)


# -- from bytes to a type ---------------------------------------------------------------------------------------------
Found = tuple[str, str, str]  # at, what, remedy
_SCHEMA_KEY = "$schema"  # a file may begin with it, so that an editor finds the schema


def _decode(data: bytes, kind: type[T], file: str, reduced: Callable[[Any], Any] = lambda plain: plain) -> T:
    plain = reduced(_parse(data, file))
    if isinstance(plain, dict):
        plain.pop(_SCHEMA_KEY, None)
    repeated = [Problem(file, at, what, remedy) for at, what, remedy in _repeated(plain, "$")]
    try:
        decoded = msgspec.convert(plain, kind)
    except msgspec.ValidationError:
        wrong = [Problem(file, at, what, remedy) for at, what, remedy in _mistakes(plain, kind, "$")]
        raise MappingError(repeated + wrong) from None
    _raise_any(repeated)
    return decoded


def _reduced(plain: Any, routes_table: RoutesTable) -> Any:
    """`plain`, in which an endpoint that feeds another's table says that and nothing else."""
    endpoints = plain.get("endpoints") if isinstance(plain, dict) else None
    if not isinstance(endpoints, dict):
        return plain
    for name, endpoint in endpoints.items():
        canonical = endpoint.get("canonical") if isinstance(endpoint, dict) else None
        table = canonical.get("table") if isinstance(canonical, dict) else None
        if isinstance(table, str) and not routes_table(table):
            endpoints[name] = {"path": "-", "record_id": "-", "canonical": {"table": table, "fields": {}}}
    return plain


class _Object(dict[str, Any]):
    """A JSON object that remembers the keys it was given more than once; JSON itself keeps the last in silence."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        keys = [key for key, _ in pairs]
        self.repeated = sorted({key for key in keys if keys.count(key) > 1}) if len(self) < len(keys) else []


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _parse(data: bytes, file: str) -> Any:
    """Plain JSON values. Errors: MappingError with line and column."""
    try:
        text = data.decode("utf-8-sig")  # editors on Windows still write the mark
        return json.loads(text, object_pairs_hook=_Object, parse_constant=_no_constant)
    except json.JSONDecodeError as err:
        what, remedy = _syntax(err)
        at = f"line {err.lineno}, column {err.colno}"
        raise MappingError([Problem(file, at, what, remedy)]) from err
    except UnicodeDecodeError as err:
        at = f"line {data[: err.start].count(10) + 1}"
        raise MappingError([Problem(file, at, "this is not UTF-8 text", "Save the file as UTF-8.")]) from err
    except (ValueError, RecursionError) as err:
        raise MappingError([Problem(file, "$", f"this is not usable JSON: {err}")]) from err


def _syntax(err: json.JSONDecodeError) -> tuple[str, str]:
    if not err.doc.strip():
        return "the file is empty", ""
    before, after = err.doc[: err.pos].rstrip(), err.doc[err.pos :].lstrip()
    remedy = ""
    if after.startswith(("//", "/*", "#")):
        remedy = "JSON has no comments: use `title` or `description`."
    elif after.startswith("'"):
        remedy = "JSON takes double quotes only."
    elif (before.endswith(",") and after.startswith(("}", "]"))) or "trailing comma" in err.msg:
        remedy = "There is a comma after the last item: remove it."
    return f"this is not JSON: {err.msg[0].lower()}{err.msg[1:]}", remedy


def _repeated(value: Any, at: str) -> Iterator[Found]:
    if isinstance(value, _Object):
        for key in value.repeated:
            yield _key(at, key), f"{key!r} stands here more than once", "Only the last would count: keep one."
        for key, item in value.items():
            yield from _repeated(item, _key(at, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _repeated(item, _key(at, index))


# -- what does not fit its type ---------------------------------------------------------------------------------------
def _mistakes(value: Any, kind: Any, at: str) -> Iterator[Found]:
    """The smallest parts of `value` that do not fit `kind`; nothing where it fits."""
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError as err:
        inside = list(_inside(value, kind, at))
        yield from inside or [(at, _plainly(str(err).partition(" - at `")[0]), "")]


def _inside(value: Any, kind: Any, at: str) -> Iterator[Found]:
    """Mistakes in the parts of a value; nothing where it is wrong as a whole."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    arguments = get_args(kind)
    if get_origin(kind) in (Union, types.UnionType):
        yield from _inside_union(value, arguments, at)
    elif get_origin(kind) is Literal and not isinstance(value, dict | list):
        hint = did_you_mean(value, arguments) if value not in map(str, arguments) else "It stands without quotes."
        yield at, f"{json.dumps(value)} is not one of {', '.join(map(str, arguments))}", hint
    elif get_origin(kind) is dict and isinstance(value, dict):
        for key, item in value.items():
            yield from _mistakes(key, arguments[0], _key(at, key))
            yield from _mistakes(item, arguments[1], _key(at, key))
    elif get_origin(kind) is list and isinstance(value, list):
        for index, item in enumerate(value):
            yield from _mistakes(item, arguments[0], _key(at, index))
    elif _is_struct(kind) and isinstance(value, dict):
        yield from _inside_struct(value, kind, at)


def _inside_struct(value: dict[str, Any], kind: type[msgspec.Struct], at: str) -> Iterator[Found]:
    hints = _hints(kind)
    fields = {field.encode_name: hints[field.name] for field in msgspec.structs.fields(kind)}
    tag = kind.__struct_config__.tag_field
    known = [*fields, tag] if tag else list(fields)
    meant = ""
    for key, item in value.items():
        if key in fields:
            yield from _mistakes(item, fields[key], _key(at, key))
        elif key != tag:
            hint = did_you_mean(key, known)
            meant += hint
            yield _key(at, key), f"there is no field {key!r} here", hint or known_here(known)
    for field in msgspec.structs.fields(kind):
        if field.required and field.encode_name not in value and repr(field.encode_name) not in meant:
            yield at, f"the field {field.encode_name!r} is missing", ""


def _inside_union(value: Any, arms: tuple[Any, ...], at: str) -> Iterator[Found]:
    structs = {arm.__struct_config__.tag: arm for arm in arms if _is_struct(arm)}
    if isinstance(value, dict) and len(structs) == 1:
        yield from _inside_struct(value, next(iter(structs.values())), at)
    elif isinstance(value, dict) and structs:
        tag = value.get("type")
        if tag in structs:
            yield from _inside_struct(value, structs[tag], at)
        elif "type" in value:
            yield _key(at, "type"), f"{tag!r} is no type known here", did_you_mean(tag, structs) or known_here(structs)
        else:
            yield at, "the field 'type' is missing", known_here(structs)
    elif isinstance(value, list):
        for arm in arms:
            yield from _inside(value, arm, at)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


@cache
def _hints(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


_WORDS = {"str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "array": "a list"}
_WORDS |= {"object": "an object", "null": "null"}
_NAME_PATTERN = next(meta.pattern for meta in get_args(Name)[1:])


def _plainly(message: str) -> str:
    """msgspec's words in ours: `Expected `str`, got `int`` -> expected text, got a whole number."""
    if _NAME_PATTERN in message:
        return "a name is made of small letters, digits and '_', and begins with a letter"
    plain = re.sub(
        r"`([^`]+)`", lambda m: " or ".join(_WORDS.get(word, word) for word in m.group(1).split(" | ")), message
    )
    return plain[0].lower() + plain[1:]


def _key(at: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{at}[{key}]"
    return f"{at}.{key}" if re.fullmatch(r"\w+", key) else f"{at}[{json.dumps(key)}]"


# -- what only all files together can tell ----------------------------------------------------------------------------
def _unknown_columns(
    integration: Integration, tables: Mapping[str, CanonicalTable], routes_table: RoutesTable
) -> Iterator[Found]:
    for name, endpoint in integration.endpoints.items():
        mapping = endpoint.canonical
        if mapping is None or not routes_table(mapping.table):
            continue
        at = f"$.endpoints.{name}.canonical"
        table = tables.get(mapping.table)
        if table is None:
            hint = did_you_mean(mapping.table, tables) or known_here(tables)
            yield f"{at}.table", f"there is no canonical table {mapping.table!r}", hint
            continue
        columns = table.all_columns()
        for column in mapping.fields:
            if column not in columns:
                hint = did_you_mean(column, columns) or f"`avesa mapping show {table.table}` lists its columns."
                yield f"{at}.fields.{column}", f"table {table.table!r} has no column {column!r}", hint
