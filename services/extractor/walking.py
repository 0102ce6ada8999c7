"""A list from its first page to its last: asked for page by page, windows of time, repeated walks, exports and long
lists of fields included. What to ask and when to stop is decided in `pagination.py`; this only does it.

A page at a time is in memory. Where rows move while we walk, what is read may be read twice, and nothing is missed.
"""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Final, Generic, Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from services.contracts.errors import AvesaError, NotFoundError, RejectedError, RetryableError
from services.contracts.reading import (
    DeltaToken,
    Export,
    FieldList,
    LinkHeader,
    NextUrl,
    Pagination,
    SinceTime,
    TimeWindow,
)
from services.contracts.times import UtcTime, shifted
from services.extractor.addresses import followed
from services.extractor.answers import Answer, Opened, open_answer
from services.extractor.auth import Site
from services.extractor.below import included
from services.extractor.exports import Job, run_export
from services.extractor.fetch import Caller, Calls, Got
from services.extractor.meanings import terms_of
from services.extractor.pagination import (
    PAGES_MAX,
    WALKS_MAX,
    Place,
    Sighting,
    Turn,
    advance,
    ask,
    halved,
    moves,
    resting,
    together,
    window_after,
    window_at,
)
from services.extractor.plan import Spec
from services.extractor.records import (
    FUTURE_MAX_S,
    IdPage,
    RecordPage,
    Rules,
    in_parts,
    joined,
    names_reader,
    needed_names,
)
from services.extractor.requests import ParentValues, Request, Scope, list_request, one_request
from services.extractor.stamps import zone_of
from services.extractor.summary import EndpointSummary
from services.extractor.templates import fill
from services.runtime.runtime import Runtime

JOINS_MAX: Final = 4  # a page whose records change while it is asked for in parts
DESCRIBED_S: Final = 3_600.0  # after which fields are described anew: customers add some

T = TypeVar("T")
PageT = TypeVar("PageT", RecordPage, IdPage)
Read = Callable[[Answer, Rules, UtcTime], PageT]  # `read_page`, `read_ids`


class FieldNames(msgspec.Struct):
    """The fields that the vendor has described, to be believed until some time (monotonic seconds); None until it was
    asked, and again where a list was refused: one of them may be no more."""

    described: tuple[str, ...] | None = None
    until_s: float = 0.0


class Reader(Protocol):
    """Whose list is walked: `EndpointWork`."""

    @property
    def spec(self) -> Spec: ...
    @property
    def caller(self) -> Caller: ...
    @property
    def runtime(self) -> Runtime: ...
    @property
    def calls(self) -> Calls: ...
    @property
    def summary(self) -> EndpointSummary: ...
    @property
    def names(self) -> FieldNames: ...


class Look(msgspec.Struct):
    """A `Reader` for whoever looks at a list once and keeps nothing."""

    runtime: Runtime
    caller: Caller
    spec: Spec
    calls: Calls
    summary: EndpointSummary
    names: FieldNames


def look_at(runtime: Runtime, caller: Caller, spec: Spec) -> Look:
    return Look(runtime, caller, spec, Calls(), EndpointSummary("", "", spec.name), FieldNames())


class Step(msgspec.Struct, Generic[PageT], frozen=True):
    """What one page holds, or a part of a long one, and where the walk goes on (None: it was the last)."""

    got: Got[PageT]
    source: str
    following: Place | None


async def walk(
    reader: Reader,
    read: Read[PageT],
    *,
    since: UtcTime | None = None,
    parent: ParentValues | None = None,
    place: Place | None = None,
    sweep: bool = False,
    background: bool = False,
    token: str | None = None,
) -> AsyncGenerator[Step[PageT], None]:
    """Page after page, the first at `place`, as `read` makes them of the answers. A page that cannot be read in part is
    asked for once more first. The last step's turn holds the token with which the next read begins (delta).

    Errors: as `Caller.get`; RejectedError `pages_do_not_advance`, `wrong_host`; RetryableError where rows moved in
    every one of WALKS_MAX walks; UsageError `bad_mapping`.
    """
    spec = (reader.spec.for_sweep or reader.spec) if sweep else reader.spec
    scope = Scope(since=since, parent=parent, token=token)
    course = _Course(reader, spec, read, background=background, ids_only=sweep)
    start = place if place is not None and spec.resumable else Place()
    steps = course.windows(start, scope) if isinstance(spec.pagination, TimeWindow) else course.stable(start, scope)
    try:
        async with aclosing(steps):
            async for step in steps:
                rested = None if step.following is None else resting(spec.pagination, step.following)
                yield replace(step, following=rested)
    except RejectedError:
        reader.names.described = None
        raise


class _Course(Generic[PageT]):
    """One walk under way. `at` is the page that was read last; `full`: a window reached its cap."""

    def __init__(self, reader: Reader, spec: Spec, read: Read[PageT], *, background: bool, ids_only: bool) -> None:
        self._reader, self._spec = reader, spec
        self._read: Read[PageT] = read
        self._background, self._ids_only = background, ids_only
        self._rules, self._terms = spec.rules, terms_of(spec)
        self._at = Place()
        self._full = False

    # -- windows of time ----------------------------------------------------------------------------------------------
    async def windows(self, place: Place, scope: Scope) -> AsyncGenerator[Step[PageT], None]:
        """Window after window up to now; one that reaches the cap is read again in halves."""
        pagination, clock = self._spec.pagination, self._reader.runtime.clock
        assert isinstance(pagination, TimeWindow), "asked only of those"
        # What changes meanwhile, or while our clock is behind, moves ahead of us: a sweep must not miss it.
        ahead_s = FUTURE_MAX_S if self._ids_only else 0.0
        for _ in range(PAGES_MAX):
            window = window_at(pagination, place, scope.since, shifted(clock.now(), seconds=ahead_s))
            # A tick earlier, for vendors that mean `after` by their bounds.
            begun = window.from_at == scope.since
            since = window.from_at if begun else shifted(window.from_at, seconds=-self._spec.tick_s)
            inside = Place(from_at=window.from_at, length_s=place.length_s)
            count, following = 0, inside
            self._full = False
            steps = self.stable(inside, replace(scope, since=since, until=window.to_at), pagination.cap)
            async with aclosing(steps):
                async for step in steps:
                    count += step.got.value.turn.count
                    if step.following is None:
                        following = window_after(window, count, pagination.cap)
                    ended = step.following is None and window.last
                    yield replace(step, following=None if ended else following)
            if self._full:
                place = halved(pagination, window)
            elif window.last:
                return
            else:
                place = following
        raise RejectedError(f"more than {PAGES_MAX} windows of time", code="pages_do_not_advance")

    # -- rows that move -----------------------------------------------------------------------------------------------
    async def stable(self, place: Place, scope: Scope, cap: int | None = None) -> AsyncGenerator[Step[PageT], None]:
        """All pages; where rows move under them unseen, again, until one walk has seen all that the former saw."""
        if not moves(_inner(self._spec)):
            steps = self._pages(place, scope, cap)
            async with aclosing(steps):
                async for step in steps:
                    yield step
            return
        former: Sighting | None = None
        since = scope.since if self._newest_first else None
        for _ in range(WALKS_MAX):
            seen, done = Sighting(), False
            steps = self._pages(place, scope, cap)
            async with aclosing(steps):
                async for step in steps:
                    seen.note(self._at.pages, step.got.value.turn.rows, since)
                    alone = self._at.pages == 0  # one answer shows one moment
                    done = step.following is None and (alone or (former is not None and seen.confirms(former)))
                    yield step if done or step.following is not None else replace(step, following=self._at)
            if done or self._full:
                return
            former = seen
        raise RetryableError(f"{self._spec.path}: rows moved under the pages in each of {WALKS_MAX} walks")

    @property
    def _newest_first(self) -> bool:
        return isinstance(self._spec.incremental, SinceTime) and self._spec.incremental.newest_first

    # -- pages --------------------------------------------------------------------------------------------------------
    async def _pages(self, place: Place, scope: Scope, cap: int | None) -> AsyncGenerator[Step[PageT], None]:
        """One walk, or what of it fits under `cap`."""
        site = await self._reader.caller.site()
        zone = zone_of(fill(self._spec.time_zone, site.values))
        self._rules = replace(self._spec.rules, zone=zone, included=included(self._spec.parent, scope.parent))
        parts = await self._parts(site)
        asked = scope
        job: Got[Job] | None = None
        if self._spec.export is not None:  # what is asked for, the job was told
            job = await self._job(self._spec.export, replace(scope, fields=parts[0]))
            asked = Scope(parent=scope.parent, job=job.value)
        count = 0
        while True:
            self._at = place
            turn = Turn(0)
            following: Place | None = place
            requests = await self._requests(place, asked, parts)
            held: Step[PageT] | None = None  # the last part of a page waits until it is known where the walk goes on
            answers = self._answers(requests)
            async with aclosing(answers):
                async for got, counts in answers:
                    if held is not None:
                        yield held
                    held = Step(got if job is None else _as_of(job, got), requests[0].source, place)
                    if counts:
                        turn = together(turn, got.value.turn)
            assert held is not None, "a page is read or an error"
            count += turn.count
            try:
                following = self._following(place, requests[0], turn, scope)
            except AvesaError as err:
                err.where = err.where or requests[0].source
                raise
            self._full = cap is not None and count >= cap
            yield replace(held, following=place if self._full else following)
            if self._full or following is None:
                return
            place = following

    async def _job(self, export: Export, scope: Scope) -> Got[Job]:
        reader = self._reader
        return await run_export(
            reader.caller,
            reader.runtime.clock,
            self._spec,
            export,
            scope,
            calls=reader.calls,
            background=self._background,
        )

    def _following(self, place: Place, request: Request, turn: Turn, scope: Scope) -> Place | None:
        inner = _inner(self._spec)
        if isinstance(inner, NextUrl | LinkHeader) and turn.cursor is not None:
            turn = replace(turn, cursor=followed(request.address, turn.cursor))
        following = advance(inner, place, turn)
        wants_token = isinstance(self._spec.incremental, DeltaToken) and not self._ids_only
        nothing = scope.token is None and place.pages == 0 and turn.count == 0  # a cursor after no record is none
        if following is None and wants_token and turn.token is None and not nothing:
            raise RetryableError("the last page holds no token to begin the next read with", code="bad_answer")
        older = self._newest_first and scope.since is not None and turn.newest is not None
        return None if older and (turn.newest or "") < (scope.since or "") else following

    async def _requests(self, place: Place, scope: Scope, parts: Sequence[tuple[str, ...] | None]) -> list[Request]:
        """What asks for the page at `place`: one request for each part of the fields."""
        site = await self._reader.caller.site()
        page = ask(self._spec.pagination, place, self._rules.zone)
        return [list_request(site, self._spec, page, replace(scope, fields=part)) for part in parts]

    # -- one page -----------------------------------------------------------------------------------------------------
    async def _answers(self, requests: Sequence[Request]) -> AsyncGenerator[tuple[Got[PageT], bool], None]:
        """What a page holds, in one piece or several; and whether that counts, or comes once more."""
        if len(requests) > 1:
            yield await self._joined(requests), True
        elif self._spec.format != "json":
            reader = self._reader
            parts = reader.caller.download(
                requests[0],
                self._read_answer,
                self._spec.format,
                terms=self._terms,
                calls=reader.calls,
                background=self._background,
            )
            async with aclosing(parts):
                async for got in parts:
                    reader.summary.calls = reader.calls.count
                    yield got, True
        else:
            got = await self._get(requests[0], self._read_answer)
            if got.value.garbled:  # what could be read was read, and counts
                yield replace(got, value=got.value.usable), False
                got = await self._get(requests[0], self._read_answer)
            yield got, True

    def _read_answer(self, answer: Answer, observed_at: UtcTime) -> PageT:
        return self._read(answer, self._rules, observed_at)

    async def _get(self, request: Request, read: Callable[[Answer, UtcTime], T]) -> Got[T]:
        reader = self._reader
        try:
            return await reader.caller.get(
                request, read, terms=self._terms, calls=reader.calls, background=self._background
            )
        finally:
            reader.summary.calls = reader.calls.count

    async def _joined(self, requests: Sequence[Request]) -> Got[PageT]:
        """One page whose fields had to be asked for in several requests.

        Errors: RetryableError where its records changed in between each time.
        """
        threads = self._reader.runtime.threads
        for _ in range(JOINS_MAX):
            parts = [await self._get(request, self._opened) for request in requests]
            first = parts[0]
            whole = await threads.run(joined, [part.value[1] for part in parts], self._rules)
            if whole is not None:
                answer = replace(first.value[0], body=b"", opened=whole)
                page = await threads.run(self._read, answer, self._rules, first.observed_at)
                return Got(page, first.observed_at, first.earliest_at)
        raise RetryableError(f"{requests[0].source}: its records changed while their fields were asked for in parts")

    def _opened(self, answer: Answer, _: UtcTime) -> tuple[Answer, Opened]:
        return answer, open_answer(answer, self._rules.records, self._rules.format)

    # -- fields that must be named ------------------------------------------------------------------------------------
    async def _parts(self, site: Site) -> list[tuple[str, ...] | None]:
        """The names to ask for in each request; one None where none must be named."""
        wanted = self._spec.fields
        if wanted is None:
            return [None]
        return list(self._grouped(wanted, await self._described(site, wanted)))

    def _grouped(self, wanted: FieldList, described: Sequence[str]) -> list[tuple[str, ...]]:
        known = list(dict.fromkeys([*wanted.names, *described]))
        if not known:  # asked for none, a vendor would show what it likes
            raise RetryableError(f"{self._spec.path}: the vendor describes no field to ask for", code="bad_answer")
        needed = needed_names(known, self._rules)
        if self._spec.export is not None:
            return [tuple(known)]  # a job is told all of them
        return [needed] if self._ids_only and needed else in_parts(known, needed, wanted.at_once)

    async def _described(self, site: Site, wanted: FieldList) -> tuple[str, ...]:
        """The names that the vendor tells, asked for now and then. What it cannot find we may not see."""
        if wanted.describe is None:
            return ()
        names, now = self._reader.names, self._reader.runtime.clock.monotonic()
        if names.described is None or now >= names.until_s:
            request = one_request(site, self._spec, wanted.describe)
            try:
                got = await self._get(request, names_reader(wanted))
            except NotFoundError as err:
                needed = f"the permission {self._spec.permission!r}" if self._spec.permission else "the permission"
                remedy = f"Grant these credentials {needed} at the vendor, or switch the endpoint off."
                raise RejectedError(err.what, code="forbidden", remedy=remedy, where=err.where) from err
            names.described, names.until_s = got.value, now + DESCRIBED_S
        return names.described


def _as_of(job: Got[Job], page: Got[PageT]) -> Got[PageT]:
    """A page of an export was read when its job was created, however long that took: later changes are not in it."""
    return Got(page.value, min(job.observed_at, page.observed_at), min(job.earliest_at, page.earliest_at))


def _inner(spec: Spec) -> Pagination:
    """The pages, of a window too."""
    return spec.pagination.inner if isinstance(spec.pagination, TimeWindow) else spec.pagination
