"""A virtual partition has one hash key for ever, so that no reshard divides it."""

from hypothesis import given
from hypothesis import strategies as st

from services.contracts.partitions import HASH_KEY_SPACE, HashRange, Partition, bucket_of

partitions = st.builds(
    Partition,
    tenant_id=st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,4})?", fullmatch=True),
    service=st.sampled_from(["connectwise", "microsoft_365:contoso"]),
    group=st.sampled_from(["tickets", "companies"]),
    bucket=st.integers(0, 63),
)


@given(partitions, st.integers(1, HASH_KEY_SPACE - 2))
def test_a_partition_lies_on_one_side_of_any_split(partition: Partition, middle: int) -> None:
    left, right = HashRange(0, middle), HashRange(middle + 1, HASH_KEY_SPACE - 1)
    assert left.holds(partition) != right.holds(partition)


def test_a_hash_key_never_changes() -> None:
    assert Partition("acme", "connectwise", "tickets").hash_key == 0x3603812C6C4A3823B643CACEF73A3EA4


@given(st.text(min_size=1), st.integers(1, 64))
def test_every_record_has_a_bucket(record_id: str, buckets: int) -> None:
    assert 0 <= bucket_of(record_id, buckets) < buckets


def test_a_bucket_never_changes() -> None:
    assert (bucket_of("4711", 16), bucket_of("4711", 1)) == (2, 0)
