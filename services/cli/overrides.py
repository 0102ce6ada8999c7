"""What a tenant wants of a service otherwise than its mapping file says: how often it is read, and which endpoints."""

from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer
from msgspec.structs import replace

from services.cli.ages import rough
from services.cli.connections import connection
from services.cli.options import MappingsFolder, Service, TenantId, command
from services.cli.screen import Screen
from services.cli.spelling import listed, plain
from services.cli.tenants import services
from services.cli.world import Place, open_world, run
from services.contracts.errors import UsageError
from services.contracts.hints import did_you_mean
from services.contracts.integration import Integration
from services.contracts.ports import Value
from services.runtime.mapping_files import find_integration, load_mappings

if TYPE_CHECKING:
    from services.extractor.tenants import Override, TenantService
    from services.runtime.runtime import Runtime

__all__ = ["services"]  # with `set` among its commands

INTERVAL_MIN_S: Final = 1.0
INTERVAL_MAX_S: Final = 30 * 86_400.0
DEFAULT: Final = "default"


class Wish(msgspec.Struct, frozen=True):
    """What is asked for. `interval_s` is None where `default` is, or nothing is said of it (`keeps`)."""

    endpoint: str | None
    interval_s: float | None
    keeps: bool
    enabled: bool | None


class Wanted(msgspec.Struct, frozen=True):
    """How one endpoint, or with `*` a whole service, is read from now on. `interval_s` None: as its file says."""

    tenant_id: str
    service: str
    endpoint: str
    interval_s: float | None
    enabled: bool
    read_for: list[str] = []  # endpoints that hang from one that is switched off, for which it is read all the same


@command(
    services,
    "set",
    "avesa services set --tenant-id acme-msp --service connectwise --endpoint tickets --interval 30",
    "avesa services set --tenant-id acme-msp --service connectwise --endpoint time_sheets --off",
    "avesa services set --tenant-id acme-msp --service connectwise --interval default",
)
def set_(
    screen: Screen,
    place: Place,
    tenant_id: TenantId,
    service: Service,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="ENDPOINT", help="This endpoint; without it the whole service.")
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option("--interval", metavar="SECONDS", help="Read it so often; 'default': as the mapping file says."),
    ] = None,
    enabled: Annotated[bool | None, typer.Option("--on/--off", help="Read it, or read nothing more of it.")] = None,
    mappings: MappingsFolder = None,
) -> None:
    """Set how often a service or one of its endpoints is read for a tenant, or switch it on or off.

    A running extractor heeds it within a minute. What was read stays. An endpoint that others hang from is read as long
    as one of those is.
    """
    if interval is None and enabled is None:
        raise UsageError("nothing is asked for", remedy="Add --interval, --on or --off.")
    wish = Wish(endpoint, _interval_meant(interval), interval is None, enabled)
    integrations = load_mappings(mappings)

    async def work() -> Wanted:
        async with open_world(place, screen) as world:
            row = await connection(world.runtime, tenant_id, service)
            integration = find_integration(integrations, row.service)
            return await _set(world.runtime, row, integration, wish)

    done = run(work())
    if screen.as_json:
        screen.record(done)
    else:
        screen.say(_told(done))


def _interval_meant(text: str | None) -> float | None:
    """Errors: UsageError."""
    if text is None or text == DEFAULT:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not INTERVAL_MIN_S <= seconds <= INTERVAL_MAX_S:
        remedy = f"Seconds, {INTERVAL_MIN_S:.0f} to {INTERVAL_MAX_S:.0f}, or '{DEFAULT}'."
        raise UsageError(f"{text!r} is no interval", where="--interval", remedy=remedy)
    return seconds


async def _set(runtime: "Runtime", row: "TenantService", integration: Integration, wish: Wish) -> Wanted:
    """Errors: UsageError for an endpoint that is not there; ConflictError when the row was changed meanwhile."""
    if wish.endpoint is None:
        interval_s = row.interval_s if wish.keeps else wish.interval_s
        enabled = row.enabled if wish.enabled is None else wish.enabled
        await _write(runtime, row, {"interval_s": _kept(interval_s), "enabled": enabled})
        return Wanted(row.tenant_id, row.service, "*", interval_s, enabled)
    name = _endpoint_meant(wish.endpoint, integration)
    override = _override(row.endpoints.get(name), integration.endpoints[name].enabled, wish)
    overrides = {**row.endpoints, name: override}
    held = {key: _attributes(one) for key, one in overrides.items() if one.interval_s or one.enabled is not None}
    await _write(runtime, row, {"endpoints": held or None})
    enabled = integration.endpoints[name].enabled if override.enabled is None else override.enabled
    wanted = {key for key, one in integration.endpoints.items() if _is_read(one.enabled, overrides.get(key))}
    below = [key for key in sorted(wanted - {name}) if name in _parents(integration, key)]
    return Wanted(row.tenant_id, row.service, name, override.interval_s, enabled, [] if enabled else below)


def _is_read(enabled: bool, override: "Override | None") -> bool:
    """`enabled` is what the file says."""
    return enabled if override is None or override.enabled is None else override.enabled


def _parents(integration: Integration, name: str) -> set[str]:
    """All that an endpoint hangs from, at any depth; validation admits no circle."""
    parent = integration.endpoints[name].parent
    return {parent.endpoint} | _parents(integration, parent.endpoint) if parent is not None else set()


def _override(before: "Override | None", enabled: bool, wish: Wish) -> "Override":
    """The override as it shall be; what the file says anyway needs none. `enabled` is what the file says."""
    from services.extractor.tenants import Override

    found = before or Override()
    if not wish.keeps:
        found = replace(found, interval_s=wish.interval_s)
    if wish.enabled is not None:
        found = replace(found, enabled=None if wish.enabled == enabled else wish.enabled)
    return found


def _attributes(override: "Override") -> dict[str, Value]:
    values: dict[str, Value] = {"interval_s": _kept(override.interval_s), "enabled": override.enabled}
    return {name: value for name, value in values.items() if value is not None}


def _kept(seconds: float | None) -> Value:
    """As a row keeps it: whole, or as text."""
    return None if seconds is None else int(seconds) if seconds == int(seconds) else f"{seconds:g}"


def _endpoint_meant(typed: str, integration: Integration) -> str:
    known = integration.endpoints
    alike = {plain(name): name for name in sorted(known)}
    name = typed if typed in known else alike.get(plain(typed))
    if name is None:
        remedy = f"{did_you_mean(typed, known)} `avesa mapping show {integration.service}` lists them.".strip()
        raise UsageError(f"{integration.title} has no endpoint {typed!r}", where="--endpoint", remedy=remedy)
    return name


async def _write(runtime: "Runtime", row: "TenantService", values: dict[str, Value]) -> None:
    key = {"tenant_id": row.tenant_id, "service": row.service}
    expect: dict[str, Value] = {"tenant_id": row.tenant_id, "updated_at": row.updated_at or None}
    now = runtime.clock.now()
    await runtime.rows.write(runtime.names.tenant_services, key, {**values, "updated_at": now}, expect)


def _told(done: Wanted) -> str:
    name = done.service if done.endpoint == "*" else f"{done.endpoint} of {done.service}"
    if done.read_for:
        hang = "hangs" if len(done.read_for) == 1 else "hang"
        return f"{name} of {done.tenant_id} is still read: {listed(done.read_for)} {hang} from it; switch off those too"
    if not done.enabled:
        return f"{name} of {done.tenant_id} is not read any more; what was read stays"
    often = "as often as its mapping file says" if done.interval_s is None else f"every {rough(done.interval_s)}"
    return f"{name} of {done.tenant_id} is read {often}"
