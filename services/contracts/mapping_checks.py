"""What fits its type in an integration and cannot work: templates that nothing fills, clauses that nothing sends,
pages that nothing turns, names of what is not there. Pure.

A template is checked against the names its place really has: those of the page only where the pagination brings them,
`{since}` only where the increment does.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from services.contracts import access, fields, reading
from services.contracts.hints import did_you_mean, known_here
from services.contracts.integration import PARENT_KEY, Endpoint, Integration, Parent
from services.contracts.schema import CanonicalTable

Found = tuple[str, str, str]  # at, what, remedy
_PLACEHOLDER = re.compile(r"\{([a-z][a-z0-9_]*)\}")  # as services/extractor/templates.py reads them
_ORIGIN = re.compile(r"[a-zA-Z][a-zA-Z+.-]*://[^/?#]*")
_NAMED_FORMATS = frozenset({"rfc3339_s", "rfc3339_ms", "rfc3339_us", "epoch_s", "epoch_ms", "date", "http"})
_DIRECTIVES = frozenset("aAbBcdfHIjmMpSUwWxXyYzZGuV%")  # of strftime, as Python documents them
_ACCOUNT = "account_id"  # of a partner's customer (`Customers`)


def contradictions(integration: Integration, routes_table: Callable[[str], bool]) -> list[Found]:
    """Each as (JSON path, what is wrong, what is allowed or meant); endpoints of tables not routed are left alone."""
    found = dict.fromkeys(_of_integration(integration))
    routed = {
        name: endpoint
        for name, endpoint in integration.endpoints.items()
        if endpoint.canonical is None or routes_table(endpoint.canonical.table)
    }
    for name, endpoint in routed.items():
        checked = _Checked(
            integration, endpoint, _key("$.endpoints", name), _site_names(integration), frozenset(routed)
        )
        found |= dict.fromkeys(checked.problems())  # what is wrong with a default is told once
    return list(found)


def oversights(integration: Integration, tables: Mapping[str, CanonicalTable]) -> Iterator[Found]:
    """What works and was hardly meant, for whoever writes the file: a service that runs is not stopped by it."""
    plain = msgspec.to_builtins(integration)
    used = _names_in({part: value for part, value in plain.items() if part not in ("credentials", "sources")})
    used |= {way.credential for _, way in _ways(integration) if isinstance(way, access.RefreshToken)}
    for name in integration.credentials.keys() - used:
        remedy = f"Write {{{name}}} where it belongs, or do not ask people for it."
        yield f"$.credentials.{name}", "nothing uses this credential", remedy
    for name, endpoint in integration.endpoints.items():
        table = tables.get(endpoint.canonical.table) if endpoint.canonical is not None else None
        if endpoint.canonical is None or table is None or "id" not in table.columns:
            continue
        if "id" not in endpoint.canonical.fields:
            ids = endpoint.record_id if isinstance(endpoint.record_id, str) else endpoint.record_id[-1]
            remedy = f'Such as "id": "{ids}"; other tables are joined by it.'
            yield f"{_key('$.endpoints', name)}.canonical.fields", "the column 'id' comes from nowhere", remedy


def _of_integration(integration: Integration) -> Iterator[Found]:
    site = _site_names(integration)
    yield from _authentication(integration)
    yield from _discovery(integration)
    if integration.customers is not None:
        sent = {"path": integration.customers.path, "params": integration.customers.params}
        yield from _unfilled(sent, "$.customers", site - {_ACCOUNT})
        yield from _elsewhere(integration.customers.path, integration.base_url, "$.customers.path")
    yield from _unfilled(integration.headers, "$.headers", site)
    yield from _unfilled(integration.base_url, "$.base_url", site)
    yield from _zone(integration.time_zone, "$.time_zone", site)
    yield from _limits(integration.limits)
    yield from _errors(integration.errors, "$.errors")
    yield from _custom_fields(integration.custom_fields, "$.custom_fields")


def _key(at: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{at}[{key}]"
    return f"{at}.{key}" if re.fullmatch(r"\w+", key) else f'{at}["{key}"]'


def _names_in(value: object) -> set[str]:
    """The names that the templates in a value ask for."""
    if isinstance(value, str):
        return set(_PLACEHOLDER.findall(value))
    if isinstance(value, Mapping):
        return {name for item in value.values() for name in _names_in(item)}
    if isinstance(value, list | tuple):
        return {name for item in value for name in _names_in(item)}
    return set()


def _elsewhere(path: str, base: str, at: str) -> Iterator[Found]:
    """A path that names a host to which no request of ours goes: those below `base` are asked, and no others."""
    asked, own = _ORIGIN.match(path), _ORIGIN.match(base)
    if asked is None or (own is None and "{" in asked[0]) or (own is not None and asked[0].lower() == own[0].lower()):
        return
    what = f"{asked[0]} is another host than that of `base_url`, {own[0] if own is not None else base}"
    yield at, what, "Only paths below it are asked. An endpoint may have a `base_url` of its own."


def _unfilled(value: object, at: str, known: set[str]) -> Iterator[Found]:
    """Placeholders in templates that nothing fills."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _unfilled(item, _key(at, key), known)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _unfilled(item, _key(at, index), known)
    elif isinstance(value, str):
        for word in sorted(_names_in(value) - known):
            bring = _BROUGHT_BY.get(word, f"Add {word!r} to `credentials`.")
            hint = did_you_mean(word, known) or f"{bring} {known_here(known) if known else ''}".rstrip()
            yield at, f"there is nothing to fill {{{word}}} with", hint


# Where a name would come from that no credential has.
_BROUGHT_BY = {
    "since": "`incremental` of type `time` brings it.",
    "until": "`incremental` of type `time` brings it.",
    "page": "`pagination` of type `page` brings it.",
    "offset": "`pagination` of type `offset` brings it.",
    "cursor": "`pagination` of type `cursor` brings it.",
    "after": "`pagination` of type `keyset` or `time_keyset` brings it.",
    "after_time": "`pagination` of type `time_keyset` brings it.",
    "fields": "`fields` brings it.",
    "where": "A `filter` without `param` brings it.",
    "job": "`export` brings it.",
    "account_id": "`customers` brings it.",
}


# -- who we are -------------------------------------------------------------------------------------------------------
def _ways(integration: Integration) -> list[tuple[str, access.Auth]]:
    if isinstance(integration.auth, list):
        return [(f"$.auth[{index}]", way) for index, way in enumerate(integration.auth)]
    return [("$.auth", integration.auth)]


def _site_names(integration: Integration) -> set[str]:
    """What templates of requests may ask for besides what a page or a time brings."""
    known = set(integration.credentials)
    for _, way in _ways(integration):
        if isinstance(way, access.TokenAuth):
            known |= way.answer.values.keys()
    for discovery in integration.discovery:
        known |= discovery.values.keys()
    return known | ({_ACCOUNT} if integration.customers is not None else set())


def _authentication(integration: Integration) -> Iterator[Found]:
    known = set(integration.credentials) | ({_ACCOUNT} if integration.customers is not None else set())
    for discovery in integration.discovery:
        known |= set() if discovery.authenticated else discovery.values.keys()
    for at, way in _ways(integration):
        plain = msgspec.to_builtins(way)
        headers: Any = {}
        if isinstance(way, access.TokenAuth):
            headers = plain.pop("headers")
            held = {"access_token"} | way.answer.values.keys()
            yield from _unfilled(headers, f"{at}.headers", known | held)
            if "access_token" not in _names_in(headers) and not held & _names_in(headers):
                yield (
                    f"{at}.headers",
                    "no header carries the token",
                    'Such as "Authorization": "Bearer {access_token}".',
                )
        yield from _unfilled(plain, at, known)
        yield from _way(way, at, integration)


def _way(way: access.Auth, at: str, integration: Integration) -> Iterator[Found]:
    match way:
        case access.KeyAuth(headers=headers, params=params) if not headers and not params:
            yield at, "no key is sent", "Give `headers`, `params` or both."
        case access.SessionLogin(form=form, json=json) if bool(form) == bool(json):
            yield at, "a login sends exactly one of `form` and `json`", ""
        case access.RefreshToken(credential=name) if name not in integration.credentials:
            hint = did_you_mean(name, integration.credentials) or f"Add {name!r} to `credentials`."
            yield f"{at}.credential", f"there is no credential {name!r}", hint
        case _:
            return


def _discovery(integration: Integration) -> Iterator[Found]:
    known = set(integration.credentials) | ({_ACCOUNT} if integration.customers is not None else set())
    tokens = {name for _, way in _ways(integration) if isinstance(way, access.TokenAuth) for name in way.answer.values}
    for index, discovery in enumerate(integration.discovery):
        at = f"$.discovery[{index}]"
        here = known | (tokens if discovery.authenticated else set())
        yield from _unfilled(discovery.url, f"{at}.url", here)
        yield from _unfilled(discovery.where, f"{at}.where", here)
        if discovery.where and discovery.records is None:
            yield f"{at}.where", "there is no list to pick from", "Say with `records` where the list lies."
        for name in discovery.values:
            if name in integration.credentials:
                yield f"{at}.values.{name}", f"{name!r} is a credential already", "Choose another name."
        known |= discovery.values.keys()


# -- limits and errors ------------------------------------------------------------------------------------------------
def _limits(limits: access.Limits) -> Iterator[Found]:
    for index, headers in enumerate(limits.headers):
        at = f"$.limits.headers[{index}]"
        if headers.remaining is None and headers.limit is None and headers.reset is None:
            yield at, "no header is named", "Name one of `remaining`, `limit`, `reset`."
        if headers.pattern is None:
            continue
        try:
            groups = set(re.compile(headers.pattern).groupindex)
        except re.error as err:
            yield f"{at}.pattern", f"this is no regular expression: {err}", ""
            continue
        unknown = groups - {"used", "remaining", "limit"}
        if unknown or not groups & {"used", "remaining"}:
            yield f"{at}.pattern", "it needs the group `used` or `remaining`", "Such as (?P<used>\\d+)/(?P<limit>\\d+)."


def _errors(rules: list[access.ErrorRule], at: str) -> Iterator[Found]:
    for index, rule in enumerate(rules):
        here = f"{at}[{index}]"
        if not rule.status and rule.path is None:
            yield here, "this rule would fit every answer", "Give `status`, `path` or both."
        if rule.path is None and (rule.equals or rule.contains is not None):
            yield here, "`equals` and `contains` need a `path` to look at", ""
        for position, status in enumerate(rule.status):
            if not 100 <= status <= 599:
                yield f"{here}.status[{position}]", f"{status} is no HTTP status", "They go from 100 to 599."


def _custom_fields(custom: fields.CustomFields | None, at: str) -> Iterator[Found]:
    if isinstance(custom, fields.KeyPattern) and not custom.prefix and not custom.suffix:
        yield at, "every field would be a custom one", "Give `prefix`, `suffix` or both."


# -- times ------------------------------------------------------------------------------------------------------------
def _zone(name: str, at: str, known: set[str]) -> Iterator[Found]:
    if _names_in(name):
        yield from _unfilled(name, at, known)
        return
    try:
        ZoneInfo(name)
    except (KeyError, OSError, ValueError):  # not found, a folder, not a name at all
        yield at, f"{name!r} is no time zone", did_you_mean(name, available_timezones()) or "Such as America/New_York."


def _time_format(text: str | None, at: str) -> Iterator[Found]:
    if text is None or text in _NAMED_FORMATS:
        return
    for letter in re.findall(r"%(.?)", text):
        if letter not in _DIRECTIVES or not letter:
            known = known_here(sorted(f"%{each}" for each in _DIRECTIVES))
            yield at, f"%{letter} is no directive of strftime", known


# -- one endpoint -----------------------------------------------------------------------------------------------------
class _Checked(msgspec.Struct, frozen=True):
    """One endpoint with the integration's defaults. `site` are the names that all its templates may ask for, `routed`
    the endpoints of which all is known."""

    integration: Integration
    endpoint: Endpoint
    at: str
    site: set[str]
    routed: frozenset[str]

    @property
    def pages(self) -> reading.Pagination:
        return self.endpoint.pagination or self.integration.pagination

    @property
    def since(self) -> reading.Incremental:
        return self.endpoint.incremental or self.integration.incremental

    @property
    def sent(self) -> dict[str, Any]:
        """The templates of the endpoint itself."""
        body = self.endpoint.body
        plain = msgspec.to_builtins(body) if body is not None else {}
        plain.pop("query", None)  # GraphQL's own braces are no placeholders
        return {
            "path": self.endpoint.path,
            "params": {**self.integration.params, **self.endpoint.params},
            "headers": self.endpoint.headers,
            "body": plain,
        }

    def problems(self) -> Iterator[Found]:
        endpoint, at = self.endpoint, self.at
        own = self.site | _parent_names(endpoint.parent)
        yield from self._parent()
        for where, path in self._record_paths():
            yield from _of_parent(path, endpoint.parent, where)
        brought = _brought(self.pages) | _brought_by_time(self.since, self.pages)
        brought |= {"fields"} if endpoint.fields is not None else set()
        held = self.integration.filter
        brought |= {"where"} if held is not None and held.param is None else set()
        brought |= {"job"} if endpoint.export is not None else set()
        yield from _unfilled(self.sent, at, own | brought)
        for part, path in self._paths():
            yield from _elsewhere(path, endpoint.base_url or self.integration.base_url, part)
        if endpoint.base_url is not None:
            yield from _unfilled(endpoint.base_url, f"{at}.base_url", self.site)
        yield from self._increment(own)
        yield from _turning(self.pages, self._whose("pagination"), self.sent, own, self.integration.filter is not None)
        yield from self._filter()
        yield from self._deletes(own, brought)
        yield from self._shape()
        if endpoint.export is not None:
            yield from self._export(endpoint.export, own)
        if endpoint.fields is not None:
            yield from self._field_list(endpoint.fields)
        for index, stone in enumerate(endpoint.tombstones):
            yield from self._known_endpoint(stone.endpoint, f"{at}.tombstones[{index}].endpoint")
        yield from _errors(endpoint.errors, f"{at}.errors")
        yield from _custom_fields(endpoint.custom_fields, f"{at}.custom_fields")
        if endpoint.canonical is not None:
            yield from _zone(endpoint.canonical.time_zone, f"{at}.canonical.time_zone", set())

    def _paths(self) -> Iterator[tuple[str, str]]:
        """(where it stands, path) of every call below `base_url`."""
        endpoint, deletes = self.endpoint, self.endpoint.deletes or self.integration.deletes
        yield f"{self.at}.path", endpoint.path
        others: list[tuple[str, str | None]] = []
        if isinstance(deletes, reading.Sweep):
            others += [(f"{self._whose('deletes')}.{part}", getattr(deletes, part)) for part in ("path", "confirm")]
        if isinstance(self.since, reading.DeltaToken):
            others.append((f"{self._whose('incremental')}.first_path", self.since.first_path))
        if endpoint.export is not None:
            others += [(f"{self.at}.export.{part}", getattr(endpoint.export, part)) for part in ("create", "poll")]
        if endpoint.fields is not None:
            others.append((f"{self.at}.fields.describe", endpoint.fields.describe))
        yield from ((at, path) for at, path in others if path is not None)

    def _whose(self, part: str) -> str:
        """Where a part stands that an endpoint may leave to the integration."""
        return f"{self.at if getattr(self.endpoint, part) is not None else '$'}.{part}"

    def _known_endpoint(self, name: str, at: str) -> Iterator[Found]:
        if name not in self.integration.endpoints:
            hint = did_you_mean(name, self.integration.endpoints) or known_here(self.integration.endpoints)
            yield at, f"there is no endpoint {name!r}", hint

    def _parent(self) -> Iterator[Found]:
        parent, at = self.endpoint.parent, f"{self.at}.parent"
        if parent is None:
            return
        yield from self._known_endpoint(parent.endpoint, f"{at}.endpoint")
        for name in sorted(_parent_names(parent) & self.site):
            yield at, f"{name!r} has a value already", "Choose another name."
        if self._in_a_ring():
            yield f"{at}.endpoint", "it lies below itself", "A parent's parents must end somewhere."
        if parent.endpoint in self.routed:
            above = self.integration.endpoints[parent.endpoint]
            ids = [above.record_id] if isinstance(above.record_id, str) else above.record_id
            if parent.path not in ids:
                there = f"{parent.endpoint!r} has {', '.join(ids)}. Other values go into `values`."
                yield f"{at}.path", f"{parent.path!r} is no part of the parent's record id", there
            for name, path in parent.values.items():
                yield from _of_parent(path, above.parent, f"{at}.values.{name}")
        yield from self._included(parent, at)

    def _included(self, parent: Parent, at: str) -> Iterator[Found]:
        given = _parent_names(parent)
        for index, name in enumerate(parent.include):
            if name not in given:
                remedy = did_you_mean(name, given) or f"Give its path in `values`. {known_here(given)}"
                yield f"{at}.include[{index}]", f"the parent gives no {name!r}", remedy
            elif name in parent.include[:index]:
                yield f"{at}.include[{index}]", f"{name!r} stands here more than once", ""

    def _record_paths(self) -> Iterator[tuple[str, str]]:
        """(where it stands, path in a record): every place of a record that the endpoint names."""
        endpoint, at = self.endpoint, self.at
        if isinstance(endpoint.record_id, str):
            yield f"{at}.record_id", endpoint.record_id
        else:
            yield from ((f"{at}.record_id[{index}]", path) for index, path in enumerate(endpoint.record_id))
        if endpoint.updated_at is not None:
            yield f"{at}.updated_at", endpoint.updated_at
        if endpoint.deleted_when is not None:
            yield f"{at}.deleted_when.path", endpoint.deleted_when.path
        yield from ((f"{at}.drop[{index}]", path) for index, path in enumerate(endpoint.drop))
        for index, stone in enumerate(endpoint.tombstones):
            here = f"{at}.tombstones[{index}]"
            yield f"{here}.record_id", stone.record_id
            if stone.at is not None:
                yield f"{here}.at", stone.at
            if stone.when is not None:
                yield f"{here}.when.path", stone.when.path
        for part in ("key", "time", "id", "last"):
            path = getattr(self.pages, part, None)
            if path is not None:
                yield f"{self._whose('pagination')}.{part}", path
        columns = endpoint.canonical.fields if endpoint.canonical is not None else {}
        for column, field in columns.items():
            yield from ((f"{at}.canonical.fields.{column}", path) for path, _ in fields.paths_of(field))

    def _in_a_ring(self) -> bool:
        above: Endpoint | None = self.endpoint
        for _ in self.integration.endpoints:
            parent = above.parent if above is not None else None
            above = self.integration.endpoints.get(parent.endpoint) if parent is not None else None
            if above is self.endpoint:
                return True
        return False

    # -- what changed --
    def _increment(self, own: set[str]) -> Iterator[Found]:
        at = self._whose("incremental")
        if isinstance(self.pages, reading.TimeWindow) and not isinstance(self.since, reading.SinceTime):
            remedy = "Give `incremental` of type `time`."
            yield self._whose("pagination"), "windows of time need a time to ask for", remedy
        match self.since:
            case reading.SinceTime() as since:
                yield from self._since_time(since, at, own)
            case reading.SinceId() if not isinstance(self.pages, reading.Keyset):
                yield at, "`incremental` of type `id` asks by the keyset", "Give `pagination` of type `keyset`."
            case reading.DeltaToken() as delta:
                first = {"first": delta.first, "first_path": delta.first_path or ""}
                yield from _unfilled(first, at, own | _brought(self.pages) | {"fields"})
                if delta.param is None and not delta.as_url and "token" not in _names_in(self.sent):
                    yield at, "the token is sent nowhere", "Give `param`, `as_url`, or {token} in a template."
            case _:
                return

    def _since_time(self, since: reading.SinceTime, at: str, own: set[str]) -> Iterator[Found]:
        known = own | _brought_by_time(since, self.pages)
        if since.clause is not None:
            yield from _must_hold(since.clause, f"{at}.clause", "since")
            yield from _unfilled(since.clause, f"{at}.clause", known)
            yield from self._needs_filter(f"{at}.clause")
        yield from _unfilled(since.params, f"{at}.params", known | _brought(self.pages))
        yield from _unfilled(since.headers, f"{at}.headers", known | _brought(self.pages))
        yield from _time_format(since.format, f"{at}.format")
        yield from _zone(since.time_zone, f"{at}.time_zone", self.site)
        asked = _names_in([since.clause or "", since.params, since.headers]) | _names_in(self.sent)
        if since.newest_first:
            if self.endpoint.updated_at is None and self.integration.updated_at is None:
                yield f"{at}.newest_first", "records must tell when they changed", "Give `updated_at`."
        elif "since" not in asked and since.clause is None:
            where = f"{at}.params" if since.params else at
            yield where, "{since} is missing", "Write {since} where the value belongs: `clause`, `params` or `headers`."
        if isinstance(self.pages, reading.TimeWindow) and "until" not in asked:
            yield at, "{until} is missing", "A time window has an end: write {until} where it belongs."

    def _needs_filter(self, at: str) -> Iterator[Found]:
        if self.integration.filter is None:
            yield at, "a clause needs a filter to stand in", "Add `filter` with the name of its parameter."

    def _filter(self) -> Iterator[Found]:
        held = self.integration.filter
        clauses = any(getattr(part, "clause", None) is not None for part in (self.pages, self.since))
        if held is not None and held.param is None and clauses and "where" not in _names_in(self.sent):
            what = "there are clauses and no {where} they could stand in"
            yield self.at, what, "Name `$.filter.param`, or write {where} into `params` or `body`."

    # -- what was deleted --
    def _deletes(self, own: set[str], brought: set[str]) -> Iterator[Found]:
        at, deletes = self._whose("deletes"), self.endpoint.deletes or self.integration.deletes
        if not isinstance(deletes, reading.Sweep):
            return
        if deletes.confirm is not None:
            yield from _must_hold(deletes.confirm, f"{at}.confirm", "record_id")
            # A record that is looked for does not tell its parent.
            yield from _unfilled(deletes.confirm, f"{at}.confirm", self.site | {"record_id"})
        parent = _parent_names(self.endpoint.parent)
        if deletes.path is not None and not _names_in(deletes.path) & parent and self._known_by_parent():
            what = "a list that is not read below each parent cannot tell the record ids"
            yield f"{at}.path", what, f"They hold what records take along of their parent. {known_here(parent)}"
        pages = _brought(deletes.pagination) if deletes.pagination is not None else brought
        yield from _unfilled({"path": deletes.path or "", "params": deletes.params}, at, own | brought | pages)
        if deletes.pagination is not None:
            sent = self.sent | {"sweep": [deletes.path or "", deletes.params]}
            has_filter = self.integration.filter is not None
            yield from _turning(deletes.pagination, f"{at}.pagination", sent, own, has_filter)

    def _known_by_parent(self) -> bool:
        ids = self.endpoint.record_id
        return any(path.partition(".")[0] == PARENT_KEY for path in ([ids] if isinstance(ids, str) else ids))

    # -- what is asked and answered --
    def _shape(self) -> Iterator[Found]:
        endpoint, at = self.endpoint, self.at
        if endpoint.body is not None and endpoint.method == "GET" and endpoint.export is None:
            yield f"{at}.method", "a GET has no body", 'Write "method": "POST".'
        if endpoint.format == "json":
            return
        if endpoint.records:
            yield f"{at}.records", f"{endpoint.format} has records only, and no path to them", "Leave it out."
        reads = {"path", "more", "end", "pages", "total"}
        pages = self.pages.inner if isinstance(self.pages, reading.TimeWindow) else self.pages
        for part in sorted(name for name in reads if getattr(pages, name, None) is not None):
            what = f"{endpoint.format} has nothing but records, and no {part!r} beside them"
            yield f"{self._whose('pagination')}.{part}", what, "Headers, pages and keys are at hand."

    def _export(self, export: reading.Export, own: set[str]) -> Iterator[Found]:
        at = f"{self.at}.export"
        made = own | _brought_by_time(self.since, self.pages) | {"fields", "where"}
        yield from _unfilled(export.create, f"{at}.create", own)
        sent = msgspec.to_builtins(export.body)
        sent.pop("query", None)
        yield from _unfilled(sent, f"{at}.body", made)
        yield from _unfilled(export.poll, f"{at}.poll", own | {"job"})
        if "job" not in _names_in(self.sent | {"poll": export.poll}):
            yield f"{at}.poll", "{job} is missing", "Write {job} where the job's id belongs."
        if set(export.done) & set(export.failed):
            yield f"{at}.failed", "a status is either done or failed", ""

    def _field_list(self, listed: reading.FieldList) -> Iterator[Found]:
        at = f"{self.at}.fields"
        if listed.describe is not None:
            yield from _unfilled(listed.describe, f"{at}.describe", self.site)
        elif not listed.names:
            yield at, "no field is named", "Give `names`, `describe` or both."
        export = self.endpoint.export
        sent = [self.sent, msgspec.to_builtins(export.body) if export is not None else {}]
        if "fields" not in _names_in(sent):
            yield at, "{fields} is missing", "Write {fields} into `params` or `body`, where the names belong."


def _of_parent(path: str, parent: Parent | None, at: str) -> Iterator[Found]:
    """A path of what records take along of their parent, and they do not."""
    key, _, name = path.partition(".")
    if key != PARENT_KEY:
        return
    if parent is None:
        yield at, f"{path!r} is a value of the parent's record, and the endpoint has no `parent`", ""
    elif name not in parent.include and (name or not parent.include):
        remedy = (
            did_you_mean(name, parent.include) or f"Name it in `parent.include`. {known_here(_parent_names(parent))}"
        )
        yield at, f"records take no {name!r} of their parent along", remedy


def _parent_names(parent: Parent | None) -> set[str]:
    return {parent.name, *parent.values} if parent is not None else set()


_BROUGHT: dict[type, set[str]] = {
    reading.OnePage: set(),
    reading.PageNumber: {"page", "size"},
    reading.Offset: {"offset", "size"},
    reading.Cursor: {"cursor", "size"},
    reading.NextUrl: {"size"},
    reading.LinkHeader: {"size"},
    reading.Keyset: {"after", "size"},
    reading.TimeKeyset: {"after", "after_time", "size"},
}


def _brought(pages: reading.Pagination) -> set[str]:
    """The names that pages bring."""
    return _BROUGHT[type(pages.inner if isinstance(pages, reading.TimeWindow) else pages)]


def _brought_by_time(since: reading.Incremental, pages: reading.Pagination) -> set[str]:
    if isinstance(since, reading.SinceTime) or isinstance(pages, reading.TimeWindow):
        return {"since", "until"}
    return {"token"} if isinstance(since, reading.DeltaToken) else set()


def _must_hold(template: str, at: str, word: str) -> Iterator[Found]:
    if word not in _names_in(template):
        yield at, f"{{{word}}} is missing", f"Write {{{word}}} where the value belongs."


def _page_clause(pages: reading.Pagination, at: str, own: set[str], has_filter: bool) -> Iterator[Found]:
    if not isinstance(pages, reading.Keyset | reading.TimeKeyset) or pages.clause is None:
        return
    words = {"after", "after_time"} if isinstance(pages, reading.TimeKeyset) else {"after"}
    for word in sorted(words):
        yield from _must_hold(pages.clause, at, word)
    yield from _unfilled(pages.clause, at, own | words)
    if not has_filter:
        yield at, "a clause needs a filter to stand in", "Add `filter` with the name of its parameter."


def _turning(
    pages: reading.Pagination, at: str, sent: Mapping[str, Any], own: set[str], has_filter: bool
) -> Iterator[Found]:
    """Whether the next page is really asked for."""
    yield from _page_clause(pages, f"{at}.clause", own, has_filter)
    match pages:
        case reading.PageNumber(param=None) if "page" not in _names_in(sent):
            yield at, "the page number is sent nowhere", "Give `param`, or write {page} into a template."
        case reading.Offset(param=None) if "offset" not in _names_in(sent):
            yield at, "the offset is sent nowhere", "Give `param`, or write {offset} into a template."
        case reading.Cursor(path=path, header=header, last=last, param=param):
            if len([each for each in (path, header, last) if each is not None]) != 1:
                yield at, "a cursor comes from exactly one place", "Give one of `path`, `header`, `last`."
            if param is None and "cursor" not in _names_in(sent):
                yield at, "the cursor is sent nowhere", "Give `param`, or write {cursor} into a template."
        case reading.Keyset(clause=None, param=None) if "after" not in _names_in(sent):
            yield at, "the last key is sent nowhere", "Give `clause` or `param`, or write {after} into a template."
        case reading.TimeKeyset(format=text):
            yield from _time_format(text, f"{at}.format")
        case reading.Offset(overlap=overlap, size=size) if overlap >= size:
            yield f"{at}.overlap", "it overlaps by a whole page", f"It must be smaller than {size}, the size."
        case reading.TimeWindow(inner=inner, start=start, longest_s=longest, shortest_s=shortest):
            yield from _window(start, longest, shortest, at)
            yield from _turning(inner, f"{at}.inner", sent, own, has_filter)
        case _:
            return


def _window(start: str, longest_s: float, shortest_s: float, at: str) -> Iterator[Found]:
    try:
        date.fromisoformat(start)
    except ValueError:
        yield f"{at}.start", f"{start!r} is no date", "Such as 2015-01-01."
    if shortest_s > longest_s:
        yield f"{at}.shortest_s", "the shortest window is longer than the longest", ""
