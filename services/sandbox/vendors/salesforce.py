"""The dialect of Salesforce: OAuth at the login host, SOQL by `query` and `queryAll`, records and describe at the
instance's.

`queryAll` shows deleted records with `IsDeleted`, but for those that somebody emptied from the recycle bin at once.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from random import Random
from typing import Any, Final

import msgspec

from services.sandbox.vendors.access import PublicKey, bearer_of, check_client, read_assertion, spend, tokens_of
from services.sandbox.vendors.dialect import Answer, Dialect, Problem, RefusedError, Request, json_answer, shown
from services.sandbox.vendors.filters import SQL, sql_like
from services.sandbox.vendors.store import Collection, Draw, Row, Store

VERSION: Final = "v62.0"
DATA: Final = f"/services/data/{VERSION}/"
LOGIN_HOST, INSTANCE_HOST = "acme.my.salesforce.com", "acme-na139.my.salesforce.com"
SESSION_S: Final = 7_200.0
PER_DAY: Final = 100_000
BATCH: Final = 2_000
URI_BYTES_MAX: Final = 16_384
SOQL_LIMIT_MAX: Final = 50_000
ASSERTION_S: Final = 300.0
CLIENT_ID, CLIENT_SECRET = "3MVG9.consumer", "consumer-secret"
USERNAME, AUDIENCE = "integration@acme.example", "https://login.salesforce.com"
KEY_FACT: Final = "salesforce:key"  # the public key of the app's certificate, a PublicKey, where there is one
_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Kind(msgspec.Struct, frozen=True):
    """One object: its name at Salesforce, the prefix of its ids, its fields (name -> type, or `reference>collection`),
    and what it has of the system's: the recycle bin, `SystemModstamp`."""

    collection: str
    name: str
    prefix: str
    fields: Mapping[str, str]
    text: str
    bin: bool = True
    deletes: bool = True
    merges: bool = False
    log: bool = False
    size: int = 8


def _fields(spec: str) -> dict[str, str]:
    """`Name:string AccountId>accounts Amount:currency`."""
    found = {}
    for word in spec.split():
        name, sign, kind = re.split(r"([:>])", word)
        found[name] = kind if sign == ":" else f"reference>{kind}"
    return found


_ADDRESS: Final = (
    "{0}Street:textarea {0}City:string {0}State:string {0}PostalCode:string {0}Country:string {0}Address:address"
)
_ACTIVITY: Final = (
    "Subject:combobox Description:textarea WhatId>accounts|cases|opportunities WhoId>contacts|leads OwnerId>users "
    "AccountId>accounts ActivityDate:date"
)
_KINDS: Final = (
    Kind("user_roles", "UserRole", "00E", _fields("Name:string ParentRoleId>user_roles"), "Name", bin=False),
    Kind(
        "users",
        "User",
        "005",
        _fields(
            "Username:string Name:string FirstName:string LastName:string Email:email Title:string IsActive:boolean "
            "UserRoleId>user_roles ManagerId>users TimeZoneSidKey:picklist LastLoginDate:datetime"
        ),
        "Title",
        bin=False,
        deletes=False,
        size=6,
    ),
    Kind("groups", "Group", "00G", _fields("Name:string Type:picklist"), "Name", bin=False),
    Kind(
        "accounts",
        "Account",
        "001",
        _fields(
            "Name:string Type:picklist Industry:picklist Phone:phone Website:url AnnualRevenue:currency "
            "NumberOfEmployees:int OwnerId>users ParentId>accounts Region__c:picklist " + _ADDRESS.format("Billing")
        ),
        "Name",
        merges=True,
        size=14,
    ),
    Kind(
        "contacts",
        "Contact",
        "003",
        _fields(
            "Name:string FirstName:string LastName:string Email:email Phone:phone MobilePhone:phone Birthdate:date "
            "AccountId>accounts ReportsToId>contacts OwnerId>users HasOptedOutOfEmail:boolean "
            + _ADDRESS.format("Mailing")
        ),
        "LastName",
        merges=True,
        size=14,
    ),
    Kind(
        "leads",
        "Lead",
        "00Q",
        _fields(
            "Name:string LastName:string Company:string Status:picklist IsConverted:boolean Email:email OwnerId>users"
        ),
        "Company",
        merges=True,
    ),
    Kind(
        "products",
        "Product2",
        "01t",
        _fields("Name:string ProductCode:string Family:picklist IsActive:boolean Description:textarea"),
        "Name",
    ),
    Kind(
        "price_book_entries",
        "PricebookEntry",
        "01u",
        _fields("Name:string Product2Id>products UnitPrice:currency IsActive:boolean"),
        "Name",
    ),
    Kind(
        "campaigns",
        "Campaign",
        "701",
        _fields(
            "Name:string IsActive:boolean BudgetedCost:currency "
            + " ".join(f"Score_{n:03d}__c:double" for n in range(205))
        ),
        "Name",
        size=9,
    ),
    Kind(
        "opportunities",
        "Opportunity",
        "006",
        _fields(
            "Name:string StageName:picklist Amount:currency Probability:percent CloseDate:date IsClosed:boolean "
            "IsWon:boolean AccountId>accounts CampaignId>campaigns OwnerId>users Tier__c:picklist"
        ),
        "Name",
        size=12,
    ),
    Kind(
        "opportunity_line_items",
        "OpportunityLineItem",
        "00k",
        _fields(
            "Name:string OpportunityId>opportunities Product2Id>products PricebookEntryId>price_book_entries "
            "Quantity:double UnitPrice:currency"
        ),
        "Name",
    ),
    Kind(
        "contracts",
        "Contract",
        "800",
        _fields(
            "ContractNumber:string Status:picklist AccountId>accounts CustomerSignedId>contacts StartDate:date "
            "Name:string"
        ),
        "Name",
    ),
    Kind(
        "orders",
        "Order",
        "801",
        _fields(
            "OrderNumber:string Status:picklist AccountId>accounts ContractId>contracts TotalAmount:currency "
            "PoNumber:string Description:textarea"
        ),
        "Description",
    ),
    Kind(
        "order_items",
        "OrderItem",
        "802",
        _fields("OrderId>orders Product2Id>products Quantity:double UnitPrice:currency Description:string"),
        "Description",
    ),
    Kind(
        "assets",
        "Asset",
        "02i",
        _fields(
            "Name:string SerialNumber:string Status:picklist AccountId>accounts ContactId>contacts Product2Id>products "
            "InstallDate:date PurchaseDate:date"
        ),
        "Name",
    ),
    Kind(
        "cases",
        "Case",
        "500",
        _fields(
            "CaseNumber:string Subject:string Status:picklist Priority:picklist IsClosed:boolean Origin:picklist "
            "AccountId>accounts ContactId>contacts OwnerId>users|groups SuppliedEmail:email ClosedDate:datetime"
        ),
        "Subject",
        size=18,
    ),
    Kind(
        "case_comments",
        "CaseComment",
        "00a",
        _fields("ParentId>cases CommentBody:textarea IsPublished:boolean"),
        "CommentBody",
        size=12,
    ),
    Kind(
        "case_history",
        "CaseHistory",
        "017",
        _fields("CaseId>cases Field:picklist OldValue:anyType NewValue:anyType"),
        "NewValue",
        log=True,
        size=12,
    ),
    Kind("tasks", "Task", "00T", _fields("Status:picklist IsClosed:boolean " + _ACTIVITY), "Subject", size=12),
    Kind(
        "calendar_events",
        "Event",
        "00U",
        _fields("StartDateTime:datetime EndDateTime:datetime " + _ACTIVITY),
        "Subject",
    ),
)
_BY_NAME: Final = {kind.name: kind for kind in _KINDS}
_BY_PREFIX: Final = {kind.prefix: kind for kind in _KINDS}
_BY_COLLECTION: Final = {kind.collection: kind for kind in _KINDS}
_PROFILE: Final = {"Name": "Integration"}
_POLYMORPHIC: Final = frozenset({"Owner", "What", "Who"})  # relationships whose `Type` is what they lead to


def system_time(moment: datetime) -> str:
    """`2026-01-31T12:00:00.000+0000`: whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000+0000")


def _described(kind: Kind) -> dict[str, str]:
    """All fields by name, with their types."""
    own = {name: held.partition(">")[0] for name, held in kind.fields.items()}
    common = {"Id": "id", "CreatedDate": "datetime", "CreatedById": "reference"}
    stamped = {"LastModifiedDate": "datetime", "LastModifiedById": "reference", "SystemModstamp": "datetime"}
    merged = {"MasterRecordId": "reference"} if kind.merges else {}
    return {
        **common,
        **({} if kind.log else stamped),
        **({"IsDeleted": "boolean"} if kind.bin else {}),
        **merged,
        **own,
    }


# -- records -----------------------------------------------------------------------------------------------------------
def _maker(kind: Kind) -> Callable[[Draw], dict[str, Any]]:
    def make(draw: Draw) -> dict[str, Any]:
        content = {name: _drawn(draw, held) for name, held in kind.fields.items()}
        return {
            **content,
            "CreatedById": draw.of("users"),
            **({} if kind.log else {"LastModifiedById": draw.of("users")}),
        }

    return make


_PLAIN: Final[Mapping[str, Callable[[Draw], Any]]] = {
    "boolean": lambda draw: draw.flag(),
    "int": lambda draw: draw.number_in(0, 900),
    "double": lambda draw: draw.number_in(0, 900) / 4,
    "percent": lambda draw: float(draw.number_in(0, 100)),
    "currency": lambda draw: draw.number_in(0, 90_000) / 100,
    "date": lambda draw: draw.moment(-200, 200).date().isoformat(),
    "datetime": lambda draw: system_time(draw.moment(-20, 20)),
    "picklist": lambda draw: draw.one_of("New", "Working", "Closed"),
    "address": lambda draw: {"city": draw.one_of("Lyon", "Boston"), "country": None},
}


def _drawn(draw: Draw, held: str) -> Any:
    kind, _, collections = held.partition(">")
    if kind == "reference":
        return draw.of(draw.one_of(*collections.split("|"))) if draw.flag(0.8) else None
    if kind in ("string", "textarea", "combobox", "anyType"):
        return f"{draw.one_of('Contoso', 'O’Neil & Søn', 'Printer', 'VPN')} {draw.number}"
    if kind in ("email", "phone", "url"):
        return draw.one_of(None, f"a{draw.number}@example.com")
    return None if kind != "boolean" and draw.flag(0.1) else _PLAIN[kind](draw)


def _identity(kind: Kind) -> Callable[[int, Random], str]:
    """Ids of 18 characters: 15 that tell upper from lower case, and three by which they differ without it."""

    def ids(_: int, rng: Random) -> str:
        short = f"{kind.prefix}Hs0000" + "".join(rng.choice(_DIGITS) for _ in range(6))
        return short + "".join(_checked(short[start : start + 5]) for start in (0, 5, 10))

    return ids


def _checked(five: str) -> str:
    return _ALPHABET[sum(1 << place for place, letter in enumerate(five) if letter.isupper())]


COLLECTIONS: Final = tuple(
    Collection(
        kind.collection,
        _maker(kind),
        text=kind.text,
        id="Id",
        ids=_identity(kind),
        stamp=None if kind.log else "SystemModstamp",
        created="CreatedDate",
        spell=system_time,
        log=kind.log,
        deletes=kind.deletes and not kind.log,
        merges=kind.merges,
        fixed=frozenset({"CreatedById"}),
        size=kind.size,
    )
    for kind in _KINDS
)


# -- requests ----------------------------------------------------------------------------------------------------------
def answer(store: Store, request: Request) -> Answer:
    """`/services/oauth2/token` at the login host, all else at the instance's."""
    if (request.method, request.path, request.host) == ("POST", "/services/oauth2/token", LOGIN_HOST):
        return _token(store, request)
    tokens_of(store).check(bearer_of(request))
    if request.method != "GET" or request.host != INSTANCE_HOST or not request.path.startswith(DATA):
        raise RefusedError("not_found", request.path)
    if len(request.url().removeprefix(request.origin).encode()) > URI_BYTES_MAX:
        return _refused(414, "URI_TOO_LONG", "URI Too Long")
    spent = spend(store, "day", PER_DAY, 86_400.0)
    usage = {"Sforce-Limit-Info": f"api-usage={spent.used}/{spent.limit}"}
    given = _data(store, request, request.path.removeprefix(DATA).rstrip("/").split("/"))
    return msgspec.structs.replace(given, headers={**given.headers, **usage})


def _data(store: Store, request: Request, parts: Sequence[str]) -> Answer:
    match parts:
        case ["query" | "queryAll" as how]:
            return _query(store, request.query.get("q", ""), deleted=how == "queryAll")
        case ["query", locator]:
            return _next(store, locator)
        case ["sobjects", name, "describe"]:
            return _describe(_kind(name, "not_found"))
        case ["sobjects", name, record_id]:
            return _one(store, request, _kind(name, "not_found"), record_id)
        case ["limits"]:
            return json_answer({"DailyApiRequests": {"Max": PER_DAY, "Remaining": PER_DAY}})
    raise RefusedError("not_found", request.path)


def _token(store: Store, request: Request) -> Answer:
    """No `expires_in`: how long a session lasts is the org's secret."""
    form = request.form
    match form.get("grant_type"):
        case "client_credentials":
            check_client(request, CLIENT_ID, CLIENT_SECRET)
        case "refresh_token":
            check_client(request, CLIENT_ID, CLIENT_SECRET)
            tokens_of(store).redeem(form.get("refresh_token", ""), single_use=False)
        case "urn:ietf:params:oauth:grant-type:jwt-bearer":
            _check_assertion(store, form.get("assertion", ""), request.at)
        case _:
            raise RefusedError("invalid_grant", "grant type not supported")
    value = {
        "access_token": tokens_of(store).issue(SESSION_S),
        "instance_url": f"https://{INSTANCE_HOST}",
        "id": f"https://{LOGIN_HOST}/id/00D000000000001EAA/005000000000001AAA",
        "token_type": "Bearer",
        "issued_at": str(int(request.at.timestamp() * 1000)),
        "signature": "c2lnbmF0dXJl",
    }
    return msgspec.structs.replace(json_answer(value), token=True)


def _check_assertion(store: Store, assertion: str, at: datetime) -> None:
    key = store.facts.get(KEY_FACT)
    if not isinstance(key, PublicKey):
        raise RefusedError("invalid_grant", "user hasn't approved this consumer")
    claims = read_assertion(assertion, key, at, lifetime_max_s=ASSERTION_S)
    if (claims.get("iss"), claims.get("sub"), claims.get("aud")) != (CLIENT_ID, USERNAME, AUDIENCE):
        raise RefusedError("invalid_grant", "audience or user is wrong")


def _kind(name: str, problem: Problem) -> Kind:
    found = _BY_NAME.get(name)
    if found is None:
        raise RefusedError(problem, name)
    return found


def _describe(kind: Kind) -> Answer:
    listed = [{"name": name, "type": held, "label": name} for name, held in _described(kind).items()]
    return json_answer({"name": kind.name, "fields": listed})


def _one(store: Store, request: Request, kind: Kind, record_id: str) -> Answer:
    row = store.find(kind.collection, record_id)
    if row is None:
        if any(grave.id == record_id for grave in _binned(store, kind)):
            return _refused(404, "ENTITY_IS_DELETED", "entity is deleted")
        raise RefusedError("not_found", record_id)
    names = request.query.get("fields", "")
    wanted = names.split(",") if names else list(_described(kind))
    _check_names(kind, wanted)
    listed = shown(
        [row], collection=kind.collection, render=lambda held: _rendered(store, kind, held, wanted), one=True
    )
    return json_answer(listed.contents[0], listed)


# -- SOQL --------------------------------------------------------------------------------------------------------------
_SOQL: Final = re.compile(
    r"SELECT\s+(?P<fields>.+?)\s+FROM\s+(?P<name>\w+)"
    r"(?:\s+WHERE\s+(?P<where>.+?))?(?:\s+ORDER\s+BY\s+(?P<order>[\w.,\s]+?))?(?:\s+LIMIT\s+(?P<limit>\d+))?\s*",
    re.IGNORECASE | re.DOTALL,
)
_COMPARED: Final = re.compile(
    r"(?P<name>[A-Za-z_][\w.]*)\s*(?:<=|>=|!=|<>|=|<|>)\s*(?P<value>'(?:[^'\\]|\\.)*'|[^\s()]+)"
)
_QUOTED: Final = frozenset(
    {"id", "reference", "string", "picklist", "email", "phone", "url", "textarea", "combobox", "anyType"}
)


def _query(store: Store, soql: str, *, deleted: bool) -> Answer:
    """The records that a query asks for, at most a batch of them; the rest behind a locator."""
    found = _SOQL.fullmatch(soql.strip())
    if found is None:
        raise RefusedError("bad_request", "unexpected token")
    kind = _kind(found["name"], "forbidden")
    wanted = [name.strip() for name in found["fields"].split(",")]
    _check_names(kind, wanted)
    _check_compared(kind, found["where"] or "")
    limit = int(found["limit"] or SOQL_LIMIT_MAX)
    rows = list(store.rows(kind.collection))
    rows += _binned(store, kind) if deleted and kind.bin else []
    passes = sql_like(found["where"] or "", SQL)
    left = [row for row in rows if passes(_system(kind, row))]
    for name in reversed([part.split()[0] for part in (found["order"] or "").split(",") if part.strip()]):
        _check_names(kind, [name])
        left.sort(key=lambda row, name=name: str(_system(kind, row).get(name) or "").lower())  # type: ignore[misc]
    if not found["order"]:
        left.sort(key=lambda row: hashlib.blake2b(row.id.encode(), digest_size=8).digest())
    return _batch(store, kind, left, left[:limit], wanted)


def _batch(store: Store, kind: Kind, all_rows: Sequence[Row], rows: Sequence[Row], wanted: Sequence[str]) -> Answer:
    size = store.page_sizes.get(f"batch:{kind.collection}", BATCH)
    page, rest = rows[:size], rows[size:]
    whole = {name for name, held in _described(kind).items() if held != "address"} <= set(wanted)
    locator = f"{DATA}query/{store.keep((kind.name, rest, tuple(wanted)))}-{size}" if rest else None
    listed = shown(
        page,
        collection=kind.collection,
        render=lambda row: _rendered(store, kind, row, wanted),
        whole=whole,
        more=len(all_rows) > len(page),
    )
    value = {"totalSize": len(rows), "done": not rest, "records": listed.contents}
    return json_answer(value | ({"nextRecordsUrl": locator} if locator else {}), listed)


def _next(store: Store, locator: str) -> Answer:
    kept = store.kept(locator.partition("-")[0])
    if kept is None:
        return _refused(400, "INVALID_QUERY_LOCATOR", "invalid query locator")
    name, rows, wanted = kept
    return _batch(store, _BY_NAME[name], rows, rows, wanted)


def _check_names(kind: Kind, names: Sequence[str]) -> None:
    known = {*_described(kind), *({"ProfileId"} if kind.name == "User" else ())}
    lower = [name.lower() for name in names]
    if len(set(lower)) != len(lower):
        raise RefusedError("bad_request", "duplicate field selected")
    for name in names:
        relation, dot, _ = name.partition(".")
        if (f"{relation}Id" if dot else name) not in known:
            raise RefusedError("bad_request", f"No such column '{name}' on entity '{kind.name}'")


def _check_compared(kind: Kind, where: str) -> None:
    """Text in quotes, times and numbers without."""
    known = _described(kind)
    for found in _COMPARED.finditer(where):
        held = known.get(found["name"])
        if held is None:
            raise RefusedError("bad_request", f"No such column '{found['name']}' on entity '{kind.name}'")
        if (held in _QUOTED) != found["value"].startswith("'") and found["value"] != "null":
            raise RefusedError(
                "bad_request", f"value of filter criterion for field '{found['name']}' must be of type {held}"
            )


# -- what a record shows -----------------------------------------------------------------------------------------------
def _binned(store: Store, kind: Kind) -> list[Row]:
    """The deleted ones that are still in the recycle bin: every fourth is emptied from it at once."""
    graves = store.graves(kind.collection) if kind.bin else []
    return [row for row in graves if hashlib.blake2b(row.id.encode()).digest()[0] % 4]


def _system(kind: Kind, row: Row) -> dict[str, Any]:
    """A record's own fields, those of the system among them."""
    own = dict(row.content)
    if not kind.log:
        own["LastModifiedDate"] = own.get("SystemModstamp")
    if kind.bin:
        own["IsDeleted"] = row.deleted_at is not None
    if kind.merges:
        own["MasterRecordId"] = row.merged_into or None
    return own


def _rendered(store: Store, kind: Kind, row: Row, wanted: Sequence[str]) -> dict[str, Any]:
    own = _system(kind, row)
    address = f"{DATA}sobjects/{kind.name}/{row.raw_id}"
    rendered: dict[str, Any] = {"attributes": {"type": kind.name, "url": address}}
    for name in wanted:
        relation, dot, field = name.partition(".")
        if not dot:
            rendered[name] = own.get(name)
            continue
        related = ("Profile", _PROFILE) if relation == "Profile" else _related(store, own.get(f"{relation}Id"))
        if related is None:
            rendered[relation] = None
            continue
        told = related[0] if field == "Type" and relation in _POLYMORPHIC else related[1].get(field)
        rendered.setdefault(relation, {"attributes": {"type": related[0]}})[field] = told
    return rendered


def _related(store: Store, record_id: Any) -> tuple[str, Mapping[str, Any]] | None:
    """The object and the fields of another record."""
    kind = _BY_PREFIX.get(str(record_id)[:3]) if record_id else None
    row = store.find(kind.collection, str(record_id)) if kind is not None else None
    if kind is None or row is None:
        return None
    return "Queue" if kind.name == "Group" else kind.name, _system(kind, row)


# -- refusals ----------------------------------------------------------------------------------------------------------
_REFUSALS: Final[Mapping[Problem, tuple[int, str, str]]] = {
    "unauthorized": (401, "INVALID_SESSION_ID", "Session expired or invalid"),
    "forbidden": (400, "INVALID_TYPE", "sObject type is not supported."),
    "not_found": (404, "NOT_FOUND", "The requested resource does not exist"),
    "throttled": (403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded."),
    "unavailable": (503, "SERVER_UNAVAILABLE", "Server is temporarily unavailable."),
    "bad_request": (400, "MALFORMED_QUERY", "The query cannot be read."),
    "expired": (400, "INVALID_QUERY_LOCATOR", "invalid query locator"),
}


def error(problem: Problem, about: str, _wait_s: float | None) -> Answer:
    """A list of `{message, errorCode}`, never a time to wait; the token endpoint speaks RFC 6749."""
    if problem == "invalid_grant":
        return json_answer({"error": "invalid_grant", "error_description": "authentication failure"}, status=400)
    status, code, message = _REFUSALS[problem]
    if problem == "bad_request" and about.startswith("No such column"):
        code = "INVALID_FIELD"
    return _refused(status, code, f"{message} {about}" if problem == "bad_request" else message)


def _refused(status: int, code: str, message: str) -> Answer:
    return json_answer([{"message": message, "errorCode": code}], status=status)


def credentials(store: Store) -> dict[str, str]:
    """Those of the refresh token flow; the others are served too."""
    app = {"login_url": f"https://{LOGIN_HOST}", "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
    return {**app, "refresh_token": tokens_of(store).issue_refresh()}


DIALECT: Final = Dialect(
    "salesforce",
    hosts=(LOGIN_HOST, INSTANCE_HOST),
    collections=COLLECTIONS,
    credentials=credentials,
    answer=answer,
    error=error,
    sources=(
        "REST API Developer Guide: Query, QueryAll, Query More Results, sObject Rows, sObject Describe",
        "REST API Developer Guide: Query Options Header (batches of 200 to 2,000, not promised), Limit Info Header",
        "REST API Developer Guide: Status Codes and Error Responses (401, 403 REQUEST_LIMIT_EXCEEDED, 404, 414)",
        "SOQL and SOSL Reference: WHERE, ORDER BY, LIMIT, date formats, relationship and polymorphic queries",
        "Salesforce Help: OAuth 2.0 client credentials, JWT bearer, refresh token flows (instance_url, no expires_in)",
        "SOAP API Developer Guide: getDeleted, merge (MasterRecordId), ID Field Type (15 and 18 characters)",
    ),
    unsourced=(
        "the codes INVALID_TYPE, INVALID_FIELD, MALFORMED_QUERY, ENTITY_IS_DELETED with their statuses",
        "deletion stamps SystemModstamp anew",
        "records come in no order where none is asked for",
    ),
)
