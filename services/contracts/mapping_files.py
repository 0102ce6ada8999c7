"""Reading mapping files: bytes to types, and an error a person can act on: file, JSON path, what was expected."""

import difflib
import re
from typing import Any, TypeVar

import msgspec

from services.contracts.errors import UsageError
from services.contracts.integration import Constant, Endpoint, Integration
from services.contracts.schema import RESERVED_COLUMNS, CanonicalTable

T = TypeVar("T")
NEW_LINE = b"\n"
_AT = re.compile(r" - at `(?:key in )?(\$[^`]*)`$")


class MappingFiles(msgspec.Struct, frozen=True):
    """All mapping files in force: integrations by service, canonical tables by name."""

    integrations: dict[str, Integration]
    tables: dict[str, CanonicalTable]


def decode_table(data: bytes, file: str) -> CanonicalTable:
    """One `mappings/canonical/{table}.json`. Errors: UsageError."""
    table = _decode(data, CanonicalTable, file)
    for column in table.columns:
        if column in RESERVED_COLUMNS:
            raise _error(
                file, f"$.columns.{column}", f"every row already has a column {column!r}", "Choose another name."
            )
    return table


def decode_integration(data: bytes, file: str) -> Integration:
    """One `mappings/integrations/{service}.json`. Errors: UsageError."""
    integration = _decode(data, Integration, file)
    for name, endpoint in integration.endpoints.items():
        parent = endpoint.parent
        if parent is not None and parent.endpoint not in integration.endpoints:
            raise _error(
                file,
                f"$.endpoints.{name}.parent.endpoint",
                f"there is no endpoint {parent.endpoint!r}",
                _did_you_mean(parent.endpoint, list(integration.endpoints)),
            )
    return integration


def check_against(integration: Integration, tables: dict[str, CanonicalTable], file: str) -> None:
    """What can only be seen with all files at hand: tables and columns that exist. Errors: UsageError."""
    for name, endpoint in integration.endpoints.items():
        mapping = endpoint.canonical
        if mapping is None:
            continue
        at = f"$.endpoints.{name}.canonical"
        table = tables.get(mapping.table)
        if table is None:
            hint = _did_you_mean(mapping.table, list(tables))
            raise _error(file, f"{at}.table", f"there is no canonical table {mapping.table!r}", hint)
        for column in mapping.fields:
            if column not in table.all_columns():
                hint = _did_you_mean(column, list(table.columns))
                raise _error(file, f"{at}.fields.{column}", f"table {table.table!r} has no column {column!r}", hint)


def _decode(data: bytes, kind: type[T], file: str) -> T:
    try:
        plain = msgspec.json.decode(data)
    except msgspec.DecodeError as err:
        raise UsageError(f"this is not JSON: {_with_line(data, str(err))}", code="bad_mapping", where=file) from err
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as err:
        message = str(err)
        found = _AT.search(message)
        what = message[: found.start()] if found else message
        path = _exact_path(plain, kind, found.group(1) if found else "$")
        raise _error(file, path, what[0].lower() + what[1:], _remedy(what, path)) from err


def _with_line(data: bytes, message: str) -> str:
    found = re.search(r"byte (\d+)", message)
    if found is None:
        return message
    before = data[: int(found.group(1))]
    return f"{message} (line {before.count(NEW_LINE) + 1})"


def _exact_path(plain: Any, kind: Any, path: str) -> str:
    """msgspec writes `[...]` for the key of an object: find which key it was, by leaving out one after the other."""
    while "[...]" in path:
        head, _, tail = path.partition("[...]")
        holder = _at(plain, head)
        if not isinstance(holder, dict):
            return path
        for key in holder:
            only = _replaced(plain, head, {k: v for k, v in holder.items() if k != key})
            if not _fails_at(only, kind, head + "[...]"):
                path = f"{head}.{key}{tail}"
                break
        else:
            keys = list(holder)
            key = next((k for k in keys if _fails_at(_replaced(plain, head, {k: holder[k]}), kind, head)), keys[0])
            path = f"{head}.{key}{tail}"
    return path


def _fails_at(plain: Any, kind: Any, start: str) -> bool:
    try:
        msgspec.convert(plain, kind)
    except msgspec.ValidationError as err:
        return start in str(err)
    return False


def _at(plain: Any, path: str) -> Any:
    for key in _keys(path):
        plain = plain[int(key)] if isinstance(plain, list) else plain[key]
    return plain


def _replaced(plain: Any, path: str, value: Any) -> Any:
    keys = _keys(path)
    if not keys:
        return value
    first, rest = keys[0], "$" + "".join(f".{key}" for key in keys[1:])
    if isinstance(plain, list):
        return [_replaced(item, rest, value) if i == int(first) else item for i, item in enumerate(plain)]
    return {k: _replaced(v, rest, value) if k == first else v for k, v in plain.items()}


def _keys(path: str) -> list[str]:
    return [key for key in re.split(r"[.\[\]]+", path.removeprefix("$")) if key]


def _remedy(what: str, path: str) -> str:
    found = re.search(r"unknown field `([^`]+)`", what)
    if found is None:
        return ""
    known = sorted(
        {
            field.name
            for kind in (Integration, Endpoint, CanonicalTable, Constant)
            for field in msgspec.structs.fields(kind)
        }
    )
    return _did_you_mean(found.group(1), known) or f"Remove it, or see `avesa mapping schema` for what {path} may hold."


def _did_you_mean(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"Did you mean {close[0]!r}?" if close else ""


def _error(file: str, path: str, what: str, remedy: str = "") -> UsageError:
    return UsageError(what, code="bad_mapping", where=f"{file} at {path}", remedy=remedy)
