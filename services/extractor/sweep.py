"""One sweep of a family: read all ids, ask about the missing ones, publish who is gone (the rules: `deletes.py`)."""

from collections.abc import Container, Sequence
from contextlib import aclosing

import msgspec

from services.contracts.errors import (
    AvesaError,
    ConflictError,
    NotFoundError,
    RejectedError,
    RetryableError,
    ThrottledError,
    UnauthorizedError,
)
from services.contracts.log import SweepSuspicious
from services.contracts.times import UtcTime
from services.extractor.deletes import CONFIRMS_MAX, Candidate, Findings, find, id_digest, judge_sweep, missing_twice
from services.extractor.endpoint import EndpointWork
from services.extractor.family import DELETIONS_PER_BATCH, Deletion, Family
from services.extractor.memory import Ruling, after, again, latest
from services.extractor.plan import Spec
from services.extractor.records import read_ids
from services.extractor.requests import ParentValues
from services.extractor.templates import names_in
from services.extractor.walking import walk


class Gone(msgspec.Struct, frozen=True):
    """A record that is not there any more: when that was seen, and where."""

    candidate: Candidate
    observed_at: UtcTime
    source: str


class _Ids(msgspec.Struct):
    """What a sweep has seen so far, and when it began on the vendor's clock and on the earlier of both."""

    seen: set[int] = msgspec.field(default_factory=set)
    began_at: UtcTime | None = None
    earliest_at: UtcTime | None = None


def sweep_interval_s(family: Family) -> float | None:
    """How often the family is swept, None where never."""
    return min((member.spec.sweep.interval_s for member in family.members if member.spec.sweep), default=None)


def can_sweep(family: Family) -> bool:
    """Only what was read completely can be missed."""
    if sweep_interval_s(family) is None:
        return False
    return all(member.walked and (member.parent is None or member.parent.walked) for member in family.members)


async def sweep(family: Family) -> bool:
    """One sweep; False if it did not come to its end: we were to stop, or an endpoint failed and has said so.

    Errors: ThrottledError; UnauthorizedError; FencedError. Nothing is deleted but what was confirmed.
    """
    ids, member = _Ids(), family.members[0]
    try:
        for member in family.members:
            if not await _read_ids(member, ids):
                return False
        began_at = ids.began_at or member.desk.runtime.clock.now()
        findings = await _find(family, ids, began_at)
    except (ThrottledError, ConflictError, UnauthorizedError):
        raise
    except AvesaError as err:
        await member.failed(err)
        _report(family, await _find(family, ids, member.desk.runtime.clock.now()))
        return False
    try:
        await _act(family, findings, ids.seen, began_at)
    except ThrottledError:
        raise
    except (RetryableError, RejectedError) as err:
        await member.failed(err)
        return False
    for member in family.members:
        member.ledger.marks = msgspec.structs.replace(member.ledger.marks, swept_at=ids.earliest_at or began_at)
        await member.ledger.save()
    return True


async def _read_ids(member: EndpointWork, ids: _Ids) -> bool:
    listed = member.spec.for_sweep or member.spec
    for parent in await _parents(member, listed):
        try:
            async with aclosing(walk(member, read_ids, parent=parent, sweep=True, background=True)) as steps:
                async for step in steps:
                    ids.began_at = ids.began_at or step.got.observed_at
                    ids.earliest_at = ids.earliest_at or step.got.earliest_at
                    ids.seen.update(id_digest(record_id) for record_id in step.got.value.ids)
                    member.note_strangers(step.got.value.ids)
                    if member.desk.stopping.is_set():
                        return False
        except NotFoundError:
            if parent is None:
                raise
    return True


async def _parents(member: EndpointWork, listed: Spec) -> list[ParentValues | None]:
    """Below what ids are listed: below every parent, unless a list of the sweep's own needs none."""
    rule = member.spec.parent
    if rule is None or (listed.path != member.spec.path and not names_in(listed.path) & {rule.name, *rule.values}):
        return [None]
    return [upper.values for upper in (await member.parents()).values()]


async def _find(family: Family, ids: _Ids, began_at: UtcTime) -> Findings:
    memories = {member.spec.name: member.ledger.memory.items() for member in family.members}
    return await family.members[0].desk.runtime.threads.run(find, memories, ids.seen, began_at)


def _report(family: Family, findings: Findings) -> None:
    """Say that a sweep cannot be believed."""
    first = family.members[0]
    first.desk.runtime.emit(
        SweepSuspicious(
            tenant_id=first.desk.tenant_id,
            service=first.desk.service,
            endpoint=family.name,
            known=findings.known,
            found=findings.known - len(findings.missing),
        )
    )


async def _act(family: Family, findings: Findings, seen: Container[int], began_at: UtcTime) -> None:
    """Do what the sweep's findings allow."""
    match judge_sweep(findings, readable=family.readable):
        case "nothing_missing":
            pass
        case "read_each":
            await _delete_confirmed(family, findings, seen)
        case "read_all_or_none":
            await _delete_all_or_none(family, findings, seen)
        case "sweep_again":
            twice, once = missing_twice(findings, began_at)
            source = f"GET {family.members[0].spec.endpoint.path} swept twice"
            await delete(family, [Gone(candidate, began_at, source) for candidate in twice])
            await _mark(family, once, began_at)
        case "suspicious":
            _report(family, findings)
    await _mark(family, findings.back, None)


async def _delete_all_or_none(family: Family, findings: Findings, seen: Container[int]) -> None:
    """Half or less was found: believed only if a read finds none of the others either."""
    gone: list[Gone] = []
    for candidate in findings.missing:
        found = await _confirm(family, candidate)
        if found is None:
            _report(family, findings)
            return
        gone.append(found)
    await _delete_proven(family, findings, gone, seen)


async def _delete_confirmed(family: Family, findings: Findings, seen: Container[int]) -> None:
    """Each stands for itself: what was confirmed before an error is deleted all the same."""
    gone: list[Gone] = []
    try:
        for candidate in findings.missing[:CONFIRMS_MAX]:
            found = await _confirm(family, candidate)
            if found is not None:
                gone.append(found)
    except (RetryableError, RejectedError):
        await _delete_proven(family, findings, gone, seen)
        raise
    await _delete_proven(family, findings, gone, seen)


async def _delete_proven(family: Family, findings: Findings, gone: Sequence[Gone], seen: Container[int]) -> None:
    """What was not found is deleted, if what is there can be found."""
    if gone and not await family.proves(seen):
        _report(family, findings)
        return
    await delete(family, gone)


async def _confirm(family: Family, candidate: Candidate) -> Gone | None:
    """Gone is what no endpoint of the family has."""
    missing = await family.look_for(candidate.record_id, candidate.endpoint)
    return None if missing is None else Gone(candidate, *missing)


async def delete(family: Family, gone: Sequence[Gone]) -> None:
    """Publish deletions, but for records that were read again meanwhile."""
    for start in range(0, len(gone), DELETIONS_PER_BATCH):
        async with family.lock:
            await _delete_batch(family, gone[start : start + DELETIONS_PER_BATCH])


async def _delete_batch(family: Family, gone: Sequence[Gone]) -> None:
    remembered = family.entries([found.candidate.record_id for found in gone])
    deletions: list[Deletion] = []
    for found in gone:
        record_id = found.candidate.record_id
        held = {name: entries[record_id] for name, entries in remembered.items() if record_id in entries}
        newest = latest(held.values())
        unsettled = {name: entry for name, entry in held.items() if not entry.settled}
        if newest is None or unsettled != found.candidate.holders:
            continue
        ruling = Ruling(after(newest, found.observed_at), found.observed_at, "sweep")
        if newest.deleted and not newest.sure:
            ruling = again(newest, "sweep")
        deletions.append(Deletion(record_id, found.candidate.endpoint, ruling, newest.digest, found.source))
    await family.publish(deletions)


async def _mark(family: Family, candidates: Sequence[Candidate], missing_at: UtcTime | None) -> None:
    """Remember since when records are missing, or that they are back; not where they were read again meanwhile."""
    async with family.lock:
        for member in family.members:
            name = member.spec.name
            held = {found.record_id: found.holders[name] for found in candidates if name in found.holders}
            now = member.ledger.memory.entries(list(held))
            same = {record_id: entry for record_id, entry in held.items() if now.get(record_id) == entry}
            await member.ledger.remember(
                {key: msgspec.structs.replace(entry, missing_at=missing_at) for key, entry in same.items()}
            )
