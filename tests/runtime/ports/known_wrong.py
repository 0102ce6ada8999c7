"""Where an emulator is known to be wrong: said by name, and tried every time.

A test named here runs on that emulator all the same and has to fail in the way written down. When it passes, or fails
in another way, the suite fails: an emulator that was mended, or broke anew, is heard of.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import pytest

from services.contracts.errors import AvesaError

FAILURES: Final = (AssertionError, AvesaError, NotImplementedError, LookupError, pytest.fail.Exception)


class Wrong(msgspec.Struct, frozen=True):
    """`what` it does instead, and a pattern found in how the test fails for it."""

    what: str
    fails_with: str


_KEEPS_NO_PARENT: Final = "1.5.33 deletes a shard that is split or merged, its unread records with it"
_HAS_ITS_OWN_TIME: Final = "1.5.33 has a clock that nobody can put forward, so nothing expires while we look"

KNOWN_WRONG: Final[dict[tuple[str, str], Wrong]] = {
    # The embedded AWS. Never reshard on it.
    ("ministack", "test_a_split_shard_is_closed_and_its_children_name_it"): Wrong(
        _KEEPS_NO_PARENT, r"Right contains 1 more item:\s+\{'shardId-000000000000': \(True, \(\)\)\}"
    ),
    ("ministack", "test_a_merged_pair_is_closed_and_its_child_names_both"): Wrong(
        _KEEPS_NO_PARENT, "Right contains 2 more items"
    ),
    ("ministack", "test_open_shards_cover_all_hash_keys_through_splits_and_merges"): Wrong(
        _KEEPS_NO_PARENT, r"KeyError|assert 3 == 7"
    ),
    **{
        ("ministack", test): Wrong(_KEEPS_NO_PARENT, r"ResourceNotFoundException \(Shard (shardId-\d+ )?not found\)")
        for test in (
            "test_a_split_parent_keeps_its_records_and_ends_with_them",
            "test_merged_parents_keep_their_records_and_end_with_them",
            "test_a_parent_without_records_ends",
            "test_an_iterator_of_before_the_reshard_reads_the_parent_to_its_end",
            "test_reading_a_closed_shard_resumes_just_after_any_sequence",
            "test_children_hold_what_was_put_after_the_reshard_and_nothing_else",
        )
    },
    ("ministack", "test_a_key_read_along_its_generations_comes_back_in_the_order_it_was_put"): Wrong(
        _KEEPS_NO_PARENT, r"'shardId-000000000004'"
    ),
    **{
        ("ministack", test): Wrong(_HAS_ITS_OWN_TIME, "its clock cannot be put forward")
        for test in (
            "test_an_iterator_of_five_minutes_ago_asks_for_a_new_one",
            "test_records_end_with_retention_and_reading_after_one_of_them_goes_on_with_what_is_left",
        )
    },
    # kinesalite
    ("kinesalite", "test_a_page_that_is_not_the_last_says_that_more_follows"): Wrong(
        "3.3.3 says MillisBehindLatest 0 whatever follows", r"assert 0 > 0"
    ),
    ("kinesalite", "test_a_closed_shard_cannot_be_split_again"): Wrong(
        "3.3.3 splits a closed shard again", "DID NOT RAISE"
    ),
    # kinesis-local, which is kinesis-mock
    ("kinesis-local", "test_more_than_a_thousand_shards_are_all_described"): Wrong(
        "0.6.2 creates no stream of more than 1,000 shards", "create_stream on many: .* LimitExceededException"
    ),
    ("kinesis-local", "test_a_put_of_more_than_five_hundred_entries_is_refused"): Wrong(
        "0.6.2 stores the 501 entries of one PutRecords", "DID NOT RAISE"
    ),
    ("kinesis-local", "test_a_record_of_more_than_a_mebibyte_is_refused"): Wrong(
        "0.6.2 stores a larger record where the stream was never told to", "DID NOT RAISE"
    ),
    ("kinesis-local", "test_an_iterator_that_never_was_one_asks_for_a_new_one"): Wrong(
        "0.6.2 answers HTTP 500", r"answers 500 \(Internal Server Error\)"
    ),
    (
        "kinesis-local",
        "test_records_end_with_retention_and_reading_after_one_of_them_goes_on_with_what_is_left",
    ): Wrong("0.6.2 holds records beyond retention", r"\['old', 'older', 'new'\] == \['new'\]"),
    # Our own simulation.
    ("simulated", "test_an_iterator_that_never_was_one_asks_for_a_new_one"): Wrong(
        "takes only iterators that it has made", "list index out of range"
    ),
}


@contextmanager
def known(emulator: str, test: str) -> Iterator[None]:
    """Run a test within: one that is known to fail has to do so in the known way, and counts as `xfailed` then."""
    wrong = KNOWN_WRONG.get((emulator, test))
    if wrong is None:
        yield
        return
    try:
        yield
    except FAILURES as err:
        if re.search(wrong.fails_with, str(err)) is None:
            raise
        pytest.xfail(f"{emulator} {wrong.what}")
    pytest.fail(f"{emulator} is mended; take it out of {__name__}: {emulator} {wrong.what}")
