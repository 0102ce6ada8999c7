"""The command `avesa`: finds the command meant, runs it, and turns however it ends into a message and an exit code.

0 done · 1 failed · 2 used wrongly · 3 done in part · 130 interrupted. A command returns its code; None is 0.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Final

import typer

from services.cli import (
    cost,
    customers,
    demo,
    doctor,
    lake,
    mapping,
    preview,
    replay,
    run,
    sandbox,
    serve,
    smoke,
    status,
    tenants,
    views,
)
from services.cli.screen import Screen
from services.contracts.errors import AvesaError, FatalError, UsageError
from services.runtime.settings import variable

DONE, FAILED, MISUSED, IN_PART, INTERRUPTED = 0, 1, 2, 3, 130

# One line per group of commands: its app, and the word its commands stand under (None: at the top).
Groups = tuple[tuple[typer.Typer, str | None], ...]
GROUPS: Final[Groups] = (
    (tenants.app, None),
    (customers.services, "services"),
    (mapping.app, "mapping"),
    (preview.app, None),
    (run.app, None),
    (replay.app, None),
    (lake.app, None),
    (views.app, None),
    (status.app, None),
    (cost.app, None),
    (doctor.app, None),
    (smoke.app, None),
    (serve.app, None),
    (demo.app, None),
    (sandbox.app, None),
)


def main(arguments: Sequence[str] | None = None, groups: Groups = GROUPS) -> int:
    """Run one command line (default: this process's) and return its exit code."""
    screen = Screen()
    try:
        code = _run(sys.argv[1:] if arguments is None else list(arguments), screen, groups)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough. Python would complain at its own end (Python docs: signal, SIGPIPE).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = DONE
    except SystemExit as err:  # how typer ends when nobody reads on
        code = DONE if isinstance(err.__context__, OSError) else int(err.code or 0)
    except Exception as err:  # noqa: BLE001 - the last door before a person, who gets no traceback
        code = _failed(err, screen)
    if code == INTERRUPTED:
        screen.note(f"\ninterrupted. {screen.standing}".rstrip())
    return code


def _run(arguments: list[str], screen: Screen, groups: Groups) -> int:
    command = typer.main.get_command(_app(groups, drawn=screen.out.isatty()))
    code = command.main(arguments, prog_name="avesa", obj=screen, standalone_mode=False)
    screen.out.flush()
    return DONE if code is None else int(code)


def _app(groups: Groups, drawn: bool) -> typer.Typer:
    app = typer.Typer(
        rich_markup_mode="rich" if drawn else None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
        epilog="\b\nBegin with `avesa demo`. Exit codes: 0 done, 1 failed, 2 used wrongly, 3 done in part, "
        "130 interrupted.",
    )
    app.callback(invoke_without_command=True)(_root)
    for group, name in groups:
        app.add_typer(group, name=name)
    return app


def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False
) -> None:
    """AVESA: the data of many tenants' services, with its full history, in a lake on S3."""
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"avesa {installed('avesa')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def _failed(err: Exception, screen: Screen) -> int:
    explained = _explained(err)
    code = MISUSED if isinstance(explained, UsageError) else FAILED
    screen.fail(explained, code)
    if variable("AVESA_DEBUG"):
        screen.note("".join(traceback.format_exception(err)))
    return code


def _explained(err: Exception) -> AvesaError:
    """What a person is told of `err`."""
    if isinstance(err, AvesaError):
        return err
    if isinstance(err, typer.TyperException):
        said, context = err.format_message().rstrip("."), getattr(err, "ctx", None)
        remedy = f"See `{context.command_path} --help`." if context is not None else ""
        return UsageError(said[:1].lower() + said[1:], remedy=remedy)
    if isinstance(err, OSError) and err.strerror:
        where = str(err.filename) if err.filename else ""
        return FatalError(err.strerror.lower(), where=where, remedy="Is there room, and may this process use it?")
    # Not its text: nobody knows what that quotes.
    last = traceback.extract_tb(err.__traceback__)[-1]
    where = f"{type(err).__name__} at {last.filename}:{last.lineno}"
    return FatalError("this is a bug of ours", where=where, remedy="Report it, please, with what AVESA_DEBUG=1 shows.")


if __name__ == "__main__":
    sys.exit(main())
