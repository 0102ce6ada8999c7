"""Groups: fleets of transformers, each bound to some canonical tables, with leases, positions, state, scaling and
failure of its own.

A position is past every event before it, also past those of tables that the group was not bound to. So a group may
leave tables to others at any time, and never takes one back: what had passed would be missing. Two things hold it to
that. A row per group remembers its binding, by which a start is judged, and whoever runs with another binding ends
(`watch`). And each position says which tables it accounts for (`Binding.bound`, `refuse_others`), in the same write as
the position itself: whatever the timing, no worker goes on from a position that has passed what it is bound to.
"""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from services.contracts.errors import ConflictError, FatalError, NotFoundError, RetryableError, UsageError
from services.contracts.hints import did_you_mean
from services.contracts.log import WaitingFor
from services.contracts.ports import Row, Value
from services.contracts.times import UtcTime
from services.runtime.loop import pause
from services.runtime.runtime import Runtime
from services.runtime.shards import scope_of

SERVICE: Final = "transformer"  # also the group of who names none
SCOPE: Final = "groups"  # of the rows, in the table of leases
NAME_PATTERN: Final = re.compile(r"[a-z0-9-]{1,32}")
WATCH_S: Final = 30.0
ATTEMPTS_MAX: Final = 8  # in a row, with growing pauses: about a minute
PAUSE_FIRST_S, PAUSE_MAX_S = 0.5, 15.0


class Binding(msgspec.Struct, frozen=True):
    """A group and the canonical tables it routes: `tables`, or, where that is None, every table but `others`.

    `group` is `transformer`, or `transformer-{name}`: the first part of its lease scopes and the name of its row. `at`
    is when it was last bound otherwise than before.
    """

    group: str = SERVICE
    tables: tuple[str, ...] | None = None
    others: tuple[str, ...] = ()
    fan_out: bool = False
    at: UtcTime | None = None

    def routes_table(self, table: str) -> bool:
        return table not in self.others if self.tables is None else table in self.tables

    @property
    def consumer(self) -> str:
        """The name under which it is registered with a stream, where it uses enhanced fan-out."""
        return f"avesa-{self.group}"

    @property
    def bound(self) -> dict[str, Value] | None:
        """What a position committed under this binding accounts for, to be written beside it; None: every table."""
        if self.tables is not None:
            return {"tables": self.tables}
        return {"except": self.others} if self.others else None

    def missing_from(self, held: "Binding") -> str:
        """What of our tables `held` does not route, in words; nothing where it routes them all."""
        if self.tables is not None:
            return ", ".join(table for table in self.tables if not held.routes_table(table))
        if held.tables is not None:
            return f"all but {', '.join(held.tables)}"
        return ", ".join(table for table in held.others if table not in self.others)

    def same_tables(self, other: "Binding") -> bool:
        return (self.tables, self.others) == (other.tables, other.others)


ALL_TABLES: Final = Binding()


def bind(
    group: str | None, tables: str | None, except_tables: str | None, known: Sequence[str], *, fan_out: bool = False
) -> Binding:
    """What the command line asks for; `tables` and `except_tables` are names parted by commas.

    Errors: UsageError for a group or table that cannot be, and for tables without a group.
    """
    if group is not None and not NAME_PATTERN.fullmatch(group):
        remedy = "Use up to 32 small letters, digits and '-'."
        raise UsageError(f"{group!r} is no name of a group", where="--group", remedy=remedy)
    if tables is not None and except_tables is not None:
        raise UsageError("--tables and --except-tables say the same thing twice", remedy="Give one of them.")
    if tables is not None and group is None:
        raise UsageError(
            "--tables needs a --group: the position that all tables share would pass the events of the others",
            where="--tables",
            remedy=f"Add a name, such as --group {tables.split(',')[0].strip().replace('_', '-') or 'mine'}.",
        )
    return Binding(
        SERVICE if group is None else f"{SERVICE}-{group}",
        None if tables is None else _named(tables, "--tables", known),
        () if except_tables is None else _named(except_tables, "--except-tables", known),
        fan_out,
    )


def _named(text: str, option: str, known: Sequence[str]) -> tuple[str, ...]:
    names = sorted({name.strip() for name in text.split(",") if name.strip()})
    if not names:
        raise UsageError("this names no table", where=option, remedy=f"Known: {', '.join(known)}.")
    for name in names:
        if name not in known:
            remedy = f"{did_you_mean(name, known)} Known: {', '.join(known)}.".strip()
            raise UsageError(f"there is no canonical table {name!r}", code="unknown_table", where=option, remedy=remedy)
    return tuple(names)


def binding(row: Mapping[str, Any]) -> Binding:
    """What the row of a group says."""
    return Binding(row["name"], *_tables(row), bool(row.get("fan_out")), row.get("at"))


def _tables(row: Mapping[str, Any]) -> tuple[tuple[str, ...] | None, tuple[str, ...]]:
    tables = row.get("tables")
    return None if tables is None else tuple(tables), tuple(row.get("except") or ())


def bindings(rows: Iterable[Row]) -> tuple[Binding, ...]:
    """Every group that is remembered, and the one that there always is."""
    found = {one.group: one for one in map(binding, rows)}
    return tuple(({SERVICE: ALL_TABLES} | found).values())


def refuse_others(mine: Binding, rows: Iterable[Row]) -> None:
    """Whoever is to go on from the positions in `rows` (a shard's, its parents') must find all its tables in them.

    Errors: FatalError where one is past events of a table that `mine` routes.
    """
    for row in rows:
        if row.get("position") is None and not row.get("ended"):
            continue
        missing = mine.missing_from(Binding(mine.group, *_tables(row.get("bound") or {})))
        if missing:
            raise _passed(mine, missing, f"{row['scope']}/{row['name']}")


def _passed(mine: Binding, missing: str, where: str) -> FatalError:
    return FatalError(
        f"the group {mine.group} has left tables to others ({missing}) and is past their events",
        code="usage",
        where=where,
        remedy="Start them under a --group that is new: it begins with the oldest event that the stream holds. What is "
        "older comes from the archive: avesa replay.",
    )


# -- the small shell --------------------------------------------------------------------------------------------------
async def join(runtime: Runtime, wanted: Binding) -> None:
    """Remember how the group is bound from now on.

    Errors: FatalError when it has left one of these tables to others and has worked since; a RetryableError that
    outlasts ATTEMPTS_MAX.
    """
    for attempt in range(1, ATTEMPTS_MAX):
        try:
            return await _bind(runtime, wanted)
        except RetryableError as err:
            runtime.emit(WaitingFor(what=f"the row of the group {wanted.group}", why=str(err)))
            await runtime.clock.sleep(min(PAUSE_MAX_S, PAUSE_FIRST_S * 2**attempt))
    return await _bind(runtime, wanted)


async def _bind(runtime: Runtime, wanted: Binding) -> None:
    row = await runtime.rows.get(runtime.names.leases, _key(wanted))
    held = None if row is None else binding(row)
    if held is not None and held.same_tables(wanted) and held.fan_out == wanted.fan_out:
        return
    missing = wanted.missing_from(held) if held is not None else ""
    if missing and await _has_worked(runtime, wanted.group):
        raise _passed(wanted, missing, wanted.group)
    number = None if row is None else int(row["number"])
    values: dict[str, Value] = {
        "tables": wanted.tables,
        "except": wanted.others or None,
        "fan_out": wanted.fan_out,
        "at": runtime.clock.now(),
        "number": (number or 0) + 1,
    }
    try:
        await runtime.rows.write(runtime.names.leases, _key(wanted), values, expect={"number": number})
    except ConflictError as err:  # another start, or the answer to our own was lost: what stands there now decides
        raise RetryableError(f"another start has just bound {wanted.group}", code="conflict") from err


async def watch(runtime: Runtime, mine: Binding, stopping: asyncio.Event) -> None:
    """Until `stopping` is set: see that the group is still bound as we are, and is remembered.

    Errors: FatalError when another start has bound it to other tables.
    """
    while not stopping.is_set():
        await pause(runtime.clock, stopping, WATCH_S)
        try:
            row = await runtime.rows.get(runtime.names.leases, _key(mine))
            if row is None:
                await _bind(runtime, mine)
        except RetryableError:
            continue  # the next look will tell
        if row is not None and not binding(row).same_tables(mine):
            raise FatalError(
                f"another start has bound the group {mine.group} to other tables",
                code="usage",
                where=mine.group,
                remedy="All workers of a group take the same --tables and --except-tables.",
            )


async def remembered(runtime: Runtime) -> tuple[Binding, ...]:
    """Every group there is. Errors: RetryableError."""
    return bindings([row async for row in runtime.rows.query(runtime.names.leases, {"scope": SCOPE})])


async def forget(runtime: Runtime, group: str) -> None:
    """Nobody runs this group any more. Its positions stay, and what they account for: it may come back as it was.

    Errors: UsageError where it is the one there always is, or nobody knows it.
    """
    known = [one.group for one in await remembered(runtime) if one.group != SERVICE]
    if group not in known:
        told = ", ".join(name.removeprefix(f"{SERVICE}-") for name in known) or "none"
        raise UsageError("this is no group that could be forgotten", where="--group", remedy=f"Known: {told}.")
    await runtime.rows.delete(runtime.names.leases, {"scope": SCOPE, "name": group})


def _key(one: Binding) -> dict[str, str]:
    return {"scope": SCOPE, "name": one.group}


async def _has_worked(runtime: Runtime, group: str) -> bool:
    try:
        created = (await runtime.streams.describe(runtime.names.raw_stream)).created
    except NotFoundError:
        return False
    scope = {"scope": scope_of(runtime.names.raw_stream, created, group)}
    rows = [row async for row in runtime.rows.query(runtime.names.leases, scope)]
    return any(row.get("position") is not None or row.get("ended") for row in rows)
