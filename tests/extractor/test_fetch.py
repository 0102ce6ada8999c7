"""One request over real HTTP, and what its answer means."""

import asyncio
import gzip
from collections.abc import Awaitable
from itertools import pairwise
from typing import Any

import pytest
from aiohttp import web

from services.contracts.errors import (
    AvesaError,
    NotFoundError,
    RejectedError,
    RetryableError,
    ThrottledError,
    UnauthorizedError,
)
from services.contracts.integration import Limits
from services.contracts.log import Retried, VendorThrottled
from services.extractor import fetch
from services.extractor.auth import Site
from services.extractor.fetch import Answer, Bounds, Caller, Calls, Patience, error_of, read_retry_after, what_it_says
from services.extractor.records import Rules, read_ids
from services.extractor.requests import Request
from tests.extractor.world import START, World, answered, opened

SITE = Site("https://desk.example", {}, {}, hidden=("hunter2-hunter2",))
ASKED = Request("https://desk.example/x", (), "GET x")


def translated(status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> AvesaError | None:
    return error_of(Answer(status, body, headers or {}), ASKED, SITE, START)


def caller(world: World, limits: Limits | None = None, patience: Patience | None = None, **more: Any) -> Caller:
    site = Site(world.vendor.url, {}, {"X-Key": "k"})
    return Caller(world.runtime(), world.wire, site, limits or Limits(), ("acme", "desk"), patience=patience, **more)


def asks(world: World, path: str = "x", query: tuple[tuple[str, str], ...] = ()) -> Request:
    return Request(f"{world.vendor.url}/{path}", query, f"GET {path}")


def text(body: bytes, _: str) -> str:
    return body.decode()


@pytest.mark.parametrize(
    ("status", "kind", "code"),
    [
        (401, UnauthorizedError, "bad_credentials"),
        (403, RejectedError, "forbidden"),
        (404, NotFoundError, "not_found"),
        (410, NotFoundError, "not_found"),
        (400, RejectedError, "vendor_error"),
        (304, RejectedError, "vendor_error"),
        (408, RetryableError, "unavailable"),
        (500, RetryableError, "unavailable"),
        (503, RetryableError, "unavailable"),
        (429, ThrottledError, "throttled"),
    ],
)
def test_a_status_says_what_to_do_next(status: int, kind: type[AvesaError], code: str) -> None:
    error = translated(status)
    assert type(error) is kind
    assert error.code == code
    assert "GET x" in error.what


def test_every_2xx_is_an_answer() -> None:
    assert translated(200) is translated(204) is None


def test_a_503_that_names_a_time_asks_to_slow_down() -> None:
    error = translated(503, headers={"retry-after": "7"})
    assert isinstance(error, ThrottledError)
    assert error.retry_after_s == 7.0


def test_retry_after_is_a_number_or_a_date() -> None:
    assert read_retry_after("12", START) == 12.0
    assert read_retry_after("Sat, 31 Jan 2026 12:00:30 GMT", START) == 30.0
    assert read_retry_after("Sat, 31 Jan 2026 11:00:00 GMT", START) == 0.0
    assert read_retry_after("soon", START) is read_retry_after(None, START) is None


def test_what_the_vendor_says_is_told_without_secrets() -> None:
    error = translated(400, b'{"message": "no key hunter2-hunter2 here"}')
    assert error is not None
    assert "no key *** here" in str(error)
    assert what_it_says(b"<html>") == what_it_says(b"[1]") == what_it_says(b'{"message": 5}') == ""


async def test_an_answer_comes_with_the_time_it_was_asked_for_on_the_vendor_s_clock() -> None:
    async with opened() as world:
        ahead = {"Date": "Sat, 31 Jan 2026 12:01:00 GMT"}
        world.vendor.spoil = lambda _: answered(web.Response(body=b"hello", headers=ahead))
        got = await caller(world).get(asks(world), text)
        assert (got.value, got.observed_at, got.earliest_at) == ("hello", "2026-01-31T12:01:00.000000Z", START)


async def test_queries_and_headers_arrive_as_meant() -> None:
    async with opened() as world:
        seen: list[web.Request] = []

        def spoil(request: web.Request) -> Awaitable[web.StreamResponse]:
            seen.append(request)
            return answered(web.Response(body=b"ok"))

        world.vendor.spoil = spoil
        await caller(world).get(asks(world, "a%20b", (("where", "t >= [2026-01-01T00:00:00Z] and a+b = 'ü%'"),)), text)
        assert seen[0].path == "/a b"
        assert seen[0].query["where"] == "t >= [2026-01-01T00:00:00Z] and a+b = 'ü%'"
        assert (seen[0].headers["X-Key"], seen[0].headers["User-Agent"]) == ("k", "avesa")


async def test_a_compressed_answer_is_opened() -> None:
    async with opened() as world:
        packed = web.Response(body=gzip.compress(b"hello"), headers={"Content-Encoding": "gzip"})
        world.vendor.spoil = lambda _: answered(packed)
        assert (await caller(world).get(asks(world), text)).value == "hello"


async def test_a_body_that_grows_beyond_its_bound_is_not_read() -> None:
    async with opened(Bounds(body_bytes=1_000_000)) as world:
        bomb = web.Response(body=gzip.compress(bytes(5_000_000)), headers={"Content-Encoding": "gzip"})
        world.vendor.spoil = lambda _: answered(bomb)
        with pytest.raises(RejectedError) as raised:
            await caller(world).get(asks(world), text)
        assert raised.value.code == "too_large"


async def cut(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_length = 100
    await response.prepare(request)
    await response.write(b"[1,2")
    assert request.transport is not None
    request.transport.close()
    return response


async def test_a_connection_cut_in_the_middle_is_tried_again() -> None:
    async with opened() as world:
        world.vendor.spoil = lambda request: cut(request) if len(world.vendor.asked) < 3 else answered(web.Response())
        calls = Calls()
        await caller(world).get(asks(world), text, calls=calls)
        assert calls.count == 3
        assert len(world.heard(Retried)) == 2


async def test_half_a_compressed_answer_is_tried_again() -> None:
    async with opened() as world:
        body = b"[" + b",".join(b'{"id":%d}' % number for number in range(5_000)) + b"]"
        half, packed = gzip.compress(body)[:-500], {"Content-Encoding": "gzip"}
        world.vendor.spoil = lambda _: answered(web.Response(body=half, headers=packed))
        with pytest.raises(RetryableError) as raised:
            await caller(world, patience=Patience(tries_max=2)).get(
                asks(world), lambda answer, _: read_ids(answer, Rules((("id",),)))
            )
        assert (raised.value.code, len(world.vendor.asked)) == ("bad_answer", 2)


async def test_an_answer_that_cannot_be_read_is_tried_again() -> None:
    async with opened() as world:
        world.vendor.spoil = lambda _: answered(web.Response(body=b"ok"))

        def read(_body: bytes, _at: str) -> int:
            if len(world.vendor.asked) < 3:
                raise RetryableError("truncated", code="bad_answer")
            return len(world.vendor.asked)

        assert (await caller(world).get(asks(world), read)).value == 3


async def test_a_page_slower_than_any_timeout_is_given_up_and_tried_again() -> None:
    async with opened(Bounds(silence_s=0.05)) as world:
        released = asyncio.Event()

        async def slow() -> web.StreamResponse:
            await released.wait()
            return web.Response()

        world.vendor.spoil = lambda _: slow()
        with pytest.raises(RetryableError) as raised:
            await caller(world, patience=Patience(tries_max=2)).get(asks(world), text)
        released.set()
        assert raised.value.code == "timeout"
        assert len(world.vendor.asked) == 2


async def test_nobody_there_is_told_without_the_address_s_query() -> None:
    async with opened() as world:
        nobody = Request("http://127.0.0.1:9/x", (("token", "hunter2"),), "GET x")
        with pytest.raises(RetryableError) as raised:
            await caller(world, patience=Patience(tries_max=1)).get(nobody, text)
        assert "127.0.0.1" in str(raised.value)
        assert "hunter2" not in str(raised.value)


async def test_a_redirect_on_the_same_host_is_followed_and_a_circle_is_not() -> None:
    async with opened() as world:
        moved = web.Response(status=302, headers={"Location": "/there"})
        world.vendor.spoil = lambda request: answered(web.Response(body=b"ok") if request.path == "/there" else moved)
        assert (await caller(world).get(asks(world), text)).value == "ok"
        world.vendor.spoil = lambda _: answered(web.Response(status=302, headers={"Location": "/x"}))
        with pytest.raises(RejectedError) as raised:
            await caller(world).get(asks(world), text)
        assert raised.value.code == "pages_do_not_advance"


async def test_cookies_of_one_customer_are_not_sent_for_another() -> None:
    async with opened() as world:
        seen: list[Any] = []

        def spoil(request: web.Request) -> Awaitable[web.StreamResponse]:
            seen.append(dict(request.cookies))
            response = web.Response()
            response.set_cookie("session", "acme")
            return answered(response)

        world.vendor.spoil = spoil
        for _ in range(2):
            await caller(world).get(asks(world), text)
        assert seen == [{}, {}]


async def test_429_for_ten_minutes_is_waited_out_by_everybody_together() -> None:
    async with opened() as world:
        until = 600.0

        def spoil(_: web.Request) -> Awaitable[web.StreamResponse]:
            busy = world.clock.monotonic() < until
            return answered(
                web.Response(status=429, headers={"Retry-After": "60"}) if busy else web.Response(body=b"ok")
            )

        world.vendor.spoil = spoil
        one = caller(world, Limits(concurrency=2))
        got = await asyncio.gather(*(one.get(asks(world), text) for _ in range(5)))
        assert [each.value for each in got] == ["ok"] * 5
        assert world.clock.monotonic() >= until
        assert len(world.vendor.asked) < 5 * 11 + 5
        assert world.heard(VendorThrottled)


async def test_a_vendor_that_refuses_for_hours_is_left_alone_for_now() -> None:
    async with opened() as world:
        world.vendor.spoil = lambda _: answered(web.Response(status=429, headers={"Retry-After": "600"}))
        with pytest.raises(ThrottledError):
            await caller(world).get(asks(world), text)
        assert world.clock.monotonic() >= 3_000


async def test_the_budget_is_kept_and_the_lease_hears_of_us_while_we_wait() -> None:
    async with opened() as world:
        world.vendor.spoil = lambda _: answered(web.Response(body=b"ok"))
        moves: list[float] = []
        one = caller(
            world, Limits(requests=2, window_s=120, share=1), alive=lambda: moves.append(world.clock.monotonic())
        )
        for _ in range(3):
            await one.get(asks(world), text)
        assert world.clock.monotonic() == pytest.approx(120)
        gaps = [later - former for former, later in pairwise(moves)]
        assert max(gaps) <= fetch.NAP_MAX_S


async def test_no_more_requests_are_under_way_than_allowed() -> None:
    async with opened() as world:
        under_way, most = 0, 0

        async def slow() -> web.StreamResponse:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1
            return web.Response(body=b"ok")

        world.vendor.spoil = lambda _: slow()
        one = caller(world, Limits(concurrency=3))
        await asyncio.gather(*(one.get(asks(world), text) for _ in range(12)))
        assert most <= 3


async def test_not_there_is_an_answer_to_whoever_asks_just_that() -> None:
    async with opened() as world:
        world.vendor.spoil = lambda request: answered(web.Response(status=404 if "gone" in request.path else 200))
        assert not (await caller(world).is_there(asks(world, "gone"))).value
        assert (await caller(world).is_there(asks(world, "here"))).value
        with pytest.raises(NotFoundError):
            await caller(world).get(asks(world, "gone"), text)
