"""ConnectWise PSA as a dialect: its query language, pages, partial answers and refusals over the store's records.

What `avesa demo` serves in depth (`services/sandbox/dialect.py`, `query.py`, `recipes*.py`) is the same vendor: its
language and its fields come from there.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, cast

from services.sandbox.conditions import QueryError, truth_of, value_at
from services.sandbox.dialect import BASE_PATH
from services.sandbox.query import Page as Counted
from services.sandbox.query import Query, links, project, read
from services.sandbox.recipe import Draft, Entry, Recipe
from services.sandbox.recipes import RECIPES
from services.sandbox.vendors.access import check_basic, check_header
from services.sandbox.vendors.dialect import (
    Answer,
    Dialect,
    Problem,
    RefusedError,
    Request,
    json_answer,
    link_header,
    shown,
)
from services.sandbox.vendors.pages import by_offset
from services.sandbox.vendors.store import Collection, Draw, Row, Store

HOST: Final = "api-na.myconnectwise.net"
LOGIN, SECRET, CLIENT_ID = "acme+public", "private", "0b2f7a3e-1111-4222-8333-444455556666"
_BY_PATH: Final = {recipe.path: recipe for recipe in RECIPES}


class _NoShelf:
    """Records of this dialect refer to none."""

    def pick(self, _rng: Random, _path: str, _owner_id: int | None) -> Entry | None:
        return None

    def turn(self, _path: str, _number: int) -> Entry | None:
        return None

    def find(self, _path: str, _record_id: int) -> Entry | None:
        return None


def _made(recipe: Recipe) -> Callable[[Draw], dict[str, Any]]:
    def make(draw: Draw) -> dict[str, Any]:
        draft = Draft(draw.rng, _NoShelf(), {"id": draw.id}, draw.id, int(draw.now.timestamp()))
        draft.fill(recipe, recipe.fields)
        return cast("dict[str, Any]", draft.record)

    return make


# Collection -> path, the text that changes; tickets of both kinds share one id space, and so do their notes.
_LISTS: Final[dict[str, tuple[str, str]]] = {
    "tickets": ("service/tickets", "summary"),
    "project_tickets": ("project/tickets", "summary"),
    "ticket_notes": ("service/tickets/{id}/notes", "text"),
    "project_ticket_notes": ("project/tickets/{id}/notes", "text"),
    "time_entries": ("time/entries", "notes"),
    "companies": ("company/companies", "name"),
    "contacts": ("company/contacts", "firstName"),
    "configurations": ("company/configurations", "name"),
    "members": ("system/members", "firstName"),
    "agreements": ("finance/agreements", "name"),
    "agreement_additions": ("finance/agreements/{id}/additions", "description"),
    "invoices": ("finance/invoices", "reference"),
    "projects": ("project/projects", "name"),
    "opportunities": ("sales/opportunities", "name"),
    "activities": ("sales/activities", "name"),
    "products": ("procurement/products", "description"),
    "catalog_items": ("procurement/catalog", "description"),
    "expense_entries": ("expense/entries", "notes"),
    "time_sheets": ("time/sheets", "status"),
    "schedule_entries": ("schedule/entries", "name"),
    "boards": ("service/boards", "name"),
    "board_statuses": ("service/boards/{id}/statuses", "name"),
    "board_types": ("service/boards/{id}/types", "name"),
    "teams": ("service/teams", "name"),
    "priorities": ("service/priorities", "name"),
    "sources": ("service/sources", "name"),
    "work_types": ("time/workTypes", "name"),
    "work_roles": ("time/workRoles", "name"),
    "departments": ("system/departments", "name"),
    "locations": ("system/locations", "name"),
    "project_statuses": ("project/statuses", "name"),
}
_PARENTS: Final = {
    "ticket_notes": "tickets",
    "project_ticket_notes": "project_tickets",
    "agreement_additions": "agreements",
    "board_statuses": "boards",
    "board_types": "boards",
}
_SECOND: Final = frozenset({"project_tickets", "project_ticket_notes"})


def _id_of(name: str) -> Callable[[int, Random], int]:
    """Even numbers for the first of two lists that share an id space, odd ones for the second."""
    return lambda number, _rng: 2 * number + (name in _SECOND)


def _collection(name: str) -> Collection:
    path, text = _LISTS[name]
    return Collection(
        name,
        _made(_BY_PATH[path]),
        text=text,
        ids=_id_of(name),
        stamp="_info.lastUpdated",
        created="_info.dateEntered",
        parent=_PARENTS.get(name),
        touches_parent=_BY_PATH[path].touches,
        size=2 if name in _PARENTS else 12,
    )


def answer(store: Store, request: Request) -> Answer:
    """Lists, and single records by id. Source: developer guide, "Authentication", "Partial Responses", "Pagination"."""
    check_basic(request, LOGIN, SECRET)
    check_header(request, "clientId", CLIENT_ID)
    if request.method != "GET":
        raise RefusedError("bad_request", f"{request.method} is not supported here")
    name, parent, record = _route(request.path)
    if parent and store.find(_PARENTS[name], parent) is None:
        raise RefusedError("not_found", request.path)
    try:
        query = read(_BY_PATH[_LISTS[name][0]], request.query, request.headers.get("pagination-type"))
    except QueryError as unreadable:
        raise RefusedError("bad_request", str(unreadable)) from unreadable
    if record:
        row = store.find(name, record)
        if row is None or (parent and row.parent != parent):
            raise RefusedError("not_found", request.path)
        return json_answer(row.content, shown([row], collection=name, one=True))
    return _listed(request, name, _chosen(store.rows(name, parent or None), query), query)


def _listed(request: Request, name: str, rows: Sequence[Row], query: Query) -> Answer:
    cut = by_offset(rows, (query.page - 1) * query.page_size, query.page_size)
    ids = [row.raw_id for row in cut.rows]
    addresses = {rel: request.url(**changed) for rel, changed in links(query, Counted(ids, cut.total))}
    fields = query.fields

    def render(row: Row) -> Any:
        return row.content if fields is None else project(row.content, fields)

    following = addresses.get("next", "") if cut.more else ""
    page = shown(cut.rows, collection=name, whole=fields is None, more=cut.more, following=following, render=render)
    return json_answer(page.contents, page, headers=link_header(**addresses))


def _chosen(rows: Sequence[Row], query: Query) -> list[Row]:
    """What the conditions let pass, in order; by id where none is asked for."""
    found = list(rows)
    if query.condition is not None:
        test = truth_of(query.condition)
        found = [row for row in found if test(row.content) is True]
    if query.after_id is not None:
        found = [row for row in found if row.raw_id > query.after_id]
    found.sort(key=lambda row: cast("int", row.raw_id))
    for order in reversed(query.order):
        found.sort(key=lambda row: _sortable(row, order.column.path), reverse=order.descending)
    return found


def _sortable(row: Row, path: tuple[str, ...]) -> tuple[bool, float, str]:
    value = value_at(row.content, path)
    number = float(value) if isinstance(value, int | float) else 0.0
    return value is not None, number, str(value).lower()


def _route(path: str) -> tuple[str, str, str]:
    """`/v4_6_release/apis/3.0/service/boards/3/statuses` -> board_statuses, below 3, no single record."""
    parts = path.removeprefix(f"{BASE_PATH}/").strip("/").split("/") if path.startswith(f"{BASE_PATH}/") else []
    for name, (pattern, _) in _LISTS.items():
        wanted = pattern.split("/")
        head, tail = parts[: len(wanted)], parts[len(wanted) :]
        if len(head) == len(wanted) and len(tail) <= 1 and all(map(_fits, wanted, head)):
            parent = head[wanted.index("{id}")] if "{id}" in wanted else ""
            if not tail or tail[0].isdecimal():
                return name, parent, tail[0] if tail else ""
    raise RefusedError("not_found", path)


def _fits(expected: str, part: str) -> bool:
    return part.isdecimal() if expected == "{id}" else part == expected


_REFUSALS: Final[dict[Problem, tuple[int, str]]] = {
    "unauthorized": (401, "Unauthorized"),
    "invalid_grant": (401, "Unauthorized"),
    "forbidden": (403, "Security"),
    "not_found": (404, "NotFound"),
    "unavailable": (500, "ServerError"),
    "bad_request": (400, "ConnectWiseApi"),
    "expired": (400, "ConnectWiseApi"),
}


def error(problem: Problem, about: str, wait_s: float | None) -> Answer:
    """`{code, message, errors}`; a 429 in the shape of the guide's "Rate limits"."""
    if problem == "throttled":
        wait = {} if wait_s is None else {"Retry-After": str(int(wait_s))}
        body = {"error": "ConnectWiseAPI", "message": "Too many requests. Please try again later."}
        return json_answer(body, status=429, headers=wait)
    status, code = _REFUSALS[problem]
    return json_answer({"code": code, "message": about, "errors": None}, status=status)


def credentials(_store: Store) -> dict[str, str]:
    company, public = LOGIN.split("+")
    return {
        "api_url": f"https://{HOST}",
        "company_id": company,
        "public_key": public,
        "private_key": SECRET,
        "client_id": CLIENT_ID,
    }


DIALECT: Final = Dialect(
    "connectwise",
    (HOST,),
    tuple(_collection(name) for name in _LISTS),
    credentials,
    answer,
    error,
    sources=(
        "ConnectWise PSA developer guide: Authentication, Query String Parameters, Conditions, Partial Responses, "
        "Pagination, HTTP Response Statuses, Rate limits",
        "connectwise_psa.json (2026.4): paths, fields, header clientId",
        "github.com/christaylorcodes/ConnectWiseManageAPI issues 18 and 30: bodies of errors",
        "docs.xyte.io/docs/kb-5017: code Security where a permission is missing",
    ),
    unsourced=("that a changed note stamps its ticket", "the order of a list for which none is asked"),
)
