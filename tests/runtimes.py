"""A `Runtime` over the ports in memory, for one worker."""

from collections.abc import Callable

from services.contracts.log import Event
from services.contracts.names import Names
from services.contracts.ports import Objects, Rows, Streams
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
    seed: int = 1,
    lease_s: float = 10.0,
    emit: Callable[[Event], None] = lambda _: None,
) -> Runtime:
    """A new worker: its identity follows from `seed`."""
    chance = FakeChance(seed)
    return Runtime(
        names=names,
        streams=streams,
        objects=objects or MemoryObjects(),
        rows=rows,
        secrets=MemorySecrets(),
        states=MemoryStates(),
        clock=clock,
        chance=chance,
        threads=InlineThreads(),
        leases=Leases(rows, names.leases, clock, chance, emit, lease_s),
        emit=emit,
    )
