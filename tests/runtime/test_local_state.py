"""What only the store on disk has; the rest is in ports/test_local_state.py."""

from pathlib import Path

import pytest

from services.contracts.errors import FatalError, RetryableError
from services.runtime.local_state import SqliteStates, file_name


def test_a_full_disk_is_said_and_loses_nothing_of_before(tmp_path: Path) -> None:
    state = SqliteStates(tmp_path, bytes_max=64 << 10).open("acme")
    state.put_many([(b"before", b"1")])
    with pytest.raises(RetryableError) as caught:
        state.put_many((b"%d" % number, bytes(1_000)) for number in range(1_000))
    assert caught.value.code == "disk_full"
    assert "AVESA_STATE_DIR" in caught.value.remedy
    state.put_many([(b"after", b"2")])
    assert dict(state.items()) == {b"before": b"1", b"after": b"2"}
    state.close()


def test_whoever_holds_a_store_opened_again_by_another_harms_nobody(tmp_path: Path) -> None:
    states = SqliteStates(tmp_path)
    old = states.open("acme")
    new = states.open("acme")
    old.put_many([(b"k", b"old")])
    assert new.get(b"k") is None
    old.close()
    new.put_many([(b"k", b"new")])
    assert new.get(b"k") == b"new"
    new.close()


def test_one_store_is_one_file_and_closing_takes_it_away(tmp_path: Path) -> None:
    state = SqliteStates(tmp_path / "deep" / "state").open("acme/connectwise/tickets/0")
    state.put_many([(b"k", b"1")])
    assert [path.name for path in (tmp_path / "deep" / "state").iterdir()] == [file_name("acme/connectwise/tickets/0")]
    state.close()
    assert list((tmp_path / "deep" / "state").iterdir()) == []


def test_a_folder_that_cannot_be_used_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FatalError, match="AVESA_STATE_DIR"):
        SqliteStates(tmp_path / "file").open("acme")


def test_file_names_are_short_and_never_shared() -> None:
    names = ["a/b", "a_b", "a b", "", "x" * 500, "x" * 501, "é", "../../etc/passwd"]
    files = [file_name(name) for name in names]
    assert len(set(files)) == len(names)
    assert all(len(name) < 120 and "/" not in name for name in files)
