"""What changed, as vendors tell it: by token, by id, newest first, or not at all. Over real HTTP."""

from typing import Any

from aiohttp import web

from services.contracts.errors import RetryableError
from services.contracts.times import shifted
from tests.extractor.world import NAMES, START, SWEEP, World, answered, opened
from tests.fakes import Call, nothing

USERS: dict[str, Any] = {
    "path": "users/delta",
    "record_id": "id",
    "updated_at": "updated",
    "records": "value",
    "pagination": {"type": "next_url", "path": "next"},
    "incremental": {"type": "delta", "path": "delta", "param": "token"},
    "deleted_when": {"path": "removed"},
}
EVENTS: dict[str, Any] = {"path": "events", "record_id": "id", "updated_at": "updated", "incremental": {"type": "id"}}
NEWS: dict[str, Any] = {
    "path": "news",
    "record_id": "id",
    "updated_at": "updated",
    "pagination": {"type": "page", "size_param": "size", "size": 10},
    "incremental": {"type": "time", "newest_first": True, "overlap_s": 5, "lag_s": 300},
}


def at(seconds: float) -> str:
    return shifted(START, seconds=seconds)


class Delta:
    """A list with delta tokens: `log` is every change, in order; the token is how many of them are known."""

    def __init__(self, world: World, page: int = 2) -> None:
        self.world, self.page = world, page
        self.log: list[dict[str, Any]] = []
        self.expired = False
        world.vendor.routes["users/delta"] = self.answer

    def put(self, record_id: int, **fields: Any) -> None:
        self.log.append({"id": record_id, **fields, "updated": self.world.clock.now()[:19] + "Z"})

    def drop(self, record_id: int) -> None:
        self.log.append({"id": record_id, "removed": {"reason": "deleted"}})

    def answer(self, request: web.Request) -> web.Response:
        token, skip = request.query.get("token"), int(request.query.get("skip", "0"))
        if token is not None and self.expired:
            return self.world.vendor.answer({"message": "resync"}, 410)
        if token is not None:
            changes = self.log[int(token) :]
        else:
            latest = {change["id"]: change for change in self.log}
            changes = [change for change in latest.values() if "removed" not in change]
        page = changes[skip : skip + self.page]
        body: dict[str, Any] = {"value": page}
        if skip + self.page < len(changes):
            mine = f"token={token}&" if token is not None else ""
            body["next"] = f"{self.world.vendor.url}/users/delta?{mine}skip={skip + self.page}"
        else:
            body["delta"] = str(len(self.log))
        return self.world.vendor.answer(body)


# -- by token ---------------------------------------------------------------------------------------------------------
async def test_a_delta_token_brings_what_changed_and_what_was_removed() -> None:
    async with opened() as world:
        world.use({"users": USERS})
        users = Delta(world)
        for number in range(1, 6):
            users.put(number)
        assert (await world.read()).published == 5
        assert (await world.row("users"))["marks"]["token"] == "5"
        world.clock.advance(60)
        users.put(2, name="new")
        users.drop(3)
        done = await world.read()
        assert (done.read, done.published, done.deleted, done.calls) == (2, 1, 1, 1)
        assert world.vendor.asked[-1] == "/users/delta?token=5"
        assert world.history(3)[-1] == ("delete", "12:01:00", "vendor")
        world.clock.advance(60)
        users.put(3)
        assert (await world.read()).published == 1
        assert [op for op, _, _ in world.history(3)] == ["upsert", "delete", "upsert"]


async def test_a_token_is_kept_only_once_everything_it_brought_is_acknowledged() -> None:
    async with opened() as world:
        world.use({"users": USERS})
        users = Delta(world)
        users.put(1)
        await world.read()
        world.clock.advance(60)
        users.put(2)

        async def down(call: Call) -> None:
            if call.method == "put":
                raise RetryableError("down")

        world.streams.before = down
        assert not (await world.run()).complete
        assert (await world.row("users"))["marks"]["token"] == "1"
        world.streams.before = nothing
        assert (await world.read()).published == 1


async def test_a_token_that_is_not_taken_any_more_means_that_all_is_read_and_nothing_is_deleted() -> None:
    async with opened() as world:
        listed = {"deletes": {**SWEEP, "path": "users", "records": "", "confirm": "users/{record_id}"}}
        world.use({"users": USERS | listed})
        users = Delta(world)
        for number in range(1, 6):
            users.put(number)
            world.vendor.put("users", number)
        await world.read()
        world.clock.advance(60)
        users.drop(3)
        users.put(4, name="new")
        world.vendor.drop("users", 3)
        world.vendor.routes["users/3"] = lambda _: world.vendor.answer({}, 410)
        users.expired = True
        done = await world.read(sweep=False)
        assert (done.read, done.published, done.deleted) == (4, 1, 0)
        assert (await world.row("users"))["marks"]["token"] == "7"
        users.expired = False
        done = await world.read()  # what no token tells any more is found by looking
        assert (done.published, done.deleted) == (0, 1)
        assert "/users?fields=id" in world.vendor.asked
        assert world.history(3)[-1][0] == "delete"


async def test_a_full_read_keeps_the_token_that_tells_what_was_deleted_before_it() -> None:
    async with opened() as world:
        world.use({"users": USERS})
        users = Delta(world)
        users.put(1)
        users.put(2)
        await world.read()
        world.clock.advance(60)
        users.drop(2)
        key = {"tenant_id": "acme", "service_endpoint": "desk#users"}
        await world.rows.write(NAMES.last_updated, key, {"reread_asked_at": world.clock.now()})
        assert (await world.read()).published == 1  # all that is there, again
        await world.read()
        assert world.history(2)[-1][0] == "delete"


async def test_a_delta_walk_that_was_stopped_begins_again_with_its_token() -> None:
    async with opened() as world:
        world.use({"users": USERS})
        users = Delta(world, page=1)
        users.put(1)
        await world.read()
        world.clock.advance(60)
        users.put(2)
        users.put(3)
        world.vendor.spoil = lambda request: (
            answered(world.vendor.answer(b"", 400)) if "skip" in request.query else None
        )
        assert not (await world.run()).complete
        world.vendor.spoil = lambda _: None
        assert (await world.read()).published == 1
        assert [event.record_id for event in world.events] == ["1", "2", "3"]


async def test_each_parent_has_a_token_of_its_own() -> None:
    async with opened() as world:
        world.use(
            {
                "groups": {"path": "groups", "record_id": "id"},
                "users": USERS
                | {
                    "path": "groups/{parent_id}/delta",
                    "parent": {"endpoint": "groups"},
                },
            }
        )
        told: dict[str, int] = {"1": 10, "2": 20}
        expired: set[str] = set()

        def answer(request: web.Request) -> web.Response:
            group, token = request.path.split("/")[2], request.query.get("token")
            if token is not None and group in expired:
                return world.vendor.answer({}, 410)
            first = 0 if token is None else int(token)
            records = [{"id": f"{group}-{number}", "updated": START} for number in range(first, told[group])]
            return world.vendor.answer({"value": records, "delta": str(told[group])})

        for group in told:
            world.vendor.put("groups", int(group))
            world.vendor.routes[f"groups/{group}/delta"] = answer
        assert (await world.run()).published == 32
        told["2"] = 22
        world.clock.advance(60)
        world.vendor.asked.clear()
        assert (await world.run()).published == 2
        assert {asked for asked in world.vendor.asked if "delta" in asked} == {
            "/groups/1/delta?token=10",
            "/groups/2/delta?token=20",
        }
        expired.add("1")
        world.clock.advance(60)
        world.vendor.asked.clear()
        summary = await world.run()
        assert (summary.complete, summary.published, summary.deleted) == (True, 0, 0)
        assert {asked for asked in world.vendor.asked if "delta" in asked} == {
            "/groups/1/delta?token=10",
            "/groups/1/delta",
            "/groups/2/delta?token=22",
        }


async def test_a_cursor_that_no_longer_holds_is_given_up() -> None:
    async with opened() as world:
        scroll = {"type": "cursor", "path": "next", "param": "cursor", "lasts": True}
        world.use({"users": {"path": "users", "record_id": "id", "records": "value", "pagination": scroll}})
        era, failing = ["a"], [True]

        def answer(request: web.Request) -> web.Response:
            cursor = request.query.get("cursor")
            if cursor is None:
                return world.vendor.answer({"value": [{"id": 1}], "next": f"{era[0]}2"})
            if failing or cursor != f"{era[0]}2":
                return world.vendor.answer({"message": "what cursor?"}, 503 if failing else 400)
            return world.vendor.answer({"value": [{"id": 2}]})

        world.vendor.routes["users"] = answer
        assert not (await world.run()).complete
        failing.clear()
        era[0] = "b"  # the vendor has forgotten
        assert not (await world.run()).complete
        assert (await world.read()).published == 1
        assert {event.record_id for event in world.events} == {"1", "2"}


# -- by id ------------------------------------------------------------------------------------------------------------
async def test_only_what_comes_after_the_highest_id_is_read() -> None:
    async with opened() as world:
        world.use({"events": EVENTS})
        for number in range(1, 251):
            world.vendor.put("events", number, at(-3_600))
        assert (await world.read()).published == 250
        world.vendor.put("events", 251)
        world.clock.advance(60)
        world.vendor.asked.clear()
        assert (await world.read()).published == 1
        assert world.vendor.asked == ["/events?order=id&size=100&where=id%20%3E%20250"]


async def test_an_id_that_shows_after_a_higher_one_is_not_passed_over() -> None:
    async with opened() as world:
        world.use({"events": EVENTS})
        world.vendor.put("events", 1, at(-3_600))
        await world.read()
        world.vendor.put("events", 2, at(10))
        world.vendor.put("events", 3, at(20))
        world.vendor.visible_at["events", 2] = at(10 + 290)
        world.clock.advance(60)
        assert (await world.read()).published == 1
        world.clock.advance(250)
        assert (await world.read()).published == 1
        assert [event.record_id for event in world.events] == ["1", "3", "2"]


# -- newest first -----------------------------------------------------------------------------------------------------
def newest_first(world: World) -> None:
    """`news`, sorted by time, newest first, whatever is asked."""

    def answer(request: web.Request) -> web.Response:
        size, page = int(request.query["size"]), int(request.query["page"])
        found = sorted(world.vendor.lists["news"].values(), key=lambda one: (one["updated"], one["id"]), reverse=True)
        return world.vendor.answer(found[(page - 1) * size : page * size])

    world.vendor.routes["news"] = answer


async def test_a_list_sorted_by_change_is_read_down_to_the_mark() -> None:
    async with opened() as world:
        world.use({"news": NEWS})
        newest_first(world)
        for number in range(1, 101):
            world.vendor.put("news", number, at(number * 10 - 9_000))
        assert (await world.read()).published == 100
        world.clock.advance(60)
        for number in range(1, 15):
            world.vendor.put("news", number, name="new")
        world.vendor.asked.clear()
        done = await world.read()
        assert done.published == 14
        assert len(world.vendor.asked) == 6  # the third page is older; and once more, for the rows that move
        world.clock.advance(60)
        assert (await world.read()).published == 0
