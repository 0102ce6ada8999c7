"""Enhanced fan-out: one contract for the twin in memory and the real thing, and how a shard is read through it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from itertools import count, pairwise
from typing import Any

import msgspec
import pytest
from botocore.eventstream import ChecksumMismatch
from botocore.exceptions import EventStreamError

from services.contracts.errors import NotFoundError, RetryableError, ThrottledError
from services.contracts.names import Names
from services.contracts.partitions import HASH_KEY_SPACE
from services.contracts.ports import CONSUMERS_MAX, SUBSCRIPTION_S, Clock, Entry, Page, Streams
from services.runtime import provision
from services.runtime.aws import connect, open_clients
from services.runtime.aws_client import Answer
from services.runtime.aws_errors import translated
from services.runtime.clock import SystemClock
from services.runtime.fan_out import ticking
from services.runtime.kinesis import KinesisStreams
from services.runtime.settings import Settings
from tests.fakes import Call, FakeClock, MemoryStreams

FIRST = "shardId-000000000000"
WAIT_S = 20.0
_consumers = count(1)


class World(msgspec.Struct, frozen=True):
    """A stream, and somebody who may reshard it."""

    streams: Streams
    clock: Clock
    stream: str
    settings: Settings | None = None

    async def split(self, shard_id: str) -> None:
        if isinstance(self.streams, MemoryStreams):
            self.streams.split(self.stream, shard_id)
            return
        assert self.settings is not None
        async with open_clients(self.settings, "kinesis") as clients:
            middle = str(HASH_KEY_SPACE // 4)
            await clients["kinesis"].call(
                "split_shard",
                self.stream,
                StreamName=self.stream,
                ShardToSplit=shard_id,
                NewStartingHashKey=middle,
            )

    async def deregister(self, consumer: str) -> None:
        if isinstance(self.streams, MemoryStreams):
            self.streams.deregister(self.stream, consumer)
            return
        assert self.settings is not None
        async with open_clients(self.settings, "kinesis") as clients:
            kinesis = clients["kinesis"]
            summary = await kinesis.call("describe_stream_summary", self.stream, StreamName=self.stream)
            arn = summary["StreamDescriptionSummary"]["StreamARN"]
            await kinesis.call("deregister_stream_consumer", consumer, StreamARN=arn, ConsumerName=consumer)


@asynccontextmanager
async def in_memory() -> AsyncIterator[World]:
    clock, stream = FakeClock(), Names("test").raw_stream
    yield World(MemoryStreams(clock, [stream]), clock, stream)


@asynccontextmanager
async def on_aws(settings: Settings) -> AsyncIterator[World]:
    await provision.ensure(settings)
    async with connect(settings) as aws:
        yield World(aws.streams, SystemClock(), settings.names.raw_stream, settings)


@pytest.fixture(params=["memory", pytest.param("embedded", marks=pytest.mark.emulator)])
async def world(request: pytest.FixtureRequest) -> AsyncIterator[World]:
    opened = in_memory() if request.param == "memory" else on_aws(request.getfixturevalue("settings"))
    async with opened as ready:
        yield ready


@pytest.fixture
def consumer() -> str:
    return f"avesa-test-{next(_consumers)}"


def entries(*texts: str) -> list[Entry]:
    return [Entry(text.encode(), "partition", 0) for text in texts]


async def received(pages: AsyncIterator[Page], records: int) -> list[str]:
    """The texts of the pages that come until there are so many."""
    texts: list[str] = []
    while len(texts) < records:
        page = await asyncio.wait_for(anext(pages), WAIT_S)
        assert page.next_iterator == ""
        texts += [record.data.decode() for record in page.records]
    return texts


# -- the port ---------------------------------------------------------------------------------------------------------
async def test_a_new_consumer_is_pushed_what_the_shard_holds_and_then_what_arrives(world: World, consumer: str) -> None:
    await world.streams.put(world.stream, entries("a", "b"))
    async with aclosing(world.streams.subscribe(world.stream, consumer, FIRST, None)) as pages:
        assert await received(pages, 2) == ["a", "b"]
        await world.streams.put(world.stream, entries("c"))
        assert await received(pages, 1) == ["c"]


async def test_a_subscription_begins_just_after_a_sequence(world: World, consumer: str) -> None:
    puts = await world.streams.put(world.stream, entries("a", "b", "c"))
    async with aclosing(world.streams.subscribe(world.stream, consumer, FIRST, puts[0].sequence)) as pages:
        assert await received(pages, 2) == ["b", "c"]


async def test_records_are_those_that_polling_finds(world: World, consumer: str) -> None:
    await world.streams.put(world.stream, [Entry(bytes(range(256)), "partition", 0)])
    polled = await world.streams.read(world.stream, await world.streams.iterator(world.stream, FIRST, None), 10)
    async with aclosing(world.streams.subscribe(world.stream, consumer, FIRST, None)) as pages:
        page = await asyncio.wait_for(anext(pages), WAIT_S)
    assert (page.records, page.behind_ms) == (polled.records, 0)


async def test_an_empty_shard_says_so_in_an_empty_page(world: World, consumer: str) -> None:
    async with aclosing(world.streams.subscribe(world.stream, consumer, FIRST, None)) as pages:
        assert await asyncio.wait_for(anext(pages), WAIT_S) == Page((), "", 0)


async def test_a_shard_that_is_split_ends_its_subscription(world: World, consumer: str) -> None:
    async with aclosing(world.streams.subscribe(world.stream, consumer, FIRST, None)) as pages:
        await asyncio.wait_for(anext(pages), WAIT_S)
        await world.split(FIRST)
        last = [page async for page in pages][-1]
    assert last.next_iterator is None


async def test_two_consumers_are_pushed_the_same(world: World, consumer: str) -> None:
    await world.streams.put(world.stream, entries("a"))
    for name in (consumer, f"{consumer}-too"):
        async with aclosing(world.streams.subscribe(world.stream, name, FIRST, None)) as pages:
            assert await received(pages, 1) == ["a"]


async def test_a_second_subscription_at_once_is_asked_to_wait(world: World, consumer: str) -> None:
    async with aclosing(world.streams.subscribe(world.stream, consumer, FIRST, None)) as pages:
        await asyncio.wait_for(anext(pages), WAIT_S)
        with pytest.raises(RetryableError):
            await anext(world.streams.subscribe(world.stream, consumer, FIRST, None))


async def test_who_subscribes_later_takes_over(world: World, consumer: str) -> None:
    async with aclosing(world.streams.subscribe(world.stream, consumer, FIRST, None)) as first:
        await asyncio.wait_for(anext(first), WAIT_S)
        await world.clock.sleep(5.2)
        async with aclosing(world.streams.subscribe(world.stream, consumer, FIRST, None)) as second:
            await asyncio.wait_for(anext(second), WAIT_S)
            with pytest.raises(RetryableError):
                _ = [page async for page in first]


async def test_a_shard_or_stream_that_is_not_there_is_not_found(world: World, consumer: str) -> None:
    for stream, shard_id in ((world.stream, "shardId-000000000099"), ("avesa-raw-nowhere", FIRST)):
        with pytest.raises(NotFoundError):
            await anext(world.streams.subscribe(stream, consumer, shard_id, None))


async def test_a_consumer_that_somebody_deregistered_is_registered_again(world: World, consumer: str) -> None:
    await world.streams.put(world.stream, entries("a"))
    async with aclosing(world.streams.subscribe(world.stream, consumer, FIRST, None)) as pages:
        await received(pages, 1)
        await world.deregister(consumer)
        with pytest.raises(NotFoundError):
            _ = [page async for page in pages]
    async with aclosing(world.streams.subscribe(world.stream, consumer, FIRST, None)) as pages:
        assert await received(pages, 1) == ["a"]


async def test_shards_of_one_consumer_are_subscribed_to_side_by_side(world: World, consumer: str) -> None:
    shards = [shard.shard_id for shard in (await world.streams.describe(world.stream)).shards]
    opened = [world.streams.subscribe(world.stream, consumer, shard_id, None) for shard_id in shards]
    assert await asyncio.wait_for(asyncio.gather(*map(anext, opened)), WAIT_S) == [Page((), "", 0)] * len(shards)
    for pages in opened:
        await pages.aclose()


# -- the twin, where no emulator does as AWS does ---------------------------------------------------------------------
async def test_a_subscription_ends_after_five_minutes() -> None:
    async with in_memory() as world:
        started = world.clock.monotonic()
        pages = [page async for page in world.streams.subscribe(world.stream, "avesa", FIRST, None)]
        assert {page.next_iterator for page in pages} == {""}
        assert 300 <= world.clock.monotonic() - started < 301


async def test_a_stream_has_no_room_for_more_consumers_than_aws_gives_it() -> None:
    async with in_memory() as world:
        for number in range(CONSUMERS_MAX):
            async with aclosing(world.streams.subscribe(world.stream, f"avesa-{number}", FIRST, None)) as pages:
                await anext(pages)
        with pytest.raises(RetryableError):
            await anext(world.streams.subscribe(world.stream, "avesa-more", FIRST, None))


# -- a turn every second ----------------------------------------------------------------------------------------------
async def test_the_reader_gets_a_turn_every_second_though_nothing_arrives() -> None:
    async with in_memory() as world:
        turns = []
        async with aclosing(ticking(world.streams.subscribe(world.stream, "avesa", FIRST, None), world.clock)) as pages:
            async for page in pages:
                turns.append((world.clock.monotonic(), page))
        waits = [later - earlier for (earlier, _), (later, _) in pairwise(turns)]
        assert 0 < max(waits) <= 1.2
        assert {page for _, page in turns} == {None, Page((), "", 0)}
        assert turns[-1][0] >= SUBSCRIPTION_S - 1  # and it ends with the subscription


async def test_what_arrives_is_passed_on_at_once() -> None:
    async with (
        in_memory() as world,
        aclosing(ticking(world.streams.subscribe(world.stream, "avesa", FIRST, None), world.clock)) as pages,
    ):
        assert await anext(pages) == Page((), "", 0)
        await world.streams.put(world.stream, entries("a"))
        page = await anext(pages)
        assert page is not None
        assert [record.data for record in page.records] == [b"a"]
        assert world.clock.monotonic() < 1


async def test_nothing_is_asked_for_while_the_reader_is_busy() -> None:
    async with in_memory() as world:
        assert isinstance(world.streams, MemoryStreams)
        async with aclosing(ticking(world.streams.subscribe(world.stream, "avesa", FIRST, None), world.clock)) as pages:
            await anext(pages)
            asked: list[str] = []

            async def note(call: Call) -> None:
                asked.append(call.method)

            world.streams.before = note
            await world.clock.sleep(30)
            assert asked == []


async def test_an_error_reaches_the_reader() -> None:
    async with in_memory() as world:
        assert isinstance(world.streams, MemoryStreams)
        world.streams.fail_next("push", RetryableError("broke off"))
        with pytest.raises(RetryableError, match="broke off"):
            await anext(ticking(world.streams.subscribe(world.stream, "avesa", FIRST, None), world.clock))


# -- what the embedded AWS never does ---------------------------------------------------------------------------------
class Consumers:
    """A client to a Kinesis where a consumer takes its time, as it does at AWS, or has no room."""

    def __init__(self, clock: FakeClock, creating_s: float = 30.0, room: bool = True) -> None:
        self._clock, self._creating_s, self._room = clock, creating_s, room
        self._made_at: float | None = None
        self.registered = 0
        self.events_sent: list[dict[str, Any]] = []

    async def call(self, operation: str, subject: str, **arguments: Any) -> Answer:
        await asyncio.sleep(0)
        if operation == "describe_stream_summary":
            return Answer(StreamDescriptionSummary=Answer(StreamARN="arn"))
        if operation == "register_stream_consumer":
            if not self._room or self._made_at is not None:
                raise ThrottledError("LimitExceededException") if not self._room else RetryableError("in use")
            self.registered, self._made_at = self.registered + 1, self._clock.monotonic()
            return Answer()
        if self._made_at is None:
            raise NotFoundError("no such consumer")
        waits = self._clock.monotonic() - self._made_at < self._creating_s
        return Answer(ConsumerDescription=Answer(ConsumerStatus="CREATING" if waits else "ACTIVE", ConsumerARN="arn/c"))

    async def events(self, *_: str, **arguments: Any) -> AsyncIterator[Answer]:
        for event in self.events_sent:
            yield Answer(SubscribeToShardEvent=event)


def event(**more: Any) -> dict[str, Any]:
    return {"Records": [], "ContinuationSequenceNumber": "7", "MillisBehindLatest": 0, **more}


async def test_a_consumer_is_registered_once_and_waited_for_whoever_asks() -> None:
    clock = FakeClock()
    client = Consumers(clock)
    client.events_sent = [event()]
    streams = KinesisStreams(client, clock)  # type: ignore[arg-type]
    opened = [streams.subscribe("raw", "avesa", shard_id, None) for shard_id in ("1", "2", "3")]
    assert await asyncio.gather(*map(anext, opened)) == [Page((), "", 0)] * 3
    assert (client.registered, clock.monotonic()) == (1, 30.0)


async def test_where_there_is_no_room_for_a_consumer_a_person_learns_what_to_do() -> None:
    clock = FakeClock()
    streams = KinesisStreams(Consumers(clock, room=False), clock)  # type: ignore[arg-type]
    with pytest.raises(RetryableError, match="not active after 60 s") as caught:
        await anext(streams.subscribe("raw", "avesa", FIRST, None))
    assert "deregister" in caught.value.remedy


async def test_only_a_shard_that_names_its_children_has_ended() -> None:
    clock = FakeClock()
    client = Consumers(clock)
    client.events_sent = [event(ChildShards=[]), {**event(ChildShards=[{}]), "ContinuationSequenceNumber": None}]
    streams = KinesisStreams(client, clock)  # type: ignore[arg-type]
    assert [page.next_iterator async for page in streams.subscribe("raw", "avesa", FIRST, None)] == ["", None]
    client.events_sent = [{**event(), "ContinuationSequenceNumber": None}]
    with pytest.raises(RetryableError, match="not where it goes on"):
        await anext(streams.subscribe("raw", "avesa", FIRST, None))


@pytest.mark.parametrize("code", ["ResourceInUseException", "InternalFailureException", "KMSThrottlingException"])
def test_an_error_within_the_stream_of_events_is_one_of_ours(code: str) -> None:
    with pytest.raises(RetryableError), translated("subscribe_to_shard", None):
        raise EventStreamError({"Error": {"Code": code, "Message": "no"}}, "SubscribeToShard")


def test_a_stream_of_events_that_cannot_be_read_is_read_again() -> None:
    with pytest.raises(RetryableError) as caught, translated("subscribe_to_shard", None):
        raise ChecksumMismatch(1, 2)
    assert caught.value.code == "bad_answer"


def test_fan_out_is_a_setting() -> None:
    assert [Settings.from_environment({"AVESA_FAN_OUT": text}).fan_out for text in ("", "true", "0")] == [
        False,
        True,
        False,
    ]
