"""What folding a batch of observations into a history changes, for all its entities at once (columns and SQL).

Most entities need no more than their open row (`DEEP` says which do), so history does not make merges slower. An
*entity* is a number here, one for each (service, family, record_id) of the batch; *place* is a number too: where in
`Contents` the business columns of an observation lie.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import duckdb
import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from services.compactor.folding import fold, session
from services.compactor.history import HistoryTables
from services.compactor.parquet import KEY, SEEN_FIELDS, column_kinds, conformed, rows_from_arrow, rows_to_arrow
from services.contracts.rows import digest
from services.contracts.schema import ROW_COLUMNS, TIMELINE_COLUMNS, CanonicalTable

_decode = msgspec.json.Decoder(dict[str, Any]).decode

ENTITIES: Final = """
CREATE TEMP TABLE entities AS
SELECT row_number() OVER () AS entity, * FROM (SELECT DISTINCT service, family, record_id FROM batch_read)
"""
BATCH: Final = """
CREATE TEMP TABLE batch AS
SELECT entity, effective_at, observed_at, deleted, mapping_version, record_hash, row_digest, place
FROM batch_read JOIN entities USING (service, family, record_id)
"""
KNOWN_ROWS: Final = """
SELECT entity, row, valid_from, observed_at, last_effective_at, last_observed_at, mapping_version, record_hash, place
FROM rows_read JOIN entities USING (service, family, record_id)
"""
KNOWN_TIMELINE: Final = """
SELECT entity, effective_at, observed_at, op, mapping_version, record_hash, untracked
FROM timeline_read JOIN entities USING (service, family, record_id)
"""
# The closed rows and the whole timeline of an entity are read where an observation comes before the latest that is
# known of it, or contradicts that one: else its older versions stay as they are.
DEEP: Final = """
CREATE TEMP TABLE deep AS
WITH known AS (
    SELECT entity, last_effective_at AS effective_at, false AS deleted, record_hash FROM rows
    UNION ALL
    SELECT entity, effective_at, true, '' FROM timeline
),
latest AS (
    FROM known QUALIFY row_number() OVER (PARTITION BY entity ORDER BY effective_at DESC) = 1
)
SELECT DISTINCT entity, record_id
FROM batch JOIN latest USING (entity) JOIN entities USING (entity)
WHERE batch.effective_at < latest.effective_at
   OR (batch.effective_at = latest.effective_at
       AND (batch.deleted, batch.record_hash) <> (latest.deleted, latest.record_hash))
"""
# An upsert of the timeline has the tracked columns of whatever has its `record_hash`. Where nothing has it, it lost its
# tie, or is left from a merge that died between its two commits; the latter comes again with its batch.
RESTORED: Final = """
WITH contents AS (
    SELECT entity, record_hash, min(place) AS place
    FROM (SELECT entity, record_hash, place FROM rows
          UNION ALL SELECT entity, record_hash, place FROM batch WHERE NOT deleted)
    GROUP BY entity, record_hash
)
SELECT entity, effective_at, observed_at, mapping_version, record_hash, untracked, contents.place AS like
FROM timeline JOIN contents USING (entity, record_hash)
WHERE op = 'upsert'
"""
# Every observation that is known of an entity, and the batch. Of an open row whose history is not read the first one
# stands for the start of the version: it is never its last, so nobody asks for its columns.
SEEN: Final = """
CREATE TEMP TABLE seen AS
SELECT * FROM batch
UNION ALL
SELECT entity, last_effective_at, last_observed_at, false, mapping_version, record_hash, NULL, place FROM rows
UNION ALL
SELECT entity, valid_from, observed_at, false, mapping_version, record_hash, NULL, NULL
FROM rows ANTI JOIN deep USING (entity)
WHERE valid_from <> last_effective_at
UNION ALL
SELECT entity, effective_at, observed_at, true, mapping_version, '', '', NULL FROM timeline WHERE op = 'delete'
UNION ALL
SELECT entity, effective_at, observed_at, false, mapping_version, record_hash, NULL, place FROM restored
"""
# Digests decide ties that nothing else decides; only for those are they made of rows that do not carry theirs.
UNDECIDED: Final = """
SELECT place FROM seen
QUALIFY row_digest IS NULL AND place IS NOT NULL
    AND count(*) OVER (PARTITION BY entity, effective_at, deleted, observed_at, mapping_version) > 1
"""
STALE: Final = """
SELECT place FROM survivors JOIN entities USING (entity) JOIN floors USING (service)
WHERE NOT deleted AND place IS NOT NULL AND mapping_version < floor
"""
VERSIONS: Final = """
SELECT service, family, record_id, versions.* EXCLUDE (entity), valid_to IS NULL AS is_current, entity
FROM versions JOIN entities USING (entity)
ORDER BY record_id, service, family, valid_from
"""
SAME_START: Final = "SELECT rows.row AS was, after.row AS now FROM rows JOIN after USING (entity, valid_from)"
# What no row shows and a later fold may need. Without history only what came last counts, and a living row shows that.
UNSEEN: Final = {
    2: """
SELECT * FROM survivors WHERE deleted
UNION ALL
SELECT survivors.* FROM survivors
ANTI JOIN versions ON survivors.entity = versions.entity AND survivors.effective_at = versions.last_effective_at
WHERE NOT deleted AND survivors.place IS NOT NULL
""",
    1: """
SELECT * FROM (FROM survivors QUALIFY row_number() OVER (PARTITION BY entity ORDER BY effective_at DESC) = 1)
WHERE deleted
""",
}
NEWS: Final = """
SELECT service, family, record_id, effective_at, observed_at, op, mapping_version, record_hash, untracked
FROM (SELECT DISTINCT entity, effective_at, observed_at, op, mapping_version, record_hash, untracked FROM unseen
      EXCEPT SELECT entity, effective_at, observed_at, op, mapping_version, record_hash, untracked FROM timeline)
JOIN entities USING (entity)
ORDER BY ALL
"""


class Change(msgspec.Struct, frozen=True):
    """What a merge is to write: rows of the version table that go and come, and rows of the timeline that come;
    `stale` are rows of the batch that are left out (`merge.StaleError`)."""

    removed: pa.Table
    added: pa.Table
    remembered: pa.Table
    stale: pa.Table


class Contents:
    """The business columns of observations, by place; with those that only the version table has, which a merge
    carries along."""

    def __init__(self, table: CanonicalTable, held: Mapping[str, str]) -> None:
        self._own = column_kinds(table)
        self.kinds = {**{name: kind for name, kind in held.items() if name not in ROW_COLUMNS}, **self._own}
        self._untracked = {name: kind for name, kind in self._own.items() if not table.all_columns()[name].tracked}
        self._held = rows_to_arrow([], self.kinds)

    def add(self, rows: pa.Table) -> pa.Array:
        """The places of the rows, whose other columns are left out."""
        start = self._held.num_rows
        self._held = pa.concat_tables([self._held, conformed(rows, self.kinds)])
        return pa.arange(start, self._held.num_rows)

    def restore(self, like: pa.ChunkedArray, untracked: pa.ChunkedArray) -> pa.Array:
        """The places of rows that are like others, but for their untracked columns (JSON text of those not null)."""
        own = [_decode(text) if text else {} for text in untracked.to_pylist()]
        tracked = self.at(like).drop_columns(list(self._untracked))
        columns = rows_to_arrow(own, self._untracked)
        for name in self._untracked:
            tracked = tracked.append_column(name, columns.column(name))
        return self.add(tracked)

    def at(self, places: pa.Array | pa.ChunkedArray) -> pa.Table:
        return self._held.take(places)

    def digests(self, places: pa.ChunkedArray) -> pa.Array:
        rows = rows_from_arrow(self.at(places), self._own, nulls=False)
        return pa.array([digest(row.items()) for row in rows], pa.string())

    def untracked(self, places: pa.ChunkedArray) -> pa.Array:
        """The untracked columns as JSON text; null where all are null, or the place is."""
        rows = rows_from_arrow(self.at(places).select(list(self._untracked)), self._untracked, nulls=False)
        texts = [msgspec.json.encode(row, order="sorted").decode() if row else None for row in rows]
        return pa.array(texts, pa.string())


def joined(changes: Sequence[Change]) -> Change:
    """The changes of different entities as one."""
    parts = zip(*((it.removed, it.added, it.remembered, it.stale) for it in changes), strict=True)
    return Change(*(pa.concat_tables(tables, promote_options="default") for tables in parts))


def change_of(history: HistoryTables, tenant_id: str, table: CanonicalTable, batch: pa.Table) -> Change:
    """What folding `batch` (`parquet.observations`) into the tables changes. Errors: those of reading them."""
    with session() as sql:
        return _Folding(sql, history, table).change(tenant_id, batch)


class _Folding:
    """One change on its way: the tables of `sql` by their names above."""

    def __init__(self, sql: duckdb.DuckDBPyConnection, history: HistoryTables, table: CanonicalTable) -> None:
        self._sql, self._history, self._table = sql, history, table
        self._contents = Contents(table, history.kinds)
        self._rows: list[pa.Table] = []

    def change(self, tenant_id: str, batch: pa.Table) -> Change:
        self._read(batch)
        self._fold()
        stale = self._without_stale(batch)
        after = self._after(tenant_id)
        pairs, ours = self._asked(SAME_START), self._asked("SELECT row FROM rows")
        removed, added = _difference(pairs, pa.concat_tables(self._rows), after, ours)
        return Change(removed, added, self._remembered(tenant_id), stale)

    def _asked(self, question: str, **tables: pa.Table) -> pa.Table:
        """The answer to a question about `tables` and those that are there."""
        self._name(tables)
        return self._sql.sql(question).to_arrow_table()

    def _do(self, statement: str, **tables: pa.Table) -> None:
        self._name(tables)
        self._sql.execute(statement)

    def _name(self, tables: Mapping[str, pa.Table]) -> None:
        for name, table in tables.items():
            self._sql.register(name, table)

    # -- reading what is known
    def _read(self, batch: pa.Table) -> None:
        places = self._contents.add(batch)
        narrow = batch.select([*KEY, *SEEN_FIELDS]).rename_columns([*KEY, *(it.lstrip("_") for it in SEEN_FIELDS)])
        self._do(ENTITIES, batch_read=narrow.append_column("place", places))
        self._do(BATCH)
        ids = _ids(self._asked("SELECT DISTINCT record_id FROM entities ORDER BY 1"))
        self._put_rows("CREATE TEMP TABLE rows AS", self._history.open_rows(ids))
        absent = _ids(self._asked("SELECT DISTINCT record_id FROM entities ANTI JOIN rows USING (entity) ORDER BY 1"))
        self._put_timeline("CREATE TEMP TABLE timeline AS", absent, deletes_only=True)
        self._do(DEEP)
        if self._table.scd == 1:
            self._do("DELETE FROM deep")
        deep = _ids(self._asked("SELECT DISTINCT record_id FROM deep ORDER BY 1"))
        restored = _NOTHING_RESTORED
        if len(deep):
            self._put_rows("INSERT INTO rows", self._history.closed_rows(deep), only_deep=True)
            self._do("DELETE FROM timeline WHERE entity IN (SELECT entity FROM deep)")
            self._put_timeline("INSERT INTO timeline", deep, deletes_only=False)
            restored = self._asked(RESTORED)
        restored = restored.append_column(
            "place", self._contents.restore(restored.column("like"), restored.column("untracked"))
        )
        self._do(SEEN, restored=restored)

    def _put_rows(self, into: str, rows: pa.Table, *, only_deep: bool = False) -> None:
        places = self._contents.add(rows)
        start = sum(held.num_rows for held in self._rows)
        self._rows.append(rows)
        read = rows.select([name for name in ROW_COLUMNS if name != "tenant_id"]).append_column("place", places)
        read = read.append_column("row", pa.arange(start, start + rows.num_rows))
        self._do(f"{into} {KNOWN_ROWS} {_IN_DEEP if only_deep else ''}", rows_read=read)

    def _put_timeline(self, into: str, record_ids: pa.Array, *, deletes_only: bool) -> None:
        entries = self._history.remembered(record_ids, deletes_only=deletes_only) if len(record_ids) else _NO_TIMELINE
        self._do(f"{into} {KNOWN_TIMELINE} {'' if deletes_only else _IN_DEEP}", timeline_read=entries)

    # -- folding
    def _fold(self) -> None:
        undecided = self._asked(UNDECIDED)
        digests = self._contents.digests(undecided.column("place"))
        self._do(
            "UPDATE seen SET row_digest = found.digest FROM found WHERE seen.place = found.place",
            found=undecided.append_column("digest", digests),
        )
        fold(self._sql, self._table.scd)

    def _without_stale(self, batch: pa.Table) -> pa.Table:
        """Observations made by a mapping that no longer makes rows here, unless the fold drops them anyhow: taken out
        of the set, and returned."""
        floors = self._history.floors
        if not floors:
            return batch.slice(0, 0)
        by_service = pa.table({"service": list(floors), "floor": list(floors.values())})
        stale: list[int] = []
        while found := self._asked(STALE, floors=by_service).column("place").to_pylist():
            stale += found
            self._do("DELETE FROM seen WHERE place IN (SELECT place FROM gone)", gone=pa.table({"place": found}))
            fold(self._sql, self._table.scd)
        return batch.take(pa.array(sorted(place for place in stale if place < batch.num_rows), pa.int64()))

    # -- what differs
    def _after(self, tenant_id: str) -> pa.Table:
        """The rows of the version table as they are to be, in reading order."""
        folded = self._asked(VERSIONS)
        numbered = folded.append_column("row", pa.arange(0, folded.num_rows))
        self._sql.register("after", numbered.select(["entity", "valid_from", "row"]))
        rows = self._contents.at(folded.column("place"))
        folded = folded.append_column("tenant_id", pa.array([tenant_id] * folded.num_rows, pa.string()))
        for name in ROW_COLUMNS:
            rows = rows.append_column(name, folded.column(name))
        return conformed(rows, {**self._contents.kinds, **ROW_COLUMNS})

    def _remembered(self, tenant_id: str) -> pa.Table:
        unseen = self._asked(UNSEEN[self._table.scd])
        unseen = unseen.append_column("untracked", self._contents.untracked(unseen.column("place")))
        unseen = unseen.append_column("op", pc.if_else(unseen.column("deleted"), "delete", "upsert"))
        news = self._asked(NEWS, unseen=unseen)
        return news.add_column(0, "tenant_id", pa.array([tenant_id] * news.num_rows, pa.string()))


_IN_DEEP: Final = "SEMI JOIN deep USING (entity)"
_NO_TIMELINE: Final = rows_to_arrow([], TIMELINE_COLUMNS)
_NOTHING_RESTORED: Final = rows_to_arrow(
    [],
    {
        "entity": "int64", "effective_at": "timestamp", "observed_at": "timestamp", "mapping_version": "int32",
        "record_hash": "string", "untracked": "json", "like": "int64",
    },
)  # fmt: skip


def _ids(found: pa.Table) -> pa.Array:
    return found.column("record_id").combine_chunks()


def _difference(pairs: pa.Table, before: pa.Table, after: pa.Table, ours: pa.Table) -> tuple[pa.Table, pa.Table]:
    """(rows of `before` that go, rows of `after` that come). `pairs` of places have the same entity and start; `ours`
    has the places in `before` of the rows that the batch is about."""
    was, now = before.take(pairs.column("was")), after.take(pairs.column("now"))
    unchanged = pairs.filter(_equal_rows(was, now))
    gone = pc.invert(pc.is_in(ours.column("row"), value_set=unchanged.column("was").combine_chunks()))
    come = pc.invert(pc.is_in(pa.arange(0, after.num_rows), value_set=unchanged.column("now").combine_chunks()))
    return before.take(ours.column("row").filter(gone)), after.filter(come)


def _equal_rows(some: pa.Table, others: pa.Table) -> pa.Array:
    """Row by row: have they equal values, or both none, in every column of `others`? What `some` lacks is null."""
    same = pa.array([True]).take(pa.repeat(0, others.num_rows))
    for name in others.column_names:
        other = others.column(name)
        one = some.column(name) if name in some.column_names else pa.nulls(others.num_rows, other.type)
        both_null = pc.and_(pc.is_null(one), pc.is_null(other))
        same = pc.and_(same, pc.or_(both_null, pc.fill_null(pc.equal(one, other), False)))
    return same
