"""Dead letters of one endpoint: each unusable record is written once, however often it is read."""

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Final

from services.contracts.errors import RejectedError
from services.contracts.log import RecordsRejected
from services.extractor.ledger import Desk
from services.extractor.records import BadRecord
from services.runtime.dead_letters import DeadLetter, letter_body

LETTERS_MAX: Final = 10_000  # different unusable records of one endpoint; beyond, it stops and says so


class Letters:
    """What of an endpoint could not be used since we own it."""

    def __init__(self, desk: Desk, endpoint: str) -> None:
        self._desk, self._endpoint = desk, endpoint
        self._written: set[str] = set()

    async def write(self, bad: Iterable[BadRecord], source: str) -> None:
        """Durable when this returns. Errors: RetryableError; RejectedError when there are too many."""
        new: list[BadRecord] = []
        for record in bad:
            letter = self._letter(record, source)
            if letter.position in self._written:
                continue
            if len(self._written) >= LETTERS_MAX:
                raise RejectedError(
                    f"more than {LETTERS_MAX} records cannot be used ({record.reason})",
                    code=record.code,
                    remedy="See the dead letters: the mapping of this endpoint may be wrong.",
                )
            await self._desk.runtime.dead_letters.write([letter])
            self._written.add(letter.position)
            new.append(record)
        for code, count in Counter(record.code for record in new).items():
            first = next(record.reason for record in new if record.code == code)
            self._desk.runtime.emit(
                RecordsRejected(
                    stage="extract",
                    tenant_id=self._desk.tenant_id,
                    group=self._endpoint,
                    code=code,
                    count=count,
                    first=first,
                )
            )

    def _letter(self, record: BadRecord, source: str) -> DeadLetter:
        place = f"{self._desk.service}\n{self._endpoint}\n".encode()
        body = letter_body(record.data)
        return DeadLetter(
            tenant_id=self._desk.tenant_id,
            stage="extract",
            group=self._endpoint,
            position=hashlib.blake2b(place + record.data, digest_size=16).hexdigest(),
            code=record.code,
            reason=record.reason,
            at=self._desk.runtime.clock.now(),
            where=f"{self._desk.service} {source}",
            record_id=record.record_id,
            text=body.get("text"),
            base64=body.get("base64"),
        )
