"""Poison: which record ends whoever reads it, found in isolation (faults.md row 23).

A lease counts in its row how many owners in a row ended badly and committed nothing. One that comes after too many of
them works *suspiciously*: before it takes records for good it runs the pure work over them without any effect. What it
tries stands in the row first (`trial`); whoever finds a trial there that it outlived knows what to halve: by records,
then by lines within one. A line that alone is fatal again and again is *convicted*: noted in the row (`poison`) and
from then on a dead letter with its bytes; what raises what nobody meant is convicted at once, without a death.

    deaths of a fatal line among n:  2 before anyone is suspicious + at most log2(n) + 2 + CONVINCED_AFTER

What is fatal together and in no part of it, CONVINCED_AFTER times, or a death that no trial shows (in publishing), is
isolated by taking records for good, one at a time and each committed; one that is fatal CONVINCED_AFTER times then is
convicted whole. Lines are counted from 0.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from services.contracts.errors import FatalError, RejectedError
from services.contracts.log import Event, PoisonIsolated, PoisonSuspected
from services.contracts.ports import Row, Value
from services.runtime.leases import Lease
from services.runtime.loop import outcome_of

SUSPICIOUS_AFTER: Final = 2  # deaths without a commit: the third attempt is a suspicious one (faults.md row 23)
CONVINCED_AFTER: Final = 3  # deaths in one and the same smallest trial: fewer may be of a machine, not of the record
CALM_AFTER: Final = 32  # searches that found nothing: further than an owner gets before its first commit
CONVICTED_MAX: Final = 2_000  # at a time, about 100 bytes each: the row they stand in holds 400 KB (DynamoDB, Quotas)
WHOLE: Final = -1  # in place of a line: the record cannot even be opened


class Suspect(msgspec.Struct, frozen=True, gc=False):
    """One record: how many lines it says it has (0: it does not say, and is tried whole) and how many bytes."""

    sequence: str
    lines: int
    size: int


class Conviction(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A line, or with WHOLE a record, that is not read any more. `raised` is the error's type, empty where it was
    fatal; `attempts` is how often it was met."""

    sequence: str
    line: int
    attempts: int
    raised: str = ""

    @property
    def error(self) -> RejectedError:
        """Why it lies among the dead letters."""
        what = "record" if self.line == WHOLE else "line"
        did = f"raised {self.raised}" if self.raised else f"ended the process that read it, {self.attempts} times"
        return RejectedError(
            f"this {what} {did}",
            code="poison",
            remedy="A mistake of ours: report it with this letter, and replay the letter once it is mended.",
        )


class Reading(msgspec.Struct, frozen=True, gc=False):
    """How one record is read: without what is convicted (by line), and in a trial from `start` to before `stop`."""

    convicted: Mapping[int, Conviction] = {}
    start: int = 0
    stop: int | None = None

    def tries(self, line: int) -> bool:
        return line >= self.start and (self.stop is None or line < self.stop)

    def check(self, line: int) -> None:
        """Errors: RejectedError `poison` where a line, or with WHOLE the record, is convicted."""
        if line in self.convicted:
            raise self.convicted[line].error

    def attempts(self, line: int) -> int:
        """How often it was met, for its letter."""
        return self.convicted[line].attempts if line in self.convicted else 1


ALL: Final = Reading()
Readings = Mapping[str, Reading]  # by sequence; a record that is not there is read whole
# An effect-free run of a service's pure work over the records with these sequences.
Probe = Callable[[Sequence[str], Readings], Awaitable[object]]


# -- what to try next: pure -------------------------------------------------------------------------------------------
class Span(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """The records from `first` to `last`, or of one record the lines from `start` to before `stop`.

    No lines at all (0, 0) means opening the record: what is fatal in that no line is to blame for.
    """

    first: str
    last: str
    start: int = 0
    stop: int = -1  # of a record: not divided into lines yet

    @property
    def lines(self) -> range | None:
        return None if self.stop < 0 else range(self.start, self.stop)

    def holds(self, sequence: str) -> bool:
        return int(self.first) <= int(sequence) <= int(self.last)


class Trial(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What an owner was trying, as its row tells. It was fatal if the row counts more `deaths` now than it did then;
    `fatal` is how often exactly this was before. `for_good`: no probe, but the work itself."""

    span: Span
    deaths: int
    fatal: int = 0
    for_good: bool = False


def span_of(records: Sequence[Suspect]) -> Span:
    return Span(records[0].sequence, records[-1].sequence)


def within(span: Span, records: Iterable[Suspect]) -> list[Suspect]:
    return [record for record in records if span.holds(record.sequence)]


def halves(span: Span, records: Sequence[Suspect]) -> tuple[Span, Span] | None:
    """A span in two, in order; None for the smallest there is. `records` are those that may be in it.

    Shape:  records by their number; one record into its opening and all of its lines; lines by their number.
    """
    lines = span.lines
    if lines is not None:
        if len(lines) < 2:
            return None
        middle = (span.start + span.stop) // 2
        return msgspec.structs.replace(span, stop=middle), msgspec.structs.replace(span, start=middle)
    held = within(span, records)
    if len(held) > 1:
        middle = len(held) // 2
        return span_of(held[:middle]), span_of(held[middle:])
    if not held or held[0].lines == 0:
        return None
    one = held[0]
    return Span(one.sequence, one.sequence, 0, 0), Span(one.sequence, one.sequence, 0, one.lines)


def sample(
    span: Span, records: Iterable[Suspect], poison: Mapping[str, Mapping[int, Conviction]]
) -> tuple[list[str], dict[str, Reading]]:
    """What a trial of `span` runs over: the records, and how those are read that are not read whole."""
    tried = [one.sequence for one in within(span, records) if WHOLE not in poison.get(one.sequence, {})]
    lines = span.lines
    if lines is not None:
        return tried, {sequence: Reading(poison.get(sequence, {}), lines.start, lines.stop) for sequence in tried}
    return tried, {sequence: Reading(poison[sequence]) for sequence in tried if sequence in poison}


# -- the inquest ------------------------------------------------------------------------------------------------------
class Isolation:
    """What else a process does while it searches: no other pure work, or a death would be blamed on what was tried."""

    def __init__(self) -> None:
        self._door, self._idle, self._working = asyncio.Lock(), asyncio.Event(), 0
        self._idle.set()

    @asynccontextmanager
    async def beside_others(self) -> AsyncIterator[None]:
        """Pure work, any number of it at a time; waits while a search is on."""
        async with self._door:
            self._working += 1
            self._idle.clear()
        try:
            yield
        finally:
            self._working -= 1
            if not self._working:
                self._idle.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """A search, and what is taken for good after it; waits until all other work has ended."""
        async with self._door:
            await self._idle.wait()
            yield


class Inquest:
    """What is known and done about poison in the work of one lease. Errors: FencedError, RetryableError.

    A search goes on alone in its process (`Isolation`).
    `divisible`: records can be taken for good one at a time. Where they cannot, what is fatal only as a whole loses
    its largest record, again and again if need be.
    """

    def __init__(self, lease: Lease, row: Row, emit: Callable[[Event], None], *, divisible: bool = True) -> None:
        self._lease, self._emit, self._divisible = lease, emit, divisible
        self._poison: dict[str, dict[int, Conviction]] = {}
        for one in msgspec.convert(row.get("poison") or [], list[Conviction], strict=False):
            self._poison.setdefault(one.sequence, {})[one.line] = one
        trial = msgspec.convert(row["trial"], Trial, strict=False) if row.get("trial") else None
        self._died = trial if trial is not None and lease.deaths > trial.deaths else None
        self._noted = bool(row.get("trial"))
        self._found: list[Conviction] = []  # by the search that goes on
        self._fatal: dict[Span, int] = {}  # how often spans that are now taken for good were fatal before
        self._left = CALM_AFTER if lease.deaths >= SUSPICIOUS_AFTER or self._died is not None else 0
        self._deaths = lease.deaths  # a commit before the first search forgets them
        self._said = False

    @property
    def suspicious(self) -> bool:
        """Must records be searched before they are taken for good?"""
        return self._left > 0

    def suspect(self) -> None:
        """Something raised what nobody meant: no need to die of it first."""
        self._left, self._deaths = CALM_AFTER, self._lease.deaths

    def reading(self, sequence: str) -> Reading:
        """How a record is read, whoever reads it."""
        found = self._poison.get(sequence)
        return ALL if found is None else Reading(found)

    def readings(self, sequences: Iterable[str]) -> dict[str, Reading]:
        """How records are read that are not read whole."""
        return {sequence: Reading(self._poison[sequence]) for sequence in sequences if sequence in self._poison}

    async def search(self, records: Sequence[Suspect], probe: Probe) -> list[Sequence[Suspect]]:
        """Convict what is fatal among `records`; then how to take them for good: in these groups, one after the other,
        each between `begin` and a commit of what `closing` says.

        Errors: FatalError when so much is poison that the program must be.
        """
        if not records:
            return []
        if not self._said:
            self._said = True
            self._emit(PoisonSuspected(scope=self._lease.scope, name=self._lease.name, deaths=self._deaths))
        self._left -= 1
        self._found = []
        alone = await self._take_up_trial(records, probe)
        while not alone:
            before = len(self._found)
            if await self._sift(span_of(records), records, probe):
                break
            alone = len(self._found) == before  # fatal together, and no part of it is
        if self._found:
            self._left = CALM_AFTER
            self._say([one for one in self._found if one.raised])
            await self._note(None)
        return [[record] for record in records] if alone and self._divisible else [records]

    async def begin(self, group: Sequence[Suspect]) -> None:
        """These are taken for good now."""
        span = span_of(group)
        await self._note(Trial(span, self._lease.deaths, self._fatal.get(span, 0), for_good=True))

    def closing(self, through: str | None) -> dict[str, Value]:
        """What a commit of everything up to `through` says besides: the trial is over, and what lies behind is
        forgotten."""
        if not self._noted and not self._poison:
            return {}
        reached = int(through or 0)
        self._poison = {sequence: lines for sequence, lines in self._poison.items() if int(sequence) > reached}
        self._noted = False
        return {"trial": None, "poison": self._convictions or None}

    # -- what former owners left
    async def _take_up_trial(self, records: Sequence[Suspect], probe: Probe) -> bool:
        """Go on with a trial that was fatal. Must records be taken one at a time now?"""
        died, held = self._died, [] if self._died is None else within(self._died.span, records)
        if died is None or not held:
            return False
        self._died = None
        fatal = died.fatal + 1
        if died.for_good:
            return await self._take_up_work(held, fatal)
        span = died.span if died.span.lines is not None else span_of(held)
        await self._sift(span, records, probe, guilty=True, fatal=fatal)
        if self._found or halves(span, records) is None:
            return False
        # No part of it is. Is it fatal as a whole, or was the death not of this trial at all?
        if fatal < CONVINCED_AFTER:
            return bool(await self._try(span, records, probe, fatal))
        if not self._divisible:
            await self._convict_largest(held)
        return True

    async def _take_up_work(self, held: Sequence[Suspect], fatal: int) -> bool:
        """Go on after a death for good."""
        if self._divisible and len(held) > 1:
            return True
        if fatal < CONVINCED_AFTER:
            self._fatal[span_of(held)] = fatal
            return self._divisible  # where nothing can be taken alone, it is searched once more first
        await self._convict_largest(held)
        return True

    async def _convict_largest(self, held: Sequence[Suspect]) -> None:
        free = [record for record in held if WHOLE not in self._poison.get(record.sequence, {})]
        largest = max(free or held, key=lambda record: record.size)
        await self._convict(Span(largest.sequence, largest.sequence), "")

    # -- trials
    async def _sift(
        self, span: Span, records: Sequence[Suspect], probe: Probe, *, guilty: bool = False, fatal: int = 0
    ) -> bool:
        """Convict what is poison in a span. Returns whether it was clean; `guilty` says that it is known not to be."""
        raised = ""
        if not guilty:
            raised = await self._try(span, records, probe)
            if not raised:
                return True
        parts = halves(span, records)
        if parts is not None:
            first, second = parts
            clean = await self._sift(first, records, probe)
            await self._sift(second, records, probe, guilty=clean)  # what is not in the first half is in the second
            return False
        if not raised and fatal < CONVINCED_AFTER:
            raised = await self._try(span, records, probe, fatal)
        if raised or fatal >= CONVINCED_AFTER:
            await self._convict(span, raised)
        return False

    async def _try(self, span: Span, records: Sequence[Suspect], probe: Probe, fatal: int = 0) -> str:
        """One trial: the type of what it raised, empty if nothing; a fatal one does not return."""
        sequences, readings = sample(span, records, self._poison)
        if not sequences:
            return ""
        await self._note(Trial(span, self._lease.deaths, fatal))
        outcome = await outcome_of(probe(sequences, readings))
        return type(outcome).__name__ if isinstance(outcome, Exception) else ""

    async def _convict(self, span: Span, raised: str) -> None:
        if sum(map(len, self._poison.values())) >= CONVICTED_MAX:
            raise FatalError(
                f"more than {CONVICTED_MAX} lines of {self._lease.name} cannot be read for reasons nobody foresaw",
                code="poison",
                where=self._lease.scope,
                remedy="The mistake is the program's, not theirs: go back to the release before. Nothing is lost.",
            )
        line = span.start if span.lines else WHOLE
        found = Conviction(span.first, line, max(1, self._lease.deaths), raised)
        self._poison.setdefault(span.first, {})[line] = found
        self._found.append(found)
        if not raised:  # what raises will raise again: said and noted once, when the search is over
            self._say([found])
            await self._note(None)

    async def _note(self, trial: Trial | None) -> None:
        """Into the row, before anything of it happens; convictions when no trial is on."""
        self._noted = True
        values = {"trial": _plain(trial)} if trial else {"trial": None, "poison": self._convictions or None}
        await self._lease.note(values)

    @property
    def _convictions(self) -> list[Value]:
        return [_plain(one) for lines in self._poison.values() for one in lines.values()]

    def _say(self, found: Sequence[Conviction]) -> None:
        """Before it is noted: who comes after a note whose answer was lost finds nothing any more. Rather twice."""
        if found:
            first, count = found[0].sequence, len(found)
            self._emit(PoisonIsolated(scope=self._lease.scope, name=self._lease.name, first=first, count=count))


def _plain(value: object) -> Any:
    return msgspec.to_builtins(value)
