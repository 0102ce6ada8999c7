"""The whole on the embedded AWS: what is published is drained into Parquet and Iceberg, and found again with SQL."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import pytest

from services.compactor.iceberg import Warehouse
from services.compactor.lake import Lake
from services.compactor.service import Compactor
from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.log import Event
from services.contracts.mapping_files import MappingFiles
from services.contracts.partitions import Partition
from services.contracts.rows import folded_rows
from services.runtime.aws import connect
from services.runtime.chance import SystemChance
from services.runtime.clock import SystemClock
from services.runtime.envelopes import seal
from services.runtime.leases import Leases
from services.runtime.provision import ensure
from services.runtime.runtime import Runtime
from services.runtime.settings import Settings
from services.runtime.threads import WorkerThreads
from tests.compactor.observed import TABLES, TENANT, read, seen
from tests.fakes import MemoryStates

pytestmark = pytest.mark.emulator


@asynccontextmanager
async def runtime(settings: Settings, said: list[Event]) -> AsyncIterator[Runtime]:
    clock, chance = SystemClock(), SystemChance()
    async with connect(settings) as aws:
        leases = Leases(aws.rows, settings.names.leases, clock, chance, said.append, 1.0)
        renewing = asyncio.create_task(leases.renew_forever())
        with WorkerThreads(4) as threads:
            yield Runtime(
                settings.names, aws.streams, aws.objects, aws.rows, aws.secrets, MemoryStates(), clock, chance, threads,
                leases, said.append,
            )  # fmt: skip
        renewing.cancel()


async def publish(world: Runtime, events: Sequence[CanonicalEvent] | Sequence[ChangeEvent]) -> None:
    canonical = isinstance(events[0], CanonicalEvent)
    stream = world.names.canonical_stream if canonical else world.names.raw_stream
    lines = [msgspec.json.encode(event) for event in events]
    await world.publisher(stream).publish(seal(Partition(TENANT, "connectwise", "tickets"), "tickets", lines))


async def test_what_is_published_is_in_the_lake_after_a_drain(settings: Settings) -> None:
    await ensure(settings)
    said: list[Event] = []
    events = [
        seen({"summary": "A"}, 1),
        seen({"summary": "B", "hours": "1.5"}, 2),
        seen({"summary": "X"}, 1, record_id="2"),
    ]
    late = [seen({"summary": "late"}, 1.5), seen(None, 3, record_id="2")]
    async with runtime(settings, said) as world:
        warehouse = await world.threads.run(Warehouse.on_glue, settings)
        lake = Lake(warehouse, world.objects, world.threads, MappingFiles({}, TABLES))
        for batch in (events, late):
            await publish(world, batch)
            await publish(world, [read("1", 1, '{"id":1,"status":{"name":"New"}}')])
            await Compactor(world, TABLES, warehouse.history).drain()
        assert await lake.versions(TENANT, "tickets") == folded_rows([*events, *late], TABLES)
        joined = await lake.query(
            "SELECT r.payload->>'$.status.name', count(*) FROM raw.connectwise.tickets r "
            "JOIN tickets USING (tenant_id, record_id) GROUP BY 1"
        )
        assert joined.rows == [("New", 3)]
        assert [info.key async for info in world.objects.list("_avesa/spool/")] == []
