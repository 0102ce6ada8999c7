"""Reading the lake: versions of a table, the latest raw records, and SQL over both.

Everything is read through pyiceberg and the object store; DuckDB gets Arrow data under the names a query uses, and
nothing it does not name: `tickets` and `tickets_timeline` over one tenant or all, `raw.{service}.{endpoint}` as the
newest observation of each record that still lives. No extension is downloaded, no file of this machine is opened.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from services.compactor import parquet
from services.compactor.history import FILE, POSITION
from services.compactor.iceberg import Warehouse
from services.compactor.open_table import OpenTable, lake_errors
from services.compactor.raw_archive import listed
from services.compactor.reading import FILE_NUMBER, Meter, MeteredIO, Reads, rows_of
from services.compactor.sql import RAW, Name, answered, names_in, quoted, view_of
from services.contracts.errors import NotFoundError, UsageError
from services.contracts.integration import integration_name
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import raw_folder, timeline_table
from services.contracts.ports import Objects, Threads
from services.contracts.rows import reading_order
from services.contracts.schema import TIMELINE_COLUMNS
from services.contracts.times import UtcTime

READS_AT_ONCE: Final = 8
# The newest of a record comes last: DESIGN 2.2, as far as it can be known before a mapping.
NEWEST: Final = ("record_id", "effective_at", "_deleted", "observed_at", "payload")
LOCKED: Final = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}


class Answer(msgspec.Struct, frozen=True):
    """What a query returned: times as UTC text, exact numbers as text without trailing zeros."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    reads: Reads = Reads()


class History(msgspec.Struct, frozen=True):
    """The versions of records as JSON values, in reading order; what these do not show (deletes, and observations that
    are no version's last); and what was read to find them."""

    versions: list[dict[str, Any]]
    timeline: list[dict[str, Any]]
    reads: Reads = Reads()


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
        return await self._rows(tenant_id, table, "is_current")

    async def versions(self, tenant_id: str | None, table: str, *, at: UtcTime | None = None) -> list[dict[str, Any]]:
        """Versions in reading order; only those that held `at` a time, where one is given."""
        return await self._rows(tenant_id, table, "true", at)

    async def history_of(self, tenant_id: str | None, table: str, record_id: str) -> History:
        """All that the tables hold of the records of one id, of one tenant or of all."""
        tenants, meter = await self.tenants() if tenant_id is None else [tenant_id], Meter()
        found = await self._threads.run(self._find, tenants, table, record_id, meter)
        versions = self._as_values(table, found)
        tenants = sorted({row["tenant_id"] for row in versions}) or tenants
        lines = await self._threads.run(self._find, tenants, timeline_table(table), record_id, meter)
        timeline = [row for held in lines for row in parquet.rows_from_arrow(held, TIMELINE_COLUMNS)]
        return History(versions, timeline, meter.reads)

    def _find(self, tenants: Iterable[str], name: str, record_id: str, meter: Meter) -> list[pa.Table]:
        tables = self._open(tenants, name)
        meter.expect(tables)
        ids = pa.array([record_id], pa.string())
        return [
            table.find(table.files.values(), ids, MeteredIO(table.table.io, meter)).drop_columns([FILE, POSITION])
            for table in tables
        ]

    async def _rows(
        self, tenant_id: str | None, table: str, condition: str, at: UtcTime | None = None
    ) -> list[dict[str, Any]]:
        tenants = await self.tenants() if tenant_id is None else [tenant_id]
        return self._as_values(table, [await self._threads.run(self._select, tenants, table, condition, at)])

    def _select(self, tenants: Sequence[str], name: str, condition: str, at: UtcTime | None) -> pa.Table:
        with _connected() as connection:
            meter = Meter()
            self._register_table(connection, name, tenants, meter, at)
            with meter.told():
                return connection.sql(f"SELECT * FROM {quoted(name)} WHERE {condition}").to_arrow_table()  # noqa: S608

    def _open(self, tenants: Iterable[str], name: str) -> list[OpenTable]:
        return [table for one in tenants if (table := self._warehouse.open(one, name)) is not None]

    def _as_values(self, table: str, found: Iterable[pa.Table]) -> list[dict[str, Any]]:
        rows = [row for held in found for row in parquet.rows_from_arrow(held, self._kinds(table, held.schema))]
        return sorted(rows, key=reading_order)

    def _kinds(self, table: str, schema: pa.Schema) -> dict[str, str]:
        """The columns of the mapping files, and those that only the table has, in its order."""
        known = parquet.version_kinds(self._tables[table]) if table in self._tables else {}
        return {**known, **{field.name: _kind_of(field.type) for field in schema if field.name not in known}}

    # -- files
    async def _files(self, folder: str) -> AsyncIterator[bytes]:
        keys = [info.key for info in await listed(self._objects, folder)]
        hours = {key: key.removeprefix(f"{folder}/").removesuffix(".parquet").partition("/")[0] for key in keys}
        for start in range(0, len(keys), READS_AT_ONCE):
            reads = (self._read(key, folder, hours[key]) for key in keys[start : start + READS_AT_ONCE])
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
            async for data in self._files(raw_folder(tenant_id, service, name)):
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
        meter = Meter()
        with _connected() as connection:
            names = names_in(connection, sql, self._tables)
            tenants = await self.tenants() if tenant_id is None else [tenant_id]
            for name in sorted(names):
                if name.service:
                    await self._register_raw(connection, name, tenants, at)
                else:
                    await self._threads.run(self._register_table, connection, name.table, tenants, meter, at)
            connection.execute("SET enable_external_access = false")
            with meter.told():
                columns, rows = await self._threads.run(answered, connection, sql)
            return Answer(columns, rows, meter.reads)

    async def _register_raw(
        self, connection: duckdb.DuckDBPyConnection, name: Name, tenants: Sequence[str], at: UtcTime | None
    ) -> None:
        if at is not None:
            raise UsageError(
                f"raw.{name.service}.{name.table} has no history to look at as of a time",
                remedy="Ask a canonical table, or leave --as-of out.",
            )
        found = [await self._latest(one, name.service, name.table) for one in tenants]
        connection.register(name.registered, pa.concat_tables([_NO_RAW, *found]))
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {RAW}.{quoted(name.service)}")
        columns, source = "* REPLACE (payload::JSON AS payload)", f"temp.main.{quoted(name.registered)}"
        place = f"{RAW}.{quoted(name.service)}.{quoted(name.table)}"
        connection.execute(f"CREATE VIEW {place} AS SELECT {columns} FROM {source}")  # noqa: S608  names are quoted

    def _register_table(
        self,
        connection: duckdb.DuckDBPyConnection,
        name: str,
        tenants: Sequence[str],
        meter: Meter,
        at: UtcTime | None = None,
    ) -> None:
        """A canonical table or timeline as a view, by its name. Rows are named by their tenant already."""
        tables = self._open(tenants, name)
        if not tables:
            connection.register(f"files of {name}", self._empty(name))
            connection.execute(f"CREATE VIEW {quoted(name)} AS FROM temp.main.{quoted(f'files of {name}')}")
            return
        meter.expect(tables)
        with lake_errors(f"reading {name}", self._warehouse.endpoint_url):
            rows = rows_of(tables, meter)
        files, dead = f"files of {name}", f"dead of {name}"
        connection.register(files, rows.files)
        connection.register(dead, rows.dead)
        keys = rows.dead.column_names
        connection.execute(view_of(name, files, dead if rows.dead.num_rows else None, keys, FILE_NUMBER, at))

    def _empty(self, name: str) -> pa.Table:
        base = name.removesuffix("_timeline")
        if base not in self._tables:
            known = ", ".join(sorted(self._tables))
            remedy = f"Known: {known}, {RAW}.SERVICE.ENDPOINT."
            raise UsageError(f"there is no table {name!r}", code="unknown_table", remedy=remedy)
        return parquet.rows_to_arrow(
            [], parquet.version_kinds(self._tables[base]) if base == name else dict(TIMELINE_COLUMNS)
        )

    async def columns(self, tenant_id: str, table: str) -> dict[str, str]:
        """The columns of a table and our kinds of them, in its order; none where there is no such table."""
        found = await self._threads.run(self._warehouse.open, tenant_id, table)
        return {} if found is None else found.kinds


# -- pure pieces ------------------------------------------------------------------------------------------------------
_NO_RAW: Final = parquet.rows_to_arrow([], parquet.RAW_FIELDS)


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


@contextmanager
def _connected() -> Iterator[duckdb.DuckDBPyConnection]:
    connection = duckdb.connect(config=dict(LOCKED))
    try:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute(f"ATTACH ':memory:' AS {RAW}")
        yield connection
    finally:
        connection.close()
