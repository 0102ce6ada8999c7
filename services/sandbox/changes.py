"""How a site lives: which change comes next. A decision about the records as they are; `World` carries it out."""

from collections.abc import Callable
from random import Random
from typing import Literal, TypeAlias

import msgspec

from services.sandbox.recipe import Entry
from services.sandbox.recipes import RECIPES, SERVICE_TICKETS_PATH
from services.sandbox.sites import Site

ChangeKind: TypeAlias = Literal["create", "update", "twice", "again", "touch", "delete", "convert"]

_LATE_CHANCE = 0.15
_TRIES_MAX = 20
_DELETABLE = [recipe for recipe in RECIPES if recipe.deletable]


class Change(msgspec.Struct, frozen=True):
    """One change. `record_id` is None until a new record has its id; `groups` are the fields of each new version.

    `twice`: two or three versions with one stamp, of which only the last is ever seen. `again`: a version with the
    stamp of one that may have been seen. `touch`: a new stamp and nothing else. `convert`: a service ticket becomes a
    project ticket.

    `stamped_at` is in seconds since 1970; `late` says that it lies before the moment the change becomes visible.
    """

    kind: ChangeKind
    path: str
    record_id: int | None
    stamped_at: int
    groups: tuple[tuple[str, ...], ...] = ()
    late: bool = False


def decide(rng: Random, site: Site, now_s: int, late_s_max: int) -> Change:
    """The next change of the site. Errors: IndexError where the site has no record at all."""
    weights = [weight for weight, _ in _KINDS]
    _, make = rng.choices(_KINDS, weights=weights)[0]
    return make(rng, site, now_s, late_s_max) or _update(rng, site, now_s, late_s_max)


def _create(rng: Random, site: Site, now_s: int, late_s_max: int) -> Change:
    stamped_at = _stamp(rng, now_s - late_s_max - 1, now_s)
    return Change("create", _living(rng, site), None, stamped_at, late=stamped_at < now_s)


def _update(rng: Random, site: Site, now_s: int, late_s_max: int) -> Change:
    entry = _any(rng, site)
    stamped_at = _stamp(rng, max(entry.stamp, now_s - late_s_max - 1), now_s)
    path = entry.recipe.path
    return Change("update", path, entry.id, stamped_at, (_group(rng, entry),), late=stamped_at < now_s)


def _twice(rng: Random, site: Site, now_s: int, _: int) -> Change:
    entry = _any(rng, site)
    groups = tuple(_group(rng, entry) for _ in range(rng.randint(2, 3)))
    return Change("twice", entry.recipe.path, entry.id, now_s, groups)


def _again(rng: Random, site: Site, now_s: int, _: int) -> Change | None:
    """Where some record was changed in this very second."""
    found = [
        table.entries[table.by_stamp[-1][1]]
        for table in site.tables.values()
        if table.by_stamp and table.by_stamp[-1][0] == now_s
    ]
    if not found:
        return None
    entry = rng.choice(found)
    return Change("again", entry.recipe.path, entry.id, now_s, (_group(rng, entry),))


def _touch(rng: Random, site: Site, now_s: int, _: int) -> Change:
    entry = _any(rng, site)
    return Change("touch", entry.recipe.path, entry.id, now_s, ((),))


def _delete(rng: Random, site: Site, now_s: int, _: int) -> Change | None:
    """A record that nothing refers to and that is not the last of its type, if one is found."""
    for _ in range(_TRIES_MAX):
        table = site.tables[rng.choice(_DELETABLE).path]
        if len(table.ids) > 1 and site.is_leaf(entry := table.entries[rng.choice(table.ids)]):
            return Change("delete", entry.recipe.path, entry.id, now_s)
    return None


def _convert(rng: Random, site: Site, now_s: int, _: int) -> Change | None:
    table = site.tables[SERVICE_TICKETS_PATH]
    return Change("convert", SERVICE_TICKETS_PATH, rng.choice(table.ids), now_s) if len(table.ids) > 1 else None


_KINDS: tuple[tuple[int, Callable[[Random, Site, int, int], Change | None]], ...] = (
    (15, _create),
    (53, _update),
    (8, _twice),
    (10, _again),
    (4, _touch),
    (8, _delete),
    (2, _convert),
)


def _stamp(rng: Random, after_s: int, now_s: int) -> int:
    """This second, or now and then an earlier one that lies after `after_s`."""
    if rng.random() < _LATE_CHANCE and after_s + 1 < now_s:
        return rng.randint(after_s + 1, now_s - 1)
    return now_s


def _living(rng: Random, site: Site) -> str:
    """A record type that has records, by how often it changes."""
    recipes = [recipe for recipe in RECIPES if site.tables[recipe.path].ids]
    return rng.choices(recipes, weights=[recipe.churn for recipe in recipes])[0].path


def _any(rng: Random, site: Site) -> Entry:
    table = site.tables[_living(rng, site)]
    return table.entries[rng.choice(table.ids)]


def _group(rng: Random, entry: Entry) -> tuple[str, ...]:
    return rng.choice(entry.recipe.moving)
