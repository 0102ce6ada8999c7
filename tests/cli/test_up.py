"""`avesa up` as a person runs it: real processes, Ctrl-C, and the same again with two of each."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen, run
from typing import Any

import msgspec
import pytest

from services.runtime.processes import SERVICES
from services.runtime.settings import child_environment
from tests.cli.conftest import KEYS, Vendor

pytestmark = pytest.mark.emulator

TRIES_MAX = 120  # of a command that takes about a second each: two minutes, as the issue allows
END_S = 60.0


class Here:
    """A folder in which somebody works with `avesa`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = child_environment(
            PYTHONPATH=os.pathsep.join(sys.path), HOME=str(folder), AVESA_CUT_AGE_MAX_S="2"
        )

    def avesa(self, *arguments: str, **extra: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "services.cli.main", *arguments]
        environment = self.environment | extra
        done = run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout

    def up(self, *options: str) -> "Popen[str]":
        command = [sys.executable, "-m", "services.cli.main", "up", "--interval-s", "1", *options]
        started = Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=PIPE,
            stderr=STDOUT,
            text=True,
            start_new_session=True,
        )
        assert started.stdout is not None
        for line in started.stdout:
            if "are running" in line:
                return started
        raise AssertionError("avesa up ended")

    def rows(self, sql: str) -> list[Any]:
        code, out = self.avesa("query", sql, "--json")
        return [msgspec.json.decode(line) for line in out.splitlines()] if code == 0 else []

    def rows_when(self, sql: str, expected: list[Any]) -> list[Any]:
        """The rows once they are as expected, or as they are after TRIES_MAX looks."""
        rows: list[Any] = []
        for _ in range(TRIES_MAX):
            rows = self.rows(sql)
            if rows == expected:
                break
        return rows


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path)
    yield made
    run(["pkill", "-KILL", "-f", str(tmp_path)], check=False)


def test_a_change_at_the_vendor_reaches_the_lake_and_survives_ctrl_c_and_a_restart(here: Here, vendor: Vendor) -> None:
    site = vendor.site
    living = len(site.tables["company/companies"].entries)
    count = "SELECT count(*) AS n FROM companies WHERE is_current"
    up = here.up()
    try:
        code, _ = here.avesa(
            *("setup-service", "--tenant-id", "acme", "--company-name", "Acme", "--service", "connectwise"),
            CONNECTWISE_API_URL=vendor.url,
            CONNECTWISE_COMPANY_ID=KEYS.company_id,
            CONNECTWISE_PUBLIC_KEY=KEYS.public_key,
            CONNECTWISE_PRIVATE_KEY=KEYS.private_key,
            CONNECTWISE_CLIENT_ID=KEYS.client_id,
        )
        assert code == 0
        assert here.rows_when(count, [{"n": living}]) == [{"n": living}]

        chosen = min(site.tables["company/companies"].entries)
        vendor.world.update("acme", "company/companies", chosen, {"name": "Renamed GmbH"})
        name = f"SELECT company_name FROM companies WHERE is_current AND record_id = '{chosen}'"
        assert here.rows_when(name, [{"company_name": "Renamed GmbH"}]) == [{"company_name": "Renamed GmbH"}]
    finally:
        up.send_signal(signal.SIGINT)
        said, _ = up.communicate(timeout=END_S)
    assert up.returncode == 0
    assert said.rstrip().endswith("stopped")

    again = here.up("--workers", "2")
    try:
        assert here.rows(name) == [{"company_name": "Renamed GmbH"}]
        vendor.world.update("acme", "company/companies", chosen, {"name": "Renamed AG"})
        assert here.rows_when(name, [{"company_name": "Renamed AG"}]) == [{"company_name": "Renamed AG"}]
    finally:
        again.send_signal(signal.SIGINT)
        said, _ = again.communicate(timeout=END_S)
    assert again.returncode == 0
    assert "killed" not in said
    logs = {log.stem for log in (here.folder / ".avesa/logs").glob("*.log")}
    fleet = {f"{service}-{number}" for service in SERVICES for number in (1, 2)}
    assert logs == {*SERVICES, *fleet}
