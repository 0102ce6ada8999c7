"""The fold in columns (`compactor/folding.py`) is the fold of `contracts/fold.py`, entity by entity."""

from collections.abc import Sequence
from typing import Any

import pytest

from services.compactor.folding import fold as fold_columns
from services.compactor.folding import session
from services.compactor.parquet import rows_from_arrow, rows_to_arrow
from services.contracts.events import CanonicalEvent
from services.contracts.fold import Scd, fold
from services.contracts.rows import observation_of
from tests.history.sequences import sets

SETS = 10_000  # of one seed, folded side by side
SEEDS = range(11)
SOAK_SEEDS = range(2_000, 2_100)
SEEN = {
    "entity": "int64", "effective_at": "timestamp", "observed_at": "timestamp", "deleted": "bool",
    "mapping_version": "int32", "record_hash": "string", "row_digest": "string", "place": "int64",
}  # fmt: skip
VERSION = {
    "entity": "int64", "valid_from": "timestamp", "valid_to": "timestamp", "observed_at": "timestamp",
    "record_hash": "string", "mapping_version": "int32", "last_effective_at": "timestamp",
    "last_observed_at": "timestamp", "row_digest": "string",
}  # fmt: skip


def in_columns(entities: Sequence[Sequence[CanonicalEvent]], scd: Scd) -> list[dict[str, Any]]:
    """The versions of all these entities; of the row that each shows, its digest."""
    events = [(entity, event) for entity, its in enumerate(entities) for event in its]
    seen: dict[str, list[Any]] = {
        "entity": [entity for entity, _ in events],
        "deleted": [event.op == "delete" for _, event in events],
        "place": list(range(len(events))),
    }
    plain = [name for name in SEEN if name not in seen]
    rows = [
        {**{name: getattr(event, name) for name in plain}, **{name: values[place] for name, values in seen.items()}}
        for place, (_, event) in enumerate(events)
    ]
    with session() as sql:
        sql.register("seen", rows_to_arrow(rows, SEEN))
        fold_columns(sql, scd)
        columns = ", ".join(f"versions.{name}" for name in VERSION if name != "row_digest")
        found = sql.sql(
            f"SELECT {columns}, shown.row_digest FROM versions JOIN seen AS shown USING (place) ORDER BY 1, 2"
        )
        return rows_from_arrow(found.to_arrow_table(), VERSION)


def one_by_one(entities: Sequence[Sequence[CanonicalEvent]], scd: Scd) -> list[dict[str, Any]]:
    return [
        {
            "entity": entity,
            "valid_from": version.valid_from,
            "valid_to": version.valid_to,
            "observed_at": version.first.observed_at,
            "record_hash": version.last.record_hash,
            "mapping_version": version.last.mapping_version,
            "last_effective_at": version.last.effective_at,
            "last_observed_at": version.last.observed_at,
            "row_digest": version.last.row_digest,
        }
        for entity, its in enumerate(entities)
        for version in fold(map(observation_of, its), scd)
    ]


def check(seed: int, scd: Scd) -> None:
    entities = sets(seed, SETS)
    assert in_columns(entities, scd) == one_by_one(entities, scd), f"seed {seed}"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_fold_in_columns_is_the_fold(seed: int) -> None:
    check(seed, 1 if seed % 4 == 3 else 2)


@pytest.mark.soak
@pytest.mark.parametrize("seed", SOAK_SEEDS)
def test_the_fold_in_columns_is_the_fold_a_million_times(seed: int) -> None:
    check(seed, 1 if seed % 4 == 3 else 2)
