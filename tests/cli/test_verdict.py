"""The verdict: what needs a person, the most important first, and what does not."""

from typing import Any

import msgspec
import pytest

from services.cli.letters import Letters
from services.cli.stages import Life, ServiceName, ShardLook, Stage, Waiting, shard_standing
from services.cli.standing import EndpointStanding, Read, ServiceStanding
from services.cli.verdict import HeldMapping, Seen, Verdict, judge
from tests.cli.test_standing import NOW, ago, marked, state, zoo


def verdict(*services: Read, **seen: Any) -> Verdict:
    return judge(Seen(NOW, services, **seen), "s3://lake")


def waiting(events: int, since_s: float, owner: str | None = None, service: ServiceName = "transformer") -> Stage:
    look = ShardLook("shard-0", {"owner": owner, "epoch": 1}, Waiting(events, since=ago(since_s)))
    return Stage(service, "avesa-raw-dev", (shard_standing(service, "avesa-raw-dev", look, NOW),))


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
    assert found.verdict == "2 endpoints of acme zoo not up to date: animals last read 2 h ago, visitors never"
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


def test_everything_told_to_a_machine_says_its_kind() -> None:
    kinds = {kind.__struct_config__.tag for kind in (EndpointStanding, ServiceStanding, Stage, Letters, HeldMapping)}
    assert kinds == {"endpoint", "service", "stage", "dead_letters", "held_mapping"}
