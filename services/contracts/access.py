"""Who we are to a vendor, and how much of it we may take: credentials, tokens, discovery, limits, errors by meaning.

A text marked *template* is filled with values by name (`{company_id}`): credentials, what was discovered, what came
with a token, the account of a partner's customer (`{account_id}`).
"""

from typing import Annotated, Literal

import msgspec

from services.contracts.schema import Name

Path = Annotated[str, msgspec.Meta(min_length=1)]
Template = str


class Credential(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing a user is asked for. `aliases` are older names also accepted from the environment.

    `default` is used where none is given; one that is not `required` may be left empty. One that has a default, be it
    `""`, does not decide which of several ways to sign in is meant.
    """

    title: str
    hint: str = ""
    secret: bool = False
    required: bool = True
    default: str | None = None
    aliases: list[str] = []


# -- authentication -------------------------------------------------------------------------------------------------
class NoAuth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="none"):
    """The API asks for no credentials."""


class BasicAuth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="basic"):
    """HTTP Basic; both are templates."""

    username: Template
    password: Template


class KeyAuth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="headers"):
    """Fixed headers, query parameters or both, such as an API key; values are templates."""

    headers: dict[str, Template] = {}
    params: dict[str, Template] = {}


class BearerAuth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="bearer"):
    """`Authorization: Bearer` with a token that the user gives."""

    token: Template


class TokenAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an answer holds a token, and for how long it serves.

    Units: `lifetime_s` seconds, where the answer names no `expires_in` (seconds) or `expires_at` (a time).
    `values` are further values of the answer for templates (`instance_url`).
    """

    token: Path = "access_token"
    expires_in: Path | None = "expires_in"
    expires_at: Path | None = None
    lifetime_s: Annotated[float, msgspec.Meta(gt=0)] = 1800.0
    values: dict[Name, Path] = {}


BEARER: dict[str, Template] = {"Authorization": "Bearer {access_token}"}


class ClientCredentials(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="oauth2_client_credentials"):
    """OAuth 2.0 client credentials (RFC 6749 4.4). `token_url` is a template, absolute or below `base_url`.

    `client_as`: the client's id and secret stand in the form or as HTTP Basic. `headers` carry the token afterwards.
    """

    token_url: Template
    client_id: Template = "{client_id}"
    client_secret: Template = "{client_secret}"
    client_as: Literal["form", "basic"] = "form"
    params: dict[str, Template] = {}
    answer: TokenAnswer = TokenAnswer()
    headers: dict[str, Template] = msgspec.field(default_factory=lambda: dict(BEARER))


class RefreshToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="oauth2_refresh_token"):
    """OAuth 2.0 refresh (RFC 6749 6) with the credential `refresh_token`.

    `rotates`: each refresh gives a new refresh token and spends the old one, which the vendor still takes for `grace_s`
    seconds (0: never again). `refresh_path` is where the new one stands.
    """

    token_url: Template
    client_id: Template = "{client_id}"
    client_secret: Template = "{client_secret}"
    client_as: Literal["form", "basic"] = "form"
    credential: Name = "refresh_token"
    rotates: bool = False
    grace_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    refresh_path: Path = "refresh_token"
    params: dict[str, Template] = {}
    answer: TokenAnswer = TokenAnswer()
    headers: dict[str, Template] = msgspec.field(default_factory=lambda: dict(BEARER))


class JwtBearer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="jwt_bearer"):
    """An assertion signed with the user's private key, exchanged for a token (RFC 7523).

    `send`: as the form field `assertion` (Salesforce, Google) or itself as the bearer of the exchange (GitHub App).
    `claims` are further claims, templates. Units: `assertion_s` seconds that an assertion holds.
    """

    token_url: Template
    issuer: Template
    key: Template = "{private_key}"
    subject: Template | None = None
    audience: Template | None = None
    algorithm: Literal["RS256", "ES256"] = "RS256"
    assertion_s: Annotated[float, msgspec.Meta(gt=0)] = 180.0
    send: Literal["assertion", "bearer"] = "assertion"
    claims: dict[str, Template] = {}
    params: dict[str, Template] = {}
    answer: TokenAnswer = TokenAnswer()
    headers: dict[str, Template] = msgspec.field(default_factory=lambda: dict(BEARER))


class SessionLogin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="session"):
    """A login that gives a token or session id. Exactly one of `form` and `json` is sent, templates both.

    `basic`: the login itself carries HTTP Basic.
    """

    url: Template
    form: dict[str, Template] = {}
    json: dict[str, Template] = {}
    basic: BasicAuth | None = None
    login_headers: dict[str, Template] = {}
    answer: TokenAnswer = TokenAnswer()
    headers: dict[str, Template] = msgspec.field(default_factory=lambda: dict(BEARER))


TokenAuth = ClientCredentials | RefreshToken | JwtBearer | SessionLogin
Auth = NoAuth | BasicAuth | KeyAuth | BearerAuth | ClientCredentials | RefreshToken | JwtBearer | SessionLogin


# -- before the first call ------------------------------------------------------------------------------------------
class Discovery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One GET before the first call, which tells values for templates: a region, an account, the real base address.

    `authenticated`: sent with our credentials or token; those that are not come first, and may tell where the token is
    to be had. `records`: the list in the answer of which `where` (path -> template) picks one item, the first where it
    is empty. `hosts`: a value that is an address must lie, by https, on one of these or below; with none named, on the
    host that was asked.
    """

    url: Template
    values: Annotated[dict[Name, Path], msgspec.Meta(min_length=1)]
    authenticated: bool = True
    records: str | None = None
    where: dict[Path, Template] = {}
    hosts: list[str] = []


# -- how much we may take -------------------------------------------------------------------------------------------
class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most `amount` of `unit` per `window_s` seconds. `points`: what an endpoint's calls cost (`Endpoint.cost`)."""

    amount: Annotated[float, msgspec.Meta(gt=0)]
    window_s: Annotated[float, msgspec.Meta(gt=0)]
    unit: Literal["requests", "points"] = "requests"


class LimitHeaders(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Headers (any case) by which the vendor tells what is left. `pattern`: where one header tells several things, a
    regular expression with the groups `used` or `remaining`, and `limit` (`api-usage=18/15000`).

    Shape: `reset` counts seconds from now, or is an epoch time in seconds (`reset_as`).
    """

    remaining: str | None = None
    limit: str | None = None
    reset: str | None = None
    reset_as: Literal["seconds", "epoch_s", "epoch_ms"] = "seconds"
    pattern: str | None = None
    window_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the vendor lets one customer do, and how much of it we take; the rest is left to the customer's other tools.

    Units: `requests` per `window_s` seconds; `share` is the part of it we use, 0 < share <= 1, and so of `quotas`,
    which hold besides. `per`: whether each instance has a budget of its own, or all that share a credential one.
    """

    requests: Annotated[int, msgspec.Meta(ge=1)] = 300
    window_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8
    quotas: list[Quota] = []
    headers: list[LimitHeaders] = []
    per: Literal["account", "credential"] = "account"


Meaning = Literal[
    "retry", "slow_down", "no_permission", "skip", "reauthenticate", "stop", "gone", "read_again", "empty"
]


class ErrorRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an answer means; the first rule that fits counts, before the meaning every status has by itself.

    Fits where the status is one of `status` (empty: any) and, if `path` is given, the text there is one of `equals` or
    holds `contains`. `path` may begin with a list's position or `*` (any item).
    `retry` passes; `slow_down` is a limit, told or not; `no_permission` stops the endpoint and names its permission;
    `skip` stops the endpoint quietly, the customer does not have it; `reauthenticate` renews the token, once; `stop`
    stops the service until a person acts; `gone`: there is no such record; `read_again`: the delta token or cursor
    holds no more, all is read again; `empty`: no records. `say` is told to the user besides.
    """

    means: Meaning
    status: list[int] = []
    path: Path | None = None
    equals: list[str] = []
    contains: str | None = None
    say: str = ""
