"""The command line as a person meets it: `main()` in this process, the embedded AWS, a vendor that answers."""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeVar

import msgspec
import pytest

from services.cli.main import GROUPS, Groups, main
from services.runtime.settings import Settings
from services.sandbox.sites import Keys, Site
from services.sandbox.vendor import start
from services.sandbox.world import World

T = TypeVar("T")

KEYS = Keys("acme", "public-key", "private-key-s3cret", "0b2f7a3e-1111-4222-8333-444455556666")
NEW_KEYS = Keys("acme", "new-public", "new-private-s3cret", KEYS.client_id)
SECRETS = (KEYS.private_key, KEYS.client_id, NEW_KEYS.private_key)


class Told(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[Any]:
        """What a machine reads."""
        return [msgspec.json.decode(line) for line in self.out.splitlines()]


Avesa = Callable[..., Told]


@pytest.fixture
def avesa(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Avesa:
    """Run `avesa ARGUMENTS` in an empty folder, with no AWS configured; whatever it does, no secret may show."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str, groups: Groups = GROUPS) -> Told:
        capsys.readouterr()
        told = Told(main(arguments, groups), *capsys.readouterr())
        assert not any(secret in told.out + told.err for secret in SECRETS), "a secret shows"
        return told

    return run


@pytest.fixture
def aws(settings: Settings, monkeypatch: pytest.MonkeyPatch, avesa: Avesa) -> Settings:
    """The embedded AWS is what commands find; an environment nobody else uses, nothing in it yet."""
    assert settings.endpoint_url is not None
    monkeypatch.setenv("AWS_ENDPOINT_URL", settings.endpoint_url)
    monkeypatch.setenv("ENVIRONMENT", settings.environment)
    return settings


class Vendor(NamedTuple):
    """A vendor at `url`; what `site` holds may be changed while it runs."""

    url: str
    site: Site
    world: World


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> Iterator[Vendor]:
    """A ConnectWise server with a few records of everything, and the right credentials in the environment."""
    world = World(lambda: datetime.now(UTC), Random(1))
    site = world.add_site("acme", KEYS)
    world.populate("acme", {})
    with looping() as loop:
        running = asyncio.run_coroutine_threadsafe(start(world), loop).result()
        for field, value in given(running.url).items():
            monkeypatch.setenv(f"CONNECTWISE_{field.upper()}", value)
        yield Vendor(running.url, site, world)
        asyncio.run_coroutine_threadsafe(running.close(), loop).result()


class looping:  # noqa: N801 - read as `with looping()`
    """An event loop in a thread of its own: commands run theirs in this one."""

    def __enter__(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self._loop

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def given(url: str) -> dict[str, str]:
    """The credentials of the vendor at `url`."""
    return {
        "api_url": url,
        "company_id": KEYS.company_id,
        "public_key": KEYS.public_key,
        "private_key": KEYS.private_key,
        "client_id": KEYS.client_id,
    }


def looked(work: Coroutine[Any, Any, T]) -> T:
    """What a look into the world finds."""
    return asyncio.run(work)
