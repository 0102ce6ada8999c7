"""A vendor's records: what any dialect speaks about. It knows no vendor, no HTTP and no clock but the one it is told.

A record has versions. Each is stamped by the vendor (`updated`), and seen by readers from a moment that may lie later
(`seen_from`): a search index that lags, a transaction that commits late. The store keeps all of them, so that the
oracle can say what was true when.
"""

from bisect import insort
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec

KEPT_MAX = 10_000  # cursors, scrolls, jobs and sessions that a store remembers


def plain_text(moment: datetime) -> str:
    """`2026-01-31T12:00:00Z`: the most usual stamp, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Draw:
    """What a recipe draws a new record from: everything follows from the seed."""

    def __init__(self, store: "Store", rng: Random, number: int, record_id: Any, parent: "Row | None") -> None:
        self.rng, self.number, self.id, self.parent = rng, number, record_id, parent
        self.now = store.now
        self._store = store

    def of(self, collection: str) -> Any:
        """The id (as its content has it) of any living record there, None where there is none."""
        rows = self._store.rows(collection)
        return self.rng.choice(rows).raw_id if rows else None

    def one_of(self, *values: Any) -> Any:
        return self.rng.choice(values)

    def flag(self, chance: float = 0.5) -> bool:
        return self.rng.random() < chance

    def number_in(self, low: int, high: int) -> int:
        return self.rng.randint(low, high)

    def moment(self, from_days: float, to_days: float) -> datetime:
        """A time between two distances from now, in days, whole seconds."""
        return self.now.replace(microsecond=0) + timedelta(days=self.rng.uniform(from_days, to_days))


def counted(number: int, _rng: Random) -> int:
    """Ids 1, 2, 3..."""
    return number


class Collection(msgspec.Struct, frozen=True):
    """One kind of record: the endpoint of the same name in the integration file reads it.

    `make` draws a record without id and stamps; the store adds the id at `id`, the time of change at `stamp` and of
    creation at `created` (dotted paths; None: the vendor shows none), written by `spell`. `text` is the path of a text
    that every change rewrites, so that no two versions are equal. `ids` gives the raw id of the n-th record;
    `record_id` the engine's id of a record (several parts: a JSON array of texts), by default the text of the raw id.
    `parent`: the collection its records hang below; a deleted parent takes its children along, and with
    `touches_parent` a changed child stamps its parent anew. `log`: records are only ever added; `deletes`, `restores`,
    `merges`: what may become of them else. `fixed`: paths that never change after creation. `size`: how many there are
    at the beginning, per parent where it has one.
    """

    name: str
    make: Callable[[Draw], dict[str, Any]]
    text: str
    id: str = "id"
    ids: Callable[[int, Random], Any] = counted
    record_id: Callable[[Any, "Row | None"], str] = lambda raw, _parent: str(raw)
    stamp: str | None = None
    created: str | None = None
    spell: Callable[[datetime], Any] = plain_text
    tick_s: float = 1.0
    parent: str | None = None
    touches_parent: bool = False
    log: bool = False
    deletes: bool = True
    restores: bool = True
    merges: bool = False
    fixed: frozenset[str] = frozenset()
    size: int = 12


class Row(msgspec.Struct, frozen=True):
    """One version of one record.

    Shape:  `id` is the engine's record id, `raw_id` what stands in the content; `content` is never changed after it
            was made. `number` counts the records of a collection in order of creation. `version` is unique in the
            store and grows with every change; `position` grows with what readers see: the place in a change log.
    Units:  `updated` as the vendor stamped it (cut to the collection's tick); `seen_from` when readers first see it.
    """

    collection: str
    id: str
    raw_id: Any
    number: int
    content: dict[str, Any]
    created: datetime
    updated: datetime
    version: int
    seen_from: datetime
    position: int = 0
    deleted_at: datetime | None = None
    merged_into: str = ""
    parent: str = ""
    honest: bool = True  # stamped with the time it was changed


class Store:
    """All records of one customer at one vendor, as of `now`; `turn` moves it on.

    A dialect reads `now`, `rows`, `graves`, `log`, `find`, `keep` and `kept`; tests and the runner change records.
    """

    def __init__(self, collections: Sequence[Collection], now: datetime, rng: Random) -> None:
        self.collections = {found.name: found for found in collections}
        self.now = now
        self.rng = rng
        self.position = 0
        self.page_sizes: dict[str, int] = {}
        self.veiled: set[tuple[str, str]] = set()  # records that lists leave out
        self.veil_hits = 0
        self.history: dict[tuple[str, str], list[Row]] = {}
        self.facts: dict[str, Any] = {}
        self._living: dict[str, dict[str, Row]] = {name: {} for name in self.collections}
        self._dead: dict[str, dict[str, Row]] = {name: {} for name in self.collections}
        self._waiting: list[tuple[datetime, int, Row]] = []
        self._kept: dict[str, Any] = {}
        self._versions = 0
        self._numbers = dict.fromkeys(self.collections, 0)
        self._tokens = 0

    # -- what a dialect reads -----------------------------------------------------------------------------------------
    def rows(self, collection: str, parent: str | None = None) -> list[Row]:
        """The records that a list shows, in order of creation; those below `parent` (its engine id), if given."""
        found = sorted(self._living[collection].values(), key=lambda row: row.number)
        if any(name == collection for name, _ in self.veiled):
            self.veil_hits += 1
        return [row for row in found if parent in (None, row.parent) and (collection, row.id) not in self.veiled]

    def find(self, collection: str, record_id: str) -> Row | None:
        """One living record by its engine id."""
        return self._living[collection].get(record_id)

    def find_raw(self, collection: str, raw_id: Any) -> Row | None:
        """One living record by the id in its content, compared as text."""
        return next((row for row in self._living[collection].values() if str(row.raw_id) == str(raw_id)), None)

    def graves(self, collection: str) -> list[Row]:
        """The deleted ones, in order of deletion, as they were; `deleted_at` says when."""
        return sorted(self._dead[collection].values(), key=lambda row: row.position)

    def log(self, collection: str, after: int = 0) -> list[Row]:
        """What became of records since `position` was `after`: the latest of each, living or deleted, in order."""
        both = [*self._living[collection].values(), *self._dead[collection].values()]
        return sorted((row for row in both if row.position > after), key=lambda row: row.position)

    def page_size(self, collection: str, own: int) -> int:
        """How many records a page holds where the vendor fixes it: `own`, but for a test that wants small pages."""
        return self.page_sizes.get(collection, own)

    def keep(self, value: Any) -> str:
        """A token for something the vendor must remember: a cursor, a scroll, a job. Only `kept` can read it."""
        self._tokens += 1
        token = f"k{self._tokens}x{self.rng.getrandbits(64):016x}"
        self._kept[token] = value
        if len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        return token

    def kept(self, token: str) -> Any:
        """None for a token that is not (or no longer) known."""
        return self._kept.get(token)

    def forget_kept(self) -> None:
        """Every cursor, delta token, scroll and job is lost: the vendor says that they have expired."""
        self._kept.clear()

    # -- time ---------------------------------------------------------------------------------------------------------
    def turn(self, now: datetime) -> None:
        """It is `now`; what was to be seen until then is seen."""
        self.now = max(self.now, now)
        while self._waiting and self._waiting[0][0] <= self.now:
            self._show(self._waiting.pop(0)[2])

    def _show(self, row: Row) -> None:
        self.position += 1
        row = msgspec.structs.replace(row, position=self.position)
        self.history[(row.collection, row.id)].append(row)
        living, dead = self._living[row.collection], self._dead[row.collection]
        if row.deleted_at is None:
            dead.pop(row.id, None)
            living[row.id] = row
        else:
            living.pop(row.id, None)
            dead[row.id] = row

    def waiting(self, collection: str, record_id: str) -> bool:
        """Is there a version of it that nobody sees yet?"""
        return any((row.collection, row.id) == (collection, record_id) for _, _, row in self._waiting)

    # -- what tests and the runner do ---------------------------------------------------------------------------------
    def create(
        self, collection: str, parent: str = "", *, stamp: datetime | None = None, late_s: float = 0.0, **fields: Any
    ) -> Row:
        """A new record; `fields` (dotted paths with `__` for the dot) over what the recipe draws."""
        made = self.collections[collection]
        above = self.find(made.parent, parent) if made.parent is not None else None
        self._numbers[collection] += 1
        number = self._numbers[collection]
        raw_id = made.ids(number, self.rng)
        content = made.make(Draw(self, self.rng, number, raw_id, above))
        put_at(content, made.id, raw_id)
        for name, value in fields.items():
            put_at(content, name.replace("__", "."), value)
        record_id = made.record_id(raw_id, above)
        self.history.setdefault((collection, record_id), [])
        moment = self._ticked(made, stamp or self.now)
        return self._add(
            Row(collection, record_id, raw_id, number, content, moment, moment, 0, self.now, parent=parent), late_s
        )

    def update(
        self,
        collection: str,
        record_id: str,
        *,
        stamp: datetime | None = None,
        late_s: float = 0.0,
        changes: Mapping[str, Any] | None = None,
        without: Sequence[str] = (),
    ) -> Row:
        """A record changed: its `text` anew, `changes` (dotted paths) over it, `without` some paths. Stamped now."""
        row = self._living[collection][record_id]
        content = deep_copy(row.content)  # shared with the version before
        for path, value in (changes or {}).items():
            put_at(content, path, value)
        for path in without:
            drop_at(content, path)
        changed = msgspec.structs.replace(
            row,
            content=content,
            updated=self._ticked(self.collections[collection], stamp or self.now),
            honest=stamp is None or stamp >= self.now,
            merged_into="",
        )
        return self._add(changed, late_s)

    def delete(self, collection: str, record_id: str, *, merged_into: str = "", late_s: float = 0.0) -> Row:
        """A record and what hangs below it are gone."""
        row = self._living[collection][record_id]
        for below in self.collections.values():
            if below.parent == collection:
                self._waiting = [
                    one for one in self._waiting if one[2].collection != below.name or one[2].parent != record_id
                ]
                for child in [row for row in self._living[below.name].values() if row.parent == record_id]:
                    self.delete(below.name, child.id)
        updated = self._ticked(self.collections[collection], self.now)
        gone = msgspec.structs.replace(row, deleted_at=self.now, merged_into=merged_into, updated=updated)
        return self._add(gone, late_s, touch=False)

    def restore(self, collection: str, record_id: str) -> Row:
        """A deleted record is back, stamped now."""
        row = self._dead[collection][record_id]
        back = msgspec.structs.replace(
            row,
            deleted_at=None,
            merged_into="",
            updated=self._ticked(self.collections[collection], self.now),
        )
        return self._add(back, 0.0)

    def merge(self, collection: str, loser: str, winner: str) -> Row:
        """The loser is gone into the winner, which changes."""
        self.delete(collection, loser, merged_into=winner)
        return self.update(collection, winner)

    def populate(self, counts: Mapping[str, int] | None = None, *, days: float = 30.0) -> None:
        """Records of every collection, stamped over the `days` before now, parents first."""
        for made in sorted(self.collections.values(), key=self._depth):
            count = (counts or {}).get(made.name, made.size)
            parents = [""] if made.parent is None else [row.id for row in self.rows(made.parent)]
            stamps = sorted(
                self.now - timedelta(days=self.rng.uniform(0.02, days)) for _ in range(count * len(parents))
            )
            for place, stamp in enumerate(stamps):
                self.create(made.name, parents[place % len(parents)], stamp=stamp)

    def parents_of(self, collection: str) -> list[str]:
        """Where a new record may hang: ids of the living parents, or one empty text."""
        parent = self.collections[collection].parent
        return [""] if parent is None else [row.id for row in self.rows(parent)]

    def dead(self, collection: str) -> list[str]:
        return list(self._dead[collection])

    def _depth(self, made: Collection) -> int:
        return 0 if made.parent is None else 1 + self._depth(self.collections[made.parent])

    def _add(self, row: Row, late_s: float, *, touch: bool = True) -> Row:
        """A version: its content finished, seen now or later."""
        made = self.collections[row.collection]
        self._versions += 1
        content = deep_copy(row.content)
        if row.deleted_at is None:
            words = str(value_at(content, made.text) or "text").partition(" ~")[0]
            put_at(content, made.text, f"{words} ~{self._versions}")
        if made.stamp is not None:
            put_at(content, made.stamp, made.spell(row.updated))
        if made.created is not None:
            put_at(content, made.created, made.spell(row.created))
        seen_from = self.now + timedelta(seconds=late_s)
        added = msgspec.structs.replace(row, content=content, version=self._versions, seen_from=seen_from)
        insort(self._waiting, (seen_from, self._versions, added), key=lambda found: found[:2])
        self.turn(self.now)
        if touch and made.touches_parent and row.parent and self.find(made.parent or "", row.parent) is not None:
            self.update(made.parent or "", row.parent)
        return self._living[row.collection].get(row.id, added)

    def _ticked(self, made: Collection, moment: datetime) -> datetime:
        ticks = (moment - _EPOCH) // timedelta(seconds=made.tick_s)
        return _EPOCH + ticks * timedelta(seconds=made.tick_s)


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


# -- paths --------------------------------------------------------------------------------------------------------
def value_at(content: Any, path: str) -> Any:
    """What stands at a dotted path (list positions as numbers), None where nothing does."""
    for key in path.split("."):
        if isinstance(content, dict):
            content = content.get(key)
        elif isinstance(content, list) and key.isdigit() and int(key) < len(content):
            content = content[int(key)]
        else:
            return None
    return content


def put_at(content: dict[str, Any], path: str, value: Any) -> None:
    """Sets what stands at a dotted path; objects on the way are made, also in place of what is none."""
    *above, last = path.split(".")
    for key in above:
        if not isinstance(content.get(key), dict):
            content[key] = {}
        content = content[key]
    content[last] = value


def drop_at(content: dict[str, Any], path: str) -> None:
    *above, last = path.split(".")
    found: Any = value_at(content, ".".join(above)) if above else content
    if isinstance(found, dict):
        found.pop(last, None)


def deep_copy(content: Any) -> Any:
    """Objects and lists copied, values shared."""
    if isinstance(content, dict):
        return {key: deep_copy(value) for key, value in content.items()}
    return [deep_copy(value) for value in content] if isinstance(content, list) else content


def paths_of(content: Mapping[str, Any], lead: str = "") -> Iterator[str]:
    """Every path to a value that is no object, in order."""
    for key, value in content.items():
        if isinstance(value, dict) and value:
            yield from paths_of(value, f"{lead}{key}.")
        else:
            yield f"{lead}{key}"
