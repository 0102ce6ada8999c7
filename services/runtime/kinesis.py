"""`Streams` over Kinesis Data Streams."""

from collections.abc import Sequence
from typing import Any, Final

from services.contracts.errors import ConflictError, FatalError
from services.contracts.partitions import HashRange
from services.contracts.ports import Entry, Page, Put, Record, Shard, StreamInfo
from services.contracts.times import utc_text
from services.runtime.aws_client import Client

ENTRIES_MAX: Final = 500  # PutRecords: AWS API reference
READ_LIMIT_MAX: Final = 10_000  # GetRecords: AWS API reference


class KinesisStreams:
    def __init__(self, client: Client) -> None:
        self._client = client

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
        answer = await self._client.call(
            "get_shard_iterator", f"{stream}/{shard_id}", StreamName=stream, ShardId=shard_id, **where
        )
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
        records = tuple(
            Record(record["SequenceNumber"], utc_text(record["ApproximateArrivalTimestamp"]), record["Data"])
            for record in answer["Records"]
        )
        return Page(records, answer.get("NextShardIterator") or None, int(answer.get("MillisBehindLatest", 0)))


def _shard(shard: dict[str, Any]) -> Shard:
    keys = shard["HashKeyRange"]
    parents = (shard.get("ParentShardId"), shard.get("AdjacentParentShardId"))
    return Shard(
        shard_id=shard["ShardId"],
        hash_range=HashRange(int(keys["StartingHashKey"]), int(keys["EndingHashKey"])),
        parents=tuple(parent for parent in parents if parent),
        closed="EndingSequenceNumber" in shard.get("SequenceNumberRange", {}),
    )
