"""Who we are to a vendor."""

import base64
from typing import Any

import msgspec
import pytest

from services.contracts.access import Credential
from services.contracts.errors import UsageError
from services.contracts.integration import Integration
from services.extractor.auth import asked_for, auths_of, chosen, missing_for, site_of

CREDENTIALS = {"site": "https://desk.example", "user": "maria", "key": "hunter2-hunter2"}


def integration(*ways: dict[str, Any], **auth: Any) -> Integration:
    plain = {
        "service": "desk",
        "title": "Desk",
        "base_url": "{site}/api",
        "auth": list(ways) or auth,
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


@pytest.mark.parametrize(("default", "way"), [("", 0), (None, 1)])
def test_what_has_a_default_does_not_decide_which_way_is_meant(default: str | None, way: int) -> None:
    ways: list[dict[str, Any]] = [
        {"type": "headers", "headers": {"X": "{user}", "Scope": "{scope}"}},
        {"type": "bearer", "token": "{user}"},
    ]
    made = integration(*ways)
    scope = Credential("Scope", required=False, default=default)
    made = msgspec.structs.replace(made, credentials=made.credentials | {"scope": scope})
    assert chosen(made, CREDENTIALS) is auths_of(made)[way]
    assert missing_for(made, auths_of(made)[0], CREDENTIALS) == ([] if default == "" else ["scope"])


def test_a_missing_credential_is_named() -> None:
    with pytest.raises(UsageError, match="key"):
        site_of(integration(type="none"), {"site": "https://x", "user": "maria"})


def test_a_credential_with_a_line_break_is_refused() -> None:
    with pytest.raises(UsageError, match="clientId"):
        site_of(integration(type="none"), CREDENTIALS | {"user": "maria\r\nX-Evil: 1"})


def test_a_token_that_the_user_gives_is_the_bearer() -> None:
    site = site_of(integration(type="bearer", token="{key}"), CREDENTIALS)
    assert site.headers["Authorization"] == "Bearer hunter2-hunter2"


def test_a_key_may_stand_in_the_query_and_is_hidden_as_it_looks_there() -> None:
    site = site_of(integration(type="headers", params={"api_key": "{key}"}), CREDENTIALS | {"key": "hunter 2/2"})
    assert site.params == {"api_key": "hunter 2/2"}
    assert site.scrubbed("GET /x?api_key=hunter%202%2F2 hunter 2/2") == "GET /x?api_key=*** ***"


def test_an_endpoint_may_lie_below_another_address_of_the_same_customer() -> None:
    site = site_of(integration(type="none"), CREDENTIALS)
    assert site.url_of(None) == "https://desk.example/api"
    assert site.url_of("https://{user}.desk.example/v2/") == "https://maria.desk.example/v2"


def with_credentials(made: Integration, **more: Credential) -> Integration:
    return msgspec.structs.replace(made, credentials={**made.credentials, **more})


def test_what_was_not_given_has_its_default_or_may_be_left_empty() -> None:
    made = integration(type="headers", headers={"X-Org": "{org}", "X-Zone": "{zone}", "X-Fixed": "yes"})
    made = with_credentials(made, org=Credential("Org", required=False), zone=Credential("Zone", default="eu"))
    site = site_of(made, CREDENTIALS | {"zone": ""})
    assert (site.values["org"], site.values["zone"]) == ("", "eu")
    assert site.headers == {"clientId": "maria", "X-Zone": "eu", "X-Fixed": "yes"}


def test_what_we_keep_in_a_secret_is_no_value_for_templates() -> None:
    assert "_token" not in site_of(integration(type="none"), CREDENTIALS | {"_token": "x"}).values


BASIC = {"type": "basic", "username": "{user}", "password": "{password}"}
KEY = {"type": "headers", "headers": {"X-Key": "{key}"}}


def two_ways() -> Integration:
    return with_credentials(integration(BASIC, KEY), password=Credential("Password", secret=True, required=False))


def test_of_several_ways_the_first_whose_credentials_are_all_given_counts() -> None:
    made = two_ways()
    assert chosen(made, CREDENTIALS) == made.auth[1]  # type: ignore[index]
    assert chosen(made, CREDENTIALS | {"password": "x"}) == made.auth[0]  # type: ignore[index]
    site = site_of(made, {"site": "https://desk.example", "user": "maria", "password": "opensesame"})
    assert base64.b64decode(site.headers["Authorization"].removeprefix("Basic ")) == b"maria:opensesame"


def test_where_no_way_is_complete_each_is_named() -> None:
    made = two_ways()
    with pytest.raises(UsageError, match="user, password; or key"):
        site_of(made, {"site": "https://desk.example", "user": "maria"})
    ways = made.auth if isinstance(made.auth, list) else []
    assert [asked_for(made, way) for way in ways] == [["site", "user", "password"], ["site", "user", "key"]]
    assert [missing_for(made, way, {"user": "maria"}) for way in ways] == [["site", "password"], ["site", "key"]]
