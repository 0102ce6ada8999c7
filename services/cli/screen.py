"""Where a command speaks: results on stdout, everything else on stderr; for a person, or for a machine (`--json`).

On a terminal tables are drawn by rich. Elsewhere they are plain columns, nothing is cut, and no colour code is written.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO, TypeVar

import msgspec

from services.contracts.errors import AvesaError

T = TypeVar("T")
Columns = Mapping[str, Callable[[T], object]]


class Screen:
    """One command's voice. `standing` is what holds should the command end at this moment, in one sentence."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self.out, self.err = out or sys.stdout, err or sys.stderr
        self.as_json = False
        self.standing = ""

    # -- results ----------------------------------------------------------------------------------------------------
    def show(self, records: Iterable[T], columns: Columns[T], *, empty: str = "") -> None:
        """Records as a table with these columns; with `--json` whole, one JSON object per line."""
        if self.as_json:
            for record in records:
                self.record(record)
            return
        rows = [[_cell(read(record)) for read in columns.values()] for record in records]
        if rows:
            self._table(list(columns), rows)
        elif empty:
            self.note(empty)

    def record(self, record: Any) -> None:
        """One JSON object on one line of stdout."""
        self.out.write(msgspec.json.encode(record).decode() + "\n")

    def say(self, text: str = "") -> None:
        """A line of a result for a person; a machine gets it as JSON instead, so nothing is written with `--json`."""
        if not self.as_json:
            self.out.write(printable(text) + "\n")

    def _table(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        if self.out.isatty():
            self._drawn(headings, rows)
            return
        widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
        for row in (headings, *rows):
            line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.out.write(line.rstrip() + "\n")

    def _drawn(self, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for heading in headings:
            table.add_column(heading, overflow="fold")
        for row in rows:
            table.add_row(*map(Text, row))
        Console(file=self.out).print(table)

    # -- everything else --------------------------------------------------------------------------------------------
    def note(self, text: str) -> None:
        """A line about what is going on."""
        self.err.write(printable(text) + "\n")
        self.err.flush()

    @contextmanager
    def working(self, text: str) -> Iterator[Callable[[str], None]]:
        """Something that may take a while: a moving sign on a terminal, elsewhere a line at its beginning.

        What it yields takes news of how far it is; only a terminal shows them.
        """
        if not self.err.isatty():
            self.note(f"{text} ...")
            yield lambda _: None
            return
        from rich.console import Console
        from rich.text import Text

        with Console(file=self.err).status(Text(printable(text))) as status:
            yield lambda news: status.update(Text(printable(f"{text}: {news}")))

    def fail(self, err: AvesaError, exit_code: int) -> None:
        """What failed, where, what to do and what holds now; one JSON object with `--json`."""
        if self.as_json:
            told = {"error": err.code, "what": err.what, "where": err.where, "remedy": err.remedy}
            line = told | {"standing": self.standing, "exit_code": exit_code}
            self.err.write(msgspec.json.encode(line).decode() + "\n")
            return
        self.alarm(f"error: {err.what}")
        for name, text in (("where", err.where), ("remedy", err.remedy), ("now", self.standing)):
            if text:
                self.note(f"  {name}: {text}")

    def alarm(self, text: str) -> None:
        """A line nobody should miss."""
        if not self.err.isatty():
            self.note(text)
            return
        from rich.console import Console
        from rich.text import Text

        Console(file=self.err).print(Text(printable(text), style="bold red"), soft_wrap=True)


def printable(text: str) -> str:
    """`text` without control characters: a vendor's words must not steer the terminal."""
    return text if text.isprintable() else "".join(map(_printable, text))


def _printable(letter: str) -> str:
    if letter == "\t":
        return " "
    joins = letter in {"\N{ZERO WIDTH JOINER}", "\N{ZERO WIDTH NON-JOINER}"}  # of emoji and of Persian: no control
    return letter if letter.isprintable() or letter == "\n" or joins else "\N{REPLACEMENT CHARACTER}"


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return " ".join(printable(str(value)).split())


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 endpoint`, `2 endpoints`."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural or noun + 's'}"


def size_shown(size: int) -> str:
    """`17 kB`, `1.2 MB`."""
    if size < 1_000_000:
        return f"{-(-size // 1_000)} kB"
    return f"{size / 1_000_000:,.1f} MB"


def lasting(seconds: float) -> str:
    """`90 s`, `5 min`, `6 h`, `1 d`: in the largest unit that needs no fraction."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:g} {unit}"
    return f"{seconds:g} s"
