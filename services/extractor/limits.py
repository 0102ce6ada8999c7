"""How fast we may ask: one budget per tenant and service, over every quota the vendor sets. Time is an argument.

No window of any quota holds more of our calls than our share of it, as the vendor counts them when they arrive: a call
counts from when it was granted until one window after it ended, since nobody knows when in between it arrived.
Background work (first walks, sweeps) leaves a part free, so that live reads never wait behind it. What the vendor tells
in its headers counts besides, other tools' calls included; a refusal (429) holds everybody back.

The use of a budget is told along with the lease (`used`, `resume`): a successor counts what a former owner asked for.
"""

import math
import re
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, Literal

import msgspec

from services.contracts.access import LimitHeaders, Limits, Quota
from services.contracts.errors import UsageError
from services.contracts.times import UtcTime, moment, seconds_between

BACKGROUND_SHARE: Final = 0.8
RETRY_AFTER_MAX_S: Final = 3_600.0
REFUSED_FIRST_S, REFUSED_MAX_S = 1.0, 60.0  # after a refusal that names no time, doubling
SLOTS: Final = 60  # of a window: what is used is known to a sixtieth of it
USED_SLOTS: Final = 8  # of a window, in what is told to a successor
OPEN_S: Final = 0.25  # until we look again whether calls under way have ended
TOLD_SHARE: Final = 0.8  # of what is told to all who share a credential: the part that is theirs together
SKEW_MAX_S: Final = 300.0  # two workers' clocks may be apart by so much
RESET_TICK_S: Final = 1.5  # resets told in whole seconds, of one window
ROUNDING: Final = 1e-6  # of costs added up
SHORTEST_CALL_S: Final = 0.1  # nobody answers over the internet in less: what a dead owner can have asked for at most
WAIT_MIN_S: Final = 1e-3  # a wait that rounding makes nothing would be a busy loop
_NUMBER: Final = re.compile(r"\s*(-?\d+(?:\.\d+)?)")

Unit = Literal["requests", "points"]


class Slot(msgspec.Struct, array_like=True):
    """Calls that ended between two times (monotonic seconds) and what they cost together."""

    from_s: float
    to_s: float
    cost: float


class Gauge(msgspec.Struct):
    """Our share of one quota: `most` in `window_s`. `open`: the cost of calls under way; `ended`: of those that ended
    within the last window, oldest first."""

    unit: Unit
    most: float
    window_s: float
    open: float = 0.0
    ended: deque[Slot] = msgspec.field(default_factory=deque)

    def cost_of(self, cost: float) -> float:
        return cost if self.unit == "points" else 1.0

    def used(self, now: float) -> float:
        """What the window up to `now` holds."""
        while self.ended and self.ended[0].to_s <= now - self.window_s:
            self.ended.popleft()
        return self.open + sum(slot.cost for slot in self.ended)

    def note(self, now: float, cost: float) -> None:
        """Calls of this cost end now. They stand in the youngest slot, and so count a little longer, never shorter."""
        if self.ended and now - self.ended[-1].from_s < self.window_s / SLOTS:
            self.ended[-1].to_s, self.ended[-1].cost = now, self.ended[-1].cost + cost
        else:
            self.ended.append(Slot(now, now, cost))

    def wait_s(self, now: float, cost: float, share: float) -> float:
        """0.0 where a call of `cost` fits into `share` of it, else after how many seconds to ask again.

        A call that costs more than all of it waits until nothing else counts.
        """
        room = max(0.0, max(self.most * share, 1.0) - cost) + ROUNDING
        used = self.used(now)
        if used <= room:
            return 0.0
        for slot in self.ended:
            used -= slot.cost
            if used <= room:
                return max(WAIT_MIN_S, slot.to_s + self.window_s - now)
        return OPEN_S


class Told(msgspec.Struct):
    """What one kind of header said last: `left` of `limit` calls, everybody's, until it counts anew or is worth asking
    about again, at `until`. `mine`: the part of the limit that is ours."""

    left: float = 0.0
    limit: float = 0.0
    mine: float = 0.0
    until: float = 0.0

    @property
    def ours(self) -> float:
        """What is left of our part: the rest of the limit stays for the customer's other tools."""
        return self.left - (self.limit - self.mine)

    def wait_s(self, now: float, share: float, under_way: float) -> float:
        """As `Gauge.wait_s`. When nothing was left, and its time has come, one call finds out for all."""
        if self.ours >= min(self.mine, 1.0 + self.mine * (1.0 - share)):
            return 0.0
        if now < self.until:
            return self.until - now
        return OPEN_S if under_way > 0 and self.limit > 0 else 0.0


class Budget(msgspec.Struct):
    """All quotas of one customer, what its vendor told (one per kind of header), and until when nobody may ask.
    `at_once`: calls at a time; `under_way`: the cost of those that have not ended."""

    share: float
    at_once: int
    gauges: list[Gauge]
    headers: list[LimitHeaders]
    told: list[Told]
    under_way: float = 0.0
    not_before: float = 0.0
    refusals: int = 0


def budget_of(limits: Limits) -> Budget:
    """An unused budget. Errors: UsageError `bad_mapping` for a pattern that is none.

    Shape: of one of several who share a credential, `limits` hold their part; what the vendor tells counts all of them.
    """
    for header in limits.headers:
        _matcher(header.pattern)
    quotas = [Quota(limits.requests, limits.window_s), *limits.quotas]
    told = [Told() for _ in limits.headers]
    share = limits.share if limits.per == "account" else max(limits.share, TOLD_SHARE)
    return Budget(share, limits.concurrency, [_gauge(quota, limits.share) for quota in quotas], limits.headers, told)


def _gauge(quota: Quota, part: float) -> Gauge:
    """Of less than one call in a window, one in a window that is longer by as much."""
    most = quota.amount * part
    most = float(int(most)) if quota.unit == "requests" and most >= 1.0 else most
    return Gauge(quota.unit, max(1.0, most), quota.window_s / min(1.0, most))


def reserve(budget: Budget, now: float, cost: float = 1.0, *, background: bool = False) -> float:
    """0.0 and the call is granted, and under way until `settle`; or the seconds after which to ask again."""
    share = BACKGROUND_SHARE if background else 1.0
    waits = [gauge.wait_s(now, gauge.cost_of(cost), share) for gauge in budget.gauges]
    waits += [told.wait_s(now, share, budget.under_way) for told in budget.told]
    wait_s = max(budget.not_before - now, *waits)
    if wait_s > 0:
        return max(WAIT_MIN_S, wait_s)
    for gauge in budget.gauges:
        gauge.open += gauge.cost_of(cost)
    for told in budget.told:
        told.left -= cost
    budget.under_way += cost
    return 0.0


def settle(budget: Budget, now: float, cost: float = 1.0) -> None:
    """A call that was granted has ended, whatever came of it."""
    budget.under_way = _without(budget.under_way, cost)
    for gauge in budget.gauges:
        gauge.open = _without(gauge.open, gauge.cost_of(cost))
        gauge.note(now, gauge.cost_of(cost))


def _without(costs: float, cost: float) -> float:
    """Nothing under way is 0.0, whatever fractions were added and taken away."""
    return max(0.0, round(costs - cost, 6))


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


def fullness(budget: Budget, now: float) -> float:
    """How full the budget is: 0.0 unused, 1.0 nobody may ask."""
    if now < budget.not_before:
        return 1.0
    parts = [gauge.used(now) / gauge.most for gauge in budget.gauges]
    parts += [1.0 - told.ours / told.mine for told in budget.told if now < told.until and told.mine > 0]
    return min(1.0, max(0.0, *parts))


# -- what the vendor tells --------------------------------------------------------------------------------------------
def tell(budget: Budget, headers: Mapping[str, str], now: float, at: UtcTime) -> None:
    """Take in the headers (names in lower case) of an answer to a call that is settled; `at` is the vendor's time.

    Shape:  each of `Limits.headers`: by three headers, or by a pattern in one; what cannot be read says nothing. Where
            no reset is told, what was said holds for a sixtieth of its window.
    Source: draft-ietf-httpapi-ratelimit-headers (reset in seconds; older drafts with three headers), and vendors' own
            (`X-RateLimit-Reset` as an epoch, `Sforce-Limit-Info: api-usage=18/15000`)
    """
    for header, told in zip(budget.headers, budget.told, strict=True):
        said = _said(header, headers)
        left, limit = said.get("remaining"), said.get("limit")
        if left is None and limit is not None and "used" in said:
            left = limit - said["used"]
        if left is None:
            continue
        reset_s = _reset_s(header, said.get("reset"), at)
        until = now + min(reset_s, RETRY_AFTER_MAX_S) if reset_s is not None else now + header.window_s / SLOTS
        left = max(0.0, left) - budget.under_way
        if reset_s is not None and abs(until - told.until) < RESET_TICK_S:
            left = min(left, told.left)  # of the same window: answers may overtake one another
        told.limit = limit if limit is not None else max(told.limit, left, 1.0)
        told.left, told.mine, told.until = left, told.limit * budget.share, until


def _said(header: LimitHeaders, headers: Mapping[str, str]) -> dict[str, float]:
    """The numbers told, by what they mean: remaining, used, limit, reset."""
    names = {"remaining": header.remaining, "limit": header.limit, "reset": header.reset}
    texts = {mean: headers[name.lower()] for mean, name in names.items() if name and name.lower() in headers}
    if header.pattern is not None:
        found = next(filter(None, map(_matcher(header.pattern).search, texts.values())), None)
        texts = {} if found is None else {mean: text for mean, text in found.groupdict().items() if text}
    numbers = {mean: _NUMBER.match(text) for mean, text in texts.items()}
    return {mean: float(number[1]) for mean, number in numbers.items() if number is not None}


@lru_cache(maxsize=256)
def _matcher(pattern: str | None) -> re.Pattern[str]:
    try:
        return re.compile(pattern or "")
    except re.error as err:
        raise UsageError(f"the pattern {pattern!r} of a limit's header is none: {err}", code="bad_mapping") from None


def _reset_s(header: LimitHeaders, told: float | None, at: UtcTime) -> float | None:
    if told is None:
        return None
    match header.reset_as:
        case "seconds":
            return told
        case "epoch_s":
            return max(0.0, told - moment(at).timestamp())
        case "epoch_ms":
            return max(0.0, told / 1000 - moment(at).timestamp())


# -- from one owner to the next ---------------------------------------------------------------------------------------
class Used(msgspec.Struct, frozen=True, array_like=True):
    """What was used of a budget at a time: per gauge (unit and window), (age in seconds, cost) of the calls counted."""

    at: UtcTime
    gauges: dict[str, list[tuple[int, int]]]


def used(budget: Budget, now: float, at: UtcTime) -> str:
    """What a successor must know, in a few hundred characters: for the lease's `progress`. Ages are rounded down and
    costs up: it may count too much, never too little."""
    gauges: dict[str, list[tuple[int, int]]] = {}
    for gauge in budget.gauges:
        gauge.used(now)
        ages: dict[int, float] = {0: gauge.open} if gauge.open > 0 else {}
        for slot in gauge.ended:
            tick_s = gauge.window_s / USED_SLOTS
            age_s = int((now - slot.to_s) // tick_s * tick_s)
            ages[age_s] = ages.get(age_s, 0.0) + slot.cost
        gauges[_name(gauge)] = [(age_s, math.ceil(cost)) for age_s, cost in ages.items()]
    return msgspec.json.encode(Used(at, gauges)).decode()


def resume(budget: Budget, told: str | None, now: float, at: UtcTime, *, unknown_s: float = 0.0) -> None:
    """Count what a former owner asked for: what it `told`, and all it can have asked for in the `unknown_s` seconds it
    may have gone on after that (0: it let go, and told last).

    Units:  `at` is the time by our wall clock, taken to be SKEW_MAX_S from the former owner's.
    Errors: none; what cannot be read is taken for a budget used up just now.
    """
    former = _read(told)
    if former is None:
        unknown_s = max(unknown_s, WAIT_MIN_S) if told else unknown_s
        past_s = 0.0
    else:
        past_s = max(0.0, seconds_between(former.at, at) - SKEW_MAX_S - unknown_s)
    for gauge in budget.gauges:
        for age_s, cost in sorted(former.gauges.get(_name(gauge), []) if former is not None else [], reverse=True):
            gauge.ended.append(Slot(now - past_s - age_s, now - past_s - age_s, float(cost)))
        if unknown_s > 0:
            # Besides what was told: room may have come free meanwhile, and been used.
            most = min(_most_in(unknown_s, other) for other in _alike(budget, gauge))
            if gauge.unit == "requests" and (former is not None or not told):
                most = min(most, budget.at_once * (unknown_s / SHORTEST_CALL_S + 1))
            gauge.note(now - past_s, most)


def _read(told: str | None) -> Used | None:
    try:
        return msgspec.json.decode(told or "", type=Used)
    except (msgspec.DecodeError, UnicodeError):
        return None


def _name(gauge: Gauge) -> str:
    return f"{gauge.unit}/{gauge.window_s:g}"


def _alike(budget: Budget, gauge: Gauge) -> list[Gauge]:
    return [other for other in budget.gauges if other.unit == gauge.unit]


def _most_in(seconds: float, gauge: Gauge) -> float:
    return gauge.most * (seconds // gauge.window_s + 1)
