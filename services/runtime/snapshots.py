"""State that survives its machine: a local store whose durable form is a short list of immutable segments.

What changed since the last commit becomes one new segment; a segment less than twice its successor's size is merged
into it, so that the list stays short (about log2 of the number of keys) and each key is rewritten as often. The list
is committed by the caller together with the position it belongs to; until then nothing names the new segments.
"""

from collections.abc import Callable, Iterable, Sequence

import msgspec

from services.contracts.errors import NotFoundError
from services.contracts.ports import LocalState, Objects
from services.runtime.envelopes import pack, unpack

SEGMENTS_MAX = 24  # beyond this everything becomes one segment


class Segment(msgspec.Struct, frozen=True):
    """One immutable object: `size` is its number of entries."""

    key: str
    size: int


_Entries = dict[bytes, bytes | None]
_decoder = msgspec.msgpack.Decoder(_Entries)


class SnapshotState:
    """One shard's or one endpoint's state.

    `name_segment(n)` gives the object key of the n-th segment this owner writes; it must contain the owner's epoch.
    """

    def __init__(self, objects: Objects, local: LocalState, name_segment: Callable[[int], str]) -> None:
        self._objects, self._local, self._name = objects, local, name_segment
        self._dirty: _Entries = {}
        self._written = 0
        self.segments: list[Segment] = []
        self._obsolete: list[str] = []

    async def load(self, segments: Sequence[Segment], keep: Callable[[bytes], bool] | None = None) -> bool:
        """Start from committed segments (oldest first); `keep` leaves out what belongs to others.

        Returns False, and stays empty, if a segment is missing: the caller says so loudly and goes on without.
        """
        self._local.clear()
        try:
            for segment in segments:
                entries = await self._read(segment)
                self._local.put_many((k, v) for k, v in entries.items() if keep is None or keep(k))
        except NotFoundError:
            self._local.clear()
            self.segments = []
            return False
        if keep is None:
            self.segments = list(segments)
        else:  # inherited: written anew under our own name at the next save
            self._dirty = dict(self._local.items())
        return True

    async def _read(self, segment: Segment) -> _Entries:
        return _decoder.decode(unpack(await self._objects.get(segment.key)))

    def get(self, key: bytes) -> bytes | None:
        return self._local.get(key)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        return self._local.get_many(keys)

    def put(self, key: bytes, value: bytes | None) -> None:
        """None deletes."""
        self.put_many([(key, value)])

    def put_many(self, items: Sequence[tuple[bytes, bytes | None]]) -> None:
        self._local.put_many(items)
        self._dirty.update(items)

    def items(self, prefix: bytes = b"") -> Iterable[tuple[bytes, bytes]]:
        return self._local.items(prefix)

    @property
    def changed(self) -> bool:
        return bool(self._dirty)

    async def save(self) -> list[Segment]:
        """Make every change so far durable; returns the list to commit. Without changes it is the list as it was.

        What is put meanwhile belongs to the next save. Errors: RetryableError; saving again later saves it all.
        """
        saving, self._dirty = self._dirty, {}
        if not saving:
            return self.segments
        try:
            kept, merged, entries = await self._merged(saving)
            self._written += 1
            segment = Segment(self._name(self._written), len(entries))
            await self._objects.create(segment.key, pack(msgspec.msgpack.encode(entries)))
        except BaseException:
            self._dirty = saving | self._dirty
            raise
        self._obsolete += [old.key for old in merged]
        self.segments = [*kept, segment]
        return self.segments

    async def _merged(self, changes: _Entries) -> tuple[list[Segment], list[Segment], _Entries]:
        """(segments that stay, segments that the new one takes in, its entries)."""
        if len(self.segments) >= SEGMENTS_MAX:
            return [], self.segments, dict(self._local.items())
        kept, merged, entries = list(self.segments), list[Segment](), changes
        while kept and kept[-1].size < 2 * len(entries):
            entries = {**await self._read(kept[-1]), **entries}
            merged.append(kept.pop())
        if not kept:
            entries = {key: value for key, value in entries.items() if value is not None}
        return kept, merged, entries

    async def committed(self) -> None:
        """The list of the last `save` is committed: what it no longer names may go."""
        obsolete, self._obsolete = self._obsolete, []
        await self._objects.delete(obsolete)

    def close(self) -> None:
        self._local.close()
