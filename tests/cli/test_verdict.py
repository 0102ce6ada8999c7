"""The verdict: what needs a person, the most important first, and what does not."""

from typing import Any

import msgspec
import pytest

from services.cli.groups import Group
from services.cli.letters import Letters
from services.cli.setbacks import Gap, Parked
from services.cli.stages import Life, Reader, ServiceName, ShardLook, Stage, Waiting, shard_standing
from services.cli.standing import EndpointStanding, Read, ServiceStanding
from services.cli.verdict import HeldMapping, Seen, Verdict, judge
from services.contracts.gaps import State
from tests.cli.test_standing import NOW, ago, marked, state, zoo


def verdict(*services: Read, **seen: Any) -> Verdict:
    return judge(Seen(NOW, services, **seen), "s3://lake")


def waiting(
    events: int, since_s: float, owner: str | None = None, service: ServiceName = "transformer", group: str = ""
) -> Stage:
    reader = Reader(service, group or service, "avesa-raw-dev")
    look = ShardLook("shard-0", {"owner": owner, "epoch": 1}, Waiting(events, since=ago(since_s)))
    return Stage(reader.service, reader.group, reader.stream, (shard_standing(reader, look, NOW),))


def test_an_empty_environment_is_told_how_to_begin() -> None:
    found = verdict()
    assert (found.verdict, found.exit_code) == ("no service is connected: begin with avesa setup-service", 0)


def test_what_is_on_its_way_is_work_not_trouble() -> None:
    found = verdict(zoo(), stages=(waiting(33, 5),))
    assert (found.verdict, found.exit_code) == ("at work: 33 events on the way to the lake", 0)


def test_a_service_connected_just_now_is_given_a_moment() -> None:
    new = verdict(zoo({}, {}, owner=None, changed_s=20))
    assert (new.exit_code, new.verdict.startswith("at work: 1 new or resumed service (")) == (0, True)
    old = verdict(zoo({}, {}, owner=None, changed_s=90))
    assert (old.exit_code, old.verdict) == (3, "nobody reads acme zoo: never read yet")


@pytest.mark.parametrize("code", ["unavailable", "timeout"])
def test_a_failure_that_passes_by_itself_is_shown_and_troubles_nobody_at_first(code: str) -> None:
    read = zoo(marked(200, failed_code=code, failed_what="no answer", failed_at=ago(5)))
    assert (state(read), verdict(read).exit_code) == ("failing", 0)
    assert verdict(read).verdict == "at work: 1 endpoint tried again after a failure that may pass"
    read = zoo(marked(2_000, failed_code=code, failed_what="no answer", failed_at=ago(5)))
    assert (state(read), verdict(read).exit_code) == ("failing", 3)


# -- something does ---------------------------------------------------------------------------------------------------
def test_what_nobody_reads_says_how_to_start_somebody() -> None:
    found = verdict(zoo(marked(7_200), owner=None))
    assert found.exit_code == 3
    (trouble,) = found.troubles
    assert trouble.what == "nobody reads acme zoo: last read 2 h ago"
    assert "`avesa run --once`" in trouble.remedy


def test_many_services_that_nobody_reads_are_one_trouble() -> None:
    names = ("a", "b", "c", "d", "e")
    idle = []
    for name in names:
        service, endpoints = zoo(marked(7_200), owner=None)
        idle.append((msgspec.structs.replace(service, tenant_id=name), endpoints))
    assert verdict(*idle).verdict == "nobody reads a zoo, b zoo, c zoo and 2 more: last read 2 h ago"


def test_an_endpoint_that_its_owner_does_not_read_is_named() -> None:
    found = verdict(zoo(marked(7_200), {}))
    assert found.verdict == "2 endpoints of acme zoo not up to date: visitors never, animals last read 2 h ago"
    assert "w-1" in found.troubles[0].remedy


def test_refused_credentials_say_what_renews_them_and_nothing_else_of_that_service() -> None:
    refused: dict[str, Any] = {"status": "reconnect needed", "status_what": "401", "status_at": ago(3_600)}
    found = verdict(zoo(marked(7_200), owner=None, **refused))
    (trouble,) = found.troubles
    assert trouble.what == "the credentials of acme zoo were refused, 1 h ago (401)"
    assert trouble.remedy == "Store new ones: avesa setup-service --tenant-id acme --service zoo"


def test_an_endpoint_that_cannot_be_read_says_why_and_since_when() -> None:
    found = verdict(zoo(marked(3_600, failed_code="forbidden", failed_what="403: ask.", failed_at=ago(5))))
    assert found.verdict == "1 endpoint of acme zoo cannot be read: animals (forbidden), last read 1 h ago"
    assert found.troubles[0].remedy == "403: ask. See `avesa check --tenant-id acme --service zoo`."


def test_sweeps_that_do_not_end_are_told_because_deletions_go_unnoticed() -> None:
    found = verdict(zoo(marked(10, swept_s=8_000)))
    assert found.verdict.startswith("deleted records of acme zoo go unnoticed: animals last swept 2 h 13 min ago")
    assert verdict(zoo(visitors=marked(10, swept_s=99_999))).exit_code == 0


def test_events_that_nobody_takes_up_say_which_service_is_missing() -> None:
    found = verdict(zoo(), stages=(waiting(87, 720),))
    assert found.verdict == "no transformer runs: 87 events of avesa-raw-dev waiting for 12 min"


def test_a_slow_owner_is_told_from_none() -> None:
    found = verdict(zoo(), stages=(waiting(87, 720, owner="w-1", service="compactor"),))
    assert found.verdict == "the compactor is 12 min behind with 87 events of avesa-raw-dev"


def test_an_owner_that_shows_no_life_for_long_is_told() -> None:
    assert verdict(zoo(life=Life(False, 40))).exit_code == 0
    found = verdict(zoo(life=Life(False, 130)))
    assert found.verdict == "worker w-1 has shown no life for 2 min, and nobody takes over its work"


def test_a_service_without_a_usable_mapping_is_told() -> None:
    assert verdict(zoo(integration=None)).verdict == "no mapping file can be used for acme zoo"


def test_dead_letters_are_counted_by_code() -> None:
    letters = (
        Letters("acme", "transform", "animals", "bad_value", 3, NOW, NOW),
        Letters("acme", "extract", "visitors", "", 2),
    )
    found = verdict(zoo(), letters=letters)
    assert found.verdict == "5 records of acme could not be used (bad_value 3, not looked at 2)"
    assert "s3://lake/acme/dead-letter/" in found.troubles[0].remedy


def test_a_mapping_that_waits_for_a_rebuild_is_told() -> None:
    found = verdict(zoo(), held=(HeldMapping("acme", "zoo", "pets", 1, "column legs was int64 and is string"),))
    assert found.verdict.endswith("is not in force as the files have it: column legs was int64 and is string")


def test_what_holds_up_everybody_comes_before_what_concerns_one() -> None:
    found = verdict(
        zoo(marked(3_600, failed_code="forbidden", failed_what="403", failed_at=ago(5))),
        zoo(status="reconnect needed", status_at=ago(60)),
        stages=(waiting(87, 720),),
        letters=(Letters("acme", "extract", "visitors", "", 2),),
        unreadable=("a row",),
    )
    kinds = ["no transformer", "a row", "the credentials", "1 endpoint", "2 records"]
    assert len(found.troubles) == len(kinds)
    assert all(trouble.what.startswith(kind) for trouble, kind in zip(found.troubles, kinds, strict=True))
    assert found.verdict.endswith("(the first of 5 things that need a person)")


def test_a_paused_service_needs_nobody_however_old_it_is() -> None:
    assert verdict(zoo(marked(99_999), enabled=False)).verdict == "everything is up to date (1 service paused)"


def test_events_that_wait_for_two_services_are_not_counted_twice() -> None:
    found = verdict(zoo(), stages=(waiting(33, 5), waiting(33, 5, service="compactor")))
    assert found.verdict == "at work: 33 events on the way to the lake"


def test_one_service_that_does_not_run_is_one_trouble_however_many_streams_wait() -> None:
    stage = waiting(9, 720, service="compactor")
    found = verdict(zoo(), stages=(stage, msgspec.structs.replace(stage, stream="canonical")))
    assert found.verdict == "no compactor runs: 9 events of avesa-raw-dev and 9 events of canonical waiting for 12 min"


# -- groups -----------------------------------------------------------------------------------------------------------
TICKETS = Group("transformer-tickets", ("tickets", "boards"))
REST = Group("transformer", others=("tickets", "boards"))


def test_a_group_of_transformers_that_does_not_run_is_named_with_the_command_that_starts_it() -> None:
    found = verdict(zoo(), stages=(waiting(87, 720, group=TICKETS.group),), groups=(REST, TICKETS))
    assert found.verdict == "no transformer-tickets runs: 87 events of avesa-raw-dev waiting for 12 min"
    assert found.troubles[0].remedy == (
        "Start `avesa transformer --group tickets --tables tickets,boards`; if nobody shall run it any more, "
        "`avesa transformer --group tickets --forget`."
    )


def test_two_groups_that_poll_a_stream_are_nothing_to_tell_and_three_are() -> None:
    alone = (waiting(0, 0), waiting(0, 0, service="compactor"))
    assert verdict(zoo(), stages=alone, groups=(Group("transformer"),)).exit_code == 0
    three = (*alone, waiting(0, 0, group=TICKETS.group))
    found = verdict(zoo(), stages=three, groups=(REST, TICKETS))
    assert found.verdict == (
        "3 groups poll avesa-raw-dev (transformer, compactor, transformer-tickets), and a shard has room for 2: "
        "5 reads/s and 2 MiB/s for all together"
    )
    fanned = msgspec.structs.replace(TICKETS, fan_out=True)
    assert verdict(zoo(), stages=three, groups=(REST, fanned)).exit_code == 0


def test_a_table_that_two_groups_have_or_none_is_told() -> None:
    tables = ("animals", "boards", "tickets", "visitors")
    assert verdict(zoo(), groups=(REST, TICKETS), tables=tables).exit_code == 0
    twice = verdict(zoo(), groups=(REST, TICKETS, Group("transformer-x", ("boards",))), tables=tables)
    assert (
        twice.verdict == "transformer-tickets and transformer-x all transform boards: that is done and stored 2 times"
    )
    all_of_it = verdict(zoo(), groups=(Group("transformer"), TICKETS), tables=tables)
    assert all_of_it.verdict.startswith("transformer and transformer-tickets all transform boards, tickets:")
    none = verdict(zoo(), groups=(REST,), tables=tables)
    assert none.verdict == "no group transforms boards, tickets"
    assert none.troubles[0].remedy.endswith("--group NAME --tables boards,tickets")


# -- set aside --------------------------------------------------------------------------------------------------------
def test_a_parked_partition_says_since_when_why_and_what_releases_it() -> None:
    found = verdict(
        zoo(), parked=(Parked("transformer", "acme/zoo/animals/0", ago(7_200), "bad_value", "no number", 120),)
    )
    assert found.verdict == (
        "the transformer has parked acme/zoo/animals/0, 2 h ago (bad_value: no number; 120 dead letters)"
    )
    assert "s3://lake/acme/dead-letter/" in found.troubles[0].remedy
    assert found.troubles[0].remedy.endswith("avesa replay --from parked --tenant-id acme --service zoo")


def lost(state: State, met_s: float) -> Gap:
    return Gap("transformer", "avesa-raw-dev", "shard-0", state, ago(99), ago(9), ago(met_s))


@pytest.mark.parametrize(("state", "met_s"), [("archive", 9_999), ("source", 9_999), ("open", 600)])
def test_a_lost_range_that_is_read_again_or_soon_will_be_is_work_not_trouble(state: State, met_s: float) -> None:
    found = verdict(zoo(), gaps=(lost(state, met_s),))
    assert (found.exit_code, found.verdict) == (0, "at work: 1 lost range of a stream about to be read again")


def test_a_lost_range_that_waits_for_a_person_comes_first() -> None:
    what = (
        "what arrived in shard-0 of avesa-raw-dev between 2026-01-31 09:28:21 and 2026-01-31 09:29:51 was dropped "
        "before the transformer read it"
    )
    halted = verdict(zoo(), gaps=(lost("halted", 5),), stages=(waiting(87, 720),)).troubles[0]
    assert halted.what == f"{what}, and AVESA_ON_GAP=halt holds up that shard"
    late = verdict(zoo(), gaps=(lost("open", 7_200),), stages=(waiting(87, 720),)).troubles[0]
    assert late.what == f"{what}; that was met 2 h ago, and nobody has begun to read it again"


def test_everything_told_to_a_machine_says_its_kind() -> None:
    types = (EndpointStanding, ServiceStanding, Stage, Letters, HeldMapping, Group, Parked, Gap)
    kinds = {kind.__struct_config__.tag for kind in types}
    assert kinds == {"endpoint", "service", "stage", "dead_letters", "held_mapping", "group", "parked", "gap"}
