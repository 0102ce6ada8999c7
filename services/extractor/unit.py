"""One (tenant, service) while we hold its lease: one writer of its budget, its marks, its memory and its sweeps."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from services.contracts.errors import (
    AvesaError,
    ConflictError,
    FencedError,
    RetryableError,
    ThrottledError,
    UnauthorizedError,
)
from services.contracts.log import EndpointFailed
from services.contracts.times import moment, seconds_between
from services.extractor.customers import Listed, list_customers
from services.extractor.endpoint import EndpointWork
from services.extractor.family import Family
from services.extractor.ledger import Desk
from services.extractor.partners import CUSTOMERS_S, connect_customers
from services.extractor.plan import with_parents
from services.extractor.probe import prove_caller
from services.extractor.schedule import Pace, early, failed_rest_s, first_rest_s, paced, stretched
from services.extractor.summary import NOT_AVAILABLE, EndpointSummary
from services.extractor.sweep import can_sweep, sweep, sweep_interval_s
from services.extractor.tenants import TenantService, accept, refuse
from services.extractor.turns import Turns
from services.runtime.loop import all_of, cancelled, pause

LEASE_SCOPE: Final = "extract"  # the name is `TenantService.name`
STOP_S: Final = 4.0  # to reach the end of a page; then we stop in the middle of it, and it is read again
REST_MAX_S: Final = 30.0  # a long rest is taken in pieces, so that the lease sees us move
REST_MIN_S: Final = 0.1  # shorter rests come of rounding, and may be too short for any time to pass
LIVE_AT_ONCE_MIN: Final = 2
BACKGROUND_AT_ONCE: Final = 8  # first walks, full reads and sweeps: of their own, so that no live read waits for one
LAST: Final = float("inf")  # the rank of a sweep
PARENT_WAIT_S: Final = 5.0
SWEEP_RETRY_S: Final = 300.0

Watch = Callable[[EndpointSummary], None]


class Unit:
    """The endpoints of one (tenant, service), their memories loaded, their rows claimed.

    `customers`: how a partner's credential lists its customers, where it can.
    """

    def __init__(
        self,
        desk: Desk,
        row: TenantService,
        works: Mapping[str, EndpointWork],
        customers: Listed | None = None,
    ) -> None:
        self._desk, self._row, self._works, self._customers = desk, row, works, customers
        self._families = list({work.family.name: work.family for work in works.values()}.values())
        self._refused = row.refused
        self._pace = Pace()
        self._live = Turns(max(LIVE_AT_ONCE_MIN, desk.parallel))
        self._background = Turns(BACKGROUND_AT_ONCE)

    # -- for ever -----------------------------------------------------------------------------------------------------
    async def run(self) -> None:
        """Until the desk's `stopping` is set.

        Errors: UnauthorizedError, FencedError: nothing of this unit can go on.
        """
        if self._refused:  # one call, not one per endpoint, to see whether they work again
            known = {name: work.spec for name, work in self._works.items()}
            await prove_caller(self._desk.runtime, self._desk.caller, known)
        loops = [self._let_in(), *(self._keep_reading(work) for work in self._works.values())]
        loops += [self._keep_sweeping(family) for family in self._families if sweep_interval_s(family) is not None]
        if self._row.connect_all and self._customers is not None:
            loops.append(self._keep_customers(self._customers))
        await self._together(loops)

    async def _let_in(self) -> None:
        """Have a token before the budget allows the first call: what a former owner used of it may hold that back for
        longer than a vendor takes a refresh token again whose answer was lost."""
        with contextlib.suppress(RetryableError):
            await self._desk.caller.site()

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
        clock, chance = self._desk.runtime.clock, self._desk.runtime.chance
        interval_s, failures = work.spec.endpoint.interval_s, 0
        await self._rest(clock.monotonic() + first_rest_s(interval_s, self._age_s(work), chance.fraction()))
        while not self._desk.stopping.is_set():
            began, rest_s = clock.monotonic(), None
            try:
                if work.parent is None or work.parent.walked:
                    async with self._turns_of(work).turn(interval_s):
                        await work.run_pass()
                    await self._accepted()
                    failures = 0
                else:
                    rest_s = PARENT_WAIT_S
            except ThrottledError:
                pass  # slow, not wrong
            except AvesaError as err:
                failures += 1
                await _failed(work, err)
                began, rest_s = clock.monotonic(), failed_rest_s(failures, err.code, chance.fraction())
            self._look_around()
            if rest_s is None:
                rest_s = early(stretched(interval_s, self._pace.factor), chance.fraction())
            await self._rest(began + rest_s)

    def _turns_of(self, work: EndpointWork) -> Turns:
        return self._live if work.walked and work.spec.incremental is not None else self._background

    def _age_s(self, work: EndpointWork) -> float | None:
        """Seconds since an endpoint was read; None where there is a read to be begun or gone on with."""
        marks = work.ledger.marks
        if marks.fresh is None or marks.walk is not None or work.ledger.reread is not None:
            return None
        return seconds_between(marks.fresh, self._desk.runtime.clock.now())

    def _look_around(self) -> None:
        """How fast to go on; and what people are told with the lease's next sign of life."""
        desk = self._desk
        self._pace = paced(self._pace, desk.caller.fullness, desk.runtime.clock.monotonic())
        fresh = {name: work.ledger.marks.fresh for name, work in self._works.items() if work.ledger.available}
        reads = {name: int(moment(at).timestamp()) for name, at in fresh.items() if at is not None}
        desk.lease.tell(0, reads=reads, pace=f"{self._pace.factor:.2f}")

    async def _keep_customers(self, customers: Listed) -> None:
        """Each customer of a partner is a service of its own: look once an hour who there is."""
        runtime, missed = self._desk.runtime, frozenset[str]()
        while not self._desk.stopping.is_set():
            try:
                listed = await list_customers(runtime, self._desk.caller, customers)
                missed = await connect_customers(runtime, self._row, listed, missed)
                await self._accepted()
            except AvesaError as err:
                if isinstance(err, UnauthorizedError | ConflictError):
                    raise
                runtime.emit(
                    EndpointFailed(
                        tenant_id=self._row.tenant_id,
                        service=self._row.service,
                        endpoint="customers",
                        code=err.code,
                        what=str(err),
                    )
                )
            await self._rest(runtime.clock.monotonic() + early(CUSTOMERS_S, runtime.chance.fraction()))

    async def _keep_sweeping(self, family: Family) -> None:
        runtime, interval_s = self._desk.runtime, sweep_interval_s(family) or REST_MAX_S
        early_s = interval_s - early(interval_s, runtime.chance.fraction())
        await self._rest(runtime.clock.monotonic() + min(REST_MAX_S, interval_s) * runtime.chance.fraction())
        while not self._desk.stopping.is_set():
            rest_s = min(REST_MAX_S, self._until_sweep_s(family, early_s))
            if rest_s <= 0.0:  # told by two clocks that may be apart: never at once again
                again_s = min(REST_MAX_S, interval_s)
                rest_s = again_s if await self._try_sweep(family) else SWEEP_RETRY_S
            await self._rest(runtime.clock.monotonic() + max(rest_s, REST_MIN_S))

    async def _try_sweep(self, family: Family) -> bool:
        try:
            async with self._background.turn(LAST):
                return await sweep(family)
        except ThrottledError:
            return False

    def _until_sweep_s(self, family: Family, early_s: float) -> float:
        if not can_sweep(family):
            return REST_MAX_S
        swept = [member.ledger.marks.swept_at for member in family.members]
        if any(at is None for at in swept):
            return 0.0
        last = min(at for at in swept if at is not None)
        return (sweep_interval_s(family) or 0.0) - early_s - seconds_between(last, self._desk.runtime.clock.now())

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
        except AvesaError as err:
            await _failed(work, err)
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
        except AvesaError as err:
            await _failed(family.members[0], err)

    async def save(self) -> None:
        """Everything that is not saved yet. Errors: FencedError, RetryableError."""
        for work in self._works.values():
            await work.ledger.save_rest()


async def _failed(work: EndpointWork, err: AvesaError) -> None:
    """Note that one endpoint failed. Errors: `err` itself where it concerns the whole unit."""
    if isinstance(err, UnauthorizedError | ConflictError):
        raise err
    if err.code != NOT_AVAILABLE:
        await work.failed(err)
        return
    work.summary.code, work.summary.what = err.code, str(err)
    await work.ledger.tell(err)  # shown, and no alarm: the customer does not have it
