"""Envelopes: what is sealed is what is opened, and anything else is refused, never half read."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.envelope import BODY_BYTES_MAX, split
from services.contracts.errors import RejectedError
from services.contracts.partitions import Partition
from services.runtime.envelopes import Sealed, seal, unseal

PARTITION = Partition("acme", "connectwise", "tickets")
lines = st.lists(st.binary(min_size=1, max_size=200).map(lambda b: b.replace(b"\n", b" ")), min_size=1, max_size=50)


def opened(envelope: Sealed) -> list[bytes]:
    header, packed = split(envelope.data)
    return unseal(header, envelope.beside if envelope.beside is not None else packed)


@given(lines)
def test_events_come_out_as_they_went_in(events: list[bytes]) -> None:
    (envelope,) = seal(PARTITION, "tickets", events)
    assert opened(envelope) == events
    assert split(envelope.data)[0].partition == PARTITION


def test_many_events_become_several_envelopes_in_order() -> None:
    events = [str(n).encode() * 1000 for n in range(2_000)]
    envelopes = seal(PARTITION, "tickets", events)
    assert len(envelopes) > 1
    assert all(envelope.header.body_bytes <= BODY_BYTES_MAX for envelope in envelopes)
    assert [event for envelope in envelopes for event in opened(envelope)] == events


def test_an_event_too_large_for_the_stream_lies_beside_it() -> None:
    (envelope,) = seal(PARTITION, "tickets", [b"x" * (BODY_BYTES_MAX + 1)])
    assert envelope.header.object_key is not None
    assert len(envelope.data) < 1_000
    assert opened(envelope) == [b"x" * (BODY_BYTES_MAX + 1)]


@given(lines, st.data())
def test_a_damaged_envelope_is_refused(events: list[bytes], data: st.DataObject) -> None:
    (envelope,) = seal(PARTITION, "tickets", events)
    header, packed = split(envelope.data)
    at = data.draw(st.integers(0, len(packed) - 1))
    damaged = packed[:at] + bytes([packed[at] ^ data.draw(st.integers(1, 255))]) + packed[at + 1 :]
    read = None
    with contextlib.suppress(RejectedError):
        read = unseal(header, damaged)
    assert read in (None, events)  # there are bits that zstd does not use


@given(st.binary(max_size=400))
def test_what_is_no_envelope_is_refused(data: bytes) -> None:
    with pytest.raises(RejectedError):
        split(data)
