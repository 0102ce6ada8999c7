"""`avesa status` as a person meets it: an environment in every state, from nothing to trouble."""

import json
import signal
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.cli.looks import EXTRACT_SCOPE, STREAM_RECORDS_MAX
from services.cli.world import open_runtime
from services.contracts.gaps import SCOPE as GAPS
from services.contracts.gaps import Gap
from services.contracts.names import SYSTEM_PREFIX, mapping_key
from services.contracts.ports import Value
from services.contracts.times import shifted, utc_text
from services.extractor.plan import specs
from services.extractor.service import run_once
from services.extractor.unit import LEASE_SCOPE
from services.runtime import provision
from services.runtime.dead_letters import DeadLetter
from services.runtime.mapping_files import SHIPPED, load_mappings
from services.runtime.settings import Settings
from services.runtime.shards import scope_of
from services.transformer.pinned import Pinned, encode, shipped
from tests.cli.conftest import NEW_KEYS, Avesa, Told, Vendor, looked
from tests.cli.test_asking import Terminal, environment_of
from tests.cli.test_lake import TICKETS, Pipeline, pipeline
from tests.cli.test_tenants import SETUP, write

KNOWN = len(specs(load_mappings().integrations["connectwise"]))
ONE_ENDPOINT = ("run", "--once", "--endpoint", "teams")


@pytest.fixture(scope="module")
def ready(embedded_aws: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline that has read everything once; tests may look, and nothing else."""
    settings = Settings.embedded(embedded_aws, environment="teststatus")
    with pipeline(settings, tmp_path_factory.mktemp("status")) as made:
        yield made


@pytest.fixture
def done(ready: Pipeline, avesa: Avesa, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Pipeline:
    """That pipeline, in the environment that `avesa` finds."""
    ready.use(monkeypatch, tmp_path)
    return ready


@pytest.fixture
def connected(avesa: Avesa, aws: Settings, vendor: Vendor) -> Vendor:
    """An environment of this test's own, a service connected and nothing read."""
    assert avesa(*SETUP).code == 0
    return vendor


def records(told: Told, kind: str) -> list[dict[str, Any]]:
    return [record for record in told.records if record["kind"] == kind]


def troubles(told: Told) -> list[str]:
    (verdict,) = records(told, "verdict")
    return [trouble["what"] for trouble in verdict["troubles"]]


# -- all is well ------------------------------------------------------------------------------------------------------
def test_an_empty_environment_is_told_how_to_begin_and_stays_empty(avesa: Avesa, aws: Settings) -> None:
    told = avesa("status")
    assert (told.code, told.out) == (0, "no service is connected: begin with avesa setup-service\n")
    assert len(looked(provision.missing(aws))) == 7


def test_a_new_service_is_about_to_be_read(avesa: Avesa, connected: Vendor) -> None:
    told = avesa("status")
    assert (told.code, told.out.startswith("at work: 1 new or resumed service (")) == (0, True)
    assert f"{KNOWN} not read yet" in told.out


def test_after_a_run_everything_is_up_to_date(avesa: Avesa, done: Pipeline) -> None:
    told = avesa("status")
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    assert lines[0] == "everything is up to date"
    assert lines[3].split()[:7] == ["acme-msp", "connectwise", "up", "to", "date", str(KNOWN), "up"]
    assert [line.split()[:2] for line in lines[-3:]] == [
        ["transformer", done.settings.names.raw_stream],
        ["compactor", done.settings.names.raw_stream],
        ["compactor", done.settings.names.canonical_stream],
    ]
    assert all("nobody" in line and "nothing" in line for line in lines[-3:])


def test_with_a_tenant_every_endpoint_is_shown(avesa: Avesa, done: Pipeline) -> None:
    told = avesa("status", "--tenant-id", "acme-msp")
    (tickets,) = [line for line in told.out.splitlines() if line.startswith("tickets ")]
    assert tickets.split()[1:4] == ["up", "to", "date"]
    (header,) = [line for line in told.out.splitlines() if line.startswith("ENDPOINT ")]
    assert tickets[header.index("PROMISED") :].startswith("16 min ")  # an interval of 60 s, a lag of 900 s
    assert tickets[header.index("ACTUAL") :].startswith("within ")
    assert "board_statuses" not in avesa("status").out


def test_a_machine_gets_the_verdict_first_and_then_all_of_it(avesa: Avesa, done: Pipeline) -> None:
    told = avesa("status", "--json")
    verdict = told.records[0]
    assert (verdict["verdict"], verdict["exit_code"], verdict["troubles"]) == ("everything is up to date", 0, [])
    (service,) = records(told, "service")
    assert (service["state"], service["owner"], service["endpoints"]) == ("up to date", None, {"up to date": KNOWN})
    assert {endpoint["state"] for endpoint in records(told, "endpoint")} == {"up to date"}
    assert [len(stage["shards"]) for stage in records(told, "stage")] == [2, 2, 2]


def test_a_tenant_that_is_not_there_is_compared_with_those_that_are(avesa: Avesa, done: Pipeline) -> None:
    told = avesa("status", "--tenant-id", "acme-mps")
    assert (told.code, told.out) == (2, "")
    assert "there is no tenant acme-mps" in told.err
    assert "Did you mean 'acme-msp'?" in told.err


def test_watching_looks_again_until_ctrl_c_and_that_is_no_failure(done: Pipeline) -> None:
    assert done.settings.endpoint_url is not None
    there = environment_of(done.settings.endpoint_url) | {"ENVIRONMENT": done.settings.environment}
    terminal = Terminal("status", "--watch", environment=there)
    try:
        terminal.read_until("everything is up to date")
        terminal.read_until("everything is up to date")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.close() == 0
    finally:
        terminal.end()


# -- something needs a person -----------------------------------------------------------------------------------------
def test_a_paused_service_is_shown_and_needs_nobody(avesa: Avesa, connected: Vendor) -> None:
    avesa("services", "pause", *SETUP[1:3], "--service", "connectwise")
    told = avesa("status")
    assert (told.code, told.out.splitlines()[0]) == (0, "everything is up to date (1 service paused)")


def test_refused_credentials_need_a_person(avesa: Avesa, connected: Vendor) -> None:
    connected.site.keys = NEW_KEYS
    assert avesa(*ONE_ENDPOINT).code == 1
    told = avesa("status")
    assert told.code == 3
    assert told.out.startswith("1 thing needs a person:\n  1. the credentials of acme-msp connectwise were refused, ")
    assert "avesa setup-service --tenant-id acme-msp --service connectwise" in told.out
    assert "reconnect needed" in told.out


def test_an_endpoint_that_may_not_be_read_needs_a_person(avesa: Avesa, connected: Vendor) -> None:
    connected.site.forbidden = frozenset({TICKETS})
    assert avesa("run", "--once").code == 3
    told = avesa("status", "--json")
    assert told.code == 3
    below = "ticket_notes (unavailable)"
    said = f"2 endpoints of acme-msp connectwise cannot be read: tickets (forbidden), {below}, never read"
    assert troubles(told) == [said]
    assert any(line.startswith("tickets ") and "forbidden" in line for line in avesa("status").out.splitlines())


def test_events_on_their_way_are_counted_where_they_wait(avesa: Avesa, connected: Vendor, aws: Settings) -> None:
    looked(extracted(aws))
    told = avesa("status", "--json")
    transformer, archive, compactor = records(told, "stage")
    waiting = [shard["waiting"] for shard in transformer["shards"]]
    assert 0 < sum(found["events"] for found in waiting) <= 2 * 3 * STREAM_RECORDS_MAX
    assert any(found["more"] for found in waiting)
    assert [shard["waiting"] for shard in archive["shards"]] == waiting
    assert all(shard["waiting"]["events"] == 0 for shard in compactor["shards"])
    assert told.code == 0
    assert avesa("status").out.startswith("at work: more than ")


async def extracted(aws: Settings) -> None:
    async with open_runtime(aws) as runtime:
        await run_once(runtime, load_mappings(), sweep=False)


def test_dead_letters_are_counted_by_place_and_code(avesa: Avesa, connected: Vendor, aws: Settings) -> None:
    at = "2026-01-31T09:15:00.000000Z"
    letters = [
        DeadLetter("acme-msp", "transform", "tickets", f"shard-0-{number}", code, "why", at)
        for number, code in enumerate(["bad_value", "bad_value", "missing_key"])
    ]
    looked(written(aws, [*letters, DeadLetter(SYSTEM_PREFIX, "transform", "x", "1", "bad_envelope", "why", at)]))
    told = avesa("status", "--json")
    found = [(one["tenant_id"], one["code"], one["count"], one["first_at"]) for one in records(told, "dead_letters")]
    assert found == [
        ("acme-msp", "bad_value", 2, at),
        ("acme-msp", "missing_key", 1, at),
        (SYSTEM_PREFIX, "bad_envelope", 1, at),
    ]
    assert told.code == 3
    assert troubles(told)[0] == "3 records of acme-msp could not be used (bad_value 2, missing_key 1)"


async def written(aws: Settings, letters: list[DeadLetter]) -> None:
    async with open_runtime(aws) as runtime:
        await runtime.dead_letters.write(letters)


def test_a_mapping_that_waits_for_a_rebuild_is_told(avesa: Avesa, done: Pipeline, tmp_path: Path) -> None:
    table = json.loads((SHIPPED / "canonical/tickets.json").read_text())
    table["columns"]["summary"]["tracked"] = False
    (tmp_path / "own/canonical").mkdir(parents=True)
    (tmp_path / "own/canonical/tickets.json").write_text(json.dumps(table))
    told = avesa("status", "--mappings", "own", "--json")
    assert told.code == 3
    (held,) = records(told, "held_mapping")
    assert (held["table"], held["mapping_version"], "summary" in held["what"]) == ("tickets", 1, True)


def test_a_rebuild_that_was_begun_and_not_finished_is_told(avesa: Avesa, connected: Vendor, aws: Settings) -> None:
    pinned = shipped(load_mappings(), "acme-msp", "connectwise", 2)["tickets"]
    looked(pin(aws, msgspec.structs.replace(pinned, rebuilt=2)))
    told = avesa("status", "--json")
    assert told.code == 3
    (held,) = records(told, "held_mapping")
    assert "a rebuild was begun and is not finished" in held["what"]


async def pin(aws: Settings, pinned: Pinned) -> None:
    async with open_runtime(aws) as runtime:
        key = mapping_key(pinned.tenant_id, pinned.table.table, pinned.service, pinned.mapping_version)
        await runtime.objects.create(key, encode(pinned))


def test_a_row_that_cannot_be_read_needs_a_person_and_hides_nothing(
    avesa: Avesa, connected: Vendor, aws: Settings
) -> None:
    looked(write(aws, "broken", {"status": "no such status"}))
    told = avesa("status")
    assert told.code == 3
    assert "TenantServices row 'acme-msp', 'broken'" in told.out
    assert "connectwise" in told.out


def test_leases_are_looked_for_where_the_extractor_takes_them() -> None:
    assert EXTRACT_SCOPE == LEASE_SCOPE


@pytest.mark.parametrize("name", ["status", "query", "history"])
def test_each_of_the_commands_that_look_shows_an_example_and_offers_json(avesa: Avesa, name: str) -> None:
    told = avesa(name, "--help")
    assert told.code == 0
    assert f"avesa {name}" in told.out.partition("Example")[2]
    assert "--json" in told.out


# -- the fleet --------------------------------------------------------------------------------------------------------
def test_every_shard_is_shown_with_its_owner_lag_rate_and_last_commit(
    avesa: Avesa, connected: Vendor, aws: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AVESA_LEASE_S", "1")  # so long does the second look wait for signs of life, four times over
    told_at = shifted(utc_text(datetime.now(UTC)), seconds=-3_600)
    progress: dict[str, Value] = {"rate": "1234.5", "behind_ms": 2_300, "committed_at": told_at}
    row: dict[str, Value] = {"owner": "a1b2c3d4e5f6", "epoch": 7, "counter": 1, "progress": progress, "deaths": 1}
    looked(leased(aws, "transformer", "shardId-000000000001", row))
    told = avesa("status", "--shards")
    assert "waiting 1 s for signs of life" in told.err
    table = told.out[told.out.index("SHARDS OF") :].splitlines()
    raw = aws.names.raw_stream
    assert [line.split()[:4] for line in table[1:]] == [
        ["transformer", raw, "shard-0", "nobody"],
        ["transformer", raw, "shard-1", "a1b2c3d4"],
        ["compactor", raw, "shard-0", "nobody"],
        ["compactor", raw, "shard-1", "nobody"],
        ["compactor", aws.names.canonical_stream, "shard-0", "nobody"],
        ["compactor", aws.names.canonical_stream, "shard-1", "nobody"],
    ]
    assert table[2].split(maxsplit=3)[3] == (
        "a1b2c3d4 (1 owner died at it, silent for 1 s)  7      nothing  2.3 s   1,234/s  1 h ago"
    )
    assert set(table[1].split()[4:]) == {"-", "nothing"}
    assert "SHARDS OF" not in avesa("status").out
    (transformer, *_) = records(avesa("status", "--json"), "stage")
    shard = transformer["shards"][1]
    assert (shard["owner"], shard["events_per_s"], shard["behind_ms"]) == ("a1b2c3d4e5f6", 1_234.5, 2_300)
    assert (shard["committed_at"], shard["deaths"], shard["epoch"]) == (told_at, 1, 7)


async def leased(aws: Settings, group: str, shard: str, row: dict[str, Value]) -> None:
    async with open_runtime(aws) as runtime:
        stream = await runtime.streams.describe(aws.names.raw_stream)
        key = {"scope": scope_of(aws.names.raw_stream, stream.created, group), "name": shard}
        await runtime.rows.write(aws.names.leases, key, row)


async def row_written(aws: Settings, scope: str, name: str, row: dict[str, Value]) -> None:
    async with open_runtime(aws) as runtime:
        await runtime.rows.write(aws.names.leases, {"scope": scope, "name": name}, row)


def test_groups_of_transformers_are_shown_where_there_is_more_than_one(
    avesa: Avesa, connected: Vendor, aws: Settings
) -> None:
    assert "GROUP" not in avesa("status").out
    looked(row_written(aws, "groups", "transformer", {"tables": None, "except": ["tickets"], "fan_out": False}))
    looked(row_written(aws, "groups", "transformer-tickets", {"tables": ["tickets"], "except": [], "fan_out": True}))
    told = avesa("status")
    assert told.code == 0
    table = told.out[told.out.index("GROUP") :].splitlines()
    assert [line.split(maxsplit=1) for line in table] == [
        ["GROUP", "TABLES           READS BY"],
        ["transformer", "all but tickets  polling"],
        ["transformer-tickets", "tickets          enhanced fan-out"],
    ]
    stages = [(stage["group"], len(stage["shards"])) for stage in records(avesa("status", "--json"), "stage")]
    assert stages == [("transformer", 2), ("transformer-tickets", 2), ("compactor", 2), ("compactor", 2)]

    looked(row_written(aws, "groups", "transformer-tickets", {"tables": ["tickets"], "except": [], "fan_out": False}))
    crowded = avesa("status")
    assert crowded.code == 3
    assert f"3 groups poll {aws.names.raw_stream} (transformer, transformer-tickets, compactor)" in crowded.out


def test_what_is_set_aside_is_shown_until_it_is_taken_up(avesa: Avesa, connected: Vendor, aws: Settings) -> None:
    since, until = "2026-01-31T09:15:00.000000Z", "2026-01-31T10:15:00.000000Z"
    stream, shard = aws.names.raw_stream, "shardId-000000000001"
    gap = Gap(group="transformer", stream=stream, shard=shard, since=since, until=until, at=until, state="archive")
    looked(row_written(aws, GAPS, gap.name, msgspec.to_builtins(gap)))
    told = avesa("status")
    assert told.code == 0
    assert told.out.startswith("at work: 1 lost range of a stream about to be read again")
    assert told.out.splitlines()[-2:] == [
        "GAP OF       WHAT",
        "transformer  the lost range between 2026-01-31 09:15:00 and 2026-01-31 10:15:00 of shard-1 "
        f"({aws.names.raw_stream}) is being read again from the raw archive",
    ]

    why: dict[str, Value] = {"since": since, "reason": "no number", "code": "bad_value", "letters": 120}
    looked(row_written(aws, "parked/transformer", "acme-msp/connectwise/tickets/0", why))
    looked(row_written(aws, "parked/transformer", "other/connectwise/tickets/0", why))
    told = avesa("status", "--tenant-id", "acme-msp", "--json")
    assert told.code == 3
    assert [one["partition"] for one in records(told, "parked")] == ["acme-msp/connectwise/tickets/0"]
    assert "the transformer has parked acme-msp/connectwise/tickets/0" in troubles(told)[0]
    assert "PARKED BY" in avesa("status").out


# -- the tables -------------------------------------------------------------------------------------------------------
def test_how_the_tables_stand_is_told_when_asked(done: Pipeline, avesa: Avesa) -> None:
    assert "REPLACED" not in avesa("status").out
    told = avesa("status", "--tables", "--json")
    tables = {record["table"]: record for record in records(told, "table")}
    assert tables["tickets"]["rows"] > 0
    assert tables["tickets"]["files"] > 0
    assert "REPLACED" in avesa("status", "--tables").out
