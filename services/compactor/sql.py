"""SQL as users write it: which tables it names, and what DuckDB answers as plain values."""

from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final

import duckdb
import msgspec
import pyarrow as pa

from services.compactor import parquet
from services.contracts.errors import UsageError
from services.contracts.times import UtcTime, utc_text

RAW: Final = "raw"


class Name(msgspec.Struct, frozen=True, order=True):
    """A table as a query names it; `service` and `endpoint` for one below `raw`."""

    table: str
    service: str = ""

    @property
    def registered(self) -> str:
        return f"avesa {self.service} {self.table}"


def view_of(name: str, files: str, dead: str | None, keys: Sequence[str], without: str, at: UtcTime | None) -> str:
    """The statement that makes the view `name` of the living rows of the dataset `files`, less its column `without`.

    Shape:  rows of `dead`, which `keys` identify, are not among them. Versions are those that held `at` a time, where
            one is given. Open and closed versions are asked for apart, because DuckDB tells Arrow of comparisons, and
            neither of a bare `is_current` nor of an OR: so it reads no file that cannot matter.
    """
    living = f"ANTI JOIN {quoted(dead)} USING ({', '.join(keys)})" if dead else ""

    def part(columns: str, condition: str) -> str:
        return f"SELECT {columns} FROM {quoted(files)} {living} WHERE {condition}"  # noqa: S608  names are quoted

    if name.endswith("_timeline"):
        return f"CREATE TEMP VIEW {quoted(name)} AS {part(f'* EXCLUDE ({without})', 'true')}"
    moment = "" if at is None else f"'{utc_text(datetime.fromisoformat(at))}'::TIMESTAMPTZ"
    began, goes_on = (f" AND valid_from <= {moment}", f" AND valid_to > {moment}") if moment else ("", "")
    opened = part(f"* EXCLUDE ({without}) REPLACE (true AS is_current)", f"is_current = true{began}")
    closed = part(f"* EXCLUDE ({without}) REPLACE (false AS is_current)", f"is_current = false{began}{goes_on}")
    return f"CREATE TEMP VIEW {quoted(name)} AS {opened} UNION ALL {closed}"


def names_in(connection: duckdb.DuckDBPyConnection, sql: str) -> set[Name]:
    """The tables a SELECT names; a name of its own WITH clause is none of ours."""
    ((text,),) = connection.execute("SELECT json_serialize_sql($1)", [sql]).fetchall()
    tree = msgspec.json.decode(text)
    if tree.get("error"):
        raise UsageError(str(tree.get("error_message", "this is not SQL")), remedy="`avesa query` takes a SELECT.")
    if len(tree.get("statements", ())) > 1:
        raise UsageError("these are several statements", remedy="`avesa query` takes one SELECT.")
    own = set(_common_names(tree))
    names = set()
    for catalog, schema, table in _base_tables(tree):
        if catalog == RAW or (not catalog and schema == RAW):
            if not catalog:
                raise UsageError(f"{schema}.{table} is no table", remedy=f"Raw records are {RAW}.SERVICE.ENDPOINT.")
            names.add(Name(table, schema))
        elif not catalog and not schema and table not in own:
            names.add(Name(table))
    return names


def _base_tables(node: Any) -> Iterator[tuple[str, str, str]]:
    if isinstance(node, dict):
        if node.get("type") == "BASE_TABLE":
            catalog, schema, table = node["catalog_name"], node["schema_name"], node["table_name"]
            # SQL names are the same in any case and ours are small, but for the instance of a service.
            yield catalog.lower(), schema if catalog else schema.lower(), table.lower()
        for value in node.values():
            yield from _base_tables(value)
    elif isinstance(node, list):
        for value in node:
            yield from _base_tables(value)


def _common_names(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for entry in (node.get("cte_map") or {}).get("map", ()):
            yield entry["key"].lower()
        for value in node.values():
            yield from _common_names(value)
    elif isinstance(node, list):
        for value in node:
            yield from _common_names(value)


def answered(connection: duckdb.DuckDBPyConnection, sql: str) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """The columns and rows of an answer. Errors: UsageError for SQL that DuckDB refuses."""
    try:
        relation = connection.sql(sql)
        if relation is None:
            raise UsageError("there is no SELECT in this", remedy="`avesa query` takes one SELECT.")
        found = relation.to_arrow_table()
    except duckdb.Error as err:
        raise UsageError(str(err).strip(), remedy="See https://duckdb.org/docs for the SQL it takes.") from err
    columns = [[_shown(value) for value in column.to_pylist()] for column in _readable(found)]
    return tuple(found.column_names), list(zip(*columns, strict=True))


def _readable(found: pa.Table) -> Iterator[pa.ChunkedArray]:
    for column in found.columns:
        if pa.types.is_timestamp(column.type) and column.type.tz is not None:
            yield pa.chunked_array([pa.array(parquet.from_arrow(column, "timestamp"), pa.string())])
        else:
            yield column


def _shown(value: Any) -> Any:
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    if isinstance(value, datetime):
        return utc_text(value) if value.tzinfo else value.isoformat(" ")
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, str | int | float | bool) or value is None:
        return value
    return str(value)


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
