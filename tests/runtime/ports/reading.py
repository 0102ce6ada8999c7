"""Entries to put, and records read page by page."""

from typing import Final

from services.contracts.ports import Entry, Record, Streams

PAGES_MAX: Final = 100


def entries(*texts: str, hash_key: int = 0) -> list[Entry]:
    return [Entry(text.encode(), "partition", hash_key) for text in texts]


def texts(records: list[Record]) -> list[str]:
    return [record.data.decode() for record in records]


async def put_one(streams: Streams, stream: str, text: str, hash_key: int = 0) -> str:
    """The shard it landed in."""
    (put,) = await streams.put(stream, entries(text, hash_key=hash_key))
    assert not put.error, put.error
    return put.shard_id


async def read_on(
    streams: Streams, stream: str, shard: str, after: str | None = None, limit: int = 100
) -> tuple[list[Record], bool]:
    """All records there are, and whether the shard ended with them: up to an empty page that says it is the last."""
    iterator = await streams.iterator(stream, shard, after)
    records: list[Record] = []
    for _ in range(PAGES_MAX):
        page = await streams.read(stream, iterator, limit)
        records += page.records
        if page.next_iterator is None:
            return records, True
        if not page.records and page.behind_ms == 0:
            return records, False
        iterator = page.next_iterator
    raise AssertionError(f"{shard} goes on after {PAGES_MAX} pages")


async def read_out(streams: Streams, stream: str, shard: str, after: str | None = None, limit: int = 100) -> list[str]:
    """All texts of a shard that has to end."""
    iterator = await streams.iterator(stream, shard, after)
    records: list[Record] = []
    for _ in range(PAGES_MAX):
        page = await streams.read(stream, iterator, limit)
        records += page.records
        if page.next_iterator is None:
            return texts(records)
        iterator = page.next_iterator
    raise AssertionError(f"{shard} never ends")
