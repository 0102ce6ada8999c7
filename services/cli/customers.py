"""A partner's customers: which there are (`services customers`), and which of them are read."""

from typing import Annotated

import msgspec
import typer

from services.cli.connections import account_of, connect_all, connection, connections, customers_of
from services.cli.options import MappingsFolder, Service, TenantId, command
from services.cli.overrides import services
from services.cli.screen import Screen
from services.cli.spelling import service_meant
from services.cli.world import Place, open_world, run
from services.contracts.errors import UsageError
from services.contracts.integration import Integration
from services.runtime.mapping_files import load_mappings

__all__ = ["services"]  # with `customers` among its commands


class Reachable(msgspec.Struct, frozen=True):
    """A customer that a partner's credentials reach, and the service that reads it, if it is connected."""

    id: str
    title: str
    service: str = ""
    state: str = "not connected"


@command(
    services,
    "customers",
    "avesa services customers --tenant-id acme-msp --service microsoft_365",
    "avesa services customers --tenant-id acme-msp --service microsoft_365 --connect 0b2f7a3e-1111-4222-8333-4444555",
    "avesa services customers --tenant-id acme-msp --service microsoft_365 --all",
)
def customers(
    screen: Screen,
    place: Place,
    tenant_id: TenantId,
    service: Service,
    connecting: Annotated[
        list[str] | None, typer.Option("--connect", metavar="ID", help="Connect this customer; may be repeated.")
    ] = None,
    every: Annotated[
        bool | None,
        typer.Option("--all/--not-all", help="Connect all customers, also those to come; or none by itself any more."),
    ] = None,
    mappings: MappingsFolder = None,
) -> None:
    """List the customers that a partner's credentials reach, and connect them: each becomes a service of its own."""
    integrations = load_mappings(mappings).integrations
    wish = CustomersWish(tenant_id, service, tuple(connecting or ()), every)
    reachable = run(_customers(screen, place, wish, integrations))
    screen.show(
        reachable,
        {
            "ID": lambda one: one.id,
            "CUSTOMER": lambda one: one.title,
            "SERVICE": lambda one: one.service,
            "STATE": lambda one: one.state,
        },
        empty="these credentials reach no customer",
    )


class CustomersWish(msgspec.Struct, frozen=True):
    """Whose customers, and which of them to connect. `every`: all, also those to come; None: as it was."""

    tenant_id: str
    service: str
    connecting: tuple[str, ...]
    every: bool | None


async def _customers(
    screen: Screen, place: Place, wish: CustomersWish, integrations: dict[str, Integration]
) -> list[Reachable]:
    from services.extractor.partners import connect_customers
    from services.extractor.probe import customers_reached

    async with open_world(place, screen) as world:
        runtime = world.runtime
        row = await connection(runtime, wish.tenant_id, wish.service)
        integration = integrations[service_meant(row.service, integrations).partition(":")[0]]
        if integration.customers is None or row.partner:
            raise UsageError(f"{row.service} of {row.tenant_id} has no customers of its own")
        account = await account_of(runtime, row)
        with screen.working(f"asking {integration.title} for its customers"):
            listed = await customers_reached(runtime, integration, account, service=row.service)
        unknown = [one for one in wish.connecting if one not in {customer.id for customer in listed}]
        if unknown:
            raise UsageError(f"there is no customer {unknown[0]!r}", remedy="Without --connect, all are listed.")
        if wish.every is not None:
            await connect_all(runtime, row, wanted=wish.every)
        chosen = listed if wish.every else [customer for customer in listed if customer.id in wish.connecting]
        if chosen:
            await connect_customers(runtime, row, chosen, ())
        held = {one.account_id: one for one in customers_of(row, await connections(runtime, row.tenant_id))}
    return [
        Reachable(one.id, one.title, there.service, there.status if there.enabled else "paused")
        if (there := held.get(one.id)) is not None
        else Reachable(one.id, one.title)
        for one in listed
    ]
