"""One made-up record for `avesa smoke`: seen new, seen changed, seen deleted, as the extractor would have published it.

The vendor is the sandbox's, so the payload is as the vendor's description has it and the shipped mapping takes it.
"""

from datetime import datetime
from random import Random

import msgspec

from services.contracts.events import ChangeEvent
from services.contracts.partitions import Partition
from services.contracts.times import UtcTime, utc_text
from services.sandbox.sites import Keys
from services.sandbox.times import moment_of, seconds_of, text_of
from services.sandbox.world import World

SERVICE = "connectwise"
ENDPOINT, PATH, TABLE = "companies", "company/companies", "companies"
SITE = "smoke"


class Sample(msgspec.Struct, frozen=True):
    """The observations of one record, in order, and the history they have to become: [from, to) of each version."""

    partition: Partition
    endpoint: str
    table: str
    record_id: str
    events: tuple[ChangeEvent, ...]
    versions: tuple[tuple[UtcTime, UtcTime], ...]


def sample(tenant_id: str, now: datetime, seed: int = 1) -> Sample:
    """A record that was made three seconds before `now`, renamed a second later, and deleted the second after."""
    world = World(lambda: now, Random(seed))
    world.add_site(SITE, Keys(SITE, "", "", ""))
    world.populate(SITE, {}, minimum=1)
    made_s = seconds_of(now) - 3
    entry = world.create(SITE, PATH, stamped_at=made_s)
    world.update(SITE, PATH, entry.id, {"name": f"Smoke test {tenant_id}"}, stamped_at=made_s + 1)
    first, second, gone = (utc_text(moment_of(text_of(made_s + step))) for step in range(3))

    def seen(version: int, at: UtcTime) -> ChangeEvent:
        payload = msgspec.Raw(world.state(SITE, PATH, entry.id, version))
        return ChangeEvent(tenant_id, SERVICE, ENDPOINT, str(entry.id), "upsert", at, at, "vendor", SITE, payload)

    events = (
        seen(1, first),
        seen(2, second),
        ChangeEvent(tenant_id, SERVICE, ENDPOINT, str(entry.id), "delete", gone, gone, "sweep", SITE),
    )
    partition = Partition(tenant_id, SERVICE, ENDPOINT)
    return Sample(partition, ENDPOINT, TABLE, str(entry.id), events, ((first, second), (second, gone)))
