"""An integration's endpoint as the extractor works with it: defaults applied, paths split, mistakes found. Pure."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from services.contracts.access import ErrorRule, Template
from services.contracts.errors import UsageError
from services.contracts.integration import Endpoint, Integration, Parent
from services.contracts.reading import (
    Body,
    Condition,
    Cursor,
    Deletes,
    DeltaToken,
    Export,
    FieldList,
    Filter,
    FormBody,
    GraphqlBody,
    Incremental,
    JsonBody,
    Keyset,
    LinkHeader,
    NextUrl,
    Offset,
    OnePage,
    PageNumber,
    Pagination,
    SinceId,
    SinceTime,
    Sweep,
    TimeKeyset,
    TimeWindow,
)
from services.extractor.pagination import moves, resumable
from services.extractor.raw_json import KeyPath, cuts_of, split_path
from services.extractor.records import ConditionRule, GraveRule, ItemRule, Rules, Signs
from services.extractor.templates import ABSENT, PASSING, names_in


class Spec(msgspec.Struct, frozen=True):
    """One endpoint, defaults applied.

    Shape:  `incremental` is None where only a full read tells what changed; `confirm` is the path that tells whether
            one record is still there; `link` is which part of the parent's record id fills the path, and `inherits`
            which further values of the parent's record, by name and by place in its `Rules.links`; `dispensable` are
            those that no template asks for: a parent may lack them. `errors`: the
            endpoint's rules before the integration's. `optional`: credentials that may be left empty. `time_zone` is
            where times without one stand, a template. `for_sweep`: how ids alone are listed. `shape`: what a walk's
            progress is worth under; another list, another key or another order, and it starts afresh.
    """

    name: str
    family: str
    endpoint: Endpoint
    pagination: Pagination
    rules: Rules
    path: Template
    method: Literal["GET", "POST"] = "GET"
    base_url: Template | None = None
    first_path: Template | None = None
    params: Mapping[str, Template] = {}
    headers: Mapping[str, Template] = {}
    body: Body | None = None
    fields: FieldList | None = None
    export: Export | None = None
    format: Literal["json", "ndjson", "csv"] = "json"
    incremental: SinceTime | DeltaToken | SinceId | None = None
    sweep: Sweep | None = None
    for_sweep: "Spec | None" = None
    confirm: str | None = None
    filter: Filter | None = None
    errors: tuple[ErrorRule, ...] = ()
    permission: str = ""
    cost: float = 1.0
    optional: frozenset[str] = frozenset()
    link: int = 0
    inherits: tuple[tuple[str, int], ...] = ()
    dispensable: frozenset[str] = frozenset()
    tick_s: float = 1.0
    time_zone: Template = "UTC"
    shape: str = ""

    @property
    def parent(self) -> Parent | None:
        return self.endpoint.parent

    @property
    def resumable(self) -> bool:
        """May a walk go on where it stopped long ago? An export would be another one by then."""
        return self.export is None and resumable(self.pagination)


def specs(integration: Integration) -> dict[str, Spec]:
    """Every endpoint to be read, parents before their children; with a child its parents, enabled or not.

    Errors: UsageError `bad_mapping`.
    """
    found: dict[str, Spec] = {}

    def add(name: str, children: tuple[str, ...]) -> None:
        if name in children:
            raise UsageError(f"endpoint {name!r} is its own parent", code="bad_mapping")
        parent = integration.endpoints[name].parent
        if parent is not None:
            add(parent.endpoint, (*children, name))
        found.setdefault(name, spec_of(integration, name))

    for name, endpoint in integration.endpoints.items():
        if endpoint.enabled:
            add(name, ())
    return found


def spec_of(integration: Integration, name: str) -> Spec:
    """One endpoint, with the integration's defaults. Errors: UsageError `bad_mapping`."""
    endpoint = integration.endpoints[name]
    endpoint = replace(endpoint, params={**integration.params, **endpoint.params})
    pagination = endpoint.pagination or integration.pagination
    asked = endpoint.incremental or integration.incremental
    incremental = asked if isinstance(asked, SinceTime | DeltaToken | SinceId) else None
    if isinstance(incremental, SinceTime) and not _asks_since(endpoint, incremental):
        incremental = None
    deletes = endpoint.deletes or integration.deletes
    sweep = deletes if isinstance(deletes, Sweep) else None
    spec = Spec(
        name=name,
        family=integration.family_of(name),
        endpoint=endpoint,
        pagination=pagination,
        rules=_rules(integration, name, pagination, incremental),
        path=endpoint.path,
        method=endpoint.method,
        base_url=endpoint.base_url,
        first_path=incremental.first_path if isinstance(incremental, DeltaToken) else None,
        params=endpoint.params,
        headers=endpoint.headers,
        body=endpoint.body,
        fields=endpoint.fields,
        export=endpoint.export,
        format=endpoint.format,
        incremental=incremental,
        sweep=sweep,
        confirm=_confirm(endpoint, sweep),
        filter=integration.filter,
        errors=(*endpoint.errors, *integration.errors),
        permission=endpoint.permission,
        cost=endpoint.cost,
        optional=frozenset(key for key, credential in integration.credentials.items() if not credential.required),
        link=_link(integration, name, endpoint.parent),
        inherits=_inherits(integration, endpoint.parent),
        dispensable=_dispensable(endpoint, pagination, asked, deletes),
        tick_s=integration.tick_s,
        time_zone=integration.time_zone,
        shape=_shape(endpoint, pagination, incremental),
    )
    _check(spec)
    if sweep is None:
        return spec
    swept = _for_sweep(integration, spec, sweep)
    _check(swept)
    return replace(spec, for_sweep=swept)


def with_parents(known: dict[str, Spec], chosen: set[str]) -> set[str]:
    """`chosen` and every endpoint they hang from."""
    found: set[str] = set()
    for name in chosen:
        at: str | None = name
        while at is not None and at not in found:
            found.add(at)
            parent = known[at].parent
            at = parent.endpoint if parent is not None else None
    return found


def _for_sweep(integration: Integration, spec: Spec, sweep: Sweep) -> Spec:
    """The list of ids. Where it is another list, nothing of how records are asked for holds there."""
    pagination = sweep.pagination or spec.pagination
    rules = _rules(integration, spec.name, pagination, None, sweep.records)
    if sweep.path is None:
        return replace(spec, pagination=pagination, rules=rules, params={**spec.params, **sweep.params})
    incremental = spec.incremental if isinstance(pagination, TimeWindow) else None
    return replace(
        spec,
        pagination=pagination,
        rules=rules,
        path=sweep.path,
        first_path=None,
        method="GET",
        params={**integration.params, **sweep.params},
        body=None,
        fields=None,
        export=None,
        format="json",
        incremental=incremental,
    )


def _rules(
    integration: Integration,
    name: str,
    pagination: Pagination,
    incremental: SinceTime | DeltaToken | SinceId | None,
    records: str | None = None,
) -> Rules:
    endpoint = integration.endpoints[name]
    updated_at = endpoint.updated_at or integration.updated_at
    record_id = [endpoint.record_id] if isinstance(endpoint.record_id, str) else endpoint.record_id
    inner = pagination.inner if isinstance(pagination, TimeWindow) else pagination
    return Rules(
        record_id=tuple(split_path(path) for path in record_id),
        composite=not isinstance(endpoint.record_id, str),
        updated_at=_path(updated_at),
        records=split_path(endpoint.records if records is None else records),
        format=endpoint.format,
        drop=cuts_of(split_path(path) for path in endpoint.drop),
        drop_items=tuple(
            ItemRule(split_path(rule.path), split_path(rule.test), frozenset(rule.equals))
            for rule in integration.drop_items
        ),
        key=_key(pagination),
        time=split_path(pagination.time) if isinstance(pagination, TimeKeyset) else None,
        rows=isinstance(inner, Offset) or moves(inner),
        signs=_signs(inner, incremental),
        deleted_when=_condition(endpoint.deleted_when),
        links=_links(integration, name),
        graves=tuple(
            GraveRule(stone.endpoint, split_path(stone.record_id), _path(stone.at), _condition(stone.when))
            for stone in endpoint.tombstones
        ),
    )


def _key(pagination: Pagination) -> KeyPath | None:
    match pagination:
        case Keyset():
            return split_path(pagination.key)
        case TimeKeyset():
            return split_path(pagination.id)
        case _:
            return None


def _signs(pagination: Pagination, incremental: SinceTime | DeltaToken | SinceId | None) -> Signs:
    """Where an answer tells how it goes on."""
    token = split_path(incremental.path) if isinstance(incremental, DeltaToken) else None
    match pagination:
        case PageNumber():
            return Signs(
                more=_path(pagination.more),
                pages=_path(pagination.pages),
                total=_path(pagination.total),
                token=token,
            )
        case Offset():
            return Signs(more=_path(pagination.more), total=_path(pagination.total), token=token)
        case Cursor():
            return Signs(
                cursor=_path(pagination.path),
                header=None if pagination.header is None else pagination.header.lower(),
                last=_path(pagination.last),
                more=_path(pagination.more),
                end=_path(pagination.end),
                token=token,
            )
        case NextUrl():
            return Signs(cursor=split_path(pagination.path), token=token)
        case LinkHeader():
            return Signs(link=True, token=token)
        case _:
            return Signs(token=token)


def _path(path: str | None) -> KeyPath | None:
    return None if path is None else split_path(path)


def _condition(condition: Condition | None) -> ConditionRule | None:
    return None if condition is None else ConditionRule(split_path(condition.path), frozenset(condition.equals))


def _links(integration: Integration, name: str) -> tuple[KeyPath, ...]:
    """What the children of an endpoint ask of its records, each path once."""
    asked = [
        path
        for child in integration.endpoints.values()
        if child.parent is not None and child.parent.endpoint == name
        for path in child.parent.values.values()
    ]
    return tuple(split_path(path) for path in dict.fromkeys(asked))


def _inherits(integration: Integration, parent: Parent | None) -> tuple[tuple[str, int], ...]:
    if parent is None:
        return ()
    links = _links(integration, parent.endpoint)
    return tuple((name, links.index(split_path(path))) for name, path in parent.values.items())


def _dispensable(endpoint: Endpoint, *defaults: Pagination | Incremental | Deletes) -> frozenset[str]:
    """The parent's values that records only take along: no request is made of them. `defaults`: what else holds."""
    if endpoint.parent is None:
        return frozenset()
    asked = {name for text in _texts_in(msgspec.to_builtins([endpoint, *defaults])) for name in names_in(text)}
    return frozenset(endpoint.parent.include) - asked


def _confirm(endpoint: Endpoint, sweep: Sweep | None) -> str | None:
    """The path that reads one record, unless it needs a parent's value: a record does not tell its parent."""
    if sweep is None or sweep.confirm is None:
        return None
    parent = endpoint.parent
    if parent is not None and names_in(sweep.confirm) & {parent.name, *parent.values}:
        return None
    return sweep.confirm


def _link(integration: Integration, name: str, parent: Parent | None) -> int:
    """Which part of the parent's record id `parent.path` is: memory keeps ids, not records."""
    if parent is None:
        return 0
    record_id = integration.endpoints[parent.endpoint].record_id
    parts = [record_id] if isinstance(record_id, str) else record_id
    if parent.path not in parts:
        raise UsageError(
            f"endpoint {name!r} takes {parent.path!r} from {parent.endpoint!r}, whose record_id is {record_id!r}",
            code="bad_mapping",
            remedy="parent.path must be (part of) the parent's record_id.",
        )
    return parts.index(parent.path)


# -- mistakes ---------------------------------------------------------------------------------------------------------
def _check(spec: Spec) -> None:
    """What the grammar allows one by one and makes no sense together. Errors: UsageError `bad_mapping`."""
    pagination = spec.pagination
    clauses = _has_clause(spec)
    if clauses and (spec.filter is None or spec.filter.param is None) and "where" not in _asked(spec):
        raise _mistake(spec, "has a clause and no filter to put it in", "Name filter.param, or ask for {where}.")
    if isinstance(pagination, TimeWindow) and not isinstance(spec.incremental, SinceTime):
        raise _mistake(spec, "walks windows of time and has no times to ask for", "Give it incremental of type time.")
    inner = pagination.inner if isinstance(pagination, TimeWindow) else pagination
    if isinstance(inner, Offset) and inner.overlap >= inner.size:
        raise _mistake(spec, "overlaps by a whole page", "pagination.overlap must be smaller than size.")
    if isinstance(inner, Cursor) and inner.path is None and inner.header is None and inner.last is None:
        raise _mistake(spec, "has a cursor that stands nowhere", "Give pagination.path, header or last.")
    if isinstance(spec.incremental, SinceId) and not isinstance(pagination, Keyset):
        raise _mistake(spec, "asks by id and does not walk by one", "Give it pagination of type keyset.")
    _check_left_out(spec)
    newest_first = isinstance(spec.incremental, SinceTime) and spec.incremental.newest_first
    if newest_first and spec.rules.updated_at is None:
        raise _mistake(spec, "is newest first and its records show no time", "Give it updated_at.")


def _check_left_out(spec: Spec) -> None:
    """What is left out where a value is missing must not say besides whose records are asked for: others' would come.

    Errors: UsageError `bad_mapping`.
    """
    absent, pagination = set(spec.optional | ABSENT), spec.pagination
    if isinstance(pagination, TimeWindow):
        absent -= {"since", "until"}
    if isinstance(pagination, Keyset) and pagination.start is not None:
        absent -= {"after", "where"} if pagination.clause is not None else {"after"}
    clauses = [pagination.clause] if isinstance(pagination, Keyset | TimeKeyset) else []
    texts = [*spec.params.values(), *spec.headers.values(), *_texts_of(spec.body), *filter(None, clauses)]
    texts += _texts_of(spec.export.body) if spec.export is not None else ()
    always = "since" not in absent
    own = _of_increment(spec.incremental)
    for text in (*texts, *own):
        names = names_in(text)
        kept = names - PASSING - spec.optional
        if kept and (names & absent or (text in own and not always)):
            raise _mistake(
                spec,
                f"leaves out {sorted(kept)[0]!r} where {text!r} is left out",
                "Give it a parameter, header or member of its own.",
            )


def _of_increment(incremental: SinceTime | DeltaToken | SinceId | None) -> list[Template]:
    """The templates that are sent only where there is a time to ask for."""
    if not isinstance(incremental, SinceTime):
        return []
    own = [incremental.clause, *incremental.params.values(), *incremental.headers.values()]
    return [text for text in own if text is not None]


def _mistake(spec: Spec, what: str, remedy: str) -> UsageError:
    return UsageError(f"endpoint {spec.name!r} {what}", code="bad_mapping", remedy=remedy)


def _has_clause(spec: Spec) -> bool:
    own = isinstance(spec.incremental, SinceTime) and spec.incremental.clause is not None
    return own or (isinstance(spec.pagination, Keyset | TimeKeyset) and spec.pagination.clause is not None)


def _asks_since(endpoint: Endpoint, incremental: SinceTime) -> bool:
    """Is there anything to ask with?"""
    own = (incremental.clause, *incremental.params.values(), *incremental.headers.values())
    if incremental.newest_first or any(text is not None and names_in(text) & {"since", "until"} for text in own):
        return True
    return bool({"since", "until"} & _asked_by(endpoint.params, endpoint.headers, endpoint.body, endpoint.export))


def _asked(spec: Spec) -> set[str]:
    return _asked_by(spec.params, spec.headers, spec.body, spec.export)


def _asked_by(
    params: Mapping[str, Template], headers: Mapping[str, Template], body: Body | None, export: Export | None
) -> set[str]:
    """The passing values that a request asks for."""
    texts = [*params.values(), *headers.values(), *_texts_of(body), *_texts_of(export.body if export else None)]
    return {name for text in texts for name in names_in(text) & PASSING}


def _texts_of(body: Body | None) -> Iterator[str]:
    match body:
        case JsonBody(value):
            yield from _texts_in(value)
        case FormBody(fields):
            yield from fields.values()
        case GraphqlBody(_, variables):
            yield from _texts_in(variables)


def _texts_in(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for inner in value.values():
                yield from _texts_in(inner)
        case list():
            for inner in value:
                yield from _texts_in(inner)


def _shape(endpoint: Endpoint, pagination: Pagination, incremental: SinceTime | DeltaToken | SinceId | None) -> str:
    """One number for all that decides which records a walk meets, and in which order. What an endpoint does not say
    adds nothing, so that marks outlive the additions to our grammar."""
    parts: tuple[Any, ...] = (
        endpoint.path,
        endpoint.params,
        endpoint.records,
        endpoint.record_id,
        None if endpoint.parent is None else (endpoint.parent.endpoint, endpoint.parent.path, endpoint.parent.name),
    )
    asked: list[Any] = [endpoint.body, endpoint.base_url, endpoint.export, endpoint.headers or None]
    asked.append(endpoint.fields.names if endpoint.fields is not None else None)
    if isinstance(incremental, DeltaToken):  # a token goes on with what was asked for when it was begun
        asked += [incremental.first or None, incremental.first_path]
    if endpoint.parent is not None and endpoint.parent.include:
        given = {endpoint.parent.name: endpoint.parent.path, **endpoint.parent.values}
        asked.append({name: given[name] for name in sorted(endpoint.parent.include)})
    further = [part for part in asked if part is not None]
    return hashlib.blake2b(msgspec.json.encode((parts, _walked(pagination), *further)), digest_size=8).hexdigest()


def _walked(pagination: Pagination) -> tuple[Any, ...]:
    match pagination:
        case OnePage() | PageNumber() | Offset() | NextUrl() | LinkHeader():
            return ()  # such a walk is never gone on with
        case Keyset():
            return (pagination.key, pagination.clause, pagination.param, pagination.order)
        case TimeKeyset():
            return (pagination.time, pagination.id, pagination.clause, pagination.order)
        case Cursor():
            return (pagination.path, pagination.header, pagination.last, pagination.param)
        case TimeWindow():
            return (pagination.start,)
