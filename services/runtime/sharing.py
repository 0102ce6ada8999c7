"""Which of a fleet's work is whose: evenly by count and by load, and nobody decides for the others.

Every worker looks at the rows of a scope and does only what makes *its own* share right: it takes what is free, up to
what is fair, and asks the one with the most to hand something over. Each such move makes the sum of the squared shares
smaller, so that a fleet which changes nothing comes to rest.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import msgspec

from services.contracts.ports import Row
from services.runtime.leases import Lease, Leases, rate_of

LOOKS_PER_LEASE: Final = 6  # so that a dead owner's work is taken within 1 + 2/6 lease times (faults.md row 8)
HANDOVER_S: Final = 1.0  # between looks while we wait for what we asked for
TENURE_LEASES: Final = 0.5  # lease times for which work stays where it came
ASKS_MAX: Final = 8  # at one look: a fleet of two with a thousand shards is even after some minutes
# A move must be clearly worth it: what moves is less than this part of the difference between the two shares.
WORTH: Final = 0.75


class Holding(msgspec.Struct, frozen=True, gc=False):
    """One piece of work in its owner's hands, or promised: then `owner` is who asked for it. `rate` is in events a
    second; what `stays` is not asked for."""

    name: str
    owner: str
    rate: float = 0.0
    stays: bool = False


def weights(holdings: Sequence[Holding]) -> dict[str, float]:
    """What each piece counts: an equal part of one, and its part of all that flows of another one."""
    flowing = sum(holding.rate for holding in holdings)
    return {holding.name: 1 / len(holdings) + (holding.rate / flowing if flowing > 0 else 0.0) for holding in holdings}


def wanted(holdings: Sequence[Holding], worker: str, asks_max: int = ASKS_MAX) -> list[str]:
    """What `worker` should ask others for, so that nobody has clearly more than it; nothing where it has its share."""
    weight = weights(holdings)
    shares: dict[str, float] = {worker: 0.0}
    for holding in holdings:
        shares[holding.owner] = shares.get(holding.owner, 0.0) + weight[holding.name]
    asked: list[str] = []
    while len(asked) < asks_max:
        held = [holding for holding in holdings if not holding.stays and holding.name not in asked]
        moves = [
            (shares[holding.owner] - shares[worker], weight[holding.name], holding)
            for holding in held
            if holding.owner != worker
        ]
        worth = [move for move in moves if move[1] < WORTH * move[0]]
        if not worth:
            break
        # From the richest of those who have something to spare; of that, what comes nearest to half the difference.
        _, moved, best = min(worth, key=lambda m: (-m[0], abs(m[1] - m[0] / 2), m[2].owner, m[2].name))
        shares[best.owner] -= moved
        shares[worker] += moved
        asked.append(best.name)
    return asked


def fair_count(pieces: int, owners: int) -> int:
    """How many pieces one of so many owners may take unasked."""
    return math.ceil(pieces / max(1, owners))


def rest_s(leases: Leases, share: "Share | None", most_s: float) -> float:
    """How long until the next look; `share` is None while nothing was found to share."""
    look_s = min(most_s, leases.lease_s / LOOKS_PER_LEASE)
    return min(look_s, HANDOVER_S) if share is not None and share.is_waiting else look_s


class Share:
    """One worker's share of the work in a scope. Errors of every method: RetryableError, NotFoundError."""

    def __init__(self, leases: Leases, scope: str) -> None:
        self._leases, self.scope = leases, scope
        self.is_waiting = False  # for something we asked for

    async def turn(
        self, names: Iterable[str], rows: Mapping[str, Row], room: int, start: Callable[[Lease], None]
    ) -> None:
        """One look at the work `names`, whose surveyed `rows` (`Leases.survey`) may lack what is new.

        What others ask of us is told to its work (`Lease.leaving`); what is free is taken, up to `room` and to our
        fair part of all, and beyond that what was let go for us, or nobody wanted for a lease time; for what is
        missing we ask.
        `start` is handed each lease as it is taken.
        """
        leases, pieces = self._leases, list(names)
        self._heed(rows)
        owners = {owner for name in pieces if (owner := self._owner(name, rows)) is not None}
        fair = fair_count(len(pieces), len(owners | {leases.worker}))
        held = sum(leases.holds(self.scope, name) is not None for name in pieces)
        taken = 0
        for name in pieces:
            if taken >= room:
                return
            row = rows.get(name, {})
            if leases.holds(self.scope, name) or self._owner(name, rows) is not None:
                continue
            promised = row.get("asked_by") == leases.worker
            if promised or held + taken < fair or leases.quiet_s(self.scope, name, row) >= leases.lease_s:
                lease = await leases.acquire(self.scope, name, row)
                if lease is not None:
                    start(lease)
                    taken += 1
        await self._ask(pieces, rows, room - taken)

    def _heed(self, rows: Mapping[str, Row]) -> None:
        """Others ask for what is ours."""
        for name, row in rows.items():
            lease = self._leases.holds(self.scope, name)
            if lease is not None and row.get("asked_by") not in (None, self._leases.worker):
                lease.leaving.set()

    async def _ask(self, pieces: Sequence[str], rows: Mapping[str, Row], room: int) -> None:
        holdings = [
            Holding(name, row.get("asked_by") or owner, rate_of(row), stays=self._stays(name, row))
            for name in pieces
            for row in [rows.get(name, {})]
            if (owner := self._owner(name, rows)) is not None
        ]
        self.is_waiting = any(row.get("asked_by") == self._leases.worker for row in rows.values())
        for name in wanted(holdings, self._leases.worker, min(room, ASKS_MAX)):
            self.is_waiting |= await self._leases.ask(self.scope, name, rows[name])

    def _stays(self, name: str, row: Row) -> bool:
        """Promised already, or only just taken: what it weighs there is not known yet."""
        tenure_s = TENURE_LEASES * self._leases.lease_s
        return bool(row.get("asked_by")) or self._leases.tenure_s(self.scope, name) < tenure_s

    def _owner(self, name: str, rows: Mapping[str, Row]) -> str | None:
        """Who works on it and shows life."""
        if self._leases.holds(self.scope, name):
            return self._leases.worker
        row = rows.get(name, {})
        owner = row.get("owner")
        if owner in (None, self._leases.worker):
            return None
        return None if self._leases.quiet_s(self.scope, name, row) >= self._leases.lease_s else owner
