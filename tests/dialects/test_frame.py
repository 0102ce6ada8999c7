"""The frame in which dialects are written: records, filters, tokens, limits, and hostility that strikes by seed."""

import base64
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import msgspec
import pytest

from services.sandbox.vendors.access import (
    PublicKey,
    bearer_of,
    check_basic,
    check_client,
    read_assertion,
    spend,
    tokens_of,
)
from services.sandbox.vendors.changes import Changes
from services.sandbox.vendors.dialect import RefusedError, Request, answered, link_header, number_in
from services.sandbox.vendors.filters import ODATA, SQL, sql_like
from services.sandbox.vendors.hostility import Hostility
from services.sandbox.vendors.pages import by_key, by_number, pages_of, sealed, sorted_by, unsealed
from services.sandbox.vendors.store import Collection, Draw, Store, put_at, value_at
from tests.dialects import reference

NOON = datetime(2026, 1, 6, 12, 0, 0, 250_000, tzinfo=UTC)


def make(draw: Draw) -> dict[str, Any]:
    return {"name": draw.one_of("a", "b"), "of": draw.of("boards")}


BOARDS = Collection("boards", make, text="name", stamp="info.updated")
CARDS = Collection("cards", make, text="name", stamp="updated", created="made", parent="boards", touches_parent=True)


def a_store(*collections: Collection) -> Store:
    return Store(collections or (BOARDS, CARDS), NOON, Random(1))


def asked(path: str = "/", at: datetime = NOON, body: bytes = b"", **headers: str) -> Request:
    return Request("GET", "https://acme.reference.example", path, {}, headers, at, body)


# -- records ----------------------------------------------------------------------------------------------------------
def test_a_record_gets_its_id_and_stamps_and_no_two_versions_are_equal() -> None:
    store = a_store()
    board = store.create("boards")
    assert (board.content["id"], board.content["info"]) == (1, {"updated": "2026-01-06T12:00:00Z"})
    changed = store.update("boards", board.id)
    assert changed.content != board.content
    assert [row.version for row in store.history["boards", "1"]] == [1, 2]


def test_a_late_version_is_stamped_now_and_seen_later() -> None:
    store = a_store()
    late = store.create("boards", late_s=90)
    assert (store.rows("boards"), store.find("boards", late.id)) == ([], None)
    store.turn(NOON + timedelta(seconds=90))
    assert [row.updated for row in store.rows("boards")] == [NOON.replace(microsecond=0)]


def test_the_change_log_follows_what_is_seen_not_what_is_stamped() -> None:
    store = a_store()
    late, early = store.create("boards", late_s=90), store.create("boards")
    seen = store.position
    store.turn(NOON + timedelta(seconds=90))
    assert [row.id for row in store.log("boards", seen)] == [late.id]
    assert early.position == seen


def test_a_deleted_parent_takes_its_children_along() -> None:
    store = a_store()
    board = store.create("boards")
    card = store.create("cards", board.id)
    unseen = store.create("cards", board.id, late_s=90)
    store.veiled = {("cards", card.id)}
    store.delete("boards", board.id)
    store.turn(NOON + timedelta(seconds=90))
    assert store.find("cards", unseen.id) is None
    assert [row.id for row in store.graves("cards")] == [card.id]


def test_a_changed_child_stamps_the_parent_that_says_so() -> None:
    store = a_store()
    board = store.create("boards")
    store.turn(NOON + timedelta(seconds=5))
    store.create("cards", board.id)
    assert value_at(store.rows("boards")[0].content, "info.updated") == "2026-01-06T12:00:05Z"


def test_a_restored_record_is_stamped_anew_and_a_merged_one_says_into_which() -> None:
    store = a_store(BOARDS)
    first, second = store.create("boards"), store.create("boards")
    store.merge("boards", first.id, second.id)
    assert [row.merged_into for row in store.graves("boards")] == [second.id]
    store.turn(NOON + timedelta(seconds=9))
    assert store.restore("boards", first.id).updated == NOON.replace(microsecond=0, second=9)
    assert store.graves("boards") == []


def test_what_was_kept_is_known_until_it_is_forgotten() -> None:
    store = a_store()
    token = store.keep({"after": 7})
    assert store.kept(token) == {"after": 7}
    store.forget_kept()
    assert store.kept(token) is None


def test_a_field_that_changes_its_type_or_goes_is_none_that_says_who_and_when() -> None:
    store = a_store(BOARDS)
    store.create("boards")
    changes = Changes(store, Random(3))
    for _ in range(40):
        changes.drift("boards", frozenset({"of"}))
    (row,) = store.rows("boards")
    assert {"id", "name", "info", "of"} <= row.content.keys()
    assert not changes.drift("boards", frozenset({"of", *row.content}))


def test_a_path_goes_through_what_is_no_object() -> None:
    content: dict[str, Any] = {"a": None}
    put_at(content, "a.b", 1)
    assert (content, value_at(content, "a.b"), value_at({"l": [{"x": 2}]}, "l.0.x")) == ({"a": {"b": 1}}, 1, 2)


# -- filters and pages ------------------------------------------------------------------------------------------------
RECORD = {
    "Name": "O'Neil",
    "Size": 7,
    "At": "2026-01-06T12:00:00.000+0000",
    "Open": True,
    "Who": {"Id": "5"},
    "No": None,
}


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("", True),
        ("Name = 'o\\'neil'", True),
        ("Size >= 7 AND Size < 7.5", True),
        ("At > 2026-01-06T11:59:59Z and At <= 2026-01-06T13:00:00+01:00", True),
        ("(Size = 1 OR Open = true) AND Who.Id IN ('4', '5')", True),
        ("NOT Name LIKE 'O%'", False),
        ("Name LIKE '%nei%'", True),
        ("No = null AND Size != null", True),
        ("No > 1 OR No < 1", False),
    ],
)
def test_a_filter_of_the_sql_kind_says_what_it_says(text: str, holds: bool) -> None:
    assert sql_like(text, SQL)(RECORD) is holds


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("Size ge 7 and (Name eq 'O''Neil')", True),
        ("startswith(Name, 'O') and not contains(Name, 'x')", True),
        ("Who/Id in ('1', '2')", False),
        ("At lt 2026-01-06T12:00:00Z", False),
    ],
)
def test_a_filter_of_odata_says_what_it_says(text: str, holds: bool) -> None:
    assert sql_like(text, ODATA)(RECORD) is holds


@pytest.mark.parametrize(
    "text", ["Size >", "Size ~ 7", "(Size = 7", "Size = 7)", "Size = 7 Name = 1", "and", "Size = ("]
)
def test_a_filter_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(RefusedError) as refused:
        sql_like(text, SQL)
    assert refused.value.problem == "bad_request"


def test_pages_by_number_and_by_key_show_every_row_once() -> None:
    store = a_store(BOARDS)
    rows = [store.create("boards") for _ in range(7)]
    numbered = [by_number(rows, page, 3) for page in (1, 2, 3)]
    assert [row for cut in numbered for row in cut.rows] == rows
    assert ([cut.more for cut in numbered], pages_of(numbered[0], 3)) == ([True, True, False], 3)
    assert [row.raw_id for row in by_key(rows, lambda row: row.raw_id, 4, 3).rows] == [5, 6, 7]
    assert sorted_by(rows, "id", descending=True)[0] is rows[-1]


def test_a_cursor_can_only_be_read_as_it_was_made() -> None:
    assert unsealed(sealed({"after": [1, "é"]})) == {"after": [1, "é"]}
    assert unsealed("no cursor of ours") is None


# -- who, and how much ------------------------------------------------------------------------------------------------
def test_a_link_header_leaves_out_what_is_not_there() -> None:
    assert link_header(next="https://x/?page=2", prev="") == {"Link": '<https://x/?page=2>; rel="next"'}
    assert link_header(next="") == {}


def test_a_page_size_beyond_the_most_is_cut_and_no_number_is_refused() -> None:
    assert number_in({"size": "500"}, "size", 10, most=100) == 100
    with pytest.raises(RefusedError):
        number_in({"size": "many"}, "size", 10)


def test_credentials_are_told_from_wrong_ones() -> None:
    login = "Basic " + base64.b64encode(b"user:pass:word").decode()
    check_basic(asked(authorization=login), "user", "pass:word")
    check_client(asked(body=b"client_id=a&client_secret=b"), "a", "b")
    for wrong in (asked(authorization="Basic ???"), asked(authorization="Bearer x"), asked()):
        with pytest.raises(RefusedError, match="unauthorized"):
            check_basic(wrong, "user", "pass:word")


def test_a_refresh_token_serves_once_and_for_its_grace() -> None:
    store = a_store()
    tokens = tokens_of(store)
    first = tokens.issue_refresh()
    second = tokens.redeem(first, single_use=True, grace_s=60)
    assert second != first
    store.turn(NOON + timedelta(seconds=59))
    tokens.redeem(first, single_use=True, grace_s=60)
    store.turn(NOON + timedelta(seconds=61))
    with pytest.raises(RefusedError, match="invalid_grant"):
        tokens.redeem(first, single_use=True, grace_s=60)
    assert tokens.redeem(second, single_use=False) == second


def test_a_token_ends_with_its_time_and_when_it_is_expired_or_revoked() -> None:
    store = a_store()
    tokens = tokens_of(store)
    token = tokens.issue(60)
    tokens.check(token)
    store.turn(NOON + timedelta(seconds=60))
    fresh = tokens.issue(60)
    tokens.expire()
    for ended in (token, fresh):
        with pytest.raises(RefusedError, match="unauthorized"):
            tokens.check(ended)
    refresh = tokens.issue_refresh()
    tokens.revoke()
    with pytest.raises(RefusedError, match="invalid_grant"):
        tokens.redeem(refresh, single_use=False)
    assert bearer_of(asked(authorization="Bearer abc")) == "abc"


def test_a_limit_slides_and_a_refused_request_is_not_counted() -> None:
    store = a_store()
    assert [spend(store, "calls", 2, 60).remaining for _ in range(2)] == [1, 0]
    for _ in range(3):
        with pytest.raises(RefusedError) as refused:
            spend(store, "calls", 2, 60)
    assert refused.value.wait_s == 60
    store.turn(NOON + timedelta(seconds=60))
    assert spend(store, "calls", 2, 60).used == 1


# RFC 7515 A.2: a signature that others made.
RFC_KEY = (
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMs"
    "D1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdV"
    "MTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
)
RFC_TOKEN = (
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ."
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZ"
    "cAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-e"
    "OkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"
)


def test_the_signature_of_the_rfc_is_taken_and_a_changed_one_is_not() -> None:
    key = PublicKey(int.from_bytes(base64.urlsafe_b64decode(RFC_KEY + "==")))
    at = datetime.fromtimestamp(1_300_819_300, UTC)
    assert read_assertion(RFC_TOKEN, key, at, lifetime_max_s=300)["iss"] == "joe"
    changed = RFC_TOKEN.replace(".eyJpc3Mi", ".eyJpc3Nj", 1)
    for token, moment in ((changed, at), (RFC_TOKEN, at + timedelta(seconds=81)), (RFC_TOKEN, at - timedelta(days=1))):
        with pytest.raises(RefusedError, match="invalid_grant"):
            read_assertion(token, key, moment, lifetime_max_s=300)


# -- hostility --------------------------------------------------------------------------------------------------------
def hostile(seed: int) -> Hostility:
    store = Store(reference.DIALECT.collections, NOON, Random(seed))
    store.populate()
    return Hostility(reference.DIALECT, store, Random(seed))


def visit(hostility: Hostility, count: int) -> list[tuple[int, str, int]]:
    token = tokens_of(hostility.store).issue(3_600)
    found: list[tuple[int, str, int]] = []
    for number in range(count):
        request = Request(
            "GET",
            "https://acme.reference.example",
            "/v1/tickets",
            {"size": "5"},
            {"authorization": f"Bearer {token}"},
            NOON + timedelta(seconds=number),
        )
        serving = hostility.respond(request)
        found.append((serving.answer.status, serving.manner, len(serving.answer.body)))
    return found


def test_the_same_seed_is_the_same_mood() -> None:
    first, second = hostile(5), hostile(5)
    for one in (first, second):
        one.begin(38)
        one.begin(39)
    assert visit(first, 60) == visit(second, 60)
    assert first.struck == second.struck
    assert min(first.struck[38], first.struck[39]) > 5


def test_a_calm_vendor_answers_as_its_dialect_does() -> None:
    hostility = hostile(5)
    hostility.begin(39)
    hostility.calm()
    visit(hostility, 3)
    assert all(serving.honest for serving in hostility.served)
    serving = hostility.served[-1]
    again = answered(hostility.dialect, hostility.store, serving.request)
    assert (again.status, again.body) == (serving.answer.status, serving.answer.body)


def test_an_answer_led_astray_differs_in_its_next_page_alone() -> None:
    hostility = hostile(5)
    hostility.store.page_sizes["devices"] = 4
    token = tokens_of(hostility.store).issue(3_600)
    request = msgspec.structs.replace(asked("/v1/devices"), headers={"authorization": f"Bearer {token}"})
    true = msgspec.json.decode(hostility.respond(request).answer.body)
    hostility.begin(47)
    hostility.ways_of_47, hostility.chances[47] = ("astray",), 1.0
    serving = hostility.respond(request)
    false = msgspec.json.decode(serving.answer.body)
    assert not serving.honest
    assert false.pop("next").startswith("https://elsewhere.invalid/v1/devices?token=")
    assert true.pop("next").startswith("https://acme.reference.example/v1/devices?token=")
    assert false == true


def test_revoked_is_told_in_the_vendors_own_way_at_lists_and_at_the_token_endpoint() -> None:
    hostility = hostile(5)
    hostility.begin(42)
    token = tokens_of(hostility.store).issue(3_600)
    listed = hostility.respond(
        msgspec.structs.replace(asked("/v1/people"), headers={"authorization": f"Bearer {token}"})
    )
    form = f"client_id=app&client_secret=app-secret&refresh_token={tokens_of(hostility.store).issue_refresh()}".encode()
    refreshed = hostility.respond(msgspec.structs.replace(asked("/token", body=form), method="POST"))
    assert (listed.answer.status, refreshed.answer.status) == (401, 400)
