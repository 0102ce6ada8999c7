"""Observations for tests: short to write, complete when read."""

from typing import Any

import msgspec
from hypothesis import strategies as st

from services.contracts.events import CanonicalEvent, ChangeEvent, Op
from services.contracts.rows import digests
from services.contracts.schema import CanonicalTable, Column
from services.contracts.times import UtcTime

TENANT = "acme"
TICKETS = CanonicalTable(
    "tickets",
    {
        "summary": Column("string"),
        "hours": Column("decimal"),
        "due_at": Column("timestamp"),
        "views": Column("int64", tracked=False),
        "note": Column("string", tracked=False),
    },
)
USERS = CanonicalTable("users", {"name": Column("string"), "seen": Column("int64", tracked=False)}, scd=1)
TABLES = {"tickets": TICKETS, "users": USERS}


def at(second: float) -> UtcTime:
    """A time some seconds after nine o'clock."""
    return f"2026-01-31T09:{int(second) // 60:02d}:{int(second) % 60:02d}.{round(second % 1 * 1e6):06d}Z"


def seen(
    values: dict[str, Any] | None,
    effective: float,
    observed: float | None = None,
    *,
    record_id: str = "1",
    table: CanonicalTable = TICKETS,
    service: str = "connectwise",
    version: int = 1,
    tenant_id: str = TENANT,
) -> CanonicalEvent:
    """An observation of a record; None is a delete."""
    times = (at(effective), at(effective if observed is None else observed))
    return seen_at(
        values, *times, record_id=record_id, table=table, service=service, version=version, tenant_id=tenant_id
    )


def seen_at(
    values: dict[str, Any] | None,
    effective_at: UtcTime,
    observed_at: UtcTime = "",
    *,
    record_id: str = "1",
    table: CanonicalTable = TICKETS,
    service: str = "connectwise",
    version: int = 1,
    tenant_id: str = TENANT,
) -> CanonicalEvent:
    """The same at whole times."""
    op: Op = "delete" if values is None else "upsert"
    record_hash, row_digest = ("", "") if values is None else digests(table, values)
    return CanonicalEvent(
        tenant_id,
        service,
        table.table,
        table.table,
        table.table,
        record_id,
        op,
        effective_at,
        observed_at or effective_at,
        "vendor",
        "page 1",
        version,
        record_hash,
        row_digest,
        msgspec.UNSET if values is None else msgspec.Raw(msgspec.json.encode(values)),
    )


def read(record_id: str, second: float, payload: str = "{}", endpoint: str = "tickets") -> ChangeEvent:
    """A raw event."""
    return ChangeEvent(
        TENANT,
        "connectwise",
        endpoint,
        record_id,
        "upsert",
        at(second),
        at(second),
        payload=msgspec.Raw(payload.encode()),
    )


def _values(table: CanonicalTable) -> st.SearchStrategy[dict[str, Any] | None]:
    few: dict[str, st.SearchStrategy[Any]] = {
        "summary": st.sampled_from(["A", "B", "C"]),
        "hours": st.sampled_from(["1", "1.5"]),
        "due_at": st.sampled_from([at(0), at(1.5)]),
        "views": st.integers(0, 2),
        "note": st.sampled_from(["x", "y"]),
        "name": st.sampled_from(["A", "B"]),
        "seen": st.integers(0, 2),
    }
    optional = {name: few[name] for name in table.columns}
    return st.none() | st.fixed_dictionaries({}, optional=optional)


@st.composite
def observations(draw: st.DrawFn, table: CanonicalTable = TICKETS) -> CanonicalEvent:
    """Any observation of a few records, at few enough times that ties, repeats and late ones are daily bread."""
    return seen(
        draw(_values(table)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 3)),
        record_id=draw(st.sampled_from(["1", "2"])),
        service=draw(st.sampled_from(["connectwise", "servicenow"])),
        version=draw(st.integers(1, 2)),
        table=table,
    )
