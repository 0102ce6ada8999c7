"""A watch over a shard: what it takes for a gap, and what it does before anybody reads on."""

import msgspec
import pytest

from services.contracts.errors import RetryableError
from services.contracts.gaps import Gap, GapRules, Policy
from services.contracts.log import Event, PositionExpired
from services.contracts.names import Names
from services.contracts.partitions import HashRange
from services.contracts.ports import Record, Row, Shard
from services.contracts.times import shifted
from services.runtime.gaps import Gaps, HaltedError, Watch, gaps, record
from services.runtime.provision import table_keys
from tests.fakes import FakeClock, MemoryRows, MemoryStreams
from tests.runtimes import fake_runtime

NAMES = Names("test")
DAY_S = 86_400.0
SHARD = Shard("shard", HashRange(5, 9))
SCOPE = "reader/stream/2026"


class Reader:
    """One reader of one shard, whose stream keeps a record for a day."""

    def __init__(self, policy: Policy = "continue") -> None:
        self.clock = FakeClock("2026-01-31T00:00:00.000000Z")
        self.rows = MemoryRows(table_keys(NAMES))
        self.said: list[Event] = []
        self.runtime = fake_runtime(NAMES, self.clock, MemoryStreams(self.clock), self.rows, emit=self.said.append)
        self.policy: Policy = policy

    async def watch(self, row: Row, parents: tuple[Row, ...] = (), shard: Shard = SHARD) -> Watch:
        await self.rows.write(NAMES.leases, {"scope": SCOPE, "name": shard.shard_id}, row)
        lease = await self.runtime.leases.acquire(SCOPE, shard.shard_id)
        assert lease is not None
        self.runtime.leases.forget(lease)
        return await Gaps(self.runtime, GapRules(DAY_S, self.policy), "reader", "stream").watch(
            lease, shard, await lease.committed(), parents
        )

    async def gaps(self) -> list[Gap]:
        return await gaps(self.runtime)

    def passed(self, seconds: float) -> str:
        self.clock.advance(seconds)
        return self.clock.now()

    @property
    def alarms(self) -> int:
        return sum(isinstance(event, PositionExpired) for event in self.said)


def day(number: int) -> str:
    return f"2026-01-{number:02d}T00:00:00.000000Z"


def arrived(sequence: int, time: str) -> list[Record]:
    return [Record(str(sequence), time, b"")]


async def test_row_30_what_a_reader_that_was_away_may_have_missed_is_noted_before_it_reads_on() -> None:
    reader = Reader()
    since, now = reader.clock.now(), reader.passed(3 * DAY_S)
    watch = await reader.watch({"position": "7", "arrived_at": since})
    await watch.meet(arrived(8, now), caught_up=True)
    (gap,) = await reader.gaps()
    assert (gap.name, gap.state, gap.first, gap.last) == ("reader:stream:shard:7", "open", "5", "9")
    assert (gap.since, gap.until) == (since, shifted(now, seconds=600 - DAY_S))
    assert (reader.alarms, watch.complete_until) == (1, now)


async def test_row_56_a_quiet_shard_that_is_read_is_no_gap() -> None:
    reader = Reader()
    watch = await reader.watch({"position": "7", "arrived_at": reader.clock.now()})
    for _ in range(100):
        reader.passed(3_600)
        await watch.meet([], caught_up=True)
    assert (await reader.gaps(), reader.alarms) == ([], 0)


async def test_a_shard_that_was_never_read_has_missed_nothing_of_ours() -> None:
    reader = Reader()
    await (await reader.watch({})).meet(arrived(8, reader.passed(9 * DAY_S)), caught_up=True)
    assert await reader.gaps() == []


async def test_a_reader_that_never_stops_and_falls_behind_retention_notes_one_gap_that_grows() -> None:
    reader = Reader()
    start = reader.clock.now()
    watch = await reader.watch({"position": "1", "arrived_at": start})
    for number in range(2, 50):  # an hour of the stream takes it an hour and a half
        now = reader.passed(5_400)
        await watch.meet(arrived(number, shifted(start, seconds=3_600 * number)), caught_up=False)
    (gap,) = await reader.gaps()
    assert shifted(now, seconds=300 - DAY_S) <= gap.until <= shifted(now, seconds=600 - DAY_S)
    assert reader.alarms == 1


async def test_a_gap_after_one_that_was_made_good_is_another() -> None:
    reader = Reader()
    watch = await reader.watch({"position": "1", "arrived_at": reader.clock.now()})
    for number in (2, 3):
        await watch.meet(arrived(number, reader.passed(3 * DAY_S)), caught_up=True)
    assert [gap.position for gap in await reader.gaps()] == ["1", "2"]
    assert reader.alarms == 2


async def test_who_reads_the_same_position_again_a_day_later_has_missed_a_day_more() -> None:
    reader = Reader()
    row = {"position": "1", "arrived_at": reader.clock.now()}
    for days in (3, 1):
        now = reader.passed(days * DAY_S)
        await (await reader.watch(row)).meet([], caught_up=False)
    (gap,) = await reader.gaps()
    assert (gap.since, gap.until) == (row["arrived_at"], shifted(now, seconds=600 - DAY_S))


async def test_with_the_policy_to_halt_nothing_is_read_on_until_the_policy_is_another() -> None:
    reader = Reader("halt")
    row = {"position": "1", "arrived_at": reader.clock.now()}
    now = reader.passed(3 * DAY_S)
    with pytest.raises(HaltedError, match="AVESA_ON_GAP=continue"):
        await (await reader.watch(row)).meet(arrived(2, now), caught_up=True)
    assert [gap.state for gap in await reader.gaps()] == ["halted"]
    reader.policy = "continue"
    await (await reader.watch(row)).meet(arrived(2, now), caught_up=True)
    assert [gap.state for gap in await reader.gaps()] == ["open"]


async def test_a_gap_that_cannot_be_noted_is_not_passed() -> None:
    reader = Reader()
    watch = await reader.watch({"position": "1", "arrived_at": reader.clock.now()})
    reader.passed(3 * DAY_S)
    reader.rows.fail_next("write", RetryableError("throttled"))
    with pytest.raises(RetryableError):
        await watch.meet(arrived(2, reader.clock.now()), caught_up=True)
    assert watch.complete_until == "2026-01-31T00:00:00.000000Z"
    await watch.meet(arrived(2, reader.clock.now()), caught_up=True)
    assert len(await reader.gaps()) == 1


async def test_an_answer_lost_after_a_gap_was_noted_still_rings_the_alarm() -> None:
    reader = Reader()
    row = {"position": "1", "arrived_at": reader.clock.now()}
    reader.passed(3 * DAY_S)
    watch = await reader.watch(row)
    reader.rows.lose_next("write")
    with pytest.raises(RetryableError):
        await watch.meet([], caught_up=True)
    await (await reader.watch(row)).meet([], caught_up=True)
    assert (len(await reader.gaps()), reader.alarms) == (1, 1)


async def test_a_child_whose_parent_is_no_longer_listed_and_was_not_read_to_its_end_misses_the_rest_of_it() -> None:
    reader = Reader()
    parent = {"scope": SCOPE, "name": "parent", "position": "7", "arrived_at": reader.clock.now()}
    reader.passed(3 * DAY_S)
    child = Shard("child", HashRange(5, 9), ("parent",))
    await (await reader.watch({}, (parent,), child)).meet([], caught_up=True)
    (gap,) = await reader.gaps()
    assert (gap.shard, gap.since) == ("child", parent["arrived_at"])


async def test_a_grandchild_that_knows_none_of_its_ancestors_misses_what_the_group_left() -> None:
    reader = Reader()
    since = reader.clock.now()
    await reader.rows.write(NAMES.leases, {"scope": SCOPE, "name": "old"}, {"position": "7", "arrived_at": since})
    reader.passed(3 * DAY_S)
    child = Shard("grandchild", HashRange(5, 9), ("unknown",))
    await (await reader.watch({}, (), child)).meet([], caught_up=True)
    assert [(gap.shard, gap.since) for gap in await reader.gaps()] == [("grandchild", since)]


async def test_a_child_of_a_parent_that_was_read_to_its_end_misses_nothing() -> None:
    reader = Reader()
    parent = {"name": "parent", "position": "7", "arrived_at": reader.clock.now(), "ended": True}
    await (await reader.watch({}, (parent,), Shard("child", HashRange(5, 9), ("parent",)))).meet([], caught_up=True)
    assert await reader.gaps() == []


async def test_a_gap_that_grows_while_it_is_healed_is_open_again() -> None:
    reader = Reader()
    gap = Gap(group="g", stream="s", shard="a", since=day(1), until=day(2), at=day(9))
    await record(reader.runtime, gap)
    await reader.rows.write(NAMES.leases, gap.key, {"state": "source", "asked_at": day(9)})
    await record(reader.runtime, gap)
    assert [held.state for held in await reader.gaps()] == ["source"]
    await record(reader.runtime, msgspec.structs.replace(gap, until=day(3)))
    (held,) = await reader.gaps()
    assert (held.state, held.asked_at, held.until) == ("open", None, day(3))
