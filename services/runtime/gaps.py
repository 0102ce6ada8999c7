"""Meeting gaps: one watch over each shard that is read, and the rows of what it finds (`contracts/gaps.py`).

The comparison is made at every read, and so meets also a reader that never stopped and fell behind. Nothing depends on
when a gap is healed: the lake is a function of the set of observations (DESIGN 2).
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from services.contracts.errors import ConflictError, FatalError, RetryableError
from services.contracts.gaps import CLOCKS_APART_S, SCOPE, Gap, GapRules, complete_until, inherited, read_gap
from services.contracts.log import PositionExpired
from services.contracts.ports import Record, Row, Shard
from services.contracts.times import UtcTime, shifted
from services.runtime.leases import Lease
from services.runtime.runtime import Runtime

WRITES_MAX: Final = 8  # of one row, against whoever heals it


class HaltedError(FatalError):
    """The policy is not to read on behind a gap. It concerns one shard: others go on."""


async def gaps(runtime: Runtime) -> list[Gap]:
    """Every gap that is not healed. Errors: RetryableError, NotFoundError (no table)."""
    rows = runtime.rows.query(runtime.names.leases, {"scope": SCOPE})
    return [read_gap(row) async for row in rows]


class Watch:
    """Whether one reader of one shard misses anything; `meet` before anything of a read takes effect."""

    def __init__(self, ledger: "Gaps", shard: Shard, position: str | None, complete_until: UtcTime | None) -> None:
        self._ledger, self._shard = ledger, shard
        self._position, self.complete_until = position, complete_until
        self._noted: Gap | None = None

    async def meet(self, records: Sequence[Record], *, caught_up: bool) -> None:
        """What one read returned, which begins where the one before ended; `caught_up`: nothing newer was there.

        Errors: HaltedError, where the policy is to halt; RetryableError: nothing was noted, and nothing may go on.
        """
        now, complete = self._ledger.runtime.clock.now(), self.complete_until
        if complete is not None and complete < self._ledger.rules.horizon(now):
            await self._note(complete, now)
        if records:
            self._position = records[-1].sequence
        arrived = [record.arrived_at for record in records]
        if caught_up and not self._shard.closed:  # the end of a closed shard may lie long past
            arrived.append(now)
        self.complete_until = max([*arrived, *([complete] if complete else [])], default=None)

    async def _note(self, since: UtcTime, now: UtcTime) -> None:
        noted, horizon = self._noted, self._ledger.rules.horizon(now)
        if noted is not None and horizon <= noted.until:
            return
        until = shifted(horizon, seconds=CLOCKS_APART_S)  # so that who stays at the horizon need not note each read
        if noted is not None and since <= noted.until:
            gap = msgspec.structs.replace(noted, until=until)
        else:
            gap = self._ledger.gap(self._shard, self._position, since, until, now)
        await self._ledger.note(gap)
        self._noted = gap


class Gaps:
    """Notes the gaps of one group on one stream."""

    def __init__(self, runtime: Runtime, rules: GapRules, group: str, stream: str) -> None:
        self.runtime, self.rules = runtime, rules
        self._group, self._stream = group, stream
        self._said: set[str] = set()

    async def watch(self, lease: Lease, shard: Shard, row: Row, parents: Sequence[Row]) -> Watch:
        """The watch over a shard about to be read from what `row`, its lease row, says is committed.

        Errors: RetryableError.
        """
        told = [one for one in (lease.row.get("progress"), lease.progress) if isinstance(one, Mapping)]
        complete = complete_until(row, told)
        if complete is None and shard.parents:
            complete = inherited(parents or await self._forgotten(lease))
        return Watch(self, shard, row.get("position"), complete)

    async def _forgotten(self, lease: Lease) -> list[Row]:
        """Where the stream lists none of a shard's ancestors that we knew: every shard we have not read to its end."""
        rows = self.runtime.rows.query(self.runtime.names.leases, {"scope": lease.scope})
        return [row async for row in rows if not row.get("ended") and row["name"] != lease.name]

    def gap(self, shard: Shard, position: str | None, since: UtcTime, until: UtcTime, now: UtcTime) -> Gap:
        return Gap(
            group=self._group,
            stream=self._stream,
            shard=shard.shard_id,
            position=position or "",
            first=str(shard.hash_range.first),
            last=str(shard.hash_range.last),
            since=since,
            until=until,
            state="halted" if self.rules.on_gap == "halt" else "open",
            at=now,
        )

    async def note(self, gap: Gap) -> None:
        """Make it durable, then say it: once by each owner that meets it, since an owner may die in between.

        Errors: HaltedError; RetryableError.
        """
        await record(self.runtime, gap)
        if gap.name not in self._said:
            self._said.add(gap.name)
            self.runtime.emit(PositionExpired(group=gap.group, stream=gap.stream, shard=gap.shard))
        if gap.state == "halted":
            raise HaltedError(
                f"what arrived from {gap.since} to {gap.until} may have expired before {gap.group} read it",
                where=f"{gap.stream} {gap.shard}",
                remedy="With AVESA_ON_GAP=continue newer data flows, and what was missed is read again beside it.",
            )


async def record(runtime: Runtime, gap: Gap) -> None:
    """Write the row of a gap; where it is there, it becomes as long as both. Errors: RetryableError."""
    rows, table = runtime.rows, runtime.names.leases
    for _ in range(WRITES_MAX):
        held = await rows.get(table, gap.key)
        try:
            if held is None:
                await rows.write(table, gap.key, msgspec.to_builtins(gap), expect={"at": None})
            else:
                there = read_gap(held)
                longer = {"since": min(there.since, gap.since), "until": max(there.until, gap.until)}
                if (there.since, there.until) != tuple(longer.values()) or "halted" in (there.state, gap.state):
                    expect = {"since": there.since, "until": there.until, "state": there.state}
                    await rows.write(table, gap.key, {**longer, "state": gap.state, "asked_at": None}, expect)
        except ConflictError:
            continue  # its healer, or another reader
        return
    raise RetryableError(f"the row of gap {gap.name} is never as it was read")
