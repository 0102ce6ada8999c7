"""An integration dropped into a folder, against a server nothing here has ever seen: no line of Python is written."""

import io
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from services.cli.connections import connect
from services.cli.run import Choice, Outcome, run_round
from services.cli.screen import Screen
from services.cli.world import World, open_runtime
from services.compactor.iceberg import Warehouse
from services.compactor.lake import Lake
from services.extractor.tenants import TenantService
from services.runtime import provision
from services.runtime.mapping_files import load_mappings
from services.runtime.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "writing-an-integration.md"
KEY = "k-4711"
COUNT = 1_000
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def the_pages_example() -> str:
    """The block the page says is run here."""
    found = re.search(
        r"<!-- tests/whole/test_tenth_integration\.py [^>]*-->\n```json\n(.*?)\n```", PAGE.read_text(), re.S
    )
    assert found is not None
    return found.group(1)


class Harbor:
    """The help desk of the page: numbered pages, a filter by time, a key in a header."""

    def __init__(self) -> None:
        self.tickets: dict[int, dict[str, Any]] = {number: ticket(number) for number in range(1, COUNT + 1)}

    def application(self) -> web.Application:
        made = web.Application()
        made.router.add_get("/v2/tickets", self.listed)
        made.router.add_get("/v2/tickets/{number}", self.one)
        return made

    async def listed(self, request: web.Request) -> web.Response:
        self._admit(request)
        since = request.query.get("updated_since", "")
        found = [each for each in self.tickets.values() if each["updated_at"] >= since]
        first = (int(request.query["page"]) - 1) * int(request.query["per_page"])
        shown = found[first : first + int(request.query["per_page"])]
        if request.query.get("only") == "id":
            shown = [{"id": each["id"]} for each in shown]
        return web.json_response({"tickets": shown, "meta": {"total": len(found)}})

    async def one(self, request: web.Request) -> web.Response:
        self._admit(request)
        found = self.tickets.get(int(request.match_info["number"]))
        return web.json_response(found) if found is not None else web.json_response({}, status=404)

    def _admit(self, request: web.Request) -> None:
        if request.headers.get("X-Api-Key") != KEY:
            raise web.HTTPUnauthorized


def ticket(number: int) -> dict[str, Any]:
    at = (BEGAN + timedelta(minutes=number)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "id": number,
        "number": f"T-{number:05}",
        "subject": f"Ticket {number}",
        "state": "owc"[number % 3],
        "closed": number % 3 == 2,
        "customer": {"id": number % 50, "name": f"Customer {number % 50}"},
        "requester": {"login": f"{number}@example.com", "phones": [{"kind": "work", "number": f"+1 {number}"}]},
        "fields": [{"label": "Floor", "value": number % 9}],
        "created_at": at,
        "updated_at": at,
    }


class Tenth:
    """One tenant of the page's vendor, and rounds of `avesa run --once`."""

    def __init__(self, world: World, harbor: Harbor, url: str, folder: Path) -> None:
        self.world, self.harbor, self.url = world, harbor, url
        self.mappings = load_mappings(folder)
        self.lake = Lake(Warehouse.on_glue(world.settings), world.runtime.objects, world.runtime.threads, self.mappings)

    async def connect(self) -> None:
        runtime = self.world.runtime
        secret, now = runtime.names.secret("acme", "harbor"), runtime.clock.now()
        row = TenantService("acme", "harbor", "Acme", secret=secret, created_at=now, updated_at=now)
        await connect(runtime, row, {"api_url": self.url, "api_key": KEY})

    async def round(self) -> Outcome:
        return await run_round(self.world, self.mappings, Choice(), Screen(io.StringIO(), io.StringIO()))

    async def living(self) -> dict[str, dict[str, Any]]:
        """The current rows of the table, by record id."""
        rows = await self.lake.versions("acme", "tickets")
        return {row["record_id"]: row for row in rows if row["is_current"]}


@asynccontextmanager
async def tenth(settings: Settings, folder: Path) -> AsyncIterator[Tenth]:
    own = folder / "mappings" / "integrations"
    own.mkdir(parents=True)
    (own / "harbor.json").write_text(the_pages_example())
    harbor = Harbor()
    runner = web.AppRunner(harbor.application())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        settings = msgspec.structs.replace(settings, state_dir=folder / "state", lease_s=6.0)
        await provision.ensure(settings)
        async with open_runtime(settings) as runtime:
            host, port = runner.addresses[0][:2]
            yield Tenth(World(settings, runtime), harbor, f"http://{host}:{port}", folder / "mappings")
    finally:
        await runner.cleanup()


@pytest.mark.emulator
async def test_a_thousand_records_of_an_unknown_vendor_arrive_in_their_table(
    settings: Settings, tmp_path: Path
) -> None:
    async with tenth(settings, tmp_path) as made:
        await made.connect()
        assert (await made.round()).exit_code == 0
        rows = await made.living()
        assert rows.keys() == {str(number) for number in range(1, COUNT + 1)}
        row = rows["7"]
        assert (row["summary"], row["status"], row["contact_email"]) == ("Ticket 7", "waiting", "7@example.com")
        assert (row["contact_phone"], json.loads(row["custom_fields"])) == ("+1 7", {"Floor": 7})


@pytest.mark.emulator
async def test_what_changes_and_what_goes_at_that_vendor_shows_in_the_next_round(
    settings: Settings, tmp_path: Path
) -> None:
    async with tenth(settings, tmp_path) as made:
        await made.connect()
        await made.round()
        later = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        made.harbor.tickets[9] |= {"subject": "Changed", "updated_at": later}
        made.harbor.tickets[COUNT + 1] = ticket(COUNT + 1) | {"updated_at": later}
        del made.harbor.tickets[11]
        assert (await made.round()).deleted == 1
        rows = await made.living()
        assert (len(rows), rows["9"]["summary"], "11" in rows) == (COUNT, "Changed", False)
