"""The memory of an endpoint: what was last published of each record, and the rule that follows from it.

**A read never contradicts an earlier read** (DESIGN 4): the history's newest version is always what was read last.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from services.contracts.events import Evidence
from services.contracts.times import UtcTime, shifted
from services.extractor.records import VendorRecord
from services.runtime.snapshots import SnapshotState

RECORD, PARENT = b"r", b"p"


class Entry(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The last observation of a record. `missing_at`: a sweep that began then did not find it.

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

    @property
    def settled(self) -> bool:
        """A deletion that was published: nothing is left to be found out about the record."""
        return self.deleted and self.sure


class Ruling(msgspec.Struct, frozen=True, gc=False):
    """When what was read holds from, and how we know."""

    effective_at: UtcTime
    observed_at: UtcTime
    evidence: Evidence


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


def latest(entries: Iterable[Entry | None]) -> Entry | None:
    """What the history shows as newest, among the memories of a family."""
    known = [entry for entry in entries if entry is not None]
    return max(known, key=lambda entry: (entry.effective_at, entry.deleted, entry.observed_at), default=None)


def judge(
    own: Entry | None, newest: Entry | None, record: VendorRecord, observed_at: UtcTime, tick_s: float
) -> Ruling | None:
    """How to publish a record just read, None where it is as it was.

    Shape: `own` is this endpoint's entry, `newest` the latest of its whole family.
    """
    if newest is None:
        stamp = record.stamp
        return Ruling(stamp or observed_at, observed_at, "read" if stamp is None else "vendor")
    if own is not None and own.digest == record.digest and not own.deleted and not newest.deleted:
        return None if own.sure else unchanged(own, record)
    if record.stamp is not None and record.stamp > newest.effective_at:
        return Ruling(record.stamp, observed_at, "vendor")
    if newest != own and observed_at < newest.observed_at:  # one endpoint reads in turn: there a clock went back
        return overtaken(newest, record, observed_at)
    if record.stamp is not None and _tied(newest, record.stamp, observed_at, tick_s):
        return Ruling(record.stamp, observed_at, "vendor")
    return Ruling(after(newest, observed_at), observed_at, "read")


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

    def has_read(self, parent: str) -> bool:
        """Were all records below this parent read at least once?"""
        return self.state.get(PARENT + parent.encode()) is not None

    def note_read(self, parents: Iterable[str]) -> None:
        """Under the endpoint's lock, as `put`."""
        self.state.put_many([(PARENT + parent.encode(), b"") for parent in parents])

    def forget_parents(self, but: Collection[str]) -> None:
        """Under the endpoint's lock: a parent that is not there now is read from the start should it come back."""
        gone = [key for key, _ in self.state.items(PARENT) if key[1:].decode() not in but]
        self.state.put_many([(key, None) for key in gone])
