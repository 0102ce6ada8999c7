"""Folding a batch of observations into the two tables of a history: what to read, what to write, in which order.

The version table shows versions; the timeline remembers what a version no longer shows: every delete, and every
observation of a version but its last. Together they give back the set of observations of any entity, so that a merge
is: read that set, add the batch, fold (`contracts/fold.py`), write the rows that differ. Most entities need only their
open row for it (`_needs_history`), so history does not make merges slower.

Two commits, in this order: the timeline grows, then the version table changes in one snapshot on the snapshot that
was read, with the watermark. A crash in between leaves the timeline knowing more than the versions show; the same
batch comes again and finds it there. Why this is right: docs/decisions/0003-history-is-a-fold.md; measurements and
the search for counter-examples: tests/compactor/test_merge.py.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from services.compactor.parquet import Key
from services.contracts.events import Op
from services.contracts.fold import Observation, Version, fold, rank, survivors
from services.contracts.rows import Entity, Values, digest, version_row
from services.contracts.schema import CanonicalTable
from services.contracts.times import UtcTime

Seen = Observation[Values | None]
Row = dict[str, Any]  # one version, as JSON values: `contracts.rows.version_row`
Batch = Mapping[Key, Sequence[Seen]]
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class Remembered(msgspec.Struct, frozen=True, gc=False):
    """One row of the timeline table. The tracked columns of an upsert are those of the version of its `record_hash`;
    `untracked` is the JSON text of the others."""

    service: str
    family: str
    record_id: str
    effective_at: UtcTime
    observed_at: UtcTime
    op: Op
    mapping_version: int
    record_hash: str
    untracked: str | None = None

    @property
    def key(self) -> Key:
        return (self.service, self.family, self.record_id)


class Watermark(msgspec.Struct, frozen=True):
    """Up to which cut each bucket (`{service}/{bucket}`) of one life of the stream is merged. Numbers of another
    stream say nothing here: a tenant may move to streams of its own, or a stream be made anew."""

    stream: str
    cuts: Mapping[str, int]

    def covers(self, stream: str, buckets: Iterable[str], cut: int) -> bool:
        return stream == self.stream and all(self.cuts.get(bucket, -1) >= cut for bucket in buckets)

    def raised(self, other: "Watermark") -> "Watermark":
        """This one, and what `other` adds; of another stream only what `other` says."""
        if other.stream != self.stream:
            return other
        return Watermark(
            self.stream,
            {
                bucket: max(self.cuts.get(bucket, -1), other.cuts.get(bucket, -1))
                for bucket in sorted({*self.cuts, *other.cuts})
            },
        )


class HistoryTables(Protocol):
    """A version table and its timeline, as one merge sees them: opened anew for each. `key` columns are those of
    `Key`; rows are JSON values. Errors of all methods: RetryableError, FatalError."""

    @property
    def watermark(self) -> Watermark: ...

    def open_rows(self, keys: Collection[Key]) -> list[Row]: ...

    def closed_rows(self, keys: Collection[Key]) -> list[Row]: ...

    def remembered(self, keys: Collection[Key], *, deletes_only: bool) -> list[Remembered]: ...

    def remember(self, entries: Sequence[Remembered]) -> None:
        """Add to the timeline. Errors: ConflictError when somebody else did since it was read."""
        ...

    def commit(self, removed: Sequence[Row], added: Sequence[Row], watermark: Watermark) -> None:
        """Replace rows that were read, in one snapshot together with the watermark.

        Errors: ConflictError when the table is not the one that was read; then nothing changed.
        """
        ...


class Merged(msgspec.Struct, frozen=True):
    """What a merge did. `rows_written` counts version rows added."""

    observations: int = 0
    rows_written: int = 0
    rows_removed: int = 0
    remembered: int = 0

    def __add__(self, other: "Merged") -> "Merged":
        return Merged(
            self.observations + other.observations,
            self.rows_written + other.rows_written,
            self.rows_removed + other.rows_removed,
            self.remembered + other.remembered,
        )


class Change(msgspec.Struct, frozen=True):
    """What folding a batch into one entity changes."""

    removed: list[Row]
    added: list[Row]
    remembered: list[Remembered]


def grouped(observations: Iterable[tuple[Key, Seen]]) -> dict[Key, list[Seen]]:
    """Observations by entity."""
    batch: dict[Key, list[Seen]] = {}
    for key, seen in observations:
        batch.setdefault(key, []).append(seen)
    return batch


def merge(history: HistoryTables, tenant_id: str, table: CanonicalTable, batch: Batch, watermark: Watermark) -> Merged:
    """Fold `batch` into the tables and set the watermark.

    Errors: ConflictError when another merger was faster (open the tables anew and merge again), RetryableError.
    """
    changes = list(_changes(history, tenant_id, table, batch))
    remembered = [entry for change in changes for entry in change.remembered]
    removed = [row for change in changes for row in change.removed]
    added = [row for change in changes for row in change.added]
    if remembered:
        history.remember(remembered)
    history.commit(removed, added, history.watermark.raised(watermark))
    return Merged(sum(map(len, batch.values())), len(added), len(removed), len(remembered))


def _changes(history: HistoryTables, tenant_id: str, table: CanonicalTable, batch: Batch) -> Iterator[Change]:
    opened = _by_key(history.open_rows(batch.keys()))
    absent = [key for key in batch if key not in opened]
    deletes: dict[Key, list[Remembered]] = {}
    for entry in history.remembered(absent, deletes_only=True) if absent else ():
        deletes.setdefault(entry.key, []).append(entry)
    deep: dict[Key, Sequence[Seen]] = {}
    for key, seen in batch.items():
        rows, gone = opened.get(key, []), deletes.get(key, [])
        known = _known(rows, gone, seen, table)
        if table.scd == 2 and _needs_history(known, seen):
            deep[key] = seen
        else:
            yield _fold_in(Entity(tenant_id, table.table, *key), rows, known, seen, table, set(gone))
    if deep:
        closed = _by_key(history.closed_rows(deep.keys()))
        timeline: dict[Key, list[Remembered]] = {}
        for entry in history.remembered(deep.keys(), deletes_only=False):
            timeline.setdefault(entry.key, []).append(entry)
        for key, seen in deep.items():
            rows, entries = [*opened.get(key, []), *closed.get(key, [])], timeline.get(key, [])
            known = _everything_known(rows, entries, seen, table)
            yield _fold_in(Entity(tenant_id, table.table, *key), rows, known, seen, table, set(entries))


def _by_key(rows: Iterable[Row]) -> dict[Key, list[Row]]:
    found: dict[Key, list[Row]] = {}
    for row in rows:
        found.setdefault((row["service"], row["family"], row["record_id"]), []).append(row)
    return found


# -- the set of observations ------------------------------------------------------------------------------------------
def _known(
    opened: Sequence[Row], deletes: Sequence[Remembered], batch: Sequence[Seen], table: CanonicalTable
) -> list[Seen]:
    """What is known of an entity's latest time: the two ends of its open row, else its latest delete, else nothing."""
    if opened:
        return [end for row in opened for end in _ends(row, batch, table)]
    return sorted((_delete(entry) for entry in deletes), key=lambda seen: (seen.effective_at, *rank(seen)))[-1:]


def _ends(row: Row, batch: Sequence[Seen], table: CanonicalTable) -> Iterator[Seen]:
    """The first and the last observation of an open row. Of the first the untracked columns are not known: it stands
    for the start of the version and is never its last, so nobody asks for them (`row` None)."""
    at = row["last_effective_at"]
    if row["valid_from"] != at:
        version = row["mapping_version"]
        yield Observation(row["valid_from"], row["observed_at"], False, version, row["record_hash"], "", None)
    yield _last(row, table, digested=any(seen.effective_at == at for seen in batch))


def _last(row: Row, table: CanonicalTable, *, digested: bool = True) -> Seen:
    """The last observation of a row. Its digest decides ties only: without one to decide it is left out."""
    values = {name: row[name] for name in table.all_columns() if row[name] is not None}
    return Observation(
        row["last_effective_at"],
        row["last_observed_at"],
        False,
        row["mapping_version"],
        row["record_hash"],
        digest(values.items()) if digested else "",
        values,
    )


def _delete(entry: Remembered) -> Seen:
    return Observation(entry.effective_at, entry.observed_at, True, entry.mapping_version, "", "", None)


def _needs_history(known: Sequence[Seen], batch: Sequence[Seen]) -> bool:
    """Must the closed rows and the timeline be read? Not if every observation of the batch either comes after all
    that is known, or loses its tie with the latest of it, or repeats its content: then older versions stay as they
    are."""
    if not known:
        return False
    latest = known[-1]
    return any(
        seen.effective_at < latest.effective_at
        or (
            seen.effective_at == latest.effective_at
            and rank(seen) > rank(latest)
            and (seen.deleted, seen.record_hash) != (latest.deleted, latest.record_hash)
        )
        for seen in batch
    )


def _everything_known(
    rows: Sequence[Row], timeline: Sequence[Remembered], batch: Sequence[Seen], table: CanonicalTable
) -> list[Seen]:
    """Every observation the two tables hold: the last of each row, every delete, every other upsert.

    An upsert whose content no row shows lost its tie, or is left from a merge that died between its two commits; the
    latter comes again with its batch. Either way nothing is missing without it.
    """
    lasts = [_last(row, table) for row in rows]
    contents = {seen.record_hash: seen.row for seen in (*lasts, *batch) if seen.row is not None}
    seen = [_delete(entry) for entry in timeline if entry.op == "delete"]
    for entry in timeline:
        if entry.op == "upsert" and entry.record_hash in contents:
            seen.append(_upsert(entry, contents[entry.record_hash] or {}, table))
    return [*lasts, *seen]


def _upsert(entry: Remembered, same_content: Values, table: CanonicalTable) -> Seen:
    columns = table.all_columns()
    tracked = {name: value for name, value in same_content.items() if columns[name].tracked}
    own = _decode(entry.untracked) if entry.untracked else {}
    values = {**tracked, **own}
    return Observation(
        entry.effective_at,
        entry.observed_at,
        False,
        entry.mapping_version,
        entry.record_hash,
        digest(values.items()),
        values,
    )


# -- what changes -----------------------------------------------------------------------------------------------------
def _fold_in(
    entity: Entity,
    before: Sequence[Row],
    known: Sequence[Seen],
    batch: Sequence[Seen],
    table: CanonicalTable,
    timeline: set[Remembered],
) -> Change:
    seen = [*known, *batch]
    versions = fold(seen, table.scd)
    after = [version_row(entity, version, table) for version in versions]
    entries = [
        entry for gone in _unseen(seen, versions, table) if (entry := _entry(entity, gone, table)) not in timeline
    ]
    return Change(_not_in(before, after), _not_in(after, before), entries)


def _not_in(rows: Sequence[Row], others: Sequence[Row]) -> list[Row]:
    same_start = {row["valid_from"]: row for row in others}
    return [row for row in rows if same_start.get(row["valid_from"]) != row]


def _unseen(seen: Sequence[Seen], versions: Sequence[Version[Values | None]], table: CanonicalTable) -> Iterator[Seen]:
    """What no row shows and a later fold may need: deletes, and upserts that are no version's last.

    With `scd` 1 only what came last counts, and what living row shows it itself.
    """
    ordered = survivors(seen)
    if table.scd == 1:
        yield from (last for last in ordered[-1:] if last.deleted)
        return
    shown = {version.last.effective_at for version in versions}
    for one in ordered:
        if one.deleted or (one.effective_at not in shown and one.row is not None):
            yield one


def _entry(entity: Entity, seen: Seen, table: CanonicalTable) -> Remembered:
    return Remembered(
        entity.service,
        entity.family,
        entity.record_id,
        seen.effective_at,
        seen.observed_at,
        "delete" if seen.deleted else "upsert",
        seen.mapping_version,
        seen.record_hash,
        None if seen.row is None else _untracked(seen.row, table),
    )


def _untracked(values: Values, table: CanonicalTable) -> str | None:
    """The untracked columns as JSON text."""
    columns = table.all_columns()
    own = {name: value for name, value in values.items() if not columns[name].tracked}
    return msgspec.json.encode(own, order="sorted").decode() if own else None
