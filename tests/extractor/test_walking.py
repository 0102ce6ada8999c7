"""Walking a whole list of every kind, while it changes."""

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from itertools import islice, pairwise
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from services.contracts.access import Limits
from services.contracts.errors import RejectedError, RetryableError
from services.contracts.integration import Integration
from services.contracts.names import Names
from services.contracts.times import UtcTime, moment, shifted
from services.extractor.access import Fixed
from services.extractor.answers import Answer
from services.extractor.auth import Site
from services.extractor.fetch import Caller, Calls
from services.extractor.pagination import Place
from services.extractor.plan import Spec, spec_of
from services.extractor.records import RecordPage, read_ids, read_page
from services.extractor.requests import Request
from services.extractor.summary import EndpointSummary
from services.extractor.walking import DESCRIBED_S, FieldNames, Step, walk
from services.runtime.runtime import Runtime
from tests.fakes import FakeClock, MemoryRows, MemoryStreams
from tests.runtimes import fake_runtime

START: UtcTime = "2026-01-31T12:00:00.000000Z"
LONG_AGO: UtcTime = "2025-06-01T00:00:00.000000Z"
HOST = "https://desk.example"
SIZE = 4
CALLS_MAX = 2_000  # of one test: whoever asks for more walks for ever


class Row(NamedTuple):
    id: int
    version: int
    updated: UtcTime


class Asked(NamedTuple):
    """A request as a vendor reads it."""

    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


Handler = Callable[["Vendor", Asked], Any]


class Vendor:
    """A list in memory. `answer` says what a request is told: a JSON value, or an `Answer`. After each answer `between`
    may change the rows."""

    def __init__(self, answer: Handler, rows: int = 0, *, seed: int = 0) -> None:
        self.clock = FakeClock(START)
        self.chance = random.Random(seed)
        self.answer = answer
        self.between: Callable[[], None] = lambda: None
        self.asked: list[Asked] = []
        self.order: Callable[[Row], Any] = lambda row: row.id
        self.rows: dict[int, Row] = {}
        self.scroll: Iterator[Row] = iter(())
        for number in range(1, rows + 1):
            self.put(number, shifted(LONG_AGO, seconds=self.chance.randrange(20_000_000)))
        self.next_id = rows + 1

    def put(self, number: int, updated: UtcTime | None = None) -> None:
        version = self.rows[number].version + 1 if number in self.rows else 1
        self.rows[number] = Row(number, version, (updated or self.clock.now())[:19] + ".000000Z")

    def change(self) -> None:
        """Insert, delete or update one row."""
        self.clock.advance(self.chance.randrange(1, 4))
        known = list(self.rows)
        match self.chance.randrange(3) if known else 0:
            case 0:
                self.put(self.next_id)
                self.next_id += 1
            case 1:
                del self.rows[self.chance.choice(known)]
            case _:
                self.put(self.chance.choice(known))

    @property
    def listed(self) -> list[Row]:
        return sorted(self.rows.values(), key=self.order)


class World:
    """What a walk needs of whoever walks: a `Reader`, and its caller."""

    def __init__(self, vendor: Vendor, **endpoint: Any) -> None:
        self.vendor = vendor
        self.spec: Spec = spec_for(**endpoint)
        self.runtime: Runtime = fake_runtime(Names("test"), vendor.clock, MemoryStreams(vendor.clock), MemoryRows({}))
        self.calls, self.summary, self.names = Calls(), EndpointSummary("acme", "desk", "tickets"), FieldNames()
        site = Site(f"{HOST}/api", {"zone": "UTC"}, {})
        limits = Limits(requests=1_000_000, share=1.0)
        self.caller = Caller(self.runtime, self, Fixed(site), limits, ("acme", "desk"))

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        """As `Transport`."""
        assert len(self.vendor.asked) < CALLS_MAX, "walks for ever"
        url = urlsplit(request.address)
        body = msgspec.json.decode(request.body) if request.content_type == "application/json" else request.body
        sent = {**headers, **dict(request.headers)}
        asked = Asked(url.path.removeprefix("/api/"), dict(parse_qsl(url.query)), sent, body)
        self.vendor.asked.append(asked)
        told = self.vendor.answer(self.vendor, asked)
        self.vendor.between()
        return told if isinstance(told, Answer) else Answer(200, msgspec.json.encode(told))

    def read(self, **more: Any) -> list[Step[RecordPage]]:
        async def all_of_it() -> list[Step[RecordPage]]:
            return [step async for step in walk(self, read_page, **more)]

        return asyncio.run(all_of_it())


def spec_for(**endpoint: Any) -> Spec:
    plain = {
        "service": "desk",
        "title": "Desk",
        "base_url": f"{HOST}/api",
        "auth": {"type": "none"},
        "filter": {"param": "where"},
        "time_zone": "{zone}",
        "credentials": {"zone": {"title": "Zone"}},
        "endpoints": {"tickets": {"path": "tickets", "record_id": "id", "records": "items", **endpoint}},
    }
    return spec_of(msgspec.convert(plain, Integration), "tickets")


def shown(rows: list[Row]) -> list[dict[str, Any]]:
    return [{"id": row.id, "version": row.version, "updated": row.updated} for row in rows]


def found(steps: list[Step[RecordPage]]) -> set[tuple[int, int]]:
    """(id, version) of what was read."""
    payloads = [msgspec.json.decode(record.payload) for step in steps for record in step.got.value.records]
    return {(payload["id"], payload["version"]) for payload in payloads}


# -- vendors of every kind --------------------------------------------------------------------------------------------
def numbered(vendor: Vendor, asked: Asked) -> Any:
    start = (int(asked.query["page"]) - 1) * SIZE
    return {"items": shown(vendor.listed[start : start + SIZE])}


def numbered_with_total(vendor: Vendor, asked: Asked) -> Any:
    return {**numbered(vendor, asked), "total": len(vendor.rows)}


def numbered_with_more(vendor: Vendor, asked: Asked) -> Any:
    return {**numbered(vendor, asked), "more": int(asked.query["page"]) * SIZE < len(vendor.rows)}


def numbered_with_pages(vendor: Vendor, asked: Asked) -> Any:
    return {**numbered(vendor, asked), "pages": -(-len(vendor.rows) // SIZE)}


def skipping(vendor: Vendor, asked: Asked) -> Any:
    start = int(asked.query["offset"])
    page = vendor.listed[start : start + int(asked.query["limit"])]
    return {"items": shown(page), "total": len(vendor.rows), "more": start + len(page) < len(vendor.rows)}


def after(vendor: Vendor, key: str) -> list[Row]:
    return sorted(row for row in vendor.rows.values() if row.id > int(key))[:SIZE]


def keyed(vendor: Vendor, asked: Asked) -> Any:
    return {"items": shown(after(vendor, asked.query["where"].removeprefix("id > ")))}


def keyed_by_param(vendor: Vendor, asked: Asked) -> Any:
    return {"items": shown(after(vendor, asked.query.get("since_id", "0")))}


def keyed_by_time(vendor: Vendor, asked: Asked) -> Any:
    rows = sorted(vendor.rows.values(), key=lambda row: (row.updated, row.id))
    if "where" in asked.query:
        time, _, key = asked.query["where"].partition(" ")
        rows = [row for row in rows if (row.updated, row.id) > (time, int(key))]
    return {"items": shown(rows[:SIZE])}


def with_cursor(vendor: Vendor, asked: Asked) -> Any:
    page = after(vendor, asked.query.get("cursor", "c0")[1:])
    ahead = any(row > page[-1] for row in vendor.rows.values()) if page else False
    return {"items": shown(page), "meta": {"next": f"c{page[-1].id}" if ahead else None}}


def with_cursor_in_header(vendor: Vendor, asked: Asked) -> Answer:
    told = with_cursor(vendor, asked)
    return Answer(200, msgspec.json.encode(told), {"x-next": told["meta"]["next"] or "null"})


def with_last_and_more(vendor: Vendor, asked: Asked) -> Any:
    page = after(vendor, asked.query.get("starting_after", "0"))
    return {"items": shown(page), "more": bool(page) and max(vendor.rows) > page[-1].id}


def with_last(vendor: Vendor, asked: Asked) -> Any:
    return {"items": shown(after(vendor, asked.query.get("starting_after", "0")))}


def scrolled(vendor: Vendor, asked: Asked) -> Any:
    """One cursor for the whole scroll, over the rows as they were when it began."""
    if "cursor" not in asked.query:
        vendor.scroll = iter(vendor.listed)
    page = list(islice(vendor.scroll, SIZE))
    return {"items": shown(page), "meta": {"next": "scroll"}}


def with_address(vendor: Vendor, asked: Asked) -> Any:
    told = with_cursor(vendor, asked)
    following = told["meta"]["next"]
    return {"items": told["items"], "next": following and f"/api/tickets?cursor={following}"}


def with_link(vendor: Vendor, asked: Asked) -> Answer:
    told = with_cursor(vendor, asked)
    following = told["meta"]["next"]
    links = '<https://desk.example/api/tickets?page=1>; rel="first"'
    if following:
        links += f', <{HOST}/api/tickets?cursor={following}>; title="a, b"; rel="next last"'
    return Answer(200, msgspec.json.encode(told["items"]), {"link": links})


CAP = 6


def in_windows(vendor: Vendor, asked: Asked) -> Any:
    """Up to CAP records of a window, in no order that helps."""
    since, until = asked.query["since"], asked.query["until"]
    rows = [row for row in vendor.rows.values() if since <= row.updated[:19] + "Z" < until]
    vendor.chance.shuffle(rows)
    return {"items": shown(rows[:CAP])}


def in_windows_of_pages(vendor: Vendor, asked: Asked) -> Any:
    since, until, start = asked.query["since"], asked.query["until"], (int(asked.query["page"]) - 1) * SIZE
    rows = [row for row in vendor.listed if since <= row.updated[:19] + "Z" < until][:CAP]
    return {"items": shown(rows[start : start + SIZE])}


WINDOWED = {
    "incremental": {"type": "time", "params": {"since": "{since}", "until": "{until}"}},
    "updated_at": "updated",
}
OFFSET = {"type": "offset", "size": SIZE}
KINDS: dict[str, tuple[Handler, dict[str, Any]]] = {
    "page, short": (numbered, {"pagination": {"type": "page", "size": SIZE}}),
    "page, until empty": (numbered, {"pagination": {"type": "page", "size": SIZE, "until": "empty_page"}}),
    "page, total": (numbered_with_total, {"pagination": {"type": "page", "size": SIZE, "total": "total"}}),
    "page, more": (numbered_with_more, {"pagination": {"type": "page", "size": SIZE, "more": "more"}}),
    "page, pages": (numbered_with_pages, {"pagination": {"type": "page", "size": SIZE, "pages": "pages"}}),
    "offset": (skipping, {"pagination": OFFSET}),
    "offset, total": (skipping, {"pagination": {**OFFSET, "total": "total"}}),
    "offset, more": (skipping, {"pagination": {**OFFSET, "more": "more", "overlap": 2}}),
    "offset, no overlap": (skipping, {"pagination": {**OFFSET, "overlap": 0}}),
    "keyset": (keyed, {"pagination": {"type": "keyset", "key": "id", "clause": "id > {after}", "size": SIZE}}),
    "keyset, param": (
        keyed_by_param,
        {"pagination": {"type": "keyset", "key": "id", "param": "since_id", "start": None, "size": SIZE}},
    ),
    "time_keyset": (
        keyed_by_time,
        {
            "pagination": {
                "type": "time_keyset",
                "time": "updated",
                "id": "id",
                "clause": "{after_time} {after}",
                "size": SIZE,
            }
        },
    ),
    "cursor": (with_cursor, {"pagination": {"type": "cursor", "path": "meta.next"}}),
    "cursor, header": (with_cursor_in_header, {"pagination": {"type": "cursor", "header": "X-Next"}}),
    "cursor, last and more": (
        with_last_and_more,
        {"pagination": {"type": "cursor", "last": "id", "param": "starting_after", "more": "more"}},
    ),
    "cursor, last": (with_last, {"pagination": {"type": "cursor", "last": "id", "param": "starting_after"}}),
    "scroll": (scrolled, {"pagination": {"type": "cursor", "path": "meta.next"}}),
    "next_url": (with_address, {"pagination": {"type": "next_url", "path": "next"}}),
    "link": (with_link, {"pagination": {"type": "link"}, "records": ""}),
    "time_window": (in_windows, {**WINDOWED, "pagination": {"type": "time_window", "cap": CAP, "start": "2025-05-01"}}),
    "time_window of pages": (
        in_windows_of_pages,
        {
            **WINDOWED,
            "pagination": {
                "type": "time_window",
                "cap": CAP,
                "start": "2025-05-01",
                "inner": {"type": "page", "size": SIZE},
            },
        },
    ),
}
ORDERS: list[Callable[[Row], Any]] = [
    lambda row: row.id,
    lambda row: -row.id,
    lambda row: (row.updated, row.id),
    lambda row: tuple(-part for part in (moment(row.updated).timestamp(), row.id)),
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_row_of_a_list_that_stands_still_is_read(kind: str) -> None:
    answer, endpoint = KINDS[kind]
    for rows in (0, 1, SIZE - 1, SIZE, SIZE + 1, 3 * SIZE, 30):
        vendor = Vendor(answer, rows, seed=rows)
        steps = World(vendor, **endpoint).read()
        assert found(steps) == {(row.id, row.version) for row in vendor.rows.values()}
        assert [step.following is None for step in steps] == [False] * (len(steps) - 1) + [True]


@pytest.mark.parametrize("kind", KINDS)
def test_row_35_no_row_that_stays_as_it_was_is_missed_while_others_move(kind: str) -> None:
    answer, endpoint = KINDS[kind]
    unfinished = 0
    for seed in range(60):
        vendor = Vendor(answer, seed % 41, seed=seed)
        vendor.order = ORDERS[seed % len(ORDERS)]
        changes = iter(range(vendor.chance.randrange(25)))

        def between(vendor: Vendor = vendor, changes: Iterator[int] = changes) -> None:
            for _ in range(vendor.chance.randrange(3)):
                if next(changes, None) is not None:
                    vendor.change()

        vendor.between = between
        before = {(row.id, row.version) for row in vendor.rows.values()}
        try:
            read = found(World(vendor, **endpoint).read())
        except RetryableError:  # rows moved in every walk: an error, never an end
            unfinished += 1
            continue
        stayed = before & {(row.id, row.version) for row in vendor.rows.values()}
        assert stayed <= read, f"seed {seed}"
    assert unfinished <= 12


def test_row_34_5000_records_with_one_stamp_are_all_read_a_thousand_at_a_time() -> None:
    vendor = Vendor(keyed_by_time)
    for number in range(1, 5_001):
        vendor.put(number, LONG_AGO)
    size = 1_000

    def by_time(vendor: Vendor, asked: Asked) -> Any:
        rows = sorted(vendor.rows.values(), key=lambda row: (row.updated, row.id))
        time, _, key = asked.query.get("where", " 0").partition(" ")
        return {"items": shown([row for row in rows if (row.updated, row.id) > (time, int(key))][:size])}

    def by_id(vendor: Vendor, asked: Asked) -> Any:
        key = int(asked.query["where"].removeprefix("id > "))
        return {"items": shown([row for row in vendor.listed if row.id > key][:size])}

    for answer, kind in ((by_time, "time_keyset"), (by_id, "keyset")):
        vendor.answer = answer
        pagination = {**KINDS[kind][1]["pagination"], "size": size}
        steps = World(vendor, pagination=pagination).read()
        assert len(found(steps)) == 5_000
        assert len(steps) == 6


def test_row_34_more_records_in_a_tick_than_the_vendor_ever_shows_are_an_error_and_no_end() -> None:
    vendor = Vendor(in_windows)
    for number in range(1, CAP + 2):
        vendor.put(number, LONG_AGO)
    with pytest.raises(RejectedError) as raised:
        World(vendor, **KINDS["time_window"][1]).read()
    assert raised.value.code == "pages_do_not_advance"


@pytest.mark.parametrize("kind", KINDS)
def test_row_47_a_vendor_that_always_shows_the_same_page_is_noticed(kind: str) -> None:
    answer, endpoint = KINDS[kind]
    first: list[Any] = []

    def same(vendor: Vendor, asked: Asked) -> Any:
        if not first:
            first.append(answer(vendor, asked))
        return first[0]

    vendor = Vendor(answer, 30)
    if "time_window" in kind:
        for number in range(1, CAP + 1):
            vendor.put(number, shifted(LONG_AGO, seconds=-number))
        endpoint = {**endpoint, "pagination": {**endpoint["pagination"], "longest_s": 400 * 86_400}}
        first.append({"items": shown(vendor.listed[:CAP])})
    vendor.answer = same
    world = World(vendor, **endpoint)
    with pytest.raises(RejectedError) as raised:
        world.read()
    assert raised.value.code == "pages_do_not_advance"
    assert raised.value.where.startswith("GET tickets") or "time_window" in kind
    assert len(vendor.asked) <= 60


@pytest.mark.parametrize("kind", ["cursor", "next_url", "link"])
def test_row_47_a_circle_of_cursors_is_noticed_even_when_its_pages_change(kind: str) -> None:
    answer, endpoint = KINDS[kind]
    vendor = Vendor(answer, 30)

    def circle(vendor: Vendor, asked: Asked) -> Any:
        if asked.query.get("cursor") == "c20":
            asked = asked._replace(query={"cursor": "c0"})
        return answer(vendor, asked)

    vendor.answer = circle

    def all_change() -> None:
        for number in list(vendor.rows):
            vendor.put(number)

    vendor.between = all_change
    with pytest.raises(RejectedError):
        World(vendor, **endpoint).read()
    assert len(vendor.asked) < 40


@pytest.mark.parametrize(
    "following",
    ["https://evil.example/api/tickets", "//evil.example/x", "http://desk.example/api", "https://desk.example:444/"],
)
def test_row_47_no_page_leads_us_to_another_host(following: str) -> None:
    in_body = Vendor(lambda *_: {"items": [{"id": 1}], "next": following})
    in_link = Vendor(lambda *_: Answer(200, b"[]", {"link": f'<{following}>; rel="next"'}))
    as_token = Vendor(lambda *_: {"items": []})
    delta = {"incremental": {"type": "delta", "path": "token", "as_url": True}}
    for vendor, endpoint, more in (
        (in_body, KINDS["next_url"][1], {}),
        (in_link, KINDS["link"][1], {}),
        (as_token, delta, {"token": following}),
    ):
        with pytest.raises(RejectedError) as raised:
            World(vendor, **endpoint).read(**more)
        assert raised.value.code == "wrong_host"
        assert len(vendor.asked) <= 1


def test_rows_that_move_in_every_walk_are_an_error_and_no_end() -> None:
    vendor = Vendor(numbered, 12)

    def first_row_goes() -> None:
        del vendor.rows[min(vendor.rows)]
        vendor.put(vendor.next_id)
        vendor.next_id += 1

    vendor.between = first_row_goes
    with pytest.raises(RetryableError):
        World(vendor, **KINDS["page, short"][1]).read()


def test_numbered_pages_are_walked_twice_and_one_page_once() -> None:
    for rows, calls in ((SIZE - 1, 1), (SIZE + 1, 4)):
        vendor = Vendor(numbered, rows)
        World(vendor, **KINDS["page, short"][1]).read()
        assert len(vendor.asked) == calls


def test_new_rows_at_the_front_of_numbered_pages_do_not_make_walks_endless() -> None:
    vendor = Vendor(numbered, 12)
    vendor.order = ORDERS[1]
    vendor.between = lambda: vendor.put(len(vendor.rows) + 1)
    before = {(row.id, row.version) for row in vendor.rows.values()}
    assert before <= found(World(vendor, **KINDS["page, short"][1]).read())


def test_an_offset_walk_steps_back_no_further_than_it_must() -> None:
    vendor = Vendor(skipping, 40)
    gone = iter([20])

    def one_goes() -> None:
        if len(vendor.asked) == 8:
            del vendor.rows[next(gone)]

    vendor.between = one_goes
    before = {(row.id, row.version) for row in vendor.rows.values()}
    assert found(World(vendor, **KINDS["offset"][1]).read()) == before
    assert [asked.query["offset"] for asked in vendor.asked][7:11] == ["21", "24", "21", "24"]


def test_more_rows_than_an_offset_may_skip_are_an_error_and_no_end() -> None:
    pagination = {**OFFSET, "most": 10}
    assert len(found(World(Vendor(skipping, 9), pagination=pagination).read())) == 9
    with pytest.raises(RejectedError):
        World(Vendor(skipping, 10), pagination=pagination).read()
    assert {asked.query["limit"] for asked in World(Vendor(skipping, 9), pagination=pagination).vendor.asked} <= {"4"}


def test_a_list_sorted_newest_first_is_read_down_to_the_mark() -> None:
    vendor = Vendor(numbered, 40)
    vendor.order = ORDERS[3]
    newest = sorted(vendor.rows.values(), key=lambda row: row.updated)[-6:]
    endpoint = {
        **KINDS["page, short"][1],
        "updated_at": "updated",
        "incremental": {"type": "time", "newest_first": True},
    }
    assert {(row.id, row.version) for row in newest} <= found(World(vendor, **endpoint).read(since=newest[0].updated))
    assert len(vendor.asked) == 6  # two pages with what is newer, one without, all twice


@pytest.mark.parametrize("kind", ["keyset", "time_keyset", "time_window", "cursor"])
def test_a_walk_goes_on_where_it_stopped(kind: str) -> None:
    answer, endpoint = KINDS[kind]
    if kind == "cursor":
        endpoint = {"pagination": {**endpoint["pagination"], "lasts": True}}
    vendor = Vendor(answer, 30)
    world, read = World(vendor, **endpoint), set[tuple[int, int]]()
    place: Place | None = Place()
    stops = 0
    while place is not None:
        assert msgspec.json.decode(msgspec.json.encode(place), type=Place) == place

        async def some(place: Place | None = place) -> Step[RecordPage]:
            steps = walk(world, read_page, place=place)
            step = [await anext(steps) for _ in range(1)][-1]
            await steps.aclose()
            return step

        step = asyncio.run(some())
        stops += 1
        read |= found([step])
        stuck = step.following == place
        place = step.following
        if stuck:  # a window is walked whole, or halved
            steps = world.read(place=place)
            read |= found(steps)
            place = None
    assert read == {(row.id, row.version) for row in vendor.rows.values()}
    assert stops > 2


@pytest.mark.parametrize("kind", ["page, short", "offset", "next_url", "cursor"])
def test_a_place_that_does_not_last_is_not_gone_on_from(kind: str) -> None:
    answer, endpoint = KINDS[kind]
    vendor = Vendor(answer, 9)
    steps = World(vendor, **endpoint).read(place=Place(pages=1, cursor="c8", offset=8))
    assert found(steps) == {(row.id, row.version) for row in vendor.rows.values()}
    assert all(step.following is None or step.following == Place(pages=step.following.pages) for step in steps)


def test_windows_of_time_follow_one_another_up_to_now() -> None:
    vendor = Vendor(in_windows)
    endpoint = {
        **KINDS["time_window"][1],
        "pagination": {"type": "time_window", "cap": 5, "start": "2026-01-01", "longest_s": 864_000},
    }
    World(vendor, **endpoint).read()
    bounds = [(asked.query["since"], asked.query["until"]) for asked in vendor.asked]
    assert bounds[0] == ("2025-12-31T23:59:59Z", "2026-01-02T00:00:00Z")
    assert bounds[-1][1] == START[:19] + "Z"
    for (_, until), (since, _) in pairwise(bounds):
        assert shifted(f"{until[:19]}.000000Z", seconds=-1)[:19] == since[:19]


def test_a_sweep_sees_what_moves_ahead_of_it_and_what_a_clock_ahead_of_ours_stamps() -> None:
    vendor = Vendor(in_windows)
    vendor.put(1, shifted(START, seconds=600))  # their clock
    vendor.put(2, shifted(START, seconds=-600))

    def change() -> None:
        vendor.clock.advance(1)
        vendor.put(2)

    vendor.between = change
    world = World(vendor, **KINDS["time_window"][1])

    async def swept() -> set[str]:
        steps = walk(world, read_ids, sweep=True)
        return {record_id async for step in steps for record_id in step.got.value.ids}

    assert asyncio.run(swept()) == {"1", "2"}


def test_the_last_page_of_a_delta_read_holds_the_next_token() -> None:
    def delta(_: Vendor, asked: Asked) -> Any:
        if "cursor" in asked.query:
            return {"items": [{"id": 2}], "delta": f"{HOST}/api/tickets?token=t2"}
        return {"items": [{"id": 1}], "next": f"{HOST}/api/tickets?cursor=c"}

    endpoint = {
        "path": "tickets/delta",
        "pagination": {"type": "next_url", "path": "next"},
        "incremental": {"type": "delta", "path": "delta", "as_url": True, "first": {"full": "1"}},
    }
    vendor = Vendor(delta)
    world = World(vendor, **endpoint)
    steps = world.read()
    assert [step.got.value.turn.token for step in steps] == [None, f"{HOST}/api/tickets?token=t2"]
    world.read(token=steps[-1].got.value.turn.token)
    assert [asked.query for asked in vendor.asked] == [{"full": "1"}, {"cursor": "c"}, {"token": "t2"}, {"cursor": "c"}]


def test_what_the_first_page_of_a_delta_read_asks_for_its_cursor_knows() -> None:
    def delta(_: Vendor, asked: Asked) -> Any:
        return {
            "items": [{"id": 1 + len(asked.query.get("cursor", ""))}],
            "cursor": "c",
            "end": "cursor" in asked.query,
        }

    endpoint = {
        "pagination": {"type": "cursor", "path": "cursor", "end": "end"},
        "incremental": {"type": "delta", "path": "cursor", "param": "cursor", "first": {"start": "0"}},
    }
    vendor = Vendor(delta)
    World(vendor, **endpoint).read()
    assert [asked.query for asked in vendor.asked] == [{"start": "0"}, {"cursor": "c"}]


def test_a_delta_read_that_found_nothing_needs_no_token() -> None:
    incremental = {"type": "delta", "path": "cursor", "param": "cursor"}
    world = World(Vendor(lambda *_: {"items": [], "cursor": None}), incremental=incremental)
    assert [step.got.value.turn.token for step in world.read()] == [None]
    with pytest.raises(RetryableError):
        world.read(token="t1")


# -- fields asked for in several requests -----------------------------------------------------------------------------
FIELDS = {
    "params": {"fields": "{fields}"},
    "updated_at": "updated",
    "fields": {
        "names": ["id", "updated"],
        "describe": "tickets/describe",
        "records": "fields",
        "test": "type",
        "equals": ["text", "number"],
        "at_once": 4,
    },
}


def in_parts(vendor: Vendor, asked: Asked) -> Any:
    if asked.path == "tickets/describe":
        texts = [{"name": f"f{number}", "type": "text"} for number in range(5)]
        return {"fields": [*texts, {"name": "blob", "type": "file"}]}
    names = asked.query["fields"].split(",")
    rows = [
        {"id": row.id, "updated": row.updated, **{name: f"{name}@{row.version}" for name in names if name[0] == "f"}}
        for row in vendor.listed
    ]
    return {"items": [{name: row[name] for name in names} for row in rows]}


def test_a_long_list_of_fields_is_asked_for_in_parts_and_joined() -> None:
    vendor = Vendor(in_parts, 3)
    world = World(vendor, **FIELDS)
    (step,) = world.read()
    assert [asked.query.get("fields") for asked in vendor.asked] == [
        None,
        "id,updated,f0,f1",
        "id,updated,f2,f3",
        "id,updated,f4",
    ]
    record = msgspec.json.decode(step.got.value.records[0].payload)
    assert record == {"id": 1, "updated": record["updated"], **{f"f{number}": f"f{number}@1" for number in range(5)}}
    world.read()
    assert [asked.path for asked in vendor.asked].count("tickets/describe") == 1


def test_where_no_field_is_described_nothing_is_asked_for_instead() -> None:
    endpoint = {"params": {"fields": "{fields}"}, "fields": {"describe": "tickets/describe", "records": "fields"}}
    vendor = Vendor(lambda _, asked: {"fields": []} if asked.path == "tickets/describe" else {"items": [{"id": 1}]})
    with pytest.raises(RetryableError, match="no field"):
        World(vendor, **endpoint).read()


def test_fields_are_described_anew_after_a_while_and_after_a_refusal() -> None:
    refused: list[bool] = []

    def answer(vendor: Vendor, asked: Asked) -> Any:
        if asked.path != "tickets/describe" and refused:
            return Answer(400, b'{"message":"no such field: f4"}')
        return in_parts(vendor, asked)

    vendor = Vendor(answer, 3)
    world = World(vendor, **FIELDS)

    def described() -> int:
        return [asked.path for asked in vendor.asked].count("tickets/describe")

    world.read()
    vendor.clock.advance(DESCRIBED_S)
    world.read()
    assert described() == 2
    refused.append(True)
    with pytest.raises(RejectedError, match="no such field"):
        world.read()
    refused.clear()
    world.read()
    assert described() == 3


def test_a_list_that_the_vendor_does_not_describe_is_one_we_may_not_see() -> None:
    vendor = Vendor(lambda _vendor, _asked: Answer(404, b'{"message":"not there"}'), 3)
    world = World(vendor, **FIELDS, permission="Read on tickets")
    with pytest.raises(RejectedError, match="not there") as caught:
        world.read()
    assert caught.value.code == "forbidden"
    assert "Read on tickets" in caught.value.remedy


@pytest.mark.parametrize("change", ["insert", "delete", "update"])
def test_records_that_change_while_they_are_asked_for_in_parts_are_asked_for_again(change: str) -> None:
    vendor = Vendor(in_parts, 3)
    vendor.clock.advance(60)

    def between() -> None:
        if len(vendor.asked) == 2:
            match change:
                case "insert":
                    vendor.put(9)
                case "delete":
                    del vendor.rows[2]
                case _:
                    vendor.put(2)

    vendor.between = between
    (step,) = World(vendor, **FIELDS).read()
    for record in step.got.value.records:
        payload = msgspec.json.decode(record.payload)
        version = vendor.rows[payload["id"]].version
        assert all(payload[f"f{number}"] == f"f{number}@{version}" for number in range(5))
    assert len(step.got.value.records) == len(vendor.rows)


def test_records_that_never_stand_still_are_an_error() -> None:
    vendor = Vendor(in_parts, 3)

    def changes() -> None:
        vendor.clock.advance(1)
        vendor.put(2)

    vendor.between = changes
    with pytest.raises(RetryableError):
        World(vendor, **FIELDS).read()
    assert len(vendor.asked) < 20


# -- exports, long answers, sweeps -------------------------------------------------------------------------------------
def test_an_export_is_created_awaited_and_downloaded() -> None:
    polls = iter(["running", "done"])

    def bulk(_: Vendor, asked: Asked) -> Any:
        if asked.path == "jobs":
            return {"id": 7, "asked": asked.body}
        if asked.path == "jobs/7":
            return {"state": next(polls)}
        lines = b'{"id":1}\n{"id":2}\n' if "locator" not in asked.query else b'{"id":3}\n'
        return Answer(200, lines, {"locator": "null" if "locator" in asked.query else "L2"})

    endpoint = {
        "path": "jobs/{job}/rows",
        "format": "ndjson",
        "export": {
            "create": "jobs",
            "body": {"type": "json", "value": {"query": "select {fields} where {where}", "since": "{since}"}},
            "id": "id",
            "poll": "jobs/{job}",
            "status": "state",
            "done": ["done"],
        },
        "fields": {"names": ["id", "a", "b"], "at_once": 2},
        "incremental": {"type": "time", "clause": "updated > {since}", "params": {"from": "{since}"}},
        "pagination": {"type": "cursor", "header": "Locator", "param": "locator"},
    }
    vendor = Vendor(bulk)
    world = World(vendor, **endpoint)
    steps = world.read(since=START)
    ids = [record.record_id for step in steps for record in step.got.value.records]
    assert ids == ["1", "2", "3"]
    query = "select id,a,b where updated > 2026-01-31T12:00:00Z"
    assert vendor.asked[0].body == {"query": query, "since": "2026-01-31T12:00:00Z"}
    assert [asked.query for asked in vendor.asked[-2:]] == [{}, {"locator": "L2"}]
    assert [asked.path for asked in vendor.asked] == ["jobs", "jobs/7", "jobs/7", "jobs/7/rows", "jobs/7/rows"]
    assert not world.spec.resumable


def test_a_long_answer_is_read_in_pieces_and_is_one_page() -> None:
    line = b'{"id":%d,"text":"' + b"x" * 50_000 + b'"}\n'
    body = b"".join(line % number for number in range(400))
    steps = World(Vendor(lambda *_: Answer(200, body)), format="ndjson").read()
    assert len(steps) > 1
    assert [step.following for step in steps][-1] is None
    assert all(step.following is not None for step in steps[:-1])
    assert sum(len(step.got.value.records) for step in steps) == 400


def test_a_sweep_lists_ids_where_they_are_listed() -> None:
    endpoint = {
        **KINDS["keyset"][1],
        "params": {"expand": "all"},
        "deletes": {"type": "sweep", "path": "ids", "records": "all", "pagination": {"type": "none"}},
    }
    vendor = Vendor(lambda *_: {"all": [{"id": 1}, {"id": 2}]})
    world = World(vendor, **endpoint)

    async def ids() -> list[str]:
        return [
            found for step in [one async for one in walk(world, read_ids, sweep=True)] for found in step.got.value.ids
        ]

    assert asyncio.run(ids()) == ["1", "2"]
    assert vendor.asked == [Asked("ids", {}, vendor.asked[0].headers, b"")]


def test_a_page_that_is_garbled_in_part_is_asked_for_again_and_what_could_be_read_counts() -> None:
    answers = iter([b'[{"id":1},{"id":2,]', b'[{"id":1},{"id":2,}]', b'[{"id":1},{"id":2}]'])
    vendor = Vendor(lambda *_: Answer(200, next(answers)))
    steps = World(vendor, records="").read()
    assert [len(step.got.value.records) for step in steps] == [1, 2]
    assert [step.following for step in steps] == [Place(), None]


def test_where_times_have_no_zone_they_stand_in_the_customer_s() -> None:
    vendor = Vendor(lambda *_: {"items": [{"id": 1, "updated": "2026-01-31 12:00:00"}]})
    world = World(vendor, updated_at="updated")
    world.caller = Caller(
        world.runtime, world, Fixed(Site(f"{HOST}/api", {"zone": "Europe/Paris"}, {})), Limits(), ("acme", "desk")
    )
    (step,) = world.read()
    assert step.got.value.records[0].stamp == "2026-01-31T11:00:00.000000Z"
