"""The dialect of HaloPSA: lists under a plural key with `record_count`, numbered pages, inactive records hidden."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from random import Random
from typing import Any, Final
from uuid import UUID

import msgspec

from services.sandbox.vendors.access import bearer_of, check_client, spend, token_answer, tokens_of
from services.sandbox.vendors.dialect import (
    Answer,
    Dialect,
    Problem,
    RefusedError,
    Request,
    json_answer,
    number_in,
    shown,
)
from services.sandbox.vendors.filters import as_time
from services.sandbox.vendors.pages import Cut, by_number, by_offset, sorted_by
from services.sandbox.vendors.store import Collection, Draw, Row, Store, counted

HOST: Final = "acme.halopsa.com"
CLIENT_ID, CLIENT_SECRET = "0b9f2c1e-client", "client-secret-of-halo"
TOKEN_S: Final = 3_600.0
PER_WINDOW, WINDOW_S = 300, 300.0
PAGE_MAX: Final = 100
PAGE_DEFAULT: Final = 50
NO_TIME: Final = "1900-01-01T00:00:00"  # how Halo writes that there is none

Fields = Mapping[str, str]  # name -> kind: text, flag, time, number, amount, secret, or the collection it names


class Listing(msgspec.Struct, frozen=True):
    """One list: its path, the collection of its records, its plural key (none: the answer is the list).

    `since`: it filters by `lastupdatefromdate`; `off`: the field of a record that lists hide unless told otherwise,
    and the parameter that shows those too; `one`: a record can be asked for by its id. `offset` of `step`: tickets,
    projects and opportunities share one row of ids.
    """

    path: str
    collection: str
    fields: Fields
    text: str
    key: str = ""
    stamp: str | None = None
    created: str | None = None
    since: bool = False
    off: tuple[str, str] | None = None
    one: bool = False
    step: int = 1
    offset: int = 0
    custom: bool = False
    size: int = 9


_TICKET: Final[Fields] = {
    "summary": "text",
    "details": "text",
    "status_id": "number",
    "status_name": "text",
    "tickettype_id": "number",
    "tickettype_name": "text",
    "priority_id": "number",
    "client_id": "clients",
    "client_name": "text",
    "site_id": "sites",
    "user_id": "users",
    "user_name": "text",
    "agent_id": "agents",
    "team": "text",
    "category_1": "text",
    "hasbeenclosed": "flag",
    "dateoccurred": "time",
    "dateclosed": "time",
    "fixbydate": "time",
    "timetaken": "amount",
    "estimate": "amount",
    "inactive": "flag",
}
_ACTION: Final[Fields] = {
    "outcome": "text",
    "who_agentid": "agents",
    "datetime": "time",
    "note": "text",
    "hiddenfromuser": "flag",
    "timetaken": "amount",
    "actionarrivaldate": "time",
    "actioncompletiondate": "time",
    "actisbillable": "flag",
    "unread": "number",
}
_INACTIVE: Final = ("inactive", "includeinactive")
_LISTINGS: Final = (
    Listing(
        "Agent",
        "agents",
        {
            "name": "text",
            "email": "text",
            "jobtitle": "text",
            "isdisabled": "flag",
            "team": "text",
            "lastlogindate": "time",
            "password": "secret",
        },
        "name",
        stamp="last_modified",
        created="datecreated",
        off=("isdisabled", "includedisabled"),
        one=True,
    ),
    Listing(
        "Client",
        "clients",
        {
            "name": "text",
            "toplevel_id": "number",
            "inactive": "flag",
            "website": "text",
            "accountsemailaddress": "text",
            "accountmanagertech": "agents",
            "new_servicenowkey": "secret",
        },
        "name",
        "clients",
        "alastupdate",
        "datecreated",
        since=True,
        off=_INACTIVE,
        one=True,
        custom=True,
        size=12,
    ),
    Listing(
        "Site",
        "sites",
        {"name": "text", "client_id": "clients", "phonenumber": "text", "inactive": "flag"},
        "name",
        "sites",
        "slastupdate",
        "datecreated",
        since=True,
        off=_INACTIVE,
    ),
    Listing(
        "Users",
        "users",
        {
            "name": "text",
            "firstname": "text",
            "surname": "text",
            "emailaddress": "text",
            "client_id": "clients",
            "site_id": "sites",
            "inactive": "flag",
            "isimportantcontact": "flag",
            "new_password": "secret",
        },
        "name",
        "users",
        "ulastupdate",
        "datecreated",
        since=True,
        off=_INACTIVE,
        one=True,
        custom=True,
    ),
    Listing(
        "Tickets",
        "tickets",
        _TICKET,
        "summary",
        "tickets",
        "last_update",
        "datecreated",
        since=True,
        one=True,
        step=3,
        custom=True,
        size=15,
    ),
    Listing(
        "Projects",
        "projects",
        {**_TICKET, "projecttimebudget": "amount"},
        "summary",
        "tickets",
        "last_update",
        "datecreated",
        since=True,
        step=3,
        offset=1,
        custom=True,
    ),
    Listing(
        "Opportunities",
        "opportunities",
        {**_TICKET, "oppvalue": "amount", "oppconversionprobability": "number"},
        "summary",
        "tickets",
        "last_update",
        "datecreated",
        since=True,
        step=3,
        offset=2,
        custom=True,
    ),
    Listing(
        "Asset",
        "assets",
        {
            "inventory_number": "text",
            "key_field": "text",
            "client_id": "clients",
            "assettype_name": "text",
            "inactive": "flag",
            "warranty_end": "time",
        },
        "key_field",
        "assets",
        "dlastupdate",
        since=True,
        off=_INACTIVE,
        one=True,
        custom=True,
    ),
    Listing(
        "Supplier",
        "suppliers",
        {"name": "text", "email_address": "text", "inactive": "flag", "portal_password": "secret"},
        "name",
        "suppliers",
        "last_modified",
        "datecreated",
        off=_INACTIVE,
    ),
    Listing(
        "ClientContract",
        "contracts",
        {
            "ref": "text",
            "client_id": "clients",
            "start_date": "time",
            "end_date": "time",
            "periodchargeamount": "amount",
        },
        "ref",
        "contracts",
        "last_modified",
        custom=True,
    ),
    Listing(
        "Invoice",
        "invoices",
        {"invoicenumber": "text", "client_id": "clients", "invoice_date": "time", "total": "amount", "posted": "flag"},
        "invoicenumber",
        "invoices",
        "last_modified",
        "date_created",
        custom=True,
    ),
    Listing(
        "Quotation",
        "quotations",
        {"title": "text", "client_id": "clients", "total": "amount", "expiry_date": "time"},
        "title",
        "quotes",
        "last_update_time",
    ),
    Listing(
        "Item",
        "items",
        {"name": "text", "description": "text", "baseprice": "amount", "quantity_in_stock": "amount"},
        "name",
        "items",
        "lastmodified",
        "datecreated",
    ),
    Listing(
        "Team",
        "teams",
        {"name": "text", "inactive": "flag", "ticket_count": "number"},
        "name",
        stamp="last_modified",
        off=("inactive", "includedisabled"),
    ),
    Listing("TicketType", "ticket_types", {"name": "text", "cancreate": "flag"}, "name"),
    Listing("Status", "statuses", {"name": "text", "shortname": "text", "colour": "text"}, "name"),
    Listing("Priority", "priorities", {"name": "text", "slaid": "number", "fixtime": "amount"}, "name"),
)
_BY_PATH: Final = {listing.path.lower(): listing for listing in _LISTINGS}
_BY_COLLECTION: Final = {listing.collection: listing for listing in _LISTINGS}
_TICKETS: Final = ("tickets", "projects", "opportunities")  # one row of ids


def halo_time(moment: datetime) -> str:
    """`2026-01-31T12:00:00.25`, UTC without saying so; .NET writes no zeros at the end."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")


# -- records -----------------------------------------------------------------------------------------------------------
def _maker(listing: Listing) -> Callable[[Draw], dict[str, Any]]:
    def make(draw: Draw) -> dict[str, Any]:
        content = {name: _drawn(draw, kind) for name, kind in listing.fields.items()}
        if listing.custom:
            content["customfields"] = [{"id": 152, "name": "CFRef", "value": draw.one_of(None, "ABC", "Süd")}]
        return content

    return make


def _action(draw: Draw) -> dict[str, Any]:
    assert draw.parent is not None, "below tickets"
    return {"ticket_id": draw.parent.raw_id, **{name: _drawn(draw, kind) for name, kind in _ACTION.items()}}


def _drawn(draw: Draw, kind: str) -> Any:
    """A field of that kind; a time that is not there is written as one of 1900."""
    if kind == "time" and draw.flag(0.2):
        return NO_TIME
    if kind in _PLAIN:
        return _PLAIN[kind](draw)
    return draw.of(kind)


_PLAIN: Final[Mapping[str, Callable[[Draw], Any]]] = {
    "text": lambda draw: f"{draw.one_of('Printer', 'VPN', 'Zoë’s laptop', 'Mail')} {draw.number}",
    "flag": lambda draw: draw.flag(0.3),
    "time": lambda draw: halo_time(draw.moment(-20, 20)),
    "number": lambda draw: draw.number_in(0, 900),
    "amount": lambda draw: draw.number_in(0, 90_000) / 100,
    "secret": lambda draw: f"hunter{draw.number}",
}


def _spread(listing: Listing) -> Callable[[int, Random], Any]:
    if listing.collection == "priorities":
        return lambda _, rng: str(UUID(int=rng.getrandbits(128)))
    return lambda number, _: number * listing.step + listing.offset


def _below_ticket(raw: Any, parent: Row | None) -> str:
    assert parent is not None, "below tickets"
    return f'["{parent.raw_id}","{raw}"]'


COLLECTIONS: Final = (
    *(
        Collection(
            listing.collection,
            _maker(listing),
            text=listing.text,
            ids=_spread(listing),
            stamp=listing.stamp,
            created=listing.created,
            spell=halo_time,
            tick_s=0.01,
            size=listing.size,
        )
        for listing in _LISTINGS
    ),
    *(
        Collection(
            name,
            _action,
            text="note",
            ids=ids,
            record_id=_below_ticket,
            stamp="last_updated",
            created="actiondatecreated",
            spell=halo_time,
            tick_s=0.01,
            parent="tickets",
            touches_parent=True,
            restores=False,
            fixed=frozenset({"ticket_id"}),
            size=size,
        )
        for name, ids, size in (("actions", counted, 2), ("action_times", lambda number, _: 10_000 + number, 1))
    ),
)


# -- requests ----------------------------------------------------------------------------------------------------------
def answer(store: Store, request: Request) -> Answer:
    """The token endpoint beside the API; what is not known in a query is ignored."""
    path = request.path.lower()
    if (request.method, path) == ("POST", "/auth/token"):
        return _token(store, request)
    tokens_of(store).check(bearer_of(request))
    spend(store, "window", PER_WINDOW, WINDOW_S)
    name, _, raw_id = path.removeprefix("/api/").partition("/")
    if request.method != "GET" or not path.startswith("/api/"):
        raise RefusedError("not_found", request.path)
    if name == "actions" and not raw_id:
        return _actions(store, request)
    listing = _BY_PATH.get(name)
    if listing is None or (raw_id and not listing.one):
        raise RefusedError("not_found", request.path)
    if raw_id:
        return _one(store, request, listing, raw_id)
    if listing.collection == "tickets" and request.query.get("deleted") == "true":
        return _deleted(store, request)
    return _listed(store, request, listing)


def _token(store: Store, request: Request) -> Answer:
    check_client(request, CLIENT_ID, CLIENT_SECRET)
    scope = request.form.get("scope", "")
    if request.form.get("grant_type") != "client_credentials" or not scope:
        raise RefusedError("invalid_grant", "grant type or scope")
    return token_answer(store, TOKEN_S, scope=scope)


def _one(store: Store, request: Request, listing: Listing, raw_id: str) -> Answer:
    """A record; a ticket also where it is a project or an opportunity, and where it was deleted."""
    for collection in _TICKETS if listing.collection == "tickets" else (listing.collection,):
        row = store.find_raw(collection, raw_id)
        if row is not None:
            found = shown([row], collection=collection, render=_rendering(store, request, collection), one=True)
            return json_answer(found.contents[0], found)
    gone = [row for row in store.graves("tickets") if str(row.raw_id) == raw_id and listing.collection == "tickets"]
    if gone:
        return json_answer({**gone[0].content, "deleted": True})
    raise RefusedError("not_found", request.path)


def _actions(store: Store, request: Request) -> Answer:
    """The actions of one ticket; those with time are kept apart here."""
    collection = "action_times" if request.query.get("timeentriesonly") == "true" else "actions"
    ticket = request.query.get("ticket_id", "")
    if not ticket.isdigit():
        raise RefusedError("bad_request", "ticket_id is required")
    rows = _shuffled(store.rows(collection, ticket))
    cut = by_offset(rows, 0, number_in(request.query, "count", PAGE_DEFAULT, least=1))
    found = shown(cut.rows, collection=collection, render=lambda row: {**row.content, "who": "Ann Agent"})
    return json_answer({"record_count": cut.total, "actions": found.contents}, found)


def _listed(store: Store, request: Request, listing: Listing) -> Answer:
    rows = [row for row in store.rows(listing.collection) if _lets_pass(row.content, request.query, listing)]
    cut = _cut(_sorted(rows, request.query), request.query, plain=not listing.key)
    render = _rendering(store, request, listing.collection)
    found = shown(cut.rows, collection=listing.collection, render=render, more=cut.more)
    if not listing.key:
        return json_answer(found.contents, found)
    return json_answer(_enveloped(listing.key, found.contents, cut.total, request.query), found)


def _deleted(store: Store, request: Request) -> Answer:
    """The deleted tickets; a deletion is a change of the ticket."""
    listing = _BY_COLLECTION["tickets"]
    assert listing.stamp is not None, "tickets have one"
    gone = []
    for row in store.graves("tickets"):
        assert row.deleted_at is not None, "of the deleted"
        content = {**row.content, "deleted": True, listing.stamp: halo_time(row.deleted_at)}
        if _lets_pass(content, request.query, listing):
            gone.append(msgspec.structs.replace(row, content=content))
    cut = _cut(_sorted(gone, request.query), request.query)
    contents = [row.content for row in cut.rows]
    return json_answer(_enveloped("tickets", contents, cut.total, request.query))


def _enveloped(key: str, contents: Sequence[Any], total: int, query: Mapping[str, str]) -> dict[str, Any]:
    pages = {name: int(query[name]) for name in ("page_no", "page_size") if query.get(name, "").isdigit()}
    return {**pages, "record_count": total, key: contents}


def _lets_pass(content: Mapping[str, Any], query: Mapping[str, str], listing: Listing) -> bool:
    """Changed within the time that was asked for (after it, not at it), and not hidden."""
    if listing.off is not None and content.get(listing.off[0]) is True and query.get(listing.off[1]) != "true":
        return False
    if not listing.since or listing.stamp is None:
        return True
    stamp = as_time(content.get(listing.stamp))
    since, until = _bound(query, "lastupdatefromdate"), _bound(query, "lastupdatetodate")
    if stamp is None:
        return since is None and until is None
    return (since is None or stamp > since) and (until is None or stamp <= until)


def _bound(query: Mapping[str, str], name: str) -> datetime | None:
    text = query.get(name)
    if not text:
        return None
    bound = as_time(text)
    if bound is None:
        raise RefusedError("bad_request", f"{name}={text}")
    return bound


def _sorted(rows: Sequence[Row], query: Mapping[str, str]) -> list[Row]:
    """By `order` where records have such a field, else in no order that a reader could use."""
    order = query.get("order", "")
    if not order or not any(order in row.content for row in rows):
        return _shuffled(rows)
    return sorted_by(rows, order, descending=query.get("orderdesc") == "true")


def _shuffled(rows: Sequence[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: hashlib.blake2b(row.id.encode(), digest_size=8).digest())


def _cut(rows: list[Row], query: Mapping[str, str], *, plain: bool = False) -> Cut:
    """A page with `pageinate`, else so many records as `count` says; a list without envelope is whole."""
    if plain:
        return by_offset(rows, 0, len(rows))
    if query.get("pageinate") == "true":
        size = number_in(query, "page_size", PAGE_DEFAULT, least=1, most=PAGE_MAX)
        return by_number(rows, number_in(query, "page_no", 1, least=1), size)
    return msgspec.structs.replace(by_offset(rows, 0, number_in(query, "count", PAGE_DEFAULT, least=1)), more=False)


def _rendering(store: Store, request: Request, collection: str) -> Callable[[Row], Any]:
    """A record as it is shown: clocks and counters are of the moment of the answer."""

    def render(row: Row) -> dict[str, Any]:
        if collection in _TICKETS:
            age = round((request.at - row.created).total_seconds() / 3600, 4)
            clocks = {} if request.query.get("excludeslacalcs") == "true" else {"slatimeleft": 24 - age}
            return {**row.content, "ticketage": age, **clocks}
        if collection == "clients":
            tickets = sum(ticket.content.get("client_id") == row.raw_id for ticket in store.rows("tickets"))
            return {**row.content, "open_ticket_count": tickets}
        if collection == "agents":
            return {**row.content, "is_online": request.at.minute % 2 == 0}
        return row.content

    return render


# -- refusals ----------------------------------------------------------------------------------------------------------
_STATUSES: Final[Mapping[Problem, tuple[int, str]]] = {
    "unauthorized": (401, "Authorization has been denied for this request."),
    "forbidden": (403, "You do not have permission to access this resource."),
    "not_found": (404, "The requested record could not be found."),
    "throttled": (429, f"Rate Limit Reached - {PER_WINDOW} Requests per rolling 5 minute window"),
    "unavailable": (500, "An error has occurred."),
    "bad_request": (400, ""),
    "expired": (400, ""),
}


def error(problem: Problem, about: str, wait_s: float | None) -> Answer:
    """`{"error": text}`; the token endpoint speaks RFC 6749."""
    if problem == "invalid_grant":
        told = {"error": "invalid_client", "error_description": "The specified client credentials are invalid."}
        return json_answer(told, status=400)
    status, message = _STATUSES[problem]
    wait = {} if wait_s is None else {"Retry-After": str(max(1, int(wait_s)))}
    return json_answer({"error": message or about}, status=status, headers=wait)


def credentials(_: Store) -> dict[str, str]:
    return {"api_url": f"https://{HOST}", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}


DIALECT: Final = Dialect(
    "halopsa",
    hosts=("*.halopsa.com",),
    collections=COLLECTIONS,
    credentials=credentials,
    answer=answer,
    error=error,
    sources=(
        "vendor's swagger v2 (2024): paths, parameters, names of fields, page_size of at most 100 for tickets",
        "panoramicdata/HaloPsa.Api (2026): unknown parameters are ignored, {record_count, actions}, GUIDs",
        "homotechsual/HaloAPI: record_count counts all pages; issue 31: 300 requests in 5 minutes, then 429",
        "djpsa: times in UTC without a zone; 1900-01-01 for no time",
        "vendor's swagger v2: inactive records only with includeinactive, disabled agents only with includedisabled",
    ),
    unsourced=(
        "bodies of refusals but 429; a token is refused with 400 invalid_client",
        "lastupdatefromdate does not include its own moment; without pages 50 records; the order of lists",
        "a deletion is a change of the ticket; a deleted ticket is still shown by its id, deleted projects are not",
        "an action changes its ticket; actions with time are kept apart, so that one ticket has two lists of them",
        "ids of actions do not repeat from ticket to ticket here",
    ),
)
