"""The system's time."""

import asyncio
import time
from datetime import UTC, datetime

from services.contracts.times import UtcTime, utc_text


class SystemClock:
    """`Clock` as the operating system tells it."""

    def now(self) -> UtcTime:
        return utc_text(datetime.now(UTC))

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(max(0.0, seconds))
