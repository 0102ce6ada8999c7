"""The transformer's batches and its memory, in the same disorder: every reading comes out, nobody is taken for another,
and a worker that dies leaves nothing wrong behind (DESIGN 2.3)."""

from collections.abc import Iterable
from itertools import groupby
from random import Random
from typing import Any

import msgspec
import pytest

from services.contracts.envelope import split
from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.fields import CanonicalMapping
from services.contracts.partitions import HASH_KEY_SPACE, HashRange, Partition
from services.runtime.envelopes import seal, unseal
from services.runtime.snapshots import SnapshotState
from services.transformer.batches import Envelope, Output, transform
from services.transformer.mapper import Mapper, routes
from services.transformer.pinned import Pinned, PinnedEndpoint
from services.transformer.state import Memory, entity_key
from services.transformer.timelines import TIMELINE_MAX, versions
from tests.compactor.observed import TABLES, TENANT, at
from tests.fakes import MemoryObjects, MemoryState
from tests.history import oracle
from tests.history.sequences import (
    ALIKE,
    CONTENTS,
    FAMILIES,
    MAPPING_VERSIONS,
    SERVICES,
    Place,
    arrival,
    observation,
    sets,
)

SETS = 500
SEEDS = range(2)
SOAK_SEEDS = range(1_000, 1_020)
WHOLE = HashRange(0, HASH_KEY_SPACE - 1)

Events = list[CanonicalEvent]


# -- the raw stream that gives these events ---------------------------------------------------------------------------
def mapper(service: str, table: str, mapping_version: int) -> Mapper:
    """Each column from the field of its name; deletions from an endpoint of their own."""
    fields = CanonicalMapping(table, {name: name for name in TABLES[table].all_columns()})
    families = [family for family, its in FAMILIES.items() if its == table]
    filling = {family: PinnedEndpoint(family, fields) for family in families}
    only_deletions = {f"{family}_gone": PinnedEndpoint(family) for family in families}
    return Mapper(Pinned(TENANT, service, mapping_version, TABLES[table], {**filling, **only_deletions}))


ROUTES = {
    version: {(TENANT, service): routes(mapper(service, table, version) for table in TABLES) for service in SERVICES}
    for version in MAPPING_VERSIONS
}


def raw(event: CanonicalEvent) -> ChangeEvent:
    """What the vendor said."""
    payload = event.row
    if not isinstance(payload, msgspec.UnsetType):
        row: dict[str, Any] = msgspec.json.decode(payload)
        custom = {name: msgspec.Raw(text.encode()) for name, text in row.items() if name == "custom_fields"}
        payload = msgspec.Raw(msgspec.json.encode({**row, **custom}))
    return ChangeEvent(
        event.tenant_id,
        event.service,
        event.endpoint,
        event.record_id,
        event.op,
        event.effective_at,
        event.observed_at,
        event.evidence,
        event.source,
        payload,
    )


def partition(event: CanonicalEvent) -> Partition:
    return Partition(event.tenant_id, event.service, event.family)


def enveloped(events: Iterable[CanonicalEvent]) -> list[Envelope]:
    envelopes = []
    for (place, endpoint), its in groupby(events, key=lambda event: (partition(event), event.endpoint)):
        for sealed in seal(place, endpoint, [msgspec.json.encode(raw(event)) for event in its]):
            envelopes.append(Envelope("shard", "1", *split(sealed.data), sealed.data))
    return envelopes


def opened(output: Output) -> Events:
    assert output.letters == []
    lines = [line for sealed in output.sealed() for line in unseal(*split(sealed.data))]
    return [msgspec.json.decode(line, type=CanonicalEvent) for line in lines]


# -- a shard's work ---------------------------------------------------------------------------------------------------
class Shard:
    """A log that is transformed piece by piece; position and memory are committed together."""

    def __init__(self, log: Events) -> None:
        self.log, self.taken, self.published = log, 0, Events()
        self._objects, self._owners = MemoryObjects(), 0
        self._row: dict[str, Any] = {"position": 0, "state": []}

    async def change_hands(self) -> int:
        """The next owner has what was committed, and nothing else. Where it goes on."""
        self._owners += 1
        state = SnapshotState(self._objects, MemoryState(), f"owner {self._owners}, segment {{}}".format)
        self.memory = Memory(state)
        assert await self.memory.load(self._row, [], WHOLE)
        return int(self._row["position"])

    def take(self, start: int, end: int) -> None:
        """Each event by the mapping that is said to have mapped it."""
        for version, its in groupby(self.log[start:end], key=lambda event: event.mapping_version):
            output = Output()
            transform(enveloped(its), ROUTES[version], self.memory, output, at(0))
            self.published += opened(output)
        self.taken += end - start

    async def commit(self, position: int) -> None:
        self._row = {"position": position, "state": await self.memory.save()}
        await self.memory.committed()


async def worked(log: Events, chance: Random) -> Shard:
    """The shard after all of `log`, through the hands of workers who die before or after a commit."""
    shard = Shard(log)
    position = await shard.change_hands()
    while position < len(log):
        end = min(position + chance.randint(1, 1_000), len(log))
        shard.take(position, end)
        dies = chance.choice(("", "", "before", "after"))
        if dies != "before":
            await shard.commit(end)
        position = await shard.change_hands() if dies else end
    return shard


# -- what holds -------------------------------------------------------------------------------------------------------
async def check_shard(seed: int) -> None:
    chance = Random(seed)
    events = [event for its in sets(seed, SETS) for event in its if len({e.effective_at for e in its}) <= TIMELINE_MAX]
    shard = await worked(arrival(chance, events), chance)
    by_entity: dict[bytes, Events] = {}
    expected = set()
    for event in shard.log:
        before = by_entity.setdefault(key(event), [])
        meaning = oracle.meaning(before, event, TABLES[event.table])
        expected.add(advised(msgspec.structs.replace(event, label=meaning.label, previous_from=meaning.previous_from)))
        before.append(event)
    assert len(shard.published) == shard.taken > len(shard.log), "every reading comes out"
    assert {advised(event) for event in shard.published} == expected, "as what it was, with the right label"
    for entity, timeline in shard.memory.read(list(by_entity)).items():
        its = by_entity.pop(entity)
        rows = oracle.history(its, TABLES[its[0].table])
        assert [
            (v.valid_from, v.valid_to, v.last.record_hash) for v in versions(timeline, TABLES[its[0].table].scd)
        ] == [(row["valid_from"], row["valid_to"], row["record_hash"]) for row in rows]
    assert not by_entity, "everyone is remembered"


def key(event: CanonicalEvent) -> bytes:
    return entity_key(partition(event), event.table, event.family, event.record_id)


def advised(event: CanonicalEvent) -> bytes:
    """All of an event but the columns it says have changed, to be compared."""
    return msgspec.json.encode(msgspec.structs.replace(event, changed={}))


@pytest.mark.parametrize("seed", SEEDS)
async def test_whoever_dies_every_reading_comes_out_rightly_labelled_and_everyone_is_remembered(seed: int) -> None:
    await check_shard(seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", SOAK_SEEDS)
async def test_many_more_shards_lose_nothing(seed: int) -> None:
    await check_shard(seed)


@pytest.mark.parametrize(("one", "other"), ALIKE.values(), ids=ALIKE)
async def test_a_label_takes_none_for_another(one: Place, other: Place) -> None:
    old, new, *_ = CONTENTS["tickets"]
    log = [observation(one, old, at(1)), observation(other, new, at(2)), observation(one, old, at(3))]
    shard = Shard(log)
    await shard.change_hands()
    shard.take(0, len(log))
    labels = {event.effective_at: event.label for event in shard.published}
    assert labels == {at(1): "new", at(2): "new", at(3): "unchanged"}
    assert key(log[0]) == key(log[2]) != key(log[1])
