"""The transformer at work: every observation comes out, whatever breaks on the way."""

import asyncio
import random
from collections.abc import Sequence

import msgspec
import pytest

from services.contracts.envelope import BODY_BYTES_MAX, Header, join
from services.contracts.errors import FatalError, RetryableError, UsageError
from services.contracts.events import ChangeEvent
from services.contracts.fields import Call as CallField
from services.contracts.log import (
    EventsReadAgain,
    FieldsMissing,
    LeaseLost,
    MappingHeld,
    MemoryLost,
    RecordsRejected,
)
from services.contracts.partitions import HASH_KEY_SPACE, Partition
from services.contracts.ports import Entry, Put
from services.contracts.times import seconds_between, shifted
from services.runtime.envelopes import seal
from services.runtime.lanes import Bounds
from services.runtime.leases import STALL_MAX_S
from services.runtime.publisher import Publisher
from services.runtime.runtime import Runtime
from services.transformer.shard import COMMIT_ATTEMPTS_MAX, QUIET_COMMIT_S, Limits
from tests.fakes import Call
from tests.transformer.world import (
    FIELDS,
    LEASE_S,
    NAMES,
    Worker,
    World,
    facts,
    files,
    gone,
    labels,
    texts,
    ticket,
    time,
)

EVERY_BATCH = Limits(commit_s=0.0)
PARTITION = Partition("acme", "desk", "tickets")


# -- what comes out ---------------------------------------------------------------------------------------------------
async def test_every_observation_comes_out_mapped_and_labelled() -> None:
    world = World()
    await world.publish(ticket("1", 1), ticket("1", 2, "Screen"), gone("1", 3), ticket("2", 1), ticket("1", 4))
    await world.publish(ticket("1", 2, "Screen"), ticket("1", 1, "Mouse"), ticket("1", 4, touched=9, observed=9))
    assert texts(await world.drain()) == [
        ("1", "new"),
        ("1", "changed"),
        ("1", "deleted"),
        ("2", "new"),
        ("1", "restored"),
        ("1", "repeated"),
        ("1", "late"),
        ("1", "touched"),
    ]


async def test_what_no_table_wants_does_not_come_out_and_is_no_error() -> None:
    world = World()
    await world.publish(ticket("1"), ticket("2", endpoint="notes"), gone("3", endpoint="notes"))
    assert texts(await world.drain()) == [("1", "new")]
    assert world.letters() == {}


async def test_an_envelope_that_concerns_no_table_is_not_even_opened() -> None:
    world = World(shards=1)
    await world.put_raw(join(Header(1, PARTITION, "notes", 1, 10, "wrong"), b"no zstd"))
    assert (await world.worker().drain()).events == 0
    assert world.letters() == {}


async def test_canonical_envelopes_hold_one_tenants_table_and_keep_the_replay_flag() -> None:
    world = World()
    await world.publish(ticket("1"), ticket("1", tenant="acme-2"))
    await world.publish(ticket("2"), replay=True)
    await world.worker().drain()
    headers = [(h.partition.text, h.endpoint, h.replay) for h, _ in world.envelopes()]
    assert sorted(headers) == [
        ("acme-2/desk/tickets/0", "tickets", False),
        ("acme/desk/tickets/0", "tickets", False),
        ("acme/desk/tickets/0", "tickets", True),
    ]


async def test_a_second_drain_has_nothing_left_to_do() -> None:
    world = World()
    await world.publish(ticket("1"), ticket("2"))
    assert (await world.worker().drain()).events == 2
    assert (await world.worker().drain()).events == 0
    assert len(world.canonical()) == 2


async def test_labels_go_on_where_another_worker_stopped() -> None:
    world = World()
    await world.publish(ticket("1", 1))
    await world.drain()
    await world.publish(ticket("1", 2, "Screen"))
    assert texts(await world.drain()) == [("1", "new"), ("1", "changed")]


async def test_an_event_too_large_for_the_stream_is_fetched_from_beside_it() -> None:
    world = World()
    await world.publish(ticket("1", summary="x" * (2 * BODY_BYTES_MAX)), ticket("2"))
    assert texts(await world.drain()) == [("1", "new"), ("2", "new")]


async def test_a_flood_is_published_and_committed_in_pieces() -> None:
    world = World(shards=1)
    await world.publish(*(ticket(str(number)) for number in range(400)), together=10)
    small = Limits(commit_s=3600, commit_events=100, slice_bytes_max=2_000, output_bytes_max=10_000)
    written: list[str] = []

    async def note(call: Call) -> None:
        if call.method == "create" and "/state/" in call.subject:
            written.append(call.subject)

    world.objects.before = note
    assert (await world.worker(limits=small).drain()).events == 400
    assert len(written) == 4


# -- what cannot be used ----------------------------------------------------------------------------------------------
async def test_a_bad_record_among_ten_thousand_stops_none_of_the_others() -> None:
    world = World(shards=1)
    events = [ticket(str(number)) for number in range(10_000)]
    events[4_321] = ticket("4321", hours="soon")
    await world.publish(*events)
    assert (await world.worker().drain()).rejected == 1
    assert {event.record_id for event in world.canonical()} == {str(n) for n in range(10_000) if n != 4_321}
    ((key, letter),) = world.letters().items()
    sequence = world.streams.records(NAMES.raw_stream)[4].sequence
    assert key == f"acme/dead-letter/transform/tickets/shardId-000000000000-{sequence}-322.json"
    assert (letter.code, letter.where) == ("bad_value", "$.hours")
    assert letter.text is not None
    assert msgspec.json.decode(letter.text, type=ChangeEvent).record_id == "4321"
    ((said),) = world.of(RecordsRejected)
    assert isinstance(said, RecordsRejected)
    assert (said.tenant_id, said.group, said.code, said.count) == ("acme", "tickets", "bad_value", 1)


@pytest.mark.parametrize(
    "payload", [b'{"id":', b'{"id":"\xff"}', b"[]", b'{"id":' + b"[" * 3_000 + b"]" * 3_000 + b"}", b'{"id":{}}']
)
async def test_a_payload_that_cannot_be_read_is_a_dead_letter_of_its_own(payload: bytes) -> None:
    world = World()
    bad = (
        b'{"tenant_id":"acme","service":"desk","endpoint":"tickets","record_id":"9","op":"upsert","effective_at":"%b",'
        % (time(1).encode())
        + b'"observed_at":"%b","payload":%b}' % (time(1).encode(), payload)
    )
    await put_lines(world, [msgspec.json.encode(ticket("1")), bad, msgspec.json.encode(ticket("2"))])
    assert texts(await world.drain()) == [("1", "new"), ("2", "new")]
    assert len(world.letters()) == 1


async def test_an_event_in_another_tenants_envelope_is_never_taken_for_its_own() -> None:
    world = World()
    await put_lines(world, [msgspec.json.encode(ticket("1", tenant="other"))])
    assert await world.drain() == []
    (letter,) = world.letters().values()
    assert (letter.tenant_id, letter.code) == ("acme", "bad_row")


async def put_lines(world: World, lines: list[bytes]) -> None:
    (sealed,) = seal(PARTITION, "tickets", lines)
    await world.put_raw(sealed.data)


@pytest.mark.parametrize(
    ("data", "tenant"),
    [
        (b"hello", "_avesa"),
        (b"", "_avesa"),
        (join(Header(2, PARTITION, "tickets", 1, 1, ""), b"x"), "_avesa"),
        (join(Header(1, Partition("../other", "desk", "tickets"), "tickets", 1, 1, ""), b"x"), "_avesa"),
        (join(Header(1, Partition("acme", "desk/..", "tickets"), "tickets", 1, 1, ""), b"x"), "_avesa"),
        (join(Header(1, PARTITION, "../tickets", 1, 1, ""), b"x"), "_avesa"),
        (join(Header(1, PARTITION, "tickets", 1, 1, "00", object_key="other/oversize/00.ndjson.zst"), b""), "_avesa"),
        (join(Header(1, PARTITION, "tickets", 1, 1, "00", object_key="acme/oversize/00.ndjson.zst"), b""), "acme"),
        (join(Header(1, PARTITION, "tickets", 1, 10, "wrong"), b"no zstd"), "acme"),
        (join(Header(1, PARTITION, "tickets", 1, -1, "wrong"), b""), "acme"),
    ],
)
async def test_a_bad_envelope_is_a_dead_letter_with_its_bytes_and_the_shard_goes_on(data: bytes, tenant: str) -> None:
    world = World(shards=1)
    await world.publish(ticket("1"))
    await world.put_raw(data)
    await world.publish(ticket("2"))
    assert texts(await world.drain()) == [("1", "new"), ("2", "new")]
    ((key, letter),) = world.letters().items()
    assert key.startswith(f"{tenant}/dead-letter/transform/")
    assert letter.code == "bad_envelope"
    assert letter.text is not None or letter.base64 is not None


async def test_a_dead_letter_met_again_is_the_same_one() -> None:
    world = World(shards=1)
    await world.publish(ticket("1", hours="soon"))
    await world.drain()
    first = world.letters()
    for row in (await world.lease_rows()).values():
        await world.rows.write(NAMES.leases, {"scope": row["scope"], "name": row["name"]}, {"position": None})
    world.clock.advance(60)
    await world.drain()
    assert world.letters() == first


# -- what breaks ------------------------------------------------------------------------------------------------------
async def test_killed_between_publish_and_commit_the_same_events_come_out_again() -> None:
    world = World(shards=1)
    events = [ticket("1", 1), ticket("2", 1), ticket("1", 2, "Screen"), gone("2", 3)]
    await world.publish(*events)
    worker, dying = world.worker(limits=EVERY_BATCH), asyncio.Event()

    async def die(call: Call) -> None:
        if call.method == "create" and "/state/" in call.subject:
            dying.set()
            await asyncio.Event().wait()

    world.objects.before = die
    async with worker.running():
        await dying.wait()
    assert len(world.canonical()) == 4
    world.objects.before = nothing
    await world.drain()
    assert len(world.canonical()) == 8
    assert len(facts(world.canonical())) == 4
    assert labels(world.canonical()[4:]) == labels(world.canonical()[:4])


async def nothing(_: Call) -> None:
    return


async def test_killed_between_state_and_position_the_next_owner_starts_from_the_committed_pair() -> None:
    world = World(shards=1)
    await world.publish(ticket("1", 1))
    await world.drain()
    await world.publish(ticket("1", 2, "Screen"))
    worker, dying = world.worker(limits=EVERY_BATCH), asyncio.Event()

    async def die(call: Call) -> None:
        if call.method == "create" and "/state/" in call.subject:
            dying.set()
            await asyncio.Event().wait()

    world.objects.after = die
    async with worker.running():
        await dying.wait()
    world.objects.after = nothing
    assert texts((await world.drain())[1:]) == [("1", "changed"), ("1", "changed")]


async def test_what_a_dead_owner_had_read_is_counted_when_it_is_read_again() -> None:
    world = World(shards=1)
    await world.publish(ticket("1"), ticket("2"))
    worker = world.worker(limits=Limits(commit_s=3600))
    async with worker.running():
        await until(world, lambda: len(world.canonical()) == 2)
        await world.clock.sleep(LEASE_S)  # its progress is written with a renewal
    await world.publish(ticket("3"))
    await world.drain()
    assert [event.count for event in world.of(EventsReadAgain)] == [2]  # type: ignore[attr-defined]


async def until(world: World, true: object) -> None:
    for _ in range(1_000):
        if true():  # type: ignore[operator]
            return
        await world.clock.sleep(0.1)
    raise AssertionError("it never came about")


async def test_a_stopped_worker_commits_what_it_has_and_lets_go() -> None:
    world = World(shards=2)
    worker = world.worker(limits=Limits(commit_s=3600))
    async with worker.running():
        await world.publish(ticket("1"), ticket("2"))
        await until(world, lambda: len(world.canonical()) == 2)
        await worker.stop()
    rows = await world.lease_rows()
    assert all("owner" not in row for row in rows.values())
    assert (await world.worker().drain()).events == 0


async def test_an_idle_worker_commits_after_a_while_and_then_writes_nothing() -> None:
    world = World(shards=1)
    async with world.worker().running():
        await world.publish(ticket("1"))
        await until(world, lambda: len(world.canonical()) == 1)
        await world.clock.sleep(10)
        (row,) = (await world.lease_rows()).values()
        assert row["position"] == world.streams.records(NAMES.raw_stream)[0].sequence
        states = [key for key in world.objects.held if "/state/" in key]
        await world.clock.sleep(60)
        assert [key for key in world.objects.held if "/state/" in key] == states


async def test_a_quiet_shards_row_says_once_an_hour_of_the_wall_clock_that_it_was_read_to_its_end() -> None:
    world = World(shards=1)
    async with world.worker().running():
        await world.publish(ticket("1"))
        await until(world, lambda: len(world.canonical()) == 1)
        await world.clock.sleep(10)
        told = []
        for _ in range(3):
            (row,) = (await world.lease_rows()).values()
            told.append(seconds_between(row["read_to_end_at"], world.clock.now()))
            world.clock.set(shifted(world.clock.now(), seconds=QUIET_COMMIT_S))
            await world.clock.sleep(10)
        assert max(told) < 20.0


async def test_a_worker_that_was_replaced_commits_nothing_and_drops_the_shard_quietly() -> None:
    world = World(shards=1)
    frozen = world.worker(limits=Limits(commit_s=20))
    async with frozen.running():
        await world.publish(ticket("1"))
        await until(world, lambda: len(world.canonical()) == 1)
        (row,) = (await world.lease_rows()).values()
        at = {"scope": row["scope"], "name": row["name"]}
        await world.rows.write(NAMES.leases, at, {"owner": "another", "epoch": row["epoch"] + 1, "counter": 0})
        await world.clock.sleep(0.5 * LEASE_S)
        await world.publish(ticket("2"))
        await world.clock.sleep(0.4 * LEASE_S)
        (row,) = (await world.lease_rows()).values()
        assert "position" not in row
        assert world.of(LeaseLost)
        assert texts(world.canonical()) == [("1", "new")]
        assert not frozen.task.done()


@pytest.mark.parametrize("times", [1, COMMIT_ATTEMPTS_MAX])
async def test_a_commit_that_failed_after_its_state_was_written_is_made_before_anything_else(times: int) -> None:
    world = World(shards=1)

    async def fail_the_commit(call: Call) -> None:
        if call.method == "create" and "/state/" in call.subject:
            world.objects.after = nothing
            world.rows.fail_next("write", RetryableError("down"), times)
            await world.publish(ticket("1", 2, "Screen"))

    await world.publish(ticket("1", 1))
    world.objects.after = fail_the_commit
    await world.worker().drain()
    await world.worker().drain()
    assert labels(world.canonical()) == ["new", "changed"]
    (row,) = (await world.lease_rows()).values()
    assert row["position"] == world.streams.records(NAMES.raw_stream)[-1].sequence


async def test_what_the_former_owner_committed_at_the_last_moment_counts() -> None:
    world = World(shards=1)
    await world.publish(ticket("1", 1))
    await world.drain()
    (row,) = (await world.lease_rows()).values()
    await world.publish(ticket("1", 2))
    reached = world.streams.records(NAMES.raw_stream)[-1].sequence

    async def commit_late(call: Call) -> None:
        """Between the new owner's look at the row and its taking over."""
        if call.method == "write":
            world.rows.before = nothing
            at = {"scope": row["scope"], "name": row["name"]}
            await world.rows.write(NAMES.leases, at, {"position": reached})

    world.rows.before = commit_late
    assert (await world.worker().drain()).events == 0


@pytest.mark.parametrize("method", ["put", "get", "create", "read", "iterator", "write", "describe"])
async def test_whatever_fails_for_a_while_is_tried_again_until_every_event_is_out(method: str) -> None:
    world = World(shards=1)
    for port in (world.streams, world.objects, world.rows):
        port.fail_next(method, RetryableError("down"), times=3)
    worker = world.worker(limits=EVERY_BATCH)
    async with worker.running():
        await world_publish(world)
        await until(world, lambda: len(facts(world.canonical())) == 2)
        await worker.stop()
    assert (await world.worker().drain()).events == 0


async def world_publish(world: World) -> None:
    """As `publish`, by an extractor that tries again too."""
    for _ in range(5):
        try:
            return await world.publish(ticket("1"), ticket("2"))
        except RetryableError:
            continue
    raise AssertionError("the stream stayed down")


@pytest.mark.parametrize("method", ["put", "create", "write"])
async def test_an_effect_whose_answer_was_lost_does_no_harm(method: str) -> None:
    world = World(shards=1)
    await world.publish(ticket("1", 1), ticket("1", 2, "Screen"))
    worker = world.worker(limits=EVERY_BATCH)
    await world.clock.sleep(0)
    for port in (world.streams, world.objects, world.rows):
        port.lose_next(method, times=2)
    async with worker.running():
        await until(world, lambda: len(facts(world.canonical())) == 2)
        await world.clock.sleep(60)
        await worker.stop()
    assert len(facts(world.canonical())) == 2
    assert (await world.worker().drain()).events == 0


async def test_lost_state_is_told_and_labels_are_unknown_but_everything_comes_out() -> None:
    world = World(shards=1)
    await world.publish(ticket("1", 1))
    await world.drain()
    world.objects.held = {key: data for key, data in world.objects.held.items() if "/state/" not in key}
    await world.publish(ticket("1", 2, "Screen"), ticket("1", 3, "Mouse"))
    assert texts(await world.drain()) == [("1", "new"), ("1", "unknown"), ("1", "changed")]
    assert len(world.of(MemoryLost)) == 1
    await world.publish(ticket("2", 1))
    assert texts(await world.drain())[-1] == ("2", "unknown")


# -- shards that come and go ------------------------------------------------------------------------------------------
async def test_after_a_split_and_a_merge_every_child_remembers_what_it_serves() -> None:
    world = World(shards=1)
    tenants = [f"tenant{number}" for number in range(8)]
    await world.publish(*(ticket("1", 1, tenant=tenant) for tenant in tenants))
    await world.drain()
    low, high = world.streams.split(NAMES.raw_stream, "shardId-000000000000", HASH_KEY_SPACE // 2)
    await world.publish(*(ticket("1", 2, "Screen", tenant=tenant) for tenant in tenants))
    await world.drain()
    world.streams.merge(NAMES.raw_stream, low, high)
    await world.publish(*(ticket("1", 3, "Mouse", tenant=tenant) for tenant in tenants))
    assert labels(await world.drain()) == ["new"] * 8 + ["changed"] * 16


async def test_children_wait_for_their_parent_even_within_one_drain() -> None:
    world = World(shards=1)
    await world.publish(ticket("1", 1))
    low, high = world.streams.split(NAMES.raw_stream, "shardId-000000000000")
    await world.publish(ticket("1", 2, "Screen"))
    world.streams.merge(NAMES.raw_stream, low, high)
    await world.publish(ticket("1", 3, "Mouse"))
    assert texts(await world.drain()) == [("1", "new"), ("1", "changed"), ("1", "changed")]
    rows = await world.lease_rows()
    assert [rows[name].get("ended") for name in sorted(rows)] == [True, True, True, None]


async def test_a_running_worker_follows_a_reshard() -> None:
    world = World(shards=1)
    async with world.worker(limits=EVERY_BATCH).running():
        await world.publish(ticket("1", 1))
        await until(world, lambda: len(world.canonical()) == 1)
        world.streams.split(NAMES.raw_stream, "shardId-000000000000")
        await world.publish(ticket("1", 2, "Screen"))
        await until(world, lambda: len(world.canonical()) == 2)
    assert texts(world.canonical()) == [("1", "new"), ("1", "changed")]


async def test_empty_reads_are_not_the_end_of_a_drain() -> None:
    world = World(shards=1)
    await world.publish(ticket("1"))
    world.streams.empty_next(5)
    assert len(await world.drain()) == 1


async def test_a_drain_beside_a_living_worker_says_who_has_the_work() -> None:
    world = World(shards=1)
    async with world.worker().running():
        await until(world, lambda: bool(world.said))
        with pytest.raises(FatalError, match="another transformer") as caught:
            await world.worker().drain()
    assert caught.value.code == "already_running"
    assert caught.value.where.startswith(f"transformer/{NAMES.raw_stream}/")


async def test_a_drain_takes_over_from_a_dead_worker_within_one_and_a_half_lease_times() -> None:
    world = World(shards=1)
    async with world.worker().running():
        await until(world, lambda: bool(world.said))
    await world.publish(ticket("1"))
    before = world.clock.monotonic()
    assert len(await world.drain()) == 1
    assert world.clock.monotonic() - before <= 1.5 * LEASE_S


# -- mappings ---------------------------------------------------------------------------------------------------------
async def test_a_mapping_that_has_to_wait_leaves_the_pinned_one_in_force() -> None:
    world = World()
    await world.publish(ticket("1", 1))
    await world.drain()
    await world.publish(ticket("1", 2))
    await world.worker(files({**FIELDS, "summary": "subject"})).drain()
    assert texts(world.canonical()) == [("1", "new"), ("1", "unchanged")]
    assert len(world.of(MappingHeld)) == 1


async def test_a_mapping_that_cannot_work_is_told_at_the_start() -> None:
    with pytest.raises(UsageError, match="no_such"):
        World().worker(files({"summary": CallField("no_such", ["x"])}))


async def test_drift_is_told_once_many_records_lack_a_path() -> None:
    world = World()
    await world.publish(*(ticket(str(number)) for number in range(150)))
    await world.worker(files({**FIELDS, "summary": "subject"})).drain()
    (said,) = world.of(FieldsMissing)
    assert isinstance(said, FieldsMissing)
    assert (said.endpoint, said.paths) == ("tickets", "$.customFields, $.subject")


# -- killed anywhere --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(25))
async def test_killed_anywhere_again_and_again_no_observation_is_lost_and_none_invented(seed: int) -> None:
    world, chance = World(shards=2), random.Random(seed)
    events = [
        gone(record_id, at) if chance.random() < 0.2 else ticket(record_id, at, chance.choice(["Printer", "Screen"]))
        for record_id, at in ((str(chance.randrange(6)), chance.randrange(1, 20)) for _ in range(60))
    ]
    for start in range(0, len(events), 6):
        await world.publish(*events[start : start + 6], together=2)
    for _ in range(6):
        dying, left = asyncio.Event(), chance.randrange(5, 60)

        async def die(_: Call, dying: asyncio.Event = dying) -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                dying.set()
                await asyncio.Event().wait()

        ports = (world.streams, world.objects, world.rows)
        for port in ports:
            port.before, port.after = (die, nothing) if chance.random() < 0.5 else (nothing, die)
        async with world.worker(limits=Limits(commit_s=0.0, slice_bytes_max=400, output_bytes_max=800)).running():
            await asyncio.wait(
                {asyncio.ensure_future(dying.wait()), asyncio.ensure_future(world.clock.sleep(30))},
                return_when="FIRST_COMPLETED",
            )
        for port in ports:
            port.before = port.after = nothing
    await world.drain()
    expected = World(shards=1)
    await expected.publish(*events)
    assert facts(world.canonical()) == facts(await expected.drain())
    assert (await world.worker().drain()).events == 0
    assert not any("/dead-letter/" in key for key in world.objects.held)


async def test_nobody_transforms_where_every_shard_could_be_leased_and_a_worker_at_work_is_noticed() -> None:
    world = World()
    assert await world.worker().resting()
    assert all(row.get("owner") is None for row in (await world.lease_rows()).values())
    async with world.worker().running() as worker:
        await worker.ports.clock.sleep(1)
        assert not await world.worker().resting()
    assert await world.worker().resting()  # it was killed: its leases are free after a while


# -- a canonical stream that is down or slow --------------------------------------------------------------------------
def narrow(world: World, lane_bytes_max: int) -> Worker:
    """A worker whose publisher holds little, and which publishes little at a time."""

    class Narrow(Runtime, frozen=True):
        def publisher(self, stream: str) -> Publisher:
            bounds = Bounds(lane_bytes_max=lane_bytes_max)
            return Publisher(stream, self.streams, self.objects, self.clock, self.chance, self.emit, bounds)

    runtime = world.runtime()
    ports = {name: getattr(runtime, name) for name in runtime.__struct_fields__}
    return Worker(Narrow(**ports), files(), Limits(output_bytes_max=3_000, slice_bytes_max=3_000))


async def test_row_24_what_is_given_up_while_it_waits_for_room_is_not_taken_for_stored() -> None:
    world = World(shards=1)
    wanted = {str(number) for number in range(100)}
    for number in wanted:
        await world.publish(ticket(number, summary="x" * 500, tenant=f"t{number}"), together=1)

    async def refuse(call: Call) -> None:
        if down and (call.method, call.subject) == ("put", NAMES.canonical_stream):
            raise RetryableError("down")

    down, world.streams.before = True, refuse
    async with narrow(world, lane_bytes_max=5_000).running():
        await world.clock.sleep(150)  # longer than a publisher tries
        assert [row.get("position") for row in (await world.lease_rows()).values()] == [None]
        down = False
        await world.clock.sleep(300)
    assert {event.record_id for event in world.canonical()} == wanted


async def test_row_21_a_slow_shard_of_the_canonical_stream_costs_no_lease_and_nothing_twice() -> None:
    world = World(shards=1)
    for number in range(60):
        await world.publish(ticket(str(number), summary="x" * 500, tenant=f"t{number}"), together=1)
    put, free_at = world.streams.put, 0.0

    async def slow(stream: str, entries: Sequence[Entry]) -> list[Put]:
        """One entry now and then: a lane takes longer than a stalled owner may."""
        nonlocal free_at
        taken = 0 if world.clock.monotonic() < free_at else 1
        if taken:
            free_at = world.clock.monotonic() + STALL_MAX_S / 10
        refused = [Put(error="ProvisionedThroughputExceededException")] * (len(entries) - taken)
        return [*(await put(stream, entries[:taken]) if taken else []), *refused]

    world.streams.put = slow  # type: ignore[method-assign]
    async with narrow(world, lane_bytes_max=20_000).running():
        await world.clock.sleep(60 * STALL_MAX_S / 10 * 1.5)
    assert (len(world.canonical()), world.of(LeaseLost)) == (60, [])


async def test_what_a_shard_that_was_let_go_had_on_its_way_is_not_sent_any_more() -> None:
    world = World(shards=1)
    await world.publish(ticket("1"))

    async def refuse(call: Call) -> None:
        if (call.method, call.subject) == ("put", NAMES.canonical_stream):
            raise RetryableError("down")

    world.streams.before = refuse
    worker = world.worker(limits=EVERY_BATCH)
    async with worker.running():
        await world.clock.sleep(10)
        await worker.stop()
        world.streams.before = nothing
        await world.clock.sleep(60)
        assert world.canonical() == []
