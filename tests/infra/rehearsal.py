"""Everything the services do, once and in two minutes: as real processes, each at an AWS endpoint of its own.

Two vendors, with a fleet of extractors each: the ConnectWise sandbox, whose customers keep changing, and a desk of our
own in the place of Xero, which hands out a new refresh token each time and serves on request what cannot be used. What
happens: connected, read, changed and deleted, every process killed and taken over, a stream lost and its gap healed,
a record too large for a stream, dead letters of both stages, a partition parked, an hour completed, the lake's house
kept; one table is for transformers that are pushed what arrives.
"""

import asyncio
import random
import re
import string
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from aiohttp import web
from pyiceberg.catalog.glue import GlueCatalog

from services.compactor.iceberg import Warehouse, glue_properties
from services.compactor.layout import Limits
from services.compactor.upkeep import keep_house
from services.contracts.times import shifted
from services.runtime.aws import connect, open_clients
from services.runtime.clock import SystemClock
from services.runtime.mapping_files import load_mappings
from services.runtime.processes import SERVICES, Child, Program, command_line, stop_children
from services.runtime.provision import ensure
from services.runtime.settings import FAKE_ACCESS_KEY, FAKE_SECRET_KEY, Settings, child_environment
from services.sandbox.demo import write_pace
from services.sandbox.sites import Keys
from services.sandbox.vendor import Running, start
from services.sandbox.world import World
from tests.infra.calls import Call
from tests.infra.recorder import Recorder
from tests.infra.terraform import ACCOUNT

REGION: Final = "us-east-2"
OPERATOR: Final = "operator"
TOKENS, PUSHED = "extractor-tokens", "transformer-pushed"
EVERYBODY: Final = (OPERATOR, *SERVICES, TOKENS, PUSHED)
# As Terraform has them, in its variables extractor_groups and transformer_groups.
GROUPS: Final[Mapping[str, Mapping[str, Any]]] = {
    "extractor_groups": {"tokens": {"services": ["xero"]}},
    "transformer_groups": {"pushed": {"tables": ["companies"], "fan_out": True}},
}
TENANT: Final = "acme"
ENDPOINTS: Final = {"tickets", "companies", "contacts"}
COUNTS: Final = {"service/tickets": 60, "company/companies": 20}
WAIT_S: Final = 100.0  # for any one thing to happen
HOUR_WAIT_S: Final = 300.0  # complete hours are looked for once a minute, and cuts come first
HEALED_S: Final = 12.0
POLL_S: Final = 0.25
PACE: Final = {
    "AVESA_LEASE_S": "3",
    "AVESA_SPOOL_AGE_MAX_S": "2",
    "AVESA_CUT_AGE_MAX_S": "3",
    "AVESA_LOG": "debug",
}
LETTERS: Final = 1_050  # more than a partition may bring in an hour
KILLS_MAX: Final = 6
LARGE: Final = 3_000_000  # bytes that nothing makes smaller, more than a stream takes
DESK: Final[Mapping[str, Any]] = {
    "service": "xero",
    "title": "Desk",
    "base_url": "{api_url}",
    "credentials": {
        "api_url": {"title": "Address"},
        "client_id": {"title": "Client"},
        "client_secret": {"title": "Secret", "secret": True},
        "refresh_token": {"title": "Refresh token", "secret": True},
    },
    "auth": {"type": "oauth2_refresh_token", "token_url": "{api_url}/token", "rotates": True},
    "limits": {"requests": 1_000, "window_s": 1, "share": 1},
    "endpoints": {
        "cases": {
            "path": "cases",
            "record_id": "id",
            "interval_s": 2,
            "canonical": {"table": "tickets", "fields": {"id": "id", "summary": "subject", "closed_flag": "closed"}},
        }
    },
}


class Desk:
    """The help desk: `cases` by id. Its tokens last for seconds, so that they are refreshed all the time."""

    def __init__(self) -> None:
        self.cases: dict[str, dict[str, Any]] = {str(number): _case(number) for number in range(1, 11)}
        self.refreshed = 0
        self.refuses = False

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        app = web.Application()
        app.router.add_get("/cases", self._listed)
        app.router.add_post("/token", self._token)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _listed(self, request: web.Request) -> web.Response:
        return web.json_response({} if self.refuses else list(self.cases.values()), status=401 if self.refuses else 200)

    async def _token(self, request: web.Request) -> web.Response:
        form = await request.post()
        if self.refuses or form["refresh_token"] != f"r{self.refreshed}":
            return web.json_response({"error": "invalid_grant"}, status=400)
        self.refreshed += 1
        token = {"access_token": f"a{self.refreshed}", "refresh_token": f"r{self.refreshed}", "expires_in": 20}
        return web.json_response(token)


def _case(number: int) -> dict[str, Any]:
    return {"id": number, "subject": f"Case {number}", "closed": False}


class Rehearsal:
    """One run on the emulator that `settings` name. `told` hears what is done."""

    def __init__(self, settings: Settings, recorder: Recorder, folder: Path, told: Callable[[str], None]) -> None:
        self._settings, self._recorder, self._folder, self._told = settings, recorder, folder, told
        self._clock, self._desk, self._branch = SystemClock(), Desk(), Desk()
        self._world = World(lambda: datetime.now(UTC), random.Random(7))
        self._mappings = folder / "mappings"

    async def run(self) -> None:
        """All of it. Errors: AssertionError with what did not happen in time."""
        self._write_mappings()
        await ensure(self._settings)
        await self._register()
        self._world.add_site(TENANT, Keys(TENANT, "public", "private", "client"))
        self._world.populate(TENANT, COUNTS, minimum=5)
        vendor = await start(self._world)
        try:
            async with (
                self._desk.serving() as desk,
                self._branch.serving() as branch,
                connect(self._settings) as self._aws,
            ):
                await self._connect(vendor, desk, branch)
                await self._served()
        finally:
            await vendor.close()

    def _write_mappings(self) -> None:
        folder = write_pace(self._mappings) / "integrations"
        busy = msgspec.json.decode((folder / "connectwise.json").read_bytes())
        for name, endpoint in busy["endpoints"].items():
            endpoint["enabled"] = name in ENDPOINTS
        (folder / "connectwise.json").write_bytes(msgspec.json.encode(busy))
        (folder / "xero.json").write_bytes(msgspec.json.encode(DESK))

    async def _register(self) -> None:
        """As Terraform does for a fleet that is pushed what arrives."""
        name = self._settings.names.raw_stream
        async with open_clients(self._settings, "kinesis") as clients:
            stream = await clients["kinesis"].call("describe_stream_summary", name, StreamName=name)
            arn, consumer = stream["StreamDescriptionSummary"]["StreamARN"], f"avesa-{PUSHED}"
            await clients["kinesis"].call("register_stream_consumer", consumer, StreamARN=arn, ConsumerName=consumer)

    async def _connect(self, vendor: Running, desk: str, branch: str) -> None:
        keys = self._world.sites[TENANT].keys
        given = {
            "CONNECTWISE_API_URL": vendor.url,
            "CONNECTWISE_COMPANY_ID": keys.company_id,
            "CONNECTWISE_PUBLIC_KEY": keys.public_key,
            "CONNECTWISE_PRIVATE_KEY": keys.private_key,
            "CONNECTWISE_CLIENT_ID": keys.client_id,
            "XERO_CLIENT_ID": "maria",
            "XERO_CLIENT_SECRET": "hunter2-hunter2",
            "XERO_REFRESH_TOKEN": "r0",
        }
        for service in ("connectwise", "xero", "xero:berlin"):
            named = ("--tenant-id", TENANT, "--company-name", "Acme", "--service", service)
            url = branch if service.endswith("berlin") else desk
            await self._avesa("setup-service", *named, **given, XERO_API_URL=url)
        self._told("connected")

    async def _served(self) -> None:
        vendors = load_mappings(self._mappings).integrations.keys() - {"xero"}
        self._words = {
            "extractor": ["extractor", "--services", ",".join(sorted(vendors))],
            TOKENS: ["extractor", "--services", "xero"],
            "transformer": ["transformer", "--except-tables", "companies"],
            PUSHED: ["transformer", "--group", "pushed", "--tables", "companies", "--fan-out"],
            "compactor": ["compactor"],
        }
        self._children = {name: self._child(name) for name in self._words}
        self._running = [asyncio.create_task(child.run()) for child in self._children.values()]
        try:
            await self._day()
            await self._accidents()
            await self._years()
            await stop_children(list(self._children.values()), self._told)
            self._told("stopped")
        finally:
            for child in self._children.values():
                child.kill()
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)

    # -- what happens
    async def _day(self) -> None:
        """Read, changed, deleted; every process killed and taken over, and a stream lost meanwhile."""
        for table in ("companies", "tickets"):
            await self._until(f"{table} are in the lake", self._objects(f"{TENANT}/tables/{table}/"))
        transformers = ("transformer", PUSHED)
        await asyncio.gather(*(self._children.pop(name).stop(WAIT_S) for name in transformers))
        published = self._count('"event":"EventsPublished"')
        self._world.change(TENANT, 60)
        self._world.delete(TENANT, "company/companies", min(self._world.current(TENANT, "company/companies")))
        await self._until("more is published", lambda: _now(self._count('"event":"EventsPublished"') > published))
        await self._lose_stream(self._settings.names.raw_stream)
        for name in transformers:
            self._start(name)
        for name in self._words:
            await self._kill(name)
        for _ in range(KILLS_MAX):  # gaps are looked for when it starts, and then once a minute
            await self._clock.sleep(HEALED_S)
            if self._count('"event":"GapHealed"'):
                break
            await self._kill("compactor")
        await self._until("a gap is healed", self._said('"event":"GapHealed"'))
        await self._until("a delete is in the lake", self._objects(f"{TENANT}/timeline/companies/data/op=delete/"))

    async def _accidents(self) -> None:
        """What cannot be used, what is too large, what is too much; an hour later."""
        self._recorder.later_s = 7_200
        large = "".join(random.Random(1).choices(string.ascii_letters + string.digits, k=LARGE))
        self._desk.cases |= {
            "large": _case(11) | {"attachment": large},
            "nameless": {"id": None, "subject": "who?", "closed": False},
            "odd": _case(12) | {"closed": "perhaps"},
        }
        await self._until("a record was too large for the stream", self._objects(f"{TENANT}/oversize/"))
        for stage in ("extract", "transform"):
            await self._until(f"a dead letter of the stage {stage}", self._objects(f"{TENANT}/dead-letter/{stage}/"))
        seen = Call("s3:GetObject", f"arn:aws:s3:::{self._settings.names.bucket}/{TENANT}/dead-letter/extract/")
        await self._until("a letter is met again", self._called(TOKENS, seen))
        self._desk.cases |= {f"odd-{n}": _case(n) | {"closed": "perhaps"} for n in range(1_000, 1_000 + LETTERS)}
        await self._until("a partition is parked", self._objects(f"{TENANT}/parked/"))
        self._desk.cases.clear()
        await self._put_nonsense(self._settings.names.canonical_stream)
        await self._until("a dead letter of the stage compact", self._objects("_avesa/dead-letter/compact/"))
        self._branch.refuses = True
        site = self._world.sites[TENANT]
        site.keys = msgspec.structs.replace(site.keys, private_key="another")
        table = self._settings.names.tenant_services
        for who in ("extractor", TOKENS):
            told = Call("dynamodb:UpdateItem", f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{table}")
            await self._until(f"credentials of the {who} are refused", self._called(who, told))
        self._branch.refuses = False
        site.keys = msgspec.structs.replace(site.keys, private_key="private")
        await self._lose_memory()
        await self._kill(TOKENS)
        missed = Call("s3:ListBucket", f"arn:aws:s3:::{self._settings.names.bucket}")
        await self._until("what was read before is forgotten", self._called(TOKENS, missed))

    async def _years(self) -> None:
        """An hour that is over, and a lake that is old enough for its house to be kept."""
        until = self._clock.monotonic() + HOUR_WAIT_S
        while not await self._holds_an_hour():
            assert self._clock.monotonic() < until, "no hour was completed"
            self._world.change(TENANT, 20)
            await self._clock.sleep(2.0)
        self._told("an hour is one file")
        await asyncio.to_thread(self._keep_house)
        self._told("the lake's house is kept")

    def _keep_house(self) -> None:
        settings = self._seen_from("compactor")
        catalog, limits = GlueCatalog("avesa", **glue_properties(settings)), Limits(snapshots=1, snapshots_kept=1)
        warehouse = Warehouse(catalog, settings.names, endpoint_url=settings.endpoint_url, limits=limits)
        later = shifted(self._clock.now(), seconds=30 * 86_400.0)
        removed = sum(
            keep_house(table, later)
            for name in ("companies", "companies_timeline", "tickets", "tickets_timeline")
            if (table := warehouse.open(TENANT, name)) is not None
        )
        assert removed, "no file of an old snapshot was removed"

    async def _lose_stream(self, name: str) -> None:
        async with open_clients(self._settings, "kinesis") as clients:
            await clients["kinesis"].call("delete_stream", name, StreamName=name, EnforceConsumerDeletion=True)
        await ensure(self._settings)
        await self._register()

    async def _lose_memory(self) -> None:
        """Of what was read of every endpoint."""
        memories = [info.key async for info in self._aws.objects.list("_avesa/state/memory/")]
        await self._aws.objects.delete(memories)

    async def _put_nonsense(self, name: str) -> None:
        async with open_clients(self._settings, "kinesis") as clients:
            await clients["kinesis"].call("put_record", name, StreamName=name, Data=b"nonsense", PartitionKey="nobody")

    # -- processes
    def _environment(self, who: str, **extra: str) -> dict[str, str]:
        own = {
            "AWS_ENDPOINT_URL": self._recorder.url(who),
            "AWS_ACCESS_KEY_ID": FAKE_ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": FAKE_SECRET_KEY,
            "AWS_REGION": self._settings.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "ENVIRONMENT": self._settings.environment,
            "AVESA_STATE_DIR": str(self._folder / "state" / who),
        }
        return child_environment(**own | PACE | extra)

    def _seen_from(self, who: str) -> Settings:
        keys = {"access_key": FAKE_ACCESS_KEY, "secret_key": FAKE_SECRET_KEY}
        return Settings.from_environment(self._environment(who), **keys)

    def _child(self, name: str) -> Child:
        arguments = [*self._words[name], "--until-stdin-closes", "--mappings", str(self._mappings)]
        program = Program(name, arguments, self._folder / "logs" / f"{name}.log", self._environment(name))
        return Child(program, self._clock, lambda _: None)

    def _start(self, name: str) -> None:
        self._children[name] = self._child(name)
        self._running.append(asyncio.create_task(self._children[name].run()))

    async def _kill(self, name: str) -> None:
        child = self._children[name]
        starts = child.starts
        child.kill()
        await self._until(f"the {name} is back", lambda: _now(child.starts > starts and child.running))

    async def _avesa(self, *arguments: str, **extra: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *command_line([*arguments, "--mappings", str(self._mappings)]),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environment(OPERATOR, **extra),
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()

    # -- what can be seen of it
    async def _until(self, what: str, seen: Callable[[], Awaitable[bool]]) -> None:
        until = self._clock.monotonic() + WAIT_S
        while not await seen():
            assert self._clock.monotonic() < until, f"not within {WAIT_S:.0f} s: {what}"
            await self._clock.sleep(POLL_S)
        self._told(what)

    def _objects(self, prefix: str) -> Callable[[], Awaitable[bool]]:
        async def seen() -> bool:
            return bool([info async for info in self._aws.objects.list(prefix)])

        return seen

    async def _holds_an_hour(self) -> bool:
        keys = [info.key async for info in self._aws.objects.list(f"{TENANT}/raw/")]
        return any(re.search(r"/[0-9-]+T\d\d\.parquet$", key) for key in keys)

    def _said(self, *words: str) -> Callable[[], Awaitable[bool]]:
        return lambda: _now(self._count(*words) > 0)

    def _called(self, who: str, call: Call) -> Callable[[], Awaitable[bool]]:
        """`call`, or one of something below its resource."""
        made = self._recorder.calls[who]
        return lambda: _now(any(c.action == call.action and c.resource.startswith(call.resource) for c in made))

    def _count(self, *words: str) -> int:
        """Lines of the logs that hold all of `words`."""
        lines = (line for log in (self._folder / "logs").glob("*.log") for line in log.read_text().splitlines())
        return sum(all(word in line for word in words) for line in lines)


async def _now(value: bool) -> bool:
    return value
