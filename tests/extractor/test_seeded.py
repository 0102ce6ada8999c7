"""Random lives of records, told by lists, flags and a bin that lags behind, read by workers that die: the history ends
where the vendor does. No sweep helps."""

import random
from typing import Any

import pytest

from services.contracts.errors import RetryableError
from services.contracts.fold import Observation, fold
from services.contracts.times import shifted
from tests.extractor.test_gone import FEED, FLAGGED
from tests.extractor.world import World, opened
from tests.fakes import Call, nothing

RECORDS, STEPS = 6, 40
NOTES: dict[str, Any] = {
    **FLAGGED,
    "path": "tickets/{parent_id}/notes",
    "parent": {"endpoint": "tickets", "when_changed": True},
}


class Life:
    """What the vendor's users do."""

    def __init__(self, world: World, chance: random.Random) -> None:
        self.world, self.chance = world, chance
        self.graves = 100
        world.vendor.lists.update({"tickets": {}, "bin": {}})

    def step(self) -> None:
        chance, vendor = self.chance, self.world.vendor
        record_id = chance.randint(1, RECORDS)
        tickets = vendor.lists["tickets"]
        match chance.choice(["put", "put", "flag", "bury", "note"]):
            case "put":
                vendor.put("tickets", record_id, name=str(chance.random()), active=True)
            case "flag" if record_id in tickets:
                vendor.put("tickets", record_id, active=False)
            case "bury" if record_id in tickets:
                vendor.drop("tickets", record_id)
                self.graves += 1
                now = self.world.clock.now()
                vendor.put("bin", self.graves, ticket=record_id, deleted_at=now)
                vendor.visible_at["bin", self.graves] = shifted(now, seconds=chance.choice([0, 0, 20, 100]))
            case "note" if tickets.get(record_id, {}).get("active"):
                path = f"tickets/{record_id}/notes"
                number = 1_000 * record_id + chance.randint(1, 3)
                vendor.put(path, number, name=str(chance.random()), active=chance.random() < 0.8)
                vendor.visible_at[path, number] = shifted(self.world.clock.now(), seconds=chance.choice([0, 90]))
                vendor.put("tickets", record_id, name=str(chance.random()), active=True)

    def alive(self) -> dict[str, str]:
        """Tickets by id and name."""
        tickets = self.world.vendor.lists["tickets"].values()
        return {str(one["id"]): one["name"] for one in tickets if one["active"]}

    def notes(self) -> set[str]:
        """The notes of the tickets that are there."""
        lists = self.world.vendor.lists
        below = [lists.get(f"tickets/{one}/notes", {}).values() for one in self.alive()]
        return {str(note["id"]) for notes in below for note in notes if note["active"]}


def current(world: World, endpoint: str) -> dict[str, str]:
    """The last version of what is there, by id: its payload."""
    seen: dict[str, list[Observation[str]]] = {}
    for event in world.events:
        if event.endpoint == endpoint:
            gone, text = event.op == "delete", "" if event.op == "delete" else bytes(event.payload or b"").decode()
            told = Observation(event.effective_at, event.observed_at, gone, 1, text, text, text)
            seen.setdefault(event.record_id, []).append(told)
    last = {
        record_id: [version.last.row for version in fold(told) if version.is_current]
        for record_id, told in seen.items()
    }
    return {record_id: rows[0] or "" for record_id, rows in last.items() if rows}


def dying(world: World, chance: random.Random) -> None:
    """The worker loses its stream or its rows at some call."""
    left = chance.randint(1, 6)

    async def dead(_: Call) -> None:
        nonlocal left
        left -= 1
        if left <= 0:
            raise RetryableError("killed")

    if chance.random() < 0.5:
        world.streams.before = dead
    else:
        world.streams.after = dead


@pytest.mark.parametrize("seed", range(12))
async def test_the_history_ends_where_the_vendor_does(seed: int) -> None:
    chance = random.Random(seed)
    async with opened() as world:
        world.use({"tickets": FLAGGED, "bin": FEED, "notes": NOTES})
        life = Life(world, chance)
        for _ in range(STEPS):
            for _ in range(chance.randint(0, 3)):
                life.step()
                world.clock.advance(chance.choice([0.1, 1.0, 7.0]))
            if chance.random() < 0.3:
                dying(world, chance)
            await world.run(sweep=False)
            world.streams.before = world.streams.after = nothing
            world.clock.advance(chance.choice([1.0, 30.0, 400.0]))
        for _ in range(3):
            world.clock.advance(400)
            assert (await world.run(sweep=False)).complete
        found = current(world, "tickets")
        assert found.keys() == life.alive().keys()
        assert all(name in found[record_id] for record_id, name in life.alive().items())
        assert life.notes() <= current(world, "notes").keys()
        count = len(world.events)
        world.clock.advance(400)
        await world.run(sweep=False)
        assert len(world.events) == count
