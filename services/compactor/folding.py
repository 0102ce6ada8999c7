"""The fold of `contracts/fold.py` in columns: the histories of many entities at once, as SQL over Arrow data.

The two are one function, held together by property tests (tests/history). This one is for merges, where rows are
Arrow columns already and turning each into Python objects would cost more than the fold itself.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Final

import duckdb

from services.contracts.fold import Scd

# Several merges run beside each other: a thread each, and this much memory for all.
DATABASE: Final = {
    "threads": "1",
    "memory_limit": "2GB",
    "temp_directory": tempfile.gettempdir(),  # what does not fit in memory; the working directory may be read-only
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "python_enable_replacements": "false",
}

# Of the observations at one `effective_at` of an entity the greatest survives, in the order of `contracts.fold.rank`.
SURVIVORS: Final = """
CREATE OR REPLACE TEMP TABLE survivors AS
SELECT * FROM seen
QUALIFY row_number() OVER (
    PARTITION BY entity, effective_at
    ORDER BY deleted DESC, observed_at DESC, mapping_version DESC, row_digest DESC, place DESC NULLS LAST
) = 1
"""

# Neighbours of equal tracked columns are one run; a run of upserts is a version, which ends where the next run begins.
RUNS: Final = """
CREATE OR REPLACE TEMP TABLE versions AS
WITH marked AS (
    SELECT *, lag(deleted) OVER earlier IS DISTINCT FROM deleted
           OR lag(record_hash) OVER earlier IS DISTINCT FROM record_hash AS begins
    FROM survivors
    WINDOW earlier AS (PARTITION BY entity ORDER BY effective_at)
),
numbered AS (
    SELECT *, count(*) FILTER (begins) OVER (PARTITION BY entity ORDER BY effective_at) AS run FROM marked
),
runs AS (
    SELECT entity, run, min(effective_at) AS valid_from, max(effective_at) AS last_effective_at,
           lead(min(effective_at)) OVER (PARTITION BY entity ORDER BY run) AS valid_to
    FROM numbered
    GROUP BY entity, run
)
SELECT runs.entity, valid_from, valid_to, first.observed_at, last.record_hash, last.mapping_version,
       last_effective_at, last.observed_at AS last_observed_at, last.place
FROM runs
JOIN survivors AS first ON first.entity = runs.entity AND first.effective_at = runs.valid_from
JOIN survivors AS last ON last.entity = runs.entity AND last.effective_at = runs.last_effective_at
WHERE NOT last.deleted
"""

# Without history: the last survivor, if it lives.
LIVING: Final = """
CREATE OR REPLACE TEMP TABLE versions AS
SELECT entity, effective_at AS valid_from, NULL::TIMESTAMPTZ AS valid_to, observed_at, record_hash, mapping_version,
       effective_at AS last_effective_at, observed_at AS last_observed_at, place
FROM (FROM survivors QUALIFY row_number() OVER (PARTITION BY entity ORDER BY effective_at DESC) = 1)
WHERE NOT deleted
"""


@cache
def _database() -> duckdb.DuckDBPyConnection:
    """One in memory for this process: opening another would cost more than a small merge."""
    return duckdb.connect(config=dict(DATABASE))


@contextmanager
def session() -> Iterator[duckdb.DuckDBPyConnection]:
    """Temporary tables of its own, gone when the block ends; for one thread."""
    connection = _database().cursor()
    try:
        connection.execute("SET TimeZone = 'UTC'")
        yield connection
    finally:
        connection.close()


def fold(sql: duckdb.DuckDBPyConnection, scd: Scd) -> None:
    """The histories of every entity in the table `seen`, whatever the order and number of its rows.

    Shape:  `seen` has `entity` (a number), the fields of `contracts.fold.Observation` but its row, and `place` (a
            number that says where the row is; null where nobody will ask). It makes the table `survivors`, of the
            same columns, and the table `versions`: `entity`, `place`, the columns of ROW_COLUMNS that a fold decides.
    Units:  half-open intervals, UTC.
    """
    sql.execute(SURVIVORS)
    sql.execute(RUNS if scd == 2 else LIVING)
