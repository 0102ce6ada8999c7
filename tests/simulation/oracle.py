"""What must be true at the end of a history, computed from the full logs of the streams and from the vendor.

I1 nothing is lost, I2 the history is the fold of the set of observations, I3 nothing is there twice or never was,
I5 one owner per epoch, positions only forward. (I4 and I6 are judged where the history is driven: run.py.)
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

from services.compactor import parquet
from services.compactor.cuts import HOUR_CHARS, ShardRow, read_row
from services.contracts.envelope import split
from services.contracts.errors import RejectedError
from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.ports import Row
from services.contracts.rows import folded_rows
from services.runtime.attributes import from_item
from services.runtime.envelopes import unseal
from tests.simulation.vendor import POISON_ID, TABLES
from tests.simulation.world import World

SHOWN_MAX: Final = 3  # of what differs, in a finding
Fact = tuple[Any, ...]
_HOUR: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d")


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it must be. `kind`: lost, doubled, wrong, stalled, crashed, silent."""

    kind: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind.upper()}: {self.what}"


class Logs:
    """The events on the streams' full logs, decoded as they come."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.raw: list[ChangeEvent] = []
        self.canonical: list[CanonicalEvent] = []
        self._read: Counter[str] = Counter()
        self._raw = msgspec.json.Decoder(ChangeEvent).decode
        self._canonical = msgspec.json.Decoder(CanonicalEvent).decode

    def update(self) -> None:
        names = self._world.names
        for line in self._lines(names.raw_stream):
            try:
                self.raw.append(self._raw(line))
            except msgspec.DecodeError:
                continue  # bad on purpose
        for line in self._lines(names.canonical_stream):
            try:
                self.canonical.append(self._canonical(line))
            except msgspec.DecodeError:
                continue

    def _lines(self, stream: str) -> Iterator[bytes]:
        log = self._world.aws.streams.log.get(stream, [])
        new = log[self._read[stream] :]
        self._read[stream] = len(log)
        for stored in new:
            try:
                header, packed = split(stored.record.data)
                if header.object_key:
                    packed = self._world.aws.objects.held[header.object_key]
                yield from unseal(header, packed)
            except RejectedError:
                continue


# -- I1: from the vendor to the raw stream ----------------------------------------------------------------------------
def unread(world: World, logs: Logs) -> list[str]:
    """Records whose last observation on the raw stream is not what the vendor has now."""
    newest: dict[tuple[str, str, str], ChangeEvent] = {}
    for event in logs.raw:
        at = (event.tenant_id, event.endpoint, event.record_id)
        held = newest.get(at)
        if held is None or _rank(event) >= _rank(held):
            newest[at] = event
    found = []
    for (tenant_id, name), records in world.vendor.records.items():
        for record_id, content in records.items():
            last = newest.pop((tenant_id, name, str(record_id)), None)
            if last is None or last.op == "delete" or _payload(last) != content:
                found.append(f"{tenant_id}/{name}/{record_id}")
    living = (at for at, event in newest.items() if event.op != "delete" and event.endpoint in TABLES)
    return found + [f"{'/'.join(at)} (deleted)" for at in living]


def story(logs: Logs, record: str) -> list[str]:
    """Every event of `tenant/endpoint/id` on the two streams, in order of storage."""
    tenant_id, name, record_id = record.split(" ", 1)[0].split("/")
    at = (tenant_id, name, record_id)
    raw = [event for event in logs.raw if (event.tenant_id, event.endpoint, event.record_id) == at]
    canonical = [event for event in logs.canonical if (event.tenant_id, event.table, event.record_id) == at]
    return [f"story {record}: {msgspec.json.encode(event).decode()}" for event in [*raw, *canonical]]


def _rank(event: ChangeEvent) -> tuple[str, bool, str]:
    return (event.effective_at, event.op == "delete", event.observed_at)


def _payload(event: ChangeEvent) -> dict[str, Any]:
    assert not isinstance(event.payload, msgspec.UnsetType), "asked of upserts only"
    found: dict[str, Any] = msgspec.json.decode(event.payload)
    return found


# -- what still waits -------------------------------------------------------------------------------------------------
async def waiting(world: World) -> list[str]:
    """Shards that somebody has not read, cut and merged to their end."""
    rows = {(row["scope"], row["name"]): row for row in await world.aws.rows.rows(world.names.leases)}
    found = []
    for stream, groups in (
        (world.names.raw_stream, ("transformer", "compactor")),
        (world.names.canonical_stream, ("compactor",)),
    ):
        info = world.aws.streams._describe(stream)
        for group in groups:
            scope = f"{group}/{stream}/{info.created}"
            for shard in info.shards:
                held = world.aws.streams.held(stream, shard.shard_id)
                why = _waits(rows.get((scope, shard.shard_id), {}), held[-1].sequence if held else None, shard.closed)
                if why:
                    found.append(f"{group} on {stream} {shard.shard_id[-3:]}: {why}")
    return found


def _waits(row: Row, last: str | None, closed: bool) -> str:
    if closed and not row.get("ended"):
        return f"not ended, read to {row.get('position')} of {last}"
    if last is not None and int(row.get("position") or 0) < int(last):
        return f"read to {row.get('position')} of {last}"
    held: ShardRow = read_row(row)
    if held.spool or held.cut:
        return "not cut"
    unmerged = sum(len(run.unmerged) for run in held.waiting)
    return f"{unmerged} cuts not merged" if unmerged and not closed else ""


# -- the lake ---------------------------------------------------------------------------------------------------------
def judge(world: World, logs: Logs) -> list[Finding]:
    """Everything that can be said of the lake, the logs and the leases as they are."""
    return [
        *_judge_mapped(logs),
        *_judge_files(world, logs),
        *_judge_tables(world, logs),
        *_judge_leases(world),
        *_judge_parents(world),
    ]


def _judge_mapped(logs: Logs) -> Iterator[Finding]:
    """The canonical log holds the raw one, mapped, and nothing else."""
    expected = {_mapped(event) for event in logs.raw if event.endpoint in TABLES}
    there = {_observed(event) for event in logs.canonical}
    yield from _compared("on the canonical stream", expected, there)


def _mapped(event: ChangeEvent) -> Fact:
    row = None
    if event.op == "upsert":
        payload = _payload(event)
        row = tuple((name, payload[name]) for name in TABLES[event.endpoint].columns)
    at = (event.tenant_id, event.service, event.endpoint, event.record_id, event.op)
    return (*at, event.effective_at, event.observed_at, row)


def _observed(event: CanonicalEvent) -> Fact:
    row = None
    if not isinstance(event.row, msgspec.UnsetType):
        values = msgspec.json.decode(event.row)
        row = tuple((name, values.get(name)) for name in TABLES[event.table].columns)
    at = (event.tenant_id, event.service, event.table, event.record_id, event.op)
    return (*at, event.effective_at, event.observed_at, row)


def _judge_files(world: World, logs: Logs) -> Iterator[Finding]:
    """raw/ and canonical/ hold all of their streams, and nothing else."""
    held = world.aws.objects.held
    raw = [event for key in sorted(held) if _is_file(key, "raw") for event in parquet.raw_events(held[key])]
    yield from _compared("in raw/", {_raw(event) for event in logs.raw}, {_raw(event) for event in raw})
    canonical = [
        event
        for key in sorted(held)
        if _is_file(key, "canonical")
        for event in parquet.canonical_events(held[key], TABLES[key.split("/")[2]])
    ]
    expected = {_observed(event) for event in logs.canonical}
    yield from _compared("in canonical/", expected, {_observed(event) for event in canonical})


def repeated(events: Sequence[CanonicalEvent]) -> int:
    """How many observations of a file were in it before: equal in all but advice. What saw it is part of an
    observation: a deletion published again after a gap has another source, and stands beside the first."""
    seen = {
        msgspec.json.encode(msgspec.structs.replace(event, label="unknown", previous_from=None, changed={}))
        for event in events
    }
    return len(events) - len(seen)


def parts(world: World) -> list[str]:
    """Files of single cuts, in hours that are over."""
    hour = world.clock.now()[:HOUR_CHARS]
    found = (key for key in sorted(world.aws.objects.held) if _is_file(key, "raw") or _is_file(key, "canonical"))
    return [key for key in found if (folder := key.split("/")[-2]) < hour and _HOUR.fullmatch(folder)]


def _is_file(key: str, kind: str) -> bool:
    """`{tenant}/raw/...` or `{tenant}/canonical/...`"""
    return key.split("/")[1] == kind and key.endswith(".parquet")


def _raw(event: ChangeEvent) -> Fact:
    payload = None if isinstance(event.payload, msgspec.UnsetType) else bytes(event.payload)
    at = (event.tenant_id, event.service, event.endpoint, event.record_id, event.op)
    return (*at, event.effective_at, event.observed_at, payload)


def _judge_tables(world: World, logs: Logs) -> Iterator[Finding]:
    """Every table is the fold of its observations; its current rows are what the vendor has."""
    by_table: dict[tuple[str, str], list[CanonicalEvent]] = {}
    for event in logs.canonical:
        by_table.setdefault((event.tenant_id, event.table), []).append(event)
    for at in sorted({*by_table, *world.histories.held, *world.vendor.records}):
        held = world.histories.held.get(at)
        rows = held.rows if held is not None else []
        yield from _judge_rows("/".join(at), folded_rows(by_table.get(at, []), world.tables), rows)
        yield from _judge_history(world, at, rows)


def _judge_rows(name: str, expected: list[dict[str, Any]], rows: list[dict[str, Any]]) -> Iterator[Finding]:
    known = {_version(row): row for row in expected}
    there = {_version(row): row for row in rows}
    if len(there) < len(rows):
        yield Finding("doubled", f"{name}: {len(rows) - len(there)} versions are there twice")
    yield from _compared(f"in table {name}", set(known), set(there))
    both = [at for at in known if at in there and not _is_poison(at)]
    wrong = [at for at in both if _filled(there[at]) != _filled(known[at])]
    if wrong:
        shown = "; ".join(f"{known[at]} is {there[at]}" for at in wrong[:SHOWN_MAX])
        yield Finding("wrong", f"{len(wrong)} versions in table {name}: {shown}")


def _filled(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is not null: a column that nothing fills yet may not be there yet."""
    return {name: value for name, value in row.items() if value is not None}


def _version(row: Mapping[str, Any]) -> Fact:
    return (row["service"], row["family"], row["record_id"], row["valid_from"])


def _judge_history(world: World, at: tuple[str, str], rows: list[dict[str, Any]]) -> Iterator[Finding]:
    """Against the vendor alone: current rows, contents that once were, intervals that do not overlap."""
    tenant_id, name = at
    columns = list(TABLES[name].columns)
    by_record: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_record.setdefault(row["record_id"], []).append(row)
    now = {str(record_id): content for record_id, content in world.vendor.records[at].items()}
    for record_id, versions in by_record.items():
        if record_id.isdecimal():
            ever = [[content[column] for column in columns] for content in _ever(world, tenant_id, name, record_id)]
            if any([row[column] for column in columns] not in ever for row in versions):
                yield Finding("wrong", f"{tenant_id}/{name}/{record_id} has a version that the vendor never had")
        ordered = sorted(versions, key=lambda row: str(row["valid_from"]))
        for earlier, later in pairwise(ordered):
            if earlier["valid_to"] is None or earlier["valid_to"] > later["valid_from"]:
                yield Finding("doubled", f"{tenant_id}/{name}/{record_id} has versions that overlap")
    current = {row["record_id"]: row for row in rows if row["is_current"]}
    for record_id in sorted({*now, *current} - {str(POISON_ID)}):
        if record_id not in current:
            yield Finding("lost", f"{tenant_id}/{name}/{record_id} is not in the table")
        elif record_id not in now:
            yield Finding("wrong", f"{tenant_id}/{name}/{record_id} is deleted and still current")
        elif any(current[record_id][column] != now[record_id][column] for column in columns):
            yield Finding("wrong", f"{tenant_id}/{name}/{record_id} is not what the vendor has")


def _ever(world: World, tenant_id: str, name: str, record_id: str) -> list[dict[str, Any]]:
    return world.vendor.ever.get((tenant_id, name, int(record_id)), [])


def _compared(where: str, expected: set[Any], there: set[Any]) -> Iterator[Finding]:
    missing, extra = ({one for one in some if not _is_poison(one)} for some in (expected - there, there - expected))
    if missing:
        yield Finding("lost", f"{len(missing)} of {len(expected)} are not {where}: {_shown(missing)}")
    if extra:
        yield Finding("wrong", f"{len(extra)} {where} that should not be: {_shown(extra)}")


def _is_poison(fact: Fact) -> bool:
    """Of the record that may be among the dead letters instead."""
    return str(POISON_ID) in fact


def _shown(some: set[Any]) -> str:
    return "; ".join(str(one) for one in sorted(some, key=str)[:SHOWN_MAX])


# -- I5 ---------------------------------------------------------------------------------------------------------------
def _judge_leases(world: World) -> Iterator[Finding]:
    """Every epoch of a lease has one owner, and positions only move forward."""
    owners: dict[tuple[str, str, int], set[str]] = {}
    positions: dict[tuple[str, str], int] = {}
    for write in world.aws.rows.log:
        name = (write.key["scope"], write.key["name"])
        after = from_item(write.after)
        if after.get("owner") is not None:
            at = (*name, int(after["epoch"]))
            if "owner" in write.values and write.expect.get("epoch", at) is None:
                owners.pop(at, None)  # the first owner of a new row, whatever there was under this name
            owners.setdefault(at, set()).add(after["owner"])
        position = int(after.get("position") or 0)
        if position < positions.get(name, 0):
            yield Finding("wrong", f"{write.by} moved the position of {'/'.join(name)} back at {write.at:.3f}")
        positions[name] = position
    for (scope, lease, epoch), known in owners.items():
        if len(known) > 1:
            yield Finding("wrong", f"{len(known)} owners had epoch {epoch} of {scope}/{lease}")


def _judge_parents(world: World) -> Iterator[Finding]:
    """No group commits anything of a shard before it has ended the shards that this one came from."""
    parents: dict[tuple[str, str], tuple[str, ...]] = {}
    for stream in (world.names.raw_stream, world.names.canonical_stream):
        info = world.aws.streams._describe(stream)
        parents |= {(f"{stream}/{info.created}", shard.shard_id): shard.parents for shard in info.shards}
    ended: set[tuple[str, str]] = set()
    begun: set[tuple[str, str]] = set()
    for write in world.aws.rows.log:
        scope, name = write.key["scope"], write.key["name"]
        if write.values.get("ended"):
            ended.add((scope, name))
        if "position" not in write.values or (scope, name) in begun:
            continue
        begun.add((scope, name))
        early = [parent for parent in parents.get((scope.partition("/")[2], name), ()) if (scope, parent) not in ended]
        if early:
            yield Finding("wrong", f"{write.by} read {scope} {name} before {' and '.join(early)} had ended")
