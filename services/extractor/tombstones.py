"""What records tell of the deletion of others: lists of the deleted, audit entries, merges (`Endpoint.tombstones`).

It does not matter which comes to hand first, the tombstone or the list:

    never published        its deletion is: an answer that was on its way meanwhile may still show it, and comes before
    known to be deleted    nothing
    read before `at`       deleted as of `at`
    read after `at`        it may be back: deleted when a read does not find it, else the tombstone is an old one
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from services.contracts.errors import RejectedError
from services.contracts.times import UtcTime, shifted
from services.extractor.family import DELETIONS_PER_BATCH, Deletion, Family
from services.extractor.memory import Entry, Ruling, after, again, latest
from services.extractor.records import Grave

if TYPE_CHECKING:  # it reads tombstones
    from services.extractor.endpoint import EndpointWork


def judge_grave(
    newest: Entry | None, at: UtcTime | None, observed_at: UtcTime, tick_s: float
) -> Ruling | Literal["ask"] | None:
    """How to publish that a record is gone since `at`, as was read at `observed_at`; None where that is known.

    Shape: `newest` is the latest entry of its family. "ask": it was read after that, and only a read can tell.
    """
    gone_at = at or observed_at
    if newest is None:
        return Ruling(gone_at, observed_at, "vendor")
    if newest.deleted:
        return None if newest.sure else again(newest, "vendor")
    if newest.observed_at >= shifted(gone_at, seconds=tick_s):
        return "ask"
    # Read within the tick of `at`: of two at one time the fold believes the deletion.
    return Ruling(gone_at if gone_at >= newest.effective_at else after(newest, observed_at), observed_at, "vendor")


async def bury(graves: Sequence[Grave], unit: "Mapping[str, EndpointWork]", observed_at: UtcTime, source: str) -> None:
    """Publish the deletions that an answer read at `observed_at` told. Endpoints that are not read are left alone.

    Errors: as a pass; what was not published is told again when the answer is read again.
    """
    by_family: dict[str, dict[str, Grave]] = {}
    for grave in graves:
        if grave.endpoint in unit:
            found = by_family.setdefault(unit[grave.endpoint].family.name, {})
            known = found.get(grave.record_id)
            if known is None or (known.at or observed_at) < (grave.at or observed_at):
                found[grave.record_id] = grave
    for found in by_family.values():
        told = list(found.values())
        family = unit[told[0].endpoint].family
        for start in range(0, len(told), DELETIONS_PER_BATCH):
            await _bury_in(family, told[start : start + DELETIONS_PER_BATCH], observed_at, source)


async def _bury_in(family: Family, graves: Sequence[Grave], observed_at: UtcTime, source: str) -> None:
    doubtful: list[tuple[Grave, Entry]] = []
    async with family.lock:
        held = _holders(family, [grave.record_id for grave in graves])
        deletions: list[Deletion] = []
        for grave in graves:
            endpoint, newest = held.get(grave.record_id, (grave.endpoint, None))
            tick_s = family.members[0].spec.tick_s
            ruling = judge_grave(newest, grave.at, observed_at, tick_s)
            if ruling == "ask":
                assert newest is not None, "only what was read is doubtful"
                doubtful.append((grave, newest))
            elif ruling is not None:
                digest = newest.digest if newest is not None else b""
                deletions.append(Deletion(grave.record_id, endpoint, ruling, digest, source))
        await family.publish(deletions)
    for grave, newest in doubtful:
        await _ask(family, grave, newest, source)


async def _ask(family: Family, grave: Grave, newest: Entry, source: str) -> None:
    """Is a record that was read after it was said to be gone there? Where nobody can tell, it is."""
    if not family.readable:
        return
    try:
        missing = await family.look_for(grave.record_id, grave.endpoint)
    except RejectedError:
        return
    if missing is None:
        return
    observed_at, seen_in = missing
    async with family.lock:
        endpoint, now = _holders(family, [grave.record_id]).get(grave.record_id, (grave.endpoint, None))
        if now != newest:
            return  # read again meanwhile
        ruling = Ruling(after(newest, observed_at), observed_at, "vendor")
        await family.publish([Deletion(grave.record_id, endpoint, ruling, newest.digest, f"{source}; {seen_in}")])


def _holders(family: Family, record_ids: Sequence[str]) -> dict[str, tuple[str, Entry]]:
    """Who published each record last, and what."""
    remembered = family.entries(record_ids)
    found: dict[str, tuple[str, Entry]] = {}
    for record_id in record_ids:
        held = {name: entries[record_id] for name, entries in remembered.items() if record_id in entries}
        newest = latest(held.values())
        if newest is not None:
            found[record_id] = (next(name for name, entry in held.items() if entry is newest), newest)
    return found
