"""Which mappers the events of a tenant's service go to: the pinned mappings, compiled, and read again now and then."""

from collections.abc import Callable

import msgspec

from services.contracts.log import Event
from services.contracts.mapping_files import MappingFiles
from services.contracts.ports import Clock, Objects
from services.transformer.groups import ALL_TABLES, Binding
from services.transformer.mapper import Mapper, Routes, routes
from services.transformer.pinned import Pinned, PinnedMappings, encode, shipped

AGE_MAX_S = 600.0  # a rebuild elsewhere, or a newer worker's column, is noticed after so long
ENTRIES_MAX = 20_000  # tenants times services held at once; beyond it everything is read again


class _Entry(msgspec.Struct, frozen=True):
    routes: Routes | None
    read_at: float


class Catalogue:
    """The routes of every tenant and service met, to the tables that a group is bound to: an endpoint that feeds none
    of them has no route, and its envelopes are passed by their headers.

    Errors: RetryableError, FatalError (PinnedMappings).
    """

    def __init__(
        self,
        objects: Objects,
        mappings: MappingFiles,
        clock: Clock,
        emit: Callable[[Event], None],
        binding: Binding = ALL_TABLES,
    ) -> None:
        self.binding = binding
        self._pinned, self._clock = PinnedMappings(objects, mappings, emit, binding.routes_table), clock
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._compiled: dict[bytes, Mapper] = {}

    async def routes(self, tenant_id: str, service: str) -> Routes | None:
        """None where no file describes the service and nothing is pinned: nobody can say which tables it feeds."""
        now = self._clock.monotonic()
        entry = self._entries.get((tenant_id, service))
        if entry is None or now - entry.read_at > AGE_MAX_S:
            if len(self._entries) >= ENTRIES_MAX:
                self._entries.clear()
                self._compiled.clear()
            pinned = await self._pinned.load(tenant_id, service)
            known = bool(pinned) or self._pinned.describes(service)
            entry = _Entry(routes(self._compile(table) for table in pinned.values()) if known else None, now)
            self._entries[tenant_id, service] = entry
        return entry.routes

    def _compile(self, pinned: Pinned) -> Mapper:
        """Tenants with the same mapping share one: compiled, it is some forty closures an endpoint."""
        content = encode(msgspec.structs.replace(pinned, tenant_id="", service="", rebuilt=0, rebuilt_at=None))
        if content not in self._compiled:
            self._compiled[content] = Mapper(pinned)
        return self._compiled[content]


def check(mappings: MappingFiles, binding: Binding = ALL_TABLES) -> None:
    """Compile every mapping to a table of a group, so that a mistake is told at the start and not at the first event.

    Errors: UsageError with the place in the file.
    """
    for service in mappings.integrations:
        for table, pinned in shipped(mappings, "", service).items():
            if binding.routes_table(table):
                Mapper(pinned)
