"""The dialect of Microsoft Graph v1.0: lists with OData parameters, delta queries, tokens of the identity platform.

A list is read behind `$skiptoken`, which names the record that the page before ended with; a delta query behind tokens
that the vendor remembers, and may forget (410).
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from random import Random
from typing import Any, Final, Literal

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
from services.sandbox.vendors.filters import ODATA, sql_like
from services.sandbox.vendors.pages import by_key, by_offset
from services.sandbox.vendors.store import Collection, Draw, Row, Store

GRAPH, LOGIN = "graph.microsoft.com", "login.microsoftonline.com"
BASE: Final = "/v1.0/"
TENANT: Final = "5f1a9c1e-0000-4000-8000-00000000c0de"
CLIENT_ID, CLIENT_SECRET = "11111111-aaaa-4aaa-8aaa-111111111111", "client~secret"
SCOPE: Final = "https://graph.microsoft.com/.default"
TOKEN_S: Final = 3_599.0
FREE: Final = frozenset({"$select", "$top", "$skiptoken"})
DELTA_SIZE: Final = 100
EMPTY_FIRST: Final = "devices"  # whose changes begin with an empty page that has a next one

Reports = Literal["reports", "protection", "directory"]


class Listing(msgspec.Struct, frozen=True):
    """One list: its path, the collection that it shows, the largest page (None: `$top` is refused), whether it takes
    `$filter`, whether the newest come first, and which limit counts it. `delta`: what has a delta query besides."""

    path: str
    collection: str
    top: int | None = 999
    filtered: bool = False
    newest_first: bool = False
    delta: bool = False
    counted: Reports = "directory"


LISTINGS: Final = (
    Listing("users", "users", delta=True),
    Listing("groups", "groups", delta=True),
    Listing("devices", "devices", delta=True),
    Listing("contacts", "contacts", delta=True),
    Listing("subscribedSkus", "subscribed_skus", top=None),
    Listing("directory/subscriptions", "subscriptions"),
    Listing("auditLogs/signIns", "sign_ins", top=1_000, filtered=True, newest_first=True, counted="reports"),
    Listing("auditLogs/directoryAudits", "directory_audits", filtered=True, newest_first=True, counted="reports"),
    Listing("security/alerts_v2", "alerts", top=2_000, filtered=True),
    Listing("security/incidents", "incidents", top=50, filtered=True),
    Listing("identityProtection/riskyUsers", "risky_users", top=500, filtered=True, counted="protection"),
    Listing("admin/serviceAnnouncement/issues", "service_health_issues", top=1_000, filtered=True),
    Listing("admin/serviceAnnouncement/messages", "messages", top=1_000, filtered=True),
    Listing("teams", "teams"),
    Listing("domains", "domains"),
    Listing("organization", "organization"),
    Listing("directoryRoles", "directory_roles", top=None),
    Listing("tenantRelationships/delegatedAdminCustomers", "customers"),
    Listing("contracts", "contracts"),
    Listing("reports/authenticationMethods/userRegistrationDetails", "registration_details", counted="reports"),
)
BELOW: Final = (  # below one record of the list named first
    Listing("users/licenseDetails", "license_details", top=None),
    Listing("teams/members", "team_members"),
)
_BY_PATH: Final = {listing.path: listing for listing in LISTINGS}
_BELOW: Final = {listing.path: listing for listing in BELOW}


# -- records -----------------------------------------------------------------------------------------------------------
def graph_time(moment: datetime) -> str:
    """`2026-01-31T12:00:00.1234560Z`: a hundred nanoseconds, as the logs show them."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"


def second_time(moment: datetime) -> str:
    """`2026-01-31T12:00:00Z`, as the directory shows it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _guid(_: int, rng: Random) -> str:
    digits = f"{rng.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-8{digits[17:20]}-{digits[20:]}"


_NAMES: Final = ("Ana López", "Björn Ek", "美咲 佐藤", "Zoë O'Hara")


def _user(draw: Draw) -> dict[str, Any]:
    name = draw.one_of(*_NAMES)
    given, _, family = name.partition(" ")
    return {
        "displayName": f"{name} {draw.number}",
        "givenName": given,
        "surname": family,
        "userPrincipalName": f"user{draw.number}@contoso.example",
        "mail": draw.one_of(f"user{draw.number}@contoso.example", None),
        "otherMails": [],
        "businessPhones": draw.one_of([], ["+1 555 0100"]),
        "mobilePhone": draw.one_of(None, "+1 555 0101"),
        "jobTitle": draw.one_of("Engineer", "Clerk", None),
        "department": draw.one_of("Support", None),
        "officeLocation": draw.one_of("12/1110", None),
        "country": draw.one_of("US", "SE", None),
        "userType": draw.one_of("Member", "Guest"),
        "accountEnabled": draw.flag(0.8),
        "employeeId": str(draw.number),
        "assignedLicenses": [{"disabledPlans": [], "skuId": draw.of("subscribed_skus") or ""}],
        "onPremisesExtensionAttributes": {"extensionAttribute1": draw.one_of("blue", None)},
        "passwordProfile": {"forceChangePasswordNextSignIn": False, "password": "never shown"},
        "aboutMe": "not selected",
    }


def _licence(draw: Draw) -> dict[str, Any]:
    return {
        "id": f"licence-{draw.number % 3}",  # nothing says that it tells users apart
        "skuPartNumber": draw.one_of("SPE_E3", "O365_BUSINESS"),
        "servicePlans": [{"servicePlanName": "EXCHANGE_S_STANDARD", "provisioningStatus": draw.one_of("Success", "x")}],
    }


def _member(draw: Draw) -> dict[str, Any]:
    return {
        "@odata.type": "#microsoft.graph.aadUserConversationMember",
        "displayName": draw.one_of(*_NAMES),
        "userId": draw.of("users"),
        "roles": draw.one_of([], ["owner"]),
        "visibleHistoryStartDateTime": "0001-01-01T00:00:00Z",
    }


def _below(raw: Any, parent: Row | None) -> str:
    """The parent's id and its own: what a record is known by that hangs from another."""
    return msgspec.json.encode([parent.id if parent is not None else "", str(raw)]).decode()


def _group(draw: Draw) -> dict[str, Any]:
    return {
        "displayName": f"{draw.one_of('Sales', 'Drift')} {draw.number}",
        "description": draw.one_of(None, "All of them"),
        "mailEnabled": draw.flag(),
        "mailNickname": f"group{draw.number}",
        "securityEnabled": draw.flag(),
        "groupTypes": draw.one_of([], ["Unified"], ["DynamicMembership"]),
        "visibility": draw.one_of("Public", "Private", None),
    }


def _device(draw: Draw) -> dict[str, Any]:
    return {
        "displayName": f"DESKTOP-{draw.number}",
        "deviceId": _guid(0, draw.rng),
        "accountEnabled": draw.flag(0.9),
        "operatingSystem": draw.one_of("Windows", "iPhone"),
        "operatingSystemVersion": draw.one_of("10.0.22631.1", "17.2"),
        "trustType": draw.one_of("AzureAd", "ServerAd", None),
        "profileType": "RegisteredDevice",
        "manufacturer": draw.one_of("Dell", None),
        "isCompliant": draw.one_of(True, False, None),
        "approximateLastSignInDateTime": second_time(draw.moment(-20, 0)),
        "alternativeSecurityIds": [{"type": 2, "key": "c2VjcmV0"}],
    }


def _contact(draw: Draw) -> dict[str, Any]:
    return {
        "displayName": f"{draw.one_of(*_NAMES)} {draw.number}",
        "givenName": "Ana",
        "surname": draw.one_of("López", None),
        "mail": f"c{draw.number}@fabrikam.example",
        "companyName": draw.one_of("Fabrikam", None),
        "phones": [{"type": "business", "number": "+1 555 0102"}],
        "addresses": [
            {"city": "Oslo", "countryOrRegion": "NO", "postalCode": "0150", "state": None, "street": "Gate 1"}
        ],
    }


def _sku(draw: Draw) -> dict[str, Any]:
    return {
        "skuPartNumber": draw.one_of("SPE_E3", "O365_BUSINESS"),
        "skuId": _guid(0, draw.rng),
        "accountId": TENANT,
        "accountName": "contoso",
        "appliesTo": "User",
        "capabilityStatus": draw.one_of("Enabled", "Suspended"),
        "consumedUnits": draw.number_in(0, 40),
        "prepaidUnits": {"enabled": draw.number_in(1, 50), "suspended": 0, "warning": 0, "lockedOut": 0},
        "servicePlans": [],
        "subscriptionIds": [_guid(0, draw.rng)],
    }


def _subscription(draw: Draw) -> dict[str, Any]:
    return {
        "commerceSubscriptionId": _guid(0, draw.rng),
        "skuPartNumber": draw.one_of("SPE_E3", "O365_BUSINESS"),
        "skuId": _guid(0, draw.rng),
        "status": draw.one_of("Enabled", "Suspended", "Deleted"),
        "isTrial": draw.flag(0.2),
        "totalLicenses": draw.number_in(1, 90),
        "nextLifecycleDateTime": second_time(draw.moment(1, 300)),
        "ownerTenantId": TENANT,
    }


def _sign_in(draw: Draw) -> dict[str, Any]:
    code = draw.one_of(0, 50126)
    return {
        "userDisplayName": draw.one_of(*_NAMES),
        "userId": draw.of("users"),
        "userPrincipalName": "user@contoso.example",
        "appDisplayName": draw.one_of("Teams", "Graph explorer"),
        "appId": _guid(0, draw.rng),
        "clientAppUsed": "Browser",
        "ipAddress": "192.0.2.7",
        "isInteractive": True,
        "riskLevelDuringSignIn": draw.one_of("none", "low"),
        "resourceDisplayName": "Microsoft Graph",
        "status": {"errorCode": code, "failureReason": "Invalid password" if code else None, "additionalDetails": None},
        "deviceDetail": {"deviceId": "", "operatingSystem": "Windows 10", "browser": "Edge 80"},
        "location": {"city": "Redmond", "state": "Washington", "countryOrRegion": "US"},
        "appliedConditionalAccessPolicies": [],
    }


def _audit(draw: Draw) -> dict[str, Any]:
    return {
        "activityDisplayName": draw.one_of("Update user", "Add member to group"),
        "category": draw.one_of("UserManagement", "GroupManagement"),
        "loggedByService": "Core Directory",
        "operationType": "Update",
        "result": draw.one_of("success", "failure"),
        "resultReason": "",
        "correlationId": _guid(0, draw.rng),
        "initiatedBy": draw.one_of(
            {
                "user": {
                    "id": _guid(0, draw.rng),
                    "userPrincipalName": "admin@contoso.example",
                    "ipAddress": "192.0.2.8",
                }
            },
            {"app": {"appId": None, "displayName": "Sync", "servicePrincipalId": _guid(0, draw.rng)}},
        ),
        "targetResources": [
            {"id": draw.of("users"), "displayName": None, "type": "User", "modifiedProperties": []},
        ],
        "additionalDetails": [],
    }


def _alert(draw: Draw) -> dict[str, Any]:
    return {
        "title": draw.one_of("Suspicious inbox rule", "Malware found"),
        "description": "It looks as if",
        "severity": draw.one_of("low", "medium", "high"),
        "status": draw.one_of("new", "inProgress", "resolved"),
        "classification": draw.one_of(None, "truePositive"),
        "category": "InitialAccess",
        "serviceSource": "microsoftDefenderForOffice365",
        "detectionSource": "microsoftDefenderForOffice365",
        "tenantId": TENANT,
        "incidentId": draw.of("incidents"),
        "assignedTo": draw.one_of(None, "soc@contoso.example"),
        "mitreTechniques": ["T1078"],
        "evidence": [],
        "createdDateTime": graph_time(draw.moment(-20, -1)),
    }


def _incident(draw: Draw) -> dict[str, Any]:
    return {
        "displayName": f"Multi-stage incident {draw.number}",
        "severity": draw.one_of("low", "high"),
        "status": draw.one_of("active", "resolved"),
        "classification": "unknown",
        "determination": "unknown",
        "tenantId": TENANT,
        "priorityScore": draw.number_in(1, 99),
        "incidentWebUrl": "https://security.microsoft.com/incidents/1",
        "createdDateTime": graph_time(draw.moment(-20, -1)),
    }


def _risky_user(draw: Draw) -> dict[str, Any]:
    return {
        "userDisplayName": draw.one_of(*_NAMES),
        "userPrincipalName": f"user{draw.number}@contoso.example",
        "riskLevel": draw.one_of("low", "high"),
        "riskState": draw.one_of("atRisk", "remediated"),
        "riskDetail": "none",
        "isDeleted": False,
        "isProcessing": False,
    }


def _issue(draw: Draw) -> dict[str, Any]:
    return {
        "title": draw.one_of("Mail is slow", "Teams calls drop"),
        "service": draw.one_of("Exchange Online", "Microsoft Teams"),
        "feature": "E-Mail",
        "featureGroup": "Access",
        "classification": draw.one_of("advisory", "incident"),
        "origin": "microsoft",
        "status": draw.one_of("serviceDegradation", "serviceRestored"),
        "isResolved": draw.flag(),
        "impactDescription": "Some users cannot",
        "startDateTime": second_time(draw.moment(-9, -1)),
        "posts": [],
    }


def _message(draw: Draw) -> dict[str, Any]:
    return {
        "title": draw.one_of("New Teams", "Retirement of Stream"),
        "category": draw.one_of("planForChange", "stayInformed"),
        "severity": draw.one_of("normal", "high"),
        "body": {"contentType": "html", "content": "<p>Soon</p>"},
        "services": ["Microsoft Teams"],
        "isMajorChange": draw.flag(),
        "startDateTime": second_time(draw.moment(-9, -1)),
        "actionRequiredByDateTime": draw.one_of(None, second_time(draw.moment(5, 9))),
        "attachmentsArchive": "UEsDBA==",
    }


def _named(**more: Callable[[Draw], Any]) -> Callable[[Draw], dict[str, Any]]:
    def make(draw: Draw) -> dict[str, Any]:
        own = {name: drawn(draw) for name, drawn in more.items()}
        return {"displayName": f"{draw.one_of('Contoso', 'Fabrikam')} {draw.number}", **own}

    return make


def _domain(draw: Draw) -> dict[str, Any]:
    return {
        "authenticationType": draw.one_of("Managed", "Federated"),
        "isDefault": draw.number == 1,
        "isVerified": draw.flag(0.9),
        "isInitial": False,
        "model": "of whom nobody knows",
        "supportedServices": ["Email"],
    }


def _registration(draw: Draw) -> dict[str, Any]:
    return {
        "userDisplayName": draw.one_of(*_NAMES),
        "userPrincipalName": f"user{draw.number}@contoso.example",
        "isMfaRegistered": draw.flag(),
        "isMfaCapable": draw.flag(),
        "methodsRegistered": draw.one_of([], ["mobilePhone"]),
        "userType": "member",
    }


def _text(lead: str) -> Callable[[int, Random], str]:
    return lambda number, _: f"{lead}{100_000 + number}"


_DIRECTORY: Final[Mapping[str, Any]] = {"text": "displayName", "ids": _guid}
_LOG: Final[Mapping[str, Any]] = {"ids": _guid, "log": True, "spell": graph_time, "tick_s": 1e-6}
_LIVE: Final[Mapping[str, Any]] = {"spell": graph_time, "tick_s": 1e-6, "deletes": False, "restores": False}
COLLECTIONS: Final = (
    Collection("subscribed_skus", _sku, text="skuPartNumber", ids=lambda n, rng: f"{TENANT}_{_guid(n, rng)}", size=5),
    Collection("users", _user, created="createdDateTime", size=18, **_DIRECTORY),
    Collection(
        "license_details",
        _licence,
        text="skuPartNumber",
        id="skuId",
        ids=_guid,
        record_id=_below,
        parent="users",
        touches_parent=True,
        size=1,
    ),
    Collection("groups", _group, created="createdDateTime", **_DIRECTORY),
    Collection("devices", _device, created="registrationDateTime", **_DIRECTORY),
    Collection("contacts", _contact, **_DIRECTORY),
    Collection("subscriptions", _subscription, text="skuPartNumber", ids=_guid, created="createdDateTime", size=5),
    Collection("sign_ins", _sign_in, text="userDisplayName", created="createdDateTime", size=16, **_LOG),
    Collection("directory_audits", _audit, text="activityDisplayName", created="activityDateTime", **_LOG),
    Collection("incidents", _incident, text="displayName", ids=_text(""), stamp="lastUpdateDateTime", **_LIVE),
    Collection("alerts", _alert, text="title", ids=_guid, stamp="lastUpdateDateTime", size=16, **_LIVE),
    Collection("risky_users", _risky_user, text="userDisplayName", ids=_guid, stamp="riskLastUpdatedDateTime", **_LIVE),
    Collection("service_health_issues", _issue, text="title", ids=_text("EX"), stamp="lastModifiedDateTime", **_LIVE),
    Collection("messages", _message, text="title", ids=_text("MC"), stamp="lastModifiedDateTime", **_LIVE),
    Collection("teams", _named(description=lambda draw: draw.one_of(None, "Us")), **_DIRECTORY, size=6),
    Collection("team_members", _member, text="displayName", ids=_text("MC"), record_id=_below, parent="teams", size=2),
    Collection("domains", _domain, text="model", ids=lambda number, _: f"d{number}.example.com", size=4),
    Collection("organization", _named(tenantType=lambda _: "AAD"), deletes=False, restores=False, **_DIRECTORY, size=1),
    Collection("directory_roles", _named(description=lambda _: "May"), **_DIRECTORY, size=4),
    Collection("customers", _named(), **_DIRECTORY, size=3),
    Collection("contracts", _named(contractType=lambda _: "ResellerPartnerContract"), **_DIRECTORY, size=3),
    Collection(
        "registration_details",
        _registration,
        text="userDisplayName",
        ids=_guid,
        stamp="lastUpdatedDateTime",
        spell=graph_time,
    ),
)


# -- requests ----------------------------------------------------------------------------------------------------------
def answer(store: Store, request: Request) -> Answer:
    """Tokens, lists, delta queries and single records."""
    if request.host == LOGIN:
        return _token(store, request)
    tokens_of(store).check(bearer_of(request))
    if request.method != "GET" or not request.path.startswith(BASE):
        raise RefusedError("bad_request", f"Resource not found for the segment '{request.path}'.")
    path = request.path.removeprefix(BASE)
    if path in _BY_PATH:
        _count(store, _BY_PATH[path])
        return _listed(store, request, _BY_PATH[path])
    if path.count("/") == 2:
        kind, parent, below = path.split("/")
        if f"{kind}/{below}" in _BELOW:
            return _listed_below(store, request, _BELOW[f"{kind}/{below}"], kind, parent)
    above, _, last = path.rpartition("/")
    if above not in _BY_PATH:
        raise RefusedError("bad_request", f"Resource not found for the segment '{last}'.")
    listing = _BY_PATH[above]
    _count(store, listing)
    if listing.delta and last in ("delta", "delta()", "microsoft.graph.delta"):
        return _delta(store, request, listing)
    return _one(store, listing, last)


def _token(store: Store, request: Request) -> Answer:
    tenant, _, rest = request.path.removeprefix("/").partition("/")
    customers = {str(row.raw_id) for row in store.rows("customers")}
    if (request.method, rest) != ("POST", "oauth2/v2.0/token"):
        raise RefusedError("not_found", request.path)
    if tenant != TENANT and tenant not in customers:
        raise RefusedError("invalid_grant", f"AADSTS90002: Tenant '{tenant}' not found.")
    check_client(request, CLIENT_ID, CLIENT_SECRET)
    if request.form.get("grant_type") != "client_credentials" or request.form.get("scope") != SCOPE:
        raise RefusedError(
            "invalid_grant", "AADSTS70011: The provided value for the input parameter 'scope' isn't valid"
        )
    return token_answer(store, TOKEN_S, ext_expires_in=int(TOKEN_S))


def _count(store: Store, listing: Listing) -> None:
    spend(store, "tenant", 3_500, 10.0)
    if listing.counted == "reports":
        spend(store, "reports", 5, 10.0)
    if listing.counted == "protection":
        spend(store, "protection", 1, 1.0)


def _one(store: Store, listing: Listing, record_id: str) -> Answer:
    row = store.find(listing.collection, record_id)
    if row is None:
        raise RefusedError("not_found", record_id)
    listed = shown([row], collection=listing.collection, render=_rendering(listing, None), one=True)
    return json_answer(
        {"@odata.context": f"https://{GRAPH}/v1.0/$metadata#{listing.path}"} | listed.contents[0], listed
    )


def _listed_below(store: Store, request: Request, listing: Listing, kind: str, parent: str) -> Answer:
    if store.find(kind, parent) is None:
        raise RefusedError("not_found", request.path)
    _count(store, listing)
    return _listed(store, request, listing, parent)


def _listed(store: Store, request: Request, listing: Listing, parent: str | None = None) -> Answer:
    """A page, its rows in order of id or, newest first, of time and id."""
    taken = FREE - (frozenset() if listing.top else {"$top"}) | ({"$filter"} if listing.filtered else frozenset())
    _check_parameters(request, taken)
    wanted = sql_like(request.query.get("$filter", ""), ODATA)
    rows = [row for row in store.rows(listing.collection, parent) if wanted(row.content)]
    key = _newest_first if listing.newest_first else _by_id
    size = len(rows) or 1 if listing.top is None else _top(request, listing.top)
    cut = by_key(rows, key, _place(store, request), size)
    following = request.url(**{"$skiptoken": store.keep(key(cut.rows[-1]))}) if cut.more else ""
    select = _selected(request.query.get("$select"))
    listed = shown(
        cut.rows,
        collection=listing.collection,
        render=_rendering(listing, select),
        whole=select is None,
        more=cut.more,
        following=following,
    )
    return _collection_answer(listing, listed, {"@odata.nextLink": following} if following else {})


def _top(request: Request, most: int) -> int:
    top = number_in(request.query, "$top", 100, least=1)
    if top > most:
        told = f"Invalid page size specified: '{top}'. Must be between 1 and {most} inclusive."
        raise RefusedError("bad_request", told)
    return top


def _place(store: Store, request: Request) -> Any:
    """What the page before ended with, None for the first page."""
    token = request.query.get("$skiptoken")
    place = None if token is None else store.kept(token)
    if token is not None and place is None:
        raise RefusedError("bad_request", "The specified page token value has expired")
    return place


def _by_id(row: Row) -> Any:
    return row.id


def _newest_first(row: Row) -> Any:
    return (-row.created.timestamp(), row.id)


def _check_parameters(request: Request, taken: frozenset[str] | set[str]) -> None:
    for name in request.query:
        if name.startswith("$") and name not in taken:
            raise RefusedError("bad_request", f"Query option '{name}' is not allowed.")


def _selected(select: str | None) -> frozenset[str] | None:
    return frozenset(select.split(",")) if select else None


def _rendering(listing: Listing, select: frozenset[str] | None) -> Callable[[Row], dict[str, Any]]:
    """A record with the properties that were asked for; `id` always. A password is never shown."""
    tenants = {"tenantId"} if listing.collection == "customers" else set()

    def render(row: Row) -> dict[str, Any]:
        content = {**row.content, **dict.fromkeys(tenants, row.raw_id)}
        content.pop("passwordProfile", None)
        return {name: value for name, value in content.items() if select is None or name in select or name == "id"}

    return render


def _collection_answer(listing: Listing, listed: Any, links: Mapping[str, str]) -> Answer:
    context = f"https://{GRAPH}/v1.0/$metadata#{listing.path}"
    return json_answer({"@odata.context": context, **links, "value": listed.contents}, listed)


# -- delta queries -----------------------------------------------------------------------------------------------------
class _State(msgspec.Struct, frozen=True):
    """What a token stands for: the records after a place in the change log; those deleted before `began` were never
    told of. `select` as asked for at the beginning; `fresh`: the first page of a round."""

    after: int
    began: int
    select: frozenset[str] | None
    fresh: bool = False


def _delta(store: Store, request: Request, listing: Listing) -> Answer:
    """A page of a round: of all that is there, or of what became of records since the token. What changed last is shown
    once more by the next round (a replay)."""
    _check_parameters(request, {"$select", "$skiptoken", "$deltatoken"})
    state = _state(store, request)
    rows = [
        row
        for row in store.log(listing.collection, state.after)
        if row.deleted_at is None or row.position > state.began
    ]
    size = store.page_size(listing.collection, DELTA_SIZE)
    empty_first = state.fresh and listing.collection == EMPTY_FIRST
    cut = by_offset(rows, 0, 0 if empty_first else size)
    more = cut.more or empty_first
    last = state.after if not cut.rows else cut.rows[-1].position
    minimal = "return=minimal" in request.headers.get("prefer", "") and "$deltatoken" in request.query
    known = state.select
    if more:
        token = store.keep(_State(last, state.began, known))
        following = request.url(**{"$deltatoken": None, "$select": None, "$skiptoken": token})
        links = {"@odata.nextLink": following}
    else:
        shown_last = store.log(listing.collection)[-1:]
        replayed = shown_last[0].position - 1 if shown_last else 0
        token = store.keep(_State(replayed, state.began, known, fresh=True))
        following, links = "", {"@odata.deltaLink": request.url(**_only("$deltatoken", token))}
    listed = shown(
        cut.rows,
        collection=listing.collection,
        render=_changed(listing, frozenset({"displayName"}) if minimal else known),
        whole=not minimal,
        more=more,
        following=following,
    )
    return _collection_answer(listing, listed, links)


def _only(name: str, token: str) -> dict[str, str | None]:
    return {**dict.fromkeys(("$select", "$skiptoken", "$deltatoken"), None), name: token}


def _state(store: Store, request: Request) -> _State:
    token = request.query.get("$skiptoken") or request.query.get("$deltatoken")
    if token is None:
        return _State(0, store.position, _selected(request.query.get("$select")))
    if "$select" in request.query:
        raise RefusedError("bad_request", "Query option '$select' is not allowed with a state token.")
    state = store.kept(token)
    if not isinstance(state, _State):
        raise RefusedError("expired", request.path)
    return state


def _changed(listing: Listing, select: frozenset[str] | None) -> Callable[[Row], dict[str, Any]]:
    """A record as it is, or that it was removed. What was never set is left out, and so is null here; of a group for
    which no properties were selected, changes of its members are told."""
    render = _rendering(listing, select)

    def changed(row: Row) -> dict[str, Any]:
        if row.deleted_at is not None:
            return {"id": row.raw_id, "@removed": {"reason": "changed"}}
        content = {name: value for name, value in render(row).items() if value is not None}
        members = {"members@delta": [{"@odata.type": "#microsoft.graph.user", "id": row.raw_id}]}
        return content | members if select is None and listing.collection == "groups" else content

    return changed


# -- refusals ----------------------------------------------------------------------------------------------------------
_REFUSALS: Final[Mapping[Problem, tuple[int, str, str]]] = {
    "unauthorized": (401, "InvalidAuthenticationToken", "Access token has expired or is not yet valid."),
    "forbidden": (403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation."),
    "not_found": (404, "Request_ResourceNotFound", "Resource does not exist or one of its queried references is not."),
    "throttled": (429, "TooManyRequests", "Too many requests"),
    "unavailable": (503, "serviceNotAvailable", "The service is temporarily unavailable."),
    "bad_request": (400, "BadRequest", "Bad request"),
    "expired": (410, "resyncRequired", "Resync required"),
}


def error(problem: Problem, about: str, wait_s: float | None) -> Answer:
    """`{"error": {"code", "message", "innerError"}}`; the identity platform speaks RFC 6749."""
    if problem == "invalid_grant":
        said = about if about.startswith("AADSTS") else "AADSTS7000215: Invalid client secret provided."
        return json_answer({"error": "invalid_client", "error_description": said, "error_codes": [7000215]}, status=401)
    status, code, message = _REFUSALS[problem]
    inner = {"date": "2026-01-31T12:00:00", "request-id": "0" * 32, "client-request-id": "0" * 32}
    told = {"code": code, "message": about if problem == "bad_request" and about else message, "innerError": inner}
    headers = {} if wait_s is None else {"Retry-After": str(max(1, int(wait_s)))}
    if problem == "expired":
        headers["Location"] = f"https://{GRAPH}{about}?$deltatoken="
    return json_answer({"error": told}, status=status, headers=headers)


def credentials(_: Store) -> dict[str, str]:
    return {"account_id": TENANT, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}


DIALECT: Final = Dialect(
    "microsoft_365",
    hosts=(GRAPH, LOGIN),
    collections=COLLECTIONS,
    credentials=credentials,
    answer=answer,
    error=error,
    sources=(
        "Graph docs, delta-query-overview: nextLink also on an empty page, deltaLink, @removed with its reason, "
        "replays, 410 with a Location, parameters inside the tokens, members@delta",
        "Graph docs, user: delta: all selected properties, what was never set left out, Prefer: return=minimal",
        "Graph docs, paging: @odata.nextLink and $skiptoken; query-parameters: $top, $filter, $select",
        "Graph docs, List signIns: at most 1000, newest first; List incidents: at most 50; List messages: at most 1000",
        "Graph docs, List licenseDetails, List members of team: at most 999 members, ids opaque",
        "Graph docs, throttling-limits: reports five calls in 10 s, identity protection one a second",
        "Graph docs, errors: code, message, innerError, Retry-After",
        "Microsoft identity platform, client credentials flow: address, scope .default, AADSTS codes",
    ),
    unsourced=(
        "a page token names the record that the page before ended with",
        "a property that became null is left out of delta answers, as one that was never set is",
        "which of the lists that show all at once refuse $top",
        "that the id of a licence is the same for several users",
        "the wording of 400, and the code resyncRequired of a directory's 410",
    ),
)
