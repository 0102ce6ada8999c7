"""What of a vendor's answers cannot be used: with its request, without its secrets, once."""

from typing import Any

import msgspec

from services.contracts.log import RecordsRejected
from services.runtime.dead_letters import DeadLetter
from tests.extractor.world import KEY, TICKETS, World, answered, opened


def letters(world: World) -> list[DeadLetter]:
    held = world.objects.held
    return [msgspec.json.decode(held[key], type=DeadLetter) for key in sorted(held) if "/dead-letter/" in key]


async def test_a_letter_tells_the_request_what_is_wrong_and_what_to_do() -> None:
    async with opened() as world:
        world.vendor.put("tickets", 1)
        world.vendor.lists["tickets"][1]["updated"] = "soon"
        await world.read()
        (letter,) = letters(world)
        assert (letter.code, letter.record_id) == ("unreadable_time", "1")
        assert letter.where == "desk GET tickets after 0"
        assert "updated_at" in letter.remedy
        assert letter.text is not None
        assert "soon" in letter.text


async def test_an_answer_that_is_not_what_the_file_says_is_a_letter_without_the_answer() -> None:
    async with opened() as world:
        world.use({"tickets": {**TICKETS, "records": "data.items"}})
        world.vendor.put("tickets", 1, password=KEY)
        world.vendor.spoil = lambda _: answered(world.vendor.answer({"data": {"other": [KEY]}}))
        for _ in range(2):
            assert not (await world.run()).complete
            world.clock.advance(60)
        (letter,) = letters(world)
        assert (letter.code, letter.where) == ("bad_answer", "desk GET tickets after 0")
        assert "data.items" in letter.reason
        assert letter.remedy
        assert KEY not in msgspec.json.encode(letter).decode()
        told: list[Any] = world.heard(RecordsRejected)
        assert [(one.code, one.count) for one in told] == [("bad_answer", 1)] * 2  # counted by each worker
