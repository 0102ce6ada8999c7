"""Every dialect there is, with its integration: those of the sandbox, and the reference."""

from functools import cache

from services.contracts.integration import Integration
from services.contracts.mapping_files import MappingFiles
from services.runtime.mapping_files import find_integration, load_mappings
from services.sandbox import vendors
from services.sandbox.vendors.dialect import Dialect
from tests.dialects import reference


def services() -> list[str]:
    """Every dialect's name, in order; each is imported when it is asked for, so that one that is broken breaks none."""
    return [*vendors.services(), reference.DIALECT.service]


def dialect_of(service: str) -> Dialect:
    return reference.DIALECT if service == reference.DIALECT.service else vendors.dialect(service)


@cache
def _files() -> MappingFiles:
    return load_mappings()


def integration_of(service: str) -> Integration:
    return reference.integration() if service == "reference" else find_integration(_files(), service)
