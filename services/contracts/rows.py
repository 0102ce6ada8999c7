"""From canonical events to the rows of a table: what the fold sees, and what a version looks like to a reader.

A row's values are *JSON values*: integers and floats as numbers, decimals as text without trailing zeros, times as
contract text, dates as `2026-01-31`, json as JSON text; null where the column is empty. The digests are made of these
values, so that 5 and 5.0, null and missing are decided once, by the column's type.
"""

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from services.contracts.events import CanonicalEvent
from services.contracts.fold import Observation, Version, fold
from services.contracts.schema import CanonicalTable

Values = Mapping[str, Any]
_decode_row = msgspec.json.Decoder(dict[str, Any]).decode


class Entity(msgspec.Struct, frozen=True, gc=False, order=True):
    """What one history is about. Parts stay apart: ("a","bc") and ("ab","c") are two records."""

    tenant_id: str
    table: str
    service: str
    family: str
    record_id: str


def entity_of(event: CanonicalEvent) -> Entity:
    return Entity(event.tenant_id, event.table, event.service, event.family, event.record_id)


def observation_of(event: CanonicalEvent) -> Observation[Values | None]:
    """What the fold sees of an event; `row` holds its non-null values, None on a delete."""
    row = None if isinstance(event.row, msgspec.UnsetType) else _decode_row(event.row)
    return Observation(
        event.effective_at,
        event.observed_at,
        event.op == "delete",
        event.mapping_version,
        event.record_hash,
        event.row_digest,
        row,
    )


def digest(values: Iterable[tuple[str, Any]]) -> str:
    """128-bit digest of (name, JSON value) pairs, nulls left out, in order of name; 32 hex digits."""
    return _digest(sorted((name, value) for name, value in values if value is not None))


def digests(table: CanonicalTable, values: Values) -> tuple[str, str]:
    """(`record_hash` of the tracked columns, `row_digest` of all) of one row."""
    untracked = {name for name, column in table.columns.items() if not column.tracked}
    pairs = [(name, values[name]) for name in sorted(values) if values[name] is not None]
    tracked = [pair for pair in pairs if pair[0] not in untracked]
    return _digest(tracked), _digest(pairs)


def _digest(pairs: list[tuple[str, Any]]) -> str:
    return hashlib.blake2b(msgspec.json.encode(pairs), digest_size=16).hexdigest()


def version_row(entity: Entity, version: Version[Values | None], table: CanonicalTable) -> dict[str, Any]:
    """One row of the version table, as JSON values: business columns, `custom_fields`, then the row's own columns."""
    last, values = version.last, version.last.row or {}
    return {
        **{name: values.get(name) for name in table.all_columns()},
        "tenant_id": entity.tenant_id,
        "service": entity.service,
        "family": entity.family,
        "record_id": entity.record_id,
        "valid_from": version.valid_from,
        "valid_to": version.valid_to,
        "is_current": version.is_current,
        "record_hash": last.record_hash,
        "observed_at": version.first.observed_at,
        "mapping_version": last.mapping_version,
        "last_effective_at": last.effective_at,
        "last_observed_at": last.observed_at,
    }


def folded_rows(events: Iterable[CanonicalEvent], tables: Mapping[str, CanonicalTable]) -> list[dict[str, Any]]:
    """Every version of every entity among `events`, sorted by tenant, service, record and `valid_from`."""
    by_entity: dict[Entity, list[Observation[Values | None]]] = {}
    for event in events:
        by_entity.setdefault(entity_of(event), []).append(observation_of(event))
    rows = [
        version_row(entity, version, tables[entity.table])
        for entity, seen in by_entity.items()
        for version in fold(seen, tables[entity.table].scd)
    ]
    return sorted(rows, key=reading_order)


def reading_order(row: Mapping[str, Any]) -> tuple[str, ...]:
    """How rows are shown to a person: by tenant, service, record (family apart) and start."""
    return (row["tenant_id"], row["service"], row["record_id"], row["family"], row["valid_from"])
