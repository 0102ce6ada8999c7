"""Drift: what a mapping reads and the vendor does not send. Absent is null, and told (DESIGN 2.2). Pure.

A path that no record of many has is either a field this customer never uses, which is everyday, or one that is gone.
The live rows tell which: of a field that is gone, records that had it before have it no longer.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from services.contracts.log import Event, FieldsMissing, FieldsVanished

RECORDS_MIN: Final = 100  # fewer say little: most vendors leave out what is empty
LOST_MIN: Final = 10  # of them; a few may have been emptied by a person
PATHS_CHARS_MAX: Final = 1_000

Place = tuple[str, str, str]  # tenant, service, endpoint


class Drift(msgspec.Struct):
    """Over some records of one endpoint: how many had nothing at a path, and how many of these had a value before."""

    records: int = 0
    absent: dict[str, int] = {}
    lost: dict[str, int] = {}

    def note(self, absent: Iterable[str]) -> None:
        """One more record, and the paths that were not there."""
        self.records += 1
        _count(self.absent, absent)

    def lose(self, emptied: Iterable[str]) -> None:
        """The paths of what a record had before and has no longer, be it null now or absent."""
        _count(self.lost, emptied)

    def add(self, other: "Drift") -> None:
        self.records += other.records
        for counts, more in ((self.absent, other.absent), (self.lost, other.lost)):
            for where, count in more.items():
                counts[where] = counts.get(where, 0) + count

    def missing(self) -> list[str]:
        """The paths that no record had."""
        return sorted(where for where, count in self.absent.items() if count == self.records)

    def vanished(self, before: Mapping[str, int]) -> list[str]:
        """Those of them that were there before; `before` are losses among the records just before these."""
        return [where for where in self.missing() if self.lost.get(where, 0) + before.get(where, 0) >= LOST_MIN]


def _count(counts: dict[str, int], places: Iterable[str]) -> None:
    for where in places:
        counts[where] = counts.get(where, 0) + 1


class DriftWatch:
    """Adds up what batches say until it means something. Each path of an endpoint is told once, not per batch."""

    def __init__(self) -> None:
        self._drifts: dict[Place, Drift] = {}
        self._lost: dict[Place, dict[str, int]] = {}  # among the records before those: the change fell among them
        self._told: dict[tuple[type[Event], Place], set[str]] = {}

    def add(self, place: Place, drift: Drift) -> Iterator[Event]:
        """What is to be said after one more batch."""
        total = self._drifts.setdefault(place, Drift())
        total.add(drift)
        if total.records < RECORDS_MIN:
            return
        vanished = total.vanished(self._lost.get(place, {}))
        del self._drifts[place]
        self._lost[place] = total.lost
        for kind, paths in ((FieldsMissing, total.missing()), (FieldsVanished, vanished)):
            told = self._told.setdefault((kind, place), set())
            new = [path for path in paths if path not in told]
            if new:
                told.update(new)
                tenant_id, service, endpoint = place
                shown = ", ".join(new)[:PATHS_CHARS_MAX]
                yield kind(tenant_id=tenant_id, service=service, endpoint=endpoint, paths=shown, count=len(new))
