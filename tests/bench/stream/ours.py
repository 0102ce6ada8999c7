"""What we do for `make bench-stream`, and the plain loop beside our producer; each run is a process of its own.

    python -m tests.bench.stream.ours produce|plain <stream> <events.ndjson> <events a page or request>
    python -m tests.bench.stream.ours consume|parse <stream> <events to read>

One line of JSON on stdout: `Measured`. Endpoint and keys come from the environment.
"""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from time import process_time

import boto3
import msgspec

from services.cli.world import open_runtime
from services.contracts.envelope import split
from services.contracts.events import ChangeEvent
from services.contracts.partitions import Partition
from services.runtime.envelopes import seal, unseal
from services.runtime.reading import read_shard
from services.runtime.settings import Settings

decode = msgspec.json.Decoder(ChangeEvent).decode
encode = msgspec.json.Encoder().encode


class Measured(msgspec.Struct, frozen=True):
    """Events handled and the seconds of CPU spent on them, after the client is open; `ids` adds up the record ids."""

    events: int
    cpu_s: float
    ids: int


async def produce(stream: str, events: Sequence[ChangeEvent], page: int) -> float:
    """As the extractor does: a page of one endpoint at a time is encoded, sealed and published."""
    async with open_runtime(Settings.from_environment()) as runtime:
        publisher = runtime.publisher(stream)
        started = process_time()
        for start in range(0, len(events), page):
            found = events[start : start + page]
            partition = Partition(found[0].tenant_id, found[0].service, found[0].endpoint)
            await publisher.publish(seal(partition, found[0].endpoint, [encode(event) for event in found]))
        return process_time() - started


def plain(stream: str, events: Sequence[ChangeEvent], request: int) -> float:
    """The loop everybody writes first: one event a record, `request` records a call; encoded as we encode."""
    client = boto3.client("kinesis")
    started = process_time()
    for start in range(0, len(events), request):
        found = events[start : start + request]
        records = [{"Data": encode(event), "PartitionKey": event.record_id} for event in found]
        answer = client.put_records(StreamName=stream, Records=records)
        assert answer["FailedRecordCount"] == 0, answer
    return process_time() - started


async def consume(stream: str, wanted: int, *, parse: bool) -> Measured:
    """Every event of the stream's first shard, decoded; `parse` opens the vendor's payload too, as the mapper does."""
    found = ids = 0
    async with open_runtime(Settings.from_environment()) as runtime:
        shard = (await runtime.streams.describe(stream)).shards[0]
        started = process_time()
        async for batch in read_shard(runtime, stream, shard.shard_id, None):
            for record in batch.records:
                events = [decode(line) for line in unseal(*split(record.data))]
                found += len(events)
                ids += sum(int(event.record_id) for event in events)
                if parse:
                    _payloads(events)
            if found >= wanted:
                break
        return Measured(found, process_time() - started, ids)


def _payloads(events: Sequence[ChangeEvent]) -> list[object]:
    return [msgspec.json.decode(event.payload) for event in events if isinstance(event.payload, msgspec.Raw)]


def main(task: str, stream: str, subject: str, size: str = "0") -> Measured:
    if task in ("consume", "parse"):
        return asyncio.run(consume(stream, int(subject), parse=task == "parse"))
    events = [decode(line) for line in Path(subject).read_bytes().splitlines()]
    cpu_s = plain(stream, events, int(size)) if task == "plain" else asyncio.run(produce(stream, events, int(size)))
    return Measured(len(events), cpu_s, sum(int(event.record_id) for event in events))


if __name__ == "__main__":
    sys.stdout.buffer.write(encode(main(*sys.argv[1:])) + b"\n")
