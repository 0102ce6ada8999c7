"""The services with one mistake each, to prove that the simulation would find it: `--mutate fence`.

Each breaks one of the four promises that everything else stands on. Only for tests; nothing here is imported by a
service.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from services.contracts.ports import Put, Value
from services.runtime import shards
from services.runtime.commits import NUMBER, Commits
from services.runtime.publisher import Publisher
from services.runtime.tickets import Held
from services.transformer.shard import ShardRun
from tests.simulation.aws import THROTTLED

REFUSED: Final = frozenset({THROTTLED, "InternalFailure"})


@contextmanager
def _replaced(owner: object, name: str, value: object) -> Iterator[None]:
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def order() -> AbstractContextManager[None]:
    """The transformer commits its position before its output is acknowledged."""
    commit = ShardRun._commit

    async def too_early(run: ShardRun, values: Mapping[str, Value], cut: Any) -> None:
        tickets, cut.tickets = cut.tickets, []
        await commit(run, values, cut)
        for ticket in tickets:
            await ticket.stored()

    return _replaced(ShardRun, "_commit", too_early)


def fence() -> AbstractContextManager[None]:
    """A commit is written whoever owns the row now."""

    async def unconditional(commits: Commits, values: Mapping[str, Value], fence: Mapping[str, Value]) -> None:
        del fence
        await commits._rows.write(commits._table, commits._key, {**values, NUMBER: commits.number + 1})
        commits.number += 1

    return _replaced(Commits, "commit", unconditional)


def parents() -> AbstractContextManager[None]:
    """Every shard is read as soon as it is known."""
    return _replaced(shards, "ready", lambda *_: True)


def retry() -> AbstractContextManager[None]:
    """Entries that a PutRecords did not take count as stored."""
    put = Publisher._put

    async def believing(publisher: Publisher, heads: Sequence[Held]) -> tuple[list[Put], float]:
        results, asked_s = await put(publisher, heads)
        return [Put("", "0") if result.error in REFUSED else result for result in results], asked_s

    return _replaced(Publisher, "_put", believing)


MUTATIONS: Final[dict[str, Callable[[], AbstractContextManager[None]]]] = {
    "order": order,
    "fence": fence,
    "parents": parents,
    "retry": retry,
}
