"""`avesa doctor`: what is missing in an environment, or not as it has to be, one line each. It reads, and changes
nothing."""

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
import typer

from services.cli.diagnosis import (
    EMULATOR_GAPS,
    Connection,
    Expected,
    Finding,
    Outputs,
    exit_code,
    is_by_terraform,
    judge,
    judge_role,
    needs,
    outputs_of,
    service_of,
)
from services.cli.options import MappingsFolder, command
from services.cli.screen import Screen, counted
from services.cli.world import Place, reach, run, settings_for
from services.contracts.errors import AvesaError, UsageError
from services.runtime.mapping_files import load_mappings
from services.runtime.seen import Identity, Inspection, Seen
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.contracts.ports import Rows

app = typer.Typer()

PYTHONS: Final = ((3, 11), (3, 13))  # the first and the last that the tests run on
UNASKED: Final = ("streams", "tables", "bucket", "secrets", "alarms", "services", "roles")


@command(
    app,
    "doctor",
    "avesa doctor",
    "avesa doctor --environment prod --json",
    "terraform output -json > outputs.json && avesa doctor --environment dev --terraform outputs.json",
)
def doctor(
    screen: Screen,
    place: Place,
    terraform: Annotated[
        Path | None,
        typer.Option("--terraform", metavar="FILE", help="What `terraform output -json` says: compare with that."),
    ] = None,
    mappings: MappingsFolder = None,
) -> int:
    """Look at everything an environment is made of and say what is missing or wrong, one line each. Reads only.

    Exit codes: 0 all ok, 3 something could not be checked, 1 something is missing or wrong.
    """
    outputs = _outputs(terraform) if terraform else None
    settings = settings_for(place, screen)
    with screen.working(f"looking at environment {settings.environment}"):
        findings = [*_here(mappings), *run(_there(settings, place, screen, outputs))]
    _show(screen, findings)
    return exit_code(findings)


def _show(screen: Screen, findings: Iterable[Finding]) -> None:
    told = list(findings)
    for finding in told:
        if screen.as_json:
            screen.record(finding)
        else:
            screen.say(finding.line)
    faults = sum(finding.state in ("missing", "wrong") for finding in told)
    unchecked = sum(finding.state == "not checked" for finding in told)
    screen.note(f"{counted(len(told), 'finding')}: {faults} missing or wrong, {unchecked} not checked")


def _outputs(file: Path) -> Outputs:
    try:
        return outputs_of(msgspec.json.decode(file.read_bytes(), type=dict[str, dict[str, object]]))
    except (OSError, msgspec.MsgspecError) as err:
        remedy = "It takes what `terraform output -json` prints."
        raise UsageError(f"this file cannot be read ({type(err).__name__})", where=str(file), remedy=remedy) from err


# -- here -------------------------------------------------------------------------------------------------------------
def _here(mappings: Path | None) -> Iterator[Finding]:
    """What can be said of this installation without AWS."""
    running = sys.version_info[:2]
    shown = ".".join(map(str, running))
    if PYTHONS[0] <= running <= PYTHONS[1]:
        yield Finding("ok", f"Python {shown}")
    else:
        yield Finding("wrong", f"Python {shown}", "nobody tests with it", "Install 3.11, 3.12 or 3.13.")
    yield Finding("ok", f"avesa {_version()}")
    try:
        files = load_mappings(mappings)
    except UsageError as err:
        yield Finding("wrong", "mapping files", err.what, f"{err.where}: {err.remedy}" if err.where else err.remedy)
    else:
        what = f"{len(files.integrations)} services, {len(files.tables)} canonical tables"
        yield Finding("ok", "mapping files", what)


def _version() -> str:
    from importlib.metadata import version

    return version("avesa")


# -- there ------------------------------------------------------------------------------------------------------------
async def _there(settings: Settings, place: Place, screen: Screen, outputs: Outputs | None) -> list[Finding]:
    from services.runtime.clock import SystemClock
    from services.runtime.inspection import identify, inspect
    from services.runtime.provision import table_indexes, table_keys

    try:
        identity = await reach(settings, place.wait_s, screen, identify)
    except AvesaError as err:  # whatever it is, nothing else can be asked
        refused = err.code == "bad_credentials"
        why = "AWS did not let us in" if refused else "AWS was not reached"
        unasked = [Finding("not checked", subject, why) for subject in UNASKED]
        return [Finding("missing", "credentials" if refused else "AWS", err.what, err.remedy), *unasked]
    found = await inspect(settings, identity)
    expected = Expected(
        settings.names,
        table_keys(settings.names),
        table_indexes(settings.names),
        settings.retention_s,
        _version(),
        by_terraform=not settings.emulator or is_by_terraform(found),
        emulated=settings.emulator,
        outputs=outputs,
    )
    judged = judge(found, expected, await _connections(settings), SystemClock().now())
    roles = await _roles(settings, identity, found) if expected.by_terraform else []
    return [*_account(settings, identity), *judged, *roles]


def _account(settings: Settings, identity: Identity) -> Iterator[Finding]:
    where = settings.endpoint_url or f"account {identity.account}"
    yield Finding("ok", "credentials", f"{where}, region {settings.region}, as {identity.arn}")
    if settings.emulator:
        for subject, why in EMULATOR_GAPS.items():
            yield Finding("not checked", subject, why)


async def _connections(settings: Settings) -> Seen[list[Connection]]:
    """The services connected and switched on; the secret of one without a name is where `setup-service` puts it."""
    from services.runtime.aws import connect
    from services.runtime.inspection import seen

    async with connect(settings) as aws:
        return await seen(_read_connections(settings, aws.rows))


async def _read_connections(settings: Settings, rows: "Rows") -> list[Connection]:
    from services.extractor.tenants import connected

    names = settings.names
    return [
        Connection(row.tenant_id, row.service, row.secret or names.secret(row.tenant_id, row.service))
        for row in (await connected(rows, names)).services
        if row.enabled
    ]


async def _roles(settings: Settings, identity: Identity, found: Inspection) -> list[Finding]:
    """A role at a time: IAM's simulator takes few questions a second."""
    if not isinstance(found.services, tuple):
        return []
    from services.runtime.inspection import simulate

    where = {"partition": identity.partition, "region": settings.region, "account": identity.account}
    findings = []
    for one in found.services:
        if service := service_of(one):
            wanted = needs(service, settings.names, where)
            findings.append(judge_role(one, await simulate(settings, one.role_arn, wanted)))
    return findings
