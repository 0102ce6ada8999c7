"""Rebuilding a table of tenants from their raw archive: the order of effects is the guarantee.

1. Take the merge lease of (tenant, table) and keep it: nobody merges into the table meanwhile. Open its tables: what
   is committed at the end holds only on what they are now.
2. Pin the mapping. From now on the merger refuses what newer mappings than the table's made.
3. See that raw/ holds all that is in the table or may still be made with the former mapping (`_settle`). Whatever
   comes later is made with the new one and merged after the rebuild; what comes twice is one observation (DESIGN 2).
4. Map the raw archive, fold it, swap it in (compactor/rebuild.py).

Nothing needs to be drained first: what the former mapping made and nobody has merged yet is in raw/ too, and the merger
knows it for what it is by the number that step 4 leaves in the table. Killed anywhere, the old table or the new one is
whole, and the same command goes on: the pin is there already.
"""

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final, Literal

import msgspec

from services.cli.connections import everything
from services.cli.screen import Screen, counted, lasting
from services.compactor.iceberg import IcebergHistory, Warehouse
from services.compactor.merging import SCOPE
from services.compactor.raw_archive import RawArchive
from services.compactor.rebuild import Folded, Gathered, buckets_for, combined, swap, versions_count
from services.compactor.service import Compactor
from services.contracts.errors import AvesaError, Code, FatalError, FencedError
from services.contracts.events import ChangeEvent
from services.contracts.log import RecordsRejected, TableRebuilt
from services.contracts.mapping_files import MappingFiles
from services.contracts.ports import ObjectInfo
from services.contracts.schema import CanonicalTable
from services.contracts.times import UtcTime, seconds_between, shifted
from services.runtime.dead_letters import DeadLetter
from services.runtime.leases import Lease
from services.runtime.loop import cancelled
from services.runtime.runtime import Runtime
from services.runtime.shards import DRAIN_LEASE_TIMES
from services.transformer.catalogue import AGE_MAX_S
from services.transformer.groups import remembered
from services.transformer.pinned import Pinned, PinnedMappings, difference, shipped
from services.transformer.rederive import Rederiver
from services.transformer.service import Transformer

TENANTS_AT_ONCE: Final = 32  # leases held at once
LEASE_WAIT_MAX_S: Final = 300.0  # for merges that are under way
LEASE_POLL_S: Final = 0.25
POLL_S: Final = 2.0
MARGIN_S: Final = 300.0  # clocks may be that far apart
RAW_WAIT_MAX_S: Final = 1_200.0  # for running compactors to cut what had arrived: several times their `cut_age_max_s`
LETTERS_AT_ONCE: Final = 16
LETTERS_MAX: Final = 10_000  # held in memory until it is clear that the mapping is none that refuses most records


class Feed(msgspec.Struct, frozen=True):
    """One service that feeds the table: the mapping in force, the one it is to be rebuilt with, and what of the files
    waits for that, in words."""

    service: str
    held: Pinned | None
    wanted: Pinned
    waits: str


class Plan(msgspec.Struct, frozen=True):
    """What a rebuild of one tenant's table is about."""

    tenant_id: str
    feeds: tuple[Feed, ...]

    @property
    def table(self) -> CanonicalTable:
        """The columns it will have. Errors: UsageError where services contradict each other."""
        return combined({feed.service: feed.wanted.table for feed in self.feeds})


class Rebuilt(msgspec.Struct, frozen=True):
    """What became of one tenant's table. `versions` counts rows, `rejected` dead letters, `mappings` are numbers by
    service. Where it failed, `code` and `what` say why, and the old table stands."""

    tenant_id: str
    table: str
    mappings: dict[str, int] = {}
    events: int = 0
    rejected: int = 0
    versions_before: int = 0
    versions: int = 0
    seconds: float = 0.0
    code: Code | Literal[""] = ""
    what: str = ""


class Begun:
    """A rebuild whose lease is taken and whose mappings are pinned."""

    def __init__(
        self, tenant_id: str, lease: Lease, history: IcebergHistory, pins: Mapping[str, Pinned], started: float
    ) -> None:
        self.tenant_id, self.lease, self.history, self.pins, self.started = tenant_id, lease, history, pins, started
        self.stopped = False

    def check(self) -> None:
        """Errors: FencedError when the table is not ours any more."""
        if self.stopped or self.lease.lost.is_set():
            raise FencedError(f"the lease on merging {self.lease.name} is lost", remedy="Run the command again.")


def settled_at(pins: Mapping[str, Pinned], floors: Mapping[str, int], now: UtcTime) -> UtcTime:
    """What arrives later is in no version of the table, and no transformer maps it by a former mapping. Pure.

    A transformer looks for pins every `AGE_MAX_S`; the merger has kept what a newer mapping than the table's made out
    of it ever since that was pinned. A table that has its mapping already may have taken in what came a moment ago.
    """
    unfinished = {
        service: pin.rebuilt_at
        for service, pin in pins.items()
        if pin.rebuilt_at is not None and pin.rebuilt > floors.get(service, 0)
    }
    noticed = [shifted(at, seconds=AGE_MAX_S) for at in unfinished.values()]
    return max([*noticed, *([now] if len(unfinished) < len(pins) else [])])


def has_fed(history: IcebergHistory, service: str) -> bool:
    """Was anything of a service merged into the table?"""
    return any(bucket.rpartition("/")[0] == service for bucket in history.watermark.cuts)


class Rebuilder:
    """Rebuilds one table, of any tenants. `service`: only the mapping of this one is pinned anew."""

    def __init__(
        self,
        runtime: Runtime,
        warehouse: Warehouse,
        files: MappingFiles,
        table: str,
        service: str | None,
        screen: Screen,
    ) -> None:
        self._runtime, self._warehouse, self._files, self._screen = runtime, warehouse, files, screen
        self._table, self._service = table, service
        self._pinned = PinnedMappings(runtime.objects, files, runtime.emit)
        self._archive = RawArchive(runtime)
        self._begun: list[Begun] = []

    # -- what is to be done
    async def plans(self, tenant_id: str | None = None) -> list[Plan]:
        """One for each tenant (or for the one named) that has anything of the table."""
        connected: dict[str, set[str]] = {}
        for row in (await everything(self._runtime)).services:
            connected.setdefault(row.tenant_id, set()).add(row.service)
        tenants = {*connected, *await self._runtime.threads.run(self._warehouse.tenants)}
        chosen = sorted(one for one in tenants if tenant_id in (None, one))
        found = [await self._plan(one, connected.get(one, set())) for one in chosen]
        return [plan for plan in found if any(self._concerns(feed.service) for feed in plan.feeds)]

    def _concerns(self, service: str) -> bool:
        return self._service in (None, service)

    async def _plan(self, tenant_id: str, connected: Iterable[str]) -> Plan:
        pins, now = await self._pinned.of_table(tenant_id, self._table), self._runtime.clock.now()
        floors = await self._runtime.threads.run(self._warehouse.floors, tenant_id, self._table)
        feeds = []
        for service in sorted({*pins, *connected}):
            held = wanted = pins.get(service)
            if self._concerns(service):
                wanted = self._pinned.renewal(held, tenant_id, service, self._table, now)
            if wanted is not None:
                files = shipped(self._files, tenant_id, service).get(self._table)
                waits = difference(held, files) if held else ""
                if held is not None and held.rebuilt > floors.get(service, 0):
                    waits = waits or "a rebuild that was begun"
                feeds.append(Feed(service, held, wanted, waits))
        return Plan(tenant_id, tuple(feeds))

    async def count(self, tenant_id: str, feed: Feed) -> int:
        """How many raw events there are of a service's endpoints."""
        counts = [await self._archive.count(files) for files in await self._files_of(tenant_id, feed.wanted)]
        return sum(counts)

    async def _files_of(self, tenant_id: str, pinned: Pinned) -> list[list[ObjectInfo]]:
        """By endpoint."""
        return [await self._archive.files(tenant_id, pinned.service, endpoint) for endpoint in pinned.endpoints]

    # -- doing it
    async def rebuild(self, plans: Sequence[Plan]) -> list[Rebuilt]:
        """The table of each tenant; one that fails concerns no other.

        Errors: FatalError when raw/ cannot be seen to be complete; RetryableError.
        """
        done: list[Rebuilt] = []
        for start in range(0, len(plans), TENANTS_AT_ONCE):
            async with AsyncExitStack() as stack:
                stack.callback(self._begun.clear)
                for plan in plans[start : start + TENANTS_AT_ONCE]:
                    try:
                        self._begun.append(await self._begin(plan, stack))
                    except AvesaError as err:
                        done.append(self._failed(plan.tenant_id, err))
                if self._begun:
                    await self._settle()
                done += [await self._finish(one) for one in list(self._begun)]
        return done

    def _failed(self, tenant_id: str, err: AvesaError) -> Rebuilt:
        return Rebuilt(tenant_id, self._table, code=err.code, what=str(err))

    async def _begin(self, plan: Plan, stack: AsyncExitStack) -> Begun:
        table, started = plan.table, self._runtime.clock.monotonic()
        lease = await self._lease(plan.tenant_id)
        stack.push_async_callback(lease.release)
        history = await self._runtime.threads.run(self._warehouse.rebuilding, plan.tenant_id, table)
        self._screen.standing = (
            "The rebuild is begun and not finished: run the command again. Until then nothing new may enter the table."
        )
        for feed in plan.feeds:
            if self._concerns(feed.service):
                await self._pinned.renew(plan.tenant_id, feed.service, self._table, self._runtime.clock.now())
        pins = await self._pinned.of_table(plan.tenant_id, self._table)
        return Begun(plan.tenant_id, lease, history, pins, started)

    async def _lease(self, tenant_id: str) -> Lease:
        """The lease on merging the table, once a merge that is under way is done."""
        leases, clock, name = self._runtime.leases, self._runtime.clock, f"{tenant_id}/{self._table}"
        until = clock.monotonic() + LEASE_WAIT_MAX_S
        if (lease := await leases.acquire(SCOPE, name)) is not None:
            return lease
        self._screen.note(f"another worker merges or rebuilds {name}: waiting for at most {lasting(LEASE_WAIT_MAX_S)}")
        while (lease := await leases.wait_for(SCOPE, name, DRAIN_LEASE_TIMES * leases.lease_s)) is None:
            if clock.monotonic() >= until:
                raise FatalError(
                    f"another worker has merged {name} for {lasting(LEASE_WAIT_MAX_S)} without a pause",
                    code="already_running",
                    remedy="Run the command again, or stop the compactors meanwhile.",
                )
            for one in self._begun:
                one.lease.alive()
            await clock.sleep(LEASE_POLL_S)
        return lease

    def _turn(self, one: Begun) -> None:
        """Work on `one` moves on, from whatever thread. Errors: FencedError."""
        for held in self._begun:
            held.lease.alive()
        one.check()

    # -- raw/ is complete
    async def _settle(self) -> None:
        """Until raw/ holds everything that is in the tables or may still be made with a former mapping.

        Where nobody transforms, whoever begins to reads the new pins: what has arrived by now is all there is. Where
        somebody does, it is what arrives until `settled_at`. Running compactors bring it to raw/, and their lease rows
        prove it; where none runs, we do.

        Errors: FatalError when that takes longer than `RAW_WAIT_MAX_S`.
        """
        clock = self._runtime.clock
        with self._screen.working("seeing that raw/ is complete") as tell:
            resting, now = await self._resting(), clock.now()
            times = [now if resting else settled_at(one.pins, one.history.floors, now) for one in self._begun]
            settled = shifted(max(times), seconds=MARGIN_S)
            until = shifted(max(now, settled), seconds=RAW_WAIT_MAX_S)
            if not resting and now < settled:
                wait_s = seconds_between(now, settled)
                self._screen.note(
                    f"transformers are running: in {wait_s:.0f} s all of them map with what is pinned now"
                )
            while True:
                for one in self._begun:
                    self._turn(one)
                now = clock.now()
                if (resting or now >= settled) and await self._archived_by_us():
                    return
                if now >= settled and await self._archive.holds(settled):
                    return
                if now >= until:
                    raise FatalError(
                        f"what arrived until {settled} is not cut into raw/ after {lasting(RAW_WAIT_MAX_S)}",
                        code="timeout",
                        remedy="See `avesa status`: a compactor may be behind, or dead. Then run the command again: it "
                        "goes on from here.",
                    )
                tell(f"{max(0.0, seconds_between(now, settled)):.0f} s, and then the next cut of every shard")
                await clock.sleep(POLL_S)

    async def _resting(self) -> bool:
        """Does no group transform the table?"""
        bound = [one for one in await remembered(self._runtime) if one.routes_table(self._table)]
        rest = [await Transformer(self._runtime, self._files, binding=one).resting() for one in bound]
        return all(rest)

    async def _archived_by_us(self) -> bool:
        """Cut the raw stream to its end, unless running compactors do that."""
        keeping = asyncio.ensure_future(self._keep())
        try:
            await Compactor(self._runtime, self._files.tables, self._warehouse.history).archive()
        except FatalError as err:
            if err.code != "already_running":
                raise
            return False
        finally:
            await cancelled([keeping])
        return True

    async def _keep(self) -> None:
        """Keep the leases while something goes on that has bounds of its own."""
        while True:
            for one in self._begun:
                one.lease.alive()
            await self._runtime.clock.sleep(POLL_S)

    # -- from raw/ to the table
    async def _finish(self, one: Begun) -> Rebuilt:
        try:
            with tempfile.TemporaryDirectory(prefix="avesa-rebuild-", ignore_cleanup_errors=True) as folder:
                try:
                    done = await self._rebuild(one, Path(folder))
                finally:
                    one.stopped = True  # what a thread still does for it ends at its next turn
        except AvesaError as err:
            return self._failed(one.tenant_id, err)
        finally:
            await one.lease.release()
        self._runtime.emit(
            TableRebuilt(
                tenant_id=one.tenant_id,
                table=self._table,
                events=done.events,
                rows=done.versions,
                rejected=done.rejected,
            )
        )
        return done

    async def _rebuild(self, one: Begun, folder: Path) -> Rebuilt:
        threads, name = self._runtime.threads, f"{self._table} of {one.tenant_id}"
        table = combined({service: pin.table for service, pin in one.pins.items()})
        folded = Folded(folder / "rows", one.tenant_id, table)
        before = await threads.run(versions_count, one.history)
        events = rejected = 0
        missing: list[str] = []
        with self._screen.working(f"rebuilding {name}") as tell:
            for number, pin in enumerate(one.pins.values()):
                files, reading = await self._files_of(one.tenant_id, pin), Reading(self._runtime, pin)
                size = sum(info.size for some in files for info in some)
                gathered = Gathered(folder / str(number), pin.table, buckets_for(size))
                async for batch in self._archive.events([info for some in files for info in some]):
                    await reading.into(gathered, batch)
                    tell(f"{events + reading.events} raw events read")
                    self._turn(one)
                await reading.finish()
                reading.say()
                batches = gathered.batches()
                while (rows := await threads.run(next, batches, None)) is not None:
                    await threads.run(folded.add, rows, pin.table)
                    tell(f"{folded.versions_count} versions")
                    self._turn(one)
                events, rejected = events + reading.events, rejected + reading.rejected
                if pin.endpoints and not reading.events and has_fed(one.history, pin.service):
                    missing.append(pin.service)
            folded.close()
            if before and (missing or not events):
                whose = f" by {', '.join(missing)}" if missing else ""
                raise FatalError(
                    f"raw/ holds nothing of {name}{whose}, and the table has {counted(before, 'version')}",
                    code="not_found",
                    remedy="The old table stands. Was raw/ removed, or the folder of --mappings forgotten?",
                )
            tell(f"swapping in {counted(folded.versions_count, 'version')}")
            floors = {service: pin.rebuilt for service, pin in one.pins.items() if pin.rebuilt}
            await threads.run(swap, one.history, folded, floors, lambda: self._turn(one))
        numbers = {service: pin.mapping_version for service, pin in one.pins.items()}
        seconds = round(self._runtime.clock.monotonic() - one.started, 1)
        return Rebuilt(one.tenant_id, self._table, numbers, events, rejected, before, folded.versions_count, seconds)


class Reading:
    """The raw events of one service on their way through its mapping; `finish` when all are there."""

    def __init__(self, runtime: Runtime, pinned: Pinned) -> None:
        self._runtime, self._pinned, self._rederiver = runtime, pinned, Rederiver(pinned)
        self._letters = Counter[tuple[str, str, str]]()  # by stage, group, code
        self._held: list[DeadLetter] = []  # to be written
        self.events = 0

    @property
    def rejected(self) -> int:
        return self._letters.total()

    async def into(self, gathered: Gathered, events: Sequence[ChangeEvent]) -> None:
        """Map events. Errors: those of `finish`."""
        threads = self._runtime.threads
        found = await threads.run(self._rederiver.rederive, events, self._runtime.clock.now())
        letters = [*found.letters, *await threads.run(gathered.add, found.events)]
        self.events += len(events)
        self._letters.update((letter.stage, letter.group, letter.code) for letter in letters)
        self._held += letters
        if len(self._held) > LETTERS_MAX:
            await self.finish()

    async def finish(self) -> None:
        """Write the letters down. Errors: FatalError when the mapping has no use for most of what was read; then none
        is written: the records are as good as they were."""
        if 2 * self.rejected > self.events:
            raise FatalError(
                f"{self.rejected} of {counted(self.events, 'raw event')} cannot be used with this mapping, such as: "
                f"{self._held[-1].reason}",
                code="bad_mapping",
                remedy="The old table stands. Mend the mapping, and run the command again.",
            )
        letters, self._held = self._held, []
        await self._write(letters)

    async def _write(self, letters: Sequence[DeadLetter]) -> None:
        write = self._runtime.dead_letters.write
        await asyncio.gather(*(write(letters[turn::LETTERS_AT_ONCE]) for turn in range(LETTERS_AT_ONCE)))

    def say(self) -> None:
        for (stage, group, code), count in sorted(self._letters.items()):
            self._runtime.emit(
                RecordsRejected(stage=stage, tenant_id=self._pinned.tenant_id, group=group, code=code, count=count)
            )
