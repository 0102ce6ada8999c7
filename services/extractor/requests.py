"""From an endpoint and a place in its pages to the request that reads it. Pure; who we are is added by the caller."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal
from urllib.parse import quote, urlencode

import msgspec

from services.contracts.access import Template
from services.contracts.reading import (
    Body,
    DeltaToken,
    Filter,
    FormBody,
    GraphqlBody,
    JsonBody,
    SinceTime,
)
from services.contracts.times import UtcTime
from services.extractor.addresses import followed
from services.extractor.auth import Site
from services.extractor.pagination import Ask
from services.extractor.plan import Spec
from services.extractor.stamps import format_time, zone_of
from services.extractor.templates import WHERE_LIST, fill, fill_all, fill_json, fill_or_leave, names_in

ParentValues = Mapping[str, str]  # what a parent's record gives to the templates of its child, by name


class Request(msgspec.Struct, frozen=True):
    """One request. `source` says which it is, for an event and for a person; it holds no credential.

    `cost`: points it takes from the vendor's quota. Headers of ours come from the caller (`auth.Site`).
    """

    url: str
    query: tuple[tuple[str, str], ...] = ()
    source: str = ""
    method: Literal["GET", "POST"] = "GET"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    content_type: str = ""
    cost: float = 1.0

    @property
    def address(self) -> str:
        """The URL with its query, percent-encoded."""
        if not self.query:
            return self.url
        return f"{self.url}{'&' if '?' in self.url else '?'}{urlencode(self.query, quote_via=quote)}"


class Scope(msgspec.Struct, frozen=True):
    """What a walk asks for, the same on every page: what changed in a time, what came after a delta `token`, what hangs
    from a parent; `fields` to be named, and what the `job` of an export gave. Empty: everything."""

    since: UtcTime | None = None
    until: UtcTime | None = None
    parent: ParentValues | None = None
    token: str | None = None
    fields: tuple[str, ...] | None = None
    job: Mapping[str, str] | None = None


EVERYTHING: Final = Scope()


def list_request(site: Site, spec: Spec, page: Ask, scope: Scope = EVERYTHING) -> Request:
    """The request for one page of a list.

    Shape:  `spec` is that of the list which is read: in a sweep `Spec.for_sweep`.
    Errors: UsageError `bad_mapping`; RejectedError `wrong_host` for an address elsewhere.
    """
    values = told(site, spec, page, scope)
    headers = fill_all({**spec.headers, **_increment(spec, values).headers}, values, spec.optional)
    base = site.url_of(spec.base_url)
    template = spec.path if "token" in values or spec.first_path is None else spec.first_path
    body, content_type = body_bytes(spec.body, values, spec.optional) if spec.body is not None else (b"", "")
    address = page.address
    if isinstance(spec.incremental, DeltaToken) and spec.incremental.as_url and "cursor" not in page.values:
        address = address or scope.token
    query: tuple[tuple[str, str], ...] = ()
    if address is None:
        url, query = _located(base, template, values), tuple(_query(spec, page, values).items())
    else:
        url = followed(f"{base}/", address)
    return Request(
        url,
        query,
        f"{spec.method} {_shown(template, site, values)} {page.label}".rstrip(),
        spec.method,
        tuple(headers.items()),
        body,
        content_type,
        spec.cost,
    )


def told(site: Site, spec: Spec, page: Ask, scope: Scope) -> dict[str, str]:
    """Every value that the templates of a request may ask for, `{where}` among them. Errors: UsageError."""
    values = {**site.values, **(scope.parent or {}), **(scope.job or {}), **page.values}
    if isinstance(spec.incremental, SinceTime):
        values |= _window(spec.incremental, site, scope.since, scope.until)
    if scope.token is not None:
        values["token"] = scope.token
    if scope.fields is not None and spec.fields is not None:
        values["fields"] = spec.fields.join.join(scope.fields)
    clauses = _clauses(spec, page, values)
    if clauses:
        spoken = spec.filter or Filter()
        values["where"] = _joined(spoken, clauses)
        if spoken.json:
            values[WHERE_LIST] = f"[{','.join(clauses)}]"
    return values


def _window(incremental: SinceTime, site: Site, since: UtcTime | None, until: UtcTime | None) -> dict[str, str]:
    zone = zone_of(fill(incremental.time_zone, site.values))
    found: dict[str, str] = {}
    if since is not None:
        found["since"] = format_time(since, incremental.format, zone)
    if until is not None:
        found["until"] = format_time(until, incremental.format, zone, end=True)
    return found


def _increment(spec: Spec, values: Mapping[str, str]) -> SinceTime:
    """What the increment adds to this request: its own parameters and headers where there is a time to ask for."""
    match spec.incremental:
        case SinceTime() if "since" in values or "until" in values:
            return spec.incremental
        case DeltaToken(_, param, as_url, first):
            if "token" not in values:
                return SinceTime(params={} if "cursor" in values else first)  # a cursor knows what was asked for
            return SinceTime(params={param: "{token}"} if param is not None and not as_url else {})
        case _:
            return SinceTime()


def _clauses(spec: Spec, page: Ask, values: Mapping[str, str]) -> list[str]:
    """Those that have something to ask with."""
    if spec.filter is not None and spec.filter.json:
        values = {name: msgspec.json.encode(value).decode()[1:-1] for name, value in values.items()}
    asked = [clause for clause in (_increment(spec, values).clause, page.clause) if clause is not None]
    filled = [fill_or_leave(clause, values, spec.optional) for clause in asked]
    return [clause for clause in filled if clause is not None]


def _joined(spoken: Filter, clauses: Sequence[str]) -> str:
    return spoken.lead + spoken.join.join(clauses)


def _query(spec: Spec, page: Ask, values: Mapping[str, str]) -> dict[str, str]:
    params = fill_all({**spec.params, **_increment(spec, values).params}, values, spec.optional)
    params |= page.params
    clauses = _clauses(spec, page, values)
    if spec.filter is not None and spec.filter.param is not None and clauses:
        fixed = params.pop(spec.filter.param, None)
        params[spec.filter.param] = _joined(spec.filter, [*([fixed] if fixed else []), *clauses])
    return params


def body_bytes(body: Body, values: Mapping[str, str], optional: Collection[str] = ()) -> tuple[bytes, str]:
    """A body and its content type. Errors: UsageError `bad_mapping`."""
    match body:
        case JsonBody(value):
            return msgspec.json.encode(fill_json(value, values, optional)), "application/json"
        case FormBody(fields):
            form = urlencode(fill_all(fields, values, optional), quote_via=quote)
            return form.encode(), "application/x-www-form-urlencoded"
        case GraphqlBody(query, variables):
            asked = {"query": query, "variables": fill_json(variables, values, optional)}
            return msgspec.json.encode(asked), "application/json"


def record_request(site: Site, spec: Spec, record_id: str) -> Request:
    """The request that reads one record, where `spec.confirm` says how. Errors: UsageError `bad_mapping`."""
    assert spec.confirm is not None, "asked only where one record can be read"
    return one_request(site, spec, spec.confirm, {"record_id": record_id})


def one_request(
    site: Site,
    spec: Spec,
    template: Template,
    own: Mapping[str, str] | None = None,
    *,
    body: Body | None = None,
) -> Request:
    """A request that is no page of a list: one record, a description, a step of an export. With a body it is a POST.

    `own`: values that may be shown, besides those of the site. Errors: UsageError `bad_mapping`; RejectedError.
    """
    values = {**site.values, **(own or {})}
    base = site.url_of(spec.base_url)
    data, content_type = (b"", "") if body is None else body_bytes(body, values, spec.optional)
    method: Literal["GET", "POST"] = "GET" if body is None else "POST"
    return Request(
        _located(base, template, values),
        (),
        f"{method} {_shown(template, site, values)}",
        method,
        tuple(fill_all(spec.headers, values, spec.optional).items()),
        data,
        content_type,
        spec.cost,
    )


def _located(base: str, template: Template, values: Mapping[str, str]) -> str:
    """Where a path leads: below `base`, or, absolute, to its host. Values are percent-encoded, but for the address
    that a path may begin with. Errors: UsageError `bad_mapping`; RejectedError `wrong_host`."""
    address = next((name for name in names_in(template) if template.startswith(f"{{{name}}}")), None)
    known = {name: quote(value, safe="") for name, value in values.items()}
    if address is not None and "://" in values.get(address, ""):
        known[address] = values[address].rstrip("/")
    path = fill(template, known)
    return followed(base + "/", path) if "://" in path.partition("?")[0] else f"{base}/{path.strip('/')}"


def _shown(template: Template, site: Site, values: Mapping[str, str]) -> str:
    """A path as it may be shown, with credentials left out."""
    known = {name: f"{{{name}}}" if site.values.get(name) == value else value for name, value in values.items()}
    return fill(template.strip("/"), known)
