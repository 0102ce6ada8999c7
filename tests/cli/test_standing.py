"""How a connected service and its endpoints stand, told from their rows."""

from typing import Any

from msgspec.structs import replace

from services.cli.stages import Life
from services.cli.standing import MARKS_SAVED_S, READING_S, SLACK_S, EndpointStanding, Read, service_standing
from services.contracts.access import NoAuth
from services.contracts.integration import Endpoint, Integration
from services.contracts.reading import Customers, Filter, SinceTime, Sweep
from services.contracts.times import UtcTime, moment, shifted
from services.extractor.ledger import IDLE_SAVE_S
from services.extractor.tenants import Override, TenantService

NOW: UtcTime = "2026-01-31T09:30:00.000000Z"
ZOO = Integration(
    "zoo",
    "City Zoo",
    "https://zoo.example",
    NoAuth(),
    {
        "animals": Endpoint("animals", "id", interval_s=60.0, deletes=Sweep(interval_s=3_600.0)),
        "visitors": Endpoint("visitors", "id", interval_s=60.0),
        "closed": Endpoint("closed", "id", enabled=False),
    },
    filter=Filter("where"),
    incremental=SinceTime(clause="changed > {since}"),
)


def ago(seconds: float) -> UtcTime:
    return shifted(NOW, seconds=-seconds)


def marked(read_s: float | None = 10, swept_s: float | None = 10, **fields: Any) -> dict[str, Any]:
    """A LastUpdated row: read and swept so many seconds ago."""
    marks: dict[str, Any] = {} if read_s is None else {"fresh": ago(read_s), "settled": ago(read_s + 900)}
    if swept_s is not None:
        marks["swept_at"] = ago(swept_s)
    return {"marks": marks, "saved_at": ago(5_000), **fields}


def zoo(
    animals: dict[str, Any] | None = None,
    visitors: dict[str, Any] | None = None,
    *,
    owner: str | None = "w-1",
    life: Life | None = None,
    changed_s: float = 9_999,
    integration: Integration | None = ZOO,
    interval_s: float | None = None,
    told: dict[str, Any] | None = None,
    **row: Any,
) -> Read:
    connected = TenantService("acme", "zoo", created_at=ago(99_999), updated_at=ago(changed_s), **row)
    rows = {"animals": marked() if animals is None else animals, "visitors": marked() if visitors is None else visitors}
    lease = {"owner": owner, "epoch": 3, "progress": told or {}}
    return service_standing(connected, integration, rows, lease, interval_s, NOW, life)


def state(read: Read, endpoint: str = "animals") -> str:
    return next(one.state for one in read[1] if one.endpoint == endpoint)


def test_marks_are_saved_as_rarely_as_we_believe() -> None:
    assert MARKS_SAVED_S == IDLE_SAVE_S


def test_a_mark_may_be_as_old_as_an_idle_endpoint_lets_it_become() -> None:
    oldest = 2 * 60 + MARKS_SAVED_S + SLACK_S
    assert state(zoo(marked(oldest))) == "up to date"
    assert state(zoo(marked(oldest + 1))) == "behind"
    assert state(zoo(marked(oldest + 1), interval_s=3_600.0)) == "up to date"
    assert state(zoo(marked(oldest + 1), interval_s=60.0)) == "behind"


def test_marks_of_another_release_count_as_none() -> None:
    assert state(zoo({"marks": {"fresh": 7}})) == "not read yet"


def test_what_was_read_lately_is_up_to_date() -> None:
    service, endpoints = zoo()
    assert {one.endpoint: one.state for one in endpoints} == {"animals": "up to date", "visitors": "up to date"}
    assert (service.state, service.read_at, service.swept_at, service.epoch) == ("up to date", ago(10), ago(10), 3)


def test_a_service_was_read_when_the_last_of_its_endpoints_was() -> None:
    assert zoo(marked(10), marked(200))[0].read_at == ago(200)
    assert zoo(marked(10), {})[0].read_at is None


def test_a_long_pass_is_reading_while_it_saves_now_and_then() -> None:
    walk = {"kind": "full", "started_at": ago(5_000)}
    assert state(zoo({"marks": {"walk": walk}, "saved_at": ago(30)})) == "reading"
    assert state(zoo({"marks": {"walk": walk, "fresh": ago(9_000)}, "saved_at": ago(30)})) == "reading"
    assert state(zoo({"marks": {"walk": walk}, "saved_at": ago(READING_S + 1)})) == "not read yet"


def test_whoever_has_taken_a_service_up_lately_may_be_about_to_read_it() -> None:
    assert state(zoo(marked(9_000), changed_s=60)) == "reading"
    assert state(zoo(marked(9_000), changed_s=60, owner=None)) == "behind"


def test_a_service_is_as_bad_as_the_worst_of_its_endpoints() -> None:
    assert zoo(marked(), marked(9_000))[0].state == "behind"
    assert zoo(marked(failed_code="forbidden"), marked(9_000))[0].state == "failing"
    assert zoo(marked(9_000), enabled=False)[0].state == "paused"
    assert zoo(marked(9_000), status="reconnect needed")[0].state == "reconnect needed"
    assert zoo(integration=None)[0].state == "no mapping"


# -- promised and actual ----------------------------------------------------------------------------------------------
def one(read: Read, endpoint: str = "animals") -> EndpointStanding:
    return next(found for found in read[1] if found.endpoint == endpoint)


def epoch(seconds_ago: float) -> int:
    return int(moment(ago(seconds_ago)).timestamp())


def test_what_is_promised_is_the_interval_in_force_and_the_lag_of_the_vendor() -> None:
    assert one(zoo()).promised_s == 60 + 300
    assert one(zoo(interval_s=5.0)).promised_s == 5 + 300
    assert one(zoo(endpoints={"animals": Override(20.0)}, interval_s=5.0)).promised_s == 20 + 300


def test_what_is_actual_is_told_by_who_reads_or_at_most_what_was_saved() -> None:
    assert one(zoo(marked(200))).actual_s == 200
    assert one(zoo(marked(200), told={"reads": {"animals": epoch(12)}})).actual_s == 12
    assert one(zoo(marked(5), told={"reads": {"animals": epoch(12)}})).actual_s == 5
    assert one(zoo(marked(200), told={"reads": {"animals": "soon"}, "pace": "fast"})).actual_s == 200
    assert one(zoo({})).actual_s is None


def test_who_is_later_than_promised_says_why() -> None:
    old = epoch(900)
    reads = {"reads": {"animals": old, "visitors": old}}
    assert one(zoo(marked(900), told=reads)).why_late == "its reader is slow"
    assert (
        one(zoo(marked(900), told={**reads, "pace": "4.00"})).why_late == "the vendor's budget stretches it 2.0 times"
    )
    assert one(zoo(marked(900, failed_code="timeout"), told=reads)).why_late == "failing: timeout"
    assert one(zoo(marked(900, failed_code="not_available"), told=reads)).why_late == "not available"
    assert one(zoo(marked(900), enabled=False)).why_late == "paused"
    assert one(zoo(marked(900), status="stopped")).why_late == "stopped"
    assert one(zoo(marked(900), owner=None)).why_late == "nobody reads it"
    assert one(zoo(marked(350), told={"reads": {"animals": epoch(350)}})).why_late == ""


def test_a_stretched_interval_is_no_fault() -> None:
    read_at = epoch(1_000)
    assert state(zoo(marked(1_000), told={"reads": {"animals": read_at}})) == "behind"
    assert state(zoo(marked(1_000), told={"reads": {"animals": read_at}, "pace": "64"})) == "up to date"


def test_endpoints_come_worst_first_and_the_worst_stands_for_the_service() -> None:
    service, endpoints = zoo(marked(10), marked(200))
    assert [found.endpoint for found in endpoints] == ["visitors", "animals"]
    assert service.worst == endpoints[0]
    assert [found.endpoint for found in zoo(marked(10), {})[1]] == ["visitors", "animals"]


def test_what_a_customer_does_not_have_or_want_is_shown_and_troubles_nobody() -> None:
    service, endpoints = zoo(marked(None, None, failed_code="not_available"), marked(30))
    assert {found.endpoint: found.state for found in endpoints} == {
        "visitors": "up to date",
        "animals": "not available",
    }
    assert (service.state, service.read_at) == ("up to date", ago(30))
    service, endpoints = zoo(endpoints={"animals": Override(enabled=False), "closed": Override(enabled=True)})
    states = {found.endpoint: found.state for found in endpoints}
    assert states == {"visitors": "up to date", "animals": "off", "closed": "not read yet"}


def test_a_service_that_the_vendor_stopped_says_so() -> None:
    service, _ = zoo(status="stopped", status_what="the subscription ended", status_at=ago(60))
    assert (service.state, service.why, service.refused_at) == ("stopped", "the subscription ended", ago(60))


def test_a_partner_that_only_lists_its_customers_needs_nothing_else() -> None:
    endpoint = Endpoint("a/{account_id}/animals", "id")
    chain = Integration("zoo", "Zoos", "https://zoo.example", NoAuth(), {"animals": endpoint})
    assert zoo(integration=chain, connect_all=True)[0].endpoints == {"up to date": 1}
    partner = replace(chain, customers=Customers("zoos", "id", "name"))
    service, endpoints = zoo(integration=partner, connect_all=True)
    assert (service.state, endpoints) == ("up to date", ())
    assert zoo(integration=partner)[0].state == "no mapping"
