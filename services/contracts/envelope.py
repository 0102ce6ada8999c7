"""An envelope: one Kinesis record, holding events of one partition and one endpoint.

    4 bytes  magic "AVE1"
    4 bytes  length of the header, big endian
    header   JSON of `Header`
    body     zstd of NDJSON, one event a line; empty when `object_key` says where the body lies

A consumer learns from the header alone whether the body concerns it. Sealing and opening (zstd) is
`services/runtime/envelopes.py`; this module is the format.
"""

import hashlib

import msgspec

from services.contracts.errors import RejectedError
from services.contracts.partitions import Partition

MAGIC = b"AVE1"
# PutRecords takes 1 MiB a record and 500 records or 5 MiB a request: AWS API reference. NDJSON of 900,000 bytes fits
# one record even where zstd finds nothing to save. An envelope is bounded in time, too: it is sealed from what one page
# or read brought, at once, and never waits to become fuller.
BODY_BYTES_MAX = 900_000
HEADER_BYTES_MAX = 4_096


class Header(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a reader knows of an envelope without opening it.

    Units: `body_bytes` is the NDJSON before compression; `checksum` the 128-bit digest of it, in hex. A body too
    large for a stream lies in the object `object_key`.
    """

    version: int
    partition: Partition
    endpoint: str
    count: int
    body_bytes: int
    checksum: str
    replay: bool = False
    object_key: str | None = None


def checksum(body: bytes) -> str:
    """128-bit digest of a body, 32 hex digits."""
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def join(header: Header, packed: bytes) -> bytes:
    """The bytes of one stream record."""
    encoded = msgspec.json.encode(header)
    return b"".join((MAGIC, len(encoded).to_bytes(4, "big"), encoded, packed))


def split(data: bytes) -> tuple[Header, bytes]:
    """Header and packed body of one stream record.

    Errors: RejectedError `bad_envelope` for anything that is not one.
    """
    length = int.from_bytes(data[4:8], "big")
    if data[:4] != MAGIC or length > HEADER_BYTES_MAX:
        raise RejectedError("not an AVESA envelope", code="bad_envelope")
    try:
        header = msgspec.json.decode(data[8 : 8 + length], type=Header)
    except msgspec.DecodeError as err:
        raise RejectedError(f"the envelope's header cannot be read ({err})", code="bad_envelope") from err
    if header.version != 1:
        raise RejectedError(f"envelope version {header.version} is not known here", code="bad_envelope")
    return header, data[8 + length :]


def chunks(lines: list[bytes], bytes_max: int = BODY_BYTES_MAX) -> list[list[bytes]]:
    """Lines cut into bodies of at most `bytes_max`, in order; a line longer than that stands alone."""
    bodies: list[list[bytes]] = []
    size = bytes_max
    for line in lines:
        if size + len(line) + 1 > bytes_max:
            bodies.append([])
            size = 0
        bodies[-1].append(line)
        size += len(line) + 1
    return bodies
