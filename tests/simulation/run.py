"""Driving histories: one seed is one history, planned, lived, brought to rest and judged."""

import asyncio
import gc
import time
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Final

import msgspec

from services.contracts.log import EndpointFailed
from tests.simulation import loop as virtual
from tests.simulation.every_fault import FAULTS
from tests.simulation.oracle import Finding, Logs, judge, parts, story, unread, waiting
from tests.simulation.processes import task_factory
from tests.simulation.trace import Trace
from tests.simulation.world import Scale, World, quiet

FAULTS_MIN, FAULTS_MAX = 5, 8
FAULTS_FROM_S, FAULTS_TO_S = 4.0, 55.0
WORKERS: Final = (1, 2, 2, 2, 2, 2, 3)  # of each service
OVERTIME_MAX: Final = 20  # rounds of five changes and five seconds, until there are enough observations
LOOK_S: Final = 4.0  # between two looks whether all is done
# How long after the last fault the pipeline may take until everything is in the lake. A sweep that failed is tried
# again after five minutes (`extractor/unit.SWEEP_RETRY_S`), and takes half a minute's interval to be due.
STREAMS_RESUME_S: Final = 150.0
VENDOR_RESUME_S: Final = 420.0
STOP_S: Final = 30.0
FAULTS_END_S: Final = 400.0  # by then customers and faults have come to their end
LEAP_EVERY, LEAP_S = 10, 5_400.0  # in one seed of so many, an hour and a half pass at the end
STREAM_GONE: Final = 31  # the row after which hours stay in parts: nobody owns the shards that wrote them any more
HOURS_S: Final = 240.0  # until every hour that is over is one file: `hours.POLL_S` twice, and the quiet shards' commits
SPARE: Final = (32, 28, 8, 29, 33)  # rows that strike as soon as they are injected


class Report(msgspec.Struct, frozen=True):
    """What became of one seed. Units: `seconds` of virtual time, `cpu_s` of ours."""

    seed: int
    findings: tuple[Finding, ...]
    struck: dict[int, int]
    rows: tuple[int, ...]
    observations: int
    versions: int
    seconds: float
    resumed_s: float
    starts: int
    cpu_s: float
    digest: str
    trace: tuple[str, ...] = ()

    def count(self, kind: str) -> int:
        return sum(finding.kind == kind for finding in self.findings)


POSITION_EXPIRED, STREAM_MADE_ANEW = 30, 31  # rows of faults.md


def rows_of(seed: int) -> tuple[int, ...]:
    """The faults of a seed: each row in its turn, in an order of its own each round; half of all seeds reshard."""
    random = Random(f"plan {seed}")
    resharding = sorted(row for row, fault in FAULTS.items() if fault.reshards and fault.every == 1)
    others = sorted(row for row, fault in FAULTS.items() if not fault.reshards and fault.every == 1)
    count = random.randint(FAULTS_MIN, FAULTS_MAX)
    chosen = [resharding[seed // 2 % len(resharding)]] if seed % 2 == 0 else []
    first = seed * FAULTS_MIN
    for number in range(first, first + count - len(chosen)):
        turn, place = divmod(number, len(others))
        order = list(others)
        Random(f"round {turn}").shuffle(order)
        if order[place] not in chosen:
            chosen.append(order[place])
    costly = [row for row, fault in FAULTS.items() if fault.every > 1 and seed % fault.every == row % fault.every]
    if STREAM_MADE_ANEW in chosen:  # what was missed of a former life is another gap, and told as that
        costly = [row for row in costly if row != POSITION_EXPIRED]
    return (*chosen, *costly)


def simulate(
    seed: int, rows: Sequence[int] | None = None, *, traced: bool = False, scale: Scale | None = None
) -> Report:
    """Live one history. `rows`: with these faults instead of the planned ones; `traced`: with every call."""
    return lived(seed, rows, traced=traced, scale=scale)[0]


def lived(
    seed: int, rows: Sequence[int] | None = None, *, traced: bool = False, scale: Scale | None = None
) -> tuple[Report, World]:
    """As `simulate`, and the world as it was left."""
    began = time.process_time()
    loop = virtual.VirtualLoop()
    loop.set_task_factory(task_factory)
    loop.set_exception_handler(lambda _, context: quiet(context))
    if scale is None and rows is None:
        scale = Scale(workers=Random(f"scale {seed}").choice(WORKERS))
    world = World(loop, seed, scale)
    chosen = rows_of(seed) if rows is None else tuple(rows)
    world.alone = len(chosen) == 1
    for row in chosen:
        prepare = FAULTS[row].prepare
        if prepare is not None:
            prepare(world)
    collecting = gc.isenabled()
    gc.disable()  # a history is short; what is left of it is collected at its end
    try:
        findings, logs, resumed_s = _lived(world, chosen)
        versions = sum(len(held.rows) for held in world.histories.held.values())
    finally:
        world.resources.close()
        gc.collect()
        if collecting:
            gc.enable()
    report = Report(
        seed,
        tuple(findings),
        dict(world.struck),
        chosen,
        _observations(logs),
        versions,
        loop.now,
        resumed_s,
        world.starts,
        time.process_time() - began,
        world.trace.digest(),
        tuple(world.trace.text(calls=traced)) if findings or traced else (),
    )
    return report, world


def _lived(world: World, rows: Sequence[int]) -> tuple[list[Finding], Logs, float]:
    try:
        return virtual.run(_live(world, rows), world.loop)
    except virtual.DeadlockError as err:
        return [Finding("stalled", str(err))], Logs(world), 0.0


async def _live(world: World, rows: Sequence[int]) -> tuple[list[Finding], Logs, float]:
    await world.connect()
    world.start()
    logs = Logs(world)
    random = Random(f"faults {world.seed}")
    faults = [asyncio.ensure_future(_inject(world, row, random.getrandbits(64))) for row in rows]
    customers = asyncio.ensure_future(world.customers_work())
    _, unended = await asyncio.wait([customers, *faults], timeout=FAULTS_END_S)
    if customers.done() and (err := customers.exception()) is not None:
        world.object("crashed", f"the customers: {type(err).__name__} {err}")
    for row, fault in zip(rows, faults, strict=True):
        if fault in unended:
            fault.cancel()
            world.object("stalled", f"the injector of row {row} does not end")
        elif not fault.cancelled() and (err := fault.exception()) is not None:
            world.object("crashed", f"the injector of row {row}: {type(err).__name__} {err}")
    if rows:
        await _make_up(world, rows, random)
    await _work_on(world, logs)
    world.roughness = 0.0
    world.note("world", "calm", "the customers rest, and every fault is over")
    calm_at = world.loop.now
    findings = await _come_to_rest(world, logs, calm_at)
    resumed_s = world.loop.now - calm_at
    if not findings and world.seed % LEAP_EVERY == LEAP_EVERY - 1 and STREAM_GONE not in world.struck:
        findings = await _let_hours_pass(world, logs)
    late = await world.close(STOP_S)
    findings += [Finding("stalled", f"{name} did not stop within {STOP_S:.0f} s") for name in late]
    logs.update()
    findings += [Finding("crashed", crash) for crash in world.crashes]
    mistakes = {event.what for event in world.said(EndpointFailed) if "internal error" in event.what}
    findings += [Finding("crashed", mistake) for mistake in sorted(mistakes)]
    findings += [Finding(kind, what) for kind, what in world.objections]
    if _observations(logs) < world.scale.observations_min:
        findings.append(Finding("silent", f"only {_observations(logs)} observations"))
    findings += _unheard(world)
    return findings, logs, resumed_s


async def _make_up(world: World, rows: Sequence[int], random: Random) -> None:
    """Some faults never find what they wait for: others stand in for them, so that enough strike."""
    for row in SPARE:
        if len(world.struck) >= min(len(rows), FAULTS_MIN):
            return
        if row not in world.struck:
            await _inject(world, row, random.getrandbits(64), at_once=True)


async def _work_on(world: World, logs: Logs) -> None:
    """Until there were enough observations: an extractor that stood still saw several changes as one."""
    for _ in range(OVERTIME_MAX):
        logs.update()
        if _observations(logs) >= world.scale.observations_min:
            return
        for _ in range(5):
            world.vendor.work()
        await asyncio.sleep(5.0)


def _observations(logs: Logs) -> int:
    return len({msgspec.json.encode(event) for event in logs.raw})


async def _let_hours_pass(world: World, logs: Logs) -> list[Finding]:
    """The hours in which all this happened are over: each is one file then, and nothing else has changed."""
    world.note("world", "leap", f"{LEAP_S:.0f} s pass on every wall clock")
    world.clock.leap(LEAP_S)
    for _ in range(int(HOURS_S / LOOK_S)):
        if not parts(world):
            break
        await asyncio.sleep(LOOK_S)
    left = [Finding("stalled", f"hours are over and in parts: {', '.join(parts(world)[:3])}")] if parts(world) else []
    return left + judge(world, logs)


async def _inject(world: World, row: int, seed: int, *, at_once: bool = False) -> None:
    random = Random(seed)
    if not at_once:
        await asyncio.sleep(random.uniform(FAULTS_FROM_S, min(FAULTS_TO_S, world.scale.work_s)))
    world.note(f"row {row}", "begins", FAULTS[row].inject.__name__)
    await FAULTS[row].inject(world, random)
    world.note(f"row {row}", "is over", "")


async def _come_to_rest(world: World, logs: Logs, calm_at: float) -> list[Finding]:
    """Look now and then, until everything is in the lake or a bound is passed."""
    read_at = calm_at
    while True:
        logs.update()
        missing = unread(world, logs)
        if missing:
            read_at = world.loop.now
            if world.loop.now - calm_at > VENDOR_RESUME_S:
                for line in story(logs, missing[0]):
                    world.note("oracle", "story", line)
                what = f"{len(missing)} records not read: {', '.join(missing[:5])}"
                return [Finding("stalled", what), *judge(world, logs)]
        else:
            waits = await waiting(world)
            findings = [] if waits else judge(world, logs)
            if not waits and not findings:
                return []
            if world.loop.now - read_at > STREAMS_RESUME_S:
                stalled = [Finding("stalled", f"{len(waits)} shards: {'; '.join(waits)}")] if waits else []
                return stalled + (findings or judge(world, logs))
        await asyncio.sleep(LOOK_S)


def _unheard(world: World) -> list[Finding]:
    """I6: the event that names a fault was said."""
    return [
        Finding("silent", f"row {row} struck, and nobody said {' or '.join(kind.__name__ for kind in fault.emits)}")
        for row, at in sorted(world.struck_at.items())
        if (fault := FAULTS[row]).emits and not world.said(*fault.emits, since=at)
    ]


class Figures(msgspec.Struct):
    """Of many seeds."""

    seeds: int = 0
    observations: int = 0
    versions: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    struck: Counter[int] = msgspec.field(default_factory=Counter)
    findings: Counter[str] = msgspec.field(default_factory=Counter)
    failed: list[int] = []

    def add(self, report: Report) -> None:
        self.seeds += 1
        self.observations += report.observations
        self.versions += report.versions
        self.seconds += report.seconds
        self.cpu_s += report.cpu_s
        self.struck.update(report.struck)
        self.findings.update(finding.kind for finding in report.findings)
        if report.findings:
            self.failed.append(report.seed)


__all__ = ["Figures", "Report", "Trace", "lived", "rows_of", "simulate"]
