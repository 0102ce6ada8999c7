"""From an answer's bytes to records."""

import pytest

from services.contracts.errors import RetryableError
from services.extractor.raw_json import cuts_of
from services.extractor.records import (
    RECORD_BYTES_MAX,
    BadRecord,
    RecordPage,
    Rules,
    read_ids,
    read_page,
    record_id_of,
)

NOW = "2026-01-31T12:00:00.000000Z"
BY_ID = Rules((("id",),), updated_at=("_info", "lastUpdated"), key=("id",))


def read(body: str | bytes, rules: Rules = BY_ID) -> RecordPage:
    return read_page(body.encode() if isinstance(body, str) else body, rules, NOW)


def codes(page: RecordPage) -> list[str]:
    return [bad.code for bad in page.bad]


def test_a_record_is_the_vendor_s_bytes_without_white_space() -> None:
    page = read('[ {"id": 7, "hours": 1.50, "_info": {"lastUpdated": "2026-01-31T09:15:00Z"}} ]')
    (record,) = page.records
    assert record.record_id == "7"
    assert record.payload == b'{"id":7,"hours":1.50,"_info":{"lastUpdated":"2026-01-31T09:15:00Z"}}'
    assert record.stamp == "2026-01-31T09:15:00.000000Z"
    assert page.turn.keys == ("7",)


def test_what_is_dropped_never_leaves_but_still_identifies() -> None:
    rules = Rules((("id",),), drop=cuts_of([("password",), ("id",)]))
    (record,) = read('[{"id":7,"password":"x","name":"Maria"}]', rules).records
    assert (record.record_id, record.payload) == ("7", b'{"name":"Maria"}')


def test_the_list_may_lie_anywhere() -> None:
    rules = Rules((("id",),), records=("data", "items"))
    assert [record.record_id for record in read('{"data":{"items":[{"id":"a"}]}}', rules).records] == ["a"]
    assert read('{"data":{"items":null}}', rules).turn.count == 0


def test_a_composite_key_is_a_json_array_of_texts() -> None:
    rules = Rules((("a",), ("b", "c")), composite=True)
    (record,) = read('[{"a":1,"b":{"c":"x\\"y"}}]', rules).records
    assert record.record_id == '["1","x\\"y"]'


@pytest.mark.parametrize("value", ["null", '""', "true", "[1]", "{}"])
def test_a_record_without_a_key_is_set_aside(value: str) -> None:
    page = read(f'[{{"id":{value}}},{{"id":2}}]')
    assert codes(page) == ["missing_key"]
    assert [record.record_id for record in page.records] == ["2"]
    assert page.turn.count == 2


def test_what_is_no_object_is_set_aside() -> None:
    assert codes(read('[1,"x",null,[{"id":1}]]')) == ["missing_key"] * 4


@pytest.mark.parametrize(
    ("text", "stamp"),
    [
        ('"2026-01-31T09:15:00.1234567+01:00"', "2026-01-31T08:15:00.123456Z"),
        ("1769850900", "2026-01-31T09:15:00.000000Z"),
        ("1769850900123", "2026-01-31T09:15:00.123000Z"),
        ("1769850900.9999999", "2026-01-31T09:15:00.999999Z"),
        ("null", None),
        ('""', None),
        ('"2026-02-01T12:00:00Z"', "2026-02-01T12:00:00.000000Z"),
        ('"2026-02-01T12:00:01Z"', None),  # more than a day ahead
        ('"9999-12-31T23:59:59Z"', None),
    ],
)
def test_a_stamp_is_read_cut_and_never_believed_when_far_ahead(text: str, stamp: str | None) -> None:
    (record,) = read(f'[{{"id":1,"_info":{{"lastUpdated":{text}}}}}]').records
    assert record.stamp == stamp


@pytest.mark.parametrize("text", ['"soon"', "true", "[]", "1e40", '"2026-02-30T00:00:00Z"'])
def test_an_unreadable_time_sets_its_record_aside(text: str) -> None:
    page = read(f'[{{"id":1,"_info":{{"lastUpdated":{text}}}}},{{"id":2}}]')
    assert codes(page) == ["unreadable_time"]
    assert page.bad[0].record_id == "1"
    assert [record.record_id for record in page.records] == ["2"]


def test_lone_surrogates_become_the_replacement_character_and_nothing_is_bad() -> None:
    page = read(b'[{"id":1,"a":"\\ud83d"},{"id":2,"a":"\\ud83d\\ude00"},{"id":3,"b":1.0}]')
    assert page.bad == ()
    assert [record.payload for record in page.records] == [
        b'{"id":1,"a":"\\ufffd"}',
        b'{"id":2,"a":"\\ud83d\\ude00"}',
        b'{"id":3,"b":1.0}',
    ]


def test_one_unreadable_record_is_set_aside_and_the_page_flows_on() -> None:
    page = read(b'[{"id":1},{"id":2,"n":01},{"id":3,"s":"\xff"},{"id":4}]')
    assert codes(page) == ["payload_unreadable"] * 2
    assert [record.record_id for record in page.records] == ["1", "4"]
    assert page.turn.count == 4
    assert page.garbled


@pytest.mark.parametrize("body", ["", '[{"id":1},{"id":', '[{"id":1}', "<html>502</html>", '{"message":"x"}', "null x"])
def test_an_answer_cut_off_or_of_another_kind_is_to_be_asked_again(body: str) -> None:
    rules = Rules((("id",),), records=("data",)) if body.startswith("{") else BY_ID
    with pytest.raises(RetryableError) as raised:
        read(body, rules)
    assert raised.value.code == "bad_answer"


def test_a_record_of_20_mb_is_set_aside() -> None:
    page = read('[{"id":1,"a":"' + "x" * RECORD_BYTES_MAX + '"},{"id":2}]')
    assert codes(page) == ["too_large"]
    assert [record.record_id for record in page.records] == ["2"]


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert len(read(b'\xef\xbb\xbf[{"id":1}]').records) == 1


def test_ids_are_read_alone() -> None:
    page = read_ids(b'[{"id":1},{"id":2},{"x":3}]', BY_ID)
    assert (page.ids, page.turn.count, page.turn.keys) == (("1", "2"), 3, ("1", "2"))


def test_an_id_keeps_the_spelling_of_its_number() -> None:
    assert record_id_of([b"123456789012345678901"], composite=False) == "123456789012345678901"


def test_a_bad_record_holds_its_bytes() -> None:
    assert read('[{"x": 1}]').bad == (BadRecord("missing_key", "nothing to know it by at 'id'", b'{"x":1}'),)


def test_a_dead_letter_holds_no_password_either() -> None:
    rules = Rules((("id",),), updated_at=("t",), drop=cuts_of([("password",)]))
    page = read(
        '[{"id":1,"password":"hunter2","t":"soon"},{"password":"hunter2"},{"id":3,"password":"hunter2",}]', rules
    )
    unreadable, *others = [bad.data for bad in page.bad]
    assert unreadable.startswith(b"withheld: ")
    assert others == [b'{"id":1,"t":"soon"}', b"{}"]
