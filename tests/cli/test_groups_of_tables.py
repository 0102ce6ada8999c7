"""`avesa transformer --group ... --tables ...`: what is told before anything starts."""

from pathlib import Path

import pytest

from tests.cli.conftest import Avesa


@pytest.mark.parametrize(
    ("options", "what", "remedy"),
    [
        (["--tables", "tickets"], "--tables needs a --group", "--group tickets"),
        (["--group", "x", "--tables", "ticket"], "there is no canonical table 'ticket'", "Did you mean 'tickets'?"),
        (["--except-tables", "tikets"], "there is no canonical table 'tikets'", "Did you mean 'tickets'?"),
        (["--group", "My Group"], "no name of a group", "small letters"),
    ],
)
def test_a_binding_that_cannot_be_is_refused(avesa: Avesa, options: list[str], what: str, remedy: str) -> None:
    told = avesa("transformer", *options)
    assert told.code == 2
    assert what in told.err
    assert remedy in told.err


def test_a_broken_table_stops_a_fleet_that_is_bound_to_it(avesa: Avesa, tmp_path: Path) -> None:
    (tmp_path / "canonical").mkdir()
    (tmp_path / "canonical" / "tickets.json").write_text('{"table": "tickets", "columns": {"id": {"type": "text"}}}')
    for options in ([], ["--group", "x", "--tables", "tickets"]):
        told = avesa("transformer", *options, "--mappings", str(tmp_path))
        assert told.code == 2
        assert "tickets.json at $.columns.id.type" in told.err
    told = avesa("transformer", "--group", "x", "--tables", "time_entries", "--mappings", str(tmp_path))
    assert told.err.startswith("error: no AWS is configured")  # the files are good enough for it
