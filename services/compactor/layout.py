"""Which data files a change rewrites. Pure: files and rows are counted here, never read.

Open rows lie in leaves, each a range of record ids, as in a B-tree: a change rewrites the
leaves it touches, and a look-up by id opens one. Closed rows and the timeline are appended; when too many small files
have gathered they become one, so a row is rewritten a few times in its life and never with each merge.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Final

import msgspec

RUN_LEAVES_MAX: Final = 4  # leaves rewritten together: a bound on memory


class Limits(msgspec.Struct, frozen=True):
    """How large files become, and how many small ones and old snapshots are kept.

    Units: rows of a file of open rows, and of one of closed rows or of the timeline; `snapshot_age_s` seconds.
    """

    open_rows: int = 5_000
    closed_rows: int = 50_000
    small_files: int = 16
    snapshots: int = 32  # beyond this maintenance begins
    snapshots_kept: int = 8
    snapshot_age_s: float = 3_600.0  # no younger snapshot expires: somebody may be reading it
    manifests: int = 16


class DataLeaf(msgspec.Struct, frozen=True):
    """One data file: its path, its least record id and how many rows it has."""

    path: str
    first: str
    rows: int


class Rewrite(msgspec.Struct, frozen=True):
    """Files whose rows become new files: less what is removed, plus [`start`, `end`) of the sorted rows added."""

    paths: tuple[str, ...]
    start: int = 0
    end: int = 0


def rewrite_leaves(
    leaves: Sequence[DataLeaf], removed: Mapping[str, int], added: Sequence[str], rows_max: int
) -> list[Rewrite]:
    """Rewrites of a clustered partition. `removed` counts rows by path, `added` are record ids in order."""
    ordered = sorted(leaves, key=lambda leaf: (leaf.first, leaf.path))
    if not ordered:
        return [Rewrite((), 0, len(added))] if added else []
    ends = _ends(ordered, added)
    starts = [0, *ends[:-1]]

    def touched(place: int) -> bool:
        return ordered[place].path in removed or ends[place] > starts[place]

    rewrites: list[Rewrite] = []
    place = 0
    while place < len(ordered):
        if not touched(place):
            place += 1
            continue
        begin, rows = place, 0
        while True:
            rows += ordered[place].rows - removed.get(ordered[place].path, 0) + ends[place] - starts[place]
            place += 1
            if place == len(ordered) or place - begin == RUN_LEAVES_MAX:
                break
            if not touched(place) and rows >= rows_max // 2:
                break
        paths = tuple(leaf.path for leaf in ordered[begin:place])
        rewrites.append(Rewrite(paths, starts[begin], ends[place - 1]))
    return rewrites


def _ends(ordered: Sequence[DataLeaf], added: Sequence[str]) -> list[int]:
    """For each leaf the place in `added` where its share ends; what comes before the first leaf is the first's."""
    firsts = [leaf.first for leaf in ordered]
    ends = [0] * len(ordered)
    for place, record_id in enumerate(added):
        ends[max(0, bisect_right(firsts, record_id) - 1)] = place + 1
    for leaf in range(1, len(ends)):
        ends[leaf] = max(ends[leaf], ends[leaf - 1])
    return ends


def rewrite_appended(
    files: Sequence[DataLeaf], removed: Mapping[str, int], added: int, limits: Limits
) -> list[Rewrite]:
    """Rewrites of a partition that grows: files that lose rows one by one, the new rows in a file of their own or
    together with the small files once `limits.small_files` have gathered."""
    rewrites = [Rewrite((file.path,)) for file in files if file.path in removed]
    if added:
        small = [file for file in files if file.path not in removed and file.rows < limits.closed_rows // 2]
        gathered = len(small) >= limits.small_files
        rewrites.append(Rewrite(_smallest(small, limits.closed_rows) if gathered else (), 0, added))
    return rewrites


def _smallest(files: Sequence[DataLeaf], rows_max: int) -> tuple[str, ...]:
    """As many of the smallest files as one file can hold, or two."""
    ordered = sorted(files, key=lambda file: (file.rows, file.path))
    totals = accumulate(file.rows for file in ordered)
    return tuple(
        file.path
        for place, (file, total) in enumerate(zip(ordered, totals, strict=True))
        if total <= rows_max or place < 2
    )


def chunk_sizes(rows: int, rows_max: int) -> list[int]:
    """`rows` in as few nearly equal parts as `rows_max` allows."""
    if rows == 0:
        return []
    parts = -(-rows // rows_max)
    return [rows // parts + (1 if place < rows % parts else 0) for place in range(parts)]
