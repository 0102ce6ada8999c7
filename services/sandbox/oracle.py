"""What the lake must hold, from what the sandbox served: the other half of every comparison.

The oracle knows each answer the vendor gave, to the microsecond, and nothing of what became of it. It reads off it the
observations DESIGN 2.1 and 4 ask for, maps them with the project's mapper (golden pairs hold that one) and folds them.
What it cannot know it says: a delete found by a sweep lies within one sweep interval of the true one; a state served
only in the moments before the reader was killed may or may not have got through.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any

import msgspec

from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.fold import fold
from services.contracts.rows import Entity, entity_of, observation_of
from services.contracts.schema import CanonicalTable
from services.contracts.times import UtcTime, read_time, shifted
from services.sandbox.comparison import Bounds, Expected, History

UNSURE_MAX = 4  # unsure states of one record: all their combinations are tried


class Sighting(msgspec.Struct, frozen=True, gc=False):
    """One state of a record as it was first served, or its end. `payload` None: deleted, at the true time `at`.

    `sure`: it was served at another time than just before the reader was killed.
    """

    endpoint: str
    record_id: str
    at: UtcTime
    payload: bytes | None
    sure: bool = True


class Rules(msgspec.Struct, frozen=True):
    """What the oracle must know of the service: `stamp_of` reads a payload's modification time, None without one."""

    tenant_id: str
    service: str
    stamp_of: Callable[[str, bytes], UtcTime | None]
    tick_s: float
    sweep_interval_s: float
    read_lag_s: float = 5.0  # from the start of a request to its arrival


def histories(
    sightings: Iterable[Sighting],
    rules: Rules,
    family_of: Callable[[str], str],
    to_canonical: Callable[[ChangeEvent], CanonicalEvent | None],
    tables: Mapping[str, CanonicalTable],
) -> dict[str, dict[Entity, list[History]]]:
    """By table and entity, every history that would be right. `sightings` come in order of arrival."""
    by_record: dict[tuple[str, str], list[Sighting]] = {}
    for sighting in sightings:
        by_record.setdefault((family_of(sighting.endpoint), sighting.record_id), []).append(sighting)
    expected: dict[str, dict[Entity, list[History]]] = {}
    for seen in by_record.values():
        found = [_history(chosen, rules, to_canonical, tables) for chosen in _alternatives(seen)]
        entity = next((one[0] for one in found if one is not None), None)
        if entity is not None:  # where nothing is seen of a record, nothing is expected of it
            right: list[History] = []
            for history in (() if one is None else one[1] for one in found):
                if history not in right:
                    right.append(history)
            expected.setdefault(entity.table, {})[entity] = right
    return expected


def _alternatives(seen: list[Sighting]) -> Iterable[list[Sighting]]:
    """All sightings, then without each choice of the unsure ones."""
    unsure = [one for one in seen if not one.sure][:UNSURE_MAX]
    for kept in product((True, False), repeat=len(unsure)):
        dropped = {id(one) for one, keep in zip(unsure, kept, strict=True) if not keep}
        yield [one for one in seen if id(one) not in dropped]


def _history(
    seen: list[Sighting],
    rules: Rules,
    to_canonical: Callable[[ChangeEvent], CanonicalEvent | None],
    tables: Mapping[str, CanonicalTable],
) -> tuple[Entity, History] | None:
    events, soft = _observed(seen, rules)
    mapped = [event for event in map(to_canonical, events) if event is not None]
    if not mapped:
        return None
    entity = entity_of(mapped[0])
    table = tables[entity.table]
    versions = fold([observation_of(event) for event in mapped], table.scd)

    def bounds(time: UtcTime) -> Bounds:
        return soft.get(time) or Bounds(time, time)

    return entity, tuple(
        Expected(
            bounds(version.valid_from),
            None if version.valid_to is None else bounds(version.valid_to),
            version.last.record_hash,
            version.last.row or {},
        )
        for version in versions
    )


def _observed(seen: list[Sighting], rules: Rules) -> tuple[list[ChangeEvent], dict[UtcTime, Bounds]]:
    """The observations a faithful reader makes of these states, and the bounds of the times it chose itself."""
    events: list[ChangeEvent] = []
    soft: dict[UtcTime, Bounds] = {}
    former: tuple[UtcTime, UtcTime, bool] | None = None  # effective_at, observed_at, deleted
    content: bytes | None = None
    for sighting in seen:
        deleted = sighting.payload is None
        if former is not None and (former[2], content) == (deleted, sighting.payload):
            continue
        if deleted and former is None:
            continue
        stamp = None if sighting.payload is None else rules.stamp_of(sighting.endpoint, sighting.payload)
        if stamp is not None and (former is None or stamp > former[0] or _tie(former, stamp, rules)):
            effective_at = stamp
        else:
            effective_at = sighting.at if former is None else max(sighting.at, shifted(former[0], microseconds=1))
            reach = rules.sweep_interval_s if deleted else rules.read_lag_s
            soft[effective_at] = Bounds(
                shifted(effective_at, seconds=-reach), shifted(effective_at, seconds=reach if deleted else 0.0)
            )
        events.append(_event(sighting, rules, effective_at))
        former, content = (effective_at, sighting.at, deleted), sighting.payload
    return events, soft


def _tie(former: tuple[UtcTime, UtcTime, bool], stamp: UtcTime, rules: Rules) -> bool:
    """The earlier reading fell within the vendor's tick of its own stamp: both states are of that one tick."""
    effective_at, observed_at, deleted = former
    return not deleted and stamp == effective_at and observed_at < shifted(stamp, seconds=rules.tick_s)


def _event(sighting: Sighting, rules: Rules, effective_at: UtcTime) -> ChangeEvent:
    return ChangeEvent(
        rules.tenant_id,
        rules.service,
        sighting.endpoint,
        sighting.record_id,
        "delete" if sighting.payload is None else "upsert",
        effective_at,
        sighting.at,
        payload=msgspec.UNSET if sighting.payload is None else msgspec.Raw(sighting.payload),
    )


def stamp_at(path: str) -> Callable[[str, bytes], UtcTime | None]:
    """A reader of the modification time at a dotted path."""
    keys = path.split(".")

    def stamp_of(_endpoint: str, payload: bytes) -> UtcTime | None:
        value: Any = msgspec.json.decode(payload)
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return read_time(value) if isinstance(value, str) else None

    return stamp_of
