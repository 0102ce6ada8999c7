"""An integration's endpoint as the extractor works with it: defaults applied, paths split, mistakes found. Pure."""

import hashlib

import msgspec

from services.contracts.errors import UsageError
from services.contracts.integration import (
    Endpoint,
    Filter,
    Incremental,
    Integration,
    Keyset,
    Pagination,
    Parent,
    Sweep,
)
from services.extractor.raw_json import cuts_of, split_path
from services.extractor.records import ItemRule, Rules
from services.extractor.templates import names_in


class Spec(msgspec.Struct, frozen=True):
    """One endpoint. `incremental` is None where only a full read tells what changed; `confirm` is the path that tells
    whether one record is still there; `link` is which part of the parent's record id fills the path."""

    name: str
    family: str
    endpoint: Endpoint
    pagination: Pagination
    rules: Rules
    incremental: Incremental | None = None
    sweep: Sweep | None = None
    confirm: str | None = None
    filter: Filter | None = None
    link: int = 0
    tick_s: float = 1.0
    shape: str = ""

    @property
    def parent(self) -> Parent | None:
        return self.endpoint.parent


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
    pagination = endpoint.pagination or integration.pagination
    incremental = endpoint.incremental or integration.incremental
    if incremental is not None and incremental.clause is None and not incremental.params:
        incremental = None  # nothing to ask with
    updated_at = endpoint.updated_at or integration.updated_at
    record_id = [endpoint.record_id] if isinstance(endpoint.record_id, str) else endpoint.record_id
    deletes = endpoint.deletes or integration.deletes
    sweep = deletes if isinstance(deletes, Sweep) else None
    rules = Rules(
        record_id=tuple(split_path(path) for path in record_id),
        composite=not isinstance(endpoint.record_id, str),
        updated_at=None if updated_at is None else split_path(updated_at),
        records=split_path(endpoint.records),
        drop=cuts_of(split_path(path) for path in endpoint.drop),
        drop_items=tuple(
            ItemRule(split_path(rule.path), split_path(rule.test), frozenset(rule.equals))
            for rule in integration.drop_items
        ),
        key=split_path(pagination.key) if isinstance(pagination, Keyset) else None,
    )
    return Spec(
        name=name,
        family=integration.family_of(name),
        endpoint=endpoint,
        pagination=pagination,
        rules=rules,
        incremental=incremental,
        sweep=sweep,
        confirm=_confirm(endpoint, sweep),
        filter=integration.filter,
        link=_link(integration, name, endpoint.parent),
        tick_s=integration.tick_s,
        shape=_shape(endpoint, pagination),
    )


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


def _confirm(endpoint: Endpoint, sweep: Sweep | None) -> str | None:
    """The path that reads one record, unless it needs a parent's value: a record does not tell its parent."""
    if sweep is None or sweep.confirm is None:
        return None
    if endpoint.parent is not None and endpoint.parent.name in names_in(sweep.confirm):
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


def _shape(endpoint: Endpoint, pagination: Pagination) -> str:
    """What a walk's progress is worth under: another list, another key or another order, and it starts afresh."""
    parts = (endpoint.path, endpoint.params, endpoint.records, endpoint.record_id, endpoint.parent)
    walked = (pagination.key, pagination.clause, pagination.order) if isinstance(pagination, Keyset) else ()
    return hashlib.blake2b(msgspec.json.encode((parts, walked)), digest_size=8).hexdigest()
