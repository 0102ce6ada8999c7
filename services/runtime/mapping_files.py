"""Finding and reading the mapping files: ours, shipped with the package, and a user's own laid over them."""

from pathlib import Path

from services.contracts.errors import UsageError
from services.contracts.integration import Integration, integration_name
from services.contracts.mapping_files import (
    MappingFiles,
    RoutesTable,
    check_against,
    decode_integration,
    decode_table,
    every_table,
)
from services.contracts.schema import CanonicalTable

_PACKAGE = Path(__file__).resolve().parents[1]
SHIPPED = _PACKAGE / "mappings" if (_PACKAGE / "mappings").is_dir() else _PACKAGE.parent / "mappings"


def load_mappings(own: Path | None = None, routes_table: RoutesTable = every_table) -> MappingFiles:
    """Every mapping file in force; a file of `own` replaces ours of the same name.

    Shape:  of canonical tables only those that are routed. What is wrong with the others, in their own file or where an
            endpoint feeds them, is no concern of who asks.
    Errors: UsageError with file, JSON path and what was expected.
    """
    check_folder(own)
    tables: dict[str, CanonicalTable] = {}
    for file in files_in_force("canonical", own):
        if not routes_table(file.stem):
            continue
        table = decode_table(_read(file), _shown(file))
        if table.table != file.stem:
            raise UsageError(
                f"this file is named {file.stem!r} and describes table {table.table!r}", where=_shown(file)
            )
        tables[table.table] = table
    integrations: dict[str, Integration] = {}
    for file in files_in_force("integrations", own):
        integration = decode_integration(_read(file), _shown(file), routes_table)
        if integration.service != file.stem:
            raise UsageError(
                f"this file is named {file.stem!r} and describes service {integration.service!r}", where=_shown(file)
            )
        check_against(integration, tables, _shown(file), routes_table)
        integrations[integration.service] = integration
    return MappingFiles(integrations, tables)


def table_names(own: Path | None = None) -> list[str]:
    """The canonical tables there are, in order; a file that cannot be read names its table all the same.

    Errors: UsageError when `own` is no folder of mapping files.
    """
    check_folder(own)
    return [file.stem for file in files_in_force("canonical", own)]


def check_folder(own: Path | None) -> None:
    """Errors: UsageError when `own` is no folder of mapping files."""
    if own is not None and not own.is_dir():
        raise UsageError(
            f"{own} is not a folder", remedy="--mappings takes a folder with canonical/ and integrations/."
        )
    if own is not None and not any((own / folder).is_dir() for folder in ("canonical", "integrations")):
        raise UsageError(
            f"{own} has neither a folder canonical/ nor integrations/", remedy="Mapping files lie in one of these."
        )


def find_integration(mappings: MappingFiles, service: str) -> Integration:
    """The integration of a service (its instance aside). Errors: UsageError listing what there is."""
    found = mappings.integrations.get(integration_name(service))
    if found is None:
        known = ", ".join(sorted(mappings.integrations))
        raise UsageError(f"there is no service {service!r}", code="unknown_service", remedy=f"Known: {known}.")
    return found


def files_in_force(folder: str, own: Path | None) -> list[Path]:
    """The files of `canonical` or `integrations`, by name: ours, and those of `own` in place of ours of that name."""
    found = {file.name: file for place in (SHIPPED, own) if place for file in sorted((place / folder).glob("*.json"))}
    return [found[name] for name in sorted(found)]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as err:
        raise UsageError(f"cannot read this file ({err.strerror})", where=_shown(file)) from err


def _shown(file: Path) -> str:
    try:
        return str(file.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(file)
