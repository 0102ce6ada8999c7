"""Three tasks on one lease table and one credential, and a server that allows 60 calls a minute."""

from collections import deque
from contextlib import AsyncExitStack
from typing import Any, Final

import msgspec
from aiohttp import web

from services.contracts.envelope import split
from services.contracts.events import ChangeEvent
from services.contracts.log import VendorThrottled
from services.contracts.times import UtcTime, seconds_between
from services.runtime.envelopes import unseal
from tests.extractor.test_service import running
from tests.extractor.world import KEY, NAMES, TICKETS, World, answered, opened

ALLOWED, WINDOW_S = 60, 60.0
JOIN_S: Final = 90.0  # from one task's start to the next one's: units move between them meanwhile
SETTLE_S: Final = 300.0
MEASURE_S: Final = 900.0
CHANGE_EVERY_S: Final = 7.0
OLD: Final = 2_500  # records of the past, ten a page: more than is read in all that time
SERVICES: Final = ("desk:berlin", "desk:paris", "desk:rome")
LIST: Final = {**TICKETS, "deletes": None}
HISTORY: Final = {
    **LIST,
    "path": "history",
    "interval_s": 3_600,
    "incremental": {"type": "none"},
    "pagination": {
        "type": "keyset",
        "key": "id",
        "clause": "id > {after}",
        "order": {"order": "id"},
        "size_param": "size",
        "size": 10,
    },
}
ENDPOINTS: Final[dict[str, Any]] = {
    "tickets": {**LIST, "interval_s": 15},
    "people": {**LIST, "path": "people", "interval_s": 60},
    "boards": {**LIST, "path": "boards", "interval_s": 300},
    "history": HISTORY,
}


class Counter:
    """The server's own count: every call of the last minute; more than are allowed get a 429."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._calls: deque[float] = deque()
        self.most, self.refused_at = 0, list[float]()

    def __call__(self, _: web.Request) -> Any:
        now = self._world.clock.monotonic()
        while self._calls and self._calls[0] <= now - WINDOW_S:
            self._calls.popleft()
        self._calls.append(now)
        self.most = max(self.most, len(self._calls))
        if len(self._calls) > ALLOWED:
            self.refused_at.append(now)
            return answered(self._world.vendor.answer({}, 429))
        return None


class Outcome(msgspec.Struct):
    """What the server counted, how long changes took to the stream (seconds, sorted), and what was read of the past."""

    most: int
    refused: int
    took_s: list[float]
    history: int
    held: list[int]

    @property
    def p95_s(self) -> float:
        return self.took_s[int(0.95 * len(self.took_s))]


async def outcome(old: int) -> Outcome:
    async with opened(connected=()) as world, AsyncExitStack() as tasks:
        limits = {"requests": ALLOWED, "window_s": WINDOW_S, "share": 0.8, "concurrency": 4, "per": "credential"}
        world.use(ENDPOINTS, limits=limits)
        await connect(world)
        for path in ("tickets", "people", "boards"):
            world.vendor.put(path, 1)
        world.vendor.lists["history"] = {}
        for number in range(1, old + 1):
            world.vendor.put("history", number)
        counter = world.vendor.spoil = Counter(world)
        runtimes = [world.runtime() for _ in range(3)]
        for runtime in runtimes:
            await tasks.enter_async_context(running(world, runtime))
            await world.clock.sleep(JOIN_S)
        await world.clock.sleep(SETTLE_S)
        changed = await changes(world)
        assert not world.heard(VendorThrottled)
        held = [len(runtime.leases.held) for runtime in runtimes]
        took_s, history = delays(world, changed)
        return Outcome(counter.most, len(counter.refused_at), sorted(took_s), history, held)


async def connect(world: World) -> None:
    secret = NAMES.secret("acme", "desk")
    await world.secrets.put(secret, {"site": world.vendor.url, "key": KEY})
    for service in SERVICES:
        key = {"tenant_id": "acme", "service": service}
        await world.rows.write(NAMES.tenant_services, key, {"enabled": True, "secret": secret})


async def changes(world: World) -> dict[str, UtcTime]:
    """A change every few seconds, by name: when it was made."""
    made: dict[str, UtcTime] = {}
    until = world.clock.monotonic() + MEASURE_S
    while world.clock.monotonic() < until:
        name = f"change {len(made)}"
        made[name] = world.clock.now()
        world.vendor.put("tickets", len(made), name=name)
        await world.clock.sleep(CHANGE_EVERY_S)
    await world.clock.sleep(120)
    return made


class _Named(msgspec.Struct):
    name: str = ""


def delays(world: World, made: dict[str, UtcTime]) -> tuple[list[float], int]:
    """How long each change took to the stream, for each of the services; and the records of the past there."""
    decode, named = msgspec.json.Decoder(ChangeEvent).decode, msgspec.json.Decoder(_Named).decode
    took: dict[tuple[str, str], float] = {}
    history = 0
    for record in world.streams.records(NAMES.raw_stream):
        for line in unseal(*split(record.data)):
            event = decode(line)
            history += event.endpoint == "history"
            assert isinstance(event.payload, msgspec.Raw)
            name = named(event.payload).name
            if name in made:
                took.setdefault((event.service, name), seconds_between(made[name], record.arrived_at))
    assert len(took) == len(made) * len(SERVICES)
    return list(took.values()), history


async def test_three_tasks_keep_to_a_shared_limit_and_live_reads_do_not_wait_for_the_past() -> None:
    alone, beside = await outcome(0), await outcome(OLD)
    print(f"live p95 {alone.p95_s:.1f} s alone, {beside.p95_s:.1f} s beside {beside.history} records of the past")
    for found in (alone, beside):
        assert found.most <= ALLOWED
        assert found.refused == 0
        assert found.held == [1, 1, 1]
    assert 0 < beside.history < OLD * len(SERVICES), "the past was read to its end too soon"
    assert beside.p95_s <= 2 * alone.p95_s
