"""JSON as the vendor wrote it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.json_text import without_lone_surrogates
from services.extractor.raw_json import (
    NOWHERE,
    CutOffError,
    UnreadableError,
    compact,
    cuts_of,
    hollow,
    scalar_text,
    split_items,
    split_path,
    value_at,
    values_at,
    with_member,
    without,
    without_items,
)

KEYS = st.sampled_from(["a", "b", "secret", "pass\\word", 'quo"te', "é"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)


def cut(data: bytes, *paths: str) -> bytes:
    return without(data, cuts_of(split_path(path) for path in paths))


@pytest.mark.parametrize(
    ("data", "made"),
    [
        (b'{"n":1.10,"t":"\\u00e9"}', b'{"n":1.10,"t":"\\u00e9","_p":{"a":"1"}}'),
        (b"{}", b'{"_p":{"a":"1"}}'),
        (b'{"_p":7,"n":1e0}', b'{"n":1e0,"_p":{"a":"1"}}'),
        (b'{"\\u005fp":7}', b'{"_p":{"a":"1"}}'),
        (b"[1]", b"[1]"),
    ],
)
def test_one_member_more_and_every_other_token_stays(data: bytes, made: bytes) -> None:
    assert with_member(data, "_p", b'{"a":"1"}') == made


def test_white_space_goes_and_every_token_stays() -> None:
    data = b'{ "n" : 1.0e0,\n"t":"\\u00e9\\/ ", "big":123456789012345678901234567890.10 }'
    assert compact(data) == b'{"n":1.0e0,"t":"\\u00e9\\/ ","big":123456789012345678901234567890.10}'


@pytest.mark.parametrize(
    "data", [b"", b"[1,", b'["a]', b"[NaN]", b'["\xff"]', b"<html>", b"[" * 100_000 + b"]" * 100_000]
)
def test_what_is_no_json_is_told(data: bytes) -> None:
    with pytest.raises(UnreadableError):
        compact(data)


def test_only_halves_of_surrogate_pairs_are_replaced() -> None:
    data = rb'["\ud83d\ude00 \ud83d \ude00 \\ud83d \uD83Dx"]' + b"\xed\xa0\x80"
    assert without_lone_surrogates(data) == rb'["\ud83d\ude00 \ufffd \ufffd \\ud83d \ufffdx"]' + "\ufffd".encode()


def test_a_value_is_found_by_its_path() -> None:
    data = b'{"a":{"b":[10,{"c":1.50}]},"n":null}'
    paths = (("a", "b", "1", "c"), ("a", "b", "0"), ("n",), ("a", "x"), ("a", "b", "9"), NOWHERE, ())
    assert values_at(data, paths) == [b"1.50", b"10", b"null", None, None, None, data]
    assert value_at(data, ("a", "b", "1", "c")) == b"1.50"


def test_a_path_that_leads_nowhere_is_tried_as_one_key() -> None:
    data = b'{"@odata.nextLink":"x","a":{"b":1},"a.b":2,"c":3,"c.d":4,"e":{"f.g":5}}'
    paths = tuple(map(split_path, ("@odata.nextLink", "a.b", "c.d", "e.f.g", "no.way")))
    assert values_at(data, paths) == [b'"x"', b"1", b"4", None, None]
    assert [value_at(data, path) for path in paths] == [b'"x"', b"1", b"4", None, None]


PATHS = st.lists(st.lists(KEYS | st.sampled_from(["0", "1"]), max_size=3).map(tuple), max_size=6).map(tuple)


@given(VALUES, PATHS)
def test_several_values_are_what_each_alone_would_be(value: Any, paths: tuple[tuple[str, ...], ...]) -> None:
    data = json.dumps(value, separators=(",", ":")).encode()
    assert values_at(data, paths) == [value_at(data, path) for path in paths]


def test_a_list_is_taken_out_of_what_stands_around_it() -> None:
    data = b'{"data":{"items":[1,{"a":2}],"next":"c\\u00e9"},"total":1.50}'
    items: list[bytes] = []
    assert hollow(data, ("data", "items"), items) == b'{"data":{"items":[],"next":"c\\u00e9"},"total":1.50}'
    assert items == [b"1", b'{"a":2}']


def test_a_star_is_every_item_of_a_list() -> None:
    data = b'{"groups":[{"rows":[1,2]},{"rows":null},{},{"rows":[3]}],"next":4}'
    items: list[bytes] = []
    assert hollow(data, ("groups", "*", "rows"), items) == (
        b'{"groups":[{"rows":[]},{"rows":null},{},{"rows":[]}],"next":4}'
    )
    assert items == [b"1", b"2", b"3"]
    assert split_items(data.replace(b"2", b"tru"), ("groups", "*", "rows"))[0] == [b"1", b"tru", b"3"]


def test_a_scalar_is_its_text() -> None:
    given = [b'"5"', b"5", b"-1.50e3", b'"\\u00e9"', b"true", b"null", b"[1]", b"{}", None]
    assert [scalar_text(value) for value in given] == ["5", "5", "-1.50e3", "é", None, None, None, None, None]


def test_dropped_paths_leave_everything_else_untouched() -> None:
    data = b'{"id":1.0,"portalPassword":"x","in\\u0064":"\\/","deep":{"token":1,"kept":1e5},"list":[{"token":2,"k":3}]}'
    assert cut(data, "portalPassword", "deep.token", "list.token") == (
        b'{"id":1.0,"in\\u0064":"\\/","deep":{"kept":1e5},"list":[{"k":3}]}'
    )


def test_a_name_spelled_with_escapes_or_twice_is_dropped_too() -> None:
    assert cut(rb'{"p\u0061ss":"x","id":1,"pass":"y"}', "pass") == b'{"id":1}'


def test_a_dropped_place_in_a_list_keeps_its_neighbours_in_place() -> None:
    assert cut(b'{"a":[1,2,{"b":3}]}', "a.1") == b'{"a":[1,null,{"b":3}]}'


@given(st.dictionaries(KEYS, VALUES, max_size=6), st.sets(KEYS, max_size=3))
def test_dropping_is_what_leaving_out_would_have_been(record: dict[str, Any], names: set[str]) -> None:
    def spelled(value: Any) -> bytes:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=True).encode()

    left = {key: value for key, value in record.items() if key not in names}
    assert without(spelled(record), cuts_of((name,) for name in names)) == spelled(left)


@given(st.lists(VALUES, max_size=6))
def test_a_list_is_split_without_being_read(items: list[Any]) -> None:
    data = json.dumps({"x": "]", "data": {"items": items}, "more": [1]}, indent=1).encode()
    found, around = split_items(data, ("data", "items"))
    assert [json.loads(item) for item in found] == items
    assert json.loads(around) == {"x": "]", "data": {"items": []}, "more": [1]}


def test_broken_items_do_not_hide_their_neighbours() -> None:
    found, _ = split_items(b'[{"a":1},{"b":tru},"\\ud800",{"c":}]', ())
    assert found == [b'{"a":1}', b'{"b":tru}', b'"\\ud800"', b'{"c":}']


@pytest.mark.parametrize("data", [b"", b"[1,2", b'[{"a":1}', b'["a', b'{"data":[1]'])
def test_a_text_cut_off_is_not_split(data: bytes) -> None:
    with pytest.raises(CutOffError):
        split_items(data, split_path("data") if data.startswith(b"{") else ())


def test_there_may_be_no_list() -> None:
    for data, path in ((b'{"error":"x"}', ("data",)), (b'{"data":1}', ("data",)), (b"<html>", ())):
        with pytest.raises(UnreadableError):
            split_items(data, path)


def test_items_of_a_list_are_left_out_whole() -> None:
    data = b'{"id":1,"customFields":[{"type":"Password","value":"x"},{"type":"Text","value":"\\u00e9"}],"n":1.50}'
    kept = without_items(data, ("customFields",), lambda item: b"Password" in item)
    assert kept == b'{"id":1,"customFields":[{"type":"Text","value":"\\u00e9"}],"n":1.50}'
    assert without_items(b'{"customFields":null}', ("customFields",), lambda _: True) == b'{"customFields":null}'
