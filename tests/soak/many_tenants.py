"""Both ends of `test_many_tenants.py`, each in a process of its own: a vendor with many customers, and an extractor.

    python -m tests.soak.many_tenants vendor TENANTS ENDPOINTS INTERVAL_S
    python -m tests.soak.many_tenants extractor URL TENANTS ENDPOINTS INTERVAL_S FOLDER

The vendor is as light as can be and speaks one dialect. The extractor is the real one, with its HTTP, threads, clock
and local state; only what AWS is to it lies in memory, and the stream forgets what it was given once it is counted.
"""

import asyncio
import random
import re
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web

import services.runtime.aws  # noqa: F401  what a deployed extractor has in memory, too
from services.contracts.envelope import split
from services.contracts.integration import Integration
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import Names
from services.contracts.partitions import HASH_KEY_SPACE, HashRange
from services.contracts.ports import Entry, Put, Shard, StreamInfo
from services.extractor.service import run
from services.runtime.chance import SystemChance
from services.runtime.clock import SystemClock
from services.runtime.envelopes import unseal
from services.runtime.leases import Leases
from services.runtime.local_state import LocalStates
from services.runtime.provision import table_keys
from services.runtime.runtime import Runtime
from services.runtime.threads import WorkerThreads
from tests.fakes import FakeClock, MemoryObjects, MemoryRows, MemorySecrets, MemoryStreams

RECORDS: Final = 20  # of every endpoint of every tenant
PAGE: Final = 15
CHANGES: Final = 2  # of every tenant in an interval
SLOW: Final = "tenant-0"
SLOW_S: Final = 30.0  # a page
NAMES: Final = Names("soak")


def tenants(count: int) -> list[str]:
    return [f"tenant-{number}" for number in range(count)]


def endpoints(count: int) -> list[str]:
    return [f"list{number}" for number in range(count)]


# -- the vendor -------------------------------------------------------------------------------------------------------
class Stats(msgspec.Struct):
    """`longest_s`: of every tenant, the longest time between two reads of an endpoint since it was last asked for."""

    calls: int
    longest_s: dict[str, float]


class Vendor:
    """`slow`: whether SLOW answers in SLOW_S a page now."""

    def __init__(self, tenant_count: int, endpoint_count: int, interval_s: float) -> None:
        self._interval_s, self.slow, self._calls = interval_s, False, 0
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 86_400))
        self._lists = {
            (tenant, endpoint): {
                number: {"id": number, "name": "a name", "padding": "x" * 300, "changed": 0.0, "updated": stamp}
                for number in range(1, RECORDS + 1)
            }
            for tenant in tenants(tenant_count)
            for endpoint in endpoints(endpoint_count)
        }
        self._tenants, self._endpoints = tenants(tenant_count), endpoints(endpoint_count)
        self._read_at: dict[tuple[str, str], float] = {}
        self._longest_s: dict[str, float] = {}

    async def handle(self, request: web.Request) -> web.StreamResponse:
        tenant, endpoint = request.headers["X-Key"], request.path.strip("/")
        self._calls += 1
        after = re.search(r"id > (\d+)", request.query.get("where", ""))
        if after is None or after.group(1) == "0":
            self._note((tenant, endpoint))
        if self.slow and tenant == SLOW:
            await asyncio.sleep(SLOW_S)
        return web.Response(body=msgspec.json.encode(self._page(tenant, endpoint, request.query)))

    def _page(self, tenant: str, endpoint: str, query: Mapping[str, str]) -> list[Any]:
        since = re.search(r"updated >= (\S+)", query.get("where", ""))
        after = re.search(r"id > (\d+)", query.get("where", ""))
        found = [
            record
            for number, record in self._lists[tenant, endpoint].items()
            if (since is None or str(record["updated"]) >= since.group(1))
            and (after is None or number > int(after.group(1)))
        ]
        return found[:PAGE]

    def _note(self, at: tuple[str, str]) -> None:
        now = time.monotonic()
        gap_s = now - self._read_at.get(at, now)
        self._read_at[at] = now
        self._longest_s[at[0]] = max(gap_s, self._longest_s.get(at[0], 0.0))

    async def control(self, request: web.Request) -> web.StreamResponse:
        """`/_control?slow=1`: from now on; answers with the stats until now, and begins new ones."""
        self.slow = request.query.get("slow") == "1"
        now = time.monotonic()
        for (tenant, _), at in self._read_at.items():  # who is not read at all has a gap, too
            self._longest_s[tenant] = max(now - at, self._longest_s.get(tenant, 0.0))
        stats, self._longest_s, self._calls = Stats(self._calls, self._longest_s), {}, 0
        return web.Response(body=msgspec.json.encode(stats))

    async def change(self) -> None:
        """Customers at work, for ever and evenly."""
        random_ = random.Random(7)
        rest_s = self._interval_s / (CHANGES * len(self._tenants))
        due = time.monotonic()
        while True:
            record = self._lists[random_.choice(self._tenants), random_.choice(self._endpoints)]
            number, now = random_.randint(1, RECORDS), time.time()
            stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
            record[number] = {**record[number], "changed": now, "updated": stamp}
            due += rest_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))


async def serve(tenant_count: int, endpoint_count: int, interval_s: float) -> None:
    vendor = Vendor(tenant_count, endpoint_count, interval_s)
    app = web.Application()
    app.router.add_get("/_control", vendor.control)
    app.router.add_get("/{path:.*}", vendor.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await vendor.change()


# -- the extractor ----------------------------------------------------------------------------------------------------
class Seen(msgspec.Struct):
    """A change as the stream got it: whose, when, and how long after it was made (seconds)."""

    tenant_id: str
    at: float
    took_s: float


class _Changed(msgspec.Struct, frozen=True):
    changed: float = 0.0


class _Event(msgspec.Struct, frozen=True):
    tenant_id: str
    payload: _Changed = _Changed()


class Counting(MemoryStreams):
    """A stream that keeps nothing of what it takes but when it came."""

    def __init__(self, awaited_count: int) -> None:
        super().__init__(FakeClock())
        self.seen: list[Seen] = []
        self.events_count, self._awaited_count = 0, awaited_count
        self.reached = asyncio.Event()  # the first so many events
        self._decode = msgspec.json.Decoder(_Event).decode

    async def describe(self, stream: str) -> StreamInfo:
        return StreamInfo("once", (Shard("shardId-0", HashRange(0, HASH_KEY_SPACE - 1)),))

    async def put(self, stream: str, entries: Sequence[Entry]) -> list[Put]:
        now = time.time()
        for entry in entries:
            for line in unseal(*split(entry.data)):
                event = self._decode(line)
                self.events_count += 1
                if self.events_count == self._awaited_count:
                    self.reached.set()
                if event.payload.changed:
                    self.seen.append(Seen(event.tenant_id, now, now - event.payload.changed))
        return [Put("shardId-0", str(self.events_count)) for _ in entries]


def integration(endpoint_count: int, interval_s: float) -> Integration:
    endpoint = {
        "record_id": "id",
        "updated_at": "updated",
        "interval_s": interval_s,
        "incremental": {"type": "time", "clause": "updated >= {since}", "overlap_s": 2, "lag_s": 10 * interval_s},
    }
    plain = {
        "service": "desk",
        "title": "Desk",
        "base_url": "{site}",
        "auth": {"type": "headers", "headers": {"X-Key": "{key}"}},
        "credentials": {"site": {"title": "Site"}, "key": {"title": "Key"}},
        "filter": {"param": "where"},
        "limits": {"requests": 100_000, "window_s": 60, "share": 1, "concurrency": 4},
        "pagination": {"type": "keyset", "key": "id", "clause": "id > {after}", "size_param": "size", "size": PAGE},
        "endpoints": {name: {**endpoint, "path": name} for name in endpoints(endpoint_count)},
    }
    return msgspec.convert(plain, Integration)


async def extract(url: str, tenant_count: int, endpoint_count: int, interval_s: float, folder: str) -> None:
    """Until SIGTERM; then what was seen, as one line of JSON. A line before it tells that all was read once."""
    rows, secrets, streams = (
        MemoryRows(table_keys(NAMES)),
        MemorySecrets(),
        Counting(tenant_count * endpoint_count * RECORDS),
    )
    for tenant in tenants(tenant_count):
        secret = NAMES.secret(tenant, "desk")
        await secrets.put(secret, {"site": url, "key": tenant})
        key = {"tenant_id": tenant, "service": "desk"}
        await rows.write(NAMES.tenant_services, key, {"enabled": True, "secret": secret})
    clock, chance, stopping = SystemClock(), SystemChance(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    leases = Leases(rows, NAMES.leases, clock, chance, lambda _: None, 30.0)
    with WorkerThreads(4) as threads:
        runtime = Runtime(
            names=NAMES,
            streams=streams,
            objects=MemoryObjects(),
            rows=rows,
            secrets=secrets,
            states=LocalStates(Path(folder)),
            clock=clock,
            chance=chance,
            threads=threads,
            leases=leases,
            emit=lambda _: None,
        )
        renewing = asyncio.create_task(leases.renew_forever())
        mappings = MappingFiles({"desk": integration(endpoint_count, interval_s)}, {})
        running = asyncio.create_task(run(runtime, mappings, stopping))
        await streams.reached.wait()
        print("read", flush=True)
        await running
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
    print(msgspec.json.encode(streams.seen).decode(), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "vendor":
        asyncio.run(serve(int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
    else:
        asyncio.run(extract(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5]), sys.argv[6]))
