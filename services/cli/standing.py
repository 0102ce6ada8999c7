"""How the pipeline stands, from the rows that its services keep: what is up to date, what is not, and what to do.

Pure: the same rows at the same time make the same standing. Nothing here knows AWS; `status.py` reads and shows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from services.cli.ages import ago, rough
from services.cli.letters import Letters
from services.cli.screen import counted
from services.cli.stages import Life, Stage
from services.contracts.errors import UsageError
from services.contracts.integration import Integration
from services.contracts.times import UtcTime, seconds_between
from services.extractor.marks import Marks
from services.extractor.plan import Spec, specs

if TYPE_CHECKING:  # brings asyncio along, which `avesa --help` does without
    from services.extractor.tenants import TenantService

DONE, IN_PART = 0, 3
MARKS_SAVED_S: Final = 300.0  # marks that move over nothing new are saved so often: extractor/ledger.py, IDLE_SAVE_S
SLACK_S: Final = 300.0  # for a slow vendor, a throttled one, a worker that takes over
STARTING_S: Final = 60.0  # until a running extractor has noticed a new service: extractor/service.py, SCAN_S
SILENT_MAX_S: Final = 120.0  # lease times in which any living worker would have taken over
READING_S: Final = 900.0  # a long pass saves every half minute; so long without is no pass
NAMES_SHOWN_MAX: Final = 3
# What passes by itself; the extractor tries again with growing pauses, at most a quarter of an hour.
PASSING: Final = frozenset({"unavailable", "timeout", "throttled", "conflict", "already_running", "aws_unreachable"})

State = Literal[
    "up to date", "reading", "not read yet", "behind", "failing", "paused", "reconnect needed", "no mapping"
]
# The state of a service is the first of these that one of its endpoints is in.
WORST_FIRST: Final[tuple[State, ...]] = ("failing", "behind", "not read yet", "reading", "up to date")
Row = Mapping[str, Any]


class EndpointStanding(msgspec.Struct, frozen=True, tag_field="kind", tag="endpoint"):
    """One endpoint. It was read to its end at `read_at` or later; `tried_at` is when it last failed."""

    tenant_id: str
    service: str
    endpoint: str
    state: State
    read_at: UtcTime | None = None
    swept_at: UtcTime | None = None
    code: str = ""
    what: str = ""
    tried_at: UtcTime | None = None
    late: bool = False
    sweep_late: bool = False


class ServiceStanding(msgspec.Struct, frozen=True, tag_field="kind", tag="service"):
    """One connected service. `read_at` and `swept_at` are the oldest of its endpoints'; `owner` reads it now;
    `starting`: connected, changed or resumed so lately that a running extractor may not have noticed."""

    tenant_id: str
    service: str
    company_name: str
    state: State
    endpoints: dict[str, int]
    read_at: UtcTime | None
    swept_at: UtcTime | None
    owner: str | None
    epoch: int
    life: Life | None
    why: str = ""
    refused_at: UtcTime | None = None
    starting: bool = False

    @property
    def name(self) -> str:
        return f"{self.tenant_id} {self.service}"

    @property
    def options(self) -> str:
        return f"--tenant-id {self.tenant_id} --service {self.service}"


class HeldMapping(msgspec.Struct, frozen=True, tag_field="kind", tag="held_mapping"):
    """The mapping files differ from the mapping in force in a way that waits for a rebuild."""

    tenant_id: str
    service: str
    table: str
    mapping_version: int
    what: str


class Trouble(msgspec.Struct, frozen=True, tag_field="kind", tag="trouble"):
    """Something that needs a person, and what that person can do."""

    what: str
    remedy: str


Read = tuple[ServiceStanding, tuple[EndpointStanding, ...]]


class Seen(msgspec.Struct, frozen=True):
    """Everything one look found."""

    at: UtcTime
    services: tuple[Read, ...]
    unreadable: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    letters: tuple[Letters, ...] = ()
    held: tuple[HeldMapping, ...] = ()


class Standing(msgspec.Struct, frozen=True, tag_field="kind", tag="verdict"):
    """The verdict: one line, and the troubles behind it, the most important first."""

    at: UtcTime
    verdict: str
    exit_code: int
    troubles: tuple[Trouble, ...]


# -- one service ------------------------------------------------------------------------------------------------------
def service_standing(
    row: "TenantService",
    integration: Integration | None,
    marked: Mapping[str, Row],
    lease: Row,
    interval_s: float | None,
    now: UtcTime,
    life: Life | None = None,
) -> Read:
    """How a connected service and each of its endpoints stand.

    `marked` are its LastUpdated rows by endpoint; `interval_s` is how often the fleet reads where the row does not say.
    """
    try:
        known = specs(integration) if integration is not None else {}
    except UsageError:
        known = {}
    owner = lease.get("owner")
    endpoints = tuple(
        _endpoint(row, spec, marked.get(name, {}), row.interval_s or interval_s, owner is not None, now)
        for name, spec in known.items()
    )
    reads, sweeps = [one.read_at for one in endpoints], [one.swept_at for one in endpoints if one.swept_at]
    service = ServiceStanding(
        row.tenant_id,
        row.service,
        row.company_name,
        _state(row, endpoints),
        dict(Counter[str](one.state for one in endpoints)),
        min((at for at in reads if at), default=None) if all(reads) else None,
        min(sweeps, default=None),
        owner,
        int(lease.get("epoch", 0)),
        life,
        row.status_what if row.status == "reconnect needed" else "",
        row.status_at or None if row.status == "reconnect needed" else None,
        _within(STARTING_S, row.updated_at, now),
    )
    return service, endpoints


def _state(row: "TenantService", endpoints: Iterable[EndpointStanding]) -> State:
    if not row.enabled:
        return "paused"
    if row.status == "reconnect needed":
        return "reconnect needed"
    found = {one.state for one in endpoints}
    return next((state for state in WORST_FIRST if state in found), "no mapping")


def _endpoint(
    row: "TenantService", spec: Spec, held: Row, interval_s: float | None, owned: bool, now: UtcTime
) -> EndpointStanding:
    try:
        marks = msgspec.convert(held.get("marks") or {}, Marks)
    except msgspec.ValidationError:
        marks = Marks()  # of another release: read again from the start
    every_s = interval_s or spec.endpoint.interval_s
    late = marks.fresh is not None and seconds_between(marks.fresh, now) > 2 * every_s + MARKS_SAVED_S + SLACK_S
    # A pass under way saves now and then; the first after a change may be about to.
    passing = _within(READING_S, held.get("saved_at"), now) and (marks.walk is not None or marks.fresh is None)
    reading = passing or (owned and _within(READING_S, row.updated_at, now))
    code = str(held.get("failed_code") or "")
    state: State = "up to date"
    if not row.enabled:
        state = "paused"
    elif code:
        state = "failing"
    elif late or marks.fresh is None:
        state = "reading" if reading else "behind" if late else "not read yet"
    return EndpointStanding(
        row.tenant_id,
        row.service,
        spec.name,
        state,
        marks.fresh,
        marks.swept_at,
        code,
        str(held.get("failed_what") or ""),
        held.get("failed_at"),
        late,
        _sweep_late(spec, marks, now),
    )


def _within(seconds: float, then: UtcTime | None, now: UtcTime) -> bool:
    return bool(then) and seconds_between(str(then), now) <= seconds


def _sweep_late(spec: Spec, marks: Marks, now: UtcTime) -> bool:
    if spec.sweep is None or marks.swept_at is None:
        return False
    return seconds_between(marks.swept_at, now) > 2 * spec.sweep.interval_s + SLACK_S


# -- all of it --------------------------------------------------------------------------------------------------------
def judge(seen: Seen, place: str) -> Standing:
    """The verdict over one look. `place` is where dead letters lie (`s3://bucket`)."""
    troubles = tuple(_troubles(seen, place))
    if troubles:
        more = f" (the first of {len(troubles)} things that need a person)" if len(troubles) > 1 else ""
        return Standing(seen.at, troubles[0].what + more, IN_PART, troubles)
    return Standing(seen.at, _quiet_verdict(seen), DONE, ())


def _quiet_verdict(seen: Seen) -> str:
    if not seen.services:
        return "no service is connected: begin with avesa setup-service"
    waiting = sum(stage.events for stage in seen.stages)
    states = Counter(service.state for service, _ in seen.services)
    busy = []
    if waiting:
        more = "more than " if any(stage.more for stage in seen.stages) else ""
        busy.append(f"{more}{counted(waiting, 'event')} on the way to the lake")
    if any(stage.uncut_since or stage.unmerged for stage in seen.stages):
        busy.append("new files about to be merged")
    if states["reading"]:
        busy.append(f"{counted(states['reading'], 'service')} being read for the first time in a while")
    if states["not read yet"]:
        begins = "a running extractor begins within a minute; without one: avesa run --once"
        busy.append(f"{counted(states['not read yet'], 'new service')} ({begins})")
    paused = f" ({counted(states['paused'], 'service')} paused)" if states["paused"] else ""
    return ("at work: " + ", ".join(busy) if busy else "everything is up to date") + paused


def _troubles(seen: Seen, place: str) -> Iterator[Trouble]:
    """The most important first: what may be lost, what holds up everybody, one tenant, one endpoint, one record."""
    now = seen.at
    reads = [(service, endpoints) for service, endpoints in seen.services if service.state != "paused"]
    for stage in seen.stages:
        yield from _lost(stage)
    for stage in seen.stages:
        yield from _held_up(stage, now)
    yield from (Trouble(what, "Run `avesa setup-service` again, or remove the row.") for what in seen.unreadable)
    yield from _refused([service for service, _ in reads], now)
    yield from _not_read(reads, now)
    yield from _silent([service for service, _ in reads], seen.stages)
    for service, endpoints in reads:
        yield from _failing(service, endpoints, now)
        yield from _unswept(service, endpoints, now)
    yield from _letters(seen.letters, place)
    for held in seen.held:
        what = f"the mapping of {held.table} for {held.tenant_id} {held.service} has changed and is not in force"
        yield Trouble(f"{what}: {held.what}", "`avesa replay --rebuild` brings it into force, or undo the change.")


def _lost(stage: Stage) -> Iterator[Trouble]:
    if stage.expired:
        what = f"{counted(stage.expired, 'shard')} of {stage.stream} may have dropped records the {stage.service} never"
        yield Trouble(f"{what} read", "`avesa trigger-backfill` reads them from the vendors again.")


def _held_up(stage: Stage, now: UtcTime) -> Iterator[Trouble]:
    """A stage that does not get on: everything behind it waits."""
    late = stage.late(now)
    if late is None:
        return
    events = f"{'more than ' if stage.more else ''}{counted(stage.events, 'event')}"
    held = f"{events} of {stage.stream}" if stage.events else f"what was read of {stage.stream}"
    if late.owned:
        yield Trouble(
            f"the {stage.service} is {rough(late.age_s)} behind with {held}",
            "Its log says why (a merge that fails, a throttled stream); more workers share the shards.",
        )
    else:
        yield Trouble(
            f"no {stage.service} runs, and {held} has waited {rough(late.age_s)} for one",
            f"Start `avesa {stage.service}` (or `avesa up`), or `avesa run --once`.",
        )


def _refused(services: Iterable[ServiceStanding], now: UtcTime) -> Iterator[Trouble]:
    for service in services:
        if service.state == "reconnect needed":
            since = f", {ago(service.refused_at, now)}" if service.refused_at else ""
            why = f" ({service.why})" if service.why else ""
            yield Trouble(
                f"the credentials of {service.name} were refused{since}{why}",
                f"Store new ones: avesa setup-service {service.options}",
            )
        elif service.state == "no mapping":
            yield Trouble(
                f"no mapping file can be used for {service.name}",
                "Name your folder with --mappings; `avesa mapping validate` checks it.",
            )


def _not_read(reads: Iterable[Read], now: UtcTime) -> Iterator[Trouble]:
    """Services that nobody reads in one line, then those whose reader is late, one by one."""
    behind = [
        (service, found)
        for service, endpoints in reads
        if not service.starting
        and service.state != "reconnect needed"
        and (found := [one for one in endpoints if one.state in ("behind", "not read yet")])
    ]
    idle = [(service, found) for service, found in behind if service.owner is None]
    if idle:
        read = [one.read_at for _, found in idle for one in found if one.read_at]
        last = f"last read {ago(min(read), now)}" if read else "never read yet"
        yield Trouble(
            f"nobody reads {_some(service.name for service, _ in idle)}: {last}",
            "Start `avesa extractor` (or `avesa up`), or `avesa run --once`.",
        )
    for service, found in behind:
        if service.owner is None:
            continue
        told = [f"{one.endpoint} {'last read ' + ago(one.read_at, now) if one.read_at else 'never'}" for one in found]
        yield Trouble(
            f"{counted(len(found), 'endpoint')} of {service.name} not up to date: {_some(told)}",
            f"Its extractor (worker {service.owner}) may be slow, dead, or without these mapping files: see its log; "
            "`avesa status --watch` shows whether it lives.",
        )


def _silent(services: Iterable[ServiceStanding], stages: Iterable[Stage]) -> Iterator[Trouble]:
    """Owners that died: whoever runs besides takes over soon; told only after watching for a while."""
    dead: dict[str, float] = {}
    held = [(one.owner, one.life) for one in services]
    held += [(shard.owner, shard.life) for stage in stages for shard in stage.shards]
    for owner, life in held:
        if owner is not None and life is not None and not life.alive and life.quiet_s > SILENT_MAX_S:
            dead[owner] = max(life.quiet_s, dead.get(owner, 0.0))
    for owner, quiet_s in dead.items():
        yield Trouble(
            f"worker {owner} has shown no life for {rough(quiet_s)}, and nobody takes over its work",
            "Start the service again: `avesa up`, or the one that is missing below.",
        )


def _failing(service: ServiceStanding, endpoints: Iterable[EndpointStanding], now: UtcTime) -> Iterator[Trouble]:
    failing = [
        one
        for one in endpoints
        if one.state == "failing" and (one.code not in PASSING or one.late or one.read_at is None)
    ]
    if not failing or service.state == "reconnect needed":
        return
    first = failing[0]
    reads = [one.read_at for one in failing if one.read_at]
    last = f", last read {ago(min(reads), now)}" if reads else ", never read"
    names = _some(f"{one.endpoint} ({one.code})" for one in failing)
    yield Trouble(
        f"{counted(len(failing), 'endpoint')} of {service.name} cannot be read: {names}{last}",
        f"{first.what.rstrip('.')}. See `avesa check {service.options}`.",
    )


def _unswept(service: ServiceStanding, endpoints: Iterable[EndpointStanding], now: UtcTime) -> Iterator[Trouble]:
    """Deletions go unnoticed; of endpoints that are read, the others are told already."""
    late = [one for one in endpoints if one.sweep_late and one.state in ("up to date", "reading")]
    swept = [one.swept_at for one in late if one.swept_at]
    if swept:
        yield Trouble(
            f"deleted records of {service.name} go unnoticed: {_some(one.endpoint for one in late)} last swept "
            f"{ago(min(swept), now)}",
            f"`avesa run --once {service.options}` sweeps now and says what fails.",
        )


def _letters(letters: Iterable[Letters], place: str) -> Iterator[Trouble]:
    by_tenant: dict[str, list[Letters]] = {}
    for one in letters:
        by_tenant.setdefault(one.tenant_id, []).append(one)
    for tenant_id, some in by_tenant.items():
        count = sum(one.count for one in some)
        more = "more than " if any(one.more for one in some) else ""
        codes = Counter[str]()
        for one in some:
            codes[one.code or "not looked at"] += one.count
        named = ", ".join(f"{code} {number}" for code, number in codes.most_common(NAMES_SHOWN_MAX))
        yield Trouble(
            f"{more}{counted(count, 'record')} of {tenant_id} could not be used ({named})",
            f"They lie whole below {place}/{tenant_id}/dead-letter/, each with its reason; mend the mapping or the "
            "record, then `avesa replay`.",
        )


def _some(names: Iterable[str]) -> str:
    """`a, b, c and 4 more`."""
    every = list(names)
    if len(every) <= NAMES_SHOWN_MAX:
        return ", ".join(every)
    return f"{', '.join(every[:NAMES_SHOWN_MAX])} and {len(every) - NAMES_SHOWN_MAX} more"
