"""Iceberg through pyiceberg: the tables of an environment, and the two of one history as a merge sees them.

A commit holds only on the snapshot it read: pyiceberg's own retries are off, because rebasing a merge would double
rows. Data files are rewritten (copy on write); layout.py says which.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.exceptions import NamespaceAlreadyExistsError, NoSuchNamespaceError, NoSuchTableError
from pyiceberg.manifest import DataFile
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

from services.compactor.layout import Limits, Rewrite, rewrite_appended, rewrite_leaves
from services.compactor.merge import Remembered, Row, Watermark
from services.compactor.open_table import OpenTable, keys_of, lake_errors
from services.compactor.parquet import Key, column_kinds, from_arrow, rows_from_arrow, rows_to_arrow
from services.contracts.errors import FatalError
from services.contracts.names import Names, timeline_table
from services.contracts.schema import ROW_COLUMNS, CanonicalTable
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
TIMELINE: Final[Mapping[str, str]] = {
    "tenant_id": "string",
    "service": "string",
    "family": "string",
    "record_id": "string",
    "effective_at": "timestamp",
    "observed_at": "timestamp",
    "op": "string",
    "mapping_version": "int32",
    "record_hash": "string",
    "untracked": "json",
}
PROPERTIES: Final[Mapping[str, str]] = {
    "commit.retry.num-retries": "0",
    "write.metadata.delete-after-commit.enabled": "true",
    "write.metadata.previous-versions-max": "20",
    "write.parquet.compression-codec": "zstd",
    "write.parquet.row-group-limit": "8192",
    # Bounds of 100 columns would be most of a manifest; these are the ones that find a record or a moment.
    "write.metadata.metrics.default": "none",
    **{
        f"write.metadata.metrics.column.{name}": "full"
        for name in ("record_id", "valid_from", "valid_to", "is_current", "effective_at", "op")
    },
    # Used by `maintain` alone: every other commit adds the manifests it needs and no more.
    "commit.manifest-merge.enabled": "true",
    "commit.manifest.min-count-to-merge": "2",
}
MERGED: Final = "avesa.merged"
STREAM: Final = "avesa.stream"
DOC_CHARS_MAX: Final = 255  # a column's comment: Glue API reference

RowId = tuple[Key, UtcTime]


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
        timeline = timeline_table(table.table)

        def opened(name: str, schema: Schema, partition: str) -> OpenTable:
            return OpenTable(self._open(tenant_id, name, schema, partition), self._limits, self.endpoint_url)

        versions = opened(table.table, _version_schema(table), "is_current")
        return IcebergHistory(
            tenant_id, table, versions, lambda: opened(timeline, _schema(TIMELINE), "op"), self._limits
        )

    def load(self, tenant_id: str, name: str) -> Table | None:
        """A table as it is now, None when there is none."""
        with lake_errors(f"loading table {name} of {tenant_id}", self.endpoint_url):
            try:
                return self.catalog.load_table((self.names.database(tenant_id), name))
            except NoSuchTableError:
                return None

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
                raise FatalError(
                    f"column {field.name} of {tenant_id}/{name} is {known[field.name]}, the mapping says "
                    f"{field.field_type}",
                    code="bad_mapping",
                    remedy="Undo the change of the mapping; rebuilding a table comes with `replay`.",
                )
        missing = [field for field in schema.fields if field.name not in known]
        if missing:
            action = f"adding columns to {tenant_id}/{name}"
            with lake_errors(action, self.endpoint_url), table.update_schema() as update:
                for field in missing:
                    update.add_column(field.name, field.field_type, doc=field.doc)
        return table

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


def glue_properties(settings: Settings) -> dict[str, Any]:
    """What pyiceberg must know to reach Glue and S3; without a key it looks where boto3 and Arrow look.

    No call to Glue is repeated by boto3: an update whose answer was lost would be refused the second time, and
    pyiceberg removes the files of a refused commit, which is the table's then. We repeat the merge instead.
    """
    properties: dict[str, Any] = {"glue.region": settings.region, "s3.region": settings.region, "glue.max-retries": 0}
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


def version_kinds(table: CanonicalTable) -> dict[str, str]:
    """The columns of a version table and their kinds, in order."""
    return {**column_kinds(table), **ROW_COLUMNS}


def _version_schema(table: CanonicalTable) -> Schema:
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

    def __init__(
        self,
        tenant_id: str,
        table: CanonicalTable,
        versions: OpenTable,
        open_timeline: Callable[[], OpenTable],
        limits: Limits,
    ) -> None:
        self._tenant_id = tenant_id
        self._versions, self._open_timeline, self._limits = versions, open_timeline, limits
        self._kinds = version_kinds(table)
        self._homes: dict[RowId, str] = {}  # rows read -> the file they lie in

    @cached_property
    def _timeline(self) -> OpenTable:
        return self._open_timeline()

    @property
    def watermark(self) -> Watermark:
        properties = self._versions.table.properties
        return Watermark(properties.get(STREAM, ""), msgspec.json.decode(properties.get(MERGED, "{}")))

    def open_rows(self, keys: Collection[Key]) -> list[Row]:
        return self._rows(True, keys)

    def closed_rows(self, keys: Collection[Key]) -> list[Row]:
        return self._rows(False, keys)

    def _rows(self, is_current: bool, keys: Collection[Key]) -> list[Row]:
        found: list[Row] = []
        for file, table in self._versions.find(self._versions.partition(is_current), keys):
            rows = rows_from_arrow(table, self._kinds)
            self._homes.update((_row_id(row), file.file_path) for row in rows)
            found += rows
        return found

    def remembered(self, keys: Collection[Key], *, deletes_only: bool) -> list[Remembered]:
        timeline = self._timeline
        files = timeline.partition("delete") if deletes_only else timeline.files.values()
        return [
            msgspec.convert(row, Remembered)
            for _, table in timeline.find(files, keys)
            for row in rows_from_arrow(table, TIMELINE)
        ]

    def remember(self, entries: Sequence[Remembered]) -> None:
        timeline = self._timeline
        replaced: list[str] = []
        written: list[DataFile] = []
        for op in ("delete", "upsert"):
            rows = [
                {"tenant_id": self._tenant_id, **msgspec.structs.asdict(entry)} for entry in entries if entry.op == op
            ]
            leaves = [timeline.leaf(file) for file in timeline.partition(op)]
            for rewrite in rewrite_appended(leaves, {}, len(rows), self._limits):
                added = rows_to_arrow(rows, TIMELINE)
                written += timeline.write(rewrite, added, op, lambda _, held: held, self._limits.closed_rows)
                replaced += rewrite.paths
        timeline.commit(replaced, written, {})

    def commit(self, removed: Sequence[Row], added: Sequence[Row], watermark: Watermark) -> None:
        gone: dict[str, set[RowId]] = {}
        for row in removed:
            gone.setdefault(self._homes[_row_id(row)], set()).add(_row_id(row))
        replaced: list[str] = []
        written: list[DataFile] = []
        for is_current in (True, False):
            rows = sorted((row for row in added if row["is_current"] is is_current), key=lambda row: row["record_id"])
            for rewrite, rows_max in self._rewrites(is_current, gone, rows):
                table = rows_to_arrow(rows[rewrite.start : rewrite.end], self._kinds)
                moved = Rewrite(rewrite.paths, 0, rewrite.end - rewrite.start)
                written += self._versions.write(moved, table, is_current, _without(gone), rows_max)
                replaced += rewrite.paths
        wanted = {MERGED: msgspec.json.encode(watermark.cuts, order="sorted").decode(), STREAM: watermark.stream}
        properties = self._versions.table.properties
        news = {name: text for name, text in wanted.items() if properties.get(name) != text}
        self._versions.commit(replaced, written, news)

    def _rewrites(
        self, is_current: bool, gone: Mapping[str, set[RowId]], rows: Sequence[Row]
    ) -> list[tuple[Rewrite, int]]:
        leaves = [self._versions.leaf(file) for file in self._versions.partition(is_current)]
        counts = {leaf.path: len(gone[leaf.path]) for leaf in leaves if leaf.path in gone}
        limits = self._limits
        if is_current:
            ids = [row["record_id"] for row in rows]
            return [(it, limits.open_rows) for it in rewrite_leaves(leaves, counts, ids, limits.open_rows)]
        return [(it, limits.closed_rows) for it in rewrite_appended(leaves, counts, len(rows), limits)]

    def maintain(self, now: UtcTime) -> int:
        """Maintenance of the tables this merge has opened, under the merger's lease; returns the files removed."""
        timeline = self._timeline.maintain(now) if "_timeline" in vars(self) else 0
        return self._versions.maintain(now) + timeline


def _row_id(row: Row) -> RowId:
    return (row["service"], row["family"], row["record_id"]), row["valid_from"]


def _without(gone: Mapping[str, set[RowId]]) -> Callable[[DataFile, pa.Table], pa.Table]:
    """A filter that leaves out the rows a merge replaces."""

    def keep(file: DataFile, rows: pa.Table) -> pa.Table:
        removed = gone.get(file.file_path)
        if not removed:
            return rows
        ids = pa.array({key[2] for key, _ in removed}, pa.string())
        doubtful = pc.is_in(pc.cast(rows.column("record_id"), pa.string()), value_set=ids).to_pylist()
        suspects = rows.filter(pa.array(doubtful))
        found = iter(zip(keys_of(suspects), from_arrow(suspects.column("valid_from"), "timestamp"), strict=True))
        return rows.filter(pa.array([not doubt or next(found) not in removed for doubt in doubtful], pa.bool_()))

    return keep
