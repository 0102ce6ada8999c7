"""Whether an integration says what the vendor's own description says: fact by fact. Pure.

A fact has a name, by which the integration may explain why it differs (`Described.differs`; `field.address*` is every
fact that begins so):

    path, confirm, sweep, export.create, export.poll    a call, with its method
    query.NAME  query.NAME=VALUE  header.NAME  body.NAME    what is sent with it
    page_size                   no larger than the vendor allows
    records                     a list stands there
    record_id (record_id.PATH of a composite one)  updated_at  schema
    field.PATH  custom_fields.PATH  drop.PATH  deleted_when.PATH  tombstone.PATH  parent.PATH  fields.NAME
    page.PATH  delta.PATH  delta.first_path    what pages and increments need of an answer, or of the last record

What records take along of their parent (`_parent.NAME`) is ours: described nowhere.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from services.contracts import fields, reading
from services.contracts.hints import did_you_mean
from services.contracts.integration import PARENT_KEY, Endpoint, Integration
from services.contracts.openapi import Description, Found, Operation, Parameter, Place, Verdict
from services.contracts.schema import CanonicalTable, ColumnType

Judgement = Verdict | Literal["explained", "needless"]
_SCALARS = frozenset({"string", "integer", "number", "boolean"})
# The JSON types that a column's value can be made of: services/transformer/values.py.
HELD: Mapping[ColumnType, frozenset[str]] = {
    "string": _SCALARS,
    "int64": frozenset({"integer", "number", "string"}),
    "float64": frozenset({"integer", "number", "string"}),
    "decimal": frozenset({"integer", "number", "string"}),
    "bool": frozenset({"boolean", "integer", "string"}),
    "timestamp": frozenset({"string"}),
    "date": frozenset({"string"}),
    "json": _SCALARS | {"array", "object"},
}
_SHOWN_MAX = 12  # parameters that a person is shown where one is not known
_ASKS = re.compile(r"\{[a-z][a-z0-9_]*\}")


class Fact(msgspec.Struct, frozen=True):
    """One thing the integration says of an endpoint, and what the description has to say about it.

    `explained`: contradicted, and the file says why. `needless`: the file explains what nobody contradicts, or with it
    what is confirmed.
    """

    endpoint: str
    fact: str
    verdict: Judgement
    says: str = ""


class Tally(msgspec.Struct, frozen=True):
    """Facts by verdict."""

    confirmed: int = 0
    contradicted: int = 0
    explained: int = 0
    not_described: int = 0
    needless: int = 0

    @property
    def share(self) -> float:
        """The part of what is described that is confirmed, 0 to 1."""
        described = self.confirmed + self.contradicted + self.explained
        return self.confirmed / described if described else 1.0


def tally(facts: Iterable[Fact]) -> Tally:
    """How many facts there are of each verdict."""
    counts = Counter(fact.verdict.replace(" ", "_") for fact in facts)
    return Tally(**counts)


def conform(
    integration: Integration, description: Description, tables: Mapping[str, CanonicalTable] | None = None
) -> list[Fact]:
    """Every fact of every endpoint. With `tables` a column that cannot hold a list or an object is noticed too."""
    judged = []
    for name, endpoint in integration.endpoints.items():
        look = _Look(integration, endpoint, description, tables or {})
        facts: dict[str, Found] = {}
        for fact, found in look.facts():
            known = facts.setdefault(fact, found)
            if found.verdict == "contradicted" and known.verdict != "contradicted":
                facts[fact] = found
        judged += [_explained(name, endpoint, fact, found) for fact, found in facts.items()]
        judged += _needless(name, endpoint, facts)
    return judged


def _explained(name: str, endpoint: Endpoint, fact: str, found: Found) -> Fact:
    why = next((why for key, why in endpoint.described.differs.items() if _covers(key, fact)), None)
    if why is not None and found.verdict == "contradicted":
        return Fact(name, fact, "explained", why)
    return Fact(name, fact, found.verdict, found.says)


def _needless(name: str, endpoint: Endpoint, facts: Mapping[str, Found]) -> Iterator[Fact]:
    """Explanations of nothing; and those of so much that they would hide the next mistake."""
    for key in endpoint.described.differs:
        verdicts = {found.verdict for fact, found in facts.items() if _covers(key, fact)}
        if not verdicts - {"confirmed"}:
            yield Fact(name, key, "needless", "`differs` explains what nobody contradicts")
        elif "confirmed" in verdicts:
            yield Fact(name, key, "needless", "`differs` covers what is confirmed as well: name what is not")


def _covers(key: str, fact: str) -> bool:
    return fact.startswith(key[:-1]) if key.endswith("*") else fact == key


Facts = Iterator[tuple[str, Found]]
_SILENT = Found("not described")
_OURS = Found("not described", "a value of the parent's record (`parent.include`)")


class _Look(msgspec.Struct, frozen=True):
    """One endpoint beside the description."""

    integration: Integration
    endpoint: Endpoint
    description: Description
    tables: Mapping[str, CanonicalTable]

    # -- what holds for it, the integration's defaults applied --
    @property
    def pages(self) -> reading.Pagination:
        return self.endpoint.pagination or self.integration.pagination

    @property
    def since(self) -> reading.Incremental:
        return self.endpoint.incremental or self.integration.incremental

    @property
    def deletes(self) -> reading.Deletes:
        return self.endpoint.deletes or self.integration.deletes

    def facts(self) -> Facts:
        operation = None
        path = self.endpoint.described.path or self._path(self.endpoint.path)
        yield "path", self._called(path, self.endpoint.path, self.endpoint.method)
        if path is not None:
            operation = self._operation(path, self.endpoint.method)
        yield from self._other_calls()
        yield from self._sent(operation)
        yield from self._answered(operation)

    # -- calls --
    def _path(self, path: str) -> str | None:
        base = self.endpoint.base_url or self.integration.base_url
        return self.description.path_like(path if "://" in path else f"{base}/{path}", path)

    def _operation(self, path: str, method: str) -> Operation | None:
        try:
            return self.description.operation(path, method)
        except KeyError:  # `described.path` names one that is not there
            return None

    def _called(self, described: str | None, path: str, method: str) -> Found:
        if described is None:
            return Found("not described", f"{method} {path}. {self.description.nearest(path)}".rstrip())
        try:
            methods = self.description.methods(described)
        except KeyError:
            return Found(
                "contradicted", f"there is no path {described!r}. {self.description.nearest(described)}".rstrip()
            )
        if method in methods:
            return Found("confirmed", f"{method} {described}")
        return Found("contradicted", f"{described} takes {', '.join(methods)}, not {method}")

    def _other_calls(self) -> Facts:
        calls: list[tuple[str, str | None, str]] = []
        if isinstance(self.deletes, reading.Sweep):
            calls += [("confirm", self.deletes.confirm, "GET"), ("sweep", self.deletes.path, self.endpoint.method)]
        if self.endpoint.export is not None:
            calls += [
                ("export.create", self.endpoint.export.create, "POST"),
                ("export.poll", self.endpoint.export.poll, "GET"),
            ]
        if isinstance(self.since, reading.DeltaToken):
            calls.append(("delta.first_path", self.since.first_path, self.endpoint.method))
        for fact, path, method in calls:
            if path is not None:
                yield fact, self._called(self._path(path), path, method)

    # -- what is sent --
    def _sent(self, operation: Operation | None) -> Facts:
        for name, value in self._query():
            yield from _parameter_facts(operation, "query", name, value)
        for name in [
            *self.endpoint.headers,
            *(self.since.headers if isinstance(self.since, reading.SinceTime) else ()),
        ]:
            yield from _parameter_facts(operation, "header", name, None)
        for name in _body_names(self.endpoint.body):
            yield f"body.{name}", operation.body.at(name) if operation is not None else _SILENT
        yield from self._page_size(operation)

    def _query(self) -> Iterator[tuple[str, str | None]]:
        """Names of query parameters, and their value where it is always the same."""
        yield from {**self.integration.params, **self.endpoint.params}.items()
        yield from (pair.partition("=")[::2] for pair in self.endpoint.path.partition("?")[2].split("&") if pair)
        pages, since = self.pages, self.since
        for one in (pages, pages.inner) if isinstance(pages, reading.TimeWindow) else (pages,):
            yield from _page_parameters(one)
        clauses = [getattr(pages, "clause", None), getattr(since, "clause", None)]
        if self.integration.filter is not None and self.integration.filter.param is not None and any(clauses):
            yield self.integration.filter.param, None
        if isinstance(since, reading.SinceTime):
            yield from since.params.items()
        elif isinstance(since, reading.DeltaToken):
            yield from ((since.param, None), *since.first.items()) if since.param else since.first.items()
        if isinstance(self.deletes, reading.Sweep) and self.deletes.path is None:
            yield from self.deletes.params.items()

    def _page_size(self, operation: Operation | None) -> Facts:
        pages = self.pages.inner if isinstance(self.pages, reading.TimeWindow) else self.pages
        size = getattr(pages, "size", None)
        if size is None or operation is None:
            return
        name = getattr(pages, "size_param", None)
        taken = operation.parameters.get(("query", name)) if name is not None else None
        for asked in _body_names(self.endpoint.body, "{size}"):
            taken = taken or _parameter_at(operation.body, asked)
        for asked, value in {**self.integration.params, **self.endpoint.params}.items():
            taken = operation.parameters.get(("query", asked)) if value == "{size}" else taken
        if taken is None:
            return
        if taken.most is None:
            yield "page_size", _SILENT
        elif size <= taken.most:
            yield "page_size", Found("confirmed", f"{size} of at most {taken.most:g}")
        else:
            yield "page_size", Found("contradicted", f"{taken.name} is at most {taken.most:g}, not {size}")

    # -- what comes back --
    def _answered(self, operation: Operation | None) -> Facts:
        answer = operation.answer if operation is not None else None
        yield from self._envelope(operation)
        record = self._named_schema()
        if record.verdict == "contradicted":
            yield "schema", record
        if answer is not None:
            listed = answer.at(self.endpoint.records)
            item = listed.place.items() if listed.place is not None else listed
            yield "records", Found(item.verdict, item.says)
            if self.endpoint.described.schema is None:
                record = item
        for fact, path, column, kind in self._record_paths():
            yield fact, _held(_field(record.place, path), column, kind)
        yield from self._custom_fields(record.place)
        yield from self._parents()

    def _named_schema(self) -> Found:
        name = self.endpoint.described.schema
        if name is None:
            return _SILENT
        place = self.description.schema(name)
        if place is None:
            hint = self.description.schema_named_like(name)
            return Found("contradicted", f"there is no schema {name!r}. {hint}".rstrip())
        return Found("confirmed", place=place)

    def _envelope(self, operation: Operation | None) -> Facts:
        pages = self.pages.inner if isinstance(self.pages, reading.TimeWindow) else self.pages
        for path in filter(None, (getattr(pages, part, None) for part in ("path", "more", "end", "pages", "total"))):
            yield f"page.{path}", operation.answer.at(path) if operation is not None else _SILENT
        if isinstance(self.since, reading.DeltaToken):
            found = operation.answer.at(self.since.path) if operation is not None else _SILENT
            yield f"delta.{self.since.path}", found
        header = "Link" if isinstance(pages, reading.LinkHeader) else getattr(pages, "header", None)
        if header is not None:
            told = operation is not None and header.lower() in operation.headers
            yield f"page.header.{header}", Found("confirmed") if told else _SILENT

    def _record_paths(self) -> Iterator[tuple[str, str, str, ColumnType]]:
        """(fact, path in a record, what holds it, and of which type)."""
        endpoint = self.endpoint
        if isinstance(endpoint.record_id, str):
            yield "record_id", endpoint.record_id, "a record id", "string"
        else:
            yield from ((f"record_id.{path}", path, "a record id", "string") for path in endpoint.record_id)
        updated_at = endpoint.updated_at or self.integration.updated_at
        if updated_at is not None:
            yield "updated_at", updated_at, "updated_at", "string"
        pages = self.pages
        for path in filter(None, (getattr(pages, part, None) for part in ("key", "time", "id", "last"))):
            yield f"page.{path}", path, "a key", "string"
        for fact, path in self._other_paths():
            yield f"{fact}.{path}", path, fact, "json"
        if endpoint.canonical is not None:
            table = self.tables.get(endpoint.canonical.table)
            for column, field in endpoint.canonical.fields.items():
                known = table.columns.get(column) if table is not None else None
                kind = known.type if known is not None else "json"
                yield from ((f"field.{path}", path, column, own or kind) for path, own in fields.paths_of(field))

    def _other_paths(self) -> Iterator[tuple[str, str]]:
        endpoint = self.endpoint
        yield from (("drop", path) for path in endpoint.drop)
        if endpoint.deleted_when is not None:
            yield "deleted_when", endpoint.deleted_when.path
        for stone in endpoint.tombstones:
            paths = (stone.record_id, stone.at, stone.when.path if stone.when is not None else None)
            yield from (("tombstone", path) for path in paths if path is not None)
        if endpoint.fields is not None:
            yield from (("fields", name) for name in endpoint.fields.names)

    def _custom_fields(self, record: Place | None) -> Facts:
        own = self.endpoint.custom_fields
        custom = own or self.integration.custom_fields
        if custom is None or isinstance(custom, fields.KeyPattern):
            return
        inside = [custom.name, custom.value] if isinstance(custom, fields.NamedValues) else []
        paths = [custom.path, *(f"{custom.path}.*.{path}" for path in inside)]
        for path in paths:
            found = _field(record, path)
            if found.verdict == "contradicted" and own is None:
                return  # the integration's form is that of all records that have such fields; this one has none
            yield f"custom_fields.{path}", found

    def _parents(self) -> Facts:
        parent = self.endpoint.parent
        if parent is None or parent.endpoint not in self.integration.endpoints:
            return
        above = msgspec.structs.replace(self, endpoint=self.integration.endpoints[parent.endpoint])
        record = above._record()
        for path in (parent.path, *parent.values.values()):
            yield f"parent.{path}", _field(record, path)

    def _record(self) -> Place | None:
        named = self._named_schema()
        if self.endpoint.described.schema is not None:
            return named.place
        path = self.endpoint.described.path or self._path(self.endpoint.path)
        operation = self._operation(path, self.endpoint.method) if path is not None else None
        listed = operation.answer.at(self.endpoint.records).place if operation is not None else None
        return listed.items().place if listed is not None else None


def _field(record: Place | None, path: str) -> Found:
    """What lies at a path of a record. What it takes along of its parent is ours, and no vendor describes it."""
    if path.partition(".")[0] == PARENT_KEY:
        return _OURS
    return record.at(path) if record is not None else _SILENT


def _held(found: Found, column: str, kind: ColumnType) -> Found:
    """`found`, unless what lies there cannot become a value of the column's type."""
    kinds = found.place.kinds if found.place is not None else frozenset()
    if not kinds or kinds & HELD[kind]:
        return Found(found.verdict, found.says)
    lies = " or ".join(sorted(kinds))
    return Found("contradicted", f"{lies}, which {column} ({kind}) cannot hold")


def _parameter_facts(operation: Operation | None, where: str, name: str, value: str | None) -> Facts:
    fact = f"{where}.{name}"
    known = (
        {} if operation is None else {key[1]: taken for key, taken in operation.parameters.items() if key[0] == where}
    )
    if where == "header":
        known = {name.lower(): taken for name, taken in known.items()}
    taken = known.get(name.lower() if where == "header" else name)
    if taken is None:
        told = known and where == "query"  # nobody describes every header
        hint = (
            did_you_mean(name, known)
            or f"It takes {', '.join(sorted(known)[:_SHOWN_MAX])}{' ...' * (len(known) > _SHOWN_MAX)}"
        )
        yield fact, Found("contradicted", f"there is no such parameter. {hint}") if told else _SILENT
        return
    yield fact, Found("confirmed")
    if taken.values is not None and value and not _ASKS.search(value):
        wrong = [each for each in value.split(",") if each not in taken.values and value not in taken.values]
        says = f"{', '.join(wrong)}: it takes {', '.join(sorted(taken.values))}"
        yield f"{fact}={value}", Found("contradicted", says) if wrong else Found("confirmed")


def _page_parameters(pages: reading.Pagination) -> Iterator[tuple[str, str | None]]:
    for name in (getattr(pages, "param", None), getattr(pages, "size_param", None)):
        if name is not None:
            yield name, None
    if isinstance(pages, reading.Keyset | reading.TimeKeyset):
        yield from pages.order.items()


def _body_names(body: reading.Body | None, value: Any = None) -> list[str]:
    """The names at the top of a body; with `value` those that hold it."""
    match body:
        case reading.JsonBody(value=sent):
            pass
        case reading.FormBody(fields=sent):
            pass
        case _:
            return []
    return [name for name, held in sent.items() if value is None or held == value]


def _parameter_at(body: Place, name: str) -> Parameter | None:
    place = body.at(name).place
    return place.parameter(name) if place is not None else None
