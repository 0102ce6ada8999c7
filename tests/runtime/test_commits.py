"""Commits of one owner to one row: each takes effect once, and none after a later one."""

import pytest

from services.contracts.errors import ConflictError, RetryableError
from services.contracts.ports import Row, Value
from services.runtime.commits import Commits
from tests.fakes import MemoryRows

KEY = {"scope": "s", "name": "n"}
FENCE: dict[str, Value] = {"owner": "me", "epoch": 1}


async def rows() -> MemoryRows:
    held = MemoryRows({"T": ("scope", "name")})
    await held.write("T", KEY, FENCE)
    return held


async def row(held: MemoryRows) -> Row:
    found = await held.get("T", KEY)
    assert found is not None
    return found


async def test_a_commit_that_lands_after_a_later_one_has_no_effect() -> None:
    held = await rows()
    commits = Commits(held, "T", KEY, 0)
    await commits.commit({"position": "1"}, FENCE)
    await commits.commit({"position": "2"}, FENCE)
    with pytest.raises(ConflictError):  # as the wire brings it once more
        await held.write("T", KEY, {"position": "1", "commits": 1}, {**FENCE, "commits": None})
    assert (await row(held))["position"] == "2"


async def test_a_commit_whose_answer_was_lost_is_known_again_and_the_next_follows() -> None:
    held = await rows()
    commits = Commits(held, "T", KEY, 0)
    held.lose_next("write")
    with pytest.raises(RetryableError):
        await commits.commit({"position": "1", "state": ({"key": "a", "size": 1},), "gone": None}, FENCE)
    await commits.commit({"position": "2"}, FENCE)
    assert (await row(held))["position"] == "2"
    assert (await row(held))["state"] == [{"key": "a", "size": 1}]
    assert commits.number == 2


async def test_a_commit_that_never_arrived_is_made_before_the_next() -> None:
    held = await rows()
    commits = Commits(held, "T", KEY, 0)
    held.fail_next("write", RetryableError("down"))
    with pytest.raises(RetryableError):
        await commits.commit({"position": "1", "cut": "7"}, FENCE)
    await commits.commit({"position": "2"}, FENCE)
    assert {name: (await row(held))[name] for name in ("position", "cut")} == {"position": "2", "cut": "7"}


async def test_a_row_that_is_another_owners_or_has_seen_another_commit_is_left_alone() -> None:
    held = await rows()
    commits = Commits(held, "T", KEY, 0)
    await held.write("T", KEY, {"owner": "you"})
    with pytest.raises(ConflictError):
        await commits.commit({"position": "1"}, FENCE)
    await held.write("T", KEY, {"owner": "me", "commits": 4})
    with pytest.raises(ConflictError):
        await commits.commit({"position": "1"}, FENCE)
    assert "position" not in await row(held)
