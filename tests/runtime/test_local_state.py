"""What only the store on this machine has; the rest is in ports/test_local_state.py."""

from pathlib import Path

import pytest

from services.contracts.errors import FatalError, RetryableError
from services.runtime.local_state import ENTRY_BYTES, LocalStates, file_name

BATCH = [(b"%d" % number, bytes(1_000)) for number in range(1_000)]


def files(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def test_a_full_disk_is_said_and_loses_nothing_of_before(tmp_path: Path) -> None:
    state = LocalStates(tmp_path, bytes_max=64 << 10).open("acme")
    state.put_many([(b"before", b"1")])
    with pytest.raises(RetryableError) as caught:
        state.put_many(BATCH)
    assert caught.value.code == "disk_full"
    assert "AVESA_STATE_DIR" in caught.value.remedy
    state.put_many([(b"after", b"2")])
    assert dict(state.items()) == {b"before": b"1", b"after": b"2"}
    state.close()


def test_whoever_holds_a_store_opened_again_by_another_harms_nobody(tmp_path: Path) -> None:
    states = LocalStates(tmp_path, small_bytes_max=0)
    old = states.open("acme")
    old.put_many([(b"k", b"1")])
    new = states.open("acme")
    old.put_many([(b"k", b"old")])
    assert new.get(b"k") is None
    new.put_many([(b"j", b"2")])
    old.close()
    new.put_many([(b"k", b"new")])
    assert dict(new.items()) == {b"j": b"2", b"k": b"new"}
    new.close()


def test_a_small_store_needs_no_file_and_a_large_one_is_one_that_closing_takes_away(tmp_path: Path) -> None:
    directory = tmp_path / "deep" / "state"
    state = LocalStates(directory).open("acme/connectwise/tickets/0")
    state.put_many([(b"k", b"1")])
    assert files(directory) == []
    state.put_many(BATCH)
    assert files(directory) == [file_name("acme/connectwise/tickets/0")]
    assert dict(state.items()) == {b"k": b"1"} | dict(BATCH)
    state.close()
    assert files(directory) == []


def test_stores_share_the_memory_there_is_and_give_it_back(tmp_path: Path) -> None:
    states = LocalStates(tmp_path, memory_bytes_max=3 * (ENTRY_BYTES + 2))
    one, other = states.open("one"), states.open("other")
    one.put_many([(b"a", b"1"), (b"b", b"2")])
    one.put_many([(b"a", b"3")])  # no more than before
    other.put_many([(b"a", b"1")])
    assert files(tmp_path) == []
    one.put_many([(b"c", b"3")])
    assert files(tmp_path) == [file_name("one")]
    other.put_many([(b"b", b"2"), (b"c", b"3")])
    assert files(tmp_path) == [file_name("one")]
    other.clear()
    states.open("third").put_many([(b"a", b"1"), (b"b", b"2"), (b"c", b"3")])
    assert files(tmp_path) == [file_name("one")]


def test_a_folder_that_cannot_be_used_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FatalError, match="AVESA_STATE_DIR"):
        LocalStates(tmp_path / "file").open("acme")


def test_file_names_are_short_and_never_shared() -> None:
    names = ["a/b", "a_b", "a b", "", "x" * 500, "x" * 501, "é", "../../etc/passwd"]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(names)
    assert all(len(name) < 120 and "/" not in name for name in files)
