"""Walking a list page by page: what to ask next, and when to stop. Pure.

A walk that does not advance would run for ever or, worse, end early: it is an error, never an end.
"""

import re
from itertools import pairwise

import msgspec

from services.contracts.errors import RejectedError
from services.contracts.integration import Keyset, OnePage, PageNumber, Pagination
from services.extractor.templates import fill

PAGES_MAX = 1_000_000  # of one walk
_WHOLE = re.compile(r"-?\d{1,40}", re.ASCII)


class Place(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where a walk stands: `pages` read so far, `after` the last key read (keyset), `trail` a former page, to notice
    that we are walking in a circle."""

    pages: int = 0
    after: str | None = None
    trail: str = ""


class Turn(msgspec.Struct, frozen=True):
    """What a page says about the walk: records on it (usable or not), their keys in order, a digest of its bytes."""

    count: int
    keys: tuple[str, ...]
    digest: str


class Ask(msgspec.Struct, frozen=True):
    """What the pagination adds to a request. `label` names the page for a person."""

    params: dict[str, str] = {}
    clause: str | None = None
    label: str = ""


def ask(pagination: Pagination, place: Place) -> Ask:
    """How to ask for the page at `place`."""
    match pagination:
        case OnePage():
            return Ask()
        case PageNumber():
            number = str(pagination.first + place.pages)
            size = {pagination.size_param: str(pagination.size)} if pagination.size_param else {}
            return Ask({pagination.param: number, **size}, None, f"page {number}")
        case Keyset():
            after = pagination.start if place.after is None else place.after
            size = {pagination.size_param: str(pagination.size)} if pagination.size_param else {}
            return Ask({**pagination.order, **size}, fill(pagination.clause, {"after": after}), f"after {after}")


def resumable(pagination: Pagination) -> bool:
    """May a walk go on where it stopped long ago? Pages move under their numbers; keys do not."""
    return isinstance(pagination, Keyset)


def advance(pagination: Pagination, place: Place, turn: Turn) -> Place | None:
    """The next place after a page, None when it was the last.

    Errors: RejectedError `pages_do_not_advance`.
    """
    match pagination:
        case OnePage():
            return None
        case PageNumber():
            return _next(place, turn.digest, None) if turn.count >= pagination.size else None
        case Keyset():
            _check_order(place, turn.keys)
            if turn.count < pagination.size:
                return None
            if not turn.keys:
                raise _stalled(f"no record of a full page has a {pagination.key!r}")
            return _next(place, turn.keys[-1], turn.keys[-1])


def _check_order(place: Place, keys: tuple[str, ...]) -> None:
    """Whole numbers must grow strictly, from page to page and within one; the order of other keys is the vendor's."""
    walked = [*([place.after] if place.after is not None else []), *keys]
    if not all(_WHOLE.fullmatch(key) for key in walked):
        return
    numbers = [int(key) for key in walked]
    for former, later in pairwise(numbers):
        if later <= former:
            raise _stalled(f"key {later} comes after key {former}: the vendor does not sort or filter as asked")


def _next(place: Place, shown: str, after: str | None) -> Place:
    """One page on. Brent's cycle detection: each page is held against the one at the last power of two."""
    pages = place.pages + 1
    if shown == place.trail or (after is not None and after == place.after):
        raise _stalled(f"page {pages} came before")
    if pages >= PAGES_MAX:
        raise _stalled(f"more than {PAGES_MAX} pages")
    return Place(pages, after, shown if pages & (pages - 1) == 0 else place.trail)


def _stalled(what: str) -> RejectedError:
    return RejectedError(f"the pages do not advance: {what}", code="pages_do_not_advance")
