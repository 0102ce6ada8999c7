"""One endpoint: a pass reads pages, decides, publishes, and only then moves its marks.

The order is the guarantee: written down (what is about to be published, durable) -> published (acknowledged by the
stream) -> remembered as sure, with the place reached. Whatever dies in between is read again and published again.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from itertools import islice
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from services.contracts.errors import AvesaError, NotFoundError, ReadAgainError, RetryableError
from services.contracts.events import ChangeEvent
from services.contracts.integration import Parent
from services.contracts.log import EndpointFailed, EventsPublished, RecordsRepeated
from services.contracts.partitions import Partition
from services.contracts.times import UtcTime
from services.extractor.below import Begin, Upper, all_due, begin, due, lag_s, read_below, uppers
from services.extractor.family import DELETIONS_PER_BATCH, Family
from services.extractor.fetch import Calls
from services.extractor.ledger import Desk, Ledger
from services.extractor.letters import Letters
from services.extractor.marks import Pass, Progress, Reached, Walk, finished, forgetting, next_pass, sweep_soon
from services.extractor.memory import Below, Entry, Memory, Ruling, again, as_read, judge, latest, unchanged
from services.extractor.pagination import Place
from services.extractor.plan import Spec
from services.extractor.records import RecordPage, VendorRecord, read_page
from services.extractor.summary import EndpointSummary
from services.extractor.tombstones import bury
from services.extractor.walking import FieldNames, Step, walk
from services.runtime.envelopes import Sealed, seal
from services.runtime.loop import beating
from services.runtime.runtime import Runtime

PARALLEL_PARENTS_MAX: Final = 16
STRANGERS_MAX: Final = 10_000
_REFUSED: Final = frozenset({"vendor_error", "not_found"})
VAIN_MAX: Final = 3  # whole readings in which a stranger is looked for

T = TypeVar("T")


class _Chosen(msgspec.Struct, frozen=True, gc=False):
    """A record to be published; `own` is what was known of it."""

    record: VendorRecord
    ruling: Ruling
    own: Entry | None

    @property
    def overtaken(self) -> bool:
        """An earlier reading: what was known stays what is known."""
        return self.own is not None and self.own.effective_at > self.ruling.effective_at

    @property
    def entry(self) -> Entry:
        """What to remember of it."""
        record, ruling = self.record, self.ruling
        links = () if record.deleted else record.links
        return Entry(record.digest, ruling.effective_at, ruling.observed_at, record.deleted, links=links)


class EndpointWork:
    """One endpoint in its owner's hands. `parent` is the endpoint whose records fill its path, `unit` all endpoints of
    its unit, for what its records tell of theirs."""

    def __init__(
        self,
        desk: Desk,
        spec: Spec,
        family: Family,
        ledger: Ledger,
        parent: "EndpointWork | None",
        unit: "Mapping[str, EndpointWork] | None" = None,
    ) -> None:
        self.desk, self.spec, self.family, self.ledger, self.parent = desk, spec, family, ledger, parent
        self._unit = unit if unit is not None else {spec.name: self}
        self.calls = Calls()
        self.summary = EndpointSummary(desk.tenant_id, desk.service, spec.name)
        self.watch: Callable[[EndpointSummary], None] = lambda _: None
        self.names = FieldNames()
        self.caller = desk.caller
        self.strangers: set[str] = set()
        self.reads_again = False
        self._vain: Counter[str] = Counter()  # how often a stranger was looked for among all records and not found
        self._repeats_told = False
        self._letters = Letters(desk, spec.name)
        family.members.append(self)

    @property
    def runtime(self) -> Runtime:
        return self.desk.runtime

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

        Errors: RetryableError, RejectedError, NotFoundError, ReadAgainError: this endpoint alone; UnauthorizedError:
        the credentials; FencedError: somebody else's work now.
        """
        try:
            await self._run_or_read_again(self._planned(settle), settle=settle)
        except RetryableError as err:
            if err.code == "bad_answer":
                await self._letters.write_answer(err)
            raise

    async def _run_or_read_again(self, planned: Pass | Walk, *, settle: bool) -> None:
        """Where the vendor no longer takes the token or place to go on from, all is read; that deletes nothing."""
        try:
            await self._run(planned, settle=settle)
        except ReadAgainError:
            self.ledger.marks = forgetting(self.ledger.marks)
            if isinstance(planned, Pass) and planned.kind == "full":
                raise
            self.reads_again = True
            await self._run(self._plan(settle), settle=settle)

    async def _run(self, planned: Pass | Walk, *, settle: bool) -> None:
        resumed, looked_for = planned if isinstance(planned, Walk) else None, frozenset(self.strangers)
        read = self._read_list if self.spec.parent is None else self._read_below
        done = await read(planned, resumed)
        if done is None:
            return
        if planned.reread is not None and not await self._delete_again():
            return
        started_at, reached = done
        first = not self.walked
        self.ledger.marks = finished(self.ledger.marks, planned, started_at, self.spec.incremental, reached)
        self._check_strangers(looked_for, whole=planned.kind == "full" and resumed is None)
        if planned.reread is not None:
            await self.ledger.save()  # somebody waits for it
        await self.ledger.save_after(settled=first or (planned.kind != "live" and self.spec.incremental is not None))
        await self.ledger.tell(None)
        if resumed is not None and settle:
            await self.run_pass(settle=True)  # what we resumed may have begun long ago

    def _planned(self, settle: bool) -> Pass | Walk:
        """What was begun and not finished, or else what is due."""
        resumed = self.ledger.marks.walk
        if resumed is not None and not (settle and resumed.kind == "live"):  # a settle pass reads all of it
            return resumed
        return self._plan(settle)

    def _plan(self, settle: bool) -> Pass:
        planned = self._next(settle)
        parent = self.spec.parent
        if parent is None or not parent.when_changed:
            return planned
        now, known = self.desk.runtime.clock.now(), self.ledger.marks.fresh is not None
        if self.spec.incremental is None and planned == Pass("full") and known and not self.reads_again:
            planned = Pass("live")  # a list that is always read whole, below those that changed
        everything = planned.kind == "full" or all_due(parent, self.ledger.marks.below_all_at, now)
        return replace(planned, all_below=everything)

    def _next(self, settle: bool) -> Pass:
        if self.ledger.reread is not None:
            return Pass("full", reread=self.ledger.reread)
        if self.reads_again:
            return Pass("full")
        parent, incremental = self.spec.parent, self.spec.incremental
        if incremental is None and parent is not None and parent.when_changed and self.walked:
            return Pass("live")  # everything, but below the parents that are due
        now, below = self.desk.runtime.clock.now(), parent is not None
        return next_pass(self.ledger.marks, incremental, now, self.spec.tick_s, settle=settle, below=below)

    async def _read_list(self, planned: Pass | Walk, resumed: Walk | None) -> tuple[UtcTime, Reached] | None:
        """Every page, published; when the pass began and what it reached, None if it was stopped on the way."""
        place = Place(after=planned.after) if resumed is None else resumed.place
        progress = Progress(self.spec.incremental, resumed.started_at if resumed is not None else None, place.after)
        turn, background = self.family.turn, planned.kind == "full"
        try:
            async with aclosing(
                self._pages(Begin(planned.since, planned.token), place, background=background)
            ) as steps:
                async for step in steps:
                    place = Place()
                    await self._take(step, planned, progress, turn)
                    following = step.following
                    if following is not None and await self._pause(planned, _known(progress.began_at), following, None):
                        return None
        except AvesaError as err:
            if place.cursor is not None and err.code in _REFUSED:  # the vendor may know it no more: begin again
                self.ledger.marks = replace(self.ledger.marks, walk=None)
            raise
        return _known(progress.began_at), progress.reached

    def _pages(
        self, begun: Begin, place: Place, parent: Upper | None = None, *, background: bool
    ) -> AsyncGenerator[Step[RecordPage], None]:
        return walk(
            self,
            read_page,
            since=begun.since,
            token=begun.token,
            parent=parent.values if parent is not None else None,
            place=place,
            background=background,
        )

    async def _read_below(self, planned: Pass | Walk, resumed: Walk | None) -> tuple[UtcTime, Reached] | None:
        """The same once per record of the parent, a few at a time."""
        known = await self.parents()
        await self.ledger.forget_below(known.keys())
        started_at, passed = self.desk.runtime.clock.now(), None
        if resumed is not None:
            started_at, passed = resumed.started_at, resumed.parent
        parents = await self._due(known, planned, passed)
        group_size = min(self.desk.parallel, PARALLEL_PARENTS_MAX)
        for first in range(0, len(parents), group_size):
            group = parents[first : first + group_size]
            found = await gathered(self._read_one(parent, below, planned) for parent, below in group)
            read = {parent.key: done for (parent, _), (_, done) in zip(group, found, strict=True)}
            started_at = min([started_at, *(began_at for began_at, _ in found if began_at is not None)])
            await self.ledger.note_below(read)
            if await self._pause(planned, started_at, Place(), group[-1][0].key):
                return None
        return started_at, Reached()

    async def _due(
        self, known: Mapping[str, Upper], planned: Pass | Walk, passed: str | None
    ) -> list[tuple[Upper, Below | None]]:
        """The parents to read below, in order, after the one that was `passed` before; and how far that came."""
        parent, now = self._parent_rule(), self.desk.runtime.clock.now()
        ahead = [upper for key, upper in known.items() if passed is None or key > passed]
        below = self.ledger.memory.below(upper.key for upper in ahead)
        found = [(upper, below.get(upper.key)) for upper in ahead]
        if not parent.when_changed:
            return found
        return [(upper, read) for upper, read in found if due(upper, read, planned, now, self._lag_s)]

    async def _read_one(
        self, parent: Upper, below: Below | None, planned: Pass | Walk
    ) -> tuple[UtcTime | None, Below | None]:
        """Read below one parent: when that began and what to remember of it. Where the parent went away, what hung from
        it did too; should it come back, as what only was out of our sight for a while, it is read from the start. Where
        only changed parents are read, it is not asked about again until it changes."""
        rule, incremental = self._parent_rule(), self.spec.incremental
        begun = begin(planned, below, rule, incremental, tick_s=self.spec.tick_s, lag_s=self._lag_s)
        try:
            background = planned.kind == "full" or below is None
            progress = await self._walk_one(parent, begun, planned, background=background)
        except NotFoundError:
            return None, Below(parent.state) if rule.when_changed else None
        except ReadAgainError:
            if begun.whole:
                raise
            self.ledger.marks = sweep_soon(self.ledger.marks)
            progress = await self._walk_one(parent, Begin(), planned, background=True)
        began_at = _known(progress.began_at)
        return began_at, read_below(parent, below, planned, rule, progress.reached, began_at, incremental)

    async def _walk_one(self, parent: Upper, begun: Begin, planned: Pass | Walk, *, background: bool) -> Progress:
        progress, turn = Progress(self.spec.incremental, after=begun.after), self.family.turn
        async with aclosing(self._pages(begun, Place(after=begun.after), parent, background=background)) as steps:
            async for step in steps:
                await self._take(step, planned, progress, turn)
        return progress

    async def parents(self) -> dict[str, Upper]:
        """The records of the parent endpoint that this one is read below, by key, in order.

        Errors: RetryableError while the parent has not been read.
        """
        assert self.parent is not None, "asked only of an endpoint that has one"
        above = self.parent
        if not above.walked:
            raise RetryableError(f"its parent {above.spec.name} has not been read yet")
        part = self.spec.link if above.spec.rules.composite else None
        memory, rule = above.ledger.memory, self._parent_rule()
        return await self.desk.runtime.threads.run(_uppers, memory, self.spec, rule, part)

    def _parent_rule(self) -> Parent:
        assert self.spec.parent is not None, "asked only of an endpoint that has one"
        return self.spec.parent

    @property
    def _lag_s(self) -> float:
        above = self.parent.spec.incremental if self.parent is not None else None
        return lag_s([self.spec.incremental, above], self.spec.tick_s)

    async def _pause(self, planned: Pass | Walk, started_at: UtcTime, place: Place, parent: str | None) -> bool:
        """Between two pages: note where we are, save now and then. True when we are to stop here."""
        walked = Walk(
            kind=planned.kind,
            started_at=started_at,
            since=planned.since,
            place=place,
            parent=parent,
            reread=planned.reread,
            token=planned.token,
            after=planned.after,
            all_below=planned.all_below,
        )
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
        worth = (found for found in self._unknown(record_ids) if self._vain[found] < VAIN_MAX)
        self.strangers |= set(islice(worth, room))

    def _check_strangers(self, looked_for: frozenset[str], *, whole: bool) -> None:
        """After a pass that began when `looked_for` were strangers."""
        left = self._unknown(list(looked_for))
        self.strangers -= looked_for
        self.reads_again = bool(left) and not whole
        if whole:
            self._vain.update(left)  # unusable, or gone again, and perhaps back tomorrow
        else:
            self.strangers |= left

    def _unknown(self, record_ids: Sequence[str]) -> set[str]:
        entries = self.ledger.memory.entries(record_ids)
        return {found for found in record_ids if found not in entries or entries[found].deleted}

    # -- publishing ---------------------------------------------------------------------------------------------------
    async def _take(self, step: Step[RecordPage], planned: Pass | Walk, progress: Progress, turn: int) -> None:
        """Publish what a page tells that was not known, or all of it; dead-letter what cannot be used. `turn`: the
        family's when the walk began."""
        page = step.got.value
        progress.note(page.turn, step.got.earliest_at, _newest(page))
        self.summary.read += page.turn.count
        self.summary.rejected += len(page.bad)
        await self._letters.write(page.bad, step.source)
        records = self._each_once(page.records)
        if records:
            await self._bury(records, step)
            async with self.family.lock:
                chosen = await self._judge(records, step.got.observed_at, turn, whole=planned.reread is not None)
                await self._publish(chosen, step.source)
        self.watch(self.summary)

    def _each_once(self, records: Sequence[VendorRecord]) -> Sequence[VendorRecord]:
        """A page that shows a record twice, and differently, would contradict itself at every read: the later counts,
        by its stamp or by its place."""
        found: dict[str, VendorRecord] = {}
        repeated = 0
        for record in records:
            known = found.get(record.record_id)
            if known is not None and known.digest != record.digest:
                repeated += 1
                if known.stamp is not None and record.stamp is not None and known.stamp > record.stamp:
                    continue
            found[record.record_id] = record
        if repeated and not self._repeats_told:
            self._repeats_told = True
            desk = self.desk
            told = RecordsRepeated(
                tenant_id=desk.tenant_id, service=desk.service, endpoint=self.spec.name, count=repeated
            )
            desk.runtime.emit(told)
        return list(found.values())

    async def _bury(self, records: Sequence[VendorRecord], step: Step[RecordPage]) -> None:
        """Publish what new records tell of the deletion of others, before they are remembered themselves."""
        if not self.spec.rules.graves:
            return
        known = self.ledger.memory.entries([record.record_id for record in records])
        new = [record for record in records if not _same(known.get(record.record_id), record)]
        graves = [grave for record in new for grave in record.graves]
        await bury(graves, self._unit, step.got.observed_at, step.source)

    async def _judge(
        self, records: Sequence[VendorRecord], observed_at: UtcTime, turn: int, *, whole: bool
    ) -> list[_Chosen]:
        """What is to be published of a page: what is new, and with `whole` once more what is known."""
        ids = [record.record_id for record in records]
        remembered, gone_lately = self.family.entries(ids), self.family.gone_since(turn, ids)
        mine = remembered[self.spec.name]
        chosen: list[_Chosen] = []
        linked: dict[str, Entry] = {}
        for record in records:
            newest = latest(entries.get(record.record_id) for entries in remembered.values())
            own, meanwhile = mine.get(record.record_id), record.record_id in gone_lately
            ruling = judge(own, newest, record, observed_at, self.spec.tick_s, meanwhile=meanwhile)
            if ruling is None and own is not None and not own.deleted:
                if own.links != record.links:
                    linked[record.record_id] = replace(own, links=record.links)
                if whole and not record.deleted:
                    ruling = unchanged(own, record)
            if ruling is not None:
                chosen.append(_Chosen(record, ruling, own))
                if newest is None and self.ledger.marks.lost and ruling.effective_at < observed_at:
                    chosen.append(_Chosen(record, as_read(observed_at), own))
        if linked:
            await self.ledger.remember(linked)
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

    async def _publish(self, chosen: Sequence[_Chosen], source: str) -> None:
        """The caller holds the family's lock."""
        if not chosen:
            return
        events = [
            self.event(one.record.record_id, one.ruling, source, None if one.record.deleted else one.record.payload)
            for one in chosen
        ]
        entries = {one.record.record_id: one.entry for one in chosen if not one.overtaken}
        await self.send(events, entries)
        deleted = {record_id: entry for record_id, entry in entries.items() if entry.deleted}
        if deleted:
            await self.family.spread(self, deleted)
        gone = sum(1 for event in events if event.op == "delete")
        self.summary.deleted += gone
        self.summary.published += len(events) - gone

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


async def gathered(works: Iterable[Awaitable[T]]) -> list[T]:
    """All results, once all have ended; the first error if there was one."""
    results = await asyncio.gather(*works, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]


def _deletions(memory: Memory) -> list[str]:
    return [record_id for record_id, entry in memory.items() if entry.deleted]


def _same(entry: Entry | None, record: VendorRecord) -> bool:
    """Was the record published as it is?"""
    return entry is not None and entry.sure and not entry.deleted and entry.digest == record.digest


def _newest(page: RecordPage) -> UtcTime | None:
    """The newest stamp of a page on which every record has one."""
    stamps = [record.stamp for record in page.records]
    known = [stamp for stamp in stamps if stamp is not None]
    return max(known) if known and len(known) == len(stamps) and not page.bad else None


def _uppers(memory: Memory, spec: Spec, parent: Parent, part: int | None) -> dict[str, Upper]:
    return uppers(memory.items(), parent, part, spec.inherits, spec.dispensable)


def _known(began_at: UtcTime | None) -> UtcTime:
    assert began_at is not None, "a walk has a first page"
    return began_at


def _sealed(partition: Partition, endpoint: str, events: Sequence[ChangeEvent]) -> list[Sealed]:
    return seal(partition, endpoint, [msgspec.json.encode(event) for event in events])
