"""One seed: a vendor, some of its endpoints, a customer at work, hostility; then a quiet end, and the verdict."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from services.contracts.integration import Endpoint, Integration
from services.contracts.log import SweepSuspicious
from services.contracts.reading import OnePage, Pagination, Sweep, TimeWindow
from services.sandbox.vendors.access import tokens_of
from services.sandbox.vendors.dialect import Dialect
from services.sandbox.vendors.hostility import ROWS
from tests.dialects.oracle import Oracle
from tests.dialects.world import LEASE_S, NAMES, Worker, World, opened
from tests.fakes import Call

ENDPOINTS_MAX: Final = 3  # chosen, besides those they need
STEPS: Final = 14
STEP_S: Final = (20.0, 75.0)
PAGE: Final = (4, 9)
SWEEPS_S: Final = (420.0, 86_400.0)  # the latter: none before the end, so that none mends what a cursor lost
INTERVAL_S_MAX: Final = 150.0
SHARE_OF_ROWS: Final = 0.45  # of all rows strike in one seed
HUGE_SHARE: Final = 0.08  # of seeds have records of 20 MB: they cost a second
SLOW_SHARE: Final = 0.15  # of seeds have answers that are too slow: they cost real time
FORGET_SHARE: Final = 0.04  # of steps: the vendor forgets all cursors, jobs and delta tokens
WALK_STEPS_MAX: Final = 40
SPANS: Final = {38: 0.3, 39: 0.3, 40: 0.25, 42: 0.1, 43: 0.2, 44: 0.2, 47: 0.2, 49: 0.3, 35: 0.6}
SHOTS: Final = {34: 0.15, 36: 0.4, 37: 0.5, 45: 0.4, 46: 0.3, 41: 0.3, 48: 0.3, 50: 0.15}


class Report(msgspec.Struct):
    """What became of one seed. `forgotten`: how often the vendor forgot its cursors and delta tokens.

    Units: `virtual_s`, `real_s` seconds.
    """

    service: str
    seed: int
    endpoints: list[str] = []
    rows: list[int] = []
    struck: dict[int, int] = {}
    findings: list[str] = []
    observations: int = 0
    changes: int = 0
    requests: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    reconnects: int = 0
    forgotten: int = 0
    virtual_s: float = 0.0
    real_s: float = 0.0
    said: list[str] = []


async def run_seed(
    dialect: Dialect,
    integration: Integration,
    seed: int,
    *,
    rows: Sequence[int] | None = None,
    endpoints: Sequence[str] = (),
    say: bool = False,
) -> Report:
    """The seed's history, judged. `rows`: these and no others (empty: none)."""
    began = time.monotonic()
    rng = Random(f"{integration.service}:{seed}")
    chosen = rows_of(rng) if rows is None else tuple(rows)
    fast = quickened(part_of(integration, rng, endpoints), rng, rng.choice(SWEEPS_S))
    async with opened(dialect, fast, seed) as world:
        world.store.page_sizes = {name: size_of(endpoint) for name, endpoint in fast.endpoints.items()}
        history = History(world, rng, chosen)
        await history.run()
        report = history.report
        oracle, events = history.oracle(), world.events
        verdict = oracle.judge(events, world.arrivals)
        verdict.wrong += oracle.check_contents(events)
        verdict.wrong += [f"asked another host: {astray}" for astray in world.vendor.astray]
        report.service, report.seed, report.rows = integration.service, seed, list(chosen)
        report.endpoints = list(fast.endpoints)
        report.findings += verdict.findings + [f"BROKEN dialect: {broken}" for broken in world.vendor.broken[:3]]
        report.lost, report.doubled, report.wrong = len(verdict.lost), len(verdict.doubled), len(verdict.wrong)
        report.observations, report.requests = verdict.observations, len(world.wire.sent)
        report.changes = world.hostility.changes.count
        report.struck = dict(world.hostility.struck)
        report.virtual_s, report.real_s = world.clock.monotonic(), time.monotonic() - began
        if say:
            report.said = [
                *_requests(world),
                *(
                    f"{_time(event.observed_at)} {event.op} {event.endpoint} {event.record_id} @{event.effective_at}"
                    for event in events
                ),
            ]
        return report


def rows_of(rng: Random) -> tuple[int, ...]:
    """The rows that this seed may strike with."""
    rare = {46: HUGE_SHARE, 49: SLOW_SHARE}
    return tuple(row for row in ROWS if rng.random() < rare.get(row, SHARE_OF_ROWS))


class History:
    """One customer's day with one vendor."""

    def __init__(self, world: World, rng: Random, rows: Sequence[int]) -> None:
        self.world, self.hostility, self._rng, self._rows = world, world.hostility, rng, rows
        self.report = Report(world.integration.service, 0)
        self._names = [name for name in world.store.collections if name in world.integration.endpoints]
        self._workers: list[Worker] = []
        self.doubted: set[str] = set()  # families whose last sweeps showed so little that nobody believed them
        self._until: dict[int, int] = {}
        self._step = 0
        self._veiled_once = False

    async def run(self) -> None:
        self._workers.append(self.world.worker())
        await self._first_walk()
        for self._step in range(STEPS):
            self._moods()
            for _ in range(self._rng.randint(0, 4)):
                self.hostility.changes.any(self._rng.choice(self._names))
            await self.world.clock.sleep(self._rng.uniform(*STEP_S))
            await self._mend()
        await self._end()

    def oracle(self) -> Oracle:
        world = self.world
        return Oracle(world.integration, world.store, world.hostility.served, world.rough, self.doubted)

    async def _first_walk(self) -> None:
        for _ in range(WALK_STEPS_MAX):
            if await self.world.walked():
                return
            await self.world.clock.sleep(5.0)
        said = Counter(f"{type(event).__name__} {event}" for event in self.world.said)
        self.report.findings.append(f"STALLED the first walk did not end: {said.most_common(3)}")

    # -- hostility ----------------------------------------------------------------------------------------------------
    def _moods(self) -> None:
        for row in [row for row, until in self._until.items() if until <= self._step]:
            del self._until[row]
            self.hostility.end(row)
            if row == 42:
                self.world.note_rough()
        for row in self._rows:
            if row in SPANS and row not in self._until and self._rng.random() < SPANS[row]:
                self._begin(row)
            if row in SHOTS and self._rng.random() < SHOTS[row]:
                self._shoot(row)
        if self._rows and self._rng.random() < FORGET_SHARE:
            self.world.store.forget_kept()
            self.report.forgotten += 1

    def _begin(self, row: int) -> None:
        names = self._rng.sample(self._names, 1)
        self._until[row] = self._step + self._rng.randint(1, 4)
        if row == 44:
            names = self._veiled()
        if row == 42:
            self.world.note_rough(400.0)
        self.hostility.left[49] = self.hostility.left[40] = 1
        self.hostility.begin(row, names)

    def _veiled(self) -> list[str]:
        """The endpoints whose lists show too little. Where no record can be asked for, what two sweeps miss is gone:
        there it is once, and for one step, so that no two sweeps fall into it."""
        swept = {name: self._deletes(name) for name in self._names if isinstance(self._deletes(name), Sweep)}
        can_ask = [name for name, deletes in swept.items() if deletes.confirm is not None]
        if self._veiled_once or len(can_ask) == len(swept):
            return can_ask
        self._veiled_once, self._until[44] = True, self._step + 1
        return list(swept)

    def _shoot(self, row: int) -> None:
        match row:
            case 41:
                self._kill_at_refresh()
            case 48:
                self._kill_between_publish_and_save()
            case 50:
                self._second_owner()
            case _:
                self.hostility.change(row, self._rng.choice(self._names), self._protected())

    def _kill_at_refresh(self) -> None:
        """At any step of a refresh: asked and not answered, answered and not stored, stored and not used."""
        if not tokens_of(self.world.store).issued:
            return
        stage = self._rng.choice((("answered", True), ("put", False), ("put", True)))
        secret = NAMES.secret("acme", self.world.integration.service)
        refreshes = tokens_of(self.world.store).refreshes

        def trap(call: Call, done: bool) -> bool:
            asked = tokens_of(self.world.store).refreshes > refreshes
            at = (
                call.method == "answered" and asked
                if stage[0] == "answered"
                else ((call.method, call.subject, done) == ("put", secret, stage[1]))
            )
            return at and self._sprung(41)

        tokens_of(self.world.store).expire()
        self.world.trap = trap

    def _kill_between_publish_and_save(self) -> None:
        """The stream has acknowledged, and nothing else of it is written down."""

        def trap(call: Call, done: bool) -> bool:
            return (call.method, call.subject, done) == ("put", NAMES.raw_stream, True) and self._sprung(48)

        self.world.trap = trap

    def _second_owner(self) -> None:
        """The owner stops renewing and does not know; another takes over while it still works."""
        running = [worker for worker in self._workers if worker.running]
        if len(running) == 1:
            running[0].lose_touch()
            self._workers.append(self.world.worker())
            self.hostility.struck[50] += 1

    def _sprung(self, row: int) -> bool:
        self.world.trap = lambda _call, _done: False
        self.hostility.struck[row] += 1
        return True

    # -- those who look after it --------------------------------------------------------------------------------------
    async def _mend(self) -> None:
        """Who was killed is started again; who must reconnect does."""
        for worker in [worker for worker in self._workers if not worker.running]:
            await worker.buried()
            self._workers.remove(worker)
        if not self._workers:
            self._workers.append(self.world.worker())
        await self._reconnect()

    async def _reconnect(self) -> None:
        if 42 not in self._until and (await self.world.status()).get("status") == "reconnect needed":
            self.report.reconnects += 1
            self.world.note_rough()
            await self.world.connect()

    async def _end(self) -> None:
        """Calm; what lags comes to rest; then everything is read and swept thrice."""
        self.hostility.calm()
        self.hostility.changes.shrink()
        self.world.trap = lambda _call, _done: False
        for worker in self._workers:
            worker.kill() if self._rng.random() < 0.5 else await worker.stop()
            await worker.buried()
        await self.world.clock.sleep(2 * LEASE_S)
        if 42 in self._rows or 41 in self._rows:
            await self.world.connect()
        await self.world.settle(2, sweep=False)
        self.report.findings += [f"LOST but for a sweep: {found}" for found in self.oracle().unread(self.world.events)]
        said = len(self.world.said)
        summaries = await self.world.settle()
        self.doubted |= {event.endpoint for event in self.world.said[said:] if isinstance(event, SweepSuspicious)}
        for endpoint in summaries[-1].failed:
            self.report.findings.append(f"FAILED {endpoint.endpoint}: {endpoint.code} {endpoint.what}")

    # -----------------------------------------------------------------------------------------------------------------
    def _deletes(self, name: str) -> Any:
        return self.world.integration.endpoints[name].deletes or self.world.integration.deletes

    def _protected(self) -> frozenset[str]:
        """Paths that say who a record is, when it changed, whether it is gone and what hangs below it."""
        return frozenset(_told(self.world.integration))


def _told(integration: Integration) -> Iterator[str]:
    for endpoint in integration.endpoints.values():
        yield from [endpoint.record_id] if isinstance(endpoint.record_id, str) else endpoint.record_id
        yield endpoint.updated_at or integration.updated_at or ""
        if endpoint.deleted_when is not None:
            yield endpoint.deleted_when.path
        if endpoint.parent is not None:
            yield from (endpoint.parent.path, *endpoint.parent.values.values())
        for stone in endpoint.tombstones:
            yield from (stone.record_id, stone.at or "", stone.when.path if stone.when is not None else "")
        pages = endpoint.pagination or integration.pagination
        yield from (str(getattr(pages, name, None) or "") for name in ("key", "time", "id", "last"))


# -- which part of an integration, and how fast -------------------------------------------------------------------
def part_of(integration: Integration, rng: Random, chosen: Sequence[str] = ()) -> Integration:
    """Some endpoints, and those that they need: parents, families, who tells of their deletions."""
    enabled = {name: endpoint for name, endpoint in integration.endpoints.items() if endpoint.enabled}
    wanted = set(chosen or rng.sample(sorted(enabled), min(ENDPOINTS_MAX, len(enabled))))
    size = 0
    while size != len(wanted):
        size = len(wanted)
        for name, endpoint in enabled.items():
            if name in wanted and endpoint.parent is not None:
                wanted.add(endpoint.parent.endpoint)
            if any(stone.endpoint in wanted for stone in endpoint.tombstones):
                wanted.add(name)
            if any(integration.family_of(name) == integration.family_of(other) for other in wanted):
                wanted.add(name)
    kept = {
        name: replace(endpoint, tombstones=[stone for stone in endpoint.tombstones if stone.endpoint in wanted])
        for name, endpoint in enabled.items()
        if name in wanted
    }
    return replace(integration, endpoints=kept)


def quickened(integration: Integration, rng: Random, sweep_s: float = SWEEPS_S[0]) -> Integration:
    """Small pages, and sweeps and polls within minutes; nothing else differs from the file."""
    endpoints = {name: _quick(integration, endpoint, rng, sweep_s) for name, endpoint in integration.endpoints.items()}
    return replace(integration, endpoints=endpoints)


def _quick(integration: Integration, endpoint: Endpoint, rng: Random, sweep_s: float) -> Endpoint:
    deletes = endpoint.deletes or integration.deletes
    size = rng.randint(*PAGE)
    if isinstance(deletes, Sweep):
        pages = None if deletes.pagination is None else sized(deletes.pagination, size)
        deletes = replace(deletes, interval_s=sweep_s, pagination=pages)
    parent = endpoint.parent
    if parent is not None:
        parent = replace(parent, all_every_s=min(parent.all_every_s, SWEEPS_S[0]))
    return replace(
        endpoint,
        pagination=sized(endpoint.pagination or integration.pagination, size),
        deletes=deletes,
        parent=parent,
        interval_s=min(endpoint.interval_s, INTERVAL_S_MAX),
    )


def sized(pagination: Pagination, size: int) -> Pagination:
    """The same pages, so small."""
    if isinstance(pagination, OnePage):
        return pagination
    if isinstance(pagination, TimeWindow):
        return replace(pagination, inner=sized(pagination.inner, size))
    return replace(pagination, size=size)


def size_of(endpoint: Endpoint) -> int:
    """Records on a page."""
    pages = endpoint.pagination.inner if isinstance(endpoint.pagination, TimeWindow) else endpoint.pagination
    return int(getattr(pages, "size", 10))


def _requests(world: World) -> list[str]:
    return [
        f"{_time(serving.request.at.isoformat())} {serving.request.method} {serving.request.url()} "
        f"-> {serving.answer.status} {serving.manner}{'' if serving.honest else ' spoiled'}"
        f"{'' if serving.delivered else ' not delivered'} "
        f"{[(row.id, row.version) for row in serving.answer.shown.rows] if serving.answer.shown else ''}"
        for serving in world.hostility.served
    ]


def _time(text: str) -> str:
    return text[11:23]
