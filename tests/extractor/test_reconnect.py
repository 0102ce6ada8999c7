"""Tokens under a running extractor, over real HTTP (faults.md 40 to 42)."""

from typing import Any

from aiohttp import web

from services.contracts.log import CredentialsRefused
from tests.extractor.world import KEY, NAMES, World, answered, opened

ROTATING = {
    "type": "oauth2_refresh_token",
    "token_url": "oauth/token",
    "client_id": "desk",
    "client_secret": "{key}",
    "rotates": True,
}
CREDENTIALS = {"site": {"title": "Site"}, "key": {"title": "K", "secret": True}, "refresh_token": {"title": "R"}}


class Door:
    """In front of a vendor: lets in who shows the tenant's current token, and gives one for its refresh token, once.
    A token is taken for `calls_max` requests."""

    def __init__(self, world: World, calls_max: int = 1_000_000) -> None:
        self._world, self._calls_max = world, calls_max
        self.refresh = {"acme": "acme-r0", "berlin": "berlin-r0"}
        self.token = {"acme": "", "berlin": ""}
        self.calls = {"acme": 0, "berlin": 0}
        self.given: list[str] = []
        world.vendor.spoil = self.spoil

    def spoil(self, request: web.Request) -> Any:
        if request.path == "/oauth/token":
            return self._give(request)
        shown = request.headers.get("Authorization", "").removeprefix("Bearer ")
        tenant = next((name for name, token in self.token.items() if token and token == shown), None)
        if tenant is None or self.calls[tenant] >= self._calls_max:
            return answered(self._world.vendor.answer({"message": f"the token {shown} is not known"}, 401))
        self.calls[tenant] += 1
        return None

    async def _give(self, request: web.Request) -> web.StreamResponse:
        form = await request.post()
        assert (form["grant_type"], form["client_id"], form["client_secret"]) == ("refresh_token", "desk", KEY)
        for tenant, current in self.refresh.items():
            if form["refresh_token"] == current:
                self.given.append(tenant)
                number = len(self.given)
                self.refresh[tenant], self.token[tenant] = f"{tenant}-r{number}", f"{tenant}-token-{number}"
                self.calls[tenant] = 0
                told = {"access_token": self.token[tenant], "refresh_token": self.refresh[tenant], "expires_in": 1800}
                return self._world.vendor.answer(told)
        return self._world.vendor.answer({"error": "invalid_grant"}, 400)


async def connected(world: World, *tenants: str) -> None:
    world.use(
        {"tickets": {"path": "tickets", "record_id": "id"}},
        auth=ROTATING,
        credentials=CREDENTIALS,
        headers={"X-Key": "{key}"},
    )
    for tenant in tenants:
        await world.connect(tenant)
        world.secrets.held[NAMES.secret(tenant, "desk")]["refresh_token"] = f"{tenant}-r0"


async def test_a_token_that_expires_in_the_middle_of_a_walk_is_renewed_and_no_record_is_missed() -> None:
    async with opened(connected=()) as world:
        await connected(world, "acme")
        door = Door(world, calls_max=3)
        for record_id in range(1, 951):
            world.vendor.put("tickets", record_id)
        done = await world.read()
        assert (done.published, len(world.events)) == (950, 950)
        assert len(door.given) == 4
        assert world.secrets.held[NAMES.secret("acme", "desk")]["refresh_token"] == "acme-r4"


async def test_a_spent_refresh_token_stops_its_tenant_alone_and_the_next_connection_goes_on() -> None:
    async with opened(connected=()) as world:
        await connected(world, "acme", "berlin")
        door = Door(world)
        world.vendor.put("tickets", 1)
        door.refresh["acme"] = "somebody else spent it"
        began = world.clock.monotonic()
        summary = await world.run()
        assert {one.tenant_id: one.code for one in summary.endpoints} == {"acme": "bad_credentials", "berlin": ""}
        assert world.clock.monotonic() - began < 60
        status = await world.status("acme")
        assert status["status"] == "reconnect needed"
        assert "connect the application anew" in status["status_what"]
        assert KEY not in status["status_what"]
        assert [event.tenant_id for event in world.heard(CredentialsRefused)] == ["acme"]
        assert [event.tenant_id for event in world.events] == ["berlin"]
        world.secrets.held[NAMES.secret("acme", "desk")]["refresh_token"] = door.refresh["acme"]
        summary = await world.run()
        assert summary.complete
        assert (await world.status("acme"))["status"] == "ok"


async def test_no_token_shows_in_what_the_vendor_repeats() -> None:
    async with opened(connected=()) as world:
        await connected(world, "acme")
        Door(world, calls_max=0)
        world.vendor.put("tickets", 1)
        (only,) = (await world.run()).endpoints
        assert only.code == "bad_credentials"
        assert "the token *** is not known" in only.what
