"""What a few envelopes of the raw stream become: canonical events, and letters for what cannot be used.

Pure but for the memory it reads and writes; run on a thread, in slices, so that the loop stays live.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from services.contracts.envelope import Header, split
from services.contracts.errors import RejectedError
from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.names import SYSTEM_PREFIX, TENANT_PATTERN, oversize_key
from services.contracts.partitions import Partition
from services.contracts.times import UtcTime
from services.runtime.dead_letters import DeadLetter, letter_body
from services.runtime.envelopes import OVERSIZE_BYTES_MAX, Sealed, seal, unseal
from services.transformer.drift import Drift, Place
from services.transformer.mapper import Mapper, Routes
from services.transformer.state import Memory, entity_key
from services.transformer.timelines import Timeline, labelled, observe

STAGE: Final = "transform"
NO_GROUP: Final = "envelopes"  # of a letter whose endpoint is not known
# What a header's names may be: they become parts of object keys. Tenant and service as in contracts/events.py.
_NAMES: Final = (
    TENANT_PATTERN,
    re.compile(r"[a-z0-9_]+(:[A-Za-z0-9_.-]+)?"),
    re.compile(r"[A-Za-z0-9_.-]{1,128}"),
)

_decode = msgspec.json.Decoder(ChangeEvent).decode
_encode = msgspec.json.Encoder().encode
_Source = tuple[str, str]


class Envelope(msgspec.Struct, frozen=True, gc=False):
    """One record of the raw stream, its header read; `packed` is the body, wherever it lay."""

    shard: str
    sequence: str
    header: Header
    packed: bytes
    data: bytes

    @property
    def position(self) -> str:
        return f"{self.shard}-{self.sequence}"

    @property
    def source(self) -> _Source:
        """Whose: tenant and service."""
        return self.header.partition.tenant_id, self.header.partition.service


class _Run(msgspec.Struct):
    """Lines of one partition that can share an envelope: neighbours from one endpoint."""

    endpoint: str
    replay: bool
    lines: list[bytes]


class Output:
    """What is to be published and written before a position may move."""

    def __init__(self) -> None:
        self._runs: dict[Partition, list[_Run]] = {}
        self.letters: list[DeadLetter] = []
        self.drifts: dict[Place, Drift] = {}
        self.events = 0
        self.size = 0

    def add(self, partition: Partition, endpoint: str, replay: bool, line: bytes) -> None:
        runs = self._runs.setdefault(partition, [])
        if not runs or (runs[-1].endpoint, runs[-1].replay) != (endpoint, replay):
            runs.append(_Run(endpoint, replay, []))
        runs[-1].lines.append(line)
        self.size += len(line)

    def reject(
        self, header: Header, position: str, data: bytes, error: RejectedError, at: UtcTime, record_id: str = ""
    ) -> None:
        self.letters.append(letter(header.partition.tenant_id, header.endpoint, position, data, error, at, record_id))
        self.size += len(data)

    def drift(self, header: Header) -> Drift:
        return self.drifts.setdefault((header.partition.tenant_id, header.partition.service, header.endpoint), Drift())

    def sealed(self) -> list[Sealed]:
        """The envelopes to publish, each partition's in order."""
        return [
            envelope
            for partition, runs in self._runs.items()
            for run in runs
            for envelope in seal(partition, run.endpoint, run.lines, replay=run.replay)
        ]


def letter(
    tenant_id: str, group: str, position: str, data: bytes, error: RejectedError, at: UtcTime, record_id: str = ""
) -> DeadLetter:
    """What could not be used, with its bytes."""
    body = letter_body(data)
    return DeadLetter(
        tenant_id=tenant_id,
        stage=STAGE,
        group=group,
        position=position,
        code=error.code,
        reason=error.what,
        at=at,
        where=error.where,
        record_id=record_id,
        remedy=error.remedy,
        text=body.get("text"),
        base64=body.get("base64"),
    )


def read_header(shard: str, sequence: str, data: bytes, output: Output, at: UtcTime) -> Envelope | None:
    """One record of the raw stream as an envelope, its body not yet opened; None, and a letter, where it is none.

    The letter of a record that does not even say whose it is lies with the system's own objects.
    """
    try:
        header, packed = split(data)
        key = header.object_key
        names = (header.partition.tenant_id, header.partition.service, header.endpoint)
        if not all(pattern.fullmatch(name) for pattern, name in zip(_NAMES, names, strict=True)):
            raise RejectedError("the envelope's header names no tenant, service and endpoint", code="bad_envelope")
        if key is not None and key != oversize_key(header.partition.tenant_id, header.checksum):
            raise RejectedError("the envelope's body lies where none may lie", code="bad_envelope", where=key[:200])
    except RejectedError as err:
        output.letters.append(letter(SYSTEM_PREFIX, NO_GROUP, f"{shard}-{sequence}", data, err, at))
        output.size += len(data)
        return None
    return Envelope(shard, sequence, header, packed, data)


class _Item(msgspec.Struct, frozen=True, gc=False):
    """One mapped event on its way to its label."""

    key: bytes
    event: CanonicalEvent
    mapper: Mapper
    header: Header
    position: str
    line: bytes


def transform(
    envelopes: Sequence[Envelope], routes: Mapping[_Source, Routes], memory: Memory, output: Output, at: UtcTime
) -> None:
    """Map and label every event of `envelopes` into `output`; what cannot be used becomes a letter.

    Errors: RetryableError when the memory's disk is full; whatever is wrong with the input concerns its own envelope
            or line only.
    """
    items = [item for envelope in envelopes for item in _mapped(envelope, routes[envelope.source], output, at)]
    timelines = memory.read(list({item.key for item in items}))
    remembered: dict[bytes, Timeline] = {}
    for item in items:
        before = timelines.get(item.key)
        seen = observe(before, item.event, scd=item.mapper.table.scd, lost=memory.lost)
        line = _encode(labelled(item.event, seen))
        if len(line) >= OVERSIZE_BYTES_MAX:
            error = RejectedError(f"a canonical event of {len(line)} bytes", code="too_large")
            output.reject(item.header, item.position, item.line, error, at, item.event.record_id)
            continue
        if seen.timeline is not before:
            timelines[item.key] = remembered[item.key] = seen.timeline
        if seen.changed:
            output.drift(item.header).lose(item.mapper.emptied(item.event.endpoint, seen.changed))
        output.add(_canonical(item), item.event.endpoint, item.header.replay, line)
    memory.write(remembered.items())


def _mapped(envelope: Envelope, routes: Routes, output: Output, at: UtcTime) -> Iterable[_Item]:
    header = envelope.header
    try:
        lines = unseal(header, envelope.packed)
    except RejectedError as err:
        output.reject(header, envelope.position, envelope.data, err, at)
        return
    output.events += len(lines)
    mappers = routes.get(header.endpoint, ())
    drift = output.drift(header)
    for number, line in enumerate(lines, start=1):
        position, record_id = f"{envelope.position}-{number}", ""
        try:
            source = _event(line, header)
            record_id = source.record_id
            for mapper in mappers:
                event = mapper.map(source, drift)
                if event is not None:
                    key = entity_key(header.partition, event.table, event.family, event.record_id)
                    yield _Item(key, event, mapper, header, position, line)
        except RejectedError as err:
            output.reject(header, position, line, err, at, record_id)


def _event(line: bytes, header: Header) -> ChangeEvent:
    try:
        event = _decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as err:
        raise RejectedError(f"this line is no change event ({err})") from err
    partition = header.partition
    if (event.tenant_id, event.service, event.endpoint) != (partition.tenant_id, partition.service, header.endpoint):
        raise RejectedError("this event belongs to another partition than its envelope")
    return event


def _canonical(item: _Item) -> Partition:
    """Where a canonical event travels: by table; a giant's records stay as spread as they came."""
    return Partition(item.event.tenant_id, item.event.service, item.event.table, item.header.partition.bucket)


def slices(envelopes: Iterable[Envelope], bytes_max: int) -> list[list[Envelope]]:
    """`envelopes` cut into pieces of at most `bytes_max` of events; one that is larger stands alone."""
    pieces: list[list[Envelope]] = []
    room = 0
    for envelope in envelopes:
        size = envelope.header.body_bytes
        if not pieces or size > room:
            pieces.append([])
            room = bytes_max
        pieces[-1].append(envelope)
        room -= size
    return pieces
