"""Reading the lake: versions of a table, the latest raw records, and SQL over both.

Everything is read through pyiceberg and the object store; DuckDB gets Arrow data under the names a query uses, and
nothing it does not name: `tickets` and `tickets_timeline` over one tenant or all, `raw.{service}.{endpoint}` as the
newest observation of each record that still lives. No extension is downloaded, no file of this machine is opened.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from functools import reduce
from typing import Any, Final, cast

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyiceberg import expressions
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, Or
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

from services.compactor import parquet
from services.compactor.history import TIMELINE
from services.compactor.iceberg import Warehouse
from services.compactor.open_table import lake_errors
from services.contracts.errors import NotFoundError, UsageError
from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.integration import integration_name
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import canonical_folder, raw_folder, timeline_table
from services.contracts.ports import Objects, Threads
from services.contracts.rows import reading_order
from services.contracts.schema import CanonicalTable
from services.contracts.times import UtcTime, utc_text

READS_AT_ONCE: Final = 8
RAW: Final = "raw"
# The newest of a record comes last: DESIGN 2.2, as far as it can be known before a mapping.
NEWEST: Final = ("record_id", "effective_at", "_deleted", "observed_at", "payload")
# Their constructors are pydantic's, which say nothing of their arguments.
_equal: Final[Callable[..., BooleanExpression]] = expressions.EqualTo
_greater: Final[Callable[..., BooleanExpression]] = expressions.GreaterThan
_not_greater: Final[Callable[..., BooleanExpression]] = expressions.LessThanOrEqual
_is_null: Final[Callable[..., BooleanExpression]] = expressions.IsNull

LOCKED: Final = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}


class Answer(msgspec.Struct, frozen=True):
    """What a query returned: times as UTC text, exact numbers as text without trailing zeros."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


class Name(msgspec.Struct, frozen=True, order=True):
    """A table as a query names it; `service` and `endpoint` for one below `raw`."""

    table: str
    service: str = ""

    @property
    def registered(self) -> str:
        return f"avesa {self.service} {self.table}"


class Lake:
    """The lake of one environment, as the mapping files describe it."""

    def __init__(self, warehouse: Warehouse, objects: Objects, threads: Threads, mappings: MappingFiles) -> None:
        self._warehouse, self._objects, self._threads = warehouse, objects, threads
        self._tables, self._integrations = mappings.tables, mappings.integrations

    async def tenants(self) -> list[str]:
        """Every tenant with tables. Errors: RetryableError."""
        return await self._threads.run(self._warehouse.tenants)

    # -- rows as JSON values
    async def current(self, tenant_id: str | None, table: str) -> list[dict[str, Any]]:
        """The open version of every living record, of one tenant or of all."""
        return await self._rows(tenant_id, table, _equal("is_current", True))

    async def versions(
        self,
        tenant_id: str | None,
        table: str,
        *,
        service: str | None = None,
        family: str | None = None,
        record_id: str | None = None,
        at: UtcTime | None = None,
    ) -> list[dict[str, Any]]:
        """Versions in reading order; only those that held `at` a time, where one is given."""
        wanted = {"service": service, "family": family, "record_id": record_id}
        filters: list[BooleanExpression] = [_equal(name, text) for name, text in wanted.items() if text is not None]
        return await self._rows(tenant_id, table, _all([*filters, *_held_at(at)]))

    async def timeline(self, tenant_id: str, table: str, *, record_id: str | None = None) -> list[dict[str, Any]]:
        """What the versions of a table do not show: deletes, and observations that are no version's last."""
        wanted: BooleanExpression = AlwaysTrue() if record_id is None else _equal("record_id", record_id)
        held = await self._threads.run(self._scan, [tenant_id], timeline_table(table), wanted)
        return [row for found in held for row in parquet.rows_from_arrow(found, TIMELINE)]

    async def _rows(self, tenant_id: str | None, table: str, wanted: BooleanExpression) -> list[dict[str, Any]]:
        tenants = await self.tenants() if tenant_id is None else [tenant_id]
        found = await self._threads.run(self._scan, tenants, table, wanted)
        rows = [row for held in found for row in parquet.rows_from_arrow(held, self._kinds(table, held.schema))]
        return sorted(rows, key=reading_order)

    def _scan(self, tenants: Iterable[str], name: str, wanted: BooleanExpression) -> list[pa.Table]:
        found = []
        for tenant_id in tenants:
            table = self._warehouse.load(tenant_id, name)
            if table is not None:
                with lake_errors(f"reading {name} of {tenant_id}", self._warehouse.endpoint_url):
                    found.append(table.scan(row_filter=wanted).to_arrow())
        return found

    def _kinds(self, table: str, schema: pa.Schema) -> dict[str, str]:
        """The columns of the mapping files, and those that only the table has, in its order."""
        known = parquet.version_kinds(self._tables[table]) if table in self._tables else {}
        return {**known, **{field.name: _kind_of(field.type) for field in schema if field.name not in known}}

    # -- files
    async def raw_events(
        self, tenant_id: str, service: str, endpoint: str, *, first: str = "", last: str = "~"
    ) -> AsyncIterator[list[ChangeEvent]]:
        """The raw archive of an endpoint, hour by hour from `first` to `last` (`2026-01-31T09`), file by file."""
        async for data in self._files(raw_folder(tenant_id, service, endpoint), first, last):
            yield await self._threads.run(parquet.raw_events, data)

    async def canonical_events(
        self, tenant_id: str, table: CanonicalTable, *, first: str = "", last: str = "~"
    ) -> AsyncIterator[list[CanonicalEvent]]:
        """Every mapped observation of a table, the same way."""
        async for data in self._files(canonical_folder(tenant_id, table.table), first, last):
            yield await self._threads.run(parquet.canonical_events, data, table)

    async def _files(self, folder: str, first: str, last: str) -> AsyncIterator[bytes]:
        keys = [info.key async for info in self._objects.list(f"{folder}/")]
        hours = {key: key.removeprefix(f"{folder}/").removesuffix(".parquet").partition("/")[0] for key in keys}
        wanted = [key for key in keys if first <= hours[key] <= last]
        for start in range(0, len(wanted), READS_AT_ONCE):
            reads = (self._read(key, folder, hours[key]) for key in wanted[start : start + READS_AT_ONCE])
            for data in await asyncio.gather(*reads):
                yield data

    async def _read(self, key: str, folder: str, hour: str) -> bytes:
        try:
            return await self._objects.get(key)
        except NotFoundError:  # a part, and by now in the file of its hour
            return await self._objects.get(f"{folder}/{hour}.parquet")

    async def raw_latest(self, tenant_id: str | None, service: str, endpoint: str) -> pa.Table:
        """The newest observation of every record that was not deleted, as the vendor gave it."""
        tenants = await self.tenants() if tenant_id is None else [tenant_id]
        found = [await self._latest(one, service, endpoint) for one in tenants]
        return pa.concat_tables([_NO_RAW, *found])

    async def _latest(self, tenant_id: str, service: str, endpoint: str) -> pa.Table:
        """A record belongs to that endpoint of its family which saw it last: a converted ticket is in one list only."""
        newest = _NO_RAW
        for name in self._family(service, endpoint):
            async for data in self._files(raw_folder(tenant_id, service, name), "", "~"):
                newest = await self._threads.run(_newest, newest, data)
        here = pc.equal(newest.column("endpoint"), endpoint)
        return newest.filter(pc.and_(here, pc.equal(newest.column("op"), "upsert")))

    def _family(self, service: str, endpoint: str) -> list[str]:
        """The endpoints that share an id space with `endpoint`, itself among them."""
        integration = self._integrations.get(integration_name(service))
        if integration is None or endpoint not in integration.endpoints:
            return [endpoint]
        family = integration.family_of(endpoint)
        return [name for name in integration.endpoints if integration.family_of(name) == family]

    # -- SQL
    async def query(self, sql: str, tenant_id: str | None = None, at: UtcTime | None = None) -> Answer:
        """One SELECT over the lake; with `at`, tables show the versions that held at that time.

        Errors: UsageError for SQL that DuckDB refuses or a table that does not exist; RetryableError.
        """
        connection = await self.open_duckdb(sql, tenant_id, at)
        try:
            return await self._threads.run(_answer, connection, sql)
        finally:
            connection.close()

    async def open_duckdb(
        self, sql: str, tenant_id: str | None = None, at: UtcTime | None = None
    ) -> duckdb.DuckDBPyConnection:
        """A connection in which the tables that `sql` names exist. Close it when done."""
        connection = duckdb.connect(config=dict(LOCKED))
        try:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"ATTACH ':memory:' AS {RAW}")
            names = _names_in(connection, sql)
            tenants = await self.tenants() if tenant_id is None else [tenant_id]
            for name in sorted(names):
                await self._register(connection, name, tenants, at)
            connection.execute("SET enable_external_access = false")
        except BaseException:
            connection.close()
            raise
        return connection

    async def _register(
        self, connection: duckdb.DuckDBPyConnection, name: Name, tenants: Sequence[str], at: UtcTime | None
    ) -> None:
        if name.service and at is not None:
            raise UsageError(
                f"raw.{name.service}.{name.table} has no history to look at as of a time",
                remedy="Ask a canonical table, or leave --as-of out.",
            )
        if name.service:
            found = [await self._latest(one, name.service, name.table) for one in tenants]
            connection.register(name.registered, pa.concat_tables([_NO_RAW, *found]))
            connection.execute(f"CREATE SCHEMA IF NOT EXISTS {RAW}.{_quoted(name.service)}")
            place = f"{RAW}.{_quoted(name.service)}.{_quoted(name.table)}"
            columns = "* REPLACE (payload::JSON AS payload)"
        else:
            connection.register(name.registered, await self._threads.run(self._dataset, name.table, tenants))
            place, columns = _quoted(name.table), "*"
        held = ""
        if at is not None and not name.service and not name.table.endswith("_timeline"):
            moment = f"'{utc_text(datetime.fromisoformat(at))}'::TIMESTAMPTZ"
            held = f" WHERE valid_from <= {moment} AND (valid_to IS NULL OR valid_to > {moment})"
        source = f"temp.main.{_quoted(name.registered)}"
        connection.execute(f"CREATE VIEW {place} AS SELECT {columns} FROM {source}{held}")  # noqa: S608  names are quoted

    def _dataset(self, name: str, tenants: Sequence[str]) -> ds.Dataset | pa.Table:
        """The data files of a table, read only as far as a query asks. Rows are named by their tenant already."""
        tables = [table for one in tenants if (table := self._warehouse.load(one, name)) is not None]
        base = name.removesuffix("_timeline")
        if not tables and base not in self._tables:
            known = ", ".join(sorted(self._tables))
            remedy = f"Known: {known}, {RAW}.SERVICE.ENDPOINT."
            raise UsageError(f"there is no table {name!r}", code="unknown_table", remedy=remedy)
        if not tables:
            kinds = parquet.version_kinds(self._tables[base]) if base == name else dict(TIMELINE)
            return parquet.rows_to_arrow([], kinds)
        with lake_errors(f"reading {name}", self._warehouse.endpoint_url):
            return _dataset_of(tables)

    async def columns(self, tenant_id: str, table: str) -> dict[str, str]:
        """The columns of a table and our kinds of them, in its order; none where there is no such table."""
        found = await self._threads.run(self._warehouse.load, tenant_id, table)
        fields = () if found is None else found.schema().fields
        return {field.name: parquet.ICEBERG_KINDS[str(field.field_type)] for field in fields}


# -- pure pieces ------------------------------------------------------------------------------------------------------
_NO_RAW: Final = parquet.rows_to_arrow([], parquet.RAW_FIELDS)


def _all(filters: Sequence[BooleanExpression]) -> BooleanExpression:
    everything: BooleanExpression = AlwaysTrue()
    return reduce(And, filters, everything)


def _held_at(at: UtcTime | None) -> Iterator[BooleanExpression]:
    if at is not None:
        moment = at.removesuffix("Z") + "+00:00"  # pyiceberg does not read Z
        yield _not_greater("valid_from", moment)
        yield Or(_is_null("valid_to"), _greater("valid_to", moment))


def _kind_of(kind: pa.DataType) -> str:
    return next((name for name, held in parquet.ARROW.items() if held == kind), "string")


def _newest(known: pa.Table, data: bytes) -> pa.Table:
    """Of `known` and what a file holds the newest of each record, deletes included."""
    rows = pa.concat_tables([known, parquet.read(data, list(parquet.RAW_FIELDS)).replace_schema_metadata(None)])
    rows = rows.append_column("_deleted", pc.equal(rows.column("op"), "delete"))
    rows = rows.take(pc.sort_indices(rows, sort_keys=[(name, "ascending") for name in NEWEST])).combine_chunks()
    if rows.num_rows > 1:
        ids = rows.column("record_id")
        last = pc.not_equal(ids.slice(0, rows.num_rows - 1), ids.slice(1))
        rows = rows.filter(pa.chunked_array([*last.chunks, pa.array([True])]))
    return rows.drop_columns(["_deleted"])


def _dataset_of(tables: Sequence[Table]) -> ds.Dataset:
    """The live files of these tables as one dataset; a column that some lack is null there."""
    files: list[ds.Dataset] = []
    schemas = [_arrow_schema(table) for table in tables]
    for table, schema in zip(tables, schemas, strict=True):
        paths = [task.file.file_path for task in table.scan().plan_files()]
        if not paths:
            continue
        file_io = cast("PyArrowFileIO", table.io)
        scheme, host, _ = file_io.parse_location(paths[0])
        found = [file_io.parse_location(path)[2] for path in paths]
        files.append(ds.dataset(found, schema=schema, format="parquet", filesystem=file_io.fs_by_scheme(scheme, host)))
    schema = pa.unify_schemas(schemas)
    return ds.dataset([one.replace_schema(schema) for one in files]) if files else ds.dataset(schema.empty_table())


def _arrow_schema(table: Table) -> pa.Schema:
    kinds = {field.name: parquet.ICEBERG_KINDS[str(field.field_type)] for field in table.schema().fields}
    return pa.schema([(name, parquet.ARROW[kind]) for name, kind in kinds.items()])


def _names_in(connection: duckdb.DuckDBPyConnection, sql: str) -> set[Name]:
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


def _answer(connection: duckdb.DuckDBPyConnection, sql: str) -> Answer:
    try:
        relation = connection.sql(sql)
        if relation is None:
            raise UsageError("there is no SELECT in this", remedy="`avesa query` takes one SELECT.")
        found = relation.to_arrow_table()
    except duckdb.Error as err:
        raise UsageError(str(err).strip(), remedy="See https://duckdb.org/docs for the SQL it takes.") from err
    columns = [[_shown(value) for value in column.to_pylist()] for column in _readable(found)]
    return Answer(tuple(found.column_names), list(zip(*columns, strict=True)))


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


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
