"""The ports: everything the services do to the world, in a few small protocols.

The real ones are in `services/runtime`; `tests/fakes.py` holds twins in memory, and one suite of contract tests runs
against both. Every method translates its library's errors into `services/contracts/errors.py`.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, ParamSpec, Protocol, TypeVar

import msgspec

from services.contracts.partitions import HashRange
from services.contracts.times import UtcTime

P = ParamSpec("P")
T = TypeVar("T")


# -- time, chance, threads --------------------------------------------------------------------------------------------
class Clock(Protocol):
    """Time. `now` may step; `monotonic` (seconds) never does, and leases are judged by it alone."""

    def now(self) -> UtcTime: ...
    def monotonic(self) -> float: ...
    async def sleep(self, seconds: float) -> None: ...


class Chance(Protocol):
    """Randomness: identities and jitter, never data."""

    def token(self) -> str:
        """A name nobody else has; new at every call."""
        ...

    def fraction(self) -> float:
        """0 <= x < 1."""
        ...


class Threads(Protocol):
    """Somewhere for computation that would hold up the loop."""

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T: ...


# -- streams ----------------------------------------------------------------------------------------------------------
SUBSCRIPTION_S: Final = 300.0  # a subscription ends by itself: API_SubscribeToShard
TAKEOVER_S: Final = 5.0  # from a subscription to the next of the same consumer and shard: API_SubscribeToShard
CONSUMERS_MAX: Final = 20  # registered with one stream, 50 in on-demand advantage: API_RegisterStreamConsumer


class Shard(msgspec.Struct, frozen=True):
    """One shard of a stream; `parents` are the shards it came from (one after a split, two after a merge)."""

    shard_id: str
    hash_range: HashRange
    parents: tuple[str, ...] = ()
    closed: bool = False


class StreamInfo(msgspec.Struct, frozen=True):
    """`created` tells a stream from a later one of the same name."""

    created: str
    shards: tuple[Shard, ...]


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One record to put."""

    data: bytes
    partition_key: str
    hash_key: int


class Put(msgspec.Struct, frozen=True, gc=False):
    """What became of one entry: a shard and sequence number, or an error code."""

    shard_id: str = ""
    sequence: str = ""
    error: str = ""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record read. Sequence numbers of a shard grow and compare as integers."""

    sequence: str
    arrived_at: UtcTime
    data: bytes


class Page(msgspec.Struct, frozen=True):
    """One GetRecords answer. `next_iterator` is None at the end of a closed shard; empty does not mean caught up:
    only `behind_ms` == 0 does."""

    records: tuple[Record, ...]
    next_iterator: str | None
    behind_ms: int


class Streams(Protocol):
    """Kinesis. Errors: RetryableError (throttled, unavailable), NotFoundError (no such stream)."""

    async def describe(self, stream: str) -> StreamInfo:
        """All shards, closed ones included, every page read."""
        ...

    async def put(self, stream: str, entries: Sequence[Entry]) -> list[Put]:
        """One PutRecords: at most 500 entries and 5 MiB; one result per entry, in order; some may have failed."""
        ...

    async def iterator(self, stream: str, shard_id: str, after: str | None) -> str:
        """Where to read from: just after sequence `after`, or the oldest record held."""
        ...

    async def read(self, stream: str, iterator: str, limit: int) -> Page:
        """Errors besides: ConflictError `conflict` when the iterator has expired (make a new one)."""
        ...

    def subscribe(self, stream: str, consumer: str, shard_id: str, after: str | None) -> AsyncGenerator[Page, None]:
        """Enhanced fan-out: what follows `after` (None: the oldest record held) in one shard, pushed as it arrives, out
        of 2 MiB/s of its own. The consumer is registered with the stream at its first use.

        Shape:  pages whose `next_iterator` is "", also empty ones, every few seconds where nothing arrives; None on the
                last page of a closed shard. It ends without that after SUBSCRIPTION_S: then subscribe again, after the
                last record held. It is a connection: close it.
        Errors: RetryableError, also where the shard was subscribed to less than TAKEOVER_S ago, or by another just now
                (the later takes over), or the consumer cannot be registered; NotFoundError (no such stream or shard).
        Source: API_SubscribeToShard, API_SubscribeToShardEvent, API_RegisterStreamConsumer (AWS API reference)
        """
        ...


# -- objects ----------------------------------------------------------------------------------------------------------
class ObjectInfo(msgspec.Struct, frozen=True):
    key: str
    size: int


class Objects(Protocol):
    """S3, one bucket. Errors: NotFoundError, RetryableError."""

    async def get(self, key: str) -> bytes: ...

    async def put(self, key: str, data: bytes) -> None:
        """Write or overwrite."""
        ...

    async def create(self, key: str, data: bytes) -> None:
        """Write a name that must not exist yet (If-None-Match). The same bytes already there are success.

        Errors: ConflictError when other bytes lie there.
        """
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Every object below, in order of key, every page read."""
        ...

    async def delete(self, keys: Iterable[str]) -> None:
        """Names that are not there are no error."""
        ...


# -- rows -------------------------------------------------------------------------------------------------------------
Value = str | int | bool | bytes | None | Sequence["Value"] | Mapping[str, "Value"]
Row = dict[str, Any]
Key = Mapping[str, str]
ABSENT: None = None  # in `expect`: the attribute is not there


class Rows(Protocol):
    """DynamoDB. A key names its partition (and sort) attribute. Errors: RetryableError, NotFoundError (no table)."""

    async def get(self, table: str, key: Key) -> Row | None:
        """Strongly consistent."""
        ...

    async def write(
        self, table: str, key: Key, values: Mapping[str, Value], expect: Mapping[str, Value] | None = None
    ) -> None:
        """Set attributes of one row (None removes one), creating it where needed, if all of `expect` holds.

        Shape:  `expect` maps attributes to the value they must have; None = the attribute must be absent.
        Errors: ConflictError when `expect` does not hold; nothing is written then.
        """
        ...

    async def delete(self, table: str, key: Key, expect: Mapping[str, Value] | None = None) -> None: ...

    def query(self, table: str, key: Key) -> AsyncIterator[Row]:
        """All rows of one partition, in order of the sort key."""
        ...

    def scan(self, table: str) -> AsyncIterator[Row]: ...


class Secrets(Protocol):
    """Secrets Manager: a secret is a flat object of text."""

    async def get(self, name: str) -> dict[str, str]:
        """Errors: NotFoundError."""
        ...

    async def put(self, name: str, values: Mapping[str, str]) -> None:
        """Create or replace."""
        ...

    async def delete(self, name: str) -> None: ...


# -- local state ------------------------------------------------------------------------------------------------------
class LocalState(Protocol):
    """A key-value store on this machine's disk: a cache of what lies in snapshots, lost without harm."""

    def get(self, key: bytes) -> bytes | None: ...
    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]: ...
    def put_many(self, items: Iterable[tuple[bytes, bytes | None]]) -> None:
        """None deletes."""
        ...

    def items(self, prefix: bytes = b"") -> Iterable[tuple[bytes, bytes]]:
        """In order of key."""
        ...

    def clear(self) -> None: ...
    def close(self) -> None: ...


class StateFactory(Protocol):
    """Opens one empty local store by name."""

    def open(self, name: str) -> LocalState: ...
