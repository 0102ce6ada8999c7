"""What we do for `make bench-extract`, and the bare loop beside it; each run is a process of its own.

    python -m tests.bench.extract.ours extract|bare <base url> <records a page>

`extract` is the whole extractor (`run_once`): a lease, a walk by key, each record told from what it was, written down,
sealed into envelopes and handed to a stream; only the stream and the tables are in memory. `bare` gets the same pages
with aiohttp, one after another, parses them with the standard library and forgets them. One line of JSON on stdout.
"""

import asyncio
import sys
from collections.abc import Sequence
from time import process_time

import aiohttp
import msgspec

from services.contracts.envelope import split
from services.contracts.events import ChangeEvent
from services.contracts.integration import Integration
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import Names
from services.contracts.ports import Entry, Put, Value
from services.extractor.service import run_once
from services.runtime.chance import SystemChance
from services.runtime.clock import SystemClock
from services.runtime.envelopes import unseal
from services.runtime.leases import Leases
from services.runtime.provision import table_keys
from services.runtime.runtime import Runtime
from services.runtime.threads import WorkerThreads
from tests.fakes import FakeClock, MemoryObjects, MemoryRows, MemorySecrets, MemoryStates, MemoryStreams

NAMES = Names("bench")


class Measured(msgspec.Struct, frozen=True):
    """Records handled and the seconds of CPU spent on them, start and end of the process left out; `ids` adds up the
    record ids."""

    records: int
    cpu_s: float
    ids: int


class Sink(MemoryStreams):
    """A stream that takes everything and keeps it, to be counted afterwards."""

    taken: list[bytes]

    async def put(self, stream: str, entries: Sequence[Entry]) -> list[Put]:
        self.taken += [entry.data for entry in entries]
        return [Put("shardId-000000000000", str(len(self.taken))) for _ in entries]


def integration(url: str, size: int) -> Integration:
    """The server of `server.py`: tickets by id."""
    plain = {
        "service": "bench",
        "title": "Bench",
        "base_url": url,
        "auth": {"type": "none"},
        "limits": {"requests": 1_000_000, "window_s": 1, "share": 1},
        "endpoints": {
            "tickets": {
                "path": "tickets",
                "record_id": "id",
                "updated_at": "_info.lastUpdated",
                "pagination": {"type": "keyset", "key": "id", "param": "after", "size_param": "limit", "size": size},
            }
        },
    }
    return msgspec.convert(plain, Integration)


async def extract(url: str, size: int) -> Measured:
    clock, chance = SystemClock(), SystemChance()
    rows = MemoryRows(table_keys(NAMES))
    streams = Sink(FakeClock(clock.now()), [NAMES.raw_stream])
    streams.taken = []
    secrets = MemorySecrets()
    await secrets.put("bench", {})
    row: dict[str, Value] = {"company_name": "Acme", "enabled": True, "secret": "bench", "created_at": clock.now()}
    await rows.write(NAMES.tenant_services, {"tenant_id": "acme", "service": "bench"}, row)
    leases = Leases(rows, NAMES.leases, clock, chance, lambda _: None, 30.0)
    runtime = Runtime(
        names=NAMES,
        streams=streams,
        objects=MemoryObjects(),
        rows=rows,
        secrets=secrets,
        states=MemoryStates(),
        clock=clock,
        chance=chance,
        threads=WorkerThreads(4),
        leases=leases,
        emit=lambda _: None,
    )
    mappings = MappingFiles({"bench": integration(url, size)}, {})
    started = process_time()
    summary = await run_once(runtime, mappings)
    cpu_s = process_time() - started
    assert summary.complete, summary
    decode = msgspec.json.Decoder(ChangeEvent).decode
    ids = [int(decode(line).record_id) for data in streams.taken for line in unseal(*split(data))]
    return Measured(len(ids), cpu_s, sum(ids))


async def bare(url: str, size: int) -> Measured:
    found = ids = after = 0
    async with aiohttp.ClientSession() as session:
        started = process_time()
        while True:
            async with session.get(f"{url}/tickets", params={"after": after, "limit": size}) as response:
                records = await response.json()
            found, ids = found + len(records), ids + sum(record["id"] for record in records)
            if len(records) < size:
                return Measured(found, process_time() - started, ids)
            after = records[-1]["id"]


def main(task: str, url: str, size: str) -> Measured:
    return asyncio.run((extract if task == "extract" else bare)(url, int(size)))


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(main(*sys.argv[1:])) + b"\n")
