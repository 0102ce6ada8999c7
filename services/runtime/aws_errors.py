"""What AWS and its libraries raise, as our errors: one table, one function."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

# A body cut short leaves aiobotocore as its transport's own error (aiobotocore 3.9, AioStreamingBody.read).
from aiobotocore.httpsession import aiohttp as transport
from botocore import exceptions as botocore
from botocore.eventstream import ParserError
from botocore.parsers import ResponseParserError

from services.contracts.errors import (
    AvesaError,
    Code,
    ConflictError,
    FatalError,
    NotFoundError,
    RetryableError,
    ThrottledError,
    UsageError,
)

THROTTLED: Final = frozenset({
    "BandwidthLimitExceeded", "KMSThrottlingException", "LimitExceededException",
    "ProvisionedThroughputExceededException", "RequestLimitExceeded", "RequestThrottled", "RequestThrottledException",
    "SlowDown", "Throttling", "ThrottledException", "ThrottlingException", "TooManyRequestsException",
})  # fmt: skip
NOT_FOUND: Final = frozenset({
    "404", "ClusterNotFoundException", "EntityNotFoundException", "ImageNotFoundException", "NoSuchBucket",
    "NoSuchEntity", "NoSuchKey", "NoSuchPublicAccessBlockConfiguration", "NotFound", "NotFoundException",
    "RepositoryNotFoundException", "ResourceNotFoundException", "ServerSideEncryptionConfigurationNotFoundError",
})  # fmt: skip
CONFLICT: Final = frozenset({
    "412", "BucketAlreadyOwnedByYou", "ConditionalCheckFailedException", "ExpiredIteratorException",
    "PreconditionFailed", "ResourceExistsException",
})  # fmt: skip
RACED: Final = frozenset({"409", "ConditionalRequestConflict"})
RETRYABLE: Final = frozenset({
    "ExpiredNextTokenException", "InternalError", "InternalFailure", "InternalFailureException",
    "InternalServerError", "OperationAborted", "RequestTimeout", "RequestTimeoutException", "ResourceInUseException",
    "ServiceUnavailable", "TransactionConflictException", "TransactionInProgressException",
})  # fmt: skip
DENIED: Final = frozenset({
    "403", "AccessDenied", "AccessDeniedException", "KMSAccessDeniedException", "UnauthorizedOperation",
})  # fmt: skip
BAD_KEY: Final = frozenset({
    "AuthFailure", "ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "IncompleteSignatureException",
    "InvalidAccessKeyId", "InvalidClientTokenId", "InvalidSignatureException", "InvalidToken",
    "MissingAuthenticationToken", "MissingAuthenticationTokenException", "NotAuthorized", "OptInRequired",
    "RequestExpired", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "UnrecognizedClientException",
})  # fmt: skip
SKEWED: Final = frozenset({"RequestExpired", "RequestTimeTooSkewed"})

NO_CREDENTIALS: Final = (
    botocore.CredentialRetrievalError, botocore.NoAuthTokenError, botocore.NoCredentialsError,
    botocore.PartialCredentialsError, botocore.ProfileNotFound, botocore.SSOError, botocore.TokenRetrievalError,
    botocore.UnknownCredentialError,
)  # fmt: skip
NOT_CONFIGURED: Final = (
    botocore.ConfigNotFound, botocore.ConfigParseError, botocore.InvalidConfigError, botocore.InvalidRegionError,
    botocore.NoRegionError,
)  # fmt: skip
# In this order: a connection that timed out is a timeout to some libraries and a failed connection to us.
BROKEN: Final[tuple[tuple[tuple[type[Exception], ...], Code, str], ...]] = (
    ((botocore.ConnectTimeoutError, botocore.ConnectionError), "aws_unreachable", "cannot be reached"),
    ((botocore.ReadTimeoutError, TimeoutError), "timeout", "did not answer in time"),
    ((botocore.HTTPClientError, botocore.IncompleteReadError, transport.ClientError), "aws_unreachable", "broke off"),
    (
        (ResponseParserError, ParserError, botocore.FlexibleChecksumError),
        "bad_answer",
        "gave an answer that cannot be read",
    ),
)
UNREACHABLE_REMEDY: Final = "Is an emulator meant to run there? Else check the network and the region."
DENIED_REMEDY: Final = "Allow that action to this role or user, or choose another with AWS_PROFILE."
CLOCK_REMEDY: Final = "This machine's clock is wrong: set it."
CREDENTIALS_REMEDY: Final = "Set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use the embedded AWS."


@contextmanager
def translated(action: str, endpoint_url: str | None) -> Iterator[None]:
    """Raise what AWS raises within as our errors. `action` is what was tried, as `PutRecords on avesa-raw-dev`."""
    host = urlsplit(endpoint_url).netloc if endpoint_url else "AWS"
    try:
        yield
    except botocore.ClientError as err:
        raise _refusal(err.response, action, host) from err
    except (botocore.BotoCoreError, ResponseParserError, ParserError, transport.ClientError, TimeoutError) as err:
        raise _failure(err, action, host) from err


def _refusal(answer: dict[str, Any], action: str, host: str) -> AvesaError:
    """AWS answered, and the answer was no."""
    code = str(answer.get("Error", {}).get("Code", ""))
    message = str(answer.get("Error", {}).get("Message", "")).strip()
    metadata = answer.get("ResponseMetadata", {})
    status = int(metadata.get("HTTPStatusCode", 0))
    what = f"{action}: {host} answers {code or status}"
    said = f"{what} ({message})" if message else what
    if code in THROTTLED or status == 429:
        return ThrottledError(what, retry_after_s=_seconds(metadata.get("HTTPHeaders", {}).get("retry-after")))
    if code in NOT_FOUND or code in CONFLICT:
        return NotFoundError(said) if code in NOT_FOUND else ConflictError(said)
    if code in RACED:
        return RetryableError(said, code="conflict")
    if code in RETRYABLE or status >= 500:
        return RetryableError(said)
    if code in BAD_KEY:  # without the message: it may quote the signed headers, a session token among them
        return FatalError(what, code="bad_credentials", remedy=CLOCK_REMEDY if code in SKEWED else CREDENTIALS_REMEDY)
    return _forbidden(said, message, denied=code in DENIED or status == 403)


def _forbidden(said: str, message: str, denied: bool) -> FatalError:
    """AWS will never say yes to this."""
    if denied:
        return FatalError(said, code="bad_credentials", remedy=DENIED_REMEDY)
    return FatalError(said, code="too_large" if "size" in message.lower() else "bad_value")


def _failure(err: Exception, action: str, host: str) -> AvesaError:
    """No answer, or none that can be read."""
    if isinstance(err, NO_CREDENTIALS):
        return FatalError(f"{action}: {err}".rstrip("."), code="bad_credentials", remedy=CREDENTIALS_REMEDY)
    if isinstance(err, NOT_CONFIGURED):
        return UsageError(f"{action}: {err}".rstrip("."), remedy="Correct the region or the AWS configuration file.")
    for kinds, code, phrase in BROKEN:
        if isinstance(err, kinds):
            remedy = UNREACHABLE_REMEDY if code == "aws_unreachable" else ""
            return RetryableError(f"{action}: {host} {phrase}", code=code, remedy=remedy)
    return FatalError(f"{action}: {err}", code="bad_value")


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isdecimal() else None
