"""What goes wrong on the vendor's side, on request and by seed: rows 34 to 49 of the fault list, for every dialect.

Nothing here knows a vendor: it works on answers that say what they show (`Shown`), and on the store. What befalls an
answer is a span of time (`begin`, `end`) or a single shot (`arm`); what befalls records is done at once (`tie`,
`hide_for_a_while`, ...). Rows 41, 48 and 50 are about the reader's process: whoever runs it strikes there.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from random import Random
from typing import Any, Final, Literal

import msgspec

from services.sandbox.vendors.access import tokens_of
from services.sandbox.vendors.changes import Changes
from services.sandbox.vendors.dialect import Answer, Dialect, Request, answered, dated
from services.sandbox.vendors.store import Store

Manner = Literal["whole", "cut", "slow"]
Way = Literal["astray", "loop"]
Spoiling = Literal["error", "gateway", "cut", "truncated", "malformed"]

ROWS: Final = {
    34: "ties larger than a page",
    35: "rows move between two pages",
    36: "visible 90 s after its stamp",
    37: "stamp goes back",
    38: "429 for a while",
    39: "500, 502, cut, truncated, malformed",
    40: "token expires in a walk",
    41: "killed while refreshing",
    42: "credentials revoked",
    43: "403 on one endpoint",
    44: "a sweep shows too little",
    45: "field renamed, dropped, retyped",
    46: "a record of 20 MB",
    47: "next page loops or leads away",
    48: "killed between publish and save",
    49: "slower than any timeout",
    50: "two tasks, one service",
}
SPOILINGS: Final[tuple[Spoiling, ...]] = ("error", "gateway", "cut", "truncated", "malformed")
LATE_S: Final = 90.0
ASTRAY: Final = "https://elsewhere.invalid"
VEIL_CHANGED_S, VEIL_SEEN_S = 420.0, 60.0  # what is hidden was to be read before, by any lag and interval of a test
HUGE_BYTES: Final = 20_000_001


class Serving(msgspec.Struct):
    """One answer as it left. `honest`: as the dialect gave it, nothing spoiled; `delivered`: it reached the client
    whole, which only the client's side can know."""

    number: int
    request: Request
    answer: Answer
    manner: Manner
    honest: bool
    delivered: bool = False


class Hostility:
    """One vendor's mood. `struck` counts how often each row befell somebody.

    `chances`: the probability per answer of what a span does; `left`: how often it still may (answers that are too slow
    cost real time); `spoilings`, `ways_of_47`, `waits` (429's Retry-After, None: without): in which ways; `host`,
    `about`: who asks and for which collection; None: whoever, whichever.
    """

    def __init__(self, dialect: Dialect, store: Store, rng: Random) -> None:
        self.dialect, self.store, self.rng = dialect, store, rng
        self.changes = Changes(store, rng)
        self.struck: Counter[int] = Counter()
        self.served: list[Serving] = []
        self.forbidden: frozenset[str] = frozenset()
        self.chances: dict[int, float] = {35: 0.4, 38: 0.5, 39: 0.4, 40: 0.5, 47: 0.5, 49: 0.3}
        self.left: dict[int, int] = {49: 1}
        self.spoilings: Sequence[Spoiling] = SPOILINGS
        self.ways_of_47: Sequence[Way] = ("astray", "loop")
        self.waits: Sequence[float | None] = (None, 1.0, 20.0)
        self.host: str | None = None
        self.about: frozenset[str] | None = None
        self.on_token: Callable[[], None] = lambda: None
        self._spans: set[int] = set()
        self._refresh_fails = 0
        self._loops: dict[tuple[str, str, bool], Answer] = {}
        self._veil_hits = 0

    # -- moods --------------------------------------------------------------------------------------------------------
    def begin(self, row: int, collections: Sequence[str] = ()) -> None:
        """From now on what the row says happens; 43 and 44 concern `collections`."""
        self._spans.add(row)
        if row == 42 and self.host is None:
            tokens_of(self.store).revoke()
        if row == 43:
            self.forbidden = frozenset(collections)
        if row == 44:
            self._veil(collections)

    def end(self, row: int) -> None:
        self._note_veil()
        self._spans.discard(row)
        if row == 43:
            self.forbidden = frozenset()
        if row == 44:
            self.store.veiled.clear()
        if row == 47:
            self._loops.clear()

    def calm(self) -> None:
        """Nothing goes wrong any more."""
        for row in list(self._spans):
            self.end(row)
        self._refresh_fails = 0

    def _veil(self, collections: Sequence[str]) -> None:
        """Some lists show half of their records, none, or miss one; only such as have not changed of late, and as were
        listed since: a reader may have been locked out meanwhile."""
        changed, seen = (self.store.now - timedelta(seconds=found) for found in (VEIL_CHANGED_S, VEIL_SEEN_S))
        lists = [one.answer.shown for one in self.served if one.honest and one.answer.shown is not None]
        listed = {row.version for shown in lists if not shown.one for row in shown.rows}
        for name in collections:
            old = [row for row in self.store.rows(name) if row.updated < changed and row.seen_from < seen]
            old = [row for row in old if row.version in listed]
            keep = self.rng.choice((0, 1, len(old) // 2))
            hidden = old if keep == 0 else old[:1] if keep == 1 else self.rng.sample(old, keep)
            self.store.veiled |= {(name, row.id) for row in hidden}

    def _note_veil(self) -> None:
        self.struck[44] += self.store.veil_hits - self._veil_hits
        self._veil_hits = self.store.veil_hits

    # -- records ------------------------------------------------------------------------------------------------------
    def change(self, row: int, collection: str, protected: frozenset[str] = frozenset()) -> bool:
        """Rows 34, 36, 37, 45 and 46 upon the records of a collection; False where there was nothing to do it to."""
        changes = self.changes
        done = {
            34: lambda: changes.tie(collection),
            36: lambda: changes.late(collection, LATE_S),
            37: lambda: changes.back(collection),
            45: lambda: changes.drift(collection, protected),
            46: lambda: changes.huge(collection, HUGE_BYTES),
        }[row]()
        self.struck[row] += done
        return done

    # -- answers ------------------------------------------------------------------------------------------------------
    def respond(self, request: Request) -> Serving:
        """What leaves for a request, written down."""
        given = answered(self.dialect, self.store, request)
        spoiled, manner = self._spoiled(request, given)
        if self.store.veiled:
            self._note_veil()
        serving = Serving(len(self.served), request, spoiled, manner, honest=spoiled is given and manner == "whole")
        self.served.append(serving)
        if given.token and given.status == 200:
            self.on_token()
        return serving

    def _spoiled(self, request: Request, given: Answer) -> tuple[Answer, Manner]:
        if self.host not in (None, request.host):
            return given, "whole"
        if 42 in self._spans:
            self.struck[42] += 1
            return self._refusal("invalid_grant" if given.token else "unauthorized", request), "whole"
        if given.token and self._refresh_fails and given.status == 200:
            self._refresh_fails -= 1
            return self._refusal("unavailable", request), "whole"
        if given.status != 200:
            return given, "whole"
        if given.shown is not None and given.shown.collection in self.forbidden:
            self.struck[43] += 1
            return self._refusal("forbidden", request), "whole"
        return self._passing(request, given)

    def _passing(self, request: Request, given: Answer) -> tuple[Answer, Manner]:
        """What goes wrong today and is gone tomorrow."""
        if self._strikes(38):
            return self._refusal("throttled", request, self.rng.choice(self.waits)), "whole"
        if self._strikes(39):
            return self._broken(request, given, self.rng.choice(self.spoilings))
        if self._strikes(49):
            return given, "slow"
        return self._on_the_way(request, given), "whole"

    def _on_the_way(self, request: Request, given: Answer) -> Answer:
        """What befalls a walk between two of its pages."""
        shown = given.shown
        if shown is None or shown.one or (self.about is not None and shown.collection not in self.about):
            return given
        if 47 in self._spans and (looped := self._loops.get((request.path, shown.collection, shown.whole))) is not None:
            self.struck[47] += 1
            return looped
        if not shown.more:
            return given
        ways = [way for way in self.ways_of_47 if way == "loop" or shown.following]
        if ways and self._strikes(47):
            if self.rng.choice(ways) == "astray":
                return _led_astray(given, shown.following)
            self._loops[request.path, shown.collection, shown.whole] = given
        if self._strikes(35):
            self.changes.move(shown.collection)
        if tokens_of(self.store).issued and self._strikes(40):
            tokens_of(self.store).expire()
            self._refresh_fails = 1
        return given

    def _strikes(self, row: int) -> bool:
        if row not in self._spans or not self.left.get(row, 1) or self.rng.random() >= self.chances[row]:
            return False
        if row in self.left:
            self.left[row] -= 1
        self.struck[row] += 1
        return True

    def _refusal(self, problem: Any, request: Request, wait_s: float | None = None) -> Answer:
        refused = self.dialect.error(problem, request.path, wait_s)
        return msgspec.structs.replace(refused, headers=dated(refused.headers, request.at))

    def _broken(self, request: Request, given: Answer, how: Spoiling) -> tuple[Answer, Manner]:
        match how:
            case "error":
                return self._refusal("unavailable", request), "whole"
            case "gateway":
                html = {"Content-Type": "text/html"}
                page = b"<html><body><h1>502 Bad Gateway</h1></body></html>"
                return Answer(502, page, dated(html, request.at)), "whole"
            case "cut":
                return given, "cut"
            case "truncated":
                return msgspec.structs.replace(given, body=given.body[: len(given.body) // 2]), "whole"
            case "malformed":
                return msgspec.structs.replace(given, body=given.body + b"\n<!-- "), "whole"


def _led_astray(given: Answer, following: str) -> Answer:
    """The same page, whose next one is at another host."""
    there = ASTRAY + "/" + following.partition("://")[2].partition("/")[2]
    body = given.body.replace(msgspec.json.encode(following), msgspec.json.encode(there))
    headers = {name: text.replace(following, there) for name, text in given.headers.items()}
    return msgspec.structs.replace(given, body=body, headers=headers)
