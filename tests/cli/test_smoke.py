"""`avesa smoke` as a person runs it: on services that run, on none, and what is left of it."""

import signal
from datetime import UTC, datetime

import pytest

from services.cli.smoke import cut_of, differences
from services.contracts.names import part_key
from services.runtime import provision
from services.runtime.aws import connect
from services.runtime.settings import Settings
from services.sandbox.smoke import sample
from tests.cli.conftest import Avesa, looked
from tests.cli.test_up import END_S, Here, here

__all__ = ["here"]  # a fixture

NOW = datetime(2026, 1, 31, 9, 15, tzinfo=UTC)


def version(start: str, end: str | None, *, current: bool = False) -> dict[str, object]:
    return {"valid_from": start, "valid_to": end, "is_current": current}


# -- what is sent, and compared ---------------------------------------------------------------------------------------
def test_what_is_sent_is_one_record_made_renamed_and_deleted_as_the_extractor_would_publish_it() -> None:
    sent = sample("smoke-1", NOW)
    assert [event.op for event in sent.events] == ["upsert", "upsert", "delete"]
    assert {event.tenant_id for event in sent.events} == {"smoke-1"}
    assert [event.effective_at for event in sent.events] == [
        "2026-01-31T09:14:57.000000Z", "2026-01-31T09:14:58.000000Z", "2026-01-31T09:14:59.000000Z",
    ]  # fmt: skip
    assert b'"name":"Smoke test smoke-1"' in bytes(sent.events[1].payload)  # type: ignore[arg-type]


def test_exactly_the_history_that_was_sent_is_no_difference() -> None:
    sent = sample("smoke-1", NOW)
    (first, second), (_, gone) = sent.versions
    assert differences([version(first, second), version(second, gone)], sent) == ""
    assert "1 version" in differences([version(first, gone)], sent)
    assert differences([], sent).startswith("0 versions")
    assert differences([version(first, second), version(second, gone, current=True)], sent)


def test_a_parts_name_tells_the_cut_that_wrote_it() -> None:
    key = part_key("smoke-1/canonical/companies", "2026-01-31T09", "shardId-000000000001.0a1b2c3d", 17)
    assert cut_of(key) == ("shardId-000000000001", 17)
    assert cut_of("smoke-1/canonical/companies/2026-01-31T09.parquet") is None


# -- in an environment ------------------------------------------------------------------------------------------------
@pytest.mark.emulator
def test_what_is_sent_passes_through_the_services_that_run_and_nothing_of_it_stays(here: Here) -> None:
    up = here.up()
    try:
        code, out = here.avesa("smoke", "--within-s", "240")
        assert [line.split()[0] for line in out.splitlines()] == [
            "published", "archived", "transformed", "merged", "the", "removed",
        ]  # fmt: skip
        assert code == 0
        assert here.rows("SELECT count(*) AS n FROM companies") == [{"n": 0}]
        code, out = here.avesa("smoke", "--within-s", "240", "--keep", "--json")  # nothing was hurt by the removal
        assert code == 0
        (left,) = {row["tenant_id"] for row in here.rows("SELECT DISTINCT tenant_id FROM companies")}
        assert here.avesa("smoke", "--remove", left)[0] == 0
        assert here.rows("SELECT count(*) AS n FROM companies") == [{"n": 0}]
        logs = "".join(log.read_text() for log in (here.folder / ".avesa/logs").glob("*.log"))
        assert "WaitingFor" not in logs
    finally:
        up.send_signal(signal.SIGINT)
        up.communicate(timeout=END_S)


@pytest.mark.emulator
def test_where_nothing_runs_the_stage_that_was_not_reached_is_named(avesa: Avesa, aws: Settings) -> None:
    told = avesa("smoke", "--within-s", "1")
    assert told.code == 1
    assert told.out.startswith("published")
    assert "not archived within 1 s" in told.err
    assert "avesa status --shards" in told.err
    assert f"avesa smoke --environment {aws.environment} --remove smoke-" in told.err


@pytest.mark.emulator
def test_it_removes_nothing_that_it_has_not_made(avesa: Avesa, aws: Settings) -> None:
    assert "no tenant of a smoke test" in avesa("smoke", "--remove", "acme").err
    looked(provision.ensure(aws))
    looked(connect_one(aws, "smoke-detectors"))
    told = avesa("smoke", "--remove", "smoke-detectors")
    assert (told.code, "has services" in told.err) == (1, True)


async def connect_one(settings: Settings, tenant_id: str) -> None:
    async with connect(settings) as aws:
        key = {"tenant_id": tenant_id, "service": "connectwise"}
        await aws.rows.write(settings.names.tenant_services, key, {"company_name": "Smoke Detectors Ltd"})
