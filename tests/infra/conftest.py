"""What tests of the infrastructure share, also with other workers of one run: an apply takes a minute and a half, a
rehearsal as long. Whoever comes first does it, the others wait and use it."""

import asyncio
import faulthandler
import fcntl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import IO, Any, Final

import msgspec
import pytest

from services.contracts.errors import UsageError
from services.runtime.provision import table_keys
from services.runtime.settings import Settings
from services.sandbox.embedded import EmbeddedAws
from tests.infra import local
from tests.infra.calls import Call, Reader
from tests.infra.local import Applied
from tests.infra.recorder import Recorder
from tests.infra.rehearsal import EVERYBODY, GROUPS, REGION, Rehearsal
from tests.infra.terraform import ACCOUNT, REPOSITORY, Imagined, Root, account_of

IMAGE: Final = "avesa@sha256:" + "0" * 64


class Recorded(msgspec.Struct, frozen=True):
    """Who called what, and requests that nobody understood."""

    calls: dict[str, set[Call]]
    unknown: list[str]


@contextmanager
def locked(path: Path) -> Iterator[IO[bytes]]:
    """Hold the file alone."""
    with path.open("a+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock


def once(folder: Path, name: str, make: Callable[[Path], bytes]) -> bytes:
    """What `make` returned to whoever came first; it may use the folder that it is given."""
    with locked(folder / f"{name}.lock"):
        made = folder / f"{name}.made"
        if not made.exists():
            (folder / name).mkdir(exist_ok=True)
            faulthandler.cancel_dump_traceback_later()  # it takes longer than a test may; it has bounds of its own
            made.write_bytes(make(folder / name))
        return made.read_bytes()


@pytest.fixture(scope="session")
def together(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Path:
    """A folder that all workers of this run have in common."""
    base = tmp_path_factory.getbasetemp()
    folder = (base if worker_id == "master" else base.parent) / "infra"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def recorded(together: Path) -> Recorded:
    """The calls of everything that the services do."""
    return msgspec.json.decode(once(together, "rehearsal", _rehearse), type=Recorded)


@pytest.fixture(scope="session")
def alone(together: Path) -> Imagined:
    """The environment `local`, as Terraform would have it."""
    return imagined(together, "alone", "-var-file=../environments/local.tfvars")


@pytest.fixture(scope="session")
def grouped(together: Path) -> Imagined:
    """The same with the fleets of the rehearsal."""
    groups = [f"-var={name}={msgspec.json.encode(value).decode()}" for name, value in GROUPS.items()]
    return imagined(together, "grouped", "-var-file=../environments/local.tfvars", *groups)


@pytest.fixture(scope="session")
def watched(together: Path) -> Imagined:
    """The environment `dev` with the fleets of the rehearsal, in the account from which production is watched."""
    variables = (REPOSITORY / "infra" / "terraform" / "environments" / "dev.tfvars").read_text()
    (together / "dev.tfvars").write_text(variables.replace("111122223333", ACCOUNT))
    groups = [f"-var={name}={msgspec.json.encode(value).decode()}" for name, value in GROUPS.items()]
    image = f"-var=image=avesa@sha256:{'0' * 64}"
    return imagined(together, "watched", f"-var-file={together / 'dev.tfvars'}", image, *groups)


@pytest.fixture(scope="session")
def environments(together: Path) -> dict[str, Imagined]:
    """The environments that live in accounts, by name."""
    return {
        name: imagined(together, name, *variables(name), account=account_of(name))
        for name in ("prod", "dev", "staging")
    }


@pytest.fixture(scope="session")
def applied(together: Path) -> Iterator[Applied]:
    """The environment `local` on an emulator: applied by the first worker that needs it, and destroyed by the same one
    when no other uses it any more; then nothing is left in the state. Skips where there is no Terraform."""
    place, first = together / "applied", together / "applied.lock"
    with ExitStack() as held:
        with locked(first):
            owner = not place.exists()
            faulthandler.cancel_dump_traceback_later()  # as above
            if owner:
                try:
                    made = held.enter_context(local.applied(Path(mkdtemp(dir=together)), lambda _: None))
                except UsageError as err:
                    pytest.skip(str(err))
                place.write_text(f"{made.root.base}\n{made.url}")
            using = held.enter_context((together / "applied.users").open("a+b"))
            fcntl.flock(using, fcntl.LOCK_SH)
        base, url = place.read_text().splitlines()
        yield Applied(Root(Path(base)), url)
        if owner:
            with locked(first):
                fcntl.flock(using, fcntl.LOCK_EX)  # until the others are done
                place.unlink()


def variables(environment: str) -> list[str]:
    return [f"-var-file=../environments/{environment}.tfvars", f"-var=image={IMAGE}"]


def imagined(together: Path, name: str, *options: str, account: str = ACCOUNT) -> Imagined:
    """What an apply with these options would leave behind. Skips where there is no Terraform."""

    def copied(folder: Path) -> bytes:
        Root.copied(folder)
        return b""

    def make(_: Path) -> bytes:
        once(together, "root", copied)
        with locked(together / "root.used"):
            return msgspec.json.encode(Root(together / "root").imagined(*options, account=account))

    try:
        return Imagined(msgspec.json.decode(once(together, name, make), type=dict[str, Any]))
    except UsageError as err:
        pytest.skip(str(err))


def _rehearse(folder: Path) -> bytes:
    async def rehearse() -> Recorded:
        with EmbeddedAws.start(folder / "aws") as aws:
            settings = Settings.embedded(aws.url, environment="local")
            partitions = {name: key[0] for name, key in table_keys(settings.names).items()}
            recorder = Recorder(aws.url, Reader(ACCOUNT, REGION, partitions))
            async with recorder.serving(EVERYBODY):
                await Rehearsal(settings, recorder, folder, lambda _: None).run()
            return Recorded(recorder.calls, recorder.unknown)

    return msgspec.json.encode(asyncio.run(rehearse()))
