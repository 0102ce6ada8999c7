"""Reading again what a stream dropped before it was read (`contracts/gaps.py`; faults.md rows 30 and 31).

    missed on its way to the lake      the raw archive holds it: published again, marked as replayed
    missed on its way to the archive   the vendors hold it: every endpoint concerned is asked to publish all it knows

In whatever order and however often: what comes twice changes nothing. What was published again may be missed in its
turn; so of every gap that was healed from the archive a row stays behind (scope `healed`), and whoever heals a gap
reads again what was read again while that gap lasted.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec

from services.compactor.cuts import HOUR_CHARS, Run, ShardRow, hour_of, hour_start, read_row
from services.compactor.cutting import SERVICE
from services.compactor.raw_archive import RawArchive
from services.contracts.errors import AvesaError, ConflictError, FencedError, NotFoundError, RetryableError
from services.contracts.events import ChangeEvent
from services.contracts.gaps import Gap, GapRules, complete_until, inherited
from services.contracts.integration import Integration, integration_name
from services.contracts.log import GapHealed, PositionExpired, WaitingFor
from services.contracts.names import cut_key, raw_folder
from services.contracts.partitions import Partition
from services.contracts.ports import Row
from services.contracts.times import UtcTime, shifted
from services.runtime.envelopes import Sealed, seal
from services.runtime.gaps import gaps, record
from services.runtime.leases import Lease
from services.runtime.loop import beating, outcome_of, pause, until
from services.runtime.publisher import Publisher
from services.runtime.runtime import Runtime

POLL_S: Final = 60.0
LEASE_SCOPE: Final = "heal"
HEALED_SCOPE: Final = "healed"
# How far apart the time in a gap and the hour of a file may be: clocks, hours cut by a running maximum, reads that
# took their time.
MARGIN_S: Final = 2 * 3_600.0


class Healed(msgspec.Struct, frozen=True):
    """What was read again of the raw archive, `since` to `until`, and when it was published."""

    group: str
    stream: str
    shard: str
    since: UtcTime
    until: UtcTime
    began_at: UtcTime
    ended_at: UtcTime
    count: int


class Endpoint(msgspec.Struct, frozen=True):
    """An endpoint that was ever read, and its `LastUpdated` row."""

    tenant_id: str
    service: str
    name: str
    family: str
    row: Row

    @property
    def partition(self) -> Partition:
        return Partition(self.tenant_id, self.service, self.family)

    @property
    def reread(self) -> UtcTime | None:
        """Everything was published again after it was asked for then (`extractor/marks.py`)."""
        marks = self.row.get("marks") or {}
        return marks.get("reread")


class Round(msgspec.Struct):
    """What one round did: gaps that are healed, events published for them, and why the others wait."""

    healed: int = 0
    events: int = 0
    waiting: dict[str, str] = msgspec.field(default_factory=dict)


class Healing:
    """Heals the gaps of every group, one at a time; other workers take others. `integrations` are by service."""

    def __init__(
        self, runtime: Runtime, integrations: Mapping[str, Integration], rules: GapRules | None = None
    ) -> None:
        self._runtime, self._integrations, self._rules = runtime, integrations, rules or GapRules()
        self._archive = RawArchive(runtime)
        self._publisher: Publisher | None = None
        self._lives: dict[str, str] = {}  # by stream, the one whose predecessors were looked at

    async def run(self, stopping: asyncio.Event) -> None:
        """Until `stopping` is set. While nothing is missing a round costs two descriptions and one query."""
        while not stopping.is_set():
            await until(stopping, self._round())
            await pause(self._runtime.clock, stopping, POLL_S)

    async def _round(self) -> None:
        await self.heal_once()

    async def heal_once(self) -> Round:
        """One round over all gaps; a gap that cannot be healed now waits for the next, and is told of."""
        done, runtime = Round(), self._runtime
        try:
            await self._look_at_former_lives()
            found = await gaps(runtime)
            read = [row async for row in runtime.rows.scan(runtime.names.last_updated)] if found else []
        except (RetryableError, NotFoundError) as err:
            runtime.emit(WaitingFor(what="what expired unread", why=str(err)))
            return done
        for gap in found:
            try:
                made = await outcome_of(self._heal(gap, read, done))
                if isinstance(made, Exception):  # a file that cannot be read, say: it concerns this gap alone
                    done.waiting[gap.name] = f"internal error: {type(made).__name__}"
            except FencedError:
                pass  # another worker heals it
            except AvesaError as err:
                done.waiting[gap.name] = str(err)
        if done.waiting:
            name, why = next(iter(done.waiting.items()))
            what = f"what expired unread in {len(done.waiting)} places, such as {name}"
            runtime.emit(WaitingFor(what=what, why=why))
        return done

    async def _heal(self, gap: Gap, read: Sequence[Row], done: Round) -> None:
        """One gap; `read` are the rows of every endpoint that was ever read."""
        endpoints = self._endpoints(gap, read)
        if gap.state == "halted":
            done.waiting[gap.name] = "AVESA_ON_GAP=halt"
        elif gap.group == SERVICE and gap.stream == self._runtime.names.raw_stream:
            await self._from_source(gap, endpoints, done)
        elif not await self._archive.holds(gap.until):
            done.waiting[gap.name] = f"raw/ does not hold yet all that arrived until {gap.until}"
        else:
            await self._alone(gap, endpoints, done)

    async def _alone(self, gap: Gap, endpoints: Sequence[Endpoint], done: Round) -> None:
        """Read again from the raw archive, unless another worker does."""
        leases, rows = self._runtime.leases, self._runtime.rows
        lease = await leases.acquire(LEASE_SCOPE, gap.name)
        if lease is None:
            return
        healed = False
        try:
            healed = await rows.get(leases.table, gap.key) is None
            if not healed:
                await self._from_archive(gap, endpoints, lease, done)
                healed = True
        finally:
            if not healed:
                await lease.release()
        leases.forget(lease)  # there will be no such work again: nor a row of it
        with suppress(ConflictError, RetryableError):
            await rows.delete(leases.table, lease.key, lease.mine)

    # -- from the raw archive
    async def _from_archive(self, gap: Gap, endpoints: Sequence[Endpoint], lease: Lease, done: Round) -> None:
        """Publish what arrived in the raw stream in the gap's time; replayed, it is not archived again, and takes the
        background's share of a shard."""
        gap = await self._turn(gap, state="archive")
        clock, count = self._runtime.clock, 0
        began_at, since = clock.now(), await self._since(gap)
        for endpoint in endpoints:
            async for events in self._events(endpoint, since, gap.until):
                lease.alive()
                if lease.lost.is_set():
                    raise FencedError(f"the lease on {lease.name} is lost")
                sealed = await self._runtime.threads.run(_sealed, endpoint, events)
                await beating(self._publish(sealed), lease.alive, clock)
                count += len(events)
        healed = Healed(gap.group, gap.stream, gap.shard, since, gap.until, began_at, clock.now(), count)
        key = {"scope": HEALED_SCOPE, "name": f"{began_at} {gap.name}"}
        await self._runtime.rows.write(self._runtime.names.leases, key, msgspec.to_builtins(healed))
        await self._close(gap, count, done)

    async def _since(self, gap: Gap) -> UtcTime:
        """From when on raw/ is read.

        What was to arrive in the canonical stream may have lain in the raw stream as long as that keeps anything. And
        what was published again meanwhile had arrived long before.
        """
        late_s = self._rules.retention_s if gap.stream == self._runtime.names.canonical_stream else 0.0
        since = shifted(gap.since, seconds=-late_s)
        earliest = since
        async for row in self._runtime.rows.query(self._runtime.names.leases, {"scope": HEALED_SCOPE}):
            healed = msgspec.convert(row, Healed, strict=False)
            if healed.ended_at >= since and healed.began_at <= gap.until:
                earliest = min(earliest, healed.since)
        return earliest

    async def _events(self, endpoint: Endpoint, since: UtcTime, until: UtcTime) -> AsyncIterator[list[ChangeEvent]]:
        """The raw events of an endpoint that arrived in this time, and of some hours around it, in batches."""
        first, last = hour_of(shifted(since, seconds=-MARGIN_S)), hour_of(shifted(until, seconds=MARGIN_S))
        after = len(raw_folder(endpoint.tenant_id, endpoint.service, endpoint.name)) + 1
        files = await self._archive.files(endpoint.tenant_id, endpoint.service, endpoint.name)
        wanted = [file for file in files if first <= file.key[after : after + HOUR_CHARS] <= last]
        async for events in self._archive.events(wanted):
            yield events

    async def _publish(self, sealed: list[Sealed]) -> None:
        if self._publisher is None:
            self._publisher = self._runtime.publisher(self._runtime.names.raw_stream)
        await self._publisher.publish(sealed)

    # -- from the vendors
    async def _from_source(self, gap: Gap, endpoints: Sequence[Endpoint], done: Round) -> None:
        """Ask the owners of the endpoints to publish everything again; the gap is closed when all of them have.

        Any number of workers may do it at once: every write says what it expects.
        """
        connected = await self._connected()
        endpoints = [one for one in endpoints if (one.tenant_id, one.service) in connected and self._is_read(one)]
        asked_at = gap.asked_at or self._runtime.clock.now()
        missing = [endpoint for endpoint in endpoints if (endpoint.reread or "") < asked_at]
        for endpoint in missing:
            await self._ask(endpoint, asked_at)
        if missing:
            if gap.asked_at is None:  # the extractors look into their rows when they see this one
                await self._turn(gap, state="source", asked_at=asked_at)
            first = missing[0].partition.text
            done.waiting[gap.name] = f"{len(missing)} endpoints are to be read again, such as {first}"
            return
        await self._close(gap, 0, done)

    async def _ask(self, endpoint: Endpoint, asked_at: UtcTime) -> None:
        """Errors: ConflictError when somebody else asks; then it is done in the next round."""
        there = endpoint.row.get("reread_asked_at")
        if there is None or there < asked_at:
            key = {"tenant_id": endpoint.tenant_id, "service_endpoint": f"{endpoint.service}#{endpoint.name}"}
            news, expect = {"reread_asked_at": asked_at}, {"reread_asked_at": there}
            await self._runtime.rows.write(self._runtime.names.last_updated, key, news, expect)

    async def _connected(self) -> set[tuple[str, str]]:
        """Tenant and service of what can be asked, now or when it is resumed."""
        rows = self._runtime.rows.scan(self._runtime.names.tenant_services)
        return {(row["tenant_id"], row["service"]) async for row in rows}

    def _is_read(self, endpoint: Endpoint) -> bool:
        """Does the integration still read it, for itself or for those that hang from it? One that is not known here
        may be known to an extractor."""
        integration = self._integrations.get(integration_name(endpoint.service))
        if integration is None:
            return True
        found = integration.endpoints.get(endpoint.name)
        if found is None:
            return False
        children = [
            one for one in integration.endpoints.values() if one.parent and one.parent.endpoint == endpoint.name
        ]
        return found.enabled or any(child.enabled for child in children)

    # -- which endpoints
    def _endpoints(self, gap: Gap, read: Sequence[Row]) -> list[Endpoint]:
        """Those that have a partition in the gap's hash range."""
        found: list[Endpoint] = []
        for row in read:
            service, _, name = row["service_endpoint"].partition("#")
            integration = self._integrations.get(integration_name(service))
            family = integration.family_of(name) if integration is not None else name
            endpoint = Endpoint(row["tenant_id"], service, name, family, row)
            if self._feeds(endpoint, integration, gap):
                found.append(endpoint)
        return sorted(found, key=lambda endpoint: (endpoint.partition, endpoint.name))

    def _feeds(self, endpoint: Endpoint, integration: Integration | None, gap: Gap) -> bool:
        if gap.stream == self._runtime.names.raw_stream:
            return gap.hash_range.holds(endpoint.partition)
        if integration is None:
            return True  # which tables it fed nobody knows any longer
        tables = {
            other.canonical.table
            for name, other in integration.endpoints.items()
            if other.canonical is not None and integration.family_of(name) == endpoint.family
        }
        partitions = [Partition(endpoint.tenant_id, endpoint.service, table) for table in tables]
        return any(gap.hash_range.holds(partition) for partition in partitions)

    # -- the row of a gap
    async def _turn(self, gap: Gap, **news: Any) -> Gap:
        """Errors: ConflictError when it has grown meanwhile."""
        rows, table = self._runtime.rows, self._runtime.names.leases
        await rows.write(table, gap.key, news, {"until": gap.until, "state": gap.state})
        return msgspec.structs.replace(gap, **news)

    async def _close(self, gap: Gap, count: int, done: Round) -> None:
        """It is healed, unless it has grown meanwhile. Errors: ConflictError."""
        expect = {"since": gap.since, "until": gap.until, "state": gap.state}
        await self._runtime.rows.delete(self._runtime.names.leases, gap.key, expect)
        done.healed += 1
        done.events += count
        self._runtime.emit(GapHealed(group=gap.group, stream=gap.stream, shard=gap.shard, count=count))

    # -- streams that were made anew
    async def _look_at_former_lives(self) -> None:
        """What nobody read of a stream that was deleted and made again is a gap as well, of each group that read it.

        Whatever the policy, nothing halts: the positions in the new stream are not concerned.
        Errors: RetryableError.
        """
        names, runtime = self._runtime.names, self._runtime
        created = {}
        for stream in (names.raw_stream, names.canonical_stream):
            try:
                created[stream] = (await runtime.streams.describe(stream)).created
            except NotFoundError:
                continue  # deleted, and not made again yet
        if created == self._lives:
            return
        lives: dict[tuple[str, str, str], list[Row]] = {}
        async for row in runtime.rows.scan(names.leases):
            group, _, rest = row["scope"].partition("/")
            stream, _, life = rest.partition("/")
            if stream in created and life < created[stream] and not row.get("left_at"):
                lives.setdefault((group, stream, life), []).append(row)
        for (group, stream, life), rows in sorted(lives.items()):
            await self._leave(group, stream, life, rows, created[stream])
        self._lives = created

    async def _leave(self, group: str, stream: str, life: str, rows: list[Row], until: UtcTime) -> None:
        """Note what one group left unread of one life of a stream, once."""
        runtime = self._runtime
        since = inherited([await self._as_kept(row) for row in rows] if group == SERVICE else rows)
        if since is not None:
            now = runtime.clock.now()
            gap = Gap(group=group, stream=stream, shard=f"all of {life}", since=since, until=until, at=now)
            await record(runtime, gap)
            runtime.emit(PositionExpired(group=group, stream=stream, shard=gap.shard))
        for row in rows:
            key = {"scope": row["scope"], "name": row["name"]}
            await runtime.rows.write(runtime.names.leases, key, {"left_at": runtime.clock.now()})

    async def _as_kept(self, row: Row) -> Row:
        """A compactor's row of a stream that is gone, as far as the lake has what it read: what is spooled, and cuts
        that are recorded or not merged, nobody will finish."""
        held = read_row(row)
        open_hours = [run.hour for run in held.waiting if run.unmerged and await self._waits(row, held, run)]
        open_hours += [hour_of(held.arrived_at)] if held.spool and held.arrived_at else []
        open_hours += [held.cut.hour] if held.cut else []
        if not open_hours:
            return row
        known = [hour_start(min(open_hours)), complete_until(row, [row.get("progress") or {}])]
        return {"arrived_at": min(time for time in known if time is not None)}

    async def _waits(self, row: Row, held: ShardRow, run: Run) -> bool:
        """What waited when a shard ended is its children's, whose rows say so; where these are done, its lists go."""
        if not held.ended:
            return True
        try:
            await self._runtime.objects.get(cut_key(row["scope"], run.shard, run.last))
        except NotFoundError:
            return False
        return True


def _sealed(endpoint: Endpoint, events: list[ChangeEvent]) -> list[Sealed]:
    return seal(endpoint.partition, endpoint.name, [msgspec.json.encode(event) for event in events], replay=True)
