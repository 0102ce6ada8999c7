"""The spool: what was read from a shard and not cut yet, in immutable objects, so that a restart reads a minute again
and not five.

The list of objects is committed in the lease row together with the position it reaches; the owner's epoch and a number
that grows for the life of the process are in each name, so no two writers ever share one.
"""

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from services.contracts.names import spool_key
from services.contracts.ports import Objects, Record
from services.runtime.leases import Lease

_decoder = msgspec.msgpack.Decoder(list[Record])


class Spool:
    """The spool of one shard, under one lease. `numbers` never gives a number twice. Errors: RetryableError."""

    def __init__(self, objects: Objects, lease: Lease, numbers: Iterator[int]) -> None:
        self._objects, self._lease, self._numbers = objects, lease, numbers
        self._held: dict[str, list[Record]] = {}  # what we wrote or read, so that a cut need not read it again

    async def append(self, records: Sequence[Record]) -> str:
        """Write records as one object; returns its key, for the next commit."""
        key = spool_key(self._lease.scope, self._lease.name, self._lease.epoch, next(self._numbers))
        await self._objects.create(key, msgspec.msgpack.encode(records))  # envelopes are compressed already
        self._held[key] = list(records)
        return key

    async def read(self, keys: Iterable[str]) -> list[Record]:
        """The records of these objects, in order. Errors: NotFoundError."""
        records: list[Record] = []
        for key in keys:
            if key not in self._held:
                self._held[key] = _decoder.decode(await self._objects.get(key))
            records += self._held[key]
        return records

    async def drop(self, keys: Sequence[str]) -> None:
        """Remove objects that no row names any longer."""
        for key in keys:
            self._held.pop(key, None)
        await self._objects.delete(keys)

    async def tidy(self, keep: Sequence[str]) -> None:
        """Remove what former owners wrote and never committed. One that still lives cannot commit it any more."""
        prefix = spool_key(self._lease.scope, self._lease.name, 0, 0).rpartition("/")[0] + "/"
        ours = spool_key(self._lease.scope, self._lease.name, self._lease.epoch, 0)
        lost = [info.key async for info in self._objects.list(prefix) if info.key < ours and info.key not in keep]
        await self._objects.delete(lost)
