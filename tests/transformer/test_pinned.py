"""Pinned mappings: what a newer file may change at once, and what waits for a rebuild."""

from collections.abc import Mapping

import msgspec
import pytest

from services.contracts.errors import FatalError
from services.contracts.fields import CanonicalMapping, Constant, Field, KeyPattern
from services.contracts.integration import Endpoint
from services.contracts.log import Event, MappingHeld
from services.contracts.mapping_files import MappingFiles
from services.contracts.schema import CanonicalTable, Column
from services.transformer.pinned import (
    Held,
    Pinned,
    PinnedMappings,
    decode,
    difference,
    encode,
    reconcile,
    shipped,
)
from tests.fakes import Call, MemoryObjects
from tests.transformer.world import FIELDS, TICKETS, files

KEY = "acme/mappings/tickets/desk/{:06d}.json"


def pinned(fields: Mapping[str, Field] | None = None, table: CanonicalTable = TICKETS, **endpoints: Endpoint) -> Pinned:
    return shipped(files(fields, table, **endpoints), "acme", "desk")["tickets"]


def with_column(name: str = "city", column: Column | None = None) -> CanonicalTable:
    return msgspec.structs.replace(TICKETS, columns={**TICKETS.columns, name: column or Column("string")})


def endpoint(fields: Mapping[str, Field], **more: str) -> Endpoint:
    return Endpoint("other", "id", canonical=CanonicalMapping("tickets", dict(fields)), **more)  # type: ignore[arg-type]


def held(result: Pinned | Held) -> str:
    assert isinstance(result, Held), result
    return result.what


# -- what works at once -----------------------------------------------------------------------------------------------
def test_the_same_files_leave_the_pinned_mapping_as_it_is() -> None:
    before = pinned()
    assert reconcile(before, pinned()) is before


def test_prose_and_columns_that_nothing_fills_change_nothing() -> None:
    columns = {name: Column(c.type, "Another text", c.tracked) for name, c in TICKETS.columns.items()}
    table = CanonicalTable("tickets", {**columns, "nobody": Column("json")}, "Another text")
    before = pinned()
    assert reconcile(before, pinned(table=table)) is before


def test_a_new_column_enters_untracked_at_the_end_under_the_next_number() -> None:
    before = pinned()
    after = reconcile(before, pinned({**FIELDS, "city": "site.city"}, with_column()))
    assert isinstance(after, Pinned)
    assert after.mapping_version == 2
    assert list(after.table.columns)[-1] == "city"
    assert not after.table.columns["city"].tracked
    mapping = after.endpoints["tickets"].mapping
    assert mapping is not None
    assert mapping.fields["city"] == "site.city"


def test_a_column_that_entered_stays_untracked_and_is_no_reason_to_wait() -> None:
    wanted = pinned({**FIELDS, "city": "site.city"}, with_column())
    second = reconcile(pinned(), wanted)
    assert isinstance(second, Pinned)
    assert reconcile(second, wanted) is second
    both = msgspec.structs.replace(with_column(), columns={**with_column().columns, "zip": Column("string")})
    third = reconcile(second, pinned({**FIELDS, "city": "site.city", "zip": "site.zip"}, both))
    assert isinstance(third, Pinned)
    assert (third.mapping_version, third.entered) == (3, ["city", "zip"])


def test_a_column_the_table_had_and_nobody_filled_enters_untracked_too() -> None:
    before = pinned(table=with_column())
    after = reconcile(before, pinned({**FIELDS, "city": "site.city"}, with_column()))
    assert isinstance(after, Pinned)
    assert not after.table.columns["city"].tracked


def test_a_new_endpoint_enters_with_its_records() -> None:
    after = reconcile(pinned(), pinned(projects=endpoint(FIELDS)))
    assert isinstance(after, Pinned)
    assert (after.mapping_version, set(after.endpoints), after.entered) == (2, {"tickets", "projects"}, [])


# -- what waits -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        (pinned({**FIELDS, "summary": "subject"}), "endpoint tickets fills summary in another way"),
        (pinned({**FIELDS, "summary": Constant("x")}), "fills summary in another way"),
        (pinned({"id": "id", "summary": "summary", "hours": "hours"}), "fills last_updated in another way"),
        (pinned(table=with_column("hours", Column("float64"))), "column hours was decimal and is float64"),
        (pinned(table=with_column("summary", Column("string", tracked=False))), "summary is no longer tracked"),
        (pinned(table=with_column("last_updated", Column("timestamp"))), "last_updated became tracked"),
        (pinned(table=msgspec.structs.replace(TICKETS, scd=1)), "scd was 2 and is 1"),
        (pinned(tickets=endpoint(FIELDS, family="all")), "was of family tickets and is of all"),
        (pinned({**FIELDS, "custom_fields": "own"}), "fills custom_fields in another way"),
        (msgspec.structs.replace(pinned(), custom_fields=KeyPattern("u_")), "custom fields"),
        (pinned(tickets=msgspec.structs.replace(endpoint(FIELDS), custom_fields=KeyPattern("u_"))), "custom fields of"),
        (msgspec.structs.replace(pinned(), endpoints={}), "endpoint tickets no longer feeds the table"),
    ],
)
def test_anything_that_could_change_a_row_already_written_waits_and_says_what(wanted: Pinned, what: str) -> None:
    assert what in held(reconcile(pinned(), wanted))


def test_one_reason_to_wait_holds_back_what_could_enter_too() -> None:
    wanted = pinned({**FIELDS, "city": "site.city", "summary": "subject"}, with_column())
    assert held(reconcile(pinned(), wanted)) == "endpoint tickets fills summary in another way"


def test_a_time_zone_moves_times_hence_it_waits() -> None:
    zoned = Endpoint("tickets", "id", canonical=CanonicalMapping("tickets", dict(FIELDS), "Europe/Berlin"))
    assert "stands in Europe/Berlin" in held(reconcile(pinned(), pinned(tickets=zoned)))


def test_a_second_endpoint_may_not_fill_what_the_first_leaves_empty_when_another_fills_it() -> None:
    both = {"tickets": endpoint({"id": "id"}), "projects": endpoint(FIELDS)}
    wanted = {"tickets": endpoint({"id": "id", "summary": "s"}), "projects": endpoint(FIELDS)}
    before, after = pinned(None, TICKETS, **both), pinned(None, TICKETS, **wanted)
    assert "endpoint tickets fills summary in another way" in held(reconcile(before, after))


# -- the shell --------------------------------------------------------------------------------------------------------
class Store:
    """Objects of one bucket, and workers that pin there."""

    def __init__(self) -> None:
        self.objects = MemoryObjects()
        self.said: list[Event] = []

    def worker(self, mappings: MappingFiles | None = None) -> PinnedMappings:
        return PinnedMappings(self.objects, mappings or files(), self.said.append)


def wider() -> MappingFiles:
    return files({**FIELDS, "city": "site.city"}, with_column())


async def test_the_first_use_pins_the_files_and_the_second_reads_them() -> None:
    store = Store()
    first = await store.worker().load("acme", "desk")
    assert list(store.objects.held) == [KEY.format(1)]
    assert await store.worker().load("acme", "desk") == first
    assert list(store.objects.held) == [KEY.format(1)]


async def test_each_tenant_and_each_instance_of_a_service_has_its_own() -> None:
    store = Store()
    for tenant, service in (("acme", "desk"), ("acme", "desk:berlin"), ("acme-2", "desk")):
        assert (await store.worker().load(tenant, service))["tickets"].service == service
    assert len(store.objects.held) == 3


async def test_a_service_without_files_has_no_mappings() -> None:
    assert await Store().worker().load("acme", "unheard_of") == {}


async def test_a_wider_file_pins_the_next_number_and_the_highest_is_in_force() -> None:
    store = Store()
    await store.worker().load("acme", "desk")
    wide = await store.worker(wider()).load("acme", "desk")
    assert wide["tickets"].mapping_version == 2
    assert list(store.objects.held) == [KEY.format(1), KEY.format(2)]


async def test_an_older_worker_goes_on_with_the_newer_mapping() -> None:
    store = Store()
    wide = await store.worker(wider()).load("acme", "desk")
    assert await store.worker().load("acme", "desk") == wide


async def test_a_file_that_has_to_wait_is_told_once() -> None:
    store = Store()
    before = await store.worker().load("acme", "desk")
    changed = store.worker(files({**FIELDS, "summary": "subject"}))
    assert await changed.load("acme", "desk") == before
    await changed.load("acme", "desk")
    (said,) = store.said
    assert isinstance(said, MappingHeld)
    assert (said.tenant_id, said.table) == ("acme", "tickets")
    assert "summary" in said.what


async def test_a_table_that_no_file_names_any_longer_stays_in_force() -> None:
    store = Store()
    before = await store.worker().load("acme", "desk")
    assert await store.worker(MappingFiles({}, {})).load("acme", "desk") == before
    assert [type(event) for event in store.said] == [MappingHeld]


async def test_two_workers_who_pin_at_once_agree_on_one() -> None:
    store = Store()
    await store.worker().load("acme", "desk")

    async def another_is_faster(call: Call) -> None:
        if call.method == "create":
            store.objects.before = nothing_more
            await store.worker(files({**FIELDS, "zip": "site.zip"}, with_column("zip"))).load("acme", "desk")

    async def nothing_more(_: Call) -> None:
        return

    store.objects.before = another_is_faster
    found = (await store.worker(wider()).load("acme", "desk"))["tickets"]
    assert found.mapping_version == 2
    assert found.entered == ["zip"]


# -- as a rebuild begins ----------------------------------------------------------------------------------------------
NOW, LATER = "2026-01-01T00:00:00.000000Z", "2026-01-01T01:00:00.000000Z"
CHANGED = files({**FIELDS, "summary": "subject"})


async def test_a_rebuild_pins_the_files_as_they_are_under_the_next_number() -> None:
    store = Store()
    await store.worker().load("acme", "desk")
    renewed = await store.worker(CHANGED).renew("acme", "desk", "tickets", NOW)
    assert renewed is not None
    assert (renewed.mapping_version, renewed.rebuilt, renewed.rebuilt_at) == (2, 2, NOW)
    assert await store.worker(CHANGED).load("acme", "desk") == {"tickets": renewed}
    assert store.said == []


async def test_begun_again_it_keeps_its_number_and_its_time() -> None:
    store = Store()
    await store.worker().load("acme", "desk")
    renewed = await store.worker(CHANGED).renew("acme", "desk", "tickets", NOW)
    assert await store.worker(CHANGED).renew("acme", "desk", "tickets", LATER) == renewed
    assert len(store.objects.held) == 2


async def test_files_that_say_the_same_keep_the_number_that_was_never_rebuilt() -> None:
    store = Store()
    before = await store.worker().load("acme", "desk")
    assert await store.worker().renew("acme", "desk", "tickets", NOW) == before["tickets"]
    assert before["tickets"].rebuilt == 0


async def test_what_enters_after_a_rebuild_keeps_the_number_of_the_rebuild() -> None:
    store = Store()
    await store.worker().load("acme", "desk")
    await store.worker(CHANGED).renew("acme", "desk", "tickets", NOW)
    wide = files({**FIELDS, "summary": "subject", "city": "site.city"}, with_column())
    after = (await store.worker(wide).load("acme", "desk"))["tickets"]
    assert (after.mapping_version, after.rebuilt, after.rebuilt_at, after.entered) == (3, 2, NOW, ["city"])
    renewed = await store.worker(wide).renew("acme", "desk", "tickets", LATER)
    assert renewed is not None
    assert (renewed.mapping_version, renewed.rebuilt, renewed.entered) == (4, 4, [])
    assert renewed.table.columns["city"].tracked


async def test_a_table_that_nothing_feeds_any_longer_is_pinned_without_endpoints_and_may_come_back_as_it_is() -> None:
    store = Store()
    await store.worker().load("acme", "desk")
    silent = MappingFiles({"desk": msgspec.structs.replace(files().integrations["desk"], endpoints={})}, {})
    renewed = await store.worker(silent).renew("acme", "desk", "tickets", NOW)
    assert renewed is not None
    assert (renewed.mapping_version, renewed.endpoints) == (2, {})
    assert await store.worker(silent).renew("acme", "desk", "tickets", LATER) == renewed
    await store.worker(silent).load("acme", "desk")
    assert store.said == []
    back = (await store.worker(wider()).load("acme", "desk"))["tickets"]
    assert (back.mapping_version, back.rebuilt, back.entered) == (3, 2, [])
    assert back.table.columns["city"].tracked


async def test_of_a_service_that_no_file_knows_the_mapping_stays() -> None:
    store = Store()
    before = await store.worker().load("acme", "desk")
    stranger = store.worker(MappingFiles({}, {}))
    assert await stranger.renew("acme", "desk", "tickets", NOW) == before["tickets"]
    assert await stranger.renew("acme", "unheard_of", "tickets", NOW) is None


async def test_who_pins_while_a_rebuild_begins_comes_first() -> None:
    store = Store()
    await store.worker().load("acme", "desk")

    async def another_is_faster(call: Call) -> None:
        if call.method == "create":
            store.objects.before = nothing_more
            await store.worker(wider()).load("acme", "desk")

    async def nothing_more(_: Call) -> None:
        return

    store.objects.before = another_is_faster
    renewed = await store.worker(CHANGED).renew("acme", "desk", "tickets", NOW)
    assert renewed is not None
    assert (renewed.mapping_version, renewed.rebuilt) == (3, 3)


async def test_all_services_that_feed_a_table_are_found_by_what_is_pinned() -> None:
    store = Store()
    for service in ("desk", "desk:berlin"):
        await store.worker().load("acme", service)
    await store.worker().load("acme-2", "desk")
    await store.worker(CHANGED).renew("acme", "desk", "tickets", NOW)
    found = await store.worker().of_table("acme", "tickets")
    assert {service: pin.mapping_version for service, pin in found.items()} == {"desk": 2, "desk:berlin": 1}
    assert await store.worker().of_table("acme", "users") == {}


def test_what_waits_is_told_in_words() -> None:
    assert "fills summary in another way" in difference(pinned(), pinned({**FIELDS, "summary": "subject"}))
    assert difference(pinned(), None) == "no endpoint feeds this table any longer"
    assert difference(pinned(), pinned({**FIELDS, "city": "site.city"}, with_column())) == ""
    assert difference(msgspec.structs.replace(pinned(), endpoints={}), None) == ""


def test_a_pinned_mapping_reads_back_as_it_was_written() -> None:
    before = pinned({**FIELDS, "summary": Constant("x")})
    assert decode(encode(before), "key") == before


def test_a_pinned_mapping_that_cannot_be_read_stops_loudly() -> None:
    with pytest.raises(FatalError, match=r"acme/1\.json"):
        decode(b'{"tenant_id":"acme"}', "acme/1.json")
