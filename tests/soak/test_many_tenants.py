"""An extractor with 200 tenants of 16 endpoints each: what it takes, whom it serves, and what one slow tenant does.

Run by `make soak` (about eight minutes); the figures show with `ARGS=-rP`.
"""

import asyncio
import resource
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiohttp
import msgspec
import pytest

from tests.soak.many_tenants import SLOW, SLOW_S, Seen, Stats

pytestmark = pytest.mark.soak

ROOT: Final = Path(__file__).parents[2]
TENANTS, ENDPOINTS = 200, 16
INTERVAL_S: Final = 20.0  # 160 reads a second: half of what one core does
CYCLES: Final = 10
WARM_UP_S: Final = 2 * INTERVAL_S  # what began together has drifted apart
START_MAX_S: Final = 300.0
STOP_MAX_S: Final = 60.0
RSS_MAX: Final = 500 << 20
LINE_BYTES_MAX: Final = 64 << 20


class Run(msgspec.Struct):
    """Ten cycles: RSS in bytes after each, what the vendor saw, and how long changes took (seconds, sorted)."""

    rss: list[int]
    stats: Stats
    took_s: list[float]

    @property
    def p95_s(self) -> float:
        return self.took_s[int(0.95 * len(self.took_s))]


async def test_two_hundred_tenants_in_flat_memory_each_served_and_none_delayed_by_a_slow_one(tmp_path: Path) -> None:
    numbers = (str(TENANTS), str(ENDPOINTS), str(INTERVAL_S))
    async with program("vendor", *numbers) as vendor:
        url = (await line(vendor, START_MAX_S)).decode()
        async with program("extractor", url, *numbers, str(tmp_path)) as extractor:
            assert await line(extractor, START_MAX_S) == b"read"
            await asyncio.sleep(WARM_UP_S)
            await control(url, slow=False)
            alone = await cycles(url, extractor.pid, slow_next=True)
            beside = await cycles(url, extractor.pid, slow_next=False)
            extractor.terminate()
            seen = msgspec.json.decode(await line(extractor, STOP_MAX_S), type=list[Seen])
    for part in (alone, beside):
        part[0].took_s = sorted(one.took_s for one in seen if one.tenant_id != SLOW and part[1] <= one.at < part[2])
    report(alone[0], beside[0])
    rss = alone[0].rss + beside[0].rss
    assert max(rss) < RSS_MAX
    assert max(rss[-CYCLES:]) < 1.1 * max(rss[: CYCLES // 2])
    for part in (alone, beside):
        others = {tenant: longest for tenant, longest in part[0].stats.longest_s.items() if tenant != SLOW}
        assert len(others) == TENANTS - 1
        assert max(others.values()) < 2 * INTERVAL_S, "somebody was not served in a cycle"
    assert beside[0].stats.longest_s[SLOW] >= SLOW_S
    assert beside[0].p95_s < 1.1 * alone[0].p95_s


async def cycles(url: str, pid: int, *, slow_next: bool) -> tuple[Run, float, float]:
    """Ten cycles, and from when to when (epoch seconds) they lasted. What comes after them may be slow."""
    loop = asyncio.get_running_loop()
    began, start, rss = time.time(), loop.time(), list[int]()
    for cycle in range(1, CYCLES + 1):
        await asyncio.sleep(start + cycle * INTERVAL_S - loop.time())
        rss.append(resident(pid))
    return Run(rss, await control(url, slow=slow_next), []), began, time.time()


def resident(pid: int) -> int:
    """Bytes (proc(5), statm: pages)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


async def control(url: str, *, slow: bool) -> Stats:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/_control", params={"slow": int(slow)}) as answer:
        return msgspec.json.decode(await answer.read(), type=Stats)


@asynccontextmanager
async def program(*arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = (sys.executable, "-m", "tests.soak.many_tenants", *arguments)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES_MAX
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line(process: asyncio.subprocess.Process, seconds_max: float) -> bytes:
    assert process.stdout is not None
    found = await asyncio.wait_for(process.stdout.readline(), seconds_max)
    assert found, "it has died"
    return found.strip()


def report(alone: Run, beside: Run) -> None:
    for name, part in (("alone", alone), (f"beside one tenant that takes {SLOW_S:.0f} s a page", beside)):
        others = max(longest for tenant, longest in part.stats.longest_s.items() if tenant != SLOW)
        print(
            f"\n{TENANTS} tenants x {ENDPOINTS} endpoints every {INTERVAL_S:.0f} s, {name}: "
            f"{part.stats.calls / CYCLES / INTERVAL_S:.0f} calls/s, RSS {min(part.rss) / 2**20:.0f} to "
            f"{max(part.rss) / 2**20:.0f} MiB, no endpoint of the others longer unread than {others:.1f} s; "
            f"{len(part.took_s)} changes, p95 {part.p95_s:.2f} s"
        )
