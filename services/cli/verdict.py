"""The verdict over everything that one look found: what needs a person, the most important first, and what to do.

Pure: the same rows at the same time make the same verdict. Nothing here knows AWS; `looks.py` reads, `status.py` shows.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator
from typing import Final

import msgspec

from services.cli.ages import ago, rough, shown_time
from services.cli.groups import POLLING_MAX, Group, crowded, shared
from services.cli.letters import Letters
from services.cli.screen import counted
from services.cli.setbacks import Gap, Parked
from services.cli.spelling import listed
from services.cli.stages import LATE_S, Reader, Stage
from services.cli.standing import EndpointStanding, Read, ServiceStanding
from services.contracts.times import UtcTime, seconds_between

DONE, IN_PART = 0, 3
SILENT_MAX_S: Final = 120.0  # lease times in which any living worker would have taken over
NAMES_SHOWN_MAX: Final = 3
REFUSED: Final = frozenset({"reconnect needed", "stopped"})  # states of a service of which one trouble tells all
# What passes by itself; the extractor tries again with growing pauses, at most a quarter of an hour.
PASSING: Final = frozenset({"unavailable", "timeout", "throttled", "conflict", "already_running", "aws_unreachable"})


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


class Seen(msgspec.Struct, frozen=True):
    """Everything one look found; `tables` are those that the mapping files know."""

    at: UtcTime
    services: tuple[Read, ...]
    unreadable: tuple[str, ...] = ()
    stages: tuple[Stage, ...] = ()
    letters: tuple[Letters, ...] = ()
    held: tuple[HeldMapping, ...] = ()
    groups: tuple[Group, ...] = ()
    parked: tuple[Parked, ...] = ()
    gaps: tuple[Gap, ...] = ()
    tables: tuple[str, ...] = ()


class Verdict(msgspec.Struct, frozen=True, tag_field="kind", tag="verdict"):
    """The verdict: one line, and the troubles behind it, the most important first."""

    at: UtcTime
    verdict: str
    exit_code: int
    troubles: tuple[Trouble, ...]


def judge(seen: Seen, place: str, options: str = "") -> Verdict:
    """The verdict over one look. `place` is where dead letters lie (`s3://bucket`), `options` what a command of ours
    takes to be about the same environment and mapping files."""
    troubles = tuple(_troubles(seen, place, options))
    if troubles:
        more = f" (the first of {len(troubles)} things that need a person)" if len(troubles) > 1 else ""
        return Verdict(seen.at, troubles[0].what + more, IN_PART, troubles)
    return Verdict(seen.at, _quiet_verdict(seen), DONE, ())


def _quiet_verdict(seen: Seen) -> str:
    if not seen.services:
        return "no service is connected: begin with avesa setup-service"
    streams = {stage.stream for stage in seen.stages}
    # Two services read the raw stream; what waits for both is not twice as much.
    waiting = sum(max(stage.events for stage in seen.stages if stage.stream == stream) for stream in streams)
    states = Counter(service.state for service, _ in seen.services)
    busy = []
    if waiting:
        more = "more than " if any(stage.more for stage in seen.stages) else ""
        busy.append(f"{more}{counted(waiting, 'event')} on the way to the lake")
    if any(stage.uncut_since or stage.unmerged for stage in seen.stages):
        busy.append("new files about to be merged")
    if seen.gaps:
        busy.append(f"{counted(len(seen.gaps), 'lost range')} of a stream about to be read again")
    if states["reading"]:
        busy.append(f"{counted(states['reading'], 'service')} being read for the first time in a while")
    waits = states["not read yet"] + states["behind"]
    if waits:
        begins = "a running extractor begins within a minute; without one: avesa run --once"
        busy.append(f"{counted(waits, 'new or resumed service')} ({begins})")
    failing = sum(service.endpoints.get("failing", 0) for service, _ in seen.services)
    if failing:
        busy.append(f"{counted(failing, 'endpoint')} tried again after a failure that may pass")
    paused = f" ({counted(states['paused'], 'service')} paused)" if states["paused"] else ""
    return ("at work: " + ", ".join(busy) if busy else "everything is up to date") + paused


def _troubles(seen: Seen, place: str, options: str) -> Iterator[Trouble]:
    """The most important first: what may be lost, what holds up everybody, one tenant, one endpoint, one record."""
    now = seen.at
    reads = [(service, endpoints) for service, endpoints in seen.services if service.state != "paused"]
    yield from _gaps(seen.gaps, now)
    gaps = {(gap.group, gap.stream, gap.shard_id) for gap in seen.gaps}
    for stage in seen.stages:
        yield from _lost(stage, gaps)
    yield from _held_up(seen, now)
    yield from _parked(seen.parked, place, options, now)
    yield from (Trouble(what, "Run `avesa setup-service` again, or remove the row.") for what in seen.unreadable)
    yield from _refused([service for service, _ in reads], now)
    yield from _not_read(reads, now)
    yield from _silent([service for service, _ in reads], seen.stages)
    for service, endpoints in reads:
        yield from _failing(service, endpoints, now)
        yield from _unswept(service, endpoints, now)
    yield from _crowded(seen)
    yield from _letters(seen.letters, place)
    for held in seen.held:
        what = f"the mapping of {held.table} for {held.tenant_id} {held.service} is not in force as the files have it"
        yield Trouble(
            f"{what}: {held.what}",
            "Use the files that are in force, or bring these into force: "
            f"avesa replay --from raw --table {held.table} --rebuild --tenant-id {held.tenant_id}{options}",
        )


def _gaps(gaps: Iterable[Gap], now: UtcTime) -> Iterator[Trouble]:
    """Ranges that are read again are work; those that wait for a person, or for too long, are not."""
    for gap in gaps:
        what = (
            f"what arrived in {gap.shard_id} of {gap.stream} {between(gap)} was dropped before the {gap.group} read it"
        )
        if gap.state == "halted":
            yield Trouble(
                f"{what}, and AVESA_ON_GAP=halt holds up that shard",
                "Start its workers with AVESA_ON_GAP=continue: newer data flow, and the lost range is read again.",
            )
        elif gap.state == "open" and seconds_between(gap.at, now) > LATE_S:
            yield Trouble(
                f"{what}; that was met {ago(gap.at, now)}, and nobody has begun to read it again",
                "A compactor does it (`avesa compactor`, `avesa up`); the log of one that runs says what it waits for.",
            )


def between(gap: Gap) -> str:
    return f"between {shown_time(gap.since)} and {shown_time(gap.until)}"


def _lost(stage: Stage, told: Container[tuple[str, str, str]]) -> Iterator[Trouble]:
    expired = [one for one in stage.shards if one.expired and (one.group, one.stream, one.shard_id) not in told]
    if expired:
        what = f"{counted(len(expired), 'shard')} of {stage.stream} may have dropped records the {stage.group} never"
        yield Trouble(f"{what} read", "`avesa trigger-backfill` reads them from the vendors again.")


def _held_up(seen: Seen, now: UtcTime) -> Iterator[Trouble]:
    """Groups that do not get on, so that everything behind them waits; those that do not run at all first."""
    late: dict[tuple[bool, str], list[tuple[float, str]]] = {}
    for stage in seen.stages:
        found = stage.late(now)
        if found is not None:
            events = f"{'more than ' if stage.more else ''}{counted(stage.events, 'event')} of"
            held = f"{events if stage.events else 'what was read of'} {stage.stream}"
            late.setdefault((found.owned, stage.group), []).append((found.age_s, held))
    known = {group.group: group for group in seen.groups}
    for (owned, group), some in sorted(late.items()):
        age, held = rough(max(age_s for age_s, _ in some)), listed(held for _, held in some)
        if owned:
            yield Trouble(
                f"the {group} is {age} behind with {held}",
                "Its log says why (a merge that fails, a throttled stream); more workers share the shards.",
            )
        else:
            yield Trouble(f"no {group} runs: {held} waiting for {age}", _how_to_run(group, known.get(group)))


def _how_to_run(service: str, group: Group | None) -> str:
    if group is None or group.is_default:
        command = f"avesa {service}" if group is None else group.start
        return f"Start `{command}` (or `avesa up`), or `avesa run --once`."
    return f"Start `{group.start}`; if nobody shall run it any more, `{group.forget}`."


def _parked(parked: Iterable[Parked], place: str, options: str, now: UtcTime) -> Iterator[Trouble]:
    for one in parked:
        since = f", {ago(one.since, now)}" if one.since else ""
        yield Trouble(
            f"the {one.group} has parked {one.partition}{since}" + (f" ({one.why})" if one.why else ""),
            "It waits whole and in order, and all else goes on. Mend the mapping or the records (letters below "
            f"{place}/{one.tenant_id}/dead-letter/), then: avesa replay --from parked --tenant-id {one.tenant_id} "
            f"--service {one.service}{options}",
        )


def _crowded(seen: Seen) -> Iterator[Trouble]:
    """Groups in each other's way: too many at one stream, two at one table."""
    reading = [Reader(stage.service, stage.group, stage.stream) for stage in seen.stages]
    for stream, names in crowded(seen.groups, reading).items():
        yield Trouble(
            f"{len(names)} groups poll {stream} ({_some(names)}), and a shard has room for {POLLING_MAX}: 5 reads/s "
            "and 2 MiB/s for all together",
            "Give a group enhanced fan-out (`avesa transformer --fan-out`, AVESA_FAN_OUT), or make fewer groups.",
        )
    for names, some in shared(seen.groups, seen.tables).items():
        tables = _some(some)
        if names:
            yield Trouble(
                f"{listed(names)} all transform {tables}: that is done and stored {len(names)} times",
                "Give each table to one group: --tables and --except-tables of `avesa transformer`.",
            )
        else:
            yield Trouble(
                f"no group transforms {tables}",
                f"Start one for them: avesa transformer --group NAME --tables {','.join(some)}",
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
        elif service.state == "stopped":
            since = f", {ago(service.refused_at, now)}" if service.refused_at else ""
            yield Trouble(
                f"the vendor serves {service.name} no longer{since} ({service.why})",
                f"See to it at the vendor; it is tried again by itself. See `avesa check {service.options}`.",
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
        and service.state not in REFUSED
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
    if not failing or service.state in REFUSED:
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
            f"They lie whole below {place}/{tenant_id}/dead-letter/, each with its reason; mend the record at the "
            "source (it is read again when it changes) or keep them for `replay`, which is to come.",
        )


def _some(names: Iterable[str]) -> str:
    """`a, b, c and 4 more`."""
    every = list(names)
    if len(every) <= NAMES_SHOWN_MAX:
        return ", ".join(every)
    return f"{', '.join(every[:NAMES_SHOWN_MAX])} and {len(every) - NAMES_SHOWN_MAX} more"
