"""Every row of `../shared/faults.md` about streams, workers and the lake: its fault strikes a small history of the real
services, and at its end I1 to I6 hold (run.py, oracle.py), and what the row says besides.

Replay: `python -m tests.simulation --seeds N --rows N --trace` (a larger history of the same seed and fault).
"""

from collections.abc import Iterator
from typing import Final

from services.contracts.log import EventsReadAgain, GapHealed, LeaseLost, PoisonIsolated, PositionExpired
from services.runtime.attributes import from_item
from tests.simulation.run import lived
from tests.simulation.world import Scale, World

SMALL: Final = Scale(records=4, changes=50, work_s=40.0, observations_min=40)
SEEDS_MAX: Final = 6  # until the fault has struck
TAKEOVER_LEASE_TIMES: Final = 1.5
RELEASE_S: Final = 5.0
DEATHS_MAX: Final = 12


def survived(row: int) -> World:
    """A history in which the fault of this row struck, and nothing was lost, wrong, doubled, stalled, silent."""
    for seed in range(SEEDS_MAX):
        report, world = lived(seed, [row], scale=SMALL)
        assert not report.findings, f"seed {seed}: {'; '.join(map(str, report.findings[:3]))}"
        if report.struck.get(row):
            return world
    raise AssertionError(f"row {row} struck in none of {SEEDS_MAX} seeds")


# -- streams and workers ----------------------------------------------------------------------------------------------
def test_row_01_killed_between_state_and_position_the_next_owner_starts_from_the_committed_pair() -> None:
    survived(1)


def test_row_02_what_is_published_again_after_a_kill_is_absorbed() -> None:
    survived(2)


def test_row_03_a_frozen_worker_that_thaws_drops_what_others_took_over() -> None:
    assert survived(3).said(LeaseLost)


def test_row_04_two_workers_never_have_one_identity() -> None:
    survived(4)


def test_row_05_a_renewal_whose_answer_was_lost_costs_no_lease() -> None:
    assert not survived(5).said(LeaseLost)


def test_row_06_a_throttled_lease_table_makes_owners_stop_in_time_and_nobody_crash() -> None:
    assert survived(6).said(LeaseLost)


def test_row_07_a_lease_row_deleted_while_running_is_made_again_at_the_last_durable_position() -> None:
    survived(7)


def test_row_08_a_dead_workers_shards_are_taken_within_one_and_a_half_lease_times() -> None:
    world = survived(8)
    for name, key, seconds in takeovers(world, "kill"):
        assert seconds <= TAKEOVER_LEASE_TIMES * SMALL.lease_s, f"{key} of {name} was free for {seconds:.1f} s"


def test_row_09_children_of_a_split_wait_until_the_parent_is_ended() -> None:
    survived(9)


def test_row_10_the_child_of_a_merge_waits_for_the_parent_that_lags() -> None:
    survived(10)


def test_row_11_two_generations_of_reshards_are_read_in_the_order_of_ancestors() -> None:
    survived(11)


def test_row_12_a_reshard_during_a_flush_leaves_every_partition_whole() -> None:
    survived(12)


def test_row_13_more_than_a_thousand_shards_are_all_read_to_their_end() -> None:
    survived(13)


def test_row_14_iterators_that_expire_in_back_pressure_cost_no_record() -> None:
    survived(14)


def test_row_15_a_reader_whose_recovery_fails_too_tries_for_ever() -> None:
    survived(15)


def test_row_16_an_empty_read_that_is_behind_is_not_the_end() -> None:
    survived(16)


def test_row_17_throttled_reads_back_off() -> None:
    survived(17)


def test_row_18_only_the_refused_entries_of_a_put_are_sent_again() -> None:
    survived(18)


def test_row_19_a_put_that_was_stored_and_timed_out_is_absorbed() -> None:
    survived(19)


def test_row_20_a_first_copy_that_lands_late_is_absorbed() -> None:
    survived(20)


def test_row_21_one_hot_shard_stalls_only_what_goes_there_and_memory_is_bounded() -> None:
    survived(21)


def test_row_22_records_that_are_none_become_dead_letters_with_their_bytes() -> None:
    held = survived(22).aws.objects.held
    letters = [data for key, data in held.items() if "/dead-letter/" in key]
    assert any(b'"base64"' in data for data in letters)


def test_row_23_a_record_that_kills_is_isolated_after_a_bounded_number_of_deaths() -> None:
    world = survived(23)
    assert world.said(PoisonIsolated)
    assert world.struck[23] <= DEATHS_MAX


def test_row_24_a_stream_that_takes_nothing_pauses_shards_and_keeps_their_leases() -> None:
    survived(24)


def test_row_25_a_refused_condition_is_told_apart_already_met_or_fenced() -> None:
    survived(25)


def test_row_26_a_retry_that_meets_its_own_object_goes_on() -> None:
    survived(26)


def test_row_27_two_compactors_that_finish_one_recorded_cut_write_the_same() -> None:
    survived(27)


def test_row_28_clocks_that_are_wrong_and_step_change_nothing() -> None:
    survived(28)


def test_row_29_a_worker_asked_to_stop_releases_within_five_seconds() -> None:
    world = survived(29)
    killed = {line.who for line in world.trace.lines if line.kind == "kill"}
    for name, key, seconds in takeovers(world, "stop"):
        assert name in killed or seconds <= RELEASE_S, f"{name} released {key} after {seconds:.1f} s"


def test_row_30_what_expired_unread_is_said_and_read_again() -> None:
    world = survived(30)
    assert world.said(PositionExpired)
    assert world.said(GapHealed)


def test_row_31_a_stream_made_anew_under_its_name_is_another_stream() -> None:
    survived(31)


def test_row_32_a_computation_that_blocks_the_loop_costs_no_lease() -> None:
    assert not survived(32).said(LeaseLost)


def test_row_33_arrival_times_that_jump_back_lose_nothing() -> None:
    survived(33)


# -- the lake ---------------------------------------------------------------------------------------------------------
def test_row_51_a_merge_whose_answer_was_lost_finds_its_own_watermark() -> None:
    survived(51)


def test_row_52_of_two_who_merge_one_table_one_is_refused_and_folds_anew() -> None:
    survived(52)


def test_row_53_killed_between_timeline_and_versions_the_second_is_repeated() -> None:
    survived(53)


def test_row_54_nothing_that_a_kept_snapshot_names_is_removed() -> None:
    survived(54)


def test_row_55_a_missing_memory_is_loud_and_the_lake_right() -> None:
    survived(55)


def test_row_56_a_shard_quiet_for_longer_than_retention_is_no_gap() -> None:
    assert not survived(56).said(PositionExpired)


def test_row_57_of_two_mappings_at_work_at_once_the_higher_wins() -> None:
    survived(57)


def test_row_58_a_catalog_that_is_down_makes_merges_late_and_nothing_else() -> None:
    survived(58)


def test_row_59_a_restart_in_the_middle_of_an_hour_leaves_one_whole_file() -> None:
    assert not survived(59).said(EventsReadAgain)


def test_row_60_an_object_store_that_refuses_writes_pauses_and_resumes_by_itself() -> None:
    survived(60)


# -- what the rows ask of leases --------------------------------------------------------------------------------------
def takeovers(world: World, kind: str) -> Iterator[tuple[str, str, float]]:
    """For every process that was killed (`kill`), or asked to stop: its name, each lease it had then, and after how
    long that had another owner, or none. Not of work that is leased only while there is some, nor where the others of
    its service died at the time."""
    ends = [(line.at, line.who) for line in world.trace.lines if line.kind == kind]
    window_s = TAKEOVER_LEASE_TIMES * world.scale.lease_s
    for at, name in ends:
        service = name.partition("-")[0]
        others = [when for when, who in ends if who != name and who.startswith(service)]
        if any(abs(when - at) < 2 * window_s for when in others):
            continue
        own = worker(world, name)
        for key in owned(world, name, at):
            freed = [
                write.at
                for write in world.aws.rows.log
                if write.at > at
                and (write.key["scope"], write.key["name"]) == key
                and write.values.get("owner", own) != own
            ]
            yield name, "/".join(key), (freed[0] if freed else world.loop.now) - at


def owned(world: World, name: str, at: float) -> list[tuple[str, str]]:
    """The leases on shards that a process had at a time."""
    owners: dict[tuple[str, str], str] = {}
    for write in world.aws.rows.log:
        if write.at <= at:
            owners[write.key["scope"], write.key["name"]] = str(from_item(write.after).get("owner"))
    own = worker(world, name)
    return [key for key, owner in owners.items() if owner == own and "-sim/" in key[0]]


def worker(world: World, name: str) -> str:
    """The identity of a process."""
    return next((str(w.values["owner"]) for w in world.aws.rows.log if w.by == name and w.values.get("owner")), "")
