"""Tenants and their services: connect (`setup-service`), list, pause, resume, remove (`services`), `check`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer
from typer.core import TyperGroup

from services.cli.connections import (
    account_of,
    agree,
    connect,
    connection,
    connections,
    customers_of,
    disconnect,
    everything,
    switch,
)
from services.cli.credentials import asked, from_variables, missing_variables, told_variables, variables_set
from services.cli.options import MappingsFolder, OneService, OneTenant, Service, TenantId, command
from services.cli.screen import Columns, Screen, counted
from services.cli.spelling import listed, plain, service_meant
from services.cli.world import UP_FILE, Place, open_world, run
from services.contracts.errors import FatalError, NotFoundError, RetryableError, UnauthorizedError, UsageError
from services.contracts.hints import did_you_mean
from services.contracts.integration import Integration
from services.contracts.log import STANDARD, TIERS, Tier
from services.contracts.names import Names, checked_tenant
from services.contracts.times import UtcTime
from services.runtime.mapping_files import load_mappings
from services.runtime.settings import variable

if TYPE_CHECKING:
    from services.extractor.tenants import Connected, TenantService
    from services.runtime.runtime import Runtime

app = typer.Typer()


# -- setup-service ----------------------------------------------------------------------------------------------------
class Setup(msgspec.Struct, frozen=True):
    """What `setup-service` did, or with `dry_run` would do."""

    tenant_id: str
    service: str
    company_name: str
    secret: str
    new_tenant: bool
    replaced: bool
    enabled: bool
    dry_run: bool


@command(
    app,
    "setup-service",
    "avesa setup-service --tenant-id acme-msp --company-name 'Acme MSP' --service connectwise",
    "CONNECTWISE_API_URL=... avesa setup-service --tenant-id acme-msp --service connectwise",
)
def setup_service(
    screen: Screen,
    place: Place,
    tenant_id: TenantId,
    service: Service,
    company_name: Annotated[
        str | None, typer.Option("--company-name", metavar="TEXT", help="What people call the tenant.")
    ] = None,
    tier: Annotated[
        str | None,
        typer.Option("--tier", metavar="TIER", help=f"What the tenant was promised: {listed(TIERS)}; else as it was."),
    ] = None,
    mappings: MappingsFolder = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Ask and prove the credentials, store nothing.")] = False,
) -> None:
    """Connect a service to a tenant, or renew its credentials.

    A tenant that is not there yet is created. Credentials are read from {SERVICE}_{FIELD} variables, which
    `avesa mapping show SERVICE` lists, else asked for; `@path` is what a file holds, such as a private key. One call to
    the service proves them before anything is stored; only a refresh token that can be used once is spent by that, and
    the one that comes for it is stored at once.
    """
    tenant_id, promised = checked_tenant(tenant_id), None if tier is None else tier_meant(tier)
    integrations = load_mappings(mappings).integrations
    service = service_meant(service, integrations)
    integration = integrations[service.partition(":")[0]]
    found = from_variables(service, integration, variable)
    unasked = missing_variables(service, integration, found)
    if unasked is not None and not sys.stdin.isatty():
        raise unasked
    if found:
        screen.note(told_variables(service, variables_set(service, integration, variable)))
    screen.standing = "Nothing was stored."
    if unasked is not None:  # before anybody types five credentials in vain
        run(_look(place, screen, create=not dry_run))
    credentials = asked(integration, found, screen)
    wanted = Wanted(tenant_id, service, company_name, promised, integration, credentials, dry_run)
    done = run(_connect(place, screen, wanted))
    _show_connected(screen, done, integration, place, mappings)


def tier_meant(typed: str) -> Tier:
    """Errors: UsageError."""
    for tier in TIERS:
        if plain(tier) == plain(typed):
            return tier
    remedy = f"{did_you_mean(typed, TIERS)} There are {listed(TIERS)}.".strip()
    raise UsageError(f"there is no tier {typed!r}", where="--tier", remedy=remedy)


class Wanted(msgspec.Struct, frozen=True):
    """What the user of `setup-service` asks for."""

    tenant_id: str
    service: str
    company_name: str | None
    tier: Tier | None
    integration: Integration
    credentials: Mapping[str, str]
    dry_run: bool

    def __repr__(self) -> str:
        return f"Wanted({self.tenant_id}, {self.service})"  # never the credentials


async def _look(place: Place, screen: Screen, create: bool) -> None:
    async with open_world(place, screen, create=create):
        pass


async def _connect(place: Place, screen: Screen, wanted: Wanted) -> Setup:
    async with open_world(place, screen, create=not wanted.dry_run) as world:
        runtime = world.runtime
        others = await connections(runtime, wanted.tenant_id)
        before = next((row for row in others if row.service == wanted.service), None)
        with screen.working(f"proving the credentials with one call to {wanted.integration.title}"):
            proven = await _prove(runtime, screen, wanted, world.settings.names)
        if before is not None:
            await _warn_of_another_account(runtime, screen, wanted, before.secret)
        after = _row(wanted, before, others, runtime.clock.now(), world.settings.names)
        if not wanted.dry_run:
            screen.standing = "The new credentials may be stored already; run the command again, it does no harm."
            await connect(runtime, after, proven)
            for row in others:
                said = (row.company_name, row.tier)
                if row.service != after.service and said != (after.company_name, after.tier):
                    await agree(runtime, row, after)
    return Setup(
        after.tenant_id,
        after.service,
        after.company_name,
        after.secret,
        new_tenant=not others,
        replaced=before is not None,
        enabled=after.enabled,
        dry_run=wanted.dry_run,
    )


async def _warn_of_another_account(runtime: "Runtime", screen: Screen, wanted: Wanted, secret: str) -> None:
    """What is not secret tells whose account it is: two under one name would become one in the lake."""
    try:
        former = await runtime.secrets.get(secret)
    except NotFoundError:
        return
    fields = wanted.integration.credentials
    differ = [
        fields[name].title
        for name, value in wanted.credentials.items()
        if not fields[name].secret and former.get(name, value) != value
    ]
    if differ:
        screen.note(
            f"Another than before: {listed(differ)}. Of another account the records would mix with the former one's: "
            f"then remove the service first, or connect it under a name of its own, {wanted.integration.service}:NAME."
        )


async def _prove(runtime: "Runtime", screen: Screen, wanted: Wanted, names: Names) -> dict[str, str]:
    """What has to be stored. Errors: as `probe.prove`, in words for somebody who has just typed them."""
    from services.extractor.probe import prove, spends

    title, service = wanted.integration.title, wanted.service
    if spends(wanted.integration, wanted.credentials) and not wanted.dry_run:
        screen.standing = "The refresh token may be spent and the next one stored: run the command again as it was."
    secret = None if wanted.dry_run else names.secret(wanted.tenant_id, service)
    try:
        return await prove(runtime, wanted.integration, wanted.credentials, service=service, secret=secret)
    except UnauthorizedError as err:
        remedy = f"Check them; `avesa mapping show {wanted.integration.service}` says where to find each."
        raise UnauthorizedError(f"{title} refuses these credentials", where=err.what, remedy=remedy) from err
    except (NotFoundError, RetryableError) as err:
        remedy = "Check the address and the network; the credentials could not be tried."
        raise FatalError(f"{title} cannot be asked", code=err.code, where=err.what, remedy=remedy) from err


def _row(
    wanted: Wanted, before: "TenantService | None", others: "list[TenantService]", now: UtcTime, names: Names
) -> "TenantService":
    """The row to be written: what was there stays, the rest is new."""
    from services.extractor.tenants import TenantService

    named = next((row.company_name for row in others if row.company_name), wanted.tenant_id)
    return TenantService(
        wanted.tenant_id,
        wanted.service,
        company_name=wanted.company_name or named,
        enabled=before.enabled if before is not None else True,
        secret=names.secret(wanted.tenant_id, wanted.service),
        created_at=(before.created_at if before is not None else "") or now,
        updated_at=now,
        tier=wanted.tier or (others[0].tier if others else STANDARD),
    )


def _show_connected(screen: Screen, done: Setup, integration: Integration, place: Place, mappings: Path | None) -> None:
    if screen.as_json:
        screen.record(done)
        return
    tenant = f"the new tenant {done.tenant_id} ({done.company_name})" if done.new_tenant else f"tenant {done.tenant_id}"
    there = f" --environment {place.environment}" if place.environment else ""
    own = f" --mappings {quote(str(mappings))}" if mappings is not None else ""
    named = f" --tenant-id {done.tenant_id} --service {done.service}{there}"
    if done.dry_run:
        would = "would be replaced" if done.replaced else "would be stored"
        screen.say(f"{integration.title} accepts the credentials; they {would} for {tenant}.")
        screen.say("Nothing was written (--dry-run).")
        return
    if done.replaced:
        screen.say(f"{integration.title} accepts the credentials; those of {tenant} are replaced.")
    else:
        screen.say(f"{integration.title} accepts the credentials; {done.service} is connected to {tenant}.")
    screen.say("Next:")
    if not done.enabled:
        screen.say(f"  avesa services resume{named}   (it is paused)")
    screen.say(f"  avesa check{named}{own}")
    if integration.customers is not None:
        screen.say(f"  avesa services customers{named}{own}   (those that these credentials reach)")
    if UP_FILE.exists():
        started = f", if it was started with{own}" if own else ""
        screen.say(f"  (`avesa up` runs here and begins to read it within a minute{started})")
    else:
        screen.say(f"  avesa run --once --tenant-id {done.tenant_id}{there}{own}")
    screen.say(f"  avesa status{there}{own}")


# -- services ---------------------------------------------------------------------------------------------------------
class _ListByDefault(TyperGroup):
    """`avesa services --tenant-id acme` is `avesa services list --tenant-id acme`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


services = typer.Typer(
    cls=_ListByDefault, help="Connected services: list (the default), pause, resume, remove, customers."
)

COLUMNS: "Columns[TenantService]" = {
    "TENANT": lambda row: row.tenant_id,
    "COMPANY": lambda row: row.company_name,
    "SERVICE": lambda row: row.service,
    "STATE": lambda row: row.status if row.enabled else "paused",
    "SINCE": lambda row: row.created_at[:10],
    "WHY": lambda row: row.status_what,
}


@command(services, "list", "avesa services", "avesa services list --tenant-id acme-msp")
def list_(
    screen: Screen,
    place: Place,
    tenant_id: OneTenant = None,
    service: OneService = None,
) -> int:
    """List which services are connected to which tenants."""

    async def read() -> "Connected":
        async with open_world(place, screen) as world:
            return await everything(world.runtime)

    found = run(read())
    rows = [
        row
        for row in found.services
        if tenant_id in (None, row.tenant_id) and (service is None or plain(service) == plain(row.service))
    ]
    screen.show(rows, COLUMNS, empty="no such service is connected: `avesa setup-service --help` says how")
    for unreadable in found.unreadable:
        screen.alarm(f"unreadable: {unreadable}")
    return 3 if found.unreadable else 0


@command(services, "pause", "avesa services pause --tenant-id acme-msp --service connectwise")
def pause(
    screen: Screen,
    place: Place,
    tenant_id: TenantId,
    service: Service,
) -> None:
    """Read nothing more of a service until it is resumed; what was read stays."""
    _switch(screen, place, tenant_id, service, enabled=False)


@command(services, "resume", "avesa services resume --tenant-id acme-msp --service connectwise")
def resume(
    screen: Screen,
    place: Place,
    tenant_id: TenantId,
    service: Service,
) -> None:
    """Read a paused service again, from where it stopped."""
    _switch(screen, place, tenant_id, service, enabled=True)


def _switch(screen: Screen, place: Place, tenant_id: str, service: str, *, enabled: bool) -> None:
    async def work() -> "TenantService":
        async with open_world(place, screen) as world:
            row = await connection(world.runtime, tenant_id, service)
            await switch(world.runtime, row, enabled=enabled)
            return msgspec.structs.replace(row, enabled=enabled)

    row = run(work())
    if screen.as_json:
        screen.record(row)
    else:
        screen.say(f"{row.service} of {row.tenant_id} is {'read again' if enabled else 'paused'}")


@command(services, "remove", "avesa services remove --tenant-id acme-msp --service connectwise")
def remove(
    screen: Screen,
    place: Place,
    tenant_id: TenantId,
    service: Service,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Disconnect a service and delete its credentials; what was read stays in the lake."""
    if not yes and not sys.stdin.isatty():
        raise UsageError("this deletes credentials, and there is no terminal to ask at", remedy="Add --yes.")
    screen.standing = "Nothing was removed."
    if not yes:
        typer.confirm(f"Disconnect {service} from {tenant_id} and delete its credentials?", abort=True, err=True)
    gone = run(_remove(place, screen, tenant_id, service))
    if screen.as_json:
        screen.record(gone)
    else:
        screen.say(f"{gone.service} is disconnected from {gone.tenant_id}; its data stays in the lake")


async def _remove(place: Place, screen: Screen, tenant_id: str, service: str) -> "TenantService":
    """A partner goes with its customers, which live on its credentials."""
    async with open_world(place, screen) as world:
        row = await connection(world.runtime, tenant_id, service)
        customers = customers_of(row, await connections(world.runtime, tenant_id))
        screen.standing = "It may be removed in part: run the command again to finish."
        for customer in customers:
            await disconnect(world.runtime, customer)
        await disconnect(world.runtime, row)
    if customers:
        screen.note(f"{counted(len(customers), 'customer')} of it went with it")
    if row.partner:
        screen.note(f"if {row.partner} connects all of its customers, this one comes back: pause it instead")
    return row


# -- check ------------------------------------------------------------------------------------------------------------
class Reached(msgspec.Struct, frozen=True):
    """What came of asking an endpoint for one record. `state`: `ok`, `not available` (the customer does not have it),
    `forbidden`, `not found`, `slow` or `failed`; `permission` is what the credentials lack."""

    endpoint: str
    state: str
    table: str | None
    why: str
    permission: str = ""


_AVAILABLE: Final = ("ok", "not available")
_STATES: Final = {
    "": "ok",
    "not_available": "not available",
    "forbidden": "forbidden",
    "not_found": "not found",
    "timeout": "slow",
    "throttled": "slow",
}


@command(app, "check", "avesa check --tenant-id acme-msp --service connectwise")
def check(screen: Screen, place: Place, tenant_id: TenantId, service: Service, mappings: MappingsFolder = None) -> int:
    """Try the credentials of a connected service on each of its endpoints.

    Exit code 1 if they are refused, 3 if some endpoints are unavailable.
    """
    integrations = load_mappings(mappings).integrations
    reached = run(_check(screen, place, tenant_id, service, integrations))
    screen.show(
        reached,
        {
            "ENDPOINT": lambda one: one.endpoint,
            "STATE": lambda one: one.state,
            "TABLE": lambda one: one.table or "(raw only)",
            "WHY": lambda one: one.why,
        },
    )
    missed = [one for one in reached if one.state not in _AVAILABLE]
    screen.note(f"{sum(one.state == 'ok' for one in reached)} of {counted(len(reached), 'endpoint')} can be read")
    return 3 if missed else 0


async def _check(
    screen: Screen, place: Place, tenant_id: str, typed: str, integrations: dict[str, Integration]
) -> list[Reached]:
    from services.extractor import probe

    async with open_world(place, screen) as world:
        row = await connection(world.runtime, tenant_id, typed)
        integration = integrations[service_meant(row.service, integrations).partition(":")[0]]
        account = await account_of(world.runtime, row)
        with screen.working(f"asking each endpoint of {integration.title} for one record"):
            found = await probe.check(world.runtime, integration, account, service=row.service)
    endpoints = integration.endpoints
    return [
        Reached(
            one.endpoint,
            _STATES.get(one.code, "failed"),
            mapping.table if (mapping := endpoints[one.endpoint].canonical) is not None else None,
            one.what,
            one.permission,
        )
        for one in found
    ]
