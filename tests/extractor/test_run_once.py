"""`run_once` against a vendor over HTTP: what is read, what is published, what a fault may cost (nothing)."""

from typing import Any

import pytest
from aiohttp import web

from services.contracts.errors import RetryableError, UsageError
from services.contracts.log import (
    EndpointFailed,
    EventsPublished,
    EventsReadAgain,
    MemoryLost,
    RecordsRejected,
    RecordsRepeated,
    SweepSuspicious,
)
from services.contracts.ports import Value
from services.contracts.times import shifted
from services.extractor import ledger
from services.extractor.unit import LEASE_SCOPE
from tests.extractor.world import KEY, NAMES, START, SWEEP, TICKETS, World, answered, opened
from tests.fakes import Call, nothing


def at(seconds: float) -> str:
    return shifted(START, seconds=seconds)


def filled(world: World, count: int = 3, path: str = "tickets") -> None:
    """`count` records, changed an hour ago and a second apart."""
    for number in range(1, count + 1):
        world.vendor.put(path, number, at(number - 3600), name=f"n{number}")


# -- what is read -----------------------------------------------------------------------------------------------------
async def test_the_first_walk_publishes_every_record_as_the_vendor_returned_it() -> None:
    async with opened() as world:
        filled(world, 250)
        done = await world.read()
        assert (done.read, done.published, done.calls) == (250, 250, 4)  # 50 on the last page might be a cut-off
        assert sorted(int(event.record_id) for event in world.events) == list(range(1, 251))
        first = world.events[0]
        assert bytes(first.payload) == b'{"id":1,"name":"n1","updated":"2026-01-31T11:00:01Z"}'  # type: ignore[arg-type]
        assert (first.effective_at, first.observed_at, first.evidence) == (at(-3599), START, "vendor")
        assert (first.source, first.endpoint, first.op) == ("GET tickets after 0", "tickets", "upsert")


async def test_a_second_run_with_nothing_changed_publishes_nothing() -> None:
    async with opened() as world:
        filled(world, 250)
        await world.read()
        world.clock.advance(3600)
        done = await world.read()
        assert (done.published, done.deleted, len(world.events)) == (0, 0, 250)


async def test_a_change_within_the_second_of_the_last_read_is_not_lost() -> None:
    async with opened() as world:
        world.vendor.put("tickets", 1, name="A")
        await world.read()
        world.clock.advance(0.4)
        world.vendor.put("tickets", 1, name="B")
        await world.read()
        world.clock.advance(0.4)
        world.vendor.put("tickets", 1, name="C")
        world.clock.advance(5)
        await world.read()
        assert world.history(1) == [
            ("upsert", "12:00:00", "vendor"),
            ("upsert", "12:00:00", "vendor"),  # a true tie
            ("upsert", "12:00:00", "vendor"),  # B was read within that second too
        ]
        assert [event.observed_at for event in world.events] == [at(0), at(0.4), at(5.8)]


async def test_five_thousand_records_of_one_second_are_all_read() -> None:
    async with opened() as world:
        for number in range(1, 5_001):
            world.vendor.put("tickets", number, at(-10))
        assert (await world.read()).published == 5_000
        world.clock.advance(60)
        for number in range(1, 5_001):
            world.vendor.put("tickets", number, at(30), again=True)
        done = await world.read(sweep=False)
        assert (done.published, done.calls) == (5_000, 51)


async def test_a_record_that_shows_after_its_stamp_is_caught() -> None:
    async with opened() as world:
        filled(world)
        await world.read()
        world.vendor.put("tickets", 9, at(10), name="late")
        world.vendor.visible_at["tickets", 9] = at(10 + 290)
        world.clock.advance(60)
        assert (await world.read()).published == 0
        world.clock.advance(250)
        assert (await world.read()).published == 1
        assert world.history(9) == [("upsert", "12:00:10", "vendor")]


async def test_a_stamp_that_goes_back_with_new_content_becomes_current_from_the_read() -> None:
    async with opened() as world:
        world.vendor.put("tickets", 1, at(-60), name="A")
        await world.read()
        world.vendor.put("tickets", 1, at(-120), name="B")
        world.clock.advance(30)
        await world.read()
        assert world.history(1) == [("upsert", "11:59:00", "vendor"), ("upsert", "12:00:30", "read")]


async def test_an_endpoint_without_stamps_is_read_whole_and_compared() -> None:
    async with opened() as world:
        world.use({"tickets": {"path": "tickets", "record_id": "id", "drop": ["updated"]}})
        filled(world, 150)
        assert (await world.read()).published == 150
        world.vendor.put("tickets", 7, name="new")
        world.clock.advance(60)
        done = await world.read()
        assert (done.read, done.published) == (150, 1)
        assert world.history(7) == [("upsert", "12:00:00", "read"), ("upsert", "12:01:00", "read")]


async def test_numbered_pages_are_walked_to_the_last() -> None:
    async with opened() as world:
        world.use({"tickets": TICKETS}, pagination={"type": "page", "size_param": "size", "size": 100})
        filled(world, 250)
        assert (await world.read()).published == 250


async def test_a_vendor_that_shows_fewer_records_on_a_page_than_it_is_asked_for_is_read_to_the_end() -> None:
    async with opened() as world:
        filled(world, 250)
        shown = world.vendor.lists["tickets"]

        def cut_off(request: web.Request) -> web.Response:
            after = int(request.query.get("where", "id > 0").rpartition("id > ")[2])
            return world.vendor.answer([shown[number] for number in range(after + 1, 251)][:50])  # not 100

        world.vendor.routes["tickets"] = cut_off
        assert (await world.read()).published == 250


async def test_what_hangs_from_a_parent_is_read_below_each_of_its_records() -> None:
    async with opened() as world:
        notes = {**TICKETS, "path": "tickets/{parent_id}/notes", "deletes": None, "parent": {"endpoint": "tickets"}}
        world.use({"notes": notes, "tickets": TICKETS})
        filled(world, 2)
        filled(world, 3, "tickets/1/notes")
        world.vendor.lists["tickets/2/notes"] = {}
        summary = await world.run(endpoint="notes")
        assert {done.endpoint: done.published for done in summary.endpoints} == {"tickets": 2, "notes": 3}

        world.vendor.put("tickets", 3)  # a new parent, whose notes are older than any mark
        world.vendor.put("tickets/3/notes", 9, at(-9_000))
        world.clock.advance(60)
        summary = await world.run()
        assert {done.endpoint: done.published for done in summary.endpoints} == {"tickets": 1, "notes": 1}
        assert world.events[-1].source == "GET tickets/3/notes after 0"


async def test_a_parent_that_is_gone_has_nothing_below_it() -> None:
    async with opened() as world:
        notes = {**TICKETS, "path": "tickets/{parent_id}/notes", "deletes": None, "parent": {"endpoint": "tickets"}}
        world.use({"tickets": TICKETS, "notes": notes})
        filled(world, 2)
        filled(world, 1, "tickets/1/notes")
        summary = await world.run()
        assert summary.complete
        assert summary.published == 3


# -- deletions --------------------------------------------------------------------------------------------------------
async def test_a_record_gone_from_the_sweep_and_not_found_is_deleted() -> None:
    async with opened() as world:
        filled(world)
        await world.read()
        world.vendor.drop("tickets", 2)
        world.clock.advance(60)
        assert (await world.read()).deleted == 1
        assert world.history(2) == [("upsert", "11:00:02", "vendor"), ("delete", "12:01:00", "sweep")]
        assert world.events[-1].source == "GET tickets/2 not found"
        world.clock.advance(60)
        assert (await world.read()).deleted == 0


async def test_a_record_restored_under_its_old_stamp_is_there_again() -> None:
    async with opened() as world:
        filled(world)
        await world.read()
        world.vendor.drop("tickets", 2)
        world.clock.advance(60)
        await world.read()
        filled(world)
        world.clock.advance(60)
        assert (await world.read()).published == 1
        assert world.history(2)[-1] == ("upsert", "12:02:00", "read")
        world.clock.advance(60)
        assert (await world.read()).published == 0


async def test_a_record_deleted_and_restored_within_a_read_is_never_stuck() -> None:
    async with opened() as world:
        filled(world)
        await world.read()
        world.vendor.drop("tickets", 2)
        world.clock.advance(60)
        await world.read()
        world.vendor.put("tickets", 2, at(60), name="back")  # the stamp is the deletion's own second
        await world.read()
        assert [op for op, _, _ in world.history(2)] == ["upsert", "delete", "upsert"]
        assert world.events[-1].effective_at > world.events[-2].effective_at


async def test_what_a_sweep_does_not_show_but_a_read_finds_is_not_deleted() -> None:
    async with opened() as world:
        filled(world, 4)
        await world.read()
        world.clock.advance(60)
        world.vendor.spoil = lambda request: (
            answered(world.vendor.answer([{"id": 1}, {"id": 2}, {"id": 4}])) if "fields" in request.query else None
        )
        assert (await world.read()).deleted == 0
        assert not world.heard(SweepSuspicious)


@pytest.mark.parametrize("shown", [[], [{"id": 1}, {"id": 2}]])
async def test_a_sweep_that_shows_half_or_nothing_deletes_nothing_and_is_told(shown: list[Any]) -> None:
    async with opened() as world:
        filled(world, 4)
        await world.read()
        world.clock.advance(60)
        world.vendor.spoil = lambda request: answered(world.vendor.answer(shown)) if "fields" in request.query else None
        assert (await world.read()).deleted == 0
        (told,) = world.heard(SweepSuspicious)
        assert (told.known, told.found) == (4, len(shown))


async def test_the_last_record_of_a_list_can_go_when_a_read_finds_it_gone() -> None:
    async with opened() as world:
        filled(world, 1)
        await world.read()
        world.clock.advance(60)
        world.vendor.drop("tickets", 1)
        assert (await world.read()).deleted == 1
        assert not world.heard(SweepSuspicious)


async def test_where_no_record_can_be_read_a_second_sweep_confirms() -> None:
    async with opened() as world:
        world.use({"tickets": {**TICKETS, "deletes": {**SWEEP, "confirm": None}}})
        filled(world, 5)
        await world.read()
        world.vendor.drop("tickets", 2)
        world.vendor.drop("tickets", 3)
        world.clock.advance(60)
        assert (await world.read()).deleted == 0
        world.vendor.put("tickets", 3, at(3 - 3600), name="n3")  # it was only hidden
        world.clock.advance(60)
        assert (await world.read()).deleted == 1
        assert world.history(2)[-1] == ("delete", "12:02:00", "sweep")
        assert [op for op, _, _ in world.history(3)] == ["upsert"]
        world.clock.advance(60)
        assert (await world.read()).deleted == 0


async def test_a_denied_sweep_deletes_nothing() -> None:
    async with opened() as world:
        filled(world)
        await world.read()
        world.clock.advance(60)
        world.vendor.drop("tickets", 2)
        world.vendor.spoil = lambda request: (
            answered(world.vendor.answer({"message": "no"}, 403)) if "fields" in request.query else None
        )
        summary = await world.run()
        assert (summary.deleted, summary.endpoints[0].code) == (0, "forbidden")
        assert world.heard(SweepSuspicious)


async def test_a_record_that_moves_within_its_family_is_not_deleted() -> None:
    async with opened() as world:
        projects = {**TICKETS, "path": "projects", "deletes": {**SWEEP, "confirm": "projects/{record_id}"}}
        world.use({"tickets": {**TICKETS, "family": "all"}, "projects": {**projects, "family": "all"}})
        filled(world)
        filled(world, 0, "projects")
        world.vendor.lists["projects"] = {}
        await world.run()
        moved = world.vendor.lists["tickets"].pop(2)
        world.vendor.lists["projects"][2] = moved
        world.clock.advance(60)
        summary = await world.run()
        assert (summary.deleted, summary.published) == (0, 1)
        assert world.events[-1].endpoint == "projects"
        world.vendor.drop("projects", 2)
        world.clock.advance(60)
        assert (await world.run()).deleted == 1
        assert world.history(2)[-1] == ("delete", "12:02:00", "sweep")
        world.clock.advance(60)
        assert (await world.run()).deleted == 0


async def test_no_sweep_when_told_not_to() -> None:
    async with opened() as world:
        filled(world)
        await world.read()
        world.clock.advance(60)
        world.vendor.drop("tickets", 2)
        assert (await world.read(sweep=False)).deleted == 0


# -- faults -----------------------------------------------------------------------------------------------------------
def flaky(world: World, *answers: web.StreamResponse | None) -> None:
    """The next requests get these answers, in order; None lets one pass."""
    left = list(answers)

    def spoil(_: web.Request) -> Any:
        planned = left.pop(0) if left else None
        return None if planned is None else answered(planned)

    world.vendor.spoil = spoil


async def test_a_storm_of_429_is_waited_out_and_never_an_error() -> None:
    async with opened() as world:
        filled(world, 250)
        busy = [world.vendor.answer(b"", 429, **{"Retry-After": "30"}) for _ in range(10)]
        bare = [world.vendor.answer(b"", 429) for _ in range(5)]
        flaky(world, None, *busy, *bare)
        done = await world.read()
        assert done.published == 250
        assert world.clock.monotonic() >= 300
        assert not world.heard(EndpointFailed)


@pytest.mark.parametrize("status", [500, 502, 503, 408])
async def test_a_vendor_s_stumble_is_repeated(status: int) -> None:
    async with opened() as world:
        filled(world, 250)
        flaky(world, None, world.vendor.answer(b"<html>", status), world.vendor.answer(b"<html>", status))
        assert (await world.read()).published == 250


async def test_a_truncated_page_is_asked_for_again() -> None:
    async with opened() as world:
        filled(world, 250)
        flaky(world, None, world.vendor.answer(b'[{"id":101,"name":"n1'), world.vendor.answer(b"<html>"))
        done = await world.read()
        assert (done.published, done.rejected) == (250, 0)


async def test_a_vendor_that_stays_down_fails_the_endpoint_and_moves_no_mark() -> None:
    async with opened() as world:
        filled(world)
        await world.read()
        before = await world.row()
        world.vendor.put("tickets", 2, name="changed")
        world.vendor.spoil = lambda _: answered(world.vendor.answer({"message": "down for now"}, 503))
        summary = await world.run()
        assert not summary.complete
        assert (summary.endpoints[0].code, "down for now" in summary.endpoints[0].what) == ("unavailable", True)
        assert (await world.row())["marks"] == before["marks"]
        assert (await world.row())["failed_code"] == "unavailable"
        world.vendor.spoil = lambda _: None
        assert (await world.read()).published == 1
        assert "failed_code" not in await world.row()


async def test_wrong_credentials_stop_the_service_and_say_what_to_do() -> None:
    async with opened() as world:
        filled(world)
        await world.connect(key="another-key")
        summary = await world.run()
        (told,) = summary.endpoints
        assert told.code == "bad_credentials"
        assert "avesa setup-service" in told.what
        status = await world.status()
        assert status["status"] == "reconnect needed"
        assert "another-key" not in told.what + status["status_what"]
        await world.connect()
        assert (await world.read()).published == 3
        assert (await world.status())["status"] == "ok"


async def test_a_forbidden_endpoint_is_reported_and_the_others_go_on() -> None:
    async with opened() as world:
        secret = {**TICKETS, "path": "payroll", "deletes": None}
        world.use({"payroll": secret, "tickets": TICKETS})
        filled(world)
        world.vendor.spoil = lambda request: (
            answered(world.vendor.answer({"message": "not for you"}, 403)) if "payroll" in request.path else None
        )
        summary = await world.run()
        assert {done.endpoint: (done.code, done.published) for done in summary.endpoints} == {
            "payroll": ("forbidden", 0),
            "tickets": ("", 3),
        }
        assert not summary.complete
        assert [event.endpoint for event in world.heard(EndpointFailed)] == ["payroll"]


async def test_a_list_that_is_not_there_is_reported() -> None:
    async with opened() as world:
        world.use({"tickets": {**TICKETS, "path": "tikcets"}})
        (told,) = (await world.run()).endpoints
        assert told.code == "not_found"


async def test_a_vendor_that_says_nothing_at_all_has_an_empty_list() -> None:
    async with opened() as world:
        world.use({"tickets": {**TICKETS, "records": "data.items"}})
        world.vendor.spoil = lambda _: answered(web.Response(status=204))
        assert (await world.read()).read == 0


async def test_an_answer_of_another_kind_is_told_with_its_request() -> None:
    async with opened() as world:
        world.use({"tickets": {**TICKETS, "records": "data.items"}})
        filled(world)
        (told,) = (await world.run()).endpoints
        assert told.code == "bad_answer"
        assert told.what.startswith("GET tickets after 0: ")


async def test_a_vendor_that_ignores_the_key_is_told_from_a_vendor_with_many_records() -> None:
    async with opened() as world:
        filled(world, 100)
        whole = list(world.vendor.lists["tickets"].values())
        world.vendor.spoil = lambda _: answered(world.vendor.answer(whole))
        (told,) = (await world.run()).endpoints
        assert told.code == "pages_do_not_advance"
        assert told.what.startswith("GET tickets after 100: ")


async def test_a_redirect_to_another_host_is_not_followed() -> None:
    async with opened() as world:
        filled(world)
        world.vendor.spoil = lambda _: answered(web.Response(status=302, headers={"Location": "https://evil.example/"}))
        (told,) = (await world.run()).endpoints
        assert told.code == "wrong_host"


async def test_unusable_records_are_dead_letters_once_and_the_rest_flow_on() -> None:
    async with opened() as world:
        filled(world, 5)
        world.vendor.lists["tickets"][2]["updated"] = "soon"
        world.vendor.lists["tickets"][3]["id"] = None
        done = await world.read()
        assert (done.published, done.rejected) == (3, 2)
        letters = [key for key in world.objects.held if key.startswith("acme/dead-letter/extract/tickets/")]
        assert len(letters) == 2
        assert {told.code for told in world.heard(RecordsRejected)} == {"unreadable_time", "missing_key"}
        await world.run()
        assert len([key for key in world.objects.held if "/dead-letter/" in key]) == 2


async def test_a_record_garbled_on_its_way_is_asked_for_again_before_it_is_a_dead_letter() -> None:
    async with opened() as world:
        filled(world, 2)
        whole = b'{"id":2,"name":"n2","updated":"2026-01-31T11:00:02Z"}'
        flaky(world, world.vendor.answer(b'[{"id":1,"n":tru},' + whole + b"]"))
        done = await world.read()
        assert (done.published, done.rejected, done.calls) == (2, 0, 2)


# -- crashes ----------------------------------------------------------------------------------------------------------
async def test_killed_between_publish_and_save_the_window_is_read_again_and_nothing_doubles() -> None:
    async with opened() as world:
        filled(world)
        await world.read()
        world.vendor.put("tickets", 2, at(-1), name="changed")
        dying = world.runtime()

        async def die_on_save(call: Any) -> None:
            if call.method == "write" and call.subject == NAMES.last_updated and len(world.events) == 4:
                raise RetryableError("killed")

        world.rows.before = die_on_save
        assert not (await world.run(dying)).complete
        world.rows.before = nothing
        assert (await world.read()).published == 1
        assert world.events[-1].effective_at == world.events[-2].effective_at
        assert world.events[-1].payload == world.events[-2].payload
        assert (await world.read()).published == 0


async def test_a_record_only_a_dead_owner_published_is_deleted_when_it_is_gone() -> None:
    async with opened() as world:
        filled(world)
        await world.read()
        world.clock.advance(60)
        world.vendor.put("tickets", 4, name="short-lived")

        async def die_once_published(call: Call) -> None:
            if call.method == "put":
                world.rows.before = world.streams.before = dead

        async def dead(_: Any) -> None:
            raise RetryableError("killed")

        world.streams.after = die_once_published
        await world.run()
        world.rows.before = world.streams.before = world.streams.after = nothing
        assert [op for op, _, _ in world.history(4)] == ["upsert"]
        world.vendor.drop("tickets", 4)
        world.clock.advance(60)
        assert (await world.run()).deleted == 1
        assert [op for op, _, _ in world.history(4)] == ["upsert", "delete"]


async def test_a_long_walk_goes_on_where_it_was_saved() -> None:
    async with opened() as world:
        filled(world, 1_000)

        def down_after_five(request: web.Request) -> Any:
            world.clock.advance(ledger.UNSAVED_S / 3)  # each page takes its time
            if len(world.vendor.asked) > 6:
                return answered(world.vendor.answer(b"", 400))
            return None

        world.vendor.spoil = down_after_five
        assert not (await world.run()).complete
        assert len(world.events) == 600
        world.vendor.spoil = lambda _: None
        world.vendor.asked.clear()
        assert (await world.read()).published == 400
        assert "where=id%20%3E%20600" in world.vendor.asked[0]
        assert sorted(int(event.record_id) for event in world.events) == list(range(1, 1_001))


async def test_what_changed_behind_a_walk_that_stopped_is_read_after_it() -> None:
    async with opened() as world:
        filled(world, 300)
        flaky(world, None, None, world.vendor.answer(b"", 400))
        await world.run()
        world.clock.advance(86_400)
        world.vendor.put("tickets", 1, name="changed while nobody read")
        assert (await world.read()).published == 101
        assert world.history(1)[-1][1] == "12:00:00"


async def test_a_lost_memory_is_told_and_rebuilt_and_nothing_is_deleted_meanwhile() -> None:
    async with opened() as world:
        filled(world)
        await world.read()
        segments = [key for key in world.objects.held if "/state/memory/" in key]
        await world.objects.delete(segments)
        world.vendor.drop("tickets", 2)
        done = await world.read()
        assert world.heard(MemoryLost)
        assert (done.published, done.deleted) == (4, 0)  # by the vendor's stamp, and as it was read
        assert (await world.read()).published == 0


async def test_what_comes_back_under_its_old_stamp_while_the_memory_is_lost_is_there_again() -> None:
    async with opened() as world:
        filled(world)
        await world.read()
        kept = dict(world.vendor.lists["tickets"][2])
        world.vendor.drop("tickets", 2)
        world.clock.advance(86_400)
        await world.read()
        assert world.history(2)[-1][0] == "delete"
        await world.objects.delete([key for key in world.objects.held if "/state/memory/" in key])
        world.vendor.lists["tickets"][2] = kept
        world.clock.advance(60)
        await world.read()
        op, at_time, evidence = world.history(2)[-1]
        assert (op, evidence) == ("upsert", "read")
        assert at_time > next(event[1] for event in world.history(2) if event[0] == "delete")


async def test_a_stream_that_takes_nothing_moves_no_mark() -> None:
    async with opened() as world:
        filled(world)
        world.streams.fail_next("put", RetryableError("throttled"), times=12)
        assert not (await world.run()).complete
        assert world.events == []
        assert (await world.read()).published == 3


async def test_what_a_stream_took_before_it_failed_is_not_published_again() -> None:
    async with opened() as world:
        for record_id in (1, 2, 3):
            world.vendor.put("tickets", record_id, at(-60), name="x" * 600_000)  # an envelope each

        async def down_after_two(call: Call) -> None:
            if call.method == "put" and len(world.events) == 2:
                raise RetryableError("down")

        world.streams.before = down_after_two
        worker = world.runtime()
        assert not (await world.run(worker)).complete
        world.streams.before = nothing
        assert sum(event.count for event in world.heard(EventsPublished)) == 2
        assert (await world.read()).published == 1
        assert [event.record_id for event in world.events] == ["1", "2", "3"]


async def test_a_record_whose_last_event_was_not_taken_is_not_taken_for_published() -> None:
    async with opened() as world:
        world.vendor.put("tickets", 1, at(-60), name="a" * 600_000)
        await world.read()
        await world.objects.delete([key for key in world.objects.held if "/state/memory/" in key])

        async def down_after_one(call: Call) -> None:
            if call.method == "put" and len(world.events) == 2:
                raise RetryableError("down")

        world.streams.before = down_after_one  # by its stamp and as it was read, an envelope each
        world.clock.advance(60)
        assert not (await world.run()).complete
        world.streams.before = nothing
        assert (await world.read()).published == 1
        assert [event.effective_at for event in world.events] == [at(-60), at(-60), at(60)]


async def test_a_record_that_a_page_shows_twice_is_the_later_of_the_two_and_told_once() -> None:
    async with opened() as world:
        world.use({"tickets": TICKETS | {"deletes": None}}, pagination={"type": "none"})
        stamp = at(-60)[:19] + "Z"
        twice = [{"id": 1, "name": name, "updated": stamp} for name in "ab"]
        older = [
            {"id": 2, "name": name, "updated": at(-second)[:19] + "Z"} for name, second in (("new", 30), ("old", 90))
        ]
        world.vendor.spoil = lambda _: answered(world.vendor.answer([*twice, *older]))
        runtime = world.runtime()
        assert (await world.read(runtime=runtime)).published == 2
        assert [b'"b"' in bytes(event.payload or b"") for event in world.events] == [True, False]
        assert b'"new"' in bytes(world.events[1].payload or b"")
        world.clock.advance(60)
        assert (await world.read()).published == 0
        assert [told.count for told in world.heard(RecordsRepeated)] == [2, 2]  # once by each worker


async def test_another_owner_is_waited_for_and_then_named() -> None:
    async with opened() as world:
        filled(world)
        holder = world.runtime()
        lease = await holder.leases.acquire(LEASE_SCOPE, "acme/desk")
        assert lease is not None
        runtime = world.runtime()

        async def keep_alive(call: Any) -> None:
            if call.method == "get" and call.subject == NAMES.leases and not lease.lost.is_set():
                await world.rows.write(NAMES.leases, lease.key, {"counter": lease.counter + 1}, expect=lease.mine)
                lease.counter += 1

        world.rows.before = keep_alive
        (told,) = (await world.run(runtime)).endpoints
        assert told.code == "already_running"
        assert holder.leases.worker in told.what


async def test_a_dead_owner_s_work_is_taken_over_and_what_it_had_not_saved_is_told() -> None:
    async with opened() as world:
        filled(world)
        dead = world.runtime()
        lease = await dead.leases.acquire(LEASE_SCOPE, "acme/desk")
        assert lease is not None
        progress: dict[str, Value] = {"counter": 7, "progress": {"unsaved": 12}}
        await world.rows.write(NAMES.leases, lease.key, progress, expect=lease.mine)
        assert (await world.read()).published == 3
        (told,) = world.heard(EventsReadAgain)
        assert (told.shard, told.count) == ("acme/desk", 12)


async def test_an_owner_that_thaws_cannot_save() -> None:
    async with opened() as world:
        filled(world, 250)
        before: dict[str, Any] = {}

        async def overtaken(_: Any) -> None:
            key = {"tenant_id": "acme", "service_endpoint": "desk#tickets"}
            world.streams.before = nothing
            before.update((await world.row())["marks"])
            await world.rows.write(NAMES.last_updated, key, {"epoch": 99})

        world.streams.before = overtaken
        (told,) = (await world.run()).endpoints
        assert told.code == "fenced"
        assert len(world.events) == 100  # what it had begun to publish; the next page is fenced before it is
        assert (await world.row())["marks"] == before


# -- who and what -----------------------------------------------------------------------------------------------------
async def test_one_tenant_s_failure_is_not_another_s() -> None:
    async with opened(connected=("acme", "globex")) as world:
        filled(world)
        await world.secrets.delete(NAMES.secret("acme", "desk"))
        summary = await world.run()
        assert {(done.tenant_id, done.code, done.published) for done in summary.endpoints} == {
            ("acme", "bad_credentials", 0),
            ("globex", "", 3),
        }


async def test_the_same_vendor_may_be_connected_twice() -> None:
    async with opened() as world:
        await world.connect(service="desk:second")
        filled(world)
        summary = await world.run(service="desk")
        assert sorted(done.service for done in summary.endpoints) == ["desk", "desk:second"]
        assert {event.service for event in world.events} == {"desk", "desk:second"}


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"tenant_id": "nobody"}, "unknown_tenant"),
        ({"service": "payroll"}, "unknown_service"),
        ({"endpoint": "tikcets"}, "usage"),
    ],
)
async def test_what_is_not_there_is_an_error_of_whoever_asked(options: dict[str, Any], code: str) -> None:
    async with opened() as world:
        with pytest.raises(UsageError) as raised:
            await world.run(**options)
        assert raised.value.code == code


async def test_a_paused_service_is_left_alone() -> None:
    async with opened() as world:
        await world.connect(enabled=False)
        assert (await world.run()).endpoints == ()
        with pytest.raises(UsageError):
            await world.run(tenant_id="acme")


async def test_the_lease_is_let_go_and_nothing_unsaved_is_left() -> None:
    async with opened() as world:
        filled(world)
        await world.read()
        row = await world.rows.get(NAMES.leases, {"scope": LEASE_SCOPE, "name": "acme/desk"})
        assert row is not None
        assert "owner" not in row
        assert (await world.row())["last_updated"] == START


async def test_no_secret_appears_anywhere() -> None:
    async with opened() as world:
        filled(world)
        world.vendor.spoil = lambda _: answered(world.vendor.answer({"message": f"bad key {KEY}"}, 403))
        summary = await world.run()
        world.vendor.spoil = lambda _: None
        await world.run()
        told = repr(summary) + repr(world.said) + repr(world.events) + repr(await world.row())
        assert KEY not in told
        assert "***" in told
