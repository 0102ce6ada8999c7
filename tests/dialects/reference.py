"""A vendor that never was, with one endpoint per way of reading: the dialect to copy from, and its mapping."""

from collections.abc import Sequence
from typing import Any

import msgspec

from services.contracts.integration import Integration
from services.sandbox.vendors.access import bearer_of, check_client, spend, token_answer, tokens_of
from services.sandbox.vendors.dialect import (
    Answer,
    Dialect,
    Problem,
    RefusedError,
    Request,
    json_answer,
    link_header,
    number_in,
    shown,
)
from services.sandbox.vendors.filters import SQL, sql_like
from services.sandbox.vendors.pages import Cut, by_key, by_number, by_offset, sorted_by
from services.sandbox.vendors.store import Collection, Draw, Row, Store, value_at

SIZE_MAX = 1_000
TOKEN_S, GRACE_S = 1_800.0, 60.0


def _ticket(draw: Draw) -> dict[str, Any]:
    return {
        "subject": draw.one_of("Printer", "VPN", "Zoë's mail"),
        "state": draw.one_of("open", "closed", None),
        "person": draw.of("people"),
        "custom": {"colour": draw.one_of("red", "blue"), "floor": draw.number_in(1, 9)},
    }


def _person(draw: Draw) -> dict[str, Any]:
    return {"name": draw.one_of("Ana", "Björn", "美咲"), "mail": f"p{draw.number}@example.com", "vip": draw.flag()}


def _note(draw: Draw) -> dict[str, Any]:
    return {"text": draw.one_of("called", "left a message"), "minutes": draw.number_in(1, 90)}


def _named(draw: Draw) -> dict[str, Any]:
    return {"name": draw.one_of("one", "two", "three"), "count": draw.number_in(0, 1_000)}


COLLECTIONS = (
    Collection("people", _person, text="name", size=14),
    Collection("tickets", _ticket, text="subject", stamp="updated", created="created", size=22),
    Collection("notes", _note, text="text", parent="tickets", size=2),
    Collection("events", _named, text="name", log=True, created="at", size=15),
    Collection("devices", _named, text="name", ids=lambda n, _: f"d-{n:04d}", stamp="changed", size=18),
    Collection("issues", _named, text="name", stamp="updated", size=16),
    Collection("orders", _named, text="name", stamp="meta.updated", size=20),
)


def answer(store: Store, request: Request) -> Answer:
    """`/token`, then lists below `/v1`; single records of some."""
    if (request.method, request.path) == ("POST", "/token"):
        return _token(store, request)
    tokens_of(store).check(bearer_of(request))
    spent = spend(store, "calls", 3_000, 60.0)
    left = {"X-Left": str(spent.remaining), "X-Reset": str(spent.reset_s)}
    parts = request.path.removeprefix("/v1/").split("/")
    if request.method != "GET" or not request.path.startswith("/v1/"):
        raise RefusedError("not_found", request.path)
    found = _one(store, parts) if len(parts) == 2 else _listed(store, request, parts)
    return msgspec.structs.replace(found, headers={**found.headers, **left})


def _token(store: Store, request: Request) -> Answer:
    check_client(request, "app", "app-secret")
    fresh = tokens_of(store).redeem(
        request.form.get("refresh_token", ""), single_use=True, grace_s=store.facts.get("grace_s", GRACE_S)
    )
    return token_answer(store, TOKEN_S, refresh_token=fresh)


def _one(store: Store, parts: Sequence[str]) -> Answer:
    row = store.find(parts[0], parts[1]) if parts[0] in ("tickets", "people", "issues", "orders") else None
    if row is None:
        raise RefusedError("not_found", "/".join(parts))
    return json_answer(row.content, shown([row], collection=parts[0], one=True))


def _listed(store: Store, request: Request, parts: Sequence[str]) -> Answer:
    size = number_in(request.query, "size", 10, least=1, most=SIZE_MAX)
    if len(parts) == 3 and (parts[0], parts[2]) == ("tickets", "notes"):
        return _offset(store, request, parts[1], size)
    lists = {
        "tickets": _keyset,
        "people": _numbered,
        "events": _after,
        "devices": _delta,
        "issues": _linked,
        "orders": _timed,
    }
    if len(parts) != 1 or parts[0] not in lists:
        raise RefusedError("not_found", request.path)
    return lists[parts[0]](store, request, size)


def _keyset(store: Store, request: Request, size: int) -> Answer:
    """Sorted by id, `where` as SQL, `fields=id` for ids alone."""
    wanted = sql_like(request.query.get("where", ""), SQL)
    rows = [row for row in store.rows("tickets") if wanted(row.content)]
    cut = by_offset(rows, 0, size)
    ids = request.query.get("fields") == "id"
    listed = shown(
        cut.rows,
        collection="tickets",
        whole=not ids,
        more=cut.more,
        render=lambda row: {"id": row.raw_id} if ids else row.content,
    )
    return json_answer(listed.contents, listed)


def _numbered(store: Store, request: Request, size: int) -> Answer:
    """Sorted by name, so that rows move."""
    cut = by_number(sorted_by(store.rows("people"), "name"), number_in(request.query, "page", 1, least=1), size)
    listed = shown(cut.rows, collection="people", more=cut.more)
    return json_answer({"people": listed.contents, "total": cut.total}, listed)


def _offset(store: Store, request: Request, ticket: str, size: int) -> Answer:
    if store.find("tickets", ticket) is None:
        raise RefusedError("not_found", request.path)
    cut = by_offset(store.rows("notes", ticket), number_in(request.query, "offset", 0), size)
    listed = shown(cut.rows, collection="notes", more=cut.more)
    return json_answer({"notes": listed.contents}, listed)


def _after(store: Store, request: Request, size: int) -> Answer:
    cut = by_key(store.rows("events"), lambda row: row.number, number_in(request.query, "after", 0), size)
    listed = shown(cut.rows, collection="events", more=cut.more)
    return json_answer(listed.contents, listed)


def _delta(store: Store, request: Request, _size: int) -> Answer:
    """A change log behind opaque addresses: the first read shows what is there, later ones what became of records. The
    vendor fixes the size of a page."""
    size = store.page_size("devices", 10)
    token = request.query.get("token")
    place = {"after": 0, "began": store.position} if token is None else store.kept(token)
    if not isinstance(place, dict):
        raise RefusedError("expired", "token")
    rows = [row for row in store.log("devices", place["after"]) if not row.deleted_at or row.position > place["began"]]
    cut: Cut = by_offset(rows, 0, size)
    position = cut.rows[-1].position if cut.more else store.position
    here = request.url(token=store.keep({"after": position, "began": place["began"]}))
    listed = shown(cut.rows, collection="devices", more=cut.more, following=here if cut.more else "", render=_device)
    value = {"items": listed.contents} | ({"next": here} if cut.more else {"delta": here})
    return json_answer(value, listed)


def _device(row: Row) -> Any:
    return row.content if row.deleted_at is None else {"id": row.raw_id, "removed": {"reason": "deleted"}}


def _linked(store: Store, request: Request, size: int) -> Answer:
    since = request.query.get("since", "")
    rows = [row for row in sorted_by(store.rows("issues"), "updated", "id") if str(row.content["updated"]) >= since]
    page = number_in(request.query, "page", 1, least=1)
    cut = by_number(rows, page, size)
    following = request.url(page=page + 1) if cut.more else ""
    listed = shown(cut.rows, collection="issues", more=cut.more, following=following)
    return json_answer(listed.contents, listed, headers=link_header(next=following))


def _timed(store: Store, request: Request, size: int) -> Answer:
    """Sorted by (updated, id)."""
    wanted = sql_like(request.query.get("where", ""), SQL)
    rows = [row for row in store.rows("orders") if wanted(row.content)]
    rows.sort(key=lambda row: (str(value_at(row.content, "meta.updated")), row.raw_id))
    cut = by_offset(rows, 0, size)
    listed = shown(cut.rows, collection="orders", more=cut.more)
    return json_answer({"data": {"orders": listed.contents}}, listed)


_STATUSES: dict[Problem, int] = {
    "unauthorized": 401,
    "invalid_grant": 400,
    "forbidden": 403,
    "not_found": 404,
    "throttled": 429,
    "unavailable": 503,
    "bad_request": 400,
    "expired": 410,
}


def error(problem: Problem, about: str, wait_s: float | None) -> Answer:
    wait = {} if wait_s is None else {"Retry-After": str(int(wait_s))}
    return json_answer({"error": problem, "message": about}, status=_STATUSES[problem], headers=wait)


def credentials(store: Store) -> dict[str, str]:
    return {
        "site": "https://acme.reference.example",
        "client_id": "app",
        "client_secret": "app-secret",
        "refresh_token": tokens_of(store).issue_refresh(),
    }


DIALECT = Dialect("reference", ("*.reference.example",), COLLECTIONS, credentials, answer, error)

_SINCE = {"type": "time", "overlap_s": 5, "lag_s": 300}
MAPPING: dict[str, Any] = {
    "service": "reference",
    "title": "Reference",
    "base_url": "{site}/v1",
    "auth": {
        "type": "oauth2_refresh_token",
        "token_url": "{site}/token",
        "rotates": True,
        "grace_s": GRACE_S,
    },
    "credentials": {
        "site": {"title": "Site"},
        "client_id": {"title": "Client id"},
        "client_secret": {"title": "Client secret", "secret": True},
        "refresh_token": {"title": "Refresh token", "secret": True},
    },
    "limits": {
        "requests": 3_000,
        "window_s": 60,
        "share": 1,
        "concurrency": 4,
        "headers": [{"remaining": "X-Left", "reset": "X-Reset"}],
    },
    "filter": {"param": "where", "join": " and "},
    "endpoints": {
        "people": {
            "path": "people",
            "record_id": "id",
            "records": "people",
            "pagination": {"type": "page", "size_param": "size", "size": 100, "total": "total"},
            "deletes": {"type": "sweep", "confirm": "people/{record_id}"},
        },
        "tickets": {
            "path": "tickets",
            "record_id": "id",
            "updated_at": "updated",
            "pagination": {"type": "keyset", "key": "id", "clause": "id > {after}", "size_param": "size", "size": 100},
            "incremental": {**_SINCE, "clause": "updated >= {since}"},
            "deletes": {"type": "sweep", "params": {"fields": "id"}, "confirm": "tickets/{record_id}"},
        },
        "notes": {
            "path": "tickets/{ticket_id}/notes",
            "record_id": "id",
            "records": "notes",
            "parent": {
                "endpoint": "tickets",
                "name": "ticket_id",
                "values": {"state": "state"},
                "include": ["ticket_id", "state"],
            },
            "pagination": {"type": "offset", "size_param": "size", "size": 100},
            "deletes": {"type": "sweep"},
        },
        "events": {
            "path": "events",
            "record_id": "id",
            "updated_at": "at",
            "pagination": {"type": "keyset", "key": "id", "param": "after", "size_param": "size", "size": 100},
            "incremental": {"type": "id", "lag_s": 300},
        },
        "devices": {
            "path": "devices",
            "record_id": "id",
            "records": "items",
            "updated_at": "changed",
            "pagination": {"type": "next_url", "path": "next"},
            "incremental": {"type": "delta", "path": "delta", "as_url": True},
            "deleted_when": {"path": "removed"},
            # A log that has expired tells no deletions of the time in between.
            "deletes": {"type": "sweep"},
        },
        "issues": {
            "path": "issues",
            "record_id": "id",
            "updated_at": "updated",
            "pagination": {"type": "link", "size_param": "size", "size": 100, "numbered": True},
            "incremental": {**_SINCE, "params": {"since": "{since}"}},
            "deletes": {"type": "sweep", "confirm": "issues/{record_id}"},
        },
        "orders": {
            "path": "orders",
            "record_id": "id",
            "records": "data.orders",
            "updated_at": "meta.updated",
            "pagination": {
                "type": "time_keyset",
                "time": "meta.updated",
                "id": "id",
                "clause": "(meta.updated > {after_time} or (meta.updated = {after_time} and id > {after}))",
                "size_param": "size",
                "size": 100,
            },
            "incremental": {**_SINCE, "clause": "meta.updated >= {since}"},
            "deletes": {"type": "sweep", "confirm": "orders/{record_id}"},
        },
    },
}


def integration() -> Integration:
    return msgspec.convert(MAPPING, Integration)
