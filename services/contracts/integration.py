"""One integration = one file, `mappings/integrations/{service}.json`. No Python names a vendor.

Every place a file can vary is a typed variant here; JSON Schema for editors is generated from these types
(`avesa mapping schema`). A `{name}` in a text marked *template* is filled with the credential of that name; inside an
endpoint's path also with the value its `parent` names, inside a clause with the value the clause is about.
A *path* is dotted (`status.name`): object keys, or list positions as numbers.
"""

from typing import Annotated, Literal

import msgspec

from services.contracts.schema import Name

Path = Annotated[str, msgspec.Meta(min_length=1)]
Template = str


class Credential(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing a user is asked for. `aliases` are older names also accepted from the environment."""

    title: str
    hint: str = ""
    secret: bool = False
    aliases: list[str] = []


# -- who we are to the vendor ---------------------------------------------------------------------------------------
class NoAuth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="none"):
    """The API asks for no credentials."""


class BasicAuth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="basic"):
    """HTTP Basic; both are templates."""

    username: Template
    password: Template


class HeaderAuth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="headers"):
    """Fixed headers, such as an API key or a bearer token; values are templates."""

    headers: dict[str, Template]


Auth = NoAuth | BasicAuth | HeaderAuth


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the vendor lets one customer do, and how much of it we take; the rest is left to the customer's other tools.

    Units: `requests` per `window_s` seconds; `share` is the part of it we use, 0 < share <= 1.
    """

    requests: Annotated[int, msgspec.Meta(ge=1)] = 300
    window_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    concurrency: Annotated[int, msgspec.Meta(ge=1, le=64)] = 4
    share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.8


class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The vendor's filter language: clauses are joined by `join` and sent as the query parameter `param`."""

    param: str
    join: str = " and "


# -- pages ----------------------------------------------------------------------------------------------------------
class OnePage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="none"):
    """The whole answer is one page."""


class PageNumber(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="page"):
    """Numbered pages; the last is shorter than `size`. Rows that move while paging are not seen: prefer `keyset`."""

    param: str = "page"
    first: int = 1
    size_param: str | None = None
    size: Annotated[int, msgspec.Meta(ge=1)] = 100


class Keyset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="keyset"):
    """Walk in order of a unique, growing key: rows may come, go or move behind us, and none ahead of us is missed.

    `clause` is a filter clause with `{after}`, the last key read; `order` are the query parameters that sort by `key`.
    The last page is shorter than `size`.
    """

    key: Path
    clause: Template
    order: dict[str, str]
    start: str = "0"
    size_param: str | None = None
    size: Annotated[int, msgspec.Meta(ge=1)] = 1000


Pagination = OnePage | PageNumber | Keyset

TimeFormat = Literal["rfc3339_s", "rfc3339_ms", "epoch_s", "epoch_ms", "date"]


class Incremental(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to ask only for what changed. `{since}` in a clause or parameter is the mark, cut to the format's precision.

    Units:  `overlap_s` is read again behind the fresh mark at each live poll; after `lag_s` what the vendor shows no
            longer changes its order, so that the settled pass may move the cursor (DESIGN 4).
    """

    clause: Template | None = None
    params: dict[str, Template] = {}
    format: TimeFormat = "rfc3339_s"
    overlap_s: Annotated[float, msgspec.Meta(ge=0)] = 5.0
    lag_s: Annotated[float, msgspec.Meta(ge=0)] = 300.0


# -- deletes --------------------------------------------------------------------------------------------------------
class NoDeletes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="none"):
    """The vendor never deletes here, or nothing tells."""


class Sweep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="sweep"):
    """Read all ids now and then; what we published and cannot find, confirmed by reading it, was deleted.

    `params` make the sweep cheap (only ids). `confirm` is the path of one record, `{record_id}` filled in; 404 or 410
    confirms; None where the API cannot read one record: then a second sweep confirms.
    """

    interval_s: Annotated[float, msgspec.Meta(gt=0)] = 3600.0
    params: dict[str, str] = {}
    confirm: Template | None = None


Deletes = NoDeletes | Sweep


# -- from a vendor's record to a canonical column ---------------------------------------------------------------------
class First(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="first"):
    """The first of several paths that holds something other than null."""

    paths: Annotated[list[Path], msgspec.Meta(min_length=1)]


class ValueMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="map"):
    """A value looked up by its text; `default` for one not listed (absent: the value itself)."""

    path: Path
    values: dict[str, str]
    default: str | None = None


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="when"):
    """The value at `path` where the text at `test` is one of `equals`, else null."""

    path: Path
    test: Path
    equals: list[str]


class Constant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="constant"):
    """The same text in every row."""

    value: str


class Call(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="function"):
    """A named function of `services/transformer/functions.py` over the values at `paths`."""

    name: Name
    paths: Annotated[list[Path], msgspec.Meta(min_length=1)]


Field = Path | First | ValueMap | When | Constant | Call


class NamedValues(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="list"):
    """Custom fields as a list of objects, each with a name and a value."""

    path: Path
    name: Path
    value: Path


class ObjectAt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="object"):
    """Custom fields as one object at `path`."""

    path: Path


class KeyPattern(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="keys"):
    """Custom fields beside the others, told by how their key begins or ends."""

    prefix: str = ""
    suffix: str = ""


CustomFields = NamedValues | ObjectAt | KeyPattern


class CanonicalMapping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which table an endpoint's records become, and where each column comes from.

    `time_zone` (an IANA name) is where times without a zone stand.
    """

    table: Name
    fields: dict[Name, Field]
    time_zone: str = "UTC"


class Parent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Read this endpoint once per record of another: `{name}` in its path is the value at `path` of each parent."""

    endpoint: Name
    path: Path = "id"
    name: Name = "parent_id"


class DropItems(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Items of the list at `path` that never leave the extractor: those whose text at `test` is one of `equals`."""

    path: Path
    test: Path
    equals: Annotated[list[str], msgspec.Meta(min_length=1)]


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One list of the vendor's API.

    `record_id`: a path, or several for a composite key. `updated_at`: a path, or None where records carry no
    modification time. `records`: the path of the list in an answer, empty where the answer is the list.
    `family`: endpoints that share one id space name the same (default: the endpoint). `drop`: paths that never leave
    the extractor. `interval_s`: seconds between live polls.
    """

    path: Template
    record_id: Path | Annotated[list[Path], msgspec.Meta(min_length=1)]
    title: str = ""
    family: Name | None = None
    updated_at: Path | None = None
    records: str = ""
    params: dict[str, Template] = {}
    pagination: Pagination | None = None
    incremental: Incremental | None = None
    deletes: Deletes | None = None
    parent: Parent | None = None
    drop: list[Path] = []
    interval_s: Annotated[float, msgspec.Meta(gt=0)] = 60.0
    enabled: bool = True
    canonical: CanonicalMapping | None = None


class Integration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One vendor. `pagination`, `incremental`, `deletes` and `updated_at` are the defaults of its endpoints.

    `base_url` is a template; where the user's credential already ends with the path that follows it, it is not added
    twice. `drop_items` hold for the records of every endpoint. `tick_s` is the precision of the vendor's modification
    times. `described_by` names the vendor's published description, for a reader and for `avesa mapping conform`.
    """

    service: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9_]+$")]
    title: str
    base_url: Template
    auth: Auth
    endpoints: dict[Name, Endpoint]
    credentials: dict[Name, Credential] = {}
    headers: dict[str, Template] = {}
    limits: Limits = Limits()
    filter: Filter | None = None
    pagination: Pagination = OnePage()
    incremental: Incremental | None = None
    deletes: Deletes = NoDeletes()
    updated_at: Path | None = None
    custom_fields: CustomFields | None = None
    drop_items: list[DropItems] = []
    tick_s: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    described_by: str = ""

    def family_of(self, endpoint: str) -> str:
        """The id space an endpoint's records live in."""
        found = self.endpoints.get(endpoint)
        return (found.family if found is not None else None) or endpoint


def integration_name(service: str) -> str:
    """The file of a service: the part before the instance (`microsoft_365:contoso` -> `microsoft_365`)."""
    return service.partition(":")[0]
