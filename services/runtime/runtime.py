"""What a service is handed when it starts: the world, as ports."""

import msgspec

from services.contracts.names import Names
from services.contracts.ports import Chance, Clock, Objects, Rows, Secrets, StateFactory, Streams, Threads
from services.runtime.dead_letters import DeadLetters
from services.runtime.leases import Leases
from services.runtime.log import Emit
from services.runtime.publisher import Publisher


class Runtime(msgspec.Struct, frozen=True):
    """Everything outside a service, for one worker of one environment."""

    names: Names
    streams: Streams
    objects: Objects
    rows: Rows
    secrets: Secrets
    states: StateFactory
    clock: Clock
    chance: Chance
    threads: Threads
    leases: Leases
    emit: Emit

    def publisher(self, stream: str) -> Publisher:
        return Publisher(stream, self.streams, self.objects, self.clock, self.chance, self.emit)

    @property
    def dead_letters(self) -> DeadLetters:
        return DeadLetters(self.objects)
