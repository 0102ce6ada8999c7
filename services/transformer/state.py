"""What one shard remembers: the timelines of its entities, in a snapshot that commits together with the position.

A key carries the raw partition it belongs to, so that after a reshard each child takes exactly what its hash range
serves. A timeline is a cache of labels: where it is lost nothing is lost but advice (DESIGN 2.3).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from services.contracts.errors import RejectedError
from services.contracts.partitions import HashRange, Partition
from services.contracts.ports import Value
from services.runtime.snapshots import Segment, SnapshotState
from services.transformer.timelines import Timeline

PARTITIONS_CACHED = 65_536

_encode = msgspec.msgpack.Encoder().encode
_decode_key = msgspec.msgpack.Decoder(list[str | int]).decode
_decode_timeline = msgspec.msgpack.Decoder(Timeline).decode
# Entity keys are arrays of seven parts; a shard that lost its memory is remembered under an array of one (0x91).
_LOST_PREFIX = _encode([""])[:1]


def entity_key(partition: Partition, table: str, family: str, record_id: str) -> bytes:
    """The key of one entity. Its parts stay apart: ("a", "bc") and ("ab", "c") are two."""
    return _encode(
        (partition.tenant_id, partition.service, partition.group, partition.bucket, table, family, record_id)
    )


def held_by(hash_range: HashRange) -> Callable[[bytes], bool]:
    """Does a key belong to the shard that serves `hash_range`? That memory was lost concerns every child."""

    @lru_cache(maxsize=PARTITIONS_CACHED)
    def served(tenant_id: str, service: str, group: str, bucket: int) -> bool:
        return hash_range.holds(Partition(tenant_id, service, group, bucket))

    def keep(key: bytes) -> bool:
        if key.startswith(_LOST_PREFIX):
            return True
        tenant_id, service, group, bucket, *_ = _decode_key(key)
        return served(str(tenant_id), str(service), str(group), int(bucket))

    return keep


class Memory:
    """The timelines of one shard, over a snapshot whose loading and committing is the caller's."""

    def __init__(self, state: SnapshotState) -> None:
        self._state = state
        self.lost = False

    async def load(self, row: Mapping[str, Any], parents: Sequence[Mapping[str, Any]], hash_range: HashRange) -> bool:
        """Start from the shard's own committed snapshot or, before it has one, from its parents'.

        Returns False where a segment is missing or cannot be read: then nothing is remembered, labels of the
        unheard-of are `unknown` from now on, and the caller says so.
        """
        try:
            if "state" in row:
                found = await self._state.load(segments_of(row))
            else:
                inherited = [segment for parent in parents for segment in segments_of(parent)]
                found = await self._state.load(inherited, keep=held_by(hash_range))
        except (RejectedError, msgspec.DecodeError):
            await self._state.load([])  # what was read before it goes too
            found = False
        self.lost = not found or any(True for _ in self._state.items(_LOST_PREFIX))
        return found

    def mark_lost(self, shard_id: str) -> None:
        """Remember that memory was lost, for the next owners and the children too."""
        self._state.put(_encode([shard_id]), b"")

    def read(self, keys: Sequence[bytes]) -> dict[bytes, Timeline]:
        """What is remembered of these entities; an entry of another release, that cannot be read, counts as lost."""
        found: dict[bytes, Timeline] = {}
        for key, value in self._state.get_many(keys).items():
            try:
                found[key] = _decode_timeline(value)
            except msgspec.DecodeError:
                self.lost = True
        return found

    def write(self, timelines: Iterable[tuple[bytes, Timeline]]) -> None:
        self._state.put_many([(key, _encode(timeline)) for key, timeline in timelines])

    async def save(self) -> list[Value]:
        """Make every change durable; what to commit as `state`, in the form a row holds."""
        return [{"key": segment.key, "size": segment.size} for segment in await self._state.save()]

    async def committed(self) -> None:
        await self._state.committed()

    def close(self) -> None:
        self._state.close()


def segments_of(row: Mapping[str, Any]) -> list[Segment]:
    """The segments that a lease row names, oldest first."""
    return [Segment(str(held["key"]), int(held["size"])) for held in row.get("state") or []]
