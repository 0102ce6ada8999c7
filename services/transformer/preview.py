"""Change events as a person writes them, through the mapping: what `avesa preview` shows, without AWS.

The files may be typed by hand: times in any spelling of RFC 3339 become contract text here, an id may be a number or a
list of parts. Everything after that is what the transformer does.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from services.contracts.errors import RejectedError
from services.contracts.events import CanonicalEvent, ChangeEvent, Evidence, Op, ServiceName, TenantId
from services.contracts.fold import Scd
from services.contracts.integration import integration_name
from services.contracts.json_text import without_lone_surrogates
from services.contracts.mapping_files import MappingFiles
from services.contracts.rows import Entity, entity_of
from services.contracts.times import read_time
from services.transformer.mapper import Mapper, Routes, routes
from services.transformer.pinned import shipped
from services.transformer.timelines import Timeline, labelled, observe


class WrittenEvent(msgspec.Struct, frozen=True, gc=False):
    """A change event (DESIGN 2.1) as a file may spell it. `observed_at` may be missing where `effective_at` is not."""

    tenant_id: TenantId
    service: ServiceName
    endpoint: str
    record_id: str | int | list[str | int]
    op: Op
    effective_at: str | None = None
    observed_at: str | None = None
    evidence: Evidence = "vendor"
    source: str = ""
    payload: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Problem(msgspec.Struct, frozen=True):
    """One line of a file that cannot be used, and why; `where` is the place in the line."""

    file: str
    line: int
    what: str
    where: str = ""


class Previewed(msgspec.Struct):
    """One file: its mapped events, what could not be used, and how many events no table wants."""

    events: list[CanonicalEvent] = []
    problems: list[Problem] = []
    unmapped: int = 0


_decode = msgspec.json.Decoder(WrittenEvent).decode


def read_event(line: bytes) -> ChangeEvent:
    """One line of a file. Errors: RejectedError saying what is wrong with it."""
    try:
        written = _written(line)
        record_id = _record_id(written.record_id)
        effective_at = None if written.effective_at is None else read_time(written.effective_at)
        observed_at = effective_at if written.observed_at is None else read_time(written.observed_at)
    except (msgspec.DecodeError, ValueError, RecursionError) as err:
        raise RejectedError(str(err)) from err
    if observed_at is None:
        raise RejectedError("neither `observed_at` nor `effective_at` is there", code="unreadable_time")
    if not record_id:
        raise RejectedError("`record_id` is empty", code="missing_key", where="$.record_id")
    return ChangeEvent(
        written.tenant_id,
        written.service,
        written.endpoint,
        record_id,
        written.op,
        effective_at or observed_at,
        observed_at,
        written.evidence,
        written.source,
        msgspec.UNSET if written.op == "delete" else written.payload,
    )


def _written(line: bytes) -> WrittenEvent:
    try:
        return _decode(line)
    except msgspec.DecodeError:
        repaired = without_lone_surrogates(line)
        if repaired == line:
            raise
        return _decode(repaired)


def _record_id(written: str | int | list[str | int]) -> str:
    if isinstance(written, list):
        return msgspec.json.encode([str(part) for part in written]).decode()
    return str(written)


class Preview:
    """Maps files of change events with the mapping files as they are."""

    def __init__(self, mappings: MappingFiles, table: str | None = None) -> None:
        """`table`: only this one."""
        self._mappings, self._table = mappings, table
        self._routes: dict[tuple[str, str], Routes] = {}

    def read(self, lines: Iterable[bytes], file: str) -> Previewed:
        """Every line of a file; blank ones are passed over."""
        found = Previewed()
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                event = read_event(line)
                mapped = list(self._mapped(event))
            except RejectedError as err:
                found.problems.append(Problem(file, number, err.what, err.where))
            else:
                found.events += mapped
                found.unmapped += not self._mappers(event)
        return found

    def _mapped(self, event: ChangeEvent) -> Iterator[CanonicalEvent]:
        for mapper in self._mappers(event):
            if self._table in (None, mapper.table.table):
                canonical = mapper.map(event)
                if canonical is not None:
                    yield canonical

    def _mappers(self, event: ChangeEvent) -> Sequence[Mapper]:
        if integration_name(event.service) not in self._mappings.integrations:
            known = ", ".join(sorted(self._mappings.integrations))
            raise RejectedError(f"there is no service {event.service!r} (known: {known})", where="$.service")
        key = (event.tenant_id, event.service)
        if key not in self._routes:
            self._routes[key] = routes(map(Mapper, shipped(self._mappings, *key).values()))
        return self._routes[key].get(event.endpoint, ())


def live(events: Iterable[CanonicalEvent], scds: Mapping[str, Scd]) -> Iterator[CanonicalEvent]:
    """The events in order of arrival, each with the label it has at that moment."""
    timelines: dict[Entity, Timeline] = {}
    for event in events:
        entity = entity_of(event)
        seen = observe(timelines.get(entity), event, scd=scds[event.table])
        timelines[entity] = seen.timeline
        yield labelled(event, seen)
