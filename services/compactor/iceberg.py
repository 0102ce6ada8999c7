"""Iceberg through pyiceberg: the tables of an environment, and the two of one history as a merge sees them.

A commit holds only on the snapshot it read: pyiceberg's own retries are off, because rebasing a merge would double
rows. Rows that go are marked as dead in position deletes; layout.py says when files are rewritten.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchNamespaceError, NoSuchTableError
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import IdentityTransform
from pyiceberg.types import (
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    IntegerType,
    LongType,
    NestedField,
    PrimitiveType,
    StringType,
    TimestamptzType,
)

from services.compactor.history import FILE, POSITION, Watermark
from services.compactor.layout import Limits
from services.compactor.open_table import OpenTable, lake_errors
from services.compactor.parquet import version_kinds
from services.compactor.upkeep import Upkeep, keep_house, upkeep_of
from services.contracts.errors import FatalError
from services.contracts.names import Names, timeline_table
from services.contracts.schema import TIMELINE_COLUMNS, CanonicalTable
from services.contracts.times import UtcTime
from services.runtime.settings import Settings

TYPES: Final[Mapping[str, PrimitiveType]] = {
    "string": StringType(),
    "int64": LongType(),
    "int32": IntegerType(),
    "float64": DoubleType(),
    "decimal": DecimalType(38, 9),
    "bool": BooleanType(),
    "timestamp": TimestamptzType(),
    "date": DateType(),
    "json": StringType(),
}
PROPERTIES: Final[Mapping[str, str]] = {
    "commit.retry.num-retries": "0",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "write.parquet.compression-codec": "zstd",
    "write.parquet.row-group-limit": "4096",  # one record is in one of them: what a look-up reads
    # Bounds of 100 columns would be most of a manifest; these are the ones that find a record or a moment.
    "write.metadata.metrics.default": "none",
    **{
        f"write.metadata.metrics.column.{name}": "full"
        for name in ("record_id", "valid_from", "valid_to", "is_current", "effective_at", "op")
    },
}
MERGED: Final = "avesa.merged"
STREAM: Final = "avesa.stream"
SCD: Final = "avesa.scd"
FLOORS: Final = "avesa.mappings"  # see HistoryTables.floors
REBUILDING: Final = "avesa.rebuilding"  # what FLOORS will be when the rebuild that was begun is done
DOC_CHARS_MAX: Final = 255  # a column's comment: Glue API reference

NOTHING_REMOVED: Final = pa.table({FILE: pa.array([], pa.string()), POSITION: pa.array([], pa.int64())})


class Warehouse:
    """The Iceberg tables of one environment. Methods block: call them in a thread.

    `root` replaces `s3://{bucket}` where tables lie elsewhere (a local folder).
    """

    def __init__(
        self,
        catalog: Catalog,
        names: Names,
        *,
        root: str = "",
        endpoint_url: str | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.catalog, self.names, self.endpoint_url = catalog, names, endpoint_url
        self._root, self._limits = root, limits or Limits()

    @classmethod
    def on_glue(cls, settings: Settings) -> "Warehouse":
        """The warehouse in AWS Glue, or in what stands for it at the endpoint of `settings`."""
        with lake_errors("opening the Glue catalog", settings.endpoint_url):
            catalog = GlueCatalog("avesa", **glue_properties(settings))
        return cls(catalog, settings.names, endpoint_url=settings.endpoint_url)

    def history(self, tenant_id: str, table: CanonicalTable) -> "IcebergHistory":
        """The two tables of a history, created where they are missing.

        Errors: RetryableError; ConflictError when somebody else creates or widens them now; FatalError where a column
        has another type than the mapping says.
        """

        def opened(name: str, schema: Schema, partition: str) -> OpenTable:
            return OpenTable(self._open(tenant_id, name, schema, partition), self._limits, self.endpoint_url)

        versions = opened(table.table, version_schema(table), "is_current")
        self._check_scd(tenant_id, table, versions.table)
        return IcebergHistory(versions, lambda: opened(timeline_table(table.table), _schema(TIMELINE_COLUMNS), "op"))

    def rebuilding(self, tenant_id: str, table: CanonicalTable) -> "IcebergHistory":
        """The same two tables, both opened now, with the columns they have, whatever the mapping says.

        Errors: RetryableError; ConflictError when somebody else creates them now.
        """

        def opened(name: str, schema: Schema, partition: str) -> OpenTable:
            found = self.load(tenant_id, name) or self._create(tenant_id, name, schema, partition)
            return OpenTable(found, self._limits, self.endpoint_url)

        timeline = opened(timeline_table(table.table), _schema(TIMELINE_COLUMNS), "op")
        return IcebergHistory(opened(table.table, version_schema(table), "is_current"), lambda: timeline)

    def open(self, tenant_id: str, name: str) -> OpenTable | None:
        """A table for reading, as it is now; None when there is none."""
        table = self.load(tenant_id, name)
        return None if table is None else OpenTable(table, self._limits, self.endpoint_url)

    def load(self, tenant_id: str, name: str) -> Table | None:
        """A table as it is now, None when there is none."""
        with lake_errors(f"loading table {name} of {tenant_id}", self.endpoint_url):
            try:
                return self.catalog.load_table((self.names.database(tenant_id), name))
            except NoSuchTableError:
                return None

    def floors(self, tenant_id: str, name: str) -> dict[str, int]:
        """By service the mapping that a table was last rebuilt with; empty where there is no table."""
        table = self.load(tenant_id, name)
        return {} if table is None else _floors(table)

    def upkeep(self, tenant_id: str) -> list[Upkeep]:
        """How every table of a tenant stands, by name; none where the tenant has none."""
        with lake_errors(f"looking at the tables of {tenant_id}", self.endpoint_url):
            try:
                names = sorted(name for _, name in self.catalog.list_tables(self.names.database(tenant_id)))
            except NoSuchNamespaceError:
                return []
        found = ((name, self.load(tenant_id, name)) for name in names)
        return [upkeep_of(tenant_id, name, table) for name, table in found if table is not None]

    def tenants(self) -> list[str]:
        """Every tenant that has tables in this environment, sorted."""
        prefix = self.names.database("")
        with lake_errors("listing databases", self.endpoint_url):
            databases = [namespace[0] for namespace in self.catalog.list_namespaces()]
        return sorted(name.removeprefix(prefix).replace("__", "-") for name in databases if name.startswith(prefix))

    def _open(self, tenant_id: str, name: str, schema: Schema, partition: str) -> Table:
        table = self.load(tenant_id, name) or self._create(tenant_id, name, schema, partition)
        known = {field.name: field.field_type for field in table.schema().fields}
        for field in schema.fields:
            if known.get(field.name, field.field_type) != field.field_type:
                what = f"column {field.name} of {tenant_id}/{name} is {known[field.name]}"
                raise _unlike(f"{what}, the mapping says {field.field_type}", tenant_id, name)
        missing = [field for field in schema.fields if field.name not in known]
        if missing:
            action = f"adding columns to {tenant_id}/{name}"
            with lake_errors(action, self.endpoint_url), table.update_schema() as update:
                for field in missing:
                    update.add_column(field.name, field.field_type, doc=field.doc)
        return table

    def _check_scd(self, tenant_id: str, table: CanonicalTable, held: Table) -> None:
        """A table made without history cannot go on with one, nor the other way round."""
        scd = held.properties.get(SCD)
        if scd is None:
            with lake_errors(f"setting up {tenant_id}/{table.table}", self.endpoint_url), held.transaction() as begun:
                begun.set_properties({SCD: str(table.scd)})
        elif scd != str(table.scd):
            what = f"{tenant_id}/{table.table} was made with scd {scd}, the mapping says {table.scd}"
            raise _unlike(what, tenant_id, table.table)

    def _create(self, tenant_id: str, name: str, schema: Schema, partition: str) -> Table:
        database, location = self.names.database(tenant_id), self._location(tenant_id, name)
        source = schema.find_field(partition)
        spec = PartitionSpec(PartitionField(source.field_id, 1000, IdentityTransform(), partition))
        arguments: dict[str, Any] = {"location": location, "partition_spec": spec, "properties": dict(PROPERTIES)}
        with lake_errors(f"creating table {name} of {tenant_id}", self.endpoint_url):
            try:
                return self.catalog.create_table((database, name), schema, **arguments)
            except NoSuchNamespaceError:
                pass
            with suppress(NamespaceAlreadyExistsError):  # another merger of this tenant was faster
                self.catalog.create_namespace(database)
            return self.catalog.create_table((database, name), schema, **arguments)

    def _location(self, tenant_id: str, name: str) -> str:
        table = name.removesuffix("_timeline")
        at = self.names.tables_location if table == name else self.names.timeline_location
        location = at(tenant_id, table)
        return location.replace(f"s3://{self.names.bucket}", self._root, 1) if self._root else location


def _unlike(what: str, tenant_id: str, name: str) -> FatalError:
    """The table is one thing and the mapping says another."""
    command = f"avesa replay --from raw --table {name} --rebuild --tenant-id {tenant_id}"
    remedy = f"Undo the change of the mapping, or rebuild the table: `{command}`."
    return FatalError(what, code="bad_mapping", remedy=remedy)


def glue_properties(settings: Settings) -> dict[str, Any]:
    """What pyiceberg must know to reach Glue and S3; without a key it looks where boto3 and Arrow look.

    No call to Glue is repeated by boto3: an update whose answer was lost would be refused the second time, and
    pyiceberg removes the files of a refused commit, which is the table's then. We repeat the merge instead.
    """
    properties: dict[str, Any] = {
        "glue.region": settings.region,
        "glue.max-retries": 0,
        "s3.region": settings.region,
        "py-io-impl": "services.compactor.lake_io.LakeIO",
    }
    optional = {
        "glue.endpoint": settings.endpoint_url,
        "s3.endpoint": settings.endpoint_url,
        "glue.profile-name": settings.profile,
        "glue.access-key-id": settings.access_key,
        "s3.access-key-id": settings.access_key,
        "glue.secret-access-key": settings.secret_key,
        "s3.secret-access-key": settings.secret_key,
        "glue.session-token": settings.session_token,
        "s3.session-token": settings.session_token,
        "s3.connect-timeout": str(settings.aws_connect_s),
        "s3.request-timeout": str(settings.aws_read_s),
    }
    return properties | {name: value for name, value in optional.items() if value is not None}


def version_schema(table: CanonicalTable) -> Schema:
    """The columns of a version table; their ids are those of a new one."""
    docs = {name: column.description for name, column in table.all_columns().items()}
    return _schema(version_kinds(table), docs)


def _schema(kinds: Mapping[str, str], docs: Mapping[str, str] | None = None) -> Schema:
    described = docs or {}
    return Schema(
        *(
            NestedField(number, name, TYPES[kind], required=False, doc=described.get(name, "")[:DOC_CHARS_MAX] or None)
            for number, (name, kind) in enumerate(kinds.items(), start=1)
        )
    )


# -- a history --------------------------------------------------------------------------------------------------------
class IcebergHistory:
    """`HistoryTables` over two Iceberg tables. The timeline is opened when it is first needed."""

    def __init__(self, versions: OpenTable, open_timeline: Callable[[], OpenTable]) -> None:
        self.versions, self._open_timeline = versions, open_timeline

    @cached_property
    def timeline(self) -> OpenTable:
        return self._open_timeline()

    @property
    def watermark(self) -> Watermark:
        properties = self.versions.table.properties
        return Watermark(properties.get(STREAM, ""), msgspec.json.decode(properties.get(MERGED, "{}")))

    @property
    def kinds(self) -> dict[str, str]:
        return self.versions.kinds

    @property
    def floors(self) -> dict[str, int]:
        return _floors(self.versions.table)

    @property
    def is_rebuilding(self) -> bool:
        properties = self.versions.table.properties
        return REBUILDING in properties and properties[REBUILDING] != properties.get(FLOORS, "{}")

    def open_rows(self, record_ids: pa.Array) -> pa.Table:
        return self.versions.find(self.versions.partition(True), record_ids)

    def closed_rows(self, record_ids: pa.Array) -> pa.Table:
        return self.versions.find(self.versions.partition(False), record_ids)

    def remembered(self, record_ids: pa.Array, *, deletes_only: bool) -> pa.Table:
        timeline = self.timeline
        return timeline.find(timeline.partition("delete") if deletes_only else timeline.files.values(), record_ids)

    def remember(self, entries: pa.Table) -> None:
        timeline = self.timeline
        timeline.change(NOTHING_REMOVED, _split(entries, "op", ("delete", "upsert")), {})

    def commit(self, removed: pa.Table, added: pa.Table, watermark: Watermark) -> None:
        properties = self.versions.table.properties
        news = {name: text for name, text in _properties(watermark).items() if properties.get(name) != text}
        self.versions.change(removed, _split(added, "is_current", (True, False)), news)

    def maintain(self, now: UtcTime) -> int:
        """Maintenance of the tables this merge has opened, under the merger's lease; returns the files removed."""
        timeline = keep_house(self.timeline, now) if "timeline" in vars(self) else 0
        return keep_house(self.versions, now) + timeline


def _floors(table: Table) -> dict[str, int]:
    found: dict[str, int] = msgspec.json.decode(table.properties.get(FLOORS, "{}"))
    return found


def _properties(watermark: Watermark) -> dict[str, str]:
    return {MERGED: msgspec.json.encode(watermark.cuts, order="sorted").decode(), STREAM: watermark.stream}


def _split(rows: pa.Table, column: str, values: Sequence[Any]) -> dict[Any, pa.Table]:
    parts = {value: rows.filter(pc.equal(rows.column(column), value)) for value in values}
    return {value: part for value, part in parts.items() if part.num_rows}
