"""`avesa replay`: what was read once, through the pipeline again. So far: a table made again from the raw archive, and
what waited of parked partitions."""

import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from services.cli.options import MappingsFolder, OneService, OneTenant, command
from services.cli.screen import Screen, counted
from services.cli.spelling import service_meant
from services.cli.world import Place, open_world, run
from services.contracts.errors import FatalError, UsageError
from services.contracts.hints import did_you_mean
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import checked_tenant
from services.runtime.mapping_files import load_mappings

if TYPE_CHECKING:
    from services.cli.rebuilding import Plan, Rebuilder, Rebuilt
    from services.runtime.runtime import Runtime
    from services.transformer.parking import Parked, Released

app = typer.Typer()
DONE, FAILED, IN_PART = 0, 1, 3
NOTHING_DONE: Final = "Nothing was changed."


class Source(StrEnum):
    """Where what is replayed comes from."""

    raw = "raw"
    stream = "stream"
    dead_letters = "dead-letters"
    parked = "parked"


class Choice(msgspec.Struct, frozen=True):
    """What a rebuild is about; None: everything."""

    table: str
    tenant_id: str | None = None
    service: str | None = None
    dry_run: bool = False
    ask: bool = False


class Planned(msgspec.Struct, frozen=True):
    """One service that feeds a table: the number of the mapping in force, that of the rebuild, what waits for it."""

    tenant_id: str
    table: str
    service: str
    mapping: int | None
    becomes: int
    waits: str
    raw_events: int | None = None


@command(
    app,
    "replay",
    "avesa replay --from raw --table tickets --rebuild --dry-run",
    "avesa replay --from raw --table tickets --rebuild --tenant-id acme-msp",
    "avesa replay --from parked --tenant-id acme-msp --dry-run",
)
def replay(  # noqa: PLR0913, PLR0917  each is an option
    screen: Screen,
    place: Place,
    source: Annotated[
        Source, typer.Option("--from", help="Where it comes from; so far raw, the raw archive, and parked.")
    ],
    table: Annotated[str | None, typer.Option("--table", metavar="TABLE", help="The canonical table.")] = None,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Make the table again, with the mapping as the files have it now.")
    ] = False,
    tenant_id: OneTenant = None,
    service: OneService = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    mappings: MappingsFolder = None,
) -> int:
    """Make a table again from everything that was ever read, with the mapping as the files have it now.

    For changes of a mapping that wait (avesa status names them). Readers see the old table until the new one is
    there, whole. Services may run meanwhile, with the same mapping files: it then takes a quarter of an hour before
    it begins, because all of them must notice. With --service only its mapping changes; the others are made again
    with the one they have. Stopped anywhere, run it again.

    --from parked releases what avesa status lists as parked: so much of it could not be used that the rest was set
    aside, whole and in order. Mend the mapping first, or it is parked again. It takes two or three minutes.

    Exit codes: 0 done; 3 done, but some records could not be used or some tenants failed (listed); 1 failed.
    """
    if source is Source.parked:
        if tenant_id is None or table is not None or rebuild:
            raise UsageError(
                "what is parked is released by tenant, all tables of it",
                remedy="avesa replay --from parked --tenant-id TENANT [--service SERVICE] [--dry-run]",
            )
        service = service_meant(service, load_mappings(mappings).integrations) if service else None
        return run(_release(screen, place, checked_tenant(tenant_id), service, dry_run=dry_run))
    files = load_mappings(mappings)
    choice = _checked(files, source, table, rebuild, Choice("", tenant_id, service, dry_run, ask=not yes))
    screen.standing = NOTHING_DONE
    return run(_replay(screen, place, files, choice))


def _checked(files: MappingFiles, source: Source, table: str | None, rebuild: bool, choice: Choice) -> Choice:
    """Errors: UsageError for what is not there yet, or was misspelt."""
    if source is not Source.raw or not rebuild:
        asked = f"--from {source.value}" + (" without --rebuild" if source is Source.raw else "")
        raise UsageError(
            f"replay {asked} is not there yet",
            remedy="So far a table is made again: avesa replay --from raw --table TABLE --rebuild",
        )
    if table is None or table not in files.tables:
        known = f"Known: {', '.join(sorted(files.tables))}."
        what = "replay --rebuild needs a --table" if table is None else f"there is no canonical table {table!r}"
        hint = did_you_mean(table, files.tables) if table else ""
        raise UsageError(what, code="unknown_table", remedy=hint or known)
    if choice.tenant_id is not None:
        checked_tenant(choice.tenant_id)
    service = service_meant(choice.service, files.integrations) if choice.service else None
    if choice.ask and not choice.dry_run and not sys.stdin.isatty():
        raise UsageError(
            "this changes which mapping is in force, and there is no terminal to ask at",
            remedy="Look with --dry-run first, then add --yes.",
        )
    return msgspec.structs.replace(choice, table=table, service=service)


async def _replay(screen: Screen, place: Place, files: MappingFiles, choice: Choice) -> int:
    from services.cli.rebuilding import Rebuilder
    from services.compactor.iceberg import Warehouse

    async with open_world(place, screen, create=not choice.dry_run) as world:
        runtime = world.runtime
        warehouse = await runtime.threads.run(Warehouse.on_glue, world.settings)
        rebuilder = Rebuilder(runtime, warehouse, files, choice.table, choice.service, screen)
        return await replayed(screen, rebuilder, choice)


async def replayed(screen: Screen, rebuilder: "Rebuilder", choice: Choice) -> int:
    """Plan, show or ask, do, and show what was done."""
    with screen.working("comparing mappings") as tell:
        plans = await rebuilder.plans(choice.tenant_id)
        planned = [_planned(choice.table, plan) for plan in plans]
        if choice.dry_run:
            for plan, some in zip(plans, planned, strict=True):
                for place, feed in enumerate(plan.feeds):
                    tell(f"{plan.tenant_id} {feed.service}")
                    some[place] = msgspec.structs.replace(
                        some[place], raw_events=await rebuilder.count(plan.tenant_id, feed)
                    )
    if not plans:
        whose = f"tenant {choice.tenant_id}" if choice.tenant_id else "any tenant"
        what = f"no service of {whose} feeds table {choice.table}"
        raise UsageError(what, code="unknown_tenant", remedy="`avesa services` lists what is connected.")
    for plan in plans:
        _ = plan.table  # services that contradict each other are told before anything is done
    if choice.dry_run or choice.ask:
        _show_plans(screen, [one for some in planned for one in some])
    if choice.dry_run:
        return DONE
    if choice.ask:
        typer.confirm(f"Rebuild {choice.table} of {counted(len(plans), 'tenant')}?", abort=True, err=True)
    outcomes = await rebuilder.rebuild(plans)
    _show(screen, outcomes)
    return _exit_code(outcomes)


def _planned(table: str, plan: "Plan") -> list[Planned]:
    return [
        Planned(
            plan.tenant_id,
            table,
            feed.service,
            feed.held.mapping_version if feed.held else None,
            feed.wanted.mapping_version,
            feed.waits,
        )
        for feed in plan.feeds
    ]


def _show_plans(screen: Screen, planned: Sequence[Planned]) -> None:
    screen.show(
        planned,
        {
            "tenant": lambda one: one.tenant_id,
            "service": lambda one: one.service,
            "mapping": lambda one: one.mapping,
            "becomes": lambda one: one.becomes,
            "raw events": lambda one: one.raw_events,
            "waits": lambda one: one.waits or "nothing",
        },
    )


def _show(screen: Screen, outcomes: Sequence["Rebuilt"]) -> None:
    failed = [one for one in outcomes if one.code]
    if len(outcomes) == len(failed) == 1:
        raise FatalError(failed[0].what, code=failed[0].code or None, where=failed[0].tenant_id)
    screen.show(
        outcomes,
        {
            "tenant": lambda one: one.tenant_id,
            "table": lambda one: one.table,
            "mapping": lambda one: ", ".join(f"{service} {number}" for service, number in one.mappings.items()),
            "raw events": lambda one: one.events,
            "versions before": lambda one: one.versions_before,
            "versions": lambda one: one.versions,
            "dead letters": lambda one: one.rejected,
            "seconds": lambda one: one.seconds,
            "result": lambda one: f"{one.code}: {one.what}" if one.code else "in part" if one.rejected else "ok",
        },
    )
    rejected = sum(one.rejected for one in outcomes)
    if rejected:
        screen.alarm(f"{counted(rejected, 'record')} could not be used and wait among the dead letters")


def _exit_code(outcomes: Sequence["Rebuilt"]) -> int:
    if all(one.code for one in outcomes):
        return FAILED
    return IN_PART if any(one.code or one.rejected for one in outcomes) else DONE


# -- what is parked ---------------------------------------------------------------------------------------------------
async def _release(screen: Screen, place: Place, tenant_id: str, service: str | None, *, dry_run: bool) -> int:
    async with open_world(place, screen, create=not dry_run) as world:
        return await released(screen, world.runtime, tenant_id, service, dry_run=dry_run)


async def released(
    screen: Screen, runtime: "Runtime", tenant_id: str, service: str | None, *, dry_run: bool = False
) -> int:
    """Let what is parked of a tenant go on, or with `dry_run` list it."""
    from services.transformer.parking import parked, release

    waiting = await parked(runtime, tenant_id, service)
    if dry_run or not waiting:
        _show_parked(screen, waiting)
        return DONE
    screen.standing = "What was not sent yet still waits: run it again."
    with screen.working(f"releasing {counted(len(waiting), 'partition')}") as tell:
        done = await release(runtime, waiting, tell)
    _show_released(screen, done)
    return IN_PART if any(one.again for one in done) else DONE


def _show_parked(screen: Screen, waiting: Sequence["Parked"]) -> None:
    screen.show(
        waiting,
        {
            "partition": lambda one: one.partition.text,
            "group": lambda one: one.consumer,
            "since": lambda one: one.since,
            "envelopes": lambda one: one.envelopes,
            "why": lambda one: one.reason or "released, and not to the end",
        },
        empty="Nothing is parked.",
    )


def _show_released(screen: Screen, done: Sequence["Released"]) -> None:
    screen.show(
        done,
        {
            "partition": lambda one: one.parked.partition.text,
            "group": lambda one: one.parked.consumer,
            "envelopes": lambda one: one.envelopes,
            "result": lambda one: "parked again" if one.again else "ok",
        },
    )
    again = sum(one.again for one in done)
    if again:
        screen.alarm(f"{counted(again, 'partition')} went beyond the budget of dead letters again: mend the mapping")
