"""The signs of life of a service: once a minute that it runs, and what it measures of itself.

Logs stay silent of them; as metrics (`log.py`) they are what alarms and scaling live on: one that is missing tells
more than any that could be sent.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from services.contracts.log import Event, ServiceAlive, ShardsBehind
from services.runtime.loop import Part, pause
from services.runtime.runtime import Runtime
from services.runtime.shards import behind_ms

EVERY_S: Final = 60.0  # the period of the alarms on it: infra/terraform/modules/observability

Measure = Callable[[], Iterable[Event]]


def beat(runtime: Runtime, service: str, group: str, measure: Measure) -> Part:
    """A part for `run_together`: every `EVERY_S`, from the start on and until it is to stop.

    `group` is the fleet that shares the work of this process.
    """

    async def run(stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            runtime.emit(ServiceAlive(service=service, group=group))
            for event in measure():
                runtime.emit(event)
            await pause(runtime.clock, stopping, EVERY_S)

    return run


def shards_behind(runtime: Runtime, service: str, group: str) -> ShardsBehind:
    """How far the shards that this process holds are behind."""
    return ShardsBehind(service=service, group=group, ms=behind_ms(runtime.leases, group))
