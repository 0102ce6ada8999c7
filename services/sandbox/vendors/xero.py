"""The dialect of Xero: tokens at the identity server, connections, the Accounting API and the Projects API.

Line items are shown only where a page is asked for. What is deleted stays in most lists, with the status DELETED;
items, accounts, tracking categories, users and all of the Projects API just lack it.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
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
from services.sandbox.vendors.pages import Cut, by_key, by_number, by_offset, pages_of, sorted_by
from services.sandbox.vendors.store import Collection, Draw, Row, Store

API_HOST, IDENTITY_HOST = "api.xero.com", "identity.xero.com"
ACCOUNTING, PROJECTS = "/api.xro/2.0/", "/projects.xro/2.0/"
CLIENT_ID, CLIENT_SECRET = "CLIENT0123456789", "client-secret"
ORGANISATION, ORGANISATION_ID = "Demo Company (Global)", "5f2a9e1c-7d1b-4b6e-9a53-2b1f0c8d7e64"
OTHER_ID: Final = "0b6c1d2e-3f40-4a5b-8c6d-7e8f90a1b2c3"  # connected too, and not the one that is read
TOKEN_S, GRACE_S = 1_800.0, 1_800.0
PER_MINUTE, PER_DAY = 60, 5_000
PAGE, PAGE_MAX = 100, 1_000
PROJECTS_PAGE, PROJECTS_PAGE_MAX = 50, 500
JOURNALS_PAGE: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Kind(msgspec.Struct, frozen=True):
    """One list of the Accounting API: its name, its records' id, and how it may be asked.

    `pages`: takes `page`; `sizes`: and `pageSize`; `bare`: fields that are empty where no page is asked for; `archive`:
    the path whose value ARCHIVED takes a record out, but for `includeArchived`; `tombs`: deleted ones are shown, with
    `includeDeleted` (`tombs_asked`) or always; `since`: takes If-Modified-Since.
    """

    name: str
    id: str
    pages: bool = False
    sizes: bool = True
    bare: tuple[str, ...] = ()
    archive: str | None = None
    tombs: bool = False
    tombs_asked: bool = False
    since: bool = True


_LINES: Final = ("LineItems",)
KINDS: Final[Mapping[str, Kind]] = {
    "contacts": Kind("Contacts", "ContactID", pages=True, archive="ContactStatus"),
    "invoices": Kind("Invoices", "InvoiceID", pages=True, bare=_LINES, archive="Contact.ContactStatus", tombs=True),
    "credit_notes": Kind("CreditNotes", "CreditNoteID", pages=True, bare=_LINES, tombs=True),
    "payments": Kind("Payments", "PaymentID", pages=True, tombs=True),
    "prepayments": Kind("Prepayments", "PrepaymentID", pages=True, bare=_LINES),
    "overpayments": Kind("Overpayments", "OverpaymentID", pages=True, bare=_LINES),
    "bank_transactions": Kind("BankTransactions", "BankTransactionID", pages=True, bare=_LINES, tombs=True),
    "bank_transfers": Kind("BankTransfers", "BankTransferID", tombs=True, tombs_asked=True),
    "manual_journals": Kind("ManualJournals", "ManualJournalID", pages=True, bare=("JournalLines",), tombs=True),
    "purchase_orders": Kind("PurchaseOrders", "PurchaseOrderID", pages=True, tombs=True),
    "quotes": Kind("Quotes", "QuoteID", pages=True, sizes=False, tombs=True),
    "repeating_invoices": Kind("RepeatingInvoices", "RepeatingInvoiceID", tombs=True, since=False),
    "items": Kind("Items", "ItemID"),
    "accounts": Kind("Accounts", "AccountID"),
    "tax_rates": Kind("TaxRates", "Name", tombs=True, since=False),
    "tracking_categories": Kind("TrackingCategories", "TrackingCategoryID", archive="Status", since=False),
    "users": Kind("Users", "UserID"),
}
_BY_NAME: Final = {kind.name: collection for collection, kind in KINDS.items()}


def net_time(moment: datetime) -> str:
    """`/Date(1573755038314+0000)/`: milliseconds since 1970."""
    return f"/Date({(moment - _EPOCH) // timedelta(milliseconds=1)}+0000)/"


def _plain_net_time(moment: datetime) -> str:
    """Without a zone, as whole answers are stamped."""
    return net_time(moment).replace("+0000", "")


def _day(draw: Draw, from_days: float, to_days: float) -> str:
    """A date: its midnight."""
    return net_time(draw.moment(from_days, to_days).replace(hour=0, minute=0, second=0))


def _iso(moment: datetime) -> str:
    """Times of the Projects API."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def guid(_: int, rng: Random) -> str:
    return str(UUID(int=rng.getrandbits(128), version=4))


# -- records -----------------------------------------------------------------------------------------------------------
def _money(draw: Draw) -> dict[str, Any]:
    subtotal = draw.number_in(1_000, 900_000) / 100
    tax = round(subtotal * 0.2, 2)
    return {"SubTotal": subtotal, "TotalTax": tax, "Total": round(subtotal + tax, 2), "CurrencyCode": "EUR"}


def _who(draw: Draw) -> dict[str, Any]:
    return {"ContactID": draw.of("contacts"), "Name": "Ridgeway University", "ContactStatus": "ACTIVE"}


def _lines(draw: Draw) -> list[dict[str, Any]]:
    return [
        {
            "LineItemID": guid(0, draw.rng),
            "Description": draw.one_of("Onsite support", "Gestión de licencias", "Backup, 1 TB"),
            "Quantity": float(draw.number_in(1, 9)),
            "UnitAmount": draw.number_in(100, 90_000) / 100,
            "AccountCode": "200",
            "TaxType": "OUTPUT2",
            "Tracking": [],
        }
        for _ in range(draw.number_in(1, 3))
    ]


def _document(draw: Draw, **more: Any) -> dict[str, Any]:
    """What documents of trade have in common."""
    common = {"Contact": _who(draw), "Date": _day(draw, -60, 0), "LineAmountTypes": "Exclusive"}
    return {**common, "LineItems": _lines(draw), **_money(draw), "HasAttachments": draw.flag(0.1), **more}


def _contact(draw: Draw) -> dict[str, Any]:
    street = {"AddressType": "STREET", "AddressLine1": f"{draw.number} Main St", "City": "Oaktown", "Region": ""}
    return {
        "ContactStatus": draw.one_of("ACTIVE", "ACTIVE", "ACTIVE", "ARCHIVED"),
        "Name": f"{draw.one_of('Contoso', 'O’Neil & Søn')} {draw.number}",
        "FirstName": draw.one_of("Ana", ""),
        "LastName": "López",
        "EmailAddress": draw.one_of("", f"a{draw.number}@example.com"),
        "BankAccountDetails": "01-0123-0123456-00",
        "Addresses": [street, {"AddressType": "POBOX", "City": ""}],
        "Phones": [{"PhoneType": "DEFAULT", "PhoneNumber": "9999 9999", "PhoneAreaCode": "02", "PhoneCountryCode": ""}],
        "IsSupplier": draw.flag(),
        "IsCustomer": draw.flag(),
        "DefaultCurrency": "EUR",
        "ContactPersons": [],
        "HasAttachments": False,
    }


def _invoice(draw: Draw) -> dict[str, Any]:
    status = draw.one_of("DRAFT", "SUBMITTED", "AUTHORISED", "PAID", "VOIDED")
    return _document(
        draw,
        Type=draw.one_of("ACCREC", "ACCPAY"),
        InvoiceNumber=f"INV-{draw.number:04d}",
        Reference="RPT200-1",
        Status=status,
        DueDate=_day(draw, 0, 30),
        AmountDue=draw.number_in(0, 9_000) / 100,
        AmountPaid=0.0,
        AmountCredited=0.0,
        SentToContact=draw.flag(),
        Payments=[],
        CreditNotes=[],
    )


def _credit_note(draw: Draw) -> dict[str, Any]:
    return _document(
        draw,
        Type="ACCRECCREDIT",
        CreditNoteNumber=f"CN-{draw.number:04d}",
        Reference="credit",
        Status=draw.one_of("DRAFT", "AUTHORISED", "PAID"),
        RemainingCredit=draw.number_in(0, 900) / 100,
        Allocations=[],
    )


def _payment(draw: Draw) -> dict[str, Any]:
    return {
        "Date": _day(draw, -30, 0),
        "Amount": draw.number_in(100, 90_000) / 100,
        "CurrencyRate": 1.0,
        "PaymentType": "ACCRECPAYMENT",
        "Status": "AUTHORISED",
        "Reference": "transfer",
        "IsReconciled": draw.flag(),
        "BankAccountNumber": "01-0123-0123456-00",
        "Account": {"AccountID": draw.of("accounts"), "Code": "090"},
        "Invoice": {"InvoiceID": draw.of("invoices"), "InvoiceNumber": "INV-0001", "Contact": _who(draw)},
    }


def _ahead(kind: str) -> Callable[[Draw], dict[str, Any]]:
    def make(draw: Draw) -> dict[str, Any]:
        left = draw.number_in(0, 900) / 100
        return _document(draw, Type=kind, Status=draw.one_of("AUTHORISED", "PAID"), RemainingCredit=left, Reference="a")

    return make


def _bank_transaction(draw: Draw) -> dict[str, Any]:
    account = {"AccountID": draw.of("accounts"), "Code": "090", "Name": "Business", "BankAccountNumber": "0123"}
    return _document(
        draw,
        Type=draw.one_of("SPEND", "RECEIVE"),
        BankAccount=account,
        IsReconciled=draw.flag(),
        Reference="card",
        Status="AUTHORISED",
    )


def _bank_transfer(draw: Draw) -> dict[str, Any]:
    return {
        "FromBankAccount": {"AccountID": draw.of("accounts"), "Name": "Business", "BankAccountNumber": "0123"},
        "ToBankAccount": {"AccountID": draw.of("accounts"), "Name": "Savings", "BankAccountNumber": "0456"},
        "Amount": draw.number_in(100, 90_000) / 100,
        "Date": _day(draw, -30, 0),
        "Status": "AUTHORISED",
        "Reference": "to savings",
        "HasAttachments": False,
    }


def _manual_journal(draw: Draw) -> dict[str, Any]:
    line = {"LineAmount": draw.number_in(100, 9_000) / 100, "AccountCode": "200", "TaxType": "NONE"}
    return {
        "Narration": "accrual",
        "Date": _day(draw, -30, 0),
        "Status": draw.one_of("DRAFT", "POSTED"),
        "LineAmountTypes": "NoTax",
        "JournalLines": [line],
        "ShowOnCashBasisReports": draw.flag(),
        "HasAttachments": False,
    }


def _journal(draw: Draw) -> dict[str, Any]:
    amount = draw.number_in(100, 9_000) / 100
    line = {"JournalLineID": guid(0, draw.rng), "AccountCode": "610", "NetAmount": amount, "GrossAmount": amount}
    return {
        "JournalNumber": draw.number * 3,  # numbers have gaps
        "JournalDate": _day(draw, -3, 0),
        "Reference": "Red Fish",
        "SourceType": "ACCREC",
        "JournalLines": [line],
    }


def _purchase_order(draw: Draw) -> dict[str, Any]:
    return _document(
        draw,
        PurchaseOrderNumber=f"PO-{draw.number:04d}",
        Reference="stock",
        DeliveryDate=_day(draw, 0, 30),
        Status=draw.one_of("DRAFT", "SUBMITTED", "AUTHORISED", "BILLED"),
        SentToContact=draw.flag(),
    )


def _quote(draw: Draw) -> dict[str, Any]:
    made = _document(
        draw,
        QuoteNumber=f"QU-{draw.number:04d}",
        Title=draw.one_of("Firewall", ""),
        Summary="as discussed",
        ExpiryDate=_day(draw, 0, 30),
        Status=draw.one_of("DRAFT", "SENT", "DECLINED", "ACCEPTED", "INVOICED"),
    )
    del made["HasAttachments"]
    return {**made, "LineAmountTypes": "EXCLUSIVE"}


def _repeating(draw: Draw) -> dict[str, Any]:
    schedule = {"Period": 1, "Unit": "MONTHLY", "DueDate": 10, "DueDateType": "OFFOLLOWINGMONTH"}
    dates = {"StartDate": _day(draw, -90, -30), "NextScheduledDate": _day(draw, 1, 30)}
    made = _document(draw, Type="ACCREC", Schedule=schedule | dates, Reference="support", Status="AUTHORISED")
    del made["Date"]
    return made


def _item(draw: Draw) -> dict[str, Any]:
    return {
        "Code": f"SW-{draw.number}",
        "Name": draw.one_of("Switch 48", "Licence"),
        "Description": "48 ports",
        "IsSold": True,
        "IsPurchased": draw.flag(),
        "IsTrackedAsInventory": draw.flag(),
        "SalesDetails": {"UnitPrice": draw.number_in(100, 90_000) / 100, "AccountCode": "200", "TaxType": "OUTPUT2"},
        "PurchaseDetails": {"UnitPrice": draw.number_in(100, 90_000) / 100, "AccountCode": "300"},
    }


def _account(draw: Draw) -> dict[str, Any]:
    return {
        "Code": str(200 + draw.number),
        "Name": "Sales",
        "Type": draw.one_of("REVENUE", "BANK"),
        "BankAccountNumber": "0123",
        "Status": draw.one_of("ACTIVE", "ARCHIVED"),
        "TaxType": "OUTPUT2",
        "EnablePaymentsToAccount": draw.flag(),
    }


def _tax_rate(draw: Draw) -> dict[str, Any]:
    component = {"Name": "VAT", "Rate": float(draw.number_in(1, 25)), "IsCompound": False}
    return {
        "TaxType": f"TAX{draw.number:03d}",
        "Status": "ACTIVE",
        "ReportTaxType": "OUTPUT",
        "TaxComponents": [component],
    }


def _tracking(draw: Draw) -> dict[str, Any]:
    return {"Name": "Region", "Status": draw.one_of("ACTIVE", "ARCHIVED"), "Options": [{"Name": "North"}]}


def _user(draw: Draw) -> dict[str, Any]:
    return {
        "EmailAddress": f"u{draw.number}@example.com",
        "FirstName": "Ana",
        "LastName": "López",
        "IsSubscriber": draw.flag(),
        "OrganisationRole": draw.one_of("STANDARD", "READONLY"),
    }


def _amount(draw: Draw) -> dict[str, Any]:
    return {"currency": "EUR", "value": draw.number_in(0, 90_000) / 100}


def _project(draw: Draw) -> dict[str, Any]:
    return {
        "contactId": draw.of("contacts"),
        "name": draw.one_of("New Kitchen", "Migration"),
        "currencyCode": "EUR",
        "totalInvoiced": _amount(draw),
        "estimate": _amount(draw),
        "deadlineUtc": _iso(draw.moment(1, 90)),
        "status": draw.one_of("INPROGRESS", "CLOSED"),
    }


def _task(draw: Draw) -> dict[str, Any]:
    return {
        "name": "Install",
        "rate": _amount(draw),
        "chargeType": draw.one_of("TIME", "FIXED", "NON_CHARGEABLE"),
        "estimateMinutes": draw.number_in(0, 900),
        "projectId": draw.parent.raw_id if draw.parent is not None else None,
        "status": draw.one_of("ACTIVE", "INVOICED", "LOCKED"),
    }


def _time(draw: Draw) -> dict[str, Any]:
    return {
        "userId": draw.of("users"),
        "projectId": draw.parent.raw_id if draw.parent is not None else None,
        "taskId": draw.of("project_tasks"),
        "dateUtc": _iso(draw.moment(-5, 0)),
        "dateEnteredUtc": _iso(draw.now),
        "duration": draw.number_in(5, 480),
        "description": "on site",
        "status": draw.one_of("ACTIVE", "INVOICED", "LOCKED"),
    }


def _made(
    name: str, make: Callable[[Draw], dict[str, Any]], text: str, *, fixed: Sequence[str] = (), **more: Any
) -> Collection:
    """A list of the Accounting API; what is deleted there does not come back."""
    settings = {"id": KINDS[name].id, "ids": guid, "stamp": "UpdatedDateUTC", "spell": net_time, "tick_s": 0.001}
    fixed = ("Status", "Contact", *fixed) if KINDS[name].tombs else fixed
    return Collection(name, make, text=text, restores=False, fixed=frozenset(fixed), **{**settings, **more})


COLLECTIONS: Final = (
    _made("contacts", _contact, "LastName", size=14, deletes=False),  # archived, never deleted
    _made("accounts", _account, "Name", size=8),
    _made("tax_rates", _tax_rate, "ReportTaxType", ids=lambda number, _: f"VAT {number}%", stamp=None, size=5),
    _made("tracking_categories", _tracking, "Name", stamp=None, size=4),
    _made("users", _user, "LastName", size=5),
    _made("items", _item, "Description", size=10),
    _made("invoices", _invoice, "Reference", size=18),
    _made("credit_notes", _credit_note, "Reference", size=8),
    _made("payments", _payment, "Reference", size=10),
    _made("prepayments", _ahead("RECEIVE-PREPAYMENT"), "Reference", size=5, deletes=False),
    _made("overpayments", _ahead("RECEIVE-OVERPAYMENT"), "Reference", size=5, deletes=False),
    _made("bank_transactions", _bank_transaction, "Reference", size=10),
    _made("bank_transfers", _bank_transfer, "Reference", stamp=None, created="CreatedDateUTC", size=5),
    _made("manual_journals", _manual_journal, "Narration", size=5),
    Collection(
        "journals",
        _journal,
        text="Reference",
        id="JournalID",
        ids=guid,
        created="CreatedDateUTC",
        spell=net_time,
        tick_s=0.001,
        log=True,
        size=12,
    ),
    _made("purchase_orders", _purchase_order, "Reference", size=6),
    _made("quotes", _quote, "Summary", size=10),
    _made("repeating_invoices", _repeating, "Reference", stamp=None, size=5),
    Collection("projects", _project, text="name", id="projectId", ids=guid, restores=False, size=4),
    Collection(
        "project_tasks",
        _task,
        text="name",
        id="taskId",
        ids=guid,
        parent="projects",
        fixed=frozenset({"projectId"}),
        size=3,
    ),
    Collection(
        "time_entries",
        _time,
        text="description",
        id="timeEntryId",
        ids=guid,
        parent="projects",
        fixed=frozenset({"projectId"}),
        size=4,
    ),
)


# -- requests ----------------------------------------------------------------------------------------------------------
def answer(store: Store, request: Request) -> Answer:
    """Tokens at `identity.xero.com`, all else at `api.xero.com`: connections first, then one organisation's data."""
    if (request.method, request.host, request.path) == ("POST", IDENTITY_HOST, "/connect/token"):
        return _token(store, request)
    tokens_of(store).check(bearer_of(request))
    if request.method != "GET" or request.host != API_HOST:
        raise RefusedError("not_found", request.path)
    if request.path == "/connections":
        return json_answer([_connection(OTHER_ID, "Another Company"), _connection(ORGANISATION_ID, ORGANISATION)])
    if request.headers.get("xero-tenant-id") != ORGANISATION_ID:
        return _refused(403, "Forbidden", "AuthenticationUnsuccessful")
    day = spend(store, "day", PER_DAY, 86_400.0)
    minute = spend(store, "minute", PER_MINUTE, 60.0)
    left = {"X-DayLimit-Remaining": str(day.remaining), "X-MinLimit-Remaining": str(minute.remaining)}
    given = _data(store, request)
    return msgspec.structs.replace(given, headers={**given.headers, **left})


def _token(store: Store, request: Request) -> Answer:
    check_client(request, CLIENT_ID, CLIENT_SECRET)
    form = request.form
    match form.get("grant_type"):
        case "refresh_token":
            following = tokens_of(store).redeem(form.get("refresh_token", ""), single_use=True, grace_s=GRACE_S)
            return token_answer(
                store, TOKEN_S, refresh_token=following, scope="offline_access accounting.contacts.read"
            )
        case "client_credentials":
            return token_answer(store, TOKEN_S, scope=form.get("scope", ""))
    return json_answer({"error": "unsupported_grant_type"}, status=400)


def _connection(tenant_id: str, name: str) -> dict[str, Any]:
    return {
        "id": hashlib.blake2b(tenant_id.encode(), digest_size=8).hexdigest(),
        "tenantId": tenant_id,
        "tenantType": "ORGANISATION",
        "tenantName": name,
        "createdDateUtc": "2025-11-01T09:00:00.0000000",
        "updatedDateUtc": "2025-11-01T09:00:00.0000000",
    }


def _data(store: Store, request: Request) -> Answer:
    if request.path.startswith(PROJECTS):
        return _projects(store, request, request.path.removeprefix(PROJECTS).split("/"))
    match request.path.removeprefix(ACCOUNTING).split("/") if request.path.startswith(ACCOUNTING) else []:
        case ["Journals"]:
            return _journals(store, request)
        case [name] if name in _BY_NAME:
            return _list(store, request, _BY_NAME[name])
        case [name, raw_id] if name in _BY_NAME:
            return _one(store, request, _BY_NAME[name], raw_id)
    raise RefusedError("not_found", request.path)


# -- accounting --------------------------------------------------------------------------------------------------------
def _list(store: Store, request: Request, collection: str) -> Answer:
    kind, query = KINDS[collection], request.query
    if "where" in query:
        raise RefusedError("bad_request", "where is not spoken here")
    rows = _ordered(_those(store, request, collection), query.get("order", ""), kind)
    paged = kind.pages and "page" in query
    cut = by_offset(rows, 0, len(rows) + 1)
    size = PAGE
    if paged:
        size = (
            number_in(query, "pageSize", PAGE, least=1, most=PAGE_MAX)
            if kind.sizes
            else store.page_size(collection, PAGE)
        )
        cut = by_number(rows, number_in(query, "page", 1, least=1), size)
    hidden = () if paged else kind.bare
    listed = shown(cut.rows, collection=collection, render=lambda row: _rendered(row, hidden), more=cut.more)
    pages = {"pagination": _pagination(cut, size, number_in(query, "page", 1))} if paged and kind.sizes else {}
    return json_answer({**_envelope(request), **pages, kind.name: listed.contents}, listed)


def _those(store: Store, request: Request, collection: str) -> list[Row]:
    """What the request's conditions leave of a list."""
    kind = KINDS[collection]
    rows = store.rows(collection)
    if kind.tombs and (not kind.tombs_asked or request.query.get("includeDeleted") == "true"):
        rows += store.graves(collection)
    if kind.archive is not None and request.query.get("includeArchived") != "true":
        rows = [row for row in rows if _at(row, kind.archive) != "ARCHIVED"]
    since = request.headers.get("if-modified-since")
    if since is None or not kind.since:
        return rows
    after = _read_since(since)
    return [row for row in rows if row.updated.replace(microsecond=0) > after]


def _read_since(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise RefusedError("bad_request", f"If-Modified-Since: {text}") from None


def _ordered(rows: Sequence[Row], order: str, kind: Kind) -> list[Row]:
    """As asked (`InvoiceID`, `Date DESC`); without, in no order that anybody documents."""
    field, _, direction = order.partition(" ")
    if not field:
        return sorted(rows, key=lambda row: hashlib.blake2b(row.id.encode()).digest())
    known = {kind.id, "UpdatedDateUTC", "Date"}
    if field not in known or direction.upper() not in ("", "ASC", "DESC"):
        raise RefusedError("bad_request", f"order={order}")
    return sorted_by(rows, field, kind.id, descending=direction.upper() == "DESC")


def _rendered(row: Row, bare: Sequence[str] = ()) -> dict[str, Any]:
    """A record as lists show it: the deleted by their status, without the fields that only pages have."""
    status = {"Status": "DELETED"} if row.deleted_at is not None else {}
    return {**row.content, **status, **{name: [] for name in bare}}


def _one(store: Store, request: Request, collection: str, raw_id: str) -> Answer:
    row = store.find_raw(collection, raw_id)
    if row is None and KINDS[collection].tombs:
        row = next((grave for grave in store.graves(collection) if grave.raw_id == raw_id), None)
    if row is None:
        raise RefusedError("not_found", request.path)
    listed = shown([row], collection=collection, render=_rendered, one=True)
    return json_answer({**_envelope(request), KINDS[collection].name: listed.contents}, listed)


def _journals(store: Store, request: Request) -> Answer:
    """Those with a greater number than `offset`, the oldest first."""
    offset = number_in(request.query, "offset", 0)
    size = store.page_size("journals", JOURNALS_PAGE)
    cut = by_key(store.rows("journals"), lambda row: row.content["JournalNumber"], offset, size)
    listed = shown(cut.rows, collection="journals", more=cut.more)
    return json_answer({**_envelope(request), "Journals": listed.contents}, listed)


def _envelope(request: Request) -> dict[str, Any]:
    stamp = _plain_net_time(request.at)
    return {"Id": ORGANISATION_ID, "Status": "OK", "ProviderName": "AVESA", "DateTimeUTC": stamp}


def _pagination(cut: Cut, size: int, page: int) -> dict[str, int]:
    return {"page": page, "pageSize": size, "pageCount": pages_of(cut, size), "itemCount": cut.total}


def _at(row: Row, path: str) -> Any:
    found: Any = row.content
    for name in path.split("."):
        found = found.get(name) if isinstance(found, dict) else None
    return found


# -- projects ----------------------------------------------------------------------------------------------------------
def _projects(store: Store, request: Request, parts: Sequence[str]) -> Answer:
    match parts:
        case ["Projects"]:
            return _page(store, request, "projects", None)
        case ["Projects", project_id]:
            found = _project_row(store, request, project_id)
            listed = shown([found], collection="projects", render=lambda row: _with_sums(store, row), one=True)
            return json_answer(listed.contents[0], listed)
        case ["Projects", project_id, "Tasks" | "Time" as below]:
            parent = _project_row(store, request, project_id)
            return _page(store, request, "project_tasks" if below == "Tasks" else "time_entries", parent.id)
    raise RefusedError("not_found", request.path)


def _project_row(store: Store, request: Request, project_id: str) -> Row:
    found = store.find_raw("projects", project_id)
    if found is None:
        raise RefusedError("not_found", request.path)
    return found


def _page(store: Store, request: Request, collection: str, parent: str | None) -> Answer:
    query = request.query
    size, page = number_in(query, "pageSize", PROJECTS_PAGE, least=1), number_in(query, "page", 1, least=1)
    if size > PROJECTS_PAGE_MAX:
        raise RefusedError("bad_request", f"pageSize={size}")
    rows = sorted(store.rows(collection, parent), key=lambda row: hashlib.blake2b(row.id.encode()).digest())
    cut = by_number(rows, page, size)
    listed = shown(
        cut.rows,
        collection=collection,
        render=(lambda row: _with_sums(store, row)) if collection == "projects" else None,
        more=cut.more,
    )
    return json_answer({"pagination": _pagination(cut, size, page), "items": listed.contents}, listed)


def _with_sums(store: Store, row: Row) -> dict[str, Any]:
    """A project knows how long people worked on it, and what its tasks come to."""
    spent = sum(one.content["duration"] for one in store.rows("time_entries", row.id) if _is_number(one, "duration"))
    rates = [_at(one, "rate.value") for one in store.rows("project_tasks", row.id)]
    total = round(sum(rate for rate in rates if isinstance(rate, int | float)), 2)
    return {**row.content, "minutesLogged": spent, "totalTaskAmount": {"currency": "EUR", "value": total}}


def _is_number(row: Row, name: str) -> bool:
    return isinstance(row.content.get(name), int)


# -- refusals ----------------------------------------------------------------------------------------------------------
def _refused(status: int, title: str, detail: str, headers: Mapping[str, str] | None = None) -> Answer:
    instance = "6489df60-8891-470e-9268-a9a43f5da71e"
    value: dict[str, Any] = {
        "Type": None,
        "Title": title,
        "Status": status,
        "Detail": detail,
        "Instance": instance,
        "Extensions": {},
    }
    return json_answer(value, status=status, headers=headers)


def error(problem: Problem, about: str, wait_s: float | None) -> Answer:  # noqa: PLR0911  one for each
    """Xero's shape of each refusal."""
    match problem:
        case "unauthorized":
            return _refused(401, "Unauthorized", "TokenExpired: token expired at 01/31/2026 12:00:00")
        case "invalid_grant":
            return json_answer({"error": "invalid_grant"}, status=400)
        case "forbidden":
            return _refused(401, "Unauthorized", "AuthorizationUnsuccessful")
        case "not_found":
            told = {"Content-Type": "text/html; charset=utf-8"}
            return Answer(404, b"The resource you're looking for cannot be found", told)
        case "throttled":
            wait = {} if wait_s is None else {"Retry-After": str(max(1, round(wait_s)))}
            which = "day" if about == "day" else "minute"
            return Answer(429, b"", {"X-Rate-Limit-Problem": which, **wait})
        case "unavailable":
            return _refused(503, "Service Unavailable", "The service is temporarily unavailable")
        case _:
            told_s = {"ErrorNumber": 16, "Type": "QueryParseException", "Message": about}
            return json_answer(told_s, status=400)


def credentials(store: Store) -> dict[str, str]:
    """What a user types: an app's client, and the refresh token of a connection made just now."""
    return {
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
        "refresh_token": tokens_of(store).issue_refresh(),
        "organisation": ORGANISATION,
    }


DIALECT: Final = Dialect(
    "xero",
    hosts=(API_HOST, IDENTITY_HOST),
    collections=COLLECTIONS,
    credentials=credentials,
    answer=answer,
    error=error,
    sources=(
        "XeroAPI/Xero-OpenAPI, xero_accounting.yaml and xero-projects.yaml: paths, parameters, shapes, page sizes of "
        "the Projects API",
        "developer.xero.com/documentation/api/requests-and-responses: times, If-Modified-Since to the second, paging",
        "developer.xero.com/documentation/api/invoices: line items only where a page is asked for",
        "developer.xero.com/documentation/api/journals: 100 an answer, number greater than offset, oldest first",
        "developer.xero.com/faq/oauth2: tokens of 30 minutes, refresh tokens that serve once, 30 minutes of grace",
        "codat.zendesk.com/hc/en-gb/articles/8045117943453: 60 a minute, 5000 a day for an organisation",
        "freakboy3742/pyxero#337, XeroAPI/xero-node#320, dcblogdev/laravel-xero#40: 401 TokenExpired, 401 "
        "AuthorizationUnsuccessful, 403 AuthenticationUnsuccessful",
        "XeroAPI/xero-node#634, xero-ruby#128: X-Rate-Limit-Problem, headers that tell what is left",
        "calcinai/xero-php#915: pageSize of at most 1000",
        "cdn.cdata.com/help/DXK/rcmd/pg_accountingtable-invoices.htm: fast orders (id, UpdatedDateUTC, Date)",
    ),
    unsourced=(
        "X-Rate-Limit-Problem `day`; pageSize above 1000 is cut; a page beyond the last is empty",
        "which lists keep showing what was deleted",
        "minutesLogged changes with every time entry, and the order of the Projects API's lists",
        "the text of a 404, the body of a 429 (none)",
        "If-Modified-Since leaves out what bears that very second",
    ),
)
