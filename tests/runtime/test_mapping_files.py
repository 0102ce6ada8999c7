"""Loading the mapping files of some tables: what is wrong with the others' is no concern of whoever asks."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from services.contracts.errors import UsageError
from services.contracts.integration import Endpoint
from services.runtime.mapping_files import SHIPPED, load_mappings, table_names

Edit = Callable[[dict[str, Any]], None]


def without_tickets(table: str) -> bool:
    return table != "tickets"


def only_entries(table: str) -> bool:
    return table == "time_entries"


def connectwise(folder: Path, edit: Edit) -> Path:
    """A folder whose ConnectWise file is ours, edited."""
    content = msgspec.json.decode((SHIPPED / "integrations" / "connectwise.json").read_bytes())
    edit(content["endpoints"]["tickets"])
    (folder / "integrations").mkdir()
    (folder / "integrations" / "connectwise.json").write_bytes(msgspec.json.encode(content))
    return folder


def no_column(endpoint: dict[str, Any]) -> None:
    endpoint["canonical"]["fields"]["no_column"] = "id"


def no_field(endpoint: dict[str, Any]) -> None:
    endpoint["canonical"]["fields"]["summary"] = 7


def no_pagination(endpoint: dict[str, Any]) -> None:
    endpoint["pagination"] = {"type": "guess"}


@pytest.mark.parametrize(
    ("content", "at"),
    [
        ("{", "tickets.json at line 1"),
        ('{"table": "tickets", "columns": {"id": {"type": "text"}}}', "tickets.json at $.columns.id.type"),
        ('{"table": "teckits", "columns": {}}', "tickets.json"),
    ],
)
def test_a_broken_table_file_is_met_only_by_whoever_routes_that_table(tmp_path: Path, content: str, at: str) -> None:
    (tmp_path / "canonical").mkdir()
    (tmp_path / "canonical" / "tickets.json").write_text(content)
    for routes_table in (without_tickets, only_entries):
        assert "tickets" not in load_mappings(tmp_path, routes_table).tables
    with pytest.raises(UsageError, match=re.escape(at)):
        load_mappings(tmp_path)


@pytest.mark.parametrize(
    ("edit", "at"),
    [
        (no_column, "$.endpoints.tickets.canonical.fields.no_column"),
        (no_field, "$.endpoints.tickets.canonical.fields.summary"),
        (no_pagination, "$.endpoints.tickets.pagination.type"),
    ],
)
def test_an_endpoint_that_is_broken_is_met_only_by_whoever_routes_its_table(
    tmp_path: Path, edit: Edit, at: str
) -> None:
    folder = connectwise(tmp_path, edit)
    load_mappings(folder, without_tickets)
    load_mappings(folder, only_entries)
    with pytest.raises(UsageError, match=re.escape(at)):
        load_mappings(folder)


def test_an_endpoint_that_feeds_nobody_knows_what_is_met_by_everybody(tmp_path: Path) -> None:
    folder = connectwise(tmp_path, lambda endpoint: endpoint["canonical"].pop("table"))
    with pytest.raises(UsageError, match=re.escape("$.endpoints.tickets.canonical")):
        load_mappings(folder, only_entries)


def test_of_other_tables_it_is_known_that_and_by_which_endpoints_they_are_fed() -> None:
    whole, part = load_mappings(), load_mappings(routes_table=only_entries)

    def fed(endpoints: dict[str, Endpoint]) -> dict[str, str | None]:
        return {name: endpoint.canonical.table if endpoint.canonical else None for name, endpoint in endpoints.items()}

    for service, integration in whole.integrations.items():
        mine = part.integrations[service].endpoints
        assert fed(mine) == fed(integration.endpoints)
        routed = [name for name, table in fed(mine).items() if table in (None, "time_entries")]
        assert {name: mine[name] for name in routed} == {name: integration.endpoints[name] for name in routed}
    assert set(part.tables) == {"time_entries"}
    assert part.tables["time_entries"] == whole.tables["time_entries"]


def test_a_table_has_its_name_whatever_its_file_holds(tmp_path: Path) -> None:
    (tmp_path / "canonical").mkdir()
    (tmp_path / "canonical" / "assets.json").write_text("{")
    assert table_names(tmp_path) == sorted([*table_names(), "assets"])
