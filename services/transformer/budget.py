"""How many dead letters a partition may bring in an hour before it is parked. Pure."""

from typing import Final

import msgspec

from services.contracts.partitions import Partition
from services.contracts.times import UtcTime

LETTERS_PER_HOUR_MAX: Final = 1_000
_HOUR_CHARS: Final = len("2026-01-31T09")


class Budget(msgspec.Struct):
    """The dead letters of one shard's partitions in the hour at hand, by the clock of whoever writes them.

    Kept in memory: after a restart an hour's count begins again.
    """

    letters_max: int = LETTERS_PER_HOUR_MAX
    hour: str = ""
    spent: dict[Partition, int] = {}

    def left(self, partition: Partition, at: UtcTime) -> int:
        """How many more there may be."""
        self._turn(at)
        return max(0, self.letters_max - self.spent.get(partition, 0))

    def spend(self, partition: Partition, at: UtcTime, letters: int) -> None:
        self._turn(at)
        if letters:
            self.spent[partition] = self.spent.get(partition, 0) + letters

    def forgive(self, partition: Partition) -> None:
        """Begin again: a person has released the partition."""
        self.spent.pop(partition, None)

    def _turn(self, at: UtcTime) -> None:
        if at[:_HOUR_CHARS] != self.hour:
            self.hour = at[:_HOUR_CHARS]
            self.spent.clear()
