"""What came back, opened."""

import csv
import gzip
import io
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.errors import RejectedError, RetryableError
from services.extractor import answers
from services.extractor.answers import Answer, Format, Opened, batches, open_answer, spool, whole

CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))


def opened(body: bytes, path: str = "", format: Format = "json", status: int = 200) -> Opened:
    return open_answer(Answer(status, body), tuple(path.split(".")) if path else (), format)


def in_batches(body: bytes, format: Format, *, packed: bool = False) -> list[Opened]:
    file = spool()
    file.write(gzip.compress(body) if packed else body)
    answer = whole(Answer(200, b"", {}, file))
    assert answer.file is not None
    with answer.file:
        return [open_answer(batch, (), format) for batch in batches(answer, format)]


def as_csv(rows: list[list[str]], **how: Any) -> bytes:
    text = io.StringIO()
    csv.writer(text, **how).writerows(rows)
    return text.getvalue().encode()


# -- JSON -------------------------------------------------------------------------------------------------------------
def test_records_keep_every_token_and_lose_white_space() -> None:
    assert opened(b'\xef\xbb\xbf[ {"n" : 1.0e0}, 2 ]\n').items == [b'{"n":1.0e0}', b"2"]


def test_what_stands_around_the_records_is_told_without_them() -> None:
    found = opened(b'{"data": {"rows": [{"id": 1}], "cursor": "x"}, "total": 1}', "data.rows")
    assert found == Opened([b'{"id":1}'], [], b'{"data":{"rows":[],"cursor":"x"},"total":1}')


def test_lists_in_the_items_of_a_list_are_one_list() -> None:
    body = b'{"groups":[{"rows":[1,2]},{"rows":null},{"other":1},{"rows":[3]}]}'
    assert opened(body, "groups.*.rows").items == [b"1", b"2", b"3"]


def test_no_content_and_null_are_no_records() -> None:
    assert opened(b"", status=204).items == opened(b"null").items == opened(b'{"rows":null}', "rows").items == []
    for format in ("ndjson", "csv"):
        assert opened(b"", format=format).items == []


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"rows":[{"id":1},{"i', b'{"error":"x"}', b'{"rows":5}'])
def test_what_ends_early_or_holds_no_list_is_asked_for_again(body: bytes) -> None:
    with pytest.raises(RetryableError) as raised:
        opened(body, "rows")
    assert raised.value.code == "bad_answer"


def test_a_record_that_is_no_json_stands_beside_the_others_with_its_bytes() -> None:
    found = opened(b'{"rows":[{"id":1},{"id":tru},{"id":"\\ud800"}],"next":"n"}', "rows")
    assert found.items == [b'{"id":1}', b'{"id":"\\ufffd"}']
    assert [data for data, _ in found.unreadable] == [b'{"id":tru}']
    assert found.envelope == b'{"rows":[],"next":"n"}'


@pytest.mark.parametrize("around", [b'"next":"n"}\n<!-- ', b'"next":n}'])
def test_where_what_stands_around_the_records_is_no_json_nobody_knows_the_next_page(around: bytes) -> None:
    with pytest.raises(RetryableError) as raised:
        opened(b'{"rows":[{"id":1}],' + around, "rows")
    assert raised.value.code == "bad_answer"


def test_a_body_that_no_header_calls_compressed_is_unpacked() -> None:
    assert opened(gzip.compress(b"[1") + gzip.compress(b",2]")).items == [b"1", b"2"]
    with pytest.raises(RetryableError):
        opened(gzip.compress(b"[1,2]" * 100)[:-9])


def test_a_compressed_body_that_never_ends_is_not_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "BODY_BYTES_MAX", 1_000_000)
    with pytest.raises(RejectedError) as raised:
        opened(gzip.compress(bytes(2_000_000)))
    assert raised.value.code == "too_large"


def test_a_record_of_20_mb_is_handed_on_like_any_other() -> None:
    large = json.dumps({"id": 2, "text": "x" * 20_000_001}).encode()
    assert [len(item) > 20_000_000 for item in opened(b'[{"id":1},%s]' % large).items] == [False, True]
    lines = b'{"id":1}\n%s\n{"id":3}\n' % large
    assert sum(len(batch.items) for batch in in_batches(lines, "ndjson")) == 3


# -- NDJSON -----------------------------------------------------------------------------------------------------------
def test_each_line_is_a_record() -> None:
    found = opened(b'{"a": 1}\r\n\n{"a":tru}\n{"a":2}', format="ndjson")
    assert (found.items, [data for data, _ in found.unreadable]) == ([b'{"a":1}', b'{"a":2}'], [b'{"a":tru}'])


def test_a_last_line_that_ends_early_is_asked_for_again() -> None:
    with pytest.raises(RetryableError):
        opened(b'{"a":1}\n{"a":', format="ndjson")


# -- CSV --------------------------------------------------------------------------------------------------------------
def test_a_row_is_an_object_of_strings() -> None:
    body = b'\xef\xbb\xbfid,"full ""name""",note\r\n1,"a, b","two\r\nlines"\r\n\r\n2,\xc3\xa9,\r\n'
    assert [json.loads(item) for item in opened(body, format="csv").items] == [
        {"id": "1", 'full "name"': "a, b", "note": "two\r\nlines"},
        {"id": "2", 'full "name"': "é", "note": ""},
    ]


def test_a_row_that_does_not_fit_or_is_no_text_stands_beside_the_others() -> None:
    found = opened(b"a,b\n1,2\n3\n4,5,6\n\xff,7\n8,9\n", format="csv")
    assert found.items == [b'{"a":"1","b":"2"}', b'{"a":"8","b":"9"}']
    assert [data for data, _ in found.unreadable] == [b"3", b"4,5,6", b"\xff,7"]


@pytest.mark.parametrize("body", [b"a,b\n1,2\n3", b'a,b\n1,2\n3,"4\n5,6\n', b'a,b\n"1'])
def test_a_last_row_that_ends_early_is_asked_for_again(body: bytes) -> None:
    with pytest.raises(RetryableError):
        opened(body, format="csv")


@given(st.lists(st.lists(CELLS, min_size=2, max_size=2), max_size=8))
def test_rows_come_back_as_they_were_written(rows: list[list[str]]) -> None:
    body = as_csv([["a", "b"], *rows], quoting=csv.QUOTE_ALL)
    assert [list(json.loads(item).values()) for item in opened(body, format="csv").items] == rows


# -- long answers -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("format", ["ndjson", "csv"])
def test_a_long_answer_comes_in_batches_that_hold_what_the_whole_holds(
    format: Format, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "BATCH_BYTES", 1_000)
    rows = [[str(number), f"row\n{number}"] for number in range(500)]
    body = as_csv([["id", "text"], *rows])
    if format == "ndjson":
        body = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    found = in_batches(body, format, packed=packed)
    assert len(found) > 5
    assert max(len(item) for batch in found for item in batch.items) < 1_000
    assert [item for batch in found for item in batch.items] == opened(body, format=format).items


def test_a_long_answer_without_records_is_one_batch_without_any() -> None:
    assert in_batches(b"", "ndjson") == in_batches(b"a,b\n", "csv") == [Opened([])]
    assert [open_answer(one) for one in batches(Answer(204, b""), "ndjson")] == [Opened([])]


def test_a_download_that_was_cut_off_is_noticed_before_any_of_it_is_used() -> None:
    file = spool()
    file.write(gzip.compress(b'{"id":1}\n' * 1_000)[:-9])
    with pytest.raises(RetryableError):
        whole(Answer(200, b"", {}, file))


@pytest.mark.parametrize("format", ["ndjson", "csv"])
def test_memory_stays_flat_however_long_an_answer_is(format: Format, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "BATCH_BYTES", 200_000)
    file = spool()
    file.write(b"id,text\n" if format == "csv" else b"")
    line = b'7,"%s"\n' % (b"x" * 200) if format == "csv" else b'{"id":7,"text":"%s"}\n' % (b"x" * 200)
    for _ in range(6):
        file.write(line * 10_000)
    file.seek(0)
    tracemalloc.start()
    with file:
        count = sum(len(open_answer(batch, (), format).items) for batch in batches(Answer(200, b"", {}, file), format))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 60_000
    assert peak < 2_000_000  # of 13 MB
