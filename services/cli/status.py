"""`avesa status`: is everything up to date, and if not, what is wrong and what to do."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import msgspec
import typer

from services.cli.ages import ago, rough
from services.cli.groups import Group
from services.cli.letters import Letters
from services.cli.options import MappingsFolder, OneTenant, command
from services.cli.screen import Columns, Screen, counted, size_shown
from services.cli.setbacks import Gap, Parked
from services.cli.stages import Life, ShardStanding, Stage, Waiting
from services.cli.standing import EndpointStanding, ServiceStanding, State
from services.cli.verdict import Seen, Verdict, between, judge
from services.cli.world import Place, World, open_world, run
from services.contracts.errors import RetryableError
from services.contracts.mapping_files import MappingFiles
from services.contracts.times import UtcTime, seconds_between
from services.runtime.mapping_files import load_mappings

if TYPE_CHECKING:
    from services.compactor.upkeep import Upkeep

app = typer.Typer()
T = TypeVar("T")

WATCH_S: Final = 2.0
CLEAR: Final = "\x1b[H\x1b[2J"  # ECMA-48: cursor home, erase display
OWNER_CHARS: Final = 8  # of a worker's name; --json has it whole
GAP_STATES: Final[Mapping[str, str]] = {
    "open": "waits to be read again",
    "halted": "holds up the shard (AVESA_ON_GAP=halt)",
    "archive": "is being read again from the raw archive",
    "source": "is being read again from the vendors",
}
UNTROUBLED: Final[frozenset[State]] = frozenset({"up to date", "reading", "paused", "off", "not available"})


class _View(msgspec.Struct, frozen=True):
    """What of a look is shown: `every` endpoint or the troubled ones, each of the `shards` or their sums. `options` are
    those that commands of ours take to be about the same environment and mapping files."""

    every: bool
    shards: bool
    options: str


@command(
    app,
    "status",
    "avesa status",
    "avesa status --tenant-id acme-msp",
    "avesa status --shards --watch",
    "avesa status --tables",
)
def status(
    screen: Screen,
    place: Place,
    tenant_id: OneTenant = None,
    watch: Annotated[
        bool, typer.Option("--watch", help="Look again every 2 s until Ctrl-C; shows which owners live.")
    ] = False,
    shards: Annotated[
        bool, typer.Option("--shards", help="Also show every shard: who owns it, its lag, rate and last commit.")
    ] = False,
    tables: Annotated[
        bool, typer.Option("--tables", help="Also show how the tables of the lake stand (a request or two a table).")
    ] = False,
    mappings: MappingsFolder = None,
) -> int:
    """Show whether everything is up to date, and if not what is wrong and what to do about it.

    Exit codes: 0 nothing needs a person, 3 something does. With --tenant-id every endpoint of that tenant is shown.
    PROMISED is how often an endpoint is read and how late its vendor may show a change, added up: EVERY and LAG of
    `avesa mapping show SERVICE`.
    """
    options = f" --mappings {shlex.quote(str(mappings))}" if mappings else ""
    view = _View(tenant_id is not None, shards, options)
    return run(_status(screen, place, load_mappings(mappings), tenant_id, view, watch, tables))


async def _status(
    screen: Screen, place: Place, files: MappingFiles, tenant_id: str | None, view: _View, watch: bool, tables: bool
) -> int:
    from asyncio import CancelledError

    from services.cli.looks import Observer

    async with open_world(place, screen, create=False) as world:
        observer = Observer(world, files, tenant_id)
        view = msgspec.structs.replace(view, options=f"{view.options} --environment {world.settings.names.environment}")
        seen = await observer.look()
        if view.shards and not watch and any(stage.owners for stage in seen.stages):
            wait_s = observer.pulse_s
            with screen.working(f"waiting {wait_s:.0f} s for signs of life"):
                await world.runtime.clock.sleep(wait_s)
            seen = await observer.look()
        code = _show(screen, world, seen, view)
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
                code = _show(screen, world, seen, view, again=True)
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


def _show(screen: Screen, world: World, seen: Seen, view: _View, *, again: bool = False) -> int:
    verdict = judge(seen, f"s3://{world.settings.names.bucket}", view.options)
    if screen.as_json:
        _show_records(screen, seen, verdict)
    else:
        if again:
            screen.out.write(CLEAR if screen.out.isatty() else "\n")
        _show_people(screen, seen, verdict, view)
    screen.out.flush()
    return verdict.exit_code


def _show_records(screen: Screen, seen: Seen, verdict: Verdict) -> None:
    """The verdict with its troubles first, then everything that was seen; each says its `kind`."""
    screen.record(verdict)
    for service, endpoints in seen.services:
        for record in (service, *endpoints):
            screen.record(record)
    for record in (*seen.stages, *seen.groups, *seen.parked, *seen.gaps, *seen.letters, *seen.held):
        screen.record(record)


def _show_people(screen: Screen, seen: Seen, verdict: Verdict, view: _View) -> None:
    _show_verdict(screen, verdict)
    if seen.services:
        screen.say()
        screen.show([service for service, _ in seen.services], _service_columns(seen.at))
    for service, endpoints in seen.services:
        mixed = len(service.endpoints) > 1  # one state of all is told by the table above
        shown = [one for one in endpoints if view.every or _is_told(one) or (mixed and one.state not in UNTROUBLED)]
        if shown:
            screen.say()
            screen.say(service.name)
            screen.show(shown, _endpoint_columns(seen.at))
    if seen.stages and (seen.services or view.shards):
        screen.say()
        screen.show(seen.stages, _stage_columns(seen.at))
    if view.shards:
        _show_next(screen, [shard for stage in seen.stages for shard in stage.shards], _shard_columns(seen.at))
    if len(seen.groups) > 1:
        _show_next(screen, seen.groups, GROUP_COLUMNS)
    _show_next(screen, seen.parked, _parked_columns(seen.at))
    _show_next(screen, seen.gaps, GAP_COLUMNS)
    _show_next(screen, seen.letters, _letter_columns(seen.at))


def _show_next(screen: Screen, records: Sequence[T], columns: Columns[T]) -> None:
    if records:
        screen.say()
        screen.show(records, columns)


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
        "PROMISED": lambda one: rough(one.worst.promised_s) if one.worst and one.worst.promised_s else None,
        "ACTUAL": lambda one: _age(one.worst) if one.read_at or len(one.endpoints) <= 1 else "not all yet",
        "SWEPT": lambda one: ago(one.swept_at, now) if one.swept_at else None,
        "READ BY": lambda one: _owner(one.owner, one.life) if one.owner else "nobody",
    }


def _endpoint_columns(now: UtcTime) -> Columns[EndpointStanding]:
    return {
        "ENDPOINT": lambda one: one.endpoint,
        "STATE": lambda one: one.state,
        "PROMISED": lambda one: rough(one.promised_s) if one.promised_s else None,
        "ACTUAL": _age,
        "SWEPT": lambda one: ago(one.swept_at, now) if one.swept_at else None,
        "WHY": lambda one: _why(one, now),
    }


def _stage_columns(now: UtcTime) -> Columns[Stage]:
    return {
        "SERVICE": lambda stage: stage.group,
        "STREAM": lambda stage: stage.stream,
        "SHARDS": lambda stage: len(stage.shards),
        "OWNED BY": lambda stage: ", ".join(_owners(stage)) or "nobody",
        "WAITING": lambda stage: _waiting_of_all(stage, now),
        "NOT CUT": lambda stage: f"for {rough(seconds_between(stage.uncut_since, now))}" if stage.uncut_since else "",
        "NOT MERGED": lambda stage: counted(stage.unmerged, "cut") if stage.unmerged else "",
    }


def _shard_columns(now: UtcTime) -> Columns[ShardStanding]:
    return {
        "SHARDS OF": lambda one: one.group,
        "STREAM": lambda one: one.stream,
        "SHARD": lambda one: short_shard(one.shard_id),
        "OWNER": _shard_owner,
        "EPOCH": lambda one: one.epoch or None,
        "WAITING": lambda one: _waiting(one.waiting, now),
        "BEHIND": lambda one: None if one.behind_ms is None else f"{one.behind_ms / 1_000:,.1f} s",
        "RATE": lambda one: None if one.events_per_s is None else f"{one.events_per_s:,.0f}/s",
        "COMMITTED": lambda one: ago(one.committed_at, now) if one.committed_at else None,
    }


GROUP_COLUMNS: Final[Columns[Group]] = {
    "GROUP": lambda one: one.group,
    "TABLES": lambda one: one.covers,
    "READS BY": lambda one: "enhanced fan-out" if one.fan_out else "polling",
}


def _parked_columns(now: UtcTime) -> Columns[Parked]:
    return {
        "PARKED BY": lambda one: one.group,
        "PARTITION": lambda one: one.partition,
        "SINCE": lambda one: ago(one.since, now) if one.since else None,
        "WHY": lambda one: one.why,
    }


GAP_COLUMNS: Final[Columns[Gap]] = {
    "GAP OF": lambda one: one.group,
    "WHAT": lambda one: (
        f"the lost range {between(one)} of {short_shard(one.shard_id)} ({one.stream}) {GAP_STATES[one.state]}"
    ),
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


def _age(one: EndpointStanding | None) -> str | None:
    """How old what was read last may be: the owner's word, or at most what was saved."""
    if one is None or one.state in ("off", "not available"):
        return None
    return "never" if one.actual_s is None else f"within {rough(one.actual_s)}"


def _is_told(one: EndpointStanding) -> bool:
    """Is there something to say of it where not every endpoint is shown?"""
    return bool(one.why_late or one.code) and one.state not in ("paused", "off", "not available", "not read yet")


def _why(one: EndpointStanding, now: UtcTime) -> str:
    if one.code:
        tried = f", tried {ago(one.tried_at, now)}" if one.tried_at else ""
        return f"{one.code}{tried}: {one.what}"
    late = f"late: {one.why_late}" if one.why_late not in ("", one.state) else ""
    return ", ".join(filter(None, (late, "sweeps are late" if one.sweep_late else "")))


def _owners(stage: Stage) -> Iterable[str]:
    unowned = sum(shard.owner is None for shard in stage.shards)
    for owner, shards in stage.owners.items():
        lives = [shard.life for shard in shards if shard.life is not None]
        dying = min(lives, key=lambda life: life.alive, default=None)
        yield _owner(owner, dying, counted(len(shards), "shard"))
    if unowned and unowned < len(stage.shards):
        yield f"{unowned} by nobody"


def _owner(owner: str, life: Life | None, *more: str) -> str:
    """`a1b2c3d4 (2 shards, alive)`, with as much of that as is known."""
    shown = ", ".join(filter(None, (*more, _life(life))))
    return f"{owner[:OWNER_CHARS]} ({shown})" if shown else owner[:OWNER_CHARS]


def _life(life: Life | None) -> str:
    """Nothing where it is not known yet."""
    return "" if life is None else "alive" if life.alive else f"silent for {rough(life.quiet_s)}"


def _waiting_of_all(stage: Stage, now: UtcTime) -> str:
    if any(shard.waiting is None for shard in stage.shards):
        return "unknown"
    return _waiting(Waiting(stage.events, stage.more, stage.waiting_since), now)


def _waiting(waiting: Waiting | None, now: UtcTime) -> str:
    if waiting is None:
        return "unknown"
    if not waiting.events:
        return "nothing"
    since = f", {rough(seconds_between(waiting.since, now))}" if waiting.since else ""
    return f"{'more than ' if waiting.more else ''}{counted(waiting.events, 'event')}{since}"


def _shard_owner(shard: ShardStanding) -> str:
    if shard.owner is None:
        return "nobody"
    more = [] if shard.life else ["no sign of life yet"]
    if shard.asked_by is not None:
        more.append(f"to be handed over to {shard.asked_by[:OWNER_CHARS]}")
    if shard.deaths:
        more.append(f"{counted(shard.deaths, 'owner')} died at it")
    return _owner(shard.owner, shard.life, *more)


def short_shard(shard_id: str) -> str:
    """`shard-7` for `shardId-000000000007`."""
    number = shard_id.removeprefix("shardId-")
    return f"shard-{int(number)}" if number.isdecimal() and number != shard_id else shard_id
