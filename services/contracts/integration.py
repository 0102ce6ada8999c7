"""One integration = one file, `mappings/integrations/{service}.json`. No Python names a vendor.

Every place a file can vary is a typed variant: who we are (`access.py`), how lists are read (`reading.py`), which
columns they become (`fields.py`). JSON Schema for editors is generated from these types (`avesa mapping schema`).
"""

from typing import Annotated, Final, Literal

import msgspec

from services.contracts.access import Auth, Credential, Discovery, ErrorRule, Limits, Path, Template
from services.contracts.fields import CanonicalMapping, CustomFields
from services.contracts.reading import (
    Body,
    Condition,
    Customers,
    Deletes,
    Export,
    FieldList,
    Filter,
    Incremental,
    NoDeletes,
    NoIncremental,
    OnePage,
    Pagination,
    Tombstone,
)
from services.contracts.schema import Name

PARENT_KEY: Final = "_parent"


class Parent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Read this endpoint once per record of another: `{name}` in its templates is the value at `path` of each parent.

    `path` is (part of) the parent's record id; `values` are further values of the parent's record for templates.
    `include` (dlt's `include_from_parent`): which of them, `name` or names of `values`, each record read below takes
    along under the key `_parent`, as text, or null where the parent has none. It is then a part of the record like any
    other: `_parent.ticket_id` may be (part of) its record id, feed a column or be the path of a value for endpoints
    below it, and a record whose parent's value changed has changed. A record that hangs from several parents needs
    theirs in its record id.
    `when_changed`: the vendor changes a parent whenever what hangs from it changes, so that only changed parents are
    read below; all of them once per `all_every_s` seconds.
    """

    endpoint: Name
    path: Path = "id"
    name: Name = "parent_id"
    values: dict[Name, Path] = {}
    include: list[Name] = []
    when_changed: bool = False
    all_every_s: Annotated[float, msgspec.Meta(gt=0)] = 86_400.0


class DropItems(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Items of the list at `path` that never leave the extractor: those whose text at `test` is one of `equals`."""

    path: Path
    test: Path
    equals: Annotated[list[str], msgspec.Meta(min_length=1)]


class Described(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the vendor's description speaks of an endpoint, for `avesa mapping conform`, where that is not its `path`.

    `differs`: facts in which we differ on purpose (`record_id`, `query.conditions`, `field._info.lastUpdated`) -> why,
    with a source.
    """

    path: str | None = None
    schema: str | None = None
    differs: dict[str, str] = {}


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One list of the vendor's API.

    `path`: below `base_url`, or absolute; `base_url`: another one than the integration's.
    `record_id`: a path, or several for a composite key. `updated_at`: a path, or None where records carry no
    modification time. `records`: the path of the list in an answer, `*` for every item of a list on the way, empty
    where the answer is the list. `family`: endpoints that share one id space name the same (default: the endpoint).
    `deleted_when`: a record of which this holds is a deletion. `drop`: paths that never leave the extractor.
    `permission`: what the credentials need, in the vendor's words. `cost`: points a call costs (`Quota`).
    `interval_s`: seconds between live polls.
    """

    path: Template
    record_id: Path | Annotated[list[Path], msgspec.Meta(min_length=1)]
    title: str = ""
    base_url: Template | None = None
    method: Literal["GET", "POST"] = "GET"
    params: dict[str, Template] = {}
    headers: dict[str, Template] = {}
    body: Body | None = None
    fields: FieldList | None = None
    export: Export | None = None
    format: Literal["json", "ndjson", "csv"] = "json"
    records: str = ""
    family: Name | None = None
    updated_at: Path | None = None
    pagination: Pagination | None = None
    incremental: Incremental | None = None
    deletes: Deletes | None = None
    deleted_when: Condition | None = None
    tombstones: list[Tombstone] = []
    parent: Parent | None = None
    drop: list[Path] = []
    errors: list[ErrorRule] = []
    permission: str = ""
    cost: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    interval_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    enabled: bool = True
    custom_fields: CustomFields | None = None
    described: Described = Described()
    canonical: CanonicalMapping | None = None


class Integration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One vendor. What an endpoint may say too is the default of those that do not; `headers` and `params` are sent
    besides its own.

    `base_url` is a template; where the user's credential already ends with the path that follows it, it is not added
    twice. `auth`: one way, or several, of which the first counts whose credentials are all given. `drop_items` hold for
    the records of every endpoint. `tick_s` is the precision of the vendor's modification times, `time_zone` (an IANA
    name, template) where those without a zone stand. `described_by` names the vendor's published description, for a
    reader and for `avesa mapping conform`; `sources` what else the file rests on.
    """

    service: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]+$")]
    title: str
    base_url: Template
    auth: Auth | Annotated[list[Auth], msgspec.Meta(min_length=1)]
    endpoints: dict[Name, Endpoint]
    credentials: dict[Name, Credential] = {}
    discovery: list[Discovery] = []
    customers: Customers | None = None
    headers: dict[str, Template] = {}
    params: dict[str, Template] = {}
    limits: Limits = Limits()
    errors: list[ErrorRule] = []
    filter: Filter | None = None
    pagination: Pagination = OnePage()
    incremental: Incremental = NoIncremental()
    deletes: Deletes = NoDeletes()
    updated_at: Path | None = None
    time_zone: Template = "UTC"
    custom_fields: CustomFields | None = None
    drop_items: list[DropItems] = []
    tick_s: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    described_by: str = ""
    sources: list[str] = []

    def family_of(self, endpoint: str) -> str:
        """The id space an endpoint's records live in."""
        found = self.endpoints.get(endpoint)
        return (found.family if found is not None else None) or endpoint


def integration_name(service: str) -> str:
    """The file of a service: the part before the instance (`microsoft_365:contoso` -> `microsoft_365`)."""
    return service.partition(":")[0]
