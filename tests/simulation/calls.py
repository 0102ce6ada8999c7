"""One call of a port by a simulated process, and what may befall it on its way."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

import msgspec

from services.contracts.errors import AvesaError, RetryableError

if TYPE_CHECKING:
    from tests.simulation.processes import Process

T = TypeVar("T")

SEQUENCE_TAIL: Final = 24
SHORT_MAX: Final = 60


class Call(msgspec.Struct, frozen=True):
    """One call. `port`: streams, objects, rows, secrets, threads, vendor, catalog; `method` as the port names it;
    `subject`: the stream, key, table, secret, function or address.

    `detail`: of `rows` (key, values, expect); of `streams.put` the entries; of `streams.read` and `streams.iterator`
    the shard's id; of `threads` the positional arguments; of `vendor` the request; else None.
    """

    process: "Process"
    port: str
    method: str
    subject: str
    detail: Any = None

    @property
    def name(self) -> str:
        """`streams.put`"""
        return f"{self.port}.{self.method}"

    @property
    def text(self) -> str:
        """For the trace: what it is about, in few words."""
        if self.port == "rows" and self.detail:
            at = "/".join(self.detail[0].values()).replace("shardId-000000000", "").replace("avesa-", "")
            news = ", ".join(f"{name}={_short(value)}" for name, value in sorted(self.values.items()))
            return f"{self.name} {at} {news}"
        if self.name in ("streams.read", "streams.iterator"):
            return f"{self.name} {self.subject} {self.detail[-3:]}"
        return f"{self.name} {self.subject}"

    @property
    def key(self) -> dict[str, str]:
        """Of a row."""
        return dict(self.detail[0]) if self.port == "rows" and self.detail else {}

    @property
    def expect(self) -> dict[str, Any]:
        """What a write of a row is conditional on."""
        return dict(self.detail[2] or {}) if self.name == "rows.write" else {}

    @property
    def values(self) -> dict[str, Any]:
        """What is written into a row."""
        return dict(self.detail[1]) if self.name == "rows.write" else {}


def _short(value: Any) -> str:
    text = str(value)
    if text.isdecimal() and len(text) > SEQUENCE_TAIL:
        return "…" + text[-SEQUENCE_TAIL:]
    return text if len(text) <= SHORT_MAX else text[:SHORT_MAX] + "…"


class Twist(msgspec.Struct, frozen=True):
    """What befalls a call; several may at once.

    `delay_s` on the way there; `error` instead of any effect; `lost`: the effect, and a timeout for an answer;
    `late_s`: a timeout for an answer, and the effect so much later; `kill`: the process dies `before` the request
    leaves or `after` the effect (the answer never reaches it); `freeze_s`: the process stands still so long, between
    effect and answer; `again`: the answer is lost and the library asks again by itself, so the effect comes twice and
    the second answer is the one that is heard.
    """

    delay_s: float = 0.0
    error: AvesaError | None = None
    lost: bool = False
    late_s: float = 0.0
    kill: Literal["", "before", "after"] = ""
    freeze_s: float = 0.0
    again: bool = False

    @property
    def text(self) -> str:
        return ", ".join(
            word
            for word in (
                f"delayed {self.delay_s:.1f} s" if self.delay_s else "",
                f"{type(self.error).__name__} {self.error.code}" if self.error else "",
                "answer lost" if self.lost else "",
                f"lands {self.late_s:.1f} s late" if self.late_s else "",
                f"killed {self.kill}" if self.kill else "",
                f"frozen {self.freeze_s:.1f} s" if self.freeze_s else "",
                "asked twice" if self.again else "",
            )
            if word
        )


NOTHING = Twist()
Interceptor = Callable[[Call], Twist | None]


def lost_answer(call: Call) -> RetryableError:
    return RetryableError(f"the answer of {call.name} was lost", code="timeout")
