"""Walking a list page by page: what to ask next, and when to stop. Pure.

A walk that does not advance would run for ever or, worse, end early: it is an error, never an end. Rows move while we
walk; what each kind does about it, so that no row is missed that stayed as it was:

    keyset, time_keyset   nothing to do: what comes after a key does not depend on what went before it
    offset                a page must show a row that was read before it; if not, the walk steps back until one does
    page, numbered link   the walk is repeated until one has seen all that the one before it saw (`Sighting`)
    time_window           records whose time does not change do not leave their window
    cursor, next_url, link  the vendor keeps the place
"""

import re
from collections.abc import Sequence
from datetime import UTC, tzinfo
from itertools import pairwise
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from services.contracts.access import Template
from services.contracts.errors import RejectedError, UsageError
from services.contracts.reading import (
    Cursor,
    Keyset,
    LinkHeader,
    NextUrl,
    Offset,
    OnePage,
    PageNumber,
    Pagination,
    TimeKeyset,
    TimeWindow,
)
from services.contracts.times import UtcTime, seconds_between, shifted
from services.extractor.stamps import format_time, time_of_text

PAGES_MAX: Final = 1_000_000  # of one walk
WALKS_MAX: Final = 5  # of one list of numbered pages, until two agree
STRIKES_MAX: Final = 3  # pages that came before; rows that move may bring one back by chance
STEPS_BACK_MAX: Final = 1_000  # of one walk
CUT_OFF: Final = frozenset({10, 20, 25, 30, 40})  # where vendors cut pages off, and at every
CUT_OFF_STEP: Final = 50
KNOWN_ROWS_MAX: Final = 5_000  # rows behind us by which an offset walk knows where it is
START_S: Final = 86_400.0  # of the first window of time: how much lies in one is not known yet
REPEATED_S: Final = 3_600.0  # what clocks repeat in autumn
_ZONED = re.compile(r"(?:[Zz]|[+-]\d\d:?\d\d|\d{9,}|/)$", re.ASCII)
_WHOLE = re.compile(r"-?\d{1,40}", re.ASCII)


class Row(NamedTuple):
    """One record on a page, for walks whose rows move: 64 bits of its id and of its content, and its stamp."""

    record: int
    content: int
    stamp: UtcTime | None = None


class Turn(msgspec.Struct, frozen=True):
    """What a page says about the walk.

    Shape:  `count` records on it, usable or not; `keys` in order (keyset), with their `times` as the vendor wrote them
            (time_keyset); `digest` of its bytes; `rows` only where `Rules.rows` asks for them. `cursor` is the vendor's
            own, or the address of the next page; `token` where the next read begins (delta). `oldest` and `newest` of
            the stamps, `first` and `last` of the record ids. What the answer does not tell is None.
    """

    count: int
    keys: tuple[str, ...] = ()
    digest: str = ""
    times: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    cursor: str | None = None
    more: bool | None = None
    end: bool | None = None
    pages: int | None = None
    total: int | None = None
    token: str | None = None
    first: str | None = None
    last: str | None = None
    oldest: UtcTime | None = None
    newest: UtcTime | None = None


def together(former: Turn, latter: Turn) -> Turn:
    """What two parts of one page say, as one."""
    return replace(
        latter,
        count=former.count + latter.count,
        keys=latter.keys or former.keys,
        times=latter.times or former.times,
        digest=f"{former.digest[-32:]}{latter.digest}" if former.digest else latter.digest,
        rows=(*former.rows, *latter.rows),
        first=former.first or latter.first,
        last=latter.last or former.last,
        oldest=min(filter(None, (former.oldest, latter.oldest)), default=None),
        newest=max(filter(None, (former.newest, latter.newest)), default=None),
    )


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a walk stands: `pages` read so far; `after` the last key read (keyset), `after_time` what goes with it;
    `cursor` of the next page, or its address; `offset` of the next row, `known` some contents read before it;
    `from_at` where the window of time begins, which is `length_s` long.

    `trail` is a former page and `trail_cursor` what led on from it, to notice that we are walking in a circle.
    """

    pages: int = 0
    after: str | None = None
    trail: str = ""
    after_time: str | None = None
    cursor: str | None = None
    trail_cursor: str | None = None
    strikes: int = 0
    offset: int | None = None
    back: int = 0
    known: tuple[int, ...] = ()
    from_at: UtcTime | None = None
    length_s: float | None = None


class Ask(msgspec.Struct, frozen=True):
    """What the pagination adds to a request: query parameters, a filter clause (a template), `values` for templates, or
    the `address` of the page itself. `label` names the page for a person."""

    params: dict[str, str] = {}
    clause: Template | None = None
    label: str = ""
    values: dict[str, str] = {}
    address: str | None = None


# -- asking -----------------------------------------------------------------------------------------------------------
def ask(pagination: Pagination, place: Place, zone: tzinfo = UTC) -> Ask:  # noqa: PLR0911  one for each kind
    """How to ask for the page at `place`; `zone` is that of times without one. Errors: UsageError `bad_mapping`."""
    page = f"page {place.pages + 1}"
    match pagination:
        case OnePage():
            return Ask()
        case PageNumber():
            number = str(pagination.first + place.pages)
            return _sized(pagination.size_param, pagination.size, {"page": number}, pagination.param, f"page {number}")
        case Offset():
            offset = _offset(pagination, place)
            size = pagination.size if pagination.most is None else min(pagination.size, pagination.most - offset)
            return _sized(pagination.size_param, size, {"offset": str(offset)}, pagination.param, f"offset {offset}")
        case Cursor():
            values = {} if place.cursor is None else {"cursor": place.cursor}
            return _sized(pagination.size_param, pagination.size, values, pagination.param, page)
        case NextUrl() | LinkHeader():
            if place.cursor is not None:
                return Ask({}, None, page, {"size": str(pagination.size)}, place.cursor)
            return _sized(pagination.size_param, pagination.size, {}, None, page)
        case Keyset():
            after = pagination.start if place.after is None else place.after
            values = {} if after is None else {"after": after}
            asked = _sized(
                pagination.size_param, pagination.size, values, pagination.param, f"after {after}" if after else page
            )
            return replace(asked, params={**pagination.order, **asked.params}, clause=pagination.clause)
        case TimeKeyset():
            values = _after(pagination, place, zone)
            label = f"after {values['after_time']} {values['after']}" if values else page
            asked = _sized(pagination.size_param, pagination.size, values, None, label)
            return replace(asked, params={**pagination.order, **asked.params}, clause=pagination.clause)
        case TimeWindow():
            return ask(pagination.inner, place, zone)


def _sized(size_param: str | None, size: int, values: dict[str, str], param: str | None, label: str) -> Ask:
    """Values by name, the first of them as `param` besides, and the size."""
    first = next(iter(values.values()), None)
    params = {param: first} if param is not None and first is not None else {}
    if size_param is not None:
        params[size_param] = str(size)
    return Ask(params, None, label, {**values, "size": str(size)})


def _after(pagination: TimeKeyset, place: Place, zone: tzinfo) -> dict[str, str]:
    if place.after is None or place.after_time is None:
        return {}
    if pagination.format is None:
        return {"after": place.after, "after_time": place.after_time}
    try:
        time = time_of_text(place.after_time, zone)
    except ValueError as err:
        raise _stalled(f"the time of its last record cannot be read ({err})") from err
    return {"after": place.after, "after_time": format_time(time, pagination.format, zone)}


def _offset(pagination: Offset, place: Place) -> int:
    return pagination.first if place.offset is None else place.offset


# -- going on ---------------------------------------------------------------------------------------------------------
def resumable(pagination: Pagination) -> bool:
    """May a walk go on where it stopped long ago? Pages move under their numbers; keys and times do not."""
    match pagination:
        case Keyset() | TimeKeyset() | TimeWindow():
            return True
        case Cursor():
            return pagination.lasts
        case _:
            return False


def resting(pagination: Pagination, place: Place) -> Place:
    """What of `place` is worth keeping until another day."""
    match pagination:
        case TimeWindow():
            return Place(from_at=place.from_at, length_s=place.length_s)
        case _ if resumable(pagination):
            return place
        case _:
            return Place(pages=place.pages)


def moves(pagination: Pagination) -> bool:
    """Do rows move under the pages unseen, so that a walk must be repeated?"""
    match pagination:
        case PageNumber() | LinkHeader(numbered=True) | Offset(overlap=0):
            return True
        case _:
            return False


def advance(pagination: Pagination, place: Place, turn: Turn) -> Place | None:  # noqa: PLR0911  one for each kind
    """The next place after a page, None when it was the last.

    Errors: RejectedError `pages_do_not_advance`.
    """
    match pagination:
        case OnePage():
            return None
        case PageNumber():
            rows = (place.offset or 0) + turn.count
            return _next(place, turn, offset=rows) if _more_pages(pagination, place, turn) else None
        case Offset():
            return _advance_offset(pagination, place, turn)
        case Cursor():
            return _advance_cursor(pagination, place, turn)
        case NextUrl() | LinkHeader():
            return _advance_address(place, turn)
        case Keyset():
            return _advance_keyset(pagination, place, turn)
        case TimeKeyset():
            return _advance_time_keyset(pagination, place, turn)
        case TimeWindow():
            return advance(pagination.inner, place, turn)


def _advance_address(place: Place, turn: Turn) -> Place | None:
    if turn.cursor is None:
        return None
    if turn.cursor in (place.cursor, place.trail_cursor):
        raise _stalled("the next page came before")
    return _next(place, turn, cursor=turn.cursor)


def _advance_keyset(pagination: Keyset, place: Place, turn: Turn) -> Place | None:
    _check_order(place, turn.keys)
    if _is_last(pagination.until, pagination.size, turn):
        return None
    if not turn.keys:
        raise _stalled(f"no record of a full page has a {pagination.key!r}")
    return _next(place, turn, after=turn.keys[-1])


def _advance_time_keyset(pagination: TimeKeyset, place: Place, turn: Turn) -> Place | None:
    _check_times(pagination, place, turn)
    if _is_last("short_page", pagination.size, turn):
        return None
    if not turn.keys:
        raise _stalled(f"no record of a full page has a {pagination.time!r} and a {pagination.id!r}")
    if (turn.keys[-1], turn.times[-1]) == (place.after, place.after_time):
        raise _stalled(f"record {place.after} comes after itself")
    return replace(_next(place, turn, after=turn.keys[-1]), after_time=turn.times[-1])


def _is_last(until: str, size: int, turn: Turn, overlap: int = 0) -> bool:
    """A page of a round number of records may be one that the vendor cut off below the `size` that was asked for: only
    the next one tells."""
    cut_off = turn.count > overlap and (turn.count in CUT_OFF or turn.count % CUT_OFF_STEP == 0)
    return turn.count == 0 if until == "empty_page" or cut_off else turn.count < size


def _more_pages(pagination: PageNumber, place: Place, turn: Turn) -> bool:
    if turn.more is not None:
        return turn.more
    if turn.pages is not None:
        return place.pages + 1 < turn.pages
    if turn.total is not None:
        return turn.count > 0 and (place.offset or 0) + turn.count < turn.total
    return not _is_last(pagination.until, pagination.size, turn)


def _advance_offset(pagination: Offset, place: Place, turn: Turn) -> Place | None:
    """Rows that were deleted before us pull up those ahead: then a page shows nothing we know, and we look further
    back. A known row has not moved, so all that comes after it is on this page or ahead."""
    offset = _offset(pagination, place)
    contents = [row.content for row in turn.rows]
    if pagination.overlap and offset > pagination.first and not set(place.known).intersection(contents):
        if place.back >= STEPS_BACK_MAX:
            raise _stalled(f"no row of a page is one of the {len(place.known)} read before it")
        back = max(pagination.first, offset - max(1, pagination.size - pagination.overlap))
        return replace(place, offset=back, back=place.back + 1)
    reached = offset + turn.count
    more = turn.more
    if more is None:
        size = pagination.size if pagination.most is None else min(pagination.size, pagination.most - offset)
        if turn.total is not None:
            more = reached - pagination.first < turn.total
        else:
            more = not _is_last("short_page", size, turn, pagination.overlap)
    if pagination.most is not None and reached >= pagination.most:
        raise RejectedError(
            f"there are more rows than the {pagination.most} that the vendor shows", code="pages_do_not_advance"
        )
    if not more or (turn.total is not None and turn.count == 0):
        return None
    known = (*place.known, *contents)[-KNOWN_ROWS_MAX:] if pagination.overlap else ()
    following = max(offset, reached - pagination.overlap)
    return replace(_next(place, turn, offset=following), known=known)


def _advance_cursor(pagination: Cursor, place: Place, turn: Turn) -> Place | None:
    if turn.more is False or turn.end is True:
        return None
    if turn.cursor is None:
        if turn.more or turn.end is False or (pagination.last is not None and turn.count > 0):
            raise _stalled("there is more, and no cursor that leads on")
        return None
    if turn.count == 0 and (turn.cursor == place.cursor or pagination.last is not None):
        return None  # a scroll has been rolled to its end
    if pagination.last is not None and turn.cursor == place.cursor:
        raise _stalled("a page ends with the record that the one before it ended with")
    if turn.cursor != place.cursor and turn.cursor == place.trail_cursor:
        raise _stalled("its cursor came before")
    return _next(place, turn, cursor=turn.cursor)


def _check_order(place: Place, keys: Sequence[str]) -> None:
    """Whole numbers must grow strictly, from page to page and within one; the order of other keys is the vendor's."""
    walked = [*([place.after] if place.after is not None else []), *keys]
    if not all(_WHOLE.fullmatch(key) for key in walked):
        if len(keys) > 0 and keys[-1] == place.after:
            raise _stalled(f"key {place.after} comes after itself")
        return
    numbers = [int(key) for key in walked]
    for former, later in pairwise(numbers):
        if later <= former:
            raise _stalled(f"key {later} comes after key {former}: the vendor does not sort or filter as asked")


def _check_times(pagination: TimeKeyset, place: Place, turn: Turn) -> None:
    """Times must not go back, and where they are the same, whole numbers must grow: records behind a pair out of order
    would never be read. Times that cannot be read are the vendor's affair."""
    pairs = list(zip(turn.times, turn.keys, strict=True))
    if place.after is not None and place.after_time is not None and pagination.format is None:
        pairs.insert(0, (place.after_time, place.after))  # in a format of ours it was cut: some are shown again
    for (time, key), (next_time, next_key) in pairwise(pairs):
        if time == next_time and _WHOLE.fullmatch(key) and _WHOLE.fullmatch(next_key) and int(next_key) <= int(key):
            raise _stalled(f"at one time, id {next_key} comes after {key}: the vendor does not sort or filter as asked")
        if _goes_back(time, next_time):
            raise _stalled(f"time {next_time} comes after {time}: the vendor does not sort or filter as asked")


def _goes_back(former: str, later: str) -> bool:
    """Local times go back by an hour every autumn."""
    try:
        earlier, then = time_of_text(former), time_of_text(later)
    except ValueError:
        return False
    return then < (earlier if _ZONED.search(former) else shifted(earlier, seconds=-REPEATED_S))


def _next(
    place: Place, turn: Turn, *, after: str | None = None, cursor: str | None = None, offset: int | None = None
) -> Place:
    """One page on. Brent's cycle detection: each page is held against the one at the last power of two."""
    pages = place.pages + 1
    # Empty pages on the way look alike: there the cursors tell.
    shown = turn.digest if turn.count else f"nothing before {cursor}"
    strikes = place.strikes + 1 if shown == place.trail else place.strikes
    if strikes >= (1 if after is not None else STRIKES_MAX):
        raise _stalled(f"page {pages} came before")
    if pages >= PAGES_MAX:
        raise _stalled(f"more than {PAGES_MAX} pages")
    trailing = pages & (pages - 1) == 0
    return replace(
        place,
        pages=pages,
        after=after,
        cursor=cursor,
        offset=offset,
        strikes=strikes,
        trail=shown if trailing else place.trail,
        trail_cursor=cursor if trailing else place.trail_cursor,
    )


def _stalled(what: str) -> RejectedError:
    return RejectedError(f"the pages do not advance: {what}", code="pages_do_not_advance")


# -- numbered pages, walked twice -------------------------------------------------------------------------------------
class Sighting:
    """What one walk over numbered pages saw: 64 bits of each record's id, of its content, and its page.

    A row that stayed as it was is missed only when one before it, already read, went away or moved behind it during the
    walk. Then the next walk does not find that one, or this walk saw it twice: with other content, or far apart.
    """

    def __init__(self) -> None:
        self.seen: dict[int, int] = {}  # record -> content and page, in one number: a hundred bytes for a record
        self.moved = False

    def note(self, page: int, rows: Sequence[Row], since: UtcTime | None = None) -> None:
        """The rows of a page; those older than `since` are not asked for, and may be missing at the next walk."""
        for row in rows:
            if since is not None and row.stamp is not None and row.stamp < since:
                continue
            content, former = divmod(self.seen.setdefault(row.record, row.content * PAGES_MAX + page), PAGES_MAX)
            if content != row.content or page - former > 1:
                self.moved = True

    def confirms(self, former: "Sighting") -> bool:
        """Has `former` missed nothing that this walk did not see either?"""
        return not former.moved and former.seen.keys() <= self.seen.keys()


# -- windows of time --------------------------------------------------------------------------------------------------
class Window(msgspec.Struct, frozen=True):
    """[from_at, to_at) of a search by time; `last`: it reaches to now."""

    from_at: UtcTime
    to_at: UtcTime
    last: bool


def window_at(pagination: TimeWindow, place: Place, since: UtcTime | None, now: UtcTime) -> Window:
    """The window to read at `place`: from the mark or `start` on, or where the last one ended."""
    from_at = place.from_at or since or start_of(pagination)
    length_s = min(place.length_s or START_S, pagination.longest_s)
    to_at = shifted(from_at, seconds=length_s)
    return Window(from_at, to_at, last=False) if to_at < now else Window(from_at, max(from_at, now), last=True)


def start_of(pagination: TimeWindow) -> UtcTime:
    """Where a full read begins. Errors: UsageError `bad_mapping`."""
    try:
        return time_of_text(pagination.start)
    except ValueError as err:
        raise UsageError(f"pagination.start: {err}", code="bad_mapping") from err


def halved(pagination: TimeWindow, window: Window) -> Place:
    """The first half of a window that reached the cap. Errors: RejectedError `pages_do_not_advance`."""
    length_s = seconds_between(window.from_at, window.to_at)
    if length_s <= pagination.shortest_s:
        raise _stalled(
            f"{pagination.cap} records or more within {pagination.shortest_s:g} s of {window.from_at}, "
            "and the vendor shows no more of them"
        )
    return Place(from_at=window.from_at, length_s=max(pagination.shortest_s, length_s / 2))


def window_after(window: Window, count: int, cap: int) -> Place:
    """Where the next window begins, and how long it is: longer, where this one was far from full."""
    length_s = seconds_between(window.from_at, window.to_at)
    return Place(from_at=window.to_at, length_s=length_s * 2 if count * 4 <= cap else length_s)
