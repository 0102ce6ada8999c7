"""Which services are connected: the rows of `TenantServices`."""

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Literal

import msgspec

from services.contracts.errors import AvesaError, ConflictError, RetryableError, UsageError
from services.contracts.events import ServiceName, TenantId
from services.contracts.integration import integration_name
from services.contracts.log import STANDARD, CredentialsRefused, Tier
from services.contracts.names import Names
from services.contracts.ports import Row, Rows, Value
from services.contracts.times import UtcTime, seconds_between
from services.runtime.runtime import Runtime

Status = Literal["ok", "paused", "reconnect needed", "stopped"]
RECONNECT_S = 300.0  # what was refused is tried again so often, in case it works again


class Override(msgspec.Struct, frozen=True):
    """What a tenant wants of one endpoint, where that is not what the mapping file says. Units: `interval_s` seconds
    between live polls."""

    interval_s: float | None = None
    enabled: bool | None = None


class TenantService(msgspec.Struct, frozen=True):
    """One service connected to one tenant. `secret` is its name in Secrets Manager; `interval_s` overrides that of all
    endpoints, `endpoints` what holds for some.

    `tier`: how much was promised to the tenant, the same in all of its rows; what is late is told by it.
    `account_id`: the partner's customer that it reads, and `partner` the service of the same tenant whose list of
    customers made this row. `connect_all`: each of its customers shall have such a row (`partners.py`).
    """

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
    endpoints: dict[str, Override] = {}
    account_id: str = ""
    partner: str = ""
    connect_all: bool = False
    tier: Tier = STANDARD

    @property
    def name(self) -> str:
        """What its lease is called."""
        return f"{self.tenant_id}/{self.service}"

    @property
    def settings(self) -> tuple[object, ...]:
        """What a unit has to start anew for."""
        overrides = tuple(sorted(self.endpoints.items()))
        connected = (self.enabled, self.secret, self.created_at, self.updated_at, self.account_id, self.connect_all)
        return (*connected, self.interval_s, overrides)

    @property
    def refused(self) -> bool:
        """A person must act, as far as we know."""
        return self.status in ("reconnect needed", "stopped")

    def may_try(self, now: UtcTime) -> bool:
        """Not paused, and not refused a moment ago."""
        if not self.enabled:
            return False
        if not self.refused or not self.status_at:
            return True
        return not 0.0 <= seconds_between(self.status_at, now) < RECONNECT_S


class Connected(msgspec.Struct, frozen=True):
    """Every row in order of tenant and service; and those that are none, which concern nobody else."""

    services: tuple[TenantService, ...]
    unreadable: tuple[UsageError, ...] = ()


async def connected(rows: Rows, names: Names) -> Connected:
    """What is connected, paused or not. Errors: RetryableError, NotFoundError (no table)."""
    return await _read(rows.scan(names.tenant_services))


async def services_of(rows: Rows, names: Names, tenant_id: str) -> Connected:
    """The same of one tenant."""
    return await _read(rows.query(names.tenant_services, {"tenant_id": tenant_id}))


async def _read(rows: AsyncIterator[Row]) -> Connected:
    found: list[TenantService] = []
    unreadable: list[UsageError] = []
    async for row in rows:
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


class Sharers:
    """How many enabled services live on the same credential."""

    def __init__(self, names: Names, rows: Iterable[TenantService] = ()) -> None:
        self._names = names
        self._counts = Counter(self._credential(row) for row in rows if row.enabled)

    def of(self, row: TenantService) -> int:
        """Those that share the credential of `row`, at least itself."""
        return max(1, self._counts[self._credential(row)])

    def _credential(self, row: TenantService) -> tuple[str, str]:
        return integration_name(row.service), row.secret or self._names.secret(row.tenant_id, row.service)


async def accept(runtime: Runtime, row: TenantService) -> None:
    """The vendor takes the credentials (again): say so where people look."""
    await _tell(runtime, row, "ok", "")


async def refuse(runtime: Runtime, row: TenantService, err: AvesaError) -> None:
    """The vendor does not take the credentials, they cannot be used, or it serves this customer no longer: say so
    where people look."""
    runtime.emit(CredentialsRefused(tenant_id=row.tenant_id, service=row.service))
    await _tell(runtime, row, "stopped" if err.code == "stopped" else "reconnect needed", str(err))


async def _tell(runtime: Runtime, row: TenantService, status: Status, what: str) -> None:
    """A row that is gone stays gone, and not being able to tell is no error."""
    key = {"tenant_id": row.tenant_id, "service": row.service}
    values: dict[str, Value] = {"status": status, "status_what": what or None, "status_at": runtime.clock.now()}
    with contextlib.suppress(ConflictError, RetryableError):
        await runtime.rows.write(runtime.names.tenant_services, key, values, expect={"tenant_id": row.tenant_id})
