"""One look at an environment: the rows, streams and objects that tell how it stands. Reads, and creates nothing.

Rows are cheap and read at every look; streams and objects are looked at again only every `SLOW_S`. Whatever is not
there (no table, no stream, no bucket) is empty: an environment that nobody has set up yet.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from services.cli.connections import everything
from services.cli.groups import Group, readers
from services.cli.letters import Letter, Letters, counted_letters, to_open
from services.cli.setbacks import Parked, gap, parked
from services.cli.stages import Pulse, Reader, ShardLook, Stage, Waiting, shard_standing
from services.cli.standing import Read, service_standing
from services.cli.verdict import HeldMapping, Seen
from services.cli.world import World
from services.contracts.envelope import split
from services.contracts.errors import (
    ConflictError,
    FatalError,
    NotFoundError,
    RejectedError,
    RetryableError,
    UsageError,
)
from services.contracts.gaps import SCOPE as GAPS
from services.contracts.hints import did_you_mean
from services.contracts.integration import integration_name
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import SYSTEM_PREFIX, Names, checked_tenant, mapping_key, parked_scope
from services.contracts.ports import Record, Row, StreamInfo
from services.contracts.times import UtcTime
from services.extractor.tenants import TenantService
from services.runtime.leases import RENEWALS_PER_LEASE
from services.runtime.shards import ready, scope_of
from services.transformer.groups import SCOPE as GROUPS
from services.transformer.groups import bindings
from services.transformer.pinned import Pinned, decode, difference, mappings_folder, shipped

if TYPE_CHECKING:
    from services.compactor.iceberg import Warehouse

T = TypeVar("T")

SLOW_S: Final = 10.0
PULSE_SLACK_S: Final = 1.0
TENANTS_AT_ONCE: Final = 16
LETTERS_LISTED_MAX: Final = 10_000  # of one tenant: ten pages
LETTERS_OPENED_MAX: Final = 50  # of one tenant; the rest are counted by their names
# At most 4 MB of a shard: its readers share 2 MiB/s and 5 reads/s with us (AWS API reference: GetRecords).
STREAM_RECORDS_MAX: Final = 4
STREAM_READS_MAX: Final = 3  # an empty answer is not the end of a shard
EXTRACT_SCOPE: Final = "extract"  # extractor/unit.py, LEASE_SCOPE


class Observer:
    """Looks at one environment, or at one tenant of it, once or again and again."""

    def __init__(self, world: World, files: MappingFiles, tenant_id: str | None) -> None:
        self._files, self._tenant_id = files, checked_tenant(tenant_id) if tenant_id else None
        self._runtime, self._settings = world.runtime, world.settings
        self._pulse = Pulse(world.settings.lease_s)
        self._looked_at = float("-inf")
        self._groups: tuple[Group, ...] = ()
        self._streams: dict[Reader, StreamInfo] = {}
        self._waiting: dict[tuple[Reader, str], Waiting | None] = {}
        self._letters: tuple[Letters, ...] = ()
        self._held: tuple[HeldMapping, ...] = ()
        self._pinned: dict[str, Pinned] = {}  # by key: such an object never changes
        self._rebuilt: set[str] = set()  # keys of those whose tables were rebuilt with them
        self._warehouse: Warehouse | None = None

    @property
    def pulse_s(self) -> float:
        """How long after a look another one sees who lives: as often as owners show it, and a while for the writing."""
        return self._settings.lease_s / RENEWALS_PER_LEASE + PULSE_SLACK_S

    async def look(self) -> Seen:
        """Errors: UsageError for a tenant that is not there; RetryableError."""
        clock = self._runtime.clock
        found = await everything(self._runtime)
        connected = self._of_tenant(found.services)
        thorough = clock.monotonic() - self._looked_at >= SLOW_S
        if thorough:
            self._groups = tuple(Group.of(one) for one in bindings(await self._leased(GROUPS)))
            self._streams = await self._find_streams()
        shards = {reader: await self._shards(reader, info) for reader, info in self._streams.items()}
        if thorough:
            self._waiting = await self._look_into(shards)
            self._letters = await self._look_for_letters(connected)
            self._held = await self._look_for_held(connected)
            self._looked_at = clock.monotonic()
        marks, leases = await self._marks(), await self._leased(EXTRACT_SCOPE)
        set_aside, gaps = await self._parked(), tuple(map(gap, await self._leased(GAPS)))
        now = clock.now()
        return Seen(
            now,
            self._services(connected, marks, leases, now),
            tuple(map(str, found.unreadable)) if self._tenant_id is None else (),
            tuple(self._stage(reader, rows, now) for reader, rows in shards.items()),
            self._letters,
            self._held,
            self._groups,
            set_aside,
            gaps,
            tuple(sorted(self._files.tables)),
        )

    @property
    def _names(self) -> Names:
        return self._settings.names

    # -- services
    def _of_tenant(self, rows: Sequence[TenantService]) -> list[TenantService]:
        chosen = [row for row in rows if self._tenant_id in (None, row.tenant_id)]
        if self._tenant_id is not None and not chosen:
            hint = did_you_mean(self._tenant_id, {row.tenant_id for row in rows})
            remedy = f"{hint} `avesa services` lists them, `avesa setup-service` adds one.".strip()
            raise UsageError(f"there is no tenant {self._tenant_id}", code="unknown_tenant", remedy=remedy)
        return chosen

    def _services(
        self, connected: Iterable[TenantService], marks: Iterable[Row], leases: Iterable[Row], now: UtcTime
    ) -> tuple[Read, ...]:
        marked: dict[tuple[str, str], dict[str, Row]] = {}
        for row in marks:
            service, _, endpoint = str(row["service_endpoint"]).rpartition("#")
            marked.setdefault((row["tenant_id"], service), {})[endpoint] = row
        owned = {row["name"]: row for row in leases}
        return tuple(
            service_standing(
                row,
                self._files.integrations.get(integration_name(row.service)),
                marked.get((row.tenant_id, row.service), {}),
                owned.get(row.name, {}),
                self._settings.interval_s,
                now,
                self._pulse.feel(owned.get(row.name, {}), self._runtime.clock.monotonic()),
            )
            for row in connected
        )

    async def _marks(self) -> list[Row]:
        if self._tenant_id is not None:
            return await self._rows({"tenant_id": self._tenant_id}, self._names.last_updated)
        with suppress(NotFoundError):
            return [row async for row in self._runtime.rows.scan(self._names.last_updated)]
        return []

    async def _rows(self, key: Mapping[str, str], table: str) -> list[Row]:
        with suppress(NotFoundError):
            return [row async for row in self._runtime.rows.query(table, key)]
        return []

    async def _leased(self, scope: str) -> list[Row]:
        return await self._rows({"scope": scope}, self._names.leases)

    async def _parked(self) -> tuple[Parked, ...]:
        by_group = {reader.group: await self._leased(parked_scope(reader.group)) for reader in self._streams}
        found = (parked(group, row) for group, rows in by_group.items() for row in rows)
        return tuple(one for one in found if self._tenant_id in (None, one.tenant_id))

    # -- streams
    async def _find_streams(self) -> dict[Reader, StreamInfo]:
        raw, canonical = self._names.raw_stream, self._names.canonical_stream
        found: dict[str, StreamInfo] = {}
        for stream in (raw, canonical):
            with suppress(NotFoundError):
                found[stream] = await self._runtime.streams.describe(stream)
        return {
            reader: found[reader.stream] for reader in readers(self._groups, raw, canonical) if reader.stream in found
        }

    async def _shards(self, reader: Reader, info: StreamInfo) -> dict[str, Row]:
        """The lease rows of the shards that can be read and are not read to their end for good."""
        scope = scope_of(reader.stream, info.created, reader.group)
        rows = {row["name"]: row for row in await self._leased(scope)}
        ended = {name: bool(row.get("ended")) for name, row in rows.items()}
        return {
            shard.shard_id: rows.get(shard.shard_id, {})
            for shard in info.shards
            if not ended.get(shard.shard_id) and ready(shard, info, ended)
        }

    async def _look_into(self, shards: Mapping[Reader, Mapping[str, Row]]) -> dict[tuple[Reader, str], Waiting | None]:
        wanted = [(reader, name, row.get("position")) for reader, rows in shards.items() for name, row in rows.items()]
        found = await _all(self._look_behind(reader.stream, name, position) for reader, name, position in wanted)
        return {(reader, name): waiting for (reader, name, _), waiting in zip(wanted, found, strict=True)}

    async def _look_behind(self, stream: str, shard_id: str, position: str | None) -> Waiting | None:
        """The first envelopes behind a committed position; None where the stream is too busy for us."""
        streams = self._runtime.streams
        try:
            iterator: str | None = await streams.iterator(stream, shard_id, position)
            for reads in count(1):
                assert iterator is not None, "the loop ends with the shard"
                page = await streams.read(stream, iterator, STREAM_RECORDS_MAX)
                iterator = page.next_iterator
                more = page.behind_ms > 0 and iterator is not None
                if page.records or not more or reads == STREAM_READS_MAX:
                    events = sum(map(_events_of, page.records))
                    return Waiting(events, more, page.records[0].arrived_at if page.records else None)
        except (RetryableError, ConflictError, NotFoundError):
            pass
        return None

    def _stage(self, reader: Reader, rows: Mapping[str, Row], now: UtcTime) -> Stage:
        monotonic = self._runtime.clock.monotonic()
        looks = (
            ShardLook(name, row, self._waiting.get((reader, name)), self._pulse.feel(row, monotonic))
            for name, row in rows.items()
        )
        shards = tuple(shard_standing(reader, look, now, self._settings.retention_s) for look in looks)
        return Stage(reader.service, reader.group, reader.stream, shards)

    # -- objects
    async def _look_for_letters(self, connected: Iterable[TenantService]) -> tuple[Letters, ...]:
        tenants = sorted({row.tenant_id for row in connected})
        if self._tenant_id is None:
            tenants.append(SYSTEM_PREFIX)  # of envelopes that do not even say whose they are
        found = await _all(map(self._letters_of, tenants))
        return tuple(letters for some in found for letters in some)

    async def _letters_of(self, tenant_id: str) -> list[Letters]:
        keys = [key async for key in self._keys(f"{tenant_id}/dead-letter/", LETTERS_LISTED_MAX + 1)]
        more, keys = len(keys) > LETTERS_LISTED_MAX, keys[:LETTERS_LISTED_MAX]
        chosen = to_open(keys, LETTERS_OPENED_MAX)
        found = zip(chosen, await _all(map(self._open_letter, chosen)), strict=True)
        return counted_letters(keys, {key: letter for key, letter in found if letter is not None}, more=more)

    async def _open_letter(self, key: str) -> Letter | None:
        with suppress(NotFoundError, msgspec.DecodeError):  # replayed a moment ago; or not ours
            return msgspec.json.decode(await self._runtime.objects.get(key), type=Letter)
        return None

    async def _look_for_held(self, connected: Iterable[TenantService]) -> tuple[HeldMapping, ...]:
        found = await _all(self._held_of(row.tenant_id, row.service) for row in connected)
        return tuple(held for some in found for held in some)

    async def _held_of(self, tenant_id: str, service: str) -> list[HeldMapping]:
        """Where the mapping in force is not what our mapping files say, and cannot become it by itself."""
        wanted = shipped(self._files, tenant_id, service)
        held = []
        for table, (version, key) in (await self._pinned_keys(tenant_id, service)).items():
            try:
                pinned = await self._read_pinned(key)
                what = difference(pinned, wanted.get(table)) or await self._unfinished(pinned, key)
            except NotFoundError:
                continue
            except FatalError as err:
                what = str(err)
            if what:
                held.append(HeldMapping(tenant_id, service, table, version, what))
        return held

    async def _unfinished(self, pinned: Pinned, key: str) -> str:
        """What to say of a rebuild that was begun with this mapping and has not come to its end; else nothing."""
        if not pinned.rebuilt or key in self._rebuilt:
            return ""
        if self._warehouse is None:
            from services.compactor.iceberg import Warehouse

            self._warehouse = await self._runtime.threads.run(Warehouse.on_glue, self._settings)
        floors = await self._runtime.threads.run(self._warehouse.floors, pinned.tenant_id, pinned.table.table)
        if floors.get(pinned.service, 0) >= pinned.rebuilt:
            self._rebuilt.add(key)
            return ""
        return "a rebuild was begun and is not finished: nothing new enters the table"

    async def _pinned_keys(self, tenant_id: str, service: str) -> dict[str, tuple[int, str]]:
        """(number, key) of the mapping in force, by table."""
        folder = mappings_folder(tenant_id)
        newest: dict[str, tuple[int, str]] = {}
        async for key in self._keys(folder):
            table, _, rest = key.removeprefix(folder).partition("/")
            number = rest.rpartition("/")[2].removesuffix(".json")
            if number.isdecimal() and key == mapping_key(tenant_id, table, service, int(number)):
                newest[table] = max(newest.get(table, (0, "")), (int(number), key))
        return newest

    async def _read_pinned(self, key: str) -> Pinned:
        if key not in self._pinned:
            self._pinned[key] = decode(await self._runtime.objects.get(key), key)
        return self._pinned[key]

    async def _keys(self, prefix: str, most: int | None = None) -> AsyncIterator[str]:
        with suppress(NotFoundError):
            found = 0
            async for info in self._runtime.objects.list(prefix):
                yield info.key
                found += 1
                if found == most:
                    return


def _events_of(record: Record) -> int:
    try:
        return split(record.data)[0].count
    except RejectedError:
        return 1  # one thing that will become a dead letter


async def _all(work: Iterable[Awaitable[T]]) -> list[T]:
    """All of it, a few at a time."""
    room = asyncio.Semaphore(TENANTS_AT_ONCE)

    async def one(part: Awaitable[T]) -> T:
        async with room:
            return await part

    return await asyncio.gather(*map(one, work))
