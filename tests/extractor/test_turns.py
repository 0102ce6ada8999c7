"""Whose turn it is."""

import asyncio

from services.extractor.turns import Turns


async def hold(turns: Turns, rank: float, name: str, seen: list[str], until: asyncio.Event) -> None:
    async with turns.turn(rank):
        seen.append(name)
        await until.wait()


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_of_those_who_wait_the_lowest_rank_goes_first_then_who_came_first() -> None:
    turns, seen, done = Turns(1), list[str](), asyncio.Event()
    first = asyncio.Event()
    tasks = [asyncio.create_task(hold(turns, 3_600, "lists", seen, first))]
    await settled()
    for rank, name in ((3_600, "boards"), (300, "people"), (60, "tickets"), (60, "notes")):
        tasks.append(asyncio.create_task(hold(turns, rank, name, seen, done)))
    await settled()
    assert seen == ["lists"]
    done.set()
    first.set()
    await asyncio.gather(*tasks)
    assert seen == ["lists", "tickets", "notes", "people", "boards"]


async def test_who_stops_waiting_keeps_nobody_else_from_a_turn() -> None:
    turns, seen, done = Turns(1), list[str](), asyncio.Event()
    done.set()
    async with turns.turn(1):
        waiting = [asyncio.create_task(hold(turns, 1, name, seen, done)) for name in ("first", "second", "third")]
        await settled()
        waiting[0].cancel()
        await settled()
    waiting[1].cancel()  # its turn has come, and it does not know yet
    await asyncio.gather(*waiting, return_exceptions=True)
    assert seen == ["third"]
    async with turns.turn(1):
        pass


async def test_at_most_so_many_hold_a_turn() -> None:
    turns, seen, done = Turns(2), list[str](), asyncio.Event()
    tasks = [asyncio.create_task(hold(turns, 1, str(number), seen, done)) for number in range(5)]
    await settled()
    assert len(seen) == 2
    done.set()
    await asyncio.gather(*tasks)
    assert len(seen) == 5
