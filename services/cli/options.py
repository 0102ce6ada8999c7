"""The options that commands share: one name, one meaning, one sentence everywhere; and how a command is registered."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from services.cli.screen import Screen
from services.cli.world import Place

Function = TypeVar("Function", bound=Callable[..., Any])

TenantId = Annotated[str, typer.Option("--tenant-id", metavar="TENANT", help="The tenant, such as acme-msp.")]
Service = Annotated[
    str,
    typer.Option(
        "--service",
        metavar="SERVICE",
        help="The service, such as connectwise. A tenant's second one of a kind has a name behind it: "
        "connectwise:berlin.",
    ),
]
OneTenant = Annotated[str | None, typer.Option("--tenant-id", metavar="TENANT", help="This tenant only.")]
OneService = Annotated[str | None, typer.Option("--service", metavar="SERVICE", help="This service only.")]
MappingsFolder = Annotated[
    Path | None, typer.Option("--mappings", metavar="DIR", help="Your own mapping files, laid over those shipped.")
]

_Environment = Annotated[
    str | None,
    typer.Option("--environment", "-e", metavar="NAME", help="dev, staging or prod. Default: $ENVIRONMENT, else dev."),
]
_Region = Annotated[
    str | None,
    typer.Option("--region", "-r", metavar="REGION", help="AWS region. Default: $AWS_REGION, else us-east-2."),
]
_Profile = Annotated[
    str | None, typer.Option("--profile", "-p", metavar="PROFILE", help="AWS profile. Default: $AWS_PROFILE.")
]
_WaitS = Annotated[
    float,
    typer.Option(
        "--wait-s",
        metavar="SECONDS",
        min=0,
        show_default=False,
        help="How long to wait for AWS to answer. Default: 30.",
    ),
]
_AsJson = Annotated[bool, typer.Option("--json", help="For machines: one JSON object per line.")]

_PLACE: Final[dict[str, tuple[Any, Any]]] = {
    "environment": (_Environment, None),
    "region": (_Region, None),
    "profile": (_Profile, None),
    "wait_s": (_WaitS, 30.0),
}


def command(app: typer.Typer, name: str, *examples: str) -> Callable[[Function], Function]:
    """Register a function as the command `name`, its examples at the end of its help.

    A parameter `screen: Screen` brings `--json` along; a parameter `place: Place` brings `--environment`, `--region`,
    `--profile` and `--wait-s`. All others are the command's own. It returns its exit code, or None for 0.
    """

    def register(function: Function) -> Function:
        app.command(name, epilog=_epilog(examples))(_with_options(function))
        return function

    return register


def _with_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as typer shall see it: the shared options written out, in front of a call that bundles them."""
    asked = inspect.signature(function).parameters
    own = [parameter for name, parameter in asked.items() if name not in ("screen", "place")]
    shared = (_PLACE if "place" in asked else {}) | {"as_json": (_AsJson, False)}

    @functools.wraps(function)
    def run(context: typer.Context, as_json: bool, **values: Any) -> Any:
        screen: Screen = context.obj
        screen.as_json = as_json
        if "place" in asked:
            values["place"] = Place(**{name: values.pop(name) for name in _PLACE})
        return function(screen=screen, **values)

    parameters = [_parameter("context", typer.Context), *own]
    parameters += [_parameter(name, kind, default) for name, (kind, default) in shared.items()]
    run.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    )
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _epilog(examples: tuple[str, ...]) -> str | None:
    if not examples:
        return None
    heading = "Example:" if len(examples) == 1 else "Examples:"
    return "\b\n" + "\n".join((heading, *(f"  {line}" for line in examples)))
