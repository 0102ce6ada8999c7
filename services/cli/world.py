"""The world a command works in: which AWS, and whether it answers; its ports as a `Runtime`.

Which AWS, in this order: an endpoint in the environment (AWS_ENDPOINT_URL, LOCALSTACK_HOST); a profile or keys given
for this command (--profile, AWS_PROFILE, AWS_ACCESS_KEY_ID and the like); the embedded AWS of an `avesa up` that runs
in this folder; whatever else boto3 finds (~/.aws, a task's role).
"""

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from services.cli.screen import Screen
from services.contracts.errors import FatalError, NotFoundError, RetryableError, UsageError
from services.contracts.log import Level
from services.runtime.settings import Settings, variable

if TYPE_CHECKING:  # brings asyncio and structlog along, which `avesa --help` does without
    from services.runtime.runtime import Runtime

T = TypeVar("T")

UP_FILE: Final = Path(".avesa/up.json")
PAUSE_S: Final = 1.0
# Each of these says on purpose which AWS is meant (boto3 documentation: Credentials).
_MEANT: Final = (
    "AWS_PROFILE",
    "AWS_ACCESS_KEY_ID",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """What the options of a command say of the world; None where they say nothing."""

    environment: str | None = None
    region: str | None = None
    profile: str | None = None
    wait_s: float = 30.0


class Up(msgspec.Struct, frozen=True):
    """`.avesa/up.json`: the embedded AWS of an `avesa up` that runs; removed when it ends."""

    endpoint_url: str
    environment: str


class World(msgspec.Struct, frozen=True):
    """An AWS that answered, and everything a service needs of it."""

    settings: Settings
    runtime: "Runtime"

    @property
    def named(self) -> str:
        """`environment dev at http://127.0.0.1:4566`, for messages."""
        return f"environment {self.settings.environment} at {_aws(self.settings)}"


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work to its end. Ctrl-C cancels it, and is raised when it has cleaned up."""
    import asyncio
    import signal

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # asked to end, however: clean up, let leases go
    return asyncio.run(work)


def settings_for(place: Place, screen: Screen) -> Settings:
    """The settings of a command. Errors: UsageError for an option or variable that cannot be used."""
    options: dict[str, Any] = {
        "environment": place.environment,
        "region": place.region,
        "profile": place.profile or variable("AWS_PROFILE"),
    }
    settings = Settings.from_environment(**options)
    up = _up()
    if up is None or settings.endpoint_url is not None:
        return settings
    if settings.profile or any(map(variable, _MEANT)):
        screen.note(f"using {_aws(settings)}, not the embedded AWS that `avesa up` runs here")
        return settings
    screen.note(f"using the embedded AWS of `avesa up` at {up.endpoint_url}")
    environment = place.environment or variable("ENVIRONMENT") or up.environment
    from services.sandbox.embedded import LEASE_S

    kept = {"region": settings.region, "state_dir": settings.state_dir, "log": settings.log, "lease_s": LEASE_S}
    return Settings.embedded(up.endpoint_url, environment=environment, **kept)


@asynccontextmanager
async def open_world(
    place: Place, screen: Screen, *, create: bool = True, level: Level = "warning"
) -> AsyncIterator[World]:
    """The world, once AWS answers; on an emulator what is missing is created first, unless `create` forbids it.

    `level` is of the log lines, where AVESA_LOG says nothing: `warning` for people, `info` for services.

    Errors: FatalError when AWS does not answer within `wait_s`, refuses us, or holds no such environment; each says
    what to do.
    """
    settings = settings_for(place, screen)
    await reach(settings, place.wait_s, screen, partial(_look, create=create))
    async with open_runtime(settings, level) as runtime:
        yield World(settings, runtime)


@asynccontextmanager
async def open_runtime(settings: Settings, level: Level = "warning") -> "AsyncIterator[Runtime]":
    """The ports of one worker. Its leases are renewed until the end; then they are let go, and its local state goes."""
    import asyncio

    from services.runtime.aws import connect
    from services.runtime.chance import SystemChance
    from services.runtime.clock import SystemClock
    from services.runtime.leases import Leases
    from services.runtime.local_state import LocalStates
    from services.runtime.log import emitter
    from services.runtime.runtime import Runtime
    from services.runtime.threads import WorkerThreads

    clock, chance = SystemClock(), SystemChance()
    emit = emitter(settings, level=level).emit
    async with connect(settings) as aws:
        leases = Leases(aws.rows, settings.names.leases, clock, chance, emit, settings.lease_s)
        own = settings.state_dir / leases.worker
        with WorkerThreads(settings.threads) as threads:
            renewing = asyncio.create_task(leases.renew_forever())
            try:
                yield Runtime(
                    names=settings.names,
                    streams=aws.streams,
                    objects=aws.objects,
                    rows=aws.rows,
                    secrets=aws.secrets,
                    states=LocalStates(own),
                    clock=clock,
                    chance=chance,
                    threads=threads,
                    leases=leases,
                    emit=emit,
                )
            finally:
                renewing.cancel()
                await leases.release_all()
                shutil.rmtree(own, ignore_errors=True)


async def reach(settings: Settings, wait_s: float, screen: Screen, look: Callable[[Settings], Awaitable[T]]) -> T:
    """What a look finds, once AWS answers and what is looked for is there. Errors: as `open_world`."""
    from services.runtime.clock import SystemClock

    clock = SystemClock()
    deadline = clock.monotonic() + wait_s
    told = False
    while True:
        try:
            return await look(settings)
        except RetryableError as err:
            if wait_s and not told:
                told = True
                screen.note(f"waiting for {_aws(settings)}, {wait_s:g} s at most: {err.what}")
            left_s = deadline - clock.monotonic()
            if left_s <= 0:
                raise _silent(settings, wait_s, err) from err
            await clock.sleep(min(PAUSE_S, left_s))
        except NotFoundError as err:
            raise _not_set_up(settings) from err
        except FatalError as err:
            if err.code == "bad_credentials" and not _configured(settings):
                raise _no_aws() from err
            raise


async def _look(settings: Settings, create: bool) -> None:
    """One look: does it answer, is the environment there?"""
    from services.runtime import provision
    from services.runtime.aws import connect

    if settings.emulator and create:
        await provision.ensure(settings)
        return
    async with connect(settings) as aws:
        try:
            await aws.rows.get(settings.names.tenant_services, {"tenant_id": "-", "service": "-"})
        except NotFoundError:
            if not settings.emulator:
                raise


def _up() -> Up | None:
    try:
        return msgspec.json.decode(UP_FILE.read_bytes(), type=Up)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as err:
        raise UsageError(f"this file cannot be read ({err})", where=str(UP_FILE), remedy="Remove it.") from err


def _aws(settings: Settings) -> str:
    if settings.endpoint_url is not None:
        return settings.endpoint_url
    return f"AWS {settings.region}" + (f" (profile {settings.profile})" if settings.profile else "")


def _configured(settings: Settings) -> bool:
    """Did anybody say which AWS is meant?"""
    home = Path.home() / ".aws"
    files = (
        Path(variable("AWS_SHARED_CREDENTIALS_FILE") or home / "credentials"),
        Path(variable("AWS_CONFIG_FILE") or home / "config"),
    )
    return is_meant(settings) or any(file.is_file() for file in files)


def is_meant(settings: Settings) -> bool:
    """Was an AWS named on purpose, by an option or a variable? Keys that lie about in ~/.aws do not count."""
    return bool(settings.endpoint_url or settings.profile or any(map(variable, _MEANT)))


def _no_aws() -> FatalError:
    return FatalError(
        "no AWS is configured",
        code="bad_credentials",
        remedy="One of three: run `avesa up` (or `avesa demo`) in this folder for the embedded AWS; set "
        "AWS_ENDPOINT_URL for LocalStack or the like; name a real account with --profile or AWS_PROFILE.",
    )


def _silent(settings: Settings, wait_s: float, err: RetryableError) -> FatalError:
    remedy = err.remedy
    up = _up()
    if up is not None and up.endpoint_url == settings.endpoint_url:
        remedy = f"Its `avesa up` seems to have ended: start it again, or remove {UP_FILE}."
    return FatalError(
        f"{_aws(settings)} did not answer within {wait_s:g} s ({err.what})", code="aws_unreachable", remedy=remedy
    )


def _not_set_up(settings: Settings) -> FatalError:
    return FatalError(
        f"there is no environment {settings.environment!r} at {_aws(settings)}: no table "
        f"{settings.names.tenant_services}",
        code="not_found",
        remedy="Check --environment, --region and --profile, or create it with Terraform (infra/terraform).",
    )
