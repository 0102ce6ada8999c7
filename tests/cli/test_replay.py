"""`avesa replay` at the command line: what is not there yet is said, and nothing happens unasked."""

import pytest

from services.runtime.settings import Settings
from tests.cli.conftest import Avesa

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
