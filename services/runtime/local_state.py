"""`LocalState` over SQLite: a cache on this machine's disk, thrown away and rebuilt at will."""

import errno
import hashlib
import re
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from services.contracts.errors import FatalError, RetryableError

CHUNK: Final = 500  # keys per query; SQLite binds at least 999
PAGE_BYTES: Final = 4096
BYTES_MAX: Final = 64 << 30

# Nothing here must outlive a crash, so nothing waits for the disk; a journal in memory keeps a batch whole when the
# disk fills up in the middle of it.
_PRAGMAS: Final = (
    f"page_size = {PAGE_BYTES}",
    "journal_mode = MEMORY",
    "synchronous = OFF",
    "locking_mode = EXCLUSIVE",
    "temp_store = MEMORY",
    "cache_size = -32768",  # KiB
)
# primary result codes (sqlite.org/rescode.html); an extended code keeps its primary in the low byte
_NO_ROOM: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR})


class SqliteState:
    """One store in one file. Any thread may call; calls wait for one another."""

    def __init__(self, path: Path, bytes_max: int = BYTES_MAX) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._translated():
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
        with self._lock, self._translated(), self._transaction():
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
        with self._lock, self._translated():
            self._db.execute("DELETE FROM entries")

    def close(self) -> None:
        """The file goes too: nobody may take it for something kept."""
        with self._lock:
            self._db.close()
            self._path.unlink(missing_ok=True)

    def _rows(self, query: str, values: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
        with self._lock, self._translated():
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
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as err:
            no_room = getattr(err, "sqlite_errorcode", 0) & 0xFF in _NO_ROOM
            if no_room or getattr(err, "errno", 0) == errno.ENOSPC:
                remedy = "Free some space or set AVESA_STATE_DIR to another disk."
                raise RetryableError(f"no room for {self._path}", code="disk_full", remedy=remedy) from err
            remedy = "Set AVESA_STATE_DIR to a folder this process may write in."
            raise FatalError(f"{self._path} cannot be used: {err}", remedy=remedy) from err


class SqliteStates:
    """`StateFactory`: one file per store below a folder of this process's own."""

    def __init__(self, directory: Path, bytes_max: int = BYTES_MAX) -> None:
        self._directory = directory
        self._bytes_max = bytes_max

    def open(self, name: str) -> SqliteState:
        """A new and empty store; an earlier one of that name is gone."""
        return SqliteState(self._directory / file_name(name), self._bytes_max)


def file_name(name: str) -> str:
    """A file name for any store name: readable, and never the same for two."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[:80]
    return f"{readable}-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}.sqlite"


def _after(prefix: bytes) -> bytes | None:
    """The least key greater than every key that begins with `prefix`; None when there is none."""
    trimmed = prefix.rstrip(b"\xff")
    return trimmed[:-1] + bytes((trimmed[-1] + 1,)) if trimmed else None
