"""`make infra-local`: Terraform's platform on an emulator of AWS, from nothing, and the pipeline on what it created.

    emulator -> init -> apply -> a vendor connected, read and in the lake -> destroy -> nothing left in the state

The commands reach the emulator by an address that they do not take for an emulator's (`recorder.py`), so they do as on
AWS: nothing of the environment is created by Python, and what they asked for shows it.
"""

import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import msgspec

from services.contracts.errors import AvesaError, FatalError
from services.runtime import provision
from services.runtime.processes import command_line
from services.runtime.settings import FAKE_ACCESS_KEY, FAKE_SECRET_KEY, Settings, child_environment
from services.sandbox.embedded import EmbeddedAws
from services.sandbox.sites import Keys
from services.sandbox.vendor import start
from services.sandbox.world import World
from tests.infra.calls import Call, Reader
from tests.infra.recorder import Recorder
from tests.infra.rehearsal import REGION
from tests.infra.terraform import ACCOUNT, Root

TENANT, PERSON = "acme", "person"
TICKETS: Final = 40
# What is created at run time on purpose, by whoever connects a tenant and by its first merge.
MADE_AT_RUN_TIME: Final = {"glue:CreateDatabase", "glue:CreateTable", "secretsmanager:CreateSecret"}

Told = Callable[[str], None]


class Done(msgspec.Struct, frozen=True):
    """What a round of the pipeline left: rows of the lake beside the records of the vendor, and what was asked."""

    rows: int
    records: int
    created: frozenset[str]


class Applied:
    """The environment `local`, on the emulator at `url`."""

    def __init__(self, root: Root, url: str) -> None:
        self.root, self.url = root, url

    @cached_property
    def given(self) -> dict[str, str]:
        """Terraform's output `settings`."""
        return dict(line.split("=", 1) for line in self.root.outputs()["settings"].splitlines())

    @property
    def settings(self) -> Settings:
        """For whoever looks at the emulator itself."""
        return Settings.from_environment(self.given | {"AWS_ENDPOINT_URL": self.url})

    def variables(self, url: str) -> dict[str, str]:
        """For a command that reaches AWS at `url`."""
        own = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": FAKE_ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": FAKE_SECRET_KEY,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AVESA_STATE_DIR": str(self.root.folder / "avesa"),
        }
        return child_environment(**self.given | own)


@contextmanager
def applied(folder: Path, told: Told) -> Iterator[Applied]:
    """Apply in `folder`; destroy when the block ends well. When it does not, the emulator just ends, with all it held.

    Errors: those of `Root`; FatalError when a destroy leaves something behind.
    """
    with EmbeddedAws.start(folder / "aws") as aws:
        told(f"the emulator answers at {aws.url}")
        made = Applied(Root.copied(folder), aws.url)
        told("terraform init")
        made.root.apply(aws.url)
        told(f"terraform apply: {len(made.root.resources())} resources")
        yield made
        made.root.destroy(aws.url)
        if left := made.root.resources():
            raise FatalError(f"terraform destroy left {', '.join(left)}")
        told("terraform destroy: nothing is left in the state")


async def pipeline(made: Applied, told: Told) -> Done:
    """Connect a vendor and run the pipeline once. Errors: FatalError with what a command said."""
    if missing := await provision.missing(made.settings):
        raise FatalError(f"Terraform did not create {', '.join(missing)}")
    told("nothing is missing of what the services expect")
    vendor = World(lambda: datetime.now(UTC), random.Random(1))
    keys = Keys(TENANT, "public", "private", "client")
    vendor.add_site(TENANT, keys)
    vendor.populate(TENANT, {"service/tickets": TICKETS}, minimum=3)
    reader = Reader(ACCOUNT, REGION, {name: key[0] for name, key in provision.table_keys(made.settings.names).items()})
    running, recorder = await start(vendor), Recorder(made.url, reader)
    try:
        async with recorder.serving([PERSON]):
            variables = made.variables(recorder.url(PERSON)) | {
                "CONNECTWISE_API_URL": running.url,
                "CONNECTWISE_COMPANY_ID": keys.company_id,
                "CONNECTWISE_PUBLIC_KEY": keys.public_key,
                "CONNECTWISE_PRIVATE_KEY": keys.private_key,
                "CONNECTWISE_CLIENT_ID": keys.client_id,
            }
            named = ("--tenant-id", TENANT, "--company-name", "Acme", "--service", "connectwise")
            await _avesa(variables, "setup-service", *named)
            told("avesa setup-service: connected to a ConnectWise sandbox")
            await _avesa(variables, "run", "--once")
            told("avesa run --once")
            found = await _avesa(variables, "query", "--json", "SELECT count(*) AS rows FROM tickets WHERE is_current")
            rows = _rows(found)
    finally:
        await running.close()
    there = sum(len(vendor.current(TENANT, path)) for path in ("service/tickets", "project/tickets"))
    told(f"avesa query: {rows} tickets in the lake, {there} at the vendor")
    return Done(rows, there, frozenset(call.action for call in recorder.calls[PERSON] if _creates(call)))


def _creates(call: Call) -> bool:
    return call.action.partition(":")[2].startswith("Create") and call.action not in MADE_AT_RUN_TIME


def _rows(printed: str) -> int:
    told: Any = msgspec.json.decode(printed)
    (row,) = told if isinstance(told, list) else [told]
    return int(row["rows"])


async def _avesa(variables: Mapping[str, str], *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command_line(arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=dict(variables)
    )
    out, err = await process.communicate()
    if process.returncode:
        raise FatalError(f"avesa {arguments[0]} ended with {process.returncode}: {(err or out).decode().strip()}")
    return out.decode()


def main() -> int:
    """One line per step, with the seconds it took."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    began = last = time.monotonic()

    def told(what: str) -> None:
        nonlocal last
        now = time.monotonic()
        print(f"{now - last:6.1f} s  {what}", flush=True)
        last = now

    try:
        with tempfile.TemporaryDirectory(prefix="avesa-infra-") as folder, applied(Path(folder), told) as made:
            done = asyncio.run(pipeline(made, told))
    except KeyboardInterrupt:
        print("interrupted: the emulator has ended, and all that was on it", file=sys.stderr)
        return 130
    except AvesaError as err:
        print(err, file=sys.stderr)
        return 1
    print(f"{time.monotonic() - began:6.1f} s  in all")
    wrong = [f"{done.rows} rows in the lake, {done.records} records at the vendor"] if done.rows != done.records else []
    wrong += [f"created by Python: {', '.join(sorted(done.created))}"] if done.created else []
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
