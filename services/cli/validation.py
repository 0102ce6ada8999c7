"""Every problem of a set of mapping files. A service stops at the first; whoever writes a file wants all of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from services.contracts.errors import UsageError
from services.contracts.integration import Integration
from services.contracts.mapping_checks import oversights
from services.contracts.mapping_files import (
    MappingError,
    Problem,
    check_against,
    decode_integration,
    decode_table,
)
from services.contracts.schema import CanonicalTable
from services.runtime.mapping_files import files_in_force

Folder = Literal["canonical", "integrations"]


def problems_of(own: Path | None, only: Sequence[Path]) -> tuple[list[Problem], int]:
    """The problems of all files in force (ours, with those of `own` laid over them) and how many files were checked.

    `only` limits both to some files, which may lie anywhere and are checked beside the others.
    Errors: UsageError for a file that cannot be read.
    """
    given = {file.resolve(): _folder_of(file) for file in only}
    tables = _in_force("canonical", own, given)
    integrations = _in_force("integrations", own, given)
    found = _problems(tables, integrations)
    if not given:
        return list(found), len(tables) + len(integrations)
    return [problem for problem in found if Path(problem.file).resolve() in given], len(given)


def _in_force(folder: Folder, own: Path | None, given: dict[Path, Folder]) -> list[Path]:
    """Of files with the same name the last counts."""
    files = [*files_in_force(folder, own), *(file for file, kind in given.items() if kind == folder)]
    return list({file.name: file for file in files}.values())


def _folder_of(file: Path) -> Folder:
    """By the folder a file lies in, else by what it holds."""
    if file.resolve().parent.name == "canonical":
        return "canonical"
    if file.resolve().parent.name == "integrations":
        return "integrations"
    try:
        plain = msgspec.json.decode(_read(file))
    except msgspec.DecodeError:
        return "integrations"
    return "canonical" if isinstance(plain, dict) and {"table", "columns"} & set(plain) else "integrations"


def _problems(tables: Iterable[Path], integrations: Iterable[Path]) -> Iterator[Problem]:
    read: dict[str, CanonicalTable] = {}
    unread: set[str] = set()
    for file in tables:
        try:
            table = decode_table(_read(file), _shown(file))
        except MappingError as err:
            unread.add(file.stem)
            yield from err.problems
            continue
        read[table.table] = table
        yield from _misnamed(file, "table", table.table)
    for file in integrations:
        try:
            integration = decode_integration(_read(file), _shown(file))
            yield from _misnamed(file, "service", integration.service)
            integration = _without(integration, unread)
            check_against(integration, read, _shown(file))
        except MappingError as err:
            yield from err.problems
            continue
        yield from (Problem(_shown(file), at, what, remedy) for at, what, remedy in oversights(integration, read))
        yield from _uncompilable(integration, read, _shown(file))


def _uncompilable(integration: Integration, tables: Mapping[str, CanonicalTable], shown: str) -> Iterator[Problem]:
    """What the services would refuse: parents that lead nowhere, unknown functions, constants of a wrong type."""
    from services.extractor.plan import specs
    from services.transformer.mapper import compile_fields

    try:
        specs(integration)
    except UsageError as err:
        yield Problem(shown, "$.endpoints", err.what, err.remedy)
    for name, endpoint in integration.endpoints.items():
        if endpoint.canonical is None:
            continue
        for column, field in endpoint.canonical.fields.items():
            only = msgspec.structs.replace(endpoint.canonical, fields={column: field})
            try:
                compile_fields(tables[only.table], only, None, "")
            except UsageError as err:
                yield Problem(shown, f"$.endpoints.{name}.canonical.fields.{column}", err.what, err.remedy)


def _without(integration: Integration, tables: set[str]) -> Integration:
    """Without the endpoints that feed one of `tables`: those files are told to be wrong already."""
    kept = {
        name: endpoint
        for name, endpoint in integration.endpoints.items()
        if endpoint.canonical is None or endpoint.canonical.table not in tables
    }
    return msgspec.structs.replace(integration, endpoints=kept)


def _misnamed(file: Path, field: str, name: str) -> Iterator[Problem]:
    if file.stem != name:
        what = f"the file is named {file.stem!r} and describes {field} {name!r}"
        yield Problem(_shown(file), f"$.{field}", what, f"Name it {name}.json.")


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as err:
        raise UsageError(f"this file cannot be read ({err.strerror})", where=str(file)) from err


def _shown(file: Path) -> str:
    """Relative to where we are, if below: short to read, and a click in most terminals."""
    full, here = file.resolve(), Path.cwd()
    return str(full.relative_to(here)) if full.is_relative_to(here) else str(file)
