"""SQL as users write it: which tables it names, and what DuckDB answers as plain values."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import duckdb
import msgspec

from services.contracts.errors import UsageError
from services.contracts.times import UtcTime, utc_text

RAW: Final = "raw"
PLAIN: Final = frozenset(
    ["BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "FLOAT",
     "DOUBLE", "VARCHAR", "JSON"]
)  # fmt: skip


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
            one is given, and of a timeline what was so by then. Open and closed versions are asked for apart, because
            DuckDB tells Arrow of comparisons, and neither of a bare `is_current` nor of an OR: so it reads no file
            that cannot matter.
    """
    living = f"ANTI JOIN temp.main.{quoted(dead)} USING ({', '.join(keys)})" if dead else ""

    moment = "" if at is None else f"'{utc_text(datetime.fromisoformat(at))}'::TIMESTAMPTZ"

    def part(columns: str, condition: str) -> str:
        return f"SELECT {columns} FROM temp.main.{quoted(files)} {living} WHERE {condition}"  # noqa: S608  names are quoted

    if name.endswith("_timeline"):
        seen = f"effective_at <= {moment}" if moment else "true"
        return f"CREATE VIEW {quoted(name)} AS {part(f'* EXCLUDE ({without})', seen)}"
    began, goes_on = (f" AND valid_from <= {moment}", f" AND valid_to > {moment}") if moment else ("", "")
    opened = part(f"* EXCLUDE ({without}) REPLACE (true AS is_current)", f"is_current = true{began}")
    closed = part(f"* EXCLUDE ({without}) REPLACE (false AS is_current)", f"is_current = false{began}{goes_on}")
    return f"CREATE VIEW {quoted(name)} AS {opened} UNION ALL {closed}"


def names_in(connection: duckdb.DuckDBPyConnection, sql: str, known: Collection[str]) -> set[Name]:
    """The tables a SELECT names; a name of its own WITH clause is none of ours, unless it is a `known` one besides."""
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
            service, colon, instance = schema.partition(":")
            names.add(Name(table, f"{service.lower()}{colon}{instance}"))
        elif not catalog and schema in {"", "main"} and (table not in own or table in known):
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
        names, kinds = tuple(relation.columns), [str(kind) for kind in relation.types]
        readable = ", ".join(_readable(f"#{place}", kind) for place, kind in enumerate(kinds, start=1))
        found = relation.project(readable).to_arrow_table()
    except duckdb.Error as err:
        raise UsageError(str(err).strip(), remedy="See https://duckdb.org/docs for the SQL it takes.") from err
    columns = [[_shown(value) for value in column.to_pylist()] for column in found.columns]
    return names, list(zip(*columns, strict=True))


def _readable(column: str, kind: str) -> str:
    """The expression of a column whose values are numbers, text or nothing: DuckDB knows times that Python does not."""
    if kind in PLAIN or kind.startswith("DECIMAL"):
        return column
    if kind == "TIMESTAMP WITH TIME ZONE":
        usual = f"isfinite({column}) AND year({column}) BETWEEN 1000 AND 9999"
        return f"CASE WHEN {usual} THEN strftime({column}, '%Y-%m-%dT%H:%M:%S.%fZ') ELSE {column}::VARCHAR END"
    if kind.endswith("]") or kind.startswith(("STRUCT", "MAP", "UNION")):
        return f"to_json({column})::VARCHAR"
    return f"{column}::VARCHAR"


def _shown(value: Any) -> Any:
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return value


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
