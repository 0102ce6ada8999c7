"""Who we are to a vendor: from an integration and a customer's credentials to an address and headers. Pure."""

import base64
from collections.abc import Mapping

import msgspec

from services.contracts.errors import UsageError
from services.contracts.integration import BasicAuth, HeaderAuth, Integration, NoAuth
from services.extractor.requests import base_url
from services.extractor.templates import fill

HIDDEN = "***"
HIDDEN_LENGTH_MIN = 4  # hiding shorter values would garble every message and protect nothing


class Site(msgspec.Struct, frozen=True):
    """One customer's API. `hidden` are the texts that no message may show; the repr shows the address alone."""

    base_url: str
    values: dict[str, str]
    headers: dict[str, str]
    hidden: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"Site({self.base_url!r})"

    def scrubbed(self, text: str) -> str:
        """`text` with every secret in it hidden."""
        for secret in self.hidden:
            text = text.replace(secret, HIDDEN)
        return text


def site_of(integration: Integration, credentials: Mapping[str, str]) -> Site:
    """How to reach this customer's API. Errors: UsageError for a credential that is missing or cannot be used."""
    missing = [name for name in integration.credentials if name not in credentials]
    if missing:
        raise UsageError(
            f"{integration.title} needs {', '.join(missing)}",
            code="bad_credentials",
            remedy="Run `avesa setup-service` again and give it.",
        )
    values = dict(credentials)
    headers = {name: fill(template, values) for name, template in integration.headers.items()}
    match integration.auth:
        case NoAuth():
            pass
        case BasicAuth(username, password):
            login = f"{fill(username, values)}:{fill(password, values)}"
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        case HeaderAuth(own):
            headers |= {name: fill(template, values) for name, template in own.items()}
    for name, value in headers.items():
        if not value.isprintable():
            raise UsageError(
                f"the header {name} would hold a line break or another sign that no header may",
                code="bad_credentials",
                remedy="Run `avesa setup-service` again; something was pasted along with a credential.",
            )
    return Site(base_url(integration.base_url, values), values, headers, _hidden(integration, values, headers))


def _hidden(integration: Integration, values: Mapping[str, str], headers: Mapping[str, str]) -> tuple[str, ...]:
    secrets = {values[name] for name, credential in integration.credentials.items() if credential.secret}
    if "Authorization" in headers:
        secrets |= {headers["Authorization"], headers["Authorization"].rpartition(" ")[2]}
    return tuple(sorted((text for text in secrets if len(text) >= HIDDEN_LENGTH_MIN), key=len, reverse=True))
