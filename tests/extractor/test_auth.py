"""Who we are to a vendor."""

import base64
from typing import Any

import msgspec
import pytest

from services.contracts.errors import UsageError
from services.contracts.integration import Integration
from services.extractor.auth import site_of

CREDENTIALS = {"site": "https://desk.example", "user": "maria", "key": "hunter2-hunter2"}


def integration(**auth: Any) -> Integration:
    plain = {
        "service": "desk",
        "title": "Desk",
        "base_url": "{site}/api",
        "auth": auth,
        "endpoints": {},
        "headers": {"clientId": "{user}"},
        "credentials": {"site": {"title": "Site"}, "user": {"title": "User"}, "key": {"title": "Key", "secret": True}},
    }
    return msgspec.convert(plain, Integration)


def test_basic_is_user_and_password_in_one_header() -> None:
    site = site_of(integration(type="basic", username="{user}+x", password="{key}"), CREDENTIALS)
    assert site.base_url == "https://desk.example/api"
    told = site.headers["Authorization"].removeprefix("Basic ")
    assert base64.b64decode(told) == b"maria+x:hunter2-hunter2"
    assert site.headers["clientId"] == "maria"


def test_headers_are_filled() -> None:
    site = site_of(integration(type="headers", headers={"X-Key": "{key}"}), CREDENTIALS)
    assert site.headers["X-Key"] == "hunter2-hunter2"


def test_no_auth_needs_nothing() -> None:
    assert site_of(integration(type="none"), CREDENTIALS).headers == {"clientId": "maria"}


def test_a_site_never_shows_what_it_knows() -> None:
    site = site_of(integration(type="basic", username="{user}", password="{key}"), CREDENTIALS)
    assert "hunter2" not in repr(site)
    told = f"no such key hunter2-hunter2, {site.headers['Authorization']}"
    assert site.scrubbed(told) == "no such key ***, ***"


def test_a_missing_credential_is_named() -> None:
    with pytest.raises(UsageError, match="key"):
        site_of(integration(type="none"), {"site": "https://x", "user": "maria"})


def test_a_credential_with_a_line_break_is_refused() -> None:
    with pytest.raises(UsageError, match="clientId"):
        site_of(integration(type="none"), CREDENTIALS | {"user": "maria\r\nX-Evil: 1"})
