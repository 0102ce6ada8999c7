"""Leases: who may work on what, after the KCL 3 protocol. No leader.

One row per piece of work. A live owner raises `counter`; an observer who has seen the same counter for a whole lease
time *on its own monotonic clock* takes over by raising `epoch`, which is the fence: every commit is conditional on
(`owner`, `epoch`), so of two who believe they own the work only one has effects. What is committed (a position and the
state that belongs to it) lies in the same row and is written in the same conditional write.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping

import msgspec

from services.contracts.errors import ConflictError, FencedError, RetryableError
from services.contracts.log import Event, LeaseGained, LeaseLost
from services.contracts.ports import Chance, Clock, Row, Rows, Value

RENEWALS_PER_LEASE = 4
SAFETY = 0.8  # we call a lease lost when it was not renewed for this part of its time: before others do
STALL_MAX_S = 300.0  # an owner whose loop has not moved for so long stops renewing, and others take over


class _Sighting(msgspec.Struct):
    epoch: int
    counter: int
    since: float


class Lease:
    """Work we own until `lost` says otherwise.

    `row` is the row as it was just before we took it, and what we committed since; `committed` asks for it anew.
    """

    def __init__(self, leases: "Leases", scope: str, name: str, epoch: int, row: Row, *, taken_over: bool) -> None:
        self._leases = leases
        self.scope, self.name, self.epoch, self.row = scope, name, epoch, row
        self.taken_over = taken_over  # from an owner who did not let go: what it read is read again
        self.lost = asyncio.Event()
        self.renewed = self.moved = leases.clock.monotonic()
        self.counter = 0
        self.progress: dict[str, Value] = {}  # telling, not committed: written along with the next renewal

    @property
    def key(self) -> dict[str, str]:
        return {"scope": self.scope, "name": self.name}

    @property
    def mine(self) -> dict[str, Value]:
        """The fence."""
        return {"owner": self._leases.worker, "epoch": self.epoch}

    def alive(self) -> None:
        """The loop has moved; call it at each turn."""
        self.moved = self._leases.clock.monotonic()

    async def committed(self) -> Row:
        """The row as it is: the former owner may have committed until the very moment at which we took over, and an
        answer to a commit of ours may have been lost."""
        return await self._leases.rows.get(self._leases.table, self.key) or self.row

    async def commit(self, values: Mapping[str, Value]) -> None:
        """Write `values` into the row if we still own it. Repeating a commit is harmless.

        Errors: FencedError when we do not; then keep nothing.
        """
        self.alive()
        if self.lost.is_set():
            raise FencedError(f"the lease on {self.name} is lost")
        try:
            await self._leases.rows.write(self._leases.table, self.key, values, expect=self.mine)
        except ConflictError as err:
            self._leases.drop(self)
            raise FencedError(f"{self.name} has another owner now") from err
        self.row.update(values)

    async def release(self) -> None:
        """Let go at once, so that the next owner need not wait. Having lost it already is no error."""
        self._leases.forget(self)
        with contextlib.suppress(ConflictError, RetryableError):
            await self._leases.rows.write(
                self._leases.table, self.key, {"owner": None, "progress": None}, expect=self.mine
            )


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

    async def acquire(self, scope: str, name: str) -> Lease | None:
        """One try: ours if the work is new, let go, or its owner has been silent for a whole lease time."""
        key = {"scope": scope, "name": name}
        row = await self.rows.get(self.table, key) or {}
        epoch, counter, owner = int(row.get("epoch", 0)), int(row.get("counter", 0)), row.get("owner")
        if (scope, name) in self._held:
            return None
        # Ours and yet not held: we took it and the answer was lost. Nobody else can be working on it.
        if owner not in (None, self.worker) and not self._silent((scope, name), epoch, counter):
            return None
        expect: dict[str, Value] = {"owner": owner, "epoch": row.get("epoch")}
        if owner:
            expect["counter"] = row.get("counter")  # it showed life in between: not ours
        try:
            await self.rows.write(
                self.table, key, {"owner": self.worker, "epoch": epoch + 1, "counter": 0, "progress": None}, expect
            )
        except ConflictError:
            return None
        lease = Lease(self, scope, name, epoch + 1, row, taken_over=owner not in (None, self.worker))
        self._held[scope, name] = lease
        self._seen.pop((scope, name), None)
        self._emit(LeaseGained(scope=scope, name=name, epoch=lease.epoch))
        return lease

    def _silent(self, at: tuple[str, str], epoch: int, counter: int) -> bool:
        now = self.clock.monotonic()
        seen = self._seen.get(at)
        if seen is None or (seen.epoch, seen.counter) != (epoch, counter):
            self._seen[at] = _Sighting(epoch, counter, now)
            return False
        return now - seen.since >= self.lease_s

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
        """Show life for everything held, until cancelled. Run it as a task beside the work."""
        while True:
            await self.clock.sleep(self.lease_s / RENEWALS_PER_LEASE)
            await asyncio.gather(*(self._renew(lease) for lease in self.held))

    async def _renew(self, lease: Lease) -> None:
        now = self.clock.monotonic()
        if now - lease.renewed > self.lease_s * SAFETY or now - lease.moved > STALL_MAX_S:
            self.drop(lease)
            return
        values: dict[str, Value] = {"counter": lease.counter + 1}
        if lease.progress:
            values["progress"] = dict(lease.progress)
        try:
            await self.rows.write(self.table, lease.key, values, expect=lease.mine)
        except ConflictError:
            self.drop(lease)
        except RetryableError:
            pass  # the next turn tries again; SAFETY ends it
        else:
            lease.counter, lease.renewed = lease.counter + 1, now

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
