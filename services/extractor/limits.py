"""How fast we may ask: one budget per tenant and service. Time comes in as an argument.

No window of `window_s` holds more of our requests than our share. Background work (first walks, sweeps) leaves a part
of it free, so that live reads never wait behind it. A refusal (429) holds everybody back.
"""

from collections import deque

import msgspec

from services.contracts.integration import Limits

BACKGROUND_SHARE = 0.8
RETRY_AFTER_MAX_S = 3_600.0
REFUSED_FIRST_S, REFUSED_MAX_S = 1.0, 60.0  # after a refusal that names no time, doubling


class Budget(msgspec.Struct):
    """What was granted in the last window (monotonic seconds, oldest first), and until when we were told to wait."""

    requests_max: int
    background_max: int
    window_s: float
    granted: deque[float] = msgspec.field(default_factory=deque)
    not_before: float = 0.0
    refusals: int = 0


def budget_of(limits: Limits) -> Budget:
    """An unused budget."""
    requests_max = max(1, int(limits.requests * limits.share))
    return Budget(requests_max, max(1, int(requests_max * BACKGROUND_SHARE)), limits.window_s)


def reserve(budget: Budget, now: float, *, background: bool = False) -> float:
    """0.0 and the request is granted and counted, or the seconds after which to ask again."""
    if now < budget.not_before:
        return budget.not_before - now
    while budget.granted and budget.granted[0] <= now - budget.window_s:
        budget.granted.popleft()
    most = budget.background_max if background else budget.requests_max
    if len(budget.granted) < most:
        budget.granted.append(now)
        return 0.0
    # never 0: a wait that rounding makes nothing would be a busy loop
    return max(1e-3, budget.granted[len(budget.granted) - most] + budget.window_s - now)


def refused(budget: Budget, now: float, retry_after_s: float | None, jitter: float) -> float:
    """The vendor said 429: nobody asks before the time it named, or a growing one. Returns that wait; jitter < 1."""
    if retry_after_s is not None:
        wait_s = min(max(0.0, retry_after_s), RETRY_AFTER_MAX_S)
    else:
        wait_s = min(REFUSED_MAX_S, REFUSED_FIRST_S * 2 ** min(budget.refusals, 10)) * (0.5 + jitter)
    budget.refusals += 1
    budget.not_before = max(budget.not_before, now + wait_s)
    return wait_s


def accepted(budget: Budget) -> None:
    """The vendor answered: the next refusal starts from the shortest wait."""
    budget.refusals = 0
