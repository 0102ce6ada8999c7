"""Rows 34 to 50 of the fault list, one by one, over real HTTP: the stream holds what the vendor has."""

import asyncio
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from random import Random
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from services.contracts.integration import Integration
from services.contracts.log import CredentialsRefused, EndpointFailed, SweepSuspicious
from services.extractor.fetch import Bounds
from services.sandbox.vendors.access import tokens_of
from services.sandbox.vendors.dialect import Answer, Request
from services.sandbox.vendors.hostility import HUGE_BYTES, SPOILINGS, Spoiling
from services.sandbox.vendors.store import Store
from tests.dialects import reference
from tests.dialects.oracle import MARK, Oracle
from tests.dialects.seeds import part_of, sized
from tests.dialects.world import LEASE_S, NAMES, TENANT, World, opened
from tests.fakes import Call

LISTS = ("people", "tickets", "notes", "devices", "issues", "orders")
SECRET = NAMES.secret(TENANT, "reference")


def reading(*endpoints: str, size: int = 5, **changed: Any) -> Integration:
    """The reference integration: these endpoints and what they need, in pages so small."""
    part = part_of(reference.integration(), Random(0), endpoints)
    made = {
        name: replace(one, pagination=sized(one.pagination, size))
        for name, one in part.endpoints.items()
        if one.pagination
    }
    return replace(part, endpoints=made, **changed)


def at(
    *endpoints: str, size: int = 5, bounds: Bounds | None = None, **changed: Any
) -> AbstractAsyncContextManager[World]:
    return opened(reference.DIALECT, reading(*endpoints, size=size, **changed), bounds=bounds)


def check(world: World) -> None:
    """Nothing lost, nothing doubled, nothing wrong; no other host asked."""
    oracle = Oracle(world.integration, world.store, world.hostility.served, world.rough)
    verdict = oracle.judge(world.events, world.arrivals)
    assert verdict.findings == []
    assert oracle.check_contents(world.events) == []
    assert world.vendor.astray == []


def seen(world: World, name: str) -> set[tuple[str, int]]:
    """(record id, version) of every observation of an endpoint."""
    text = world.store.collections[name].text
    contents = [
        (event.record_id, msgspec.json.decode(bytes(event.payload)))
        for event in world.events
        if event.endpoint == name and not isinstance(event.payload, msgspec.UnsetType)
    ]
    marks = [(record_id, MARK.search(str(content.get(text)))) for record_id, content in contents]
    return {(record_id, int(mark.group(1))) for record_id, mark in marks if mark is not None}


def there(world: World, names: Iterable[str]) -> set[tuple[str, int]]:
    return {(row.id, row.version) for name in names for row in world.store.rows(name)}


def codes(said: Sequence[Any]) -> dict[str, str]:
    return {one.endpoint: one.code for one in said}


@pytest.mark.parametrize("name", ["tickets", "issues", "orders", "devices"])
async def test_row_34_five_thousand_records_of_one_second_are_all_read_in_pages_of_a_thousand(name: str) -> None:
    async with at(name, size=1_000) as world:
        world.store.page_sizes[name] = 1_000
        await world.run_once()
        await world.clock.sleep(60)
        for _ in range(5_000):
            world.store.create(name)
        assert len({row.updated for row in world.store.rows(name)[-5_000:]}) == 1
        await world.clock.sleep(60)
        await world.run_once()
        assert seen(world, name) == there(world, [name])
        check(world)


@pytest.mark.parametrize("name", LISTS)
async def test_row_35_rows_that_move_between_two_pages_are_not_missed(name: str) -> None:
    async with at(name, size=4) as world:
        world.store.page_sizes[name] = 4
        world.store.populate({name: 9})
        world.hostility.chances[35] = 1.0
        world.hostility.left[35] = 6
        world.hostility.begin(35)
        await world.run_once()
        assert world.hostility.struck[35] == 6
        await world.settle()
        check(world)


async def test_row_35_what_moves_up_behind_a_link_that_counts_pages_is_not_missed() -> None:
    moved: list[str] = []

    def moving(store: Store, request: Request) -> Answer:
        if request.path.endswith("/issues") and {"since", "page"} <= request.query.keys() and not moved:
            moved.append(request.query["since"])
            store.update("issues", store.rows("issues")[0].id)  # from the first page to the end: all others move up
        return reference.DIALECT.answer(store, request)

    async with opened(replace(reference.DIALECT, answer=moving), reading("issues", size=4)) as world:
        await world.run_once(sweep=False)
        for row in world.store.rows("issues")[:9]:
            await world.clock.sleep(2)
            world.store.update("issues", row.id)
        await world.clock.sleep(700)  # long settled: no later pass asks for them
        await world.run_once(sweep=False)
        await world.run_once(sweep=False)
        assert moved
        assert there(world, ["issues"]) <= seen(world, "issues")
        check(world)


@pytest.mark.parametrize("name", ["tickets", "issues", "orders", "events", "devices"])
async def test_row_36_a_record_seen_90_s_after_its_stamp_is_caught(name: str) -> None:
    async with at(name) as world:
        worker = world.worker()
        await world.clock.sleep(100)
        late = world.store.create(name, late_s=90)
        await world.clock.sleep(40)
        world.store.create(name)  # one that comes later and is seen at once
        await world.clock.sleep(800)
        await worker.stop()
        assert late.id in {record_id for record_id, _ in seen(world, name)}
        check(world)


@pytest.mark.parametrize("name", ["tickets", "issues", "orders"])
async def test_row_37_content_under_an_older_stamp_is_current_from_when_it_was_read(name: str) -> None:
    async with at(name) as world:
        worker = world.worker()
        await world.clock.sleep(100)
        record = world.store.rows(name)[0].id
        world.store.update(name, record)
        await world.clock.sleep(100)
        world.store.update(name, record, stamp=world.store.find(name, record).updated - timedelta(seconds=30))  # type: ignore[union-attr]
        await world.clock.sleep(800)
        await worker.stop()
        last = [event for event in world.events if event.record_id == record][-1]
        assert (last.effective_at, last.evidence) == (last.observed_at, "read")
        check(world)


@pytest.mark.parametrize("told", [True, False])
async def test_row_38_throttled_for_ten_minutes_it_slows_down_and_loses_nothing(told: bool) -> None:
    async with at("tickets", "people") as world:
        world.hostility.waits = (20.0,) if told else (None,)
        worker = world.worker()
        await world.clock.sleep(100)
        world.hostility.chances[38] = 1.0
        world.hostility.begin(38)
        for _ in range(10):
            world.hostility.changes.any("tickets")
            await world.clock.sleep(60)
        asked = world.hostility.struck[38]
        world.hostility.end(38)
        await world.clock.sleep(800)
        await worker.stop()
        assert 3 <= asked <= 60, "it slows down"
        assert world.heard(EndpointFailed) == []
        assert (await world.status())["status"] == "ok"
        await world.settle()
        check(world)


@pytest.mark.parametrize("spoiling", SPOILINGS)
async def test_row_39_a_broken_answer_is_asked_for_again_and_the_cursor_waits(spoiling: Spoiling) -> None:
    async with at(*LISTS, "events") as world:
        world.hostility.spoilings = (spoiling,)
        world.hostility.chances[39] = 0.5
        world.hostility.begin(39)
        for _ in range(4):
            await world.run_once()
            world.hostility.changes.any("tickets")
            await world.clock.sleep(90)
        assert world.hostility.struck[39] > 10
        world.hostility.end(39)
        summaries = await world.settle()
        assert summaries[-1].complete
        check(world)


async def test_row_40_a_token_that_ends_in_a_walk_is_refreshed_though_the_refresh_fails_once() -> None:
    async with at(*LISTS) as world:
        world.hostility.chances[40] = 1.0
        world.hostility.left[40] = 1
        world.hostility.begin(40)
        summary = await world.run_once()
        assert summary.complete, summary.failed
        assert world.hostility.struck[40] == 1
        assert tokens_of(world.store).refreshes == 3, "the first, the one that failed, and the one that did not"
        assert all(seen(world, name) >= there(world, [name]) for name in LISTS)
        check(world)


def killed_at(world: World, method: str, done: bool) -> None:
    """The extractor dies at a step of its next refresh: at a write of its secret, or with the answer in its hands."""
    before = tokens_of(world.store).refreshes

    def trap(call: Call, after: bool) -> bool:
        if method == "answered":
            return call.method == "answered" and tokens_of(world.store).refreshes > before
        return (call.method, call.subject, after) == (method, SECRET, done)

    world.trap = trap


@pytest.mark.parametrize(("method", "done"), [("put", False), ("answered", True), ("put", True)])
@pytest.mark.parametrize("grace_s", [60.0, 0.0])
async def test_row_41_killed_at_any_step_of_a_refresh_it_heals_or_says_reconnect_needed_within_a_minute(
    method: str, done: bool, grace_s: float
) -> None:
    auth = replace(reference.integration().auth, grace_s=grace_s)  # type: ignore[type-var]
    async with at("tickets", auth=auth) as world:
        world.store.facts["grace_s"] = grace_s
        first = world.worker()
        await world.clock.sleep(100)
        killed_at(world, method, done)
        await first.buried()  # when its token is about to end
        world.trap = lambda _call, _done: False
        second = world.worker()
        await world.clock.sleep(LEASE_S * 2 + 60)
        status = (await world.status())["status"]
        spent = (method, done) != ("put", True) and grace_s == 0
        assert status == ("reconnect needed" if spent else "ok")
        if spent:
            await world.connect()
        world.store.create("tickets")
        await world.clock.sleep(800)
        await second.stop()
        assert (await world.status())["status"] == "ok"
        check(world)


async def test_row_41_there_is_one_refresher_however_many_endpoints_find_the_token_expired() -> None:
    async with at(*LISTS) as world:
        await world.run_once()
        before = tokens_of(world.store).refreshes
        await world.clock.sleep(60)
        tokens_of(world.store).expire()
        summary = await world.run_once()
        assert summary.complete, summary.failed
        assert tokens_of(world.store).refreshes == before + 1


async def test_row_42_revoked_credentials_stop_one_tenant_which_goes_on_once_they_are_fixed() -> None:
    async with at("tickets", "people") as world:
        await world.connect("initech", site="https://initech.reference.example")
        worker = world.worker()
        await world.clock.sleep(120)
        world.hostility.host = "acme.reference.example"
        world.hostility.begin(42)
        world.note_rough(300)
        await world.clock.sleep(120)
        assert (await world.status())["status"] == "reconnect needed"
        assert (await world.status("initech"))["status"] == "ok"
        assert {said.tenant_id for said in world.heard(CredentialsRefused)} == {TENANT}
        made = world.store.create("tickets")
        await world.clock.sleep(120)
        assert made.id in {event.record_id for event in world.events_of("initech")}
        world.hostility.end(42)
        await world.clock.sleep(1_000)
        assert (await world.status())["status"] == "ok"
        assert made.id in {event.record_id for event in world.events}
        await worker.stop()
        await world.settle()
        check(world)


async def test_row_43_a_forbidden_endpoint_is_reported_and_the_others_go_on() -> None:
    async with at(*LISTS, "events") as world:
        world.hostility.begin(43, ["people"])
        summary = await world.run_once()
        assert codes(summary.failed) == {"people": "forbidden"}
        others = [name for name in world.integration.endpoints if name != "people"]
        assert all(seen(world, name) >= there(world, [name]) for name in others)
        assert (await world.mark("people"))["failed_code"] == "forbidden"
        world.hostility.end(43)
        await world.settle()
        assert not (await world.mark("people")).get("failed_code")
        check(world)


@pytest.mark.parametrize("name", ["tickets", "people", "notes"])
@pytest.mark.parametrize("shown", ["half", "none", "all but one"])
async def test_row_44_what_a_sweep_does_not_show_is_not_deleted_while_it_is_there(name: str, shown: str) -> None:
    async with at(name) as world:
        await world.run_once()
        await world.clock.sleep(1_000)
        rows = world.store.rows(name)
        hidden = {"half": rows[: len(rows) // 2 + 1], "none": rows, "all but one": rows[:1]}[shown]
        world.store.veiled = {(name, row.id) for row in hidden}
        await world.run_once()
        assert [event for event in world.events if event.op == "delete"] == []
        if shown != "all but one":
            assert world.heard(SweepSuspicious) != []
        world.store.veiled.clear()
        world.store.delete(name, rows[-1].id)
        await world.settle()
        assert {event.record_id for event in world.events if event.op == "delete" and event.endpoint == name} == {
            rows[-1].id
        }
        check(world)


@pytest.mark.parametrize(
    ("changes", "without"),
    [({"colour_renamed": "red"}, ["custom.colour"]), ({}, ["state"]), ({"custom": "7", "state": {"is": 1}}, [])],
)
async def test_row_45_records_whose_fields_change_their_names_or_types_flow_on(
    changes: dict[str, Any], without: list[str]
) -> None:
    async with at("tickets") as world:
        await world.run_once()
        await world.clock.sleep(700)
        for row in world.store.rows("tickets"):
            world.store.update("tickets", row.id, changes=changes, without=without)
        await world.settle()
        assert there(world, ["tickets"]) <= seen(world, "tickets")
        check(world)


async def test_row_45_records_that_can_no_longer_be_told_apart_go_to_dead_letters_and_the_rest_flow_on() -> None:
    async with at("people") as world:
        broken = world.store.rows("people")[3]
        world.store.update("people", broken.id, without=["id"])
        summary = await world.run_once()
        assert summary.complete
        assert summary.endpoints[0].rejected >= 1
        assert any("/dead-letter/" in key for key in world.objects.held)
        assert there(world, ["people"]) - seen(world, "people") == {
            (broken.id, row.version) for row in [world.store.find("people", broken.id)] if row
        }


async def test_row_46_a_record_of_20_mb_is_a_dead_letter_and_the_rest_flow_on() -> None:
    async with at("tickets", size=100) as world:
        record = world.store.rows("tickets")[4]
        world.store.update("tickets", record.id, changes={"subject": "x" * HUGE_BYTES})
        summary = await world.run_once()
        assert summary.complete
        assert summary.endpoints[0].rejected == 1
        assert any("/dead-letter/" in key for key in world.objects.held)
        assert {name for name, _ in seen(world, "tickets")} == {row.id for row in world.store.rows("tickets")} - {
            record.id
        }
        world.hostility.changes.shrink()
        await world.settle()
        check(world)


@pytest.mark.parametrize("name", ["devices", "issues"])
async def test_row_47_a_next_page_at_another_host_is_never_asked_for(name: str) -> None:
    async with at(name) as world:
        world.store.page_sizes[name] = 5
        world.hostility.ways_of_47 = ("astray",)
        world.hostility.chances[47] = 1.0
        world.hostility.begin(47)
        summary = await world.run_once()
        assert codes(summary.failed) == {name: "wrong_host"}
        assert world.vendor.astray == []
        world.hostility.end(47)
        await world.settle()
        check(world)


@pytest.mark.parametrize("name", ["people", "tickets", "notes", "devices", "issues", "orders", "events"])
async def test_row_47_pages_that_loop_are_noticed(name: str) -> None:
    async with at(name, size=3) as world:
        world.store.page_sizes[name] = 3
        if name == "notes":
            for _ in range(9):
                world.store.create(name, world.store.rows("tickets")[0].id)
        world.hostility.ways_of_47, world.hostility.about = ("loop",), frozenset({name})
        world.hostility.chances[47] = 1.0
        world.hostility.begin(47)
        summary = await world.run_once(sweep=False)
        assert name in codes(summary.failed)
        assert codes(summary.failed)[name] in {"pages_do_not_advance", "bad_answer"}
        assert len(world.wire.sent) < 120
        world.hostility.end(47)
        await world.settle()
        check(world)


@pytest.mark.parametrize("name", LISTS)
async def test_row_48_killed_between_publish_and_save_it_reads_again_and_nothing_doubles(name: str) -> None:
    async with at(name) as world:
        first = world.worker()

        def trap(call: Call, done: bool) -> bool:
            return (call.method, call.subject, done) == ("put", NAMES.raw_stream, True)

        world.trap = trap
        await first.buried()
        world.trap = lambda _call, _done: False
        assert world.events != []
        second = world.worker()
        await world.clock.sleep(LEASE_S * 2 + 100)
        await second.stop()
        assert seen(world, name) >= there(world, [name])
        await world.settle()
        check(world)


async def test_row_49_a_page_slower_than_any_timeout_is_asked_for_again_and_delays_no_other_endpoint() -> None:
    async with at(*LISTS, bounds=Bounds(silence_s=0.15)) as world:
        await world.run_once()
        for name in LISTS:
            world.store.update(name, world.store.rows(name)[0].id)
        await world.clock.sleep(60)
        world.hostility.chances[49] = 1.0
        world.hostility.left[49] = 3
        world.hostility.begin(49)
        summary = await world.run_once()
        assert summary.complete, summary.failed
        assert world.hostility.struck[49] == 3
        assert all(seen(world, name) >= there(world, [name]) for name in LISTS)
        check(world)


async def test_row_50_of_two_tasks_that_claim_one_service_one_works_and_the_others_writes_are_fenced() -> None:
    async with at("tickets", "people") as world:
        first = world.worker()
        await world.clock.sleep(60)
        first.lose_touch()  # it works on, and does not know that its lease has ended
        second = world.worker()
        for _ in range(12):
            world.hostility.changes.any("tickets")
            await world.clock.sleep(20)
        lease = await world.lease()
        assert lease["owner"] == second.runtime.leases.worker
        assert int((await world.mark("tickets"))["epoch"]) == int(lease["epoch"])
        await asyncio.gather(first.stop(), second.stop())
        await world.settle()
        check(world)
