"""What a few envelopes of the raw stream become: canonical events, and letters for what cannot be used.

Pure but for the memory it reads and writes; run on a thread, in slices, so that the loop stays live.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from services.contracts.envelope import Header, split
from services.contracts.errors import RejectedError
from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.names import SYSTEM_PREFIX, TENANT_PATTERN, oversize_key
from services.contracts.partitions import Partition
from services.contracts.times import UtcTime
from services.runtime.dead_letters import DeadLetter, letter_body
from services.runtime.envelopes import OVERSIZE_BYTES_MAX, Sealed, seal, unseal
from services.runtime.poison import ALL, WHOLE, Reading, Suspect
from services.transformer.budget import Budget
from services.transformer.drift import Drift, Place
from services.transformer.mapper import Mapper, Routes
from services.transformer.state import entity_key
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
    """One record of the raw stream, its header read; `packed` is the body, wherever it lay. `reading` says which of
    its lines are read."""

    shard: str
    sequence: str
    header: Header
    packed: bytes
    data: bytes
    reading: Reading = ALL

    @property
    def position(self) -> str:
        return f"{self.shard}-{self.sequence}"

    @property
    def source(self) -> _Source:
        """Whose: tenant and service."""
        return self.header.partition.tenant_id, self.header.partition.service

    @property
    def suspect(self) -> Suspect:
        return Suspect(self.sequence, max(0, self.header.count), self.header.body_bytes)


class _Run(msgspec.Struct):
    """Lines of one partition that can share an envelope: neighbours from one endpoint."""

    endpoint: str
    replay: bool
    lines: list[bytes]


class Held(msgspec.Struct, frozen=True):
    """The envelopes, in order, of a partition beyond its budget; `code` is of the letter that was too many."""

    code: str
    envelopes: list[Envelope]


class Output:
    """What is to be published and written before a position may move.

    `held` are the envelopes of partitions that are beyond their budget of letters: nothing of them is in the rest,
    and nothing that came after them in their partition.
    """

    def __init__(self) -> None:
        self._runs: dict[Partition, list[_Run]] = {}
        self.held: dict[Partition, Held] = {}
        self.letters: list[DeadLetter] = []
        self.drifts: dict[Place, Drift] = {}
        self.events = 0
        self.size = 0

    def add(self, partition: Partition, endpoint: str, replay: bool, line: bytes) -> None:
        self._run(partition, endpoint, replay).lines.append(line)
        self.size += len(line)

    def _run(self, partition: Partition, endpoint: str, replay: bool) -> _Run:
        runs = self._runs.setdefault(partition, [])
        if not runs or (runs[-1].endpoint, runs[-1].replay) != (endpoint, replay):
            runs.append(_Run(endpoint, replay, []))
        return runs[-1]

    def take(self, other: "Output") -> None:
        """What another holds besides, after what is here."""
        for partition, runs in other._runs.items():
            for run in runs:
                self._run(partition, run.endpoint, run.replay).lines.extend(run.lines)
        for partition, held in other.held.items():
            self.held.setdefault(partition, Held(held.code, [])).envelopes.extend(held.envelopes)
        for place, drift in other.drifts.items():
            self.drifts.setdefault(place, Drift()).add(drift)
        self.letters += other.letters
        self.events += other.events
        self.size += other.size

    def reject(self, rejected: "_Rejected") -> None:
        self.letters.append(rejected.letter)
        self.size += rejected.size

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


class _Rejected(msgspec.Struct, frozen=True, gc=False):
    """A letter, and the bytes it holds."""

    letter: DeadLetter
    size: int


def letter(
    tenant_id: str,
    group: str,
    position: str,
    data: bytes,
    error: RejectedError,
    at: UtcTime,
    record_id: str = "",
    attempts: int = 1,
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
        attempts=attempts,
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


class Remembering(Protocol):
    """What `transform` needs of a `Memory`."""

    @property
    def lost(self) -> bool: ...
    def read(self, keys: Sequence[bytes]) -> dict[bytes, Timeline]: ...
    def write(self, timelines: Iterable[tuple[bytes, Timeline]]) -> None: ...


class Scratch:
    """A memory that remembers what another does, and nothing of what it is told."""

    def __init__(self, memory: Remembering) -> None:
        self._memory = memory

    @property
    def lost(self) -> bool:
        return self._memory.lost

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Timeline]:
        return self._memory.read(keys)

    def write(self, timelines: Iterable[tuple[bytes, Timeline]]) -> None:
        """Nothing: it is thrown away with everything else."""


def transform(
    envelopes: Sequence[Envelope],
    routes: Mapping[_Source, Routes],
    memory: Remembering,
    output: Output,
    at: UtcTime,
    budget: Budget | None = None,
) -> None:
    """Map and label every event of `envelopes` into `output`; what cannot be used becomes a letter.

    An envelope that would bring its partition beyond `budget` goes to `output.held` whole, as does what follows it.

    Errors: RetryableError when the memory's disk is full; whatever is wrong with the input concerns its own envelope
            or line only.
    """
    piece = Output()
    piece.held = {partition: Held(held.code, []) for partition, held in output.held.items()}
    items = [item for envelope in envelopes for item in _taken(envelope, routes[envelope.source], piece, at, budget)]
    timelines = memory.read(list({item.key for item in items}))
    remembered: dict[bytes, Timeline] = {}
    for item in items:
        before = timelines.get(item.key)
        seen = observe(before, item.event, scd=item.mapper.table.scd, lost=memory.lost)
        line = _encode(labelled(item.event, seen))
        if len(line) >= OVERSIZE_BYTES_MAX:
            error = RejectedError(f"a canonical event of {len(line)} bytes", code="too_large")
            piece.reject(_rejected(item.header, item.position, item.line, error, at, item.event.record_id))
            continue
        if seen.timeline is not before:
            timelines[item.key] = remembered[item.key] = seen.timeline
        if seen.changed:
            piece.drift(item.header).lose(item.mapper.emptied(item.event.endpoint, seen.changed))
        piece.add(_canonical(item), item.event.endpoint, item.header.replay, line)
    memory.write(remembered.items())
    output.take(piece)  # at last: whatever is raised before leaves nothing behind


def rehearse(envelopes: Sequence[Envelope], routes: Mapping[_Source, Routes], memory: Remembering, at: UtcTime) -> None:
    """`transform`, and everything else that is computed before anything is published, to no effect."""
    output = Output()
    transform(envelopes, routes, Scratch(memory), output, at)
    output.sealed()


def _taken(envelope: Envelope, routes: Routes, output: Output, at: UtcTime, budget: Budget | None) -> Sequence[_Item]:
    """The events of one envelope, its letters in `output`; none, and the envelope held, where its budget ends."""
    header = envelope.header
    if header.partition in output.held:
        output.held[header.partition].envelopes.append(envelope)
        return ()
    items: list[_Item] = []
    rejected: list[_Rejected] = []
    left = None if budget is None else budget.left(header.partition, at)
    lines: list[bytes] = []
    try:
        lines = _opened(envelope)
    except RejectedError as err:
        attempts = envelope.reading.attempts(WHOLE)
        rejected.append(_rejected(header, envelope.position, envelope.data, err, at, "", attempts))
    for one in _mapped(envelope, lines, routes, output, at):
        if isinstance(one, _Item):
            items.append(one)
        else:
            rejected.append(one)
        if left is not None and len(rejected) > left:  # at once: what is not sent on need not be read
            break
    if left is not None and len(rejected) > left:
        output.held[header.partition] = Held(rejected[-1].letter.code, [envelope])
        return ()
    if budget is not None:
        budget.spend(header.partition, at, len(rejected))
    for one in rejected:
        output.reject(one)
    output.events += len(lines)
    return items


def _opened(envelope: Envelope) -> list[bytes]:
    """The lines of an envelope. Errors: RejectedError."""
    envelope.reading.check(WHOLE)
    return unseal(envelope.header, envelope.packed)


def _mapped(
    envelope: Envelope, lines: Sequence[bytes], routes: Routes, output: Output, at: UtcTime
) -> Iterator[_Item | _Rejected]:
    if not lines:
        return
    header, reading = envelope.header, envelope.reading
    mappers, drift = routes.get(header.endpoint, ()), output.drift(header)
    for number, line in enumerate(lines):
        if not reading.tries(number):
            continue
        position, record_id = f"{envelope.position}-{number + 1}", ""
        try:
            reading.check(number)
            source = _event(line, header)
            record_id = source.record_id
            for mapper in mappers:
                event = mapper.map(source, drift)
                if event is not None:
                    key = entity_key(header.partition, event.table, event.family, event.record_id)
                    yield _Item(key, event, mapper, header, position, line)
        except RejectedError as err:
            yield _rejected(header, position, line, err, at, record_id, reading.attempts(number))


def _rejected(
    header: Header,
    position: str,
    data: bytes,
    error: RejectedError,
    at: UtcTime,
    record_id: str = "",
    attempts: int = 1,
) -> _Rejected:
    tenant_id, group = header.partition.tenant_id, header.endpoint
    return _Rejected(letter(tenant_id, group, position, data, error, at, record_id, attempts), len(data))


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
