"""A dialect's answers, and the requests the engine sends it, held against the vendor's published description.

So engine and sandbox cannot share a mistake. The descriptions are not part of the project: they lie in the folder that
AVESA_VENDOR_SPECS names, else in `../shared/vendors/specs` beside the repository; where one is missing its test is
skipped. In `tests/dialects/test_<service>.py`:

    async def test_every_answer_and_every_request_is_as_the_vendor_describes_it() -> None:
        found = await held_against("zendesk", "zendesk.json")
        assert found.answers >= 20
        known = {"answer /api/v2/tickets.json tickets.*.brand_id": "an older file: SOURCES.md"}
        assert found.differences(but=known) == []
"""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from services.contracts.openapi import Description, Place
from services.sandbox.vendors.hostility import Serving
from tests.dialects.every import dialect_of, integration_of
from tests.dialects.seeds import quickened
from tests.dialects.world import opened

ROUNDS = 2
CHANGES = 40


class Held(msgspec.Struct):
    """`answers`, `requests`: how many could be looked up in the description; `unknown`: paths that it does not have;
    `found`: how often each difference was seen."""

    answers: int = 0
    requests: int = 0
    unknown: Counter[str] = msgspec.field(default_factory=Counter)
    found: Counter[str] = msgspec.field(default_factory=Counter)

    def differences(self, but: Collection[str] | Mapping[str, str] = ()) -> list[str]:
        """Each difference once, but for those that are explained; and explanations that nothing needs any more."""
        unneeded = [f"explained and not found: {known}" for known in but if known not in self.found]
        return sorted(found for found in self.found if found not in but) + unneeded


def file_of(name: str) -> Path:
    folder = os.environ.get("AVESA_VENDOR_SPECS")  # noqa: TID251 where descriptions lie is no setting of ours
    beside = Path(__file__).parents[3] / "shared" / "vendors" / "specs"
    return (Path(folder) if folder else beside) / name


@cache
def description(name: str) -> Description:
    path = file_of(name)
    if not path.exists():
        pytest.skip(f"the vendor's description is not at {path} (set AVESA_VENDOR_SPECS to its folder)")
    return Description(msgspec.json.decode(path.read_bytes()))


async def held_against(service: str, file: str, *, prefix: str = "") -> Held:
    """Everything the engine asks in a calm hour, and what the dialect answers. `prefix` is missing in theirs."""
    vendor, held = description(file), Held()
    integration = quickened(integration_of(service), Random(1))
    async with opened(dialect_of(service), integration, 1) as world:
        for _ in range(ROUNDS):
            summary = await world.run_once()
            assert summary.complete, summary.failed
            for _ in range(CHANGES):
                world.hostility.changes.any(world.rng.choice(sorted(world.store.collections)))
            await world.clock.sleep(world.rest_s)
        for serving in world.hostility.served:
            if serving.answer.status == 200:
                _hold(vendor, serving, prefix, held)
    return held


def _hold(vendor: Description, serving: Serving, prefix: str, held: Held) -> None:
    asked = serving.request
    path = vendor.path_like(asked.path.removeprefix(prefix))
    operation = vendor.operation(path, asked.method) if path is not None else None
    if operation is None:
        held.unknown[f"{asked.method} {asked.path}"] += 1
        return
    held.requests += 1
    taken = {name.lower() for place, name in operation.parameters if place == "query"}
    for name in asked.query:
        if name.lower() not in taken:
            held.found[f"request {path} {name}"] += 1
    try:
        value = msgspec.json.decode(serving.answer.body)
    except msgspec.DecodeError:
        return
    held.answers += 1
    for difference in set(differences(value, operation.answer)):
        held.found[f"answer {path} {difference}"] += 1


def differences(value: Any, place: Place, at: str = "") -> Iterator[str]:
    """Where a value is not what the description says: names it does not have, types it does not allow."""
    kinds = place.kinds
    if value is None:
        return  # descriptions seldom say what may be null
    if kinds and not _kinds_of(value) & kinds:
        yield f"{at or '(all)'} is {' or '.join(sorted(_kinds_of(value)))}, not {' or '.join(sorted(kinds))}"
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            found = place.at(key)
            where = f"{at}.{key}" if at else key
            if found.verdict == "contradicted":
                yield f"{where}"
            elif found.place is not None:
                yield from differences(inner, found.place, where)
    elif isinstance(value, list):
        items = place.items().place
        for inner in value if items is not None else ():
            assert items is not None
            yield from differences(inner, items, f"{at}.*" if at else "*")


def _kinds_of(value: Any) -> frozenset[str]:
    match value:
        case bool():
            return frozenset({"boolean"})
        case int():
            return frozenset({"integer", "number"})
        case float():
            return frozenset({"number"})
        case str():
            return frozenset({"string"})
        case list():
            return frozenset({"array"})
        case _:
            return frozenset({"object"})
