"""The command: many seeds of many dialects, figures, and for each failing seed how to replay it.

python -m tests.dialects --seeds 0-149 [--services a,b] [--rows [34,35]] [--jobs 2] [--calm] [--say] [--endpoints a,b]
"""

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Final

from services.sandbox.vendors.hostility import ROWS
from tests.dialects.every import dialect_of, integration_of, services
from tests.dialects.seeds import Report, run_seed

SHOWN_MAX: Final = 12  # findings of a seed


def main() -> int:
    options = _options()
    chosen = options.services.split(",") if options.services else services()
    first, _, last = options.seeds.partition("-")
    seeds = list(range(int(first), int(last or first) + 1))
    asked = [(options, chosen[seed % len(chosen)], seed) for seed in seeds]
    if options.each:
        asked = [(options, service, seed) for seed in seeds for service in chosen]
    began = time.monotonic()
    reports = []
    for report in _reports(asked, options.jobs):
        reports.append(report)
        if report.findings or options.say:
            _show(report)
    return _sum_up(reports, time.monotonic() - began, strict=options.strict)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.dialects", description=__doc__)
    parser.add_argument("--seeds", default="0-9", metavar="A-B", help="one seed, or a range with both ends")
    parser.add_argument("--services", default="", metavar="A,B", help="these dialects, in turn; default: all")
    parser.add_argument("--each", action="store_true", help="every seed with every service, not in turn")
    parser.add_argument("--rows", nargs="?", const="", metavar="34,35", help="these rows and no others; alone: drawn")
    parser.add_argument("--endpoints", default="", metavar="A,B", help="these endpoints and what they need")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once")
    parser.add_argument("--calm", action="store_true", help="no hostility")
    parser.add_argument("--say", action="store_true", help="print every request and every event")
    parser.add_argument("--strict", action="store_true", help="fail if a row never struck")
    return parser.parse_args()


def _reports(asked: list[tuple[argparse.Namespace, str, int]], jobs: int) -> Iterator[Report]:
    if jobs == 1:
        yield from (_one(*one) for one in asked)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_one, *zip(*asked, strict=True))


def _one(options: argparse.Namespace, service: str, seed: int) -> Report:
    rows = [] if options.calm else [int(row) for row in options.rows.split(",")] if options.rows else None
    return asyncio.run(
        run_seed(
            dialect_of(service),
            integration_of(service),
            seed,
            rows=rows,
            endpoints=[name for name in options.endpoints.split(",") if name],
            say=options.say,
        )
    )


def _show(report: Report) -> None:
    state = "FAILED" if report.findings else "whole"
    print(f"\n{report.service} seed {report.seed} {state}: {', '.join(report.endpoints)}; struck {report.struck}")
    print(*(f"    | {line}" for line in report.said), sep="\n", end="\n" if report.said else "")
    print(*(f"    {finding}" for finding in report.findings[:SHOWN_MAX]), sep="\n")
    if report.findings:
        print(f"    replay: python -m tests.dialects --services {report.service} --seeds {report.seed} --say")


def _sum_up(reports: list[Report], seconds: float, *, strict: bool) -> int:
    struck: Counter[int] = Counter()
    for report in reports:
        struck.update(report.struck)
    failed = [f"{report.service}:{report.seed}" for report in reports if report.findings]
    print(
        f"seeds {len(reports)}, observations {sum(r.observations for r in reports)}, "
        f"changes {sum(r.changes for r in reports)}, requests {sum(r.requests for r in reports)}, "
        f"virtual hours {sum(r.virtual_s for r in reports) / 3600:.1f}"
    )
    print(*(f"row {row} ({what}): {struck[row]}" for row, what in ROWS.items()), sep="\n")
    print(
        f"lost {sum(r.lost for r in reports)}, doubled {sum(r.doubled for r in reports)}, "
        f"wrong {sum(r.wrong for r in reports)}; {len(failed)} seeds failed {failed[:20] if failed else ''}"
    )
    print(f"{seconds:.0f} s, {sum(r.real_s for r in reports) / max(1, len(reports)):.2f} s a seed")
    never = [row for row in ROWS if not struck[row]]
    if never and strict:
        print(f"rows that never struck: {never}")
    return 1 if failed or (never and strict) else 0


if __name__ == "__main__":
    sys.exit(main())
