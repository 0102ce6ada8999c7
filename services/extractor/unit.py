"""One (tenant, service) while we hold its lease: one writer of its budget, its marks, its memory and its sweeps."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from services.contracts.errors import (
    AvesaError,
    ConflictError,
    FencedError,
    ThrottledError,
    UnauthorizedError,
)
from services.contracts.times import seconds_between
from services.extractor.endpoint import EndpointWork, Family
from services.extractor.ledger import Desk
from services.extractor.plan import with_parents
from services.extractor.probe import prove_caller
from services.extractor.summary import EndpointSummary
from services.extractor.sweep import can_sweep, sweep, sweep_interval_s
from services.extractor.tenants import TenantService, accept, refuse
from services.runtime.loop import all_of, cancelled, pause

LEASE_SCOPE: Final = "extract"  # the name is `TenantService.name`
STOP_S: Final = 4.0  # to reach the end of a page; then we stop in the middle of it, and it is read again
REST_MAX_S: Final = 30.0  # a long rest is taken in pieces, so that the lease sees us move
FAILED_FIRST_S, FAILED_MAX_S = 15.0, 900.0
PARENT_WAIT_S: Final = 5.0
SWEEP_RETRY_S: Final = 300.0
_UNIT_WIDE = (UnauthorizedError, ConflictError)  # what ends the whole unit, not an endpoint

Watch = Callable[[EndpointSummary], None]


class Unit:
    """The endpoints of one (tenant, service), their memories loaded, their rows claimed."""

    def __init__(self, desk: Desk, row: TenantService, works: Mapping[str, EndpointWork]) -> None:
        self._desk, self._row, self._works = desk, row, works
        self._families = list({work.family.name: work.family for work in works.values()}.values())
        self._refused = row.status == "reconnect needed"

    # -- for ever -----------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until the desk's `stopping` is set.

        Errors: UnauthorizedError, FencedError: nothing of this unit can go on.
        """
        if self._refused:  # one call, not one per endpoint, to see whether they work again
            await prove_caller(self._desk.caller, {name: work.spec for name, work in self._works.items()})
        loops = [self._keep_reading(work) for work in self._works.values()]
        loops += [self._keep_sweeping(family) for family in self._families if sweep_interval_s(family) is not None]
        await self._together(loops)

    async def _together(self, loops: Sequence[Coroutine[None, None, None]]) -> None:
        """All loops, until they end, one fails, the lease is lost, or we are to stop and had time to."""
        desk = self._desk
        tasks = [asyncio.ensure_future(loop) for loop in loops]
        ended = asyncio.ensure_future(asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION))
        lost, stop = asyncio.ensure_future(desk.lease.lost.wait()), asyncio.ensure_future(desk.stopping.wait())
        watched: list[asyncio.Future[Any]] = [ended, lost, stop]
        try:
            await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
            if stop.done():
                watched.append(asyncio.ensure_future(desk.runtime.clock.sleep(STOP_S)))
                await asyncio.wait({ended, lost, watched[-1]}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            results = await cancelled(tasks)
            await cancelled(watched)
        if desk.lease.lost.is_set():
            raise FencedError(f"the lease on {desk.lease.name} is lost")
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    async def _keep_reading(self, work: EndpointWork) -> None:
        """A live poll each interval, a settle pass each lag, the first walk before either."""
        clock, interval_s = self._desk.runtime.clock, self._row.interval_s or work.spec.endpoint.interval_s
        failed_s = FAILED_FIRST_S
        while not self._desk.stopping.is_set():
            next_at = clock.monotonic() + interval_s
            try:
                if work.parent is None or work.parent.walked:
                    await work.run_pass()
                    await self._accepted()
                    failed_s = FAILED_FIRST_S
                else:
                    next_at = clock.monotonic() + PARENT_WAIT_S
            except ThrottledError:
                pass  # slow, not wrong
            except _UNIT_WIDE:
                raise
            except AvesaError as err:
                await work.failed(err)
                next_at, failed_s = clock.monotonic() + failed_s, min(FAILED_MAX_S, 2 * failed_s)
            await self._rest(next_at)

    async def _keep_sweeping(self, family: Family) -> None:
        clock = self._desk.runtime.clock
        while not self._desk.stopping.is_set():
            rest_s = min(REST_MAX_S, self._until_sweep_s(family))
            if rest_s <= 0.0:  # told by two clocks that may be apart: never at once again
                again_s = min(REST_MAX_S, sweep_interval_s(family) or REST_MAX_S)
                rest_s = again_s if await self._try_sweep(family) else SWEEP_RETRY_S
            await self._rest(clock.monotonic() + rest_s)

    async def _try_sweep(self, family: Family) -> bool:
        try:
            return await sweep(family)
        except ThrottledError:
            return False

    def _until_sweep_s(self, family: Family) -> float:
        if not can_sweep(family):
            return REST_MAX_S
        swept = [member.ledger.marks.swept_at for member in family.members]
        if any(at is None for at in swept):
            return 0.0
        last = min(at for at in swept if at is not None)
        return (sweep_interval_s(family) or 0.0) - seconds_between(last, self._desk.runtime.clock.now())

    async def _rest(self, until: float) -> None:
        """Until then, or until we are to stop; the lease hears of us meanwhile."""
        runtime, stopping = self._desk.runtime, self._desk.stopping
        while not stopping.is_set():
            self._desk.lease.alive()
            left_s = until - runtime.clock.monotonic()
            await pause(runtime.clock, stopping, min(max(0.0, left_s), REST_MAX_S))
            if left_s <= REST_MAX_S:
                return

    async def _accepted(self) -> None:
        """The vendor takes the credentials (again)."""
        if self._refused:
            self._refused = False
            await accept(self._desk.runtime, self._row)

    # -- once ---------------------------------------------------------------------------------------------------------
    async def run_once(self, chosen: set[str], *, sweeping: bool, watch: Watch) -> list[EndpointSummary]:
        """A settle pass (or the first walk) on each chosen endpoint and its parents, then their families' sweeps.

        Shape:  endpoints that failed carry their code; the others are complete.
        Errors: FencedError; RetryableError of our own stores at the very end.
        """
        chosen = with_parents({name: work.spec for name, work in self._works.items()}, chosen)
        works = {name: work for name, work in self._works.items() if name in chosen}
        new = {name for name, work in works.items() if not work.walked}
        ended: dict[str, asyncio.Event] = {name: asyncio.Event() for name in works}
        for work in works.values():
            work.watch = watch
        try:
            await all_of([self._read_one(work, ended) for work in works.values()])
            if sweeping:
                families = {work.family.name: work.family for name, work in works.items() if name not in new}
                await all_of([self._sweep_one(family) for family in families.values()])
        except UnauthorizedError as err:
            for work in works.values():
                work.summary.code, work.summary.what = err.code, str(err)
            await refuse(self._desk.runtime, self._row, err)
        await self.save()
        return [work.summary for work in works.values()]

    async def _read_one(self, work: EndpointWork, ended: Mapping[str, asyncio.Event]) -> None:
        try:
            if work.parent is not None:
                await ended[work.parent.spec.name].wait()
            await work.run_pass(settle=True)
            await self._accepted()
        except _UNIT_WIDE:
            raise
        except AvesaError as err:
            await work.failed(err)
        finally:
            ended[work.spec.name].set()

    async def _sweep_one(self, family: Family) -> None:
        if not can_sweep(family) or any(member.summary.code for member in family.members):
            return
        try:
            await sweep(family)
            for member in family.members:
                if member.strangers:
                    await member.run_pass(settle=True)
                if member.reads_again:
                    await member.run_pass(settle=True)
        except _UNIT_WIDE:
            raise
        except AvesaError as err:
            await family.members[0].failed(err)

    async def save(self) -> None:
        """Everything that is not saved yet. Errors: FencedError, RetryableError."""
        for work in self._works.values():
            await work.ledger.save_rest()
