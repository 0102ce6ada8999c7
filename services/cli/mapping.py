"""`avesa mapping`: what the mapping files say, and whether they are right."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from services.cli.options import MappingsFolder, command
from services.cli.screen import Screen, counted, lasting
from services.cli.spelling import service_meant
from services.cli.validation import problems_of
from services.contracts.errors import UsageError
from services.contracts.fields import Call, Constant, Field, First, Item, ValueMap, When
from services.contracts.hints import did_you_mean
from services.contracts.integration import Endpoint, Integration
from services.contracts.mapping_files import MappingFiles, Problem, json_schema
from services.contracts.reading import DeltaToken, NoIncremental, SinceId, SinceTime, Sweep
from services.contracts.schema import CanonicalTable, Name
from services.runtime.mapping_files import check_folder, load_mappings

app = typer.Typer(help="The mapping files: list, show, new, validate, conform, schema.", no_args_is_help=False)


# -- list -------------------------------------------------------------------------------------------------------------
class ListedEndpoint(msgspec.Struct, frozen=True):
    """One endpoint and the table its records become, None for the raw archive only."""

    service: str
    endpoint: str
    title: str
    table: str | None
    enabled: bool


class ListedTable(msgspec.Struct, frozen=True):
    """One canonical table; `fed_by` names endpoints as `service.endpoint`."""

    table: str
    scd: int
    columns: int
    fed_by: list[str]


@command(app, "list", "avesa mapping list")
def list_(screen: Screen, mappings: MappingsFolder = None) -> None:
    """List services, endpoints, and which feeds which table."""
    files = load_mappings(mappings)
    screen.show(
        [
            ListedEndpoint(service, name, endpoint.title, _table_of(endpoint), endpoint.enabled)
            for service, integration in files.integrations.items()
            for name, endpoint in integration.endpoints.items()
        ],
        {
            "SERVICE": lambda row: row.service,
            "ENDPOINT": lambda row: row.endpoint,
            "TITLE": lambda row: row.title,
            "TABLE": lambda row: row.table or "(raw only)",
            "READ": lambda row: row.enabled,
        },
    )
    screen.say()
    screen.show(
        [
            ListedTable(table.table, table.scd, len(table.columns), [name for name, _ in _feeders(files, table.table)])
            for table in files.tables.values()
        ],
        {
            "TABLE": lambda row: row.table,
            "HISTORY": lambda row: row.scd == 2,
            "COLUMNS": lambda row: row.columns,
            "FED BY": lambda row: ", ".join(row.fed_by),
        },
    )


def _table_of(endpoint: Endpoint) -> str | None:
    return endpoint.canonical.table if endpoint.canonical is not None else None


def _feeders(files: MappingFiles, table: str) -> Iterator[tuple[str, Endpoint]]:
    """(`service.endpoint`, endpoint) of all that feed a table."""
    for service, integration in files.integrations.items():
        for name, endpoint in integration.endpoints.items():
            if _table_of(endpoint) == table:
                yield f"{service}.{name}", endpoint


# -- show -------------------------------------------------------------------------------------------------------------
@command(app, "show", "avesa mapping show tickets", "avesa mapping show connectwise --endpoint tickets")
def show_(
    screen: Screen,
    name: Annotated[str, typer.Argument(metavar="SERVICE|TABLE", help="A service or a canonical table.")],
    endpoint: Annotated[
        str | None, typer.Option("--endpoint", metavar="ENDPOINT", help="One endpoint: where each column comes from.")
    ] = None,
    mappings: MappingsFolder = None,
) -> None:
    """Show one service, one of its endpoints, or one table."""
    files = load_mappings(mappings)
    if name in files.tables and endpoint is None:
        _show_table(screen, files, files.tables[name])
        return
    integration = _integration_named(name, files)
    if endpoint is None:
        _show_service(screen, integration)
    elif endpoint in integration.endpoints:
        _show_endpoint(screen, integration, endpoint)
    else:
        hint = did_you_mean(endpoint, integration.endpoints)
        known = f"Known: {', '.join(integration.endpoints)}."
        raise UsageError(f"{integration.service} has no endpoint {endpoint!r}", remedy=f"{hint} {known}".strip())


def _integration_named(name: str, files: MappingFiles) -> Integration:
    try:
        return files.integrations[service_meant(name, files.integrations).partition(":")[0]]
    except UsageError as err:
        hint = did_you_mean(name, [*files.integrations, *files.tables])
        known = f"Services: {', '.join(files.integrations)}. Tables: {', '.join(files.tables)}."
        raise UsageError(f"there is no service or table {name!r}", remedy=f"{hint} {known}".strip()) from err


def _show_table(screen: Screen, files: MappingFiles, table: CanonicalTable) -> None:
    if screen.as_json:
        screen.record(table)
        return
    screen.say(f"{table.table}: {table.description or 'canonical table'}")
    screen.say("history of every record" if table.scd == 2 else "living records only, no history")
    feeders = list(_feeders(files, table.table))
    screen.say(f"fed by: {', '.join(name for name, _ in feeders) or 'nothing yet'}\n")
    screen.show(
        table.all_columns().items(),
        {
            "COLUMN": lambda row: row[0],
            "TYPE": lambda row: row[1].type,
            "TRACKED": lambda row: row[1].tracked,
            "MAPPED BY": lambda row: ", ".join(
                feeder for feeder, endpoint in feeders if endpoint.canonical and row[0] in endpoint.canonical.fields
            ),
            "DESCRIPTION": lambda row: row[1].description,
        },
    )


def _show_service(screen: Screen, integration: Integration) -> None:
    if screen.as_json:
        screen.record(integration)
        return
    limits = integration.limits
    screen.say(f"{integration.service}: {integration.title}")
    screen.say(f"at:      {integration.base_url}")
    ways = integration.auth if isinstance(integration.auth, list) else [integration.auth]
    screen.say(f"auth:    {' or '.join(str(way.__struct_config__.tag) for way in ways)}")
    screen.say(
        f"limits:  {limits.share:.0%} of {limits.requests} requests in {lasting(limits.window_s)}, "
        f"{limits.concurrency} at once"
    )
    for quota in limits.quotas:
        screen.say(f"         and {limits.share:.0%} of {quota.amount:g} {quota.unit} in {lasting(quota.window_s)}")
    if integration.customers is not None:
        screen.say("partner: one credential may read all its customers (avesa services customers)")
    if integration.described_by:
        screen.say(f"see:     {integration.described_by}")
    for source in integration.sources:
        screen.say(f"         {source}")
    screen.say()
    screen.show(
        integration.credentials.items(),
        {
            "CREDENTIAL": lambda row: row[1].title,
            "VARIABLE": lambda row: f"{integration.service}_{row[0]}".upper(),
            "SECRET": lambda row: row[1].secret,
            "WHERE TO FIND IT": lambda row: row[1].hint,
        },
    )
    screen.say()
    screen.show(
        integration.endpoints.items(),
        {
            "ENDPOINT": lambda row: row[0],
            "PATH": lambda row: row[1].path,
            "TABLE": lambda row: _table_of(row[1]) or "(raw only)",
            "EVERY": lambda row: lasting(row[1].interval_s) if row[1].enabled else "not read",
            "LAG": lambda row: _lag(row[1], integration),
            "CHANGES": lambda row: changes_in_words(row[1], integration),
            "DELETES": lambda row: deletes_in_words(row[0], integration),
            "PERMISSION": lambda row: row[1].permission,
        },
    )


def _lag(endpoint: Endpoint, integration: Integration) -> str | None:
    """How late the vendor may show a change; with EVERY it is what `avesa status` calls PROMISED."""
    since = endpoint.incremental or integration.incremental
    return lasting(since.lag_s) if isinstance(since, SinceTime) and since.lag_s else None


def changes_in_words(endpoint: Endpoint, integration: Integration) -> str:
    """How what changed is told from what did not."""
    parent = endpoint.parent
    below = f", for each changed record of {parent.endpoint}" if parent is not None and parent.when_changed else ""
    match endpoint.incremental or integration.incremental:
        case SinceTime(newest_first=True):
            words = "newest first, down to the last seen"
        case SinceTime():
            words = "since a time"
        case SinceId():
            words = "above the highest id"
        case DeltaToken():
            words = "by delta token"
        case NoIncremental():
            words = "full reads"
    return words + below


def deletes_in_words(name: str, integration: Integration) -> str:
    """How deletions of an endpoint's records are noticed; there may be several ways."""
    endpoint = integration.endpoints[name]
    deletes = endpoint.deletes or integration.deletes
    words = [f"sweep every {lasting(deletes.interval_s)}"] if isinstance(deletes, Sweep) else []
    if endpoint.deleted_when is not None:
        wanted = f" is {' or '.join(endpoint.deleted_when.equals)}" if endpoint.deleted_when.equals else ""
        words.append(f"where {endpoint.deleted_when.path}{wanted}")
    told = [
        other for other, each in integration.endpoints.items() if name in (stone.endpoint for stone in each.tombstones)
    ]
    words += [f"told by {other}" for other in told]
    return ", ".join(words) or "not seen"


def _show_endpoint(screen: Screen, integration: Integration, name: str) -> None:
    endpoint = integration.endpoints[name]
    if screen.as_json:
        screen.record(endpoint)
        return
    keys = [endpoint.record_id] if isinstance(endpoint.record_id, str) else endpoint.record_id
    screen.say(f"{integration.service}.{name}: {endpoint.title or endpoint.path}")
    screen.say(f"path:        {endpoint.path}")
    screen.say(f"record id:   {' + '.join(keys)}   (family {integration.family_of(name)})")
    screen.say(f"modified at: {endpoint.updated_at or integration.updated_at or 'not told by the vendor'}")
    screen.say(f"changes:     {changes_in_words(endpoint, integration)}")
    screen.say(f"deletes:     {deletes_in_words(name, integration)}")
    if endpoint.parent is not None:
        along = f", whose {', '.join(endpoint.parent.include)} each takes along" if endpoint.parent.include else ""
        screen.say(f"below:       each record of {endpoint.parent.endpoint}{along}")
    if endpoint.permission:
        screen.say(f"needs:       {endpoint.permission}")
    if endpoint.drop:
        screen.say(f"left out:    {', '.join(endpoint.drop)}")
    if endpoint.canonical is None:
        screen.say("table:       none, its records go to the raw archive only")
        return
    screen.say(f"table:       {endpoint.canonical.table}\n")
    columns = {"COLUMN": lambda row: row[0], "COMES FROM": lambda row: in_words(row[1])}
    screen.show(endpoint.canonical.fields.items(), columns)


def in_words(field: Field) -> str:
    """Where a column's value comes from."""
    match field:
        case str():
            words = field
        case First():
            words = f"the first of {', '.join(field.paths)}"
        case ValueMap():
            known = ", ".join(f"{value} = {meaning}" for value, meaning in field.values.items())
            words = f"{field.path} ({known})"
        case When():
            words = f"{field.path}, where {field.test} is {' or '.join(field.equals)}"
        case Item():
            wanted = f"the item of {field.path} whose {field.test} is {' or '.join(field.equals)}"
            words = f"{field.value} of {wanted}" if field.value else wanted
        case Constant():
            words = f"always {field.value!r}"
        case Call():
            words = f"{field.name}({', '.join(field.paths)})"
    return words


# -- validate ---------------------------------------------------------------------------------------------------------
@command(app, "validate", "avesa mapping validate --mappings ./mappings", "avesa mapping validate tickets.json")
def validate(
    screen: Screen,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="These files only, seen beside all others.")
    ] = None,
    mappings: MappingsFolder = None,
) -> int:
    """Find every problem in the mapping files.

    Each with its file and JSON path, what was expected, and what was probably meant. Exit code 1 if there is one.
    """
    check_folder(mappings)
    problems, checked = problems_of(mappings, files or [])
    _show_problems(screen, problems)
    if problems:
        wrong = len({problem.file for problem in problems})
        screen.note(f"{counted(len(problems), 'problem')} in {wrong} of {counted(checked, 'file')}")
        return 1
    screen.note(f"{counted(checked, 'file')}, no problem")
    return 0


def _show_problems(screen: Screen, problems: Iterable[Problem]) -> None:
    for problem in problems:
        if screen.as_json:
            screen.record(problem)
        else:
            remedy = f" {problem.remedy}" if problem.remedy else ""
            screen.say(f"{problem.file} at {problem.at}\n  {problem.what}.{remedy}")


# -- new --------------------------------------------------------------------------------------------------------------
@command(app, "new", "avesa mapping new acme_desk --mappings ./mappings")
def new(
    screen: Screen,
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="Its name: small letters, digits and _.")],
    mappings: MappingsFolder = Path("mappings"),
) -> None:
    """Write an integration to start from, with the schemas editors complete and check by.

    It lies in integrations/ of the folder, ./mappings where none is named, and validates as it is. The page
    docs/writing-an-integration.md goes on from there.
    """
    from services.cli.skeleton import write_skeleton

    try:
        msgspec.convert(service, Name)
    except msgspec.ValidationError as err:
        remedy = "Small letters, digits and _, beginning with a letter: acme_desk."
        raise UsageError(f"{service!r} is no name for a service", where="SERVICE", remedy=remedy) from err
    folder = mappings or Path("mappings")
    written = write_skeleton(service, folder)
    screen.show([{"file": str(file)} for file in written], {"WRITTEN": lambda row: row["file"]})
    screen.note(f"next: edit it, then `avesa mapping validate --mappings {folder}`")


# -- conform ----------------------------------------------------------------------------------------------------------
@command(
    app,
    "conform",
    "avesa mapping conform connectwise --openapi connectwise_psa.json",
    "avesa mapping conform --openapi ../shared/vendors/specs",
)
def conform_(
    screen: Screen,
    service: Annotated[
        str | None, typer.Argument(metavar="[SERVICE]", help="This service only.", show_default=False)
    ] = None,
    openapi: Annotated[
        Path | None,
        typer.Option(
            "--openapi",
            metavar="FILE|DIR",
            help="The vendor's OpenAPI 3 or Swagger 2 file as JSON, or a folder of such files: there the name "
            "`described_by` gives, else SERVICE.json. Default: the folder openapi, where there is one.",
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every fact, confirmed ones too.")] = False,
    mappings: MappingsFolder = None,
) -> int:
    """Compare integrations with what their vendors publish of their APIs.

    Paths, parameters, page sizes and every field: confirmed, contradicted or not described. Exit code 1 where something
    is contradicted that the file does not explain (`described.differs`). A description that is not there: NOT CHECKED.
    """
    from services.cli.conforming import (
        compare,
        description_name,
        descriptions_at,
        integrations_of,
        show_compared,
        show_sum,
    )

    place = descriptions_at(openapi)
    tables, integrations = integrations_of(mappings, service)
    compared, missing = [], []
    for integration in integrations:
        found = compare(integration, tables, place)
        if found is None:
            missing.append((integration.service, description_name(integration) if place.is_dir() else str(place)))
            continue
        compared.append(found)
        show_compared(screen, found, every=every)
    show_sum(screen, compared, missing)
    if missing:
        screen.note(f"NOT CHECKED: {', '.join(name for name, _ in missing)} (no description at {place})")
    return 0 if all(each.holds for each in compared) else 1


# -- schema -----------------------------------------------------------------------------------------------------------
@command(app, "schema", "avesa mapping schema integration > integration.schema.json")
def schema_(
    screen: Screen,
    kind: Annotated[
        str, typer.Argument(metavar="integration|canonical", help="Which kind of file.", show_default=False)
    ] = "integration",
) -> None:
    """Print the JSON Schema of a kind of file, for editors."""
    kinds: dict[str, type[Integration] | type[CanonicalTable]] = {
        "integration": Integration,
        "canonical": CanonicalTable,
    }
    if kind not in kinds:
        raise UsageError(f"there is no schema {kind!r}", remedy="Known: integration, canonical.")
    schema = json_schema(kinds[kind])
    if screen.as_json:
        screen.record(schema)
    else:
        screen.say(msgspec.json.format(msgspec.json.encode(schema), indent=2).decode())
