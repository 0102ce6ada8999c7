"""However a command ends, a person gets a sentence and a machine a code; never a traceback."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
import typer

from services.cli.main import GROUPS
from services.cli.options import command
from services.cli.screen import Screen
from services.contracts.errors import FatalError, UsageError
from tests.cli.conftest import Avesa, Told

Trying = Callable[..., Told]


@pytest.fixture
def trying(avesa: Avesa) -> Trying:
    """Run a function as the command `avesa try`."""

    def run(function: Callable[[Screen], Any], *arguments: str) -> Told:
        app = typer.Typer()

        def body(screen: Screen) -> Any:
            return function(screen)

        command(app, "try")(body)
        return avesa("try", *arguments, groups=((app, None), *GROUPS))

    return run


def raising(error: BaseException, standing: str = "") -> Callable[[Screen], None]:
    def body(screen: Screen) -> None:
        screen.standing = standing
        raise error

    return body


def test_help_names_every_command_and_what_exit_codes_mean(avesa: Avesa) -> None:
    told = avesa("--help")
    assert told.code == 0
    assert all(word in told.out for word in ("setup-service", "services", "check", "mapping", "Exit codes: 0 done"))


def test_without_a_command_there_is_help(avesa: Avesa) -> None:
    assert avesa().out == avesa("--help").out


def test_the_version_is_told(avesa: Avesa) -> None:
    assert avesa("--version").out.startswith("avesa ")


@pytest.mark.parametrize(
    "words",
    [
        ["setup-service"], ["check"],
        ["services", "list"], ["services", "pause"], ["services", "resume"], ["services", "remove"],
        ["mapping", "list"], ["mapping", "show"], ["mapping", "validate"], ["mapping", "schema"],
    ],
)  # fmt: skip
def test_every_command_shows_an_example_and_offers_json(avesa: Avesa, words: list[str]) -> None:
    told = avesa(*words, "--help")
    assert told.code == 0
    assert f"avesa {' '.join(words)}" in told.out.partition("Example")[2]
    assert "--json" in told.out


def test_help_loads_none_of_the_heavy_libraries() -> None:
    import subprocess

    heavy = "{'pyarrow', 'aiobotocore', 'botocore', 'duckdb', 'aiohttp', 'structlog', 'rich'}"
    code = (
        f"import sys; from services.cli.main import main; main(['--help']); sys.exit(str({heavy} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


def test_a_command_that_is_not_there_is_compared_with_those_that_are(avesa: Avesa) -> None:
    told = avesa("setup-servce")
    assert (told.code, told.out) == (2, "")
    assert told.err.startswith("error: no such command 'setup-servce'. Did you mean 'setup-service'")


def test_a_missing_option_is_named_and_help_is_offered(avesa: Avesa) -> None:
    told = avesa("setup-service", "--service", "connectwise")
    assert (told.code, told.err) == (
        2,
        "error: missing option '--tenant-id'\n  remedy: See `avesa setup-service --help`.\n",
    )


def test_an_error_says_what_where_what_to_do_and_what_holds_now(trying: Trying) -> None:
    told = trying(raising(FatalError("the disk is full", where="/data", remedy="Free some."), "Nothing was written."))
    assert told.code == 1
    assert told.err == "error: the disk is full\n  where: /data\n  remedy: Free some.\n  now: Nothing was written.\n"


def test_a_machine_gets_the_error_as_json(trying: Trying) -> None:
    import msgspec

    told = trying(raising(UsageError("no", code="unknown_table", remedy="Yes.")), "--json")
    assert msgspec.json.decode(told.err) == {
        "error": "unknown_table", "what": "no", "where": "", "remedy": "Yes.", "standing": "", "exit_code": 2,
    }  # fmt: skip


@pytest.mark.parametrize(("code", "given"), [(0, None), (0, 0), (3, 3), (1, 1)])
def test_the_code_a_command_returns_is_its_exit_code(trying: Trying, code: int, given: int | None) -> None:
    assert trying(lambda screen: given).code == code


@pytest.mark.parametrize("error", [KeyboardInterrupt(), typer.Abort()])
def test_an_interrupt_says_what_state_things_are_in(trying: Trying, error: BaseException) -> None:
    told = trying(raising(error, "Nothing was stored."))
    assert (told.code, told.err) == (130, "\ninterrupted. Nothing was stored.\n")


def test_our_own_bug_is_one_line_without_its_text(trying: Trying) -> None:
    told = trying(raising(KeyError("hunter2")))
    assert told.code == 1
    assert told.err.startswith("error: this is a bug of ours\n  where: KeyError at ")
    assert "AVESA_DEBUG=1" in told.err
    assert "hunter2" not in told.err
    assert "Traceback" not in told.err


def test_a_traceback_is_there_for_the_asking(trying: Trying, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AVESA_DEBUG", "1")
    assert "Traceback" in trying(raising(KeyError("x"))).err


def test_what_the_operating_system_refuses_is_told_with_its_place(trying: Trying) -> None:
    told = trying(raising(PermissionError(13, "Permission denied", ".avesa/state")))
    assert (told.code, told.err.splitlines()[:2]) == (1, ["error: permission denied", "  where: .avesa/state"])
