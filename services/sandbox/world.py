"""What exists: sites, their records, every state a record ever had, and what was served of it.

A site is one customer of the vendor (one tenant of ours). All writing goes through `World`; nothing here knows HTTP.
Time and chance come in as arguments: the same seed and clock make the same world, byte for byte.
"""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from random import Random

import msgspec

from services.sandbox.changes import Change, decide
from services.sandbox.recipe import Data, Draft, Entry, Link, Recipe, information, referred_id
from services.sandbox.recipes import (
    BY_PATH,
    PROJECT_TICKET_NOTES,
    PROJECT_TICKETS,
    RECIPES,
    SERVICE_TICKETS_PATH,
    TICKET_NOTES_PATH,
)
from services.sandbox.served import Served
from services.sandbox.sites import Budget, Deleted, Keys, Site
from services.sandbox.times import DAY_S, moment_of, seconds_of

PAST_S = 730 * DAY_S  # how far back a populated site reaches
_GAP_CHANCE = 0.03  # ids of the vendor have holes
_REDRAWS_MAX = 5
_encode = msgspec.json.Encoder(decimal_format="number").encode


class World:
    """Every site, and every state any record of them had."""

    def __init__(self, now: Callable[[], datetime], rng: Random) -> None:
        """`now` is the vendor's clock (aware, UTC); `rng` draws everything that is drawn."""
        self.now = now
        self.rng = rng
        self.sites: dict[str, Site] = {}

    def add_site(
        self, name: str, keys: Keys, *, forbidden: frozenset[str] = frozenset(), budget: Budget | None = None
    ) -> Site:
        """A new, empty site."""
        self.sites[name] = Site(name, keys, forbidden, budget)
        return self.sites[name]

    def populate(self, site: str, counts: Mapping[str, int], minimum: int = 3) -> None:
        """Fills the site: `counts` records by path, at least `minimum` of every type, changed over the past two years.

        Errors: KeyError for an unknown path.
        """
        unknown = [path for path in counts if path not in BY_PATH]
        if unknown:
            raise KeyError(f"no such endpoint: {', '.join(unknown)}")
        now = seconds_of(self.now())
        for recipe in RECIPES:
            count = max(minimum, counts.get(recipe.path, 0))
            for entered_at in sorted(self.rng.randint(now - PAST_S, now - 60) for _ in range(count)):
                self.draw(site, recipe.path, entered_at, self.rng.randint(entered_at, now - 60))

    def draw(self, site: str, path: str, entered_at: int, updated_at: int, fields: Data | None = None) -> Entry:
        """A new record with drawn content, `fields` laid over it. Units: seconds since 1970."""
        recipe, place = BY_PATH[path], self.sites[site]
        if recipe.deletable and self.rng.random() < _GAP_CHANCE:
            place.last_ids[recipe.family] += self.rng.randint(1, 5)
        place.last_ids[recipe.family] += 1
        record_id = place.last_ids[recipe.family]
        draft = Draft(self.rng, place, {"id": record_id}, record_id, entered_at)
        draft.fill(recipe, recipe.fields)
        info = information(updated_at, self._author(place), entered_at, self._author(place))
        data = draft.record | (fields or {}) | {"id": record_id, "_info": info}
        return self._put(place, recipe, data, frozenset(draft.links))

    def create(self, site: str, path: str, fields: Data | None = None, *, stamped_at: int | None = None) -> Entry:
        """A new record, visible at once; `fields` overlay what is drawn; `stamped_at` defaults to this second."""
        stamp = seconds_of(self.now()) if stamped_at is None else stamped_at
        return self._touching(site, self.draw(site, path, stamp, stamp, fields))

    def update(self, site: str, path: str, record_id: int, fields: Data, *, stamped_at: int | None = None) -> Entry:
        """A new version with these fields, visible at once; `msgspec.UNSET` removes one. The id stays.

        Errors: KeyError where the record is not there.
        """
        place = self.sites[site]
        former = place.tables[path].entries[record_id]
        data = {
            name: value
            for name, value in (former.data | fields | {"id": record_id}).items()
            if value is not msgspec.UNSET
        }
        return self.rewrite(site, former, data, former.links, stamped_at=stamped_at)

    def rewrite(
        self, site: str, former: Entry, data: Data, links: frozenset[Link], *, stamped_at: int | None = None
    ) -> Entry:
        """A new version with this content. `_info` is renewed; `stamped_at` (seconds since 1970) defaults to now."""
        place = self.sites[site]
        stamp = seconds_of(self.now()) if stamped_at is None else stamped_at
        info = former.data["_info"]
        assert isinstance(info, dict), "every record has been stamped"
        renewed = information(stamp, self._author(place), 0, "")
        data = data | {"_info": info | {name: renewed[name] for name in ("lastUpdated", "updatedBy")}}
        return self._touching(site, self._put(place, former.recipe, data, links))

    def serve_instead(self, site: str, path: str, record_id: int, raw: bytes) -> None:
        """From now on exactly these bytes are served for the record: malformed, huge, or spelled in a rare way."""
        table = self.sites[site].tables[path]
        entry = table.entries[record_id]
        table.put(msgspec.structs.replace(entry, reference=None), raw)

    def stamp_together(self, site: str, path: str, count: int) -> int:
        """A bulk edit: the `count` lowest ids are updated within one second. Returns how many there were."""
        ids = self.sites[site].tables[path].ids[:count]
        stamp = seconds_of(self.now())
        for record_id in ids:
            self.update(site, path, record_id, {}, stamped_at=stamp)
        return len(ids)

    def delete(self, site: str, path: str, record_id: int) -> None:
        """The record is gone at once, also where others refer to it. Errors: KeyError where it is not there."""
        place = self.sites[site]
        entry = place.tables[path].drop(record_id)
        self._lean(place, entry.links, -1)
        place.deleted.append(Deleted(path, record_id, self.now()))
        self._touching(site, entry)

    def convert(self, site: str, record_id: int, *, stamped_at: int | None = None) -> Entry:
        """A service ticket becomes a project ticket with the same id, as do its notes: gone from one list, there in the
        other."""
        place = self.sites[site]
        former = place.tables[SERVICE_TICKETS_PATH].drop(record_id)
        self._lean(place, former.links, -1)
        kept = {name: value for name, value in former.data.items() if name in PROJECT_TICKETS.fields}
        draft = Draft(self.rng, place, {"id": record_id} | kept, record_id, seconds_of(self.now()))
        draft.fill(PROJECT_TICKETS, [name for name in PROJECT_TICKETS.fields if name not in _shared(former.recipe)])
        draft.record["_info"] = former.data["_info"]
        moved = Entry(PROJECT_TICKETS, record_id, draft.record, 0, former.stamp, former.owner_id, frozenset())
        notes = place.tables[TICKET_NOTES_PATH]
        for note in [notes.drop(each) for each in tuple(notes.owned(record_id))]:
            self._lean(place, note.links, -1)
            self._put(place, PROJECT_TICKET_NOTES, note.data, note.links)
        return self.rewrite(site, moved, draft.record, former.links | draft.links, stamped_at=stamped_at)

    def change(self, site: str, count: int, late_s_max: int = 90) -> list[Change]:
        """Lets the site live: `count` random changes, all visible when this returns. Returns what happened.

        Creates, updates, several updates within one second, deletes, conversions; some are late: the stamp lies up to
        `late_s_max` seconds before the moment the change becomes visible, yet after the record's former stamp.
        """
        done = []
        for _ in range(count):
            change = decide(self.rng, self.sites[site], seconds_of(self.now()), late_s_max)
            done.append(self._apply(site, change))
        return done

    def served(self, site: str) -> Iterator[Served]:
        """Every record of every answer so far, in order."""
        return self.sites[site].log.rows()

    def state(self, site: str, path: str, record_id: int, version: int) -> bytes:
        """The exact bytes of one version, counted from 1. Errors: KeyError, IndexError."""
        if version < 1:
            raise IndexError(f"{path} {record_id} has no version {version}: versions count from 1")
        return self.sites[site].tables[path].versions[record_id][version - 1]

    def current(self, site: str, path: str) -> dict[int, bytes]:
        """What a full read of the endpoint returns now: id -> bytes of the record."""
        table = self.sites[site].tables[path]
        return {record_id: table.raw(record_id) for record_id in table.ids}

    def deleted(self, site: str) -> list[Deleted]:
        """Every deletion so far, oldest first. A converted ticket is not deleted: its family still shows it."""
        return list(self.sites[site].deleted)

    def _apply(self, site: str, change: Change) -> Change:
        path, record_id, stamp = change.path, change.record_id, change.stamped_at
        if record_id is None:
            return msgspec.structs.replace(change, record_id=self.create(site, path, stamped_at=stamp).id)
        if change.kind == "delete":
            self.delete(site, path, record_id)
        elif change.kind == "convert":
            self.convert(site, record_id, stamped_at=stamp)
        else:
            for group in change.groups:
                self._redraw(site, path, record_id, group, stamp)
        return change

    def _redraw(self, site: str, path: str, record_id: int, group: tuple[str, ...], stamp: int) -> None:
        """Draws a group of fields until something differs; an empty group renews the stamp only."""
        place = self.sites[site]
        former = place.tables[path].entries[record_id]
        info = former.data["_info"]
        assert isinstance(info, dict), "every record has been stamped"
        entered_at = seconds_of(moment_of(info["dateEntered"]))
        for _ in range(_REDRAWS_MAX):
            draft = Draft(self.rng, place, dict(former.data), record_id, entered_at)
            draft.fill(former.recipe, group)
            if draft.record != former.data:
                break
        self.rewrite(site, former, draft.record, former.links | draft.links, stamped_at=stamp)

    def _put(self, place: Site, recipe: Recipe, data: Data, links: frozenset[Link]) -> Entry:
        record_id, info = data["id"], data["_info"]
        assert isinstance(record_id, int), "every record has its id"
        assert isinstance(info, dict), "every record has been stamped"
        table = place.tables[recipe.path]
        former = table.entries.get(record_id)
        if former is not None:
            self._lean(place, former.links, -1)
        self._lean(place, links, 1)
        stamp = seconds_of(moment_of(str(info["lastUpdated"])))
        owner_id = referred_id(data, recipe.owner)
        return table.put(Entry(recipe, record_id, data, 0, stamp, owner_id, links), _encode(data))

    def _touching(self, site: str, entry: Entry) -> Entry:
        """`entry`, after what it belongs to got a new stamp with it, where its type does so.

        The stamp is of this second though the entry's own may be older: it is the vendor who sets it.
        """
        if entry.recipe.touches and entry.owner_id is not None:
            owner = self.sites[site].find(entry.recipe.path.split("/{id}")[0], entry.owner_id)
            if owner is not None:
                self.rewrite(site, owner, owner.data, owner.links)
        return entry

    def _lean(self, place: Site, links: frozenset[Link], step: int) -> None:
        for link in links:
            place.referrers[link] += step

    def _author(self, place: Site) -> str:
        member = place.pick(self.rng, "system/members", None)
        return "zadmin" if member is None else str(member.data["identifier"])


def _shared(recipe: Recipe) -> frozenset[str]:
    """The fields a ticket keeps when it is converted."""
    return frozenset(recipe.fields) & frozenset(PROJECT_TICKETS.fields)
