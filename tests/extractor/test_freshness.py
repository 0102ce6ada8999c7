"""How late a service is, measured by what was promised."""

from typing import Any

from services.contracts.log import EndpointsLate
from services.contracts.times import UtcTime, moment, shifted
from services.extractor.freshness import Told, late_s, latest, told
from services.extractor.tenants import TenantService

NOW: UtcTime = "2026-01-31T09:30:00.000000Z"
PROMISES = {"animals": 360.0, "visitors": 60.0}


def ago(seconds: float) -> UtcTime:
    return shifted(NOW, seconds=-seconds)


def late(quiet_s: float = 5.0, reads: dict[str, float] | None = None, **row: Any) -> float:
    known = Told({name: ago(age_s) for name, age_s in (reads or {}).items()})
    return late_s(TenantService("acme", "zoo", **row), PROMISES, known, quiet_s, NOW)


def test_a_service_is_as_late_as_its_latest_endpoint_beyond_what_was_promised() -> None:
    assert late(reads={"animals": 300, "visitors": 50}) == 0
    assert late(reads={"animals": 400, "visitors": 50}) == 40
    assert late(reads={"animals": 400, "visitors": 200}) == 140


def test_what_was_never_read_is_late_only_while_nobody_works_on_it() -> None:
    assert late(reads={"animals": 10}) == 0
    assert late(quiet_s=1_060.0) == 1_000


def test_what_is_paused_or_waits_for_a_person_is_not_late() -> None:
    reads = {"animals": 9_000.0, "visitors": 9_000.0}
    assert late(reads=reads) > 0
    assert late(reads=reads, enabled=False) == 0
    assert late(reads=reads, status="reconnect needed") == 0
    assert late(reads=reads, status="stopped") == 0


def test_an_endpoint_that_is_no_longer_wanted_is_not_late() -> None:
    assert late(reads={"animals": 10, "visitors": 10, "closed": 9_000}) == 0


def test_each_tier_that_there_is_tells_its_latest() -> None:
    assert latest([("standard", 5.0), ("premium", 0.0), ("standard", 7.0)]) == [
        EndpointsLate(tier="premium", seconds=0.0),
        EndpointsLate(tier="standard", seconds=7.0),
    ]


def test_what_another_release_wrote_into_a_lease_is_not_told() -> None:
    at = int(moment(NOW).timestamp())
    assert told({"progress": {"reads": {"animals": at, "visitors": "soon"}, "pace": "2.5"}}) == Told(
        {"animals": NOW}, 2.5
    )
    assert told({"progress": {"reads": 7, "pace": "fast"}}) == Told({})
    assert told({}) == Told({})
