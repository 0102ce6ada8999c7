"""From an endpoint to the request that reads it."""

from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from services.contracts.errors import RejectedError, UsageError
from services.contracts.integration import Integration, TimeFormat
from services.extractor.pagination import Ask, Place, ask
from services.extractor.plan import Spec, spec_of
from services.extractor.requests import base_url, followed, format_time, list_request, record_request

ROOT = "{site}/v4_6_release/apis/3.0"
SINCE = "2026-01-31T09:15:00.987654Z"


def spec(**endpoint: object) -> Spec:
    plain = {
        "service": "desk",
        "title": "Desk",
        "base_url": ROOT,
        "auth": {"type": "none"},
        "filter": {"param": "conditions"},
        "endpoints": {
            "boards": {"path": "boards", "record_id": "id"},
            "tickets": {"path": "service/tickets", "record_id": "id", **endpoint},
        },
    }
    return spec_of(msgspec.convert(plain, Integration), "tickets")


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


def test_clauses_are_joined_with_what_the_endpoint_always_asks() -> None:
    found = spec(
        params={"conditions": "closed=false", "fields": "{wanted}"},
        incremental={"clause": "lastUpdated >= [{since}]"},
        pagination={"type": "keyset", "key": "id", "clause": "id > {after}", "order": {"orderBy": "id"}, "size": 5},
    )
    request = list_request("https://x/api", {"wanted": "id"}, found, ask(found.pagination, Place(1, "42")), since=SINCE)
    query = parse_qs(urlsplit(request.address).query)
    assert query["conditions"] == ["closed=false and lastUpdated >= [2026-01-31T09:15:00Z] and id > 42"]
    assert query["fields"] == ["id"]
    assert request.url == "https://x/api/service/tickets"
    assert request.source == "GET service/tickets after 42"


def test_a_full_read_asks_for_everything() -> None:
    found = spec(incremental={"params": {"updated_since": "{since}"}})
    assert list_request("https://x", {}, found, Ask()).query == ()
    assert list_request("https://x", {}, found, Ask(), since=SINCE).query == (
        ("updated_since", "2026-01-31T09:15:00Z"),
    )


def test_a_sweep_asks_for_ids_alone() -> None:
    found = spec(params={"fields": "id,name"}, deletes={"type": "sweep", "params": {"fields": "id"}})
    assert list_request("https://x", {}, found, Ask(), sweep=True).query == (("fields", "id"),)


def test_a_clause_without_a_filter_is_a_mistake_of_the_mapping() -> None:
    found = msgspec.structs.replace(spec(incremental={"clause": "x"}), filter=None)
    with pytest.raises(UsageError):
        list_request("https://x", {}, found, Ask(), since=SINCE)


def test_values_in_a_path_are_encoded_and_credentials_are_not_shown() -> None:
    found = spec(path="{account}/boards/{board_id}/statuses", parent={"endpoint": "boards", "name": "board_id"})
    request = list_request("https://x", {"account": "hunter2"}, found, Ask(), parent="a/b ?")
    assert request.url == "https://x/hunter2/boards/a%2Fb%20%3F/statuses"
    assert request.source == "GET {account}/boards/a/b ?/statuses"


def test_one_record_is_asked_for_by_its_id() -> None:
    request = record_request("https://x", {}, "/tickets/{record_id}", '["1","2"]')
    assert request.url == "https://x/tickets/%5B%221%22%2C%222%22%5D"


@pytest.mark.parametrize(
    ("spelling", "text"),
    [
        ("rfc3339_s", "2026-01-31T09:15:00Z"),
        ("rfc3339_ms", "2026-01-31T09:15:00.987Z"),
        ("epoch_s", "1769850900"),
        ("epoch_ms", "1769850900987"),
        ("date", "2026-01-31"),
    ],
)
def test_a_mark_is_cut_to_the_vendor_s_precision_never_rounded_up(spelling: TimeFormat, text: str) -> None:
    assert format_time(SINCE, spelling) == text
