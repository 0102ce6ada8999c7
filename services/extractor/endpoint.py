"""One endpoint: a pass reads pages, decides, publishes, and only then moves its marks.

The order is the guarantee: written down (what is about to be published, durable) -> published (acknowledged by the
stream) -> remembered as sure, with the place reached. Whatever dies in between is read again and published again.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, Generic, TypeVar

import msgspec
from msgspec.structs import replace

from services.contracts.errors import AvesaError, NotFoundError, RetryableError
from services.contracts.events import ChangeEvent
from services.contracts.log import EndpointFailed, EventsPublished
from services.contracts.partitions import Partition
from services.contracts.times import UtcTime
from services.extractor.fetch import Calls, Got
from services.extractor.ledger import Desk, Ledger
from services.extractor.letters import Letters
from services.extractor.marks import Pass, Walk, finished, next_pass
from services.extractor.memory import Entry, Memory, Ruling, again, as_read, judge, latest, unchanged
from services.extractor.pagination import Place, advance, ask, resumable
from services.extractor.plan import Spec
from services.extractor.records import IdPage, RecordPage, VendorRecord, read_page
from services.extractor.requests import list_request
from services.extractor.summary import EndpointSummary
from services.runtime.envelopes import Sealed, seal
from services.runtime.loop import beating

PARALLEL_PARENTS_MAX: Final = 16
STRANGERS_MAX: Final = 10_000
DELETIONS_PER_BATCH: Final = 500

T = TypeVar("T")
PageT = TypeVar("PageT", RecordPage, IdPage)


class Family:
    """Endpoints whose records share one id space. Whoever decides about its records holds `lock`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: list[EndpointWork] = []
        self.lock = asyncio.Lock()

    def entries(self, record_ids: Sequence[str]) -> dict[str, dict[str, Entry]]:
        """What each member remembers: endpoint -> id -> entry."""
        return {member.spec.name: member.ledger.memory.entries(record_ids) for member in self.members}


class EndpointWork:
    """One endpoint in its owner's hands. `parent` is the endpoint whose records fill its path."""

    def __init__(self, desk: Desk, spec: Spec, family: Family, ledger: Ledger, parent: "EndpointWork | None") -> None:
        self.desk, self.spec, self.family, self.ledger, self.parent = desk, spec, family, ledger, parent
        self.calls = Calls()
        self.summary = EndpointSummary(desk.tenant_id, desk.service, spec.name)
        self.watch: Callable[[EndpointSummary], None] = lambda _: None
        self.strangers: set[str] = set()
        self.reads_again = False
        self._hopeless: set[str] = set()
        self._letters = Letters(desk, spec.name)
        family.members.append(self)

    @property
    def walked(self) -> bool:
        """Everything was read at least once."""
        return self.ledger.marks.fresh is not None

    async def failed(self, err: AvesaError) -> None:
        """This endpoint cannot go on for now; the others can."""
        self.summary.code, self.summary.what = err.code, str(err)
        self.desk.runtime.emit(
            EndpointFailed(
                tenant_id=self.desk.tenant_id,
                service=self.desk.service,
                endpoint=self.spec.name,
                code=err.code,
                what=str(err),
            )
        )
        await self.ledger.tell(err)

    # -- reading ------------------------------------------------------------------------------------------------------
    async def run_pass(self, *, settle: bool = False) -> None:
        """Read what is due, publish what is new, remember it. Returns early, saved, when we are to stop.

        Errors: RetryableError, RejectedError, NotFoundError: this endpoint alone; UnauthorizedError: the credentials;
        FencedError: somebody else's work now.
        """
        resumed, looked_for = self.ledger.marks.walk, frozenset(self.strangers)
        if resumed is not None and settle and resumed.kind == "live":
            resumed = None  # a settle pass reads all of it
        planned = resumed or self._plan(settle)
        read = self._read_list if self.spec.parent is None else self._read_below
        started_at = await read(planned, resumed)
        if started_at is None:
            return
        if planned.reread is not None and not await self._delete_again():
            return
        marks = finished(self.ledger.marks, planned.kind, started_at, self.spec.incremental)
        self.ledger.marks = replace(marks, reread=planned.reread or marks.reread)
        self._check_strangers(looked_for, whole=planned.kind == "full" and resumed is None)
        if planned.reread is not None:
            await self.ledger.save()  # somebody waits for it
        await self.ledger.save_after(settled=planned.kind != "live" and self.spec.incremental is not None)
        await self.ledger.tell(None)
        if resumed is not None and settle:
            await self.run_pass(settle=True)  # what we resumed may have begun long ago

    def _plan(self, settle: bool) -> Pass:
        if self.ledger.reread is not None:
            return Pass("full", reread=self.ledger.reread)
        if self.reads_again:
            return Pass("full")
        now = self.desk.runtime.clock.now()
        return next_pass(self.ledger.marks, self.spec.incremental, now, self.spec.tick_s, settle=settle)

    async def _read_list(self, planned: Pass | Walk, resumed: Walk | None) -> UtcTime | None:
        """Every page, published; when the pass began, None if it was stopped on the way."""
        started_at = resumed.started_at if resumed is not None else None
        place = resumed.place if resumed is not None and resumable(self.spec.pagination) else Place()
        background = planned.kind == "full"
        async for step in walk(self, self._read_page, since=planned.since, place=place, background=background):
            started_at = started_at or step.got.earliest_at
            await self._take(step, planned)
            if step.following is not None and await self._pause(planned, started_at, step.following, None):
                return None
        return started_at

    async def _read_below(self, planned: Pass | Walk, resumed: Walk | None) -> UtcTime | None:
        """The same once per record of the parent, a few at a time. A parent that is new is read from the start."""
        parents = self.parents()
        await self.ledger.forget_parents(frozenset(parents))
        started_at = self.desk.runtime.clock.now()
        if resumed is not None:
            started_at = resumed.started_at
            parents = [parent for parent in parents if parent > (resumed.parent or "")]
        group_size = min(self.desk.parallel, PARALLEL_PARENTS_MAX)
        for first in range(0, len(parents), group_size):
            group = parents[first : first + group_size]
            found = await gathered(self._read_one(parent, planned) for parent in group)
            there = {parent: began_at for parent, began_at in zip(group, found, strict=True) if began_at is not None}
            started_at = min([started_at, *there.values()])
            await self.ledger.note_parents(there)
            if await self._pause(planned, started_at, Place(), group[-1]):
                return None
        return started_at

    async def _read_one(self, parent: str, planned: Pass | Walk) -> UtcTime | None:
        """When reading below this parent began; None where it went away, and what hung from it too."""
        since = planned.since if self.ledger.memory.has_read(parent) else None
        began_at: UtcTime | None = None
        try:
            async for step in walk(self, self._read_page, since=since, parent=parent, background=since is None):
                began_at = began_at or step.got.earliest_at
                await self._take(step, planned)
        except NotFoundError:
            return None
        return began_at

    def parents(self) -> list[str]:
        """The values this endpoint's path is filled with, in order.

        Errors: RetryableError while the parent has not been read.
        """
        assert self.parent is not None, "asked only of an endpoint that has one"
        if not self.parent.walked:
            raise RetryableError(f"its parent {self.parent.spec.name} has not been read yet")
        ids = self.parent.ledger.memory.living()
        if not self.parent.spec.rules.composite:
            return sorted(ids)
        return sorted({msgspec.json.decode(record_id, type=list[str])[self.spec.link] for record_id in ids})

    def _read_page(self, body: bytes, observed_at: UtcTime) -> RecordPage:
        return read_page(body, self.spec.rules, observed_at)

    async def _pause(self, planned: Pass | Walk, started_at: UtcTime, place: Place, parent: str | None) -> bool:
        """Between two pages: note where we are, save now and then. True when we are to stop here."""
        walked = Walk(planned.kind, started_at, planned.since, place, parent, planned.reread)
        self.ledger.marks = replace(self.ledger.marks, walk=walked)
        if self.desk.stopping.is_set():
            await self.ledger.save()
            return True
        await self.ledger.save_on_the_way()
        return False

    # A sweep may see ids that no live read will ever show: a record restored under its old stamp, or missed while its
    # page moved. What the next pass does not explain is read with everything else, once.
    def note_strangers(self, record_ids: Sequence[str]) -> None:
        """Ids that a sweep saw; those we do not take to be there are looked for at the next pass."""
        room = max(0, STRANGERS_MAX - len(self.strangers))
        self.strangers |= set(islice(self._unknown(record_ids) - self._hopeless, room))

    def _check_strangers(self, looked_for: frozenset[str], *, whole: bool) -> None:
        """After a pass that began when `looked_for` were strangers."""
        left = self._unknown(list(looked_for))
        self.strangers -= looked_for
        self.reads_again = bool(left) and not whole
        if whole:
            self._hopeless |= left  # unusable, or gone again
        else:
            self.strangers |= left

    def _unknown(self, record_ids: Sequence[str]) -> set[str]:
        entries = self.ledger.memory.entries(record_ids)
        return {found for found in record_ids if found not in entries or entries[found].deleted}

    # -- publishing ---------------------------------------------------------------------------------------------------
    async def _take(self, step: "Step[RecordPage]", planned: Pass | Walk) -> None:
        """Publish what a page tells that was not known, or all of it; dead-letter what cannot be used."""
        page = step.got.value
        self.summary.read += page.turn.count
        self.summary.rejected += len(page.bad)
        await self._letters.write(page.bad, step.source)
        if page.records:
            async with self.family.lock:
                chosen = self._judge(page.records, step.got.observed_at, whole=planned.reread is not None)
                await self._publish(chosen, step.source)
        self.watch(self.summary)

    def _judge(
        self, records: Sequence[VendorRecord], observed_at: UtcTime, *, whole: bool
    ) -> list[tuple[VendorRecord, Ruling]]:
        """What is to be published of a page: what is new, and with `whole` once more what is known. A record that
        stands on it twice is held against itself."""
        remembered = self.family.entries(list({record.record_id for record in records}))
        mine = remembered[self.spec.name]
        chosen: list[tuple[VendorRecord, Ruling]] = []
        for record in records:
            newest = latest(entries.get(record.record_id) for entries in remembered.values())
            own = mine.get(record.record_id)
            ruling = judge(own, newest, record, observed_at, self.spec.tick_s)
            if ruling is None and whole and own is not None:
                ruling = unchanged(own, record)
            if ruling is not None:
                chosen.append((record, ruling))
                if newest is None and self.ledger.marks.lost and ruling.effective_at < observed_at:
                    ruling = as_read(observed_at)
                    chosen.append((record, ruling))
                mine[record.record_id] = _entry(record, ruling)
        return chosen

    async def _delete_again(self) -> bool:
        """Publish once more every deletion that is remembered; False if we are to stop on the way."""
        gone = await self.desk.runtime.threads.run(_deletions, self.ledger.memory)
        source = f"{self.spec.endpoint.path}: deleted before"
        for start in range(0, len(gone), DELETIONS_PER_BATCH):
            if self.desk.stopping.is_set():
                return False
            async with self.family.lock:
                now = self.ledger.memory.entries(gone[start : start + DELETIONS_PER_BATCH])
                entries = {record_id: entry for record_id, entry in now.items() if entry.deleted}
                if not entries:
                    continue
                events = [self.event(record_id, again(entry, "sweep"), source) for record_id, entry in entries.items()]
                await self.send(events, {key: replace(entry, sure=True) for key, entry in entries.items()})
        return True

    async def _publish(self, chosen: Sequence[tuple[VendorRecord, Ruling]], source: str) -> None:
        if not chosen:
            return
        events = [self.event(record.record_id, ruling, source, payload=record.payload) for record, ruling in chosen]
        await self.send(events, {record.record_id: _entry(record, ruling) for record, ruling in chosen})
        self.summary.published += len(events)

    def event(self, record_id: str, ruling: Ruling, source: str, payload: bytes | None = None) -> ChangeEvent:
        """One observation; without a payload a deletion."""
        return ChangeEvent(
            tenant_id=self.desk.tenant_id,
            service=self.desk.service,
            endpoint=self.spec.name,
            record_id=record_id,
            op="delete" if payload is None else "upsert",
            effective_at=ruling.effective_at,
            observed_at=ruling.observed_at,
            evidence=ruling.evidence,
            source=source,
            payload=msgspec.UNSET if payload is None else msgspec.Raw(payload),
        )

    async def send(self, events: Sequence[ChangeEvent], entries: Mapping[str, Entry]) -> None:
        """Write down, publish, and remember what the stream has acknowledged, all of it or what it took before it
        failed. The caller holds the family's lock."""
        publisher = self.desk.publisher
        partition = Partition(self.desk.tenant_id, self.desk.service, self.family.name)
        sealed = await self.desk.runtime.threads.run(_sealed, partition, self.spec.name, events)
        await self.ledger.intend(entries)
        alive, clock = self.desk.lease.alive, self.desk.runtime.clock
        ticket = await beating(publisher.offer(sealed), alive, clock)
        try:
            await beating(ticket.stored(), alive, clock)
        finally:
            publisher.withdraw(ticket)
            await self._acknowledge(events, entries, ticket.events_stored(partition))

    async def _acknowledge(self, events: Sequence[ChangeEvent], entries: Mapping[str, Entry], count: int) -> None:
        """The first `count` events are stored. An entry tells of its record's last event: it is sure with that one."""
        if not count:
            return
        unsure = {event.record_id for event in events[count:]}
        sure = {record_id: entry for record_id, entry in entries.items() if record_id not in unsure}
        await self.ledger.remember(sure, published=count)
        self.desk.runtime.emit(
            EventsPublished(
                tenant_id=self.desk.tenant_id, service=self.desk.service, endpoint=self.spec.name, count=count
            )
        )


class Step(msgspec.Struct, Generic[PageT], frozen=True):
    """One page of a walk, and where it goes on (None: it was the last)."""

    got: Got[PageT]
    source: str
    following: Place | None


async def walk(
    work: EndpointWork,
    read: Callable[[bytes, UtcTime], PageT],
    *,
    since: UtcTime | None = None,
    parent: str | None = None,
    place: Place | None = None,
    sweep: bool = False,
    background: bool = False,
) -> AsyncIterator[Step[PageT]]:
    """Page after page, the first at `place`. A page that cannot be read in part is asked for once more first.

    Errors: as `Caller.get`; RejectedError `pages_do_not_advance`.
    """
    spec, caller, at = work.spec, work.desk.caller, place or Place()
    while True:
        page = ask(spec.pagination, at)
        request = list_request(
            caller.site.base_url, caller.site.values, spec, page, since=since, parent=parent, sweep=sweep
        )
        try:
            got = await caller.get(request, read, calls=work.calls, background=background)
            if got.value.garbled:  # what could be read was read, and counts
                yield Step(Got(got.value.usable, got.observed_at, got.earliest_at), request.source, at)
                got = await caller.get(request, read, calls=work.calls, background=background)
        finally:
            work.summary.calls = work.calls.count
        try:
            following = advance(spec.pagination, at, got.value.turn)
        except AvesaError as err:
            err.where = request.source
            raise
        yield Step(got, request.source, following)
        if following is None:
            return
        at = following


async def gathered(works: Iterable[Awaitable[T]]) -> list[T]:
    """All results, once all have ended; the first error if there was one."""
    results = await asyncio.gather(*works, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


def _deletions(memory: Memory) -> list[str]:
    return [record_id for record_id, entry in memory.items() if entry.deleted]


def _entry(record: VendorRecord, ruling: Ruling) -> Entry:
    return Entry(record.digest, ruling.effective_at, ruling.observed_at)


def _sealed(partition: Partition, endpoint: str, events: Sequence[ChangeEvent]) -> list[Sealed]:
    return seal(partition, endpoint, [msgspec.json.encode(event) for event in events])
