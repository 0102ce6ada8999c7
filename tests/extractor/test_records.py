"""From an answer's bytes to records."""

import pytest

from services.contracts.errors import RetryableError
from services.contracts.reading import FieldList
from services.extractor.answers import Answer, Opened
from services.extractor.raw_json import cuts_of
from services.extractor.records import (
    RECORD_BYTES_MAX,
    BadRecord,
    ConditionRule,
    Grave,
    GraveRule,
    RecordPage,
    Rules,
    Signs,
    in_parts,
    is_deleted,
    joined,
    names_reader,
    needed_names,
    next_link,
    read_ids,
    read_page,
    record_id_of,
)

NOW = "2026-01-31T12:00:00.000000Z"
BY_ID = Rules((("id",),), updated_at=("_info", "lastUpdated"), key=("id",))


def answer(body: str | bytes, **headers: str) -> Answer:
    return Answer(200, body.encode() if isinstance(body, str) else body, headers)


def read(body: str | bytes, rules: Rules = BY_ID, **headers: str) -> RecordPage:
    return read_page(answer(body, **headers), rules, NOW)


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


def test_a_record_takes_values_of_its_parent_along_and_may_be_known_by_them() -> None:
    rules = Rules(
        (("_parent", "user"), ("sku",)), composite=True, links=(("_parent", "user"),), included=b'{"user":"7"}'
    )
    (record,) = read('[{"sku": "a", "hours": 1.50}]', rules).records
    assert record.payload == b'{"sku":"a","hours":1.50,"_parent":{"user":"7"}}'
    assert (record.record_id, record.links) == ('["7","a"]', ("7",))
    assert read_ids(answer('[{"sku": "a"}]'), rules).ids == ('["7","a"]',)


def test_a_record_whose_parents_value_changed_has_changed() -> None:
    one, other = (Rules((("id",),), included=b'{"state":"%s"}' % state) for state in (b"open", b"closed"))
    assert read('[{"id":1}]', one).records[0].digest != read('[{"id":1}]', other).records[0].digest


def test_the_rows_of_a_download_take_values_of_their_parent_along() -> None:
    rules = Rules((("id",),), format="csv", included=b'{"site":"s1"}')
    assert [one.payload for one in read("id,n\n1,a\n2,b\n", rules).records] == [
        b'{"id":"1","n":"a","_parent":{"site":"s1"}}',
        b'{"id":"2","n":"b","_parent":{"site":"s1"}}',
    ]


def test_what_is_asked_for_in_parts_may_be_joined_by_a_value_of_the_parent() -> None:
    rules = Rules((("_parent", "user"), ("sku",)), composite=True, included=b'{"user":"7"}')
    whole = joined([Opened([b'{"sku":"a","x":1}']), Opened([b'{"sku":"a","y":2}'])], rules)
    assert whole is not None
    assert whole.items == [b'{"sku":"a","x":1,"y":2}']


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


def test_that_a_record_of_20_mb_is_gone_is_no_matter_of_its_size() -> None:
    rules = Rules((("id",),), deleted_when=GONE)
    page = read('[{"id":1,"state":"gone","a":"' + "x" * RECORD_BYTES_MAX + '"}]', rules)
    assert [(record.record_id, record.deleted) for record in page.records] == [("1", True)]
    assert codes(page) == []


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert len(read(b'\xef\xbb\xbf[{"id":1}]').records) == 1


def test_ids_are_read_alone() -> None:
    page = read_ids(answer('[{"id":1},{"id":2},{"x":3}]'), BY_ID)
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


GONE = ConditionRule(("state",), frozenset({"gone", "true"}))


@pytest.mark.parametrize(
    ("state", "deleted"), [('"gone"', True), ("true", True), ("false", False), ("null", False), ('"here"', False)]
)
def test_a_record_may_say_of_itself_that_it_is_deleted(state: str, deleted: bool) -> None:
    rules = Rules((("id",),), deleted_when=GONE)
    body = f'[{{"id":1,"state":{state}}},{{"id":2}}]'
    assert [record.deleted for record in read(body, rules).records] == [deleted, False]
    assert read_ids(answer(body), rules).ids == (("2",) if deleted else ("1", "2"))
    assert is_deleted(answer(f'{{"id":1,"state":{state}}}'), rules) == deleted
    assert is_deleted(
        answer(f'{{"data":{{"state":{state}}}}}'), Rules((), deleted_when=ConditionRule(("data", "state")))
    ) == (state != "null")


def test_a_condition_without_values_asks_for_anything_but_null() -> None:
    rules = Rules((("id",),), deleted_when=ConditionRule(("removed",)))
    page = read('[{"id":1,"removed":null},{"id":2,"removed":{}},{"id":3}]', rules)
    assert [record.deleted for record in page.records] == [False, True, False]
    assert is_deleted(
        answer('{"items":[{"removed":1}]}'), Rules((), records=("items",), deleted_when=rules.deleted_when)
    )
    assert not is_deleted(answer("<html>"), rules)


def test_values_for_the_endpoints_below_are_kept_as_texts() -> None:
    rules = Rules((("id",),), links=(("org", "id"), ("flag",), ("none",)), drop=cuts_of([("org",)]))
    (record,) = read('[{"id":1,"org":{"id":7},"flag":true}]', rules).records
    assert (record.links, record.payload) == (("7", "true", ""), b'{"id":1,"flag":true}')


def test_a_record_may_say_that_others_are_gone() -> None:
    rules = Rules(
        (("id",),),
        graves=(
            GraveRule("tickets", ("ticket",), ("at",), ConditionRule(("action",), frozenset({"delete"}))),
            GraveRule("notes", ("note",)),
        ),
    )
    page = read(
        '[{"id":1,"action":"delete","ticket":5,"at":"2026-01-31T09:15:00Z","note":"n"},'
        '{"id":2,"action":"close","ticket":6},{"id":3,"action":"delete","ticket":7,"at":"soon"}]',
        rules,
    )
    assert [record.graves for record in page.records] == [
        (Grave("tickets", "5", "2026-01-31T09:15:00.000000Z"), Grave("notes", "n")),
        (),
        (Grave("tickets", "7"),),
    ]


def test_a_page_tells_how_it_goes_on() -> None:
    signs = Signs(cursor=("meta", "next"), more=("meta", "more"), total=("n",), pages=("p",), token=("t",))
    rules = Rules((("id",),), records=("items",), signs=signs)
    turn = read('{"items":[{"id":1}],"meta":{"next":17,"more":"false"},"n":"5","p":2,"t":"tok"}', rules).turn
    assert (turn.cursor, turn.more, turn.total, turn.pages, turn.token) == ("17", False, 5, 2, "tok")
    turn = read('{"items":[],"meta":{"next":""},"n":-1}', rules).turn
    assert (turn.cursor, turn.more, turn.total, turn.pages, turn.token) == (None, None, None, None, None)


def test_a_header_may_tell_how_it_goes_on() -> None:
    rules = Rules((("id",),), signs=Signs(header="x-next"))
    assert read("[]", rules, **{"x-next": "c2"}).turn.cursor == "c2"
    assert read("[]", rules, **{"x-next": "null"}).turn.cursor is None
    assert (
        read("[]", Rules((("id",),), signs=Signs(link=True)), link='<https://x/2>; rel="next"').turn.cursor
        == "https://x/2"
    )


@pytest.mark.parametrize(
    ("header", "following"),
    [
        ('<https://x/2>; rel="next", <https://x/9>; rel="last"', "https://x/2"),
        ('<https://x/1>; rel="prev", <https://x/3?a=1,2;b>; rel=next', "https://x/3?a=1,2;b"),
        ('<https://x/1>; title="a, <b>; rel=next"; rel="prev"', None),
        ('<https://x/1>; REL="start Next"', "https://x/1"),
        ("<https://x/1>", None),
        ("", None),
    ],
)
def test_a_link_header_names_the_next_page(header: str, following: str | None) -> None:
    assert next_link(header) == following


def test_the_last_record_may_tell_how_it_goes_on() -> None:
    assert read('[{"id":1},{"id":2}]', Rules((("id",),), signs=Signs(last=("id",)))).turn.cursor == "2"


def test_a_page_tells_its_ids_and_times() -> None:
    page = read(
        '[{"id":1,"_info":{"lastUpdated":"2026-01-31T09:00:00Z"}},{"id":2,"_info":{"lastUpdated":"2026-01-30T09:00:00Z"}}]'
    )
    turn = page.turn
    assert (turn.first, turn.last, turn.oldest, turn.newest) == (
        "1",
        "2",
        "2026-01-30T09:00:00.000000Z",
        "2026-01-31T09:00:00.000000Z",
    )
    rows = read('[{"id":1},{"id":1,"a":2}]', Rules((("id",),), rows=True)).turn.rows
    assert rows[0].record == rows[1].record
    assert rows[0].content != rows[1].content


def parts(*bodies: str) -> list[Opened]:
    return [Opened([item.encode() for item in body.split("|")], [], b"{}") for body in bodies]


def test_answers_with_different_fields_are_joined_by_record_id() -> None:
    rules = Rules((("id",),), updated_at=("t",))
    whole = joined(
        parts('{"id":1,"t":"x","a":1.0,"p":{"b":1}}|{"id":2}', '{"id":2,"c":3}|{"id":1,"t":"x","p":{"c":2}}'), rules
    )
    assert whole is not None
    assert whole.items == [b'{"id":1,"t":"x","a":1.0,"p":{"b":1,"c":2}}', b'{"id":2,"c":3}']


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"id":1}|{"id":2}', '{"id":1}'),  # one is missing
        ('{"id":1}', '{"id":1}|{"id":2}'),
        ('{"id":1}', '{"id":2}'),
        ('{"id":1,"t":"x"}', '{"id":1,"t":"y"}'),  # it changed in between
        ('{"id":1}|{"id":1}', '{"id":1}|{"id":1}'),
        ('{"a":1}', '{"a":1}'),  # nothing to know it by
    ],
)
def test_answers_that_do_not_hold_the_same_records_are_not_joined(one: str, other: str) -> None:
    assert joined(parts(one, other), Rules((("id",),), updated_at=("t",))) is None


def test_fields_are_asked_for_in_groups_that_can_be_joined() -> None:
    rules = Rules((("Id",),), updated_at=("SystemModstamp",))
    names = ["Id", "A", "B", "C", "SystemModstamp"]
    needed = needed_names(names, rules)
    assert needed == ("Id", "SystemModstamp")
    assert in_parts(names, needed, 5) == [tuple(names)]
    assert in_parts(names, needed, 4) == [(*needed, "A", "B"), (*needed, "C")]
    flagged = Rules((("Id",),), deleted_when=ConditionRule(("IsDeleted",), frozenset({"true"})))
    assert needed_names(["Id", "A", "IsDeleted"], flagged) == ("Id", "IsDeleted")
    assert needed_names(["hs_lastmodified"], Rules((("id",),), updated_at=("properties", "hs_lastmodified"))) == (
        "hs_lastmodified",
    )


def test_the_vendor_describes_its_fields() -> None:
    wanted = FieldList(describe="d", records="fields", name="n.v", test="ok", equals=["true"])
    body = '{"fields":[{"n":{"v":"a"},"ok":true},{"n":{"v":"b"},"ok":false},{"ok":true}]}'
    assert names_reader(wanted)(answer(body), NOW) == ("a",)
