"""Exports: jobs that the vendor runs for us."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from aiohttp import web

from services.contracts.access import Limits
from services.contracts.errors import RejectedError, RetryableError
from services.contracts.integration import Integration
from services.contracts.names import Names
from services.contracts.times import shifted
from services.extractor.access import Fixed
from services.extractor.answers import Answer
from services.extractor.auth import Site
from services.extractor.exports import run_export
from services.extractor.fetch import Caller, Calls
from services.extractor.plan import Spec, specs
from services.extractor.requests import Request, Scope
from tests.extractor.world import START, opened
from tests.fakes import FakeClock, MemoryRows, MemoryStreams
from tests.runtimes import fake_runtime

HOST = "https://desk.example/api"
EXPORT: dict[str, Any] = {
    "create": "jobs/query",
    "body": {"type": "json", "value": {"query": "tickets", "since": "{since}"}},
    "id": "job.id",
    "poll": "jobs/query/{job}",
    "status": "state",
    "done": ["JobComplete"],
    "failed": ["Failed", "Aborted"],
    "every_s": 7.0,
    "most_s": 60.0,
}


class Desk:
    """A vendor whose job goes through `states`, the last one for ever, and how it was asked."""

    def __init__(self, *states: str, created: bytes = b'{"job":{"id":42}}') -> None:
        self.clock = FakeClock()
        self.asked: list[tuple[float, Request]] = []
        self._states, self._created = list(states), created

    async def send(self, request: Request, headers: Mapping[str, str]) -> Answer:
        self.asked.append((self.clock.monotonic(), request))
        if request.method == "POST":
            return Answer(201, self._created)
        state = self._states.pop(0) if len(self._states) > 1 else self._states[0]
        return Answer(200, msgspec.json.encode({"state": state}))

    async def export(self, scope: Scope | None = None) -> tuple[Mapping[str, str], Calls]:
        runtime = fake_runtime(Names("test"), self.clock, MemoryStreams(self.clock), MemoryRows({}))
        caller = Caller(runtime, self, Fixed(Site(HOST, {}, {})), Limits(), ("acme", "desk"))
        spec, calls = spec_of_desk(), Calls()
        assert spec.export is not None
        started_at = self.clock.now()
        got = await run_export(caller, self.clock, spec, spec.export, scope or Scope(), calls=calls)
        assert got.observed_at == started_at  # later changes need not be in it
        return got.value, calls


def spec_of_desk() -> Spec:
    endpoint = {
        "path": "jobs/query/{job}/results",
        "record_id": "id",
        "updated_at": "updated",
        "incremental": {"type": "time"},
        "format": "csv",
        "export": EXPORT,
    }
    plain = {
        "service": "desk",
        "title": "Desk",
        "base_url": HOST,
        "auth": {"type": "none"},
        "endpoints": {"tickets": endpoint},
    }
    return specs(msgspec.convert(plain, Integration))["tickets"]


async def test_a_job_is_created_and_asked_about_until_it_is_done() -> None:
    desk = Desk("Queued", "InProgress", "JobComplete")
    job, calls = await desk.export(Scope(since="2026-01-31T12:00:00.000000Z"))
    assert job == {"job": "42"}
    assert [(at, asked.method, urlsplit(asked.url).path) for at, asked in desk.asked] == [
        (0.0, "POST", "/api/jobs/query"),
        (7.0, "GET", "/api/jobs/query/42"),
        (14.0, "GET", "/api/jobs/query/42"),
        (21.0, "GET", "/api/jobs/query/42"),
    ]
    assert msgspec.json.decode(desk.asked[0][1].body) == {"query": "tickets", "since": "2026-01-31T12:00:00Z"}
    assert calls.count == 4


async def test_what_a_full_export_has_no_value_for_is_left_out() -> None:
    desk = Desk("JobComplete")
    await desk.export()
    assert msgspec.json.decode(desk.asked[0][1].body) == {"query": "tickets"}


async def test_a_job_that_failed_is_an_error_at_once() -> None:
    desk = Desk("InProgress", "Aborted")
    with pytest.raises(RejectedError, match="Aborted") as raised:
        await desk.export()
    assert (raised.value.code, desk.clock.monotonic()) == ("vendor_error", 14.0)


async def test_a_job_that_takes_too_long_is_given_up_for_now() -> None:
    desk = Desk("InProgress")
    with pytest.raises(RetryableError) as raised:
        await desk.export()
    assert raised.value.code == "timeout"
    assert 60.0 <= desk.clock.monotonic() < 70.0


async def test_a_job_without_an_id_is_no_job() -> None:
    with pytest.raises(RetryableError) as raised:
        await Desk("JobComplete", created=b"{}").export()
    assert raised.value.code == "bad_answer"


async def test_what_changes_while_an_export_runs_is_read_the_next_time() -> None:
    async with opened() as world:
        endpoint = {
            "path": "jobs/{job}/results",
            "record_id": "id",
            "updated_at": "updated",
            "format": "ndjson",
            "pagination": {"type": "none"},
            "incremental": {"type": "time"},
            "export": EXPORT | {"create": "jobs", "poll": "jobs/{job}", "every_s": 60.0, "most_s": 3600.0},
        }
        world.use({"tickets": endpoint})
        jobs: list[tuple[float, list[Any]]] = []

        def create(_: web.Request) -> web.Response:
            jobs.append((world.clock.monotonic() + 1200, list(world.vendor.lists["tickets"].values())))
            world.vendor.put("tickets", 1, shifted(world.clock.now(), seconds=60), name="new")
            world.vendor.routes[f"jobs/{len(jobs)}"] = poll
            world.vendor.routes[f"jobs/{len(jobs)}/results"] = download
            return world.vendor.answer({"job": {"id": len(jobs)}}, 201)

        def poll(_: web.Request) -> web.Response:
            done = world.clock.monotonic() >= jobs[-1][0]
            return world.vendor.answer({"state": "JobComplete" if done else "InProgress"})

        def download(_: web.Request) -> web.Response:
            return world.vendor.answer(b"".join(msgspec.json.encode(one) + b"\n" for one in jobs[-1][1]))

        world.vendor.routes["jobs"] = create
        world.vendor.put("tickets", 1, shifted(START, seconds=-60), name="old")
        await world.read()
        assert (await world.row())["marks"]["fresh"] <= START
        assert world.events[-1].observed_at <= START
        await world.read()
        assert [event.payload for event in world.events] != []
        assert b"new" in bytes(world.events[-1].payload)  # type: ignore[arg-type]
