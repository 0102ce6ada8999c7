"""Complete hours: the parts of a folder become one file, sorted by record, each observation once.

Whoever owns a shard that wrote parts of an hour may do it; two who do it at once write the same bytes.
"""

import asyncio
from collections.abc import Collection
from typing import Final

from services.compactor import parquet
from services.compactor.cut_writer import Totals
from services.compactor.cuts import Run, ShardRow, hour_is_complete, hour_of, read_row
from services.compactor.cutting import ShardCutter
from services.contracts.errors import ConflictError, FencedError, NotFoundError, RetryableError
from services.contracts.log import Retried
from services.contracts.names import hour_key
from services.runtime.loop import pause, until
from services.runtime.runtime import Runtime

POLL_S: Final = 60.0
HOUR_BYTES_MAX: Final = 512 << 20  # of parts in a folder: beyond it they are large enough to stay as they are


class Hours:
    """Consolidates the hours that the shards of this worker have written parts of."""

    def __init__(self, runtime: Runtime, cutters: Collection[ShardCutter], totals: Totals) -> None:
        self._runtime, self._cutters, self._totals = runtime, cutters, totals

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set."""
        while not stopping.is_set():
            await until(stopping, self.consolidate())
            await pause(self._runtime.clock, stopping, POLL_S)

    async def consolidate(self) -> None:
        """One round: every hour that is complete, and merged. Costs no request while there is none."""
        for cutter in list(self._cutters):
            due = [run for run in cutter.waiting if not run.unmerged and self._is_past(cutter, run)]
            try:
                complete = await self._complete(cutter, due) if due else []
                for run in complete:
                    await self._finish(cutter, run)
            except FencedError:
                continue
            except (RetryableError, NotFoundError) as err:
                self._runtime.emit(Retried(what="consolidation", code=err.code, wait_s=POLL_S))

    def _is_past(self, cutter: ShardCutter, run: Run) -> bool:
        return cutter.row.arrived_at is not None and hour_of(cutter.row.arrived_at) > run.hour

    async def _complete(self, cutter: ShardCutter, due: list[Run]) -> list[Run]:
        info = await self._runtime.streams.describe(cutter.stream)
        leases = self._runtime.leases
        rows: dict[str, ShardRow] = {}
        async for row in leases.rows.query(leases.table, {"scope": cutter.lease.scope}):
            rows[row["name"]] = read_row(row)
        return [run for run in due if hour_is_complete(run.hour, info.shards, rows)]

    async def _finish(self, cutter: ShardCutter, run: Run) -> None:
        folders: set[str] = set()
        for cut in range(run.first, run.last + 1):
            manifest = await cutter.manifest(run.shard, cut)
            if manifest is not None:
                folders.update(part.folder for part in manifest.parts)
        if all([await self._consolidate(folder, run.hour) for folder in sorted(folders)]):
            await cutter.forget(run)

    async def _consolidate(self, folder: str, hour: str) -> bool:
        """False where another is at it: look again later."""
        objects = self._runtime.objects
        parts = [info async for info in objects.list(f"{folder}/{hour}/")]
        if not parts or sum(part.size for part in parts) > HOUR_BYTES_MAX:
            return True
        try:
            data = [await objects.get(part.key) for part in parts]
        except NotFoundError:
            return False
        whole = await self._runtime.threads.run(parquet.consolidated, data, {"hour": hour})
        if whole is None:
            return True  # they stay as they are
        try:
            await objects.create(hour_key(folder, hour), whole)
        except ConflictError:
            there = await objects.get(hour_key(folder, hour))
            held = [await self._runtime.threads.run(parquet.holds_all, there, part) for part in data]
            parts = [
                part for part, is_held in zip(parts, held, strict=True) if is_held
            ]  # the others stay: readers see both
        await objects.delete([part.key for part in parts])
        self._totals.hours += 1
        return True
