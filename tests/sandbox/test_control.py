"""The levers for another process."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
import pytest

from services.sandbox.recipes import RECIPES
from tests.sandbox.visitor import Clock, small_world, visiting

CHILD = """
from datetime import UTC, datetime
from random import Random
from services.sandbox.vendor import serve_forever
from services.sandbox.world import World
serve_forever(World(lambda: datetime.now(UTC), Random(1)), ready=lambda running: print(running.url, flush=True))
print("closed", flush=True)
"""


def rows(body: bytes) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in body.splitlines()]


async def test_without_control_there_is_no_lever() -> None:
    async with visiting(small_world(Clock())) as visitor:
        assert (await visitor.ask("GET", "/_sandbox/stats")).status == 404


async def test_a_site_lives_when_told() -> None:
    async with visiting(small_world(Clock()), control=True) as visitor:
        answer = await visitor.ask("POST", "/_sandbox/change", json={"site": "acme", "count": 5})
        stats = await visitor.ask("GET", "/_sandbox/stats")
    assert len(answer.json()) == 5
    assert stats.json()["acme"]["records"].keys() == {recipe.path for recipe in RECIPES}


async def test_one_record_is_created_changed_and_deleted() -> None:
    world = small_world(Clock())
    where = {"site": "acme", "path": "company/contacts"}
    async with visiting(world, control=True) as visitor:
        created = await visitor.ask("POST", "/_sandbox/create", json=where | {"fields": {"title": "Chef 🍳"}})
        one = where | {"id": created.json()["id"]}
        changed = await visitor.ask("POST", "/_sandbox/set", json=one | {"fields": {"title": None}})
        record = (await visitor.get(f"company/contacts/{one['id']}")).json()
        deleted = await visitor.ask("POST", "/_sandbox/delete", json=one)
        gone = await visitor.get(f"company/contacts/{one['id']}")
    assert msgspec.json.decode(world.state("acme", "company/contacts", created.json()["id"], 1))["title"] == "Chef 🍳"
    assert changed.json()["version"] == 2
    assert record["title"] is None
    assert (deleted.status, gone.status) == (200, 404)


async def test_a_record_can_be_stamped_in_the_past() -> None:
    body = {"site": "acme", "path": "service/tickets", "id": 1, "fields": {"summary": "late"}}
    async with visiting(small_world(Clock()), control=True) as visitor:
        await visitor.ask("POST", "/_sandbox/set", json=body | {"stamped_at": "2025-01-01T00:00:00Z"})
        record = (await visitor.get("service/tickets/1")).json()
    assert record["_info"]["lastUpdated"] == "2025-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("lever", "body", "status"),
    [
        ("change", {"site": "nobody"}, 404),
        ("set", {"site": "acme", "path": "service/cars", "id": 1, "fields": {}}, 404),
        ("delete", {"site": "acme", "path": "service/tickets", "id": 9999}, 404),
        ("delete", {"site": "acme"}, 400),
        ("change", {"site": "acme", "cuont": 1}, 400),
    ],
)
async def test_a_lever_pulled_wrongly_says_so(lever: str, body: dict[str, object], status: int) -> None:
    async with visiting(small_world(Clock()), control=True) as visitor:
        answer = await visitor.ask("POST", f"/_sandbox/{lever}", json=body)
    assert answer.status == status
    assert answer.json()["message"]


async def test_the_dump_holds_every_state_byte_for_byte_and_everything_served() -> None:
    world = small_world(Clock())
    world.change("acme", 100)
    async with visiting(world, control=True) as visitor:
        await visitor.get("service/tickets")
        dump = await visitor.ask("GET", "/_sandbox/dump", params={"site": "acme"})
        unknown = await visitor.ask("GET", "/_sandbox/dump", params={"site": "nobody"})
    found = rows(dump.body)
    current = [row for row in found if row["row"] == "state" and row["current"]]
    assert len(current) == sum(len(world.current("acme", recipe.path)) for recipe in RECIPES)
    assert sum(row["row"] == "served" for row in found) == 25
    assert sum(row["row"] == "deleted" for row in found) == len(world.deleted("acme"))
    assert world.current("acme", "service/tickets")[current[0]["id"]] in dump.body
    assert unknown.status == 404


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_in_a_process_of_its_own_ends_cleanly_when_told(number: signal.Signals) -> None:
    command, root = [sys.executable, "-c", CHILD], Path(__file__).parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, text=True) as child:
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        with urlopen(f"{url}/_sandbox/stats", timeout=10) as response:  # noqa: S310 the address is our own child's
            assert response.read() == b"{}"
        child.send_signal(number)
        assert child.stdout.readline() == "closed\n"
    assert child.returncode == 0
