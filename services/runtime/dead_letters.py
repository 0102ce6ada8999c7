"""The dead-letter store: what could not be used, with its bytes and the reason, named by position and written once."""

import base64
import contextlib
from collections.abc import Sequence

import msgspec

from services.contracts.errors import ConflictError
from services.contracts.names import dead_letter_key
from services.contracts.ports import Objects
from services.contracts.times import UtcTime


class DeadLetter(msgspec.Struct, frozen=True):
    """One thing that could not be used.

    `position` names where it was met (shard and sequence and line, or request and record), so that meeting it again
    writes the same object. `text` is what was met as it stood, or `base64` where it is not text; `where` is the place
    in it or of it; `remedy` is what a person may do.
    """

    tenant_id: str
    stage: str  # extract, transform, compact, merge
    group: str  # endpoint or table
    position: str
    code: str
    reason: str
    at: UtcTime
    where: str = ""
    record_id: str = ""
    remedy: str = ""
    text: str | None = None
    base64: str | None = None
    attempts: int = 1


def letter_body(data: bytes) -> dict[str, str]:
    """`data` as the field of a letter that can hold it."""
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


class DeadLetters:
    """Writes letters to the object store. Errors: RetryableError; a letter is never dropped."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def write(self, letters: Sequence[DeadLetter]) -> None:
        for letter in letters:
            key = dead_letter_key(letter.tenant_id, letter.stage, letter.group, letter.position)
            with contextlib.suppress(ConflictError):  # met before, at another time: the first letter stands
                await self._objects.create(key, msgspec.json.encode(letter))
