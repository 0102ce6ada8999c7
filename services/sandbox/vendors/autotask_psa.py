"""The dialect of Autotask PSA: entities queried with JSON filters, behind a zone that must be discovered first."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from random import Random
from typing import Any, Final

import msgspec

from services.sandbox.vendors.access import check_header, spend
from services.sandbox.vendors.dialect import Answer, Dialect, Problem, RefusedError, Request, json_answer, shown
from services.sandbox.vendors.filters import compare
from services.sandbox.vendors.pages import by_offset
from services.sandbox.vendors.store import Collection, Draw, Row, Store, counted, value_at

FRONT_HOST, ZONE_HOST = "webservices.autotask.net", "webservices5.autotask.net"
BASE: Final = "/atservicesrest/v1.0/"
USER, SECRET, CODE = "avesa@ACME.COM", "p@ss word", "TRACKINGIDENTIFIER0000000001"
MAX_RECORDS: Final = 500
PER_HOUR: Final = 10_000

Fields = Mapping[str, str]  # name -> kind: text, flag, time, date, number, amount, pick:1|5, or the collection it names


class Entity(msgspec.Struct, frozen=True):
    """One entity: its name at Autotask, the collection of its records, its modification time where it shows one."""

    name: str
    collection: str
    fields: Fields
    text: str
    stamp: str | None = None
    created: str | None = None
    defined: bool = False  # it has user-defined fields
    parent: str | None = None
    restores: bool = True
    size: int = 9


_TICKET: Final[Fields] = {
    "ticketNumber": "text",
    "title": "text",
    "description": "text",
    "status": "pick:1|5|8",
    "priority": "pick:1|2|3|4",
    "companyID": "companies",
    "companyLocationID": "company_locations",
    "contactID": "contacts",
    "queueID": "pick:8|29683",
    "issueType": "pick:7|12",
    "subIssueType": "pick:70|121",
    "ticketType": "pick:1|2|3|4",
    "source": "pick:-1|4|8",
    "assignedResourceID": "resources",
    "configurationItemID": "configuration_items",
    "contractID": "contracts",
    "projectID": "projects",
    "creatorResourceID": "resources",
    "dueDateTime": "time",
    "completedDate": "time",
    "resolvedDateTime": "time",
    "estimatedHours": "amount",
    "resolution": "text",
    "serviceLevelAgreementHasBeenMet": "flag",
    "purchaseOrderNumber": "text",
    "lastActivityResourceID": "resources",
}
_COMPANY: Final[Fields] = {
    "companyName": "text",
    "companyNumber": "text",
    "companyType": "pick:1|3|7",
    "address1": "text",
    "city": "text",
    "state": "text",
    "postalCode": "text",
    "phone": "text",
    "webAddress": "text",
    "sicCode": "text",
    "ownerResourceID": "resources",
    "parentCompanyID": "companies",
    "isActive": "flag",
    "isTaxExempt": "flag",
    "assetValue": "amount",
}
_ENTITIES: Final = (
    Entity(
        "Resources",
        "resources",
        {
            "userName": "text",
            "firstName": "text",
            "lastName": "text",
            "email": "text",
            "title": "text",
            "resourceType": "text",
            "licenseType": "pick:1|7",
            "isActive": "flag",
            "hireDate": "date",
            "internalCost": "amount",
        },
        "firstName",
        defined=True,
    ),
    Entity("Companies", "companies", _COMPANY, "companyName", "lastActivityDate", "createDate", defined=True, size=14),
    Entity(
        "CompanyLocations",
        "company_locations",
        {"companyID": "companies", "name": "text", "city": "text", "isActive": "flag", "isPrimary": "flag"},
        "name",
    ),
    Entity(
        "Contacts",
        "contacts",
        {
            "companyID": "companies",
            "firstName": "text",
            "lastName": "text",
            "emailAddress": "text",
            "mobilePhone": "text",
            "isActive": "pick:0|1",
            "primaryContact": "flag",
        },
        "firstName",
        "lastActivityDate",
        "createDate",
        defined=True,
    ),
    Entity(
        "Contracts",
        "contracts",
        {
            "companyID": "companies",
            "contractName": "text",
            "contractType": "pick:1|7",
            "status": "pick:0|1",
            "startDate": "date",
            "endDate": "date",
            "estimatedRevenue": "amount",
        },
        "contractName",
        "lastModifiedDateTime",
        defined=True,
    ),
    Entity(
        "ConfigurationItems",
        "configuration_items",
        {
            "companyID": "companies",
            "contactID": "contacts",
            "referenceTitle": "text",
            "serialNumber": "text",
            "isActive": "flag",
            "installDate": "date",
            "warrantyExpirationDate": "date",
            "dattoUsedKilobytes": "number",
        },
        "referenceTitle",
        "lastModifiedTime",
        "createDate",
        defined=True,
    ),
    Entity(
        "Projects",
        "projects",
        {
            "companyID": "companies",
            "projectName": "text",
            "projectNumber": "text",
            "status": "pick:1|5",
            "startDateTime": "time",
            "endDateTime": "time",
            "estimatedTime": "amount",
            "completedPercentage": "number",
        },
        "projectName",
        "lastActivityDateTime",
        "createDateTime",
        defined=True,
    ),
    Entity(
        "Tickets",
        "tickets",
        _TICKET,
        "title",
        "lastActivityDate",
        "createDate",
        defined=True,
        restores=False,
        size=18,
    ),
    Entity(
        "TicketNotes",
        "ticket_notes",
        {
            "title": "text",
            "description": "text",
            "noteType": "pick:1|3",
            "publish": "pick:1|2",
            "creatorResourceID": "resources",
        },
        "description",
        "lastActivityDate",
        "createDateTime",
        parent="tickets",
        restores=False,
        size=1,
    ),
    Entity(
        "Tasks",
        "tasks",
        {
            "projectID": "projects",
            "taskNumber": "text",
            "title": "text",
            "status": "pick:1|5",
            "assignedResourceID": "resources",
            "endDateTime": "time",
            "estimatedHours": "amount",
            "isTaskBillable": "flag",
        },
        "title",
        "lastActivityDateTime",
        "createDateTime",
        defined=True,
    ),
    Entity(
        "TimeEntries",
        "time_entries",
        {
            "ticketID": "tickets",
            "resourceID": "resources",
            "roleID": "pick:29682834",
            "dateWorked": "date",
            "startDateTime": "time",
            "hoursWorked": "amount",
            "hoursToBill": "amount",
            "isNonBillable": "flag",
            "summaryNotes": "text",
        },
        "summaryNotes",
        "lastModifiedDateTime",
        "createDateTime",
        size=14,
    ),
    Entity(
        "Opportunities",
        "opportunities",
        {
            "companyID": "companies",
            "title": "text",
            "stage": "pick:1|29682779",
            "status": "pick:1|2|3",
            "amount": "amount",
            "probability": "number",
            "projectedCloseDate": "date",
            "ownerResourceID": "resources",
        },
        "title",
        "lastActivity",
        "createDate",
        defined=True,
    ),
    Entity(
        "Invoices",
        "invoices",
        {
            "companyID": "companies",
            "comments": "text",
            "invoiceNumber": "text",
            "invoiceDateTime": "time",
            "dueDate": "date",
            "invoiceTotal": "amount",
            "isVoided": "flag",
        },
        "comments",
        created="createDateTime",
    ),
    Entity(
        "BillingItems",
        "billing_items",
        {"companyID": "companies", "itemName": "text", "postedDate": "date", "quantity": "amount", "rate": "amount"},
        "itemName",
    ),
    Entity(
        "Products",
        "products",
        {"name": "text", "sku": "text", "isActive": "flag", "isSerialized": "flag", "unitPrice": "amount"},
        "name",
        defined=True,
    ),
    Entity(
        "Services",
        "services",
        {"name": "text", "description": "text", "isActive": "flag", "periodType": "pick:1|2", "unitPrice": "amount"},
        "name",
        "lastModifiedDate",
        "createDate",
    ),
    Entity(
        "ContractServices",
        "contract_services",
        {"contractID": "contracts", "serviceID": "services", "invoiceDescription": "text", "unitPrice": "amount"},
        "invoiceDescription",
    ),
    Entity("BillingCodes", "billing_codes", {"name": "text", "isActive": "flag", "useType": "pick:1|3"}, "name"),
)
_BY_NAME: Final = {entity.name.lower(): entity for entity in _ENTITIES}


def autotask_time(moment: datetime) -> str:
    """`2026-01-31T12:00:00.25`, UTC without saying so; .NET writes no zeros at the end."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.%f")
    return text.rstrip("0").rstrip(".")


# -- records -----------------------------------------------------------------------------------------------------------
def _maker(entity: Entity) -> Callable[[Draw], dict[str, Any]]:
    def make(draw: Draw) -> dict[str, Any]:
        content = {name: _drawn(draw, kind) for name, kind in entity.fields.items()}
        if entity.parent is not None and draw.parent is not None:
            content["ticketID"] = draw.parent.raw_id
        if entity.defined:
            region = {"name": "Region", "value": draw.one_of(None, "North", "Süd")}
            content["userDefinedFields"] = [region, {"name": "Renewal", "value": draw.one_of(None, "2027-01-31")}]
        return content

    return make


def _drawn(draw: Draw, kind: str) -> Any:
    """A field of that kind; most kinds may be null."""
    if kind not in ("text", "flag") and draw.flag(0.15):
        return None
    word, _, choices = kind.partition(":")
    if word == "pick":
        return int(draw.one_of(*choices.split("|")))
    return _PLAIN[word](draw) if word in _PLAIN else draw.of(kind)


_PLAIN: Final[Mapping[str, Callable[[Draw], Any]]] = {
    "text": lambda draw: f"{draw.one_of('Printer', 'VPN', 'Zoë’s laptop', 'Mail')} {draw.number}",
    "flag": lambda draw: draw.flag(),
    "time": lambda draw: autotask_time(draw.moment(-20, 20)),
    "date": lambda draw: draw.moment(-200, 200).strftime("%Y-%m-%dT00:00:00"),
    "number": lambda draw: draw.number_in(0, 9_000),
    "amount": lambda draw: draw.number_in(0, 90_000) / 100,
}


def _field(draw: Draw) -> dict[str, Any]:
    """A field of the entity Tickets, with the labels of its picklist."""
    values = [
        {"value": str(value), "label": f"Label {value}", "isActive": draw.flag(0.9), "sortOrder": value}
        for value in range(1, draw.number_in(2, 5))
    ]
    return {
        "label": f"Field {draw.number}",
        "dataType": "integer",
        "isPickList": True,
        "picklistValues": values,
        "isRequired": draw.flag(),
    }


def _from_zero(number: int, _: Random) -> int:
    """The company of the customer itself has the id 0."""
    return number - 1


COLLECTIONS: Final = (
    *(
        Collection(
            entity.collection,
            _maker(entity),
            text=entity.text,
            ids=_from_zero if entity.collection == "companies" else counted,
            stamp=entity.stamp,
            created=entity.created,
            spell=autotask_time,
            tick_s=0.01,
            parent=entity.parent,
            touches_parent=entity.parent is not None,
            restores=entity.restores,
            fixed=frozenset({"ticketID"}) if entity.parent is not None else frozenset(),
            size=entity.size,
        )
        for entity in _ENTITIES
    ),
    Collection("ticket_fields", _field, text="label", id="name", ids=lambda number, _: f"field{number}"),
)


# -- requests ----------------------------------------------------------------------------------------------------------
def answer(store: Store, request: Request) -> Answer:
    """Zone information for anybody; else entities of the zone, for its API user. Paths are read in any case."""
    path = request.path.lower()
    if not path.startswith(BASE):
        raise RefusedError("not_found", request.path)
    name, _, action = path.removeprefix(BASE).partition("/")
    if name == "zoneinformation":
        return _zone(request)
    if request.host != ZONE_HOST:
        raise RefusedError("unauthorized", "another zone")
    for header, value in (("UserName", USER), ("Secret", SECRET), ("ApiIntegrationCode", CODE)):
        check_header(request, header, value)
    spent = spend(store, "hour", PER_HOUR, 3_600.0)
    if name == "thresholdinformation":
        limits = {"externalRequestThreshold": spent.limit, "requestThresholdTimeframe": 60}
        return json_answer({**limits, "currentTimeframeRequestCount": spent.used})
    if (name, action) == ("tickets", "entityinformation/fields"):
        listed = shown(store.rows("ticket_fields"), collection="ticket_fields")
        return json_answer({"fields": listed.contents}, listed)
    return _entity(store, request, name, action)


def _zone(request: Request) -> Answer:
    if request.query.get("user") != USER:
        raise RefusedError("bad_request", "Zone information could not be determined.")
    zone = {"zoneName": "America East 2", "url": f"https://{ZONE_HOST}/atservicesrest/"}
    return json_answer({**zone, "webUrl": "https://ww5.autotask.net/", "ci": 123456})


def _entity(store: Store, request: Request, name: str, action: str) -> Answer:
    if name != "deletedticketlogs" and name not in _BY_NAME:
        raise RefusedError("not_found", request.path)
    match action:
        case "query" | "query/count" if request.method in ("GET", "POST"):
            query = _query(request)
            return _counted(store, name, query) if action == "query/count" else _page(store, request, name, query)
        case "query/next" if request.method == "GET":
            kept = store.kept(request.query.get("paging", ""))
            if kept is None:
                raise RefusedError("bad_request", "The paging token is not valid.")
            return _page(store, request, name, *kept)
        case _ if request.method == "GET" and action.lstrip("-").isdigit() and name in _BY_NAME:
            return _one(store, _BY_NAME[name], action)
    raise RefusedError("not_found", request.path)


def _one(store: Store, entity: Entity, raw_id: str) -> Answer:
    row = store.find_raw(entity.collection, raw_id)
    found = shown([row] if row is not None else [], collection=entity.collection, one=True)
    return json_answer({"item": found.contents[0] if found.contents else None}, found)


# -- queries -----------------------------------------------------------------------------------------------------------
class Query(msgspec.Struct, frozen=True):
    """What a query asks for. `fields` empty: all of them."""

    conditions: tuple[Any, ...]
    fields: frozenset[str]
    most: int


def _query(request: Request) -> Query:
    """From the body of a POST or the parameter `search` of a GET; names in any case."""
    asked = request.json if request.method == "POST" else _read(request.query.get("search", ""))
    if not isinstance(asked, dict):
        raise RefusedError("bad_request", "The query cannot be read.")
    given = {name.lower(): value for name, value in asked.items()}
    conditions, most = given.get("filter"), given.get("maxrecords", MAX_RECORDS)
    if not isinstance(conditions, list) or not conditions:
        raise RefusedError("bad_request", "A filter is required.")
    if not isinstance(most, int) or not 1 <= most <= MAX_RECORDS:
        raise RefusedError("bad_request", f"MaxRecords must be between 1 and {MAX_RECORDS}.")
    return Query(tuple(conditions), frozenset(name.lower() for name in given.get("includefields") or ()), most)


def _read(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None


def _page(store: Store, request: Request, name: str, query: Query, start: int = 0, size: int = 0) -> Answer:
    size = size or query.most
    if name == "deletedticketlogs":
        graves = sorted((_grave(row) for row in store.graves("tickets")), key=lambda grave: int(grave["id"]))
        found = [grave for grave in graves if _fits(grave, query.conditions, name)]
        return json_answer({"items": found[:size], "pageDetails": _details(len(found[:size]), size)})
    entity = _BY_NAME[name]
    cut = by_offset(_rows(store, entity, query), start, size)
    following = ""
    if cut.more:
        following = f"{request.origin}/atservicesrest/V1.0/{entity.name}/query/next?paging="
        following += store.keep((query, cut.end, size))
    listed = shown(
        cut.rows,
        collection=entity.collection,
        render=lambda row: _cut_down(row.content, query.fields),
        whole=not query.fields,
        more=cut.more,
        following=following,
    )
    details = _details(len(cut.rows), size, following)
    return json_answer({"items": listed.contents, "pageDetails": details}, listed)


def _details(count: int, size: int, following: str = "") -> dict[str, Any]:
    return {"count": count, "requestCount": size, "prevPageUrl": None, "nextPageUrl": following or None}


def _counted(store: Store, name: str, query: Query) -> Answer:
    """How many there are. Who counts one id asks for that record."""
    if name == "deletedticketlogs":
        graves = [_grave(row) for row in store.graves("tickets")]
        return json_answer({"queryCount": sum(_fits(grave, query.conditions, name) for grave in graves)})
    entity = _BY_NAME[name]
    match query.conditions:
        case ({"op": "eq", "field": "id", "value": raw_id},):
            row = store.find_raw(entity.collection, raw_id)
            found = shown([row] if row is not None else [], collection=entity.collection, whole=False, one=True)
            return json_answer({"queryCount": len(found.rows)}, found)
    return json_answer({"queryCount": len(_rows(store, entity, query))})


def _rows(store: Store, entity: Entity, query: Query) -> list[Row]:
    """The records that a filter lets pass, sorted by id."""
    found = [row for row in store.rows(entity.collection) if _fits(row.content, query.conditions, entity.name)]
    return sorted(found, key=lambda row: int(row.raw_id))


def _cut_down(content: Mapping[str, Any], fields: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if not fields or name.lower() in fields}


def _grave(row: Row) -> dict[str, Any]:
    assert row.deleted_at is not None, "of the deleted"
    return {
        "id": row.version,
        "ticketID": row.raw_id,
        "ticketNumber": row.content.get("ticketNumber"),
        "ticketTitle": row.content.get("title"),
        "deletedByResourceID": 4,
        "deletedDateTime": autotask_time(row.deleted_at),
    }


_SIGNS: Final = {
    "eq": "=",
    "noteq": "!=",
    "gt": ">",
    "gte": ">=",
    "lt": "<",
    "lte": "<=",
    "beginswith": "begins",
    "endswith": "ends",
    "contains": "contains",
    "in": "in",
}


def _fits(content: Mapping[str, Any], conditions: Sequence[Any], entity: str) -> bool:
    """Do all conditions hold? A group (`and`, `or`) has `items`."""
    return all(_holds(content, condition, entity) for condition in conditions)


def _holds(content: Mapping[str, Any], condition: Any, entity: str) -> bool:
    if not isinstance(condition, dict):
        raise RefusedError("bad_request", "The filter cannot be read.")
    sign = str(condition.get("op", "")).lower()
    if sign in ("and", "or"):
        inner = [_holds(content, one, entity) for one in condition.get("items") or ()]
        return any(inner) if sign == "or" else all(inner)
    found = _value(content, condition, entity)
    match sign:
        case "exist":
            return found is not None
        case "notexist":
            return found is None
        case "notin":
            return not compare(found, "in", condition.get("value") or ())
        case _ if sign in _SIGNS:
            return compare(found, _SIGNS[sign], condition.get("value"))
    raise RefusedError("bad_request", f"The operator {sign} is not valid.")


def _value(content: Mapping[str, Any], condition: Mapping[str, Any], entity: str) -> Any:
    wanted = str(condition.get("field", ""))
    if condition.get("udf") is True:
        items = value_at(content, "userDefinedFields") or []
        return next((item["value"] for item in items if item["name"].lower() == wanted.lower()), None)
    known = _BY_NAME.get(entity.lower())
    names = {name.lower(): name for name in content}
    if known is not None:
        stamps = [name for name in (known.stamp, known.created) if name is not None]
        names |= {name.lower(): name for name in [*known.fields, *stamps, "id"]}
    if wanted.lower() not in names:
        raise RefusedError("bad_request", f"Unable to find {wanted} in the {entity} Entity.")
    return content.get(names[wanted.lower()])


# -- refusals ----------------------------------------------------------------------------------------------------------
_STATUSES: Final[Mapping[Problem, tuple[int, str]]] = {
    "unauthorized": (401, "The API user could not be authenticated."),
    "invalid_grant": (401, "The API user could not be authenticated."),
    "forbidden": (403, "The logged in Resource does not have the adequate permissions to query this entity type."),
    "not_found": (404, "No HTTP resource was found that matches the request URI."),
    "throttled": (429, "The number of external requests has exceeded the threshold."),
    "unavailable": (500, "An unexpected error has occurred."),
    "bad_request": (500, ""),
    "expired": (500, ""),
}


def error(problem: Problem, about: str, wait_s: float | None) -> Answer:
    """`{"errors": [text]}`; a query that cannot be answered is a 500."""
    status, message = _STATUSES[problem]
    wait = {} if wait_s is None else {"Retry-After": str(max(1, int(wait_s)))}
    return json_answer({"errors": [message or about]}, status=status, headers=wait)


def credentials(_: Store) -> dict[str, str]:
    return {"username": USER, "secret": SECRET, "integration_code": CODE}


DIALECT: Final = Dialect(
    "autotask_psa",
    hosts=("*.autotask.net",),
    collections=COLLECTIONS,
    credentials=credentials,
    answer=answer,
    error=error,
    sources=(
        "Autotask developer help, Making basic query calls to the REST API: operators, groups, POST, GET with search",
        "Autotask developer help, Advanced query features of the REST API: IncludeFields, count, MaxRecords, pages",
        "Autotask developer help, query(): at most 500 records, sorted by id",
        "Autotask developer help, REST API supportability, query thresholds, and latency: 10,000 requests an hour",
        "Autotask developer help, API zones: zoneInformation by user name tells the address of the zone",
        "Autotask developer help, Tickets: all times in UTC; deleted tickets are listed in DeletedTicketLogs",
        "types generated from the vendor's swagger of 2025: names of fields, times without a zone, three digits",
    ),
    unsourced=(
        "an id that is not there answers 200 with a null item",
        "the texts of errors; 500 for a query that cannot be read, 403 for a missing permission, 429 for the threshold",
        "names of fields and of a query's members are read in any case",
        "the address of a next page; a note takes the time of its ticket along",
        "latency from half of the threshold on, and limits of threads, are not played",
    ),
)
