"""Observations as Parquet files: typed columns there and JSON values here, each the exact inverse of the other.

The same events give the same bytes whoever writes them. A canonical file holds the table's columns, then what an
observation carries besides; the names of the latter that a table might use itself begin with `_` (a canonical column
never does), so `opportunities.source` and the page an observation came from stand side by side.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from services.contracts.errors import FatalError
from services.contracts.events import CanonicalEvent, Change, ChangeEvent
from services.contracts.schema import ROW_COLUMNS, CanonicalTable

ROW_GROUP_ROWS: Final = 8_192
ARROW: Final[Mapping[str, pa.DataType]] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float64": pa.float64(),
    "decimal": pa.decimal128(38, 9),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
    "json": pa.string(),
}
# How Iceberg spells the types of our columns.
ICEBERG_KINDS: Final[Mapping[str, str]] = {
    "string": "string",
    "long": "int64",
    "int": "int32",
    "double": "float64",
    "decimal(38, 9)": "decimal",
    "boolean": "bool",
    "timestamptz": "timestamp",
    "date": "date",
}
RAW_FIELDS: Final[Mapping[str, str]] = {
    "tenant_id": "string",
    "service": "string",
    "endpoint": "string",
    "record_id": "string",
    "op": "string",
    "effective_at": "timestamp",
    "observed_at": "timestamp",
    "evidence": "string",
    "source": "string",
    "payload": "string",
}
# What a canonical file says of each observation after the table's columns.
OBSERVATION_FIELDS: Final[Mapping[str, str]] = {
    "tenant_id": "string",
    "service": "string",
    "_endpoint": "string",
    "family": "string",
    "record_id": "string",
    "_op": "string",
    "_effective_at": "timestamp",
    "observed_at": "timestamp",
    "_evidence": "string",
    "_source": "string",
    "mapping_version": "int32",
    "record_hash": "string",
    "_row_digest": "string",
    "_label": "string",
    "_previous_from": "timestamp",
    "_changed": "json",
}
# The order of a file. What comes after the identity of an observation is advice, and its duplicates are duplicates.
# What saw it is part of it: a deletion published again after a gap names another source, and both stay.
RAW_IDENTITY: Final = ("record_id", "effective_at", "observed_at", "op", "evidence", "source", "payload")
IDENTITY: Final = (
    "record_id", "service", "family", "_effective_at", "observed_at", "_op", "mapping_version", "record_hash",
    "_row_digest", "_endpoint", "_evidence", "_source",
)  # fmt: skip
ADVICE: Final = ("_label", "_previous_from", "_changed")
UNFIT: Final = (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, msgspec.DecodeError)  # what an unfit value raises

KEY: Final = ("service", "family", "record_id")  # an entity within its tenant's table
FOLDED: Final = ("_effective_at", "observed_at", "mapping_version", "record_hash", "_row_digest")
SEEN_FIELDS: Final = (*FOLDED, "_deleted")  # what the fold asks of an observation: `contracts.fold.Observation`
_decode_row = msgspec.json.Decoder(dict[str, Any]).decode
_decode_changed = msgspec.json.Decoder(dict[str, Change]).decode


# -- one column -------------------------------------------------------------------------------------------------------
def to_arrow(values: Sequence[Any], kind: str) -> pa.Array:
    """JSON values as a column. Errors: those of `UNFIT`."""
    if kind in ("timestamp", "decimal", "date"):
        return pc.cast(pa.array(values, pa.string()), ARROW[kind])
    return pa.array(values, ARROW[kind])


def from_arrow(column: pa.Array | pa.ChunkedArray, kind: str) -> list[Any]:
    """A column as JSON values: the inverse of `to_arrow`."""
    if kind == "timestamp":
        text = pc.cast(pc.cast(column, pa.timestamp("us")), pa.string())
        column = pc.binary_join_element_wise(pc.replace_substring(text, " ", "T"), "Z", "")
    elif kind == "decimal":
        return [None if text is None else _plain(text) for text in pc.cast(column, pa.string()).to_pylist()]
    elif kind == "date":
        column = pc.cast(column, pa.string())
    values: list[Any] = column.to_pylist()
    return values


def _plain(text: str) -> str:
    """Arrow's text of a decimal (nine digits after the point, small ones with an exponent) without trailing zeros."""
    digits = f"{Decimal(text):f}" if "E" in text else text
    return digits.rstrip("0").rstrip(".")


# -- rows of JSON values ----------------------------------------------------------------------------------------------
def rows_to_arrow(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> pa.Table:
    """Rows as a table; what a row does not name is null."""
    return pa.table({name: to_arrow([row.get(name) for row in rows], kind) for name, kind in kinds.items()})


def rows_from_arrow(table: pa.Table, kinds: Mapping[str, str], *, nulls: bool = True) -> list[dict[str, Any]]:
    """The inverse; without `nulls` a row names only what it has. Columns the table lacks are null."""
    rows: list[dict[str, Any]] = [dict.fromkeys(kinds) if nulls else {} for _ in range(table.num_rows)]
    present = set(table.column_names)
    for name, kind in kinds.items():
        if name not in present or (column := table.column(name)).null_count == table.num_rows:
            continue
        for row, value in zip(rows, from_arrow(column, kind), strict=True):
            if value is not None:
                row[name] = value
    return rows


def column_kinds(table: CanonicalTable) -> dict[str, str]:
    """The kind of each business column and of `custom_fields`."""
    return {name: column.type for name, column in table.all_columns().items()}


def version_kinds(table: CanonicalTable) -> dict[str, str]:
    """The columns of a version table and their kinds, in order."""
    return {**column_kinds(table), **ROW_COLUMNS}


# -- files ------------------------------------------------------------------------------------------------------------
def raw_file(events: Iterable[ChangeEvent], about: Mapping[str, str]) -> bytes:
    """Raw events of one folder and hour as Parquet. `about` is kept in the file: which cut it is part of."""
    held = list(events)
    columns = {
        name: to_arrow([getattr(event, name) for event in held], kind)
        for name, kind in RAW_FIELDS.items()
        if name != "payload"
    }
    columns["payload"] = pa.array([_payload(event) for event in held], pa.string())
    return write(tidy(pa.table(columns), RAW_IDENTITY), about)


def canonical_file(events: Iterable[CanonicalEvent], table: CanonicalTable, about: Mapping[str, str]) -> bytes:
    """Canonical events of one folder and hour as Parquet.

    Errors: those of `UNFIT` for a value its column cannot hold.
    """
    held = list(events)
    rows = [{} if isinstance(event.row, msgspec.UnsetType) else _decode_row(event.row) for event in held]
    business = {name: to_arrow([row.get(name) for row in rows], kind) for name, kind in column_kinds(table).items()}
    own = {
        name: to_arrow([getattr(event, name.removeprefix("_")) for event in held], kind)
        for name, kind in OBSERVATION_FIELDS.items()
        if name != "_changed"
    }
    changed = [msgspec.json.encode(event.changed).decode() if event.changed else None for event in held]
    return write(
        tidy(pa.table({**business, **own, "_changed": pa.array(changed, pa.string())}), IDENTITY, ADVICE), about
    )


def _payload(event: ChangeEvent) -> str | None:
    # Bytes that are not UTF-8 cannot stand in a text column; such a payload was never decodable either.
    return None if isinstance(event.payload, msgspec.UnsetType) else bytes(event.payload).decode(errors="replace")


def tidy(table: pa.Table, identity: Sequence[str], advice: Sequence[str] = ()) -> pa.Table:
    """Sorted by record, and of equal observations one: the same table whatever the order rows came in."""
    ordered = table.take(pc.sort_indices(table, sort_keys=[(name, "ascending") for name in (*identity, *advice)]))
    ordered = ordered.combine_chunks()
    if ordered.num_rows < 2:
        return ordered
    same = pa.array([True] * (ordered.num_rows - 1))
    for name in identity:
        column = ordered.column(name)
        here, before = column.slice(1), column.slice(0, ordered.num_rows - 1)
        equal = pc.fill_null(pc.equal(here, before), False)
        same = pc.and_(same, pc.or_(equal, pc.and_(pc.is_null(here), pc.is_null(before))))
    keep = pc.invert(same)
    keep = pa.chunked_array([pa.array([True]), *(keep.chunks if isinstance(keep, pa.ChunkedArray) else [keep])])
    return ordered.filter(keep)


def write(table: pa.Table, about: Mapping[str, str]) -> bytes:
    """A table as Parquet bytes, the same for the same table."""
    out = io.BytesIO()
    described = table.combine_chunks().replace_schema_metadata({f"avesa.{name}": text for name, text in about.items()})
    pq.write_table(described, out, compression="zstd", row_group_size=ROW_GROUP_ROWS, store_decimal_as_integer=True)
    return out.getvalue()


def read(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    return pq.read_table(pa.BufferReader(data), columns=columns)


def about(data: bytes) -> dict[str, str]:
    """What `write` was told the file is about."""
    found = pq.read_schema(pa.BufferReader(data)).metadata or {}
    return {
        name.decode().removeprefix("avesa."): text.decode()
        for name, text in found.items()
        if name.startswith(b"avesa.")
    }


def consolidated(parts: Iterable[bytes], about: Mapping[str, str]) -> bytes | None:
    """The parts of an hour as one file, each observation once. Parts of older mappings lack newer columns: null.

    Shape:  None where a column is of one type in one part and of another in another: the table was rebuilt meanwhile.
    """
    held = [read(part).replace_schema_metadata(None) for part in parts]
    try:
        table = pa.concat_tables(held, promote_options="default")
    except pa.ArrowTypeError:
        return None
    if "payload" in table.column_names and "_op" not in table.column_names:
        return write(tidy(table, RAW_IDENTITY), about)
    return write(tidy(table, IDENTITY, ADVICE), about)


def holds_all(whole: bytes, part: bytes) -> bool:
    """Does a consolidated file hold every observation of a part?"""
    both = consolidated([whole, part], {})
    return both is not None and bool(read(both).num_rows == read(whole).num_rows)


# -- reading them back ------------------------------------------------------------------------------------------------
def raw_events(data: bytes) -> list[ChangeEvent]:
    """The events of a raw file, as they were but for the white space a payload never had."""
    return _raw_events(read(data))


def raw_batches(data: bytes, rows_max: int = ROW_GROUP_ROWS) -> Iterator[list[ChangeEvent]]:
    """The same, at most so many at a time."""
    for batch in pq.ParquetFile(pa.BufferReader(data)).iter_batches(rows_max):
        yield _raw_events(pa.Table.from_batches([batch]))


def rows_count(data: bytes) -> int:
    """How many rows a file has."""
    count: int = pq.read_metadata(pa.BufferReader(data)).num_rows
    return count


def _raw_events(held: pa.Table) -> list[ChangeEvent]:
    return [
        ChangeEvent(
            **{**row, "payload": msgspec.UNSET if row["payload"] is None else msgspec.Raw(row["payload"].encode())}
        )
        for row in rows_from_arrow(held, RAW_FIELDS)
    ]


def canonical_events(data: bytes, table: CanonicalTable) -> list[CanonicalEvent]:
    """The events of a canonical file, in its order; `row` lists its columns in the order of the table."""
    held = read(data)
    rows = rows_from_arrow(held, column_kinds(table), nulls=False)
    own = rows_from_arrow(held, OBSERVATION_FIELDS)
    return [_canonical_event(fields, row, table.table) for fields, row in zip(own, rows, strict=True)]


def _canonical_event(fields: Mapping[str, Any], row: Mapping[str, Any], table: str) -> CanonicalEvent:
    named = {name.removeprefix("_"): value for name, value in fields.items()}
    changed = _decode_changed(named["changed"]) if named["changed"] else {}
    body = msgspec.UNSET if named["op"] == "delete" else msgspec.Raw(msgspec.json.encode(row))
    return CanonicalEvent(**{**named, "table": table, "changed": changed, "row": body})


def observations(held: pa.Table, table: CanonicalTable, floors: Mapping[str, int] | None = None) -> pa.Table:
    """What the fold sees of rows of a canonical file: KEY, SEEN_FIELDS, and the columns of the table. Rows made by a
    mapping below the floor of their service have these empty: they may be of another type.

    Errors: FatalError where a column has a type that does not fit the table's.
    """
    if floors:
        below = [
            version < floors.get(service, 0)
            for service, version in zip(
                held.column("service").to_pylist(), held.column("mapping_version").to_pylist(), strict=True
            )
        ]
        if any(below):
            mask = pa.array(below)
            old = held.filter(mask).select([*KEY, *FOLDED, "_op"])
            parts = [part for part in (old, held.filter(pc.invert(mask))) if part.num_rows]
            return pa.concat_tables(observations(part, table) for part in parts)
    own = {name: held.column(name) for name in (*KEY, *FOLDED)}
    own["_deleted"] = pc.equal(held.column("_op"), "delete")
    business = conformed(held, column_kinds(table))
    return pa.table({**own, **dict(zip(business.column_names, business.columns, strict=True))})


def conformed(rows: pa.Table, kinds: Mapping[str, str]) -> pa.Table:
    """The columns of `kinds`, in their order; what the rows lack is null.

    Errors: FatalError where a column cannot become its kind.
    """
    present = set(rows.column_names)
    columns = {}
    for name, kind in kinds.items():
        try:
            columns[name] = (
                pc.cast(rows.column(name), ARROW[kind]) if name in present else pa.nulls(rows.num_rows, ARROW[kind])
            )
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as err:
            raise FatalError(f"column {name} is no {kind} ({err})", code="bad_mapping") from err
    return pa.table(columns)
