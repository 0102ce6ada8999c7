"""The services as processes: one by one, as ECS runs them, or all together (`up`)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer

from services.cli.options import MappingsFolder, command
from services.cli.screen import Screen
from services.cli.spelling import service_meant
from services.cli.world import UP_FILE, Place, Up, World, is_meant, open_world, run
from services.contracts.errors import FatalError, UsageError
from services.runtime.loop import install_signals, pause
from services.runtime.mapping_files import load_mappings, table_names
from services.runtime.processes import service_children, stop_children, stop_when_orphaned
from services.runtime.settings import Settings, inherited_environment, own_variables, variable

app = typer.Typer()

UP_FOLDER: Final = Path(".avesa")
SHARDS_MIN: Final = 2
WORKERS_MAX: Final = 8  # of each service on one machine: 24 processes
WATCH_S: Final = 1.0

Note = Callable[[str], None]
Serve = Callable[[World, asyncio.Event], Awaitable[None]]
_Orphan = Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)]


class _Aws(msgspec.Struct, frozen=True):
    """The environment in which children find it, and whether it still runs (another's is not ours to watch)."""

    environment: dict[str, str]
    runs: Callable[[], bool] = lambda: True


# -- one service ------------------------------------------------------------------------------------------------------
@command(app, "extractor", "avesa extractor", "avesa extractor --services connectwise,salesforce")
def extractor(
    screen: Screen,
    place: Place,
    services: Annotated[
        str,
        typer.Option(
            "--services",
            metavar="NAMES",
            help="These services only, parted by commas; connectwise:berlin is one instance, connectwise all.",
        ),
    ] = "",
    mappings: MappingsFolder = None,
    until_stdin_closes: _Orphan = False,
) -> None:
    """Read every connected service, for ever, into the raw stream."""
    files = load_mappings(mappings)
    chosen = [service_meant(name, files.integrations, "--services") for name in services.split(",") if name.strip()]

    async def serve(world: World, stopping: asyncio.Event) -> None:
        from services.extractor.service import run as run_extractor

        await run_extractor(world.runtime, files, stopping, services=chosen, interval_s=world.settings.interval_s)

    _serve(screen, place, serve, until_stdin_closes)


@command(
    app,
    "transformer",
    "avesa transformer",
    "avesa transformer --group tickets --tables tickets",
    "avesa transformer --except-tables tickets",
)
def transformer(  # noqa: PLR0913, PLR0917  each is an option
    screen: Screen,
    place: Place,
    group: Annotated[
        str | None, typer.Option("--group", metavar="NAME", help="A fleet of its own, with positions of its own.")
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option("--tables", metavar="NAMES", help="These tables only, parted by commas; needs a --group."),
    ] = None,
    except_tables: Annotated[
        str | None, typer.Option("--except-tables", metavar="NAMES", help="All tables but these, left to other groups.")
    ] = None,
    fan_out: Annotated[
        bool, typer.Option("--fan-out", help="Be pushed what arrives, out of a throughput of its own (AVESA_FAN_OUT).")
    ] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Start nothing: nobody runs this group any more.")] = False,
    mappings: MappingsFolder = None,
    until_stdin_closes: _Orphan = False,
) -> None:
    """Map and label what the raw stream brings, for ever, into the canonical stream.

    A group bound to some tables has leases, positions, state and failures of its own: docs/scaling.md.
    """
    from services.transformer.groups import bind, remembered
    from services.transformer.groups import forget as forget_group
    from services.transformer.service import Transformer

    binding = bind(group, tables, except_tables, table_names(mappings), fan_out=fan_out)
    if forget:
        run(_at_once(screen, place, lambda world: forget_group(world.runtime, binding.group)))
        return
    files = load_mappings(mappings, binding.routes_table)

    async def serve(world: World, stopping: asyncio.Event) -> None:
        bound = msgspec.structs.replace(binding, fan_out=fan_out or world.settings.fan_out)
        if group is None and except_tables is None:  # as the fleet that names no group was last bound
            held = next(one for one in await remembered(world.runtime) if one.group == bound.group)
            bound = msgspec.structs.replace(held, fan_out=bound.fan_out)
            if held.others:
                screen.note(f"leaving {', '.join(held.others)} to other groups, as before")
        await Transformer(world.runtime, files, binding=bound, gaps=world.settings.gaps).run(stopping)

    _serve(screen, place, serve, until_stdin_closes)


async def _at_once(screen: Screen, place: Place, work: Callable[[World], Awaitable[None]]) -> None:
    async with open_world(place, screen) as world:
        await work(world)


@command(app, "compactor", "avesa compactor")
def compactor(
    screen: Screen, place: Place, mappings: MappingsFolder = None, until_stdin_closes: _Orphan = False
) -> None:
    """Write both streams to the lake, for ever: Parquet by the hour and Iceberg tables."""
    files = load_mappings(mappings)

    async def serve(world: World, stopping: asyncio.Event) -> None:
        from services.compactor.cuts import Rules
        from services.compactor.iceberg import Warehouse
        from services.compactor.service import Compactor

        settings, runtime = world.settings, world.runtime
        rules = Rules(
            spool_age_max_s=settings.spool_age_max_s, cut_age_max_s=settings.cut_age_max_s, gaps=settings.gaps
        )
        warehouse = await runtime.threads.run(Warehouse.on_glue, settings)
        await Compactor(runtime, files.tables, warehouse.history, rules, files.integrations).run(stopping)

    _serve(screen, place, serve, until_stdin_closes)


def _serve(screen: Screen, place: Place, serve: Serve, until_stdin_closes: bool) -> None:
    screen.standing = "What was acknowledged is kept; the next start goes on from there."

    async def work() -> None:
        stopping = asyncio.Event()
        install_signals(stopping)
        if until_stdin_closes:
            stop_when_orphaned()
        async with open_world(place, screen, level="info") as world:
            await serve(world, stopping)

    run(work())


# -- all of them ------------------------------------------------------------------------------------------------------
@command(
    app,
    "up",
    "avesa up",
    "avesa up --interval-s 60",
    "avesa up --workers 3",
    "AWS_ENDPOINT_URL=http://localhost:4566 avesa up",
)
def up(
    screen: Screen,
    place: Place,
    interval_s: Annotated[
        float | None, typer.Option("--interval-s", metavar="SECONDS", min=1, help="Read every endpoint so often.")
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            "--workers", metavar="N", min=1, max=WORKERS_MAX, help="Processes of each service, which share the work."
        ),
    ] = 1,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="PORT", min=1, max=65535, help="Port of the embedded AWS. Default: a free one."),
    ] = None,
    embedded: Annotated[
        bool, typer.Option("--embedded", help="Use the embedded AWS, whatever else is configured.")
    ] = False,
    mappings: MappingsFolder = None,
) -> None:
    """Run all services here until Ctrl-C: on the AWS that is configured, else on an embedded one.

    What the embedded AWS holds lies in .avesa/aws and is there again at the next `avesa up`.
    """
    load_mappings(mappings)  # a mistake is told here, not in three logs
    own = {"AVESA_INTERVAL_S": str(interval_s)} if interval_s else {}
    options = ["--mappings", str(mappings)] if mappings else []
    run(_up(screen, place, own, options, workers, port, embedded))


async def _up(
    screen: Screen,
    place: Place,
    own: Mapping[str, str],
    options: Sequence[str],
    workers: int,
    port: int | None,
    embedded: bool,
) -> None:
    from services.runtime.clock import SystemClock

    stopping = asyncio.Event()
    install_signals(stopping)
    clock, logs = SystemClock(), UP_FOLDER / "logs"
    async with _aws(screen, place, port, embedded, workers) as aws:
        screen.standing = ""
        children = service_children(logs, {**aws.environment, **own}, options, clock, screen.note, workers)
        running = [asyncio.create_task(child.run()) for child in children]
        each = f", {workers} of each," if workers > 1 else ""
        screen.note(f"extractor, transformer and compactor{each} are running; logs in {logs}")
        screen.note("In another terminal: avesa setup-service, avesa status, avesa query 'SELECT ...'. Ctrl-C ends it.")
        while not stopping.is_set() and aws.runs():
            await pause(clock, stopping, WATCH_S)
        died = not aws.runs()
        if died:
            screen.alarm("the embedded AWS has died")
        screen.note("stopping: finishing what is in hand (Ctrl-C again: at once)")
        await stop_children(children, screen.note)
        await asyncio.gather(*running)
    if died:
        raise FatalError(
            "the embedded AWS died", where=str(UP_FOLDER / "aws" / "ministack.log"), remedy="Start `avesa up` again."
        )
    screen.note("stopped")


@asynccontextmanager
async def _aws(screen: Screen, place: Place, port: int | None, embedded: bool, workers: int) -> AsyncIterator[_Aws]:
    """The environment in which children find the AWS that is meant; the embedded one is stopped last."""
    settings = Settings.from_environment(
        environment=place.environment, region=place.region, profile=place.profile or variable("AWS_PROFILE")
    )
    if not embedded and is_meant(settings):
        if port is not None:
            raise UsageError("--port is for the embedded AWS, and another one is configured", remedy="Add --embedded.")
        async with open_world(place, screen):
            screen.note(
                f"using {settings.endpoint_url or 'AWS ' + settings.region}, environment {settings.environment}"
            )
        profile = {"AWS_PROFILE": settings.profile} if settings.profile else {}
        named = {"ENVIRONMENT": settings.environment, "AWS_REGION": settings.region}
        yield _Aws(inherited_environment(**named, **profile))
        return
    from services.runtime.provision import ensure
    from services.sandbox.embedded import EmbeddedAws, embedded_environment

    with screen.working("starting the embedded AWS"):
        aws = await asyncio.to_thread(EmbeddedAws.start, UP_FOLDER / "aws", port=port)
    settings = Settings.embedded(aws.url, environment=place.environment or "dev")
    try:
        await ensure(settings, shards=max(SHARDS_MIN, workers))  # of streams that are not there yet
        UP_FILE.write_bytes(msgspec.json.encode(Up(aws.url, settings.environment)))
        screen.note(f"embedded AWS at {aws.url}; its data lie in {aws.directory} and survive a restart")
        yield _Aws(embedded_environment(settings, **own_variables()), lambda: aws.running)
    finally:
        UP_FILE.unlink(missing_ok=True)
        if not await asyncio.to_thread(aws.stop):
            screen.alarm(f"the embedded AWS could not save everything; see {aws.log_file}")
