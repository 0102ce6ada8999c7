"""Tokens: the request that asks for one, what an answer gives, what a refusal means, how one is kept. Pure.

A token is asked for by RFC 6749 4.4 (client credentials), RFC 6749 6 (refresh), RFC 7523 2.1 (a signed assertion), or
a login of the vendor's own. Refusals are read by RFC 6749 5.2.
"""

import math
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl, quote, quote_plus, urlencode

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm

from services.contracts.access import ClientCredentials, JwtBearer, RefreshToken, SessionLogin, TokenAnswer, TokenAuth
from services.contracts.errors import AvesaError, RetryableError, ThrottledError, UnauthorizedError
from services.contracts.integration import Integration
from services.contracts.times import UtcTime, moment, read_time, seconds_between, shifted
from services.extractor.addresses import base_url
from services.extractor.answers import Answer
from services.extractor.auth import ACCESS_TOKEN, basic, filled, scrubbed
from services.extractor.meanings import read_retry_after, what_it_says
from services.extractor.raw_json import UnreadableError, compact, scalar_text, split_path, value_at
from services.extractor.requests import Request
from services.extractor.templates import fill

MARGIN_S: Final = 300.0  # so long before a token expires it is refreshed,
MARGIN_SHARE: Final = 0.2  # or in the last part of its life, where that is shorter
LIFETIME_MAX_S: Final = 400 * 86_400.0
BACKDATED_S: Final = (
    60.0  # an assertion is issued a little ago: the vendor's clock may be behind ours (GitHub's advice)
)
FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"
ASSERTION_GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"  # RFC 7523 2.1
_PASSING_STATUS = frozenset({408, 425})
_PASSING_CODES = frozenset({"temporarily_unavailable", "server_error", "slow_down"})  # RFC 6749 4.1.2.1, RFC 8628 3.5


class Token(msgspec.Struct, frozen=True):
    """What lets us in for a while. `values` came with it, for templates; `refresh` is the refresh token that did."""

    value: str
    renew_at: UtcTime
    expires_at: UtcTime
    values: dict[str, str] = {}
    refresh: str | None = None

    def __repr__(self) -> str:
        return f"Token(until {self.expires_at})"

    @property
    def found(self) -> dict[str, str]:
        """All of its values, the token among them."""
        return {**self.values, ACCESS_TOKEN: self.value}


def kept_text(token: Token) -> str:
    """A token as it is kept in a secret, beside the refresh token that came with it."""
    return msgspec.json.encode(msgspec.structs.replace(token, refresh=None)).decode()


def read_kept(text: str | None) -> Token | None:
    """The token of a secret; None where there is none, or none of ours."""
    try:
        return msgspec.json.decode(text or "", type=Token)
    except msgspec.DecodeError:
        return None


# -- asking -----------------------------------------------------------------------------------------------------------
def token_request(integration: Integration, auth: TokenAuth, values: Mapping[str, str], assertion: str = "") -> Request:
    """The POST that asks for a token. `assertion` is that of `signed_assertion`, where one is sent.

    Errors: UsageError for an address or a value that is missing or cannot be used.
    """
    template = auth.url if isinstance(auth, SessionLogin) else auth.token_url
    url, query = address_of(integration, template, values)
    headers: dict[str, str] = {"Accept": JSON}
    form: dict[str, str] = {}
    json: dict[str, str] = {}
    match auth:
        case ClientCredentials():
            headers, form = _client(auth, values, {"grant_type": "client_credentials"})
        case RefreshToken():
            told = {"grant_type": "refresh_token", "refresh_token": values[auth.credential]}
            headers, form = _client(auth, values, told)
        case JwtBearer(send="assertion"):
            form = {"grant_type": ASSERTION_GRANT, "assertion": assertion, **filled(auth.params, values)}
        case JwtBearer():
            headers["Authorization"] = f"Bearer {assertion}"
            json = filled(auth.params, values)
        case SessionLogin():
            headers |= filled(auth.login_headers, values)
            form, json = filled(auth.form, values), filled(auth.json, values)
            if auth.basic is not None:
                headers["Authorization"] = basic(fill(auth.basic.username, values), fill(auth.basic.password, values))
    body, kind = (msgspec.json.encode(json), JSON) if json else (urlencode(form).encode(), FORM if form else "")
    return Request(
        url=url,
        query=query,
        method="POST",
        headers=tuple(headers.items()),
        body=body,
        content_type=kind,
        source=f"POST {template.partition('?')[0]}",
    )


def _client(
    auth: ClientCredentials | RefreshToken, values: Mapping[str, str], told: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """Headers and form in which the client says who it is. `params` may say `grant_type` otherwise.

    Source: RFC 6749 2.3.1, which has both parts form-encoded before they become HTTP Basic.
    """
    client = {"client_id": fill(auth.client_id, values), "client_secret": fill(auth.client_secret, values)}
    client = {name: text for name, text in client.items() if text}
    form = {**told, **filled(auth.params, values)}
    if auth.client_as == "form":
        return {"Accept": JSON}, {**form, **client}
    login = basic(quote_plus(client.get("client_id", "")), quote_plus(client.get("client_secret", "")))
    return {"Accept": JSON, "Authorization": login}, form


def signed_assertion(auth: JwtBearer, values: Mapping[str, str], now: UtcTime) -> str:
    """A JSON Web Token that says who we are, at the vendor's time `now`.

    Errors: UnauthorizedError for a key that cannot be used; the key never shows.
    Source: RFC 7523 3. GitHub refuses more than ten minutes ("Generating a JSON Web Token (JWT) for a GitHub App"),
            Salesforce more than five ("OAuth 2.0 JWT Bearer Flow for Server-to-Server Integration").
    """
    seconds = moment(now).timestamp()
    claims: dict[str, str | int] = {
        **filled(auth.claims, values),
        "iss": fill(auth.issuer, values),
        "iat": int(seconds - BACKDATED_S),
        "exp": int(seconds + auth.assertion_s),
    }
    claims |= filled({n: t for n, t in (("sub", auth.subject), ("aud", auth.audience)) if t is not None}, values)
    try:
        return jwt.encode(claims, pem_text(fill(auth.key, values)), auth.algorithm)
    except (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError):
        raise UnauthorizedError(
            "the private key cannot be used",
            remedy="Give the whole PEM file, unencrypted, from -----BEGIN to -----END: `@path` reads a file.",
        ) from None  # whose text may hold the key


def pem_text(text: str) -> str:
    r"""A key as a PEM file holds it: many a store of settings keeps its line breaks as `\n`."""
    return text.replace("\\n", "\n") if text.lstrip().startswith("-----BEGIN") else text


def address_of(
    integration: Integration, template: str, values: Mapping[str, str]
) -> tuple[str, tuple[tuple[str, str], ...]]:
    """An address and its query from a template: absolute, or below `base_url`.

    Errors: UsageError; plain http is for this machine only.
    """
    place, _, asked = template.partition("?")
    query = tuple((name, fill(text, values)) for name, text in parse_qsl(asked, keep_blank_values=True))
    if "://" in place or place.startswith("{"):
        return base_url(place, values), query
    encoded = {name: quote(value, safe="") for name, value in values.items()}
    return f"{base_url(integration.base_url, values)}/{fill(place.strip('/'), encoded)}", query


# -- what came of it --------------------------------------------------------------------------------------------------
def read_token(answer: Answer, auth: TokenAuth, now: UtcTime, source: str) -> Token:
    """The token in an answer that gives one; `now` is when it was asked for.

    Errors: RetryableError `bad_answer`; UnauthorizedError where it says an error instead.
    """
    body = _readable(answer.body, source)
    value = _text_at(body, auth.answer.token)
    if not value:
        if _error_in(body):
            raise UnauthorizedError(f"{source}: the vendor gives no token, but an error", remedy=remedy_of(auth))
        raise RetryableError(f"{source}: an answer without a token at {auth.answer.token!r}", code="bad_answer")
    lifetime_s = _lifetime_s(body, auth.answer, now)
    found = {name: _text_at(body, path) for name, path in auth.answer.values.items()}
    lacking = [name for name, text in found.items() if text is None]
    if lacking:
        raise RetryableError(f"{source}: an answer without {', '.join(lacking)}", code="bad_answer")
    refresh = _text_at(body, auth.refresh_path) if isinstance(auth, RefreshToken) else None
    return Token(
        value,
        shifted(now, seconds=lifetime_s - min(MARGIN_S, MARGIN_SHARE * lifetime_s)),
        shifted(now, seconds=lifetime_s),
        {name: text for name, text in found.items() if text is not None},
        refresh or None,
    )


def _lifetime_s(body: bytes, rules: TokenAnswer, now: UtcTime) -> float:
    """Seconds from `now`. Vendors write `expires_in` as a number or as text; neither need be right."""
    seconds = rules.lifetime_s
    told = _text_at(body, rules.expires_in) if rules.expires_in is not None else None
    until = _text_at(body, rules.expires_at) if rules.expires_at is not None else None
    try:
        if told is not None:
            seconds = float(told)
        elif until is not None:
            seconds = seconds_between(now, read_time(until))
    except ValueError:
        pass
    return min(LIFETIME_MAX_S, seconds) if math.isfinite(seconds) and seconds > 0 else rules.lifetime_s


def refusal(
    answer: Answer, auth: TokenAuth, request: Request, hidden: tuple[str, ...], now: UtcTime
) -> AvesaError | None:
    """Why an answer gives no token; None where it may. Never shows a credential.

    A person must act where the vendor refuses; all else passes.
    """
    status = answer.status
    if 200 <= status < 300:
        return None
    code = _error_in(answer.body)
    said = what_it_says(answer.body)
    told = [code] if code else []
    told += [f"and said {said!r}"] if said and said != code else []
    what = scrubbed(" ".join([f"{request.source}: the vendor gives no token, it answered {status}", *told]), hidden)
    if status == 429:
        wait_s = read_retry_after(answer.headers.get("retry-after"), now)
        return ThrottledError(f"{request.source}: asked to slow down", retry_after_s=wait_s)
    if status >= 500 or status in _PASSING_STATUS or code in _PASSING_CODES:
        return RetryableError(what, code="unavailable")
    if status in (404, 410):
        return UnauthorizedError(what, remedy="Check the address you gave, then run `avesa setup-service` again.")
    return UnauthorizedError(what, remedy=remedy_of(auth, code))


def remedy_of(auth: TokenAuth, code: str = "") -> str:
    """What a person has to do about a refusal. `code` is that of RFC 6749 5.2."""
    again = "then run `avesa setup-service` again."
    if code in ("invalid_client", "unauthorized_client"):
        return (
            f"The application's id or secret is wrong, has expired or may not do this: check it at the vendor, {again}"
        )
    match auth:
        case RefreshToken():
            return (
                f"The refresh token is spent, expired or revoked: connect the application anew at the vendor, {again}"
            )
        case JwtBearer():
            return f"Check that the key belongs to the application, and that it may act for that account, {again}"
        case ClientCredentials():
            return f"Check the application's id, secret and permissions at the vendor, {again}"
        case SessionLogin():
            return f"Check that the login is right and may use the API, {again}"


def _error_in(body: bytes) -> str:
    """The code of an error (RFC 6749 5.2), where an answer holds one."""
    try:
        return scalar_text(value_at(compact(body), ("error",))) or ""
    except UnreadableError:
        return ""


def _readable(body: bytes, source: str) -> bytes:
    try:
        return compact(body)
    except UnreadableError as err:
        raise RetryableError(f"{source}: an answer that is no JSON", code="bad_answer") from err


def _text_at(body: bytes, path: str) -> str | None:
    return scalar_text(value_at(body, split_path(path)))
