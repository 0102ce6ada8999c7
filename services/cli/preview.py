"""`avesa preview`: change events in files through mapping and fold, without AWS. For whoever writes a mapping."""

import sys
from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from services.cli.options import MappingsFolder, command
from services.cli.screen import Screen, counted
from services.contracts.errors import UsageError
from services.contracts.events import CanonicalEvent
from services.contracts.hints import did_you_mean
from services.contracts.mapping_files import MappingFiles
from services.contracts.rows import folded_rows
from services.contracts.schema import ROW_COLUMNS, CanonicalTable
from services.runtime.mapping_files import load_mappings
from services.transformer.preview import Preview, Previewed, live

app = typer.Typer()
STDIN = "-"
CELL_CHARS_MAX = 24
SHOWN_COLUMNS_MAX = 4  # business columns of a version shown to a person; --json has all


class Through(StrEnum):
    """What folds the observations: the pure fold, or a throwaway Iceberg table by the compactor's own code."""

    fold = "fold"
    table = "table"


@command(
    app,
    "preview",
    "avesa preview events.ndjson",
    "avesa preview --through table --json monday.ndjson tuesday.ndjson",
    "avesa preview --live --table tickets -",
)
def preview(
    screen: Screen,
    files: Annotated[list[str], typer.Argument(metavar="FILE...", help="Change events as NDJSON; - is stdin.")],
    mappings: MappingsFolder = None,
    table: Annotated[str | None, typer.Option("--table", metavar="TABLE", help="This canonical table only.")] = None,
    through: Annotated[
        Through,
        typer.Option("--through", help="fold: all files at once; table: each merged in turn into a throwaway table."),
    ] = Through.fold,
    labels: Annotated[
        bool, typer.Option("--live", help="One labelled line per observation instead of versions.")
    ] = False,
) -> int:
    """Show which versions change events become, with your mapping, without AWS.

    Each file is one batch. A line that cannot be used is named on stderr and the rest go on (exit code 3).
    """
    known = load_mappings(mappings)
    _check_table(known, table)
    reader = Preview(known, table)
    batches = [_read(reader, file) for file in files]
    if labels:
        _show_labels(screen, known, batches)
    else:
        _show_rows(screen, known.tables, batches, through)
    return _report(screen, batches)


def _check_table(mappings: MappingFiles, table: str | None) -> None:
    if table is not None and table not in mappings.tables:
        hint = did_you_mean(table, mappings.tables) or f"Known: {', '.join(sorted(mappings.tables))}."
        raise UsageError(f"there is no canonical table {table!r}", code="unknown_table", remedy=hint)


def _read(reader: Preview, file: str) -> Previewed:
    if file == STDIN:
        return reader.read(sys.stdin.buffer, "standard input")
    try:
        with Path(file).open("rb") as lines:
            return reader.read(lines, file)
    except OSError as err:
        raise UsageError(f"cannot read {file} ({(err.strerror or 'unknown').lower()})") from err


def _show_rows(screen: Screen, tables: dict[str, CanonicalTable], batches: list[Previewed], through: Through) -> None:
    events = [batch.events for batch in batches]
    if through is Through.table:
        from services.compactor.local_table import merge_files

        rows = merge_files(events, tables)
    else:
        rows = folded_rows((event for batch in events for event in batch), tables)
    if screen.as_json:
        for row in rows:
            screen.record(row)
        return
    screen.show(rows, {name: _cell_of(name) for name in _shown(rows)}, empty="no versions")


def _shown(rows: list[dict[str, Any]]) -> list[str]:
    """Who, when, and the first business columns that say something."""
    business = [name for row in rows for name, value in row.items() if name not in ROW_COLUMNS and value is not None]
    some = list(dict.fromkeys(business))[:SHOWN_COLUMNS_MAX]
    return ["tenant_id", "service", "record_id", "valid_from", "valid_to", "is_current", *some]


def _cell_of(name: str) -> Any:
    def cell(row: dict[str, Any]) -> object:
        value = row.get(name)
        if isinstance(value, str) and name not in ROW_COLUMNS and len(value) > CELL_CHARS_MAX:
            return value[: CELL_CHARS_MAX - 1] + "…"
        return value

    return cell


def _show_labels(screen: Screen, mappings: MappingFiles, batches: Iterable[Previewed]) -> None:
    scds = {name: table.scd for name, table in mappings.tables.items()}
    seen = list(live((event for batch in batches for event in batch.events), scds))
    screen.show(
        seen,
        {
            "effective_at": lambda event: event.effective_at,
            "table": lambda event: event.table,
            "tenant_id": lambda event: event.tenant_id,
            "service": lambda event: event.service,
            "record_id": lambda event: event.record_id,
            "label": lambda event: event.label,
            "changed": _changes,
        },
        empty="no observations",
    )


def _changes(event: CanonicalEvent) -> str:
    def text(value: Any) -> str:
        shown = bytes(value).decode()
        return shown if len(shown) <= CELL_CHARS_MAX else shown[: CELL_CHARS_MAX - 1] + "…"

    return ", ".join(f"{name}: {text(one.before)} -> {text(one.after)}" for name, one in event.changed.items())


def _report(screen: Screen, batches: list[Previewed]) -> int:
    problems = [problem for batch in batches for problem in batch.problems]
    for problem in problems:
        where = f" at {problem.where}" if problem.where else ""
        screen.alarm(f"{problem.file}:{problem.line}{where}: {problem.what}")
    unmapped = sum(batch.unmapped for batch in batches)
    if unmapped:
        screen.note(f"{counted(unmapped, 'event')} of endpoints that no table is mapped from")
    if problems:
        screen.note(f"{counted(len(problems), 'line')} could not be used; everything else is above")
    return 3 if problems else 0
