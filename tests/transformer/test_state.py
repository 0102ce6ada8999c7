"""What a shard remembers: keys that no two entities share, and exactly what belongs to a child's hash range."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.partitions import HASH_KEY_SPACE, HashRange, Partition
from services.contracts.ports import Value
from services.runtime.envelopes import pack
from services.runtime.snapshots import SnapshotState
from services.transformer.state import Memory, entity_key, held_by
from services.transformer.timelines import Timeline
from tests.fakes import MemoryObjects, MemoryState

LOW = HashRange(0, HASH_KEY_SPACE // 2 - 1)
HIGH = HashRange(HASH_KEY_SPACE // 2, HASH_KEY_SPACE - 1)
PARTITIONS = [Partition("acme", "desk", f"family{number}") for number in range(20)]
NOTHING = Timeline(())


def memory(objects: MemoryObjects, owner: str) -> Memory:
    return Memory(SnapshotState(objects, MemoryState(), lambda number: f"{owner}/{number}"))


def key(partition: Partition, record_id: str = "1") -> bytes:
    return entity_key(partition, "tickets", partition.group, record_id)


async def saved(objects: MemoryObjects, owner: str, keys: list[bytes]) -> dict[str, list[Value]]:
    """The row of a shard that remembers `keys`."""
    made = memory(objects, owner)
    made.write((each, NOTHING) for each in keys)
    return {"state": await made.save()}


parts = st.tuples(st.text(max_size=3), st.text(max_size=3), st.text(max_size=3), st.integers(0, 3), st.text(max_size=3))


@given(parts, parts)
def test_two_entities_never_share_a_key(
    one: tuple[str, str, str, int, str], other: tuple[str, str, str, int, str]
) -> None:
    def made(tenant: str, service: str, group: str, bucket: int, record_id: str) -> bytes:
        return entity_key(Partition(tenant, service, group, bucket), "tickets", group, record_id)

    assert (made(*one) == made(*other)) == (one == other)


def test_a_key_belongs_to_the_one_shard_that_serves_its_partition() -> None:
    for partition in PARTITIONS:
        assert held_by(LOW)(key(partition)) == LOW.holds(partition)
        assert held_by(LOW)(key(partition)) != held_by(HIGH)(key(partition))


async def test_after_a_split_each_child_starts_with_its_half_and_none_is_lost() -> None:
    objects = MemoryObjects()
    keys = [key(partition) for partition in PARTITIONS]
    parent = await saved(objects, "parent", keys)
    halves = []
    for number, half in enumerate((LOW, HIGH)):
        child = memory(objects, f"child{number}")
        assert await child.load({}, [parent], half)
        halves.append(set(child.read(keys)))
    assert halves[0] | halves[1] == set(keys)
    assert not halves[0] & halves[1]
    assert all(halves)


async def test_after_a_merge_the_child_starts_with_both() -> None:
    objects = MemoryObjects()
    parents = [await saved(objects, str(number), [key(PARTITIONS[number])]) for number in range(2)]
    child = memory(objects, "child")
    assert await child.load({}, parents, HashRange(0, HASH_KEY_SPACE - 1))
    assert len(child.read([key(PARTITIONS[0]), key(PARTITIONS[1])])) == 2


async def test_what_a_child_inherited_it_saves_under_its_own_name() -> None:
    objects = MemoryObjects()
    parent = await saved(objects, "parent", [key(PARTITIONS[0])])
    child = memory(objects, "child")
    await child.load({}, [parent], HashRange(0, HASH_KEY_SPACE - 1))
    row = {"state": await child.save()}
    objects.held = {name: data for name, data in objects.held.items() if not name.startswith("parent")}
    again = memory(objects, "child")
    assert await again.load(row, [parent], HashRange(0, HASH_KEY_SPACE - 1))
    assert again.read([key(PARTITIONS[0])]) == {key(PARTITIONS[0]): NOTHING}


async def test_its_own_state_counts_and_the_parents_no_longer() -> None:
    objects = MemoryObjects()
    parent = await saved(objects, "parent", [key(PARTITIONS[0])])
    child = memory(objects, "child")
    assert await child.load({"state": []}, [parent], HashRange(0, HASH_KEY_SPACE - 1))
    assert child.read([key(PARTITIONS[0])]) == {}


async def test_that_memory_was_lost_is_remembered_by_the_next_owner_and_by_every_child() -> None:
    objects = MemoryObjects()
    row = await saved(objects, "parent", [key(PARTITIONS[0])])
    objects.held.clear()
    owner = memory(objects, "owner")
    assert not await owner.load(row, [], LOW)
    assert owner.lost
    owner.mark_lost("shardId-1")
    row = {"state": await owner.save()}
    for heir in (memory(objects, "next"), memory(objects, "child")):
        assert await heir.load(row if heir is not owner else {}, [], LOW)
        assert heir.lost
    child = memory(objects, "child")
    assert await child.load({}, [row], HIGH)
    assert child.lost


@pytest.mark.parametrize("broken", [b"no zstd", pack(b"no state")])
async def test_a_segment_that_cannot_be_read_is_memory_lost_and_no_crash(broken: bytes) -> None:
    objects = MemoryObjects()
    row = await saved(objects, "owner", [key(PARTITIONS[0])])
    objects.held = dict.fromkeys(objects.held, broken)
    owner = memory(objects, "owner")
    assert not await owner.load(row, [], LOW)
    assert owner.lost
    assert owner.read([key(PARTITIONS[0])]) == {}


async def test_an_entry_that_another_release_wrote_is_lost_alone() -> None:
    state = SnapshotState(MemoryObjects(), MemoryState(), str)
    made = Memory(state)
    await made.load({}, [], LOW)
    made.write([(key(PARTITIONS[0]), NOTHING), (key(PARTITIONS[1]), NOTHING)])
    state.put(key(PARTITIONS[0]), b"another format")
    assert list(made.read([key(PARTITIONS[0]), key(PARTITIONS[1])])) == [key(PARTITIONS[1])]
    assert made.lost
