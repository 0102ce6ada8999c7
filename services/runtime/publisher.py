"""The producer: at most one unacknowledged envelope per partition, so that no partial failure can reorder.

PutRecords may fail for some entries of a request and store others; only the failed ones are sent again, and the next
envelope of a partition leaves when the one before it is acknowledged. Several partitions share one request.
Source: AWS API reference, PutRecords ("may succeed or fail individually; does not guarantee the ordering").
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import msgspec

from services.contracts.errors import RetryableError, ThrottledError
from services.contracts.log import Event, Retried
from services.contracts.partitions import Partition
from services.contracts.ports import Chance, Clock, Entry, Objects, Streams
from services.runtime.envelopes import Sealed

REQUEST_RECORDS_MAX = 500
REQUEST_BYTES_MAX = 5 * 1024 * 1024  # AWS API reference: PutRecords, 5 MiB a request with its partition keys
ATTEMPTS_MAX = 12  # in a row without one entry stored, about a minute; then the caller pauses
WAIT_FIRST_S, WAIT_MAX_S = 0.1, 8.0


class Sent(msgspec.Struct):
    """What a publisher has sent since it was made."""

    events: int = 0
    envelopes: int = 0
    bytes_before: int = 0
    bytes_after: int = 0


class Publisher:
    """Puts envelopes on one stream. Any number of callers; the order within a partition is the order of the calls."""

    def __init__(
        self,
        stream: str,
        streams: Streams,
        objects: Objects,
        clock: Clock,
        chance: Chance,
        emit: Callable[[Event], None],
    ) -> None:
        self._stream, self._streams, self._objects = stream, streams, objects
        self._clock, self._chance, self._emit = clock, chance, emit
        self._locks: dict[Partition, asyncio.Lock] = {}
        self.sent = Sent()

    async def publish(self, envelopes: Sequence[Sealed]) -> dict[str, str]:
        """Returns when every envelope is stored: the last sequence number by shard.

        Errors: RetryableError when the stream takes nothing for `ATTEMPTS_MAX` tries; some envelopes may be stored
        then, and publishing all of them again is harmless.
        """
        queues: dict[Partition, deque[Sealed]] = {}
        for envelope in envelopes:
            queues.setdefault(envelope.header.partition, deque()).append(envelope)
        locks = [self._locks.setdefault(partition, asyncio.Lock()) for partition in sorted(queues)]
        for lock in locks:  # sorted, so that two callers can never wait for each other
            await lock.acquire()
        try:
            return await self._drain(queues)
        finally:
            for lock in locks:
                lock.release()

    async def _drain(self, queues: dict[Partition, deque[Sealed]]) -> dict[str, str]:
        last: dict[str, str] = {}
        failures = 0
        while queues:
            heads = _request(queues)
            stored, code, wait_s = await self._put(heads, last)
            for envelope in stored:
                queue = queues[envelope.header.partition]
                queue.popleft()
                if not queue:
                    del queues[envelope.header.partition]
            if not code:
                failures = 0
                continue
            failures = 0 if stored else failures + 1
            if failures >= ATTEMPTS_MAX:
                raise RetryableError(f"stream {self._stream} takes nothing ({code}) after {failures} tries")
            pause = wait_s or min(WAIT_MAX_S, WAIT_FIRST_S * 2**failures) * (0.5 + self._chance.fraction())
            self._emit(Retried(what="put_records", code=code, wait_s=pause))
            await self._clock.sleep(pause)
        return last

    async def _put(self, heads: list[Sealed], last: dict[str, str]) -> tuple[list[Sealed], str, float]:
        """One request: what was stored, and a code and a wait if anything was not."""
        try:
            for envelope in heads:
                if envelope.beside is not None and envelope.header.object_key is not None:
                    await self._objects.create(envelope.header.object_key, envelope.beside)
            results = await self._streams.put(self._stream, [_entry(envelope) for envelope in heads])
        except RetryableError as err:
            return [], err.code, (err.retry_after_s or 0.0) if isinstance(err, ThrottledError) else 0.0
        stored, code = [], ""
        for envelope, result in zip(heads, results, strict=True):
            if result.error:
                code = result.error
                continue
            stored.append(envelope)
            if int(result.sequence) > int(last.get(result.shard_id, "0")):
                last[result.shard_id] = result.sequence
        self._count(stored)
        return stored, code, 0.0

    def _count(self, stored: Iterable[Sealed]) -> None:
        for envelope in stored:
            self.sent.events += envelope.header.count
            self.sent.envelopes += 1
            self.sent.bytes_before += envelope.header.body_bytes
            self.sent.bytes_after += len(envelope.data) + len(envelope.beside or b"")


def _request(queues: dict[Partition, deque[Sealed]]) -> list[Sealed]:
    """The first envelope of each partition, as many as one request takes."""
    heads: list[Sealed] = []
    size = 0
    for queue in queues.values():
        size += len(queue[0].data) + 256  # the partition key counts too: 256 bytes at most
        if heads and (size > REQUEST_BYTES_MAX or len(heads) == REQUEST_RECORDS_MAX):
            break
        heads.append(queue[0])
    return heads


def _entry(envelope: Sealed) -> Entry:
    partition = envelope.header.partition
    return Entry(envelope.data, partition.text[:256], partition.hash_key)
