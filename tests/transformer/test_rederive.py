"""The raw archive through a mapping once more gives what the transformer gave, but for labels."""

import msgspec

from services.transformer.pinned import Pinned, shipped
from services.transformer.rederive import Rederiver
from tests.transformer.world import World, facts, files, gone, ticket, time

EVENTS = [
    ticket("1", 1),
    ticket("1", 2, "Monitor"),
    ticket("2", 1, hours="many"),
    gone("1", 3),
    ticket("3", 1, endpoint="notes"),
]


def pinned() -> Pinned:
    return shipped(files(), "acme", "desk", 7)["tickets"]


async def test_it_is_what_the_transformer_makes_of_the_same_events() -> None:
    world = World()
    await world.publish(*EVENTS)
    live = await world.drain()
    found = Rederiver(pinned()).rederive(EVENTS, time(9))
    assert facts(found.events) == facts(live)
    assert {event.mapping_version for event in found.events} == {7}
    (lived,), (letter,) = world.letters().values(), found.letters
    assert (letter.stage, letter.group, letter.code, letter.where, letter.record_id, letter.text) == (
        (lived.stage, lived.group, lived.code, lived.where, lived.record_id, lived.text)
    )


def test_met_again_a_bad_event_has_the_same_letter_under_the_same_name() -> None:
    letters = [Rederiver(pinned()).rederive(EVENTS, time(second)).letters[0] for second in (9, 10)]
    assert letters[0].position == letters[1].position
    assert letters[0].position.startswith("raw-000007-")


def test_what_another_instance_left_in_the_folder_is_none_of_its_business() -> None:
    stranger = msgspec.structs.replace(ticket(), service="desk:berlin")
    assert Rederiver(pinned()).rederive([stranger, ticket(tenant="other")], time(9)).events == []
