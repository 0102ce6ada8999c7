"""The service over the ports in memory: killed, stopped, resharded, with the catalog down; the lake is right."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import msgspec
import pytest

from services.compactor import parquet
from services.compactor.cuts import Rules
from services.compactor.merging import SCOPE, TABLES_AT_ONCE, merge_step
from services.contracts.errors import FatalError, RetryableError
from services.contracts.gaps import GapRules
from services.contracts.log import (
    CutCommitted,
    EventsReadAgain,
    LakeBehind,
    LeaseGained,
    PositionExpired,
    RecordsRejected,
    Retried,
    ShardsBehind,
    TableMerged,
)
from services.contracts.partitions import Partition
from services.contracts.ports import Entry
from services.contracts.rows import folded_rows
from services.contracts.times import seconds_between
from services.runtime.envelopes import seal
from tests.compactor.observed import TABLES, TENANT, read, seen
from tests.compactor.plant import Plant
from tests.fakes import InlineThreads

P = ParamSpec("P")
T = TypeVar("T")

HISTORY = [
    seen({"summary": "A"}, 1),
    seen({"summary": "A", "views": 1}, 3),
    seen({"summary": "X"}, 1, record_id="2"),
    seen(None, 4, record_id="2"),
]
LATER = [
    seen({"summary": "B"}, 2),
    seen({"summary": "Y"}, 5, record_id="2"),
    seen({"name": "U"}, 1, table=TABLES["users"]),
]


async def test_a_drain_reads_both_streams_cuts_merges_and_tells_what_it_did() -> None:
    plant = Plant()
    await plant.put(*HISTORY, read("1", 1), read("2", 1))
    totals = await plant.drain()
    assert (totals.raw_events, totals.observations, totals.cuts, totals.files, totals.merges) == (2, 4, 2, 2, 1)
    assert plant.histories.rows() == folded_rows(HISTORY, TABLES)
    assert plant.raw() == [read("1", 1), read("2", 1)]
    assert plant.keys("/spool/") == []
    assert (await plant.drain()).cuts == 0


async def test_what_is_killed_anywhere_is_completed_by_the_next_and_the_lake_is_the_same() -> None:
    kills = 0
    for call in range(1, 500):
        plant = Plant()
        await plant.put(*HISTORY, read("1", 1), read("2", 2))
        await plant.drain()
        await plant.put(*LATER, read("3", 3))
        killed = await plant.drain_killed_at(call)
        kills += killed
        await plant.drain()
        assert plant.histories.rows() == folded_rows([*HISTORY, *LATER], TABLES), f"killed at call {call}"
        assert sorted(plant.raw(), key=lambda event: event.record_id) == [read("1", 1), read("2", 2), read("3", 3)]
        assert len(plant.canonical()) == len([*HISTORY, *LATER])
        if not killed:
            break
    assert kills > 40


async def test_a_merge_that_dies_between_its_two_commits_is_merged_again() -> None:
    for dies_at in ("timeline", "versions"):
        plant = Plant()
        await plant.put(*HISTORY)
        await plant.drain()
        await plant.put(*LATER)
        plant.histories.dies_at = [dies_at]
        await plant.drain()
        assert plant.histories.rows() == folded_rows([*HISTORY, *LATER], TABLES)


async def test_a_recorded_cut_is_completed_under_the_same_names_with_the_same_bytes() -> None:
    recorded = 0
    for call in range(1, 200):
        plant = Plant()
        await plant.put(*HISTORY)
        if not await plant.drain_killed_at(call):
            break
        before = {key: plant.objects.held[key] for key in plant.keys("/canonical/")}
        cuts = [row.cut.number for row in (await plant.shard_rows(plant.names.canonical_stream)).values() if row.cut]
        recorded += len(cuts)
        await plant.drain()
        (key,) = plant.keys("/canonical/")
        assert all(key.endswith(f"-{number:012d}.parquet") for number in cuts)
        assert before in ({}, {key: plant.objects.held[key]})
        assert len(plant.canonical()) == len(HISTORY)
    assert recorded >= 3  # before its file, between file and manifest, before its commit


async def test_a_shard_whose_row_was_lost_is_read_from_its_start_under_names_of_its_own() -> None:
    plant = Plant()
    await plant.put(*HISTORY)
    await plant.drain()
    info = await plant.streams.describe(plant.names.canonical_stream)
    scope = f"compactor/{plant.names.canonical_stream}/{info.created}"
    await plant.rows.delete(plant.names.leases, {"scope": scope, "name": info.shards[0].shard_id})
    plant.clock.advance(60)
    await plant.put(seen({"summary": "after"}, 90))
    await plant.drain()
    rows = plant.histories.rows()
    assert rows == folded_rows([*HISTORY, seen({"summary": "after"}, 90)], TABLES)


async def test_files_of_a_recorded_cut_written_by_another_version_of_the_program_stand() -> None:
    plant = Plant()
    await plant.put(*HISTORY)
    await plant.drain()
    (key,) = plant.keys("/canonical/")
    other = Plant()
    await other.put(*HISTORY)
    about = parquet.about(plant.objects.held[key])
    older = parquet.write(parquet.read(plant.objects.held[key]).drop_columns(["note"]), about)
    assert older != plant.objects.held[key]
    other.objects.held[key] = older
    await other.drain()
    assert other.objects.held[key] == older
    assert len(other.histories.rows()) == len(folded_rows(HISTORY, TABLES))


async def test_a_file_of_somebody_else_under_our_name_stops_us_and_stays() -> None:
    plant = Plant()
    await plant.put(*HISTORY)
    await plant.drain()
    (key,) = plant.keys("/canonical/")
    other = Plant()
    await other.put(*HISTORY)
    theirs = other.objects.held[key] = parquet.canonical_file(HISTORY, TABLES["tickets"], {"cut": "7"})
    with pytest.raises(FatalError, match="written by somebody else"):
        await other.drain()
    assert other.objects.held[key] == theirs


async def test_replayed_envelopes_are_not_archived_again_but_their_observations_are_folded() -> None:
    plant = Plant()
    await plant.put(read("1", 1), replay=True)
    await plant.put(*HISTORY, replay=True)
    await plant.drain()
    assert plant.raw() == []
    assert plant.histories.rows() == folded_rows(HISTORY, TABLES)


async def test_what_cannot_be_read_becomes_a_dead_letter_and_the_rest_flow_on() -> None:
    plant = Plant()
    stream = plant.names.canonical_stream
    partition = Partition(TENANT, "connectwise", "tickets")
    strange = msgspec.structs.replace(seen({"summary": "A"}, 2), row=msgspec.Raw(b'{"views":"many"}'))
    foreign = seen({"summary": "theirs"}, 3, tenant_id="other")
    lines = [msgspec.json.encode(event) for event in (HISTORY[0], strange, foreign)]
    await plant.streams.put(stream, [Entry(b"not an envelope", "x", 0)])
    await plant.put_sealed(True, seal(partition, "tickets", [*lines, b'{"half":']))
    await plant.drain()
    codes = sorted(msgspec.json.decode(plant.objects.held[key])["code"] for key in plant.keys("/dead-letter/"))
    assert codes == ["bad_envelope", "bad_envelope", "bad_row", "bad_value"]
    assert plant.histories.rows() == folded_rows(HISTORY[:1], TABLES)
    assert sum(event.count for event in plant.said(RecordsRejected)) == 4


async def test_what_changes_is_in_the_table_after_five_minutes_and_an_idle_table_costs_nothing() -> None:
    plant = Plant(rules=Rules(cut_idle_s=1e9))
    await plant.put(HISTORY[0])
    await plant.run(290)
    assert plant.histories.rows() == []
    await plant.run(20)
    assert plant.histories.rows() != []
    merges = len(plant.said(TableMerged))
    await plant.put(read("1", 1))
    await plant.run(1200)
    assert len(plant.said(TableMerged)) == merges == 1


async def test_a_quiet_shard_is_cut_before_its_time() -> None:
    plant = Plant()
    await plant.put(HISTORY[0])
    await plant.run(140)
    assert plant.histories.rows() != []


async def test_a_size_cuts_at_once() -> None:
    plant = Plant(rules=Rules(cut_bytes=1))
    await plant.put(HISTORY[0])
    await plant.run(5)
    assert plant.histories.rows() != []


PATIENT = Rules(cut_idle_s=1e9, cut_age_max_s=1e9)


async def test_after_a_clean_stop_nothing_is_read_again() -> None:
    plant = Plant(rules=PATIENT)
    for event in HISTORY:
        await plant.put(event)
        await plant.run(30)
    assert plant.said(EventsReadAgain) == []
    (row,) = (await plant.shard_rows(plant.names.canonical_stream)).values()
    assert (len(row.spool), row.first is not None) == (4, True)


async def test_after_a_kill_at_most_a_minute_is_read_again_and_it_is_said() -> None:
    plant = Plant(rules=PATIENT)
    await plant.put(*HISTORY[:2])
    await plant.run(90, stop=False)  # spooled after a minute
    await plant.put(*HISTORY[2:])
    await plant.run(80, stop=False)  # half of it to wait for the lease: read, and not spooled
    await plant.run(90)
    assert [event.count for event in plant.said(EventsReadAgain)] == [2]
    await plant.drain()
    assert plant.histories.rows() == folded_rows(HISTORY, TABLES)


async def test_what_is_spooled_is_committed_with_when_the_shard_was_read_to_its_end() -> None:
    plant = Plant(rules=PATIENT)
    await plant.put(HISTORY[0])
    await plant.run(90, stop=False)
    (row,) = (await plant.shard_rows(plant.names.canonical_stream)).values()
    assert row.spool
    assert row.arrived_at is not None
    assert row.read_to_end_at is not None
    assert seconds_between(row.arrived_at, row.read_to_end_at) > 50.0


async def test_restarts_do_not_put_off_a_cut() -> None:
    plant = Plant(rules=Rules(cut_idle_s=1e9))
    await plant.put(HISTORY[0])
    for _ in range(11):
        await plant.run(30)
    assert plant.histories.rows() != []


async def test_an_hour_is_cut_apart_and_when_it_is_complete_its_parts_become_one_file() -> None:
    plant = Plant(shards=2, now="2026-01-31T09:50:00.000000Z", rules=Rules(cut_idle_s=30))
    folder = "acme/raw/connectwise/tickets"
    await plant.put(read("1", 1), *HISTORY[:2])
    await plant.run(120)
    await plant.put(read("1", 1), read("2", 2), *HISTORY[2:])
    await plant.run(500)  # 10:00:20: the next hour has begun, and is not surely over everywhere
    assert len(plant.keys(f"{folder}/2026-01-31T09/")) == 2
    await plant.put(read("3", 3))
    await plant.run(1200)
    parts = plant.keys(f"{folder}/2026-01-31T10/")
    assert plant.keys(f"{folder}/") == [f"{folder}/2026-01-31T09.parquet", *parts]
    assert plant.keys("/canonical/") == ["acme/canonical/tickets/2026-01-31T09.parquet"]
    assert [event.record_id for event in plant.raw()] == ["1", "2", "3"]
    assert len(parts) == 1
    rows = [row for stream in (plant.names.raw_stream,) for row in (await plant.shard_rows(stream)).values()]
    assert [run.hour for row in rows for run in row.waiting] == ["2026-01-31T10"]


async def test_a_stop_in_the_middle_of_an_hour_leaves_one_complete_file_of_it() -> None:
    plant = Plant(now="2026-01-31T09:30:00.000000Z")
    for number in range(6):
        await plant.put(read(str(number), number))
        await plant.run(200, stop=number % 2 == 0)
    await plant.run(3600)
    (key,) = plant.keys("/raw/")
    assert key.endswith("2026-01-31T09.parquet")
    assert [event.record_id for event in plant.raw()] == ["0", "1", "2", "3", "4", "5"]


async def test_a_catalog_that_is_down_delays_merges_and_nothing_else() -> None:
    plant = Plant(rules=Rules(cut_idle_s=30))
    plant.catalog_is_down = True
    await plant.put(*HISTORY)
    await plant.run(120, stop=False)
    await plant.put(*LATER)
    await plant.run(120)
    (row,) = (await plant.shard_rows(plant.names.canonical_stream)).values()
    assert (row.cuts - row.merged, row.spool) == (2, ())
    with pytest.raises(RetryableError, match="catalog is down"):
        await plant.drain()
    plant.catalog_is_down = False
    await plant.drain()
    assert plant.histories.rows() == folded_rows([*HISTORY, *LATER], TABLES)
    (row,) = (await plant.shard_rows(plant.names.canonical_stream)).values()
    assert row.merged == row.cuts


async def test_a_stop_finishes_the_merges_in_hand_and_takes_no_lease_of_tables_that_wait() -> None:
    plant, tenants = Plant(), [f"tenant-{number}" for number in range(3 * TABLES_AT_ONCE)]

    class StoppedInAMerge(InlineThreads):
        async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
            if work is merge_step:
                plant.stopping.set()
            return await super().run(work, *args, **kwargs)

    events = [seen({"summary": "A"}, 1, tenant_id=tenant) for tenant in tenants]
    await plant.put(*events)
    plant.threads = StoppedInAMerge()
    await plant.run(seconds=600)
    assert len([gained for gained in plant.said(LeaseGained) if gained.scope == SCOPE]) == TABLES_AT_ONCE
    assert len(plant.histories.rows()) == TABLES_AT_ONCE
    plant.threads = InlineThreads()
    await plant.drain()
    assert plant.histories.rows() == folded_rows(events, TABLES)


async def test_a_part_that_its_hour_has_replaced_is_merged_from_there() -> None:
    plant = Plant(rules=Rules(cut_idle_s=30))
    plant.catalog_is_down = True
    await plant.put(*HISTORY)
    await plant.run(60)
    (part,) = plant.keys("/canonical/")
    folder, _, _ = part.rpartition("/")
    plant.objects.held[f"{folder}.parquet"] = plant.objects.held.pop(part)
    plant.catalog_is_down = False
    await plant.drain()
    assert plant.histories.rows() == folded_rows(HISTORY, TABLES)


async def test_a_table_that_fails_holds_up_no_other() -> None:
    plant = Plant(rules=Rules(cut_idle_s=30))
    plant.broken_tables = {"tickets"}
    await plant.put(*HISTORY, *LATER[2:])
    await plant.run(60)
    assert plant.histories.rows() == folded_rows(LATER[2:], TABLES)
    plant.broken_tables = set()
    await plant.run(60)
    assert plant.histories.rows() == folded_rows([*HISTORY, *LATER[2:]], TABLES)


async def test_a_table_that_waits_across_hours_keeps_every_cut_while_another_goes_on() -> None:
    plant = Plant(now="2026-01-31T09:58:00.000000Z", rules=Rules(cut_idle_s=30))
    plant.broken_tables = {"tickets"}
    await plant.put(*HISTORY)
    await plant.run(200)  # into the next hour
    await plant.put(*LATER[2:])
    await plant.run(200)
    plant.broken_tables = set()
    await plant.run(200)
    assert plant.histories.rows() == folded_rows([*HISTORY, *LATER[2:]], TABLES)


async def test_a_store_that_refuses_writes_pauses_a_shard_until_it_takes_them_again() -> None:
    plant = Plant(rules=Rules(cut_idle_s=30))
    await plant.put(*HISTORY)
    plant.objects.fail_next("create", RetryableError("no room", code="disk_full"), times=8)
    await plant.run(400)
    assert plant.histories.rows() == folded_rows(HISTORY, TABLES)
    assert plant.said(Retried) != []


async def test_answers_lost_by_store_and_rows_change_nothing() -> None:
    for lost in ("create", "write", "delete", "get"):
        plant = Plant()
        await plant.put(*HISTORY, read("1", 1))
        for _ in range(3):
            plant.objects.lose_next(lost)
            plant.rows.lose_next(lost)
        await plant.drain()
        assert plant.histories.rows() == folded_rows(HISTORY, TABLES), lost
        assert plant.raw() == [read("1", 1)]


@pytest.mark.parametrize("drained", [True, False])
async def test_children_of_a_split_shard_merge_what_their_parent_had_cut_and_not_merged(drained: bool) -> None:
    plant = Plant(rules=Rules(cut_idle_s=30))
    stream = plant.names.canonical_stream
    plant.catalog_is_down = True
    await plant.put(*HISTORY, *LATER[2:])
    await plant.run(120)
    await plant.put(LATER[0])
    plant.streams.split(stream, "shardId-000000000000")
    await plant.run(120)
    await plant.put(*LATER[1:2])
    plant.catalog_is_down = False
    if drained:
        await plant.drain()
    else:
        await plant.run(300, stop=False)
    assert plant.histories.rows() == folded_rows([*HISTORY, *LATER], TABLES)
    rows = await plant.shard_rows(stream)
    assert rows["shardId-000000000000"].ended
    assert all(row.cuts >= 2 for row in rows.values())


async def test_a_drain_gives_up_when_another_worker_keeps_a_shard() -> None:
    plant = Plant()
    running = asyncio.ensure_future(plant.run(1000))
    await plant.clock.sleep(60)
    with pytest.raises(FatalError) as err:
        await plant.drain()
    assert err.value.code == "already_running"
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_row_56_a_shard_quiet_for_longer_than_retention_is_no_gap_and_one_that_nobody_read_is() -> None:
    plant = Plant(rules=Rules(gaps=GapRules(900)))
    await plant.put(HISTORY[0])
    await plant.run(300)
    await plant.run(1800, stop=False)
    await plant.run(300)
    assert plant.said(PositionExpired) == []
    plant.clock.advance(1800)
    await plant.run(60)
    assert {event.stream for event in plant.said(PositionExpired)} == {
        plant.names.raw_stream,
        plant.names.canonical_stream,
    }


async def test_cuts_are_said_once_each() -> None:
    plant = Plant()
    await plant.put(*HISTORY)
    await plant.drain()
    assert [event.rows for event in plant.said(CutCommitted)] == [4]


async def test_how_far_the_lake_is_behind_what_was_read_is_told_once_a_minute() -> None:
    plant = Plant()
    plant.broken_tables.add("tickets")
    await plant.put(*HISTORY)
    await plant.run(1_200)
    told = [event.seconds for event in plant.events if isinstance(event, LakeBehind)]
    assert told[0] == 0
    assert told[-1] > 1_000  # what is read and cut and cannot be merged
    assert told == sorted(told)
    plant.broken_tables.clear()
    plant.events.clear()
    await plant.run(300)
    told = [event.seconds for event in plant.events if isinstance(event, LakeBehind)]
    assert told[-1] == 0
    assert {event.ms for event in plant.events if isinstance(event, ShardsBehind)} <= set(range(5_000))
