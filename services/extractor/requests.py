"""From an endpoint and a place in its pages to the request that reads it. Pure; who we are is added by `auth.py`."""

from collections.abc import Mapping
from urllib.parse import quote, urlencode, urljoin, urlsplit

import msgspec

from services.contracts.errors import RejectedError, UsageError
from services.contracts.integration import TimeFormat
from services.contracts.times import UtcTime, moment
from services.extractor.pagination import Ask
from services.extractor.plan import Spec
from services.extractor.templates import fill, names_in
from services.runtime.settings import is_loopback


class Request(msgspec.Struct, frozen=True):
    """One GET. `source` says which request and page it is, for an event and for a person; it holds no credential."""

    url: str
    query: tuple[tuple[str, str], ...] = ()
    source: str = ""

    @property
    def address(self) -> str:
        """The URL with its query, percent-encoded."""
        return f"{self.url}?{urlencode(self.query, quote_via=quote)}" if self.query else self.url


def base_url(template: str, values: Mapping[str, str]) -> str:
    """Where an API begins, without a slash at the end.

    Shape:  a site may come without scheme (https) and may end with what the template adds, or with its beginning:
            nothing is added twice.
    Errors: UsageError; plain http is for this machine only.
    """
    name = next((name for name in names_in(template) if template.startswith(f"{{{name}}}")), None)
    if name is None:
        return _checked(fill(template, values).rstrip("/"))
    root = fill(template.removeprefix(f"{{{name}}}"), values)
    site = fill(f"{{{name}}}", values).strip()
    site = _checked(site.rstrip("/") if "://" in site else f"https://{site.rstrip('/')}")
    place, ours = [part for part in urlsplit(site).path.split("/") if part], [part for part in root.split("/") if part]
    shared = next((n for n in range(min(len(place), len(ours)), 0, -1) if place[-n:] == ours[:n]), 0)
    return "/".join([_origin(site), *place, *ours[shared:]])


def _checked(url: str) -> str:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port  # a bad port raises here
    except ValueError:
        host = None
    if not host or parts.scheme not in ("http", "https") or any(c.isspace() for c in url):
        raise UsageError(f"{_shown(url)} is not the address of an API", remedy="Write it as https://host.")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise UsageError(
            f"the address at {host} holds more than a host and a path",
            remedy="Leave out what stands before '@' and from '?' or '#' on; credentials have fields of their own.",
        )
    if parts.scheme == "http" and not is_loopback(url):
        raise UsageError(
            f"{_shown(url)} would send credentials in the clear",
            remedy="Write https://; http is for this computer.",
        )
    return url


def _shown(url: str) -> str:
    return repr(url.rpartition("@")[2][:80])


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def followed(asked: str, location: str) -> str:
    """Where a redirect or a next page leads, if that is the same host by the same means.

    Errors: RejectedError `wrong_host`.
    """
    there = urljoin(asked, location)
    here, target = urlsplit(asked), urlsplit(there)
    try:
        same = (here.scheme, here.hostname, here.port) == (target.scheme, target.hostname, target.port)
    except ValueError:
        same = False
    if not same or target.username is not None:
        raise RejectedError(f"{here.hostname} sends us to another host, which is not followed", code="wrong_host")
    return there


def list_request(
    base: str,
    values: Mapping[str, str],
    spec: Spec,
    page: Ask,
    *,
    since: UtcTime | None = None,
    parent: str | None = None,
    sweep: bool = False,
) -> Request:
    """The request for one page of a list: of everything, of what changed `since`, or of ids alone.

    Errors: UsageError `bad_mapping`.
    """
    params = {name: fill(template, values) for name, template in spec.endpoint.params.items()}
    clauses: list[str] = []
    incremental = spec.incremental if since is not None else None
    if incremental is not None and since is not None:
        told = {**values, "since": format_time(since, incremental.format)}
        params |= {name: fill(template, told) for name, template in incremental.params.items()}
        if incremental.clause is not None:
            clauses.append(fill(incremental.clause, told))
    params |= page.params
    if sweep and spec.sweep is not None:
        params |= spec.sweep.params
    if page.clause is not None:
        clauses.append(page.clause)
    if clauses:
        if spec.filter is None:
            raise UsageError(f"endpoint {spec.name!r} has a clause and no filter to put it in", code="bad_mapping")
        fixed = params.pop(spec.filter.param, None)
        params[spec.filter.param] = spec.filter.join.join([*([fixed] if fixed else []), *clauses])
    path, shown = _path(spec.endpoint.path, values, _parent_value(spec, parent))
    return Request(f"{base}/{path}", tuple(params.items()), f"GET {shown} {page.label}".rstrip())


def record_request(base: str, values: Mapping[str, str], template: str, record_id: str) -> Request:
    """The request that reads one record. Errors: UsageError `bad_mapping`."""
    path, shown = _path(template, values, {"record_id": record_id})
    return Request(f"{base}/{path}", (), f"GET {shown}")


def _parent_value(spec: Spec, parent: str | None) -> dict[str, str]:
    return {} if spec.parent is None or parent is None else {spec.parent.name: parent}


def _path(template: str, values: Mapping[str, str], own: Mapping[str, str]) -> tuple[str, str]:
    """A path filled and percent-encoded; and as it may be shown, with credentials left out."""
    known = {name: quote(value, safe="") for name, value in {**values, **own}.items()}
    hidden = {name: f"{{{name}}}" for name in values if name not in own}
    path = template.strip("/")
    return fill(path, known), fill(path, {**hidden, **own})


def format_time(time: UtcTime, spelling: TimeFormat) -> str:
    """A mark as the vendor reads it, cut to the spelling's precision: earlier is safe, later is not."""
    match spelling:
        case "rfc3339_s":
            return time[:19] + "Z"
        case "rfc3339_ms":
            return time[:23] + "Z"
        case "epoch_s":
            return str(int(moment(time).timestamp() // 1))
        case "epoch_ms":
            return str(int(moment(time).timestamp() // 1) * 1000 + int(time[20:23]))
        case "date":
            return time[:10]
