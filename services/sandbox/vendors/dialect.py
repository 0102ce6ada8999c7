"""What a dialect is: a request and a vendor's records -> the answer that vendor would give. No I/O.

The shell around it (`server.py`) does the network, the faults and the log of what was served.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from email.utils import format_datetime
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, urlencode

import msgspec

from services.sandbox.vendors.store import Collection, Row, Store

Problem = Literal[
    "unauthorized", "invalid_grant", "forbidden", "not_found", "throttled", "unavailable", "bad_request", "expired"
]
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Request(msgspec.Struct, frozen=True):
    """What came in.

    Shape:  `origin` is `https://host` as the client named it; `path` is decoded; of a parameter that came twice the
            last counts (`pairs` has all); names of `headers` are lower case.
    Units:  `at` is the vendor's clock, UTC, microseconds.
    """

    method: str
    origin: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    at: datetime
    body: bytes = b""
    pairs: Sequence[tuple[str, str]] = ()

    @property
    def host(self) -> str:
        return self.origin.partition("://")[2]

    @property
    def json(self) -> Any:
        """The body, None where it is no JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))

    def url(self, **changed: str | int | None) -> str:
        """The address of this request with parameters changed; None removes one."""
        kept = [(name, text) for name, text in self.query.items() if name not in changed]
        added = [(name, str(text)) for name, text in changed.items() if text is not None]
        asked = urlencode(kept + added, quote_via=quote)
        return f"{self.origin}{quote(self.path)}" + (f"?{asked}" if asked else "")


class Shown(msgspec.Struct, frozen=True):
    """Which records an answer shows, for the oracle and for hostility.

    Shape:  `contents` are the records as they stand in the answer, one per row. `whole`: each as any other read shows
            it (False: ids, or some fields only). `one`: asked for by its id. `more`: another page follows, at the
            address `following` where the answer (or its header `Link`) holds one.
    """

    collection: str
    rows: tuple[Row, ...] = ()
    contents: tuple[Any, ...] = ()
    whole: bool = True
    one: bool = False
    more: bool = False
    following: str = ""


class Answer(msgspec.Struct, frozen=True):
    """`token`: the answer of a token endpoint or login, where revoked credentials are told otherwise."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = {}
    shown: Shown | None = None
    token: bool = False


class Dialect(msgspec.Struct, frozen=True):
    """One vendor. The package's docstring says how to write one.

    `hosts` are the names it answers under (`*.example.com` fits any label); whoever asks another name was led astray.
    `credentials` are what a user would type now: called when the service is connected, and again when it must be
    reconnected. `error` is the vendor's shape of a refusal: (problem, what it is about, seconds to wait or None).
    `deletes_late`: endpoints whose deletions cannot be seen, with the reason. `sources` say what the behaviour rests
    on, `unsourced` which behaviour rests on nothing that could be found.
    """

    service: str
    hosts: tuple[str, ...]
    collections: tuple[Collection, ...]
    credentials: Callable[[Store], dict[str, str]]
    answer: Callable[[Store, Request], Answer]
    error: Callable[[Problem, str, float | None], Answer]
    sources: tuple[str, ...] = ()
    unsourced: tuple[str, ...] = ()

    def answers_for(self, host: str) -> bool:
        return any(
            host == name or (name.startswith("*.") and host.endswith(name[1:]) and host != name[2:])
            for name in self.hosts
        )


class RefusedError(Exception):
    """The vendor answers with an error instead: raised inside a dialect's helpers, told by `Dialect.error`."""

    def __init__(self, problem: Problem, about: str = "", wait_s: float | None = None) -> None:
        super().__init__(f"{problem}: {about}")
        self.problem: Problem = problem
        self.about, self.wait_s = about, wait_s


def answered(dialect: Dialect, store: Store, request: Request) -> Answer:
    """The answer of the dialect, refusals in its own shape; every answer carries the vendor's clock as `Date`."""
    store.turn(request.at)
    try:
        given = dialect.answer(store, request)
    except RefusedError as refused:
        given = dialect.error(refused.problem, refused.about, refused.wait_s)
    return msgspec.structs.replace(given, headers=dated(given.headers, request.at))


def dated(headers: Mapping[str, str], at: datetime) -> dict[str, str]:
    return {"Date": format_datetime(at.replace(microsecond=0), usegmt=True), **headers}


# -- answers -----------------------------------------------------------------------------------------------------------
def json_answer(
    value: Any, shown: Shown | None = None, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Answer:
    """JSON; decimals keep their digits."""
    kept = {"Content-Type": "application/json; charset=utf-8", **(headers or {})}
    return Answer(status, _encode(value), kept, shown)


def shown(
    rows: Sequence[Row],
    *,
    collection: str,
    render: Callable[[Row], Any] | None = None,
    whole: bool = True,
    one: bool = False,
    more: bool = False,
    following: str = "",
) -> Shown:
    """What an answer shows: `contents` of the result are what the dialect puts into its list."""
    contents = tuple(row.content if render is None else render(row) for row in rows)
    return Shown(collection, tuple(rows), contents, whole, one, more, following)


def link_header(**links: str) -> dict[str, str]:
    """`Link: <https://...>; rel="next", ...`; empty ones are left out (RFC 8288)."""
    text = ", ".join(f'<{address}>; rel="{rel}"' for rel, address in links.items() if address)
    return {"Link": text} if text else {}


def number_in(query: Mapping[str, str], name: str, default: int, *, least: int = 0, most: int | None = None) -> int:
    """A whole number from a parameter. Errors: RefusedError `bad_request` where it is none or too small; more than
    `most` is cut to it, as most vendors do."""
    text = query.get(name, "")
    if not text:
        return default
    if not text.lstrip("-").isdigit() or int(text) < least:
        raise RefusedError("bad_request", f"{name}={text}")
    return int(text) if most is None else min(int(text), most)
