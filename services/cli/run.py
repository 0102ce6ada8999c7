"""`avesa run --once`: everything that is due, from the vendors to the lake, in this one process; then done."""

from typing import Annotated

import msgspec
import typer

from services.cli.options import MappingsFolder, OneService, OneTenant, command
from services.cli.screen import Screen, counted
from services.cli.world import Place, World, open_world, run
from services.contracts.errors import UsageError
from services.contracts.mapping_files import MappingFiles
from services.extractor.summary import EndpointSummary, Summary
from services.runtime.mapping_files import load_mappings

app = typer.Typer()
DONE, FAILED, IN_PART = 0, 1, 3


class Choice(msgspec.Struct, frozen=True):
    """What a run is about; None: everything."""

    tenant_id: str | None = None
    service: str | None = None
    endpoint: str | None = None
    sweep: bool = True


class Outcome(msgspec.Struct, frozen=True):
    """What a run did. `files` and `rows_written` count Parquet files and rows of version tables."""

    endpoints: tuple[EndpointSummary, ...]
    published: int
    deleted: int
    transformed: int
    rejected: int
    files: int
    rows_written: int
    exit_code: int


@command(
    app,
    "run",
    "avesa run --once",
    "avesa run --once --tenant-id acme-msp --service connectwise --endpoint tickets",
)
def run_command(
    screen: Screen,
    place: Place,
    once: Annotated[bool, typer.Option("--once", help="One round, then end. (Without end: avesa up.)")] = False,
    tenant_id: OneTenant = None,
    service: OneService = None,
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="NAME", help="This endpoint only, such as tickets.")
    ] = None,
    no_sweep: Annotated[bool, typer.Option("--no-sweep", help="Do not look for deleted records.")] = False,
    mappings: MappingsFolder = None,
) -> int:
    """Read what is new, transform it, merge it into the lake, and end.

    Exit codes: 0 complete; 3 done, but some endpoints were not available or some records could not be
    used (listed); 1 failed.
    """
    if not once:
        raise UsageError(
            "run needs --once", remedy="Without an end: `avesa up`, or one service such as `avesa extractor`."
        )
    files = load_mappings(mappings)
    choice = Choice(tenant_id, service, endpoint, sweep=not no_sweep)
    screen.standing = "What was read and stored is kept; run it again and it goes on from there."
    outcome = run(_run(screen, place, files, choice))
    _show(screen, outcome)
    return outcome.exit_code


async def _run(screen: Screen, place: Place, files: MappingFiles, choice: Choice) -> Outcome:
    async with open_world(place, screen) as world:
        return await run_round(world, files, choice, screen)


async def run_round(world: World, files: MappingFiles, choice: Choice, screen: Screen) -> Outcome:
    """One round of the whole pipeline. Errors: FatalError `already_running` where another worker is at work."""
    from services.compactor.cuts import Rules
    from services.compactor.iceberg import Warehouse
    from services.compactor.service import Compactor
    from services.extractor.service import run_once
    from services.transformer.groups import remembered
    from services.transformer.service import Transformer

    runtime = world.runtime
    with screen.working("reading from the vendors") as tell:
        summary = await run_once(
            runtime,
            files,
            choice.tenant_id,
            choice.service,
            choice.endpoint,
            choice.sweep,
            watch=lambda one: tell(f"{one.tenant_id} {one.service} {one.endpoint}, {one.read} read"),
        )
    with screen.working("transforming"):
        gaps, groups = world.settings.gaps, await remembered(runtime)
        transformers = [Transformer(runtime, files, binding=group, gaps=gaps) for group in groups]
        transformed = [await one.drain() for one in transformers]
    with screen.working("writing to the lake"):
        warehouse = await runtime.threads.run(Warehouse.on_glue, world.settings)
        compactor = Compactor(runtime, files.tables, warehouse.history, Rules(gaps=gaps), files.integrations)
        written = await compactor.drain()
        healing = await compactor.heal()
        if healing.events:  # what had expired unread was published again
            transformed += [await one.drain() for one in transformers]
            written = await compactor.drain()
    for gap, why in healing.waiting.items():
        screen.note(f"what expired unread is not read again yet ({gap}): {why}")
    rejected = sum(group.rejected for group in transformed) + written.rejected
    return Outcome(
        summary.endpoints,
        summary.published,
        summary.deleted,
        sum(group.events for group in transformed),
        sum(endpoint.rejected for endpoint in summary.endpoints) + rejected,
        written.files,
        written.rows_written,
        IN_PART if healing.waiting else _exit_code(summary, rejected),
    )


def _exit_code(summary: Summary, rejected: int) -> int:
    if summary.complete:
        return IN_PART if rejected or any(endpoint.rejected for endpoint in summary.endpoints) else DONE
    return IN_PART if len(summary.failed) < len(summary.endpoints) else FAILED


def _show(screen: Screen, outcome: Outcome) -> None:
    if screen.as_json:
        screen.record(outcome)
        return
    screen.show(
        outcome.endpoints,
        {
            "tenant": lambda one: one.tenant_id,
            "service": lambda one: one.service,
            "endpoint": lambda one: one.endpoint,
            "calls": lambda one: one.calls,
            "read": lambda one: one.read,
            "published": lambda one: one.published,
            "deleted": lambda one: one.deleted,
            "rejected": lambda one: one.rejected,
            "result": lambda one: f"{one.code}: {one.what}" if one.code else "ok",
        },
        empty="no service is connected: begin with `avesa setup-service`",
    )
    screen.say(
        f"{counted(outcome.published, 'change')} published ({outcome.deleted} of them deletes), "
        f"{counted(outcome.transformed, 'event')} transformed, {counted(outcome.files, 'file')} and "
        f"{counted(outcome.rows_written, 'table row')} written"
    )
    if outcome.rejected:
        screen.alarm(f"{counted(outcome.rejected, 'record')} could not be used and wait among the dead letters")
