"""The demo: three tenants, live changes, every service killed once in mid-work, and the lake compared with the source.

Everything runs as a user would run it, as processes of the command `avesa`, on an embedded AWS and a vendor sandbox of
its own; nothing of the user's AWS can be reached. The sandbox remembers what it served, and that is what is compared.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from services.compactor.iceberg import Warehouse
from services.compactor.lake import Lake
from services.contracts.envelope import split
from services.contracts.errors import FatalError
from services.contracts.times import UtcTime
from services.runtime.mapping_files import SHIPPED, load_mappings
from services.runtime.processes import Child, command_line, service_children, stop_children
from services.runtime.runtime import Runtime
from services.sandbox.comparison import Verdict
from services.sandbox.faults import CALM, Faults
from services.sandbox.proof import Tenant, prove
from services.sandbox.sites import Keys
from services.sandbox.vendor import Running, start
from services.sandbox.world import World

SERVICE: Final = "connectwise"
TENANTS: Final = ("acme", "globex", "initech")
COUNTS: Final = {
    "service/tickets": 2_600,
    "project/tickets": 400,
    "time/entries": 2_600,
    "company/companies": 500,
    "company/contacts": 1_000,
    "company/configurations": 800,
    "finance/invoices": 130,  # these lose some to deletes, and 100 shall be left of each
    "procurement/products": 130,
    "expense/entries": 130,
    "schedule/entries": 130,
}
MINIMUM: Final = 100  # records of every other endpoint
CHANGES: Final = 5_400
CHANGES_S: Final = 40.0  # over which they are spread
TICK_S: Final = 0.25
LATE_S_MAX: Final = 8
KILL_WAIT_S: Final = 60.0  # for a moment with work in hand
KILLS_MAX: Final = 4  # of one service, until one struck work that was read and not committed
TOLD_EVERY_S: Final = 4.0
# The mapping file with the pace of a demo: seconds where the shipped one says minutes.
PACE: Final[Mapping[str, Any]] = {"interval_s": 3, "lag_s": 12, "overlap_s": 5, "sweep_s": 20}


class Killed(msgspec.Struct):
    """One kill: when, and how many events its successor read (the extractor: published) again."""

    service: str
    at: UtcTime
    again: int = 0


class Streamed(msgspec.Struct, frozen=True):
    """What lies on one stream."""

    stream: str
    events: int
    records: int
    bytes_before: int
    bytes_after: int


class Report(msgspec.Struct, frozen=True):
    """How a demo ended. `holds`: nothing was lost, doubled or wrong, and every kill struck work in hand."""

    records: int
    changes: int
    served: int
    streams: list[Streamed]
    kills: list[Killed]
    verdicts: list[Verdict]
    showpiece: str
    seconds: float

    @property
    def holds(self) -> bool:
        return all(verdict.holds for verdict in self.verdicts) and all(kill.again for kill in self.kills)


class Demo:
    """One run, in `folder`. `note` hears how it goes; `faults` befall the vendor's answers until the last round."""

    def __init__(
        self,
        folder: Path,
        runtime: Runtime,
        environment: Mapping[str, str],
        note: Callable[[str], None],
        faults: Faults = CALM,
    ):
        self.folder, self.runtime, self.note, self.faults = folder, runtime, note, faults
        self.environment = dict(environment) | {"AVESA_LOG": "debug", "AVESA_STATE_DIR": str(folder / "state")}
        self.world = World(lambda: datetime.now(UTC), random.Random(2026))
        self.changes = 0
        self.kills: list[Killed] = []
        self.told: Counter[str] = Counter()

    async def run(self, warehouse: Warehouse) -> Report:
        """The whole demo. Errors: FatalError when a step of it fails; what is compared is in the report."""
        clock = self.runtime.clock
        started = clock.monotonic()
        options = ["--mappings", str(write_pace(self.folder / "mappings"))]
        async with self._vendor() as vendor:
            await asyncio.gather(*(self._connect(vendor, tenant, options) for tenant in TENANTS))
            children = service_children(self.folder / "logs", self.environment, options, clock, lambda _: None)
            running = [asyncio.create_task(child.run()) for child in children]
            telling = asyncio.create_task(self._tell())
            try:
                await asyncio.gather(self._live(), *(self._kill_once(child) for child in children))
                self.note("no more changes; stopping the services")
                await stop_children(children, self.note)
            finally:
                telling.cancel()
                for child in children:
                    child.kill()
                for task in running:
                    task.cancel()
            self._read_logs()
            vendor.faults = CALM
            if vendor.struck:
                told = ", ".join(f"{fault} {count:,}" for fault, count in sorted(vendor.struck.items()))
                self.note(f"answers that went wrong: {told}")
            self.note("one last round, with a sweep for deletes: avesa run --once")
            for _ in range(1 if self.faults == CALM else 2):  # a list whose first walk ends only now is swept next time
                await self.avesa("run", "--once", *options)
            served = sum(site.log.rows_count for site in self.world.sites.values())
            self.note("comparing the lake with everything the sandbox served")
            verdicts = await self._compare(warehouse, options[1])
        return Report(
            sum(len(table.entries) for site in self.world.sites.values() for table in site.tables.values()),
            self.changes,
            served,
            [
                await self._streamed(name)
                for name in (self.runtime.names.raw_stream, self.runtime.names.canonical_stream)
            ],
            self.kills,
            verdicts,
            self._showpiece(),
            clock.monotonic() - started,
        )

    # -- the vendor and its customers
    @asynccontextmanager
    async def _vendor(self) -> AsyncIterator[Running]:
        for number, tenant in enumerate(TENANTS):
            self.world.add_site(tenant, Keys(tenant, f"public-{number}", f"private-{number}", f"client-{number}"))
            self.world.populate(tenant, COUNTS, minimum=MINIMUM)
        running = await start(self.world, faults=self.faults)
        count = sum(len(table.entries) for site in self.world.sites.values() for table in site.tables.values())
        self.note(f"sandbox at {running.url}: {len(TENANTS)} tenants, {count:,} records")
        try:
            yield running
        finally:
            await running.close()

    async def _connect(self, vendor: Running, tenant: str, options: Sequence[str]) -> None:
        keys = self.world.sites[tenant].keys
        credentials = {
            "CONNECTWISE_API_URL": vendor.url,
            "CONNECTWISE_COMPANY_ID": keys.company_id,
            "CONNECTWISE_PUBLIC_KEY": keys.public_key,
            "CONNECTWISE_PRIVATE_KEY": keys.private_key,
            "CONNECTWISE_CLIENT_ID": keys.client_id,
        }
        names = ("--tenant-id", tenant, "--company-name", tenant.title(), "--service", SERVICE)
        await self.avesa("setup-service", *names, *options, **credentials)

    async def _live(self) -> None:
        """The customers at work: changes of every kind, evenly spread."""
        clock = self.runtime.clock
        began = clock.monotonic()
        while self.changes < CHANGES:
            due = int(CHANGES * min(1.0, (clock.monotonic() - began) / CHANGES_S))
            for tenant in TENANTS:
                share = max(0, (due - self.changes) // len(TENANTS))
                self.world.change(tenant, share, late_s_max=LATE_S_MAX)
            self.changes += len(TENANTS) * max(0, (due - self.changes) // len(TENANTS))
            await clock.sleep(TICK_S)
            if due == CHANGES and CHANGES - self.changes < len(TENANTS):
                return

    # -- the services
    async def avesa(self, *arguments: str, **extra: str) -> str:
        """One command, as a user would type it; its output. Errors: FatalError with what it said."""
        process = await asyncio.create_subprocess_exec(
            *command_line(arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self.environment, "AVESA_LOG": "error", **extra},
            start_new_session=True,
        )
        try:
            out, err = await process.communicate()
        finally:
            with suppress(ProcessLookupError):
                process.kill()
        if process.returncode != 0:
            said = (err or out).decode(errors="replace").strip()
            raise FatalError(f"avesa {arguments[0]} ended with {process.returncode}: {said}")
        return out.decode()

    async def _kill_once(self, child: Child) -> None:
        """SIGKILL with work in hand that is not committed, until what was read again proves that it struck."""
        service = child.program.name
        for _ in range(KILLS_MAX):
            if not await self._wait_for_work(service):
                break
            child.kill()
            kill = Killed(service, self.runtime.clock.now())
            self.note(f"killed the {service} (SIGKILL) with work in hand")
            kill.again = await self._read_again(service, child)
            if kill.again:
                self.note(f"the {service} is back and reads {kill.again:,} events again")
                self.kills.append(kill)
                return
        raise FatalError(f"no kill of the {service} found work that was read and not committed")

    async def _wait_for_work(self, service: str) -> bool:
        """Until a lease row of the service shows progress beyond what is committed."""
        clock = self.runtime.clock
        until = clock.monotonic() + KILL_WAIT_S
        while clock.monotonic() < until:
            async for row in self.runtime.rows.scan(self.runtime.names.leases):
                if row.get("owner") and _in_hand(service, row):
                    return True
            await clock.sleep(0.05)
        return False

    async def _read_again(self, service: str, child: Child) -> int:
        """What the successor says it reads again, summed over its shards or units."""
        clock, before = self.runtime.clock, self.told[f"again {service}"]
        until, starts = clock.monotonic() + KILL_WAIT_S / 2, child.starts
        while clock.monotonic() < until:
            self._read_logs()
            if self.told[f"again {service}"] > before and child.starts > starts:
                await clock.sleep(1.0)  # its other shards follow within the same moments
                self._read_logs()
                return self.told[f"again {service}"] - before
            await clock.sleep(TICK_S)
        return 0

    # -- what the services say
    def _read_logs(self) -> None:
        self.told.clear()
        for log in (self.folder / "logs").glob("*.log"):
            for line in log.read_bytes().splitlines():
                if line.startswith(b"{"):
                    self._hear(line)

    def _hear(self, line: bytes) -> None:
        try:
            said = msgspec.json.decode(line)
        except msgspec.DecodeError:  # a line cut by a kill
            return
        event = said.get("event")
        if event == "EventsReadAgain":
            self.told[f"again {said['service']}"] += said["count"]
        elif event in ("EventsPublished", "EventsTransformed"):
            self.told[event] += said["count"]
        elif event == "TableMerged":
            self.told[event] += said["observations"]

    async def _tell(self) -> None:
        while True:
            await self.runtime.clock.sleep(TOLD_EVERY_S)
            self._read_logs()
            told = self.told
            self.note(
                f"  changes {self.changes:>6,} · extracted {told['EventsPublished']:>7,} · transformed "
                f"{told['EventsTransformed']:>7,} · merged {told['TableMerged']:>7,}"
            )

    # -- the end
    async def _compare(self, warehouse: Warehouse, own: str) -> list[Verdict]:
        mappings = load_mappings(Path(own))
        lake = Lake(warehouse, self.runtime.objects, self.runtime.threads, mappings)
        verdicts = []
        for name in TENANTS:
            versions = {table: await lake.versions(name, table) for table in mappings.tables}
            raw = {
                endpoint: payloads(await lake.raw_latest(name, SERVICE, endpoint))
                for endpoint in mappings.integrations[SERVICE].endpoints
            }
            killed = [kill.at for kill in self.kills if kill.service == "extractor"]
            verdicts += await self.runtime.threads.run(
                prove, self.world, Tenant(name, name, SERVICE), mappings, versions, raw, killed
            )
        return verdicts

    async def _streamed(self, stream: str) -> Streamed:
        """Every envelope of a stream, by its header."""
        streams, total = self.runtime.streams, Counter[str]()
        for shard in (await streams.describe(stream)).shards:
            iterator: str | None = await streams.iterator(stream, shard.shard_id, None)
            while iterator is not None:
                page = await streams.read(stream, iterator, 1_000)
                for record in page.records:
                    header, _ = split(record.data)
                    total.update(events=header.count, records=1, before=header.body_bytes, after=len(record.data))
                iterator = page.next_iterator if page.behind_ms or page.records else None
        return Streamed(stream, total["events"], total["records"], total["before"], total["after"])

    def _showpiece(self) -> str:
        """The service ticket that was served in most states."""
        states = Counter(
            seen.record_id
            for seen in {
                (served.record_id, served.version): served
                for served in self.world.served(TENANTS[0])
                if served.path == "service/tickets" and served.kind == "full"
            }.values()
        )
        living = self.world.current(TENANTS[0], "service/tickets")
        return str(max((count, number) for number, count in states.items() if number in living)[1])


def _in_hand(service: str, row: Mapping[str, Any]) -> bool:
    progress = row.get("progress") or {}
    if service == "extractor":
        return bool(row["scope"] == "extract" and progress.get("unsaved", 0) > 0)
    reached, committed = int(progress.get("position") or 0), int(row.get("position") or 0)
    return bool(row["scope"].startswith(f"{service}/") and reached > committed)


def payloads(rows: Any) -> dict[str, bytes]:
    """Payload by record of an Arrow table of raw observations."""
    ids, payloads = rows.column("record_id").to_pylist(), rows.column("payload").to_pylist()
    return {record_id: payload.encode() for record_id, payload in zip(ids, payloads, strict=True)}


def write_pace(folder: Path) -> Path:
    """The shipped mapping file with seconds for minutes, as a user's own."""
    (folder / "integrations").mkdir(parents=True, exist_ok=True)
    shipped = msgspec.json.decode((SHIPPED / "integrations" / f"{SERVICE}.json").read_bytes())
    # By the second: who takes over from a killed worker waits until what that one may have asked for is forgotten.
    shipped["limits"] = {"requests": 1_000, "window_s": 1, "share": 1, "concurrency": 4}
    for endpoint in shipped["endpoints"].values():
        # A call for each of thousands of tickets, and again with each sweep, would be most of a demo.
        endpoint["enabled"] = not endpoint.get("parent", {}).get("when_changed", False)
        endpoint["interval_s"] = PACE["interval_s"]
        if endpoint.get("incremental"):
            endpoint["incremental"] |= {"lag_s": PACE["lag_s"], "overlap_s": PACE["overlap_s"]}
        if endpoint.get("deletes"):
            endpoint["deletes"]["interval_s"] = PACE["sweep_s"]
    (folder / "integrations" / f"{SERVICE}.json").write_bytes(msgspec.json.encode(shipped))
    return folder
