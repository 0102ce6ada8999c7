"""Who may open a connection next."""

import asyncio

from services.extractor.connections import Lanes


async def test_a_slow_host_gets_what_others_leave_and_another_never_waits_for_its_first() -> None:
    lanes, held, order = Lanes(4), asyncio.Event(), list[str]()

    async def ask(host: str, until: asyncio.Event) -> None:
        async with lanes.lane(host):
            order.append(host)
            await until.wait()

    at_once = asyncio.Event()
    at_once.set()
    slow = [asyncio.ensure_future(ask("slow", held)) for _ in range(10)]
    await asyncio.sleep(0)
    assert order == ["slow"] * 4
    await asyncio.gather(ask("quick", at_once), ask("other", at_once))
    assert order[4:] == ["quick", "other"]
    two = [asyncio.ensure_future(ask("quick", held)) for _ in range(2)]
    slow[0].cancel()
    slow[9].cancel()
    await asyncio.wait([slow[0], slow[9]])
    assert order.count("quick") == 2  # one for each host at least; the second waits, and is next
    slow[1].cancel()
    slow[2].cancel()
    for _ in range(3):
        await asyncio.sleep(0)
    assert order.count("quick") == 3
    held.set()
    await asyncio.gather(*slow, *two, return_exceptions=True)
    assert order.count("slow") == 4 + 5
