"""`avesa replay` at the command line: what is not there yet is said, and nothing happens unasked."""

import io

import msgspec
import pytest

from services.cli.replay import released
from services.cli.screen import Screen
from services.runtime.settings import Settings
from tests.cli.conftest import Avesa
from tests.transformer.test_parking import parked_world, sent

REBUILD = ("replay", "--from", "raw", "--rebuild")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--from", "stream", "--table", "tickets"), "replay --from stream is not there yet"),
        (("--from", "dead-letters"), "replay --from dead-letters is not there yet"),
        (("--from", "raw", "--table", "tickets"), "replay --from raw without --rebuild is not there yet"),
        (("--from", "raw", "--rebuild"), "replay --rebuild needs a --table"),
        (("--from", "raw", "--rebuild", "--table", "tikets"), "Did you mean"),
        (("--from", "raw", "--rebuild", "--table", "tickets", "--service", "conectwise"), "Did you mean"),
        (("--from", "raw", "--rebuild", "--table", "tickets", "--tenant-id", "A B"), "is not a tenant id"),
        (("--from", "raw", "--rebuild", "--table", "tickets"), "no terminal to ask at"),
        (("--rebuild", "--table", "tickets"), "missing option"),
        (("--from", "parked"), "released by tenant"),
        (("--from", "parked", "--tenant-id", "acme", "--rebuild"), "released by tenant"),
        (("--from", "parked", "--tenant-id", "A B"), "is not a tenant id"),
        (("--from", "parked", "--tenant-id", "acme", "--service", "conectwise"), "Did you mean"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line_with_its_remedy(
    arguments: tuple[str, ...], said: str, avesa: Avesa
) -> None:
    told = avesa("replay", *arguments)
    assert told.code == 2
    assert said in told.err
    assert "remedy:" in told.err


def test_its_help_says_what_it_does_and_what_its_codes_mean(avesa: Avesa) -> None:
    told = avesa("replay", "--help")
    assert told.code == 0
    assert "--dry-run" in told.out
    assert "Exit codes: 0 done" in told.out


@pytest.mark.emulator
@pytest.mark.parametrize("option", ["--dry-run", "--yes"])
def test_a_table_that_nothing_feeds_is_no_table_to_rebuild(option: str, aws: Settings, avesa: Avesa) -> None:
    told = avesa(*REBUILD, "--table", "tickets", option)
    assert told.code == 2
    assert "no service of any tenant feeds table tickets" in told.err
    assert avesa(*REBUILD, "--table", "tickets", "--tenant-id", "acme", option).code == 2


async def test_what_is_parked_is_listed_and_then_released() -> None:
    world, envelopes = await parked_world()
    listed, told = io.StringIO(), io.StringIO()
    assert await released(Screen(listed, io.StringIO()), world.runtime(), "acme", None, dry_run=True) == 0
    assert "acme/desk/tickets/0" in listed.getvalue()
    assert sent(world) == []
    screen = Screen(told, io.StringIO())
    screen.as_json = True
    assert await released(screen, world.runtime(), "acme", "desk") == 0
    done = msgspec.json.decode(told.getvalue())
    assert (done["envelopes"], done["again"], done["parked"]["group"]) == (len(envelopes), False, "tickets")
    assert len(sent(world)) == len(envelopes)


async def test_where_nothing_is_parked_nothing_is_waited_for() -> None:
    world, _ = await parked_world()
    said, before = io.StringIO(), world.clock.monotonic()
    assert await released(Screen(io.StringIO(), said), world.runtime(), "third", None) == 0
    assert "Nothing is parked" in said.getvalue()
    assert world.clock.monotonic() == before
