"""What a sweep means: who was deleted, who may have been, and when to believe nothing of it. Pure.

Candidates are the ids published before the sweep began that no endpoint of their family showed. Nothing is deleted
without a second witness: a read of the record that finds nothing, or a second sweep.
"""

import hashlib
from collections.abc import Container, Iterable, Mapping
from typing import Literal

import msgspec

from services.contracts.times import UtcTime
from services.extractor.memory import Entry, latest

CONFIRMS_MAX = 5_000  # candidates read one by one after a sweep; the others wait for the next
SUSPICIOUS_CONFIRMS_MAX = 500  # the same after a sweep that found half or less

Verdict = Literal["nothing_missing", "read_each", "read_all_or_none", "sweep_again", "suspicious"]


class Candidate(msgspec.Struct, frozen=True):
    """A record that a sweep did not show. `holders` are the endpoints that do not know it to be gone."""

    record_id: str
    newest: Entry
    holders: dict[str, Entry]

    @property
    def endpoint(self) -> str:
        """The one that published it last: it gives the deletion."""
        return max(self.holders, key=lambda name: (self.holders[name].effective_at, name))


class Findings(msgspec.Struct, frozen=True):
    """What a sweep left: how many records it should have shown, those it did not, and those that are back."""

    known: int
    missing: list[Candidate]
    back: list[Candidate]


def id_digest(record_id: str) -> int:
    """64 bits to remember having seen an id by. Two that collide could only hide a deletion until they part."""
    return int.from_bytes(hashlib.blake2b(record_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def find(memories: Mapping[str, Iterable[tuple[str, Entry]]], seen: Container[int], began_at: UtcTime) -> Findings:
    """Hold what is remembered, by endpoint, against the ids seen (`id_digest`) by a sweep that began at `began_at`."""
    suspects: dict[str, dict[str, Entry]] = {}
    returned: dict[str, dict[str, Entry]] = {}
    known: set[int] = set()
    recent: set[str] = set()  # published since the sweep began: it cannot have been asked about them
    for name, entries in memories.items():
        for record_id, entry in entries:
            if entry.settled:
                continue
            if entry.observed_at >= began_at:
                recent.add(record_id)
                continue
            digest = id_digest(record_id)
            known.add(digest)
            if digest not in seen:
                suspects.setdefault(record_id, {})[name] = entry
            elif entry.missing_at is not None:
                returned.setdefault(record_id, {})[name] = entry
    missing = [_candidate(record_id, holders) for record_id, holders in suspects.items() if record_id not in recent]
    return Findings(len(known), missing, [_candidate(record_id, holders) for record_id, holders in returned.items()])


def _candidate(record_id: str, holders: dict[str, Entry]) -> Candidate:
    newest = latest(holders.values())
    assert newest is not None, "a candidate is remembered by somebody"
    return Candidate(record_id, newest, holders)


def judge_sweep(findings: Findings, *, readable: bool) -> Verdict:
    """What to do about the missing. `readable`: every endpoint of the family can read a single record."""
    missing = len(findings.missing)
    if missing == 0:
        return "nothing_missing"
    if (findings.known - missing) * 2 <= findings.known:
        return "read_all_or_none" if readable and missing <= SUSPICIOUS_CONFIRMS_MAX else "suspicious"
    return "read_each" if readable else "sweep_again"


def missing_twice(findings: Findings, began_at: UtcTime) -> tuple[list[Candidate], list[Candidate]]:
    """(gone: an earlier sweep missed them too, to be remembered as missing)."""
    gone = [found for found in findings.missing if _missed_before(found, began_at)]
    told = {found.record_id for found in gone}
    return gone, [found for found in findings.missing if found.record_id not in told]


def _missed_before(candidate: Candidate, began_at: UtcTime) -> bool:
    return all(entry.missing_at is not None and entry.missing_at < began_at for entry in candidate.holders.values())
