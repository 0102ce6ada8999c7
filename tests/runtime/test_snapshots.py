"""Snapshots: whatever was saved and committed is what the next owner loads."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.contracts.errors import RetryableError
from services.runtime.snapshots import SEGMENTS_MAX, Segment, SnapshotState
from tests.fakes import Call, MemoryObjects, MemoryState, nothing

changes = st.lists(
    st.dictionaries(st.binary(min_size=1, max_size=2), st.none() | st.binary(max_size=3), max_size=6), max_size=40
)


def owner(objects: MemoryObjects, epoch: int) -> SnapshotState:
    return SnapshotState(objects, MemoryState(), lambda number: f"state/{epoch}-{number}")


@settings(max_examples=200, deadline=None)
@given(changes)
async def test_the_next_owner_finds_every_committed_change(rounds: list[dict[bytes, bytes | None]]) -> None:
    objects, expected = MemoryObjects(), dict[bytes, bytes]()
    state, segments = owner(objects, 0), list[Segment]()
    for number, round_ in enumerate(rounds):
        state.put_many(list(round_.items()))
        expected |= {key: value for key, value in round_.items() if value is not None}
        expected = {key: value for key, value in expected.items() if round_.get(key, b"") is not None}
        segments = list(await state.save())
        await state.committed()
        if number % 7 == 6:  # another owner goes on
            state = owner(objects, number)
            assert await state.load(segments)
    following = owner(objects, 999)
    assert await following.load(segments)
    assert dict(following.items()) == expected
    assert len(segments) <= SEGMENTS_MAX + 1
    assert {segment.key for segment in segments} == set(objects.held)


async def test_without_a_change_nothing_is_written() -> None:
    objects = MemoryObjects()
    assert await owner(objects, 0).save() == []
    assert not objects.held


async def test_a_missing_segment_is_told_and_leaves_an_empty_state() -> None:
    state = owner(MemoryObjects(), 0)
    assert not await state.load([Segment("state/gone", 3)])
    assert (dict(state.items()), state.segments) == ({}, [])


async def test_what_is_saved_and_not_committed_disturbs_nobody() -> None:
    objects = MemoryObjects()
    first = owner(objects, 1)
    first.put(b"a", b"1")
    committed = list(await first.save())
    first.put(b"a", b"2")
    await first.save()  # and killed before the commit
    following = owner(objects, 2)
    assert await following.load(committed)
    assert following.get(b"a") == b"1"


async def test_a_child_inherits_only_what_it_keeps() -> None:
    objects = MemoryObjects()
    parent = owner(objects, 1)
    parent.put_many([(b"a1", b"1"), (b"b1", b"2")])
    segments = list(await parent.save())
    child = owner(objects, 2)
    await child.load(segments, keep=lambda key: key.startswith(b"b"))
    inherited = await child.save()
    again = owner(objects, 3)
    await again.load(inherited)
    assert dict(again.items()) == {b"b1": b"2"}


async def test_what_is_put_while_a_save_is_under_way_belongs_to_the_next() -> None:
    objects = MemoryObjects()
    state = owner(objects, 1)

    async def put_more(_: Call) -> None:
        state.put(b"b", b"2")

    state.put(b"a", b"1")
    objects.before = put_more
    await state.save()
    objects.before = nothing
    following = owner(objects, 2)
    await following.load(await state.save())
    assert dict(following.items()) == {b"a": b"1", b"b": b"2"}


async def test_a_save_that_failed_is_made_up_for_by_the_next() -> None:
    objects = MemoryObjects()
    state = owner(objects, 1)
    state.put(b"a", b"1")
    objects.fail_next("create", RetryableError("down"))
    with pytest.raises(RetryableError):
        await state.save()
    following = owner(objects, 2)
    await following.load(await state.save())
    assert dict(following.items()) == {b"a": b"1"}
