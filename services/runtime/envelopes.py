"""Sealing events into envelopes and opening them again: the one place that compresses."""

import msgspec
import zstandard

from services.contracts.envelope import BODY_BYTES_MAX, Header, checksum, chunks, join
from services.contracts.errors import RejectedError
from services.contracts.names import oversize_key
from services.contracts.partitions import Partition

ZSTD_LEVEL = 3
OVERSIZE_BYTES_MAX = 64 * 1024 * 1024  # one event larger than this is a dead letter: memory stays bounded


class Sealed(msgspec.Struct, frozen=True, gc=False):
    """One envelope, ready to put. `beside` is the body that must lie in `header.object_key` first, if there is one."""

    header: Header
    data: bytes
    beside: bytes | None = None


def seal(partition: Partition, endpoint: str, lines: list[bytes], *, replay: bool = False) -> list[Sealed]:
    """Events (one JSON line each, of one partition and endpoint) as envelopes, in order.

    Errors: RejectedError `too_large` for a line beyond `OVERSIZE_BYTES_MAX`.
    """
    return [_seal(partition, endpoint, body, replay) for body in chunks(lines)]


def _seal(partition: Partition, endpoint: str, lines: list[bytes], replay: bool) -> Sealed:
    body = b"\n".join(lines) + b"\n"
    if len(body) > OVERSIZE_BYTES_MAX:
        raise RejectedError(f"one event of {len(body)} bytes is larger than {OVERSIZE_BYTES_MAX}", code="too_large")
    header = Header(1, partition, endpoint, len(lines), len(body), checksum(body), replay)
    packed = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(body)
    if len(body) <= BODY_BYTES_MAX:
        return Sealed(header, join(header, packed))
    aside = msgspec.structs.replace(header, object_key=oversize_key(partition.tenant_id, header.checksum))
    return Sealed(aside, join(aside, b""), packed)


def unseal(header: Header, packed: bytes) -> list[bytes]:
    """The event lines of an envelope's body.

    Errors: RejectedError `bad_envelope` where zstd, length, checksum or count disagree with the header.
    """
    if not 0 <= header.body_bytes <= OVERSIZE_BYTES_MAX:
        raise RejectedError(f"an envelope claims {header.body_bytes} bytes", code="bad_envelope")
    try:
        body = zstandard.ZstdDecompressor().decompress(packed, max_output_size=header.body_bytes)
    except zstandard.ZstdError as err:
        raise RejectedError(f"the envelope's body cannot be decompressed ({err})", code="bad_envelope") from err
    lines = body.removesuffix(b"\n").split(b"\n")  # not splitlines: a form feed is no end of line
    if len(body) != header.body_bytes or checksum(body) != header.checksum or len(lines) != header.count:
        raise RejectedError("the envelope's body is not the one its header describes", code="bad_envelope")
    return lines


def pack(data: bytes) -> bytes:
    """zstd, for snapshots and other objects of our own."""
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(data)


def unpack(data: bytes, bytes_max: int = 1 << 31) -> bytes:
    """Errors: RejectedError `bad_envelope`."""
    try:
        return zstandard.ZstdDecompressor().decompress(data, max_output_size=bytes_max)
    except zstandard.ZstdError as err:
        raise RejectedError(f"an object cannot be decompressed ({err})", code="bad_envelope") from err
