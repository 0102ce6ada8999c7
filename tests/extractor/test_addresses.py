"""Where an API lies, and which addresses are followed."""

import pytest

from services.contracts.errors import RejectedError, UsageError
from services.extractor.addresses import base_url, followed

ROOT = "{site}/v4_6_release/apis/3.0"


@pytest.mark.parametrize(
    "site",
    [
        "api-na.myconnectwise.net",
        " https://api-na.myconnectwise.net/ ",
        "https://api-na.myconnectwise.net/v4_6_release",
        "api-na.myconnectwise.net/v4_6_release/apis/3.0/",
    ],
)
def test_a_site_is_understood_however_it_is_given(site: str) -> None:
    assert base_url(ROOT, {"site": site}) == "https://api-na.myconnectwise.net/v4_6_release/apis/3.0"


def test_a_folder_of_the_customer_s_own_stays() -> None:
    assert base_url("{site}/api", {"site": "https://host:8443/desk"}) == "https://host:8443/desk/api"
    assert base_url("https://{sub}.example.com/v1/", {"sub": "acme"}) == "https://acme.example.com/v1"


@pytest.mark.parametrize("site", ["http://127.0.0.1:8080", "http://localhost:1/", "http://[::1]:9"])
def test_plain_http_stays_on_this_machine(site: str) -> None:
    assert base_url("{site}", {"site": site}) == site.rstrip("/")


@pytest.mark.parametrize(
    "site",
    [
        "http://desk.example.com",
        "ftp://x",
        "https://",
        "https://u:hunter2@x.example",
        "https://x?key=hunter2",
        "a b",
        "x:y",
    ],
)
def test_an_address_that_cannot_be_used_is_told_without_secrets(site: str) -> None:
    with pytest.raises(UsageError) as raised:
        base_url("{site}", {"site": site})
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/x",
        "//evil.example/x",
        "http://desk.example/x",
        "https://desk.example:444/",
        "https://u@desk.example/",
    ],
)
def test_nothing_leads_us_to_another_host(location: str) -> None:
    with pytest.raises(RejectedError) as raised:
        followed("https://desk.example/a", location)
    assert raised.value.code == "wrong_host"


def test_the_same_host_may_send_us_on() -> None:
    assert followed("https://desk.example/a/b?x=1", "../c?y=2") == "https://desk.example/c?y=2"
