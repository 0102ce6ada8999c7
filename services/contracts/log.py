"""The closed list of what the services say: each is one log line and, where it counts or measures, metrics.

Noun and past verb; what is measured once a minute has no verb. Fields are numbers or bounded words, never a payload,
never a secret. One per batch, not per record. ERROR: data lost or service down. WARNING: unexpected but recovered.
INFO: start, stop, lease gained or lost.
"""

from collections.abc import Mapping
from typing import ClassVar, Final, Literal

import msgspec

Level = Literal["debug", "info", "warning", "error"]
Unit = Literal["Count", "Milliseconds", "Seconds"]
# How much a tenant is promised; a dimension of metrics, and an alarm for each: hence few, and known here.
Tier = Literal["premium", "standard", "basic"]
TIERS: Final[tuple[Tier, ...]] = ("premium", "standard", "basic")
STANDARD: Final[Tier] = "standard"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all events.

    Shape:  `counts` names the fields that are summed as metrics, `gauges` those that are measured, with their units.
            Every metric has the dimension `Environment`; each of `dimensions` names the fields besides, for one metric
            of its own. Such a field is a word of few values (a service, a table), never a tenant: each value is paid
            for by the month.
    """

    level: ClassVar[Level] = "info"
    counts: ClassVar[tuple[str, ...]] = ()
    gauges: ClassVar[Mapping[str, Unit]] = {}
    dimensions: ClassVar[tuple[tuple[str, ...], ...]] = ((),)


class ServiceStarted(Event, frozen=True, kw_only=True):
    service: str
    worker: str
    endpoint_url: str = ""


class ServiceStopped(Event, frozen=True, kw_only=True):
    service: str
    worker: str
    reason: str


class ServiceAlive(Event, frozen=True, kw_only=True):
    """One process runs and its loop turns: said once a minute. `group`: what its fleet is called (ShardsBehind)."""

    level: ClassVar[Level] = "debug"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    dimensions: ClassVar[tuple[tuple[str, ...], ...]] = (("service",), ("service", "group"))
    service: str
    group: str
    count: int = 1


class ShardsBehind(Event, frozen=True, kw_only=True):
    """How far a process is behind the newest record of its shards, at most, once a minute; 0 without a shard.

    `group`: the fleet that shares the work: `transformer`, `transformer-{--group}`, `compactor`.
    """

    level: ClassVar[Level] = "debug"
    gauges: ClassVar[Mapping[str, Unit]] = {"ms": "Milliseconds"}
    dimensions: ClassVar[tuple[tuple[str, ...], ...]] = (("service", "group"),)
    service: str
    group: str
    ms: int


class LakeBehind(Event, frozen=True, kw_only=True):
    """Compactor, once a minute: the age of the oldest it has read and that is in no table yet; 0 where all of it is."""

    level: ClassVar[Level] = "debug"
    gauges: ClassVar[Mapping[str, Unit]] = {"seconds": "Seconds"}
    seconds: float


class EndpointsLate(Event, frozen=True, kw_only=True):
    """Extractor, once a minute: how much older than promised the latest endpoint of the tenants of a tier is."""

    level: ClassVar[Level] = "debug"
    gauges: ClassVar[Mapping[str, Unit]] = {"seconds": "Seconds"}
    dimensions: ClassVar[tuple[tuple[str, ...], ...]] = (("tier",),)
    tier: Tier
    seconds: float


class LeaseGained(Event, frozen=True, kw_only=True):
    scope: str
    name: str
    epoch: int


class LeaseLost(Event, frozen=True, kw_only=True):
    level: ClassVar[Level] = "warning"
    scope: str
    name: str


class LeaseRestored(Event, frozen=True, kw_only=True):
    """Somebody removed the row of a lease that we hold: it is there again, at the last durable position."""

    level: ClassVar[Level] = "error"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    scope: str
    name: str
    count: int = 1


class EventsPublished(Event, frozen=True, kw_only=True):
    """Extractor: observations acknowledged by the raw stream."""

    level: ClassVar[Level] = "debug"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    tenant_id: str
    service: str
    endpoint: str
    count: int


class EventsTransformed(Event, frozen=True, kw_only=True):
    level: ClassVar[Level] = "debug"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    shard: str
    count: int


class EventsReadAgain(Event, frozen=True, kw_only=True):
    """After a takeover: what the previous owner had read and not committed."""

    counts: ClassVar[tuple[str, ...]] = ("count",)
    service: str
    shard: str
    count: int


class RecordsRejected(Event, frozen=True, kw_only=True):
    """Dead letters written."""

    level: ClassVar[Level] = "warning"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    stage: str
    tenant_id: str
    group: str
    code: str
    count: int
    first: str = ""


class RecordsRepeated(Event, frozen=True, kw_only=True):
    """A page showed records twice, and differently: the latest counts. Said once for an endpoint: it will go on."""

    level: ClassVar[Level] = "warning"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    tenant_id: str
    service: str
    endpoint: str
    count: int


class EndpointFailed(Event, frozen=True, kw_only=True):
    level: ClassVar[Level] = "warning"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    tenant_id: str
    service: str
    endpoint: str
    code: str
    what: str
    count: int = 1


class CredentialsRefused(Event, frozen=True, kw_only=True):
    level: ClassVar[Level] = "error"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    tenant_id: str
    service: str
    count: int = 1


class CustomersConnected(Event, frozen=True, kw_only=True):
    """A partner's list of customers has changed: so many are read from now on, again, or no longer."""

    tenant_id: str
    service: str
    new: int
    back: int
    gone: int


class VendorThrottled(Event, frozen=True, kw_only=True):
    level: ClassVar[Level] = "debug"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    tenant_id: str
    service: str
    wait_s: float
    count: int = 1


class SweepSuspicious(Event, frozen=True, kw_only=True):
    """A sweep found so little that nothing was deleted."""

    level: ClassVar[Level] = "error"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    tenant_id: str
    service: str
    endpoint: str
    known: int
    found: int
    count: int = 1


class MemoryLost(Event, frozen=True, kw_only=True):
    """A snapshot named by a row is not there: labels are unknown, sweeps delete nothing until it is rebuilt."""

    level: ClassVar[Level] = "error"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    scope: str
    name: str
    count: int = 1


class FieldsMissing(Event, frozen=True, kw_only=True):
    """Drift: paths a mapping names and no record of many had; most often fields that a customer does not use."""

    level: ClassVar[Level] = "debug"
    tenant_id: str
    service: str
    endpoint: str
    paths: str
    count: int


class FieldsVanished(Event, frozen=True, kw_only=True):
    """Drift: paths that records had and, among many, none has any longer; their columns are null from here on."""

    level: ClassVar[Level] = "warning"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    tenant_id: str
    service: str
    endpoint: str
    paths: str
    count: int


class MappingHeld(Event, frozen=True, kw_only=True):
    """The mapping file changed in a way that waits for a rebuild; the pinned one stays in force."""

    level: ClassVar[Level] = "warning"
    tenant_id: str
    service: str
    table: str
    what: str


class CutCommitted(Event, frozen=True, kw_only=True):
    level: ClassVar[Level] = "debug"
    counts: ClassVar[tuple[str, ...]] = ("rows",)
    shard: str
    cut: int
    files: int
    rows: int


class TableMerged(Event, frozen=True, kw_only=True):
    level: ClassVar[Level] = "debug"
    counts: ClassVar[tuple[str, ...]] = ("observations", "rows_written")
    dimensions: ClassVar[tuple[tuple[str, ...], ...]] = ((), ("table",))
    tenant_id: str
    table: str
    observations: int
    rows_written: int


class TableRebuilt(Event, frozen=True, kw_only=True):
    """A table was made again from the raw archive and swapped in."""

    counts: ClassVar[tuple[str, ...]] = ("count",)
    tenant_id: str
    table: str
    events: int
    rows: int
    rejected: int
    count: int = 1


class PositionExpired(Event, frozen=True, kw_only=True):
    """The stream may no longer hold what comes after a committed position."""

    level: ClassVar[Level] = "error"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    group: str
    stream: str
    shard: str
    count: int = 1


class GapHealed(Event, frozen=True, kw_only=True):
    """What had expired unread was read again: `count` events from the raw archive, or all of it from the vendors."""

    counts: ClassVar[tuple[str, ...]] = ("count",)
    group: str
    stream: str
    shard: str
    count: int


class Retried(Event, frozen=True, kw_only=True):
    level: ClassVar[Level] = "debug"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    what: str
    code: str
    wait_s: float
    count: int = 1


class PutsRefused(Event, frozen=True, kw_only=True):
    """A shard has refused part of what we put, or all of it, for half a minute (`code` says why: too hot, or down);
    said again while it goes on. `shard` is empty while the shards of the stream are not known."""

    level: ClassVar[Level] = "warning"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    stream: str
    shard: str
    code: str
    held_bytes: int
    count: int = 1


class WaitingFor(Event, frozen=True, kw_only=True):
    """Something outside is down; we wait and say for what."""

    level: ClassVar[Level] = "warning"
    what: str
    why: str


class PoisonSuspected(Event, frozen=True, kw_only=True):
    """Owner after owner of some work died and committed nothing: what it is about is tried in isolation first."""

    level: ClassVar[Level] = "warning"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    scope: str
    name: str
    deaths: int
    count: int = 1


class PoisonIsolated(Event, frozen=True, kw_only=True):
    """Lines that end whoever reads them were found and are dead letters from now on; `first` is a sequence."""

    level: ClassVar[Level] = "warning"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    scope: str
    name: str
    first: str
    count: int


class PartitionParked(Event, frozen=True, kw_only=True):
    """So much of a partition cannot be used that the rest of it waits, whole and in order, until it is released."""

    level: ClassVar[Level] = "error"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    tenant_id: str
    service: str
    group: str
    reason: str
    count: int = 1


class EnvelopesHeld(Event, frozen=True, kw_only=True):
    """What came for parked partitions and waits with the rest of them."""

    level: ClassVar[Level] = "debug"
    counts: ClassVar[tuple[str, ...]] = ("count",)
    shard: str
    count: int


EVENTS: tuple[type[Event], ...] = tuple(Event.__subclasses__())
