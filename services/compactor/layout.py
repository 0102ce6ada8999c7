"""Which data files of a partition become new ones as it changes. Pure: files and rows are counted here, never read.

A merge appends one file and marks the rows it replaces as dead (position deletes); it rewrites nothing. So that files
stay few and the dead stay rare, files of one size become one of the next size once `Limits.fan_in` of them have
gathered, and a file is rewritten when a quarter of it is dead. A row is then rewritten a handful of times in its life,
however large the table, and never with each merge. (Size-tiered compaction, as in an LSM tree: O'Neil et al. 1996.)
"""

from collections.abc import Sequence

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """How large files become, how many of one size gather, and how many old snapshots are kept.

    Units: rows, bytes, `snapshot_age_s` seconds.
    """

    small_rows: int = 4_096  # a smaller file is of the first size
    fan_in: int = 8  # files of one size that become one; also how many times larger the next size is
    file_rows: int = 262_144  # a file of half as many is full: it gathers no more
    file_bytes: int = 16 << 20  # the same, for wide rows
    dead_share: float = 0.25
    merge_rows: int = 1_000_000  # rewritten by one merge: a bound on its time; the rest is the next one's
    manifests: int = 8  # beyond it they become one
    snapshots: int = 32  # beyond this some expire
    snapshots_kept: int = 8
    snapshot_age_s: float = 3_600.0  # no younger snapshot expires: somebody may be reading it


class Extent(msgspec.Struct, frozen=True):
    """What counts of one data file: its rows, and how many of them are dead. The rows that a merge adds are an extent
    before they are a file: their path is NEW."""

    path: str
    rows: int
    dead: int = 0
    bytes: int = 0

    @property
    def living(self) -> int:
        return self.rows - self.dead

    @property
    def living_bytes(self) -> int:
        return self.bytes * self.living // max(1, self.rows)


NEW = ""


def rewrites(extents: Sequence[Extent], limits: Limits) -> list[tuple[str, ...]]:
    """Groups of paths, each of which becomes one file, or several where one would be too large.

    Shape:  no path twice; NEW, where it is among the extents, in one of them.
    """
    sizes: dict[int, list[Extent]] = {}
    for extent in sorted(extents, key=lambda extent: (extent.living, extent.path)):
        if not _is_full(extent, limits):
            sizes.setdefault(_size(extent, limits), []).append(extent)
    groups = [found for _, found in sorted(sizes.items()) if len(found) >= limits.fan_in]
    gathered = {extent.path for group in groups for extent in group}
    groups += [[extent] for extent in extents if extent.path not in gathered and _is_decaying(extent, limits)]
    chosen: list[tuple[str, ...]] = []
    room = limits.merge_rows
    for group in groups:
        room -= sum(extent.living for extent in group)
        if room >= 0 or not chosen:  # one that is larger than the bound would never be done otherwise
            chosen.append(tuple(extent.path for extent in group))
    if any(extent.path == NEW for extent in extents) and not any(NEW in group for group in chosen):
        chosen.append((NEW,))
    return chosen


def _size(extent: Extent, limits: Limits) -> int:
    size, rows = 0, limits.small_rows
    while extent.living >= rows:
        size, rows = size + 1, rows * limits.fan_in
    return size


def _is_full(extent: Extent, limits: Limits) -> bool:
    return 2 * extent.living >= limits.file_rows or 2 * extent.living_bytes >= limits.file_bytes


def _is_decaying(extent: Extent, limits: Limits) -> bool:
    return extent.dead > 0 and extent.dead >= limits.dead_share * extent.rows


def chunk_sizes(rows: int, size: int, limits: Limits) -> list[int]:
    """`rows` of `size` bytes in as few nearly equal files as the limits allow."""
    if rows == 0:
        return []
    parts = max(-(-rows // limits.file_rows), -(-size // limits.file_bytes))
    return [rows // parts + (1 if place < rows % parts else 0) for place in range(parts)]
