"""The dialect of ServiceNow: the Table API (`/api/now/table/{table}`) with encoded queries, and OAuth or HTTP Basic.

A record is held as `sysparm_display_value=all` shows it: every field `{display_value, value}`, both text.
"""

import hashlib
import operator
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

import msgspec

from services.sandbox.vendors.access import (
    basic_of,
    bearer_of,
    check_basic,
    check_client,
    spend,
    token_answer,
    tokens_of,
)
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
from services.sandbox.vendors.pages import by_offset
from services.sandbox.vendors.store import Collection, Draw, Row, Store

BASE: Final = "/api/now/table/"
LIMIT_DEFAULT: Final = 10_000
TOKEN_S: Final = 1_799.0
PER_HOUR: Final = 100_000
USER, PASSWORD = "avesa.integration", "right horse"
CLIENT_ID, CLIENT_SECRET = "3f1c0c0c", "client-secret"

Fields = Mapping[str, str]  # name -> kind: text, flag, time, date, number, span, choice:a|b, or the collection it names
_TASK: Final[Fields] = {
    "number": "text",
    "short_description": "text",
    "description": "text",
    "active": "flag",
    "state": "choice:New|In Progress|Closed",
    "priority": "choice:Critical|High|Low",
    "company": "companies",
    "location": "locations",
    "assignment_group": "groups",
    "assigned_to": "users",
    "contact_type": "choice:Phone|Email",
    "due_date": "time",
    "closed_at": "time",
    "made_sla": "flag",
    "time_worked": "span",
    "contract": "contracts",
    "cmdb_ci": "configuration_items",
}
_PERSON: Final[Fields] = {
    "name": "text",
    "first_name": "text",
    "last_name": "text",
    "email": "text",
    "phone": "text",
    "mobile_phone": "text",
    "title": "text",
    "active": "flag",
    "user_name": "text",
    "user_password": "text",
    "location": "locations",
    "manager": "users",
}
_COMPANY: Final[Fields] = {
    "name": "text",
    "street": "text",
    "city": "text",
    "country": "text",
    "phone": "text",
    "website": "text",
    "num_employees": "number",
    "vendor": "flag",
}


class Table(msgspec.Struct, frozen=True):
    """One table: its name at ServiceNow, the collection of its records, and the collections of its child tables."""

    name: str
    collection: str
    fields: Fields
    text: str
    children: tuple[str, ...] = ()
    log: bool = False
    size: int = 9


_TABLES: Final = (
    Table("cmn_location", "locations", {"name": "text", "city": "text"}, "name"),
    Table("cmn_department", "departments", {"name": "text", "id": "text"}, "name"),
    Table("sys_user_group", "groups", {"name": "text", "active": "flag"}, "name"),
    Table("core_company", "companies", _COMPANY, "name", children=("customer_accounts",), size=12),
    Table("customer_account", "customer_accounts", {**_COMPANY, "number": "text"}, "name"),
    Table("sys_user", "users", {**_PERSON, "department": "departments"}, "name", children=("customer_contacts",)),
    Table("customer_contact", "customer_contacts", {**_PERSON, "account": "customer_accounts"}, "name"),
    Table(
        "cmdb_ci",
        "configuration_items",
        {
            "name": "text",
            "serial_number": "text",
            "asset_tag": "text",
            "install_status": "choice:Installed|Retired",
            "operational_status": "choice:Operational|Non-Operational",
            "company": "companies",
            "assigned_to": "users",
            "purchase_date": "date",
            "install_date": "time",
        },
        "name",
        size=14,
    ),
    Table(
        "ast_contract",
        "contracts",
        {
            "number": "text",
            "short_description": "text",
            "state": "choice:Draft|Active|Expired",
            "vendor": "companies",
            "starts": "date",
            "ends": "date",
            "payment_amount": "number",
        },
        "short_description",
    ),
    Table(
        "incident", "incidents", {**_TASK, "caller_id": "users", "severity": "choice:1|2"}, "short_description", size=18
    ),
    Table(
        "change_request", "change_requests", {**_TASK, "start_date": "time", "end_date": "time"}, "short_description"
    ),
    Table("problem", "problems", {**_TASK, "opened_by": "users"}, "short_description"),
    Table("sc_req_item", "requested_items", {**_TASK, "requested_for": "users"}, "short_description"),
    Table("sc_task", "catalog_tasks", {**_TASK, "request_item": "requested_items"}, "short_description"),
    Table(
        "sn_customerservice_case",
        "customer_cases",
        {**_TASK, "account": "customer_accounts", "contact": "customer_contacts"},
        "short_description",
    ),
    Table(
        "task_time_worked",
        "time_worked",
        {"task": "incidents", "user": "users", "time_in_seconds": "number", "work_date": "time", "comments": "text"},
        "comments",
        size=14,
    ),
    Table(
        "time_card",
        "time_cards",
        {
            "task": "incidents",
            "user": "users",
            "total": "number",
            "week_starts_on": "date",
            "state": "choice:Pending|Approved",
            "short_description": "text",
        },
        "short_description",
    ),
    Table("pm_project", "projects", {**_TASK, "percent_complete": "number", "effort": "span"}, "short_description"),
    Table(
        "cmdb_software_product_model",
        "software_models",
        {"display_name": "text", "name": "text", "model_number": "text", "manufacturer": "companies"},
        "display_name",
    ),
    Table(
        "em_alert",
        "alerts",
        {
            "number": "text",
            "description": "text",
            "severity": "choice:Critical|Major|Clear",
            "state": "choice:Open|Closed",
            "source": "text",
            "node": "text",
            "cmdb_ci": "configuration_items",
            "event_count": "number",
            "last_remote_time": "time",
        },
        "description",
    ),
    Table(
        "sys_journal_field",
        "journal",
        {"element": "choice:comments|work_notes", "element_id": "incidents", "name": "text", "value": "text"},
        "value",
        log=True,
        size=16,
    ),
)
_BY_NAME: Final = {table.name: table for table in _TABLES}
_BY_COLLECTION: Final = {table.collection: table for table in _TABLES}


def glide_time(moment: datetime) -> str:
    """`2026-01-31 12:00:00`, UTC: how a time stands in the database."""
    return moment.strftime("%Y-%m-%d %H:%M:%S")


# -- records -----------------------------------------------------------------------------------------------------------
def _maker(table: Table) -> Callable[[Draw], dict[str, Any]]:
    def make(draw: Draw) -> dict[str, Any]:
        content = {name: _drawn(draw, name, kind) for name, kind in table.fields.items()}
        content["sys_class_name"] = _both(table.name, table.name.replace("_", " ").title())
        content["sys_created_by"] = content["sys_updated_by"] = _both(draw.one_of("admin", "ana.lopez"))
        content["sys_mod_count"] = _both(str(draw.number_in(0, 40)))
        content["u_region"] = _both(draw.one_of("", "North", "Süd"))
        if table.name == "sys_journal_field":
            content["name"] = _both("incident")
        return content

    return make


def _both(value: str, display: str | None = None) -> dict[str, str]:
    return {"display_value": value if display is None else display, "value": value}


def _drawn(draw: Draw, name: str, kind: str) -> dict[str, str]:
    """A field of that kind; every kind may be empty, which is empty text here."""
    if kind != "text" and draw.flag(0.15):
        return _both("")
    word, _, choices = kind.partition(":")
    if word == "choice":
        labels = choices.split("|")
        place = draw.number_in(0, len(labels) - 1)
        return _both(labels[place] if name in _SPELLED_OUT else str(place + 1), labels[place])
    if word in _PLAIN:
        return _both(_PLAIN[word](draw))
    found = draw.of(kind)
    return _both(found or "", f"{kind} {found[:6]}" if found else "")


_SPELLED_OUT: Final = frozenset({"element", "state"})  # choices whose value is a word, not a number
_PLAIN: Final[Mapping[str, Callable[[Draw], str]]] = {
    "text": lambda draw: f"{draw.one_of('Printer', 'VPN', 'Zoë’s laptop', 'Mail')} {draw.number}",
    "flag": lambda draw: str(draw.one_of("true", "false")),
    "time": lambda draw: glide_time(draw.moment(-20, 20)),
    "date": lambda draw: glide_time(draw.moment(-200, 200))[:10],
    "number": lambda draw: str(draw.number_in(0, 9_000)),
    "span": lambda draw: glide_time(datetime(1970, 1, 1, tzinfo=UTC) + timedelta(minutes=draw.number_in(1, 3_000))),
}


def _sys_id(_: int, rng: Random) -> str:
    return f"{rng.getrandbits(128):032x}"


COLLECTIONS: Final = tuple(
    Collection(
        table.collection,
        _maker(table),
        text=f"{table.text}.value",
        id="sys_id.value",
        ids=_sys_id,
        stamp=None if table.log else "sys_updated_on.value",
        created="sys_created_on.value",
        spell=glide_time,
        log=table.log,
        fixed=frozenset({"sys_class_name.value", "sys_class_name.display_value"}),
        size=table.size,
    )
    for table in _TABLES
)


# -- requests ----------------------------------------------------------------------------------------------------------
def answer(store: Store, request: Request) -> Answer:
    """`/oauth_token.do`, lists and single records of tables."""
    if (request.method, request.path) == ("POST", "/oauth_token.do"):
        return _token(store, request)
    if basic_of(request) is not None:
        check_basic(request, USER, PASSWORD)
    else:
        tokens_of(store).check(bearer_of(request))
    spent = spend(store, "hour", PER_HOUR, 3_600.0)
    if request.method != "GET" or not request.path.startswith(BASE):
        raise RefusedError("not_found", request.path)
    name, _, sys_id = request.path.removeprefix(BASE).partition("/")
    found = _one(store, request, name, sys_id) if sys_id else _listed(store, request, name)
    reset = str(int(request.at.timestamp()) + spent.reset_s)
    limits = {"X-RateLimit-Limit": str(spent.limit), "X-RateLimit-Reset": reset, "X-RateLimit-Rule": "0" * 32}
    return msgspec.structs.replace(found, headers={**found.headers, **limits})


def _token(store: Store, request: Request) -> Answer:
    check_client(request, CLIENT_ID, CLIENT_SECRET)
    if request.form.get("grant_type") != "client_credentials":
        raise RefusedError("invalid_grant", "unsupported grant type")
    return token_answer(store, TOKEN_S, scope="useraccount")


def _one(store: Store, request: Request, name: str, sys_id: str) -> Answer:
    row = next((row for held in _held(name) if (row := store.find(held, sys_id)) is not None), None)
    if row is None:
        raise RefusedError("not_found", "No Record found")
    listed = shown([row], collection=row.collection, render=_rendering(request.query), one=True)
    return json_answer({"result": listed.contents[0]}, listed)


def _listed(store: Store, request: Request, name: str) -> Answer:
    """A page: rows that the query lets pass, in its order, cut at the limit; and then without those that an ACL hides,
    so that a page may be short though more follow."""
    query = request.query
    size = number_in(query, "sysparm_limit", LIMIT_DEFAULT, least=1)
    start = number_in(query, "sysparm_offset", 0)
    encoded = query.get("sysparm_query", "")
    if name == "sys_audit_delete":
        held = [_grave(row) for made in _TABLES for row in store.graves(made.collection)]
        kept = _queried(encoded, held)[start : start + size]
        render = _rendering(query)
        return json_answer({"result": [render(found) for found in kept]})
    rows = _rows(store, name)
    by_id = {row.id: row for row in rows}
    kept_rows = [by_id[found["sys_id"]["value"]] for found in _queried(encoded, [row.content for row in rows])]
    cut = by_offset(kept_rows, start, size)
    left = cut.rows[: max(1, len(cut.rows) - _hidden(cut.rows))] if cut.more and start == 0 else cut.rows
    following = request.url(sysparm_offset=start + size) if cut.more else ""
    fields = query.get("sysparm_fields", "")
    collection = _BY_NAME[name].collection
    more = cut.more or len(left) < len(cut.rows)
    listed = shown(
        left, collection=collection, render=_rendering(query), whole=not fields, more=more, following=following
    )
    headers = {} if query.get("sysparm_suppress_pagination_header") == "true" else link_header(next=following)
    if query.get("sysparm_no_count") != "true":
        headers["X-Total-Count"] = str(cut.total)
    return json_answer({"result": listed.contents}, listed, headers=headers)


def _hidden(rows: Sequence[Row]) -> int:
    """How many of a page's rows are such as nobody here may read: they take up room and are not shown."""
    return hashlib.blake2b(rows[0].id.encode()).digest()[0] % 3


def _held(name: str) -> tuple[str, ...]:
    """The collections of a table and of its child tables."""
    table = _BY_NAME.get(name)
    if table is None:
        raise RefusedError("bad_request", f"Invalid table {name}")
    return (table.collection, *table.children)


def _rows(store: Store, name: str) -> list[Row]:
    """The records of a table and of its child tables, in no order that a reader could use."""
    rows = [row for held in _held(name) for row in store.rows(held)]
    return sorted(rows, key=lambda row: hashlib.blake2b(row.id.encode(), digest_size=8).digest())


def _grave(row: Row) -> dict[str, Any]:
    assert row.deleted_at is not None, "of the deleted"
    name = _BY_COLLECTION[row.collection].name
    sys_id = hashlib.blake2b(f"{row.collection} {row.id} {row.version}".encode(), digest_size=16).hexdigest()
    return {
        "sys_id": _both(sys_id),
        "tablename": _both(name),
        "documentkey": _both(row.id),
        "display_value": _both("deleted"),
        "payload": _both(f"<{name}><user_password>secret</user_password></{name}>"),
        "sys_created_on": _both(glide_time(row.deleted_at)),
        "sys_created_by": _both("admin"),
    }


def _rendering(query: Mapping[str, str]) -> Callable[[Any], Any]:
    """A record as the parameters ask for it."""
    wanted = [name for name in query.get("sysparm_fields", "").split(",") if name]
    mode = query.get("sysparm_display_value", "false")

    def render(found: Row | dict[str, Any]) -> dict[str, Any]:
        content = found.content if isinstance(found, Row) else found
        return {name: _field(held, mode) for name, held in content.items() if not wanted or name in wanted}

    return render


def _field(held: Any, mode: str) -> Any:
    if not isinstance(held, dict):
        return held
    value = held.get("value", "")
    whole = {"display_value": value, **held}
    return whole if mode == "all" else whole["display_value"] if mode == "true" else value


# -- encoded queries ---------------------------------------------------------------------------------------------------
class _Condition(msgspec.Struct, frozen=True):
    field: str
    operator: str
    wanted: str
    joins: bool = False  # `^OR`: with the condition before it

    def holds(self, content: Mapping[str, Any]) -> bool:
        held = content[self.field]
        found = str(held.get("value") or "") if isinstance(held, dict) else str(held)
        return _TESTS[self.operator](found, self.wanted)


def _ordered(test: Callable[[Any, Any], bool]) -> Callable[[str, str], bool]:
    """Numbers compare as numbers, all else as text; what is empty compares with nothing."""

    def holds(found: str, wanted: str) -> bool:
        if not found:
            return False
        numbers = _plain_numbers((found, wanted))
        return test(float(found), float(wanted)) if numbers else test(found, wanted)

    return holds


_TESTS: Final[Mapping[str, Callable[[str, str], bool]]] = {  # the longer spellings first
    "ISNOTEMPTY": lambda found, _: bool(found),
    "ISEMPTY": lambda found, _: not found,
    "STARTSWITH": lambda found, wanted: found.lower().startswith(wanted.lower()),
    "LIKE": lambda found, wanted: wanted.lower() in found.lower(),
    "!=": operator.ne,
    ">=": _ordered(operator.ge),
    "<=": _ordered(operator.le),
    "IN": lambda found, wanted: found in wanted.split(","),
    "=": operator.eq,
    ">": _ordered(operator.gt),
    "<": _ordered(operator.lt),
}


def _plain_numbers(texts: Sequence[str]) -> bool:
    return all(len(text) < 16 and text.lstrip("-").replace(".", "", 1).isdigit() for text in texts)


def _queried(encoded: str, contents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The records that an encoded query lets pass, in its order; a condition on an unknown field is dropped."""
    known = {name for content in contents for name in content}
    parts = [part for part in encoded.split("^") if part and part != "EQ"]
    sorts = [part for part in parts if part.startswith("ORDERBY")]
    conditions = [_condition(part) for part in parts if not part.startswith("ORDERBY")]
    groups: list[list[_Condition]] = []
    for one in conditions:
        if one.field not in known:
            continue
        if one.joins and groups:
            groups[-1].append(one)
        else:
            groups.append([one])
    left = [
        content
        for content in contents
        if all(any(one.field in content and one.holds(content) for one in group) for group in groups)
    ]
    for sort in reversed(sorts):
        name = sort.removeprefix("ORDERBYDESC").removeprefix("ORDERBY")
        if name in known:
            left.sort(key=lambda content: str((content.get(name) or {}).get("value", "")), reverse="DESC" in sort[:11])
    return left


def _condition(text: str) -> _Condition:
    joins = text.startswith("OR")
    plain = text.removeprefix("OR") if joins else text
    for place in range(1, len(plain)):
        for sign in _TESTS:
            if plain.startswith(sign, place):
                return _Condition(plain[:place], sign, plain[place + len(sign) :], joins)
    raise RefusedError("bad_request", f"Invalid query {text}")


# -- refusals ----------------------------------------------------------------------------------------------------------
_STATUSES: Final[Mapping[Problem, tuple[int, str]]] = {
    "unauthorized": (401, "User Not Authenticated"),
    "forbidden": (403, "User Not Authorized"),
    "not_found": (404, "No Record found"),
    "throttled": (429, "Rate limit exceeded"),
    "unavailable": (503, "Service unavailable"),
    "bad_request": (400, "Bad request"),
    "expired": (400, "Bad request"),
}
_DETAILS: Final[Mapping[Problem, str]] = {
    "unauthorized": "Required to provide Auth information",
    "forbidden": "Failed API level ACL Validation",
    "not_found": "Record doesn't exist or ACL restricts the record retrieval",
}


def error(problem: Problem, about: str, wait_s: float | None) -> Answer:
    """`{"error": {"message", "detail"}, "status": "failure"}`; the token endpoint speaks RFC 6749."""
    if problem == "invalid_grant":
        return json_answer({"error_description": "access_denied", "error": "invalid_client"}, status=401)
    status, message = _STATUSES[problem]
    told = about if problem == "bad_request" and about.startswith("Invalid") else message
    value = {"error": {"message": told, "detail": _DETAILS.get(problem)}, "status": "failure"}
    wait = {} if wait_s is None else {"Retry-After": str(max(1, int(wait_s)))}
    return json_answer(value, status=status, headers=wait)


def credentials(_: Store) -> dict[str, str]:
    return {
        "instance_url": "https://acme.service-now.com",
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
    }


DIALECT: Final = Dialect(
    "servicenow",
    hosts=("*.service-now.com",),
    collections=COLLECTIONS,
    credentials=credentials,
    answer=answer,
    error=error,
    sources=(
        "ServiceNow docs, Table API: parameters, Link and X-Total-Count, result, 404 for a record that is not there",
        "ServiceNow docs, Operators available for filters and queries; Encoded query strings",
        "Community blog of ServiceNow on glide.invalid_query.returns_no_rows: an invalid condition is dropped",
        "ServiceNow docs, Inbound REST API rate limiting: headers, 429, Retry-After",
        "ServiceNow docs, Client Credentials (OAuth); KB2058936: oauth_token.do, no refresh token",
        "ServiceNow docs, Table extension and classes: a list shows the records of child tables",
        "ServiceNow KB0534905, KB0724183: times in UTC; sys_audit_delete",
    ),
    unsourced=(
        "an ACL takes rows off a page after it was cut",
        "the bodies of 401, 403 and of an invalid table (as instances are known to answer)",
        "null compares with nothing",
        "spans of time are written as times after 1970 began",
    ),
)
