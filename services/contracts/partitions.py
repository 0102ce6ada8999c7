"""Virtual partitions: the unit of order, batching and state, placed so that no reshard ever divides one."""

import hashlib

import msgspec

HASH_KEY_SPACE = 1 << 128  # Kinesis hash keys are 128-bit: AWS API reference, HashKeyRange


class Partition(msgspec.Struct, frozen=True, gc=False, order=True):
    """What always travels together and in order. `group` is a family on the raw stream, a table on the canonical."""

    tenant_id: str
    service: str
    group: str
    bucket: int = 0

    @property
    def text(self) -> str:
        """A name unique among partitions: none of its parts can hold a slash."""
        return f"{self.tenant_id}/{self.service}/{self.group}/{self.bucket}"

    @property
    def hash_key(self) -> int:
        """The one explicit hash key of this partition, 0 <= key < 2**128."""
        return int.from_bytes(hashlib.md5(self.text.encode(), usedforsecurity=False).digest(), "big")


def bucket_of(record_id: str, buckets: int) -> int:
    """Which of a partition's `buckets` holds a record; stable for ever, changed only by command."""
    if buckets <= 1:
        return 0
    digest = hashlib.blake2b(record_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % buckets


class HashRange(msgspec.Struct, frozen=True, gc=False):
    """The hash keys a shard serves, both ends included (as Kinesis counts them)."""

    first: int
    last: int

    def holds(self, partition: Partition) -> bool:
        return self.first <= partition.hash_key <= self.last
