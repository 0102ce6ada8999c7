"""How far services have come with the streams, and which owners show life."""

from typing import Any

from services.cli.groups import Group
from services.cli.stages import HANDOVER_S, LATE_S, Late, Life, Pulse, Reader, ServiceName, ShardLook, Stage, Waiting
from services.cli.stages import shard_standing as stands
from services.compactor.cutting import SERVICE as COMPACTOR
from services.contracts.times import UtcTime, shifted
from services.transformer.groups import ALL_TABLES
from services.transformer.groups import SERVICE as TRANSFORMER

NOW: UtcTime = "2026-01-31T09:30:00.000000Z"


def ago(seconds: float) -> UtcTime:
    return shifted(NOW, seconds=-seconds)


def stage(row: dict[str, Any], waiting: Waiting | None = None, service: ServiceName = "compactor") -> Stage:
    return staged(Reader(service, service, "raw"), ShardLook("shard-0", row, waiting))


def staged(reader: Reader, *looks: ShardLook) -> Stage:
    shards = tuple(stands(reader, look, NOW) for look in looks)
    return Stage(reader.service, reader.group, reader.stream, shards)


def late(row: dict[str, Any], waiting: Waiting | None = None) -> Late | None:
    return stage(row, waiting).late(NOW)


def run_of(last: int, merged: int, hour: str = "2026-01-31T09") -> dict[str, Any]:
    return {"shard": "shard-0", "hour": hour, "first": 1, "last": last, "merged": merged}


def test_services_are_called_here_as_they_call_themselves() -> None:
    assert (TRANSFORMER, COMPACTOR) == ("transformer", "compactor")
    assert Group.of(ALL_TABLES) == Group()


def test_nothing_waits_where_nothing_was_written() -> None:
    found = stage({}, Waiting())
    assert (found.events, found.more, found.waiting_since, found.uncut_since, found.unmerged) == (
        0,
        False,
        None,
        None,
        0,
    )
    assert found.owners == {}
    assert late({}, Waiting()) is None


def test_what_nobody_owns_is_late_after_a_handover_and_what_somebody_owns_much_later() -> None:
    assert late({}, Waiting(3, since=ago(HANDOVER_S))) is None
    assert late({}, Waiting(3, since=ago(HANDOVER_S + 1))) == Late(ago(HANDOVER_S + 1), HANDOVER_S + 1, owned=False)
    assert late({"owner": "w"}, Waiting(3, since=ago(LATE_S))) is None
    assert late({"owner": "w"}, Waiting(3, since=ago(LATE_S + 1))) == Late(ago(LATE_S + 1), LATE_S + 1, owned=True)


def test_what_is_read_waits_for_its_cut() -> None:
    row = {"spool": ["a"], "opened_at": ago(200), "cuts": 1}
    assert stage(row).uncut_since == ago(200)
    assert late(row) == Late(ago(200), 200, owned=False)
    assert late({**row, "owner": "w"}) is None
    assert stage({"spool": [], "cuts": 1, "arrived_at": ago(200)}).uncut_since is None


def test_cuts_wait_to_be_merged_since_their_last_arrival_or_the_end_of_their_hour() -> None:
    row = {"cuts": 5, "waiting": [run_of(5, 2)], "arrived_at": ago(90)}
    assert stage(row).unmerged == 3
    assert late(row) == Late(ago(90), 90, owned=False)
    busy = {**row, "owner": "w", "waiting": [run_of(2, 0, "2026-01-31T08"), run_of(5, 5)], "arrived_at": ago(1)}
    assert late(busy) == Late("2026-01-31T09:00:00.000000Z", 1_800, owned=True)
    assert late({**row, "waiting": [run_of(5, 5)]}) is None


def test_the_work_of_nobody_is_told_before_the_work_of_somebody() -> None:
    found = staged(
        Reader("transformer", "transformer", "raw"),
        ShardLook("shard-0", {"owner": "w"}, Waiting(1, since=ago(5_000))),
        ShardLook("shard-1", {}, Waiting(2, more=True, since=ago(100))),
    )
    assert found.late(NOW) == Late(ago(100), 100, owned=False)
    assert (found.events, found.more, found.waiting_since, list(found.owners)) == (3, True, ago(5_000), ["w"])


def test_a_position_older_than_the_stream_keeps_records_may_have_lost_some() -> None:
    week_s = 7 * 86_400
    assert stage({"cuts": 1, "position": "7", "arrived_at": ago(week_s + 60)}).expired == 1
    assert stage({"cuts": 1, "position": "7", "arrived_at": ago(week_s + 60), "read_to_end_at": ago(60)}).expired == 0


def test_an_owner_tells_how_fast_it_reads_how_far_behind_and_when_it_committed_last() -> None:
    progress = {"rate": "120.5", "behind_ms": 300, "committed_at": ago(3)}
    row = {"owner": "w", "epoch": 4, "progress": progress, "deaths": 2, "asked_by": "v"}
    (shard,) = stage(row, service="transformer").shards
    assert (shard.events_per_s, shard.behind_ms, shard.committed_at) == (120.5, 300, ago(3))
    assert (shard.deaths, shard.asked_by) == (2, "v")


def test_the_pace_of_an_owner_that_let_go_is_nobodys() -> None:
    (shard,) = stage({"owner": None, "progress": {"rate": "9", "behind_ms": 5, "committed_at": ago(3)}}).shards
    assert (shard.events_per_s, shard.behind_ms, shard.committed_at) == (None, None, ago(3))


def test_what_an_owner_did_not_tell_is_unknown_and_not_nothing() -> None:
    for row in ({}, {"progress": None}, {"progress": {"position": "7"}}):
        (shard,) = stage(row).shards
        assert (shard.events_per_s, shard.behind_ms, shard.committed_at) == (None, None, None)
        assert (shard.deaths, shard.asked_by) == (0, None)


# -- life -------------------------------------------------------------------------------------------------------------
def lease(counter: int, epoch: int = 1, owner: str | None = "w") -> dict[str, Any]:
    return {"scope": "s", "name": "n", "owner": owner, "epoch": epoch, "counter": counter}


def test_one_look_tells_nothing_of_an_owner() -> None:
    assert Pulse(30).feel(lease(7), 100.0) is None


def test_an_owner_whose_counter_moves_is_alive() -> None:
    pulse = Pulse(30)
    felt = [pulse.feel(lease(counter), at) for counter, at in [(7, 0.0), (7, 5.0), (8, 8.0), (8, 20.0)]]
    assert felt == [None, None, Life(True, 0.0), Life(True, 12.0)]


def test_an_owner_that_does_not_move_for_a_lease_time_is_silent() -> None:
    pulse = Pulse(30)
    pulse.feel(lease(7), 0.0)
    assert pulse.feel(lease(7), 31.0) == Life(False, 31.0)
    assert pulse.feel(lease(0, epoch=2), 32.0) == Life(True, 0.0)


def test_what_was_let_go_has_no_pulse() -> None:
    pulse = Pulse(30)
    pulse.feel(lease(7), 0.0)
    assert pulse.feel(lease(7, owner=None), 40.0) is None
    assert pulse.feel(lease(7), 41.0) is None
