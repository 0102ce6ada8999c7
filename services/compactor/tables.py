"""The canonical tables in force: the mapping files, and what is pinned where they have moved on (DESIGN 2.4)."""

from collections.abc import Iterable, Mapping

import msgspec

from services.contracts.errors import FatalError, NotFoundError
from services.contracts.names import mapping_key
from services.contracts.ports import Objects
from services.contracts.schema import CanonicalTable, Column


class _Pinned(msgspec.Struct, frozen=True):
    """As much of a pinned mapping as concerns the lake."""

    table: CanonicalTable
    rebuilt: int = 0


class Tables:
    """Tables by name and by the mappings that observations name. Pinned mappings never change: each is read once."""

    def __init__(self, objects: Objects, files: Mapping[str, CanonicalTable]) -> None:
        self._objects, self._files = objects, files
        self._pinned: dict[tuple[str, str, str, int], _Pinned] = {}

    async def find(self, tenant_id: str, name: str, mappings: Iterable[tuple[str, int]]) -> CanonicalTable | None:
        """The table as the given mappings (service, mapping_version) have it, the highest first, and the columns of
        the files besides; None where nobody knows it.

        Errors: RetryableError, FatalError.
        """
        highest_first = sorted(mappings, key=lambda mapping: (-mapping[1], mapping[0]))
        found = [await self._read(tenant_id, name, *mapping) for mapping in highest_first]
        pinned = [one.table for one in found if one is not None]
        files = self._files.get(name)
        if not pinned:
            return files
        columns = {} if files is None else {column: _entering(it) for column, it in files.columns.items()}
        for table in reversed(pinned):
            columns |= table.columns
        return msgspec.structs.replace(pinned[0], columns=columns)

    async def by_service(
        self, tenant_id: str, name: str, mappings: Iterable[tuple[str, int]]
    ) -> dict[str, CanonicalTable]:
        """The table as each service's own mappings have it: which columns are tracked is a matter of the service.

        Errors: RetryableError, FatalError.
        """
        known = list(mappings)
        found = {
            service: await self.find(tenant_id, name, [one for one in known if one[0] == service])
            for service in sorted({service for service, _ in known})
        }
        return {service: table for service, table in found.items() if table is not None}

    async def rebuilt(self, tenant_id: str, name: str, mappings: Iterable[tuple[str, int]]) -> dict[str, int]:
        """By service the mapping that the last rebuild began with, as the given mappings know it; 0 where none did.

        Errors: RetryableError, FatalError.
        """
        numbers: dict[str, int] = {}
        for service, version in mappings:
            pinned = await self._read(tenant_id, name, service, version)
            if pinned is not None:
                numbers[service] = max(pinned.rebuilt, numbers.get(service, 0))
        return numbers

    async def _read(self, tenant_id: str, name: str, service: str, version: int) -> _Pinned | None:
        at = (tenant_id, name, service, version)
        if at not in self._pinned:
            key = mapping_key(tenant_id, name, service, version)
            try:
                self._pinned[at] = msgspec.json.decode(await self._objects.get(key), type=_Pinned)
            except NotFoundError:
                return None  # made outside a pipeline: the files say it all
            except msgspec.DecodeError as err:
                raise FatalError(f"a pinned mapping cannot be read ({err})", code="bad_mapping", where=key) from err
        return self._pinned[at]


def _entering(column: Column) -> Column:
    """A column that is in the files and not pinned yet is in no hash, whatever its file says: it enters untracked."""
    return msgspec.structs.replace(column, tracked=False)
