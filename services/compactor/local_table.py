"""A lake in a folder: the real Glue catalog code over a dictionary, and Iceberg tables in files.

For `avesa preview --through table`, and for tests that want the real tables without an emulator.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from threading import Lock
from types import SimpleNamespace
from typing import Any, Final

from pyiceberg.catalog.glue import GlueCatalog

from services.compactor.history import HistoryTables, Watermark
from services.compactor.iceberg import Warehouse
from services.compactor.layout import Limits
from services.compactor.merge import merge
from services.compactor.parquet import canonical_file, observations, read, rows_from_arrow, version_kinds
from services.contracts.events import CanonicalEvent
from services.contracts.names import Names
from services.contracts.rows import reading_order
from services.contracts.schema import CanonicalTable

Histories = Callable[[str, CanonicalTable], HistoryTables]
Answer = dict[str, Any]


class TakenError(Exception):
    """The name is taken."""


class NothingThereError(Exception):
    """Nothing has that name."""


class ChangedError(Exception):
    """The table is not the version that was read."""


class LocalGlue:
    """As much of Glue as pyiceberg's catalog asks for, with Glue's own check that a table is the version it read."""

    exceptions: Final = SimpleNamespace(
        AlreadyExistsException=TakenError,
        EntityNotFoundException=NothingThereError,
        ConcurrentModificationException=ChangedError,
    )

    def __init__(self) -> None:
        self._databases: dict[str, Answer] = {}
        self._tables: dict[tuple[str, str], Answer] = {}
        self._lock = Lock()

    def create_database(self, **request: Any) -> None:
        made = request["DatabaseInput"]
        if self._databases.setdefault(made["Name"], made) is not made:
            raise TakenError

    def get_database(self, **request: Any) -> Answer:
        if request["Name"] not in self._databases:
            raise NothingThereError
        return {"Database": self._databases[request["Name"]]}

    def get_databases(self) -> Answer:
        return {"DatabaseList": list(self._databases.values())}

    def create_table(self, **request: Any) -> None:
        database, made = request["DatabaseName"], dict(request["TableInput"])
        self.get_database(Name=database)
        made |= {"DatabaseName": database, "VersionId": "1"}
        if self._tables.setdefault((database, made["Name"]), made) is not made:
            raise TakenError

    def get_table(self, **request: Any) -> Answer:
        at = (request["DatabaseName"], request["Name"])
        if at not in self._tables:
            raise NothingThereError
        return {"Table": deepcopy(self._tables[at])}  # pyiceberg writes into what it gets

    def get_tables(self, **request: Any) -> Answer:
        return {
            "TableList": [table for (database, _), table in self._tables.items() if database == request["DatabaseName"]]
        }

    def update_table(self, **request: Any) -> None:
        at = (request["DatabaseName"], request["TableInput"]["Name"])
        with self._lock:
            version = self.get_table(DatabaseName=at[0], Name=at[1])["Table"]["VersionId"]
            if version != request["VersionId"]:
                raise ChangedError
            self._tables[at] = {**request["TableInput"], "DatabaseName": at[0], "VersionId": str(int(version) + 1)}


@contextmanager
def local_warehouse(limits: Limits | None = None, glue: LocalGlue | None = None) -> Iterator[Warehouse]:
    """A warehouse in a temporary folder, gone when the block ends."""
    with tempfile.TemporaryDirectory(prefix="avesa-lake-") as folder:
        catalog = GlueCatalog("local", client=glue or LocalGlue())
        yield Warehouse(catalog, Names("local"), root=Path(folder).as_uri(), limits=limits)


def merge_files(
    batches: Sequence[Sequence[CanonicalEvent]], tables: Mapping[str, CanonicalTable]
) -> list[dict[str, Any]]:
    """Each batch through a Parquet file and a merge, one after the other, as the compactor would do it.

    Shape:  every version row of every table, as JSON values, in reading order.
    Errors: those of `parquet.UNFIT` for a value its column cannot hold; KeyError for a table that is not in `tables`.
    """
    with local_warehouse() as warehouse:
        touched: set[tuple[str, str]] = set()
        for number, batch in enumerate(batches, start=1):
            found = sorted({(event.tenant_id, event.table) for event in batch})
            touched.update(found)
            for tenant_id, name in found:
                own = [event for event in batch if (event.tenant_id, event.table) == (tenant_id, name)]
                merge_events(warehouse.history, tenant_id, tables[name], own, number)
        rows = [row for tenant_id, name in sorted(touched) for row in version_rows(warehouse, tenant_id, tables[name])]
    return sorted(rows, key=reading_order)


def merge_events(
    histories: Histories, tenant_id: str, table: CanonicalTable, events: Sequence[CanonicalEvent], number: int
) -> None:
    """One batch of one table through a file and a merge."""
    batch = observations(read(canonical_file(events, table, {})), table)
    merge(histories(tenant_id, table), tenant_id, table, batch, Watermark("local", {"local/0": number}))


def version_rows(warehouse: Warehouse, tenant_id: str, table: CanonicalTable) -> list[dict[str, Any]]:
    """The version table's rows as JSON values."""
    held = warehouse.load(tenant_id, table.table)
    return [] if held is None else rows_from_arrow(held.scan().to_arrow(), version_kinds(table))
