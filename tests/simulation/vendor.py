"""A small vendor, and customers who work with it: records created, changed, deleted and restored, several a second.

It speaks through `services.extractor.fetch.Transport`, without HTTP. It stamps whole seconds, shows a list by pages in
order of id, filtered by stamp, the ids alone, and one record by its id. `ever` remembers every content it ever showed.
"""

import re
from collections.abc import Callable, Mapping
from email.utils import format_datetime
from random import Random
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import msgspec

from services.contracts.integration import Integration
from services.contracts.mapping_files import MappingFiles
from services.contracts.schema import CanonicalTable, Column
from services.contracts.times import UtcTime, moment
from services.extractor.answers import Answer
from services.extractor.requests import Request
from tests.simulation.calls import Call
from tests.simulation.processes import Process

SERVICE: Final = "desk"
SITE: Final = "https://desk.example"
# Whose partitions lie in four different quarters of the hash keys, so that four shards have work from the start.
TENANTS: Final = ("initech", "tyrell")
PAGE: Final = 25
POISON_ID: Final = 666_666  # of the one record that no customer touches

TICKETS: Final = CanonicalTable(
    "tickets",
    {"summary": Column("string"), "priority": Column("int64"), "note": Column("string", tracked=False)},
)
USERS: Final = CanonicalTable("users", {"summary": Column("string"), "priority": Column("int64")}, scd=1)
TABLES: Final = {"tickets": TICKETS, "users": USERS}

_SINCE: Final = re.compile(r"updated >= (\S+)")
_AFTER: Final = re.compile(r"id > (\d+)")


def integration() -> Integration:
    """Tickets and users, read by id in pages; what is missing from the list of ids is asked for one by one."""

    def endpoint(name: str) -> dict[str, Any]:
        fields = {column: column for column in TABLES[name].columns}
        return {
            "path": name,
            "record_id": "id",
            "updated_at": "updated",
            "interval_s": 5.0,
            "incremental": {"type": "time", "clause": "updated >= {since}", "overlap_s": 2, "lag_s": 15},
            "deletes": {
                "type": "sweep",
                "interval_s": 25.0,
                "params": {"fields": "id"},
                "confirm": name + "/{record_id}",
            },
            "canonical": {"table": name, "fields": fields},
        }

    plain: dict[str, Any] = {
        "service": SERVICE,
        "title": "Desk",
        "base_url": "{site}",
        "auth": {"type": "headers", "headers": {"X-Key": "{key}"}},
        "credentials": {"site": {"title": "Site"}, "key": {"title": "Key", "secret": True}},
        "filter": {"param": "where"},
        "limits": {"requests": 1_000, "window_s": 1, "share": 1, "concurrency": 4},
        "pagination": {
            "type": "keyset",
            "key": "id",
            "clause": "id > {after}",
            "order": {"order": "id"},
            "size_param": "size",
            "size": PAGE,
        },
        "endpoints": {name: endpoint(name) for name in TABLES},
    }
    return msgspec.convert(plain, Integration)


def mapping_files() -> MappingFiles:
    return MappingFiles({SERVICE: integration()}, dict(TABLES))


class Vendor:
    """All customers' records. `now` is the vendor's own clock."""

    def __init__(self, now: Callable[[], UtcTime], random: Random, tell: Callable[[str], None]) -> None:
        self.records: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        self.ever: dict[tuple[str, str, int], list[dict[str, Any]]] = {}
        self.changes = 0
        self.old_stamps = True  # does what is restored come back under its old stamp, sometimes?
        self.vanishing = True  # do customers delete and restore?
        # Under an old stamp comes back only what was seen to be gone: else no stamp and no list of ids tells of it,
        # and a content that was never read in between stays unknown until all is compared (`avesa verify`).
        self.seen_gone: Callable[[str, str, int], bool] = lambda *_: True
        self._now, self._random, self._tell = now, random, tell
        self._deleted: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
        self._last_id = 0
        for tenant_id in TENANTS:
            for name in TABLES:
                self.records[tenant_id, name], self._deleted[tenant_id, name] = {}, {}

    # -- what customers do --------------------------------------------------------------------------------------------
    def create(self, tenant_id: str, name: str) -> None:
        self._last_id += 1
        self._put(tenant_id, name, self._last_id)

    def work(self) -> None:
        """One change somewhere."""
        tenant_id, name = self._random.choice(TENANTS), self._random.choice(list(TABLES))
        living, deleted = self.records[tenant_id, name], self._deleted[tenant_id, name]
        changeable = [record_id for record_id in living if record_id != POISON_ID]
        dice = self._random.random()
        if dice < 0.25 or not changeable:
            self.create(tenant_id, name)
        elif dice < 0.35 and self.vanishing:
            record_id = self._random.choice(changeable)
            deleted[record_id] = living.pop(record_id)
            self._tell(f"{tenant_id}/{name}/{record_id} is deleted")
            self.changes += 1
        elif dice < 0.40 and deleted and self.vanishing:
            self._restore(tenant_id, name, self._random.choice(list(deleted)))
        else:
            self._put(tenant_id, name, self._random.choice(changeable))

    def poison(self, tenant_id: str, name: str) -> None:
        """The record that is named by POISON_ID."""
        self._put(tenant_id, name, POISON_ID)

    def _put(self, tenant_id: str, name: str, record_id: int) -> None:
        content = {
            "id": record_id,
            "summary": f"{name} {record_id} {self._random.choice(('open', 'waiting', 'closed'))}",
            "priority": self._random.randint(1, 3),
            "note": f"note {self._random.randint(1, 3)}",
            "updated": self._stamp(),
        }
        self._show(tenant_id, name, record_id, content)

    def _restore(self, tenant_id: str, name: str, record_id: int) -> None:
        """It is back, as vendors do it: under a new stamp, or under its old one."""
        content = self._deleted[tenant_id, name].pop(record_id)
        old_stamp = self._random.random() >= 0.5 and self.old_stamps and self.seen_gone(tenant_id, name, record_id)
        if not old_stamp:
            content = {**content, "updated": self._stamp()}
        self._show(tenant_id, name, record_id, content)

    def _show(self, tenant_id: str, name: str, record_id: int, content: dict[str, Any]) -> None:
        self.records[tenant_id, name][record_id] = content
        self._tell(f"{tenant_id}/{name}/{record_id} is {msgspec.json.encode(content).decode()}")
        self.ever.setdefault((tenant_id, name, record_id), []).append(content)
        self.changes += 1

    def _stamp(self) -> str:
        return self._now()[:19] + "Z"

    # -- what it answers ----------------------------------------------------------------------------------------------
    def answer(self, request: Request, headers: Mapping[str, str]) -> Answer:
        tenant_id = headers.get("X-Key", "").removeprefix("key of ")
        parts = urlsplit(request.address)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        name, _, record_id = parts.path.strip("/").partition("/")
        found = self.records.get((tenant_id, name))
        if found is None:
            return self._answered({"message": "no such list"}, 404)
        if record_id:
            one = found.get(int(record_id))
            return self._answered(one) if one is not None else self._answered({"message": "no such record"}, 404)
        return self._answered(self._page(found, query))

    def _page(self, found: dict[int, dict[str, Any]], query: Mapping[str, str]) -> list[dict[str, Any]]:
        where = query.get("where", "")
        since, after = _SINCE.search(where), _AFTER.search(where)
        chosen = [
            record
            for record_id, record in sorted(found.items())
            if (since is None or record["updated"] >= since.group(1))
            and (after is None or record_id > int(after.group(1)))
        ]
        page = chosen[: int(query.get("size", "1000"))]
        return [{"id": record["id"]} for record in page] if query.get("fields") == "id" else page

    def _answered(self, body: Any, status: int = 200) -> Answer:
        date = format_datetime(moment(self._now()).replace(microsecond=0), usegmt=True)
        return Answer(status, msgspec.json.encode(body), {"date": date})


class Wire:
    """`Transport` of one process."""

    def __init__(self, vendor: Vendor, process: Process) -> None:
        self._vendor, self._process = vendor, process

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        call = Call(self._process, "vendor", "get", request.source, request)
        return await self._process.call(call, lambda: self._vendor.answer(request, headers))
