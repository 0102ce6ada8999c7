"""`Streams` over Kinesis Data Streams."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Final

from services.contracts.errors import ConflictError, FatalError, NotFoundError, RetryableError
from services.contracts.partitions import HashRange
from services.contracts.ports import CONSUMERS_MAX, Clock, Entry, Page, Put, Record, Shard, StreamInfo
from services.contracts.times import utc_text
from services.runtime.aws_client import Client
from services.runtime.clock import SystemClock

ENTRIES_MAX: Final = 500  # PutRecords: AWS API reference
READ_LIMIT_MAX: Final = 10_000  # GetRecords: AWS API reference
REGISTER_WAIT_S: Final = 60.0  # from CREATING to ACTIVE; five at most are being created at a time in an account
REGISTER_POLL_S: Final = 1.0  # DescribeStreamConsumer: 20 a second per stream, RegisterStreamConsumer: 5 per account


class KinesisStreams:
    def __init__(self, client: Client, clock: Clock | None = None) -> None:
        self._client, self._clock = client, clock or SystemClock()
        self._consumers: dict[tuple[str, str], str] = {}  # ARN by stream and name, once active
        self._registering = asyncio.Lock()  # a worker's shards all ask at once; one of them asks AWS

    async def describe(self, stream: str) -> StreamInfo:
        answer = await self._client.call("describe_stream_summary", stream, StreamName=stream)
        created = answer["StreamDescriptionSummary"]["StreamCreationTimestamp"]
        shards: list[Shard] = []
        start: dict[str, Any] = {"StreamName": stream}
        while True:
            page = await self._client.call("list_shards", stream, **start)
            shards.extend(_shard(shard) for shard in page["Shards"])
            if not page.get("NextToken"):
                return StreamInfo(utc_text(created), tuple(shards))
            start = {"NextToken": page["NextToken"]}  # a token and a name together are refused

    async def put(self, stream: str, entries: Sequence[Entry]) -> list[Put]:
        assert 1 <= len(entries) <= ENTRIES_MAX, f"{len(entries)} entries"
        records = [
            {"Data": entry.data, "PartitionKey": entry.partition_key, "ExplicitHashKey": str(entry.hash_key)}
            for entry in entries
        ]
        answer = await self._client.call("put_records", stream, StreamName=stream, Records=records)
        return [
            Put(result.get("ShardId", ""), result.get("SequenceNumber", ""), result.get("ErrorCode", ""))
            for result in answer["Records"]
        ]

    async def iterator(self, stream: str, shard_id: str, after: str | None) -> str:
        where = {"ShardIteratorType": "TRIM_HORIZON"}
        if after is not None:
            where = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": after}
        try:
            answer = await self._client.call(
                "get_shard_iterator", f"{stream}/{shard_id}", StreamName=stream, ShardId=shard_id, **where
            )
        except FatalError as err:
            if err.code != "bad_value" or after is None:
                raise
            # A sequence number of another life of the stream: whoever holds it must look anew.
            raise NotFoundError(f"{stream}/{shard_id} knows no position {after}") from err
        return str(answer["ShardIterator"])

    async def read(self, stream: str, iterator: str, limit: int) -> Page:
        try:
            answer = await self._client.call(
                "get_records", stream, ShardIterator=iterator, Limit=min(limit, READ_LIMIT_MAX)
            )
        except FatalError as err:
            if err.code != "bad_value":
                raise
            # Some emulators call an expired iterator an invalid argument; the cure is the same.
            raise ConflictError(err.what) from err
        return Page(_records(answer), answer.get("NextShardIterator") or None, _behind_ms(answer))

    async def subscribe(
        self, stream: str, consumer: str, shard_id: str, after: str | None
    ) -> AsyncGenerator[Page, None]:
        arn = await self._registered(stream, consumer)
        start = {"Type": "TRIM_HORIZON"}
        if after is not None:
            start = {"Type": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": after}
        events = self._client.events(
            "subscribe_to_shard",
            f"{stream}/{shard_id}",
            "EventStream",
            ConsumerARN=arn,
            ShardId=shard_id,
            StartingPosition=start,
        )
        try:
            async with aclosing(events) as pushed:
                async for event in pushed:
                    page = _pushed(event["SubscribeToShardEvent"])
                    yield page
                    if page.next_iterator is None:
                        return
        except NotFoundError:  # the consumer too may be gone, with a stream that was made anew or by hand
            self._consumers.pop((stream, consumer), None)
            raise

    async def _registered(self, stream: str, consumer: str) -> str:
        """The ARN of the consumer, registered with the stream and active. Errors: those of `subscribe`."""
        async with self._registering:
            if (stream, consumer) not in self._consumers:
                summary = await self._client.call("describe_stream_summary", stream, StreamName=stream)
                stream_arn = summary["StreamDescriptionSummary"]["StreamARN"]
                self._consumers[stream, consumer] = await self._register(stream_arn, stream, consumer)
            return self._consumers[stream, consumer]

    async def _register(self, stream_arn: str, stream: str, consumer: str) -> str:
        names = {"StreamARN": stream_arn, "ConsumerName": consumer}
        subject, until = f"{stream}/{consumer}", self._clock.monotonic() + REGISTER_WAIT_S
        refused: RetryableError | None = None
        while True:
            try:
                answer = await self._client.call("describe_stream_consumer", subject, **names)
                if answer["ConsumerDescription"]["ConsumerStatus"] == "ACTIVE":
                    return str(answer["ConsumerDescription"]["ConsumerARN"])
            except NotFoundError:
                try:
                    await self._client.call("register_stream_consumer", subject, **names)
                    continue
                except RetryableError as err:  # another worker was first, or there is no room for one more
                    refused = err
            if self._clock.monotonic() >= until:
                raise RetryableError(
                    f"the consumer {consumer} of {stream} is not active after {REGISTER_WAIT_S:.0f} s",
                    remedy=f"A stream takes {CONSUMERS_MAX} consumers (aws kinesis list-stream-consumers): deregister "
                    "those that nobody uses, or start without --fan-out.",
                ) from refused
            await self._clock.sleep(REGISTER_POLL_S)


def _records(answer: Mapping[str, Any]) -> tuple[Record, ...]:
    return tuple(
        Record(record["SequenceNumber"], utc_text(record["ApproximateArrivalTimestamp"]), record["Data"])
        for record in answer["Records"]
    )


def _behind_ms(answer: Mapping[str, Any]) -> int:
    return int(answer.get("MillisBehindLatest", 0))


def _pushed(event: Mapping[str, Any]) -> Page:
    """One SubscribeToShardEvent. A shard ends with the names of its children, and with nothing else: to take a shard
    for ended that is not would lose what it still holds."""
    ended = bool(event.get("ChildShards"))
    if not ended and not event.get("ContinuationSequenceNumber"):
        raise RetryableError("a shard is said to end and not where it goes on", code="bad_answer")
    return Page(_records(event), None if ended else "", _behind_ms(event))


def _shard(shard: dict[str, Any]) -> Shard:
    keys = shard["HashKeyRange"]
    parents = (shard.get("ParentShardId"), shard.get("AdjacentParentShardId"))
    return Shard(
        shard_id=shard["ShardId"],
        hash_range=HashRange(int(keys["StartingHashKey"]), int(keys["EndingHashKey"])),
        parents=tuple(parent for parent in parents if parent),
        closed="EndingSequenceNumber" in shard.get("SequenceNumberRange", {}),
    )
