"""What an environment costs in a month: quantities from how the code behaves, prices from `prices.py`. Pure.

Each line says beside its quantity what it assumes. What tests/cli/test_cost.py can hold against the code, the mapping
files, the Terraform of the environments and a merge on the emulator, it holds; what nobody measured is said to be.
"""

import math
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from services.cli import prices
from services.cli.prices import Price

MONTH_HOURS: Final = 730.0
MONTH_DAYS: Final = MONTH_HOURS / 24
MONTH_S: Final = MONTH_HOURS * 3_600
GB: Final = float(1 << 30)
KB: Final = 1_024
PAYLOAD_UNIT_BYTES: Final = 25 * KB

# -- tenants, as assumed. Shares of changes by table, greatest first; endpoints are as uneven.
SHARES: Final = (0.40, 0.20, 0.15, 0.10, 0.05, 0.04, 0.02, 0.02, 0.01, 0.01)
BUSY_HOURS: Final = 10.0  # a day, all days: the changes of a day fall into them
KEPT_MONTHS: Final = 12.0  # the bill is that of the month after so many: raw/ and canonical/ are kept for ever

# -- measured on the ConnectWise sandbox (tests/cli/test_cost.py): an envelope of one event, and what each further adds
ENVELOPE_BYTES: Final = 1_700
EVENT_BYTES: Final = 450
RECORD_BYTES: Final = 4_200  # of a ticket's JSON, as the vendor sends it
LAKE_BYTES: Final = 1_000  # of one change in raw/, canonical/ and both Iceberg tables: assumed, with room

# -- read from mappings/integrations/connectwise.json: passes of one service a day, and saves of marks
PASSES_PER_DAY: Final = 10_972.0
SAVES_PER_DAY: Final = 5_212.0
LIVE_INTERVAL_S: Final = 60.0  # of the endpoints that change most
SAVED_ROW_UNITS: Final = 2  # KB of a row with marks and the names of segments: assumed

# -- the pace of the services: settings.py, leases.py, sharing.py, shard.py, fleet.py, cuts.py
RENEWALS_S: Final = 7.5
LOOKS_S: Final = 5.0
SCANS_S: Final = 30.0
COMMIT_S: Final = 5.0
SPOOL_S: Final = 60.0
CUT_S: Final = 300.0
UNIT_ROW_BYTES: Final = 1_500  # of a lease on a connected service: the endpoints' names and times
SHARD_ROW_BYTES: Final = 3_500  # of a lease on a shard: up to 24 segments
IDLE_POLLS_S: Final = 1.0  # of a shard without news, and its bytes, both ways, with TLS
POLL_BYTES: Final = 1_500
CALL_BYTES: Final = 2_000  # of a call to a vendor that finds nothing
READS_PER_CHANGE: Final = 3  # live, once more for the overlap, once more when it settles

# -- one merge of one table, with a timeline that grows: measured on the emulator (tests/cli/test_cost.py)
MERGE_PUTS: Final = 13.0  # one for each file: compactor/lake_io.py
MERGE_GETS: Final = 70.0
MERGE_CATALOG_CALLS: Final = 8.0
MERGE_S: Final = 2.0  # on S3: nobody measured it; 0.2 s of it is computing
MERGES_AT_ONCE: Final = 2  # of one task

# -- what a task does. Reads: half of what tests/soak/test_many_tenants.py shows of a core
READS_PER_VCPU_S: Final = 160.0
EMF_LINE_BYTES: Final = 500
BEATS_PER_TASK: Final = 4  # lines a minute
FLOW_LOG_GB_PER_TASK: Final = 0.3  # assumed
CUSTOM_METRICS: Final = 65  # services/contracts/log.py, every dimension of every event
INSIGHTS_METRICS_PER_SERVICE: Final = 8  # CloudWatch user guide, Container Insights metrics for ECS
KEY_CALLS_PER_STREAM: Final = 3 * MONTH_S / 300  # each of three roles, every five minutes
SECRET_READS_PER_DAY: Final = 24.0  # of one service: at a takeover, or for a token


class Task(msgspec.Struct, frozen=True):
    """One fleet: its tasks' size, and how few and many it has."""

    vcpu: float
    memory_gb: float
    disk_gb: int
    min: int
    max: int


class Platform(msgspec.Struct, frozen=True):
    """What costs by the hour in an environment: `infra/terraform/environments/{environment}.tfvars`."""

    zones: int
    nat_gateways: int
    extractor: Task
    transformer: Task
    compactor: Task
    on_demand_base: int
    on_demand_weight: int
    spot_weight: int
    container_insights: bool
    data_events: bool
    interface_endpoints: int = 0
    shards: int = 4  # of each stream; what an on-demand stream begins with
    on_demand_streams: bool = True
    pushed_groups: int = 0  # groups of transformers with enhanced fan-out
    alarms: int = 38  # 30 for people, two of them over two metrics; 6 that scale
    keys: int = 3

    @property
    def fleets(self) -> Mapping[str, Task]:
        return {"extractor": self.extractor, "transformer": self.transformer, "compactor": self.compactor}


PLATFORMS: Final[Mapping[str, Platform]] = {
    "dev": Platform(
        zones=2,
        nat_gateways=1,
        extractor=Task(0.25, 1, 20, 1, 2),
        transformer=Task(0.25, 1, 20, 1, 2),
        compactor=Task(0.5, 2, 20, 1, 2),
        on_demand_base=0,
        on_demand_weight=0,
        spot_weight=1,
        container_insights=False,
        data_events=False,
    ),
    "staging": Platform(
        zones=2,
        nat_gateways=1,
        extractor=Task(0.5, 1, 20, 1, 4),
        transformer=Task(0.5, 2, 20, 1, 4),
        compactor=Task(1, 4, 30, 1, 4),
        on_demand_base=1,
        on_demand_weight=1,
        spot_weight=1,
        container_insights=True,
        data_events=True,
    ),
    "prod": Platform(
        zones=3,
        nat_gateways=3,
        extractor=Task(1, 2, 20, 2, 8),
        transformer=Task(1, 2, 20, 2, 4),
        compactor=Task(2, 8, 50, 2, 4),
        on_demand_base=2,
        on_demand_weight=1,
        spot_weight=1,
        container_insights=True,
        data_events=True,
    ),
}


class Workload(msgspec.Struct, frozen=True):
    """What is asked of an environment. `changes_per_day`: of each tenant, seen by us: two edits of a record between
    two polls are one. `cut_s`: AVESA_CUT_AGE_MAX_S, how often the tables of the lake follow."""

    tenants: int
    changes_per_day: int = 5_000
    services_per_tenant: int = 1
    cut_s: float = CUT_S

    @property
    def services(self) -> int:
        return self.tenants * self.services_per_tenant

    @property
    def changes(self) -> float:
        """Of all tenants in a month."""
        return self.tenants * self.changes_per_day * MONTH_DAYS


class Line(msgspec.Struct, frozen=True):
    """One line of the bill."""

    service: str
    what: str
    quantity: float
    price: Price
    assumes: str

    @property
    def usd(self) -> float:
        return self.price.of(self.quantity)


class Bill(msgspec.Struct, frozen=True):
    """The month. `merge_every_s`: how often the table of a tenant that changes all the time is merged, which is later
    than asked for where the compactors have more to do than they can."""

    environment: str
    workload: Workload
    lines: tuple[Line, ...]
    tasks: Mapping[str, int]
    merge_every_s: float

    @property
    def usd(self) -> float:
        return sum(line.usd for line in self.lines)

    @property
    def usd_per_tenant(self) -> float:
        return self.usd / self.workload.tenants

    @property
    def usd_per_million_changes(self) -> float:
        return self.usd / self.workload.changes * prices.MILLION

    @property
    def by_service(self) -> dict[str, float]:
        """Dollars by AWS service, in the order of the lines."""
        found: dict[str, float] = {}
        for line in self.lines:
            found[line.service] = found.get(line.service, 0.0) + line.usd
        return found


def bill(workload: Workload, environment: str = "prod") -> Bill:
    """What the environment costs in a month with that workload. Errors: KeyError for an unknown environment."""
    platform = PLATFORMS[environment]
    flow = flow_of(workload, platform)
    lines = (
        *_streams(flow, platform),
        *_tasks(flow, platform),
        *_tables(workload, flow, platform),
        *_lake(workload, flow, platform),
        *_secrets(workload, platform),
        *_watching(flow, platform),
        *_network(workload, flow, platform),
    )
    return Bill(environment, workload, lines, flow.tasks, flow.merge_every_s)


# -- how much of everything -------------------------------------------------------------------------------------------
class Flow(msgspec.Struct, frozen=True):
    """What happens in a month, of all tenants. `parts`: files that cuts write of one stream; `hours`: folders and hours
    with something in them; `batches`: polls that found something, an envelope each."""

    batches: float
    stream_bytes: float
    billed_bytes: float
    payload_units: float
    parts: float
    hours: float
    merges: float
    merge_every_s: float
    commits: float
    tasks: Mapping[str, int]


def occupied(slots: float, events: float) -> float:
    """In how many of `slots` something happens, when `events` fall into them by chance (Poisson)."""
    return slots * -math.expm1(-events / slots) if slots else 0.0


def flow_of(workload: Workload, platform: Platform) -> Flow:
    """The workload as requests, files and bytes."""
    busy_s, changes = BUSY_HOURS * 3_600 * MONTH_DAYS, workload.changes_per_day * MONTH_DAYS

    def of_all(slots: float) -> float:
        return workload.tenants * sum(occupied(slots, changes * share) for share in SHARES)

    batches = of_all(busy_s / LIVE_INTERVAL_S)
    events = workload.changes / batches if batches else 0.0  # of one envelope
    envelope = ENVELOPE_BYTES + EVENT_BYTES * max(0.0, events - 1)
    parts = of_all(busy_s / workload.cut_s)
    tasks = {
        "extractor": _bounded(platform.extractor, reads_per_s(workload) / READS_PER_VCPU_S / platform.extractor.vcpu),
        "transformer": platform.transformer.min,  # one does 20,000 events a second: never the first to be short
        "compactor": _bounded(platform.compactor, parts * MERGE_S / MERGES_AT_ONCE / busy_s),
    }
    done = min(parts, tasks["compactor"] * MERGES_AT_ONCE / MERGE_S * busy_s)
    every_s = workload.cut_s * (parts / done if done else 1.0)
    windows = busy_s / COMMIT_S
    return Flow(
        batches=batches,
        stream_bytes=batches * envelope,
        billed_bytes=batches * math.ceil(envelope / KB) * KB,
        payload_units=batches * math.ceil(envelope / PAYLOAD_UNIT_BYTES),
        parts=parts,
        hours=of_all(busy_s / 3_600),
        merges=done,
        merge_every_s=every_s,
        commits=platform.shards * occupied(windows, batches / platform.shards),
        tasks=tasks,
    )


def reads_per_s(workload: Workload) -> float:
    """Passes of all endpoints of all services."""
    return workload.services * PASSES_PER_DAY / 86_400


def _bounded(task: Task, wanted: float) -> int:
    return min(task.max, max(task.min, math.ceil(wanted)))


# -- the lines --------------------------------------------------------------------------------------------------------
def _streams(flow: Flow, platform: Platform) -> Iterator[Line]:
    written, billed = 2 * flow.stream_bytes / GB, 2 * flow.billed_bytes / GB
    read = 3 * flow.stream_bytes / GB
    pushed = platform.pushed_groups * flow.stream_bytes / GB
    sizes = "each change once on raw and once on canonical; envelopes of one poll, zstd, as measured"
    if platform.on_demand_streams:
        yield Line("Kinesis", "two streams on demand", 2 * MONTH_HOURS, prices.STREAM_HOUR, "raw and canonical")
        yield Line("Kinesis", "written", billed, prices.STREAM_IN, f"{sizes}; whole KB a record")
        yield Line(
            "Kinesis", "read", read, prices.STREAM_OUT, "raw by transformers and compactors, canonical by compactors"
        )
        kept = written * 6 / MONTH_DAYS
        yield Line("Kinesis", "kept for a week", kept, prices.STREAM_KEPT, "six days beyond the first")
        if pushed:
            yield Line("Kinesis", "pushed (fan-out)", pushed, prices.STREAM_PUSHED, "raw, once a group")
        return
    shard_hours = 2 * platform.shards * MONTH_HOURS
    yield Line("Kinesis", "shards", shard_hours, prices.SHARD_HOUR, f"{platform.shards} in each of two streams")
    yield Line("Kinesis", "kept for a week", shard_hours, prices.SHARD_KEPT, "every shard, whatever lies in it")
    yield Line("Kinesis", "written", 2 * flow.payload_units, prices.SHARD_PUT, f"{sizes}; a unit is 25 KB of one")
    if pushed:
        hours = platform.pushed_groups * platform.shards * MONTH_HOURS
        yield Line("Kinesis", "consumers (fan-out)", hours, prices.SHARD_PUSH_HOUR, "every shard of raw, once a group")
        yield Line("Kinesis", "pushed (fan-out)", pushed, prices.SHARD_PUSHED, "raw, once a group")


def _tasks(flow: Flow, platform: Platform) -> Iterator[Line]:
    for fleet, task in platform.fleets.items():
        count = flow.tasks[fleet]
        paid = count - _on_spot(count, platform) * (1 - prices.SPOT_SHARE)
        assumes = f"{count} x {task.vcpu:g} vCPU, {task.memory_gb:g} GB, ARM; all day"
        if paid < count:
            assumes += f"; {_on_spot(count, platform):g} on Spot at {prices.SPOT_SHARE:.0%}"
        if fleet == "compactor":
            assumes += f"; a merge takes {MERGE_S:g} s, {MERGES_AT_ONCE} at once (not measured on S3)"
        yield Line("Fargate", f"{fleet}, processors", paid * task.vcpu * MONTH_HOURS, prices.VCPU_HOUR, assumes)
        memory = paid * task.memory_gb * MONTH_HOURS
        yield Line("Fargate", f"{fleet}, memory", memory, prices.MEMORY_HOUR, "the same tasks")
        disk = count * max(0, task.disk_gb - 20) * MONTH_HOURS
        if disk:
            yield Line("Fargate", f"{fleet}, disk", disk, prices.DISK_HOUR, f"{task.disk_gb} GB a task, 20 are free")


def _on_spot(tasks: int, platform: Platform) -> float:
    beyond = max(0, tasks - platform.on_demand_base)
    return beyond * platform.spot_weight / (platform.on_demand_weight + platform.spot_weight)


def _tables(workload: Workload, flow: Flow, platform: Platform) -> Iterator[Line]:
    shard_leases = 3 * platform.shards  # raw by two groups, canonical by one
    unit_units, shard_units = math.ceil(UNIT_ROW_BYTES / KB), math.ceil(SHARD_ROW_BYTES / KB)
    renewals = MONTH_S / RENEWALS_S
    yield Line(
        "DynamoDB",
        "leases on connected services",
        workload.services * renewals * unit_units,
        prices.WRITE_UNITS,
        f"each renewed every {RENEWALS_S:g} s; a row of {unit_units} KB",
    )
    yield Line(
        "DynamoDB",
        "leases on shards",
        shard_leases * renewals * shard_units,
        prices.WRITE_UNITS,
        f"{shard_leases} leases, every {RENEWALS_S:g} s; a row of {shard_units} KB",
    )
    saves = workload.services * SAVES_PER_DAY * MONTH_DAYS + 2 * flow.batches
    yield Line(
        "DynamoDB",
        "marks of endpoints",
        saves * SAVED_ROW_UNITS,
        prices.WRITE_UNITS,
        "once a lag or pass of each ConnectWise endpoint, and twice a batch: intended, remembered",
    )
    spools = 2 * platform.shards * MONTH_S / SPOOL_S
    cuts = 2 * platform.shards * MONTH_S / workload.cut_s
    writes = (flow.commits + spools + 3 * cuts) * shard_units + 2 * flow.merges
    yield Line(
        "DynamoDB",
        "positions, cuts and merges",
        writes,
        prices.WRITE_UNITS,
        f"a commit in {COMMIT_S:g} s with news, a spool a minute, three writes a cut, two a merge (its lease)",
    )
    tasks = flow.tasks
    scope = workload.services * UNIT_ROW_BYTES / (4 * KB)
    shards = platform.shards * SHARD_ROW_BYTES / (4 * KB)
    looks = tasks["extractor"] * scope + (tasks["transformer"] + 2 * tasks["compactor"]) * shards
    reads = looks * MONTH_S / LOOKS_S + tasks["extractor"] * scope / 2 * MONTH_S / SCANS_S + 6 * flow.merges
    yield Line(
        "DynamoDB",
        "looks at leases and services",
        reads,
        prices.READ_UNITS,
        f"every task every {LOOKS_S:g} s at its scope, extractors every {SCANS_S:g} s at all services; consistent",
    )


def _lake(workload: Workload, flow: Flow, platform: Platform) -> Iterator[Line]:
    merge = f"{flow.merges:,.0f} merges of one table; {MERGE_PUTS:g} and {MERGE_GETS:g} requests each, as measured"
    yield Line("S3", "merges, written", flow.merges * MERGE_PUTS, prices.PUT_REQUESTS, merge)
    yield Line("S3", "merges, read", flow.merges * MERGE_GETS, prices.GET_REQUESTS, "the same merges")
    files = 2 * flow.parts + 4 * flow.hours
    yield Line(
        "S3",
        "files of cuts and hours",
        files,
        prices.PUT_REQUESTS,
        "one a cut, table or endpoint, and stream; a list and a file for each of their hours",
    )
    spools = 2 * platform.shards * (MONTH_S / SPOOL_S + MONTH_S / workload.cut_s)
    kept = 2 * flow.batches + flow.commits + spools
    yield Line(
        "S3",
        "memory, state, spool",
        kept,
        prices.PUT_REQUESTS,
        "two a batch, one a commit of a shard, one a minute and a cut of each shard",
    )
    reads = flow.batches + flow.commits + 2 * flow.parts
    yield Line(
        "S3", "segments and parts read", reads, prices.GET_REQUESTS, "a segment a save, and each part once for its hour"
    )
    stored = workload.changes * KEPT_MONTHS * LAKE_BYTES / GB
    yield Line(
        "S3",
        "storage",
        stored,
        prices.S3_STORAGE,
        f"after {KEPT_MONTHS:g} months, {LAKE_BYTES:,} bytes a change in all; without what is there at the start",
    )
    calls = max(0.0, flow.merges * MERGE_CATALOG_CALLS - prices.MILLION)
    yield Line("Glue", "catalog", calls, prices.CATALOG_REQUESTS, f"{MERGE_CATALOG_CALLS:g} a merge, a million is free")
    if platform.data_events:
        events = files + kept + reads + flow.merges * (MERGE_PUTS + MERGE_GETS)
        yield Line("CloudTrail", "data events of the lake", events, prices.DATA_EVENTS, "every call on an object")


def _secrets(workload: Workload, platform: Platform) -> Iterator[Line]:
    yield Line("Secrets Manager", "secrets", workload.services, prices.SECRETS, "one a tenant and service")
    reads = workload.services * SECRET_READS_PER_DAY * MONTH_DAYS
    yield Line("Secrets Manager", "reads", reads, prices.SECRET_CALLS, f"{SECRET_READS_PER_DAY:g} a day and service")
    yield Line("KMS", "keys", platform.keys, prices.KEYS, "data, secrets, logs")
    calls = 2 * KEY_CALLS_PER_STREAM + reads
    yield Line("KMS", "calls", calls, prices.KEY_CALLS, "streams every five minutes a role, secrets at each read")


def _watching(flow: Flow, platform: Platform) -> Iterator[Line]:
    yield Line("CloudWatch", "metrics", CUSTOM_METRICS, prices.METRICS, "every metric of services/contracts/log.py")
    if platform.container_insights:
        count = INSIGHTS_METRICS_PER_SERVICE * (1 + len(platform.fleets))
        yield Line("CloudWatch", "container insights", count, prices.METRICS, "the cluster and its services")
    yield Line("CloudWatch", "alarms", platform.alarms, prices.ALARMS, "as infra/terraform/modules/observability")
    yield Line("CloudWatch", "alarm of alarms", 1, prices.COMPOSITE_ALARMS, "one an environment")
    yield Line("CloudWatch", "dashboard", 1, prices.DASHBOARDS, "one an environment")
    tasks = sum(flow.tasks.values())
    lines = flow.batches + flow.commits + flow.merges + tasks * BEATS_PER_TASK * MONTH_S / 60
    logs = lines * EMF_LINE_BYTES / GB + tasks * FLOW_LOG_GB_PER_TASK
    yield Line(
        "CloudWatch",
        "logs",
        logs,
        prices.LOGS_IN,
        f"a line of {EMF_LINE_BYTES} bytes a batch, commit and merge, {BEATS_PER_TASK} a minute and task; flow logs",
    )


def _network(workload: Workload, flow: Flow, platform: Platform) -> Iterator[Line]:
    gateways = platform.nat_gateways * MONTH_HOURS
    yield Line(
        "Network", "NAT gateways", gateways, prices.NAT_HOUR, f"{platform.nat_gateways}; S3 and DynamoDB go past"
    )
    yield Line("Network", "addresses", gateways, prices.ADDRESS_HOUR, "one a gateway")
    vendors = reads_per_s(workload) * MONTH_S * CALL_BYTES + workload.changes * RECORD_BYTES * READS_PER_CHANGE
    polls = 3 * platform.shards * MONTH_S / IDLE_POLLS_S * POLL_BYTES + 5 * flow.stream_bytes
    if platform.interface_endpoints:
        hours = platform.interface_endpoints * platform.zones * MONTH_HOURS
        yield Line("Network", "interface endpoints", hours, prices.ENDPOINT_HOUR, "in each zone")
        yield Line("Network", "through endpoints", polls / GB, prices.ENDPOINT_DATA, "polls of the streams")
        yield Line("Network", "through NAT", vendors / GB, prices.NAT_DATA, "vendors' answers, each change three times")
        return
    yield Line(
        "Network",
        "through NAT",
        (vendors + polls) / GB,
        prices.NAT_DATA,
        "vendors' answers, each change three times; polls of the streams",
    )


# -- bought instead ---------------------------------------------------------------------------------------------------
def airbyte_usd(workload: Workload) -> float:
    """What Airbyte Cloud asks for as many rows, at its list price; the destination's own cost is not in it."""
    included = 4 * 2.5
    return prices.AIRBYTE_BASE.usd + max(0.0, prices.AIRBYTE_ROWS.of(workload.changes) - included)
