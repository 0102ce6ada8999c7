"""One shard's turn: what is taken from it, what is published, and when that is committed."""

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec

from services.contracts.errors import FencedError, NotFoundError, RetryableError
from services.contracts.log import EventsReadAgain, EventsTransformed, RecordsRejected, Retried
from services.contracts.ports import Row, Shard, Value
from services.contracts.times import UtcTime, seconds_between
from services.runtime.dead_letters import DeadLetter
from services.runtime.leases import Lease
from services.runtime.loop import beating, cancelled, outcome_of
from services.runtime.poison import ALL, Inquest, Isolation, Readings
from services.runtime.publisher import Publisher
from services.runtime.reading import Batch, read_again
from services.runtime.runtime import Runtime
from services.runtime.tickets import Ticket
from services.transformer.batches import STAGE, Envelope, Output, read_header, rehearse, slices, transform
from services.transformer.budget import LETTERS_PER_HOUR_MAX, Budget
from services.transformer.catalogue import Catalogue
from services.transformer.drift import DriftWatch
from services.transformer.mapper import Routes
from services.transformer.parking import Parking
from services.transformer.state import Memory

T = TypeVar("T")

SERVICE = "transformer"
LETTERS_AT_ONCE = 16
COMMIT_ATTEMPTS_MAX, COMMIT_WAIT_S = 5, 0.25
QUIET_COMMIT_S = 3_600.0  # how much older than what we know a quiet shard's row may be about its end


class Limits(msgspec.Struct, frozen=True):
    """How much is done before the next thing is.

    Units:  a commit after `commit_s` or `commit_events`, whichever comes first; `slice_bytes_max` of events go to a
            thread at once; what is transformed is published after `output_bytes_max`, or at the end of a read. A
            partition with more than `letters_per_hour_max` dead letters in an hour is parked.
    """

    commit_s: float = 5.0
    commit_events: int = 50_000
    slice_bytes_max: int = 1_000_000
    output_bytes_max: int = 8_000_000
    letters_per_hour_max: int = LETTERS_PER_HOUR_MAX


class Totals(msgspec.Struct):
    """What was transformed and committed."""

    events: int = 0
    rejected: int = 0


class _Cut(msgspec.Struct):
    """What has been taken since the last commit began: up to `position`, on its way as `tickets`."""

    tickets: list[Ticket]
    totals: Totals
    arrived_at: UtcTime | None = None


class Bench(msgspec.Struct, frozen=True):
    """What the shards of a worker share. `isolation` keeps a search for poison apart from all other work."""

    runtime: Runtime
    catalogue: Catalogue
    publisher: Publisher
    limits: Limits
    isolation: Isolation = msgspec.field(default_factory=Isolation)


class ShardRun:
    """The work on one shard between loading its state and letting it go.

    Output is offered to the publisher and reading goes on; a commit is the state as it was at a position, written
    once everything up to there is acknowledged. `position` is what has been offered.
    """

    def __init__(self, bench: Bench, lease: Lease, shard: Shard, memory: Memory, row: Row, totals: Totals) -> None:
        self.position: str | None = row.get("position")
        runtime = self._runtime = bench.runtime
        self._lease, self._memory, self._limits, self._totals = lease, memory, bench.limits, totals
        self._catalogue, self._publisher, self._isolation = bench.catalogue, bench.publisher, bench.isolation
        self._closed = shard.closed
        self._again = read_again(lease, self.position)
        self._open = _Cut([], Totals())
        self._committing: asyncio.Task[None] | None = None
        self._under_way: list[Ticket] = []  # of the commit
        self._cut_at, self._cut_time = self.position, runtime.clock.monotonic()
        self._read_to_end_at: UtcTime | None = None
        self._said_end_at: UtcTime = row.get("read_to_end_at") or runtime.clock.now()  # as committed
        self._drifts = DriftWatch()
        self._inquest = Inquest(lease, row, runtime.emit)
        self._parking = Parking(runtime, bench.catalogue.binding.group)
        self._budget = Budget(self._limits.letters_per_hour_max)

    async def take(self, batch: Batch) -> bool:
        """Transform and offer what one read returned. False if it was cut short because the lease is to be left.

        Errors: RetryableError, FencedError; nothing of what was done since the last commit counts then.
        """
        if self._lease.lost.is_set():
            raise FencedError(f"the lease on {self._lease.name} is lost")
        if self._committing is not None and self._committing.done():
            await self._committed()
        output, now = Output(), self._runtime.clock.now()
        read = (read_header(self._lease.name, r.sequence, r.data, output, now) for r in batch.records)
        envelopes = [envelope for envelope in read if envelope is not None]
        self._tell(batch, envelopes)
        if batch.records and not await self._take(batch, envelopes, output):
            return False
        if batch.caught_up and not self._closed:  # the end of a closed shard may lie long past
            self._read_to_end_at = now
        return True

    async def _take(self, batch: Batch, envelopes: Sequence[Envelope], output: Output) -> bool:
        now = self._runtime.clock.now()
        found = {at: await self._catalogue.routes(*at) for at in {envelope.source for envelope in envelopes}}
        routes = {at: known for at, known in found.items() if known is not None}
        for partition in await self._parking.refresh():
            self._budget.forgive(partition)
        for envelope in envelopes:
            if envelope.source not in routes:
                await self._parking.refuse(envelope)
        wanted = (one for one in envelopes if one.source not in routes or one.header.endpoint in routes[one.source])
        for piece in slices(wanted, self._limits.slice_bytes_max):
            whole = [await self._with_body(envelope) for envelope in await self._parking.passed(piece)]
            output = await self._transformed(whole, routes, output, now)
            if output.size >= self._limits.output_bytes_max:
                await self._offer(output, piece[-1].sequence)
                output = Output()
                if self.due():
                    await self.commit()
                if self._lease.leaving.is_set():
                    return False
        await self._offer(output, batch.position)
        self._open.arrived_at = max(record.arrived_at for record in batch.records)
        return True

    async def _transformed(
        self, piece: Sequence[Envelope], routes: Mapping[tuple[str, str], Routes], output: Output, now: UtcTime
    ) -> Output:
        """The output with `piece`, or what is left of it where that had to be searched for poison and is committed."""
        if not self._inquest.suspicious:
            async with self._isolation.beside_others():
                made = await outcome_of(self._transform(piece, routes, output, now))
            if not isinstance(made, Exception):
                await self._park(output)
                return output
            self._inquest.suspect()
        known = {envelope.sequence: envelope for envelope in piece}

        async def probe(sequences: Sequence[str], readings: Readings) -> None:
            read = [msgspec.structs.replace(known[one], reading=readings.get(one, ALL)) for one in sequences]
            await self._runtime.threads.run(rehearse, read, routes, self._memory, now)

        async with self._isolation.alone():
            await self._committed()  # what it says of trials is older than what is noted from here on
            for group in await self._inquest.search([envelope.suspect for envelope in piece], probe):
                await self._inquest.begin(group)
                await self._transform([known[one.sequence] for one in group], routes, output, now)
                await self._park(output)
                await self._offer(output, group[-1].sequence)
                output = Output()
                await self.commit()
                await self._committed()
        return output

    async def _transform(
        self, piece: Sequence[Envelope], routes: Mapping[tuple[str, str], Routes], output: Output, now: UtcTime
    ) -> None:
        read = [msgspec.structs.replace(one, reading=self._inquest.reading(one.sequence)) for one in piece]
        await self._runtime.threads.run(transform, read, routes, self._memory, output, now, self._budget)

    async def _park(self, output: Output) -> None:
        if output.held:
            await self._parking.park(output.held, self._budget.letters_max)
            output.held = {}

    async def _with_body(self, envelope: Envelope) -> Envelope:
        """The envelope with the body that lies beside the stream, if it does."""
        key = envelope.header.object_key
        if key is None:
            return envelope
        try:
            return msgspec.structs.replace(envelope, packed=await self._runtime.objects.get(key))
        except NotFoundError:  # gone, not late: it is written before its envelope; unsealing makes it a dead letter
            return msgspec.structs.replace(envelope, packed=b"")

    async def _offer(self, output: Output, position: str | None) -> None:
        """Output on its way: the canonical stream first, then the letters. Waits where a shard's lane is full.

        Errors: RetryableError also when something offered before was not stored: nothing may overtake it.
        """
        for ticket in self._open.tickets:
            if ticket.done:
                await ticket.stored()
        self._open.tickets = [ticket for ticket in self._open.tickets if not ticket.done]
        # One that is done already when it comes back may have been given up while it waited for room: kept.
        sealed = await self._runtime.threads.run(output.sealed)
        self._open.tickets.append(await self._patiently(self._publisher.offer(sealed)))
        letters = self._runtime.dead_letters
        await asyncio.gather(*(letters.write(output.letters[i::LETTERS_AT_ONCE]) for i in range(LETTERS_AT_ONCE)))
        self.position = position
        self._open.totals.events += output.events
        self._open.totals.rejected += len(output.letters)
        self._say(output)

    def due(self) -> bool:
        """Is there enough, or something old enough, to commit, and no commit under way?"""
        if self._committing is not None and not self._committing.done():
            return False
        waited_s = self._runtime.clock.monotonic() - self._cut_time
        if self.position == self._cut_at:
            # By the wall clock, as gaps are judged: a monotonic one stands still while its machine sleeps.
            end_at = self._read_to_end_at
            return end_at is not None and seconds_between(self._said_end_at, end_at) >= QUIET_COMMIT_S
        return waited_s >= self._limits.commit_s or self._open.totals.events >= self._limits.commit_events

    async def commit(self) -> None:
        """Make the state durable as it is, and let a commit of it follow the last acknowledgement.

        Errors: what became of the commit before: FencedError when the shard has another owner; RetryableError.
        """
        await self._committed()
        values: dict[str, Value] = {}
        if self.position != self._cut_at:
            values = {
                "position": self.position,
                "bound": self._catalogue.binding.bound,
                "state": await self._memory.save(),
                **self._inquest.closing(self.position),
            }
        cut, self._open = self._open, _Cut([], Totals())
        if cut.arrived_at is not None:
            values["arrived_at"] = cut.arrived_at
        if self._read_to_end_at is not None:
            values["read_to_end_at"] = self._said_end_at = self._read_to_end_at
        self._cut_at, self._cut_time = self.position, self._runtime.clock.monotonic()
        if values:
            self._under_way = cut.tickets
            self._committing = asyncio.create_task(self._commit(values, cut))

    async def finish(self, *, ended: bool = False) -> None:
        """Commit all of it. Errors: as `commit`."""
        await self.commit()
        await self._committed()
        if ended:
            await self._lease.commit({"ended": True})

    async def _commit(self, values: Mapping[str, Value], cut: _Cut) -> None:
        for ticket in cut.tickets:
            await ticket.stored()
        await self._write(values)
        self._totals.events += cut.totals.events
        self._totals.rejected += cut.totals.rejected
        with suppress(RetryableError):  # segments that no row names any longer: garbage, not an error
            await self._memory.committed()

    async def _write(self, values: Mapping[str, Value]) -> None:
        """Commit, tried a few times: to start again from the row would cost more than to wait."""
        for attempt in range(COMMIT_ATTEMPTS_MAX - 1):
            try:
                await self._lease.commit(values)
            except RetryableError as err:
                wait_s = COMMIT_WAIT_S * 2**attempt * (0.5 + self._runtime.chance.fraction())
                self._runtime.emit(Retried(what=f"commit of {self._lease.name}", code=err.code, wait_s=wait_s))
                await self._runtime.clock.sleep(wait_s)
            else:
                return
        await self._lease.commit(values)

    async def _committed(self) -> None:
        """The commit that is under way, if one is, has come to its end. Errors: its own."""
        committing, self._committing = self._committing, None
        if committing is not None:
            await self._patiently(committing)
            self._under_way = []

    async def _patiently(self, work: Awaitable[T]) -> T:
        """`work`, which waits for a publisher: one that is slow is no stall of ours, and bounds its own waiting."""
        return await beating(work, self._lease.alive, self._runtime.clock)

    async def close(self) -> None:
        """Whatever is not committed is somebody else's, or ours to do again."""
        if self._committing is not None:
            await cancelled([self._committing])
        for ticket in (*self._under_way, *self._open.tickets):
            self._publisher.withdraw(ticket)
        self._memory.close()

    def _tell(self, batch: Batch, envelopes: Sequence[Envelope]) -> None:
        """What observers may know, and what of it the former owner had read already."""
        again = sum(envelope.header.count for envelope in envelopes if int(envelope.sequence) <= self._again)
        if again:
            self._runtime.emit(EventsReadAgain(service=SERVICE, shard=self._lease.name, count=again))
        self._lease.tell(
            sum(envelope.header.count for envelope in envelopes),
            position=batch.position,
            behind_ms=batch.behind_ms,
            read_to_end_at=self._read_to_end_at,
        )

    def _say(self, output: Output) -> None:
        emit = self._runtime.emit
        if output.events:
            emit(EventsTransformed(shard=self._lease.name, count=output.events))
        for (tenant_id, group, code), letters in _grouped(output.letters).items():
            emit(
                RecordsRejected(
                    stage=STAGE, tenant_id=tenant_id, group=group, code=code, count=len(letters), first=letters[0]
                )
            )
        for at, drift in output.drifts.items():
            for event in self._drifts.add(at, drift):
                emit(event)


def _grouped(letters: Sequence[DeadLetter]) -> dict[tuple[str, str, str], list[str]]:
    """Positions by tenant, group and code."""
    found: dict[tuple[str, str, str], list[str]] = {}
    for letter in letters:
        found.setdefault((letter.tenant_id, letter.group, letter.code), []).append(letter.position)
    return found
