"""The fold: history as a pure function of a set of observations. Nothing else decides what a version is.

DESIGN 2.2 is the definition; docs/decisions/0003-history-is-a-fold.md says why it is a fold and not an update.
Sets have no order and no duplicates, so crash, retry, overlap, replay and late arrival cannot change a history.
"""

from collections.abc import Iterable, Iterator
from itertools import groupby, zip_longest
from operator import attrgetter
from typing import Generic, Literal, TypeVar

import msgspec

from services.contracts.times import UtcTime

Row = TypeVar("Row")
Scd = Literal[1, 2]


class Observation(msgspec.Struct, Generic[Row], frozen=True, gc=False):
    """One sighting of one entity, reduced to what the fold looks at; `row` is carried along unread.

    `record_hash` digests the tracked columns and `row_digest` the whole row; both are empty on a delete.
    """

    effective_at: UtcTime
    observed_at: UtcTime
    deleted: bool
    mapping_version: int
    record_hash: str
    row_digest: str
    row: Row


class Version(msgspec.Struct, Generic[Row], frozen=True, gc=False):
    """One interval of an entity's life, half open: [`valid_from`, `valid_to`), and the observations at its two ends.

    A row shows `observed_at` of `first`, and its columns, `mapping_version`, `last_effective_at` and
    `last_observed_at` of `last`.
    """

    valid_from: UtcTime
    valid_to: UtcTime | None
    first: Observation[Row]
    last: Observation[Row]

    @property
    def is_current(self) -> bool:
        return self.valid_to is None


def rank(observation: Observation[Row]) -> tuple[bool, UtcTime, int, str]:
    """Among observations at one `effective_at` the greatest rank survives.

    A delete beats an upsert; then the later `observed_at`; then the higher `mapping_version`; then the greater digest.
    """
    return (observation.deleted, observation.observed_at, observation.mapping_version, observation.row_digest)


def survivors(observations: Iterable[Observation[Row]]) -> list[Observation[Row]]:
    """One observation per `effective_at`, oldest first; the order of arrival does not matter."""
    best: dict[UtcTime, Observation[Row]] = {}
    for seen in observations:
        held = best.get(seen.effective_at)
        if held is None or rank(seen) > rank(held):
            best[seen.effective_at] = seen
    return [best[at] for at in sorted(best)]


def fold(observations: Iterable[Observation[Row]], scd: Scd = 2) -> tuple[Version[Row], ...]:
    """The history of one entity, oldest version first.

    Shape:  any order, duplicates welcome -> at most one version per observation, at most one of them open.
            With `scd` 1 there is no history: the last survivor, if it lives.
    Units:  half-open intervals, UTC.
    Errors: none; what cannot be read never becomes an observation.
    """
    ordered = survivors(observations)
    if scd == 1:
        return tuple(Version(last.effective_at, None, last, last) for last in ordered[-1:] if not last.deleted)
    return tuple(_versions(ordered))


def _versions(ordered: list[Observation[Row]]) -> Iterator[Version[Row]]:
    runs = [list(run) for _, run in groupby(ordered, key=attrgetter("deleted", "record_hash"))]
    for run, following in zip_longest(runs, runs[1:]):
        if not run[0].deleted:
            yield Version(run[0].effective_at, following[0].effective_at if following else None, run[0], run[-1])
