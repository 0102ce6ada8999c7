"""Hostility on request: which answers go wrong, and how."""

from random import Random
from typing import Final, Literal, TypeAlias

import msgspec

Fault: TypeAlias = Literal["error", "cut", "truncated", "throttled", "throttled_bare", "slow"]
_FAULTS: tuple[Fault, ...] = ("error", "cut", "truncated", "throttled", "throttled_bare", "slow")


class Faults(msgspec.Struct, frozen=True):
    """Probabilities, per answer that would have been 200; tried in this order, at most one befalls an answer.

    `error`: 500 or 502. `cut`: the connection ends inside the body. `truncated`: 200 with half of the JSON.
    `throttled`: 429 with `Retry-After: retry_after_s`. `throttled_bare`: 429 without it. `slow`: the answer is what was
    true when the request came, and leaves `slow_s` seconds later.
    """

    error: float = 0.0
    cut: float = 0.0
    truncated: float = 0.0
    throttled: float = 0.0
    throttled_bare: float = 0.0
    slow: float = 0.0
    slow_s: float = 1.0
    retry_after_s: int = 1


CALM: Final = Faults()
# One answer in ten goes wrong: what a bad day at a vendor looks like (rows 38, 39 and 49 of the fault list).
HOSTILE: Final = Faults(
    error=0.03, cut=0.01, truncated=0.02, throttled=0.02, throttled_bare=0.01, slow=0.01, slow_s=3.0, retry_after_s=1
)


def befalls(faults: Faults, rng: Random) -> Fault | None:
    """What goes wrong with the next answer, if anything. Draws nothing while all is off."""
    for fault in _FAULTS:
        chance: float = getattr(faults, fault)
        if chance and rng.random() < chance:
            return fault
    return None
