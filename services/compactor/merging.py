"""Committed cuts into the tables: which are due, one merger per table, and what becomes of one that fails.

The parts of a table are merged in the order of their cuts; several cuts at once where they have gathered. A table that
fails waits and is tried again, and holds up no other; a table without news costs no request.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Final, Protocol

import duckdb
import msgspec
import pyarrow as pa

from services.compactor.cut_writer import Totals
from services.compactor.cuts import Part
from services.compactor.cutting import ShardCutter
from services.compactor.history import HistoryTables, Watermark
from services.compactor.merge import Merged, StaleError, merge
from services.compactor.parquet import KEY, column_kinds, observations, read, rows_from_arrow
from services.compactor.tables import Tables
from services.contracts.envelope import checksum
from services.contracts.errors import AvesaError, ConflictError, FatalError, FencedError, NotFoundError, RetryableError
from services.contracts.log import Retried, TableMerged, WaitingFor
from services.contracts.names import hour_key
from services.contracts.schema import CanonicalTable
from services.contracts.times import UtcTime
from services.runtime.dead_letters import DeadLetter
from services.runtime.leases import Lease
from services.runtime.loop import pause
from services.runtime.runtime import Runtime
from services.runtime.shards import DRAIN_LEASE_TIMES

SCOPE: Final = "merge"
POLL_S: Final = 1.0
TABLES_AT_ONCE: Final = 2
CONFLICTS_MAX: Final = 3  # in a row, then later: somebody else is at it
STEP_OBSERVATIONS: Final = 25_000  # of one merge: a bound on memory, 350 MB with a hundred columns
RETRY_FIRST_S, RETRY_MAX_S = 1.0, 60.0
SAID_AFTER: Final = 5  # failures of a table in a row before it is said aloud
DRAIN_ROUNDS_MAX: Final = 6


class MaintainedTables(HistoryTables, Protocol):
    """The tables of a history that also keep house."""

    def maintain(self, now: UtcTime) -> int:
        """Under the merger's lease, now and then; costs nothing while there is nothing to do."""
        ...


Histories = Callable[[str, CanonicalTable], MaintainedTables]  # opens the tables of (tenant, table) as they are now
At = tuple[str, str]  # tenant, table


class Pending(msgspec.Struct, frozen=True):
    """One part that waits to be merged."""

    cutter: ShardCutter
    shard: str
    cut: int
    hour: str
    part: Part
    buckets: tuple[str, ...]

    @property
    def stream(self) -> str:
        return self.cutter.lease.scope

    @property
    def name(self) -> tuple[str, str, int, str]:
        return (self.stream, self.shard, self.cut, self.part.key)


class _Failure(msgspec.Struct):
    error: AvesaError
    times: int
    until: float


class Merging:
    """Merges what the shards of this worker have cut."""

    def __init__(
        self, runtime: Runtime, histories: Histories, tables: Tables, cutters: Collection[ShardCutter], totals: Totals
    ) -> None:
        self._runtime, self._histories, self._tables, self._cutters = runtime, histories, tables, cutters
        self._totals = totals
        self._done: set[tuple[str, str, int, str]] = set()  # merged, and its cut not committed as such yet
        self._failures: dict[At, _Failure] = {}
        self._room = asyncio.Semaphore(TABLES_AT_ONCE)

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set."""
        while not stopping.is_set():
            try:
                await self.merge_pending(stopping)
            except RetryableError as err:
                self._runtime.emit(Retried(what="merges", code=err.code, wait_s=POLL_S))
            await pause(self._runtime.clock, stopping, POLL_S)

    async def drain(self) -> None:
        """Until nothing is pending. Errors: what still fails after `DRAIN_ROUNDS_MAX` rounds."""
        failure: AvesaError | None = None
        for turn in range(DRAIN_ROUNDS_MAX):
            self._failures.clear()
            try:
                await self.merge_pending(asyncio.Event(), patient=True)
                failure = next((failed.error for failed in self._failures.values()), None)
            except RetryableError as err:
                failure = err
            if failure is None:
                return
            await self._runtime.clock.sleep(min(RETRY_MAX_S, RETRY_FIRST_S * 2**turn))
        if failure is not None:
            raise failure

    async def merge_pending(self, stopping: asyncio.Event, *, patient: bool = False) -> None:
        """One round: every table that has parts waiting and no failure to sit out.

        Errors: RetryableError when what is waiting cannot be read.
        """
        pending = await self._pending()
        now = self._runtime.clock.monotonic()
        due = [at for at in pending if at not in self._failures or self._failures[at].until <= now]
        await asyncio.gather(*(self._try(at, pending[at], stopping, patient) for at in due))
        await self._settle()

    async def _pending(self) -> dict[At, list[Pending]]:
        pending: dict[At, list[Pending]] = {}
        for cutter in list(self._cutters):
            if cutter.kind != "canonical":
                continue
            for run in cutter.waiting:
                for cut in run.unmerged:
                    for one in await self._parts(cutter, run.shard, run.hour, cut):
                        pending.setdefault((one.part.tenant_id, one.part.name), []).append(one)
        return pending

    async def _parts(self, cutter: ShardCutter, shard: str, hour: str, cut: int) -> list[Pending]:
        """The parts of a cut that are not merged. Of an ancestor's cut only those in our range: of the others the
        other child knows what came before."""
        manifest = await cutter.manifest(shard, cut)
        inherited = shard != cutter.shard.shard_id
        found = []
        for part in () if manifest is None else manifest.parts:
            every = [f"{service}/{bucket}" for service, bucket in part.buckets]
            buckets = part.within(cutter.shard.hash_range) if inherited else every
            one = Pending(cutter, shard, cut, hour, part, tuple(buckets))
            if buckets and one.name not in self._done:
                found.append(one)
        return found

    async def _try(self, at: At, pending: Sequence[Pending], stopping: asyncio.Event, patient: bool) -> None:
        async with self._room:
            if stopping.is_set():  # thousands may wait, and a lease each is two writes
                return
            try:
                await self._merge_table(at, pending, stopping, patient)
                self._failures.pop(at, None)
            except (RetryableError, ConflictError, FatalError) as err:
                self._fail(at, err)

    def _fail(self, at: At, err: AvesaError) -> None:
        times = self._failures[at].times + 1 if at in self._failures else 1
        wait_s = RETRY_MAX_S if isinstance(err, FatalError) else min(RETRY_MAX_S, RETRY_FIRST_S * 2 ** min(times, 10))
        self._failures[at] = _Failure(err, times, self._runtime.clock.monotonic() + wait_s)
        name = f"merge of {at[0]}/{at[1]}"
        if isinstance(err, FatalError) or times == SAID_AFTER:
            self._runtime.emit(WaitingFor(what=name, why=str(err)))
        else:
            self._runtime.emit(Retried(what=name, code=err.code, wait_s=wait_s))

    async def _merge_table(self, at: At, pending: Sequence[Pending], stopping: asyncio.Event, patient: bool) -> None:
        leases, name = self._runtime.leases, f"{at[0]}/{at[1]}"
        if patient:
            lease = await leases.wait_for(SCOPE, name, DRAIN_LEASE_TIMES * leases.lease_s)
        else:
            lease = await leases.acquire(SCOPE, name)
        if lease is None:
            raise RetryableError(f"another worker merges {name}", code="already_running")
        try:
            rest = list(pending)
            while rest and not stopping.is_set():
                parts = _together(rest)
                await self._merge_step(lease, at, parts)
                self._done.update(one.name for one in parts)
                del rest[: len(parts)]
        finally:
            await lease.release()

    async def _merge_step(self, lease: Lease, at: At, parts: Sequence[Pending]) -> None:
        lease.alive()
        mappings = {mapping for one in parts for mapping in one.part.mappings}
        table = await self._tables.find(*at, mappings)
        if table is None:
            raise FatalError(f"nobody knows table {at[1]!r} any longer", code="unknown_table")
        by_service = await self._tables.by_service(*at, mappings)
        rebuilt = await self._tables.rebuilt(*at, mappings)
        data = await asyncio.gather(*(self._read(one) for one in parts))
        step = Step(at[0], table, by_service, parts, data, rebuilt, self._runtime.clock.now())
        try:
            merged = await self._runtime.threads.run(merge_step, self._histories, step)
        except StaleError as err:
            await self._runtime.dead_letters.write(stale_letters(at[0], table, err.rows, step.now))
            step = msgspec.structs.replace(step, drop_stale=True)
            merged = await self._runtime.threads.run(merge_step, self._histories, step)
        self._totals.merges += 1
        self._totals.rows_written += merged.rows_written
        self._runtime.emit(
            TableMerged(
                tenant_id=at[0], table=at[1], observations=merged.observations, rows_written=merged.rows_written
            )
        )

    async def _read(self, one: Pending) -> bytes:
        """The part; or the file of its whole hour, if that has replaced it: a set may hold more."""
        for key in (one.part.key, hour_key(one.part.folder, one.hour)):
            with suppress(NotFoundError):
                return await self._runtime.objects.get(key)
        raise FatalError(
            f"{one.part.key} is gone before it was merged",
            code="not_found",
            remedy="`avesa replay --from raw --table … --rebuild` makes the table again from raw/.",
        )

    async def _settle(self) -> None:
        """Commit which cuts are merged as a whole: all parts of theirs, and of every cut before."""
        for cutter in [one for one in self._cutters if one.kind == "canonical"]:
            behind: set[str] = set()  # shards with a cut that waits: none after it counts, of whatever hour
            for run in cutter.waiting:
                if run.shard in behind:
                    continue
                merged = run.merged
                for cut in run.unmerged:
                    if await self._parts(cutter, run.shard, run.hour, cut):
                        behind.add(run.shard)
                        break
                    merged = cut
                if merged > run.merged:
                    with suppress(FencedError, RetryableError):  # the next owner, or we, find it in the table
                        await cutter.settle(run.shard, merged)
        waiting = {
            (cutter.lease.scope, run.shard, cut)
            for cutter in self._cutters
            for run in cutter.waiting
            for cut in run.unmerged
        }
        self._done = {name for name in self._done if name[:3] in waiting}


def _together(pending: Sequence[Pending]) -> list[Pending]:
    """As many of the first parts as one merge takes: one stream's, and no more observations than a bound, or one."""
    step: list[Pending] = []
    count = 0
    for one in pending:
        count += one.part.count
        if step and (count > STEP_OBSERVATIONS or one.stream != step[0].stream):
            break
        step.append(one)
    return step


class Step(msgspec.Struct, frozen=True):
    """One merge: parts and their bytes. `table` has the columns of all their mappings, `by_service` the table as each
    has it; `rebuilt` is by service the rebuild that its mappings come after."""

    tenant_id: str
    table: CanonicalTable
    by_service: Mapping[str, CanonicalTable]
    parts: Sequence[Pending]
    data: Sequence[bytes]
    rebuilt: Mapping[str, int]
    now: UtcTime
    drop_stale: bool = False


def merge_step(histories: Histories, step: Step) -> Merged:
    """Merge parts into the tables, read anew after each conflict. Blocks: for a thread.

    Errors: ConflictError after `CONFLICTS_MAX` in a row, RetryableError, StaleError; FatalError, also for what nobody
            thought of: it concerns this table alone.
    """
    scds = {own.scd for own in step.by_service.values()}
    if scds - {step.table.scd}:
        what = f"services that feed {step.table.table} have it with scd {' and '.join(map(str, sorted(scds)))}"
        raise FatalError(what, code="bad_mapping", remedy="Rebuild it: `avesa replay --from raw --rebuild --table …`.")
    try:
        for _ in range(CONFLICTS_MAX - 1):
            with suppress(ConflictError):
                return _merge_step(histories, step)
        return _merge_step(histories, step)
    except (duckdb.Error, pa.ArrowException) as err:
        raise FatalError(f"merging failed ({type(err).__name__}: {err})", code="bad_value") from err


def _merge_step(histories: Histories, step: Step) -> Merged:
    history = histories(step.tenant_id, step.table)
    _check_rebuilt(history, step)
    news = [(one, part) for one, part in zip(step.parts, step.data, strict=True) if not _covered(history, one)]
    if not news:
        return Merged()  # the commit took effect, its answer was lost
    total = Merged()
    before, after = Watermark(news[0][0].stream, {}), _watermark(one for one, _ in news)
    several = list(batches(part for _, part in news))
    for batch in several:  # a part too large for one merge takes several; the last of them sets the watermark
        if total.observations:
            history = histories(step.tenant_id, step.table)
        seen = pa.concat_tables(observations(part, step.table, history.floors) for part in batch)
        watermark = after if batch is several[-1] else before
        total += merge(
            history,
            step.tenant_id,
            step.table,
            seen,
            watermark,
            by_service=step.by_service,
            drop_stale=step.drop_stale,
        )
    history.maintain(step.now)
    return total


def _check_rebuilt(history: HistoryTables, step: Step) -> None:
    """What a newer mapping made must not enter a table that is still the older one's; nor anything a table whose
    timeline may know the newer one's observations already."""
    waits = [service for service, number in step.rebuilt.items() if history.floors.get(service, 0) < number]
    if waits or history.is_rebuilding:
        options = f"--table {step.table.table} --rebuild --tenant-id {step.tenant_id}"
        whose = f"the mapping of {', '.join(sorted(waits))}" if waits else "a mapping"
        raise FatalError(
            f"{whose} was renewed, and the table is not rebuilt with it yet",
            code="rebuild_unfinished",
            remedy=f"`avesa replay --from raw {options}` does it, or goes on with it; add the --environment and "
            "the --mappings of this one.",
        )


def stale_letters(tenant_id: str, table: CanonicalTable, rows: pa.Table, now: UtcTime) -> list[DeadLetter]:
    """Letters for observations that only an older mapping made (`merge.StaleError`), each named by what it says."""
    kinds = {**column_kinds(table), **dict.fromkeys(KEY, "string"), "mapping_version": "int32", "record_hash": "string"}
    times = {"_effective_at": "timestamp", "observed_at": "timestamp"}
    letters = []
    for row in rows_from_arrow(rows, {**kinds, **times}, nulls=False):
        text = msgspec.json.encode(row).decode()
        letters.append(
            DeadLetter(
                tenant_id,
                "merge",
                table.table,
                f"{row['record_id']}-{checksum(text.encode())}",
                "old_mapping",
                f"made by mapping {row['mapping_version']} of {row['service']}, older than the table's",
                now,
                record_id=row["record_id"],
                remedy=f"`avesa replay --from raw --table {table.table} --rebuild` makes it again from raw/.",
                text=text,
            )
        )
    return letters


def batches(parts: Iterable[bytes], rows_max: int = STEP_OBSERVATIONS) -> Iterator[list[pa.Table]]:
    """The rows of the parts in batches of at most `rows_max`, none empty."""
    batch: list[pa.Table] = []
    room = rows_max
    for part in parts:
        rows = read(part)
        while rows.num_rows > room:
            yield [*batch, rows.slice(0, room)]
            batch, rows, room = [], rows.slice(room), rows_max
        batch.append(rows)
        room -= rows.num_rows
    if batch:
        yield batch


def _covered(history: HistoryTables, one: Pending) -> bool:
    return history.watermark.covers(one.stream, one.buckets, one.cut)


def _watermark(merged: Iterable[Pending]) -> Watermark:
    cuts: dict[str, int] = {}
    stream = ""
    for one in merged:
        stream = one.stream
        cuts.update({bucket: max(one.cut, cuts.get(bucket, 0)) for bucket in one.buckets})
    return Watermark(stream, cuts)
