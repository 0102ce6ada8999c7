"""What requests need, read from HTTP."""

import json
from typing import Any

import pytest

from tests.infra.calls import Call, Exchange, Reader

STREAM = "arn:aws:kinesis:us-east-2:1:stream/raw"
CATALOG = "arn:aws:glue:us-east-2:1:"
BUCKET = "arn:aws:s3:::lake"


def reader() -> Reader:
    return Reader("1", "us-east-2", {"Leases": "scope"})


def api(target: str, told: Any = None, status: int = 200, **asked: Any) -> Exchange:
    """One request to a JSON API."""
    answer = json.dumps(told or {}).encode()
    return Exchange("POST", "/", {"x-amz-target": target}, json.dumps(asked).encode(), status, answer)


def s3(method: str, target: str, body: bytes = b"", status: int = 200, **headers: str) -> Exchange:
    return Exchange(method, target, {name.replace("_", "-"): text for name, text in headers.items()}, body, status)


def needs(*exchanges: Exchange) -> list[tuple[str, str]]:
    """Action and resource of the last."""
    reads = reader()
    *_, last = [reads.calls(exchange) for exchange in exchanges]
    return [(call.action, call.resource) for call in last]


def test_a_read_of_a_stream_is_known_by_the_iterator_that_was_handed_out() -> None:
    first = api("Kinesis_20131202.GetShardIterator", {"ShardIterator": "i1"}, StreamName="raw", ShardId="s")
    page = api("Kinesis_20131202.GetRecords", {"NextShardIterator": "i2", "Records": []}, ShardIterator="i1")
    more = api("Kinesis_20131202.GetRecords", {"Records": []}, ShardIterator="i2")
    assert needs(first, page, more) == [("kinesis:GetRecords", STREAM)]


def test_more_shards_are_those_of_the_stream_whose_token_it_is() -> None:
    first = api("Kinesis_20131202.ListShards", {"NextToken": "t", "Shards": []}, StreamName="raw")
    assert needs(first, api("Kinesis_20131202.ListShards", NextToken="t")) == [("kinesis:ListShards", STREAM)]


def test_to_find_a_consumer_by_its_name_is_about_the_consumer_and_its_stream() -> None:
    found = api("Kinesis_20131202.DescribeStreamConsumer", StreamARN=STREAM, ConsumerName="c")
    assert needs(found) == [
        ("kinesis:DescribeStreamConsumer", f"{STREAM}/consumer/c:0"),
        ("kinesis:DescribeStreamConsumer", STREAM),
    ]
    pushed = api("Kinesis_20131202.SubscribeToShard", ConsumerARN=f"{STREAM}/consumer/c:7", ShardId="s")
    assert needs(pushed) == [("kinesis:SubscribeToShard", f"{STREAM}/consumer/c:7")]


def test_a_row_is_named_by_its_partition_whatever_comes_first() -> None:
    table = "arn:aws:dynamodb:us-east-2:1:table/Leases"
    key = {"name": {"S": "n"}, "scope": {"S": "gaps"}}
    got = reader().calls(api("DynamoDB_20120810.GetItem", TableName="Leases", Key=key))
    assert got == [Call("dynamodb:GetItem", table, (("dynamodb:LeadingKeys", ("gaps",)),))]
    values = {":0": {"S": "gaps"}}
    found = reader().calls(
        api(
            "DynamoDB_20120810.Query",
            TableName="Leases",
            KeyConditionExpression="#0 = :0",
            ExpressionAttributeValues=values,
        )
    )
    assert found == [Call("dynamodb:Query", table, (("dynamodb:LeadingKeys", ("gaps",)),))]
    assert reader().calls(api("DynamoDB_20120810.Scan", TableName="Leases")) == [Call("dynamodb:Scan", table)]


def test_a_table_of_the_lake_needs_its_database_and_the_catalog_too() -> None:
    got = api("AWSGlue.GetTable", DatabaseName="d", Name="t")
    assert needs(got) == [("glue:GetTable", CATALOG + part) for part in ("catalog", "database/d", "table/d/t")]
    made = api("AWSGlue.CreateTable", DatabaseName="d", TableInput={"Name": "t"})
    assert needs(made) == [("glue:CreateTable", CATALOG + part) for part in ("catalog", "database/d", "table/d/t")]
    base = api("AWSGlue.CreateDatabase", DatabaseInput={"Name": "d"})
    assert needs(base) == [("glue:CreateDatabase", CATALOG + part) for part in ("catalog", "database/d")]


def test_a_secret_is_named_with_the_letters_that_aws_adds() -> None:
    got = api("secretsmanager.GetSecretValue", SecretId="avesa/dev/acme/xero")
    secret = "arn:aws:secretsmanager:us-east-2:1:secret:avesa/dev/acme/xero-AbCdEf"
    assert needs(got) == [("secretsmanager:GetSecretValue", secret)]


@pytest.mark.parametrize(
    ("asked", "needed"),
    [
        (s3("GET", "/lake/a/b.parquet"), [("s3:GetObject", f"{BUCKET}/a/b.parquet")]),
        (s3("HEAD", "/lake/a%20b"), [("s3:GetObject", f"{BUCKET}/a b")]),
        (s3("GET", "/lake/a", status=404), [("s3:GetObject", f"{BUCKET}/a"), ("s3:ListBucket", BUCKET)]),
        (s3("PUT", "/lake/a"), [("s3:PutObject", f"{BUCKET}/a")]),
        (s3("POST", "/lake/a?uploads="), [("s3:PutObject", f"{BUCKET}/a")]),
        (s3("PUT", "/lake/a?partNumber=1&uploadId=u"), [("s3:PutObject", f"{BUCKET}/a")]),
        (s3("POST", "/lake/a?uploadId=u"), [("s3:PutObject", f"{BUCKET}/a")]),
        (s3("DELETE", "/lake/a?uploadId=u"), [("s3:AbortMultipartUpload", f"{BUCKET}/a")]),
        (s3("DELETE", "/lake/a"), [("s3:DeleteObject", f"{BUCKET}/a")]),
        (
            s3("POST", "/lake?delete", b"<Delete><Object><Key>a</Key></Object><Object><Key>b</Key></Object></Delete>"),
            [("s3:DeleteObject", f"{BUCKET}/a"), ("s3:DeleteObject", f"{BUCKET}/b")],
        ),
        (s3("HEAD", "/lake"), [("s3:ListBucket", BUCKET)]),
    ],
)
def test_what_s3_is_asked_for(asked: Exchange, needed: list[tuple[str, str]]) -> None:
    assert needs(asked) == needed


def test_a_listing_says_what_it_lists() -> None:
    (listed,) = reader().calls(s3("GET", "/lake?list-type=2&prefix=acme%2Fraw%2F"))
    assert listed == Call("s3:ListBucket", BUCKET, (("s3:prefix", ("acme/raw/",)),))


@pytest.mark.parametrize(
    "strange",
    [
        s3("GET", "/"),
        s3("GET", "/lake?policy"),
        s3("PUT", "/lake/a", x_amz_copy_source="/lake/b"),
        api("DynamoDB_20120810.BatchWriteItem", RequestItems={}),
        api("AWSGlue.BatchGetPartition", DatabaseName="d"),
        api("AmazonSQS.SendMessage"),
    ],
)
def test_what_nobody_has_described_is_no_call_but_a_question(strange: Exchange) -> None:
    with pytest.raises(ValueError, match=r"\?|too"):
        reader().calls(strange)
