"""`avesa status`: is everything up to date, and if not, what is wrong and what to do."""

import shlex
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Final

import typer

from services.cli.ages import ago, rough
from services.cli.letters import Letters
from services.cli.options import MappingsFolder, OneTenant, command
from services.cli.screen import Columns, Screen, counted, size_shown
from services.cli.stages import Life, Stage
from services.cli.standing import EndpointStanding, ServiceStanding, State
from services.cli.verdict import Seen, Verdict, judge
from services.cli.world import Place, World, open_world, run
from services.contracts.errors import RetryableError
from services.contracts.mapping_files import MappingFiles
from services.contracts.times import UtcTime, seconds_between
from services.runtime.mapping_files import load_mappings

if TYPE_CHECKING:
    from services.compactor.upkeep import Upkeep

app = typer.Typer()

WATCH_S: Final = 2.0
CLEAR: Final = "\x1b[H\x1b[2J"  # ECMA-48: cursor home, erase display
OWNER_CHARS: Final = 8  # of a worker's name; --json has it whole
UNTROUBLED: Final[frozenset[State]] = frozenset({"up to date", "reading", "paused"})


@command(
    app, "status", "avesa status", "avesa status --tenant-id acme-msp", "avesa status --watch", "avesa status --tables"
)
def status(
    screen: Screen,
    place: Place,
    tenant_id: OneTenant = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every 2 s until Ctrl-C; shows which owners live.")
    ] = False,
    tables: Annotated[
        bool, typer.Option("--tables", help="Also show how the tables of the lake stand (a request or two a table).")
    ] = False,
    mappings: MappingsFolder = None,
) -> int:
    """Show whether everything is up to date, and if not what is wrong and what to do about it.

    Exit codes: 0 nothing needs a person, 3 something does. With --tenant-id every endpoint of that tenant is shown.
    """
    options = f" --mappings {shlex.quote(str(mappings))}" if mappings else ""
    return run(_status(screen, place, load_mappings(mappings), tenant_id, watch, tables, options))


async def _status(
    screen: Screen, place: Place, files: MappingFiles, tenant_id: str | None, watch: bool, tables: bool, options: str
) -> int:
    from asyncio import CancelledError

    from services.cli.looks import Observer

    async with open_world(place, screen, create=False) as world:
        observer = Observer(world, files, tenant_id)
        options += f" --environment {world.settings.names.environment}"
        seen = await observer.look()
        code = _show(screen, world, seen, every=tenant_id is not None, options=options)
        if tables:
            await _show_tables(screen, world, tenant_id, seen.at)
        try:
            while watch:
                await world.runtime.clock.sleep(WATCH_S)
                try:
                    seen = await observer.look()
                except RetryableError as err:
                    screen.note(f"no answer: {err}")
                    continue
                code = _show(screen, world, seen, every=tenant_id is not None, options=options, again=True)
        except CancelledError:  # Ctrl-C is how watching ends
            screen.note("")
        return code


async def _show_tables(screen: Screen, world: World, tenant_id: str | None, now: UtcTime) -> None:
    from services.compactor.iceberg import Warehouse

    threads = world.runtime.threads
    with screen.working("looking at the tables"):
        warehouse = await threads.run(Warehouse.on_glue, world.settings)
        tenants = await threads.run(warehouse.tenants) if tenant_id is None else [tenant_id]
        found = [one for tenant in tenants for one in await threads.run(warehouse.upkeep, tenant)]
    screen.say()
    screen.show(found, _table_columns(now), empty="the lake holds no table yet")


def _show(screen: Screen, world: World, seen: Seen, *, every: bool, options: str, again: bool = False) -> int:
    verdict = judge(seen, f"s3://{world.settings.names.bucket}", options)
    if screen.as_json:
        _show_records(screen, seen, verdict)
    else:
        if again:
            screen.out.write(CLEAR if screen.out.isatty() else "\n")
        _show_people(screen, seen, verdict, every)
    screen.out.flush()
    return verdict.exit_code


def _show_records(screen: Screen, seen: Seen, verdict: Verdict) -> None:
    """The verdict with its troubles first, then everything that was seen; each says its `kind`."""
    screen.record(verdict)
    for service, endpoints in seen.services:
        for record in (service, *endpoints):
            screen.record(record)
    for record in (*seen.stages, *seen.letters, *seen.held):
        screen.record(record)


def _show_people(screen: Screen, seen: Seen, verdict: Verdict, every: bool) -> None:
    _show_verdict(screen, verdict)
    if seen.services:
        screen.say()
        screen.show([service for service, _ in seen.services], _service_columns(seen.at))
    for service, endpoints in seen.services:
        mixed = len(service.endpoints) > 1  # one state of all is told by the table above
        shown = [one for one in endpoints if every or one.code or (mixed and one.state not in UNTROUBLED)]
        if shown:
            screen.say()
            screen.say(service.name)
            screen.show(shown, _endpoint_columns(seen.at))
    if seen.services and seen.stages:
        screen.say()
        screen.show(seen.stages, _stage_columns(seen.at))
    if seen.letters:
        screen.say()
        screen.show(seen.letters, _letter_columns(seen.at))


def _show_verdict(screen: Screen, verdict: Verdict) -> None:
    if not verdict.troubles:
        screen.say(verdict.verdict)
        return
    count = len(verdict.troubles)
    first = ", the most important first" if count > 1 else ""
    screen.say(f"{counted(count, 'thing')} {'need' if count > 1 else 'needs'} a person{first}:")
    for number, trouble in enumerate(verdict.troubles, start=1):
        screen.say(f"  {number}. {trouble.what}")
        screen.say(f"     {trouble.remedy}")


# -- columns ----------------------------------------------------------------------------------------------------------
def _service_columns(now: UtcTime) -> Columns[ServiceStanding]:
    return {
        "TENANT": lambda one: one.tenant_id,
        "SERVICE": lambda one: one.service,
        "STATE": lambda one: one.state,
        "ENDPOINTS": lambda one: ", ".join(f"{count} {state}" for state, count in one.endpoints.items()),
        "READ": lambda one: _within(one.read_at, now) if one.read_at or len(one.endpoints) == 1 else "not all yet",
        "SWEPT": lambda one: ago(one.swept_at, now) if one.swept_at else None,
        "READ BY": lambda one: _owner(one.owner, f"epoch {one.epoch}", one.life) if one.owner else "nobody",
    }


def _endpoint_columns(now: UtcTime) -> Columns[EndpointStanding]:
    return {
        "ENDPOINT": lambda one: one.endpoint,
        "STATE": lambda one: one.state,
        "READ": lambda one: _within(one.read_at, now),
        "SWEPT": lambda one: ago(one.swept_at, now) if one.swept_at else None,
        "WHY": lambda one: _why(one, now),
    }


def _stage_columns(now: UtcTime) -> Columns[Stage]:
    return {
        "SERVICE": lambda stage: stage.service,
        "STREAM": lambda stage: stage.stream,
        "SHARDS": lambda stage: len(stage.shards),
        "OWNED BY": lambda stage: ", ".join(_owners(stage)) or "nobody",
        "WAITING": lambda stage: _waiting(stage, now),
        "NOT CUT": lambda stage: f"for {rough(seconds_between(stage.uncut_since, now))}" if stage.uncut_since else "",
        "NOT MERGED": lambda stage: counted(stage.unmerged, "cut") if stage.unmerged else "",
    }


def _table_columns(now: UtcTime) -> "Columns[Upkeep]":
    return {
        "TENANT": lambda one: one.tenant_id,
        "TABLE": lambda one: one.table,
        "ROWS": lambda one: f"{one.rows:,}",
        "REPLACED": lambda one: f"{one.dead_rows:,}",
        "FILES": lambda one: one.files,
        "SIZE": lambda one: size_shown(one.bytes),
        "SNAPSHOTS": lambda one: one.snapshots,
        "OLDEST": lambda one: ago(one.oldest_at, now) if one.oldest_at else None,
        "MERGED": lambda one: ago(one.merged_at, now) if one.merged_at else None,
        "SWEPT": lambda one: ago(one.swept_at, now) if one.swept_at else None,
    }


def _letter_columns(now: UtcTime) -> Columns[Letters]:
    return {
        "DEAD LETTERS OF": lambda one: one.tenant_id,
        "STAGE": lambda one: one.stage,
        "GROUP": lambda one: one.group,
        "CODE": lambda one: one.code or "(not opened)",
        "COUNT": lambda one: f"more than {one.count}" if one.more else one.count,
        "FIRST": lambda one: ago(one.first_at, now) if one.first_at else None,
        "NEWEST": lambda one: ago(one.newest_at, now) if one.newest_at else None,
    }


def _within(read_at: UtcTime | None, now: UtcTime) -> str:
    """Marks are saved now and then, so it may have been read since."""
    return f"within {rough(seconds_between(read_at, now))}" if read_at else "never"


def _why(one: EndpointStanding, now: UtcTime) -> str:
    if not one.code:
        return "sweeps are late" if one.sweep_late else ""
    tried = f", tried {ago(one.tried_at, now)}" if one.tried_at else ""
    return f"{one.code}{tried}: {one.what}"


def _owners(stage: Stage) -> Iterable[str]:
    unowned = sum(shard.owner is None for shard in stage.shards)
    for owner, shards in stage.owners.items():
        epochs = sorted({shard.epoch for shard in shards})
        lives = [shard.life for shard in shards if shard.life is not None]
        dying = min(lives, key=lambda life: life.alive, default=None)
        span = f"{epochs[0]}-{epochs[-1]}" if len(epochs) > 1 else str(epochs[0])
        yield _owner(owner, f"{counted(len(shards), 'shard')}, epoch {span}", dying)
    if unowned and unowned < len(stage.shards):
        yield f"{unowned} by nobody"


def _owner(owner: str, what: str, life: Life | None) -> str:
    shown = "" if life is None else ", alive" if life.alive else f", silent for {rough(life.quiet_s)}"
    return f"{owner[:OWNER_CHARS]} ({what}{shown})"


def _waiting(stage: Stage, now: UtcTime) -> str:
    if any(shard.waiting is None for shard in stage.shards):
        return "unknown"
    if not stage.events:
        return "nothing"
    since = f", {rough(seconds_between(stage.waiting_since, now))}" if stage.waiting_since else ""
    return f"{'more than ' if stage.more else ''}{counted(stage.events, 'event')}{since}"
