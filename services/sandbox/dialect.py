"""How the vendor answers: a request and the world as it is -> status, headers, bytes. No I/O.

Sources: ConnectWise PSA developer guide (authentication, "HTTP Response Statuses", "Rate limits", "Pagination"); the
vendor's description 2026.4 (paths, header `clientId`); error bodies `{code, message, errors}` as seen in public issues
(christaylorcodes/ConnectWiseManageAPI 18 and 30; `Security` for a missing permission: docs.xyte.io/docs/kb-5017).
"""

import base64
import binascii
import hmac
import math
import random
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import Literal
from urllib.parse import quote, urlencode

import msgspec

from services.sandbox.conditions import QueryError
from services.sandbox.faults import Fault, Faults
from services.sandbox.query import Page, Query, links, matching, project, read, select
from services.sandbox.recipe import Recipe
from services.sandbox.recipes import RECIPES
from services.sandbox.served import ServedKind
from services.sandbox.sites import Site
from services.sandbox.tables import Table
from services.sandbox.world import World

BASE_PATH = "/v4_6_release/apis/3.0"
VERSION = "2026.4"
JSON = "application/json; charset=utf-8"
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Request(msgspec.Struct, frozen=True):
    """What came in. `path` is decoded, `origin` is `http://host:port`, names of `headers` are lower case."""

    method: str
    origin: str
    path: str
    parameters: Mapping[str, str]
    headers: Mapping[str, str]
    arrived_at: datetime


class Shown(msgspec.Struct, frozen=True):
    """Which records an answer shows, for the log of what was served."""

    site: Site
    path: str
    kind: ServedKind
    ids: Sequence[int]
    versions: Sequence[int]


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    headers: Mapping[str, str] = {}
    shown: Shown | None = None


class Route(msgspec.Struct, frozen=True):
    """What a path asks for: `owner_id` where the endpoint lies below a record, `record_id` for a single record."""

    recipe: Recipe
    what: Literal["list", "count", "one"]
    owner_id: int | None = None
    record_id: int | None = None


class RefusedError(Exception):
    """The vendor answers with an error instead."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body.decode())
        self.answer = answer


def answer(world: World, request: Request) -> Answer:
    """The answer of the vendor. Every answer carries the vendor's clock as `Date`."""
    try:
        site = admit(world, request)
        given = look_up(site, permitted(site, request), request)
    except RefusedError as refused:
        given = refused.answer
    except QueryError as unreadable:
        given = error(400, "ConnectWiseApi", str(unreadable))
    headers = {"Date": date_of(request.arrived_at), "Content-Type": _content_type(request), "Cache-Control": "no-cache"}
    return msgspec.structs.replace(given, headers=headers | {"api-current-version": VERSION} | dict(given.headers))


def admit(world: World, request: Request) -> Site:
    """The site that asks, its request counted. Errors: RefusedError with 401, 405 or 429."""
    site = authenticate(world, request.headers)
    if site is None:
        raise RefusedError(error(401, "Unauthorized", "Cannot authenticate: check companyId+publicKey:privateKey"))
    if not hmac.compare_digest(request.headers.get("clientid", "").encode(), site.keys.client_id.encode()):
        raise RefusedError(error(401, "Unauthorized", "The header clientId is missing or not known to this server"))
    if request.method != "GET":
        raise RefusedError(error(405, "MethodNotAllowed", f"{request.method} is not supported here"))
    wait_s = over_budget(site, request.arrived_at)
    if wait_s is not None:
        raise RefusedError(throttled(wait_s))
    return site


def permitted(site: Site, request: Request) -> Route:
    """What the path asks for, where this site may see it. Errors: RefusedError with 403 or 404."""
    route = find_route(request.path)
    if route is None:
        raise RefusedError(error(404, "NotFound", f"Resource not found: {request.path}"))
    if route.recipe.path in site.forbidden:
        raise RefusedError(error(403, "Security", "You do not have security permission to perform this action."))
    if route.owner_id is not None and site.find(route.recipe.path.split("/{id}")[0], route.owner_id) is None:
        raise RefusedError(error(404, "NotFound", f"Resource {route.owner_id} not found: {request.path}"))
    return route


def look_up(site: Site, route: Route, request: Request) -> Answer:
    """What the site's records say. Errors: QueryError where the request cannot be understood."""
    query = read(route.recipe, request.parameters, request.headers.get("pagination-type"))
    table = site.tables[route.recipe.path]
    if route.what == "count":
        return Answer(200, _encode({"count": len(matching(table, route.owner_id, query))}))
    if route.record_id is not None:
        return _one(site, table, route, query)
    page = select(table, route.owner_id, query)
    body = b"[" + b",".join(_rendered(table, page.ids, query)) + b"]"
    return Answer(200, body, _link_header(request, query, page), _shown(site, table, page.ids, query))


def authenticate(world: World, headers: Mapping[str, str]) -> Site | None:
    """The site whose keys the Basic header carries; None where it is missing, unreadable or wrong."""
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    try:
        login, _, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    for site in world.sites.values():
        if scheme.lower() == "basic" and site.keys.login == login:
            known = hmac.compare_digest(secret.encode(), site.keys.private_key.encode())
            return site if known else None
    return None


def over_budget(site: Site, arrived_at: datetime) -> float | None:
    """Counts the request; the seconds to wait where the site's budget is used up, else None."""
    if site.budget is None:
        return None
    window = timedelta(seconds=site.budget.window_s)
    while site.arrivals and site.arrivals[0] <= arrived_at - window:
        site.arrivals.popleft()
    if len(site.arrivals) < site.budget.requests:
        site.arrivals.append(arrived_at)
        return None
    oldest = site.arrivals[0] if site.arrivals else arrived_at
    return (oldest + window - arrived_at).total_seconds()


def find_route(path: str) -> Route | None:
    """`/v4_6_release/apis/3.0/service/boards/3/statuses/count` -> the statuses' recipe, count, below 3."""
    if not path.startswith(f"{BASE_PATH}/"):
        return None
    parts = path.removeprefix(f"{BASE_PATH}/").rstrip("/").split("/")
    for recipe in RECIPES:
        pattern = recipe.path.split("/")
        head, tail = parts[: len(pattern)], parts[len(pattern) :]
        if len(head) < len(pattern) or len(tail) > 1:
            continue
        if not all(_fits(expected, part) for expected, part in zip(pattern, head, strict=True)):
            continue
        owner_id = int(head[pattern.index("{id}")]) if "{id}" in pattern else None
        if not tail:
            return Route(recipe, "list", owner_id)
        if tail == ["count"]:
            return Route(recipe, "count", owner_id)
        if _fits("{id}", tail[0]):
            return Route(recipe, "one", owner_id, int(tail[0]))
    return None


def spoiled(given: Answer, fault: Fault, faults: Faults, rng: random.Random) -> Answer:
    """The answer after a fault: nothing of it counts as served, except that of a slow one."""
    kept = {name: text for name, text in given.headers.items() if name != "Link"}
    if fault == "slow":
        return given
    if fault in ("throttled", "throttled_bare"):
        refusal = throttled(faults.retry_after_s, bare=fault == "throttled_bare")
        return msgspec.structs.replace(refusal, headers=kept | dict(refusal.headers))
    if fault == "error" and rng.random() < 0.5:
        gateway = {"Content-Type": "text/html"}
        return Answer(502, b"<html><body><h1>502 Bad Gateway</h1></body></html>", kept | gateway)
    if fault == "error":
        return msgspec.structs.replace(error(500, "ServerError", "An error has occurred."), headers=kept)
    half = given.body[: len(given.body) // 2] if fault == "truncated" else given.body
    return Answer(given.status, half, given.headers)


def error(status: int, code: str, message: str) -> Answer:
    return Answer(status, _encode({"code": code, "message": message, "errors": None}))


def throttled(wait_s: float, bare: bool = False) -> Answer:
    """429 in the shape of the guide's example; `bare` leaves out the header Retry-After (whole seconds, at least 1)."""
    seconds = max(1, math.ceil(wait_s))
    body = {"error": "ConnectWiseAPI", "message": f"Too many requests. Please try again in {seconds} seconds."}
    return Answer(429, _encode(body), {} if bare else {"Retry-After": str(seconds)})


def date_of(moment: datetime) -> str:
    """`Tue, 06 Jan 2026 12:00:00 GMT`: whole seconds, cut."""
    return format_datetime(moment, usegmt=True)


def _one(site: Site, table: Table, route: Route, query: Query) -> Answer:
    record_id = route.record_id
    assert record_id is not None, "the route is to one record"
    entry = table.entries.get(record_id)
    if entry is None or (route.owner_id is not None and entry.owner_id != route.owner_id):
        missing = error(404, "NotFound", f"{route.recipe.noun} {record_id} not found")
        return msgspec.structs.replace(missing, shown=Shown(site, route.recipe.path, "missing", (record_id,), (0,)))
    return Answer(200, _rendered(table, (record_id,), query)[0], shown=_shown(site, table, (record_id,), query))


def _rendered(table: Table, ids: Sequence[int], query: Query) -> list[bytes]:
    if query.fields is None:
        return [table.versions[record_id][-1] for record_id in ids]
    if query.ids_only:
        return [b'{"id":%d}' % record_id for record_id in ids]
    return [_encode(project(table.entries[record_id].data, query.fields)) for record_id in ids]


def _shown(site: Site, table: Table, ids: Sequence[int], query: Query) -> Shown:
    kind: ServedKind = "full" if query.fields is None else "ids" if query.ids_only else "part"
    return Shown(site, table.recipe.path, kind, ids, [table.entries[record_id].version for record_id in ids])


def _link_header(request: Request, query: Query, page: Page) -> dict[str, str]:
    """`<http://.../companies?pageSize=50&page=2>; rel="next", <...>; rel="last"`."""
    found = []
    for rel, changed in links(query, page):
        replaced = {name.lower() for name in changed}
        parameters = {name: text for name, text in request.parameters.items() if name.lower() not in replaced}
        encoded = urlencode(parameters | dict(changed), quote_via=quote, safe="/(),:!*")
        found.append(f'<{request.origin}{quote(request.path)}?{encoded}>; rel="{rel}"')
    return {"Link": ", ".join(found)} if found else {}


def _content_type(request: Request) -> str:
    """The vendor's own media type where it was asked for, else plain JSON."""
    asked = request.headers.get("accept", "")
    if asked.startswith("application/vnd.connectwise.com+json"):
        return f"application/vnd.connectwise.com+json; version={VERSION}; charset=utf-8"
    return JSON


def _fits(expected: str, part: str) -> bool:
    if expected != "{id}":
        return part == expected
    return part.isascii() and part.isdigit() and len(part) < 18
