"""One history: an AWS, a vendor with its customers, and the real services as processes that come and go.

customers work -> extractors read -> raw stream -> transformers -> canonical stream -> compactors -> lake
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from random import Random
from typing import Any, Final, Protocol, TypeVar

import msgspec
import pyarrow as pa

from services.compactor.cuts import Rules
from services.compactor.history import Watermark
from services.compactor.merging import MaintainedTables
from services.compactor.service import Compactor
from services.contracts.envelope import split
from services.contracts.errors import RejectedError, RetryableError
from services.contracts.gaps import GapRules
from services.contracts.log import Event
from services.contracts.names import Names
from services.contracts.schema import CanonicalTable
from services.extractor.service import run as run_extractor
from services.runtime.envelopes import unseal
from services.runtime.lanes import Bounds
from services.transformer.service import Transformer
from services.transformer.shard import Limits
from tests.compactor.memory_history import MemoryHistories
from tests.simulation.aws import Aws, AwsClock
from tests.simulation.calls import NOTHING, Call, Interceptor, Twist, lost_answer
from tests.simulation.loop import VirtualLoop
from tests.simulation.processes import Killed, Process, Service
from tests.simulation.trace import CALL, Trace
from tests.simulation.vendor import SERVICE, SITE, TABLES, TENANTS, Vendor, Wire, mapping_files

T = TypeVar("T")
E = TypeVar("E", bound=Event)

START: Final = "2026-01-31T09:59:15.000000Z"  # a new hour begins while the customers work
# How wrong a clock may be. All else is scaled by 30 and more; the extractor's rhythms run on the wall clock, and one
# that is wrong by many sweep intervals sweeps without end, so its error is scaled too.
SKEW_MAX_S: Final = {"extractor": 10.0, "transformer": 300.0, "compactor": 300.0}
RETENTION_S: Final = 86_400.0  # of the streams
ROUGH_SHARE: Final = 0.003  # of all calls, while the weather is rough: fail, lose their answer, or land late


class Scale(msgspec.Struct, frozen=True):
    """How large a history is. Units: seconds, counts."""

    shards: int = 4
    workers: int = 2  # of each service
    records: int = 15  # of each list, from the start
    changes: int = 195  # besides those
    work_s: float = 70.0  # in which customers make them
    observations_min: int = 200  # fewer prove nothing
    lease_s: float = 10.0
    restart_s: float = 6.0  # at most, until a process that ended is started again
    bounds: Bounds = Bounds(lane_bytes_max=8 << 10, held_bytes_max=24 << 10)
    rules: Rules = Rules(
        spool_age_max_s=10.0, cut_age_max_s=50.0, cut_idle_s=15.0, cut_bytes=256 << 10, gaps=GapRules(RETENTION_S)
    )
    limits: Limits = Limits(commit_s=3.0)


class Tables(Protocol):
    """All version tables: `Histories`, and what an operator sees."""

    @property
    def held(self) -> Mapping[tuple[str, str], "Rows"]: ...

    def __call__(self, tenant_id: str, table: CanonicalTable) -> MaintainedTables: ...


class Rows(Protocol):
    @property
    def rows(self) -> list[dict[str, Any]]:
        """The versions of one table as JSON values, in reading order."""
        ...


class _Told(msgspec.Struct):
    record_id: str
    op: str


class World:
    """Everything there is.

    For faults: `aws` (streams.conditions, streams.reshard, ...), `vendor`, `alive(service)`, `intercept`, `strike`,
    `note`, `slot_skews`, and `loop.now` for the time. `heard` is every event as (time, process, event).
    """

    def __init__(self, loop: VirtualLoop, seed: int, scale: Scale | None = None) -> None:
        self.loop, self.seed, self.scale = loop, seed, scale or Scale()
        self.random = Random(seed)
        self.names = Names("sim")
        self.trace = Trace()
        self.clock = AwsClock(loop, START)
        self.aws = Aws(self.clock, self.names, self._fork(), self.scale.shards)
        self.vendor = Vendor(self.clock.now, self._fork(), lambda what: self.note("vendor", "change", what))
        self.vendor.seen_gone = self._seen_gone
        self.histories: Tables = MemoryHistories()
        self.mappings = mapping_files()
        self.tables = dict(TABLES)  # with every column that any mapping has
        self.resources = ExitStack()  # closed when the history is over
        self.alone = False  # one fault and no other: its injector may judge what others would blur
        self.trace = Trace()
        self.processes: dict[str, Process] = {}  # the one that runs in each place
        self.heard: list[tuple[float, str, Event]] = []
        self.struck: Counter[int] = Counter()
        self.struck_at: dict[int, float] = {}
        self.crashes: list[str] = []
        self.objections: list[tuple[str, str]] = []
        self.starts = 0
        self.roughness = 1.0  # 0 when the weather is fine
        self.closing = False
        self._interceptors: list[Interceptor] = []
        self._weather = self._fork()
        self._supervisors: list[asyncio.Task[None]] = []

    def _fork(self) -> Random:
        return Random(self.random.getrandbits(64))

    # -- for faults ---------------------------------------------------------------------------------------------------
    def alive(self, service: str = "") -> list[Process]:
        """The processes that run, of one service or all, in a fixed order."""
        found = (process for _, process in sorted(self.processes.items()))
        return [process for process in found if process.running and service in ("", process.service)]

    def intercept(self, interceptor: Interceptor, *, first: bool = False) -> Callable[[], None]:
        """Ask it about every call from now on, `first` of all; what it returns puts an end to it."""
        self._interceptors.insert(0 if first else len(self._interceptors), interceptor)
        return lambda: self._interceptors.remove(interceptor)

    @staticmethod
    def a_skew(service: str, random: Random) -> float:
        """How wrong the clock of a process may be."""
        return random.uniform(-SKEW_MAX_S[service], SKEW_MAX_S[service])

    def strike(self, row: int, what: str) -> None:
        """The fault of this row took effect."""
        self.struck[row] += 1
        self.struck_at.setdefault(row, self.loop.now)
        self.note(f"row {row}", "STRUCK", what)

    def object(self, kind: str, what: str) -> None:
        """Something is not as it must be, whatever the lake says in the end."""
        self.note("world", "OBJECT", f"{kind}: {what}")
        self.objections.append((kind, what))

    def _seen_gone(self, tenant_id: str, endpoint: str, record_id: int) -> bool:
        """Is the last that was published of a record that it is gone?"""
        last = ""
        for stored in self.aws.streams.log.get(self.names.raw_stream, []):
            with suppress(RejectedError, msgspec.DecodeError):  # bad on purpose
                header, packed = split(stored.record.data)
                if (header.partition.tenant_id, header.endpoint) == (tenant_id, endpoint):
                    for line in unseal(header, packed):
                        event = msgspec.json.decode(line, type=_Told)
                        last = event.op if event.record_id == str(record_id) else last
        return last == "delete"

    def note(self, who: str, kind: str, what: str) -> None:
        self.trace.add(self.loop.now, who, kind, what)

    def hear(self, process: Process, event: Event) -> None:
        self.heard.append((self.loop.now, process.name, event))
        fields = ", ".join(f"{name}={value}" for name, value in msgspec.structs.asdict(event).items())
        self.note(process.name, "said", f"{type(event).__name__}({fields})")

    def said(self, *kinds: type[E], since: float = 0.0) -> list[E]:
        """Events of these kinds."""
        return [event for at, _, event in self.heard if at >= since and isinstance(event, kinds)]

    # -- for processes ------------------------------------------------------------------------------------------------
    def twist(self, call: Call) -> Twist:
        """What befalls a call."""
        for interceptor in list(self._interceptors):
            twist = interceptor(call)
            if twist is not None:
                self.note(call.process.name, "twist", f"{call.text}: {twist.text}")
                return twist
        if self.roughness and call.port != "threads" and self._weather.random() < ROUGH_SHARE * self.roughness:
            twist = self._rough(call)
            self.note(call.process.name, "weather", f"{call.text}: {twist.text}")
            return twist
        return NOTHING

    def _rough(self, call: Call) -> Twist:
        dice = self._weather.random()
        if dice < 0.4 or call.method in ("get", "read", "describe", "list", "query", "scan", "iterator", "open"):
            return Twist(error=RetryableError("the service answered 500", code="unavailable"))
        if dice < 0.8 or call.port == "catalog":
            return Twist(lost=True)
        return Twist(late_s=1.0 + 7.0 * self._weather.random())

    # -- the processes ------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start every process in its place, and keep it running."""
        for service in WORK:
            for place in range(1, self.scale.workers + 1):
                self._supervisors.append(asyncio.ensure_future(self._keep_running(service, f"{service}-{place}")))

    async def _keep_running(self, service: str, place: str) -> None:
        """As ECS does it."""
        starts = 0
        while not self.closing:
            starts += 1
            self.starts += 1
            skew_s = self.a_skew(service, self.random) if self.random.random() < 0.2 else 0.0
            process = Process(self, service, f"{place}.{starts}", skew_s, WORK[service])
            self.processes[place] = process
            self.note(process.name, "start", f"clock wrong by {skew_s:.0f} s")
            ended = await process.run()
            self.note(process.name, "end", _told(ended))
            if ended is not None and not isinstance(ended, (Killed, *process.allow)):
                self.crashes.append(f"{process.name} ended with {_told(ended)}")
            if not self.closing:
                await asyncio.sleep(1.0 + self.random.random() * self.scale.restart_s)

    async def close(self, seconds_max: float) -> list[str]:
        """SIGTERM to all; the names of those that had to be killed."""
        self.closing = True
        for process in self.alive():
            process.stop()
        _, left = await asyncio.wait(self._supervisors, timeout=seconds_max)
        late = [process.name for process in self.alive()] if left else []
        for process in self.alive():
            process.kill()
        await asyncio.gather(*self._supervisors)
        return late

    # -- the customers ------------------------------------------------------------------------------------------------
    async def connect(self) -> None:
        """Every tenant is a customer of the vendor and has some records."""
        for tenant_id in TENANTS:
            secret = self.names.secret(tenant_id, SERVICE)
            await self.aws.secrets.put(secret, {"site": SITE, "key": f"key of {tenant_id}"})
            row = {"company_name": tenant_id, "enabled": True, "secret": secret, "created_at": self.clock.now()}
            await self.aws.rows.write(self.names.tenant_services, {"tenant_id": tenant_id, "service": SERVICE}, row)
            for name in TABLES:
                for _ in range(self.scale.records):
                    self.vendor.create(tenant_id, name)

    async def customers_work(self) -> None:
        """Changes, some of them in bursts within a second."""
        random = self._fork()
        pause_s = self.scale.work_s / self.scale.changes
        left = self.scale.changes
        while left > 0:
            burst = min(left, random.choice((1, 1, 1, 2, 3, 6)))
            for _ in range(burst):
                self.vendor.work()
            left -= burst
            await asyncio.sleep(2 * pause_s * burst * random.random())


def _told(ended: BaseException | None) -> str:
    return "clean" if ended is None else f"{type(ended).__name__}: {ended}"


# -- the services as they are ------------------------------------------------------------------------------------------
async def _extract(process: Process) -> None:
    world = process.world
    wire = Wire(world.vendor, process)
    await run_extractor(process.runtime, world.mappings, process.stopping, transport=wire)


async def _transform(process: Process) -> None:
    world = process.world
    scale = world.scale
    await Transformer(process.runtime, world.mappings, scale.limits, gaps=scale.rules.gaps).run(process.stopping)


async def _compact(process: Process) -> None:
    world = process.world
    files = world.mappings
    compactor = Compactor(process.runtime, files.tables, Catalog(process), world.scale.rules, files.integrations)
    await compactor.run(process.stopping)


WORK: Final[dict[str, Service]] = {"extractor": _extract, "transformer": _transform, "compactor": _compact}


class Catalog:
    """The tables as one process sees them: `Histories`. Calls `open`, `remember`, `commit` of port `catalog`."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def __call__(self, tenant_id: str, table: CanonicalTable) -> MaintainedTables:
        histories, name = self._process.world.histories, f"{tenant_id}/{table.table}"
        return self.call("open", name, lambda: _History(histories(tenant_id, table), self, name))

    def call(self, method: str, subject: str, effect: Callable[[], T]) -> T:
        """In the midst of a thread's work: no time passes."""
        process = self._process
        call = Call(process, "catalog", method, subject)
        twist = process.world.twist(call)
        if twist.kill == "before":
            process.kill()
            raise Killed
        if twist.error is not None:
            raise twist.error
        result = effect()
        process.world.note(process.name, CALL, f"{call.name} {subject}")
        if twist.kill == "after":
            process.kill()
            raise Killed
        if twist.lost:
            raise lost_answer(call)
        return result


class _History:
    """A view of one history that can fail at every step: `MaintainedTables`."""

    def __init__(self, tables: MaintainedTables, catalog: Catalog, subject: str) -> None:
        self._tables, self._catalog, self._subject = tables, catalog, subject

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tables, name)

    def remember(self, entries: pa.Table) -> None:
        self._catalog.call("remember", self._subject, lambda: self._tables.remember(entries))

    def commit(self, removed: pa.Table, added: pa.Table, watermark: Watermark) -> None:
        self._catalog.call("commit", self._subject, lambda: self._tables.commit(removed, added, watermark))


def quiet(context: Any) -> None:
    """What the loop says of tasks that died with their process concerns nobody."""
