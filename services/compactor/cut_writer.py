"""Writing a cut: its files, its dead letters and the manifest that lists them, under names that follow from the cut.

Every write is a create. What lies there already was written by an earlier try, ours or a former owner's, and is the
same cut or it is an error.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import msgspec

from services.compactor import parquet
from services.compactor.cuts import Cut, Manifest, Part
from services.compactor.files import Contents, Folder, Kind, NewFile, contents, header_of, new_files
from services.compactor.tables import Tables
from services.contracts.envelope import checksum
from services.contracts.errors import ConflictError, FatalError, NotFoundError
from services.contracts.log import RecordsRejected
from services.contracts.names import cut_key
from services.contracts.ports import Record
from services.contracts.schema import CanonicalTable
from services.runtime.dead_letters import DeadLetter
from services.runtime.poison import Readings
from services.runtime.runtime import Runtime

WRITES_AT_ONCE: Final = 8
Made = tuple[list[NewFile], list[DeadLetter]]


class Totals(msgspec.Struct):
    """What a compactor has done."""

    raw_events: int = 0
    observations: int = 0
    rejected: int = 0
    cuts: int = 0
    files: int = 0
    merges: int = 0
    rows_written: int = 0
    hours: int = 0


class CutWriter:
    """Writes the cuts of one shard. Errors: RetryableError; FatalError when a name is taken by something else."""

    def __init__(self, runtime: Runtime, tables: Tables, kind: Kind, scope: str, shard: str, totals: Totals) -> None:
        self._runtime, self._tables, self._kind = runtime, tables, kind
        self._scope, self._shard, self._totals = scope, shard, totals
        # The shard in the names of files: two streams may each have a shard of the same name.
        self._label = f"{shard}.{checksum(scope.encode())[:8]}"

    async def write(self, cut: Cut, made: Made) -> Manifest:
        """Everything of a cut, and at last its manifest. Whoever does it, and however often, writes the same."""
        files, letters = made
        await self._write_letters(letters)
        for start in range(0, len(files), WRITES_AT_ONCE):
            await asyncio.gather(*(self._write(file, cut) for file in files[start : start + WRITES_AT_ONCE]))
        return await self._write_manifest(cut, tuple(file.part for file in files))

    async def make(self, cut: Cut, records: Sequence[Record], readings: Readings) -> Made:
        """The files and letters of a cut, to no effect yet. What `readings` names as poison in it stands in the lease
        row before anything is written."""
        threads = self._runtime.threads
        found = await threads.run(contents, self._kind, self._label, records, await self._bodies(records), readings)
        tables = await self._tables_of(found)
        files, letters = await threads.run(new_files, found, cut, self._label, tables)
        return files, [*found.letters, *letters]

    async def _bodies(self, records: Sequence[Record]) -> dict[str, bytes]:
        """What lay beside the stream; one that is gone is left out, and unsealing makes it a dead letter."""
        headers = (header_of(record) for record in records)
        keys = sorted({header.object_key for header in headers if header and header.object_key})
        bodies: dict[str, bytes] = {}
        for key in keys:
            with suppress(NotFoundError):
                bodies[key] = await self._runtime.objects.get(key)
        return bodies

    async def _tables_of(self, found: Contents) -> dict[Folder, CanonicalTable]:
        tables = {
            folder: await self._tables.find(folder.tenant_id, folder.name, found.mappings(folder))
            for folder in found.canonical
        }
        return {folder: table for folder, table in tables.items() if table is not None}

    async def _write(self, file: NewFile, cut: Cut) -> None:
        """A file of this cut that is there already is ours: by another version of the program, perhaps, and then not
        byte for byte. Errors: FatalError when it is of another cut."""
        try:
            await self._runtime.objects.create(file.part.key, file.data)
        except ConflictError as err:
            there = parquet.about(await self._runtime.objects.get(file.part.key))
            if there != {"shard": self._label, **cut.about}:
                raise _stranger(file.part.key) from err

    async def _write_manifest(self, cut: Cut, parts: tuple[Part, ...]) -> Manifest:
        manifest = Manifest(self._shard, cut.number, cut.hour, cut.first, cut.last, parts)
        key = cut_key(self._scope, self._shard, cut.number)
        try:
            await self._runtime.objects.create(key, msgspec.json.encode(manifest))
        except ConflictError as err:
            there = msgspec.json.decode(await self._runtime.objects.get(key), type=Manifest)
            if (there.first, there.last) != (cut.first, cut.last):
                raise _stranger(key) from err
            return there
        return manifest

    async def _write_letters(self, letters: Sequence[DeadLetter]) -> None:
        await self._runtime.dead_letters.write(letters)
        self._totals.rejected += len(letters)
        groups: dict[tuple[str, str, str], list[DeadLetter]] = {}
        for letter in letters:
            groups.setdefault((letter.tenant_id, letter.group, letter.code), []).append(letter)
        for (tenant_id, group, code), some in groups.items():
            self._runtime.emit(
                RecordsRejected(
                    stage=some[0].stage,
                    tenant_id=tenant_id,
                    group=group,
                    code=code,
                    count=len(some),
                    first=some[0].position,
                )
            )


def _stranger(key: str) -> FatalError:
    return FatalError(
        f"{key} was written by somebody else for something else",
        code="conflict",
        remedy="Two environments share a bucket, or a lease table was emptied: nothing was overwritten.",
    )
