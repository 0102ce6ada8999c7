"""One shard's turn: what is taken from it, what is published, and when that is committed."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from services.contracts.errors import FencedError, NotFoundError, RetryableError
from services.contracts.log import EventsReadAgain, EventsTransformed, RecordsRejected
from services.contracts.ports import Value
from services.runtime.dead_letters import DeadLetter
from services.runtime.leases import Lease
from services.runtime.publisher import Publisher
from services.runtime.runtime import Runtime
from services.runtime.shards import Batch, read_again
from services.transformer.batches import STAGE, Envelope, Output, read_header, slices, transform
from services.transformer.catalogue import Catalogue
from services.transformer.drift import DriftWatch
from services.transformer.state import Memory

SERVICE = "transformer"
LETTERS_AT_ONCE = 16


class Limits(msgspec.Struct, frozen=True):
    """How much is done before the next thing is.

    Units:  a commit after `commit_s` or `commit_events`, whichever comes first; `slice_bytes_max` of events go to a
            thread at once; what is transformed is published after `output_bytes_max`, or at the end of a read.
    """

    commit_s: float = 5.0
    commit_events: int = 50_000
    slice_bytes_max: int = 1_000_000
    output_bytes_max: int = 8_000_000


class Totals(msgspec.Struct):
    """What was transformed and committed."""

    events: int = 0
    rejected: int = 0


class ShardRun:
    """The work on one shard between loading its state and letting it go. `position` is what has been published."""

    def __init__(
        self,
        runtime: Runtime,
        lease: Lease,
        memory: Memory,
        position: str | None,
        catalogue: Catalogue,
        publisher: Publisher,
        limits: Limits,
        totals: Totals,
    ) -> None:
        self.position = position
        self._runtime, self._lease, self._memory, self._limits = runtime, lease, memory, limits
        self._catalogue, self._publisher, self._totals = catalogue, publisher, totals
        self._again = read_again(lease, position)
        self._uncommitted = Totals()
        self._committed, self._committed_at = position, runtime.clock.monotonic()
        self._drifts = DriftWatch()

    async def take(self, batch: Batch, stopping: asyncio.Event) -> bool:
        """Transform and publish what one read returned. False if it was cut short because we are asked to stop.

        Errors: RetryableError, FencedError; nothing of what was done since the last commit counts then.
        """
        if self._lease.lost.is_set():
            raise FencedError(f"the lease on {self._lease.name} is lost")
        if not batch.records:
            return True
        self._lease.progress = {"position": batch.position, "events": self._totals.events + self._uncommitted.events}
        output, now = Output(), self._runtime.clock.now()
        read = (read_header(self._lease.name, r.sequence, r.data, output, now) for r in batch.records)
        envelopes = [envelope for envelope in read if envelope is not None]
        self._count_again(envelopes)
        routes = {at: await self._catalogue.routes(*at) for at in {envelope.source for envelope in envelopes}}
        wanted = (envelope for envelope in envelopes if envelope.header.endpoint in routes[envelope.source])
        for piece in slices(wanted, self._limits.slice_bytes_max):
            whole = [await self._with_body(envelope) for envelope in piece]
            await self._runtime.threads.run(transform, whole, routes, self._memory, output, now)
            if output.size >= self._limits.output_bytes_max:
                await self._publish(output, piece[-1].sequence)
                output = Output()
                if self.due():
                    await self.commit()
                if stopping.is_set():
                    return False
        await self._publish(output, batch.position)
        return True

    async def _with_body(self, envelope: Envelope) -> Envelope:
        """The envelope with the body that lies beside the stream, if it does."""
        key = envelope.header.object_key
        if key is None:
            return envelope
        try:
            return msgspec.structs.replace(envelope, packed=await self._runtime.objects.get(key))
        except NotFoundError:  # gone, not late: it is written before its envelope; unsealing makes it a dead letter
            return msgspec.structs.replace(envelope, packed=b"")

    async def _publish(self, output: Output, position: str | None) -> None:
        """Output durable: the canonical stream first, then the letters."""
        await self._publisher.publish(await self._runtime.threads.run(output.sealed))
        letters = self._runtime.dead_letters
        await asyncio.gather(*(letters.write(output.letters[i::LETTERS_AT_ONCE]) for i in range(LETTERS_AT_ONCE)))
        self.position = position
        self._uncommitted.events += output.events
        self._uncommitted.rejected += len(output.letters)
        self._say(output)

    def due(self) -> bool:
        """Is there enough, or something old enough, to commit?"""
        if self.position == self._committed:
            return False
        waited_s = self._runtime.clock.monotonic() - self._committed_at
        return waited_s >= self._limits.commit_s or self._uncommitted.events >= self._limits.commit_events

    async def commit(self, *, ended: bool = False) -> None:
        """State durable, then position and state in one conditional write. Without news it does nothing.

        Errors: FencedError when the shard has another owner; RetryableError.
        """
        if self.position == self._committed and not ended:
            return
        values: dict[str, Value] = {"position": self.position, "state": await self._memory.save()}
        if ended:
            values["ended"] = True
        await self._lease.commit(values)
        self._committed, self._committed_at = self.position, self._runtime.clock.monotonic()
        self._totals.events += self._uncommitted.events
        self._totals.rejected += self._uncommitted.rejected
        self._uncommitted = Totals()
        with suppress(RetryableError):  # segments that no row names any longer: garbage, not an error
            await self._memory.committed()

    def close(self) -> None:
        self._memory.close()

    def _count_again(self, envelopes: Sequence[Envelope]) -> None:
        again = sum(envelope.header.count for envelope in envelopes if int(envelope.sequence) <= self._again)
        if again:
            self._runtime.emit(EventsReadAgain(service=SERVICE, shard=self._lease.name, count=again))

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
