"""The memory of an endpoint: what was last published of each record, and the rule that follows from it.

**A read never contradicts an earlier read** (DESIGN 4): the history's newest version is always what was read last.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from services.contracts.events import Evidence
from services.contracts.times import UtcTime, shifted
from services.extractor.marks import Reached
from services.extractor.records import VendorRecord
from services.runtime.snapshots import SnapshotState

RECORD, PARENT = b"r", b"p"


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The last observation of a record. `missing_at`: a sweep that began then did not find it. `links`: what the
    templates of endpoints below it ask for (`Rules.links`). A new field goes to the end and has a default: what was
    written before it is read for years.

    It is written down before it is published, and is `sure` once the stream has acknowledged it. One that is not may
    be on the stream or not (its writer died, or is slow): all that follows is judged as if it were, and it is
    published again, the same to the microsecond, when the record is found as it says.
    """

    digest: bytes
    effective_at: UtcTime
    observed_at: UtcTime
    deleted: bool = False
    missing_at: UtcTime | None = None
    sure: bool = True
    links: tuple[str, ...] = ()

    @property
    def settled(self) -> bool:
        """A deletion that was published: nothing is left to be found out about the record."""
        return self.deleted and self.sure


class Below(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How far the records below one parent were read. `parent` tells what the parent was like then, `since` when it was
    first read below as such, `read_at` when last (`below.py`): None where there was nothing to read; `reached` is where
    reading goes on. Unless somebody asks for these, it says no more than that all was read."""

    parent: bytes = b""
    since: UtcTime | None = None
    read_at: UtcTime | None = None
    reached: Reached = Reached()


class Ruling(msgspec.Struct, frozen=True, gc=False):
    """When what was read holds from, and how we know."""

    effective_at: UtcTime
    observed_at: UtcTime
    evidence: Evidence


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode
_decode_below = msgspec.msgpack.Decoder(Below).decode
_READ_BELOW = Below()


def latest(entries: Iterable[Entry | None]) -> Entry | None:
    """What the history shows as newest, among the memories of a family."""
    known = [entry for entry in entries if entry is not None]
    return max(known, key=lambda entry: (entry.effective_at, entry.deleted, entry.observed_at), default=None)


def judge(
    own: Entry | None,
    newest: Entry | None,
    record: VendorRecord,
    observed_at: UtcTime,
    tick_s: float,
    *,
    meanwhile: bool = False,
) -> Ruling | None:
    """How to publish a record just read, None where it is as it was.

    Shape: `own` is this endpoint's entry, `newest` the latest of its whole family. `meanwhile`: what we know was found
           out while the answer with this record was on its way.
    """
    if record.deleted:
        return _judge_deleted(own, newest, record, observed_at, tick_s)
    if newest is None:
        stamp = record.stamp
        return Ruling(stamp or observed_at, observed_at, "read" if stamp is None else "vendor")
    if own is not None and own.digest == record.digest and not own.deleted and not newest.deleted:
        return None if own.sure else unchanged(own, record)
    if _told(newest, record.stamp, observed_at, tick_s):
        return Ruling(record.stamp or observed_at, observed_at, "vendor")
    early = newest != own and observed_at < newest.observed_at  # one endpoint reads in turn: there a clock went back
    if early or (meanwhile and newest.deleted and observed_at < shifted(newest.effective_at, seconds=tick_s)):
        known = own is not None and own.settled and own.digest == record.digest  # the very content that was deleted
        return None if known else overtaken(newest, record, observed_at)
    return Ruling(after(newest, observed_at), observed_at, "read")


def _judge_deleted(
    own: Entry | None, newest: Entry | None, record: VendorRecord, observed_at: UtcTime, tick_s: float
) -> Ruling | None:
    """The same for a record of which the vendor says that it was deleted (`Endpoint.deleted_when`)."""
    if newest is None:
        return Ruling(record.stamp or observed_at, observed_at, "vendor")
    if own is not None and own.deleted and own.digest == record.digest:
        return None if own.sure else again(own, "vendor")  # an endpoint of the family may show it alive
    if newest.deleted:
        return None if newest.sure else again(newest, "vendor")
    if newest != own and observed_at < newest.observed_at:
        at = min(record.stamp or observed_at, shifted(newest.effective_at, microseconds=-1))
        return Ruling(at, observed_at, "vendor")
    told = _told(newest, record.stamp, observed_at, tick_s)
    return Ruling((told and record.stamp) or after(newest, observed_at), observed_at, "vendor")


def _told(newest: Entry, stamp: UtcTime | None, observed_at: UtcTime, tick_s: float) -> bool:
    """Did the vendor say when this came after what we know?"""
    return stamp is not None and (stamp > newest.effective_at or _tied(newest, stamp, observed_at, tick_s))


def _tied(newest: Entry, stamp: UtcTime, observed_at: UtcTime, tick_s: float) -> bool:
    """A true tie: the earlier read fell within the tick of its own stamp, so a second change may carry the same one.

    Of two at one time the fold keeps the one observed later, and a delete before any: else it is no way out.
    """
    return (
        not newest.deleted
        and stamp == newest.effective_at
        and newest.observed_at < shifted(stamp, seconds=tick_s)
        and newest.observed_at < observed_at
    )


def overtaken(newest: Entry, record: VendorRecord, observed_at: UtcTime) -> Ruling:
    """An earlier reading that comes to hand later, as when two lists of a family are read at once and a record moves
    from one to the other: it contradicts nothing, and stays before what was read after it."""
    if record.stamp is not None:
        return Ruling(record.stamp, observed_at, "vendor")
    return Ruling(min(observed_at, shifted(newest.effective_at, microseconds=-1)), observed_at, "read")


def as_read(observed_at: UtcTime) -> Ruling:
    """Besides the vendor's stamp, where the memory is lost: what was published before the loss, a deletion perhaps, may
    lie after that stamp, and a read is never contradicted by an earlier one. Neighbours that are equal are one version.
    """
    return Ruling(observed_at, observed_at, "read")


def again(entry: Entry, evidence: Evidence) -> Ruling:
    """The same observation once more: a set does not change by it."""
    return Ruling(entry.effective_at, entry.observed_at, evidence)


def unchanged(own: Entry, record: VendorRecord) -> Ruling:
    """A record that is as it was published, published again."""
    return again(own, "vendor" if own.effective_at == record.stamp else "read")


def after(newest: Entry, observed_at: UtcTime) -> UtcTime:
    """When it was read, but at least a microsecond after what was published."""
    return max(observed_at, shifted(newest.effective_at, microseconds=1))


class Memory:
    """The entries of one endpoint, and the parents whose records it has read."""

    def __init__(self, state: SnapshotState) -> None:
        self.state = state

    def entries(self, record_ids: Sequence[str]) -> dict[str, Entry]:
        keys = {RECORD + record_id.encode(): record_id for record_id in record_ids}
        return {keys[key]: _decode(value) for key, value in self.state.get_many(list(keys)).items()}

    def put(self, entries: Mapping[str, Entry]) -> None:
        """Only under the endpoint's lock: what is put while a save is under way would never be saved."""
        self.state.put_many([(RECORD + record_id.encode(), _encode(entry)) for record_id, entry in entries.items()])

    def items(self) -> Iterator[tuple[str, Entry]]:
        for key, value in self.state.items(RECORD):
            yield key[1:].decode(), _decode(value)

    def living(self) -> Iterator[str]:
        """Ids of the records we take to be there, in order."""
        return (record_id for record_id, entry in self.items() if not entry.deleted)

    def below(self, parents: Iterable[str]) -> dict[str, Below]:
        """How far it was read below these, of those whose records were all read at least once."""
        keys = {PARENT + parent.encode(): parent for parent in parents}
        found = self.state.get_many(list(keys))
        return {keys[key]: _decode_below(value) if value else _READ_BELOW for key, value in found.items()}

    def note_below(self, read: Mapping[str, Below | None]) -> None:
        """Under the endpoint's lock, as `put`. None: below this one nothing could be read; what was is forgotten."""
        known = self.below(read)
        changed = {parent: below for parent, below in read.items() if known.get(parent) != below}
        self.state.put_many([(PARENT + parent.encode(), _packed(below)) for parent, below in changed.items()])

    def forget_below(self, but: Collection[str]) -> None:
        """Under the endpoint's lock: a parent that is not there now is read from the start should it come back."""
        gone = [key for key, _ in self.state.items(PARENT) if key[1:].decode() not in but]
        self.state.put_many([(key, None) for key in gone])


def _packed(below: Below | None) -> bytes | None:
    if below is None:
        return None
    return b"" if below == _READ_BELOW else _encode(below)
