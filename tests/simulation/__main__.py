"""The command: many seeds on several cores, figures, and for each failing seed how to replay it.

python -m tests.simulation --seeds 0-299 [--jobs 2] [--rows 1,2] [--trace] [--every-row] [--digests]
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from typing import Final

import msgspec

from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import Figures, Report, rows_of, simulate

CHUNK: Final = 25  # seeds of one subprocess
TRACE_LINES_MAX: Final = 400  # of a failing seed; --trace prints all
FAILED_SHOWN_MAX: Final = 5
SEED_CPU_S_MAX: Final = 60  # no seed takes so long, however busy the machine is
TOLD_EVERY: Final = 100  # seeds; a run that is cut short has told that much


def main() -> int:
    options = _options()
    first, _, last = options.seeds.partition("-")
    seeds = list(range(int(first), int(last or first) + 1))
    if options.child:
        resource.setrlimit(resource.RLIMIT_CPU, (SEED_CPU_S_MAX * len(seeds),) * 2)
        for seed in seeds:
            with MUTATIONS[options.mutate]() if options.mutate else nullcontext():
                report = simulate(seed, options.rows, traced=options.trace)
            sys.stdout.buffer.write(msgspec.json.encode(report) + b"\n")
            sys.stdout.flush()
        return 0
    began = time.monotonic()
    figures = Figures()
    for report in _reports(seeds, options):
        figures.add(report)
        if report.findings or options.trace:
            _show(report, options, brief=len(figures.failed) > FAILED_SHOWN_MAX)
        if options.digests:
            print(f"digest of seed {report.seed}: {report.digest}")
        if figures.seeds % TOLD_EVERY == 0 and figures.seeds < len(seeds):
            print(f"so far: seeds {figures.seeds}, {_found(figures)}", flush=True)
    planned = {row for seed in seeds for row in (options.rows if options.rows is not None else rows_of(seed))}
    wanted = planned if options.every_row else set()
    never = sorted(wanted - set(figures.struck))
    _print_figures(figures, never, time.monotonic() - began)
    return 1 if figures.failed or never or figures.seeds < len(seeds) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", default="0-9", metavar="A-B", help="one seed, or a range with both ends")
    parser.add_argument("--jobs", type=int, default=2, help="processes at once")
    parser.add_argument("--rows", type=_rows, help="these rows of faults.md in every seed, and no others")
    parser.add_argument("--trace", action="store_true", help="print everything that happened, every call")
    parser.add_argument("--every-row", action="store_true", help="fail if a row that was planned never struck")
    parser.add_argument("--digests", action="store_true", help="print a digest of each history")
    parser.add_argument("--mutate", choices=sorted(MUTATIONS), help="with this mistake in the services (mutations.py)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _rows(text: str) -> tuple[int, ...]:
    return tuple(int(row) for row in text.split(",") if row)


def _reports(seeds: list[int], options: argparse.Namespace) -> Iterator[Report]:
    """As they come, from subprocesses: nothing is left over from one to the next, and hashes are the same."""
    chunk = max(1, min(CHUNK, -(-len(seeds) // options.jobs)))
    with ThreadPoolExecutor(options.jobs) as pool:
        running: list[Future[list[Report]]] = [
            pool.submit(_run, seeds[start : start + chunk], options) for start in range(0, len(seeds), chunk)
        ]
        for done in as_completed(running):
            yield from done.result()


def _run(seeds: list[int], options: argparse.Namespace) -> list[Report]:
    command = [sys.executable, "-m", "tests.simulation", "--child", "--seeds", f"{seeds[0]}-{seeds[-1]}"]
    if options.rows is not None:
        command += ["--rows", ",".join(map(str, options.rows))]
    if options.trace:
        command.append("--trace")
    if options.mutate:
        command += ["--mutate", options.mutate]
    environment = dict(os.environ, PYTHONHASHSEED="0")  # noqa: TID251  what a subprocess inherits
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    reports = [msgspec.json.decode(line, type=Report) for line in ended.stdout.splitlines()]
    if ended.returncode:
        print(f"seed {seeds[0] + len(reports)}: the simulation itself broke, exit code {ended.returncode}")
    return reports


def _show(report: Report, options: argparse.Namespace, *, brief: bool) -> None:
    rows = ",".join(map(str, report.rows))
    if not report.findings:
        print(*report.trace, sep="\n")
        print(f"seed {report.seed} (rows {rows}): whole, {report.digest}")
        return
    print(f"\nseed {report.seed} FAILED (rows {rows}; struck {report.struck})")
    for finding in report.findings[:10]:
        print(f"    {finding}")
    given = f" --rows {rows}" if options.rows is not None else ""
    print(f"    replay: python -m tests.simulation --seeds {report.seed}{given} --trace")
    if not brief:
        lines = report.trace if options.trace else report.trace[-TRACE_LINES_MAX:]
        print(*(f"    | {line}" for line in lines), sep="\n")


def _print_figures(figures: Figures, never: list[int], seconds: float) -> None:
    struck = ", ".join(f"{row}: {count}" for row, count in sorted(figures.struck.items()))
    print(
        f"seeds {figures.seeds}, observations {figures.observations}, versions {figures.versions}, "
        f"faults {sum(figures.struck.values())}, virtual hours {figures.seconds / 3600:.1f}"
    )
    print(f"struck by row of faults.md: {struck}")
    print(_found(figures))
    if never:
        print(f"rows that never struck: {never}")
    print(f"{seconds:.0f} s, {figures.cpu_s / max(1, figures.seeds):.2f} CPU seconds a seed")


def _found(figures: Figures) -> str:
    found = figures.findings
    return (
        f"lost {found['lost']}, doubled {found['doubled']}, wrong {found['wrong']}, stalls {found['stalled']}, "
        f"crashes {found['crashed']}, silent {found['silent']}; {len(figures.failed)} seeds failed"
        + (f": {figures.failed[:20]}" if figures.failed else "")
    )


if __name__ == "__main__":
    sys.exit(main())
