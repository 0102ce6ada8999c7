"""A client of the sandbox for its own tests: one site's keys, a clock that stands still, one request at a time."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import aiohttp
import msgspec

from services.sandbox.dialect import BASE_PATH
from services.sandbox.faults import Faults
from services.sandbox.sites import Keys
from services.sandbox.vendor import Running, start
from services.sandbox.world import World

ACME = Keys("acme", "public", "private", "0b2f7a3e-1111-4222-8333-444455556666")
HEADERS = {"clientId": ACME.client_id}
NOON = datetime(2026, 1, 6, 12, 0, 0, 250_000, tzinfo=UTC)


class Clock:
    """The vendor's clock in these tests: it moves when told."""

    def __init__(self, moment: datetime = NOON) -> None:
        self.moment = moment

    def __call__(self) -> datetime:
        return self.moment

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


class Answer(msgspec.Struct):
    status: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def ids(self) -> list[int]:
        return [record["id"] for record in self.json()]


class Visitor:
    def __init__(self, running: Running, session: aiohttp.ClientSession) -> None:
        self.running = running
        self._session = session

    async def get(self, path: str, headers: Mapping[str, str] = HEADERS, /, **parameters: Any) -> Answer:
        return await self.ask("GET", f"{BASE_PATH}/{path}", headers, params=parameters)

    async def ask(self, method: str, path: str, headers: Mapping[str, str] = HEADERS, **rest: Any) -> Answer:
        """Any request, also to the control; redirects and retries are nobody's business here."""
        url = path if path.startswith("http") else self.running.url + path
        async with self._session.request(method, url, headers=headers, **rest) as response:
            return Answer(response.status, await response.read(), response.headers.copy())


def small_world(clock: Clock, seed: int = 1, **counts: int) -> World:
    """A world with the site `acme`: 40 tickets and companies and a few of everything else."""
    world = World(clock, Random(seed))
    world.add_site("acme", ACME)
    world.populate("acme", {"service/tickets": 40, "company/companies": 40} | counts)
    return world


@asynccontextmanager
async def visiting(
    world: World, keys: Keys = ACME, faults: Faults | None = None, **options: Any
) -> AsyncIterator[Visitor]:
    """A server for the world and a client with the keys."""
    running = await start(world, faults=faults, **options)
    login = {"Authorization": aiohttp.encode_basic_auth(keys.login, keys.private_key)}
    try:
        async with aiohttp.ClientSession(headers=login) as session:
            yield Visitor(running, session)
    finally:
        await running.close()
