"""Which services are connected: the rows of `TenantServices`."""

import contextlib
from typing import Literal

import msgspec

from services.contracts.errors import AvesaError, ConflictError, RetryableError, UsageError
from services.contracts.events import ServiceName, TenantId
from services.contracts.log import CredentialsRefused
from services.contracts.names import Names
from services.contracts.ports import Row, Rows, Value
from services.contracts.times import UtcTime, seconds_between
from services.runtime.runtime import Runtime

Status = Literal["ok", "paused", "reconnect needed"]
RECONNECT_S = 300.0  # credentials once refused are tried again so often, in case they work again


class TenantService(msgspec.Struct, frozen=True):
    """One service connected to one tenant. `secret` is its name in Secrets Manager; `interval_s` overrides."""

    tenant_id: TenantId
    service: ServiceName
    company_name: str = ""
    enabled: bool = True
    secret: str = ""
    created_at: str = ""
    updated_at: str = ""
    interval_s: float | None = None
    status: Status = "ok"
    status_what: str = ""
    status_at: str = ""

    @property
    def name(self) -> str:
        """What its lease is called."""
        return f"{self.tenant_id}/{self.service}"

    @property
    def settings(self) -> tuple[object, ...]:
        """What a unit has to start anew for."""
        return (self.enabled, self.secret, self.created_at, self.updated_at, self.interval_s)

    def may_try(self, now: UtcTime) -> bool:
        """Not paused, and not refused a moment ago."""
        if not self.enabled:
            return False
        if self.status != "reconnect needed" or not self.status_at:
            return True
        return not 0.0 <= seconds_between(self.status_at, now) < RECONNECT_S


class Connected(msgspec.Struct, frozen=True):
    """Every row in order of tenant and service; and those that are none, which concern nobody else."""

    services: tuple[TenantService, ...]
    unreadable: tuple[UsageError, ...] = ()


async def connected(rows: Rows, names: Names) -> Connected:
    """What is connected, paused or not. Errors: RetryableError, NotFoundError (no table)."""
    found: list[TenantService] = []
    unreadable: list[UsageError] = []
    async for row in rows.scan(names.tenant_services):
        try:
            found.append(_tenant_service(row))
        except UsageError as err:
            unreadable.append(err)
    return Connected(tuple(sorted(found, key=lambda row: (row.tenant_id, row.service))), tuple(unreadable))


def _tenant_service(row: Row) -> TenantService:
    known = {name: value for name, value in row.items() if value is not None}
    try:
        return msgspec.convert(known, TenantService, strict=False)
    except msgspec.ValidationError as err:
        where = f"TenantServices row {row.get('tenant_id')!r}, {row.get('service')!r}"
        raise UsageError(f"{err}", where=where, remedy="Run `avesa setup-service` again.") from err


async def accept(runtime: Runtime, row: TenantService) -> None:
    """The vendor takes the credentials (again): say so where people look."""
    await _tell(runtime, row, "ok", "")


async def refuse(runtime: Runtime, row: TenantService, err: AvesaError) -> None:
    """The vendor does not take the credentials, or they cannot be used: say so where people look."""
    runtime.emit(CredentialsRefused(tenant_id=row.tenant_id, service=row.service))
    await _tell(runtime, row, "reconnect needed", str(err))


async def _tell(runtime: Runtime, row: TenantService, status: Status, what: str) -> None:
    """A row that is gone stays gone, and not being able to tell is no error."""
    key = {"tenant_id": row.tenant_id, "service": row.service}
    values: dict[str, Value] = {"status": status, "status_what": what or None, "status_at": runtime.clock.now()}
    with contextlib.suppress(ConflictError, RetryableError):
        await runtime.rows.write(runtime.names.tenant_services, key, values, expect={"tenant_id": row.tenant_id})
