"""Endpoints whose records share one id space: a record is the same in all of them, and so is its deletion."""

import asyncio
from collections.abc import Container, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from services.contracts.errors import NotFoundError
from services.contracts.times import UtcTime
from services.extractor.answers import Answer
from services.extractor.deletes import id_digest
from services.extractor.meanings import terms_of
from services.extractor.memory import Entry, Memory, Ruling
from services.extractor.records import is_deleted
from services.extractor.requests import record_request

if TYPE_CHECKING:  # it works with its family
    from services.extractor.endpoint import EndpointWork

DELETIONS_PER_BATCH: Final = 500
WITNESSES_MAX: Final = 3  # living records that are read to see whether reading one can be believed
GONE_LATELY_MAX: Final = 20_000  # deletions remembered for the answers that were on their way meanwhile


class Deletion(msgspec.Struct, frozen=True):
    """One deletion to be published: `endpoint` gives it; `digest` is that of the record's last content."""

    record_id: str
    endpoint: str
    ruling: Ruling
    digest: bytes
    source: str


class Family:
    """Whoever decides about its records holds `lock`. `turn` counts the times that deletions were published."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.members: list[EndpointWork] = []
        self.lock = asyncio.Lock()
        self.turn = 0
        self._gone_lately: dict[str, int] = {}

    def entries(self, record_ids: Sequence[str]) -> dict[str, dict[str, Entry]]:
        """What each member remembers: endpoint -> id -> entry."""
        return {member.spec.name: member.ledger.memory.entries(record_ids) for member in self.members}

    def gone_since(self, turn: int, record_ids: Iterable[str]) -> frozenset[str]:
        """Those whose deletion was published after `turn`: an answer that was asked for before may show them alive."""
        return frozenset(found for found in record_ids if self._gone_lately.get(found, 0) > turn)

    async def publish(self, deletions: Sequence[Deletion]) -> None:
        """Publish deletions; all members know of them then. The caller holds `lock`."""
        for member in self.members:
            mine = [found for found in deletions if found.endpoint == member.spec.name]
            if not mine:
                continue
            events = [member.event(found.record_id, found.ruling, found.source) for found in mine]
            entries = {
                found.record_id: Entry(found.digest, found.ruling.effective_at, found.ruling.observed_at, deleted=True)
                for found in mine
            }
            await member.send(events, entries)
            member.summary.deleted += len(events)
            await self.spread(member, entries)

    async def spread(self, teller: "EndpointWork", deleted: Mapping[str, Entry]) -> None:
        """What `teller` has published as deleted is deleted in the other endpoints that know it. Under `lock`."""
        for member in self.members:
            if member is not teller:
                held = member.ledger.memory.entries(list(deleted))
                if held:
                    await member.ledger.remember({record_id: deleted[record_id] for record_id in held})
        self.turn += 1
        for record_id in deleted:
            self._gone_lately.pop(record_id, None)
            self._gone_lately[record_id] = self.turn
        while len(self._gone_lately) > GONE_LATELY_MAX:
            self._gone_lately.pop(next(iter(self._gone_lately)))

    @property
    def readable(self) -> bool:
        """Can every member read a single record?"""
        return all(member.spec.confirm is not None for member in self.members)

    async def proves(self, seen: Container[int]) -> bool:
        """Does reading one record find those that a sweep has `seen` (`deletes.id_digest`)? Where it does not, a path
        is wrong or a gateway answers for the vendor, and that a record is not found says nothing.

        Errors: as `look_for`.
        """
        for member in self.members:
            witnesses = await member.runtime.threads.run(_witnesses, member.ledger.memory, seen)
            for record_id in witnesses:
                if await _missing(member, record_id) is None:
                    break  # some may have been deleted meanwhile
            else:
                if witnesses:
                    return False
        return True

    async def look_for(self, record_id: str, teller: str) -> tuple[UtcTime, str] | None:
        """Ask every endpoint of the family for a record. None: one has it; else when that was asked, and where, by
        `teller` if it is one of them. Only where all are `readable`.

        Errors: as `Caller.get`, but for NotFoundError.
        """
        told: tuple[UtcTime, str] | None = None
        for member in self.members:
            found = await _missing(member, record_id)
            if found is None:
                return None
            if told is None or member.spec.name == teller:
                told = found
        return told


def _witnesses(memory: Memory, seen: Container[int]) -> list[str]:
    there = (record_id for record_id in memory.living() if id_digest(record_id) in seen)
    return list(islice(there, WITNESSES_MAX))


async def _missing(member: "EndpointWork", record_id: str) -> tuple[UtcTime, str] | None:
    """When and where a record was not found, or found to say that it is deleted; None where it is there."""
    caller, terms = member.caller, terms_of(member.spec)
    # Of one record 410 says that it is gone, not that a token is.
    terms = replace(terms, errors=tuple(rule for rule in terms.errors if rule.means != "read_again"))
    request = record_request(await caller.site(), member.spec, record_id)
    try:
        got = await caller.is_there(request, terms=terms, calls=member.calls)
        if not got.value:
            return got.observed_at, f"{request.source} not found"
        if member.spec.rules.deleted_when is None:
            return None
        told = await caller.get(
            request, partial(_says_deleted, member), terms=terms, calls=member.calls, background=True
        )
        return (told.observed_at, f"{request.source} says it is deleted") if told.value else None
    except NotFoundError:  # it went away between the two
        got = await caller.is_there(request, terms=terms, calls=member.calls)
        return None if got.value else (got.observed_at, f"{request.source} not found")
    finally:
        member.summary.calls = member.calls.count


def _says_deleted(member: "EndpointWork", answer: Answer, _: UtcTime) -> bool:
    return is_deleted(answer, member.spec.rules)
