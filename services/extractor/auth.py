"""Who we are to a vendor: from an integration and a customer's credentials to an address and headers. Pure.

What it takes to get a token stands in `tokens.py`, who keeps it fresh in `access.py`.
"""

import base64
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from services.contracts.access import Auth, BasicAuth, BearerAuth, Credential, KeyAuth, NoAuth, RefreshToken
from services.contracts.errors import UsageError
from services.contracts.integration import Integration
from services.extractor.addresses import base_url
from services.extractor.templates import fill, names_in

HIDDEN: Final = "***"
HIDDEN_LENGTH_MIN: Final = 4  # hiding shorter values would garble every message and protect nothing
ACCOUNT: Final = "account_id"  # the value that tells a partner's customers apart
ACCESS_TOKEN: Final = "access_token"  # noqa: S105 - the name of a value, not one
OURS: Final = "_"  # begins what we keep in a secret besides the credentials, which begin with a letter


class Site(msgspec.Struct, frozen=True):
    """One customer's API as it is asked just now.

    `values` fill templates: credentials, what was discovered, what came with a token. `headers` and `params` (query
    parameters) go with every request. `hidden` are the texts that no message may show; the repr shows the address
    alone.
    """

    base_url: str
    values: dict[str, str]
    headers: dict[str, str]
    params: dict[str, str] = {}
    hidden: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Site({self.base_url!r})"

    def url_of(self, template: str | None) -> str:
        """The address an endpoint with a `base_url` of its own lies below; None: the integration's."""
        return self.base_url if template is None else base_url(template, self.values)

    def scrubbed(self, text: str) -> str:
        """`text` with every secret in it hidden."""
        return scrubbed(text, self.hidden)


def scrubbed(text: str, hidden: Iterable[str]) -> str:
    """`text` without the texts of `hidden`."""
    for secret in hidden:
        text = text.replace(secret, HIDDEN)
    return text


# -- what was given ---------------------------------------------------------------------------------------------------
def auths_of(integration: Integration) -> list[Auth]:
    """The ways to be somebody, in the order in which they are tried."""
    return integration.auth if isinstance(integration.auth, list) else [integration.auth]


def credentials_of(integration: Integration, auth: Auth) -> frozenset[str]:
    """The credentials one way asks for."""
    names = _names(auth)
    if isinstance(auth, RefreshToken):
        names |= {auth.credential}
    return names & integration.credentials.keys()


def chosen(integration: Integration, credentials: Mapping[str, str]) -> Auth:
    """The first way whose credentials are all given; where there is one only, that.

    Errors: UsageError naming what would have to be given.
    """
    ways = auths_of(integration)
    if len(ways) == 1:
        return ways[0]
    asked = [credentials_of(integration, way) for way in ways]
    known = given(integration, credentials)
    for way, names in zip(ways, asked, strict=True):
        if all(known.get(name) or integration.credentials[name].default is not None for name in names):
            return way
    needs = "; or ".join(", ".join(name for name in integration.credentials if name in names) for names in asked)
    raise _not_given(f"{integration.title} needs {needs}")


def asked_for(integration: Integration, way: Auth) -> list[str]:
    """The credentials that one way may need: all but those that serve other ways alone."""
    others = [credentials_of(integration, other) for other in auths_of(integration) if other is not way]
    spared = frozenset().union(*others) - credentials_of(integration, way)
    if spared:
        spared -= _names(msgspec.structs.replace(integration, auth=NoAuth()))
    return [name for name in integration.credentials if name not in spared]


def missing(integration: Integration, credentials: Mapping[str, str]) -> list[str]:
    """What has to be given still, for the way that is chosen. Errors: as `chosen`."""
    return missing_for(integration, chosen(integration, credentials), credentials)


def missing_for(integration: Integration, way: Auth, credentials: Mapping[str, str]) -> list[str]:
    """What has to be given still for one way; one of several needs all it asks for."""
    known, named = given(integration, credentials), credentials_of(integration, way)
    several = len(auths_of(integration)) > 1
    return [
        name
        for name in asked_for(integration, way)
        if not known.get(name) and _is_needed(integration.credentials[name], of_a_way=several and name in named)
    ]


def _is_needed(credential: Credential, *, of_a_way: bool) -> bool:
    return credential.required or (of_a_way and credential.default is None)


def require(integration: Integration, credentials: Mapping[str, str]) -> None:
    """Errors: UsageError naming what has to be given."""
    lacking = missing(integration, credentials)
    if lacking:
        raise _not_given(f"{integration.title} needs {', '.join(lacking)}")


def given(integration: Integration, credentials: Mapping[str, str]) -> dict[str, str]:
    """Values by name for templates: what was given, else its default, else, where it may be left empty, nothing."""
    values = {name: text for name, text in credentials.items() if not name.startswith(OURS)}
    for name, credential in integration.credentials.items():
        if not values.get(name) and (credential.default is not None or not credential.required):
            values[name] = credential.default or ""
    return values


def filled(templates: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """Templates by name, filled; one whose every value is empty is left out, as a credential may be.

    Errors: UsageError for a name without a value.
    """
    texts = {name: (fill(template, values), names_in(template)) for name, template in templates.items()}
    return {name: text for name, (text, asked) in texts.items() if not asked or any(values[one] for one in asked)}


def _names(part: msgspec.Struct) -> frozenset[str]:
    """The names that its templates ask for."""
    return frozenset(name for text in _texts(msgspec.to_builtins(part)) for name in names_in(text))


def _texts(plain: Any) -> Iterator[str]:
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, dict):
        for item in plain.values():
            yield from _texts(item)
    elif isinstance(plain, list):
        for item in plain:
            yield from _texts(item)


def _not_given(what: str) -> UsageError:
    return UsageError(what, code="bad_credentials", remedy="Run `avesa setup-service` again and give it.")


# -- what is sent -----------------------------------------------------------------------------------------------------
def site_of(
    integration: Integration,
    credentials: Mapping[str, str],
    found: Mapping[str, str] | None = None,
    secrets: Iterable[str] = (),
) -> Site:
    """How to reach this customer's API.

    Shape:  `found` are further values: what was discovered, what came with a token and, as `access_token`, the token;
            `secrets` what has to be hidden besides.
    Errors: UsageError for a credential that is missing or cannot be used.
    """
    require(integration, credentials)
    values = {**given(integration, credentials), **(found or {})}
    headers, params = signed(integration, credentials, values)
    hidden = hidden_of(integration, values, headers, secrets)
    return Site(base_url(integration.base_url, values), values, headers, params, hidden)


def signed(
    integration: Integration, credentials: Mapping[str, str], values: Mapping[str, str], *, known_only: bool = False
) -> tuple[dict[str, str], dict[str, str]]:
    """The headers and query parameters that say who we are.

    `known_only`: without those that ask for what is not known yet, as before discovery.
    Errors: UsageError.
    """
    own, params = _auth_parts(chosen(integration, credentials), values, known_only=known_only)
    headers = filled(_fitting(integration.headers, values, known_only=known_only), values) | own
    for name, value in headers.items():
        if not value.isprintable():
            raise UsageError(
                f"the header {name} would hold a line break or another sign that no header may",
                code="bad_credentials",
                remedy="Run `avesa setup-service` again; something was pasted along with a credential.",
            )
    return headers, params


def basic(username: str, password: str) -> str:
    """HTTP Basic (RFC 7617)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()


def hidden_of(
    integration: Integration, values: Mapping[str, str], headers: Mapping[str, str], secrets: Iterable[str] = ()
) -> tuple[str, ...]:
    """What no message may show: secret credentials, `secrets` and what stands in `Authorization`, also as they look in
    a URL; the longest first, so that none hides in half."""
    texts = {values.get(name, "") for name, credential in integration.credentials.items() if credential.secret}
    texts |= set(secrets)
    if "Authorization" in headers:
        texts |= {headers["Authorization"], headers["Authorization"].rpartition(" ")[2]}
    texts |= {quote(text, safe="") for text in texts}
    return tuple(
        sorted((text for text in texts if len(text) >= HIDDEN_LENGTH_MIN), key=lambda text: (-len(text), text))
    )


def _auth_parts(auth: Auth, values: Mapping[str, str], *, known_only: bool) -> tuple[dict[str, str], dict[str, str]]:
    match auth:
        case NoAuth():
            return {}, {}
        case BasicAuth(username, password):
            return {"Authorization": basic(fill(username, values), fill(password, values))}, {}
        case BearerAuth(token):
            return {"Authorization": f"Bearer {fill(token, values)}"}, {}
        case KeyAuth(headers, params):
            return filled(headers, values), filled(params, values)
        case _:
            return filled(_fitting(auth.headers, values, known_only=known_only), values), {}


def _fitting(templates: Mapping[str, str], values: Mapping[str, str], *, known_only: bool) -> dict[str, str]:
    return {
        name: template for name, template in templates.items() if not known_only or names_in(template) <= values.keys()
    }
