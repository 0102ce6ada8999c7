"""The records of one endpoint, with the indexes that make a page cheap: by id, by stamp, by owner."""

from bisect import bisect_left, insort
from collections.abc import Sequence

from services.sandbox.recipe import Entry, Recipe


class Table:
    """The living records of one record type, and the bytes of every version any of them ever had.

    Versions count from 1 per record id and go on where they stopped when an id comes back.
    """

    __slots__ = ("by_owner", "by_stamp", "entries", "ids", "recipe", "versions")

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.entries: dict[int, Entry] = {}
        self.ids: list[int] = []  # ascending
        self.by_stamp: list[tuple[int, int]] = []  # (stamp, id), ascending
        self.by_owner: dict[int | None, list[int]] = {}  # ids ascending
        self.versions: dict[int, list[bytes]] = {}

    def put(self, entry: Entry, raw: bytes) -> Entry:
        """Adds the record, or replaces its former version; numbers the version and keeps its bytes."""
        former = self.entries.get(entry.id)
        states = self.versions.setdefault(entry.id, [])
        states.append(raw)
        entry.version = len(states)
        if former is None:
            insort(self.ids, entry.id)
        else:
            self._unindex(former)
        insort(self.by_stamp, (entry.stamp, entry.id))
        insort(self.by_owner.setdefault(entry.owner_id, []), entry.id)
        self.entries[entry.id] = entry
        return entry

    def drop(self, record_id: int) -> Entry:
        """Takes the record out of sight; its versions stay. Errors: KeyError where it is not there."""
        entry = self.entries.pop(record_id)
        del self.ids[bisect_left(self.ids, record_id)]
        self._unindex(entry)
        return entry

    def raw(self, record_id: int) -> bytes:
        """The bytes a full read of the record returns now."""
        return self.versions[record_id][-1]

    def owned(self, owner_id: int | None) -> Sequence[int]:
        """Ids of the records that belong to `owner_id`, ascending."""
        return self.by_owner.get(owner_id, ())

    def _unindex(self, entry: Entry) -> None:
        del self.by_stamp[bisect_left(self.by_stamp, (entry.stamp, entry.id))]
        owned = self.by_owner[entry.owner_id]
        del owned[bisect_left(owned, entry.id)]
