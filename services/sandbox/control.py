"""Levers for another process: let a site live, change one record, read everything the sandbox knows.

All under `/_sandbox/`, without keys: only for a server that nobody else reaches. Bodies are JSON; an unknown site, path
or record is 404, an unreadable body 400, both `{"message": ...}`.
"""

from collections.abc import Awaitable, Callable, Iterator
from datetime import datetime
from itertools import islice

import msgspec
from aiohttp import web

from services.sandbox.recipe import Data, Entry
from services.sandbox.times import seconds_of
from services.sandbox.world import World

_ROWS_PER_WRITE = 2000


class ChangeRequest(msgspec.Struct, forbid_unknown_fields=True):
    site: str
    count: int = 1
    late_s_max: int = 90


class CreateRequest(msgspec.Struct, forbid_unknown_fields=True):
    site: str
    path: str
    fields: Data = {}


class SetRequest(msgspec.Struct, forbid_unknown_fields=True):
    """`stamped_at` gives the new version a stamp of its own, also one before the former."""

    site: str
    path: str
    id: int
    fields: Data
    stamped_at: datetime | None = None


class DeleteRequest(msgspec.Struct, forbid_unknown_fields=True):
    site: str
    path: str
    id: int


class Done(msgspec.Struct):
    """What came of a change to one record."""

    path: str
    id: int
    version: int


class StateRow(msgspec.Struct, tag="state", tag_field="row"):
    """One version that a record had; `current` where a full read shows it now."""

    path: str
    id: int
    version: int
    current: bool
    record: msgspec.Raw


class ServedRow(msgspec.Struct, tag="served", tag_field="row"):
    """One record in one answer (`served.Served`)."""

    path: str
    id: int
    version: int
    arrived_at: datetime
    kind: str


class DeletedRow(msgspec.Struct, tag="deleted", tag_field="row"):
    path: str
    id: int
    deleted_at: datetime


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(world: World) -> list[web.RouteDef]:
    """The routes of the control, for one world."""

    async def change(incoming: web.Request) -> web.StreamResponse:
        asked = msgspec.json.decode(await incoming.read(), type=ChangeRequest)
        return _json(world.change(asked.site, asked.count, asked.late_s_max))

    async def create(incoming: web.Request) -> web.StreamResponse:
        asked = msgspec.json.decode(await incoming.read(), type=CreateRequest)
        return _json(_done(world.create(asked.site, asked.path, asked.fields)))

    async def update(incoming: web.Request) -> web.StreamResponse:
        asked = msgspec.json.decode(await incoming.read(), type=SetRequest)
        stamped_at = None if asked.stamped_at is None else seconds_of(asked.stamped_at)
        return _json(_done(world.update(asked.site, asked.path, asked.id, asked.fields, stamped_at=stamped_at)))

    async def delete(incoming: web.Request) -> web.StreamResponse:
        asked = msgspec.json.decode(await incoming.read(), type=DeleteRequest)
        world.delete(asked.site, asked.path, asked.id)
        return _json(DeletedRow(asked.path, asked.id, world.now()))

    async def stats(_: web.Request) -> web.StreamResponse:
        return _json({name: _counts(world, name) for name in world.sites})

    async def dump(incoming: web.Request) -> web.StreamResponse:
        rows = _rows(world, incoming.query.get("site", ""))
        first = list(islice(rows, _ROWS_PER_WRITE))  # an unknown site is found before the answer has begun
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(incoming)
        while first:
            await response.write(b"".join(msgspec.json.encode(row) + b"\n" for row in first))
            first = list(islice(rows, _ROWS_PER_WRITE))
        return response

    return [
        web.post("/_sandbox/change", _guarded(change)),
        web.post("/_sandbox/create", _guarded(create)),
        web.post("/_sandbox/set", _guarded(update)),
        web.post("/_sandbox/delete", _guarded(delete)),
        web.get("/_sandbox/stats", _guarded(stats)),
        web.get("/_sandbox/dump", _guarded(dump)),
    ]


def _guarded(handler: Handler) -> Handler:
    async def guarded(incoming: web.Request) -> web.StreamResponse:
        try:
            return await handler(incoming)
        except KeyError as unknown:
            return _json({"message": f"not there: {unknown}"}, 404)
        except msgspec.DecodeError as unreadable:
            return _json({"message": str(unreadable)}, 400)

    return guarded


def _rows(world: World, site: str) -> Iterator[StateRow | DeletedRow | ServedRow]:
    """Everything known of a site, as of the first row: states by path and id, then deletions, then what was served."""
    place = world.sites[site]
    states = [
        (path, record_id, table.entries.get(record_id), tuple(versions))
        for path, table in place.tables.items()
        for record_id, versions in table.versions.items()
    ]
    deleted, served = world.deleted(site), world.served(site)
    served_count = place.log.rows_count
    for path, record_id, entry, versions in states:
        for version, raw in enumerate(versions, 1):
            shown = entry is not None and entry.version == version
            yield StateRow(path, record_id, version, shown, msgspec.Raw(raw))
    for gone in deleted:
        yield DeletedRow(gone.path, gone.record_id, gone.deleted_at)
    for row in islice(served, served_count):
        yield ServedRow(row.path, row.record_id, row.version, row.arrived_at, row.kind)


def _counts(world: World, site: str) -> dict[str, object]:
    place = world.sites[site]
    return {
        "records": {path: len(table.ids) for path, table in place.tables.items()},
        "versions": sum(len(states) for table in place.tables.values() for states in table.versions.values()),
        "deleted": len(place.deleted),
        "served": place.log.rows_count,
    }


def _done(entry: Entry) -> Done:
    return Done(entry.recipe.path, entry.id, entry.version)


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(value), content_type="application/json")
