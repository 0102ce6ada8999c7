"""`avesa demo`: the whole pipeline on this machine, killed and proven, in two minutes."""

import asyncio
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from services.cli.options import command
from services.cli.screen import Screen
from services.cli.world import open_runtime, run
from services.runtime.settings import Settings

if TYPE_CHECKING:
    from services.sandbox.comparison import Verdict
    from services.sandbox.demo import Demo, Report

app = typer.Typer()
ENVIRONMENT: Final = "demo"
QUERY: Final = (
    "SELECT status, count(*) AS tickets FROM tickets WHERE is_current GROUP BY status ORDER BY 2 DESC, 1 LIMIT 5"
)


@command(app, "demo", "avesa demo", "avesa demo --hostile", "avesa demo --keep .avesa/demo")
def demo(
    screen: Screen,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Run in this folder and leave everything there.")
    ] = None,
    hostile: Annotated[
        bool, typer.Option("--hostile", help="One answer in ten of the vendor goes wrong: errors, 429, cut, slow.")
    ] = False,
) -> int:
    """Run everything here: live changes at three tenants, three kills, and the lake compared with its source.

    It needs no account and reaches none: AWS and the vendor are on this machine's loopback, in a folder that is
    removed at the end. Exit code 1 if a single row differs.
    """
    if keep is not None:
        return run(_demo(screen, keep, hostile=hostile))
    with tempfile.TemporaryDirectory(prefix="avesa-demo-", ignore_cleanup_errors=True) as folder:
        return run(_demo(screen, Path(folder), hostile=hostile))


async def _demo(screen: Screen, folder: Path, *, hostile: bool) -> int:
    from services.compactor.iceberg import Warehouse
    from services.runtime import provision
    from services.sandbox.demo import Demo
    from services.sandbox.embedded import EmbeddedAws, embedded_environment
    from services.sandbox.faults import CALM, HOSTILE

    aws = await asyncio.to_thread(EmbeddedAws.start, folder / "aws")
    try:
        settings = Settings.embedded(aws.url, environment=ENVIRONMENT, state_dir=folder / "state")
        screen.note(f"embedded AWS at {aws.url}, files in {folder}")
        await provision.ensure(settings)
        environment = embedded_environment(settings, AVESA_CUT_AGE_MAX_S="8", AVESA_LEASE_S="4")
        async with open_runtime(settings) as runtime:
            warehouse = await runtime.threads.run(Warehouse.on_glue, settings)
            made = Demo(folder, runtime, environment, screen.note, HOSTILE if hostile else CALM)
            report = await made.run(warehouse)
            await _show(screen, report, made)
        return 0 if report.holds else 1
    finally:
        await asyncio.to_thread(aws.stop)


async def _show(screen: Screen, report: "Report", made: "Demo") -> None:
    if screen.as_json:
        screen.record(report)
        return
    screen.say()
    screen.show(
        report.streams,
        {
            "stream": lambda one: one.stream,
            "events": lambda one: f"{one.events:,}",
            "Kinesis records": lambda one: f"{one.records:,}",
            "bytes of events": lambda one: f"{one.bytes_before:,}",
            "bytes in Kinesis": lambda one: f"{one.bytes_after:,}",
            "ratio": lambda one: f"{one.bytes_before / max(1, one.bytes_after):.1f}",
        },
    )
    screen.say()
    screen.show(
        report.kills,
        {"killed": lambda kill: kill.service, "at": lambda kill: kill.at, "events read again": lambda kill: kill.again},
    )
    screen.say()
    ticket = report.showpiece
    screen.say(f"$ avesa history tickets {ticket} --tenant-id acme")
    screen.say((await made.avesa("history", "tickets", ticket, "--tenant-id", "acme")).rstrip())
    screen.say()
    screen.say(f'$ avesa query "{QUERY}"')
    screen.say((await made.avesa("query", QUERY)).rstrip())
    screen.say()
    screen.show(_lines(report.verdicts), COLUMNS)
    for verdict in report.verdicts:
        for example in verdict.examples:
            screen.alarm(f"{verdict.tenant_id} {verdict.table}: {example}")
    screen.say()
    lost, doubled, wrong = (sum(getattr(v, name) for v in report.verdicts) for name in ("lost", "doubled", "wrong"))
    screen.say(
        f"{report.records:,} records, {report.changes:,} live changes, {report.served:,} records served, "
        f"{len(report.kills)} kills, {report.seconds:.0f} s"
    )
    screen.say(f"lost {lost}, doubled {doubled}, wrong {wrong}")


COLUMNS: Final = {
    "tenant": lambda one: one.tenant_id,
    "compared": lambda one: one.table,
    "current rows": lambda one: f"{one.current:,}",
    "versions": lambda one: f"{one.versions:,}",
    "lost": lambda one: one.lost,
    "doubled": lambda one: one.doubled,
    "wrong": lambda one: one.wrong,
}


def _lines(verdicts: "list[Verdict]") -> "list[Verdict]":
    """Canonical tables one by one; the raw records of a tenant's endpoints in one line."""
    from services.sandbox.comparison import Verdict

    lines = [verdict for verdict in verdicts if not verdict.table.startswith("raw.")]
    for tenant_id in dict.fromkeys(verdict.tenant_id for verdict in verdicts):
        raw = [one for one in verdicts if one.tenant_id == tenant_id and one.table.startswith("raw.")]
        total = Verdict(tenant_id, f"raw records of {len(raw)} endpoints")
        for name in ("current", "versions", "lost", "doubled", "wrong"):
            setattr(total, name, sum(getattr(one, name) for one in raw))
        lines.append(total)
    return sorted(lines, key=lambda one: one.tenant_id)
