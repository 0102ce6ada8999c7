"""`avesa run --once` against a vendor that somebody else runs: the lake equals the source, round after round."""

import re
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from services.cli.run import Choice
from services.runtime.settings import Settings
from tests.whole.plant import Plant, plant

pytestmark = pytest.mark.emulator


async def test_the_lake_equals_the_source_after_every_round(settings: Settings, tmp_path: Path) -> None:
    async with plant(settings, tmp_path) as made:
        await made.connect("acme-msp")
        await made.connect("acme_msp")  # the two never share a database
        first = await made.round()
        assert (first.exit_code, first.rejected) == (0, 0)
        assert await made.differences("acme-msp") == []
        assert await made.differences("acme_msp") == []

        before = await made.objects()
        idle = await made.round()
        assert (idle.exit_code, idle.published, idle.files, idle.rows_written) == (0, 0, 0, 0)
        assert await made.objects() == before

        for tenant_id in ("acme-msp", "acme_msp"):
            made.vendor.change(tenant_id, 150)
        third = await made.round()
        assert third.exit_code == 0
        assert third.deleted > 0
        assert await made.differences("acme-msp") == []
        assert await made.differences("acme_msp") == []
        assert before <= {key for key in await made.objects() if "/tables/" not in key} | before


async def test_one_row_altered_dropped_or_doubled_in_the_lake_fails_the_comparison(
    settings: Settings, tmp_path: Path
) -> None:
    async with plant(settings, tmp_path) as made:
        await made.connect("acme")
        await made.round(Choice(endpoint="companies"))
        right = rows_of(made)
        assert await counts(made) == (0, 0, 0)
        overwrite(made, right.slice(1))
        assert await counts(made) == (1, 0, 0)
        overwrite(made, pa.concat_tables([right, right.slice(0, 1)]))
        assert await counts(made) == (0, 1, 0)
        overwrite(made, pa.concat_tables([altered(right.slice(0, 1)), right.slice(1)]))
        assert await counts(made) == (0, 0, 1)
        overwrite(made, right)
        assert await counts(made) == (0, 0, 0)


def table_of(made: Plant) -> Any:
    table = made.warehouse.load("acme", "companies")
    assert table is not None
    return table


def rows_of(made: Plant) -> pa.Table:
    return table_of(made).scan().to_arrow()


def overwrite(made: Plant, rows: pa.Table) -> None:
    table_of(made).overwrite(rows)


def altered(rows: pa.Table) -> pa.Table:
    place = rows.schema.get_field_index("company_name")
    return rows.set_column(place, rows.schema.field(place), pa.array(["Somebody else"], rows.schema.field(place).type))


async def counts(made: Plant) -> tuple[int, int, int]:
    (found,) = [one for one in await made.verdicts("acme") if one.table == "companies"]
    return found.lost, found.doubled, found.wrong


async def test_one_tenants_wrong_credentials_concern_nobody_else(settings: Settings, tmp_path: Path) -> None:
    async with plant(settings, tmp_path) as made:
        await made.connect("good")
        await made.connect("bad", private_key="revoked")
        done = await made.round()
        assert done.exit_code == 3
        assert {one.code for one in done.endpoints if one.tenant_id == "bad"} == {"bad_credentials"}
        assert await made.differences("good") == []
        await made.connect("bad")
        assert (await made.round()).exit_code == 0
        assert await made.differences("bad") == []


async def test_an_endpoint_that_is_forbidden_is_listed_and_the_others_go_on(settings: Settings, tmp_path: Path) -> None:
    async with plant(settings, tmp_path) as made:
        await made.connect("acme")
        made.vendor.sites["acme"].forbidden = frozenset({"finance/invoices"})
        done = await made.round()
        assert done.exit_code == 3
        assert [one.endpoint for one in done.endpoints if one.code] == ["invoices"]
        made.vendor.sites["acme"].forbidden = frozenset()
        assert (await made.round()).exit_code == 0
        assert await made.differences("acme") == []


async def test_files_lie_where_the_design_says_and_other_readers_read_them(settings: Settings, tmp_path: Path) -> None:
    async with plant(settings, tmp_path) as made:
        await made.connect("acme")
        await made.round(Choice(endpoint="companies"))
        keys = sorted(await made.objects())
        count = len(made.vendor.current("acme", "company/companies"))
        for folder in ("acme/raw/connectwise/companies/", "acme/canonical/companies/"):
            (part,) = [key for key in keys if key.startswith(folder)]
            file = tmp_path / "part.parquet"
            file.write_bytes(await made.world.runtime.objects.get(part))
            assert re.fullmatch(rf"{folder}\d{{4}}-\d\d-\d\dT\d\d/[^/]+\.parquet", part)
            assert pq.read_table(file).num_rows == count
            assert duckdb.execute(f"SELECT count(*) FROM read_parquet('{file}')").fetchall() == [(count,)]
        assert table_of(made).location() == f"s3://{settings.names.bucket}/acme/tables/companies"
        assert len(table_of(made).scan(row_filter="is_current = true").to_arrow()) == count
