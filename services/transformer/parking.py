"""Parking: a partition of which too much cannot be used, or of whose service no mapping file is known, waits, whole and
in order, and the rest of its shard goes on.

    mark written (lease table, scope `parked/{group}`) -> envelopes written as they are -> position committed

The mark comes first, so that whoever reads the same envelopes again after a kill holds them as well. Marks are by
partition: they hold for every shard that serves it, before and after a reshard. To release is the same backwards:

    mark removed -> every worker has noticed -> envelopes published again in order -> their objects deleted
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

import msgspec

from services.contracts.envelope import join, split
from services.contracts.errors import ConflictError, NotFoundError
from services.contracts.log import EnvelopesHeld, PartitionParked
from services.contracts.names import parked_folder, parked_key, parked_place, parked_root, parked_scope
from services.contracts.partitions import Partition
from services.contracts.ports import Value
from services.runtime.envelopes import Sealed
from services.runtime.publisher import Publisher
from services.runtime.runtime import Runtime
from services.transformer.batches import Envelope, Held

REFRESH_S: Final = 60.0  # a mark that is set or removed elsewhere is noticed after so long
NOTICE_S: Final = 90.0  # to be waited before envelopes are sent again: REFRESH_S, and a slow turn of a worker
HOLDS_AT_ONCE: Final = 16
SENDS_AT_ONCE: Final = 32  # envelopes of 0.9 MB at most in memory
ROUNDS_MAX: Final = 3  # of releasing: a worker that noticed late has held what was sent
TOO_MANY: Final = "too many dead letters in an hour"
NOT_DESCRIBED: Final = "no mapping file describes this service: start the transformer with the one there is"


class Parking:
    """The parked partitions of one consumer group, as one shard's worker knows them. Errors: RetryableError."""

    def __init__(self, runtime: Runtime, group: str) -> None:
        self._runtime, self._group = runtime, group
        self._parked: frozenset[Partition] = frozenset()
        self._read_at: float | None = None

    async def refresh(self) -> frozenset[Partition]:
        """Read the marks, at most every REFRESH_S; the partitions that were released since the last time."""
        now = self._runtime.clock.monotonic()
        if self._read_at is not None and now - self._read_at < REFRESH_S:
            return frozenset()
        runtime, before = self._runtime, self._parked
        rows = runtime.rows.query(runtime.names.leases, {"scope": parked_scope(self._group)})
        self._parked, self._read_at = frozenset([_partition(row["name"]) async for row in rows]), now
        return before - self._parked

    def is_parked(self, partition: Partition) -> bool:
        return partition in self._parked

    async def park(self, beyond: Mapping[Partition, Held], letters_max: int) -> None:
        """Mark partitions that went beyond a budget of `letters_max`, and hold the envelopes that did."""
        for held in beyond.values():
            await self._mark(held.envelopes[0], held.code, TOO_MANY, letters_max)
        await self.hold(envelope for held in beyond.values() for envelope in held.envelopes)

    async def refuse(self, envelope: Envelope) -> None:
        """Mark the partition of an envelope that no mapping file says anything of: it waits for one."""
        if not self.is_parked(envelope.header.partition):
            await self._mark(envelope, "unknown_service", NOT_DESCRIBED, 0)

    async def _mark(self, first: Envelope, code: str, reason: str, letters: int) -> None:
        """The partition of `first`, which is the first that is held."""
        runtime, partition = self._runtime, first.header.partition
        values: dict[str, Value] = {
            "since": runtime.clock.now(),
            "code": code,
            "reason": reason,
            "shard": first.shard,
            "sequence": first.sequence,
            "letters": letters,
        }
        key = {"scope": parked_scope(self._group), "name": partition.text}
        if await runtime.rows.get(runtime.names.leases, key) is None:
            runtime.emit(  # before the mark: rather twice than never
                PartitionParked(
                    tenant_id=partition.tenant_id, service=partition.service, group=partition.group, reason=reason
                )
            )
            with suppress(ConflictError):  # another shard's worker was faster, or an answer of ours was lost
                await runtime.rows.write(runtime.names.leases, key, values, expect={"since": None})
        self._parked |= {partition}

    async def passed(self, envelopes: Iterable[Envelope]) -> list[Envelope]:
        """Hold those of parked partitions; the others, in order."""
        waiting: list[Envelope] = []
        others: list[Envelope] = []
        for envelope in envelopes:
            (waiting if self.is_parked(envelope.header.partition) else others).append(envelope)
        await self.hold(waiting)
        return others

    async def hold(self, envelopes: Iterable[Envelope]) -> None:
        """Write envelopes of parked partitions, as they are; durable when it returns. Repeating it is harmless."""
        waiting = list(envelopes)
        for start in range(0, len(waiting), HOLDS_AT_ONCE):
            await asyncio.gather(*map(self._hold, waiting[start : start + HOLDS_AT_ONCE]))
        if waiting:
            self._runtime.emit(EnvelopesHeld(shard=waiting[0].shard, count=len(waiting)))

    async def _hold(self, envelope: Envelope) -> None:
        key = parked_key(self._group, envelope.header.partition, envelope.shard, envelope.sequence)
        await self._runtime.objects.create(key, envelope.data)


class Parked(msgspec.Struct, frozen=True):
    """One partition that a consumer group does not take. Without `since` it was released, and not to the end."""

    tenant_id: str
    service: str
    group: str  # family
    bucket: int
    consumer: str
    envelopes: int
    since: str | None = None
    reason: str = ""

    @property
    def partition(self) -> Partition:
        return Partition(self.tenant_id, self.service, self.group, self.bucket)


class Released(msgspec.Struct, frozen=True):
    """What became of a release; `again`: the partition was parked again meanwhile, or more still waits."""

    parked: Parked
    envelopes: int
    again: bool


async def parked(runtime: Runtime, tenant_id: str, service: str | None = None) -> list[Parked]:
    """What is parked of a tenant, or of one of its services: by its marks, and by what waits without one.

    Errors: RetryableError.
    """
    counts: dict[tuple[str, Partition], int] = {}
    async for info in runtime.objects.list(f"{parked_root(tenant_id)}/"):
        place = parked_place(info.key)
        counts[place] = counts.get(place, 0) + 1
    marks: dict[tuple[str, Partition], Mapping[str, str]] = {}
    async for row in runtime.rows.scan(runtime.names.leases):
        scope, _, group = row["scope"].partition("/")
        if f"{scope}/" == parked_scope(""):
            marks[group, _partition(row["name"])] = row
    places = sorted({*counts, *(place for place in marks if place[1].tenant_id == tenant_id)})
    return [
        Parked(
            partition.tenant_id,
            partition.service,
            partition.group,
            partition.bucket,
            group,
            counts.get((group, partition), 0),
            marks.get((group, partition), {}).get("since"),
            marks.get((group, partition), {}).get("reason", ""),
        )
        for group, partition in places
        if service in {None, partition.service}
    ]


async def release(
    runtime: Runtime, waiting: Sequence[Parked], tell: Callable[[str], None] = lambda _: None
) -> list[Released]:
    """Let parked partitions go on, and send again what waited of them. Killed anywhere, it can be run again.

    What waited is marked as replayed, so that it is not archived again; what came after the mark was removed goes
    before it, which changes labels and never the lake (DESIGN 2).

    Errors: RetryableError.
    """
    publisher = runtime.publisher(runtime.names.raw_stream)
    for one in waiting:
        await runtime.rows.delete(runtime.names.leases, _mark_of(one))
    sent: dict[Parked, int] = dict.fromkeys(waiting, 0)
    left = list(waiting)
    for _ in range(ROUNDS_MAX):
        if left:
            tell(f"waiting {NOTICE_S:.0f} s until every worker has noticed")
            await runtime.clock.sleep(NOTICE_S)
        for one in left:
            if await runtime.rows.get(runtime.names.leases, _mark_of(one)) is None:
                tell(f"sending what waited of {one.partition.text}")
                sent[one] += await _send(runtime, publisher, one)
        left = [one for one in left if await _keys(runtime, one)]
    return [Released(one, count, again=one in left) for one, count in sent.items()]


async def _send(runtime: Runtime, publisher: Publisher, one: Parked) -> int:
    """Publish what waits of one partition, in order; an object goes when its envelope is acknowledged."""
    keys = await _keys(runtime, one)
    for start in range(0, len(keys), SENDS_AT_ONCE):
        some = keys[start : start + SENDS_AT_ONCE]
        found = await asyncio.gather(*(_envelope(runtime, key) for key in some))
        await publisher.publish([replayed(data) for data in found if data is not None])
        await runtime.objects.delete(some)
    return len(keys)


async def _envelope(runtime: Runtime, key: str) -> bytes | None:
    """What waits; None where another release has sent it meanwhile."""
    try:
        return await runtime.objects.get(key)
    except NotFoundError:
        return None


async def _keys(runtime: Runtime, one: Parked) -> list[str]:
    return [info.key async for info in runtime.objects.list(f"{parked_folder(one.consumer, one.partition)}/")]


def replayed(data: bytes) -> Sealed:
    """An envelope as it arrived, marked as replayed."""
    header, packed = split(data)
    again = msgspec.structs.replace(header, replay=True)
    return Sealed(again, join(again, packed))


def _mark_of(one: Parked) -> dict[str, str]:
    return {"scope": parked_scope(one.consumer), "name": one.partition.text}


def _partition(text: str) -> Partition:
    tenant_id, service, group, bucket = text.split("/")
    return Partition(tenant_id, service, group, int(bucket))
