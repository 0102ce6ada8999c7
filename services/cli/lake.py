"""What the lake holds: SQL over it (`query`), and one record's versions as a timeline (`history`)."""

import re
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from operator import itemgetter
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from services.cli.ages import moment_meant, rough, shown_time
from services.cli.connections import connections
from services.cli.options import MappingsFolder, OneService, OneTenant, command
from services.cli.record_history import Entity, Step, as_of, histories
from services.cli.screen import Screen, counted, printable, size_shown
from services.cli.spelling import plain
from services.cli.world import Place, World, open_world, run
from services.contracts.errors import NotFoundError, UsageError
from services.contracts.hints import did_you_mean
from services.contracts.integration import integration_name
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import checked_tenant, timeline_table
from services.contracts.schema import ROW_COLUMNS, TIMELINE_COLUMNS
from services.contracts.times import UtcTime, seconds_between
from services.runtime.mapping_files import load_mappings

if TYPE_CHECKING:
    from services.compactor.lake import Answer, Lake
    from services.compactor.reading import Reads

app = typer.Typer()

ROWS_SHOWN_MAX: Final = 200  # on a terminal; files, pipes and --json get all of them
RECORDS_SHOWN_MAX: Final = 20  # of rows too wide for a table, one column a line
CELL_CHARS_FOLDED: Final = 40  # a longer cell may be folded before a table counts as too wide
VALUE_CHARS_MAX: Final = 60  # of a value in a timeline
SEPARATOR_CHARS: Final = 2

_AsOf = Annotated[
    str | None, typer.Option("--as-of", metavar="TIME", help="As it was then, such as 2026-01-31 or 2026-01-31T09:15Z.")
]


# -- query ------------------------------------------------------------------------------------------------------------
class Queryable(msgspec.Struct, frozen=True):
    """One table as SQL names it. `kind`: `versions`, `timeline` for what these do not show, or `raw` for the newest
    record as the vendor gave it."""

    name: str
    kind: str
    description: str
    columns: list[str]


@command(
    app,
    "query",
    'avesa query "SELECT status, count(*) FROM tickets WHERE is_current GROUP BY 1"',
    "avesa query --as-of 2026-01-31 --json \"SELECT * FROM companies WHERE name = 'Acme'\"",
    "avesa query \"SELECT record_id, payload->>'name' FROM raw.connectwise.boards\"",
    "avesa query --tables",
)
def query(
    screen: Screen,
    place: Place,
    sql: Annotated[str | None, typer.Argument(metavar="[SQL]", help="One SELECT, as DuckDB takes it.")] = None,
    tenant_id: OneTenant = None,
    as_of: _AsOf = None,
    tables: Annotated[bool, typer.Option("--tables", help="List what can be queried.")] = False,
    mappings: MappingsFolder = None,
) -> None:
    """Ask the lake in SQL; without SQL, list its tables.

    A canonical table holds every version of every record (WHERE is_current: the living ones); with --as-of those that
    held then. raw.SERVICE.ENDPOINT holds the newest record as the vendor gave it, in `payload`.
    """
    files = load_mappings(mappings)
    at = moment_meant(as_of, "--as-of") if as_of else None
    if tables or sql is None or not sql.strip(" ;\n\t"):
        _list_tables(screen, files)
        return
    answer, holders = run(_query(screen, place, files, sql, tenant_id, at))
    for hint in (holders.hint, *_raw_hints(files, sql)):
        if hint:
            screen.note(hint)
    _note_reads(screen, answer.reads)
    show_answer(screen, answer)


async def _query(
    screen: Screen, place: Place, files: MappingFiles, sql: str, tenant_id: str | None, at: UtcTime | None
) -> "tuple[Answer, Holders]":
    async with opened(screen, place, files) as (world, lake):
        holders = await find_holders(world, lake, tenant_id)
        try:
            return await lake.query(sql, tenant_id, at), holders
        except UsageError as err:
            if err.code != "unknown_table":
                raise
            known = [*files.tables, *map(timeline_table, files.tables)]
            hints = (did_you_mean(name, known) for name in named_tables(sql) if name not in known)
            remedy = f"{next(filter(None, hints), '')} {err.remedy}".strip()
            raise UsageError(err.what, code=err.code, where=err.where, remedy=remedy) from err


@asynccontextmanager
async def opened(screen: Screen, place: Place, files: MappingFiles) -> "AsyncIterator[tuple[World, Lake]]":
    """The lake, for reading: nothing that is missing is created."""
    async with open_world(place, screen, create=False) as world:
        with screen.working("reading the lake"):
            from services.compactor.iceberg import Warehouse
            from services.compactor.lake import Lake

            runtime = world.runtime
            warehouse = await runtime.threads.run(Warehouse.on_glue, world.settings)
            yield world, Lake(warehouse, runtime.objects, runtime.threads, files)


def _note_reads(screen: Screen, reads: "Reads") -> None:
    """How much of the tables an answer took; nothing where it asked none."""
    if reads.files_there:
        files = f"{reads.files} of {counted(reads.files_there, 'data file')}"
        screen.note(f"read {files}, {size_shown(reads.bytes)} of {size_shown(reads.bytes_there)}")


class Holders(msgspec.Struct, frozen=True):
    """The tenants that a reading is about, and what to say where there is nothing of them."""

    tenants: list[str]
    hint: str = ""


async def find_holders(world: World, lake: "Lake", tenant_id: str | None) -> Holders:
    """All tenants of the lake, or the one named. Errors: UsageError for one that nobody knows."""
    there = await lake.tenants()
    hint = "" if there else f"the lake of {world.named} holds no table yet: `avesa status` says why"
    if tenant_id is None:
        return Holders(there, hint)
    if checked_tenant(tenant_id) not in there:
        if not await connections(world.runtime, tenant_id):
            remedy = f"{did_you_mean(tenant_id, there)} `avesa services` lists them.".strip()
            raise UsageError(f"there is no tenant {tenant_id}", code="unknown_tenant", remedy=remedy)
        hint = hint or f"no table of tenant {tenant_id} is in the lake yet: `avesa status` says why"
    return Holders([tenant_id], hint)


def _raw_hints(files: MappingFiles, sql: str) -> Iterator[str]:
    """An endpoint that nobody knows has no records, which in SQL looks like one that has none."""
    known = list(_raw_tables(files))
    for name in named_tables(sql):
        catalog, _, rest = name.partition(".")
        service, _, endpoint = rest.rpartition(".")
        if catalog == "raw" and service and f"raw.{integration_name(service)}.{endpoint}" not in known:
            yield f"no mapping file knows {name}. {did_you_mean(name, known)}".rstrip()


_NAMED = re.compile(r'\b(?:from|join)\s+((?:"[^"]+"|\w+)(?:\.(?:"[^"]+"|\w+)){0,2})', re.IGNORECASE)


def named_tables(sql: str) -> list[str]:
    """The names that stand behind FROM and JOIN, without quotes. For hints: DuckDB alone knows what SQL means."""
    return [name.replace('"', "") for name in _NAMED.findall(sql)]


def _raw_tables(files: MappingFiles) -> Iterator[str]:
    for service, integration in files.integrations.items():
        for name, endpoint in integration.endpoints.items():
            if endpoint.enabled:
                yield f"raw.{service}.{name}"


def _list_tables(screen: Screen, files: MappingFiles) -> None:
    found = [
        Queryable(table.table, "versions", table.description, [*table.all_columns(), *ROW_COLUMNS])
        for table in files.tables.values()
    ]
    titles = {
        f"raw.{service}.{name}": endpoint.title
        for service, integration in files.integrations.items()
        for name, endpoint in integration.endpoints.items()
    }
    found += [
        Queryable(timeline_table(name), "timeline", f"what the versions of {name} do not show", [*TIMELINE_COLUMNS])
        for name in files.tables
    ]
    found += [Queryable(name, "raw", titles[name], RAW_COLUMNS) for name in _raw_tables(files)]
    screen.show(
        found,
        {
            "TABLE": lambda table: table.name,
            "COLUMNS": lambda table: len(table.columns),
            "HOLDS": lambda table: table.description,
        },
    )
    screen.note('Columns: avesa query "DESCRIBE tickets". A second instance: raw."connectwise:berlin".tickets.')


RAW_COLUMNS: Final = [
    "tenant_id", "service", "endpoint", "record_id", "op", "effective_at", "observed_at", "evidence", "source",
    "payload",
]  # fmt: skip


# -- an answer on a screen --------------------------------------------------------------------------------------------
def show_answer(screen: Screen, answer: "Answer") -> None:
    names = distinct(answer.columns)
    if screen.as_json:
        for row in answer.rows:
            screen.record(dict(zip(names, row, strict=True)))
        return
    drawn = screen.out.isatty()
    wide = drawn and not fits(names, answer.rows[:ROWS_SHOWN_MAX], shutil.get_terminal_size().columns)
    shown = len(answer.rows)
    if drawn:
        shown = min(shown, RECORDS_SHOWN_MAX if wide else ROWS_SHOWN_MAX)
    if wide:
        for number, row in enumerate(answer.rows[:shown], start=1):
            screen.say(f"row {number}")
            _show_pairs(screen, zip(names, row, strict=True))
    else:
        screen.show(answer.rows[:shown], {name: itemgetter(place) for place, name in enumerate(names)}, empty="no rows")
    if shown < len(answer.rows):
        more = counted(len(answer.rows) - shown, "more row")
        screen.note(f"{more}: add LIMIT or ORDER BY, or let --json or a file take them all")


def _show_pairs(screen: Screen, pairs: Iterable[tuple[str, object]]) -> None:
    screen.show(pairs, {"COLUMN": itemgetter(0), "VALUE": itemgetter(1)})


def distinct(columns: Sequence[str]) -> list[str]:
    """The columns by names that differ: `SELECT a.id, b.id` has two called `id`, the second becomes `id_2`."""
    names: list[str] = []
    for column in columns:
        name, number = column, 1
        while name in names:
            number += 1
            name = f"{column}_{number}"
        names.append(name)
    return names


def fits(columns: Sequence[str], rows: Iterable[Sequence[object]], width: int) -> bool:
    """Can these rows stand in a table of so many characters without tearing words apart?"""
    widths = [len(column) for column in columns]
    for row in rows:
        widths = [max(known, min(CELL_CHARS_FOLDED, len(str(value)))) for known, value in zip(widths, row, strict=True)]
    return sum(widths) + SEPARATOR_CHARS * (len(widths) - 1) <= width


# -- history ----------------------------------------------------------------------------------------------------------
@command(
    app,
    "history",
    "avesa history tickets 4711",
    "avesa history tickets 4711 --tenant-id acme-msp --as-of 2026-01-31T09:15Z",
)
def history(
    screen: Screen,
    place: Place,
    table: Annotated[str, typer.Argument(metavar="TABLE", help="A canonical table, such as tickets.")],
    record_id: Annotated[str, typer.Argument(metavar="RECORD_ID", help="The vendor's id of the record.")],
    tenant_id: OneTenant = None,
    service: OneService = None,
    as_of: _AsOf = None,
    mappings: MappingsFolder = None,
) -> None:
    """Show what became of one record: each version, how long it held, what changed, when it was deleted.

    With --as-of, the version that held then, every column. Times are UTC. Exit code 1 where there is no such record.
    """
    files = load_mappings(mappings)
    if table not in files.tables:
        hint = did_you_mean(table, files.tables) or f"Known: {', '.join(sorted(files.tables))}."
        raise UsageError(f"there is no canonical table {table!r}", code="unknown_table", remedy=hint)
    at = moment_meant(as_of, "--as-of") if as_of else None
    found = run(_read_history(screen, place, files, table, record_id, tenant_id))
    chosen = [one for one in found.entities if service is None or plain(one.service) == plain(service)]
    if not chosen:
        raise _unknown(table, record_id, tenant_id, service, found.entities, found.hint)
    _note_reads(screen, found.reads)
    if at is not None:
        _show_as_of(screen, chosen, at)
        return
    for number, entity in enumerate(chosen):
        if number:
            screen.say()
        _show_history(screen, entity, found.now)


class _Found(msgspec.Struct, frozen=True):
    entities: list[Entity]
    reads: "Reads"
    hint: str
    now: UtcTime


async def _read_history(
    screen: Screen, place: Place, files: MappingFiles, table: str, record_id: str, tenant_id: str | None
) -> _Found:
    async with opened(screen, place, files) as (world, lake):
        holders = await find_holders(world, lake, tenant_id)
        found = await lake.history_of(tenant_id, table, record_id)
        entities = histories(files.tables[table], record_id, found.versions, found.timeline)
        return _Found(entities, found.reads, holders.hint, world.runtime.clock.now())


def _unknown(
    table: str, record_id: str, tenant_id: str | None, service: str | None, found: Sequence[Entity], hint: str
) -> NotFoundError:
    whose = f" of {tenant_id}" if tenant_id else ""
    if found:
        others = ", ".join(sorted({one.service for one in found}))
        return NotFoundError(f"{table} {record_id}{whose} is no record of {service}", remedy=f"It is of {others}.")
    sql = f"SELECT record_id, tenant_id FROM {table} LIMIT 5"  # noqa: S608  ours
    remedy = hint or f'It takes the vendor\'s own id, such as: avesa query "{sql}"'
    return NotFoundError(f"there is no record {record_id!r} in {table}{whose}", remedy=remedy)


def _show_history(screen: Screen, entity: Entity, now: UtcTime) -> None:
    if screen.as_json:
        for step in entity.steps:
            screen.record({**entity.named, **msgspec.to_builtins(step)})
        return
    versions = sum(step.row is not None for step in entity.steps)
    state = "deleted" if entity.deleted else "current"
    screen.say(f"{entity.title}: {counted(versions, 'version')}, {state} now")
    width = max(len(shown_time(step.at)) for step in entity.steps)
    for step in entity.steps:
        seen = f"  (seen {shown_time(step.observed_at)})" if step.observed_at else ""
        screen.say(f"  {shown_time(step.at):{width}}  {step.event:10}  {_lasted(step, now):22}{seen}".rstrip())
        for column, change in step.changed.items():
            screen.say(f"      {column}: {_cut(change.before)} -> {_cut(change.after)}")


def _lasted(step: Step, now: UtcTime) -> str:
    length = rough(seconds_between(step.at, step.until or now))
    if step.row is None:
        return f"gone for {length}"
    return f"held {length}" if step.until else f"current for {length}"


def _cut(value: object) -> str:
    if value is None:
        return "(none)"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    text = " ".join(printable(text).split())
    return text if len(text) <= VALUE_CHARS_MAX else text[: VALUE_CHARS_MAX - 1] + "…"


def _show_as_of(screen: Screen, entities: Sequence[Entity], at: UtcTime) -> None:
    """Errors: NotFoundError where no version held then."""
    held = [(entity, step) for entity in entities if (step := as_of(entity.steps, at)) is not None]
    living = [(entity, step.row, step) for entity, step in held if step.row is not None]
    if not living:
        told = "; ".join(f"{one.title}: {_absent(one, at)}" for one in entities)
        raise NotFoundError(f"at {shown_time(at)} there was no such record", where=told)
    for entity, row, step in living:
        if screen.as_json:
            screen.record(row)
            continue
        until = f"until {shown_time(step.until)}" if step.until else "still current"
        screen.say(f"{entity.title} as of {shown_time(at)}: the version from {shown_time(step.at)}, {until}")
        _show_pairs(screen, row.items())


def _absent(entity: Entity, at: UtcTime) -> str:
    step = as_of(entity.steps, at)
    if step is None:
        return f"first seen at {shown_time(entity.steps[0].at)}"
    back = f", back at {shown_time(step.until)}" if step.until else ""
    return f"deleted at {shown_time(step.at)}{back}"
