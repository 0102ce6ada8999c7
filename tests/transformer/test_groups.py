"""Groups: what they are bound to, how that is remembered, and that no table is ever taken back in silence."""

import asyncio
from itertools import combinations

import pytest

from services.contracts.errors import ConflictError, FatalError, RetryableError, UsageError
from services.contracts.log import WaitingFor
from services.contracts.ports import Row
from services.runtime.shards import scope_of
from services.transformer.groups import (
    ALL_TABLES,
    SCOPE,
    WATCH_S,
    Binding,
    bind,
    binding,
    bindings,
    forget,
    join,
    refuse_others,
    remembered,
    watch,
)
from tests.transformer.world import NAMES, World

KNOWN = ("boards", "tickets", "time_entries")
TICKETS = Binding("transformer-x", ("tickets",))
BOTH = Binding("transformer-x", ("tickets", "time_entries"))
REST = Binding("transformer-x", None, ("tickets",))


# -- what is asked for ------------------------------------------------------------------------------------------------
def test_without_options_there_is_one_group_with_all_tables() -> None:
    assert bind(None, None, None, KNOWN) == ALL_TABLES
    assert all(ALL_TABLES.routes_table(table) for table in (*KNOWN, "of_tomorrow"))


def test_a_group_is_bound_to_the_tables_it_names() -> None:
    bound = bind("tickets", "time_entries, tickets,tickets", None, KNOWN)
    assert bound == Binding("transformer-tickets", ("tickets", "time_entries"))
    assert [table for table in (*KNOWN, "of_tomorrow") if bound.routes_table(table)] == ["tickets", "time_entries"]


def test_the_default_group_may_leave_tables_to_others_and_keeps_those_of_tomorrow() -> None:
    bound = bind(None, None, "tickets", KNOWN)
    assert bound == Binding("transformer", None, ("tickets",))
    assert [table for table in (*KNOWN, "of_tomorrow") if not bound.routes_table(table)] == ["tickets"]


@pytest.mark.parametrize(
    ("group", "tables", "others", "what"),
    [
        ("x", "ticket", None, "Did you mean 'tickets'"),
        (None, None, "tikets", "Did you mean 'tickets'"),
        ("x", "holidays", None, "Known: boards, tickets, time_entries"),
        ("x", " , ", None, "names no table"),
        (None, "time_entries", None, "--group time-entries"),
        ("x", "tickets", "boards", "Give one of them"),
        ("Tickets", None, None, "no name of a group"),
        ("", None, None, "no name of a group"),
        ("a" * 33, None, None, "no name of a group"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(
    group: str | None, tables: str | None, others: str | None, what: str
) -> None:
    with pytest.raises(UsageError, match=what):
        bind(group, tables, others, KNOWN)


def test_tables_are_missing_exactly_where_one_is_routed_here_and_not_there() -> None:
    universe = ("a", "b", "of_tomorrow")
    some = [names for count in range(3) for names in combinations(("a", "b"), count)]
    every = [*(Binding("g", names) for names in some), *(Binding("g", None, names) for names in some)]
    for mine in every:
        for held in every:
            missing = any(mine.routes_table(table) and not held.routes_table(table) for table in universe)
            assert bool(mine.missing_from(held)) == missing, (mine, held)


def test_a_row_says_what_was_written_in_it() -> None:
    for bound in (TICKETS, REST, ALL_TABLES):
        row = {"name": bound.group, "tables": bound.tables, "except": list(bound.others), "fan_out": False}
        assert binding(row) == bound


def test_there_is_always_the_group_of_who_names_none() -> None:
    assert bindings([]) == (ALL_TABLES,)
    assert bindings([{"name": "transformer-x", "tables": ["tickets"]}]) == (ALL_TABLES, TICKETS)
    assert bindings([{"name": "transformer", "except": ["tickets"]}]) == (Binding(others=("tickets",)),)


# -- what a position accounts for -------------------------------------------------------------------------------------
def position(bound: Binding | None, **more: object) -> Row:
    return {"scope": "s", "name": "shard-1", "position": "7", "bound": bound.bound if bound else None, **more}


def test_whoever_is_bound_to_less_may_go_on_from_any_position() -> None:
    for mine, held in ((TICKETS, BOTH), (TICKETS, TICKETS), (REST, ALL_TABLES), (TICKETS, None), (ALL_TABLES, None)):
        refuse_others(mine, [position(held)])


def test_nobody_goes_on_from_a_position_that_has_passed_one_of_its_tables() -> None:
    for mine, held in ((BOTH, TICKETS), (ALL_TABLES, REST), (REST, TICKETS), (TICKETS, REST), (ALL_TABLES, TICKETS)):
        for row in (position(held), position(held, position=None, ended=True)):
            with pytest.raises(FatalError, match="is past their events") as caught:
                refuse_others(mine, [{}, row])
            assert "--group" in caught.value.remedy


def test_where_nothing_was_read_nothing_has_passed() -> None:
    refuse_others(ALL_TABLES, [{}, position(TICKETS, position=None)])


# -- how it is remembered ---------------------------------------------------------------------------------------------
class Fleet:
    """One group's row, and the lease row of its first shard."""

    def __init__(self) -> None:
        self.world = World()
        self.runtime = self.world.runtime()

    async def has_read(self, group: str = TICKETS.group) -> None:
        created = (await self.world.streams.describe(NAMES.raw_stream)).created
        key = {"scope": scope_of(NAMES.raw_stream, created, group), "name": "shardId-000000000000"}
        await self.world.rows.write(NAMES.leases, key, {"position": "7"})

    async def row(self) -> Row:
        return await self.world.rows.get(NAMES.leases, {"scope": SCOPE, "name": TICKETS.group}) or {}

    async def bound(self) -> Binding:
        return binding(await self.row())


async def test_a_start_is_remembered() -> None:
    fleet = Fleet()
    await join(fleet.runtime, BOTH)
    assert (await fleet.bound()).same_tables(BOTH)
    assert (await fleet.row())["at"] == fleet.world.clock.now()


async def test_a_start_that_changes_nothing_writes_nothing() -> None:
    fleet = Fleet()
    await join(fleet.runtime, BOTH)
    was = await fleet.row()
    fleet.world.clock.advance(60)
    await join(fleet.world.runtime(), BOTH)
    assert await fleet.row() == was


async def test_a_group_may_always_leave_tables_to_others() -> None:
    fleet = Fleet()
    await join(fleet.runtime, BOTH)
    await fleet.has_read()
    await join(fleet.runtime, TICKETS)
    assert (await fleet.bound()).same_tables(TICKETS)


@pytest.mark.parametrize(("held", "wanted"), [(TICKETS, BOTH), (REST, Binding(REST.group)), (TICKETS, REST)])
async def test_a_group_that_has_worked_takes_no_table_back(held: Binding, wanted: Binding) -> None:
    fleet = Fleet()
    await join(fleet.runtime, held)
    await fleet.has_read()
    with pytest.raises(FatalError, match="left tables to others") as caught:
        await join(fleet.runtime, wanted)
    assert "replay" in caught.value.remedy
    assert (await fleet.bound()).same_tables(held)


async def test_a_group_that_has_not_read_anything_yet_may_be_bound_to_more() -> None:
    fleet = Fleet()
    await join(fleet.runtime, TICKETS)
    await fleet.has_read(group="transformer")  # another one has
    await join(fleet.runtime, BOTH)
    assert (await fleet.bound()).same_tables(BOTH)


async def test_a_stream_that_was_made_anew_begins_anew() -> None:
    fleet = Fleet()
    await join(fleet.runtime, TICKETS)
    await fleet.has_read()
    fleet.world.streams.delete(NAMES.raw_stream)
    await join(fleet.runtime, BOTH)
    fleet.world.streams.create(NAMES.raw_stream)
    await join(fleet.runtime, BOTH)


async def test_of_two_starts_at_once_the_later_sees_what_the_earlier_wrote() -> None:
    fleet = Fleet()
    await fleet.has_read()
    done = await asyncio.gather(join(fleet.runtime, TICKETS), join(fleet.world.runtime(), BOTH), return_exceptions=True)
    assert [type(one) for one in done] == [type(None), FatalError]
    assert (await fleet.bound()).same_tables(TICKETS)


async def test_a_start_whose_answer_was_lost_or_that_was_throttled_is_repeated() -> None:
    fleet = Fleet()
    fleet.world.rows.lose_next("write")
    fleet.world.rows.fail_next("get", RetryableError("throttled"), 3)
    await join(fleet.runtime, TICKETS)
    assert (await fleet.row())["number"] == 1
    assert len(fleet.world.of(WaitingFor)) == 4


async def test_a_start_that_finds_no_table_of_leases_in_time_gives_up() -> None:
    fleet = Fleet()
    fleet.world.rows.fail_next("get", RetryableError("throttled"), 99)
    with pytest.raises(RetryableError):
        await join(fleet.runtime, TICKETS)
    assert 30 < fleet.world.clock.monotonic() < 120


# -- while it runs ----------------------------------------------------------------------------------------------------
async def test_a_worker_learns_that_its_group_was_bound_otherwise() -> None:
    fleet = Fleet()
    await join(fleet.runtime, BOTH)
    watching = asyncio.create_task(watch(fleet.runtime, BOTH, asyncio.Event()))
    await fleet.world.clock.sleep(3 * WATCH_S)
    assert not watching.done()
    await join(fleet.world.runtime(), TICKETS)
    await fleet.world.clock.sleep(WATCH_S + 1)
    with pytest.raises(FatalError, match="to other tables"):
        watching.result()


async def test_watching_survives_errors_ends_at_once_when_asked_and_sees_that_the_group_is_known() -> None:
    fleet, stopping = Fleet(), asyncio.Event()
    await join(fleet.runtime, BOTH)
    watching = asyncio.create_task(watch(fleet.runtime, BOTH, stopping))
    fleet.world.rows.fail_next("get", RetryableError("throttled"))
    fleet.world.rows.fail_next("write", ConflictError("another was first"))
    await forget(fleet.world.runtime(), BOTH.group)
    await fleet.world.clock.sleep(4 * WATCH_S)
    assert (await fleet.bound()).same_tables(BOTH)
    stopping.set()
    await asyncio.wait_for(watching, 1)


async def test_a_group_that_nobody_runs_any_more_can_be_forgotten() -> None:
    fleet = Fleet()
    await join(fleet.runtime, TICKETS)
    assert [one.group for one in await remembered(fleet.runtime)] == ["transformer", "transformer-x"]
    await forget(fleet.runtime, TICKETS.group)
    assert await remembered(fleet.runtime) == (ALL_TABLES,)


@pytest.mark.parametrize("group", ["transformer", "transformer-y"])
async def test_the_group_there_always_is_and_one_nobody_knows_are_not_forgotten(group: str) -> None:
    fleet = Fleet()
    await join(fleet.runtime, TICKETS)
    with pytest.raises(UsageError, match="Known: x"):
        await forget(fleet.runtime, group)
