"""One commit to an Iceberg table: data files and position deletes come and go in a single snapshot.

pyiceberg 0.12 reads position deletes but has no public writer for them, so this is built on what its own appends and
overwrites are built on. `pyproject.toml` pins the version; tests/compactor/test_readers.py lets three engines read the
result. Format: https://iceberg.apache.org/spec/#position-delete-files and #manifests.
"""

from collections.abc import Collection, Sequence
from typing import Any, Final

from pyiceberg.io import FileIO
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriter,
    ManifestWriterV2,
)
from pyiceberg.table import Transaction
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _SnapshotProducer

Held = Sequence[tuple[ManifestFile, Sequence[ManifestEntry]]]  # the manifests of a snapshot and their living entries

DELETE_MANIFESTS: Final = 1  # their entries are few, and change with every merge


class Replacement(_SnapshotProducer["Replacement"]):
    """A snapshot that has what `held` has, less the files at `removed` paths, plus `added` ones.

    Manifests that lose no file stay as they are; when more than `manifests` have gathered they become one.
    """

    def __init__(
        self,
        transaction: Transaction,
        io: FileIO,
        held: Held,
        removed: Collection[str],
        added: Sequence[DataFile],
        manifests: int,
    ) -> None:
        super().__init__(Operation.OVERWRITE if removed else Operation.APPEND, transaction, io)
        self._held, self._most = held, {ManifestContent.DATA: manifests, ManifestContent.DELETES: DELETE_MANIFESTS}
        self._removed = frozenset(removed)
        for file in added:
            self.append_data_file(file)
        for _, entries in held:
            for entry in entries:
                if entry.data_file.file_path in self._removed:
                    self.delete_data_file(entry.data_file)

    def _manifests(self) -> list[ManifestFile]:
        return [*self._manifests_of(ManifestContent.DATA), *self._manifests_of(ManifestContent.DELETES)]

    def _manifests_of(self, content: ManifestContent) -> list[ManifestFile]:
        is_data = content is ManifestContent.DATA
        held = [(manifest, entries) for manifest, entries in self._held if manifest.content == content and entries]
        added = [file for file in self._added_data_files if (file.content is DataFileContent.DATA) is is_data]
        touched = [pair for pair in held if any(entry.data_file.file_path in self._removed for entry in pair[1])]
        if len(held) - len(touched) + bool(touched or added) > self._most[content]:
            touched = held
        untouched = [manifest for manifest, entries in held if (manifest, entries) not in touched]
        if not touched and not added:
            return untouched
        with self._writer(content) as writer:
            for _, entries in touched:
                for entry in entries:
                    writer.add_entry(self._moved(entry))
            for file in added:
                writer.add(ManifestEntry.from_args(snapshot_id=self._snapshot_id, data_file=file))
        return [*untouched, writer.to_manifest_file()]

    def _moved(self, entry: ManifestEntry) -> ManifestEntry:
        gone = entry.data_file.file_path in self._removed
        return ManifestEntry.from_args(
            status=ManifestEntryStatus.DELETED if gone else ManifestEntryStatus.EXISTING,
            snapshot_id=self._snapshot_id if gone else entry.snapshot_id,
            sequence_number=entry.sequence_number,
            file_sequence_number=entry.file_sequence_number,
            data_file=entry.data_file,
        )

    def _writer(self, content: ManifestContent) -> ManifestWriter:
        spec = self._transaction.table_metadata.spec()
        if content is ManifestContent.DATA:
            return self.new_manifest_writer(spec)
        return _DeletesWriter(spec, self.schema(), self.new_manifest_output(), self._snapshot_id, self._compression)

    def _deleted_entries(self) -> list[ManifestEntry]:
        raise NotImplementedError  # asked for by the `_manifests` that is replaced here

    def _existing_manifests(self) -> list[ManifestFile]:
        raise NotImplementedError


class _DeletesWriter(ManifestWriterV2):
    """A manifest of delete files."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, Any]:
        return {**super()._meta, "content": "deletes"}
