"""What travels on the two streams: observations, as the vendor gave them and as the canonical model sees them."""

from typing import Annotated, Literal

import msgspec

from services.contracts.times import UtcTime

Op = Literal["upsert", "delete"]
Evidence = Literal["vendor", "read", "sweep", "backfill"]
TenantId = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]+([-_][a-z0-9]+)*$", max_length=64)]
ServiceName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]+(:[A-Za-z0-9_.-]+)?$", max_length=128)]
RecordId = Annotated[str, msgspec.Meta(min_length=1)]


class ChangeEvent(msgspec.Struct, frozen=True, gc=False):
    """One observation of one vendor record, exactly as the vendor returned it; extractor -> raw stream.

    A public format: the raw archive holds it, `avesa preview` reads it, replay publishes it again.

    Shape:  `record_id` of a composite key is the JSON array of its parts; `payload` is the vendor's JSON without
            white space between tokens and without the endpoint's `drop` paths, absent on a delete.
    Units:  `effective_at` is the vendor's modification time, or `observed_at` where the endpoint has none;
            `observed_at` is the start of the request on the vendor's clock.
    """

    tenant_id: TenantId
    service: ServiceName
    endpoint: str
    record_id: RecordId
    op: Op
    effective_at: UtcTime
    observed_at: UtcTime
    evidence: Evidence = "vendor"
    source: str = ""
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Change(msgspec.Struct, frozen=True, gc=False):
    """One column that differs from the version before."""

    before: msgspec.Raw
    after: msgspec.Raw


Label = Literal[
    "new", "changed", "touched", "unchanged", "late", "superseded", "repeated", "deleted", "restored", "unknown"
]


class CanonicalEvent(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One observation, mapped to a canonical table and labelled; transformer -> canonical stream.

    Shape:  `row` is a JSON object of the table's typed columns and `custom_fields`, nulls left out; absent on a
            delete. `record_hash` digests the tracked columns, `row_digest` the whole row (both 32 hex digits; empty
            on a delete). `label`, `previous_from` and `changed` are advice for live readers: the lake never reads
            them (DESIGN 2.3).
    """

    tenant_id: TenantId
    service: ServiceName
    endpoint: str
    family: str
    table: str
    record_id: RecordId
    op: Op
    effective_at: UtcTime
    observed_at: UtcTime
    evidence: Evidence
    source: str
    mapping_version: int
    record_hash: str = ""
    row_digest: str = ""
    row: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    label: Label = "unknown"
    previous_from: UtcTime | None = None
    changed: dict[str, Change] = {}
