"""A vendor that costs nothing to ask: pages rendered beforehand, the same bytes whichever way they are asked for.

    python -m tests.bench.extract.server <records.ndjson> <records a page>

Prints its port. `GET /tickets` answers the page after the id `after`, or with `page` (from 1) that page; the last page
is shorter. The header `X-Total-Pages` says how many there are.
"""

import asyncio
import sys
from bisect import bisect_right
from pathlib import Path

import msgspec
from aiohttp import web


class _Keyed(msgspec.Struct):
    id: int


def application(file: Path, size: int) -> web.Application:
    """Records in order of their id."""
    records = file.read_bytes().splitlines()
    ids = [msgspec.json.decode(record, type=_Keyed).id for record in records]
    pages = [b"[" + b",".join(records[start : start + size]) + b"]" for start in range(0, len(records) + 1, size)]

    async def tickets(request: web.Request) -> web.Response:
        if "after" in request.query:
            number = bisect_right(ids, int(request.query["after"])) // size
        else:
            number = int(request.query.get("page", "1")) - 1
        body = pages[number] if number < len(pages) else b"[]"
        return web.Response(body=body, content_type="application/json", headers={"X-Total-Pages": str(len(pages))})

    app = web.Application()
    app.router.add_get("/tickets", tickets)
    return app


async def main(file: str, size: str) -> None:
    runner = web.AppRunner(application(Path(file), int(size)), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
