"""A `Runtime` over the ports in memory, for one worker."""

from collections.abc import Callable

from services.contracts.log import Event
from services.contracts.names import Names
from services.contracts.ports import Chance, Objects, Rows, Secrets, Streams, Threads
from services.runtime.leases import Leases
from services.runtime.runtime import Runtime
from tests.fakes import FakeChance, FakeClock, InlineThreads, MemoryObjects, MemorySecrets, MemoryStates


def fake_runtime(
    names: Names,
    clock: FakeClock,
    streams: Streams,
    rows: Rows,
    *,
    objects: Objects | None = None,
    secrets: Secrets | None = None,
    threads: Threads | None = None,
    chance: Chance | None = None,
    lease_s: float = 10.0,
    emit: Callable[[Event], None] = lambda _: None,
) -> Runtime:
    """A new worker: its identity is drawn from `chance`."""
    chance = chance or FakeChance(1)
    return Runtime(
        names=names,
        streams=streams,
        objects=objects or MemoryObjects(),
        rows=rows,
        secrets=secrets or MemorySecrets(),
        states=MemoryStates(),
        clock=clock,
        chance=chance,
        threads=threads or InlineThreads(),
        leases=Leases(rows, names.leases, clock, chance, emit, lease_s),
        emit=emit,
    )
