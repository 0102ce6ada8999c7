"""What happened, in order: kept in full, printed on demand, and digested so that two runs can be compared."""

import hashlib
from collections.abc import Iterator
from typing import Final

import msgspec

CALL: Final = "call"  # what is printed only with --trace


class Line(msgspec.Struct, frozen=True, gc=False):
    """One thing that happened. `at` is virtual seconds since the start; `who` a process, or what it happened to."""

    at: float
    who: str
    kind: str
    what: str

    @property
    def text(self) -> str:
        return f"{self.at:9.3f}  {self.who:<16} {self.kind:<9} {self.what}"


class Trace:
    """The lines of one history."""

    def __init__(self) -> None:
        self.lines: list[Line] = []

    def add(self, at: float, who: str, kind: str, what: str) -> None:
        self.lines.append(Line(at, who, kind, what))

    def digest(self) -> str:
        """The same for the same history, and for no other."""
        found = hashlib.blake2b(digest_size=16)
        for line in self.lines:
            found.update(line.text.encode())
        return found.hexdigest()

    def text(self, *, calls: bool) -> Iterator[str]:
        """Lines for a person; every call only if asked."""
        return (line.text for line in self.lines if calls or line.kind != CALL)
