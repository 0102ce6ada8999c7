"""Connecting services: proved before stored, replaced when run again, and no secret on any screen."""

from typing import Any

import msgspec
import pytest

from services.contracts.errors import NotFoundError
from services.runtime.aws import connect
from services.runtime.mapping_files import load_mappings
from services.runtime.settings import Settings
from tests.cli.conftest import KEYS, NEW_KEYS, Avesa, Told, Vendor, given, looked

SETUP = ("setup-service", "--tenant-id", "acme-msp", "--company-name", "Acme MSP", "--service", "connectwise")
ONE = ("--tenant-id", "acme-msp", "--service", "connectwise")


async def secret(settings: Settings, service: str = "connectwise") -> dict[str, str] | None:
    async with connect(settings) as aws:
        try:
            return await aws.secrets.get(settings.names.secret("acme-msp", service))
        except NotFoundError:
            return None


async def rows(settings: Settings) -> list[dict[str, Any]]:
    async with connect(settings) as aws:
        try:
            return [row async for row in aws.rows.scan(settings.names.tenant_services)]
        except NotFoundError:
            return []


async def write(settings: Settings, service: str, values: dict[str, Any]) -> None:
    async with connect(settings) as aws:
        key = {"tenant_id": "acme-msp", "service": service}
        await aws.rows.write(settings.names.tenant_services, key, values)


async def forget(settings: Settings) -> None:
    async with connect(settings) as aws:
        await aws.secrets.delete(settings.names.secret("acme-msp", "connectwise"))


def nothing_stored(settings: Settings) -> bool:
    return looked(rows(settings)) == [] and looked(secret(settings)) is None


# -- setup-service ----------------------------------------------------------------------------------------------------
def test_right_credentials_are_stored_and_the_tenant_is_created(avesa: Avesa, aws: Settings, vendor: Vendor) -> None:
    told = avesa(*SETUP)
    assert told.code == 0, told.err
    assert looked(secret(aws)) == given(vendor.url)
    (row,) = looked(rows(aws))
    created_at = row.pop("created_at")
    assert {row.pop("updated_at"), row.pop("status_at")} == {created_at}
    assert row == {
        "tenant_id": "acme-msp",
        "service": "connectwise",
        "company_name": "Acme MSP",
        "enabled": True,
        "secret": aws.names.secret("acme-msp", "connectwise"),
        "status": "ok",
        "tier": "standard",
    }


def test_the_next_steps_are_named_ready_to_be_copied(avesa: Avesa, aws: Settings, vendor: Vendor) -> None:
    steps = [line.split() for line in avesa(*SETUP).out.splitlines() if line.startswith("  avesa ")]
    assert ["avesa", "check", *ONE] in steps
    assert [step[1] for step in steps] == ["check", "run", "status"]


def test_a_machine_is_told_what_was_done(avesa: Avesa, aws: Settings, vendor: Vendor) -> None:
    (record,) = avesa(*SETUP, "--json").records
    assert record == {
        "tenant_id": "acme-msp",
        "service": "connectwise",
        "company_name": "Acme MSP",
        "secret": aws.names.secret("acme-msp", "connectwise"),
        "new_tenant": True,
        "replaced": False,
        "enabled": True,
        "dry_run": False,
    }


def test_wrong_credentials_store_nothing(
    avesa: Avesa, aws: Settings, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONNECTWISE_PRIVATE_KEY", NEW_KEYS.private_key)
    told = avesa(*SETUP)
    assert told.code == 1
    assert told.err.splitlines()[-1] == "  now: Nothing was stored."
    assert nothing_stored(aws)


def test_an_address_where_no_vendor_answers_stores_nothing(
    avesa: Avesa, aws: Settings, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONNECTWISE_API_URL", "http://127.0.0.1:9")
    told = avesa(*SETUP)
    assert told.code == 1
    assert "127.0.0.1" in told.err
    assert nothing_stored(aws)


def test_an_address_that_is_none_is_a_mistake_of_usage(
    avesa: Avesa, aws: Settings, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONNECTWISE_API_URL", "http://vendor.example")
    told = avesa(*SETUP)
    assert told.code == 2
    assert "in the clear" in told.err
    assert nothing_stored(aws)


def test_a_dry_run_proves_the_credentials_and_writes_nothing(avesa: Avesa, aws: Settings, vendor: Vendor) -> None:
    told = avesa(*SETUP, "--dry-run")
    assert told.code == 0, told.err
    assert told.out.endswith("Nothing was written (--dry-run).\n")
    assert nothing_stored(aws)
    vendor.site.keys = NEW_KEYS
    assert avesa(*SETUP, "--dry-run").code == 1


def test_run_again_the_credentials_are_replaced_and_the_rest_is_kept(
    avesa: Avesa, aws: Settings, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    avesa(*SETUP)
    avesa("services", "pause", *ONE)
    looked(write(aws, "connectwise", {"interval_s": 900, "status": "reconnect needed", "status_what": "401"}))
    (before,) = looked(rows(aws))
    vendor.site.keys = NEW_KEYS
    monkeypatch.setenv("CONNECTWISE_PUBLIC_KEY", NEW_KEYS.public_key)
    monkeypatch.setenv("CONNECTWISE_PRIVATE_KEY", NEW_KEYS.private_key)
    told = avesa("setup-service", *ONE)
    assert told.code == 0, told.err
    assert "are replaced" in told.out
    assert "Another than before: Public key." in told.err
    assert "avesa services resume" in told.out
    (after,) = looked(rows(aws))
    kept = ("created_at", "company_name", "enabled", "interval_s", "secret")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert (after["enabled"], after["status"], "status_what" in after) == (False, "ok", False)
    stored = looked(secret(aws))
    assert stored is not None
    assert stored["private_key"] == NEW_KEYS.private_key


def test_run_again_with_wrong_credentials_the_old_ones_stay(
    avesa: Avesa, aws: Settings, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    avesa(*SETUP)
    monkeypatch.setenv("CONNECTWISE_PRIVATE_KEY", "wrong")
    assert avesa(*SETUP).code == 1
    assert looked(secret(aws)) == given(vendor.url)


def test_a_second_service_of_a_kind_has_a_name_and_credentials_of_its_own(
    avesa: Avesa, aws: Settings, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    avesa(*SETUP)
    monkeypatch.setenv("CONNECTWISE_PRIVATE_KEY", "wrong")
    monkeypatch.setenv("CONNECTWISE_BERLIN_PRIVATE_KEY", KEYS.private_key)
    told = avesa("setup-service", "--tenant-id", "acme-msp", "--service", "ConnectWise:berlin")
    assert told.code == 0, told.err
    assert looked(secret(aws, "connectwise:berlin")) == given(vendor.url)
    assert [(row["service"], row["company_name"]) for row in looked(rows(aws))] == [
        ("connectwise", "Acme MSP"),
        ("connectwise:berlin", "Acme MSP"),
    ]


def test_a_tier_is_kept_until_another_is_asked_for_and_is_that_of_all_services_of_the_tenant(
    avesa: Avesa, aws: Settings, vendor: Vendor
) -> None:
    avesa(*SETUP, "--tier", "Premium")
    avesa("setup-service", "--tenant-id", "acme-msp", "--service", "connectwise:two")
    assert [row["tier"] for row in looked(rows(aws))] == ["premium", "premium"]
    avesa("setup-service", "--tenant-id", "acme-msp", "--service", "connectwise:two", "--tier", "basic")
    assert [row["tier"] for row in looked(rows(aws))] == ["basic", "basic"]


def test_a_tier_that_there_is_not_is_refused_and_the_others_are_named(avesa: Avesa) -> None:
    told = avesa(*SETUP, "--tier", "premum")
    assert told.code == 2
    assert "Did you mean 'premium'?" in told.err


def test_a_new_company_name_is_written_to_all_services_of_the_tenant(
    avesa: Avesa, aws: Settings, vendor: Vendor
) -> None:
    avesa(*SETUP)
    avesa("setup-service", "--tenant-id", "acme-msp", "--service", "connectwise:two", "--company-name", "Acme AG")
    assert {row["company_name"] for row in looked(rows(aws))} == {"Acme AG"}


def test_an_older_name_of_a_variable_is_accepted(
    avesa: Avesa, aws: Settings, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONNECTWISE_API_URL")
    monkeypatch.setenv("CONNECTWISE_API_BASE_URL", vendor.url)
    assert avesa(*SETUP).code == 0
    assert looked(secret(aws)) == given(vendor.url)


def test_without_a_terminal_every_missing_variable_is_named(
    avesa: Avesa, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CONNECTWISE_PRIVATE_KEY")
    monkeypatch.setenv("CONNECTWISE_CLIENT_ID", " ")
    told = avesa(*SETUP)
    assert (told.code, told.out) == (2, "")
    assert "CONNECTWISE_PRIVATE_KEY and CONNECTWISE_CLIENT_ID" in told.err
    assert "CONNECTWISE_PUBLIC_KEY" not in told.err


@pytest.mark.parametrize("typed", ["conectwise", "connectwise_psa"])
def test_an_unknown_service_lists_those_there_are(avesa: Avesa, typed: str) -> None:
    told = avesa("setup-service", "--tenant-id", "acme-msp", "--service", typed, "--json")
    assert told.code == 2
    error = msgspec.json.decode(told.err)
    assert error["error"] == "unknown_service"
    assert " connectwise, " in error["remedy"]
    assert "--mappings DIR adds your own" in error["remedy"]


@pytest.mark.parametrize("typed", ["Acme", "acme--msp", "-acme", "acme msp", "", "a" * 65])
def test_a_bad_tenant_id_is_told_what_ids_are_made_of(avesa: Avesa, typed: str) -> None:
    told = avesa("setup-service", "--tenant-id", typed, "--service", "connectwise")
    assert (told.code, told.out) == (2, "")
    assert "is not a tenant id" in told.err


def test_a_bad_instance_is_told_what_names_are_made_of(avesa: Avesa) -> None:
    told = avesa("setup-service", "--tenant-id", "acme-msp", "--service", "connectwise:a b")
    assert (told.code, "is no name of a service" in told.err) == (2, True)


# -- services ---------------------------------------------------------------------------------------------------------
def test_services_lists_what_is_connected(avesa: Avesa, aws: Settings, vendor: Vendor) -> None:
    avesa(*SETUP)
    told = avesa("services")
    assert told.out.splitlines()[0].split() == ["TENANT", "COMPANY", "SERVICE", "STATE", "SINCE", "WHY"]
    assert told.out.splitlines()[1].split()[:5] == ["acme-msp", "Acme", "MSP", "connectwise", "ok"]
    (record,) = avesa("services", "--tenant-id", "acme-msp", "--service", "ConnectWise", "--json").records
    assert (record["tenant_id"], record["enabled"]) == ("acme-msp", True)
    assert avesa("services", "list", "--tenant-id", "other").out == ""


def test_a_row_that_cannot_be_read_does_not_hide_the_others(avesa: Avesa, aws: Settings, vendor: Vendor) -> None:
    avesa(*SETUP)
    looked(write(aws, "broken", {"status": "no such status"}))
    told = avesa("services")
    assert told.code == 3
    assert "connectwise" in told.out
    assert "broken" in told.err


def test_pause_and_resume_switch_a_service_and_touch_nothing_else(avesa: Avesa, aws: Settings, vendor: Vendor) -> None:
    avesa(*SETUP)
    (before,) = looked(rows(aws))
    assert avesa("services", "pause", *ONE).out == "connectwise of acme-msp is paused\n"
    assert "paused" in avesa("services").out
    assert avesa("services", "resume", *ONE).out == "connectwise of acme-msp is read again\n"
    (after,) = looked(rows(aws))
    assert after.pop("updated_at") > before.pop("updated_at")
    assert after == before


def test_remove_deletes_credentials_and_row(avesa: Avesa, aws: Settings, vendor: Vendor) -> None:
    avesa(*SETUP)
    told = avesa("services", "remove", *ONE, "--yes")
    assert told.code == 0, told.err
    assert nothing_stored(aws)


def test_remove_asks_first_and_where_nobody_can_be_asked_refuses(avesa: Avesa, aws: Settings, vendor: Vendor) -> None:
    avesa(*SETUP)
    told = avesa("services", "remove", *ONE)
    assert (told.code, "Add --yes" in told.err) == (2, True)
    assert not nothing_stored(aws)


@pytest.mark.parametrize("verb", [["pause"], ["resume"], ["remove", "--yes"]])
def test_what_is_not_connected_is_compared_with_what_is(
    avesa: Avesa, aws: Settings, vendor: Vendor, verb: list[str]
) -> None:
    avesa(*SETUP)
    told = avesa("services", *verb, "--tenant-id", "acme-msp", "--service", "conectwise")
    assert (told.code, "Did you mean 'connectwise'? It has connectwise." in told.err) == (2, True)
    told = avesa("services", *verb, "--tenant-id", "nobody", "--service", "connectwise")
    assert (told.code, "there is no tenant nobody" in told.err) == (2, True)


# -- check ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def connected(avesa: Avesa, aws: Settings, vendor: Vendor) -> Vendor:
    assert avesa(*SETUP).code == 0
    return vendor


def states(told: Told) -> dict[str, str]:
    return {record["endpoint"]: record["state"] for record in told.records}


def test_check_asks_every_endpoint(avesa: Avesa, connected: Vendor) -> None:
    told = avesa("check", *ONE, "--json")
    found = states(told)
    assert len(found) == len(load_mappings().integrations["connectwise"].endpoints)
    assert told.code == (0 if set(found.values()) == {"ok"} else 3)
    assert told.err.endswith(f"{list(found.values()).count('ok')} of {len(found)} endpoints can be read\n")


def test_an_endpoint_that_may_not_be_read_is_told_and_the_others_go_on(avesa: Avesa, connected: Vendor) -> None:
    connected.site.forbidden = frozenset({"service/tickets"})
    told = avesa("check", *ONE, "--json")
    found = states(told)
    assert (told.code, found["tickets"], found["companies"]) == (3, "forbidden", "ok")
    table = avesa("check", *ONE).out.splitlines()
    assert table[0].split() == ["ENDPOINT", "STATE", "TABLE", "WHY"]
    assert "403" in next(line for line in table if line.startswith("tickets "))


def test_refused_credentials_fail_the_check(avesa: Avesa, connected: Vendor) -> None:
    connected.site.keys = NEW_KEYS
    told = avesa("check", *ONE)
    assert (told.code, told.out) == (1, "")
    assert "`avesa setup-service`" in told.err


def test_a_secret_that_is_gone_is_told(avesa: Avesa, connected: Vendor, aws: Settings) -> None:
    looked(forget(aws))
    told = avesa("check", *ONE)
    assert (told.code, told.out) == (1, "")
    assert told.err.startswith("error: the credentials of connectwise of tenant acme-msp are gone")
