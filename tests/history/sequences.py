"""Random sets of observations, and orders in which they arrive: ties, repeats, deletes and near misses in plenty.

Two doors: `sets` makes a hundred thousand of them in seconds, from a seed; `records` is a strategy, which shrinks.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from random import Random
from typing import Any, NamedTuple, TypeVar

import msgspec
from hypothesis import strategies as st

from services.contracts.events import CanonicalEvent, Evidence
from services.contracts.rows import digests
from services.contracts.times import UtcTime
from tests.compactor.observed import TABLES, TENANT, at

Item = TypeVar("Item")


# -- what an observation is made of -----------------------------------------------------------------------------------
class Place(NamedTuple):
    """Whose history: an entity without its tenant. `number` makes it one of many alike."""

    table: str
    service: str
    family: str
    record_id: str


class Content(NamedTuple):
    """What a record looked like, as an event carries it; on a delete all of it is empty."""

    record_hash: str = ""
    row_digest: str = ""
    row: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


SERVICES = ("desk", "desk:b")
FAMILIES = {"tickets": "tickets", "tickets2": "tickets", "users": "users"}  # family: table
# Compound keys that are equal once joined as text, alone or behind their family ("tickets" "2-7", "tickets2" "-7").
RECORD_IDS = ('["a{}","bc"]', '["a{}b","c"]', "2-{}", "-{}")
KINDS = tuple(product(SERVICES, FAMILIES, RECORD_IDS))

SITE = {"custom_fields": '{"Site":"Oslo"}'}
_TRACKED: dict[str, list[dict[str, Any]]] = {
    "tickets": [{"summary": "A", "hours": "1.5"}, {"due_at": at(1.5)}, {"summary": "A", "hours": "1.5", **SITE}, {}],
    "users": [{"name": "A"}, {"name": "B"}, {"name": "A", **SITE}, {}],
}
_UNTRACKED: dict[str, list[dict[str, Any]]] = {
    "tickets": [{}, {"views": 1}, {"views": 2, "note": "x"}],
    "users": [{}, {"seen": 1}, {"seen": 2}],
}
DELETED = Content()
DELETES = 2  # beside the twelve upserts: one observation of seven


def content(table: str, values: dict[str, Any]) -> Content:
    """As the mapper gives it: in order of columns."""
    row = {name: values[name] for name in TABLES[table].all_columns() if name in values}
    return Content(*digests(TABLES[table], row), msgspec.Raw(msgspec.json.encode(row)))


CONTENTS = {
    table: [
        *(content(table, {**tracked, **untracked}) for tracked, untracked in product(_TRACKED[table], untracked_rows)),
        *[DELETED] * DELETES,
    ]
    for table, untracked_rows in _UNTRACKED.items()
}
# Whole seconds, as vendors stamp, and some a microsecond later.
TIMES = tuple(at(second + micro) for second in range(40) for micro in (0, 0.000001))
READ_AT = tuple(at(1_000 + second) for second in range(3))
MAPPING_VERSIONS = (1, 1, 2)
# Which request told it is no part of an observation.
SOURCES: tuple[tuple[Evidence, str], ...] = (("vendor", "page 1"), ("backfill", "page 2"))


# Who must never be taken for the other.
ALIKE = {
    "compound keys, equal once joined": (
        Place("tickets", "desk", "tickets", '["a","bc"]'),
        Place("tickets", "desk", "tickets", '["ab","c"]'),
    ),
    "two endpoints with ids of their own": (
        Place("tickets", "desk", "tickets", "7"),
        Place("tickets", "desk", "tickets2", "7"),
    ),
    "two services": (
        Place("tickets", "desk", "tickets", "7"),
        Place("tickets", "desk:b", "tickets", "7"),
    ),
}


def place(number: int) -> Place:
    """The n-th of all entities; neighbours differ in one part."""
    block, kind = divmod(number, len(KINDS))
    service, family, record_id = KINDS[kind]
    return Place(FAMILIES[family], service, family, record_id.format(block))


PLACES = tuple(map(place, range(len(KINDS))))  # one of each


def observation(
    place: Place,
    content: Content,
    effective_at: UtcTime,
    observed_at: UtcTime = READ_AT[0],
    mapping_version: int = 1,
    told: tuple[Evidence, str] = SOURCES[0],
) -> CanonicalEvent:
    """One event. The upserts of a family come from the endpoint of its name, the deletions from another."""
    deleted = content is DELETED
    return CanonicalEvent(
        TENANT,
        place.service,
        f"{place.family}_gone" if deleted else place.family,
        place.family,
        place.table,
        place.record_id,
        "delete" if deleted else "upsert",
        effective_at,
        observed_at,
        *told,
        mapping_version,
        content.record_hash,
        content.row_digest,
        content.row,
    )


# -- the fast door ----------------------------------------------------------------------------------------------------
SIZE_MAX = 18
LONG = (60, 80)  # the sizes of one set in a hundred: more moments than a timeline remembers


def sets(seed: int, count: int, size: int | None = None) -> list[list[CanonicalEvent]]:
    """`count` sets, each of one entity of its own; of `size` observations where it is given."""
    chance = Random(seed)
    return [_set(chance, place(number), size or _size(chance)) for number in range(count)]


def _size(chance: Random) -> int:
    return chance.randint(*LONG) if chance.random() < 0.01 else chance.randint(1, SIZE_MAX)


def _set(chance: Random, place: Place, size: int) -> list[CanonicalEvent]:
    """About as many moments as observations, so that six of ten share theirs."""
    made = zip(
        chance.choices(CONTENTS[place.table], k=size),
        chance.choices(TIMES[: size + 1], k=size),
        chance.choices(READ_AT, k=size),
        chance.choices(MAPPING_VERSIONS, k=size),
        chance.choices(SOURCES, k=size),
        strict=True,
    )
    return [observation(place, *parts) for parts in made]


def arrival(chance: Random, events: Sequence[CanonicalEvent]) -> list[CanonicalEvent]:
    """One order of arrival: shuffled, and a quarter of it comes again."""
    coming = [*events, *chance.choices(events, k=(len(events) + 3) // 4)]
    chance.shuffle(coming)
    return coming


# -- the door of hypothesis -------------------------------------------------------------------------------------------
def records(places: Iterable[Place], size_max: int = 14) -> st.SearchStrategy[list[CanonicalEvent]]:
    """Observations of some entities."""
    one = st.sampled_from(list(places)).flatmap(
        lambda place: st.builds(
            observation,
            st.just(place),
            st.sampled_from(CONTENTS[place.table]),
            st.sampled_from(TIMES[:8]),
            st.sampled_from(READ_AT),
            st.sampled_from(MAPPING_VERSIONS),
            st.sampled_from(SOURCES),
        )
    )
    return st.lists(one, min_size=1, max_size=size_max)


# -- what a person reads when it fails --------------------------------------------------------------------------------
def line(event: CanonicalEvent) -> str:
    """`tickets desk/tickets/-7 at 00:03.000001 read 16:41 mapping 1: {"summary":"A"}`."""
    row = "deleted" if isinstance(event.row, msgspec.UnsetType) else bytes(event.row).decode()
    return (
        f"{event.table} {event.service}/{event.family}/{event.record_id} at {event.effective_at[14:26]} "
        f"read {event.observed_at[14:19]} mapping {event.mapping_version}: {row}"
    )


def hold(
    check: Callable[[list[Item]], object], items: list[Item], where: str, show: Callable[[Item], str] = str
) -> None:
    """`check` passes with `items`; else the fewest of them with which it does not are shown, one a line."""
    if _passes(check, items):
        return
    fewest = reduced(items, lambda fewer: not _passes(check, fewer))
    try:
        check(fewest)
    except Exception as err:
        shown = "\n  ".join(map(show, fewest))
        raise AssertionError(f"{where}; these are enough, in this order:\n  {shown}\n{err!r}") from err


def _passes(check: Callable[[list[Item]], object], items: list[Item]) -> bool:
    try:
        check(items)
    except Exception:  # noqa: BLE001  whatever falls here is looked into by `hold`
        return False
    return True


def reduced(items: list[Item], fails: Callable[[list[Item]], bool]) -> list[Item]:
    """As few of `items` as still fail: ever smaller pieces are left out, single ones at last."""
    piece = len(items)
    while piece > 1:
        piece, start = (piece + 1) // 2, 0
        while start < len(items):
            fewer = items[:start] + items[start + piece :]
            if fewer and fails(fewer):
                items = fewer
            else:
                start += piece
    return items
