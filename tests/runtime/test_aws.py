"""What the adapters do when AWS answers what no emulator does: a server that says one prepared answer after another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from services.contracts.errors import (
    AvesaError,
    ConflictError,
    FatalError,
    NotFoundError,
    RetryableError,
    ThrottledError,
)
from services.contracts.ports import Entry
from services.runtime.aws import Aws, connect
from services.runtime.settings import Settings

DEAD = "http://127.0.0.1:9"


def answer(status: int, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Answer", f"Content-Length: {len(body)}", "Connection: close", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def refusal(code: str, status: int = 400, *headers: str, message: str = "because") -> bytes:
    return answer(status, msgspec.json.encode({"__type": code, "message": message}), *headers)


def json(value: object) -> bytes:
    return answer(200, msgspec.json.encode(value))


def s3_refusal(code: str, status: int) -> bytes:
    return answer(status, f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode())


@asynccontextmanager
async def answering(*answers: bytes) -> AsyncIterator[tuple[Aws, list[bytes]]]:
    """The ports in front of a server with these answers, and the requests it got."""
    prepared, requests = list(answers), []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if b"100-continue" in head.lower():
            writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        requests.append(head + await reader.readexactly(int(lengths[0].split(b":")[1]) if lengths else 0))
        writer.write(prepared.pop(0))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with connect(Settings.embedded(url, aws_read_s=1)) as aws:
            yield aws, requests
    assert not prepared, "not all answers were asked for"


async def error_of(attempt: Awaitable[object]) -> AvesaError:
    with pytest.raises(AvesaError) as caught:
        await attempt
    return caught.value


@pytest.mark.parametrize(
    ("code", "status", "expected", "ours"),
    [
        ("ProvisionedThroughputExceededException", 400, ThrottledError, "throttled"),
        ("KMSThrottlingException", 400, ThrottledError, "throttled"),
        ("ResourceNotFoundException", 400, NotFoundError, "not_found"),
        ("ResourceInUseException", 400, RetryableError, "unavailable"),
        ("InternalFailure", 500, RetryableError, "unavailable"),
        ("SomethingNew", 503, RetryableError, "unavailable"),
        ("AccessDeniedException", 400, FatalError, "bad_credentials"),
        ("UnrecognizedClientException", 400, FatalError, "bad_credentials"),
        ("ExpiredTokenException", 400, FatalError, "bad_credentials"),
        ("ValidationException", 400, FatalError, "bad_value"),
    ],
)
async def test_a_refusal_says_what_to_do_next(code: str, status: int, expected: type[AvesaError], ours: str) -> None:
    async with answering(refusal(code, status)) as (aws, _):
        err = await error_of(aws.streams.put("raw", [Entry(b"a", "p", 0)]))
    assert (type(err), err.code) == (expected, ours)
    assert "put_records on raw: 127.0.0.1:" in str(err)
    assert code in str(err)


async def test_a_signature_refused_never_quotes_what_was_signed() -> None:
    quoted = "The Canonical String should have been x-amz-security-token:hush"
    async with answering(refusal("InvalidSignatureException", message=quoted)) as (aws, _):
        err = await error_of(aws.streams.describe("raw"))
    assert "hush" not in str(err)
    assert "AWS_PROFILE" in err.remedy


async def test_throttling_passes_on_how_long_to_wait() -> None:
    async with answering(refusal("ThrottlingException", 400, "Retry-After: 7")) as (aws, _):
        err = await error_of(aws.streams.read("raw", "iterator", 10))
    assert isinstance(err, ThrottledError)
    assert err.retry_after_s == 7


async def test_a_put_is_never_repeated_by_the_library() -> None:
    async with answering(refusal("InternalFailure", 500)) as (aws, requests):
        await error_of(aws.streams.put("raw", [Entry(b"a", "p", 0)]))
    assert len(requests) == 1


async def test_a_put_that_fails_in_part_says_which_entries_failed_and_why() -> None:
    failed = {"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "slow down"}
    records = [{"ShardId": "shardId-0", "SequenceNumber": "5"}, failed]
    async with answering(json({"FailedRecordCount": 1, "Records": records})) as (aws, _):
        first, second = await aws.streams.put("raw", [Entry(b"a", "p", 0), Entry(b"b", "p", 0)])
    assert (first.shard_id, first.sequence, first.error) == ("shardId-0", "5", "")
    assert (second.sequence, second.error) == ("", "ProvisionedThroughputExceededException")


async def test_describing_reads_every_page_of_shards_closed_ones_and_parents_included() -> None:
    summary = {"StreamName": "raw", "StreamCreationTimestamp": 1_767_225_600.123}
    hash_range = {"StartingHashKey": "0", "EndingHashKey": str(2**128 - 1)}
    closed = {"StartingSequenceNumber": "1", "EndingSequenceNumber": "9"}
    first = {"ShardId": "shardId-0", "HashKeyRange": hash_range, "SequenceNumberRange": closed}
    second = {
        "ShardId": "shardId-1", "HashKeyRange": hash_range, "ParentShardId": "shardId-0",
        "AdjacentParentShardId": "shardId-x", "SequenceNumberRange": {"StartingSequenceNumber": "10"},
    }  # fmt: skip
    async with answering(
        json({"StreamDescriptionSummary": summary}),
        json({"Shards": [first], "NextToken": "more"}),
        json({"Shards": [second]}),
    ) as (aws, requests):
        info = await aws.streams.describe("raw")
    assert info.created == "2026-01-01T00:00:00.123000Z"
    assert [(shard.shard_id, shard.closed, shard.parents) for shard in info.shards] == [
        ("shardId-0", True, ()),
        ("shardId-1", False, ("shardId-0", "shardId-x")),
    ]
    assert b"StreamName" not in requests[2].partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize("code", ["ExpiredIteratorException", "InvalidArgumentException"])
async def test_an_expired_iterator_is_a_conflict_however_it_is_called(code: str) -> None:
    async with answering(refusal(code)) as (aws, _):
        assert type(await error_of(aws.streams.read("raw", "iterator", 10))) is ConflictError


async def test_the_end_of_a_closed_shard_has_no_next_iterator() -> None:
    async with answering(json({"Records": [], "MillisBehindLatest": 0, "ChildShards": []})) as (aws, _):
        assert (await aws.streams.read("raw", "iterator", 10)).next_iterator is None


async def test_an_object_created_by_an_answer_that_was_lost_is_recognised() -> None:
    held = answer(200, b"mine", 'ETag: "1"')
    async with answering(s3_refusal("PreconditionFailed", 412), held) as (aws, _):
        await aws.objects.create("a", b"mine")


async def test_two_creations_at_once_are_tried_again() -> None:
    async with answering(s3_refusal("ConditionalRequestConflict", 409), answer(200)) as (aws, requests):
        await aws.objects.create("a", b"mine")
    assert len(requests) == 2


async def test_creations_that_keep_colliding_give_up_for_now() -> None:
    async with answering(*[s3_refusal("ConditionalRequestConflict", 409)] * 5) as (aws, _):
        err = await error_of(aws.objects.create("a", b"mine"))
    assert (type(err), err.code) == (RetryableError, "conflict")


async def test_a_body_cut_short_is_no_object() -> None:
    cut = answer(200, b"half of it").replace(b"Content-Length: 10", b"Content-Length: 20")
    async with answering(cut) as (aws, _):
        assert isinstance(await error_of(aws.objects.get("a")), RetryableError)


async def test_an_object_that_could_not_be_deleted_is_said() -> None:
    body = b"<DeleteResult><Error><Key>a</Key><Code>InternalError</Code></Error></DeleteResult>"
    async with answering(answer(200, body)) as (aws, _):
        assert "was not deleted" in str(await error_of(aws.objects.delete(["a"])))


async def test_a_secret_marked_for_deletion_is_not_found_and_is_restored_by_a_put() -> None:
    marked = refusal("InvalidRequestException", message="the secret is marked for deletion")
    async with answering(marked, marked, json({}), json({})) as (aws, requests):
        assert isinstance(await error_of(aws.secrets.get("s")), NotFoundError)
        await aws.secrets.put("s", {"a": "b"})
    assert [b"RestoreSecret" in request for request in requests] == [False, False, True, False]


async def test_a_secret_created_by_another_at_the_same_moment_is_replaced() -> None:
    answers = (refusal("ResourceNotFoundException"), refusal("ResourceExistsException"), json({}))
    async with answering(*answers) as (aws, requests):
        await aws.secrets.put("s", {"a": "b"})
    assert b"PutSecretValue" in requests[2]


@pytest.mark.parametrize("text", ["not json", '{"a": 1}', '["a"]'])
async def test_a_secret_of_another_shape_names_itself_and_the_remedy(text: str) -> None:
    async with answering(json({"SecretString": text})) as (aws, _):
        err = await error_of(aws.secrets.get("avesa/dev/acme/connectwise"))
    assert "avesa/dev/acme/connectwise" in err.what
    assert "setup-service" in err.remedy


async def test_an_endpoint_where_nobody_listens_is_named() -> None:
    async with connect(Settings.embedded(DEAD, aws_attempts_max=1)) as aws:
        attempts: list[Callable[[], Awaitable[object]]] = [
            lambda: aws.streams.describe("raw"),
            lambda: aws.objects.get("a"),
            lambda: aws.rows.get("t", {"scope": "a", "name": "b"}),
            lambda: aws.secrets.get("s"),
        ]
        for attempt in attempts:
            err = await error_of(attempt())
            assert (type(err), err.code) == (RetryableError, "aws_unreachable")
            assert "127.0.0.1:9" in err.what


async def test_an_endpoint_that_stays_silent_is_given_up_in_time() -> None:
    async with answering(b"") as (aws, _):
        assert isinstance(await error_of(aws.streams.describe("raw")), RetryableError)


async def test_an_answer_that_cannot_be_read_is_asked_for_again_later() -> None:
    async with answering(answer(200, b"<html>captive portal</html>")) as (aws, _):
        err = await error_of(aws.streams.describe("raw"))
    assert (type(err), err.code) == (RetryableError, "bad_answer")


async def test_a_profile_that_does_not_exist_is_refused_before_anything_is_sent() -> None:
    with pytest.raises(FatalError, match="nobody") as caught:
        async with connect(Settings.from_environment({}, profile="nobody")):
            pass
    assert caught.value.code == "bad_credentials"


async def test_missing_credentials_name_the_variables_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    async with connect(Settings.from_environment({"AWS_ENDPOINT_URL": "http://192.0.2.1:9"})) as aws:
        err = await error_of(aws.streams.describe("raw"))
    assert (type(err), err.code) == (FatalError, "bad_credentials")
    assert "AWS_ACCESS_KEY_ID" in err.remedy


async def test_embedded_settings_ignore_profile_proxy_and_other_variables_of_the_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("AWS_PROFILE", "AWS_CA_BUNDLE", "HTTP_PROXY", "http_proxy", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.setenv(name, "http://192.0.2.1:9")
    monkeypatch.setenv("AWS_USE_FIPS_ENDPOINT", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREAL")
    async with answering(answer(200, b"data")) as (aws, requests):
        assert await aws.objects.get("a/b") == b"data"
    assert b"Credential=test/" in requests[0]
    assert requests[0].startswith(b"GET /data-storage-msp-dev/a/b ")
