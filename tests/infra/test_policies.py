"""Policy documents, as IAM evaluates them."""

import json
from typing import Any

import pytest

from tests.infra.calls import Call
from tests.infra.policies import Statement, denied, statements, unused

ROWS = "arn:aws:dynamodb:us-east-2:1:table/Leases"


def document(*raw: dict[str, Any]) -> list[Statement]:
    return statements(json.dumps({"Version": "2012-10-17", "Statement": list(raw)}))


def allow(actions: Any, resources: Any, **more: Any) -> dict[str, Any]:
    return {"Sid": "S", "Effect": "Allow", "Action": actions, "Resource": resources, **more}


def on(action: str, resource: str = "r", **context: str) -> Call:
    keys = tuple((name.replace("_", ":"), (value,)) for name, value in context.items())
    return Call(action, resource, keys)


def test_what_no_statement_allows_is_denied() -> None:
    held = document(allow(["s3:GetObject", "s3:PutObject"], "b/raw/*"))
    assert denied(held, [on("s3:getobject", "b/raw/x/y"), on("s3:PutObject", "b/raw/")]) == []
    outside = [on("s3:DeleteObject", "b/raw/x"), on("s3:GetObject", "b/rawer/x")]
    assert denied(held, outside) == sorted(outside)


def test_a_question_mark_is_one_character() -> None:
    held = document(allow("a:b", "secret:x-??????"))
    assert denied(held, [on("a:b", "secret:x-AbCdEf")]) == []
    assert denied(held, [on("a:b", "secret:x-berlin-AbCdEf")]) != []


def test_what_is_denied_stays_denied() -> None:
    held = document(allow("a:b", "*"), allow("a:b", "r/secret", Effect="Deny"))
    assert denied(held, [on("a:b", "r/open"), on("a:b", "r/secret")]) == [on("a:b", "r/secret")]


def test_for_all_values_holds_where_there_is_none_and_null_forbids_that() -> None:
    keys = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["gaps", "transformer/*"]}}
    never = {"Null": {"dynamodb:LeadingKeys": "false"}}
    fine = [on("d:Get", dynamodb_LeadingKeys="gaps"), on("d:Get", dynamodb_LeadingKeys="transformer/raw")]
    other, none = on("d:Get", dynamodb_LeadingKeys="extract"), on("d:Get")
    assert denied(document(allow("d:Get", "r", Condition=keys)), [*fine, other, none]) == [other]
    assert denied(document(allow("d:Get", "r", Condition=keys | never)), [*fine, other, none]) == [none, other]


def test_a_condition_on_a_key_that_is_missing_holds_with_if_exists_only() -> None:
    listed, bare = on("s3:ListBucket", s3_prefix="raw/x"), on("s3:ListBucket")
    strict = document(allow("s3:ListBucket", "r", Condition={"StringLike": {"s3:prefix": "raw/*"}}))
    assert denied(strict, [listed, bare]) == [bare]
    loose = document(allow("s3:ListBucket", "r", Condition={"StringLikeIfExists": {"s3:prefix": "raw/*"}}))
    assert denied(loose, [listed, bare, on("s3:ListBucket", s3_prefix="canonical/")]) == [
        on("s3:ListBucket", s3_prefix="canonical/")
    ]


def test_a_text_is_equal_or_not() -> None:
    held = document(allow("kms:Decrypt", "r", Condition={"StringEquals": {"kms:ViaService": "s3.amazonaws.com"}}))
    assert denied(held, [on("kms:Decrypt", kms_ViaService="s3.amazonaws.com")]) == []
    assert denied(held, [on("kms:Decrypt", kms_ViaService="kinesis.amazonaws.com")]) != []


def test_what_was_never_needed_is_told_by_statement() -> None:
    held = document(allow(["d:Get", "d:Put"], [ROWS, "other"]))
    assert unused(held, [on("d:Get", ROWS)]) == [("S", "d:Put"), ("S", "other")]
    assert unused(held, [on("d:Get", ROWS), on("d:Put", "other")]) == []


@pytest.mark.parametrize(
    "strange",
    [
        {"Effect": "Allow", "NotAction": "a:b", "Resource": "*"},
        allow("a:b", "*", Condition={"DateLessThan": {"aws:CurrentTime": "2026-01-01T00:00:00Z"}}),
    ],
)
def test_what_is_not_understood_is_not_passed_over(strange: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="not understood"):
        document(strange)
