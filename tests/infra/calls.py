"""What a request to AWS must be allowed to do: its actions and resources, read from the HTTP alone. Pure but for what
it remembers of iterators.

From the HTTP, because not all of our requests are made by one library: Arrow's S3 client is C++. Which action needs
which resource: Service Authorization Reference, the pages of the services.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

SUFFIX: Final = "-AbCdEf"  # Secrets Manager ends every ARN with six letters of its own
JSON_SERVICES: Final[Mapping[str, str]] = {
    "Kinesis_20131202": "kinesis",
    "DynamoDB_20120810": "dynamodb",
    "secretsmanager": "secretsmanager",
    "AWSGlue": "glue",
}
ROWS: Final = {"GetItem", "UpdateItem", "DeleteItem", "Query", "Scan", "DescribeTable"}


class Call(msgspec.Struct, frozen=True, order=True):
    """One action on one resource. `context` are condition keys and their values, as a policy meets them."""

    action: str
    resource: str
    context: tuple[tuple[str, tuple[str, ...]], ...] = ()


class Exchange(msgspec.Struct, frozen=True):
    """A request and what was answered. `target` is path and query as they were sent; names of headers are small."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    status: int
    answer: bytes = b""


class Reader:
    """Reads exchanges with one account in one region, in the order in which they happened. `partitions`: the partition
    keys of the tables."""

    def __init__(self, account: str, region: str, partitions: Mapping[str, str]) -> None:
        self._account, self._region, self._partitions = account, region, partitions
        self._iterators: dict[str, str] = {}  # the stream that an iterator or a token belongs to

    def calls(self, exchange: Exchange) -> list[Call]:
        """What the request needed. Errors: ValueError for one nobody has described here."""
        if (target := exchange.headers.get("x-amz-target")) is None:
            return list(_s3(exchange))
        prefix, _, operation = target.partition(".")
        service = JSON_SERVICES.get(prefix)
        if service is None:
            raise ValueError(f"what does {target} need?")
        asked, told = _json(exchange.body), _json(exchange.answer) if exchange.status == 200 else {}
        reading: dict[str, Callable[[str, dict[str, Any], dict[str, Any]], Iterator[Call]]] = {
            "kinesis": self._kinesis,
            "dynamodb": self._dynamodb,
            "secretsmanager": self._secrets,
            "glue": self._glue,
        }
        return list(reading[service](operation, asked, told))

    def _arn(self, service: str, resource: str) -> str:
        return f"arn:aws:{service}:{self._region}:{self._account}:{resource}"

    def _kinesis(self, operation: str, asked: dict[str, Any], told: dict[str, Any]) -> Iterator[Call]:
        """A consumer's own calls are about the consumer; to register one is about the stream, and to find one by its
        name is about both."""
        token = asked.get("ShardIterator") or asked.get("NextToken")
        resource = (
            asked.get("ConsumerARN")
            or asked.get("StreamARN")
            or self._arn("kinesis", self._iterators[token] if token else f"stream/{asked['StreamName']}")
        )
        if operation == "DescribeStreamConsumer" and "ConsumerName" in asked:
            yield Call(f"kinesis:{operation}", f"{resource}/consumer/{asked['ConsumerName']}:0")
        for field in ("ShardIterator", "NextShardIterator", "NextToken"):
            if told.get(field):
                self._iterators[told[field]] = resource.rpartition(":")[2]
        yield Call(f"kinesis:{operation}", resource)

    def _dynamodb(self, operation: str, asked: dict[str, Any], told: dict[str, Any]) -> Iterator[Call]:
        if operation not in ROWS:
            raise ValueError(f"which rows does dynamodb:{operation} touch?")
        table = self._arn("dynamodb", f"table/{asked['TableName']}")
        resource = f"{table}/index/{asked['IndexName']}" if "IndexName" in asked else table
        context: tuple[tuple[str, tuple[str, ...]], ...] = ()
        if "Key" in asked:
            context = (("dynamodb:LeadingKeys", (asked["Key"][self._partitions[asked["TableName"]]]["S"],)),)
        elif operation == "Query":  # ours name the partition, and nothing else
            (value,) = asked["ExpressionAttributeValues"].values()
            context = (("dynamodb:LeadingKeys", (value["S"],)),)
        yield Call(f"dynamodb:{operation}", resource, context)

    def _secrets(self, operation: str, asked: dict[str, Any], told: dict[str, Any]) -> Iterator[Call]:
        named = asked.get("SecretId") or asked["Name"]
        resource = named if named.startswith("arn:") else self._arn("secretsmanager", f"secret:{named}{SUFFIX}")
        yield Call(f"secretsmanager:{operation}", resource)

    def _glue(self, operation: str, asked: dict[str, Any], told: dict[str, Any]) -> Iterator[Call]:
        """Everything above it must be allowed too: a table's database, and the catalog."""
        database = asked.get("DatabaseName") or asked.get("DatabaseInput", {}).get("Name")
        if operation in ("GetDatabase", "UpdateDatabase", "DeleteDatabase"):
            database = asked["Name"]
        table = asked.get("Name") or asked.get("TableInput", {}).get("Name")
        yield Call(f"glue:{operation}", self._arn("glue", "catalog"))
        if operation == "GetDatabases":
            yield Call(f"glue:{operation}", self._arn("glue", "database/*"))
            return
        yield Call(f"glue:{operation}", self._arn("glue", f"database/{database}"))
        if operation == "GetTables":
            yield Call(f"glue:{operation}", self._arn("glue", f"table/{database}/*"))
        elif operation in ("GetTable", "CreateTable", "UpdateTable", "DeleteTable"):
            yield Call(f"glue:{operation}", self._arn("glue", f"table/{database}/{table}"))
        elif not operation.endswith("Database"):
            raise ValueError(f"what does glue:{operation} need?")


def _s3(exchange: Exchange) -> Iterator[Call]:
    parts = urlsplit(exchange.target)
    bucket, _, key = unquote(parts.path).removeprefix("/").partition("/")
    query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    there, method = f"arn:aws:s3:::{bucket}", exchange.method
    if not bucket:
        raise ValueError(f"what does {method} / need?")
    if not key:
        yield from _bucket(exchange, there, query)
        return
    if method in ("GET", "HEAD"):
        yield Call("s3:GetObject", f"{there}/{key}")
        if exchange.status == 404:  # who may not list is told 403 instead: S3 API reference, GetObject
            yield Call("s3:ListBucket", there)
    elif method == "DELETE":
        yield Call("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject", f"{there}/{key}")
    elif method == "PUT" or (method == "POST" and query.keys() & {"uploads", "uploadId"}):
        if "x-amz-copy-source" in exchange.headers:
            raise ValueError("a copy reads too")
        yield Call("s3:PutObject", f"{there}/{key}")
    else:
        raise ValueError(f"what does {method} {exchange.target} need?")


def _bucket(exchange: Exchange, there: str, query: Mapping[str, str]) -> Iterator[Call]:
    if exchange.method == "HEAD":
        yield Call("s3:ListBucket", there)
    elif exchange.method == "GET" and not query.keys() & {"location", "uploads", "versions", "policy"}:
        yield Call("s3:ListBucket", there, (("s3:prefix", (query.get("prefix", ""),)),))
    elif exchange.method == "POST" and "delete" in query:
        for key in re.findall(r"<Key>([^<]*)</Key>", exchange.body.decode()):
            yield Call("s3:DeleteObject", f"{there}/{key}")
    else:
        raise ValueError(f"what does {exchange.method} {exchange.target} need?")


def _json(text: bytes) -> dict[str, Any]:
    return msgspec.json.decode(text, type=dict[str, Any]) if text.startswith(b"{") else {}
