"""Which files a change rewrites."""

from hypothesis import given
from hypothesis import strategies as st

from services.compactor.layout import DataLeaf, Limits, Rewrite, chunk_sizes, rewrite_appended, rewrite_leaves

LEAVES = [DataLeaf("a", "10", 10), DataLeaf("b", "20", 10), DataLeaf("c", "30", 10)]


def test_rows_of_an_empty_table_make_files_of_their_own() -> None:
    assert rewrite_leaves([], {}, ["1", "2"], 10) == [Rewrite((), 0, 2)]
    assert rewrite_leaves([], {}, [], 10) == []


def test_a_change_rewrites_the_leaf_it_falls_into_and_no_other() -> None:
    assert rewrite_leaves(LEAVES, {"b": 1}, ["25"], 10) == [Rewrite(("b",), 0, 1)]


def test_what_comes_before_the_first_leaf_is_its_and_what_comes_after_the_last_is_that_ones() -> None:
    assert rewrite_leaves(LEAVES, {}, ["05", "99"], 10) == [Rewrite(("a",), 0, 1), Rewrite(("c",), 1, 2)]


def test_neighbours_are_rewritten_together_and_a_leaf_that_empties_takes_its_neighbour_along() -> None:
    assert rewrite_leaves(LEAVES, {"a": 1, "b": 1}, [], 10) == [Rewrite(("a", "b"), 0, 0)]
    assert rewrite_leaves(LEAVES, {"a": 8}, [], 10) == [Rewrite(("a", "b"), 0, 0)]


def test_leaves_rewritten_together_are_bounded() -> None:
    many = [DataLeaf(f"{number}", f"{number:02d}", 10) for number in range(10)]
    rewrites = rewrite_leaves(many, {leaf.path: 1 for leaf in many}, [], 10)
    assert [len(rewrite.paths) for rewrite in rewrites] == [4, 4, 2]


def test_appended_rows_are_a_file_of_their_own_until_small_files_have_gathered() -> None:
    few = [DataLeaf(str(number), "", 10) for number in range(3)]
    many = [DataLeaf(f"{number:02d}", "", 10) for number in range(16)] + [DataLeaf("large", "", 900)]
    assert rewrite_appended(few, {}, 5, Limits(closed_rows=1000)) == [Rewrite((), 0, 5)]
    assert rewrite_appended(many, {}, 5, Limits(closed_rows=1000)) == [
        Rewrite(tuple(leaf.path for leaf in many[:16]), 0, 5)
    ]


def test_a_file_that_loses_rows_is_rewritten_alone() -> None:
    assert rewrite_appended(LEAVES, {"b": 2}, 0, Limits(closed_rows=1000)) == [Rewrite(("b",))]


@given(
    st.lists(st.text("0123", min_size=1, max_size=3), unique=True, max_size=8),
    st.lists(st.text("0123", min_size=1, max_size=3), max_size=12),
    st.data(),
)
def test_every_added_row_and_every_leaf_that_loses_one_is_in_exactly_one_rewrite(
    firsts: list[str], added: list[str], data: st.DataObject
) -> None:
    leaves = [DataLeaf(f"file {first}", first, 10) for first in firsts]
    removed = {leaf.path: 1 for leaf in leaves if data.draw(st.booleans())}
    rewrites = rewrite_leaves(leaves, removed, sorted(added), 10)
    places = [place for rewrite in rewrites for place in range(rewrite.start, rewrite.end)]
    paths = [path for rewrite in rewrites for path in rewrite.paths]
    assert sorted(places) == list(range(len(added)))
    assert len(paths) == len(set(paths))
    assert set(removed) <= set(paths)


@given(st.integers(0, 100), st.integers(1, 10))
def test_chunks_are_nearly_equal_and_none_is_too_large(rows: int, rows_max: int) -> None:
    sizes = chunk_sizes(rows, rows_max)
    assert sum(sizes) == rows
    assert all(size <= rows_max for size in sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
