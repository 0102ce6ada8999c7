"""How parts become batches of bounded size."""

import pytest

from services.compactor.merging import batches
from services.compactor.parquet import canonical_file
from tests.compactor.observed import TICKETS, seen


def part(*record_ids: int) -> bytes:
    return canonical_file([seen({}, 1, record_id=str(one)) for one in record_ids], TICKETS, {})


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        ([], []),
        ([[1], [2]], [2]),
        ([[1, 2, 3]], [3]),
        ([[1, 2], [3, 4]], [3, 1]),
        ([[1, 2, 3, 4, 5, 6, 7]], [3, 3, 1]),
    ],
)
def test_parts_are_merged_in_batches_of_bounded_size_and_no_row_is_left_out(
    parts: list[list[int]], sizes: list[int]
) -> None:
    found = list(batches((part(*ids) for ids in parts), rows_max=3))
    assert [sum(rows.num_rows for rows in batch) for batch in found] == sizes
    ids = [record_id for batch in found for rows in batch for record_id in rows.column("record_id").to_pylist()]
    assert ids == [str(one) for some in parts for one in some]
