"""A service's credentials: from `{SERVICE}_{FIELD}` variables, else from a person; never on a screen."""

from collections.abc import Callable, Mapping
from typing import Final

import typer

from services.cli.screen import Screen
from services.cli.spelling import listed
from services.contracts.errors import UsageError
from services.contracts.integration import Credential, Integration

ReadVariable = Callable[[str], str | None]
HINTS: Final = "`avesa mapping show {service}` says where to find each."


def variables_of(service: str, field: str, credential: Credential) -> list[str]:
    """The variables that may hold a credential, the first that is set counts.

    `connectwise:berlin`, `api_url` -> CONNECTWISE_BERLIN_API_URL, CONNECTWISE_API_URL, then its older names.
    """
    name, _, instance = service.partition(":")
    prefixes = [f"{name}_{instance}", name] if instance else [name]
    names = [f"{prefix}_{word}" for word in (field, *credential.aliases) for prefix in prefixes]
    return ["".join(letter if letter.isalnum() else "_" for letter in text).upper() for text in names]


def from_variables(service: str, integration: Integration, read: ReadVariable) -> dict[str, str]:
    """The credentials that the environment holds."""
    found: dict[str, str] = {}
    for field, credential in integration.credentials.items():
        values = (read(name) for name in variables_of(service, field, credential))
        value = next((text.strip() for text in values if text and text.strip()), None)
        if value is not None:
            found[field] = value
    return found


def missing_variables(service: str, integration: Integration, found: Mapping[str, str]) -> UsageError | None:
    """What to set where nobody can be asked; None when nothing is missing."""
    missing = [
        variables_of(service, field, credential)[0]
        for field, credential in integration.credentials.items()
        if field not in found
    ]
    if not missing:
        return None
    hints = HINTS.format(service=integration.service)
    return UsageError(
        f"credentials are missing, and there is no terminal to ask at: {listed(missing)}",
        remedy=f"Set {'it' if len(missing) == 1 else 'them'} in the environment. {hints}",
    )


def asked(integration: Integration, found: Mapping[str, str], screen: Screen) -> dict[str, str]:
    """All credentials: those found, the others asked for with their hints, secret ones hidden."""
    credentials = dict(found)
    if len(found) < len(integration.credentials):
        screen.note(f"{integration.title} asks for:")
    for field, credential in integration.credentials.items():
        if field in credentials:
            continue
        if credential.hint:
            screen.note(f"  {credential.hint}")
        text = ""
        while not text:  # ends with an answer, or with Ctrl-C or the end of input
            text = str(typer.prompt(credential.title, hide_input=credential.secret, err=True)).strip()
        credentials[field] = text
    return {field: credentials[field] for field in integration.credentials}
