"""Leases: who may work on what, after the KCL 3 protocol. No leader.

One row per piece of work. A live owner raises `counter`; an observer who has seen the same counter for a whole lease
time *on its own monotonic clock* takes over by raising `epoch`, which is the fence: every commit is conditional on
(`owner`, `epoch`), so of two who believe they own the work only one has effects; and on the number of the commit
before it, so that none of an owner takes effect after a later one (`commits.py`). What is committed (a position and the
state that belongs to it) lies in the same row and is written in the same conditional write.

Work is handed over without waiting for silence: who has less asks (`asked_by`), the owner finishes what is in hand,
commits and lets go, and the asker takes it (`sharing.py` decides who asks for what).
"""

import asyncio
import contextlib
import math
from collections.abc import Callable, Iterable, Mapping

import msgspec

from services.contracts.errors import AvesaError, ConflictError, FencedError, NotFoundError, RetryableError
from services.contracts.log import Event, LeaseGained, LeaseLost, LeaseRestored
from services.contracts.ports import Chance, Clock, Row, Rows, Value
from services.contracts.times import moment
from services.runtime.commits import NUMBER, Commits, number_of
from services.runtime.loop import cancelled

RENEWALS_PER_LEASE = 4
SAFETY = 0.8  # we call a lease lost when it was not renewed for this part of its time: before others do
STALL_MAX_S = 300.0  # an owner whose loop has not moved for so long stops renewing, and others take over
RATE_S = 60.0  # the time over which a rate is smoothed
# Of a row, what belongs to a lease and not to the work: never written back when a row is restored.
_OF_A_LEASE = frozenset({"scope", "name", "owner", "epoch", "counter", "progress", "asked_by"})


class _Sighting(msgspec.Struct):
    """`since`: this owner, epoch and counter were seen first; `held_since`: this owner and epoch."""

    owner: str | None
    epoch: int
    counter: int
    since: float
    held_since: float


class Lease:
    """Work we own until `lost` says otherwise.

    `row` is the row as we know it: as it was just before we took it, and what we committed since; `committed` asks for
    it anew. `deaths` counts the owners in a row, up to us, who ended badly and had committed nothing.
    """

    def __init__(self, leases: "Leases", scope: str, name: str, epoch: int, row: Row, *, taken_over: bool) -> None:
        self._leases = leases
        self.scope, self.name, self.epoch, self.row = scope, name, epoch, row
        self.taken_over = taken_over  # from an owner who did not let go: what it read is read again
        self.deaths = int(row.get("deaths") or 0) + taken_over
        self._commits, self._noting = Commits(leases.rows, leases.table, self.key, number_of(row)), asyncio.Lock()
        self.lost = asyncio.Event()
        self.leaving = asyncio.Event()  # finish what is in hand, commit and let go: we stop, or another asks for it
        self.renewed = self.moved = leases.clock.monotonic()
        self.counter = 0
        # Telling, not committed: written along with the next renewal.
        self.progress: dict[str, Value] = _carried(row)
        self.news: Callable[[], Mapping[str, Value]] = dict  # asked at each renewal and at the end: `progress` besides
        self._events, self._rate, self._told_at, self._untold = 0, rate_of(row), self.moved, 0

    @property
    def key(self) -> dict[str, str]:
        return {"scope": self.scope, "name": self.name}

    @property
    def mine(self) -> dict[str, Value]:
        """The fence."""
        return {"owner": self._leases.worker, "epoch": self.epoch}

    @property
    def told(self) -> dict[str, Value]:
        """What is told of the work, as of now."""
        return {**self.progress, **self.news()}

    @property
    def behind_ms(self) -> int:
        """How far its reading is behind: as told last, and the time since then, in which nothing was read."""
        told = self.progress.get("behind_ms")
        untold_s = self._leases.clock.monotonic() - self._told_at
        return (told if isinstance(told, int) else 0) + int(1_000 * untold_s)

    def alive(self) -> None:
        """The loop has moved; call it at each turn."""
        self.moved = self._leases.clock.monotonic()

    def tell(self, count: int, **news: Value) -> None:
        """What an observer may want to know: `count` more events read, and whatever else; no write of its own."""
        now = self._leases.clock.monotonic()
        self._events += count
        self._untold += count
        passed_s = now - self._told_at
        if passed_s > 0:
            self._rate += (1 - math.exp(-passed_s / RATE_S)) * (self._untold / passed_s - self._rate)
            self._told_at, self._untold = now, 0
        self.progress = {**self.progress, **news, "events": self._events, "rate": f"{self._rate:.1f}"}

    async def committed(self) -> Row:
        """The row as it is: the former owner may have committed until the very moment at which we took over, and an
        answer to a commit of ours may have been lost."""
        async with self._noting:
            with contextlib.suppress(ConflictError):  # then the row tells
                await self._commits.settle()
            found = await self._leases.rows.get(self._leases.table, self.key)
            if found is not None:
                self.row = {**found, "progress": self.row.get("progress")}  # what the former owner told last
                self._commits.number = number_of(found)
        return self.row

    async def see(self) -> None:
        """Look whether it is still ours; a former owner may miss what its successor cleared away."""
        with contextlib.suppress(RetryableError, NotFoundError):
            row = await self._leases.rows.get(self._leases.table, self.key) or {}
            if (row.get("owner"), row.get("epoch")) != (self._leases.worker, self.epoch):
                self._leases.drop(self)

    async def commit(self, values: Mapping[str, Value]) -> None:
        """Write `values` into the row if we still own it and it is as we left it. One whose fate is unknown is
        repeated before the next.

        Errors: FencedError when we do not; then keep nothing.
        """
        await self.note({**values, "deaths": None} if self.deaths else values)
        self.deaths = 0
        self.progress = {**self.progress, "committed_at": self._leases.clock.now()}

    async def note(self, values: Mapping[str, Value]) -> None:
        """As `commit`, for what is no step forward: who dies now has still committed nothing."""
        self.alive()
        if self.lost.is_set():
            raise FencedError(f"the lease on {self.name} is lost")
        async with self._noting:
            await self._write(values)

    async def _write(self, values: Mapping[str, Value]) -> None:
        commits, restored = self._commits, False
        try:
            await commits.commit(values, self.mine)
        except ConflictError as err:
            restored = await self._leases.restore(self, {**values, NUMBER: commits.number + 1})
            if not restored:
                self._leases.drop(self)
                raise FencedError(f"{self.name} has another owner now, or is not as we left it") from err
        commits.number += restored
        self.row.update({**values, NUMBER: commits.number})  # what it is restored as goes on from here

    async def release(self, *, badly: bool = False) -> None:
        """Let go at once, so that the next owner need not wait; `badly`: the work failed as nobody foresaw.

        Having lost it already is no error.
        """
        self._leases.forget(self)
        values: dict[str, Value] = {"owner": None}
        if self.news():
            values["progress"] = self.told
        if badly:
            values["deaths"] = self.deaths + 1
        with contextlib.suppress(ConflictError, RetryableError):
            await self._leases.rows.write(self._leases.table, self.key, values, expect=self.mine)


class Leases:
    """The leases of one worker. Its identity is random per process."""

    def __init__(
        self, rows: Rows, table: str, clock: Clock, chance: Chance, emit: Callable[[Event], None], lease_s: float
    ) -> None:
        self.rows, self.table, self.clock, self._emit, self.lease_s = rows, table, clock, emit, lease_s
        self.worker = chance.token()
        self._seen: dict[tuple[str, str], _Sighting] = {}
        self._held: dict[tuple[str, str], Lease] = {}

    @property
    def held(self) -> tuple[Lease, ...]:
        return tuple(self._held.values())

    def holds(self, scope: str, name: str) -> Lease | None:
        return self._held.get((scope, name))

    async def survey(self, scope: str) -> dict[str, Row]:
        """Every row of a scope, by name, and a look at the life of their owners."""
        rows = {row["name"]: row async for row in self.rows.query(self.table, {"scope": scope})}
        for name, row in rows.items():
            self.quiet_s(scope, name, row)
        return rows

    def quiet_s(self, scope: str, name: str, row: Row) -> float:
        """For how long, as far as we have looked, this row's owner has shown no life, or it has had none."""
        now, at = self.clock.monotonic(), (scope, name)
        seen = self._seen.get(at)
        state = (row.get("owner"), int(row.get("epoch", 0)), int(row.get("counter", 0)))
        if seen is None or (seen.owner, seen.epoch, seen.counter) != state:
            same = seen is not None and (seen.owner, seen.epoch) == state[:2]
            self._seen[at] = seen = _Sighting(*state, now, seen.held_since if seen is not None and same else now)
        return now - seen.since

    def tenure_s(self, scope: str, name: str) -> float:
        """For how long we have seen a surveyed row in the same hands."""
        seen = self._seen.get((scope, name))
        return 0.0 if seen is None else self.clock.monotonic() - seen.held_since

    async def acquire(self, scope: str, name: str, row: Row | None = None) -> Lease | None:
        """One try: ours if the work is new, let go, or its owner has been silent for a whole lease time.

        `row` is the row as just surveyed; without it, it is read. What was let go for another is left to it for a
        lease time.
        """
        if (scope, name) in self._held:
            return None
        key = {"scope": scope, "name": name}
        if row is None:
            row = await self.rows.get(self.table, key) or {}
        owner, asked_by = row.get("owner"), row.get("asked_by")
        # Ours and yet not held: we took it and the answer was lost. Nobody else can be working on it.
        another = owner if owner is not None else asked_by
        if another not in (None, self.worker) and self.quiet_s(scope, name, row) < self.lease_s:
            return None
        epoch = int(row.get("epoch") or moment(self.clock.now()).timestamp())  # a row that was lost begins above it
        expect: dict[str, Value] = {"owner": owner, "epoch": row.get("epoch"), NUMBER: row.get(NUMBER)}
        if owner:
            expect["counter"] = row.get("counter")  # it showed life in between: not ours
        taken_over = owner not in (None, self.worker)
        taken: dict[str, Value] = {"owner": self.worker, "epoch": epoch + 1, "counter": 0}
        taken["progress"] = _carried(row)
        if taken_over:
            taken["deaths"] = int(row.get("deaths") or 0) + 1
        try:
            await self.rows.write(self.table, key, {**taken, "asked_by": None}, expect)
        except ConflictError:
            return None
        lease = Lease(self, scope, name, epoch + 1, row, taken_over=taken_over)
        self._held[scope, name] = lease
        self._seen.pop((scope, name), None)
        self._emit(LeaseGained(scope=scope, name=name, epoch=lease.epoch))
        return lease

    async def ask(self, scope: str, name: str, row: Row) -> bool:
        """Ask the owner of a surveyed row to hand its work over to us. False when another asked, or it has moved."""
        expect: dict[str, Value] = {"owner": row.get("owner"), "epoch": row.get("epoch"), "asked_by": None}
        try:
            await self.rows.write(self.table, {"scope": scope, "name": name}, {"asked_by": self.worker}, expect)
        except ConflictError:
            return False
        return True

    async def wait_for(self, scope: str, name: str, seconds_max: float) -> Lease | None:
        """Try until it is ours, its owner has shown life, or `seconds_max` have passed."""
        until, first = self.clock.monotonic() + seconds_max, self._seen.get((scope, name))
        while True:
            lease = await self.acquire(scope, name)
            if lease is not None or self.clock.monotonic() >= until:
                return lease
            seen = self._seen.get((scope, name))
            if first is not None and seen is not first:  # another sighting: somebody is at work, and stays so
                return None
            first = seen
            await self.clock.sleep(min(self.lease_s / RENEWALS_PER_LEASE, 1.0))

    async def renew_forever(self) -> None:
        """Show life for everything held, until cancelled. Run it as a task beside the work.

        A renewal without an answer is broken off at the next turn: it holds up neither the others nor the moment at
        which its own lease counts as lost.
        """
        renewing: list[asyncio.Future[None]] = []
        try:
            while True:
                await self.clock.sleep(self.lease_s / RENEWALS_PER_LEASE)
                await cancelled(renewing)
                renewing = [asyncio.ensure_future(self._renew(lease)) for lease in self.held]
        finally:
            await cancelled(renewing)

    async def _renew(self, lease: Lease) -> None:
        now = self.clock.monotonic()
        if not self._is_fresh(lease) or now - lease.moved > STALL_MAX_S:
            self.drop(lease)
            return
        lease.counter += 1  # at every try: one that was applied and not answered is a sign of life of its own
        values: dict[str, Value] = {"counter": lease.counter}
        if told := lease.told:
            values["progress"] = told
        try:
            if not await self._show_life(lease, values):
                self.drop(lease)
                return
        except AvesaError:  # whatever it is, no other lease suffers of it
            return  # the next turn tries again; SAFETY ends it
        lease.renewed = now

    async def _show_life(self, lease: Lease, values: Mapping[str, Value]) -> bool:
        """False when the lease is not ours any more."""
        try:
            await self.rows.write(self.table, lease.key, values, expect=lease.mine)
        except ConflictError:
            was_let_go = self.holds(lease.scope, lease.name) is not lease  # while the write was on its way
            return was_let_go or await self.restore(lease, values)
        return True

    def _is_fresh(self, lease: Lease) -> bool:
        """Surely ours still, by our own clock."""
        return self.clock.monotonic() - lease.renewed <= self.lease_s * SAFETY

    async def restore(self, lease: Lease, values: Mapping[str, Value]) -> bool:
        """A write of a lease's owner was refused. If that is because the row is gone, it is made anew as it stood.

        Only by an owner who surely still is one: of a lease that others may have taken, theirs is the newer truth.
        """
        if not self._is_fresh(lease):
            return False
        kept: dict[str, Value] = {name: value for name, value in lease.row.items() if name not in _OF_A_LEASE}
        try:
            if await self.rows.get(self.table, lease.key) is not None:
                return False
            await self.rows.write(
                self.table, lease.key, {**kept, **values, **lease.mine}, expect={"owner": None, "epoch": None}
            )
        except (ConflictError, RetryableError):
            return False
        self._emit(LeaseRestored(scope=lease.scope, name=lease.name))
        return True

    def drop(self, lease: Lease) -> None:
        """The lease is not ours any more: tell its loop."""
        if not lease.lost.is_set():
            lease.lost.set()
            self._emit(LeaseLost(scope=lease.scope, name=lease.name))
        self.forget(lease)

    def forget(self, lease: Lease) -> None:
        if self._held.get((lease.scope, lease.name)) is lease:
            del self._held[lease.scope, lease.name]

    async def release_all(self) -> None:
        """Let go of everything, for a clean stop."""
        await asyncio.gather(*(lease.release() for lease in self.held))


def all_alive(held: Iterable[Lease]) -> None:
    """Whoever holds them is at work: on something else of the same task."""
    for lease in held:
        lease.alive()


def rate_of(row: Row) -> float:
    """Events a second of the work, as its owner told it."""
    progress = row.get("progress")
    try:
        return max(0.0, float(progress.get("rate") or 0.0)) if isinstance(progress, dict) else 0.0
    except (TypeError, ValueError):
        return 0.0


def _carried(row: Row) -> dict[str, Value]:
    """What is not forgotten from owner to owner: what the work weighs, and what it used of a budget (`used`)."""
    progress = row.get("progress")
    used = progress.get("used") if isinstance(progress, dict) else None
    return {"rate": _rate(row), **({"used": used} if isinstance(used, str) else {})}


def _rate(row: Row) -> str:
    return f"{rate_of(row):.1f}"
