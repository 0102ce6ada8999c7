"""The whole pipeline in one process: a sandbox over real HTTP, the embedded AWS, and rounds of `avesa run --once`."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

import msgspec

from services.cli.connections import connect
from services.cli.run import Choice, Outcome, run_round
from services.cli.screen import Screen
from services.cli.world import World, open_runtime
from services.compactor.iceberg import Warehouse
from services.compactor.lake import Lake
from services.contracts.mapping_files import MappingFiles
from services.extractor.tenants import TenantService
from services.runtime import provision
from services.runtime.mapping_files import load_mappings
from services.runtime.settings import Settings
from services.sandbox.comparison import Verdict
from services.sandbox.demo import payloads
from services.sandbox.proof import Tenant, prove
from services.sandbox.sites import Keys
from services.sandbox.vendor import Running, start
from services.sandbox.world import World as Vendor

SERVICE: Final = "connectwise"
COUNTS: Final = {"service/tickets": 120, "time/entries": 120}


class Plant:
    """One environment. `vendor` may be changed between rounds."""

    def __init__(self, world: World, vendor: Vendor, running: Running, mappings: MappingFiles) -> None:
        self.world, self.vendor, self.running, self.mappings = world, vendor, running, mappings
        self.warehouse = Warehouse.on_glue(world.settings)
        self.lake = Lake(self.warehouse, world.runtime.objects, world.runtime.threads, mappings)

    async def connect(self, tenant_id: str, private_key: str | None = None) -> None:
        """A tenant whose site in the sandbox has the tenant's name."""
        runtime = self.world.runtime
        if tenant_id not in self.vendor.sites:
            self.vendor.add_site(tenant_id, Keys(tenant_id, "public", "private", "client"))
            self.vendor.populate(tenant_id, COUNTS, minimum=5)
        keys = self.vendor.sites[tenant_id].keys
        secret, now = runtime.names.secret(tenant_id, SERVICE), runtime.clock.now()
        row = TenantService(tenant_id, SERVICE, tenant_id, secret=secret, created_at=now, updated_at=now)
        credentials = {
            "api_url": self.running.url,
            "company_id": keys.company_id,
            "public_key": keys.public_key,
            "private_key": private_key or keys.private_key,
            "client_id": keys.client_id,
        }
        await connect(runtime, row, credentials)

    async def round(self, choice: Choice | None = None) -> Outcome:
        return await run_round(self.world, self.mappings, choice or Choice(), Screen(io.StringIO(), io.StringIO()))

    async def verdicts(self, tenant_id: str) -> list[Verdict]:
        endpoints = self.mappings.integrations[SERVICE].endpoints
        return prove(
            self.vendor,
            Tenant(tenant_id, tenant_id, SERVICE),
            self.mappings,
            {table: await self.lake.versions(tenant_id, table) for table in self.mappings.tables},
            {name: payloads(await self.lake.raw_latest(tenant_id, SERVICE, name)) for name in endpoints},
        )

    async def differences(self, tenant_id: str) -> list[str]:
        """What is lost, doubled or wrong, in words; empty when the lake equals the source."""
        return [f"{one.table}: {what}" for one in await self.verdicts(tenant_id) for what in one.examples]

    async def objects(self) -> set[str]:
        return {info.key async for info in self.world.runtime.objects.list("")}


@asynccontextmanager
async def plant(settings: Settings, folder: Path, seed: int = 1) -> AsyncIterator[Plant]:
    settings = msgspec.structs.replace(settings, state_dir=folder / "state", lease_s=6.0)
    vendor = Vendor(lambda: datetime.now(UTC), Random(seed))
    running = await start(vendor)
    try:
        await provision.ensure(settings)
        async with open_runtime(settings) as runtime:
            yield Plant(World(settings, runtime), vendor, running, _unhurried(load_mappings()))
    finally:
        await running.close()


def _unhurried(mappings: MappingFiles) -> MappingFiles:
    """The shipped files with a vendor that allows whatever is asked: how we hold its limits is tested elsewhere."""
    shipped = mappings.integrations[SERVICE]
    limits = msgspec.structs.replace(shipped.limits, requests=100_000, share=1.0)
    made = msgspec.structs.replace(shipped, limits=limits)
    return MappingFiles(mappings.integrations | {SERVICE: made}, mappings.tables)
