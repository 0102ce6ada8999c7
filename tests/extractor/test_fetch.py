"""One request over real HTTP, until its answer can be used."""

import asyncio
import gzip
import ssl
from collections.abc import Awaitable
from itertools import pairwise
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from services.contracts.access import ErrorRule, LimitHeaders, Limits, Quota
from services.contracts.errors import (
    NotFoundError,
    RejectedError,
    RetryableError,
    ThrottledError,
    UnauthorizedError,
)
from services.contracts.log import Retried, VendorThrottled
from services.extractor import fetch
from services.extractor.access import Access, Fixed
from services.extractor.answers import Answer, open_answer
from services.extractor.auth import Site
from services.extractor.fetch import Bounds, Caller, Calls, Download, Http, Patience, unreached
from services.extractor.meanings import Terms
from services.extractor.records import Rules, read_ids
from services.extractor.requests import Request
from tests.extractor.world import KEY, START, World, answered, opened


class Renewing:
    """`Access` whose every token is the next number, and which can renew it so many times."""

    def __init__(self, url: str, renewals: int = 1_000) -> None:
        self._url, self._left, self.renewed_count = url, renewals, 0
        self._site = self._made()

    def _made(self) -> Site:
        return Site(self._url, {}, {"X-Key": f"token {self.renewed_count}"})

    async def site(self) -> Site:
        return self._site

    async def renewed(self, refused: Site) -> Site:
        if refused is self._site and self.renewed_count < self._left:
            self.renewed_count += 1
            self._site = self._made()
        return self._site


def caller(
    world: World,
    limits: Limits | None = None,
    patience: Patience | None = None,
    access: Access | None = None,
    **more: Any,
) -> Caller:
    access = access or Fixed(Site(world.vendor.url, {}, {"X-Key": "k"}))
    return Caller(world.runtime(), world.wire, access, limits or Limits(), ("acme", "desk"), patience=patience, **more)


def asks(world: World, path: str = "x", query: tuple[tuple[str, str], ...] = ()) -> Request:
    return Request(f"{world.vendor.url}/{path}", query, f"GET {path}")


def text(answer: Answer, _: str) -> str:
    return answer.body.decode()


def lines(answer: Answer, _: str) -> list[bytes]:
    return open_answer(answer, (), "ndjson").items


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

        def read(_: Answer, _at: str) -> int:
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


@pytest.mark.parametrize(
    ("url", "cause"),
    [
        ("https://no-such-host.invalid/x", "no answer from no-such-host.invalid: no such host is known. Look at"),
        ("http://127.0.0.1:9/x", "no answer from 127.0.0.1: it refuses connections. Look at the address and its port"),
    ],
)
async def test_who_cannot_be_reached_is_told_by_host_cause_and_remedy(url: str, cause: str) -> None:
    async with Http() as http:
        with pytest.raises(RetryableError) as caught:
            await http.send(Request(url, (("key", "secret"),), "GET x"), {})
    assert cause in str(caught.value)
    assert "Error" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_other_causes_of_no_answer_are_told_in_words_too() -> None:
    key = aiohttp.client_reqrep.ConnectionKey("a", 443, True, True, None, None, None)
    kinds: list[aiohttp.ClientError] = [
        aiohttp.ClientConnectorCertificateError(key, ssl.SSLCertVerificationError()),
        aiohttp.ClientConnectorSSLError(key, OSError()),
        aiohttp.ClientConnectorError(key, OSError()),
        aiohttp.ServerDisconnectedError(),
    ]
    told = [unreached(one) for one in kinds]
    assert [cause for cause, _ in told] == [
        "its certificate is not one that this machine trusts",
        "it does not speak TLS as we do",
        "no way leads there",
        "the connection broke off",
    ]
    assert all(remedy for _, remedy in told)


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


async def test_a_budget_that_is_used_up_for_the_day_is_told_and_not_waited_for() -> None:
    async with opened() as world:
        world.vendor.spoil = lambda _: answered(web.Response(body=b"ok"))
        one = caller(world, Limits(share=1, quotas=[Quota(1, 86_400)]))
        await one.get(asks(world), text)
        with pytest.raises(ThrottledError, match="used up for 1440 more minutes"):
            await one.get(asks(world), text)
        assert (world.clock.monotonic(), len(world.vendor.asked)) == (0.0, 1)


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


async def test_a_post_arrives_with_its_body_its_headers_and_who_we_are() -> None:
    async with opened() as world:
        seen: list[tuple[str, bytes, Any, Any]] = []

        async def spoil(request: web.Request) -> web.StreamResponse:
            seen.append((request.method, await request.read(), request.headers, dict(request.query)))
            return web.Response(body=b"ok")

        world.vendor.spoil = spoil
        request = Request(
            f"{world.vendor.url}/x",
            (("a", "b"),),
            "POST x",
            "POST",
            (("accept", "text/csv"),),
            b"{}",
            "application/json",
        )
        site = Site(world.vendor.url, {}, {"X-Key": "k"}, {"api_key": "p"})
        await caller(world, access=Fixed(site)).get(request, text)
        ((method, body, headers, query),) = seen
        assert (method, body, query) == ("POST", b"{}", {"a": "b", "api_key": "p"})
        assert (headers["Content-Type"], headers["accept"], headers["X-Key"]) == ("application/json", "text/csv", "k")


async def test_a_post_is_never_redirected_into_something_else() -> None:
    async with opened() as world:
        moved = {"x": 307, "y": 302}

        def spoil(request: web.Request) -> Awaitable[web.StreamResponse]:
            status = moved.get(request.path[1:])
            there = web.Response(status=status or 200, headers={"Location": "/there"}, body=request.method.encode())
            return answered(there)

        world.vendor.spoil = spoil
        kept = Request(f"{world.vendor.url}/x", source="POST x", method="POST")
        assert (await caller(world).get(kept, text)).value == "POST"
        with pytest.raises(RejectedError):
            await caller(world).get(Request(f"{world.vendor.url}/y", source="POST y", method="POST"), text)


async def test_a_token_the_vendor_refuses_is_renewed_once_and_the_request_repeated() -> None:
    async with opened() as world:
        accepted = "token 1"

        def spoil(request: web.Request) -> Awaitable[web.StreamResponse]:
            good = request.headers["X-Key"] == accepted
            return answered(web.Response(status=200 if good else 401, body=b"ok"))

        world.vendor.spoil = spoil
        access = Renewing(world.vendor.url)
        one = caller(world, access=access)
        got = await asyncio.gather(*(one.get(asks(world), text) for _ in range(4)))
        assert ([each.value for each in got], access.renewed_count) == (["ok"] * 4, 1)
        accepted = "no token"
        for refused in (access, Renewing(world.vendor.url, renewals=0)):
            with pytest.raises(UnauthorizedError):
                await caller(world, access=refused).get(asks(world), text)
        assert access.renewed_count == 2


async def test_a_rule_may_ask_for_a_new_token_and_another_stops_at_once() -> None:
    async with opened() as world:
        world.vendor.spoil = lambda request: answered(
            web.Response(status=400 if request.headers["X-Key"] == "token 0" else 200, body=b'{"code":"expired"}')
        )
        expired = ErrorRule(means="reauthenticate", status=[400], path="code", equals=["expired"])
        access = Renewing(world.vendor.url)
        await caller(world, access=access).get(asks(world), text, terms=Terms((expired,)))
        assert access.renewed_count == 1
        stop = Terms((ErrorRule(means="stop", path="code"),))
        with pytest.raises(UnauthorizedError) as raised:
            await caller(world, access=access).get(asks(world), text, terms=stop)
        assert (raised.value.code, access.renewed_count) == ("stopped", 1)


async def test_an_answer_that_a_rule_calls_empty_is_read_as_one_without_content() -> None:
    async with opened() as world:
        world.vendor.spoil = lambda _: answered(web.Response(status=404, body=b"[1]"))
        terms = Terms((ErrorRule(means="empty", status=[404]),))
        got = await caller(world).get(asks(world), lambda answer, _: open_answer(answer).items, terms=terms)
        assert got.value == []


async def test_what_the_vendor_says_is_left_is_heeded() -> None:
    async with opened() as world:
        told = {"X-Left": "1", "X-Limit": "10", "X-Reset": "30"}
        world.vendor.spoil = lambda _: answered(web.Response(body=b"ok", headers=told))
        headers = [LimitHeaders(remaining="x-left", limit="x-limit", reset="x-reset")]
        one = caller(world, Limits(headers=headers))
        await one.get(asks(world), text)
        assert one.fullness == 1.0
        await one.get(asks(world), text)
        assert world.clock.monotonic() == pytest.approx(30)


async def test_live_reads_find_a_connection_however_many_background_reads_take_their_time() -> None:
    async with opened() as world:
        released, arrived = asyncio.Event(), asyncio.Event()

        async def slow() -> web.StreamResponse:
            arrived.set()
            await released.wait()
            return web.Response(body=b"slow")

        world.vendor.spoil = lambda request: slow() if "slow" in request.path else answered(web.Response(body=b"ok"))
        one = caller(world, Limits(concurrency=2))
        walks = [asyncio.ensure_future(one.get(asks(world, "slow"), text, background=True)) for _ in range(5)]
        await arrived.wait()
        assert (await one.get(asks(world), text)).value == "ok"
        released.set()
        assert {got.value for got in await asyncio.gather(*walks)} == {"slow"}


async def test_a_download_comes_in_batches_and_is_tried_again_as_a_whole() -> None:
    async with opened() as world:
        body = b"".join(b'{"id":%d,"text":"%s"}\n' % (number, b"x" * 1_000) for number in range(10_000))
        packed = gzip.compress(body)

        def spoil(_: web.Request) -> Awaitable[web.StreamResponse]:
            sent = len(world.vendor.asked)
            return answered(web.Response(body=packed[: -(20 if sent == 1 else 0) or None]))

        world.vendor.spoil = spoil
        calls = Calls()
        found = [got async for got in caller(world).download(asks(world), lines, "ndjson", calls=calls)]
        assert calls.count == 2
        assert len(found) > 1
        assert sum(len(got.value) for got in found) == 10_000
        assert len({got.observed_at for got in found}) == 1


async def test_a_download_may_be_longer_than_an_answer_in_memory_and_an_error_is_none() -> None:
    async with opened(Bounds(body_bytes=1_000, file_bytes=50_000)) as world:
        body = b'{"id":1}\n' * 1_000
        world.vendor.spoil = lambda _: answered(web.Response(body=body))
        found = [got async for got in caller(world).download(asks(world), lines, "ndjson")]
        assert sum(len(got.value) for got in found) == 1_000
        body *= 10
        with pytest.raises(RejectedError) as raised:
            await anext(caller(world).download(asks(world), lines, "ndjson"))
        assert raised.value.code == "too_large"
        world.vendor.spoil = lambda _: answered(web.Response(status=404, body=b"x" * 100))
        with pytest.raises(NotFoundError):
            await anext(caller(world).download(asks(world), lines, "ndjson"))
        answer = await world.wire.send(Download(f"{world.vendor.url}/x", (), "GET x"), {"X-Key": KEY})
        assert answer.file is None


async def test_an_owner_counts_what_the_one_before_asked_for() -> None:
    async with opened() as world:
        world.vendor.spoil = lambda _: answered(web.Response(body=b"ok"))
        limits = Limits(requests=3, window_s=60, share=1)
        former, later = caller(world, limits), caller(world, limits)
        for _ in range(2):
            await former.get(asks(world), text)
        later.resume(former.used())
        for _ in range(2):
            await later.get(asks(world), text)
        assert world.clock.monotonic() == pytest.approx(60)
