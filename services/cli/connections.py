"""Which services are connected: the rows of TenantServices, and the secrets beside them."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from services.cli.spelling import listed, plain
from services.contracts.errors import FatalError, NotFoundError, UsageError
from services.contracts.hints import did_you_mean
from services.contracts.names import checked_tenant
from services.contracts.ports import Value

if TYPE_CHECKING:
    from services.extractor.refresh import Account
    from services.extractor.tenants import Connected, TenantService
    from services.runtime.runtime import Runtime


async def everything(runtime: "Runtime") -> "Connected":
    """Every row, and what is wrong with those that cannot be read."""
    from services.extractor.tenants import Connected, connected

    try:
        return await connected(runtime.rows, runtime.names)
    except NotFoundError:  # an emulator that nobody has set up yet
        return Connected(())


async def connections(runtime: "Runtime", tenant_id: str) -> "list[TenantService]":
    """Those of one tenant, in order of service."""
    return [row for row in (await everything(runtime)).services if row.tenant_id == tenant_id]


async def connection(runtime: "Runtime", tenant_id: str, typed: str) -> "TenantService":
    """The service of a tenant that `typed` names; its mapping file need not be there any more.

    Errors: UsageError naming what the tenant has instead.
    """
    held = await connections(runtime, checked_tenant(tenant_id))
    for alike in (str, plain):
        for row in held:
            if alike(row.service) == alike(typed):
                return row
    if held:
        names = [row.service for row in held]
        remedy = f"{did_you_mean(typed, names)} It has {listed(names)}.".strip()
        raise UsageError(f"tenant {tenant_id} has no service {typed!r}", code="unknown_service", remedy=remedy)
    remedy = "`avesa services` lists them, `avesa setup-service` adds one."
    raise UsageError(f"there is no tenant {tenant_id}", code="unknown_tenant", remedy=remedy)


async def account_of(runtime: "Runtime", row: "TenantService") -> "Account":
    """The credentials of a connected service. Errors: FatalError where they are gone."""
    from services.extractor.refresh import Account

    try:
        return Account(row.secret, await runtime.secrets.get(row.secret), row.account_id)
    except NotFoundError as err:
        raise FatalError(
            f"the credentials of {row.service} of tenant {row.tenant_id} are gone: no secret {row.secret!r}",
            code="bad_credentials",
            remedy="Store them again with `avesa setup-service`.",
        ) from err


async def connect(runtime: "Runtime", row: "TenantService", credentials: Mapping[str, str]) -> None:
    """Connect, or connect again: the secret first, then the row that names it. Doing it twice does no harm."""
    await runtime.secrets.put(row.secret, credentials)
    await _write(
        runtime,
        row,
        {
            "company_name": row.company_name,
            "tier": row.tier,
            "enabled": row.enabled,
            "secret": row.secret,
            "created_at": row.created_at,
            "updated_at": row.updated_at,
            "status": "ok",
            "status_what": None,
            "status_at": row.updated_at,
        },
    )


async def agree(runtime: "Runtime", row: "TenantService", other: "TenantService") -> None:
    """The same tenant has the same name and tier in all of its rows: those of `other`."""
    values: dict[str, Value] = {"company_name": other.company_name, "tier": other.tier}
    await _write(runtime, row, values, expect={"tenant_id": row.tenant_id})


async def switch(runtime: "Runtime", row: "TenantService", *, enabled: bool) -> None:
    """Pause or resume. Errors: ConflictError when the row is gone."""
    values: dict[str, Value] = {"enabled": enabled, "updated_at": runtime.clock.now()}
    await _write(runtime, row, values, expect={"tenant_id": row.tenant_id})


async def connect_all(runtime: "Runtime", row: "TenantService", *, wanted: bool) -> None:
    """Shall each of a partner's customers, also those to come, be a service? Errors: ConflictError when it is gone."""
    values: dict[str, Value] = {"connect_all": wanted, "updated_at": runtime.clock.now()}
    await _write(runtime, row, values, expect={"tenant_id": row.tenant_id})


def customers_of(row: "TenantService", others: Iterable["TenantService"]) -> "list[TenantService]":
    """The services that a partner's list of customers made."""
    return [other for other in others if other.tenant_id == row.tenant_id and other.partner == row.service]


async def disconnect(runtime: "Runtime", row: "TenantService") -> None:
    """Stop reading, delete the secret, then the row: stopped in between, a second run finds the row and goes on. The
    secret of a partner's customer is the partner's, and stays."""
    await switch(runtime, row, enabled=False)
    own = runtime.names.secret(row.tenant_id, row.service)
    if not row.partner or row.secret == own:
        await runtime.secrets.delete(row.secret or own)
    await runtime.rows.delete(runtime.names.tenant_services, _key(row))


async def _write(
    runtime: "Runtime", row: "TenantService", values: Mapping[str, Value], expect: Mapping[str, Value] | None = None
) -> None:
    await runtime.rows.write(runtime.names.tenant_services, _key(row), values, expect)


def _key(row: "TenantService") -> dict[str, str]:
    return {"tenant_id": row.tenant_id, "service": row.service}
