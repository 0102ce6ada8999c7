"""Errors say what the caller does next. The code is from a closed set; the message is for a person.

AvesaError
 ├── RetryableError    wait, then repeat: nothing is wrong with the input
 │    └── ThrottledError   the same, and the other side said how long
 ├── RejectedError     this record cannot be used: dead-letter it, go on with the rest
 ├── ConflictError     a conditional write lost: read again, decide again
 │    └── FencedError      somebody else owns this now: drop it quietly, keep nothing
 ├── NotFoundError     the thing named is not there
 ├── ReadAgainError    the place to go on from is not known there any more: read all of it
 └── FatalError        a person must act: exit 1 with the message
      ├── UnauthorizedError   credentials refused: stop this tenant and service only
      └── UsageError          what was typed or written cannot be used: file, path, remedy
"""

from typing import Literal

Code = Literal[
    "already_running", "aws_unreachable", "bad_answer", "bad_credentials", "bad_envelope", "bad_mapping", "bad_row",
    "bad_value", "conflict", "disk_full", "fenced", "forbidden", "missing_key", "not_available", "not_found",
    "old_mapping", "pages_do_not_advance", "payload_unreadable", "poison", "port_taken", "read_again",
    "rebuild_unfinished", "stopped", "throttled", "timeout", "too_large", "unavailable", "unknown_service",
    "unknown_table", "unknown_tenant", "unreadable_time", "usage", "vendor_error", "wrong_host",
]  # fmt: skip


class AvesaError(Exception):
    """Root of everything this project raises on purpose.

    `remedy` says what to do; `where` locates the input: a file with its JSON path, a tenant, a record id.
    """

    default_code: Code = "unavailable"

    def __init__(self, what: str, *, code: Code | None = None, remedy: str = "", where: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.code: Code = code or self.default_code
        self.remedy = remedy
        self.where = where

    def __str__(self) -> str:
        located = f"{self.where}: {self.what}" if self.where else self.what
        return f"{located}. {self.remedy}" if self.remedy else located


class RetryableError(AvesaError):
    """Wait, then repeat."""


class ThrottledError(RetryableError):
    """Asked to slow down; `retry_after_s` is what the other side named, or None."""

    default_code: Code = "throttled"

    def __init__(self, what: str, *, retry_after_s: float | None = None, remedy: str = "", where: str = "") -> None:
        super().__init__(what, remedy=remedy, where=where)
        self.retry_after_s = retry_after_s


class RejectedError(AvesaError):
    """This record cannot be used; the rest flow on."""

    default_code: Code = "bad_row"


class ConflictError(AvesaError):
    """A conditional write lost."""

    default_code: Code = "conflict"


class FencedError(ConflictError):
    """Another owner has taken over."""

    default_code: Code = "fenced"


class NotFoundError(AvesaError):
    """The thing named is not there."""

    default_code: Code = "not_found"


class ReadAgainError(AvesaError):
    """A delta token or cursor is not taken any more: forget it and read all again."""

    default_code: Code = "read_again"


class FatalError(AvesaError):
    """A person must act."""


class UnauthorizedError(FatalError):
    """The vendor refused the credentials."""

    default_code: Code = "bad_credentials"


class UsageError(FatalError):
    """What was typed or written cannot be used."""

    default_code: Code = "usage"
