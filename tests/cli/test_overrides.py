"""`avesa services set`: how often, and whether at all."""

from typing import Any

import pytest

from services.runtime.settings import Settings
from tests.cli.conftest import Avesa, Vendor, looked
from tests.cli.test_tenants import SETUP, rows

SET = ("services", "set", "--tenant-id", "acme-msp", "--service", "connectwise")


@pytest.fixture
def connected(avesa: Avesa, aws: Settings, vendor: Vendor) -> Settings:
    assert avesa(*SETUP).code == 0
    return aws


def row(settings: Settings) -> dict[str, Any]:
    (only,) = looked(rows(settings))
    return only


def test_an_endpoint_gets_an_interval_of_its_own_and_gives_it_back(avesa: Avesa, connected: Settings) -> None:
    before = row(connected)["updated_at"]
    told = avesa(*SET, "--endpoint", "tickets", "--interval", "30")
    assert (told.code, told.out) == (0, "tickets of connectwise of acme-msp is read every 30 s\n")
    assert row(connected)["endpoints"] == {"tickets": {"interval_s": 30}}
    assert row(connected)["updated_at"] > before
    avesa(*SET, "--endpoint", "companies", "--interval", "7.5", "--off")
    assert row(connected)["endpoints"]["companies"] == {"interval_s": "7.5", "enabled": False}
    for endpoint in ("tickets", "companies"):
        told = avesa(*SET, "--endpoint", endpoint, "--interval", "default", "--on", "--json")
        assert told.records[0]["interval_s"] is None
    assert "endpoints" not in row(connected)


def test_what_is_switched_off_is_shown_so_and_not_read(avesa: Avesa, connected: Settings, vendor: Vendor) -> None:
    told = avesa(*SET, "--endpoint", "Time Entries", "--off")
    assert told.out == "time_entries of connectwise of acme-msp is not read any more; what was read stays\n"
    told = avesa("status", "--tenant-id", "acme-msp", "--json")
    states = {one["endpoint"]: one["state"] for one in told.records if one["kind"] == "endpoint"}
    assert (states["time_entries"], states["tickets"]) == ("off", "not read yet")
    told = avesa("run", "--once", "--endpoint", "time_entries")
    assert told.code == 2
    assert "no connected service has an endpoint 'time_entries'" in told.err


def test_what_others_hang_from_is_read_until_they_are_switched_off_too(avesa: Avesa, connected: Settings) -> None:
    told = avesa(*SET, "--endpoint", "boards", "--off")
    assert "boards of connectwise of acme-msp is still read: board_statuses and board_types hang from it" in told.out
    told = avesa("status", "--tenant-id", "acme-msp", "--json")
    assert [one["state"] for one in told.records if one.get("endpoint") == "boards"] == ["not read yet"]
    assert "is still read: board_types hangs" not in avesa(*SET, "--endpoint", "board_statuses", "--off").out
    avesa(*SET, "--endpoint", "board_types", "--off")
    told = avesa("status", "--tenant-id", "acme-msp", "--json")
    assert [one["state"] for one in told.records if one.get("endpoint") == "boards"] == ["off"]


def test_a_whole_service_is_set_and_switched(avesa: Avesa, connected: Settings) -> None:
    assert avesa(*SET, "--interval", "120").out == "connectwise of acme-msp is read every 2 min\n"
    assert row(connected)["interval_s"] == 120
    assert avesa(*SET, "--off").code == 0
    assert (row(connected)["enabled"], row(connected)["interval_s"]) == (False, 120)
    told = avesa(*SET, "--on", "--interval", "default")
    assert told.out == "connectwise of acme-msp is read as often as its mapping file says\n"
    assert (row(connected)["enabled"], "interval_s" in row(connected)) == (True, False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "nothing is asked for"),
        (("--interval", "0"), "Seconds, 1 to 2592000, or 'default'."),
        (("--interval", "often"), "'often' is no interval"),
        (("--interval", "nan"), "'nan' is no interval"),
        (("--endpoint", "ticket", "--off"), "Did you mean 'tickets'?"),
    ],
)
def test_what_cannot_be_meant_says_what_can(
    avesa: Avesa, connected: Settings, arguments: tuple[str, ...], said: str
) -> None:
    told = avesa(*SET, *arguments)
    assert told.code == 2
    assert said in told.err
    assert "endpoints" not in row(connected)


def test_a_service_that_is_not_connected_names_those_that_are(avesa: Avesa, connected: Settings) -> None:
    told = avesa("services", "set", "--tenant-id", "acme-msp", "--service", "conectwise", "--off")
    assert told.code == 2
    assert "connectwise" in told.err


def test_a_fleet_bound_to_a_service_that_is_none_does_not_start(avesa: Avesa, aws: Settings) -> None:
    told = avesa("extractor", "--services", "connectwise,salesforc")
    assert told.code == 2
    assert "there is no service 'salesforc'" in told.err
    assert "where: --services\n" in told.err
    told = avesa("extractor", "--services", "conectwise:berlin")
    assert (told.code, "Did you mean 'connectwise'?" in told.err) == (2, True)
