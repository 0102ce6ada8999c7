"""The canonical model: one file per table, `mappings/canonical/{table}.json`, and the columns every row carries."""

from typing import Annotated, Literal

import msgspec

ColumnType = Literal["string", "int64", "float64", "decimal", "bool", "timestamp", "date", "json"]
Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9_]*$", max_length=64)]


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One canonical column. A change of a `tracked` column makes a new version; of an untracked one it does not.

    Types: `decimal` is exact, 38 digits with 9 after the point; `timestamp` is UTC microseconds; `json` is JSON text.
    """

    type: ColumnType
    description: str = ""
    tracked: bool = True


class CanonicalTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One canonical table. `scd` 2 keeps history, 1 keeps the living row only."""

    table: Name
    columns: dict[Name, Column]
    description: str = ""
    scd: Literal[1, 2] = 2

    def all_columns(self) -> dict[str, Column]:
        """The business columns in file order, then `custom_fields`, which every table has and tracks."""
        return {**self.columns, CUSTOM_FIELDS: CUSTOM_FIELDS_COLUMN}


CUSTOM_FIELDS = "custom_fields"
CUSTOM_FIELDS_COLUMN = Column("json", "The customer's own fields, as one JSON object of name to value", tracked=True)

# What every version row carries besides its table's columns (DESIGN 2.2), in this order, and its type.
ROW_COLUMNS: dict[str, ColumnType | Literal["int32"]] = {
    "tenant_id": "string",
    "service": "string",
    "family": "string",
    "record_id": "string",
    "valid_from": "timestamp",
    "valid_to": "timestamp",
    "is_current": "bool",
    "record_hash": "string",
    "observed_at": "timestamp",
    "mapping_version": "int32",
    "last_effective_at": "timestamp",
    "last_observed_at": "timestamp",
}
# A row of the timeline table: the tracked columns of an upsert are those of the version of its `record_hash`,
# `untracked` is the JSON text of the others.
TIMELINE_COLUMNS: dict[str, str] = {
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
RESERVED_COLUMNS = frozenset(ROW_COLUMNS) | {CUSTOM_FIELDS}
