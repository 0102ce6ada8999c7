"""`avesa cost`: dollars a month, a tenant and a million changes, line by line; nothing is asked of AWS."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Final

import msgspec
import typer

from services.cli.cost_model import CUT_S, PLATFORMS, Bill, Line, Workload, airbyte_usd, bill
from services.cli.options import command
from services.cli.screen import Screen
from services.contracts.errors import UsageError
from services.contracts.hints import did_you_mean

app = typer.Typer()

TENANTS: Final = (10, 100, 1_000)  # the columns of docs/cost.md
CUTS_S: Final = (300.0, 900.0, 3_600.0)


class Told(msgspec.Struct, frozen=True):
    """A bill for a machine."""

    environment: str
    workload: Workload
    usd_per_month: float
    usd_per_tenant: float
    usd_per_million_changes: float
    merge_every_s: float
    tasks: dict[str, int]
    airbyte_usd_per_month: float
    lines: tuple[dict[str, str | float], ...]


@command(
    app,
    "cost",
    "avesa cost --tenants 100",
    "avesa cost --tenants 1000 --changes-per-day 20000 --cut-age-s 3600",
    "avesa cost --tenants 10 --environment dev --json",
)
def cost(
    screen: Screen,
    tenants: Annotated[int, typer.Option("--tenants", metavar="N", min=1, max=100_000, help="How many tenants.")] = 100,
    changes_per_day: Annotated[
        int, typer.Option("--changes-per-day", metavar="M", min=1, max=100_000_000, help="Of each tenant.")
    ] = 5_000,
    services_per_tenant: Annotated[
        int, typer.Option("--services-per-tenant", metavar="K", min=1, max=100, help="Vendors a tenant has connected.")
    ] = 1,
    cut_age_s: Annotated[
        float,
        typer.Option("--cut-age-s", metavar="SECONDS", min=1, max=3_600, help="AVESA_CUT_AGE_MAX_S: lake's freshness."),
    ] = CUT_S,
    environment: Annotated[
        str, typer.Option("--environment", "-e", metavar="NAME", help="Sized as dev, staging or prod.")
    ] = "prod",
    markdown: Annotated[bool, typer.Option("--markdown", help="The tables of docs/cost.md, and nothing else.")] = False,
) -> None:
    """Say what an environment costs a month, by list prices, with what each line assumes. Asks nothing of AWS."""
    if markdown:
        screen.out.write(tables())
        return
    if environment not in PLATFORMS:
        raise UsageError(f"no sizes are known of environment {environment!r}", remedy=_sizes(environment))
    workload = Workload(tenants, changes_per_day, services_per_tenant, cut_age_s)
    _show(screen, bill(workload, environment))


def _sizes(environment: str) -> str:
    return did_you_mean(environment, PLATFORMS) or f"Take one of {', '.join(PLATFORMS)}."


def _show(screen: Screen, found: Bill) -> None:
    if screen.as_json:
        screen.record(told(found))
        return
    screen.show(
        found.lines,
        {
            "service": lambda line: line.service,
            "for": lambda line: line.what,
            "quantity": lambda line: f"{line.quantity:,.0f} {line.price.unit}",
            "$ a month": lambda line: f"{line.usd:,.2f}",
            "assumes": lambda line: line.assumes,
        },
    )
    screen.say()
    for sentence in _sentences(found):
        screen.say(sentence)


def told(found: Bill) -> Told:
    """The bill with every line, as `--json` has it."""
    return Told(
        found.environment,
        found.workload,
        round(found.usd, 2),
        round(found.usd_per_tenant, 4),
        round(found.usd_per_million_changes, 4),
        round(found.merge_every_s),
        dict(found.tasks),
        round(airbyte_usd(found.workload), 2),
        tuple(_line(line) for line in found.lines),
    )


def _line(line: Line) -> dict[str, str | float]:
    return {
        "service": line.service,
        "what": line.what,
        "quantity": round(line.quantity, 3),
        "unit": line.price.unit,
        "usd": round(line.usd, 4),
        "assumes": line.assumes,
        "source": line.price.source.page,
    }


def _sentences(found: Bill) -> Iterator[str]:
    workload = found.workload
    yield (
        f"{found.environment}, {workload.tenants:,} tenants, {workload.changes_per_day:,} changes a day each: "
        f"{_usd(found.usd)} a month, {_usd(found.usd_per_tenant)} a tenant, "
        f"{_usd(found.usd_per_million_changes)} a million changes."
    )
    yield f"The lake's tables follow every {_minutes(found.merge_every_s)}; the streams within seconds."
    if found.merge_every_s > 1.05 * workload.cut_s:
        yield f"That is later than the {_minutes(workload.cut_s)} asked for: compactors have more merges than they can."
    yield "List prices of us-east-2 without free tiers and discounts; docs/cost.md says where they are from."


# -- docs/cost.md -----------------------------------------------------------------------------------------------------
def tables() -> str:
    """The tables of docs/cost.md, which a test holds to be these."""
    bills = [bill(Workload(tenants)) for tenants in TENANTS]
    by_service = [one.by_service for one in bills]
    heading = [f"{tenants:,} tenants" for tenants in TENANTS]
    rows = [
        [service, *(_usd(found.get(service, 0.0)) for found in by_service)]
        for service in dict.fromkeys(service for found in by_service for service in found)
    ]
    rows.append(["**a month**", *(f"**{_usd(one.usd)}**" for one in bills)])
    rows.append(["a tenant", *(_usd(one.usd_per_tenant) for one in bills)])
    rows.append(["a million changes", *(_usd(one.usd_per_million_changes) for one in bills)])
    rows.append(["tables follow every", *(_minutes(one.merge_every_s) for one in bills)])
    parts = [
        "### By service\n\nEnvironment `prod`, 5,000 changes a day and tenant, one ConnectWise each; a month.\n",
        _table(["", *heading], rows),
        "### By freshness of the lake\n\nThe same, with another `AVESA_CUT_AGE_MAX_S`. The streams stay as fresh.\n",
        _table(["tables follow every", *heading], [_freshness(cut_s) for cut_s in CUTS_S]),
        "### By environment\n\nTen tenants, the same changes.\n",
        _table(["environment", "a month", "of it tasks", "of it network"], [_environment(name) for name in PLATFORMS]),
        "### Line by line\n\n100 tenants in `prod`.\n",
        _table(
            ["service", "for", "quantity", "a month", "assumes"],
            [
                [line.service, line.what, f"{line.quantity:,.0f} {line.price.unit}", _usd(line.usd), line.assumes]
                for line in bill(Workload(100)).lines
            ],
        ),
        "### Beside Airbyte Cloud\n\nThe same changes as rows at its list price, which is for its part alone.\n",
        _table(
            ["", *heading],
            [
                ["AVESA, tables every 5 min", *(_usd(one.usd) for one in bills)],
                ["AVESA, tables every hour", *(_usd(bill(Workload(n, cut_s=3_600.0)).usd) for n in TENANTS)],
                ["Airbyte Cloud, rows alone", *(_usd(airbyte_usd(one.workload)) for one in bills)],
            ],
        ),
        "### Prices\n",
        _table(["service", "price", "for", "read", "source"], _prices(bills)),
    ]
    return "\n".join(parts)


def _freshness(cut_s: float) -> list[str]:
    found = [bill(Workload(tenants, cut_s=cut_s)) for tenants in TENANTS]
    late = [one.merge_every_s > 1.05 * cut_s for one in found]
    return [
        _minutes(cut_s),
        *(
            f"{_usd(one.usd)}" + (f" (in truth {_minutes(one.merge_every_s)})" if is_late else "")
            for one, is_late in zip(found, late, strict=True)
        ),
    ]


def _environment(name: str) -> list[str]:
    found = bill(Workload(10), name)
    return [f"`{name}`", _usd(found.usd), _usd(found.by_service["Fargate"]), _usd(found.by_service["Network"])]


def _prices(bills: Iterable[Bill]) -> list[list[str]]:
    seen = {(line.service, line.price.unit): line.price for one in bills for line in one.lines}
    return [
        [service, f"{price.usd:g}", f"{price.per:,.0f} {price.unit}", price.source.read, price.source.page]
        for (service, _), price in seen.items()
    ]


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _usd(dollars: float) -> str:
    return f"${dollars:,.0f}" if dollars >= 100 else f"${dollars:,.2f}"


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds < 3_600 else f"{seconds / 3_600:.1f} h".replace(".0 h", " h")
