"""Dead letters of one endpoint: each unusable record or answer is written once, however often it is read."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from services.contracts.errors import AvesaError, Code, RejectedError
from services.contracts.log import RecordsRejected
from services.extractor.ledger import Desk
from services.extractor.records import BadRecord
from services.runtime.dead_letters import DeadLetter, letter_body

LETTERS_MAX: Final = 10_000  # different unusable records of one endpoint; beyond, it stops and says so
_REMEDIES: Final[Mapping[Code, str]] = {
    "bad_answer": "Ask the vendor's API for this page and compare: `records`, `format` or `pagination` may be wrong.",
    "missing_key": "Correct `record_id` in the integration file, or ask the vendor why this record has none.",
    "unreadable_time": "Correct `updated_at` in the integration file; where records carry no such time, leave it out.",
    "payload_unreadable": "The vendor sent no valid JSON, twice; read it again later, and tell the vendor if it stays.",
    "too_large": "Leave the large part out with `drop` or by the fields that are asked for.",
}
_REMEDY: Final = "Compare the integration file with what the vendor answers (`avesa check`)."


class Letters:
    """What of an endpoint could not be used since we own it."""

    def __init__(self, desk: Desk, endpoint: str) -> None:
        self._desk, self._endpoint = desk, endpoint
        self._written: set[str] = set()

    async def write(self, bad: Iterable[BadRecord], source: str) -> None:
        """Records that cannot be used; `source` is the request that brought them, without credentials.

        Durable when this returns. Errors: RetryableError; RejectedError when there are too many.
        """
        new: list[BadRecord] = []
        for record in bad:
            if await self._write(record, source, record.data):
                new.append(record)
        for code, count in Counter(record.code for record in new).items():
            self._tell(code, count, next(record.reason for record in new if record.code == code))

    async def write_answer(self, err: AvesaError) -> None:
        """An answer that is not what the integration file says: the request and the reason; the answer itself stays
        out, for nobody can tell where in it a password stands. Errors: as `write`."""
        if await self._write(BadRecord(err.code, err.what, b""), err.where, f"{err.where}\n{err.what}".encode()):
            self._tell(err.code, 1, err.what)

    async def _write(self, record: BadRecord, source: str, known_by: bytes) -> bool:
        """False where it was written before."""
        letter = self._letter(record, source, known_by)
        if letter.position in self._written:
            return False
        if len(self._written) >= LETTERS_MAX:
            raise RejectedError(
                f"more than {LETTERS_MAX} records cannot be used ({record.reason})",
                code=record.code,
                remedy="See the dead letters: the mapping of this endpoint may be wrong.",
            )
        await self._desk.runtime.dead_letters.write([letter])
        self._written.add(letter.position)
        return True

    def _tell(self, code: Code, count: int, first: str) -> None:
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

    def _letter(self, record: BadRecord, source: str, known_by: bytes) -> DeadLetter:
        place = f"{self._desk.service}\n{self._endpoint}\n".encode()
        body = letter_body(record.data)
        return DeadLetter(
            tenant_id=self._desk.tenant_id,
            stage="extract",
            group=self._endpoint,
            position=hashlib.blake2b(place + known_by, digest_size=16).hexdigest(),
            code=record.code,
            reason=record.reason,
            at=self._desk.runtime.clock.now(),
            where=f"{self._desk.service} {source}",
            record_id=record.record_id,
            remedy=_REMEDIES.get(record.code, _REMEDY),
            text=body.get("text"),
            base64=body.get("base64"),
        )
