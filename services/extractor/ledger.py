"""What is known of one endpoint: its memory and its marks, saved together, in one conditional write, by its owner.

The `LastUpdated` row names the memory's segments and holds the marks. Its `epoch` is that of the unit's lease: the
owner claims every row when it takes the lease, and each later write expects its own epoch there. Others write one
attribute only: `reread_asked_at`, when what the endpoint had published was lost (`contracts/gaps.py`).
"""

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from services.contracts.errors import AvesaError, ConflictError, FencedError, RejectedError, RetryableError
from services.contracts.log import MemoryLost
from services.contracts.names import state_key
from services.contracts.ports import Row, Value
from services.contracts.times import UtcTime
from services.extractor.fetch import Caller
from services.extractor.marks import Marks, fitting
from services.extractor.memory import Below, Entry, Memory
from services.extractor.plan import Spec
from services.extractor.summary import NOT_AVAILABLE
from services.runtime.commits import Commits, number_of
from services.runtime.leases import Lease
from services.runtime.publisher import Publisher
from services.runtime.runtime import Runtime
from services.runtime.snapshots import Segment, SnapshotState

UNSAVED_S: Final = 30.0  # a pass that finds something notes its progress so often,
IDLE_SAVE_S: Final = 300.0  # one that finds nothing so often: what a killed owner's successor reads again


class Desk(msgspec.Struct, frozen=True):
    """What the endpoints of one (tenant, service) share. `parallel`: requests under way at a time."""

    runtime: Runtime
    tenant_id: str
    service: str
    caller: Caller
    publisher: Publisher
    lease: Lease
    stopping: asyncio.Event
    parallel: int = 1

    def count_unsaved(self, events: int) -> None:
        """Tell whoever takes over from us how much it will read again."""
        unsaved = self.lease.progress.get("unsaved", 0)
        assert isinstance(unsaved, int), "only this writes it"
        self.lease.progress = {**self.lease.progress, "unsaved": unsaved + events}


class Ledger:
    """Memory and marks of one endpoint in its owner's hands. Marks may be replaced at any time; memory is changed
    through here alone, because what is put while a save is under way would never be saved."""

    def __init__(self, desk: Desk, endpoint: str, memory: Memory, marks: Marks, row: Row) -> None:
        self.memory = memory
        self._asked_at: UtcTime | None = row.get("reread_asked_at")
        self._failing = bool(row.get("failed_code"))
        self.available = row.get("failed_code") != NOT_AVAILABLE
        key = row_key(desk, endpoint)
        self._commits = Commits(desk.runtime.rows, desk.runtime.names.last_updated, key, number_of(row))
        self._writing = asyncio.Lock()
        self._desk, self._marks = desk, marks
        self._lock = asyncio.Lock()
        self._unsaved = 0
        self._moved = False
        self._saved_at = desk.runtime.clock.monotonic()

    @property
    def marks(self) -> Marks:
        return self._marks

    @marks.setter
    def marks(self, marks: Marks) -> None:
        self._moved = self._moved or marks != self._marks
        self._marks = marks

    @property
    def reread(self) -> UtcTime | None:
        """When it was asked that everything be published again, because what was published is lost; None once done."""
        asked_at, done = self._asked_at, self._marks.reread
        return asked_at if asked_at is not None and (done is None or done < asked_at) else None

    async def intend(self, entries: Mapping[str, Entry]) -> None:
        """What is about to be published, made durable first: without it a record that its dead publisher never saved,
        and that is deleted before we read it, would stay in the history for ever.

        Errors: as `save`.
        """
        async with self._lock:
            self.memory.put({key: msgspec.structs.replace(entry, sure=False) for key, entry in entries.items()})
        await self.save()

    async def remember(self, entries: Mapping[str, Entry], published: int = 0) -> None:
        """Entries whose observations are acknowledged; `published` of them are new on the stream."""
        async with self._lock:
            self.memory.put(entries)
            self._unsaved += published
        self._desk.count_unsaved(published)

    async def note_below(self, read: Mapping[str, Below | None]) -> None:
        """All records below these parents were read so far, and are published; None: there are none of them."""
        async with self._lock:
            self.memory.note_below(read)

    async def forget_below(self, but: Collection[str]) -> None:
        """Parents that are not there any more."""
        async with self._lock:
            self.memory.forget_below(but)

    async def save(self) -> None:
        """Make all of it durable, if we still own it.

        Errors: FencedError when we do not; RetryableError: nothing moved, and saving again later saves it all.
        """
        async with self._lock:
            marks, unsaved = self._marks, self._unsaved
            segments = await self.memory.state.save()
            await self._commit(
                {
                    "marks": msgspec.to_builtins(marks),
                    "segments": [{"key": segment.key, "size": segment.size} for segment in segments],
                    "last_updated": marks.fresh,
                    "saved_at": self._desk.runtime.clock.now(),
                }
            )
            self._unsaved -= unsaved
            self._moved = self._marks != marks
            self._saved_at = self._desk.runtime.clock.monotonic()
            self._desk.count_unsaved(-unsaved)
            with contextlib.suppress(RetryableError):
                await self.memory.state.committed()  # at worst old segments stay behind

    async def save_on_the_way(self) -> None:
        """In the middle of a pass: now and then."""
        if self._idle_for(UNSAVED_S):
            await self.save()

    async def save_after(self, *, settled: bool) -> None:
        """After a pass, when there is something to lose: an idle endpoint costs no write a poll, a busy one one."""
        if settled or self._idle_for(UNSAVED_S if self.memory.state.changed else IDLE_SAVE_S):
            await self.save()

    async def save_rest(self) -> None:
        """Before we let go."""
        if self._moved or self.memory.state.changed:
            await self.save()

    def _idle_for(self, seconds: float) -> bool:
        return self._desk.runtime.clock.monotonic() - self._saved_at >= seconds

    async def tell(self, err: AvesaError | None) -> None:
        """Write into the row, for people, why this endpoint fails, or that it no longer does."""
        self.available = err is None or err.code != NOT_AVAILABLE
        if err is None and not self._failing:
            return
        values: dict[str, Value] = {"failed_code": None, "failed_what": None, "failed_at": None}
        if err is not None:
            values = {"failed_code": err.code, "failed_what": str(err)}
            if not self._failing:  # since when, not when it was tried last
                values["failed_at"] = self._desk.runtime.clock.now()
        self._failing = err is not None
        with contextlib.suppress(RetryableError):
            await self._commit(values)

    async def _commit(self, values: Mapping[str, Value]) -> None:
        desk, lease = self._desk, self._desk.lease
        if lease.lost.is_set():
            raise FencedError(f"the lease on {lease.name} is lost")
        try:
            async with self._writing:
                await self._commits.commit(values, {"epoch": lease.epoch})
        except ConflictError as err:
            desk.runtime.leases.drop(lease)
            raise FencedError(f"{lease.name} has another owner now, or is not as we left it") from err


def row_key(desk: Desk, endpoint: str) -> dict[str, str]:
    """Key of the endpoint's `LastUpdated` row."""
    return {"tenant_id": desk.tenant_id, "service_endpoint": f"{desk.service}#{endpoint}"}


async def open_ledger(desk: Desk, spec: Spec) -> Ledger:
    """Claim the endpoint's row and load its memory; from then on nobody with a lower epoch can write it.

    Errors: FencedError; RetryableError.
    """
    row = await _claim(desk, spec)
    name = f"{desk.tenant_id}/{desk.service}/{spec.name}"
    local = desk.runtime.states.open(f"memory/{name}")
    state = SnapshotState(desk.runtime.objects, local, lambda n: state_key("memory", name, desk.lease.epoch, n))
    shape = shape_of(spec)
    marks = fitting(msgspec.convert(row.get("marks") or {}, Marks), shape)
    if not await _load(state, msgspec.convert(row.get("segments") or [], list[Segment])):
        desk.runtime.emit(MemoryLost(scope="memory", name=name))
        marks = Marks(shape=shape, lost=True)  # everything is published again; sweeps wait until it was
    return Ledger(desk, spec.name, Memory(state), marks, row)


def shape_of(spec: Spec) -> str:
    """The list that marks hold for, and what its records are remembered with for those that hang from them."""
    links = [".".join(link) for link in spec.rules.links]
    return "|".join([spec.shape, *links])


async def _load(state: SnapshotState, segments: Sequence[Segment]) -> bool:
    try:
        return await state.load(segments)
    except RejectedError:  # what lies there is not what we wrote
        await state.load([])
        return False


async def _claim(desk: Desk, spec: Spec) -> Row:
    key, table, epoch = row_key(desk, spec.name), desk.runtime.names.last_updated, desk.lease.epoch
    row = await desk.runtime.rows.get(table, key) or {}
    if int(row.get("epoch", 0)) >= epoch:
        raise FencedError(f"{spec.name} of {desk.lease.name} was claimed by a later owner")
    try:
        await desk.runtime.rows.write(table, key, {"epoch": epoch}, expect={"epoch": row.get("epoch")})
    except ConflictError as err:
        raise FencedError(f"{spec.name} of {desk.lease.name} has another owner") from err
    # Once more: until our claim the former owner may have saved, and thrown away what the row named before.
    return await desk.runtime.rows.get(table, key) or {}
