"""Every event of the raw archive is read, whatever becomes of its files meanwhile; and when all of it is there."""

from collections.abc import AsyncIterator

import pytest

from services.compactor import parquet, raw_archive
from services.compactor.raw_archive import RawArchive
from services.contracts.errors import NotFoundError
from services.contracts.events import ChangeEvent
from services.contracts.names import hour_key, part_key, raw_folder
from services.contracts.ports import ObjectInfo
from services.contracts.times import shifted
from tests.compactor.observed import TENANT, read, seen
from tests.compactor.plant import Plant

FOLDER, HOUR = raw_folder(TENANT, "connectwise", "tickets"), "2026-01-31T09"
PART, OTHER = part_key(FOLDER, HOUR, "shard", 1), part_key(FOLDER, HOUR, "shard", 2)


def archive(plant: Plant) -> RawArchive:
    plant.compactor()
    return RawArchive(plant.runtime)


async def events(archive: RawArchive) -> list[ChangeEvent]:
    files = await archive.files(TENANT, "connectwise", "tickets")
    return [event async for batch in archive.events(files) for event in batch]


async def test_parts_and_hours_are_read_whole_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_archive, "READ_BYTES_MAX", 1)
    plant = Plant()
    found = [read(str(number), number) for number in range(5)]
    for key, some in ((hour_key(FOLDER, "2026-01-31T08"), found[:2]), (PART, found[2:4]), (OTHER, found[4:])):
        await plant.objects.put(key, parquet.raw_file(some, {}))
    made = archive(plant)
    assert await events(made) == found
    assert await made.count(await made.files(TENANT, "connectwise", "tickets")) == 5


async def test_an_hour_whose_parts_become_one_file_meanwhile_is_read_from_that_one() -> None:
    plant = Plant()
    for key, number in ((PART, 1), (OTHER, 2)):
        await plant.objects.put(key, parquet.raw_file([read(str(number), number)], {}))
    made = archive(plant)
    files = await made.files(TENANT, "connectwise", "tickets")
    await consolidate(plant)
    assert [event.record_id async for batch in made.events(files) for event in batch] == ["1", "2"]


async def test_an_hour_that_no_listing_shows_while_its_parts_become_one_file_is_read_all_the_same() -> None:
    plant = Plant()
    await plant.objects.put(PART, parquet.raw_file([read("1", 1)], {}))
    made, listed = archive(plant), plant.objects.list

    async def between_two_pages(prefix: str) -> AsyncIterator[ObjectInfo]:
        """The first page ends before the hour's file is there, the second begins when its parts are gone."""
        plant.objects.list = listed  # type: ignore[method-assign]
        await consolidate(plant)
        for info in list[ObjectInfo]():
            yield info

    plant.objects.list = between_two_pages  # type: ignore[method-assign]
    assert await events(made) == [read("1", 1)]


async def consolidate(plant: Plant) -> None:
    parts = [key for key in (PART, OTHER) if key in plant.objects.held]
    whole = parquet.consolidated([plant.objects.held[key] for key in parts], {})
    assert whole is not None
    await plant.objects.create(hour_key(FOLDER, HOUR), whole)
    await plant.objects.delete(parts)


async def test_an_hour_that_is_gone_is_an_error() -> None:
    plant = Plant()
    await plant.objects.put(hour_key(FOLDER, HOUR), parquet.raw_file([read("1", 1)], {}))
    made = archive(plant)
    files = await made.files(TENANT, "connectwise", "tickets")
    await plant.objects.delete([files[0].key])
    with pytest.raises(NotFoundError):
        [batch async for batch in made.events(files)]


async def test_the_raw_stream_alone_is_archived_and_nothing_is_merged() -> None:
    plant = Plant()
    await plant.put(read("1", 1), seen({"summary": "A"}, 1))
    totals = await plant.archive()
    assert (totals.raw_events, totals.observations, totals.merges) == (1, 0, 0)
    assert plant.raw() == [read("1", 1)]
    assert plant.histories.rows() == []


async def test_what_has_arrived_is_there_once_a_running_compactor_has_cut_it() -> None:
    plant = Plant(shards=2)
    assert not await archive(plant).holds(plant.clock.now())
    await plant.put(read("1", 1))
    until = shifted(plant.clock.now(), seconds=1)
    held: list[bool] = []

    async def look() -> None:
        while True:
            await plant.clock.sleep(5)
            there = await RawArchive(plant.runtime).holds(until)
            assert there is bool(plant.raw()) or not there
            held.append(there)

    await plant.run(400, beside=look)
    assert held[0] is False
    assert held[-1] is True
