"""`avesa smoke`: does what runs in this environment bring an observation all the way into the lake?

No vendor is asked and no credential is needed: the observations of one made-up record go on the raw stream as the
extractor would put them there, for a tenant that nobody has. The transformers and compactors that run do the rest, and
the tables must end up with exactly the history that was published. Then everything of that tenant is removed.
"""

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

import msgspec
import typer

from services.cli.options import MappingsFolder, command
from services.cli.screen import Screen, counted
from services.cli.world import Place, World, open_world, run
from services.contracts.errors import FatalError, RetryableError, UsageError
from services.contracts.mapping_files import MappingFiles
from services.contracts.names import canonical_folder, checked_tenant, raw_folder
from services.contracts.times import moment
from services.runtime.mapping_files import load_mappings

if TYPE_CHECKING:
    from services.compactor.lake import Lake
    from services.contracts.ports import ObjectInfo
    from services.runtime.runtime import Runtime
    from services.sandbox.smoke import Sample

app = typer.Typer()
T = TypeVar("T")
DONE = 0

TENANT_PREFIX: Final = "smoke-"
TOKEN_CHARS: Final = 8
WITHIN_S: Final = 900.0  # cut_age_max_s on both streams, and room for a busy hour
POLL_S: Final = 3.0
DELETED_MAX: Final = 10_000  # objects of one such tenant: a few dozen

Stage = Literal["published", "archived", "transformed", "merged", "removed"]
# What each stage needs, in words for whom it did not come to pass.
REMEDIES: Final[dict[Stage, str]] = {
    "published": "Does the stream raw take records? `avesa doctor` looks.",
    "archived": "Does a compactor read the stream raw? `avesa status --shards` shows who owns its shards.",
    "transformed": "Does a transformer read the stream raw, and a compactor canonical? `avesa status --shards`.",
    "merged": "Does a compactor merge, and may it use Glue? Its log says why not.",
    "removed": "A compactor has to note first that it has merged: try `avesa smoke --remove` later.",
}


class Passed(msgspec.Struct, frozen=True):
    """One stage that was reached, `after_s` the publishing began."""

    tenant_id: str
    stage: Stage
    after_s: float


@command(
    app,
    "smoke",
    "avesa smoke --environment dev",
    "avesa smoke --environment dev --keep",
    "avesa smoke --environment dev --remove smoke-1f0c92ab",
)
def smoke(
    screen: Screen,
    place: Place,
    within_s: Annotated[
        float, typer.Option("--within-s", metavar="SECONDS", min=1, help="How long it may take.")
    ] = WITHIN_S,
    keep: Annotated[bool, typer.Option("--keep", help="Leave what was made in the lake.")] = False,
    remove: Annotated[
        str | None, typer.Option("--remove", metavar="TENANT", help="Only remove what a former run has left.")
    ] = None,
    mappings: MappingsFolder = None,
) -> int:
    """Send one made-up record through the pipeline that runs here: new, changed, deleted; then remove it again.

    Exit codes: 0 the lake holds exactly what was sent, 1 it does not: the last stage reached is named.
    """
    files = load_mappings(mappings)
    return run(_smoke(screen, place, files, within_s, keep, remove))


async def _smoke(
    screen: Screen, place: Place, files: MappingFiles, within_s: float, keep: bool, remove: str | None
) -> int:
    from services.compactor.iceberg import Warehouse
    from services.compactor.lake import Lake

    async with open_world(place, screen) as world:
        runtime = world.runtime
        warehouse = await runtime.threads.run(Warehouse.on_glue, world.settings)
        lake = Lake(warehouse, runtime.objects, runtime.threads, files)
        trial = Trial(screen, world, lake, within_s)
        if remove is not None:
            await trial.remove(_ours(remove))
            return DONE
        return await trial.run(f"{TENANT_PREFIX}{runtime.chance.token()[:TOKEN_CHARS].lower()}", keep)


def _ours(tenant_id: str) -> str:
    if not checked_tenant(tenant_id).startswith(TENANT_PREFIX):
        remedy = "It removes tenants that `avesa smoke` has made; a service is removed with `avesa services remove`."
        raise UsageError(f"{tenant_id} is no tenant of a smoke test", remedy=remedy)
    return tenant_id


class Trial:
    """One record's way through an environment."""

    def __init__(self, screen: Screen, world: World, lake: "Lake", within_s: float) -> None:
        self._screen, self._world, self._lake = screen, world, lake
        self._clock = world.runtime.clock
        self._began = self._clock.monotonic()
        self._deadline = self._began + within_s
        self._within_s, self._why = within_s, ""

    async def run(self, tenant_id: str, keep: bool) -> int:
        """Publish, wait for each stage, compare, remove. Errors: FatalError naming the stage that was not reached."""
        from services.sandbox.smoke import sample

        screen = self._screen
        sent = sample(tenant_id, moment(self._clock.now()))
        removal = f"`avesa smoke --environment {self._world.settings.environment} --remove {tenant_id}`"
        screen.standing = f"What was sent stays; {removal} removes it."
        await self._publish(sent)
        self._passed("published", tenant_id, f"{counted(len(sent.events), 'observation')} of tenant {tenant_id}")
        raw = raw_folder(tenant_id, sent.partition.service, sent.endpoint)
        await self._until("archived", tenant_id, lambda: self._listed(raw))
        await self._until("transformed", tenant_id, lambda: self._listed(canonical_folder(tenant_id, sent.table)))
        await self._until("merged", tenant_id, lambda: self._is_merged(sent))
        screen.say(f"the lake holds what was sent: {counted(len(sent.versions), 'version')}, none of them current")
        if keep:
            screen.note(f"kept; {removal} removes it")
        else:
            await self.remove(tenant_id)
        screen.standing = ""
        return DONE

    async def remove(self, tenant_id: str) -> None:
        """Everything of a smoke test's tenant, once no compactor needs it any more: files that are gone before they are
        merged would hold up the shard's next ones. Errors: FatalError where the tenant is connected, or time is up."""
        from services.extractor.tenants import services_of

        if (await services_of(self._world.runtime.rows, self._world.runtime.names, tenant_id)).services:
            raise FatalError(f"tenant {tenant_id} has services: it is none of a smoke test", code="usage")
        await self._until("removed", tenant_id, lambda: self._settled(tenant_id), told=False)
        await _remove_tables(self._world, tenant_id)
        keys = [info.key for info in await self._listed(tenant_id)][:DELETED_MAX]
        await self._world.runtime.objects.delete(keys)
        self._passed("removed", tenant_id, f"{counted(len(keys), 'object')} and the tables of tenant {tenant_id}")

    def _passed(self, stage: Stage, tenant_id: str, what: str = "") -> None:
        after_s = round(self._clock.monotonic() - self._began, 1)
        if self._screen.as_json:
            self._screen.record(Passed(tenant_id, stage, after_s))
        self._screen.say(f"{stage:<12} after {after_s:g} s" + (f": {what}" if what else ""))
        self._screen.out.flush()

    async def _until(
        self, stage: Stage, tenant_id: str, look: Callable[[], Awaitable[object]], told: bool = True
    ) -> None:
        """Look until there is something. Errors: FatalError when the time is up."""
        while not await self._looked(look):
            await self._complain_of_letters(tenant_id)
            if self._clock.monotonic() >= self._deadline:
                what = f"not {stage} within {self._within_s:g} s" + (f": {self._why}" if self._why else "")
                raise FatalError(what, code="timeout", where=f"tenant {tenant_id}", remedy=REMEDIES[stage])
            await self._clock.sleep(POLL_S)
        if told:
            self._passed(stage, tenant_id)

    async def _looked(self, look: Callable[[], Awaitable[object]]) -> object:
        """What a look finds; nothing where AWS asks for patience."""
        try:
            self._why = ""
            return await look()
        except RetryableError as err:
            self._why = str(err)
            return None

    async def _complain_of_letters(self, tenant_id: str) -> None:
        """A dead letter is the end of it, and says why."""
        from services.runtime.dead_letters import DeadLetter

        for info in await self._listed(f"{tenant_id}/dead-letter"):
            letter = msgspec.json.decode(await self._world.runtime.objects.get(info.key), type=DeadLetter)
            raise FatalError(
                f"it became a dead letter ({letter.code}: {letter.reason})", where=info.key, code="bad_row"
            )

    async def _publish(self, sent: "Sample") -> None:
        from services.runtime.envelopes import seal

        runtime = self._world.runtime
        lines = [msgspec.json.encode(event) for event in sent.events]
        await runtime.publisher(runtime.names.raw_stream).publish(seal(sent.partition, sent.endpoint, lines))

    async def _listed(self, folder: str) -> "list[ObjectInfo]":
        return [info async for info in self._world.runtime.objects.list(f"{folder}/")]

    async def _is_merged(self, sent: "Sample") -> bool:
        found = await self._lake.history_of(sent.partition.tenant_id, sent.table, sent.record_id)
        self._why = differences(found.versions, sent)
        return not self._why

    async def _settled(self, tenant_id: str) -> bool:
        """Does no shard's row name a cut of this tenant that is not merged?"""
        waiting = await unmerged(self._world.runtime)
        folder = f"{tenant_id}/canonical"
        return not any(cut_of(info.key) in waiting for info in await self._listed(folder))


def differences(versions: Iterable[dict[str, Any]], sent: "Sample") -> str:
    """In words how the history found differs from the one sent; empty where it does not."""
    found = tuple((one["valid_from"], one["valid_to"]) for one in versions)
    if found != sent.versions:
        return f"{counted(len(found), 'version')} {found}, expected {sent.versions}"
    if any(one["is_current"] for one in versions):
        return "a deleted record is current"
    return ""


def cut_of(key: str) -> tuple[str, int] | None:
    """Shard and number of the cut that a part was written by (`names.part_key`); None for the file of a whole hour."""
    name = key.rpartition("/")[2].removesuffix(".parquet")
    shard, dash, number = name.rpartition("-")
    if not dash or not number.isdecimal() or "." not in shard:
        return None
    return shard.rpartition(".")[0], int(number)


async def unmerged(runtime: "Runtime") -> set[tuple[str, int]]:
    """The cuts of the canonical stream, by shard and number, that no shard's row says are merged."""
    from services.compactor.cuts import read_row
    from services.compactor.cutting import SERVICE
    from services.runtime.shards import scope_of

    stream = runtime.names.canonical_stream
    info = await runtime.streams.describe(stream)
    scope = {"scope": scope_of(stream, info.created, SERVICE)}
    rows = [read_row(row) async for row in runtime.rows.query(runtime.leases.table, scope)]
    return {(one.shard, cut) for row in rows for one in row.waiting for cut in one.unmerged}


async def _remove_tables(world: World, tenant_id: str) -> None:
    """The Glue tables of a tenant, its database and the row of its merges: tables first, as a database that goes takes
    them along only later (API_DeleteDatabase, AWS Glue)."""
    from contextlib import suppress

    from services.compactor.merging import SCOPE
    from services.contracts.errors import NotFoundError
    from services.runtime.aws import open_clients

    names, runtime = world.settings.names, world.runtime
    database = names.database(tenant_id)
    async with open_clients(world.settings, "glue") as clients:
        glue = clients["glue"]
        with suppress(NotFoundError):
            answer = await glue.call("get_tables", database, DatabaseName=database)
            for table in [one["Name"] for one in answer["TableList"]]:
                await glue.call("delete_table", f"{database}.{table}", DatabaseName=database, Name=table)
                await runtime.rows.delete(runtime.leases.table, {"scope": SCOPE, "name": f"{tenant_id}/{table}"})
            await glue.call("delete_database", database, Name=database)
