"""One shard of one stream: read, spooled, cut into files. The order of effects is the guarantee.

    spool object written -> {position, spool} committed                          at most a minute apart
    cut recorded in the row -> files and manifest written -> cut committed       each under a name that follows from it

Killed anywhere, the next owner reads on from the committed position, or completes the recorded cut exactly.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import msgspec

from services.compactor.cut_writer import CutWriter, Totals
from services.compactor.cuts import (
    Cut,
    Manifest,
    OpenFiles,
    Rules,
    Run,
    ShardRow,
    by_hour,
    due,
    has_begun,
    hour_of,
    past_quiet_hours,
    read_row,
    with_cut,
)
from services.compactor.files import Kind, header_of, suspect_of
from services.compactor.spool import Spool
from services.compactor.tables import Tables
from services.contracts.errors import FatalError, FencedError, NotFoundError, RetryableError
from services.contracts.log import CutCommitted, EventsReadAgain
from services.contracts.names import SYSTEM_PREFIX, cut_key
from services.contracts.ports import Record, Row, Shard, Value
from services.contracts.times import UtcTime, seconds_between
from services.runtime.gaps import Gaps, Watch
from services.runtime.leases import Lease
from services.runtime.loop import outcome_of
from services.runtime.poison import Inquest, Isolation, Readings
from services.runtime.reading import Batch, read_again, read_shard
from services.runtime.runtime import Runtime

SERVICE = "compactor"
INHERITED = ("cuts", "merged", "waiting")
WRITES_AT_ONCE = 8


class Workshop(msgspec.Struct, frozen=True):
    """What all cutters of a worker share. `numbers` never gives a number twice; `isolation` keeps a search for
    poison apart from all other work."""

    runtime: Runtime
    rules: Rules
    tables: Tables
    numbers: Iterator[int]
    totals: Totals
    isolation: Isolation = msgspec.field(default_factory=Isolation)


class ShardCutter:
    """The work on one shard between taking its lease and letting it go."""

    def __init__(self, workshop: Workshop, kind: Kind, stream: str, lease: Lease, shard: Shard) -> None:
        self.kind, self.stream, self.lease, self.shard = kind, stream, lease, shard
        self.row = ShardRow()
        self._inherits = False  # what is taken over from parents is not in our row yet
        runtime = self._runtime = workshop.runtime
        self._rules, self._totals, self._isolation = workshop.rules, workshop.totals, workshop.isolation
        self._inquest = Inquest(lease, lease.row, runtime.emit, divisible=False)
        self._gaps = Gaps(runtime, workshop.rules.gaps, SERVICE, stream)
        self._watch: Watch | None = None
        self._spool = Spool(runtime.objects, lease, workshop.numbers)
        self._writer = CutWriter(runtime, workshop.tables, kind, lease.scope, shard.shard_id, workshop.totals)
        self._writing = asyncio.Lock()  # the row has two writers: this loop, and whoever merges its cuts
        self._manifests: dict[tuple[str, int], Manifest] = {}
        self._tail: list[Record] = []  # read and not spooled
        self._arrived_at: UtcTime | None = None
        self._read_to: str | None = None
        self._open: OpenFiles | None = None
        self._opened_at: UtcTime | None = None
        self._spooled_at = runtime.clock.monotonic()
        self._taken_up_at = runtime.clock.now()
        self._read_since: dict[tuple[str, int], UtcTime] = {}  # of cuts that are not merged: when their first was read
        self._again = 0
        self._read_to_end_at: UtcTime | None = None

    # -- the story
    async def open(self, parents: Sequence[Row]) -> None:
        """Take up what is committed; complete a recorded cut."""
        lease = self.lease
        held = await lease.committed()
        self._inquest = Inquest(lease, held, self._runtime.emit, divisible=False)
        self.row, self._inherits = read_row(held, parents, self._runtime.clock.now()), not has_begun(held)
        self._read_to, self._arrived_at = self.row.position, self.row.arrived_at
        self._read_to_end_at = self.row.read_to_end_at
        self._again = read_again(lease, self.row.position)
        self._watch = await self._gaps.watch(lease, self.shard, held, parents)
        await self._spool.tidy([*self.row.spool, *(self.row.cut.spool if self.row.cut else ())])
        if self.row.cut is not None:
            await self._complete(self.row.cut)
        if self.row.spool:
            self._take_up(await self._read_spool(self.row.spool))

    async def run(self, *, drain: bool = False) -> None:
        """Until the shard ends, or the lease is to be left; draining, until it is caught up, and then cut.

        Errors: FencedError when somebody else owns it; RetryableError: start again from the row.
        """
        async for batch in read_shard(self._runtime, self.stream, self.shard.shard_id, self._read_to, self.lease):
            if self.lease.lost.is_set():
                raise FencedError(f"the lease on {self.lease.name} is lost")
            await self._take(batch)
            drained = drain and batch.caught_up and not self.shard.closed
            now = self._runtime.clock.monotonic()
            if due(self._open, self._rules, now, ended=batch.ended, asked=drained):
                await self._cut()
            elif self._spool_is_due():
                await self._commit_spool()
            if batch.ended or drained:
                await self._finish(ended=batch.ended)
                return
            if batch.caught_up:
                await self._pass_quiet_hours()
        await self._commit_spool()
        await self._finish(ended=False)

    # -- taking in
    async def _take(self, batch: Batch) -> None:
        assert self._watch is not None, "opened before it is run"
        await self._watch.meet(batch.records, caught_up=batch.caught_up and not batch.ended)
        for arrived_at, records in by_hour(batch.records, self._arrived_at):
            if self._open and self._arrived_at and hour_of(arrived_at) != hour_of(self._arrived_at):
                await self._cut()
            self._arrived_at = arrived_at
            self._tail += records
            self._hold(records)
            self._read_to = records[-1].sequence
            if due(self._open, self._rules, self._runtime.clock.monotonic()) == "bytes":
                await self._cut()
        if batch.caught_up and not batch.ended and not self.shard.closed:  # a closed shard's end may lie long past
            self._read_to_end_at = self._runtime.clock.now()
        self.lease.tell(
            self._count(batch),
            position=self._read_to,
            behind_ms=batch.behind_ms,
            read_to_end_at=self._read_to_end_at,
        )

    def _hold(self, records: Sequence[Record]) -> None:
        now = self._runtime.clock.monotonic()
        size = sum(len(record.data) for record in records)
        if self._open is None:
            self._opened_at = self._runtime.clock.now()
        held = self._open or OpenFiles(0, now, now)
        self._open = OpenFiles(held.size + size, held.since, now)

    def _take_up(self, records: Sequence[Record]) -> None:
        """What a former owner left open is as old as it was there, as far as clocks agree; else it is old."""
        now, opened_at, old_s = self._runtime.clock.monotonic(), self.row.opened_at, self._rules.cut_age_max_s
        age_s = seconds_between(opened_at, self._runtime.clock.now()) if opened_at else 0.0
        since = now - (age_s if 0.0 <= age_s <= old_s else old_s)
        self._opened_at, self._open = opened_at, OpenFiles(sum(len(record.data) for record in records), since, now)

    async def _read_spool(self, keys: Sequence[str]) -> list[Record]:
        try:
            return await self._spool.read(keys)
        except NotFoundError as err:
            await self.lease.see()
            if self.lease.lost.is_set():  # our successor has cut it, and cleared it away
                raise FencedError(f"the lease on {self.lease.name} is lost") from err
            raise FatalError(
                f"what was spooled of {self.shard.shard_id} is gone",
                code="not_found",
                where=self.lease.scope,
                remedy=f"Somebody removed objects below {SYSTEM_PREFIX}/: clear `spool` and `cut` of the lease row and "
                "set `position` to before the first of them; the stream is read again from there.",
            ) from err

    def _count(self, batch: Batch) -> int:
        """The events of a batch; those that the former owner had read already are said."""
        counts = [(int(record.sequence), header_of(record)) for record in batch.records]
        again = sum(header.count for sequence, header in counts if header and sequence <= self._again)
        if again:
            self._runtime.emit(EventsReadAgain(service=SERVICE, shard=self.lease.name, count=again))
        return sum(header.count for _, header in counts if header)

    # -- committing
    async def _commit(self, beside: Mapping[str, Value] | None = None, /, **news: object) -> None:
        """Write what changes of the row. Two tasks write it, hence one at a time, each from what it is then.

        `beside` is of the row, and not of a `ShardRow`."""
        row = msgspec.structs.replace(self.row, **news)
        names = {*news, *INHERITED} if self._inherits else {*news}
        await self.lease.commit({name: _plain(getattr(row, name)) for name in sorted(names)} | dict(beside or {}))
        self.row, self._inherits = row, False
        unfinished = set(self._unfinished())
        self._read_since = {cut: at for cut, at in self._read_since.items() if cut in unfinished}

    def _spool_is_due(self) -> bool:
        age_s = self._runtime.clock.monotonic() - self._spooled_at
        return bool(self._tail) and age_s >= self._rules.spool_age_max_s

    async def _spool_tail(self) -> tuple[str, ...]:
        """The spool with what was read since; durable, and named by nothing yet."""
        self._spooled_at = self._runtime.clock.monotonic()
        if not self._tail:
            return self.row.spool
        key = await self._spool.append(self._tail)
        return (*self.row.spool, key)

    async def _commit_spool(self) -> None:
        if not self._tail:
            return
        first = self.row.first or self._tail[0].sequence
        spool = await self._spool_tail()
        async with self._writing:
            await self._commit(
                position=self._read_to,
                first=first,
                opened_at=self._opened_at,
                spool=spool,
                arrived_at=self._arrived_at,
                read_to_end_at=self._read_to_end_at,
            )
        self._tail = []

    async def _pass_quiet_hours(self) -> None:
        """A shard with nothing open says, once an hour, that it is past the hours before."""
        if self._open is not None:
            return
        now = self._runtime.clock.now()
        certain = past_quiet_hours(self._arrived_at, now)
        if certain is None or (self._arrived_at is not None and hour_of(certain) == hour_of(self._arrived_at)):
            return
        self._arrived_at = certain
        async with self._writing:
            await self._commit(arrived_at=certain, read_to_end_at=now)

    async def _finish(self, *, ended: bool) -> None:
        news: dict[str, object] = {"read_to_end_at": self._read_to_end_at} if self._read_to_end_at else {}
        if ended:
            news["ended"] = True
        if news:
            async with self._writing:
                await self._commit(**news)

    # -- cutting
    async def _cut(self) -> None:
        """Close the open files: record the cut, then complete it."""
        if self._open is None or self._read_to is None or self._arrived_at is None:
            return
        first = self.row.first or self._tail[0].sequence
        spool = await self._spool_tail()
        cut = Cut(self.row.cuts + 1, hour_of(self._arrived_at), first, self._read_to, spool)
        self._read_since[self.shard.shard_id, cut.number] = self._opened_at or self._runtime.clock.now()
        async with self._writing:
            await self._commit(
                cut=cut,
                position=self._read_to,
                first=None,
                opened_at=None,
                spool=(),
                arrived_at=self._arrived_at,
                read_to_end_at=self._read_to_end_at,
            )
        self._tail, self._open = [], None
        await self._complete(cut)

    async def _complete(self, cut: Cut) -> None:
        """Write what a recorded cut consists of and commit it. Whoever does it, and however often, writes the same."""
        manifest = await self._write(cut, await self._read_spool(cut.spool))
        async with self._writing:
            waiting = self.row.waiting
            if manifest.parts:
                waiting = with_cut(waiting, self.shard.shard_id, cut, merges=self.kind == "canonical")
            merged = self._merged(waiting, cut.number)
            over = self._inquest.closing(cut.last)
            await self._commit(over, cut=None, cuts=cut.number, waiting=waiting, merged=merged)
        self._manifests[self.shard.shard_id, cut.number] = manifest
        self._count_cut(manifest)
        with suppress(RetryableError):  # no row names them any longer: garbage, not an error
            await self._spool.drop(cut.spool)

    async def _write(self, cut: Cut, records: Sequence[Record]) -> Manifest:
        """The cut, without what is poison: searched for where owners died before us, or as soon as it raises."""
        sequences = [record.sequence for record in records]
        if not self._inquest.suspicious:
            async with self._isolation.beside_others():
                made = await outcome_of(self._writer.make(cut, records, self._inquest.readings(sequences)))
            if not isinstance(made, Exception):
                return await self._writer.write(cut, made)
            self._inquest.suspect()
        async with self._isolation.alone():
            await self._search(cut, records)
            made = await self._writer.make(cut, records, self._inquest.readings(sequences))
            return await self._writer.write(cut, made)

    async def _search(self, cut: Cut, records: Sequence[Record]) -> None:
        """Owners died over this cut: convict what is fatal in it, to no effect yet."""
        known = {record.sequence: record for record in records}

        async def probe(sequences: Sequence[str], readings: Readings) -> None:
            await self._writer.make(cut, [known[sequence] for sequence in sequences], readings)

        for group in await self._inquest.search([suspect_of(record) for record in records], probe):
            await self._inquest.begin(group)

    def _count_cut(self, manifest: Manifest) -> None:
        rows, files = sum(part.count for part in manifest.parts), len(manifest.parts)
        self._totals.cuts += 1
        self._totals.files += files
        if self.kind == "raw":
            self._totals.raw_events += rows
        else:
            self._totals.observations += rows
        self._runtime.emit(CutCommitted(shard=self.shard.shard_id, cut=manifest.cut, files=files, rows=rows))

    # -- for those who merge and consolidate
    @property
    def waiting(self) -> tuple[Run, ...]:
        return self.row.waiting

    @property
    def unfinished_since(self) -> UtcTime | None:
        """When the oldest was read that is in no file yet, or, where it is to be merged, in no table; None where there
        is nothing. What a former owner cut counts from when we took it up."""
        since = [self._read_since.get(cut, self._taken_up_at) for cut in self._unfinished()]
        if self._open is not None and self._opened_at is not None:
            since.append(self._opened_at)
        return min(since, default=None)

    def _unfinished(self) -> Iterator[tuple[str, int]]:
        if self.row.cut is not None:
            yield self.shard.shard_id, self.row.cut.number
        yield from ((run.shard, cut) for run in self.row.waiting for cut in run.unmerged)

    async def manifest(self, shard: str, cut: int) -> Manifest | None:
        """What a cut of this shard or an ancestor wrote; None once somebody has finished with it.

        Errors: RetryableError.
        """
        if (shard, cut) not in self._manifests:
            try:
                data = await self._runtime.objects.get(cut_key(self.lease.scope, shard, cut))
            except NotFoundError:
                return None
            self._manifests[shard, cut] = msgspec.json.decode(data, type=Manifest)
        return self._manifests[shard, cut]

    async def settle(self, shard: str, merged: int) -> None:
        """Commit that the cuts of a shard up to `merged` are merged. Errors: FencedError, RetryableError."""
        async with self._writing:
            waiting = tuple(
                msgspec.structs.replace(run, merged=max(run.merged, min(merged, run.last)))
                if run.shard == shard
                else run
                for run in self.row.waiting
            )
            if waiting != self.row.waiting:
                await self._commit(waiting=waiting, merged=self._merged(waiting, self.row.cuts))

    def _merged(self, waiting: Sequence[Run], cuts: int) -> int:
        """The last of our own cuts with all before it merged; one that wrote nothing needs no merge."""
        unmerged = [run.unmerged[0] for run in waiting if run.shard == self.shard.shard_id and run.unmerged]
        return min(unmerged) - 1 if unmerged else cuts

    async def forget(self, run: Run) -> None:
        """Commit that nothing waits for a run any more, and drop its manifests. Errors: FencedError, RetryableError."""
        async with self._writing:
            at = (run.shard, run.first)
            await self._commit(waiting=tuple(one for one in self.row.waiting if (one.shard, one.first) != at))
        cuts = range(run.first, run.last + 1)
        for cut in cuts:
            self._manifests.pop((run.shard, cut), None)
        await self._runtime.objects.delete([cut_key(self.lease.scope, run.shard, cut) for cut in cuts])


def _plain(value: object) -> Value:
    plain: Value = msgspec.to_builtins(value)
    return plain
