"""What async-kinesis does for `make bench-stream`, in a process and an environment of its own (.venv-peer).

    peer.py produce <stream> <processor> <events.ndjson>
    peer.py consume <stream> <processor> <events to read> <records a read>

One line of JSON on stdout: `Measured` of tests/bench/stream/ours.py. Endpoint and keys come from the environment.
"""

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

import zstandard
from kinesis import Consumer, Producer, processors
from kinesis.aggregators import BaseAggregator

READS_PER_S = 5  # GetRecords takes five a second and shard; the default of one would only make us wait
UNTHROTTLED = 1 << 30  # its pacing polls; how fast it may write is not what is measured
IDLE_S = 60.0


class EnvelopeProcessor(processors.Processor, BaseAggregator):  # type: ignore[misc]
    """Our envelopes, as somebody who uses async-kinesis would open them."""

    def parse(self, data: bytes) -> Iterator[Any]:
        body = data[8 + int.from_bytes(data[4:8], "big") :]
        for line in zstandard.ZstdDecompressor().decompress(body).splitlines():
            yield json.loads(line)


PROCESSORS = {
    "json": processors.JsonProcessor,
    "json lines": processors.JsonLineProcessor,
    "json list": processors.JsonListProcessor,
    "msgpack": processors.MsgpackProcessor,
    "kpl": processors.KPLJsonProcessor,
    "envelope": EnvelopeProcessor,
}


async def produce(stream: str, processor: str, events: list[dict[str, Any]]) -> dict[str, float]:
    async with Producer(
        stream,
        processor=PROCESSORS[processor](),
        put_rate_limit_per_shard=UNTHROTTLED,
        put_bandwidth_limit_per_shard=UNTHROTTLED,
    ) as producer:
        started = process_time()
        for event in events:
            await producer.put(event)
        await producer.flush()
        cpu_s = process_time() - started
    return {"events": len(events), "cpu_s": cpu_s, "ids": sum(int(event["record_id"]) for event in events)}


async def consume(stream: str, processor: str, wanted: int, limit: int) -> dict[str, float]:
    found = ids = 0
    async with Consumer(
        stream,
        processor=PROCESSORS[processor](),
        record_limit=limit,
        shard_fetch_rate=READS_PER_S,
        idle_timeout=IDLE_S,
    ) as consumer:
        started = process_time()
        async for item in consumer:
            events = item if isinstance(item, list) else [item]
            found += len(events)
            ids += sum(int(event["record_id"]) for event in events)
            if found >= wanted:
                break
        cpu_s = process_time() - started
    return {"events": found, "cpu_s": cpu_s, "ids": ids}


if __name__ == "__main__":
    logging.disable(logging.WARNING)  # it says that it is not throttled, and that the server closed a connection
    task, name, kind, *rest = sys.argv[1:]
    if task == "produce":
        work = produce(name, kind, [json.loads(line) for line in Path(rest[0]).read_bytes().splitlines()])
    else:
        work = consume(name, kind, int(rest[0]), int(rest[1]))
    sys.stdout.write(json.dumps(asyncio.run(work)) + "\n")
