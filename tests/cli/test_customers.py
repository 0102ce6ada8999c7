"""A partner's customers at the command line: listed, connected, and gone with their partner."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from services.contracts.errors import NotFoundError
from services.runtime.aws import connect
from services.runtime.settings import Settings
from tests.cli.conftest import Avesa, looked, looping

ONE = ("--tenant-id", "acme-msp", "--service", "desk")
DESK: dict[str, Any] = {
    "service": "desk",
    "title": "Desk",
    "base_url": "{api_url}",
    "credentials": {
        "api_url": {"title": "Address"},
        "key": {"title": "Key", "secret": True},
        "account_id": {"title": "Your own account", "default": "own"},
    },
    "auth": {"type": "bearer", "token": "{key}"},
    "customers": {"path": "customers", "id": "id", "title": "name"},
    "endpoints": {"tickets": {"path": "{account_id}/tickets", "record_id": "id"}},
}
CUSTOMERS = [{"id": "7", "name": "Contoso"}, {"id": "8", "name": "Fabrikam"}]


@pytest.fixture
def partner(avesa: Avesa, aws: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A partner that is connected; the paths that its vendor was asked for."""
    folder, asked = tmp_path / "mine" / "integrations", list[str]()
    folder.mkdir(parents=True)
    (folder / "desk.json").write_bytes(msgspec.json.encode(DESK))

    async def handle(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.headers.get("Authorization") != "Bearer right-key":
            return web.json_response({}, status=401)
        return web.json_response(CUSTOMERS if request.path == "/customers" else [{"id": 1}])

    async def start() -> tuple[web.AppRunner, str]:
        app = web.Application()
        app.router.add_get("/{path:.*}", handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"

    with looping() as loop:
        runner, url = asyncio.run_coroutine_threadsafe(start(), loop).result()
        monkeypatch.setenv("DESK_API_URL", url)
        monkeypatch.setenv("DESK_KEY", "right-key")
        told = avesa("setup-service", *ONE, "--mappings", "mine")
        assert told.code == 0, told.err
        assert any(line.split()[:3] == ["avesa", "services", "customers"] for line in told.out.splitlines())
        yield asked
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()


def customers(avesa: Avesa, *options: str) -> dict[str, str]:
    told = avesa("services", "customers", *ONE, "--mappings", "mine", "--json", *options)
    assert told.code == 0, told.err
    return {record["title"]: record["service"] for record in told.records}


def services(avesa: Avesa) -> list[str]:
    return [record["service"] for record in avesa("services", "--json").records]


async def secret(settings: Settings) -> dict[str, str] | None:
    async with connect(settings) as aws:
        try:
            return await aws.secrets.get(settings.names.secret("acme-msp", "desk"))
        except NotFoundError:
            return None


def test_customers_are_listed_and_connected_one_by_one_or_all(avesa: Avesa, partner: list[str]) -> None:
    assert customers(avesa) == {"Contoso": "", "Fabrikam": ""}
    assert services(avesa) == ["desk"]
    assert customers(avesa, "--connect", "8") == {"Contoso": "", "Fabrikam": "desk:fabrikam"}
    assert customers(avesa, "--connect", "8") == {"Contoso": "", "Fabrikam": "desk:fabrikam"}, "twice does no harm"
    assert customers(avesa, "--all") == {"Contoso": "desk:contoso", "Fabrikam": "desk:fabrikam"}
    assert services(avesa) == ["desk", "desk:contoso", "desk:fabrikam"]


def test_a_customer_is_read_with_the_partners_credentials_under_its_own_account(
    avesa: Avesa, partner: list[str]
) -> None:
    customers(avesa, "--connect", "7")
    partner.clear()
    told = avesa("check", "--tenant-id", "acme-msp", "--service", "desk:contoso", "--mappings", "mine")
    assert told.code == 0, told.err
    assert partner == ["/7/tickets"]


def test_a_customer_goes_alone_and_a_partner_with_its_customers(
    avesa: Avesa, aws: Settings, partner: list[str]
) -> None:
    customers(avesa, "--all")
    told = avesa("services", "remove", "--tenant-id", "acme-msp", "--service", "desk:contoso", "--yes")
    assert "pause it instead" in told.err
    assert services(avesa) == ["desk", "desk:fabrikam"]
    assert looked(secret(aws)) is not None
    assert "1 customer of it went with it" in avesa("services", "remove", *ONE, "--yes").err
    assert services(avesa) == []
    assert looked(secret(aws)) is None


def test_who_has_no_customers_is_told(avesa: Avesa, partner: list[str]) -> None:
    told = avesa("services", "customers", *ONE, "--mappings", "mine", "--connect", "9")
    assert (told.code, "there is no customer '9'" in told.err) == (2, True)
    customers(avesa, "--connect", "7")
    told = avesa("services", "customers", "--tenant-id", "acme-msp", "--service", "desk:contoso", "--mappings", "mine")
    assert (told.code, "has no customers of its own" in told.err) == (2, True)
