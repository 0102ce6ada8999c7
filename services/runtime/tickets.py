"""What a caller of the publisher holds: a ticket for the envelopes it offered, and what became of them."""

import asyncio
from collections import Counter

import msgspec

from services.contracts.envelope import Header
from services.contracts.errors import AvesaError
from services.contracts.partitions import Partition
from services.contracts.ports import Entry
from services.runtime.envelopes import Sealed

PARTITION_KEY_MAX = 256  # characters: AWS API reference, PutRecordsRequestEntry


class Ticket:
    """The envelopes of one `offer`, on their way. It is done when each is stored or given up.

    `stored_count` are the envelopes stored so far; `withdrawn` means that nobody wants the rest any longer.
    """

    def __init__(self, count: int) -> None:
        self.stored_count = 0
        self.withdrawn = False
        self._error: AvesaError | None = None
        self._events: Counter[Partition] = Counter()
        self._outside = self._open = count
        self._admitted, self._settled = asyncio.Event(), asyncio.Event()
        self._mark()

    @property
    def done(self) -> bool:
        return self._settled.is_set()

    async def admitted(self) -> None:
        """Returns when the publisher holds every envelope, or has given it up."""
        await self._admitted.wait()

    async def stored(self) -> None:
        """Returns when every envelope is stored.

        Errors: RetryableError when some are not: the stream took nothing for too long, or they were withdrawn;
        NotFoundError, FatalError as the stream said. It is raised once nothing of the ticket is under way any longer.
        """
        await self._settled.wait()
        if self._error is not None:
            raise self._error

    def events_stored(self, partition: Partition) -> int:
        """How many events of a partition are acknowledged: the first so many of those offered, since it is stored in
        order."""
        return self._events[partition]

    # what the publisher tells
    def admit(self) -> None:
        """One envelope is no longer in its caller's hands."""
        self._outside -= 1
        self._mark()

    def store(self, header: Header) -> None:
        """One envelope is acknowledged."""
        self.stored_count += 1
        self._events[header.partition] += header.count
        self._open -= 1
        self._mark()

    def give_up(self, error: AvesaError) -> None:
        """One envelope will not be stored."""
        self._error = self._error or error
        self._open -= 1
        self._mark()

    def _mark(self) -> None:
        if self._outside == 0:
            self._admitted.set()
        if self._open == 0:
            self._settled.set()


class Held(msgspec.Struct):
    """One envelope between its caller and the stream. Units: `size` is what counts as bytes of a shard: data and
    partition key; `in_flight`: a request with it is under way."""

    header: Header
    entry: Entry
    size: int
    ticket: Ticket
    in_flight: bool = False

    @property
    def partition(self) -> Partition:
        return self.header.partition

    @property
    def background(self) -> bool:
        return self.header.replay


def hold(envelope: Sealed, ticket: Ticket) -> Held:
    """An envelope whose body beside the stream, if it has one, is stored."""
    partition = envelope.header.partition
    key = partition.text[:PARTITION_KEY_MAX]
    return Held(
        envelope.header, Entry(envelope.data, key, partition.hash_key), len(envelope.data) + len(key.encode()), ticket
    )
