"""The spool, and the tables that observations name."""

from itertools import count

import msgspec
import pytest

from services.compactor.spool import Spool
from services.compactor.tables import Tables
from services.contracts.errors import FatalError, NotFoundError
from services.contracts.names import mapping_key
from services.contracts.ports import Record
from services.contracts.schema import CanonicalTable, Column
from services.runtime.leases import Lease, Leases
from tests.fakes import FakeChance, FakeClock, MemoryObjects, MemoryRows

RECORDS = [Record("7", "2026-01-31T09:00:00.000000Z", b"\x00\xff"), Record("8", "2026-01-31T09:00:01.000000Z", b"")]


def lease(epoch: int) -> Lease:
    leases = Leases(MemoryRows({"L": ("scope", "name")}), "L", FakeClock(), FakeChance(), lambda _: None, 30.0)
    return Lease(leases, "compactor/stream/2026", "shard", epoch, {}, taken_over=False)


async def test_what_is_spooled_is_read_back_by_whoever_comes_next() -> None:
    objects = MemoryObjects()
    key = await Spool(objects, lease(1), count(1)).append(RECORDS)
    assert await Spool(objects, lease(2), count(1)).read([key]) == RECORDS


async def test_no_two_owners_and_no_two_tries_share_a_name() -> None:
    objects, numbers = MemoryObjects(), count(1)
    keys = {await Spool(objects, lease(epoch), numbers).append(RECORDS) for epoch in (1, 1, 2)}
    assert len(keys) == 3


async def test_what_a_former_owner_never_committed_is_removed_and_the_rest_stays() -> None:
    objects = MemoryObjects()
    former, ours = Spool(objects, lease(3), count(1)), Spool(objects, lease(4), count(1))
    kept, lost, own = await former.append(RECORDS), await former.append(RECORDS), await ours.append(RECORDS)
    await ours.tidy([kept])
    assert sorted(objects.held) == [kept, own]
    with pytest.raises(NotFoundError):
        await Spool(objects, lease(5), count(1)).read([lost])


FILES = {"tickets": CanonicalTable("tickets", {"a": Column("string"), "new": Column("string")})}


async def test_without_a_pinned_mapping_the_files_say_what_a_table_is() -> None:
    tables = Tables(MemoryObjects(), FILES)
    assert await tables.find("acme", "tickets", [("connectwise", 1)]) == FILES["tickets"]
    assert await tables.find("acme", "unheard", []) is None


async def test_what_is_pinned_stays_until_a_rebuild_and_what_enters_is_untracked() -> None:
    objects = MemoryObjects()
    pinned = CanonicalTable("tickets", {"a": Column("int64", tracked=False), "gone": Column("date")})
    document = {"service": "connectwise", "mapping_version": 1, "table": msgspec.to_builtins(pinned)}
    objects.held[mapping_key("acme", "tickets", "connectwise", 1)] = msgspec.json.encode(document)
    found = await Tables(objects, FILES).find("acme", "tickets", [("connectwise", 1)])
    assert found is not None
    assert found.columns == {**pinned.columns, "new": Column("string", tracked=False)}
    only_pinned = await Tables(objects, {}).find("acme", "tickets", [("connectwise", 1)])
    assert only_pinned == pinned


async def test_of_two_pinned_mappings_the_higher_says_what_a_column_is() -> None:
    objects = MemoryObjects()
    for version, tracked in ((1, False), (2, True)):
        table = CanonicalTable("tickets", {"a": Column("string", tracked=tracked)})
        objects.held[mapping_key("acme", "tickets", "x", version)] = msgspec.json.encode({"table": table})
    found = await Tables(objects, {}).find("acme", "tickets", [("x", 1), ("x", 2)])
    assert found is not None
    assert found.columns["a"].tracked


async def test_a_pinned_mapping_that_cannot_be_read_stops_its_table() -> None:
    objects = MemoryObjects()
    objects.held[mapping_key("acme", "tickets", "x", 1)] = b"{"
    with pytest.raises(FatalError, match="cannot be read"):
        await Tables(objects, FILES).find("acme", "tickets", [("x", 1)])
