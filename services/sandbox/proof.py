"""The proof at the end of a demo or a test: the lake against everything the sandbox served, tenant by tenant."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from services.contracts.integration import Integration
from services.contracts.mapping_files import MappingFiles
from services.contracts.times import UtcTime, seconds_between, utc_text
from services.runtime.mapping_files import find_integration
from services.sandbox.comparison import Verdict, compare
from services.sandbox.oracle import Rules, Sighting, histories, stamp_at
from services.sandbox.world import World
from services.transformer.mapper import Mapper, routes
from services.transformer.pinned import shipped

UNSURE_S = 30.0  # an answer given so shortly before its reader was killed may not have got through


class Tenant(msgspec.Struct, frozen=True):
    """One tenant of ours and its site in the sandbox. `service` is the integration it is connected with."""

    tenant_id: str
    site: str
    service: str


Versions = Mapping[str, Iterable[Mapping[str, Any]]]  # table -> version rows of the tenant, as JSON values
Raw = Mapping[str, Mapping[str, bytes]]  # endpoint -> payload of each living record, from the raw archive


def prove(
    world: World,
    tenant: Tenant,
    mappings: MappingFiles,
    versions: Versions,
    raw: Raw,
    killed_at: Sequence[UtcTime] = (),
) -> list[Verdict]:
    """One verdict per canonical table and per endpoint's raw records.

    `killed_at`: when the extractor was killed; what was served just before may or may not have got through.
    """
    integration = find_integration(mappings, tenant.service)
    endpoint_of = {_pattern(endpoint.path): name for name, endpoint in integration.endpoints.items()}
    return [
        *_tables(world, tenant, mappings, integration, endpoint_of, versions, killed_at),
        *_raw(world, tenant, integration, endpoint_of, raw),
    ]


def _pattern(path: str) -> str:
    """An endpoint's path as the sandbox writes it: no leading slash, every placeholder `{id}`."""
    return re.sub(r"\{[^}]*\}", "{id}", path.strip("/"))


def _tables(
    world: World,
    tenant: Tenant,
    mappings: MappingFiles,
    integration: Integration,
    endpoint_of: Mapping[str, str],
    versions: Versions,
    killed_at: Sequence[UtcTime],
) -> list[Verdict]:
    pinned = shipped(mappings, tenant.tenant_id, tenant.service)
    by_endpoint = routes(map(Mapper, pinned.values()))
    stamps = {
        name: stamp_at(path)
        for name, endpoint in integration.endpoints.items()
        if (path := endpoint.updated_at or integration.updated_at)
    }
    rules = Rules(
        tenant.tenant_id,
        tenant.service,
        lambda endpoint, payload: stamps[endpoint](endpoint, payload) if endpoint in stamps else None,
        integration.tick_s,
        sweep_interval_s=86_400.0,
    )
    expected = histories(
        sightings(world, tenant.site, endpoint_of, killed_at),
        rules,
        integration.family_of,
        lambda event: next((m for mapper in by_endpoint.get(event.endpoint, ()) if (m := mapper.map(event))), None),
        mappings.tables,
    )
    return [
        compare(
            tenant.tenant_id,
            table,
            expected.get(table, {}),
            versions.get(table, ()),
            list(mappings.tables[table].all_columns()),
        )
        for table in sorted(pinned)
    ]


def sightings(
    world: World, site: str, endpoint_of: Mapping[str, str], killed_at: Sequence[UtcTime] = ()
) -> list[Sighting]:
    """Every state the site served in full, at its first serving, and every deletion, in order of time."""
    first: dict[tuple[str, int, int], datetime] = {}
    last: dict[tuple[str, int, int], datetime] = {}
    for served in world.served(site):
        if served.kind == "full" and served.path in endpoint_of:
            key = (served.path, served.record_id, served.version)
            first.setdefault(key, served.arrived_at)
            last[key] = served.arrived_at
    seen = [
        Sighting(
            endpoint_of[path],
            str(record_id),
            utc_text(at),
            world.state(site, path, record_id, version),
            sure=not _lost_with_its_reader(utc_text(last[path, record_id, version]), killed_at),
        )
        for (path, record_id, version), at in first.items()
    ]
    seen += [
        Sighting(endpoint_of[gone.path], str(gone.record_id), utc_text(gone.deleted_at), None)
        for gone in world.deleted(site)
        if gone.path in endpoint_of
    ]
    return sorted(seen, key=lambda sighting: sighting.at)


def _lost_with_its_reader(last_served_at: UtcTime, killed_at: Sequence[UtcTime]) -> bool:
    return any(0 <= seconds_between(last_served_at, killed) <= UNSURE_S for killed in killed_at)


def _raw(
    world: World, tenant: Tenant, integration: Integration, endpoint_of: Mapping[str, str], raw: Raw
) -> list[Verdict]:
    verdicts = []
    for path, name in endpoint_of.items():
        endpoint = integration.endpoints[name]
        if not endpoint.enabled:
            continue
        verdict = Verdict(tenant.tenant_id, f"raw.{tenant.service}.{name}")
        expected = {str(record_id): state for record_id, state in world.current(tenant.site, path).items()}
        found = raw.get(name, {})
        verdict.current = verdict.versions = len(found)
        for record_id in sorted({*expected, *found}):
            if record_id not in found:
                verdict.tell("lost", f"{name} {record_id}: not in the raw archive")
            elif record_id not in expected:
                verdict.tell("doubled", f"{name} {record_id}: not at the source any more")
            elif _without(expected[record_id], endpoint.drop) != msgspec.json.decode(found[record_id]):
                verdict.tell("wrong", f"{name} {record_id}: the payload differs")
        verdicts.append(verdict)
    return verdicts


def _without(payload: bytes, drop: Sequence[str]) -> Any:
    record = msgspec.json.decode(payload)
    for path in drop:
        *way, last = path.split(".")
        holder = record
        for key in way:
            holder = holder.get(key) if isinstance(holder, dict) else None
        if isinstance(holder, dict):
            holder.pop(last, None)
    return record
