"""Version tables in Iceberg instead of memory, for the faults that need snapshots and files."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from services.compactor.iceberg import Warehouse
from services.compactor.layout import Limits
from services.compactor.local_table import local_warehouse, version_rows
from services.compactor.merging import MaintainedTables
from services.contracts.rows import reading_order
from services.contracts.schema import CanonicalTable
from services.contracts.times import utc_text
from tests.simulation.world import World

LIMITS: Final = Limits(fan_in=4, snapshots=1, snapshots_kept=1, snapshot_age_s=0.0)
Row = dict[str, Any]


class RealTable:
    def __init__(self, warehouse: Warehouse, tenant_id: str, table: CanonicalTable) -> None:
        self._warehouse, self._tenant_id, self.table = warehouse, tenant_id, table

    @property
    def rows(self) -> list[Row]:
        return sorted(version_rows(self._warehouse, self._tenant_id, self.table), key=reading_order)


class RealTables:
    """The tables of all tenants: `world.Tables`."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        self._held: dict[tuple[str, str], RealTable] = {}

    @property
    def held(self) -> Mapping[tuple[str, str], RealTable]:
        return self._held

    def __call__(self, tenant_id: str, table: CanonicalTable) -> MaintainedTables:
        held = self._held.setdefault((tenant_id, table.table), RealTable(self._warehouse, tenant_id, table))
        if len(table.columns) > len(held.table.columns):  # columns are only added: the widest reads all there is
            held.table = table
        return self._warehouse.history(tenant_id, table)

    def keep_house(self, tenant_id: str, name: str) -> int:
        """By the true clock, which is the one that snapshots are stamped with; how many files went."""
        history = self._warehouse.history(tenant_id, self._held[tenant_id, name].table)
        return history.maintain(utc_text(datetime.now(UTC)))

    def reader(self, tenant_id: str, name: str) -> Callable[[], list[Row]]:
        """Reads the snapshot that is the newest now, whenever it is asked."""
        held = self._warehouse.load(tenant_id, name)

        def read() -> list[Row]:
            if held is None:
                return []
            found = held.scan().to_arrow().select(["record_id", "valid_from", "record_hash"]).to_pylist()
            return sorted(found, key=lambda row: (row["record_id"], row["valid_from"]))

        return read


def with_real_tables(world: World) -> None:
    """From its start, a world has these tables, and merges often."""
    rules = msgspec.structs.replace(world.scale.rules, cut_age_max_s=8.0, cut_idle_s=4.0)
    world.scale = msgspec.structs.replace(world.scale, rules=rules)
    world.histories = RealTables(world.resources.enter_context(local_warehouse(LIMITS)))
