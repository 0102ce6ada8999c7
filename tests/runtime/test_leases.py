"""Leases: one owner at a time has effects, and a dead one is replaced within a bounded time."""

import asyncio

import pytest

from services.contracts.errors import FencedError, NotFoundError, RetryableError, UnauthorizedError
from services.runtime.leases import RENEWALS_PER_LEASE, Leases
from tests.fakes import Call, FakeChance, FakeClock, MemoryRows

LEASE_S = 10.0


class Fleet:
    """Workers on one table and one clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.rows = MemoryRows({"Leases": ("scope", "name")})

    def worker(self, seed: int) -> Leases:
        return Leases(self.rows, "Leases", self.clock, FakeChance(seed), lambda _: None, LEASE_S)


async def test_work_that_is_new_is_ours_at_once_and_no_one_elses() -> None:
    fleet = Fleet()
    first, second = fleet.worker(1), fleet.worker(2)
    assert await first.acquire("shards", "a") is not None
    assert await second.acquire("shards", "a") is None


async def test_a_silent_owner_is_replaced_after_one_lease_time_of_the_observers_own_clock() -> None:
    fleet = Fleet()
    killed = await fleet.worker(1).acquire("shards", "a")  # and never renewed
    assert killed is not None
    second = fleet.worker(2)
    assert await second.acquire("shards", "a") is None
    fleet.clock.set("2030-01-01T00:00:00.000000Z")  # a step of the wall clock proves nothing
    assert await second.acquire("shards", "a") is None
    fleet.clock.advance(LEASE_S)
    lease = await second.acquire("shards", "a")
    assert lease is not None
    assert (lease.epoch, lease.taken_over) == (killed.epoch + 1, True)


async def test_an_owner_that_renews_is_never_replaced() -> None:
    fleet = Fleet()
    first, second = fleet.worker(1), fleet.worker(2)
    lease = await first.acquire("shards", "a")
    renewing = asyncio.create_task(first.renew_forever())
    assert await second.wait_for("shards", "a", LEASE_S * 5) is None
    assert lease is not None
    assert not lease.lost.is_set()
    renewing.cancel()


async def test_what_was_used_is_told_at_each_renewal_and_as_it_is_when_the_work_is_let_go() -> None:
    fleet, key = Fleet(), {"scope": "shards", "name": "a"}
    first, second = fleet.worker(1), fleet.worker(2)
    lease = await first.acquire("shards", "a")
    assert lease is not None
    lease.news = lambda: {"used": f"at {fleet.clock.monotonic()}"}
    renewing = asyncio.create_task(first.renew_forever())
    await fleet.clock.sleep(LEASE_S / RENEWALS_PER_LEASE + 1)
    row = await fleet.rows.get("Leases", key)
    assert row is not None
    assert row["progress"]["used"] == "at 2.5"
    await lease.release()
    renewing.cancel()
    for worker in (second, first):  # and by one who tells nothing it is carried on
        successor = await worker.acquire("shards", "a")
        assert successor is not None
        assert successor.row["progress"]["used"] == "at 3.5"
        await successor.release()


async def test_an_owner_that_was_replaced_can_commit_nothing_any_more() -> None:
    fleet = Fleet()
    frozen = await fleet.worker(1).acquire("shards", "a")
    second = await fleet.worker(2).wait_for("shards", "a", LEASE_S * 2)
    assert frozen is not None
    assert second is not None
    await second.commit({"position": "7"})
    with pytest.raises(FencedError):
        await frozen.commit({"position": "3"})
    assert frozen.lost.is_set()
    row = await fleet.rows.get("Leases", {"scope": "shards", "name": "a"})
    assert row is not None
    assert row["position"] == "7"


async def test_what_was_committed_is_found_by_the_next_owner_at_once_after_a_release() -> None:
    fleet = Fleet()
    lease = await fleet.worker(1).acquire("shards", "a")
    assert lease is not None
    await lease.commit({"position": "7", "state": [{"key": "x", "size": 1}]})
    await lease.release()
    following = await fleet.worker(2).acquire("shards", "a")
    assert following is not None
    assert (following.row["position"], following.taken_over) == ("7", False)


async def test_a_commit_whose_answer_was_lost_may_be_repeated() -> None:
    fleet = Fleet()
    lease = await fleet.worker(1).acquire("shards", "a")
    assert lease is not None
    fleet.rows.lose_next("write")
    with pytest.raises(RetryableError):
        await lease.commit({"position": "7"})
    await lease.commit({"position": "7"})


async def test_an_owner_that_cannot_renew_stops_before_others_take_over() -> None:
    fleet = Fleet()
    first = fleet.worker(1)
    lease = await first.acquire("shards", "a")
    fleet.rows.fail_next("write", RetryableError("throttled"), times=100)
    renewing = asyncio.create_task(first.renew_forever())
    await fleet.clock.sleep(LEASE_S * 1.1)
    assert lease is not None
    assert lease.lost.is_set()
    renewing.cancel()


async def test_a_lease_taken_by_a_call_whose_answer_was_lost_is_taken_again() -> None:
    fleet = Fleet()
    first = fleet.worker(1)
    fleet.rows.lose_next("write")
    with pytest.raises(RetryableError):
        await first.acquire("shards", "a")
    (row,) = [row async for row in fleet.rows.scan("Leases")]
    lease = await first.acquire("shards", "a")
    assert lease is not None
    assert (lease.epoch, lease.taken_over) == (row["epoch"] + 1, False)


async def test_two_that_try_at_once_have_one_winner() -> None:
    fleet = Fleet()
    leases = await asyncio.gather(*(fleet.worker(seed).acquire("shards", "a") for seed in range(8)))
    assert len([lease for lease in leases if lease is not None]) == 1


async def test_what_an_owner_had_read_is_told_to_the_one_who_takes_over() -> None:
    fleet = Fleet()
    first = fleet.worker(1)
    lease = await first.acquire("shards", "a")
    assert lease is not None
    lease.progress = {"position": "12"}
    renewing = asyncio.create_task(first.renew_forever())
    await fleet.clock.sleep(LEASE_S / 2)
    renewing.cancel()
    following = await fleet.worker(2).wait_for("shards", "a", LEASE_S * 2)
    assert following is not None
    assert following.row["progress"] == {"position": "12"}


async def test_a_row_that_was_removed_is_made_again_as_it_stood_by_its_living_owner() -> None:
    fleet = Fleet()
    lease = await fleet.worker(1).acquire("shards", "a")
    assert lease is not None
    await lease.commit({"position": "7", "state": [{"key": "x", "size": 1}]})
    await fleet.rows.delete("Leases", lease.key)
    await lease.commit({"position": "8"})
    row = await fleet.rows.get("Leases", lease.key)
    assert row is not None
    assert (row["position"], row["state"], row["epoch"]) == ("8", [{"key": "x", "size": 1}], lease.epoch)


async def test_a_row_that_was_removed_is_not_made_again_by_an_owner_who_may_have_lost_it() -> None:
    fleet = Fleet()
    lease = await fleet.worker(1).acquire("shards", "a")
    assert lease is not None
    await fleet.rows.delete("Leases", lease.key)
    fleet.clock.advance(LEASE_S)
    with pytest.raises(FencedError):
        await lease.commit({"position": "8"})
    assert await fleet.rows.get("Leases", lease.key) is None


async def test_a_row_made_anew_begins_above_every_epoch_of_the_one_that_was_lost() -> None:
    fleet = Fleet()
    lease = await fleet.worker(1).acquire("shards", "a")
    assert lease is not None
    await fleet.rows.delete("Leases", lease.key)
    fleet.clock.advance(60)
    following = await fleet.worker(2).acquire("shards", "a")
    assert following is not None
    assert following.epoch > lease.epoch


async def test_deaths_count_owners_that_ended_badly_until_somebody_commits() -> None:
    fleet = Fleet()
    leases = [await fleet.worker(seed).wait_for("shards", "a", LEASE_S * 2) for seed in (1, 2, 3)]  # each dies
    assert [lease and lease.deaths for lease in leases] == [0, 1, 2]
    lease = leases[-1]
    assert lease is not None
    await lease.note({"trial": "x"})
    await lease.release(badly=True)
    following = await fleet.worker(4).acquire("shards", "a")
    assert following is not None
    assert following.deaths == 3
    await following.commit({"position": "1"})
    await following.release()
    last = await fleet.worker(5).acquire("shards", "a")
    assert last is not None
    assert last.deaths == 0


async def test_what_is_let_go_for_another_is_left_to_it_and_after_a_lease_time_to_anybody() -> None:
    fleet = Fleet()
    owner, asker, third = fleet.worker(1), fleet.worker(2), fleet.worker(3)
    lease = await owner.acquire("shards", "a")
    assert lease is not None
    assert await asker.ask("shards", "a", (await asker.survey("shards"))["a"])
    assert not await third.ask("shards", "a", (await third.survey("shards"))["a"])
    await lease.release()
    assert await third.acquire("shards", "a") is None
    taken = await asker.acquire("shards", "a")
    assert taken is not None
    assert not taken.taken_over
    assert await asker.ask("shards", "a", (await asker.survey("shards"))["a"])
    await taken.release()
    assert await third.acquire("shards", "a") is None
    fleet.clock.advance(LEASE_S)
    assert await third.acquire("shards", "a") is not None


async def test_a_row_that_a_renewal_made_again_takes_the_next_commit() -> None:
    fleet = Fleet()
    first = fleet.worker(1)
    lease = await first.acquire("shards", "a")
    assert lease is not None
    await lease.commit({"position": "1"})
    await lease.commit({"position": "2"})
    renewing = asyncio.create_task(first.renew_forever())
    await fleet.rows.delete("Leases", lease.key)
    await fleet.clock.sleep(LEASE_S / 2)
    renewing.cancel()
    await lease.commit({"position": "3"})
    row = await fleet.rows.get("Leases", lease.key)
    assert row is not None
    assert (row["position"], row["epoch"]) == ("3", lease.epoch)


@pytest.mark.parametrize("error", [UnauthorizedError("expired"), NotFoundError("no table")])
async def test_renewing_goes_on_whatever_one_renewal_meets(error: Exception) -> None:
    fleet = Fleet()
    first = fleet.worker(1)
    lease = await first.acquire("shards", "a")
    renewing = asyncio.create_task(first.renew_forever())
    fleet.rows.fail_next("write", error)
    await fleet.clock.sleep(LEASE_S * 3)
    assert lease is not None
    assert (renewing.done(), lease.lost.is_set()) == (False, False)
    renewing.cancel()


async def test_a_renewal_that_gets_no_answer_holds_up_neither_the_others_nor_its_own_end() -> None:
    fleet = Fleet()

    async def hang(call: Call) -> None:
        if call.method == "write" and hanging:
            hanging.pop()
            await fleet.clock.sleep(LEASE_S * 9)

    hanging: list[bool] = []
    fleet.rows.before = hang
    first = fleet.worker(1)
    leases = [await first.acquire("shards", name) for name in "ab"]
    hanging += [True]
    renewing = asyncio.create_task(first.renew_forever())
    await fleet.clock.sleep(LEASE_S * 3)
    assert [lease is not None and lease.lost.is_set() for lease in leases] == [False, False]
    hanging += [True] * 100
    await fleet.clock.sleep(LEASE_S * 1.1)
    assert [lease is not None and lease.lost.is_set() for lease in leases] == [True, True]
    renewing.cancel()


async def test_renewals_that_were_applied_and_not_answered_are_signs_of_life_each() -> None:
    fleet = Fleet()
    first = fleet.worker(1)
    await first.acquire("shards", "a")
    renewing = asyncio.create_task(first.renew_forever())
    counters = []
    fleet.rows.lose_next("write", times=2)
    for _ in range(3):
        await fleet.clock.sleep(LEASE_S / RENEWALS_PER_LEASE)
        (row,) = [row async for row in fleet.rows.scan("Leases")]
        counters.append(row["counter"])
    renewing.cancel()
    assert len(set(counters)) == len(counters)
