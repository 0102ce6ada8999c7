"""What a request asks of a list, read from its URL and headers; and the list's answer, as ids in order.

Source: ConnectWise PSA developer guide, sections "Query String Parameters", "Partial Responses" and "Pagination"
(navigable and forward-only). Names of parameters are read without regard to letter case, as the guide writes them.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from services.sandbox.conditions import Column, Condition, QueryError, parse, truth_of, value_at
from services.sandbox.narrowing import narrow
from services.sandbox.recipe import Data, Kind, Recipe
from services.sandbox.tables import Table

PAGE_SIZE_DEFAULT = 25
PAGE_SIZE_MAX = 1000
FORWARD_ONLY = "forward-only"
_UNREAD = ("childconditions", "customfieldconditions")  # known to the vendor; ignoring them would answer wrongly
_INFO = {"lastupdated": "lastUpdated", "dateentered": "dateEntered", "updatedby": "updatedBy", "enteredby": "enteredBy"}
_BELOW: dict[str, tuple[str, Kind]] = {
    "id": ("id", "number"),
    "name": ("name", "text"),
    "identifier": ("identifier", "text"),
    "summary": ("summary", "text"),
    "sort": ("sort", "number"),
    "level": ("level", "text"),
}


class Order(msgspec.Struct, frozen=True):
    column: Column
    descending: bool


class Query(msgspec.Struct, frozen=True):
    """One request for a list. `after_id` is set in forward-only paging, where `page` is always 1."""

    condition: Condition | None = None
    order: tuple[Order, ...] = ()
    fields: tuple[tuple[str, ...], ...] | None = None
    page: int = 1
    page_size: int = PAGE_SIZE_DEFAULT
    after_id: int | None = None

    @property
    def ids_only(self) -> bool:
        return self.fields == (("id",),)


class Page(msgspec.Struct, frozen=True):
    """The ids of one page in order, and how many records the whole list has."""

    ids: Sequence[int]
    total: int


def read(recipe: Recipe, parameters: Mapping[str, str], pagination_type: str | None) -> Query:
    """The request, checked. `pagination_type` is the header of that name. Errors: QueryError."""
    given = {name.lower(): text for name, text in parameters.items()}
    for name in _UNREAD:
        if given.get(name):
            raise QueryError(f"{name} is not supported by this server")

    def column(text: str) -> Column:
        return resolve(recipe, text)

    query = Query(
        condition=parse(given["conditions"], column) if given.get("conditions", "").strip() else None,
        order=_order(given.get("orderby", ""), column),
        fields=_fields(given.get("fields", "")),
        page=_whole(given, "page", 1, None),
        page_size=_whole(given, "pagesize", PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX),
    )
    if (pagination_type or "").lower() != FORWARD_ONLY:
        return query
    if any(order.column.path != ("id",) or order.descending for order in query.order):
        raise QueryError("orderBy cannot be used with forward-only paging, which is ordered by id")
    return msgspec.structs.replace(query, page=1, order=(), after_id=_whole(given, "pageid", 0, None, lowest=0))


def resolve(recipe: Recipe, text: str) -> Column:
    """The field that a path such as `board/name` or the alias `lastUpdated` names. Errors: QueryError."""
    names = {name.lower(): name for name in recipe.fields}
    head, *below = text.lower().split("/")
    if head == "_info" and len(below) == 1 and below[0] in _INFO:
        return Column(("_info", _INFO[below[0]]), "text" if below[0].endswith("by") else "date")
    if head in _INFO and head not in names and not below:
        return resolve(recipe, f"_info/{head}")
    if head == "id" and not below:
        return Column(("id",), "number")
    if head in names and not below:
        return Column((names[head],), recipe.fields[names[head]].kind)
    if head in names and len(below) == 1 and below[0] in _BELOW and recipe.fields[names[head]].kind == "reference":
        name, kind = _BELOW[below[0]]
        return Column((names[head], name), kind)
    raise QueryError(f"{recipe.noun} has no field {text!r}")


def select(table: Table, owner_id: int | None, query: Query) -> Page:
    """The page of the list. `owner_id` limits it to the records below one record."""
    ids = matching(table, owner_id, query)
    if query.after_id is not None:
        ids = ids[bisect_right(ids, query.after_id) :]
        return Page(ids[: query.page_size], len(ids))
    for order in reversed(query.order):
        if order.column.path == ("id",):
            ids = sorted(ids, reverse=order.descending)
        else:
            keys = {record_id: _sort_key(table.entries[record_id].data, order.column) for record_id in ids}
            ids = sorted(ids, key=keys.__getitem__, reverse=order.descending)
    start = (query.page - 1) * query.page_size
    return Page(ids[start : start + query.page_size], len(ids))


def matching(table: Table, owner_id: int | None, query: Query) -> Sequence[int]:
    """Ids of all records the condition holds for, ascending."""
    narrowed = narrow(query.condition)
    entries = table.entries
    ids = table.ids if owner_id is None else table.owned(owner_id)
    ids = ids[bisect_left(ids, narrowed.id_min) : bisect_right(ids, narrowed.id_max)]
    if narrowed.by_stamp:
        low, high = narrowed.stamp_min, narrowed.stamp_max
        first, last = bisect_left(table.by_stamp, (low, 0)), bisect_left(table.by_stamp, (high + 1, 0))
        if owner_id is None and last - first < len(ids):
            recent = (record_id for _, record_id in table.by_stamp[first:last])
            ids = sorted(found for found in recent if narrowed.id_min <= found <= narrowed.id_max)
        else:
            ids = [record_id for record_id in ids if low <= entries[record_id].stamp <= high]
    if narrowed.rest is not None:
        test = truth_of(narrowed.rest)
        ids = [record_id for record_id in ids if test(entries[record_id].data) is True]
    return ids


def project(data: Data, fields: Iterable[tuple[str, ...]]) -> Data:
    """The record with the asked fields only, nested and ordered by the request; one it does not have stays out."""
    inner: dict[str, list[tuple[str, ...]]] = {}
    for head, *below in fields:
        inner.setdefault(head, []).append(tuple(below))
    shown: Data = {}
    for name, paths in inner.items():
        value = data.get(name, msgspec.UNSET)
        if isinstance(value, dict) and () not in paths:
            shown[name] = project(value, paths)
        elif value is not msgspec.UNSET:
            shown[name] = value
    return shown


def links(query: Query, page: Page) -> list[tuple[str, Mapping[str, str]]]:
    """The `Link` header: (rel, parameters that differ) in the guide's order.

    Forward-only: always a next page while records come; an empty page has none. Navigable: `next` and `prev` only where
    there is one, `last` always where there is a page at all.
    """
    if query.after_id is not None:
        return [("next", {"pageId": str(page.ids[-1])})] if page.ids else []
    last = -(-page.total // query.page_size)
    found = []
    if query.page > 1:
        found += [("first", 1), ("prev", query.page - 1)]
    if query.page < last:
        found.append(("next", query.page + 1))
    if last:
        found.append(("last", last))
    return [(rel, {"page": str(number)}) for rel, number in found]


def _whole(given: Mapping[str, str], name: str, default: int, highest: int | None, lowest: int = 1) -> int:
    text = given.get(name, "").strip()
    if not text:
        return default
    if not text.isascii() or not text.isdigit():
        raise QueryError(f"{name} is {text!r}, not a whole number")
    value = int(text[:18])
    if value < lowest or (highest is not None and value > highest):
        raise QueryError(f"{name} is {value}, outside {lowest}..{highest if highest is not None else ''}")
    return value


def _order(text: str, column: Callable[[str], Column]) -> tuple[Order, ...]:
    orders = []
    for part in text.split(",") if text.strip() else ():
        words = part.split()
        if len(words) not in (1, 2) or (len(words) == 2 and words[1].lower() not in ("asc", "desc")):
            raise QueryError(f"cannot read orderBy {part.strip()!r}: a field, then asc or desc")
        orders.append(Order(column(words[0]), len(words) == 2 and words[1].lower() == "desc"))
    return tuple(orders)


def _fields(text: str) -> tuple[tuple[str, ...], ...] | None:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return tuple(tuple(name.split("/")) for name in names) if names else None


def _sort_key(data: Data, column: Column) -> tuple[bool, str | float]:
    """Null before everything, as in SQL Server; text without regard to letter case."""
    value = value_at(data, column.path)
    if value is None:
        return (False, "")
    return (True, float(str(value)) if column.kind == "number" else str(value).casefold())
