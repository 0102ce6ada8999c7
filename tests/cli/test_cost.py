"""What an environment costs: the model's arithmetic, and each of its assumptions that something here can contradict."""

import inspect
import math
import random
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
import pytest
from aiohttp import ClientSession, TCPConnector, web
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from services.cli import cost_model, prices
from services.cli.cost import tables
from services.cli.cost_model import PLATFORMS, Bill, Task, Workload, airbyte_usd, bill, occupied
from services.compactor.cuts import Rules
from services.compactor.iceberg import Warehouse
from services.compactor.merging import TABLES_AT_ONCE
from services.compactor.service import Compactor
from services.contracts import log
from services.contracts.events import ChangeEvent
from services.contracts.partitions import Partition
from services.extractor.fleet import SCAN_S
from services.extractor.plan import specs
from services.runtime.envelopes import seal
from services.runtime.leases import RENEWALS_PER_LEASE
from services.runtime.log import dimension_sets, units
from services.runtime.mapping_files import load_mappings
from services.runtime.provision import ensure
from services.runtime.reading import IDLE_MAX_S
from services.runtime.settings import Settings
from services.runtime.sharing import LOOKS_PER_LEASE
from services.sandbox.sites import Keys
from services.sandbox.world import World
from services.transformer.shard import Limits
from tests.cli.conftest import Avesa
from tests.compactor.observed import TABLES, seen
from tests.compactor.test_emulator import publish, runtime

ROOT: Final = Path(__file__).parents[2]
TERRAFORM: Final = ROOT / "infra" / "terraform"
PAGE: Final = ROOT / "docs" / "cost.md"
NOW: Final = "2026-01-31T09:10:00.000000Z"
HOP: Final = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect", "host"}
CORPUS: Final = ("service/tickets", "time/entries", "company/companies", "company/contacts")

workloads = st.builds(
    Workload,
    tenants=st.integers(1, 5_000),
    changes_per_day=st.integers(1, 1_000_000),
    services_per_tenant=st.integers(1, 10),
    cut_s=st.sampled_from([60.0, 300.0, 3_600.0]),
)


# -- arithmetic -------------------------------------------------------------------------------------------------------
@given(workloads, st.sampled_from(sorted(PLATFORMS)))
def test_a_bill_is_the_sum_of_lines_none_of_which_is_less_than_nothing(workload: Workload, environment: str) -> None:
    found = bill(workload, environment)
    assert all(math.isfinite(line.usd) and line.usd >= 0 and line.assumes for line in found.lines)
    assert found.usd == pytest.approx(sum(found.by_service.values()))
    assert found.usd_per_tenant * workload.tenants == pytest.approx(found.usd)
    assert found.usd_per_million_changes * workload.changes / 1e6 == pytest.approx(found.usd)


@given(workloads, st.sampled_from(sorted(PLATFORMS)))
def test_more_tenants_or_changes_never_cost_less(workload: Workload, environment: str) -> None:
    more = [
        msgspec.structs.replace(workload, tenants=2 * workload.tenants),
        msgspec.structs.replace(workload, changes_per_day=2 * workload.changes_per_day),
    ]
    assert all(bill(one, environment).usd >= bill(workload, environment).usd for one in more)


@given(st.integers(1, 10_000), st.floats(0, 1e7))
def test_no_more_slots_are_occupied_than_there_are_and_no_more_than_things_fall_into_them(
    slots: int, events: float
) -> None:
    assert 0 <= occupied(slots, events) <= min(slots, events) * (1 + 1e-9) + 1e-300


def test_fleets_merge_less_often_where_they_have_more_to_do_than_they_can() -> None:
    few, many = bill(Workload(10)), bill(Workload(5_000))
    assert (few.merge_every_s, few.tasks["compactor"]) == (300.0, 2)
    assert many.tasks["compactor"] == PLATFORMS["prod"].compactor.max
    assert many.merge_every_s > 3_600


def test_provisioned_streams_and_fan_out_have_lines_of_their_own() -> None:
    platform = msgspec.structs.replace(PLATFORMS["prod"], on_demand_streams=False, pushed_groups=1)
    flow = cost_model.flow_of(Workload(100), platform)
    lines = {line.what: line for line in cost_model._streams(flow, platform)}
    assert lines["shards"].usd == pytest.approx(8 * 730 * 0.015)
    assert lines["consumers (fan-out)"].usd == pytest.approx(4 * 730 * 0.015)
    assert lines["written"].quantity >= 2 * flow.batches


def test_endpoints_take_the_streams_polls_off_nat() -> None:
    platform = msgspec.structs.replace(PLATFORMS["prod"], interface_endpoints=1)
    workload = Workload(100)
    through = {
        which: {line.what: line.quantity for line in cost_model._network(workload, flow, one)}
        for which, one in (("nat", PLATFORMS["prod"]), ("endpoint", platform))
        for flow in [cost_model.flow_of(workload, one)]
    }
    assert through["endpoint"]["through NAT"] < through["nat"]["through NAT"]
    assert through["endpoint"]["interface endpoints"] == 3 * 730


# -- assumptions ------------------------------------------------------------------------------------------------------
def test_the_pace_of_the_services_is_that_of_the_code() -> None:
    lease_s = Settings.embedded("http://127.0.0.1:9").lease_s
    code = {
        "RENEWALS_S": lease_s / RENEWALS_PER_LEASE,
        "LOOKS_S": lease_s / LOOKS_PER_LEASE,
        "SCANS_S": SCAN_S,
        "COMMIT_S": Limits().commit_s,
        "SPOOL_S": Rules().spool_age_max_s,
        "CUT_S": Rules().cut_age_max_s,
        "IDLE_POLLS_S": IDLE_MAX_S,
        "MERGES_AT_ONCE": TABLES_AT_ONCE,
    }
    assert {name: getattr(cost_model, name) for name in code} == code


def test_a_service_is_read_and_saved_as_often_as_its_mapping_file_says() -> None:
    known = specs(load_mappings(None).integrations["connectwise"]).values()
    intervals = [spec.endpoint.interval_s for spec in known]
    assert sum(86_400 / interval for interval in intervals) == cost_model.PASSES_PER_DAY
    # Once a lag of five minutes where it is polled more often: settle passes, and saves of what is idle (ledger.py).
    assert sum(86_400 / max(interval, 300.0) for interval in intervals) == cost_model.SAVES_PER_DAY
    assert min(intervals) == cost_model.LIVE_INTERVAL_S


def test_envelopes_are_about_as_large_as_those_of_the_sandbox() -> None:
    world = World(lambda: datetime.now(UTC), random.Random(7))
    site = world.add_site("acme", Keys("acme", "public", "private", "client"))
    world.populate("acme", dict.fromkeys(CORPUS, 100), minimum=5)
    bodies = {
        path: [msgspec.json.encode(entry.data) for entry in site.tables[path].entries.values()] for path in CORPUS
    }
    assert sum(map(len, bodies["service/tickets"])) / len(bodies["service/tickets"]) == pytest.approx(
        cost_model.RECORD_BYTES, rel=0.1
    )
    for events in (1, 5, 20):
        sizes = [len(sealed(some[:events])) for some in bodies.values()]
        model = cost_model.ENVELOPE_BYTES + (events - 1) * cost_model.EVENT_BYTES
        assert sum(sizes) / len(sizes) == pytest.approx(model, rel=0.5)
        assert model >= 0.9 * sum(sizes) / len(sizes), "rather too large than too small"


def sealed(records: list[bytes]) -> bytes:
    partition = Partition("acme-msp", "connectwise", "tickets")
    events = [
        ChangeEvent("acme-msp", "connectwise", "tickets", str(number), "upsert", NOW, NOW, payload=msgspec.Raw(record))
        for number, record in enumerate(records)
    ]
    (envelope,) = seal(partition, "tickets", [msgspec.json.encode(event) for event in events])
    return envelope.data


def test_every_metric_of_every_event_is_paid_for() -> None:
    values = {
        "Environment": 1,
        "Service": 3,
        "Group": 1,
        "Tier": len(log.TIERS),
        "Table": len(load_mappings(None).tables),
    }
    events = [one for _, one in inspect.getmembers(log, inspect.isclass) if issubclass(one, log.Event)]
    found = sum(
        len(units(event)) * math.prod(values[dimension] for dimension in together)
        for event in events
        for together in dimension_sets(event)
    )
    assert found == cost_model.CUSTOM_METRICS


@pytest.mark.parametrize("environment", sorted(PLATFORMS))
def test_an_environment_is_sized_as_its_terraform_says(environment: str) -> None:
    platform, text = PLATFORMS[environment], (TERRAFORM / "environments" / f"{environment}.tfvars").read_text()
    zones = len(re.findall(r'"us-east-2[a-z]"', found(text, r"availability_zones = (\[[^\]]*\])")))
    nat = found(text, r'nat\s+= "(\w+)"')
    capacity = re.findall(r"\d+", found(text, r"capacity = \{([^}]*)\}"))
    assert (platform.zones, platform.nat_gateways) == (zones, {"none": 0, "single": 1, "per_az": zones}[nat])
    assert [platform.on_demand_base, platform.on_demand_weight, platform.spot_weight] == [int(one) for one in capacity]
    assert platform.container_insights == ("container_insights = false" not in text)
    assert platform.data_events == ("cloudtrail = false" not in text)
    assert ("interface_endpoints" in text) == bool(platform.interface_endpoints)
    assert "PROVISIONED" not in text
    for fleet in platform.fleets:
        assert platform.fleets[fleet] == task(fleet, text)


def task(fleet: str, text: str) -> Task:
    """A fleet's size: what the environment says, over the defaults of the root."""
    root = (TERRAFORM / "platform" / "variables.tf").read_text()
    size = dict(
        re.findall(r"(\w+) += optional\(number, (\d+)\)", found(root, rf"{fleet} += optional\(object\((.*)\), "))
    )
    size |= dict(re.findall(r"(\w+) = (\d+)", found(text, rf"\n  {fleet} += \{{([^}}]*)\}}", "")))
    number = {name: int(value) for name, value in size.items()}
    return Task(number["cpu"] / 1024, number["memory"] / 1024, number["disk_gib"], number["min"], number["max"])


def found(text: str, pattern: str, default: str | None = None) -> str:
    match = re.search(pattern, text)
    if match is None and default is not None:
        return default
    assert match is not None, pattern
    return match[1]


# -- a merge on the emulator ------------------------------------------------------------------------------------------
class Counting:
    """A proxy in front of an emulator that counts what passes: S3 by method, others by service."""

    def __init__(self, upstream: str) -> None:
        self.url, self.calls, self._upstream = "", Counter[str](), upstream
        self._session: ClientSession

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        async with ClientSession(connector=TCPConnector(limit=0), auto_decompress=False) as self._session:
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield
            finally:
                await runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.Response:
        target = request.headers.get("X-Amz-Target", "").partition(".")[0]
        key = urlsplit(request.raw_path).path.partition("/")[2].partition("/")[2]
        if target:
            self.calls[target] += 1
        elif "/tables/" in key or "/timeline/" in key or ("/canonical/" in key and request.method == "GET"):
            self.calls[request.method] += 1
        headers = {name: text for name, text in request.headers.items() if name.lower() not in HOP}
        body, url = await request.read(), URL(f"{self._upstream}{request.raw_path}", encoded=True)
        async with self._session.request(request.method, url, headers=headers, data=body or None) as told:
            kept = {name: text for name, text in told.headers.items() if name.lower() not in HOP}
            if request.method == "HEAD":
                return web.Response(status=told.status, headers=kept)
            kept.pop("Content-Length", None)
            return web.Response(status=told.status, headers=kept, body=await told.read())


@pytest.mark.emulator
async def test_a_merge_asks_as_often_as_the_model_says(embedded_aws: str) -> None:
    counting, rng, merges = Counting(embedded_aws), random.Random(1), 24
    latest: dict[str, str] = {}

    def changes(count: int, since: float) -> list[Any]:
        """Of 500 records; three in ten as they were, so that the timeline grows too."""
        events = []
        for number in range(count):
            record_id, at = str(rng.randrange(500)), since + number / 100
            if record_id not in latest or rng.random() >= 0.3:
                latest[record_id] = f"summary {at}"
            events.append(seen({"summary": latest[record_id]}, at, record_id=record_id))
        return events

    async with counting.serving():
        settings = Settings.embedded(counting.url, environment="costs")
        await ensure(settings)
        async with runtime(settings, []) as world:
            warehouse = await world.threads.run(Warehouse.on_glue, settings)
            await publish(world, changes(500, 0.0))
            await Compactor(world, TABLES, warehouse.history).drain()
            counting.calls.clear()
            for merge in range(merges):
                await publish(world, changes(20, 10.0 + merge))
                await Compactor(world, TABLES, warehouse.history).drain()
    each = {name: counting.calls[name] / merges for name in ("PUT", "POST", "GET", "HEAD", "AWSGlue")}
    assert each["PUT"] + each["POST"] == pytest.approx(cost_model.MERGE_PUTS, rel=0.15)
    assert each["GET"] + each["HEAD"] == pytest.approx(cost_model.MERGE_GETS, rel=0.3)
    assert each["AWSGlue"] == pytest.approx(cost_model.MERGE_CATALOG_CALLS, rel=0.15)


# -- what is told -----------------------------------------------------------------------------------------------------
def test_the_tables_of_the_page_are_what_the_command_prints(avesa: Avesa) -> None:
    told = avesa("cost", "--markdown")
    assert told.out == tables()
    assert told.out in PAGE.read_text(), "write it anew: .venv/bin/avesa cost --markdown"


def test_a_machine_gets_every_line_with_its_source(avesa: Avesa) -> None:
    (told,) = avesa("cost", "--tenants", "10", "--json").records
    expected: Bill = bill(Workload(10))
    assert told["usd_per_month"] == pytest.approx(expected.usd, abs=0.01)
    assert sum(line["usd"] for line in told["lines"]) == pytest.approx(expected.usd, abs=0.01)
    assert all(line["source"].startswith("https://") and line["assumes"] for line in told["lines"])


def test_a_person_is_told_the_month_the_tenant_and_the_million(avesa: Avesa) -> None:
    told = avesa("cost", "--tenants", "1000", "--environment", "prod")
    assert told.code == 0
    assert re.search(r"\$[\d,.]+ a month, \$[\d.]+ a tenant, \$[\d.]+ a million changes", told.out)
    assert "compactors have more merges than they can" in told.out


def test_an_environment_without_sizes_is_no_environment(avesa: Avesa) -> None:
    told = avesa("cost", "--environment", "porduction")
    assert told.code == 2
    assert "dev" in told.err


def test_airbytes_list_price_is_fifteen_dollars_a_million_rows_and_ten_a_month() -> None:
    million = Workload(1, changes_per_day=round(1e6 / cost_model.MONTH_DAYS))
    assert airbyte_usd(million) == pytest.approx(15.0, rel=0.01)
    assert airbyte_usd(Workload(1, changes_per_day=1)) == prices.AIRBYTE_BASE.usd


def test_every_price_names_its_page_and_when_it_was_read() -> None:
    found = [value for value in vars(prices).values() if isinstance(value, prices.Price)]
    assert len(found) > 30
    assert all(one.source.page.startswith("https://") and one.source.read for one in found)
