"""A record that ends whoever cuts it: the cut is completed without it, and whoever completes it writes the same."""

from collections.abc import Callable
from itertools import chain
from typing import ParamSpec, TypeVar

import msgspec
import pytest

from services.compactor.cuts import Rules
from services.compactor.files import Contents
from services.contracts.events import CanonicalEvent
from services.contracts.log import PoisonIsolated
from services.contracts.partitions import Partition
from services.contracts.rows import folded_rows
from services.runtime.dead_letters import DeadLetter
from services.runtime.envelopes import seal
from tests.compactor.observed import TABLES, TENANT, read, seen
from tests.compactor.plant import Killed, Plant
from tests.fakes import InlineThreads

P = ParamSpec("P")
T = TypeVar("T")
ATTEMPTS_MAX = 40


class FatalThreads(InlineThreads):
    """A program that cannot read the record `fatal`: its process ends, or it raises."""

    def __init__(self, plant: Plant, fatal: str, *, raises: bool = False) -> None:
        self._plant, self._fatal, self._raises = plant, fatal, raises

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        result = await super().run(work, *args, **kwargs)
        if isinstance(result, Contents) and self._fatal in _record_ids(result):
            if self._raises:
                raise ZeroDivisionError
            self._plant.calls_max = self._plant.calls  # dead: whatever it still tries has no effect
            raise Killed
        return result


def _record_ids(found: Contents) -> set[str]:
    raw, canonical = chain(*found.raw.values()), chain(*found.canonical.values())
    return {event.record_id for event in raw} | {event.record_id for event in canonical}


async def drained(plant: Plant) -> int:
    """Workers one after the other until one has drained everything: how many died."""
    for deaths in range(ATTEMPTS_MAX):
        try:
            await plant.drain()
        except Killed:
            plant.calls_max = None
        else:
            return deaths
    raise AssertionError("it is never done")


def letters(plant: Plant) -> list[DeadLetter]:
    return [msgspec.json.decode(plant.objects.held[key], type=DeadLetter) for key in plant.keys("/dead-letter/")]


HISTORY = [seen({"summary": f"S{number}"}, number, record_id=str(number)) for number in range(1, 65)]
REST = [event for event in HISTORY if event.record_id != "23"]


async def planted(fatal: str, *, raises: bool = False, together: int = 16) -> Plant:
    plant = Plant()
    partition = Partition(TENANT, "connectwise", "tickets")
    for start in range(0, len(HISTORY), together):
        lines = [msgspec.json.encode(event) for event in HISTORY[start : start + together]]
        await plant.put_sealed(True, seal(partition, "tickets", lines))
    plant.threads = FatalThreads(plant, fatal, raises=raises)
    return plant


@pytest.mark.parametrize("fatal", ["1", "23", "64"])
async def test_a_cut_that_kills_is_completed_without_the_line_that_did(fatal: str) -> None:
    plant = await planted(fatal)
    deaths = await drained(plant)
    assert deaths <= 2 + 6 + 2 + 3
    rest = [event for event in HISTORY if event.record_id != fatal]
    assert plant.histories.rows() == folded_rows(rest, TABLES)
    assert sorted(plant.canonical(), key=lambda event: int(event.record_id)) == rest
    ((letter),) = letters(plant)
    assert (letter.code, letter.stage, letter.group) == ("poison", "compact", "tickets")
    assert letter.attempts >= 3
    assert msgspec.json.decode(letter.text or "", type=CanonicalEvent).record_id == fatal
    assert letter.position.endswith(f"-{(int(fatal) - 1) % 16}")
    assert sum(event.count for event in plant.said(PoisonIsolated)) == 1
    rows = [row async for row in plant.rows.scan(plant.names.leases)]
    assert not any({"trial", "poison", "deaths"} & set(row) for row in rows if row["scope"].count("/") == 2)


async def test_a_line_that_raises_kills_nobody() -> None:
    plant = await planted("23", raises=True)
    assert await drained(plant) == 0
    assert plant.histories.rows() == folded_rows(REST, TABLES)
    ((letter),) = letters(plant)
    assert (letter.code, letter.attempts) == ("poison", 1)
    assert "ZeroDivisionError" in letter.reason


async def test_the_raw_archive_goes_on_without_it_too() -> None:
    plant = Plant()
    await plant.put(*(read(str(number), number) for number in range(1, 21)))
    plant.threads = FatalThreads(plant, "7")
    await drained(plant)
    assert sorted(int(event.record_id) for event in plant.raw()) == [n for n in range(1, 21) if n != 7]
    assert [letter.code for letter in letters(plant)] == ["poison"]


async def test_whoever_completes_the_cut_after_a_conviction_writes_the_same() -> None:
    undisturbed = await planted("23", together=4)
    await drained(undisturbed)
    written = {key: undisturbed.objects.held[key] for key in undisturbed.keys("/canonical/")}
    for call in range(1, 60, 3):
        plant = await planted("23", together=4)
        for _ in range(ATTEMPTS_MAX):
            try:
                await plant.drain()
            except Killed:
                plant.calls_max = None
            if plant.said(PoisonIsolated):
                break
            if await convicted(plant):
                await plant.drain_killed_at(call)
                break
        plant.threads = FatalThreads(plant, "23", raises=True)  # it would be found again, were it not known
        await drained(plant)
        assert {key: plant.objects.held[key] for key in plant.keys("/canonical/")} == written, call
        ((letter),) = letters(plant)
        assert "ended the process" in letter.reason


async def convicted(plant: Plant) -> bool:
    """Is the next worker to convict, for it has died of one line often enough?"""
    rows = [row async for row in plant.rows.scan(plant.names.leases)]
    return any(row["trial"][2] >= 2 and row["trial"][0][3] >= 0 for row in rows if row.get("trial"))


async def test_a_running_worker_that_dies_of_a_cut_is_followed_by_one_that_completes_it() -> None:
    plant = await planted("23")
    plant.rules = Rules(cut_idle_s=30)
    for _ in range(ATTEMPTS_MAX):
        try:
            await plant.run(400)
        except Killed:
            plant.calls_max = None
        if plant.histories.rows() == folded_rows(REST, TABLES):
            break
    assert plant.histories.rows() == folded_rows(REST, TABLES)
    assert [letter.code for letter in letters(plant)] == ["poison"]
