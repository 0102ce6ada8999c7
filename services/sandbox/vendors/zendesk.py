"""The dialect of Zendesk Support: exports by cursor and by time, lists by cursor, deletions that are shown.

What an export leaves out (the last minute), repeats (a second that a page ended in) and shows of the deleted is as the
vendor says; how many calls it takes is counted as on the smallest plan.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from itertools import takewhile
from random import Random
from typing import Any, Final

import msgspec

from services.sandbox.vendors.access import basic_of, bearer_of, check_basic, spend
from services.sandbox.vendors.dialect import (
    Answer,
    Dialect,
    Problem,
    RefusedError,
    Request,
    Shown,
    json_answer,
    number_in,
    shown,
)
from services.sandbox.vendors.pages import by_key, by_offset, sealed, unsealed
from services.sandbox.vendors.store import Collection, Draw, Row, Store, plain_text

BASE: Final = "/api/v2/"
EMAIL, API_TOKEN, OAUTH_TOKEN = "ana@acme.example", "api-token-of-nobody", "oauth-token-of-nobody"
PER_MINUTE, EXPORTS_PER_MINUTE = 200, 10
HIDDEN: Final = timedelta(seconds=60)  # of the latest, which no export shows
EXPORT_SIZE, PAGE_SIZE = 1_000, 100
FIRST_ID: Final = 35_436


class Listing(msgspec.Struct, frozen=True):
    """A list: its path, the collection, the name of the list in the answer; whether it takes `page[size]`. `whole`: its
    records are as their export shows them, which adds when they were deleted."""

    path: str
    collection: str
    key: str
    by_cursor: bool = True
    whole: bool = True


LISTINGS: Final = (
    Listing("users", "agents", "users"),
    Listing("organizations", "organizations", "organizations", whole=False),
    Listing("groups", "groups", "groups"),
    Listing("group_memberships", "group_memberships", "group_memberships"),
    Listing("organization_memberships", "organization_memberships", "organization_memberships"),
    Listing("ticket_fields", "ticket_fields", "ticket_fields"),
    Listing("brands", "brands", "brands"),
    Listing("satisfaction_ratings", "satisfaction_ratings", "satisfaction_ratings"),
    Listing("audit_logs", "audit_logs", "audit_logs"),
    Listing("ticket_forms", "ticket_forms", "ticket_forms", by_cursor=False),
    Listing("custom_statuses", "custom_statuses", "custom_statuses", by_cursor=False),
    Listing("slas/policies", "sla_policies", "sla_policies", by_cursor=False),
)
_TICKETS: Final = Listing("tickets", "tickets", "tickets")
_BY_PATH: Final = {listing.path: listing for listing in LISTINGS}
_TIMED: Final = ("organizations", "ticket_events", "ticket_metric_events")
_TAKEN: Final[Mapping[str, frozenset[str]]] = {
    "users": frozenset({"role[]", "role"}),
    "audit_logs": frozenset({"sort"}),
}


# -- records -----------------------------------------------------------------------------------------------------------
def _ticket(draw: Draw) -> dict[str, Any]:
    return {
        "subject": draw.one_of("Help, my printer is on fire!", "VPN", "Zoë’s mail"),
        "description": "The fire is very colorful.",
        "type": draw.one_of("incident", "question", None),
        "status": draw.one_of("new", "open", "pending", "solved", "closed"),
        "priority": draw.one_of("high", "normal", None),
        "requester_id": draw.of("users"),
        "assignee_id": draw.of("agents"),
        "organization_id": draw.of("organizations"),
        "group_id": draw.of("groups"),
        "brand_id": draw.of("brands"),
        "external_id": draw.one_of(None, "ahg35h3jh"),
        "tags": draw.one_of([], ["vip", "closed_by_merge"]),
        "has_incidents": draw.flag(0.2),
        "is_public": True,
        "due_at": draw.one_of(None, plain_text(draw.moment(1, 9))),
        "via": {"channel": draw.one_of("web", "email")},
        "custom_fields": [{"id": 27642, "value": draw.one_of("745", None)}, {"id": 27648, "value": draw.flag()}],
    }


def _person(role: str) -> Callable[[Draw], dict[str, Any]]:
    def make(draw: Draw) -> dict[str, Any]:
        return {
            "name": draw.one_of("Ana López", "Björn Ek", "美咲 佐藤"),
            "email": f"{role}{draw.number}@example.com",
            "phone": draw.one_of(None, "+1 555 0100"),
            "role": role if role == "end-user" else draw.one_of("agent", "admin"),
            "organization_id": draw.of("organizations"),
            "active": True,
            "suspended": draw.flag(0.1),
            "time_zone": "Oslo",
            "tags": [],
            "user_fields": {"floor": draw.one_of(None, "7")},
        }

    return make


def _organization(draw: Draw) -> dict[str, Any]:
    return {
        "name": f"{draw.one_of('Contoso', 'Fabrikam')} {draw.number}",
        "domain_names": [f"d{draw.number}.example"],
        "external_id": None,
        "tags": draw.one_of([], ["gold"]),
        "organization_fields": {"tier": draw.one_of("a", "b")},
    }


def _comment(draw: Draw) -> dict[str, Any]:
    return {
        "type": "Comment",
        "body": draw.one_of("Thanks for your help!", "We look into it."),
        "html_body": "<p>Thanks</p>",
        "public": draw.flag(),
        "author_id": draw.of("agents"),
        "audit_id": 926_256_957_000 + draw.number,
        "attachments": [],
        "via": {"channel": "web"},
    }


def _ticket_event(draw: Draw) -> dict[str, Any]:
    return {
        "via": draw.one_of("Web form", "Mail"),
        "event_type": "Audit",
        "ticket_id": draw.of("tickets"),
        "updater_id": draw.of("agents"),
        "system": {"client": "Mozilla/5.0", "ip_address": "192.0.2.7", "location": "Oslo, Norway"},
        "child_events": [{"id": 1_000_000 + draw.number, "event_type": "Change", "status": "open"}],
    }


def _metric_event(draw: Draw) -> dict[str, Any]:
    return {
        "metric": draw.one_of("reply_time", "agent_work_time"),
        "type": draw.one_of("activate", "fulfill"),
        "ticket_id": draw.of("tickets"),
        "instance_id": draw.number_in(1, 3),
    }


def _rating(draw: Draw) -> dict[str, Any]:
    return {
        "score": draw.one_of("good", "bad"),
        "comment": draw.one_of("Great support!", "Slow"),
        "reason": "No reason provided",
        "ticket_id": draw.of("tickets"),
        "requester_id": draw.of("users"),
        "assignee_id": draw.of("agents"),
    }


def _audit_log(draw: Draw) -> dict[str, Any]:
    return {
        "action": draw.one_of("update", "login"),
        "action_label": "Updated",
        "change_description": draw.one_of("Role changed", "Signed in"),
        "actor_id": draw.of("agents"),
        "actor_name": "Ana López",
        "source_type": "user",
        "source_id": draw.of("users"),
        "source_label": "Björn Ek",
        "ip_address": "192.0.2.7",
    }


def _group_membership(draw: Draw) -> dict[str, Any]:
    return {
        "url": f"https://acme.zendesk.com/api/v2/group_memberships/{draw.id}",
        "user_id": draw.of("agents"),
        "group_id": draw.of("groups"),
        "default": draw.flag(),
    }


def _organization_membership(draw: Draw) -> dict[str, Any]:
    return {
        "organization_name": draw.one_of("Contoso", "Fabrikam"),
        "user_id": draw.of("users"),
        "organization_id": draw.of("organizations"),
        "default": draw.flag(),
        "view_tickets": draw.flag(),
    }


def _ticket_field(draw: Draw) -> dict[str, Any]:
    return {
        "title": f"{draw.one_of('Colour', 'Floor')} {draw.number}",
        "type": draw.one_of("text", "tagger"),
        "active": draw.flag(0.9),
        "required": draw.flag(0.2),
        "position": draw.number,
    }


def _named(name: str, **fixed: Any) -> Callable[[Draw], dict[str, Any]]:
    return lambda draw: {name: f"{draw.one_of('Gold', 'Blue')} {draw.number}", "default": draw.flag(0.2), **fixed}


def _ids(number: int, _: Random) -> int:
    return FIRST_ID + number


_KEPT: Final[Mapping[str, Any]] = {"ids": _ids, "stamp": "updated_at", "created": "created_at"}
_LASTING: Final[Mapping[str, Any]] = {"deletes": False, "restores": False}
COLLECTIONS: Final = (
    Collection("organizations", _organization, text="name", **_KEPT),
    Collection("groups", _named("name", deleted=False, is_public=True), text="name", size=5, **_KEPT),
    Collection("brands", _named("name", is_deleted=False, subdomain="acme"), text="name", size=3, **_KEPT),
    Collection("users", _person("end-user"), text="name", size=16, **_KEPT),
    Collection("agents", _person("agent"), text="name", size=8, **{**_KEPT, "ids": lambda n, _: 20_978_392 + n}),
    Collection("tickets", _ticket, text="subject", fixed=frozenset({"status"}), size=20, **_KEPT),
    Collection(
        "ticket_comments",
        _comment,
        text="body",
        ids=_ids,
        created="created_at",
        parent="tickets",
        touches_parent=True,
        log=True,
        size=2,
    ),
    Collection("ticket_events", _ticket_event, text="via", ids=_ids, created="created_at", log=True, size=16),
    Collection("ticket_metric_events", _metric_event, text="metric", ids=_ids, created="time", log=True, size=16),
    Collection("group_memberships", _group_membership, text="url", size=6, **_KEPT),
    Collection("organization_memberships", _organization_membership, text="organization_name", size=6, **_KEPT),
    Collection("ticket_fields", _ticket_field, text="title", size=6, **_KEPT),
    Collection("ticket_forms", _named("name", active=True), text="name", size=3, **_KEPT),
    Collection("custom_statuses", _named("agent_label", status_category="open"), text="agent_label", size=4, **_KEPT),
    Collection(
        "sla_policies",
        lambda draw: {"title": f"SLA {draw.number}", "position": draw.number},
        text="title",
        size=3,
        **_KEPT,
    ),
    Collection("satisfaction_ratings", _rating, text="comment", size=8, **_KEPT, **_LASTING),
    Collection("audit_logs", _audit_log, text="change_description", ids=_ids, created="created_at", log=True, size=14),
)


# -- requests ----------------------------------------------------------------------------------------------------------
def answer(store: Store, request: Request) -> Answer:
    """Exports, lists and single records; `.json` may end a path."""
    if basic_of(request) is not None:
        check_basic(request, f"{EMAIL}/token", API_TOKEN)
    elif bearer_of(request) != OAUTH_TOKEN:
        raise RefusedError("unauthorized", "token")
    spent = spend(store, "minute", PER_MINUTE, 60.0)
    if request.method != "GET" or not request.path.startswith(BASE):
        raise RefusedError("not_found", request.path)
    found = _routed(store, request, request.path.removeprefix(BASE).removesuffix(".json"))
    told = {
        "X-Rate-Limit": str(spent.limit),
        "X-Rate-Limit-Remaining": str(spent.remaining),
        "ratelimit-limit": str(spent.limit),
        "ratelimit-remaining": str(spent.remaining),
        "ratelimit-reset": str(spent.reset_s),
    }
    return msgspec.structs.replace(found, headers={**found.headers, **told})


def _routed(store: Store, request: Request, path: str) -> Answer:
    above, _, last = path.rpartition("/")
    if path.startswith("incremental/"):
        return _export(store, request, path.removeprefix("incremental/"))
    if path in ("deleted_tickets", "deleted_users"):
        return _deleted(store, request, path)
    if above.startswith("tickets/") and last == "comments":
        return _comments(store, request, above.removeprefix("tickets/"))
    if path in _BY_PATH:
        return _listed(request, _BY_PATH[path], store.rows(_BY_PATH[path].collection), _TAKEN.get(path, frozenset()))
    if above == "tickets" or above in _BY_PATH:
        return _one(store, _BY_PATH.get(above, _TICKETS), last)
    raise RefusedError("not_found", path)


def _export(store: Store, request: Request, path: str) -> Answer:
    spend(store, "exports", EXPORTS_PER_MINUTE, 60.0)
    if path in ("tickets/cursor", "users/cursor"):
        return _by_cursor(store, request, path.removesuffix("/cursor"))
    if path in _TIMED:
        return _by_time(store, request, path)
    raise RefusedError("not_found", path)


def _one(store: Store, listing: Listing, record_id: str) -> Answer:
    row = store.find(listing.collection, record_id)
    if row is None:
        raise RefusedError("not_found", record_id)
    listed = shown([row], collection=listing.collection, one=True)
    return json_answer({listing.key.removesuffix("s"): listed.contents[0]}, listed)


# -- exports -----------------------------------------------------------------------------------------------------------
def _by_cursor(store: Store, request: Request, kind: str) -> Answer:
    """What became of records since a place in the log of changes, up to a minute ago."""
    _check_parameters(request, {"start_time", "cursor", "per_page", "include"})
    cursor, since = request.query.get("cursor"), 0
    if (cursor is None) == ("start_time" not in request.query):
        raise RefusedError("bad_request", "start_time or cursor")
    if cursor is None:
        since = _start_time(store, request)
        after = 0
    else:
        after = unsealed(cursor)
        if not isinstance(after, int):
            raise RefusedError("bad_request", "cursor is not valid")
    rested = takewhile(lambda row: row.seen_from <= store.now - HIDDEN, store.log(kind, after))
    rows = [row for row in rested if row.updated.timestamp() >= since]
    size = number_in(request.query, "per_page", store.page_size(kind, EXPORT_SIZE), least=1, most=EXPORT_SIZE)
    cut = by_offset(rows, 0, size)
    after_cursor = sealed(cut.rows[-1].position) if cut.rows else cursor
    following = None if after_cursor is None else request.url(cursor=after_cursor, start_time=None)
    listed = shown(
        cut.rows, collection=kind, more=cut.more, following=following or "" if cut.more else "", render=_exported
    )
    around = {
        "after_cursor": after_cursor,
        "after_url": following,
        "before_cursor": None,
        "before_url": None,
        "end_of_stream": not cut.more,
    }
    return json_answer({kind: listed.contents, **around}, listed)


def _exported(row: Row) -> dict[str, Any]:
    """A record as exports show it: the deleted too, which say so."""
    gone = row.deleted_at is not None
    match row.collection:
        case "tickets":
            told: dict[str, Any] = {"generated_timestamp": int(row.seen_from.timestamp())}
            told |= {"status": "deleted"} if gone else {}
        case "users":
            told = {"active": False} if gone else {}
        case "organizations":
            told = {"deleted_at": plain_text(row.deleted_at) if row.deleted_at is not None else None}
        case "ticket_events":
            told = {"timestamp": int(row.created.timestamp())}
        case _:
            told = {"deleted": False}
    return {**row.content, **told}


def _by_time(store: Store, request: Request, kind: str) -> Answer:
    """Records by when they changed, from `start_time` to a minute ago. The second in which a page ends is shown whole,
    and again by the next; what is of the first second does not count into its size."""
    _check_parameters(request, {"start_time", "per_page", "include"})
    start = _start_time(store, request)
    until = (store.now - HIDDEN).timestamp()
    rows = [
        row for row in store.log(kind) if start <= int(row.updated.timestamp()) and row.updated.timestamp() <= until
    ]
    rows.sort(key=lambda row: (int(row.updated.timestamp()), row.number))
    size = number_in(request.query, "per_page", store.page_size(kind, EXPORT_SIZE), least=1, most=EXPORT_SIZE)
    size += sum(1 for row in rows if int(row.updated.timestamp()) == start)
    last = int(rows[min(size, len(rows)) - 1].updated.timestamp()) if rows else start
    page = [row for row in rows if int(row.updated.timestamp()) <= last]
    more = len(page) < len(rows)
    following = request.url(start_time=last)
    listed = shown(page, collection=kind, more=more, following=following if more else "", render=_exported)
    around = {"count": len(page), "end_time": last, "next_page": following, "end_of_stream": not more}
    return json_answer({kind: listed.contents, **around}, listed)


def _start_time(store: Store, request: Request) -> int:
    start = number_in(request.query, "start_time", -1)
    if start < 0:
        raise RefusedError("bad_request", "start_time is missing")
    if start > (store.now - HIDDEN).timestamp():
        raise RefusedError("bad_request", "Too recent start_time. Use a start_time older than 60 seconds")
    return start


# -- lists -------------------------------------------------------------------------------------------------------------
def _listed(
    request: Request, listing: Listing, rows: Sequence[Row], taken: frozenset[str], *, order: str = "id"
) -> Answer:
    """By cursor where `page[size]` is given, else by number, a hundred on a page."""
    pages = {"page[size]", "page[after]"} if listing.by_cursor else set()
    _check_parameters(request, {"page", "per_page", *pages, *taken})
    key = _order(request.query.get("sort", order))
    if "page[size]" not in request.query:
        return _by_number(request, listing, sorted(rows, key=key))
    size = number_in(request.query, "page[size]", PAGE_SIZE, least=1)
    if size > PAGE_SIZE:
        raise RefusedError("bad_request", "page[size] must be at most 100")
    after = request.query.get("page[after]")
    place = None if after is None else tuple(unsealed(after) or ())
    cut = by_key(rows, key, place, size)
    cursor = sealed(key(cut.rows[-1])) if cut.rows else after
    following = request.url(**{"page[after]": cursor}) if cut.more else ""
    listed = shown(cut.rows, collection=listing.collection, whole=listing.whole, more=cut.more, following=following)
    meta = {"has_more": cut.more, "after_cursor": cursor, "before_cursor": None}
    return _with_links(listing, listed, {"meta": meta, "links": {"next": following or None, "prev": None}})


def _by_number(request: Request, listing: Listing, rows: Sequence[Row]) -> Answer:
    page = number_in(request.query, "page", 1, least=1)
    size = number_in(request.query, "per_page", PAGE_SIZE, least=1, most=PAGE_SIZE)
    cut = by_offset(rows, (page - 1) * size, size)
    following = request.url(page=page + 1) if cut.more else ""
    listed = shown(cut.rows, collection=listing.collection, whole=listing.whole, more=cut.more, following=following)
    around = {"next_page": following or None, "previous_page": None, "count": cut.total}
    return _with_links(listing, listed, around)


def _with_links(listing: Listing, listed: Shown, around: Mapping[str, Any]) -> Answer:
    return json_answer({listing.key: listed.contents, **around}, listed)


def _order(sort: str) -> Callable[[Row], tuple[Any, ...]]:
    match sort:
        case "id":
            return lambda row: (row.raw_id,)
        case "created_at":
            return lambda row: (row.created.timestamp(), row.raw_id)
        case "-created_at":
            return lambda row: (-row.created.timestamp(), -row.raw_id)
        case _:
            raise RefusedError("bad_request", f"sort={sort}")


def _comments(store: Store, request: Request, ticket: str) -> Answer:
    if store.find("tickets", ticket) is None:
        raise RefusedError("not_found", request.path)
    listing = Listing("", "ticket_comments", "comments")
    return _listed(request, listing, store.rows("ticket_comments", ticket), frozenset({"sort"}), order="created_at")


def _deleted(store: Store, request: Request, path: str) -> Answer:
    """Those deleted within 30 days, by id."""
    kind = path.removeprefix("deleted_")
    recent = store.now - timedelta(days=30)
    graves = [row for row in store.graves(kind) if row.deleted_at is not None and row.deleted_at >= recent]
    size = min(PAGE_SIZE, number_in(request.query, "page[size]", PAGE_SIZE, least=1))
    place = unsealed(request.query["page[after]"]) if "page[after]" in request.query else None
    cut = by_key(graves, lambda row: row.raw_id, place, size)
    cursor = sealed(cut.rows[-1].raw_id) if cut.rows else None
    meta = {"has_more": cut.more, "after_cursor": cursor, "before_cursor": None}
    return json_answer({path: [_grave(row) for row in cut.rows], "meta": meta, "count": len(graves)})


def _grave(row: Row) -> dict[str, Any]:
    assert row.deleted_at is not None, "of the deleted"
    if row.collection == "users":
        shown_of = {name: row.content.get(name) for name in ("name", "email", "role", "organization_id", "created_at")}
        return {"id": row.raw_id, **shown_of, "active": False, "updated_at": plain_text(row.deleted_at)}
    return {
        "id": row.raw_id,
        "subject": row.content.get("subject"),
        "actor": {"id": 1, "name": "Ana López"},
        "deleted_at": plain_text(row.deleted_at),
        "previous_state": row.content.get("status"),
    }


def _check_parameters(request: Request, taken: set[str]) -> None:
    for name in request.query:
        if name not in taken:
            raise RefusedError("bad_request", f"unknown parameter {name}")


# -- refusals ----------------------------------------------------------------------------------------------------------
_SEEN_BY_NONE: Final = "You do not have access to this page. Please contact the account owner of this help desk."
_REFUSALS: Final[Mapping[Problem, tuple[int, dict[str, Any]]]] = {
    "unauthorized": (401, {"error": "Couldn't authenticate you"}),
    "forbidden": (403, {"error": {"title": "Forbidden", "message": _SEEN_BY_NONE}}),
    "not_found": (404, {"error": "RecordNotFound", "description": "Not found"}),
    "throttled": (
        429,
        {"error": "APIRateLimitExceeded", "description": "Number of allowed API requests per minute exceeded"},
    ),
    "unavailable": (503, {"error": "ServiceUnavailable", "description": "Try again later"}),
}


def error(problem: Problem, about: str, wait_s: float | None) -> Answer:
    """`{"error", "description"}` mostly; what nobody may see has an object for `error`."""
    told = (400, {"error": "BadRequest", "description": about})
    if about.startswith("Too recent"):
        told = (422, {"error": "StartTimeTooRecent", "description": about})
    status, value = _REFUSALS.get(problem, told)
    headers = {} if wait_s is None else {"Retry-After": str(max(1, int(wait_s)))}
    return json_answer(value, status=status, headers=headers)


def credentials(_: Store) -> dict[str, str]:
    return {"subdomain": "acme", "email": EMAIL, "api_token": API_TOKEN}


DIALECT: Final = Dialect(
    "zendesk",
    hosts=("*.zendesk.com",),
    collections=COLLECTIONS,
    credentials=credentials,
    answer=answer,
    error=error,
    sources=(
        "Zendesk developer docs, Using the Incremental Exports API: cursor or start time, end_of_stream, the last "
        "minute is left out, a cursor serves the next export, deleted tickets are shown, duplicates by time",
        "Zendesk API reference, Incremental exports: after_cursor, after_url, end_time, count, next_page, 10 a minute",
        "Zendesk API reference, Pagination: page[size] of at most 100, page[after], meta, links; numbered pages",
        "Zendesk API reference, Rate limits: 200 a minute on the smallest plan, headers, 429 with Retry-After",
        "Zendesk API reference, Tickets: List deleted tickets; Users: active, List deleted users; Audit logs: sort",
        "Zendesk API reference, Security and authentication: {email}/token and the API token by Basic, Bearer",
    ),
    unsourced=(
        "agents are in the list by roles alone, not in the export of users",
        "a second that a page by time ends in is shown whole, and the first second does not count",
        "deleted_at of organizations in their export (as clients have seen it)",
        "the error StartTimeTooRecent with 422 (as clients have seen it), and the wording of other refusals",
        "unknown parameters are refused; start_time beside cursor is",
        "lists are in order of id",
    ),
)
