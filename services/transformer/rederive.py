"""The raw archive through a mapping once more: what the transformer would make of these events, had it read them with
this mapping. Labels stay unknown: they are advice for live readers. Pure.
"""

from collections.abc import Iterable

import msgspec

from services.contracts.envelope import checksum
from services.contracts.errors import RejectedError
from services.contracts.events import CanonicalEvent, ChangeEvent
from services.contracts.times import UtcTime
from services.runtime.dead_letters import DeadLetter
from services.runtime.envelopes import OVERSIZE_BYTES_MAX
from services.transformer.batches import letter
from services.transformer.mapper import Mapper
from services.transformer.pinned import Pinned


class Rederived(msgspec.Struct):
    """Observations of one table, and letters for what its mapping cannot use."""

    events: list[CanonicalEvent] = []
    letters: list[DeadLetter] = []


class Rederiver:
    """One pinned mapping. Errors, when made: UsageError `bad_mapping`."""

    def __init__(self, pinned: Pinned) -> None:
        self._of, self._mapper = (pinned.tenant_id, pinned.service), Mapper(pinned)

    def rederive(self, events: Iterable[ChangeEvent], at: UtcTime) -> Rederived:
        """Events of one tenant's service; those of another that share its folder are passed over.

        A letter is named by the mapping and by what the event says: the archive does not know where in the stream it
        stood, and to meet it again writes the same letter.
        """
        found = Rederived()
        for event in events:
            if (event.tenant_id, event.service) != self._of:
                continue
            try:
                mapped = self._mapped(event)
            except RejectedError as err:
                data = msgspec.json.encode(event)
                position = f"raw-{self._mapper.mapping_version:06d}-{checksum(data)}"
                found.letters.append(letter(event.tenant_id, event.endpoint, position, data, err, at, event.record_id))
            else:
                if mapped is not None:
                    found.events.append(mapped)
        return found

    def _mapped(self, event: ChangeEvent) -> CanonicalEvent | None:
        mapped = self._mapper.map(event)
        if mapped is not None and not isinstance(mapped.row, msgspec.UnsetType):
            size = len(bytes(mapped.row))
            if size >= OVERSIZE_BYTES_MAX:
                raise RejectedError(f"a canonical row of {size} bytes", code="too_large")
        return mapped
