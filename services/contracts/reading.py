"""How a list is read: what is sent, how its pages follow, what changed, what was deleted.

Besides credentials, a *template* here may ask for what a page or a time brings:

    {since} {until}             the window of time that is asked for, in the increment's format
    {page} {offset} {size}      page number, rows to skip, rows on a page
    {cursor}                    the vendor's own, from the page before
    {after} {after_time}        the last key read, and the time that goes with it (`time_keyset`)
    {token}                     the delta token of the last pass
    {fields}                    names of the fields (`FieldList`), joined
    {where}                     all clauses together (`Filter`)

A parameter, header or member of a body that asks for one of these, or for a credential that may be left empty, is left
out where it has no value: no `since` in a full read, no `cursor` on the first page.
"""

from typing import Annotated, Any, Literal

import msgspec

from services.contracts.access import Path, Template
from services.contracts.schema import Name

Positive = Annotated[float, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]


# -- what is sent ---------------------------------------------------------------------------------------------------
class Filter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The vendor's filter language: clauses (of increment and pages) joined by `join`, with `lead` before the first.

    They are sent as the query parameter `param`; without one they are `{where}` for templates. `json`: each clause is
    JSON, and `"{where}"` alone in a body is the list of them.
    """

    param: str | None = None
    join: str = " and "
    lead: str = ""
    json: bool = False


class JsonBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="json"):
    """A JSON body; its strings are templates. `"{size}"`, `"{page}"`, `"{offset}"` alone become numbers."""

    value: dict[str, Any]


class FormBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="form"):
    """A form (`application/x-www-form-urlencoded`)."""

    fields: dict[str, Template]


class GraphqlBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="graphql"):
    """A GraphQL query and its variables, whose strings are templates. Errors in a 200 answer are errors."""

    query: str
    variables: dict[str, Any] = {}


Body = JsonBody | FormBody | GraphqlBody


class FieldList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Field names that must be asked for: `{fields}`. Beyond `at_once` a page is asked for several times, and the
    answers are joined by record id.

    `names`, and where `describe` is given those found there too (at `name` of each item of `records` whose `test` text
    is one of `equals`, if given), asked for when the unit starts.
    """

    names: list[str] = []
    describe: Template | None = None
    records: str = ""
    name: Path = "name"
    test: Path | None = None
    equals: list[str] = []
    join: str = ","
    at_once: Count = 500


class Export(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A job that the vendor runs: created, asked about until `status` is one of `done`, then downloaded in pages.

    `path`s are templates with `{job}`, the id at `id` of the answer that created it. The endpoint's own `path`, pages
    and format are those of the download. Units: seconds between two questions, and at most in all.
    """

    create: Template
    body: Body
    id: Path
    poll: Template
    status: Path
    done: Annotated[list[str], msgspec.Meta(min_length=1)]
    failed: list[str] = []
    every_s: Positive = 5.0
    most_s: Positive = 3600.0


# -- pages ----------------------------------------------------------------------------------------------------------
class OnePage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="none"):
    """The whole answer is one page."""


class PageNumber(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="page"):
    """Numbered pages. The last is shorter than `size`, or as `more` (a flag), `pages` or `total` (numbers in the
    answer) tell, or empty (`until`). Rows move under the numbers: a walk of several pages is repeated until two agree.
    """

    param: str | None = "page"
    first: int = 1
    size_param: str | None = None
    size: Count = 100
    more: Path | None = None
    pages: Path | None = None
    total: Path | None = None
    until: Literal["short_page", "empty_page"] = "short_page"


class Offset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="offset"):
    """Rows to skip. Each page begins `overlap` rows before the end of the last, so that rows that moved are noticed and
    the walk steps back. `most`: the vendor refuses or cuts off beyond it: an error, never an end."""

    param: str | None = "offset"
    first: int = 0
    size_param: str | None = "limit"
    size: Count = 100
    overlap: Annotated[int, msgspec.Meta(ge=0)] = 1
    more: Path | None = None
    total: Path | None = None
    most: int | None = None


class Cursor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="cursor"):
    """The answer tells how to ask for the next page: at `path`, in the header `header`, or as `last`, a path in its
    last record. No cursor is the end; so is `more` (a flag) that is false or `end` that is true. `lasts`: a cursor
    serves a later day too, so that a walk may go on where it stopped. Scrolls are cursors."""

    path: Path | None = None
    header: str | None = None
    last: Path | None = None
    param: str | None = "cursor"
    more: Path | None = None
    end: Path | None = None
    size_param: str | None = None
    size: Count = 100
    lasts: bool = False


class NextUrl(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="next_url"):
    """The answer holds the address of the next page at `path`, on the same host; it is used as it stands there."""

    path: Path
    size_param: str | None = None
    size: Count = 100


class LinkHeader(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="link"):
    """The header `Link` names the next page, `rel="next"`, on the same host (RFC 8288). `numbered`: by its number; then
    rows move under the pages, and a walk of several is repeated until two agree."""

    size_param: str | None = None
    size: Count = 100
    numbered: bool = False


class Keyset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="keyset"):
    """Walk in order of a unique, growing key: rows may come, go or move behind us, and none ahead of us is missed.

    `clause` is a filter clause with `{after}`, the last key read, or `param` takes it; `order` are the query parameters
    that sort by `key`. The last page is shorter than `size`, or empty (`until`).
    """

    key: Path
    clause: Template | None = None
    param: str | None = None
    order: dict[str, str] = {}
    start: str | None = "0"
    size_param: str | None = None
    size: Count = 1000
    until: Literal["short_page", "empty_page"] = "short_page"


class TimeKeyset(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="time_keyset"):
    """Walk in order of (time, id), where the vendor sorts by both: a record that changes meanwhile moves ahead of us.

    `clause` has `{after_time}` (as the vendor wrote it, or in `format`) and `{after}`, the id that goes with it, and
    holds for what comes after the pair; it is left out on the first page.
    """

    time: Path
    id: Path
    clause: Template
    order: dict[str, str] = {}
    format: "TimeFormat | None" = None
    size_param: str | None = None
    size: Count = 1000


class TimeWindow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="time_window"):
    """Search by windows of time, for APIs that cut off an answer at `cap` records: a window that reaches it is halved.

    The increment's templates have `{since}` and `{until}` for every window, full reads included, which begin at `start`
    (a date). `inner` are the pages in a window. Units: `longest_s`, `shortest_s` seconds; more than `cap` records in
    the shortest is an error.
    """

    cap: Count
    start: str = "2000-01-01"
    longest_s: Positive = 366 * 86_400.0
    shortest_s: Positive = 1.0
    inner: "InnerPagination" = OnePage()


InnerPagination = OnePage | PageNumber | Offset | Cursor | NextUrl | LinkHeader
Pagination = OnePage | PageNumber | Offset | Cursor | NextUrl | LinkHeader | Keyset | TimeKeyset | TimeWindow


class Customers(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a partner's one credential lists its customers. Each becomes an instance of the service
    (`microsoft_365:contoso`), with its own lease, marks, status and, as `{account_id}`, its id.

    `path` is below `base_url` or absolute.
    """

    path: Template
    id: Path
    title: Path
    records: str = ""
    params: dict[str, Template] = {}
    pagination: Pagination = OnePage()


# -- what changed ---------------------------------------------------------------------------------------------------
TimeFormat = Annotated[
    str,
    msgspec.Meta(
        pattern=r"^(rfc3339_s|rfc3339_ms|rfc3339_us|epoch_s|epoch_ms|date|http|.*%.*)$",
        description="A named format, or strftime's: `%Y-%m-%d %H:%M:%S`. Cut to its precision, never rounded up.",
    ),
]


class NoIncremental(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="none"):
    """Every read is a full one; what is unchanged is told by its digest and not published."""


class SinceTime(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="time"):
    """Ask for what changed since a time. `{since}` in the clause, a parameter or a header is the mark.

    `newest_first`: the vendor cannot filter but sorts by change, newest first: the walk ends at a page older than the
    mark. `time_zone` (an IANA name, template) is the zone of a `format` that shows none.
    Units:  `overlap_s` is read again behind the fresh mark at each live poll; after `lag_s` what the vendor shows no
            longer changes its order, so that the settled pass may move the cursor (DESIGN 4).
    """

    clause: Template | None = None
    params: dict[str, Template] = {}
    headers: dict[str, Template] = {}
    newest_first: bool = False
    format: TimeFormat = "rfc3339_s"
    time_zone: Template = "UTC"
    overlap_s: NotNegative = 5.0
    lag_s: NotNegative = 300.0


class DeltaToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="delta"):
    """The last page of a read gives a token at `path` with which the next read begins: as `{token}` or the parameter
    `param`, or it is itself an address on the same host (`as_url`). `first` are parameters of a read without one, but
    not of pages that a cursor asks for, and `first_path` its path, where that differs. A token the vendor no longer
    takes (410, or an error rule `read_again`) means that all is read again."""

    path: Path
    param: str | None = None
    as_url: bool = False
    first: dict[str, Template] = {}
    first_path: Template | None = None


class SinceId(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="id"):
    """Records are only added, with growing ids: ask for what comes after the highest id that was seen `lag_s` ago, so
    that one that becomes visible late is not passed over. By the keyset pagination's clause or parameter."""

    lag_s: NotNegative = 300.0


Incremental = NoIncremental | SinceTime | DeltaToken | SinceId


# -- what was deleted -----------------------------------------------------------------------------------------------
class NoDeletes(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="none"):
    """The vendor never deletes here, or nothing tells but what `deleted_when` and tombstones do."""


class Sweep(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="sweep"):
    """Read all ids now and then; what we published and cannot find, confirmed by reading it, was deleted.

    `params` make the sweep cheap (only ids); `path`, `records` and `pagination` where ids are listed elsewhere.
    `confirm` is the path of one record, `{record_id}` filled in; 404 or 410 confirms; None where the API cannot read
    one record: then a second sweep confirms.
    """

    interval_s: Positive = 86_400.0
    params: dict[str, str] = {}
    confirm: Template | None = None
    path: Template | None = None
    records: str | None = None
    pagination: Pagination | None = None


Deletes = NoDeletes | Sweep


class Condition(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The text at `path` is one of `equals`; without `equals`: something other than null stands there."""

    path: Path
    equals: list[str] = []


class Tombstone(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record of this endpoint says that one of another is gone: a list of the deleted, an audit entry, a merge.

    `record_id` is the path of its id, `at` that of when (absent: when we read it), `when` which records say so.
    """

    endpoint: Name
    record_id: Path
    at: Path | None = None
    when: Condition | None = None
