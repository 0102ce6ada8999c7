"""One customer of the vendor: its keys, its records, and what was served of them."""

from collections import Counter, deque
from datetime import datetime
from random import Random

import msgspec

from services.sandbox.recipe import Entry, Link
from services.sandbox.recipes import RECIPES
from services.sandbox.served import ServedLog
from services.sandbox.tables import Table


class Keys(msgspec.Struct, frozen=True):
    """What a client of one site must present: Basic `company_id+public_key:private_key` and header `clientId`."""

    company_id: str
    public_key: str
    private_key: str
    client_id: str

    @property
    def login(self) -> str:
        return f"{self.company_id}+{self.public_key}"


class Budget(msgspec.Struct, frozen=True):
    """At most `requests` in any `window_s` seconds; beyond it the answer is 429 with Retry-After."""

    requests: int
    window_s: float


class Deleted(msgspec.Struct, frozen=True, gc=False):
    """A record that no endpoint shows any more, since `deleted_at` (UTC, microseconds)."""

    path: str
    record_id: int
    deleted_at: datetime


class Site:
    """One customer of the vendor. `keys`, `forbidden` (paths answered with 403) and `budget` may change at any time."""

    __slots__ = ("arrivals", "budget", "deleted", "forbidden", "keys", "last_ids", "log", "name", "referrers", "tables")

    def __init__(self, name: str, keys: Keys, forbidden: frozenset[str], budget: Budget | None) -> None:
        self.name = name
        self.keys = keys
        self.forbidden = forbidden
        self.budget = budget
        self.arrivals: deque[datetime] = deque()  # of the requests that still count against the budget
        self.tables = {recipe.path: Table(recipe) for recipe in RECIPES}
        self.log = ServedLog()
        self.deleted: list[Deleted] = []
        self.referrers: Counter[Link] = Counter()  # how many records lean on a record
        self.last_ids: Counter[str] = Counter()  # the highest id given out, by family

    def pick(self, rng: Random, path: str, owner_id: int | None) -> Entry | None:
        """Any record of `path`, or any that belongs to `owner_id`."""
        table = self.tables[path]
        ids = table.ids if owner_id is None else table.owned(owner_id)
        return table.entries[rng.choice(ids)] if ids else None

    def turn(self, path: str, number: int) -> Entry | None:
        """The records of `path` in turn."""
        table = self.tables[path]
        return table.entries[table.ids[number % len(table.ids)]] if table.ids else None

    def find(self, path: str, record_id: int) -> Entry | None:
        return self.tables[path].entries.get(record_id)

    def is_leaf(self, entry: Entry) -> bool:
        """Whether nothing refers to the record, so that the vendor would let it be deleted."""
        return self.referrers[(entry.recipe.family, entry.id)] == 0
