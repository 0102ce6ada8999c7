"""What the contracts are held against: the twins in memory, the simulated and the embedded AWS, emulators from npm.

One more of either kind is one more function here and one more line in `conftest.py`.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from random import Random
from typing import Any, Final, Protocol

import msgspec
import pytest

from services.contracts.names import Names
from services.contracts.partitions import HASH_KEY_SPACE
from services.contracts.ports import Clock, Entry, Objects, Rows, Secrets, Shard, Streams
from services.contracts.times import UtcTime
from services.runtime import provision
from services.runtime.aws import connect, open_clients
from services.runtime.aws_client import Client
from services.runtime.clock import SystemClock
from services.runtime.kinesis import KinesisStreams
from services.runtime.settings import Settings
from tests.fakes import FakeClock, MemoryObjects, MemoryRows, MemorySecrets, MemoryStreams
from tests.simulation.aws import AwsClock, Quotas, SimObjects, SimRows, SimSecrets, SimStreams
from tests.simulation.loop import VirtualLoop

MISSING: Final = Names(environment="nowhere")
ACTIVE_POLL_S: Final = 0.005
ACTIVE_POLLS_MAX: Final = 2_000
BEGAN: Final = "2026-01-01T00:00:00.000000Z"
# What is never throttled, as no emulator throttles: a contract says what follows from a call, not how often one may.
UNLIMITED: Final = Quotas(write_bytes=1 << 40, write_records=1 << 30, reads=1 << 30, read_bytes=1 << 40, trims=True)


IN_MEMORY: Final = ("memory", "simulated")
EMULATORS: Final = ("ministack", "kinesalite", "kinesis-local")


def everywhere_but(*names: str) -> list[Any]:
    """The fixture `kinesis` once for each world whose name is not given."""
    marks = dict.fromkeys(IN_MEMORY, ()) | dict.fromkeys(EMULATORS, pytest.mark.emulator)
    return [pytest.param(name, marks=mark) for name, mark in marks.items() if name not in names]


# -- objects, rows, secrets -------------------------------------------------------------------------------------------
class World(msgspec.Struct, frozen=True):
    """The outside of one environment that has been provisioned, but for its streams."""

    names: Names
    objects: Objects
    rows: Rows
    secrets: Secrets


@asynccontextmanager
async def memory_world() -> AsyncIterator[World]:
    names = Names(environment="test")
    yield World(names, MemoryObjects(), MemoryRows(provision.table_keys(names)), MemorySecrets())


@asynccontextmanager
async def simulated_world() -> AsyncIterator[World]:
    names = Names(environment="test")
    with closing(VirtualLoop()) as loop:
        yield World(names, SimObjects(), SimRows(names, AwsClock(loop, BEGAN)), SimSecrets())


@asynccontextmanager
async def aws_world(settings: Settings) -> AsyncIterator[World]:
    await provision.ensure(settings)
    async with connect(settings) as aws:
        yield World(settings.names, aws.objects, aws.rows, aws.secrets)


# -- streams ----------------------------------------------------------------------------------------------------------
class Operator(Protocol):
    """What happens to a stream from outside. A stream is active again when a method returns."""

    async def create(self, stream: str, shards: int) -> None: ...

    async def split(self, stream: str, shard_id: str, at: int) -> None:
        """The second child begins at hash key `at`."""
        ...

    async def merge(self, stream: str, shard_id: str, neighbour_id: str) -> None:
        """The neighbour's hash keys follow the shard's."""
        ...

    async def put_unchecked(self, stream: str, entries: Sequence[Entry]) -> None:
        """Put past what our adapter asserts: the service itself has to refuse."""
        ...

    async def pass_time(self, seconds: float) -> None:
        """Errors: NotImplementedError where time cannot be made to pass."""
        ...


class Kinesis(msgspec.Struct, frozen=True):
    """Streams, who operates them, and the time they live in."""

    streams: Streams
    operator: Operator
    clock: Clock

    async def shards(self, stream: str) -> dict[str, Shard]:
        return {shard.shard_id: shard for shard in (await self.streams.describe(stream)).shards}

    async def split(self, stream: str, shard_id: str) -> tuple[str, str]:
        """Split in the middle; the children by hash key."""
        parent = (await self.shards(stream))[shard_id].hash_range
        await self.operator.split(stream, shard_id, (parent.first + parent.last + 1) // 2)
        low, high = await self._children(stream, shard_id)
        return low, high

    async def merge(self, stream: str, shard_id: str, neighbour_id: str) -> str:
        """Merge two neighbours; the child."""
        await self.operator.merge(stream, shard_id, neighbour_id)
        (child,) = await self._children(stream, shard_id)
        return child

    async def _children(self, stream: str, parent: str) -> list[str]:
        found = [shard for shard in (await self.streams.describe(stream)).shards if parent in shard.parents]
        return [shard.shard_id for shard in sorted(found, key=lambda shard: shard.hash_range.first)]


class MemoryOperator:
    def __init__(self, streams: MemoryStreams, clock: FakeClock) -> None:
        self._streams, self._clock = streams, clock

    async def create(self, stream: str, shards: int) -> None:
        self._streams.create(stream, shards)

    async def split(self, stream: str, shard_id: str, at: int) -> None:
        self._streams.split(stream, shard_id, at)

    async def merge(self, stream: str, shard_id: str, neighbour_id: str) -> None:
        self._streams.merge(stream, shard_id, neighbour_id)

    async def put_unchecked(self, stream: str, entries: Sequence[Entry]) -> None:
        await self._streams.put(stream, entries)

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)


class SimulatedOperator(MemoryOperator):
    """Its time is that of a loop that does not run here."""

    def __init__(self, streams: SimStreams, clock: "LoopClock") -> None:
        super().__init__(streams, clock.aws)
        self._passing = clock

    async def pass_time(self, seconds: float) -> None:
        await self._passing.sleep(seconds)


class LoopClock:
    """The simulated AWS's clock, which this moves on by hand."""

    def __init__(self, aws: AwsClock) -> None:
        self.aws = aws

    def now(self) -> UtcTime:
        return self.aws.now()

    def monotonic(self) -> float:
        return self.aws.monotonic()

    async def sleep(self, seconds: float) -> None:
        self.aws.loop.now += max(0.0, seconds)


class KinesisOperator:
    """`forward` puts the emulator's clock forward; None: it cannot."""

    def __init__(self, client: Client, clock: Clock, forward: Callable[[float], None] | None) -> None:
        self._client, self._clock, self._forward = client, clock, forward

    async def create(self, stream: str, shards: int) -> None:
        await self._client.call("create_stream", stream, StreamName=stream, ShardCount=shards)
        await self._active(stream)

    async def split(self, stream: str, shard_id: str, at: int) -> None:
        arguments = {"ShardToSplit": shard_id, "NewStartingHashKey": str(at)}
        await self._client.call("split_shard", stream, StreamName=stream, **arguments)
        await self._active(stream)

    async def merge(self, stream: str, shard_id: str, neighbour_id: str) -> None:
        arguments = {"ShardToMerge": shard_id, "AdjacentShardToMerge": neighbour_id}
        await self._client.call("merge_shards", stream, StreamName=stream, **arguments)
        await self._active(stream)

    async def put_unchecked(self, stream: str, entries: Sequence[Entry]) -> None:
        records = [{"Data": entry.data, "PartitionKey": entry.partition_key} for entry in entries]
        await self._client.call("put_records", stream, StreamName=stream, Records=records)

    async def pass_time(self, seconds: float) -> None:
        if self._forward is None:
            raise NotImplementedError("its clock cannot be put forward")
        self._forward(seconds)

    async def _active(self, stream: str) -> None:
        for _ in range(ACTIVE_POLLS_MAX):
            answer = await self._client.call("describe_stream_summary", stream, StreamName=stream)
            if answer["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE":
                return
            await self._clock.sleep(ACTIVE_POLL_S)
        raise AssertionError(f"{stream} never becomes active")


@asynccontextmanager
async def memory_kinesis() -> AsyncIterator[Kinesis]:
    clock = FakeClock()
    streams = MemoryStreams(clock)
    yield Kinesis(streams, MemoryOperator(streams, clock), clock)


@asynccontextmanager
async def simulated_kinesis() -> AsyncIterator[Kinesis]:
    with closing(VirtualLoop()) as loop:
        clock = LoopClock(AwsClock(loop, BEGAN))
        streams = SimStreams(clock.aws, Random(7), (), 2, UNLIMITED)
        yield Kinesis(streams, SimulatedOperator(streams, clock), clock)


@asynccontextmanager
async def aws_kinesis(url: str, forward: Callable[[float], None] | None = None) -> AsyncIterator[Kinesis]:
    clock = SystemClock()
    async with open_clients(Settings.embedded(url), "kinesis") as clients:
        client = clients["kinesis"]
        yield Kinesis(KinesisStreams(client), KinesisOperator(client, clock, forward), clock)


def middle_of(shard: Shard) -> int:
    """The hash key at which `Kinesis.split` cuts a shard in two."""
    return (shard.hash_range.first + shard.hash_range.last + 1) // 2


def is_whole(shards: Sequence[Shard]) -> bool:
    """The hash ranges cover every hash key, without gap or overlap."""
    ranges = sorted((shard.hash_range.first, shard.hash_range.last) for shard in shards)
    starts = [0, *(last + 1 for _, last in ranges)]
    return [first for first, _ in ranges] == starts[:-1] and starts[-1] == HASH_KEY_SPACE
