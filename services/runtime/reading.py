"""Reading one shard, for as long as it takes: polled within what a shard allows, or pushed (enhanced fan-out).

Nothing that goes wrong here skips a record or ends the reading: what was delivered is known by its sequence, and
reading goes on after it, with a new iterator where the old one expired.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

import msgspec

from services.contracts.errors import ConflictError, RetryableError
from services.contracts.log import Retried
from services.contracts.ports import Page, Record
from services.runtime.fan_out import ticking
from services.runtime.leases import Lease
from services.runtime.loop import pause
from services.runtime.runtime import Runtime

READ_LIMIT: Final = 2_000  # records of one read; an envelope may hold 900,000 bytes, a GetRecords answer at most 10 MiB
# A shard allows 5 reads a second, whoever reads (AWS API reference, GetRecords): two groups behind stay below it.
READ_EVERY_S: Final = 0.45
IDLE_FIRST_S, IDLE_MAX_S = 0.45, 1.0  # between reads of a shard that has nothing new
ATTEMPTS_MAX: Final = 10  # in a row, with growing pauses: about a minute
WAIT_FIRST_S, WAIT_MAX_S = 0.25, 8.0


class Batch(msgspec.Struct, frozen=True):
    """What one read returned. `position` is the last sequence delivered so far, None before the first record.

    `behind_ms`: how far the newest record of the shard is ahead; 0: nothing newer was in it. `ended`: a closed shard
    was read to its end.
    """

    records: tuple[Record, ...]
    position: str | None
    behind_ms: int
    ended: bool

    @property
    def caught_up(self) -> bool:
        return self.behind_ms == 0


async def read_shard(
    runtime: Runtime,
    stream: str,
    shard_id: str,
    after: str | None,
    lease: Lease | None = None,
    consumer: str | None = None,
) -> AsyncIterator[Batch]:
    """Every record after `after` until the shard ends or the lease is to be left; an empty batch where there was
    nothing. `consumer`: the name under which records are pushed to us; without it they are polled.

    Errors: RetryableError after ATTEMPTS_MAX failures in a row; a new call with the last position goes on.
    """
    reader = _Reader(runtime, stream, shard_id, after, lease)
    async for page in reader.pushed(consumer) if consumer else reader.polled():
        if page.records:
            reader.position = page.records[-1].sequence
        yield Batch(page.records, reader.position, page.behind_ms, ended=page.next_iterator is None)


class _Reader:
    """`position` is what was delivered: whoever consumes the pages moves it on."""

    def __init__(self, runtime: Runtime, stream: str, shard_id: str, position: str | None, lease: Lease | None) -> None:
        self._runtime, self._stream, self._shard_id, self._lease = runtime, stream, shard_id, lease
        self.position = position
        self._failures = 0

    async def polled(self) -> AsyncIterator[Page]:
        streams, clock = self._runtime.streams, self._runtime.clock
        iterator: str | None = None
        idle_s = IDLE_FIRST_S
        while True:
            read_at = clock.monotonic()
            try:
                self._turn()
                if iterator is None:
                    iterator = await streams.iterator(self._stream, self._shard_id, self.position)
                page = await streams.read(self._stream, iterator, READ_LIMIT)
            except (ConflictError, RetryableError) as err:
                if isinstance(err, ConflictError):  # expired while we were busy: start again after what we delivered
                    iterator = None
                await self._failed(err)
                if self._is_leaving:
                    return
                continue
            self._failures = 0
            yield page
            iterator = page.next_iterator
            if iterator is None:
                return
            idle_s = IDLE_FIRST_S if page.records else min(IDLE_MAX_S, idle_s * 1.5)
            every_s = READ_EVERY_S if page.behind_ms else idle_s
            await self._rest(read_at + every_s - clock.monotonic())
            if self._is_leaving:
                return

    async def pushed(self, consumer: str) -> AsyncIterator[Page]:
        """One subscription after another: each ends after five minutes. An empty page where nothing came for a while,
        which is not said to be all."""
        streams, clock = self._runtime.streams, self._runtime.clock
        behind_ms = 1
        while True:
            pages = ticking(streams.subscribe(self._stream, consumer, self._shard_id, self.position), clock)
            try:
                async with aclosing(pages):
                    async for page in pages:
                        self._turn()
                        if page is not None:
                            self._failures, behind_ms = 0, max(1, page.behind_ms)
                        yield Page((), "", behind_ms) if page is None else page
                        if self._is_leaving or (page is not None and page.next_iterator is None):
                            return
            except (ConflictError, RetryableError) as err:
                await self._failed(err)
                if self._is_leaving:
                    return

    def _turn(self) -> None:
        if self._lease is not None:
            self._lease.alive()

    @property
    def _is_leaving(self) -> bool:
        return self._lease is not None and self._lease.leaving.is_set()

    async def _failed(self, err: ConflictError | RetryableError) -> None:
        """Wait, longer each time and never in step with others. Errors: `err`, when it has failed too often."""
        self._failures += 1
        if self._failures >= ATTEMPTS_MAX:
            raise RetryableError(f"{self._shard_id} cannot be read ({err.code})", code=err.code) from err
        wait_s = min(WAIT_MAX_S, WAIT_FIRST_S * 2**self._failures) * (0.5 + self._runtime.chance.fraction())
        self._runtime.emit(Retried(what=f"reading {self._shard_id}", code=err.code, wait_s=wait_s))
        await self._rest(wait_s)

    async def _rest(self, seconds: float) -> None:
        if seconds <= 0:
            return
        if self._lease is None:
            await self._runtime.clock.sleep(seconds)
        else:
            await pause(self._runtime.clock, self._lease.leaving, seconds)


def read_again(lease: Lease, committed: str | None) -> int:
    """The sequence up to which the former owner had read without committing, 0 if it let go cleanly."""
    progress = lease.row.get("progress") if lease.taken_over else None
    reached = int(progress["position"]) if isinstance(progress, dict) and progress.get("position") else 0
    return reached if reached > int(committed or 0) else 0
