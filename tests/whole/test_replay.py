"""`avesa replay --rebuild` on an environment that ran for a while: the lake equals the source under the new mapping."""

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.cli.rebuilding import Rebuilder
from services.cli.replay import Choice as Replay
from services.cli.replay import replayed
from services.cli.run import Choice
from services.cli.screen import Screen
from services.compactor.lake import Lake
from services.contracts.mapping_files import MappingFiles
from services.runtime.settings import Settings
from tests.whole.plant import Plant, plant

pytestmark = pytest.mark.emulator

COMPANIES = Choice(endpoint="companies")


TRACKED, RETYPED, GONE = "last_updated", "number_of_employees", "fax_number"


def changed(mappings: MappingFiles) -> MappingFiles:
    """The files with one column tracked, one of another type, and one gone."""
    table, integration = mappings.tables["companies"], mappings.integrations["connectwise"]
    columns = {
        **table.columns,
        TRACKED: msgspec.structs.replace(table.columns[TRACKED], tracked=True),
        RETYPED: msgspec.structs.replace(table.columns[RETYPED], type="decimal"),
    }
    endpoint = integration.endpoints["companies"]
    assert endpoint.canonical is not None
    fields = {name: field for name, field in endpoint.canonical.fields.items() if name != GONE}
    mapping = msgspec.structs.replace(endpoint.canonical, fields=fields)
    endpoints = {**integration.endpoints, "companies": msgspec.structs.replace(endpoint, canonical=mapping)}
    del columns[GONE]
    return MappingFiles(
        {**mappings.integrations, "connectwise": msgspec.structs.replace(integration, endpoints=endpoints)},
        {**mappings.tables, "companies": msgspec.structs.replace(table, columns=columns)},
    )


def use(made: Plant, mappings: MappingFiles) -> None:
    """From now on these are the files."""
    runtime, made.mappings = made.world.runtime, mappings
    made.lake = Lake(made.warehouse, runtime.objects, runtime.threads, mappings)


async def replay(made: Plant, *, dry_run: bool = False) -> tuple[int, list[Any]]:
    screen = Screen(io.StringIO(), io.StringIO())
    screen.as_json = True
    rebuilder = Rebuilder(made.world.runtime, made.warehouse, made.mappings, "companies", None, screen)
    code = await replayed(screen, rebuilder, Replay("companies", dry_run=dry_run))
    assert isinstance(screen.out, io.StringIO)
    return code, [msgspec.json.decode(line) for line in screen.out.getvalue().splitlines()]


async def differences(made: Plant) -> list[str]:
    return [
        f"{one.tenant_id} {one.table}: {what}"
        for tenant_id in ("acme", "other")
        for one in await made.verdicts(tenant_id)
        if one.table == "companies"
        for what in one.examples
    ]


async def test_a_mapping_that_waited_is_in_force_after_the_rebuild_and_live_goes_on_with_it(
    settings: Settings, tmp_path: Path
) -> None:
    async with plant(settings, tmp_path) as made:
        for tenant_id in ("acme", "other"):
            await made.connect(tenant_id)
        await made.round(COMPANIES)
        assert await differences(made) == []

        shipped, wanted = made.mappings, changed(made.mappings)
        use(made, wanted)
        for tenant_id in ("acme", "other"):
            made.vendor.change(tenant_id, 60)
        assert (await made.round(COMPANIES)).exit_code == 0
        use(made, shipped)
        assert await differences(made) == []  # the former mapping holds

        use(made, wanted)
        before = await made.objects()
        code, planned = await replay(made, dry_run=True)
        assert (code, [(one["tenant_id"], one["mapping"], one["becomes"]) for one in planned]) == (
            (0, [("acme", 1, 2), ("other", 1, 2)])
        )
        assert f"column {GONE} is gone" in planned[0]["waits"]
        assert f"column {TRACKED} became tracked" in planned[0]["waits"]
        assert f"column {RETYPED} was int64 and is decimal" in planned[0]["waits"]
        assert await made.objects() == before

        code, done = await replay(made)
        assert (code, [one["mappings"] for one in done]) == (0, [{"connectwise": 2}] * 2)
        assert [one["events"] for one in done] == [one["raw_events"] for one in planned]
        assert await differences(made) == []
        assert GONE not in await made.lake.columns("acme", "companies")

        made.vendor.change("acme", 60)
        assert (await made.round(COMPANIES)).exit_code == 0
        assert await differences(made) == []
