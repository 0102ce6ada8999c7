"""`LocalState`: a cache on this machine, thrown away and rebuilt at will. A store lives in memory while it is small and
moves to a SQLite file of its own when it is not.

An extractor opens one per endpoint: thousands, nearly all of them small. An open SQLite file costs about 130 KiB of
memory and a file handle before it holds anything.
"""

import errno
import hashlib
import re
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.contracts.errors import FatalError, RetryableError

CHUNK: Final = 500  # keys per query; SQLite binds at least 999
PAGE_BYTES: Final = 4096
BYTES_MAX: Final = 64 << 30
SMALL_BYTES_MAX: Final = 256 << 10  # of a store in memory
MEMORY_BYTES_MAX: Final = 64 << 20  # of all of them in one process
ENTRY_BYTES: Final = 180  # what Python takes for an entry besides its bytes: two objects and a place in a dictionary
CACHE_BYTES_MAX: Final = 256 << 20  # of all SQLite caches in this process together

# Nothing here must outlive a crash, so nothing waits for the disk; a journal in memory keeps a batch whole when the
# disk fills up in the middle of it.
_PRAGMAS: Final = (
    f"page_size = {PAGE_BYTES}",
    "journal_mode = MEMORY",
    "synchronous = OFF",
    "locking_mode = EXCLUSIVE",
    "temp_store = MEMORY",
    "cache_size = -32768",  # KiB, of one file
    f"soft_heap_limit = {CACHE_BYTES_MAX}",  # from there caches reuse their pages: sqlite.org/pragma.html
)
# primary result codes (sqlite.org/rescode.html); an extended code keeps its primary in the low byte
_NO_ROOM: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})


class SqliteState:
    """One store in one file. Any thread may call; calls wait for one another."""

    def __init__(self, path: Path, bytes_max: int = BYTES_MAX) -> None:
        self._path = path
        self._lock = threading.Lock()
        with translated(self._path):
            # A new file each time: whoever still holds the old one keeps writing into what nobody sees any more.
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in (*_PRAGMAS, f"max_page_count = {bytes_max // PAGE_BYTES}"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.execute("CREATE TABLE entries (key BLOB PRIMARY KEY, value BLOB NOT NULL)")

    def get(self, key: bytes) -> bytes | None:
        return self.get_many((key,)).get(key)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for start in range(0, len(keys), CHUNK):
            chunk = keys[start : start + CHUNK]
            marks = ",".join("?" * len(chunk))
            query = f"SELECT key, value FROM entries WHERE key IN ({marks})"  # noqa: S608  question marks only
            found.update(self._rows(query, chunk))
        return found

    def put_many(self, items: Iterable[tuple[bytes, bytes | None]]) -> None:
        """All of it or nothing. Errors: RetryableError `disk_full`."""
        with self._lock, translated(self._path), self._transaction():
            for key, value in items:
                if value is None:
                    self._db.execute("DELETE FROM entries WHERE key = ?", (key,))
                else:
                    self._db.execute(
                        "INSERT INTO entries VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                        (key, value),
                    )

    def items(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Read in chunks, so that others may write meanwhile; what they write behind the reader is not seen."""
        end = _after(prefix)
        below = "" if end is None else "AND key < ?"
        bound = () if end is None else (end,)
        start, comparison = prefix, ">="
        while True:
            where = f"key {comparison} ? {below}"
            query = f"SELECT key, value FROM entries WHERE {where} ORDER BY key LIMIT {CHUNK}"  # noqa: S608  ours
            rows = self._rows(query, (start, *bound))
            yield from rows
            if len(rows) < CHUNK:
                return
            start, comparison = rows[-1][0], ">"

    def clear(self) -> None:
        with self._lock, translated(self._path):
            self._db.execute("DELETE FROM entries")

    def close(self) -> None:
        """The file goes too: nobody may take it for something kept."""
        with self._lock:
            self._db.close()
            self._path.unlink(missing_ok=True)

    def _rows(self, query: str, values: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        with self._lock, translated(self._path):
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:  # a full disk may have rolled it back already
                self._db.execute("ROLLBACK")
            raise


@contextmanager
def translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as err:
        no_room = getattr(err, "sqlite_errorcode", 0) & 0xFF in _NO_ROOM
        if no_room or getattr(err, "errno", 0) == errno.ENOSPC:
            remedy = "Free some space or set AVESA_STATE_DIR to another disk."
            raise RetryableError(f"no room for {path}", code="disk_full", remedy=remedy) from err
        remedy = "Set AVESA_STATE_DIR to a folder this process may write in."
        raise FatalError(f"{path} cannot be used: {err}", remedy=remedy) from err


class Room:
    """How much memory stores may take together. Any thread may call."""

    def __init__(self, bytes_max: int) -> None:
        self._left, self._lock = bytes_max, threading.Lock()

    def take(self, size: int) -> bool:
        """`size` more (less, where it is negative), if there is room for it."""
        with self._lock:
            if size > self._left:
                return False
            self._left -= size
            return True


class SpillingState:
    """One store: in memory while it is small and there is room, then for good in the file that `on_disk` makes.

    Any thread may call; calls wait for one another.
    """

    def __init__(self, on_disk: Callable[[], SqliteState], room: Room, small_bytes_max: int = SMALL_BYTES_MAX) -> None:
        self._on_disk, self._room, self._small_bytes_max = on_disk, room, small_bytes_max
        self._lock = threading.Lock()
        self._held: dict[bytes, bytes] = {}
        self._bytes = 0
        self._disk: SqliteState | None = None

    def get(self, key: bytes) -> bytes | None:
        return self.get_many((key,)).get(key)

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        with self._lock:
            if self._disk is None:
                return {key: self._held[key] for key in keys if key in self._held}
        return self._disk.get_many(keys)

    def put_many(self, items: Iterable[tuple[bytes, bytes | None]]) -> None:
        """All of it or nothing. Errors: RetryableError `disk_full`; FatalError when there is no writing there."""
        with self._lock:
            if self._disk is None:
                batch = dict(items)
                if self._put_small(batch):
                    return
                self._disk, items = self._spilled(), batch.items()
        self._disk.put_many(items)

    def _put_small(self, batch: Mapping[bytes, bytes | None]) -> bool:
        """Into memory, if it fits."""
        more = sum(_size(key, value) - _size(key, self._held.get(key)) for key, value in batch.items())
        if self._bytes + more > self._small_bytes_max or not self._room.take(more):
            return False
        self._bytes += more
        for key, value in batch.items():
            if value is None:
                self._held.pop(key, None)
            else:
                self._held[key] = value
        return True

    def _spilled(self) -> SqliteState:
        disk = self._on_disk()
        try:
            disk.put_many(self._held.items())
        except BaseException:
            disk.close()
            raise
        self._forget()
        return disk

    def items(self, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """In order of key; what others write meanwhile may be seen or not."""
        with self._lock:
            disk = self._disk
            found = sorted(item for item in self._held.items() if item[0].startswith(prefix))
        yield from found if disk is None else disk.items(prefix)

    def clear(self) -> None:
        with self._lock:
            self._forget()
            if self._disk is not None:
                self._disk.clear()

    def close(self) -> None:
        """The file goes too: nobody may take it for something kept."""
        with self._lock:
            self._forget()
            if self._disk is not None:
                self._disk.close()

    def _forget(self) -> None:
        self._room.take(-self._bytes)
        self._held, self._bytes = {}, 0


def _size(key: bytes, value: bytes | None) -> int:
    return 0 if value is None else len(key) + len(value) + ENTRY_BYTES


class LocalStates:
    """`StateFactory`: what does not fit into memory has one file per store below a folder of this process's own."""

    def __init__(
        self,
        directory: Path,
        bytes_max: int = BYTES_MAX,
        memory_bytes_max: int = MEMORY_BYTES_MAX,
        small_bytes_max: int = SMALL_BYTES_MAX,
    ) -> None:
        self._directory, self._bytes_max = directory, bytes_max
        self._room, self._small_bytes_max = Room(memory_bytes_max), small_bytes_max

    def open(self, name: str) -> SpillingState:
        """A new and empty store; an earlier one of that name is gone.

        Errors: FatalError when nothing can be written in the folder: said now, not when a store has grown.
        """
        path = self._directory / file_name(name)
        with translated(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.unlink(missing_ok=True)
        return SpillingState(lambda: SqliteState(path, self._bytes_max), self._room, self._small_bytes_max)


def file_name(name: str) -> str:
    """A file name for any store name: readable, and never the same for two."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:80]
    return f"{readable}-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}.sqlite"


def _after(prefix: bytes) -> bytes | None:
    """The least key greater than every key that begins with `prefix`; None when there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,)) if trimmed else None
