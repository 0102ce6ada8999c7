"""From the records of a cut to the files it writes: which event goes where. Pure.

One file per tenant and folder: raw events by endpoint, canonical ones by table. What cannot be read becomes a dead
letter that names its position, and the rest flow on.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, Literal, TypeVar

import msgspec

from services.compactor import parquet
from services.compactor.cuts import Cut, Part
from services.contracts.envelope import Header, checksum, split
from services.contracts.errors import Code, RejectedError
from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.names import SYSTEM_PREFIX, canonical_folder, part_key, raw_folder
from services.contracts.ports import Record
from services.contracts.schema import CanonicalTable
from services.runtime.dead_letters import DeadLetter, letter_body
from services.runtime.envelopes import unseal
from services.runtime.poison import ALL, WHOLE, Reading, Readings, Suspect

Kind = Literal["raw", "canonical"]
E = TypeVar("E", ChangeEvent, CanonicalEvent)
STAGE: Final = "compact"
_raw = msgspec.json.Decoder(ChangeEvent).decode
_canonical = msgspec.json.Decoder(CanonicalEvent).decode


class Folder(msgspec.Struct, frozen=True, order=True):
    """Where the files of one tenant's endpoint or table lie."""

    tenant_id: str
    path: str
    name: str


class Contents(msgspec.Struct):
    """The events of a cut by folder, and what could not be read. `buckets` are (service, bucket) by folder."""

    raw: dict[Folder, list[ChangeEvent]] = {}
    canonical: dict[Folder, list[CanonicalEvent]] = {}
    buckets: dict[Folder, set[tuple[str, int]]] = {}
    letters: list[DeadLetter] = []

    def mappings(self, folder: Folder) -> set[tuple[str, int]]:
        return {(event.service, event.mapping_version) for event in self.canonical.get(folder, ())}


class NewFile(msgspec.Struct, frozen=True):
    """One file to write."""

    part: Part
    data: bytes


def header_of(record: Record) -> Header | None:
    """The header of a record's envelope, None where it has none that can be read."""
    try:
        return split(record.data)[0]
    except RejectedError:
        return None


def suspect_of(record: Record) -> Suspect:
    """A record as an inquest sees it."""
    header = header_of(record)
    if header is None:
        return Suspect(record.sequence, 0, len(record.data))
    return Suspect(record.sequence, max(0, header.count), header.body_bytes)


def contents(
    kind: Kind, shard: str, records: Iterable[Record], bodies: Mapping[str, bytes], readings: Readings | None = None
) -> Contents:
    """The events of these records. `bodies` holds, by object key, what lay beside the stream; one that is not there
    is gone. `readings` names what is poison: a dead letter, unread. Raw envelopes that were replayed are archived
    already."""
    found = Contents()
    for record in records:
        where = f"{shard}-{record.sequence}"
        try:
            header, packed = split(record.data)
        except RejectedError as err:
            found.letters.append(_letter(SYSTEM_PREFIX, kind, where, record, err, record.data))
            continue
        if kind == "raw" and header.replay:
            continue
        if header.object_key is not None:
            packed = bodies.get(header.object_key, b"")
        reading = (readings or {}).get(record.sequence, ALL)
        try:
            reading.check(WHOLE)
            lines = unseal(header, packed)
        except RejectedError as err:
            owner, attempts = header.partition, reading.attempts(WHOLE)
            found.letters.append(_letter(owner.tenant_id, owner.group, where, record, err, record.data, attempts))
            continue
        for number, line in enumerate(lines):
            if reading.tries(number):
                _sort(found, kind, header, line, number, record, reading, where)
    return found


def _sort(
    found: Contents,
    kind: Kind,
    header: Header,
    line: bytes,
    number: int,
    record: Record,
    reading: Reading,
    where: str,
) -> None:
    owner = header.partition
    try:
        reading.check(number)
        if kind == "raw":
            raw = _raw(line)
            _check_owner(header, raw)
            folder = Folder(owner.tenant_id, raw_folder(owner.tenant_id, raw.service, raw.endpoint), raw.endpoint)
            found.raw.setdefault(folder, []).append(raw)
        else:
            event = _canonical(line)
            _check_owner(header, event)
            folder = Folder(owner.tenant_id, canonical_folder(owner.tenant_id, event.table), event.table)
            found.canonical.setdefault(folder, []).append(event)
    except (msgspec.DecodeError, RejectedError) as err:
        error = err if isinstance(err, RejectedError) else RejectedError(f"not an event ({err})")
        at, attempts = f"{where}-{number}", reading.attempts(number)
        found.letters.append(_letter(owner.tenant_id, owner.group, at, record, error, line, attempts))
    else:
        found.buckets.setdefault(folder, set()).add((owner.service, owner.bucket))


def _check_owner(header: Header, event: ChangeEvent | CanonicalEvent) -> None:
    """One tenant's event never enters another's folder, whoever made the envelope."""
    owner = header.partition
    if (event.tenant_id, event.service) != (owner.tenant_id, owner.service):
        raise RejectedError("the event is of another tenant or service than its envelope", code="bad_envelope")


def _letter(
    tenant_id: str, group: str, where: str, record: Record, err: RejectedError, data: bytes, attempts: int = 1
) -> DeadLetter:
    body = letter_body(data)
    return DeadLetter(
        tenant_id,
        STAGE,
        group,
        where,
        err.code,
        err.what,
        record.arrived_at,  # not our time: whoever meets it again writes the same letter
        remedy=err.remedy,
        text=body.get("text"),
        base64=body.get("base64"),
        attempts=attempts,
    )


def new_files(
    found: Contents, cut: Cut, label: str, tables: Mapping[Folder, CanonicalTable]
) -> tuple[list[NewFile], list[DeadLetter]]:
    """The files of a cut, and letters for what no file can hold. `label` names the shard in file names."""
    made: list[NewFile] = []
    letters: list[DeadLetter] = []
    about = {"shard": label, **cut.about}
    for folder, raw in sorted(found.raw.items()):
        data, unfit = fitting(raw, partial(parquet.raw_file, about=about))
        letters += [_unfit(event, folder, label, cut, "bad_value", reason) for event, reason in unfit]
        if data is not None:
            made.append(NewFile(_part(folder, cut, label, len(raw) - len(unfit)), data))
    for folder, events in sorted(found.canonical.items()):
        table = tables.get(folder)
        if table is None:
            reason = f"there is no table {folder.name!r}"
            letters += [_unfit(event, folder, label, cut, "unknown_table", reason) for event in events]
            continue
        data, unfit_rows = fitting(events, partial(parquet.canonical_file, table=table, about=about))
        letters += [_unfit(event, folder, label, cut, "bad_value", reason) for event, reason in unfit_rows]
        if data is not None:
            part = msgspec.structs.replace(
                _part(folder, cut, label, len(events) - len(unfit_rows)),
                buckets=tuple(sorted(found.buckets[folder])),
                mappings=tuple(sorted(found.mappings(folder))),
            )
            made.append(NewFile(part, data))
    return made, letters


def _part(folder: Folder, cut: Cut, label: str, count: int) -> Part:
    return Part(folder.tenant_id, folder.name, folder.path, part_key(folder.path, cut.hour, label, cut.number), count)


def fitting(events: Sequence[E], write: Callable[[Sequence[E]], bytes]) -> tuple[bytes | None, list[tuple[E, str]]]:
    """The events as a file, and with a reason those whose values their columns cannot hold."""
    try:
        return write(events), []
    except parquet.UNFIT:
        problems = [(event, _problem(event, write)) for event in events]
    fit = [event for event, problem in problems if not problem]
    return write(fit) if fit else None, [(event, problem) for event, problem in problems if problem]


def _problem(event: E, write: Callable[[Sequence[E]], bytes]) -> str:
    try:
        write([event])
    except parquet.UNFIT as err:
        return str(err) or type(err).__name__
    return ""


def _unfit(
    event: ChangeEvent | CanonicalEvent, folder: Folder, label: str, cut: Cut, code: Code, reason: str
) -> DeadLetter:
    data = msgspec.json.encode(event)
    where = f"{label}-{cut.first}-{checksum(data)}"  # a cut does not know where in it an event stood; its digest does
    return DeadLetter(
        folder.tenant_id,
        STAGE,
        folder.name,
        where,
        code,
        reason,
        event.observed_at,
        record_id=event.record_id,
        text=data.decode(),
    )
