"""A service's credentials: from `{SERVICE}_{FIELD}` variables, else from a person; never on a screen. `@path` is what a
file holds."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import typer

from services.cli.screen import Screen
from services.cli.spelling import listed
from services.contracts.access import Auth, Credential
from services.contracts.errors import UsageError
from services.contracts.integration import Integration

ReadVariable = Callable[[str], str | None]
Ask = Callable[[str, str | None, bool], str]  # the question, its default (None: none), is the answer hidden
FILE_LENGTH_MAX: Final = 65_536  # Secrets Manager holds no more: "AWS Secrets Manager quotas"
PATH_LENGTH_MAX: Final = 4_096
PATH_BEGINNINGS: Final = ("@/", "@./", "@../", "@~/")  # what no password begins with
WAYS: Final = {
    "none": "no credentials",
    "basic": "user name and password",
    "headers": "an API key",
    "bearer": "a token",
    "oauth2_client_credentials": "an application of its own (OAuth client credentials)",
    "oauth2_refresh_token": "an application on behalf of a user (OAuth refresh token)",
    "jwt_bearer": "a private key (JWT)",
    "session": "a login",
}
HINTS: Final = "`avesa mapping show {service}` says where to find each."


def variables_of(service: str, field: str, credential: Credential) -> list[str]:
    """The variables that may hold a credential, the first that is set counts.

    `connectwise:berlin`, `api_url` -> CONNECTWISE_BERLIN_API_URL, CONNECTWISE_API_URL, then its older names.
    """
    name, _, instance = service.partition(":")
    prefixes = [f"{name}_{instance}", name] if instance else [name]
    names = [f"{prefix}_{word}" for word in (field, *credential.aliases) for prefix in prefixes]
    return [_as_variable(text) for text in names]


def variables_set(service: str, integration: Integration, read: ReadVariable) -> dict[str, str]:
    """Field -> the variable of the environment that holds it."""
    found: dict[str, str] = {}
    for field, credential in integration.credentials.items():
        names = variables_of(service, field, credential)
        name = next((name for name in names if (read(name) or "").strip()), None)
        if name is not None:
            found[field] = name
    return found


def from_variables(service: str, integration: Integration, read: ReadVariable) -> dict[str, str]:
    """The credentials that the environment holds."""
    used = variables_set(service, integration, read)
    return {field: from_file((read(name) or "").strip()) for field, name in used.items()}


def told_variables(service: str, used: Mapping[str, str]) -> str:
    """Which variables are used, for a person; of an instance also which of them it shares with others."""
    told = f"credentials from the environment: {listed(list(used.values()))}"
    name, _, instance = service.partition(":")
    own = _as_variable(f"{name}_{instance}_")
    shared = [variable for variable in used.values() if instance and not variable.startswith(own)]
    return f"{told}. {listed(shared)}: not of {service} alone, {own}... would be" if shared else told


def _as_variable(text: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in text).upper()


def from_file(text: str) -> str:
    """What the file holds that `@path` names, such as a key of many lines; any other text is itself.

    Errors: UsageError for a file that is not there, cannot be read or is too long for a credential.
    """
    path = Path(text[1:]).expanduser()
    if not text.startswith("@") or len(text) > PATH_LENGTH_MAX:
        return text
    if not path.is_file():
        if text.startswith(PATH_BEGINNINGS):  # the value is not shown: it might be a secret after all
            raise UsageError("a credential was given as @path, and there is no such file", remedy="Look at the path.")
        return text
    try:
        with path.open(encoding="utf-8-sig") as file:
            held = file.read(FILE_LENGTH_MAX + 1).strip()
    except (OSError, UnicodeDecodeError) as err:
        remedy = "Name a text file that you may read."
        raise UsageError(f"{path} cannot be read ({type(err).__name__})", remedy=remedy) from err
    if len(held) > FILE_LENGTH_MAX:
        raise UsageError(f"{path} is too long for a credential", remedy="Name the file that holds it and nothing else.")
    return held


def missing_variables(service: str, integration: Integration, found: Mapping[str, str]) -> UsageError | None:
    """What to set where nobody can be asked; None when nothing is missing."""
    from services.extractor.auth import auths_of, missing_for

    ways = [missing_for(integration, way, found) for way in auths_of(integration)]
    if not all(ways):
        return None
    named = [[variables_of(service, name, integration.credentials[name])[0] for name in way] for way in ways]
    hints = HINTS.format(service=integration.service)
    one = len(named) == 1 and len(named[0]) == 1
    told = "; or ".join(listed(names) for names in named)
    return UsageError(
        f"credentials are missing, and there is no terminal to ask at: {told}",
        remedy=f"Set {'it' if one else 'them'} in the environment; `@path` as a value reads a file. {hints}",
    )


def prompt(title: str, default: str | None, hidden: bool) -> str:
    """What a person answers at the terminal."""
    return str(typer.prompt(title, default=default, show_default=bool(default), hide_input=hidden, err=True))


def asked(integration: Integration, found: Mapping[str, str], screen: Screen, ask: Ask = prompt) -> dict[str, str]:
    """All credentials: those found, the others asked for with their hints, secret ones hidden.

    Shape:  what has a default or may be left empty is not in it where nothing was typed; where all that is required
            was found, nothing is asked.
    """
    from services.extractor.auth import asked_for, auths_of, missing_for

    ways = auths_of(integration)
    way = next((one for one in ways if not missing_for(integration, one, found)), None)
    complete = way is not None
    if way is None:
        screen.note(f"{integration.title} asks for:")
        way = ways[0] if len(ways) == 1 else _way(integration, found, screen, ask)
    credentials: dict[str, str] = {}
    for field in asked_for(integration, way):
        text = (
            found.get(field, "") if field in found or complete else _typed(integration.credentials[field], screen, ask)
        )
        if text:
            credentials[field] = text
    return credentials


def _way(integration: Integration, found: Mapping[str, str], screen: Screen, ask: Ask) -> Auth:
    """One of several ways to sign in, chosen by a person."""
    from services.extractor.auth import auths_of, missing_for

    ways = auths_of(integration)
    for number, way in enumerate(ways, 1):
        titles = [integration.credentials[name].title for name in missing_for(integration, way, found)]
        screen.note(f"  {number}  {WAYS[str(way.__struct_config__.tag)]}: {listed(titles)}")
    numbered = {str(number): way for number, way in enumerate(ways, 1)}
    choice = ""
    while choice not in numbered:  # ends as any prompt does
        choice = ask(f"Which way, 1 to {len(ways)}", "1", False).strip()
    return numbered[choice]


def _typed(credential: Credential, screen: Screen, ask: Ask) -> str:
    """What a person gives; a default or nothing for Enter, where that is an answer."""
    if credential.hint:
        screen.note(f"  {credential.hint}")
    title, default = credential.title, credential.default
    if default is None and not credential.required:
        title, default = f"{title} (Enter for none)", ""
    text = ""
    while not text:  # ends with an answer, or with Ctrl-C or the end of input
        text = ask(title, default, credential.secret).strip()
        if not text and default is not None:
            return ""
    return "" if text == credential.default else from_file(text)
