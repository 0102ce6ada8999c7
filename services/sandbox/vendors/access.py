"""Who is asking, and how much may they: credentials, tokens and limits as vendors check them. State lies in the store.

Every helper raises `RefusedError`, which the dialect's `error` puts into the vendor's shape.
"""

import base64
import binascii
import hashlib
import hmac
import math
from collections import deque
from datetime import datetime, timedelta
from typing import Any

import msgspec

from services.sandbox.vendors.dialect import Answer, RefusedError, Request, json_answer
from services.sandbox.vendors.store import Store


# -- fixed credentials ------------------------------------------------------------------------------------------------
def check_basic(request: Request, user: str, password: str) -> None:
    """HTTP Basic. Errors: RefusedError `unauthorized`."""
    if basic_of(request) != (user, password):
        raise RefusedError("unauthorized", "wrong user or password")


def basic_of(request: Request) -> tuple[str, str] | None:
    """User and password of the header, None where there is none or it cannot be read."""
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return None
    return user, password


def check_header(request: Request, name: str, value: str) -> None:
    """A fixed header, such as an API key. Errors: RefusedError `unauthorized`."""
    if not hmac.compare_digest(request.headers.get(name.lower(), "").encode(), value.encode()):
        raise RefusedError("unauthorized", f"wrong {name}")


def bearer_of(request: Request, scheme: str = "Bearer") -> str:
    """The token of `Authorization: Bearer`. Errors: RefusedError `unauthorized`."""
    found, _, token = request.headers.get("authorization", "").partition(" ")
    if found.lower() != scheme.lower() or not token.strip():
        raise RefusedError("unauthorized", "no token")
    return token.strip()


# -- tokens ------------------------------------------------------------------------------------------------------------
class Grant(msgspec.Struct, frozen=True):
    """One refresh token: when it was spent, and the one that replaced it."""

    spent_at: datetime | None = None


class Tokens:
    """The tokens a vendor gave out. `tokens_of(store)` is the store's one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._access: dict[str, datetime] = {}
        self._refresh: dict[str, Grant] = {}
        self._drawn = 0
        self.refreshes = 0

    def issue(self, lifetime_s: float) -> str:
        """A new access token."""
        token = self._draw("at")
        self._access[token] = self._store.now + timedelta(seconds=lifetime_s)
        return token

    def check(self, token: str) -> None:
        """Errors: RefusedError `unauthorized` for one that is unknown or expired."""
        until = self._access.get(token)
        if until is None or self._store.now >= until:
            raise RefusedError("unauthorized", "the token is not known or has expired")

    def issue_refresh(self) -> str:
        """A new refresh token."""
        token = self._draw("rt")
        self._refresh[token] = Grant()
        return token

    def redeem(self, token: str, *, single_use: bool, grace_s: float = 0.0) -> str:
        """The refresh token to go on with: the same one, or where they serve once, a new one.

        A spent one still serves for `grace_s`. Errors: RefusedError `invalid_grant`.
        """
        held, now = self._refresh.get(token), self._store.now
        if held is None:
            raise RefusedError("invalid_grant", "the refresh token is not known")
        if held.spent_at is not None and now > held.spent_at + timedelta(seconds=grace_s):
            raise RefusedError("invalid_grant", "the refresh token was used before")
        self.refreshes += 1
        if not single_use:
            return token
        self._refresh[token] = Grant(held.spent_at or now)
        return self.issue_refresh()

    def expire(self) -> None:
        """Every access token ends now."""
        self._access.clear()

    def revoke(self) -> None:
        """Every token ends now, those to refresh with too."""
        self._access.clear()
        self._refresh.clear()

    @property
    def issued(self) -> int:
        return self._drawn

    def _draw(self, lead: str) -> str:
        self._drawn += 1
        return f"{lead}-{self._drawn}-{self._store.rng.getrandbits(96):024x}"


def tokens_of(store: Store) -> Tokens:
    """The tokens of this store, made at the first use."""
    found = store.facts.get("tokens")
    if found is None:
        found = store.facts["tokens"] = Tokens(store)
    assert isinstance(found, Tokens), "only this writes it"
    return found


def check_client(request: Request, client_id: str, client_secret: str) -> None:
    """The client of a token endpoint, in the form or as HTTP Basic. Errors: RefusedError `invalid_grant`."""
    form = request.form
    given = basic_of(request) or (form.get("client_id", ""), form.get("client_secret", ""))
    if given != (client_id, client_secret):
        raise RefusedError("invalid_grant", "unknown client")


def token_answer(store: Store, lifetime_s: float, **more: Any) -> Answer:
    """The answer of a token endpoint in RFC 6749 5.1's shape, with a new access token; `more` besides."""
    value = {"access_token": tokens_of(store).issue(lifetime_s), "token_type": "Bearer", "expires_in": int(lifetime_s)}
    return msgspec.structs.replace(json_answer(value | more), token=True)


# -- assertions -----------------------------------------------------------------------------------------------------
class PublicKey(msgspec.Struct, frozen=True):
    """An RSA key to check signatures with."""

    modulus: int
    exponent: int = 65_537


_SHA256_PREFIX = bytes.fromhex("3031300d060960864801650304020105000420")  # RFC 8017 9.2, note 1


def read_assertion(token: str, key: PublicKey, now: datetime, *, lifetime_max_s: float) -> dict[str, Any]:
    """The claims of an RS256 assertion (RFC 7519), its signature and times checked.

    Errors: RefusedError `invalid_grant`.
    """
    head, _, rest = token.partition(".")
    claimed, _, signed = rest.partition(".")
    try:
        header, claims = msgspec.json.decode(_unpadded(head)), msgspec.json.decode(_unpadded(claimed))
        signature = int.from_bytes(_unpadded(signed))
    except (binascii.Error, msgspec.DecodeError, ValueError) as err:
        raise RefusedError("invalid_grant", "the assertion cannot be read") from err
    if not isinstance(claims, dict) or not isinstance(header, dict) or header.get("alg") != "RS256":
        raise RefusedError("invalid_grant", "the assertion is not signed with RS256")
    size = (key.modulus.bit_length() + 7) // 8
    digest = _SHA256_PREFIX + hashlib.sha256(f"{head}.{claimed}".encode()).digest()
    expected = b"\x00\x01" + b"\xff" * (size - len(digest) - 3) + b"\x00" + digest
    if pow(signature, key.exponent, key.modulus).to_bytes(size) != expected:
        raise RefusedError("invalid_grant", "the signature of the assertion is wrong")
    until, seconds = claims.get("exp"), now.timestamp()
    if not isinstance(until, int | float) or not seconds < until <= seconds + lifetime_max_s:
        raise RefusedError("invalid_grant", "the assertion has expired, or holds too long")
    return claims


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# -- limits ------------------------------------------------------------------------------------------------------------
class Spent(msgspec.Struct, frozen=True):
    """What is left of a window after a request. Units: `reset_s` seconds until it begins anew."""

    limit: int
    remaining: int
    reset_s: int

    @property
    def used(self) -> int:
        return self.limit - self.remaining


class _Sliding(msgspec.Struct):
    arrivals: deque[tuple[datetime, int]] = msgspec.field(default_factory=deque)


def spend(store: Store, name: str, limit: int, window_s: float, cost: int = 1) -> Spent:
    """Counts a request against at most `limit` in any `window_s` seconds. `store.facts["limit:" + name]` (an int)
    overrules `limit`, for tests of small budgets.

    Errors: RefusedError `throttled` with the seconds to wait; the refused request is not counted.
    """
    limit = int(store.facts.get(f"limit:{name}", limit))
    meter = store.facts.setdefault(f"meter:{name}", _Sliding())
    assert isinstance(meter, _Sliding), "only this writes it"
    window, arrivals = timedelta(seconds=window_s), meter.arrivals
    while arrivals and arrivals[0][0] <= store.now - window:
        arrivals.popleft()
    used = sum(found[1] for found in arrivals)
    reset_s = math.ceil((arrivals[0][0] + window - store.now).total_seconds()) if arrivals else math.ceil(window_s)
    if used + cost > limit:
        raise RefusedError("throttled", name, float(reset_s))
    arrivals.append((store.now, cost))
    return Spent(limit, limit - used - cost, reset_s)
