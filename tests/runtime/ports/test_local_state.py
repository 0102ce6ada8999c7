"""The contract of `LocalState`; what only the store on disk has is in ../test_local_state.py."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.contracts.ports import LocalState, StateFactory
from services.runtime.local_state import LocalStates
from tests.fakes import MemoryStates


@pytest.fixture(params=["fake", "small", "on disk", "spilling"])
def states(request: pytest.FixtureRequest, tmp_path: Path) -> StateFactory:
    if request.param == "fake":
        return MemoryStates()
    small_bytes_max = {"small": 1 << 20, "on disk": -1, "spilling": 400}[request.param]
    return LocalStates(tmp_path / "state", small_bytes_max=small_bytes_max)


@pytest.fixture
def state(states: StateFactory) -> Iterator[LocalState]:
    opened = states.open("acme/connectwise/tickets/0")
    yield opened
    opened.close()


def test_a_key_gives_its_last_value(state: LocalState) -> None:
    state.put_many([(b"a", b"1"), (b"b", b""), (b"a", b"2")])
    assert (state.get(b"a"), state.get(b"b"), state.get(b"c")) == (b"2", b"", None)


def test_none_deletes_a_key(state: LocalState) -> None:
    state.put_many([(b"a", b"1"), (b"b", b"2")])
    state.put_many([(b"a", None), (b"never", None)])
    assert dict(state.items()) == {b"b": b"2"}


def test_many_keys_are_found_at_once_and_missing_ones_left_out(state: LocalState) -> None:
    keys = [b"%d" % number for number in range(2_500)]
    state.put_many((key, key) for key in keys)
    assert state.get_many([*keys, b"missing"]) == {key: key for key in keys}
    assert state.get_many([]) == {}


def test_items_come_in_order_of_key_and_keep_to_their_prefix(state: LocalState) -> None:
    state.put_many((key, b"") for key in (b"b", b"a\xff", b"a", b"a\xff\xff", b"a/1", b"", b"\xff", b"\xff\xff"))
    assert [key for key, _ in state.items(b"a")] == [b"a", b"a/1", b"a\xff", b"a\xff\xff"]
    assert [key for key, _ in state.items(b"\xff")] == [b"\xff", b"\xff\xff"]
    assert [key for key, _ in state.items(b"a\xff")] == [b"a\xff", b"a\xff\xff"]
    assert len(list(state.items())) == 8


def test_items_may_be_changed_while_they_are_read(state: LocalState) -> None:
    state.put_many((b"%04d" % number, b"") for number in range(1_200))
    for key, _ in state.items():
        state.put_many([(key, None)])
    assert list(state.items()) == []


def test_a_batch_that_fails_changes_nothing(state: LocalState) -> None:
    def batch() -> Iterator[tuple[bytes, bytes | None]]:
        yield b"a", b"2"
        raise LookupError

    state.put_many([(b"a", b"1")])
    with pytest.raises(LookupError):
        state.put_many(batch())
    assert dict(state.items()) == {b"a": b"1"}


def test_clearing_leaves_nothing(state: LocalState) -> None:
    state.put_many([(b"a", b"1")])
    state.clear()
    assert list(state.items()) == []


def test_a_store_opened_again_is_empty_and_others_are_untouched(states: StateFactory) -> None:
    one, other = states.open("a/b"), states.open("a_b")
    one.put_many([(b"k", b"1")])
    other.put_many([(b"k", b"2")])
    assert list(states.open("a/b").items()) == []
    assert other.get(b"k") == b"2"
