"""Keeping house in an Iceberg table, under its merger's lease: old snapshots go with the files that only they named,
and files that a merger left behind when it died go too. Rewriting of small files is part of the merges (layout.py).

pyiceberg expires snapshots without deleting a file. Costs no request until there is something to do.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, cast

import msgspec
from pyarrow.fs import FileSelector, FileType
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Snapshot

from services.compactor.open_table import OpenTable
from services.contracts.errors import ConflictError, RetryableError
from services.contracts.times import UtcTime, moment, seconds_between, utc_text

EXPIRED_MAX: Final = 100  # snapshots of one round
REMOVED_MAX: Final = 10_000  # files left behind that one round removes
SWEPT: Final = "avesa.swept"  # when files left behind were last looked for
SWEEP_EVERY_S: Final = 7 * 86_400.0
LEFT_BEHIND_S: Final = 86_400.0  # no younger file is: a merge takes minutes


class Upkeep(msgspec.Struct, frozen=True, tag_field="kind", tag="table"):
    """How a table stands: what of it is living, how much it holds, and when the service last kept house."""

    tenant_id: str
    table: str
    rows: int
    dead_rows: int
    files: int
    bytes: int
    snapshots: int
    merged_at: UtcTime | None
    oldest_at: UtcTime | None  # of the snapshots that a reader can still ask for
    swept_at: UtcTime | None


def upkeep_of(tenant_id: str, name: str, table: Table) -> Upkeep:
    """As its metadata has it: no file is read."""
    current = table.current_snapshot()
    summary = {} if current is None or current.summary is None else current.summary.additional_properties
    total = {key: int(summary.get(f"total-{key}", 0)) for key in ("records", "position-deletes", "data-files")}
    times = sorted(snapshot.timestamp_ms for snapshot in table.metadata.snapshots)
    return Upkeep(
        tenant_id,
        name,
        total["records"] - total["position-deletes"],
        total["position-deletes"],
        total["data-files"],
        int(summary.get("total-files-size", 0)),
        len(times),
        _time(times[-1]) if times else None,
        _time(times[0]) if times else None,
        table.properties.get(SWEPT),
    )


def _time(milliseconds: int) -> UtcTime:
    return utc_text(datetime.fromtimestamp(milliseconds / 1000, UTC))


def keep_house(table: OpenTable, now: UtcTime) -> int:
    """Expire old snapshots, and now and then look for files left behind; returns how many files were removed.

    What a kept snapshot names stays; kept are the newest few and all younger than an hour, so that nobody's read is
    cut short.
    """
    try:
        if len(table.table.metadata.snapshots) <= table.limits.snapshots:
            return 0
        with table.errors("maintaining"):
            removed = _expire(table, now)
            return removed + (_sweep(table, now) if removed and _sweep_is_due(table.table, now) else 0)
    except (ConflictError, RetryableError):
        return 0  # another time: what is merged is merged


def _expire(table: OpenTable, now: UtcTime) -> int:
    young_ms = int((moment(now) - timedelta(seconds=table.limits.snapshot_age_s)).timestamp() * 1000)
    ordered = sorted(table.table.metadata.snapshots, key=lambda snapshot: snapshot.sequence_number or 0)
    before_kept = ordered[: -table.limits.snapshots_kept]
    old = [snapshot for snapshot in before_kept if snapshot.timestamp_ms < young_ms][:EXPIRED_MAX]
    if not old:
        return 0
    expired = {snapshot.snapshot_id for snapshot in old}
    kept = named(table.table, (snapshot for snapshot in ordered if snapshot.snapshot_id not in expired))
    obsolete = named(table.table, old) - kept
    table.table.maintenance.expire_snapshots().by_ids(sorted(expired)).commit()
    table.remove(sorted(obsolete))
    return len(obsolete)


def _sweep_is_due(table: Table, now: UtcTime) -> bool:
    swept_at = table.properties.get(SWEPT)
    return swept_at is None or seconds_between(swept_at, now) > SWEEP_EVERY_S


def _sweep(table: OpenTable, now: UtcTime) -> int:
    """Remove what no snapshot and no metadata names, and is old enough that nobody is about to."""
    held = table.table.refresh()
    io = cast("PyArrowFileIO", held.io)
    scheme, host, path = io.parse_location(held.location(), io.properties)
    root = held.location().removesuffix(path)  # what a listing leaves out of a location
    known = named(held, held.metadata.snapshots) | {held.metadata_location}
    known |= {entry.metadata_file for entry in held.metadata.metadata_log}
    before = moment(now) - timedelta(seconds=LEFT_BEHIND_S)
    left = [
        f"{root}{info.path}"
        for info in io.fs_by_scheme(scheme, host).get_file_info(FileSelector(path, recursive=True))
        if info.type is FileType.File and f"{root}{info.path}" not in known and _is_before(info.mtime, before)
    ]
    table.remove(sorted(left)[:REMOVED_MAX])
    with held.transaction() as transaction:
        transaction.set_properties({SWEPT: now})
    return len(left[:REMOVED_MAX])


def _is_before(written: datetime | None, time: datetime) -> bool:
    return written is not None and written < time


def named(table: Table, snapshots: Iterable[Snapshot]) -> set[str]:
    """Every file these snapshots name: manifest lists, manifests, living data and delete files."""
    lists = {snapshot.manifest_list: snapshot for snapshot in snapshots}
    manifests = {
        manifest.manifest_path: manifest for snapshot in lists.values() for manifest in snapshot.manifests(table.io)
    }
    data = {
        entry.data_file.file_path
        for manifest in manifests.values()
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    }
    return {*lists, *manifests, *data}
