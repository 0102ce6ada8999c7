"""What customers and vendors do to records: the ordinary, and what makes readers lose some. Drawn from a seed."""

from datetime import timedelta
from random import Random
from typing import Any, Final

from services.sandbox.vendors.store import Collection, Draw, Row, Store, deep_copy, paths_of, value_at

RECENT_S: Final = 120.0  # a stamp goes back only a little: what no reader could notice is nobody's test
HUGE_MIN: Final = 1_000_000
BACK_S: Final = 60.0


class Changes:
    """Changes to one store. Every method says whether there was a record to change."""

    def __init__(self, store: Store, rng: Random) -> None:
        self._store, self._rng = store, rng
        self.count = 0

    def any(self, collection: str) -> bool:
        """One ordinary change: mostly an update."""
        made = self._store.collections[collection]
        if made.log:
            return self.create(collection)
        draw = self._rng.random()
        if draw < 0.2:
            return self.create(collection)
        if draw < 0.32:
            return self.delete(collection)
        if draw < 0.37:
            return self.restore(collection)
        if draw < 0.40 and made.merges:
            return self.merge(collection)
        return self.update(collection)

    def create(self, collection: str, late_s: float = 0.0) -> bool:
        parents = self._store.parents_of(collection)
        if not parents:
            return False
        self._store.create(collection, self._rng.choice(parents), late_s=late_s)
        return self._counted()

    def update(self, collection: str, late_s: float = 0.0) -> bool:
        """New content from the recipe in one field besides the text."""
        row = self._pick(collection)
        if row is None:
            return False
        self._store.update(collection, row.id, changes=self._news(row), late_s=late_s)
        return self._counted()

    def delete(self, collection: str) -> bool:
        row = self._pick(collection, deleting=True)
        if row is None or len(self._store.rows(collection)) < 3:
            return False
        self._store.delete(collection, row.id)
        return self._counted()

    def restore(self, collection: str) -> bool:
        dead = [row for row in self._store.graves(collection) if not row.merged_into]
        parents = self._store.parents_of(collection)
        back = [row for row in dead if row.parent in parents and not self._store.waiting(collection, row.id)]
        if not back or not self._store.collections[collection].restores:
            return False
        self._store.restore(collection, self._rng.choice(back).id)
        return self._counted()

    def merge(self, collection: str) -> bool:
        loser, winner = self._pick(collection, deleting=True), self._pick(collection)
        if loser is None or winner is None or loser.id == winner.id or loser.parent != winner.parent:
            return False
        self._store.merge(collection, loser.id, winner.id)
        return self._counted()

    def move(self, collection: str) -> None:
        """Between two pages: one is inserted, one deleted, one updated."""
        self.create(collection)
        if not self._store.collections[collection].log:
            self.delete(collection)
            self.update(collection)

    # -- what makes readers lose some ---------------------------------------------------------------------------------
    def tie(self, collection: str) -> bool:
        """More records than a page holds, all with one stamp."""
        parents = self._store.parents_of(collection)
        if not parents:
            return False
        parent = self._rng.choice(parents)
        for _ in range(self._store.page_size(collection, 10) * 2 + 3):
            self._store.create(collection, parent)
        return self._counted()

    def late(self, collection: str, late_s: float) -> bool:
        """A record that is stamped now and seen later."""
        if self._store.collections[collection].log or self._rng.random() < 0.5:
            return self.create(collection, late_s)
        return self.update(collection, late_s)

    def back(self, collection: str) -> bool:
        """A record changed a moment ago changes again, and bears an older stamp than before."""
        made, now = self._store.collections[collection], self._store.now
        recent = now - timedelta(seconds=RECENT_S)
        fresh = [row for row in self._settled(collection) if row.updated >= recent and row.honest]
        if made.log or made.stamp is None:
            return False
        if not fresh:
            self.update(collection)
            return False
        row = self._rng.choice(fresh)
        stamp = row.updated - timedelta(seconds=self._rng.uniform(made.tick_s, BACK_S))
        self._store.update(collection, row.id, changes=self._news(row), stamp=stamp)
        return self._counted()

    def drift(self, collection: str, protected: frozenset[str]) -> bool:
        """A field is renamed, dropped or changes its type, in one record; none that says who and when it is."""
        made, row = self._store.collections[collection], self._pick(collection)
        if row is None or made.log:
            return False
        kept = protected | {made.id, made.text, made.stamp or "", made.created or ""}
        free = [path for path in paths_of(row.content) if not any(_touches(path, one) for one in kept)]
        if not free:
            return False
        path = self._rng.choice(free)
        how, was = self._rng.choice(("renamed", "dropped", "retyped")), value_at(row.content, path)
        changes: dict[str, Any] = {f"{path}_renamed": was} if how == "renamed" else {}
        if how == "retyped":
            changes[path] = 7 if isinstance(was, str | None) else str(was)
        self._store.update(collection, row.id, changes=changes, without=() if how == "retyped" else (path,))
        return self._counted()

    def huge(self, collection: str, size: int) -> bool:
        """A record that is larger than anybody expects."""
        made, row = self._store.collections[collection], self._pick(collection)
        if row is None or made.log:
            return False
        self._store.update(collection, row.id, changes={made.text: "x" * size})
        return self._counted()

    def shrink(self) -> None:
        """Huge records become ordinary ones."""
        for name, made in self._store.collections.items():
            for row in self._store.rows(name):
                if _is_huge(made, row):
                    self._store.update(name, row.id, changes={made.text: "small again"})

    # -----------------------------------------------------------------------------------------------------------------
    def _news(self, row: Row) -> dict[str, Any]:
        made = self._store.collections[row.collection]
        drawn = made.make(Draw(self._store, self._rng, row.number, row.raw_id, self._parent_of(made, row)))
        paths = [path for path in paths_of(drawn) if path != made.text and path not in made.fixed]
        if not paths:
            return {}
        path = self._rng.choice(paths)
        return {path: deep_copy(value_at(drawn, path))}

    def _parent_of(self, made: Collection, row: Row) -> Row | None:
        return self._store.find(made.parent, row.parent) if made.parent is not None else None

    def _settled(self, collection: str) -> list[Row]:
        """Living records of which no version waits to be seen; without those too large to be read, which stay as they
        are until they shrink: nobody could read what became of them."""
        made = self._store.collections[collection]
        rows = [row for row in self._store.rows(collection) if not self._store.waiting(collection, row.id)]
        return [row for row in rows if not _is_huge(made, row)]

    def _pick(self, collection: str, *, deleting: bool = False) -> Row | None:
        rows = self._settled(collection)
        if deleting and not self._store.collections[collection].deletes:
            return None
        return self._rng.choice(rows) if rows else None

    def _counted(self) -> bool:
        self.count += 1
        return True


def _is_huge(made: Collection, row: Row) -> bool:
    return len(str(value_at(row.content, made.text))) > HUGE_MIN


def _touches(path: str, kept: str) -> bool:
    return path == kept or path.startswith(f"{kept}.") or kept.startswith(f"{path}.")
