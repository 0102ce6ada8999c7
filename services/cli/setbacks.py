"""What groups have set aside: partitions that are parked, lost ranges of a shard that are read again. Pure."""

import msgspec

from services.cli.screen import counted
from services.contracts.gaps import State, read_gap
from services.contracts.ports import Row
from services.contracts.times import UtcTime


class Parked(msgspec.Struct, frozen=True, tag_field="kind", tag="parked"):
    """A virtual partition (`tenant/service/group/bucket`) of which a group uses nothing, whole and in order, since so
    much of it could not be used; `letters` dead letters had been written by then."""

    group: str
    partition: str
    since: UtcTime | None
    code: str = ""
    reason: str = ""
    letters: int = 0

    @property
    def tenant_id(self) -> str:
        return self.partition.partition("/")[0]

    @property
    def service(self) -> str:
        return self.partition.split("/")[1]

    @property
    def why(self) -> str:
        """`bad_value: no number; 120 dead letters`, or as much of it as is known."""
        said = ": ".join(filter(None, (self.code, self.reason)))
        return "; ".join(filter(None, (said, counted(self.letters, "dead letter") if self.letters else "")))


class Gap(msgspec.Struct, frozen=True, tag_field="kind", tag="gap"):
    """What arrived in a shard between two times and a group may never have read, met `at`; `state` as in
    contracts/gaps.py: waits to be read again (`open`), is now from the raw `archive` or from the vendors (`source`),
    or the shard waits for a person (`halted`)."""

    group: str
    stream: str
    shard_id: str
    state: State
    since: UtcTime
    until: UtcTime
    at: UtcTime


def parked(group: str, row: Row) -> Parked:
    return Parked(
        group,
        row["name"],
        row.get("since"),
        row.get("code") or "",
        row.get("reason") or "",
        int(row.get("letters") or 0),
    )


def gap(row: Row) -> Gap:
    found = read_gap(row)
    return Gap(found.group, found.stream, found.shard, found.state, found.since, found.until, found.at)
