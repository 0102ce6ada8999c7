"""`avesa views`: the SQL that gives a warehouse one view per canonical table over all tenants.

Each tenant's tables lie in a Glue database of its own, and may lack columns that another's have. Only what differs
between engines is in `ENGINES`; the rest of the text is the same for all. Sources: docs/querying.md.
"""

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from textwrap import fill
from typing import Annotated, Final, Literal

import msgspec
import typer

from services.cli.lake import find_holders, opened
from services.cli.options import MappingsFolder, command
from services.cli.screen import Screen, counted
from services.cli.world import Place, run
from services.contracts.errors import NotFoundError, UsageError
from services.contracts.hints import did_you_mean
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import Names, timeline_table
from services.runtime.mapping_files import load_mappings

app = typer.Typer()

LINE_CHARS: Final = 120
ATHENA_BYTES_MAX: Final = 262_144  # of one statement, not adjustable: Athena user guide, Service Quotas


class Engine(StrEnum):
    """A query engine that reads the lake."""

    ATHENA = "athena"
    REDSHIFT = "redshift"
    SNOWFLAKE = "snowflake"
    SPARK = "spark"
    DUCKDB = "duckdb"


class Dialect(msgspec.Struct, frozen=True, kw_only=True):
    """What is particular to an engine. Texts may name {catalog}, {database} (a tenant's), {region} and {views}.

    `types` holds the engine's type of each of our kinds; `table` is the path to a tenant's table, `view` to a view.
    `before_all` and `before_each` (tenant) are run first. `shown` is how the view shows a column of a kind, where not
    as it is ("" stands for all other kinds). `upper`: names are folded to upper case, so that nobody has to quote them.
    """

    types: Mapping[str, str]
    table: tuple[str, ...]
    view: tuple[str, ...]
    quote: str = '"'
    create: str = "CREATE OR REPLACE VIEW"
    end: str = ""
    before_all: Mapping[str, str] = {}
    before_each: str = ""
    shown: Mapping[str, str] = {}
    upper: bool = False
    remark: str

    def quoted(self, *names: str) -> str:
        """A path of names; each may then be a reserved word."""
        return ".".join(self.quote + name.replace(self.quote, self.quote * 2) + self.quote for name in names)


_PLAIN: Final[dict[str, str]] = {
    "string": "VARCHAR",
    "json": "VARCHAR",
    "int64": "BIGINT",
    "int32": "INTEGER",
    "float64": "DOUBLE",
    "decimal": "DECIMAL(38, 9)",
    "bool": "BOOLEAN",
    "timestamp": "TIMESTAMPTZ",
    "date": "DATE",
}
_TEXT_16K: Final = "VARCHAR(16384)"  # what Redshift makes of an Iceberg string
ENGINES: Final[Mapping[Engine, Dialect]] = {
    Engine.ATHENA: Dialect(
        types=_PLAIN | {"timestamp": "TIMESTAMP(6) WITH TIME ZONE"},
        table=("{database}",),
        view=("{views}",),
        before_all={"{views}": "CREATE DATABASE IF NOT EXISTS `{views}`"},
        # A view of Athena's is kept with Hive's types, which know no time zone.
        shown={"timestamp": "CAST({column} AT TIME ZONE 'UTC' AS TIMESTAMP(6))"},
        remark="Athena runs one statement at a time. In these views times are UTC without saying so.",
    ),
    Engine.REDSHIFT: Dialect(
        types=_PLAIN | {"string": _TEXT_16K, "json": _TEXT_16K, "float64": "DOUBLE PRECISION"},
        table=("{database}",),
        view=("{views}",),
        end="\nWITH NO SCHEMA BINDING",
        before_all={"{views}": 'CREATE SCHEMA IF NOT EXISTS "{views}"'},
        before_each='CREATE EXTERNAL SCHEMA IF NOT EXISTS "{database}"\n'
        "FROM DATA CATALOG DATABASE '{database}' REGION '{region}' IAM_ROLE default",
        remark="IAM_ROLE default is the role that your cluster or workgroup has by default; it must read Glue and S3.",
    ),
    Engine.SNOWFLAKE: Dialect(
        types=_PLAIN
        | {
            "int64": "NUMBER(19, 0)",
            "int32": "NUMBER(10, 0)",
            "decimal": "NUMBER(38, 9)",
            "timestamp": "TIMESTAMP_LTZ(6)",
        },
        table=("{CATALOG}", "{database}"),
        view=("{VIEWS}",),
        before_all={"{views}": 'CREATE SCHEMA IF NOT EXISTS "{VIEWS}"'},
        shown={"": "{column}"},
        upper=True,
        remark="Run this in a database of your own, with the Glue catalog linked as database {catalog}.",
    ),
    Engine.SPARK: Dialect(
        types=_PLAIN | {"string": "STRING", "json": "STRING", "int32": "INT", "timestamp": "TIMESTAMP"},
        table=("{catalog}", "{database}"),
        view=(),
        quote="`",
        create="CREATE OR REPLACE TEMPORARY VIEW",
        remark="The Glue catalog must be Spark's catalog {catalog}. It keeps no views: these are the session's.",
    ),
    Engine.DUCKDB: Dialect(
        types=_PLAIN,
        table=("{catalog}", "{database}"),
        view=("{views}",),
        before_all={
            "secret {catalog}": 'CREATE OR REPLACE SECRET "{catalog}" '
            "(TYPE s3, PROVIDER credential_chain, REGION '{region}')",
            "{catalog}": "ATTACH IF NOT EXISTS ':' AS \"{catalog}\" "
            "(TYPE iceberg, ENDPOINT_TYPE 'glue', SECRET \"{catalog}\")",
            "{views}": 'CREATE SCHEMA IF NOT EXISTS "{views}"',
        },
        remark="Secret and ATTACH are the session's; views of a database file need them again each time.",
    ),
}


class Held(msgspec.Struct, frozen=True):
    """One tenant's table: its Glue database and its columns, name to kind, in order."""

    database: str
    columns: dict[str, str]


class Target(msgspec.Struct, frozen=True):
    """Where SQL is for: the database or schema of the views, and the engine's name of the Glue catalog."""

    engine: Engine
    views: str
    region: str
    catalog: str = "lake"

    def filled(self, text: str, **more: str) -> str:
        names = {"views": self.views, "region": self.region, "catalog": self.catalog, **more}
        return text.format(**names, VIEWS=self.views.upper(), CATALOG=self.catalog.upper())


class Statement(msgspec.Struct, frozen=True):
    """One statement to run in the engine; `setup` comes before every `view`. `name` is what it makes."""

    engine: Engine
    kind: Literal["setup", "view"]
    name: str
    sql: str


# -- SQL, purely ------------------------------------------------------------------------------------------------------
def statements(target: Target, tables: Mapping[str, Sequence[Held]]) -> list[Statement]:
    """Everything to run, in order: what the views need, then per table the view and, for versions, its `_current`.

    Shape:  table name -> the tenants' tables of that name, at least one each.
    Errors: none.
    """
    dialect = ENGINES[target.engine]
    databases = sorted({held.database for found in tables.values() for held in found})
    setup = {target.filled(name): target.filled(sql) for name, sql in dialect.before_all.items()}
    if dialect.before_each:
        setup |= {one: target.filled(dialect.before_each, database=one) for one in databases}
    made = [Statement(target.engine, "setup", name, sql) for name, sql in setup.items()]
    for table, found in tables.items():
        made += [Statement(target.engine, "view", name, sql) for name, sql in _views(target, table, found).items()]
    return made


def _views(target: Target, table: str, found: Sequence[Held]) -> dict[str, str]:
    dialect, columns = ENGINES[target.engine], merged(found)
    view = _view(target, table)
    sql = {table: f"{dialect.create} {view} AS\n{_shown(dialect, columns, union(target, table, found))}{dialect.end}"}
    if "is_current" in columns:
        current, flag = _view(target, f"{table}_current"), dialect.quoted(_folded(dialect, "is_current"))
        body = f"SELECT * FROM {view} WHERE {flag}"  # noqa: S608  names are quoted
        sql[f"{table}_current"] = f"{dialect.create} {current} AS\n{body}{dialect.end}"
    return sql


def merged(found: Iterable[Held]) -> dict[str, str]:
    """The columns of all, in the order of the widest table; what only others have comes after, in theirs.

    A column of two kinds is text.
    """
    columns: dict[str, str] = {}
    for held in sorted(found, key=lambda one: (-len(one.columns), one.database)):
        for name, kind in held.columns.items():
            known = columns.setdefault(name, kind)
            if known != kind:
                columns[name] = "string"
    return columns


def union(target: Target, table: str, found: Sequence[Held]) -> str:
    """The rows of all tenants: one SELECT each, by database, every column named; null where a table lacks it."""
    columns = merged(found)
    selects = []
    for held in sorted(found, key=lambda one: one.database):
        dialect = ENGINES[target.engine]
        names = [_column(dialect, name, kind, held.columns.get(name)) for name, kind in columns.items()]
        path = [target.filled(part, database=held.database) for part in dialect.table]
        selects.append(f"SELECT\n{_listed(names)}\nFROM {dialect.quoted(*path, table)}")
    return "\nUNION ALL\n".join(selects)


def _column(dialect: Dialect, name: str, kind: str, held: str | None) -> str:
    if held == kind:
        return dialect.quoted(name)
    value = "NULL" if held is None else dialect.quoted(name)
    return f"CAST({value} AS {dialect.types[kind]}) AS {dialect.quoted(name)}"


def _shown(dialect: Dialect, columns: Mapping[str, str], rows: str) -> str:
    """`rows` as the view shows them: renamed and converted once, not once per tenant."""
    if not dialect.shown:
        return rows
    names = []
    for name, kind in columns.items():
        how = dialect.shown.get(kind) or dialect.shown.get("")
        column, shown = dialect.quoted(name), dialect.quoted(_folded(dialect, name))
        names.append(f"{how.format(column=column)} AS {shown}" if how else column)
    return f"SELECT\n{_listed(names)}\nFROM (\n{rows}\n) AS {dialect.quoted('rows')}"


def _view(target: Target, name: str) -> str:
    dialect = ENGINES[target.engine]
    return dialect.quoted(*(target.filled(part) for part in dialect.view), _folded(dialect, name))


def _folded(dialect: Dialect, name: str) -> str:
    return name.upper() if dialect.upper else name


def _listed(columns: Sequence[str]) -> str:
    margin = "  "
    return fill(
        ", ".join(columns),
        LINE_CHARS,
        initial_indent=margin,
        subsequent_indent=margin,
        break_long_words=False,
        break_on_hyphens=False,
    )


# -- the command ------------------------------------------------------------------------------------------------------
@command(
    app,
    "views",
    "avesa views --engine athena > views.sql",
    "avesa views tickets companies --engine snowflake --catalog lake",
    "avesa views --engine redshift --tenant-id acme-msp --tenant-id globex --json",
)
def views(
    screen: Screen,
    place: Place,
    engine: Annotated[Engine, typer.Option("--engine", help="Whose SQL to print.")],
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="TABLE", help="Canonical tables. Default: all there are.")
    ] = None,
    tenant_ids: Annotated[
        list[str] | None,
        typer.Option("--tenant-id", metavar="TENANT", help="This tenant only; may be given several times."),
    ] = None,
    catalog: Annotated[
        str,
        typer.Option(
            "--catalog",
            metavar="NAME",
            help="What Snowflake, Spark or DuckDB call the Glue catalog (docs/querying.md).",
        ),
    ] = "lake",
    mappings: MappingsFolder = None,
) -> None:
    """Print the SQL for one view per table over all tenants, to be run in your own warehouse.

    Per table: TABLE (every version), TABLE_current (the living records), TABLE_timeline (deletions, and observations
    that no version shows). Run it again when a tenant or a column was added. What each engine needs first, and what to
    ask then: docs/querying.md.
    """
    files = load_mappings(mappings)
    wanted = _wanted(files, tables or [])
    names, region, found = run(_find(screen, place, files, wanted, tenant_ids or []))
    target = Target(engine, names.views_database, region, catalog)
    made = statements(target, {name: held for name, held in found.items() if held})
    for statement in made:
        screen.say(statement.sql + ";\n")
        if screen.as_json:
            screen.record(statement)
    for note in notes(target, tables or [], found, made):
        screen.note(note)


def _wanted(files: MappingFiles, tables: Sequence[str]) -> list[str]:
    """The tables named, else all, each with its timeline."""
    for name in tables:
        if name not in files.tables:
            hint = did_you_mean(name, files.tables) or f"Known: {', '.join(sorted(files.tables))}."
            raise UsageError(f"there is no canonical table {name!r}", code="unknown_table", remedy=hint)
    bases = dict.fromkeys(tables or sorted(files.tables))
    return [name for base in bases for name in (base, timeline_table(base))]


async def _find(
    screen: Screen, place: Place, files: MappingFiles, wanted: Sequence[str], tenant_ids: Sequence[str]
) -> tuple[Names, str, dict[str, list[Held]]]:
    """What the catalog holds of these tables. Errors: NotFoundError where it holds none of them."""
    import asyncio

    async with opened(screen, place, files) as (world, lake):
        holders = [await find_holders(world, lake, tenant_id) for tenant_id in dict.fromkeys(tenant_ids) or [None]]
        tenants = [tenant_id for one in holders for tenant_id in one.tenants]
        names = world.settings.names
        pairs = [(table, tenant_id) for table in wanted for tenant_id in tenants]
        columns = await asyncio.gather(*(lake.columns(tenant_id, table) for table, tenant_id in pairs))
        found: dict[str, list[Held]] = {table: [] for table in wanted}
        for (table, tenant_id), held in zip(pairs, columns, strict=True):
            if held:
                found[table].append(Held(names.database(tenant_id), held))
        if not any(found.values()):
            hint = next((one.hint for one in holders if one.hint), "`avesa status` says why.")
            raise NotFoundError(f"no such table is in the lake of {world.named} yet", remedy=hint)
        return names, world.settings.region, found


def notes(
    target: Target, tables: Sequence[str], found: Mapping[str, Sequence[Held]], made: Sequence[Statement]
) -> Iterable[str]:
    """What whoever runs the statements should know. `tables` are those asked for by name."""
    for name in tables:
        if not found[name]:
            yield f"no tenant has {name} yet: there is no view of it"
    tenants = {held.database for several in found.values() for held in several}
    yield f"{counted(len(tenants), 'tenant')}. Run this again when a tenant or a column was added."
    yield target.filled(ENGINES[target.engine].remark)
    too_long = [one.name for one in made if len(one.sql.encode()) > ATHENA_BYTES_MAX]
    if target.engine is Engine.ATHENA and too_long:
        yield f"Athena takes {ATHENA_BYTES_MAX:,} bytes a statement, too few for {', '.join(too_long)}: name tenants."
