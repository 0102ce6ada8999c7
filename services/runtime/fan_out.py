"""Turns for whoever reads by enhanced fan-out: pages are pushed, seconds apart where nothing arrives, and a reader has
to commit, to show life and to stop in between."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from services.contracts.ports import Clock, Page
from services.runtime.loop import cancelled

TICK_S: Final = 1.0


async def ticking(pages: AsyncGenerator[Page, None], clock: Clock) -> AsyncGenerator[Page | None, None]:
    """`pages`, and None where none came for TICK_S, which does not say that there is nothing more.

    Nothing is asked for while the caller is busy: the stream waits, not our memory. Closed, it closes `pages`.
    """
    coming: asyncio.Future[Page | None] | None = None
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(pages, None))
            tick = asyncio.ensure_future(clock.sleep(TICK_S))
            try:
                await asyncio.wait((coming, tick), return_when=asyncio.FIRST_COMPLETED)
            finally:
                tick.cancel()
            if not coming.done():
                yield None
                continue
            page, coming = coming.result(), None
            if page is None:
                return
            yield page
    finally:
        if coming is not None:
            await cancelled([coming])
        await pages.aclose()
