"""A vendor that gives tokens: in memory, with refresh tokens that may be spent once, and faults on request."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from services.contracts.integration import Integration
from services.contracts.names import Names
from services.extractor.access import VendorAccess
from services.extractor.answers import Answer
from services.extractor.refresh import Account
from services.extractor.requests import Request
from services.runtime.provision import table_keys
from services.runtime.runtime import Runtime
from tests.fakes import FakeChance, FakeClock, MemoryRows, MemorySecrets, MemoryStreams
from tests.runtimes import fake_runtime

NAMES = Names("test")
LEASE_S = 10.0
SECRET = NAMES.secret("acme", "desk")
LIFETIME_S = 1800.0
Planned = Callable[[Request], Answer | None]


def answer(status: int, body: Any = None, **headers: str) -> Answer:
    return Answer(status, msgspec.json.encode(body), headers)


class Vendor:
    """Gives tokens `a1`, `a2`, …, each with a refresh token `r1`, `r2`, … where it `rotates`; a spent one is taken for
    `grace_s` more. `planned` may answer instead; `asked` is every request; `replayed` counts spent tokens shown late.
    """

    def __init__(self, clock: FakeClock, *, rotates: bool = False, grace_s: float = 0.0) -> None:
        self.clock, self.rotates, self.grace_s = clock, rotates, grace_s
        self.asked: list[Request] = []
        self.planned: Planned = lambda _: None
        self.before = self.after = nothing
        self.given = 0
        self.spent: dict[str, float] = {}
        self.replayed = 0
        self.under_way = self.most_under_way = 0

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            await self.clock.sleep(0.1)
            await self.before(request)
            self.asked.append(request)
            told = self.planned(request) or self._token(request)
            await self.after(request)
            return told
        finally:
            self.under_way -= 1

    def _token(self, request: Request) -> Answer:
        shown = parse_qs(request.body.decode()).get("refresh_token", [""])[0]
        if self.rotates:
            if shown != f"r{self.given}":
                spent_at = self.spent.get(shown)
                if spent_at is None or self.clock.monotonic() - spent_at >= self.grace_s:
                    self.replayed += spent_at is not None
                    return answer(400, {"error": "invalid_grant"})
            self.spent.setdefault(shown, self.clock.monotonic())
        self.given += 1
        told: dict[str, Any] = {"access_token": f"a{self.given}-secret", "expires_in": LIFETIME_S}
        return answer(200, told | ({"refresh_token": f"r{self.given}"} if self.rotates else {}))


async def nothing(_: Any) -> None:
    """The hook that does nothing."""


OAUTH = {"type": "oauth2_client_credentials", "token_url": "https://id.desk.example/token"}
ROTATING = {"type": "oauth2_refresh_token", "token_url": "https://id.desk.example/token", "rotates": True}
CREDENTIALS = {
    "client_id": {"title": "Client"},
    "client_secret": {"title": "Secret", "secret": True},
    "refresh_token": {"title": "Refresh token", "secret": True},
}
GIVEN = {"client_id": "maria", "client_secret": "hunter2-hunter2", "refresh_token": "r0"}


def integration(auth: Mapping[str, Any] | list[Mapping[str, Any]], **more: Any) -> Integration:
    plain: dict[str, Any] = {
        "service": "desk",
        "title": "Desk",
        "base_url": "https://desk.example",
        "credentials": CREDENTIALS,
        "auth": auth,
        "endpoints": {"tickets": {"path": "tickets", "record_id": "id"}},
    }
    return msgspec.convert(plain | more, Integration)


class World:
    """A vendor, the stores, and workers that come and go."""

    def __init__(self, auth: Mapping[str, Any], **more: Any) -> None:
        self.clock = FakeClock()
        self.vendor = Vendor(self.clock, rotates=bool(auth.get("rotates")), grace_s=float(auth.get("grace_s", 0.0)))
        self.integration = integration(auth, **more)
        self.rows, self.secrets = MemoryRows(table_keys(NAMES)), MemorySecrets()
        self.secrets.held[SECRET] = dict(GIVEN)
        self.chance = FakeChance()
        self.runtime = self.worker()

    def worker(self) -> Runtime:
        streams = MemoryStreams(self.clock)
        return fake_runtime(
            NAMES, self.clock, streams, self.rows, secrets=self.secrets, chance=self.chance, lease_s=LEASE_S
        )

    def access(self, runtime: Runtime | None = None, account_id: str = "") -> VendorAccess:
        """As a unit opens it."""
        account = Account(SECRET, dict(self.secrets.held[SECRET]), account_id)
        return VendorAccess(runtime or self.runtime, self.vendor, self.integration, account)
