"""What becomes of files as a partition changes: few of them, few dead rows, and little written for each change."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from services.compactor.layout import NEW, Extent, Limits, chunk_sizes, rewrites

LIMITS = Limits(small_rows=10, fan_in=4, file_rows=1_000, file_bytes=1_000_000, merge_rows=5_000)


def test_new_rows_are_a_file_of_their_own_until_enough_have_gathered() -> None:
    files = [Extent(f"{number}", 5) for number in range(2)]
    assert rewrites([*files, Extent(NEW, 5)], LIMITS) == [(NEW,)]
    assert rewrites([*files, Extent("2", 5), Extent(NEW, 5)], LIMITS) == [(NEW, "0", "1", "2")]


def test_a_file_is_rewritten_once_a_quarter_of_it_is_dead() -> None:
    assert rewrites([Extent("full", 900, dead=224)], LIMITS) == []
    assert rewrites([Extent("full", 900, dead=225)], LIMITS) == [("full",)]


def test_full_files_gather_no_more() -> None:
    assert rewrites([Extent(f"{number}", 500) for number in range(8)], LIMITS) == []
    wide = [Extent(f"{number}", 50, bytes=500_000) for number in range(8)]
    assert rewrites(wide, LIMITS) == []


def test_one_merge_rewrites_no_more_than_its_bound_but_always_something() -> None:
    decaying = [Extent(f"{number}", 900, dead=300) for number in range(20)]
    assert len(rewrites(decaying, LIMITS)) == 5_000 // 600
    assert rewrites(decaying[:1], Limits(merge_rows=1)) == [("0",)]


@given(st.integers(0, 10_000), st.integers(0, 10_000_000))
def test_chunks_are_within_the_limits_and_lose_nothing(rows: int, size: int) -> None:
    sizes = chunk_sizes(rows, size, LIMITS)
    assert sum(sizes) == rows
    assert all(part <= LIMITS.file_rows for part in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1


def test_a_table_that_changes_for_years_keeps_few_files_and_writes_each_row_a_few_times() -> None:
    """Open rows: each merge kills some rows at random and adds as many; counted for 5,000 merges."""
    chance = Random(7)
    files = {"first": [1_000, 0]}
    written = killed = 0
    for turn in range(5_000):
        for _ in range(10):  # a row dies where it lies
            path = chance.choices(list(files), [rows - dead for rows, dead in files.values()])[0]
            files[path][1] += 1
            killed += 1
        extents = [Extent(path, rows, dead) for path, (rows, dead) in files.items()]
        for number, group in enumerate(rewrites([*extents, Extent(NEW, 10)], LIMITS)):
            rows = sum(10 if path == NEW else files[path][0] - files[path][1] for path in group)
            for path in group:
                files.pop(path, None)
            for part, size in enumerate(chunk_sizes(rows, 0, LIMITS)):
                files[f"{turn}-{number}-{part}"] = [size, 0]
            written += rows
        assert sum(rows - dead for rows, dead in files.values()) == 1_000
        assert len(files) < 20
    assert written < 12 * killed
