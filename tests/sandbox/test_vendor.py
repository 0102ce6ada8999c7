"""The server over real HTTP: who may ask, what may be asked, what comes back, what is remembered of it."""

import asyncio
import re

import aiohttp
import msgspec
import pytest

from services.sandbox.faults import Faults
from services.sandbox.recipes import RECIPES
from services.sandbox.served import Served
from services.sandbox.sites import Budget, Keys
from tests.sandbox.visitor import ACME, HEADERS, NOON, Clock, Visitor, small_world, visiting

OTHER = Keys("globex", "public2", "private2", "client2")


def next_link(link: str) -> str | None:
    found = re.search(r'<([^>]*)>; rel="next"', link)
    return found.group(1) if found else None


async def walk(visitor: Visitor, path: str, **parameters: str | int) -> list[int]:
    """Every id of a list, following the `Link` header."""
    answer = await visitor.get(path, **parameters)
    ids = answer.ids
    while (url := next_link(answer.headers.get("Link", ""))) is not None:
        answer = await visitor.ask("GET", url)
        ids += answer.ids
    return ids


async def test_every_endpoint_answers_list_count_and_single_record() -> None:
    world = small_world(Clock())
    async with visiting(world) as visitor:
        for recipe in RECIPES:
            some = next(iter(world.sites["acme"].tables[recipe.path].entries.values()))
            path = recipe.path.replace("{id}", str(some.owner_id))
            listed = await visitor.get(path)
            counted = await visitor.get(f"{path}/count")
            single = await visitor.get(f"{path}/{listed.ids[0]}")
            assert (listed.status, counted.status, single.status) == (200, 200, 200), path
            assert single.json() == listed.json()[0]
            assert counted.json()["count"] >= len(listed.ids)


async def test_the_basic_header_selects_the_site() -> None:
    world = small_world(Clock())
    world.add_site("globex", OTHER)
    async with visiting(world, OTHER) as visitor:
        answer = await visitor.get("service/tickets", {"clientId": "client2"})
    assert answer.json() == []


@pytest.mark.parametrize(
    ("keys", "headers"),
    [
        (Keys("acme", "public", "wrong", ""), HEADERS),
        (Keys("nobody", "public", "private", ""), HEADERS),
        (ACME, {}),
        (ACME, {"clientId": "another"}),
    ],
)
async def test_wrong_keys_are_unauthorized_in_the_vendor_s_words(keys: Keys, headers: dict[str, str]) -> None:
    async with visiting(small_world(Clock()), keys) as visitor:
        answer = await visitor.get("service/tickets", headers)
    assert answer.status == 401
    assert answer.json().keys() == {"code", "message", "errors"}
    assert answer.json()["errors"] is None


async def test_a_request_without_any_keys_is_unauthorized() -> None:
    async with visiting(small_world(Clock())) as visitor, aiohttp.ClientSession() as stranger:
        async with stranger.get(f"{visitor.running.url}/v4_6_release/apis/3.0/service/tickets") as response:
            assert response.status == 401
        garbled = {"Authorization": "Basic ?", "clientId": ACME.client_id}
        async with stranger.get(f"{visitor.running.url}/v4_6_release/apis/3.0/x", headers=garbled) as response:
            assert response.status == 401


async def test_a_forbidden_endpoint_is_403_and_the_others_go_on() -> None:
    world = small_world(Clock())
    world.sites["acme"].forbidden = frozenset({"finance/invoices"})
    async with visiting(world) as visitor:
        assert (await visitor.get("finance/invoices")).status == 403
        assert (await visitor.get("finance/invoices/1")).status == 403
        assert (await visitor.get("finance/agreements")).status == 200


@pytest.mark.parametrize(
    "path", ["service/tickets/9999", "service/cars", "service", "service/boards/99/statuses", "service/tickets/1/tasks"]
)
async def test_what_is_not_there_is_404(path: str) -> None:
    async with visiting(small_world(Clock())) as visitor:
        answer = await visitor.get(path)
    assert answer.status == 404
    assert answer.json()["code"] == "NotFound"


async def test_another_method_is_not_allowed() -> None:
    async with visiting(small_world(Clock())) as visitor:
        assert (await visitor.ask("POST", "/v4_6_release/apis/3.0/service/tickets")).status == 405


@pytest.mark.parametrize(
    "parameters",
    [
        {"conditions": "lastUpdated >"},
        {"pageSize": 1001},
        {"pageSize": 0},
        {"page": "two"},
        {"page": 0},
        {"orderBy": "summary upwards"},
        {"orderBy": "nothing"},
        {"childConditions": "id = 1"},
    ],
)
async def test_what_cannot_be_understood_is_400_with_a_message(parameters: dict[str, str | int]) -> None:
    async with visiting(small_world(Clock())) as visitor:
        answer = await visitor.get("service/tickets", **parameters)
    assert answer.status == 400
    assert answer.json()["message"]


async def test_every_answer_carries_the_vendor_s_clock() -> None:
    async with visiting(small_world(Clock())) as visitor:
        for path in ("service/tickets", "service/cars"):
            answer = await visitor.get(path)
            assert answer.headers["Date"] == "Tue, 06 Jan 2026 12:00:00 GMT"


async def test_a_page_has_25_records_unless_asked_otherwise() -> None:
    async with visiting(small_world(Clock())) as visitor:
        assert len((await visitor.get("service/tickets")).ids) == 25
        assert len((await visitor.get("service/tickets", pageSize=1000)).ids) == 40


async def test_next_links_lead_through_the_whole_list_and_end() -> None:
    world = small_world(Clock())
    async with visiting(world) as visitor:
        ids = await walk(visitor, "service/tickets", pageSize=7, conditions='summary like "%" and id > 0')
        last = await visitor.get("service/tickets", pageSize=7, page=6)
        beyond = await visitor.get("service/tickets", pageSize=7, page=7)
    assert ids == list(world.current("acme", "service/tickets"))
    assert 'rel="next"' not in last.headers["Link"]
    assert 'rel="last"' in last.headers["Link"]
    assert beyond.json() == []


async def test_forward_only_paging_goes_by_id_until_an_empty_page() -> None:
    world = small_world(Clock())
    forward = HEADERS | {"pagination-type": "forward-only"}
    ids: list[int] = []
    async with visiting(world) as visitor:
        answer = await visitor.get("service/tickets", forward, pageSize=9, page=5)
        while answer.json():
            ids += answer.ids
            url = next_link(answer.headers["Link"])
            assert url is not None
            assert f"pageId={ids[-1]}" in url
            answer = await visitor.ask("GET", url, forward)
        refused = await visitor.get("service/tickets", forward, orderBy="lastUpdated asc")
    assert ids == list(world.current("acme", "service/tickets"))
    assert refused.status == 400


async def test_a_list_is_ordered_as_asked() -> None:
    async with visiting(small_world(Clock())) as visitor:
        falling = await visitor.get("service/tickets", orderBy="id desc", pageSize=50)
        by_time = await visitor.get("service/tickets", orderBy="lastUpdated asc, id asc", pageSize=50)
        by_name = await visitor.get("service/tickets", orderBy="company/name desc", pageSize=50)
    assert falling.ids == sorted(falling.ids, reverse=True)
    stamps = [record["_info"]["lastUpdated"] for record in by_time.json()]
    assert stamps == sorted(stamps)
    names = [record["company"]["name"].casefold() for record in by_name.json()]
    assert names == sorted(names, reverse=True)


async def test_an_index_never_finds_anything_else_than_a_full_scan() -> None:
    world = small_world(Clock(), **{"time/entries": 300})
    world.stamp_together("acme", "time/entries", 50)
    conditions = ["lastUpdated >= [2026-01-06T12:00:00Z] and id > 20", "lastUpdated < [2025-06-01T00:00:00Z]"]
    async with visiting(world) as visitor:
        for text in conditions:
            indexed = await visitor.get("time/entries", pageSize=1000, conditions=text)
            scanned = await visitor.get("time/entries", pageSize=1000, conditions=f"({text}) or id = -1")
            counted = await visitor.get("time/entries/count", conditions=text)
            assert indexed.ids == scanned.ids
            assert indexed.ids
            assert counted.json() == {"count": len(indexed.ids)}


async def test_a_record_below_a_board_is_seen_only_there() -> None:
    world = small_world(Clock(), **{"service/boards/{id}/statuses": 9})
    async with visiting(world) as visitor:
        first = await visitor.get("service/boards/1/statuses")
        second = await visitor.get("service/boards/2/statuses")
        assert (await visitor.get(f"service/boards/2/statuses/{first.ids[0]}")).status == 404
        recent = await visitor.get("service/boards/1/statuses", conditions="lastUpdated > [2020-01-01T00:00:00Z]")
    assert {record["board"]["id"] for record in first.json()} == {1}
    assert recent.ids == first.ids
    assert not set(first.ids) & set(second.ids)


async def test_a_projection_keeps_the_nesting() -> None:
    async with visiting(small_world(Clock())) as visitor:
        answer = await visitor.get("service/tickets", fields="id,company/name,_info/lastUpdated,nothing", pageSize=1)
    (record,) = answer.json()
    assert record.keys() == {"id", "company", "_info"}
    assert record["company"].keys() == {"name"}


async def test_an_answer_is_the_stored_bytes_untouched() -> None:
    world = small_world(Clock())
    world.serve_instead("acme", "service/tickets", 1, b'{"id":1,"summary":"\\ud83d","amount":1.500e3}')
    async with visiting(world) as visitor:
        answer = await visitor.get("service/tickets", pageSize=1000)
        single = await visitor.get("service/tickets/1")
    assert answer.body == b"[" + b",".join(world.current("acme", "service/tickets").values()) + b"]"
    assert single.body == world.state("acme", "service/tickets", 1, 2)


async def test_beyond_the_budget_it_says_how_long_to_wait() -> None:
    clock = Clock()
    world = small_world(clock)
    world.sites["acme"].budget = Budget(requests=2, window_s=60)
    async with visiting(world) as visitor:
        assert (await visitor.get("service/tickets")).status == 200
        clock.advance(20.5)
        assert (await visitor.get("service/tickets")).status == 200
        refused = await visitor.get("service/tickets")
        assert (refused.status, refused.headers["Retry-After"]) == (429, "40")
        clock.advance(40)
        assert (await visitor.get("service/tickets")).status == 200


async def test_the_log_knows_which_version_was_served_when() -> None:
    clock = Clock()
    world = small_world(clock)
    async with visiting(world) as visitor:
        await visitor.get("service/tickets/1")
        clock.advance(1)
        world.update("acme", "service/tickets", 1, {"summary": "changed"})
        served = await visitor.get("service/tickets", conditions="id = 1")
        await visitor.get("service/tickets", fields="id", conditions="id = 1")
        await visitor.get("service/tickets/1", fields="summary")
        await visitor.get("service/tickets/9999")
        await visitor.get("service/tickets/count")
    later = clock()
    assert list(world.served("acme")) == [
        Served("service/tickets", 1, 1, NOON, "full"),
        Served("service/tickets", 1, 2, later, "full"),
        Served("service/tickets", 1, 2, later, "ids"),
        Served("service/tickets", 1, 2, later, "part"),
        Served("service/tickets", 9999, 0, later, "missing"),
    ]
    assert served.body == b"[" + world.state("acme", "service/tickets", 1, 2) + b"]"


@pytest.mark.parametrize(
    ("faults", "statuses"),
    [(Faults(error=1), {500, 502}), (Faults(throttled=1, retry_after_s=7), {429}), (Faults(throttled_bare=1), {429})],
)
async def test_a_spoiled_answer_is_not_counted_as_served(faults: Faults, statuses: set[int]) -> None:
    world = small_world(Clock())
    async with visiting(world, faults=faults) as visitor:
        answers = [await visitor.get("service/tickets") for _ in range(20)]
    assert {answer.status for answer in answers} == statuses
    assert {answer.headers.get("Retry-After") for answer in answers} == {"7" if faults.throttled else None}
    assert list(world.served("acme")) == []


async def test_a_truncated_answer_is_whole_as_http_and_broken_as_json() -> None:
    world = small_world(Clock())
    async with visiting(world, faults=Faults(truncated=1)) as visitor:
        answer = await visitor.get("service/tickets")
    assert answer.status == 200
    with pytest.raises(msgspec.DecodeError):
        answer.json()
    assert list(world.served("acme")) == []


async def test_a_cut_connection_is_noticed_and_the_server_goes_on() -> None:
    world = small_world(Clock())
    async with visiting(world, faults=Faults(cut=1)) as visitor:
        with pytest.raises(aiohttp.ClientPayloadError):
            await visitor.get("service/tickets", pageSize=1000)
        visitor.running.faults = Faults()
        assert (await visitor.get("service/tickets")).status == 200
    assert len(list(world.served("acme"))) == 25


async def test_a_slow_answer_shows_what_was_true_when_it_was_asked_for() -> None:
    world = small_world(Clock())
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        world.update("acme", "service/tickets", 1, {"summary": "meanwhile"})

    async with visiting(world, faults=Faults(slow=1, slow_s=3), sleep=sleep) as visitor:
        answer = await visitor.get("service/tickets/1")
    assert waits == [3]
    assert answer.body == world.state("acme", "service/tickets", 1, 1)
    assert next(world.served("acme")).version == 1


async def test_a_closed_server_refuses_connections_and_may_be_closed_again() -> None:
    async with visiting(small_world(Clock())) as visitor:
        await visitor.running.close()
        with pytest.raises(aiohttp.ClientConnectionError):
            await visitor.get("service/tickets")
        await visitor.running.close()


async def test_many_clients_at_once_all_get_their_page() -> None:
    world = small_world(Clock())
    async with visiting(world) as visitor:
        answers = await asyncio.gather(*(visitor.get("service/tickets", page=n % 2 + 1) for n in range(40)))
    assert {answer.status for answer in answers} == {200}
    assert world.sites["acme"].log.rows_count == 20 * 25 + 20 * 15
