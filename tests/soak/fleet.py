"""A fleet of real processes on the embedded AWS, a vendor that lives, and an observer of the lease table."""

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, Final

import msgspec

from services.cli.world import World, open_runtime
from services.contracts.envelope import Header, split
from services.contracts.ports import Clock, Row
from services.runtime import provision
from services.runtime.clock import SystemClock
from services.runtime.mapping_files import load_mappings
from services.runtime.processes import Child, Program, stop_children, worker_names
from services.runtime.runtime import Runtime
from services.runtime.settings import Settings
from services.runtime.shards import scope_of
from services.sandbox.demo import write_pace
from services.sandbox.embedded import LEASE_S, embedded_environment
from services.sandbox.sites import Keys
from services.sandbox.vendor import start
from services.sandbox.world import World as Vendor
from tests.whole.plant import Plant

WORKERS: Final = 3
SHARDS: Final = 6  # of each stream: two for each worker
TENANTS: Final = ("acme", "globex")
COUNTS: Final = {"service/tickets": 300, "time/entries": 300, "company/contacts": 150}
LOOK_S: Final = 0.1
TICK_S: Final = 0.25
CHANGES_PER_S: Final = 40.0  # of all tenants together
LATE_S_MAX: Final = 8
SETTLE_S: Final = 60.0

At = tuple[str, str]  # scope and name of a lease row


# -- the observer -----------------------------------------------------------------------------------------------------
class Between(msgspec.Struct, frozen=True):
    """When something happened: after one look, and before or at the next."""

    after: float
    before: float


class Tenure(msgspec.Struct):
    """One epoch of a lease row: when it began, and when its owner let go."""

    epoch: int
    taken: Between
    let_go: Between | None = None


NEVER: Final = Between(float("inf"), float("inf"))


class Watch:
    """What the lease rows of both services' shards show, look by look; nobody is asked anything."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._looked_at = runtime.clock.monotonic()
        self.rows: dict[At, Row] = {}
        self.tenures: dict[At, list[Tenure]] = {}
        self.backwards: list[str] = []  # positions that a later look found before those of an earlier one
        self._looking = asyncio.Lock()  # of two at once, the one that ends last may have seen less

    async def look(self) -> dict[At, Row]:
        async with self._looking:
            return await self._look()

    async def _look(self) -> dict[At, Row]:
        runtime, found = self._runtime, dict[At, Row]()
        began = runtime.clock.monotonic()
        for scope in await self._scopes():
            async for row in runtime.rows.query(runtime.names.leases, {"scope": scope}):
                found[scope, row["name"]] = row
        meanwhile = Between(self._looked_at, runtime.clock.monotonic())
        self._looked_at = began
        for at, row in found.items():
            self._see(at, row, meanwhile)
        self.rows = found
        return found

    async def run(self) -> None:
        while True:
            await self.look()
            await self._runtime.clock.sleep(LOOK_S)

    async def _scopes(self) -> list[str]:
        names, streams = self._runtime.names, self._runtime.streams
        raw, canonical = names.raw_stream, names.canonical_stream
        created = {stream: (await streams.describe(stream)).created for stream in (raw, canonical)}
        readers = (("transformer", raw), ("compactor", raw), ("compactor", canonical))
        return [scope_of(stream, created[stream], group) for group, stream in readers]

    def _see(self, at: At, row: Row, meanwhile: Between) -> None:
        before = self.rows.get(at, {}).get("position")
        if before is not None and int(row.get("position") or 0) < int(before):
            self.backwards.append(f"{at}: {before} -> {row.get('position')}")
        tenures = self.tenures.setdefault(at, [])
        if not tenures or tenures[-1].epoch < int(row["epoch"]):
            tenures.append(Tenure(int(row["epoch"]), meanwhile))
        if row.get("owner") is None and tenures[-1].let_go is None:
            tenures[-1].let_go = meanwhile

    def taken(self, at: At, epoch: int) -> Between:
        """When somebody owned it after that epoch; NEVER if nobody did."""
        return next((one.taken for one in self.tenures[at] if one.epoch > epoch), NEVER)

    def let_go(self, at: At, epoch: int) -> Between:
        """When the owner of that epoch owned it no longer."""
        let_go = next((one.let_go for one in self.tenures[at] if one.epoch == epoch), None)
        return self.taken(at, epoch) if let_go is None else let_go


class Ended(msgspec.Struct, frozen=True):
    """One process that was made to end: when, and the epochs of what it held at that moment."""

    name: str
    at: float
    held: dict[At, int]


# -- the processes ----------------------------------------------------------------------------------------------------
class Fleet:
    """WORKERS processes of each service that shares shards, and one extractor. A name that is started again writes on
    in its log."""

    def __init__(self, folder: Path, environment: Mapping[str, str], options: list[str], clock: Clock) -> None:
        self._logs, self._environment, self._options, self._clock = folder / "logs", environment, options, clock
        self.children: dict[str, Child] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self.notes: list[str] = []

    @property
    def sharing(self) -> dict[str, list[str]]:
        """The names of the processes of each service that shares shards."""
        return {service: worker_names(service, WORKERS) for service in ("transformer", "compactor")}

    def start(self, *names: str) -> None:
        for name in names:
            arguments = [name.partition("-")[0], "--until-stdin-closes", *self._options]
            program = Program(name, arguments, self._logs / f"{name}.log", self._environment)
            child = self.children[name] = Child(program, self._clock, self._ended)
            self._running[name] = asyncio.create_task(child.run())

    def _ended(self, note: str) -> None:
        if signal.SIGKILL.name not in note:  # nobody ends by itself
            self.notes.append(note)

    async def stop(self, *names: str) -> None:
        """SIGTERM, and no new start."""
        chosen = names or tuple(self.children)
        await stop_children([self.children[name] for name in chosen], self.notes.append)
        await asyncio.gather(*(self._running.pop(name) for name in chosen))

    def end(self) -> None:
        for name, child in self.children.items():
            child.kill()
            if name in self._running:
                self._running[name].cancel()

    def held(self, name: str, rows: Mapping[At, Row]) -> dict[At, int]:
        """What of these rows the process owns: its log says which epochs it gained."""
        gained = {(said["scope"], said["name"], said["epoch"]) for said in self.said("LeaseGained", name)}
        return {
            at: int(row["epoch"])
            for at, row in rows.items()
            if row.get("owner") is not None and (*at, row["epoch"]) in gained
        }

    def said(self, event: str, *names: str) -> Iterator[dict[str, Any]]:
        """Every such event in the logs of these processes, or of all; a line cut by a kill is none."""
        for name in names or tuple(self.children):
            log = self.children[name].program.log
            for line in log.read_bytes().splitlines() if log.exists() else ():
                if f'"{event}"'.encode() in line:
                    try:
                        yield msgspec.json.decode(line)
                    except msgspec.DecodeError:
                        continue

    def counted(self, event: str, field: str = "count") -> int:
        return sum(said[field] for said in self.said(event))


# -- all of it --------------------------------------------------------------------------------------------------------
class Yard:
    """One environment: the plant, its fleet and who watches it."""

    def __init__(self, plant: Plant, fleet: Fleet, watch: Watch) -> None:
        self.plant, self.fleet, self.watch = plant, fleet, watch
        self.runtime = plant.world.runtime
        self.clock = self.runtime.clock
        self.changes = 0
        # Epochs whose owner was killed: whoever bears its name now is not it.
        self.orphaned: set[tuple[At, int]] = set()

    async def live(self) -> None:
        """The customers at work, until cancelled."""
        began = self.clock.monotonic()
        while True:
            due = int(CHANGES_PER_S * (self.clock.monotonic() - began)) // len(TENANTS)
            for tenant in TENANTS:
                self.plant.vendor.change(tenant, due - self.changes // len(TENANTS), late_s_max=LATE_S_MAX)
            self.changes = due * len(TENANTS)
            await self.clock.sleep(TICK_S)

    async def settle(self) -> None:
        """Until no worker has nothing to do."""
        until = self.clock.monotonic() + SETTLE_S
        while self.clock.monotonic() < until:
            if all(self.shares().values()):
                return
            await self.clock.sleep(TICK_S)
        raise AssertionError(f"the fleet has not shared the work: {self.shares()}")

    def shares(self) -> dict[str, int]:
        """How many shards each process holds."""
        names = (name for some in self.fleet.sharing.values() for name in some)
        return {name: len(self.fleet.held(name, self.watch.rows)) for name in names}

    async def busiest(self, service: str) -> tuple[str, dict[At, int]]:
        """The process of a service that holds most at this moment, and what that is."""
        rows = await self.watch.look()
        held = {name: dict(self.fleet.held(name, rows).items() - self.orphaned) for name in self.fleet.sharing[service]}
        return max(held.items(), key=lambda one: len(one[1]))

    async def differences(self) -> list[str]:
        """Lake against source, after one last round with a sweep."""
        done = await self.plant.round()
        assert (done.exit_code, done.rejected) == (0, 0)
        return [difference for tenant in TENANTS for difference in await self.plant.differences(tenant)]

    async def headers(self, stream: str) -> AsyncIterator[tuple[str, int, Header]]:
        """Shard, sequence and header of every envelope of a stream."""
        streams = self.runtime.streams
        for shard in (await streams.describe(stream)).shards:
            iterator: str | None = await streams.iterator(stream, shard.shard_id, None)
            while iterator is not None:
                page = await streams.read(stream, iterator, 1_000)
                for record in page.records:
                    yield shard.shard_id, int(record.sequence), split(record.data)[0]
                iterator = page.next_iterator if page.behind_ms or page.records else None


@asynccontextmanager
async def yard(settings: Settings, folder: Path) -> AsyncIterator[Yard]:
    """A fleet at work on connected tenants, none of its workers idle."""
    settings = msgspec.structs.replace(settings, state_dir=folder / "state", lease_s=LEASE_S)
    options = ["--mappings", str(write_pace(folder / "mappings"))]
    environment = embedded_environment(
        settings, AVESA_LOG="debug", AVESA_STATE_DIR=str(folder / "states"), AVESA_CUT_AGE_MAX_S="8"
    )
    fleet = Fleet(folder, environment, options, SystemClock())
    vendor = Vendor(lambda: datetime.now(UTC), Random(4))
    running = await start(vendor)
    tasks: list[asyncio.Task[None]] = []
    try:
        await provision.ensure(settings, shards=SHARDS)
        async with open_runtime(settings) as runtime:
            plant = Plant(World(settings, runtime), vendor, running, load_mappings(folder / "mappings"))
            for tenant in TENANTS:
                vendor.add_site(tenant, Keys(tenant, "public", "private", "client"))
                vendor.populate(tenant, COUNTS, minimum=10)
                await plant.connect(tenant)
            made = Yard(plant, fleet, Watch(runtime))
            fleet.start("extractor", *(name for names in fleet.sharing.values() for name in names))
            tasks.append(asyncio.create_task(made.watch.run()))
            await made.settle()
            yield made
    finally:
        fleet.end()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await running.close()


def span(when: Between, ended: Ended) -> Between:
    """Seconds from an end to what followed: at least, at most."""
    return Between(when.after - ended.at, when.before - ended.at)


def within(spans: Iterable[Between]) -> str:
    """`2.1 to 12.4 s, in the middle 8.0 s`: what each took at most."""
    sorted_s = sorted(one.before for one in spans)
    return f"{sorted_s[0]:.1f} to {sorted_s[-1]:.1f} s, in the middle {sorted_s[len(sorted_s) // 2]:.1f} s"


def counts(names: Iterable[str]) -> str:
    return ", ".join(f"{count} of the {name}" for name, count in Counter(names).items())
