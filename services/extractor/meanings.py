"""What an answer means to whoever asked: fine, wait, ask again, give up, or somebody must act. Pure.

The mapping's rules come first (endpoint, then integration); then what a GraphQL answer says of itself; then what every
status means (RFC 9110 15, RFC 6585 4). A message is what was asked, what was answered, what the vendor said; never a
credential.
"""

import math
from collections.abc import Iterable, Iterator
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

import msgspec

from services.contracts.access import ErrorRule, Meaning
from services.contracts.errors import (
    AvesaError,
    Code,
    NotFoundError,
    ReadAgainError,
    RejectedError,
    RetryableError,
    ThrottledError,
    UnauthorizedError,
)
from services.contracts.reading import DeltaToken, GraphqlBody
from services.contracts.times import UtcTime, seconds_between, utc_text
from services.extractor.answers import Answer, unpacked
from services.extractor.auth import Site
from services.extractor.plan import Spec
from services.extractor.raw_json import BYTE_ORDER_MARK, KeyPath, items_of, scalar_text, split_path, value_at
from services.extractor.requests import Request

SAID_LENGTH_MAX: Final = 200
SAID_BYTES_MAX: Final = 65_536  # of an error's body, looked at for its message
TOKEN_GONE: Final = ErrorRule(
    means="read_again", status=[410]
)  # where a delta token was sent, before what 410 means else

_STATUSES: Final[dict[int, Meaning]] = {
    401: "reauthenticate",
    403: "no_permission",
    404: "gone",
    408: "retry",
    410: "gone",
    425: "retry",
    429: "slow_down",
}
# What servers write into `extensions.code` or `type` of a GraphQL error; all else is a mistake in what we asked.
_GRAPHQL: Final[dict[str, Meaning]] = {
    "THROTTLED": "slow_down",
    "RATE_LIMITED": "slow_down",
    "RATE_LIMIT_EXCEEDED": "slow_down",
    "RATELIMITED": "slow_down",
    "TOO_MANY_REQUESTS": "slow_down",
    "COMPLEXITY_BUDGET_EXHAUSTED": "slow_down",
    "UNAUTHENTICATED": "reauthenticate",
    "AUTHENTICATION_ERROR": "reauthenticate",
    "FORBIDDEN": "no_permission",
    "ACCESS_DENIED": "no_permission",
    "INTERNAL_SERVER_ERROR": "retry",
    "SERVICE_UNAVAILABLE": "retry",
    "TIMEOUT": "retry",
    "NOT_FOUND": "gone",
}
_PLAIN: Final[dict[Meaning, tuple[type[AvesaError], Code]]] = {
    "retry": (RetryableError, "unavailable"),
    "skip": (RejectedError, "not_available"),
    "gone": (NotFoundError, "not_found"),
    "read_again": (ReadAgainError, "read_again"),
}
_NOT_THERE: Final = (
    "Look at the address among the credentials and at the endpoint's `path` in the mapping file; where this customer "
    "does not have it, switch the endpoint off with `avesa services set`."
)
_REFUSED: Final[tuple[type[AvesaError], Code]] = (RejectedError, "vendor_error")
# Where vendors put the message of an error, the most telling first. A number is a list's position.
_SAID: Final = tuple(
    split_path(path)
    for path in (
        "message",
        "error_description",
        "error.message",
        "error.message.value",
        "errors.0.message",
        "errors.0.detail",
        "errors.0.title",
        "errors.0",
        "errorMessages.0",
        "detail",
        "title",
        "fault.faultstring",
        "fault.message",
        "error.description",
        "error.detail",
        "error.title",
        "error.error_description",
        "error",
        "errors",
        "Message",
        "errorMessage",
        "error_message",
        "msg",
        "description",
        "reason",
        "0.message",
        "0.error",
        "0",
    )
)


class Terms(msgspec.Struct, frozen=True):
    """How one endpoint's answers are to be understood: its `errors` before the integration's, the `permission` it
    needs in the vendor's words, and whether it speaks GraphQL, whose errors come in answers of 200."""

    errors: tuple[ErrorRule, ...] = ()
    permission: str = ""
    graphql: bool = False


NO_TERMS: Final = Terms()


def terms_of(spec: Spec) -> Terms:
    """The terms of an endpoint. A delta token that is gone (410) is one to do without, unless a rule says otherwise."""
    errors = (*spec.errors, TOKEN_GONE) if isinstance(spec.incremental, DeltaToken) else spec.errors
    return Terms(errors, spec.permission, isinstance(spec.body, GraphqlBody))


class _Meant(msgspec.Struct, frozen=True):
    means: Meaning | None  # None: refused, for no reason known
    say: str = ""


def error_of(answer: Answer, request: Request, site: Site, now: UtcTime, terms: Terms = NO_TERMS) -> AvesaError | None:
    """What is wrong with an answer; None where it may be read, or is to be taken for one without records (`is_empty`).

    Shape:  RetryableError `unavailable`; ThrottledError; UnauthorizedError `bad_credentials` (renew the token once) or
            `stopped` (a person must act); RejectedError `forbidden`, `not_available` (the customer does not have it),
            `vendor_error`; NotFoundError; ReadAgainError.
    """
    meant = _meant(answer, terms)
    if meant is None or meant.means == "empty":
        return None
    return _error(meant, answer, request, site, now, terms.permission)


def is_empty(answer: Answer, terms: Terms) -> bool:
    """Does a rule take this answer for one without records?"""
    if not any(rule.means == "empty" for rule in terms.errors):
        return False
    meant = _meant(answer, terms)
    return meant is not None and meant.means == "empty"


def _meant(answer: Answer, terms: Terms) -> _Meant | None:
    rule = next((rule for rule in terms.errors if _fits(rule, answer)), None)
    if rule is not None:
        return _Meant(rule.means, rule.say)
    status = answer.status
    if 200 <= status < 300:
        return _graphql_meant(answer) if terms.graphql else None
    if status == 503 and "retry-after" in answer.headers:
        return _Meant("slow_down")
    return _Meant(_STATUSES.get(status, "retry" if status >= 500 else None))


def _fits(rule: ErrorRule, answer: Answer) -> bool:
    if rule.status and answer.status not in rule.status:
        return False
    if rule.path is None:
        return True
    told = texts_at(json_of(answer), split_path(rule.path))
    if not rule.equals and rule.contains is None:
        return any(True for _ in told)
    return any(text in rule.equals or (rule.contains is not None and rule.contains in text) for text in told)


def _graphql_meant(answer: Answer) -> _Meant | None:
    """A list of errors in an answer: data beside them is not all of the data.

    Source: GraphQL specification 7.1 (response format: errors, extensions)
    """
    data = json_of(answer)
    if not any(True for _ in texts_at(data, ("errors", "0"))):
        return None
    codes = [
        *texts_at(data, ("errors", "*", "extensions", "code")),
        *texts_at(data, ("errors", "*", "extensions", "type")),
        *texts_at(data, ("errors", "*", "type")),
    ]
    return _Meant(next((_GRAPHQL[code.upper()] for code in codes if code.upper() in _GRAPHQL), None))


def json_of(answer: Answer) -> bytes:
    """The body of a short answer, fit for `texts_at`. Errors: as `answers.unpacked`."""
    return b"" if answer.file is not None else unpacked(answer.body).removeprefix(BYTE_ORDER_MARK).strip()


def texts_at(data: bytes, path: KeyPath) -> Iterator[str]:
    """The texts of what stands at `path`, but null: a string's, or a number, `true` or JSON as it is spelled."""
    try:
        yield from _texts(data, path)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError):
        return  # no JSON says nothing


def _texts(data: bytes, path: KeyPath) -> Iterator[str]:
    if "*" in path:
        place = path.index("*")
        above = value_at(data, path[:place])
        for item in items_of(above) if above is not None and above[:1] == b"[" else ():
            yield from _texts(item, path[place + 1 :])
        return
    found = value_at(data, path)
    if found is not None and found != b"null" and found:
        text = scalar_text(found)
        yield found.decode() if text is None else text


def _error(meant: _Meant, answer: Answer, request: Request, site: Site, now: UtcTime, permission: str) -> AvesaError:
    said = site.scrubbed(what_it_says(answer.body))[:SAID_LENGTH_MAX]
    what = f"{request.source}: the vendor answered {answer.status}" + (f" and said {said!r}" if said else "")
    say = f"{meant.say} " if meant.say else ""
    match meant.means:
        case "slow_down":
            told_s = read_retry_after(answer.headers.get("retry-after"), now)
            return ThrottledError(f"{request.source}: asked to slow down", retry_after_s=told_s, remedy=meant.say)
        case "reauthenticate":
            return UnauthorizedError(what, remedy=f"{say}Replace the credentials with `avesa setup-service`.")
        case "stop":
            remedy = meant.say or "See to it at the vendor; then resume the service with `avesa services`."
            return UnauthorizedError(what, code="stopped", remedy=remedy)
        case "no_permission":
            return _no_permission(what, say, permission)
        case _:
            kind, code = _PLAIN.get(meant.means, _REFUSED) if meant.means is not None else _REFUSED
            remedy = meant.say or (_NOT_THERE if kind is NotFoundError else "")
            return kind(what, code=code, remedy=remedy)


def _no_permission(what: str, say: str, permission: str) -> RejectedError:
    if permission:
        what = f"{what}; it needs the permission {permission!r}"
    needed = f"the permission {permission!r}" if permission else "the permission"
    remedy = f"{say}Grant these credentials {needed} at the vendor, or switch the endpoint off."
    return RejectedError(what, code="forbidden", remedy=remedy)


def read_retry_after(text: str | None, now: UtcTime) -> float | None:
    """Seconds named by a `Retry-After` (a number or a date), None where there is none to be read.

    Source: RFC 9110 10.2.3; some vendors write fractions of a second
    """
    if text is None:
        return None
    try:
        seconds = float(text)
        return max(0.0, seconds) if math.isfinite(seconds) else None
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, seconds_between(now, utc_text(until if until.tzinfo is not None else until.replace(tzinfo=UTC))))


def what_it_says(body: bytes) -> str:
    """The message in the JSON of an error, "" where there is none to be found.

    Source: RFC 9457 (detail, title), RFC 6749 5.2 (error_description), JSON:API 1.1 (errors), OData 4.0 JSON 21
            (error.message), GraphQL 7.1 (errors), and what else vendors write
    """
    try:
        plain = msgspec.json.decode(body[:SAID_BYTES_MAX])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return next((text for text in _said(plain, _SAID)), "")


def _said(plain: Any, paths: Iterable[KeyPath]) -> Iterator[str]:
    for path in paths:
        found = plain
        for name in path:
            if isinstance(found, list) and name.isdecimal() and int(name) < len(found):
                found = found[int(name)]
            else:
                found = found.get(name) if isinstance(found, dict) else None
        if isinstance(found, str) and found.strip():
            yield found.strip()
    if isinstance(plain, dict) and isinstance(plain.get("errors"), dict):  # field -> what is wrong with it
        for name, wrong in plain["errors"].items():
            text = wrong[0] if isinstance(wrong, list) and wrong else wrong
            if isinstance(text, str):
                yield f"{name}: {text}"
