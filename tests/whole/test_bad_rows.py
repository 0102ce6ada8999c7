"""One bad record among thousands, from the vendor's page to the lake: all others are rows, it is one dead letter."""

from pathlib import Path

import msgspec
import pytest

from services.cli.run import Choice
from services.runtime.dead_letters import DeadLetter
from services.runtime.settings import Settings
from services.sandbox.sites import Keys
from tests.whole.plant import Plant, plant

pytestmark = pytest.mark.emulator

PATH, CONTACTS = "company/contacts", Choice(endpoint="contacts", sweep=False)


async def contacts(made: Plant) -> list[str]:
    """The ids of the current rows, one for each row."""
    return sorted(row["record_id"] for row in await made.lake.current("acme", "contacts"))


async def letters(made: Plant) -> list[DeadLetter]:
    keys = sorted(key for key in await made.objects() if "/dead-letter/" in key)
    return [msgspec.json.decode(await made.world.runtime.objects.get(key), type=DeadLetter) for key in keys]


def ids(made: Plant, *without: int) -> list[str]:
    return sorted(str(record_id) for record_id in made.vendor.current("acme", PATH) if record_id not in without)


async def spoiled(made: Plant, count: int, place: int, healthy: bytes, sick: bytes) -> tuple[int, bytes]:
    """A tenant with so many contacts, one of them, in the order of ids, spoiled: its id and what is served of it."""
    made.vendor.add_site("acme", Keys("acme", "public", "private", "client"))
    made.vendor.populate("acme", {PATH: count}, minimum=5)
    await made.connect("acme")
    there = made.vendor.current("acme", PATH)
    bad = sorted(there)[place]
    raw = there[bad].replace(healthy, sick, 1)
    assert raw != there[bad]
    made.vendor.serve_instead("acme", PATH, bad, raw)
    return bad, raw


async def test_one_null_key_among_ten_thousand_is_9999_rows_and_one_dead_letter(
    settings: Settings, tmp_path: Path
) -> None:
    async with plant(settings, tmp_path) as made:
        bad, raw = await spoiled(made, 10_000, 4_321, b'{"id":', b'{"id":null,"was":')
        done = await made.round(CONTACTS)
        assert (done.exit_code, done.published, done.rejected) == (3, 9_999, 1)
        rows = await contacts(made)
        assert len(rows) == 9_999
        assert rows == ids(made, bad)
        (letter,) = await letters(made)
        assert (letter.tenant_id, letter.stage, letter.group) == ("acme", "extract", "contacts")
        assert (letter.code, letter.reason) == ("missing_key", "nothing to know it by at 'id'")
        assert letter.text == raw.decode()


async def test_a_null_key_at_the_end_of_a_page_hides_no_other_page_and_mended_it_is_a_row(
    settings: Settings, tmp_path: Path
) -> None:
    async with plant(settings, tmp_path) as made:
        bad, _ = await spoiled(made, 1_200, 999, b'{"id":', b'{"id":null,"was":')
        assert (await made.round(CONTACTS)).exit_code == 3
        assert await contacts(made) == ids(made, bad)
        made.vendor.update("acme", PATH, bad, {})
        assert (await made.round(CONTACTS)).exit_code == 0
        assert await contacts(made) == ids(made)
        assert [letter.code for letter in await letters(made)] == ["missing_key"]


async def test_one_value_of_another_type_is_all_other_rows_and_one_dead_letter(
    settings: Settings, tmp_path: Path
) -> None:
    async with plant(settings, tmp_path) as made:
        bad, raw = await spoiled(made, 100, 50, b'"inactiveFlag":', b'"inactiveFlag":"perhaps","was":')
        done = await made.round(CONTACTS)
        assert (done.exit_code, done.published, done.rejected) == (3, 100, 1)
        assert await contacts(made) == ids(made, bad)
        (letter,) = await letters(made)
        assert (letter.tenant_id, letter.stage, letter.group, letter.record_id) == (
            "acme",
            "transform",
            "contacts",
            str(bad),
        )
        assert (letter.code, letter.where) == ("bad_value", "$.inactiveFlag")
        assert letter.reason == 'column inactive_flag: expected true or false, met "perhaps"'
        assert letter.text is not None
        assert raw.decode() in letter.text
        assert letter.remedy
