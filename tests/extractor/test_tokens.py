"""Asking for tokens by every way there is, and reading what comes back."""

import base64
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from services.contracts.access import JwtBearer, TokenAuth
from services.contracts.errors import AvesaError, RetryableError, ThrottledError, UnauthorizedError, UsageError
from services.contracts.times import shifted
from services.extractor.answers import Answer
from services.extractor.auth import given
from services.extractor.requests import Request
from services.extractor.tokens import kept_text, read_kept, read_token, refusal, signed_assertion, token_request
from tests.extractor.token_vendor import CREDENTIALS, GIVEN, OAUTH, ROTATING, SECRET, World, answer, integration

NOW = "2026-01-31T12:00:00.000000Z"
ASSERTION = {
    "type": "jwt_bearer",
    "token_url": "https://id.desk.example/token",
    "issuer": "{client_id}",
    "key": "{client_secret}",
}


def auth_of(plain: Mapping[str, Any]) -> TokenAuth:
    auth: TokenAuth = msgspec.convert(plain, TokenAuth)
    return auth


def asked(plain: Mapping[str, Any], typed: Mapping[str, str] = GIVEN, **more: Any) -> Request:
    made = integration(plain, **more)
    return token_request(made, auth_of(plain), given(made, typed), "the-assertion")


def form(request: Request) -> dict[str, str]:
    assert request.content_type == "application/x-www-form-urlencoded"
    return dict(parse_qsl(request.body.decode(), keep_blank_values=True))


def read(plain: Mapping[str, Any], body: Any, status: int = 200) -> Any:
    return read_token(answer(status, body), auth_of(plain), NOW, "POST token")


# -- asking -----------------------------------------------------------------------------------------------------------
def test_a_client_says_who_it_is_in_the_form_or_as_basic() -> None:
    params = {"scope": "read", "audience": "{client_id}"}
    inside = asked(OAUTH | {"params": params})
    told = {"grant_type": "client_credentials", "scope": "read", "audience": "maria"}
    assert form(inside) == told | {"client_id": "maria", "client_secret": "hunter2-hunter2"}
    assert (inside.method, inside.url) == ("POST", "https://id.desk.example/token")
    outside = asked(OAUTH | {"params": params, "client_as": "basic"}, GIVEN | {"client_secret": "a+b c"})
    assert form(outside) == told
    _, _, login = dict(outside.headers)["Authorization"].rpartition(" ")
    assert base64.b64decode(login) == b"maria:a%2Bb+c"


def test_a_grant_of_the_vendors_own_may_be_named() -> None:
    assert form(asked(OAUTH | {"params": {"grant_type": "account_credentials"}}))["grant_type"] == "account_credentials"


def test_a_refresh_token_is_shown_with_the_client() -> None:
    assert form(asked(ROTATING)) == {"grant_type": "refresh_token", **GIVEN}


def test_a_public_client_has_no_secret_to_show() -> None:
    assert "client_secret" not in form(asked(ROTATING | {"client_secret": ""}))


def test_what_may_be_left_empty_is_not_sent() -> None:
    more: dict[str, Any] = {"credentials": CREDENTIALS | {"tenant": {"title": "Tenant", "required": False}}}
    plain = OAUTH | {"params": {"tenant": "{tenant}"}}
    assert "tenant" not in form(asked(plain, **more))
    assert form(asked(plain, {**GIVEN, "tenant": "acme"}, **more))["tenant"] == "acme"


def test_a_token_address_may_lie_below_the_api_and_hold_a_value() -> None:
    assert asked(OAUTH | {"token_url": "oauth/{client_id}/token"}).url == "https://desk.example/oauth/maria/token"


def test_a_token_address_in_the_clear_is_refused() -> None:
    with pytest.raises(UsageError, match="in the clear"):
        asked(OAUTH | {"token_url": "http://id.desk.example/token"})


def test_an_assertion_is_sent_in_the_form_or_as_the_bearer() -> None:
    inside = asked(ASSERTION)
    grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert form(inside) == {"grant_type": grant, "assertion": "the-assertion"}
    outside = asked(ASSERTION | {"send": "bearer", "params": {"scope": "all"}})
    assert dict(outside.headers)["Authorization"] == "Bearer the-assertion"
    assert (outside.content_type, outside.body) == ("application/json", b'{"scope":"all"}')


def test_a_login_sends_a_form_or_json() -> None:
    login = {"type": "session", "url": "login", "login_headers": {"clientId": "{client_id}"}}
    as_form = asked(login | {"form": {"user": "{client_id}"}})
    assert (form(as_form), dict(as_form.headers)["clientId"]) == ({"user": "maria"}, "maria")
    as_json = asked(login | {"json": {"user": "{client_id}"}, "basic": {"username": "{client_id}", "password": "x"}})
    assert (as_json.body, as_json.content_type) == (b'{"user":"maria"}', "application/json")
    assert dict(as_json.headers)["Authorization"] == "Basic " + base64.b64encode(b"maria:x").decode()


def test_a_request_for_a_token_names_no_credential() -> None:
    for plain in (OAUTH | {"token_url": "x/{client_secret}"}, ROTATING, ASSERTION):
        assert "hunter2" not in asked(plain).source


# -- assertions -------------------------------------------------------------------------------------------------------
def pem(key: Any) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()  # type: ignore[no-any-return]


RSA = rsa.generate_private_key(65537, 2048)
EC = ec.generate_private_key(ec.SECP256R1())


@pytest.mark.parametrize(("algorithm", "key"), [("RS256", RSA), ("ES256", EC)])
def test_an_assertion_holds_who_for_whom_and_for_how_long(algorithm: str, key: Any) -> None:
    more = {"subject": "u@{client_id}", "audience": "https://a", "claims": {"scope": "x"}, "algorithm": algorithm}
    auth = auth_of(ASSERTION | more)
    assert isinstance(auth, JwtBearer)
    for text in (pem(key), pem(key).replace("\n", "\\n")):
        signed = signed_assertion(auth, GIVEN | {"client_secret": text}, NOW)
        options: Any = {"verify_exp": False, "verify_iat": False}
        claims = jwt.decode(signed, key.public_key(), [algorithm], audience="https://a", options=options)
        at = claims.pop("iat")
        assert claims.pop("exp") - at == 180 + 60
        assert claims == {"iss": "maria", "sub": "u@maria", "aud": "https://a", "scope": "x"}


@pytest.mark.parametrize("key", ["", "hunter2-hunter2", pem(RSA)[:300], pem(EC)])
def test_a_key_that_cannot_be_used_is_told_and_not_shown(key: str) -> None:
    auth = auth_of(ASSERTION)
    assert isinstance(auth, JwtBearer)
    with pytest.raises(UnauthorizedError, match="whole PEM file") as raised:
        signed_assertion(auth, GIVEN | {"client_secret": key}, NOW)
    assert not key or key[:60] not in str(raised.value)


async def test_an_assertion_refused_because_clocks_differ_is_made_by_the_vendors_clock() -> None:
    world = World(ASSERTION)
    world.secrets.held[SECRET] = GIVEN | {"client_secret": pem(RSA)}
    seen: list[int] = []

    def planned(request: Request) -> Answer:
        options: Any = {"verify_signature": False}
        seen.append(jwt.decode(form(request)["assertion"], options=options)["exp"])
        late = {"date": "Thu, 01 Jan 2026 00:05:00 GMT"}
        return answer(200, {"access_token": "a1"}) if len(seen) > 1 else answer(400, {"error": "invalid_grant"}, **late)

    world.vendor.planned = planned
    await world.access().site()
    assert 290 <= seen[1] - seen[0] <= 301


# -- answers ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rules", "body", "seconds"),
    [
        ({}, {"access_token": "a", "expires_in": 3600}, 3600),
        ({}, {"access_token": "a", "expires_in": "3599"}, 3599),
        ({}, {"access_token": "a"}, 1800),
        ({}, {"access_token": "a", "expires_in": "soon"}, 1800),
        ({}, {"access_token": "a", "expires_in": -5}, 1800),
        ({"lifetime_s": 60}, {"access_token": "a"}, 60),
        ({"expires_in": None, "expires_at": "until"}, {"access_token": "a", "until": "2026-01-31T13:00:00Z"}, 3600),
        ({"token": "data.0.key"}, {"data": [{"key": "a"}], "expires_in": 100}, 100),
    ],
)
def test_a_token_holds_for_as_long_as_the_answer_says(rules: Any, body: Any, seconds: float) -> None:
    token = read(OAUTH | {"answer": rules}, body)
    assert (token.value, token.expires_at) == ("a", shifted(NOW, seconds=seconds))
    assert token.renew_at == shifted(NOW, seconds=max(seconds - 300, seconds * 0.8))


def test_values_come_with_a_token() -> None:
    rules = {"values": {"instance_url": "instance_url", "org": "id.org"}}
    body = {"access_token": "a", "instance_url": "https://eu.desk.example", "id": {"org": 7}}
    found = {"instance_url": "https://eu.desk.example", "org": "7", "access_token": "a"}
    assert read(OAUTH | {"answer": rules}, body).found == found
    with pytest.raises(RetryableError, match="org"):
        read(OAUTH | {"answer": rules}, {"access_token": "a", "instance_url": "x"})


def test_an_answer_without_a_token_is_none() -> None:
    for body in ({"error": "no"}, {"error": "no", "access_token": ""}):
        with pytest.raises(UnauthorizedError):
            read(OAUTH, body)
    with pytest.raises(RetryableError):
        read(OAUTH, {"token_type": "bearer"})
    with pytest.raises(RetryableError, match="no JSON"):
        read_token(Answer(200, b"<html>"), auth_of(OAUTH), NOW, "POST token")


def test_a_token_is_kept_without_its_refresh_token_and_never_shown() -> None:
    token = read(ROTATING, {"access_token": "a-secret", "refresh_token": "r1"})
    assert token.refresh == "r1"
    kept = read_kept(kept_text(token))
    assert kept is not None
    assert (kept.value, kept.refresh, kept.expires_at) == ("a-secret", None, token.expires_at)
    assert "secret" not in repr(token)
    assert [read_kept(text) for text in (None, "", "{}", "x")] == [None] * 4


@pytest.mark.parametrize(
    ("status", "body", "kind", "says"),
    [
        (400, {"error": "invalid_grant"}, UnauthorizedError, "spent, expired or revoked"),
        (401, {"error": "invalid_client"}, UnauthorizedError, "id or secret"),
        (400, {"error": "unauthorized_client"}, UnauthorizedError, "id or secret"),
        (403, None, UnauthorizedError, "403"),
        (404, "<html>", UnauthorizedError, "address"),
        (400, {"error": "temporarily_unavailable"}, RetryableError, "unavailable"),
        (408, None, RetryableError, "408"),
        (500, {"error": "invalid_grant"}, RetryableError, "500"),
        (429, None, ThrottledError, "slow down"),
    ],
)
def test_a_refusal_says_whether_to_wait_or_what_a_person_has_to_do(
    status: int, body: Any, kind: type[AvesaError], says: str
) -> None:
    error = refusal(answer(status, body), auth_of(ROTATING), asked(ROTATING), (), NOW)
    assert type(error) is kind
    assert says in str(error)


def test_a_refusal_hides_what_the_vendor_repeats() -> None:
    told = answer(400, {"error": "invalid_grant", "error_description": "r0-secret is spent"})
    assert "'*** is spent'" in str(refusal(told, auth_of(ROTATING), asked(ROTATING), ("r0-secret",), NOW))
    assert refusal(answer(201), auth_of(ROTATING), asked(ROTATING), (), NOW) is None
