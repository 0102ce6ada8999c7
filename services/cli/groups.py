"""Which groups read the streams, and where they come into each other's way. Pure."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, Self

import msgspec

from services.cli.stages import Reader
from services.contracts.times import UtcTime

if TYPE_CHECKING:  # brings asyncio along, which `avesa --help` does without
    from services.transformer.groups import Binding

SERVICE: Final = "transformer"  # transformer/groups.py
# A shard answers 5 reads a second and 2 MiB/s, for all together that poll it; a reader with enhanced fan-out has its
# own 2 MiB/s: AWS developer guide, Kinesis Data Streams quotas and limits.
POLLING_MAX: Final = 2


class Group(msgspec.Struct, frozen=True, tag_field="kind", tag="group"):
    """A group of transformers and the canonical tables it routes: `tables`, or, where that is None, all but `others`.
    It was bound so `at`."""

    group: str = SERVICE
    tables: tuple[str, ...] | None = None
    others: tuple[str, ...] = ()
    fan_out: bool = False
    at: UtcTime | None = None

    @classmethod
    def of(cls, binding: "Binding") -> Self:
        return cls(binding.group, binding.tables, binding.others, binding.fan_out, binding.at)

    def routes_table(self, table: str) -> bool:
        return table not in self.others if self.tables is None else table in self.tables

    @property
    def covers(self) -> str:
        """`tickets, time_entries`, or `all but tickets`."""
        if self.tables is not None:
            return ", ".join(self.tables)
        return f"all but {', '.join(self.others)}" if self.others else "all"

    @property
    def is_default(self) -> bool:
        """The group that there always is."""
        return self.group == SERVICE

    @property
    def start(self) -> str:
        """The command that starts a worker of it."""
        options = [self._command]
        if self.tables is not None:
            options.append(f"--tables {','.join(self.tables)}")
        elif self.others:
            options.append(f"--except-tables {','.join(self.others)}")
        if self.fan_out:
            options.append("--fan-out")
        return " ".join(options)

    @property
    def forget(self) -> str:
        """The command that takes it from those that are expected to run."""
        return f"{self._command} --forget"

    @property
    def _command(self) -> str:
        own = self.group.removeprefix(f"{SERVICE}-")
        return f"avesa {SERVICE}" if self.is_default else f"avesa {SERVICE} --group {own}"


def readers(found: Iterable[Group], raw: str, canonical: str) -> tuple[Reader, ...]:
    """Who reads which stream, in the order in which data go."""
    return (
        *(Reader("transformer", group.group, raw) for group in found),
        Reader("compactor", "compactor", raw),
        Reader("compactor", "compactor", canonical),
    )


def crowded(found: Iterable[Group], reading: Iterable[Reader]) -> dict[str, tuple[str, ...]]:
    """The groups that poll a stream, by stream, where they are more than its shards have room for."""
    own = {group.group for group in found if group.fan_out}
    polling: dict[str, list[str]] = {}
    for reader in reading:
        if reader.group not in own:
            polling.setdefault(reader.stream, []).append(reader.group)
    return {stream: tuple(names) for stream, names in polling.items() if len(names) > POLLING_MAX}


def shared(found: Sequence[Group], tables: Iterable[str]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Tables that more than one group transforms, or none, by those groups."""
    by_groups: dict[tuple[str, ...], list[str]] = {}
    for table in tables:
        names = tuple(group.group for group in found if group.routes_table(table))
        if len(names) != 1:
            by_groups.setdefault(names, []).append(table)
    return {names: tuple(some) for names, some in by_groups.items()}
