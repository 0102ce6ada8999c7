"""What an answer means."""

import pytest

from services.contracts.access import ErrorRule, Meaning
from services.contracts.errors import (
    AvesaError,
    NotFoundError,
    ReadAgainError,
    RejectedError,
    RetryableError,
    ThrottledError,
    UnauthorizedError,
)
from services.extractor.answers import Answer
from services.extractor.auth import Site
from services.extractor.meanings import NO_TERMS, Terms, error_of, is_empty, read_retry_after, what_it_says
from services.extractor.requests import Request
from tests.extractor.world import START

SITE = Site("https://desk.example", {}, {}, hidden=("hunter2-hunter2",))
ASKED = Request("https://desk.example/x", (), "GET x")
GRAPHQL = Terms(graphql=True)


def meant(
    status: int, body: bytes = b"", headers: dict[str, str] | None = None, terms: Terms = NO_TERMS
) -> AvesaError | None:
    return error_of(Answer(status, body, headers or {}), ASKED, SITE, START, terms)


def test_what_is_not_there_says_what_to_look_at_unless_the_file_does() -> None:
    assert "Look at the address among the credentials" in str(meant(404))
    told = str(meant(404, terms=under(ErrorRule(means="gone", status=[404], say="Switch the module on."))))
    assert told.endswith("Switch the module on.")


def under(*rules: ErrorRule, permission: str = "") -> Terms:
    return Terms(rules, permission)


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, UnauthorizedError, "bad_credentials"),
        (403, RejectedError, "forbidden"),
        (404, NotFoundError, "not_found"),
        (410, NotFoundError, "not_found"),
        (400, RejectedError, "vendor_error"),
        (304, RejectedError, "vendor_error"),
        (408, RetryableError, "unavailable"),
        (500, RetryableError, "unavailable"),
        (503, RetryableError, "unavailable"),
        (429, ThrottledError, "throttled"),
    ],
)
def test_a_status_says_what_to_do_next(status: int, kind: type[AvesaError], code: str) -> None:
    error = meant(status)
    assert type(error) is kind
    assert error.code == code
    assert "GET x" in error.what


@pytest.mark.parametrize(
    ("means", "kind", "code"),
    [
        ("retry", RetryableError, "unavailable"),
        ("slow_down", ThrottledError, "throttled"),
        ("no_permission", RejectedError, "forbidden"),
        ("skip", RejectedError, "not_available"),
        ("reauthenticate", UnauthorizedError, "bad_credentials"),
        ("stop", UnauthorizedError, "stopped"),
        ("gone", NotFoundError, "not_found"),
        ("read_again", ReadAgainError, "read_again"),
    ],
)
def test_a_rule_says_it_before_the_status_does(means: Meaning, kind: type[AvesaError], code: str) -> None:
    error = meant(400, terms=under(ErrorRule(means=means, status=[400], say="Buy the add-on.")))
    assert type(error) is kind
    assert error.code == code
    assert "Buy the add-on." in str(error)


def test_a_rule_may_take_an_answer_for_one_without_records() -> None:
    terms = under(ErrorRule(means="empty", status=[400], path="code", equals=["NO_DATA"]))
    answer = Answer(400, b'{"code":"NO_DATA"}')
    assert error_of(answer, ASKED, SITE, START, terms) is None
    assert is_empty(answer, terms)
    assert not is_empty(Answer(400, b'{"code":"OTHER"}'), terms)


def test_every_2xx_is_an_answer_unless_a_rule_looks_into_it() -> None:
    assert meant(200) is meant(204) is None
    terms = under(ErrorRule(means="slow_down", path="error", equals=["ratelimited"]))
    assert isinstance(meant(200, b'{"ok":false,"error":"ratelimited"}', terms=terms), ThrottledError)
    assert meant(200, b'{"ok":true}', terms=terms) is None


@pytest.mark.parametrize(
    ("rule", "body"),
    [
        (ErrorRule(means="skip", path="*.errorCode", equals=["B"]), b'[{"errorCode":"A"},{"errorCode":"B"}]'),
        (ErrorRule(means="skip", path="0.errorCode", equals=["A"]), b'[{"errorCode":"A"}]'),
        (ErrorRule(means="skip", path="errors.*.code", equals=["7"]), b'{"errors":[{"code":7}]}'),
        (ErrorRule(means="skip", path="ok", equals=["false"]), b'{"ok":false}'),
        (ErrorRule(means="skip", path="message", contains="not licensed"), b'{"message":"module not licensed"}'),
        (ErrorRule(means="skip", path="fault"), b' {"fault":{"a":1}}'),
    ],
)
def test_a_rule_finds_its_text_wherever_it_stands(rule: ErrorRule, body: bytes) -> None:
    error = meant(400, body, terms=under(rule))
    assert error is not None
    assert error.code == "not_available"
    for other in (b"{}", b"[]", b"<html>", b"", b'{"fault":null,"ok":true}', b'{"ok":'):
        error = meant(400, other, terms=under(rule))
        assert error is not None
        assert error.code == "vendor_error"


def test_the_first_rule_that_fits_counts() -> None:
    terms = under(ErrorRule(means="gone", status=[400], path="a"), ErrorRule(means="retry", status=[400]))
    assert isinstance(meant(400, b'{"a":1}', terms=terms), NotFoundError)
    assert isinstance(meant(400, b"{}", terms=terms), RetryableError)


def test_a_permission_that_is_missing_is_named() -> None:
    error = meant(403, terms=under(permission="Device.Read.All"))
    assert error is not None
    assert "Device.Read.All" in error.what
    assert "Device.Read.All" in error.remedy


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        (b'[{"message":"x","extensions":{"code":"THROTTLED"}}]', ThrottledError),
        (b'[{"message":"x","type":"RATE_LIMITED"}]', ThrottledError),
        (b'[{"message":"x","extensions":{"code":"UNAUTHENTICATED"}}]', UnauthorizedError),
        (b'[{"message":"x","extensions":{"code":"FORBIDDEN"}}]', RejectedError),
        (b'[{"message":"x","extensions":{"code":"INTERNAL_SERVER_ERROR"}}]', RetryableError),
        (b'[{"message":"no such field"}]', RejectedError),
    ],
)
def test_errors_in_a_graphql_answer_are_errors_even_beside_data(errors: bytes, kind: type[AvesaError]) -> None:
    body = b'{"data":{"rows":[]},"errors":' + errors + b"}"
    assert type(meant(200, body, terms=GRAPHQL)) is kind
    assert meant(200, body) is None
    assert meant(200, b'{"data":{},"errors":[]}', terms=GRAPHQL) is None


def test_a_503_that_names_a_time_asks_to_slow_down() -> None:
    error = meant(503, headers={"retry-after": "7"})
    assert isinstance(error, ThrottledError)
    assert error.retry_after_s == 7.0


def test_retry_after_is_a_number_or_a_date() -> None:
    assert (read_retry_after("12", START), read_retry_after("1.5", START)) == (12.0, 1.5)
    assert read_retry_after("Sat, 31 Jan 2026 12:00:30 GMT", START) == 30.0
    assert read_retry_after("Sat, 31 Jan 2026 11:00:00 GMT", START) == 0.0
    assert {read_retry_after(text, START) for text in ("soon", "nan", "inf", None)} == {None}


@pytest.mark.parametrize(
    "body",
    [
        b'{"message":"SAID"}',
        b'{"error":"invalid_grant","error_description":"SAID"}',
        b'{"error":{"code":"x","message":"SAID"}}',
        b'{"error":{"message":{"lang":"en","value":"SAID"}}}',
        b'{"errors":[{"message":"SAID"}]}',
        b'{"errors":[{"title":"Bad","detail":"SAID"}]}',
        b'{"errors":["SAID"]}',
        b'{"errorMessages":["SAID"],"errors":{}}',
        b'{"type":"about:blank","title":"Bad","detail":"SAID"}',
        b'{"title":"SAID"}',
        b'{"fault":{"faultstring":"SAID"}}',
        b'[{"message":"SAID","errorCode":"X"}]',
        b'{"error":"SAID"}',
        b'{"Message":"SAID"}',
        b'["SAID"]',
    ],
)
def test_what_the_vendor_says_is_found_in_whatever_shape(body: bytes) -> None:
    assert what_it_says(body) == "SAID"


def test_what_is_wrong_with_a_field_is_told_with_its_name() -> None:
    assert what_it_says(b'{"errors":{"since":["is no date"]}}') == "since: is no date"


def test_what_is_no_message_is_none() -> None:
    assert {what_it_says(body) for body in (b"<html>", b"[1]", b'{"message": 5}', b"", b'{"a":', b"[" * 9_999)} == {""}


def test_what_the_vendor_says_is_told_without_secrets_even_where_it_is_cut() -> None:
    error = meant(400, b'{"message": "%s no key hunter2-hunter2 here"}' % (b"x" * 185))
    assert error is not None
    assert "hunter2" not in str(error)
    assert "no key ***" in str(error)
