"""The shipped ConnectWise mapping against the ConnectWise sandbox: whatever happens, the last read is what is there."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgspec
import pytest

from services.contracts.errors import RetryableError
from services.contracts.events import ChangeEvent
from services.contracts.fold import Observation, fold
from services.contracts.integration import Integration
from services.contracts.mapping_files import MappingFiles
from services.contracts.times import moment
from services.extractor.raw_json import cuts_of, split_path, without
from services.extractor.service import run
from services.extractor.summary import Summary
from services.runtime.leases import Leases
from services.runtime.mapping_files import load_mappings
from services.runtime.runtime import Runtime
from services.sandbox.faults import Faults
from services.sandbox.sites import Budget, Keys
from services.sandbox.vendor import Running, start
from services.sandbox.world import World as Source
from tests.extractor.world import LEASE_S, NAMES, Vendor, Wire, WireClock, World
from tests.fakes import nothing

KEYS = Keys("acme", "public", "private-private", "0b2f7a3e-1111-4222-8333-444455556666")
SHIPPED = load_mappings()


class Sandbox(World):
    """The environment of other tests, with the ConnectWise sandbox as its vendor."""

    def __init__(self, clock: WireClock, wire: Wire, source: Source, server: Running) -> None:
        super().__init__(clock, Vendor(clock), wire)
        self.source, self.server = source, server
        self.use_shipped()

    def use_shipped(self, *endpoints: str) -> None:
        """The shipped mapping, or these endpoints of it alone, without its limits."""
        made = SHIPPED.integrations["connectwise"]
        limits = msgspec.structs.replace(made.limits, requests=100_000, window_s=1.0, share=1.0)
        chosen = {name: made.endpoints[name] for name in endpoints} or made.endpoints
        made = msgspec.structs.replace(made, limits=limits, endpoints=chosen)
        self.mappings = MappingFiles({"connectwise": made}, SHIPPED.tables)

    @property
    def integration(self) -> Integration:
        return self.mappings.integrations["connectwise"]

    async def join(self) -> None:
        secret = NAMES.secret("acme", "connectwise")
        told = {"api_url": self.server.url, "company_id": "acme", "public_key": "public"}
        await self.secrets.put(secret, told | {"private_key": KEYS.private_key, "client_id": KEYS.client_id})
        key = {"tenant_id": "acme", "service": "connectwise"}
        await self.rows.write(NAMES.tenant_services, key, {"enabled": True, "secret": secret})

    async def settled(self) -> Summary:
        """A run after the lag has passed."""
        self.clock.advance(1_000)
        return await self.run()

    def living(self) -> dict[str, dict[str, bytes]]:
        """What the events say is there now: family -> id -> payload."""
        by_record: dict[tuple[str, str], list[ChangeEvent]] = {}
        for event in self.events:
            by_record.setdefault((self.integration.family_of(event.endpoint), event.record_id), []).append(event)
        found: dict[str, dict[str, bytes]] = {
            family: {} for family in map(self.integration.family_of, self.integration.endpoints)
        }
        for (family, record_id), events in by_record.items():
            for version in fold(observed(event) for event in events):
                if version.is_current:
                    found[family][record_id] = version.last.row
        return found

    def there(self) -> dict[str, dict[str, bytes]]:
        """What the vendor holds now, without what must never leave it."""
        found: dict[str, dict[str, bytes]] = {}
        for name, endpoint in self.integration.endpoints.items():
            cuts = cuts_of(split_path(path) for path in endpoint.drop)
            path = "/".join("{id}" if part.startswith("{") else part for part in endpoint.path.split("/"))
            held = self.source.current("acme", path)
            living = found.setdefault(self.integration.family_of(name), {})
            living |= {str(record_id): without(raw, cuts) for record_id, raw in held.items()}
        return found


def observed(event: ChangeEvent) -> Observation[bytes]:
    payload = b"" if isinstance(event.payload, msgspec.UnsetType) else bytes(event.payload)
    text = payload.decode()
    return Observation(event.effective_at, event.observed_at, event.op == "delete", 1, text, text, payload)


@asynccontextmanager
async def opened(
    faults: Faults | None = None, budget: Budget | None = None, seed: int = 1, tickets: int = 60
) -> AsyncIterator[Sandbox]:
    clock = WireClock("2026-01-06T12:00:00.250000Z")
    source = Source(lambda: moment(clock.now()), Random(seed))
    source.add_site("acme", KEYS, budget=budget)
    source.populate("acme", {"service/tickets": tickets, "company/companies": 40})
    server = await start(source, faults=faults, rng=Random(seed), sleep=clock.sleep)
    try:
        async with Wire(clock) as wire:
            sandbox = Sandbox(clock, wire, source, server)
            await sandbox.join()
            yield sandbox
    finally:
        await server.close()


async def test_the_first_run_reads_everything_there_is() -> None:
    async with opened() as sandbox:
        summary = await sandbox.run()
        assert summary.complete, summary.failed
        assert sandbox.living() == sandbox.there()
        again = await sandbox.settled()
        assert (again.published, again.deleted) == (0, 0)


async def test_no_password_leaves_the_extractor() -> None:
    async with opened() as sandbox:
        sandbox.use_shipped("contacts", "members")
        await sandbox.run()
        for event in sandbox.events:
            assert not isinstance(event.payload, msgspec.UnsetType)
            assert b"assword" not in bytes(event.payload)


@pytest.mark.parametrize("seed", range(3))
async def test_after_any_life_the_last_read_is_what_is_there(seed: int) -> None:
    async with opened(seed=seed) as sandbox:
        await sandbox.run()
        for _ in range(4):
            for _ in range(5):
                sandbox.source.change("acme", 8)
                sandbox.clock.advance(sandbox.source.rng.choice([0.3, 1, 20]))
            await sandbox.run()
        await sandbox.settled()
        await sandbox.settled()  # a second sweep, where no single record can be read
        assert sandbox.living() == sandbox.there()
        again = await sandbox.settled()
        assert (again.published, again.deleted) == (0, 0)


@pytest.mark.parametrize("seed", range(3))
async def test_a_hostile_vendor_changes_nothing_of_that(seed: int) -> None:
    hostile = Faults(error=0.1, cut=0.1, truncated=0.1, throttled=0.1, throttled_bare=0.05)
    async with opened(hostile, seed=seed) as sandbox:
        sandbox.use_shipped("tickets", "project_tickets", "companies", "agreements", "agreement_additions", "boards")
        for _ in range(3):
            sandbox.source.change("acme", 20)
            await sandbox.settled()
        sandbox.server.faults = Faults()
        for _ in range(2):
            assert (await sandbox.settled()).complete
        assert sandbox.living() == sandbox.there()


class Mortal:
    """A port of one worker: once `killed` is set nothing of that worker has any effect."""

    def __init__(self, port: Any, killed: asyncio.Event) -> None:
        self._port, self._killed = port, killed

    def __getattr__(self, name: str) -> Any:
        if self._killed.is_set():
            raise RetryableError("this worker is dead")
        return getattr(self._port, name)


def mortal(sandbox: Sandbox) -> tuple[Runtime, asyncio.Event]:
    """A worker that can be killed as SIGKILL would: from one effect to the next."""
    killed, whole = asyncio.Event(), sandbox.runtime()
    rows, streams = Mortal(whole.rows, killed), Mortal(whole.streams, killed)
    leases = Leases(rows, NAMES.leases, whole.clock, whole.chance, whole.emit, LEASE_S)
    objects = Mortal(whole.objects, killed)
    return msgspec.structs.replace(whole, rows=rows, streams=streams, objects=objects, leases=leases), killed


@pytest.mark.parametrize("seed", range(4))
async def test_workers_killed_at_any_moment_lose_nothing(seed: int) -> None:
    async with opened(seed=seed) as sandbox:
        sandbox.use_shipped("tickets", "project_tickets", "companies", "boards", "board_statuses")
        rng = Random(seed)
        for _ in range(6):
            runtime, killed = mortal(sandbox)
            effects = rng.randint(1, 60)

            async def count(_: Any, left: list[int] = [effects], killed: asyncio.Event = killed) -> None:  # noqa: B006
                left[0] -= 1
                if left[0] <= 0:
                    killed.set()

            for port in (sandbox.rows, sandbox.streams, sandbox.objects):
                setattr(port, rng.choice(["before", "after"]), count)
            work = asyncio.create_task(run(runtime, sandbox.mappings, asyncio.Event(), transport=sandbox.wire))
            renew = asyncio.create_task(runtime.leases.renew_forever())
            for _ in range(rng.randint(1, 8)):
                sandbox.source.change("acme", 5)
                await sandbox.clock.sleep(rng.choice([1, 30, 400]))
            killed.set()
            for port in (sandbox.rows, sandbox.streams, sandbox.objects):
                port.before = port.after = nothing
            work.cancel()
            renew.cancel()
            await asyncio.gather(work, renew, return_exceptions=True)
        for _ in range(3):
            summary = await sandbox.settled()
            assert summary.complete, summary.failed
        assert sandbox.living() == sandbox.there()
        assert (await sandbox.settled()).published == 0


async def test_thousands_of_one_second_are_all_read() -> None:
    async with opened(tickets=2_500) as sandbox:
        sandbox.use_shipped("tickets")
        await sandbox.run()
        sandbox.clock.advance(60)
        assert sandbox.source.stamp_together("acme", "service/tickets", 2_500) == 2_500
        sandbox.clock.advance(5)
        assert (await sandbox.run()).published == 2_500
        assert sandbox.living() == sandbox.there()


async def test_the_vendor_s_own_limit_slows_us_down_and_no_more() -> None:
    async with opened(budget=Budget(10, 60.0)) as sandbox:
        sandbox.use_shipped("tickets", "companies", "boards", "board_statuses", "board_types")
        summary = await sandbox.run()
        assert summary.complete, summary.failed
        assert sandbox.living() == sandbox.there()


async def test_a_converted_ticket_is_the_same_ticket() -> None:
    async with opened() as sandbox:
        sandbox.use_shipped("tickets", "project_tickets")
        await sandbox.run()
        sandbox.clock.advance(60)
        ids = list(sandbox.source.current("acme", "service/tickets"))[:5]
        for record_id in ids:
            sandbox.source.convert("acme", record_id)
        summary = await sandbox.settled()
        assert (summary.published, summary.deleted) == (5, 0)
        assert sandbox.living() == sandbox.there()
        assert (await sandbox.settled()).published == 0


async def test_a_forbidden_endpoint_of_many_is_told() -> None:
    async with opened() as sandbox:
        sandbox.source.sites["acme"].forbidden = frozenset({"time/entries"})
        summary = await sandbox.run()
        assert [(failed.endpoint, failed.code) for failed in summary.failed] == [("time_entries", "forbidden")]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b'{"id":1,"_info":{"lastUpdated":"2026-01-06T11:59:00Z"},"summary":"\\ud83d"}', ""),
        (b'{"id":1,"_info":{"lastUpdated":"yesterday"}}', "unreadable_time"),
        (b'{"id":1,"summary":tru}', "payload_unreadable"),
        (b'{"id":1,"summary":"' + b"x" * 20_000_000 + b'"}', "too_large"),
    ],
)
async def test_a_strange_record_never_stops_the_others(raw: bytes, code: str) -> None:
    async with opened() as sandbox:
        sandbox.use_shipped("tickets")
        first = min(sandbox.source.current("acme", "service/tickets"))
        sandbox.source.serve_instead("acme", "service/tickets", first, raw.replace(b'"id":1', b'"id":%d' % first))
        summary = await sandbox.run()
        assert summary.complete
        assert summary.endpoints[0].rejected == (1 if code else 0)
        letters: list[Any] = [
            msgspec.json.decode(body) for key, body in sandbox.objects.held.items() if "dead-letter" in key
        ]
        assert [letter["code"] for letter in letters] == ([code] if code else [])
        assert len(sandbox.events) == len(sandbox.source.current("acme", "service/tickets")) - bool(code)
