"""Pinned mappings (DESIGN 2.4): the lake is a function of the observations and of one mapping, so the one in force is
written down, immutable and numbered, per tenant, table and service. What a newer file may change without a rebuild is
decided here; everything else waits, and says so.
"""

from collections.abc import Callable
from typing import Annotated

import msgspec

from services.contracts.errors import ConflictError, FatalError, RetryableError
from services.contracts.fields import CanonicalMapping, CustomFields
from services.contracts.integration import Integration, integration_name
from services.contracts.log import Event, MappingHeld
from services.contracts.mapping_files import MappingFiles, RoutesTable, every_table
from services.contracts.names import mapping_key
from services.contracts.ports import Objects
from services.contracts.schema import CUSTOM_FIELDS, CanonicalTable, Column
from services.contracts.times import UtcTime

CONFLICTS_MAX = 8  # workers that all pin the same thing at once; each conflict means that another has got further
WHAT_CHARS_MAX = 500
NOT_FED = "no endpoint feeds this table any longer"


class PinnedEndpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one endpoint gives to the table. Without a `mapping` it gives only deletions, to its family's records.

    `custom_fields` is its own rule in place of the service's.
    """

    family: str
    mapping: CanonicalMapping | None = None
    custom_fields: CustomFields | None = None


class Pinned(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The mapping in force for one tenant, table and service; the content of one object at `names.mapping_key`.

    Shape:  `table` holds only the columns that are in force. `entered` names those that came after the first pinning
            and stay untracked until a rebuild, whatever their file says. A rebuild pins the files as they are, under
            the next number, with nothing in `entered`; `rebuilt` is the number that the last rebuild pinned (0: never)
            and `rebuilt_at` when it did: what comes after it keeps both. Without `endpoints` nothing feeds the table.
    """

    tenant_id: str
    service: str
    mapping_version: Annotated[int, msgspec.Meta(ge=1)]
    table: CanonicalTable
    endpoints: dict[str, PinnedEndpoint]
    custom_fields: CustomFields | None = None
    entered: list[str] = []
    rebuilt: int = 0
    rebuilt_at: UtcTime | None = None


class Held(msgspec.Struct, frozen=True):
    """The files differ from what is pinned in a way that only a rebuild may bring into force; `what` says how."""

    what: str


def shipped(mappings: MappingFiles, tenant_id: str, service: str, number: int = 1) -> dict[str, Pinned]:
    """What the mapping files say of a service now, by table, as if it were pinned under `number`; of the tables that
    were loaded."""
    integration = mappings.integrations.get(integration_name(service))
    if integration is None:
        return {}
    names = {endpoint.canonical.table for endpoint in integration.endpoints.values() if endpoint.canonical is not None}
    return {
        name: Pinned(
            tenant_id,
            service,
            number,
            mappings.tables[name],
            _endpoints_of(integration, name),
            integration.custom_fields,
        )
        for name in sorted(names & mappings.tables.keys())
    }


def _endpoints_of(integration: Integration, table: str) -> dict[str, PinnedEndpoint]:
    mapped = {
        name: PinnedEndpoint(integration.family_of(name), endpoint.canonical, endpoint.custom_fields)
        for name, endpoint in integration.endpoints.items()
        if endpoint.canonical is not None and endpoint.canonical.table == table
    }
    families = {endpoint.family for endpoint in mapped.values()}
    only_deletions = {
        name: PinnedEndpoint(integration.family_of(name))
        for name, endpoint in integration.endpoints.items()
        if endpoint.canonical is None and integration.family_of(name) in families
    }
    return {**mapped, **only_deletions}


def reconcile(pinned: Pinned, wanted: Pinned) -> Pinned | Held:
    """What is in force once the files say `wanted`.

    Shape:  `pinned` itself where nothing that counts differs (prose, limits and columns that nothing fills do not
            count); a Pinned of the next number where columns or endpoints are only added; else Held, and `pinned`
            stays in force as a whole.
            An added column is one that no pinned endpoint fills: it is null in every older row, hence it enters as
            untracked and makes no version. An added endpoint brings records that were never in the table.
            Where nothing fed the table since a rebuild, there is no row of it: the files are in force as they are.
    Errors: none.
    """
    if not pinned.endpoints:
        number = pinned.mapping_version + 1
        return msgspec.structs.replace(
            wanted, mapping_version=number, rebuilt=pinned.rebuilt, rebuilt_at=pinned.rebuilt_at
        )
    before = _filled(pinned)
    reasons = [*_table_reasons(pinned, wanted, before), *_endpoint_reasons(pinned, wanted, before)]
    if pinned.custom_fields != wanted.custom_fields:
        reasons.append("the rule for custom fields differs")
    if reasons:
        return Held("; ".join(reasons)[:WHAT_CHARS_MAX])
    entering = {name: column for name, column in wanted.table.columns.items() if name in _filled(wanted) - before}
    added = [name for name in wanted.endpoints if name not in pinned.endpoints]
    if not entering and not added:
        return pinned
    untracked = {name: Column(column.type, column.description, tracked=False) for name, column in entering.items()}
    return msgspec.structs.replace(
        pinned,
        mapping_version=pinned.mapping_version + 1,
        table=msgspec.structs.replace(pinned.table, columns={**pinned.table.columns, **untracked}),
        endpoints={**pinned.endpoints, **wanted.endpoints},
        entered=[*pinned.entered, *untracked],
    )


def difference(pinned: Pinned, wanted: Pinned | None) -> str:
    """In words, what the files say and only a rebuild brings into force; empty where nothing waits."""
    if wanted is None:
        return NOT_FED if pinned.endpoints else ""
    result = reconcile(pinned, wanted)
    return result.what if isinstance(result, Held) else ""


def renewed(held: Pinned | None, wanted: Pinned | None, at: UtcTime) -> Pinned | None:
    """What a rebuild that begins `at` puts in force: the files as they are, under the next number.

    Shape:  `held` itself where the files say the same; a mapping without endpoints where they no longer feed the table
            (`wanted` None); None where neither knows the table.
    """
    if wanted is None:
        if held is None or not held.endpoints:
            return held
        wanted = msgspec.structs.replace(held, endpoints={}, entered=[])
    number = 0 if held is None else held.mapping_version
    if held is not None and held == msgspec.structs.replace(
        wanted, mapping_version=number, rebuilt=held.rebuilt, rebuilt_at=held.rebuilt_at
    ):
        return held
    return msgspec.structs.replace(wanted, mapping_version=number + 1, rebuilt=number + 1, rebuilt_at=at)


def _filled(pinned: Pinned) -> set[str]:
    """The columns that are not null in every row: those some endpoint fills, and `custom_fields`."""
    mappings = [endpoint.mapping for endpoint in pinned.endpoints.values() if endpoint.mapping is not None]
    return {CUSTOM_FIELDS, *(column for mapping in mappings for column in mapping.fields)}


def _table_reasons(pinned: Pinned, wanted: Pinned, before: set[str]) -> list[str]:
    reasons = []
    if pinned.table.scd != wanted.table.scd:
        reasons.append(f"scd was {pinned.table.scd} and is {wanted.table.scd}")
    for name, column in pinned.table.columns.items():
        now = wanted.table.columns.get(name)
        if now is None:
            if name in before:
                reasons.append(f"column {name} is gone")
        elif now.type != column.type:
            reasons.append(f"column {name} was {column.type} and is {now.type}")
        elif now.tracked != column.tracked and name in before and name not in pinned.entered:
            reasons.append(f"column {name} {'became' if now.tracked else 'is no longer'} tracked")
    return reasons


def _endpoint_reasons(pinned: Pinned, wanted: Pinned, before: set[str]) -> list[str]:
    reasons = []
    for name, endpoint in pinned.endpoints.items():
        now = wanted.endpoints.get(name)
        if now is None:
            reasons.append(f"endpoint {name} no longer feeds the table")
        elif now.family != endpoint.family:
            reasons.append(f"endpoint {name} was of family {endpoint.family} and is of {now.family}")
        elif endpoint.mapping is None or now.mapping is None:
            if endpoint.mapping is not now.mapping:
                reasons.append(f"endpoint {name} {'began' if now.mapping else 'ceased'} to fill columns")
        else:
            reasons += _mapping_reasons(name, endpoint.mapping, now.mapping, before)
            if endpoint.custom_fields != now.custom_fields:
                reasons.append(f"the rule for custom fields of endpoint {name} differs")
    return reasons


def _mapping_reasons(name: str, was: CanonicalMapping, now: CanonicalMapping, before: set[str]) -> list[str]:
    reasons = []
    if was.time_zone != now.time_zone:
        reasons.append(f"endpoint {name} stood in {was.time_zone} and stands in {now.time_zone}")
    if was.blank != now.blank:
        reasons.append(f"endpoint {name} took empty text for {was.blank} and takes it for {now.blank}")
    for column in [*was.fields, *(column for column in now.fields if column in before and column not in was.fields)]:
        if was.fields.get(column) != now.fields.get(column):
            reasons.append(f"endpoint {name} fills {column} in another way")
    return reasons


# -- the small shell ------------------------------------------------------------------------------------------------
class PinnedMappings:
    """Reads, and where needed writes, the pinned mappings of tenants, of the tables that are routed; the others' are
    never opened. Errors: RetryableError, FatalError."""

    def __init__(
        self,
        objects: Objects,
        mappings: MappingFiles,
        emit: Callable[[Event], None],
        routes_table: RoutesTable = every_table,
    ) -> None:
        self._objects, self._mappings, self._emit, self._routes_table = objects, mappings, emit, routes_table
        self._said: dict[tuple[str, str, str], str] = {}

    async def load(self, tenant_id: str, service: str) -> dict[str, Pinned]:
        """The mappings in force of one tenant's service, by table. What the files allow is pinned on the way."""
        pinned = await self._highest(tenant_id, service)
        files = shipped(self._mappings, tenant_id, service)
        for table in pinned.keys() - files.keys():
            if what := difference(pinned[table], None):
                self._say(pinned[table], what)
        for table, wanted in files.items():
            if not self._routes_table(table):
                continue
            pinned[table] = await self._settled(pinned.get(table), wanted)
        return pinned

    def describes(self, service: str) -> bool:
        """Is there a mapping file for the service?"""
        return integration_name(service) in self._mappings.integrations

    async def of_table(self, tenant_id: str, table: str) -> dict[str, Pinned]:
        """By service, the mapping of one table in force, whatever the files say."""
        folder = f"{mappings_folder(tenant_id)}{table}/"
        found: dict[str, str] = {}
        async for info in self._objects.list(folder):
            service, _, name = info.key.removeprefix(folder).partition("/")
            if name.removesuffix(".json").isdecimal():
                found[service] = max(found.get(service, ""), info.key, key=lambda key: (len(key), key))
        pinned = [decode(await self._objects.get(key), key) for key in found.values()]
        return {one.service: one for one in pinned}

    def renewal(self, held: Pinned | None, tenant_id: str, service: str, table: str, at: UtcTime) -> Pinned | None:
        """What `renew` would put in force in place of `held`. Where no mapping file knows the service at all, `held`:
        somebody forgot to name a folder, more likely than that all its rows should go."""
        if not self.describes(service):
            return held
        return renewed(held, shipped(self._mappings, tenant_id, service).get(table), at)

    async def renew(self, tenant_id: str, service: str, table: str, at: UtcTime) -> Pinned | None:
        """Pin one table's mapping as the files have it, as a rebuild begins; one that is that already keeps its number.

        None where neither files nor pins know the table for this service.
        """
        for _ in range(CONFLICTS_MAX):
            held = (await self.of_table(tenant_id, table)).get(service)
            pinned = self.renewal(held, tenant_id, service, table, at)
            if pinned is None or pinned is held:
                return pinned
            try:
                await self._objects.create(_key(pinned), encode(pinned))
            except ConflictError:
                continue
            return pinned
        raise RetryableError(f"the mapping of {table} changes faster than it can be pinned")

    async def _settled(self, pinned: Pinned | None, wanted: Pinned) -> Pinned:
        for _ in range(CONFLICTS_MAX):
            result = wanted if pinned is None else reconcile(pinned, wanted)
            if isinstance(result, Held):
                assert pinned is not None
                self._say(pinned, result.what)
                return pinned
            if result is pinned:
                return pinned
            try:
                await self._objects.create(_key(result), encode(result))
            except ConflictError:
                pinned = (await self._highest(wanted.tenant_id, wanted.service)).get(wanted.table.table)
            else:
                return result
        raise RetryableError(f"the mapping of {wanted.table.table} changes faster than it can be pinned")

    async def _highest(self, tenant_id: str, service: str) -> dict[str, Pinned]:
        found: dict[str, int] = {}
        async for info in self._objects.list(mappings_folder(tenant_id)):
            table, _, name = info.key.removeprefix(mappings_folder(tenant_id)).partition("/")
            number = name.rpartition("/")[2].removesuffix(".json")
            known = number.isdecimal() and info.key == mapping_key(tenant_id, table, service, int(number))
            if known and self._routes_table(table):
                found[table] = max(found.get(table, 0), int(number))
        pinned = {}
        for table, version in found.items():
            key = mapping_key(tenant_id, table, service, version)
            pinned[table] = decode(await self._objects.get(key), key)
        return pinned

    def _say(self, pinned: Pinned, what: str) -> None:
        """Once, not at every reload."""
        at = (pinned.tenant_id, pinned.service, pinned.table.table)
        if self._said.get(at) != what:
            self._said[at] = what
            self._emit(MappingHeld(tenant_id=at[0], service=at[1], table=at[2], what=what))


def mappings_folder(tenant_id: str) -> str:
    """The folder of all pinned mappings of a tenant, `/` at its end."""
    return mapping_key(tenant_id, "", "", 0).partition("//")[0] + "/"


def encode(pinned: Pinned) -> bytes:
    """The same bytes for the same content, so that two workers who pin alike agree; indented for whoever reads it."""
    return msgspec.json.format(msgspec.json.encode(pinned), indent=2)


def decode(data: bytes, key: str) -> Pinned:
    """Errors: FatalError `bad_mapping`: without its mapping a table cannot go on."""
    try:
        return msgspec.json.decode(data, type=Pinned)
    except msgspec.DecodeError as err:
        raise FatalError(
            f"a pinned mapping cannot be read ({err})",
            code="bad_mapping",
            where=key,
            remedy="It was written by another version of this program; run that one, or rebuild the table.",
        ) from err


def _key(pinned: Pinned) -> str:
    return mapping_key(pinned.tenant_id, pinned.table.table, pinned.service, pinned.mapping_version)
