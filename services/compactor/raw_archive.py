"""The raw archive as a rebuild reads it: every event of an endpoint, in batches of bounded size; and whether all that
arrived before a moment lies there yet.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Final

from services.compactor import parquet
from services.compactor.cuts import HOUR_CHARS, is_cut_until, read_row
from services.compactor.cutting import SERVICE
from services.contracts.errors import NotFoundError
from services.contracts.events import ChangeEvent
from services.contracts.names import hour_key, raw_folder
from services.contracts.ports import ObjectInfo, Objects
from services.contracts.times import UtcTime
from services.runtime.runtime import Runtime
from services.runtime.shards import scope_of

READS_AT_ONCE: Final = 8
READ_BYTES_MAX: Final = 64 << 20  # of the files read at once; a larger one is read alone (hours.HOUR_BYTES_MAX at most)


async def listed(objects: Objects, folder: str) -> list[ObjectInfo]:
    """The files of a folder of hours, by key.

    Listed twice: of an hour whose parts become one file between two pages of one listing, that listing may have seen
    neither. Whatever was there before the first is in one of the two.
    """
    found = {info.key: info for _ in range(2) async for info in objects.list(f"{folder}/")}
    return [found[key] for key in sorted(found)]


class RawArchive:
    """raw/ of one environment. Errors: RetryableError; NotFoundError when a file is removed while it is to be read."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def files(self, tenant_id: str, service: str, endpoint: str) -> list[ObjectInfo]:
        """The files of an endpoint."""
        return await listed(self._runtime.objects, raw_folder(tenant_id, service, endpoint))

    async def events(self, files: Sequence[ObjectInfo]) -> AsyncIterator[list[ChangeEvent]]:
        """The events of these files, `parquet.ROW_GROUP_ROWS` at a time at most; some may come twice."""
        async for data in self._contents(files):
            batches = parquet.raw_batches(data)
            while events := await self._runtime.threads.run(next, batches, list[ChangeEvent]()):
                yield events

    async def count(self, files: Sequence[ObjectInfo]) -> int:
        """How many events `events` would give."""
        return sum([parquet.rows_count(data) async for data in self._contents(files)])

    async def _contents(self, files: Sequence[ObjectInfo]) -> AsyncIterator[bytes]:
        known = {info.key for info in files}
        gone: set[str] = set()  # hours whose parts became one file since they were listed
        for some in _together(files):
            for info, data in zip(some, await asyncio.gather(*map(self._read, some)), strict=True):
                if data is not None:
                    yield data
                elif (whole := _hour_of_part(info.key)) not in known:
                    gone.add(whole)
        for key in sorted(gone):
            yield await self._runtime.objects.get(key)

    async def _read(self, info: ObjectInfo) -> bytes | None:
        try:
            return await self._runtime.objects.get(info.key)
        except NotFoundError:
            if _hour_of_part(info.key) == info.key:
                raise
            return None

    async def holds(self, until: UtcTime) -> bool:
        """Does everything that arrived in the raw stream before `until` lie in raw/, as the lease rows prove?"""
        runtime = self._runtime
        info = await runtime.streams.describe(runtime.names.raw_stream)
        scope = {"scope": scope_of(runtime.names.raw_stream, info.created, SERVICE)}
        rows = {row["name"]: row async for row in runtime.rows.query(runtime.names.leases, scope)}
        return all(
            shard.shard_id in rows
            and is_cut_until(read_row(rows[shard.shard_id]), rows[shard.shard_id].get("progress") or {}, until)
            for shard in info.shards
        )


def _together(files: Sequence[ObjectInfo]) -> Iterator[list[ObjectInfo]]:
    """Files that are read at once."""
    some: list[ObjectInfo] = []
    for info in files:
        if some and (len(some) == READS_AT_ONCE or sum(one.size for one in some) + info.size > READ_BYTES_MAX):
            yield some
            some = []
        some.append(info)
    if some:
        yield some


def _hour_of_part(key: str) -> str:
    """The file of the hour that a part (`{folder}/{hour}/{part}.parquet`) becomes part of; that of an hour itself."""
    folder, _, name = key.rpartition("/")
    return key if name[HOUR_CHARS:] == ".parquet" else hour_key(*folder.rsplit("/", 1))
